/* Semaphore and BoundedSemaphore: two classes over one type. */
#include "sync/sem.h"

#include "bind/sync.h"
#include "mem/arena.h"
#include "mem/object.h"

static const bind_class sem_class, bounded_class;

/* The object at 1, if it can be used at once. */
static inline bind_object *ready(lua_State *L) {
    bind_object *o = bind_is(L, 1, &sem_class);
    if (!o) o = bind_is(L, 1, &bounded_class);
    return o && o->shm && mp_me ? o : NULL;
}

static bind_object *self(lua_State *L, int arg) {
    return bind_check(L, arg,
                      bind_is(L, arg, &bounded_class) ? &bounded_class
                                                      : &sem_class);
}

static int acquire(void *shm, mp_deadline deadline) {
    return mp_sem_acquire(shm, deadline);
}

static int release(void *shm) {
    return mp_sem_release(shm, 1);
}

static int fail(lua_State *L, int code) {
    (void)code;
    return bind_error(L, "ValueError",
                      "semaphore or lock released too many times");
}

static const bind_lockable lockable = {acquire, release, fail};

/* acquire([block [, timeout]]) -> boolean */
static int sem_acquire(lua_State *L) {
    const bind_object *o = ready(L);
    if (o && lua_gettop(L) == 1 && mp_sem_try(o->shm)) {
        lua_pushboolean(L, 1);
        return 1;
    }
    return bind_acquire(L, self, &lockable);
}

/* release([n = 1]): gives all n permits or, with an error, none */
static int sem_release(lua_State *L) {
    const bind_object *o = ready(L);
    if (!o) o = self(L, 1);
    uint32_t n = 1;
    if (!lua_isnoneornil(L, 2))
        n = (uint32_t)bind_integer(L, 2, "release", "n", 1, MP_SEM_MAX);
    int r = mp_sem_release(o->shm, n);
    return r < 0 ? fail(L, r) : 0;
}

static int sem_guard(lua_State *L) {
    return bind_guard(L, self, &lockable);
}

static int sem_get_value(lua_State *L) {
    lua_pushinteger(L, mp_sem_value(self(L, 1)->shm));
    return 1;
}

static int sem_locked(lua_State *L) {
    lua_pushboolean(L, mp_sem_value(self(L, 1)->shm) == 0);
    return 1;
}

static int sem_tostring(lua_State *L) {
    const bind_object *o = ready(L);
    const mp_sem_shm *sem = o ? o->shm : NULL;
    if (!sem)
        lua_pushliteral(L, "<Semaphore(closed)>");
    else if (o->class == &sem_class)
        lua_pushfstring(L, "<Semaphore(value=%I)>",
                        (LUAI_UACINT)mp_sem_value(sem));
    else
        lua_pushfstring(L, "<BoundedSemaphore(value=%I, maxvalue=%I)>",
                        (LUAI_UACINT)mp_sem_value(sem),
                        (LUAI_UACINT)sem->bound);
    return 1;
}

static const luaL_Reg methods[] = {
    {"acquire", sem_acquire},     {"release", sem_release},
    {"guard", sem_guard},         {"locked", sem_locked},
    {"get_value", sem_get_value}, {NULL, NULL}};
static const luaL_Reg meta[] = {{"__tostring", sem_tostring}, {NULL, NULL}};

static const bind_class sem_class = {.name = "Semaphore",
                                     .code = 3,
                                     .type = MP_TYPE_SEMAPHORE,
                                     .methods = methods,
                                     .meta = meta};
static const bind_class bounded_class = {.name = "BoundedSemaphore",
                                         .code = 4,
                                         .type = MP_TYPE_SEMAPHORE,
                                         .methods = methods,
                                         .meta = meta};

/* The constructors: ([value = 1]) */
static int new_object(lua_State *L, const bind_class *class, bool bounded) {
    uint32_t value = 1, id, gen;
    if (!lua_isnoneornil(L, 1))
        value = (uint32_t)bind_integer(L, 1, class->name, "value", 0,
                                       MP_SEM_MAX);
    bind_open_runtime(L);
    bind_object *o = bind_new(L, class, sizeof *o);
    int r = mp_sem_create(value, bounded ? value : MP_SEM_MAX, &id, &gen);
    if (r < 0) return bind_oserror(L, r, class->name);
    bind_adopt(o, id, gen);
    return 1;
}

static int new_sem(lua_State *L) {
    return new_object(L, &sem_class, false);
}

static int new_bounded(lua_State *L) {
    return new_object(L, &bounded_class, true);
}

void bind_sem_open(lua_State *L) {
    mp_sem_open();
    bind_class_open(&sem_class);
    bind_class_open(&bounded_class);
    lua_pushcfunction(L, new_sem);
    lua_setfield(L, -2, "Semaphore");
    lua_pushcfunction(L, new_bounded);
    lua_setfield(L, -2, "BoundedSemaphore");
}
