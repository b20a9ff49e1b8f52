--- mp.debug: how the memory is that the processes of a program share.

local core = require "mp.core"

local M = {}

--- Checks every invariant of the shared memory: that each block belongs to
-- exactly one thing, that each object has as many holders as it counts, that
-- queues, pools and all that processes wait on are whole, and that no lock is
-- held by somebody who never was. Other processes may run on meanwhile; what
-- they are changing just now is not judged. Takes some 10 microseconds and
-- more as the memory grows; twentieths of a second when something is wrong.
---@return boolean ok
---@return string[]? findings a line each: where, what was found, what was
-- expected
-- Raises OSError when there is no memory for it.
M.fsck = core.debug.fsck

--- Bytes of shared memory in use, by whoever lives.
---@return integer
M.arena_bytes = core.debug.arena_bytes

--- Number of shared objects: locks, queues, pools and so on.
---@return integer
M.objects = core.debug.objects

return M
