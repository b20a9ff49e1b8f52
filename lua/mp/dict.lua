--- The dict of a manager: what its methods do that are not in the core.
--
-- Keys are strings, numbers and booleans, 1 and 1.0 being the same key, and
-- keep the order in which they came. nil is no value: to set a key to it
-- deletes the key. In the core are
--   d[k] d.k d[k] = v #d              nil where there is no such key
--   d:get(k [, default]) d:set(k, v)  the same for any key
--   d:contains(k) d:clear()
--   d:pop(k [, default]) d:popitem()  take out; raise KeyError
--   d:setdefault(k, v)                what stands there, v if nothing did
--   d:append(v)                       d[#d + 1] = v in one step: an empty
--                                     table that is stored becomes a dict, and
--                                     may be meant as a list
-- The name of a method is no key for d[k] and d.k: d.keys is the method, and
-- `d.keys = v` raises TypeError. By get and set it is a key like any other.

local container = require "mp.container"
local core = require "mp.core"
local errors = require "mp.errors"

local native = core.container
local snapshot = native.snapshot

local M, check_self = container.class("dict")
local methods, meta = M._methods, M._meta

--- The keys, in order.
---@return table a list with n
function methods:keys()
    check_self("keys", self)
    local _, n, keys = snapshot(self, "keys")
    keys.n = n
    return keys
end

--- The values, in the order of their keys.
---@return table a list with n
function methods:values()
    check_self("values", self)
    local values, n = snapshot(self)
    values.n = n
    return values
end

--- Keys and values, in order. (`for k, v in pairs(d)` makes no tables.)
---@return table a list with n of pairs {key, value}
function methods:items()
    check_self("items", self)
    local values, n, keys = snapshot(self)
    local list = {n = n}
    for i = 1, n do
        list[i] = {keys[i], values[i]}
    end
    return list
end

--- Keys and values of what update is given.
function M._entries(fn, other)
    if native.kind(other) == "dict" then
        local values, n, keys = snapshot(other)
        return values, n, keys
    elseif type(other) ~= "table" or getmetatable(other) ~= nil then
        errors._raise("TypeError", "%s: table or dict expected, got %s", fn,
            errors._show(other))
    end
    local keys, values, n = {}, {}, 0
    for key, value in next, other do
        n = n + 1
        keys[n], values[n] = key, value
    end
    return values, n, keys
end

--- Sets all that a table or another dict has, in one step.
---@param other table|userdata
-- Raises TypeError: then nothing changes.
function methods:update(other)
    check_self("update", self)
    native.add(self, "update", M._entries("update", other))
end

--- A new dict with what both have; where both have a key, the second's value
-- (metamethod __bor).
---@param a userdata|table
---@param b userdata|table
---@return userdata dict
function meta.__bor(a, b)
    local dict = native.new("dict", M._entries("|", a))
    native.add(dict, "|", M._entries("|", b))
    return dict
end

--- Makes what stands under `key` f of it, as one step: if another process
-- changes it meanwhile, f is called again, with what stands there then.
---@param key any
---@param f function nil as its result deletes the key
---@param default any what f gets where there is no such key
---@return any what stands there now; of a plain table, the container made of
--   it
-- Raises TypeError, and what f raises: then nothing changes.
function methods:update_with(key, f, default)
    check_self("update_with", self)
    container.check_function("update_with", f)
    return container.update_with(self, key, f, default)
end

return M
