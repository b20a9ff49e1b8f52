-- mp.threading and mp.dummy: Python's names for threads.

local helper = require "spec.helper"
local mp = require "mp"
local threading = require "mp.threading"

local Thread = threading.Thread

describe("mp.threading", function()
    it("is a field of mp, too", function()
        assert.are.equal(threading, mp.threading)
        assert.is_nil(mp.no_such_module)
    end)

    it("runs a target with args and kwargs", function()
        local q = mp.Queue()
        local t = Thread{target = function(out, a, b) out:put({a, b}) end,
                         args = {q, 1}, kwargs = {b = 2}}
        assert.is_nil(t.ident)
        assert.is_false(t:is_alive())
        t:start()
        assert.is_true(t:join(10))
        assert.are.same({1, 2}, q:get(true, 10))
        assert.is_false(t:is_alive())
        assert.are.equal(0, t.exitcode)
    end)

    it("names threads apart from processes", function()
        local r = helper.run({"-e", [[
            local mp = require "mp"
            local threading = require "mp.threading"
            local function nothing() end
            print(threading.Thread{target = nothing}.name,
                mp.Process{target = nothing}.name,
                threading.Thread{target = nothing}.name,
                threading.Thread{target = nothing, name = "T"}.name)]]})
        assert.are.equal("Thread-1\tProcess-1\tThread-2\tT\n", r.stdout)
    end)

    it("knows the current thread, here and there", function()
        local main = threading.current_thread()
        assert.are.equal("MainThread", main.name)
        assert.is_true(main:is_alive())
        assert.are.equal(main.ident, threading.get_ident())
        assert.are.equal("MainThread", threading.main_thread().name)
        assert.are.equal("StateError", select(2, pcall(main.join, main)).kind)
        local q = mp.Queue()
        local t = Thread{name = "worker", daemon = true, args = {q},
            target = function(out)
                local th = require "mp.threading"
                local c = th.current_thread()
                out:put({c.name, c.daemon, c.ident, th.get_ident(),
                         th.main_thread().name})
            end}
        t:start()
        local ident = t.ident
        assert.is_true(t:join(10))
        assert.are.same({"worker", true, ident, ident, "MainThread"},
            q:get(true, 10))
        assert.are_not.equal(main.ident, ident)
    end)

    it("is the main thread's again in a process that a thread forks",
    function()
        local q = mp.Queue()
        local t = Thread{args = {q}, target = function(out)
            local P = require("mp").get_context("fork").Process
            local p = P{target = function()
                out:put(require("mp.threading").current_thread().name)
            end}
            p:start()
            p:join()
        end}
        t:start()
        assert.is_true(t:join(10))
        assert.are.equal("MainThread", q:get(true, 10))
    end)

    it("lists the threads that run, and no processes", function()
        local e = mp.Event()
        local function wait(event) event:wait() end
        local t = Thread{target = wait, args = {e}}
        local p = mp.Process{target = wait, args = {e}}
        p:start()
        t:start()
        local list = threading.active_threads()
        assert.are.same({"MainThread", t.name}, {list[1].name, list[2].name})
        assert.are.equal(2, #list)
        assert.are.equal(2, threading.active_count())
        assert.are.equal(threading.active_threads, threading.enumerate)
        assert.are.same({p}, mp.active_children())
        e:set()
        assert.is_true(t:join(10))
        assert.is_true(p:join(10))
        assert.are.equal(1, threading.active_count())
    end)

    it("has classes with a run of their own", function()
        local q = mp.Queue()
        local Greeter = Thread:extend("Greeter")
        function Greeter:init(whom)
            Thread.init(self)
            self.whom = whom
        end
        function Greeter:run()
            self.out:put("hello " .. self.whom .. " from " .. self.name)
        end
        local g = Greeter("bob")
        g.out = q
        g:start()
        assert.is_true(g:join(10))
        assert.matches("^hello bob from Thread%-%d+$", q:get(true, 10))
    end)

    it("tells an error headed by the thread's name", function()
        local r = helper.run({"-e", [[
            local t = require("mp.threading").Thread{name = "T1",
                target = function() error("no luck") end}
            t:start()
            t:join()
            print(t.exitcode)]]})
        assert.are.equal("1\n", r.stdout)
        assert.matches("^Thread T1:\n.*no luck\nstack traceback:\n",
            r.stderr)
    end)

    it("refuses what Process refuses", function()
        assert.are.equal("Thread: target must be callable, got 1",
            (helper.failure("TypeError", Thread, {target = 1})))
        assert.are.equal("Thread() got an unexpected keyword argument 'run'",
            (helper.failure("TypeError", Thread, {run = print})))
        assert.are.equal("Thread: args must be a list, got a table without "
            .. "items 1 to n",
            (helper.failure("TypeError", Thread, {args = {x = 1}})))
        local t = Thread{target = function() end}
        assert.are.equal("StateError", select(2, pcall(t.join, t)).kind)
        t:start()
        assert.are.equal("StateError", select(2, pcall(t.start, t)).kind)
        assert.is_true(t:join(10))
    end)

    it("has the locks of mp", function()
        for _, name in ipairs{"Lock", "RLock", "Semaphore",
                              "BoundedSemaphore", "Condition", "Event"} do
            assert.are.equal(mp[name], threading[name])
        end
        local b = threading.Barrier(2)
        local t = Thread{target = function(barrier) barrier:wait() end,
                         args = {b}}
        t:start()
        assert.is_true(b:wait(10) < 2)
        assert.is_true(t:join(10))
    end)
end)

describe("mp.dummy", function()
    it("is mp, with threads for processes", function()
        local dummy = require "mp.dummy"
        assert.are.equal(dummy, mp.dummy)
        assert.are.equal("thread", dummy.get_start_method())
        local q, seen = dummy.Queue(), dummy.Event()
        local p = dummy.Process{target = function(out)
            local m = require "mp"
            out:put({m.getpid(), m.current_process().name,
                     m.parent_process().pid})
            seen:wait(10)
        end, args = {q}}
        p:start()
        assert.are.same({p}, dummy.active_children())
        seen:set()
        assert.are.same({mp.getpid(), p.name, mp.getpid()},
            q:get(true, 10))
        assert.is_true(p:join(10))
        assert.are.equal(0, p.exitcode)
        assert.are.same({}, dummy.active_children())
        assert.are.equal(mp.current_process(), dummy.current_process())
    end)

    it("DUM-01 tells an error as a process does, with exit code 0",
        function()
        local r = helper.run({"-e", [[
            local dummy = require "mp.dummy"
            local p = dummy.Process{target = function() error("x") end}
            p:start()
            p:join()
            print(p.exitcode)]]})
        assert.are.equal("0\n", r.stdout)
        assert.matches("^Process Process%-1:\n", r.stderr)
    end)
end)
