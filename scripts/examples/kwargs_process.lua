-- Twin of the reference notes' first snippet: a process gets arguments by
-- position and by name. A default value is Lua's `or`.

local mp = require "mp"

local function f(a, b)
    b = b or "default"
    print("a = " .. a .. ", b = " .. b)
end

local p = mp.Process{target = f, args = {1}, kwargs = {b = "value"}}
p:start()
p:join()

p = mp.Process{target = f, args = {2}}
p:start()
p:join()
