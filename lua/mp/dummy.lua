--- mp on threads: every constructor of mp, with threads for processes.
--
-- `require "mp.dummy"` stands where `require "mp"` stood, and the program's
-- processes are threads of one process, each with a Lua state of its own. What
-- they are given is copied as for a process; what mp shares, they share.

local context = require "mp.context"

local threads = context.get_context("thread")

local M = {
    --- What the other modules call a thread that poses as a process.
    DummyProcess = threads.Process,
}

return setmetatable(M, {__index = threads, __name = "mp.dummy"})
