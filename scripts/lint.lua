--- The rules of the house that no compiler checks.
--
-- Each rule is a function of a file (path, lines) or of the whole tree; it
-- reports findings and judges nothing else. A new rule is a new function in
-- the tables at the end.

local LUAC <const> = os.getenv("LUAC") or "luac5.4"
local WIDTH <const> = 100   -- columns; C aims at 79
local NARROW <const> = 79

local findings = {}
local wide = 0 -- lines of C beyond NARROW, which are only counted

local function report(path, line, ...)
    findings[#findings + 1] = {
        path = path, line = line, text = string.format(...),
    }
end

-- The tree ------------------------------------------------------------------

--- Lines of a command's output.
local function output(command)
    local pipe <close> = assert(io.popen(command))
    local list = {}
    for line in pipe:lines() do
        list[#list + 1] = line
    end
    return list
end

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function read_lines(path)
    local lines = {}
    for line in io.lines(path) do
        lines[#lines + 1] = line
    end
    return lines
end

local function exists(path)
    return os.rename(path, path) ~= nil
end

local function room(path)
    return path:match("^(.*)/[^/]*$") or ""
end

--- The lines of a C file without what its comments say. (A string that
-- holds the sign of a comment is taken for one; there are none so far.)
local function without_comments(lines)
    local text = table.concat(lines, "\n") .. "\n"
    text = text:gsub("/%*.-%*/", function(comment)
        return comment:gsub("[^\n]", " ")
    end)
    local bare = {}
    for line in text:gmatch("([^\n]*)\n") do
        bare[#bare + 1] = line:gsub("//.*", "")
    end
    return bare
end

-- Sources, sorted; what was built and what git keeps are not ours to judge.
local function sources()
    return output("find . -path ./.git -prune -o -path ./build -prune -o " ..
        "-type f -print | sed 's|^\\./||' | LC_ALL=C sort")
end

--- "c", "lua", "sh", "make", or nil for what has no rules.
local function language(path, lines)
    if path:match("%.[ch]$") then
        return "c"
    elseif path:match("%.lua$") or path == ".busted" then
        return "lua"
    elseif path == "Makefile" then
        return "make"
    elseif (lines[1] or ""):match("^#!.*sh$") then
        return "sh"
    end
end

-- Floors --------------------------------------------------------------------

-- Two rooms of one floor do not see each other.
local FLOOR <const> = {
    ["runtime/base"] = 1,
    ["runtime/os"] = 2, ["runtime/ffi"] = 2,
    ["runtime/mem"] = 3, ["runtime/wire"] = 3,
    ["runtime/sync"] = 4, ["runtime/proc"] = 4,
    ["runtime/data"] = 5,
    ["runtime/work"] = 6,
    ["lua/bind"] = 7,
    ["lua"] = 8, -- embed.c, mplua.h
    ["lua/cli"] = 9,
}
local LUA_HEADERS <const> = {
    ["lua.h"] = true, ["lauxlib.h"] = true, ["lualib.h"] = true,
    ["luaconf.h"] = true, ["lua.hpp"] = true,
}

--- Where an include lies: from runtime/, from lua/, or beside the file.
local function resolve(path, name)
    for _, place in ipairs{"runtime/", "lua/", room(path) .. "/"} do
        if exists(place .. name) then
            return place .. name
        end
    end
end

local function check_include(path, line, name)
    local target = resolve(path, name)
    local from = FLOOR[room(path)]
    local to = target and FLOOR[room(target)]
    if name == "modules.inc" then
        return -- written by the Makefile
    elseif not target then
        report(path, line, "includes \"%s\", which is nowhere", name)
    elseif not from then
        if path:match("^runtime/") or path:match("^lua/") then
            report(path, line, "stands in no room that scripts/lint knows")
        end
    elseif not to then
        report(path, line, "includes %s, which stands on no floor", target)
    elseif to > from or to == from and room(path) ~= room(target) then
        report(path, line, "%s must not include %s (%s)", room(path), target,
            to > from and "a floor above" or "beside it")
    end
end

local function rule_includes(path, lines)
    for i, line in ipairs(without_comments(lines)) do
        local name = line:match('^%s*#%s*include%s*"([^"]+)"')
        local system = line:match("^%s*#%s*include%s*<([^>]+)>")
        if path:match("^runtime/") and LUA_HEADERS[name or system] then
            report(path, i, "runtime/ never includes %s", name or system)
        elseif name then
            check_include(path, i, name)
        end
    end
end

-- C -------------------------------------------------------------------------

--- Below the command line nothing prints and nothing exits.
local QUIET <const> = {"printf", "fprintf", "puts", "fputs", "perror", "exit"}

local function rule_quiet(path, lines)
    if not path:match("^runtime/") or path:match("^runtime/base/trace") then
        return
    end
    for i, line in ipairs(without_comments(lines)) do
        for _, name in ipairs(QUIET) do
            if line:match("%f[%w_]" .. name .. "%s*%(") then
                report(path, i, "%s() in runtime/", name)
            end
        end
    end
end

--- What the static asserts of a room speak of, as one text.
local asserted = setmetatable({}, {__index = function(self, place)
    local list = {}
    for _, path in ipairs(output("ls " .. quote(place) .. "/*.[ch]")) do
        local text = table.concat(read_lines(path), "\n")
        for words in text:gmatch("_Static_assert(%b())") do
            list[#list + 1] = words
        end
    end
    self[place] = table.concat(list, "\n")
    return self[place]
end})

--- A struct that lies in shared memory has its size asserted in its room.
local function rule_shared_structs(path, lines)
    for i, line in ipairs(without_comments(lines)) do
        local name = line:match("^%s*}%s*([%w_]+_shm)%s*;") or
            line:match("^%s*struct%s+([%w_]+_shm)%s*{")
        local size = "sizeof%s*%(?[%w_%s]-%f[%w_]" .. tostring(name) ..
            "%f[^%w_]"
        if name and not asserted[room(path)]:match(size) then
            report(path, i, "no _Static_assert on the size of %s", name)
        end
    end
end

-- Text ----------------------------------------------------------------------

-- Spelled so that this file has none of them.
local MARKS <const> = {"TO" .. "DO", "FIX" .. "ME", "X" .. "XX", "HA" .. "CK"}

local function rule_marks(path, lines)
    for i, line in ipairs(lines) do
        for _, mark in ipairs(MARKS) do
            if line:match("%f[%w_]" .. mark .. "%f[^%w_]") then
                report(path, i, "%s left behind", mark)
            end
        end
    end
end

local function columns(line)
    return utf8.len(line) or #line
end

local function rule_layout(path, lines)
    for i, line in ipairs(lines) do
        if line:find("\t", 1, true) then
            report(path, i, "tab")
        end
        if line:match("%s$") then
            report(path, i, "space at the end of the line")
        end
        if columns(line) > WIDTH then
            report(path, i, "%d columns", columns(line))
        elseif columns(line) > NARROW and path:match("%.[ch]$") then
            wide = wide + 1
        end
    end
end

-- Lua -----------------------------------------------------------------------

local function set(words)
    local s = {}
    for word in words:gmatch("%S+") do
        s[word] = true
    end
    return s
end

local STANDARD <const> = set [[
    assert collectgarbage dofile error getmetatable ipairs load loadfile next
    pairs pcall print rawequal rawget rawlen rawset require select
    setmetatable tonumber tostring type warn xpcall _G _VERSION arg
    coroutine debug io math os package string table utf8 ]]
local BUSTED <const> = set [[
    describe context insulate expose it spec test pending finally assert spy
    stub mock match before_each after_each setup teardown strict_setup
    strict_teardown lazy_setup lazy_teardown randomize ]]

--- Written like what people type into a session, globals and all.
local SESSIONS <const> = set "spec/methods/jobs.lua"

--- Globals by the compiler's listing, which cannot be mistaken.
local function check_globals(path)
    if SESSIONS[path] then
        return
    end
    local spec = path:match("^spec/")
    local listing = LUAC .. " -l -p -- " .. quote(path) .. " 2>/dev/null"
    for _, line in ipairs(output(listing)) do
        local at, op, name =
            line:match("%[(%d+)%]%s+([GS]ETTABUP)%s.*_ENV \"(.-)\"")
        if op == "SETTABUP" then
            report(path, tonumber(at), "sets the global '%s'", name)
        elseif op and not STANDARD[name] and not (spec and BUSTED[name]) then
            report(path, tonumber(at), "reads the unknown global '%s'", name)
        end
    end
end

local function rule_lua(path)
    local command = LUAC .. " -p -- " .. quote(path) .. " 2>&1"
    local complaint = output(command)[1]
    if complaint then
        local line, text = complaint:match(":(%d+): (.*)")
        report(path, tonumber(line or 1), "%s", text or complaint)
    else
        check_globals(path)
    end
end

-- Shell ---------------------------------------------------------------------

local function rule_shell(path, lines)
    local shell = lines[1]:match("bash") and "bash" or "sh"
    local command = shell .. " -n " .. quote(path) .. " 2>&1"
    for _, complaint in ipairs(output(command)) do
        report(path, tonumber(complaint:match("(%d+):") or 1), "%s",
            complaint)
    end
end

-- The README's tree ---------------------------------------------------------

--- The lines of the code block that maps the tree: the first one with a
-- line that begins with runtime/. {number, text} each.
local function tree_block(lines)
    local block
    for i, line in ipairs(lines) do
        if line:match("^%s*```") then
            local found = block
            block = not block and {} or nil
            for _, entry in ipairs(found or {}) do
                if entry.text:match("^[%s│├└─]*runtime/") then
                    return found
                end
            end
        elseif block then
            block[#block + 1] = {line = i, text = line}
        end
    end
end

local EXTENSIONS <const> = set "c h lua md sh list"

--- The first word of a line of the tree, if it is a path: it has a slash or
-- an extension, or there is such a file. (A line of words only goes on with
-- the description above it.)
local function tree_name(text, parent)
    local name = text:match("^[%s│├└─]*([%w_.][%w_./-]*)")
    if name and (name:match("/") or EXTENSIONS[name:match("%.(%w+)$") or ""] or
        exists(parent .. name)) then
        return name
    end
end

--- Calls fn(line, path) for each path that the block names. A name is
-- looked for in the directories it is indented under, then from the root.
local function each_tree_path(block, fn)
    local open = {} -- directories that are still open: {indent, path}
    for _, entry in ipairs(block) do
        local depth = #entry.text:match("^[%s│├└─]*")
        while open[1] and open[#open].depth >= depth do
            table.remove(open)
        end
        local parent = open[1] and open[#open].path or ""
        local name = tree_name(entry.text, parent)
        if name then
            local path = parent .. name
            if not exists(path) and exists(name) then
                path = name
            end
            fn(entry.line, (path:gsub("/$", "")))
            if name:match("/$") then
                open[#open + 1] = {depth = depth, path = path}
            end
        end
    end
end

--- Top-level entries and the directories in them, as far as they are ours.
local function places(paths)
    local seen, list = {}, {}
    local function add(place)
        if place and not place:match("^%.") and not seen[place] then
            seen[place] = true
            list[#list + 1] = place
        end
    end
    for _, path in ipairs(paths) do
        add(path:match("^[^/]+"))
        add(path:match("^([^/]+/[^/]+)/"))
    end
    return list
end

local function rule_readme(paths)
    if not exists("README.md") then
        return report("README.md", 1, "is missing")
    end
    local block = tree_block(read_lines("README.md"))
    if not block then
        return report("README.md", 1,
            "has no code block with the tree (a line that begins runtime/)")
    end
    local named = {["README.md"] = true, LICENSE = true}
    each_tree_path(block, function(line, path)
        if not exists(path) then
            report("README.md", line, "%s does not exist", path)
        end
        while path do -- naming a file names the directories above it
            named[path] = true
            path = path:match("^(.*)/")
        end
    end)
    for _, place in ipairs(places(paths)) do
        if not named[place] then
            report("README.md", block[1].line, "the tree does not name %s",
                place)
        end
    end
end

-- All of it -----------------------------------------------------------------

local RULES <const> = {
    c = {rule_includes, rule_quiet, rule_shared_structs, rule_marks,
        rule_layout},
    lua = {rule_lua, rule_marks, rule_layout},
    sh = {rule_shell, rule_marks},
    make = {rule_marks},
}

local function main()
    local paths = sources()
    for _, path in ipairs(paths) do
        local lines = read_lines(path)
        for _, rule in ipairs(RULES[language(path, lines)] or {}) do
            rule(path, lines)
        end
    end
    rule_readme(paths)
    for _, f in ipairs(findings) do
        print(string.format("%s:%d: %s", f.path, f.line, f.text))
    end
    if wide > 0 then
        print(string.format("note: %d lines of C have more than %d columns",
            wide, NARROW))
    end
    os.exit(#findings == 0)
end

main()
