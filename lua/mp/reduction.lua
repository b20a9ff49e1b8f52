--- Descriptors on their way between processes; and the pickler by the names of
-- Python's multiprocessing.reduction.
--
-- A DupFd owns a duplicate of a descriptor and can be sent wherever a
-- connection can: as an argument, through a queue, over a connection of this
-- machine. Each who receives it has a duplicate of his own:
--   d:fileno()     its number
--   d:detach()     its number; it is the caller's from now on
--   d:close()      safe to call twice; so does `<close>`
-- It travels as often as it is sent, and is open until it is closed.

local core = require "mp.core"
local errors = require "mp.errors"
local named = require "mp.named"
local pickle = require "mp.pickle"

local M = {
    --- Can descriptors be sent here?
    HAVE_SEND_HANDLE = true,

    --- The pickler: register(name, metatable [, reduce, rebuild]), dumps,
    --- loads.
    ForkingPickler = pickle,
}

--- A duplicate of a descriptor that can be sent.
---@param fd integer
---@return userdata DupFd
-- Raises TypeError, ValueError, OSError when it is not open.
function M.DupFd(fd, ...)
    named.no_more("DupFd", 1, ...)
    return core.DupFd(fd)
end

local function check_connection(fn, conn)
    if not core.connection.is(conn) then
        errors._check(fn, "conn", conn, "Connection")
    end
end

--- Sends a duplicate of a descriptor over a connection.
---@param conn userdata Connection of this machine
---@param handle integer the descriptor, which stays the caller's
---@param _ any for programs that name the receiver's process
-- Raises TypeError, what send raises; PicklingError over one that has none.
function M.send_handle(conn, handle, _, ...)
    named.no_more("send_handle", 3, ...)
    check_connection("send_handle", conn)
    local dup <close> = core.DupFd(handle)
    conn:send(dup)
end

--- Receives what send_handle has sent.
---@param conn userdata Connection
---@return integer descriptor, the caller's
-- Raises what recv raises; TypeError when something else came.
function M.recv_handle(conn, ...)
    named.no_more("recv_handle", 1, ...)
    check_connection("recv_handle", conn)
    local got = conn:recv()
    if type(got) ~= "userdata" or (getmetatable(got) or {}).__name ~= "DupFd"
    then
        errors._raise("TypeError", "recv_handle: a descriptor expected, got "
            .. "%s", errors._show(got))
    end
    return got:detach()
end

--- Writes the pickle of a value to a file.
---@param value any
---@param file file*
-- Raises PicklingError, or what the file says.
function M.dump(value, file, ...)
    named.no_more("dump", 2, ...)
    local ok, message, number = file:write(pickle.dumps(value))
    if not ok then
        error(core.error.new("OSError", "dump: " .. message,
            {errno = number}), 0)
    end
end

return M
