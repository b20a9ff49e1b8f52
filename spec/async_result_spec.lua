-- AsyncResult: what apply_async and map_async give, and their callbacks.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local failure, timed = tools.failure, tools.timed
local square, sleep = tools.square, tools.sleep

describe("an AsyncResult", function()
    it("gives all values, again and again (POL-04, POL-18)", function()
        local pool <close> = mp.Pool(2)
        local r = pool:apply_async(function(...) return ... end,
            {1, nil, false, n = 3})
        for _ = 1, 3 do
            assert.are.same({n = 3, 1, nil, false}, table.pack(r:get()))
            assert.are.same({n = 4, true, 1, nil, false},
                table.pack(r:try_get()))
        end
        assert.are.same({n = 0}, table.pack(pool:apply_async(function()
        end):get()))
    end)

    it("gives the list of map_async and starmap_async (POL-06)", function()
        local pool <close> = mp.Pool(2)
        assert.are.same({1, 4, n = 2}, pool:map_async(square, {1, 2}):get())
        assert.are.same({3, n = 1}, pool:starmap_async(function(a, b)
            return a + b
        end, {{1, 2}}):get())
        local list = pool:map_async(square, mp.range(50000)):get()
        assert.are.equal(50000, list.n)
        assert.are.equal(49999 * 49999, list[50000])
        local i = 0
        assert.are.equal(20000, pool:map_async(square, function()
            i = i + 1
            return i <= 20000 and i or nil
        end):get().n)
    end)

    it("is ready by itself, whatever the chunk size", function()
        local pool <close> = mp.Pool(2)
        for _, n in ipairs {1, 7, 8, 9, 100, 129} do
            for _, chunk in ipairs {1, 3, 5, 20, 1000} do
                local r = pool:map_async(square, mp.range(n), chunk)
                -- Nobody takes a result, which would feed the workers.
                assert.is_true(r:wait(5), n .. " by " .. chunk)
                assert.are.equal((n - 1) * (n - 1), r:get()[n])
            end
        end
    end)

    it("raises the task's error, again and again (POL-18)", function()
        local pool <close> = mp.Pool(1)
        for _, r in ipairs {
            pool:apply_async(error, {"bad", 0}),
            pool:map_async(function() error("bad", 0) end, {1, 2}),
        } do
            for _ = 1, 3 do
                assert.are.equal("bad", failure("RemoteError", r.get, r)
                    .value)
            end
            failure("RemoteError", r.try_get, r)
            assert.is_false(r:successful())
        end
    end)

    it("waits no longer than asked (POL-18, POL-19)", function()
        local pool <close> = mp.Pool(1)
        local r = pool:apply_async(sleep, {1.5})
        local took = timed(function()
            failure("TimeoutError", r.get, r, 0.05)
        end)
        assert.is_true(took >= 0.05 and took < 1.2)
        failure("TimeoutError", r.get, r, 0)
        failure("TimeoutError", r.get, r, -5)
        assert.are.same({false, "TimeoutError"}, {r:try_get()})
        assert.are.same({false, "TimeoutError"}, {r:try_get(0.01)})
        assert.is_false(r:wait(0.01))
        assert.is_false(r:ready())
        assert.is_true(r:wait())
        assert.is_true(r:ready())
        assert.are.equal(1.5, r:get(0))
    end)

    it("goes on where get() of a map left off", function()
        local pool <close> = mp.Pool(2)
        local r = pool:map_async(sleep, {0, 1, 0, 1}, 1)
        failure("TimeoutError", r.get, r, 0.1)
        failure("TimeoutError", r.get, r, 0)
        assert.are.same({0, 1, 0, 1, n = 4}, r:get(10))
    end)

    it("refuses wrong timeouts", function()
        local pool <close> = mp.Pool(1)
        local r = pool:apply_async(square, {1})
        failure("ValueError", r.get, r, 0 / 0)
        failure("TypeError", r.get, r, "1")
        failure("TypeError", r.wait, r, {})
        assert.are.equal(1, r:get(1 / 0))
    end)

    it("knows whether it was successful (T-W-21, POL-19)", function()
        local pool <close> = mp.Pool(1)
        local r = pool:apply_async(sleep, {0.2})
        local _, text = failure("StateError", r.successful, r)
        assert.matches("not ready", text, 1, true)
        r:wait()
        assert.is_true(r:successful())
        local bad = pool:apply_async(error, {1})
        bad:wait()
        assert.is_false(bad:successful())
        assert.are.equal("<AsyncResult done>", tostring(r))
        assert.are.equal("<AsyncResult failed>", tostring(bad))
    end)

    it("is ready at once for an empty input (T-W-11)", function()
        local pool <close> = mp.Pool(1)
        for _, xs in ipairs {{}, mp.range(0), function() end} do
            local r = pool:map_async(square, xs)
            assert.is_true(r:ready())
            assert.is_true(r:successful())
            assert.are.same({n = 0}, r:get())
        end
    end)

    it("can be read in any order", function()
        local pool <close> = mp.Pool(2)
        local results = {}
        for i = 1, 500 do
            results[i] = pool:apply_async(square, {i})
        end
        for i = 500, 1, -1 do
            assert.are.equal(i * i, results[i]:get())
        end
    end)

    it("can be dropped unread", function()
        local pool = mp.Pool(2)
        local count <close> = mp.Value("q", 0)
        for _ = 1, 200 do
            pool:apply_async(function() count:add(1) end)
        end
        collectgarbage()
        pool:map_async(function() count:add(1) end, mp.range(100))
        collectgarbage()
        pool:close()
        pool:join()
        assert.are.equal(300, count.value)
    end)

    it("can be read after close and join, and after the block", function()
        local pool = mp.Pool(2)
        local r = pool:apply_async(square, {3})
        local list = pool:map_async(square, {1, 2})
        pool:close()
        pool:join()
        assert.are.equal(9, r:get())
        assert.are.same({1, 4, n = 2}, list:get())
        do
            local block <close> = mp.Pool(2)
            r = block:apply_async(square, {4})
            list = block:map_async(square, {3})
        end
        assert.are.equal(16, r:get())
        assert.are.same({9, n = 1}, list:get())
    end)

    it("keeps its pool's work going when the pool is dropped", function()
        local r = mp.Pool(1):apply_async(sleep, {0.2})
        collectgarbage()
        collectgarbage()
        assert.are.equal(0.2, r:get(5))
    end)
end)

describe("a callback", function()
    it("gets what get() gives, before get() returns (POL-04)", function()
        local pool <close> = mp.Pool(2)
        local got = {}
        local r = pool:apply_async(function() return 1, nil, 3 end, {}, nil,
            function(...) got[#got + 1] = table.pack(...) end)
        assert.are.same({n = 3, 1, nil, 3}, table.pack(r:get()))
        assert.are.same({{n = 3, 1, nil, 3}}, got)
        pool:map_async(square, {1, 2}, nil, function(list)
            got[#got + 1] = list
        end):get()
        assert.are.same({1, 4, n = 2}, got[2])
        r:get()
        assert.are.equal(2, #got)
    end)

    it("is not for errors; the other one is (POL-04)", function()
        local pool <close> = mp.Pool(1)
        local got = {}
        local function good() got[#got + 1] = "good" end
        local function bad(e) got[#got + 1] = e.value end
        local r = pool:apply_async(error, {"x", 0}, nil, good, bad)
        pcall(r.get, r)
        r = pool:map_async(error, {"y"}, {
            callback = good, error_callback = bad,
        })
        pcall(r.get, r)
        pool:apply_async(square, {1}, nil, {callback = good}):get()
        assert.are.same({"x", "y", "good"}, got)
    end)

    it("runs in other waits, in the order of completion", function()
        local pool <close> = mp.Pool(2)
        local order = {}
        local function note(x) order[#order + 1] = x end
        local slow = pool:apply_async(sleep, {0.3}, nil, note)
        pool:apply_async(sleep, {0}, nil, note)
        pool:apply_async(sleep, {0.1}, nil, note)
        pool:apply(sleep, {0.4})
        assert.are.same({0, 0.1, 0.3}, order)
        assert.is_true(slow:ready())
    end)

    it("has run when wait() says that the result is there", function()
        local pool <close> = mp.Pool(1)
        local got
        local r = pool:apply_async(square, {3}, nil, {
            callback = function(x) got = x end,
        })
        helper.eventually(function() return r:ready() end)
        assert.is_nil(got)
        assert.is_true(r:wait())
        assert.are.equal(9, got)
    end)

    it("runs in poll() and join()", function()
        local pool <close> = mp.Pool(1)
        local got
        pool:apply_async(square, {3}, nil, function(x) got = x end)
        helper.eventually(function()
            pool:poll()
            return got == 9
        end)
        pool:apply_async(square, {4}, nil, function(x) got = x end)
        pool:close()
        pool:join()
        assert.are.equal(16, got)
    end)

    it("runs at the end of the pool's block", function()
        local got
        do
            local pool <close> = mp.Pool(1)
            pool:apply_async(square, {3}, nil, function(x) got = x end)
        end
        assert.are.equal(9, got)
    end)

    it("may use the pool, its own result too", function()
        local pool <close> = mp.Pool(2)
        local got = {}
        local r
        r = pool:apply_async(sleep, {0.1}, nil, function(x)
            got[1] = x
            got[2] = r:get()
            got[3] = pool:apply(square, {3})
            got[4] = pool:map(square, {2})[1]
        end)
        assert.are.equal(0.1, r:get())
        assert.are.same({0.1, 0.1, 9, 4}, got)
    end)

    it("may ask for the result that the caller waits for", function()
        local pool <close> = mp.Pool(2)
        local waited = pool:map_async(sleep, {0.2, 0.2}, 1)
        local single = pool:apply_async(sleep, {0.3})
        local got
        pool:apply_async(square, {3}, nil, function()
            got = {waited:get(), single:get()}
        end)
        assert.are.same({0.2, 0.2, n = 2}, waited:get())
        assert.are.equal(0.3, single:get())
        assert.are.same({{0.2, 0.2, n = 2}, 0.3}, got)
    end)

    it("may read on in the iterator that the caller waits for", function()
        local pool <close> = mp.Pool(2)
        local rest = {}
        local it = pool:imap(sleep, {0.2, 0.2, 0.2}, 1)
        pool:apply_async(square, {3}, nil, function()
            for i in it do
                rest[#rest + 1] = i
            end
        end)
        for i in it do
            rest[#rest + 1] = i
        end
        assert.are.same({1, 2, 3}, rest)
    end)

    it("that raises is reported and stops nothing (PAIN-08)", function()
        local run = tools.script [[
            local mp = require "mp"
            local pool <close> = mp.Pool(1)
            local n = 0
            local function bad() n = n + 1 error("oh no") end
            print(pool:apply_async(math.abs, {-1}, nil, bad):get())
            print(pool:map_async(math.abs, {-2}, nil, bad):get()[1])
            print(pool:map(math.abs, {-3}, {callback = bad})[1])
            print(pool:apply(math.abs, {-4}), n)
        ]]
        assert.are.equal("1\n2\n3\n4\t3\n", run.stdout)
        assert.are.equal(0, run.code)
        local _, count = run.stderr:gsub("error in a callback of Pool: [^\n]*"
            .. "oh no", "")
        assert.are.equal(3, count)
    end)

    it("may close the pool (PAIN-08)", function()
        local pool = mp.Pool(1)
        local other = pool:apply_async(sleep, {0.1})
        pool:apply_async(square, {2}, nil, function()
            pool:close()
            pool:join()
        end):get()
        assert.are.equal(0.1, other:get())
        failure("StateError", pool.apply, pool, square, {1})
    end)

    it("may terminate the pool (PAIN-08)", function()
        local pool = mp.Pool(2)
        local other = pool:apply_async(sleep, {60})
        local r = pool:apply_async(square, {2}, nil, function()
            pool:terminate()
        end)
        failure("PoolTerminated", other.get, other, 20)
        assert.are.equal(4, r:get())
        pool:join()
    end)

    it("gets PoolTerminated when the pool is stopped", function()
        local pool = mp.Pool(1)
        local kind
        pool:apply_async(sleep, {60}, nil, nil, function(e) kind = e.kind end)
        pool:terminate()
        pool:join()
        assert.are.equal("PoolTerminated", kind)
    end)

    it("of an empty map is called, too", function()
        local pool <close> = mp.Pool(1)
        local got
        local r = pool:map_async(square, {}, nil, function(l) got = l end)
        r:get()
        assert.are.same({n = 0}, got)
    end)
end)
