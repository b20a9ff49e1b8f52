--- The options of a pool, or of one call, that say how its tasks are run:
-- timeout, grace, retries, retry_if, backoff, max_crashes, priority, seed,
-- on_error.
-- Each function takes the name of the method first, for its messages.

local arguments = require "mp.arguments"
local core = require "mp.core"
local errors = require "mp.errors"

local M = {}

--- What can be said of a pool, and of each call.
local NAMES <const> = {
    timeout = true, grace = true, retries = true, backoff = true,
    max_crashes = true, priority = true, seed = true, retry_if = true,
}
M.NAMES = NAMES

local GRACE <const> = 0.5
local MAX_CRASHES <const> = 3
local LEVELS <const> = {low = 0, normal = 1, high = 2, urgent = 3}
local WITH_STOP <const>, WITH_SEED <const> = 1, 2
local FOR_EVER <const> = -1 -- as an unsigned number: never

--- What is longer is for ever: 31 years.
local LONGEST <const> = 1e9

--- Seconds as nanoseconds. Raises TypeError, ValueError.
local function seconds(fn, name, value, text)
    if type(value) ~= "number" then
        errors._raise("TypeError", "%s: %s must be %s, got %s", fn, name,
            text, errors._show(value))
    end
    if value ~= value or value < 0 or (value == 0 and name == "timeout") then
        errors._raise("ValueError", "%s: %s must be %s, got %s", fn, name,
            text, tostring(value))
    end
    if value > LONGEST then
        return FOR_EVER
    end
    -- As little as there is: none would be none at all.
    return math.max(value > 0 and 1 or 0, math.floor(value * 1e9))
end

local function timeout_of(fn, opts, with)
    if opts.timeout == nil then
        if opts.grace ~= nil then
            errors._raise("ValueError", "%s: grace needs a timeout", fn)
        end
        return
    end
    local ns = seconds(fn, "timeout", opts.timeout,
        "a positive number of seconds")
    if ns ~= FOR_EVER then
        with.timeout = ns
        with.grace = seconds(fn, "grace",
            opts.grace == nil and GRACE or opts.grace,
            "a number of seconds of at least 0")
    end
end

--- A number in 1024ths.
local function part(fn, name, value, min, max)
    if type(value) ~= "number" then
        errors._raise("TypeError", "%s: %s must be a number, got %s", fn,
            name, errors._show(value))
    elseif not (value >= min and value <= max) then
        errors._raise("ValueError", "%s: %s must be from %g to %g, got %s",
            fn, name, min, max, tostring(value))
    end
    return math.floor(value * 1024 + 0.5)
end

local BACKOFF <const> = {base = true, factor = true, max = true,
    jitter = true}

--- Seconds before each further run, or {base=, factor=, max=, jitter=}.
local function backoff_of(fn, backoff, with)
    if backoff == nil then
        return
    elseif type(backoff) ~= "table" then
        local text = "a number of seconds, or a table of base, factor, "
            .. "max and jitter"
        with.wait = seconds(fn, "backoff", backoff, text)
        with.most_wait, with.factor = with.wait, 1024
        if with.wait == FOR_EVER then
            errors._raise("ValueError", "%s: backoff must end some day", fn)
        end
        return
    end
    for name in pairs(backoff) do
        if not BACKOFF[name] then
            errors._raise("TypeError", "%s: backoff has an unknown field %s",
                fn, errors._show(name))
        end
    end
    local text = "a number of seconds of at least 0"
    with.wait = seconds(fn, "backoff.base", backoff.base or 0.1, text)
    with.most_wait = seconds(fn, "backoff.max", backoff.max or 60, text)
    with.factor = part(fn, "backoff.factor", backoff.factor or 2, 1, 1000)
    with.jitter = part(fn, "backoff.jitter", backoff.jitter or 0, 0, 1)
    if with.wait == FOR_EVER or with.most_wait == FOR_EVER then
        errors._raise("ValueError", "%s: backoff must end some day", fn)
    end
end

local function retries_of(fn, opts, with)
    with.retries = opts.retries == nil and 0
        or arguments.check_count(fn, opts.retries, 0,
            "retries must be an integer of at least 0")
    with.crashes = 0
    if opts.max_crashes ~= nil then
        with.crashes = arguments.check_count(fn, opts.max_crashes, 1,
            "max_crashes must be an integer of at least 1")
    elseif with.retries > 0 then
        with.crashes = MAX_CRASHES
    end
    if math.max(with.retries, with.crashes) > 0x7fffffff then
        errors._raise("ValueError", "%s: retries and max_crashes must be at "
            .. "most %d", fn, 0x7fffffff)
    end
    backoff_of(fn, opts.backoff, with)
end

--- Who says whether what failed may be run again.
local function judge_of(fn, opts, retry_if, with)
    if opts.retry_if ~= nil and with.retries == 0 then
        errors._raise("ValueError", "%s: retry_if needs retries", fn)
    end
    with.judge = retry_if
end

local function level_of(fn, priority)
    if priority == nil then
        return LEVELS.normal
    end
    local level = LEVELS[priority] or
        (type(priority) == "number" and math.tointeger(priority))
    if not level or level < 0 or level > 3 then
        errors._raise("ValueError", "%s: priority must be 0 to 3, or 'low', "
            .. "'normal', 'high' or 'urgent', got %s", fn,
            errors._show(priority))
    end
    return level
end

local function seed_of(fn, seed, with)
    if seed == nil then
        return
    end
    with.seed = type(seed) == "number" and math.tointeger(seed) or nil
    if not with.seed then
        errors._raise("TypeError", "%s: seed must be an integer, got %s", fn,
            errors._show(seed))
    end
    with.flags = with.flags | WITH_SEED
end

--- What the core wants to know, or nil where there is nothing to say. What
-- the call does not say, its pool does.
---@param fn string
---@param opts table the call's
---@param pool table the pool's
---@return table|nil
function M.of(fn, opts, pool)
    if next(pool) == nil and next(opts) == nil then
        return nil
    end
    local all = {}
    local any = opts.on_error == "stop"
    arguments.check_callable(fn, opts.retry_if, "retry_if")
    for name in pairs(NAMES) do
        local value = opts[name]
        if value == nil then
            value = pool[name]
        end
        all[name], any = value, any or value ~= nil
    end
    if not any then
        return nil
    end
    -- The pool's grace is for the pool's timeouts and the call's.
    if all.timeout == nil and opts.grace == nil then
        all.grace = nil
    end
    local with = {flags = opts.on_error == "stop" and WITH_STOP or 0}
    timeout_of(fn, all, with)
    retries_of(fn, all, with)
    judge_of(fn, opts, all.retry_if, with)
    with.level = level_of(fn, all.priority)
    seed_of(fn, all.seed, with)
    return with
end

local judge_by = core.pool.judge

--- The task: it brings along who judges it.
---@param f function|table
---@param with table|nil what `of` returned
---@return function|table
function M.judged(f, with)
    local judge = with and with.judge
    if not judge then
        return f
    end
    local function ask(e, attempt)
        return judge(e, attempt)
    end
    return function(...)
        judge_by(ask)
        return f(...)
    end
end

--- Raises what is wrong with the options of a pool; returns them alone.
---@param fn string
---@param opts table
---@param threads boolean are the workers threads?
---@return table
function M.check(fn, opts, threads)
    local own = {}
    for name in pairs(NAMES) do
        own[name] = opts[name]
    end
    local grace = own.grace
    if own.timeout == nil and grace ~= nil then
        own.timeout = 1 -- to look at it
        M.of(fn, own, {})
        own.timeout = nil
    else
        M.of(fn, own, {})
    end
    M.check_threads(fn, own, threads)
    return own
end

--- A thread cannot be killed.
---@param fn string
---@param opts table
---@param threads boolean
function M.check_threads(fn, opts, threads)
    if threads and opts.grace ~= nil then
        errors._raise("ValueError", "%s: grace: a thread cannot be killed; "
            .. "its timeout is only an error in the task", fn)
    end
end

return M
