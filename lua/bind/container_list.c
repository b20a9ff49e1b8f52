/* The list: what is done to one item, and to all at the end. Places count from
   1 here, from 0 in the table. */
#include <errno.h>

#include "bind/container.h"

static bind_object *self(lua_State *L, const char *fn) {
    return container_self(L, CONTAINER_LIST, fn);
}

/* ---- places --------------------------------------------------------- */

static int refuse_place(lua_State *L, const bind_object *o, int arg,
                        const char *fn) {
    const char *key = luaL_tolstring(L, arg, NULL);
    uint64_t n = mp_table_length(container_table(L, o));
    if (n == 0)
        return bind_error(L, "IndexError",
                          "%s: there is no item %s (the list is empty)", fn,
                          key);
    return bind_error(L, "IndexError", "%s: there is no item %s (1 to %I)",
                      fn, key, (lua_Integer)n);
}

/* The place at `arg`, from 0; raises TypeError, ValueError, and IndexError
   below 1. */
static int64_t place(lua_State *L, const bind_object *o, int arg,
                     const char *fn) {
    lua_Integer i = bind_integer(L, arg, fn, "i", LUA_MININTEGER,
                                 LUA_MAXINTEGER);
    if (i < 1) refuse_place(L, o, arg, fn);
    return i - 1;
}

/* ---- l[i] ----------------------------------------------------------- */

/* ipairs, and whatever else walks a list in C, reads one item past the end
   to find it: for them, and there only, that is nil. */
static int missing(lua_State *L, const bind_object *o) {
    lua_Debug caller;
    if (lua_isinteger(L, 2) && lua_tointeger(L, 2) > 0 &&
        lua_getstack(L, 1, &caller) && lua_getinfo(L, "S", &caller) &&
        *caller.what == 'C') {
        lua_pushnil(L);
        return 1;
    }
    return refuse_place(L, o, 2, "list");
}

int container_list_index(lua_State *L) {
    lua_settop(L, 2);
    if (lua_type(L, 2) != LUA_TNUMBER) {
        lua_rawget(L, lua_upvalueindex(1));
        return 1;
    }
    const bind_object *o = self(L, "list");
    int is_integer;
    lua_Integer i = lua_tointegerx(L, 2, &is_integer);
    if (!is_integer || i < 1) return missing(L, o);
    return container_read(L, o, NULL, i - 1, NULL) == 0 ? 1 : missing(L, o);
}

/* Makes the item at `position` the value at `value`; raises IndexError. */
static void set_item(lua_State *L, const bind_object *o, int64_t position,
                     int value, const char *fn) {
    container_form form;
    int r;
    if (container_scalar(L, value, &form.value)) {
        r = mp_table_set_at(container_table(L, o), position, &form.value,
                            MP_TABLE_ANY);
    } else {
        container_convert(L, value, fn);
        container_encode(L, value, "value", &form);
        r = mp_table_set_at(container_table(L, o), position, &form.value,
                            MP_TABLE_ANY);
        container_release(L, &form);
    }
    if (r == -ERANGE) refuse_place(L, o, 2, fn);
    if (r < 0) container_fail(L, r, fn);
}

int container_list_newindex(lua_State *L) {
    const bind_object *o = self(L, "list");
    if (lua_type(L, 2) != LUA_TNUMBER) {
        const char *key = luaL_tolstring(L, 2, NULL);
        return bind_error(L, "TypeError",
                          "cannot set '%s' of list: it has only items, by "
                          "number", key);
    }
    int64_t position = place(L, o, 2, "list");
    if (lua_isnil(L, 3))
        return bind_error(L, "TypeError",
                          "list: an item is not taken out by l[%I] = nil: "
                          "l:pop(%I) does that, l:set(%I, nil) makes it nil",
                          (lua_Integer)position + 1,
                          (lua_Integer)position + 1,
                          (lua_Integer)position + 1);
    if ((uint64_t)position == mp_table_length(container_table(L, o)))
        return bind_error(L, "IndexError",
                          "list: there is no item %I to set: l:append(v) "
                          "adds one", (lua_Integer)position + 1);
    set_item(L, o, position, 3, "list");
    return 0;
}

/* ---- methods -------------------------------------------------------- */

static void check_value(lua_State *L, int arg, const char *fn) {
    if (lua_isnone(L, arg)) bind_argerror(L, fn, arg, "value", "any value");
}

/* set(i, value): l[i] = value, nil being one, too. */
static int list_set(lua_State *L) {
    const bind_object *o = self(L, "set");
    int64_t position = place(L, o, 2, "set");
    check_value(L, 3, "set");
    lua_settop(L, 3);
    set_item(L, o, position, 3, "set");
    return 0;
}

/* append(value) */
static int list_append(lua_State *L) {
    const bind_object *o = self(L, "append");
    check_value(L, 2, "append");
    container_add_item(L, o, 2, "append");
    return 0;
}

/* insert(i, value): before item i; behind the last one if there is none. */
static int list_insert(lua_State *L) {
    const bind_object *o = self(L, "insert");
    int64_t position = place(L, o, 2, "insert");
    check_value(L, 3, "insert");
    lua_settop(L, 3);
    container_form form;
    container_convert(L, 3, "insert");
    container_encode(L, 3, "value", &form);
    int r = mp_table_insert(container_table(L, o), position, &form.value);
    container_release(L, &form);
    return r < 0 ? container_fail(L, r, "insert") : 0;
}

/* pop([i]) -> the item, which is taken out; by default the last one. */
static int list_pop(lua_State *L) {
    const bind_object *o = self(L, "pop");
    int64_t position =
        lua_isnoneornil(L, 2) ? -1 : place(L, o, 2, "pop");
    mp_table_taken taken;
    int r = mp_table_delete_at(container_table(L, o), position, MP_TABLE_ANY,
                               &taken);
    if (r == -ERANGE && position < 0)
        return bind_error(L, "IndexError", "pop: the list is empty");
    if (r == -ERANGE) return refuse_place(L, o, 2, "pop");
    if (r < 0) return container_fail(L, r, "pop");
    container_push_taken(L, &taken, false);
    return 1;
}

/* clear() */
static int list_clear(lua_State *L) {
    return container_clear(L, CONTAINER_LIST);
}

const luaL_Reg container_list_methods[] = {
    {"append", list_append}, {"clear", list_clear},
    {"insert", list_insert}, {"pop", list_pop},
    {"set", list_set},       {NULL, NULL}};
