-- Twin of the introduction's program without a lock: two processes add to
-- one shared value, 1 and 3 at a time, and snatch it from each other. A
-- step may get lost between the reading and the writing.
--
--     mplua no_lock.lua [SECONDS]      (a pause; the tutorial's: 0.1)

local mp = require "mp"
local pause = tonumber(arg[1] or 0.1)

local function job(v, num)
    for _ = 1, 5 do
        mp.sleep(pause)
        v.value = v.value + num
        print(v.value)
    end
end

local function multicore()
    local v = mp.Value("i", 0)
    local p1 = mp.Process{target = job, args = {v, 1}}
    local p2 = mp.Process{target = job, args = {v, 3}}
    p1:start()
    p2:start()
    p1:join()
    p2:join()
end

io.stdout:setvbuf("line")
multicore()
