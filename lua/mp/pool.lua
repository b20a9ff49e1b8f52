--- Pool: a fixed number of worker processes, and what they do for you.
--
-- The work is done below (mp.core): this file knows the ways in which Python
-- programs ask for it. Items go to the workers as jobs; a job is fed and read
-- a window at a time, so inputs may be endless.

local arguments = require "mp.arguments"
local controls = require "mp.controls"
local core = require "mp.core"
local call = require "mp.call"
local class = require "mp.class"
local context = require "mp.context"
local due = require "mp.due"
local errors = require "mp.errors"
local named = require "mp.named"
local pool_hooks = require "mp.pool_hooks"
local pool_options = require "mp.pool_options"
local progress = require "mp.progress"
local result = require "mp.result"
local stats = require "mp.stats"

local native = core.pool
local options = arguments.options

local M = {}

---@class mp.Pool
---@field package _core userdata
---@field package _waiting mp.Due  results with callbacks, not yet called
---@field package _owed table  weak: results and iterators that may be read
local Pool = class.new("Pool")

-- Callbacks -----------------------------------------------------------------

--- Calls back for those results that are due.
local function call_due(self)
    self._waiting:call(function(owed)
        result.call_back("Pool", owed.call_back, owed)
    end)
    self._core:callbacks(self._waiting:any() and 1 or 0)
end

--- Runs those of a pool's callbacks that are due, one at a time. By the core:
-- they cannot yield, and an interrupt leaves nothing half done.
local function run_callbacks(self)
    if self._waiting:any() then
        self._core:exclusively(call_due, self)
    end
end

-- Pools ----------------------------------------------------------------------

--- A pool without its core, and what the core calls of it.
local function new_pool(n, method)
    local self = setmetatable({
        _waiting = due.new(), _size = n, _controls = {},
        _owed = setmetatable({}, {__mode = "k"}),
        _method = method,
        _streams = setmetatable({}, {__mode = "k"}),
    }, Pool)
    local hooks = pool_hooks.of_caller(method)
    -- Weak, or the pool would keep itself alive through its core.
    local weak = setmetatable({self = self}, {__mode = "v"})
    function hooks.run_callbacks()
        if weak.self then
            run_callbacks(weak.self)
        end
    end
    return self, hooks
end

--- A pool of worker processes. All start, and run the initializer, before
--- work is given out. It takes Python's arguments in Python's order, or one
--- table of named ones. Raises ValueError, TypeError, OSError.
---@param processes? integer|table number of workers (nil: mp.cpu_count())
---@param initializer? function called in each worker when it starts
---@param initargs? any[] its arguments (`n` honoured)
---@param maxtasksperchild? integer a worker is replaced after so many tasks
---@param ... any a context, and no more
---@return mp.Pool
function M.Pool(processes, initializer, initargs, maxtasksperchild, ...)
    local opts, method = pool_options.of(processes, initializer, initargs,
        maxtasksperchild, ...)
    local n, places, most, bytes = pool_options.numbers(opts, method)
    local self, hooks = new_pool(n, method)
    self._places, self._began = places, core.monotonic()
    self._controls = controls.check("Pool", opts, method == "thread")
    self._on_error = opts.on_error
    hooks.places, hooks.most_bytes = places, bytes
    self._core = pool_hooks.start(method, n, most, hooks, opts)
    return self
end

--- A pool whose workers are threads of this process, each with a Lua state of
--- its own: mp.Pool of the context "thread".
---@param processes? integer|table as of Pool
---@param initializer? function
---@param initargs? any[]
---@param ... any maxtasksperchild, and no more
---@return mp.Pool
function M.ThreadPool(processes, initializer, initargs, ...)
    return context.get_context("thread").Pool(processes, initializer,
        initargs, ...)
end

local function check_self(fn, self)
    if getmetatable(self) ~= Pool then
        class.check_self(fn, Pool, self)
    end
end

local function check_running(fn, self)
    check_self(fn, self)
    local state = self._core:state()
    if state == "close" or state == "terminate" then
        errors._raise("StateError", self._core:mine() and "Pool not running"
            or fn .. ": this Pool belongs to the process that made it")
    elseif state ~= "run" then
        self._core:raise()
    end
end

--- How the tasks of a call are run, for the core; nil: as they come.
local function controls_of(fn, self, opts)
    controls.check_threads(fn, opts, self._method == "thread")
    return controls.of(fn, opts, self._controls)
end

-- A pool travels to its own workers, where tasks have tasks of their own, and
-- to nobody else.
local sending

--- Calls a function that pickles a call for the pool's workers.
local function to_workers(self, f, ...)
    local before = sending
    sending = self
    local ok, job = pcall(f, self._core, ...)
    sending = before
    if not ok then
        error(job, 0)
    end
    return job
end

--- In a worker: its pool, as its tasks see it; nil elsewhere.
local own

function M._own()
    if not own and native.current() then
        local self, hooks = new_pool(0,
            core.thread_of == core.getpid() and "thread" or "fork")
        self._core = native.own(hooks)
        own = self._core and self
    end
    return own
end

function Pool:__reduce()
    if self ~= sending then
        return nil, "pool objects cannot be passed between processes or "
            .. "pickled, but to the pool's own tasks"
    end
    return M._own
end

local function submit(fn, self, f, iterable, opts, mode, star)
    check_running(fn, self)
    f = arguments.check_function(fn, f, "func")
    local source, count, step = arguments.source_of(fn, iterable)
    if mode == "all" then
        source, count, step = arguments.listed(source, count, step)
    end
    local with = controls_of(fn, self, opts)
    local job = to_workers(self, native.job, controls.judged(f, with), source,
        count or 0, step or 0, arguments.chunk_of(fn, opts), mode, star,
        arguments.ahead_of(fn, opts), with)
    if opts.progress then
        progress._follow(job, opts.progress)
    end
    return job
end

--- The pools with callbacks that are to come.
M._calling = setmetatable({}, {__mode = "k"})

--- Calls back when a job is done: owed:call_back().
---@param self mp.Pool
---@param owed table
---@param job userdata
function M._call_back(self, owed, job)
    job:announce()
    self._waiting:add(owed, job)
    self._core:callbacks(1)
    M._calling[self] = true
end

--- Makes the result of a job, and sees to its callbacks.
local function expect(self, job, single, opts)
    local with_callback = opts.callback or opts.error_callback
    local new = result.new(job, single, opts, with_callback and function()
        run_callbacks(self)
    end)
    self._owed[new] = true
    if with_callback then
        M._call_back(self, new, job)
    end
    return new
end

--- The options of a map of this pool.
local function map_options(fn, self, ...)
    check_self(fn, self)
    return arguments.with_policy(options(fn, ...), self._on_error)
end

local function map(fn, self, star, f, iterable, ...)
    local opts = map_options(fn, self, ...)
    local job = submit(fn, self, f, iterable, opts, "map", star)
    local ok, value = pcall(function()
        return result.new(job, false, opts):get()
    end)
    job:close()
    local due = opts.callback
    if not ok then
        if errors.iserror(value, "Interrupted") then
            error(value, 0)
        end
        due = opts.error_callback
    end
    if due then
        result.call_back("Pool", due, value)
    end
    run_callbacks(self)
    if not ok then
        errors._arrive(value)
    end
    return value
end

local function map_async(fn, self, star, f, iterable, ...)
    local opts = map_options(fn, self, ...)
    local job = submit(fn, self, f, iterable, opts, "all", star)
    return expect(self, job, false, opts)
end

--- Calls f(item) for each item in the workers; returns the list of results,
--- in order, with `n`. Waits for all; then the error of the lowest index is
--- raised, with what succeeded in its `.results`.
---@param f function its first return value counts
---@param iterable table|function list, mp.range, shared array, iterator
---@param chunksize? integer|table items per claim (nil: chosen), or options
---@return any[]
function Pool:map(f, iterable, chunksize, ...)
    return map("map", self, false, f, iterable, chunksize, ...)
end

--- Like map, for items that are lists of arguments.
---@param f function
---@param iterable table|function of lists
---@param chunksize? integer|table
---@return any[]
function Pool:starmap(f, iterable, chunksize, ...)
    return map("starmap", self, true, f, iterable, chunksize, ...)
end

--- Like map, but returns at once. The callback gets the list of results.
---@param f function
---@param iterable table|function
---@param chunksize? integer|table
---@param callback? function
---@param error_callback? function
---@return mp.AsyncResult
function Pool:map_async(f, iterable, chunksize, ...)
    return map_async("map_async", self, false, f, iterable, chunksize, ...)
end

--- Like starmap, but returns at once.
---@param f function
---@param iterable table|function of lists
---@param chunksize? integer|table
---@param callback? function
---@param error_callback? function
---@return mp.AsyncResult
function Pool:starmap_async(f, iterable, chunksize, ...)
    return map_async("starmap_async", self, true, f, iterable, chunksize, ...)
end

local function stream(fn, self, f, iterable, opts, mode)
    local job = submit(fn, self, f, iterable, opts, mode, false)
    self._streams[job] = true
    self._owed[job] = true
    return job, nil, nil, job
end

--- An iterator over index and result of f(item), in order: `for i, v in
--- pool:imap(f, xs) do`, or `it:next([timeout])`. The input is drawn a window
--- ahead of what was taken; leaving the loop cancels what is outstanding. An
--- item's error is raised at its place, and the iterator goes on behind it.
---@param f function
---@param iterable table|function may be endless
---@param chunksize? integer|table
---@return function iterator
function Pool:imap(f, iterable, chunksize, ...)
    local opts = options("imap", chunksize, ...)
    return stream("imap", self, f, iterable, opts, "imap")
end

--- Like imap, in the order of completion.
---@param f function
---@param iterable table|function may be endless
---@param chunksize? integer|table
---@return function iterator
function Pool:imap_unordered(f, iterable, chunksize, ...)
    local opts = options("imap_unordered", chunksize, ...)
    return stream("imap_unordered", self, f, iterable, opts, "any")
end

--- Submits one call, f(table.unpack(args)) with kwargs bound by name.
local function apply(fn, self, f, args, kwargs, opts)
    check_running(fn, self)
    f = arguments.check_function(fn, f, "func")
    local bound = call.bind(f, call.copy_args(fn, args),
        call.copy_kwargs(fn, kwargs))
    local with = controls_of(fn, self, opts)
    if with then
        return to_workers(self, native.apply_with, controls.judged(f, with),
            with, table.unpack(bound, 1, bound.n))
    end
    return to_workers(self, native.apply, f,
        table.unpack(bound, 1, bound.n))
end

--- Calls f(table.unpack(args)) in a worker, and returns at once.
---@param f function
---@param args? any[] its arguments (`n` honoured)
---@param kwargs? table<string, any> arguments by parameter name
---@param callback? function|table gets the results; or a table of options
---@param error_callback? function gets the error object
---@return mp.AsyncResult
function Pool:apply_async(f, args, kwargs, callback, ...)
    local opts = options("apply_async", nil, callback, ...)
    return expect(self, apply("apply_async", self, f, args, kwargs, opts),
        true, opts)
end

local NO_OPTIONS <const> = {}

local function values_or_raise(ok, ...)
    if not ok then
        errors._arrive((...))
    end
    return ...
end

--- Calls f(table.unpack(args)) in a worker and returns all its results.
---@param f function
---@param args? any[] its arguments (`n` honoured)
---@param kwargs? table<string, any> arguments by parameter name
---@return any ...
function Pool:apply(f, args, kwargs, ...)
    named.no_more("apply", 3, ...)
    return values_or_raise(apply("apply", self, f, args, kwargs, NO_OPTIONS)
        :take())
end

--- Changes the number of workers, while they run: new ones begin, and who is
--- one too many ends when it has done what it has taken. Returns at once.
---@param processes integer at least 1; at most the pool's max_processes
function Pool:resize(processes, ...)
    check_running("resize", self)
    named.no_more("resize", 1, ...)
    local n = arguments.check_count("resize", processes, 1,
        "Number of processes must be at least 1")
    if n > self._places then
        errors._raise("ValueError", "resize: this Pool has room for %d "
            .. "workers, got %d: make it with max_processes", self._places, n)
    end
    self._core:resize(n)
    self._size = n
end

--- What the pool has done so far, and what it does: a table of numbers (see
--- stats.lua), that tostring shows as a text.
---@return mp.PoolStats
function Pool:stats(...)
    check_self("stats", self)
    named.no_more("stats", 0, ...)
    return stats._of(self)
end

--- What worker_exit returned in the workers that have left, in the order in
--- which they did; its error objects, where it failed. All are there after
--- join().
---@return any[] results with `n`
function Pool:exit_results(...)
    check_self("exit_results", self)
    named.no_more("exit_results", 0, ...)
    return self._left or self._core:left()
end

--- Runs the callbacks that are due; returns at once.
function Pool:poll()
    check_self("poll", self)
    run_callbacks(self)
end

--- No more work is taken; the workers end when all is done.
function Pool:close(...)
    check_self("close", self)
    named.no_more("close", 0, ...)
    self._core:close()
end

--- Stops the workers at once. What is not done fails with PoolTerminated.
function Pool:terminate(...)
    check_self("terminate", self)
    named.no_more("terminate", 0, ...)
    self._core:terminate()
end

--- Seconds between two looks at iterators that still need feeding.
local FEED_SLICE <const> = 0.01

--- Seconds after which the end is waited for with jobs that are garbage gone.
local GARBAGE_AFTER <const> = 0.05

--- Waits until the workers have ended, after close() or terminate(); runs
--- the callbacks meanwhile. Iterators that were not read to their end keep
--- their results.
function Pool:join(...)
    check_self("join", self)
    named.no_more("join", 0, ...)
    if self._core:state() == "run" then
        errors._raise("StateError", "Pool is still running")
    end
    local slice = GARBAGE_AFTER
    repeat
        run_callbacks(self)
        local unread = false
        for job in pairs(self._streams) do
            unread = job:stash() or unread
        end
        local ended = self._core:join(unread and FEED_SLICE or slice)
        if not ended and not unread and slice then
            -- An error that came from outside (Ctrl-C, a hook) may have kept
            -- a job from whoever asked for it: collected, it is cancelled.
            collectgarbage()
            slice = nil
        end
    until ended
    run_callbacks(self)
end

--- The end of a pool's block: what was submitted is finished; after an error
--- the workers are stopped. Results that somebody still has can be read: the
--- pool's memory goes with the last of them.
function Pool:__close(e)
    if self == own then
        return
    end
    if e == nil and self._core:state() ~= "terminate" then
        self:close()
        local ok, problem = pcall(self.join, self)
        if not ok then
            self._core:release()
            error(problem, 0)
        end
        self._left = self._core:left()
        if next(self._owed) then
            return
        end
    end
    self._core:release()
end

function Pool:__tostring()
    return ("<Pool state=%s size=%d>"):format(self._core:state(), self._size)
end

--- Inside a worker: `id` (1..n, kept by a replacement), `state` (a table of
--- its own), `index` (of the item in its call, from 1), `pool` (the pool that
--- it works for, for tasks of its tasks: who waits for them works on them, so
--- they cannot wait for each other).
M.worker = setmetatable({state = {}}, {
    __index = function(_, key)
        local id, index = native.current()
        if key == "id" then
            return id
        elseif key == "index" then
            return index
        elseif key == "pool" then
            return M._own()
        end
    end,
    __name = "mp.worker",
})

M.AsyncResult = result.AsyncResult

return M
