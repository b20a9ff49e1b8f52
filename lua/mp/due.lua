--- The results of a pool that are to be called back, in the order of their
-- calls. Looking through thousands of them is left to the core: here they
-- have places, which are closed up when most are empty.
--
-- An interrupt may come between any two instructions: each step leaves this in
-- order, by one assignment. What it may cost is the one callback that was
-- about to be called.

local native = require("mp.core").pool

local M = {}

---@class mp.Due
---@field package jobs (userdata|boolean)[]  false: was called back
---@field package first integer  those before it were
---@field package called integer  how many, about
---@field package results table<userdata, table>  of those that were not
local Due = {}
Due.__index = Due

---@return mp.Due
function M.new()
    return setmetatable({
        jobs = {}, first = 1, called = 0,
        results = setmetatable({}, {__mode = "k"}),
    }, Due)
end

--- One more. It is called back, by its method call_back, when its job is done.
---@param result table
---@param job userdata
function Due:add(result, job)
    self.results[job] = result
    table.insert(self.jobs, job)
end

--- Are there any?
---@return boolean
function Due:any()
    while self.jobs[self.first] == false do
        self.first = self.first + 1
    end
    return self.first <= #self.jobs
end

local function close_up(self)
    local jobs = {}
    for i = self.first, #self.jobs do
        jobs[#jobs + 1] = self.jobs[i] or nil
    end
    self.first = 1
    self.jobs, self.called = jobs, 0
end

local function call_back(self, i, call)
    local job = self.jobs[i]
    local result = self.results[job]
    self.results[job] = nil
    if result then
        call(result)
    end
    self.jobs[i] = false
    self.called = self.called + 1
end

--- Calls back those whose jobs are done; those too that come meanwhile.
---@param call function gets each of them
function Due:call(call)
    local i = self:any() and
        native.first_ready(self.jobs, self.first, #self.jobs)
    if i == nil then
        self.jobs[self.first]:ready() -- notices the death of the crew
    end
    while i do
        call_back(self, i, call)
        i = native.first_ready(self.jobs, i + 1, #self.jobs)
    end
    if 2 * self.called > #self.jobs + 16 then
        close_up(self)
    end
end

--- Adds the jobs that are awaited to a list.
---@param list userdata[]
function Due:add_jobs(list)
    for i = self.first, #self.jobs do
        list[#list + 1] = self.jobs[i] or nil
    end
end

return M
