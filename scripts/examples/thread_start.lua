-- Twin of the notes' first program: a named thread is made and started.

local threading = require "mp.threading"

local function job1()
    print("Thread_2 start\n")
    print("Thread_2 end\n")
end

local thread1 = threading.Thread{target = job1, name = "T1"}
thread1:start()
