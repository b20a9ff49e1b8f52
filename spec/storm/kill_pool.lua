--- Workers and crews are killed all the time, under every door of a pool:
-- each item gives its result once, or one WorkerLost that names it; it ran
-- once at most; what is promised in order comes in order; nothing is left.
-- So for the crews of every start method; a fork server dies like a crew.

local mp = require "mp"
local tools = require "spec.storm.tools"

local between, one_of = tools.between, tools.one_of

--- How many items, mostly few.
local function some(most)
    return math.floor(most ^ math.random()) + 1
end

local function chunk()
    return one_of{false, 1, 3, 20} or nil
end

--- How the crews of this time start.
local context

-- Jobs ----------------------------------------------------------------------

--- A job that counts in `runs[i]` that item i is run, takes a little time,
-- and gives what `value(i)` does.
local function job_of(runs, value)
    return function(i)
        runs[i] = runs[i] + 1
        local last = os.clock() + 0.0005
        while os.clock() < last do end
        return value(i)
    end
end

local function square(i)
    return i * i
end

--- A text that is larger the rarer: some fit a cell, some need a span.
local function text(i)
    return ("%d "):format(i):rep(i % 50 == 0 and 30000 or i % 7 * 40)
end

-- Judging -------------------------------------------------------------------

--- Demands of item i that it has its value, or one loss, and ran once.
local function judge(storm, runs, i, v, wanted)
    local ran = runs[i]
    if mp.iserror(v, "WorkerLost") then
        storm:check(v.index == i, "item %d: lost as item %s", i, v.index)
        storm:check(ran <= 1, "item %d: lost, and ran %d times", i, ran)
        storm:count("items lost", 1)
    else
        storm:check(v == wanted, "item %d: %s instead of %s", i,
            tostring(v), tostring(wanted))
        storm:check(ran == 1, "item %d ran %d times", i, ran)
        storm:count("results verified", 1)
    end
end

local function judge_list(storm, runs, list, n, value)
    storm:check(list.n == n, "%s results of %d items", list.n, n)
    for i = 1, n do
        judge(storm, runs, i, list[i], value(i))
    end
end

-- The doors -----------------------------------------------------------------

local doors = {}

function doors.map(storm, pool)
    local n, value = some(600), one_of{square, text}
    local runs <close> = mp.RawArray("i", n)
    local list = pool:map(job_of(runs, value), mp.range(1, n + 1),
        {on_error = "collect", chunksize = chunk()})
    judge_list(storm, runs, list, n, value)
end

--- The error raised is that of the lowest index; what succeeded is in it.
function doors.map_raises(storm, pool)
    local n = some(300)
    local runs <close> = mp.RawArray("i", n)
    local ok, e = pcall(pool.map, pool, job_of(runs, square),
        mp.range(1, n + 1), chunk())
    storm:check(ok or mp.iserror(e, "WorkerLost"), tostring(e))
    for i = 1, not ok and e.index - 1 or 0 do
        storm:check(e.results[i] == i * i, "item %d before the lowest", i)
    end
    local list = ok and e or e.results
    for i = 1, n do
        storm:check(list[i] == nil and not ok or list[i] == i * i,
            "item %d: %s", i, list[i])
    end
end

--- Items that are tables and closures, from a list.
function doors.starmap(storm, pool)
    local n, items = some(200), {}
    local runs <close> = mp.RawArray("i", n)
    for i = 1, n do
        items[i] = {i, {text = text(i)}, function(t) return #t.text + i end}
    end
    local run = job_of(runs, square)
    local list = pool:starmap(function(i, t, f) run(i) return f(t) end,
        items, {on_error = "collect", chunksize = chunk()})
    judge_list(storm, runs, list, n, function(i) return #text(i) + i end)
end

--- 1, 2, ... n, drawn as they are needed.
local function counter(n)
    local i = 0
    return function()
        i = i + 1
        return i <= n and i or nil
    end
end

--- The index and value, or error, of the next result; nil at the end.
local function next_of(it)
    local ok, i, v = pcall(it.next, it)
    if ok then
        return i, v
    elseif mp.iserror(i, "WorkerLost") then
        return i.index, i
    end
    error(i, 0)
end

function doors.imap(storm, pool)
    local n = some(1500)
    local stop = one_of{n, n, n // 2}
    local runs <close> = mp.RawArray("i", n)
    local it <close> = pool:imap(job_of(runs, text), counter(n), chunk())
    for i = 1, stop do
        local index, v = next_of(it)
        storm:check(index == i, "result %s in the place of %d", index, i)
        judge(storm, runs, i, v, text(i))
    end
    storm:check(stop < n or next_of(it) == nil, "more results than items")
end

function doors.imap_unordered(storm, pool)
    local n, seen = some(1500), {}
    local runs <close> = mp.RawArray("i", n)
    local it <close> = pool:imap_unordered(job_of(runs, square), counter(n),
        chunk())
    for i, v in next_of, it do
        storm:check(not seen[i], "item %d came twice", i)
        seen[i] = true
        judge(storm, runs, i, v, i * i)
    end
    for i = 1, n do
        storm:check(seen[i], "item %d of %d never came", i, n)
    end
end

--- Arguments and results with shared objects in them.
function doors.apply_async(storm, pool)
    local n, lock, sum = some(60), mp.Lock(), mp.RawValue("q", 0)
    local runs <close> = mp.RawArray("i", n)
    local run, owed = job_of(runs, square), {}
    for i = 1, n do
        owed[i] = pool:apply_async(function(deep, k)
            run(k)
            deep.lock:acquire()
            sum:add(1)
            deep.lock:release()
            local q = mp.Queue()
            q:put{k * k, deep.lock}
            return q, k
        end, {{lock = lock}, i})
    end
    local done = 0
    for i = 1, n do
        local ok, q, k = pcall(owed[i].get, owed[i])
        if ok then
            storm:check(k == i, "result %s of call %d", k, i)
            storm:check(q:get()[1] == i * i, "the queue of call %d", i)
            done = done + 1
        else
            storm:check(mp.iserror(q, "WorkerLost") and q.index == nil,
                tostring(q))
        end
        storm:check(runs[i] <= 1 and (not ok or runs[i] == 1),
            "call %d ran %d times", i, runs[i])
    end
    storm:check(done <= sum.value and sum.value <= n, "%d done, %d counted",
        done, sum.value)
    storm:count("results verified", done)
end

-- Objects whose pickling fails by their number and by where it happens.
local main -- the pid of the one who makes the pools
local Risky = {}

local function fail_at(i, remainder, away)
    if i % 11 == remainder and (mp.getpid() ~= main) == away then
        error("risky " .. i, 0)
    end
end

mp.pickle.register("storm.Risky", Risky, function(object)
    fail_at(object.i, 3, true)  -- result out
    return object.i
end, function(i)
    fail_at(i, 1, true)         -- argument in
    fail_at(i, 4, false)        -- result in
    return setmetatable({i = i}, Risky)
end)

local RISKS <const> = {
    [1] = "RemoteError", [2] = "RemoteError", [3] = "RemoteError",
    [4] = "PicklingError", [5] = "WorkerLost",
}

--- What goes wrong in an item's own code costs that item, too, and no other.
function doors.risky(storm, pool)
    local n, items = some(300), {}
    for i = 1, n do
        items[i] = setmetatable({i = i}, Risky)
    end
    local list = pool:map(function(object)
        if object.i % 11 == 2 then
            error("run", 0)
        elseif object.i % 11 == 5 then
            os.exit(3)
        end
        return object
    end, items, {on_error = "collect", chunksize = chunk()})
    for i, v in ipairs(list) do
        local kind = RISKS[i % 11]
        if mp.iserror(v) then
            storm:check((v.kind == kind or v.kind == "WorkerLost") and
                v.index == i, "item %d: %s", i, tostring(v))
        else
            storm:check(not kind and v.i == i, "item %d: %s", i, tostring(v))
            storm:count("results verified", 1)
        end
    end
    storm:check(list.n == n, "%d results of %d", list.n, n)
end

--- One of the two callbacks, once.
function doors.callbacks(storm, pool)
    local n, called = some(200), {}
    local runs <close> = mp.RawArray("i", n)
    local function note(what) table.insert(called, what) end
    local r = pool:map_async(job_of(runs, text), mp.range(1, n + 1), {
        on_error = one_of{"collect", "raise"}, callback = note,
        error_callback = note,
    })
    r:wait()
    pool:poll()
    storm:check(#called == 1, "%d callbacks", #called)
    local what = called[1]
    if mp.iserror(what) then
        storm:check(what.kind == "WorkerLost", tostring(what))
    else
        judge_list(storm, runs, what, n, text)
    end
    storm:check(select(2, pcall(r.get, r)) == what, "not what get() gives")
end

--- What the workers put is there once, at least of those that returned.
function doors.queue(storm, pool)
    local n, q, seen = some(300), mp.Queue(), {}
    local runs <close> = mp.RawArray("i", n)
    local run = job_of(runs, square)
    local list = pool:map(function(i)
        q:put{i, text(i)}
        return run(i)
    end, mp.range(1, n + 1), {on_error = "collect"})
    for _ = 1, q:qsize() do
        local i, t = table.unpack(q:get(true, 5))
        storm:check(not seen[i] and t == text(i), "message %d", i)
        seen[i] = true
    end
    storm:check(q:empty(), "the queue has more than it said")
    judge_list(storm, runs, list, n, square)
    for i = 1, n do
        storm:check(seen[i] or mp.iserror(list[i]), "message %d missed", i)
    end
end

--- Items that are run again, and some whose time is up.
function doors.again(storm, pool)
    local n = some(200)
    local runs <close> = mp.RawArray("i", n)
    local list = pool:map(function(i)
        runs[i] = runs[i] + 1
        if i % 61 == 7 then
            while true do pcall(function() while true do end end) end
        elseif i % 17 == 3 and runs[i] == 1 then
            error("once", 0)
        end
        return i * i
    end, mp.range(1, n + 1), {
        on_error = "collect", chunksize = chunk(), timeout = 0.02,
        grace = 0.01, retries = 2, max_crashes = 50, priority = "high",
        backoff = one_of{false, 0.005} or nil, seed = 1,
    })
    for i = 1, n do
        local v = list[i]
        if i % 61 == 7 then
            storm:check(mp.iserror(v, "TaskTimeout") or
                mp.iserror(v, "WorkerLost"), "item %d: %s", i, tostring(v))
        else
            -- A busy machine may have let its time pass, or it was killed
            -- thrice.
            storm:check(v == i * i or (mp.iserror(v) and v.attempts == 3),
                "item %d: %s", i, tostring(v))
        end
    end
    storm:check(list.n == n, "%d results of %d", list.n, n)
end

--- Tasks that wait for tasks of the same pool.
function doors.nested(storm, pool)
    local n = some(60)
    local list = pool:map(function(i)
        local sum = 0
        for _, v in ipairs(pool:map(function(k) return i * k end, {1, 2, 3},
                                    {retries = 5, chunksize = 1})) do
            sum = sum + v
        end
        return sum
    end, mp.range(1, n + 1), {on_error = "collect"})
    for i = 1, n do
        local v = list[i]
        local why = mp.iserror(v, "RemoteError") and v.value or v
        storm:check(v == 6 * i or mp.iserror(why, "WorkerLost"),
            "item %d: %s", i, tostring(v))
    end
end

--- Calls that are given up, at any time.
function doors.cancel(storm, pool)
    local n = some(400)
    local runs <close> = mp.RawArray("i", n)
    local r = pool:map_async(job_of(runs, text), mp.range(1, n + 1),
        {on_error = "collect", chunksize = chunk()})
    tools.nap(0, 0.01)
    if r:cancel() then
        local ok, e = pcall(r.get, r)
        storm:check(not ok and mp.iserror(e, "Cancelled"), tostring(e))
    else
        judge_list(storm, runs, r:get(), n, text)
    end
end

--- As many workers as it pleases, while they work.
function doors.resize(storm, pool)
    local n = some(600)
    local runs <close> = mp.RawArray("i", n)
    local r = pool:map_async(job_of(runs, square), mp.range(1, n + 1),
        {on_error = "collect", chunksize = chunk()})
    for _ = 1, 3 do
        pool:resize(math.random(4))
        tools.nap(0, 0.003)
    end
    judge_list(storm, runs, r:get(), n, square)
end

-- Pools that come and go ----------------------------------------------------

--- A new pool, or nil: its crew, too, may be killed as it starts.
local function new_pool(storm, opts)
    local ok, pool = pcall(context.Pool, opts)
    storm:check(ok or mp.iserror(pool, "OSError") and
        pool.code == "EOWNERDEAD" or tools.is_killed(pool), tostring(pool))
    if not ok then
        storm:count("pools that did not start", 1)
    end
    return ok and pool or nil
end

local function closed(storm)
    local n = some(300)
    local pool = new_pool(storm, {
        processes = math.random(3), maxtasksperchild = one_of{false, 5} or nil,
        initializer = function(x) mp.worker.state.x = x end, initargs = {7},
    })
    if not pool then
        return
    end
    local runs <close> = mp.RawArray("i", n)
    local run = job_of(runs, square)
    local r = pool:map_async(function(i)
        return run(i) + mp.worker.state.x
    end, mp.range(1, n + 1), {on_error = "collect", chunksize = chunk()})
    pool:close()
    pool:join()
    judge_list(storm, runs, r:get(), n, function(i) return i * i + 7 end)
end

local function terminated(storm)
    local n = some(300)
    local pool = new_pool(storm, 2)
    if not pool then
        return
    end
    local runs <close> = mp.RawArray("i", n)
    local r = pool:map_async(job_of(runs, text), mp.range(1, n + 1),
        {on_error = "collect"})
    tools.nap(0, 0.01)
    pool:terminate()
    local ok, e = pcall(r.get, r)
    if ok then
        judge_list(storm, runs, e, n, text)
    else
        storm:check(mp.iserror(e, "PoolTerminated"), tostring(e))
    end
end

doors.closed, doors.terminated = closed, terminated

--- A pool inside a worker: what it does is done, or its worker is lost, or
-- an item of it is.
function doors.nested(storm, pool)
    local list = pool:map(function(n)
        local ok, inner = pcall(mp.Pool, 2)
        if not ok then
            return inner.code
        end
        local held <close> = inner
        local sum = 0
        for _, v in ipairs(inner:map(function(x) return x + 1 end,
                mp.range(n), {on_error = "collect"})) do
            sum = sum + (type(v) == "number" and v or 0)
        end
        return sum
    end, {10, 20, 30}, {on_error = "collect", chunksize = 1})
    for i, v in ipairs(list) do
        local most = i * 10 * (i * 10 + 1) // 2
        storm:check(mp.iserror(v, "WorkerLost") or v == "EOWNERDEAD" or
            math.type(v) == "integer" and v <= most,
            "the inner pool %d gave %s", i, tostring(v))
    end
end

-- All of it -----------------------------------------------------------------

--- The start methods, the chance of a kill by depth (a server is nearer to
-- the caller than the crews that it starts), and the doors that are shut: to
-- one where the workers do not know what this program has registered.
local METHODS <const> = {
    {name = "fork", shares = {0.02}, shut = {}},
    {name = "spawn", shares = {0.02}, shut = {risky = true}},
    {name = "forkserver", shares = {0.01, 0.02}, shut = {risky = true}},
}

--- One pool, with its killer, for some of its doors.
local function rage(storm, names, method)
    local pool <close> = new_pool(storm, math.random(2, 4))
    if not pool then
        return
    end
    local killer = tools.killer(storm, {most = one_of{0.004, 0.02},
        shares = method.shares})
    for _ = 1, 10 do
        local name = one_of(names)
        if not method.shut[name] then
            storm:progress(method.name .. ": " .. name)
            doors[name](storm, pool)
            storm:check_arena()
        end
        if not storm:goes_on() then
            break
        end
    end
    storm:progress("the end of the killer")
    storm:count("kills", (killer.stop()))
    pool:close()
    pool:join()
end

tools.run("kill_pool", function(storm)
    main = mp.getpid()
    local names = {}
    for name in pairs(doors) do
        names[#names + 1] = name
    end
    table.sort(names)
    tools.start_server()
    local before = tools.footprint()
    local i = math.random(#METHODS)
    while storm:goes_on() do
        i = i % #METHODS + 1
        context = mp.get_context(METHODS[i].name)
        rage(storm, names, METHODS[i])
    end
    storm:progress("the look at what is left")
    storm:nothing_left(before)
end)
