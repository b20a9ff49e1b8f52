/* The walk over what is named is made in the parent, where Lua may allocate;
   the child, which runs no Lua at first, gets an array of what to close. */
#include "bind/inherit.h"

#include <pthread.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/connection.h"
#include "bind/globals_impl.h"

/* Key of the registry: Connections of this state (weak) -> true. */
static const char NOTED;

/* ---- those that there are ---------------------------------------------- */

void inherit_note(lua_State *L, int idx) {
    idx = lua_absindex(L, idx);
    luaL_checkstack(L, 6, "connections");
    globals_weak(L, &NOTED, "k");
    lua_pushvalue(L, idx);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

static bool is_open(lua_State *L, int idx) {
    const mp_conn *c = connection_at(L, idx);
    return c && c->fd >= 0;
}

static bool any_open(lua_State *L) {
    bool any = false;
    globals_weak(L, &NOTED, "k");
    lua_pushnil(L);
    while (!any && lua_next(L, -2)) {
        lua_pop(L, 1);
        any = is_open(L, -1);
    }
    if (any) lua_pop(L, 1);
    lua_pop(L, 1);
    return any;
}

/* ---- the walk ----------------------------------------------------------- */

/* Slots of the stack: seen thing -> true; the list of what is to be looked
   into. */
typedef struct walk {
    lua_State *L;
    int seen, queue;
    lua_Integer queued;
} walk;

static void mark(walk *w, int idx) {
    idx = lua_absindex(w->L, idx);
    lua_pushvalue(w->L, idx);
    lua_pushboolean(w->L, 1);
    lua_rawset(w->L, w->seen);
}

static bool is_marked(walk *w, int idx) {
    idx = lua_absindex(w->L, idx);
    lua_pushvalue(w->L, idx);
    bool is = lua_rawget(w->L, w->seen) != LUA_TNIL;
    lua_pop(w->L, 1);
    return is;
}

/* The value on top (popped) is reached. */
static void reach(walk *w) {
    lua_State *L = w->L;
    int type = lua_type(L, -1);
    bool has_inside = type == LUA_TTABLE || type == LUA_TFUNCTION ||
                      type == LUA_TUSERDATA;
    if (!has_inside || is_marked(w, -1)) {
        lua_pop(L, 1);
        return;
    }
    mark(w, -1);
    lua_rawseti(L, w->queue, ++w->queued);
}

static bool is_mp_or_lua(const char *name) {
    static const char *const others[] = {"_G", "package", "debug"};
    if (strncmp(name, "mp", 2) == 0 && (name[2] == '\0' || name[2] == '.'))
        return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(name, others[i]) == 0) return true;
    return false;
}

/* What is behind these is not looked at. */
static void mark_modules(walk *w) {
    lua_State *L = w->L;
    lua_pushglobaltable(L);
    mark(w, -1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    mark(w, -1);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        if (lua_type(L, -2) == LUA_TSTRING &&
            is_mp_or_lua(lua_tostring(L, -2)) && lua_istable(L, -1))
            mark(w, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 2);
}

static void look_into_table(walk *w, int table) {
    lua_State *L = w->L;
    if (lua_getmetatable(L, table)) reach(w);
    lua_pushnil(L);
    while (lua_next(L, table)) {
        reach(w);
        lua_pushvalue(L, -1);
        reach(w);
    }
}

/* The globals, or fields of another table in an upvalue, that it reads. */
static void look_at_names(walk *w, int function) {
    lua_State *L = w->L;
    globals_of_function(L, function);
    int names = lua_gettop(L);
    lua_Integer n = lua_istable(L, names) ? (lua_Integer)lua_rawlen(L, names)
                                          : 0;
    for (lua_Integer i = 1; i < n; i += 2) {
        lua_rawgeti(L, names, i);
        int upvalue = (int)lua_tointeger(L, -1);
        if (lua_getupvalue(L, function, upvalue) && lua_istable(L, -1)) {
            lua_rawgeti(L, names, i + 1);
            lua_rawget(L, -2);
            reach(w);
        }
        lua_settop(L, names);
    }
    lua_pop(L, 1);
}

static bool is_ours(lua_State *L, int function) {
    lua_Debug info;
    lua_pushvalue(L, function);
    lua_getinfo(L, ">S", &info);
    return bind_is_ours(L, info.source);
}

static void look_into_function(walk *w, int function) {
    lua_State *L = w->L;
    if (!lua_iscfunction(L, function)) {
        if (is_ours(L, function)) return;
        look_at_names(w, function);
    }
    for (int i = 1; lua_getupvalue(L, function, i); i++) reach(w);
}

static void look_into_userdata(walk *w, int idx) {
    lua_State *L = w->L;
    if (lua_getmetatable(L, idx)) reach(w);
    for (int i = 1; lua_getiuservalue(L, idx, i) != LUA_TNONE; i++) reach(w);
    lua_pop(L, 1);
}

static void look_into(walk *w) {
    int idx = lua_gettop(w->L);
    switch (lua_type(w->L, idx)) {
    case LUA_TTABLE: look_into_table(w, idx); break;
    case LUA_TFUNCTION: look_into_function(w, idx); break;
    default: look_into_userdata(w, idx);
    }
    lua_settop(w->L, idx - 1);
}

/* Pushes the list of open Connections that are not marked, or nil. */
static void push_unmarked(walk *w) {
    lua_State *L = w->L;
    lua_Integer n = 0;
    lua_newtable(L);
    int list = lua_gettop(L);
    globals_weak(L, &NOTED, "k");
    lua_pushnil(L);
    while (lua_next(L, list + 1)) {
        lua_pop(L, 1);
        if (!is_open(L, -1) || is_marked(w, -1)) continue;
        lua_pushvalue(L, -1);
        lua_rawseti(L, list, ++n);
    }
    lua_settop(L, list);
    if (n > 0) return;
    lua_pop(L, 1);
    lua_pushnil(L);
}

void inherit_find(lua_State *L, int named) {
    named = lua_absindex(L, named);
    luaL_checkstack(L, 20, "connections");
    if (!any_open(L)) {
        lua_pushnil(L);
        return;
    }
    int top = lua_gettop(L);
    walk w = {.L = L, .seen = top + 1, .queue = top + 2};
    lua_newtable(L);
    lua_newtable(L);
    mark_modules(&w);
    lua_pushvalue(L, named);
    reach(&w);
    for (lua_Integer i = 1; i <= w.queued; i++) {
        lua_rawgeti(L, w.queue, i);
        look_into(&w);
    }
    push_unmarked(&w);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
}

/* ---- the fork ----------------------------------------------------------- */

/* What the next child closes; of the thread that forks. */
static _Thread_local struct {
    lua_State *L;
    int list;
} next;

/* Raw access to a table that is there: nothing here allocates or raises. */
static void close_in_child(void) {
    lua_State *L = next.L;
    next.L = NULL;
    if (!L) return;
    lua_Integer n = (lua_Integer)lua_rawlen(L, next.list);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, next.list, i);
        mp_conn *c = connection_at(L, -1);
        if (c) mp_conn_close(c);
        lua_pop(L, 1);
    }
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, close_in_child); }

void inherit_begin(lua_State *L, int idx) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    if (!lua_istable(L, idx)) return;
    next.list = lua_absindex(L, idx);
    next.L = L;
}

void inherit_done(void) { next.L = NULL; }
