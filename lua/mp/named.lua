--- Named arguments: a call with one table in the place of the positions.

local errors = require "mp.errors"

local M = {}

--- The named arguments of a call, in the order of their positions.
---@param fn string the function's name
---@param given table
---@param places table name -> position
---@param n integer how many there are
---@return any ... n values
function M.in_order(fn, given, places, n)
    local args = {}
    for name, value in pairs(given) do
        local place = places[name]
        if not place then
            errors._raise("TypeError", "%s: unknown argument %s", fn,
                errors._show(name))
        end
        args[place] = value
    end
    return table.unpack(args, 1, n)
end

--- Refuses positions that follow a table of named arguments.
---@param fn string the function's name
---@param ... any nil, each of them
function M.alone(fn, ...)
    for i = 1, select("#", ...) do
        if (select(i, ...)) ~= nil then
            errors._raise("TypeError",
                "%s: nothing can follow a table of named arguments", fn)
        end
    end
end

--- Refuses what follows the last argument.
---@param fn string the function's name
---@param most integer how many it takes
---@param ... any what is too much
function M.no_more(fn, most, ...)
    local n = select("#", ...)
    if n > 0 then
        errors._raise("TypeError", "%s: too many arguments (%d, at most %d)",
            fn, most + n, most)
    end
end

return M
