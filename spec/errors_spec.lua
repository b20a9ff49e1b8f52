-- Error objects, and the binding of arguments to parameters.

local helper = require "spec.helper"
local mp = require "mp"
local call = require "mp.call"
local errors = require "mp.errors"

local failure = helper.failure

describe("an error object", function()
    it("has a kind, a message, and the caller's place", function()
        local line = debug.getinfo(1, "l").currentline + 1
        local ok, e = pcall(function() mp.range("x") end)
        assert.is_false(ok)
        assert.are.equal("TypeError", e.kind)
        assert.are.equal("TypeError: " .. e.message, tostring(e))
        assert.matches("errors_spec.lua:" .. line .. ":", e.where)
    end)

    it("MOD-18 is told from other values", function()
        local e = errors._new("ValueError", "no", {value = 5})
        assert.is_true(mp.iserror(e))
        assert.is_true(mp.iserror(e, "ValueError"))
        assert.is_false(mp.iserror(e, "TypeError"))
        assert.are.equal(5, e.value)
        for _, other in ipairs{"x", 5, {}, {kind = "ValueError"}, print} do
            assert.is_false(mp.iserror(other))
        end
        assert.is_false(mp.iserror(nil))
        assert.is_false(mp.iserror())
    end)

    it("names values as their users know them", function()
        assert.are.equal("'x'", errors._show("x"))
        assert.are.equal("5", errors._show(5))
        assert.are.equal("nil", errors._show(nil))
        assert.are.equal("a table", errors._show({}))
        assert.are.equal("a mp.range", errors._show(mp.range(1)))
        assert.are.equal("a function", errors._show(print))
        assert.are.equal("a string",
            failure("TypeError", errors._check, "f", "x", 5, "string")
                :match("a string") or "a string")
    end)

    it("is described as the main program would", function()
        local e = errors._new("ValueError", "no")
        assert.matches("errors_spec.lua:%d+: ValueError: no\nstack",
            errors._describe(e, 1))
        assert.matches("^text\nstack", errors._describe("text", 1))
        assert.matches("^%(error object is a table value%)\nstack",
            errors._describe({}, 1))
        assert.are.equal("own", errors._describe(setmetatable({},
            {__tostring = function() return "own" end}), 1))
    end)
end)

function _G.a_global_job(a, b) -- luacheck: ignore
    return a, b
end

describe("binding arguments", function()
    local bind = call.bind
    local job = _G.a_global_job

    it("keeps positions, and honours n", function()
        assert.are.same({1, 2, n = 2}, bind(job, {1, 2, n = 2}))
        assert.are.same({nil, 2, n = 2}, bind(job, {nil, 2, n = 2}))
        assert.are.same({n = 0}, bind(job, {}))
        assert.are.same({1, n = 1}, bind(job, {1}, {}))
        local range = mp.range(5, 7)
        assert.are.same({5, 6, n = 2}, bind(job, range))
    end)

    it("finds parameters by name", function()
        assert.are.same({1, 2, n = 2}, bind(job, {1}, {b = 2}))
        assert.are.same({n = 2, [2] = 5}, bind(job, {}, {b = 5}))
        assert.are.same({3, 4, n = 2}, bind(job, {}, {b = 4, a = 3}))
        local args = {1, n = 1}
        bind(job, args, {b = 2})
        assert.are.same({1, n = 1}, args)
    end)

    it("refuses what does not fit", function()
        assert.are.equal("a_global_job() takes 2 arguments (3 given)",
            failure("TypeError", bind, job, {1, 2, 3}))
        assert.are.equal(
            "a_global_job() got an unexpected keyword argument 'c'",
            failure("TypeError", bind, job, {1}, {c = 2}))
        assert.are.equal(
            "a_global_job() got multiple values for argument 'a'",
            failure("TypeError", bind, job, {1}, {a = 2}))
        assert.are.equal(
            "a_global_job() got multiple values for argument 'b'",
            failure("TypeError", bind, job, {1, nil, n = 2}, {b = 2}))
        assert.matches("^function .*errors_spec.lua:%d+ takes 1 argument " ..
            "%(2 given%)$", failure("TypeError", bind, function(x)
                return x
            end, {1, 2}))
        assert.matches("takes 0 arguments %(1 given%)",
            failure("TypeError", bind, function() end, {1}))
    end)

    it("lets ... take the rest, but no names", function()
        local function open(a, ...)
            return a, ...
        end
        assert.are.same({1, 2, 3, n = 3}, bind(open, {1, 2, 3, n = 3}))
        assert.are.same({n = 1, 5}, bind(open, {}, {a = 5}))
        assert.matches("unexpected keyword argument 'b'",
            failure("TypeError", bind, open, {1}, {b = 2}))
    end)

    it("does not check C functions, and gives them no names", function()
        assert.are.same({1, 2, 3, n = 3}, bind(print, {1, 2, 3, n = 3}))
        assert.are.equal("print() takes no keyword arguments",
            failure("TypeError", bind, print, {}, {a = 1}))
        assert.are.equal("string.format() takes no keyword arguments",
            failure("TypeError", bind, string.format, {}, {a = 1}))
    end)

    it("takes objects that can be called, less themselves", function()
        local object = setmetatable({}, {__call = function(_, a, b)
            return a, b
        end})
        assert.are.same({1, 2, n = 2}, bind(object, {1}, {b = 2}))
        assert.matches("takes 2 arguments %(3 given%)",
            failure("TypeError", bind, object, {1, 2, 3}))
    end)

    it("names functions by global name, else by place", function()
        assert.are.equal("a_global_job", call.name(job))
        assert.are.equal("print", call.name(print))
        assert.are.equal("string.rep", call.name(string.rep))
        local line = debug.getinfo(1, "l").currentline + 1
        local name = call.name(function() end)
        assert.matches("errors_spec.lua:" .. line .. "$", name)
        assert.are.equal("5", call.name(5))
    end)

    it("knows functions without debug information by nothing", function()
        local stripped = load(string.dump(job, true))
        assert.matches("got an unexpected keyword argument 'a'",
            failure("TypeError", bind, stripped, {}, {a = 1}))
        assert.matches("takes 2 arguments",
            failure("TypeError", bind, stripped, {1, 2, 3}))
    end)
end)
