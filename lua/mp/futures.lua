--- mp.futures: executors, after Python's concurrent.futures.
--
-- The pool's ways hold here, too: all workers start with the executor,
-- functions travel with their upvalues, a worker that dies is replaced and
-- costs the call that it ran, and no other.

local Executor = require "mp.executor"
local arguments = require "mp.arguments"
local call = require "mp.call"
local class = require "mp.class"
local context = require "mp.context"
local core = require "mp.core"
local errors = require "mp.errors"
local future = require "mp.future"
local named = require "mp.named"
local process = require "mp.process"

local M = {
    Future = future.Future,
    wait = future.wait, as_completed = future.as_completed,
    FIRST_COMPLETED = future.FIRST_COMPLETED,
    FIRST_EXCEPTION = future.FIRST_EXCEPTION,
    ALL_COMPLETED = future.ALL_COMPLETED,
}

-- Processes ------------------------------------------------------------------

local function check_workers(fn, n, default)
    if n == nil then
        return default
    end
    return arguments.check_count(fn, n, 1,
        "max_workers must be greater than 0")
end

local function check_initializer(fn, initializer, initargs)
    arguments.check_callable(fn, initializer, "initializer")
    if initargs ~= nil and type(initargs) ~= "table" then
        errors._raise("TypeError", "%s: initargs must be a list, got %s", fn,
            errors._show(initargs))
    end
end

local function check_most_tasks(fn, most)
    if most == nil then
        return nil
    elseif math.type(most) ~= "integer" then
        errors._raise("TypeError",
            "%s: max_tasks_per_child must be an integer, got %s", fn,
            errors._show(most))
    end
    return arguments.check_count(fn, most, 1,
        "max_tasks_per_child must be >= 1")
end

local PROCESSES <const> = {
    max_workers = 1, mp_context = 2, initializer = 3, initargs = 4,
    max_tasks_per_child = 5,
}

--- An executor whose workers are processes. It takes Python's arguments in
--- Python's order, with max_tasks_per_child in a table behind them, or one
--- table of named ones, with a pool's options for all its calls (timeout,
--- retries, ...) among them. Raises ValueError, TypeError, OSError.
---@class mp.ProcessPoolExecutor: mp.Executor
local ProcessPoolExecutor = class.new("ProcessPoolExecutor", Executor)
M.ProcessPoolExecutor = ProcessPoolExecutor

--- The options behind the positions.
local function most_tasks_of(fn, options)
    if options == nil then
        return nil
    end
    errors._check(fn, "options", options, "table")
    return named.in_order(fn, options, {max_tasks_per_child = 1}, 1)
end

---@param max_workers? integer|table how many (nil: mp.cpu_count())
---@param mp_context? table what mp.get_context returned
---@param initializer? function called in each worker when it starts
---@param initargs? any[] its arguments (`n` honoured)
---@param options? table {max_tasks_per_child = a worker is replaced after so
--- many calls}
function ProcessPoolExecutor:init(max_workers, mp_context, initializer,
                                  initargs, options, ...)
    local fn <const> = "ProcessPoolExecutor"
    named.no_more(fn, 5, ...)
    local most, opts
    if type(max_workers) == "table" then
        named.alone(fn, mp_context, initializer, initargs, options)
        max_workers, opts = Executor._divide(max_workers, PROCESSES)
        max_workers, mp_context, initializer, initargs, most =
            named.in_order(fn, max_workers, PROCESSES, 5)
    else
        most, opts = most_tasks_of(fn, options), {}
    end
    check_initializer(fn, initializer, initargs)
    local method = context._check(fn, mp_context)
    opts.processes = check_workers(fn, max_workers, core.cpu_count())
    opts.initializer, opts.initargs = initializer, initargs
    opts.maxtasksperchild = check_most_tasks(fn, most)
    self:_start(context.get_context(method).Pool, opts)
end

--- Ends the workers at once. What they did fails with PoolTerminated; what was
--- not begun is cancelled.
function ProcessPoolExecutor:terminate_workers(...)
    named.no_more("terminate_workers", 0, ...)
    self:_stop("terminate_workers")
end

--- The same: nothing that a worker does can hold its end up.
function ProcessPoolExecutor:kill_workers(...)
    named.no_more("kill_workers", 0, ...)
    self:_stop("kill_workers")
end

-- Threads --------------------------------------------------------------------

local THREADS <const> = {
    max_workers = 1, thread_name_prefix = 2, initializer = 3, initargs = 4,
}
local executors_of_threads = 0

--- An executor whose workers are threads, each with a Lua state of its own.
---@class mp.ThreadPoolExecutor: mp.Executor
local ThreadPoolExecutor = class.new("ThreadPoolExecutor", Executor)
M.ThreadPoolExecutor = ThreadPoolExecutor

--- Python's name for one whose threads have interpreters of their own.
M.InterpreterPoolExecutor = ThreadPoolExecutor

--- What a thread does first: it takes its name.
---@param prefix string
---@param initializer function|nil
function M._begin_thread(prefix, initializer, ...)
    local id = core.pool.current()
    process.current_process().name = ("%s_%d"):format(prefix, id - 1)
    if initializer then
        initializer(...)
    end
end

---@param max_workers? integer|table how many (nil: min(32, cpu_count() + 4))
---@param thread_name_prefix? string the threads are called PREFIX_0, ...
---@param initializer? function called in each thread when it starts
---@param initargs? any[] its arguments (`n` honoured)
function ThreadPoolExecutor:init(max_workers, thread_name_prefix, initializer,
                                 initargs, ...)
    local fn <const> = "ThreadPoolExecutor"
    named.no_more(fn, 4, ...)
    local opts = {}
    if type(max_workers) == "table" then
        named.alone(fn, thread_name_prefix, initializer, initargs)
        max_workers, opts = Executor._divide(max_workers, THREADS)
        max_workers, thread_name_prefix, initializer, initargs =
            named.in_order(fn, max_workers, THREADS, 4)
    end
    check_initializer(fn, initializer, initargs)
    if thread_name_prefix == nil or thread_name_prefix == "" then
        thread_name_prefix = "ThreadPoolExecutor-" .. executors_of_threads
        executors_of_threads = executors_of_threads + 1
    end
    errors._check(fn, "thread_name_prefix", thread_name_prefix, "string")
    local args = call.copy_args(fn .. ": initargs", initargs)
    opts.processes = check_workers(fn, max_workers,
        math.min(32, core.cpu_count() + 4))
    opts.initializer = M._begin_thread
    opts.initargs = table.pack(thread_name_prefix, initializer,
        table.unpack(args, 1, args.n))
    self:_start(context.get_context("thread").Pool, opts)
end

return M
