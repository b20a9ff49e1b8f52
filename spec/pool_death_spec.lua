-- Pool: workers and crews that die.

local mp = require "mp"
local core = require "mp.core"
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

local function kill(pids, signal)
    os.execute("kill -" .. (signal or "KILL") .. " "
        .. table.concat(pids, " ") .. " 2>/dev/null")
end

local function exists(pid)
    local file = io.open("/proc/" .. pid .. "/stat")
    if not file then
        return false
    end
    local text = file:read("a") or ""
    file:close()
    return text ~= "" and not text:match("%) [ZX]")
end

local function none_exists(pids)
    for _, pid in ipairs(pids) do
        if exists(pid) then
            return false
        end
    end
    return true
end

local function soon_gone(pids)
    helper.eventually(function() return none_exists(pids) end, 1)
end

--- The pid of the pool's crew, the parent of its workers.
local function crew_of(pool)
    local pid = pool._core:pids()[1]
    local file <close> = assert(io.open("/proc/" .. pid .. "/stat"))
    return math.tointeger(file:read("a"):match("%) %a (%d+)"))
end

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

local function timed(f, ...)
    local begin = mp.monotonic()
    f(...)
    return mp.monotonic() - begin
end

--- Every item done, or exactly lost; returns how many are lost.
local function check_list(list, n)
    local lost = 0
    assert.are.equal(n, list.n)
    for i = 1, n do
        local v = list[i]
        if mp.iserror(v, "WorkerLost") then
            assert.are.equal(i, v.index)
            lost = lost + 1
        elseif v ~= i * i then
            assert.are.equal(i * i, v)
        end
    end
    return lost
end

describe("a worker that dies in a task", function()
    it("loses its item only, and is replaced (T-W-01, POL-20)", function()
        local pool <close> = mp.Pool(2)
        local e
        local took = timed(function()
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
        local lost = check_list(list, 10000)
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
            return core.debug.arena_bytes() - before < 1 << 16
        end)
    end)
end)

describe("a crew that is killed", function()
    it("is replaced, also when idle", function()
        local pool <close> = mp.Pool(2)
        for _ = 1, 5 do
            local pids = pool._core:pids()
            kill {crew_of(pool)}
            assert.are.same({1, 4, n = 2}, pool:map(square, {1, 2}))
            soon_gone(pids)
        end
    end)

    it("loses the items that ran, within a second", function()
        local pool <close> = mp.Pool(2)
        local r = pool:map_async(function(x)
            require "mp".sleep(x == 1 and 30 or 0)
            return x * x
        end, mp.range(1, 41), 1)
        assert.is_false(r:wait(0.2))
        local pids = pool._core:pids()
        kill {crew_of(pool)}
        local e
        local took = timed(function()
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
            local it = pool:imap(function(x)
                require "mp".sleep(x == 1 and 30 or 0)
                return x
            end, mp.range(1, 201), 1)
            failure("TimeoutError", it.next, it, 0.2)
            kill {crew_of(pool)}
            failure("WorkerLost", it.next, it)
            for i = 2, 200 do
                assert.are.same({i, i}, {it:next()})
            end
        end)

    it("is noticed by who asks ready() only", function()
        local pool <close> = mp.Pool(1)
        local r = pool:apply_async(require "mp".sleep, {30})
        mp.sleep(0.05)
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
