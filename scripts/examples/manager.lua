-- Twin of the notes' manager: workers of a pool append to one list, which
-- lives in shared memory; each sees what those before it have added. With a
-- plain table in its place every call gets a copy, and nothing changes.
--
--     mplua manager.lua

local mp = require "mp"

--- A list as Python shows it.
local function show(list)
    local values = {}
    for i, value in ipairs(list) do
        values[i] = tostring(value)
    end
    return "[" .. table.concat(values, ", ") .. "]"
end

local function f(list, x)
    print(show(list) .. " " .. x)
    if type(list) == "table" then
        table.insert(list, x)
    else
        list:append(x)
    end
end

local function run(list)
    local p <close> = mp.Pool(4)
    for _, item in ipairs {1, 2, 3} do
        p:apply(f, {list, item})
    end
    p:close()
    p:join()
    print(show(list))
end

io.stdout:setvbuf("line")
local manager <close> = mp.Manager()
run(manager:list({}))
run({})
