--- AsyncResult: what a pool owes for one call of apply_async or map_async.

local core = require "mp.core"
local class = require "mp.class"
local errors = require "mp.errors"
local repr = require "mp.repr".repr

local new_error, is_error = core.error.new, core.error.is

local M = {}

---@class mp.AsyncResult
---@field package _job userdata
---@field package _outcome? table  {true, values...} or {false, error}, with n
local AsyncResult = class.new("AsyncResult")
M.AsyncResult = AsyncResult

--- A value that was raised, as one text.
---@param value any
---@return string
function M.text_of(value)
    if is_error(value) then
        return ("%s: %s"):format(value.kind, value.message)
    end
    local meta = getmetatable(value)
    local show = type(value) == "table" and not (meta and meta.__tostring)
        and repr or tostring
    local ok, text = pcall(show, value)
    return ok and text or ("(an error of type %s)"):format(type(value))
end

--- Calls a callback of a Pool, a Future (`of`). An error in it is reported
--- and stops nothing, but for Ctrl-C, which was not meant for it.
---@param of string
---@param f function
---@param ... any its arguments
function M.call_back(of, f, ...)
    local ok, e = pcall(f, ...)
    if not ok and is_error(e, "Interrupted") then
        error(e, 0)
    elseif not ok then
        io.stderr:write(("error in a callback of %s: %s\n"):format(of,
            M.text_of(e)))
    end
end

--- The result of `job`: of its one item (`single`), or the list of all.
---@param job userdata
---@param single boolean
---@param opts table on_error, callback, error_callback
---@param after? function called when the outcome was brought in
---@return mp.AsyncResult
function M.new(job, single, opts, after)
    return setmetatable({
        _after = after,
        _job = job, _single = single, _collect = opts.on_error == "collect",
        _callback = opts.callback, _error_callback = opts.error_callback,
    }, AsyncResult)
end

--- Errors of the pool as a whole: they are the result's for good.
local FINAL <const> = {PoolTerminated = true, BrokenPool = true}

--- What came of a job: {true, values...} or {false, error}, with n. Raises
--- TimeoutError if it is not there in time, and what the caller's own iterator
--- raised.
---@param job userdata
---@param timeout? number seconds; nil waits for ever
---@param single boolean is it the result of its one item, or the list of all?
---@param collect boolean are errors items of the list?
---@return table
function M.outcome_of(job, timeout, single, collect)
    local ok, outcome = pcall(job.outcome, job, timeout, single, collect)
    if ok then
        return outcome
    elseif not (is_error(outcome) and FINAL[outcome.kind]) then
        errors._arrive(outcome)
    end
    return {false, outcome, n = 2}
end

--- Brings the outcome in. Raises as outcome_of does.
local function settle(self, timeout)
    if self._outcome then
        return
    end
    local outcome = M.outcome_of(self._job, timeout, self._single,
        self._collect)
    self._outcome = self._outcome or outcome -- by a callback meanwhile
    if self._after then
        self._after()
    end
end

local function check_self(fn, self)
    if getmetatable(self) ~= AsyncResult then
        class.check_self(fn, AsyncResult, self)
    end
end

--- The result of the task, or of all tasks of a map: waits for it at most
--- `timeout` seconds. Raises TimeoutError, or what the task raised, each time
--- it is asked.
---@param timeout? number seconds; nil waits for ever
---@return any ...
function AsyncResult:get(timeout)
    check_self("get", self)
    settle(self, timeout)
    local outcome = self._outcome
    if not outcome[1] then
        errors._arrive(outcome[2])
    end
    return table.unpack(outcome, 2, outcome.n)
end

--- Like get, without raising TimeoutError: true and the values, or false and
--- the kind of the error.
---@param timeout? number seconds; nil polls
---@return boolean, any ...
function AsyncResult:try_get(timeout)
    check_self("try_get", self)
    local ok, e = pcall(settle, self, timeout == nil and 0 or timeout)
    if ok then
        return true, self:get()
    end
    if is_error(e, "TimeoutError") then
        return false, "TimeoutError"
    end
    error(e, 0)
end

--- Waits until the result is there, at most `timeout` seconds. Its callbacks
--- have run then.
---@param timeout? number seconds; nil waits for ever
---@return boolean done
function AsyncResult:wait(timeout)
    check_self("wait", self)
    local done = self._outcome ~= nil or self._job:wait(timeout)
    if done and self._after then
        self._after()
    end
    return done
end

--- Gives the call up: what waits is never run; whoever runs a task of it is
--- killed (in a pool of threads: has an error in it), and replaced. The result
--- is then an error of kind Cancelled. Returns whether there was anything left
--- to give up.
---@return boolean
function AsyncResult:cancel()
    check_self("cancel", self)
    if self._outcome or not self._job:cancel() then
        return false
    end
    self._outcome = {false, new_error("Cancelled", "the call was cancelled",
        nil, 0), n = 2}
    if self._after then
        self._after()
    end
    return true
end

--- Is the result there?
---@return boolean
function AsyncResult:ready()
    check_self("ready", self)
    return self._outcome ~= nil or self._job:ready()
end

--- For mp.wait.
---@package
function AsyncResult:__waitable()
    return self:ready() or self._job, self._after
end

--- Did it succeed? Raises StateError while it is not ready.
---@return boolean
function AsyncResult:successful()
    check_self("successful", self)
    if not self:ready() then
        error(new_error("StateError", tostring(self) .. " not ready"), 0)
    end
    settle(self, nil)
    return self._outcome[1]
end

function AsyncResult:__tostring()
    local state = "pending"
    if self:ready() then
        state = self:successful() and "done" or "failed"
    end
    return ("<AsyncResult %s>"):format(state)
end

--- Calls the callback that fits the outcome, which is there.
---@package
function AsyncResult:call_back()
    settle(self, nil)
    local outcome = self._outcome
    local f = outcome[1] and self._callback
    if not outcome[1] then
        f = self._error_callback
    end
    if f then
        f(table.unpack(outcome, 2, outcome.n))
    end
end

return M
