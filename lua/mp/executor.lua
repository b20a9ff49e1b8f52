--- Executor: what the executors of mp.futures share.
--
-- An executor is a pool that is asked for one call at a time, each with a
-- future; or for a map over one or more iterables.

local arguments = require "mp.arguments"
local call = require "mp.call"
local class = require "mp.class"
local controls = require "mp.controls"
local core = require "mp.core"
local errors = require "mp.errors"
local future = require "mp.future"
local named = require "mp.named"
local waiter = require "mp.waiter"

local native = core.pool
local is_error = core.error.is

---@class mp.Executor
---@field package _pool mp.Pool
---@field package _maps table<mp.futures.Map, boolean>  weak
---@field package _submitted integer  futures, so far
---@field package _shut boolean
local Executor = class.root(class.new("Executor"))

--- A new one's pool. `make`: mp.Pool of some context; `opts`: its arguments.
---@package
function Executor:_start(make, opts)
    self._shut, self._submitted = false, 0
    self._maps = setmetatable({}, {__mode = "k"})
    self._pool = make(opts)
end

-- Calls ----------------------------------------------------------------------

local function check_self(fn, self)
    class.check_self(fn, Executor, self)
end

--- The pool's core, which takes work. Raises what keeps it from that.
local function running(fn, self)
    check_self(fn, self)
    local native_pool = self._pool._core
    local state = native_pool:state()
    if state == "broken" then
        native_pool:raise()
    elseif state ~= "run" and not native_pool:mine() then
        errors._raise("StateError",
            "%s: this executor belongs to the process that made it", fn)
    elseif self._shut or state ~= "run" then
        errors._raise("StateError",
            "cannot schedule new futures after shutdown")
    end
    return native_pool
end

local NO_OPTIONS <const> = {}

--- Two tables of what one of named arguments holds: those with a place, and
--- the options of pools.
---@param given table
---@param places table name -> position
---@return table
---@return table
function Executor._divide(given, places)
    local own, options = {}, {}
    for name, value in pairs(given) do
        local to = controls.NAMES[name] and not places[name] and options
            or own
        to[name] = value
    end
    return own, options
end

--- How the calls of one submit or map are run, for the core; nil: as they
-- come.
local function controls_of(fn, self, options)
    local pool = self._pool
    controls.check_threads(fn, options, pool._method == "thread")
    return controls.of(fn, options, pool._controls)
end

local SUBMIT <const> = {fn = 1, args = 2, kwargs = 3}

--- A function, its arguments in the order of its parameters, and options.
local function bound(f, ...)
    if type(f) == "table" and not arguments.is_callable(f) then
        named.alone("submit", ...)
        local given, options = Executor._divide(f, SUBMIT)
        local fn, args, kwargs = named.in_order("submit", given, SUBMIT, 3)
        return arguments.check_function("submit", fn, "fn"),
            call.bind(fn, call.copy_args("submit", args),
                call.copy_kwargs("submit", kwargs)), options
    end
    return arguments.check_function("submit", f, "fn"),
        call.bind(f, table.pack(...)), NO_OPTIONS
end

--- Has f(...) called by a worker, and returns at once. With arguments by name,
--- and a pool's options for this call (timeout, retries, priority, ...):
--- submit{fn = f, args = {...}, kwargs = {...}, timeout = 5}.
---@param f function|table
---@param ... any its arguments
---@return mp.Future
function Executor:submit(f, ...)
    local native_pool = running("submit", self)
    local args, options
    f, args, options = bound(f, ...)
    local with = controls_of("submit", self, options)
    local job
    if with then
        job = native.apply_with(native_pool, controls.judged(f, with), with,
            table.unpack(args, 1, args.n))
    else
        job = native.apply(native_pool, f, table.unpack(args, 1, args.n))
    end
    local new = future._of(self._pool, job)
    self._submitted = self._submitted + 1
    new._number = self._submitted
    self._pool._owed[new] = true
    return new
end

-- Maps -----------------------------------------------------------------------

---@class mp.futures.Map
---@field package _job userdata
---@field package _deadline? number
---@field package _over boolean
---@field package _kept? table  list of {index, value} or {error = e}, taken
--- before it was cancelled
---@field package _whole? boolean  they are all that there is
local Map = class.new("map iterator")

--- Ends it: what is not begun is not run.
local function leave(self)
    self._over = true
    self._job:close()
end

local function take(self, timeout)
    if timeout == nil and not self._deadline then
        return pcall(self._job)
    end
    local left = waiter.left_until(self._deadline)
    return pcall(self._job.next, self._job,
        math.min(timeout or left, left or timeout))
end

--- The error of an item, or of the wait for it, is the iterator's end.
local function result_of(self, ok, i, v)
    if not ok then
        leave(self)
        if is_error(i, "TimeoutError") then
            errors._raise("TimeoutError", "map: no result in time")
        end
        error(i, 0)
    elseif i == nil then
        self._over = true
    end
    return i, v
end

--- What was there when the executor was told to cancel the rest.
local function take_kept(self)
    local item = table.remove(self._kept, 1)
    if not item and self._whole then
        return nil
    elseif not item then
        self._kept = nil
        errors._raise("Cancelled", "map: the rest was cancelled")
    elseif item.error ~= nil then
        self._kept = nil
        error(item.error, 0)
    end
    return item[1], item[2]
end

local function step(self, timeout)
    if self._over then
        if self._kept then
            return take_kept(self)
        end
        return nil
    end
    return result_of(self, take(self, timeout))
end

function Map:__call()
    return step(self)
end

--- The next index and result, in order; nil at the end. Raises the error of
--- an item, or TimeoutError, and has then ended.
---@param timeout? number seconds
---@return integer|nil index
---@return any
function Map:next(timeout)
    class.check_self("next", Map, self)
    waiter.deadline("next", timeout) -- which refuses what is none
    return step(self, timeout)
end

function Map:__close()
    leave(self)
end

function Map:__tostring()
    return ("<map iterator%s>"):format(self._over and " at its end" or "")
end

--- Cancels what is not there yet.
local function cancel_map(self)
    if self._over then
        return
    end
    local kept, cut = {}, native.end_input(self._job)
    local ok, i, v
    repeat
        ok, i, v = pcall(self._job.next, self._job, 0)
        if ok and i ~= nil then
            table.insert(kept, {i, v})
        elseif not ok and not is_error(i, "TimeoutError") then
            table.insert(kept, {error = i})
        end
    until not ok or i == nil
    self._kept, self._whole = kept, ok and not cut
    leave(self)
end

--- Draws from one of the iterables of a map: a function that returns whether
-- there was one more item, and it.
local function drawer(source, count, step_)
    local i = 0
    if not count then
        return function()
            local item = source()
            return item ~= nil, item
        end
    elseif step_ then
        return function()
            i = i + 1
            return i <= count, source + (i - 1) * step_
        end
    end
    return function()
        i = i + 1
        if i > count then
            return false
        end
        return true, source[i]
    end
end

--- One iterator over several iterables: lists of an item of each, until the
-- first is at its end.
local function zip(iterables)
    local draw, n = {}, #iterables
    for i, iterable in ipairs(iterables) do
        draw[i] = drawer(arguments.source_of("map", iterable))
    end
    return function()
        local items = {n = n}
        for i = 1, n do
            local more, item = draw[i]()
            if not more then
                return nil
            end
            items[i] = item
        end
        return items
    end
end

local MAP <const> = {timeout = 1, chunksize = 2, buffersize = 3}

--- Is this a table of options? As an iterable it would be refused.
local function is_options(value)
    return type(value) == "table" and getmetatable(value) == nil
        and value.n == nil and #value == 0 and next(value) ~= nil
end

--- The iterables among the arguments of map, and its options. What follows the
-- first nil is what `io.lines(path)` returns besides its iterator.
local function map_arguments(...)
    local list, n = {...}, select("#", ...)
    local options = n > 0 and is_options(list[n]) and list[n] or nil
    if options then
        n = n - 1
    end
    local iterables = {}
    while #iterables < n and list[#iterables + 1] ~= nil do
        table.insert(iterables, list[#iterables + 1])
    end
    for i = #iterables + 1, n do
        if list[i] ~= nil and not arguments.is_closing_value(list[i]) then
            arguments.source_of("map", nil) -- refuses the one before it
        end
    end
    if #iterables == 0 then
        errors._raise("TypeError", "map: at least one iterable expected")
    end
    return iterables, options
end

local function map_options(given)
    local own, options = Executor._divide(given or NO_OPTIONS, MAP)
    local timeout, chunksize, buffersize =
        named.in_order("map", own, MAP, 3)
    local deadline = waiter.deadline("map", timeout)
    local chunk = chunksize == nil and 0
        or arguments.check_count("map", chunksize, 1,
            "chunksize must be >= 1")
    if buffersize ~= nil then
        arguments.check_count("map", buffersize, 1,
            "buffersize must be nil or > 0")
    end
    return deadline, chunk, buffersize and math.tointeger(buffersize),
        options
end

--- An iterator over index and result of f(item), in order: `for i, v in
--- executor:map(f, xs) do`; with several iterables of f(x, y, ...), until the
--- first of them ends. Options, in a table behind them: `timeout` (seconds
--- from this call until all is there), `chunksize` (nil: chosen), `buffersize`
--- (how far the input is drawn ahead of what was taken; nil: chosen), and
--- those of a pool but for its timeout. The first error in order is raised,
--- and cancels the rest.
---@param f function its first return value counts
---@param ... any iterables: list, mp.range, shared array, iterator function
---@return mp.futures.Map
function Executor:map(f, ...)
    local native_pool = running("map", self)
    f = arguments.check_function("map", f, "fn")
    local iterables, given = map_arguments(...)
    local deadline, chunk, ahead, options = map_options(given)
    local star = #iterables > 1
    local source, count, step_ = arguments.source_of("map",
        star and zip(iterables) or iterables[1])
    local with = controls_of("map", self, options)
    local job = native.job(native_pool, controls.judged(f, with), source,
        count or 0, step_ or 0, chunk, "imap", star, ahead, with)
    local pool = self._pool
    pool._streams[job], pool._owed[job] = true, true
    local new = setmetatable(
        {_job = job, _deadline = deadline, _over = false}, Map)
    self._maps[new] = true
    return new, nil, nil, new
end

-- The end --------------------------------------------------------------------

--- Cancels what was not begun, if that is still to be done.
local function cancel_all(self)
    local pool, list = self._pool, {}
    local state = pool._core:state()
    if state ~= "run" and state ~= "close" then
        return
    end
    for owed in pairs(pool._owed) do
        if getmetatable(owed) == future.Future then
            list[#list + 1] = owed
        end
    end
    table.sort(list, function(a, b)
        return a._number < b._number
    end)
    for map in pairs(self._maps) do
        cancel_map(map)
    end
    native.forget(pool._core)
    for _, owed in ipairs(list) do
        owed:cancel()
    end
end

local SHUTDOWN <const> = {wait = 1, cancel_futures = 2}

local function shutdown_options(wait, options, ...)
    named.no_more("shutdown", 2, ...)
    local cancel
    if type(wait) == "table" then
        named.alone("shutdown", options)
        wait, cancel = named.in_order("shutdown", wait, SHUTDOWN, 2)
    elseif options ~= nil then
        errors._check("shutdown", "options", options, "table")
        cancel = named.in_order("shutdown", options, {cancel_futures = 1}, 1)
    end
    return wait == nil or wait, cancel
end

--- No more work is taken. Waits until what was submitted is done, and the
--- workers have ended, unless `wait` is false.
---@param wait? boolean|table nil is true; or {wait=, cancel_futures=}
---@param options? table {cancel_futures = true: what is not begun is not done}
function Executor:shutdown(wait, options, ...)
    check_self("shutdown", self)
    local cancel
    wait, cancel = shutdown_options(wait, options, ...)
    local pool = self._pool
    self._shut = true
    if cancel then
        cancel_all(self)
    end
    if pool._core:state() == "run" then
        pool:close()
    end
    if wait and pool._core:mine() then
        pool:join()
    end
end

--- Ends the workers at once.
---@package
function Executor:_stop(fn)
    check_self(fn, self)
    self._shut = true
    cancel_all(self)
    self._pool:terminate()
end

--- The end of an executor's block: what was submitted is done; after an error
--- it is cancelled, and the workers are stopped.
function Executor:__close(e)
    if e ~= nil then
        cancel_all(self)
    end
    self._shut = true
    getmetatable(self._pool).__close(self._pool, e)
end

function Executor:__tostring()
    return ("<%s state=%s workers=%d>"):format(getmetatable(self).__name,
        self._shut and "shutdown" or self._pool._core:state(),
        self._pool._size)
end

return Executor
