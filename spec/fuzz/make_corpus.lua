-- Writes the small starting points of fuzz_loads, one value each.
-- Usage: mplua spec/fuzz/make_corpus.lua DIRECTORY
local pickle = require "mp.pickle"

local shared, cycle, big = { 1 }, {}, {}
cycle[1], cycle[cycle] = cycle, "key"
for i = 1, 300 do
    big["k" .. i] = i
end
local C, D = {}, { __index = print } -- as fuzz_loads registers them
pickle.register("c", C, function(o) return o[1], nil end, table.pack)
pickle.register("d", D)
local E = { __getstate = function(o) return o[1] end, __setstate = print }
pickle.register("e", E)
local stateful = setmetatable({}, E)
stateful[1] = { stateful, setmetatable({ 1 }, E) }

local values = {
    scalars = { 1, -1, 200, 1 << 40, 1.5, "s", ("x"):rep(60), true, false },
    holes = { 1, nil, 3, [10] = 1, [2.5] = 2 },
    records = { { id = 1, name = "a" }, { id = 2, name = "b" } },
    shared = { shared, shared, { shared } },
    cycle = cycle,
    pairs = big,
    blob = { ("y"):rep(300), ("y"):rep(300) },
    names = { print, string, _G, print, math.sin, D },
    objects = { setmetatable({ 1 }, D), setmetatable({ 2 }, D) },
    rebuilt = { setmetatable({ { 7 } }, C), setmetatable({ 8 }, C) },
    states = { stateful, stateful },
    nested = { { { { { { { { { { { {} } } } } } } } } } } },
    keys = { [{ 1 }] = { [{ 2 }] = { [print] = 1 } } },
}

local head = #pickle.dumps(nil) - 1
for name, value in pairs(values) do
    local file <close> = assert(io.open(arg[1] .. "/" .. name, "wb"))
    assert(file:write((pickle.dumps(value):sub(head + 1))))
end
