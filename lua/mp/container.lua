--- What the containers of a manager have in common: list, dict, set and
-- Namespace (mp.list, mp.dict, mp.set, mp.namespace) are views of shared
-- tables, which the core reads and changes, one change at a time.
--
-- What takes more than one change is computed here on a snapshot, and takes
-- the place of what was there if nobody has changed that meanwhile; else it
-- is computed again. So every method is atomic, and no lock is held while
-- Lua runs: a function that a user gives may be called more than once.

local arguments = require "mp.arguments"
local core = require "mp.core"
local errors = require "mp.errors"

local native = core.container
local kind_of, identity, snapshot = native.kind, native.identity,
    native.snapshot

local M = {}

--- Raises TypeError unless a method was called with its object, and the
-- StateError of one that was closed.
---@param fn string the method
---@param kind string "list", ...
---@param self any
function M.check_self(fn, kind, self)
    if kind_of(self) ~= kind then
        errors._raise("TypeError",
            "%s: argument 'self': %s expected, got %s (use ':')", fn, kind,
            errors._show(self))
    end
end

--- Raises TypeError unless `f` can be called.
---@param fn string the method
---@param f any
function M.check_function(fn, f)
    if not arguments.is_callable(f) then
        errors._raise("TypeError", "%s: f must be a callable, got %s", fn,
            errors._show(f))
    end
end

--- Changes all that a container holds in one step.
-- `compute(values, n, keys)` is given copies and returns the new values,
-- their number, the new keys (nil for a list) and a result; nil for values
-- that are to stay as they are. It may be called again.
---@param container userdata
---@param compute function
---@return any the result
function M.change(container, compute)
    while true do
        local values, n, keys, version = snapshot(container)
        local new, count, new_keys, result = compute(values, n, keys)
        if not new or native.replace(container, version, new, count,
            new_keys) then
            return result
        end
    end
end

--- Makes what stands under `key` f of it, in one step; nil deletes it (from
-- a list: makes it nil). If another process changes it meanwhile, f is called
-- again, with what stands there then; so, too, if f itself changes it: an f
-- that always does is called for ever.
---@param container userdata
---@param key any
---@param f function
---@param default any what f gets where there is nothing
---@return any what stands there now
-- Raises what f raises: then nothing changes.
function M.update_with(container, key, f, default)
    while true do
        local old, version = native.read(container, key)
        if old == nil then
            old = default
        end
        local new = native.value(f(old))
        if native.write(container, key, new, version) then
            return new
        end
    end
end

-- Copying out ----------------------------------------------------------------

--- Fills `t` with the items of a container; `copy_of` says what stands for
-- a nested one.
local function fill(t, container, copy_of)
    local values, n, keys = snapshot(container)
    local kind = kind_of(container)
    if kind == "set" then
        table.move(keys, 1, n, 1, t)
        return
    end
    local holes = false
    for i = 1, n do
        local value = copy_of(values[i])
        if keys then
            t[keys[i]] = value
        else
            t[i] = value
            holes = holes or value == nil
        end
    end
    if holes then
        t.n = n
    end
end

--- A plain copy of a container and of all containers in it. Where one of them
-- stands twice, its copy does, too. Each is copied as it is at one moment; all
-- together are not.
---@param container userdata
---@return table
function M.totable(container)
    local made, todo, done = {}, {}, 0
    local function copy_of(value)
        local id = identity(value)
        if not id then
            return value
        end
        if not made[id] then
            made[id] = {}
            todo[#todo + 1] = value
        end
        return made[id]
    end
    local result = copy_of(container)
    while done < #todo do
        done = done + 1
        fill(made[identity(todo[done])], todo[done], copy_of)
    end
    return result
end

-- Comparing ------------------------------------------------------------------

local equal

--- Are two items equal? Containers are by what they hold.
local function same_item(x, y, open)
    if kind_of(x) and kind_of(y) then
        return equal(x, y, open)
    end
    return x == y
end

local function same_lists(a, b, n, open)
    for i = 1, n do
        if not same_item(a[i], b[i], open) then
            return false
        end
    end
    return true
end

local function by_key(keys, values, n)
    local map = {}
    for i = 1, n do
        map[keys[i]] = values[i]
    end
    return map
end

--- `open`: pairs that are being compared, and are equal as far as is known.
function equal(x, y, open)
    local a, b = identity(x), identity(y)
    if a == b then
        return true
    elseif kind_of(x) ~= kind_of(y) then
        return false
    end
    local pair = a .. " " .. b
    if open[pair] then
        return true
    end
    open[pair] = true
    local values, n, keys = snapshot(x)
    local others, m, other_keys = snapshot(y)
    if n ~= m then
        return false
    elseif not keys then
        return same_lists(values, others, n, open)
    end
    local map = by_key(other_keys, others, n)
    for i = 1, n do
        if map[keys[i]] == nil
            or not same_item(values[i], map[keys[i]], open) then
            return false
        end
    end
    return true
end

--- Do two containers of one class hold the same? (metamethod __eq)
---@param a any
---@param b any
---@return boolean
function M.equal(a, b)
    return kind_of(a) ~= nil and kind_of(b) ~= nil and equal(a, b, {})
end

-- Showing --------------------------------------------------------------------

local show

local function show_items(container, kind, open)
    local repr = require("mp.repr")
    local values, n, keys = snapshot(container)
    local parts = {}
    for i = 1, n do
        if kind == "set" then
            parts[i] = repr.repr(keys[i])
        else
            local text = show(values[i], open)
            parts[i] = keys and repr._key(keys[i]) .. " = " .. text or text
        end
    end
    return table.concat(parts, ", ")
end

function show(value, open)
    local kind, id = kind_of(value), identity(value)
    if not kind then
        return require("mp.repr").repr(value)
    elseif open[id] then
        return "<cycle>"
    end
    open[id] = true
    local text = kind .. "{" .. show_items(value, kind, open) .. "}"
    open[id] = nil
    return text
end

--- What a container holds, as text: «dict{a = 1, b = list{2, 3}}»; of a
-- closed one, that it is (metamethod __tostring).
---@param container userdata
---@return string
function M.tostring(container)
    if native.is_closed(container) then
        return "<" .. kind_of(container) .. " (closed)>"
    end
    return show(container, {})
end

-- Walking --------------------------------------------------------------------

--- The loop over a snapshot: key and value, or place and item
-- (metamethod __pairs).
---@param container userdata
---@return function
function M.pairs(container)
    local values, n, keys = snapshot(container)
    local i = 0
    return function()
        if i < n then
            i = i + 1
            if keys then
                return keys[i], values[i]
            end
            return i, values[i]
        end
    end
end

-- Classes --------------------------------------------------------------------

--- What the module of a class begins with: metamethods, the methods that
-- list, dict and set have in common, and the check of their object.
---@param kind string "list", ...
---@return table module
---@return function check_self(fn, self)
function M.class(kind)
    local methods = {}

    local function check_self(fn, self)
        M.check_self(fn, kind, self)
    end

    --- A new container with the same items; containers among them are shared
    -- by both.
    ---@return userdata
    function methods:copy()
        check_self("copy", self)
        local values, n, keys = snapshot(self)
        return native.new(kind, values, n, keys)
    end

    --- A plain table with copies of all, nested containers too; with n if an
    -- item of a list is nil.
    ---@return table
    function methods:totable()
        check_self("totable", self)
        return M.totable(self)
    end

    local meta = {
        __eq = M.equal, __pairs = M.pairs, __tostring = M.tostring,
    }
    return {_methods = methods, _meta = meta}, check_self
end

return M
