--- What the core of a pool calls: the errors of tasks, and what a worker does
-- first. (The pool itself: mp.pool.)

local authkey = require "mp.authkey"
local birth = require "mp.birth"
local core = require "mp.core"
local call = require "mp.call"
local process = require "mp.process"
local progress = require "mp.progress"
local result = require "mp.result"

local native = core.pool
local new_error, is_error = core.error.new, core.error.is

local M = {}

-- Errors ---------------------------------------------------------------------

--- In a worker: the error object of a task that failed.
local function failure(value, traceback, f, index, id, phase)
    local name = f and call.name(f)
    local fields = {
        pid = core.getpid(), worker = id, index = index, func = name,
        traceback = traceback, value = value,
    }
    if phase == "result" and is_error(value, "PicklingError") then
        fields.value, fields.traceback = nil, nil
        return new_error("PicklingError",
            ("%s, result of %s"):format(value.message, name or "a task"),
            fields, 0)
    end
    if is_error(value, "TaskTimeout") or is_error(value, "Cancelled") then
        fields.value = nil
        return new_error(value.kind, value.message, fields, 0)
    end
    local text = result.text_of(value)
    if not pcall(core.pickle.dumps, value) then
        fields.value = text
    end
    return new_error("RemoteError", text, fields, 0)
end

--- What the core says of an end that somebody else was told.
local UNKNOWN <const> = 0x7fffffff

--- In the caller: the error object of a task whose worker died. `what`: a
-- worker process, or a thread.
-- `runs`, `deaths`: how often it was run in vain, and how many workers it was
-- the death of, where it was to be run again; `timeout`: it was killed for it.
local function lost(worker, pid, exitcode, index, f, runs, deaths, timeout)
    local name = call.name(f)
    local fields = {
        pid = pid, index = index, func = name,
        attempts = runs > 0 and runs or nil,
        crashes = deaths > 0 and deaths or nil,
    }
    local what = index and ("item %d of %s"):format(index, name) or name
    if timeout then
        return new_error("TaskTimeout",
            ("%s ran longer than its timeout of %g s: %s %d was killed")
                :format(what, timeout, worker, pid), fields, 0)
    end
    local how
    if exitcode < 0 then
        fields.signal = -exitcode
        how = ("was killed by signal %d"):format(-exitcode)
        if exitcode == -9 then
            how = how .. " (possibly out of memory)"
        end
    elseif exitcode == UNKNOWN then
        how = "ended in a way that this process was not told"
    else
        fields.exitcode = exitcode
        how = ("ended with exit code %d"):format(exitcode)
    end
    if deaths > 1 then
        what = ("%s, as %d others did before it"):format(what, deaths - 1)
    end
    return new_error("WorkerLost",
        ("%s %d %s while it ran %s"):format(worker, pid, how, what),
        fields, 0)
end

local function lost_process(...)
    return lost("worker process", ...)
end

local function lost_thread(...)
    return lost("a worker thread of process", ...)
end

--- In the caller: the error object of a result that came, and could not be
-- rebuilt here.
local function unreadable(value, index, f)
    local name = call.name(f)
    local what = index and ("item %d of %s"):format(index, name) or name
    local text = is_error(value, "PicklingError") and value.message
        or result.text_of(value)
    return new_error("PicklingError",
        ("cannot rebuild the result of %s: %s"):format(what, text),
        {value = value, index = index, func = name}, 0)
end

--- What the core calls in the caller's process.
---@param method string the start method
---@return table
function M.of_caller(method)
    return {
        failure = failure, unreadable = unreadable,
        lost = method == "thread" and lost_thread or lost_process,
    }
end

-- A worker's beginning -------------------------------------------------------

--- What a worker is to its pool's process.
---@param id integer
---@param card table what the process told of itself
local function describe(id, card)
    return process._describe(("PoolWorker-%d"):format(id), true, tostring(id),
        card)
end

--- What a worker does first.
local function setup(initializer, args, card)
    return function(id)
        process._become(describe(id, card))
        progress._in_worker()
        if initializer then
            initializer(table.unpack(args, 1, args.n))
        end
    end
end

--- By the core, in a process or thread whose workers are no copies of the
-- pool's process: the functions that the core calls in a worker.
---@param ok boolean could the setup be read?
---@param initializer any function or false; not ok: why not
---@param args table|nil
---@param farewell function|false
---@return table
function M.of_worker(ok, initializer, args, farewell)
    local told = core.process.birth()
    local hooks = {failure = failure}
    if ok then
        hooks.setup = setup(initializer, args, told.card)
        hooks.farewell = farewell or nil
    else
        function hooks.setup()
            error(initializer, 0)
        end
    end
    return hooks
end

--- Makes the core of a pool. Raises what cannot travel to its workers.
---@param method string
---@param n integer workers
---@param most integer tasks of each, 0 = any number
---@param hooks table from of_caller
---@param opts table initializer, initargs, worker_exit
---@return userdata
function M.start(method, n, most, hooks, opts)
    local initializer, farewell = opts.initializer, opts.worker_exit
    local args = call.copy_args("Pool: initargs", opts.initargs)
    if method == "fork" then
        hooks.setup = setup(initializer, args, birth._card())
        hooks.farewell = farewell
        -- All else that is a connection the crew closes.
        hooks.named = {initializer, args, farewell}
        return native.new(n, most, hooks, method)
    end
    return authkey.starting(native.new, n, most, hooks, method,
        birth._birth(describe(1, birth._card())), initializer or false,
        args, farewell or false)
end

return M
