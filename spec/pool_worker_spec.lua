-- Pool: what a task finds around it, pools in other processes, and pools
-- without resources.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local square, sleep = tools.square, tools.sleep

describe("mp.worker", function()
    it("gets a job once, shared objects in its upvalues or not", function()
        local decoded <close> = mp.RawValue("i")
        local counted = setmetatable({}, {__reduce = function()
            return function(n) n:add(1) return {} end, decoded
        end})
        local k = 1
        local function job(x)
            return x + k + #counted
        end
        do
            local pool <close> = mp.Pool(2)
            pool:map(job, mp.range(100), 1)
            for i = 1, 20 do
                assert.are.equal(i + 1, pool:apply(job, {i}))
            end
            assert.is_true(decoded.value <= 2, decoded.value)
            k = 2 -- another job
            assert.are.equal(3, pool:apply(job, {1}))
        end
    end)

    it("has id, state and index, and nothing outside", function()
        local pool <close> = mp.Pool(2)
        assert.is_nil(mp.worker.id)
        assert.is_nil(mp.worker.index)
        assert.are.same({1, 2, 3, n = 3}, pool:map(function()
            return require "mp".worker.index
        end, {7, 7, 7}))
        local one <close> = mp.Pool(1)
        for i = 1, 3 do
            assert.are.equal(i, one:apply(function()
                local state = require "mp".worker.state
                state.n = (state.n or 0) + 1
                return state.n
            end))
        end
        assert.is_nil(mp.worker.state.n)
    end)

    it("is a daemon process named after its number", function()
        local pool <close> = mp.Pool(1)
        local name, daemon, parent, pid = pool:apply(function()
            local m = require "mp"
            local p = m.current_process()
            return p.name, p.daemon, m.parent_process().pid, p.pid
        end)
        assert.is_string(name)
        assert.is_true(daemon)
        assert.are.equal(mp.getpid(), parent)
        assert.are.equal(pool._core:pids()[1], pid)
    end)

    it("reads nothing from stdin, and draws its own numbers", function()
        local pool <close> = mp.Pool(4)
        assert.are.equal("", pool:apply(function()
            return io.read("a")
        end))
        local seen = {}
        for _, x in ipairs(pool:map(function()
            require "mp".sleep(0.01)
            return math.random(1 << 60)
        end, mp.range(16), 1)) do
            assert.is_nil(seen[x])
            seen[x] = true
        end
    end)
end)

describe("a task", function()
    it("may print whole lines, and close stdout (T-W-45)", function()
        local run = tools.script [[
            local mp = require "mp"
            local pool <close> = mp.Pool(2)
            pool:map(function(x)
                print(("line %04d"):format(x))
            end, mp.range(200), 1)
            pool:map(function() io.stdout:close() end, {1})
            print(pool:apply(math.abs, {-3}))
        ]]
        assert.are.equal(0, run.code)
        local n = 0
        for line in run.stdout:gmatch("[^\n]+") do
            n = n + (line:match("^line %d%d%d%d$") and 1 or 0)
            assert.is_true(line == "3" or line:match("^line %d%d%d%d$")
                ~= nil)
        end
        assert.are.equal(200, n)
    end)

    it("may start a process (POL-24)", function()
        local pool <close> = mp.Pool(2)
        assert.are.same({0, 7, n = 2}, pool:map(function(code)
            local m = require "mp"
            local p <close> = m.Process {
                target = function() os.exit(code) end,
            }
            p:start()
            p:join()
            return p.exitcode
        end, {0, 7}))
    end)

    it("may have a pool of its own (PAIN-25)", function()
        local pool <close> = mp.Pool(2)
        assert.are.same({14, 14, n = 2}, pool:map(function()
            local m = require "mp"
            local inner <close> = m.Pool(2)
            local sum = 0
            for _, v in ipairs(inner:map(function(x) return x * x end,
                {1, 2, 3})) do
                sum = sum + v
            end
            return sum
        end, {1, 2}, 1))
    end)

    it("may leave a pool of its own open", function()
        local pool = mp.Pool(1)
        local pids = pool:apply(function()
            local m = require "mp"
            local inner = m.Pool(2)
            m.worker.state.inner = inner
            inner:map_async(m.sleep, {60, 60})
            return inner._core:pids()
        end)
        assert.are.equal(2, #pids)
        pool:close()
        pool:join()
        tools.soon_gone(pids)
    end)
end)

describe("a pool in another process", function()
    local function in_child(f, ...)
        local out <close> = mp.SimpleQueue()
        local p <close> = mp.Process {target = f, args = {out, ...}}
        p:start()
        local got = out:get()
        p:join(10)
        return got, p.exitcode
    end

    it("works when it was made there", function()
        local got, code = in_child(function(out)
            local pool <close> = require "mp".Pool(2)
            out:put(pool:map(function(x) return x + 1 end, {1, 2}))
        end)
        assert.are.same({2, 3, n = 2}, got)
        assert.are.equal(0, code)
    end)

    it("is refused when it came by fork, and stays whole", function()
        local pool <close> = mp.Pool(1)
        local r = pool:apply_async(sleep, {0.2})
        local kinds = in_child(function(out)
            local kinds = {}
            for _, f in ipairs {
                function() pool:apply(square, {1}) end,
                function() pool:map(square, {1}) end,
                function() pool:imap(square, {1}) end,
                function() pool:terminate() end,
                function() r:get() end,
            } do
                local ok, e = pcall(f)
                kinds[#kinds + 1] = not ok and e.kind or "none"
            end
            out:put(kinds)
        end)
        for _, kind in ipairs(kinds) do
            assert.are.equal("StateError", kind)
        end
        assert.are.equal(5, #kinds)
        assert.are.equal(0.2, r:get())
        assert.are.equal(9, pool:apply(square, {3}))
    end)

    it("that is collected there does not stop it here", function()
        local pool <close> = mp.Pool(1)
        local holder = {pool = pool}
        local got = in_child(function(out)
            getmetatable(holder.pool._core).__gc(holder.pool._core)
            getmetatable(holder.pool).__close(holder.pool)
            out:put("collected")
        end)
        assert.are.equal("collected", got)
        assert.are.equal(9, pool:apply(square, {3}))
    end)
end)

describe("Pool() without resources", function()
    --- Runs a script under a limit of the shell's `ulimit`.
    local function limited(ulimit, text)
        return helper.run({"-c", ulimit .. ' && exec "$0" -e "$1"',
            helper.mplua, text}, {program = "/bin/sh", timeout = 20})
    end

    it("raises OSError when descriptors are used up", function()
        local run = limited("ulimit -n 20", [[
            local mp = require "mp"
            local core = require "mp.core"
            mp.Lock()
            local files = {}
            repeat
                files[#files + 1] = io.open("/dev/null")
            until not io.open("/dev/null")
            local ok, e = pcall(mp.Pool, 4)
            print(ok or e.kind, ok or e.message)
            if ok then e:terminate() e = nil end
            collectgarbage()
            files = nil
            collectgarbage()
            print(#core.debug.children(), core.debug.objects())
            local pool <close> = mp.Pool(2)
            print(pool:apply(math.abs, {-5}))
        ]])
        assert.are.equal("", run.stderr)
        assert.matches("0\t0\n5\n$", run.stdout)
        assert.are.equal(0, run.code)
    end)

    it("raises OSError when some workers cannot be had", function()
        -- The leak checker needs one of its own.
        for limit = helper.sanitized and 10 or 6, 22, 2 do
            local run = limited("ulimit -n " .. limit, [[
                local mp = require "mp"
                local ok, e = pcall(mp.Pool, 12)
                if ok then
                    assert(e:apply(math.abs, {-5}) == 5)
                    e:close()
                    e:join()
                else
                    assert(e.kind == "OSError", e)
                end
                e = nil
                collectgarbage()
                print(require "mp.core".debug.objects())
            ]])
            assert.are.equal("", run.stderr)
            assert.are.equal("0\n", run.stdout)
            assert.are.equal(0, run.code)
        end
    end)

    it("raises OSError when no process can be had", function()
        -- The other user may not be let into the place of the build.
        local copy = helper.tmpdir() .. "/mplua"
        assert.is_true(os.execute(("cp '%s' '%s' && chmod 755 '%s' '%s'")
            :format(helper.mplua, copy, copy, copy:match("^(.*)/"))))
        local run = helper.run({"-c", [[
            exec setpriv --reuid=54321 --clear-groups prlimit --nproc=4 \
                "$0" -e "$1"
        ]], copy, [[
            local mp = require "mp"
            local core = require "mp.core"
            local lock = mp.Lock()
            local before = core.debug.arena_bytes()
            local ok, e = pcall(mp.Pool, 12)
            print(ok, e.kind, e.code)
            collectgarbage()
            print(#core.debug.children(), core.debug.objects(),
                core.debug.arena_bytes() - before)
            local pool <close> = mp.Pool(1)
            print(pool:apply(math.abs, {-5}))
            lock = nil
        ]]}, {program = "/bin/sh", timeout = 20})
        if run.stderr:match("setpriv") then
            pending("setpriv needs root")
            return
        end
        assert.are.equal("", run.stderr)
        assert.are.equal("false\tOSError\tEAGAIN\n0\t1\t0\n5\n", run.stdout)
    end)
end)
