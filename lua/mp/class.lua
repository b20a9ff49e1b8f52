--- Classes with single inheritance and computed fields.
--
--     local Point = class.new("Point")
--     function Point:init(x) self.x = x end       -- the constructor's hook
--     function Point._get:double() return 2 * self.x end
--     function Point._set:double(v) self.x = v / 2 end
--     local p = Point(3)
--
-- A class is the metatable of its objects. A computed field is looked up
-- before a method of that name; one without a setter cannot be assigned.
-- What starts with "__" is inherited by copying, when the class is made.
--
-- A class that has no name to travel by (its variable is local, say) travels
-- by value: it is made anew from its name and its base, and then gets the
-- fields of its own. So methods may refer to their class.

local errors = require "mp.errors"

local M = {}

local function index(class)
    local get = class._get
    return function(object, key)
        local getter = get[key]
        if getter then
            return getter(object)
        end
        return class[key]
    end
end

local function newindex(class)
    local get, set = class._get, class._set
    return function(object, key, value)
        local setter = set[key]
        if setter then
            setter(object, value)
        elseif get[key] then
            errors._raise("TypeError", "%s: field '%s' cannot be assigned",
                class.__name, key)
        else
            rawset(object, key, value)
        end
    end
end

--- The constructor of a class without one of its own: an empty object, and
-- its `init`.
local function construct(class, ...)
    local object = setmetatable({}, class)
    object:init(...)
    return object
end

local function inherit_metamethods(class, base)
    for key, value in pairs(base or {}) do
        if type(key) == "string" and key:sub(1, 2) == "__" then
            class[key] = value
        end
    end
end

-- Fields that new() makes, and inherit_metamethods.
local MADE <const> = {
    __name = true, __index = true, __newindex = true, _base = true,
    _get = true, _set = true,
}

local function copy_raw(from)
    local to = {}
    for key, value in next, from do
        to[key] = value
    end
    return to
end

--- What a class has that new() does not give it.
local function state_of(class)
    local base, fields = class._base, {}
    for key, value in next, class do
        local inherited = base and type(key) == "string" and
            key:sub(1, 2) == "__" and rawequal(value, base[key])
        if not MADE[key] and not inherited then
            fields[key] = value
        end
    end
    return {fields = fields, get = copy_raw(class._get),
        set = copy_raw(class._set)}
end

local function give_state(class, state)
    for key, value in next, state.fields do
        rawset(class, key, value)
    end
    for name, getter in next, state.get do
        rawset(class._get, name, getter)
    end
    for name, setter in next, state.set do
        rawset(class._set, name, setter)
    end
end

--- Makes a class.
---@param name string
---@param base table|nil a class
---@return table
function M.new(name, base)
    local class = {}
    inherit_metamethods(class, base)
    class.__name = name
    class._base = base
    class._get = setmetatable({}, {__index = base and base._get})
    class._set = setmetatable({}, {__index = base and base._set})
    class.__index = index(class)
    class.__newindex = newindex(class)
    return setmetatable(class, {
        __index = base,
        __name = "class " .. name,
        __call = function(_, ...)
            return class:_construct(...)
        end,
        __reduce = function()
            return M.new, name, base
        end,
        __getstate = state_of,
        __setstate = give_state,
    })
end

--- Lets a class travel as what find(...) returns where it arrives.
---@param class table
---@param find function one that has a name
---@return table class
function M.by_name(class, find, ...)
    local metatable, args = getmetatable(class), table.pack(...)
    function metatable.__reduce()
        return find, table.unpack(args, 1, args.n)
    end
    metatable.__getstate, metatable.__setstate = nil, nil
    return class
end

--- Raises TypeError unless a method was called with an object of its class:
-- p.start() for p:start(), say.
---@param fn string the method
---@param class table
---@param self any
function M.check_self(fn, class, self)
    local of = type(self) == "table" and getmetatable(self)
    while of ~= class do
        of = type(of) == "table" and rawget(of, "_base")
        if not of then
            errors._raise("TypeError",
                "%s: argument 'self': %s expected, got %s (use ':')", fn,
                class.__name, errors._show(self))
        end
    end
end

--- Fills a base class with what every class has.
---@param class table made by `new` without a base
---@return table class
function M.root(class)
    class._construct = construct
    function class.init() end
    --- A class that inherits from this one.
    ---@param name string
    ---@return table
    function class:extend(name)
        errors._check("extend", "name", name, "string")
        return M.new(name, self)
    end
    return class
end

return M
