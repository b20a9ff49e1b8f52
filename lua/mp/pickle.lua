--- Values as strings: what everything put, sent, mapped or returned goes
-- through, for those who want to keep or carry the bytes themselves.
--
-- Travel: nil, booleans, numbers, strings; tables with cycles and any keys;
-- Lua functions with their upvalues; modules, their C functions and classes
-- by name; shared objects of mp; objects whose metatable has a name: it is a
-- loaded module or a field of one, or a global, or registered here. The rest
-- raises PicklingError with the path to it.
--
-- Metafields say how else an object travels:
--   __reduce(obj) -> rebuild, values...   it is rebuild(values...) there
--   __reduce(obj) -> nil, reason          it cannot be pickled
--   __getstate(obj) -> state
--   __setstate(obj, state)   is called when obj is made: by rebuild, or as an
--                            empty table with its metatable. The state may
--                            refer to the object.

local core = require("mp.core").pickle

local M = {}

--- Pickles a value. Does not block.
-- Shared objects in the string are weak: it keeps none of them alive.
---@param v any
---@return string
-- Raises PicklingError («cannot pickle a coroutine: value.on_done»), and
-- what a reducing function or `__getstate` raises.
M.dumps = core.dumps

--- Makes the value from a string that `dumps` made. Does not block.
-- Damaged strings raise; functions and shared objects are taken only from
-- strings of this program's own family of processes. A class or module
-- that is named in a string without functions must be loaded already, and
-- must be registered where it has a `__setstate`.
---@param s string
---@param opts table|nil {trusted=true}: take functions from a string of
--   another family too; who gave you the string can then run any code here
---@return any
-- Raises PicklingError; StateError when a shared object no longer exists;
-- what a rebuilding function or `__setstate` raises.
M.loads = core.loads

--- Gives a metatable the name by which it travels. To be called on both
-- sides with the same name; a second call with the same pair replaces the
-- functions. Does not block.
---@param name string not empty
---@param metatable table
---@param reduce function|nil reduce(obj) -> values..., all that is to travel
---@param rebuild function|nil rebuild(values...) -> obj; with `reduce` only
-- Raises TypeError; ValueError when the name or the metatable is taken.
M.register = core.register

return M
