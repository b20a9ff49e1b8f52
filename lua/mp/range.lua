--- mp.range: the integers from one number up to, not including, another, as
-- a list that takes no room. Half-open as in Python; indexed from 1 as in
-- Lua:
--
--     for i in mp.range(3) do print(i) end       --> 0 1 2
--     mp.range(5, 10)[1]                         --> 5

local core = require "mp.core"
local errors = require "mp.errors"
local named = require "mp.named"

local M = {}

local range = {__name = "mp.range"}

--- Values of a range: fields start, stop, step, and private ones, the count
-- and the last value.
local function count(start, stop, step)
    local span = step > 0 and stop - start or start - stop
    if (step > 0 and start >= stop) or (step < 0 and start <= stop) then
        return 0
    end
    -- The span is unsigned: it may be as large as 2^64 - 1.
    local size = step > 0 and step or -step
    local whole = math.ult(span - 1, size) and 0 or 1
    if whole == 1 and size > 0 then
        local half = ((span - 1) >> 1) // size << 1
        whole = half + (math.ult(span - 1 - half * size, size) and 0 or 1)
    end
    if whole < 0 or whole == math.maxinteger then
        errors._raise("ValueError", "range: more than 2^63 - 1 values")
    end
    return whole + 1
end

local function integer(name, value)
    local n = math.type(value) and math.tointeger(value)
    if not n then
        errors._raise(type(value) == "number" and "ValueError" or "TypeError",
            "range: argument '%s': integer expected, got %s", name,
            errors._show(value))
    end
    return n
end

--- range(stop), or range(start, stop [, step]).
---@param start integer 0 by default
---@param stop integer the first that is not in it
---@param step integer|nil 1 by default; not 0
---@return table with fields start, stop, step; `#`, [i], `for x in range do`
function M.range(start, stop, step, ...)
    named.no_more("range", 3, ...)
    if stop == nil and step == nil then
        start, stop = 0, start
    end
    start, stop = integer("start", start), integer("stop", stop)
    step = step == nil and 1 or integer("step", step)
    if step == 0 then
        errors._raise("ValueError", "range: argument 'step' must not be 0")
    end
    local n = count(start, stop, step)
    return setmetatable({
        start = start, stop = stop, step = step,
        _n = n, _last = start + (n - 1) * step,
    }, range)
end

function range:__len()
    return self._n
end

function range:__index(i)
    local n = math.type(i) and math.tointeger(i)
    if n and n >= 1 and n <= rawget(self, "_n") then
        return rawget(self, "start") + (n - 1) * rawget(self, "step")
    end
    return nil
end

function range:__newindex(key)
    errors._raise("TypeError", "range: field %s cannot be assigned",
        errors._show(key))
end

--- The iterator of `for x in range do`: its whole state is the control
-- variable, so one range serves many loops at once.
function range:__call(_, control)
    if control == nil then
        return self._n > 0 and self.start or nil
    end
    return control ~= self._last and control + self.step or nil
end

function range.__eq(a, b)
    return a._n == b._n and
        (a._n == 0 or a.start == b.start and a._last == b._last)
end

function range:__tostring()
    local numbers = self.start .. ", " .. self.stop
    return "range(" .. numbers ..
        (self.step ~= 1 and ", " .. self.step or "") .. ")"
end

core.pickle.register("mp.range", range, function(self)
    return self.start, self.stop, self.step
end, M.range)

return M
