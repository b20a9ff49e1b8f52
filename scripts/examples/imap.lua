-- Twin of the reference notes' `imap`: results come one by one, in the order
-- of the inputs, while later ones are still computed. The input is read as
-- it is needed, so it may be long.

local mp = require "mp"

local function f(a)
    return a * a
end

local pool = mp.Pool()
for i, item in pool:imap(f, {1, 2, 3, 4}) do
    print(i, item)
end

local sum = 0
for _, item in pool:imap(f, mp.range(100000)) do
    sum = sum + item
end
print("sum: " .. sum)
pool:close()
pool:join()
