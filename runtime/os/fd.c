#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

_Static_assert(MP_FD_READ == POLLIN && MP_FD_WRITE == POLLOUT, "poll's");

int mp_fd_above_standard(int fd) {
    if (fd < 0 || fd > STDERR_FILENO) return fd;
    int other = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int error = errno;
    close(fd);
    return other < 0 ? -error : other;
}

int mp_fd_pair_above_standard(int pair[2]) {
    pair[0] = mp_fd_above_standard(pair[0]);
    pair[1] = mp_fd_above_standard(pair[1]);
    if (pair[0] >= 0 && pair[1] >= 0) return 0;
    int r = pair[0] < 0 ? pair[0] : pair[1];
    mp_fd_close(pair[0]);
    mp_fd_close(pair[1]);
    pair[0] = pair[1] = -1;
    return r;
}

int mp_fd_pipe(int ends[2]) {
    ends[0] = ends[1] = -1;
    if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
    return mp_fd_pair_above_standard(ends);
}

void mp_fd_close(int fd) {
    if (fd >= 0) close(fd);
}

int mp_fd_poll(struct pollfd *fds, size_t n, mp_deadline deadline) {
    int64_t left = mp_deadline_left_ns(deadline);
    struct timespec t = {.tv_sec = (time_t)(left / 1000000000),
                         .tv_nsec = (long)(left % 1000000000)};
    int r = ppoll(fds, (nfds_t)n, left == INT64_MAX ? NULL : &t, NULL);
    return r < 0 ? -errno : r;
}

int mp_fd_wait(int fd, int events, mp_deadline deadline) {
    struct pollfd p = {.fd = fd, .events = (short)events};
    int r = mp_fd_poll(&p, 1, deadline);
    if (r < 0) return r;
    if (r > 0 && p.revents & POLLNVAL) return -EBADF;
    return r == 0 ? -ETIMEDOUT : p.revents;
}

bool mp_fd_never_waits(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && flags & O_NONBLOCK;
}

ssize_t mp_fd_read(int fd, void *bytes, size_t size) {
    int r = mp_fd_wait(fd, POLLIN, MP_AT_ONCE);
    if (r < 0) return r == -ETIMEDOUT ? -EAGAIN : r;
    ssize_t n = read(fd, bytes, size);
    return n < 0 ? -errno : n;
}

/* The first bytes of the parts, as far as a pipe that can be written to takes
   them without blocking. */
static int cut(const struct iovec *parts, int n, struct iovec *few) {
    size_t room = PIPE_BUF;
    int used = 0;
    for (; used < n && room > 0; used++) {
        few[used] = parts[used];
        if (few[used].iov_len > room) few[used].iov_len = room;
        room -= few[used].iov_len;
    }
    return used;
}

/* The signal is blocked while we write, and taken away if it came by that:
   it comes to this thread. One that was pending before stays. */
static ssize_t write_quietly(int fd, const struct iovec *parts, int n) {
    static const struct timespec at_once = {0};
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t done = writev(fd, parts, n);
    int error = errno;
    if (done < 0 && error == EPIPE && !sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&pipe_signal, NULL, &at_once) < 0 &&
               errno == EINTR) {
        }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return done < 0 ? -error : done;
}

ssize_t mp_fd_write(int fd, const struct iovec *parts, int n) {
    struct iovec few[4];
    int r = mp_fd_wait(fd, POLLOUT, MP_AT_ONCE);
    if (r < 0) return r == -ETIMEDOUT ? -EAGAIN : r;
    return write_quietly(fd, few, cut(parts, n < 4 ? n : 4, few));
}
