/* What runs in a worker process: claim a range, call the function for each
   item, store each result. One protected call per range, not per item: an
   error ends the range's call, and the next begins behind the item that
   failed. */
#include <errno.h>
#include <stdlib.h>

#include "bind/globals.h"
#include "bind/message.h"
#include "bind/pool.h"
#include "bind/process.h"
#include "proc/family.h"

enum { FUNCTIONS_KEPT = 64 };

/* Where the worker is in its code when an error comes. */
enum { PHASE_FUNCTION, PHASE_ARGUMENT, PHASE_CALL, PHASE_RESULT };

/* The worker process's own state; in the registry under its address. */
typedef struct worker {
    mp_pool_shm *pool;
    bind_worker_leave leave;
    mp_worker_shm *shm;
    uint32_t id; /* from 1 */
    mp_range range;
    mp_cell_shm *in, *out; /* the job's cells, in this process */
    uint64_t at;
    int phase;
    int functions; /* entries in the cache */
    mp_ref turn;   /* the message whose globals are in effect, or 0 */
} worker;

static const char worker_key, hooks_key, cache_key, traceback_key;

static int traceback(lua_State *L) {
    /* The value stays as it is; its traceback waits in the registry. */
    luaL_traceback(L, L, NULL, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &traceback_key);
    return 1;
}

/* ---- one item ------------------------------------------------------- */

/* Decodes the function whose message is `key`, pushes it and adds it to the
   cache on top: under `key`, and the view of its globals under -`key`. */
static void add_function(lua_State *L, worker *w, lua_Integer key) {
    if (w->functions >= FUNCTIONS_KEPT) {
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &cache_key);
        lua_replace(L, -2);
        w->functions = 0;
    }
    globals_enter(L, (mp_ref)key);
    lua_rawseti(L, -3, -key);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, key);
    w->functions++;
}

/* Pushes the job's function, whose globals are then in effect. It is decoded
   once per worker, found by the ref of its message, which no two functions
   of a pool share. */
static void push_function(lua_State *L, worker *w) {
    mp_ref message = mp_function_message(w->range.job);
    lua_Integer key = (lua_Integer)message;
    bool other = w->turn != message;
    if (other) {
        w->turn = 0; /* should this fail in the middle */
        globals_leave(L);
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, &cache_key);
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

/* Runs the range from `at` on. */
static int run_range(lua_State *L) {
    worker *w = lua_touserdata(L, 1);
    const mp_job_shm *job = w->range.job;
    w->phase = PHASE_FUNCTION;
    push_function(L, w);
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
    lua_rawgetp(L, LUA_REGISTRYINDEX, &traceback_key);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &cache_key);
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

/* The error on the stack's top as a message block (popped); 0 when even that
   fails, for want of memory. */
static mp_ref error_block(lua_State *L, worker *w) {
    int top = lua_gettop(L);
    luaL_checkstack(L, 10, NULL);
    lua_pushcfunction(L, pack_failure);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &hooks_key);
    lua_pushvalue(L, top);
    lua_pushlightuserdata(L, w);
    mp_ref block = 0;
    if (lua_pcall(L, 3, 1, 0) == LUA_OK) block = (mp_ref)lua_tointeger(L, -1);
    lua_settop(L, top - 1);
    return block;
}

/* Item `at` failed; the range goes on behind it. A worker that cannot even
   say why ends: its item is then lost, and said so. */
static void fail_item(lua_State *L, worker *w) {
    mp_ref block = error_block(L, w);
    if (!block) w->leave(EXIT_FAILURE);
    mp_worker_result(w->range.job, w->at, MP_CELL_ERROR, block);
    w->at++;
}

static void work_off(lua_State *L, worker *w) {
    w->at = w->range.low;
    w->in = mp_job_in(w->range.job, 0);
    w->out = mp_job_out(w->range.job, 0);
    while (w->at < w->range.high) {
        lua_pushcfunction(L, traceback);
        lua_pushcfunction(L, run_range);
        lua_pushlightuserdata(L, w);
        int r = lua_pcall(L, 1, 0, -3);
        if (r != LUA_OK) fail_item(L, w);
        lua_pop(L, 1);
    }
    mp_worker_at(w->shm, w->at);
}

/* ---- a worker's life ---------------------------------------------------- */

/* [1] hooks: setup(id), which also calls the user's initializer. */
static int initialize(lua_State *L) {
    worker *w = lua_touserdata(L, 2);
    lua_getfield(L, 1, "setup");
    lua_pushinteger(L, (lua_Integer)w->id);
    lua_call(L, 1, 0);
    return 0;
}

static void start(lua_State *L, worker *w) {
    lua_pushcfunction(L, traceback);
    int handler = lua_gettop(L);
    lua_pushcfunction(L, initialize);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &hooks_key);
    lua_pushlightuserdata(L, w);
    if (lua_pcall(L, 2, 0, handler) != LUA_OK) {
        w->phase = PHASE_CALL;
        mp_ref reason = error_block(L, w);
        if (reason)
            mp_worker_broke(w->pool, reason);
        else
            mp_pool_break(w->pool);
        w->leave(EXIT_FAILURE);
    }
    lua_settop(L, handler - 1);
    mp_worker_ready(w->pool, w->id - 1);
}

/* Hooks that a signal left pending run here; what they raise has no task to
   go to. */
static int run_hooks(lua_State *L) {
    bind_interrupted(L);
    return 0;
}

void bind_worker_serve(mp_pool_shm *pool, uint32_t index,
                       const worker_start *from, bind_worker_leave leave) {
    lua_checkstack(from->L, 10);
    /* A stack of its own, so that tracebacks end where the task began. */
    lua_State *L = lua_newthread(from->L);
    lua_checkstack(L, 20);
    worker *w = lua_newuserdatauv(L, sizeof *w, 0);
    *w = (worker){.pool = pool, .shm = mp_pool_worker(pool, index),
                  .id = index + 1, .leave = leave};
    lua_rawsetp(L, LUA_REGISTRYINDEX, &worker_key);
    lua_pushvalue(from->L, from->hooks);
    lua_xmove(from->L, L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &hooks_key);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &cache_key);
    start(L, w);
    for (int r; (r = mp_worker_claim(pool, index, &w->range)) != -EPIPE;) {
        if (r == 0) {
            work_off(L, w);
        } else {
            lua_pushcfunction(L, run_hooks);
            if (lua_pcall(L, 0, 0, 0) != LUA_OK) lua_pop(L, 1);
        }
    }
}

void bind_worker_main(mp_pool_shm *pool, uint32_t index, void *ctx) {
    const worker_start *from = ctx;
    lua_checkstack(from->L, 2);
    bind_child_enter(from->L);
    bind_worker_serve(pool, index, from, mp_family_exit);
    mp_family_exit(EXIT_SUCCESS);
}

/* current() -> id, index of the item that runs; nil outside a worker */
static int worker_current(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_key);
    const worker *w = lua_touserdata(L, -1);
    if (!w) return 0;
    lua_pushinteger(L, (lua_Integer)w->id);
    if (w->range.job && w->at < w->range.high)
        lua_pushinteger(L, (lua_Integer)w->at + 1);
    else
        lua_pushnil(L);
    return 2;
}

void bind_worker_open(lua_State *L) {
    lua_pushcfunction(L, worker_current);
    lua_setfield(L, -2, "current");
}
