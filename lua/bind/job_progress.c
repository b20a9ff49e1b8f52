/* Telling the caller how far a job is: a function of his is called now and
   then while he waits for it, and once at its end. */
#include "bind/job.h"

enum { TICK_NS = 100 * 1000 * 1000 };

/* How many items are done: those too that belong to a claim which is not, so
   that large chunks do not look like a standstill. */
static uint64_t count_done(const job_ud *j) {
    if (!job_usable(j)) return j->taken;
    uint64_t done = mp_job_progress(pool_of(j->pool), j->job);
    return done > j->taken ? done : j->taken;
}

/* Calls it: (done, count or nil, over). */
static void tell(lua_State *L, const job_ud *j, int self, bool over) {
    luaL_checkstack(L, 4, NULL);
    if (lua_getiuservalue(L, self, UV_PROGRESS) != LUA_TFUNCTION) {
        lua_pop(L, 1);
        return;
    }
    lua_pushinteger(L, (lua_Integer)count_done(j));
    if (j->count == MP_JOB_OPEN)
        lua_pushnil(L);
    else
        lua_pushinteger(L, (lua_Integer)j->count);
    lua_pushboolean(L, over);
    lua_call(L, 3, 0);
}

mp_deadline job_tick_deadline(const job_ud *j, mp_deadline deadline) {
    return j->tick_ns && j->tick_ns < deadline.ns
               ? (mp_deadline){j->tick_ns}
               : deadline;
}

void job_tick(lua_State *L, job_ud *j, int self) {
    if (!j->tick_ns || mp_now_ns() < j->tick_ns) return;
    j->tick_ns = mp_now_ns() + TICK_NS;
    tell(L, j, self, false);
}

void job_tick_end(lua_State *L, job_ud *j, int self) {
    if (!j->tick_ns) return;
    j->tick_ns = 0;
    tell(L, j, self, true);
    lua_pushnil(L);
    lua_setiuservalue(L, self, UV_PROGRESS);
}

int job_progress(lua_State *L) {
    job_ud *j = job_check(L, "progress");
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    lua_setiuservalue(L, 1, UV_PROGRESS);
    j->tick_ns = mp_now_ns() + TICK_NS;
    return 0;
}
