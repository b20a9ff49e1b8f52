--- How fast mplua is: one JSON line per figure.
--
--   mplua scripts/bench/bench.lua
--
-- The figures have the names, the work and the units of python_twin.py
-- beside this file, group by group, so that the two can be compared line by
-- line. Where a child must wait for its start, both use an event.
--
-- BENCH_ONLY picks groups by name: alternatives divided by "|", each found
-- anywhere in the name unless "^" or "$" ties it ("pool$|queues").

local mp = require "mp"

local now = mp.monotonic
local groups = {}
local this = {}

--- Adds a group of figures, run in the order of the file.
local function group(name, body)
    groups[#groups + 1] = {name = name, body = body}
end

local function emit(name, value, unit)
    io.write(string.format(
        '{"peer":"mplua","bench":"%s","value":%.9g,"unit":"%s"}\n',
        name, value, unit))
    io.flush()
end

local function timed(f, ...)
    local start = now()
    f(...)
    return now() - start
end

local per_second = {us = 1e6, ns = 1e9, ms = 1e3}

--- Emits what one of `n` rounds cost.
local function emit_each(name, n, seconds, unit)
    emit(name, seconds / n * per_second[unit], unit)
end

--- Emits how many of `n` went through in a second.
local function emit_rate(name, n, seconds, unit)
    emit(name, n / seconds, unit)
end

-- Jobs ------------------------------------------------------------------

local function nothing() end

local function square(x)
    return x * x
end

local function polynomial(n)
    local sum = 0
    for i = 0, n - 1 do
        sum = sum + i + i * i + i * i * i
    end
    return sum
end

--- Starts `target` in a process of its own.
local function spawn(target, ...)
    local p = mp.Process{target = target, args = table.pack(...)}
    p:start()
    return p
end

local function start_and_join(n)
    for _ = 1, n do
        spawn(nothing):join()
    end
end

local function sum_values(iterator)
    local sum = 0
    for _, v in iterator do
        sum = sum + v
    end
    return sum
end

-- Processes and pools ---------------------------------------------------

group("proc_start_join", function()
    emit_each("proc_start_join", 200, timed(start_and_join, 200), "us")
end)

--- Starts and joins by another method; its first start, which may make a
-- server or try a program out, is not counted.
local function start_and_join_by(method, n)
    local Process = mp.get_context(method).Process
    local function run(times)
        for _ = 1, times do
            local p = Process{target = nothing}
            p:start()
            p:join()
        end
    end
    run(1)
    return timed(run, n)
end

group("proc_start_join_forkserver", function()
    emit_each("proc_start_join_forkserver", 200,
        start_and_join_by("forkserver", 200), "us")
end)

group("proc_start_join_spawn", function()
    emit_each("proc_start_join_spawn", 100, start_and_join_by("spawn", 100),
        "us")
end)

group("thread_start_join", function()
    emit_each("thread_start_join", 2000, start_and_join_by("thread", 2000),
        "us")
end)

group("pool_create_close_join", function()
    local seconds = timed(function()
        for _ = 1, 5 do
            local pool = mp.Pool(2)
            pool:close()
            pool:join()
        end
    end)
    emit_each("pool_create_close_join", 5, seconds, "us")
end)

--- How much faster two workers are. One comparison is over in 60 ms, which
-- is at the mercy of where the kernel puts the workers: several are added up.
local function compute(pool)
    local n, jobs, rounds = 1000000, 4, 5
    local sizes = {}
    for i = 1, jobs do
        sizes[i] = n
    end
    local alone, together = 0, 0
    for _ = 1, rounds do
        alone = alone + timed(function()
            for i = 1, jobs do
                polynomial(sizes[i])
            end
        end)
        together = together + timed(pool.map, pool, polynomial, sizes, 1)
    end
    emit_each("compute_serial", jobs * rounds, alone, "ms")
    emit("compute_speedup_2p", alone / together, "x")
end

group("threadpool", function()
    local pool <close> = mp.ThreadPool(2)
    pool:map(square, mp.range(100))
    emit_rate("threadpool_map_100k", 100000,
        timed(pool.map, pool, square, mp.range(100000)), "tasks/s")
end)

group("pool", function()
    local pool <close> = mp.Pool(2)
    pool:map(square, mp.range(100))
    emit_rate("pool_map_100k", 100000,
        timed(pool.map, pool, square, mp.range(100000)), "tasks/s")
    emit_rate("pool_map_10k_c1", 10000,
        timed(pool.map, pool, square, mp.range(10000), 1), "tasks/s")
    emit_each("pool_apply", 1000, timed(function()
        for i = 0, 999 do
            pool:apply(square, {i})
        end
    end), "us")
    emit_rate("pool_imap_unordered_c1", 10000, timed(function()
        sum_values(pool:imap_unordered(square, mp.range(10000), 1))
    end), "tasks/s")
    compute(pool)
end)

group("executor", function()
    local ex <close> = mp.futures.ProcessPoolExecutor(2)
    sum_values(ex:map(square, mp.range(100)))
    emit_rate("executor_map_c1", 10000, timed(function()
        sum_values(ex:map(square, mp.range(10000), {chunksize = 1}))
    end), "tasks/s")
    emit_rate("executor_submit", 10000, timed(function()
        local futures = {}
        for i = 1, 10000 do
            futures[i] = ex:submit(square, i)
        end
        for i = 1, 10000 do
            futures[i]:result()
        end
    end), "tasks/s")
end)

--- How much longer a map takes with its controls on.
group("pool_controls", function()
    local pool <close> = mp.Pool(2)
    local xs, plain, controlled = mp.range(200000), 0, 0
    local options = {
        timeout = 10, retries = 1, progress = function() end,
    }
    pool:map(square, xs)
    for _ = 1, 5 do
        plain = plain + timed(pool.map, pool, square, xs)
        controlled = controlled + timed(pool.map, pool, square, xs, options)
    end
    emit("pool_map_controls", controlled / plain, "x plain")
end)

-- Queues ----------------------------------------------------------------

local function produce(go, done, queue, message, n)
    go:wait()
    for _ = 1, n do
        queue:put(message)
    end
    done:wait()
end

--- Messages per second from one process to another.
local function queue_rate(queue, message, n)
    local go, done = mp.Event(), mp.Event()
    local producer = spawn(produce, go, done, queue, message, n)
    local seconds = timed(function()
        go:set()
        for _ = 1, n do
            queue:get()
        end
    end)
    done:set()
    producer:join()
    return n / seconds
end

group("queues", function()
    emit("queue_int", queue_rate(mp.Queue(), 7, 40000), "msgs/s")
    emit("queue_1k", queue_rate(mp.Queue(), ("x"):rep(1024), 20000),
        "msgs/s")
    emit("queue_1m", queue_rate(mp.Queue(), ("x"):rep(1 << 20), 200), "MB/s")
    emit("simplequeue_int", queue_rate(mp.SimpleQueue(), 7, 40000), "msgs/s")
end)

-- Locks and values ------------------------------------------------------

local function increment(value, barrier, n)
    barrier:wait()
    for _ = 1, n do
        local lock = value:get_lock()
        lock:acquire()
        value.value = value.value + 1
        lock:release()
    end
end

local function add(value, barrier, n)
    barrier:wait()
    for _ = 1, n do
        value:add(1)
    end
end

--- Two processes raise one value, `n` times each; operations per second.
local function counting_rate(job, n)
    local value, barrier = mp.Value("q", 0), mp.Barrier(3)
    local first = spawn(job, value, barrier, n)
    local second = spawn(job, value, barrier, n)
    barrier:wait()
    local seconds = timed(function()
        first:join()
        second:join()
    end)
    assert(value.value == 2 * n, "an increment was lost")
    return 2 * n / seconds
end

local function acquire_and_release(lock, n)
    for _ = 1, n do
        lock:acquire()
        lock:release()
    end
end

group("locks", function()
    local n = 200000
    emit_each("lock_uncontended", n,
        timed(acquire_and_release, mp.Lock(), n), "ns")
    emit_each("semaphore_uncontended", n,
        timed(acquire_and_release, mp.Semaphore(1), n), "ns")
    emit("value_inc_2p", counting_rate(increment, 40000), "ops/s")
    -- Python has no such operation: it is held against its value_inc_2p,
    -- with enough rounds to make the end of two processes unimportant.
    emit("value_add_2p", counting_rate(add, 1000000), "ops/s")
end)

local function write_all(array, n)
    for i = 1, n do
        array[i] = 1.5
    end
end

local function read_all(array, n)
    local x
    for i = 1, n do
        x = array[i]
    end
    return x
end

local function array_figures(name, array, n)
    emit_each(name .. "_write", n, timed(write_all, array, n), "ns")
    emit_each(name .. "_read", n, timed(read_all, array, n), "ns")
end

group("arrays", function()
    local n = 1000000
    array_figures("array", mp.Array("d", n), 200000)
    array_figures("array_raw", mp.Array("d", n, {lock = false}), n)
end)

-- Managers --------------------------------------------------------------

local function set_all(dict, n, rounds)
    for _ = 1, rounds do
        for i = 0, n - 1 do
            dict[i] = i
        end
    end
end

local function get_all(dict, n, rounds)
    local x
    for _ = 1, rounds do
        for i = 0, n - 1 do
            x = dict[i]
        end
    end
    return x
end

local function append_all(list, n)
    for i = 0, n - 1 do
        list:append(i)
    end
end

group("manager", function()
    local n, rounds = 3000, 20
    local m <close> = mp.Manager()
    local dict, list = m:dict(), m:list()
    emit_rate("manager_dict_set", n * rounds,
        timed(set_all, dict, n, rounds), "ops/s")
    emit_rate("manager_dict_get", n * rounds,
        timed(get_all, dict, n, rounds), "ops/s")
    emit_rate("manager_list_append", n * rounds,
        timed(append_all, list, n * rounds), "ops/s")
end)

-- Round trips -----------------------------------------------------------

local function answer_events(mine, other, n)
    for _ = 1, n do
        mine:wait()
        mine:clear()
        other:set()
    end
end

local function call_events(mine, other, n)
    for _ = 1, n do
        other:set()
        mine:wait()
        mine:clear()
    end
end

local function take_turns(condition, turn, me, n)
    for _ = 1, n do
        condition:acquire()
        while turn.value ~= me do
            condition:wait()
        end
        turn.value = 1 - me
        condition:notify()
        condition:release()
    end
end

local function meet(barrier, n)
    for _ = 1, n do
        barrier:wait()
    end
end

local function echo(connection, n)
    for _ = 1, n do
        connection:send(connection:recv())
    end
end

local function call_echo(connection, n)
    for _ = 1, n do
        connection:send(1)
        connection:recv()
    end
end

local function sink(connection, n)
    for _ = 1, n do
        connection:recv_bytes()
        connection:send(1)
    end
end

local function fill_sink(connection, data, n)
    for _ = 1, n do
        connection:send_bytes(data)
        connection:recv()
    end
end

group("pipes", function()
    local n, mine, other = 5000, mp.Pipe()
    local p = spawn(echo, other, n + 1)
    call_echo(mine, 1)
    emit_each("pipe_pingpong", n, timed(call_echo, mine, n), "us")
    p:join()

    local data, times = ("x"):rep(64 << 20), 4
    mine, other = mp.Pipe()
    p = spawn(sink, other, times + 1)
    fill_sink(mine, data, 1)
    emit_rate("pipe_64m", 64 * times, timed(fill_sink, mine, data, times),
        "MB/s")
    p:join()
end)

group("sync", function()
    local n = 1000
    local left, right = mp.Event(), mp.Event()
    local p = spawn(answer_events, right, left, n + 1)
    call_events(left, right, 1)
    emit_each("event_pingpong", n, timed(call_events, left, right, n), "us")
    p:join()

    local condition = mp.Condition()
    local turn = mp.Value("i", 0, {lock = false})
    p = spawn(take_turns, condition, turn, 1, n + 1)
    take_turns(condition, turn, 0, 1)
    emit_each("condition_pingpong", n,
        timed(take_turns, condition, turn, 0, n), "us")
    p:join()

    local barrier = mp.Barrier(2)
    p = spawn(meet, barrier, n + 1)
    meet(barrier, 1)
    emit_each("barrier_2p", n, timed(meet, barrier, n), "us")
    p:join()
end)

-- A generator of a million ----------------------------------------------

--- Peak resident memory of this process in MB.
local function peak_mb()
    for line in io.lines("/proc/self/status") do
        local kb = line:match("^VmHWM:%s*(%d+)")
        if kb then
            return tonumber(kb) / 1024
        end
    end
    error("no VmHWM in /proc/self/status")
end

--- An iterator over 0 .. n-1; `count.drawn` says how many were taken.
local function generate(n, count)
    local next_value = 0
    count.drawn = 0
    return function()
        if next_value < n then
            next_value = next_value + 1
            count.drawn = next_value
            return next_value - 1
        end
    end
end

--- The figures of a generator of a million items. It wants an interpreter
-- of its own: only in a fresh one does the peak mean something.
local function imap_figures()
    local n, count = 1000000, {}
    local pool <close> = mp.Pool(2)
    local base = peak_mb()
    local seconds = timed(function()
        sum_values(pool:imap(square, generate(n, count), 1000))
    end)
    emit("imap_gen_1m", seconds * 1e3, "ms")
    emit("imap_gen_1m_peak", peak_mb() - base, "MB")

    local results = pool:imap(square, generate(n, count), 1000)
    results:next()
    mp.sleep(1)
    emit("imap_drawn_by_idle_consumer", count.drawn, "items")
    emit("imap_idle_consumer_peak", peak_mb() - base, "MB")
    sum_values(results)

    seconds = timed(function()
        sum_values(pool:imap(square, generate(n, count), 1))
    end)
    emit("imap_gen_1m_c1", seconds * 1e3, "ms")
end

local function quoted(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

group("imap_gen", function()
    local first = 0
    while this.arg[first - 1] do
        first = first - 1
    end
    local ok, how, code = os.execute(string.format("%s %s --imap",
        quoted(this.arg[first]), quoted(this.arg[0])))
    if not ok then
        error(string.format("--imap ended with %s %d", how, code))
    end
end)

group("heap_200mb", function()
    local heap = {}
    for i = 1, 200000 do
        heap[i] = ("x"):rep(1000)
    end
    emit_each("proc_start_join_200mb", 20, timed(start_and_join, 20), "us")
    assert(#heap == 200000)
end)

-- Memory that a worker does not share -------------------------------------

--- MB of this process's pages that no other process has.
local function private_mb()
    for line in io.lines("/proc/self/smaps_rollup") do
        local kb = line:match("^Private_Dirty:%s*(%d+)")
        if kb then
            return kb / 1024
        end
    end
    error("no Private_Dirty in /proc/self/smaps_rollup")
end

--- Reads one item of the heap, and makes some garbage.
local function read_heap(x)
    local heap, list = mp.worker.state.heap, {}
    local item = heap[x % #heap + 1]
    for i = 1, 10 do
        list[i] = {item[1], "garbage " .. i}
    end
    return #list
end

group("worker_private", function()
    local heap, full = {}, collectgarbage("count") + 200 * 1024
    while collectgarbage("count") < full do
        for _ = 1, 1000 do
            heap[#heap + 1] = {#heap, "item " .. #heap % 1000}
        end
    end
    local pool <close> = mp.Pool{processes = 2, initializer = function()
        mp.worker.state.heap = heap
    end}
    pool:map(read_heap, mp.range(200000))
    local most = 0
    for _, mb in ipairs(pool:map(private_mb, mp.range(8), 1)) do
        most = math.max(most, mb)
    end
    emit("worker_private_mb", most, "MB")
end)

-- The run ---------------------------------------------------------------

local function wanted(name, only)
    if only == "" then
        return true
    end
    for alternative in only:gmatch("[^|]+") do
        if name:find(alternative) then
            return true
        end
    end
    return false
end

--- Runs the wanted groups; one that fails is reported and costs the others
-- nothing.
local function main(arguments)
    this.arg = arguments
    if arguments[1] == "--imap" then
        imap_figures()
        return true
    end
    local only = os.getenv("BENCH_ONLY") or ""
    local good = true
    for _, g in ipairs(groups) do
        if wanted(g.name, only) then
            local ok, problem = xpcall(g.body, function(e)
                return debug.traceback(tostring(e), 2)
            end)
            if not ok then
                good = false
                io.stderr:write("bench: ", g.name, ": ", problem, "\n")
            end
        end
    end
    return good
end

os.exit(main(arg), true)
