--- The logger of mp: lines on stderr with level and process name.

local core = require "mp.core"
local errors = require "mp.errors"
local process = require "mp.process"

local M = {}

--- Levels, as Python numbers them.
local LEVELS <const> = {debug = 10, info = 20, warning = 30, error = 40}

---@class mp.Logger
local Logger = {__name = "mp.Logger"}
Logger.__index = Logger

-- One per process; a child inherits it as it stands at its birth.
local logger = setmetatable({_level = LEVELS.warning, _shown = false}, Logger)

local function write(self, level, message, ...)
    if not self._shown or LEVELS[level] < self._level then
        return
    end
    local text = select("#", ...) > 0 and message:format(...)
        or tostring(message)
    -- One write, so that lines of several processes do not mix.
    io.stderr:write(("[%s/%s] %s\n"):format(level:upper(),
        process.current_process().name, text))
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

--- The logger of this process. It is silent until log_to_stderr is called.
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
