-- Pool: workers and crews that die.

local mp = require "mp"
local core = require "mp.core"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local failure, square = tools.failure, tools.square
local kill, check_list = tools.kill, tools.check_list

--- A job that ends its worker at item `at` by how(), else squares.
local function dying(at, how)
    return function(x)
        if x == at then
            how()
        end
        return x * x
    end
end

local function by_signal(signal)
    return function()
        os.execute("kill -" .. signal .. " " .. require "mp".getpid())
        require "mp".sleep(10)
    end
end

describe("a worker that dies in a task", function()
    it("PAIN-01 loses its item only, and is replaced (T-W-01, POL-20)",
        function()
        local pool <close> = mp.Pool(2)
        local e
        local took = tools.timed(function()
            e = failure("WorkerLost", pool.map, pool,
                dying(3, by_signal("KILL")), mp.range(1, 9), 1)
        end)
        assert.is_true(took < 1)
        assert.are.equal(3, e.index)
        assert.are.equal(9, e.signal)
        assert.is_nil(e.exitcode)
        assert.are.equal("integer", math.type(e.pid))
        assert.are.same({1, 4, nil, 16, 25, 36, 49, 64, n = 8}, e.results)
        assert.are.same({1, 4, n = 2}, pool:map(square, {1, 2}))
        assert.matches("pool_death_spec.lua:", e.func, 1, true)
        assert.matches("item 3 of", e.message, 1, true)
    end)

    for _, case in ipairs {
        {"a segfault", by_signal("SEGV"), "signal", 11},
        {"abort", by_signal("ABRT"), "signal", 6},
        {"SIGTERM", by_signal("TERM"), "signal", 15},
        {"os.exit(0)", function() os.exit(0) end, "exitcode", 0},
        {"os.exit(3)", function() os.exit(3) end, "exitcode", 3},
        {"os.exit(false)", function() os.exit(false) end, "exitcode", 1},
        {"os.exit(7, true)", function() os.exit(7, true) end, "exitcode", 7},
    } do
        it("by " .. case[1] .. " says so (POL-20)", function()
            if helper.sanitized and case[4] == 11 then
                pending("a sanitizer makes an exit of it")
            end
            local pool <close> = mp.Pool(2)
            for _, chunk in ipairs {1, 4, 100} do
                local e = failure("WorkerLost", pool.map, pool,
                    dying(5, case[2]), mp.range(1, 13), chunk)
                assert.are.equal(case[4], e[case[3]])
                assert.are.equal(5, e.index)
                for i = 1, 12 do
                    assert.are.equal(i ~= 5 and i * i or nil, e.results[i])
                end
            end
            local e = failure("WorkerLost", pool.apply, pool, case[2])
            assert.are.equal(case[4], e[case[3]])
            assert.is_nil(e.index)
        end)
    end

    it("is told by every door", function()
        local pool <close> = mp.Pool(2)
        local die = by_signal("KILL")
        local r = pool:apply_async(die)
        failure("WorkerLost", r.get, r)
        failure("WorkerLost", r.get, r)
        assert.is_false(r:successful())
        local seen
        r = pool:map_async(dying(2, die), {1, 2, 3}, 1, nil, function(e)
            seen = e
        end)
        failure("WorkerLost", r.get, r)
        assert.are.equal(2, seen.index)
        failure("WorkerLost", pool.starmap, pool, die, {{}})
        for _, name in ipairs {"imap", "imap_unordered"} do
            local it = pool[name](pool, dying(2, die), {1, 2, 3}, 1)
            local sum, lost = 0, 0
            repeat
                local ok, i, v = pcall(it.next, it)
                if not ok then
                    assert.are.equal("WorkerLost", i.kind)
                    lost = lost + i.index
                elseif i then
                    sum = sum + v
                end
            until ok and not i
            assert.are.equal(10, sum)
            assert.are.equal(2, lost)
        end
        local list = pool:map(dying(2, die), {1, 2, 3}, {
            on_error = "collect", chunksize = 1,
        })
        assert.are.equal(1, check_list(list, 3))
    end)

    it("every time loses every item, and no more", function()
        local pool <close> = mp.Pool(2)
        local list = pool:map(by_signal("KILL"), mp.range(30), {
            on_error = "collect",
        })
        for i = 1, 30 do
            assert.are.equal("WorkerLost", list[i].kind)
            assert.are.equal(i, list[i].index)
        end
        assert.are.equal(4, pool:apply(square, {2}))
    end)

    it("may hold what others wait for", function()
        local pool <close> = mp.Pool(2)
        local lock <close> = mp.Lock()
        local e = failure("WorkerLost", pool.apply, pool, function()
            lock:acquire()
            os.execute("kill -9 " .. require "mp".getpid())
        end)
        assert.are.equal(9, e.signal)
        assert.are.same({true, "abandoned"}, {pool:apply(function()
            return lock:acquire(true, 5)
        end)})
        lock:release()
    end)

    it("in the midst of a large result loses nothing else", function()
        local pool <close> = mp.Pool(2)
        local before = core.debug.arena_bytes()
        for _ = 1, 20 do
            local r = pool:apply_async(function()
                return ("x"):rep(20 << 20)
            end)
            kill(pool._core:pids())
            local ok, e = pcall(r.get, r)
            assert.is_true(ok and #e == 20 << 20
                or e.kind == "WorkerLost")
        end

        collectgarbage()
        assert.is_true(core.debug.arena_bytes() - before < 1 << 20)
    end)

    it("does not keep close and join from finishing", function()
        for _ = 1, 20 do
            local pool = mp.Pool(2)
            local r = pool:map_async(dying(4, by_signal("KILL")),
                mp.range(1, 9), 1)
            pool:close()
            pool:join()
            local e = failure("WorkerLost", r.get, r)
            assert.are.same({1, 4, 9, nil, 25, 36, 49, 64, n = 8}, e.results)
        end
    end)
end)

describe("a worker that dies between tasks", function()
    it("is replaced, and nothing is lost (T-W-03)", function()
        local pool <close> = mp.Pool(3)
        pool:map(square, mp.range(10))
        local before = pool._core:pids()
        kill {before[2]}
        local after = helper.eventually(function()
            local pids = pool._core:pids()
            return pids[2] ~= before[2] and pids
        end)
        assert.are.equal(before[1], after[1])
        assert.are.equal(before[3], after[3])
        assert.are.equal(0, check_list(pool:map(square, mp.range(1, 101)),
            100))
    end)

    it("may do so with all the others, again and again", function()
        local pool <close> = mp.Pool(3)
        for _ = 1, 20 do
            kill(pool._core:pids())
            assert.are.equal(0, check_list(pool:map(square, mp.range(1, 11),
                {on_error = "collect"}), 10))
        end
    end)

    it("may do so before it is ready", function()
        for _ = 1, 20 do
            local pool <close> = mp.Pool(3)
            kill(pool._core:pids())
            assert.are.equal(0, check_list(pool:map(square, mp.range(1, 11),
                {on_error = "collect"}), 10))
        end
    end)

    it("while closing loses nothing", function()
        for _ = 1, 20 do
            local pool = mp.Pool(2)
            local r = pool:map_async(square, mp.range(1, 101))
            r:wait()
            kill(pool._core:pids())
            pool:close()
            pool:join()
            assert.are.equal(0, check_list(r:get(), 100))
        end
    end)
end)
