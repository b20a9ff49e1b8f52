local mp = require "mp"
require "spec.helper"

local function kind_of(f, ...)
    local ok, e = pcall(f, ...)
    assert.is_false(ok)
    assert.is_true(mp.iserror(e), tostring(e))
    return e.kind, e.message
end

local OVER <const> = "semaphore or lock released too many times"

describe("Semaphore", function()
    it("SYN-05 SYN-04 counts what it has left", function()
        local sem <close> = mp.Semaphore(2)
        assert.equal(2, sem:get_value())
        assert.is_true(sem:acquire())
        assert.is_true(sem:acquire())
        assert.equal(0, sem:get_value())
        assert.is_true(sem:locked())
        assert.is_false(sem:acquire(false))
        assert.is_false(sem:acquire(true, 0.02))
        sem:release()
        assert.is_true(sem:acquire(false))
    end)

    it("SYN-05 is 1 by default, and takes its argument by name", function()
        local one <close> = mp.Semaphore()
        local five <close> = mp.Semaphore{value = 5}
        assert.equal(1, one:get_value())
        assert.equal("<Semaphore(value=5)>", tostring(five))
    end)

    it("SYN-05 may be released beyond its first value, and by several",
        function()
        local sem <close> = mp.Semaphore(0)
        sem:release()
        sem:release(3)
        assert.equal(4, sem:get_value())
    end)

    it("SYN-07 lets as many in as it has permits", function()
        local sem <close> = mp.Semaphore(2)
        local inside <close> = mp.Value("i", 0)
        local most <close> = mp.Value("i", 0)
        local ps = {}
        for i = 1, 5 do
            ps[i] = mp.Process{target = function()
                local held <close> = sem:guard()
                local now = inside:add(1)
                if now > most.value then most.value = now end
                mp.sleep(0.01)
                inside:add(-1)
            end}
            ps[i]:start()
        end
        for _, p in ipairs(ps) do p:join() end
        assert.equal(2, sem:get_value())
        assert.is_true(most.value <= 2)
    end)

    it("does not hand a dead process's permit back, nor lose a wake",
        function()
            local sem <close> = mp.Semaphore(1)
            local p = mp.Process{target = function()
                sem:acquire()
                mp.sleep(60)
            end}
            p:start()
            while sem:get_value() > 0 do mp.sleep(0.001) end
            p:kill()
            p:join()
            assert.is_false(sem:acquire(true, 0.02))
            sem:release()
            assert.is_true(sem:acquire())
        end)

    it("SYN-05 SYN-12 refuses what is no count", function()
        assert.equal("ValueError", (kind_of(mp.Semaphore, -1)))
        assert.equal("ValueError", (kind_of(mp.Semaphore, 1.5)))
        assert.equal("ValueError", (kind_of(mp.Semaphore, 0 / 0)))
        assert.equal("ValueError", (kind_of(mp.Semaphore, 2 ^ 31)))
        assert.equal("TypeError", (kind_of(mp.Semaphore, "1")))
        assert.equal("TypeError", (kind_of(mp.Semaphore, 1, 2)))
        local kind, message = kind_of(mp.Semaphore, {valu = 1})
        assert.equal("TypeError", kind)
        assert.matches("'valu'", message)
        local sem <close> = mp.Semaphore()
        assert.equal("ValueError", (kind_of(sem.release, sem, 0)))
        assert.equal("ValueError", (kind_of(sem.release, sem, 2147483647)))
        assert.equal(1, sem:get_value())
    end)
end)

describe("BoundedSemaphore", function()
    it("SYN-06 refuses to be released beyond its first value", function()
        local sem <close> = mp.BoundedSemaphore(2)
        assert.same({"ValueError", OVER}, {kind_of(sem.release, sem)})
        sem:acquire()
        sem:release()
        assert.equal("<BoundedSemaphore(value=2, maxvalue=2)>",
            tostring(sem))
    end)

    it("can cross in a pickle", function()
        local sem <close> = mp.BoundedSemaphore(1)
        local same <close> = mp.pickle.loads(mp.pickle.dumps(sem))
        same:acquire()
        assert.equal(0, sem:get_value())
        same:release()
        assert.equal("ValueError", (kind_of(same.release, same)))
    end)
end)
