-- Twin of the timing tutorial's two processes: the long task twice at the
-- same time takes no longer than once.
--
--     mplua two_processes.lua [SECONDS]      (of a task: 0.2; the
--     tutorial's: 2)

local mp = require "mp"
local seconds = tonumber(arg[1] or 0.2)

local function long_time_task(i)
    print(("子进程: %d - 任务%d"):format(mp.getpid(), i))
    mp.sleep(seconds)
    print(("结果: %d"):format(8 ^ 20))
end

print("当前母进程: " .. mp.getpid())
local start = mp.time()
local p1 = mp.Process{target = long_time_task, args = {1}}
local p2 = mp.Process{target = long_time_task, args = {2}}
print("等待所有子进程完成。")
p1:start()
p2:start()
p1:join()
p2:join()
local stop = mp.time()
print("总共用时" .. stop - start .. "秒")
