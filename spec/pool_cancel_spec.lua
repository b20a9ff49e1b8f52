-- Pool: calls that are given up, and iterators that are left.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local sleep, square = tools.sleep, tools.square

--- A task that says that it runs, and runs on.
local function hold(started)
    started:add(1)
    require "mp".sleep(30)
end

--- Waits until n tasks have begun.
local function await(started, n)
    helper.eventually(function()
        return started.value >= n
    end)
end

for _, method in ipairs{"fork", "spawn", "thread"} do
    local context = mp.get_context(method)

    describe("cancel, " .. method, function()
        it("T-W-23 PAIN-11 ends queued and running tasks at once", function()
            local pool <close> = context.Pool(1)
            local started = mp.Value("i", 0)
            local running = pool:apply_async(hold, {started})
            await(started, 1)
            local queued = pool:apply_async(hold, {started})
            local pid = pool._core:pids()[1]
            assert.is_true(queued:cancel())
            assert.is_true(running:cancel())
            for _, r in ipairs{queued, running} do
                assert.is_true(r:ready())
                assert.is_false(r:successful())
                for _ = 1, 2 do
                    local _, text = tools.failure("Cancelled", r.get, r)
                    assert.are.equal("the call was cancelled", text)
                end
                assert.is_false(r:cancel())
            end
            local seconds = tools.timed(function()
                assert.are.equal(9, pool:apply(square, {3}))
            end)
            assert.is_true(seconds < 5)
            assert.are.equal(1, started.value)
            if method ~= "thread" then
                assert.is_true(helper.is_gone(pid))
            end
        end)
    end)
end

describe("cancel", function()
    it("T-W-23 is false for what has ended, whatever came of it", function()
        local pool <close> = mp.Pool(1)
        local good = pool:apply_async(square, {3})
        local bad = pool:apply_async(function() error("x", 0) end)
        good:wait()
        bad:wait()
        assert.is_false(good:cancel())
        assert.is_false(bad:cancel())
        assert.are.equal(9, good:get())
        tools.failure("RemoteError", bad.get, bad)
        assert.is_false(good:cancel())
    end)

    it("harms nobody else's tasks", function()
        local pool <close> = mp.Pool(2)
        local started = mp.Value("i", 0)
        local held = pool:map_async(hold, {started}, 1)
        await(started, 1)
        local others = {}
        for i = 1, 50 do
            others[i] = pool:apply_async(square, {i})
        end
        assert.is_true(held:cancel())
        for i = 1, 50 do
            assert.are.equal(i * i, others[i]:get())
        end
    end)

    it("gives up what of a map is not done", function()
        local pool <close> = mp.Pool(2)
        local ran = mp.Value("i", 0)
        local r = pool:map_async(function(x)
            ran:add(1)
            if x == 1 then require "mp".sleep(30) end
            require "mp".sleep(0.001)
        end, mp.range(1, 2000), 10)
        await(ran, 5)
        assert.is_true(r:cancel())
        tools.failure("Cancelled", r.get, r)
        pool:apply(square, {1})
        local n = ran.value
        pool:apply(square, {1})
        assert.is_true(n < 2000)
        assert.are.equal(n, ran.value)
    end)

    it("calls back with its error, and may be called in a callback",
        function()
            local pool <close> = mp.Pool(1)
            local kind
            local r = pool:apply_async(sleep, {30}, nil, {
                callback = error, error_callback = function(e)
                    kind = e.kind
                end,
            })
            pool:apply_async(square, {1}, nil, function() r:cancel() end)
            r:cancel()
            pool:poll()
            assert.are.equal("Cancelled", kind)
        end)

    it("is harmless after the pool's end", function()
        local pool = mp.Pool(1)
        local r = pool:apply_async(sleep, {30})
        pool:terminate()
        assert.is_false(r:cancel())
        tools.failure("PoolTerminated", r.get, r)
        pool:join()
        pool._core:release()
    end)
end)

describe("an imap that is left", function()
    local function left_by(leave)
        local pool <close> = mp.Pool(2)
        local seconds = tools.timed(function()
            leave(pool, function(x)
                if x > 1 then require "mp".sleep(30) end
                return x
            end)
            assert.are.same({1, 4, n = 2}, pool:map(square, {1, 2}, 1))
        end)
        assert.is_true(seconds < 5)
    end

    it("by break has its tasks end", function()
        left_by(function(pool, f)
            for _, v in pool:imap(f, mp.range(1, 100)) do
                assert.are.equal(1, v)
                break
            end
        end)
    end)

    it("to the collector has its tasks end", function()
        left_by(function(pool, f)
            do
                local it = pool:imap_unordered(f, mp.range(1, 100))
                assert.are.equal(1, (it:next()))
            end
            collectgarbage()
            collectgarbage()
        end)
    end)

    it("by <close> lets tasks tidy up, and kills who will not", function()
        local tidied = mp.Value("i", 0)
        left_by(function(pool, _)
            local started = mp.Value("i", 0)
            local it <close> = pool:imap(function(x)
                local _ <close> = setmetatable({}, {__close = function()
                    tidied:add(1)
                end})
                started:add(1)
                if x == 1 then require "mp".sleep(30) end
                while true do pcall(function() while true do end end) end
            end, {1, 2}, 1)
            await(started, 2)
        end)
        assert.are.equal(1, tidied.value)
    end)

    it("by cancel() is at its end", function()
        left_by(function(pool, f)
            local it = pool:imap(f, mp.range(1, 100), 1)
            assert.are.equal(1, (it:next()))
            assert.is_true(it:cancel())
            assert.is_false(it:cancel())
            assert.is_nil(it:next())
        end)
    end)
end)
