-- Twin of the module tour's barrier: nobody passes before all three have
-- come; `wait` tells each a number of its own. (The tutorial gives the
-- constructor, without a program.)

local mp = require "mp"

local function job(barrier, arrived, q)
    arrived:add(1)
    local rank = barrier:wait()
    q:put({rank = rank, seen = arrived.value})
end

local barrier = mp.Barrier(3)
local arrived = mp.Value("i", 0)
local q = mp.Queue()
local processes = {}
for i = 1, 3 do
    processes[i] = mp.Process{target = job, args = {barrier, arrived, q}}
    processes[i]:start()
end

local ranks = {}
for i = 1, 3 do
    local told = q:get()
    ranks[i] = told.rank
    print("passed when " .. told.seen .. " had come")
end
table.sort(ranks)
print("ranks: " .. table.concat(ranks, " "))
for _, p in ipairs(processes) do
    p:join()
end
print("waiting: " .. barrier.n_waiting, "broken:", barrier.broken)
