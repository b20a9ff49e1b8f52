--- mp.repr: any value as text on one line; a table as Lua source.

local M = {}

local RESERVED <const> = {}
for word in ([[and break do else elseif end false for function goto if in
    local nil not or repeat return then true until while]]):gmatch("%a+") do
    RESERVED[word] = true
end

local function show_string(s)
    return (string.format("%q", s):gsub("\\\n", "\\n"))
end

--- The shortest decimal text that reads back as the same float.
local function show_float(x)
    if x ~= x then
        return "0/0"
    elseif x == math.huge or x == -math.huge then
        return x > 0 and "math.huge" or "-math.huge"
    end
    local text = string.format("%.14g", x)
    if tonumber(text) ~= x then
        text = string.format("%.17g", x)
    end
    return text:find("[.eEn]") and text or text .. ".0"
end

local function show_integer(n)
    return n == math.mininteger and "math.mininteger" or
        string.format("%d", n)
end

--- What Lua source has no literal for.
local function show_other(v)
    if type(v) == "function" then
        local info = debug.getinfo(v, "S")
        if info.what ~= "C" then
            return string.format("<function %s:%d>", info.short_src,
                info.linedefined)
        end
    end
    local text = tostring(v)
    return text:sub(1, 1) == "<" and text or "<" .. text .. ">"
end

local ORDER <const> = {number = 1, string = 2, boolean = 3}

--- Numbers by value, then strings, then the rest.
local function before(a, b)
    local x, y = ORDER[type(a)] or 4, ORDER[type(b)] or 4
    if x ~= y then
        return x < y
    elseif x <= 2 then
        return a < b
    end
    return tostring(a) < tostring(b)
end

local function show_key(key, show)
    if type(key) == "string" and key:find("^[%a_][%w_]*$") and
        not RESERVED[key] then
        return key
    end
    return "[" .. show(key) .. "]"
end

local function sorted_keys(t, from)
    local keys = {}
    for key in next, t do
        if not (math.type(key) == "integer" and key >= 1 and key < from) then
            keys[#keys + 1] = key
        end
    end
    table.sort(keys, before)
    return keys
end

local function show_table(t, show)
    local parts, n = {}, 1
    while rawget(t, n) ~= nil do
        parts[n] = show(rawget(t, n))
        n = n + 1
    end
    for _, key in ipairs(sorted_keys(t, n)) do
        parts[#parts + 1] = show_key(key, show) .. " = " ..
            show(rawget(t, key))
    end
    return "{" .. table.concat(parts, ", ") .. "}"
end

--- Any value as text on one line. Numbers, strings, booleans, nil and tables
-- of them are valid Lua that makes an equal value; keys are sorted; a table
-- inside itself is shown as <cycle>, what has no literal in <>. An object
-- with a __tostring is shown by it.
---@param value any
---@return string
function M.repr(value)
    local open = {} -- tables that are being shown
    local function show(v)
        local kind = math.type(v) or type(v)
        if kind == "string" then
            return show_string(v)
        elseif kind == "integer" then
            return show_integer(v)
        elseif kind == "float" then
            return show_float(v)
        elseif kind == "nil" or kind == "boolean" then
            return tostring(v)
        elseif kind ~= "table" then
            return show_other(v)
        end
        local metatable = debug.getmetatable(v)
        if metatable and rawget(metatable, "__tostring") then
            return tostring(v)
        elseif open[v] then
            return "<cycle>"
        end
        open[v] = true
        local text = show_table(v, show)
        open[v] = nil
        return text
    end
    return show(value)
end

--- How a key stands in a table's text.
---@param key any
---@return string
function M._key(key)
    return show_key(key, M.repr)
end

return M
