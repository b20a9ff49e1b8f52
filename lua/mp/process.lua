--- Processes: mp.Process, the process that asks, its parent, its children.
--
-- A Process object is a description until start(); then the parent holds a
-- Child (mp.core) in it, and in the child the same object is the current
-- process: a copy of it, where the child is a copy of the parent; elsewhere
-- one made after what the child was told of its birth. A child runs nothing
-- but run(), and ends with it.

local core = require "mp.core"
local authkey = require "mp.authkey"
local birth = require "mp.birth"
local call = require "mp.call"
local class = require "mp.class"
local context = require "mp.context"
local errors = require "mp.errors"
local log = require "mp.log"
local options = require "mp.process_options"
local signals = require "mp.signals"

local M = {}

local SIGINT <const>, SIGKILL <const>, SIGTERM <const> = 2, 9, 15
local this <const> = birth._this
local RUNNING <const> = "Cannot close a process while it is still running. "
    .. "You should first call join() or terminate()."

local Process = class.root(class.new("Process"))
Process._called = "Process" -- in messages
M.Process = Process
M.parent_process = birth.parent_process
M._report = birth._report

local NO_ARGS <const> = {n = 0}

-- What an object has that is no more than a target with its arguments.
local OWN <const> = {
    _number = true, _path = true, _creator = true, _daemon = true,
    _card = true, _child = true, _target = true, _args = true, _name = true,
    _authkey = true,
}

local function misuse(...)
    errors._raise("StateError", ...)
end

-- Making --------------------------------------------------------------------

local function default_name(self)
    return getmetatable(self).__name .. "-" .. self._path
end

--- What every process object has, also one whose class has an init of its
-- own that does not call this one's.
function Process:_construct(...)
    local made, above = this.made + 1, this.process._path
    this.made = made
    local object = setmetatable({
        _number = made,
        _path = above and above .. ":" .. made or made,
        _creator = core.getpid(),
        _daemon = this.process._daemon,
        _authkey = this.process._authkey,
        _card = false, -- its parent's, once started
        _child = false,
        _target = false,
        _args = NO_ARGS,
    }, self)
    object:init(...)
    return object
end

--- Makes a process; nothing runs before start(). Takes the positions
-- (group, target, name, args, kwargs, daemon), group being nil, or one table:
---@param target function|nil what run() calls, in the child
---@param name string|nil by default «Process-1», or «Process-1:1» in a child
---@param args table|nil a list, with `n` honoured
---@param kwargs table|nil bound to the target's parameters by name, in run()
---@param daemon boolean|nil ended, not awaited, when this process ends; as
--   this process by default
-- Raises TypeError, ValueError.
function Process:init(...)
    local o = options.of(self._called, ...)
    if o.target ~= nil then
        self._target = options.check_target(self._called, o.target)
    end
    self._args = call.copy_args(self._called, o.args)
    if o.kwargs ~= nil then
        self._kwargs = call.copy_kwargs(self._called, o.kwargs)
    end
    if o.name ~= nil
        and options.check_name(self._called, o.name) ~= "" then
        self._name = o.name
    end
    if o.daemon ~= nil then
        self._daemon = options.check_daemon(self._called, o.daemon)
    end
end

-- In the child --------------------------------------------------------------

--- What the process does: calls the target. Subclasses put their own here.
-- Called directly, it runs in the caller. Raises what the target raises.
function Process:run()
    class.check_self("run", Process, self)
    local target = self._target
    if not target then
        return
    end
    local args = call.bind(target, self._args, self._kwargs)
    return target(table.unpack(args, 1, args.n))
end

--- Makes this new process what `object` describes: a pool's worker, say.
---@param object table a Process object
---@return function its run
function M._become(object)
    if not object._authkey then
        object._authkey = this.process._authkey
    end
    this.process, this.made, this.card, this.parent = object, 0, false, false
    if M._after_fork then
        M._after_fork() -- mp.util was loaded before
    end
    return object.run
end

--- Does what `object` describes, in a process started for it that is no copy
-- of its parent.
---@param object table a Process object
function M._run(object)
    object._foreign = nil
    return M._become(object)(object)
end

-- In the parent -------------------------------------------------------------

local function check_open(self, what)
    class.check_self(what, Process, self)
    if self._closed then
        misuse("process object is closed")
    end
end

--- Was it made here? (In a thread the number of the process does not tell.)
local function is_mine(self)
    return self._creator == core.getpid() and not self._foreign
end

--- Its Child, when `what` is a thing that this process may do with it.
local function check_child(self, what)
    check_open(self, what)
    if not is_mine(self) then
        misuse("can only %s a child process", what)
    elseif not self._child then
        misuse("can only %s a started process", what)
    end
    return self._child
end

--- Is it nothing but a function and its arguments? Then the child has no
-- need of this module. (Arguments that do not fit are for run() to refuse.)
local function is_plain(self)
    local of, target = getmetatable(self), self._target
    if of ~= Process and not (of._base == Process and rawget(of, "_method"))
        or type(target) ~= "function" then
        return false
    end
    for key in next, self do
        if not OWN[key] then
            return false
        end
    end
    local most, more = core.process.parameters(target)
    return more or self._args.n <= most
end

-- Processes that are being started, as what they work on is pickled: code of
-- the user's runs in that.
local starting = setmetatable({}, {__mode = "k"})

--- Starts a child that is no copy of this process.
local function encode_and_start(self, method)
    local told = birth._birth(self)
    if is_plain(self) then
        local args = self._args
        return core.process.start_fresh(method, told, self._target, self,
            self._daemon, table.unpack(args, 1, args.n))
    end
    return core.process.start_fresh(method, told, self, self, self._daemon)
end

local function start_fresh(self, method)
    starting[self] = true
    local ok, child, problem = pcall(authkey.starting, encode_and_start, self,
        method)
    starting[self] = nil
    if not ok then
        error(child, 0)
    end
    return child, problem
end

local function start_copy(self)
    if core.process.threads() > 1 then
        log._warn_once("fork", "this process has threads: the copy that fork "
            .. "makes has one, and may hang; use 'forkserver' or 'spawn'")
    end
    return core.process.start(M._become, birth._report_copy, self,
        self._daemon)
end

--- Starts the child, which calls run(). Returns in the parent only.
-- Raises StateError: twice, in another process, closed; OSError;
-- PicklingError when something cannot travel that must, since the start
-- method makes no copy of this process.
function Process:start()
    check_open(self, "start")
    if self._child or starting[self] then
        misuse("cannot start a process twice")
    elseif not is_mine(self) then
        misuse("can only start a process object created by current process")
    end
    self._card = birth._card()
    local method = self._method or context._method()
    local child, problem
    if method == "fork" then
        child, problem = start_copy(self)
    else
        child, problem = start_fresh(self, method)
    end
    if not child then
        errors._again(problem)
    end
    self._child = child
    -- What it works on lives as long as the child needs it, not as long as
    -- somebody keeps this object.
    self._target, self._args = false, NO_ARGS
    if self._kwargs then
        self._kwargs = nil
    end
end

--- Waits for the end of the child.
---@param timeout number|nil seconds; 0 or less: only looks
---@return boolean whether it ended
-- Raises StateError: not started, another process's, closed.
function Process:join(timeout)
    return check_child(self, "join"):join(timeout)
end

--- Does it run? (A process itself always does.)
---@return boolean
-- Raises StateError: another process's, closed.
function Process:is_alive()
    check_open(self, "is_alive")
    if self == this.process then
        return true
    elseif not is_mine(self) then
        misuse("can only test a child process")
    end
    return self._child and not self._child:poll()
end

--- Sends SIGTERM, which ends it unless it has a handler. Its own children
-- end with it. Nothing happens when it has ended.
-- Raises StateError: not started, another process's, closed.
function Process:terminate()
    check_child(self, "terminate"):signal(SIGTERM)
end

--- Sends SIGKILL. Otherwise like terminate.
function Process:kill()
    check_child(self, "kill"):signal(SIGKILL)
end

--- Sends SIGINT, as Ctrl-C does. Otherwise like terminate.
function Process:interrupt()
    check_child(self, "interrupt"):signal(SIGINT)
end

--- Gives back what the object holds; twice does nothing more.
-- Raises StateError while the child runs.
function Process:close()
    class.check_self("close", Process, self)
    local child = self._child
    if starting[self] then
        misuse(RUNNING)
    elseif child and not self._closed then
        if child:mine() and not child:poll() then
            misuse(RUNNING)
        end
        child:close()
    end
    self._closed = true
end

--- Left normally, waits for the child; left by an error, terminates it.
function Process:__close(problem)
    local child = not self._closed and self._child
    if child and child:mine() then
        if problem ~= nil then
            child:signal(SIGTERM)
        end
        child:join()
    end
    self:close()
end

-- Fields --------------------------------------------------------------------

function Process._get:name()
    return self._name or default_name(self)
end

function Process._set:name(name)
    self._name = options.check_name(self._called, name) ~= "" and name
        or nil
    if self == this.process and this.card then
        this.card.name = self.name
    end
end

--- The key of this process and, by default, of its children: bytes, as
-- tostring shows them. Is assigned a string.
function Process._get:authkey()
    return authkey.new(self._authkey or this.process._authkey)
end

function Process._set:authkey(key)
    self._authkey = authkey.bytes(key)
end

function Process._get:daemon()
    return self._daemon
end

function Process._set:daemon(daemon)
    if self._child or self == this.process then
        misuse("process has already started")
    end
    self._daemon = options.check_daemon(self._called, daemon)
end

local function pid_of(self)
    if self == this.process then
        return core.getpid()
    end
    return self._child and self._child:pid() or nil
end

function Process._get:pid()
    check_open(self, "pid")
    return pid_of(self)
end

Process._get.ident = Process._get.pid

--- nil before the start, while it runs, and when somebody else took it.
function Process._get:exitcode()
    check_open(self, "exitcode")
    if self == this.process or not self._child or not self._child:mine() then
        return nil
    end
    local _, code = self._child:poll()
    return code
end

--- A descriptor that becomes readable when the process has ended.
function Process._get:sentinel()
    check_open(self, "sentinel")
    if not self._child then
        misuse("process not started")
    end
    return self._child:sentinel()
end

--- For mp.wait.
function Process:__waitable()
    return self.exitcode ~= nil or self.sentinel
end

--- initial, started, stopped, closed, unknown (another process's).
local function status(self)
    if self == this.process then
        return "started"
    elseif self._closed then
        return "closed"
    elseif not is_mine(self) then
        return "unknown"
    elseif not self._child then
        return "initial"
    end
    local ended, code = self._child:poll()
    return ended and "stopped" or "started", code
end

function Process:__tostring()
    local word, code = status(self)
    local pid = pid_of(self)
    local parts = {
        getmetatable(self).__name,
        string.format("name='%s'", self.name),
    }
    if pid then
        parts[#parts + 1] = "pid=" .. pid
    end
    parts[#parts + 1] = "parent=" .. tostring(self._creator)
    parts[#parts + 1] = word
    if code then
        parts[#parts + 1] = "exitcode=" .. signals.show(code)
    end
    if self._daemon then
        parts[#parts + 1] = "daemon"
    end
    return "<" .. table.concat(parts, " ") .. ">"
end

-- The processes around ------------------------------------------------------

--- The process that asks. Its name is MainProcess in the one that was not
-- started by mp.
---@return table a Process object
function M.current_process()
    return this.process
end

--- The objects of what this state started and what runs: processes, or
-- mp.threading's threads. Those that have ended are joined.
---@param threads boolean
---@return table list, oldest first
function M._active(threads)
    local list = {}
    for _, object in ipairs(core.process.active()) do
        if (object._is_thread or false) == threads then
            list[#list + 1] = object
        end
    end
    table.sort(list, function(a, b)
        return a._number < b._number
    end)
    return list
end

--- This process's children that run. Those that have ended are joined.
---@return table list of Process objects, oldest first
function M.active_children()
    return M._active(false)
end

--- An object for a process that start() did not make: the main one, or a
-- pool's worker.
---@param name string
---@param daemon boolean
---@param path string|nil what its children's names begin with
---@param card table|nil what its parent's _card() said
---@return table a Process object
function M._describe(name, daemon, path, card)
    return setmetatable({
        _name = name, _daemon = daemon, _path = path, _card = card,
    }, Process)
end

-- Travelling ----------------------------------------------------------------

local function new_object(of)
    return setmetatable({}, of)
end
M._new_object = new_object -- by this name it travels

function Process:__reduce()
    authkey.check_travel()
    return new_object, getmetatable(self)
end

--- All that is said of the process, without the child that it has.
function Process:__getstate()
    local state = {}
    for key, value in next, self do
        state[key] = value
    end
    state._child, state._closed = false, nil
    return state
end

--- It is this process's only to look at, unless it is told to _run it.
function Process:__setstate(state)
    for key, value in next, state do
        rawset(self, key, value)
    end
    rawset(self, "_foreign", true)
end

--- Makes this process what it was told that it is.
function M._receive()
    this.process, this.made, this.card, this.parent =
        M._describe("MainProcess", false), 0, false, false
    birth._receive(this.process)
end

M._receive()

return M
