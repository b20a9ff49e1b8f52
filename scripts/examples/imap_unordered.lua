-- Twin of the reference notes' `imap_unordered`: results in the order of
-- their completion, here read after the pool has been closed and joined.

local mp = require "mp"

local function f(a)
    return a * a
end

local pool = mp.Pool()
local result = pool:imap_unordered(f, {1, 2, 3, 4})
pool:close()
pool:join()

for i, item in result do
    print(i, item)
end
