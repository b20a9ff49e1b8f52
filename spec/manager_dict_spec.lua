-- A manager's dict and Namespace. (Nesting, crossing, life: manager_spec;
-- deaths: manager_death_spec.)

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

--- Keys and values of a loop, in its order, as text.
local function walked(container)
    local parts = {}
    for k, v in pairs(container) do
        parts[#parts + 1] = tostring(k) .. "=" .. tostring(v)
    end
    return table.concat(parts, " ")
end

describe("manager dict", function()
    it("MAN-14 sets, reads and deletes by [] and by name", function()
        local d = manager:dict()
        d.one, d["two words"], d[3], d[true], d[false] = 1, 2, 3.5, "t", false
        assert.are.equal(1, d.one)
        assert.are.equal(2, d["two words"])
        assert.are.equal(3.5, d[3])
        assert.are.equal("t", d[true])
        assert.is_false(d[false])
        assert.are.equal(5, #d)
        d.one, d[3] = nil, nil
        d.absent = nil
        assert.is_nil(d.one)
        assert.is_nil(d.absent)
        assert.are.equal(3, #d)
    end)

    it("takes a table or another dict as its first content", function()
        local d = manager:dict{a = 1, [2] = "x", n = 3}
        assert.are.same({a = 1, [2] = "x", n = 3}, d:totable())
        local e = manager:dict(d)
        e.a = 5
        assert.are.equal(1, d.a)
        assert.are.equal(5, e.a)
    end)

    it("tells its keys also when a value cannot be rebuilt here", function()
        local memory = mp.shared_memory.SharedMemory(nil, true, 10)
        local d = manager:dict{a = 1}
        d.gone = memory
        memory:close()
        memory:unlink()
        failure("OSError", d.get, d, "gone")
        failure("OSError", d.values, d)
        local keys = d:keys()
        assert.are.same({"a", "gone", n = 2}, keys)
        d.gone = nil
        assert.are.same({1, n = 1}, d:values())
    end)

    it("has one key for 1 and 1.0, and others for '1' and true", function()
        local d = manager:dict{[1] = "integer"}
        d[1.0] = "float"
        d["1"], d[true] = "string", "boolean"
        assert.are.equal(3, #d)
        assert.are.equal("float", d[1])
        assert.are.equal("integer", math.type(d:keys()[1]))
        d[2^53], d[0.5], d[-0.0] = "a", "b", "c"
        assert.are.equal("a", d[1 << 53])
        assert.are.equal("b", d[1/2])
        assert.are.equal("c", d[0])
        d[math.maxinteger], d[2^63] = "d", "e"
        assert.are.equal("d", d[math.maxinteger])
        assert.are.equal("e", d[2^63])
    end)

    it("keeps values of every type and size", function()
        local d = manager:dict()
        local values = {true, false, 0, -1, math.mininteger, 0.1, -0.0, 1/0,
            "", "1234567", "12345678", ("x"):rep(5000), ("y"):rep(1 << 20),
            "\0\xff"}
        for i, value in ipairs(values) do
            d[i], d["key" .. i .. ("k"):rep(i * 50)] = value, value
        end
        for i, value in ipairs(values) do
            assert.are.equal(value, d[i])
            assert.are.equal(math.type(value), math.type(d[i]))
            assert.are.equal(value, d["key" .. i .. ("k"):rep(i * 50)])
        end
        assert.are.equal(-1/0, 1 / d[7])
        d.nan = 0/0
        assert.is_true(d.nan ~= d.nan)
    end)

    it("refuses keys that processes cannot share", function()
        local d = manager:dict()
        for _, key in ipairs{{}, print, function() end, io.stdout, d} do
            assert.matches("^dict: a key must be a string, number or boolean,"
                .. " got ", failure("TypeError", set, d, key, 1))
            failure("TypeError", get, d, key)
        end
        assert.are.equal("dict: a key must be a string, number or boolean, "
            .. "got nil", failure("TypeError", set, d, nil, 1))
        assert.are.equal("dict: a key must not be NaN",
            failure("ValueError", set, d, 0/0, 1))
        assert.are.equal("set: a key must be a string, number or boolean, "
            .. "got table", failure("TypeError", d.set, d, {}, 1))
        assert.are.equal("update: a key must be a string, number or boolean, "
            .. "got table", failure("TypeError", d.update, d, {[{}] = 1}))
        assert.are.equal(0, #d)
    end)

    it("refuses values that cannot travel, with the path to them", function()
        local d = manager:dict()
        local co = coroutine.create(print)
        assert.matches("^cannot pickle a coroutine: value",
            failure("PicklingError", set, d, "x", co))
        assert.matches("^cannot pickle a coroutine: value%.a%[2%]%.f, ",
            (failure("PicklingError", set, d, "x",
                {a = {1, {f = co}}}) .. ", "))
        assert.matches("^cannot pickle a coroutine: value%[\"a b\"%]",
            failure("PicklingError", set, d, "x", {["a b"] = co}))
        assert.are.equal("dict: a key must be a string, number or boolean, "
            .. "got function in value.deep",
            failure("TypeError", set, d, "x", {deep = {[print] = 1}}))
        assert.are.equal(0, #d)
    end)

    it("leaves the names of its methods to them, but for get and set",
        function()
            local d = manager:dict()
            assert.are.equal("dict: 'keys' is a method, and no key for d[k]: "
                .. "d:set('keys', v) and d:get('keys') take any key",
                failure("TypeError", set, d, "keys", 1))
            d:set("keys", 1)
            assert.are.equal(1, d:get("keys"))
            assert.are.same({"keys", n = 1}, d:keys())
            assert.are.equal("function", type(d.keys))
            assert.is_true(d:contains("keys"))
            d:update{pop = 2}
            assert.are.equal(2, d:pop("pop"))
            d:set("keys", nil)
            assert.are.equal(0, #d)
            assert.are.equal("set: argument 'value': any value expected, got "
                .. "no value", failure("TypeError", d.set, d, "x"))
        end)

    it("MAN-14 iterates over a snapshot in the order of insertion", function()
        local d = manager:dict()
        for i, key in ipairs{"z", 1, "a", true} do d[key] = i end
        d.z = "again"
        assert.are.equal("z=again 1=2 a=3 true=4", walked(d))
        d.z = nil
        d.z = "late"
        assert.are.equal("1=2 a=3 true=4 z=late", walked(d))
        local seen = 0
        for key in pairs(d) do
            seen = seen + 1
            d[key] = nil
            d["new" .. seen] = seen
        end
        assert.are.equal(4, seen)
        assert.are.equal("new1=1 new2=2 new3=3 new4=4", walked(d))
    end)

    it("MAN-14 copies keys, values and items", function()
        local d = manager:dict()
        d.b = 1
        d.a = false
        local keys = d:keys()
        assert.are.same({"b", "a", n = 2}, keys)
        assert.are.same({1, false, n = 2}, d:values())
        assert.are.same({{"b", 1}, {"a", false}, n = 2}, d:items())
        d.c = 1
        assert.are.equal(2, #keys)
    end)

    it("MAN-14 gets, pops, sets by default", function()
        local d = manager:dict{a = 1, no = false}
        assert.are.equal(1, d:get("a", 5))
        assert.is_false(d:get("no", 5))
        assert.are.equal(5, d:get("b", 5))
        assert.is_nil(d:get("b"))
        assert.are.equal(1, d:pop("a"))
        assert.are.equal(7, d:pop("a", 7))
        assert.is_nil(d:pop("a", nil))
        assert.are.equal("pop: 'a' is not in the dict",
            failure("KeyError", d.pop, d, "a"))
        assert.are.equal("pop: 1.5 is not in the dict",
            failure("KeyError", d.pop, d, 1.5))
        assert.is_false(d:setdefault("no", 1))
        assert.are.equal(2, d:setdefault("new", 2))
        assert.are.equal(2, d:setdefault("new", 3))
        assert.is_nil(d:setdefault("nil"))
        assert.is_false(d:contains("nil"))
        -- Whoever comes first, as the default is pickled, wins.
        local late = setmetatable({}, {__reduce = function()
            d.raced = "first"
            return math.abs, 1
        end})
        assert.are.equal("first", d:setdefault("raced", late))
        local nested = d:setdefault("list", {1})
        nested:append(2)
        assert.are.equal(2, d.list[2])
    end)

    it("appends, since an empty table may be meant as a list", function()
        local d = manager:dict{results = {}}
        run(4, function()
            for i = 1, 100 do d.results:append(i) end
        end)
        local sum = 0
        for _, v in ipairs(d.results) do sum = sum + v end
        assert.are.equal(400, #d.results)
        assert.are.equal(20200, sum)
        local mixed = manager:dict{x = 1, [3] = "three"}
        mixed:append{1}
        assert.are.same({x = 1, [3] = "three", [4] = {1}}, mixed:totable())
        assert.are.equal("append: argument 'value': any value but nil "
            .. "expected, got nil", failure("TypeError", d.append, d))
    end)

    it("MAN-14 pops items from the end", function()
        local d = manager:dict()
        d.a = 1
        d.b = {2}
        local key, value = d:popitem()
        assert.are.equal("b", key)
        assert.are.equal(2, value[1])
        assert.are.same({"a", 1}, {d:popitem()})
        assert.are.equal("popitem: the dict is empty",
            failure("KeyError", d.popitem, d))
    end)

    it("MAN-14 updates from tables and dicts, in one step", function()
        local d = manager:dict{a = 1, b = 2}
        d:update{b = 3, c = {4}}
        assert.are.same({a = 1, b = 3, c = {4}}, d:totable())
        d:update(manager:dict{a = 9})
        assert.are.equal(9, d.a)
        assert.are.equal("update: table or dict expected, got 5",
            failure("TypeError", d.update, d, 5))
        failure("PicklingError", d.update, d,
            {x = 1, y = coroutine.create(print), z = 2})
        assert.are.equal(3, #d)
    end)

    it("MAN-14 makes unions", function()
        local d = manager:dict{a = 1, b = 2}
        local u = d | {b = 3}
        assert.are.same({a = 1, b = 3}, u:totable())
        assert.are.same({a = 1, b = 2}, ({b = 3} | d):totable())
        assert.are.same({a = 1, b = 2}, d:totable())
    end)

    it("copies, clears, compares and shows itself", function()
        local d = manager:dict()
        d.a = 1
        d["b c"] = "x"
        d.t = {1, {}}
        local c = d:copy()
        assert.is_true(c == d)
        assert.is_false(rawequal(c, d))
        c.t:append(2)
        assert.are.equal(3, #d.t)
        assert.are.equal('dict{a = 1, ["b c"] = "x", t = list{1, dict{}, 2}}',
            tostring(d))
        c:clear()
        assert.are.equal(0, #c)
        assert.is_false(c == d)
        assert.are.equal("dict{}", tostring(c))
        c.a, c["b c"], c.t = 1, "x", {1, {}, 2}
        assert.is_true(c == d)
        c.t[2].x = 1
        assert.is_false(c == d)
    end)

    it("says how its methods are called", function()
        local d = manager:dict()
        for _, name in ipairs{"append", "clear", "contains", "copy", "get",
            "items", "keys", "pop", "popitem", "set", "setdefault", "totable",
            "update", "update_with", "values"} do
            for _, self in ipairs{5, "x", {}, mp.Lock(), manager:list()} do
                assert.matches("^" .. name .. ": argument 'self': dict "
                    .. "expected, got .* %(use ':'%)$",
                    failure("TypeError", d[name], self))
            end
        end
        local closed = manager:dict()
        do local _ <close> = closed end
        assert.are.equal("dict is closed",
            failure("StateError", set, closed, "a", 1))
        assert.are.equal("dict is closed",
            failure("StateError", closed.keys, closed))
        assert.are.equal("<dict (closed)>", tostring(closed))
    end)
end)

describe("update_with", function()
    it("MAN-17 makes one step of reading and writing", function()
        local d = manager:dict{n = 1}
        local function inc(x) return x + 1 end
        assert.are.equal(2, d:update_with("n", inc))
        assert.are.equal(2, d.n)
        assert.are.equal(11, d:update_with("new", inc, 10))
        assert.is_nil(d:update_with("n", function() end))
        assert.is_false(d:contains("n"))
        local list = d:update_with("list", function(x) return x or {1} end)
        list:append(2)
        assert.are.equal(2, #d.list)
    end)

    it("MAN-17 leaves what is not there, when that is to be nil", function()
        local d, calls = manager:dict{n = 1}, 0
        assert.is_nil(d:update_with("new", function(x)
            calls = calls + 1
            assert(calls == 1, "called again, though nobody was faster")
            return x
        end))
        assert.are.same({n = 1}, d:totable())
    end)

    it("MAN-17 loses no increment of four processes", function()
        local d = manager:dict{n = 0}
        run(4, function()
            for _ = 1, 1000 do
                d:update_with("n", function(x) return x + 1 end)
                d:update_with("late", function(x) return x + 1 end, 0)
            end
        end)
        assert.are.equal(4000, d.n)
        assert.are.equal(4000, d.late)
    end)

    it("calls its function again when somebody was faster", function()
        local d, seen = manager:dict{n = 1}, {}
        d:update_with("n", function(x)
            seen[#seen + 1] = x
            if #seen < 3 then d.n = x * 10 end
            return x + 1
        end)
        assert.are.same({1, 10, 100}, seen)
        assert.are.equal(101, d.n)
    end)

    it("notices that a key came, went, or is another one", function()
        local d, calls = manager:dict(), 0
        d:update_with("k", function(x)
            calls = calls + 1
            if calls == 1 then d.k = "came" end
            if calls == 2 then d.k = nil end
            if calls == 3 then
                assert.is_nil(x)
                d.k = "new"
                d.k = nil
            end
            return calls
        end)
        assert.are.equal(3, calls)
        assert.are.equal(3, d.k)
        d:update_with("k", function()
            calls = calls + 1
            if calls == 4 then
                d.k = nil
                d.k = 3
            end
            return "done"
        end)
        assert.are.equal(5, calls)
    end)

    it("raises what its function raises, and changes nothing", function()
        local d = manager:dict{n = 1}
        assert.has_error(function()
            d:update_with("n", function() error("no", 0) end)
        end, "no")
        assert.are.equal(1, d.n)
        assert.are.equal("update_with: f must be a callable, got 5",
            failure("TypeError", d.update_with, d, "n", 5))
        assert.are.equal("update_with: a key must be a string, number or "
            .. "boolean, got nil",
            failure("TypeError", d.update_with, d, nil, print))
    end)
end)

describe("a snapshot", function()
    -- Each writer keeps the sum of two entries: whoever reads one entry after
    -- the other finds another sum soon.
    it("MAN-14 shows one moment while others write", function()
        local d = manager:dict{a = 50, b = 50, stop = false}
        local p = mp.Process{target = function()
            local n = 0
            while not d.stop do
                n = n % 50 + 1
                d:update{a = 50 + n, b = 50 - n}
            end
        end}
        p:start()
        -- As long as the writer has not come to it, all is well anyhow.
        local wrong, seen, rounds, late = 0, {}, 0, mp.monotonic() + 20
        while rounds < 3000 and mp.monotonic() < late do
            local sum = 0
            for key, value in pairs(d) do
                if key ~= "stop" then sum = sum + value end
            end
            wrong = wrong + (sum == 100 and 0 or 1)
            seen[d.a] = true
            rounds = rounds + (next(seen, next(seen)) and 1 or 0)
        end
        d.stop = true
        assert.is_true(p:join(20))
        assert.are.equal(0, wrong)
        assert.are.equal(3000, rounds)
    end)
end)

describe("manager Namespace", function()
    it("MAN-18 has fields that all processes see", function()
        local ns = manager:Namespace{x = 10, y = "hello"}
        ns._z, ns.list = 12.3, {1}
        local queue = mp.Queue()
        queue:put(ns)
        run(1, function()
            local view = queue:get()
            assert(view.x == 10 and view._z == nil)
            view.x, view._z, view.y = 11, "mine", nil
            view.list:append(2)
        end)
        assert.are.equal(11, ns.x)
        assert.is_nil(ns.y)
        assert.are.equal(12.3, ns._z)
        assert.are.equal(2, #ns.list)
        assert.are.equal("Namespace{x = 11, list = list{1, 2}}", tostring(ns))
        assert.are.equal("x=11 list=list{1, 2}", walked(ns))
        assert.are.same({x = 11, list = {1, 2}}, ns:_totable())
        assert.are.equal(12, ns:_update_with("x", function(x)
            return x + 1
        end))
        assert.is_true(ns == manager:Namespace{list = {1, 2}, x = 12})
    end)

    it("MAN-18 refuses what is no name", function()
        local ns = manager:Namespace()
        assert.is_nil(ns.missing)
        assert.are.equal("Namespace: a name must be a string, got number",
            failure("TypeError", set, ns, 1, 1))
        failure("TypeError", get, ns, 1)
        assert.are.equal("Namespace: a name that begins with '_' is not "
            .. "shared: '_a'",
            failure("ValueError", manager.Namespace, manager, {_a = 1}))
        assert.are.equal("Namespace: a name must be a string, got 1",
            failure("TypeError", manager.Namespace, manager, {"x"}))
        assert.are.equal("_update_with: a name that begins with '_' is not "
            .. "shared: '_a'",
            failure("ValueError", ns._update_with, ns, "_a", print))
        failure("TypeError", ns._update_with, ns, "a", 5)
        assert.matches("^_totable: argument 'self': Namespace expected",
            failure("TypeError", ns._totable, {}))
    end)
end)
