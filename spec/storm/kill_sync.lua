--- Users of locks, semaphores, conditions, events, barriers, values and
-- arrays are killed all the time: nothing hangs, nobody is let in twice,
-- what a lock guards is whole or said to be abandoned, no notify is lost.
--
-- Each scene makes its objects, starts users that loop for ever, kills one
-- of them every 1 to 20 ms and starts another in its place, and looks at the
-- sums when all are gone.

local mp = require "mp"
local tools = require "spec.storm.tools"

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
    p:start()
    return p
end

local function sum_of(array)
    local sum = 0
    for _, n in ipairs(array:slice()) do
        sum = sum + n
    end
    return sum
end

-- What a scene may have besides: strike(kill), to do something around a kill;
-- died(k), of a user that has ended and has no follower yet; tend(), between
-- two kills; is_party(k), without which user k is not killed.

local function bury(storm, k, p)
    storm:check(p:join(5), "a killed user does not end")
    storm:check(p.exitcode == -9, "user %d ended by itself: %s", k,
        p.exitcode)
    p:close()
    storm:count("kills", 1)
end

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
    bury(storm, k, p)
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
        bury(storm, k, users[k])
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
        if abandoned then
            cells[2] = cells[1]
        elseif cells[3] ~= 0 then
            wrong[1] = wrong[1] + 1
        end
        cells[3] = k
        if cells[1] ~= cells[2] then
            wrong[2] = wrong[2] + 1
        end
        cells[1] = cells[1] + 1
        cells[2] = cells[2] + 1
        if cells[3] ~= k then
            wrong[1] = wrong[1] + 1
        end
        cells[3] = 0
        release()
    end
    function scene.judge(storm, deaths)
        storm:check(wrong[1] == 0, "%d times two were inside", wrong[1])
        storm:check(wrong[2] == 0, "%d times half a step", wrong[2])
        local steps, sum = sum_of(scene.steps), cells[1]
        storm:check(sum >= steps and sum <= steps + deaths,
            "%d steps, but %d counted, %d deaths", steps, sum, deaths)
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
        local steps, sum = sum_of(scene.steps), value.value
        storm:check(sum >= steps and sum <= steps + deaths,
            "%d steps, but %d added, %d deaths", steps, sum, deaths)
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
