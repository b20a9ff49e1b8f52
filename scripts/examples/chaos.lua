-- A long map while its workers are shot: hundreds of them a second.
--
--     mplua chaos.lua [SECONDS [WORKERS]]        (5 seconds, 4 workers)
--
-- The same job runs twice: undisturbed, then with a process that sends
-- SIGKILL to a worker every few milliseconds. A killed worker is replaced at
-- once; the one item that it ran comes back as WorkerLost, everything else
-- is done. So the program keeps the results, gives the lost items to the
-- pool again until none is left, and compares all with the first run.
-- It ends with 0 when each result is right and workers were killed.

local mp = require "mp"

local SECONDS <const> = tonumber(arg[1] or 5)
local WORKERS <const> = math.tointeger(tonumber(arg[2] or 4))
if not SECONDS or SECONDS < 0.5 or not WORKERS or WORKERS < 1 then
    io.stderr:write("chaos: SECONDS (0.5 or more), WORKERS (1 or more)\n")
    os.exit(2)
end

--- How many primes there are among the `width` numbers that item i has.
local function primes(i, width)
    local n, first = 0, 1000000 + i * width
    for k = first, first + width - 1 do
        local d = 2
        while d * d <= k and k % d ~= 0 do
            d = d + 1
        end
        n = n + (d * d > k and 1 or 0)
    end
    return n
end

--- A width that keeps a worker busy for about a millisecond.
local function width_of_task()
    local width, took = 1, nil
    repeat
        width = width * 2
        local begin = os.clock()
        primes(1, width)
        took = os.clock() - begin
    until took > 0.0005
    return math.max(1, math.floor(width * 0.001 / took))
end

--- Shoots at workers until it is told to stop, by the clock, so that a busy
-- machine gives no quarter. Each worker has written its pid into its cell;
-- who takes a pid from there leaves 0, so that none is shot at twice. A
-- shell sends the signals, since its `kill` is built in.
local function shoot(pids, halt, shots)
    local shell <close> = assert(io.popen("exec sh 2>/dev/null", "w"))
    shell:setvbuf("no")
    local due, k = mp.monotonic(), 0
    while not halt:wait(due - mp.monotonic()) do
        k = k % #pids + 1
        local pid = pids[k]
        if pid > 0 then
            pids[k] = 0
            shell:write("kill -9 ", pid, "\n")
            shots:add(1)
        end
        due = due + 0.004 * math.random()
    end
end

--- All results of a map, in spite of lost workers; how many items were lost,
-- and how often the pool was asked.
local function stubborn_map(pool, task, items)
    local results, lost, rounds = {}, 0, 0
    local todo = items
    while #todo > 0 do
        local again = {}
        rounds = rounds + 1
        local list = pool:map(task, todo, {on_error = "collect"})
        for i, v in ipairs(list) do
            if mp.iserror(v, "WorkerLost") then
                table.insert(again, todo[i])
            elseif mp.iserror(v) then
                error(v)
            else
                results[todo[i]] = v
            end
        end
        lost = lost + #again
        todo = again
    end
    return results, lost, rounds
end

local function say(...)
    print(string.format(...))
    io.stdout:flush()
end

local WIDTH <const> = width_of_task()
local pids = mp.RawArray("i", WORKERS)
local halt, shots = mp.Event(), mp.RawValue("q", 0)

local function task(i)
    return primes(i, WIDTH)
end

local function new_pool()
    return mp.Pool{processes = WORKERS, initializer = function()
        pids[mp.worker.id] = mp.getpid()
    end}
end

--- Does items 1, 2, 3, ... for so many seconds; their results, and the time.
local function undisturbed(seconds)
    local pool <close> = new_pool()
    local results, begin = {}, mp.monotonic()
    for i, v in pool:imap(task, mp.range(1, 1 << 40)) do
        results[i] = v
        if mp.monotonic() - begin > seconds then
            break
        end
    end
    return results, mp.monotonic() - begin
end

--- The same for these items, while workers are shot.
local function under_fire(items)
    local pool <close> = new_pool()
    local killer = mp.Process{target = shoot, args = {pids, halt, shots},
                              daemon = true}
    local begin = mp.monotonic()
    killer:start()
    local results, lost, rounds = stubborn_map(pool, task, items)
    local took = mp.monotonic() - begin
    halt:set()
    killer:join()
    return results, took, lost, rounds
end

local wanted, quiet = undisturbed(SECONDS / 3)
local items = {}
for i = 1, #wanted do
    items[i] = i
end
say("%d items of about a millisecond, %d workers", #items, WORKERS)
say("undisturbed        %.2f s", quiet)
local results, took, lost, rounds = under_fire(items)
say("under fire         %.2f s, %.1f times as long", took, took / quiet)

local right = 0
for i = 1, #items do
    right = right + (results[i] == wanted[i] and 1 or 0)
end
say("results verified   %d of %d", right, #items)
say("workers killed     %d, %.0f a second", shots.value, shots.value / took)
say("tasks retried      %d, in %d rounds", lost, rounds - 1)
os.exit(right == #items and shots.value > 0)
