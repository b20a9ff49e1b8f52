-- Executors of mp.futures: how they are made, their map, and their end.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local futures = mp.futures
local Executor = futures.ProcessPoolExecutor
local failure, timed = tools.failure, tools.timed
local square, sleep = tools.square, tools.sleep

--- What an iterator yields, as a list, with n.
local function collect(it, ...)
    local list, n = {}, 0
    for i, v in it, ... do
        n = n + 1
        assert.are.equal(n, i)
        list[n] = v
    end
    list.n = n
    return list
end

describe("ProcessPoolExecutor(...)", function()
    it("FUT-01 takes Python's arguments, by place or by name", function()
        local gate = mp.get_context("fork")
        local function begin(a, b)
            require "mp".worker.state.sum = a + b
        end
        local function sum()
            return require "mp".worker.state.sum
        end
        local ex <close> = Executor(2, gate, begin, {1, 2},
            {max_tasks_per_child = 100})
        assert.are.equal(3, ex:submit(sum):result())
        assert.are.equal("<ProcessPoolExecutor state=run workers=2>",
            tostring(ex))
        local named <close> = Executor{
            max_workers = 1, mp_context = gate, initializer = begin,
            initargs = {3, 4}, max_tasks_per_child = 100,
        }
        assert.are.equal(7, named:submit(sum):result())
        assert.are.equal(1, tools.count_processes(named._pool, 10))
    end)

    it("FUT-01 has cpu_count() workers by default", function()
        local ex <close> = Executor()
        assert.are.equal(mp.cpu_count(), ex._pool._size)
    end)

    it("FUT-01 works by each start method", function()
        for _, method in ipairs {"forkserver", "spawn", "thread"} do
            local ex <close> = Executor(1, mp.get_context(method))
            assert.are.equal(25, ex:submit(square, 5):result())
        end
    end)

    it("FUT-01 refuses wrong arguments, with Python's words (E)", function()
        for _, case in ipairs {
            {"ValueError", "max_workers must be greater than 0", 0},
            {"ValueError", "max_workers must be greater than 0", -1},
            {"ValueError", "max_workers must be greater than 0", 1.5},
            {"TypeError", "max_workers must be greater than 0", "2"},
            {"TypeError", "context must be what get_context returns", 1, 5},
            {"TypeError", "initializer must be a callable", 1, nil, 5},
            {"TypeError", "initargs must be a list", 1, nil, square, 5},
            {"TypeError", "options", 1, nil, nil, nil, 5},
            {"TypeError", "max_tasks_per_child must be an integer",
                {max_tasks_per_child = 1.5}},
            {"TypeError", "max_tasks_per_child must be an integer",
                {max_tasks_per_child = "1"}},
            {"ValueError", "max_tasks_per_child must be >= 1", 1, nil, nil,
                nil, {max_tasks_per_child = 0}},
            {"TypeError", "unknown argument 'workers'", {workers = 1}},
            {"TypeError", "nothing can follow a table", {}, 1},
            {"TypeError", "too many arguments", 1, nil, nil, nil, nil, 6},
        } do
            local _, text = failure(case[1], Executor,
                table.unpack(case, 3, #case))
            assert.matches(case[2], text, 1, true)
            assert.matches("^ProcessPoolExecutor: ", text)
        end
    end)

    it("FUT-01 replaces a worker after so many calls", function()
        local ex <close> = Executor{max_workers = 1, max_tasks_per_child = 2}
        local seen = {}
        for i = 1, 6 do
            seen[i] = ex:submit(mp.getpid):result()
        end
        for i = 1, 5, 2 do
            assert.are.equal(seen[i], seen[i + 1])
            assert.are_not.equal(seen[i + 1], seen[i + 2])
        end
    end)

    it("cannot be used by another process, nor sent to one", function()
        local ex <close> = Executor(1)
        failure("PicklingError", ex.submit, ex, function() return ex end)
        local q <close> = mp.SimpleQueue()
        local p <close> = mp.get_context("fork").Process{target = function()
            for _, method in ipairs {"submit", "map"} do
                local ok, e = pcall(ex[method], ex, square, {1})
                q:put(ok or e.kind .. ": " .. e.message)
            end
            ex:shutdown()
        end}
        p:start()
        for _, method in ipairs {"submit", "map"} do
            assert.are.equal("StateError: " .. method .. ": this executor "
                .. "belongs to the process that made it", q:get())
        end
        p:join()
        assert.are.equal(0, p.exitcode)
        assert.are.equal(1, ex:submit(square, 1):result())
    end)
end)

describe("map of an executor", function()
    it("FUT-03 yields index and result, in order", function()
        local ex <close> = Executor(2)
        assert.are.same({1, 4, 9, n = 3}, collect(ex:map(square, {1, 2, 3})))
        assert.are.same({0, 1, 4, n = 3}, collect(ex:map(square, mp.range(3),
            {chunksize = 2})))
        assert.are.same({1, 4, 9, n = 3}, collect(ex:map(square,
            tools.counter(3))))
        assert.are.same({n = 0}, collect(ex:map(square, {})))
        assert.are.same({n = 2}, collect(ex:map(function() end, {1, 2})))
    end)

    it("FUT-03 takes several iterables, till the first ends", function()
        local ex <close> = Executor(2)
        local function join(...)
            return select("#", ...) .. ":"
                .. table.concat(table.pack(...), ",")
        end
        assert.are.same({"3:1,10,a", "3:2,12,b", n = 2}, collect(ex:map(join,
            tools.counter(), mp.range(10, 99, 2), {"a", "b"})))
        assert.are.same({n = 0}, collect(ex:map(join, {}, tools.counter())))
        local function first(a, b)
            return a, b
        end
        assert.are.same({nil, 2, n = 2}, collect(ex:map(first,
            {nil, 2, n = 2}, {3, nil, n = 2})))
        local array <close> = mp.Array("i", {5, 6})
        assert.are.same({35, 48, n = 2}, collect(ex:map(function(a, b)
            return a * b
        end, array, {7, 8, 9})))
        local n = 0
        for _, v in ex:map(function(line, i) return #line + i end,
                mp.range(0), io.lines("LICENSE")) do
            n = n + v
        end
        assert.are.equal(0, n)
        for i, v in ex:map(string.len, io.lines("LICENSE")) do
            n = i > 1 and n or v
        end
        assert.is_true(n > 0)
    end)

    it("FUT-03 refuses wrong arguments (E)", function()
        local ex <close> = Executor(1)
        local function refused(kind, text, ...)
            local _, message = failure(kind, ex.map, ex, square, ...)
            assert.matches(text, message, 1, true)
        end
        refused("TypeError", "map: at least one iterable expected")
        refused("TypeError", "at least one iterable", {chunksize = 1})
        refused("TypeError", "map: an iterable is a list", 5)
        refused("TypeError", "map: an iterable is a list", {1}, nil, {2})
        refused("ValueError", "chunksize must be >= 1, got ", {1},
            {chunksize = 0})
        refused("ValueError", "chunksize must be >= 1, got ", {1},
            {chunksize = -1})
        refused("ValueError", "buffersize must be nil or > 0", {1},
            {buffersize = 0})
        refused("TypeError", "buffersize must be nil or > 0", {1},
            {buffersize = "2"})
        refused("TypeError", "unknown argument 'chunk'", {1}, {chunk = 1})
        refused("ValueError", "NaN", {1}, {timeout = 0 / 0})
        refused("TypeError", "timeout", {1}, {timeout = "1"})
    end)

    it("FUT-03 T-F-03 counts its timeout from the call", function()
        local ex <close> = Executor(2)
        local ran <close> = mp.Value("i", 0)
        local gate <close> = mp.Event()
        local it = ex:map(function(i)
            ran:add(1)
            return i == 1 or gate:wait(20)
        end, {1, 2, 3, 4, 5, 6}, {timeout = 0.1, chunksize = 1})
        assert.are.same({1, true}, {it:next()})
        local took = timed(function()
            local _, text = failure("TimeoutError", it)
            assert.are.equal("map: no result in time", text)
        end)
        assert.is_true(took < 5)
        assert.is_nil(it())
        gate:set()
        ex:shutdown()
        assert.is_true(ran.value <= 3, ran.value) -- the rest was cancelled
        local late <close> = Executor(1)
        it = late:map(square, {1, 2}, {timeout = 5})
        assert.are.same({1, 1}, {it:next(5)})
        assert.are.same({2, 4}, {it:next()})
        assert.is_nil(it:next())
    end)

    it("FUT-03 ends at the first error in order", function()
        local ex <close> = Executor(2)
        local ran <close> = mp.Value("i", 0)
        local it = ex:map(function(x)
            ran:add(1)
            if x == 3 then
                error("no threes", 0)
            end
            return x
        end, tools.counter(), {chunksize = 1})
        assert.are.same({1, 1}, {it()})
        assert.are.same({2, 2}, {it()})
        local e = failure("RemoteError", it)
        assert.are.same({"no threes", 3}, {e.value, e.index})
        assert.is_nil(it())
        ex:shutdown()
        assert.is_true(ran.value < 5000)
    end)

    it("FUT-03 begins at once, and is finished by shutdown", function()
        local ex <close> = Executor(2)
        local ran <close> = mp.Value("i", 0)
        local it = ex:map(function(x) ran:add(1) return x end,
            mp.range(3000))
        helper.eventually(function() return ran.value > 0 end)
        ex:shutdown()
        assert.are.equal(3000, ran.value)
        assert.are.equal(2999, collect(it)[3000])
    end)

    it("FUT-03 PAIN-10 draws its input no further than told", function()
        local ex <close> = Executor(2)
        for _, size in ipairs {1, 3, 100} do
            local state = {}
            local it = ex:map(square, tools.counter(nil, state),
                {buffersize = size})
            for taken = 0, 10 do
                assert.is_true(state.at - taken <= size, state.at)
                assert.are.same({taken + 1, (taken + 1) ^ 2}, {it()})
            end
            getmetatable(it).__close(it)
            assert.is_nil(it())
        end
        local state = {}
        for i in ex:map(square, tools.counter(nil, state)) do
            if i == 10 then
                break
            end
        end
        assert.is_true(state.at < 5000)
    end)

    it("raises what its iterable raises", function()
        local ex <close> = Executor(1)
        local it = ex:map(square, tools.broken_at(3, "broken"), {1, 2, 3, 4})
        failure("RemoteError", it) -- square takes one
        it = ex:map(square, tools.broken_at(3, "broken"))
        it()
        it()
        assert.are.same({false, "broken"}, {pcall(it)})
        assert.are.equal(1, ex:submit(square, 1):result())
    end)
end)

describe("shutdown", function()
    it("FUT-04 finishes what was submitted, and is done twice", function()
        local ex = Executor(2)
        local list = {}
        for i = 1, 20 do
            list[i] = ex:submit(square, i)
        end
        ex:shutdown()
        ex:shutdown(true)
        for i = 1, 20 do
            assert.is_true(list[i]:done())
            assert.are.equal(i * i, list[i]:result())
        end
        assert.are.equal("<ProcessPoolExecutor state=shutdown workers=2>",
            tostring(ex))
    end)

    it("FUT-02 FUT-04 means no more work (E)", function()
        local ex = Executor(1)
        ex:shutdown()
        for _, method in ipairs {"submit", "map"} do
            local _, text = failure("StateError", ex[method], ex, square,
                {1})
            assert.are.equal("cannot schedule new futures after shutdown",
                text)
        end
        failure("TypeError", ex.shutdown, ex, true, 5)
        failure("TypeError", ex.shutdown, ex, {cancel = true})
        failure("TypeError", ex.shutdown, ex, true, {}, 1)
    end)

    it("FUT-04 need not wait", function()
        local ex = Executor(2)
        local gate <close> = mp.Event()
        local f = ex:submit(function() gate:wait(20) return "through" end)
        local it = ex:map(square, {1, 2, 3})
        ex:shutdown(false)
        assert.is_false(f:done())
        gate:set()
        assert.are.equal("through", f:result())
        assert.are.same({1, 4, 9, n = 3}, collect(it))
        ex:shutdown{wait = true}
    end)

    it("FUT-04 T-F-05 cancels what has not begun", function()
        local ex = Executor(1)
        local gate <close> = mp.Event()
        local ran <close> = mp.Value("i", 0)
        local function job()
            ran:add(1)
            gate:wait(20)
            return "ran"
        end
        local first = ex:submit(job)
        helper.eventually(function() return first:running() end)
        local order, list = {}, {}
        for i = 1, 8 do
            list[i] = ex:submit(job)
            list[i]:add_done_callback(function() table.insert(order, i) end)
        end
        ex:submit(job) -- and nobody keeps its future
        collectgarbage()
        collectgarbage()
        ex:shutdown(false)
        assert.is_false(list[1]:cancelled())
        ex:shutdown(false, {cancel_futures = true})
        for i = 1, 8 do
            assert.is_true(list[i]:cancelled())
        end
        assert.are.same({1, 2, 3, 4, 5, 6, 7, 8}, order)
        gate:set()
        assert.are.equal("ran", first:result())
        ex:shutdown()
        assert.are.equal(1, ran.value)
    end)

    it("FUT-04 cancels the rest of a map", function()
        local ex = Executor(1)
        local it = ex:map(square, tools.counter(), {chunksize = 1})
        assert.are.same({1, 1}, {it()})
        assert.are.same({2, 4}, {it:next(5)})
        ex:shutdown{cancel_futures = true}
        local e
        repeat
            local ok, i, v = pcall(it)
            e = not ok and i
            assert.is_true(ok and v == i * i or e.kind == "Cancelled")
        until e
        assert.is_nil(it())
    end)

    it("FUT-04 cancels nothing of a map that is done", function()
        local ex = Executor(2)
        local it = ex:map(square, {1, 2, 3})
        helper.eventually(function() return ex._pool:stats().done == 3 end)
        ex:shutdown{cancel_futures = true}
        assert.are.same({1, 4, 9, n = 3}, collect(it))
        assert.is_nil(it())
    end)

    it("FUT-04 is the end of its block; by an error at once", function()
        local f, pids
        do
            local ex <close> = Executor(2)
            f = ex:submit(sleep, 0.05)
        end
        assert.are.equal(0.05, f:result())
        local queued
        assert.is_true(timed(function()
            pcall(function()
                local ex <close> = Executor(1)
                pids = ex._pool._core:pids()
                f = ex:submit(sleep, 60)
                helper.eventually(function() return f:running() end)
                queued = ex:submit(square, 1)
                error("out")
            end)
        end) < 5)
        assert.is_true(tools.all_gone(pids))
        failure("PoolTerminated", f.result, f)
        failure("Cancelled", queued.result, queued)
    end)

    it("FUT-05 by terminate_workers or kill_workers is at once", function()
        for _, method in ipairs {"terminate_workers", "kill_workers"} do
            local ex = Executor(1)
            local pids = ex._pool._core:pids()
            local busy = ex:submit(sleep, 60)
            helper.eventually(function() return busy:running() end)
            local queued = ex:submit(square, 1)
            assert.is_true(timed(ex[method], ex) < 1)
            assert.is_true(tools.all_gone(pids))
            failure("PoolTerminated", busy.result, busy)
            assert.is_true(queued:cancelled())
            local _, text = failure("StateError", ex.submit, ex, square, 1)
            assert.are.equal("cannot schedule new futures after shutdown",
                text)
            ex[method](ex)
            ex:shutdown()
        end
    end)

    it("PAIN-24 never hangs, with workers that are replaced", function()
        for round = 1, 8 do
            local ex = Executor{max_workers = 2, max_tasks_per_child = 1}
            local list = {}
            for i = 1, 12 do
                list[i] = ex:submit(i % 5 == round % 5 and os.exit or square,
                    i)
            end
            if round % 2 == 0 then
                ex:shutdown(false)
            end
            ex:shutdown(true, {cancel_futures = round % 4 == 1})
            for i = 1, 12 do
                local f = list[i]
                assert.is_true(f:done())
                if i % 5 == round % 5 and not f:cancelled() then
                    assert.are.equal(i,
                        failure("WorkerLost", f.result, f).exitcode)
                elseif not f:cancelled() then
                    assert.are.equal(i * i, f:result())
                end
            end
        end
    end)

    it("by the collector stops what nobody waits for", function()
        local pids
        do
            local ex = Executor(2)
            pids = ex._pool._core:pids()
            ex:submit(sleep, 60)
        end
        collectgarbage()
        collectgarbage()
        tools.soon_gone(pids)
    end)
end)
