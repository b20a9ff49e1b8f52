/* Fuzzes what is read from sockets: any bytes at all, in any pieces and with
   any descriptors beside them, must be messages or errors, leave no descriptor
   open, and take memory in proportion to their number.

   An input is a byte that says how (below) and then pieces: a byte (its low
   six bits: how many bytes follow; its high two: what descriptor goes along),
   and the bytes, which are sent at once. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/fd.h"
#include "wire/auth.h"
#include "wire/conn.h"

/* The first byte. Bits 3 to 5 are a mp_auth_role and 1; 0: no handshake. */
enum {
    HOW_PACKETS = 1, /* not a stream */
    HOW_SHORT = 2,   /* no message of more than SHORT bytes is wanted */
    HOW_TAKEN = 4,   /* each message is taken out of its connection */
    HOW_ROLE = 3,
    HOW_ENDS = 64    /* the sender hangs up */
};

enum { SHORT = 16, BESIDE = 4096, CALLS = 1000 };

static volatile uint8_t touched; /* every byte is */
static const mp_key key = {"key", 3};

static void demand(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "fuzz_wire: %s\n", what);
    abort();
}

/* The descriptors that may go along; [0]: none. */
static int beside[4] = {-1, -1, -1, -1};

static void open_beside(void) {
    beside[1] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    beside[2] = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    beside[3] = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    for (int i = 2; i < 4; i++)
        demand(ftruncate(beside[i], BESIDE) == 0, "a memfd");
    demand(fcntl(beside[2], F_ADD_SEALS, F_SEAL_SHRINK) == 0, "a seal");
}

/* What does not go through is not sent. */
static void put(int peer, const uint8_t *bytes, size_t n, int fd) {
    struct iovec io = {(void *)(uintptr_t)bytes, n};
    char room[CMSG_SPACE(sizeof fd)] = {0};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = room;
        message.msg_controllen = sizeof room;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    if (sendmsg(peer, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        demand(errno == EAGAIN || errno == EPIPE, "a piece is sent");
}

static void put_all(int peer, const uint8_t *data, size_t len) {
    while (len > 0) {
        size_t n = *data & 63u;
        int fd = beside[*data >> 6];
        data++, len--;
        if (n > len) n = len;
        put(peer, data, n, fd);
        data += n, len -= n;
    }
}

static void shake_hands(mp_conn *c, unsigned role) {
    mp_auth a;
    mp_auth_begin(&a, (mp_auth_role)(role - 1), MP_SHA256);
    int r, calls = 0;
    while ((r = mp_auth_run(&a, c, &key, MP_AT_ONCE)) == -EINTR)
        demand(++calls < CALLS, "the handshake ends");
    demand(r <= 0, "a handshake returns 0 or an error");
}

static void look_at(mp_conn *c, const mp_conn_received *m, unsigned how,
                    size_t sent) {
    for (size_t i = 0; i < m->size; i++) touched ^= m->data[i];
    demand(m->size <= (m->shared ? BESIDE : sent), "not more than sent");
    demand(!(how & HOW_SHORT) || m->size <= SHORT, "not more than wanted");
    for (int i = 0; i < m->n_fds; i++)
        demand(fcntl(m->fds[i], F_GETFD) >= 0, "descriptors are open");
    mp_conn_taken taken;
    if (how & HOW_TAKEN) {
        demand(mp_conn_take(c, m, &taken) == 0, "a message can be taken");
        mp_conn_put_back(c, &taken);
    } else {
        mp_conn_release(c);
    }
}

static void read_all(mp_conn *c, unsigned how, size_t sent) {
    size_t most = how & HOW_SHORT ? SHORT : SIZE_MAX;
    mp_conn_received m;
    for (int calls = 0; calls < CALLS; calls++) {
        int r = mp_conn_receive(c, most, &m, MP_AT_ONCE);
        if (r == 0) look_at(c, &m, how, sent);
        demand(c->in.cap <= 4 * MP_CONN_INLINE, "memory for what was sent");
        if (r == -EPIPE || r == -ETIMEDOUT || c->in.broken) return;
    }
    demand(sent >= CALLS / 4, "it ends");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    mp_conn ends[2];
    if (beside[1] < 0) open_beside();
    if (len < 1) return 0;
    int lowest = dup(beside[1]);
    close(lowest);
    unsigned how = data[0], role = how >> HOW_ROLE & 7;
    if (how & HOW_PACKETS) {
        demand(mp_conn_pair(ends, true) == 0, "a pair");
    } else {
        int pair[2];
        demand(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 &&
                   mp_conn_open(&ends[0], pair[0], true, true) == 0 &&
                   mp_conn_open(&ends[1], pair[1], true, true) == 0,
               "a stream");
    }
    put_all(ends[1].fd, data + 1, len - 1);
    if (how & HOW_ENDS) shutdown(ends[1].fd, SHUT_WR);
    if (role >= 1 && role <= 4) shake_hands(&ends[0], role);
    read_all(&ends[0], how, len);
    mp_conn_close(&ends[0]);
    mp_conn_close(&ends[1]);
    int after = dup(beside[1]);
    close(after);
    demand(after == lowest, "no descriptor stays open");
    return 0;
}
