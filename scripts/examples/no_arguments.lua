-- Twin of the notes' first processes: two of them, without arguments.

local mp = require "mp"

local function job()
    print("a process without arguments")
end

local p1 = mp.Process{target = job, args = {}}
local p2 = mp.Process{target = job, args = {}}
p1:start()
p2:start()
p1:join()
p2:join()
