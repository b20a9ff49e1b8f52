--- Connections: messages between two processes, over a pipe or a socket.
--
-- A message is a value (send, recv: anything that mp.pickle takes) or bytes;
-- it arrives whole, once, and apart from the others. Methods of a Connection:
--   c:send(value)              blocks while the other end reads too little;
--                              raises BrokenPipe when that is closed, and
--                              PicklingError before anything is sent
--   c:recv()                   the next value; raises EOF when the other end
--                              is closed and nothing is left
--   c:try_recv([timeout])      true, value, or false and "TimeoutError" or
--                              "EOF"; without a timeout, at once
--   c:poll([timeout])          is there something to receive, be it the end?
--                              poll() is at once, poll(nil) waits for ever
--   c:send_bytes(s [, offset [, size]])   of a string or a shared array;
--                              offset in bytes, from 0
--   c:recv_bytes([maxlength])  a string. A longer message raises OSError «bad
--                              message length», and nothing can be received
--                              any more
--   c:recv_bytes_into(array [, offset])   into a shared array, offset in bytes
--                              from 0; the number of bytes. BufferTooShort
--                              has the message as `data`
--   c:fileno()                 the descriptor: to be polled, by others too
--   c:close()                  safe to call twice; so does `<close>`
-- Fields: closed, readable, writable.
--
-- A connection belongs to a process: a copy in a forked child is another one,
-- and the other end sees the end of it when all are closed. One at a time
-- should send to one end, and one receive from it; over a Pipe several may,
-- and each message goes to one of them. Connections travel: as arguments, in
-- queues, over other connections of the same machine.
--
-- Functions and calls of what is not registered are received only from the
-- own family of processes, and from a peer that has proved that it knows the
-- authkey; shared objects of mp only within the family. Who sends one keeps
-- it until it has arrived, or until he ends.

local authkey = require "mp.authkey"
local class = require "mp.class"
local core = require("mp.core").connection
local errors = require "mp.errors"
local named = require "mp.named"
local random = require("mp.core").random

local M = {}

local PIPE <const> = {duplex = 1}
local CONNECTION <const> = {handle = 1, readable = 2, writable = 3}

local function flag(fn, name, value)
    if value == nil then
        return true
    end
    return errors._check(fn, name, value, "boolean")
end

--- The two ends of a new pipe, for processes of this program.
---@param duplex boolean|table|nil false: the first one only receives, and the
--   second only sends. Or named arguments: duplex
---@return userdata Connection
---@return userdata Connection
-- Raises TypeError, OSError when there is no descriptor left.
function M.Pipe(duplex, ...)
    named.no_more("Pipe", 1, ...)
    if type(duplex) == "table" then
        duplex = named.in_order("Pipe", duplex, PIPE, 1)
    end
    return core.Pipe(flag("Pipe", "duplex", duplex))
end

--- A connection over a descriptor that the program has from elsewhere: one
-- of a connected stream socket, or of a pipe, which goes one way only. It
-- owns it: close closes it. The peer may be Python's
-- multiprocessing.connection.
---@param handle integer|table the descriptor; or named arguments: handle,
--   readable, writable
---@param readable boolean|nil default true
---@param writable boolean|nil default true
---@return userdata Connection
-- Raises ValueError, TypeError, OSError.
function M.Connection(handle, readable, writable, ...)
    named.no_more("Connection", 3, ...)
    if type(handle) == "table" then
        named.alone("Connection", readable, writable)
        handle, readable, writable =
            named.in_order("Connection", handle, CONNECTION, 3)
    end
    readable = flag("Connection", "readable", readable)
    writable = flag("Connection", "writable", writable)
    if not readable and not writable then
        errors._raise("ValueError", "Connection: at least one of `readable` "
            .. "and `writable` must be true")
    end
    return core.Connection(handle, readable, writable)
end

-- Addresses ------------------------------------------------------------------

--- The families of addresses, the default one first.
M.families = {"AF_UNIX", "AF_INET", "AF_INET6"}
M.default_family = "AF_UNIX"

local function check_family(fn, family)
    for _, name in ipairs(M.families) do
        if name == family then
            return family
        end
    end
    if family == "AF_PIPE" then
        errors._raise("ValueError", "%s: Family AF_PIPE is not recognized.",
            fn)
    end
    errors._raise("ValueError", "%s: unrecognized family: %s", fn,
        errors._show(family))
end

local function family_of(fn, address)
    if type(address) == "string" then
        return "AF_UNIX"
    elseif type(address) == "table" and type(address[1]) == "string"
        and math.type(address[2]) == "integer" then
        return address[1]:find(":", 1, true) and "AF_INET6" or "AF_INET"
    end
    errors._raise("ValueError", "%s: address type of %s unrecognized (a path "
        .. "or {host, port} expected)", fn, errors._show(address))
end

--- The family of an address: a path or an abstract name, which begins with
-- "\\0" ("AF_UNIX"), or {host, port} ("AF_INET"; with a colon in the host
-- "AF_INET6").
---@param address string|table
---@return string
-- Raises ValueError «address type of 5 unrecognized».
function M.address_type(address)
    return family_of("address_type", address)
end

--- An address that a Listener can have: port 0 stands for any.
---@param family string
---@return string|table
-- Raises ValueError.
function M.arbitrary_address(family)
    check_family("arbitrary_address", family)
    if family == "AF_UNIX" then
        return require("mp.util").get_temp_dir() .. "/listener-"
            .. random():gsub(".", function(c)
                return string.format("%02x", c:byte())
            end):sub(1, 16)
    end
    return {family == "AF_INET" and "127.0.0.1" or "::1", 0}
end

--- An address in the core's words: family, name or host, port.
local function take_apart(fn, address, family)
    local own = family_of(fn, address)
    if family ~= nil and own ~= check_family(fn, family)
        and (own == "AF_UNIX" or family == "AF_UNIX") then
        errors._raise("ValueError", "%s: %s is no address of family %s", fn,
            type(address) == "table" and "{host, port}" or "a path", family)
    end
    if own == "AF_UNIX" then
        return own, address, 0
    end
    local port = address[2]
    if port < 0 or port > 65535 then
        errors._raise("ValueError", "%s: port must be 0 to 65535, got %d",
            fn, port)
    end
    return family or own, address[1], port
end

-- Listener and Client --------------------------------------------------------

local BACKLOG <const> = 128 -- who has connected and was not looked at yet
local PATIENCE <const> = 20 -- seconds

local LISTENER <const> = {
    address = 1, family = 2, backlog = 3, authkey = 4, handshake_timeout = 5,
}
local CLIENT <const> = {address = 1, family = 2, authkey = 3, timeout = 4}

local function is_named(value)
    return type(value) == "table" and value[1] == nil
end

local function key_of(key)
    return key ~= nil and authkey.bytes(key) or nil
end

local function seconds(fn, name, value)
    if type(value) ~= "number" or not (value > 0 and value < 1e9) then
        errors._raise(type(value) == "number" and "ValueError" or "TypeError",
            "%s: %s must be a positive number of seconds, got %s", fn, name,
            errors._show(value))
    end
    return value
end

--- Waits at an address for others to connect. Methods and fields:
--   l:accept([timeout])   the Connection of the next one; with a key, of the
--                         next who has proved that he knows it. Raises
--                         AuthenticationError of one who has not (l can be
--                         used on), TimeoutError, OSError when it is closed
--   l:close()             removes the path, too; safe to call twice, and so
--                         does `<close>`
--   l.address             where it listens; nil once it is closed
--   l.last_accepted       {host, port} of the last one; nil for a path
-- Handshakes with several callers go on at a time, so one that is silent
-- keeps nobody waiting; it is dropped after `handshake_timeout`.
---@param address string|table|nil a path, "\\0" and a name, {host, port}; nil:
--   a path in a directory of this program's. Or named arguments
---@param family string|nil nil: as the address is
---@param backlog integer|nil how many may have connected and not be accepted
--   yet; default 128
---@param key string|table|nil authkey; the empty string is a key, too
---@param patience number|nil handshake_timeout in seconds, default 20
---@return userdata Listener
-- Raises ValueError, TypeError «authkey should be a byte string», OSError
-- (EADDRINUSE and the like).
function M.Listener(address, family, backlog, key, patience, ...)
    named.no_more("Listener", 5, ...)
    if is_named(address) then
        named.alone("Listener", family, backlog, key, patience)
        address, family, backlog, key, patience =
            named.in_order("Listener", address, LISTENER, 5)
    end
    key = key_of(key)
    if address == nil then
        address = M.arbitrary_address(
            check_family("Listener", family or M.default_family))
    end
    local own, name, port = take_apart("Listener", address, family)
    if backlog == nil then
        backlog = BACKLOG
    end
    patience = patience == nil and PATIENCE
        or seconds("Listener", "handshake_timeout", patience)
    return core.listen(own, name, port, backlog, key, patience)
end

--- Connects to a Listener, or Python's.
---@param address string|table as for Listener; or named arguments
---@param family string|nil
---@param key string|table|nil authkey: both sides prove that they know it
---@param timeout number|nil for all of it, in seconds; nil: for ever
---@return userdata Connection
-- Raises OSError (code "ECONNREFUSED", "ENOENT", ...), AuthenticationError,
-- EOF when the other side hangs up, TimeoutError, ValueError, TypeError.
function M.Client(address, family, key, timeout, ...)
    named.no_more("Client", 4, ...)
    if is_named(address) then
        named.alone("Client", family, key, timeout)
        address, family, key, timeout =
            named.in_order("Client", address, CLIENT, 4)
    end
    key = key_of(key)
    local own, name, port = take_apart("Client", address, family)
    return core.connect(own, name, port, key, timeout)
end

--- Wants the other end to prove that it knows the key. Once it has, code is
-- taken from it.
---@param connection userdata Connection
---@param key string|table
---@param digest_name string|nil "sha256" (default) or "md5"
-- Raises AuthenticationError «digest received was wrong», EOF, TypeError.
function M.deliver_challenge(connection, key, digest_name, ...)
    named.no_more("deliver_challenge", 3, ...)
    if digest_name == nil then
        digest_name = "sha256"
    end
    errors._check("deliver_challenge", "digest_name", digest_name, "string")
    core.deliver_challenge(connection, authkey.bytes(key), digest_name)
end

--- Proves to the other end that this one knows the key.
---@param connection userdata Connection
---@param key string|table
-- Raises AuthenticationError «digest sent was rejected», EOF, TypeError.
function M.answer_challenge(connection, key, ...)
    named.no_more("answer_challenge", 2, ...)
    core.answer_challenge(connection, authkey.bytes(key))
end

-- For programs that come from Python -----------------------------------------

local Wrapper = class.root(class.new("ConnectionWrapper"))

--- A connection whose values go by other functions than mp.pickle's.
---@param connection userdata Connection
---@param dumps function value -> string
---@param loads function string -> value
function Wrapper:init(connection, dumps, loads, ...)
    named.no_more("ConnectionWrapper", 3, ...)
    if not core.is(connection) then
        errors._check("ConnectionWrapper", "connection", connection,
            "Connection")
    end
    errors._check("ConnectionWrapper", "dumps", dumps, "function")
    errors._check("ConnectionWrapper", "loads", loads, "function")
    self._conn, self._dumps, self._loads = connection, dumps, loads
end

function Wrapper:send(value)
    self._conn:send_bytes(self._dumps(value))
end

function Wrapper:recv()
    return self._loads(self._conn:recv_bytes())
end

for _, name in ipairs{"fileno", "close", "poll", "recv_bytes", "send_bytes"} do
    Wrapper[name] = function(self, ...)
        return self._conn[name](self._conn, ...)
    end
end

Wrapper.__close = Wrapper.close

M.ConnectionWrapper = Wrapper

--- Waits for the first of many things: see mp.wait.
function M.wait(...)
    return require("mp.wait").wait(...)
end

return M
