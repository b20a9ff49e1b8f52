--- Everybody is stopped and continued all the time (SIGSTOP, SIGCONT): slow
-- is not dead. Nothing is reaped, replaced, lost or reported; what is
-- counted is complete. The users start by each method, a fork server is
-- stopped, too.

local mp = require "mp"
local tools = require "spec.storm.tools"

local LONG <const> = 0.4 -- s: longer than a sleeper looks after the dead

-- Stopping ------------------------------------------------------------------

--- Starts what stops this process and its descendants at random times, each
-- for 1 to 30 ms, some for long.
local function start_stopping(storm, root)
    local stopped = {} -- pid = when to continue it
    local function continue(shell, now)
        for pid, due in pairs(stopped) do
            if now >= due then
                shell.send("CONT", pid)
                stopped[pid] = nil
            end
        end
    end
    return tools.killer(storm, {
        most = 0.01, shares = {},
        act = function(shell, pid)
            local now = mp.monotonic()
            continue(shell, now)
            pid = math.random(10) == 1 and root or pid
            if not stopped[pid] then
                shell.send("STOP", pid)
                stopped[pid] = now + (math.random(20) == 1 and LONG
                    or tools.between(0.001, 0.03))
            end
        end,
        finish = function(shell)
            continue(shell, math.huge)
        end,
    })
end

-- What goes on meanwhile ----------------------------------------------------

local METHODS <const> = {"fork", "spawn", "forkserver"}
local USERS <const> = #METHODS

--- Processes that add under a lock, meet at a barrier, hand on messages.
local function start_users(halt)
    local lock, barrier = mp.Lock(), mp.Barrier(USERS)
    local cells, own = mp.RawArray("q", 2), mp.RawArray("q", USERS)
    local q, got = mp.Queue(10), mp.RawArray("q", USERS)
    local wrong = mp.RawArray("i", USERS)
    local users = {}
    for k = 1, USERS do
        local Process = mp.get_context(METHODS[k]).Process
        users[k] = Process{daemon = true, target = function()
            local last = {}
            repeat
                local _, abandoned = lock:acquire()
                cells[1] = cells[1] + 1
                cells[2] = cells[2] + 1
                lock:release()
                own[k] = own[k] + 1
                q:put{k, own[k]}
                local from, i = table.unpack(q:get())
                got[k] = got[k] + 1
                if abandoned or i <= (last[from] or 0) then
                    wrong[k] = 1
                end
                last[from] = i
                -- The last to come says whether there is another turn.
                local over = halt:is_set()
                barrier:wait()
                if over and k == 1 then
                    barrier:abort()
                end
            until not pcall(barrier.wait, barrier)
        end}
        users[k]:start()
    end
    return users, function(storm)
        for k, p in ipairs(users) do
            storm:check(p:join(tools.PATIENCE), "user %d does not end", k)
            storm:check(p.exitcode == 0, "user %d ended with %s", k,
                p.exitcode)
            storm:check(wrong[k] == 0, "user %d saw what was not", k)
            p:close()
        end
        local sum, had = 0, 0
        for k = 1, USERS do
            sum, had = sum + own[k], had + got[k]
        end
        storm:check(cells[1] == sum and cells[2] == sum,
            "%d and %d counted of %d", cells[1], cells[2], sum)
        storm:check(had == sum and q:empty(), "%d messages had of %d", had,
            sum)
        storm:count("turns", sum)
    end
end

--- Some maps and streams; every result is there, and right.
local function use_pool(storm, pool, i)
    local n = math.random(300)
    local function square(x)
        local last = os.clock() + 0.0002
        while os.clock() < last do end
        return x * x
    end
    storm:progress("map " .. i)
    for x, v in ipairs(pool:map(square, mp.range(1, n + 1))) do
        storm:check(v == x * x, "result %d: %s", x, v)
    end
    storm:progress("imap_unordered " .. i)
    local seen = 0
    for x, v in pool:imap_unordered(square, mp.range(1, n + 1), 2) do
        storm:check(v == x * x, "result %d: %s", x, v)
        seen = seen + 1
    end
    storm:check(seen == n, "%d results of %d", seen, n)
    storm:progress("apply " .. i)
    storm:check(pool:apply(square, {n}) == n * n, "apply")
    storm:count("results verified", 2 * n + 1)
end

tools.run("stop", function(storm)
    tools.start_server()
    local before = tools.footprint()
    do
        local halt = mp.Event()
        local method = tools.one_of(METHODS)
        storm:count("workers by " .. method, 3)
        local pool <close> = mp.get_context(method).Pool(3)
        local pids = table.concat(pool._core:pids(), " ")
        local _, judge = start_users(halt)
        local stopper = start_stopping(storm, mp.getpid())
        local i = 0
        repeat
            i = i + 1
            use_pool(storm, pool, i)
        until not storm:goes_on()
        storm:progress("the end of the users")
        halt:set()
        judge(storm)
        storm:progress("the end of the stopper")
        storm:count("stops", (stopper.stop()))
        storm:check(table.concat(pool._core:pids(), " ") == pids,
            "a worker was replaced")
    end
    storm:progress("the look at what is left")
    storm:nothing_left(before)
end)
