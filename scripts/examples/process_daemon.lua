-- Twin of the module tour's daemon: made as one, or set to be one before
-- the start, a process that goes on for ever ends with the main process.
--
-- Each daemon tells the main process through a queue that it runs.

local mp = require "mp"

local function serve(q)
    q:put(mp.current_process().name)
    while true do
        mp.sleep(60)
    end
end

local q = mp.Queue()
local p1 = mp.Process{target = serve, args = {q}, name = "given",
                      daemon = true}
local p2 = mp.Process{target = serve, args = {q}, name = "set"}
p2.daemon = true
p1:start()
p2:start()

local names = {q:get(), q:get()}
table.sort(names)
print("running: " .. table.concat(names, ", "))
print("main process ends")
