-- Twin of the module tour's shared values: an array by size or by content,
-- and a value that is changed under its own lock.

local mp = require "mp"

local function show(array)
    return "[" .. table.concat(array:slice(1, #array), ", ") .. "]"
end

local function job(v)
    local held <close> = v:get_lock():guard()
    v.value = v.value + 1
end

print(show(mp.Array("i", 3)))
print(show(mp.Array("i", mp.range(3))))

local v = mp.Value("d", 10, {lock = true})
do
    local held <close> = v:get_lock():guard()
    v.value = v.value + 1
end
print(v.value)

local processes = {}
for i = 1, 4 do
    processes[i] = mp.Process{target = job, args = {v}}
    processes[i]:start()
end
for _, p in ipairs(processes) do
    p:join()
end
print(v.value)
