-- A manager's list.

local helper = require "spec.helper"
local mp = require "mp"

local failure, run = helper.failure, helper.run_processes
local manager = mp.Manager()

local function set(t, k, v)
    t[k] = v
end

local function get(t, k)
    return t[k]
end

describe("manager list", function()
    it("MAN-13 is made of anything that can be iterated over", function()
        local function items(...)
            return manager:list(...):totable()
        end
        assert.are.same({}, items())
        assert.are.same({}, items{})
        assert.are.same({1, "b", {2}}, items{1, "b", {2}})
        assert.are.same({nil, 2, nil, n = 3}, items(table.pack(nil, 2, nil)))
        assert.are.same({3, 4}, items(mp.range(3, 5)))
        assert.are.same({1.5, 2.5}, items(mp.Array("d", {1.5, 2.5})))
        assert.are.same({5, 6}, items(manager:list{5, 6}))
        assert.are.same({"k"}, items(manager:dict{k = 1}))
        assert.are.same({7}, items(manager:set{7}))
        assert.are.same({"a", "b"}, items(("a b"):gmatch("%a")))
        assert.matches("^list: an iterable is a list, .* got 5$",
            failure("TypeError", manager.list, manager, 5))
        assert.are.equal("list: too many arguments (2, at most 1)",
            failure("TypeError", manager.list, manager, {}, 1))
    end)

    it("MAN-13 reads and sets by place", function()
        local l = manager:list{1, 2, 3}
        l[2], l[3.0] = "two", {1}
        assert.are.equal("two", l[2])
        l[3][1] = 5
        assert.are.same({1, "two", {5}}, l:totable())
        assert.are.equal(3, #l)
        l[1] = false
        assert.is_false(l[1])
    end)

    it("MAN-13 raises IndexError where there is no item", function()
        local l, empty = manager:list{1, 2, 3}, manager:list()
        assert.matches("manager_list_spec.lua:%d+:$",
            select(2, failure("IndexError", get, l, 5)).where)
        assert.matches("manager_list_spec.lua:%d+:$",
            select(2, failure("ValueError", function()
                l:remove(5)
            end)).where)
        for _, i in ipairs{0, -1, 4, 1.5, math.maxinteger,
            math.mininteger, 2^70, 0/0} do
            assert.are.equal(("list: there is no item %s (1 to 3)")
                :format(i), (failure("IndexError", get, l, i)))
        end
        assert.are.equal("list: there is no item 1 (the list is empty)",
            failure("IndexError", get, empty, 1))
        assert.are.equal("list: there is no item 4 to set: l:append(v) adds "
            .. "one", failure("IndexError", set, l, 4, "x"))
        assert.are.equal("list: there is no item 5 (1 to 3)",
            failure("IndexError", set, l, 5, "x"))
        assert.are.equal("list: there is no item 0 (1 to 3)",
            failure("IndexError", set, l, 0, "x"))
        failure("ValueError", set, l, 1.5, "x")
        assert.are.equal("cannot set 'x' of list: it has only items, by "
            .. "number", failure("TypeError", set, l, "x", 1))
        assert.is_nil(l.unknown)
        assert.are.same({1, 2, 3}, l:totable())
    end)

    it("holds nil, which [] = does not give it", function()
        local l = manager:list{1, 2, 3}
        assert.are.equal("list: an item is not taken out by l[3] = nil: "
            .. "l:pop(3) does that, l:set(3, nil) makes it nil",
            failure("TypeError", set, l, 3, nil))
        l:set(2, nil)
        l:append(nil)
        l:insert(1, nil)
        assert.are.same({nil, 1, nil, 3, nil, n = 5}, l:totable())
        assert.is_nil(l[3])
        assert.is_nil(l:pop())
        assert.are.equal(3, l:pop())
        assert.are.equal(2, l:count(nil))
        assert.are.equal(1, l:index(nil))
        assert.are.equal("append: argument 'value': any value expected, got "
            .. "no value", failure("TypeError", l.append, l))
        failure("TypeError", l.insert, l, 1)
        failure("TypeError", l.set, l, 1)
    end)

    it("MAN-13 appends, extends, inserts, pops", function()
        local l = manager:list()
        l:append("a")
        l:append(("b"):rep(100))
        l:extend{3, {4}}
        l:extend(mp.range(2))
        l:extend(l)
        assert.are.equal(12, #l)
        assert.are.equal(("b"):rep(100), l[8])
        assert.is_true(l[4] == l[10])
        l:clear()
        l:insert(1, "x")
        l:insert(1, "w")
        l:insert(2, {1})
        l:insert(99, "z")
        assert.are.same({"w", {1}, "x", "z"}, l:totable())
        assert.are.equal(1, l:pop(2)[1])
        assert.are.equal("z", l:pop())
        assert.are.equal("w", l:pop(1))
        assert.are.equal("pop: there is no item 2 (1 to 1)",
            failure("IndexError", l.pop, l, 2))
        assert.are.equal("pop: there is no item 0 (1 to 1)",
            failure("IndexError", l.pop, l, 0))
        failure("IndexError", l.insert, l, 0, "x")
        l:pop()
        assert.are.equal("pop: the list is empty",
            failure("IndexError", l.pop, l))
        failure("PicklingError", l.extend, l,
            {1, coroutine.create(print), 3})
        assert.are.equal(0, #l)
    end)

    it("MAN-13 finds, counts and removes what is equal", function()
        local l = manager:list{1, "a", 2.5, "a", {1}, true, 1.0, -0.0,
            ("s"):rep(20)}
        assert.are.equal(1, l:index(1))
        assert.are.equal(1, l:index(1.0))
        assert.are.equal(7, l:index(1, 2))
        assert.are.equal(2, l:count(1))
        assert.are.equal(8, l:index(0))
        assert.are.equal(4, l:index("a", 3))
        assert.are.equal(9, l:index(("s"):rep(20)))
        assert.are.equal(5, l:index(manager:list{1}))
        assert.are.equal(1, l:count(manager:list{1}))
        assert.are.equal(1, l:count{1})
        assert.is_true(l:contains{1.0})
        assert.is_false(l:contains{x = 1})
        assert.is_true(l:contains(true))
        assert.is_false(l:contains(false))
        assert.is_false(l:contains(0/0))
        assert.is_false(l:contains(2^53))
        assert.are.equal("index: 'a' is not in the list",
            failure("ValueError", l.index, l, "a", 5))
        failure("ValueError", l.index, l, "a", 3, 3)
        l:remove("a")
        l:remove(manager:list{1})
        assert.are.same({1, 2.5, "a", true, 1.0, -0.0, ("s"):rep(20)},
            l:totable())
        assert.are.equal("remove: 'b' is not in the list",
            failure("ValueError", l.remove, l, "b"))
        failure("ValueError", l.remove, l, manager:list{2})
    end)

    it("finds integers beyond 2^53 among floats", function()
        local big = (1 << 53) + 1
        local l = manager:list{2.0^53, big, math.maxinteger}
        assert.are.equal(2, l:index(big))
        assert.are.equal(1, l:index(1 << 53))
        assert.are.equal(3, l:index(math.maxinteger))
        assert.is_false(l:contains(2^63))
    end)

    it("MAN-13 sorts, keeping the order of equal items", function()
        local l = manager:list{3, 1.5, 2}
        l:sort()
        assert.are.same({1.5, 2, 3}, l:totable())
        l:sort(function(a, b) return a > b end)
        assert.are.same({3, 2, 1.5}, l:totable())
        local words = manager:list{"bb", "a", "cc", "d", "aa"}
        words:sort{key = function(s) return #s end}
        assert.are.same({"a", "d", "bb", "cc", "aa"}, words:totable())
        words:sort{key = string.len, reverse = true}
        assert.are.same({"bb", "cc", "aa", "a", "d"}, words:totable())
        words:sort{key = string.len, cmp = function(a, b) return a < b end}
        assert.are.same({"a", "d", "bb", "cc", "aa"}, words:totable())
        local nested = manager:list{{2}, {1}}
        local first = nested[2]
        nested:sort(function(a, b) return a[1] < b[1] end)
        first:append("same")
        assert.are.same({{1, "same"}, {2}}, nested:totable())
        for n = 0, 40 do
            local t = {}
            for i = 1, n do t[i] = (i * 7919) % 13 end
            local s = manager:list(t)
            s:sort()
            table.sort(t)
            assert.are.same(t, s:totable())
        end
    end)

    it("MAN-13 changes nothing when sorting fails", function()
        local l = manager:list{2, "x", 1}
        assert.are.equal("sort: attempt to compare string with number",
            failure("TypeError", l.sort, l))
        assert.has_error(function()
            l:sort{key = function() error("no", 0) end}
        end, "no")
        assert.are.equal("sort: unknown option 'keys'",
            failure("TypeError", l.sort, l, {keys = print}))
        assert.are.equal("sort: cmp must be a callable, got 5",
            failure("TypeError", l.sort, l, 5))
        assert.are.same({2, "x", 1}, l:totable())
    end)

    it("sorts again when it was changed meanwhile", function()
        local l, calls = manager:list{3, 1, 2}, 0
        l:sort{key = function(x)
            calls = calls + 1
            if calls == 2 then l:append(0) end
            return x
        end}
        assert.are.same({0, 1, 2, 3}, l:totable())
        assert.are.equal(7, calls)
    end)

    it("does not sort for ever what sorting changes", function()
        local function refused(change, options)
            local l = manager:list{3, 1, 2}
            local calls = 0
            local function changed(f)
                return function(a, b)
                    calls = calls + 1
                    if calls > 1e6 then error("for ever", 0) end
                    change(l)
                    return f(a, b)
                end
            end
            for name, f in pairs(options) do options[name] = changed(f) end
            assert.are.equal("sort: the list was modified during sort",
                failure("ValueError", l.sort, l, options))
        end
        local function before(a, b) return a < b end
        local function same(x) return x end
        refused(function(l) l:append(1) end, {cmp = before})
        refused(function(l) l:append(1) end, {key = same})
        refused(function(l) l[1] = l[1] end, {cmp = before, key = same})
    end)

    it("sorts what another process changes all the time, for a while",
        function()
        local l, up = manager:list(mp.range(300, 1, -1)), mp.Event()
        local p = helper.start(function()
            local last = mp.monotonic() + 0.3
            while mp.monotonic() < last do
                l:append(l:pop())
                up:set()
            end
        end)
        assert.is_true(up:wait(10))
        l:sort{key = function(x)
            -- So long that a round is never left alone.
            mp.sleep(0.0001)
            return x
        end}
        helper.finish(p)
        l:sort()
        assert.are.same(manager:list(mp.range(2, 301)):totable(),
            l:totable())
    end)

    it("MAN-13 turns round, slices, splices", function()
        local l = manager:list{1, 2, 3, 4}
        l:reverse()
        assert.are.same({4, 3, 2, 1}, l:totable())
        assert.are.same({3, 2, n = 2}, l:slice(2, 3))
        assert.are.same({4, 3, 2, 1, n = 4}, l:slice())
        assert.are.same({1, n = 1}, l:slice(4))
        assert.are.same({n = 0}, l:slice(5))
        assert.are.equal("slice: invalid range 2 to 5 (1 to 4)",
            failure("IndexError", l.slice, l, 2, 5))
        failure("IndexError", l.slice, l, 0)
        failure("IndexError", l.slice, l, 3, 1)
        assert.are.same({3, 2, n = 2}, l:splice(2, 3, {"x", {"y"}, "z"}))
        assert.are.same({4, "x", {"y"}, "z", 1}, l:totable())
        assert.are.same({n = 0}, l:splice(1, 0, {0}))
        assert.are.same({0, 4, "x", n = 3}, l:splice(1, 3))
        assert.are.same({{"y"}, "z", 1}, l:totable())
        failure("IndexError", l.splice, l, 2, 4)
    end)

    it("MAN-13 joins and repeats into new lists", function()
        local l = manager:list{1, 2}
        assert.are.same({1, 2, 3}, (l .. {3}):totable())
        assert.are.same({0, 1, 2}, ({0} .. l):totable())
        assert.are.same({1, 2, 1, 2}, (l .. l):totable())
        assert.are.same({1, 2, 1, 2, 1, 2}, (l * 3):totable())
        assert.are.same({1, 2}, (1 * l):totable())
        assert.are.same({}, (l * 0):totable())
        assert.are.same({}, (l * -1):totable())
        assert.are.same({}, (manager:list() * math.maxinteger):totable())
        failure("OSError", function() return l * math.maxinteger end)
        failure("OSError", function() return l * (1 << 50) end)
        failure("OSError", manager.list, manager, {n = 1 << 50})
        assert.are.equal(2, #l)
        failure("TypeError", function() return l .. 5 end)
        failure("TypeError", function() return l * "x" end)
    end)

    it("MAN-13 compares by content, and shows itself", function()
        local l = manager:list{1, {2, "x"}, false}
        assert.is_true(l == manager:list{1.0, {2, "x"}, false})
        assert.is_false(l == manager:list{1, {2, "y"}, false})
        assert.is_false(l == manager:list{1, {2, "x"}})
        assert.is_false(l == manager:dict{1, {2, "x"}, false})
        assert.are.equal('list{1, list{2, "x"}, false}', tostring(l))
        local c = l:copy()
        c[2]:append(3)
        assert.are.equal(3, l[2][3])
        local a, b = manager:list{1}, manager:list{1}
        a:append(a)
        b:append(b)
        assert.is_true(a == b)
        assert.are.equal("list{1, <cycle>}", tostring(a))
        a:clear()
        b:clear()
    end)

    it("MAN-13 is walked by ipairs as it is, by pairs as it was", function()
        local l, seen = manager:list{1, 2, 3}, {}
        for i, v in ipairs(l) do
            seen[i] = v
            if i == 1 then l:append(4) end
        end
        assert.are.same({1, 2, 3, 4}, seen)
        seen = {}
        for i, v in pairs(l) do
            seen[i] = v
            l:pop()
        end
        assert.are.same({1, 2, 3, 4}, seen)
        assert.are.equal(0, #l)
        for _ in ipairs(l) do error("an item of none") end
        local holes, n = manager:list(table.pack(nil, 2, nil)), 0
        for i in pairs(holes) do n = n + i end
        assert.are.equal(6, n)
    end)

    it("says how its methods are called", function()
        local l = manager:list()
        for _, name in ipairs{"append", "clear", "contains", "copy", "count",
            "extend", "index", "insert", "pop", "remove", "reverse", "set",
            "slice", "sort", "splice", "totable", "update_with"} do
            for _, self in ipairs{5, "x", {}, mp.Lock(), manager:dict()} do
                assert.matches("^" .. name .. ": argument 'self': list "
                    .. "expected, got .* %(use ':'%)$",
                    failure("TypeError", l[name], self))
            end
        end
    end)

    it("MAN-13 takes what four processes append at once", function()
        local l = manager:list()
        run(4, function()
            for i = 1, 300 do l:append(i) end
            l:extend{"a", "b", "c"}
        end)
        assert.are.equal(1212, #l)
        for i = 1, 300 do assert.are.equal(4, l:count(i)) end
        local at, runs = 1, 0
        while true do
            local ok, place = pcall(l.index, l, "a", at)
            if not ok then break end
            assert.are.same({"a", "b", "c", n = 3}, l:slice(place, place + 2))
            at, runs = place + 1, runs + 1
        end
        assert.are.equal(4, runs)
    end)

    it("changes an item by update_with, wherever it went", function()
        local l, calls = manager:list{1, 2}, 0
        assert.are.equal(12, l:update_with(2, function(x)
            calls = calls + 1
            if calls == 1 then l:insert(1, 10) end
            return x + 11
        end))
        assert.are.same({10, 12, 2}, l:totable())
        assert.are.equal(2, calls)
        assert.are.equal("update_with: there is no item 4 (1 to 3)",
            failure("IndexError", l.update_with, l, 4, print))
        run(4, function()
            for _ = 1, 200 do
                l:update_with(1, function(x) return x + 1 end)
            end
        end)
        assert.are.equal(810, l[1])
    end)

    it("takes each item out once when four processes pop", function()
        local l, sum = manager:list(mp.range(1, 1001)), mp.Value("q")
        run(4, function()
            local mine = 0
            while true do
                local ok, item = pcall(l.pop, l, 1)
                if not ok then break end
                mine = mine + item
            end
            sum:add(mine)
        end)
        assert.are.equal(500500, sum.value)
    end)
end)
