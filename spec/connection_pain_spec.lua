-- Connections whose other end means no good, or goes at the wrong moment.

local helper = require "spec.helper"
local mp = require "mp"
local connection = require "mp.connection"

local failure, at_a_slice = helper.failure, helper.at_a_slice
local start, finish = helper.start, helper.finish
local Client, Listener = connection.Client, connection.Listener

--- A connection that reads what is written to the file.
local function raw()
    local path = helper.tmpname()
    os.remove(path)
    assert(os.execute("mkfifo " .. helper.quote(path)))
    local file = assert(io.open(path, "r+b"))
    file:setvbuf("no")
    local lfs, fd = require "lfs", nil
    for name in lfs.dir("/proc/self/fd") do
        if lfs.symlinkattributes("/proc/self/fd/" .. name, "target")
            == path then
            fd = math.tointeger(name)
        end
    end
    local c = connection.Connection(
        require("mp.core").DupFd(fd):detach(), true, false)
    return c, file
end

--- A message as it goes over a stream.
local function framed(bytes)
    return string.pack(">i4", #bytes) .. bytes
end

describe("a connection", function()
    it("CON-14 takes a huge length for what its bytes are", function()
        for _, head in ipairs{"\x7f\xff\xff\xff",
            "\xff\xff\xff\xff\0\0\x7f\xff\xff\xff\xff\xff"} do
            local c, file = raw()
            local before = collectgarbage("count")
            file:write(head, "some")
            assert.are.same({false, "TimeoutError"}, {c:try_recv(0.02)})
            assert.is_true(collectgarbage("count") - before < 1000)
            assert.are.equal("recv_bytes: bad message length",
                failure("OSError", function()
                    local d, other = raw()
                    other:write(head)
                    d:recv_bytes(1 << 20)
                end))
            c:close()
            file:close()
        end
    end)

    it("CON-04 ends in the middle of a message with an error", function()
        local l <close> = Listener()
        local p = start(function(address)
            local c = require("mp.connection").Client(address)
            c:send_bytes("whole")
            -- Too much for the socket: the rest never comes.
            c:send_bytes(("x"):rep(50 << 20))
        end, l.address)
        local c <close> = l:accept(20)
        assert.are.equal("whole", c:recv_bytes())
        assert.is_true(c:poll(20))
        p:kill()
        p:join()
        p:close()
        assert.are.equal("recv_bytes: got end of file during message",
            failure("OSError", c.recv_bytes, c))
        assert.is_true(c:poll())
        failure("OSError", c.recv_bytes, c)
    end)

    it("CON-04 refuses what is no pickle, and goes on", function()
        local a, b = mp.Pipe()
        for _, bytes in ipairs{"", "x", "garbage that is longer than a head",
            ("g"):rep(5000), ("g"):rep(100000),
            mp.pickle.dumps({1, 2, 3}):sub(1, -2),
            mp.pickle.dumps(1) .. "\0",
            mp.pickle.dumps("x"):sub(1, 6) .. "\255x"} do
            a:send_bytes(bytes)
            a:send("next")
            failure("PicklingError", b.recv, b)
            assert.are.equal("next", b:recv())
        end
    end)

    it("CON-04 survives every byte of a message changed", function()
        local a, b = mp.Pipe()
        local good = mp.pickle.dumps({1, "two", {x = 3.5}, nil, true})
        for i = 1, #good do
            for _, byte in ipairs{0, 0x7f, 0xff, good:byte(i) ~ 1} do
                a:send_bytes(good:sub(1, i - 1) .. string.char(byte)
                    .. good:sub(i + 1))
                pcall(b.recv, b)
            end
        end
        a:send("whole")
        assert.are.equal("whole", b:recv())
    end)

    it("CON-04 does not take a stranger's code or shared objects", function()
        local c, file = raw()
        local family = mp.pickle.dumps(function() return 1 end)
        file:write(framed(family))
        assert.are.equal(1, c:recv()()) -- this family's own
        local changed = family:sub(1, -2)
            .. string.char(family:byte(-1) ~ 1)
        file:write(framed(changed))
        local message = failure("PicklingError", c.recv, c)
        assert.is_truthy(message:find("has not proved", 1, true), message)
        local lock = mp.Lock()
        local handle = mp.pickle.dumps({lock})
        file:write(framed(handle:sub(1, -2)
            .. string.char(handle:byte(-1) ~ 1)))
        failure("PicklingError", c.recv, c)
        c:close()
        file:close()
    end)

    it("CON-03 PAIN-12 the rest of an interrupted message goes first",
        function()
        local l <close> = Listener()
        local go = mp.Event()
        local p = start(function(address)
            local c <close> = require("mp.connection").Client(address)
            assert(go:wait(20))
            assert(c:recv() == ("x"):rep(20 << 20))
            assert(c:recv() == "next")
            c:send("well")
        end, l.address)
        local c <close> = l:accept(20)
        local text = ("x"):rep(20 << 20)
        at_a_slice(function()
            assert.are.equal("StateError",
                select(2, pcall(c.send, c, "in between")).kind)
            error("stop", 0)
        end)
        local ok, e = pcall(c.send, c, text)
        debug.sethook()
        assert.is_false(ok)
        assert.are.equal("stop", e)
        go:set()
        c:send("next")
        assert.are.equal("well", c:recv())
        finish(p)
    end)
end)

describe("a finalizer", function()
    --- Receives three large messages by `how` while finalizers do `what`.
    local function received_amid(how, what)
        local mine, theirs = mp.Pipe()
        local p = start(function(c)
            local sizes = {}
            for i = 1, 3 do
                for _ = 1, 20 do
                    setmetatable({}, {__gc = function() what(c) end})
                end
                local ok, text = pcall(c[how], c)
                if not ok then break end
                sizes[i] = #text
            end
            for i, size in ipairs(sizes) do assert(size == 8 << 20, i) end
            os.exit(#sizes)
        end, theirs)
        theirs:close()
        for _ = 1, 3 do
            if not pcall(mine[how:gsub("recv", "send")], mine,
                ("x"):rep(8 << 20)) then
                break
            end
        end
        assert.is_true(p:join(20))
        local code = p.exitcode
        p:close()
        mine:close()
        return code
    end

    for _, how in ipairs{"recv", "recv_bytes"} do
        it("CON-05 may close the connection that " .. how .. " waits for",
            function()
            local n = received_amid(how, function(c) pcall(c.close, c) end)
            assert.is_true(n >= 0 and n < 3, n)
        end)

        it("CON-05 may take the message that " .. how .. " waits for",
            function()
            local n = received_amid(how, function(c)
                if c:poll(0) then pcall(c[how], c) end
            end)
            assert.is_true(n >= 0 and n <= 3, n)
        end)
    end

    it("CON-05 may close it while its message waits for an array", function()
        local mine, theirs = mp.Pipe()
        local array, held = mp.Array("c", 9 << 20), mp.Event()
        array:acquire()
        local p = start(function(c)
            local waiting = false
            local function lie_in_wait()
                setmetatable({}, {__gc = function()
                    if waiting then c:close() else lie_in_wait() end
                end})
            end
            lie_in_wait()
            collectgarbage("incremental", 100, 1000)
            collectgarbage() -- the next begins at once
            held:set()
            waiting = true
            local size = c:recv_bytes_into(array)
            assert(size == 8 << 20)
            assert(array[1] == "x" and array[size] == "x" and c.closed)
        end, theirs)
        theirs:close()
        assert(held:wait(20))
        -- What is sent has arrived, and what it is for is not to be had.
        mine:send_bytes(("x"):rep(8 << 20))
        assert.is_false(p:join(0.2))
        array:release()
        assert.is_true(p:join(20))
        assert.equal(0, p.exitcode)
        p:close()
        mine:close()
    end)

    it("CON-05 runs for a large message once, not for each behind it",
        function()
        local mine, theirs = mp.Pipe()
        local p = start(function(c)
            c:send_bytes(("x"):rep(8 << 20))
        end, mine)
        local ran = 0
        assert.equal(8 << 20, #theirs:recv_bytes())
        assert.is_true(p:join(20))
        p:close()
        for _ = 1, 50 do
            setmetatable({}, {__gc = function() ran = ran + 1 end})
            assert.is_false((theirs:try_recv(0)))
        end
        assert.is_true(ran < 10, ran)
    end)
end)

describe("an interrupted message", function()
    it("CON-03 PAIN-12 has its shared objects when its rest comes", function()
        local l <close> = Listener{authkey = "k"}
        local go = mp.Event()
        local p = start(function(address)
            local c <close> = require("mp.connection").Client(address, nil,
                "k")
            assert(go:wait(20))
            local queue = c:recv()[2]
            assert(c:recv() == "next")
            queue:put("well")
            c:send(queue:get())
        end, l.address)
        local c <close> = l:accept(20)
        at_a_slice(function() error("stop", 0) end)
        local _, e = pcall(c.send, c, {("x"):rep(5 << 20), mp.Queue()})
        debug.sethook()
        assert.are.equal("stop", e)
        collectgarbage()
        collectgarbage()
        go:set()
        c:send("next")
        assert.are.equal("well", c:recv())
        finish(p)
    end)
end)

describe("a listener", function()
    it("CON-17 PAIN-13 is not kept waiting by callers that say nothing",
        function()
        local l <close> = Listener{authkey = "k"}
        local silent = {}
        for i = 1, 70 do
            silent[i] = Client(l.address)
        end
        local p = start(function(address)
            local c <close> = require("mp.connection").Client(address, nil,
                "k")
            c:send("it is me")
        end, l.address)
        local c <close> = l:accept(20)
        assert.are.equal("it is me", c:recv())
        finish(p)
        for _, other in ipairs(silent) do
            other:close()
        end
    end)

    it("CON-17 CON-20 drops garbage, and callers that hang up or are late",
        function()
        local l <close> = Listener{authkey = "k", handshake_timeout = 0.1}
        local silent, garbage = Client(l.address), Client(l.address)
        local gone = Client(l.address)
        garbage:send_bytes(("g"):rep(1000))
        gone:close()
        failure("TimeoutError", l.accept, l, 0.3)
        for _, c in ipairs{silent, garbage} do
            assert.are.equal("#CHALLENGE#", c:recv_bytes():sub(1, 11))
            assert.are.same({false, "EOF"}, {c:try_recv(5)})
            c:close()
        end
        local rude = Client(l.address)
        rude:send_bytes("not a digest of any kind")
        local message = failure("AuthenticationError", l.accept, l, 5)
        assert.is_truthy(message:find("protocol error", 1, true))
        rude:close()
    end)

    it("CON-19 its caller is not kept waiting longer than it will",
        function()
        local l <close> = Listener()
        assert.are.equal("Client: no connection in time", failure(
            "TimeoutError", Client, l.address, nil, "k", 0.1))
        local c <close> = l:accept(5)
        assert.are.same({false, "EOF"}, {c:try_recv(5)})
    end)
end)
