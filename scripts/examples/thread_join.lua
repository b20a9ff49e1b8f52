-- Twin of the notes' second program: what follows join runs when both threads
-- have ended; and the third: a lock lets one go before the other.

local mp = require "mp"
local threading = require "mp.threading"

local lock = threading.Lock()
local value = mp.Value("i", 0)

local function thread_job(number)
    lock:acquire()
    for _ = 1, 10 do
        value.value = value.value + number
    end
    print(("%s: %d"):format(threading.current_thread().name, number))
    lock:release()
end

local thread_1 = threading.Thread{
    target = thread_job, args = {1}, name = "Thread_1",
}
local thread_2 = threading.Thread{
    target = thread_job, args = {3}, name = "Thread_2",
}
thread_1:start()
thread_2:start()
thread_1:join()
thread_2:join()
print("all done: " .. value.value)
