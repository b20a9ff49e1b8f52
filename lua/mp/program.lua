--- The program that "spawn" and "forkserver" start: which one, and the words
-- by which it becomes a child.

local core = require "mp.core"
local errors = require "mp.errors"

local M = {}

local chosen  -- by set_executable, here or by whom started this process
local preload -- modules that a fork server loads before it waits

--- What a child that is no copy of this process is to know of these.
---@return table|nil {executable, preload}
function M._birth()
    return (chosen or preload[1]) and {chosen or false, preload} or nil
end

--- Takes what this process was told.
function M._receive()
    local told = core.process.birth()
    local program = told and told.program or {false, {}}
    chosen, preload = program[1], program[2]
end

M._receive()

--- Chooses the interpreter for new processes by "spawn" and "forkserver":
-- mplua, or a Lua 5.4 that finds mp. By default the program that runs, if it
-- is one, or else mplua where PATH finds it.
---@param path string
-- Raises TypeError, ValueError. A program that is missing or no fit is an
-- error of start().
function M.set_executable(path)
    errors._check("set_executable", "path", path, "string")
    if path == "" or path:find("\0", 1, true) then
        errors._raise("ValueError",
            "set_executable: argument 'path': %s is no path",
            errors._show(path))
    end
    chosen = path
end

--- Chooses the modules that the fork server loads before its first child, so
-- that no child has to. A server that runs already is not changed.
---@param module_names table list of strings
-- Raises TypeError. A module that cannot be loaded, or takes more than a
-- minute, is an error of start().
function M.set_forkserver_preload(module_names)
    local list, n = {}, 0
    for i, name in pairs(type(module_names) == "table" and module_names
            or {0}) do
        list[i], n = type(name) == "string" and name or nil, n + 1
    end
    if #list ~= n then
        errors._raise("TypeError", "module_names must be a list of strings")
    end
    preload = list
end

--- The modules that a new fork server is to load.
function M._preload()
    return preload
end

local function executable_in(directories, name)
    for directory in directories:gmatch("[^:]+") do
        local path = directory .. "/" .. name
        if core.process.executable(path) then
            return path
        end
    end
    return nil
end

--- The path of an interpreter: see set_executable.
local function interpreter()
    if chosen then
        return chosen
    end
    local path, is_mplua = core.process.program()
    local name = path and path:match("[^/]*$")
    if is_mplua or name and (name:find("^lua5?%.?4?$")
            or name:find("^lua%-5%.4")) then
        return "/proc/self/exe"
    end
    return executable_in(os.getenv("PATH") or "", "mplua")
        or errors._raise("StateError", "%s is no Lua interpreter, and PATH "
            .. "has no mplua: mp.set_executable(path) says which program to "
            .. "start", errors._show(path or "this program"))
end

-- BOOT_FD, BOOT_REF and BOOT_TEXT are filled in below: how the arena is found,
-- and where in it the reason stands why this program cannot take part. This
-- any Lua since 5.1 can read.
local CODE <const> = [[
local ok, core = false, _VERSION .. ", not Lua 5.4"
if _VERSION == "Lua 5.4" then
    package.path, package.cpath = %q, %q
    ok, core = pcall(require, "mp.core")
end
if ok then core.process.child(BOOT_FD, BOOT_REF) end
core = tostring(core)
io.stderr:write(core, "\n")
local arena = io.open("/proc/self/fd/BOOT_FD", "r+b")
if arena and arena:seek("set", BOOT_TEXT) then
    arena:write(core:sub(1, 150), "\0")
    arena:close()
end
os.exit(1)]]

--- The program for a new process and its arguments.
---@return table list of strings
function M._argv()
    return {interpreter(), "-E", "-e",
        CODE:format(package.path, package.cpath)}
end

return M
