-- Twin of the notes' results by a queue: two processes put what they have
-- computed, the main process prints both.

local mp = require "mp"

local function job(q)
    local result = 0
    for i = 0, 999 do
        result = result + i + i * i
    end
    q:put(result)
end

local q = mp.Queue()
local p1 = mp.Process{target = job, args = {q}}
local p2 = mp.Process{target = job, args = {q}}
p1:start()
p2:start()
p1:join()
p2:join()
local result1 = q:get()
print(result1)
local result2 = q:get()
print(result2)
print("All done!")
