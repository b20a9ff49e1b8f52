/* Names for what cannot or should not be copied: loaded modules, classes,
   C functions, registered metatables (pack_class.c).

   A name is a path of string keys from package.loaded.  Of several the
   shortest is taken, then the least in its wire form, so that the same
   thing has the same name in every run.  Addresses of named things lie in
   a hash; the things themselves are held weakly, and a hit counts only
   while the thing is there: addresses are used again.  A scan is done
   again when package.loaded has changed and whenever something that must
   have a name has none. */
#include <string.h>

#include "bind/bind.h"
#include "bind/globals_impl.h"
#include "bind/pack_impl.h"

void pack_names_push_wire(lua_State *L, size_t id) {
    pack_store_value(L, STORE_PATHS);
    lua_rawgeti(L, -1, (lua_Integer)id + 1);
    lua_remove(L, -2);
}

int pack_names_verify(lua_State *L, const pack_store *s, size_t id,
                      const void *key) {
    pack_store_value(L, STORE_OBJECTS);
    lua_rawgeti(L, -1, (lua_Integer)id + 1);
    bool same = lua_topointer(L, -1) == key;
    lua_pop(L, 2);
    return same ? (int)s->names.entries[id].info : -1;
}

/* ---- wire form ------------------------------------------------------ */

/* Pushes the path at `idx` (wire form) with the key on top (popped) at its
   end. A path has a tag, the number of its parts and the parts. */
static void extend(lua_State *L, int idx) {
    size_t path_len, len;
    const unsigned char *path =
        (const unsigned char *)lua_tolstring(L, idx, &path_len);
    const char *key = lua_tolstring(L, -1, &len);
    unsigned char head[2 * MP_VARINT_MAX];
    uint64_t parts = 0;
    const unsigned char *rest =
        mp_varint_get(path + 1, path + path_len, &parts);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addchar(&b, (char)TAG_NAME);
    luaL_addlstring(&b, (char *)head,
                    (size_t)(mp_varint_put(head, parts + 1) - head));
    luaL_addlstring(&b, (const char *)rest,
                    path_len - (size_t)(rest - path));
    luaL_addlstring(&b, (char *)head,
                    (size_t)(mp_varint_put(head, len) - head));
    luaL_addlstring(&b, key, len);
    luaL_pushresult(&b);
    lua_remove(L, -2);
}

/* Pushes the wire form of a registered name at `idx`. */
static void class_wire(lua_State *L, int idx) {
    unsigned char head[MP_VARINT_MAX];
    size_t len;
    const char *name = lua_tolstring(L, idx, &len);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addchar(&b, (char)TAG_REGNAME);
    luaL_addlstring(&b, (char *)head,
                    (size_t)(mp_varint_put(head, len) - head));
    luaL_addlstring(&b, name, len);
    luaL_pushresult(&b);
}

/* Is the path one through a global that is not Lua's own? */
static bool through_globals(const char *path, size_t len) {
    globals_name name;
    return globals_wire((const unsigned char *)path, len, &name) &&
           !globals_of_lua(name.text, name.length);
}

/* Globals differ from process to process: any other path before theirs.
   Then the shorter path first, then the lesser bytes. */
static bool better(lua_State *L, int a, int b) {
    size_t alen, blen;
    const char *x = lua_tolstring(L, a, &alen);
    const char *y = lua_tolstring(L, b, &blen);
    bool xglobal = through_globals(x, alen);
    if (xglobal != through_globals(y, blen)) return !xglobal;
    uint64_t n = 0, m = 0;
    mp_varint_get((const unsigned char *)x + 1,
                  (const unsigned char *)x + alen, &n);
    mp_varint_get((const unsigned char *)y + 1,
                  (const unsigned char *)y + blen, &m);
    if (n != m || alen != blen)
        return n != m ? n < m : alen < blen;
    return memcmp(x, y, alen) < 0;
}

/* ---- scanning ------------------------------------------------------- */

/* The tables of the store on the stack during a scan. */
typedef struct scan {
    pack_store *store;
    int paths, objects;
} scan;

/* Gives the thing at `thing` the name with wire form on top (popped),
   unless it has a better one. */
static void offer(lua_State *L, const scan *s, int thing, int kind) {
    size_t id;
    const void *key = lua_topointer(L, thing);
    int has = pack_names_find(L, s->store, key, &id);
    if (has < 0) {
        if (id == PACK_MEMO_NONE) {
            id = s->store->names.count;
            if (!pack_memo_add(&s->store->names, (uintptr_t)key, 0))
                luaL_error(L, "not enough memory");
        }
        lua_pushvalue(L, thing);
        lua_rawseti(L, s->objects, (lua_Integer)id + 1);
    } else {
        lua_rawgeti(L, s->paths, (lua_Integer)id + 1);
        bool keep = has == NAME_CLASS ||
                    (kind != NAME_CLASS && !better(L, -2, -1));
        lua_pop(L, 1);
        if (keep) {
            lua_pop(L, 1);
            return;
        }
    }
    s->store->names.entries[id].info = (uint64_t)kind;
    lua_rawseti(L, s->paths, (lua_Integer)id + 1);
}

static scan begin_scan(lua_State *L, pack_store *store) {
    luaL_checkstack(L, 20, "pickling");
    pack_store_value(L, STORE_PATHS);
    pack_store_value(L, STORE_OBJECTS);
    return (scan){store, lua_gettop(L) - 1, lua_gettop(L)};
}

bool pack_class_like(lua_State *L) {
    static const char *const fields[] = {
        "__index", "__name", "__newindex", "__call", "__tostring", "__gc",
        "__close", "__eq", "__lt", "__le", "__len", "__concat", "__add",
        "__sub", "__mul", "__div", "__idiv", "__mod", "__pow", "__unm",
        "__band", "__bor", "__bxor", "__bnot", "__shl", "__shr", "__mode",
        "__metatable", "__pairs", "__reduce", "__getstate"};
    bool found = false;
    for (size_t i = 0; !found && i < sizeof fields / sizeof *fields; i++) {
        lua_pushstring(L, fields[i]);
        found = lua_rawget(L, -2) != LUA_TNIL;
        lua_pop(L, 1);
    }
    return found;
}

bool pack_names_class(lua_State *L, size_t id) {
    pack_store_value(L, STORE_OBJECTS);
    lua_rawgeti(L, -1, (lua_Integer)id + 1);
    bool is = lua_istable(L, -1) && pack_class_like(L);
    lua_pop(L, 2);
    return is;
}

void pack_names_set_nameless(lua_State *L) {
    pack_store_value(L, STORE_NAMELESS);
    lua_pushvalue(L, -2);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

bool pack_names_nameless(lua_State *L) {
    pack_store_value(L, STORE_NAMELESS);
    lua_pushvalue(L, -2);
    bool is = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 2);
    return is;
}

static bool has_identity(lua_State *L, int idx) {
    int type = lua_type(L, idx);
    return type == LUA_TTABLE || type == LUA_TFUNCTION ||
           type == LUA_TUSERDATA;
}

/* Names the members of the table at `table`, whose path is at `path`: C
   functions, and tables. With `deeper` above 0, enters the tables there
   instead, each with its best path. */
static void scan_members(lua_State *L, const scan *s, int table, int path,
                         int deeper) {
    lua_pushnil(L);
    while (lua_next(L, table)) {
        bool fits = lua_type(L, -2) == LUA_TSTRING &&
                    (lua_istable(L, -1) || lua_iscfunction(L, -1));
        if (fits) {
            int value = lua_gettop(L);
            lua_pushvalue(L, -2);
            extend(L, path);
            if (!lua_istable(L, value)) {
                offer(L, s, value, NAME_VALUE);
            } else if (!deeper) {
                offer(L, s, value, NAME_META);
            } else {
                lua_pushvalue(L, value);
                bool known = lua_rawget(L, deeper) != LUA_TNIL &&
                             !better(L, -2, -1);
                lua_pop(L, 1);
                if (!known) {
                    lua_pushvalue(L, value);
                    lua_insert(L, -2);
                    lua_rawset(L, deeper);
                }
            }
            lua_settop(L, value);
        }
        lua_pop(L, 1);
    }
}

/* Pushes the path of no parts. */
static void push_root(lua_State *L) {
    const char root[] = {(char)TAG_NAME, 0};
    lua_pushlstring(L, root, sizeof root);
}

/* What package.loaded holds, as a number that changes with it: as long as
   what it was made of is there (keep_loaded), addresses are not used again. */
static uint64_t fingerprint(lua_State *L) {
    uint64_t sum = 0;
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        const void *pair[2] = {lua_topointer(L, -2), lua_topointer(L, -1)};
        sum += mp_hash(pair, sizeof pair);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return sum;
}

/* Keeps what the next fingerprints are compared with. */
static void keep_loaded(lua_State *L) {
    pack_store_push(L);
    lua_newtable(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    int loaded = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, loaded)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, loaded - 1);
    }
    lua_pop(L, 1);
    lua_setiuservalue(L, -2, STORE_LOADED);
    lua_pop(L, 1);
}

/* Names what was registered, the reserved name included. */
static void scan_classes(lua_State *L, const scan *s) {
    pack_store_value(L, STORE_CLASSES);
    int classes = lua_gettop(L);
    luaL_getmetatable(L, PACK_RESERVED);
    if (lua_istable(L, -1)) {
        lua_createtable(L, CLASS_NAME, 0);
        lua_pushvalue(L, -2);
        lua_rawseti(L, -2, CLASS_META);
        lua_pushliteral(L, PACK_RESERVED);
        lua_rawseti(L, -2, CLASS_NAME);
        lua_setfield(L, classes, PACK_RESERVED);
    }
    lua_settop(L, classes);
    lua_pushnil(L);
    while (lua_next(L, classes)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            class_wire(L, lua_gettop(L) - 1);
            lua_rawgeti(L, -2, CLASS_META);
            lua_insert(L, -2);
            offer(L, s, lua_gettop(L) - 1, NAME_CLASS);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Names the values of package.loaded and itself. */
static void scan_modules(lua_State *L, const scan *s, int loaded) {
    push_root(L);
    int root = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, loaded)) {
        if (lua_type(L, -2) == LUA_TSTRING && has_identity(L, -1)) {
            lua_pushvalue(L, -2);
            extend(L, root);
            offer(L, s, lua_gettop(L) - 1, NAME_VALUE);
        }
        lua_pop(L, 1);
    }
    lua_pushliteral(L, "package");
    extend(L, root);
    lua_pushliteral(L, "loaded");
    extend(L, root + 1);
    offer(L, s, loaded, NAME_VALUE);
    lua_settop(L, root - 1);
}

/* Names the members of all modules. */
static void scan_all_members(lua_State *L, const scan *s, int loaded,
                             int deeper) {
    push_root(L);
    int root = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, loaded)) {
        if (lua_type(L, -2) == LUA_TSTRING && lua_istable(L, -1) &&
            !lua_rawequal(L, -1, loaded)) {
            int module = lua_gettop(L);
            lua_pushvalue(L, -2);
            extend(L, root);
            scan_members(L, s, module, module + 1, deeper);
            lua_settop(L, module);
        }
        lua_pop(L, 1);
    }
    lua_settop(L, root - 1);
}

/* Gives the store on top a new weak table. */
static void set_weak(lua_State *L, int which, const char *mode) {
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushstring(L, mode);
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_setiuservalue(L, -2, which);
}

/* Forgets all names but keeps the arrays. */
static void clear_names(lua_State *L, pack_store *store) {
    pack_memo_reset(&store->names, PACK_KEEP);
    pack_store_push(L);
    lua_newtable(L);
    lua_setiuservalue(L, -2, STORE_PATHS);
    set_weak(L, STORE_OBJECTS, "v");
    lua_pop(L, 1);
}

void pack_names_scan(lua_State *L, pack_store *store) {
    int top = lua_gettop(L);
    luaL_checkstack(L, 20, "pickling");
    uint64_t now = fingerprint(L);
    clear_names(L, store);
    scan s = begin_scan(L, store);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    int loaded = lua_gettop(L);
    scan_classes(L, &s);
    scan_modules(L, &s, loaded);
    scan_all_members(L, &s, loaded, 0);
    keep_loaded(L);
    store->fingerprint = now;
    lua_settop(L, top);
}

void pack_names_refresh(lua_State *L, pack_store *store) {
    luaL_checkstack(L, 20, "pickling");
    if (fingerprint(L) == store->fingerprint)
        return;
    pack_names_scan(L, store);
    pack_store_push(L);
    set_weak(L, STORE_NAMELESS, "k");
    lua_pop(L, 1);
}

/* Breadth first: `level` maps the tables of one depth to their paths; those
   of `seen` (modules, lesser depths) are not entered again. */
void pack_names_scan_deep(lua_State *L, pack_store *store) {
    int top = lua_gettop(L);
    scan s = begin_scan(L, store);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    int loaded = lua_gettop(L);
    lua_newtable(L);
    int seen = loaded + 1;
    lua_pushnil(L);
    while (lua_next(L, loaded)) {
        if (lua_istable(L, -1)) {
            lua_pushboolean(L, 1);
            lua_rawset(L, seen);
        } else {
            lua_pop(L, 1);
        }
    }
    lua_pushvalue(L, loaded);
    lua_pushboolean(L, 1);
    lua_rawset(L, seen);
    lua_newtable(L);
    int level = seen + 1;
    scan_all_members(L, &s, loaded, level);
    for (bool more = true; more;) {
        more = false;
        lua_newtable(L);
        int next = level + 1;
        lua_pushnil(L);
        while (lua_next(L, level)) {
            int table = lua_gettop(L) - 1;
            lua_pushvalue(L, table);
            if (lua_rawget(L, seen) == LUA_TNIL) {
                lua_pushvalue(L, table);
                lua_pushboolean(L, 1);
                lua_rawset(L, seen);
                scan_members(L, &s, table, table + 1, next);
                more = true;
            }
            lua_settop(L, table);
        }
        lua_replace(L, level);
    }
    lua_settop(L, top);
}

void pack_names_global(lua_State *L, pack_store *store, int name,
                       int value) {
    static const char globals[] = {(char)TAG_NAME, 1, 2, '_', 'G'};
    int top = lua_gettop(L);
    scan s = begin_scan(L, store);
    lua_pushlstring(L, globals, sizeof globals);
    lua_pushvalue(L, name);
    extend(L, lua_gettop(L) - 1);
    offer(L, &s, value, NAME_META);
    lua_settop(L, top);
}

void pack_names_add_class(lua_State *L, pack_store *store, int name,
                          int metatable) {
    int top = lua_gettop(L);
    scan s = begin_scan(L, store);
    class_wire(L, name);
    offer(L, &s, metatable, NAME_CLASS);
    lua_settop(L, top);
}

/* ---- mp's own functions --------------------------------------------- */

/* Depth of tables in a module: module.Class._get.name */
#define OWN_DEPTH 3

/* Is the value on top a Lua function of ours? */
static bool own_function(lua_State *L) {
    lua_Debug ar;
    if (!lua_isfunction(L, -1) || lua_iscfunction(L, -1))
        return false;
    lua_pushvalue(L, -1);
    lua_getinfo(L, ">S", &ar);
    return bind_is_ours(L, ar.source);
}

/* Names our functions in the table at `table`, and in its tables. */
static void scan_own(lua_State *L, const scan *s, int table, int path,
                     int depth) {
    luaL_checkstack(L, 20, "pickling");
    lua_pushnil(L);
    while (lua_next(L, table)) {
        int value = lua_gettop(L);
        bool inner = lua_istable(L, value) && depth > 1;
        if (lua_type(L, value - 1) == LUA_TSTRING &&
            (inner || own_function(L))) {
            lua_pushvalue(L, value - 1);
            extend(L, path);
            if (inner)
                scan_own(L, s, value, value + 1, depth - 1);
            else
                offer(L, s, value, NAME_VALUE);
        }
        lua_settop(L, value - 1);
    }
}

void pack_names_scan_own(lua_State *L, pack_store *store) {
    int top = lua_gettop(L);
    scan s = begin_scan(L, store);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    int loaded = lua_gettop(L);
    push_root(L);
    lua_pushnil(L);
    while (lua_next(L, loaded)) {
        int module = lua_gettop(L);
        const char *name = lua_type(L, module - 1) == LUA_TSTRING
                               ? lua_tostring(L, module - 1)
                               : "";
        if (lua_istable(L, module) && (strcmp(name, "mp") == 0 ||
                                       strncmp(name, "mp.", 3) == 0)) {
            lua_pushvalue(L, module - 1);
            extend(L, loaded + 1);
            scan_own(L, &s, module, module + 1, OWN_DEPTH);
        }
        lua_settop(L, module - 1);
    }
    lua_settop(L, top);
}
