--- Waiter: for the first of several futures, of one pool, of more, or of none.
--
-- The core looks at their jobs, and sleeps; a future without a job is asked
-- each time that callbacks have run, since only these can have completed it.

local core = require "mp.core"
local errors = require "mp.errors"
local pools = require "mp.pool"

local native = core.pool
local now = core.monotonic

local M = {}

-- Deadlines ------------------------------------------------------------------

--- The moment until which to wait, or nil: for ever.
---@param fn string
---@param timeout any
---@return number|nil
function M.deadline(fn, timeout)
    if timeout == nil then
        return nil
    elseif type(timeout) ~= "number" then
        errors._raise("TypeError", "%s: argument 'timeout': number of "
            .. "seconds or nil expected, got %s", fn, errors._show(timeout))
    elseif timeout ~= timeout then
        errors._raise("ValueError", "%s: argument 'timeout': number of "
            .. "seconds expected, got NaN", fn)
    end
    return now() + math.max(timeout, 0)
end

--- The seconds until then.
---@param deadline number|nil
---@return number|nil
function M.left_until(deadline)
    return deadline and math.max(deadline - now(), 0)
end

-- Waiters --------------------------------------------------------------------

---@class mp.futures.Waiter
---@field jobs (userdata|boolean)[]  of executors' futures; false: taken
---@field futures mp.Future[]  whose
---@field n integer how many, those taken among them
---@field taken integer
---@field own mp.Future[]  futures without a job, not taken
---@field pools mp.Pool[]  that complete the former
local Waiter = {}
Waiter.__index = Waiter

--- Lets the end of each of these futures wake who waits.
---@param futures mp.Future[] each once
---@return mp.futures.Waiter
function M.new(futures)
    local self = setmetatable({
        jobs = {}, futures = {}, n = 0, taken = 0, own = {}, pools = {},
    }, Waiter)
    local known = {}
    for _, future in ipairs(futures) do
        local job, pool = future._job, future._pool
        if job then
            self.n = self.n + 1
            self.jobs[self.n], self.futures[self.n] = job, future
            job:announce()
            if not known[pool] then
                known[pool] = true
                table.insert(self.pools, pool)
            end
        else
            table.insert(self.own, future)
        end
    end
    return self
end

--- Forgets the places of what was taken.
local function close_up(self)
    local n, jobs, futures = 0, {}, {}
    for i = 1, self.n do
        if self.jobs[i] then
            n = n + 1
            jobs[n], futures[n] = self.jobs[i], self.futures[i]
        end
    end
    self.jobs, self.futures, self.n, self.taken = jobs, futures, n, 0
end

--- Takes those out that are done.
---@return mp.Future[]
function Waiter:take()
    local list, own = {}, {}
    local i = native.first_ready(self.jobs, 1, self.n)
    while i do
        table.insert(list, self.futures[i])
        self.jobs[i], self.futures[i] = false, false
        self.taken = self.taken + 1
        i = native.first_ready(self.jobs, i + 1, self.n)
    end
    if self.taken > self.n // 2 then
        close_up(self)
    end
    for _, future in ipairs(self.own) do
        table.insert(future:done() and list or own, future)
    end
    self.own = own
    return list
end

--- The pools that may complete one of them: their own, and those whose
-- callbacks are to come, which may do anything.
local function live_pools(self)
    local list, known = {}, {}
    for _, pool in ipairs(self.pools) do
        list[#list + 1], known[pool] = pool, true
    end
    for pool in pairs(pools._calling) do
        if not known[pool] and pool._waiting:any() then
            list[#list + 1] = pool
        end
    end
    return list
end

--- The jobs that are awaited in these pools: ours, and those with callbacks.
local function jobs_of(self, list)
    local jobs = {}
    for i = 1, self.n do
        jobs[#jobs + 1] = self.jobs[i] or nil
    end
    for _, pool in ipairs(list) do
        pool._waiting:add_jobs(jobs)
    end
    return jobs
end

--- Notices the death of a crew: it is replaced when somebody asks.
local function tend(self)
    for i = 1, self.n do
        local _ = self.jobs[i] and self.jobs[i]:ready()
    end
end

--- Sees to it that callbacks of these, which are done, are called before
-- anybody is told that they are.
---@param list mp.Future[]
function M.call_back(list)
    for _, future in ipairs(list) do
        if future._pool and future._callbacks and future._callbacks[1] then
            future._pool:poll()
        end
    end
end

--- Sleeps until one of the pools may have changed since it was `seen`.
local function sleep(fn, self, list, seen, deadline)
    local seconds = M.left_until(deadline)
    if #list == 0 and not deadline then
        errors._raise("StateError", "%s: this future is pending, and "
            .. "nothing in this process can complete it", fn)
    elseif #list == 0 then
        core.sleep(seconds)
    elseif #list > 1 then
        core.wait(jobs_of(self, list), seconds)
    elseif seen and native.sleep(list[1]._core, seen, seconds) == "dead" then
        tend(self)
    end
end

--- Waits until one of them is done, and takes those that are.
---@param fn string
---@param deadline number|nil
---@return mp.Future[] empty: not in time
function Waiter:await(fn, deadline)
    local list = self:take()
    while #list == 0 do
        local live = live_pools(self)
        local seen = #live == 1 and native.watch(live[1]._core)
        for _, pool in ipairs(live) do
            pool:poll()
        end
        list = self:take()
        if #list > 0 or deadline and now() >= deadline then
            break
        end
        sleep(fn, self, live, seen, deadline)
        list = self:take()
    end
    return list
end

return M
