--- Children of every start method come and go while they, and their fork
-- server, are killed; and whole families are, by their head: each start is a
-- child that ran once at most and whose end is known, or an error that says
-- why there is none; whose parent is gone, is gone; nothing is left.

local mp = require "mp"
local tools = require "spec.storm.tools"

local METHODS <const> = {"fork", "spawn", "forkserver", "thread"}

-- A shower ------------------------------------------------------------------

local MOST <const> = 100000 -- starts of one storm
local AT_A_TIME <const> = 6

--- What a child does, in places that it alone writes to.
local function job(k, begun, done, nap)
    begun[k] = begun[k] + 1
    require("mp").sleep(nap)
    done[k] = done[k] + 1
end

--- Starts child k; nil when it was killed as the first of its program.
local function start(storm, state, k)
    local method = tools.one_of(METHODS)
    local p = mp.get_context(method).Process{target = job, daemon = true,
        args = {k, state.begun, state.done, tools.between(0, 0.01)}}
    local ok, e = pcall(p.start, p)
    if not ok then
        storm:check(method ~= "fork" and method ~= "thread" and
            tools.is_killed(e), "%s: %s", method, tostring(e))
        storm:count("refused", 1)
        return nil
    end
    storm:count(method, 1)
    return {object = p, method = method, k = k}
end

local function judge(storm, state, child)
    local p, k = child.object, child.k
    storm:progress("join of a child by " .. child.method)
    storm:check(p:join(tools.PATIENCE), "a child by %s does not end",
        child.method)
    local code, begun, done = p.exitcode, state.begun[k], state.done[k]
    p:close()
    storm:check(begun <= 1 and done <= begun, "%s: begun %d times, done %d",
        child.method, begun, done)
    if code == 0 then
        storm:check(done == 1, "%s: ended well, and did not", child.method)
    else
        storm:check(code == -9 and child.method ~= "thread",
            "%s: ended with %s", child.method, code)
        storm:count("killed", 1)
    end
end

local function shower(storm, seconds)
    local state = {begun = mp.RawArray("b", MOST), done = mp.RawArray("b",
        MOST)}
    local killer = tools.killer(storm, {most = 0.01, shares = {1}})
    local last, k, running = mp.monotonic() + seconds, 0, {}
    repeat
        storm:progress("starts")
        while #running < AT_A_TIME and k < MOST do
            k = k + 1
            running[#running + 1] = start(storm, state, k)
        end
        judge(storm, state, table.remove(running, math.random(#running)))
        if k % 50 == 0 then
            storm:check_arena()
        end
    until mp.monotonic() > last
    for _, child in ipairs(running) do
        judge(storm, state, child)
    end
    storm:progress("the end of the killer")
    storm:count("kills", (killer.stop()))
end

-- Families ------------------------------------------------------------------

--- What members of a family do, for ever.
local idle = {
    busy = function(...) while ... do end end,
    asleep = function(_, _) require("mp").sleep(1000) end,
    blocked = function(lock, _) lock:acquire() end,
    waiting = function(_, queue) queue:get() end,
}

--- A head of a family: starts one of each kind by each method and a pool,
-- and says who they are.
local function head(pids, ready, lock, queue, idle, methods)
    local mp = require "mp"
    local n = 0
    local function note(pid)
        n = n + 1
        pids[n] = pid
    end
    note(mp.getpid())
    for _, method in ipairs(methods) do
        for _, f in pairs(idle) do
            local p = mp.get_context(method).Process{target = f,
                args = {lock, queue}}
            p:start()
            note(p.pid)
        end
    end
    local pool = mp.get_context(methods[n % #methods + 1]).Pool(2)
    pool:map_async(idle.busy, {1})
    for _, pid in ipairs(pool._core:pids()) do
        note(pid)
    end
    ready:set()
    mp.sleep(1000)
end

--- Seconds until what a killed parent leaves is gone (on a crowded machine,
-- where the dead need processors to end).
local GONE <const> = 5

local function family(storm, method)
    local pids, ready = mp.RawArray("q", 64), mp.Event()
    local lock, queue = mp.Lock(), mp.Queue()
    lock:acquire()
    local p <close> = mp.get_context(method).Process{target = head,
        args = {pids, ready, lock, queue, idle, METHODS}}
    p:start()
    storm:progress("a family by " .. method)
    local early = math.random(4) == 1
    if early then
        tools.nap(0, 0.1) -- it is growing
    else
        storm:check(ready:wait(tools.PATIENCE), "the family is not complete")
    end
    p:kill()
    storm:progress("the end of a family by " .. method)
    storm:check(p:join(tools.PATIENCE), "its head does not end")
    storm:check(p.exitcode == -9, "its head ended with %s", p.exitcode)
    local begin = mp.monotonic()
    for _, pid in ipairs(pids:slice()) do
        -- (The head's children are the reaper's of the machine.)
        storm:check(tools.eventually(GONE, function()
            local state, parent = tools.state(pid)
            return pid == 0 or not state or state == "Z" or state == "X" or
                parent == mp.getpid() and pid ~= p.pid
        end), "%d outlives its family", pid)
    end
    storm.slowest = math.max(storm.slowest or 0, mp.monotonic() - begin)
    storm:count("families", 1)
end

-- Several who ask the server -------------------------------------------------

--- A thread, or a process, that starts children by the server of its process.
local function starter(n, ended, k)
    local mp = require "mp"
    for i = 1, n do
        local p <close> = mp.get_context("forkserver").Process{
            target = function() end}
        local ok, e = pcall(p.start, p)
        if ok then
            p:join()
            ok = p.exitcode == 0 or p.exitcode == -9
        else
            -- One whose server is killed again and again.
            ok = mp.iserror(e, "StateError")
        end
        if ok then
            ended[k] = ended[k] + 1
        end
    end
end

--- Threads of this process ask one server at once, while it is killed.
local function crowd(storm)
    local THREADS <const>, EACH <const> = 6, 10
    local ended, list = mp.RawArray("q", THREADS), {}
    local killer = tools.killer(storm, {least = 0.02, most = 0.1,
        shares = {1}})
    for k = 1, THREADS do
        list[k] = mp.threading.Thread{target = starter,
            args = {EACH, ended, k}}
        list[k]:start()
    end
    for k, t in ipairs(list) do
        storm:progress("a thread that asks the server")
        storm:check(t:join(tools.PATIENCE), "a starter does not end")
        storm:check(t.exitcode == 0 and ended[k] == EACH,
            "a starter ended with %s, %d of %d", t.exitcode, ended[k], EACH)
        t:close()
    end
    storm:progress("the end of the killer")
    storm:count("kills", (killer.stop()))
    storm:count("asked by threads", THREADS * EACH)
end

tools.run("starts", function(storm)
    tools.start_server()
    local before = tools.footprint()
    repeat
        for _, method in ipairs(METHODS) do
            if method ~= "thread" then
                family(storm, method)
                storm:check_arena()
            end
        end
        shower(storm, math.max(0.5, math.min(20, storm.seconds / 3)))
        crowd(storm)
        storm:progress("the look at what is left")
        storm:nothing_left(before)
    until not storm:goes_on()
    storm:count("ms until a family was gone", storm.slowest * 1e3)
end)
