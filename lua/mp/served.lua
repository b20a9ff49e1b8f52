--- Served: which methods of an object its proxies can call, and how.
--
-- By default those whose names do not begin with «_», else those that the
-- type's list of exposed names has, which may be operators, too.
--
-- The methods of mp's own objects that would wait in the server yield
-- instead what they wait for (see mp.server), and try again.

local core = require "mp.core"
local errors = require "mp.errors"
local repr = require "mp.repr".repr

local M = {}

--- Seconds between two looks at what cannot be waited for.
M.SLICE = 0.01

-- What a proxy can do beside calling methods, if its name is exposed.
local OPERATORS <const> = {
    __len = function(object) return #object end,
    __call = function(object, ...) return object(...) end,
    __index = function(object, key) return object[key] end,
    __newindex = function(object, key, value) object[key] = value end,
    __eq = function(a, b) return a == b end,
    __lt = function(a, b) return a < b end,
    __le = function(a, b) return a <= b end,
}

-- What is always exposed.
local OWN <const> = {
    ["#value"] = function(object) return object end,
    ["#tostring"] = function(object)
        local meta = debug.getmetatable(object)
        if type(object) == "table" and not (meta and meta.__tostring) then
            return repr(object)
        end
        return tostring(object)
    end,
}

--- The names that `exposed` allows, for a message.
local function show_exposed(entry)
    if not entry.exposed then
        return "its methods without a leading '_'"
    end
    local names = {}
    for name in pairs(entry.exposed) do
        names[#names + 1] = name
    end
    table.sort(names)
    return "exposed={" .. table.concat(names, ", ") .. "}"
end

--- Do methods of this name count, where no list says which?
local function is_public(entry, name)
    return name:sub(1, 1) ~= "_"
        or name == "__call" and type(entry.object) == "function"
end

--- The object's method itself.
local function method_of(entry, name)
    local object = entry.object
    local allowed = is_public(entry, name)
    if entry.exposed then
        allowed = entry.exposed[name]
    end
    if not allowed then
        errors._raise("TypeError", "method '%s' of '%s' is not in %s", name,
            entry.typeid, show_exposed(entry))
    end
    if OPERATORS[name] then
        return OPERATORS[name]
    end
    local method
    if type(object) ~= "function" then
        method = object[name]
    end
    local meta = debug.getmetatable(method)
    if type(method) ~= "function" and not (meta and meta.__call) then
        errors._raise("TypeError", "'%s' has no method '%s'", entry.typeid,
            name)
    end
    return method
end

--- For a method of mp's that waits: tries, and yields until it has what it
-- came for. `try(object)` returns whether it has, and the results.
local function patiently(try, object, block, timeout, thing, give_up)
    local last = timeout and core.monotonic() + timeout
    local function settled(ok, ...)
        if ok then
            return true, table.pack(...)
        end
        return false
    end
    while true do
        local ok, results = settled(try(object))
        if ok then
            return table.unpack(results, 1, results.n)
        elseif block == false or last and core.monotonic() >= last then
            return give_up(object)
        end
        local left = last and last - core.monotonic()
        coroutine.yield(left and left < M.SLICE and left or thing, left)
    end
end

local function get(queue, block, timeout)
    return patiently(queue.try_get, queue, block, timeout, queue,
        function(q) return q:get(false) end)
end

local function put(queue, value, block, timeout)
    return patiently(function(q) return q:try_put(value) end, queue, block,
        timeout, nil, function(q) return q:put(value, false) end)
end

local function truth(ok, ...)
    return not not ok, ok, ...
end

local function acquire(lock, block, timeout)
    return patiently(function(l) return truth(l:acquire(false)) end, lock,
        block, timeout, nil, function() return false end)
end

local QUEUE <const> = {get = get, put = put}
local LOCK <const> = {acquire = acquire}

--- Refuses what would hold the server up.
local function refuse(name)
    return function()
        errors._raise("TypeError", "%s: waits in the server, and would keep "
            .. "everybody else waiting", name)
    end
end

-- Of mp's own classes, by name: the methods that wait.
local PATIENT <const> = {
    Queue = QUEUE, SimpleQueue = {get = get},
    JoinableQueue = {get = get, put = put, join = function(queue, timeout)
        return patiently(function(q) return truth(q:join(0)) end, queue,
            nil, timeout, nil, function() return false end)
    end},
    Lock = LOCK, RLock = LOCK, Semaphore = LOCK, BoundedSemaphore = LOCK,
    Event = {wait = function(event, timeout)
        return patiently(function(e) return truth(e:is_set()) end, event,
            nil, timeout, event, function() return false end)
    end},
    Condition = {acquire = refuse "acquire", wait = refuse "wait",
        wait_for = refuse "wait_for"},
    Barrier = {wait = refuse "wait"},
}

for _, of in ipairs{"Queue", "JoinableQueue"} do
    PATIENT[of].get_many = function(queue, most, timeout)
        return patiently(function(q)
            local ok, list = pcall(q.get_many, q, most, 0)
            if not ok and not errors.iserror(list, "Empty") then
                error(list, 0)
            end
            return ok, list
        end, queue, nil, timeout, queue,
            function(q) return q:get_many(most, 0) end)
    end
    PATIENT[of].put_many = refuse "put_many"
end

--- The form of a method that yields instead of waiting, where there is one.
local function patient_form(object, name)
    if type(object) ~= "userdata" then
        return nil
    end
    local meta = debug.getmetatable(object)
    local forms = meta and PATIENT[rawget(meta, "__name")]
    return forms and forms[name]
end

--- The function by which the server calls a method of an object, the object
-- being its first argument.
---@param entry table object, typeid, exposed (a set of names, or nil)
---@param name string
---@return function
-- Raises TypeError: it is not exposed, or there is none.
function M.method(entry, name)
    if OWN[name] then
        return OWN[name]
    end
    local method = method_of(entry, name)
    return patient_form(entry.object, name) or method
end

--- Is the method's result that of the proxy's own asking?
---@param name string
---@return boolean
function M.is_own(name)
    return OWN[name] ~= nil
end

--- How an object shows itself.
---@param object any
---@return string
M.show = OWN["#tostring"]

return M
