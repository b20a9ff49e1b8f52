/* Condition. What a wait has begun it ends, whatever the interpreter raises
   in between; the object is counted once more meanwhile, since a hook may
   close the handle. */
#include "sync/cond.h"

#include <errno.h>

#include "bind/sync.h"
#include "mem/arena.h"
#include "mem/object.h"

static const bind_class cond_class;

static bind_object *self(lua_State *L, int arg) {
    return bind_check(L, arg, &cond_class);
}

static int acquire(void *shm, mp_deadline deadline) {
    return mp_cond_acquire(shm, deadline);
}

static int release(void *shm) {
    return mp_cond_release(shm);
}

static int fail_lock(lua_State *L, int code) {
    (void)code;
    return bind_error(L, "ValueError",
                      "semaphore or lock released too many times");
}

static const bind_lockable over_rlock = {acquire, release, bind_fail_rlock};
static const bind_lockable over_lock = {acquire, release, fail_lock};

static const bind_lockable *how(lua_State *L) {
    const mp_cond_shm *cond = self(L, 1)->shm;
    return cond->recursive ? &over_rlock : &over_lock;
}

static int cond_acquire(lua_State *L) {
    return bind_acquire(L, self, how(L));
}

static int cond_release(lua_State *L) {
    int r = mp_cond_release(self(L, 1)->shm);
    return r < 0 ? how(L)->fail(L, r) : 0;
}

static int cond_guard(lua_State *L) {
    return bind_guard(L, self, how(L));
}

static int cond_locked(lua_State *L) {
    lua_pushboolean(L, mp_lock_owner(mp_cond_lock(self(L, 1)->shm)) != 0);
    return 1;
}

/* ---- waiting -------------------------------------------------------- */

/* A wait's outcome.
   raised  an error was raised meanwhile, and is pushed
   lock    what mp_cond_wait_relock returned */
typedef struct outcome {
    bool notified, raised;
    int lock;
} outcome;

/* Sleeps and relocks. An error waits until the lock is held again; a second
   one does not, so that nothing waits for ever. */
static outcome wait_out(lua_State *L, mp_cond_shm *cond, mp_cond_wait *wait,
                        mp_deadline deadline) {
    outcome out = {false, false, 0};
    while (!out.raised && mp_cond_wait_sleep(wait, deadline) == -EINTR)
        out.raised = bind_interrupted_caught(L);
    while ((out.lock = mp_cond_wait_relock(cond, wait)) == -EINTR) {
        if (!bind_interrupted_caught(L)) continue;
        if (out.raised) break;
        out.raised = true;
    }
    out.notified = mp_cond_wait_end(cond, wait, out.raised);
    return out;
}

static void begin(lua_State *L, const bind_object *o, mp_cond_wait *wait) {
    luaL_checkstack(L, 4, "waiting");
    int r = mp_object_attach(o->id, o->gen);
    if (r < 0) bind_oserror(L, r, "wait");
    r = mp_cond_wait_begin(o->shm, wait);
    if (r == 0) return;
    mp_object_detach(o->id);
    if (r == -EPERM)
        bind_error(L, "StateError",
                   "must acquire() condition before using wait()");
    bind_oserror(L, r, "wait");
}

/* One wait of the object at index 1. */
static outcome wait_once(lua_State *L, mp_deadline deadline) {
    const bind_object *o = self(L, 1);
    mp_cond_shm *cond = o->shm;
    uint32_t id = o->id;
    mp_cond_wait wait;
    begin(L, o, &wait);
    outcome out = wait_out(L, cond, &wait, deadline);
    mp_object_detach(id);
    if (out.raised) lua_error(L);
    return out;
}

/* wait([timeout]) -> was it notified? [, "abandoned"] */
static int cond_wait(lua_State *L) {
    self(L, 1);
    outcome out = wait_once(L, bind_deadline(L, 2, "wait"));
    lua_pushboolean(L, out.notified);
    if (out.lock != MP_LOCK_ABANDONED) return 1;
    lua_pushliteral(L, "abandoned");
    return 2;
}

static bool callable(lua_State *L, int arg) {
    if (lua_isfunction(L, arg)) return true;
    if (luaL_getmetafield(L, arg, "__call") == LUA_TNIL) return false;
    lua_pop(L, 1);
    return true;
}

/* wait_for(predicate [, timeout]) -> the predicate's last value */
static int cond_wait_for(lua_State *L) {
    self(L, 1);
    if (!callable(L, 2))
        bind_argerror(L, "wait_for", 2, "predicate", "function");
    mp_deadline deadline = bind_deadline(L, 3, "wait_for");
    for (;;) {
        lua_settop(L, 3);
        lua_pushvalue(L, 2);
        lua_call(L, 0, 1);
        if (lua_toboolean(L, -1) || mp_deadline_passed(deadline)) return 1;
        wait_once(L, deadline);
    }
}

/* ---- notifying ------------------------------------------------------ */

static int notify(lua_State *L, mp_cond_shm *cond, uint32_t n) {
    if (mp_cond_notify(cond, n) < 0)
        bind_error(L, "StateError", "lock is not owned");
    return 0;
}

/* notify([n = 1]) */
static int cond_notify(lua_State *L) {
    mp_cond_shm *cond = self(L, 1)->shm;
    lua_Integer n = 1;
    if (!lua_isnoneornil(L, 2))
        n = bind_integer(L, 2, "notify", "n", 0, LUA_MAXINTEGER);
    return notify(L, cond, n < UINT32_MAX ? (uint32_t)n : UINT32_MAX);
}

static int cond_notify_all(lua_State *L) {
    return notify(L, self(L, 1)->shm, UINT32_MAX);
}

/* ---- the class ------------------------------------------------------ */

static int cond_tostring(lua_State *L) {
    const bind_object *o = bind_is(L, 1, &cond_class);
    mp_cond_shm *cond = o && mp_me ? o->shm : NULL;
    if (!cond)
        lua_pushliteral(L, "<Condition(closed)>");
    else
        lua_pushfstring(L, "<Condition(%s, %s, waiting=%I)>",
                        cond->recursive ? "RLock" : "Lock",
                        mp_lock_owner(mp_cond_lock(cond)) ? "locked"
                                                          : "unlocked",
                        (LUAI_UACINT)mp_cond_waiting(cond));
    return 1;
}

static const luaL_Reg methods[] = {{"acquire", cond_acquire},
                                   {"release", cond_release},
                                   {"guard", cond_guard},
                                   {"locked", cond_locked},
                                   {"wait", cond_wait},
                                   {"wait_for", cond_wait_for},
                                   {"notify", cond_notify},
                                   {"notify_all", cond_notify_all},
                                   {NULL, NULL}};
static const luaL_Reg meta[] = {{"__tostring", cond_tostring}, {NULL, NULL}};
static const bind_class cond_class = {.name = "Condition",
                                      .code = 5,
                                      .type = MP_TYPE_CONDITION,
                                      .methods = methods,
                                      .meta = meta};

static void check_lock_open(lua_State *L, const bind_object *lock) {
    if (!lock->shm)
        bind_error(L, "StateError", "%s is closed", lock->class->name);
}

/* The lock at index 1, or NULL for one of the condition's own. */
static const bind_object *given_lock(lua_State *L, bool *recursive) {
    if (lua_isnoneornil(L, 1)) return NULL;
    const bind_object *lock = bind_test_lock(L, 1, recursive);
    if (!lock) bind_argerror(L, "Condition", 1, "lock", "Lock or RLock");
    check_lock_open(L, lock);
    return lock;
}

/* Condition([lock]) */
static int new_cond(lua_State *L) {
    bool recursive = true;
    const bind_object *lock = given_lock(L, &recursive);
    bind_open_runtime(L);
    bind_object *o = bind_new(L, &cond_class, sizeof *o);
    if (lock) check_lock_open(L, lock); /* a finalizer may have run */
    uint32_t id, gen;
    int r = mp_cond_create(lock ? lock->id : 0, lock ? lock->shm : NULL,
                           recursive, &id, &gen);
    if (r < 0) return bind_oserror(L, r, "Condition");
    bind_adopt(o, id, gen);
    return 1;
}

void bind_cond_open(lua_State *L) {
    mp_cond_open();
    bind_class_open(&cond_class);
    lua_pushcfunction(L, new_cond);
    lua_setfield(L, -2, "Condition");
}
