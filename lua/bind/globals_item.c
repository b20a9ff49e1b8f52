/* What is missing as items of a bundle: calls of core.define that the message
   carries as REDUCE, made of lists of arguments.

   Of what cannot be pickled, tables and classes go without those fields, and
   other values not at all: a stand-in goes in their place. */
#include <string.h>

#include "bind/bind.h"
#include "bind/code.h"
#include "bind/globals_impl.h"

/* ---- items ---------------------------------------------------------- */

/* The __reduce of an item, a list of arguments for core.define. */
static int reduce_item(lua_State *L) {
    lua_settop(L, 1);
    lua_getfield(L, 1, "n");
    int n = (int)lua_tointeger(L, -1);
    luaL_checkstack(L, n + 4, "globals");
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, "mp.core");
    lua_getfield(L, -1, "define");
    for (int i = 1; i <= n; i++) lua_rawgeti(L, 1, i);
    return 1 + n;
}

void globals_make_item(lua_State *L, int kind, int n) {
    int first = lua_gettop(L) - n + 1;
    lua_createtable(L, n + 1, 1);
    lua_insert(L, first);
    for (int i = n; i >= 1; i--) lua_rawseti(L, first, i + 1);
    lua_pushinteger(L, kind);
    lua_rawseti(L, first, 1);
    lua_pushinteger(L, n + 1);
    lua_setfield(L, first, "n");
    if (luaL_newmetatable(L, "mp.globals.item")) {
        lua_pushcfunction(L, reduce_item);
        lua_setfield(L, -2, "__reduce");
    }
    lua_setmetatable(L, first);
}

void globals_need_parts(bundle *b) {
    if (!lua_isnil(b->L, b->parts)) return;
    globals_need_table(b->L, b->parts);
    for (int i = PART_DECLARED; i < PARTS; i++) {
        lua_newtable(b->L);
        lua_rawseti(b->L, b->parts, i);
    }
}

void globals_add_item(bundle *b, int part) {
    lua_State *L = b->L;
    globals_need_parts(b);
    lua_rawgeti(L, b->parts, part);
    lua_insert(L, -2);
    globals_append(L, lua_gettop(L) - 1);
    lua_pop(L, 1);
}

/* ---- stand-ins ------------------------------------------------------ */

/* Replaces the error of a trial on top by its text, with « read by function
   'job' (script.lua:12)» behind the path. */
static void make_reason(lua_State *L, int reader) {
    int error = lua_gettop(L);
    if (bind_is_error(L, error)) {
        lua_getfield(L, error, "message");
        lua_replace(L, error);
    }
    const char *text = luaL_tolstring(L, error, NULL);
    const char *global = strstr(text, ": global '");
    const char *advice = global ? strstr(global, "; ") : NULL;
    size_t length = advice ? (size_t)(advice - text) : strlen(text);
    if (lua_isfunction(L, reader)) {
        lua_pushlstring(L, text, length);
        code_describe(L, reader);
        lua_pushfstring(L, "%s read by %s%s", lua_tostring(L, -2),
                        lua_tostring(L, -1), advice ? advice : "");
    }
    lua_replace(L, error);
    lua_settop(L, error);
}

/* Replaces the reason on top by an item that stands in for the value at
   `value`. */
static void make_missing(lua_State *L, int value) {
    lua_pushboolean(L, lua_isfunction(L, value));
    globals_make_item(L, DEFINE_MISSING, 2);
}

/* Is the global the very thing that the receiver has, only changed? */
static bool is_same(bundle *b, const wanted *g) {
    return !g->class && globals_same(b->L, b->snapshot, g->name, g->value);
}

/* The same for field `key` of a global: what the receiver has of it may do. */
static void make_missing_field(bundle *b, const wanted *g, int key,
                               int value) {
    lua_State *L = b->L;
    if (!is_same(b, g) || lua_type(L, key) > LUA_TSTRING) {
        make_missing(L, value);
        return;
    }
    lua_pushboolean(L, lua_isfunction(L, value));
    lua_pushvalue(L, g->name);
    lua_pushvalue(L, key);
    globals_make_item(L, DEFINE_MISSING, 4);
}

/* Pushes «global 'name'» or «class 'name'», and for a key at `key` (0:
   none) «.key». */
static const char *push_what(lua_State *L, int name, bool class, int key) {
    const char *kind = class ? "class" : "global";
    if (!key)
        return lua_pushfstring(L, "%s '%s'", kind, lua_tostring(L, name));
    if (lua_type(L, key) == LUA_TSTRING)
        return lua_pushfstring(L, "%s '%s'.%s", kind, lua_tostring(L, name),
                               lua_tostring(L, key));
    lua_pushfstring(L, "%s '%s'[%s]", kind, lua_tostring(L, name),
                    luaL_tolstring(L, key, NULL));
    lua_remove(L, -2);
    return lua_tostring(L, -1);
}

/* Pushes a copy of the table at `table` in which stand-ins are for the
   fields that cannot be pickled. */
static void push_mended(bundle *b, const wanted *g, int table) {
    lua_State *L = b->L;
    lua_newtable(L);
    int copy = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, table)) {
        int key = copy + 1, value = copy + 2;
        if (lua_type(L, value) > LUA_TSTRING) {
            push_what(L, g->name, g->class, key);
            lua_pushvalue(L, value);
            if (!globals_try(b, lua_tostring(L, value + 1), 1)) {
                make_reason(L, g->reader);
                make_missing_field(b, g, key, value);
                lua_replace(L, value);
            }
            lua_settop(L, value);
        }
        lua_pushvalue(L, key);
        lua_insert(L, value);
        lua_rawset(L, copy);
    }
}

/* Adds a global that is the value on top (popped). */
static void add_value(bundle *b, const wanted *g, int part) {
    lua_pushvalue(b->L, g->name);
    lua_insert(b->L, -2);
    globals_make_item(b->L, DEFINE_VALUE, 2);
    globals_add_item(b, part);
}

/* With the reason on top (popped): a stand-in is for the global, unless the
   receiver has what it was. */
static void add_missing(bundle *b, const wanted *g) {
    if (is_same(b, g)) {
        lua_pop(b->L, 1);
        return;
    }
    make_missing(b->L, g->value);
    add_value(b, g, PART_FUNCTIONS);
}

/* ---- classes -------------------------------------------------------- */

/* Pushes a copy of the table at `table`, or what is there if it is none. */
static void push_copy(lua_State *L, int table) {
    if (!lua_istable(L, table)) {
        lua_pushvalue(L, table);
        return;
    }
    lua_newtable(L);
    int copy = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, table)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, copy);
    }
}

/* Pushes the metatable of the table at `table` as it travels: by its name if
   it has one, else as a copy; nil if there is none. */
static void push_meta(lua_State *L, int table) {
    size_t id;
    if (!lua_getmetatable(L, table)) {
        lua_pushnil(L);
        return;
    }
    const pack_store *store = pack_store_push(L);
    lua_pop(L, 1);
    if (pack_names_find(L, store, lua_topointer(L, -1), &id) >= 0 &&
        pack_names_class(L, id))
        return;
    push_copy(L, lua_gettop(L));
    lua_remove(L, -2);
}

/* Adds a declaration of the kind, under the name. */
static void add_declaration(bundle *b, const wanted *g, int kind) {
    lua_pushvalue(b->L, g->name);
    globals_make_item(b->L, kind, 1);
    globals_add_item(b, PART_DECLARED);
}

/* With a table's copy, its metatable and `n` - 2 values more on top (popped):
   adds what fills the class, mended if need be: of the other values none
   goes then if one cannot. */
static void add_fill(bundle *b, const wanted *g, int kind, int n) {
    lua_State *L = b->L;
    int first = lua_gettop(L) - n + 1;
    const char *what = push_what(L, g->name, g->class, 0);
    for (int i = 0; i < n; i++) lua_pushvalue(L, first + i);
    if (!globals_try(b, what, n)) {
        push_mended(b, g, first);
        lua_replace(L, first);
        lua_settop(L, first + n);
        for (int i = 0; i < n; i++) lua_pushvalue(L, first + i);
        if (!globals_try(b, what, n))
            for (int i = 1; i < n; i++) {
                lua_pushnil(L);
                lua_replace(L, first + i);
            }
    }
    lua_settop(L, first + n - 1);
    lua_pushvalue(L, g->name);
    lua_insert(L, first);
    globals_make_item(L, kind, n + 1);
    globals_add_item(b, PART_FILLED);
}

static void add_class(bundle *b, const wanted *g) {
    add_declaration(b, g, DEFINE_CLASS);
    push_copy(b->L, g->value);
    push_meta(b->L, g->value);
    add_fill(b, g, DEFINE_FILL, 2);
}

/* With a function on top (popped) that tells how to make the class: adds
   what makes it, and what gives it its state. */
static void add_made(bundle *b, const wanted *g) {
    lua_State *L = b->L;
    int first = lua_gettop(L);
    const char *what = push_what(L, g->name, false, 0);
    lua_insert(L, first++);
    lua_pushvalue(L, g->value);
    lua_call(L, 1, LUA_MULTRET);
    int n = lua_gettop(L) - first + 1;
    luaL_checkstack(L, n + 10, "globals");
    for (int i = 0; i < n; i++) lua_pushvalue(L, first + i);
    bool sent = globals_try(b, what, n);
    if (sent && luaL_getmetafield(L, g->value, "__getstate") != LUA_TNIL) {
        lua_pushvalue(L, g->value);
        lua_call(L, 1, 1);
        lua_pushvalue(L, -1);
        sent = globals_try(b, what, 1);
        if (sent) {
            lua_pop(L, 1);
            lua_pushvalue(L, g->name);
            lua_insert(L, -2);
            globals_make_item(L, DEFINE_STATE, 2);
            globals_add_item(b, PART_FILLED);
        }
    }
    if (sent) {
        lua_settop(L, first + n - 1);
        lua_pushvalue(L, g->name);
        lua_insert(L, first);
        globals_make_item(L, DEFINE_BY, n + 1);
        globals_need_table(L, b->makes);
        globals_append(L, b->makes);
    } else {
        make_reason(L, g->reader);
        add_missing(b, g);
    }
    lua_settop(L, first - 2);
}

/* Adds a registered class: its module's own doing if that is loaded under
   its name, else its metatable and functions. */
void globals_add_class(bundle *b, const wanted *g) {
    lua_State *L = b->L;
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, g->name);
    if (lua_rawget(L, -2) == LUA_TTABLE) {
        globals_make_item(L, DEFINE_ALL, 1);
        globals_add_item(b, PART_DECLARED);
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 2);
    add_declaration(b, g, DEFINE_NAMED);
    lua_rawgeti(L, g->value, CLASS_META);
    int meta = lua_gettop(L);
    push_copy(L, meta);
    push_meta(L, meta);
    lua_rawgeti(L, g->value, CLASS_REDUCE);
    lua_rawgeti(L, g->value, CLASS_REBUILD);
    add_fill(b, g, DEFINE_FILL_NAMED, 4);
    lua_pop(L, 1);
}

/* ---- globals -------------------------------------------------------- */

/* Is the table at `table` sent in parts, should it not go as a whole? */
static bool is_plain(lua_State *L, int table) {
    if (!lua_istable(L, table)) return false;
    if (!lua_getmetatable(L, table)) return true;
    lua_pop(L, 1);
    return false;
}

/* The value goes by the global's own name, which the receiver lacks. */
static void add_nameless(bundle *b, const wanted *g) {
    lua_State *L = b->L;
    if (!lua_istable(L, g->value)) {
        push_what(L, g->name, false, 0);
        lua_pushfstring(L, "cannot pickle a C function: %s; it is in no "
                        "loaded module, so it has no name to travel by",
                        lua_tostring(L, -1));
        make_reason(L, g->reader);
        lua_remove(L, -2);
        add_missing(b, g);
        return;
    }
    if (lua_getmetatable(L, g->value)) {
        lua_pushliteral(L, "__reduce");
        bool made = lua_rawget(L, -2) == LUA_TFUNCTION;
        lua_remove(L, -2);
        if (made) {
            add_made(b, g);
            return;
        }
        lua_pop(L, 1);
    }
    add_class(b, g);
}

static void keep_size(bundle *b, const wanted *g) {
    globals_need_table(b->L, b->sizes);
    lua_pushvalue(b->L, g->name);
    lua_pushinteger(b->L, (lua_Integer)b->size);
    lua_rawset(b->L, b->sizes);
}

/* A class that is newer than the last look at all names goes by its own, so
   that its methods and objects find it. */
static void name_class(lua_State *L, const wanted *g) {
    pack_store *store = pack_store_push(L);
    lua_pushvalue(L, g->value);
    bool class = lua_istable(L, -1) && pack_class_like(L);
    lua_pop(L, 2);
    if (class) pack_names_global(L, store, g->name, g->value);
}

void globals_add_global(bundle *b, const wanted *g) {
    lua_State *L = b->L;
    name_class(L, g);
    const char *what = push_what(L, g->name, false, 0);
    lua_pushvalue(L, g->value);
    if (globals_try(b, what, 1)) {
        bool own = lua_rawequal(L, -1, g->name);
        keep_size(b, g);
        lua_pop(L, 2);
        if (own) {
            add_nameless(b, g);
            return;
        }
        lua_pushvalue(L, g->value);
        add_value(b, g, lua_isfunction(L, g->value) ? PART_FUNCTIONS
                                                    : PART_REST);
        return;
    }
    if (is_plain(L, g->value)) {
        lua_pop(L, 1);
        push_mended(b, g, g->value);
        lua_pushvalue(L, -1);
        if (globals_try(b, what, 1)) {
            lua_pop(L, 1);
            lua_remove(L, -2);
            add_value(b, g, PART_REST);
            return;
        }
        lua_remove(L, -2);
    }
    lua_remove(L, -2);
    make_reason(L, g->reader);
    add_missing(b, g);
}
