-- What pickling costs: nanoseconds per element, out and in; then flat records
-- beside other serializers, those of them that `require` finds here, and two
-- written in Lua, below. Each row is the median of five rounds or more, in
-- which all take turns.
-- Usage: mplua scripts/bench/pickle.lua [seconds per row]
local pickle = require "mp.pickle"

local SECONDS <const> = tonumber(arg and arg[1]) or 0.5
local ROUNDS <const> = 5
local RECORDS <const> = 2000

-- Measuring -----------------------------------------------------------------

---@param f function
---@param times integer calls
---@return number seconds of one call
local function measure(f, times)
    collectgarbage()
    local start = os.clock()
    for _ = 1, times do f() end
    return (os.clock() - start) / times
end

--- Runs all in turn until they had `seconds` each, but ROUNDS at least.
---@param fs table of functions
---@param seconds number
---@return table of medians, seconds of one call
local function medians(fs, seconds)
    local times, runs = {}, {}
    for i, f in ipairs(fs) do
        times[i] = math.ceil(seconds / 10 / measure(f, 1))
        runs[i] = {}
    end
    local stop = os.clock() + seconds * #fs
    repeat
        for i, f in ipairs(fs) do
            table.insert(runs[i], measure(f, times[i]))
        end
    until os.clock() > stop and #runs[1] >= ROUNDS
    for i, run in ipairs(runs) do
        table.sort(run)
        runs[i] = run[(#run + 1) // 2]
    end
    return runs
end

-- Plain Lua -----------------------------------------------------------------

-- What one would write without C: Lua source that `load` reads.
local source = {}

local function write_source(v, out)
    if type(v) == "table" then
        out[#out + 1] = "{"
        for key, value in next, v do
            out[#out + 1] = "["
            write_source(key, out)
            out[#out + 1] = "]="
            write_source(value, out)
            out[#out + 1] = ","
        end
        out[#out + 1] = "}"
    else
        out[#out + 1] = ("%q"):format(v)
    end
end

function source.encode(v)
    local out = {"return "}
    write_source(v, out)
    return table.concat(out)
end

function source.decode(s)
    return load(s, "=s", "t", {})()
end

-- The same with bytes, by string.pack.
local bytes = {}

local writers = {}

local function write_bytes(v, out)
    writers[math.type(v) or type(v)](v, out)
end

function writers.integer(v, out) out[#out + 1] = string.pack("<Bj", 1, v) end
function writers.float(v, out) out[#out + 1] = string.pack("<Bn", 2, v) end
function writers.string(v, out) out[#out + 1] = string.pack("<Bs4", 3, v) end
function writers.boolean(v, out) out[#out + 1] = v and "\4" or "\5" end

function writers.table(v, out)
    out[#out + 1] = "\6"
    for key, value in next, v do
        write_bytes(key, out)
        write_bytes(value, out)
    end
    out[#out + 1] = "\7"
end

local readers = {}

local function read_bytes(s, at)
    return readers[s:byte(at)](s, at + 1)
end

readers[1] = function(s, at) return string.unpack("<j", s, at) end
readers[2] = function(s, at) return string.unpack("<n", s, at) end
readers[3] = function(s, at) return string.unpack("<s4", s, at) end
readers[4] = function(_, at) return true, at end
readers[5] = function(_, at) return false, at end
readers[6] = function(s, at)
    local t, key = {}, nil
    while s:byte(at) ~= 7 do
        key, at = read_bytes(s, at)
        t[key], at = read_bytes(s, at)
    end
    return t, at + 1
end

function bytes.encode(v)
    local out = {}
    write_bytes(v, out)
    return table.concat(out)
end

function bytes.decode(s)
    return (read_bytes(s, 1))
end

-- Others --------------------------------------------------------------------

--- Their modules, and how they are called: encode(v) -> s, decode(s) -> v.
local OTHERS <const> = {
    {"cjson", "C", function(m) return m.encode, m.decode end},
    {"cmsgpack", "C", function(m) return m.pack, m.unpack end},
    {"MessagePack", "Lua", function(m) return m.pack, m.unpack end},
    {"binser", "Lua", function(m)
        return m.serialize, function(s) return m.deserialize(s)[1] end
    end},
    {"serpent", "Lua", function(m)
        return m.dump, function(s) return load(s)() end
    end},
    {"ser", "Lua", function(m)
        return m, function(s) return load(s)() end
    end},
    {"ldump", "Lua", function(m)
        return m, function(s) return load(s)() end
    end},
}

--- All that can be measured here: {name, written in, encode, decode}.
local function serializers()
    local list = {
        {"mp.pickle", "C", pickle.dumps, pickle.loads},
        {"source", "Lua", source.encode, source.decode},
        {"string.pack", "Lua", bytes.encode, bytes.decode},
    }
    for _, other in ipairs(OTHERS) do
        local found, module = pcall(require, other[1])
        local encode, decode
        if found then
            encode, decode = other[3](module)
        end
        -- Some are not of this version of Lua.
        if found and pcall(function() decode(encode({{a = 1}})) end) then
            table.insert(list, {other[1], other[2], encode, decode})
        end
    end
    return list
end

-- The rows ------------------------------------------------------------------

---@param n integer
---@param make function i -> item
---@return table
local function list(n, make)
    local t = {}
    for i = 1, n do t[i] = make(i) end
    return t
end

local function record(i)
    return {id = i, name = "name" .. i, value = i * 0.5, ok = i % 2 == 0}
end

---@param name string
---@param count integer elements in the value
---@param value any
local function row(name, count, value)
    local s = pickle.dumps(value)
    local runs = medians({function() pickle.dumps(value) end,
        function() pickle.loads(s) end}, SECONDS)
    local scale = 1e9 / count
    print(("%-16s dumps %8.1f ns  loads %8.1f ns  %8.1f bytes"):format(
        name, runs[1] * scale, runs[2] * scale, #s / count))
end

local function compare()
    local all, value = serializers(), list(RECORDS, record)
    local out, back, sizes = {}, {}, {}
    for i, one in ipairs(all) do
        local s = one[3](value)
        assert(one[4](s)[RECORDS].name == value[RECORDS].name, one[1])
        sizes[i] = #s / RECORDS
        out[i] = function() one[3](value) end
        back[i] = function() one[4](s) end
    end
    out, back = medians(out, SECONDS), medians(back, SECONDS)
    local scale = 1e9 / RECORDS
    for i, one in ipairs(all) do
        print(("%-12s %-4s encode %7.0f ns %5.1fx  decode %7.0f ns %5.1fx  "
            .. "both %5.1fx  %5.1f bytes"):format(one[1], one[2],
            out[i] * scale, out[i] / out[1], back[i] * scale,
            back[i] / back[1], (out[i] + back[i]) / (out[1] + back[1]),
            sizes[i]))
    end
end

print "per element (args, function: per call)"
row("ints", 1e6, list(1000000, function(i) return i end))
row("doubles", 1e6, list(1000000, function(i) return i + 0.5 end))
row("short strings", 1e5, list(100000, function(i) return "s" .. i end))
row("records", 1e5, list(100000, record))
row("long string", 1, ("x"):rep(1 << 20))
row("integer", 1, 42)
row("args", 1, {1, "abc", 3.5})
row("function", 1, function(x) return x * x end)

print(("\n%d flat records, per record; x: how many times mp.pickle's time")
    :format(RECORDS))
compare()
