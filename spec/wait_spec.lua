--- mp.wait: for many things of different kinds in one call.
local mp = require "mp"
local helper = require "spec.helper"
local start_tools = require "spec.start_tools"

start_tools.start_server()

--- Does it return within this many seconds of `expected`?
local function timed(f, ...)
    local begin = mp.monotonic()
    local result = f(...)
    return mp.monotonic() - begin, result
end

--- A process that runs f(...) after some time; joined at its end.
local function later(seconds, f, ...)
    local args = table.pack(...)
    local p = mp.Process{target = function()
        mp.sleep(seconds)
        f(table.unpack(args, 1, args.n))
    end}
    p:start()
    return setmetatable({process = p}, {__close = function()
        p:join()
        assert.equal(0, p.exitcode)
    end})
end

local function closing(list)
    return setmetatable({}, {__close = function()
        for _, c in ipairs(list) do
            c:close()
        end
    end})
end

describe("wait", function()
    it("CON-15 returns what is ready, in the list's order", function()
        local a, b = mp.Pipe()
        local c, d = mp.Pipe()
        local _ <close> = closing{a, b, c, d}
        assert.same({}, mp.wait({a, b, c, d}, 0))
        d:send("to c")
        a:send("to b")
        assert.same({b, c}, mp.wait({a, b, c, d}, 0))
        assert.same({c, b}, mp.wait({d, c, b, a}))
        assert.equal("to c", c:recv())
        assert.same({b}, mp.wait({a, b, c, d}))
    end)

    it("T-C-15 waits for 4 connections and a sentinel", function()
        local readers, all = {}, {}
        for i = 1, 4 do
            local r, w = mp.Pipe(false)
            readers[i] = r
            table.move({r, w}, 1, 2, #all + 1, all)
        end
        local _ <close> = closing(all)
        local p = mp.Process{target = function()
            for i = 1, 4 do
                all[2 * i]:send(i)
            end
        end}
        p:start()
        local left, got = table.move(readers, 1, 4, 2, {p.sentinel}), {}
        while #left > 0 do
            for _, ready in ipairs(mp.wait(left, 10)) do
                if ready == p.sentinel then
                    got[#got + 1] = "end"
                else
                    got[#got + 1] = ready:recv()
                end
                for i = #left, 1, -1 do
                    if rawequal(left[i], ready) then
                        table.remove(left, i)
                    end
                end
            end
        end
        p:join()
        table.sort(got, function(x, y)
            return tostring(x) < tostring(y)
        end)
        assert.same({1, 2, 3, 4, "end"}, got)
    end)

    it("T-C-15 collapses what stands in the list twice", function()
        local a, b = mp.Pipe()
        local q <close> = mp.Queue()
        local _ <close> = closing{a, b}
        a:send(1)
        q:put(1)
        assert.same({q, b}, mp.wait({q, b, b, q, q, b}, 0))
    end)

    it("CON-15 finds an end as ready as a message", function()
        local a, b = mp.Pipe()
        a:close()
        assert.same({b}, mp.wait({b}))
        b:close()
    end)

    it("CON-15 takes an empty list with a timeout", function()
        local took, ready = timed(mp.wait, {}, 0.03)
        assert.same({}, ready)
        assert.is_true(took >= 0.03 and took < 1)
        assert.same({}, mp.wait({}, 0))
        assert.same({}, mp.wait({}, -5))
        assert.equal("wait: there is nothing to wait for, and no timeout",
            (helper.failure("ValueError", mp.wait, {})))
    end)

    it("CON-15 polls when the timeout is 0 or less", function()
        local q <close> = mp.Queue()
        local e <close> = mp.Event()
        for _, timeout in ipairs{0, -1, -math.huge} do
            local took, ready = timed(mp.wait, {q, e}, timeout)
            assert.same({}, ready)
            assert.is_true(took < 1)
        end
    end)

    it("keeps its timeout", function()
        local a, b = mp.Pipe()
        local q <close> = mp.Queue()
        local _ <close> = closing{a, b}
        for _, list in ipairs{{a, b}, {q}, {a, q, b}} do
            local took, ready = timed(mp.wait, list, 0.06)
            assert.same({}, ready)
            assert.is_true(took >= 0.06 and took < 5)
        end
    end)

    it("CON-15 raises of what is closed, or cannot be read", function()
        local r, w = mp.Pipe(false)
        local q, e = mp.Queue(), mp.Event()
        assert.matches("write%-only",
            (helper.failure("OSError", mp.wait, {r, w}, 0)))
        r:close()
        w:close()
        assert.matches("closed",
            (helper.failure("OSError", mp.wait, {r}, 0)))
        q:close()
        do local _ <close> = e end
        assert.equal("wait: Queue is closed",
            (helper.failure("StateError", mp.wait, {q}, 0)))
        assert.equal("wait: Event is closed",
            (helper.failure("StateError", mp.wait, {e}, 0)))
    end)

    it("CON-15 raises of what is no file object", function()
        for _, what in ipairs{"a string", true, {}, 1.5, print, io.stdout,
                              mp.Lock()} do
            assert.matches("^wait: item 2: invalid file object: ",
                (helper.failure("ValueError", mp.wait, {0, what}, 0)))
        end
        assert.matches("^wait: item 1: invalid file object: %-1 is",
            (helper.failure("ValueError", mp.wait, {-1}, 0)))
        assert.matches("^wait: item 1: invalid file object: nil",
            (helper.failure("ValueError", mp.wait, {nil, 2, n = 2}, 0)))
        local message, e = helper.failure("OSError", mp.wait, {1000}, 0)
        assert.equal("wait: item 1: 1000 is no open descriptor", message)
        assert.equal("EBADF", e.code)
    end)

    it("refuses misuse of its arguments", function()
        assert.matches("^wait: argument 'object_list': list expected",
            (helper.failure("TypeError", mp.wait, nil)))
        assert.equal("wait: argument 'object_list': list expected, got a "
            .. "table without items 1 to n",
            (helper.failure("TypeError", mp.wait, {stdin = 0}, 0)))
        assert.matches("^wait: argument 'timeout'",
            (helper.failure("TypeError", mp.wait, {0}, "soon")))
        assert.matches("^wait: argument 'timeout'",
            (helper.failure("ValueError", mp.wait, {0}, 0 / 0)))
        helper.failure("TypeError", mp.wait, {0}, 0, 1)
        local strange = {fileno = function() return "x" end}
        assert.equal("wait: item 1: its fileno() returned 'x', expected an "
            .. "integer", (helper.failure("TypeError", mp.wait, {strange})))
    end)

    it("takes whatever has a fileno()", function()
        local a, b = mp.Pipe()
        local _ <close> = closing{a, b}
        local thing = {fileno = function() return b:fileno() end}
        assert.same({}, mp.wait({thing, b:fileno()}, 0))
        a:send(1)
        local ready = mp.wait({thing, b:fileno()}, 10)
        assert.equal(2, #ready)
        assert.equal(thing, ready[1])
        assert.equal(b:fileno(), ready[2])
    end)

    it("takes what has a __waitable", function()
        local q <close> = mp.Queue()
        local called = 0
        local class = {__waitable = function(self)
            return self.instead, function() called = called + 1 end
        end}
        local now = setmetatable({instead = true}, class)
        local never = setmetatable({}, class)
        local as_queue = setmetatable({instead = q}, class)
        assert.same({now}, mp.wait({never, now, as_queue}))
        q:put(1)
        assert.same({as_queue}, mp.wait({never, as_queue}))
        assert.equal(5, called)
        helper.failure("ValueError", mp.wait, {never})
    end)
end)

describe("wait, for each kind", function()
    it("CON-15 is woken by a message", function()
        local a, b = mp.Pipe()
        local q <close> = mp.Queue()
        local _ <close> = closing{a, b}
        local _ <close> = later(0.03, function() a:send(1) end)
        assert.same({b}, mp.wait({q, b}, 10))
    end)

    it("CON-15 is woken by who connects to a listener", function()
        local listener <close> = mp.connection.Listener()
        local q <close> = mp.Queue()
        assert.same({}, mp.wait({q, listener}, 0))
        local address = listener.address
        local _ <close> = later(0.03, function()
            mp.connection.Client(address):recv()
        end)
        assert.same({listener}, mp.wait({q, listener}, 10))
        local c <close> = listener:accept()
        c:send("so it is")
    end)

    it("is woken by a future", function()
        local executor <close> = mp.futures.ProcessPoolExecutor(1)
        local q <close> = mp.Queue()
        local future = executor:submit(math.abs, -3)
        assert.same({future}, mp.wait({q, future}, 10))
        assert.equal(3, future:result())
        assert.same({future}, mp.wait{future})
        assert.same({}, mp.wait({q, mp.futures.Future()}, 0.01))
    end)

    it("is woken by a put", function()
        local a, b = mp.Pipe()
        local _ <close> = closing{a, b}
        for _, kind in ipairs{"Queue", "SimpleQueue", "JoinableQueue"} do
            local q <close> = mp[kind]()
            local _ <close> = later(0.03, q.put, q, "x")
            assert.same({q}, mp.wait({b, q}, 10))
            assert.equal("x", q:get())
            assert.same({}, mp.wait({b, q}, 0))
        end
    end)

    it("is woken by an event", function()
        local a <close> = mp.Event()
        local b <close> = mp.Event()
        local _ <close> = later(0.03, b.set, b)
        assert.same({b}, mp.wait({a, b}, 10))
        b:clear()
        assert.same({}, mp.wait({a, b}, 0))
    end)

    start_tools.each("PRC-15 is woken by the end of a process",
        function(context)
            local q <close> = mp.Queue()
            local p = context.Process{target = mp.sleep, args = {0.05}}
            p:start()
            assert.same({p}, mp.wait({q, p}, 10))
            assert.same({p, p.sentinel}, mp.wait({p, p.sentinel}, 0))
            p:join()
            assert.same({p}, mp.wait({q, p}))
        end)

    it("raises of a process that was not started", function()
        assert.equal("process not started", (helper.failure("StateError",
            mp.wait, {mp.Process{target = print}}, 0)))
    end)

    it("is woken by results", function()
        local pool <close> = mp.Pool(2)
        local e <close> = mp.Event()
        local function wait_for(event)
            event:wait(10)
            return "done"
        end
        local slow = pool:apply_async(wait_for, {e})
        local quick = pool:apply_async(mp.sleep, {0.05})
        local all = pool:map_async(math.abs, {-1, -2})
        local ready = mp.wait({slow, quick}, 10)
        assert.same({quick}, ready)
        assert.same({}, mp.wait({slow}, 0))
        assert.same({all}, mp.wait({slow, all}, 10))
        e:set()
        assert.same({slow}, mp.wait({slow}, 10))
        assert.equal("done", slow:get())
        assert.same({slow, quick, all}, mp.wait({slow, quick, all}))
    end)

    it("runs a pool's callbacks that are due", function()
        local pool <close> = mp.Pool(1)
        local got
        local result = pool:apply_async(math.abs, {-7}, nil, function(x)
            got = x
        end)
        assert.same({result}, mp.wait({result}, 10))
        assert.equal(7, got)
    end)

    it("is woken when a result will never come", function()
        local pool = mp.Pool(1)
        local result = pool:apply_async(mp.sleep, {30})
        assert.same({}, mp.wait({result}, 0.02))
        pool:terminate()
        assert.same({result}, mp.wait({result}, 10))
        helper.failure("PoolTerminated", result.get, result)
        pool:join()
    end)

    it("goes on when a pool's crew is killed", function()
        local pool <close> = mp.Pool(1)
        local q <close> = mp.Queue()
        local result = pool:apply_async(function()
            if q:qsize() == 0 then
                q:put(true)
                os.execute("kill -9 " .. mp.getppid())
                mp.sleep(30)
            end
            return "again"
        end)
        assert.same({result}, mp.wait({result}, 20))
        helper.failure("WorkerLost", result.get, result)
    end)
end)

describe("wait, of many", function()
    it("is woken by each of several processes", function()
        local queues, conns, all, N <const> = {}, {}, {}, 3
        for i = 1, N do
            queues[i] = mp.Queue()
            local a, b = mp.Pipe()
            conns[i] = {a, b}
            all[2 * i - 1], all[2 * i] = queues[i], a
        end
        local ps = {}
        for i = 1, N do
            ps[i] = mp.Process{target = function()
                for k = 1, 20 do
                    if k % 2 == 0 then
                        queues[i]:put(k)
                    else
                        conns[i][2]:send(k)
                    end
                end
            end}
            ps[i]:start()
        end
        local sum, n = 0, 0
        while n < 20 * N do
            local ready = mp.wait(all, 10)
            assert.is_true(#ready > 0)
            for _, thing in ipairs(ready) do
                sum = sum + (thing.get and thing:get() or thing:recv())
                n = n + 1
            end
        end
        assert.equal(210 * N, sum)
        for i = 1, N do
            ps[i]:join()
            queues[i]:close()
            conns[i][1]:close()
            conns[i][2]:close()
        end
    end)

    it("CON-15 takes a thousand descriptors and a thousand queues",
        function()
            local out = helper.run({"-e", [[
                local mp = require "mp"
                local a, b = mp.Pipe()
                local list, keep = {}, {}
                for i = 1, 1000 do
                    list[#list + 1] = mp.Queue()
                    keep[i] = mp.reduction.DupFd(b:fileno())
                    list[#list + 1] = keep[i]:fileno()
                end
                local last = list[#list - 1]
                local p = mp.Process{target = function()
                    mp.sleep(0.05)
                    last:put("x")
                end}
                p:start()
                local ready = mp.wait(list, 10)
                print(#ready, ready[1] == last)
                p:join()
                a:send(1)
                ready = mp.wait(list, 10)
                print(#ready)
            ]]})
            assert.equal("1\ttrue\n1001\n", out.stdout .. out.stderr)
        end)

    it("waits in several processes and threads for the same", function()
        local e <close> = mp.Event()
        local done <close> = mp.Queue()
        local ps = {}
        for i, method in ipairs{"fork", "fork", "thread", "thread"} do
            ps[i] = mp.get_context(method).Process{target = function()
                done:put(#mp.wait({e, done.x}, 20))
            end}
            ps[i]:start()
        end
        e:set()
        for _ = 1, 4 do
            assert.equal(1, done:get(true, 10))
        end
        for _, p in ipairs(ps) do
            p:join()
        end
    end)

    it("leaves nothing when one who waits is killed", function()
        local q <close> = mp.Queue()
        local ready <close> = mp.Event()
        local a, b = mp.Pipe()
        local _ <close> = closing{a, b}
        local p = mp.Process{target = function()
            ready:set()
            mp.wait({q, b})
        end}
        p:start()
        ready:wait(10)
        mp.sleep(0.01)
        p:kill()
        p:join()
        q:put(1)
        assert.equal(1, q:get())
        assert.same({}, mp.wait({q, b}, 0))
    end)

    it("is soon woken by a put when it sleeps", function()
        local q <close> = mp.Queue()
        local go <close> = mp.Queue()
        local e <close> = mp.Event()
        local N <const> = 40
        local p = mp.Process{target = function()
            for _ = 1, N do
                go:get()
                mp.sleep(0.003)
                q:put(mp.monotonic())
            end
        end}
        p:start()
        local late = {}
        for i = 1, N do
            go:put(true)
            mp.wait({q, e, p}, 10)
            local now = mp.monotonic()
            late[i] = now - q:get()
        end
        p:join()
        table.sort(late)
        -- Some hundred microseconds, even where others work; a slice, which
        -- is what it would take without the bell, is 2 to 100 ms.
        assert.is_true(late[N // 4] < 0.001, late[N // 4])
    end)

    it("tells what a finalizer closes meanwhile", function()
        local function wait(object)
            mp.wait({object}, 0)
        end
        helper.closed_in(mp.Queue, wait, "StateError: wait: Queue is closed")
        helper.closed_in(mp.Event, wait, "StateError: wait: Event is closed")
        helper.closed_in(mp.Pipe, wait, "OSError: wait: handle is closed")
    end)

    it("is interrupted when its thread is asked to end", function()
        local q <close> = mp.Queue()
        local p = mp.get_context("thread").Process{target = function()
            mp.wait({q})
        end}
        p:start()
        mp.sleep(0.02)
        p:terminate()
        assert.is_true(p:join(10))
    end)
end)
