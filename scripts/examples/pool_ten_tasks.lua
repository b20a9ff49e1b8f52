-- Twin of the module tour's pool against process: ten tasks by the same
-- four workers, whose four process numbers come again and again.

local mp = require "mp"

local function worker(msg)
    print(("%s is now running, process id: %s"):format(msg, mp.getpid()))
end

local po = mp.Pool(4)
for i = 0, 9 do
    po:apply_async(worker, {i})
end

print("main process starting....")
po:close()
po:join()
print("main process stoping....")
