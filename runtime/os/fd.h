/* Descriptors. Safe: everywhere but as said. Blocks: never but as said. */
#ifndef MP_OS_FD_H
#define MP_OS_FD_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/deadline.h"

/* The same open file under a number above the three standard ones, closed on
   exec; `fd` is closed if it was one of them (a process may be started
   without stdin, and this must not become it). `fd` < 0 is -errno already.
   Returns the number, or -errno. */
int mp_fd_above_standard(int fd);

/* The same for both of a pair: 0; or -errno, and both are closed, and -1. */
int mp_fd_pair_above_standard(int pair[2]);

/* A pipe, its reading end first: closed on exec, neither a standard one. On
   failure there is nothing in `ends` to close. */
int mp_fd_pipe(int ends[2]);

/* Closes it unless it is < 0. */
void mp_fd_close(int fd);

enum { MP_FD_READ = 1, MP_FD_WRITE = 4 }; /* POLLIN, POLLOUT */

/* Blocks until one of the events, an error, or the other side's end: poll's
   events, > 0. -ETIMEDOUT the deadline passed; -EINTR a signal handler ran. */
int mp_fd_wait(int fd, int events, mp_deadline deadline);

/* The same for n of them, as poll has it: how many there are to which
   something happened, 0 the deadline passed; -EINTR; -EINVAL more than this
   process may have. Blocks. */
int mp_fd_poll(struct pollfd *fds, size_t n, mp_deadline deadline);

/* Did somebody make it a non-blocking one? */
bool mp_fd_never_waits(int fd);

/* What is there to read of a file that may block: -EAGAIN nothing yet, 0 the
   end. One reads at a time. */
ssize_t mp_fd_read(int fd, void *bytes, size_t size);

/* Writes as much as there is room for, at most what a pipe takes in one go;
   -EAGAIN none. Never raises SIGPIPE: -EPIPE. One writes at a time. */
ssize_t mp_fd_write(int fd, const struct iovec *parts, int n);

#endif
