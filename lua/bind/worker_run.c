/* What a worker runs: it calls the function for each item of a range, and
   stores each result. One protected call per range, not per item: an error
   ends the range's call, and the next begins behind the item that failed. */
#include <stdlib.h>
#include <unistd.h>

#include "bind/core.h"
#include "bind/globals.h"
#include "bind/message.h"
#include "bind/worker.h"

enum {
    FUNCTIONS_KEPT = 64,
    COARSE_FROM_NS = 1000000000 /* a timeout for which a tick is nothing */
};

const char worker_self, worker_hooks, worker_cache, worker_trace, worker_seed;

int worker_traceback(lua_State *L) {
    /* The value stays as it is; its traceback waits in the registry. */
    luaL_traceback(L, L, NULL, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &worker_trace);
    return 1;
}

/* ---- one item ------------------------------------------------------- */

/* Decodes the function whose message is `key`, pushes it and adds it to the
   cache on top: under `key`, and the view of its globals under -`key`. */
static void add_function(lua_State *L, worker *w, lua_Integer key) {
    if (w->functions >= FUNCTIONS_KEPT) {
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &worker_cache);
        lua_replace(L, -2);
        w->functions = 0;
    }
    globals_enter(L, (mp_ref)key);
    lua_rawseti(L, -3, -key);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, key);
    w->functions++;
}

void worker_function(lua_State *L, worker *w) {
    mp_ref message = mp_function_message(w->range.job);
    lua_Integer key = (lua_Integer)message;
    bool other = w->turn != message;
    if (other) {
        w->turn = 0; /* should this fail in the middle */
        globals_leave(L);
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_cache);
    if (lua_rawgeti(L, -1, key) != LUA_TFUNCTION) {
        lua_pop(L, 1);
        add_function(L, w, key);
    } else if (other) {
        lua_rawgeti(L, -2, -key);
        globals_return(L);
    }
    w->turn = message;
    lua_remove(L, -2);
}

/* The judges by message, in the cache: who says of a job's items whether they
   may be run again. Pushes the table, or nil. */
static const char *const JUDGES = "judges";

static int push_judges(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_cache);
    lua_pushstring(L, JUDGES);
    int type = lua_rawget(L, -2);
    lua_remove(L, -2);
    return type;
}

int worker_judge(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_self);
    const worker *w = lua_touserdata(L, 2);
    if (!w || !w->range.job) return 0; /* nobody would ask */
    if (push_judges(L) != LUA_TTABLE) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_cache);
        lua_newtable(L);
        lua_replace(L, 3);
        lua_pushstring(L, JUDGES);
        lua_pushvalue(L, 3);
        lua_rawset(L, 4);
    }
    lua_pushvalue(L, 1);
    lua_rawseti(L, 3, (lua_Integer)mp_function_message(w->range.job));
    return 0;
}

/* How many arguments the function at stack index 2 takes: what a call with
   more would silently drop. */
static lua_Integer most_arguments(lua_State *L) {
    lua_Debug info;
    lua_pushvalue(L, 2);
    lua_getinfo(L, ">Su", &info);
    return *info.what == 'C' || info.isvararg ? 1000000 : info.nparams;
}

/* Pushes a list's items; returns how many. */
static int unpack_item(lua_State *L) {
    if (!lua_istable(L, -1))
        bind_error(L, "TypeError",
                   "starmap: a list of arguments expected, got %s",
                   luaL_typename(L, -1));
    int list = lua_gettop(L);
    lua_Integer n;
    lua_getfield(L, list, "n");
    n = lua_isinteger(L, -1) ? lua_tointeger(L, -1)
                             : (lua_Integer)lua_rawlen(L, list);
    lua_pop(L, 1);
    lua_Integer most = most_arguments(L);
    if (n < 0) bind_error(L, "ValueError", "starmap: %I arguments", n);
    if (n > most)
        bind_error(L, "TypeError",
                   "starmap: the function takes %I argument%s (%I given)",
                   most, most == 1 ? "" : "s", n);
    luaL_checkstack(L, (int)n, "starmap: too many arguments");
    for (lua_Integer i = 1; i <= n; i++) lua_geti(L, list, i);
    lua_remove(L, list);
    return (int)n;
}

/* Pushes item i's arguments; returns how many. */
static int push_arguments(lua_State *L, const worker *w, uint64_t i) {
    const mp_job_shm *job = w->range.job;
    if (job->source == MP_JOB_RANGE) {
        lua_pushinteger(L, (lua_Integer)((uint64_t)job->start +
                                         i * (uint64_t)job->step));
        return job->shape == SHAPE_STAR ? unpack_item(L) : 1;
    }
    const mp_cell_shm *cell = &w->in[i & (job->window - 1)];
    uint64_t value = mp_cell_value(cell);
    unsigned tag = (unsigned)(atomic_load_explicit(&cell->mark,
                                                   memory_order_relaxed) &
                              0xff);
    int n = 1;
    if (tag == MESSAGE_INTEGER)
        lua_pushinteger(L, (lua_Integer)value);
    else if (tag == MP_CELL_EMPTY)
        n = 0;
    else if (tag == MP_CELL_BLOCK)
        n = message_push(L, value);
    else
        message_push_scalar(L, (uint8_t)tag, value);
    return job->shape == SHAPE_STAR ? unpack_item(L) : n;
}

static void store_result(lua_State *L, worker *w, int first) {
    const mp_job_shm *job = w->range.job;
    int n = lua_gettop(L) - first + 1;
    uint8_t tag;
    uint64_t value;
    if (n == 1 && lua_isinteger(L, first))
        mp_cell_result(&w->out[w->at & (job->window - 1)], w->at,
                       MESSAGE_INTEGER, (uint64_t)lua_tointeger(L, first));
    else if (n == 1 && message_scalar(L, first, &tag, &value))
        mp_worker_result(job, w->at, tag, value);
    else if (n == 0)
        mp_worker_result(job, w->at, MP_CELL_EMPTY, 0);
    else
        mp_worker_result(job, w->at, MP_CELL_BLOCK,
                         message_new(L, first, n, "result"));
}

/* ---- a range of items ------------------------------------------------ */

/* SplitMix64, by S. Vigna. */
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* math.randomseed by the job's seed and the item's number, and nothing else:
   [3] that function. */
static void seed_item(lua_State *L, const worker *w) {
    uint64_t x = mix(w->range.job->with.seed + UINT64_C(0x9e3779b97f4a7c15));
    x = mix(x + (w->at + 1) * UINT64_C(0x9e3779b97f4a7c15));
    lua_pushvalue(L, 3);
    lua_pushinteger(L, (lua_Integer)x);
    lua_pushinteger(L, (lua_Integer)mix(x + 1));
    lua_call(L, 2, 0);
}

/* The crew has found the time of the item before to be up, and kills us. */
static void await_death(void) {
    for (;;) pause();
}

static void step_to(worker *w, uint64_t i, uint64_t now) {
    if (!mp_worker_step(w->shm, i, now)) await_death();
}

/* Item `at` is what runs now. */
static void begin_item(worker *w) {
    const mp_job_shm *job = w->range.job;
    uint64_t timeout = job->with.timeout_ns;
    if (!timeout) {
        mp_worker_at(w->shm, w->at);
        return;
    }
    uint64_t now = timeout < COARSE_FROM_NS ? (uint64_t)mp_now_ns()
                                            : mp_coarse_ns();
    step_to(w, w->at, now);
    bind_task_until(&w->task, now + timeout);
}

static void end_range(worker *w) {
    if (w->range.job->with.timeout_ns)
        step_to(w, w->at, 0);
    else
        mp_worker_at(w->shm, w->at);
}

/* A range of a job that wants more than to be run. */
static int run_with_care(lua_State *L) {
    worker *w = lua_touserdata(L, 1);
    const mp_job_shm *job = w->range.job;
    bool seeds = job->with.flags & MP_WITH_SEED;
    w->phase = PHASE_FUNCTION;
    worker_function(L, w);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_seed);
    if (seeds) w->seeded = true;
    for (; w->at < w->range.high; w->at++) {
        begin_item(w);
        if (mp_job_cancelled(job)) continue;
        if (seeds) seed_item(L, w);
        w->phase = PHASE_ARGUMENT;
        lua_pushvalue(L, 2);
        int n = push_arguments(L, w, w->at);
        w->phase = PHASE_CALL;
        lua_call(L, n, job->shape == SHAPE_APPLY ? LUA_MULTRET : 1);
        w->phase = PHASE_RESULT;
        store_result(L, w, 4);
        lua_settop(L, 3);
    }
    end_range(w);
    return 0;
}

/* Runs the range from `at` on. */
static int run_range(lua_State *L) {
    worker *w = lua_touserdata(L, 1);
    const mp_job_shm *job = w->range.job;
    w->phase = PHASE_FUNCTION;
    worker_function(L, w);
    for (; w->at < w->range.high; w->at++) {
        mp_worker_at(w->shm, w->at);
        if (mp_job_cancelled(job)) continue;
        w->phase = PHASE_ARGUMENT;
        lua_pushvalue(L, 2);
        int n = push_arguments(L, w, w->at);
        w->phase = PHASE_CALL;
        lua_call(L, n, job->shape == SHAPE_APPLY ? LUA_MULTRET : 1);
        w->phase = PHASE_RESULT;
        store_result(L, w, 3);
        lua_settop(L, 2);
    }
    mp_worker_at(w->shm, w->at);
    return 0;
}

/* ---- errors --------------------------------------------------------- */

/* failure(value, traceback, f, index, id, phase) -> error object, which it
   packs: [1] the hooks, [2] the error value. Returns the block as integer. */
static int pack_failure(lua_State *L) {
    worker *w = lua_touserdata(L, 3);
    static const char *const phases[] = {"function", "argument", "call",
                                         "result"};
    lua_getfield(L, 1, "failure");
    lua_pushvalue(L, 2);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_trace);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_cache);
    if (w->range.job) {
        lua_rawgeti(L, -1, (lua_Integer)mp_function_message(w->range.job));
        lua_remove(L, -2);
        if (w->range.job->shape == SHAPE_APPLY)
            lua_pushnil(L);
        else
            lua_pushinteger(L, (lua_Integer)w->at + 1);
    } else {
        lua_pop(L, 1);
        lua_pushnil(L);
        lua_pushnil(L);
    }
    lua_pushinteger(L, (lua_Integer)w->id);
    lua_pushstring(L, phases[w->phase]);
    lua_call(L, 6, 1);
    lua_pushinteger(L,
                    (lua_Integer)message_new(L, lua_gettop(L), 1, "error"));
    return 1;
}

mp_ref worker_error(lua_State *L, worker *w) {
    int top = lua_gettop(L);
    luaL_checkstack(L, 10, NULL);
    lua_pushcfunction(L, pack_failure);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_hooks);
    lua_pushvalue(L, top);
    lua_pushlightuserdata(L, w);
    mp_ref block = 0;
    if (lua_pcall(L, 3, 1, 0) == LUA_OK) block = (mp_ref)lua_tointeger(L, -1);
    lua_settop(L, top - 1);
    return block;
}

/* The judge's word on the error on top: may the item be run again? An error
   of its own takes the place of that, and means no. */
static bool may_run_again(lua_State *L, const worker *w) {
    uint32_t runs, deaths;
    luaL_checkstack(L, 6, NULL);
    int error = lua_gettop(L);
    lua_pushcfunction(L, worker_traceback);
    if (push_judges(L) != LUA_TTABLE ||
        lua_rawgeti(L, -1, (lua_Integer)mp_function_message(
                               w->range.job)) != LUA_TFUNCTION) {
        lua_settop(L, error);
        return true;
    }
    mp_job_tries(w->range.job, w->at, &runs, &deaths);
    lua_pushvalue(L, error);
    lua_pushinteger(L, (lua_Integer)runs + 1);
    int r = lua_pcall(L, 2, 1, error + 1);
    bool again = r == LUA_OK && lua_toboolean(L, -1);
    if (r != LUA_OK) lua_replace(L, error);
    lua_settop(L, error);
    return again;
}

/* Item `at` failed; the range goes on behind it. A worker that cannot even
   say why ends: its item is then lost, and said so. */
static void fail_item(lua_State *L, worker *w) {
    mp_job_shm *job = w->range.job;
    /* What is due to the task does not concern those who tell of it. */
    bind_task_of(&w->task, NULL);
    bool wanted = may_run_again(L, w);
    if (mp_worker_again(w->pool, w->place, w->at, wanted)) {
        lua_pop(L, 1);
    } else {
        mp_ref block = worker_error(L, w);
        if (!block) w->leave(EXIT_FAILURE);
        mp_worker_result(job, w->at, MP_CELL_ERROR, block);
        mp_worker_failed(w->pool, job, w->at);
        atomic_fetch_add_explicit(&w->shm->failed, 1, memory_order_relaxed);
    }
    bind_task_of(&w->task, job);
    w->at++;
}

static bool wants_care(const mp_controls *with) {
    return with->timeout_ns || with->flags & MP_WITH_SEED;
}

void worker_run(lua_State *L, worker *w) {
    const mp_job_shm *job = w->range.job;
    lua_CFunction run = wants_care(&job->with) ? run_with_care : run_range;
    w->at = w->range.low;
    w->in = mp_job_in(job, 0);
    w->out = mp_job_out(job, 0);
    if (w->seeded && !(job->with.flags & MP_WITH_SEED)) {
        w->seeded = false;
        lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_seed);
        bind_reseed(L);
    }
    bind_task_of(&w->task, job);
    while (w->at < w->range.high) {
        lua_pushcfunction(L, worker_traceback);
        lua_pushcfunction(L, run);
        lua_pushlightuserdata(L, w);
        int r = lua_pcall(L, 1, 0, -3);
        if (r != LUA_OK) fail_item(L, w);
        lua_pop(L, 1);
    }
    bind_task_of(&w->task, NULL);
    end_range(w);
}
