--- Future: what will have come of a call, and waiting for several of them.
--
-- A future belongs to an executor, whose pool completes it, or to whoever
-- made it by Future(), who completes it with set_result or set_exception.
-- Its states are Python's; those of an executor's future are read off its
-- job until it is done and its outcome was brought in:
--
--   PENDING -> RUNNING -> FINISHED      PENDING -> CANCELLED
--                                               -> CANCELLED_AND_NOTIFIED
--
-- Nothing here runs beside the program: callbacks run, and outcomes come in,
-- inside of calls that wait. So one that waits for a future which is nobody's
-- task, with no callback to come that could complete it, would wait for ever:
-- it is refused.

local arguments = require "mp.arguments"
local class = require "mp.class"
local core = require "mp.core"
local errors = require "mp.errors"
local named = require "mp.named"
local pools = require "mp.pool"
local results = require "mp.result"
local waiter = require "mp.waiter"

local native = core.pool
local is_error = core.error.is

local M = {}

---@class mp.Future
---@field package _state? string  nil: ask the job
---@field package _job? userdata  an executor's, until its outcome is here
---@field package _pool? mp.Pool
---@field package _outcome? table  {true, values...} or {false, error}, with n
---@field package _callbacks? function[]
local Future = class.root(class.new("Future"))
M.Future = Future

local DONE <const> = {
    FINISHED = true, CANCELLED = true, CANCELLED_AND_NOTIFIED = true,
}

function Future:init(...)
    named.no_more("Future", 0, ...)
    self._state = "PENDING"
end

--- The future of a job of one item.
---@param pool mp.Pool
---@param job userdata
---@return mp.Future
function M._of(pool, job)
    return setmetatable({_job = job, _pool = pool}, Future)
end

local function check_self(fn, self)
    if getmetatable(self) ~= Future then
        class.check_self(fn, Future, self)
    end
end

-- State ----------------------------------------------------------------------

local function state_of(self)
    if self._state then
        return self._state
    elseif self._job:ready() then
        return "FINISHED"
    end
    return native.begun(self._job) and "RUNNING" or "PENDING"
end

local function is_done(self)
    if self._state then
        return DONE[self._state] or false
    end
    return self._job:ready()
end

local function is_cancelled(self)
    local state = self._state
    return state == "CANCELLED" or state == "CANCELLED_AND_NOTIFIED"
end

local function call(callback, self)
    results.call_back("a Future", callback, self)
end

--- Calls the callbacks of a future that is done, each once, in order.
local function run_callbacks(self)
    local list = self._callbacks
    while list and list[1] do
        call(table.remove(list, 1), self)
    end
end

--- Makes the outcome known: by the state, last of all that is needed, since an
-- interrupt may come between any two lines.
local function finish(self, state, outcome)
    self._outcome = outcome
    self._state = state
    self._job, self._pool = nil, nil
end

--- Brings in what an executor's future that is done came to; waits for it if
-- it is not.
local function settle(self)
    if self._state then
        return
    end
    local pool, job = self._pool, self._job
    local outcome = results.outcome_of(job, nil, true, false)
    if not self._state then -- by a callback meanwhile
        finish(self, "FINISHED", outcome)
    end
    if self._callbacks then
        pool:poll()
    end
end

-- Waiting --------------------------------------------------------------------

--- Waits until a future is done. Raises TimeoutError.
local function await(fn, self, timeout)
    local deadline = waiter.deadline(fn, timeout)
    local in_time
    if self._job then
        in_time = self._job:wait(waiter.left_until(deadline))
    else
        in_time = is_done(self) or #waiter.new({self}):await(fn, deadline) > 0
    end
    if not in_time then
        errors._raise("TimeoutError", "%s: no result in time", fn)
    end
    settle(self)
    if is_cancelled(self) then
        errors._raise("Cancelled", "%s: the future was cancelled", fn)
    end
end

-- Asking ---------------------------------------------------------------------

--- What the call returned: waits for it at most `timeout` seconds. Raises
--- TimeoutError, Cancelled, or what the call raised, each time it is asked.
---@param timeout? number seconds; nil waits for ever
---@return any ...
function Future:result(timeout)
    check_self("result", self)
    await("result", self, timeout)
    local outcome = self._outcome
    if not outcome[1] then
        errors._arrive(outcome[2])
    end
    return table.unpack(outcome, 2, outcome.n)
end

--- What the call raised; nil if it returned. Waits and raises like result.
---@param timeout? number seconds; nil waits for ever
---@return any
function Future:exception(timeout)
    check_self("exception", self)
    await("exception", self, timeout)
    local outcome = self._outcome
    return not outcome[1] and outcome[2] or nil
end

--- Was it cancelled?
---@return boolean
function Future:cancelled()
    check_self("cancelled", self)
    return is_cancelled(self)
end

--- Is it being worked on?
---@return boolean
function Future:running()
    check_self("running", self)
    return state_of(self) == "RUNNING"
end

--- Is it finished, or cancelled?
---@return boolean
function Future:done()
    check_self("done", self)
    return is_done(self)
end

local function describe_outcome(outcome)
    if outcome[1] then
        return "returned " .. type(outcome[2])
    end
    local e = outcome[2]
    return "raised " .. (is_error(e) and e.kind or type(e))
end

function Future:__tostring()
    local state = state_of(self)
    if state == "FINISHED" then
        settle(self)
        return ("<Future state=finished %s>"):format(
            describe_outcome(self._outcome))
    end
    local word = is_cancelled(self) and "cancelled" or state:lower()
    return ("<Future state=%s>"):format(word)
end

--- For mp.wait: what it can wait for in this one's place.
function Future.__waitable(self)
    if is_done(self) then
        return true
    end
    local pool = self._pool
    return self._job, pool and function()
        pool:poll()
    end
end

--- Futures are completed where they are.
function Future.__reduce()
    errors._raise("PicklingError", "cannot pickle a Future: it belongs to "
        .. "the process that made it")
end

-- Callbacks ------------------------------------------------------------------

--- Calls fn(future) when the future is done: at once if it is, else inside
--- the next call that waits, behind those that were added before. An error in
--- it is reported and stops nothing.
---@param fn function
function Future:add_done_callback(fn, ...)
    check_self("add_done_callback", self)
    named.no_more("add_done_callback", 1, ...)
    if fn == nil then
        errors._raise("TypeError",
            "add_done_callback: fn must be a callable, got nil")
    end
    arguments.check_callable("add_done_callback", fn, "fn")
    if is_done(self) then
        settle(self)
        run_callbacks(self)
        call(fn, self)
        return
    end
    if not self._callbacks then
        self._callbacks = {}
        if self._job then
            pools._call_back(self._pool, self, self._job)
        end
    end
    table.insert(self._callbacks, fn)
end

--- By its pool: calls them, when its job is done.
---@package
function Future:call_back()
    settle(self)
    run_callbacks(self)
end

-- Completing -----------------------------------------------------------------

--- Cancels what has not begun; with {kill = true} also what runs, by killing
--- its worker.
---@param options? table
---@return boolean whether it is cancelled; false: it runs, or is done
function Future:cancel(options, ...)
    check_self("cancel", self)
    named.no_more("cancel", 1, ...)
    local kill
    if options ~= nil then
        errors._check("cancel", "options", options, "table")
        kill = named.in_order("cancel", options, {kill = 1}, 1)
    end
    if self._job and not self._state then
        local pool, job = self._pool, self._job
        if not (native.withdraw(job) or kill and job:cancel()) then
            return false
        end
        finish(self, "CANCELLED_AND_NOTIFIED")
        pool:poll()
        run_callbacks(self)
    elseif self._state == "PENDING" then
        finish(self, "CANCELLED")
        run_callbacks(self)
    end
    return is_cancelled(self)
end

--- For whoever is to do the work of a future that he was given: marks it as
--- running, unless it was cancelled.
---@return boolean is the work to be done?
function Future:set_running_or_notify_cancel()
    check_self("set_running_or_notify_cancel", self)
    if self._state == "CANCELLED" then
        self._state = "CANCELLED_AND_NOTIFIED"
        return false
    elseif self._state == "PENDING" then
        self._state = "RUNNING"
        return true
    end
    errors._raise("StateError", "Future in unexpected state: %s",
        tostring(self))
end

--- Only who made a future may complete it, and only once.
local function complete(fn, self, outcome)
    check_self(fn, self)
    if self._job then
        errors._raise("StateError",
            "%s: this future is completed by its executor", fn)
    elseif is_done(self) then
        errors._raise("StateError", "%s: %s", self._state, tostring(self))
    end
    finish(self, "FINISHED", outcome)
    run_callbacks(self)
end

--- Completes it with these values.
---@param ... any
function Future:set_result(...)
    complete("set_result", self, table.pack(true, ...))
end

--- Completes it with an error, which result() will raise.
---@param e any not nil
function Future:set_exception(e, ...)
    named.no_more("set_exception", 1, ...)
    if e == nil then
        errors._raise("TypeError",
            "set_exception: an error value expected, got nil")
    end
    complete("set_exception", self, {false, e, n = 2})
end

-- Several --------------------------------------------------------------------

--- The futures of a list, each once.
local function unique(fn, fs)
    if type(fs) ~= "table" or getmetatable(fs) ~= nil then
        errors._raise("TypeError", "%s: a list of futures expected, got %s",
            fn, errors._show(fs))
    end
    local list, known = {}, {}
    for i = 1, arguments.count_items(fn, fs) do
        local future = fs[i]
        local meta = getmetatable(future)
        if meta ~= Future then
            errors._raise("TypeError",
                "%s: a list of futures expected, got %s at %d", fn,
                errors._show(future), i)
        elseif not known[future] then
            known[future] = true
            list[#list + 1] = future
        end
    end
    return list
end

M.FIRST_COMPLETED = "FIRST_COMPLETED"
M.FIRST_EXCEPTION = "FIRST_EXCEPTION"
M.ALL_COMPLETED = "ALL_COMPLETED"

local CONDITIONS <const> = {
    [M.FIRST_COMPLETED] = true, [M.FIRST_EXCEPTION] = true,
    [M.ALL_COMPLETED] = true,
}

local WAIT <const> = {timeout = 1, return_when = 2}

--- Did one of these futures, which are done, fail?
local function any_failed(list)
    for _, future in ipairs(list) do
        settle(future)
        if not is_cancelled(future) and not future._outcome[1] then
            return true
        end
    end
    return false
end

--- Is what was asked for there? `list`: what is newly done.
local function is_enough(condition, list)
    if condition == M.FIRST_COMPLETED then
        return #list > 0
    end
    return condition == M.FIRST_EXCEPTION and any_failed(list)
end

local function wait_options(timeout, return_when, ...)
    named.no_more("wait", 3, ...)
    if type(timeout) == "table" then
        named.alone("wait", return_when)
        timeout, return_when = named.in_order("wait", timeout, WAIT, 2)
    end
    if return_when == nil then
        return_when = M.ALL_COMPLETED
    elseif not CONDITIONS[return_when] then
        errors._raise("ValueError", "Invalid return condition: %s",
            errors._show(return_when))
    end
    return waiter.deadline("wait", timeout), return_when
end

--- Waits until all of the futures are done, or the first (FIRST_COMPLETED),
--- or the first that failed (FIRST_EXCEPTION; all, if none does), at most
--- `timeout` seconds.
---@param fs mp.Future[]
---@param timeout? number|table seconds; or {timeout=, return_when=}
---@param return_when? string
---@return mp.Future[] done
---@return mp.Future[] not_done both in the order of fs, each future once
function M.wait(fs, timeout, return_when, ...)
    local deadline, condition = wait_options(timeout, return_when, ...)
    local futures = unique("wait", fs)
    local waiting, left = waiter.new(futures), #futures
    local new = waiting:take()
    left = left - #new
    while left > 0 and not is_enough(condition, new) do
        new = waiting:await("wait", deadline)
        if #new == 0 then
            break
        end
        left = left - #new
    end
    local done, not_done = {}, {}
    for _, future in ipairs(futures) do
        table.insert(is_done(future) and done or not_done, future)
    end
    waiter.call_back(done)
    return done, not_done
end

--- An iterator over the futures as they are done: `for f in as_completed(fs)
--- do`. Each comes once. Raises TimeoutError when one is not done `timeout`
--- seconds after the call.
---@param fs mp.Future[]
---@param timeout? number seconds; nil waits for ever
---@return function
function M.as_completed(fs, timeout, ...)
    named.no_more("as_completed", 2, ...)
    local deadline = waiter.deadline("as_completed", timeout)
    local futures = unique("as_completed", fs)
    local waiting, left = waiter.new(futures), #futures
    local list, i = waiting:take(), 0
    return function()
        if left == 0 then
            return nil
        end
        if i == #list then
            list, i = waiting:await("as_completed", deadline), 0
            if #list == 0 then
                errors._raise("TimeoutError", "%d (of %d) futures unfinished",
                    left, #futures)
            end
        end
        i, left = i + 1, left - 1
        local future = list[i]
        list[i] = false
        waiter.call_back({future})
        return future
    end
end

return M
