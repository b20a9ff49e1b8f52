-- The command line. What `lua5.4` does is the measure: the same words go to
-- both programs, and all that can be seen of them must be the same.

local helper = require "spec.helper"
local lfs = require "lfs"

local REFERENCE <const> = "lua5.4"

-- Comparing -----------------------------------------------------------------

--- The result with the program's own name and addresses made equal, and
-- without the option that lua5.4 has not.
local function comparable(result, program)
    local function plain(text)
        local pattern = program:gsub("%p", "%%%0")
        return (text:gsub(pattern, "PROGRAM"):gsub("0x%x+", "0x")
            :gsub("  %-%-fsck [^\n]*\n", ""))
    end
    return {
        code = result.code,
        signal = result.signal,
        stdout = plain(result.stdout),
        stderr = plain(result.stderr),
    }
end

local function compare(args, opts)
    opts = opts or {}
    local function run(program)
        opts.program = program
        return comparable(helper.run(args, opts), program)
    end
    assert.are.same(run(REFERENCE), run(helper.mplua))
end

local function same_version()
    local version = helper.run({"-v"}, {program = REFERENCE}).stdout
    return version == helper.run({"-v"}).stdout
end

-- The cases: words, then stdin and env by name ------------------------------

local SHOW <const> = [[
print(...)
for i = -4, 4 do io.write(i, "=", tostring(arg[i]), " ") end
print(#arg)]]
local DEEP <const> = [[
local function f(n)
    if n == 0 then error("deep") end
    return (f(n - 1))
end
f(30)]]
local CLOSED <const> = [[
local t <close> = setmetatable({}, {__close = function() print("shut") end})
error("after")]]

--- SHOW_FILE and the like stand for files with that text.
local FILES <const> = {
    SHOW_FILE = SHOW, DEEP_FILE = DEEP, CLOSED_FILE = CLOSED,
    BAD_FILE = "x = = 1", SHEBANG_FILE = "#!/usr/bin/lua\nprint(1)\nerror(2)",
    EMPTY_FILE = "",
}

local CASES <const> = {
    ["no script"] = {
        {}, {stdin = SHOW}, {stdin = "error 'x'"}, {stdin = "x ="},
        {"--"}, {"-W"}, {"-E", stdin = SHOW}, {"-l", "string", stdin = SHOW},
        {"-v"}, {"-v", stdin = SHOW}, {"-e", "print(1)", stdin = SHOW},
    },
    ["a script"] = {
        {"SHOW_FILE"}, {"SHOW_FILE", "a", "-b", ""}, {"--", "SHOW_FILE", "a"},
        {"-E", "SHOW_FILE"}, {"-v", "SHOW_FILE"}, {"SHOW_FILE", "-e", "x"},
        {"-e", "x = 1", "-W", "SHOW_FILE", "a"}, {"SHEBANG_FILE"},
        {"EMPTY_FILE"}, {"/nowhere/x.lua"}, {"/tmp"}, {"-- x"},
        {"-", "a", stdin = SHOW}, {"-", stdin = "error(1)"},
        {"--", "-", "a"}, {"-e", "x = 1", "-", stdin = SHOW},
        {"-e", "arg = 1", "SHOW_FILE"}, {"-e", "arg = {1, 2}", "SHOW_FILE"},
        {"-e", "arg = setmetatable({}, {__len = 'x'})", "SHOW_FILE"},
    },
    ["options"] = {
        {"-e", "print(1)", "-e", "print(2)"}, {"-eprint(1)"}, {"-e"},
        {"-e", "-v"}, {"-l"}, {"-l", "-v"}, {"-x"}, {"-vv"}, {"-iv"},
        {"-Ex"}, {"-W1"}, {"--version"}, {"-lstring", "-e", "print(#arg)"},
        {"-lx=string", "-e", "print(x == string)"}, {"-l", "nowhere"},
        {"-l", "x=", "-e", "print(1)"}, {"-e", "x ="}, {"-e", "print(...)"},
        {"-W", "-e", "warn 'x'"}, {"-e", "warn 'x'", "-W"},
        {"-e", "print(arg[0], arg[-1], arg[1])", "-"},
        {"-e", "print(collectgarbage 'incremental')"},
        {"-W", "-e", "setmetatable({}, {__gc = error})"},
    },
    ["errors"] = {
        {"BAD_FILE"}, {"DEEP_FILE"}, {"CLOSED_FILE"},
        {"-e", "error('x', 0)"}, {"-e", "error('x', 2)"}, {"-e", "error()"},
        {"-e", "error({})"}, {"-e", "error(print)"}, {"-e", "error(12)"},
        {"-e", "error(setmetatable({}, {__name = 'T'}))"},
        {"-e", "error(setmetatable({}, {__tostring = error}))"},
        {"-e", "error(setmetatable({}, {__tostring = print}))"},
        {"-e", "error(setmetatable({}, {__tostring = function() " ..
            "return 'own words' end}))"},
        {"-e", "coroutine.wrap(function() error 'inside' end)()"},
        {"-e", "local function f() return f() + 1 end f()"},
        {"-e", "io.write('half a line') error('x')"},
        {"-e", "error('a\\0b')"}, {"-e", "string.rep('x', 1 << 60)"},
    },
    ["exit codes"] = {
        {"-e", "os.exit(7)"}, {"-e", "os.exit(true, true)"},
        {"-e", "os.exit(false)"}, {"-e", "os.exit(256 + 3)"},
        {"-e", "io.write('unflushed') os.exit(0)"},
        {"-e", "setmetatable({}, {__gc = function() print 'gc' end})"},
    },
    ["the environment"] = {
        {"-e", "print(1)", env = {LUA_INIT = "print('init', ...)"}},
        {"-E", "-e", "print(1)", env = {LUA_INIT = "print 'init'"}},
        {"SHOW_FILE", env = {LUA_INIT = "arg[1] = 'from init'"}},
        {"-e", "print(1)", env = {LUA_INIT = "error 'x'"}},
        {"-v", env = {LUA_INIT = "x ="}},
        {"-e", "print(1)", env = {LUA_INIT = "@/nowhere.lua"}},
        {"-e", "print(1)", env = {LUA_INIT = "print 'no'",
            LUA_INIT_5_4 = "print 'yes'"}},
        {"-e", "print(package.path, package.cpath)",
            env = {LUA_PATH = "?.x;;", LUA_CPATH = "y"}},
        {"-E", "-e", "print(package.path, package.cpath)",
            env = {LUA_PATH = "?.x;;", LUA_CPATH = "y"}},
    },
}

--- Words for a spec's name, and the words with real files for names.
local function case_name(case)
    local words = table.concat(case, " ")
    return (words == "" and "nothing" or words) ..
        (case.stdin and " <" .. case.stdin:match("[^\n]*") or "") ..
        (case.env and " in " .. table.concat((function()
            local list = {}
            for name, value in pairs(case.env) do
                list[#list + 1] = name .. "=" .. value
            end
            table.sort(list)
            return list
        end)(), " ") or "")
end

local function with_files(case)
    local args = {}
    for i, word in ipairs(case) do
        args[i] = FILES[word] and helper.tmpfile(FILES[word]) or word
    end
    return args
end

local groups = {}
for name in pairs(CASES) do
    groups[#groups + 1] = name
end
table.sort(groups)

for _, group in ipairs(groups) do
    describe("cli, as lua5.4 does it: " .. group, function()
        if not same_version() then
            pending("needs " .. REFERENCE .. " of the version linked in")
            return
        end
        for _, case in ipairs(CASES[group]) do
            it("mplua " .. case_name(case), function()
                compare(with_files(case),
                    {stdin = case.stdin, env = case.env})
            end)
        end
    end)
end

-- What has no measure -------------------------------------------------------

describe("cli: Ctrl-C", function()
    --- Runs a program that says "ready" and sends it SIGINT then.
    local function interrupt(program)
        local script = helper.tmpfile([[
            io.open(arg[1], "w"):write("ready"):close()
            while true do end]])
        local ready = helper.tmpname()
        local shell = helper.tmpfile([[
            "$1" "$2" "$3" &
            while ! grep -q ready "$3"; do sleep 0.01; done
            kill -INT $!
            wait $!]])
        return helper.run({shell, program, script, ready},
            {program = "/bin/sh", timeout = 20})
    end

    it("is an error in the code that runs, told in a line", function()
        local result = interrupt(helper.mplua)
        assert.are.equal(130, result.code)
        assert.matches("^" .. helper.mplua:gsub("%p", "%%%0")
            .. ": [^\n]+:%d: Interrupted: Ctrl%-C\n$", result.stderr)
    end)
end)

describe("cli: an error object of mp", function()
    local function raise(fields)
        return helper.run{"-e", [[error(setmetatable(]] .. fields .. [[, {
            __name = "mp.error",
            __tostring = function(e) return e.kind .. ": " .. e.message end
        }))]]}
    end

    it("is told with its place, its kind and a traceback", function()
        local result = raise[[
            {kind = "Full", message = "no room", where = "job.lua:12:"}]]
        assert.are.equal(1, result.code)
        assert.are.equal(helper.mplua .. ": job.lua:12: Full: no room",
            result.stderr:match("^[^\n]*"))
        assert.truthy(result.stderr:find("\nstack traceback:\n", 1, true))
    end)

    it("is told without a place when it has none", function()
        local result = raise[[{kind = "EOF", message = "the end"}]]
        assert.are.equal(helper.mplua .. ": EOF: the end",
            result.stderr:match("^[^\n]*"))
    end)

    it("ends the program with 130 when it is an interruption", function()
        local result = raise[[{kind = "Interrupted", message = "x"}]]
        assert.are.equal(130, result.code)
    end)
end)

describe("cli: -i", function()
    --- What a session prints after the version, for these lines.
    local function session(lines, args)
        local result = helper.run(args or {"-i"}, {stdin = lines})
        assert.are.equal(0, result.code)
        local version, rest = result.stdout:match("^(Lua 5%.4[^\n]*\n)(.*)$")
        assert.truthy(version)
        return rest, result.stderr
    end

    it("prints what an expression gives", function()
        assert.are.equal("> 3\tnil\n> \n", session("1 + 2, nil\n"))
        assert.are.equal("> 4\n> \n", session("=4\n"))
    end)

    it("asks for more lines as long as a statement is open", function()
        assert.are.equal("> >> >> 1\n2\n> \n",
            session("for i = 1, 2 do\nprint(i)\nend\n"))
    end)

    it("goes on after an error", function()
        local out, err = session("error 'x'\ny = 1 +\n+\n7\n")
        assert.are.equal("> > >> > 7\n> \n", out)
        assert.truthy(err:find("^stdin:1: x\nstack traceback:"))
        assert.truthy(err:find("\nstdin:2: unexpected symbol", 1, true))
    end)

    it("takes its prompts from _PROMPT and _PROMPT2", function()
        assert.are.equal("> ?!?4\n?\n",
            session("_PROMPT, _PROMPT2 = '?', '!'\nx = 2 +\n2\nx\n"))
    end)

    it("comes after the script", function()
        local script = helper.tmpfile("x = 'set by the script'")
        assert.are.equal("> set by the script\n> \n",
            session("x\n", {"-i", script}))
    end)

    it("tells when print does not work", function()
        local _, err = session("print = nil\n1\n")
        assert.truthy(err:find("error calling 'print'", 1, true))
    end)
end)

describe("cli: the program", function()
    it("finds C modules of this Lua", function()
        local result = helper.run{"-e", "print(require('lfs').currentdir())"}
        assert.are.equal(lfs.currentdir() .. "\n", result.stdout)
    end)

    it("is called mplua when it is started without a name", function()
        local shell = helper.tmpfile([[exec -a "" "$1" -x]])
        local result = helper.run({shell, helper.mplua},
            {program = "/bin/bash"})
        assert.truthy(result.stderr:find("^mplua: unrecognized option"))
    end)
end)
