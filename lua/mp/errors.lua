--- Error objects: what everything in mp raises.
--
-- An error object is a table {kind, message, where, ...fields of its kind}
-- with one metatable; tostring gives «kind: message». `where` is the
-- caller's place, «script.lua:12:», as in Lua's own messages.

local core = require "mp.core"

local M = {}

-- Sources of our own modules begin with this: "=mp/" where they are part of
-- the program, a directory where they are files.
local OURS <const> = debug.getinfo(1, "S").source:match("^(.*)errors%.lua$")
core.error.home(OURS)

--- Level of the nearest Lua function that is not of this library, as the
-- caller of this one counts.
local function level_outside()
    local level = 3
    local info = debug.getinfo(level, "S")
    while info and (info.what == "C" or
                    info.source:sub(1, #OURS) == OURS) do
        level = level + 1
        info = debug.getinfo(level, "S")
    end
    return level - 1
end

--- Makes an error object whose place is the line that called into mp.
---@param kind string "ValueError", ...
---@param message string
---@param fields table|nil what else it holds
---@return table
function M._new(kind, message, fields)
    return core.error.new(kind, message, fields, level_outside())
end

--- Raises an error object; the message is formatted.
---@param kind string
---@param format string as for string.format
---@param ... any
function M._raise(kind, format, ...)
    local message = select("#", ...) > 0 and format:format(...) or format
    error(core.error.new(kind, message, nil, level_outside()), 0)
end

--- Raises an error object of the core's as one whose place is the line that
-- called into mp.
---@param e table
function M._again(e)
    e.where = core.error.new(e.kind, e.message, nil, level_outside()).where
    error(e, 0)
end

--- Raises what a process has sent: an error object that came without a place
-- gets the line that called into mp.
---@param e any
function M._arrive(e)
    if core.error.is(e) and (e.where == nil or e.where == "") then
        M._again(e)
    end
    error(e, 0)
end

--- Is `value` an error object (of this kind)?
---@param value any
---@param kind string|nil
---@return boolean
function M.iserror(value, kind)
    return core.error.is(value, kind)
end

--- How a value is called in messages: strings quoted, tables by their type.
---@param value any
---@return string
function M._show(value)
    local kind = type(value)
    if kind == "string" then
        return string.format("'%s'", value)
    elseif kind == "number" or kind == "boolean" or kind == "nil" then
        return tostring(value)
    end
    local metatable = debug.getmetatable(value)
    local name = metatable and rawget(metatable, "__name")
    return "a " .. (type(name) == "string" and name or kind)
end

--- Raises TypeError unless `value` is of the type.
---@param fn string the function's name, as its users write it
---@param name string the argument's
---@param value any
---@param expected string a type's name
---@return any value
function M._check(fn, name, value, expected)
    if type(value) ~= expected then
        M._raise("TypeError", "%s: argument '%s': %s expected, got %s", fn,
            name, expected, M._show(value))
    end
    return value
end

--- The text that a program shows for an error that nobody caught, as the
-- main program writes it: place and message, or what tostring says, and a
-- traceback. To be called by a message handler.
---@param e any
---@param level integer where the traceback begins; 1: in the caller
---@return string
function M._describe(e, level)
    local text = e
    if core.error.is(e) then
        local where = rawget(e, "where")
        local place = type(where) == "string" and where:match("^.*%S") or ""
        text = place .. (place ~= "" and " " or "") .. tostring(e)
        if e.kind == "Interrupted" then
            return text -- by Ctrl-C: everybody may have one to tell
        end
    elseif type(e) ~= "string" and type(e) ~= "number" then
        local metatable = debug.getmetatable(e)
        if metatable and metatable.__tostring then
            return tostring(e)
        end
        text = string.format("(error object is a %s value)", type(e))
    end
    return debug.traceback(tostring(text), level + 1)
end

return M
