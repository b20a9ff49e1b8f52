-- mp.dummy: what Python's multiprocessing.dummy offers, on threads.

local helper = require "spec.helper"
local mp = require "mp"

local dummy = mp.dummy

local function run(target, ...)
    local p = dummy.Process{target = target, args = {...}}
    p:start()
    assert.is_true(p:join(10))
    return p
end

describe("dummy", function()
    it("DUM-01 exit code is nil, then 0, however it ends", function()
        local e = dummy.Event()
        local p = dummy.Process{target = function() e:wait() end}
        assert.is_nil(p.exitcode)
        p:start()
        assert.is_nil(p.exitcode)
        e:set()
        p:join()
        assert.are.equal(0, p.exitcode)
        assert.are.equal(0, run(os.exit, 3).exitcode)
        p = dummy.Process{target = mp.sleep, args = {30}}
        p:start()
        p:terminate()
        p:join()
        assert.are.equal(0, p.exitcode)
    end)

    it("DUM-01 E: is started once, and by who made it", function()
        local p = run(function() end)
        assert.are.equal("cannot start a process twice",
            helper.failure("StateError", p.start, p))
        local q = dummy.Queue()
        finally(function() q:close() end)
        local mine = dummy.Process{target = function() end}
        run(function()
            local ok, e = pcall(mine.start, mine)
            q:put({ok, e.kind, e.message})
        end)
        assert.are.same({false, "StateError", "can only start a process "
            .. "object created by current process"}, q:get(true, 10))
    end)

    it("DUM-01 has classes with a run of their own", function()
        local W = dummy.Process:extend("W")
        local v = dummy.Value("i", 0)
        function W.run() v.value = 5 end
        local w = W()
        w:start()
        w:join()
        assert.are.equal("W-", w.name:sub(1, 2))
        assert.are.equal(5, v.value)
        assert.are.equal(0, w.exitcode)
    end)

    it("DUM-02 has what can be waited on, and who runs", function()
        local barrier, lock = dummy.Barrier(2), dummy.RLock()
        local q = dummy.JoinableQueue()
        finally(function() q:close() end)
        local p = dummy.Process{target = function()
            local held <close> = lock:guard()
            barrier:wait(10)
            q:get(true, 10)
            q:task_done()
        end}
        p:start()
        assert.are.same({p}, dummy.active_children())
        barrier:wait(10)
        q:put("item")
        assert.is_true(q:join(10))
        p:join()
        assert.are.same({}, dummy.active_children())
        assert.are.equal(mp.current_process(), dummy.current_process())
        for _, name in ipairs{"Lock", "Semaphore", "BoundedSemaphore",
                              "Condition", "Event", "Queue",
                              "freeze_support"} do
            assert.are.equal("function", type(dummy[name]), name)
            dummy[name]()
        end
    end)

    it("DUM-03 has pipes; what crosses is a copy", function()
        local a, b = dummy.Pipe()
        finally(function() a:close() end)
        local p = dummy.Process{target = function(c)
            c:send(c:recv()(20))
            c:close()
        end, args = {b}}
        p:start()
        b:close()
        a:send(function(x) return x + 1 end)
        assert.are.equal(21, a:recv())
        p:join()
        helper.failure("EOF", a.recv, a)
    end)

    it("DUM-03 has listeners and clients", function()
        local listener <close> = dummy.connection.Listener()
        local address = listener.address
        local p = dummy.Process{target = function()
            local c <close> = require("mp.dummy").connection.Client(address)
            c:send_bytes("hello")
        end}
        p:start()
        local c <close> = listener:accept()
        assert.are.equal("hello", c:recv_bytes())
        p:join()
    end)

    it("DUM-04 has managers, and what they make", function()
        local m = dummy.Manager()
        local d, l = m:dict{x = 1}, dummy.list{1, 2}
        local space = dummy.Namespace()
        run(function()
            d.y = 2
            l:append(3)
            space.z = 4
        end)
        assert.are.equal(2, d.y)
        assert.are.equal(3, l[3])
        assert.are.equal(4, space.z)
        assert.are.equal(1, dummy.dict{k = 1}.k)
        m:shutdown()
        dummy.shutdown()
    end)

    it("DUM-05 has pools of threads", function()
        for _, make in ipairs{dummy.Pool, function(...)
            return dummy.Manager():Pool(...)
        end} do
            local pool <close> = make(2)
            local pids = pool:map(mp.getpid, {1, 2})
            assert.are.same({mp.getpid(), mp.getpid(), n = 2}, pids)
        end
    end)
end)
