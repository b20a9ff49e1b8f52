/* The classes that users registered: the store's table of entries, by name
   and by metatable. */
#include <string.h>

#include "bind/bind.h"
#include "bind/pack_impl.h"

void pack_class_push(lua_State *L) {
    pack_store_value(L, STORE_CLASSES);
    lua_insert(L, -2);
    lua_rawget(L, -2);
    lua_remove(L, -2);
}

/* Raises ValueError if classes[key at `key`] is an entry whose `field` is
   another than the value at `other`. */
static void check_taken(lua_State *L, int key, int field, int other) {
    lua_pushvalue(L, key);
    pack_class_push(L);
    if (lua_istable(L, -1)) {
        lua_rawgeti(L, -1, field);
        if (!lua_rawequal(L, -1, other))
            bind_error(L, "ValueError",
                       field == CLASS_META
                           ? "register: the name '%s' is already that of "
                             "another metatable"
                           : "register: the metatable is already registered "
                             "as '%s'",
                       lua_tostring(L, field == CLASS_META ? key : -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void check_register(lua_State *L) {
    size_t len = 0;
    if (lua_type(L, 1) != LUA_TSTRING)
        bind_argerror(L, "register", 1, "name", "string");
    lua_tolstring(L, 1, &len);
    if (len == 0)
        bind_error(L, "ValueError", "register: the name is empty");
    if (strcmp(lua_tostring(L, 1), PACK_RESERVED) == 0)
        bind_error(L, "ValueError", "register: the name '%s' is reserved",
                   PACK_RESERVED);
    if (!lua_istable(L, 2))
        bind_argerror(L, "register", 2, "metatable", "table");
    for (int i = 3; i <= 4; i++)
        if (!lua_isnoneornil(L, i) && !lua_isfunction(L, i))
            bind_argerror(L, "register", i, i == 3 ? "reduce" : "rebuild",
                          "function");
    if (lua_isnoneornil(L, 3) != lua_isnoneornil(L, 4))
        bind_error(L, "TypeError", "register: reduce and rebuild go "
                   "together, got %s only",
                   lua_isnoneornil(L, 4) ? "reduce" : "rebuild");
}

/* Pushes the entry of the name at 1, made if there is none. */
static void push_entry(lua_State *L) {
    lua_pushvalue(L, 1);
    pack_class_push(L);
    if (lua_istable(L, -1))
        return;
    lua_pop(L, 1);
    pack_store_value(L, STORE_CLASSES);
    lua_createtable(L, CLASS_NAME, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, CLASS_NAME);
    for (int key = 1; key <= 2; key++) { /* by name and by metatable */
        lua_pushvalue(L, key);
        lua_pushvalue(L, -2);
        lua_rawset(L, -4);
    }
    lua_remove(L, -2);
}

/* A class that came with a job under the name at 1 gives way. */
static void take_over(lua_State *L) {
    lua_pushvalue(L, 1);
    pack_class_push(L);
    if (lua_istable(L, -1)) {
        int entry = lua_gettop(L);
        lua_rawgeti(L, entry, CLASS_LENT);
        lua_rawgeti(L, entry, CLASS_META);
        if (lua_toboolean(L, -2) && !lua_rawequal(L, -1, 2)) {
            pack_store_value(L, STORE_CLASSES);
            lua_insert(L, -2);
            lua_pushnil(L);
            lua_rawset(L, -3);
            lua_pushvalue(L, 1);
            lua_pushnil(L);
            lua_rawset(L, -3);
        }
    }
    lua_settop(L, 4);
}

int pack_class_register(lua_State *L) {
    check_register(L);
    lua_settop(L, 4);
    take_over(L);
    check_taken(L, 1, CLASS_META, 2);
    check_taken(L, 2, CLASS_NAME, 1);
    push_entry(L);
    for (int i = 2; i <= 4; i++) {
        static const int fields[] = {CLASS_META, CLASS_REDUCE,
                                     CLASS_REBUILD};
        lua_pushvalue(L, i);
        lua_rawseti(L, 5, fields[i - 2]);
    }
    pack_store *store = pack_store_push(L);
    pack_names_add_class(L, store, 1, 2);
    return 0;
}
