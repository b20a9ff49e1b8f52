-- Twin of the module tour's class: a process by its own `run`, which
-- `start` calls in the child.

local mp = require "mp"

local MyProcess = mp.Process:extend("MyProcess")

function MyProcess:run()
    local name = mp.current_process().name
    local pid = mp.current_process().pid
    print("name:" .. name .. ", pid:" .. pid)
end

local p = MyProcess()
p:start()
p:join()
