--- The same jobs give the same results by each start method, and from
-- wherever their program is read: spec/methods/jobs.lua.

local helper = require "spec.helper"
local mp = require "mp"

local SOURCE <const> = "spec/methods/jobs.lua"

--- What the jobs show, in their order.
local EXPECTED <const> = {
    [==[plain: 49]==],
    [==[scalar upvalue: 43]==],
    [==[shared upvalue: 2]==],
    [==[closures in a table: 2]==],
    [==[recursive local: 3628800]==],
    [==[mutual recursion: true]==],
    [==[global function: 20]==],
    [==[global redefined: 2000]==],
    [==[global table: 3 "b"]==],
    [==[global number: 10]==],
    [==[global number changed: 11]==],
    [==[recursive global: "done"]==],
    [==[cycle: true true]==],
    [==[arguments with nil: 3 nil 2 nil]==],
    [==[numbers: "integer" "float" true -math.huge math.mininteger]==],
    [==[long string: 100001 0]==],
    [==[C function upvalue: "002.5"]==],
    [==[module upvalue: "<a>"]==],
    [==[object of a module: 7 true]==],
    [==[require in the job: "<1>"]==],
    [==[registered class: 6 true]==],
    [==[objects back: 2 3 true]==],
    [==[__reduce: 1 2 true]==],
    [==[error value: false "RemoteError" 7]==],
    [==[error text: false "attempt to index a nil value (local 'x')"]==],
    [==[os.exit in a task: false "WorkerLost" 3]==],
    [==[stack overflow: false "RemoteError" "stack overflow"]==],
    [==[process: 0 2]==],
    [==[os.exit: 44 false]==],
    [==[name and parent: 0 {"Process-3", false, "MainProcess"}]==],
    [==[lock and value: 150]==],
    [==[event: "woken"]==],
    [==[kwargs: {1, 2}]==],
    [==[subclass: "hello bob"]==],
    [==[coroutine inside: 6]==],
    [==[nested process: 42]==],
    [==[nested pool: "2,3,4"]==],
    [==[deep: 10000]==],
    [==[arg and path: true true]==],
    [==[random: 8]==],
    [==[imap: 99000]==],
    [==[initializer: {17, 18, n = 2}]==],
    [==[refused: false "PicklingError"]==],
    [==[end: "close"]==],
}

local function read(path)
    local file <close> = assert(io.open(path, "rb"))
    return file:read("a")
end

--- Where a program can stand: how mplua is told of it. Each is run with one
-- argument, but where there is no place for one.
local PLACES <const> = {
    {"a script", function() return {SOURCE, "word"} end},
    {"-e", function() return {"-e", read(SOURCE)} end},
    {"stdin", function() return {"-", "word"}, read(SOURCE) end},
    {"bytecode", function()
        local code = string.dump(assert(loadfile(SOURCE)))
        return {helper.tmpfile(code, ".luac"), "word"}
    end},
    {"a required module", function()
        return {"-e", 'require "spec.methods.jobs"', "-", "word"}
    end},
    {"a session", function()
        -- The first prompt stands in front of what the first job prints.
        return {"-i"}, '_PROMPT, _PROMPT2 = "", ""\n' .. read(SOURCE)
    end},
}

-- core.so takes Lua from the program that loads it; a sanitizer would have to
-- be there first.
if not helper.sanitized then
    PLACES[#PLACES + 1] = {"a script of plain Lua", function()
        return {SOURCE, "word"}, nil, {
            program = "lua5.4", env = {
                LUA_PATH = "lua/?.lua;lua/?/init.lua;./?.lua;;",
                LUA_CPATH = helper.build .. "/?.so;;",
            },
        }
    end}
end

local function results_of(text)
    local list = {}
    for line in text:gmatch("[^\n]+") do
        list[#list + 1] = line:match("^[> ]*job (.*)")
    end
    return list
end

describe("start methods", function()
    it("are four", function()
        local list = mp.get_all_start_methods()
        table.sort(list)
        assert.same({"fork", "forkserver", "spawn", "thread"}, list)
    end)

    for _, method in ipairs(mp.get_all_start_methods()) do
        for _, place in ipairs(PLACES) do
            it(("PAIN-06 do the jobs of %s by %s"):format(place[1], method),
                function()
                    local args, input, opts = place[2]()
                    opts = opts or {env = {LUA_PATH = "./?.lua;;"}}
                    opts.env.METHOD = method
                    opts.stdin, opts.timeout = input, 60
                    local result = helper.run(args, opts)
                    assert.equal("", result.stderr)
                    assert.equal(0, result.code)
                    assert.same(EXPECTED, results_of(result.stdout))
                end)
        end
    end
end)
