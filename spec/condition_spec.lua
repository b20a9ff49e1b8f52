local mp = require "mp"
local helper = require "spec.helper"

local function kind_of(f, ...)
    local ok, e = pcall(f, ...)
    assert.is_false(ok)
    assert.is_true(mp.iserror(e), tostring(e))
    return e.kind, e.message
end

--- How many wait, by what the condition shows.
local function waiting(cond)
    return tonumber(tostring(cond):match("waiting=(%d+)"))
end

--- Starts processes that wait once and add 1 to `woken` if notified.
local function waiters(cond, n, woken)
    local ps = {}
    for i = 1, n do
        ps[i] = mp.Process{target = function()
            local held <close> = cond:guard()
            if cond:wait(10) then woken:add(1) end
        end}
        ps[i]:start()
        helper.eventually(function() return waiting(cond) == i end)
    end
    return ps
end

local function join(ps)
    for _, p in ipairs(ps) do p:join() end
end

local function notify(cond, n)
    local held <close> = cond:guard()
    cond:notify(n)
end

describe("Condition", function()
    it("SYN-09 T-S-07 wants its lock held", function()
        local cond <close> = mp.Condition()
        assert.same({"StateError",
            "must acquire() condition before using wait()"},
            {kind_of(cond.wait, cond, 0)})
        assert.same({"StateError", "lock is not owned"},
            {kind_of(cond.notify, cond)})
        assert.same({"StateError", "lock is not owned"},
            {kind_of(cond.notify_all, cond)})
        assert.equal("StateError", (kind_of(cond.release, cond)))
    end)

    it("SYN-09 times out with false, and holds the lock again", function()
        local cond <close> = mp.Condition()
        local held <close> = cond:guard()
        assert.is_false(cond:wait(0))
        assert.is_false(cond:wait(0.02))
        assert.is_true(cond:locked())
        cond:notify() -- nobody waits: nothing happens
        cond:notify_all()
    end)

    it("SYN-09 T-S-11 gives up every level of its lock, and takes them again",
        function()
        local cond <close> = mp.Condition()
        local p = mp.Process{target = function()
            local held <close> = cond:guard()
            cond:notify()
        end}
        cond:acquire()
        cond:acquire()
        p:start()
        assert.is_true(cond:wait(5))
        cond:release()
        assert.is_true(cond:locked())
        cond:release()
        assert.is_false(cond:locked())
        p:join()
    end)

    it("SYN-09 notifies as many as it is told", function()
        local cond <close> = mp.Condition()
        local woken <close> = mp.Value("i", 0)
        local ps = waiters(cond, 5, woken)
        notify(cond, 2)
        helper.eventually(function() return woken.value == 2 end)
        assert.equal(3, waiting(cond))
        local held <close> = cond:guard()
        cond:notify_all()
        cond:release()
        join(ps)
        cond:acquire()
        assert.equal(5, woken.value)
    end)

    it("T-S-09 PAIN-02 returns when a waiter was killed, and wakes the others",
        function()
        local cond <close> = mp.Condition()
        local woken <close> = mp.Value("i", 0)
        local ps = waiters(cond, 3, woken)
        ps[1]:kill()
        ps[1]:join()
        notify(cond, 1)
        helper.eventually(function() return woken.value == 1 end)
        cond:acquire()
        cond:notify_all()
        cond:release()
        join(ps)
        assert.equal(2, woken.value)
    end)

    it("SYN-09 waits for a predicate, and returns its last value", function()
        local cond <close> = mp.Condition()
        local state <close> = mp.Value("i", 0)
        local p = mp.Process{target = function()
            for _ = 1, 4 do
                mp.sleep(0.005)
                local held <close> = cond:guard()
                state.value = state.value + 1
                cond:notify()
            end
        end}
        local held <close> = cond:guard()
        p:start()
        assert.equal("four", cond:wait_for(function()
            return state.value == 4 and "four"
        end, 5))
        assert.is_false(cond:wait_for(function() return false end, 0.02))
        assert.equal(7, cond:wait_for(function() return 7 end, 0))
        cond:release()
        p:join()
        cond:acquire()
    end)

    it("works over a lock that it is given, and keeps it alive", function()
        local cond
        do
            local lock <close> = mp.Lock()
            cond = mp.Condition{lock = lock}
            cond:acquire()
            assert.is_true(lock:locked())
            cond:release()
            assert.equal("ValueError", (kind_of(cond.release, cond)))
        end
        local held <close> = cond:guard()
        assert.is_false(cond:wait(0.01))
        cond:release()
        do local _ <close> = cond end
        assert.equal("StateError", (kind_of(cond.acquire, cond)))
    end)

    it("works over the lock of a value", function()
        local value <close> = mp.Value("i", 0)
        local lock <close> = value:get_lock()
        local cond <close> = mp.Condition(lock)
        local p = mp.Process{target = function()
            local held <close> = cond:guard()
            value.value = 5
            cond:notify()
        end}
        local held <close> = cond:guard()
        p:start()
        assert.is_true(cond:wait_for(function()
            return value.value == 5
        end, 5))
        cond:release()
        p:join()
        cond:acquire()
    end)

    it("can cross in a pickle, with its lock", function()
        local lock <close> = mp.Lock()
        local cond <close> = mp.Condition(lock)
        local same <close> = mp.pickle.loads(mp.pickle.dumps(cond))
        same:acquire()
        assert.is_true(lock:locked())
        same:release()
    end)

    it("holds the lock again when an error ends a wait", function()
        local cond <close> = mp.Condition()
        local last = mp.monotonic() + 0.05
        cond:acquire()
        debug.sethook(function()
            if mp.monotonic() > last then
                debug.sethook()
                error("enough", 0)
            end
        end, "", 1)
        local ok, e = pcall(cond.wait, cond, 5)
        debug.sethook()
        assert.is_false(ok)
        assert.equal("enough", e)
        assert.equal(0, waiting(cond))
        cond:release()
    end)

    it("tells a waiter whose lock was left by a dead holder", function()
        local cond <close> = mp.Condition()
        local p = mp.Process{target = function()
            cond:acquire()
            cond:notify()
            os.execute("kill -9 " .. mp.getpid())
        end}
        cond:acquire()
        p:start()
        assert.same({true, "abandoned"}, {cond:wait(5)})
        cond:release()
        p:join()
    end)

    it("is not made over a lock that a finalizer closes meanwhile", function()
        -- Apart from us: it might write where the arena begins.
        local result = helper.run({"-"}, {stdin = [[
            local mp = require "mp"
            for _, name in ipairs{"Lock", "RLock"} do
                mp.Condition(mp[name]()) -- the classes are there
                local lock, armed = mp[name](), false
                local function lie_in_wait()
                    setmetatable({}, {__gc = function()
                        if armed then
                            debug.getmetatable(lock).__close(lock)
                        else
                            lie_in_wait()
                        end
                    end})
                end
                lie_in_wait()
                collectgarbage("incremental", 1, 1000, 100)
                collectgarbage()
                armed = true
                print(select(2, pcall(mp.Condition, lock)))
            end]]})
        assert.equal("StateError: Lock is closed\n"
            .. "StateError: RLock is closed\n", result.stdout)
        assert.equal(0, result.code)
    end)

    it("refuses misuse", function()
        local sem <close> = mp.Semaphore()
        assert.equal("TypeError", (kind_of(mp.Condition, 5)))
        assert.equal("TypeError", (kind_of(mp.Condition, sem)))
        assert.equal("TypeError", (kind_of(mp.Condition, {lok = sem})))
        local lock = mp.Lock()
        do local _ <close> = lock end
        assert.equal("StateError", (kind_of(mp.Condition, lock)))
        local cond <close> = mp.Condition()
        local held <close> = cond:guard()
        assert.equal("TypeError", (kind_of(cond.wait_for, cond, 5)))
        assert.equal("ValueError", (kind_of(cond.notify, cond, -1)))
        assert.equal("ValueError", (kind_of(cond.notify, cond, 0.5)))
        assert.equal("ValueError", (kind_of(cond.wait, cond, 0 / 0)))
    end)
end)
