--- Keys by which the processes of a program know each other.
--
-- A key is bytes that a process has from the one that started it. It is not
-- to leave the program: it can be pickled only on the way into a process
-- that is being started.

local errors = require "mp.errors"

local M = {}

local may_travel = false

local Key = {__name = "AuthenticationString"}
Key.__index = Key

--- Wraps the bytes of a key.
---@param bytes string
---@return table tostring gives the bytes, # their number; == compares them
function M.new(bytes)
    return setmetatable({_bytes = bytes}, Key)
end

function Key:__tostring()
    return self._bytes
end

function Key:__len()
    return #self._bytes
end

function Key.__eq(a, b)
    return getmetatable(a) == Key and getmetatable(b) == Key
        and rawget(a, "_bytes") == rawget(b, "_bytes")
end

function Key:__reduce()
    M.check_travel()
    return M.new, self._bytes
end

--- The bytes of a key, given as such or wrapped.
---@param key any
---@return string
-- Raises TypeError.
function M.bytes(key)
    if type(key) == "table" and getmetatable(key) == Key then
        return key._bytes
    elseif type(key) ~= "string" then
        errors._raise("TypeError", "authkey should be a byte string, got %s",
            errors._show(key))
    end
    return key
end

--- Raises TypeError but while a process is started: for what holds a key.
function M.check_travel()
    if not may_travel then
        errors._raise("TypeError", "Pickling an AuthenticationString object "
            .. "is disallowed for security reasons")
    end
end

local function settle(before, ok, ...)
    may_travel = before
    if not ok then
        error((...), 0)
    end
    return ...
end

--- Calls f(...), during which keys may be pickled.
---@param f function
---@return any ... what f returns
function M.starting(f, ...)
    local before = may_travel
    may_travel = true
    return settle(before, pcall(f, ...))
end

return M
