-- Twin of the introduction's mistake with `apply_async`: three arguments
-- are one call's arguments, not three calls; the error names the function.

local mp = require "mp"

local function job(x)
    return x * x
end
_G.job = job -- only a global function has a name in messages

local pool <close> = mp.Pool()
local ok, err = pcall(function()
    local res = pool:apply_async(job, {2, 3, 4})
    return res:get()
end)
assert(not ok)
print(err)
