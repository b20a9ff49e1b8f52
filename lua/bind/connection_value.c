/* Values over connections: mp.pickle's strings, so that what send sends,
   mp.pickle.loads(recv_bytes()) can make, and the other way round.

   What arrives is decoded where nobody else can write to it: not in the
   connection's buffer, since a rebuilding function of the user's may receive
   the next message meanwhile, nor in memory that the sender has, too. */
#include <errno.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/connection_impl.h"
#include "bind/pickle.h"

enum { SMALL = 1024 }; /* bytes: decoded in a copy on the C stack */

/* ---- sending -------------------------------------------------------- */

static bool send_scalar(lua_State *L, connection *o) {
    unsigned char bytes[PICKLE_SCALAR_MOST];
    mp_conn_message m = {.body = bytes};
    m.size = pickle_scalar(L, 2, bytes);
    if (m.size > 0) connection_send(L, o, &m, "send");
    return m.size > 0;
}

static void send_string(lua_State *L, connection *o) {
    unsigned char head[PICKLE_STRING_MOST];
    mp_conn_message m = {.head = head};
    m.body = lua_tolstring(L, 2, &m.size);
    m.head_size = pickle_string_head(head, m.size);
    connection_send(L, o, &m, "send");
}

/* send(value) */
int connection_send_value(lua_State *L) {
    connection *o = connection_writer(L, "send");
    if (lua_isnone(L, 2)) bind_argerror(L, "send", 2, "value", "any value");
    if (send_scalar(L, o)) return 0;
    lua_settop(L, 2);
    if (lua_type(L, 2) == LUA_TSTRING) {
        send_string(L, o);
        return 0;
    }
    connection_baggage baggage;
    pack_out *out = pickle_begin(L);
    baggage.n = 0;
    out->baggage = o->conn.local ? &baggage : NULL;
    pack_value(L, out, 2, "value");
    pickle_finish(L, out);
    connection_writer(L, "send"); /* a hook of the pickler may have closed */
    bool held = out->nhandles > 0 && o->conn.local;
    if (held)
        baggage.fds[baggage.n++] =
            connection_hold(L, out->handles, out->nhandles);
    mp_conn_message m = {.body = out->data, .size = out->len,
                         .fds = baggage.fds, .n_fds = baggage.n};
    if (held)
        connection_send_held(L, o, &m, "send");
    else
        connection_send(L, o, &m, "send");
    pack_end(L, 3);
    return 0;
}

/* ---- decoding ------------------------------------------------------- */

/* Registry: what came along with the message that is being decoded. */
static const char luggage_key;

mp_conn_received *connection_unpacking(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &luggage_key);
    mp_conn_received *came = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return came;
}

static void load(lua_State *L, const void *data, size_t size, bool trusted,
                 bool descriptors) {
    const pickle_trust trust = {
        .fn = "recv",
        .advice = "its sender has not proved that it knows our authkey",
        .code = trusted,
        .descriptors = descriptors};
    pickle_load(L, data, size, &trust);
}

/* (the message, is its sender trusted) -> value */
static int load_protected(lua_State *L) {
    mp_conn_received *m = lua_touserdata(L, 1);
    bool trusted = lua_toboolean(L, 2), came = m->n_fds > 0 || m->lost_fds;
    if (came) {
        lua_pushvalue(L, 1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &luggage_key);
    }
    lua_settop(L, 0);
    load(L, m->data, m->size, trusted, came);
    return 1;
}

/* Pushes the value of a message that is taken out of the connection: what it
   holds is given back whatever happens, and what was being decoded before
   goes on. */
static void load_taken(lua_State *L, mp_conn *c, const mp_conn_received *m) {
    mp_conn_taken taken;
    luaL_checkstack(L, 6, "a message");
    int r = mp_conn_take(c, m, &taken);
    if (r < 0) bind_oserror(L, r, "recv");
    lua_rawgetp(L, LUA_REGISTRYINDEX, &luggage_key);
    lua_pushcfunction(L, load_protected);
    lua_pushlightuserdata(L, &taken.message);
    lua_pushboolean(L, c->trusted);
    r = lua_pcall(L, 2, 1, 0);
    mp_conn_put_back(c, &taken);
    lua_insert(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &luggage_key);
    if (r != LUA_OK) lua_error(L);
}

/* Pushes the value of a message that was received, and is done with it. */
static void push_received(lua_State *L, connection *o,
                          const mp_conn_received *m) {
    mp_conn *c = &o->conn;
    unsigned char small[SMALL];
    size_t seen = m->size < PICKLE_STRING_MOST ? m->size : PICKLE_STRING_MOST;
    if (m->n_fds > 0 || m->lost_fds) {
        load_taken(L, c, m);
    } else if (!m->shared && pickle_push_scalar(L, m->data, m->size)) {
        mp_conn_release(c);
    } else if (m->size <= SMALL && !m->shared) {
        memcpy(small, m->data, m->size);
        mp_conn_release(c);
        load(L, small, m->size, c->trusted, false);
    } else {
        memcpy(small, m->data, seen);
        size_t at = pickle_string_at(small, seen, m->size);
        if (at == 0) {
            load_taken(L, c, m);
            return;
        }
        connection_push_bytes(L, o, m, at);
    }
}

/* recv() -> value */
int connection_recv_value(lua_State *L) {
    connection *o = connection_reader(L, "recv");
    mp_conn_received m;
    if (connection_receive(L, o, SIZE_MAX, &m, MP_FOREVER, "recv") < 0)
        return connection_raise_end(L, "recv");
    push_received(L, o, &m);
    return 1;
}

/* try_recv([timeout]) -> true, value | false, "TimeoutError" | "EOF" */
int connection_try_recv(lua_State *L) {
    connection *o = connection_reader(L, "try_recv");
    mp_deadline deadline = lua_isnoneornil(L, 2)
                               ? MP_AT_ONCE
                               : bind_deadline(L, 2, "try_recv");
    mp_conn_received m;
    lua_settop(L, 1);
    int r = connection_receive(L, o, SIZE_MAX, &m, deadline, "try_recv");
    lua_pushboolean(L, r == 0);
    if (r == 0)
        push_received(L, o, &m);
    else
        lua_pushstring(L, r == -EPIPE ? "EOF" : "TimeoutError");
    return 2;
}
