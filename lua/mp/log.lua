--- The logger of mp: lines on stderr with level and process name.

local core = require "mp.core"
local errors = require "mp.errors"
local M = {}

--- How a line is written; set while the last one on the terminal is to stay
-- the last (progress.lua). nil: as it is.
---@type function|nil
M._write = nil

--- Levels, as Python numbers them.
local LEVELS <const> = {
    subdebug = 5, debug = 10, info = 20, subwarning = 25, warning = 30,
    error = 40,
}

---@class mp.Logger
local Logger = {__name = "mp.Logger"}
Logger.__index = Logger

-- One per process, and what it has been warned of. A child has them as they
-- stand at its birth.
local logger <const> = setmetatable({}, Logger)
local warned

--- Makes the logger what this process was told of it.
function M._receive()
    local told = core.process.birth()
    local inherited = told and told.log or
        {level = LEVELS.warning, shown = false, warned = {}}
    logger._level, logger._shown = inherited.level, inherited.shown
    warned = inherited.warned
end

M._receive()

--- Writes a line; in one write, so that lines of several processes do not mix.
local function put(level, text)
    local name = require("mp.process").current_process().name
    local line = ("[%s/%s] %s\n"):format(level:upper(), name, text)
    if M._write then
        return M._write(line)
    end
    io.stderr:write(line)
    io.stderr:flush()
end

local function write(self, level, message, ...)
    if self._shown and LEVELS[level] >= self._level then
        local ok, text = true, tostring(message)
        if select("#", ...) > 0 then
            ok, text = pcall(string.format, message, ...)
        end
        if not ok then
            errors._raise("TypeError", "%s: %s", level, text)
        end
        put(level, text)
    end
end

--- Log a line of that level; more arguments are formatted into it.
---@param message any
function Logger:debug(message, ...)
    write(self, "debug", message, ...)
end

---@param message any
function Logger:info(message, ...)
    write(self, "info", message, ...)
end

---@param message any
function Logger:warning(message, ...)
    write(self, "warning", message, ...)
end

---@param message any
function Logger:error(message, ...)
    write(self, "error", message, ...)
end

--- Logs a line of a level that has no method.
---@param level string "subdebug", "subwarning"
---@param message any
function M._log(level, message, ...)
    write(logger, level, message, ...)
end

--- Lets lines of this level and above through.
---@param level string|integer "debug", "info", "warning", "error", or a number
-- Raises ValueError, TypeError.
function Logger:set_level(level)
    local number = LEVELS[level] or (type(level) == "string"
        and LEVELS[level:lower()]) or math.tointeger(level)
    if not number then
        error(core.error.new("ValueError", ("set_level: 'debug', 'info', "
            .. "'warning', 'error' or an integer expected, got %s"):format(
            errors._show(level)), nil, 2), 0)
    end
    self._level = number
end

--- Warns of something that mp has seen, once: also on stderr that was not
-- chosen by log_to_stderr, unless the logger's level is above.
---@param key string what about
---@param text string
function M._warn_once(key, text)
    if not warned[key] then
        warned[key] = true
        if LEVELS.warning >= logger._level then
            put("warning", text)
        end
    end
end

--- What a fresh child is to know of the logger; nil: nothing.
---@return table|nil
function M._birth()
    if logger._shown or logger._level ~= LEVELS.warning or next(warned) then
        return {level = logger._level, shown = logger._shown,
            warned = warned}
    end
    return nil
end

--- The logger of this process. It says nothing until log_to_stderr is called.
---@return mp.Logger
function M.get_logger()
    return logger
end

--- Shows what the logger is told on stderr, in this process and in those that
--- it starts from now on.
---@param level? string|integer as set_level; nil: unchanged
---@return mp.Logger
function M.log_to_stderr(level)
    if level ~= nil then
        logger:set_level(level)
    end
    logger._shown = true
    return logger
end

return M
