-- Twin of the notes' pipe: two connected ends, between two processes; what is
-- there is read while poll() says that something is. Both ways by default,
-- or one way only.
--
--     mplua pipe.lua

local mp = require "mp"

--- The other end: answers each number with its square, till it gets nil.
local function square_them(conn)
    for x in conn.recv, conn do
        conn:send({x, x * x})
    end
    conn:close()
end

local parent_conn, child_conn = mp.Pipe()
parent_conn:send({42, "None", "hello"})
print(table.concat(child_conn:recv(), " "))

local p = mp.Process{target = square_them, args = {child_conn}}
p:start()
child_conn:close()
for i = 1, 3 do
    parent_conn:send(i)
end
for _ = 1, 3 do
    local answer = parent_conn:recv()
    print(answer[1] .. " squared is " .. answer[2])
end
parent_conn:send(nil)
p:join()
print("at the end:", pcall(parent_conn.recv, parent_conn))
parent_conn:close()
print("after close:", pcall(parent_conn.send, parent_conn, 4))

local conn1, conn2 = mp.Pipe(false)
for _, text in ipairs {"one way", "only"} do
    conn2:send(text)
end
while conn1:poll() do
    print(conn1:recv())
end
print("the other way:", pcall(conn1.send, conn1, "back"))
conn1:close()
conn2:close()
