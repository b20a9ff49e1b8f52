-- A manager's set.

local helper = require "spec.helper"
local mp = require "mp"

local failure = helper.failure
local manager = mp.Manager()

--- The items of a set in order.
local function items(s)
    local list = s:totable()
    table.sort(list, function(a, b) return tostring(a) < tostring(b) end)
    return list
end

describe("manager set", function()
    it("MAN-15 holds strings, numbers and booleans, each once", function()
        local s = manager:set{1, 1.0, "1", true, 1, "long enough a string"}
        assert.are.equal(4, #s)
        assert.is_true(s:contains(1.0))
        assert.is_true(s:contains("long enough a string"))
        assert.is_false(s:contains(false))
        assert.is_true(s:add(false))
        assert.is_false(s:add(false))
        assert.is_true(s:discard(false))
        assert.is_false(s:discard(false))
        s:remove(true)
        assert.are.equal("remove: true is not in the set",
            failure("KeyError", s.remove, s, true))
        assert.are.equal("remove: 'x' is not in the set",
            failure("KeyError", s.remove, s, "x"))
        assert.are.equal(3, #s)
        s:clear()
        assert.are.equal(0, #s)
        assert.are.equal("pop: the set is empty",
            failure("KeyError", s.pop, s))
        s:add("one")
        assert.are.equal("one", s:pop())
    end)

    it("MAN-15 is made of anything that can be iterated over", function()
        assert.are.same({}, items(manager:set()))
        assert.are.same({0, 1}, items(manager:set(mp.range(2))))
        assert.are.same({"a", "b"}, items(manager:set(("a b a"):gmatch("%a"))))
        assert.are.same({"k"}, items(manager:set(manager:dict{k = 1})))
        assert.are.same({3}, items(manager:set(manager:set{3})))
        assert.matches("^set: a key must be", failure("TypeError",
            manager.set, manager, {{}}))
        assert.are.equal("add: a key must be a string, number or boolean, got "
            .. "table", failure("TypeError", manager:set().add,
            manager:set(), {}))
        assert.are.equal("add: a key must not be NaN", failure("ValueError",
            manager:set().add, manager:set(), 0/0))
    end)

    it("MAN-15 combines with sets and iterables into new sets", function()
        local a, b = manager:set{1, 2, 3}, manager:set{3, 4}
        assert.are.same({1, 2, 3, 4}, items(a | b))
        assert.are.same({3}, items(a & b))
        assert.are.same({1, 2}, items(a - b))
        assert.are.same({1, 2, 4}, items(a ~ b))
        assert.are.same({1, 2, 3, 9}, items(a | {9, 9}))
        assert.are.same({9}, items({9, 1} - a))
        assert.are.same({1, 2, 3, 4, 5}, items(a:union(b, {5})))
        assert.are.same({3}, items(a:intersection(b, {3, 1})))
        assert.are.same({2}, items(a:difference(b, {1})))
        assert.are.same({2, 3, 7}, items(a:symmetric_difference{1, 7, 7}))
        assert.are.same({1, 2, 3}, items(a:union()))
        assert.are.same({1, 2, 3}, items(a))
        assert.are.same({1, 2, 3}, a:totable())
        failure("TypeError", function() return a | 5 end)
        failure("TypeError", a.union, a, {{}})
    end)

    it("MAN-15 changes in place, in one step", function()
        local s = manager:set{1, 2, 3}
        s:update({4}, mp.range(5, 7))
        assert.are.same({1, 2, 3, 4, 5, 6}, items(s))
        s:intersection_update({1, 2, 3, 4}, {2, 3, 4, 9})
        assert.are.same({2, 3, 4}, items(s))
        s:difference_update({3}, {9})
        assert.are.same({2, 4}, items(s))
        s:symmetric_difference_update{4, 5}
        assert.are.same({2, 5}, items(s))
        s:update(s)
        assert.are.same({2, 5}, items(s))
        s:difference_update(s)
        assert.are.equal(0, #s)
        failure("TypeError", s.update, s, {1, {}})
        assert.are.equal(0, #s)
    end)

    it("MAN-15 compares", function()
        local a, b = manager:set{1, 2}, manager:set{2, 1, 3}
        assert.is_true(a <= b)
        assert.is_true(a < b)
        assert.is_false(b <= a)
        assert.is_true(b > a)
        assert.is_true(b >= a)
        assert.is_true(a <= a)
        assert.is_false(a < a)
        assert.is_true(a == manager:set{2.0, 1})
        assert.is_false(a == b)
        assert.is_true(a <= {1, 2, 7})
        assert.is_true(a:issubset{1, 2})
        assert.is_true(b:issuperset(a))
        assert.is_false(a:issuperset{1, 9})
        assert.is_true(a:isdisjoint{3, 4})
        assert.is_false(a:isdisjoint(b))
        assert.is_true(manager:set():isdisjoint(b))
    end)

    it("MAN-15 is walked as it was, copied and shown", function()
        local s, seen = manager:set{"b", "a"}, {}
        for item, there in pairs(s) do
            seen[#seen + 1] = item
            assert.is_true(there)
            s:discard(item)
            s:add(item .. item)
        end
        assert.are.same({"b", "a"}, seen)
        assert.are.equal('set{"bb", "aa"}', tostring(s))
        local c = s:copy()
        c:add(1)
        assert.are.equal(2, #s)
        assert.are.equal(3, #c)
    end)

    it("has no fields", function()
        local s = manager:set{"apple"}
        local message = "set: there is no field 'apple': items are for "
            .. "s:contains(x), s:add(x) and s:discard(x)"
        assert.are.equal(message, failure("TypeError", function()
            return s.apple
        end))
        assert.are.equal(message, failure("TypeError", function()
            s.apple = nil
        end))
        failure("TypeError", function() return s[1] end)
        failure("TypeError", function() s.add = 1 end)
    end)

    it("says how its methods are called", function()
        local s = manager:set()
        for _, name in ipairs{"add", "clear", "contains", "copy",
            "difference", "difference_update", "discard", "intersection",
            "intersection_update", "isdisjoint", "issubset", "issuperset",
            "pop", "remove", "symmetric_difference",
            "symmetric_difference_update", "totable", "union", "update"} do
            for _, self in ipairs{5, {}, mp.Lock(), manager:list()} do
                assert.matches("^" .. name .. ": argument 'self': set "
                    .. "expected, got .* %(use ':'%)$",
                    failure("TypeError", s[name], self))
            end
        end
    end)

    it("MAN-15 gives each item to one of four processes", function()
        local s, new = manager:set(), mp.Value("q")
        local list = {}
        for i = 1, 4 do
            list[i] = mp.Process{target = function()
                for x = 1, 500 do
                    if s:add(x) then new:add(1) end
                end
            end}
            list[i]:start()
        end
        for _, p in ipairs(list) do assert.is_true(p:join(20)) end
        assert.are.equal(500, new.value)
        assert.are.equal(500, #s)
    end)
end)
