/* Lock and RLock. Their acquire() and release() are the hot path: without
   arguments and without contention they cost a check of the class and a
   CAS. */
#include <errno.h>

#include "bind/sync.h"
#include "mem/arena.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "sync/lock.h"

static const bind_class lock_class, rlock_class;

static bind_object *lock_self(lua_State *L, int arg) {
    return bind_check(L, arg, &lock_class);
}

static bind_object *rlock_self(lua_State *L, int arg) {
    return bind_check(L, arg, &rlock_class);
}

/* The object at 1, if it can be used at once. */
static inline bind_object *ready(lua_State *L, const bind_class *class) {
    bind_object *o = bind_is(L, 1, class);
    return o && o->shm && mp_me ? o : NULL;
}

static const char *pid_of(lua_State *L, uint32_t owner) {
    if (!owner) return "nil";
    uint32_t pid = atomic_load_explicit(&mp_slot_at(owner % MP_SLOTS)->pid,
                                        memory_order_relaxed);
    return lua_pushfstring(L, "%d", (int)pid);
}

/* ---- Lock ----------------------------------------------------------- */

static int acquire_lock(void *shm, mp_deadline deadline) {
    return mp_lock_acquire(shm, deadline);
}

static int release_lock(void *shm) {
    return mp_lock_release(shm);
}

static int fail_lock(lua_State *L, int code) {
    (void)code;
    return bind_error(L, "ValueError",
                      "semaphore or lock released too many times");
}

static const bind_lockable lockable = {acquire_lock, release_lock,
                                       fail_lock};

/* acquire([block [, timeout]]) -> boolean [, "abandoned"] */
static int lock_acquire(lua_State *L) {
    const bind_object *o = ready(L, &lock_class);
    if (o && lua_gettop(L) == 1 && mp_lock_try(o->shm)) {
        lua_pushboolean(L, 1);
        return 1;
    }
    return bind_acquire(L, lock_self, &lockable);
}

static int lock_release(lua_State *L) {
    const bind_object *o = ready(L, &lock_class);
    if (!o) o = lock_self(L, 1);
    int r = mp_lock_release(o->shm);
    return r < 0 ? fail_lock(L, r) : 0;
}

static int lock_guard(lua_State *L) {
    return bind_guard(L, lock_self, &lockable);
}

static int lock_locked(lua_State *L) {
    lua_pushboolean(L, mp_lock_owner(lock_self(L, 1)->shm) != 0);
    return 1;
}

static int lock_tostring(lua_State *L) {
    const bind_object *o = ready(L, &lock_class);
    if (o)
        lua_pushfstring(L, "<Lock(owner=%s)>",
                        pid_of(L, mp_lock_owner(o->shm)));
    else
        lua_pushliteral(L, "<Lock(closed)>");
    return 1;
}

/* ---- RLock ---------------------------------------------------------- */

static int acquire_rlock(void *shm, mp_deadline deadline) {
    return mp_rlock_acquire(shm, deadline);
}

static int release_rlock(void *shm) {
    return mp_rlock_release(shm);
}

int bind_fail_rlock(lua_State *L, int code) {
    if (code == -EOVERFLOW)
        return bind_error(L, "ValueError",
                          "recursive lock acquired too many times");
    return bind_error(L, "StateError",
                      "attempt to release recursive lock not owned by "
                      "thread");
}

static const bind_lockable rlockable = {acquire_rlock, release_rlock,
                                        bind_fail_rlock};

static int rlock_acquire(lua_State *L) {
    const bind_object *o = ready(L, &rlock_class);
    if (o && lua_gettop(L) == 1 && mp_rlock_try(o->shm)) {
        lua_pushboolean(L, 1);
        return 1;
    }
    return bind_acquire(L, rlock_self, &rlockable);
}

static int rlock_release(lua_State *L) {
    const bind_object *o = ready(L, &rlock_class);
    if (!o) o = rlock_self(L, 1);
    int r = mp_rlock_release(o->shm);
    return r < 0 ? bind_fail_rlock(L, r) : 0;
}

static int rlock_guard(lua_State *L) {
    return bind_guard(L, rlock_self, &rlockable);
}

static int rlock_locked(lua_State *L) {
    const mp_rlock_shm *rlock = rlock_self(L, 1)->shm;
    lua_pushboolean(L, mp_lock_owner(&rlock->lock) != 0);
    return 1;
}

static int rlock_tostring(lua_State *L) {
    const bind_object *o = ready(L, &rlock_class);
    if (!o) {
        lua_pushliteral(L, "<RLock(closed)>");
        return 1;
    }
    const mp_rlock_shm *rlock = o->shm;
    uint32_t owner = mp_lock_owner(&rlock->lock);
    lua_Integer count = owner ? (lua_Integer)atomic_load_explicit(
                                    &rlock->count, memory_order_relaxed)
                              : 0;
    lua_pushfstring(L, "<RLock(owner=%s, count=%I)>", pid_of(L, owner),
                    (LUAI_UACINT)count);
    return 1;
}

/* ---- the classes ---------------------------------------------------- */

static const luaL_Reg lock_methods[] = {
    {"acquire", lock_acquire}, {"release", lock_release},
    {"guard", lock_guard},     {"locked", lock_locked},
    {NULL, NULL}};
static const luaL_Reg lock_meta[] = {{"__tostring", lock_tostring},
                                     {NULL, NULL}};
static const bind_class lock_class = {.name = "Lock",
                                      .code = 1,
                                      .type = MP_TYPE_LOCK,
                                      .methods = lock_methods,
                                      .meta = lock_meta};

static const luaL_Reg rlock_methods[] = {
    {"acquire", rlock_acquire}, {"release", rlock_release},
    {"guard", rlock_guard},     {"locked", rlock_locked},
    {NULL, NULL}};
static const luaL_Reg rlock_meta[] = {{"__tostring", rlock_tostring},
                                      {NULL, NULL}};
static const bind_class rlock_class = {.name = "RLock",
                                       .code = 2,
                                       .type = MP_TYPE_RLOCK,
                                       .methods = rlock_methods,
                                       .meta = rlock_meta};

static int new_object(lua_State *L, const bind_class *class,
                      int (*create)(uint32_t *id, uint32_t *gen)) {
    bind_open_runtime(L);
    bind_object *o = bind_new(L, class, sizeof *o);
    uint32_t id, gen;
    int r = create(&id, &gen);
    if (r < 0) return bind_oserror(L, r, class->name);
    bind_adopt(o, id, gen);
    return 1;
}

static int new_lock(lua_State *L) {
    return new_object(L, &lock_class, mp_lock_create);
}

static int new_rlock(lua_State *L) {
    return new_object(L, &rlock_class, mp_rlock_create);
}

/* ---- for other nouns ------------------------------------------------ */

void bind_push_rlock_view(lua_State *L, const bind_object *of,
                          uint32_t aux) {
    bind_push_handle(L, rlock_class.code, of->id, of->gen, aux);
}

bind_object *bind_test_lock(lua_State *L, int arg, bool *recursive) {
    bind_object *o = bind_is(L, arg, &rlock_class);
    *recursive = o != NULL;
    return o ? o : bind_is(L, arg, &lock_class);
}

void bind_lock_open(lua_State *L) {
    mp_lock_open();
    bind_class_open(&lock_class);
    bind_class_open(&rlock_class);
    lua_pushcfunction(L, new_lock);
    lua_setfield(L, -2, "Lock");
    lua_pushcfunction(L, new_rlock);
    lua_setfield(L, -2, "RLock");
}
