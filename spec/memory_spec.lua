--- What mp costs in memory, and that nothing of it stays behind.
--
-- Peaks and resident sizes mean something only in a fresh interpreter, so
-- the file has two faces: busted judges, and `mplua memory_spec.lua PROBE`
-- measures one thing and prints it as "name value" lines.

local mp = require "mp"
local core = require "mp.core"

local probes = {}

-- Reading /proc ---------------------------------------------------------

--- Sums the named fields of a /proc file of "Name: value kB" lines.
local function sum_fields(path, ...)
    local wanted, sum = {}, 0
    for _, name in ipairs{...} do
        wanted[name] = true
    end
    for line in io.lines(path) do
        local name, kb = line:match("^([%w_]+):%s*(%d+) kB")
        if wanted[name] then
            sum = sum + tonumber(kb)
        end
    end
    return sum
end

local function private_kb(pid)
    return sum_fields("/proc/" .. pid .. "/smaps_rollup", "Private_Clean",
        "Private_Dirty")
end

--- Of this process alone: of the arena, in which reaping may be late and
-- others work, each byte is counted otherwise.
local function resident_kb()
    return sum_fields("/proc/self/smaps_rollup", "Anonymous")
end

local function peak_kb()
    return sum_fields("/proc/self/status", "VmHWM")
end

--- The children of a process and theirs, as a list of pids.
local function descendants(pid, list)
    list = list or {}
    local path = string.format("/proc/%s/task/%s/children", pid, pid)
    for child in io.open(path):read("a"):gmatch("%d+") do
        list[#list + 1] = child
        descendants(child, list)
    end
    return list
end

--- How many descriptors are open. Whoever asks by starting a process counts
-- the pipe to it, in one state or another.
local function count_descriptors()
    local n = 0
    for fd = 0, 1023 do
        local info = io.open("/proc/self/fdinfo/" .. fd)
        if info then
            info:close()
            n = n + 1
        end
    end
    return n
end

local function report(name, value)
    io.write(string.format("%s %d\n", name, value))
end

-- Probes ----------------------------------------------------------------

local function square(x)
    return x * x
end

local function nothing() end

--- Waits until the pool's processes, crew and workers, are all there.
local function idle_processes(n)
    local deadline = mp.monotonic() + 10
    repeat
        local pids = descendants(mp.getpid())
        if #pids >= n then
            return pids
        end
        mp.sleep(0.01)
    until mp.monotonic() > deadline
    error(n .. " processes expected of a pool of 2")
end

--- Private memory of each process of an idle pool of 2, made by a caller
-- with `heap_mb` of its own; and what the caller gained.
local function probe_idle_pool(heap_mb)
    local heap = {}
    for i = 1, heap_mb * 1024 do
        heap[i] = ("x"):rep(1000)
    end
    collectgarbage()
    local before = private_kb("self")
    local pool = mp.Pool(2)
    for _, pid in ipairs(idle_processes(3)) do
        report("private_kb", private_kb(pid))
    end
    report("caller_kb", private_kb("self") - before)
    pool:close()
    pool:join()
    assert(#heap == heap_mb * 1024)
end

function probes.idle_pool()
    probe_idle_pool(0)
end

function probes.idle_pool_beside_a_heap()
    probe_idle_pool(50)
end

--- Peak of a caller that maps 1e6 items, and the size of these items; both
-- as grown since before the items were made.
local function probe_map(make_item, job)
    local n = 1000000
    local pool <close> = mp.Pool(2)
    pool:map(job, {make_item(1), make_item(2)})
    collectgarbage()
    local base, used = peak_kb(), collectgarbage("count")
    local items = {}
    for i = 1, n do
        items[i] = make_item(i)
    end
    collectgarbage()
    report("data_kb", math.floor(collectgarbage("count") - used))
    local results = pool:map(job, items)
    report("peak_kb", peak_kb() - base)
    assert(#results == n and results[n] == job(items[n]))
end

function probes.map_integers()
    probe_map(function(i) return i end, square)
end

function probes.map_strings()
    probe_map(function(i) return "item " .. i end, string.upper)
end

-- Each makes one object, uses it and lets go of it without closing it. They
-- are given what lasts through the rounds: a queue and a pool, made anew for
-- the later ones.
local rounds = {}

function rounds.Queue() mp.Queue():put({1, "two"}) end
function rounds.SimpleQueue() mp.SimpleQueue():put(("x"):rep(2000)) end
function rounds.JoinableQueue() mp.JoinableQueue(3):put(1) end
function rounds.Lock() mp.Lock():acquire() end
function rounds.RLock() mp.RLock():acquire() end
function rounds.Semaphore() mp.Semaphore(2):acquire() end
function rounds.BoundedSemaphore() mp.BoundedSemaphore(2):acquire() end
function rounds.Condition() mp.Condition():acquire() end
function rounds.Event() mp.Event():set() end
function rounds.Barrier() mp.Barrier(1):wait() end
function rounds.Value() mp.Value("q", 1):add(1) end
function rounds.Array() mp.Array("d", 100)[100] = 1.5 end
function rounds.RawValue() mp.RawValue("i", 1).value = 2 end
function rounds.RawArray() mp.RawArray("i", {1, 2, 3})[1] = 2 end
function rounds.Process() mp.Process{target = nothing, args = {}} end

function rounds.started_Process()
    local p = mp.Process{target = nothing}
    p:start()
    p:join()
end

function rounds.Pool()
    local pool = mp.Pool(1)
    pool:close()
    pool:join()
end

function rounds.travelled_Lock(queue)
    queue:put({mp.Lock()})
    queue:get()[1]:acquire()
end

function rounds.AsyncResult(_, pool)
    pool:apply_async(square, {3}):get()
end

function rounds.abandoned_AsyncResult(_, pool)
    pool:apply_async(square, {3})
end

function rounds.abandoned_imap(_, pool)
    pool:imap(square, mp.range(10)):next()
end

function rounds.imap_left_by_break(_, pool)
    for i in pool:imap(square, mp.range(10)) do
        if i == 1 then
            break
        end
    end
end

local function snapshot(when)
    collectgarbage()
    collectgarbage()
    report("arena_" .. when, core.debug.arena_bytes())
    report("descriptors_" .. when, count_descriptors())
    report("resident_" .. when, resident_kb())
end

--- Hundreds of rounds of one kind. The collector runs after each hundred, and
-- once more for what had finalizers: what is dropped is freed no sooner.
local function run_hundreds(round, hundreds)
    local queue, pool = mp.Queue(), mp.Pool(2)
    for _ = 1, hundreds do
        for _ = 1, 100 do
            round(queue, pool)
        end
        collectgarbage()
        collectgarbage()
    end
    pool:close()
    pool:join()
end

--- Rounds of one kind: what is in use after the first 100 and after the
-- last.
local function probe_rounds(round, hundreds)
    run_hundreds(round, 1)
    snapshot("before")
    run_hundreds(round, hundreds - 1)
    snapshot("after")
end

for name, round in pairs(rounds) do
    probes[name] = function(hundreds)
        probe_rounds(round, tonumber(hundreds))
    end
end

if not describe then
    local probe = probes[arg[1]]
        or error("no such probe: " .. tostring(arg[1]), 0)
    probe(arg[2])
    return
end

-- The judge -------------------------------------------------------------

local helper = require "spec.helper"
local script = debug.getinfo(1, "S").source:sub(2)

--- Runs a probe in an interpreter like this one.
-- @return name -> list of values, in the order in which they were printed
local function measure(probe, ...)
    local run = helper.run({script, probe, ...}, {timeout = 120})
    assert.are.equal(0, run.code, probe .. ": " .. run.stderr)
    local figures = {}
    for name, value in run.stdout:gmatch("(%S+) (%-?%d+)\n") do
        figures[name] = figures[name] or {}
        table.insert(figures[name], tonumber(value))
    end
    return figures
end

local function below(limit, value, what)
    assert(value < limit, string.format("%s: %d, below %d expected", what,
        value, limit))
end

-- Sanitizers keep memory of their own beside everyone's: sizes as the kernel
-- sees them are judged without them only.
local describe_sizes = helper.sanitized and pending or describe

describe_sizes("memory of an idle pool of 2", function()
    local function stays_small(probe)
        local figures = measure(probe)
        assert.are.equal(3, #figures.private_kb)
        for _, kb in ipairs(figures.private_kb) do
            below(2048, kb, "private kB of a process")
        end
        below(2048, figures.caller_kb[1], "private kB added to the caller")
    end

    it("is below 2 MB in every process", function()
        stays_small("idle_pool")
    end)

    it("is below 2 MB when the caller has much of its own", function()
        stays_small("idle_pool_beside_a_heap")
    end)
end)

describe_sizes("memory of a map over 1e6 items", function()
    local function stays_below_three_times(probe)
        local figures = measure(probe)
        below(3 * figures.data_kb[1], figures.peak_kb[1], "peak kB")
    end

    it("is below 3 times that of the items, integers", function()
        stays_below_three_times("map_integers")
    end)

    it("is below 3 times that of the items, strings", function()
        stays_below_three_times("map_strings")
    end)
end)

-- A second pool touches some 150 kB once that the first did not, and a hundred
-- rounds some 280 that malloc keeps where it cannot give back, whether 1,000
-- rounds follow or 100,000. A leak of 64 bytes in a round is more.
local noise_kb = 600

local function leaves_nothing(kind)
    it("is all given back: " .. kind, function()
        local figures = measure(kind, helper.sanitized and 10 or 100)
        assert.are.equal(figures.arena_before[1], figures.arena_after[1])
        assert.are.equal(figures.descriptors_before[1],
            figures.descriptors_after[1])
        if not helper.sanitized then
            below(figures.resident_before[1] + noise_kb,
                figures.resident_after[1], "resident kB")
        end
    end)
end

describe("memory of 10,000 objects made and dropped", function()
    local kinds = {}
    for kind in pairs(rounds) do
        kinds[#kinds + 1] = kind
    end
    table.sort(kinds)
    for _, kind in ipairs(kinds) do
        leaves_nothing(kind)
    end
end)
