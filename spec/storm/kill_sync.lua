--- Users of locks, semaphores, conditions, events, barriers, values, arrays
-- and managers' containers are killed all the time: nothing hangs, nobody is
-- let in twice, what a lock guards is whole or said to be abandoned, no
-- notify is lost, a change of a container is made or not begun.
--
-- Each scene makes its objects, starts users that loop for ever, kills one
-- of them every 1 to 20 ms and starts another in its place, and looks at the
-- sums when all are gone.

local mp = require "mp"
local tools = require "spec.storm.tools"

local sum_of, step_inside = tools.sum_of, tools.step_inside

local USERS <const> = 4

--- Seconds that the users of a scene may make no step.
local STALL <const> = tools.PATIENCE / 2

-- The frame of a scene ------------------------------------------------------

--- Starts user `k`, which does step(k, steps) again and again; `steps[k]`
-- counts.
local function start(scene, k)
    local seed = math.random(1 << 30)
    local step, steps = scene.step, scene.steps
    local p = mp.Process{daemon = true, target = function()
        math.randomseed(seed)
        while true do
            step(k)
            steps[k] = steps[k] + 1
        end
    end}
    p.name = "user " .. k
    p:start()
    return p
end

-- What a scene may have besides: strike(kill), to do something around a kill;
-- died(k), of a user that has ended and has no follower yet; tend(), between
-- two kills; is_party(k), without which user k is not killed.

--- Kills user k, and starts another in its place.
local function replace(storm, scene, users, k)
    local p = users[k]
    storm:check(p:is_alive(), "user %d ended by itself: %s", k, p.exitcode)
    storm:check(not scene.is_party or tools.eventually(STALL, function()
        return scene.is_party(k)
    end), "user %d does not come", k)
    local function kill()
        p:kill()
    end
    if scene.strike then
        scene.strike(kill)
    else
        kill()
    end
    -- Sometimes nobody has seen its end yet when its follower starts.
    if scene.died or math.random(2) == 1 then
        storm:check(p:join(5), "a killed user does not end")
    end
    if scene.died then
        scene.died(k)
    end
    users[k] = start(scene, k)
    storm:bury(p)
end

--- Kills users for `seconds`, and demands that the others go on; returns how
-- many were killed.
local function rage(storm, scene, seconds)
    local users, deaths = {}, USERS
    for k = 1, USERS do
        users[k] = start(scene, k)
    end
    local last_sum, since = -1, mp.monotonic()
    local last = since + seconds
    while mp.monotonic() < last do
        tools.nap(0.001, 0.02)
        replace(storm, scene, users, math.random(USERS))
        deaths = deaths + 1
        local sum = sum_of(scene.steps)
        if sum ~= last_sum then
            last_sum, since = sum, mp.monotonic()
            storm:progress()
        end
        storm:check(mp.monotonic() - since < STALL, "no step in %g s", STALL)
        if math.random(5) == 1 then
            storm:check_arena()
        end
        if scene.tend then
            scene.tend()
        end
    end
    for k = 1, USERS do
        users[k]:kill()
        storm:bury(users[k])
    end
    storm:count("steps", sum_of(scene.steps))
    return deaths
end

-- Scenes --------------------------------------------------------------------

local scenes = {}

--- What a lock guards: two cells that are equal but in the midst of a step,
-- and who is inside. wrong[1]: somebody else was; wrong[2]: not equal.
local function guarded(acquire, release)
    local cells, wrong = mp.RawArray("q", 3), mp.RawArray("i", 2)
    local scene = {steps = mp.RawArray("q", USERS), cells = cells}
    function scene.step(k)
        local _, abandoned = acquire()
        step_inside(cells, wrong, k, abandoned)
        release()
    end
    function scene.judge(storm, deaths)
        storm:check(wrong[1] == 0, "%d times two were inside", wrong[1])
        storm:check(wrong[2] == 0, "%d times half a step", wrong[2])
        storm:check_count(cells[1], sum_of(scene.steps), deaths)
        local got, abandoned = acquire()
        storm:check(got, "the lock is not free")
        storm:check(abandoned or cells[1] == cells[2], "half a step")
        release()
    end
    return scene
end

function scenes.lock()
    local lock = mp.Lock()
    return guarded(function() return lock:acquire(true, STALL) end,
        function() lock:release() end)
end

function scenes.rlock()
    local lock = mp.RLock()
    return guarded(function()
        local got, abandoned = lock:acquire(true, STALL)
        lock:acquire()
        return got, abandoned
    end, function()
        lock:release()
        lock:release()
    end)
end

function scenes.value_lock()
    local value = mp.Value("q", 0)
    local lock = value:get_lock()
    local scene = guarded(function() return lock:acquire(true, STALL) end,
        function() lock:release() end)
    local step, judge = scene.step, scene.judge
    function scene.step(k)
        step(k)
        value:add(1)
    end
    function scene.judge(storm, deaths)
        judge(storm, deaths)
        storm:check_count(value.value, sum_of(scene.steps), deaths)
    end
    return scene
end

--- An array is written as a whole or said to be abandoned.
function scenes.array()
    local array, wrong = mp.Array("i", 200), mp.RawArray("i", 1)
    local scene = {steps = mp.RawArray("q", USERS)}
    local function look()
        local list = array:slice()
        for i = 2, #list do
            if list[i] ~= list[1] then
                return false
            end
        end
        return true
    end
    function scene.step(k)
        local lock = array:get_lock()
        local _, abandoned = lock:acquire(true, STALL)
        if not abandoned and not look() then
            wrong[1] = wrong[1] + 1
        end
        array:fill(k)
        lock:release()
    end
    function scene.judge(storm)
        storm:check(wrong[1] == 0, "%d times half an array", wrong[1])
    end
    return scene
end

--- Permits belong to nobody: what the dead had is lost, and no more; never
-- are more inside than permits.
function scenes.semaphore()
    local permits = 3
    local sem = mp.Semaphore(permits)
    local inside, most = mp.RawValue("i", 0), mp.RawValue("i", 0)
    local phase = mp.RawArray("i", USERS) -- 1 on the way, 2 has it, 3 leaves
    local unsure = 0
    local scene = {steps = mp.RawArray("q", USERS)}
    function scene.step(k)
        phase[k] = 1
        if sem:acquire(true, 0.05) then
            local n = inside:add(1)
            phase[k] = 2
            if n > most.value then
                most.value = n
            end
            phase[k] = 3
            inside:add(-1)
            sem:release()
        end
        phase[k] = 0
    end
    local refilled = 0
    function scene.died(k)
        if phase[k] == 2 then
            inside:add(-1)
            sem:release()
            refilled = refilled + 1
        elseif phase[k] ~= 0 then
            unsure = unsure + 1
        end
        phase[k] = 0
    end
    function scene.tend()
        -- All permits may be lost to the unsure: then there are new ones.
        if sem:get_value() == 0 and unsure > 0 and inside.value <= 0 then
            sem:release()
            permits = permits + 1
        end
    end
    function scene.judge(storm)
        for k = 1, USERS do
            scene.died(k)
        end
        local value = sem:get_value()
        storm:check(value <= permits and value >= permits - unsure,
            "%d permits of %d, unsure of %d", value, permits, unsure)
        storm:check(most.value <= permits + unsure,
            "%d were inside with %d permits", most.value, permits)
    end
    return scene
end

--- Each ticket that is notified is taken soon, as long as anybody waits.
function scenes.condition(storm)
    local cond = mp.Condition()
    local tickets, taken = mp.RawValue("q", 0), mp.RawArray("q", 1)
    local scene = {steps = mp.RawArray("q", USERS)}
    function scene.step()
        cond:acquire()
        cond:wait_for(function() return tickets.value > 0 end)
        tickets:add(-1)
        taken[1] = taken[1] + 1
        cond:release()
    end
    function scene.tend()
        cond:acquire()
        tickets:add(2)
        if math.random(2) == 1 then
            cond:notify(2)
        else
            cond:notify()
            cond:notify()
        end
        cond:release()
        storm:check(tools.eventually(STALL, function()
            return tickets.value == 0
        end), "%d tickets are not taken", tickets.value)
    end
    function scene.judge()
        local steps, sum = sum_of(scene.steps), taken[1]
        storm:check(sum >= steps, "%d steps with %d tickets", steps, sum)
    end
    return scene
end

--- A notify is not lost with the waiter that it was for.
function scenes.notify(storm)
    local cond, wakes = mp.Condition(), mp.RawValue("q", 0)
    local asleep = mp.RawArray("i", USERS)
    local scene = {steps = mp.RawArray("q", USERS)}
    function scene.step(k)
        cond:acquire()
        asleep[k] = 1
        cond:wait()
        asleep[k] = 0
        wakes:add(1)
        cond:release()
    end
    --- Notifies one of several, and kills while it cannot wake.
    function scene.strike(kill)
        cond:acquire()
        local before, several = wakes.value, sum_of(asleep) > 1
        cond:notify()
        kill()
        cond:release()
        storm:check(not several or tools.eventually(STALL, function()
            return wakes.value > before
        end), "a notify was lost")
    end
    function scene.died(k)
        asleep[k] = 0
    end
    function scene.judge()
        storm:count("notifies", wakes.value)
    end
    return scene
end

--- Who waits when it is set goes on, whoever else dies.
function scenes.event(storm)
    local on, off = mp.Event(), mp.Event()
    local scene = {steps = mp.RawArray("q", USERS)}
    local late = mp.RawArray("i", 1)
    off:set()
    function scene.step()
        if not on:wait(STALL) or not off:wait(STALL) then
            late[1] = 1
        end
    end
    function scene.tend()
        for _, pair in ipairs{{on, off}, {off, on}} do
            pair[1]:clear()
            pair[2]:set()
            local before = sum_of(scene.steps)
            tools.nap(0, 0.002)
            storm:check(sum_of(scene.steps) >= before, "steps went back")
        end
        on:set()
        off:set()
    end
    function scene.judge()
        storm:check(late[1] == 0, "an event was not seen in time")
    end
    return scene
end

--- A party that dies breaks the barrier: the others hear of it at once.
function scenes.barrier(storm)
    local barrier = mp.Barrier(USERS)
    local wrong, passes = mp.Queue(), mp.RawValue("q", 0)
    local party = mp.RawArray("i", USERS)
    local scene = {steps = mp.RawArray("q", USERS)}
    function scene.step(k)
        party[k] = 1
        local begin = mp.monotonic()
        local ok, e = pcall(barrier.wait, barrier, STALL)
        local took = mp.monotonic() - begin
        if ok then
            passes:add(1)
        elseif not mp.iserror(e, "BrokenBarrier") or took >= STALL then
            wrong:put(("user %d, after %.3f s: %s"):format(k, took,
                tostring(e)))
        else
            mp.sleep(0.0005)
        end
    end
    -- A child that is killed before it was a participant is not missed.
    function scene.is_party(k)
        return party[k] == 1
    end
    function scene.died(k)
        party[k] = 0
        -- All others wait, or will: for one who does not come.
        storm:check(tools.eventually(STALL, function()
            return barrier.broken
        end), "a party died, and the barrier is whole")
        barrier:reset()
    end
    function scene.judge()
        local ok, what = wrong:try_get()
        storm:check(not ok, what)
        storm:count("passes", passes.value)
    end
    return scene
end

--- A dict: what is set as one is seen as one, a count misses nothing, and
-- containers in it live as long as they are there.
function scenes.dict()
    local d, wrong = mp.Manager():dict(), mp.RawArray("i", 1)
    local scene = {steps = mp.RawArray("q", USERS)}
    local function more(n)
        return n + 1
    end
    function scene.step(k)
        local x = math.random(1000)
        d:update{a = x, b = {x}, c = (" "):rep(1000) .. x}
        local t = d:totable()
        if t.a ~= t.b[1] or t.a ~= tonumber(t.c) then
            wrong[1] = wrong[1] + 1
        end
        d[k] = {own = {k}}
        if d[k].own[1] ~= k or d:pop(k).own[1] ~= k then
            wrong[1] = wrong[1] + 1
        end
        d:update_with("total", more, 0)
    end
    function scene.judge(storm, deaths)
        storm:check(wrong[1] == 0, "%d times half a change", wrong[1])
        storm:check_count(d.total or 0, sum_of(scene.steps), deaths)
    end
    return scene
end

--- A list: whoever appends one and takes one leaves it as long as it was.
function scenes.list()
    local l, wrong = mp.Manager():list(), mp.RawArray("i", 1)
    local scene = {steps = mp.RawArray("q", USERS)}
    function scene.step(k)
        if math.random(2) == 1 then
            l:append{k, k}
        else
            l:insert(math.random(5), {k, k})
        end
        if math.random(10) == 1 then
            l:reverse()
        end
        local item = l:pop(math.random(2) == 1 and 1 or nil)
        if item[1] ~= item[2] or #item ~= 2 then
            wrong[1] = wrong[1] + 1
        end
    end
    function scene.judge(storm, deaths)
        storm:check(wrong[1] == 0, "%d items were not whole", wrong[1])
        storm:check(#l <= deaths, "%d items after %d deaths", #l, deaths)
    end
    return scene
end

--- Named segments: whoever makes, opens and unlinks them, no name outlives
-- those who made it.
function scenes.segment()
    local SharedMemory = mp.shared_memory.SharedMemory
    -- Other storms may have the same pid, in namespaces of their own.
    local prefix = ("mplua_storm_%x_"):format(mp.monotonic() * 1e9 // 1 | 0)
    local scene, wrong = {steps = mp.RawArray("q", USERS)}, mp.Queue()
    function scene.step(k)
        local ok, s = pcall(SharedMemory, prefix .. math.random(6),
            math.random(2) == 1, 100)
        if ok then
            s.buf[k] = s.buf[k] + 1
            if math.random(3) == 1 then
                pcall(s.unlink, s)
            end
            s:close()
        elseif s.code ~= "EEXIST" and s.code ~= "ENOENT" then
            wrong:put(tostring(s))
        end
    end
    function scene.judge(storm)
        storm:check(wrong:empty(), "an error: %s", wrong:try_get())
        wrong:close()
        for i = 1, 6 do
            local file = io.open("/dev/shm/" .. prefix .. i)
            storm:check(not file, "%s%d is left", prefix, i)
        end
    end
    return scene
end

--- Who waits for many things at once sees what another puts, however many
-- that wait die.
function scenes.wait(storm)
    local queues, never = {mp.Queue(), mp.Queue()}, mp.Event()
    local scene = {steps = mp.RawArray("q", USERS)}
    function scene.step()
        local r, w = mp.Pipe(false)
        for _, q in ipairs(mp.wait({never, queues[1], r, queues[2]})) do
            q:try_get()
        end
        r:close()
        w:close()
    end
    function scene.tend()
        local q = queues[math.random(2)]
        q:put(true)
        storm:check(tools.eventually(STALL, function()
            return q:empty()
        end), "an item is not taken")
    end
    function scene.judge() end
    return scene
end

--- Connections through a queue: each is used by who takes it, and closed when
-- nobody has it any more: its other end is never left to wait.
function scenes.connection()
    local q, late = mp.Queue(), mp.RawArray("i", 1)
    local scene = {steps = mp.RawArray("q", USERS)}
    local function serve(timeout)
        local ok, c = q:try_get(timeout)
        if ok then
            pcall(c.send, c, {"x", mp.reduction.DupFd(1)})
            c:close()
        end
    end
    function scene.step()
        local a, b = mp.Pipe()
        q:put(b)
        b:close()
        local last = mp.monotonic() + STALL
        serve(STALL)
        -- What the dead have put is before ours.
        while not a:poll(0.002) and mp.monotonic() < last do
            serve(0)
        end
        if not a:poll(0) then
            late[1] = 1
        end
        pcall(a.recv, a)
        a:close()
    end
    function scene.judge(storm)
        storm:check(late[1] == 0, "a connection was left open")
        while not q:empty() do
            q:get()
        end
        collectgarbage()
    end
    return scene
end

-- All of it -----------------------------------------------------------------

tools.run("kill_sync", function(storm)
    local names = {}
    for name in pairs(scenes) do
        names[#names + 1] = name
    end
    table.sort(names)
    local each = math.max(0.15, math.min(2, storm.seconds / #names))
    local before = tools.footprint()
    local first, i = math.random(#names), 0
    while storm:goes_on() or i < #names do
        local name = names[(first + i) % #names + 1]
        i = i + 1
        storm:progress(name)
        do
            local scene = scenes[name](storm)
            scene.judge(storm, rage(storm, scene, each))
        end
        storm:progress("the look at what " .. name .. " left")
        storm:nothing_left(before)
    end
end)
