--- What a pool has done, as numbers; and as a text, by tostring.

local core = require "mp.core"

local M = {}

---@class mp.PoolStats
---@field state string
---@field processes integer  workers that there are to be
---@field elapsed number  seconds since the pool was made
---@field waiting integer  items that wait for a worker
---@field running integer  workers that have some
---@field done integer  items, of all workers, with those that failed
---@field failed integer  of these: errors
---@field retried integer  runs that were followed by another one
---@field lost integer  items that their worker died of
---@field timeouts integer  items whose worker was killed for their time
---@field busy number  seconds of all workers in tasks
---@field workers table[]  the same of each worker: id, pid, wanted, done, ...
local Stats = {__name = "mp.PoolStats"}
Stats.__index = Stats

--- What is added up over the workers.
local SUMS <const> = {"done", "failed", "retried", "lost", "timeouts", "busy"}

--- The counts of a pool as of now. They are taken while it works: a task that
-- ends meanwhile may be in one and not yet in another.
---@param pool mp.Pool
---@return mp.PoolStats
function M._of(pool)
    local workers = pool._core:counters()
    local waiting, running = core.pool.load(pool._core)
    local stats = setmetatable({
        state = pool._core:state(), processes = pool._size,
        elapsed = core.monotonic() - pool._began,
        waiting = waiting, running = running, workers = workers,
    }, Stats)
    for _, name in ipairs(SUMS) do
        local sum = 0
        for _, worker in ipairs(workers) do
            sum = sum + worker[name]
        end
        stats[name] = sum
    end
    return stats
end

local LINE <const> = "%6s %8s %10s %8s %8s %6s %8s %9s %6s\n"

local function share(busy, elapsed)
    return elapsed > 0 and ("%.0f%%"):format(100 * busy / elapsed) or "-"
end

local function line(name, of, pid, busy)
    return LINE:format(name, pid, of.done, of.failed, of.retried, of.lost,
        of.timeouts, ("%.2f s"):format(of.busy), busy)
end

function Stats:__tostring()
    local list = {
        ("pool: %s, %d workers, %.2f s; %d running, %d waiting\n"):format(
            self.state, self.processes, self.elapsed, self.running,
            self.waiting),
        LINE:format("worker", "pid", "done", "failed", "retried", "lost",
            "timeouts", "busy", ""),
    }
    for _, worker in ipairs(self.workers) do
        list[#list + 1] = line(worker.id, worker, worker.pid,
            share(worker.busy, self.elapsed))
    end
    list[#list + 1] = line("all", self, "",
        share(self.busy, self.elapsed * self.processes))
    return (table.concat(list):gsub(" *\n", "\n"))
end

return M
