-- mp.futures: Future, wait, as_completed, and what executors do.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local futures = mp.futures
local Future = futures.Future
local failure, timed = tools.failure, tools.timed
local square, sleep = tools.square, tools.sleep

--- An executor of two processes.
local function two()
    return futures.ProcessPoolExecutor(2)
end

--- A call that ends when the gate is open.
local function held(ex, gate)
    return ex:submit(function()
        gate:wait(20)
        return "through"
    end)
end

--- A future that is done.
local function resolved(value)
    local f = Future()
    f:set_result(value)
    return f
end

describe("Future()", function()
    it("FUT-07 is pending, running, finished: who made it says so", function()
        local f = Future()
        assert.are.same({false, false, false},
            {f:running(), f:done(), f:cancelled()})
        assert.are.equal("<Future state=pending>", tostring(f))
        assert.is_true(f:set_running_or_notify_cancel())
        assert.are.same({true, false, false},
            {f:running(), f:done(), f:cancelled()})
        assert.are.equal("<Future state=running>", tostring(f))
        f:set_result(1, nil, "three")
        assert.are.same({false, true, false},
            {f:running(), f:done(), f:cancelled()})
        assert.are.equal("<Future state=finished returned number>",
            tostring(f))
        assert.are.same({1, nil, "three", n = 3}, table.pack(f:result()))
        assert.is_nil(f:exception())
    end)

    it("FUT-08 raises what was set as its error, each time", function()
        local f = Future()
        local e = {"whatever"}
        f:set_exception(e)
        for _ = 1, 2 do
            assert.are.same({false, e}, {pcall(f.result, f)})
        end
        assert.are.equal(e, f:exception())
        assert.are.equal("<Future state=finished raised table>", tostring(f))
    end)

    it("FUT-08 does not wait longer than asked", function()
        local f = Future()
        for _, method in ipairs {"result", "exception"} do
            local _, text
            local took = timed(function()
                _, text = failure("TimeoutError", f[method], f, 0.05)
            end)
            assert.is_true(took >= 0.05 and took < 1)
            assert.are.equal(method .. ": no result in time", text)
            failure("TimeoutError", f[method], f, 0)
            failure("TimeoutError", f[method], f, -1)
            failure("ValueError", f[method], f, 0 / 0)
            failure("TypeError", f[method], f, "1")
        end
    end)

    it("FUT-08 that nothing can complete is not awaited for ever", function()
        local f = Future()
        local _, text = failure("StateError", f.result, f)
        assert.matches("nothing in this process can complete it", text, 1,
            true)
        failure("StateError", futures.wait, {f})
        failure("StateError", futures.as_completed({f}))
    end)

    it("FUT-06 is cancelled before it runs, and never after", function()
        local f = Future()
        assert.is_true(f:cancel())
        assert.is_true(f:cancel())
        assert.are.same({false, true, true},
            {f:running(), f:done(), f:cancelled()})
        assert.are.equal("<Future state=cancelled>", tostring(f))
        for _, method in ipairs {"result", "exception"} do
            local _, text = failure("Cancelled", f[method], f)
            assert.are.equal(method .. ": the future was cancelled", text)
        end
        assert.is_false(f:set_running_or_notify_cancel())
        assert.is_true(f:cancelled())
        local running, finished = Future(), resolved(1)
        running:set_running_or_notify_cancel()
        assert.is_false(running:cancel())
        assert.is_false(finished:cancel())
    end)

    it("FUT-10 is completed once (E)", function()
        local f = resolved(5)
        for _, method in ipairs {"set_result", "set_exception"} do
            local _, text = failure("StateError", f[method], f, 1)
            assert.are.equal(
                "FINISHED: <Future state=finished returned number>", text)
        end
        assert.are.equal(5, f:result())
        local cancelled = Future()
        cancelled:cancel()
        failure("StateError", cancelled.set_result, cancelled, 1)
        failure("StateError", cancelled.set_exception, cancelled, "x")
        failure("TypeError", Future().set_exception, Future(), nil)
    end)

    it("FUT-10 runs once (E)", function()
        for _, f in ipairs {resolved(1), Future()} do
            if not f:done() then
                f:cancel()
                f:set_running_or_notify_cancel()
            end
            local _, text = failure("StateError",
                f.set_running_or_notify_cancel, f)
            assert.matches("^Future in unexpected state: <Future state=",
                text)
        end
        local running = Future()
        running:set_running_or_notify_cancel()
        failure("StateError", running.set_running_or_notify_cancel, running)
    end)

    it("stays in its process, and refuses wrong calls", function()
        local f = Future()
        assert.matches("cannot pickle a Future",
            helper.failure("PicklingError", mp.pickle.dumps, f))
        failure("TypeError", f.result)
        failure("TypeError", f.result, {})
        failure("TypeError", Future, 1)
        failure("TypeError", f.add_done_callback, f)
        failure("TypeError", f.add_done_callback, f, 5)
    end)
end)

describe("add_done_callback", function()
    it("FUT-09 T-F-07 calls in order, and at once when it is done", function()
        local f, got = Future(), {}
        for i = 1, 3 do
            f:add_done_callback(function(future)
                table.insert(got, {i, future == f, future:result()})
            end)
        end
        f:set_result(9)
        assert.are.same({{1, true, 9}, {2, true, 9}, {3, true, 9}}, got)
        f:add_done_callback(function() table.insert(got, "late") end)
        assert.are.equal("late", got[4])
        assert.are.equal(4, #got)
    end)

    it("FUT-09 calls for an error and for a cancel, too", function()
        local got = {}
        local function note(f)
            table.insert(got, f:cancelled() and "cancelled" or f:exception())
        end
        local failed, cancelled = Future(), Future()
        failed:add_done_callback(note)
        cancelled:add_done_callback(note)
        failed:set_exception("oh")
        cancelled:cancel()
        cancelled:cancel()
        cancelled:set_running_or_notify_cancel()
        assert.are.same({"oh", "cancelled"}, got)
    end)

    it("FUT-09 T-F-07 reports an error in one, and goes on", function()
        local run = tools.script [[
            local mp = require "mp"
            local f = mp.futures.Future()
            f:add_done_callback(function() error("first", 0) end)
            f:add_done_callback(function() print("second") end)
            f:set_result(1)
            f:add_done_callback(function() error("late", 0) end)
            local ex <close> = mp.futures.ProcessPoolExecutor(1)
            f = ex:submit(math.abs, -3)
            f:add_done_callback(function() error("third", 0) end)
            print(f:result())
        ]]
        assert.are.equal("second\n3\n", run.stdout)
        assert.are.equal("error in a callback of a Future: first\n"
            .. "error in a callback of a Future: late\n"
            .. "error in a callback of a Future: third\n", run.stderr)
    end)

    it("FUT-09 of an executor's runs before result() returns", function()
        local ex <close> = two()
        local got = {}
        local f = ex:submit(sleep, 0.05)
        for i = 1, 2 do
            f:add_done_callback(function(future)
                table.insert(got, {i, future:result()})
            end)
        end
        assert.are.equal(0.05, f:result())
        assert.are.same({{1, 0.05}, {2, 0.05}}, got)
        f:result()
        assert.are.equal(2, #got)
    end)

    it("FUT-09 of an executor's runs while others are waited for", function()
        local ex <close> = two()
        local got = {}
        for _, seconds in ipairs {0.02, 0.06} do
            ex:submit(sleep, seconds):add_done_callback(function(f)
                table.insert(got, f:result())
            end)
        end
        ex:submit(sleep, 0.1):result()
        assert.are.same({0.02, 0.06}, got)
        ex:submit(square, 3):add_done_callback(function(f)
            table.insert(got, f:result())
        end)
        ex:shutdown()
        assert.are.equal(9, got[3])
    end)

    it("FUT-09 have all been called when wait returns", function()
        local ex <close> = two()
        local list, called = {}, {}
        for i = 1, 300 do
            list[i] = ex:submit(square, i)
            list[i]:add_done_callback(function(f) called[f] = true end)
        end
        for f in futures.as_completed(list) do
            assert.is_true(called[f])
        end
        local slow = ex:submit(sleep, 0.05)
        slow:add_done_callback(function(f) called[f] = true end)
        futures.wait({slow})
        assert.is_true(called[slow])
        slow = ex:submit(sleep, 0.05)
        slow:add_done_callback(function(f) called[f] = true end)
        assert.are.same({slow}, mp.wait({slow, Future(), mp.Event()}, 5))
        assert.is_true(called[slow])
        assert.are.same({list[1]}, mp.wait({list[1], Future()}))
    end)

    it("FUT-09 may submit, and complete what is waited for", function()
        local ex <close> = two()
        local last = Future()
        local function again(f)
            local n = f:result()
            if n > 1000 then
                last:set_result(n)
            else
                ex:submit(square, n):add_done_callback(again)
            end
        end
        ex:submit(square, 2):add_done_callback(again)
        assert.are.equal(65536, last:result())
        local of_pool = Future()
        local pool <close> = mp.Pool(1)
        pool:apply_async(square, {7}, nil, function(v)
            of_pool:set_result(v)
        end)
        assert.are.equal(49, of_pool:result(5))
    end)
end)

describe("submit", function()
    it("FUT-02 gives a future of all that the call returns", function()
        local ex <close> = two()
        local f = ex:submit(function(...) return select("#", ...), ... end,
            nil, false, "x", nil)
        assert.are.same({4, nil, false, "x", nil, n = 5},
            table.pack(f:result()))
        assert.are.equal("<Future state=finished returned number>",
            tostring(f))
        assert.are.same({n = 0}, table.pack(ex:submit(function()
        end):result()))
    end)

    it("FUT-02 binds arguments by name", function()
        local ex <close> = two()
        local function less(a, b)
            return a - b
        end
        assert.are.equal(-4, ex:submit{fn = less, args = {1},
            kwargs = {b = 5}}:result())
        local _, text = failure("TypeError", ex.submit, ex,
            {fn = less, kwargs = {c = 1}})
        assert.matches("got an unexpected keyword argument 'c'", text, 1, true)
        _, text = failure("TypeError", ex.submit, ex, less, 1, 2, 3)
        assert.matches("takes 2 arguments (3 given)", text, 1, true)
        failure("TypeError", ex.submit, ex, {fn = less, arg = {}})
        failure("TypeError", ex.submit, ex, {fn = less}, 1)
    end)

    it("FUT-02 refuses what is no function (E)", function()
        local ex <close> = two()
        local _, text = failure("TypeError", ex.submit, ex, 5)
        assert.are.equal("submit: fn must be a callable, got 5", text)
        failure("TypeError", ex.submit, ex)
        failure("TypeError", ex.submit, nil, square)
        failure("TypeError", ex.map, ex, nil, {})
        local class = {__call = function(_, x) return x + 1 end}
        mp.pickle.register("futures_spec.callable", class)
        assert.are.equal(3, ex:submit(setmetatable({}, class), 2):result())
    end)

    it("FUT-08 raises the call's error, each time, with its traceback",
    function()
        local ex <close> = two()
        local f = ex:submit(function(x) error("bad " .. x) end, 7)
        for _ = 1, 2 do
            local e = failure("RemoteError", f.result, f)
            assert.matches("bad 7$", e.value)
            assert.matches("futures_spec.lua", e.traceback, 1, true)
            assert.are.equal(e, f:exception())
        end
        assert.are.equal("<Future state=finished raised RemoteError>",
            tostring(f))
    end)

    it("FUT-07 FUT-06 tells who runs, and cancels who does not", function()
        local ex <close> = futures.ProcessPoolExecutor(1)
        local gate <close> = mp.Event()
        local first = ex:submit(function() gate:wait(20) return "first" end)
        helper.eventually(function() return first:running() end)
        local queue = {}
        for i = 1, 6 do
            queue[i] = ex:submit(square, i)
        end
        assert.are.equal("<Future state=running>", tostring(first))
        assert.are.equal("<Future state=pending>", tostring(queue[1]))
        assert.is_false(first:cancel())
        -- All that has not begun: no worker has any of it beforehand.
        for i = 1, 6, 2 do
            assert.is_true(queue[i]:cancel())
            assert.is_true(queue[i]:cancel())
            failure("Cancelled", queue[i].result, queue[i])
        end
        gate:set()
        assert.are.equal("first", first:result())
        for i = 2, 6, 2 do
            assert.are.equal(i * i, queue[i]:result())
            assert.is_false(queue[i]:cancel())
        end
    end)

    it("FUT-06 PAIN-11 cancels what runs when told to kill it", function()
        local ex <close> = futures.ProcessPoolExecutor(1)
        local f = ex:submit(sleep, 60)
        helper.eventually(function() return f:running() end)
        local queued = ex:submit(square, 3)
        assert.is_false(f:cancel())
        assert.is_true(f:cancel{kill = true})
        assert.is_true(f:cancelled())
        failure("Cancelled", f.result, f)
        assert.are.equal(9, queued:result(10))
        assert.is_false(queued:cancel{kill = true})
        failure("TypeError", queued.cancel, queued, {kil = true})
        failure("TypeError", queued.cancel, queued, true)
        failure("TypeError", queued.cancel, queued, {}, 1)
    end)

    it("takes a pool's options: timeout, retries, priority", function()
        local ex <close> = futures.ProcessPoolExecutor{max_workers = 1,
            retries = 1}
        local tries <close> = mp.Value("i", 0)
        local function stubborn(n)
            if tries:add(1) < n then
                error("not yet", 0)
            end
            return tries.value
        end
        assert.are.equal(2, ex:submit(stubborn, 2):result())
        tries.value = 0
        assert.are.equal(3, ex:submit{fn = stubborn, args = {3},
            retries = 2}:result())
        tries.value = 0
        local f = ex:submit(stubborn, 9)
        failure("RemoteError", f.result, f)
        f = ex:submit{fn = sleep, args = {60}, timeout = 0.05}
        failure("TaskTimeout", f.result, f, 10)
        tries.value = 0
        assert.are.same({1, 3}, {ex:map(stubborn, {3}, {retries = 2}):next()})
        failure("TypeError", ex.submit, ex, {fn = sleep, priorities = 1})
        failure("ValueError", ex.submit, ex, {fn = sleep, priority = 9})
        failure("TypeError", ex.map, ex, sleep, {1}, {retries = "x"})
    end)

    it("FUT-09 FUT-06 a cancel calls back at once", function()
        local ex <close> = futures.ProcessPoolExecutor(1)
        local gate <close> = mp.Event()
        ex:submit(function() gate:wait(20) end)
        local f, got = ex:submit(square, 1), 0
        f:add_done_callback(function(future)
            got = got + (future:cancelled() and 1 or 100)
        end)
        helper.eventually(function() return f:cancel() end)
        assert.are.equal(1, got)
        gate:set()
        assert.are.equal(4, ex:submit(square, 2):result())
        assert.are.equal(1, got)
    end)

    it("FUT-08 waits no longer than asked", function()
        local ex <close> = two()
        local gate <close> = mp.Event()
        local f = held(ex, gate)
        local took = timed(function()
            failure("TimeoutError", f.result, f, 0.03)
            failure("TimeoutError", f.exception, f, 0)
        end)
        assert.is_true(took >= 0.03 and took < 2)
        assert.is_false(f:done())
        gate:set()
        assert.are.equal("through", f:result(10))
        assert.is_true(f:done())
    end)

    it("FUT-10 refuses to complete an executor's future (E)", function()
        local ex <close> = two()
        local f = ex:submit(sleep, 0.1)
        for _, method in ipairs {"set_result", "set_exception"} do
            local _, text = failure("StateError", f[method], f, 1)
            assert.matches("completed by its executor", text, 1, true)
        end
        failure("StateError", f.set_running_or_notify_cancel, f)
        assert.are.equal(0.1, f:result())
        failure("StateError", f.set_result, f, 1)
    end)

    it("keeps a dropped executor's and its future's work going", function()
        local f = futures.ProcessPoolExecutor(1):submit(sleep, 0.1)
        collectgarbage()
        collectgarbage()
        assert.are.equal(0.1, f:result(5))
    end)

    it("loses no result by an interrupt, wherever it comes", function()
        local ex <close> = two()
        for step = 1, 120 do
            local f = ex:submit(square, 3)
            if step % 2 == 0 then
                f:add_done_callback(function() end)
            end
            local armed = true
            pcall(function()
                debug.sethook(function()
                    debug.sethook()
                    if armed then
                        error("interrupted", 0)
                    end
                end, "", step)
                f:result()
                armed = false
                debug.sethook()
            end)
            assert.are.equal(9, f:result(), step)
        end
    end)

    it("does not grow over thousands of calls", function()
        local ex <close> = two()
        local function round()
            for i = 1, 200 do
                assert.are.equal(i * i, ex:submit(square, i):result())
            end
            collectgarbage()
            collectgarbage()
            return collectgarbage("count"), mp.debug.fsck()
        end
        round()
        local before = round()
        local after, sound = round()
        assert.is_true(sound)
        assert.is_true(after < before + 50, after - before)
    end)
end)

describe("wait", function()
    it("FUT-11 gives both lists in order, each future once", function()
        local ex <close> = two()
        local gate <close> = mp.Event()
        local slow, quick = held(ex, gate), ex:submit(square, 1)
        local mine = resolved(1)
        quick:result()
        local done, not_done = futures.wait({slow, quick, mine, quick, slow},
            0.03)
        assert.are.same({{quick, mine}, {slow}}, {done, not_done})
        gate:set()
        done, not_done = futures.wait({slow, quick, mine})
        assert.are.same({{slow, quick, mine}, {}}, {done, not_done})
        assert.are.same({{}, {}}, {futures.wait({})})
    end)

    it("FUT-11 returns at the first that is done", function()
        local ex <close> = two()
        local gate <close> = mp.Event()
        local slow, quick = held(ex, gate), ex:submit(sleep, 0.02)
        local done, not_done = futures.wait({slow, quick},
            {return_when = futures.FIRST_COMPLETED})
        assert.are.same({{quick}, {slow}}, {done, not_done})
        local f = resolved(1)
        assert.are.same({{f}, {slow}}, {futures.wait({f, slow}, nil,
            "FIRST_COMPLETED")})
        gate:set()
    end)

    it("FUT-11 returns at the first error, or waits for all", function()
        local ex <close> = two()
        local gate <close> = mp.Event()
        local slow = held(ex, gate)
        local good = ex:submit(square, 2)
        local bad = ex:submit(function() mp.sleep(0.03) error("x") end)
        local done, not_done = futures.wait({slow, good, bad},
            {return_when = "FIRST_EXCEPTION"})
        assert.are.same({{good, bad}, {slow}}, {done, not_done})
        gate:set()
        local cancelled, mine = Future(), Future()
        cancelled:cancel() -- is no error
        mine:set_exception("oh")
        assert.are.equal(2, #futures.wait({cancelled, slow},
            {return_when = "FIRST_EXCEPTION"}))
        assert.are.same({{mine}, {}}, {futures.wait({mine},
            {return_when = "FIRST_EXCEPTION", timeout = 5})})
    end)

    it("FUT-11 waits for futures of several executors at once", function()
        local one <close> = two()
        local other <close> = two()
        local list = {}
        for i = 1, 6 do
            local ex = i % 2 == 0 and one or other
            list[i] = ex:submit(sleep, 0.01 * i)
        end
        local took = timed(function()
            assert.are.equal(6, #futures.wait(list))
        end)
        assert.is_true(took < 5)
        local gate <close> = mp.Event()
        local slow = held(one, gate)
        assert.are.equal(1, #futures.wait({slow, other:submit(square, 1)},
            {return_when = "FIRST_COMPLETED"}))
        gate:set()
    end)

    it("FUT-11 refuses wrong conditions, lists and timeouts (E)", function()
        local f = resolved(1)
        local _, text = failure("ValueError", futures.wait, {f}, nil, "X")
        assert.are.equal("Invalid return condition: 'X'", text)
        _, text = failure("ValueError", futures.wait, {f},
            {return_when = "first_completed"})
        assert.are.equal("Invalid return condition: 'first_completed'", text)
        failure("TypeError", futures.wait, {f}, {when = "X"})
        failure("TypeError", futures.wait, {f}, {timeout = 1}, "X")
        failure("TypeError", futures.wait, {f}, "1")
        failure("ValueError", futures.wait, {f}, 0 / 0)
        for _, bad in ipairs {f, {1}, {f, n = 2}, "f", {a = f}} do
            failure("TypeError", futures.wait, bad)
            failure("TypeError", futures.as_completed, bad)
        end
        failure("TypeError", futures.wait)
    end)
end)

describe("as_completed", function()
    it("FUT-12 yields in the order of completion", function()
        local ex <close> = two()
        local gate <close> = mp.Event()
        local slow, quick = held(ex, gate), ex:submit(sleep, 0.02)
        local mine = resolved("mine")
        local got = {}
        for f in futures.as_completed({slow, quick, mine}) do
            table.insert(got, f:result())
            if f == quick then
                gate:set()
            end
        end
        assert.are.same({"mine", 0.02, "through"}, got)
    end)

    it("FUT-12 yields each once, cancelled ones too", function()
        local ex <close> = two()
        local f, cancelled = ex:submit(square, 1), Future()
        cancelled:cancel()
        local n = 0
        for _ in futures.as_completed({f, f, cancelled, f, cancelled}) do
            n = n + 1
        end
        assert.are.equal(2, n)
        assert.is_nil(futures.as_completed({})())
    end)

    it("FUT-12 T-F-09 says how many are late (E)", function()
        local ex <close> = two()
        local gate <close> = mp.Event()
        local slow = held(ex, gate)
        local _, text = failure("TimeoutError",
            futures.as_completed({slow}, 0.03))
        assert.are.equal("1 (of 1) futures unfinished", text)
        local it = futures.as_completed(
            {slow, ex:submit(square, 1), resolved(1)}, 0.2)
        it()
        it()
        _, text = failure("TimeoutError", it)
        assert.are.equal("1 (of 3) futures unfinished", text)
        failure("TimeoutError", futures.as_completed({slow}, 0))
        gate:set()
    end)

    it("FUT-12 yields each of many, as they come", function()
        local ex <close> = two()
        local list, seen = {}, {}
        for i = 1, 1000 do
            list[i] = ex:submit(square, i)
        end
        for f in futures.as_completed(list) do
            assert.is_nil(seen[f])
            seen[f] = true
        end
        for i = 1, 1000 do
            assert.is_true(seen[list[i]])
            assert.are.equal(i * i, list[i]:result())
        end
    end)
end)

describe("an executor of threads", function()
    it("FUT-14 runs calls and maps as the other does", function()
        local ex <close> = futures.ThreadPoolExecutor(2)
        assert.are.equal(9, ex:submit(square, 3):result())
        local f = ex:submit(error, "bad", 0)
        assert.are.equal("bad", failure("RemoteError", f.result, f).value)
        local sum = 0
        for i, v in ex:map(square, mp.range(100)) do
            assert.are.equal((i - 1) * (i - 1), v)
            sum = sum + v
        end
        assert.are.equal(328350, sum)
        assert.are.equal(mp.getpid(), ex:submit(mp.getpid):result())
        assert.is_nil(ex.kill_workers)
        assert.are.equal(futures.ThreadPoolExecutor,
            futures.InterpreterPoolExecutor)
    end)

    it("FUT-14 names its threads", function()
        local function name()
            return require "mp.threading".current_thread().name
        end
        local ex <close> = futures.ThreadPoolExecutor(1, "io",
            function(a, b) require "mp".worker.state.sum = a + b end, {1, 2})
        assert.are.equal("io_0", ex:submit(name):result())
        assert.are.equal(3, ex:submit(function()
            return require "mp".worker.state.sum
        end):result())
        local other <close> = futures.ThreadPoolExecutor{max_workers = 1}
        assert.matches("^ThreadPoolExecutor%-%d+_0$",
            other:submit(name):result())
    end)

    it("FUT-14 refuses wrong arguments (E)", function()
        local new = futures.ThreadPoolExecutor
        local _, text = failure("ValueError", new, 0)
        assert.matches("max_workers must be greater than 0", text, 1, true)
        failure("TypeError", new, "2")
        failure("TypeError", new, 1, 5)
        failure("TypeError", new, 1, "x", 5)
        failure("TypeError", new, 1, "x", square, 5)
        failure("TypeError", new, {max_tasks_per_child = 1})
        failure("TypeError", new, 1, "x", square, {}, 5)
    end)
end)
