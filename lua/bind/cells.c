#include "bind/cells.h"

#include <limits.h>
#include <math.h>

#include "bind/sync.h"

static bool is_value(const bind_object *o) {
    return o->class->type == MP_TYPE_VALUE;
}

bind_object *cells_refuse(lua_State *L, const bind_class *class) {
    return bind_check(L, 1, class);
}

mp_array_shm *cells_wait(lua_State *L, const bind_object *o,
                         mp_array_hold *hold) {
    while (o->shm) {
        bind_interrupted(L);
        mp_array_shm *array = cells_try(o, hold);
        if (array) return array;
    }
    bind_error(L, "StateError", "%s is closed", o->class->name);
    return NULL;
}

/* ---- making them ---------------------------------------------------- */

int cells_type(lua_State *L, int arg, const char *fn) {
    size_t len;
    if (lua_type(L, arg) != LUA_TSTRING)
        bind_argerror(L, fn, arg, "typecode", "one of " MP_CELL_CODES);
    const char *code = lua_tolstring(L, arg, &len);
    int type = len == 1 ? mp_cell_find(*code) : 0;
    if (!type)
        bind_error(L, "TypeError",
                   "%s: unknown typecode '%s', expected one of %s", fn, code,
                   MP_CELL_CODES);
    return type;
}

static void fail_lock(lua_State *L, const char *fn) {
    bind_error(L, "StateError", "%s: lock is closed", fn);
}

mp_guard cells_guard(lua_State *L, int arg, const char *fn) {
    bool recursive;
    if (lua_isnoneornil(L, arg) || lua_isboolean(L, arg))
        return (mp_guard){.kind = lua_isboolean(L, arg) &&
                                          !lua_toboolean(L, arg)
                                      ? MP_GUARD_NONE
                                      : MP_GUARD_OWN};
    const bind_object *lock = bind_test_lock(L, arg, &recursive);
    if (!lock)
        bind_argerror(L, fn, arg, "lock", "Lock, RLock or boolean");
    if (!lock->shm) fail_lock(L, fn);
    return (mp_guard){recursive ? MP_GUARD_RLOCK : MP_GUARD_LOCK, lock->id,
                      lock->gen, lock->aux};
}

void cells_keep_lock(lua_State *L, int arg) {
    if (!lua_isuserdata(L, arg)) return;
    lua_pushvalue(L, arg);
    lua_setiuservalue(L, -2, 1);
}

/* Lua's collector sees a small userdata; what is behind it counts, too. */
static void tell_collector(lua_State *L, uint64_t bytes) {
    int kilobytes = bytes >> 10 > INT_MAX ? INT_MAX : (int)(bytes >> 10);
    if (kilobytes > 0 && lua_gc(L, LUA_GCISRUNNING))
        lua_gc(L, LUA_GCSTEP, kilobytes);
}

static int create(const bind_class *class, int type, uint64_t length,
                  const mp_guard *guard, bind_object *o) {
    return mp_array_create(class->type, type, length, guard, &o->id,
                           &o->gen);
}

/* A finalizer that runs on the way may close the lock of `guard`. */
mp_array_shm *cells_new(lua_State *L, const bind_class *class, int type,
                        uint64_t length, const mp_guard *guard) {
    bind_object *o = bind_new(L, class, sizeof *o);
    int r = create(class, type, length, guard, o);
    if (r == -ENOMEM) {
        lua_gc(L, LUA_GCCOLLECT);
        r = create(class, type, length, guard, o);
    }
    if (r == -ENOENT) fail_lock(L, class->name);
    if (r < 0) {
        const char *what = lua_pushfstring(
            L, "%s of %I cells '%c'", class->name, (lua_Integer)length,
            mp_cell_types[type].code);
        bind_oserror(L, r, what);
    }
    o->shm = mp_object_block(o->id);
    tell_collector(L, length * mp_cell_types[type].size);
    return o->shm;
}

int cells_copy(lua_State *L, const bind_object *o) {
    const mp_array_shm *like = o->shm;
    mp_guard guard = {.kind = MP_GUARD_NONE};
    if (cells_locking(o)) guard = mp_array_guard(like);
    mp_array_shm *to =
        cells_new(L, o->class, like->type, like->length, &guard);
    if (guard.id && lua_getiuservalue(L, 1, 1) == LUA_TUSERDATA)
        lua_setiuservalue(L, -2, 1);
    else if (guard.id)
        lua_pop(L, 1);
    mp_array_hold hold;
    mp_array_shm *from = cells_enter(L, o, &hold);
    /* Nobody else knows the copy yet. */
    mp_array_read(from, 0, from->length, to->cells);
    mp_array_leave(&hold);
    return 1;
}

/* ---- the lock's methods --------------------------------------------- */

static bind_object *locking_self(lua_State *L) {
    return cells_self(L, &cells_value, &cells_array);
}

/* Pushes the lock of the object at 1: the view made first, or the object
   that was given, as long as nobody has closed it. */
static void push_lock(lua_State *L) {
    const bind_object *o = locking_self(L);
    lua_getiuservalue(L, 1, 1);
    const bind_object *kept = bind_test(L, lua_gettop(L));
    if (kept && kept->shm) return;
    lua_pop(L, 1);
    mp_guard guard = mp_array_guard(o->shm);
    if (guard.kind == MP_GUARD_NONE)
        bind_error(L, "StateError", "this %s has no lock", o->class->name);
    if (guard.kind == MP_GUARD_OWN)
        bind_push_rlock_view(L, o, offsetof(mp_array_shm, own));
    else
        bind_push_handle(L, guard.kind == MP_GUARD_LOCK ? 1 : 2, guard.id,
                         guard.gen, guard.aux);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, 1);
}

/* get_lock() -> Lock or RLock: always the same object in one process. */
static int get_lock(lua_State *L) {
    push_lock(L);
    return 1;
}

/* get_obj() -> RawValue or RawArray: the same cells, without the lock. */
static int get_obj(lua_State *L) {
    const bind_object *o = locking_self(L);
    const bind_class *raw = is_value(o) ? &cells_raw_value
                                        : &cells_raw_array;
    bind_push_handle(L, raw->code, o->id, o->gen, 0);
    return 1;
}

/* The method of the same name, of the lock in our place. */
static int forward(lua_State *L, const char *method) {
    push_lock(L);
    lua_replace(L, 1);
    lua_getfield(L, 1, method);
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

static int acquire(lua_State *L) {
    return forward(L, "acquire");
}

static int release(lua_State *L) {
    return forward(L, "release");
}

static int guard_method(lua_State *L) {
    return forward(L, "guard");
}

/* ---- classes -------------------------------------------------------- */

static const luaL_Reg lock_methods[] = {
    {"get_lock", get_lock}, {"get_obj", get_obj},   {"acquire", acquire},
    {"release", release},   {"guard", guard_method}, {NULL, NULL}};

int cells_method(lua_State *L) {
    lua_settop(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    return 1;
}

int cells_no_field(lua_State *L, const bind_object *o, const char *known) {
    const char *key = luaL_tolstring(L, 2, NULL);
    return bind_error(L, "TypeError", "cannot set '%s' of %s: it has %s",
                      key, o->class->name, known);
}

/* The content of a value, quoted if it is text; the length of an array. */
static void push_content(lua_State *L, const bind_object *o) {
    mp_array_shm *array = o->shm;
    if (!is_value(o)) {
        lua_pushinteger(L, (lua_Integer)array->length);
        return;
    }
    cells_push(L, array->type, mp_cell_load(array->type, array->cells, 0));
    if (lua_type(L, -1) == LUA_TSTRING)
        lua_pushfstring(L, "'%s'", lua_tostring(L, -1));
}

/* Does not wait for the lock: this is for looking at. */
static int to_string(lua_State *L) {
    const bind_object *o = bind_test(L, 1);
    if (!o || (!is_value(o) && o->class->type != MP_TYPE_ARRAY))
        return bind_argerror(L, "tostring", 1, "self", "Value or Array");
    if (!o->shm) {
        lua_pushfstring(L, "<%s (closed)>", o->class->name);
        return 1;
    }
    push_content(L, o);
    const mp_array_shm *array = o->shm;
    lua_pushfstring(L, "<%s('%c', %s)>", o->class->name,
                    mp_cell_types[array->type].code,
                    luaL_tolstring(L, -1, NULL));
    return 1;
}

void cells_finish(lua_State *L, lua_CFunction index, const luaL_Reg *methods,
                  bool locking) {
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    if (locking) luaL_setfuncs(L, lock_methods, 0);
    lua_pushcclosure(L, index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, to_string);
    lua_setfield(L, -2, "__tostring");
}
