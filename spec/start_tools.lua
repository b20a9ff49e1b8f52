--- What the specs of the start methods share: one it() for each method, the
-- fork server, and programs that try a method.

local busted = require "busted"
local assert = require "luassert"
local mp = require "mp"
local helper = require "spec.helper"

local M = {}

M.METHODS = mp.get_all_start_methods()

--- it() for each of the methods: body(context, method).
-- @param methods list, all by default
function M.each(title, body, methods)
    for _, method in ipairs(methods or M.METHODS) do
        busted.it(title .. ", by " .. method, function()
            body(mp.get_context(method), method)
        end)
    end
end

--- Starts the fork server, which is there for good once it is there: at the
-- head of a file, before the first spec looks at what there is.
function M.start_server()
    local p <close> = mp.get_context("forkserver").Process()
    p:start()
end

-- What scripts begin with: `try(f, ...)` prints "ok" and the results, or the
-- error in one line; `run(opts)` is how a process ended, by default `exit`;
-- `pool()` what a pool's job returned, 3. All in one line, so that a script's
-- own lines count from 1.
local HEAD <const> = ([[
    local METHOD = %q
    local mp = require "mp"
    local ctx = mp.get_context(METHOD)
    local function try(f, ...)
        local r = table.pack(pcall(f, ...))
        for i = 1, r.n do r[i] = tostring(r[i]) end
        r[1] = r[1] == "true" and "ok" or "failed"
        print((table.concat(r, " "):gsub("\n.*", "")))
    end
    local exit = {target = os.exit, args = {7}}
    local function run(opts)
        local p <close> = ctx.Process(opts or exit)
        p:start()
        return p:join(20), p.exitcode
    end
    local function pool()
        local pool <close> = ctx.Pool(1)
        return pool:apply(math.abs, {-3})
    end
]]):gsub("\n%s*", " ")

--- Runs a script behind the head; its arguments are `...`.
-- @param args list, empty by default
-- @param opts table of helper.run
-- @return table what helper.run returns; it was not too late
function M.run(method, text, args, opts)
    local path = helper.tmpfile(HEAD:format(method) .. text, ".lua")
    local result = helper.run({path, table.unpack(args or {})}, opts)
    assert.is_false(result.timed_out, result.stdout .. result.stderr)
    return result
end

--- The same, which ends well.
-- @return list the lines that it prints
-- @return string what it says on stderr
function M.lines(...)
    local result, list = M.run(...), {}
    assert.are.equal(0, result.code, result.stderr)
    for line in result.stdout:gmatch("[^\n]+") do
        list[#list + 1] = line
    end
    return list, result.stderr
end

return M
