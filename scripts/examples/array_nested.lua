-- Twin of the introduction's wrong array: a shared array has one dimension,
-- so a list of lists is refused.

local mp = require "mp"

local ok, err = pcall(mp.Array, "i", {{1, 2}, {3, 4}})
assert(not ok)
print(err)
