#include "os/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "os/fd.h"

int mp_socket_pair(int pair[2]) {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    return mp_fd_pair_above_standard(pair);
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

typedef union large_control {
    struct cmsghdr align;
    unsigned char bytes[CMSG_SPACE(sizeof(int) * MP_SOCKET_MOST_RIGHTS)];
} large_control;

/* Puts descriptors beside a message; `room` is large enough. */
static void attach(struct msghdr *message, void *room, const int *fds,
                   int n) {
    size_t length = sizeof(int) * (size_t)n;
    message->msg_control = room;
    message->msg_controllen = CMSG_SPACE(length);
    memset(room, 0, CMSG_SPACE(length));
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(head), fds, length);
}

static ssize_t send_message(int fd, const struct msghdr *message, int flags) {
    ssize_t sent;
    do sent = sendmsg(fd, message, flags | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0) return errno == ECONNRESET ? -EPIPE : -errno;
    return sent;
}

int mp_socket_send(int fd, const void *bytes, size_t size, const int *fds,
                   int n) {
    struct iovec io = {.iov_base = (void *)(uintptr_t)bytes,
                       .iov_len = size};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    control room;
    if (n > 0) attach(&message, &room, fds, n);
    ssize_t sent = send_message(fd, &message, 0);
    return sent < 0 ? (int)sent : 0;
}

int mp_socket_gone(int fd, mp_deadline deadline) {
    int r = mp_fd_wait(fd, 0, deadline);
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

/* How many descriptors came along. */
static int count_rights(struct msghdr *message) {
    size_t n = 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head;
         head = CMSG_NXTHDR(message, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
            n += (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    return (int)n;
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
    if (deadline.ns != INT64_MAX) r = mp_fd_wait(fd, MP_FD_READ, deadline);
    if (r < 0) return r;
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (got < 0) return errno == ECONNRESET ? -EPIPE : -errno;
    *n = take(&message, fds, most);
    if (got == (ssize_t)size && !(message.msg_flags & MSG_TRUNC)) return 0;
    while (*n > 0) close(fds[--*n]);
    return got == 0 ? -EPIPE : -EBADMSG;
}

/* ---- what connections are made of ----------------------------------- */

enum { PUT_SMALL = 512 };

/* Microseconds; 0 of a receive that waits for ever. */
static int64_t slice_of(int fd) {
    struct timeval t = {0};
    socklen_t size = sizeof t;
    if (getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, &size) < 0) return 0;
    return (int64_t)t.tv_sec * 1000000 + t.tv_usec;
}

static int look_at_file(int fd, mp_socket_kind *kind) {
    struct stat about;
    *kind = (mp_socket_kind){0};
    if (fstat(fd, &about) < 0) return -errno;
    return S_ISDIR(about.st_mode) || S_ISBLK(about.st_mode) ? -ENOTSUP : 0;
}

int mp_socket_look(int fd, mp_socket_kind *kind) {
    enum { LONGEST = 100000 }; /* microseconds */
    struct sockaddr_storage peer;
    socklen_t size = sizeof(int);
    int type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return errno == ENOTSOCK ? look_at_file(fd, kind) : -errno;
    if (type != SOCK_STREAM && type != SOCK_SEQPACKET) return -ENOTSUP;
    size = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0) return -errno;
    int64_t slice = slice_of(fd);
    kind->socket = true;
    kind->packets = type == SOCK_SEQPACKET;
    kind->local = peer.ss_family == AF_UNIX;
    if (kind->packets && !kind->local) return -ENOTSUP;
    kind->timed = slice > 0 && slice <= LONGEST;
    return 0;
}

int mp_socket_slice(int fd, int64_t ns) {
    struct timeval t = {.tv_sec = (time_t)(ns / 1000000000),
                        .tv_usec = (suseconds_t)(ns % 1000000000 / 1000)};
    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) < 0 ? -errno
                                                                     : 0;
}

void mp_socket_shut(int fd, bool reading) {
    shutdown(fd, reading ? SHUT_RD : SHUT_WR);
}

/* A few bytes in one piece: that is cheaper than to tell the kernel about
   several. */
static ssize_t put_small(int fd, const struct iovec *parts, int n) {
    unsigned char bytes[PUT_SMALL];
    size_t size = 0;
    for (int i = 0; i < n; i++) {
        memcpy(bytes + size, parts[i].iov_base, parts[i].iov_len);
        size += parts[i].iov_len;
    }
    ssize_t sent;
    do sent = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0) return errno == ECONNRESET ? -EPIPE : -errno;
    return sent;
}

static bool is_small(const struct iovec *parts, int n) {
    size_t size = 0;
    for (int i = 0; i < n; i++) {
        if (parts[i].iov_len > PUT_SMALL) return false;
        size += parts[i].iov_len;
    }
    return size <= PUT_SMALL;
}

ssize_t mp_socket_put(int fd, const struct iovec *parts, int n,
                      const int *fds, int n_fds) {
    if (n_fds == 0 && is_small(parts, n)) return put_small(fd, parts, n);
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts,
                             .msg_iovlen = (size_t)n};
    large_control room;
    if (n_fds > MP_SOCKET_MOST_RIGHTS) return -EINVAL;
    if (n_fds > 0) attach(&message, &room, fds, n_fds);
    return send_message(fd, &message, MSG_DONTWAIT);
}

ssize_t mp_socket_get(int fd, void *bytes, size_t size,
                      mp_socket_rights *rights, bool wait) {
    struct iovec io = {.iov_base = bytes, .iov_len = size};
    large_control room;
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    if (rights) {
        message.msg_control = &room;
        message.msg_controllen = sizeof room;
        rights->n = 0;
        rights->lost = rights->cut = false;
    }
    ssize_t got =
        recvmsg(fd, &message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    if (got < 0) return -errno;
    if (!rights) return got;
    rights->cut = message.msg_flags & MSG_TRUNC;
    rights->lost = message.msg_flags & MSG_CTRUNC;
    if (message.msg_controllen > 0) {
        int all = count_rights(&message);
        rights->n = take(&message, rights->fds, rights->most);
        rights->lost = rights->lost || rights->n < all;
    }
    return got;
}
