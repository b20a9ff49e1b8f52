--- Manager: makes what processes share.
--
--     local m <close> = mp.Manager()
--     local d = m:dict{config = {level = 1}}
--     mp.Process{target = function() d.config.level = 2 end}
--
-- There is no server process: containers lie in shared memory, and each
-- process reads and changes them by itself, one change at a time. A process
-- that dies in the middle of a change leaves it made, or not begun.
--
-- A plain table that is stored becomes a container itself, with all plain
-- tables in it: a list if its keys are 1 to n (or n tells how many), else a
-- dict, an empty table, too. So what is read out of a container, and changed,
-- is changed for everybody. Whatever else can be pickled is a value: what is
-- read is a copy. A container is freed when nobody holds it any more: no
-- process, message or container. (Containers that hold each other in a
-- circle are not, until it is cut.)

local class = require "mp.class"
local core = require "mp.core"
local dict = require "mp.dict"
local errors = require "mp.errors"
local list = require "mp.list"
local named = require "mp.named"
local namespace = require "mp.namespace"
local pool = require "mp.pool"
local queue = require "mp.queue"
local set = require "mp.set"
local shared = require "mp.shared"
local sync = require "mp.sync"

local native = core.container

local M = {}

---@class mp.Manager
---@field private _over boolean|nil it was shut down
local Manager = class.new("Manager")
M.Manager = class.root(Manager)

function Manager:init(...) -- luacheck: no self
    named.no_more("Manager", 0, ...)
end

function Manager:__tostring()
    return self._over and "<Manager (shut down)>" or "<Manager>"
end

-- Its life -------------------------------------------------------------------

--- Raises unless it may make something.
local function check(fn, self)
    class.check_self(fn, Manager, self)
    if self._over then
        errors._raise("StateError", "%s: the manager has shut down", fn)
    end
end

--- A manager runs from the beginning.
-- Raises StateError, always: it has started, or has shut down.
function Manager:start()
    check("start", self)
    errors._raise("StateError", "start: the manager has already started")
end

--- Ends the manager: it makes nothing any more. What it made belongs to those
-- who hold it, and stays as long as they do. Safe to call twice.
function Manager:shutdown()
    class.check_self("shutdown", Manager, self)
    self._over = true
end

function Manager:__close()
    self:shutdown()
end

-- Containers -----------------------------------------------------------------

--- A shared list. Its methods: mp.list.
---@param items any|nil an iterable: a list (its n counts), another list, a
--   shared array, mp.range, an iterator function
---@return userdata list
-- Raises TypeError, PicklingError, OSError when there is no memory.
function Manager:list(items, ...)
    check("list", self)
    named.no_more("list", 1, ...)
    if items == nil then
        return native.new("list", {}, 0)
    end
    local values, n = list._iterable("list", items)
    return native.new("list", values, n, nil, "list")
end

--- A shared dict. Its methods: mp.dict.
---@param items table|userdata|nil a table, or a dict
---@return userdata dict
-- Raises what list raises.
function Manager:dict(items, ...)
    check("dict", self)
    named.no_more("dict", 1, ...)
    if items == nil then
        return native.new("dict", {}, 0, {})
    end
    local values, n, keys = dict._entries("dict", items)
    return native.new("dict", values, n, keys, "dict")
end

--- A shared set. Its methods: mp.set.
---@param items any|nil an iterable
---@return userdata set
-- Raises what list raises.
function Manager:set(items, ...)
    check("set", self)
    named.no_more("set", 1, ...)
    if items == nil then
        return native.new("set", {}, 0, {})
    end
    local keys, n = list._iterable("set", items)
    return native.new("set", keys, n, keys, "set")
end

--- A shared Namespace: mp.namespace.
---@param fields table|nil
---@return userdata Namespace
-- Raises what list raises; ValueError of a name that begins with "_".
function Manager:Namespace(fields, ...)
    check("Namespace", self)
    named.no_more("Namespace", 1, ...)
    if fields == nil then
        return native.new("Namespace", {}, 0, {})
    end
    local values, n, keys = dict._entries("Namespace", fields)
    for i = 1, n do
        namespace._check_name("Namespace", keys[i])
    end
    return native.new("Namespace", values, n, keys, "Namespace")
end

-- What is shared anyway ------------------------------------------------------

--- A method that makes what `make` makes.
local function maker(name, make)
    Manager[name] = function(self, ...)
        check(name, self)
        return make(...)
    end
end

-- With the arguments of mp.Lock and so on. A pool belongs to the process that
-- made it, whatever made it.
for _, name in ipairs{"Lock", "RLock", "Semaphore", "BoundedSemaphore",
    "Condition", "Event", "Barrier"} do
    maker(name, sync[name])
end
maker("Queue", queue.Queue)
maker("JoinableQueue", queue.JoinableQueue)
maker("Value", shared.Value)
maker("Array", shared.Array)
maker("Pool", pool.Pool)

return M
