-- Twin of the module tour's list of a process's methods: start, is_alive,
-- join with a time limit, terminate, kill, close; and its exit code.

local mp = require "mp"

local function wait_for_ever()
    while true do
        mp.sleep(60)
    end
end

local p1 = mp.Process{target = wait_for_ever}
print("alive before start:", p1:is_alive())
p1:start()
print("alive after start:", p1:is_alive())
print("joined in 0.05 s:", p1:join(0.05), p1.exitcode)
p1:terminate()
print("joined:", p1:join(), p1.exitcode)
print("alive after terminate:", p1:is_alive())
p1:close()
print("after close:", pcall(p1.is_alive, p1))

local p2 = mp.Process{target = wait_for_ever}
p2:start()
p2:kill()
p2:join()
print("killed:", p2.exitcode)
