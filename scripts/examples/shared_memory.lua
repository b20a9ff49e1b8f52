-- Twin of the introduction's shared memory: two values and an array that
-- every process sees. The tutorial only makes them; here a process also
-- writes to them, and the main process prints what it finds.

local mp = require "mp"

local function job(value1, value2, array)
    value1.value = 7
    value2.value = value2.value * 2
    for i = 1, #array do
        array[i] = array[i] * 10
    end
end

local value1 = mp.Value("i", 0)
local value2 = mp.Value("d", 3.14)
local array = mp.Array("i", {1, 2, 3, 4})
print(value1.value, value2.value, table.concat(array:slice(1, 4), " "))

local p = mp.Process{target = job, args = {value1, value2, array}}
p:start()
p:join()
print(value1.value, value2.value, table.concat(array:slice(1, 4), " "))
