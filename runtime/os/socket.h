/* Sockets that carry messages with descriptors between processes.

   First a pair for small messages between two processes of one family: a
   message arrives whole or not at all; who receives nothing any more, knows
   that the other side is gone. Then what connections are made of, which
   never blocks.

   Safe: threads, of which one receives and one sends at a time; child after
   fork. Returns: 0 or -errno; -EPIPE the other side is gone.
   Source: unix(7), SCM_RIGHTS. */
#ifndef MP_OS_SOCKET_H
#define MP_OS_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/deadline.h"

enum { MP_SOCKET_MOST_FDS = 8 };

/* Both ends are closed on exec, and none is a standard descriptor. */
int mp_socket_pair(int pair[2]);

/* Sends `size` bytes and `n` descriptors. Blocks: while the other side has
   not taken what was sent before; a signal handler does not end it. */
int mp_socket_send(int fd, const void *bytes, size_t size, const int *fds,
                   int n);

/* Receives a message of just `size` bytes and up to `*n` descriptors, closed
   on exec and not standard ones; *n becomes their number: fewer than were
   sent where this process had no room for them.
   -EPIPE; -ETIMEDOUT; -EBADMSG another size; -EINTR a signal handler ran. */
int mp_socket_receive(int fd, void *bytes, size_t size, int *fds, int *n,
                      mp_deadline deadline);

/* Closes it, and the connection: also when another process has a copy. */
void mp_socket_end(int fd);

/* Is the other side gone? */
int mp_socket_gone(int fd, mp_deadline deadline);

/* ---- what connections are made of ----------------------------------- */

enum { MP_SOCKET_MOST_RIGHTS = 253 }; /* SCM_MAX_FD: beside a message */

/* What a descriptor is. */
typedef struct mp_socket_kind {
    bool socket;    /* a connected one; else another file, not a directory */
    bool packets;   /* SOCK_SEQPACKET (and local), else a stream */
    bool local;     /* AF_UNIX */
    bool timed;     /* a receive that waits ends after mp_socket_slice's */
} mp_socket_kind;

/* -EBADF; -ENOTSUP datagrams, other packets, a directory; -ENOTCONN. */
int mp_socket_look(int fd, mp_socket_kind *kind);

/* From now on a receive that waits ends with -EAGAIN after so long. */
int mp_socket_slice(int fd, int64_t ns);

/* Shuts one direction: the peer gets the end, or -EPIPE. */
void mp_socket_shut(int fd, bool reading);

/* Sends a packet, or of a stream as much as there is room for, with
   descriptors on the first byte; returns the number of bytes.
   -EAGAIN no room; -EPIPE; -EMSGSIZE a packet too large for its socket;
   -ETOOMANYREFS, -EBADF, -ENOBUFS, ... */
ssize_t mp_socket_put(int fd, const struct iovec *parts, int n,
                      const int *fds, int n_fds);

/* What was received beside the bytes. */
typedef struct mp_socket_rights {
    int *fds;       /* room for `most`; what is beyond is closed */
    int most, n;
    bool lost;      /* some were beyond, or this process had no room */
    bool cut;       /* the packet was longer than `size` */
} mp_socket_rights;

/* Receives a packet, or what is there of a stream: the number of bytes, 0 the
   end. Descriptors are closed on exec and not standard ones; without
   `rights` none get in. `wait`: blocks as long as mp_socket_slice said.
   -EAGAIN nothing there; -EINTR a signal handler ran; -ECONNRESET the peer
   went without having read all: what it sent before can still be there. */
ssize_t mp_socket_get(int fd, void *bytes, size_t size,
                      mp_socket_rights *rights, bool wait);

#endif
