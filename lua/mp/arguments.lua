--- What the methods of a pool are given: counts, callables, options, and what
-- they run over. Each function takes the name of the method first, for its
-- messages.

local containers = require("mp.core").container
local errors = require "mp.errors"
local named = require "mp.named"
local progress = require "mp.progress"

local M = {}

--- An integer of at least `min`. Raises TypeError, ValueError.
---@param fn string
---@param value any
---@param min integer
---@param text string what is expected
---@return integer
function M.check_count(fn, value, min, text)
    if type(value) ~= "number" then
        errors._raise("TypeError", "%s: %s, got %s", fn, text,
            errors._show(value))
    end
    local n = math.tointeger(value)
    if not n or n < min then
        errors._raise("ValueError", "%s: %s, got %s", fn, text,
            tostring(value))
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

--- A function, or one for what else can be called. Raises TypeError.
---@param fn string
---@param f any
---@param what string the argument's name
---@return function
function M.check_function(fn, f, what)
    if type(f) == "function" then
        return f
    end
    if not M.is_callable(f) then
        errors._raise("TypeError", "%s: %s must be a callable, got %s", fn,
            what, errors._show(f))
    end
    return function(...) return f(...) end
end

--- Raises TypeError unless `value` is nil or can be called.
---@param fn string
---@param value any
---@param what string the argument's name
function M.check_callable(fn, value, what)
    if value ~= nil and not M.is_callable(value) then
        errors._raise("TypeError", "%s: %s must be a callable, got %s", fn,
            what, errors._show(value))
    end
end

-- Options --------------------------------------------------------------------

--- Those of lua/mp/controls.lua, and others.
local function controlled(names)
    for _, name in ipairs{"timeout", "grace", "retries", "backoff",
                          "max_crashes", "priority", "seed", "retry_if"} do
        names[name] = true
    end
    return names
end

local MAP_OPTIONS <const> = controlled{
    chunksize = true, callback = true, error_callback = true,
    on_error = true, progress = true,
}
local IMAP_OPTIONS <const> = controlled{
    buffersize = true, chunksize = true, progress = true,
}
local OPTIONS <const> = {
    apply_async = controlled{callback = true, error_callback = true},
    imap = IMAP_OPTIONS, imap_unordered = IMAP_OPTIONS,
}

local function is_options(value)
    return type(value) == "table" and getmetatable(value) == nil
end

--- Is this the fourth value of an iterator, as in map(f, io.lines(path))?
---@param value any
---@return boolean
function M.is_closing_value(value)
    local meta = getmetatable(value)
    return type(meta) == "table" and meta.__close ~= nil
end

--- A chunksize by position, and the other options in a table behind it.
local function with_chunksize(fn, chunksize, given)
    local opts = {chunksize = chunksize}
    for name, value in pairs(given) do
        if opts[name] ~= nil then
            errors._raise("TypeError", "%s: chunksize is given twice", fn)
        end
        opts[name] = value
    end
    return opts
end

--- Raises ValueError unless it is an on_error, or nil.
---@param fn string
---@param policy any
function M.check_policy(fn, policy)
    if policy ~= nil and policy ~= "raise" and policy ~= "collect"
        and policy ~= "stop" then
        errors._raise("ValueError",
            "%s: on_error must be 'raise', 'collect' or 'stop', got %s", fn,
            errors._show(policy))
    end
end

--- The options of a map, where the pool says what they do not.
---@param opts table
---@param policy string|nil the pool's on_error
---@return table
function M.with_policy(opts, policy)
    if policy == nil or opts.on_error ~= nil then
        return opts
    end
    local all = {on_error = policy}
    for name, value in pairs(opts) do
        all[name] = value
    end
    return all
end

local function check_options(fn, opts)
    local known = OPTIONS[fn] or MAP_OPTIONS
    for name in pairs(opts) do
        if not known[name] then
            errors._raise("TypeError", "%s: unknown option %s", fn,
                errors._show(name))
        end
    end
    M.check_policy(fn, opts.on_error)
    M.check_callable(fn, opts.callback, "callback")
    M.check_callable(fn, opts.error_callback, "error_callback")
    progress._check(fn, opts.progress)
    return opts
end

--- The options of a call: a table in the place of the first one, or by
--- position.
---@param fn string
---@param chunksize integer|table|nil
---@param callback function|table|nil
---@param error_callback function|nil
---@param ... any what is too much
---@return table
function M.options(fn, chunksize, callback, error_callback, ...)
    named.no_more(fn, 5, ...)
    if chunksize == nil and callback == nil
        and M.is_closing_value(error_callback) then
        error_callback = nil
    end
    local opts
    if is_options(chunksize) then
        named.alone(fn, callback, error_callback)
        opts = chunksize
    elseif is_options(callback) then
        named.alone(fn, error_callback)
        opts = with_chunksize(fn, chunksize, callback)
    else
        opts = {
            chunksize = chunksize, callback = callback,
            error_callback = error_callback,
        }
    end
    return check_options(fn, opts)
end

--- The chunksize among the options; 0: to be chosen.
---@param fn string
---@param opts table
---@return integer
function M.chunk_of(fn, opts)
    if opts.chunksize == nil then
        return 0
    end
    return M.check_count(fn, opts.chunksize, 1,
        "chunksize must be an integer of at least 1")
end

--- How far ahead of what was taken the input may be drawn, among the options;
--- nil: to be chosen.
---@param fn string
---@param opts table
---@return integer|nil
function M.ahead_of(fn, opts)
    return opts.buffersize ~= nil and M.check_count(fn, opts.buffersize, 1,
        "buffersize must be nil or > 0") or nil
end

-- Iterables ------------------------------------------------------------------

--- Number of items in a list: its `n`, else its length.
---@param fn string
---@param list table
---@return integer
function M.count_items(fn, list)
    local n = rawget(list, "n")
    if n ~= nil then
        return M.check_count(fn, n, 0,
            "a list's n must be an integer of at least 0")
    end
    n = #list
    if n == 0 and next(list) ~= nil then
        errors._raise("TypeError",
            "%s: an iterable is a list, got a table without items 1 to n", fn)
    end
    return n
end

--- The items of a manager's list or set and the keys of its dict, as they are
-- at one moment: a list and its length, or nil.
local function items_of(value)
    local kind = containers.kind(value)
    if kind and kind ~= "Namespace" then
        local values, n, keys = containers.snapshot(value)
        return keys or values, n
    end
end

--- What an iterable is to the core: source, count, step.
---@param fn string
---@param iterable any
---@return any source
---@return integer|nil count
---@return integer|nil step
function M.source_of(fn, iterable)
    local kind = type(iterable)
    if kind == "function" then
        return iterable
    end
    local items, n = items_of(iterable)
    if items then
        return items, n
    end
    local meta = getmetatable(iterable)
    meta = type(meta) == "table" and meta or nil
    if kind == "table" and meta and meta.__name == "mp.range"
        and math.type(iterable.start) == "integer"
        and math.type(iterable.step) == "integer" then
        return iterable.start, #iterable, iterable.step
    end
    if kind == "table" and (not meta or not meta.__call) then
        return iterable, M.count_items(fn, iterable)
    end
    if meta and meta.__len and meta.__index then
        return iterable, #iterable
    end
    if meta and meta.__call then
        return function() return iterable() end
    end
    errors._raise("TypeError", "%s: an iterable is a list, mp.range, a "
        .. "shared array or an iterator function, got %s", fn,
        errors._show(iterable))
end

--- Lists what an iterator function gives, so that its length is known.
---@param source any
---@param count integer|nil
---@param step integer|nil
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
