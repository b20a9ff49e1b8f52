--- The arguments of mp.Process and of threads: Python's, in Python's order, or
-- by their names in a table. Each function takes the class's name first, for
-- its messages.

local errors = require "mp.errors"
local named = require "mp.named"

local M = {}

local FIELDS <const> = {
    group = true, target = true, name = true, args = true, kwargs = true,
    daemon = true,
}

--- The constructor's arguments as the table of names. Raises TypeError,
--- ValueError.
---@param fn string
---@return table
function M.of(fn, group, target, name, args, kwargs, daemon, ...)
    named.no_more(fn, 6, ...)
    local opts = group
    if type(group) == "table" then
        named.alone(fn, target, name, args, kwargs, daemon)
        for key in pairs(opts) do
            if not FIELDS[key] then
                errors._raise("TypeError",
                    "%s() got an unexpected keyword argument %s", fn,
                    errors._show(key))
            end
        end
    else
        opts = {group = group, target = target, name = name, args = args,
            kwargs = kwargs, daemon = daemon}
    end
    if opts.group ~= nil then
        errors._raise("ValueError",
            "%s: group argument must be nil for now, got %s", fn,
            errors._show(opts.group))
    end
    return opts
end

--- Raises TypeError unless it can be called.
---@param fn string
---@param target any
---@return any target
function M.check_target(fn, target)
    local metatable = type(target) ~= "function" and
        debug.getmetatable(target)
    if metatable and metatable.__call == nil or metatable == nil then
        errors._raise("TypeError", "%s: target must be callable, got %s", fn,
            errors._show(target))
    end
    return target
end

--- Raises TypeError unless it is a string.
---@param fn string
---@param name any
---@return string name
function M.check_name(fn, name)
    if type(name) ~= "string" then
        errors._raise("TypeError", "%s: name must be a string, got %s", fn,
            errors._show(name))
    end
    return name
end

--- Raises TypeError unless it is true or false.
---@param fn string
---@param daemon any
---@return boolean daemon
function M.check_daemon(fn, daemon)
    if type(daemon) ~= "boolean" then
        errors._raise("TypeError",
            "%s: daemon must be true or false, got %s", fn,
            errors._show(daemon))
    end
    return daemon
end

return M
