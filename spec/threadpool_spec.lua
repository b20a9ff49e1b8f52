-- Pools whose workers are threads: what is theirs alone. (What all pools do:
-- the other pool specs.)

local helper = require "spec.helper"
local mp = require "mp"

local function worker_and_index()
    local worker = require("mp").worker
    return {worker.id, worker.index}
end

--- Seconds that f takes.
local function seconds(f, ...)
    local begin = mp.monotonic()
    f(...)
    return mp.monotonic() - begin
end

describe("a pool of threads", function()
    it("POL-25 maps, streams and applies as a pool of processes", function()
        local pool <close> = mp.ThreadPool(2)
        local function square(x) return x * x end
        assert.are.same({0, 1, 4, n = 3}, pool:map(square, mp.range(3)))
        local list = {}
        for i, v in pool:imap(square, {1, 2, 3}) do list[i] = v end
        assert.are.same({1, 4, 9}, list)
        assert.are.same({n = 3, 6, nil, "x"}, table.pack(pool:apply(
            function(a, b) return a + b, nil, "x" end, {2, 4})))
        assert.are.equal(mp.getpid(), pool:apply(mp.getpid))
    end)

    it("is what every door to it makes", function()
        for _, Pool in ipairs{mp.ThreadPool, mp.dummy.Pool,
                              mp.get_context("thread").Pool} do
            local pool <close> = Pool{processes = 1}
            assert.are.equal(mp.getpid(), pool:apply(mp.getpid))
        end
        local pool <close> = mp.Pool{processes = 1,
            context = mp.get_context("thread")}
        assert.are.equal(mp.getpid(), pool:apply(mp.getpid))
    end)

    it("gives each worker a state of its own, and an id", function()
        local pool <close> = mp.ThreadPool(3)
        local seen = {}
        for _, v in ipairs(pool:map(worker_and_index, mp.range(300), 1)) do
            seen[v[1]] = true
        end
        for id in pairs(seen) do
            assert.is_true(id >= 1 and id <= 3)
        end
        assert.are.equal(5, pool:map(worker_and_index, mp.range(9))[5][2])
    end)

    it("runs the initializer in each, with its arguments", function()
        local pool <close> = mp.ThreadPool(2, function(a, b)
            require("mp").worker.state.sum = a + (b or 0)
        end, {40, 2})
        assert.are.same({42, 42, 42, n = 3}, pool:map(function()
            return require("mp").worker.state.sum
        end, {1, 2, 3}))
    end)

    it("is a BrokenPool when the initializer fails, with its error",
    function()
        local pool = mp.ThreadPool(2, function() error("no luck") end)
        local ok, e = pcall(pool.map, pool, print, {1})
        assert.is_false(ok)
        assert.is_true(mp.iserror(e, "BrokenPool"))
        assert.matches("no luck", e.message)
        pool:join()
        pool:__close()
    end)

    it("raises what cannot travel to its workers, and leaves nothing",
    function()
        local ok, e = pcall(mp.ThreadPool, 2, print,
            {coroutine.create(print)})
        assert.is_false(ok)
        assert.is_true(mp.iserror(e, "PicklingError"))
    end)

    it("loses the item whose job calls os.exit, and no other", function()
        local pool <close> = mp.ThreadPool(2)
        local list = pool:map(function(x)
            if x % 10 == 7 then os.exit(3) end
            return x
        end, mp.range(40), {on_error = "collect"})
        for i = 1, 40 do
            if (i - 1) % 10 == 7 then
                assert.is_true(mp.iserror(list[i], "WorkerLost"))
                assert.are.equal(3, list[i].exitcode)
                assert.are.equal(i, list[i].index)
            else
                assert.are.equal(i - 1, list[i])
            end
        end
        assert.are.equal(100, pool:map(tostring, mp.range(100)).n)
    end)

    it("leaves as by a death what a job that calls os.exit held", function()
        local pool <close> = mp.ThreadPool(1)
        local lock = mp.Lock()
        local r = pool:apply_async(function(l)
            l:acquire()
            os.exit(0)
        end, {lock})
        assert.is_true(mp.iserror(select(2, pcall(r.get, r, 10)),
            "WorkerLost"))
        assert.are.same({true, "abandoned"}, {lock:acquire(true, 10)})
        lock:release()
    end)

    it("gives a worker a fresh state after so many tasks", function()
        local pool <close> = mp.ThreadPool{processes = 1,
            maxtasksperchild = 2}
        local function count()
            local state = require("mp").worker.state
            state.n = (state.n or 0) + 1
            return state.n
        end
        assert.are.same({1, 2, 1, 2, 1, n = 5},
            pool:map(count, mp.range(5), 1))
    end)

    it("tells an error with its traceback, and where it came from",
    function()
        local pool <close> = mp.ThreadPool(1)
        local ok, e = pcall(pool.map, pool, function(x)
            if x == 2 then error("two") end
        end, {1, 2, 3})
        assert.is_false(ok)
        assert.are.same({"RemoteError", 2, mp.getpid(), 1},
            {e.kind, e.index, e.pid, e.worker})
        assert.matches("threadpool_spec", e.traceback)
    end)

    it("terminates without waiting for a task that waits", function()
        local pool = mp.ThreadPool(2)
        local r = pool:apply_async(function() require("mp").sleep(100) end)
        assert.is_true(seconds(pool.terminate, pool) < 1)
        assert.is_true(mp.iserror(select(2, pcall(r.get, r)),
            "PoolTerminated"))
        assert.is_true(seconds(pool.join, pool) < 5)
        pool:__close()
    end)

    it("that runs a task without end ends with the program", function()
        local r = helper.run({"-e", [[
            local mp = require "mp"
            local pool = mp.ThreadPool(2)
            pool:apply_async(function() while true do end end)
            pool:terminate()
            print("end")]]})
        assert.are.equal("end\n", r.stdout)
        assert.are.equal("", r.stderr)
        assert.are.equal(0, r.code)
    end)

    it("that nobody holds any more is gone", function()
        local before = mp.debug.arena_bytes()
        local function use()
            mp.ThreadPool(2):map(tostring, mp.range(10))
        end
        for _ = 1, 3 do
            use()
            collectgarbage()
            collectgarbage()
        end
        -- Who starts the next takes note of the ends of those before it.
        helper.eventually(function()
            local p = mp.dummy.Process{target = tostring, args = {1}}
            p:start()
            p:join()
            return mp.debug.arena_bytes() <= before
        end)
        assert.is_true(mp.debug.fsck())
    end)

    it("works in a process, in a worker, and beside a pool of processes",
    function()
        local outer <close> = mp.get_context("fork").Pool(2)
        local inner <close> = mp.ThreadPool(2)
        local function nested(x)
            local pool <close> = require("mp").ThreadPool(2)
            return pool:apply(function(y) return y + 1 end, {x})
        end
        assert.are.same({2, 3, n = 2}, outer:map(nested, {1, 2}))
        assert.are.same({2, 3, n = 2}, inner:map(nested, {1, 2}))
    end)
end)
