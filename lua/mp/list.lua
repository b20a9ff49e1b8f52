--- The list of a manager: what its methods do that are not in the core.
--
-- Its items are numbered from 1; nil is an item like any other. A place that
-- there is not raises IndexError. In the core are
--   l[i] l[i] = v #l                  no nil: that is l:set(i, nil)
--   l:append(v) l:extend(iterable)    at the end; all at once
--   l:insert(i, v) l:pop([i])         at i, the last by default
--   l:set(i, v) l:clear()

local arguments = require "mp.arguments"
local container = require "mp.container"
local core = require "mp.core"
local errors = require "mp.errors"

local native = core.container
local snapshot = native.snapshot

local M, check_self = container.class("list")
local methods, meta = M._methods, M._meta

--- What an argument that is to be iterable gives, as a list.
---@return table
---@return integer its length
function M._iterable(fn, iterable)
    local list, n = arguments.listed(arguments.source_of(fn, iterable))
    if type(list) ~= "table" or getmetatable(list) ~= nil then
        local items = {}
        for i = 1, n do
            items[i] = iterable[i]
        end
        return items, n
    end
    return list, n
end

-- Finding --------------------------------------------------------------------

--- The first place of `value` from `first` to `last` and the version of the
-- item there, or nil: scalars are found by the core, all else is compared
-- here.
local function find(self, value, first, last)
    value = native.value(value)
    local searched, place, version = native.find(self, value, first, last)
    if searched then
        return place, version
    end
    local values, n, _, _, versions = snapshot(self, "versions")
    for i = math.max(first, 1), math.min(last, n) do
        if values[i] == value then
            return i, versions[i]
        end
    end
end

--- Is there an item that equals `value`? Containers are equal when they hold
-- the same.
---@param value any of a plain table, what becomes of it in a container
---@return boolean
function methods:contains(value)
    check_self("contains", self)
    return find(self, value, 1, math.maxinteger) ~= nil
end

--- How many items equal `value`?
---@param value any
---@return integer
function methods:count(value)
    check_self("count", self)
    value = native.value(value)
    local count = native.count(self, value)
    if count then
        return count
    end
    count = 0
    local values, n = snapshot(self)
    for i = 1, n do
        if values[i] == value then
            count = count + 1
        end
    end
    return count
end

--- The first place of an item that equals `value`.
---@param value any
---@param first integer|nil where to begin (1)
---@param last integer|nil where to end (the last)
---@return integer
-- Raises ValueError when there is none.
function methods:index(value, first, last)
    check_self("index", self)
    first = first == nil and 1 or native.integer("index", "first", first)
    last = last == nil and math.maxinteger
        or native.integer("index", "last", last)
    local place = find(self, value, first, last)
    if not place then
        errors._raise("ValueError", "index: %s is not in the list",
            errors._show(value))
    end
    return place
end

--- Takes out the first item that equals `value`.
---@param value any
-- Raises ValueError when there is none.
function methods:remove(value)
    check_self("remove", self)
    repeat
        local place, version = find(self, value, 1, math.maxinteger)
        if not place then
            errors._raise("ValueError", "remove: %s is not in the list",
                errors._show(value))
        end
    until native.take_out(self, place, version)
end

-- Order ----------------------------------------------------------------------

--- Turns the order of the items round.
function methods:reverse()
    check_self("reverse", self)
    native.reverse(self)
end

--- Merges from[low..middle - 1] and from[middle..high - 1] into to[low..].
local function merge(from, to, low, middle, high, before)
    local i, j = low, middle
    for k = low, high - 1 do
        if i < middle and
            (j >= high or not before(from[j], from[i])) then
            to[k], i = from[i], i + 1
        else
            to[k], j = from[j], j + 1
        end
    end
end

--- The numbers 1 to n in order; equal ones stay as they were.
local function merge_sort(n, before)
    local from, to, width = {}, {}, 1
    for i = 1, n do
        from[i] = i
    end
    while width < n do
        for low = 1, n, 2 * width do
            merge(from, to, low, math.min(low + width, n + 1),
                math.min(low + 2 * width, n + 1), before)
        end
        from, to, width = to, from, 2 * width
    end
    return from
end

--- merge_sort by «<» of our own: what cannot be compared is a TypeError.
local function sort_values(n, before)
    local ok, result = pcall(merge_sort, n, before)
    if ok then
        return result
    end
    local text = type(result) == "string"
        and result:match("mp/list%.lua:%d+: (attempt to compare .*)")
    if text then
        errors._raise("TypeError", "sort: %s", text)
    end
    error(result, 0)
end

--- The order in which the values stand when they are sorted. `watched` makes
-- of each function that it calls another one.
local function order_of(values, n, options, watched)
    local cmp, key = options.cmp, options.key
    if key then
        key = watched(key)
        for i = 1, n do
            values[i] = key(values[i])
        end
    end
    if options.reverse then
        return sort_values(n, watched(function(a, b)
            if cmp then
                return cmp(values[b], values[a])
            end
            return values[b] < values[a]
        end))
    elseif cmp then
        return merge_sort(n, watched(function(a, b)
            return cmp(values[a], values[b])
        end))
    end
    return sort_values(n, watched(function(a, b)
        return values[a] < values[b]
    end))
end

local SORT_OPTIONS <const> = {cmp = true, key = true, reverse = true}

local function sort_options(given)
    if type(given) ~= "table" or getmetatable(given) ~= nil then
        given = {cmp = given}
    end
    for name in pairs(given) do
        if not SORT_OPTIONS[name] then
            errors._raise("TypeError", "sort: unknown option %s",
                errors._show(name))
        end
    end
    arguments.check_callable("sort", given.cmp, "cmp")
    arguments.check_callable("sort", given.key, "key")
    return given
end

-- How often a sort is begun again before it asks who changes the list; and
-- after how many calls such a round looks if it has: each would be costly,
-- and what takes longer is disturbed more often.
local ROUNDS <const>, CALLS <const> = 100, 16

local CHANGED <const> = {} -- the error that ends a round

local function unwatched(f)
    return f
end

--- Sorts once; false: the list was changed meanwhile. In a round that is
-- `careful` this ends it soon: were every call of cmp to append an item, a few
-- whole rounds would already fill the memory.
local function sort_once(self, options, careful)
    local values, n, _, generation = snapshot(self)
    if not careful then
        return native.permute(self, generation,
            order_of(values, n, options, unwatched), n)
    end
    local calls = 0
    local ok, order = pcall(order_of, values, n, options, function(f)
        return function(...)
            calls = calls + 1
            if calls % CALLS == 0
                and native.generation(self) ~= generation then
                error(CHANGED, 0)
            end
            return f(...)
        end
    end)
    if not ok and order ~= CHANGED then
        error(order, 0)
    end
    return ok and native.permute(self, generation, order, n)
end

--- Is the list left alone for so long, as no function of the sort runs?
local function is_left_alone(self, seconds)
    local generation = native.generation(self)
    core.sleep(seconds)
    return native.generation(self) == generation
end

--- Sorts, as often as it takes. Who changed the list is not written anywhere.
-- But one that was changed in each of 100 rounds, and then not at all for as
-- long as these took together, and in the next round again, is changed by our
-- own functions: others would not have waited for it.
local function sort(self, options)
    local done = sort_once(self, options, false)
    while not done do
        local begun, rounds = core.monotonic(), 0
        repeat
            done = sort_once(self, options, true)
            rounds = rounds + 1
        until done or rounds == ROUNDS
        if not done and is_left_alone(self, core.monotonic() - begun) then
            done = sort_once(self, options, true)
            if not done then
                errors._raise("ValueError",
                    "sort: the list was modified during sort")
            end
        end
    end
end

--- Sorts the items; equal ones keep their order. If others change the list
-- meanwhile, it is sorted again: the functions may be called more than once.
---@param options function|table|nil cmp(a, b) -> boolean: does a stand before
--   b (default: a < b)? Or a table: cmp; key(item) -> what is compared in its
--   place; reverse = true: the other way round
-- Raises TypeError, ValueError if the functions always change the list, and
-- what they raise: then it is not sorted.
function methods:sort(options)
    check_self("sort", self)
    sort(self, sort_options(options))
end

--- Adds the items of an iterable at the end, in one step.
---@param iterable any
-- Raises TypeError, PicklingError: then nothing changes.
function methods:extend(iterable)
    check_self("extend", self)
    native.add(self, "extend", M._iterable("extend", iterable))
end

-- Ranges ---------------------------------------------------------------------

--- The range i to j of n items: all by default, none if j = i - 1.
local function bounds(fn, i, j, n)
    i = i == nil and 1 or native.integer(fn, "i", i)
    j = j == nil and n or native.integer(fn, "j", j)
    if i < 1 or j > n or j < i - 1 then
        errors._raise("IndexError", "%s: invalid range %d to %d (1 to %d)",
            fn, i, j, n)
    end
    return i, j
end

--- The items i to j.
---@param i integer|nil 1
---@param j integer|nil the last
---@return table a plain list with n
-- Raises IndexError.
function methods:slice(i, j)
    check_self("slice", self)
    local values, n = snapshot(self)
    i, j = bounds("slice", i, j, n)
    local list = table.move(values, i, j, 1, {})
    list.n = j - i + 1
    return list
end

--- Puts the items of an iterable in the place of the items i to j.
---@param i integer
---@param j integer i - 1: nothing goes, the others come before item i
---@param iterable any|nil nil: nothing comes
---@return table what was there: a plain list with n
-- Raises IndexError, TypeError.
function methods:splice(i, j, iterable)
    check_self("splice", self)
    local new, count = {}, 0
    if iterable ~= nil then
        new, count = M._iterable("splice", iterable)
    end
    return container.change(self, function(values, n)
        local first, last = bounds("splice", i, j, n)
        local gone = table.move(values, first, last, 1, {})
        gone.n = last - first + 1
        local list = table.move(values, 1, first - 1, 1, {})
        table.move(new, 1, count, first, list)
        table.move(values, last + 1, n, first + count, list)
        return list, n - gone.n + count, nil, gone
    end)
end

--- The items of both, in a new list (metamethod __concat).
---@param a any one of them is a list, the other is iterable
---@param b any
---@return userdata list
function meta.__concat(a, b)
    local list, n = M._iterable("..", a)
    local more, m = M._iterable("..", b)
    local all = table.move(list, 1, n, 1, {})
    return native.new("list", table.move(more, 1, m, n + 1, all), n + m)
end

--- The items so many times, in a new list (metamethod __mul).
---@param a userdata|integer
---@param b userdata|integer
---@return userdata list
function meta.__mul(a, b)
    local self, times = a, b
    if native.kind(a) ~= "list" then
        self, times = b, a
    end
    local values, n = snapshot(self)
    times = math.max(native.integer("*", "times", times), 0)
    return native.new("list", values, n, nil, "*", times)
end

--- Makes item i f(item i), as one step: if another process changes the list
-- meanwhile, f is called again, with what the item is then.
---@param i integer
---@param f function
---@return any the item now; of a plain table, the container made of it
-- Raises IndexError, and what f raises: then nothing changes.
function methods:update_with(i, f)
    check_self("update_with", self)
    container.check_function("update_with", f)
    return container.update_with(self, i, f)
end

return M
