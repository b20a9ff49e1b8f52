--- Shared values: Value, Array, RawValue, RawArray.
--
-- Each is one piece of shared memory with typed cells, and can cross to
-- another process at any time. The types, by Python's codes:
--   b B h H i I l L q Q   integers of 1, 1, 2, 2, 4, 4, 8, 8, 8, 8 bytes,
--                         signed and (capitals) unsigned; L and Q end at
--                         math.maxinteger
--   f d                   floats of 4 and 8 bytes
--   c                     a byte, as a string of length 1
--   u                     a character, as a string of UTF-8
-- What is not of the type raises TypeError, what it cannot hold ValueError;
-- nothing wraps. Floats with an integral value count as integers.
--
-- A Value and an Array have a lock, by default an RLock of their own, and
-- every access takes it: an access waits while another process holds the
-- lock, and `add` is never lost between somebody's reading and writing
-- under it. Whoever holds the lock may access freely. A holder that dies
-- does not take the lock with it.

local core = require "mp.core"
local errors = require "mp.errors"
local named = require "mp.named"

local M = {}

local LOCK <const> = {lock = 1}

--- The lock in a table of options, which may be nil.
local function lock_option(fn, options, ...)
    named.no_more(fn, 3, ...)
    if options == nil then
        return nil
    end
    errors._check(fn, "options", options, "table")
    return named.in_order(fn, options, LOCK, 1)
end

local VALUE <const> = {typecode = 1, typecode_or_type = 1, init = 2,
                       value = 2, lock = 3}
local ARRAY <const> = {typecode = 1, typecode_or_type = 1, size_or_list = 2,
                       size_or_initializer = 2, lock = 3}
local RAW_VALUE <const> = {typecode = 1, typecode_or_type = 1, init = 2,
                           value = 2}
local RAW_ARRAY <const> = {typecode = 1, typecode_or_type = 1,
                           size_or_list = 2, size_or_initializer = 2}

--- A shared value. Its methods and fields:
--   v.value                   reads and writes it; so do v:get(), v:set(x)
--   v:add(n)                  adds and returns the new value, atomically;
--                             ValueError, and no change, out of range
--   v:compare_exchange(a, b)  makes it b if it is a; whether it was
--   v:copy()                  a new one with the same content
--   v:get_lock() v:acquire([block [, timeout]]) v:release() v:guard()
--                             its lock, and that lock's methods
--   v:get_obj()               the same value without the lock
---@param typecode string|table or named arguments: typecode, init, lock
---@param init any its content; nil: zero
---@param ... table|nil {lock = nil or true: an RLock of its own; a Lock or
--   RLock: that one; false: none, and the result is a RawValue}
---@return userdata Value
-- Raises TypeError (of a typecode that there is not: lists those there
-- are), ValueError, OSError when there is no memory.
function M.Value(typecode, init, ...)
    if type(typecode) == "table" then
        named.alone("Value", init, ...)
        return core.Value(named.in_order("Value", typecode, VALUE, 3))
    end
    return core.Value(typecode, init, lock_option("Value", ...))
end

--- A shared value without a lock: has `value`, `get`, `set`, `add`,
-- `compare_exchange` and `copy`. Each is atomic by itself.
---@param typecode string|table or named arguments: typecode, init
---@param init any its content; nil: zero
---@return userdata RawValue
-- Raises what Value raises.
function M.RawValue(typecode, init, ...)
    if type(typecode) == "table" then
        named.alone("RawValue", init, ...)
        return core.RawValue(
            named.in_order("RawValue", typecode, RAW_VALUE, 2))
    end
    named.no_more("RawValue", 2, ...)
    return core.RawValue(typecode, init)
end

--- A shared array. Its methods and fields, each under its lock as a whole:
--   a[i]                  a cell, from 1; IndexError outside of 1 to #a
--   #a, ipairs, pairs     its length, and loops over it
--   a:slice([i [, j]])    the cells i to j as a list (all)
--   a:set(i, list)        writes the list from i on: all of it or nothing
--   a:fill(x [, i [, j]]) makes the cells i to j x (all)
--   a:copy()              a new array of the same type and content
--   a:pointer()           light userdata: where its cells are in this
--                         process, as long as the array is not collected
--   a.value, a.raw        of an array of 'c': its bytes as one string, up
--                         to the first NUL, resp. all of them
--   and of its lock what a Value has
---@param typecode string|table or named arguments: typecode, size_or_list,
--   lock
---@param size_or_list any integer: the length, of zeros; or the content: a
--   list, a shared array, for 'c' and 'u' a string
---@param ... table|nil {lock = as for Value}
---@return userdata Array
-- Raises TypeError, ValueError (also of a negative length), OSError when
-- there is no memory.
function M.Array(typecode, size_or_list, ...)
    if type(typecode) == "table" then
        named.alone("Array", size_or_list, ...)
        return core.Array(named.in_order("Array", typecode, ARRAY, 3))
    end
    return core.Array(typecode, size_or_list, lock_option("Array", ...))
end

--- A shared array without a lock. A cell is never half written, but what
-- touches several can see a mixture.
---@param typecode string|table or named arguments: typecode, size_or_list
---@param size_or_list any as for Array
---@return userdata RawArray
-- Raises what Array raises.
function M.RawArray(typecode, size_or_list, ...)
    if type(typecode) == "table" then
        named.alone("RawArray", size_or_list, ...)
        return core.RawArray(
            named.in_order("RawArray", typecode, RAW_ARRAY, 2))
    end
    named.no_more("RawArray", 2, ...)
    return core.RawArray(typecode, size_or_list)
end

return M
