-- Pool: how many workers there are, how long each stays, whose turn it is,
-- and which random numbers it draws.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local square, sleep = tools.square, tools.sleep

--- How many workers take part in many short tasks.
local function count_workers(pool)
    local seen, count = {}, 0
    for _, id in ipairs(pool:map(function()
        local m = require "mp"
        m.sleep(0.004)
        return m.worker.id
    end, mp.range(40), 1)) do
        count = count + (seen[id] and 0 or 1)
        seen[id] = true
    end
    return count
end

for _, method in ipairs{"fork", "spawn", "thread"} do
    local context = mp.get_context(method)

    describe("resize, " .. method, function()
        it("grows and shrinks a pool, and again", function()
            local pool <close> = context.Pool(2)
            for _, n in ipairs{4, 1, 3} do
                pool:resize(n)
                helper.eventually(function()
                    return count_workers(pool) == n
                end)
                assert.are.equal(9, pool:apply(square, {3}))
            end
        end)

        it("has worker_exit called in each worker that leaves", function()
            local pool <close> = context.Pool{processes = 2,
                worker_exit = function()
                    return require "mp".worker.id
                end}
            helper.eventually(function()
                return count_workers(pool) == 2
            end)
            pool:resize(1)
            helper.eventually(function()
                return pool:exit_results().n == 1
            end)
            assert.are.equal(2, pool:exit_results()[1])
            pool:close()
            pool:join()
            assert.are.same({2, 1, n = 2}, pool:exit_results())
        end)
    end)
end

describe("resize", function()
    it("takes nothing from the tasks that run", function()
        local pool <close> = mp.Pool(4)
        local r = pool:map_async(square, mp.range(1, 20001), 7)
        for _, n in ipairs{1, 6, 2, 4} do
            pool:resize(n)
            mp.sleep(0.002)
        end
        assert.are.equal(0, tools.check_list(r:get(), 20000))
    end)

    it("E: wants a number of workers for which there is room", function()
        local pool <close> = mp.Pool{processes = 1, max_processes = 2}
        local function refused(kind, text, ...)
            local _, message = tools.failure(kind, pool.resize, pool, ...)
            assert.are.equal(text, message)
        end
        refused("ValueError",
            "resize: Number of processes must be at least 1, got 0", 0)
        refused("TypeError",
            "resize: Number of processes must be at least 1, got nil")
        refused("ValueError", "resize: this Pool has room for 2 workers, "
            .. "got 3: make it with max_processes", 3)
        pool:resize(2)
        tools.failure("ValueError", mp.Pool,
            {processes = 3, max_processes = 2})
        pool:close()
        refused("StateError", "Pool not running", 1)
    end)
end)

describe("a worker", function()
    it("PAIN-24 T-W-27 has its successor ready when its share is done",
        function()
            local pool <close> = mp.Pool{processes = 3,
                maxtasksperchild = 2, initializer = function()
                    require "mp".sleep(0.01)
                end, worker_exit = function() return true end}
            local pids, n = {}, 0
            for _, pid in ipairs(pool:map(function()
                local m = require "mp"
                m.sleep(0.005)
                return m.getpid()
            end, mp.range(12), 1)) do
                pids[pid] = (pids[pid] or 0) + 1
            end
            for _, times in pairs(pids) do
                n = n + 1
                assert.is_true(times <= 2)
            end
            assert.is_true(n >= 6)
            assert.is_true(pool:exit_results().n >= 3)
        end)

    it("is replaced when it has grown by max_memory", function()
        local pool <close> = mp.Pool{processes = 1, max_memory = 8 << 20}
        local first, now = nil, nil
        for i = 1, 200 do
            now = pool:apply(function()
                local m = require "mp"
                local kept = m.worker.state
                kept[#kept + 1] = ("x"):rep(1 << 20)
                m.sleep(0.002)
                return m.getpid()
            end)
            first = first or now
            if now ~= first then
                assert.is_true(i > 4)
                break
            end
        end
        assert.are_not.equal(first, now)
        local light <close> = mp.Pool{processes = 1, max_memory = 8 << 20}
        local pid = light:apply(mp.getpid)
        for _ = 1, 20 do
            light:apply(function() require "mp".sleep(0.002) end)
        end
        assert.are.equal(pid, light:apply(mp.getpid))
    end)

    it("that cannot say farewell says why; one that is killed, nothing",
        function()
            local pool <close> = mp.Pool{processes = 2,
                worker_exit = function()
                    error("no farewell", 0)
                end}
            local lost = pool:apply_async(function()
                os.exit(1)
            end)
            tools.failure("WorkerLost", lost.get, lost)
            helper.eventually(function()
                return count_workers(pool) == 2
            end)
            pool:close()
            pool:join()
            local all = pool:exit_results()
            assert.are.equal(2, all.n)
            assert.are.equal("RemoteError", all[1].kind)
            assert.are.equal("no farewell", all[1].message)
        end)

    it("E: has options that are checked", function()
        local function refused(kind, text, opts)
            opts.processes = 1
            local _, message = tools.failure(kind, mp.Pool, opts)
            assert.are.equal("Pool: " .. text, message)
        end
        refused("ValueError", "max_memory must be a positive number of bytes "
            .. "or nil, got 0", {max_memory = 0})
        refused("ValueError", "max_memory: threads have no memory of their "
            .. "own", {max_memory = 1, context = mp.get_context("thread")})
        refused("TypeError", "worker_exit must be a callable, got 1",
            {worker_exit = 1})
    end)
end)

describe("priority", function()
    it("is strict: who is more urgent comes first", function()
        local pool <close> = mp.Pool(1)
        local order, open = mp.Queue(), mp.Event()
        local gate = pool:apply_async(function() open:wait() end)
        local all = {}
        for i, level in ipairs{"low", 1, 3, "high", "urgent", 0} do
            all[i] = pool:apply_async(function() order:put(i) end, {}, nil,
                {priority = level})
        end
        all[7] = pool:apply_async(function() order:put(7) end)
        open:set()
        gate:get()
        for i = 1, 7 do
            all[i]:get()
        end
        local got = {}
        for i = 1, 7 do
            got[i] = order:get()
        end
        assert.are.same({3, 5, 4, 2, 7, 1, 6}, got)
    end)
end)

describe("seed", function()
    local function draw(_)
        return math.random(1 << 53)
    end

    it("T-W-43 gives each item the same numbers, whoever runs it, and how",
        function()
            local expected
            for _, method in ipairs{"fork", "spawn", "thread"} do
                for n = 1, 3 do
                    local pool <close> = mp.get_context(method).Pool(n)
                    local list = pool:map(draw, mp.range(30),
                        {seed = 42, chunksize = n * 2 - 1})
                    expected = expected or list
                    assert.are.same(expected, list)
                end
            end
            local seen = {}
            for _, x in ipairs(expected) do
                assert.is_nil(seen[x])
                seen[x] = true
            end
        end)

    it("of a pool is that of all its calls; another, others", function()
        local pool <close> = mp.Pool{processes = 2, seed = 7}
        local list = pool:map(draw, mp.range(10))
        assert.are.same(list, pool:map(draw, mp.range(10), 3))
        assert.are.equal(list[1], pool:apply(draw))
        assert.are_not.equal(list[1],
            pool:map(draw, mp.range(10), {seed = 8})[1])
        local i = 0
        for _, v in pool:imap(draw, mp.range(10)) do
            i = i + 1
            assert.are.equal(list[i], v)
        end
    end)

    it("is forgotten by tasks that have none", function()
        local pool <close> = mp.Pool(2)
        local seen = {}
        for _ = 1, 5 do
            pool:map(draw, mp.range(4), {seed = 1, chunksize = 1})
            for _, x in ipairs(pool:map(draw, mp.range(4), 1)) do
                assert.is_nil(seen[x])
                seen[x] = true
            end
        end
    end)

    it("is the same for a task that is run again", function()
        local pool <close> = mp.Pool(1)
        local n = mp.Value("i", 0)
        local list = pool:map(function()
            local x = math.random(1 << 53)
            if n:add(1) == 2 then os.exit(1) end
            return x
        end, mp.range(4), {seed = 42, retries = 1})
        assert.are.same(pool:map(draw, mp.range(4), {seed = 42}), list)
    end)
end)

describe("the counts of a pool", function()
    it("tell what its workers did", function()
        local pool <close> = mp.Pool(1)
        pool:map(sleep, {0.01, 0.01}, 1)
        pool:map(tools.failing(2), {1, 2, 3}, {on_error = "collect"})
        pcall(pool.apply, pool, function() os.exit(1) end)
        local first = mp.Value("i", 0)
        pool:map(function()
            if first:add(1) == 1 then error("x") end
        end, {1}, {retries = 1})
        local c = pool._core:counters()
        assert.are.equal(1, #c)
        c = c[1]
        assert.are.equal(1, c.id)
        assert.are.equal(pool._core:pids()[1], c.pid)
        assert.are.equal(1, c.failed)
        assert.are.equal(1, c.retried)
        assert.are.equal(1, c.lost)
        assert.are.equal(0, c.timeouts)
        assert.is_true(c.done >= 6)
        assert.is_true(c.busy >= 0.02)
    end)
end)
