--- ShareableList: a list of fixed length in named shared memory.
--
-- Its items are nil, booleans, integers, floats and strings. Each has a slot
-- that keeps its size: 8 bytes for what is no string, and for a string its
-- length rounded up so that there is room for one more byte. So a number may
-- become a string of 8 bytes, and a string a number.
--
-- In the segment: MAGIC, the count, count + 1 offsets of slots, the slots; all
-- numbers of 8 bytes. A slot is a head, type and length of what follows it,
-- and that; it is written by one call, and read by one. A reader that must
-- not see half of what another process writes at that time takes a lock.
-- Public as a part of mp.shared_memory.

local class = require "mp.class"
local errors = require "mp.errors"
local named = require "mp.named"
local segment = require "mp.segment"

local M = {}

local MAGIC <const> = "MPLIST1\0"
local HEAD <const> = "<I1I7" -- type, bytes that follow
local HEAD_SIZE <const> = 8
local LEAST <const> = 8 -- bytes of a slot behind its head

-- Types of slots.
local NIL <const>, FALSE <const>, TRUE <const> = 0, 1, 2
local INTEGER <const>, FLOAT <const>, STRING <const> = 3, 4, 5

-- Items ----------------------------------------------------------------------

--- The type of an item, and its bytes; nil: it is none.
local function encode(value)
    local kind = math.type(value) or type(value)
    if kind == "integer" then
        return INTEGER, string.pack("<i8", value)
    elseif kind == "float" then
        return FLOAT, string.pack("<d", value)
    elseif kind == "string" then
        return STRING, value
    elseif kind == "boolean" then
        return value and TRUE or FALSE, ""
    elseif kind == "nil" then
        return NIL, ""
    end
end

--- The slot's head and bytes. Raises KeyError, as Python does.
local function encode_item(value)
    local kind, bytes = encode(value)
    if not kind then
        errors._raise("KeyError", "ShareableList: an item is nil, a boolean, "
            .. "a number or a string, got %s", errors._show(value))
    end
    return string.pack(HEAD, kind, #bytes) .. bytes, bytes
end

local DECODERS <const> = {
    [NIL] = function() end,
    [FALSE] = function() return false end,
    [TRUE] = function() return true end,
    [INTEGER] = function(bytes) return (string.unpack("<i8", bytes)) end,
    [FLOAT] = function(bytes) return (string.unpack("<d", bytes)) end,
    [STRING] = function(bytes) return bytes end,
}

-- By type, what a slot of so many bytes is called in `format`.
local LETTERS <const> = {
    [NIL] = "xxxxxx?x", [FALSE] = "xxxxxxx?", [TRUE] = "xxxxxxx?",
    [INTEGER] = "q", [FLOAT] = "d",
}

--- Bytes behind the head of the slot that an item needs.
local function room_for(kind, bytes)
    return kind == STRING and 8 * (#bytes // 8 + 1) or LEAST
end

-- The list -------------------------------------------------------------------

--- ShareableList(sequence [, {name = }]), and of one that there is:
-- ShareableList(nil, {name = }).
--   l[i], #l           items, from 1; IndexError outside of 1 to #l
--   ipairs, pairs      (pairs goes on behind a nil)
--   l:count(v)         how many items are v
--   l:index(v)         where the first one is; ValueError if there is none
--   l.format           the types of the items, in Python's letters
--   l.shm              the SharedMemory: its name, close, unlink
--   local l <close>    closes it
local ShareableList = class.root(class.new("ShareableList"))
local field, set_field = ShareableList.__index, ShareableList.__newindex

--- Its length and what it is made of: a list, or what can be indexed as one.
local function check_sequence(sequence)
    local meta = getmetatable(sequence)
    local like = type(meta) == "table" and meta.__len and meta.__index
    if type(sequence) ~= "table" and not like then
        errors._raise("TypeError",
            "ShareableList: argument 'sequence': list expected, got %s",
            errors._show(sequence))
    end
    if like then
        return #sequence
    end
    local n = rawget(sequence, "n")
    if n ~= nil and not (math.type(n) == "integer" and n >= 0) then
        errors._raise("TypeError", "ShareableList: a list's n must be an "
            .. "integer of at least 0, got %s", errors._show(n))
    elseif n == nil and #sequence == 0 and next(sequence) ~= nil then
        errors._raise("TypeError", "ShareableList: argument 'sequence': list "
            .. "expected, got a table without items 1 to n")
    end
    return n or #sequence
end

--- All bytes of the segment, and the part of them that says the offsets.
local function build(sequence)
    local n = check_sequence(sequence)
    local offset = #MAGIC + 8 + 8 * (n + 1)
    local offsets, slots = {}, {}
    for i = 1, n do
        local slot, bytes = encode_item(sequence[i])
        local room = room_for(slot:byte(1), bytes)
        offsets[i] = string.pack("<i8", offset)
        slots[i] = slot .. ("\0"):rep(room - #bytes)
        offset = offset + HEAD_SIZE + room
    end
    offsets[n + 1] = string.pack("<i8", offset)
    local places = table.concat(offsets)
    return MAGIC .. string.pack("<i8", n) .. places .. table.concat(slots),
        places, n
end

local function refuse(memory)
    errors._raise("ValueError", "ShareableList: '%s' holds no ShareableList",
        memory.name)
end

--- The offsets in a segment that there is: anything may stand in it.
local function read_offsets(memory)
    local buffer, size = memory.buf, memory.size
    local first = #MAGIC + 8
    if size < first + 8 or buffer:read(0, #MAGIC) ~= MAGIC then
        refuse(memory)
    end
    local n = buffer:unpack(#MAGIC, "<i8")
    if n < 0 or n > (size - first) // 8 - 1 then
        refuse(memory)
    end
    local places = buffer:read(first, 8 * (n + 1))
    local least = first + 8 * (n + 1)
    for i = 0, n do
        local offset = string.unpack("<i8", places, 8 * i + 1)
        if offset < least or offset > size then
            refuse(memory)
        end
        least = offset + HEAD_SIZE + LEAST
    end
    return places, n
end

local function adopt(list, memory, places, n)
    rawset(list, "_memory", memory)
    rawset(list, "_places", places)
    rawset(list, "_n", n)
    return list
end

local NAME <const> = {name = 1}

function ShareableList:init(sequence, options, ...)
    named.no_more("ShareableList", 2, ...)
    local name
    if options ~= nil then
        errors._check("ShareableList", "options", options, "table")
        name = named.in_order("ShareableList", options, NAME, 1)
    end
    if name ~= nil then
        errors._check("ShareableList", "name", name, "string")
    end
    if sequence == nil then
        local memory = segment.SharedMemory(name)
        local ok, places, n = pcall(read_offsets, memory)
        if not ok then
            memory:close()
            error(places, 0)
        end
        adopt(self, memory, places, n)
        return
    end
    local bytes, places, n = build(sequence)
    local memory = segment.SharedMemory(name, true, #bytes)
    memory.buf:write(0, bytes)
    adopt(self, memory, places, n)
end

-- Access ---------------------------------------------------------------------

local function buffer_of(list)
    local buffer = list._memory.buf
    if not buffer then
        errors._raise("StateError", "ShareableList is closed")
    end
    return buffer
end

--- Where slot i begins, and how many bytes are behind its head.
local function slot_of(list, i)
    local from, to = string.unpack("<i8i8", list._places, 8 * i - 7)
    return from, to - from - HEAD_SIZE
end

--- Type and bytes of item i.
local function read_slot(list, i)
    local from, room = slot_of(list, i)
    local slot = buffer_of(list):read(from, HEAD_SIZE + room)
    local kind, length = string.unpack(HEAD, slot)
    if not DECODERS[kind] or length > room
        or (kind == INTEGER or kind == FLOAT) and length ~= 8 then
        errors._raise("ValueError", "ShareableList: item %d is damaged", i)
    end
    return kind, slot:sub(HEAD_SIZE + 1, HEAD_SIZE + length), room
end

local function get(list, i)
    local kind, bytes = read_slot(list, i)
    return DECODERS[kind](bytes)
end

local function check_index(list, key, text)
    local i = math.tointeger(key)
    if not i or i < 1 or i > list._n then
        errors._raise("IndexError", "%s: %s (1 to %d)", text, tostring(key),
            list._n)
    end
    return i
end

--- ipairs, and whatever else walks a list in C, reads one item past the end
-- to find it: for them, and there only, that is nil.
local function is_end(list, key)
    local caller = key == list._n + 1 and debug.getinfo(3, "S")
    return caller and caller.what == "C"
end

function ShareableList.__index(list, key)
    if type(key) ~= "number" then
        return field(list, key)
    elseif is_end(list, key) then
        return nil
    end
    return get(list, check_index(list, key, "index out of range"))
end

function ShareableList.__newindex(list, key, value)
    if type(key) ~= "number" then
        return set_field(list, key, value)
    end
    local i = check_index(list, key, "assignment index out of range")
    local slot, bytes = encode_item(value)
    local from, room = slot_of(list, i)
    if #bytes > room then
        errors._raise("ValueError", "bytes/str item exceeds available "
            .. "storage (%d bytes, for %d)", #bytes, room)
    end
    buffer_of(list):write(from, slot)
end

function ShareableList:__len()
    return self._n
end

local function step(list, i)
    if i < list._n then
        return i + 1, get(list, i + 1)
    end
end

function ShareableList:__pairs()
    return step, self, 0
end

--- How many items are equal to `value`.
---@param value any
---@return integer
function ShareableList:count(value)
    class.check_self("count", ShareableList, self)
    local n = 0
    for i = 1, self._n do
        if get(self, i) == value then
            n = n + 1
        end
    end
    return n
end

--- The place of the first item that is equal to `value`.
---@param value any
---@return integer
-- Raises ValueError: there is none.
function ShareableList:index(value)
    class.check_self("index", ShareableList, self)
    for i = 1, self._n do
        if get(self, i) == value then
            return i
        end
    end
    errors._raise("ValueError", "%s not in this container",
        errors._show(value))
end

function ShareableList._get:shm()
    return self._memory
end

function ShareableList._get:format()
    local letters = {}
    for i = 1, self._n do
        local kind, _, room = read_slot(self, i)
        letters[i] = LETTERS[kind] or room .. "s"
    end
    return table.concat(letters)
end

--- Closes its segment; the name stays.
function ShareableList:__close()
    self._memory:close()
end

function ShareableList:__tostring()
    local items = {}
    if self._memory.buf then
        for i = 1, self._n do
            items[i] = errors._show(get(self, i))
        end
    end
    return ("ShareableList({%s}, name='%s')"):format(
        table.concat(items, ", "), self._memory.name)
end

--- What a list becomes where it arrives.
function M._again(memory)
    return adopt(setmetatable({}, ShareableList), memory,
        read_offsets(memory))
end

function ShareableList.__reduce(list)
    return M._again, list._memory
end

M.ShareableList = ShareableList
return M
