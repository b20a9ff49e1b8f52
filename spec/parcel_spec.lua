--- Connections and descriptors that travel: as arguments, in queues, through
--- pools, over connections.
local mp = require "mp"
local helper = require "spec.helper"
local start_tools = require "spec.start_tools"

start_tools.start_server()

--- Closes all of them at the end of the block.
local function closing(...)
    local list = {...}
    return setmetatable({}, {__close = function()
        for _, c in ipairs(list) do
            c:close()
        end
    end})
end

--- Demands that the other end of `c` is closed everywhere. (What was received
--- and dropped is closed by the collector.)
local function assert_end(c)
    assert.is_true(c:poll(10))
    helper.failure("EOF", c.recv, c)
end

--- The two are ends of one pipe.
local function assert_connected(a, b)
    a:send("there")
    assert.equal("there", b:recv())
    b:send("back")
    assert.equal("back", a:recv())
end

describe("A connection", function()
    start_tools.each("CON-13 is an argument, an upvalue, a table's field",
        function(context)
            local a, b = mp.Pipe()
            local c, d = mp.Pipe()
            local e, f = mp.Pipe()
            local _ <close> = closing(a, b, c, d, e, f)
            local p = context.Process{target = function(x, t)
                x:send{"argument", x.readable, x.writable}
                d:send("upvalue")
                t.deep[1]:send("field")
                assert(t.deep[1] == t.again)
            end, args = {b, {deep = {f}, again = f}}}
            p:start()
            b:close()
            f:close()
            assert.same({"argument", true, true}, a:recv())
            assert.equal("upvalue", c:recv())
            assert.equal("field", e:recv())
            p:join()
            assert.equal(0, p.exitcode)
            assert_end(a)
            assert_end(e)
        end)

    start_tools.each("CON-13 keeps its direction", function(context)
        local r, w = mp.Pipe(false)
        local back <close> = mp.Queue()
        local _ <close> = closing(r, w)
        local p = context.Process{target = function(reader, writer)
            back:put{reader.readable, reader.writable, writer.readable,
                writer.writable, pcall(reader.send, reader, 1)}
            writer:send("through")
        end, args = {r, w}}
        p:start()
        p:join()
        local got = back:get(true, 10)
        assert.same({true, false, false, true, false},
            table.move(got, 1, 5, 1, {}))
        assert.matches("read%-only", got[6].message)
        assert.equal("through", r:recv())
    end)

    it("T-C-19 goes through a queue, once for each who takes it", function()
        local q <close> = mp.Queue()
        local a, b = mp.Pipe()
        q:put{conn = b, again = b}
        q:put(b)
        b:close()
        assert.is_false(a:poll(0)) -- what lies in the queue is open
        local first, second = q:get(), q:get()
        assert.equal(first.conn, first.again)
        assert_connected(a, first.conn)
        assert_connected(a, second)
        first.conn:close()
        assert_connected(a, second)
        second:close()
        assert_end(a)
        a:close()
    end)

    it("T-C-19 is closed with the queue that nobody read", function()
        local q = mp.Queue()
        local a, b = mp.Pipe()
        q:put(b)
        b:close()
        assert.is_false(a:poll(0))
        q:close()
        assert_end(a)
        a:close()
    end)

    it("is closed when what goes with it cannot be pickled", function()
        local q <close> = mp.Queue()
        local a, b = mp.Pipe()
        helper.failure("PicklingError", q.put, q,
            {b, coroutine.create(print)})
        b:close()
        assert_end(a)
        a:close()
    end)

    it("is closed with the process that had it, killed", function()
        local a, b = mp.Pipe()
        local q <close> = mp.Queue()
        local p = mp.Process{target = function()
            local mine, other = mp.Pipe()
            q:put(other)
            other:close()
            mine:send("alive")
            mp.sleep(30)
        end}
        p:start()
        local c = q:get(true, 10)
        assert.equal("alive", c:recv())
        p:kill()
        p:join()
        assert_end(c)
        c:close()
        a:close()
        b:close()
    end)

    it("goes to a pool: in an item, a result, an upvalue", function()
        local pool <close> = mp.Pool(2)
        local a, b = mp.Pipe()
        local c, d = mp.Pipe()
        local _ <close> = closing(a, b, c, d)
        assert.equal("sent", pool:apply(function(conn)
            conn:send("from a worker")
            conn:close()
            return "sent"
        end, {b}))
        assert.equal("from a worker", a:recv())
        assert.same({1, 2, n = 2}, pool:map(function(i)
            d:send(i)
            return i
        end, {1, 2}, 2))
        assert.equal(3, c:recv() + c:recv())
        local back = pool:apply(function(x)
            return x
        end, {b})
        assert_connected(a, back)
        back:close()
    end)

    it("is not kept by a pool whose job has closed it", function()
        local r, w = mp.Pipe(false)
        local pool <close> = mp.Pool(1)
        assert.equal(1, pool:apply(function(x)
            w:send(x)
            w:close()
            return x
        end, {1}))
        w:close()
        assert.equal(1, r:recv())
        assert_end(r)
        r:close()
    end)

    it("goes to pools of all kinds", function()
        for _, method in ipairs(start_tools.METHODS) do
            local a, b = mp.Pipe()
            do
                local pool <close> = mp.get_context(method).Pool(1,
                    function(x)
                        x:send("from " .. mp.current_process().name)
                    end, {b})
                b:close()
                assert.equal("from PoolWorker-1", a:recv())
            end
            assert_end(a)
            a:close()
        end
    end)

    it("T-C-19 goes over a connection, with others", function()
        local a, b = mp.Pipe()
        local c, d = mp.Pipe()
        local r, w = mp.Pipe(false)
        a:send{d, {d, w}}
        d:close()
        w:close()
        local got = b:recv()
        assert.equal(got[1], got[2][1])
        assert_connected(c, got[1])
        got[2][2]:send("one way")
        assert.equal("one way", r:recv())
        assert.is_false(got[2][2].readable)
        got[1]:close()
        assert_end(c)
        got[2][2]:close()
        assert_end(r)
        local _ <close> = closing(a, b, c, r)
    end)

    it("CON-13 goes over a connection to another process", function()
        local a, b = mp.Pipe()
        local p = mp.Process{target = function()
            b:recv():send("got it")
        end}
        p:start()
        local c, d = mp.Pipe()
        a:send(d)
        d:close()
        assert.equal("got it", c:recv())
        p:join()
        assert_end(c)
        local _ <close> = closing(a, b, c)
    end)

    it("is closed with the connection in which it was never read", function()
        local a, b = mp.Pipe()
        local c, d = mp.Pipe()
        a:send(d)
        d:close()
        assert.is_false(c:poll(0))
        a:close()
        b:close()
        assert_end(c)
        c:close()
    end)

    it("is refused where no descriptor can go", function()
        local a, b = mp.Pipe()
        local _ <close> = closing(a, b)
        local message = helper.failure("PicklingError", mp.pickle.dumps,
            {x = {b}})
        assert.matches("^cannot pickle a Connection: value%.x%[1%]; it goes "
            .. "only to where a descriptor can", message)
        local q <close> = mp.Queue()
        b:close()
        assert.matches("^cannot pickle a Connection: value%[1%]; it is closed",
            (helper.failure("PicklingError", q.put, q, {b})))
        assert.equal(0, q:qsize())
    end)

    it("is refused where too many are under way", function()
        local q <close> = mp.Queue()
        local dup <close> = mp.reduction.DupFd(0)
        local e
        for _ = 1, 5000 do
            local ok, problem = pcall(q.put, q, dup)
            if not ok then
                e = problem
                break
            end
        end
        assert.equal("OSError", e.kind)
        assert.matches("^cannot send a descriptor in value: too many",
            e.message)
        assert.is_true(q:qsize() > 200)
        q:get():close()
        q:put(dup)
    end)

    it("is refused by more than 64 in one message over another", function()
        local a, b = mp.Pipe()
        local list = {}
        for i = 1, 65 do
            list[i] = mp.reduction.DupFd(0)
        end
        assert.matches("no more than 64 descriptors go with one message",
            (helper.failure("PicklingError", a.send, a, list)))
        list[65] = nil
        a:send(list)
        assert.equal(64, #b:recv())
        local _ <close> = closing(a, b)
        for i = 1, 64 do
            list[i]:close()
        end
        collectgarbage()
    end)
end)

describe("A pool's workers", function()
    --- Descriptors that a worker of the pool has, as texts.
    local function count_sockets()
        local n = 0
        local list <close> = io.popen("ls -l /proc/$PPID/fd")
        for line in list:lines() do
            n = n + (line:find("socket:") and 1 or 0)
        end
        return n
    end

    it("hold no connection that was not passed to them", function()
        local a, b = mp.Pipe()
        local c, d = mp.Pipe()
        local before = mp.Pool(1)
        local shelf = before:apply(count_sockets)
        local pool <close> = mp.Pool(1, function(t)
            t.conn:send("from the initializer")
            d:send("by an upvalue")
        end, {{conn = b}})
        assert.equal("from the initializer", a:recv())
        assert.equal("by an upvalue", c:recv())
        assert.equal(shelf + 2, pool:apply(count_sockets))
        before:terminate()
        before:join()
        b:close()
        d:close()
        assert.is_false(a:poll(0))
        pool:terminate()
        pool:join()
        assert_end(a)
        assert_end(c)
        a:close()
        c:close()
    end)

    it("do not keep the end of a pipe from its reader", function()
        local r, w = mp.Pipe(false)
        local pool <close> = mp.Pool(2)
        w:send("last")
        w:close()
        assert.equal("last", r:recv())
        assert_end(r)
        r:close()
    end)

    it("get by name what they have not", function()
        local out = helper.run{"-e", [[
            local mp = require "mp"
            local a
            a, by_name = mp.Pipe()
            deep = {{by_name}}
            local pool <close> = mp.Pool(1)
            pool:apply(function() by_name:send "a global" end)
            print(a:recv())
            pool:apply(function() deep[1][1]:send "deep" end)
            print(a:recv())
            local again <close> = mp.Pool(1, function()
                by_name:send "of the initializer"
            end)
            print(a:recv())
        ]]}
        assert.equal("a global\ndeep\nof the initializer\n",
            out.stdout .. out.stderr)
    end)

    it("hold none when their crew was killed and is another", function()
        local r, w = mp.Pipe(false)
        local pool <close> = mp.Pool(1)
        local crew = pool:apply(mp.getppid)
        os.execute("kill -9 " .. crew)
        helper.eventually(function()
            local ok, now = pcall(pool.apply, pool, mp.getppid)
            return ok and now ~= crew
        end)
        w:close()
        assert_end(r)
        r:close()
    end)
end)

describe("A process by fork", function()
    it("has the connections of its parent", function()
        local a, b = mp.Pipe()
        local go = mp.Event()
        local p = mp.get_context("fork").Process{target = function()
            assert(go:wait(20))
        end}
        p:start()
        b:close()
        assert.is_false(a:poll(0.01))
        go:set()
        p:join()
        assert_end(a)
        a:close()
    end)
end)

describe("mp.reduction", function()
    it("UTL-08 sends a descriptor over a connection", function()
        local a, b = mp.Pipe()
        local c, d = mp.Pipe()
        local reduction = mp.reduction
        assert.is_true(reduction.HAVE_SEND_HANDLE)
        reduction.send_handle(a, d:fileno(), mp.getpid())
        d:close()
        local fd = reduction.recv_handle(b)
        assert.equal("integer", math.type(fd))
        local again = mp.connection.Connection(fd)
        assert_connected(c, again)
        again:close()
        assert_end(c)
        a:send("no descriptor")
        assert.are.equal("send_handle: argument 'conn': Connection expected, "
            .. "got 5", (helper.failure("TypeError", reduction.send_handle,
                5, 0)))
        assert.are.equal("recv_handle: argument 'conn': Connection expected, "
            .. "got nil", (helper.failure("TypeError", reduction.recv_handle)))
        assert.matches("^recv_handle: a descriptor expected, got ",
            (helper.failure("TypeError", reduction.recv_handle, b)))
        local _ <close> = closing(a, b, c)
    end)

    start_tools.each("UTL-08 DupFd takes a descriptor along",
        function(context)
            local q <close> = mp.Queue()
            local a, b = mp.Pipe()
            local dup = mp.reduction.DupFd(b:fileno())
            b:close()
            local p = context.Process{target = function(d)
                local conn <close> = mp.connection.Connection(d:detach())
                conn:send(tostring(d))
                q:put(d.detach == nil)
            end, args = {dup}}
            p:start()
            assert.equal("<DupFd closed>", a:recv())
            assert.is_false(q:get(true, 10))
            p:join()
            dup:close()
            dup:close()
            assert_end(a)
            a:close()
        end)

    it("UTL-08 refuses what is no descriptor", function()
        local DupFd = mp.reduction.DupFd
        assert.equal("EBADF", select(2,
            helper.failure("OSError", DupFd, 1000)).code)
        helper.failure("ValueError", DupFd, -1)
        helper.failure("TypeError", DupFd, "0")
        helper.failure("TypeError", DupFd, 0, 1)
        local d = DupFd(0)
        assert.is_true(d:fileno() > 2)
        d:close()
        assert.equal("fileno: the DupFd is closed",
            (helper.failure("OSError", d.fileno, d)))
        helper.failure("OSError", d.detach, d)
        helper.failure("TypeError", d.fileno, 5)
        local q <close> = mp.Queue()
        assert.matches("it is closed",
            (helper.failure("PicklingError", q.put, q, d)))
        assert.matches("^cannot pickle a DupFd: value; it goes only",
            (helper.failure("PicklingError", mp.pickle.dumps, DupFd(0))))
        collectgarbage()
    end)

    it("UTL-08 names the pickler as Python does", function()
        local Point = {__name = "Point"}
        mp.reduction.ForkingPickler.register("spec.parcel.Point", Point)
        local path = helper.tmpname()
        local file = assert(io.open(path, "wb"))
        mp.reduction.dump(setmetatable({x = 1}, Point), file)
        file:close()
        file = assert(io.open(path, "rb"))
        local back = mp.pickle.loads(file:read("a"))
        file:close()
        assert.equal(1, back.x)
        assert.equal(Point, getmetatable(back))
    end)
end)
