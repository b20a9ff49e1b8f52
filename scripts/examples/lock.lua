-- Twin of the introduction's program with a lock: who holds the lock goes
-- through all five steps before the other begins.
--
--     mplua lock.lua [SECONDS]         (a pause; the tutorial's: 0.1)

local mp = require "mp"
local pause = tonumber(arg[1] or 0.1)

local function job(v, num, l)
    l:acquire()
    for _ = 1, 5 do
        mp.sleep(pause)
        v.value = v.value + num
        print(v.value)
    end
    l:release()
end

local function multicore()
    local l = mp.Lock()
    local v = mp.Value("i", 0)
    local p1 = mp.Process{target = job, args = {v, 1, l}}
    local p2 = mp.Process{target = job, args = {v, 3, l}}
    p1:start()
    p2:start()
    p1:join()
    p2:join()
end

io.stdout:setvbuf("line")
multicore()
