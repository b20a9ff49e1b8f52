-- Twin of the module tour's recursive lock: its holder may take it again,
-- and it is free when it was released as often; only its holder may
-- release it. (The tutorial describes it, without a program.)

local mp = require "mp"

local function try(lock)
    print("another process gets it:", lock:acquire(false))
end

local function ask_another(lock)
    local p = mp.Process{target = try, args = {lock}}
    p:start()
    p:join()
end

local lock = mp.RLock()
print("first:", lock:acquire())
print("second:", lock:acquire())
ask_another(lock)
lock:release()
ask_another(lock)
lock:release()
ask_another(lock)
print("once too often:", (pcall(lock.release, lock)))
