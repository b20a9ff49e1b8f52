#include "os/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "os/fd.h"

int mp_socket_pair(int pair[2]) {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    pair[0] = mp_fd_above_standard(pair[0]);
    pair[1] = mp_fd_above_standard(pair[1]);
    if (pair[0] >= 0 && pair[1] >= 0) return 0;
    int r = pair[0] < 0 ? pair[0] : pair[1];
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0) close(pair[i]);
    return r;
}

void mp_socket_end(int fd) {
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

/* Room for descriptors beside a message. */
typedef union control {
    struct cmsghdr align;
    unsigned char bytes[CMSG_SPACE(sizeof(int) * MP_SOCKET_MOST_FDS)];
} control;

int mp_socket_send(int fd, const void *bytes, size_t size, const int *fds,
                   int n) {
    struct iovec io = {.iov_base = (void *)(uintptr_t)bytes,
                       .iov_len = size};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    control room = {0};
    size_t length = sizeof(int) * (size_t)n;
    if (n > 0) {
        message.msg_control = &room;
        message.msg_controllen = CMSG_SPACE(length);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(length);
        memcpy(CMSG_DATA(head), fds, length);
    }
    ssize_t sent;
    do sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0) return errno == ECONNRESET ? -EPIPE : -errno;
    return 0;
}

static int sleep_on(int fd, short events, mp_deadline deadline) {
    struct pollfd p = {.fd = fd, .events = events};
    int64_t left = mp_deadline_left_ns(deadline);
    struct timespec t = {.tv_sec = (time_t)(left / 1000000000),
                         .tv_nsec = (long)(left % 1000000000)};
    int n = ppoll(&p, 1, left == INT64_MAX ? NULL : &t, NULL);
    if (n < 0) return -errno;
    return n == 0 ? -ETIMEDOUT : p.revents;
}

int mp_socket_gone(int fd, mp_deadline deadline) {
    int r = sleep_on(fd, 0, deadline);
    return r > 0 ? 0 : r;
}

/* Takes the descriptors over; those there is no place for are closed. */
static int take(struct msghdr *message, int *fds, int most) {
    int n = 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head;
         head = CMSG_NXTHDR(message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
            fd = mp_fd_above_standard(fd);
            if (fd >= 0 && n < most)
                fds[n++] = fd;
            else if (fd >= 0)
                close(fd);
        }
    }
    return n;
}

int mp_socket_receive(int fd, void *bytes, size_t size, int *fds, int *n,
                      mp_deadline deadline) {
    struct iovec io = {.iov_base = bytes, .iov_len = size};
    control room;
    struct msghdr message = {.msg_iov = &io,
                             .msg_iovlen = 1,
                             .msg_control = &room,
                             .msg_controllen = sizeof room};
    int most = *n, r = 0;
    *n = 0;
    if (deadline.ns != INT64_MAX) r = sleep_on(fd, POLLIN, deadline);
    if (r < 0) return r;
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (got < 0) return errno == ECONNRESET ? -EPIPE : -errno;
    *n = take(&message, fds, most);
    if (got == (ssize_t)size && !(message.msg_flags & MSG_TRUNC)) return 0;
    while (*n > 0) close(fds[--*n]);
    return got == 0 ? -EPIPE : -EBADMSG;
}
