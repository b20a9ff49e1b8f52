--- Many of everything: a pool of 200 workers, 200 threads, some thousand
-- processes and threads one after the other, and objects of every kind, with
-- processes and pools by each start method, made and dropped as in a day of
-- work: what is in use stays what it was.

local mp = require "mp"
local tools = require "spec.storm.tools"

local WORKERS <const> = 200
local METHODS <const> = {"fork", "spawn", "forkserver", "thread"}

--- Memory of this process that is not shared (KiB).
local function own_memory()
    local text = tools.read("/proc/self/status")
    return tonumber(text:match("RssAnon:%s*(%d+)"))
end

--- Demands that `f`, called again and again for some time, leaves as much in
-- use as after its first calls; `slack` as nothing_left has it.
local function demand_steady(storm, name, seconds, f, slack)
    storm:progress(name)
    for _ = 1, 20 do
        f()
    end
    local before, memory = tools.footprint(), own_memory()
    local calls, last = 0, mp.monotonic() + seconds
    repeat
        f()
        calls = calls + 1
        storm:progress()
        -- Small objects are much garbage before Lua thinks of it.
        if calls % 1000 == 0 then
            collectgarbage()
        end
    until mp.monotonic() > last
    storm:nothing_left(before, slack)
    local grown = own_memory() - memory
    storm:check(grown < 4096, "%s: %d KiB more after %d calls", name, grown,
        calls)
    storm:count(name, calls)
end

-- A crowd -------------------------------------------------------------------

local function crowd(storm)
    storm:progress("a pool of 200")
    local pool <close> = mp.Pool(WORKERS)
    local list = pool:map(function(x)
        require "mp".sleep(0.005)
        return x * x
    end, mp.range(1, 2001), 1)
    for i = 1, 2000 do
        storm:check(list[i] == i * i, "item %d: %s", i, list[i])
    end
    storm:progress("a massacre among 200")
    local r = pool:map_async(function(x)
        require "mp".sleep(0.02)
        return x
    end, mp.range(1, 1001), {chunksize = 1, on_error = "collect"})
    local shell = tools.signaller()
    for i, pid in ipairs(pool._core:pids()) do
        if i % 2 == 0 then
            shell.send("KILL", pid)
        end
    end
    shell.close()
    local lost = 0
    for i, v in ipairs(r:get(tools.PATIENCE)) do
        lost = lost + (v == i and 0 or 1)
        storm:check(v == i or mp.iserror(v, "WorkerLost") and v.index == i,
            "item %d: %s", i, tostring(v))
    end
    storm:check(lost <= WORKERS / 2, "%d items lost", lost)
    storm:count("workers", WORKERS)
    storm:count("items lost", lost)
end

-- A long procession ---------------------------------------------------------

--- One after the other, of this kind (Process, Thread).
local function procession(storm, what, kind, n)
    local sum = mp.RawValue("q", 0)
    for i = 1, n do
        if i % 50 == 1 then
            storm:progress(("%d of %d %s"):format(i, n, what))
        end
        local p <close> = kind{target = function() sum:add(1) end}
        p:start()
        storm:check(p:join(tools.PATIENCE) and p.exitcode == 0,
            "%d of %d %s ended with %s", i, n, what, p.exitcode)
    end
    storm:check(sum.value == n, "%d of %d counted", sum.value, n)
    storm:count(what, n)
end

-- Threads -------------------------------------------------------------------

local function thread_crowd(storm)
    storm:progress("200 threads")
    local gate, sum, list = mp.Event(), mp.RawValue("q", 0), {}
    for i = 1, WORKERS do
        list[i] = mp.threading.Thread{target = function()
            gate:wait()
            sum:add(1)
        end}
        list[i]:start()
    end
    storm:check(sum.value == 0, "a thread did not wait")
    gate:set()
    for i, t in ipairs(list) do
        storm:check(t:join(tools.PATIENCE) and t.exitcode == 0,
            "thread %d ended with %s", i, t.exitcode)
        t:close()
    end
    storm:check(sum.value == WORKERS, "%d threads counted", sum.value)
end

-- A day ---------------------------------------------------------------------

local kinds = {
    Lock = function()
        local held <close> = mp.Lock():guard()
    end,
    RLock = function() mp.RLock():acquire() end,
    Semaphore = function() mp.Semaphore(2):acquire() end,
    BoundedSemaphore = function() mp.BoundedSemaphore(2):acquire() end,
    Condition = function()
        local c = mp.Condition()
        c:acquire()
        c:notify()
        c:wait(0)
        c:release()
    end,
    Event = function() mp.Event():set() end,
    Barrier = function() mp.Barrier(1, function() end):wait() end,
    Value = function() mp.Value("d", 1.5).value = 2 end,
    Array = function() mp.Array("i", math.random(20000)):fill(7) end,
    RawArray = function() mp.RawArray("c", math.random(200000)) end,
    Queue = function()
        local q = mp.Queue()
        for i = 1, 20 do
            q:put{i, mp.Lock(), ("x"):rep(i * 1000)}
        end
        q:get_many(7)
    end,
    Pipe = function()
        local q, a, b = mp.Queue(), mp.Pipe()
        q:put{a, b}
        a:send(b)
        q:put{b:recv(), mp.reduction.DupFd(1)}
        q:get()[1]:close()
        mp.wait({a, q, b}, 0)
    end,
    JoinableQueue = function()
        local q = mp.JoinableQueue(3)
        q:put(q:try_put(1))
        q:get()
        q:task_done()
    end,
    SimpleQueue = function()
        local q = mp.SimpleQueue()
        q:put_many{q, q} -- and so the queue holds itself ...
        q:get_many(2)    -- ... until here
    end,
    SharedMemory = function()
        local manager <close> = mp.shared_memory.SharedMemoryManager()
        local q = mp.Queue()
        q:put(manager:SharedMemory(math.random(200000)))
        q:put(manager:ShareableList{1, "two", 3.5})
        q:get().buf[1] = 7
        local s = mp.shared_memory.SharedMemory(nil, true, 100)
        s:unlink()
    end,
    Manager = function()
        local m <close> = mp.Manager()
        local d = m:dict{list = {1, {2, mp.Lock()}}, set = m:set{1, 2}}
        for i = 1, 50 do
            d[i] = ("x"):rep(i * 100)
            d.list[2]:append(d[i])
        end
        d:update{list = m:Namespace{x = d.list}}
    end,
}

tools.run("many", function(storm)
    tools.start_server()
    local before = tools.footprint()
    crowd(storm)
    procession(storm, "processes", mp.Process, math.max(500,
        math.min(10000, math.floor(storm.seconds * 100))))
    thread_crowd(storm)
    procession(storm, "threads", mp.threading.Thread, 2000)
    local each = storm.seconds / 40
    for name, make in pairs(kinds) do
        demand_steady(storm, name, each, make)
    end
    for _, method in ipairs(METHODS) do
        local context = mp.get_context(method)
        demand_steady(storm, "Process by " .. method, each, function()
            local p <close> = context.Process{target = function() end}
            p:start()
        end)
        demand_steady(storm, "Pool by " .. method, 2 * each, function()
            local pool <close> = context.Pool(2)
            pool:map(function(x) return {x} end, mp.range(100))
        end)
    end
    do
        local pool <close> = mp.Pool(2)
        -- Workers keep the last functions, and what these refer to, until
        -- they collect; all of it is less than this.
        local kept = {objects = 1000, bytes = 1 << 19}
        demand_steady(storm, "jobs", 4 * each, function()
            local lock = mp.Lock()
            for _, v in pool:imap(function(x)
                local held <close> = lock:guard()
                return ("x"):rep(x * 100)
            end, mp.range(50)) do
                storm:check(#v % 100 == 0, "a result")
            end
            pool:apply(math.abs, {-1})
            collectgarbage("step")
        end, kept)
    end
    storm:progress("the look at what is left")
    storm:nothing_left(before)
end)
