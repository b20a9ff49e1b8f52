-- Twin of the introduction's comparison of efficiency: the same sum twice
-- in this process, then at the same time in two threads, then in two
-- processes.
--
--     mplua efficiency.lua [COUNT]     (default, the tutorial's: 1000000)
--
-- The sum, 499999666667166666000000, does not fit into 64 bits, and floats
-- would round it, in one process otherwise than in two. So it is kept in
-- two integers: high * BASE + low. A term fits while COUNT <= 2000000.

local mp = require "mp"
local td = require "mp.threading"

local BASE <const> = 1000000000
local COUNT <const> = math.tointeger(tonumber(arg[1] or 1000000))
if not COUNT or COUNT < 1 or COUNT > 2000000 then
    io.stderr:write("efficiency: COUNT is a whole number from 1 to 2000000\n")
    os.exit(2)
end

local function text(high, low)
    high = high + low // BASE
    return high == 0 and ("%d"):format(low)
        or ("%d%09d"):format(high, low % BASE)
end

local function job(q)
    local high, low = 0, 0
    for i = 0, COUNT - 1 do
        local term = i + i * i + i * i * i
        high = high + term // BASE
        low = low + term % BASE
    end
    q:put({high, low})
end

local function multithread()
    local q = mp.Queue() -- the same queue serves threads and processes
    local t1 = td.Thread{target = job, args = {q}}
    local t2 = td.Thread{target = job, args = {q}}
    t1:start()
    t2:start()
    t1:join()
    t2:join()
    local res1 = q:get()
    local res2 = q:get()
    print("multithread: " .. text(res1[1] + res2[1], res1[2] + res2[2]))
end

local function multicore()
    local q = mp.Queue()
    local p1 = mp.Process{target = job, args = {q}}
    local p2 = mp.Process{target = job, args = {q}}
    p1:start()
    p2:start()
    p1:join()
    p2:join()
    local res1 = q:get()
    local res2 = q:get()
    print("multicore: " .. text(res1[1] + res2[1], res1[2] + res2[2]))
end

local function normal()
    local high, low = 0, 0
    for _ = 1, 2 do
        for i = 0, COUNT - 1 do
            local term = i + i * i + i * i * i
            high = high + term // BASE
            low = low + term % BASE
        end
    end
    print("normal: " .. text(high, low))
end

local st = mp.time()
normal()
local st1 = mp.time()
print("normal time: " .. st1 - st)
multithread()
local st2 = mp.time()
print("multithread time: " .. st2 - st1)
multicore()
local st3 = mp.time()
print("multicore time: " .. st3 - st2)
print(("speed-up: %.2f by threads, %.2f by processes"):format(
    (st1 - st) / (st2 - st1), (st1 - st) / (st3 - st2)))
