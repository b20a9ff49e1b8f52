/* The bundle: what a job reads of the globals, and its receiver lacks.

   The job is encoded once to see what goes: each Lua function that does tells
   which globals it reads, and names that lead through the globals tell which
   classes.  What is missing of these is encoded by itself, which tells what
   it needs in turn, and so on until nothing is new.  If anything is missing
   all is encoded again, into one message; mostly nothing is, and the first
   encoding is the message. */
#include "bind/globals.h"

#include <stdio.h>

#include "bind/globals_impl.h"
#include "bind/message.h"

enum { SLOTS = 7 };

static bundle begin(lua_State *L, int snapshot) {
    luaL_checkstack(L, 40, "globals");
    int top = lua_gettop(L);
    bundle b = {.L = L, .snapshot = snapshot, .functions = top + 1,
                .mentions = top + 2, .seen = top + 3, .queue = top + 4,
                .parts = top + 5, .makes = top + 6, .sizes = top + 7};
    lua_settop(L, top + SLOTS);
    return b;
}

/* Makes items of all that is needed. */
static void add_needed(bundle *b) {
    lua_State *L = b->L;
    int top = lua_gettop(L);
    globals_need_mentioned(b);
    globals_need_read(b);
    while (b->done < b->queued) {
        wanted g = {top + 1, top + 2, top + 3, false};
        lua_rawgeti(L, b->queue, b->done + 1);
        lua_rawgeti(L, b->queue, b->done + 3);
        lua_rawgeti(L, b->queue, b->done + 2);
        g.class = lua_toboolean(L, -1);
        lua_pop(L, 1);
        b->done += 3;
        if (g.class)
            globals_push_classes(L);
        else
            lua_pushglobaltable(L);
        lua_pushvalue(L, g.name);
        lua_rawget(L, -2);
        lua_replace(L, g.value);
        if (g.class)
            globals_add_class(b, &g);
        else
            globals_add_global(b, &g);
        lua_settop(L, top);
        globals_need_read(b);
    }
}

/* ---- the bundle ----------------------------------------------------- */

/* Moves the DEFINE_BY among the declarations, in an order in which each one
   comes behind those that it refers to. */
static void order_makes(bundle *b) {
    lua_State *L = b->L;
    if (lua_isnil(L, b->makes)) return;
    int top = lua_gettop(L);
    lua_Integer n = (lua_Integer)lua_rawlen(L, b->makes);
    lua_newtable(L); /* class -> its item, which is still to come */
    int waiting = top + 1;
    lua_pushglobaltable(L);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, b->makes, i);
        lua_rawgeti(L, -1, 2);
        lua_rawget(L, top + 2);
        lua_insert(L, -2);
        lua_rawset(L, waiting);
    }
    for (bool more = true; more;) {
        more = false;
        for (lua_Integer i = 1; i <= n; i++) {
            lua_settop(L, top + 2);
            lua_rawgeti(L, b->makes, i);
            lua_rawgeti(L, -1, 2);
            lua_rawget(L, top + 2);
            int item = top + 3, class = top + 4;
            lua_pushvalue(L, class);
            if (lua_rawget(L, waiting) == LUA_TNIL) continue;
            lua_getfield(L, item, "n");
            lua_Integer values = lua_tointeger(L, -1);
            bool early = false;
            for (lua_Integer j = 3; j <= values && !early; j++) {
                lua_rawgeti(L, item, j);
                early = lua_istable(L, -1) &&
                        lua_rawget(L, waiting) != LUA_TNIL;
                lua_settop(L, class);
            }
            if (early) continue;
            lua_pushvalue(L, class);
            lua_pushnil(L);
            lua_rawset(L, waiting);
            lua_settop(L, item);
            globals_add_item(b, PART_DECLARED);
            more = true;
        }
    }
    lua_settop(L, top);
}

/* Pushes the bundle, or nil if nothing is missing. */
static void push_bundle(bundle *b) {
    lua_State *L = b->L;
    if (lua_isnil(L, b->parts) && lua_isnil(L, b->makes)) {
        lua_pushnil(L);
        return;
    }
    globals_need_parts(b);
    order_makes(b);
    for (int i = PART_DECLARED; i < PARTS; i++)
        lua_rawgeti(L, b->parts, i);
    globals_make_item(L, DEFINE_ALL, PARTS - 1);
}

/* Appends the n values from `first`, one at least. */
static void put_values(lua_State *L, pack_out *out, const char *head,
                       int first, int n) {
    char name[32];
    pack_value(L, out, first, head);
    for (int i = 1; i < n; i++) {
        snprintf(name, sizeof name, "args[%d]", i);
        pack_value(L, out, first + i, name);
    }
}

/* Puts the values in front, into `out`, and notes what they need. */
static void put_first(bundle *b, pack_out *out, const char *head, int first,
                      int n) {
    out->functions = b->functions;
    put_values(b->L, out, head, first, n);
    out->functions = 0;
    globals_note(b->L, out, b->mentions);
}

/* A large message: how much of it is that of functions? */
static void warn_of(bundle *b, size_t carried, int first, int n) {
    lua_State *L = b->L;
    int functions = 0;
    luaL_checkstack(L, n + 10, "globals");
    for (int i = first; i < first + n; i++)
        if (lua_isfunction(L, i)) {
            lua_pushvalue(L, i);
            functions++;
        }
    if (functions > 0) {
        if (globals_try(b, "the job", functions)) carried += b->size;
        lua_pop(L, 1);
    }
    if (carried > GLOBALS_LARGE) globals_warn(b, carried, first, n);
}

void globals_pack(lua_State *L, pack_out *out, int snapshot,
                  const char *head, int first, int n) {
    first = lua_absindex(L, first);
    if (snapshot) snapshot = lua_absindex(L, snapshot);
    int top = lua_gettop(L);
    bundle b = begin(L, snapshot);
    put_first(&b, pack_begin_shared(L), head, first, n);
    pack_end(L, -1);
    lua_pop(L, 1);
    add_needed(&b);
    push_bundle(&b);
    size_t before = out->len;
    pack_value(L, out, -1, "globals");
    size_t carried = out->len - before;
    put_values(L, out, head, first, n);
    if (out->len - before > GLOBALS_LARGE)
        warn_of(&b, carried, first, n);
    lua_settop(L, top);
}

mp_ref globals_function(lua_State *L, int snapshot, int f, bool items,
                        int first, int n) {
    f = lua_absindex(L, f);
    if (snapshot) snapshot = lua_absindex(L, snapshot);
    int top = lua_gettop(L);
    bundle b = begin(L, snapshot);
    pack_out *out = pack_begin_shared(L);
    int slot = lua_gettop(L);
    put_first(&b, out, "function", f, 1);
    if (items) globals_need_classes(&b);
    for (int i = first; items && i < first + n; i++)
        globals_reached(L, i, b.functions);
    add_needed(&b);
    push_bundle(&b);
    if (!lua_isnil(L, -1)) {
        pack_end(L, slot);
        out = pack_begin_shared(L);
        slot = lua_gettop(L);
        pack_value(L, out, slot - 1, "globals");
        pack_value(L, out, f, "function");
    }
    if (out->len > GLOBALS_LARGE) globals_warn(&b, out->len, f, 1);
    mp_ref block = message_of(L, out, "the function");
    pack_end(L, slot);
    lua_settop(L, top);
    return block;
}
