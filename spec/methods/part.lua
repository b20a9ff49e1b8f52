--- A module that the jobs of spec/methods_spec.lua need.

local M = {}

local Point = {}
Point.__index = Point
M.Point = Point

function Point.new(x, y)
    return setmetatable({x = x, y = y}, Point)
end

function Point:sum()
    return self.x + self.y
end

function M.wrap(x)
    return "<" .. x .. ">"
end

return M
