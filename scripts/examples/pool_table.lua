-- The notes' table of a pool's methods as a program: what each is called
-- with, whether it waits, and what comes back.
--
--     mplua pool_table.lua

local mp = require "mp"

local function square(x)
    return x * x
end

local function add(a, b)
    return a + b
end

--- Reads an iterator of index and value to its end.
local function collect(it, ...)
    local list = {}
    for i, value in it, ... do
        list[i] = value
    end
    return list
end

local function row(name, waits, value)
    if type(value) == "table" then
        value = table.concat(value, " ")
    end
    print(("%-24s %-6s %s"):format(name, waits, value))
end

local pool <close> = mp.Pool(4)
local numbers, pairs_ = {1, 2, 3, 4}, {{1, 2}, {3, 4}}
local later = {
    apply_async = pool:apply_async(square, {7}),
    map_async = pool:map_async(square, numbers),
    starmap_async = pool:starmap_async(add, pairs_),
}
row("apply(square, {7})", "yes", pool:apply(square, {7}))
row("apply_async(square, {7})", "get()", later.apply_async:get())
row("map(square, numbers)", "yes", pool:map(square, numbers))
row("map_async(...)", "get()", later.map_async:get())
row("starmap(add, pairs)", "yes", pool:starmap(add, pairs_))
row("starmap_async(...)", "get()", later.starmap_async:get())
row("imap(square, numbers)", "each", collect(pool:imap(square, numbers)))
row("imap_unordered(...)", "each",
    collect(pool:imap_unordered(square, numbers)))
