--- What surrounds the life of a process: finalizers, what is done after a
-- fork, a directory for temporary files, the exit, log lines.
--
-- The exit of a process, in order: finalizers whose priority is 0 or more, the
-- highest first, and of equal ones the newest; the daemons are terminated;
-- the other children awaited; the rest of the finalizers that have a
-- priority. So it goes when the main program ends or closes its state
-- (os.exit(code, true)), and at the end of each child but a pool's worker.
-- os.exit(code) alone lets Lua no time: only the children and the directory
-- are taken care of.

local core = require "mp.core"
local class = require "mp.class"
local errors = require "mp.errors"
local log = require "mp.log"
local process = require "mp.process"

local M = {
    --- Levels of the logger, as numbers.
    NOTSET = 0, SUBDEBUG = 5, DEBUG = 10, INFO = 20, SUBWARNING = 25,
    WARNING = 30,
    get_logger = log.get_logger, log_to_stderr = log.log_to_stderr,
}

-- Finalizers -----------------------------------------------------------------

-- Those that are still to be called, by number; and how many were made.
local waiting, made = {}, 0

-- object -> what is collected with it. The object lives as long as others
-- want it; what a finalizer refers to lives as long as the finalizer.
local guards <const> = setmetatable({}, {__mode = "k"})

local exiting = false
local run_exit -- below

--- Finalize(object, callback [, args [, kwargs [, exitpriority]]]) calls
-- callback(args...) once: when the object is collected, or at the exit if it
-- has a priority, or when it is called itself. A child that is a copy of this
-- process never calls it.
local Finalize = class.root(class.new("Finalize"))
M.Finalize = Finalize

--- When an object is collected, nothing weak leads to it any more; when its
-- guard is, and it does, the state is being closed.
local Guard <const> = {__gc = function(guard)
    if next(guard.objects) ~= nil then
        run_exit()
        return
    end
    for _, finalizer in ipairs(guard.finalizers) do
        finalizer()
    end
end}

local function guard_of(object)
    local guard = guards[object]
    if not guard then
        guard = setmetatable({
            objects = setmetatable({object}, {__mode = "v"}),
            finalizers = {},
        }, Guard)
        guards[object] = guard
    end
    return guard
end

-- What calls the exit when the state is closed. What is older than it is still
-- whole then: so there is a new one for each finalizer.
local exit_guard

local function renew_exit_guard()
    if exit_guard then
        exit_guard.objects = {}
    end
    exit_guard = setmetatable({objects = {M}, finalizers = {}}, Guard)
end

local COLLECTED <const> = {
    table = true, userdata = true, ["function"] = true, thread = true,
}

---@param object any nil, or a table, function, userdata or thread
---@param callback function
---@param args table|nil a list, with `n` honoured
---@param kwargs table|nil bound to the callback's parameters by name
---@param exitpriority integer|nil nil: not called at the exit
-- Raises TypeError; ValueError: neither an object nor a priority.
function Finalize:init(object, callback, args, kwargs, exitpriority, ...)
    local call = require "mp.call"
    require("mp.named").no_more("Finalize", 5, ...)
    if exitpriority ~= nil and not math.tointeger(exitpriority) then
        errors._raise("TypeError",
            "Finalize: exitpriority (%s) must be nil or an integer",
            errors._show(exitpriority))
    elseif object == nil and exitpriority == nil then
        errors._raise("ValueError",
            "Finalize: without object, exitpriority cannot be nil")
    elseif object ~= nil and not COLLECTED[type(object)] then
        errors._raise("TypeError", "Finalize: argument 'object': table, "
            .. "function, userdata or thread expected, got %s",
            errors._show(object))
    end
    require("mp.arguments").check_callable("Finalize", callback, "callback")
    if callback == nil then
        errors._raise("TypeError",
            "Finalize: argument 'callback': function expected, got nil")
    end
    local bound = call.copy_args("Finalize", args)
    if kwargs ~= nil then
        bound = call.bind(callback, bound, call.copy_kwargs("Finalize",
            kwargs))
    end
    made = made + 1
    self._number, self._pid = made, core.getpid()
    self._callback, self._args = callback, bound
    self._priority = math.tointeger(exitpriority)
    waiting[made] = self
    renew_exit_guard()
    if object ~= nil then
        local list = guard_of(object).finalizers
        table.insert(list, 1, self) -- the newest first
    end
end

--- Forgets it; whether it was still to be called.
local function take(finalizer)
    local was = waiting[finalizer._number] == finalizer
    waiting[finalizer._number] = nil
    return was
end

--- Calls the callback, unless it was called or cancelled before.
---@return any ... what it returns
-- Raises what it raises.
function Finalize:__call()
    if not take(self) or self._pid ~= core.getpid() then
        return nil
    end
    local callback, args = self._callback, self._args
    self._callback, self._args = false, false
    return callback(table.unpack(args, 1, args.n))
end

--- It will not be called.
function Finalize:cancel()
    class.check_self("cancel", Finalize, self)
    take(self)
    self._callback, self._args = false, false
end

--- Is it still to be called?
---@return boolean
function Finalize:still_active()
    class.check_self("still_active", Finalize, self)
    return waiting[self._number] == self
end

function Finalize:__tostring()
    if waiting[self._number] ~= self then
        return "<Finalize object, dead>"
    end
    return ("<Finalize object%s>"):format(self._priority and
        ", exitpriority=" .. self._priority or "")
end

-- The exit -------------------------------------------------------------------

--- Those with a priority of at least `least`, in the order in which they are
-- called.
local function due(least)
    local list = {}
    for _, finalizer in pairs(waiting) do
        local priority = finalizer._priority
        if priority and priority >= least then
            list[#list + 1] = finalizer
        end
    end
    table.sort(list, function(a, b)
        if a._priority ~= b._priority then
            return a._priority > b._priority
        end
        return a._number > b._number
    end)
    return list
end

--- Tells of an error, and goes on.
local function report(e)
    io.stderr:write(errors._describe(e, 2), "\n")
end

--- Calls the finalizers with at least this priority; what they make besides,
-- too.
---@param least integer|nil nil: all that have one
function M._run_finalizers(least)
    local list = due(least or math.mininteger)
    while list[1] do
        for _, finalizer in ipairs(list) do
            xpcall(finalizer, report)
        end
        list = due(least or math.mininteger)
    end
end

function run_exit()
    if exiting then
        return
    end
    exiting = core.getpid()
    M._run_finalizers(0)
    core.process.finish()
    M._run_finalizers()
end

--- Does what is done at the exit. For programs that come from Python.
M._exit_function = run_exit

--- Is this process at its exit?
---@return boolean
function M.is_exiting()
    return exiting == core.getpid()
end

renew_exit_guard()
core.process.at_end(run_exit)

-- After a fork ---------------------------------------------------------------

-- object -> {number, function}
local registered <const> = setmetatable({}, {__mode = "k"})
local registrations = 0

--- Calls f(object) in each child that is a copy of this process, as long as
-- the object is not collected; in the order in which they were registered. An
-- error in f is logged and stops nothing.
---@param object any a table, function, userdata or thread
---@param f function
-- Raises TypeError.
function M.register_after_fork(object, f)
    if not COLLECTED[type(object)] then
        errors._raise("TypeError", "register_after_fork: argument 'object': "
            .. "table, function, userdata or thread expected, got %s",
            errors._show(object))
    end
    errors._check("register_after_fork", "f", f, "function")
    registrations = registrations + 1
    local list = registered[object] or {}
    list[#list + 1] = {number = registrations, f = f}
    registered[object] = list
end

--- In a child that is a copy.
function process._after_fork()
    exiting = false
    local all = {}
    for object, list in pairs(registered) do
        for _, entry in ipairs(list) do
            all[#all + 1] = {number = entry.number, f = entry.f,
                object = object}
        end
    end
    table.sort(all, function(a, b)
        return a.number < b.number
    end)
    for _, entry in ipairs(all) do
        local ok, e = pcall(entry.f, entry.object)
        if not ok then
            M.info("after fork: %s", tostring(e))
        end
    end
    for number, finalizer in pairs(waiting) do
        if finalizer._pid ~= core.getpid() then
            waiting[number] = nil
        end
    end
end

-- Files ----------------------------------------------------------------------

--- A directory for temporary files, removed with all that is in it when the
-- process ends that first asked. Copies of that process have the same one.
---@return string path
-- Raises OSError.
function M.get_temp_dir()
    return core.process.tempdir()
end

-- Log lines ------------------------------------------------------------------

local logger <const> = log.get_logger()

--- Log a line, if log_to_stderr was called; more arguments are formatted into
--- it.
---@param message any
function M.sub_debug(message, ...)
    log._log("subdebug", message, ...)
end

---@param message any
function M.debug(message, ...)
    logger:debug(message, ...)
end

---@param message any
function M.info(message, ...)
    logger:info(message, ...)
end

---@param message any
function M.sub_warning(message, ...)
    log._log("subwarning", message, ...)
end

return M
