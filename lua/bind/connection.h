/* Connections for the rest of this floor: what mp.wait polls, what pickles
   send along, what makes a Connection of a descriptor.

   A Connection is no shared object: it belongs to this process, its
   descriptor can be sent to another. It is a userdata with a class of its
   own, not a bind_object. */
#ifndef MP_BIND_CONNECTION_H
#define MP_BIND_CONNECTION_H

#include <lua.h>
#include <stdbool.h>

#include "wire/conn.h"

/* Code of a Connection inside pickles. */
enum { CONNECTION_CODE = 15 };

/* The connection at `idx`, open or closed (fd < 0); NULL: no Connection. */
mp_conn *connection_at(lua_State *L, int idx);

/* The descriptor to poll (for POLLIN; POLLHUP and POLLERR count as ready,
   too) of the Connection or Listener at `idx`; -1: it is neither; -2: it is
   one, and closed; -3: it is a Connection that cannot be read. Of a
   Listener: what becomes readable when accept has something to do. */
int connection_pollfd(lua_State *L, int idx);

/* Pushes a Connection that is closed, to be filled by mp_conn_open. */
mp_conn *connection_new(lua_State *L);

/* Pushes a Connection that owns `fd`. On -errno (mp_conn_open's) nothing is
   pushed, and the descriptor is the caller's still. May raise (no memory),
   then the descriptor is closed. `trusted`: see mp_conn. */
int connection_push(lua_State *L, int fd, bool readable, bool writable,
                    bool trusted);

/* ---- values in messages --------------------------------------------- */

/* Descriptors that go along with a value. While it is encoded for a
   connection that can carry them, pack_out.baggage points to this; else it
   is NULL. The pickler adds descriptors, each once, which must stay open
   until pack_end, and writes their index. */
typedef struct connection_baggage {
    int n;
    int fds[MP_CONN_MOST_FDS + 1]; /* the last is the connection's own */
} connection_baggage;

/* What came along with the value that is being decoded in this state (its
   fds; lost_fds): who takes fds[i] over puts -1 in its place. NULL: it did
   not come over a connection, or nothing came along. */
mp_conn_received *connection_unpacking(lua_State *L);

#endif
