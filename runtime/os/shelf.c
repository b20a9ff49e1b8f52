/* Entries are messages of eight bytes, each with one descriptor, so the n-th
   is found by an offset. To drop one, those before it go behind the others:
   peeked, which makes descriptors of them here, sent again, and only then
   received. */
#include "os/shelf.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "os/fd.h"
#include "os/socket.h"

enum {
    ENTRY = 8,      /* bytes: the key */
    ROOM = 1 << 18, /* bytes of the queue, which the kernel doubles: some 680
                       entries, so that to find and move one takes 2 ms at
                       worst. It may grant less */
    SPARE = 4096,   /* ... that stay free, for entries that move */
    MOST = 4096     /* entries in which one that stands twice is found */
};

/* Held while a descriptor is here that is nobody's, and by who forks. */
static pthread_mutex_t moving = PTHREAD_MUTEX_INITIALIZER;

static void before_fork(void) { pthread_mutex_lock(&moving); }
static void after_fork(void) { pthread_mutex_unlock(&moving); }

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork, after_fork);
}

/* ---- the sockets ----------------------------------------------------- */

int mp_shelf_open(int ends[2]) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int room = ROOM;
    pthread_once(&once, watch_forks);
    int r = mp_socket_pair(ends);
    if (r < 0) return r;
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    return 0;
}

int mp_shelf_files(const int ends[2], uint64_t files[2]) {
    for (int i = 0; i < 2; i++) {
        struct stat about;
        if (fstat(ends[i], &about) < 0) return -errno;
        if (!S_ISSOCK(about.st_mode)) return -ENOTSOCK;
        files[i] = about.st_ino;
    }
    return 0;
}

bool mp_shelf_is(const int ends[2], const uint64_t files[2]) {
    uint64_t own[2];
    return mp_shelf_files(ends, own) == 0 && own[0] == files[0] &&
           own[1] == files[1];
}

/* ---- entries --------------------------------------------------------- */

static int send_entry(int end, uint64_t key, int fd) {
    const struct iovec io = {.iov_base = &key, .iov_len = ENTRY};
    ssize_t n = mp_socket_put(end, &io, 1, &fd, 1);
    if (n == ENTRY) return 0;
    return n == -EAGAIN || n == -ENOBUFS ? -ENOSPC : (int)n;
}

/* The next peek shows the entry that has `at` before it, the one after that
   the next. */
static int look_from(int end, int at) {
    int offset = at * ENTRY;
    return setsockopt(end, SOL_SOCKET, SO_PEEK_OFF, &offset,
                      sizeof offset) < 0
               ? -errno
               : 0;
}

static int next_key(int end, uint64_t *key) {
    ssize_t n = recv(end, key, ENTRY, MSG_PEEK | MSG_DONTWAIT);
    if (n == ENTRY) return 0;
    return n < 0 && errno != EAGAIN ? -errno : -ENOENT;
}

/* How many stand before the entry. */
static int find(int end, uint64_t key) {
    uint64_t seen;
    int r = look_from(end, 0);
    for (int at = 0; r == 0; at++) {
        r = next_key(end, &seen);
        if (r == 0 && seen == key) return at;
    }
    return r;
}

typedef union control {
    struct cmsghdr align;
    unsigned char bytes[CMSG_SPACE(sizeof(int))];
} control;

/* A descriptor of the entry that has `at` before it. */
static int peek(int end, int at, uint64_t *key) {
    control room;
    struct iovec io = {.iov_base = key, .iov_len = ENTRY};
    struct msghdr message = {.msg_iov = &io,
                             .msg_iovlen = 1,
                             .msg_control = &room,
                             .msg_controllen = sizeof room};
    int fd, r = look_from(end, at);
    if (r < 0) return r;
    if (recvmsg(end, &message,
                MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != ENTRY)
        return errno == EAGAIN ? -ENOENT : -errno;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (!head || head->cmsg_type != SCM_RIGHTS ||
        head->cmsg_len != CMSG_LEN(sizeof fd))
        return -EMFILE;
    memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

/* The first entry is gone, and what lies there closed. */
static int drop_first(int end) {
    uint64_t key;
    return recv(end, &key, ENTRY, MSG_DONTWAIT) == ENTRY ? 0 : -errno;
}

/* The first entry becomes the last. */
static int rotate(const int ends[2]) {
    uint64_t key;
    pthread_mutex_lock(&moving);
    int fd = peek(ends[1], 0, &key);
    int r = fd < 0 ? fd : send_entry(ends[0], key, fd);
    if (r == 0) r = drop_first(ends[1]);
    if (fd >= 0) close(fd);
    pthread_mutex_unlock(&moving);
    return r;
}

int mp_shelf_put(const int ends[2], uint64_t key, int fd) {
    int queued, room;
    socklen_t size = sizeof room;
    if (ioctl(ends[0], SIOCOUTQ, &queued) < 0 ||
        getsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, &size) < 0)
        return -errno;
    if (queued + SPARE > room) return -ENOSPC;
    return send_entry(ends[0], key, fd);
}

int mp_shelf_take(const int ends[2], uint64_t key) {
    uint64_t seen;
    int at = find(ends[1], key);
    return mp_fd_above_standard(at < 0 ? at : peek(ends[1], at, &seen));
}

int mp_shelf_drop(const int ends[2], uint64_t key, int most) {
    int at = find(ends[1], key), r = at < 0 ? at : at > most ? -EAGAIN : 0;
    while (r == 0 && at-- > 0) r = rotate(ends);
    return r == 0 ? drop_first(ends[1]) : r;
}

int mp_shelf_count(const int ends[2]) {
    uint64_t key;
    int n = 0, r = look_from(ends[1], 0);
    while (r == 0 && (r = next_key(ends[1], &key)) == 0) n++;
    return r == -ENOENT ? n : r;
}

static bool seen_before(const uint64_t *keys, int n, uint64_t key) {
    for (int i = 0; i < n; i++)
        if (keys[i] == key) return true;
    return false;
}

int mp_shelf_tidy(const int ends[2], bool (*keep)(uint64_t key)) {
    uint64_t keys[MOST];
    int n = mp_shelf_count(ends), kept = 0, r = n < 0 ? n : 0;
    for (; r == 0 && n > 0; n--) {
        uint64_t key;
        r = look_from(ends[1], 0);
        if (r == 0) r = next_key(ends[1], &key);
        if (r < 0) break;
        if (!keep(key) || seen_before(keys, kept, key)) {
            r = drop_first(ends[1]);
            continue;
        }
        r = rotate(ends);
        if (kept < MOST) keys[kept++] = key;
    }
    return r;
}

/* ---- the bell -------------------------------------------------------- */

/* One stands there at a time, mostly: the queue must not get full. */
void mp_shelf_ring(const int ends[2]) {
    char byte = 0;
    ssize_t n;
    recv(ends[0], &byte, 1, MSG_DONTWAIT);
    while ((n = send(ends[1], &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL)) < 0 &&
           errno == EAGAIN && recv(ends[0], &byte, 1, MSG_DONTWAIT) == 1) {
    }
}

/* Edge-triggered: each message that comes is an event, though nobody reads
   it. */
int mp_shelf_listen(const int ends[2]) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int fd = epoll_create1(EPOLL_CLOEXEC);
    fd = mp_fd_above_standard(fd < 0 ? -errno : fd);
    if (fd < 0) return fd;
    if (epoll_ctl(fd, EPOLL_CTL_ADD, ends[0], &event) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    mp_shelf_heard(fd); /* of rings before */
    return fd;
}

void mp_shelf_heard(int listener) {
    struct epoll_event event;
    epoll_wait(listener, &event, 1, 0);
}
