--- Queues between processes: Queue, SimpleQueue, JoinableQueue.
--
-- An item is visible to every process when put returns, counts are exact, and
-- items of one producer keep their order. Any value that can be pickled is an
-- item, nil and false too, of any size; what cannot be is refused in put. No
-- helper thread stands behind a queue, so joining a process before its items
-- are read cannot deadlock. A producer or consumer that dies blocks nobody;
-- an item that a dead consumer had taken is lost with it.
--
-- Methods (block is a boolean, default true; timeout in seconds, nil = for
-- ever, 0 or less = try; with block false it is not looked at):
--   q:put(value [, block [, timeout]])     raises Full
--   q:get([block [, timeout]])             the value; raises Empty
--   q:put_nowait(value), q:get_nowait()    the same with block false
--   q:try_put(value [, timeout])           true, or false, "Full"
--   q:try_get([timeout])                   true, value, or false, "Empty"
--                                          (both: without a timeout, at once)
--   q:put_many(list [, timeout])           all of a list (its `n` counts);
--                                          nothing if one cannot be pickled;
--                                          Full has `count`: how many it put
--   q:get_many(max [, timeout])            a list with n of 1 to max values;
--                                          raises Empty. If one cannot be
--                                          rebuilt, the error has `items`:
--                                          the list of those before it
--   q:qsize() q:empty() q:full()           at one moment
--   q:close()                              this handle is done with; others
--                                          are not concerned. Further calls
--                                          raise StateError
--   q:join_thread() q:cancel_join_thread() for programs that come from Python:
--                                          there is no thread to join
-- A JoinableQueue has besides:
--   q:task_done()                          an item that was taken is worked
--                                          off; ValueError if none was left
--   q:join([timeout])                      waits for all: whether it was so
-- A SimpleQueue has no bound, so put never waits; it has neither the _nowait
-- forms nor full and the thread's methods.
--
-- Queues are shared: a queue can be an argument, an upvalue or an item.

local core = require "mp.core"
local named = require "mp.named"

local M = {}

local PLACES <const> = {maxsize = 1}

--- The maxsize among the arguments of a constructor.
local function maxsize_of(fn, given, ...)
    named.no_more(fn, 1, ...)
    if type(given) == "table" then
        return (named.in_order(fn, given, PLACES, 1))
    end
    return given
end

--- A queue, first in, first out.
---@param maxsize integer|table|nil most items in it; nil, 0 or less: no
--   bound. Or named arguments: maxsize
---@return userdata Queue
-- Raises TypeError, ValueError, OSError when there is no memory.
function M.Queue(maxsize, ...)
    return core.Queue(maxsize_of("Queue", maxsize, ...))
end

--- A queue that counts unfinished tasks: task_done and join.
---@param maxsize integer|table|nil as for Queue
---@return userdata JoinableQueue
-- Raises what Queue raises.
function M.JoinableQueue(maxsize, ...)
    return core.JoinableQueue(maxsize_of("JoinableQueue", maxsize, ...))
end

--- A queue without a bound, with the few methods of Python's.
---@return userdata SimpleQueue
-- Raises OSError when there is no memory.
function M.SimpleQueue(...)
    named.no_more("SimpleQueue", 0, ...)
    return core.SimpleQueue()
end

return M
