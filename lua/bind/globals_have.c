/* What a receiver has of the globals.

   A snapshot is a list of three tables: the values of the globals (weak),
   what they reached, by name, as a number, and the same of the registered
   classes.  The number is a hash over all that a walk finds: contents of
   tables and upvalues of functions, where each function, userdata and
   coroutine counts by a number of its own, since an address is used again.
   Whoever reaches too much has the number false, and counts by identity; a
   value with no inside has true.
   A Connection is never had: a copy closes those that it was not given
   (inherit.h). What reaches one has a number that nothing has later. */
#include <string.h>

#include "bind/bind.h"
#include "bind/connection.h"
#include "bind/globals_impl.h"

enum { SNAP_VALUES = 1, SNAP_PRINTS, SNAP_CLASSES };

/* Key of the registry: numbers of things that have an identity (weak). */
static const char NUMBERS;

/* ---- the walk ------------------------------------------------------- */

typedef struct walk {
    lua_State *L;
    const pack_store *store;
    const void *globals;
    uint64_t hash;
    int left;       /* how many values more it may meet */
    int functions;  /* stack index of the list of what is found, or 0 */
    int numbers;    /* stack index of NUMBERS */
    int seen;       /* table: thing -> number of its turn; nil until needed */
    int queue;      /* table: turn -> thing */
    lua_Integer queued;
    bool connection; /* it has met one */
} walk;

static void mix(walk *w, uint64_t x) {
    w->hash = (w->hash ^ x) * 0x9e3779b97f4a7c15u;
    w->hash ^= w->hash >> 29;
}

/* The thing on top by a number that no other has or had. */
static uint64_t number_of(walk *w) {
    lua_State *L = w->L;
    lua_pushvalue(L, -1);
    if (lua_rawget(L, w->numbers) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_rawgeti(L, w->numbers, 0);
        lua_Integer n = lua_tointeger(L, -1) + 1;
        lua_pop(L, 1);
        lua_pushinteger(L, n);
        lua_rawseti(L, w->numbers, 0);
        lua_pushvalue(L, -1);
        lua_pushinteger(L, n);
        lua_rawset(L, w->numbers);
        return (uint64_t)n;
    }
    uint64_t n = (uint64_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return n;
}

/* The table or Lua function on top is to be looked into, once. */
static void enqueue(walk *w) {
    lua_State *L = w->L;
    if (lua_isnil(L, w->seen)) {
        lua_newtable(L);
        lua_replace(L, w->seen);
        lua_newtable(L);
        lua_replace(L, w->queue);
    }
    lua_pushvalue(L, -1);
    if (lua_rawget(L, w->seen) == LUA_TNIL) {
        lua_pushvalue(L, -2);
        lua_rawseti(L, w->queue, ++w->queued);
        lua_pushvalue(L, -2);
        lua_pushinteger(L, w->queued);
        lua_rawset(L, w->seen);
        mix(w, (uint64_t)w->queued);
    } else {
        mix(w, (uint64_t)lua_tointeger(L, -1));
    }
    lua_pop(L, 1);
}

static const void *globals_pointer(lua_State *L) {
    lua_pushglobaltable(L);
    const void *globals = lua_topointer(L, -1);
    lua_pop(L, 1);
    return globals;
}

/* Modules and the globals have no inside here. */
static bool goes_by_name(lua_State *L, const pack_store *store,
                         const void *globals, int value) {
    size_t id;
    const void *key = lua_topointer(L, value);
    return key == globals ||
           pack_names_find(L, store, key, &id) == NAME_VALUE;
}

static void meet_string(walk *w) {
    size_t length;
    const char *text = lua_tolstring(w->L, -1, &length);
    w->left -= (int)(length / 64 < (1 << 20) ? length / 64 : 1 << 20);
    if (w->left >= 0) mix(w, mp_hash(text, length));
}

static void meet_number(walk *w) {
    if (lua_isinteger(w->L, -1)) {
        mix(w, (uint64_t)lua_tointeger(w->L, -1));
        return;
    }
    double d = lua_tonumber(w->L, -1);
    mix(w, mp_hash(&d, sizeof d));
}

/* The value on top is a part of the whole. */
static void meet(walk *w) {
    lua_State *L = w->L;
    int type = lua_type(L, -1);
    w->left--;
    mix(w, (uint64_t)type);
    switch (type) {
    case LUA_TNIL: break;
    case LUA_TBOOLEAN: mix(w, (uint64_t)lua_toboolean(L, -1)); break;
    case LUA_TNUMBER: meet_number(w); break;
    case LUA_TSTRING: meet_string(w); break;
    case LUA_TLIGHTUSERDATA:
        mix(w, (uint64_t)(uintptr_t)lua_touserdata(L, -1));
        break;
    case LUA_TTABLE:
        if (goes_by_name(L, w->store, w->globals, lua_gettop(L)))
            mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
        else
            enqueue(w);
        break;
    case LUA_TFUNCTION:
        mix(w, number_of(w));
        if (!lua_iscfunction(L, -1)) enqueue(w);
        break;
    default:
        mix(w, number_of(w));
        w->connection |= connection_at(L, -1) != NULL;
    }
}

static void look_into_table(walk *w) {
    lua_State *L = w->L;
    int table = lua_gettop(L);
    if (lua_getmetatable(L, table)) {
        meet(w);
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    while (w->left >= 0 && lua_next(L, table)) {
        meet(w);
        lua_pop(L, 1);
        w->left++; /* a key and its value are one */
        meet(w);
    }
    lua_settop(L, table);
}

static void look_into_function(walk *w) {
    lua_State *L = w->L;
    int function = lua_gettop(L);
    if (w->functions) {
        globals_of_function(L, function);
        if (lua_istable(L, -1))
            globals_add_function(L, function, w->functions);
        lua_settop(L, function);
    }
    for (int i = 1; lua_getupvalue(L, function, i); i++) {
        meet(w);
        lua_pop(L, 1);
    }
}

static void look_into(walk *w) {
    if (lua_istable(w->L, -1))
        look_into_table(w);
    else
        look_into_function(w);
}

/* Walks from the table or Lua function at `value`; true: `*hash` is over all
   of it, false: it reaches too much, or (then 0) a Connection. The first is
   looked into at once: most are functions without any upvalue of interest,
   which need no queue. */
static bool look(lua_State *L, int value, int functions, uint64_t *hash) {
    luaL_checkstack(L, 20, "globals");
    int top = lua_gettop(L);
    walk w = {.L = L, .left = GLOBALS_SMALL, .functions = functions,
              .numbers = top + 2, .seen = top + 3, .queue = top + 4};
    w.store = pack_store_push(L);
    w.globals = globals_pointer(L);
    globals_weak(L, &NUMBERS, "k");
    lua_pushnil(L);
    lua_pushnil(L);
    lua_pushvalue(L, value);
    if (lua_isfunction(L, -1)) mix(&w, number_of(&w));
    look_into(&w);
    lua_pop(L, 1);
    for (lua_Integer i = 1; i <= w.queued && w.left >= 0; i++) {
        lua_rawgeti(L, w.queue, i);
        look_into(&w);
        lua_pop(L, 1);
    }
    lua_settop(L, top);
    *hash = w.connection ? 0 : w.hash | 1;
    return w.left >= 0 && !w.connection;
}

void globals_reached(lua_State *L, int value, int functions) {
    uint64_t hash;
    if (globals_inside(L, value)) look(L, value, functions, &hash);
}

/* Pushes what stands for the inside of the value at `value`. */
static void push_print(lua_State *L, const pack_store *store, int value) {
    uint64_t hash = 0;
    if (connection_at(L, value))
        lua_pushinteger(L, 0);
    else if (!globals_inside(L, value) ||
        goes_by_name(L, store, globals_pointer(L), value))
        lua_pushboolean(L, 1);
    else if (look(L, value, 0, &hash) || hash == 0)
        lua_pushinteger(L, (lua_Integer)hash);
    else
        lua_pushboolean(L, 0);
}

/* Is the inside of the value at `value` as the print on top says (popped)? */
static bool same_inside(lua_State *L, int value, int functions) {
    uint64_t hash;
    bool any = lua_isboolean(L, -1) && !connection_at(L, value);
    lua_Integer before = lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (!globals_inside(L, value)) return any;
    return any || (look(L, value, functions, &hash) &&
                   hash == (uint64_t)before);
}

/* ---- snapshots ------------------------------------------------------ */

void globals_push_classes(lua_State *L) {
    pack_store_push(L);
    lua_getiuservalue(L, -1, STORE_CLASSES);
    lua_remove(L, -2);
}

/* An entry of the registered classes as one value: the walk sees its
   metatable and its functions. Those that modules register under their own
   name do not change. */
static void snap_classes(lua_State *L, const pack_store *store, int to) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    globals_push_classes(L);
    int loaded = lua_gettop(L) - 1;
    lua_pushnil(L);
    while (lua_next(L, loaded + 1)) {
        int name = loaded + 2, entry = loaded + 3;
        if (lua_type(L, name) == LUA_TSTRING) {
            lua_pushvalue(L, name);
            lua_pushvalue(L, name);
            if (lua_rawget(L, loaded) != LUA_TNIL)
                lua_pushboolean(L, 1);
            else
                push_print(L, store, entry);
            lua_remove(L, -2);
            lua_rawset(L, to);
        }
        lua_settop(L, name);
    }
    lua_settop(L, loaded - 1);
}

static void snap_globals(lua_State *L, const pack_store *store, int values,
                         int prints) {
    lua_pushglobaltable(L);
    int globals = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, globals)) {
        int value = lua_gettop(L);
        lua_pushvalue(L, value - 1);
        lua_pushvalue(L, value);
        lua_rawset(L, values);
        lua_pushvalue(L, value - 1);
        push_print(L, store, value);
        lua_rawset(L, prints);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

void globals_snapshot(lua_State *L) {
    luaL_checkstack(L, 20, "globals");
    pack_store *store = pack_store_push(L);
    pack_names_refresh(L, store);
    lua_pop(L, 1);
    lua_createtable(L, SNAP_CLASSES, 0);
    int snapshot = lua_gettop(L);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_newtable(L);
    lua_newtable(L);
    snap_globals(L, store, snapshot + 1, snapshot + 2);
    snap_classes(L, store, snapshot + 3);
    for (int i = SNAP_CLASSES; i >= SNAP_VALUES; i--)
        lua_rawseti(L, snapshot, i);
}

/* ---- fresh states --------------------------------------------------- */

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const functions_of_lua[] = {
    "assert", "collectgarbage", "dofile", "error", "getmetatable", "ipairs",
    "load", "loadfile", "next", "pairs", "pcall", "print", "rawequal",
    "rawget", "rawlen", "rawset", "require", "select", "setmetatable",
    "tonumber", "tostring", "type", "warn", "xpcall"};
static const char *const modules_of_lua[] = {
    "_G", "coroutine", "debug", "io", "math", "os", "package", "string",
    "table", "utf8"};
/* What each state makes for itself. */
static const char *const own[] = {"_VERSION", "arg"};

static bool is_among(const char *text, size_t length,
                     const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strlen(list[i]) == length && memcmp(text, list[i], length) == 0)
            return true;
    return false;
}

bool globals_of_lua(const char *text, size_t length) {
    return is_among(text, length, functions_of_lua, COUNT(functions_of_lua));
}

bool globals_wire(const unsigned char *wire, size_t length,
                  globals_name *name) {
    static const unsigned char globals[] = {2, '_', 'G'};
    const unsigned char *end = wire + length;
    uint64_t parts = 0, n = 0;
    if (*wire != TAG_NAME) return false;
    const unsigned char *p = mp_varint_get(wire + 1, end, &parts);
    if (!p || parts < 2 || (size_t)(end - p) < sizeof globals ||
        memcmp(p, globals, sizeof globals) != 0)
        return false;
    p = mp_varint_get(p + sizeof globals, end, &n);
    if (!p || n > (size_t)(end - p)) return false;
    *name = (globals_name){(const char *)p, (size_t)n};
    return true;
}

/* Is the C function at `value` the one that Lua gives this name? */
static bool is_of_lua(lua_State *L, globals_name name, int value) {
    size_t id, length;
    globals_name own_name;
    pack_store *store = pack_store_push(L);
    lua_pop(L, 1);
    if (!lua_iscfunction(L, value) ||
        pack_names_find(L, store, lua_topointer(L, value), &id) < 0)
        return false;
    pack_names_push_wire(L, id);
    const char *wire = lua_tolstring(L, -1, &length);
    bool same = globals_wire((const unsigned char *)wire, length,
                             &own_name) &&
                own_name.length == name.length &&
                memcmp(own_name.text, name.text, name.length) == 0;
    lua_pop(L, 1);
    return same;
}

static bool fresh_had(lua_State *L, int name, int value) {
    globals_name n;
    n.text = lua_tolstring(L, name, &n.length);
    if (is_among(n.text, n.length, own, COUNT(own))) return true;
    if (globals_of_lua(n.text, n.length)) return is_of_lua(L, n, value);
    if (!is_among(n.text, n.length, modules_of_lua, COUNT(modules_of_lua)))
        return lua_isnil(L, value);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, name);
    lua_rawget(L, -2);
    bool same = lua_rawequal(L, -1, value);
    lua_pop(L, 2);
    return same;
}

/* ---- asking --------------------------------------------------------- */

/* Pushes field `name` of table `which` of the snapshot. */
static int push_of(lua_State *L, int snapshot, int which, int name) {
    lua_rawgeti(L, snapshot, which);
    lua_pushvalue(L, name);
    int type = lua_rawget(L, -2);
    lua_remove(L, -2);
    return type;
}

bool globals_same(lua_State *L, int snapshot, int name, int value) {
    if (!snapshot) return false;
    push_of(L, snapshot, SNAP_VALUES, name);
    bool same = lua_rawequal(L, -1, value);
    lua_pop(L, 1);
    return same;
}

bool globals_had(lua_State *L, int snapshot, int name, int value,
                 int functions) {
    if (!snapshot) return fresh_had(L, name, value);
    if (!globals_same(L, snapshot, name, value)) return false;
    int type = push_of(L, snapshot, SNAP_PRINTS, name);
    if (type == LUA_TNIL) {
        lua_pop(L, 1);
        return true; /* not there then, nor now */
    }
    if (lua_isnil(L, value)) {
        lua_pop(L, 1);
        return false;
    }
    return same_inside(L, value, functions);
}

bool globals_class_had(lua_State *L, int snapshot, int name, int entry,
                       int functions) {
    if (strcmp(lua_tostring(L, name), PACK_RESERVED) == 0) return true;
    if (!snapshot) return false;
    if (push_of(L, snapshot, SNAP_CLASSES, name) == LUA_TNIL) {
        lua_pop(L, 1);
        return false;
    }
    return same_inside(L, entry, functions);
}
