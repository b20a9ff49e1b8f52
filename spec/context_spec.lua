-- Start methods and contexts.

local helper = require "spec.helper"
local mp = require "mp"
local start = require "spec.start_tools"

start.start_server()

local failure = helper.failure

local METHODS <const> = {"fork", "spawn", "forkserver", "thread"}

describe("a context", function()
    it("MOD-08 is there for each method, the same each time", function()
        for _, method in ipairs(METHODS) do
            local context = mp.get_context(method)
            assert.are.equal(context, mp.get_context(method))
            assert.are.equal(("<Context '%s'>"):format(method),
                tostring(context))
            assert.are.equal(method, context.get_start_method())
            assert.are.equal(context, context.get_context())
            assert.are.equal(mp.get_context("fork"),
                context.get_context("fork"))
        end
    end)

    it("MOD-08 is not there for what is no method", function()
        assert.are.equal("cannot find context for 'bad'",
            failure("ValueError", mp.get_context, "bad"))
        assert.are.equal("cannot find context for 5",
            failure("ValueError", mp.get_context, 5))
        assert.are.equal("cannot find context for 'bad'",
            failure("ValueError", mp.get_context("fork").get_context, "bad"))
    end)

    it("MOD-09 is one of a list, the default first", function()
        local methods = mp.get_all_start_methods()
        assert.are.equal("fork", methods[1])
        table.sort(methods)
        local wanted = table.move(METHODS, 1, #METHODS, 1, {})
        table.sort(wanted)
        assert.are.same(wanted, methods)
    end)

    it("MOD-16 has all that mp has, and constructors of its own", function()
        local own = {Process = true, Pool = true}
        for _, method in ipairs(METHODS) do
            local context = mp.get_context(method)
            for name, value in pairs(mp) do
                if own[name] then
                    assert.are_not.equal(value, context[name])
                elseif not name:find("context")
                    and not name:find("start_method$") then
                    assert.are.equal(value, context[name])
                end
            end
        end
    end)

    it("MOD-17 starts its processes, and their subclasses, by its method",
        function()
        for _, method in ipairs(METHODS) do
            local context = mp.get_context(method)
            local p <close> = context.Process{target = os.exit, args = {6}}
            assert.matches("^Process%-%d+$", p.name)
            p:start()
            assert.is_true(p:join(20))
            assert.are.equal(6, p.exitcode)
            local W = context.Process:extend("W")
            function W:run()
                os.exit(self.code)
            end
            local w <close> = W()
            w.code = 7
            w:start()
            assert.is_true(w:join(20))
            assert.are.equal(7, w.exitcode)
            assert.matches("^W%-%d+$", w.name)
        end
    end)

    it("MOD-17 makes its pools by its method", function()
        for _, method in ipairs(METHODS) do
            local Pool = mp.get_context(method).Pool
            do
                local pool <close> = Pool(1)
                assert.are.same({1, 4, n = 2}, pool:map(function(x)
                    return x * x
                end, {1, 2}))
            end
            local pool <close> = Pool{processes = 2}
            assert.are.equal(3, pool:apply(math.abs, {-3}))
            assert.matches("unknown option 'context'",
                failure("TypeError", Pool, {context = mp.get_context()}))
        end
    end)

    it("MOD-16 shares its objects with processes of any other", function()
        local queue = mp.get_context("spawn").Queue()
        for _, method in ipairs(METHODS) do
            local p <close> = mp.get_context(method).Process{
                target = queue.put, args = {queue, method}}
            p:start()
            assert.are.equal(method, queue:get(true, 20))
            p:join()
        end
    end)

    it("MOD-11 cannot be given another method", function()
        assert.are.equal("cannot set start method of concrete context",
            failure("ValueError", mp.get_context("fork").set_start_method,
                "fork"))
    end)
end)

describe("the default start method", function()
    before_each(function()
        mp.set_start_method(nil, true)
    end)
    after_each(function()
        mp.set_start_method(nil, true)
    end)

    it("MOD-11 is chosen once, unless by force", function()
        assert.are.equal("cannot find context for 'bad'",
            failure("ValueError", mp.set_start_method, "bad"))
        assert.are.equal("cannot find context for nil",
            failure("ValueError", mp.set_start_method))
        assert.is_nil(mp.get_start_method(true))
        mp.set_start_method("fork")
        assert.are.equal("fork", mp.get_start_method(true))
        for _, method in ipairs(METHODS) do
            assert.are.equal("context has already been set",
                failure("StateError", mp.set_start_method, method))
            mp.set_start_method(method, true)
            assert.are.equal(method, mp.get_start_method())
        end
        mp.set_start_method(nil, true)
        assert.is_nil(mp.get_start_method(true))
    end)

    it("MOD-10 is fixed by asking, unless nil will do", function()
        assert.is_nil(mp.get_start_method(true))
        assert.are.equal("fork", mp.get_start_method())
        failure("StateError", mp.set_start_method, "fork")
    end)

    it("MOD-08 is fixed by asking for its context", function()
        assert.are.equal(mp.get_context("fork"), mp.get_context())
        failure("StateError", mp.set_start_method, "spawn")
    end)

    it("MOD-11 is how mp's own processes start, and theirs", function()
        for _, method in ipairs(METHODS) do
            mp.set_start_method(method, true)
            local queue = mp.Queue()
            local p <close> = mp.Process{target = function()
                local here = require "mp"
                queue:put(here.get_start_method(true))
                queue:put(here.getpid())
            end}
            p:start()
            assert.are.equal(method, queue:get(true, 20))
            local pid = queue:get(true, 20)
            assert.are.equal(method == "thread", pid == mp.getpid())
            p:join()
        end
    end)
end)

describe("what programs for other systems call", function()
    it("MOD-05 MOD-14 is there and does nothing", function()
        assert.are.equal(0, select("#", mp.freeze_support()))
        assert.are.equal(0, select("#", mp.allow_connection_pickling()))
    end)

    it("MOD-13 takes the modules of a fork server, a list of strings",
        function()
        for _, bad in ipairs{5, "os", {1}, {"os", 2}, {a = "os"}} do
            assert.are.equal("module_names must be a list of strings",
                failure("TypeError", mp.set_forkserver_preload, bad))
        end
        failure("TypeError", mp.set_forkserver_preload)
        mp.set_forkserver_preload{"string"}
        mp.set_forkserver_preload{}
    end)

    it("MOD-12 takes the program that runs new processes", function()
        failure("TypeError", mp.set_executable, 5)
        failure("TypeError", mp.set_executable)
    end)
end)
