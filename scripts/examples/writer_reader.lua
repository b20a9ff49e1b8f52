-- Twin of the timing tutorial's queue between two processes: one writes,
-- one reads for ever and is terminated in the end.
--
-- As in the tutorial, the reader gets no chance to end by itself; the main
-- process here waits until the queue is empty before it terminates it.
--
--     mplua writer_reader.lua [SECONDS]      (longest pause between two
--     values: 0.1; the tutorial's: 1)

local mp = require "mp"
local longest = tonumber(arg[1] or 0.1)

local function write(q)
    print("Process to write: " .. mp.getpid())
    for _, value in ipairs{"A", "B", "C"} do
        print(("Put %s to queue..."):format(value))
        q:put(value)
        mp.sleep(math.random() * longest)
    end
end

local function read(q)
    print("Process to read:" .. mp.getpid())
    while true do
        local value = q:get(true)
        print(("Get %s from queue."):format(value))
        q:task_done()
    end
end

io.stdout:setvbuf("line")
local q = mp.JoinableQueue()
local pw = mp.Process{target = write, args = {q}}
local pr = mp.Process{target = read, args = {q}}
pw:start()
pr:start()
pw:join()
q:join()
pr:terminate()
