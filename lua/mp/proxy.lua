--- Proxies: objects of a manager's server, as other processes see them.
--
-- A proxy calls methods over a connection of its process to the server, one
-- for all its proxies. The server counts who holds an object: a proxy that is
-- collected is let go with the next call, those of a process that ends when
-- its connection does. An object that nobody holds is kept for some seconds
-- (mp.holdings), in which another process may take up the proxy that it was
-- sent.
--
-- What is asked has a number, and so has the answer to it: who was
-- interrupted while it waited can go on asking.

local authkey = require "mp.authkey"
local call = require "mp.call"
local class = require "mp.class"
local connection = require "mp.connection"
local core = require "mp.core"
local errors = require "mp.errors"
local process = require "mp.process"

local M = {}

-- Connections ---------------------------------------------------------------

--- How an address is written; equal for equal addresses.
---@param address string|table
---@return string
function M._show_address(address)
    if type(address) == "table" then
        return ("%s:%s"):format(address[1], address[2])
    end
    return address
end

-- This process's connections, and the keys that it knows, by address.
--   pid      whose connection it is: a forked child makes its own
--   asked    number of the last question
--   open     number -> true, or the answer, of what is waited for
--   dropped  ids of objects that proxies let go, not yet told
local links <const>, keys <const> = {}, {}

-- The server that this process is, if it is one: its own objects are no
-- proxies here.
local server

--- Notes the key by which the server at `address` knows us.
---@param address string|table
---@param key string
function M._know(address, key)
    keys[M._show_address(address)] = key
end

--- This process is a server from now on (false: no longer).
---@param of table|false
function M._serves(of)
    server = of
end

local function key_of(address)
    return keys[M._show_address(address)]
        or tostring(process.current_process().authkey)
end

--- This process's connection, if it has one.
local function link_at(name)
    local link = links[name]
    if link and link.pid ~= core.getpid() then
        link.connection:close() -- this process's copy of it
        links[name], link = nil, nil
    end
    return link
end

local function new_link(address, name, key)
    local link = {
        connection = connection.Client(address, nil, key),
        pid = core.getpid(), asked = 0, open = {}, dropped = {}, name = name,
    }
    links[name] = link
    return link
end

local function link_to(address)
    local name = M._show_address(address)
    return link_at(name) or new_link(address, name, key_of(address))
end

--- Shows the server that we know its key.
---@param address string|table
---@param key string
-- Raises AuthenticationError, OSError, EOF.
function M._connect(address, key)
    local name = M._show_address(address)
    if link_at(name) then -- what others go on with
        connection.Client(address, nil, key):close()
    else
        new_link(address, name, key)
    end
    keys[name] = key
end

local function close_link(link)
    link.connection:close()
    if links[link.name] == link then
        links[link.name] = nil
    end
end

--- Ends this process's connection to a server, if there is one.
function M._forget(address)
    local link = links[M._show_address(address)]
    if link and link.pid == core.getpid() then
        close_link(link)
    end
end

--- An answer that nobody waits for any more.
local function discard(link, answer)
    if answer.proxy then
        table.insert(link.dropped, answer.proxy.id)
    end
end

--- Receives until the answer to question `n` is there; nil: not in time.
local function receive(link, n, timeout)
    local last = timeout and core.monotonic() + timeout
    while link.open[n] == true do
        local left = last and last - core.monotonic()
        if left and not link.connection:poll(math.max(left, 0)) then
            return nil
        end
        local answer = link.connection:recv()
        if link.open[answer.n] then
            link.open[answer.n] = answer
        else
            discard(link, answer)
        end
    end
    return link.open[n]
end

--- Is over, one way or another: what an interrupt has left is called off.
local function settle(link, n)
    local waits = link.open[n] == true
    link.open[n] = nil
    if waits and not link.connection.closed then
        if not pcall(link.connection.send, link.connection,
                {op = "cancel", n = n}) then
            close_link(link)
        end
    end
end

local GONE <const> = {EOF = true, BrokenPipe = true, OSError = true}

--- Asks the server; raises what keeps it from answering.
local function ask(link, question, timeout)
    link.asked = link.asked + 1
    local n = link.asked
    question.n = n
    if #link.dropped > 0 then
        question.drop, link.dropped = link.dropped, {}
    end
    link.open[n] = true
    local settled <close> = setmetatable({}, {__close = function()
        settle(link, n)
    end})
    local ok, answer = pcall(function()
        link.connection:send(question)
        return receive(link, n, timeout)
    end)
    if ok then
        return answer
    end
    if errors.iserror(answer) and GONE[answer.kind] then
        close_link(link)
    elseif question.drop then -- it has not been sent, or will be twice
        for _, id in ipairs(question.drop) do
            table.insert(link.dropped, id)
        end
    end
    error(answer, 0)
end

--- Asks the server at `address`.
---@param address string|table
---@param question table op, ...
---@param timeout number|nil seconds; nil waits for ever
---@return table|nil answer nil: not in time
---@return table link
-- Raises what the server raised; EOF, BrokenPipe, OSError when it is gone.
function M._ask(address, question, timeout)
    local link = link_to(address)
    local answer = ask(link, question, timeout)
    if answer and answer.error ~= nil then
        errors._arrive(answer.error)
    end
    return answer, link
end

-- Proxies -------------------------------------------------------------------

---@class mp.BaseProxy
---@field private _token table typeid, address, id
---@field private _link table|nil over which the server knows that we hold it
local BaseProxy = class.new("BaseProxy")
M.BaseProxy = class.root(BaseProxy)

-- typeid -> class of proxies, where the manager is not known.
local PROXIES <const> = {}

--- A proxy of what an answer names; `link` holds it already.
---@param token table typeid, address, id
---@param link table|nil
---@param manager table|nil
---@return table
function M._new(token, link, manager)
    local registered = manager and manager._registry[token.typeid]
    local of = registered and registered.proxytype or PROXIES[token.typeid]
        or M.AutoProxy
    local proxy = setmetatable({_manager = manager}, of)
    rawset(proxy, "_token", token)
    rawset(proxy, "_link", link)
    return proxy
end

local function check_self(fn, self)
    class.check_self(fn, BaseProxy, self)
end

--- Calls a method of the object in the server.
---@param name string
---@param args table|nil list, `n` honoured
---@param kwargs table|nil {name = value}, bound to the method's parameters
---@return any ...
-- Raises what the method raises, with the server's traceback (an error
-- object keeps its kind, what else was raised is a RemoteError); EOF,
-- BrokenPipe, OSError when the server is gone.
function BaseProxy:_callmethod(name, args, kwargs)
    check_self("_callmethod", self)
    errors._check("_callmethod", "methodname", name, "string")
    args = call.copy_args("_callmethod", args)
    local token = rawget(self, "_token")
    local link = link_to(token.address)
    local question = {
        op = "call", id = token.id, name = name, args = args,
        kwargs = call.copy_kwargs("_callmethod", kwargs),
        hold = rawget(self, "_link") ~= link or nil,
    }
    local answer = ask(link, question)
    if answer.held then
        rawset(self, "_link", link)
    end
    if answer.error ~= nil then
        errors._arrive(answer.error)
    elseif answer.proxy then
        return M._new(answer.proxy, link, rawget(self, "_manager"))
    end
    return table.unpack(answer.values, 1, answer.values.n)
end

--- A copy of the object.
---@return any
function BaseProxy:_getvalue()
    check_self("_getvalue", self)
    return (self:_callmethod("#value"))
end

--- How the object shows itself; where it cannot be asked, how the proxy does.
function BaseProxy:__tostring()
    local ok, text = pcall(BaseProxy._callmethod, self, "#tostring")
    if ok then
        return text
    end
    return ("<%s object, typeid '%s'; '__tostring' failed>"):format(
        getmetatable(self).__name, rawget(self, "_token").typeid)
end

--- Lets the object go: told to the server with the next question.
function BaseProxy:__gc()
    local link, token = rawget(self, "_link"), rawget(self, "_token")
    if link and link.pid == core.getpid() then
        table.insert(link.dropped, token.id)
    end
end

--- Makes a proxy that was sent here; in the server, finds the object itself.
---@param of table its class
---@param token table
---@param key string|nil
---@return any
function M._rebuild(of, token, key)
    if server and server.address_name == M._show_address(token.address) then
        return server:_object(token.id)
    end
    if key then
        M._know(token.address, key)
    end
    local proxy = setmetatable({}, of)
    rawset(proxy, "_token", token)
    return proxy
end

function BaseProxy:__reduce()
    local token = rawget(self, "_token")
    local key = keys[M._show_address(token.address)]
    -- A process that is being started is told the key, nobody else.
    if not pcall(authkey.check_travel) then
        key = nil
    end
    return M._rebuild, getmetatable(self), token, key
end

-- Classes of proxies --------------------------------------------------------

--- A method that is called in the server.
local function caller(name)
    return function(self, ...)
        check_self(name, self)
        return self:_callmethod(name, table.pack(...))
    end
end

--- Fills a class of proxies with methods that are called in the server.
---@param of table
---@param exposed table list of names
---@return table of
local function give_methods(of, exposed)
    for _, name in ipairs(exposed) do
        of[name] = caller(name)
    end
    return of
end

--- A class of proxies with just these methods.
---@param name string
---@param exposed table list of the methods' names
---@return table
function M.MakeProxyType(name, exposed)
    errors._check("MakeProxyType", "name", name, "string")
    errors._check("MakeProxyType", "exposed", exposed, "table")
    return give_methods(BaseProxy:extend(name), exposed)
end

--- Proxies with any method that the server lets them call.
local AutoProxy = BaseProxy:extend("AutoProxy")
M.AutoProxy = AutoProxy

local callers <const> = {}

--- What a class of them has not, is a method, unless it begins with «_».
getmetatable(AutoProxy).__index = function(_, name)
    local own = BaseProxy[name]
    if own ~= nil or type(name) ~= "string" or name:sub(1, 1) == "_" then
        return own
    end
    callers[name] = callers[name] or caller(name)
    return callers[name]
end

give_methods(AutoProxy, {"__call"})

function AutoProxy:__len()
    return (self:_callmethod("__len"))
end

--- Proxies of iterators: `for v in proxy do`.
local IteratorProxy = BaseProxy:extend("IteratorProxy")
M.IteratorProxy = give_methods(IteratorProxy, {"__call"})
PROXIES.Iterator = IteratorProxy

--- The next values.
---@return any ...
function IteratorProxy:next()
    return self:_callmethod("__call")
end

--- Proxies of objects with fields: p.x reads, p.x = 1 writes. A name that
-- begins with «_» is the proxy's own.
local NamespaceProxy = BaseProxy:extend("NamespaceProxy")
M.NamespaceProxy = NamespaceProxy

local function is_own(key)
    return type(key) == "string" and key:sub(1, 1) == "_"
end

function NamespaceProxy:__index(key)
    if is_own(key) then
        return NamespaceProxy[key]
    end
    return (self:_callmethod("__index", {key}))
end

function NamespaceProxy:__newindex(key, value)
    if is_own(key) then
        rawset(self, key, value)
    else
        self:_callmethod("__newindex", {key, value, n = 2})
    end
end

return M
