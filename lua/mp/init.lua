--- mp: processes, pools, queues and shared values for Lua, after Python's
-- multiprocessing. All public names of its modules, in one table.

local core = require "mp.core"

-- In floor order. What a module returns is public but for the names that
-- begin with an underscore, which are for the other modules.
local MODULES <const> = {
    "errors", "range", "repr", "program", "context", "process", "sync",
    "shared", "queue", "pool", "log", "wait",
}

local M = {
    pickle = require "mp.pickle",
    debug = require "mp.debug",

    --- Processors that this process may use.
    ---@return integer
    cpu_count = core.cpu_count,

    --- Sleeps; a signal handler may end it by an error.
    ---@param seconds number 0 or less: gives the processor away
    sleep = core.sleep,

    --- Seconds since 1970, with fractions.
    ---@return number
    time = core.time,

    --- Seconds of a clock that nobody sets.
    ---@return number
    monotonic = core.monotonic,

    --- The number of this process.
    ---@return integer
    getpid = core.getpid,

    --- The number of this process's parent.
    ---@return integer
    getppid = core.getppid,
}

for _, name in ipairs(MODULES) do
    for key, value in pairs(require("mp." .. name)) do
        if key:sub(1, 1) ~= "_" then
            M[key] = value
        end
    end
end

--- What most programs do not need is loaded when it is named.
local LAZY <const> = {
    connection = true, dummy = true, futures = true, managers = true,
    reduction = true, shared_memory = true, threading = true, util = true,
}

-- Likewise, of modules that are not public: name -> module.
local LAZY_MEMBER <const> = {Manager = "manager", Pipe = "connection"}

return setmetatable(M, {__index = function(_, key)
    if LAZY_MEMBER[key] then
        return require("mp." .. LAZY_MEMBER[key])[key]
    end
    return LAZY[key] and require("mp." .. key) or nil
end})
