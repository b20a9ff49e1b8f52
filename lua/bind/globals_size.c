/* The warning of a job that carries much.  Sizes are found by encoding each
   part once more, which happens once in a process. */
#include "bind/bind.h"
#include "bind/code.h"
#include "bind/globals_impl.h"

enum { DEPTH_MAX = 16 }; /* of functions that are upvalues */

/* Key of the registry: true once the warning was given. */
static const char WARNED;

/* [1] value -> its bytes */
static int measure(lua_State *L) {
    pack_out *out = pack_begin_shared(L);
    pack_value(L, out, 1, "value");
    lua_pushinteger(L, (lua_Integer)out->len);
    return 1;
}

static size_t size_of(lua_State *L, int value) {
    value = lua_absindex(L, value);
    lua_pushcfunction(L, measure);
    lua_pushvalue(L, value);
    size_t size = 0;
    if (lua_pcall(L, 1, 1, 0) == LUA_OK) size = (size_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return size;
}

/* The largest upvalue of the function at `function`: its number, 0 if there
   is none. */
static int largest_upvalue(lua_State *L, int function, size_t *size) {
    int best = 0;
    *size = 0;
    for (int i = 1; lua_getupvalue(L, function, i); i++) {
        size_t bytes = size_of(L, -1);
        if (bytes > *size) {
            *size = bytes;
            best = i;
        }
        lua_pop(L, 1);
    }
    return best;
}

/* Pushes «upvalue 'big' of function 'job' (s.lua:12)» for what makes the Lua
   function at `function` large; nil: no upvalue does. Those of upvalues that
   are functions count as theirs. */
static void push_culprit(lua_State *L, int function, size_t *size) {
    int top = lua_gettop(L);
    lua_pushnil(L);
    lua_pushvalue(L, function);
    for (int depth = 0; depth < DEPTH_MAX; depth++) {
        size_t bytes;
        int i = largest_upvalue(L, top + 2, &bytes);
        if (i == 0 || (depth > 0 && bytes < *size / 2)) break;
        *size = bytes;
        code_describe(L, top + 2);
        const char *name = lua_getupvalue(L, top + 2, i);
        lua_pushfstring(L, "upvalue '%s' of %s", name,
                        lua_tostring(L, top + 3));
        lua_replace(L, top + 1);
        lua_replace(L, top + 2);
        lua_settop(L, top + 2);
        if (!lua_isfunction(L, -1) || lua_iscfunction(L, -1)) break;
    }
    lua_settop(L, top + 1);
}

/* Replaces the string or nil on top by the largest of the globals that go,
   if that is larger than *size. */
static void look_at_globals(bundle *b, size_t *size) {
    lua_State *L = b->L;
    int best = lua_gettop(L);
    if (lua_isnil(L, b->sizes)) return;
    lua_pushnil(L);
    while (lua_next(L, b->sizes)) {
        if ((size_t)lua_tointeger(L, -1) > *size) {
            *size = (size_t)lua_tointeger(L, -1);
            lua_pushfstring(L, "global '%s'", lua_tostring(L, -2));
            lua_replace(L, best);
        }
        lua_pop(L, 1);
    }
}

static void push_megabytes(lua_State *L, size_t size) {
    lua_pushfstring(L, "%d.%d MB", (int)(size / 1000000),
                    (int)(size / 100000 % 10));
}

/* (text): tells the logger. */
static int warn(lua_State *L) {
    bind_push_member(L, "mp.log", "_warn_once");
    lua_pushliteral(L, "upvalues");
    lua_pushvalue(L, 1);
    lua_call(L, 2, 0);
    return 0;
}

void globals_warn(bundle *b, size_t total, int first, int n) {
    lua_State *L = b->L;
    int top = lua_gettop(L);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &WARNED) != LUA_TNIL) {
        lua_settop(L, top);
        return;
    }
    lua_pushboolean(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &WARNED);
    luaL_checkstack(L, 20, "globals");
    lua_settop(L, top);
    lua_pushcfunction(L, warn);
    lua_pushnil(L);
    size_t largest = 0;
    for (int i = first; i < first + n; i++) {
        size_t size = 0;
        if (!lua_isfunction(L, i) || lua_iscfunction(L, i)) continue;
        push_culprit(L, i, &size);
        if (size > largest && !lua_isnil(L, -1)) {
            largest = size;
            lua_replace(L, top + 2);
        }
        lua_settop(L, top + 2);
    }
    look_at_globals(b, &largest);
    push_megabytes(L, total);
    push_megabytes(L, largest);
    lua_pushfstring(L, "a job carries %s to each worker: %s is %s of it",
                    lua_tostring(L, -2),
                    lua_isnil(L, top + 2) ? "its code"
                                          : lua_tostring(L, top + 2),
                    lua_tostring(L, -1));
    lua_replace(L, top + 2);
    lua_settop(L, top + 2);
    /* What goes wrong in telling is not the job's. */
    lua_pcall(L, 1, 0, 0);
    lua_settop(L, top);
}
