/* Listener, Client and the two halves of their handshake. Addresses come as
   (family, name) or (family, host, port); lua/mp/connection.lua takes them
   apart. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/connection_impl.h"
#include "bind/core.h"
#include "wire/listen.h"

#define NAME "Listener"

static const char mark; /* its address is in each of ours, and the key of
                           the metatable */

/* User values: the key (a string, or nil), and where the last one called
   from. */
enum { KEY = 1, LAST, VALUES = LAST };

typedef struct listener {
    const void *mark;
    mp_listener l;
} listener;

/* ---- addresses ------------------------------------------------------ */

static mp_family family_at(lua_State *L, int arg) {
    static const char *const names[] = {"AF_UNIX", "AF_INET", "AF_INET6",
                                        NULL};
    return MP_UNIX + (mp_family)luaL_checkoption(L, arg, NULL, names);
}

/* The address at `arg` and the two that follow. */
static void address_at(lua_State *L, int arg, const char *fn,
                       mp_address *a) {
    mp_family family = family_at(L, arg);
    size_t size;
    const char *name = luaL_checklstring(L, arg + 1, &size);
    bool path = family == MP_UNIX;
    int r = -EINVAL;
    if (path)
        r = mp_address_unix(a, name, size);
    else if (strlen(name) == size)
        r = mp_address_inet(a, family, name,
                            (uint16_t)luaL_checkinteger(L, arg + 2));
    if (r == -EINVAL)
        bind_error(L, "ValueError", "%s: '%s' is no %s", fn, name,
                   path ? "path" : "host");
    if (r == 0) return;
    lua_pushfstring(L, "%s: %s", fn, *name ? name : "abstract address");
    bind_oserror(L, r, lua_tostring(L, -1));
}

/* Pushes an address as its users write it. */
static void push_address(lua_State *L, const mp_address *a) {
    char host[MP_HOST_BYTES];
    uint16_t port;
    const char *name;
    if (a->family == MP_UNIX) {
        size_t size = mp_address_name(a, &name);
        lua_pushlstring(L, name, size);
        return;
    }
    mp_address_host(a, host, &port);
    lua_createtable(L, 2, 0);
    lua_pushstring(L, host);
    lua_rawseti(L, -2, 1);
    lua_pushinteger(L, port);
    lua_rawseti(L, -2, 2);
}

/* The key at `arg`, if it is one. */
static bool key_at(lua_State *L, int arg, mp_key *key) {
    key->bytes = lua_tolstring(L, arg, &key->size);
    return key->bytes;
}

/* ---- errors --------------------------------------------------------- */

/* Raises what a negative result of mp_auth_run means. */
static int auth_failed(lua_State *L, int r, const char *fn) {
    switch (r) {
    case -EKEYREJECTED:
        return bind_error(L, "AuthenticationError",
                          "%s: digest received was wrong", fn);
    case -EKEYREVOKED:
        return bind_error(L, "AuthenticationError",
                          "%s: digest sent was rejected", fn);
    case -EBADE:
        return bind_error(L, "AuthenticationError", "%s: protocol error: "
                          "neither a challenge nor a digest that is known "
                          "here", fn);
    case -EPIPE:
        return connection_raise_end(L, fn);
    case -ENODATA:
        return bind_error(L, "OSError",
                          "%s: got end of file during message", fn);
    case -EMSGSIZE:
        return bind_error(L, "OSError", "%s: bad message length", fn);
    default:
        return bind_oserror(L, r, fn);
    }
}

static int timed_out(lua_State *L, const char *fn, const char *what) {
    return bind_error(L, "TimeoutError", "%s: %s in time", fn, what);
}

/* ---- the Listener --------------------------------------------------- */

static listener *test(lua_State *L, int idx) {
    listener *o = lua_touserdata(L, idx);
    return o && lua_type(L, idx) == LUA_TUSERDATA &&
                   lua_rawlen(L, idx) == sizeof *o && o->mark == &mark
               ? o
               : NULL;
}

static mp_listener *self(lua_State *L, const char *fn) {
    listener *o = test(L, 1);
    if (!o) bind_argerror(L, fn, 1, "self", NAME);
    return &o->l;
}

int listener_pollfd(lua_State *L, int idx) {
    listener *o = test(L, idx);
    if (!o) return -1;
    int fd = o->l.fd < 0 ? -2 : mp_listener_pollfd(&o->l);
    /* Without a descriptor for all callers: those who connect. */
    return fd < -2 ? o->l.fd : fd;
}

static int listener_close(lua_State *L) {
    mp_listener_close(self(L, "close"));
    return 0;
}

/* Waits for the next caller: 0, -ETIMEDOUT, or raises. */
static void next_caller(lua_State *L, mp_listener *l, const mp_key *key,
                        mp_conn *c, mp_address *peer,
                        mp_deadline deadline) {
    int r;
    for (;;) {
        if (l->fd < 0) bind_error(L, "OSError", "accept: listener is closed");
        r = mp_listener_accept(l, key, c, peer, deadline);
        if (r != -EINTR) break;
        bind_interrupted(L);
    }
    if (r == -ETIMEDOUT) timed_out(L, "accept", "nobody has connected");
    if (r < 0) auth_failed(L, r, "accept");
}

/* accept([timeout]) -> Connection */
static int listener_accept(lua_State *L) {
    mp_listener *l = self(L, "accept");
    mp_deadline deadline = bind_deadline(L, 2, "accept");
    mp_address peer;
    mp_key key;
    mp_conn found;
    lua_settop(L, 1);
    lua_getiuservalue(L, 1, KEY);
    bool keyed = key_at(L, 2, &key);
    mp_conn *c = connection_new(L);
    next_caller(L, l, keyed ? &key : NULL, &found, &peer, deadline);
    *c = found;
    c->trusted = keyed;
    if (peer.family == MP_UNIX)
        lua_pushnil(L);
    else
        push_address(L, &peer);
    lua_setiuservalue(L, 1, LAST);
    return 1;
}

static int listener_tostring(lua_State *L) {
    const mp_listener *l = self(L, "tostring");
    if (l->fd < 0)
        lua_pushliteral(L, "<Listener closed>");
    else
        lua_pushfstring(L, "<Listener %d>", l->fd);
    return 1;
}

static int listener_reduce(lua_State *L) {
    return bind_error(L, "PicklingError", "cannot pickle a Listener: it "
                      "belongs to the process that made it");
}

/* A field, or (upvalue 1) a method. */
static int listener_index(lua_State *L) {
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    const mp_listener *l = self(L, "index");
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(key, "last_accepted") == 0)
        lua_getiuservalue(L, 1, LAST);
    else if (strcmp(key, "address") == 0 && l->fd >= 0)
        push_address(L, &l->address);
    return 1;
}

static void push_metatable(lua_State *L) {
    static const luaL_Reg meta[] = {{"__gc", listener_close},
                                    {"__close", listener_close},
                                    {"__tostring", listener_tostring},
                                    {"__reduce", listener_reduce},
                                    {NULL, NULL}};
    static const luaL_Reg methods[] = {{"accept", listener_accept},
                                       {"close", listener_close},
                                       {NULL, NULL}};
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &mark) == LUA_TTABLE) return;
    lua_pop(L, 1);
    luaL_newlib(L, meta);
    lua_pushliteral(L, NAME);
    lua_setfield(L, -2, "__name");
    luaL_newlib(L, methods);
    lua_pushcclosure(L, listener_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &mark);
}

/* listen(family, name, port, backlog, key, patience) */
static int core_listen(lua_State *L) {
    mp_address address;
    lua_settop(L, 6);
    address_at(L, 1, NAME, &address);
    int backlog = (int)bind_integer(L, 4, NAME, "backlog", 0, INT_MAX);
    double patience = luaL_checknumber(L, 6);
    listener *o = lua_newuserdatauv(L, sizeof *o, VALUES);
    o->mark = &mark;
    o->l = (mp_listener){.fd = -1};
    push_metatable(L);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, 5);
    lua_setiuservalue(L, -2, KEY);
    int r = mp_listener_open(&o->l, &address, backlog,
                             (int64_t)(patience * 1e9));
    if (r < 0) {
        o->l.fd = -1;
        lua_pushfstring(L, "Listener: %s", lua_tostring(L, 2));
        bind_oserror(L, r, lua_tostring(L, -1));
    }
    return 1;
}

/* ---- Client --------------------------------------------------------- */

static int calling_gc(lua_State *L) {
    mp_call_drop(lua_touserdata(L, 1));
    return 0;
}

/* A connection in the making, which an error must not leave behind. */
static mp_calling *new_calling(lua_State *L) {
    mp_calling *calling = lua_newuserdatauv(L, sizeof *calling, 0);
    *calling = (mp_calling){.fd = -1, .conn = {.fd = -1}};
    if (luaL_newmetatable(L, "mp.connection.calling")) {
        lua_pushcfunction(L, calling_gc);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, calling_gc);
        lua_setfield(L, -2, "__close");
    }
    lua_setmetatable(L, -2);
    return calling;
}

/* connect(family, name, port, key, timeout) -> Connection */
static int core_connect(lua_State *L) {
    mp_address address;
    mp_key key;
    mp_conn found;
    lua_settop(L, 5);
    address_at(L, 1, "Client", &address);
    bool keyed = key_at(L, 4, &key);
    mp_deadline deadline = bind_deadline(L, 5, "Client");
    mp_conn *c = connection_new(L);
    mp_calling *calling = new_calling(L);
    int r;
    while ((r = mp_call(calling, &address, keyed ? &key : NULL, &found,
                        deadline)) == -EINTR)
        bind_interrupted(L);
    if (r == -ETIMEDOUT && mp_deadline_passed(deadline))
        timed_out(L, "Client", "no connection");
    if (r < 0) auth_failed(L, r, "Client");
    *c = found;
    c->trusted = keyed;
    lua_pop(L, 1);
    return 1;
}

/* ---- the handshake by itself ---------------------------------------- */

/* The connection at 1 and the key at 2: runs a half of the handshake. */
static int handshake(lua_State *L, mp_auth_role role, mp_digest digest,
                     const char *fn) {
    mp_conn *c = &connection_reader(L, fn)->conn;
    mp_key key;
    mp_auth auth;
    int r;
    connection_writer(L, fn);
    luaL_checktype(L, 2, LUA_TSTRING);
    key_at(L, 2, &key);
    mp_auth_begin(&auth, role, digest);
    while ((r = mp_auth_run(&auth, c, &key, MP_FOREVER)) == -EINTR) {
        bind_interrupted(L);
        connection_reader(L, fn);
    }
    if (r < 0) auth_failed(L, r, fn);
    if (role == MP_AUTH_DELIVER) c->trusted = true;
    return 0;
}

/* deliver_challenge(connection, key, digest name) */
static int core_deliver(lua_State *L) {
    static const char fn[] = "deliver_challenge";
    size_t size;
    mp_digest digest;
    const char *name = luaL_checklstring(L, 3, &size);
    if (!mp_digest_named(name, size, &digest))
        bind_error(L, "ValueError", "%s: digest_name must be 'sha256' or "
                   "'md5', got '%s'", fn, name);
    return handshake(L, MP_AUTH_DELIVER, digest, fn);
}

/* answer_challenge(connection, key) */
static int core_answer(lua_State *L) {
    return handshake(L, MP_AUTH_ANSWER, MP_SHA256, "answer_challenge");
}

void bind_listener_open(lua_State *L) {
    static const luaL_Reg functions[] = {{"listen", core_listen},
                                         {"connect", core_connect},
                                         {"deliver_challenge", core_deliver},
                                         {"answer_challenge", core_answer},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
