--- What the methods of a pool are given: counts, callables, options, and what
-- they run over.

local core = require "mp.core"
local errors = require "mp.errors"

local new_error = core.error.new

local M = {}

--- Raises an error object.
---@param kind string
---@param message string a format for what follows
function M.fail(kind, message, ...)
    error(new_error(kind, message:format(...), nil, 3), 0)
end

--- An integer of at least `min`. Raises TypeError, ValueError.
---@param value any
---@param min integer
---@param text string the message's beginning: what is expected
---@return integer
function M.check_count(value, min, text)
    if type(value) ~= "number" then
        M.fail("TypeError", "%s, got %s", text, errors._show(value))
    end
    local n = math.tointeger(value)
    if not n or n < min then
        M.fail("ValueError", "%s, got %s", text, tostring(value))
    end
    return n
end

---@param value any
---@return boolean
function M.is_callable(value)
    if type(value) == "function" then
        return true
    end
    local meta = getmetatable(value)
    return type(meta) == "table" and meta.__call ~= nil
end

--- Raises TypeError unless `value` is nil or can be called.
---@param value any
---@param what string its name
function M.check_callable(value, what)
    if value ~= nil and not M.is_callable(value) then
        M.fail("TypeError", "%s must be a callable, got %s", what, type(value))
    end
end

local CALL_OPTIONS <const> = {
    chunksize = true, callback = true, error_callback = true,
    on_error = true,
}

local function is_options(value)
    return type(value) == "table" and getmetatable(value) == nil
end

--- Is this the fourth value of an iterator, as in map(f, io.lines(path))?
local function is_closing_value(value)
    local meta = getmetatable(value)
    return type(meta) == "table" and meta.__close ~= nil
end

--- The options of a call: a table in the place of the first one, or by
-- position. Raises TypeError, ValueError.
---@return table with chunksize, callback, error_callback, on_error
function M.options(chunksize, callback, error_callback)
    local opts = {}
    if chunksize == nil and callback == nil
        and is_closing_value(error_callback) then
        error_callback = nil
    end
    if is_options(chunksize) then
        opts = chunksize
    elseif is_options(callback) then
        opts = {chunksize = chunksize}
        for name, value in pairs(callback) do
            opts[name] = value
        end
    else
        opts = {
            chunksize = chunksize, callback = callback,
            error_callback = error_callback,
        }
    end
    for name in pairs(opts) do
        if not CALL_OPTIONS[name] then
            M.fail("TypeError", "unknown option '%s'", tostring(name))
        end
    end
    local policy = opts.on_error
    if policy ~= nil and policy ~= "raise" and policy ~= "collect" then
        M.fail("ValueError", "on_error must be 'raise' or 'collect', got %s",
            tostring(policy))
    end
    M.check_callable(opts.callback, "callback")
    M.check_callable(opts.error_callback, "error_callback")
    return opts
end

--- Items per claim; 0: to be chosen.
---@param opts table
---@return integer
function M.chunk_of(opts)
    if opts.chunksize == nil then
        return 0
    end
    return M.check_count(opts.chunksize, 1,
        "chunksize must be an integer of at least 1")
end

--- What an iterable is to the core. Raises TypeError.
---@param iterable any
---@return any source first number, list, or iterator function
---@return integer|nil count nil: not known before its end
---@return integer|nil step
function M.source_of(iterable)
    local kind = type(iterable)
    if kind == "function" then
        return iterable
    end
    local meta = getmetatable(iterable)
    meta = type(meta) == "table" and meta or nil
    if kind == "table" and meta and meta.__name == "mp.range"
        and math.type(iterable.start) == "integer"
        and math.type(iterable.step) == "integer" then
        return iterable.start, #iterable, iterable.step
    end
    if kind == "table" and (not meta or not meta.__call) then
        local n = math.tointeger(rawget(iterable, "n"))
        n = n and n >= 0 and n or #iterable
        if n == 0 and next(iterable) ~= nil and rawget(iterable, "n") == nil
        then
            M.fail("TypeError", "an iterable is a list, got a table without "
                .. "items 1 to n")
        end
        return iterable, n
    end
    if meta and meta.__len and meta.__index then
        return iterable, #iterable
    end
    if meta and meta.__call then
        return function() return iterable() end
    end
    M.fail("TypeError", "an iterable is a list, mp.range, a shared array or "
        .. "an iterator function, got %s", kind)
end

--- Lists what an iterator function gives, so that its length is known.
---@param source any as source_of has it; likewise the others
---@return any source
---@return integer count
---@return integer|nil step
function M.listed(source, count, step)
    if count then
        return source, count, step
    end
    local list, n = {}, 0
    for item in source do
        n = n + 1
        list[n] = item
    end
    return list, n
end

return M
