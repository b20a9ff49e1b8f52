--- Named shared memory, for processes that have only a name in common:
-- SharedMemory, ShareableList, SharedMemoryManager.

local class = require "mp.class"
local core = require "mp.core"
local errors = require "mp.errors"
local named = require "mp.named"
local segment = require "mp.segment"

local M = {
    SharedMemory = segment.SharedMemory,
    ShareableList = require("mp.shareable_list").ShareableList,
}

--- Makes segments and lists, and unlinks all of them at shutdown, which is
-- also what `<close>` and its collection do. No process stands behind it: it
-- may be used as it is made; start is there for programs from Python.
local SharedMemoryManager = class.root(class.new("SharedMemoryManager"))

--- Who may shut it down: who made it, and no copy in another process.
local function owner()
    return core.process.tag()
end

--- SharedMemoryManager([address [, authkey]]): the arguments mean nothing.
function SharedMemoryManager:init(_, _, ...)
    named.no_more("SharedMemoryManager", 2, ...)
    self._state = "initial"
    self._owner = owner()
    self._made = {}
end

local function check_running(fn, self)
    class.check_self(fn, SharedMemoryManager, self)
    if self._state == "shutdown" then
        errors._raise("StateError", "%s: Manager has shut down", fn)
    elseif self._owner ~= owner() then
        errors._raise("StateError",
            "%s: the manager belongs to another process", fn)
    end
end

--- Begins; needed by nobody.
-- Raises StateError: twice, after the first segment, or after shutdown.
function SharedMemoryManager:start(...)
    named.no_more("start", 0, ...)
    check_running("start", self)
    if self._state == "started" then
        errors._raise("StateError", "Already started SharedMemoryServer")
    end
    self._state = "started"
end

--- There is none.
-- Raises StateError, always.
function SharedMemoryManager:get_server()
    check_running("get_server", self)
    errors._raise("StateError", self._state == "started"
        and "Already started SharedMemoryServer"
        or "get_server: a SharedMemoryManager has no server")
end

local function add(self, memory, result)
    self._state = "started"
    self._made[#self._made + 1] = segment._closed(memory)
    return result
end

--- A new segment, with a name of its own.
---@param size integer
---@return table SharedMemory
function SharedMemoryManager:SharedMemory(size, ...)
    named.no_more("SharedMemory", 1, ...)
    check_running("SharedMemory", self)
    local memory = M.SharedMemory(nil, true, size)
    return add(self, memory, memory)
end

--- A new list.
---@param sequence table
---@return table ShareableList
function SharedMemoryManager:ShareableList(sequence, ...)
    named.no_more("ShareableList", 1, ...)
    check_running("ShareableList", self)
    if sequence == nil then
        sequence = {}
    end
    local list = M.ShareableList(sequence)
    return add(self, list.shm, list)
end

--- Unlinks what it made; who has it open may go on. Again is no error.
function SharedMemoryManager:shutdown()
    class.check_self("shutdown", SharedMemoryManager, self)
    if self._state == "shutdown" or self._owner ~= owner() then
        return
    end
    self._state = "shutdown"
    for _, memory in ipairs(self._made) do
        pcall(memory.unlink, memory) -- somebody may have done it
    end
    self._made = {}
end

--- Waits for nobody. For programs that come from Python.
function SharedMemoryManager:join()
    class.check_self("join", SharedMemoryManager, self)
end

SharedMemoryManager.__close = SharedMemoryManager.shutdown
SharedMemoryManager.__gc = SharedMemoryManager.shutdown

function SharedMemoryManager:__tostring()
    return ("<SharedMemoryManager %s>"):format(self._state)
end

function SharedMemoryManager.__reduce()
    return nil, "it belongs to the process that made it"
end

M.SharedMemoryManager = SharedMemoryManager
return M
