/* What a job needs of the globals: the names that its functions read, and
   those by which its classes travel.  Each is looked at once; what the
   receiver lacks is queued for globals_item.c. */
#include <string.h>

#include "bind/bind.h"
#include "bind/globals_impl.h"

void globals_need_table(lua_State *L, int slot) {
    if (!lua_isnil(L, slot)) return;
    lua_newtable(L);
    lua_replace(L, slot);
}

void globals_append(lua_State *L, int list) {
    lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
}

/* ---- what an encoding mentions -------------------------------------- */

/* Is the thing of a memo's entry, which begins at `p`, under a name that leads
   through a global, or one of a registered class? */
static bool name_of(const pack_entry *e, const unsigned char *p, size_t left,
                    globals_name *name, bool *class) {
    bool rebuilt = (*p | TAG_SHARED) == (TAG_REBUILD | TAG_SHARED);
    if (e->info % MEMO_KINDS != MEMO_NAME && !rebuilt) return false;
    *class = rebuilt || *p == TAG_REGNAME;
    if (!*class) return globals_wire(p, left, name);
    uint64_t n = 0;
    p = mp_varint_get(p + 1, p + left, &n);
    *name = (globals_name){(const char *)p, (size_t)n};
    return true;
}

void globals_note(lua_State *L, const pack_out *out, int mentions) {
    const packer *k = (const packer *)out;
    globals_name name = {"", 0}, last = {"", 0};
    bool class = false, last_class = false;
    for (size_t i = 0; i < k->memo.count; i++) {
        const pack_entry *e = &k->memo.entries[i];
        size_t at = (size_t)(e->info / MEMO_KINDS);
        if (!name_of(e, out->data + at, out->len - at, &name, &class))
            continue;
        /* Rebuilt objects come in rows. */
        if (name.length == last.length && class == last_class &&
            memcmp(name.text, last.text, name.length) == 0)
            continue;
        last = name;
        last_class = class;
        globals_need_table(L, mentions);
        lua_pushlstring(L, name.text, name.length);
        globals_append(L, mentions);
        lua_pushboolean(L, class);
        globals_append(L, mentions);
    }
}

/* Has the value at `key` been looked at? */
static bool is_seen(bundle *b, int key) {
    if (lua_isnil(b->L, b->seen)) return false;
    lua_pushvalue(b->L, key);
    bool seen = lua_rawget(b->L, b->seen) != LUA_TNIL;
    lua_pop(b->L, 1);
    return seen;
}

static void set_seen(bundle *b, int key) {
    globals_need_table(b->L, b->seen);
    lua_pushvalue(b->L, key);
    lua_pushboolean(b->L, 1);
    lua_rawset(b->L, b->seen);
}

static void enqueue(bundle *b, int name, bool class, int reader) {
    lua_State *L = b->L;
    globals_need_table(L, b->queue);
    lua_pushvalue(L, name);
    lua_rawseti(L, b->queue, ++b->queued);
    lua_pushboolean(L, class);
    lua_rawseti(L, b->queue, ++b->queued);
    if (reader)
        lua_pushvalue(L, reader);
    else
        lua_pushboolean(L, 0);
    lua_rawseti(L, b->queue, ++b->queued);
}

/* The registered class with the name at `name` is needed: queues it unless
   the receiver has it. */
static void need_class(bundle *b, int name) {
    lua_State *L = b->L;
    int top = lua_gettop(L), entry = top + 1;
    globals_push_classes(L);
    lua_pushvalue(L, name);
    lua_rawget(L, -2);
    lua_replace(L, entry);
    if (lua_istable(L, entry) && !is_seen(b, entry)) {
        set_seen(b, entry);
        if (!globals_class_had(L, b->snapshot, name, entry, b->functions))
            enqueue(b, name, true, 0);
    }
    lua_settop(L, top);
}

/* The same for a global. `reader`: stack index of the function that reads
   it, or 0. What has no inside may be looked at again: that is quicker than
   to remember it. */
static void need(bundle *b, int name, int reader) {
    lua_State *L = b->L;
    int top = lua_gettop(L), value = top + 1;
    lua_pushglobaltable(L);
    lua_pushvalue(L, name);
    lua_rawget(L, -2);
    lua_replace(L, value);
    if (!is_seen(b, name)) {
        if (globals_inside(L, value)) set_seen(b, name);
        if (!globals_had(L, b->snapshot, name, value, b->functions)) {
            set_seen(b, name);
            enqueue(b, name, false, reader);
        }
    }
    lua_settop(L, top);
}

void globals_need_mentioned(bundle *b) {
    lua_State *L = b->L;
    if (lua_isnil(L, b->mentions)) return;
    lua_Integer n = (lua_Integer)lua_rawlen(L, b->mentions);
    for (lua_Integer i = 1; i <= n; i += 2) {
        lua_rawgeti(L, b->mentions, i);
        lua_rawgeti(L, b->mentions, i + 1);
        bool class = lua_toboolean(L, -1);
        lua_pop(L, 1);
        if (class)
            need_class(b, lua_gettop(L));
        else
            need(b, lua_gettop(L), 0);
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    lua_replace(L, b->mentions);
}

/* ---- names that functions read -------------------------------------- */

enum { ENV_NONE, ENV_GLOBALS, ENV_OWN };

/* Is upvalue `i` of the function at `function` a table of globals? It is
   pushed. */
static int environment(lua_State *L, int function, int i) {
    const char *name = lua_getupvalue(L, function, i);
    if (!name) {
        lua_pushnil(L);
        return ENV_NONE;
    }
    if (!lua_istable(L, -1)) return ENV_NONE;
    lua_pushglobaltable(L);
    bool globals = lua_rawequal(L, -1, -2);
    lua_pop(L, 1);
    if (globals) return ENV_GLOBALS;
    if (strcmp(name, "_ENV") != 0 || !lua_getmetatable(L, -1))
        return ENV_NONE;
    lua_pop(L, 1);
    return ENV_OWN;
}

/* With a function at `function` and its names behind it: all are needed. */
static void need_names(bundle *b, int function) {
    lua_State *L = b->L;
    int names = function + 1, env = function + 2, name = function + 3;
    int of = 0, kind = ENV_NONE;
    lua_Integer n = (lua_Integer)lua_rawlen(L, names);
    lua_pushnil(L);
    for (lua_Integer i = 1; i <= n; i += 2) {
        lua_rawgeti(L, names, i);
        int upvalue = (int)lua_tointeger(L, -1);
        lua_settop(L, env);
        if (upvalue != of) {
            lua_settop(L, names);
            kind = environment(L, function, upvalue);
            of = upvalue;
        }
        if (kind == ENV_NONE) continue;
        lua_rawgeti(L, names, i + 1);
        if (kind == ENV_OWN) { /* what it has itself goes with it */
            lua_pushvalue(L, name);
            bool has = lua_rawget(L, env) != LUA_TNIL;
            lua_settop(L, name);
            if (has) continue;
        }
        need(b, name, function);
    }
}

void globals_need_read(bundle *b) {
    lua_State *L = b->L;
    int function = lua_gettop(L) + 1;
    if (lua_isnil(L, b->functions)) return;
    while (lua_rawgeti(L, b->functions, b->looked + 1) != LUA_TNIL) {
        lua_rawgeti(L, b->functions, b->looked + 2);
        b->looked += 2;
        need_names(b, function);
        lua_settop(L, function - 1);
    }
    lua_settop(L, function - 1);
}

/* ---- trials --------------------------------------------------------- */

/* trial(functions, mentions, what, values...) -> functions, mentions, size,
   name of the global or class that the first value goes by */
static int trial(lua_State *L) {
    const char *what = lua_tostring(L, 3);
    int n = lua_gettop(L);
    luaL_checkstack(L, 10, "globals");
    pack_out *out = pack_begin_shared(L);
    out->functions = 1;
    for (int i = 4; i <= n; i++) pack_value(L, out, i, what);
    out->functions = 0;
    globals_note(L, out, 2);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_pushinteger(L, (lua_Integer)out->len);
    globals_name name;
    if (globals_wire(out->data, out->len, &name))
        lua_pushlstring(L, name.text, name.length);
    else
        lua_pushnil(L);
    pack_end(L, n + 1);
    return 4;
}

bool globals_try(bundle *b, const char *what, int n) {
    lua_State *L = b->L;
    int first = lua_gettop(L) - n + 1;
    size_t functions = 0;
    if (lua_istable(L, b->functions))
        functions = lua_rawlen(L, b->functions);
    lua_pushcfunction(L, trial);
    lua_pushvalue(L, b->functions);
    lua_pushvalue(L, b->mentions);
    lua_pushstring(L, what);
    lua_rotate(L, first, 4);
    if (lua_pcall(L, n + 3, 4, 0) != LUA_OK) {
        if (lua_istable(L, b->functions))
            for (size_t i = lua_rawlen(L, b->functions); i > functions; i--) {
                lua_pushnil(L);
                lua_rawseti(L, b->functions, (lua_Integer)i);
            }
        return false;
    }
    b->size = (size_t)lua_tointeger(L, -2);
    lua_remove(L, -2);
    lua_insert(L, -3);
    lua_replace(L, b->mentions);
    lua_replace(L, b->functions);
    globals_need_mentioned(b);
    return true;
}

/* ---- items with classes --------------------------------------------- */

/* With the value of the global with the name at `name` on top: need it be
   looked at as a class? All signs of one are asked for only of what is not
   the receiver's: that takes time. */
static bool may_be_class(bundle *b, int name) {
    lua_State *L = b->L;
    lua_pushliteral(L, "__index");
    bool may = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 1);
    return may || (!globals_same(L, b->snapshot, name, lua_gettop(L)) &&
                   pack_class_like(L));
}

void globals_need_classes(bundle *b) {
    lua_State *L = b->L;
    int top = lua_gettop(L);
    size_t id;
    const pack_store *store = pack_store_push(L);
    globals_push_classes(L);
    lua_pushnil(L);
    while (lua_next(L, top + 2)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) need_class(b, top + 3);
    }
    lua_pushglobaltable(L);
    lua_pushnil(L);
    while (lua_next(L, top + 3)) {
        if (lua_istable(L, top + 5) && lua_type(L, top + 4) == LUA_TSTRING &&
            pack_names_find(L, store, lua_topointer(L, top + 5), &id) !=
                NAME_VALUE &&
            may_be_class(b, top + 4))
            need(b, top + 4, 0);
        lua_settop(L, top + 4);
    }
    lua_settop(L, top);
}
