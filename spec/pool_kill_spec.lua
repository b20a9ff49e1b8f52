-- Pool: all workers, crews and callers that are killed.

local mp = require "mp"
local core = require "mp.core"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local failure, square = tools.failure, tools.square
local kill, soon_gone = tools.kill, tools.soon_gone

--- The pid of the pool's crew, the parent of its workers.
local function crew_of(pool)
    local pid = pool._core:pids()[1]
    local file <close> = assert(io.open("/proc/" .. pid .. "/stat"))
    return math.tointeger(file:read("a"):match("%) %a (%d+)"))
end

describe("killing all workers again and again", function()
    --- Starts what kills the pool's workers all the time; returns its end.
    local function killer(pool)
        local stop = mp.Event()
        local crew = crew_of(pool)
        local p = mp.Process {target = function()
            local path = ("/proc/%d/task/%d/children"):format(crew, crew)
            while not stop:is_set() do
                local file = io.open(path)
                local pids = file and file:read("a") or ""
                if file then
                    file:close()
                end
                if pids ~= "" then
                    os.execute("kill -9 " .. pids .. " 2>/dev/null")
                end
                require "mp".sleep(0.005)
            end
        end}
        p:start()
        return function()
            stop:set()
            p:join()
            p:close()
            getmetatable(stop).__close(stop)
        end
    end

    local function slowly(x)
        local last = os.clock() + 0.0001
        while os.clock() < last do end
        return x * x
    end

    it("loses at most the items that ran, of 10,000", function()
        local pool <close> = mp.Pool(3)
        local halt = killer(pool)
        local list = pool:map(slowly, mp.range(1, 10001), {
            on_error = "collect",
        })
        halt()
        local lost = tools.check_list(list, 10000)
        assert.is_true(lost > 0 and lost < 3000)
    end)

    it("gives each of 10,000 items of imap_unordered once", function()
        local pool <close> = mp.Pool(3)
        local halt = killer(pool)
        local seen, lost = {}, 0
        local it = pool:imap_unordered(slowly, mp.range(1, 10001), 5)
        repeat
            local ok, i, v = pcall(it.next, it)
            local index = ok and i or not ok and i.index
            if index then
                assert.is_nil(seen[index])
                seen[index] = true
                assert.is_true(not ok or v == i * i)
                lost = lost + (ok and 0 or 1)
            end
        until not index
        halt()
        assert.are.equal(10000, #seen)
        assert.is_true(lost < 3000)
    end)

    it("with results in blocks and from blocks leaks nothing", function()
        local pool <close> = mp.Pool(3)
        pool:map(square, {1})
        local before = core.debug.arena_bytes()
        local halt = killer(pool)
        local items = {}
        for i = 1, 3000 do
            items[i] = ("%d "):format(i):rep(100)
        end
        local list = pool:map(function(s) return {s} end, items, {
            on_error = "collect", chunksize = 10,
        })
        halt()
        for i = 1, 3000 do
            local v = list[i]
            assert.is_true(mp.iserror(v, "WorkerLost") and v.index == i
                or v[1] == items[i])
        end
        list = nil
        collectgarbage()
        helper.eventually(function()
            pool:apply(square, {1}) -- frees the job that a worker left last
            return core.debug.arena_bytes() - before < 1 << 16
        end, 30)
    end)
end)

--- Waits until `done` is `n`, and the result of the last one stands, too.
-- @param waiter what to poll meanwhile: a result or an iterator
local function await(done, n, waiter)
    helper.eventually(function()
        return done.value == n
    end)
    if type(waiter) == "userdata" then
        failure("TimeoutError", waiter.next, waiter, 0.1)
    else
        assert.is_false(waiter:wait(0.1))
    end
end

describe("a crew that is killed", function()
    it("is replaced, also when idle", function()
        local pool <close> = mp.Pool(2)
        for _ = 1, 5 do
            local pids = pool._core:pids()
            kill {crew_of(pool)}
            soon_gone(pids) -- else one may take an item, and be lost with it
            assert.are.same({1, 4, n = 2}, pool:map(square, {1, 2}))
        end
    end)

    it("loses the items that ran, within a second", function()
        local pool <close> = mp.Pool(2)
        local done <const> = mp.Value("i", 0)
        local r = pool:map_async(function(x)
            require "mp".sleep(x == 1 and 30 or 0)
            done:add(1)
            return x * x
        end, mp.range(1, 41), 1)
        await(done, 39, r)
        local pids = pool._core:pids()
        kill {crew_of(pool)}
        local e
        local took = tools.timed(function()
            e = failure("WorkerLost", r.get, r)
        end)
        assert.is_true(took < 1)
        assert.are.equal(1, e.index)
        assert.are.equal(1600, e.results[40])
        soon_gone(pids)
    end)

    it("is noticed by who waits for one item, with all others done",
        function()
            local pool <close> = mp.Pool(2)
            local done <const> = mp.Value("i", 0)
            local it = pool:imap(function(x)
                require "mp".sleep(x == 1 and 30 or 0)
                done:add(1)
                return x
            end, mp.range(1, 201), 1)
            await(done, 199, it)
            kill {crew_of(pool)}
            failure("WorkerLost", it.next, it)
            for i = 2, 200 do
                assert.are.same({i, i}, {it:next()})
            end
        end)

    it("is noticed by who asks ready() only", function()
        local pool <close> = mp.Pool(1)
        local begun <close> = mp.Event()
        local r = pool:apply_async(function()
            begun:set()
            require "mp".sleep(30)
        end)
        assert.is_true(begun:wait(20))
        kill {crew_of(pool)}
        helper.eventually(function() return r:ready() end, 2)
        failure("WorkerLost", r.get, r)
    end)

    it("does not keep close, join and terminate from ending", function()
        local pool = mp.Pool(2)
        local r = pool:map_async(square, mp.range(1, 1001))
        kill {crew_of(pool)}
        pool:close()
        pool:join()
        r:wait()
        pool = mp.Pool(2)
        local pids = pool._core:pids()
        kill {crew_of(pool)}
        pool:terminate()
        pool:join()
        soon_gone(pids)
        pool = mp.Pool(2)
        pids = pool._core:pids()
        kill {crew_of(pool)}
        pool = nil
        collectgarbage()
        collectgarbage()
        soon_gone(pids)
    end)
end)

describe("a beginner that is killed", function()
    it("is replaced, again and again", function()
        local tries <close> = mp.RawValue("i", 0)
        local pool <close> = mp.Pool{processes = 1, initializer = function()
            if tries:add(1) <= 8 then
                os.exit(9)
            end
        end}
        assert.are.equal(4, pool:apply(square, {2}))
        assert.are.equal(9, tries.value)
    end)

    it("but not without end", function()
        local tries <close> = mp.RawValue("i", 0)
        local pool <close> = mp.Pool{processes = 1, initializer = function()
            tries:add(1)
            os.exit(9)
        end}
        failure("BrokenPool", pool.apply, pool, square, {2})
        assert.is_true(tries.value < 30)
    end)

    it("may be a crew that has not yet started all its workers", function()
        local tries <close> = mp.RawValue("i", 0)
        local pool <close> = mp.Pool{processes = 200, initializer = function()
            if tries:add(1) <= 2 then
                os.execute("kill -9 " .. mp.getppid())
            end
        end}
        assert.are.equal(4, pool:apply(square, {2}))
    end)
end)

describe("a result that was taken", function()
    it("is given back once, though its worker's follower makes its like",
        function()
            local pool <close> = mp.Pool(1)
            local function long(i)
                return ("%d "):format(i):rep(40000)
            end
            for _ = 1, 5 do
                local it = pool:imap(long, {1})
                assert.are.equal(long(1), select(2, it:next()))
                local pids = pool._core:pids()
                kill(pids)
                helper.eventually(function()
                    return pool._core:pids()[1] ~= pids[1]
                end)
                local r = pool:map_async(long, {2})
                assert.is_true(r:wait(5))
                getmetatable(it).__close(it)
                assert.are.equal(long(2), r:get()[1])
            end
        end)
end)

describe("a caller that is killed", function()
    it("takes busy and idle workers along (T-W-39)", function()
        for _, job in ipairs {"while true do end", "mp.sleep(60)", ""} do
            local path = helper.tmpname()
            local run = helper.run({"-e", ([[
                local mp = require "mp"
                local pool = mp.Pool(3)
                local r = pool:map_async(function() %s end, mp.range(9), 1)
                r:wait(0.1)
                local file = io.open(%q, "w")
                file:write(table.concat(pool._core:pids(), " "))
                file:close()
                os.execute("kill -9 " .. mp.getpid())
                mp.sleep(10)
            ]]):format(job:gsub("mp%.", "require 'mp'.", 1), path)})
            assert.is_true(run.code == 137 or run.signal == 9)
            local pids = {}
            for pid in io.open(path):read("a"):gmatch("%d+") do
                pids[#pids + 1] = pid
            end
            assert.are.equal(3, #pids)
            soon_gone(pids)
        end
    end)
end)
