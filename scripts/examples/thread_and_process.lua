-- Twin of the introduction's second program: a thread and a process are made
-- and used in the same way.

local mp = require "mp"
local td = require "mp.threading"

local function job(a, d)
    print("aaaaa")
end

local t1 = td.Thread{target = job, args = {1, 2}}
local p1 = mp.Process{target = job, args = {1, 2}}
t1:start()
p1:start()
t1:join()
p1:join()
