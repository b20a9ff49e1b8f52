--- SharedMemory: a segment of named memory, and the buffer of its bytes.
--
-- A segment is a file in /dev/shm, readable by its owner alone. Its name goes
-- when somebody calls unlink; or when the family of processes that made it
-- has no holder of it any more: who made it holds it until he ends, the
-- others as long as they have it open. What a family leaves of which every
-- process is killed at once goes at the next start of the same user's. An
-- unrelated process that opens it and ends changes nothing.
--
-- The bytes are read and written by system calls: should another program cut
-- the file short, that is an OSError. What is done by `pointer` has no such
-- guard.
-- Public as a part of mp.shared_memory.

local class = require "mp.class"
local core = require "mp.core"
local errors = require "mp.errors"
local named = require "mp.named"

local shm <const> = core.shm

local M = {}

-- The buffer ----------------------------------------------------------------

local Buffer <const> = shm.methods

--- How many bytes string.unpack is shown first, of a format that does not
-- say how long it is.
local GUESS <const> = 256

--- Raises IndexError unless there are as many bytes at an offset.
local function check_room(fn, buffer, n, at, most)
    if n > most then
        errors._raise("IndexError", "%s: %d bytes at offset %d are out of "
            .. "range (%d bytes)", fn, n, at, #buffer)
    end
end

--- Writes values as string.pack makes them; offsets are bytes, from 0.
---@param offset integer
---@param format string as for string.pack
---@param ... any
---@return integer offset of what follows
-- Raises IndexError, and what string.pack raises as ValueError.
function Buffer:pack(offset, format, ...)
    local most, at = shm.rest(self, "pack", offset)
    local ok, bytes = pcall(string.pack, format, ...)
    if not ok then
        errors._raise("ValueError", "pack: %s", bytes)
    end
    check_room("pack", self, #bytes, at, most)
    self:write(at, bytes)
    return at + #bytes
end

--- The size that a format says by itself; nil: that depends on the bytes.
-- A format that is none raises before anything is read for it.
local function packed_size(format)
    local ok, size = pcall(string.packsize, format)
    if not ok and not size:find("variable", 1, true) then
        errors._raise("ValueError", "unpack: %s",
            (size:gsub("packsize", "unpack")))
    end
    return ok and size or nil
end

--- Reads values as string.unpack does; offsets are bytes, from 0.
---@param offset integer
---@param format string as for string.pack
---@return any ... the values, and the offset of what follows
-- Raises IndexError, and what string.unpack raises as ValueError.
function Buffer:unpack(offset, format)
    local most, at = shm.rest(self, "unpack", offset)
    local size = packed_size(format)
    check_room("unpack", self, size or 0, at, most)
    local n = size or math.min(GUESS, most)
    while true do
        local bytes = self:read(at, n)
        local values = table.pack(pcall(string.unpack, format, bytes))
        if values[1] then
            values[values.n] = values[values.n] + at - 1
            return table.unpack(values, 2, values.n)
        elseif size or n == most then
            errors._raise("ValueError", "unpack: %s", values[2])
        end
        n = math.min(n * 2, most)
    end
end

-- What this process made -----------------------------------------------------

-- The segments that this state made and nobody unlinked yet, by shm.key: a
-- name stays when who made it has closed it. Those that another process
-- unlinks are found when there are twice as many as there were.
local kept = {}
local n_kept, most_kept = 0, 16

local function forget(key)
    if kept[key] then
        shm.release(kept[key])
        kept[key] = nil
        n_kept = n_kept - 1
    end
end

local function keep(segment)
    if n_kept >= most_kept then
        for key, other in pairs(kept) do
            if not shm.is_named(other) then
                forget(key)
            end
        end
        most_kept = math.max(16, 2 * n_kept)
    end
    kept[shm.key(segment)] = segment
    n_kept = n_kept + 1
end

-- SharedMemory ---------------------------------------------------------------

--- A segment. Its fields and methods:
--   s.name, s.size   its size may be more than was asked for
--   s.buf            its bytes, nil once it is closed:
--     b[i]                    a byte, from 1; IndexError outside of 1 to #b
--     #b, ipairs, pairs
--     b:slice([i [, j]])      the bytes i to j as a list (all)
--     b:set(i, list|string)   writes it from i on: all of it or nothing
--     b:fill(x [, i [, j]])   makes the bytes i to j x (all)
--     b:read([offset [, n]])  n bytes from an offset, which counts from 0, as
--                             a string (to the end)
--     b:write(offset, string)
--     b:pack(offset, format, ...)   values, as string.pack makes them
--     b:unpack(offset, format)      and back, and the offset that follows
--     b:pointer()             light userdata: where they are in this process
--                             until the segment is closed; who touches them
--                             when a stranger has cut the file is killed
--   s:close()        this handle and its buffers are done with; <close> too
--   s:unlink()       takes the name away: who has it open may go on, nobody
--                    can open it any more. OSError ENOENT the second time
local SharedMemory = class.root(class.new("SharedMemory"))

local function adopt(object, buffer, segment, name, dev, ino)
    object._buffer, object._segment = buffer, segment
    object._name, object._size = name, #buffer
    object._dev, object._ino = dev, ino
    object._open = true
    return object
end

local PLACES <const> = {name = 1, create = 2, size = 3, track = 4}
local TRACK <const> = {track = 1}

local function check_boolean(name, value, otherwise)
    if value == nil then
        return otherwise
    end
    return errors._check("SharedMemory", name, value, "boolean")
end

local function check_size(size, create)
    if size == nil then
        size = 0
    end
    local n = math.type(size) and math.tointeger(size)
    if type(size) ~= "number" then
        errors._raise("TypeError",
            "SharedMemory: argument 'size': integer expected, got %s",
            errors._show(size))
    elseif not n or n < 0 then
        errors._raise("ValueError",
            "SharedMemory: 'size' must be a positive integer, got %s",
            tostring(size))
    elseif create and n == 0 then
        errors._raise("ValueError", "SharedMemory: 'size' must be a "
            .. "positive number different from zero")
    end
    return n
end

local function arguments(name, create, size, options, ...)
    if type(name) == "table" then
        named.alone("SharedMemory", create, size, options, ...)
        return named.in_order("SharedMemory", name, PLACES, 4)
    end
    named.no_more("SharedMemory", 4, ...)
    local track
    if options ~= nil then
        errors._check("SharedMemory", "options", options, "table")
        track = named.in_order("SharedMemory", options, TRACK, 1)
    end
    return name, create, size, track
end

--- Makes a segment, or opens one: SharedMemory(name, create, size [, options])
-- or named arguments.
---@param name string|nil as in /dev/shm; nil: a new one is chosen
---@param create boolean|nil true: there must be none of that name
---@param size integer|nil bytes, of a new one; they are zeros
---@param options table|nil {track = false}: its name stays until somebody
--   unlinks it, whoever ends
-- Raises ValueError, TypeError; OSError: EEXIST, ENOENT, EACCES, ENOSPC,
-- EINVAL (of a name with a / in it), ...
function SharedMemory:init(...)
    local name, create, size, track = arguments(...)
    create = check_boolean("create", create, false)
    track = check_boolean("track", track, true)
    size = check_size(size, create)
    if name ~= nil then
        errors._check("SharedMemory", "name", name, "string")
    elseif not create then
        errors._raise("ValueError",
            "SharedMemory: 'name' can only be nil if create is true")
    end
    if not create then
        adopt(self, shm.open(name, track))
        return
    end
    adopt(self, shm.create(name, size, track))
    if self._segment then
        keep(self._segment)
    end
end

function SharedMemory._get:name()
    return self._name
end

function SharedMemory._get:size()
    return self._size
end

function SharedMemory._get:buf()
    return self._open and self._buffer or nil
end

--- Closes this handle; the name stays. Again is no error.
function SharedMemory:close()
    class.check_self("close", SharedMemory, self)
    if not self._open then
        return
    end
    self._open = false
    shm.close(self._buffer)
    local segment = self._segment
    if segment then
        local key = shm.key(segment)
        if kept[key] ~= segment then
            shm.release(segment)
        elseif not shm.is_named(segment) then
            forget(key)
        end
    end
end

--- Takes the name away, also when this handle is closed.
-- Raises OSError ENOENT: it was taken away before.
function SharedMemory:unlink()
    class.check_self("unlink", SharedMemory, self)
    local ok, e = pcall(shm.unlink, self._name, self._dev, self._ino)
    local segment = self._segment
    if segment and (ok or not shm.is_named(segment)) then
        forget(shm.key(segment))
        shm.release(segment)
        self._segment = nil
    end
    if not ok then
        error(e, 0)
    end
end

SharedMemory.__close = SharedMemory.close
SharedMemory.__gc = SharedMemory.close

function SharedMemory:__tostring()
    return ("SharedMemory('%s', size=%d)"):format(self._name or "?",
        self._size or 0)
end

--- A closed handle of the same segment: what is left to do with it is unlink.
---@param memory table SharedMemory
---@return table SharedMemory
function M._closed(memory)
    return setmetatable({
        _name = memory._name, _size = memory._size, _dev = memory._dev,
        _ino = memory._ino, _segment = memory._segment, _open = false,
    }, SharedMemory)
end

--- What a segment becomes where it arrives.
function M._again(segment)
    return adopt(setmetatable({}, SharedMemory), shm.again(segment))
end

--- The same of one that is not the family's.
function M._by_name(name, track)
    return adopt(setmetatable({}, SharedMemory), shm.open(name, track))
end

function SharedMemory.__reduce(object)
    if not object._open then
        errors._raise("PicklingError", "cannot pickle %s: it is closed",
            tostring(object))
    elseif object._segment and shm.is_named(object._segment) then
        return M._again, object._segment
    end
    return M._by_name, object._name, false
end

M.SharedMemory = SharedMemory
return M
