--- mp on threads: every constructor of mp, with threads for processes.
--
-- `require "mp.dummy"` stands where `require "mp"` stood, and the program's
-- processes are threads of one process, each with a Lua state of its own. What
-- they are given is copied as for a process; what mp shares, they share. As
-- in Python's multiprocessing.dummy, the exit code of one that has ended is 0,
-- however it ended.

local class = require "mp.class"
local context = require "mp.context"
local process = require "mp.process"

local threads = context.get_context("thread")

local M = {}

-- Process --------------------------------------------------------------------

--- A thread that poses as a process.
local Process = class.new("Process", process.Process)
Process._method = "thread"

local exitcode = process.Process._get.exitcode

--- nil before the start and while it runs, then 0.
function Process._get:exitcode()
    return exitcode(self) and 0 or nil
end

--- The class. It travels by this function.
---@return table
function M._process_class()
    return Process
end

M.Process = class.by_name(Process, M._process_class)

--- What the other modules call it.
M.DummyProcess = Process

-- Manager --------------------------------------------------------------------

local Manager -- made when it is first asked for

--- mp's Manager, whose Pool has threads.
function M.Manager(...)
    if not Manager then
        Manager = class.new("Manager", require("mp.manager").Manager)
        function Manager.Pool(_, ...)
            return threads.Pool(...)
        end
    end
    return Manager(...)
end

--- Makes M[name](...) what a manager makes by that name.
local function from_manager(name)
    M[name] = function(...)
        local manager = M.Manager()
        return manager[name](manager, ...)
    end
end

from_manager("dict")
from_manager("list")
from_manager("Namespace")

--- Does nothing: there is nothing to end.
function M.shutdown() end

return setmetatable(M, {__index = threads, __name = "mp.dummy"})
