--- What processes wait on: Lock, RLock, Semaphore, BoundedSemaphore,
-- Condition, Event, Barrier.
--
-- Each can cross to another process at any time. Waits are in seconds: nil
-- waits for ever, 0 or less tries; they can be interrupted.
--
-- What can be acquired has:
--   l:acquire([block [, timeout]])  -> boolean; block = false tries
--   l:release()
--   l:guard()    acquires, and returns what releases when it is closed:
--                    local held <close> = lock:guard()
--   l:locked()   -> boolean
-- A holder that dies does not take a lock with it: the next acquire (guard,
-- wait) succeeds and has "abandoned" as its second result, once. What the
-- lock protects may then be half changed.

local core = require "mp.core"
local named = require "mp.named"

local M = {}

--- A lock. Whoever releases it need not be who acquired it; releasing it
-- when it is free raises ValueError. Its holder waits for itself if it
-- acquires it again.
---@return userdata Lock
function M.Lock(...)
    named.no_more("Lock", 0, ...)
    return core.Lock()
end

--- A lock that its holder may acquire again; it is free when released as
-- often. Released by anybody else it raises StateError.
---@return userdata RLock
function M.RLock(...)
    named.no_more("RLock", 0, ...)
    return core.RLock()
end

local VALUE <const> = {value = 1}

--- A semaphore: so many may have acquired it at a time. Also has
-- s:get_value(), and s:release([n]) gives n permits. Permits belong to
-- nobody: those of a process that dies are not given back.
---@param value integer|table|nil 1; or named arguments: value
---@return userdata Semaphore
-- Raises ValueError below 0 and above 2147483647, TypeError.
function M.Semaphore(value, ...)
    named.no_more("Semaphore", 1, ...)
    if type(value) == "table" then
        value = named.in_order("Semaphore", value, VALUE, 1)
    end
    return core.Semaphore(value)
end

--- A semaphore that raises ValueError when it is released more often than
-- acquired.
---@param value integer|table|nil 1; or named arguments: value
---@return userdata BoundedSemaphore
-- Raises what Semaphore raises.
function M.BoundedSemaphore(value, ...)
    named.no_more("BoundedSemaphore", 1, ...)
    if type(value) == "table" then
        value = named.in_order("BoundedSemaphore", value, VALUE, 1)
    end
    return core.BoundedSemaphore(value)
end

local LOCK <const> = {lock = 1}

--- A condition: acquired like its lock, and
--   c:wait([timeout])             gives the lock up, waits to be notified,
--                                 takes the lock again; -> was it notified?
--   c:wait_for(f [, timeout])     waits until f() is true; -> its last value
--   c:notify([n])                 wakes n (1) of those that wait, the oldest
--   c:notify_all()
-- Each raises StateError unless the caller holds the lock. A notify is not
-- lost with a waiter that dies: the next one gets it.
---@param lock userdata|table|nil Lock or RLock, nil: an RLock of its own; or
--   named arguments: lock
---@return userdata Condition
-- Raises TypeError, StateError (of a closed lock).
function M.Condition(lock, ...)
    named.no_more("Condition", 1, ...)
    if type(lock) == "table" then
        lock = named.in_order("Condition", lock, LOCK, 1)
    end
    return core.Condition(lock)
end

--- A flag: e:set(), e:clear(), e:is_set(), and e:wait([timeout]) -> was it
-- set? Who waits when it is set gets true, also if it is cleared at once.
---@return userdata Event
function M.Event(...)
    named.no_more("Event", 0, ...)
    return core.Event()
end

local BARRIER <const> = {parties = 1, action = 2, timeout = 3}

--- A barrier: b:wait([timeout]) waits until so many have come, and returns
-- to each a number of its own, 0 to parties - 1. b:abort() breaks it: all
-- who wait, and who will, get BrokenBarrier; b:reset() mends it. Fields:
-- parties, n_waiting, broken.
--
-- It breaks, too, when a wait's time is up, when the action raises (its
-- caller gets that error), when one that waits dies or leaves by an error,
-- and when a party dies by a signal or an error while it does not wait.
---@param parties integer|table at least 1; or named arguments: parties,
--   action, timeout
---@param action function|nil called by the last that comes, before the
--   others go on; it must be able to cross to another process
---@param timeout number|nil of the waits that name none (nil: for ever)
---@return userdata Barrier
-- Raises ValueError, TypeError, PicklingError (of the action).
function M.Barrier(parties, action, timeout, ...)
    named.no_more("Barrier", 3, ...)
    if type(parties) == "table" then
        named.alone("Barrier", action, timeout)
        return core.Barrier(named.in_order("Barrier", parties, BARRIER, 3))
    end
    return core.Barrier(parties, action, timeout)
end

return M
