-- Twin of the module tour's two traffic lights: cars come to a crossing and
-- wait for an event, the green light. The lights go on for ever; being a
-- daemon, they end when all the cars have passed and the program ends. As in
-- the second of the two, lights that are joined are no daemon: they go on
-- when the last car has passed, and the program never ends by itself.
--
--     mplua traffic_lights.lua [SECONDS [joined]]   (between two cars: 0.05;
--     the tutorial's: 1; the lights change after twice as long)

local mp = require "mp"
local second = tonumber(arg[1] or 0.05)
local joined = arg[2] == "joined"

local function car(e, car_id)
    print(("car %d is coming "):format(car_id))
    if not e:is_set() then
        print(("car %d is waiting"):format(car_id))
        e:wait()
    end

    -- The tutorial tests the event once more here, and a car that wakes
    -- just as the light turns red again would vanish; ours passes.
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
lights.daemon = not joined
lights:start()
for _, each in ipairs(cars) do
    each:start()
    mp.sleep(second)
end

for _, each in ipairs(cars) do
    each:join()
end
if joined then
    lights:join()
end
