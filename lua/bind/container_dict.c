/* What is done to one entry of a dict, a set or a Namespace. */
#include <errno.h>

#include "bind/container.h"

static bind_object *dict(lua_State *L, const char *fn) {
    return container_self(L, CONTAINER_DICT, fn);
}

static bind_object *set(lua_State *L, const char *fn) {
    return container_self(L, CONTAINER_SET, fn);
}

/* ---- entries -------------------------------------------------------- */

/* Pushes what stands under the key at `key`, nil if nothing does. */
static int get_entry(lua_State *L, const bind_object *o, int key,
                     const char *fn) {
    mp_table_value k;
    container_key(L, key, fn, NULL, &k);
    if (container_read(L, o, &k, 0, NULL) < 0) lua_pushnil(L);
    return 1;
}

/* Takes out what stands under the key at `key`: was there something? */
static bool delete_entry(lua_State *L, const bind_object *o, int key,
                         const char *fn) {
    mp_table_value k;
    container_key(L, key, fn, NULL, &k);
    int r = mp_table_delete(container_table(L, o), &k, MP_TABLE_ANY, NULL);
    if (r < 0 && r != -ENOENT) container_fail(L, r, fn);
    return r == 0;
}

static int set_entry(lua_State *L, const bind_object *o, const char *fn) {
    lua_settop(L, 3);
    if (lua_isnil(L, 3))
        delete_entry(L, o, 2, fn);
    else
        container_add_entry(L, o, 2, 3, fn);
    return 0;
}

/* contains(key) of both */
static int contains(lua_State *L, const bind_object *o) {
    mp_table_value k;
    uint64_t version;
    mp_table_value value;
    mp_table_room none = {0};
    container_key(L, 2, "contains", NULL, &k);
    int r = mp_table_get(container_table(L, o), &k, &none, &value, &version);
    if (r < 0 && r != -ENOENT && r != -ENOBUFS)
        container_fail(L, r, "contains");
    lua_pushboolean(L, r != -ENOENT);
    return 1;
}

/* ---- dict ----------------------------------------------------------- */

/* Is the key at 2 the name of a method? Pushes that, or nil. */
static bool method(lua_State *L) {
    lua_pushvalue(L, 2);
    return lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL;
}

int container_dict_index(lua_State *L) {
    lua_settop(L, 2);
    if (lua_type(L, 2) == LUA_TSTRING) {
        if (method(L)) return 1;
        lua_settop(L, 2);
    }
    return get_entry(L, dict(L, "dict"), 2, "dict");
}

int container_dict_newindex(lua_State *L) {
    const bind_object *o = dict(L, "dict");
    if (lua_type(L, 2) == LUA_TSTRING) {
        if (method(L))
            return bind_error(L, "TypeError",
                              "dict: '%s' is a method, and no key for d[k]: "
                              "d:set('%s', v) and d:get('%s') take any key",
                              lua_tostring(L, 2), lua_tostring(L, 2),
                              lua_tostring(L, 2));
        lua_settop(L, 3);
    }
    return set_entry(L, o, "dict");
}

/* get(key [, default]) */
static int dict_get(lua_State *L) {
    const bind_object *o = dict(L, "get");
    mp_table_value k;
    lua_settop(L, 3);
    container_key(L, 2, "get", NULL, &k);
    if (container_read(L, o, &k, 0, NULL) < 0) lua_pushvalue(L, 3);
    return 1;
}

/* set(key, value): nil deletes the key. */
static int dict_set(lua_State *L) {
    const bind_object *o = dict(L, "set");
    if (lua_isnone(L, 3)) bind_argerror(L, "set", 3, "value", "any value");
    return set_entry(L, o, "set");
}

static int dict_contains(lua_State *L) {
    return contains(L, dict(L, "contains"));
}

/* Raises KeyError for the key at 2. */
static int no_key(lua_State *L, const char *fn, const char *where) {
    const char *quote = lua_type(L, 2) == LUA_TSTRING ? "'" : "";
    return bind_error(L, "KeyError", "%s: %s%s%s is not in the %s", fn, quote,
                      luaL_tolstring(L, 2, NULL), quote, where);
}

/* pop(key [, default]) -> what stood there */
static int dict_pop(lua_State *L) {
    const bind_object *o = dict(L, "pop");
    mp_table_value k;
    mp_table_taken taken;
    bool otherwise = lua_gettop(L) > 2;
    container_key(L, 2, "pop", NULL, &k);
    int r = mp_table_delete(container_table(L, o), &k, MP_TABLE_ANY, &taken);
    if (r == -ENOENT && !otherwise) return no_key(L, "pop", "dict");
    if (r < 0 && r != -ENOENT) return container_fail(L, r, "pop");
    if (r == 0)
        container_push_taken(L, &taken, false);
    else
        lua_settop(L, 3);
    return 1;
}

/* popitem() -> key, value: the last */
static int dict_popitem(lua_State *L) {
    const bind_object *o = dict(L, "popitem");
    mp_table_taken taken;
    int r = mp_table_delete_at(container_table(L, o), -1, MP_TABLE_ANY,
                               &taken);
    if (r == -ERANGE)
        return bind_error(L, "KeyError", "popitem: the dict is empty");
    if (r < 0) return container_fail(L, r, "popitem");
    container_push_taken(L, &taken, true);
    return 2;
}

/* Sets the key to what was encoded, if it is not there. */
static bool set_if_absent(lua_State *L, const bind_object *o,
                          const mp_table_value *key,
                          const mp_table_value *value, const char *fn) {
    int r = mp_table_set(container_table(L, o), key, value, MP_TABLE_ABSENT);
    if (r < 0 && r != -EAGAIN) container_fail(L, r, fn);
    return r == 0;
}

/* setdefault(key, default) -> what stands there */
static int dict_setdefault(lua_State *L) {
    const bind_object *o = dict(L, "setdefault");
    mp_table_value k;
    container_form form;
    lua_settop(L, 3);
    container_key(L, 2, "setdefault", NULL, &k);
    if (container_read(L, o, &k, 0, NULL) == 0) return 1;
    if (lua_isnil(L, 3)) return 1;
    container_convert(L, 3, "setdefault");
    container_encode(L, 3, "default", &form);
    bool there = false;
    while (!there && !set_if_absent(L, o, &k, &form.value, "setdefault"))
        there = container_read(L, o, &k, 0, NULL) == 0;
    if (there) lua_replace(L, 3);
    container_release(L, &form);
    lua_settop(L, 3);
    return 1;
}

/* append(value): under the first key from #d + 1 on that is free. For empty
   tables that were stored and become lists of results. */
static int dict_append(lua_State *L) {
    const bind_object *o = dict(L, "append");
    container_form form;
    lua_settop(L, 2);
    if (lua_isnil(L, 2))
        bind_argerror(L, "append", 2, "value", "any value but nil");
    container_convert(L, 2, "append");
    container_encode(L, 2, "value", &form);
    mp_table_value k = {.tag = MESSAGE_INTEGER};
    k.word = mp_table_length(container_table(L, o));
    do k.word++;
    while (!set_if_absent(L, o, &k, &form.value, "append"));
    container_release(L, &form);
    return 0;
}

static int dict_clear(lua_State *L) {
    return container_clear(L, CONTAINER_DICT);
}

const luaL_Reg container_dict_methods[] = {
    {"append", dict_append},   {"clear", dict_clear},
    {"contains", dict_contains}, {"get", dict_get},
    {"pop", dict_pop},         {"popitem", dict_popitem},
    {"set", dict_set},         {"setdefault", dict_setdefault},
    {NULL, NULL}};

/* ---- Namespace ------------------------------------------------------ */

/* Is the key at 2 a name of the view's own? Raises unless it is a string. */
static bool is_private(lua_State *L) {
    if (lua_type(L, 2) != LUA_TSTRING)
        bind_error(L, "TypeError", "Namespace: a name must be a string, got "
                   "%s", luaL_typename(L, 2));
    return *lua_tostring(L, 2) == '_';
}

/* The private fields stand in the view's user value, once there are any. */
int container_namespace_index(lua_State *L) {
    const bind_object *o = container_self(L, CONTAINER_NAMESPACE,
                                          "Namespace");
    lua_settop(L, 2);
    if (!is_private(L)) return get_entry(L, o, 2, "Namespace");
    if (lua_getiuservalue(L, 1, 1) == LUA_TTABLE) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, -2) != LUA_TNIL) return 1;
    }
    lua_settop(L, 2);
    method(L);
    return 1;
}

int container_namespace_newindex(lua_State *L) {
    const bind_object *o = container_self(L, CONTAINER_NAMESPACE,
                                          "Namespace");
    if (!is_private(L)) return set_entry(L, o, "Namespace");
    if (lua_getiuservalue(L, 1, 1) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, 1, 1);
    }
    lua_insert(L, 2);
    lua_rawset(L, 2);
    return 0;
}

/* ---- set ------------------------------------------------------------ */

static const mp_table_value member = {.tag = MESSAGE_TRUE};

/* A method, or an error: whoever wants to know of an item does not learn it
   here. */
int container_set_index(lua_State *L) {
    set(L, "set");
    lua_settop(L, 2);
    return method(L) ? 1 : container_set_newindex(L);
}

int container_set_newindex(lua_State *L) {
    const char *quote = lua_type(L, 2) == LUA_TSTRING ? "'" : "";
    return bind_error(L, "TypeError",
                      "set: there is no field %s%s%s: items are for "
                      "s:contains(x), s:add(x) and s:discard(x)", quote,
                      luaL_tolstring(L, 2, NULL), quote);
}

/* add(item) -> boolean: was it new? */
static int set_add(lua_State *L) {
    const bind_object *o = set(L, "add");
    mp_table_value k;
    container_key(L, 2, "add", NULL, &k);
    lua_pushboolean(L, set_if_absent(L, o, &k, &member, "add"));
    return 1;
}

/* discard(item) -> boolean: was it there? */
static int set_discard(lua_State *L) {
    const bind_object *o = set(L, "discard");
    lua_pushboolean(L, delete_entry(L, o, 2, "discard"));
    return 1;
}

/* remove(item); KeyError */
static int set_remove(lua_State *L) {
    const bind_object *o = set(L, "remove");
    return delete_entry(L, o, 2, "remove") ? 0 : no_key(L, "remove", "set");
}

static int set_contains(lua_State *L) {
    return contains(L, set(L, "contains"));
}

/* pop() -> an item, which is taken out: the last that came */
static int set_pop(lua_State *L) {
    const bind_object *o = set(L, "pop");
    mp_table_taken taken;
    int r = mp_table_delete_at(container_table(L, o), -1, MP_TABLE_ANY,
                               &taken);
    if (r == -ERANGE)
        return bind_error(L, "KeyError", "pop: the set is empty");
    if (r < 0) return container_fail(L, r, "pop");
    container_push_taken(L, &taken, true);
    lua_pop(L, 1);
    return 1;
}

static int set_clear(lua_State *L) {
    return container_clear(L, CONTAINER_SET);
}

const luaL_Reg container_set_methods[] = {
    {"add", set_add},         {"clear", set_clear},
    {"contains", set_contains}, {"discard", set_discard},
    {"pop", set_pop},         {"remove", set_remove},
    {NULL, NULL}};
