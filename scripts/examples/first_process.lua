-- Twin of the introduction's first program: define a function, make a
-- process of it, start it, join it.

local mp = require "mp"

local function job(a, d)
    print("aaaaa")
end

local p1 = mp.Process{target = job, args = {1, 2}}
p1:start()
p1:join()
