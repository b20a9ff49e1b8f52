#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/core.h"
#include "bind/pack.h"
#include "mem/arena.h"
#include "mem/object.h"
#include "os/random.h"

/* Field of the registry: class name -> its table of methods. */
#define BIND_METHODS "mp.methods"

/* Registry: lightuserdata of the class -> its metatable; the table of all
   classes by pickle code stands in a static array, since classes are. */
static const bind_class *_Atomic by_code[256];

/* Each state writes what all write: whose store is seen does not matter. */
static const bind_class *class_of_code(int code) {
    return atomic_load_explicit(&by_code[code], memory_order_relaxed);
}

static int object_close(lua_State *L) {
    bind_object *o = lua_touserdata(L, 1);
    if (!o || !o->shm) return 0;
    o->shm = NULL;
    /* A child forked behind our back holds nothing. */
    if (mp_me) mp_object_detach(o->id);
    return 0;
}

void bind_class_open(const bind_class *class) {
    atomic_store_explicit(&by_code[class->code], class,
                          memory_order_relaxed);
}

/* Fills the table on top with the class's metamethods. */
static void fill_metatable(lua_State *L, const bind_class *class) {
    lua_pushstring(L, class->name);
    lua_setfield(L, -2, "__name");
    lua_pushcfunction(L, object_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, object_close);
    lua_setfield(L, -2, "__close");
    if (class->methods) {
        lua_newtable(L);
        luaL_setfuncs(L, class->methods, 0);
        /* core.methods: by this path they travel. */
        luaL_getsubtable(L, LUA_REGISTRYINDEX, BIND_METHODS);
        lua_pushstring(L, class->name);
        lua_pushvalue(L, -3);
        lua_rawset(L, -3);
        lua_pop(L, 1);
        lua_setfield(L, -2, "__index");
    }
    if (class->meta) luaL_setfuncs(L, class->meta, 0);
    if (class->finish) class->finish(L);
}

void bind_class_push(lua_State *L, const bind_class *class) {
    luaL_checkstack(L, 8, class->name);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, class) == LUA_TTABLE) return;
    lua_pop(L, 1);
    bind_core_now(L);
    lua_newtable(L);
    fill_metatable(L, class);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, class);
}

/* __index of core.methods: (table, name) -> the methods of that class, of
   which there was no object yet. */
static int find_methods(lua_State *L) {
    const char *name = luaL_checkstring(L, 2);
    for (int code = 1; code < 256; code++) {
        const bind_class *class = class_of_code(code);
        if (!class || strcmp(class->name, name) != 0) continue;
        bind_class_push(L, class);
        lua_pushvalue(L, 2);
        lua_rawget(L, 1);
        return 1;
    }
    return 0;
}

void bind_methods_open(lua_State *L) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, BIND_METHODS);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, find_methods);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_setfield(L, -2, "methods");
}

bind_object *bind_new(lua_State *L, const bind_class *class, size_t size) {
    bind_object *o = lua_newuserdatauv(L, size, 1);
    *o = (bind_object){.class = class};
    bind_class_push(L, class);
    lua_setmetatable(L, -2);
    return o;
}

/* The method's name as its caller wrote it, where Lua knows it. */
static const char *method_name(lua_State *L, const char *otherwise) {
    lua_Debug info;
    if (lua_getstack(L, 0, &info) && lua_getinfo(L, "n", &info) && info.name)
        return info.name;
    return otherwise;
}

bind_object *bind_check(lua_State *L, int arg, const bind_class *class) {
    bind_object *o = bind_is(L, arg, class);
    if (!o)
        bind_argerror(L, method_name(L, class->name), arg, "self",
                      class->name);
    if (!mp_me) bind_open_runtime(L);
    if (!o->shm)
        bind_error(L, "StateError", "%s is closed", class->name);
    return o;
}

bind_object *bind_test(lua_State *L, int arg) {
    bind_object *o = lua_touserdata(L, arg);
    if (!o || lua_type(L, arg) != LUA_TUSERDATA ||
        lua_rawlen(L, arg) < sizeof *o)
        return NULL;
    for (int code = 1; code < 256; code++) {
        const bind_class *class = class_of_code(code);
        if (class && class == o->class) return o;
    }
    return NULL;
}

void bind_push_handle(lua_State *L, uint8_t code, uint32_t id, uint32_t gen,
                      uint32_t aux) {
    const bind_class *class = class_of_code(code);
    if (!class)
        bind_error(L, "PicklingError", "unknown class of shared object: %d",
                   (int)code);
    bind_open_runtime(L);
    bind_object *o = bind_new(L, class, sizeof *o);
    int r = mp_object_attach(id, gen);
    if (r == -ENOENT && class->type == MP_TYPE_SEGMENT)
        bind_oserror(L, r, "SharedMemory"); /* as of one without a name */
    if (r < 0)
        bind_error(L, "StateError", "shared %s #%d no longer exists",
                   class->name, (int)id);
    unsigned char *block = mp_object_block(id);
    o->id = id;
    o->gen = gen;
    o->aux = aux;
    o->shm = block + aux;
    /* A part of an object is viewed by a class of another type. */
    if (aux == 0 ? mp_object_type(id) != class->type
                 : aux >= mp_object_size(id))
        bind_error(L, "PicklingError", "shared object #%d is not a %s",
                   (int)id, class->name);
}

void bind_family(unsigned char id[16]) {
    /* Where there is no family, no seal fits. */
    if (mp_open() < 0)
        mp_random_bytes(id, 16);
    else
        memcpy(id, mp_me->super->family, 16);
}
