-- A process is the same by whatever method it starts: what it is, what it is
-- called, what it has from its parent, how it ends, and what cannot go along.

local helper = require "spec.helper"
local mp = require "mp"
local start = require "spec.start_tools"

start.start_server()

local failure = helper.failure
local METHODS <const>, each <const> = start.METHODS, start.each

--- Runs p to its end, and returns what it puts into the queue.
local function said_by(p, queue)
    p:start()
    local said = queue:get(true, 20)
    assert.is_true(p:join(20))
    assert.are.equal(0, p.exitcode)
    p:close()
    return said
end

describe("a process", function()
    each("MOD-02 MOD-03 PRC-10 knows itself and its parent", function(context)
        local queue = mp.Queue()
        local text = said_by(context.Process{name = "bee", daemon = true,
            target = function()
                local here = require "mp"
                local me, parent = here.current_process(),
                    here.parent_process()
                queue:put(table.concat({me.name, tostring(me.daemon),
                    tostring(me.pid == here.getpid()),
                    tostring(me:is_alive()), tostring(me.exitcode),
                    parent.name, parent.pid, tostring(parent:is_alive()),
                    #here.active_children(),
                    (tostring(me):gsub("pid=%d+", "pid=N")),
                }, " "))
            end}, queue)
        assert.are.equal(("bee true true true nil MainProcess %d true 0 " ..
            "<Process name='bee' pid=N parent=%d started daemon>")
            :format(mp.getpid(), mp.getpid()), text)
    end)

    each("PRC-10 MOD-03 names its own children after itself",
        function(context, method)
        local queue = mp.Queue()
        local p = context.Process{target = function()
            local here = require "mp"
            local q = here.get_context(method).Process{target = function()
                local there = require "mp"
                queue:put(there.current_process().name .. " " ..
                    there.parent_process().name)
            end}
            q:start()
            q:join()
        end}
        local own, parent = said_by(p, queue):match("^(%S+) (%S+)$")
        assert.are.equal(p.name, parent)
        assert.are.equal(p.name .. ":1", own)
    end)

    each("PRC-01 binds args and kwargs", function(context)
        local queue = mp.Queue()
        local function job(a, b, c)
            queue:put(table.pack(a, b, c))
        end
        assert.are.same({1, nil, "z", n = 3}, said_by(context.Process{
            target = job, args = {1, n = 2}, kwargs = {c = "z"}}, queue))
        assert.are.same({1, n = 3},
            said_by(context.Process(nil, job, nil, {1}), queue))
    end)

    each("PRC-02 calls what can be called", function(context)
        local queue = mp.Queue()
        assert.are.equal("queued", said_by(context.Process{
            target = queue.put, args = {queue, "queued"}}, queue))
        local p <close> = context.Process()
        p:start()
        p:join()
        assert.are.equal(0, p.exitcode)
    end)

    each("PRC-13 has the exit code of os.exit", function(context)
        for code, wanted in pairs{[7] = 7, [256] = 0, [300] = 44, [-1] = 255,
            [true] = 0, [false] = 1} do
            local p <close> = context.Process{target = function()
                os.exit(code, true)
            end}
            p:start()
            assert.is_true(p:join(20))
            assert.are.equal(wanted, p.exitcode)
        end
    end)

    for _, method in ipairs(METHODS) do
        it("PRC-13 tells under its name what ended it, by " .. method,
            function()
            local result = start.run(method, [[
                local function inner() error("boom") end
                local function job(a) inner() end
                local function try(opts)
                    local p = ctx.Process(opts)
                    p:start()
                    p:join()
                    io.write(p.exitcode, " ")
                end
                try{target = job, name = "worker bee"}
                try{target = job, args = {1, 2}}
                try{target = job, kwargs = {z = 1}}
                try{target = error, args = {{}}}
                local W = ctx.Process:extend("W")
                function W:run() inner() end
                error()]])
            assert.are.equal(1, result.code) -- the last line fails, too
            assert.are.equal("1 1 1 1 ", result.stdout)
            local place = "Process worker bee:\n[^\n]*lua:1: boom\n" ..
                "stack traceback:\n%s*%[C%]: in function 'error'\n" ..
                "%s*[^\n]*lua:1: in "
            assert.matches(place, result.stderr)
            assert.matches("Process Process%-2:\n[^\n]*TypeError: " ..
                "function [^\n]*lua:2%(?%)? takes 1 argument %(2 given%)",
                result.stderr)
            assert.matches("Process%-3:\n[^\n]*unexpected keyword argument " ..
                "'z'", result.stderr)
            assert.matches("Process%-4:\n%(error object is a table value%)",
                result.stderr)
        end)
    end

    each("PRC-18 has random numbers of its own", function(context)
        local queue, seen = mp.Queue(), {}
        math.randomseed(1)
        seen[math.random(0)] = true
        for _ = 1, 3 do
            local n = said_by(context.Process{target = function()
                queue:put(math.random(0))
            end}, queue)
            assert.is_nil(seen[n])
            seen[n] = true
        end
    end)

    it("PRC-18 finds stdin empty, unless it is a thread", function()
        for _, method in ipairs(METHODS) do
            if method == "thread" then
                goto next
            end
            local path = helper.tmpfile(([[
                local mp = require "mp"
                io.write(io.read("l"), "|")
                local p = mp.get_context(%q).Process{target = function()
                    io.write("[", io.read("a"), "]")
                end}
                p:start()
                p:join()
                io.write("|", io.read("a"))]]):format(method), ".lua")
            local result = helper.run({path}, {stdin = "one\ntwo\n"})
            assert.are.equal("one|[]|two\n", result.stdout)
            ::next::
        end
    end)

    for _, method in ipairs(METHODS) do
        it("PRC-18 flushes its files, once, by " .. method, function()
            local result = start.run(method, [[
                local path = os.tmpname()
                io.stdout:setvbuf("full")
                io.write("a ")
                for _, how in ipairs{"return", "exit"} do
                    local p = ctx.Process{target = function()
                        io.stdout:setvbuf("full")
                        local file = io.open(path, "a")
                        file:setvbuf("full")
                        file:write(how, " ")
                        io.write("b ")
                        if how == "exit" then os.exit(0) end
                    end}
                    p:start()
                    p:join()
                end
                io.write("c ", io.open(path):read("a"))
                os.remove(path)]])
            assert.are.equal("", result.stderr)
            assert.are.equal("a b b c return exit ", result.stdout)
        end)
    end

    each("PRC-17 may have children and pools, a daemon, too",
        function(context, method)
        local queue = mp.Queue()
        local sum = said_by(context.Process{daemon = true, target = function()
            local here = require "mp"
            local pool <close> = here.get_context(method).Pool(2)
            local list = pool:map(function(x)
                local there = require "mp"
                local inner <close> = there.Pool(1)
                return inner:apply(math.abs, {-x})
            end, {1, 2, 3})
            queue:put(list[1] + list[2] + list[3])
        end}, queue)
        assert.are.equal(6, sum)
    end)
end)

describe("a running process", function()
    each("PRC-03 PRC-04 PRC-09 PRC-12 PRC-16 is looked after",
        function(context)
        local event, ready = mp.Event(), mp.Event()
        local p = context.Process{name = "x", target = function()
            ready:set()
            event:wait()
        end}
        p:start()
        assert.is_true(ready:wait(20))
        assert.are.equal("integer", math.type(p.pid))
        assert.is_true(p:is_alive())
        assert.is_nil(p.exitcode)
        assert.is_false(p:join(0))
        assert.is_false(p:join(0.02))
        assert.are.same({p}, mp.active_children())
        assert.are.equal(("<Process name='x' pid=%d parent=%d started>")
            :format(p.pid, mp.getpid()), tostring(p))
        assert.are.equal("cannot start a process twice",
            failure("StateError", p.start, p))
        assert.matches("Cannot close a process while it is still running",
            failure("StateError", p.close, p))
        event:set()
        assert.is_true(p:join(20))
        assert.are.equal(0, p.exitcode)
        assert.are.same({}, mp.active_children())
        assert.matches(" stopped exitcode=0>$", tostring(p))
        p:close()
        assert.are.equal("process object is closed",
            failure("StateError", p.join, p))
    end)

    each("PRC-15 has a sentinel, open until it is closed",
        function(context, method)
        local event = mp.Event()
        local p = context.Process{target = function()
            event:wait()
        end}
        p:start()
        local fd = p.sentinel
        assert.are.equal(fd, p.sentinel)
        local path = "/proc/self/fdinfo/" .. fd
        local file <close> = assert(io.open(path))
        if method ~= "thread" then -- what it refers to is the process
            assert.are.equal(p.pid,
                tonumber(file:read("a"):match("Pid:%s*(%d+)")))
        end
        event:set()
        assert.is_true(p:join(20))
        p:close()
        assert.is_nil(io.open(path))
    end)

    each("PRC-06 PRC-07 PRC-08 ends when it is told to",
        function(context, method)
        local wanted = {terminate = -15, kill = -9, interrupt = 1}
        for how, code in pairs(wanted) do
            local ready = mp.Event()
            local p <close> = context.Process{target = function()
                io.stderr:close()
                ready:set()
                require "mp".sleep(60)
            end}
            p:start()
            assert.is_true(ready:wait(20))
            p[how](p)
            assert.is_true(p:join(10), how .. " did not end it")
            if method ~= "thread" then
                assert.are.equal(code, p.exitcode)
            else
                assert.are_not.equal(0, p.exitcode)
            end
            p[how](p) -- does nothing now
        end
    end)

    for _, method in ipairs(METHODS) do
        it("PRC-11 PRC-17 is awaited by the main process, or ended when it " ..
            "is a daemon, by " .. method, function()
            for text, code in pairs{[""] = 0, ["os.exit(3, true)"] = 3,
                ["os.exit(4)"] = 4, ["error('x')"] = 1} do
                local before = mp.monotonic()
                local result = start.run(method, [[
                    ctx.Process{target = mp.sleep, args = {30},
                        daemon = true}:start()
                    ctx.Process{target = function()
                        require "mp".sleep(0.2)
                        io.write("child ")
                    end}:start()
                    io.write("main ")
                    ]] .. text)
                assert.are.equal(code, result.code)
                assert.are.equal("main child ", result.stdout)
                assert.is_true(mp.monotonic() - before < 10)
            end
        end)
    end
end)

describe("a class of processes", function()
    each("travels with its methods, fields and bases", function(context)
        local queue = mp.Queue()
        local Base = context.Process:extend("Base")
        function Base:init(n)
            self.n = n
        end
        function Base:twice()
            return 2 * self.n
        end
        function Base:__len()
            return self.n
        end
        local W = Base:extend("W")
        W.factor = 10
        function W:run()
            local here = require "mp"
            self.other = W(3) -- a method may use its class
            queue:put{self:twice() * W.factor, #self, self.other:twice(),
                self.name, tostring(here.current_process() == self),
                tostring(getmetatable(self) == W)}
        end
        local w = W(7)
        assert.are.same({140, 7, 6, w.name, "true", "true"},
            said_by(w, queue))
    end)

    each("travels with what its objects hold, themselves included",
        function(context)
        local queue = mp.Queue()
        local W = mp.Process:extend("W")
        function W:run()
            queue:put(tostring(self.list[1] == self) .. self.list.name)
        end
        local V = context.Process:extend("V")
        V.run = W.run
        local v = V()
        v.list = {v, name = "kept"}
        assert.are.equal("truekept", said_by(v, queue))
    end)
end)

describe("a start", function()
    each("PRC-03 is refused when something cannot travel that must",
        function(context, method)
        local p = context.Process{target = function(...)
            return select("#", ...)
        end, args = {1, {on = coroutine.create(print)}}}
        if method == "fork" then -- nothing travels
            p:start()
            p:join()
            assert.are.equal(0, p.exitcode)
            p:close()
            return
        end
        assert.matches("cannot pickle a coroutine: .*args%[2%]%.on",
            failure("PicklingError", p.start, p))
        assert.is_nil(p.pid)
        assert.is_false(p:is_alive())
        assert.matches(" initial>$", tostring(p))
        failure("TypeError", mp.pickle.dumps, p.authkey)
        local W = context.Process:extend("W")
        local w = W()
        w.file = io.stdout
        assert.matches("cannot pickle a file: .*state%.file",
            failure("PicklingError", w.start, w))
        assert.are.same({}, mp.active_children())
    end)

    each("lets go of what it was given", function(context)
        local weak = setmetatable({}, {__mode = "k"})
        local p <close> = (function()
            local held = {}
            weak[held] = true
            local q = context.Process{target = function(t)
                return t
            end, args = {held}, kwargs = {}}
            q:start()
            return q
        end)()
        collectgarbage()
        collectgarbage()
        assert.is_nil(next(weak))
    end)
end)

describe("the key of a process", function()
    it("PRC-14 is of 32 bytes, and assigned another", function()
        local main = mp.current_process()
        assert.are.equal(32, #main.authkey)
        assert.are.equal(32, #tostring(main.authkey))
        local p = mp.Process()
        assert.are.equal(main.authkey, p.authkey)
        p.authkey = "secret"
        assert.are.equal("secret", tostring(p.authkey))
        assert.are_not.equal(main.authkey, p.authkey)
        p.authkey = main.authkey
        assert.are.equal(main.authkey, p.authkey)
        assert.matches("authkey should be a byte string, got 5",
            failure("TypeError", function() p.authkey = 5 end))
        p:close()
        assert.are.equal(main.authkey, p.authkey)
    end)

    it("PRC-14 differs between programs", function()
        local keys = {}
        for i = 1, 2 do
            keys[i] = helper.run({"-e", [[io.write(tostring(
                require "mp".current_process().authkey))]]}).stdout
            assert.are.equal(32, #keys[i])
        end
        assert.are_not.equal(keys[1], keys[2])
    end)

    each("PRC-14 is its children's, theirs and their pools'",
        function(context, method)
        local queue = mp.Queue()
        local function tell()
            local here = require "mp"
            queue:put(tostring(here.current_process().authkey))
        end
        local key = tostring(mp.current_process().authkey)
        local p = context.Process{target = tell}
        assert.are.equal(key, said_by(p, queue))
        local own = context.Process{target = function()
            local here = require "mp"
            local q = here.get_context(method).Process{target = tell}
            q:start()
            q:join()
        end}
        own.authkey = "own"
        assert.are.equal("own", said_by(own, queue))
        local pool <close> = context.Pool(1)
        assert.are.equal(key, pool:apply(function()
            return tostring(require "mp".current_process().authkey)
        end))
    end)

    it("PRC-14 is not pickled but into a process that starts", function()
        local text = "Pickling an AuthenticationString object is " ..
            "disallowed for security reasons"
        local p = mp.Process()
        assert.are.equal(text, failure("TypeError", mp.pickle.dumps,
            {mp.current_process().authkey}))
        assert.are.equal(text, failure("TypeError", mp.pickle.dumps, p))
        local queue = mp.Queue()
        assert.are.equal(text, failure("TypeError", queue.put, queue, p))
    end)

    each("PRC-14 can be an argument, and so can a process", function(context)
        local queue, other = mp.Queue(), mp.Process{name = "other"}
        local key = mp.current_process().authkey
        assert.are.equal("true other", said_by(context.Process{
            target = function(k, o)
                queue:put(tostring(k == require "mp".current_process()
                    .authkey) .. " " .. o.name)
            end, args = {key, other}}, queue))
    end)
end)
