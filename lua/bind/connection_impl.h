/* What the files of the Connection class share. */
#ifndef MP_BIND_CONNECTION_IMPL_H
#define MP_BIND_CONNECTION_IMPL_H

#include <lua.h>
#include <stddef.h>

#include "base/deadline.h"
#include "bind/connection.h"
#include "bind/pack.h"

/* The userdata.
   mark    the address that tells that it is one
   busy    half a message is sent while a hook runs: nothing else can go
   last    bytes of the string that the last message became: the next may
           be like it, and this one dead; 0 once that was looked after */
typedef struct connection {
    const void *mark;
    mp_conn conn;
    bool busy;
    size_t last;
} connection;

/* The Connection at 1; raises TypeError, and the next two OSError of one that
   is closed or goes the other way only. */
connection *connection_self(lua_State *L, const char *fn);
connection *connection_reader(lua_State *L, const char *fn);
connection *connection_writer(lua_State *L, const char *fn);

/* Raises what a negative result of mp_conn_send means. */
int connection_send_failed(lua_State *L, int r, const char *fn);

/* Sends, whatever it takes, or raises. What the message points to must stay
   where it is while hooks run. */
void connection_send(lua_State *L, connection *o, const mp_conn_message *m,
                     const char *fn);

/* The same for a message whose shared objects are kept by what
   connection_hold has pushed; pops it. */
void connection_send_held(lua_State *L, connection *o,
                          const mp_conn_message *m, const char *fn);

/* Receives: 0, or what `fn` has a form of its own for: -ETIMEDOUT, -EPIPE.
   Else raises. The message lies in the connection: nothing that may run a
   finalizer or a hook, which could close it, comes before it is copied. */
int connection_receive(lua_State *L, connection *o, size_t most,
                       mp_conn_received *m, mp_deadline deadline,
                       const char *fn);

/* Pushes the message from byte `from` on, and is done with it. */
void connection_push_bytes(lua_State *L, connection *o,
                           const mp_conn_received *m, size_t from);

int connection_raise_end(lua_State *L, const char *fn);

/* Adds to the table on top what makes listeners and their clients, and the
   pollfd of a Listener: connection_pollfd's. (listener.c) */
void bind_listener_open(lua_State *L);
int listener_pollfd(lua_State *L, int idx);

/* Keeps the shared objects of a message that is about to be sent: pushes who
   does, and returns the descriptor that must go along. Raises OSError.
   connection_held pops it, once the message was sent: the objects are kept
   until that is no more. (connection_hold.c) */
int connection_hold(lua_State *L, const pack_handle *handles, size_t n);
void connection_held(lua_State *L);

/* The methods of bytes (connection_bytes.c) and of values
   (connection_value.c). */
int connection_send_bytes(lua_State *L);
int connection_try_send_bytes(lua_State *L);
int connection_recv_bytes(lua_State *L);
int connection_recv_into(lua_State *L);
int connection_send_value(lua_State *L);
int connection_recv_value(lua_State *L);
int connection_try_recv(lua_State *L);

#endif
