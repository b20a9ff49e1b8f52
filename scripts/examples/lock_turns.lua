-- Twin of the notes' lock: ten steps of 1 by the first process, then ten
-- steps of 3 by the second, which goes on from what the first has reached.
--
--     mplua lock_turns.lua [SECONDS]         (a pause: 0.01; the tutorial's:
--     0.1)

local mp = require "mp"
local pause = tonumber(arg[1] or 0.01)

local function job(v, num, l)
    l:acquire()
    for _ = 1, 10 do
        mp.sleep(pause)
        v.value = v.value + num
        print("value : " .. v.value)
    end
    l:release()
end

local function multi_core()
    local lock = mp.Lock()
    local value = mp.Value("i", 0)
    local array = mp.Array("i", {1, 2, 3})
    assert(#array == 3)
    local p1 = mp.Process{target = job, args = {value, 1, lock}}
    local p2 = mp.Process{target = job, args = {value, 3, lock}}
    p1:start()
    p2:start()
    p1:join()
    p2:join()
    print("All done!")
end

io.stdout:setvbuf("line")
multi_core()
