/* mp.Pipe and the class Connection: its state, and how messages go (of bytes:
   connection_bytes.c; of values: connection_value.c).

   A Connection belongs to its process: a forked child has a copy, and to
   close that is the child's business. What waits runs Lua's hooks every
   slice; a hook may close the connection, so it is looked at again. */
#include "bind/connection_impl.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/core.h"
#include "bind/inherit.h"
#include "bind/spare.h"

#define NAME "Connection"

/* Its address marks our userdata, and is the metatable's key. */
static const char mark;

/* ---- self ----------------------------------------------------------- */

static connection *test(lua_State *L, int idx) {
    connection *o = lua_touserdata(L, idx);
    return o && lua_type(L, idx) == LUA_TUSERDATA &&
                   lua_rawlen(L, idx) == sizeof *o && o->mark == &mark
               ? o
               : NULL;
}

mp_conn *connection_at(lua_State *L, int idx) {
    connection *o = test(L, idx);
    return o ? &o->conn : NULL;
}

connection *connection_self(lua_State *L, const char *fn) {
    connection *o = test(L, 1);
    if (!o) bind_argerror(L, fn, 1, "self", NAME);
    return o;
}

static void check_open(lua_State *L, const mp_conn *c, const char *fn) {
    if (c->fd < 0) bind_error(L, "OSError", "%s: handle is closed", fn);
}

static connection *open_self(lua_State *L, const char *fn) {
    connection *o = connection_self(L, fn);
    check_open(L, &o->conn, fn);
    return o;
}

connection *connection_reader(lua_State *L, const char *fn) {
    connection *o = open_self(L, fn);
    if (!o->conn.readable)
        bind_error(L, "OSError", "%s: connection is write-only", fn);
    return o;
}

connection *connection_writer(lua_State *L, const char *fn) {
    connection *o = open_self(L, fn);
    if (!o->conn.writable)
        bind_error(L, "OSError", "%s: connection is read-only", fn);
    if (o->busy)
        bind_error(L, "StateError",
                   "%s: a message is being sent by who was interrupted", fn);
    return o;
}

/* ---- sending -------------------------------------------------------- */

int connection_send_failed(lua_State *L, int r, const char *fn) {
    if (r == -EPIPE)
        return bind_error(L, "BrokenPipe", "%s: the other end is closed",
                          fn);
    if (r == -EBADMSG)
        return bind_error(L, "OSError", "%s: the rest of a message that was "
                          "interrupted is lost: nothing can be sent any more",
                          fn);
    return bind_oserror(L, r, fn);
}

static int run_hooks(lua_State *L) {
    bind_interrupted(L);
    return 0;
}

/* A hook that raises leaves the message where it is: the rest goes ahead of
   the next one, so what holds its shared objects (`hold`: at this index; 0:
   nothing) stays. */
static void interrupted(lua_State *L, connection *o,
                        const mp_conn_message *m, int hold, const char *fn) {
    luaL_checkstack(L, 12, "a hook");
    lua_pushcfunction(L, run_hooks);
    o->busy = true;
    int r = lua_pcall(L, 0, 0, 0);
    o->busy = false;
    if (r == LUA_OK && o->conn.fd >= 0) return;
    if (o->conn.fd >= 0) mp_conn_give_up(&o->conn, m);
    if (hold && o->conn.out.rest) {
        lua_pushvalue(L, hold);
        connection_held(L);
    }
    if (r != LUA_OK) lua_error(L);
    check_open(L, &o->conn, fn);
}

static void send_all(lua_State *L, connection *o, const mp_conn_message *m,
                     int hold, const char *fn) {
    int r;
    while ((r = mp_conn_send(&o->conn, m, MP_FOREVER)) == -EINTR)
        interrupted(L, o, m, hold, fn);
    if (r < 0) connection_send_failed(L, r, fn);
}

void connection_send(lua_State *L, connection *o, const mp_conn_message *m,
                     const char *fn) {
    send_all(L, o, m, 0, fn);
}

void connection_send_held(lua_State *L, connection *o,
                          const mp_conn_message *m, const char *fn) {
    send_all(L, o, m, lua_gettop(L), fn);
    connection_held(L);
}

/* ---- receiving ------------------------------------------------------ */

int connection_raise_end(lua_State *L, const char *fn) {
    return bind_error(L, "EOF", "%s: the other end is closed", fn);
}

/* A message longer than was asked for. As Python's, the connection can only
   be written to from now on, if it could be. */
static void too_long(lua_State *L, mp_conn *c, const char *fn) {
    if (c->writable)
        c->readable = false;
    else
        mp_conn_close(c);
    bind_error(L, "OSError", "%s: bad message length", fn);
}

static int receive_failed(lua_State *L, mp_conn *c, int r, const char *fn) {
    if (r == -ENODATA)
        bind_error(L, "OSError", "%s: got end of file during message", fn);
    if (r == -EMSGSIZE) too_long(L, c, fn);
    if (r == -EBADMSG)
        bind_error(L, "OSError", "%s: what arrived is no message%s", fn,
                   c->kind == MP_CONN_PACKETS
                       ? ""
                       : ": nothing can be received any more");
    return bind_oserror(L, r, fn);
}

int connection_receive(lua_State *L, connection *o, size_t most,
                       mp_conn_received *m, mp_deadline deadline,
                       const char *fn) {
    mp_conn *c = &o->conn;
    size_t last = o->last;
    int r;
    o->last = 0;
    bind_spare_make_room(L, last);
    check_open(L, c, fn);
    while ((r = mp_conn_receive(c, most, m, deadline)) == -EINTR) {
        bind_interrupted(L);
        check_open(L, c, fn);
    }
    if (r < 0 && r != -ETIMEDOUT && r != -EPIPE) receive_failed(L, c, r, fn);
    return r;
}

void connection_push_bytes(lua_State *L, connection *o,
                           const mp_conn_received *m, size_t from) {
    o->last = m->size - from;
    lua_pushlstring(L, (const char *)m->data + from, m->size - from);
    mp_conn_release(&o->conn);
}

/* ---- state ---------------------------------------------------------- */

/* poll([timeout]): no argument is at once, nil for ever. */
static int connection_poll(lua_State *L) {
    mp_conn *c = &connection_reader(L, "poll")->conn;
    mp_deadline deadline = lua_gettop(L) < 2 ? MP_AT_ONCE
                                             : bind_deadline(L, 2, "poll");
    int r;
    while ((r = mp_conn_poll(c, deadline)) == -EINTR) {
        bind_interrupted(L);
        check_open(L, c, "poll");
    }
    if (r < 0) bind_oserror(L, r, "poll");
    lua_pushboolean(L, r);
    return 1;
}

static int connection_fileno(lua_State *L) {
    lua_pushinteger(L, open_self(L, "fileno")->conn.fd);
    return 1;
}

static int connection_close(lua_State *L) {
    mp_conn_close(&connection_self(L, "close")->conn);
    return 0;
}

static int connection_tostring(lua_State *L) {
    const mp_conn *c = &connection_self(L, "tostring")->conn;
    if (c->fd < 0)
        lua_pushliteral(L, "<Connection closed>");
    else
        lua_pushfstring(L, "<Connection %d%s>", c->fd,
                        !c->writable   ? " read-only"
                        : !c->readable ? " write-only"
                                       : "");
    return 1;
}

/* A field, or (upvalue 1) a method. */
static int connection_index(lua_State *L) {
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    const mp_conn *c = &connection_self(L, "index")->conn;
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(key, "closed") == 0)
        lua_pushboolean(L, c->fd < 0);
    else if (strcmp(key, "readable") == 0)
        lua_pushboolean(L, c->readable);
    else if (strcmp(key, "writable") == 0)
        lua_pushboolean(L, c->writable);
    else
        return 1;
    return 1;
}

static int connection_newindex(lua_State *L) {
    return bind_error(L, "TypeError",
                      "Connection: field '%s' cannot be assigned",
                      luaL_tolstring(L, 2, NULL));
}

/* ---- the class ------------------------------------------------------ */

static void push_methods(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"send", connection_send_value},
        {"recv", connection_recv_value},
        {"try_recv", connection_try_recv},
        {"send_bytes", connection_send_bytes},
        {"try_send_bytes", connection_try_send_bytes},
        {"recv_bytes", connection_recv_bytes},
        {"recv_bytes_into", connection_recv_into},
        {"poll", connection_poll},
        {"fileno", connection_fileno},
        {"close", connection_close},
        {NULL, NULL}};
    luaL_newlib(L, methods);
}

static void push_metatable(lua_State *L) {
    static const luaL_Reg meta[] = {{"__gc", connection_close},
                                    {"__close", connection_close},
                                    {"__tostring", connection_tostring},
                                    {"__newindex", connection_newindex},
                                    {NULL, NULL}};
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &mark) == LUA_TTABLE) return;
    lua_pop(L, 1);
    luaL_newlib(L, meta);
    lua_pushliteral(L, NAME);
    lua_setfield(L, -2, "__name");
    push_methods(L);
    lua_pushcclosure(L, connection_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &mark);
}

/* Pushes a Connection that is closed. */
static connection *new_connection(lua_State *L) {
    luaL_checkstack(L, 8, NAME);
    connection *o = lua_newuserdatauv(L, sizeof *o, 0);
    memset(o, 0, sizeof *o);
    o->mark = &mark;
    o->conn.fd = -1;
    push_metatable(L);
    lua_setmetatable(L, -2);
    inherit_note(L, -1);
    return o;
}

mp_conn *connection_new(lua_State *L) { return &new_connection(L)->conn; }

int connection_push(lua_State *L, int fd, bool readable, bool writable,
                    bool trusted) {
    mp_conn *c = connection_new(L);
    int r = mp_conn_open(c, fd, readable, writable);
    if (r < 0) {
        c->fd = -1;
        lua_pop(L, 1);
        return r;
    }
    c->trusted = trusted;
    return 0;
}

/* Pipe(duplex) -> two connections */
static int core_pipe(lua_State *L) {
    mp_conn ends[2];
    bool duplex = lua_toboolean(L, 1);
    mp_conn *one = connection_new(L), *two = connection_new(L);
    int r = mp_conn_pair(ends, duplex);
    if (r < 0) bind_oserror(L, r, "Pipe");
    *one = ends[0];
    *two = ends[1];
    return 2;
}

/* Connection(fd, readable, writable) */
static int core_connection(lua_State *L) {
    lua_Integer fd = bind_integer(L, 1, NAME, "handle", INT_MIN, INT_MAX);
    if (fd < 0)
        bind_error(L, "ValueError", "Connection: invalid handle: %I", fd);
    int r = connection_push(L, (int)fd, lua_toboolean(L, 2),
                            lua_toboolean(L, 3), false);
    if (r == -ENOTSUP)
        bind_error(L, "ValueError", "Connection: invalid handle: %I is "
                   "neither a pipe nor a stream", fd);
    if (r < 0) bind_oserror(L, r, NAME);
    return 1;
}

int connection_pollfd(lua_State *L, int idx) {
    const mp_conn *c = connection_at(L, idx);
    if (!c) return listener_pollfd(L, idx);
    return c->fd < 0 ? -2 : c->readable ? c->fd : -3;
}

/* is(value): is it a Connection? */
static int core_is(lua_State *L) {
    lua_pushboolean(L, test(L, 1) != NULL);
    return 1;
}

void bind_connection_open(lua_State *L) {
    static const luaL_Reg functions[] = {{"Pipe", core_pipe},
                                         {"Connection", core_connection},
                                         {"is", core_is},
                                         {NULL, NULL}};
    luaL_newlib(L, functions);
    bind_listener_open(L);
    lua_setfield(L, -2, "connection");
}
