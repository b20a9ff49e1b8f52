-- Managers of own classes: what they serve, to whom, and what is misuse.

local helper = require "spec.helper"
local mp = require "mp"
local start = require "spec.start_tools"

local managers = mp.managers
local BaseManager = managers.BaseManager
local failure = helper.failure

start.start_server() -- of the start method

-- What is served -------------------------------------------------------------

local Counter = {__name = "Counter"}
Counter.__index = Counter

local function make(n)
    if n == "bad" then
        error("no counter for you")
    end
    return setmetatable({n = n or 0}, Counter)
end

function Counter:add(k)
    self.n = self.n + (k or 1)
    return self.n, "and", nil
end

function Counter:get()
    return self.n
end

function Counter:fail(with)
    error(with)
end

function Counter:me()
    return self
end

function Counter:range(first, last)
    return coroutine.wrap(function()
        for i = first, last do
            coroutine.yield(self.n + i, "x" .. i)
        end
    end)
end

-- luacheck: ignore
function Counter:child(n)
    return n and make(self.n + n)
end

function Counter:take(other)
    self.other = other
    return rawequal(getmetatable(other), Counter)
end

function Counter:taken()
    return self.other
end

function Counter:_secret()
    return self.n
end

Counter.__len = function(self) return self.n end
Counter.__tostring = function(self) return "Counter at " .. self.n end


local OPERATORS <const> = {"get", "__len", "__index", "__newindex", "__call"}
Counter.__call = function(self, ...)
    return self.n, ...
end

local Maths = BaseManager:extend("Maths")
Maths:register("Counter", make, nil, nil, {child = "Counter"})
Maths:register("Open", make, nil, OPERATORS)
Maths:register{typeid = "Fields", callable = make, exposed = OPERATORS,
    proxytype = managers.NamespaceProxy}
Maths:register("Own", make, managers.MakeProxyType("Own", {"get"}))
Maths:register("plain")
Maths:register("queue", function() return mp.JoinableQueue(2) end)
Maths:register("event", function() return mp.Event() end)
Maths:register("lock", function() return mp.Lock() end)
Maths:register("barrier", function() return mp.Barrier(2) end)
Maths:register("hidden", make, nil, nil, nil, false)

local function started(...)
    return Maths(...):start()
end

describe("a manager of own classes", function()
    it("MAN-08 MAN-10 calls methods in the server, and gives all results",
        function()
        local m <close> = started()
        local c = m:Counter(5)
        assert.are.same({7, "and", n = 3}, table.pack(c:add(2)))
        assert.are.same({8, "and", n = 3},
            table.pack(c:_callmethod("add", {}, {k = 1})))
        assert.are.equal(8, c:get())
        assert.are.equal("Counter at 8", tostring(c))
        assert.are.equal(managers.AutoProxy, getmetatable(c))
        assert.are_not.equal(m:Counter(8), c)
        assert.are.same({1, 2, {3}}, m:plain({1, 2, {3}}):_getvalue())
        assert.are.equal("{1, 2}", tostring(m:plain({1, 2})))
    end)

    start.each("MAN-02 MAN-05 MAN-06 starts its server, and ends it",
        function(context, method)
        local m = Maths{ctx = context}
        assert.is_nil(m.address)
        assert.are.equal("<Maths initial>", tostring(m))
        assert.are.equal(m, m:start())
        assert.are.equal("string", type(m.address))
        assert.are.equal("<Maths started " .. m.address .. ">", tostring(m))
        local c = m:Counter(1)
        assert.are.equal(2, (c:add()))
        assert.is_false(m:join(0))
        local process = m._process
        m:shutdown()
        assert.is_true(m:join(0))
        assert.are.equal(0, process.exitcode)
        m:shutdown()
        process:close()
        local path = m._address
        assert.is_nil(io.open(path), method)
    end)

    it("MAN-07 test_mymanager_context ends with its block, started or not",
        function()
        local process
        do
            local m <close> = started()
            process = m._process
            assert.are.equal(3, m:Counter(3):get())
        end
        assert.is_true(process:join(0))
        assert.are.equal(0, process.exitcode)
        do
            local unused <close> = Maths() -- luacheck: ignore
        end
    end)

    it("MAN-05 is ended by the collector, too", function()
        local process = started()._process
        collectgarbage()
        collectgarbage()
        assert.is_true(process:join(5))
        assert.are.equal(-15, process.exitcode)
    end)

    it("test_manager_initializer runs once, in the server", function()
        local m <close> = Maths()
        local seen = mp.Queue()
        m:start(function(...) seen:put{mp.getpid(), ...} end, {1, nil, 3,
            n = 3})
        assert.are.same({m._process.pid, 1, nil, 3}, seen:get(true, 5))
        assert.are.equal(0, seen:qsize())
    end)

    it("test_rapid_restart can listen where another one did", function()
        local m = Maths{address = {"127.0.0.1", 0}}:start()
        local address = m.address
        assert.are.equal("127.0.0.1", address[1])
        local c = m:Counter(4)
        assert.are.equal(4, c:get())
        m:shutdown()
        local again <close> = Maths{address = address}:start()
        assert.are.same(address, again.address)
        assert.are.equal(5, again:Counter(5):get())
        local _, e = failure("KeyError", c.get, c)
        assert.matches("has no object '%x+%-1': it was let go", e.message)
    end)
end)

describe("a proxy", function()
    it("MAN-10 raises what the method raised, with the server's traceback",
        function()
        local m <close> = started()
        local c = m:Counter()
        local message, e = failure("RemoteError", c.fail, c, "boom")
        assert.matches("base_manager_spec.lua:%d+: boom$", message)
        assert.are.equal(message, e.value)
        assert.matches("in %a+ 'error'.*base_manager_spec.lua:%d+: in ",
            e.traceback)
        assert.is_nil(e.traceback:find("server.lua", 1, true))
        assert.are.equal(m._process.pid, e.pid)
        assert.matches("boom\n\nremote traceback:\nstack", tostring(e))
        local _
        _, e = failure("RemoteError", c.fail, c, {code = 7})
        assert.are.same({code = 7}, e.value)
        _, e = failure("RemoteError", m.Counter, m, "bad")
        assert.matches("no counter for you", e.message)
        -- An error object keeps its kind.
        local q = m:queue()
        message, e = failure("Empty", q.get, q, false)
        assert.are.equal("get: the queue is empty", message)
        assert.is_truthy(e.traceback)
    end)

    it("MAN-10 cannot call what is not exposed", function()
        local m <close> = started()
        local c = m:Counter(3)
        assert.are.equal("method '_secret' of 'Counter' is not in its "
            .. "methods without a leading '_'",
            (failure("TypeError", c._callmethod, c, "_secret")))
        assert.are.equal("'Counter' has no method 'nothing'",
            (failure("TypeError", c.nothing, c)))
        assert.are.equal("'Counter' has no method 'n'",
            (failure("TypeError", c.n, c)))
        local o = m:Open(3)
        assert.are.equal("method 'add' of 'Open' is not in exposed={__call, "
            .. "__index, __len, __newindex, get}",
            (failure("TypeError", o.add, o)))
        assert.matches("^method '__len' of 'Counter' is not in",
            (failure("TypeError", function() return #c end)))
        assert.are.equal("get: argument 'self': BaseProxy expected, got 5 "
            .. "(use ':')", (failure("TypeError", c.get, 5)))
        assert.matches("^get: argument 'self'",
            (failure("TypeError", o.get, nil)))
        failure("TypeError", c._callmethod, c, 5)
        failure("TypeError", c._callmethod, m, "get")
        failure("TypeError", c._callmethod, c, "get", 5)
        failure("ValueError", c._callmethod, c, "get", {n = -1})
        failure("TypeError", c._callmethod, c, "get", nil, 5)
        assert.are.equal(3, c:get())
    end)

    it("MAN-25 uses operators and fields that are exposed", function()
        local m <close> = started()
        local o = m:Open(3)
        assert.are.equal(3, #o)
        assert.are.same({3, "a"}, {o("a")})
        local f = m:Fields(4)
        assert.are.equal(4, f.n)
        f.n = 6
        assert.are.equal(6, f.n)
        assert.is_nil(f.missing)
        f._own = 1
        assert.are.equal(1, f._own)
        local own = m:Own(9)
        assert.are.equal(9, own:get())
        assert.is_nil(own.add)
        assert.matches("is not in", (failure("TypeError", own._callmethod,
            m:Open(1), "add")))
    end)

    it("MAN-25 test_mymanager iterates over what a method returns",
        function()
        local m <close> = started()
        local list = {}
        for n, word in m:Counter(10):range(1, 3) do
            list[#list + 1] = n .. word
        end
        assert.are.same({"11x1", "12x2", "13x3"}, list)
        local it = m:Counter(10):range(1, 1)
        assert.are.equal(managers.IteratorProxy, getmetatable(it))
        assert.are.equal(11, (it:next()))
        assert.is_nil(it:next())
        assert.matches("cannot resume dead coroutine",
            (failure("RemoteError", it.next, it)))
    end)

    it("MAN-08 is what a method returns that is said to, or what is served",
        function()
        local m <close> = started()
        local c = m:Counter(10)
        local child = c:child(5)
        assert.are.equal(15, child:get())
        child:add(1)
        assert.are.equal(16, child:get())
        assert.is_nil(c:child())
        local same = c:me()
        same:add(1)
        assert.are.equal(11, c:get())
    end)

    it("MAN-24 is the object itself where it comes home", function()
        local m <close> = started()
        local a, b = m:Counter(1), m:Counter(2)
        assert.is_true(a:take(b))
        b:add(5)
        assert.are.equal(7, a:taken():get())
        assert.is_false(a:take({n = 1}))
        assert.are.equal(1, a:taken().n) -- a copy
    end)

    it("travels to other processes", function()
        local m <close> = started{authkey = "one of its own"}
        local c = m:Counter(1)
        local function use(proxy, k)
            os.exit((proxy:add(k)))
        end
        for i, method in ipairs(start.METHODS) do
            local p <close> = mp.get_context(method).Process{target = use,
                args = {c, i}}
            p:start()
            assert.is_true(p:join(20))
            assert.are.equal(c:get(), p.exitcode, method)
        end
        local pool <close> = mp.Pool(2)
        assert.are.equal(10, #pool:map(function(k) return (c:add(k)) end,
            mp.range(10)))
        assert.are.equal(1 + 1 + 2 + 3 + 4 + 45, c:get())
    end)

    it("T-F-17 MAN-24 counts who holds an object", function()
        local m <close> = started()
        local c = m:Counter(1)
        for i = 1, 200 do
            m:Counter(i)
        end
        collectgarbage()
        collectgarbage()
        assert.are.equal(1, m:_number_of_objects())
        assert.matches("^  %x+%-1: refcount=1\n    Counter: Counter at 1$",
            m:_debug_info())
        local p <close> = mp.Process{target = function()
            local own = m:Counter(3)
            own:add(c:get())
            mp.sleep(60)
        end}
        p:start()
        helper.eventually(function()
            return m:_number_of_objects() == 2
                and m:_debug_info():find("refcount=2", 1, true)
        end)
        p:kill()
        helper.eventually(function()
            return m:_number_of_objects() == 1
                and not m:_debug_info():find("refcount=2", 1, true)
        end)
        assert.are.equal(1, c:get())
    end)
end)

describe("a served queue", function()
    it("MAN-22 test_remote keeps nobody waiting but who asked", function()
        local m <close> = started()
        local q, e, l = m:queue(), m:event(), m:lock()
        local function serve()
            for i = 1, 5 do
                q:put(i)
            end
            e:wait()
            q:put(l:acquire(false), true, 5)
            q:put(e:wait(0))
            l:acquire(true, 5)
            l:release()
            q:put("\0\255 bytes")
        end
        local p <close> = mp.Process{target = serve}
        p:start()
        for i = 1, 5 do
            assert.are.equal(i, q:get())
        end
        assert.is_true(l:acquire())
        assert.is_false(e:wait(0.01))
        e:set()
        assert.is_false(q:get(true, 5))
        assert.is_true(q:get(true, 5))
        l:release()
        assert.are.equal("\0\255 bytes", q:get(true, 5))
        failure("Empty", q.get, q, true, 0.01)
        q:put(1)
        q:put(2)
        failure("Full", q.put, q, 3, true, 0.01)
        assert.are.same({1, 2, n = 2}, q:get_many(5))
        assert.is_false(q:join(0.01))
        for _ = 1, 10 do
            q:task_done()
        end
        assert.is_true(q:join(1))
        -- What cannot be sent is refused before it is; q works on.
        failure("PicklingError", q.put, q, coroutine.create(print))
        q:put("after")
        assert.are.equal("after", q:get())
        local b = m:barrier()
        assert.are.equal("wait: waits in the server, and would keep "
            .. "everybody else waiting", (failure("TypeError", b.wait, b)))
    end)

    it("is one of SyncManager's types", function()
        local m <close> = managers.SyncManager()
        m:start()
        local q, s = m:Queue(1), m:Semaphore(1)
        q:put{1, "x"}
        assert.are.same({1, "x"}, q:get())
        assert.is_true(s:acquire())
        assert.is_false(s:acquire(false))
        assert.is_false(m:Event():is_set())
    end)

    it("waits for what an own method yields, and serves others meanwhile",
        function()
        local Waiting = BaseManager:extend("Waiting")
        Waiting:register("queue", function() return mp.Queue() end)
        Waiting:register("W", function()
            return {
                wait = function(_, things)
                    coroutine.yield(things)
                    return "there"
                end,
                many = function(_, n)
                    for _ = 1, n do
                        coroutine.yield()
                    end
                    return n
                end,
            }
        end)
        local m <close> = Waiting()
        m:start()
        local w, q = m:W(), m:queue()
        local p <close> = mp.Process{target = function()
            mp.sleep(0.03)
            q:put(1)
        end}
        p:start()
        assert.are.equal("there", w:wait(q))
        assert.are.equal("there", w:wait(0.01))
        assert.are.equal(3, w:many(3))
        assert.matches("invalid file object",
            (failure("ValueError", w.wait, w, {})))
        assert.are.equal("there", w:wait(0))
    end)
end)

describe("a manager's misuse", function()
    it("T-F-11 MAN-09 before the start, twice, and after the end",
        function()
        local m = Maths()
        assert.are.equal("Counter: server not yet started",
            (failure("StateError", m.Counter, m)))
        for _, name in ipairs{"shutdown", "join", "_number_of_objects",
                "_debug_info"} do
            assert.matches(": server not yet started$",
                (failure("StateError", m[name], m)))
        end
        m:start()
        local c = m:Counter()
        for _, name in ipairs{"start", "connect", "get_server"} do
            assert.are.equal(name .. ": Already started server",
                (failure("StateError", m[name], m)))
        end
        m:shutdown()
        for _, name in ipairs{"start", "connect", "get_server", "Counter",
                "_number_of_objects"} do
            assert.are.equal(name .. ": the manager has shut down",
                (failure("StateError", m[name], m)))
        end
        failure("OSError", c.get, c)
        assert.matches("^<AutoProxy object, typeid 'Counter'; '__tostring' "
            .. "failed>$", tostring(c))
    end)

    it("MAN-01 MAN-02 names what was given", function()
        failure("TypeError", Maths, nil, 5)
        assert.are.equal("authkey should be a byte string, got 5",
            (failure("TypeError", Maths, {authkey = 5})))
        assert.are.equal("BaseManager: serializer must be 'pickle', got "
            .. "'xmlrpclib'",
            (failure("ValueError", Maths, {serializer = "xmlrpclib"})))
        failure("TypeError", Maths, 5)
        failure("TypeError", Maths, {"host", "port"})
        failure("TypeError", Maths, {nothing = 1})
        failure("TypeError", Maths, {ctx = 3})
        failure("TypeError", Maths, {shutdown_timeout = "x"})
        local m = Maths()
        assert.are.equal("start: initializer must be a callable, got 5",
            (failure("TypeError", m.start, m, 5)))
        failure("TypeError", m.start, m, print, 5)
        failure("ValueError", m.connect, m)
        assert.matches("use ':'", (failure("TypeError", m.start)))
    end)

    it("MAN-02 reports a server that cannot serve", function()
        local m = Maths()
        local message, e = failure("RemoteError", m.start, m, function()
            error("no way")
        end)
        assert.matches("base_manager_spec.lua:%d+: no way$", message)
        assert.matches("^stack traceback:", e.traceback)
        assert.are.equal("start: the server ended before it said its "
            .. "address", (failure("EOF", m.start, m, os.exit)))
        local other <close> = started()
        local taken = Maths{address = other.address}
        failure("OSError", taken.start, taken)
        assert.are.equal(1, other:Counter(1):get())
    end)

    it("MAN-08 in register", function()
        local M = BaseManager:extend("M")
        local function refused(kind, ...)
            return (failure(kind, M.register, M, ...))
        end
        refused("TypeError", 5)
        refused("TypeError", nil)
        assert.are.equal("register: callable must be a callable, got 5",
            refused("TypeError", "x", 5))
        assert.are.equal("register: proxytype must be a class of proxies, "
            .. "got a table", refused("TypeError", "x", print, {}))
        refused("TypeError", "x", print, nil, {1})
        refused("TypeError", "x", print, nil, nil, {1})
        refused("TypeError", {typeid = "x", nothing = 1})
        assert.are.equal("register: 'start' is a name of the manager's own",
            refused("ValueError", "start", print))
        assert.matches("use ':'", (failure("TypeError", M.register, "x",
            print)))
        M:register("start", print, nil, nil, nil, false)
        assert.is_nil(BaseManager._registry.start)
    end)

    it("MAN-08 in making objects", function()
        local m <close> = started()
        assert.are.equal("Without callable, must have one non-keyword "
            .. "argument", (failure("ValueError", m.plain, m)))
        failure("ValueError", m.plain, m, 1, 2)
        assert.is_nil(m.hidden)
        Maths:register("late", make)
        finally(function() Maths.late, Maths._registry.late = nil, nil end)
        assert.are.equal("no type 'late' is registered in the server",
            (failure("KeyError", m.late, m)))
        failure("TypeError", m.Counter, 5)
    end)
end)
