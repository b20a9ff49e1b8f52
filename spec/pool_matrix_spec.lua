-- Pool: everything that the user's code can do wrong, in every place where
-- it runs: {error, exit, crash} x {argument out, argument in, run, result
-- out, result in}. Classes with functions to reduce and rebuild bring code
-- of the user into the pickling on both sides.
--
-- In a worker it costs that one item; in the caller an error costs that one
-- item or call, and an end takes the whole family along.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local failure, ways = tools.failure, tools.ways
local BAD <const> = 3  -- the item that goes wrong
local ITEMS <const> = 6

-- What goes wrong -----------------------------------------------------------

--- A class whose objects do `way` when they are packed ("out") or rebuilt
-- ("in"), and otherwise travel as their number. The classes must exist
-- before the pool does, as in any program.
local function new_class(name, where, way)
    local class = {__name = name}
    mp.pickle.register(name, class, function(object)
        if where == "out" and object.i == BAD then
            way()
        end
        return object.i
    end, function(i)
        if where == "in" and i == BAD then
            way()
        end
        return setmetatable({i = i}, class)
    end)
    return function(i)
        return setmetatable({i = i}, class)
    end
end

local Plain = new_class("matrix.Plain")
local classes = {Plain = Plain}
for name, way in pairs(ways) do
    classes["out " .. name] = new_class("matrix.out." .. name, "out", way)
    classes["in " .. name] = new_class("matrix.in." .. name, "in", way)
end

--- The objects 1 ... ITEMS of a class.
local function objects(new)
    local list = {}
    for i = 1, ITEMS do
        list[i] = new(i)
    end
    return list
end

-- The doors -----------------------------------------------------------------

--- Each calls f for the objects, and returns a list of values and errors.
local doors = {}

function doors.map(pool, f, list)
    return pool:map(f, list, {on_error = "collect", chunksize = 2})
end

function doors.map_raising(pool, f, list)
    local ok, e = pcall(pool.map, pool, f, list, 2)
    if ok then
        return e
    end
    assert.are.equal(BAD, e.index)
    local results = e.results
    results[BAD] = e
    return results
end

function doors.apply_async(pool, f, list)
    local owed, found = {}, {}
    for i, object in ipairs(list) do
        local ok, r = pcall(pool.apply_async, pool, f, {object})
        owed[i], found[i] = ok and r, not ok and r or nil
    end
    for i, r in ipairs(owed) do
        if r then
            local ok, v = pcall(r.get, r)
            found[i] = v
            assert.are.equal(ok, not mp.iserror(v))
        end
    end
    return found
end

local function of_iterator(name)
    return function(pool, f, list)
        local it, found = pool[name](pool, f, list, 1), {}
        for _ = 1, #list do
            local ok, i, v = pcall(it.next, it)
            if ok then
                found[i] = v
            else
                assert.are.equal(BAD, i.index)
                found[BAD] = i
            end
        end
        assert.is_nil(it:next())
        return found
    end
end

doors.imap = of_iterator("imap")
doors.imap_unordered = of_iterator("imap_unordered")

-- In the worker, and results in the caller ----------------------------------

--- Demands the one error, and of everything else that it is right.
local function check(found, kind, wanted)
    for i = 1, ITEMS do
        if i == BAD then
            assert.is_true(mp.iserror(found[i], kind), tostring(found[i]))
        else
            assert.are.equal(i, wanted(found[i]))
        end
    end
end

local function number_of(object)
    return object.i
end

local function same(v)
    return v
end

--- What the places in a worker are, as objects to send, the function to
-- call, and how to read its results.
local function places(name)
    local way, Out = ways[name], classes["out " .. name]
    return {
        ["argument in"] = {classes["in " .. name], number_of, same},
        ["run"] = {Plain, function(object)
            if object.i == BAD then
                way()
            end
            return object.i
        end, same},
        ["result out"] = {Plain, function(object)
            return Out(object.i)
        end, number_of},
    }
end

local KINDS <const> = {
    error = "RemoteError", exit = "WorkerLost", crash = "WorkerLost",
}

for _, name in ipairs{"error", "exit", "crash"} do
    for place, case in pairs(places(name)) do
        it(("%s in a worker, %s"):format(name, place), function()
            if helper.sanitized and name == "crash" then
                pending("a sanitizer makes an exit of it")
                return
            end
            local pool <close> = mp.Pool(2)
            for door, f in pairs(doors) do
                -- An object that must not be packed here is made there.
                local found = f(pool, case[2], objects(case[1]))
                check(found, KINDS[name], case[3])
                local e = found[BAD]
                assert.are.equal(door ~= "apply_async" and BAD or nil,
                    e.index)
                if name == "error" then
                    assert.are.equal("bad luck", e.value)
                elseif name == "exit" then
                    assert.are.equal(7, e.exitcode)
                else
                    assert.are.equal(11, e.signal)
                end
            end
            assert.are.equal(9, pool:apply(tools.square, {3}))
        end)
    end
end

it("error in the caller, result in", function()
    local pool <close> = mp.Pool(2)
    local In = classes["in error"]
    for door, f in pairs(doors) do
        local found = f(pool, function(object) return In(object.i) end,
            objects(Plain))
        check(found, "PicklingError", number_of)
        local e = found[BAD]
        assert.are.equal(door ~= "apply_async" and BAD or nil, e.index)
        assert.are.equal("bad luck", e.value)
        assert.matches("cannot rebuild the result of .*: bad luck$",
            e.message)
    end
    assert.are.equal(9, pool:apply(tools.square, {3}))
end)

it("error in the caller, argument out", function()
    local pool <close> = mp.Pool(2)
    local list = objects(classes["out error"])
    -- The call that meets it raises it as it is; nothing is half given.
    for _, method in ipairs{"map", "starmap", "map_async", "starmap_async"} do
        local ok, e = pcall(pool[method], pool, number_of, list)
        assert.is_false(ok)
        assert.are.equal("bad luck", e)
    end
    -- A stream gives what was before it first.
    for _, method in ipairs{"imap", "imap_unordered"} do
        local it, n = pool[method](pool, number_of, list, 1), 0
        local ok, e
        repeat
            ok, e = pcall(it.next, it)
            n = n + (ok and 1 or 0)
        until not ok
        assert.are.equal(BAD - 1, n)
        assert.are.equal("bad luck", e)
        assert.is_nil(it:next())
    end
    local ok, e = pcall(pool.apply_async, pool, number_of, {list[BAD]})
    assert.is_false(ok)
    assert.are.equal("bad luck", e)
    local found = {}
    for i = 1, ITEMS do
        found[i] = i ~= BAD and pool:apply(number_of, {list[i]}) or nil
    end
    assert.are.same({1, 2, nil, 4, 5, 6}, found)
end)

-- In the caller, which ends -------------------------------------------------

--- A program that maps, imaps or applies; what it is to do wrong, and where.
local PROGRAM <const> = [[
    local mp = require "mp"
    local ways = {
        exit = function() os.exit(7) end,
        crash = function()
            os.execute("kill -SEGV " .. mp.getpid())
            mp.sleep(10)
        end,
    }
    local main, class = mp.getpid(), {}
    local function go_wrong(place, i)
        if place == PLACE and i == 3 and mp.getpid() == main then
            ways[WAY]()
        end
    end
    mp.pickle.register("Class", class, function(object)
        go_wrong("argument out", object.i)
        return object.i
    end, function(i)
        go_wrong("result in", i)
        return setmetatable({i = i}, class)
    end)
    local pool = mp.Pool(2)
    local file = assert(io.open(PATH, "w"))
    file:write(table.concat(pool._core:pids(), " "))
    file:close()
    local function f(object)
        return object
    end
    local list = {}
    for i = 1, 6 do
        list[i] = setmetatable({i = i}, class)
    end
    if DOOR == "map" then
        pool:map(f, list)
    elseif DOOR == "imap" then
        for _ in pool:imap(f, list) do end
    else
        pool:apply_async(f, {list[3]}):get()
    end
    os.exit(99)
]]

for _, way in ipairs{"exit", "crash"} do
    for _, place in ipairs{"argument out", "result in"} do
        it(("%s in the caller, %s, takes the workers along"):format(way,
                place), function()
            if helper.sanitized and way == "crash" then
                pending("a sanitizer makes an exit of it")
                return
            end
            for _, door in ipairs{"map", "imap", "apply_async"} do
                local path = helper.tmpname()
                local run = tools.script(
                    ("local WAY, PLACE, DOOR, PATH = %q, %q, %q, %q\n"):format(
                        way, place, door, path) .. PROGRAM, {timeout = 20})
                local code = run.signal and 128 + run.signal or run.code
                assert.are.equal(way == "exit" and 7 or 128 + 11, code)
                local file <close> = assert(io.open(path))
                local pids = {}
                for pid in file:read("a"):gmatch("%d+") do
                    pids[#pids + 1] = pid
                end
                assert.are.equal(2, #pids)
                tools.soon_gone(pids)
            end
        end)
    end
end

-- User's code that uses the pool --------------------------------------------

it("packing that gives the job up ends the iterator", function()
    local it
    local class = {}
    mp.pickle.register("matrix.quitter", class, function(object)
        if object.i == 3000 then
            getmetatable(it).__close(it)
        end
        return object.i, ("x"):rep(100)
    end, function(i)
        return i
    end)
    local pool <close> = mp.Pool(2)
    local i = 0
    it = pool:imap(tools.square, function()
        i = i + 1
        return setmetatable({i = i}, class)
    end)
    local n = 0
    for k, v in it do
        assert.are.equal(k * k, v)
        n = k
    end
    it = nil -- the registry keeps the class's functions
    assert.is_true(n < 3000)
    assert.are.equal(9, pool:apply(tools.square, {3}))
end)

it("rebuilding that gives the job up ends the iterator", function()
    local it
    local class, main = {}, mp.getpid()
    local function new(i)
        return setmetatable({i = i}, class)
    end
    mp.pickle.register("matrix.leaver", class, function(object)
        return object.i, ("x"):rep(100)
    end, function(i)
        if i == 3 and mp.getpid() == main then
            getmetatable(it).__close(it)
        end
        return new(i)
    end)
    local pool <close> = mp.Pool(2)
    for _, method in ipairs{"imap", "imap_unordered"} do
        local items, n = 0, 0
        it = pool[method](pool, new, function() -- has no end of its own
            items = items + 1
            return items
        end, 1)
        for k, v in it do
            assert.are.equal(k, v.i)
            n = n + 1
        end
        assert.is_true(method ~= "imap" or n == 3, n)
    end
    it = nil
    failure("RemoteError", pool.apply, pool, ways.error)
end)
