local mp = require "mp"
local helper = require "spec.helper"

local function kind_of(f, ...)
    local ok, e = pcall(f, ...)
    assert.is_false(ok)
    return mp.iserror(e) and e.kind or e
end

--- Starts processes that run job().
local function start(n, job)
    local ps = {}
    for i = 1, n do
        ps[i] = mp.Process{target = job}
        ps[i]:start()
    end
    return ps
end

local function join(ps)
    for _, p in ipairs(ps) do p:join() end
end

--- A party that counts in `broken` if its wait ends so.
local function breaks(barrier, broken)
    return function()
        local ok, e = pcall(barrier.wait, barrier, 10)
        if not ok and mp.iserror(e, "BrokenBarrier") then broken:add(1) end
    end
end

local function wait_for_waiting(barrier, n)
    helper.eventually(function() return barrier.n_waiting == n end)
end

describe("Barrier", function()
    it("SYN-11 T-S-13 gives the ranks 0, 1, 2 in each of 100 rounds",
        function()
        local acted <close> = mp.Value("i", 0)
        local barrier <close> = mp.Barrier(3, function()
            acted.value = acted.value + 1
        end)
        local ranks <close> = mp.Array("i", 100)
        join(start(3, function()
            for i = 1, 100 do
                local bit = 1 << barrier:wait(10)
                local held <close> = ranks:get_lock():guard()
                assert(ranks[i] & bit == 0)
                ranks[i] = ranks[i] | bit
            end
        end))
        for i = 1, 100 do assert.equal(7, ranks[i]) end
        assert.equal(100, acted.value)
        assert.is_false(barrier.broken)
    end)

    it("SYN-11 has fields, and takes its arguments by name", function()
        local barrier <close> = mp.Barrier{parties = 2, timeout = 0.01}
        assert.equal(2, barrier.parties)
        assert.equal(0, barrier.n_waiting)
        assert.is_false(barrier.broken)
        assert.is_nil(barrier.nothing)
        assert.equal("<Barrier(waiting=0/2)>", tostring(barrier))
        assert.equal("BrokenBarrier", kind_of(barrier.wait, barrier))
        assert.equal("<Barrier(broken)>", tostring(barrier))
    end)

    it("of one party is passed at once, acting each time", function()
        local n = 0
        local barrier <close> = mp.Barrier(1, function() n = n + 1 end)
        for _ = 1, 10 do assert.equal(0, barrier:wait()) end
        assert.equal(10, n)
    end)

    it("SYN-11 is broken by a wait's timeout, for all, until it is reset",
        function()
            local barrier <close> = mp.Barrier(3)
            local broken <close> = mp.Value("i", 0)
            local ps = start(1, breaks(barrier, broken))
            wait_for_waiting(barrier, 1)
            assert.equal("BrokenBarrier",
                kind_of(barrier.wait, barrier, 0.01))
            join(ps)
            assert.equal(1, broken.value)
            assert.is_true(barrier.broken)
            barrier:reset()
            assert.is_false(barrier.broken)
        end)

    it("SYN-11 is broken by abort; reset tells those who wait", function()
        local barrier <close> = mp.Barrier(3)
        local broken <close> = mp.Value("i", 0)
        local ps = start(2, breaks(barrier, broken))
        wait_for_waiting(barrier, 2)
        barrier:reset()
        join(ps)
        assert.equal(2, broken.value)
        assert.is_false(barrier.broken)
        ps = start(2, breaks(barrier, broken))
        wait_for_waiting(barrier, 2)
        barrier:abort()
        join(ps)
        assert.equal(4, broken.value)
        assert.is_true(barrier.broken)
        assert.equal("BrokenBarrier", kind_of(barrier.wait, barrier))
    end)

    it("SYN-11 T-S-15 gives its action's error to who runs it, and breaks",
        function()
        local barrier <close> = mp.Barrier(2, function() error("no", 0) end)
        local broken <close> = mp.Value("i", 0)
        local ps = start(1, breaks(barrier, broken))
        wait_for_waiting(barrier, 1)
        assert.equal("no", kind_of(barrier.wait, barrier))
        join(ps)
        assert.equal(1, broken.value)
    end)

    it("takes its action along in a pickle", function()
        local value <close> = mp.Value("i", 0)
        local same
        do
            local barrier <close> = mp.Barrier(1, function()
                value.value = value.value + 1
            end)
            same = mp.pickle.loads(mp.pickle.dumps(barrier))
        end
        assert.equal(0, same:wait())
        assert.equal(0, same:wait())
        assert.equal(2, value.value)
        do local _ <close> = same end
    end)

    it("PAIN-02 is broken at once by a party that is killed waiting",
        function()
        local barrier <close> = mp.Barrier(3)
        local broken <close> = mp.Value("i", 0)
        local ps = start(2, breaks(barrier, broken))
        wait_for_waiting(barrier, 2)
        local before = mp.monotonic()
        ps[1]:kill()
        join(ps)
        assert.is_true(mp.monotonic() - before < 1)
        assert.equal(1, broken.value)
        assert.is_true(barrier.broken)
    end)

    it("is broken by a party that is killed before it came", function()
        local barrier <close> = mp.Barrier(3)
        local broken <close> = mp.Value("i", 0)
        local up <close> = mp.Event()
        local ps = start(2, breaks(barrier, broken))
        local late = mp.Process{target = function()
            up:set()
            mp.sleep(60)
            barrier:wait()
        end}
        late:start()
        wait_for_waiting(barrier, 2)
        assert.is_true(up:wait(5))
        late:kill()
        join(ps)
        late:join()
        assert.equal(2, broken.value)
    end)

    it("refuses a wait in its own action, which would never end", function()
        local barrier
        local inner, error_in_action
        barrier = mp.Barrier(1, function()
            inner = kind_of(barrier.wait, barrier)
            if error_in_action then barrier:wait(5) end
        end)
        local _ <close> = barrier
        -- Should it wait for itself, a hook ends that.
        local last = mp.monotonic() + 2
        debug.sethook(function()
            if mp.monotonic() > last then
                debug.sethook()
                error("it waits for itself", 0)
            end
        end, "", 1)
        local rank = barrier:wait()
        debug.sethook()
        assert.equal("StateError", inner)
        assert.equal(0, rank)
        error_in_action = true
        assert.equal("StateError", kind_of(barrier.wait, barrier))
        assert.is_true(barrier.broken)
    end)

    it("lets its action wait once more after a reset", function()
        local acts, barrier = 0, nil
        barrier = mp.Barrier(1, function()
            acts = acts + 1
            if acts == 1 then
                barrier:reset()
                assert(barrier:wait(5) == 0)
            end
        end)
        local _ <close> = barrier
        assert.equal("BrokenBarrier", kind_of(barrier.wait, barrier, 5))
        assert.equal(2, acts)
        assert.equal(0, barrier:wait(5))
    end)

    it("lets a child that its action starts wait for the next round",
        function()
        local barrier, child
        local parent = mp.getpid()
        barrier = mp.Barrier(1, function()
            if mp.getpid() ~= parent then return end
            child = helper.start(function()
                assert(barrier:wait(10) == 0)
            end)
            mp.sleep(0.05)
        end)
        local _ <close> = barrier
        assert.equal(0, barrier:wait(5))
        helper.finish(child)
    end)

    it("is broken by a wait that an error ends", function()
        local barrier <close> = mp.Barrier(2)
        debug.sethook(function()
            if barrier.n_waiting == 1 then
                debug.sethook()
                error("enough", 0)
            end
        end, "", 1)
        local result = kind_of(barrier.wait, barrier, 5)
        debug.sethook()
        assert.equal("enough", result)
        assert.is_true(barrier.broken)
        assert.equal(0, barrier.n_waiting)
    end)

    it("SYN-11 T-S-15 refuses misuse", function()
        assert.equal("ValueError", kind_of(mp.Barrier, 0))
        assert.equal("ValueError", kind_of(mp.Barrier, -1))
        assert.equal("ValueError", kind_of(mp.Barrier, 1.5))
        assert.equal("TypeError", kind_of(mp.Barrier))
        assert.equal("TypeError", kind_of(mp.Barrier, "2"))
        assert.equal("TypeError", kind_of(mp.Barrier, 2, 5))
        assert.equal("TypeError", kind_of(mp.Barrier, 2, nil, "1"))
        assert.equal("ValueError", kind_of(mp.Barrier, 2, nil, 0 / 0))
        assert.equal("TypeError", kind_of(mp.Barrier, {partys = 2}))
        local thread = coroutine.create(print)
        assert.equal("PicklingError", kind_of(mp.Barrier, 2, function()
            return thread
        end))
    end)
end)
