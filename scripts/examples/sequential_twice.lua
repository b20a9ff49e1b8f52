-- Twin of the timing tutorial's first program: a long task twice, one after
-- the other, in one process.
--
--     mplua sequential_twice.lua [SECONDS]   (of a task: 0.2; the
--     tutorial's: 2)

local mp = require "mp"
local seconds = tonumber(arg[1] or 0.2)

local function long_time_task()
    print("当前进程: " .. mp.getpid())
    mp.sleep(seconds)
    print(("结果: %d"):format(8 ^ 20))
end

print("当前母进程: " .. mp.getpid())
local start = mp.time()
for _ = 1, 2 do
    long_time_task()
end
local stop = mp.time()
print("用时" .. stop - start .. "秒")
