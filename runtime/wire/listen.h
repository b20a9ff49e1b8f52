/* Who listens for connections, and who connects.

   A listener with a key hands out only those who have proved that they know
   it (wire/auth.h). Several handshakes go on at a time, and each has a
   deadline, so a caller that says nothing stands in nobody's way; when there
   are MP_LISTENER_CALLERS of them, the oldest is dropped for a new one.
   They go on only while somebody calls mp_listener_accept.

   Safe: one thread per mp_listener; a forked child has a listener of its own,
   at the same address, without the callers. Returns: 0 or -errno. */
#ifndef MP_WIRE_LISTEN_H
#define MP_WIRE_LISTEN_H

#include "os/net.h"
#include "wire/auth.h"
#include "wire/conn.h"

enum { MP_LISTENER_CALLERS = 64 };

/* Somebody who has connected, and has not proved it yet. */
typedef struct mp_caller {
    mp_conn conn;
    mp_auth auth;
    mp_address address;
    mp_deadline until;
} mp_caller;

typedef struct mp_listener {
    int fd;                /* -1: closed */
    int any;               /* what mp_listener_pollfd gave out, or -1 */
    int maker, user;       /* processes: whose the path is, and the callers */
    int64_t patience_ns;   /* how long a handshake may take */
    mp_address address;
    mp_caller **callers;   /* the oldest first; malloc'ed, and each of them */
    int n;
} mp_listener;

/* -EADDRINUSE, -EACCES, -ENOENT, ... */
int mp_listener_open(mp_listener *l, const mp_address *address, int backlog,
                     int64_t patience_ns);

/* The next who has connected; with a `key` (else NULL), and has proved that
   it knows it. -EKEYREJECTED, -EKEYREVOKED, -EBADE: one was refused; what
   else can be wrong with a caller drops it. Blocks; -ETIMEDOUT, -EINTR;
   -EMFILE, ... */
int mp_listener_accept(mp_listener *l, const mp_key *key, mp_conn *c,
                       mp_address *peer, mp_deadline deadline);

/* A descriptor that is readable when accept has something to do; valid until
   the next call of anything here. -errno. */
int mp_listener_pollfd(mp_listener *l);

/* Closes it and removes its path, if this process made it. May be called
   again. */
void mp_listener_close(mp_listener *l);

/* ---- connecting ----------------------------------------------------- */

/* A connection in the making; zeroed but for conn.fd and fd, -1, at first. */
typedef struct mp_calling {
    int fd;
    mp_conn conn;
    mp_auth auth;
} mp_calling;

/* Connects, and with a key proves it. -ECONNREFUSED, -ENOENT, ..., and what
   mp_auth_run returns. Blocks. On 0 the connection is *c, else after all but
   -EINTR everything is closed. */
int mp_call(mp_calling *calling, const mp_address *address,
            const mp_key *key, mp_conn *c, mp_deadline deadline);

void mp_call_drop(mp_calling *calling);

#endif
