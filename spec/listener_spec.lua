-- Listener and Client: who may connect, and where.

local helper = require "spec.helper"
local lfs = require "lfs"
local mp = require "mp"
local connection = require "mp.connection"

local failure = helper.failure
local start, finish = helper.start, helper.finish
local Client, Listener = connection.Client, connection.Listener

--- Connects, says hello, and waits for an answer.
local function call(address, key)
    local c <close> = require("mp.connection").Client(address, nil, key)
    c:send({"hello", function(x) return x + 1 end})
    assert(c:recv() == "bye")
end

--- What `listener` gets from such a caller.
local function answer(listener)
    local c <close> = listener:accept(20)
    local hello, f = table.unpack(c:recv())
    assert.are.equal("hello", hello)
    assert.are.equal(3, f(2))
    c:send("bye")
end

describe("a listener", function()
    it("CON-16 CON-17 CON-18 CON-19 is called at a path, and removes it",
        function()
        local path = helper.tmpname()
        os.remove(path)
        local l <close> = Listener(path, "AF_UNIX")
        assert.are.equal(path, l.address)
        assert.are.equal("socket", lfs.attributes(path, "mode"))
        local p = start(call, path)
        answer(l)
        assert.is_nil(l.last_accepted)
        finish(p)
        local _, e = failure("OSError", Listener, path)
        assert.are.equal("EADDRINUSE", e.code)
        l:close()
        assert.is_nil(lfs.attributes(path))
        assert.is_nil(l.address)
        l:close()
        assert.are.equal("accept: listener is closed",
            failure("OSError", l.accept, l))
        assert.are.equal("<Listener closed>", tostring(l))
    end)

    it("CON-16 CON-18 is called at a port, an abstract name, and where it "
        .. "likes", function()
        for _, address in ipairs{{"localhost", 0}, {"127.0.0.1", 0},
            "\0mp-spec-" .. mp.getpid()} do
            local l <close> = Listener(address)
            local p = start(call, l.address)
            answer(l)
            if type(address) == "table" then
                assert.are.equal("127.0.0.1", l.address[1])
                assert.is_true(l.address[2] > 0)
                assert.are.equal("127.0.0.1", l.last_accepted[1])
            else
                assert.are.equal(address, l.address)
            end
            finish(p)
        end
        local l <close> = Listener()
        assert.is_nil(l.last_accepted)
        assert.are.equal("socket", lfs.attributes(l.address, "mode"))
        local c <close> = Client(l.address)
        l:accept(5):close()
        local any <close> = Listener{family = "AF_INET"}
        assert.are.equal("127.0.0.1", any.address[1])
    end)

    it("CON-16 CON-21 says what is no address, family or key", function()
        local function says(text, f, ...)
            local message = failure("ValueError", f, ...)
            assert.is_truthy(message:find(text, 1, true), message)
        end
        says("Family AF_PIPE is not recognized.", Listener, nil, "AF_PIPE")
        says("Family AF_PIPE is not recognized.", Listener, "x", "AF_PIPE")
        says("Listener: unrecognized family: 'AF_FOO'", Listener, nil,
            "AF_FOO")
        says("unrecognized family", connection.arbitrary_address, "AF_FOO")
        says("address type of 5 unrecognized", Client, 5)
        says("address type of 5 unrecognized", Listener, 5)
        says("address type of", Listener, {"localhost", "80"})
        says("is no address of family AF_UNIX", Client, {"x", 1}, "AF_UNIX")
        says("is no address of family AF_INET", Client, "x", "AF_INET")
        says("port must be 0 to 65535", Client, {"localhost", 65536})
        says("is no path", Listener, "a\0b")
        says("out of range", Listener, nil, nil, -1)
        says("handshake_timeout must be", Listener{
            handshake_timeout = 1}.accept and Listener,
            {handshake_timeout = 0})
        assert.is_truthy(failure("TypeError", Listener, nil, nil, nil, 5)
            :find("authkey should be a byte string", 1, true))
        failure("TypeError", Client, "x", nil, true)
        failure("TypeError", Listener, {other = 1})
        failure("TypeError", Listener, nil, nil, "many")
        failure("TypeError", Listener().accept, mp.Lock())
    end)

    it("CON-16 CON-19 takes no zero byte in a host, and stays", function()
        assert.are.equal("Client: '127.0.0.1' is no host", (failure(
            "ValueError", Client, {"127.0.0.1\0.example", 1})))
        local l <close> = Listener()
        assert.are.equal("cannot pickle a Listener: it belongs to the process "
            .. "that made it", (failure("PicklingError", mp.pickle.dumps, l)))
    end)

    it("CON-19 tells who calls nobody why", function()
        local _, e = failure("OSError", Client, "/nowhere/at/all")
        assert.are.equal("ENOENT", e.code)
        local path = helper.tmpname()
        _, e = failure("OSError", Client, path)
        assert.are.equal("ECONNREFUSED", e.code)
        local l <close> = Listener{family = "AF_INET"}
        local address = l.address
        l:close()
        _, e = failure("OSError", Client, address)
        assert.are.equal("ECONNREFUSED", e.code)
        _, e = failure("OSError", Client, ("x"):rep(200))
        assert.are.equal("ENAMETOOLONG", e.code)
    end)

    it("T-C-17 CON-17 gets what a caller sent before it hung up", function()
        local l <close> = Listener()
        local c = Client(l.address)
        c:send("gone")
        c:close()
        local d <close> = l:accept(5)
        assert.are.equal("gone", d:recv())
        failure("EOF", d.recv, d)
    end)

    it("CON-17 waits as long as it is told", function()
        local l <close> = Listener{authkey = "k"}
        local before = mp.monotonic()
        assert.are.equal("accept: nobody has connected in time",
            failure("TimeoutError", l.accept, l, 0.05))
        assert.is_true(mp.monotonic() - before >= 0.05)
        failure("TimeoutError", l.accept, l, 0)
        failure("ValueError", l.accept, l, 0 / 0)
    end)

    it("CON-17 CON-20 lets in who knows the key, and tells of who does not",
        function()
        for _, key in ipairs{"secret", "", mp.current_process().authkey} do
            local l <close> = Listener{authkey = key}
            local p = start(function(address)
                local connect = require("mp.connection").Client
                local ok, e = pcall(connect, address, nil, "wrong")
                assert(not ok and e.kind == "AuthenticationError")
                assert(e.message == "Client: digest sent was rejected",
                    e.message)
            end, l.address)
            assert.are.equal("accept: digest received was wrong",
                failure("AuthenticationError", l.accept, l, 20))
            finish(p)
            p = start(call, l.address, tostring(key))
            answer(l)
            finish(p)
        end
    end)

    it("CON-17 CON-20 asks all who have connected, whatever one of them says",
        function()
        local l <close> = Listener{authkey = "k"}
        local strange <close> = Client(l.address)
        strange:send_bytes("no answer")
        local patient <close> = Client(l.address)
        failure("AuthenticationError", l.accept, l, 0)
        -- Who polls the listener hears of nobody now, and needs not.
        assert.is_true(patient:poll(5))
        assert.matches("^#CHALLENGE#", patient:recv_bytes())
    end)

    it("CON-19 CON-20 its caller finds out that it has another key",
        function()
        local l <close> = Listener{authkey = "mine"}
        local p = start(function(address)
            local l2 = require "mp.connection"
            local c <close> = l2.Client(address)
            -- Answers all that it is asked, as one who listens would.
            local ok, e = pcall(l2.deliver_challenge, c, "other")
            assert(not ok, e)
        end, l.address)
        pcall(l.accept, l, 1)
        p:join()
        p:close()
        local plain <close> = Listener()
        local caller = start(function(address)
            local connect = require("mp.connection").Client
            local ok, e = pcall(connect, address, nil, "k")
            assert(not ok and e.kind == "AuthenticationError", e.message)
            assert(e.message == "Client: digest received was wrong")
        end, plain.address)
        local c <close> = plain:accept(20)
        connection.deliver_challenge(c, "k")
        failure("AuthenticationError", connection.answer_challenge, c, "no")
        finish(caller)
    end)

    it("CON-20 each half of the handshake can be had alone", function()
        for _, digest in ipairs{"sha256", "md5"} do
            local a, b = mp.Pipe()
            local p = start(function(c, name)
                local half = require "mp.connection"
                half.answer_challenge(c, "k")
                half.deliver_challenge(c, "k", name)
            end, b, digest)
            connection.deliver_challenge(a, "k", digest)
            connection.answer_challenge(a, "k")
            finish(p)
        end
        local a, b = mp.Pipe()
        failure("ValueError", connection.deliver_challenge, a, "k", "sha1")
        failure("TypeError", connection.deliver_challenge, a, 5)
        failure("TypeError", connection.answer_challenge, a, nil)
        b:close()
        failure("EOF", connection.answer_challenge, a, "k")
    end)

    it("CON-20 code comes from those only who know the key", function()
        local l <close> = Listener()
        local script = helper.tmpfile([[
            local mp = require "mp"
            local c = mp.connection.Client(arg[1], nil, arg[2])
            c:send(function() return "code" end)
            c:send({mp.Lock()})
            c:send({1, "plain"})
        ]])
        local function run(address, key)
            return assert(io.popen(("%s %s %s %s"):format(
                helper.quote(helper.mplua), helper.quote(script),
                helper.quote(address), key or "")))
        end
        local other <close> = run(l.address)
        local c <close> = l:accept(20)
        local message = failure("PicklingError", c.recv, c)
        assert.is_truthy(message:find("has not proved", 1, true), message)
        failure("PicklingError", c.recv, c)
        assert.are.same({1, "plain"}, c:recv())
        local keyed <close> = Listener{authkey = "k"}
        local another <close> = run(keyed.address, "k")
        local d <close> = keyed:accept(20)
        assert.are.equal("code", d:recv()())
        message = failure("PicklingError", d.recv, d)
        assert.is_truthy(message:find("shared objects", 1, true), message)
        assert.are.same({1, "plain"}, d:recv())
    end)

    it("CON-17 is shared by the children that it is given to", function()
        local l <close> = Listener{authkey = "k"}
        local p = start(function(address)
            for _ = 1, 2 do
                local c <close> = require("mp.connection").Client(address,
                    nil, "k")
                c:send("x")
                c:recv()
            end
        end, l.address)
        local child = start(function()
            local c <close> = l:accept(20)
            c:send(c:recv())
        end)
        finish(child)
        assert.are.equal("socket", lfs.attributes(l.address, "mode"))
        local c <close> = l:accept(20)
        c:send(c:recv())
        finish(p)
    end)

    it("CON-21 names families and addresses", function()
        assert.are.equal("AF_UNIX", connection.default_family)
        assert.are.same({"AF_UNIX", "AF_INET", "AF_INET6"},
            connection.families)
        assert.are.equal("AF_UNIX", connection.address_type("/tmp/x"))
        assert.are.equal("AF_INET", connection.address_type{"host", 80})
        assert.are.equal("AF_INET6", connection.address_type{"::1", 80})
        assert.are.equal("string",
            type(connection.arbitrary_address("AF_UNIX")))
        assert.are.equal(0, connection.arbitrary_address("AF_INET")[2])
    end)

    it("CON-21 wraps a connection with other ways to pickle", function()
        local a, b = mp.Pipe()
        local dumps, loads = tostring, tonumber
        local x = connection.ConnectionWrapper(a, dumps, loads)
        local y <close> = connection.ConnectionWrapper(b, dumps, loads)
        x:send(12.5)
        assert.is_true(y:poll(1))
        assert.are.equal(12.5, y:recv())
        x:send_bytes("raw")
        assert.are.equal("raw", y:recv_bytes())
        assert.are.equal(a:fileno(), x:fileno())
        x:close()
        assert.is_true(a.closed)
        failure("TypeError", connection.ConnectionWrapper, 5, dumps, loads)
        failure("TypeError", connection.ConnectionWrapper, a, "x", loads)
    end)
end)

-- The other end is Python ----------------------------------------------------

local has_python = os.execute(
    "python3 -c 'import multiprocessing.connection' 2>/dev/null")

local python_it = has_python and it or function(title)
    pending(title .. " (no python3)")
end

--- The handshake of 3.12 and later, for Pythons that do not have it.
local MODERN <const> = [[
import hmac, os, sys
from multiprocessing import connection as C
def deliver(c, key):
    m = b'{sha256}' + os.urandom(40)
    c.send_bytes(b'#CHALLENGE#' + m)
    r = c.recv_bytes(256)
    assert r == b'{sha256}' + hmac.new(key, m, 'sha256').digest(), r
    c.send_bytes(b'#WELCOME#')
def answer(c, key):
    m = c.recv_bytes(256)
    assert m.startswith(b'#CHALLENGE#{sha256}'), m
    m = m[11:]
    c.send_bytes(b'{sha256}' + hmac.new(key, m, 'sha256').digest())
    assert c.recv_bytes(256) == b'#WELCOME#'
if sys.argv[2] == 'modern':
    C.deliver_challenge, C.answer_challenge = deliver, answer
]]

local function python(script, ...)
    local words = {"python3", helper.quote(helper.tmpfile(MODERN .. script))}
    for _, word in ipairs{...} do
        words[#words + 1] = helper.quote(word)
    end
    return assert(io.popen(table.concat(words, " ") .. " 2>&1"))
end

for _, handshake in ipairs{"own", "modern"} do
    describe("Python, by its " .. handshake .. " handshake,", function()
        python_it("CON-14 CON-20 calls, and exchanges bytes", function()
            local l <close> = Listener{authkey = "k"}
            local p <close> = python([[
c = C.Client(sys.argv[1], authkey=b'k')
c.send_bytes(b'small'); c.send_bytes(b'x' * 100000)
assert c.recv_bytes() == b''; assert c.recv_bytes() == b'y' * 200000
print('well')
]], l.address, handshake)
            local c <close> = l:accept(20)
            assert.are.equal("small", c:recv_bytes())
            assert.are.equal(100000, #c:recv_bytes())
            c:send_bytes("")
            c:send_bytes(("y"):rep(200000))
            assert.are.equal("well\n", p:read("a"))
        end)

        python_it("CON-19 CON-20 is called, and refuses a wrong key",
            function()
            local address = connection.arbitrary_address("AF_UNIX")
            local p <close> = python([[
l = C.Listener(sys.argv[1], authkey=b'k'); print('ready', flush=True)
try: l.accept()
except (C.AuthenticationError, AssertionError, EOFError): pass
c = l.accept(); c.send_bytes(c.recv_bytes() + b'!'); c.recv_bytes()
print('well')
]], address, handshake)
            assert.are.equal("ready", p:read("l"))
            local ok, e = pcall(Client, address, nil, "no")
            assert.is_false(ok)
            assert.is_true(e.kind == "AuthenticationError"
                or e.kind == "EOF", e.kind)
            local c <close> = Client{address = address, authkey = "k",
                timeout = 20}
            c:send_bytes("hey")
            assert.are.equal("hey!", c:recv_bytes())
            c:send_bytes("")
            assert.are.equal("well\n", p:read("a"))
        end)
    end)
end
