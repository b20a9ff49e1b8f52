-- Twin of the module tour's semaphore: two of five processes at a time may
-- use a thing. (The tutorial describes it, without a program.)

local mp = require "mp"

local function job(places, inside, most)
    places:acquire()
    local now = inside:add(1)
    do
        local held <close> = most:get_lock():guard()
        most.value = math.max(most.value, now)
    end
    mp.sleep(0.02)
    inside:add(-1)
    places:release()
end

local places = mp.Semaphore(2)
local inside = mp.Value("i", 0)
local most = mp.Value("i", 0)
local processes = {}
for i = 1, 5 do
    processes[i] = mp.Process{target = job, args = {places, inside, most}}
    processes[i]:start()
end
for _, p in ipairs(processes) do
    p:join()
end
print("inside now:", inside.value)
print("never more than two:", most.value <= 2)
