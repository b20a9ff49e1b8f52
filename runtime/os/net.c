#include "os/net.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "os/fd.h"

_Static_assert(sizeof(struct sockaddr_storage) <= MP_ADDRESS_BYTES, "room");

/* ---- addresses ------------------------------------------------------ */

static struct sockaddr *sockaddr_of(const mp_address *a) {
    return (struct sockaddr *)(uintptr_t)a->bytes;
}

int mp_address_unix(mp_address *a, const char *name, size_t size) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (size == 0) return -EINVAL;
    /* A path needs a zero byte at its end, and has none before. */
    bool path = name[0] != '\0';
    if (path && memchr(name, '\0', size)) return -EINVAL;
    if (size + path > sizeof address.sun_path) return -ENAMETOOLONG;
    memcpy(address.sun_path, name, size);
    *a = (mp_address){.family = MP_UNIX};
    memcpy(a->bytes, &address, sizeof address);
    a->size =
        (uint32_t)(offsetof(struct sockaddr_un, sun_path) + size + path);
    return 0;
}

int mp_address_inet(mp_address *a, mp_family family, const char *host,
                    uint16_t port) {
    const struct addrinfo hints = {
        .ai_family = family == MP_INET ? AF_INET : AF_INET6,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    int r = getaddrinfo(*host ? host : NULL, service, &hints, &found);
    if (r == EAI_MEMORY) return -ENOMEM;
    if (r == EAI_SYSTEM) return -errno;
    if (r != 0) return -EADDRNOTAVAIL;
    *a = (mp_address){.family = family, .size = found->ai_addrlen};
    memcpy(a->bytes, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

size_t mp_address_name(const mp_address *a, const char **name) {
    size_t head = offsetof(struct sockaddr_un, sun_path);
    *name = (const char *)a->bytes + head;
    if (a->size <= head) return 0;
    size_t size = a->size - head;
    return **name ? strnlen(*name, size) : size;
}

void mp_address_host(const mp_address *a, char host[MP_HOST_BYTES],
                     uint16_t *port) {
    const struct sockaddr_in *four = (const void *)a->bytes;
    const struct sockaddr_in6 *six = (const void *)a->bytes;
    bool is_four = a->family == MP_INET;
    *port = ntohs(is_four ? four->sin_port : six->sin6_port);
    if (is_four)
        inet_ntop(AF_INET, &four->sin_addr, host, MP_HOST_BYTES);
    else
        inet_ntop(AF_INET6, &six->sin6_addr, host, MP_HOST_BYTES);
}

static mp_family family_of(int family) {
    return family == AF_INET ? MP_INET : family == AF_INET6 ? MP_INET6
                                                            : MP_UNIX;
}

/* What getsockname and the like have put in `bytes`. */
static void settle(mp_address *a, socklen_t size) {
    a->size = size;
    a->family = family_of(sockaddr_of(a)->sa_family);
}

/* ---- listening ------------------------------------------------------ */

static int new_socket(const mp_address *a, int flags) {
    int fd = socket(sockaddr_of(a)->sa_family,
                    SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    return mp_fd_above_standard(fd < 0 ? -errno : fd);
}

static int set(int fd, int level, int option) {
    int one = 1;
    return setsockopt(fd, level, option, &one, sizeof one) < 0 ? -errno : 0;
}

static int bind_and_listen(int fd, mp_address *a, int backlog) {
    socklen_t size = sizeof a->bytes;
    if (a->family != MP_UNIX) set(fd, SOL_SOCKET, SO_REUSEADDR);
    if (bind(fd, sockaddr_of(a), a->size) < 0) return -errno;
    if (listen(fd, backlog) < 0) {
        int error = errno;
        mp_net_unlink(a);
        return -error;
    }
    if (a->family == MP_UNIX) return 0;
    if (getsockname(fd, sockaddr_of(a), &size) < 0) return -errno;
    settle(a, size);
    return 0;
}

int mp_net_listen(mp_address *a, int backlog, int *fd) {
    int made = new_socket(a, SOCK_NONBLOCK);
    if (made < 0) return made;
    int r = bind_and_listen(made, a, backlog);
    if (r < 0)
        close(made);
    else
        *fd = made;
    return r;
}

/* Whoever connected is gone again, or never was: look at the next. */
static bool is_passing(int error) {
    return error == ECONNABORTED || error == EINTR || error == EPROTO ||
           error == ENETDOWN || error == EHOSTDOWN || error == ENONET ||
           error == EHOSTUNREACH || error == ENETUNREACH ||
           error == ENOPROTOOPT;
}

int mp_net_accept(int fd, int *connected, mp_address *peer) {
    enum { TRIES = 100 };
    for (int i = 0; i < TRIES; i++) {
        socklen_t size = sizeof peer->bytes;
        memset(peer, 0, sizeof *peer);
        int got = accept4(fd, sockaddr_of(peer), &size, SOCK_CLOEXEC);
        if (got < 0 && is_passing(errno)) continue;
        if (got < 0) return -errno;
        got = mp_fd_above_standard(got);
        if (got < 0) return got;
        settle(peer, size);
        if (peer->family != MP_UNIX) set(got, IPPROTO_TCP, TCP_NODELAY);
        *connected = got;
        return 0;
    }
    return -EAGAIN;
}

void mp_net_unlink(const mp_address *a) {
    const char *path;
    if (a->family == MP_UNIX && mp_address_name(a, &path) > 0 &&
        path[0] != '\0')
        unlink(path);
}

/* ---- connecting ----------------------------------------------------- */

static const int64_t slice_ns = 100000000;

/* A local one waits only while the other's list of callers is full, and then
   there is nothing to poll: the waiting is done by connect itself. */
static int connect_local(int fd, const mp_address *a, mp_deadline deadline) {
    int64_t ns = mp_deadline_left_ns(deadline);
    if (ns > slice_ns) ns = slice_ns;
    if (ns < 1000) ns = 1000; /* none at all would mean for ever */
    struct timeval t = {.tv_usec = (suseconds_t)(ns / 1000)}, none = {0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    int r = connect(fd, sockaddr_of(a), a->size) < 0 ? -errno : 0;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    if (r != -EAGAIN) return r;
    return mp_deadline_passed(deadline) ? -ETIMEDOUT : -EINTR;
}

static int outcome(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        return -errno;
    return -error;
}

static int connect_far(int fd, const mp_address *a, mp_deadline deadline) {
    if (connect(fd, sockaddr_of(a), a->size) == 0 || errno == EISCONN)
        return 0;
    if (errno != EINPROGRESS && errno != EALREADY) return -errno;
    mp_deadline slice = mp_deadline_slice(deadline, slice_ns);
    int r = mp_fd_wait(fd, MP_FD_WRITE, slice);
    if (r == -ETIMEDOUT && slice.ns != deadline.ns) return -EINTR;
    return r < 0 ? r : outcome(fd);
}

/* What was made for waiting becomes a socket like any other. */
static int finish_far(int fd) {
    set(fd, IPPROTO_TCP, TCP_NODELAY);
    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0 ? -errno
                                                                   : 0;
}

/* ETIMEDOUT is what the kernel says of a host that does not answer, too. */
static bool goes_on(int r, mp_deadline deadline) {
    return r == -EINTR ||
           (r == -ETIMEDOUT && mp_deadline_passed(deadline));
}

int mp_net_connect(const mp_address *a, int *fd, mp_deadline deadline) {
    bool far = a->family != MP_UNIX;
    if (*fd < 0) *fd = new_socket(a, far ? SOCK_NONBLOCK : 0);
    if (*fd < 0) return *fd;
    int r = far ? connect_far(*fd, a, deadline)
                : connect_local(*fd, a, deadline);
    if (r == 0 && far) r = finish_far(*fd);
    if (r < 0 && !goes_on(r, deadline)) {
        close(*fd);
        *fd = -1;
    }
    return r;
}

/* ---- waiting for several -------------------------------------------- */

int mp_net_wait(const int *fds, int n, mp_deadline deadline) {
    struct pollfd p[MP_NET_MOST];
    assert(n <= MP_NET_MOST);
    for (int i = 0; i < n; i++)
        p[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    int r = mp_fd_poll(p, (size_t)n, deadline);
    return r == 0 ? -ETIMEDOUT : r;
}

int mp_net_any(const int *fds, int n) {
    int any = epoll_create1(EPOLL_CLOEXEC);
    any = mp_fd_above_standard(any < 0 ? -errno : any);
    for (int i = 0; any >= 0 && i < n; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        if (epoll_ctl(any, EPOLL_CTL_ADD, fds[i], &event) < 0) {
            int error = errno;
            close(any);
            return -error;
        }
    }
    return any;
}

int mp_net_process(void) { return (int)getpid(); }
