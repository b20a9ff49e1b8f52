/* Error objects: tables {kind, message, where, ...} with one metatable, kept
   in the registry as "mp.error". tostring gives «kind: message», and the
   remote traceback where there is one. */
#include <errno.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/core.h"

static int error_tostring(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_getfield(L, 1, "kind");
    lua_getfield(L, 1, "message");
    lua_getfield(L, 1, "traceback");
    const char *kind = luaL_tolstring(L, 2, NULL);
    const char *message = luaL_tolstring(L, 3, NULL);
    if (lua_isstring(L, 4))
        lua_pushfstring(L, "%s: %s\n\nremote traceback:\n%s", kind, message,
                        lua_tostring(L, 4));
    else
        lua_pushfstring(L, "%s: %s", kind, message);
    return 1;
}

static void push_metatable(lua_State *L) {
    if (!luaL_newmetatable(L, "mp.error")) return;
    lua_pushcfunction(L, error_tostring);
    lua_setfield(L, -2, "__tostring");
}

/* Registry: what the sources of our own Lua modules begin with. The key is
   an address of ours; what it points to does not matter. */
static const char home;

/* home(prefix): said by lua/mp/errors.lua, which knows where it lies. */
static int error_home(lua_State *L) {
    luaL_checkstring(L, 1);
    lua_settop(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &home);
    return 0;
}

bool bind_is_ours(lua_State *L, const char *source) {
    size_t n = 0;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &home);
    const char *prefix = lua_tolstring(L, -1, &n);
    bool is = prefix && strncmp(source, prefix, n) == 0;
    lua_pop(L, 1);
    return is;
}

/* Pushes «script.lua:12:», the place in the user's Lua code that led here,
   looking from `level` on; an empty string when there is none. */
static void push_where(lua_State *L, int level) {
    lua_Debug info;
    for (; lua_getstack(L, level, &info); level++) {
        lua_getinfo(L, "Sl", &info);
        if (info.currentline <= 0 || bind_is_ours(L, info.source) ||
            strcmp(info.source, BIND_WAITS) == 0)
            continue;
        lua_pushfstring(L, "%s:%d:", info.short_src, info.currentline);
        return;
    }
    lua_pushliteral(L, "");
}

/* The table of kind and message from the stack's top (popped). */
static void make(lua_State *L, const char *kind, int level) {
    lua_createtable(L, 0, 4);
    lua_insert(L, -2);
    lua_setfield(L, -2, "message");
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    if (level >= 0) {
        push_where(L, level);
        lua_setfield(L, -2, "where");
    }
    push_metatable(L);
    lua_setmetatable(L, -2);
}

int bind_error(lua_State *L, const char *kind, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    lua_pushvfstring(L, fmt, args);
    va_end(args);
    make(L, kind, 1);
    return lua_error(L);
}

int bind_error_from(lua_State *L, int level, const char *kind,
                    const char *message) {
    lua_pushstring(L, message);
    make(L, kind, level);
    return lua_error(L);
}

void bind_pusherror(lua_State *L, const char *kind, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    lua_pushvfstring(L, fmt, args);
    va_end(args);
    make(L, kind, -1);
}

static const char *errno_name(int e) {
    static const struct {
        int code;
        const char *name;
    } names[] = {
        {EPERM, "EPERM"},   {ENOENT, "ENOENT"}, {EAGAIN, "EAGAIN"},
        {ENOMEM, "ENOMEM"}, {EACCES, "EACCES"}, {EEXIST, "EEXIST"},
        {EINVAL, "EINVAL"}, {ENFILE, "ENFILE"}, {EMFILE, "EMFILE"},
        {EFBIG, "EFBIG"},   {ENOSPC, "ENOSPC"}, {EPIPE, "EPIPE"},
        {ENOSYS, "ENOSYS"}, {ESRCH, "ESRCH"},   {ECHILD, "ECHILD"},
        {EBADF, "EBADF"},   {EIO, "EIO"},       {EBUSY, "EBUSY"},
        {ENOTSUP, "ENOTSUP"}, {EOWNERDEAD, "EOWNERDEAD"},
        {ENAMETOOLONG, "ENAMETOOLONG"}, {ECONNREFUSED, "ECONNREFUSED"},
        {EADDRINUSE, "EADDRINUSE"}, {EADDRNOTAVAIL, "EADDRNOTAVAIL"},
        {ECONNRESET, "ECONNRESET"}, {ENOTCONN, "ENOTCONN"},
        {EHOSTUNREACH, "EHOSTUNREACH"}, {ENETUNREACH, "ENETUNREACH"},
        {ETIMEDOUT, "ETIMEDOUT"}, {ETOOMANYREFS, "ETOOMANYREFS"},
        {ENOTSOCK, "ENOTSOCK"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].code == e) return names[i].name;
    return NULL;
}

int bind_oserror(lua_State *L, int code, const char *what) {
    lua_pushfstring(L, "%s: %s", what, strerror(-code));
    make(L, "OSError", 1);
    lua_pushinteger(L, -code);
    lua_setfield(L, -2, "errno");
    const char *name = errno_name(-code);
    if (name)
        lua_pushstring(L, name);
    else
        lua_pushfstring(L, "E%d", -code);
    lua_setfield(L, -2, "code");
    return lua_error(L);
}

int bind_argerror(lua_State *L, const char *fn, int arg, const char *name,
                  const char *expected) {
    const char *got = luaL_typename(L, arg);
    if (luaL_getmetafield(L, arg, "__name") == LUA_TSTRING)
        got = lua_tostring(L, -1);
    return bind_error(L, "TypeError",
                      "%s: argument '%s': %s expected, got %s%s", fn, name,
                      expected, got,
                      strcmp(name, "self") == 0 ? " (use ':')" : "");
}

int bind_raise_arrived(lua_State *L) {
    if (bind_is_error(L, -1)) {
        size_t n = 0;
        lua_getfield(L, -1, "where");
        lua_tolstring(L, -1, &n);
        lua_pop(L, 1);
        if (n == 0) {
            push_where(L, 1);
            lua_setfield(L, -2, "where");
        }
    }
    return lua_error(L);
}

/* new(kind, message [, fields [, level]]) -> error object; `where` is the
   caller's caller at level 2, as error() counts. */
static int error_new(lua_State *L) {
    const char *kind = luaL_checkstring(L, 1);
    luaL_checkstring(L, 2);
    int level = (int)luaL_optinteger(L, 4, 1);
    lua_pushvalue(L, 2);
    make(L, kind, level);
    if (lua_istable(L, 3)) {
        lua_pushnil(L);
        while (lua_next(L, 3)) {
            lua_pushvalue(L, -2);
            lua_insert(L, -2);
            lua_settable(L, -4);
        }
    }
    return 1;
}

bool bind_is_error(lua_State *L, int idx) {
    if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return false;
    push_metatable(L);
    bool is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is;
}

/* is(value [, kind]) -> boolean */
static int error_is(lua_State *L) {
    bool is = bind_is_error(L, 1);
    if (is && !lua_isnoneornil(L, 2)) {
        lua_getfield(L, 1, "kind");
        is = lua_rawequal(L, -1, 2);
    }
    lua_pushboolean(L, is);
    return 1;
}

void bind_error_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"new", error_new},
        {"is", error_is},
        {"home", error_home},
        {NULL, NULL}};
    luaL_newlib(L, functions);
    push_metatable(L);
    lua_setfield(L, -2, "metatable");
    lua_setfield(L, -2, "error");
}
