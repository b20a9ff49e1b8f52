-- Twin of the module tour's first program: a process with an argument.

local mp = require "mp"

local function f(name)
    print("hello " .. name)
end

local p = mp.Process{target = f, args = {"bob"}}
p:start()
p:join()
