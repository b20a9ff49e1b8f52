/* A pair of connected sockets that carry small messages, with descriptors,
   between two processes of one family. A message arrives whole or not at
   all; who receives nothing any more, knows that the other side is gone.

   Safe: threads, of which one receives and one sends at a time; child after
   fork. Returns: 0 or -errno; -EPIPE the other side is gone.
   Source: unix(7), SCM_RIGHTS. */
#ifndef MP_OS_SOCKET_H
#define MP_OS_SOCKET_H

#include <stddef.h>

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

#endif
