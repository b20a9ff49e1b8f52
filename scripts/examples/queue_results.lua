-- Twin of the introduction's queue program: a process has no return value,
-- so each of two puts its result into a queue; the main process adds them.

local mp = require "mp"

local function job(q)
    local res = 0
    for i = 0, 999 do
        res = res + i + i * i + i * i * i
    end
    q:put(res)
end

local q = mp.Queue()
local p1 = mp.Process{target = job, args = {q}}
local p2 = mp.Process{target = job, args = {q}}
p1:start()
p2:start()
p1:join()
p2:join()
local res1 = q:get()
local res2 = q:get()
print(res1 + res2)
