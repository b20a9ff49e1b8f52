--- Server: what a manager's process does. It holds objects of own classes,
-- and calls their methods for those who know its key.
--
-- One process, one thread: it waits for all connections at a time, takes a
-- question where one has come, and answers it. Each is a coroutine: while a
-- method computes, the others wait, so one that has to wait for something
-- yields what it waits for (anything that mp.wait takes, or a number of
-- seconds, or nothing), and goes on later. The methods of mp's own queues,
-- events, locks and semaphores, when they are served, do so.
--
-- A peer that says nothing, or half a message, or does not read its answers,
-- holds nobody up. What is not yet authenticated gets no further than the
-- handshake, which has a deadline (mp.connection).

local answer = require "mp.answer"
local call = require "mp.call"
local class = require "mp.class"
local connection = require "mp.connection"
local core = require "mp.core"
local errors = require "mp.errors"
local holdings = require "mp.holdings"
local proxy = require "mp.proxy"
local served = require "mp.served"
local wait = require "mp.wait".wait

local M = {}

--- Where no more connections can be had for now; others wait.
local DEAF <const> = {EMFILE = true, ENFILE = true, ENOBUFS = true,
    ENOMEM = true}

--- Questions that a peer may ask before it has read the answer to the first.
local MOST_ASKED <const> = 1024

---@class mp.Server
---@field address string|table where it listens
local Server = class.new("Server")
M.Server = class.root(Server)

--- Made by BaseManager:get_server().
---@package
function Server:init(registry, address, key, family)
    self._registry = registry
    self._listener = connection.Listener(address or nil, family, nil, key)
    self.address = self._listener.address
    self.address_name = proxy._show_address(self.address)
    self._clients = {}  -- connection -> client
    self._holdings = holdings.new(registry)
end

--- The object itself: a proxy to it has come home.
function Server:_object(id)
    return self._holdings:entry(id).object
end

-- Questions -----------------------------------------------------------------

-- op -> what is done: returns the answer.
local DO <const> = {}

--- Calls with arguments by position and by name.
local function call_with(f, args, kwargs, ...)
    local all = table.pack(...)
    local first, more = all.n, call.count("arguments", args)
    table.move(args, 1, more, first + 1, all)
    all.n = first + more
    if kwargs and next(kwargs) ~= nil then
        all = call.bind(f, all, kwargs)
    end
    return table.pack(f(table.unpack(all, 1, all.n)))
end

--- An answer that hands an object out as a proxy.
function Server:_hand_out(client, typeid, object)
    local entry = self._holdings:keep(client, typeid, object)
    return {proxy = {
        typeid = entry.typeid, id = entry.id, address = self.address,
    }}
end

--- The answer to a call: values, or a proxy where the method is said to give
-- one, where it gives an iterator, or an object that has one already.
function Server:_answer(client, entry, name, values)
    local first = values[1]
    local typeid = entry.gettypeid[name]
    if typeid and first ~= nil then
        return self:_hand_out(client, typeid, first)
    elseif served.is_own(name) then
        return {values = values}
    elseif type(first) == "function" then
        return self:_hand_out(client, "Iterator", first)
    end
    typeid = type(first) == "table" and self._holdings:typeid_of(first)
    if typeid then
        return self:_hand_out(client, typeid, first)
    end
    return {values = values}
end

function DO.call(self, client, question)
    local entry = self._holdings:entry(question.id)
    if question.hold then
        self._holdings:hold(client, entry)
        question.held = true
    end
    local name = question.name
    return self:_answer(client, entry, name, call_with(
        served.method(entry, name), question.args, question.kwargs,
        entry.object))
end

function Server:_create(client, typeid, args, kwargs)
    local registered = self._registry[typeid]
    if not registered then
        errors._raise("KeyError", "no type '%s' is registered in the server",
            tostring(typeid))
    end
    local object
    if registered.callable then
        object = call_with(registered.callable, args, kwargs)[1]
        if object == nil then
            errors._raise("TypeError", "the callable of '%s' returned nil",
                typeid)
        end
    elseif args.n == 1 and not kwargs then
        object = args[1]
    else
        errors._raise("ValueError",
            "Without callable, must have one non-keyword argument")
    end
    return self:_hand_out(client, typeid, object)
end

function DO.create(self, client, question)
    return self:_create(client, question.typeid, question.args,
        question.kwargs)
end

--- How many objects are held.
function DO.count(self)
    return {values = {self._holdings:count(), n = 1}}
end

--- A line for each of them.
function DO.debug(self)
    return {values = {self._holdings:describe(), n = 1}}
end

function DO.shutdown(self)
    self._over = true
    return {values = {n = 0}}
end

-- Answers -------------------------------------------------------------------

--- Sends as much as the peer takes.
function Server:_flush(client)
    while client.out[1] do
        local ok, sent = pcall(client.connection.try_send_bytes,
            client.connection, client.out[1])
        if not ok then
            return self:_lose(client)
        elseif not sent then
            return
        end
        table.remove(client.out, 1)
    end
end

function Server:_reply(client, question, what)
    if #client.out >= MOST_ASKED then
        return self:_lose(client)
    end
    what.n, what.held = question.n, question.held
    client.out[#client.out + 1] = answer.encode(what)
    self:_flush(client)
end

-- Clients -------------------------------------------------------------------

--- A peer that has shown that it knows the key.
function Server:_welcome(conn)
    self._clients[conn] = {
        connection = conn, holds = {}, out = {}, questions = {}, asked = 0,
    }
end

--- The end of a connection: nobody waits for answers, nothing is held.
function Server:_lose(client)
    self._clients[client.connection] = nil
    client.connection:close()
    client.lost = true
    if client.task then
        coroutine.close(client.task.co)
        client.task = nil
    end
    for id, n in pairs(client.holds) do
        self._holdings:drop(client, id, n)
    end
end

--- Answers, when it does not yield.
local function act(self, client, question)
    local how = DO[question.op]
    if not how then
        errors._raise("ValueError", "unknown question %s",
            errors._show(question.op))
    end
    return how(self, client, question)
end

--- Lets a question's coroutine go on.
function Server:_step(client)
    local task = client.task
    local ok, result, left = coroutine.resume(task.co, self, client,
        task.question)
    if client.lost then
        return
    elseif coroutine.status(task.co) == "suspended" then
        task.wants = result
        task.at = type(result) == "number" and result or left
        task.at = task.at and core.monotonic() + task.at
        return
    end
    client.task = nil
    self:_reply(client, task.question, ok and result
        or {error = answer.failure(result, "")})
end

--- Raises in the coroutine's place: the value and where it came from.
local function guarded(self, client, question)
    local problem
    local ok, result = xpcall(act, function(e)
        problem = {e, answer.traceback()}
        return e
    end, self, client, question)
    if ok then
        return result
    end
    return {error = answer.failure(problem[1], problem[2])}
end

--- Begins with the next question of a client that has none before it, and no
-- answer to read.
function Server:_begin(client)
    while not client.task and not client.lost and not client.out[1]
        and client.questions[1] do
        local question = table.remove(client.questions, 1)
        client.task = {
            co = coroutine.create(guarded), question = question,
        }
        self:_step(client)
    end
end

--- Who asked does not wait any more.
local function cancel(client, n)
    local task = client.task
    if task and task.question.n == n then
        coroutine.close(task.co)
        client.task = nil
    end
    for i = #client.questions, 1, -1 do
        if client.questions[i].n == n then
            table.remove(client.questions, i)
        end
    end
end

--- Is it a question at all?
local function is_question(q)
    return type(q) == "table" and type(q.op) == "string"
        and math.type(q.n) == "integer"
        and (q.args == nil or type(q.args) == "table"
            and math.type(q.args.n) == "integer" and q.args.n >= 0)
        and (q.kwargs == nil or type(q.kwargs) == "table")
        and (q.drop == nil or type(q.drop) == "table")
        and (q.op ~= "call" or q.args and type(q.name) == "string")
        and (q.op ~= "create" or q.args)
end

--- Reads what has come from a client.
function Server:_read(client)
    local ok, there, question = pcall(client.connection.try_recv,
        client.connection, 0)
    if not ok and errors.iserror(there, "PicklingError") then
        -- A question with something that cannot be rebuilt here: the next.
        client.asked = client.asked + 1
        return self:_reply(client, {n = client.asked},
            {error = answer.failure(there, "")})
    elseif not ok or there and not is_question(question)
        or not there and question == "EOF" then
        return self:_lose(client)
    elseif not there then
        return -- half a message
    end
    for _, id in ipairs(question.drop or {}) do
        self._holdings:drop(client, id, 1)
    end
    if question.op == "cancel" then
        cancel(client, question.n)
    elseif #client.questions >= MOST_ASKED then
        return self:_lose(client)
    else
        client.asked = question.n
        table.insert(client.questions, question)
    end
    self:_begin(client)
end

-- The loop ------------------------------------------------------------------

--- What is waited for, whose it is, and how long.
function Server:_interests()
    local list, tasks = {}, {}
    local timeout = self._holdings:bury()
    local function at_most(seconds)
        timeout = math.min(timeout or seconds, math.max(seconds, 0))
    end
    if not self._deaf or self._deaf <= core.monotonic() then
        list[1] = self._listener
    else
        at_most(self._deaf - core.monotonic())
    end
    for conn, client in pairs(self._clients) do
        list[#list + 1] = conn
        local task = client.task
        if client.out[1] then
            at_most(served.SLICE)
        end
        if task then
            tasks[#tasks + 1] = client
            if task.at then
                at_most(task.at - core.monotonic())
            end
            if task.wants == nil then
                at_most(served.SLICE)
            elseif type(task.wants) ~= "number" then
                list[#list + 1] = task.wants
            end
        end
    end
    return list, tasks, timeout
end

--- What was yielded must be something to wait for.
local function check_wants(self, client)
    local task = client.task
    if task and type(task.wants) ~= "number" and task.wants ~= nil then
        local ok, e = pcall(wait, {task.wants}, 0)
        if not ok then
            coroutine.close(task.co)
            client.task = nil
            self:_reply(client, task.question,
                {error = answer.failure(e, "")})
        end
    end
end

function Server:_accept()
    local ok, conn = pcall(self._listener.accept, self._listener, 0)
    if ok then
        self:_welcome(conn)
    elseif not errors.iserror(conn) or conn.kind == "Interrupted" then
        error(conn, 0)
    elseif DEAF[conn.code] then
        self._deaf = core.monotonic() + 10 * served.SLICE
    end
end

--- One round: waits, and does what there is to do.
function Server:_round()
    for _, client in pairs(self._clients) do
        check_wants(self, client)
    end
    local list, tasks, timeout = self:_interests()
    local is_ready = {}
    for _, ready in ipairs(wait(list, timeout)) do
        is_ready[ready] = true
    end
    if is_ready[self._listener] then
        self:_accept()
    end
    for conn in pairs(is_ready) do
        local client = self._clients[conn]
        if client then
            self:_read(client)
        end
    end
    for _, client in ipairs(tasks) do
        local task = client.task
        local due = task and (task.wants == nil or is_ready[task.wants]
            or task.at and task.at <= core.monotonic())
        if due then
            self:_step(client)
            self:_begin(client)
        end
    end
    for _, client in pairs(self._clients) do
        self:_flush(client)
        self:_begin(client)
    end
end

--- Ends it: nobody is connected any more, and the address is free.
function Server:close()
    self._over = true
    self._listener:close()
    for _, client in pairs(self._clients) do
        pcall(client.connection.close, client.connection)
    end
    self._clients, self._holdings = {}, holdings.new(self._registry)
    proxy._serves(false)
end

Server.__close = Server.close

--- Serves until a manager that is connected shuts the server down.
function Server:serve_forever()
    class.check_self("serve_forever", Server, self)
    if self._over then
        errors._raise("StateError", "serve_forever: the server has ended")
    end
    local closing <close> = self
    proxy._serves(self)
    while not self._over do
        self:_round()
    end
end

return M
