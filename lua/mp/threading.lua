--- Threads, after Python's threading: each has a Lua state of its own, so they
-- run at the same time. What a thread is given is copied, as for a process;
-- what they share is what mp shares. os.exit in a thread ends that thread.

local birth = require "mp.birth"
local class = require "mp.class"
local core = require "mp.core"
local errors = require "mp.errors"
local process = require "mp.process"
local sync = require "mp.sync"

local M = {
    Lock = sync.Lock, RLock = sync.RLock, Semaphore = sync.Semaphore,
    BoundedSemaphore = sync.BoundedSemaphore, Condition = sync.Condition,
    Event = sync.Event, Barrier = sync.Barrier,
}

local this <const> = birth._this
local made = 0 -- threads, by this state

--- A thread: `Thread(group, target, name, args, kwargs, daemon)`, group being
-- nil, or `Thread{target=, args=, kwargs=, name=, daemon=}`; or a class made
-- by Thread:extend(name) with a run of its own. Like a Process it has start,
-- run, join([timeout]) -> whether it ended, is_alive, and the fields name,
-- daemon, ident, exitcode. terminate() asks it to end: its next call of mp
-- that waits raises Interrupted.
local Thread = class.new("Thread", process.Process)
Thread._method = "thread"
Thread._is_thread = true
Thread._called = "Thread"
M.Thread = Thread

--- Threads and processes are numbered apart.
function Thread:_construct(...)
    local processes = this.made
    local object = process.Process._construct(self, ...)
    this.made = processes
    made = made + 1
    object._number = made
    if not object._name then
        object._name = "Thread-" .. made
    end
    return object
end

--- An integer that no other living thread of mp has; nil before the start.
function Thread._get:ident()
    if self == this.process then
        return core.process.tag()
    end
    return self._child and self._child:tag() or nil
end

function Thread:__tostring()
    local child = self._child
    local state = "initial"
    if child or self == this.process then
        state = self:is_alive() and "started" or "stopped"
    end
    return ("<Thread(%s, %s%s)>"):format(self.name, state,
        self._daemon and " daemon" or "")
end

-- The thread that asks -------------------------------------------------------

--- The thread that a state is in, when no Thread object started it.
local Current = {__name = "Thread"}
Current.__index = Current

--- It does.
---@return boolean
function Current.is_alive()
    return true
end

function Current.join()
    errors._raise("StateError", "cannot join current thread")
end

function Current:__tostring()
    return ("<Thread(%s, started%s)>"):format(self.name,
        self.daemon and " daemon" or "")
end

local function is_thread()
    return core.thread_of == core.getpid()
end

local current -- made when asked for

--- The thread that asks: fields name, ident, daemon; the main thread's name
-- is MainThread.
---@return table
function M.current_thread()
    local pid = core.getpid()
    if not current or current._pid ~= pid then
        local own = is_thread()
        current = setmetatable({
            name = own and this.process.name or "MainThread",
            daemon = own and this.process.daemon or false,
            ident = core.process.tag(), _pid = pid,
        }, Current)
    end
    return current
end

--- The main thread of this process, as far as this state knows it: the one
-- that asks, or, in a thread, only its name.
---@return table
function M.main_thread()
    if not is_thread() then
        return M.current_thread()
    end
    return setmetatable({name = "MainThread", daemon = false}, Current)
end

--- An integer that no other living thread of mp has.
---@return integer
function M.get_ident()
    return core.process.tag()
end

--- The threads that run: the one that asks, and those that it started.
---@return table list, oldest first
function M.active_threads()
    local list = process._active(true)
    table.insert(list, 1, M.current_thread())
    return list
end

M.enumerate = M.active_threads

--- How many those are.
---@return integer
function M.active_count()
    return #M.active_threads()
end

return M
