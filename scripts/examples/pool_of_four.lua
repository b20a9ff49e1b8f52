-- Twin of the timing tutorial's pool: five long tasks by four workers take
-- as long as two of them.
--
--     mplua pool_of_four.lua [SECONDS]       (of a task: 0.2; the
--     tutorial's: 2)

local mp = require "mp"
local seconds = tonumber(arg[1] or 0.2)

local function long_time_task(i)
    print(("子进程: %d - 任务%d"):format(mp.getpid(), i))
    mp.sleep(seconds)
    print(("结果: %d"):format(8 ^ 20))
end

print("CPU内核数:" .. mp.cpu_count())
print("当前母进程: " .. mp.getpid())
local start = mp.time()
local p = mp.Pool(4)
for i = 0, 4 do
    p:apply_async(long_time_task, {i})
end
print("等待所有子进程完成。")
p:close()
p:join()
local stop = mp.time()
print("总共用时" .. stop - start .. "秒")
