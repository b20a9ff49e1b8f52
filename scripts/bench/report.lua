--- One table from the JSON lines of the benchmark.
--
--   mplua scripts/bench/report.lua results.jsonl
--
-- Each row holds the medians of a figure: ours, Python's, how many times
-- better ours is (above 1: better, whatever the unit), and what is required
-- of it. Where a figure is held against the machine's own limit, that limit
-- and our multiple of it stand beside it.

-- What is required:
--   python   so many times better than Python, at least
--   limit    the machine's figure to hold ours against
--   at_most, at_least   our multiple of that limit
--   above    more than this, whatever Python does
--   bound    not more than this
--   against  Python's figure, where it has another name
local required = {
    proc_start_join = {limit = "fork_wait", at_most = 1.6},
    proc_start_join_forkserver = {limit = "fork_wait", at_most = 3},
    proc_start_join_spawn = {limit = "spawn_and_state", at_most = 1},
    thread_start_join = {limit = "thread_and_states", at_most = 1},
    pool_create_close_join = {python = 4},
    -- The best of the other systems that were measured, on two cores: the
    -- thread pool of Node's piscina.
    pool_map_100k = {python = 2, above = 9.36e6},
    threadpool_map_100k = {above = 9.36e6},
    pool_map_10k_c1 = {python = 40},
    pool_imap_unordered_c1 = {python = 15},
    pool_apply_1core = {python = 4},
    executor_map_c1 = {python = 40},
    pool_map_controls = {bound = 1.3},
    pipe_pingpong_1core = {limit = "pingpong_1core", at_most = 2,
        python = 1},
    event_pingpong_1core = {limit = "pingpong_1core", at_most = 2,
        python = 1},
    condition_pingpong_1core = {limit = "pingpong_1core", at_most = 2,
        python = 1},
    barrier_2p_1core = {limit = "pingpong_1core", at_most = 2, python = 1},
    pipe_64m = {python = 4},
    queue_int = {python = 10},
    queue_1k = {python = 10},
    queue_1m = {python = 6},
    simplequeue_int = {python = 10},
    lock_uncontended = {python = 1 / 1.2},
    semaphore_uncontended = {python = 1 / 1.2},
    value_inc_2p = {python = 6},
    value_add_2p = {python = 20, against = "value_inc_2p"},
    array_write = {python = 6},
    array_read = {python = 6},
    array_raw_write = {python = 1 / 1.2},
    array_raw_read = {python = 1 / 1.2},
    imap_gen_1m = {python = 3},
    imap_gen_1m_c1 = {python = 10},
    imap_drawn_by_idle_consumer = {bound = 100000},
    worker_private_mb = {bound = 10},
    compute_speedup_2p = {limit = "compute_speedup_2p", at_least = 0.9},
}

local function median(list)
    table.sort(list)
    local middle = #list // 2
    if #list % 2 == 1 then
        return list[middle + 1]
    end
    return (list[middle] + list[middle + 1]) / 2
end

--- Reads the lines of `path`.
-- @return peer -> bench -> median; benches in the order of the file; units
local function read(path)
    local samples, order, units = {}, {}, {}
    for line in assert(io.open(path)):lines() do
        local peer = line:match('"peer":%s*"([^"]*)"')
        local bench = line:match('"bench":%s*"([^"]*)"')
        local value = tonumber(line:match('"value":%s*([^,}]*)'))
        local unit = line:match('"unit":%s*"([^"]*)"')
        if not (peer and bench and value and unit) then
            error(string.format("%s: not a line of the benchmark: %s", path,
                line), 0)
        end
        samples[peer] = samples[peer] or {}
        if not samples[peer][bench] then
            samples[peer][bench] = {}
            if not units[bench] and peer ~= "limit" then
                order[#order + 1] = bench
            end
        end
        units[bench] = units[bench] or unit
        table.insert(samples[peer][bench], value)
    end
    local medians = {}
    for peer, benches in pairs(samples) do
        medians[peer] = {}
        for bench, list in pairs(benches) do
            medians[peer][bench] = median(list)
        end
    end
    return medians, order, units
end

--- Three significant digits: 16.8M, 51.4k, 332, 9.34.
local function short(v)
    if not v then
        return ""
    elseif math.abs(v) >= 999500 then
        return string.format("%.3gM", v / 1e6)
    elseif math.abs(v) >= 9995 then
        return string.format("%.3gk", v / 1e3)
    elseif math.abs(v) >= 100 then
        return string.format("%.0f", v)
    end
    return string.format("%.3g", v)
end

local function more_is_better(unit)
    return unit == "x" or unit:find("/s$") ~= nil
end

--- How many times better `ours` is than `theirs`; nil without both, and
-- where a peak that did not rise leaves nothing to divide by.
local function advantage(ours, theirs, unit)
    if not (ours and theirs) or ours == 0 or theirs == 0 then
        return nil
    end
    return more_is_better(unit) and ours / theirs or theirs / ours
end

--- The conditions of a row: list of {text, met}, met nil when it cannot be
-- told.
local function conditions(need, ours, ratio, of_limit)
    local list = {}
    local function add(text, known, met)
        list[#list + 1] = {text = text, met = known and met}
    end
    if need.python then
        add(string.format(">= %.3gx", need.python), ratio,
            ratio and ratio >= need.python)
    end
    if need.above then
        add("> " .. short(need.above), ours, ours and ours > need.above)
    end
    if need.bound then
        add("<= " .. short(need.bound), ours, ours and ours <= need.bound)
    end
    if need.at_most then
        add(string.format("<= %.3g x limit", need.at_most), of_limit,
            of_limit and of_limit <= need.at_most)
    end
    if need.at_least then
        add(string.format(">= %.3g x limit", need.at_least), of_limit,
            of_limit and of_limit >= need.at_least)
    end
    return list
end

--- Sums conditions up: their text, and "yes", "NO" or "?".
local function verdict(list)
    local texts, unknown, failed = {}, false, false
    for i, condition in ipairs(list) do
        texts[i] = condition.text
        unknown = unknown or condition.met == nil
        failed = failed or condition.met == false
    end
    if #list == 0 then
        return "", ""
    end
    local word = failed and "NO" or unknown and "?" or "yes"
    return table.concat(texts, ", "), word
end

local function row(bench, unit, medians)
    local need = required[bench] or {}
    local ours = (medians.mplua or {})[bench]
    local theirs = (medians.python or {})[need.against or bench]
    local limit = (medians.limit or {})[need.limit]
    local ratio = advantage(ours, theirs, unit)
    local of_limit = ours and limit and ours / limit
    local text, word = verdict(conditions(need, ours, ratio, of_limit))
    return {bench, unit, short(ours), short(theirs),
        ratio and short(ratio) .. "x" or "", short(limit),
        of_limit and string.format("%.2f", of_limit) or "", text, word}
end

--- Prints rows as a Markdown table; numbers keep to the left, as words do.
local function print_table(rows)
    local widths = {}
    for _, cells in ipairs(rows) do
        for i, cell in ipairs(cells) do
            widths[i] = math.max(widths[i] or 3, #cell)
        end
    end
    local rule = {}
    for i, width in ipairs(widths) do
        rule[i] = ("-"):rep(width)
    end
    table.insert(rows, 2, rule)
    for _, cells in ipairs(rows) do
        local padded = {}
        for i, cell in ipairs(cells) do
            padded[i] = cell .. (" "):rep(widths[i] - #cell)
        end
        print("| " .. table.concat(padded, " | ") .. " |")
    end
end

local function main(path)
    local medians, order, units = read(path)
    local rows = {{"bench", "unit", "mplua", "python", "ratio", "limit",
        "x limit", "required", "ok"}}
    local counts = {yes = 0, NO = 0, ["?"] = 0}
    for _, bench in ipairs(order) do
        local cells = row(bench, units[bench], medians)
        local word = cells[#cells]
        rows[#rows + 1] = cells
        if counts[word] then
            counts[word] = counts[word] + 1
        end
    end
    print_table(rows)
    print(string.format("\nratio: times better than Python. Required: " ..
        "%d reached, %d missed, %d not measured.", counts.yes, counts.NO,
        counts["?"]))
end

if not arg[1] then
    io.stderr:write("usage: report.lua results.jsonl\n")
    os.exit(1)
end
main(arg[1])
