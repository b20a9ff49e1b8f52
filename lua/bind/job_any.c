/* Waiting for the first of several jobs. What they are, and which of them
   count, is the Lua side's: here it looks at them, and sleeps. */
#include <errno.h>

#include "bind/job.h"

/* first_ready(jobs, i, n) -> the lowest index from i to n whose job is done,
   or never going to be; nil when there is none. `jobs` has false where there
   is nothing to look at. */
static int first_ready(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer i = luaL_checkinteger(L, 2), n = luaL_checkinteger(L, 3);
    for (; i <= n; i++) {
        lua_rawgeti(L, 1, i);
        const job_ud *j = (job_ud *)bind_is(L, -1, &bind_job_class);
        if (j && job_settled(j)) {
            lua_pushinteger(L, i);
            return 1;
        }
        lua_pop(L, 1);
    }
    return 0;
}

/* begun(job) -> boolean: did a worker take any of it? */
static int begun(lua_State *L) {
    const job_ud *j = job_check(L, "running");
    lua_pushboolean(L, !job_usable(j) || mp_job_begun(j->job));
    return 1;
}

/* withdraw(job) -> boolean: cancels it, if it was not begun. */
static int withdraw(lua_State *L) {
    job_ud *j = job_check(L, "cancel");
    bool whole =
        job_usable(j) && mp_job_withdraw(pool_of(j->pool), j->job);
    if (whole) {
        j->job = NULL;
        job_give_up(j, MP_JOB_CANCELLED);
    }
    lua_pushboolean(L, whole);
    return 1;
}

/* end_input(job) -> boolean: nothing more is drawn of its source; was there
   anything to draw? */
static int end_input(lua_State *L) {
    job_ud *j = job_check(L, "shutdown");
    bool more = job_usable(j) && !j->input_over;
    if (more) {
        j->input_over = true;
        j->count = j->fed;
        mp_job_finish_input(pool_of(j->pool), j->job, j->count);
    }
    lua_pushboolean(L, more);
    return 1;
}

/* forget(pool): calls that nobody has a future of are not begun any more. */
static int forget(lua_State *L) {
    mp_pool_forget(pool_of(bind_check_pool(L, 1, "shutdown")));
    return 0;
}

/* load(pool) -> items that wait, workers that work */
static int load(lua_State *L) {
    uint64_t waiting;
    uint32_t busy;
    mp_pool_load(pool_of(bind_check_pool(L, 1, "stats")), &waiting, &busy);
    lua_pushinteger(L, (lua_Integer)waiting);
    lua_pushinteger(L, (lua_Integer)busy);
    return 2;
}

/* watch(pool) -> what sleep wants; nil: the pool is no more. Who sleeps looks
   at the jobs, whose ends were announced, between the two. */
static int watch(lua_State *L) {
    const pool_ud *pool = (pool_ud *)bind_is(L, 1, &bind_pool_class);
    if (!pool) return bind_argerror(L, "watch", 1, "self", "Pool");
    if (!pool->object.shm || !bind_pool_mine(pool)) return 0;
    lua_pushinteger(L, (lua_Integer)mp_pool_watch(pool_of(pool)));
    return 1;
}

/* sleep(pool, seen, deadline) -> "changed": something may have; "late": the
   deadline passed; "dead": so is the crew, which job:ready() replaces. */
static int sleep_on_pool(lua_State *L) {
    pool_ud *pool = (pool_ud *)bind_is(L, 1, &bind_pool_class);
    if (!pool) return bind_argerror(L, "sleep", 1, "self", "Pool");
    uint32_t seen = (uint32_t)luaL_checkinteger(L, 2);
    mp_deadline deadline = bind_deadline(L, 3, "wait");
    int r = 0;
    if (pool->object.shm && bind_pool_mine(pool))
        r = mp_pool_sleep(pool_of(pool), seen, deadline);
    if (r == -EINTR) bind_interrupted(L);
    lua_pushstring(L, r == -ETIMEDOUT    ? "late"
                      : r == -EOWNERDEAD ? "dead"
                                         : "changed");
    return 1;
}

void job_any_open(lua_State *L) {
    static const luaL_Reg functions[] = {{"first_ready", first_ready},
                                         {"begun", begun},
                                         {"withdraw", withdraw},
                                         {"end_input", end_input},
                                         {"forget", forget},
                                         {"load", load},
                                         {"watch", watch},
                                         {"sleep", sleep_on_pool},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
