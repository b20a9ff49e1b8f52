/* Plain tables as containers.  A table like a list becomes a list, any other
   one a dict, an empty one too; and so do the plain tables in it, each once,
   however often it is met: a table that holds itself becomes a container that
   does.

   No recursion: tables that were met stand in a queue, as containers that are
   still empty.  They are nobody's but ours until the first of them is stored.
   On an error all are emptied: a circle of them would stay for ever. */
#include <errno.h>

#include "bind/container.h"

/* What is known while tables are converted, in tables of Lua:
   made   plain table -> its container
   queue  for each, three items: the table, the number of the one in which it
          was met, and under which key (0 and nil for the first)
   met, entries   tables, and what stands in all of them */
typedef struct converter {
    lua_State *L;
    const char *fn;
    int made, queue;
    lua_Integer met;
    uint64_t entries;
} converter;

/* ---- is it a list? -------------------------------------------------- */

/* What the keys of a table are: n is the field of that name, or -1. */
typedef struct keys_seen {
    lua_Integer places, largest, n;
} keys_seen;

/* Notes the key at -2, whose value is on top; false: no list has it. */
static bool note_key(lua_State *L, keys_seen *seen) {
    if (lua_isinteger(L, -2)) {
        lua_Integer i = lua_tointeger(L, -2);
        if (i < 1) return false;
        seen->places++;
        if (i > seen->largest) seen->largest = i;
        return true;
    }
    if (lua_type(L, -2) != LUA_TSTRING || !lua_isinteger(L, -1)) return false;
    size_t length;
    const char *key = lua_tolstring(L, -2, &length);
    seen->n = lua_tointeger(L, -1);
    return length == 1 && *key == 'n';
}

/* The length of the list that the table at `idx` is: all its keys are places
   from 1 on, none is missing or an n tells how many there are. -1: it is
   none, as an empty one. */
static lua_Integer list_length(lua_State *L, int idx) {
    keys_seen seen = {.n = -1};
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        if (!note_key(L, &seen)) {
            lua_pop(L, 2);
            return -1;
        }
        lua_pop(L, 1);
    }
    if (seen.places == 0) return -1;
    if (seen.n >= 0) return seen.n >= seen.largest ? seen.n : -1;
    return seen.places == seen.largest ? seen.largest : -1;
}

/* ---- paths ---------------------------------------------------------- */

/* Is the string at `idx` one that can stand behind a dot? */
static bool is_name(lua_State *L, int idx) {
    size_t n;
    const char *s = lua_tolstring(L, idx, &n);
    for (size_t i = 0; i < n; i++) {
        bool letter = (s[i] | 32) >= 'a' && (s[i] | 32) <= 'z';
        bool digit = i > 0 && s[i] >= '0' && s[i] <= '9';
        if (!letter && !digit && s[i] != '_') return false;
    }
    return n > 0 && n <= 40;
}

/* Appends what leads to the key on top (popped) to the path below it. */
static void add_key(lua_State *L) {
    if (lua_type(L, -1) == LUA_TSTRING && is_name(L, -1)) {
        lua_pushfstring(L, "%s.%s", lua_tostring(L, -2), lua_tostring(L, -1));
    } else {
        enum { SHOWN = 40 };
        size_t n;
        const char *quote = lua_type(L, -1) == LUA_TSTRING ? "\"" : "";
        const char *key = luaL_tolstring(L, -1, &n);
        key = lua_pushlstring(L, key, n < SHOWN ? n : SHOWN);
        lua_pushfstring(L, "%s[%s%s%s]", lua_tostring(L, -4), quote, key,
                        quote);
        lua_replace(L, -3);
        lua_pop(L, 1);
    }
    lua_replace(L, -3);
    lua_pop(L, 1);
}

/* Pushes the path to table `number` of the queue, «value.handlers[3]»: the
   first and last of many parts. */
static void push_path(converter *c, lua_Integer number) {
    enum { SHOWN = 12 };
    lua_State *L = c->L;
    lua_Integer way[SHOWN];
    int n = 0;
    while (number > 1 && n < SHOWN) {
        way[n++] = number;
        lua_rawgeti(L, c->queue, 3 * number - 1);
        number = lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    lua_pushstring(L, number > 1 ? "value..." : "value");
    while (n > 0) {
        lua_rawgeti(L, c->queue, 3 * way[--n]);
        add_key(L);
    }
}

/* ---- one table ------------------------------------------------------ */

static bool is_plain(lua_State *L, int idx) {
    if (!lua_istable(L, idx)) return false;
    if (!lua_getmetatable(L, idx)) return true;
    lua_pop(L, 1);
    return false;
}

/* Replaces the plain table on top, met under the key at `key` (0: none) of
   table `number`, by its container. */
static void meet(converter *c, lua_Integer number, int key) {
    lua_State *L = c->L;
    lua_pushvalue(L, -1);
    if (lua_rawget(L, c->made) == LUA_TNIL) {
        lua_pop(L, 1);
        bool list = list_length(L, lua_gettop(L)) >= 0;
        container_new(L, list ? CONTAINER_LIST : CONTAINER_DICT);
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, c->made);
        lua_Integer at = 3 * c->met++;
        lua_pushvalue(L, -2);
        lua_rawseti(L, c->queue, at + 1);
        lua_pushinteger(L, number);
        lua_rawseti(L, c->queue, at + 2);
        if (key) {
            lua_pushvalue(L, key);
            lua_rawseti(L, c->queue, at + 3);
        }
    }
    lua_replace(L, -2);
}

/* Encodes the value on top, which stands under the key at `key` of table
   `number`; pushes an anchor. */
static void encode_member(converter *c, lua_Integer number, int key,
                          container_form *form) {
    lua_State *L = c->L;
    int value = lua_gettop(L);
    const char *what = "value";
    if (is_plain(L, value)) {
        meet(c, number, key);
    } else if (lua_type(L, value) > LUA_TSTRING) {
        push_path(c, number);
        lua_pushvalue(L, key);
        add_key(L);
        what = lua_tostring(L, -1);
        lua_insert(L, value);
        value++;
    }
    container_encode(L, value, what, form);
}

static void append(converter *c, const bind_object *o,
                   const container_form *form) {
    int r = mp_table_insert(container_table(c->L, o), INT64_MAX, &form->value);
    if (r < 0) container_fail(c->L, r, c->fn);
}

/* Fills list `o` from table `number` of the queue, at `from`. */
static void fill_list(converter *c, lua_Integer number, int from,
                      const bind_object *o) {
    lua_State *L = c->L;
    lua_Integer n = list_length(L, from);
    if (n < 0) n = (lua_Integer)lua_rawlen(L, from); /* a hook changed it */
    int top = lua_gettop(L);
    int r = mp_table_reserve(container_table(L, o), (uint64_t)n);
    if (r < 0) container_fail(L, r, c->fn);
    for (lua_Integer i = 1; i <= n; i++) {
        container_form form;
        lua_pushinteger(L, i);
        lua_rawgeti(L, from, i);
        encode_member(c, number, top + 1, &form);
        append(c, o, &form);
        container_release(L, &form);
        lua_settop(L, top);
    }
}

static void set(converter *c, const bind_object *o,
                const mp_table_value *key, const container_form *form) {
    int r = mp_table_set(container_table(c->L, o), key, &form->value,
                         MP_TABLE_ANY);
    if (r < 0) container_fail(c->L, r, c->fn);
}

static void fill_dict(converter *c, lua_Integer number, int from,
                      const bind_object *o) {
    lua_State *L = c->L;
    lua_pushnil(L);
    int key = lua_gettop(L);
    while (lua_next(L, from)) {
        container_form form;
        mp_table_value k;
        const char *what = NULL;
        if (lua_type(L, key) > LUA_TSTRING) {
            push_path(c, number);
            what = lua_tostring(L, -1);
            lua_insert(L, -2);
        }
        container_key(L, key, c->fn, what, &k);
        encode_member(c, number, key, &form);
        set(c, o, &k, &form);
        container_release(L, &form);
        lua_settop(L, key);
    }
}

/* ---- all of them ---------------------------------------------------- */

/* (made, queue, converter): fills what was met, and what is met by that. */
static int fill_all(lua_State *L) {
    converter *c = lua_touserdata(L, 3);
    luaL_checkstack(L, 20, "a value of a container");
    c->L = L;
    c->made = 1;
    c->queue = 2;
    for (lua_Integer i = 1; i <= c->met; i++) {
        lua_rawgeti(L, 2, 3 * i - 2);
        lua_pushvalue(L, -1);
        lua_rawget(L, 1);
        int kind = container_kind(L, -1);
        const bind_object *o = lua_touserdata(L, -1);
        (kind == CONTAINER_LIST ? fill_list : fill_dict)(
            c, i, lua_gettop(L) - 1, o);
        c->entries += mp_table_length(container_table(L, o));
        lua_settop(L, 3);
    }
    return 0;
}

/* Takes all containers in the table at `made` apart. One by one: it is when
   no object is left to be made that this must not fail. */
static void clear_all(lua_State *L, int made) {
    lua_pushnil(L);
    while (lua_next(L, made)) {
        const bind_object *o = lua_touserdata(L, -1);
        while (o->shm && mp_me &&
               mp_table_delete_at(o->shm, -1, MP_TABLE_ANY, NULL) == 0) {
        }
        lua_pop(L, 1);
    }
}

static void convert(lua_State *L, int idx, const char *fn) {
    luaL_checkstack(L, 12, "a value of a container");
    idx = lua_absindex(L, idx);
    lua_newtable(L);
    lua_newtable(L);
    int made = lua_gettop(L) - 1;
    converter c = {L, fn, made, made + 1, 0, 0};
    lua_pushvalue(L, idx);
    meet(&c, 0, 0);
    lua_insert(L, made);
    made++;
    lua_pushcfunction(L, fill_all);
    lua_pushvalue(L, made);
    lua_pushvalue(L, made + 1);
    lua_pushlightuserdata(L, &c);
    if (lua_pcall(L, 3, 0, 0) != LUA_OK) {
        clear_all(L, made);
        lua_error(L);
    }
    lua_settop(L, made - 1);
    lua_replace(L, idx);
    container_charge(L, c.entries);
}

void container_convert(lua_State *L, int idx, const char *fn) {
    if (is_plain(L, idx)) convert(L, idx, fn);
}

/* ---- members of one that exists ------------------------------------- */

void container_add_item(lua_State *L, const bind_object *o, int idx,
                        const char *fn) {
    container_form form;
    int r;
    if (container_scalar(L, idx, &form.value)) {
        r = mp_table_insert(container_table(L, o), INT64_MAX, &form.value);
    } else {
        container_convert(L, idx, fn);
        container_encode(L, idx, "value", &form);
        r = mp_table_insert(container_table(L, o), INT64_MAX, &form.value);
        container_release(L, &form);
    }
    if (r < 0) container_fail(L, r, fn);
}

void container_add_entry(lua_State *L, const bind_object *o, int key,
                         int idx, const char *fn) {
    container_form form;
    mp_table_value k;
    int r;
    container_key(L, key, fn, NULL, &k);
    if (container_scalar(L, idx, &form.value)) {
        r = mp_table_set(container_table(L, o), &k, &form.value,
                         MP_TABLE_ANY);
    } else {
        container_convert(L, idx, fn);
        container_encode(L, idx, "value", &form);
        r = mp_table_set(container_table(L, o), &k, &form.value,
                         MP_TABLE_ANY);
        container_release(L, &form);
    }
    if (r < 0) container_fail(L, r, fn);
}
