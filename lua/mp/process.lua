--- Processes: mp.Process, the process that asks, its parent, its children.
--
-- A Process object is a description until start(); then the parent holds a
-- Child (mp.core) in it, and in the child the same object is the current
-- process. A child runs nothing but run(), and ends with it.

local core = require "mp.core"
local call = require "mp.call"
local class = require "mp.class"
local errors = require "mp.errors"
local named = require "mp.named"

local M = {}

local SIGINT <const>, SIGKILL <const>, SIGTERM <const> = 2, 9, 15
local RUNNING <const> = "Cannot close a process while it is still running. "
    .. "You should first call join() or terminate()."
local FIELDS <const> = {
    group = true, target = true, name = true, args = true, kwargs = true,
    daemon = true,
}

-- This process: its object, how many processes it has made, what its
-- children know of it, and its parent's object. In one table, and the latter
-- two made when asked for: a child writes to few of its pages, since each
-- costs it more than the whole of a small job.
local this = {process = false, made = 0, card = false, parent = false}

local Process = class.root(class.new("Process"))
M.Process = Process

local NO_ARGS <const> = {n = 0}

local function misuse(...)
    errors._raise("StateError", ...)
end

-- Making --------------------------------------------------------------------

local function default_name(self)
    return getmetatable(self).__name .. "-" .. self._path
end

local function check_target(target)
    local metatable = type(target) ~= "function" and
        debug.getmetatable(target)
    if metatable and metatable.__call == nil or metatable == nil then
        errors._raise("TypeError", "Process: target must be callable, got %s",
            errors._show(target))
    end
    return target
end

local function check_name(name)
    if type(name) ~= "string" then
        errors._raise("TypeError", "Process: name must be a string, got %s",
            errors._show(name))
    end
    return name
end

local function check_daemon(daemon)
    if type(daemon) ~= "boolean" then
        errors._raise("TypeError",
            "Process: daemon must be true or false, got %s",
            errors._show(daemon))
    end
    return daemon
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
        _card = false, -- its parent's, once started
        _child = false,
        _target = false,
        _args = NO_ARGS,
    }, self)
    object:init(...)
    return object
end

--- The constructor's positions as the table of names.
local function by_name(group, target, name, args, kwargs, daemon, ...)
    named.no_more("Process", 6, ...)
    if type(group) == "table" then
        named.alone("Process", target, name, args, kwargs, daemon)
        for key in pairs(group) do
            if not FIELDS[key] then
                errors._raise("TypeError",
                    "Process() got an unexpected keyword argument %s",
                    errors._show(key))
            end
        end
        return group
    end
    return {group = group, target = target, name = name, args = args,
        kwargs = kwargs, daemon = daemon}
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
    local o = by_name(...)
    if o.group ~= nil then
        errors._raise("ValueError",
            "Process: group argument must be nil for now, got %s",
            errors._show(o.group))
    end
    if o.target ~= nil then
        self._target = check_target(o.target)
    end
    self._args = call.copy_args("Process", o.args)
    if o.kwargs ~= nil then
        self._kwargs = call.copy_kwargs("Process", o.kwargs)
    end
    if o.name ~= nil and check_name(o.name) ~= "" then
        self._name = o.name
    end
    if o.daemon ~= nil then
        self._daemon = check_daemon(o.daemon)
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

--- Lines of a traceback that tell what called start(), in the parent.
local function traceback_of_parent()
    local level = 2
    local info = debug.getinfo(level, "f")
    while info and info.func ~= core.process.start do
        level = level + 1
        info = debug.getinfo(level, "f")
    end
    return info and debug.traceback("", level):match("traceback:(.*)") or ""
end

--- Message handler of a child: tells on stderr what ended it, at once and in
-- one piece, after what the child has said before.
local function report(e)
    local ok, text = pcall(errors._describe, e, 3)
    local below = traceback_of_parent()
    if not ok then
        text = "(error in describing an error)"
    elseif below ~= "" and text:sub(-#below) == below then
        text = text:sub(1, -#below - 1)
    end
    pcall(io.stdout.flush, io.stdout)
    pcall(io.stderr.write, io.stderr, "Process " .. this.process.name ..
        ":\n" .. text .. "\n")
end

--- A parent, known by its participant's tag.
local Parent = {__name = "ParentProcess"}
Parent.__index = Parent

--- Does it live?
---@return boolean
function Parent:is_alive()
    return core.process.alive(self._tag)
end

--- Waits for its end.
---@param timeout number|nil seconds
---@return boolean whether it ended
function Parent:join(timeout)
    return core.process.await(self._tag, timeout)
end

function Parent:__tostring()
    return string.format("<ParentProcess name='%s' pid=%d>", self.name,
        self.pid)
end

--- Makes this new process what `object` describes: a pool's worker, say.
---@param object table a Process object
---@return function its run
function M._become(object)
    this.process, this.made, this.card, this.parent = object, 0, false, false
    return object.run
end

-- In the parent -------------------------------------------------------------

local function check_open(self, what)
    class.check_self(what, Process, self)
    if self._closed then
        misuse("process object is closed")
    end
end

--- Its Child, when `what` is a thing that this process may do with it.
local function check_child(self, what)
    check_open(self, what)
    if self._creator ~= core.getpid() then
        misuse("can only %s a child process", what)
    elseif not self._child then
        misuse("can only %s a started process", what)
    end
    return self._child
end

--- What a child is to know of this process.
---@return table {process = Process object, pid, tag}
function M._card()
    if not this.card then
        this.card = {process = this.process, pid = core.getpid(),
            tag = core.process.tag()}
    end
    return this.card
end

--- Starts the child, which calls run(). Returns in the parent only.
-- Raises StateError: twice, in another process, closed; OSError.
function Process:start()
    check_open(self, "start")
    if self._child then
        misuse("cannot start a process twice")
    elseif self._creator ~= core.getpid() then
        misuse("can only start a process object created by current process")
    end
    self._card = M._card()
    local child, problem = core.process.start(M._become, report, self,
        self._daemon)
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
    elseif self._creator ~= core.getpid() then
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
    if child and not self._closed then
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
    self._name = check_name(name) ~= "" and name or nil
end

function Process._get:daemon()
    return self._daemon
end

function Process._set:daemon(daemon)
    if self._child or self == this.process then
        misuse("process has already started")
    end
    self._daemon = check_daemon(daemon)
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

local SIGNALS <const> = {
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS",
    "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE",
    "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP",
    "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ",
    "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
}

--- initial, started, stopped, closed, unknown (another process's).
local function status(self)
    if self == this.process then
        return "started"
    elseif self._closed then
        return "closed"
    elseif self._creator ~= core.getpid() then
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
        local signal = code < 0 and SIGNALS[-code]
        parts[#parts + 1] = "exitcode=" .. (signal and "-" .. signal or code)
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

--- The process that started this one: fields pid, name, methods is_alive,
-- join; nil in the main process.
---@return table|nil
function M.parent_process()
    local card = this.process._card
    if card and not this.parent then
        this.parent = setmetatable({
            name = card.process.name, pid = card.pid, ident = card.pid,
            _tag = card.tag,
        }, Parent)
    end
    return this.parent or nil
end

--- This process's children that run. Those that have ended are joined.
---@return table list of Process objects, oldest first
function M.active_children()
    local list = core.process.active()
    table.sort(list, function(a, b)
        return a._number < b._number
    end)
    return list
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

this.process = M._describe("MainProcess", false)

return M
