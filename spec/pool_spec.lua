-- Pool: map, starmap, apply, what they take and what they raise. The ids are
-- those of the rows of Python's behaviour that a spec stands for.

local mp = require "mp"
local helper = require "spec.helper"

--- The error object that `f(...)` raises, which is of this kind.
local function failure(kind, f, ...)
    local ok, e = pcall(f, ...)
    assert.is_false(ok)
    assert.are.equal(kind, type(e) == "table" and e.kind or tostring(e))
    return e, e.message
end

local function square(x)
    return x * x
end

local function same(...)
    return ...
end

--- A job that fails for those items, with the text «bad ITEM».
local function failing(...)
    local bad = {}
    for _, item in ipairs {...} do
        bad[item] = true
    end
    return function(x)
        if bad[x] then
            error("bad " .. x, 0)
        end
        return x * 10
    end
end

--- The pids of the pool's workers that took part.
local function pids_of(pool, n, chunk)
    local seen, count = {}, 0
    for _, pid in ipairs(pool:map(function()
        local m = require "mp"
        m.sleep(0.002)
        return m.getpid()
    end, mp.range(n), chunk or 1)) do
        if not seen[pid] then
            seen[pid] = true
            count = count + 1
        end
    end
    return seen, count
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

    it("runs closures with upvalues, and recursive ones", function()
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

    it("carries 50 MB there and back (T-W-41)", function()
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
        local _, count = pids_of(pool, 60)
        assert.are.equal(3, count)
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

    it("refuses unpicklable arguments at once, and ends well", function()
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

    it("refuses a pool as argument or upvalue (POL-17, T-W-09)", function()
        local pool <close> = mp.Pool(1)
        failure("PicklingError", pool.apply, pool, same, {pool})
        failure("PicklingError", pool.apply, pool, function()
            return pool
        end)
    end)
end)

describe("an error in a task", function()
    it("is a RemoteError with all its fields", function()
        local pool <close> = mp.Pool(1)
        local value = {code = 5}
        local e = failure("RemoteError", pool.map, pool, function(x)
            if x == 2 then
                error(value)
            end
            return x
        end, {1, 2, 3})
        assert.are.same({code = 5}, e.value)
        assert.are.equal(2, e.index)
        assert.are.equal(1, e.worker)
        assert.are.equal(pool._core:pids()[1], e.pid)
        assert.matches("pool_spec.lua:", e.func, 1, true)
        assert.matches("stack traceback", e.traceback, 1, true)
        assert.matches("pool_spec.lua:", e.traceback, 1, true)
        assert.matches("remote traceback", tostring(e), 1, true)
        assert.are.same({1, nil, 3, n = 3}, e.results)
    end)

    it("keeps its value, whatever its type", function()
        local pool <close> = mp.Pool(1)
        for _, value in ipairs {false, 5, 0.5, "text", {1}} do
            local e = failure("RemoteError", pool.apply, pool, error,
                {value, 0})
            assert.are.same(value, e.value)
        end
        local e = failure("RemoteError", pool.apply, pool, error)
        assert.is_nil(e.value)
        e = failure("RemoteError", pool.apply, pool, function()
            error(coroutine.create(print))
        end)
        assert.matches("^thread", e.value)
        e = failure("RemoteError", pool.apply, pool, function()
            error(setmetatable({}, {__tostring = function()
                error("no text")
            end}))
        end)
        assert.is_string(e.message)
    end)

    it("of the lowest index is raised (T-W-05)", function()
        local pool <close> = mp.Pool(2)
        for _ = 1, 20 do
            local e = failure("RemoteError", pool.map, pool, failing(5, 3),
                mp.range(1, 11), 1)
            assert.are.equal(3, e.index)
            assert.are.equal("bad 3", e.value)
            assert.are.same({10, 20, nil, 40, nil, 60, 70, 80, 90, 100,
                n = 10}, e.results)
        end
    end)

    it("is collected in its place when asked so", function()
        local pool <close> = mp.Pool(2)
        local list = pool:map(failing(1, 3), {1, 2, 3}, {
            on_error = "collect",
        })
        assert.are.equal(3, list.n)
        assert.is_true(mp.iserror(list[1], "RemoteError"))
        assert.are.equal(20, list[2])
        assert.are.equal(3, list[3].index)
        assert.are.equal("bad 1", pool:map_async(failing(1), {1}, {
            on_error = "collect",
        }):get()[1].value)
    end)

    it("does not keep the others from being done", function()
        local pool <close> = mp.Pool(2)
        local count <close> = mp.Value("q", 0)
        failure("RemoteError", pool.map, pool, function(x)
            count:add(1)
            error(x)
        end, mp.range(100))
        assert.are.equal(100, count.value)
    end)

    it("may be a stack overflow, a yield, or a want of memory", function()
        local pool <close> = mp.Pool(1)
        local function deep(n)
            return 1 + deep(n + 1)
        end
        local e = failure("RemoteError", pool.apply, pool, deep, {1})
        assert.matches("stack overflow", e.message, 1, true)
        e = failure("RemoteError", pool.apply, pool, coroutine.yield)
        assert.matches("yield", e.message, 1, true)
        e = failure("RemoteError", pool.apply, pool, function()
            return ("x"):rep(1 << 50)
        end)
        assert.is_string(e.message)
        assert.are.equal(4, pool:apply(square, {2}))
    end)

    it("is PicklingError when the result cannot go (T-W-07)", function()
        local pool <close> = mp.Pool(2)
        local function job(x)
            return x == 2 and coroutine.create(print) or x
        end
        local e, text = failure("PicklingError", pool.map, pool, job,
            {1, 2, 3})
        assert.matches("cannot pickle a coroutine", text, 1, true)
        assert.are.equal(2, e.index)
        assert.are.same({1, nil, 3, n = 3}, e.results)
        failure("PicklingError", pool.apply, pool, job, {2})
        assert.are.equal(4, pool:apply(square, {2}))
    end)
end)

describe("an iterator of the caller", function()
    local function broken_at(n, problem)
        local i = 0
        return function()
            i = i + 1
            if i == n then
                error(problem, 0)
            end
            return i
        end
    end

    it("that raises makes map raise just that (POL-08)", function()
        local pool <close> = mp.Pool(2)
        local problem = {}
        for _, at in ipairs {1, 2, 100, 20000} do
            local ok, e = pcall(pool.map, pool, square,
                broken_at(at, problem))
            assert.is_false(ok)
            assert.are.equal(problem, e)
            ok, e = pcall(pool.map_async, pool, square,
                broken_at(at, problem))
            assert.is_false(ok)
            assert.are.equal(problem, e)
        end
        assert.are.equal(9, pool:apply(square, {3}))
    end)

    it("with an unpicklable item makes map raise at once", function()
        local pool <close> = mp.Pool(1)
        local function slow() require "mp".sleep(0.5) end
        local items = {1, 2, 3, 4, 5, 6, 7, 8, coroutine.create(print)}
        local begin = mp.monotonic()
        local e = failure("PicklingError", pool.map, pool, slow, items, 1)
        assert.are.equal(9, e.index)
        failure("PicklingError", pool.map_async, pool, slow, items, 1)
        assert.is_true(mp.monotonic() - begin < 1)
    end)

    it("may use the pool itself", function()
        local pool <close> = mp.Pool(2)
        local i = 0
        assert.are.same({1, 16, n = 2}, pool:map(square, function()
            i = i + 1
            return i <= 2 and pool:apply(square, {i}) or nil
        end))
    end)
end)
