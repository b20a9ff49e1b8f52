-- Pool: how it begins and ends, initializers, replacement, and who may use
-- it.

local mp = require "mp"
local tools = require "spec.pool_tools"

local failure, timed = tools.failure, tools.timed
local square, sleep = tools.square, tools.sleep
local all_gone = tools.all_gone

describe("a pool's end", function()
    it("by close and join finishes what was submitted (POL-11)", function()
        local pool = mp.Pool(2)
        local pids = pool._core:pids()
        local r = pool:map_async(sleep, {0.1, 0.1, 0.1, 0.1}, 1)
        pool:close()
        pool:close()
        pool:join()
        pool:join()
        assert.are.equal(4, r:get().n)
        assert.is_true(all_gone(pids))
    end)

    it("needs close before join (T-W-29, POL-12)", function()
        local pool <close> = mp.Pool(1)
        local _, text = failure("StateError", pool.join, pool)
        assert.are.equal("Pool is still running", text)
    end)

    it("means no more work (POL-14)", function()
        local closed = mp.Pool(1)
        closed:close()
        local gone = mp.Pool(1)
        gone:terminate()
        for _, pool in ipairs {closed, gone} do
            for _, name in ipairs {"map", "starmap", "imap", "map_async",
                                   "imap_unordered", "starmap_async"} do
                local _, text = failure("StateError", pool[name], pool,
                    square, {1})
                assert.are.equal("Pool not running", text)
            end
            failure("StateError", pool.apply, pool, square, {1})
            failure("StateError", pool.apply_async, pool, square, {1})
        end
        closed:join()
        gone:join()
    end)

    it("by terminate is quick with 40 tasks of 5 s (T-W-31)", function()
        local pool = mp.Pool(8)
        local pids = pool._core:pids()
        local results = {}
        for i = 1, 40 do
            results[i] = pool:apply_async(sleep, {5})
        end
        local list = pool:map_async(sleep, {5, 5, 5})
        assert.is_true(timed(pool.terminate, pool) < 0.5)
        assert.is_true(all_gone(pids))
        for i = 1, 40 do
            assert.is_true(results[i]:ready())
            assert.is_false(results[i]:successful())
            failure("PoolTerminated", results[i].get, results[i])
        end
        for _ = 1, 2 do
            failure("PoolTerminated", list.get, list)
        end
        pool:terminate()
        pool:join()
        pool:close()
    end)

    it("by terminate keeps the results that are there (POL-13)", function()
        local pool = mp.Pool(1)
        local r = pool:apply_async(square, {3})
        r:wait()
        pool:terminate()
        assert.are.equal(9, r:get())
        pool:join()
    end)

    it("by its block finishes the work (POL-15)", function()
        local count <close> = mp.Value("q", 0)
        do
            local pool <close> = mp.Pool(2)
            pool:map_async(function()
                require "mp".sleep(0.01)
                count:add(1)
            end, mp.range(20), 1)
        end
        assert.are.equal(20, count.value)
    end)

    it("PAIN-23 by an error in its block is at once (POL-15)", function()
        local begin = mp.monotonic()
        local ok, e = pcall(function()
            local pool <close> = mp.Pool(2)
            pool:map_async(sleep, {60, 60, 60})
            error("out", 0)
        end)
        assert.are.same({false, "out"}, {ok, e})
        assert.is_true(mp.monotonic() - begin < 1)
    end)

    it("does not wait for a job that an error kept from its caller",
        function()
            local native = require "mp.core".pool
            assert.is_true(timed(function()
                local pool <close> = mp.Pool(2)
                debug.sethook(function()
                    if debug.getinfo(2, "f").func == native.job then
                        debug.sethook()
                        error("from outside", 0)
                    end
                end, "r")
                local ok, e = pcall(pool.map, pool, sleep, {20, 20})
                debug.sethook()
                assert.are.same({false, "from outside"}, {ok, e})
            end) < 5)
        end)

    it("by its block is harmless after close, join, terminate", function()
        local kept
        do
            local pool <close> = mp.Pool(1)
            pool:close()
            pool:join()
        end
        do
            local pool <close> = mp.Pool(1)
            pool:terminate()
        end
        do
            local pool <close> = mp.Pool(1)
            kept = pool
        end
        kept:close()
        kept:terminate()
        kept:join()
        kept:poll()
        failure("StateError", kept.map, kept, square, {1})
        assert.is_string(tostring(kept))
    end)

    it("PAIN-23 by the collector stops everything (POL-16, T-W-33)", function()
        local pids = (function()
            local pool = mp.Pool(2)
            pool:map_async(sleep, {60, 60})
            return pool._core:pids()
        end)()
        collectgarbage()
        collectgarbage()
        assert.is_true(all_gone(pids))
    end)

    it("by the script's end is quick, with work left (T-W-33)", function()
        for _, ending in ipairs {"", "os.exit(0)", "os.exit(0, true)"} do
            local run
            local took = timed(function()
                run = tools.script([[
                    mp = require "mp"
                    pool = mp.Pool(3)
                    r = pool:map_async(mp.sleep, {60, 60, 60, 60})
                    print(table.concat(pool._core:pids(), " "))
                ]] .. ending)
            end)
            assert.are.equal("", run.stderr)
            assert.are.equal(0, run.code)
            assert.is_true(took < 1.5)
            local pids = {}
            for pid in run.stdout:gmatch("%d+") do
                pids[#pids + 1] = pid
            end
            assert.are.equal(3, #pids)
            tools.soon_gone(pids)
        end
    end)

    it("by the script's error tells the error only", function()
        local run = tools.script [[
            local mp = require "mp"
            local pool <close> = mp.Pool(2)
            pool:map(function(x) error("bad " .. x, 0) end, {1})
        ]]
        assert.are.equal(1, run.code)
        assert.matches("RemoteError: bad 1", run.stderr, 1, true)
    end)

    it("leaves nothing behind, 100 times over", function()
        for _ = 1, 100 do
            local pool <close> = mp.Pool(2)
            pool:apply(square, {1})
        end
    end)
end)

describe("an initializer", function()
    it("runs in every worker before its first task", function()
        local pool <close> = mp.Pool(3, function(a, b)
            require "mp".worker.state.sum = a + b
        end, {1, 2})
        local list = pool:map(function()
            require "mp".sleep(0.01)
            return require "mp".worker.state.sum
        end, mp.range(12), 1)
        for i = 1, 12 do
            assert.are.equal(3, list[i])
        end
    end)

    it("POL-02 that fails breaks the pool, with its error (T-W-25)", function()
        local starts <close> = mp.Value("q", 0)
        local pool <close> = mp.Pool(3, function()
            starts:add(1)
            error("no database", 0)
        end)
        local e
        local took = timed(function()
            e = failure("BrokenPool", pool.map, pool, square, mp.range(100))
        end)
        assert.is_true(took < 1)
        assert.matches("the initializer failed: no database", e.message, 1,
            true)
        assert.are.equal("no database", e.cause.value)
        assert.is_string(e.traceback)
        failure("BrokenPool", pool.apply, pool, square, {1})
        failure("BrokenPool", pool.apply_async, pool, square, {1})
        failure("BrokenPool", pool.imap, pool, square, {1})
        sleep(0.1)
        assert.is_true(starts.value <= 9)
    end)

    it("that fails leaves results that were awaited broken", function()
        local gate <close> = mp.Event()
        local pool <close> = mp.Pool(2, function()
            gate:wait()
            error("late", 0)
        end)
        local r = pool:map_async(square, {1, 2})
        local it = pool:imap(square, {1, 2})
        gate:set()
        failure("BrokenPool", r.get, r, 10)
        failure("BrokenPool", it.next, it, 10)
        assert.is_false(r:successful())
    end)

    it("that exits or dies breaks the pool, no storm (PAIN-09)", function()
        for _, how in ipairs {
            function() os.exit(3) end,
            function() os.exit(0) end,
            function()
                os.execute("kill -9 " .. require "mp".getpid())
            end,
        } do
            local starts <close> = mp.Value("q", 0)
            local pool <close> = mp.Pool(2, function()
                starts:add(1)
                how()
            end)
            local took = timed(function()
                failure("BrokenPool", pool.map, pool, square, {1, 2})
            end)
            assert.is_true(took < 2)
            assert.is_true(starts.value <= 40)
        end
    end)

    it("runs in replacements, too", function()
        local starts <close> = mp.Value("q", 0)
        do
            local pool <close> = mp.Pool {
                processes = 1, maxtasksperchild = 1,
                initializer = function() starts:add(1) end,
            }
            pool:map(square, {1, 2, 3}, 1)
        end
        assert.is_true(starts.value >= 3)
    end)
end)

describe("maxtasksperchild", function()
    it("replaces a worker after so many (T-W-27, POL-23)", function()
        local pool <close> = mp.Pool(3, nil, nil, 2)
        assert.is_true(tools.count_processes(pool, 12) >= 6)
    end)

    it("of 1 gives each single task its own process", function()
        local pool <close> = mp.Pool(2, nil, nil, 1)
        assert.are.equal(40, tools.count_processes(pool, 40))
        local sum = 0
        for _, v in pool:imap_unordered(square, mp.range(1, 41), 1) do
            sum = sum + v
        end
        assert.are.equal(40 * 41 * 81 // 6, sum)
    end)

    it("loses nothing over hundreds of replacements", function()
        local pool <close> = mp.Pool(4, nil, nil, 3)
        local list = pool:map(square, mp.range(1, 601), 2)
        for i = 1, 600 do
            assert.are.equal(i * i, list[i])
        end
    end)

    it("keeps the worker's number", function()
        local pool <close> = mp.Pool(2, nil, nil, 1)
        for _, id in ipairs(pool:map(function()
            return require "mp".worker.id
        end, mp.range(20), 1)) do
            assert.is_true(id == 1 or id == 2)
        end
    end)
end)
