-- mp.util: finalizers, the exit, forks, temporary files, log lines.

local helper = require "spec.helper"
local lfs = require "lfs"
local mp = require "mp"

local util = mp.util

--- What a program prints; it must end well.
local function output(script, ...)
    local result = helper.run({"-e", ([[
        local mp = require "mp"
        local util = mp.util
        io.stdout:setvbuf("line")
        local function say(...) print(...) end
        ]] .. script):format(...)})
    assert.are.equal("", result.stderr)
    assert.are.equal(0, result.code)
    return result.stdout
end

describe("util.Finalize", function()
    it("UTL-01 is called when its object is collected, once", function()
        local calls = {}
        local object = {}
        local first = util.Finalize(object, function(...)
            calls[#calls + 1] = table.pack(...)
        end, {1, nil, n = 2})
        local second = util.Finalize(object, function(b)
            calls[#calls + 1] = b
        end, nil, {b = "named"})
        collectgarbage()
        assert.are.equal(0, #calls)
        object = nil
        collectgarbage()
        collectgarbage()
        assert.are.same({"named", {1, nil, n = 2}}, calls)
        assert.is_false(first:still_active() or second:still_active())
        assert.is_nil(object)
    end)

    it("UTL-02 is called by hand, or cancelled", function()
        local calls = 0
        local function count(n) calls = calls + n return "result" end
        local object = {}
        local f = util.Finalize(object, count, {1})
        assert.is_true(f:still_active())
        assert.are.equal("result", f())
        assert.is_nil(f())
        assert.is_false(f:still_active())
        assert.are.equal("<Finalize object, dead>", tostring(f))
        local g = util.Finalize(object, count, {10}, nil, 5)
        assert.are.equal("<Finalize object, exitpriority=5>", tostring(g))
        g:cancel()
        g:cancel()
        assert.is_nil(g())
        assert.are.equal(1, calls)
    end)

    it("UTL-01 E: arguments that are none", function()
        local text = helper.failure("ValueError", util.Finalize, nil, print)
        assert.truthy(text:find("without object, exitpriority cannot be nil",
            1, true))
        text = helper.failure("TypeError", util.Finalize, {}, print, nil, nil,
            "high")
        assert.truthy(text:find("exitpriority ('high') must be nil or an "
            .. "integer", 1, true))
        helper.failure("TypeError", util.Finalize, {}, 5)
        helper.failure("TypeError", util.Finalize, {})
        helper.failure("TypeError", util.Finalize, "text", print)
        helper.failure("TypeError", util.Finalize, {}, print, {}, {x = 1}, 1,
            2)
        helper.failure("TypeError", util.Finalize.cancel, {})
    end)

    it("UTL-01 is not called by a child that is a copy", function()
        assert.are.equal("child\nhere\n", output[[
            util.Finalize(nil, say, {"here"}, nil, 0)
            local object = {}
            util.Finalize(object, say, {"never"})
            local p = mp.Process{target = function()
                object = nil
                collectgarbage()
                collectgarbage()
                say("child")
            end}
            p:start()
            p:join()
            util.Finalize(object, say, {"nor at the exit"})]])
    end)
end)

describe("util: the exit", function()
    it("UTL-05 calls finalizers, ends daemons, awaits children, and calls "
        .. "the rest", function()
        assert.are.equal("10\n1 newer\n1\ntrue\ttrue\nawaited\n"
            .. "true\tfalse\n-5\n", output[[
            local e = mp.Event()
            local function state(d) say(util.is_exiting(), d:is_alive()) end
            util.Finalize(nil, say, {-5}, nil, -5)
            util.Finalize(nil, say, {1}, nil, 1)
            util.Finalize(nil, say, {10}, nil, 10)
            util.Finalize(nil, say, {"1 newer"}, nil, 1)
            local d = mp.Process{target = mp.sleep, args = {30}, daemon = true}
            d:start()
            local p = mp.Process{target = function()
                e:wait()
                say("awaited")
            end}
            p:start()
            util.Finalize(nil, function() state(d) e:set() end, nil, nil, 0)
            util.Finalize(nil, state, {d}, nil, -1)
            assert(not util.is_exiting())]])
    end)

    it("UTL-05 comes in each child, however it ends", function()
        for _, method in ipairs{"fork", "spawn", "forkserver", "thread"} do
            for _, ending in ipairs{"", "os.exit(0)"} do
                assert.are.equal("child\ndone\n", output([[
                    local p = mp.get_context(%q).Process{target = function()
                        require("mp").util.Finalize(nil, print, {"done"}, nil,
                            1)
                        print("child")
                        %s
                    end}
                    p:start()
                    p:join()]], method, ending))
            end
        end
    end)

    it("UTL-05 comes when the state is closed, and goes on after errors",
        function()
        local result = helper.run({"-e", [[
            local util = require("mp").util
            util.Finalize(nil, print, {"second"}, nil, 1)
            util.Finalize(nil, error, {"a fault"}, nil, 2)
            os.exit(7, true)]]})
        assert.are.equal(7, result.code)
        assert.are.equal("second\n", result.stdout)
        assert.truthy(result.stderr:find("a fault", 1, true))
    end)

    it("UTL-05 finds what is older than a finalizer whole", function()
        assert.are.equal("5\n", output[[
            local q = mp.Queue()
            util.Finalize(nil, function() say(q:get()) end, nil, nil, 0)
            q:put(5)]])
    end)
end)

describe("util: around a process", function()
    it("UTL-03 calls what is registered in each copy, in order", function()
        assert.are.equal("a\t1\nb\t1\na\t2\n", output[[
            local one, two = {1}, {2}
            mp.log_to_stderr("error")
            util.register_after_fork(one, function(o) say("a", o[1]) end)
            util.register_after_fork(one, function() error("ignored") end)
            util.register_after_fork(one, function(o) say("b", o[1]) end)
            util.register_after_fork(two, function(o) say("a", o[1]) end)
            util.register_after_fork({3}, function(o) say("gone", o[1]) end)
            collectgarbage()
            local p = mp.Process{target = function() end}
            p:start()
            p:join()]])
    end)

    it("UTL-03 E: what is no object, no function", function()
        helper.failure("TypeError", util.register_after_fork, 5, print)
        helper.failure("TypeError", util.register_after_fork, {}, 5)
    end)

    it("UTL-04 has a directory until its exit", function()
        local dir = helper.tmpdir()
        for _, ending in ipairs{"", "os.exit(0)", "error('x')"} do
            local result = helper.run({"-e", [[
                local mp = require "mp"
                local dir = mp.util.get_temp_dir()
                print(dir, dir == mp.util.get_temp_dir())
                os.execute("mkdir -p " .. dir .. "/a/b")
                os.execute("touch " .. dir .. "/a/b/c")
                os.execute("ln -s / " .. dir .. "/link")
                local p = mp.Process{target = function()
                    assert(dir == mp.util.get_temp_dir())
                end}
                p:start()
                p:join()
                print(io.open(dir .. "/a/b/c") ~= nil) ]] .. ending},
                {env = {TMPDIR = dir}})
            local path = result.stdout:match("^(%g+)\ttrue\ntrue\n$")
            assert.are.equal(dir, path:match("^(.*)/mplua%-%w+$"))
            assert.is_nil(lfs.attributes(path))
        end
        local result = helper.run({"-e", [[
            local e = select(2, pcall(require("mp").util.get_temp_dir))
            print(e.kind, e.code)]]}, {env = {TMPDIR = dir .. "/none"}})
        assert.are.equal("OSError\tENOENT\n", result.stdout)
    end)

    it("UTL-04 keeps its directory when a thread ends", function()
        local result = helper.run{"-e", [[
            local mp = require "mp"
            local dir = mp.util.get_temp_dir()
            local p = mp.get_context("thread").Process{target = function()
                assert(mp.util.get_temp_dir() == dir)
            end}
            p:start()
            p:join()
            local f = assert(io.open(dir .. "/f", "w"))
            f:close()
            print(p.exitcode, dir == mp.util.get_temp_dir())]]}
        assert.are.equal("0\ttrue\n", result.stdout, result.stderr)
    end)

    it("UTL-04 removes the directories of workers", function()
        for _, method in ipairs(mp.get_all_start_methods()) do
            local result = helper.run{"-e", ([[
                local mp = require "mp"
                local pool = mp.get_context("%s").Pool(1)
                print(pool:apply(function()
                    return require("mp.util").get_temp_dir()
                end))
                pool:close()
                pool:join()]]):format(method)}
            local path = result.stdout:match("^(%g+)\n$")
            assert.is_nil(lfs.attributes(path), method)
        end
    end)

    it("UTL-06 logs, once log_to_stderr was called", function()
        local result = helper.run({"-e", [[
            local mp = require "mp"
            local util = mp.util
            util.debug("silent")
            mp.log_to_stderr(util.SUBDEBUG)
            util.sub_debug("a %d", 5)
            util.debug("b")
            util.info("c")
            util.sub_warning("d")
            mp.get_logger():set_level(util.SUBWARNING)
            util.info("silent")
            util.sub_warning("e")]]})
        assert.are.equal("[SUBDEBUG/MainProcess] a 5\n"
            .. "[DEBUG/MainProcess] b\n[INFO/MainProcess] c\n"
            .. "[SUBWARNING/MainProcess] d\n[SUBWARNING/MainProcess] e\n",
            result.stderr)
    end)
end)
