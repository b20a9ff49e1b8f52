-- Twin of the reference notes' pool snippet: `apply_async` with arguments by
-- position and by name.

local mp = require "mp"

local function f(a, b)
    b = b or "default"
    print("a = " .. a .. ", b = " .. b)
end

local pool = mp.Pool()
pool:apply_async(f, {1}, {b = "value"})
pool:close()
pool:join()
