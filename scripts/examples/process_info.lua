-- Twin of the module tour's attributes: the number and the name of the
-- process that asks, and what the parent knows of its child.

local mp = require "mp"

local function f(q)
    local current = mp.current_process()
    q:put({pid = current.pid, name = current.name})
end

print("main: name:" .. mp.current_process().name
      .. ", pid:" .. mp.current_process().pid)

local q = mp.Queue()
local p = mp.Process{target = f, args = {q}}
print("before: ", p.pid, p.exitcode, p.daemon)
p:start()
local told = q:get()
p:join()
print("child: name:" .. told.name .. ", pid:" .. told.pid)
print("known: name:" .. p.name .. ", pid:" .. p.pid)
print("after: ", p.exitcode, p:is_alive())
