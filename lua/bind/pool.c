/* A pool's life: made, closed, joined, terminated. Only the process that
   made it may use it; in a forked child its userdata is a dead letter. */
#include "bind/pool.h"

#include <errno.h>

#include "bind/core.h"
#include "bind/gc.h"
#include "bind/globals.h"
#include "bind/inherit.h"
#include "bind/message.h"
#include "bind/process.h"
#include "mem/object.h"
#include "proc/boot.h"
#include "proc/start.h"

static int pool_gc(lua_State *L);

bool bind_pool_mine(const pool_ud *pool) {
    return mp_me && mp_me->tag == pool->owner;
}

pool_ud *bind_check_pool(lua_State *L, int arg, const char *fn) {
    pool_ud *pool = (pool_ud *)bind_is(L, arg, &bind_pool_class);
    if (!pool) bind_argerror(L, fn, arg, "self", "Pool");
    if (!mp_me) bind_open_runtime(L);
    if (!pool->object.shm) bind_error(L, "StateError", "Pool not running");
    if (!bind_pool_mine(pool))
        bind_error(L, "StateError",
                   "%s: this Pool belongs to the process that made it", fn);
    return pool;
}

mp_pool_shm *bind_pool_still(lua_State *L, const pool_ud *pool) {
    if (!pool->object.shm) bind_pool_stopped(L, pool);
    return pool->object.shm;
}

/* Calls f(shm), which reads messages of the pool's: code of the user's that
   rebuilds what is in them may close the pool, and its memory is still there.
   Pushes the one result. */
static void push_from(lua_State *L, const pool_ud *pool, lua_CFunction f) {
    uint32_t id = pool->object.id;
    luaL_checkstack(L, 4, "Pool");
    if (mp_object_attach(id, pool->object.gen) < 0)
        bind_error(L, "StateError", "Pool not running");
    lua_pushcfunction(L, f);
    lua_pushlightuserdata(L, pool_of(pool));
    int r = lua_pcall(L, 1, 1, 0);
    mp_object_detach(id);
    if (r != LUA_OK) lua_error(L);
}

static int read_reason(lua_State *L) {
    return message_push(L, mp_pool_reason(lua_touserdata(L, 1)));
}

/* Why: the reason is what the first failing initializer left, if any did. */
static int raise_broken(lua_State *L, const pool_ud *pool) {
    if (!mp_pool_reason(pool_of(pool)))
        return bind_error(L, "BrokenPool",
                          "the pool's processes ended unexpectedly");
    push_from(L, pool, read_reason);
    lua_getfield(L, -1, "message");
    const char *text = luaL_tolstring(L, -1, NULL);
    bind_pusherror(L, "BrokenPool", "the initializer failed: %s", text);
    lua_pushvalue(L, -4);
    lua_setfield(L, -2, "cause");
    lua_getfield(L, -4, "traceback");
    lua_setfield(L, -2, "traceback");
    return lua_error(L);
}

bool bind_pool_push_snapshot(lua_State *L, int idx) {
    lua_getiuservalue(L, idx, 1);
    lua_pushliteral(L, "snapshot");
    bool there = lua_rawget(L, -2) == LUA_TTABLE;
    lua_remove(L, -2);
    return there;
}

/* A crew is about to be forked: keeps for the pool with the table of
   functions at `hooks` what its workers will have. */
static void take_snapshot(lua_State *L, int hooks) {
    lua_pushliteral(L, "snapshot");
    globals_snapshot(L);
    lua_rawset(L, hooks);
}

/* Pushes the list of what a crew that is forked now is not to have. */
static void find_inherited(lua_State *L, int hooks) {
    lua_getfield(L, hooks, "named");
    inherit_find(L, -1);
    lua_remove(L, -2);
}

void bind_pool_restart(lua_State *L, pool_ud *pool, int idx) {
    mp_pool_shm *shm = pool_of(pool);
    /* A guest's crew takes its workers along. */
    if (mp_pool_state(shm) >= MP_POOL_TERMINATE || mp_pool_has_crew(shm) ||
        pool->guest)
        return;
    if (pool->method) {
        char problem[MP_BOOT_PROBLEM] = "";
        luaL_checkstack(L, 8, NULL);
        mp_pool_clear(shm, &pool->crew);
        int r = bind_pool_start_fresh(L, pool, problem);
        if (!pool_of(pool)) return; /* a finalizer has closed it */
        if (r < 0) mp_pool_break(shm);
        pool->ended = false;
        return;
    }
    luaL_checkstack(L, 4, NULL);
    lua_getiuservalue(L, idx, 1);
    worker_start start = {L, lua_gettop(L)};
    take_snapshot(L, start.hooks);
    find_inherited(L, start.hooks);
    bind_gc_before_fork(L);
    inherit_begin(L, lua_gettop(L));
    if (pool_of(pool)) { /* no finalizer has closed it */
        mp_pool_restart(shm, &pool->crew, bind_worker_main, &start);
        pool->ended = false;
    }
    inherit_done();
    lua_pop(L, 2);
}

uint32_t bind_pool_state(const pool_ud *pool) {
    uint32_t state = mp_pool_state(pool_of(pool));
    return pool->guest && state == MP_POOL_CLOSING ? MP_POOL_RUN : state;
}

int bind_pool_stopped(lua_State *L, const pool_ud *pool) {
    uint32_t state =
        pool->object.shm ? mp_pool_state(pool_of(pool)) : MP_POOL_TERMINATE;
    if (state == MP_POOL_BROKEN) return raise_broken(L, pool);
    if (state == MP_POOL_TERMINATE)
        return bind_error(L, "PoolTerminated",
                          "the pool was terminated before this was done");
    return bind_error(L, "StateError", "Pool not running");
}

/* Arguments of new. */
enum {
    WORKERS = 1, MOST, HOOKS, METHOD,
    BIRTH, INITIALIZER, INITARGS, WORKER_EXIT
};

static uint64_t number_field(lua_State *L, int idx, const char *name,
                             uint64_t otherwise) {
    lua_getfield(L, idx, name);
    uint64_t n = (uint64_t)luaL_optinteger(L, -1, (lua_Integer)otherwise);
    lua_pop(L, 1);
    return n;
}

/* By a fork of this process. */
static int start_copies(lua_State *L, pool_ud *pool) {
    take_snapshot(L, HOOKS);
    find_inherited(L, HOOKS);
    bind_gc_before_fork(L);
    inherit_begin(L, lua_gettop(L));
    worker_start start = {L, HOOKS};
    int r = mp_pool_start(pool_of(pool), &pool->crew, bind_worker_main,
                          &start);
    /* A crew may be killed as it starts, too. */
    if (r == -EOWNERDEAD)
        r = mp_pool_restart(pool_of(pool), &pool->crew, bind_worker_main,
                            &start);
    inherit_done();
    lua_pop(L, 1);
    return r;
}

/* new(workers, most, hooks, method [, birth, initializer or false, initargs,
   worker_exit or false]) -> pool. The workers run when it returns. What
   follows the method is for those but "fork". */
static int pool_new(lua_State *L) {
    mp_pool_spec spec = {.workers = (uint32_t)luaL_checkinteger(L, 1),
                         .most = (uint64_t)luaL_checkinteger(L, 2)};
    luaL_checktype(L, HOOKS, LUA_TTABLE);
    spec.places = (uint32_t)number_field(L, HOOKS, "places", spec.workers);
    spec.most_bytes = number_field(L, HOOKS, "most_bytes", 0);
    const mp_start_method *method =
        mp_start_method_named(luaL_checkstring(L, METHOD));
    if (!method)
        return bind_error(L, "ValueError", "cannot find context for '%s'",
                          lua_tostring(L, METHOD));
    lua_settop(L, WORKER_EXIT);
    bind_open_runtime(L);
    pool_ud *pool =
        (pool_ud *)bind_new(L, &bind_pool_class, sizeof(pool_ud));
    *pool = (pool_ud){
        .object = pool->object, .owner = mp_me->tag, .ended = true};
    if (method->start != mp_start_fork) pool->method = method;
    lua_pushvalue(L, HOOKS);
    lua_setiuservalue(L, -2, 1);
    bind_object *o = &pool->object;
    int r = mp_pool_make(&spec, &o->id, &o->gen);
    if (r < 0) return bind_oserror(L, r, "Pool: cannot make the pool");
    o->shm = mp_object_block(o->id);
    char problem[MP_BOOT_PROBLEM] = "";
    if (pool->method) {
        bind_pool_tell(L, pool, BIRTH, INITIALIZER);
        r = bind_pool_start_fresh(L, pool, problem);
    } else {
        r = start_copies(L, pool);
    }
    if (r < 0) {
        pool_gc(L);
        return bind_start_failed(L, "Pool: cannot start the workers", r,
                                 problem);
    }
    pool->started = true;
    pool->ended = false;
    return 1;
}

/* Ended for good, and its memory given back: closing it again is no error. */
static bool is_released(lua_State *L) {
    const pool_ud *pool = (pool_ud *)bind_is(L, 1, &bind_pool_class);
    return pool && !pool->object.shm;
}

/* The pool at 1, which is no worker's. */
static pool_ud *check_host(lua_State *L, const char *fn) {
    pool_ud *pool = bind_check_pool(L, 1, fn);
    if (pool->guest)
        bind_error(L, "StateError",
                   "%s: this Pool belongs to the process that made it", fn);
    return pool;
}

static int pool_close(lua_State *L) {
    if (is_released(L)) return 0;
    mp_pool_close(pool_of(check_host(L, "close")));
    return 0;
}

static void end_crew(pool_ud *pool) {
    while (mp_proc_wait(&pool->crew, MP_FOREVER) == -EINTR) {
    }
    if (pool->crew.exitcode != 0) mp_pool_bury(pool_of(pool));
    mp_proc_close(&pool->crew);
    pool->ended = true;
}

/* Threads end when they can: nobody waits for that here. */
static void stop(pool_ud *pool) {
    if (pool->team) {
        mp_team_terminate(pool_of(pool), pool->team);
        return;
    }
    mp_pool_terminate(pool_of(pool), &pool->crew);
    end_crew(pool);
}

static int pool_terminate(lua_State *L) {
    if (is_released(L)) return 0;
    pool_ud *pool = check_host(L, "terminate");
    if (!pool->ended) stop(pool);
    return 0;
}

static bool join_team(lua_State *L, pool_ud *pool) {
    int r = mp_team_wait(pool->team, bind_deadline(L, 2, "join"));
    if (r == -EINTR) bind_interrupted(L);
    pool->ended = r == 0;
    return pool->ended;
}

/* join(deadline seconds) -> boolean: has the crew ended? Waits a slice at
   most, so that the Lua side can run callbacks and feed iterators. */
static int pool_join(lua_State *L) {
    pool_ud *pool =
        is_released(L) ? NULL : check_host(L, "join");
    if (!pool || pool->ended) {
        lua_pushboolean(L, 1);
        return 1;
    }
    if (pool->feeding > 0)
        bind_error(L, "StateError", "join: called by the input of one of the "
                                    "Pool's calls, which has not ended");
    if (pool->team) return lua_pushboolean(L, join_team(L, pool)), 1;
    int r = mp_proc_wait(&pool->crew, bind_deadline(L, 2, "join"));
    if (r == -EINTR) bind_interrupted(L);
    /* It did not end by itself: what it left is for the next, whose end (it
       may have come already) is to be awaited, too. */
    if (r == 0 && pool->crew.exitcode != 0) {
        bind_pool_restart(L, pool, 1);
        if (pool_of(pool) && mp_pool_state(pool_of(pool)) < MP_POOL_TERMINATE)
            r = -EINTR;
    }
    if (r == 0) {
        mp_proc_close(&pool->crew);
        pool->ended = true;
    }
    lua_pushboolean(L, r == 0);
    return 1;
}

static int pool_state(lua_State *L) {
    static const char *const names[] = {"run", "close", "terminate",
                                        "broken"};
    pool_ud *pool = (pool_ud *)bind_is(L, 1, &bind_pool_class);
    if (!pool) return bind_argerror(L, "state", 1, "self", "Pool");
    if (!pool->object.shm || !bind_pool_mine(pool))
        lua_pushstring(L, "terminate");
    else
        lua_pushstring(L, names[bind_pool_state(pool)]);
    return 1;
}

/* mine() -> boolean: did this process make it? */
static int pool_mine(lua_State *L) {
    const pool_ud *pool = (pool_ud *)bind_is(L, 1, &bind_pool_class);
    if (!pool) return bind_argerror(L, "mine", 1, "self", "Pool");
    lua_pushboolean(L, bind_pool_mine(pool));
    return 1;
}

/* pids() -> list of the workers' process ids as of now */
static int pool_pids(lua_State *L) {
    const pool_ud *pool = bind_check_pool(L, 1, "pids");
    lua_newtable(L);
    for (uint32_t i = 0; i < mp_pool_workers(bind_pool_still(L, pool)); i++) {
        lua_pushinteger(L, (lua_Integer)atomic_load(
                               &mp_pool_worker(pool_of(pool), i)->pid));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* resize(n): as many workers from now on */
static int pool_resize(lua_State *L) {
    pool_ud *pool = check_host(L, "resize");
    char problem[MP_BOOT_PROBLEM] = "";
    mp_pool_resize(pool_of(pool), (uint32_t)luaL_checkinteger(L, 2));
    if (!pool->team) {
        mp_pool_stir(&pool->crew);
        return 0;
    }
    int r = bind_pool_fill_team(L, pool, problem);
    if (r < 0)
        return bind_start_failed(L, "resize: cannot start the workers", r,
                                 problem);
    return 0;
}

static void set_count(lua_State *L, const char *name,
                      const _Atomic uint64_t *n) {
    lua_pushinteger(L, (lua_Integer)atomic_load_explicit(
                           n, memory_order_relaxed));
    lua_setfield(L, -2, name);
}

/* (pool) -> list with a table for each place that ever had a worker */
static int read_counters(lua_State *L) {
    mp_pool_shm *shm = lua_touserdata(L, 1);
    uint32_t n = mp_pool_places(shm), workers = mp_pool_workers(shm);
    lua_newtable(L);
    for (uint32_t i = 0; i < n; i++) {
        const mp_worker_shm *w = mp_pool_worker(shm, i);
        uint32_t pid = atomic_load(&w->pid);
        if (!pid) break;
        lua_createtable(L, 0, 9);
        lua_pushinteger(L, (lua_Integer)i + 1);
        lua_setfield(L, -2, "id");
        lua_pushinteger(L, pid);
        lua_setfield(L, -2, "pid");
        lua_pushboolean(L, i < workers);
        lua_setfield(L, -2, "wanted");
        lua_pushnumber(L, (lua_Number)atomic_load(&w->busy_ns) / 1e9);
        lua_setfield(L, -2, "busy");
        set_count(L, "done", &w->done);
        set_count(L, "failed", &w->failed);
        set_count(L, "retried", &w->retried);
        set_count(L, "lost", &w->lost);
        set_count(L, "timeouts", &w->late);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* counters() -> that list */
static int pool_counters(lua_State *L) {
    push_from(L, bind_check_pool(L, 1, "stats"), read_counters);
    return 1;
}

/* (pool) -> list with n: what the workers said that left */
static int read_left(lua_State *L) {
    mp_pool_shm *shm = lua_touserdata(L, 1);
    uint32_t index;
    mp_ref message;
    lua_Integer n = 0;
    while (mp_pool_left(shm, (uint64_t)n, &index)) n++;
    lua_createtable(L, (int)n, 1);
    for (lua_Integer i = 1; i <= n; i++) {
        /* The last one stands first. */
        message = mp_pool_left(shm, (uint64_t)(n - i), &index);
        if (message_push(L, message) != 1) lua_pushnil(L);
        lua_rawseti(L, -2, i);
    }
    lua_pushinteger(L, n);
    lua_setfield(L, -2, "n");
    return 1;
}

/* left() -> that list */
static int pool_left(lua_State *L) {
    if (is_released(L)) return lua_newtable(L), 1;
    push_from(L, check_host(L, "exit_results"), read_left);
    return 1;
}

static int pool_raise(lua_State *L) {
    return bind_pool_stopped(L, bind_check_pool(L, 1, "check"));
}

static int pool_count_callbacks(lua_State *L) {
    if (is_released(L)) return 0;
    bind_check_pool(L, 1, "callbacks")->callbacks =
        (int)luaL_checkinteger(L, 2);
    return 0;
}

/* exclusively(pool, f, value): calls f(value), which cannot yield, unless
   such a call is under way. However f ends, the next one can run. */
static int pool_exclusively(lua_State *L) {
    pool_ud *pool = (pool_ud *)bind_is(L, 1, &bind_pool_class);
    if (!pool || pool->calling) return 0;
    lua_settop(L, 3);
    pool->calling = true;
    int r = lua_pcall(L, 1, 0, 0);
    pool->calling = false;
    return r == LUA_OK ? 0 : lua_error(L);
}

/* Harmless twice, and in a child. */
static int pool_gc(lua_State *L) {
    pool_ud *pool = lua_touserdata(L, -1);
    if (!pool || !pool->object.shm || !bind_pool_mine(pool)) return 0;
    if (!pool->ended) stop(pool);
    mp_team_leave(pool->team);
    pool->team = NULL;
    pool->object.shm = NULL;
    mp_object_detach(pool->object.id);
    return 0;
}

static int pool_finalize(lua_State *L) {
    lua_settop(L, 1);
    return pool_gc(L);
}

static const luaL_Reg methods[] = {
    {"close", pool_close},
    {"terminate", pool_terminate},
    {"join", pool_join},
    {"state", pool_state},
    {"mine", pool_mine},
    {"pids", pool_pids},
    {"raise", pool_raise},
    {"resize", pool_resize},
    {"counters", pool_counters},
    {"left", pool_left},
    {"callbacks", pool_count_callbacks},
    {"exclusively", pool_exclusively},
    {"release", pool_finalize},
    {NULL, NULL}};
static const luaL_Reg meta[] = {
    {"__gc", pool_finalize}, {"__close", pool_finalize}, {NULL, NULL}};

const bind_class bind_pool_class = {.name = "Pool",
                                    .type = MP_TYPE_POOL,
                                    .methods = methods,
                                    .meta = meta};

void bind_pool_open(lua_State *L) {
    static const luaL_Reg functions[] = {{"new", pool_new}, {NULL, NULL}};
    mp_pool_open();
    bind_class_open(&bind_pool_class);
    luaL_newlib(L, functions);
    bind_job_open(L);
    bind_worker_open(L);
    lua_setfield(L, -2, "pool");
}
