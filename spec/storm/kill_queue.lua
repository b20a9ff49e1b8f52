--- Producers and consumers are killed all the time: each message is had once
-- at most, in its producer's order, and is missing only where a consumer
-- died with it in hand; nobody hangs; nothing is left.
--
-- A message is {producer, number, load}. A producer writes the number of its
-- last finished put into a cell; its follower leaves out the numbers that it
-- may have put besides. Who gets a message counts it in a cell of its own.

local mp = require "mp"
local tools = require "spec.storm.tools"

local one_of, sum_of = tools.one_of, tools.sum_of

local PRODUCERS <const>, CONSUMERS <const> = 3, 3
local MOST <const> = 100000 -- messages of one producer
local MANY <const> = 8      -- most at a time of put_many and get_many
local STALL <const> = tools.PATIENCE / 2

-- Messages ------------------------------------------------------------------

--- What message `i` carries besides its number: mostly little.
local function load_of(scene, i)
    if i % 397 == 0 then
        return ("%d,"):format(i):rep(10000)
    elseif scene.handles and i % 11 == 0 then
        local q = mp.SimpleQueue()
        q:put(i)
        return q
    elseif i % 5 == 0 then
        return {i, {i}}
    end
    return i
end

--- Is this what load_of gave?
local function is_load(i, what)
    if type(what) == "string" then
        return what == ("%d,"):format(i):rep(10000)
    elseif type(what) == "userdata" then
        return what:get() == i
    elseif type(what) == "table" then
        return what[1] == i and what[2][1] == i
    end
    return what == i
end

-- Producers and consumers ---------------------------------------------------

local function message(scene, p, i)
    return {p, i, load_of(scene, i)}
end

local function produce(scene, p)
    local sent, q = scene.sent, scene.queue
    while sent[p] < MOST - 2 * MANY do
        local i = sent[p] + 1
        if scene.many and math.random(3) == 1 then
            local list = {}
            for k = 1, math.random(MANY) do
                list[k] = message(scene, p, i + k - 1)
            end
            q:put_many(list, STALL)
            sent[p] = i + #list - 1
        else
            q:put(message(scene, p, i))
            sent[p] = i
        end
    end
    while true do
        mp.sleep(1)
    end
end

--- Counts a message that was had, and what was wrong with it.
local function note(scene, last, p, i, what)
    local at = (p - 1) * MOST + i
    if scene.had[at] ~= 0 then
        scene.wrong[1] = scene.wrong[1] + 1
    elseif i <= (last[p] or 0) then
        scene.wrong[2] = scene.wrong[2] + 1
    elseif not is_load(i, what) then
        scene.wrong[3] = scene.wrong[3] + 1
    end
    last[p] = i
    scene.had[at] = 1
    if scene.joinable then
        scene.queue:task_done()
    end
end

local function consume(scene, c)
    local q, last, counts = scene.queue, {}, scene.counts
    while true do
        local list = {}
        if scene.many and math.random(3) == 1 then
            list = q:get_many(MANY)
        else
            list[1] = q:get()
        end
        for _, m in ipairs(list) do
            note(scene, last, table.unpack(m, 1, 3))
        end
        counts[c] = counts[c] + 1
    end
end

local function start(scene, work, k)
    local seed = math.random(1 << 30)
    local p = mp.Process{daemon = true, target = function()
        math.randomseed(seed)
        work(scene, k)
    end}
    p:start()
    return p
end

-- The storm over one queue --------------------------------------------------

local function new_scene(kind)
    local bound = kind ~= "SimpleQueue" and one_of{0, 1, 10, 1000} or 0
    return {
        queue = kind == "SimpleQueue" and mp.SimpleQueue() or mp[kind](bound),
        joinable = kind == "JoinableQueue", many = kind ~= "SimpleQueue",
        handles = bound > 0,
        unsure = {}, -- numbers of messages that may never have been put
        sent = mp.RawArray("q", PRODUCERS), wrong = mp.RawArray("i", 3),
        had = mp.RawArray("b", PRODUCERS * MOST),
        counts = mp.RawArray("q", CONSUMERS),
    }
end

local function finish(storm, p)
    p:kill()
    storm:bury(p)
end

--- What producer p, which is dead, may have put or not.
local function leave_out(scene, p)
    local i = scene.sent[p]
    if i >= MOST - 2 * MANY then
        return -- it had finished
    end
    for k = 1, MANY do
        scene.unsure[(p - 1) * MOST + i + k] = true
    end
    scene.sent[p] = i + MANY
end

--- Sends one of the processes to its death, and a follower in its place.
local function replace(storm, scene, list, work)
    local k = math.random(#list)
    local dead, late = list[k], math.random(2) == 1
    if late then
        dead:kill()
        if work == produce then
            dead:join(5)
            leave_out(scene, k)
        end
        list[k] = start(scene, work, k)
    end
    finish(storm, dead)
    if not late then
        if work == produce then
            leave_out(scene, k)
        end
        list[k] = start(scene, work, k)
    end
end

--- Messages had of what producer p sent for certain, and how many are missing.
local function tally(scene, p)
    local had, missing = 0, 0
    local first = (p - 1) * MOST
    local list = scene.had:slice(first + 1, first + scene.sent[p] + MANY)
    for i, n in ipairs(list) do
        had = had + n
        if n == 0 and i <= scene.sent[p] and not scene.unsure[first + i] then
            missing = missing + 1
        end
    end
    return had, missing
end

--- Takes what is still there, as the last consumer.
local function drain(storm, scene)
    local last, n = {}, scene.queue:qsize()
    for k = 1, n do
        local got, m = scene.queue:try_get(STALL)
        storm:check(got, "%d of %d messages are not there", n - k + 1, n)
        note(scene, last, table.unpack(m, 1, 3))
    end
    storm:check(scene.queue:empty(), "more messages than it said")
end

local function judge(storm, scene, deaths)
    local wrong = scene.wrong
    storm:check(wrong[1] == 0, "%d messages came twice", wrong[1])
    storm:check(wrong[2] == 0, "%d messages out of order", wrong[2])
    storm:check(wrong[3] == 0, "%d messages with another load", wrong[3])
    local had, missing = 0, 0
    for p = 1, PRODUCERS do
        local h, m = tally(scene, p)
        had, missing = had + h, missing + m
    end
    local most = deaths * (scene.many and MANY or 1)
    storm:check(missing <= most, "%d messages missing, %d consumers died",
        missing, deaths)
    storm:count("messages verified", had)
    storm:count("lost in hand", missing)
    if scene.joinable then
        -- What the dead had taken and not finished, and nothing else.
        local owed = 0
        while pcall(scene.queue.task_done, scene.queue) do
            owed = owed + 1
        end
        storm:check(owed <= most, "%d tasks not done, %d consumers died",
            owed, deaths)
        storm:check(scene.queue:join(1), "join() waits for nothing")
    end
end

local function rage(storm, scene, seconds)
    local producers, consumers, deaths = {}, {}, CONSUMERS
    for k = 1, PRODUCERS do
        producers[k] = start(scene, produce, k)
    end
    for k = 1, CONSUMERS do
        consumers[k] = start(scene, consume, k)
    end
    local seen, since = -1, mp.monotonic()
    local last = since + seconds
    while mp.monotonic() < last do
        tools.nap(0.001, 0.02)
        if math.random(2) == 1 then
            replace(storm, scene, producers, produce)
        else
            replace(storm, scene, consumers, consume)
            deaths = deaths + 1
        end
        local sum = sum_of(scene.counts) + sum_of(scene.sent)
        if sum ~= seen then
            seen, since = sum, mp.monotonic()
            storm:progress()
        end
        if math.random(5) == 1 then
            storm:check_arena()
        end
        storm:check(mp.monotonic() - since < STALL, "no message in %g s",
            STALL)
    end
    for _, p in ipairs(producers) do
        finish(storm, p)
    end
    for _, p in ipairs(consumers) do
        finish(storm, p)
    end
    drain(storm, scene)
    judge(storm, scene, deaths)
end

tools.run("kill_queue", function(storm)
    local kinds = {"Queue", "SimpleQueue", "JoinableQueue"}
    local each = math.max(0.2, math.min(1, storm.seconds / #kinds))
    local before = tools.footprint()
    local i = 0
    while storm:goes_on() or i < #kinds do
        local kind = kinds[i % #kinds + 1]
        i = i + 1
        storm:progress(kind)
        rage(storm, new_scene(kind), each)
        storm:progress("the look at what a " .. kind .. " left")
        storm:nothing_left(before)
    end
end)
