-- The house itself: what is built, that the harness sees what it should,
-- and that lint finds what it is there to find.

local helper = require "spec.helper"

local function sh(script, ...)
    return helper.run({"-c", script, "sh", ...}, {program = "/bin/sh",
        timeout = 120})
end

--- Output of a command that must succeed.
local function output(script, ...)
    local result = sh(script, ...)
    assert.are.equal("", result.stderr)
    assert.are.equal(0, result.code)
    return result.stdout
end

local function contains(text, part)
    assert.truthy(text:find(part, 1, true),
        string.format("«%s» is not in:\n%s", part, text))
end

-- What is built --------------------------------------------------------------

describe("house: the program", function()
    it("has mp in it, wherever it is started", function()
        local result = helper.run({"-e", [[
            local mp = require "mp"
            print(type(mp), package.loaded.mp == mp)]]},
            {env = {LUA_PATH = "", LUA_CPATH = ""}})
        assert.are.equal("", result.stderr)
        assert.are.equal("table\ttrue\n", result.stdout)
    end)

    it("has every module of lua/mp in it", function()
        local names = output("cd lua/mp && ls *.lua")
        for name in names:gmatch("([^\n]+)%.lua\n") do
            local module = name == "init" and "mp" or "mp." .. name
            local result = helper.run({"-e", string.format(
                "print(package.searchers[1](%q) ~= nil, " ..
                "type(package.preload[%q]))", module, module)})
            assert.are.equal("true\tfunction\n", result.stdout)
        end
    end)

    it("shows Lua's names to C modules and none of its own", function()
        local list = output([[nm -D --defined-only "$1" |
            awk '$2 == "T" {print $3}']], helper.mplua)
        contains(list, "\nlua_pcallk\n")
        contains(list, "\nluaL_checkversion_\n")
        assert.is_nil(list:match("\nmp_[^\n]*"))
    end)
end)

describe("house: the module", function()
    local module = helper.build .. "/mp/core.so"

    it("takes Lua from its host", function()
        local needed = output([[readelf -d "$1" | awk '/NEEDED/']], module)
        assert.is_nil(needed:match("liblua"))
    end)

    it("shows nothing but its opening function", function()
        local list = output([[nm -D --defined-only "$1" |
            awk '$2 == "T" {print $3}']], module)
        assert.are.equal("luaopen_mp_core\n", list)
    end)

    it("works in the Lua of the system", function()
        if helper.sanitized then
            pending("needs a plain build")
        end
        local result = helper.run({"-e", [[
            local mp = require "mp"
            print(mp.Pool(2):apply(string.rep, {"ab", 3}))]]},
            {program = "lua5.4", env = {
                LUA_PATH = "lua/?.lua;lua/?/init.lua",
                LUA_CPATH = helper.build .. "/?.so"}})
        assert.are.equal("", result.stderr)
        assert.are.equal("ababab\n", result.stdout)
    end)
end)

describe("house: the library", function()
    local HOST <const> = [[
#include <lauxlib.h>
#include <lualib.h>
#include <mplua.h>
#include <stdio.h>

int mp_alloc(void); /* a name of the library's, of the host's own */
int mp_alloc(void) { return 1; }

static int use(lua_State *L) {
    if (luaL_dostring(L, "return require 'mp'.Pool(2):"
                         "apply(string.rep, {'ab', 3})") != LUA_OK)
        return puts(lua_tostring(L, -1)) < 0;
    puts(lua_tostring(L, -1));
    lua_close(L);
    return 0;
}

int main(void) {
    lua_State *own = luaL_newstate();
    luaL_openlibs(own);
    return mplua_open(own) + use(own) + use(mplua_newstate());
}
]]

    it("installs, links into a C host, and goes away again", function()
        if helper.sanitized then
            pending("needs a plain build")
        end
        local source = helper.tmpfile(HOST, ".c")
        local text = output([[
            set -e
            sh scripts/install -b "$1" -v 9.9 "$2"
            PKG_CONFIG_PATH=$2/lib/pkgconfig
            export PKG_CONFIG_PATH
            cc -o "$3.out" "$3" $(pkg-config --cflags --libs mplua)
            "$3.out"
            rm "$3.out"
            pkg-config --modversion mplua
            sh scripts/install -u "$2"
            find "$2" -type f]],
            helper.build, helper.tmpdir(), source)
        assert.are.equal("ababab\nababab\n9.9\n", text)
    end)

    it("installs into DESTDIR what will be elsewhere", function()
        local root = helper.tmpdir()
        output([[sh scripts/install -b "$1" -p "$2" /opt/x]], helper.build,
            root)
        local list = output([[cd "$1" && find opt/x -type f]], root)
        for _, path in ipairs{
            "bin/mplua", "lib/lua/5.4/mp/core.so", "share/lua/5.4/mp/init.lua",
            "include/mplua.h", "lib/libmplua.a", "lib/pkgconfig/mplua.pc",
        } do
            contains(list, "opt/x/" .. path .. "\n")
        end
        contains(output([[cat "$1/opt/x/lib/pkgconfig/mplua.pc"]], root),
            "prefix=/opt/x\n")
    end)
end)

-- The harness ----------------------------------------------------------------

describe("house: the leak law", function()
    --- Runs one it() with this body by itself; returns what is reported.
    local function judge(body)
        local path = helper.tmpfile([[
            local lfs = require "lfs"
            local file = io.open("/dev/zero")
            describe("a spec", function()
                it("does something", function() ]] .. body .. [[ end)
            end)]], "_spec.lua")
        local result = helper.run({"spec/run.lua", path},
            {env = {SPEC_GRACE = "0.05"}})
        return result.stdout
    end

    it("has nothing against a clean spec", function()
        contains(judge("local f <close> = io.open('/dev/null')"),
            "1 passed, 0 failed")
        contains(judge("local f = io.open('/dev/null')\n" ..
            "finally(function() f:close() end)"), "1 passed, 0 failed")
    end)

    it("sees a descriptor left open", function()
        local text = judge("rawset(_G, 'f', io.open('/dev/null'))")
        contains(text, "open: /dev/null")
        contains(text, "0 passed, 1 failed")
    end)

    it("sees a descriptor that was not its own closed", function()
        contains(judge("file:close()"), ": /dev/zero")
        contains(judge("file:close()"), "closed descriptor ")
    end)

    it("sees a child left running", function()
        local text = judge("rawset(_G, 'f', io.popen('exec sleep 5'))")
        contains(text, "left a child: ")
        contains(text, "sleep 5")
    end)

    it("sees what is left in the arena", function()
        contains(judge("rawset(_G, 'q', require 'mp'.Queue())"),
            "bytes in the arena")
    end)

    it("sees a changed directory", function()
        contains(judge("lfs.chdir('/')"), "working directory: /, was")
    end)

    it("lets a failure speak for itself", function()
        local text = judge("error('the first fault')")
        contains(text, "the first fault")
        contains(text, "0 passed, 1 failed")
        assert.is_nil(text:find("left something behind", 1, true))
    end)

    it("counts a crash and a hang of a file as failures", function()
        local crash = helper.tmpfile([[
            it("dies", function() os.execute("kill -TERM $PPID") end)
        ]], "_spec.lua")
        local hang = helper.tmpfile([[
            it("never ends", function() while true do end end)
        ]], "_spec.lua")
        local result = sh([[SECONDS_PER_FILE=1 sh scripts/spec -b "$1" \
            lua "$2" "$3"]], helper.build, crash, hang)
        assert.are.equal(1, result.code)
        contains(result.stdout, "broke off with exit code 143")
        contains(result.stdout, "not done in 1 s")
        contains(result.stdout, "while running: never ends")
        contains(result.stdout, "\n0 passed, 2 failed\n")
    end)
end)

describe("house: the C harness", function()
    local SPECS <const> = [[
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include "harness.h"
static void hang(void *unused) { (void)unused; for (;;) pause(); }
static void orphan(void *unused) { if (fork() == 0) hang(unused); }
static void wrong(void *unused) { (void)unused; CHECK(1 == 2); }
SPEC("good") { CHECK_EQ(1, 1); CHECK_STR("a", "a"); CHECK_SOON(1); }
SPEC("unequal") { CHECK_EQ(-11, 0); }
SPEC("descriptor") { open("/dev/null", O_RDONLY); }
SPEC("child") { spec_fork(hang, NULL); }
SPEC("orphan") { spec_wait(spec_fork(orphan, NULL)); }
SPEC("crash") { raise(SIGSEGV); }
SPEC("early end") { exit(0); }
SPEC_WITHIN(1, "hang") { hang(NULL); }
SPEC("directory") { if (chdir("/")) abort(); }
SPEC("fault in a child") { spec_wait(spec_fork(wrong, NULL)); }
SPEC("mask") {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
}
]]

    it("sees what it is there to see", function()
        if helper.sanitized then
            pending("needs a plain build")
        end
        local source = helper.tmpfile(SPECS, ".c")
        local program = helper.tmpname(".out")
        assert.are.equal("", output([[
            cc -D_GNU_SOURCE -Iruntime -Ispec/runtime -o "$3" "$2" \
                "$1/spec/runtime/harness.o" "$1"/runtime/*/*.o -lm -pthread]],
            helper.build, source, program))
        local result = helper.run({}, {program = program})
        contains(result.stdout, "\n1 passed, 10 failed\n")
        for _, words in ipairs{
            "-11 is -11, not 0", "open: /dev/null", "left a live child",
            "left processes that run on", "ended by signal 11",
            "ended early, by exit code 0", "did not end in 1 s",
            "working directory at /", "CHECK(1 == 2)", "signal 10 blocked",
        } do
            contains(result.stderr, words)
        end
    end)
end)

-- Lint and deps --------------------------------------------------------------

describe("house: lint", function()
    local README <const> =
        "```\nruntime/  C\n  base/\n  os/\n  mem/\nlua/\n  gone.c\n```\n"

    --- The findings of a tree with these files.
    local function lint(files)
        local root = helper.tmpdir()
        for path, text in pairs(files) do
            output([[mkdir -p "$(dirname "$1")"]], root .. "/" .. path)
            local file <close> = assert(io.open(root .. "/" .. path, "w"))
            file:write(text)
        end
        local result = sh([[sh scripts/lint "$1"]], root)
        assert.are.equal("", result.stderr)
        assert.are.equal(1, result.code)
        return result.stdout
    end

    it("finds includes that go up, beside or into Lua", function()
        local text = lint{
            ["runtime/base/a.h"] = "",
            ["runtime/mem/m.h"] = '#include "base/a.h"\n',
            ["runtime/sync/s.h"] = '#include "mem/m.h"\n',
            ["runtime/proc/p.c"] = '#include "sync/s.h"\n',
            ["runtime/base/b.c"] = '#include "mem/m.h"\n#include "no.h"\n',
            ["runtime/os/o.c"] = '#include <lua.h>\n/*\n#include "x.h"\n*/\n',
        }
        contains(text, "runtime/proc/p.c:1: runtime/proc must not include " ..
            "runtime/sync/s.h (beside it)")
        contains(text, "runtime/base/b.c:1: runtime/base must not include " ..
            "runtime/mem/m.h (a floor above)")
        contains(text, 'runtime/base/b.c:2: includes "no.h", which is nowhere')
        contains(text, "runtime/os/o.c:1: runtime/ never includes lua.h")
        assert.is_nil(text:find("runtime/mem/m.h:1", 1, true))
        assert.is_nil(text:find("x.h", 1, true))
    end)

    it("finds shared structs without a size, printing, marks", function()
        local mark = "TO" .. "DO"
        local text = lint{
            ["runtime/mem/a.h"] = "struct a_shm {\n    int x;\n};\n" ..
                "typedef struct b_shm {\n    int x;\n} b_shm;\n",
            ["runtime/mem/a.c"] = '_Static_assert(sizeof(b_shm) == 4, "");\n',
            ["runtime/os/b.c"] = 'void f(void) { printf("x"); _exit(1); }\n' ..
                "/* " .. mark .. " */\n\t\n",
        }
        contains(text,
            "runtime/mem/a.h:1: no _Static_assert on the size of a_shm")
        assert.is_nil(text:find("b_shm", 1, true))
        contains(text, "runtime/os/b.c:1: printf() in runtime/")
        assert.is_nil(text:find("exit()", 1, true))
        contains(text, "runtime/os/b.c:2: " .. mark .. " left behind")
        contains(text, "runtime/os/b.c:3: tab")
    end)

    it("finds globals, bad syntax and long lines in Lua", function()
        local text = lint{
            ["lua/mp/a.lua"] = "x = 1\nlocal function f() y = print end\n" ..
                "local z = undefined.name\n",
            ["lua/mp/b.lua"] = "local x = = 1\n",
            ["spec/a_spec.lua"] = "describe('x', function() end)\n" ..
                "local x = '" .. ("x"):rep(100) .. "'\n",
        }
        contains(text, "lua/mp/a.lua:1: sets the global 'x'")
        contains(text, "lua/mp/a.lua:2: sets the global 'y'")
        contains(text, "lua/mp/a.lua:3: reads the unknown global 'undefined'")
        contains(text, "lua/mp/b.lua:1: unexpected symbol")
        contains(text, "spec/a_spec.lua:2: 112 columns")
        assert.is_nil(text:find("describe", 1, true))
    end)

    it("holds the README's tree against the files", function()
        local text = lint{
            ["README.md"] = README,
            ["runtime/base/a.h"] = "", ["runtime/os/a.h"] = "",
            ["lua/a.h"] = "", ["lua/bind/a.h"] = "", Makefile = "",
        }
        contains(text, "README.md:5: runtime/mem does not exist")
        contains(text, "README.md:7: lua/gone.c does not exist")
        contains(text, "the tree does not name lua/bind")
        contains(text, "the tree does not name Makefile")
        assert.is_nil(text:find("not name runtime", 1, true))
        contains(lint{["lua/a.h"] = ""}, "README.md:1: is missing")
    end)
end)

describe("house: deps", function()
    it("says and does nothing when nothing is missing", function()
        assert.are.equal("", output("sh scripts/deps"))
    end)

    --- Runs it where only these commands exist ({name = text}).
    local function run_among(commands)
        local bin = helper.tmpdir()
        for name, text in pairs(commands) do
            local path = bin .. "/" .. name
            do
                local file <close> = assert(io.open(path, "w"))
                file:write("#!/bin/sh\n", text, "\n")
            end
            output([[chmod +x "$1"]], path)
        end
        return sh("PATH=$1; . scripts/deps", bin)
    end

    it("names what is missing where there is no apt-get", function()
        local result = run_among{}
        assert.are.equal(1, result.code)
        contains(result.stderr, "gcc")
        contains(result.stderr, "liblua5.4-dev lua5.4 lua-busted")
    end)

    it("installs by apt-get, through sudo when it is not root", function()
        local result = run_among{
            id = "echo 1000",
            sudo = 'shift; echo "sudo $*"; "$@"',
            env = 'shift; "$@"',
            ["apt-get"] = 'case $* in *install*) [ -e "${0%/*}/new" ];; ' ..
                '*update*) : >"${0%/*}/new";; esac',
        }
        assert.are.equal(0, result.code)
        local first, update, second, wanted = result.stdout:match(
            "(sudo env DEBIAN_FRONTEND=noninteractive apt%-get [^\n]+)\n" ..
            "(sudo [^\n]+)\n(sudo [^\n]+)\n(sudo [^\n]+)\n$")
        contains(first, "install -y -q --no-install-recommends make gcc")
        contains(update, "apt-get update")
        assert.are.equal(first, second)
        contains(wanted, "--no-install-recommends spin valgrind")
    end)

    it("goes on without what only lets more specs run", function()
        local result = run_among{
            id = "echo 0", env = 'shift; "$@"',
            ["apt-get"] = 'case $* in *spin*) exit 1;; esac',
        }
        assert.are.equal(0, result.code)
        contains(result.stdout, "without spin valgrind some specs are skipped")
    end)
end)

-- The inventory ---------------------------------------------------------------

describe("house: the inventory", function()
    --- What scripts/inventory prints of a tree with these files.
    local function inventory(files)
        local root = helper.tmpdir()
        output([[mkdir -p "$1/spec/runtime" "$1/spec/crash"]], root)
        for path, text in pairs(files) do
            local file <close> = assert(io.open(root .. "/" .. path, "w"))
            file:write(text)
        end
        return sh([[sh scripts/inventory "$1"]], root)
    end

    local ROWS <const> = "# A family\nABC-01  one\nABC-02  two\n"
        .. "-ABC-03  three, which\n         is none\nT-X-01  four\n"

    it("is covered by the specs", function()
        local result = sh("sh scripts/inventory")
        assert.are.equal("", result.stderr)
        assert.are.equal(0, result.code, result.stdout)
    end)

    it("ticks rows from titles in Lua and in C", function()
        local result = inventory{
            ["spec/inventory.txt"] = ROWS,
            ["spec/a_spec.lua"] = 'it("ABC-01 does", function() end)\n'
                .. 'it("so do other things and T-X" ..\n'
                .. '    "-01", function() end)\n',
            ["spec/runtime/a_spec.c"] = '\nSPEC("a: ABC-02 does") {\n}\n',
        }
        assert.are.equal(0, result.code)
        contains(result.stdout, "ABC     2 of   2\n")
        contains(result.stdout, "[-] ABC-03   three, which is none\n")
        contains(result.stdout, "3 of 3 rows, 100.0 %\n")
    end)

    it("fails for a row without a spec, and a title without a row",
        function()
        local result = inventory{
            ["spec/inventory.txt"] = ROWS,
            ["spec/a_spec.lua"] = 'it("ABC-01 ABC-07 does", function()\n'
                .. '    -- ABC-02 is not in a title\nend)\n',
            ["spec/crash/a.c"] = 'x = {.name = "a: T-X-01, killed",',
        }
        assert.are.equal(1, result.code)
        contains(result.stdout, "[ ] ABC-02   two\n")
        contains(result.stdout, "spec/a_spec.lua:1: there is no row ABC-07\n")
        contains(result.stdout, "2 of 3 rows, 66.7 %\n")
    end)
end)
