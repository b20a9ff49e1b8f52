-- Pool: map, starmap, apply, what they take and what they raise. The ids are
-- those of the rows of Python's behaviour that a spec stands for.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local failure, square, failing = tools.failure, tools.square, tools.failing

local function same(...)
    return ...
end

describe("Pool(...)", function()
    it("has as many workers as asked for, all children (POL-01)", function()
        local pool <close> = mp.Pool(3)
        assert.are.equal(3, #pool._core:pids())
        assert.are.equal("<Pool state=run size=3>", tostring(pool))
    end)

    it("has cpu_count() workers by default (POL-01)", function()
        local pool <close> = mp.Pool()
        assert.are.equal(mp.cpu_count(), #pool._core:pids())
    end)

    it("takes named arguments", function()
        local pool <close> = mp.Pool {
            processes = 1, maxtasksperchild = 5, initargs = {2, n = 2},
            initializer = function(...)
                require "mp.pool".worker.state.args = table.pack(...)
            end,
        }
        assert.are.same({2, n = 2}, pool:apply(function()
            return require "mp".worker.state.args
        end))
    end)

    for _, bad in ipairs {0, -1, 1.5, 0 / 0, 1 / 0, 1e300, 1 << 40,
                          math.mininteger} do
        it("refuses " .. tostring(bad) .. " processes (POL-01)", function()
            local _, text = failure("ValueError", mp.Pool, bad)
            assert.matches("Number of processes must be at ", text, 1, true)
        end)
    end

    for _, bad in ipairs {"4", true, print} do
        it("refuses a " .. type(bad) .. " of processes (POL-01)", function()
            local _, text = failure("TypeError", mp.Pool, bad)
            assert.matches("Number of processes must be at least 1", text, 1,
                true)
        end)
    end

    it("refuses a wrong maxtasksperchild (POL-01)", function()
        for _, bad in ipairs {0, -3, 2.5, 0 / 0} do
            local _, text = failure("ValueError", mp.Pool, 1, nil, nil, bad)
            assert.matches("maxtasksperchild must be a positive int", text, 1,
                true)
        end
        failure("TypeError", mp.Pool, 1, nil, nil, "2")
    end)

    it("refuses a wrong initializer or initargs (POL-01)", function()
        local _, text = failure("TypeError", mp.Pool, 1, 5)
        assert.matches("initializer must be a callable", text, 1, true)
        _, text = failure("TypeError", mp.Pool, 1, print, "x")
        assert.matches("initargs must be a list", text, 1, true)
    end)

    it("refuses an unknown option, by its name", function()
        local _, text = failure("TypeError", mp.Pool, {process = 2})
        assert.matches("unknown option 'process'", text, 1, true)
    end)

    it("names the value that it refuses, and the caller's line", function()
        local e, text = failure("ValueError", mp.Pool, 0)
        assert.matches("got 0", text, 1, true)
        assert.is_string(e.where)
    end)
end)

describe("map", function()
    it("gives the results in the order of the items (POL-05)", function()
        local pool <close> = mp.Pool(2)
        local list = pool:map(square, mp.range(1000))
        assert.are.equal(1000, list.n)
        for i = 1, 1000 do
            assert.are.equal((i - 1) * (i - 1), list[i])
        end
    end)

    for _, chunk in ipairs {1, 2, 3, 7, 100, 1000, 5000, 1 << 40,
                            math.maxinteger} do
        it("gives the same with chunks of " .. chunk, function()
            local pool <close> = mp.Pool(2)
            local list = pool:map(square, mp.range(300), chunk)
            assert.are.equal(300, list.n)
            assert.are.equal(299 * 299, list[300])
            assert.are.equal(300, pool:map_async(square, mp.range(300),
                chunk):get().n)
        end)
    end

    it("refuses chunks of 0, -1, 1.5 and NaN (POL-05)", function()
        local pool <close> = mp.Pool(1)
        for _, bad in ipairs {0, -1, 1.5, 0 / 0, math.mininteger} do
            for _, name in ipairs {"map", "starmap", "map_async", "imap",
                                   "starmap_async", "imap_unordered"} do
                local _, text = failure("ValueError", pool[name], pool,
                    square, {1, 2}, bad)
                assert.matches("chunksize must be an integer of at least 1",
                    text, 1, true)
            end
        end
        failure("TypeError", pool.map, pool, square, {1}, "2")
    end)

    it("takes a list with holes and n, and an empty one (POL-05)", function()
        local pool <close> = mp.Pool(2)
        local list = pool:map(function(x) return x == nil and "nil" or x end,
            {1, nil, 3, nil, n = 4})
        assert.are.same({1, "nil", 3, "nil", n = 4}, list)
        assert.are.same({n = 0}, pool:map(square, {}))
        assert.are.same({n = 0}, pool:map(square, {n = 0}))
        assert.are.same({n = 0}, pool:map(square, mp.range(0)))
        assert.are.same({n = 0}, pool:map(square, function() end))
        assert.are.same({n = 2}, pool:map(same, {n = 2}))
    end)

    it("takes ranges, downwards and huge numbers too", function()
        local pool <close> = mp.Pool(2)
        assert.are.same({5, 3, 1, n = 3}, pool:map(same, mp.range(5, 0, -2)))
        local top = math.maxinteger
        assert.are.same({top - 2, top - 1, n = 2},
            pool:map(same, mp.range(top - 2, top)))
        assert.are.same({math.mininteger, -1, top - 1, n = 3},
            pool:map(same, mp.range(math.mininteger, top, top)))
    end)

    it("takes an iterator function, and io.lines (POL-05)", function()
        local pool <close> = mp.Pool(2)
        local i = 0
        assert.are.same({1, 4, 9, n = 3}, pool:map(square, function()
            i = i + 1
            return i <= 3 and i or nil
        end))
        local path = helper.tmpfile("one\ntwo\n\nfour")
        assert.are.same({"ONE", "TWO", "", "FOUR", n = 4},
            pool:map(string.upper, io.lines(path)))
    end)

    it("takes false from an iterator as an item", function()
        local pool <close> = mp.Pool(2)
        local items, i = {false, 1, false, n = 3}, 0
        assert.are.same({true, false, true, n = 3},
            pool:map(function(x) return not x end, function()
                i = i + 1
                return items[i]
            end))
    end)

    it("takes a shared array, and an object with a length", function()
        local pool <close> = mp.Pool(2)
        local array <close> = mp.Array("i", {3, 4, 5})
        assert.are.same({9, 16, 25, n = 3}, pool:map(square, array))
        local proxy = setmetatable({}, {
            __len = function() return 2 end,
            __index = function(_, k) return k ~= "n" and k * 100 or nil end,
        })
        assert.are.same({100, 200, n = 2}, pool:map(same, proxy))
    end)

    it("refuses what is no iterable (POL-05)", function()
        local pool <close> = mp.Pool(1)
        for _, bad in ipairs {5, "text", true, coroutine.create(print)} do
            local _, text = failure("TypeError", pool.map, pool, square, bad)
            assert.matches("an iterable is a list", text, 1, true)
            failure("TypeError", pool.imap, pool, square, bad)
            failure("TypeError", pool.map_async, pool, square, bad)
        end
        failure("TypeError", pool.map, pool, square)
    end)

    it("refuses what is no function, and takes a callable", function()
        local pool <close> = mp.Pool(1)
        failure("TypeError", pool.map, pool, nil, {1})
        failure("TypeError", pool.map, pool, "square", {1})
        failure("TypeError", pool.apply, pool, 5)
        failure("TypeError", pool.imap, pool, {}, {1})
    end)

    it("brings back nil, false and only the first value", function()
        local pool <close> = mp.Pool(2)
        local list = pool:map(function(x)
            if x == 1 then return nil end
            if x == 2 then return false, 9 end
            if x == 3 then return end
            return x, x
        end, {1, 2, 3, 4})
        assert.are.same({nil, false, nil, 4, n = 4}, list)
    end)

    it("carries every kind of value there and back", function()
        local pool <close> = mp.Pool(2)
        local values = {1, -1, math.mininteger, 0.5, -0.0, 1 / 0, true,
            "", "text", ("x"):rep(100), ("y"):rep(100000), {1, {2}}, {a = 1}}
        local list = pool:map(same, values)
        for i, v in ipairs(values) do
            assert.are.same(v, list[i])
            assert.are.equal(math.type(v), math.type(list[i]))
        end
        local cyclic = {}
        cyclic.me = cyclic
        local back = pool:map(same, {cyclic})[1]
        assert.are.equal(back, back.me)
        assert.are.equal(7, pool:map(same, {function() return 7 end})[1]())
    end)

    it("PAIN-05 runs closures with upvalues, and recursive ones", function()
        local pool <close> = mp.Pool(2)
        local factor = 3
        local function fact(n)
            return n <= 1 and 1 or n * fact(n - 1)
        end
        assert.are.same({3, 6, n = 2}, pool:map(function(x)
            return x * factor
        end, {1, 2}))
        assert.are.same({120, n = 1}, pool:map(fact, {5}))
        factor = 4
        assert.are.same({4, n = 1}, pool:map(function(x)
            return x * factor
        end, {1}))
    end)

    it("shares mp's objects that a job refers to", function()
        local pool <close> = mp.Pool(2)
        local sum <close> = mp.Value("q", 0)
        local queue <close> = mp.Queue()
        pool:map(function(x)
            sum:add(x)
            queue:put(x)
        end, mp.range(1, 101))
        assert.are.equal(5050, sum.value)
        assert.are.equal(100, queue:qsize())
        while queue:try_get() do end
    end)

    it("works from one call to the next, many times over", function()
        local pool <close> = mp.Pool(2)
        for i = 1, 300 do
            assert.are.equal(i, pool:map(function(x) return x + i end,
                {0})[1])
        end
    end)

    it("uses 200 workers (T-W-35)", function()
        local pool <close> = mp.Pool(200)
        local list = pool:map(square, mp.range(1, 1001))
        assert.are.equal(1000, list.n)
        assert.are.equal(1000000, list[1000])
        assert.are.equal(1, list[1])
    end)

    it("PAIN-17 carries 50 MB there and back (T-W-41)", function()
        local pool <close> = mp.Pool(1)
        local text = ("0123456789"):rep(5000000)
        assert.is_true(pool:apply(same, {text}) == text)
        assert.is_true(pool:map(same, {text})[1] == text)
    end)

    it("takes many items that are larger than the room ahead", function()
        local pool <close> = mp.Pool(2)
        local text = ("x"):rep(24 << 20)
        assert.are.same({#text, #text, #text, #text, #text, #text, n = 6},
            pool:map(string.len, {text, text, text, text, text, text}))
    end)

    it("spreads single items over all the workers", function()
        local pool <close> = mp.Pool(3)
        assert.are.equal(3, tools.count_processes(pool, 60))
    end)

    it("calls its callback with the list, an error's as well", function()
        local pool <close> = mp.Pool(1)
        local got, problem
        pool:map(square, {1, 2}, nil, function(list) got = list end)
        assert.are.same({1, 4, n = 2}, got)
        failure("RemoteError", pool.map, pool, failing(2), {1, 2},
            {error_callback = function(e) problem = e end})
        assert.are.equal("bad 2", problem.value)
    end)

    it("refuses an unknown option, and a wrong policy", function()
        local pool <close> = mp.Pool(1)
        local _, text = failure("TypeError", pool.map, pool, square, {1},
            {chunk = 5})
        assert.matches("unknown option 'chunk'", text, 1, true)
        failure("ValueError", pool.map, pool, square, {1},
            {on_error = "ignore"})
        failure("TypeError", pool.map, pool, square, {1}, {callback = 5})
    end)
end)

describe("starmap", function()
    it("unpacks each item, n honoured (POL-07)", function()
        local pool <close> = mp.Pool(2)
        local function count(...) return select("#", ...) end
        assert.are.same({3, 7, n = 2}, pool:starmap(function(a, b)
            return a + b
        end, {{1, 2}, {3, 4}}))
        assert.are.same({0, 2, 3, n = 3}, pool:starmap(count,
            {{}, {1, 2}, {nil, nil, nil, n = 3}}))
        assert.are.same({5, n = 1}, pool:starmap_async(math.max,
            {{1, 5, 2}}):get())
    end)

    it("fails the item that is no list (POL-07)", function()
        local pool <close> = mp.Pool(1)
        local e = failure("RemoteError", pool.starmap, pool, print,
            {{}, 5})
        assert.are.equal(2, e.index)
        assert.matches("a list of arguments expected, got number",
            e.message, 1, true)
        e = failure("RemoteError", pool.starmap, pool, print, {{n = -1}})
        assert.matches("ValueError", e.message, 1, true)
    end)
end)

describe("apply", function()
    it("gives all results of the call (POL-03)", function()
        local pool <close> = mp.Pool(1)
        assert.are.same({n = 3, 1, nil, false},
            table.pack(pool:apply(same, {1, nil, false, n = 3})))
        assert.are.same({n = 0}, table.pack(pool:apply(same)))
        assert.are.same({n = 1}, table.pack(pool:apply(same, {n = 1})))
        assert.are.same({n = 2, {1}, "x"},
            table.pack(pool:apply(same, {{1}, "x"})))
    end)

    it("binds kwargs by name, and refuses wrong ones", function()
        local pool <close> = mp.Pool(1)
        local function sub(a, b) return a - b end
        assert.are.equal(7, pool:apply(sub, {10}, {b = 3}))
        local _, text = failure("TypeError", pool.apply, pool, sub, {1},
            {c = 3})
        assert.matches("unexpected keyword argument 'c'", text, 1, true)
        _, text = failure("TypeError", pool.apply, pool, sub, {1, 2, 3})
        assert.matches("takes 2 arguments (3 given)", text, 1, true)
        failure("TypeError", pool.apply, pool, sub, 5)
        failure("TypeError", pool.apply_async, pool, sub, {1}, {a = 2})
    end)

    it("POL-22 refuses unpicklable arguments at once, and ends well",
        function()
        local pool = mp.Pool(1)
        local _, text = failure("PicklingError", pool.apply_async, pool, same,
            {1, {on = coroutine.create(print)}})
        assert.matches("cannot pickle a coroutine", text, 1, true)
        assert.are.equal(4, pool:apply(square, {2}))
        pool:close()
        pool:join()
    end)

    it("refuses a function that cannot be pickled (T-W-09)", function()
        local pool <close> = mp.Pool(1)
        local thread = coroutine.create(print)
        local function job() return thread end
        for _, call in ipairs {
            function() pool:apply(job) end,
            function() pool:apply_async(job) end,
            function() pool:map(job, {1}) end,
            function() pool:map_async(job, {1}) end,
            function() pool:imap(job, {1}) end,
        } do
            local _, text = failure("PicklingError", call)
            assert.matches("upvalue 'thread'", text, 1, true)
        end
        assert.are.equal(4, pool:apply(square, {2}))
    end)

    it("refuses another pool, and any as result (POL-17, T-W-09)", function()
        local pool <close> = mp.Pool(1)
        local other <close> = mp.Pool(1)
        failure("PicklingError", pool.apply, pool, type, {other})
        failure("PicklingError", pool.apply, pool, function()
            return type(other)
        end)
        failure("PicklingError", pool.apply, pool, same, {pool})
    end)
end)
