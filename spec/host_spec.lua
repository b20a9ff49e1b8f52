--- A C host with several threads of its own, each with a state that has mp:
-- they share objects, start processes and make pools at the same time, end
-- one after the other, and the process is as it was when all have closed.

local helper = require "spec.helper"

-- HOST script n: a main state and n threads run the script with: which one
-- (0 the main state before there are threads, -1 after them), n, and the
-- bytes that the first call returned. At the end it tells how many children
-- and descriptors it has more than before: a fork server that several states
-- have used stays as long as the process does.
local HOST <const> = [[
#include <dirent.h>
#include <lauxlib.h>
#include <lualib.h>
#include <mplua.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *script;
static int count;
static char shared[65536];
static size_t shared_size;
static pthread_barrier_t barrier;

static int run(lua_State *L, int index) {
    int failed = luaL_loadfile(L, script);
    lua_pushinteger(L, index);
    lua_pushinteger(L, count);
    lua_pushlstring(L, shared, shared_size);
    if (!failed) failed = lua_pcall(L, 3, 1, 0);
    if (failed)
        fprintf(stderr, "%d: %s\n", index, luaL_tolstring(L, -1, NULL));
    return failed;
}

static void *work(void *arg) {
    int index = (int)(intptr_t)arg;
    lua_State *L = mplua_newstate();
    pthread_barrier_wait(&barrier);
    intptr_t failed = run(L, index);
    lua_close(L);
    return (void *)failed;
}

static int descriptors(void) {
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

/* Of this last thread, which has those of the others that ended. */
static int children(void) {
    int pid, n = 0;
    FILE *file = fopen("/proc/thread-self/children", "r");
    while (fscanf(file, "%d", &pid) == 1) n++;
    fclose(file);
    return n;
}

int main(int argc, char **argv) {
    pthread_t id[16];
    int failed = argc != 3;
    script = argv[1];
    count = atoi(argv[2]);
    int before = descriptors();
    lua_State *L = mplua_newstate();
    failed += run(L, 0) != 0;
    const char *bytes = lua_tolstring(L, -1, &shared_size);
    if (bytes && shared_size <= sizeof shared)
        memcpy(shared, bytes, shared_size);
    lua_settop(L, 0);
    pthread_barrier_init(&barrier, NULL, (unsigned)count);
    for (int i = 0; i < count; i++)
        pthread_create(&id[i], NULL, work, (void *)(intptr_t)(i + 1));
    for (int i = 0; i < count; i++) {
        void *result;
        pthread_join(id[i], &result);
        failed += result != NULL;
    }
    failed += run(L, -1) != 0;
    lua_close(L);
    printf("children %d, descriptors %d\n", children(),
           descriptors() - before);
    return failed;
}
]]

local built -- the host's path: built once, removed at the end

local function host()
    if built then
        return built
    end
    local dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir " .. dir))
    built = helper.build_host(dir, HOST)
    return built
end

-- What all scripts begin with.
local HEAD <const> = [[
    local index, count, shared = ...
    local mp = require "mp"
    mp.set_executable(os.getenv("MPLUA"))
    local METHODS = {"fork", "spawn", "forkserver", "thread"}
    local given = shared ~= "" and mp.pickle.loads(shared)
    local function run(ctx, opts)
        local p <close> = ctx.Process(opts)
        p:start()
        assert(p:join(30), "it hangs")
        return p.exitcode
    end
]]

--- What the host says, and what it says on stderr.
local function results(threads, text)
    local result = helper.run({helper.tmpfile(HEAD .. text, ".lua"),
        tostring(threads)}, {program = host(), timeout = 60,
        env = {MPLUA = helper.mplua}})
    assert.is_false(result.timed_out, result.stdout .. result.stderr)
    assert.are.equal(0, result.code, result.stdout .. result.stderr)
    return result.stdout, result.stderr
end

describe("a host with threads", function()
    teardown(function()
        if built then
            os.execute("rm -r " .. helper.quote(built:match("^(.*)/")))
        end
    end)

    it("PAIN-04 starts by the fork server, by default", function()
        local out, said = results(2, [[
            if index == 0 then
                mp.set_start_method(nil, true)
                print(mp.get_all_start_methods()[1])
                return mp.pickle.dumps(mp.Queue(2))
            elseif index > 0 then
                given:put(mp.get_start_method())
                assert(run(mp, {target = os.exit, args = {index}}) == index)
            else
                print(given:get(true, 0), given:get(true, 0))
            end]])
        assert.are.equal("", said)
        assert.matches("^fork\nforkserver\tforkserver\nchildren [01], ", out)
    end)

    it("shares locks, queues and values between threads and processes",
        function()
        local out, said = results(4, [[
            if index == 0 then
                SHARED = {lock = mp.Lock(), queue = mp.Queue(),
                    value = mp.Value("i", 0, {lock = false}),
                    atomic = mp.Value("i", 0)}
                return mp.pickle.dumps(SHARED)
            elseif index == -1 then
                print(given.value.value, given.atomic.value,
                    given.queue:qsize())
                return
            end
            local lock, value, queue = given.lock, given.value, given.queue
            local atomic = given.atomic
            local function add(n)
                for _ = 1, n do
                    local held <close> = lock:guard()
                    value.value = value.value + 1
                end
                atomic:add(1)
                queue:put(n)
            end
            for _ = 1, 3 do
                for _, method in ipairs{"spawn", "forkserver", "thread"} do
                    assert(run(mp.get_context(method),
                        {target = add, args = {20}}) == 0)
                end
                add(40)
                for _ = 1, 4 do queue:get(true, 20) end
            end]])
        assert.are.equal("", said)
        assert.matches("^1200\t48\t0\nchildren [01], ", out)
    end)

    it("makes pools in several threads at a time", function()
        local out, said = results(4, [[
            if index <= 0 then return end
            for _, method in ipairs{"spawn", "forkserver", "thread"} do
                local pool <close> = mp.get_context(method).Pool(2)
                local list = pool:map(function(x) return x * index end,
                    mp.range(200))
                for i = 1, 200 do assert(list[i] == (i - 1) * index
                    or list[i] == i * index) end
                local ok, e = pcall(pool.map, pool, function(x)
                    if x == 2 then os.exit(3) end
                end, {1, 2, 3})
                assert(e.kind == "WorkerLost" and e.exitcode == 3)
                assert(pool:apply(math.abs, {-index}) == index)
            end]])
        assert.are.equal("", said)
        assert.matches("^children [01], ", out)
    end)

    it("that forks in so many words is warned once in a state", function()
        local out, said = results(2, [[
            if index <= 0 then return end
            local ctx = mp.get_context("fork")
            for _ = 1, 5 do
                assert(run(ctx, {target = os.exit, args = {4}}) == 4)
            end]])
        local n = select(2, said:gsub("%[WARNING/MainProcess%] this process "
            .. "has threads: [^\n]*'forkserver' or 'spawn'\n", ""))
        assert.are.equal(2, n, said)
        assert.are.equal(2, select(2, said:gsub("\n", "")), said)
        assert.matches("^children [01], ", out)
    end)

    it("has threads that end while children of others go on", function()
        local out, said = results(4, [[
            if index == 0 then
                SHARED = {go = mp.Event(), ended = mp.Value("i", 0)}
                return mp.pickle.dumps(SHARED)
            elseif index == -1 then
                print(given.ended.value)
                return
            end
            local go, ended = given.go, given.ended
            if index == count then -- the last one waits for all others
                local list = {}
                for i, method in ipairs{"spawn", "forkserver", "thread"} do
                    list[i] = mp.get_context(method).Process{
                        target = function() go:wait(30) os.exit(i) end}
                    list[i]:start()
                end
                local pool <close> = mp.get_context("forkserver").Pool(1)
                local last = mp.monotonic() + 30
                while ended.value < count - 1 do
                    assert(mp.monotonic() < last)
                    mp.sleep(0.001)
                end
                mp.sleep(0.05) -- they close their states
                go:set()
                for i, p in ipairs(list) do
                    assert(p:join(20) and p.exitcode == i)
                    p:close()
                end
                assert(pool:apply(math.abs, {-1}) == 1)
            else
                -- One that is awaited, and one that goes at the end.
                assert(run(mp.get_context("forkserver"),
                    {target = os.exit, args = {3}}) == 3)
                mp.get_context(METHODS[1 + index]).Process{
                    target = mp.sleep, args = {60}, daemon = true}:start()
                ended:add(1)
            end]])
        assert.are.equal("", said)
        assert.matches("^3\nchildren [01], ", out)
    end)

    it("goes on after errors, dead children and a killed server", function()
        local out, said = results(3, [[
            if index <= 0 then return end
            local ctx = mp.get_context("forkserver")
            for i = 1, 20 do
                local p <close> = ctx.Process{target = function(n)
                    local here = require "mp"
                    local server = here.getppid()
                    if n % 7 == 0 and server > 1 then
                        -- Another's child may have been first.
                        os.execute("kill -9 " .. server .. " 2>/dev/null")
                        here.sleep(60)
                    end
                    os.exit(n)
                end, args = {i}}
                p:start()
                assert(p:join(30), "it hangs")
                assert(p.exitcode == i or p.exitcode == -9, p.exitcode)
            end
            assert(not pcall(ctx.Process, 5))
            assert(not pcall(mp.set_start_method, "nope"))
            assert(run(mp.get_context("spawn"),
                {target = os.exit, args = {1}}) == 1)]])
        assert.are.equal("", said)
        assert.matches("^children [01], ", out)
    end)

    it("leaves no descriptor with each thread that comes and goes",
        function()
        local function descriptors(n)
            return results(n, [[
                for _, method in ipairs{"spawn", "forkserver", "thread"} do
                    assert(run(mp.get_context(method),
                        {target = os.exit, args = {3}}) == 3)
                end]])
        end
        assert.are.equal(descriptors(2), descriptors(8))
    end)
end)
