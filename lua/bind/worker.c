/* A worker's life: it starts, claims range after range, helps itself where a
   task waits for others, and leaves. */
#include <errno.h>
#include <stdlib.h>

#include "bind/child.h"
#include "bind/interrupt.h"
#include "bind/message.h"
#include "bind/spare.h"
#include "bind/worker.h"
#include "mem/object.h"
#include "os/resident.h"
#include "os/signal.h"
#include "proc/family.h"

enum { WEIGH_NS = 1000000 /* between two looks at the memory in use */ };

/* ---- a task that waits for tasks ------------------------------------- */

/* Works on `job` in the guest's place; the number of ranges. */
static int work_as_guest(lua_State *L, worker *w, mp_job_shm *job) {
    int n = 0;
    while (mp_worker_help(w->pool, w->place, job, &w->range)) {
        worker_run(L, w);
        n++;
    }
    return n;
}

/* The task that was interrupted goes on, with its globals, its numbers, and
   its time. */
static void resume_task(lua_State *L, worker *w) {
    const mp_job_shm *job = w->range.job;
    w->task.shm = w->shm;
    bind_task_again(&w->task, job);
    uint64_t since = atomic_load(&w->shm->since);
    if (job->with.timeout_ns && since)
        bind_task_until(&w->task, since + job->with.timeout_ns);
    worker_function(L, w);
    lua_pop(L, 1);
}

static worker *self(lua_State *L) {
    luaL_checkstack(L, 20, "a pool in its own worker");
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_self);
    worker *w = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return w;
}

/* To go on, the task would need what is just being rebuilt. */
void bind_worker_check(lua_State *L) {
    const worker *w = self(L);
    if (w && w->range.job && w->phase == PHASE_FUNCTION)
        bind_error(L, "StateError", "the function of a task cannot use its "
                                    "worker's Pool while it is rebuilt");
}

bool bind_worker_help(lua_State *L, mp_pool_shm *pool, mp_job_shm *job) {
    worker *w = self(L);
    int guest = w && w->range.job ? mp_worker_enter(pool) : -1;
    if (guest < 0)
        bind_error(L, "StateError", "too many tasks of this Pool wait for "
                                    "tasks of their own");
    worker before = *w;
    w->place = (uint32_t)guest;
    w->shm = w->task.shm = mp_pool_worker(pool, w->place);
    int n = work_as_guest(L, w, job);
    mp_worker_depart(pool, before.place, (uint32_t)guest);
    w->place = before.place;
    w->shm = before.shm;
    w->range = before.range;
    w->in = before.in;
    w->out = before.out;
    w->at = before.at;
    w->phase = before.phase;
    resume_task(L, w);
    return n > 0;
}

/* ---- a worker's life ------------------------------------------------- */

/* What this process has to itself and needs. */
static uint64_t weight(void) {
    bind_spare_drop();
    return mp_resident_bytes();
}

/* One that has grown too much is replaced. Not asked after each of many short
   ranges: that would take longer than they do. */
static void weigh(worker *w) {
    int64_t now = mp_now_ns();
    if (now - w->weighed < WEIGH_NS) return;
    w->weighed = now;
    if (weight() > w->weight + mp_pool_most_bytes(w->pool))
        mp_worker_wish(w->pool, w->id - 1);
}

/* [1] hooks: setup(id), which also calls the user's initializer. */
static int initialize(lua_State *L) {
    worker *w = lua_touserdata(L, 2);
    lua_getfield(L, 1, "setup");
    lua_pushinteger(L, (lua_Integer)w->id);
    lua_call(L, 1, 0);
    return 0;
}

static void start(lua_State *L, worker *w) {
    lua_pushcfunction(L, worker_traceback);
    int handler = lua_gettop(L);
    lua_pushcfunction(L, initialize);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_hooks);
    lua_pushlightuserdata(L, w);
    if (lua_pcall(L, 2, 0, handler) != LUA_OK) {
        w->phase = PHASE_CALL;
        mp_ref reason = worker_error(L, w);
        if (reason)
            mp_worker_broke(w->pool, reason);
        else
            mp_pool_break(w->pool);
        w->leave(EXIT_FAILURE);
    }
    lua_settop(L, handler - 1);
    mp_worker_ready(w->pool, w->id - 1);
}

/* [1] hooks: what the user's worker_exit says, packed: a block as integer, or
   nothing where there is no such function. */
static int pack_farewell(lua_State *L) {
    if (lua_getfield(L, 1, "farewell") == LUA_TNIL) return 0;
    lua_call(L, 0, 1);
    lua_pushinteger(L, (lua_Integer)message_new(L, lua_gettop(L), 1,
                                                "result of worker_exit"));
    return 1;
}

/* A worker that is stopped, or about to be killed, leaves without a word. */
static void say_farewell(lua_State *L, worker *w) {
    if (mp_pool_state(w->pool) >= MP_POOL_TERMINATE ||
        atomic_load(&w->shm->doomed))
        return;
    int top = lua_gettop(L);
    lua_pushcfunction(L, worker_traceback);
    lua_pushcfunction(L, pack_farewell);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_hooks);
    mp_ref block = 0;
    w->range.job = NULL;
    w->phase = PHASE_CALL;
    if (lua_pcall(L, 1, 1, top + 1) != LUA_OK)
        block = worker_error(L, w);
    else if (lua_isinteger(L, -1))
        block = (mp_ref)lua_tointeger(L, -1);
    lua_settop(L, top);
    if (block) mp_worker_left(w->pool, w->id - 1, block);
}

/* Hooks that a signal left pending run here; what they raise has no task to
   go to. */
static int run_hooks(lua_State *L) {
    bind_interrupted(L);
    return 0;
}

/* A thread that leaves by os.exit has its state closed, and its alarm goes. */
static int end_task(lua_State *L) {
    worker *w = lua_touserdata(L, 1);
    bind_task_end(&w->task);
    return 0;
}

void bind_worker_serve(mp_pool_shm *pool, uint32_t index,
                       const worker_start *from, bind_worker_leave leave) {
    lua_checkstack(from->L, 10);
    /* A stack of its own, so that tracebacks end where the task began. */
    lua_State *L = lua_newthread(from->L);
    lua_checkstack(L, 20);
    worker *w = lua_newuserdatauv(L, sizeof *w, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, end_task);
    lua_setfield(L, -2, "__gc");
    *w = (worker){.pool = pool, .shm = mp_pool_worker(pool, index),
                  .id = index + 1, .place = index, .leave = leave};
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &worker_self);
    lua_pushvalue(from->L, from->hooks);
    lua_xmove(from->L, L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &worker_hooks);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &worker_cache);
    lua_getglobal(L, "math");
    if (lua_istable(L, -1)) lua_getfield(L, -1, "randomseed");
    else lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &worker_seed);
    lua_settop(L, 0);
    bind_task_begin(&w->task, L, w->shm);
    start(L, w);
    if (mp_pool_most_bytes(pool)) w->weight = weight();
    if (mp_worker_await(pool, index) < 0) return;
    for (int r; (r = mp_worker_claim(pool, index, &w->range)) != -EPIPE;) {
        if (r == 0) {
            worker_run(L, w);
            if (w->weight) weigh(w);
        } else {
            lua_pushcfunction(L, run_hooks);
            if (lua_pcall(L, 0, 0, 0) != LUA_OK) lua_pop(L, 1);
        }
    }
    say_farewell(L, w);
    bind_task_end(&w->task);
}

void bind_worker_main(mp_pool_shm *pool, uint32_t index, void *ctx) {
    const worker_start *from = ctx;
    lua_checkstack(from->L, 2);
    bind_child_enter(from->L);
    bind_interrupt_forget();
    mp_signal_default(SIGURG); /* whatever the caller does with it */
    bind_worker_serve(pool, index, from, mp_family_exit);
    mp_family_exit(EXIT_SUCCESS);
}

/* current() -> id, index of the item that runs; nil outside a worker */
static int worker_current(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_self);
    const worker *w = lua_touserdata(L, -1);
    if (!w) return 0;
    lua_pushinteger(L, (lua_Integer)w->id);
    if (w->range.job && w->at < w->range.high)
        lua_pushinteger(L, (lua_Integer)w->at + 1);
    else
        lua_pushnil(L);
    return 2;
}

/* own(hooks) -> the worker's own pool, for jobs of its tasks; nil outside of
   one. `hooks`: as of pool.new. */
static int worker_own(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &worker_self);
    const worker *w = lua_touserdata(L, -1);
    if (!w) return 0;
    pool_ud *pool =
        (pool_ud *)bind_new(L, &bind_pool_class, sizeof(pool_ud));
    *pool = (pool_ud){.object = pool->object, .owner = mp_me->tag,
                      .started = true, .ended = true, .guest = true};
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    bind_object *o = &pool->object;
    mp_pool_name(w->pool, &o->id, &o->gen);
    if (mp_object_attach(o->id, o->gen) < 0) return 0;
    o->shm = w->pool;
    return 1;
}

void bind_worker_open(lua_State *L) {
    lua_pushcfunction(L, worker_current);
    lua_setfield(L, -2, "current");
    lua_pushcfunction(L, worker_own);
    lua_setfield(L, -2, "own");
    lua_pushcfunction(L, worker_judge);
    lua_setfield(L, -2, "judge");
}
