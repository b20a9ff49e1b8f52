--- Functions as jobs: their names in messages, and how arguments are bound
-- to their parameters.

local core = require "mp.core"
local errors = require "mp.errors"

local M = {}

-- More than this does not fit on Lua's stack.
local MOST_ARGS <const> = 1000000 - 1000

local NO_ARGS <const> = {n = 0}
local parameters <const> = core.process.parameters

-- Names ---------------------------------------------------------------------

local function key_of(module, f)
    for key, value in next, module do
        if rawequal(value, f) and type(key) == "string" then
            return key
        end
    end
    return nil
end

--- The name of a function in the globals or in a loaded module.
local function global_name(f)
    local name = key_of(_G, f)
    if name then
        return name
    end
    for module, fields in next, package.loaded do
        name = type(fields) == "table" and key_of(fields, f)
        if name and type(module) == "string" then
            return module .. "." .. name
        end
    end
    return nil
end

--- How messages call a function: by its global name, else by its place,
-- «script.lua:12». What is no function is called by its type.
---@param f any
---@return string
function M.name(f)
    if type(f) ~= "function" then
        return errors._show(f)
    end
    local info = debug.getinfo(f, "S")
    return global_name(f) or
        (info.what == "C" and "a C function") or
        string.format("%s:%d", info.short_src, info.linedefined)
end

--- The same as the subject of a sentence: «job()», «function script.lua:12».
local function subject(f)
    if type(f) == "function" and not global_name(f) then
        local name = M.name(f)
        return debug.getinfo(f, "S").what == "C" and name or
            "function " .. name
    end
    return M.name(f) .. "()"
end

-- Binding -------------------------------------------------------------------

--- The function behind a callable, and how many of its first parameters are
-- taken (by the object itself).
local function behind(f)
    if type(f) == "function" then
        return f, 0
    end
    local metatable = debug.getmetatable(f)
    local called = metatable and rawget(metatable, "__call")
    if type(called) == "function" then
        return called, 1
    end
    return nil, 0
end

local function plural(n)
    return string.format("%d argument%s", n, n == 1 and "" or "s")
end

--- Number of the parameter with this name, or nil.
local function parameter(f, name, from, to)
    for i = from, to do
        if debug.getlocal(f, i) == name then
            return i
        end
    end
    return nil
end

local function bind_names(f, called, taken, params, packed, kwargs)
    local given = packed.n
    if debug.getinfo(called, "S").what == "C" then
        errors._raise("TypeError", "%s takes no keyword arguments",
            subject(f))
    end
    for name, value in pairs(kwargs) do
        local i = parameter(called, name, taken + 1, taken + params)
        if not i then
            errors._raise("TypeError",
                "%s got an unexpected keyword argument '%s'", subject(f),
                tostring(name))
        elseif i - taken <= given then
            errors._raise("TypeError",
                "%s got multiple values for argument '%s'", subject(f), name)
        end
        packed[i - taken] = value
        packed.n = math.max(packed.n, i - taken)
    end
end

--- Number of values in a list of arguments: its `n`, else its length.
---@param fn string the function that was given the list
---@param args table
---@return integer
function M.count(fn, args)
    local n = args.n
    if n == nil then
        n = #args
    end
    local count = math.type(n) and math.tointeger(n)
    if not count or count < 0 or count > MOST_ARGS then
        errors._raise("ValueError", "%s: args.n is %s", fn, errors._show(n))
    end
    return count
end

--- Binds arguments by position and by name to the parameters of a function.
---@param f function or what has __call
---@param args table list, `n` honoured
---@param kwargs table|nil {name = value}
---@return table args and kwargs in the order of the parameters, with n
-- Raises TypeError: too many, an unknown name, a name that is also given by
-- position. (What has no parameters to check, a C function, say, gets what
-- it is given; names are refused.)
function M.bind(f, args, kwargs)
    if args == NO_ARGS and kwargs == nil then
        return args
    end
    local n = M.count("call", args)
    local named = kwargs ~= nil and next(kwargs) ~= nil
    if n == 0 and not named then
        return NO_ARGS
    end
    local called, taken = behind(f)
    local params, vararg = 0, true
    if called then
        params, vararg = parameters(called)
        params = math.max(params - taken, 0)
    end
    if n > params and not vararg then
        errors._raise("TypeError", "%s takes %s (%d given)", subject(f),
            plural(params), n)
    end
    local packed = args
    if named or args.n ~= n then
        packed = table.move(args, 1, n, 1, {n = n})
    end
    if named and called then
        bind_names(f, called, taken, params, packed, kwargs)
    end
    return packed
end

--- A copy of a list of arguments, checked.
---@param fn string the function that was given the list
---@param args table|nil
---@return table with n
function M.copy_args(fn, args)
    if args == nil then
        return NO_ARGS
    end
    errors._check(fn, "args", args, "table")
    local n = M.count(fn, args)
    if n == 0 and args.n == nil and next(args) ~= nil then
        errors._raise("TypeError",
            "%s: args must be a list, got a table without items 1 to n", fn)
    end
    return table.move(args, 1, n, 1, {n = n})
end

--- A copy of a table of named arguments, checked; nil when there are none.
---@param fn string the function that was given the table
---@param kwargs table|nil
---@return table|nil
function M.copy_kwargs(fn, kwargs)
    if kwargs == nil then
        return nil
    end
    errors._check(fn, "kwargs", kwargs, "table")
    local copy = {}
    for name, value in pairs(kwargs) do
        if type(name) ~= "string" then
            errors._raise("TypeError",
                "%s: kwargs: names must be strings, got %s", fn,
                errors._show(name))
        end
        copy[name] = value
    end
    return next(copy) ~= nil and copy or nil
end

return M
