--- Start methods, and contexts: the constructors of mp bound to one.

local core = require "mp.core"
local class = require "mp.class"
local errors = require "mp.errors"

local M = {}

local THREADED <const> = "forkserver" -- the default beside other threads

local contexts = {} -- by method; made when first asked for

-- The default method, once it is fixed: here, or by whom started this process.
local chosen

--- Makes the default method what this process was told.
function M._receive()
    local told = core.process.birth()
    chosen = told and told.method
end

M._receive()

-- Methods -------------------------------------------------------------------

--- The method that suits this process: a copy of one that has more threads
-- than the one that forks would find their locks taken for ever.
local function default()
    return core.process.threads() > 1 and THREADED or "fork"
end

--- The start methods of this build, the default first.
---@return table list of strings
function M.get_all_start_methods()
    local list = {default()}
    for _, name in ipairs(core.process.methods()) do
        if name ~= list[1] then
            list[#list + 1] = name
        end
    end
    return list
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

--- The method by which a process starts that was not told one: the chosen
-- one, else what suits this process at this moment.
---@return string
function M._method()
    return chosen or default()
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
    if not chosen and not allow_nil then
        chosen = default()
    end
    return chosen
end

--- Does nothing: programs need no freezing here. For ported ones.
function M.freeze_support() end

--- Does nothing: connections can always be pickled. For ported programs.
function M.allow_connection_pickling() end

-- Contexts ------------------------------------------------------------------

--- A context has all that mp has.
local Context = {__name = "Context"}

function Context:__index(key)
    return require("mp")[key]
end

function Context:__tostring()
    return string.format("<Context '%s'>", self._method)
end

--- The class of a context's processes. It travels by this function.
---@param method string
---@return table a class
function M._process_class(method)
    return M.get_context(method).Process
end

local function make_process_class(method)
    local bound = class.new("Process", require("mp.process").Process)
    bound._method = method
    return class.by_name(bound, M._process_class, method)
end

--- mp's Pool, told its context in the last place or by name.
local function make_pool(context)
    local Pool = require("mp.pool").Pool
    return function(processes, initializer, initargs, maxtasks, ...)
        if type(processes) ~= "table" then
            return Pool(processes, initializer, initargs, maxtasks, context,
                ...)
        end
        local opts = {context = context}
        for name, value in pairs(processes) do
            if name == "context" then
                errors._raise("TypeError", "Pool: unknown option 'context'")
            end
            opts[name] = value
        end
        return Pool(opts, initializer, initargs, maxtasks, ...)
    end
end

local function make_context(method)
    local context = setmetatable({_method = method}, Context)
    context.Process = make_process_class(method)
    context.Pool = make_pool(context)
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
---@return string the start method
function M._check(fn, context)
    if context ~= nil and getmetatable(context) ~= Context then
        errors._raise("TypeError",
            "%s: context must be what get_context returns, got %s", fn,
            errors._show(context))
    end
    return context and context._method or M._method()
end

return M
