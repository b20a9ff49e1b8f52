-- Pool:stats().

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local failure = tools.failure
local square, sleep = tools.square, tools.sleep

--- The stats of a pool, once f says that they are what they become.
local function stats_when(pool, f)
    return helper.eventually(function()
        local stats = pool:stats()
        return f(stats) and stats
    end)
end

describe("stats", function()
    it("counts what was done, by worker and in all", function()
        local pool <close> = mp.Pool(2)
        pool:map(square, mp.range(100))
        pool:map(tools.failing(2, 5), {1, 2, 3, 4, 5},
            {on_error = "collect", retries = 1})
        local stats = stats_when(pool, function(s) return s.done >= 105 end)
        assert.are.same({"run", 2, 105, 2, 2, 0, 0}, {stats.state,
            stats.processes, stats.done, stats.failed, stats.retried,
            stats.lost, stats.timeouts})
        assert.are.equal(2, #stats.workers)
        assert.are.equal(105, stats.workers[1].done + stats.workers[2].done)
        assert.are.same(pool._core:pids(), {stats.workers[1].pid,
            stats.workers[2].pid})
    end)

    it("counts what was lost and what took too long", function()
        local pool <close> = mp.Pool(1)
        pcall(pool.map, pool, function(x)
            return x ~= 2 and x or os.exit(3)
        end, {1, 2, 3}, 1)
        failure("TaskTimeout", pool.map, pool, function()
            while true do
                pcall(require "mp".sleep, 60)
            end
        end, {1}, {timeout = 0.01, grace = 0.01})
        local stats = stats_when(pool, function(s)
            return s.lost + s.timeouts >= 2
        end)
        assert.are.same({1, 1}, {stats.lost, stats.timeouts})
    end)

    it("tells what runs, what waits, and how long it took", function()
        local pool <close> = mp.Pool(2)
        local gate <close> = mp.Event()
        local results = {}
        for i = 1, 5 do
            results[i] = pool:apply_async(function() gate:wait(20) end)
        end
        local stats = stats_when(pool, function(s) return s.running == 2 end)
        assert.are.equal(3, stats.waiting)
        gate:set()
        for i = 1, 5 do
            results[i]:get()
        end
        pool:map(sleep, {0.05, 0.05}, 1)
        stats = stats_when(pool, function(s) return s.running == 0 end)
        assert.are.equal(0, stats.waiting)
        assert.is_true(stats.busy >= 0.1 and stats.elapsed >= 0.05)
        assert.is_true(stats.busy <= 2 * stats.elapsed)
    end)

    it("shows itself as a table of lines", function()
        local pool <close> = mp.Pool(2)
        pool:map(square, mp.range(10), 1)
        stats_when(pool, function(s) return s.done == 10 end)
        local lines = {}
        for line in tostring(pool:stats()):gmatch("[^\n]+") do
            lines[#lines + 1] = line
        end
        assert.are.equal(5, #lines)
        assert.matches("^pool: run, 2 workers, %d+%.%d+ s; 0 running, "
            .. "0 waiting$", lines[1])
        assert.matches("^ *all +10 +0 +0 +0 +0 +%d+%.%d+ s +%d+%%$", lines[5])
    end)

    it("is for a pool that is there, and its process (E)", function()
        local pool = mp.Pool(1)
        failure("TypeError", pool.stats, pool, 1)
        failure("TypeError", pool.stats)
        pool:close()
        assert.are.equal("close", pool:stats().state)
        pool:join()
        getmetatable(pool).__close(pool)
        failure("StateError", pool.stats, pool)
    end)
end)
