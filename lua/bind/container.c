/* The classes of the containers, and what all kinds share. */
#include "bind/container.h"

#include <errno.h>

#include "bind/core.h"
#include "mem/arena.h"
#include "mem/object.h"

/* ---- objects -------------------------------------------------------- */

int container_kind(lua_State *L, int arg) {
    const bind_object *o = lua_touserdata(L, arg);
    if (!o || lua_rawlen(L, arg) < sizeof *o) return -1;
    for (int kind = 0; kind < CONTAINER_KINDS; kind++)
        if (o->class == &container_classes[kind]) return kind;
    return -1;
}

bind_object *container_refuse(lua_State *L, int arg, int kind,
                              const char *fn) {
    bind_argerror(L, fn, arg, "self", container_classes[kind].name);
    return NULL;
}

mp_table_shm *container_closed(lua_State *L, const bind_object *o) {
    if (!mp_me) bind_open_runtime(L);
    if (!o->shm) bind_error(L, "StateError", "%s is closed", o->class->name);
    return o->shm;
}

int container_fail(lua_State *L, int r, const char *fn) {
    if (r == -EMFILE)
        return bind_error(
            L, "StateError",
            "%s: called from too many nested rebuilding functions", fn);
    if (r == -ESTALE)
        return bind_error(L, "StateError",
                          "%s: a shared object in the value no longer exists",
                          fn);
    return bind_oserror(L, r, fn);
}

bind_object *container_new(lua_State *L, int kind) {
    bind_open_runtime(L);
    bind_object *o = bind_new(L, &container_classes[kind], sizeof *o);
    int r = mp_table_create((unsigned)kind, kind != CONTAINER_LIST, &o->id,
                            &o->gen);
    if (r < 0) container_fail(L, r, container_classes[kind].name);
    o->shm = mp_object_block(o->id);
    return o;
}

void container_drop(lua_State *L, bind_object *o) {
    if (o->shm) {
        o->shm = NULL;
        mp_object_detach(o->id);
    }
    lua_pop(L, 1);
}

/* ---- methods of all kinds ------------------------------------------- */

int container_clear(lua_State *L, int kind) {
    const bind_object *o = container_self(L, kind, "clear");
    int r = mp_table_clear(container_table(L, o));
    return r < 0 ? container_fail(L, r, "clear") : 0;
}

static int length(lua_State *L) {
    int kind = container_kind(L, 1);
    if (kind < 0) container_refuse(L, 1, CONTAINER_LIST, "#");
    const bind_object *o = lua_touserdata(L, 1);
    lua_pushinteger(
        L, (lua_Integer)mp_table_length(container_table(L, o)));
    return 1;
}

/* ---- classes -------------------------------------------------------- */

/* Copies the fields of the table that module `from` calls `name` to the one
   at `to`. */
static void add_members(lua_State *L, const char *from, const char *name,
                        int to) {
    bind_push_member(L, from, name);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, to);
    }
    lua_pop(L, 1);
}

/* Finishes the metatable on top: methods in C and in Lua stand in one table,
   the upvalue of __index and __newindex. */
static void finish(lua_State *L, const char *module, lua_CFunction index,
                   lua_CFunction newindex) {
    luaL_checkstack(L, 8, module);
    int meta = lua_gettop(L);
    lua_getfield(L, meta, "__index");
    add_members(L, module, "_methods", meta + 1);
    add_members(L, module, "_meta", meta);
    lua_pushvalue(L, meta + 1);
    lua_pushcclosure(L, index, 1);
    lua_setfield(L, meta, "__index");
    lua_pushcclosure(L, newindex, 1);
    lua_setfield(L, meta, "__newindex");
}

static void finish_list(lua_State *L) {
    finish(L, "mp.list", container_list_index, container_list_newindex);
}

static void finish_dict(lua_State *L) {
    finish(L, "mp.dict", container_dict_index, container_dict_newindex);
}

static void finish_set(lua_State *L) {
    finish(L, "mp.set", container_set_index, container_set_newindex);
}

static void finish_namespace(lua_State *L) {
    finish(L, "mp.namespace", container_namespace_index,
           container_namespace_newindex);
}

static const luaL_Reg no_methods[] = {{NULL, NULL}};
static const luaL_Reg with_length[] = {{"__len", length}, {NULL, NULL}};

const bind_class container_classes[CONTAINER_KINDS] = {
    [CONTAINER_LIST] = {.name = "list", .code = 16, .type = MP_TYPE_TABLE,
                        .methods = container_list_methods,
                        .meta = with_length, .finish = finish_list},
    [CONTAINER_DICT] = {.name = "dict", .code = 17, .type = MP_TYPE_TABLE,
                        .methods = container_dict_methods,
                        .meta = with_length, .finish = finish_dict},
    [CONTAINER_SET] = {.name = "set", .code = 18, .type = MP_TYPE_TABLE,
                       .methods = container_set_methods,
                       .meta = with_length, .finish = finish_set},
    [CONTAINER_NAMESPACE] = {.name = "Namespace", .code = 19,
                             .type = MP_TYPE_TABLE, .methods = no_methods,
                             .finish = finish_namespace}};

void bind_container_open(lua_State *L) {
    mp_table_declare();
    for (int kind = 0; kind < CONTAINER_KINDS; kind++)
        bind_class_open(&container_classes[kind]);
    lua_newtable(L);
    container_many_open(L);
    lua_setfield(L, -2, "container");
}
