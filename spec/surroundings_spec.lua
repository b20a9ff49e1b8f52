--- Children where something is odd: descriptors that are closed or few, no
-- working directory, an environment, an `arg` or a package.path that nobody
-- expects. What the parent can do, they can.

local helper = require "spec.helper"

-- A process and a pool by each method say how they find what was told of.
local SCRIPT <const> = [[
    local mp = require "mp"
    local told = mp.Queue()
    local function look()
        told:put{path = package.path, cpath = package.cpath, arg = arg,
            big = #(os.getenv("BIG") or "")}
    end
    local out = assert(io.open(OUT, "w"))
    for _, method in ipairs{"fork", "spawn", "forkserver", "thread"} do
        local ok, e = pcall(function()
            local ctx = mp.get_context(method)
            local p <close> = ctx.Process{target = look}
            p:start()
            assert(p:join(20) and p.exitcode == 0, p.exitcode)
            local got = told:get(true, 0)
            assert(got.path == package.path, "path")
            assert(got.cpath == package.cpath, "cpath")
            assert((got.arg == nil) == (arg == nil), "arg")
            for i, word in pairs(arg or {}) do
                if math.type(i) == "integer" and type(word) == "string" then
                    assert(got.arg[i] == word, "arg")
                end
            end
            local pool <close> = ctx.Pool(2)
            assert(pool:map(math.abs, {-1, -2})[2] == 2)
            return got.big
        end)
        out:write(method, " ", tostring(e), "\n")
    end
    out:close()
]]

--- What the script writes to its file, and what it says on stderr.
-- @param before Lua text in front of it
-- @param shell text around the command, `%s`
local function results(before, shell, env)
    local out = helper.tmpname()
    local script = helper.tmpfile(("local OUT = %q %s\n"):format(out, before)
        .. SCRIPT, ".lua")
    local command = "exec " .. helper.quote(helper.mplua) .. " "
        .. helper.quote(script) .. " word"
    local result = helper.run({"-c", (shell or "%s"):gsub("%%s",
        function() return command end)}, {program = "/bin/sh", env = env,
        timeout = 60})
    assert.is_false(result.timed_out, result.stderr)
    local file <close> = assert(io.open(out))
    return file:read("a"), result.stderr
end

local function all(value)
    return ("fork %s\nspawn %s\nforkserver %s\nthread %s\n"):format(value,
        value, value, value)
end

describe("children find", function()
    it("what the parent has, where all is as usual", function()
        assert.are.equal(all(0), (results("")))
    end)

    for name, closing in pairs{stdin = "<&-", stdout = ">&-", stderr = "2>&-",
        ["stdin and stdout"] = "<&- >&-", ["all three"] = "<&- >&- 2>&-"} do
        it(name .. " closed, as the parent does", function()
            local text, said = results("", "%s " .. closing)
            assert.are.equal(all(0), text)
            assert.are.equal("", said)
        end)
    end

    it("no working directory, as the parent does", function()
        local dir = helper.tmpdir()
        assert.are.equal(all(0), (results("", ("cd %s && rmdir %s && %%s")
            :format(dir, dir))))
    end)

    it("an environment of a megabyte", function()
        -- A word of it may have 128 kB.
        local shell = "B=$(head -c 100000 /dev/zero | tr '\\0' x) ; "
            .. "export BIG=$B B1=$B B2=$B B3=$B B4=$B B5=$B B6=$B B7=$B "
            .. "B8=$B B9=$B; %s"
        assert.are.equal(all(100000), (results("", shell)))
    end)

    it("no LUA_INIT to run", function()
        local text, said = results("", "%s",
            {LUA_INIT = "io.stderr:write('[init]')"})
        assert.are.equal(all(0), text)
        assert.are.equal("[init]", said)
    end)

    it("a package.path with quotes, newlines, zeros and percent signs",
        function()
        assert.are.equal(all(0), (results([==[
            package.path = package.path .. ";/tmp/'q\"u%d%s%%\\o]]" ..
                "\n\r\0]=];BOOT_FD;BOOT_REF;BOOT_TEXT;/x/?.lua"
            package.cpath = package.path]==])))
    end)

    it("an `arg` with odd values", function()
        assert.are.equal(all(0), (results([[
            arg[5], arg[-7] = "%d\0'\"\n", ("y"):rep(100000)
            arg.x, arg[2], arg[2.5] = {}, print, "half"]])))
        assert.are.equal(all(0), (results("arg = nil")))
    end)

    it("a package.path that fits no command line, or start() says so",
        function()
        local text = results('package.path = ("x"):rep(200000)')
        local problem = "[^\n]*OSError: cannot start a process: "
            .. "/proc/self/exe: Argument list too long\n"
        assert.matches("^fork 0\nspawn " .. problem .. "forkserver "
            .. problem .. "thread 0\n$", text)
    end)
end)

describe("descriptors that are few", function()
    for _, n in ipairs{9, 10, 11, 12, 14, 16, 18, 22} do
        it(("are used up by nobody for ever: %d"):format(n), function()
            local text, said = results("", "ulimit -n " .. n .. "; %s")
            -- Each method works, or says what is missing.
            for line in text:gmatch("[^\n]+") do
                if not line:match("^%a+ 0$") then
                    assert.matches("^%a+ [^\n]*OSError: .*Too many open files",
                        line)
                end
            end
            assert.are.equal(4, select(2, text:gsub("\n", "")))
            assert.are.equal("", said)
        end)
    end

    it("that are enough again will do", function()
        local result = helper.run({helper.tmpfile([[
            local mp = require "mp"
            local files = {}
            for _, method in ipairs{"spawn", "forkserver", "thread"} do
                local ctx = mp.get_context(method)
                mp.Lock()
                repeat
                    local file = io.open("/dev/null")
                    files[#files + 1] = file
                until not file
                local p <close> = ctx.Process{target = os.exit, args = {3}}
                local ok, e = pcall(p.start, p)
                for i = #files, 1, -1 do -- libc finds the last first
                    files[i]:close()
                    files[i] = nil
                end
                if not ok then
                    assert(mp.iserror(e, "OSError") and e.code == "EMFILE",
                        tostring(e))
                    p:start()
                end
                print(p:join(20), p.exitcode)
            end]], ".lua")})
        assert.are.equal("", result.stderr)
        assert.are.equal(("true\t3\n"):rep(3), result.stdout)
    end)
end)

describe("processes that are few", function()
    -- Root is bound by no such limit.
    local function can()
        return not helper.sanitized and os.execute("test $(id -u) = 0 && "
            .. "command -v setpriv prlimit >/dev/null && setpriv --reuid "
            .. "65534 --clear-groups test -x " .. helper.quote(helper.mplua))
    end

    for _, n in ipairs{1, 2, 3, 4, 6} do
        it(("are no reason to hang, or to leave something: %d"):format(n),
            function()
            if not can() then
                return
            end
            local script = helper.tmpfile([[
                local mp = require "mp"
                for _, method in ipairs(mp.get_all_start_methods()) do
                    local ok, e = pcall(function()
                        local ctx = mp.get_context(method)
                        local p <close> = ctx.Process{target = os.exit,
                            args = {3}}
                        p:start()
                        assert(p:join(20) and p.exitcode == 3, p.exitcode)
                        local pool <close> = ctx.Pool(1)
                        return pool:apply(math.abs, {-1})
                    end)
                    print(method, ok and "ok" or e.code or tostring(e))
                end]], ".lua")
            os.execute("chmod a+r " .. script)
            local result = helper.run({"--nproc=" .. n, "setpriv", "--reuid",
                "65534", "--clear-groups", helper.mplua, script},
                {program = "prlimit"})
            assert.are.equal(0, result.code, result.stderr)
            for line in result.stdout:gmatch("[^\n]+") do
                assert.is_truthy(line:match("\tok$") or
                    line:match("\tEAGAIN$"), line)
            end
            assert.are.equal(4, select(2, result.stdout:gsub("\n", "")))
        end)
    end
end)
