-- Twin of the tutorial's program on threading's Thread: two tasks that wait
-- do so at the same time, in two threads, each of which knows its name.
--
--     mplua two_threads.lua [SECONDS]     (default, the tutorial's: 2)

local mp = require "mp"
local threading = require "mp.threading"
local Thread, current_thread = threading.Thread, threading.current_thread

local SECONDS <const> = tonumber(arg[1] or 2)

local function long_time_task(i)
    print(("子进程: %s - 任务%d"):format(current_thread().name, i))
    mp.sleep(SECONDS)
    print(("结果: %d"):format(8 ^ 20))
end

print("当前主线程: " .. current_thread().name)
local start = mp.time()
local t1 = Thread{target = long_time_task, args = {1}}
local t2 = Thread{target = long_time_task, args = {2}}
print("等待所有子进程完成。")
t1:start()
t2:start()
t1:join()
t2:join()
print(("总共用时%.2f秒"):format(mp.time() - start))
