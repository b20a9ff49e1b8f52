-- Managers of own classes among peers that are strange, slow, silent or dead.

local system = require "system"
local helper = require "spec.helper"
local mp = require "mp"

local managers, connection = mp.managers, mp.connection
local failure = helper.failure

local Served = managers.BaseManager:extend("Served")
Served:register("list", function() -- what is put in, and how many there are
    local items = {}
    return {
        add = function(_, ...) table.insert(items, (...)) return #items end,
        give = function(_, n) return ("x"):rep(n) end,
        sleep = function(_, seconds) mp.sleep(seconds) return "slept" end,
        call = function(_, f) return f() end,
    }
end)
Served:register("queue", function() return mp.Queue() end)

local function timed(f, ...)
    local before = system.monotime()
    f(...)
    return system.monotime() - before
end

-- Peers ----------------------------------------------------------------------

--- A connection to the server of which it knows nothing yet.
local function stranger(m)
    return connection.Client(m.address)
end

describe("a manager's server, for strangers", function()
    for _, address in ipairs{false, {"127.0.0.1", 0}} do
        it("serves others while they are silent, or send garbage or half a "
            .. "message, over " .. (address and "TCP" or "a path"), function()
            local m <close> = Served{address = address or nil}
            m:start()
            local list = m:list()
            local silent, half, garbage = {}, {}, {}
            for i = 1, 20 do
                silent[i], half[i], garbage[i] = stranger(m), stranger(m),
                    stranger(m)
                garbage[i]:send_bytes(("\255\254 no message"):rep(i * i))
                half[i]:send_bytes("#CHALLENGE#")
            end
            assert.is_true(timed(function()
                assert.are.equal(1, list:add("a"))
            end) < 1)
            local other <close> = Served{address = m.address}
            assert.is_true(timed(other.connect, other) < 1)
            assert.are.equal(1, other:list():add("b"))
            assert.are.equal(2, list:add("c"))
            for i = 1, 20 do
                silent[i]:close()
                half[i]:close()
                garbage[i]:close()
            end
            assert.are.equal(3, list:add("d"))
        end)
    end

    it("lets nobody in without its key", function()
        local m <close> = Served{authkey = "right"}
        m:start()
        local list = m:list()
        for _, key in ipairs{"wrong", "", "Right", "righ"} do
            local other = Served{address = m.address, authkey = key}
            failure("AuthenticationError", other.connect, other)
            failure("StateError", other.list, other)
        end
        local same = Served{address = m.address, authkey = "right"}
        same:connect()
        assert.are.equal(1, same:list():add(1))
        assert.are.equal(1, list:add(1))
    end)

    it("takes no code, and no question, of who is not authenticated",
        function()
        local m <close> = Served{authkey = "right"}
        m:start()
        local list = m:list()
        local mark = helper.tmpname()
        os.remove(mark)
        local c = stranger(m)
        c:send{op = "call", n = 1, id = "x", name = "call", args = {n = 1,
            function() io.open(mark, "w"):close() end}}
        pcall(c.send, c, {op = "shutdown", n = 2})
        assert.are.equal(1, list:add(1))
        c:close()
        assert.are.equal(2, list:add(2))
        assert.is_nil(io.open(mark))
    end)

    it("drops authenticated ones that do not keep to the protocol",
        function()
        local m <close> = Served{authkey = "k"}
        m:start()
        local list = m:list()
        for _, message in ipairs{5, "x", {}, {op = "call"}, {op = 5, n = 1},
                {op = "call", n = 1, args = {}, name = "add"},
                {op = "call", n = 1, args = {n = -1}, name = "add"},
                {op = "create", n = 1}, {op = "add", n = 1, drop = 5}} do
            local c <close> = connection.Client(m.address, nil, "k")
            c:send(message)
            failure("EOF", c.recv, c)
        end
        local c <close> = connection.Client(m.address, nil, "k")
        c:send_bytes("no pickle")
        assert.are.equal("PicklingError", c:recv().error.kind)
        c:send{op = "create", n = 2, typeid = "list", args = {n = 0}}
        assert.are.equal(2, c:recv().n)
        c:send{op = "create", n = 3, typeid = "list", args = {n = 1 << 40}}
        assert.are.equal("arguments: args.n is 1099511627776",
            c:recv().error.message)
        local unknown <close> = connection.Client(m.address, nil, "k")
        unknown:send{op = "nothing", n = 3}
        local answer = unknown:recv()
        assert.are.equal(3, answer.n)
        assert.are.equal("unknown question 'nothing'", answer.error.message)
        assert.are.equal(1, list:add(1))
    end)
end)

describe("a manager's server, for its own", function()
    it("waits for nobody who does not read, or stops in the middle",
        function()
        local m <close> = Served{authkey = "k"}
        m:start()
        local list = m:list()
        local deaf <close> = connection.Client(m.address, nil, "k")
        deaf:send{op = "create", n = 0, typeid = "list", args = {n = 0}}
        local id = deaf:recv().proxy.id
        for n = 1, 8 do
            deaf:send{op = "call", n = n, id = id, name = "give",
                args = {1 << 20, n = 1}}
        end
        assert.is_true(timed(function()
            for i = 1, 20 do
                assert.are.equal(i, list:add(i))
            end
        end) < 2)
        for n = 1, 8 do
            local answer = deaf:recv()
            assert.are.equal(n, answer.n)
            assert.are.equal(1 << 20, #answer.values[1])
        end
    end)

    it("begins with no more questions of who does not read", function()
        local m <close> = Served{authkey = "k"}
        m:start()
        local deaf <close> = connection.Client(m.address, nil, "k")
        deaf:send{op = "create", n = 0, typeid = "list", args = {n = 0}}
        local id = deaf:recv().proxy.id
        local function ask(n, name, ...)
            deaf:send{op = "call", n = n, id = id, name = name,
                args = table.pack(...)}
        end
        ask(1, "give", 4 << 20)
        ask(2, "add", "an item")
        ask(3, "give", 1)
        local other <close> = connection.Client(m.address, nil, "k")
        other:send{op = "call", n = 1, id = id, name = "add",
            args = {"another", n = 1}}
        assert.are.equal(1, other:recv().values[1])
        assert.are.equal(4 << 20, #deaf:recv().values[1])
        assert.are.equal(2, deaf:recv().values[1])
        assert.are.equal(3, deaf:recv().n)
    end)

    it("loses who asks on and on, and does not read", function()
        local m <close> = Served{authkey = "k"}
        m:start()
        local list = m:list()
        local deaf <close> = connection.Client(m.address, nil, "k")
        deaf:send{op = "create", n = 0, typeid = "list", args = {n = 0}}
        local id = deaf:recv().proxy.id
        assert.is_false(pcall(function()
            for n = 1, 4000 do
                deaf:send{op = "call", n = n, id = id, name = "give",
                    args = {1 << 14, n = 1}}
            end
        end))
        assert.are.equal(1, list:add(1))
    end)

    it("MAN-24 lets go what a process held that was killed", function()
        local m <close> = Served()
        m:start()
        local q, all = m:queue(), mp.Event()
        local p <close> = mp.Process{target = function()
            for _ = 1, 10 do
                q:put(m:list())
            end
            q:get_many(10)
            all:set()
            q:get() -- for ever
        end}
        p:start()
        assert.is_true(all:wait(20))
        helper.eventually(function()
            return helper.read("/proc/" .. p.pid .. "/stat"):match("%) S")
        end)
        p:kill()
        p:join()
        helper.eventually(function()
            return m:_number_of_objects() == 1
        end)
        q:put("mine") -- not for the dead one, who asked first
        assert.are.equal("mine", q:get(true, 5))
    end)

    it("T-F-15 MAN-11 when it is killed, raises at once", function()
        local m <close> = Served()
        m:start()
        local list, q = m:list(), m:queue()
        local killer <close> = mp.Process{target = function(pid)
            mp.sleep(0.05)
            os.execute("kill -9 " .. pid)
        end, args = {m._process.pid}}
        killer:start()
        local kind
        assert.is_true(timed(function()
            kind = select(2, pcall(q.get, q)).kind
        end) < 1)
        assert.are.equal("EOF", kind)
        assert.is_true(timed(function()
            kind = select(2, pcall(list.add, list, 1)).kind
        end) < 1)
        assert.matches("^EOF$", kind == "OSError" and "EOF" or kind)
        local path = m.address
        assert.is_true(timed(m.shutdown, m) < 1)
        assert.are.equal(-9, m._process.exitcode)
        local again <close> = Served{address = path}
        again:start()
        assert.are.equal(1, again:list():add(1))
    end)

    it("MAN-24 keeps what nobody holds until it is taken up, or for a while",
        function()
        local m <close> = Served()
        m:start(function() require("mp.holdings")._linger = 1 end)
        local on_its_way = mp.Queue()
        local function send()
            local list = m:list()
            list:add("a")
            on_its_way:put(list)
        end
        send()
        collectgarbage()
        collectgarbage()
        assert.are.equal(0, m:_number_of_objects())
        local list = on_its_way:get()
        assert.are.equal(2, list:add("b"))
        mp.sleep(1.1)
        assert.are.equal(3, list:add("c"))
        send()
        collectgarbage()
        collectgarbage()
        assert.are.equal(1, m:_number_of_objects())
        mp.sleep(1.1)
        local late = on_its_way:get()
        failure("KeyError", late.add, late, 1)
        assert.are.equal(4, list:add("d"))
    end)

    it("says what it cannot rebuild", function()
        local m <close> = Served()
        m:start()
        local list = m:list()
        local Here = {__name = "Here"}
        mp.pickle.register("base_manager_pain.Here", Here)
        assert.matches("base_manager_pain.Here", (failure("PicklingError",
            list.add, list, setmetatable({}, Here))))
        assert.are.equal(1, list:add(1))
    end)

    it("MAN-05 is ended by force when it does not answer", function()
        local m = Served{shutdown_timeout = 0.1}:start()
        local list = m:list()
        local busy = mp.Event()
        local p <close> = mp.Process{target = function()
            pcall(list.call, list, function()
                busy:set()
                mp.sleep(60)
            end)
        end}
        p:start()
        assert.is_true(busy:wait(20))
        assert.is_true(timed(m.shutdown, m) < 2)
        assert.are.equal(-15, m._process.exitcode)
        assert.is_true(p:join(5))
    end)

    it("is not left behind by a start that was interrupted", function()
        local m <close> = Served()
        local p <close> = mp.Process{target = function()
            mp.sleep(0.1)
            os.execute("kill -INT " .. mp.getppid())
        end}
        p:start()
        failure("Interrupted", m.start, m, mp.sleep, {60})
        assert.is_true(p:join(5))
        assert.are.equal(0, #mp.active_children())
        m:start()
        assert.are.equal(1, m:list():add(1))
    end)

    it("goes on after a question that was interrupted", function()
        local m <close> = Served()
        m:start()
        local list, q = m:list(), m:queue()
        local function interrupt(...)
            local p <close> = mp.Process{target = function()
                mp.sleep(0.05)
                os.execute("kill -INT " .. mp.getppid())
            end}
            p:start()
            failure("Interrupted", ...)
        end
        interrupt(q.get, q)
        q:put("kept")
        assert.are.equal("kept", q:get(true, 5))
        interrupt(list.sleep, list, 0.3)
        assert.are.equal(1, list:add(1)) -- the answer to this, not to that
    end)

    it("answers what cannot be pickled with an error", function()
        local m <close> = Served()
        m:start()
        local list = m:list()
        local _, e = failure("PicklingError", list.call, list, function()
            return {coroutine.create(print)}
        end)
        assert.matches("cannot pickle a coroutine", e.message)
        _, e = failure("RemoteError", list.call, list, function()
            error(coroutine.create(print))
        end)
        assert.matches("thread", e.value)
        assert.are.equal(1, list:add(1))
    end)

    it("ignores Ctrl-C, which is its manager's", function()
        local m <close> = Served()
        m:start()
        local list = m:list()
        m._process:interrupt()
        assert.are.equal(1, list:add(1))
    end)
end)

-- Other programs -------------------------------------------------------------

describe("a manager of another program", function()
    -- It serves until it is told to stop, and says where.
    local SERVER <const> = [[
        local mp = require "mp"
        local Remote = mp.managers.BaseManager:extend("Remote")
        local queue = mp.Queue()
        Remote:register("get_queue", function() return queue end)
        Remote:register("double", function()
            return {of = function(_, x) return 2 * x end,
                run = function(_, f, ...) return f(...) end,
                fail = function() error("over there") end}
        end)
        local kind, path = ...
        local server = Remote{authkey = "\0key",
            address = kind == "tcp" and {"127.0.0.1", 0} or path}:get_server()
        local a = server.address
        io.stdout:write(type(a) == "table" and a[2] or a, "\n")
        io.stdout:flush()
        server:serve_forever()
        print("served")
    ]]
    it("serves on when strangers have taken all its descriptors", function()
        local script = helper.tmpfile(SERVER, ".lua")
        local path = helper.tmpdir() .. "/socket"
        local pipe <close> = io.popen(("ulimit -n 40; exec timeout 20 %s %s "
            .. "path %s"):format(helper.quote(helper.mplua), script,
            helper.quote(path)))
        assert.are.equal(path, pipe:read())
        local Remote = managers.BaseManager:extend("Remote")
        Remote:register("double")
        local m = Remote{address = path, authkey = "\0key"}
        m:connect()
        local d, strangers = m:double(), {}
        for i = 1, 60 do
            strangers[i] = stranger(m)
        end
        assert.is_true(timed(function()
            assert.are.equal(14, d:of(7))
        end) < 1)
        local other <close> = connection.Client(path, nil, "\0key", 5)
        other:send{op = "shutdown", n = 1}
        assert.are.equal("served", pipe:read())
        require("mp.proxy")._forget(path)
        for i = 1, 60 do
            strangers[i]:close()
        end
    end)

    local CLIENT <const> = [[
        local mp = require "mp"
        local Remote = mp.managers.BaseManager:extend("Remote")
        Remote:register("get_queue")
        local port, path = tonumber((...)), ...
        local m = Remote{address = port and {"127.0.0.1", port} or path,
            authkey = "\0key"}
        m:connect()
        local q = m:get_queue()
        for i = 1, 3 do q:put{i, "\u{fc}", "\0\255"} end
        print(q:get())
    ]]

    for _, kind in ipairs{"tcp", "path"} do
        it("MAN-03 MAN-04 test_remote is used over " .. kind, function()
            local script = helper.tmpfile(SERVER, ".lua")
            local pipe <close> = io.popen(("exec timeout 20 %s %s %s %s")
                :format(helper.quote(helper.mplua), script, kind,
                helper.quote(helper.tmpdir() .. "/socket")))
            local said = pipe:read()
            local Remote = managers.BaseManager:extend("Remote")
            Remote:register("get_queue")
            Remote:register("double")
            local m = Remote{address = tonumber(said)
                and {"127.0.0.1", tonumber(said)} or said, authkey = "\0key"}
            m:connect()
            assert.are.equal("connected", m._state)
            local q = m:get_queue()
            local result = helper.run{helper.tmpfile(CLIENT, ".lua"), said}
            assert.are.equal("", result.stderr)
            assert.matches("^table: ", result.stdout)
            assert.are.same({2, "\u{fc}", "\0\255"}, q:get(true, 5))
            assert.are.equal(1, q:qsize())
            local d = m:double()
            assert.are.equal(14, d:of(7))
            assert.are.equal(9, d:run(function(x) return x + 2 end, 7))
            local _, e = failure("RemoteError", d.fail, d)
            assert.matches("over there$", e.message)
            assert.matches("^stack traceback:\n.*%.lua:%d+: in ",
                e.traceback)
            failure("StateError", m.shutdown, m)
            require("mp.proxy")._ask(m.address, {op = "shutdown"})
            assert.are.equal("served", pipe:read())
            local ok, how, code = pipe:close()
            assert.are.same({true, "exit", 0}, {ok, how, code})
            require("mp.proxy")._forget(m.address)
        end)
    end
end)
