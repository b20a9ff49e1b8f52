/* Messages of bytes, from strings and shared arrays and into them. */
#include "bind/bind.h"
#include "bind/cells.h"
#include "bind/connection_impl.h"

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
int connection_send_bytes(lua_State *L) {
    connection *o = connection_writer(L, "send_bytes");
    lua_settop(L, 4);
    size_t length;
    const char *bytes = bytes_at(L, 2, &length);
    connection_writer(L, "send_bytes"); /* a finalizer may have closed it */
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

/* try_send_bytes(string) -> was all of it sent? If not, it is to be called
   again with the same, and nothing else sent before. Does not wait. */
int connection_try_send_bytes(lua_State *L) {
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

/* recv_bytes([maxlength]) -> string */
int connection_recv_bytes(lua_State *L) {
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
int connection_recv_into(lua_State *L) {
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
