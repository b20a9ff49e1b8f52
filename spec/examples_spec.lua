-- Every program of scripts/examples, run as a user runs it: its output is
-- the tutorials', or, where the order is free, what must hold of it.

local helper = require "spec.helper"

local DIRECTORY <const> = "scripts/examples/"
local LIST <const> = "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n"

--- Runs an example, which must succeed and complain of nothing.
local function output(name, ...)
    local result = helper.run({DIRECTORY .. name .. ".lua", ...},
                              {timeout = 20})
    assert.are.equal("", result.stderr)
    assert.is_nil(result.signal)
    assert.are.equal(0, result.code)
    return result.stdout
end

local function lines(text)
    local list = {}
    for line in text:gmatch("([^\n]*)\n") do
        table.insert(list, line)
    end
    return list
end

local function sorted(list)
    table.sort(list)
    return list
end

local function count(text, pattern)
    return select(2, text:gsub(pattern, ""))
end

--- The numbers that a pattern's capture takes from the text, in order.
local function numbers(text, pattern)
    local list = {}
    for number in text:gmatch(pattern) do
        table.insert(list, tonumber(number))
    end
    return list
end

--- How many different ones a list holds.
local function distinct(list)
    local seen, n = {}, 0
    for _, item in ipairs(list) do
        n = n + (seen[item] and 0 or 1)
        seen[item] = true
    end
    return n
end

local function text(...)
    return table.concat({...}, "\n") .. "\n"
end

describe("examples with one possible output", function()
    local expected = {
        first_process = text "aaaaa",
        thread_and_process = text("aaaaa", "aaaaa"),
        thread_start = text("Thread_2 start", "", "Thread_2 end", ""),
        queue_results = text "499667166000",
        pool_map = LIST,
        pool_processes = LIST,
        pool_apply_async = LIST .. "4\n",
        apply_async_many = LIST .. "4\n" .. LIST,
        apply_async_three_args =
            text "TypeError: job() takes 1 argument (3 given)",
        pool_three_ways = LIST .. "4\n" .. LIST,
        shared_memory = text("0\t3.14\t1 2 3 4", "7\t6.28\t10 20 30 40"),
        array_nested = text "TypeError: an integer is required",
        hello_bob = text "hello bob",
        process_daemon = text("running: given, set", "main process ends"),
        no_arguments = text("a process without arguments",
                            "a process without arguments"),
        results_from_queue = text("333333000", "333333000", "All done!"),
        value_array = text("[0, 0, 0]", "[0, 1, 2]", "11.0", "15.0"),
        kwargs_process = text("a = 1, b = value", "a = 2, b = default"),
        kwargs_pool = text "a = 1, b = value",
        map_async = text "[1, 4, 9, 16]",
        starmap = text("[a0, b1]", "[c2, d3]"),
        imap = text("1\t1", "2\t4", "3\t9", "4\t16",
                    "sum: 333328333350000"),
        callbacks = text("result: 4", "error: divided by zero",
                         "results: 2 3 4"),
        rlock = text(
            "first:\ttrue", "second:\ttrue",
            "another process gets it:\tfalse",
            "another process gets it:\tfalse",
            "another process gets it:\ttrue",
            "once too often:\tfalse"),
        semaphore = text("inside now:\t0", "never more than two:\ttrue"),
        barrier = text(
            "passed when 3 had come", "passed when 3 had come",
            "passed when 3 had come", "ranks: 0 1 2",
            "waiting: 0\tbroken:\tfalse"),
        queue_basics = text(
            "empty:\ttrue\tfull:\tfalse\tsize:\t0",
            "empty:\tfalse\tfull:\ttrue\tsize:\t4",
            "put without waiting:\tFull: put: the queue is full",
            "put for 0.05 s:\tFull: put: the queue is full",
            "put_nowait:\tFull: put_nowait: the queue is full",
            "first", "42\tsecond", "3", "false",
            "get without waiting:\tEmpty: get: the queue is empty",
            "get for 0.05 s:\tEmpty: get: the queue is empty",
            "get_nowait:\tEmpty: get_nowait: the queue is empty"),
        queue_kinds = text("empty:\ttrue", "empty:\tfalse",
                           "sum of squares:\t55"),
        pool_initializer = text(
            "hello a", "hello b", "hello c", "hello d", "hello e", "hello f",
            "three workers at least:\ttrue",
            "each of them started once:\ttrue"),
        manager = text("[] 1", "[1] 2", "[1, 2] 3", "[1, 2, 3]",
                       "[] 1", "[] 2", "[] 3", "[]"),
        pipe = text(
            "42 None hello", "1 squared is 1", "2 squared is 4",
            "3 squared is 9",
            "at the end:\tfalse\tEOF: recv: the other end is closed",
            "after close:\tfalse\tOSError: send: handle is closed",
            "one way", "only",
            "the other way:\tfalse\tOSError: send: connection is read-only"),
        pool_table = text(
            "apply(square, {7})       yes    49",
            "apply_async(square, {7}) get()  49",
            "map(square, numbers)     yes    1 4 9 16",
            "map_async(...)           get()  1 4 9 16",
            "starmap(add, pairs)      yes    3 7",
            "starmap_async(...)       get()  3 7",
            "imap(square, numbers)    each   1 4 9 16",
            "imap_unordered(...)      each   1 4 9 16"),
        type_codes = text(
            "b\t-128", "B\t255", "u\té", "h\t-32768", "H\t65535",
            "i\t-2147483648", "I\t4294967295", "l\t-9223372036854775808",
            "L\t18", "q\t9223372036854775807", "Q\t20", "f\t0.5", "d\t3.14"),
    }
    for name, wanted in pairs(expected) do
        it("prints what it should: " .. name, function()
            assert.are.equal(wanted, output(name))
        end)
    end
end)

describe("examples with a lock", function()
    --- What two turns of n steps print, one by `first`, one by `second`.
    local function turns(n, first, second)
        local list = {}
        for i = 1, n do
            list[i] = first * i
            list[n + i] = first * n + second * i
        end
        return list
    end

    --- The first process begins, unless the machine is very busy.
    local function check(values, n)
        local ones_first = values[1] == 1
        assert.are.same(ones_first and turns(n, 1, 3) or turns(n, 3, 1),
                        values)
    end

    it("let a process finish its turn: lock", function()
        local out = output("lock")
        assert.are.equal(10, #lines(out))
        check(numbers(out, "(%d+)\n"), 5)
    end)

    it("let a process finish its turn: lock_turns", function()
        local out = output("lock_turns")
        assert.matches("\nAll done!\n$", out)
        assert.are.equal(21, #lines(out))
        check(numbers(out, "value : (%d+)\n"), 10)
    end)
end)

describe("examples that tell times", function()
    it("computes the same in one, two threads and two processes: efficiency",
    function()
        local seconds <const> = "[%d.e-]+\n"
        local out = output("efficiency")
        assert.matches("^normal: 499999666667166666000000\nnormal time: "
            .. seconds .. "multithread: 499999666667166666000000\n"
            .. "multithread time: " .. seconds
            .. "multicore: 499999666667166666000000\n"
            .. "multicore time: " .. seconds
            .. "speed%-up: [%d.]+ by threads, [%d.]+ by processes\n$", out)
    end)

    it("takes a smaller count, and refuses a wrong one", function()
        assert.matches("^normal: 499667166000\n.*\nmulticore: 499667166000\n",
                       output("efficiency", "1000"))
        for _, wrong in ipairs{"0", "-1", "1.5", "2000001", "x"} do
            local result = helper.run({DIRECTORY .. "efficiency.lua", wrong},
                                      {timeout = 20})
            assert.are.equal(2, result.code)
            assert.are.equal("", result.stdout)
        end
    end)

    it("computes the same twice: normal_and_multicore", function()
        assert.matches("^Normal Using Time: [%d.e-]+\n"
            .. "Normal: 666666666666000000\nMultCore Using Time: [%d.e-]+\n"
            .. "MultiCore: 666666666666000000\n$",
            output("normal_and_multicore"))
    end)

    it("runs the task twice in one process: sequential_twice", function()
        local out = output("sequential_twice")
        local main = tonumber(out:match("^当前母进程: (%d+)\n"))
        assert.are.same({main, main}, numbers(out, "当前进程: (%d+)\n"))
        assert.are.equal(2, count(out, "结果: 1152921504606846976\n"))
        assert.is_true(tonumber(out:match("用时([%d.]+)秒\n$")) >= 0.4)
    end)

    it("runs two tasks that wait at the same time: two_threads", function()
        local out = output("two_threads", "2")
        assert.matches("^当前主线程: MainThread\n等待所有子进程完成。\n",
            out)
        assert.are.equal(1, count(out, "子进程: Thread%-1 %- 任务1\n"))
        assert.are.equal(1, count(out, "子进程: Thread%-2 %- 任务2\n"))
        assert.are.equal(2, count(out, "结果: 1152921504606846976\n"))
        local seconds = tonumber(out:match("总共用时([%d.]+)秒\n$"))
        assert.is_true(seconds >= 2 and seconds < 3.95)
    end)

    it("lets one thread go before the other: thread_join", function()
        local list = lines(output("thread_join"))
        assert.are.equal("all done: 40", list[3])
        assert.are.same({"Thread_1: 1", "Thread_2: 3"},
            sorted{list[1], list[2]})
    end)

    it("runs two tasks at the same time: two_processes", function()
        local out = output("two_processes", "2")
        local main = tonumber(
            out:match("^当前母进程: (%d+)\n等待所有子进程完成。\n"))
        local pids = numbers(out, "子进程: (%d+) %- 任务[12]\n")
        assert.are.equal(3, distinct{main, table.unpack(pids)})
        assert.are.same({1, 2}, sorted(numbers(out, "任务(%d)\n")))
        assert.are.equal(2, count(out, "结果: 1152921504606846976\n"))
        local time = tonumber(out:match("总共用时([%d.]+)秒\n$"))
        assert.is_true(time >= 2 and time < 4, "took " .. time)
    end)

    it("runs five tasks by four workers: pool_of_four", function()
        local out = output("pool_of_four", "1")
        assert.matches("^CPU内核数:%d+\n当前母进程: %d+\n", out)
        assert.are.equal(4, distinct(numbers(out, "子进程: (%d+) ")))
        assert.are.same({0, 1, 2, 3, 4}, sorted(numbers(out, "任务(%d)\n")))
        assert.are.equal(1, count(out, "等待所有子进程完成。\n"))
        assert.are.equal(5, count(out, "结果: 1152921504606846976\n"))
        local time = tonumber(out:match("总共用时([%d.]+)秒\n$"))
        assert.is_true(time >= 2 and time < 5, "took " .. time)
    end)
end)

describe("examples whose order is free", function()
    it("adds up to 20 at most: no_lock", function()
        local values = numbers(output("no_lock", "0.01"), "(%d+)\n")
        assert.are.equal(10, #values)
        for _, value in ipairs(values) do
            assert.is_true(value >= 1 and value <= 20)
        end
    end)

    it("asks in the child and in the parent: process_info", function()
        local out = lines(output("process_info"))
        local main = out[1]:match("^main: name:MainProcess, pid:(%d+)$")
        assert.are.equal("before: \tnil\tnil\tfalse", out[2])
        local child = out[3]:match("^child: name:Process%-1, pid:(%d+)$")
        assert.are_not.equal(main, child)
        assert.are.equal("known: name:Process-1, pid:" .. child, out[4])
        assert.are.equal("after: \t0\tfalse", out[5])
        assert.is_nil(out[6])
    end)

    it("runs the class's own run: process_class", function()
        assert.matches("^name:MyProcess%-1, pid:%d+\n$",
                       output("process_class"))
    end)

    it("shows each method's effect: process_methods", function()
        assert.are.equal(text(
            "alive before start:\tfalse", "alive after start:\ttrue",
            "joined in 0.05 s:\tfalse\tnil", "joined:\ttrue\t-15",
            "alive after terminate:\tfalse",
            "after close:\tfalse\tStateError: process object is closed",
            "killed:\t-9"), output("process_methods"))
    end)

    it("runs ten tasks by four workers: pool_ten_tasks", function()
        local out = output("pool_ten_tasks")
        local ids = numbers(out, "process id: (%d+)\n")
        assert.are.equal(10, #ids)
        assert.is_true(distinct(ids) <= 4)
        assert.are.same({0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
                        sorted(numbers(out, "(%d) is now running, ")))
        assert.are.equal(1, count(out, "main process starting%.%.%.%.\n"))
        assert.matches("\nmain process stoping%.%.%.%.\n$", out)
        assert.are.equal(12, #lines(out))
    end)

    it("calls each twice: pool_apply", function()
        local wanted = {}
        for i = 0, 4 do
            table.insert(wanted, "hello " .. i)
            table.insert(wanted, "hello " .. i)
        end
        assert.are.same(wanted, sorted(lines(output("pool_apply"))))
    end)

    it("gets every result in spite of all: chaos", function()
        local out = output("chaos", "1.5", "2")
        local n = math.tointeger(tonumber(out:match("^(%d+) items of ")))
        assert.is_true(n > 0)
        assert.matches("\nundisturbed +[%d.]+ s\nunder fire +[%d.]+ s, ",
                       out)
        assert.matches("\nresults verified +" .. n .. " of " .. n .. "\n",
                       out)
        assert.is_true(numbers(out, "workers killed +(%d+), %d+ a second\n")[1]
            > 0)
        assert.are.equal(1, count(out, "tasks retried +%d+, in %d+ rounds\n"))
        assert.are.equal(6, #lines(out))
        local result = helper.run({DIRECTORY .. "chaos.lua", "x"},
                                  {timeout = 20})
        assert.are.equal(2, result.code)
    end)

    it("gives each input's result once: imap_unordered", function()
        assert.are.same({"1\t1", "2\t4", "3\t9", "4\t16"},
                        sorted(lines(output("imap_unordered"))))
    end)

    it("reads what was written, in order: writer_reader", function()
        local out = output("writer_reader")
        assert.are.equal(1, count(out, "Process to write: %d+\n"))
        assert.are.equal(1, count(out, "Process to read:%d+\n"))
        local puts, gets = {}, {}
        for value in out:gmatch("Put (%u) to queue%.%.%.\n") do
            table.insert(puts, value)
        end
        for value in out:gmatch("Get (%u) from queue%.\n") do
            table.insert(gets, value)
        end
        assert.are.same({"A", "B", "C"}, puts)
        assert.are.same({"A", "B", "C"}, gets)
        assert.are.equal(8, #lines(out))
    end)
end)

describe("the traffic lights", function()
    --- Each car comes, waits only at red, and passes after it came; the
    -- lights change by turns, first to green.
    local function check(out)
        local came, passed, green = {}, {}, false
        for _, line in ipairs(lines(out)) do
            local car = line:match("^car (%d) ")
            if line == ("car %s is coming "):format(car) then
                assert.is_nil(came[car])
                came[car] = true
            elseif line == ("car %s pass the cross road"):format(car) then
                assert.is_true(came[car])
                assert.is_nil(passed[car])
                passed[car] = true
            elseif line:find("green to red", 1, true) then
                assert.is_true(green)
                green = false
            elseif line:find("red to green", 1, true) then
                assert.is_false(green)
                green = true
            else
                assert.are.equal(("car %s is waiting"):format(car), line)
            end
        end
        for car = 0, 9 do
            assert.is_true(passed[tostring(car)])
        end
    end

    it("end with the last car", function()
        check(output("traffic_lights"))
    end)

    it("go on for ever when they are joined", function()
        local result = helper.run(
            {DIRECTORY .. "traffic_lights.lua", "0.02", "joined"},
            {timeout = 2})
        assert.are.equal("", result.stderr)
        assert.is_true(result.timed_out)
        check(result.stdout)
        local rest = result.stdout:match(".*cross road\n(.*)$")
        assert.is_true(#lines(rest) > 5)
    end)
end)

describe("the examples", function()
    it("are all run by these specs", function()
        local source = assert(io.open("spec/examples_spec.lua"))
        local spec = source:read("a")
        source:close()
        local list <close> = assert(io.popen("ls " .. DIRECTORY))
        for name in list:lines() do
            name = name:match("^(.*)%.lua$")
            local run = name == "wordcount"
                or spec:find("[ \"]" .. name .. "[ \".]")
                or spec:find('"' .. name .. ".lua", 1, true)
            assert(run, name .. " is not run")
        end
    end)
end)
