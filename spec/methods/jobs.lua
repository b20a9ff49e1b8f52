mp = require "mp"
ctx = mp.get_context(os.getenv("METHOD"))
pool = ctx.Pool(2)
function show(name, ...)
    local t = table.pack(...)
    for i = 1, t.n do t[i] = mp.repr(t[i]) end
    io.write("job ", name, ": ", table.concat(t, " "), "\n")
end
function job(name, f, ...) show(name, pool:apply(f, table.pack(...))) end
function proc(name, f, ...)
    local out = ctx.SimpleQueue()
    local p = ctx.Process{target = f, args = table.pack(out, ...)}
    p:start()
    p:join(20)
    local ok, v = out:try_get(0)
    show(name, p.exitcode, ok and v)
end

job("plain", function(x) return x * x end, 7)
do local k = 42 job("scalar upvalue", function(x) return x + k end, 1) end
do
    local n = 0
    local function inc() n = n + 1 return n end
    local function get() return n end
    job("shared upvalue", function() inc() inc() return get() end)
    job("closures in a table", function(t) t.inc() t.inc() return t.get() end,
        {inc = inc, get = get})
end
do
    local function fact(n) return n < 2 and 1 or n * fact(n - 1) end
    job("recursive local", fact, 10)
    local even
    local function odd(n) return n > 0 and even(n - 1) end
    function even(n) return n == 0 or odd(n - 1) end
    job("mutual recursion", even, 10)
end
function double(x) return 2 * x end
function quadruple(x) return double(double(x)) end
job("global function", function(x) return quadruple(x) end, 5)
function double(x) return 20 * x end
job("global redefined", function(x) return quadruple(x) end, 5)
config = {level = 3, names = {"a", "b"}}
job("global table", function() return config.level, config.names[2] end)
LIMIT = 10
job("global number", function() return LIMIT end)
LIMIT = 11
job("global number changed", function() return LIMIT end)
function down(n) return n == 0 and "done" or down(n - 1) end
job("recursive global", down, 50)
do
    local t = {1}
    t.self = t
    t.twice = {t[1], x = t}
    job("cycle", function(a) return a.self == a, a.twice.x == a end, t)
end
job("arguments with nil", function(...) return select("#", ...), ... end,
    nil, 2, nil)
job("numbers", function(...)
    local t = {...}
    return math.type(t[1]), math.type(t[2]), t[3] ~= t[3], 1 / t[4], t[5]
end, 1, 1.0, 0 / 0, -0.0, math.mininteger)
job("long string", function(s) return #s, s:byte(50001) end,
    ("x"):rep(50000) .. "\0" .. ("y"):rep(50000))
do
    local format = string.format
    job("C function upvalue", function(x) return format("%05.1f", x) end, 2.5)
end
do
    local json = require "spec.methods.part"
    job("module upvalue", function(x) return json.wrap(x) end, "a")
    job("object of a module", function(p)
        return p:sum(), getmetatable(p) == require("spec.methods.part").Point
    end, json.Point.new(3, 4))
end
job("require in the job", function()
    return require("spec.methods.part").wrap(1)
end)
do
    local Account = {}
    Account.__index = Account
    function Account.new(n) return setmetatable({n = n}, Account) end
    function Account:add(k) return Account.new(self.n + k) end
    mp.pickle.register("Account", Account)
    job("registered class", function(a)
        return a:add(5).n, getmetatable(a) == Account
    end, Account.new(1))
    local back = pool:map(function(a) return a:add(1) end,
        {Account.new(1), Account.new(2)})
    show("objects back", back[1].n, back[2].n,
        getmetatable(back[2]) == Account)
end
do
    local Pair = {}
    Pair.__index = Pair
    Pair.__reduce = function(p)
        return function(a, b) return {a = a, b = b, rebuilt = true} end,
            p.a, p.b
    end
    job("__reduce", function(p) return p.a, p.b, p.rebuilt end,
        setmetatable({a = 1, b = 2}, Pair))
end
do
    local ok, e = pcall(pool.apply, pool, function() error({code = 7}) end)
    show("error value", ok, e.kind, e.value.code)
    ok, e = pcall(pool.apply, pool, function() local x = nil; return x.y end)
    show("error text", ok, e.message:match("attempt to index.*"))
    ok, e = pcall(pool.apply, pool, function() os.exit(3) end)
    show("os.exit in a task", ok, e.kind, e.exitcode)
    ok, e = pcall(pool.apply, pool, function()
        local function f() return 1 + f() end
        return f()
    end)
    show("stack overflow", ok, e.kind, e.message:match("stack overflow"))
end
proc("process", function(out, x) out:put(x + 1) end, 1)
proc("os.exit", function(out) os.exit(300) end)
proc("name and parent", function(out)
    local mp = require "mp"
    local me = mp.current_process()
    out:put({me.name, me.daemon, mp.parent_process().name})
end)
do
    local lock, v, ps = ctx.Lock(), ctx.Value("i", 0), {}
    for i = 1, 3 do
        ps[i] = ctx.Process{target = function(l)
            for _ = 1, 50 do
                local held <close> = l:guard()
                v.value = v.value + 1
            end
        end, args = {lock}}
        ps[i]:start()
    end
    for i = 1, 3 do ps[i]:join() end
    show("lock and value", v.value)
end
do
    local go, done = ctx.Event(), ctx.Queue()
    local p = ctx.Process{target = function() go:wait() done:put("woken") end}
    p:start()
    go:set()
    show("event", done:get(true, 20))
    p:join()
end
do
    local out = ctx.SimpleQueue()
    local p = ctx.Process{target = function(a, b) out:put({a, b}) end,
        args = {1}, kwargs = {b = 2}}
    p:start()
    show("kwargs", out:get())
    p:join()
    local Greeter = ctx.Process:extend("Greeter")
    Greeter.word = "hello "
    function Greeter:init(whom) self.whom = whom end
    function Greeter:run() out:put(Greeter.word .. self.whom) end
    p = Greeter("bob")
    p:start()
    show("subclass", out:get())
    p:join()
end
job("coroutine inside", function(n)
    local co = coroutine.wrap(function()
        for i = 1, n do coroutine.yield(i) end
    end)
    return co() + co() + co()
end, 3)
job("nested process", function()
    local mp = require "mp"
    local q = mp.SimpleQueue()
    local p = mp.Process{target = function(x) q:put(x * 2) end, args = {21}}
    p:start()
    local v = q:get()
    p:join()
    return v
end)
job("nested pool", function()
    local mp = require "mp"
    local inner <close> = mp.Pool(2)
    return table.concat(inner:map(function(x) return x + 1 end, {1, 2, 3}),
        ",")
end)
do
    local deep = {}
    for _ = 1, 10000 do deep = {deep} end
    job("deep", function(t)
        local n = 0
        while t[1] do n, t = n + 1, t[1] end
        return n
    end, deep)
end
job("arg and path", function(p, a)
    return package.path == p, (arg or {})[1] == a
end, package.path, (arg or {})[1])
do
    local list = pool:map(function() return math.random(1 << 40) end,
        mp.range(8), 1)
    local seen, distinct = {}, 0
    for _, v in ipairs(list) do
        distinct = distinct + (seen[v] and 0 or 1)
        seen[v] = true
    end
    show("random", distinct)
end
do
    local sum = 0
    for _, v in pool:imap(function(x) return double(x) end, mp.range(100)) do
        sum = sum + v
    end
    show("imap", sum)
end
do
    local p <close> = ctx.Pool{processes = 2, initializer = function(k)
        mp.worker.state.k = k + LIMIT
    end, initargs = {5}}
    show("initializer", p:map(function(x)
        return mp.worker.state.k + x
    end, {1, 2}))
end
do
    local ok, e = pcall(pool.apply, pool, print, {coroutine.create(print)})
    show("refused", ok, e.kind)
end
pool:close()
pool:join()
show("end", pool._core:state())
