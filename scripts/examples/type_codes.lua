-- Twin of the introduction's table of type codes: a shared value of each,
-- set to something that the type can hold and read back by a process.

local mp = require "mp"

local samples = {
    {"b", -128}, {"B", 255}, {"u", "é"}, {"h", -32768}, {"H", 65535},
    {"i", -2147483648}, {"I", 4294967295}, {"l", math.mininteger},
    {"L", 18}, {"q", math.maxinteger}, {"Q", 20}, {"f", 0.5}, {"d", 3.14},
}

local function job(code, value)
    print(code, value.value)
end

for _, sample in ipairs(samples) do
    local code, content = table.unpack(sample)
    local value = mp.Value(code, content)
    local p = mp.Process{target = job, args = {code, value}}
    p:start()
    p:join()
end
