-- Process, the current process and its relatives.

local helper = require "spec.helper"
local mp = require "mp"
local core = require "mp.core"

local SIGKILL <const>, SIGSEGV <const>, SIGTERM <const> = 9, 11, 15

local failure, is_gone = helper.failure, helper.is_gone
local start = helper.start

--- Runs f(...) in a child; returns its exit code.
local function exitcode(f, ...)
    local p <close> = start(f, ...)
    assert.is_true(p:join(20))
    return p.exitcode
end

local function sleep_long()
    mp.sleep(60)
end

--- A child that runs until it is told to go, and is gone after the spec.
local function sleeper(opts)
    opts = opts or {}
    opts.target = sleep_long
    local p = mp.Process(opts)
    p:start()
    return p
end

local function finish(p)
    p:kill()
    p:join()
    p:close()
end

--- Asks a child: what f(...) returns there, as text.
local function ask(f, ...)
    local path = helper.tmpname()
    local p <close> = start(function(...)
        local file <close> = assert(io.open(path, "w"))
        file:write(tostring(f(...)))
    end, ...)
    p:join()
    assert.are.equal(0, p.exitcode)
    local file <close> = assert(io.open(path))
    return file:read("a")
end

--- Runs a script with the program under test; its text may begin with what
-- every one here needs.
local function run(text, opts)
    return helper.run({helper.tmpfile('local mp = require "mp"\n' .. text,
        ".lua")}, opts)
end

describe("a process", function()
    it("PRC-01 runs its target with its arguments, in another process",
        function()
        local text = ask(function(a, b, c)
            return table.concat({a, tostring(b), c, mp.getpid()}, " ")
        end, 1, nil, "x")
        local pid = text:match("^1 nil x (%d+)$")
        assert.is_truthy(pid)
        assert.are_not.equal(mp.getpid(), tonumber(pid))
    end)

    it("PRC-01 takes named and positional arguments", function()
        local function job(a, b)
            os.exit(a * 10 + b)
        end
        local p <close> = mp.Process(nil, job, "w", {4}, {b = 2}, true)
        p:start()
        p:join()
        assert.are.equal(42, p.exitcode)
        assert.are.equal("w", p.name)
        assert.is_true(p.daemon)
        local q <close> = mp.Process{target = job, args = {4},
            kwargs = {b = 3}}
        q:start()
        q:join()
        assert.are.equal(43, q.exitcode)
    end)

    it("PRC-01 copies args and kwargs when it is made", function()
        local args, kwargs = {1}, {b = 2}
        local p <close> = mp.Process{target = function(a, b, c)
            os.exit(a + b + (c or 0))
        end, args = args, kwargs = kwargs}
        args[1], kwargs.c = 50, 100
        p:start()
        p:join()
        assert.are.equal(3, p.exitcode)
    end)

    it("T-P-25 PAIN-05 gives copies of upvalues: the child's changes stay "
        .. "there", function()
        local shared, count = {n = 1}, 0
        local function down(n)
            return n == 0 and 0 or 1 + down(n - 1)
        end
        assert.are.equal(16, exitcode(function()
            shared.n, count = shared.n + 4, count + 1
            os.exit(shared.n + count + down(10))
        end))
        assert.are.equal(1, shared.n)
        assert.are.equal(0, count)
    end)

    it("PRC-02 does nothing without a target", function()
        local p <close> = mp.Process()
        p:start()
        assert.is_true(p:join())
        assert.are.equal(0, p.exitcode)
    end)

    it("PRC-02 calls run in the caller when it is asked to", function()
        local ran
        local p = mp.Process{target = function(x)
            ran = x
        end, args = {7}}
        p:run()
        assert.are.equal(7, ran)
    end)

    it("calls whatever can be called", function()
        local callable = setmetatable({}, {__call = function(_, a, b)
            os.exit(a + b)
        end})
        local p <close> = mp.Process{target = callable, args = {1},
            kwargs = {b = 4}}
        p:start()
        p:join()
        assert.are.equal(5, p.exitcode)
    end)

    it("PRC-03 lets go of its target once it is started", function()
        local weak = setmetatable({}, {__mode = "k"})
        local p <close> = (function()
            local target = function() end
            weak[target] = true
            return start(target)
        end)()
        collectgarbage()
        assert.is_nil(next(weak))
    end)

    it("PRC-01 refuses arguments that are none", function()
        local message = failure("TypeError", mp.Process, {targt = print})
        assert.are.equal(
            "Process() got an unexpected keyword argument 'targt'", message)
        assert.matches("got an unexpected keyword argument 1",
            failure("TypeError", mp.Process, {print}))
        assert.matches("group argument must be nil",
            failure("ValueError", mp.Process, print))
        assert.matches("name must be a string",
            failure("TypeError", mp.Process, {name = 5}))
        assert.matches("daemon must be",
            failure("TypeError", mp.Process, {daemon = "yes"}))
        assert.matches("'args': table expected, got 'x'",
            failure("TypeError", mp.Process, {args = "x"}))
        assert.matches("'kwargs': table expected, got 5",
            failure("TypeError", mp.Process, {kwargs = 5}))
        assert.matches("names must be strings, got 1",
            failure("TypeError", mp.Process, {kwargs = {2}}))
        for _, n in ipairs{-1, 1.5, 0 / 0, 1e300, 1 << 40, "2"} do
            assert.matches("args.n is",
                failure("ValueError", mp.Process, {args = {n = n}}))
        end
    end)
end)

describe("the end of a process", function()
    it("T-P-05 PRC-13 has the exit code that os.exit was given", function()
        local wanted = {
            [7] = 7, [256] = 0, [300] = 44, [-1] = 255, [true] = 0,
            [false] = 1,
        }
        for code, status in pairs(wanted) do
            assert.are.equal(status, exitcode(os.exit, code))
            assert.are.equal(status, exitcode(function()
                os.exit(code, true)
            end))
        end
        assert.are.equal(0, exitcode(function() end))
    end)

    it("PRC-07 T-P-07 PRC-13 has minus the signal that killed it", function()
        local p <close> = sleeper()
        p:terminate()
        assert.is_true(p:join(10))
        assert.are.equal(-SIGTERM, p.exitcode)
        local q <close> = sleeper()
        q:kill()
        q:join()
        assert.are.equal(-SIGKILL, q.exitcode)
        if not helper.sanitized then -- they catch it
            assert.are.equal(-SIGSEGV, exitcode(function()
                os.execute("kill -SEGV " .. mp.getpid())
                sleep_long()
            end))
        end
    end)

    it("PRC-13 has code 1 after an error, told on stderr under its name",
        function()
        local result = run [[
            local function job() error("boom") end
            local p = mp.Process{target = job, name = "worker bee"}
            p:start()
            p:join()
            os.exit(p.exitcode + 10)]]
        assert.are.equal(11, result.code)
        assert.matches("^Process worker bee:\n", result.stderr)
        assert.matches("lua:2: boom\nstack traceback:\n", result.stderr)
        -- Nothing of the parent's frames.
        assert.not_matches("main chunk", result.stderr)
        assert.not_matches("process.lua", result.stderr)
    end)

    it("shows error objects as the main program does", function()
        local result = run [[
            local function try(e)
                local p = mp.Process{target = error, args = {e}}
                p:start()
                p:join()
            end
            try(setmetatable({}, {__tostring = function()
                return "an object"
            end}))
            try({})
            try(nil)
            local p = mp.Process{target = function() mp.sleep("x") end}
            p:start()
            p:join()]]
        assert.matches("Process Process%-1:\nan object\n", result.stderr)
        assert.matches("Process%-2:\n%(error object is a table value%)",
            result.stderr)
        assert.matches("Process%-3:\n%(error object is a nil value%)",
            result.stderr)
        assert.matches("%.lua:12: TypeError: sleep: ", result.stderr)
    end)

    it("tells an error in the binding of arguments there", function()
        local result = run [[
            function job(a, b) end
            local function try(args, kwargs)
                local p = mp.Process{target = job, args = args,
                    kwargs = kwargs}
                p:start()
                p:join()
                io.write(p.exitcode, "\n")
            end
            try({1, 2, 3})
            try({1}, {c = 3})
            try({1, 2}, {b = 3})]]
        assert.are.equal("1\n1\n1\n", result.stdout)
        for _, text in ipairs{
            "TypeError: job() takes 2 arguments (3 given)",
            "TypeError: job() got an unexpected keyword argument 'c'",
            "TypeError: job() got multiple values for argument 'b'",
        } do
            assert.is_truthy(result.stderr:find(text, 1, true))
        end
    end)

    it("is its own: neither yields nor errors reach the caller", function()
        local result = run [[
            local co = coroutine.wrap(function()
                local p = mp.Process{target = coroutine.yield, args = {1}}
                p:start()
                p:join()
                print("caller", p.exitcode)
            end)
            co()
            local _ <close> = setmetatable({}, {__close = function()
                print("closed")
            end})
            local exit = os.exit
            for _, f in ipairs{exit, os.exit, error} do
                local p = mp.Process{target = f, args = {3, true}}
                p:start()
                p:join()
            end
            print("end")]]
        assert.are.equal("caller\t1\nend\nclosed\n", result.stdout)
    end)

    it("T-P-19 PRC-18 flushes what the child wrote, and only once", function()
        local path = helper.tmpname()
        local file = assert(io.open(path, "w"))
        file:setvbuf("full")
        file:write("before ")
        assert.are.equal(0, exitcode(function()
            file:write("child ")
            os.exit(0)
        end))
        file:write("parent")
        file:close()
        local again <close> = io.open(path)
        assert.are.equal("before child parent", again:read("a"))
    end)

    it("gives stdout once, though it was in the buffer at the fork",
        function()
        local result = run [[
            io.stdout:setvbuf("full")
            io.write("a ")
            local p = mp.Process{target = function() io.write("b ") end}
            p:start()
            p:join()
            io.write("c")]]
        assert.are.equal("a b c", result.stdout)
    end)

    it("comes about once a traceback cannot be written", function()
        local result = run [[
            io.stderr:close()
            io.stdout:setvbuf("full")
            local p = mp.Process{target = error, args = {"boom"}}
            p:start()
            p:join()
            print(p.exitcode)]]
        assert.are.equal("1\n", result.stdout)
    end)
end)

describe("a process object", function()
    it("T-P-01 PRC-03 cannot be started twice, nor when it has ended",
        function()
        local p <close> = sleeper()
        assert.are.equal("cannot start a process twice",
            failure("StateError", p.start, p))
        p:kill()
        p:join()
        assert.are.equal("cannot start a process twice",
            failure("StateError", p.start, p))
    end)

    it("PRC-05 PRC-12 knows its pid and exit code from start and end on",
        function()
        local p <close> = mp.Process{target = sleep_long}
        assert.is_nil(p.pid)
        assert.is_nil(p.exitcode)
        assert.is_false(p:is_alive())
        p:start()
        assert.are.equal("integer", math.type(p.pid))
        assert.are.equal(p.pid, p.ident)
        assert.is_nil(p.exitcode)
        assert.is_true(p:is_alive())
        p:terminate()
        p:join()
        assert.is_false(p:is_alive())
        assert.are.equal(-SIGTERM, p.exitcode)
    end)

    it("T-P-03 PRC-04 returns from join in time, told whether it ended",
        function()
        local p <close> = sleeper()
        local before = mp.monotonic()
        assert.is_false(p:join(0))
        assert.is_false(p:join(-1))
        assert.is_true(mp.monotonic() - before < 1)
        assert.is_false(p:join(0.05))
        assert.is_true(mp.monotonic() - before >= 0.05)
        assert.is_nil(p.exitcode)
        p:kill()
        assert.is_true(p:join(10))
        assert.is_true(p:join(0))
        assert.is_true(p:join())
    end)

    it("refuses a timeout that is none", function()
        local p <close> = sleeper()
        failure("ValueError", p.join, p, 0 / 0)
        local _, e = pcall(p.join, p, "soon")
        assert.are.equal("TypeError", e.kind)
        assert.matches("join: .*got string", e.message)
        assert.matches("process_spec.lua", e.where)
        finish(p)
    end)

    it("PRC-04 PRC-06 says what it cannot do before its start", function()
        local p = mp.Process{target = print}
        for _, name in ipairs{"join", "terminate", "kill", "interrupt"} do
            assert.are.equal("can only " .. name .. " a started process",
                failure("StateError", p[name], p))
        end
        assert.are.equal("process not started",
            failure("StateError", function() return p.sentinel end))
    end)

    it("PRC-03 cannot be started or closed by what its start pickles",
        function()
        for _, method in ipairs{"spawn", "thread"} do
            local ran <close> = mp.Value("i", 0)
            local p, refused = nil, {}
            local argument = setmetatable({}, {__reduce = function()
                for _, name in ipairs{"start", "close"} do
                    table.insert(refused,
                        (failure("StateError", p[name], p)))
                end
                return math.abs, 1
            end})
            p = mp.get_context(method).Process{
                target = function(_) ran:add(1) end, args = {argument}}
            p:start()
            assert.is_true(p:join(20))
            p:close()
            assert.are.equal(1, ran.value)
            assert.are.equal("cannot start a process twice", refused[1])
            assert.matches("^Cannot close a process while", refused[2])
        end
    end)

    it("T-P-09 PRC-09 can be closed when it does not run, and twice",
        function()
        local p = sleeper{name = "shut"}
        assert.matches("Cannot close a process while it is still running",
            failure("StateError", p.close, p))
        p:kill()
        p:join()
        p:close()
        p:close()
        for _, name in ipairs{"start", "join", "is_alive", "terminate",
            "kill", "interrupt"} do
            assert.are.equal("process object is closed",
                failure("StateError", p[name], p))
        end
        for _, name in ipairs{"pid", "ident", "exitcode", "sentinel"} do
            assert.are.equal("process object is closed",
                failure("StateError", function() return p[name] end))
        end
        assert.are.equal("shut", p.name)
        assert.is_false(p.daemon)
        assert.matches("closed", tostring(p))
        mp.Process():close()
    end)

    it("is awaited by <close>, and terminated when an error comes",
        function()
        local kept
        do
            local p <close> = start(mp.sleep, 0.02)
            kept = p.pid
        end
        assert.is_true(is_gone(kept))
        failure("left", function()
            local p <close> = sleeper()
            kept = p.pid
            error("left", 0)
        end)
        assert.is_true(is_gone(kept))
    end)

    it("PRC-04 PRC-05 belongs to the process that made it", function()
        local p <close>, q = sleeper(), mp.Process()
        local text = ask(function()
            local said = {}
            for i, f in ipairs{p.join, p.is_alive, p.terminate, p.kill} do
                said[i] = select(2, pcall(f, p)).message
            end
            said[5] = select(2, pcall(q.start, q)).message
            said[6] = tostring(p.exitcode)
            said[7] = tostring(p):match("%l+>$")
            p:close()
            return table.concat(said, "|")
        end)
        assert.are.equal("can only join a child process|" ..
            "can only test a child process|" ..
            "can only terminate a child process|" ..
            "can only kill a child process|can only start a process object" ..
            " created by current process|nil|unknown>", text)
        assert.is_true(p:is_alive())
        finish(p)
    end)

    it("PRC-10 has a name, which can be changed, and defaults when empty",
        function()
        local p = mp.Process{name = "first"}
        assert.are.equal("first", p.name)
        p.name = "second"
        assert.are.equal("second", p.name)
        p.name = ""
        assert.matches("^Process%-%d+$", p.name)
        assert.matches("^Process%-%d+$", mp.Process{name = ""}.name)
        assert.matches("must be a string", failure("TypeError", function()
            p.name = 5
        end))
    end)

    it("PRC-11 is a daemon if it is said to be before the start", function()
        local p <close> = mp.Process{target = sleep_long}
        p.daemon = true
        assert.is_true(p.daemon)
        p:start()
        assert.are.equal("process has already started",
            failure("StateError", function() p.daemon = false end))
        finish(p)
        local q = mp.Process{}
        assert.matches("must be true or false", failure("TypeError",
            function() q.daemon = 1 end))
    end)

    it("PRC-11 inherits being a daemon", function()
        local p <close> = mp.Process{daemon = true, target = function()
            local q <close> = mp.Process()
            local r <close> = mp.Process{daemon = false}
            os.exit((q.daemon and 1 or 0) + (r.daemon and 2 or 0))
        end}
        p:start()
        p:join()
        assert.are.equal(1, p.exitcode)
    end)

    it("has fields that cannot be assigned", function()
        local p = mp.Process()
        for _, name in ipairs{"pid", "exitcode", "sentinel", "ident"} do
            assert.are.equal(
                ("Process: field '%s' cannot be assigned"):format(name),
                failure("TypeError", function() p[name] = 1 end))
        end
        p.own = 5
        assert.are.equal(5, p.own)
    end)

    it("PRC-16 shows itself", function()
        local p = mp.Process{target = sleep_long, name = "x", daemon = true}
        local me = mp.getpid()
        assert.are.equal(("<Process name='x' parent=%d initial daemon>")
            :format(me), tostring(p))
        p:start()
        assert.are.equal(("<Process name='x' pid=%d parent=%d started " ..
            "daemon>"):format(p.pid, me), tostring(p))
        p:terminate()
        p:join()
        assert.are.equal(("<Process name='x' pid=%d parent=%d stopped " ..
            "exitcode=-SIGTERM daemon>"):format(p.pid, me), tostring(p))
        p:close()
        assert.are.equal(("<Process name='x' parent=%d closed daemon>")
            :format(me), (tostring(p):gsub(" pid=%d+", "")))
    end)

    it("PRC-15 has a descriptor that is ready when it has ended", function()
        local p <close> = sleeper()
        local fd = p.sentinel
        assert.are.equal("integer", math.type(fd))
        local found = false
        for _, open in ipairs(core.debug.fds()) do
            found = found or open == fd
        end
        assert.is_true(found)
        finish(p)
    end)

    it("PRC-08 is interrupted by SIGINT", function()
        local result = run [[
            local p = mp.Process{target = mp.sleep, args = {60}}
            p:start()
            p:join(0.2)
            p:interrupt()
            p:join()
            os.exit(p.exitcode == 1 and 50 or 51)]]
        assert.are.equal(50, result.code)
        assert.matches("^Process Process%-1: [^\n]*Interrupted: Ctrl%-C\n$",
            result.stderr)
    end)
end)

describe("a class of processes", function()
    it("runs its own run, in the child", function()
        local W = mp.Process:extend("W")
        function W:init(code)
            self.code = code
        end
        function W:run()
            os.exit(self.code)
        end
        local w <close> = W(9)
        assert.matches("^W%-%d+$", w.name)
        assert.matches("^<W name='W%-%d+' ", tostring(w))
        w:start()
        w:join()
        assert.are.equal(9, w.exitcode)
    end)

    it("may call the constructor of its base", function()
        local W = mp.Process:extend("W")
        function W:init(name, x)
            mp.Process.init(self, {name = name, daemon = true,
                target = os.exit, args = {x}})
        end
        local V = W:extend("V")
        function V:double()
            return self.x * 2
        end
        local v <close> = V("it", 3)
        v.x = 4
        assert.are.equal(8, v:double())
        v:start()
        v:join()
        assert.are.equal(3, v.exitcode)
        assert.are.equal("it", v.name)
        assert.is_true(v.daemon)
    end)

    it("takes what Process takes when it has no constructor", function()
        local W = mp.Process:extend("W")
        local w <close> = W{target = os.exit, args = {2}}
        w:start()
        w:join()
        assert.are.equal(2, w.exitcode)
    end)

    it("has a name that is a string", function()
        failure("TypeError", mp.Process.extend, mp.Process)
    end)
end)

describe("a child", function()
    it("T-P-17 PRC-18 finds stdin empty, and leaves the parent's alone",
        function()
        local result = run([[
            io.write(io.read("l"), "|")
            local p = mp.Process{target = function()
                io.write("[", io.read("a"), "]")
                os.exit(io.read("l") == nil and 5 or 6)
            end}
            p:start()
            p:join()
            io.write(p.exitcode, "|", io.read("a"))]],
            {stdin = "one\ntwo\nthree\n"})
        assert.are.equal("one|[]5|two\nthree\n", result.stdout)
    end)

    it("starts with stdin closed, too", function()
        local result = helper.run({"-c", string.format(
            "exec %s -e %s <&-", helper.quote(helper.mplua), helper.quote[[
            local mp = require "mp"
            local p = mp.Process{target = function()
                os.exit(#io.read("a") == 0 and 5 or 6)
            end}
            p:start()
            p:join()
            io.write(p.exitcode)]])}, {program = "/bin/sh"})
        assert.are.equal("5", result.stdout)
    end)

    it("PRC-18 has random numbers of its own", function()
        math.randomseed(1)
        local numbers = {}
        for i = 1, 3 do
            numbers[i] = ask(math.random, 0)
        end
        numbers[4] = tostring(math.random(0))
        for i = 1, 4 do
            for j = i + 1, 4 do
                assert.are_not.equal(numbers[i], numbers[j])
            end
        end
    end)

    it("PRC-18 has no children, and counts its own from 1", function()
        local p <close> = sleeper()
        local text = ask(function()
            local q <close> = start(mp.sleep, 0.01)
            local active = mp.active_children()
            return #active .. active[1].name:match(":.*")
        end)
        assert.are.equal("1:1", text)
        finish(p)
    end)

    it("may have children to any depth", function()
        local result = run [[
            local function job(depth)
                print(mp.current_process().name, mp.parent_process().name)
                if depth > 0 then
                    local p = mp.Process{target = job, args = {depth - 1}}
                    p:start()
                    p:join()
                end
            end
            local p = mp.Process{target = job, args = {2}, daemon = true}
            p:start()
            p:join()]]
        assert.are.equal("Process-1\tMainProcess\n" ..
            "Process-1:1\tProcess-1\nProcess-1:1:1\tProcess-1:1\n",
            result.stdout)
    end)

    it("awaits its own children at its end", function()
        local result = run [[
            local p = mp.Process{target = function()
                local said = mp.Event()
                mp.Process{target = function()
                    said:wait(20)
                    mp.sleep(0.1)
                    print("grandchild")
                end}:start()
                print("child")
                io.stdout:flush()
                said:set()
            end}
            p:start()
            p:join()
            print("parent")]]
        assert.are.equal("child\ngrandchild\nparent\n", result.stdout)
    end)

    it("MOD-03 sees what holds for all", function()
        local text = ask(function()
            local me, parent = mp.current_process(), mp.parent_process()
            return table.concat({me.pid == mp.getpid() and "pid" or "?",
                me:is_alive() and "alive" or "?", tostring(me.exitcode),
                parent.name, parent.pid == mp.getppid() and "ppid" or "?",
                tostring(parent:is_alive()), tostring(parent:join(0)),
                tostring(mp.parent_process() == parent)}, " ")
        end)
        assert.are.equal("pid alive nil MainProcess ppid true false true",
            text)
    end)

    it("T-P-23 PAIN-13 goes within a second when its parent is killed, busy "
        .. "or not",
        function()
        local path = helper.tmpname()
        local p <close> = start(function()
            local pids = {}
            for i, f in ipairs{sleep_long, function() while true do end end} do
                pids[i] = start(f).pid
            end
            local file = assert(io.open(path, "w"))
            file:write(table.concat(pids, " "), " all")
            file:close()
            sleep_long()
        end)
        local idle, busy = helper.eventually(function()
            local file <close> = io.open(path)
            return file:read("a"):match("^(%d+) (%d+) all$")
        end)
        p:kill()
        p:join()
        helper.eventually(function()
            return is_gone(idle) and is_gone(busy)
        end, 1)
    end)

    it("ends with its parent's shared memory as it was", function()
        local before = core.debug.arena_bytes()
        for _ = 1, 20 do
            exitcode(function()
                local lock, queue = mp.Lock(), mp.Queue()
                lock:acquire()
                queue:put(("x"):rep(1000))
                os.exit(0)
            end)
        end
        assert.are.equal(before, core.debug.arena_bytes())
    end)
end)

describe("the main process", function()
    it("MOD-02 is called MainProcess and has no parent", function()
        local main = mp.current_process()
        assert.are.equal("MainProcess", main.name)
        assert.are.equal(mp.getpid(), main.pid)
        assert.is_false(main.daemon)
        assert.is_nil(main.exitcode)
        assert.is_true(main:is_alive())
        assert.is_nil(mp.parent_process())
        assert.are.equal("can only join a child process",
            failure("StateError", main.join, main))
        assert.matches("^<Process name='MainProcess' .*started>$",
            tostring(main))
    end)

    it("T-P-15 PRC-10 names its children by number", function()
        local result = run [[
            local p = mp.Process{target = function()
                io.write(mp.Process().name, " ")
            end}
            p:start()
            p:join()
            io.write(p.name, " ", mp.Process().name)]]
        assert.are.equal("Process-1:1 Process-1 Process-2", result.stdout)
    end)

    it("T-P-13 MOD-04 knows its active children, and joins those that ended",
        function()
        local list = {}
        for i = 1, 3 do
            list[i] = sleeper()
        end
        assert.are.same(list, mp.active_children())
        for _, p in ipairs(list) do
            p:kill()
        end
        helper.eventually(function()
            return #mp.active_children() == 0
        end)
        assert.are.same({}, core.debug.children())
        for _, p in ipairs(list) do
            assert.are.equal(-SIGKILL, p.exitcode)
            p:close()
        end
    end)

    it("keeps a child that nobody holds", function()
        start(mp.sleep, 0.05)
        collectgarbage()
        local p = mp.active_children()[1]
        assert.is_true(p:join())
        assert.are.equal(0, p.exitcode)
        p:close()
    end)

    it("T-P-11 PRC-17 ends daemons and awaits the others, however it ends",
        function()
        local ends = {
            [""] = 0, ["os.exit(3)"] = 3, ["os.exit(4, true)"] = 4,
            ["error('x')"] = 1,
        }
        for text, code in pairs(ends) do
            local before = mp.monotonic()
            local result = run([[
                mp.Process{target = mp.sleep, args = {30},
                    daemon = true}:start()
                mp.Process{target = function()
                    mp.sleep(0.3)
                    print("child")
                end}:start()
                print("main")
                ]] .. text)
            assert.are.equal(code, result.code)
            assert.are.equal("main\nchild\n", result.stdout)
            assert.is_true(mp.monotonic() - before < 10)
        end
    end)

    it("T-P-21 survives a hundred that end and a hundred that are ended",
        function()
        local list = {}
        for i = 1, 100 do
            list[i] = start(function() end)
        end
        for _, p in ipairs(list) do
            assert.is_true(p:join(20))
            assert.are.equal(0, p.exitcode)
            p:close()
        end
        for i = 1, 100 do
            list[i] = sleeper()
        end
        for _, p in ipairs(list) do
            p:terminate()
        end
        for _, p in ipairs(list) do
            assert.is_true(p:join(20))
            assert.are.equal(-SIGTERM, p.exitcode)
            p:close()
        end
    end)

    it("gets an error object when it cannot fork", function()
        local result = helper.run({"-c", string.format(
            "ulimit -n 6; exec %s -e %s", helper.quote(helper.mplua),
            helper.quote[[
            local mp = require "mp"
            local kept = {}
            while #kept < 8 do
                local file = io.open("/dev/null")
                if not file then break end
                kept[#kept + 1] = file
            end
            local ok, e = pcall(function()
                local p = mp.Process{target = os.exit, args = {5}}
                p:start()
                p:join()
                return p.exitcode
            end)
            io.write(ok and tostring(e) or e.kind .. " " .. e.code)]])},
            {program = "/bin/sh"})
        -- Without a descriptor for the arena there is no start; without one
        -- for the pidfd there is.
        assert.are.equal("OSError EMFILE", result.stdout)
    end)
end)
