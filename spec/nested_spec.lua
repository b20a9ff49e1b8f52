--- Each start method inside each: processes in processes, pools in workers,
-- and the shared objects of mp handed on through all of them and back.

local mp = require "mp"
local start = require "spec.start_tools"

start.start_server()

--- it() for each pair: body(outer context, inner method).
local function each(title, body)
    for _, outer in ipairs(start.METHODS) do
        for _, inner in ipairs(start.METHODS) do
            it(("%s: %s in %s"):format(title, inner, outer), function()
                body(mp.get_context(outer), inner)
            end)
        end
    end
end

-- That a thread forks is warned of, which is not what these specs are about.
local function quiet()
    local here = require "mp"
    here.get_logger():set_level("error")
    return here
end

--- Uses each object, once, in whatever process.
local function use(o)
    local held <close> = o.lock:guard()
    o.value.value = o.value.value + 1
    o.array[2] = o.array[2] + 10
    o.semaphore:acquire()
    o.event:set()
    o.condition:acquire()
    o.condition:notify_all()
    o.condition:release()
end

describe("start methods in each other", function()
    each("a process knows who it is", function(context, inner)
        local queue = mp.Queue()
        local p <close> = context.Process{target = function()
            local here = quiet()
            local q = here.get_context(inner).Process{target = function()
                local there = require "mp"
                queue:put(there.current_process().name)
                queue:put(there.parent_process().name)
                os.exit(5)
            end}
            q:start()
            assert(q:join(20))
            queue:put(q.exitcode)
            os.exit(6)
        end}
        p:start()
        assert.are.equal(p.name .. ":1", queue:get(true, 20))
        assert.are.equal(p.name, queue:get(true, 20))
        assert.are.equal(5, queue:get(true, 20))
        assert.is_true(p:join(20))
        assert.are.equal(6, p.exitcode)
    end)

    each("objects go down and come back up", function(context, inner)
        local back = mp.Queue()
        local o = {
            lock = mp.RLock(), value = mp.Value("i", 0, {lock = false}),
            array = mp.Array("i", {1, 2, 3}), semaphore = mp.Semaphore(3),
            event = mp.Event(), condition = mp.Condition(),
            barrier = mp.Barrier(3),
        }
        local p <close> = context.Process{target = function(given)
            local here = quiet()
            use(given)
            local q = here.get_context(inner).Process{target = function(last)
                use(last)
                last.barrier:wait(20)
                -- One made here, and those that were given.
                local made = require("mp").Queue()
                made:put("made within")
                last.made = made
                back:put(last)
            end, args = {given}}
            q:start()
            given.barrier:wait(20)
            assert(q:join(20))
        end, args = {o}}
        p:start()
        o.barrier:wait(20)
        local got = back:get(true, 20)
        assert.is_true(p:join(20))
        use(got)
        assert.are.equal(3, o.value.value)
        assert.are.equal(32, o.array[2])
        assert.is_false(o.semaphore:acquire(false))
        assert.is_true(o.event:is_set())
        assert.are.equal("made within", got.made:get(true, 20))
    end)

    each("a pool's worker has processes and pools", function(context, inner)
        local pool <close> = context.Pool(2)
        local results = pool:map(function(n)
            local here = quiet()
            local p <close> = here.get_context(inner).Process{
                target = os.exit, args = {n}}
            p:start()
            assert(p:join(20))
            local own <close> = here.get_context(inner).Pool(1)
            return {p.exitcode, own:apply(math.abs, {-n})}
        end, {3, 4})
        assert.are.same({{3, 3}, {4, 4}, n = 2}, results)
    end)

    it("go four deep", function()
        local queue = mp.Queue()
        local function descend(methods, path)
            local here = quiet()
            local method = table.remove(methods, 1)
            if not method then
                return queue:put(path)
            end
            local p <close> = here.get_context(method).Process{
                target = descend, args = {methods, path .. " " .. method}}
            p:start()
            assert(p:join(60))
            assert(p.exitcode == 0)
        end
        descend({"thread", "spawn", "thread", "forkserver"}, "main")
        assert.are.equal("main thread spawn thread forkserver",
            queue:get(true, 20))
    end)
end)
