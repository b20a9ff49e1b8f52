--- The arguments of mp.Pool: Python's, in Python's order, or by their names in
-- a table, with those that Python lacks.

local arguments = require "mp.arguments"
local context = require "mp.context"
local controls = require "mp.controls"
local core = require "mp.core"
local errors = require "mp.errors"
local named = require "mp.named"

local check_callable = arguments.check_callable

local M = {}

local POOL_OPTIONS <const> = {
    processes = true, initializer = true, initargs = true,
    maxtasksperchild = true, context = true, max_memory = true,
    max_processes = true, worker_exit = true, on_error = true,
}

--- All that a pool is asked to be, and its context's name. Raises TypeError.
---@return table
---@return string
function M.of(processes, initializer, initargs, maxtasks, chosen, ...)
    named.no_more("Pool", 5, ...)
    local opts = processes
    if type(processes) == "table" then
        named.alone("Pool", initializer, initargs, maxtasks, chosen)
    else
        opts = {
            processes = processes, initializer = initializer,
            initargs = initargs, maxtasksperchild = maxtasks,
            context = chosen,
        }
    end
    for name in pairs(opts) do
        if not POOL_OPTIONS[name] and not controls.NAMES[name] then
            errors._raise("TypeError", "Pool: unknown option %s",
                errors._show(name))
        end
    end
    arguments.check_policy("Pool", opts.on_error)
    check_callable("Pool", opts.initializer, "initializer")
    check_callable("Pool", opts.worker_exit, "worker_exit")
    if opts.initargs ~= nil and type(opts.initargs) ~= "table" then
        errors._raise("TypeError", "Pool: initargs must be a list, got %s",
            errors._show(opts.initargs))
    end
    return opts, context._check("Pool", opts.context)
end

--- The most workers that one pool can have: a participant each, of 4096.
local MOST_PROCESSES <const> = 2048

--- Room for resize(), where nothing is said of it.
local ROOM <const> = 64

--- How many workers it may ever have.
local function places_of(opts, n)
    if opts.max_processes == nil then
        return math.min(math.max(4 * n, ROOM), MOST_PROCESSES)
    end
    local most = arguments.check_count("Pool", opts.max_processes, n,
        "max_processes must be an integer of at least processes")
    if most > MOST_PROCESSES then
        errors._raise("ValueError",
            "Pool: max_processes must be at most %d, got %d", MOST_PROCESSES,
            most)
    end
    return most
end

--- By how many bytes a worker may grow.
local function bytes_of(opts, method)
    if opts.max_memory == nil then
        return 0
    elseif method == "thread" then
        errors._raise("ValueError", "Pool: max_memory: threads have no "
            .. "memory of their own")
    end
    return arguments.check_count("Pool", opts.max_memory, 1,
        "max_memory must be a positive number of bytes or nil")
end

--- The numbers among the options: workers, places, tasks per worker and bytes
--- by which one may grow (0: any). Raises TypeError, ValueError.
---@param opts table
---@param method string
---@return integer
---@return integer
---@return integer
---@return integer
function M.numbers(opts, method)
    local n = opts.processes == nil and core.cpu_count()
        or arguments.check_count("Pool", opts.processes, 1,
            "Number of processes must be at least 1")
    if n > MOST_PROCESSES then
        errors._raise("ValueError",
            "Pool: Number of processes must be at most %d, got %d",
            MOST_PROCESSES, n)
    end
    local most = opts.maxtasksperchild == nil and 0
        or arguments.check_count("Pool", opts.maxtasksperchild, 1,
            "maxtasksperchild must be a positive int or nil")
    return n, places_of(opts, n), most, bytes_of(opts, method)
end

return M
