--- wait: for the first of many things, of any kind, in one call.
--
-- What can be waited for, and when it is ready:
--   a connection, a listener    there is something to read, or the end; accept
--                               has something to do
--   a process, its sentinel     it has ended
--   a result, a future          it is there, or will never be
--   a queue                     it is not empty
--   an event                    it is set
--   a descriptor (an integer), or an object with a method fileno()
--                               it is readable, or at its end
-- To be ready is a state at one moment: another process may take the item.
--
-- Other classes take part by a metamethod __waitable(object): it returns
-- true (it is ready), what is to be waited for in its place, or nil (it does
-- not get ready by waiting); and perhaps a function to be called when the
-- wait is over.

local core = require "mp.core"
local errors = require "mp.errors"
local named = require "mp.named"

local M = {}

local EBADF <const> = 9

local function refuse(item, i)
    errors._raise("ValueError", "wait: item %d: invalid file object: %s "
        .. "(a connection, process, sentinel, result, queue, event or "
        .. "descriptor expected)", i, errors._show(item))
end

--- The number of the descriptor of something with a fileno().
local function fileno_of(item, i)
    local kind = type(item)
    if kind ~= "table" and kind ~= "userdata" then
        refuse(item, i)
    end
    local ok, method = pcall(function()
        return item.fileno
    end)
    if not ok or type(method) ~= "function" then
        refuse(item, i)
    end
    local fd = method(item)
    if math.type(fd) ~= "integer" then
        errors._raise("TypeError", "wait: item %d: its fileno() returned %s,"
            .. " expected an integer", i, errors._show(fd))
    end
    return fd
end

--- What the core waits for in the place of item `i` of the list: an integer
-- or a userdata; true: it is ready; nil: nothing. And what is to be called
-- when the wait is over.
local function stands_for(item, i)
    local hook, after
    local meta = getmetatable(item)
    if type(meta) == "table" then
        hook = rawget(meta, "__waitable")
    end
    if hook then
        local thing, call = hook(item)
        if thing == nil or thing == true then
            return thing, call
        end
        item, after = thing, call
    end
    local thing = core.waitable(item, hook ~= nil)
    if thing == nil then
        thing = math.type(item) == "integer" and item or fileno_of(item, i)
        if thing < 0 or thing > 0x7fffffff then
            errors._raise("ValueError", "wait: item %d: invalid file object:"
                .. " %d is no descriptor", i, thing)
        end
    end
    return thing, after
end

--- The items of the list, each once, and what the core waits for.
local function gather(list)
    local items, seen = {}, {}
    local n = math.type(list.n) == "integer" and list.n or #list
    if n == 0 and list.n == nil and next(list) ~= nil then
        errors._raise("TypeError", "wait: argument 'object_list': list "
            .. "expected, got a table without items 1 to n")
    end
    for i = 1, n do
        local item = list[i]
        if item == nil then
            refuse(item, i)
        elseif not seen[item] then
            seen[item] = true
            local thing, after = stands_for(item, i)
            items[#items + 1] = {
                place = i, item = item, thing = thing, after = after,
            }
        end
    end
    return items
end

--- Waits for the things of the items; marks those that are ready.
local function await(items, timeout)
    local things, owners, at_once = {}, {}, false
    for _, entry in ipairs(items) do
        if entry.thing == true then
            entry.ready, at_once = true, true
        elseif entry.thing ~= nil then
            things[#things + 1] = entry.thing
            owners[#things] = entry
        end
    end
    if #things == 0 and timeout == nil and not at_once then
        errors._raise("ValueError", "wait: there is nothing to wait for, and "
            .. "no timeout")
    end
    if at_once and (timeout == nil
            or type(timeout) == "number" and timeout > 0) then
        timeout = 0
    end
    local ready = core.wait(things, timeout)
    for i, entry in ipairs(owners) do
        local is = ready and ready[i]
        if is == false then
            error(core.error.new("OSError", ("wait: item %d: %s is no open "
                .. "descriptor"):format(entry.place, entry.thing),
                {errno = EBADF, code = "EBADF"}), 0)
        end
        entry.ready = entry.ready or is
    end
end

--- Waits until at least one of the things in the list is ready, at most
--- `timeout` seconds, and returns the list of those that are, in the order of
--- `list`; what stands there twice is one. Empty when the time is up.
---@param list table connections, processes, sentinels, results, queues, ...
---@param timeout number|nil seconds; nil waits for ever, 0 or less polls
---@return table
-- Raises ValueError, TypeError; OSError, StateError of what is closed.
function M.wait(list, timeout, ...)
    named.no_more("wait", 2, ...)
    if type(list) ~= "table" then
        errors._raise("TypeError", "wait: argument 'object_list': list "
            .. "expected, got %s", errors._show(list))
    end
    local items = gather(list)
    await(items, timeout)
    local ready = {}
    for _, entry in ipairs(items) do
        if entry.ready then
            ready[#ready + 1] = entry.item
        end
        if entry.after then
            entry.after()
        end
    end
    return ready
end

return M
