--- Values as strings: what everything put, sent, mapped or returned goes
-- through, for those who want to keep or carry the bytes themselves.
--
-- Travel: nil, booleans, numbers, strings; tables with cycles and any keys;
-- Lua functions with their upvalues; modules, their C functions and classes
-- by name; shared objects of mp; what is registered here, or whose
-- metatable has a field `__reduce(obj)` -> rebuilding function, values...
-- A metatable has a name when it is a loaded module or a field of one, or a
-- global, or registered. The rest raises PicklingError with the path to it.

local core = require("mp.core").pickle

local M = {}

--- Pickles a value. Does not block.
-- Shared objects in the string are weak: it keeps none of them alive.
---@param v any
---@return string
-- Raises PicklingError («cannot pickle a coroutine: value.on_done»), and
-- what a reducing function raises.
M.dumps = core.dumps

--- Makes the value from a string that `dumps` made. Does not block.
-- Damaged strings raise; functions and shared objects are taken only from
-- strings of this program's own family of processes. A class or module
-- that is named in a string without functions must be loaded already.
---@param s string
---@param opts table|nil {trusted=true}: take functions from a string of
--   another family too; who gave you the string can then run any code here
---@return any
-- Raises PicklingError; StateError when a shared object no longer exists;
-- what a rebuilding function raises.
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
