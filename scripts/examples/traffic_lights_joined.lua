-- Twin of the module tour's second traffic lights: the lights are no daemon
-- and are joined, so that they go on when the last car has passed. The
-- program never ends by itself.
--
--     mplua traffic_lights_joined.lua [SECONDS]   (as traffic_lights.lua)

local mp = require "mp"
local second = tonumber(arg[1] or 0.05)

local function car(e, car_id)
    print(("car %d is coming "):format(car_id))
    if not e:is_set() then
        print(("car %d is waiting"):format(car_id))
        e:wait()
    end
    print(("car %d pass the cross road"):format(car_id))
end

local function traffic_light(e)
    while true do
        if e:is_set() then
            mp.sleep(2 * second)
            print("<<<<<<<<<<<<<<< green to red >>>>>>>>>>>>>>>>>>>")
            e:clear()
        end
        if not e:is_set() then
            mp.sleep(2 * second)
            print("<<<<<<<<<<<<<<< red to green >>>>>>>>>>>>>>>>>>>")
            e:set()
        end
    end
end

io.stdout:setvbuf("line")
local event = mp.Event()
event:clear()
local cars = {}
for car_id = 0, 9 do
    table.insert(cars, mp.Process{target = car, args = {event, car_id}})
end
local lights = mp.Process{target = traffic_light, args = {event}}
lights:start()
for _, each in ipairs(cars) do
    each:start()
    mp.sleep(second)
end

for _, each in ipairs(cars) do
    each:join()
end
lights:join()
