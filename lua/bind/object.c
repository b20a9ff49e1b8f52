#include <stdatomic.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/pack.h"
#include "mem/arena.h"
#include "mem/object.h"
#include "os/random.h"

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

void bind_class_open(lua_State *L, const bind_class *class) {
    atomic_store_explicit(&by_code[class->code], class,
                          memory_order_relaxed);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, class) == LUA_TTABLE) {
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 1);
    lua_newtable(L);
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
        luaL_getsubtable(L, LUA_REGISTRYINDEX, "mp.methods");
        lua_pushvalue(L, -2);
        lua_setfield(L, -2, class->name);
        lua_pop(L, 1);
        lua_setfield(L, -2, "__index");
    }
    if (class->meta) luaL_setfuncs(L, class->meta, 0);
    lua_rawsetp(L, LUA_REGISTRYINDEX, class);
}

bind_object *bind_new(lua_State *L, const bind_class *class, size_t size) {
    bind_object *o = lua_newuserdatauv(L, size, 1);
    *o = (bind_object){.class = class};
    lua_rawgetp(L, LUA_REGISTRYINDEX, class);
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
