--- The Namespace of a manager: fields that all processes see.
--
-- Names are strings; a field that there is not is nil, and nil as a value
-- takes it away. Names that begin with "_" belong to the view: other
-- processes, and other views of the same Namespace, do not see them. There
-- are two from the start:
--   ns:_update_with(name, f [, default])   as the update_with of a dict
--   ns:_totable()                          a plain copy

local container = require "mp.container"
local errors = require "mp.errors"

local M = {}

--- Raises unless a field of this name is shared.
---@param fn string the function that was given it
---@param name any
function M._check_name(fn, name)
    if type(name) ~= "string" then
        errors._raise("TypeError", "%s: a name must be a string, got %s", fn,
            errors._show(name))
    elseif name:sub(1, 1) == "_" then
        errors._raise("ValueError", "%s: a name that begins with '_' is not "
            .. "shared: %s", fn, errors._show(name))
    end
end

--- The methods of every Namespace.
M._methods = {}

--- Its metamethods.
M._meta = {
    __eq = container.equal,
    __pairs = container.pairs,
    __tostring = container.tostring,
}

local methods = M._methods

--- Makes a field f of what it is, as one step: if another process changes it
-- meanwhile, f is called again.
---@param name string
---@param f function
---@param default any what f gets where there is no such field
---@return any what the field is now
-- Raises TypeError, and what f raises: then nothing changes.
function methods:_update_with(name, f, default)
    container.check_self("_update_with", "Namespace", self)
    M._check_name("_update_with", name)
    container.check_function("_update_with", f)
    return container.update_with(self, name, f, default)
end

--- A plain table with copies of all fields, nested containers too.
---@return table
function methods:_totable()
    container.check_self("_totable", "Namespace", self)
    return container.totable(self)
end

return M
