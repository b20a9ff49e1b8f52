/* mp.Pipe and the class Connection: its state, and messages of bytes (values:
   connection_value.c).

   A Connection belongs to its process: a forked child has a copy, and to
   close that is the child's business. What waits runs Lua's hooks every
   slice; a hook may close the connection, so it is looked at again. */
#include "bind/connection_impl.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/cells.h"
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

/* try_send_bytes(string) -> was all of it sent? If not, it is to be called
   again with the same, and nothing else sent before. Does not wait. */
static int connection_try_send_bytes(lua_State *L) {
    static const char fn[] = "try_send_bytes";
    connection *o = connection_writer(L, fn);
    mp_conn_message m = {.size = 0};
    if (lua_type(L, 2) != LUA_TSTRING)
        bind_argerror(L, fn, 2, "buf", "string");
    m.body = lua_tolstring(L, 2, &m.size);
    int r = mp_conn_send(&o->conn, &m, MP_AT_ONCE);
    if (r < 0 && r != -ETIMEDOUT && r != -EINTR)
        connection_send_failed(L, r, fn);
    lua_pushboolean(L, r == 0);
    return 1;
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

/* ---- bytes ---------------------------------------------------------- */

static lua_Integer count_at(lua_State *L, int arg, const char *fn,
                            const char *name, lua_Integer otherwise) {
    if (lua_isnoneornil(L, arg)) return otherwise;
    return bind_integer(L, arg, fn, name, LUA_MININTEGER, LUA_MAXINTEGER);
}

/* The shared array at `arg`, which is open; or NULL. */
static const bind_object *array_at(lua_State *L, int arg) {
    bind_object *o = bind_is(L, arg, &cells_array);
    if (!o) o = bind_is(L, arg, &cells_raw_array);
    if (o && !o->shm)
        bind_error(L, "StateError", "%s is closed", o->class->name);
    return o;
}

static size_t cell_size(const mp_array_shm *array) {
    return mp_cell_types[array->type].size;
}

/* The bytes at `arg`; those of an array are copied, and the copy pushed. */
static const char *bytes_at(lua_State *L, int arg, size_t *size) {
    if (lua_type(L, arg) == LUA_TSTRING) return lua_tolstring(L, arg, size);
    const bind_object *o = array_at(L, arg);
    if (!o)
        bind_argerror(L, "send_bytes", arg, "buf", "string or shared array");
    mp_array_shm *array = o->shm;
    *size = (size_t)array->length * cell_size(array);
    void *copy = lua_newuserdatauv(L, *size, 0);
    mp_array_hold hold;
    array = cells_enter(L, o, &hold);
    mp_array_read(array, 0, array->length, copy);
    mp_array_leave(&hold);
    return copy;
}

/* send_bytes(buf [, offset [, size]]) */
static int connection_send_bytes(lua_State *L) {
    connection *o = connection_writer(L, "send_bytes");
    lua_settop(L, 4);
    size_t length;
    const char *bytes = bytes_at(L, 2, &length);
    lua_Integer most = (lua_Integer)length;
    lua_Integer offset = count_at(L, 3, "send_bytes", "offset", 0);
    if (offset < 0)
        bind_error(L, "ValueError", "send_bytes: offset is negative");
    if (most < offset)
        bind_error(L, "ValueError", "send_bytes: buffer length < offset");
    lua_Integer size =
        count_at(L, 4, "send_bytes", "size", most - offset);
    if (size < 0)
        bind_error(L, "ValueError", "send_bytes: size is negative");
    if (most - offset < size)
        bind_error(L, "ValueError",
                   "send_bytes: buffer length < offset + size");
    mp_conn_message m = {.body = bytes + offset, .size = (size_t)size};
    connection_send(L, o, &m, "send_bytes");
    return 0;
}

/* recv_bytes([maxlength]) -> string */
static int connection_recv_bytes(lua_State *L) {
    connection *o = connection_reader(L, "recv_bytes");
    lua_Integer most =
        count_at(L, 2, "recv_bytes", "maxlength", LUA_MAXINTEGER);
    if (most < 0)
        bind_error(L, "ValueError", "recv_bytes: negative maxlength");
    mp_conn_received m;
    int r = connection_receive(L, o, (size_t)most, &m, MP_FOREVER,
                               "recv_bytes");
    if (r < 0) return connection_raise_end(L, "recv_bytes");
    connection_push_bytes(L, o, &m, 0);
    return 1;
}

/* The message does not fit, or not into whole cells: the error has it. */
static int too_short(lua_State *L, connection *o, const mp_conn_received *m,
                     size_t cell) {
    const char *how =
        m->size % cell ? ", and ends within a cell of the array" : "";
    connection_push_bytes(L, o, m, 0);
    bind_pusherror(L, "BufferTooShort", "recv_bytes_into: the message has "
                   "%I bytes%s", (lua_Integer)m->size, how);
    lua_insert(L, -2);
    lua_setfield(L, -2, "data");
    return bind_raise_arrived(L);
}

/* Puts the message's bytes into the array from cell `at` on. Who has to wait
   runs hooks, which may close the connection or receive the next message, as
   may a finalizer: not for them, but for a copy, a string, which is made
   before the collector runs. */
static void write_message(lua_State *L, const bind_object *o, uint64_t at,
                          const mp_conn_received *m) {
    mp_array_hold hold;
    const void *bytes = m->data;
    mp_array_shm *array = cells_try(o, &hold);
    if (!array) {
        bytes = lua_pushlstring(L, (const char *)m->data, m->size);
        array = cells_wait(L, o, &hold);
    }
    mp_array_write(array, at, m->size / cell_size(array), bytes);
    mp_array_leave(&hold);
}

/* recv_bytes_into(array [, offset]) -> number of bytes */
static int connection_recv_into(lua_State *L) {
    static const char fn[] = "recv_bytes_into";
    connection *o = connection_reader(L, fn);
    const bind_object *into = array_at(L, 2);
    if (!into) bind_argerror(L, fn, 2, "buf", "shared array");
    const mp_array_shm *array = into->shm;
    size_t cell = cell_size(array), room = (size_t)array->length * cell;
    lua_Integer offset = count_at(L, 3, fn, "offset", 0);
    if (offset < 0) bind_error(L, "ValueError", "%s: negative offset", fn);
    if ((uint64_t)offset > room)
        bind_error(L, "ValueError", "%s: offset too large", fn);
    if (array->type == MP_CELL_u || (size_t)offset % cell != 0)
        bind_error(L, "ValueError", "%s: offset %I is within a cell of the "
                   "array", fn, offset);
    mp_conn_received m;
    if (connection_receive(L, o, SIZE_MAX, &m, MP_FOREVER, fn) < 0)
        return connection_raise_end(L, fn);
    if (m.size > room - (size_t)offset || m.size % cell != 0)
        return too_short(L, o, &m, cell);
    write_message(L, into, (size_t)offset / cell, &m);
    lua_pushinteger(L, (lua_Integer)m.size);
    mp_conn_release(&o->conn);
    return 1;
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
