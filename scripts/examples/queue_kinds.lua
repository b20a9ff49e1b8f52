-- Twin of the module tour's other queues: SimpleQueue has only `put`, `get`
-- and `empty`; with JoinableQueue the producer waits until the consumers
-- have done, and not only taken, what it put.

local mp = require "mp"

local function consumer(tasks, results)
    while true do
        local n = tasks:get()
        results:put(n * n)
        tasks:task_done()
    end
end

local results = mp.SimpleQueue()
local tasks = mp.JoinableQueue()
print("empty:", results:empty())
for _ = 1, 2 do
    mp.Process{target = consumer, args = {tasks, results},
               daemon = true}:start()
end
for n = 1, 5 do
    tasks:put(n)
end
tasks:join()
print("empty:", results:empty())

local sum = 0
while not results:empty() do
    sum = sum + results:get()
end
print("sum of squares:", sum)
