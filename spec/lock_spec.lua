local mp = require "mp"
require "spec.helper"

local function kind_of(f, ...)
    local ok, e = pcall(f, ...)
    assert.is_false(ok)
    assert.is_true(mp.iserror(e), tostring(e))
    return e.kind, e.message
end

--- Runs job(...) in a process and waits for its end.
local function in_process(job, ...)
    local p = mp.Process{target = job, args = {...}}
    p:start()
    p:join()
    assert.equal(0, p.exitcode)
end

--- A process that has acquired the lock and sleeps.
local function holder(lock)
    local held = mp.Event()
    local p = mp.Process{target = function()
        lock:acquire()
        held:set()
        mp.sleep(60)
    end}
    p:start()
    assert.is_true(held:wait(5))
    return p
end

local OVER <const> = "semaphore or lock released too many times"

describe("Lock", function()
    it("SYN-01 SYN-04 is held by one at a time", function()
        local lock <close> = mp.Lock()
        assert.is_false(lock:locked())
        assert.is_true(lock:acquire())
        assert.is_true(lock:locked())
        assert.is_false(lock:acquire(false))
        lock:release()
        assert.is_true(lock:acquire(false))
    end)

    it("SYN-01 T-S-03 waits as long as it is told", function()
        local lock <close> = mp.Lock()
        lock:acquire()
        local before = mp.monotonic()
        assert.is_false(lock:acquire(true, 0.05))
        assert.is_true(mp.monotonic() - before >= 0.05)
        assert.is_false(lock:acquire(nil, 0))
        assert.is_false(lock:acquire(true, -1))
        assert.is_false(lock:acquire(false, 10))
    end)

    it("SYN-02 T-S-01 may be released by another process, but not when free",
        function()
        local lock <close> = mp.Lock()
        assert.same({"ValueError", OVER}, {kind_of(lock.release, lock)})
        lock:acquire()
        in_process(function() lock:release() end)
        assert.is_false(lock:locked())
    end)

    it("T-S-17 of a parent is not a forked child's", function()
        local lock <close> = mp.Lock()
        lock:acquire()
        in_process(function() assert(not lock:acquire(false)) end)
        lock:release()
    end)

    it("T-S-05 keeps increments from being lost", function()
        local lock <close> = mp.Lock()
        local value <close> = mp.RawValue("q", 0)
        local ps = {}
        for i = 1, 8 do
            ps[i] = mp.Process{target = function()
                for _ = 1, 10000 do
                    lock:acquire()
                    value.value = value.value + 1
                    lock:release()
                end
            end}
            ps[i]:start()
        end
        for _, p in ipairs(ps) do p:join() end
        assert.equal(80000, value.value)
    end)

    it("SYN-08 PAIN-02 of a killed holder goes to the next, who is told",
        function()
        local lock <close> = mp.Lock()
        local p = holder(lock)
        p:kill()
        local before = mp.monotonic()
        assert.same({true, "abandoned"}, {lock:acquire()})
        assert.is_true(mp.monotonic() - before < 1)
        lock:release()
        assert.same({true}, {lock:acquire()})
        p:join()
    end)

    it("SYN-07 is guarded: released when the block is left, by an error too",
        function()
            local lock <close> = mp.Lock()
            do
                local held <close> = lock:guard()
                assert.is_true(lock:locked())
            end
            assert.is_false(lock:locked())
            pcall(function()
                local held <close> = lock:guard()
                error("on purpose")
            end)
            assert.is_false(lock:locked())
        end)

    it("has guards that release once, whoever closes them again", function()
        local lock <close> = mp.Lock()
        local guard = lock:guard()
        do local _ <close> = guard end
        lock:acquire()
        do local _ <close> = guard end
        assert.is_true(lock:locked())
        lock:release()
    end)

    it("is released by the guard of a coroutine that is dropped", function()
        local lock <close> = mp.Lock()
        coroutine.wrap(function()
            local held <close> = lock:guard()
            coroutine.yield()
        end)()
        assert.is_true(lock:locked())
        collectgarbage()
        collectgarbage()
        assert.is_false(lock:locked())
    end)

    it("tells a guard that it was abandoned", function()
        local lock <close> = mp.Lock()
        local p = holder(lock)
        p:kill()
        p:join()
        local held <close>, state = lock:guard()
        assert.equal("abandoned", state)
    end)

    it("can cross in a pickle", function()
        local lock <close> = mp.Lock()
        local same <close> = mp.pickle.loads(mp.pickle.dumps(lock))
        same:acquire()
        assert.is_true(lock:locked())
    end)

    it("shows its holder", function()
        local lock <close> = mp.Lock()
        assert.equal("<Lock(owner=nil)>", tostring(lock))
        lock:acquire()
        assert.equal("<Lock(owner=" .. mp.getpid() .. ")>", tostring(lock))
        local closed = mp.Lock()
        do local _ <close> = closed end
        assert.equal("<Lock(closed)>", tostring(closed))
    end)

    it("refuses misuse", function()
        local lock <close> = mp.Lock()
        local rlock <close> = mp.RLock()
        assert.equal("TypeError", (kind_of(lock.acquire, 5)))
        assert.equal("TypeError", (kind_of(lock.acquire, rlock)))
        assert.equal("TypeError", (kind_of(lock.acquire)))
        assert.equal("TypeError", (kind_of(lock.acquire, lock, 1)))
        assert.equal("TypeError", (kind_of(lock.acquire, lock, true, "1")))
        assert.equal("ValueError", (kind_of(lock.acquire, lock, true, 0 / 0)))
        assert.equal("TypeError", (kind_of(mp.Lock, 1)))
        do local _ <close> = lock end
        assert.equal("StateError", (kind_of(lock.acquire, lock)))
        assert.equal("StateError", (kind_of(lock.release, lock)))
        assert.equal("StateError", (kind_of(lock.guard, lock)))
        assert.equal("StateError", (kind_of(lock.locked, lock)))
    end)

    it("names the caller's line in its errors", function()
        local lock <close> = mp.Lock()
        local ok, e = pcall(function() lock:release() end)
        assert.is_false(ok)
        assert.matches("lock_spec.lua:%d+:", e.where)
    end)

    it("lets hooks end a wait", function()
        local lock <close> = mp.Lock()
        lock:acquire()
        local last = mp.monotonic() + 0.15
        debug.sethook(function()
            if mp.monotonic() > last then
                debug.sethook()
                error("enough", 0)
            end
        end, "", 1)
        local ok, e = pcall(lock.acquire, lock, true, 5)
        debug.sethook()
        assert.is_false(ok)
        assert.equal("enough", e)
        lock:release()
    end)
end)

describe("RLock", function()
    it("SYN-03 SYN-04 is free when released as often as acquired", function()
        local lock <close> = mp.RLock()
        for _ = 1, 3 do assert.is_true(lock:acquire()) end
        assert.equal("<RLock(owner=" .. mp.getpid() .. ", count=3)>",
            tostring(lock))
        for _ = 1, 3 do
            assert.is_true(lock:locked())
            lock:release()
        end
        assert.is_false(lock:locked())
    end)

    it("SYN-03 is released by its owner only", function()
        local lock <close> = mp.RLock()
        local text = "attempt to release recursive lock not owned by thread"
        assert.same({"StateError", text}, {kind_of(lock.release, lock)})
        lock:acquire()
        in_process(function()
            assert(kind_of(lock.release, lock) == "StateError")
            assert(not lock:acquire(true, 0.01))
        end)
        lock:release()
    end)

    it("SYN-07 has guards within guards", function()
        local lock <close> = mp.RLock()
        do
            local outer <close> = lock:guard()
            do
                local inner <close> = lock:guard()
                assert.matches("count=2", tostring(lock))
            end
            assert.matches("count=1", tostring(lock))
        end
        assert.is_false(lock:locked())
    end)

    it("SYN-08 of a killed holder begins anew", function()
        local lock <close> = mp.RLock()
        local p = holder(lock)
        p:kill()
        assert.same({true, "abandoned"}, {lock:acquire()})
        lock:release()
        assert.is_false(lock:locked())
        p:join()
    end)
end)
