-- Twin of the module tour's two calls: `apply_async` does not wait for the
-- function, `apply` does.

local mp = require "mp"

local function f(name)
    print("hello " .. name)
end

io.stdout:setvbuf("line")
local p = mp.Pool(4)
for i = 0, 4 do
    p:apply_async(f, {i})
    p:apply(f, {i})
end
p:close()
p:join()
