--- Start methods, and contexts: the constructors of mp bound to one.

local core = require "mp.core"
local errors = require "mp.errors"

local M = {}

local contexts = {} -- by method; made when first asked for
local chosen        -- the default method, once it is fixed

--- The start methods of this build, the default first.
---@return table list of strings
function M.get_all_start_methods()
    return core.process.methods()
end

local function default()
    return core.process.methods()[1]
end

local function check_method(method)
    for _, name in ipairs(core.process.methods()) do
        if method == name then
            return method
        end
    end
    errors._raise("ValueError", "cannot find context for %s",
        errors._show(method))
end

local Context = {__name = "Context"}

--- A context has all that mp has.
function Context:__index(key)
    return require("mp")[key]
end

function Context:__tostring()
    return string.format("<Context '%s'>", self._method)
end

local function make_context(method)
    local context = setmetatable({_method = method}, Context)
    function context.get_start_method()
        return method
    end
    function context.set_start_method()
        errors._raise("ValueError",
            "cannot set start method of concrete context")
    end
    function context.get_context(other)
        return other == nil and context or M.get_context(other)
    end
    return context
end

--- The constructors of mp for one start method: a table with all names of mp.
---@param method string|nil nil: the default one, which is then fixed
---@return table
-- Raises ValueError «cannot find context for 'bad'».
function M.get_context(method)
    if method == nil then
        method = M.get_start_method()
    end
    check_method(method)
    contexts[method] = contexts[method] or make_context(method)
    return contexts[method]
end

--- Refuses what is no context (nil is the default one).
---@param fn string the function that was given it
---@param context any
function M._check(fn, context)
    if context ~= nil and getmetatable(context) ~= Context then
        errors._raise("TypeError",
            "%s: context must be what get_context returns, got %s", fn,
            errors._show(context))
    end
end

--- Chooses the default start method: once, unless forced.
---@param method string|nil nil: with `force`, no method is chosen any more
---@param force boolean|nil
-- Raises StateError «context has already been set», ValueError.
function M.set_start_method(method, force)
    if chosen and not force then
        errors._raise("StateError", "context has already been set")
    end
    if not (method == nil and force) then
        check_method(method)
    end
    chosen = method
end

--- The default start method; asking fixes it.
---@param allow_nil boolean|nil nil if none was chosen, and none is fixed
---@return string|nil
function M.get_start_method(allow_nil)
    if chosen == nil and not allow_nil then
        chosen = default()
    end
    return chosen
end

return M
