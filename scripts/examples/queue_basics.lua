-- Twin of the module tour's queue: of four places, with `put` and `get`
-- that wait, wait for a while, or do not wait; Full and Empty.

local mp = require "mp"

local q = mp.Queue(4)
print("empty:", q:empty(), "full:", q:full(), "size:", q:qsize())
q:put("first", true)
q:put({42, "second"})
q:put_nowait(3)
q:put(false, true, 0.1)
print("empty:", q:empty(), "full:", q:full(), "size:", q:qsize())

print("put without waiting:", select(2, pcall(q.put, q, "fifth", false)))
print("put for 0.05 s:", select(2, pcall(q.put, q, "fifth", true, 0.05)))
print("put_nowait:", select(2, pcall(q.put_nowait, q, "fifth")))

print(q:get())
print(table.unpack(q:get(true)))
print(q:get(true, 0.1))
print(q:get_nowait())

print("get without waiting:", select(2, pcall(q.get, q, false)))
print("get for 0.05 s:", select(2, pcall(q.get, q, true, 0.05)))
print("get_nowait:", select(2, pcall(q.get_nowait, q)))
q:close()
