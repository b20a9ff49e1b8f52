--- Threads beside processes: they use the same locks, queues, values and dict
-- while the processes are killed; thread pools and process pools work side by
-- side, and items of both end badly; whole processes are killed while each of
-- their threads holds what others wait for.

local mp = require "mp"
local tools = require "spec.storm.tools"

local sum_of, step_inside = tools.sum_of, tools.step_inside

local METHODS <const> = {"fork", "spawn", "forkserver"}
local Thread <const> = mp.threading.Thread

-- A mixed crowd -------------------------------------------------------------

local THREADS <const>, PROCESSES <const> = 4, 3
local MOST <const> = 1 << 20 -- messages of one user

--- What the crowd shares. cells: two that are equal but inside the lock, and
-- who is inside; wrong: two inside, half a step, a message twice.
local function new_scene()
    local n = THREADS + PROCESSES
    return {
        lock = mp.Lock(), queue = mp.Queue(20), halt = mp.Event(),
        dict = mp.Manager():dict{last = {}, total = 0},
        cells = mp.RawArray("q", 3), wrong = mp.RawArray("i", 3),
        steps = mp.RawArray("q", n), put = mp.RawArray("q", n),
        seen = mp.RawArray("b", n * MOST),
    }
end

--- The next number for a message: those of user k are its own.
local function number_of(scene, k)
    scene.put[k] = scene.put[k] + 1
    return (k - 1) * MOST + scene.put[k]
end

local function more(n)
    return n + 1
end

--- One who takes the lock, changes what it guards, counts in the dict, and
-- hands on a message.
local function step(scene, k)
    local wrong = scene.wrong
    local _, abandoned = scene.lock:acquire()
    step_inside(scene.cells, wrong, k, abandoned)
    scene.lock:release()
    scene.dict.last = {k}
    scene.dict:update_with("total", more)
    if scene.queue:try_put({number_of(scene, k), {}}, 0.01) then
        local got, message = scene.queue:try_get(0.01)
        local i = got and message[1]
        if got and scene.seen[i] ~= 0 then
            wrong[3] = wrong[3] + 1
        elseif got then
            scene.seen[i] = 1
        end
    end
    scene.steps[k] = scene.steps[k] + 1
end

local function user(scene, k)
    while not scene.halt:is_set() do
        assert(scene.put[k] < MOST, "too many messages")
        step(scene, k)
    end
end

local function start_process(scene, k)
    local method = tools.one_of(METHODS)
    local p = mp.get_context(method).Process{name = "user " .. k,
        daemon = true, target = user, args = {scene, k}}
    p:start()
    return p
end

local function bury(storm, p)
    p:kill()
    storm:bury(p)
end

local function mixed(storm, seconds)
    storm:progress("a mixed crowd")
    local scene, threads, users = new_scene(), {}, {}
    for k = 1, PROCESSES do
        users[k] = start_process(scene, THREADS + k)
    end
    for k = 1, THREADS do
        threads[k] = Thread{target = user, args = {scene, k}}
        threads[k]:start()
    end
    local deaths, last = PROCESSES, mp.monotonic() + seconds
    local sum, since = -1, mp.monotonic()
    repeat
        tools.nap(0.001, 0.02)
        local k = math.random(PROCESSES)
        bury(storm, users[k])
        users[k] = start_process(scene, THREADS + k)
        deaths = deaths + 1
        local now = sum_of(scene.steps)
        if now ~= sum then
            sum, since = now, mp.monotonic()
            storm:progress()
        end
        storm:check(mp.monotonic() - since < tools.PATIENCE / 2, "no step")
        if deaths % 5 == 0 then
            storm:check_arena()
        end
    until mp.monotonic() > last
    for k = 1, PROCESSES do
        bury(storm, users[k])
    end
    scene.halt:set()
    for k = 1, THREADS do
        storm:progress("the end of a thread")
        storm:check(threads[k]:join(tools.PATIENCE) and
            threads[k].exitcode == 0, "a thread ended with %s",
            threads[k].exitcode)
        threads[k]:close()
    end
    local wrong, steps = scene.wrong, sum_of(scene.steps)
    for i, what in ipairs{"two were inside", "half a step", "came twice"} do
        storm:check(wrong[i] == 0, "%d times %s", wrong[i], what)
    end
    for _, count in ipairs{scene.cells[1], scene.dict.total} do
        storm:check_count(count, steps, deaths + THREADS + PROCESSES)
    end
    storm:count("steps", steps)
end

-- A process with many threads -----------------------------------------------

local MANY <const> = 20

--- In the process that is to die: its threads, each of which takes a lock
-- and a permit, and then does what its number says.
local function crew_of_threads(locks, permits, held, gate, queue, many)
    local mp = require "mp"
    local function hold(k, lock, permits, held, gate, queue)
        lock:acquire()
        permits:acquire()
        held:release()
        if k % 4 == 0 then
            gate:acquire() -- which the parent has
        elseif k % 4 == 1 then
            queue:get()
        elseif k % 4 == 2 then
            require("mp").sleep(1000)
        end
        while true do
            queue:try_put(("x"):rep(k * 1000)) -- it is bounded
        end
    end
    for k = 1, many do
        mp.threading.Thread{target = hold, daemon = true,
            args = {k, locks[k], permits, held, gate, queue}}:start()
    end
    mp.sleep(1000)
end

--- Waits for lock k, and says whether it was abandoned.
local function heir(lock, k, told)
    local got, abandoned = lock:acquire()
    told[k] = got and abandoned and 1 or 2
    lock:release()
end

local function massacre(storm, method)
    storm:progress("a process of threads by " .. method)
    local locks = {}
    for k = 1, MANY do
        locks[k] = mp.Lock()
    end
    local permits, held = mp.Semaphore(MANY), mp.Semaphore(0)
    local gate, queue, told = mp.Lock(), mp.Queue(2), mp.RawArray("i", MANY)
    gate:acquire()
    local p <close> = mp.get_context(method).Process{
        target = crew_of_threads,
        args = {locks, permits, held, gate, queue, MANY}}
    p:start()
    for k = 1, MANY do
        storm:check(held:acquire(true, tools.PATIENCE), "thread %d waits", k)
    end
    local heirs = {}
    for k = 1, MANY do
        local own = k % 5 == 0 and mp.Process or Thread
        heirs[k] = own{target = heir, args = {locks[k], k, told}}
        heirs[k]:start()
    end
    tools.nap(0, 0.02)
    p:kill()
    storm:check(p:join(tools.PATIENCE) and p.exitcode == -9,
        "it ended with %s", p.exitcode)
    for k, h in ipairs(heirs) do
        storm:progress("an heir")
        storm:check(h:join(tools.PATIENCE), "heir %d does not end", k)
        storm:check(h.exitcode == 0 and told[k] == 1,
            "heir %d ended with %s, told %d", k, h.exitcode, told[k])
        h:close()
    end
    storm:check_arena()
    storm:count("threads killed", MANY)
end

-- Pools side by side --------------------------------------------------------

local function both_pools(storm, seconds)
    storm:progress("two pools")
    local threads <close> = mp.ThreadPool(3)
    local processes <close> = mp.get_context(tools.one_of{"spawn",
        "forkserver"}).Pool(2)
    local killer = tools.killer(storm, {shares = {0.01, 0.3}})
    local lock, sum = mp.Lock(), mp.RawValue("q", 0)
    local last = mp.monotonic() + seconds
    local function job(i)
        if i % 13 == 0 then
            os.exit(i % 7)
        elseif i % 17 == 0 then
            error("seventeen", 0)
        end
        local held <close> = lock:guard()
        sum:add(1)
        return i * i
    end
    repeat
        storm:progress("a round of two pools")
        local opts = {on_error = "collect", chunksize = 1}
        local n = math.random(80)
        local a = threads:map_async(job, mp.range(1, n + 1), opts)
        local b = processes:map_async(job, mp.range(1, n + 1), opts)
        local good = 0
        for which, list in ipairs{a:get(tools.PATIENCE),
                b:get(tools.PATIENCE)} do
            storm:check(list.n == n, "%d results of %d", list.n, n)
            for i = 1, n do
                local v = list[i]
                local lost = mp.iserror(v, "WorkerLost") and v.index == i
                if i % 13 == 0 then
                    storm:check(lost, "item %d: %s", i, tostring(v))
                elseif lost then
                    storm:check(which == 2, "a thread was lost: %s",
                        tostring(v))
                elseif i % 17 == 0 then
                    storm:check(mp.iserror(v, "RemoteError"), "item %d", i)
                else
                    storm:check(v == i * i, "item %d: %s", i, tostring(v))
                    good = good + 1
                end
            end
        end
        storm:check(sum.value >= good, "%d counted of %d", sum.value, good)
        sum.value = 0
        storm:count("results verified", good)
        storm:check_arena()
    until mp.monotonic() > last
    storm:progress("the end of the killer")
    storm:count("kills", (killer.stop()))
end

tools.run("threads", function(storm)
    tools.start_server()
    local before = tools.footprint()
    local i = math.random(#METHODS)
    repeat
        mixed(storm, math.max(0.3, math.min(2, storm.seconds / 6)))
        i = i % #METHODS + 1
        massacre(storm, METHODS[i])
        both_pools(storm, math.max(0.3, math.min(10, storm.seconds / 6)))
        storm:progress("the look at what is left")
        storm:nothing_left(before)
    until not storm:goes_on()
end)
