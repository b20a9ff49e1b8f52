--- The set of a manager: what its methods do that are not in the core.
--
-- Items are strings, numbers and booleans, 1 and 1.0 being the same. In the
-- core are
--   #s
--   s:contains(x) s:clear()
--   s:add(x)       was it new?
--   s:discard(x)   was it there?
--   s:remove(x)    raises KeyError if it was not
--   s:pop()        takes one out; raises KeyError when there is none
-- What a method is given may be any iterable; of two operands of an operator
-- one is a set, and the other iterable, too.

local container = require "mp.container"
local core = require "mp.core"
local list = require "mp.list"

local native = core.container
local snapshot = native.snapshot

local M, check_self = container.class("set")
local methods, meta = M._methods, M._meta

-- Items as tables ------------------------------------------------------------

--- The items of a set or iterable: {item = true}, and in order.
local function read(fn, given)
    local items, n, has = {}, 0, {}
    local from, count
    if native.kind(given) == "set" then
        local _
        _, count, from = snapshot(given, "keys")
    else
        from, count = list._iterable(fn, given)
    end
    for i = 1, count do
        local item = native.key(fn, from[i])
        if not has[item] then
            n = n + 1
            items[n], has[item] = item, true
        end
    end
    return has, items, n
end

--- Those of n items that are in `has`, or are not.
local function only(items, n, has, wanted)
    local kept, count = {}, 0
    for i = 1, n do
        if (has[items[i]] or false) == wanted then
            count = count + 1
            kept[count] = items[i]
        end
    end
    return kept, count
end

-- What becomes of n items of a set, a list without doubles, and another's:
-- a new list and its length.
local WAYS <const> = {}

function WAYS.union(items, n, has, others, m)
    local mine = {}
    for i = 1, n do
        mine[items[i]] = true
    end
    local new, count = only(others, m, mine, false)
    return table.move(new, 1, count, n + 1, table.move(items, 1, n, 1, {})),
        n + count
end

function WAYS.intersection(items, n, has)
    return only(items, n, has, true)
end

function WAYS.difference(items, n, has)
    return only(items, n, has, false)
end

function WAYS.symmetric_difference(items, n, has, others, m)
    local mine = {}
    for i = 1, n do
        mine[items[i]] = true
    end
    local left, count = only(items, n, has, false)
    local right, more = only(others, m, mine, false)
    return table.move(right, 1, more, count + 1, left), count + more
end

-- New sets -------------------------------------------------------------------

--- The set that comes of `given` and one iterable after the other.
local function combine(fn, way, given, ...)
    local _, items, n = read(fn, given)
    for i = 1, select("#", ...) do
        local has, others, m = read(fn, (select(i, ...)))
        items, n = way(items, n, has, others, m)
    end
    return native.new("set", items, n, items)
end

--- A new set of the items that are in this one or in any of the others.
---@param ... any iterables
---@return userdata set
function methods:union(...)
    check_self("union", self)
    return combine("union", WAYS.union, self, ...)
end

--- A new set of the items that are in all of them.
---@param ... any iterables
---@return userdata set
function methods:intersection(...)
    check_self("intersection", self)
    return combine("intersection", WAYS.intersection, self, ...)
end

--- A new set of the items that are in none of the others.
---@param ... any iterables
---@return userdata set
function methods:difference(...)
    check_self("difference", self)
    return combine("difference", WAYS.difference, self, ...)
end

--- A new set of the items that are in one of the two only.
---@param other any iterable
---@return userdata set
function methods:symmetric_difference(other)
    check_self("symmetric_difference", self)
    return combine("symmetric_difference", WAYS.symmetric_difference, self,
        other)
end

function meta.__bor(a, b) return combine("|", WAYS.union, a, b) end
function meta.__band(a, b) return combine("&", WAYS.intersection, a, b) end
function meta.__sub(a, b) return combine("-", WAYS.difference, a, b) end
function meta.__bxor(a, b)
    return combine("~", WAYS.symmetric_difference, a, b)
end

-- In place -------------------------------------------------------------------

local function combine_here(fn, way, self, ...)
    check_self(fn, self)
    local given = {}
    for i = 1, select("#", ...) do
        given[i] = {read(fn, (select(i, ...)))}
    end
    container.change(self, function(_, n, items)
        for _, other in ipairs(given) do
            items, n = way(items, n, table.unpack(other, 1, 3))
        end
        return items, n, items
    end)
end

--- Adds the items of all iterables, in one step.
---@param ... any iterables
function methods:update(...)
    combine_here("update", WAYS.union, self, ...)
end

--- Keeps the items that are in all iterables, too.
---@param ... any iterables
function methods:intersection_update(...)
    combine_here("intersection_update", WAYS.intersection, self, ...)
end

--- Takes out the items of all iterables.
---@param ... any iterables
function methods:difference_update(...)
    combine_here("difference_update", WAYS.difference, self, ...)
end

--- Keeps and adds what is in one of the two only.
---@param other any iterable
function methods:symmetric_difference_update(other)
    combine_here("symmetric_difference_update", WAYS.symmetric_difference,
        self, other)
end

-- Comparing ------------------------------------------------------------------

--- Is every item of `given` in `other`? And how many has each?
local function is_within(fn, given, other)
    local _, items, n = read(fn, given)
    local has, _, m = read(fn, other)
    local _, count = only(items, n, has, true)
    return count == n, n, m
end

--- Has it no item in common with an iterable?
---@param other any iterable
---@return boolean
function methods:isdisjoint(other)
    check_self("isdisjoint", self)
    local has = read("isdisjoint", other)
    local _, n, items = snapshot(self, "keys")
    local _, count = only(items, n, has, true)
    return count == 0
end

--- Are all its items in an iterable?
---@param other any iterable
---@return boolean
function methods:issubset(other)
    check_self("issubset", self)
    return (is_within("issubset", self, other))
end

--- Has it all items of an iterable?
---@param other any iterable
---@return boolean
function methods:issuperset(other)
    check_self("issuperset", self)
    return (is_within("issuperset", other, self))
end

function meta.__le(a, b)
    return (is_within("<=", a, b))
end

function meta.__lt(a, b)
    local within, n, m = is_within("<", a, b)
    return within and n < m
end

-- Walking --------------------------------------------------------------------

--- `for item in pairs(s)`: over a snapshot.
function meta.__pairs(self)
    local _, n, items = snapshot(self, "keys")
    local i = 0
    return function()
        if i < n then
            i = i + 1
            return items[i], true
        end
    end
end

return M
