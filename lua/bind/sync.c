/* Acquiring and guarding, for everything that can be acquired. */
#include "bind/sync.h"

#include <errno.h>

#include "bind/core.h"
#include "mem/arena.h"
#include "mem/object.h"
#include "sync/lock.h"

void bind_adopt(bind_object *o, uint32_t id, uint32_t gen) {
    o->id = id;
    o->gen = gen;
    o->shm = mp_object_block(id);
}

/* ---- waiting -------------------------------------------------------- */

static int call_interrupted(lua_State *L) {
    bind_interrupted(L);
    return 0;
}

bool bind_interrupted_caught(lua_State *L) {
    lua_pushcfunction(L, call_interrupted);
    return lua_pcall(L, 0, 0, 0) != LUA_OK;
}

/* 0, MP_LOCK_ABANDONED, -ETIMEDOUT; raises the rest. The object is looked up
   again after each interruption, whose hooks may have closed it. */
static int acquire_until(lua_State *L, int arg, bind_self self,
                         const bind_lockable *how, mp_deadline deadline) {
    int r;
    while ((r = how->acquire(self(L, arg)->shm, deadline)) == -EINTR)
        bind_interrupted(L);
    return r >= 0 || r == -ETIMEDOUT ? r : how->fail(L, r);
}

bool bind_acquire_now(lua_State *L, int arg, bind_self self,
                      const bind_lockable *how) {
    return acquire_until(L, arg, self, how, MP_FOREVER) == MP_LOCK_ABANDONED;
}

static mp_deadline acquire_deadline(lua_State *L) {
    if (!lua_isnoneornil(L, 2) && !lua_isboolean(L, 2))
        bind_argerror(L, "acquire", 2, "block", "boolean or nil");
    mp_deadline deadline = bind_deadline(L, 3, "acquire");
    bool poll = lua_isboolean(L, 2) && !lua_toboolean(L, 2);
    return poll ? MP_AT_ONCE : deadline;
}

static int push_abandoned(lua_State *L, int results, bool abandoned) {
    if (!abandoned) return results;
    lua_pushliteral(L, "abandoned");
    return results + 1;
}

int bind_acquire(lua_State *L, bind_self self, const bind_lockable *how) {
    self(L, 1); /* its error before those of the others */
    mp_deadline deadline = acquire_deadline(L);
    int r = acquire_until(L, 1, self, how, deadline);
    lua_pushboolean(L, r >= 0);
    return push_abandoned(L, 1, r == MP_LOCK_ABANDONED);
}

/* ---- guards --------------------------------------------------------- */

/* Holds from its arming until it is closed, for the participant `tag`: a
   copy of it in a forked child holds nothing. Its user value is the object;
   the object's user value is a guard that was closed, to be used again: so a
   guard in a loop costs no memory. */
typedef struct guard {
    const void *kind; /* &guard_metatable */
    const bind_object *of;
    const bind_lockable *how; /* NULL: it does not hold (any more) */
    uint32_t tag;
} guard;

static const char guard_metatable; /* its address is the registry's key */

static bool holds(const guard *g) {
    return g->how && mp_me && mp_me->tag == g->tag && g->of->shm;
}

/* 0 when there was nothing to release. */
static int disarm(guard *g) {
    int r = holds(g) ? g->how->release(g->of->shm) : 0;
    g->how = NULL;
    return r;
}

static int guard_close(lua_State *L) {
    guard *g = lua_touserdata(L, 1);
    const bind_lockable *how = g->how;
    int r = disarm(g);
    lua_settop(L, 1);
    lua_getiuservalue(L, 1, 1);
    if (lua_touserdata(L, 2) == g->of) {
        lua_pushvalue(L, 1);
        lua_setiuservalue(L, 2, 1);
    }
    return r < 0 ? how->fail(L, r) : 0;
}

/* Of a guard that is never closed, as in a coroutine that is dropped. */
static int guard_gc(lua_State *L) {
    disarm(lua_touserdata(L, 1));
    return 0;
}

/* Pushes the object's free guard and takes it from it; or pushes nothing. */
static guard *push_free_guard(lua_State *L) {
    lua_getiuservalue(L, 1, 1);
    guard *g = lua_touserdata(L, -1);
    if (g && lua_rawlen(L, -1) == sizeof *g && g->kind == &guard_metatable &&
        !holds(g)) {
        lua_pushnil(L);
        lua_setiuservalue(L, 1, 1);
        return g;
    }
    lua_pop(L, 1);
    return NULL;
}

static guard *push_new_guard(lua_State *L, const bind_object *o) {
    guard *g = lua_newuserdatauv(L, sizeof *g, 1);
    *g = (guard){&guard_metatable, o, NULL, 0};
    lua_rawgetp(L, LUA_REGISTRYINDEX, &guard_metatable);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    return g;
}

int bind_guard(lua_State *L, bind_self self, const bind_lockable *how) {
    const bind_object *o = self(L, 1);
    if (!lua_isnoneornil(L, 2))
        bind_error(L, "TypeError",
                   "guard: takes no argument (acquire has a timeout), got %s",
                   luaL_tolstring(L, 2, NULL));
    lua_settop(L, 1);
    guard *g = push_free_guard(L);
    if (!g) g = push_new_guard(L, o);
    bool abandoned = bind_acquire_now(L, 1, self, how);
    g->tag = mp_me->tag;
    g->how = how;
    return push_abandoned(L, 1, abandoned);
}

static void open_guard(lua_State *L) {
    static const luaL_Reg meta[] = {
        {"__close", guard_close}, {"__gc", guard_gc}, {NULL, NULL}};
    luaL_newlib(L, meta);
    lua_pushliteral(L, "guard");
    lua_setfield(L, -2, "__name");
    lua_pushliteral(L, "guard"); /* nobody else calls its functions */
    lua_setfield(L, -2, "__metatable");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &guard_metatable);
}

void bind_sync_open(lua_State *L) {
    open_guard(L);
    bind_lock_open(L);
    bind_sem_open(L);
    bind_cond_open(L);
    bind_event_open(L);
    bind_barrier_open(L);
}
