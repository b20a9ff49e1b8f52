-- Pipe and Connection: values and bytes between two ends.

local helper = require "spec.helper"
local mp = require "mp"
local Connection = require("mp.connection").Connection

local failure, at_a_slice = helper.failure, helper.at_a_slice
local start, finish = helper.start, helper.finish

--- Sends back what it receives, so many times.
local function echo(c, n)
    for _ = 1, n do
        c:send(c:recv())
    end
end

describe("a pipe", function()
    it("CON-01 T-C-01 CON-03 CON-04 carries values both ways as they are",
        function()
        local a, b = mp.Pipe()
        local values = table.pack(nil, false, true, 0, 0.0, -0.0, 1e308,
            1 / 0, -1 / 0, math.mininteger, math.maxinteger, -33, -32, 95,
            96, "", "\0\0", ("k"):rep(31), ("k"):rep(32), ("k"):rep(255),
            ("k"):rep(256), ("x"):rep(2000), ("y"):rep(70000))
        for i = 1, values.n do
            local from, to = a, b
            if i % 2 == 0 then
                from, to = b, a
            end
            from:send(values[i])
            local got = to:recv()
            assert.are.equal(values[i], got)
            assert.are.equal(math.type(values[i]), math.type(got))
            if got == 0 then
                assert.are.equal(1 / values[i], 1 / got)
            end
        end
        a:send(0 / 0)
        local nan = b:recv()
        assert.are_not.equal(nan, nan)
    end)

    it("T-C-01 carries a string of 10 MB, and one of 5 to a child", function()
        local a, b = mp.Pipe()
        local text = ("0123456789"):rep(1000000)
        a:send(text)
        assert.is_true(text == b:recv())
        local p = start(echo, b, 2)
        b:close()
        local half = text:sub(1, 5000000)
        a:send(half)
        assert.is_true(half == a:recv())
        a:send({half, {half}})
        local got = a:recv()
        assert.is_true(half == got[1] and half == got[2][1])
        finish(p)
    end)

    it("CON-03 carries tables with cycles, functions and shared objects",
        function()
        local a, b = mp.Pipe()
        local t = {1, x = {2}}
        t.self = t
        a:send(t)
        local got = b:recv()
        assert.are.equal(got, got.self)
        assert.are.equal(2, got.x[1])
        local n = 5
        a:send(function(x) return x + n end)
        assert.are.equal(7, b:recv()(2))
        local q <close> = mp.Queue()
        a:send({q, "with"})
        local same <close> = b:recv()[1]
        same:put("through")
        assert.are.equal("through", q:get())
    end)

    it("CON-03 T-C-19 keeps shared objects that are on their way", function()
        local a, b = mp.Pipe()
        local function flood()
            for i = 1, 20 do
                a:send({mp.Value("i", i), ("x"):rep(i % 2 * 100000)})
            end
        end
        flood()
        collectgarbage()
        collectgarbage()
        for i = 1, 20 do
            assert.are.equal(i, b:recv()[1].value)
        end
        flood() -- dropped unread
        b:close()
        local c, d = mp.Pipe()
        c:send(mp.Lock())
        c:close()
        collectgarbage()
        assert.is_true(d:recv():acquire(false))
    end)

    it("CON-03 T-C-19 a child's objects arrive, and a closed one does not",
        function()
        local a, b = mp.Pipe()
        local p = start(function(x)
            x:send(mp.Value("i", 42))
            collectgarbage()
            assert(x:recv() == "got it")
        end, b)
        assert.are.equal(42, a:recv().value)
        a:send("got it")
        finish(p)
        local q = mp.Queue()
        q:close()
        failure("PicklingError", a.send, a, q)
    end)

    it("T-C-09 CON-14 keeps messages apart, and an empty one is one",
        function()
        local a, b = mp.Pipe()
        a:send_bytes("one")
        a:send_bytes("")
        a:send_bytes("three")
        assert.are.equal("one", b:recv_bytes())
        assert.are.equal("", b:recv_bytes())
        assert.are.equal("three", b:recv_bytes())
    end)

    it("CON-01 T-C-07 goes one way when it is not duplex", function()
        for _, opts in ipairs{{false}, {{duplex = false}}} do
            local r, w = mp.Pipe(opts[1])
            assert.is_true(r.readable and not r.writable)
            assert.is_true(w.writable and not w.readable)
            w:send("x")
            assert.are.equal("x", r:recv())
            for _, name in ipairs{"send", "send_bytes"} do
                assert.are.equal(name .. ": connection is read-only",
                    failure("OSError", r[name], r, "x"))
            end
            for _, name in ipairs{"recv", "recv_bytes", "poll", "try_recv",
                "recv_bytes_into"} do
                assert.are.equal(name .. ": connection is write-only",
                    failure("OSError", w[name], w))
            end
        end
    end)

    it("CON-04 CON-05 is at its end when the other end is closed", function()
        local a, b = mp.Pipe()
        a:send("last")
        a:close()
        assert.is_true(b:poll())
        assert.are.equal("last", b:recv())
        assert.is_true(b:poll())
        assert.is_true(b:poll(nil))
        for _, name in ipairs{"recv", "recv_bytes"} do
            assert.are.equal(name .. ": the other end is closed",
                failure("EOF", b[name], b))
        end
        assert.are.same({false, "EOF"}, {b:try_recv()})
    end)

    it("T-C-05 CON-03 breaks when the other end is closed, and kills nobody",
        function()
        local a, b = mp.Pipe()
        b:close()
        for _, value in ipairs{1, "x", {}, ("x"):rep(100000)} do
            assert.are.equal("send: the other end is closed",
                failure("BrokenPipe", a.send, a, value))
        end
        failure("BrokenPipe", a.send_bytes, a, "x")
    end)

    it("CON-04 T-C-05 is at its end when the other process was killed",
        function()
        local a, b = mp.Pipe()
        local p = start(function(c)
            c:send("ready")
            mp.sleep(100)
        end, b)
        b:close()
        assert.are.equal("ready", a:recv())
        p:kill()
        assert.are.same({false, "EOF"}, {a:try_recv(10)})
        failure("BrokenPipe", a.send, a, 1)
        p:join()
        p:close()
    end)

    it("T-C-13 delivers 100 MB to one who comes late", function()
        local a, b = mp.Pipe()
        local p = start(function(c, size)
            c:send(("x"):rep(size))
            assert(c:recv() == "done")
        end, b, 100 << 20)
        b:close()
        mp.sleep(0.2)
        assert.is_true(a:recv() == ("x"):rep(100 << 20))
        a:send("done")
        finish(p)
    end)

    it("CON-03 makes its sender wait while it is full", function()
        local a, b = mp.Pipe()
        local p = start(function(c)
            for i = 1, 3000 do
                c:send({i, ("x"):rep(500)})
            end
        end, b)
        b:close()
        for i = 1, 3000 do
            assert.are.equal(i, a:recv()[1])
        end
        finish(p)
    end)

    it("CON-03 several may send and receive: each message arrives once",
        function()
        local a, b = mp.Pipe()
        local senders = {}
        for i = 1, 3 do
            senders[i] = start(function(c)
                for k = 1, 200 do
                    c:send({i, k, ("x"):rep(k * 7)})
                end
            end, b)
        end
        local seen = {}
        for _ = 1, 600 do
            local i, k, text = table.unpack(a:recv())
            assert.are.equal(k * 7, #text)
            assert.are.equal((seen[i] or 0) + 1, k)
            seen[i] = k
        end
        for _, p in ipairs(senders) do
            finish(p)
        end
    end)

    it("T-C-03 CON-03 refuses what cannot travel, and goes on", function()
        local a, b = mp.Pipe()
        local co = coroutine.create(print)
        assert.are.equal("cannot pickle a coroutine: value.a[3]",
            failure("PicklingError", a.send, a, {a = {1, 2, co}}))
        failure("PicklingError", a.send, a, io.stdout)
        failure("TypeError", a.send, a)
        assert.is_false(b:poll())
        a:send("still")
        assert.are.equal("still", b:recv())
    end)

    it("CON-13 T-C-19 a connection goes over another, and through a queue",
        function()
        local a, b = mp.Pipe()
        local r, w = mp.Pipe(false)
        a:send({w})
        w:close()
        local got <close> = b:recv()[1]
        assert.is_true(got.writable and not got.readable)
        local q <close> = mp.Queue()
        q:put(got)
        got:close()
        local again <close> = q:get()
        again:send("far")
        assert.are.equal("far", r:recv())
    end)
end)

describe("a connection", function()
    it("CON-05 polls at once, for a time, and for ever", function()
        local a, b = mp.Pipe()
        assert.is_false(b:poll())
        assert.is_false(b:poll(0))
        assert.is_false(b:poll(-1))
        local before = mp.monotonic()
        assert.is_false(b:poll(0.05))
        assert.is_true(mp.monotonic() - before >= 0.05)
        a:send(1)
        assert.is_true(b:poll())
        assert.is_true(b:poll(nil))
        failure("ValueError", b.poll, b, 0 / 0)
        failure("TypeError", b.poll, b, "x")
        assert.is_true(b:poll(1e9))
    end)

    it("CON-04 tries to receive without an error", function()
        local a, b = mp.Pipe()
        assert.are.same({false, "TimeoutError"}, {b:try_recv()})
        assert.are.same({false, "TimeoutError"}, {b:try_recv(0.02)})
        a:send(nil)
        local got = table.pack(b:try_recv())
        assert.are.equal(2, got.n)
        assert.is_true(got[1])
        assert.is_nil(got[2])
    end)

    it("CON-06 sends a part of bytes, of an array, too", function()
        local a, b = mp.Pipe()
        for _, case in ipairs{{0, nil, "abcdef"}, {2, nil, "cdef"},
            {2, 3, "cde"}, {6, nil, ""}, {0, 0, ""}, {nil, 2, "ab"}} do
            a:send_bytes("abcdef", case[1], case[2])
            assert.are.equal(case[3], b:recv_bytes())
        end
        a:send_bytes(mp.Array("H", {0x6261, 0x6463}), 1)
        assert.are.equal("bcd", b:recv_bytes())
        a:send_bytes(mp.RawArray("c", "raw"))
        assert.are.equal("raw", b:recv_bytes())
    end)

    it("CON-06 says what is wrong with a part", function()
        local a <close> = mp.Pipe()
        local function says(text, ...)
            assert.are.equal("send_bytes: " .. text,
                failure("ValueError", a.send_bytes, a, "abc", ...))
        end
        says("offset is negative", -1)
        says("buffer length < offset", 4)
        says("size is negative", 0, -1)
        says("buffer length < offset + size", 2, 2)
        says("buffer length < offset + size", 0, math.maxinteger)
        says("argument 'offset': integer expected, got 1.5", 1.5)
        for _, value in ipairs{5, {}, true} do
            failure("TypeError", a.send_bytes, a, value)
        end
        failure("TypeError", a.send_bytes, a)
        failure("TypeError", a.send_bytes, a, "abc", "x")
    end)

    it("CON-07 T-C-11 refuses a message that is too long, and is then "
        .. "write-only", function()
        local a, b = mp.Pipe()
        a:send_bytes("abc")
        assert.are.equal("abc", b:recv_bytes(3))
        a:send_bytes("abcde")
        assert.are.equal("recv_bytes: bad message length",
            failure("OSError", b.recv_bytes, b, 3))
        assert.is_false(b.readable)
        assert.are.equal("recv: connection is write-only",
            failure("OSError", b.recv, b))
        b:send("still")
        assert.are.equal("still", a:recv())
        assert.are.equal("recv_bytes: negative maxlength",
            failure("ValueError", a.recv_bytes, a, -1))
        failure("TypeError", a.recv_bytes, a, "x")
    end)

    it("CON-07 is closed by that when it could only read", function()
        local r, w = mp.Pipe(false)
        w:send_bytes("abcde")
        failure("OSError", r.recv_bytes, r, 3)
        assert.is_true(r.closed)
        failure("BrokenPipe", w.send, w, 1)
    end)

    it("CON-08 receives into a shared array", function()
        local a, b = mp.Pipe()
        local bytes = mp.Array("c", 8)
        a:send_bytes("abc")
        assert.are.equal(3, b:recv_bytes_into(bytes))
        a:send_bytes("def")
        assert.are.equal(3, b:recv_bytes_into(bytes, 5))
        assert.are.equal("abc\0\0def", bytes.raw)
        local numbers = mp.RawArray("i", {1, 2, 3})
        a:send_bytes(string.pack("i4i4", 7, -8))
        assert.are.equal(8, b:recv_bytes_into(numbers, 4))
        assert.are.same({1, 7, -8}, numbers:slice())
        a:send_bytes("")
        assert.are.equal(0, b:recv_bytes_into(bytes, 8))
    end)

    it("CON-08 a message that does not fit is in the error", function()
        local a, b = mp.Pipe()
        local bytes = mp.RawArray("c", "12345678")
        a:send_bytes("abcdef")
        local message, e = failure("BufferTooShort", b.recv_bytes_into, b,
            bytes, 3)
        assert.are.equal("recv_bytes_into: the message has 6 bytes", message)
        assert.are.equal("abcdef", e.data)
        assert.are.equal("12345678", bytes.raw)
        a:send_bytes("next")
        assert.are.equal(4, b:recv_bytes_into(bytes))
    end)

    it("CON-08 keeps the message while it waits for the array", function()
        local a, b = mp.Pipe()
        local array, held, go = mp.Array("c", 40000), mp.Event(), mp.Event()
        local p = start(function()
            array:get_lock():acquire()
            held:set()
            go:wait(20)
            array:get_lock():release()
        end)
        held:wait()
        a:send_bytes(("x"):rep(40000))
        a:send_bytes(("y"):rep(40000))
        local second
        at_a_slice(function()
            second = b:recv_bytes()
            b:close()
            go:set()
        end)
        assert.are.equal(40000, b:recv_bytes_into(array))
        debug.sethook()
        assert.is_true(("y"):rep(40000) == second)
        assert.is_true(("x"):rep(40000) == array.raw)
        finish(p)
    end)

    it("CON-08 says what is wrong with a place", function()
        local a, b = mp.Pipe()
        local bytes = mp.RawArray("b", 8)
        assert.are.equal("recv_bytes_into: negative offset",
            failure("ValueError", b.recv_bytes_into, b, bytes, -1))
        assert.are.equal("recv_bytes_into: offset too large",
            failure("ValueError", b.recv_bytes_into, b, bytes, 9))
        failure("ValueError", b.recv_bytes_into, b, mp.RawArray("i", 2), 3)
        failure("ValueError", b.recv_bytes_into, b, mp.RawArray("u", 2))
        failure("TypeError", b.recv_bytes_into, b, "text")
        failure("TypeError", b.recv_bytes_into, b)
        -- A message that would end within a cell is kept out of the array.
        local numbers = mp.RawArray("i", {1, 2})
        a:send_bytes("abcde")
        local _, e = failure("BufferTooShort", b.recv_bytes_into, b, numbers)
        assert.are.equal("abcde", e.data)
        assert.are.same({1, 2}, numbers:slice())
    end)

    it("CON-09 CON-10 CON-11 CON-12 has a number until it is closed",
        function()
        local a, b
        do
            local c <close>, d = mp.Pipe()
            local _ <close> = d
            assert.are.equal("integer", math.type(c:fileno()))
            assert.is_truthy(tostring(c):find("^<Connection %d+>$"))
            assert.is_true(c.readable and c.writable and not c.closed)
            assert.is_nil(c.nothing)
            failure("TypeError", function() c.closed = true end)
            a, b = c, d
        end
        assert.is_true(a.closed and b.closed)
        a:close()
        assert.are.equal("<Connection closed>", tostring(a))
        for _, name in ipairs{"fileno", "send", "recv", "send_bytes",
            "recv_bytes", "recv_bytes_into", "poll", "try_recv"} do
            assert.are.equal(name .. ": handle is closed",
                failure("OSError", a[name], a, 1))
        end
    end)

    it("CON-11 is used with a colon", function()
        local a <close> = mp.Pipe()
        local message = failure("TypeError", a.recv)
        assert.is_truthy(message:find("use ':'", 1, true))
        failure("TypeError", a.send, mp.Lock(), 1)
        failure("TypeError", a.close, io.stdout)
    end)

    it("CON-02 says what is no descriptor", function()
        assert.are.equal("Connection: invalid handle: -1",
            failure("ValueError", Connection, -1))
        assert.are.equal("Connection: at least one of `readable` and "
            .. "`writable` must be true",
            failure("ValueError", Connection, 0, false, false))
        local _, e = failure("OSError", Connection, 1000000)
        assert.are.equal("EBADF", e.code)
        failure("TypeError", Connection, "0")
        failure("TypeError", Connection, 0, "yes")
        failure("TypeError", Connection, 0, true, true, true)
        failure("TypeError", Connection, {handle = 0, other = 1})
        failure("TypeError", mp.Pipe, "duplex")
        failure("TypeError", mp.Pipe, {other = 1})
    end)

    it("CON-02 is made of a descriptor, and owns it", function()
        local path = helper.tmpname()
        os.remove(path)
        assert(os.execute("mkfifo " .. helper.quote(path)))
        local file = assert(io.open(path, "r+b"))
        local fd
        for name in require("lfs").dir("/proc/self/fd") do
            local target = require("lfs").symlinkattributes(
                "/proc/self/fd/" .. name, "target")
            fd = target == path and math.tointeger(name) or fd
        end
        local copy = require("mp.core").DupFd(fd):detach()
        local c <close> = Connection{handle = copy, writable = false}
        file:write("\0\0\0\5hello")
        file:flush()
        assert.are.equal("hello", c:recv_bytes())
        assert.are.equal(copy, c:fileno())
        file:close()
    end)

    it("CON-14 speaks as mp.pickle does", function()
        local a, b = mp.Pipe()
        for _, value in ipairs{1, 1000, 2.5, true, "x", ("x"):rep(50)} do
            a:send(value)
            assert.are.equal(value, mp.pickle.loads(b:recv_bytes()))
            a:send_bytes(mp.pickle.dumps(value))
            assert.are.equal(value, b:recv())
        end
    end)

    it("CON-04 lets a rebuilding function receive the next message",
        function()
        local a, b = mp.Pipe()
        local class = {__reduce = function(o) return o.rebuild, o.text end}
        for _, size in ipairs{10, 5000, 200000} do
            local text = ("x"):rep(size)
            a:send(setmetatable({text = text, rebuild = function(s)
                return {#s, require("spec.connection_end").conn:recv()}
            end}, class))
            a:send(("y"):rep(size))
            package.loaded["spec.connection_end"] = {conn = b}
            local got = b:recv()
            package.loaded["spec.connection_end"] = nil
            assert.are.equal(size, got[1])
            assert.is_true(got[2] == ("y"):rep(size))
        end
    end)
end)
