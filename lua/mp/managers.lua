--- Managers of own classes: objects that live in a server process, whose
-- methods other processes call, of this program or of another one, on this
-- machine or another.
--
--     local Maths = mp.managers.BaseManager:extend("Maths")
--     Maths:register("Counter", Counter)       -- a class, or any callable
--
--     local m <close> = Maths()
--     m:start()
--     local c = m:Counter(5)                   -- a proxy
--     print(c:add(2))
--
-- What is registered must be so before start. Another program that knows
-- address and key registers the names (`register("Counter")`), and connects.
-- (mp.Manager() is something else: its containers need no server.)

local arguments = require "mp.arguments"
local authkey = require "mp.authkey"
local call = require "mp.call"
local class = require "mp.class"
local context = require "mp.context"
local core = require "mp.core"
local errors = require "mp.errors"
local named = require "mp.named"
local process = require "mp.process"
local proxy = require "mp.proxy"
local queue = require "mp.queue"
local wait = require "mp.wait".wait

local M = {
    BaseProxy = proxy.BaseProxy,
    AutoProxy = proxy.AutoProxy,
    IteratorProxy = proxy.IteratorProxy,
    NamespaceProxy = proxy.NamespaceProxy,
    MakeProxyType = proxy.MakeProxyType,
}

--- Seconds that shutdown gives the server, and then each signal.
local SHUTDOWN <const> = 1.0

---@class mp.BaseManager
---@field address string|table|nil where the server listens
local BaseManager = class.new("BaseManager")
M.BaseManager = class.root(BaseManager)

--- The types: typeid -> {callable, proxytype, exposed, method_to_typeid}.
-- A class that registers one gets a table of its own.
BaseManager._registry = {Iterator = {proxytype = proxy.IteratorProxy}}

local PLACES <const> = {
    address = 1, authkey = 2, serializer = 3, ctx = 4, shutdown_timeout = 5,
}

local function check_address(fn, address)
    if address == nil or type(address) == "string" then
        return address
    elseif type(address) == "table" and type(address[1]) == "string"
        and math.type(address[2]) == "integer" then
        return {address[1], address[2]}
    end
    errors._raise("TypeError", "%s: address must be a path or {host, port}, "
        .. "got %s", fn, errors._show(address))
end

local function check_timeout(seconds)
    if seconds == nil then
        return SHUTDOWN
    elseif type(seconds) ~= "number" or seconds ~= seconds then
        errors._raise("TypeError", "BaseManager: shutdown_timeout must be a "
            .. "number of seconds, got %s", errors._show(seconds))
    end
    return seconds
end

--- Takes Python's arguments in Python's order, or one table of named ones:
-- address (a path, {host, port}; nil: one is chosen), authkey (nil: that of
-- this process), serializer ("pickle"), ctx (a context, nil: the default
-- one), shutdown_timeout (seconds, 1).
function BaseManager:init(address, key, serializer, ctx, timeout, ...)
    named.no_more("BaseManager", 5, ...)
    if type(address) == "table" and address[1] == nil then
        named.alone("BaseManager", key, serializer, ctx, timeout)
        address, key, serializer, ctx, timeout =
            named.in_order("BaseManager", address, PLACES, 5)
    end
    if serializer ~= nil and serializer ~= "pickle" then
        errors._raise("ValueError", "BaseManager: serializer must be "
            .. "'pickle', got %s", errors._show(serializer))
    end
    self._address = check_address("BaseManager", address)
    self._authkey = key ~= nil and authkey.bytes(key)
        or tostring(process.current_process().authkey)
    self._method = context._check("BaseManager", ctx)
    self._timeout = check_timeout(timeout)
    self._state = "initial"
end

-- Types ---------------------------------------------------------------------

local REGISTER <const> = {
    typeid = 1, callable = 2, proxytype = 3, exposed = 4,
    method_to_typeid = 5, create_method = 6,
}

local function is_proxy_class(value)
    while type(value) == "table" and value ~= proxy.BaseProxy do
        value = rawget(value, "_base")
    end
    return value == proxy.BaseProxy
end

local function check_names(what, list)
    errors._check("register", what, list, "table")
    for _, name in ipairs(list) do
        errors._check("register", what, name, "string")
    end
    return table.move(list, 1, #list, 1, {})
end

local function check_typeids(given)
    errors._check("register", "method_to_typeid", given, "table")
    local copy = {}
    for name, typeid in pairs(given) do
        if type(name) ~= "string" or type(typeid) ~= "string" then
            errors._raise("TypeError", "register: method_to_typeid must map "
                .. "names of methods to typeids, got %s = %s",
                errors._show(name), errors._show(typeid))
        end
        copy[name] = typeid
    end
    return copy
end

--- Makes an object of a registered type in the server.
local function create(self, typeid, args)
    class.check_self(typeid, BaseManager, self)
    self:_check_running(typeid)
    local answer, link = proxy._ask(self.address,
        {op = "create", typeid = typeid, args = args})
    return proxy._new(answer.proxy, link, self)
end

--- Registers a type with this class of managers: before they start. Called
-- with a colon: M:register(...). Takes Python's arguments in Python's order,
-- or one table of named ones.
---@param typeid string|table its name, that of the method which makes one
---@param callable any|nil makes the object, in the server; nil: another
--   program's server does, or the object is the one argument itself
---@param proxytype table|nil a class of proxies (AutoProxy)
---@param exposed table|nil list of the methods that can be called (nil: the
--   proxytype's `_exposed`, else those without a leading «_»); of operators
--   those that it names: __len, __call, __index, __newindex, __eq, __lt, __le
---@param method_to_typeid table|nil method -> typeid of the proxy to what it
--   returns, which stays in the server
---@param create_method boolean|nil false: there is no method of that name
-- Raises TypeError, ValueError.
function BaseManager:register(typeid, callable, proxytype, exposed,
                              method_to_typeid, create_method, ...)
    named.no_more("register", 6, ...)
    if type(self) ~= "table" or rawget(self, "_get") == nil then
        errors._raise("TypeError", "register: a class of managers expected, "
            .. "got %s (use ':')", errors._show(self))
    end
    if type(typeid) == "table" then
        named.alone("register", callable, proxytype, exposed,
            method_to_typeid, create_method)
        typeid, callable, proxytype, exposed, method_to_typeid,
            create_method = named.in_order("register", typeid, REGISTER, 6)
    end
    errors._check("register", "typeid", typeid, "string")
    arguments.check_callable("register", callable, "callable")
    if proxytype ~= nil and not is_proxy_class(proxytype) then
        errors._raise("TypeError", "register: proxytype must be a class of "
            .. "proxies, got %s", errors._show(proxytype))
    end
    if exposed == nil and proxytype then
        exposed = proxytype._exposed
    end
    if create_method ~= false and (BaseManager[typeid] ~= nil
            or BaseManager._get[typeid]) then
        errors._raise("ValueError", "register: '%s' is a name of the "
            .. "manager's own", typeid)
    end
    if not rawget(self, "_registry") then
        rawset(self, "_registry", setmetatable({}, {
            __index = self._registry}))
    end
    self._registry[typeid] = {
        callable = callable, proxytype = proxytype,
        exposed = exposed and check_names("exposed", exposed),
        method_to_typeid = method_to_typeid
            and check_typeids(method_to_typeid),
    }
    if create_method ~= false then
        self[typeid] = function(manager, ...)
            return create(manager, typeid, table.pack(...))
        end
    end
end

--- All types of a class of managers, those of its bases too, in one table.
local function all_types(self)
    local all, registry = {}, self._registry
    while registry do
        for typeid, registered in next, registry do
            all[typeid] = all[typeid] or registered
        end
        local meta = getmetatable(registry)
        registry = meta and meta.__index
    end
    return all
end

-- The server's process ------------------------------------------------------

--- What the server's process does. `told` is where it says its address, or
-- what kept it from serving.
local function serve(told, types, address, key, initializer, initargs)
    core.process.ignore_interrupts()
    local ok, server = xpcall(function()
        if initializer then
            initializer(table.unpack(initargs, 1, initargs.n))
        end
        return require("mp.server").Server(types, address, key)
    end, function(e)
        return {e, debug.traceback("", 2):gsub("^\n", "")}
    end)
    if not ok then
        local e, traceback = server[1], server[2]
        local text = errors.iserror(e) and e.message or tostring(e)
        told:put{kind = errors.iserror(e) and e.kind or "RemoteError",
            message = text, traceback = traceback, pid = core.getpid()}
        os.exit(1)
    end
    told:put{address = server.address}
    server:serve_forever()
end
M._serve = serve

--- Raises unless the server runs, or can be reached.
---@package
function BaseManager:_check_running(fn)
    if self._state == "initial" then
        errors._raise("StateError", "%s: server not yet started", fn)
    elseif self._state == "shutdown" then
        errors._raise("StateError", "%s: the manager has shut down", fn)
    end
end

local function check_initial(self, fn)
    class.check_self(fn, BaseManager, self)
    if self._state == "shutdown" then
        errors._raise("StateError", "%s: the manager has shut down", fn)
    elseif self._state == "connected" then
        errors._raise("StateError", "%s: the manager has connected", fn)
    elseif self._state ~= "initial" then
        errors._raise("StateError", "%s: Already started server", fn)
    end
end

local function check_starter(self, fn)
    class.check_self(fn, BaseManager, self)
    if not self._process then
        errors._raise("StateError", self._state == "connected"
            and "%s: the server is not this manager's"
            or "%s: server not yet started", fn)
    elseif self._owner ~= core.getpid() then
        errors._raise("StateError", "%s: this manager belongs to the process "
            .. "that started it", fn)
    end
end

--- What the server says of itself; nil when it ended without a word.
local function first_word(told, server)
    repeat
        wait({told, server})
        local ok, word = told:try_get()
        if ok then
            return word
        end
    until not server:is_alive()
    return select(2, told:try_get(0.1))
end

--- Starts the server, in a process of its own.
---@param initializer function|nil is called in it first
---@param initargs table|nil its arguments (`n` honoured)
---@return table self
-- Raises StateError: twice, after shutdown; what the initializer raised;
-- OSError when it cannot listen at the address; EOF when it ended at once.
function BaseManager:start(initializer, initargs, ...)
    check_initial(self, "start")
    named.no_more("start", 2, ...)
    arguments.check_callable("start", initializer, "initializer")
    local args = initargs or {n = 0}
    errors._check("start", "initargs", args, "table")
    local n = call.count("start", args)
    args = table.move(args, 1, n, 1, {n = n})
    local told = queue.SimpleQueue()
    local server = context.get_context(self._method).Process{
        target = M._serve, name = getmetatable(self).__name .. "Server",
        args = {told, all_types(self), self._address or false,
            self._authkey, initializer or false, args, n = 6}, daemon = true,
    }
    server:start()
    -- Who is interrupted while he waits for it leaves none behind.
    local waiting <close> = setmetatable({}, {__close = function()
        if not self._process then
            server:kill()
            server:join()
        end
    end})
    local word = first_word(told, server)
    told:close()
    if not word or not word.address then
        server:join()
        word = type(word) == "table" and word or {kind = "EOF",
            message = "start: the server ended before it said its address"}
        local e = errors._new(word.kind, word.message,
            {traceback = word.traceback, pid = word.pid})
        error(e, 0)
    end
    self._process, self._owner = server, core.getpid()
    self._address, self._state = word.address, "started"
    proxy._know(word.address, self._authkey)
    return self
end

--- Connects to a server that another process has started.
---@return table self
-- Raises AuthenticationError; OSError, EOF when nobody serves there.
function BaseManager:connect(...)
    check_initial(self, "connect")
    named.no_more("connect", 0, ...)
    if not self._address then
        errors._raise("ValueError", "connect: the manager has no address")
    end
    proxy._connect(self._address, self._authkey)
    self._state = "connected"
    return self
end

--- The server, to be run by this process: `get_server():serve_forever()`.
---@return table mp.Server: address, serve_forever
function BaseManager:get_server(...)
    check_initial(self, "get_server")
    named.no_more("get_server", 0, ...)
    return require("mp.server").Server(all_types(self),
        self._address or false, self._authkey)
end

--- Waits for the server's end.
---@param timeout number|nil seconds
---@return boolean whether it ended
function BaseManager:join(timeout, ...)
    check_starter(self, "join")
    named.no_more("join", 1, ...)
    return self._process:join(timeout)
end

--- Ends the server: asks it, and if it is still there after the manager's
-- shutdown_timeout, terminates, and at last kills it. Safe to call twice.
function BaseManager:shutdown(...)
    check_starter(self, "shutdown")
    named.no_more("shutdown", 0, ...)
    if self._state == "shutdown" then
        return
    end
    self._state = "shutdown"
    local server = self._process
    if server:is_alive() then
        pcall(proxy._ask, self._address, {op = "shutdown"}, self._timeout)
    end
    proxy._forget(self._address)
    if not server:join(self._timeout) then
        server:terminate()
        if not server:join(SHUTDOWN) then
            server:kill()
            server:join()
        end
    end
    -- Who was killed has left its path.
    if server.exitcode ~= 0 and type(self._address) == "string"
        and self._address:sub(1, 1) ~= "\0" then
        os.remove(self._address)
    end
end

--- The end of a manager's block: of the server that it started.
function BaseManager:__close()
    if self._process and self._owner == core.getpid() then
        self:shutdown()
    end
end

--- Who forgets it ends the server, too: a proxy remembers its manager.
function BaseManager:__gc()
    local server = rawget(self, "_process")
    if server and self._owner == core.getpid()
        and self._state ~= "shutdown" then
        pcall(server.terminate, server)
    end
end

--- nil before the start.
function BaseManager._get:address()
    return self._state ~= "initial" and self._address or nil
end

function BaseManager:__tostring()
    return ("<%s %s%s>"):format(getmetatable(self).__name, self._state,
        self.address and " " .. proxy._show_address(self.address) or "")
end

--- It is another process's to use its proxies, not to shut it down.
function BaseManager:__reduce()
    authkey.check_travel()
    return M._arrive, getmetatable(self), self._address, self._authkey,
        self._state
end

--- A manager that was sent here.
function M._arrive(of, address, key, state)
    local self = setmetatable({}, of)
    self._address, self._authkey = address, key
    self._state = state == "started" and "connected" or state
    self._timeout = SHUTDOWN
    if address and state ~= "initial" then
        proxy._know(address, key)
    end
    return self
end

--- How many objects of the server are held by somebody.
---@return integer
function BaseManager:_number_of_objects()
    self:_check_running("_number_of_objects")
    return proxy._ask(self.address, {op = "count"}).values[1]
end

--- A text on each of them: how many hold it, its type, how it shows itself.
---@return string
function BaseManager:_debug_info()
    self:_check_running("_debug_info")
    return proxy._ask(self.address, {op = "debug"}).values[1]
end

-- Ready-made types ----------------------------------------------------------

--- A manager of what mp.Manager() makes, for programs that do not share their
-- memory: on another machine, say.
local SyncManager = BaseManager:extend("SyncManager")
M.SyncManager = SyncManager

local function maker(name)
    return function(...)
        return require("mp")[name](...)
    end
end

for _, name in ipairs{"Queue", "JoinableQueue", "SimpleQueue", "Lock",
        "Semaphore", "BoundedSemaphore", "Event"} do
    SyncManager:register(name, maker(name))
end

M.SharedMemoryManager = require("mp.shared_memory").SharedMemoryManager

return M
