/* core.container: what the methods in Lua are made of (lua/mp/container.lua).
   They read all of a container, or one entry of it, with the number of the
   change that made it so, compute, and put what they computed in its place if
   the number still is the same. Their arguments come from mp's own modules
   and are not checked further than safety asks. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "bind/container.h"
#include "mem/object.h"

/* The container of any kind at 1, open. */
static bind_object *any(lua_State *L, int *kind) {
    *kind = container_kind(L, 1);
    if (*kind < 0)
        bind_argerror(L, "container", 1, "self", "list, dict, set or "
                                                 "Namespace");
    bind_object *o = lua_touserdata(L, 1);
    container_table(L, o);
    return o;
}

/* ---- what it is ----------------------------------------------------- */

/* kind(v) -> "list", "dict", "set", "Namespace", or nil */
static int many_kind(lua_State *L) {
    int kind = lua_isuserdata(L, 1) ? container_kind(L, 1) : -1;
    if (kind < 0)
        lua_pushnil(L);
    else
        lua_pushstring(L, container_classes[kind].name);
    return 1;
}

/* identity(v) -> a number of the container that v views, nil if it views
   none */
static int many_identity(lua_State *L) {
    if (!lua_isuserdata(L, 1) || container_kind(L, 1) < 0) return 0;
    const bind_object *o = lua_touserdata(L, 1);
    lua_pushinteger(L, (lua_Integer)((uint64_t)o->gen << 32 | o->id));
    return 1;
}

/* is_closed(container) -> boolean */
static int many_is_closed(lua_State *L) {
    if (container_kind(L, 1) < 0) container_refuse(L, 1, 0, "is_closed");
    const bind_object *o = lua_touserdata(L, 1);
    lua_pushboolean(L, !o->shm);
    return 1;
}

/* ---- arguments ------------------------------------------------------ */

/* integer(fn, name, v) -> v as an integer */
static int many_integer(lua_State *L) {
    lua_pushinteger(L, bind_integer(L, 3, lua_tostring(L, 1),
                                    lua_tostring(L, 2), LUA_MININTEGER,
                                    LUA_MAXINTEGER));
    return 1;
}

/* key(fn, v) -> v as a key is given back: 1 for 1.0 */
static int many_key(lua_State *L) {
    mp_table_value key;
    container_key(L, 2, lua_tostring(L, 1), NULL, &key);
    if (key.data)
        lua_pushvalue(L, 2);
    else
        message_push_scalar(L, key.tag, key.word);
    return 1;
}

/* value(v) -> v; of a plain table the container that is made of it */
static int many_value(lua_State *L) {
    lua_settop(L, 1);
    container_convert(L, 1, "container");
    return 1;
}

/* ---- all of it ------------------------------------------------------ */

static int table_size(uint64_t n) {
    return n < INT_MAX ? (int)n : INT_MAX;
}

/* Pushes a list to be filled, or nil. */
static void push_room(lua_State *L, const mp_table_copy *copy, bool wanted) {
    if (wanted)
        lua_createtable(L, table_size(copy->entries), 0);
    else
        lua_pushnil(L);
}

/* What of a snapshot is wanted, as lists. */
typedef struct wanted {
    bool values, keys, versions;
} wanted;

/* Pushes the lists of values, keys and versions; nil for those that are not
   wanted. */
static void push_lists(lua_State *L, const mp_table_copy *copy, wanted w) {
    push_room(L, copy, w.values);
    push_room(L, copy, w.keys);
    push_room(L, copy, w.versions);
    int at = lua_gettop(L) - 2;
    mp_table_value key, value;
    uint64_t version;
    size_t offset = 0;
    for (lua_Integer i = 1; mp_table_next(copy, &offset, w.keys ? &key : NULL,
                                          &value, &version);
         i++) {
        if (w.values) {
            container_push(L, &value);
            lua_rawseti(L, at, i);
        }
        if (w.keys) {
            container_push(L, &key);
            lua_rawseti(L, at + 1, i);
        }
        if (w.versions) {
            lua_pushinteger(L, (lua_Integer)version);
            lua_rawseti(L, at + 2, i);
        }
    }
}

/* snapshot(container [, part]) -> values, n, keys (nil for a list),
   generation, versions. part: "versions", or nil: then those of the entries
   are nil; "keys": the values are, too. */
static int many_snapshot(lua_State *L) {
    static const char *const parts[] = {"all", "versions", "keys", NULL};
    int kind, r;
    const bind_object *o = any(L, &kind);
    int part = luaL_checkoption(L, 2, "all", parts);
    container_room room;
    mp_table_copy copy;
    container_room_begin(&room);
    do {
        mp_table_shm *t = container_table(L, o);
        r = mp_table_copy_all(t, &room.room, &copy);
    } while (container_room_grow(L, &room, r));
    if (r < 0) container_fail(L, r, "snapshot");
    luaL_checkstack(L, 8, "a snapshot");
    push_lists(L, &copy,
               (wanted){part != 2, kind != CONTAINER_LIST, part == 1});
    container_room_end(&room);
    lua_pushinteger(L, (lua_Integer)copy.generation);
    lua_insert(L, -2);
    lua_pushinteger(L, (lua_Integer)copy.entries);
    lua_insert(L, -4);
    return 5;
}

static void reserve(lua_State *L, const bind_object *o, lua_Integer n,
                    lua_Integer times, const char *fn) {
    bool fits = times == 0 || n <= LUA_MAXINTEGER / times;
    int r = fits ? mp_table_reserve(container_table(L, o),
                                    (uint64_t)(n * times))
                 : -ENOMEM;
    if (r < 0) container_fail(L, r, fn);
}

/* Adds the n items of the lists at `values` and `keys`, read raw, to the
   container on top. A set's values are its keys. */
static void fill(lua_State *L, const bind_object *o, int kind, int values,
                 lua_Integer n, int keys, const char *fn) {
    int top = lua_gettop(L);
    for (lua_Integer i = 1; i <= n; i++) {
        if (kind == CONTAINER_LIST) {
            lua_rawgeti(L, values, i);
            container_add_item(L, o, top + 1, fn);
        } else {
            lua_rawgeti(L, keys, i);
            if (kind == CONTAINER_SET)
                lua_pushboolean(L, true);
            else
                lua_rawgeti(L, values, i);
            container_add_entry(L, o, top + 1, top + 2, fn);
        }
        lua_settop(L, top);
    }
}

/* Pushes a new container of this kind with these items. */
static bind_object *push_filled(lua_State *L, int kind, int values,
                                lua_Integer n, int keys, const char *fn) {
    bind_object *o = container_new(L, kind);
    reserve(L, o, n, 1, fn);
    fill(L, o, kind, values, n, keys, fn);
    return o;
}

/* Items that are lists of `n` at `values` and, for what has keys, at `keys`:
   tables; raises else. */
static lua_Integer check_lists(lua_State *L, int kind, int values, int keys) {
    luaL_checktype(L, values, LUA_TTABLE);
    if (kind != CONTAINER_LIST) luaL_checktype(L, keys, LUA_TTABLE);
    lua_Integer n = luaL_checkinteger(L, values + 1);
    luaL_argcheck(L, n >= 0, values + 1, "a number of items");
    return n;
}

/* new(kind, values, n, keys [, fn [, times]]) -> container: all values so many
   times (1) */
static int many_new(lua_State *L) {
    static const char *const names[] = {"list", "dict", "set", "Namespace",
                                        NULL};
    int kind = luaL_checkoption(L, 1, NULL, names);
    const char *fn = luaL_optstring(L, 5, names[kind]);
    lua_Integer times = luaL_optinteger(L, 6, 1);
    lua_settop(L, 6);
    lua_Integer n = check_lists(L, kind, 2, 4);
    const bind_object *o = container_new(L, kind);
    reserve(L, o, n, times, fn);
    for (lua_Integer i = 0; n > 0 && i < times; i++)
        fill(L, o, kind, 2, n, 4, fn);
    container_charge(L, (uint64_t)(n * times));
    return 1;
}

/* add(container, fn, values, n, keys): all of them, in one step */
static int many_add(lua_State *L) {
    int kind;
    bind_object *o = any(L, &kind);
    const char *fn = luaL_checkstring(L, 2);
    lua_settop(L, 5);
    lua_Integer n = check_lists(L, kind, 3, 5);
    bind_object *from = push_filled(L, kind, 3, n, 5, fn);
    int r = mp_table_move(container_table(L, o), from->id);
    container_drop(L, from);
    return r < 0 ? container_fail(L, r, fn) : 0;
}

/* replace(container, generation, values, n, keys) -> boolean: false if it was
   changed after that generation */
static int many_replace(lua_State *L) {
    int kind;
    bind_object *o = any(L, &kind);
    uint64_t generation = (uint64_t)luaL_checkinteger(L, 2);
    lua_settop(L, 5);
    lua_Integer n = check_lists(L, kind, 3, 5);
    bind_object *with = push_filled(L, kind, 3, n, 5, "replace");
    int r = mp_table_swap(container_table(L, o), generation, with->id);
    container_drop(L, with);
    if (r < 0 && r != -EAGAIN) return container_fail(L, r, "replace");
    lua_pushboolean(L, r == 0);
    return 1;
}

/* ---- lists: order and search ---------------------------------------- */

static bind_object *list(lua_State *L) {
    bind_object *o = container_self(L, CONTAINER_LIST, "list");
    container_table(L, o);
    return o;
}

/* generation(list): that of a snapshot, if nobody has changed it since. What
   this thread has changed itself counts; of others, it may come late. */
static int many_generation(lua_State *L) {
    const mp_table_shm *t = container_table(L, list(L));
    uint64_t generation =
        atomic_load_explicit(&t->changes, memory_order_relaxed);
    lua_pushinteger(L, (lua_Integer)generation);
    return 1;
}

/* reverse(list) */
static int many_reverse(lua_State *L) {
    const bind_object *o = list(L);
    int r = mp_table_permute(container_table(L, o), MP_TABLE_ANY, NULL, 0);
    return r < 0 ? container_fail(L, r, "reverse") : 0;
}

/* permute(list, generation, order, n) -> boolean: item order[i] comes to place
   i; false if the list was changed after that generation */
static int many_permute(lua_State *L) {
    const bind_object *o = list(L);
    uint64_t generation = (uint64_t)luaL_checkinteger(L, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_Integer n = luaL_checkinteger(L, 4);
    luaL_argcheck(L, n >= 0 && (size_t)n < SIZE_MAX / 8, 4, "a length");
    uint64_t *order = lua_newuserdatauv(L, (size_t)n * sizeof *order, 0);
    for (lua_Integer i = 0; i < n; i++) {
        lua_rawgeti(L, 3, i + 1);
        order[i] = (uint64_t)lua_tointeger(L, -1) - 1;
        lua_pop(L, 1);
    }
    int r = mp_table_permute(container_table(L, o), generation, order,
                             (uint64_t)n);
    if (r < 0 && r != -EAGAIN) return container_fail(L, r, "sort");
    lua_pushboolean(L, r == 0);
    return 1;
}

/* What equals a scalar, as a table knows it: a number may stand there in more
   than one way. */
typedef struct likes {
    mp_table_value value[3];
    size_t n;
} likes;

static void add_like(likes *k, uint8_t tag, const void *word) {
    mp_table_value *value = &k->value[k->n++];
    *value = (mp_table_value){.tag = tag};
    memcpy(&value->word, word, sizeof value->word);
}

/* Is the float x just this integer? */
static bool is_exactly(lua_Number x, lua_Integer n) {
    lua_Integer back;
    return lua_numbertointeger(x, &back) && (lua_Number)back == x &&
           back == n;
}

static void number_likes(lua_State *L, int idx, likes *k) {
    lua_Number x = lua_tonumber(L, idx), minus = -x;
    lua_Integer n = lua_tointeger(L, idx); /* 0 if x is no integer */
    bool exact = is_exactly(x, n);
    if (lua_isinteger(L, idx) || exact) add_like(k, MESSAGE_INTEGER, &n);
    if (isnan(x) || (lua_isinteger(L, idx) && !exact)) return;
    add_like(k, MESSAGE_FLOAT, &x);
    if (x == 0) add_like(k, MESSAGE_FLOAT, &minus);
}

/* The value at `idx` as it may stand in a table; false: it cannot be found by
   its bytes. */
static bool find_likes(lua_State *L, int idx, likes *k) {
    k->n = 0;
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER:
        number_likes(L, idx, k);
        return true;
    case LUA_TSTRING:
        k->n = 1;
        if (container_scalar(L, idx, &k->value[0])) return true;
        k->value[0].tag = MESSAGE_STRING;
        k->value[0].data = lua_tolstring(L, idx, &k->value[0].length);
        return true;
    case LUA_TNIL:
    case LUA_TBOOLEAN:
        k->n = 1;
        return container_scalar(L, idx, &k->value[0]);
    default:
        return false;
    }
}

/* find(list, value, from, to) -> searched, place or nil, version: from and to
   are places; the value must be a scalar or string, else searched is false */
static int many_find(lua_State *L) {
    const bind_object *o = list(L);
    likes k;
    lua_settop(L, 4);
    lua_Integer from = luaL_optinteger(L, 3, 1);
    lua_Integer to = luaL_optinteger(L, 4, LUA_MAXINTEGER);
    bool searched = find_likes(L, 2, &k);
    lua_pushboolean(L, searched);
    uint64_t at = 0, version = 0;
    int r = -ENOENT;
    if (from < 1) from = 1;
    if (searched && k.n > 0 && to >= from)
        r = mp_table_find(container_table(L, o), k.value, k.n, from - 1,
                          to, &at, &version);
    if (r < 0 && r != -ENOENT) container_fail(L, r, "find");
    if (r < 0) return 1;
    lua_pushinteger(L, (lua_Integer)at + 1);
    lua_pushinteger(L, (lua_Integer)version);
    return 3;
}

/* count(list, value) -> how many; nil: not a scalar or string */
static int many_count(lua_State *L) {
    const bind_object *o = list(L);
    likes k;
    lua_settop(L, 2);
    if (!find_likes(L, 2, &k)) return 0;
    uint64_t n = 0;
    if (k.n > 0) n = mp_table_count(container_table(L, o), k.value, k.n);
    lua_pushinteger(L, (lua_Integer)n);
    return 1;
}

/* take_out(list, place, version) -> boolean: false if another item stands
   there now */
static int many_take_out(lua_State *L) {
    const bind_object *o = list(L);
    int r = mp_table_delete_at(container_table(L, o),
                               luaL_checkinteger(L, 2) - 1,
                               (uint64_t)luaL_checkinteger(L, 3), NULL);
    if (r < 0 && r != -EAGAIN && r != -ERANGE)
        return container_fail(L, r, "remove");
    lua_pushboolean(L, r == 0);
    return 1;
}

/* ---- one entry ------------------------------------------------------ */

/* The entry that 2 names: `*key` of what has keys, else `*position`. */
static bool entry(lua_State *L, int kind, const char *fn, mp_table_value *key,
                  int64_t *position) {
    *position = 0;
    if (kind != CONTAINER_LIST) {
        container_key(L, 2, fn, NULL, key);
        return true;
    }
    *position = bind_integer(L, 2, fn, "i", LUA_MININTEGER,
                             LUA_MAXINTEGER) - 1;
    return false;
}

static int no_place(lua_State *L, mp_table_shm *t) {
    return bind_error(L, "IndexError",
                      "update_with: there is no item %I (1 to %I)",
                      lua_tointeger(L, 2), (lua_Integer)mp_table_length(t));
}

/* read(container, key or place) -> value, version; nil, 0: no such key.
   IndexError. */
static int many_read(lua_State *L) {
    int kind;
    const bind_object *o = any(L, &kind);
    mp_table_value key;
    int64_t position;
    uint64_t version = MP_TABLE_ABSENT;
    lua_settop(L, 2);
    bool keyed = entry(L, kind, "update_with", &key, &position);
    if (position < 0) return no_place(L, container_table(L, o));
    int r = container_read(L, o, keyed ? &key : NULL, position, &version);
    if (r == -ERANGE) return no_place(L, container_table(L, o));
    if (r < 0) {
        version = MP_TABLE_ABSENT;
        lua_pushnil(L);
    }
    lua_pushinteger(L, (lua_Integer)version);
    return 2;
}

/* Writes the value at 3, nil deleting what has a key. 0 or -errno. */
static int write_entry(lua_State *L, const bind_object *o,
                       const mp_table_value *key, int64_t position,
                       uint64_t expect) {
    container_form form;
    if (key && lua_isnil(L, 3)) {
        int r = mp_table_delete(container_table(L, o), key, expect, NULL);
        return r == -ENOENT ? 0 : r; /* and it was not there before */
    }
    container_encode(L, 3, "value", &form);
    mp_table_shm *t = container_table(L, o);
    int r = key ? mp_table_set(t, key, &form.value, expect)
                : mp_table_set_at(t, position, &form.value, expect);
    container_release(L, &form);
    return r == -ERANGE ? -EAGAIN : r;
}

/* write(container, key or place, value, version) -> boolean: false if it is
   not any more what it was. The value is no plain table. */
static int many_write(lua_State *L) {
    int kind;
    const bind_object *o = any(L, &kind);
    mp_table_value key;
    int64_t position;
    uint64_t expect = (uint64_t)luaL_checkinteger(L, 4);
    bool keyed = entry(L, kind, "update_with", &key, &position);
    int r = write_entry(L, o, keyed ? &key : NULL, position, expect);
    if (r < 0 && r != -EAGAIN) return container_fail(L, r, "update_with");
    lua_pushboolean(L, r == 0);
    return 1;
}

void container_many_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"add", many_add},           {"count", many_count},
        {"find", many_find},         {"generation", many_generation},
        {"identity", many_identity}, {"integer", many_integer},
        {"is_closed", many_is_closed}, {"key", many_key},
        {"kind", many_kind},         {"new", many_new},
        {"permute", many_permute},   {"read", many_read},
        {"replace", many_replace},   {"reverse", many_reverse},
        {"snapshot", many_snapshot}, {"take_out", many_take_out},
        {"value", many_value},       {"write", many_write},
        {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
