/* Peers of a connection that send what they should not: nothing crashes,
   nothing is left open, and nothing takes more memory than its bytes. */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "wire_tools.h"

/* A message that must be refused as this, with what it has cost. */
static void refused(mp_conn *c, int wanted) {
    mp_conn_received m;
    int before = wire_open_fds();
    CHECK_EQ(wire_receive(c, &m), wanted);
    CHECK(wire_open_fds() <= before);
}

SPEC("wire: a huge length takes no memory before its bytes come") {
    static const unsigned char heads[][12] = {
        {0x7f, 0xff, 0xff, 0xff},
        {0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff,
         0xff}};
    for (size_t i = 0; i < 2; i++) {
        mp_conn c;
        mp_conn_received m;
        int peer = wire_stream(&c);
        wire_put(peer, heads[i], i == 0 ? 4 : 12);
        wire_put(peer, "some bytes", 10);
        CHECK_EQ(mp_conn_receive(&c, SIZE_MAX, &m, mp_deadline_in(0.02)),
                 -ETIMEDOUT);
        CHECK(c.in.cap <= 2 * MP_CONN_INLINE);
        close(peer);
        refused(&c, -ENODATA);
        refused(&c, -EBADMSG);
        mp_conn_close(&c);
    }
}

SPEC("wire: a length beyond all memory and a negative one spoil a stream") {
    static const char *const heads[] = {
        "\377\377\377\377\377\377\377\377\377\377\377\377",
        "\377\377\377\376\0\0\0\0\0\0\0\1", "\200\0\0\0\0\0\0\0\0\0\0\0"};
    for (size_t i = 0; i < 3; i++) {
        mp_conn c;
        int peer = wire_stream(&c);
        wire_put(peer, heads[i], 12);
        refused(&c, -EBADMSG);
        CHECK_EQ(mp_conn_poll(&c, wire_at_once), 1);
        refused(&c, -EBADMSG);
        mp_conn_close(&c);
        close(peer);
    }
}

SPEC("wire: every beginning of a message and then the end is told") {
    static const char message[] = "\377\377\377\377\0\0\0\0\0\0\0\5hello";
    for (size_t size = 0; size < 17; size++) {
        mp_conn c;
        int peer = wire_stream(&c);
        if (size > 0) wire_put(peer, message, size);
        close(peer);
        refused(&c, size == 0 ? -EPIPE : -ENODATA);
        mp_conn_close(&c);
    }
}

SPEC("wire: a message that comes byte by byte is waited for and arrives") {
    static const char message[] = "\0\0\0\5hello";
    mp_conn c;
    mp_conn_received m;
    int peer = wire_stream(&c);
    for (size_t i = 0; i < 8; i++) {
        wire_put(peer, message + i, 1);
        CHECK_EQ(mp_conn_receive(&c, 100, &m, wire_at_once), -ETIMEDOUT);
    }
    wire_put(peer, message + 8, 1);
    wire_expect(&c, "hello", 5);
    mp_conn_close(&c);
    close(peer);
}

SPEC("wire: CON-07 a message that is too long is refused before its bytes") {
    mp_conn c;
    mp_conn_received m;
    int peer = wire_stream(&c);
    wire_put(peer, "\0\0\0\5hello", 9);
    CHECK_EQ(mp_conn_receive(&c, 3, &m, wire_soon()), -EMSGSIZE);
    mp_conn_close(&c);
    close(peer);
    peer = wire_packets(&c);
    wire_put(peer, "\0\0\0\5hello", 9);
    wire_put(peer, "\0\0\0\2ok", 6);
    CHECK_EQ(mp_conn_receive(&c, 3, &m, wire_soon()), -EMSGSIZE);
    wire_expect(&c, "ok", 2);
    mp_conn_close(&c);
    close(peer);
}

SPEC("wire: a bad packet is one bad message, and the next one is read") {
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {{"x", 1},
               {"\0\0\0\1", 3},
               {"\0\0\0\1ab", 6},
               {"\377\377\377\377\0\0\0\0", 8},
               {"\377\377\377\377\0\0\0\0\0\0\0\1ab", 14},
               {"\377\377\377\377\377\377\377\377\377\377\377\377", 12},
               {"\377\377\377\376\0\0\0\0\0\0\0\1", 12},
               {"\377\377\377\376\0\0\0\0\0\0\0\1x", 13},
               {"\200\0\0\0", 4}};
    mp_conn c;
    int peer = wire_packets(&c);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        wire_put(peer, bad[i].bytes, bad[i].size);
        wire_put(peer, "\0\0\0\2ok", 6);
        refused(&c, -EBADMSG);
        wire_expect(&c, "ok", 2);
    }
    mp_conn_close(&c);
    close(peer);
}

SPEC("wire: a packet that is larger than ours is refused, not cut") {
    mp_conn c;
    int peer = wire_packets(&c);
    unsigned char *data = wire_bytes(100000);
    memcpy(data, "\0\1\206\234", 4); /* 99996: all that follows */
    wire_put(peer, data, 100000);
    wire_put(peer, "\0\0\0\2ok", 6);
    refused(&c, -EBADMSG);
    wire_expect(&c, "ok", 2);
    free(data);
    mp_conn_close(&c);
    close(peer);
}

/* --- files that are none ------------------------------------------------ */

static const unsigned char large_head[] = "\377\377\377\376\0\0\0\0\0\1\0\0";

static int memfd(size_t size, unsigned seals) {
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_OK(fd);
    CHECK_OK(ftruncate(fd, (off_t)size));
    CHECK_OK(fcntl(fd, F_ADD_SEALS, seals));
    return fd;
}

/* Sends this file as a payload of 64 KiB; it must be refused. */
static void post(int fd) {
    mp_conn c;
    int peer = wire_packets(&c);
    wire_put_rights(peer, large_head, 12, &fd, 1);
    wire_put(peer, "\0\0\0\2ok", 6);
    close(fd);
    refused(&c, -EBADMSG);
    wire_expect(&c, "ok", 2);
    mp_conn_close(&c);
    close(peer);
}

SPEC("wire: a payload in a file that can shrink is refused") {
    int fd = memfd(1 << 20, 0);
    CHECK_OK(fallocate(fd, 0, 0, 1 << 20));
    post(fd);
}

SPEC("wire: a payload in a file too short, empty, sparse or sealed shut "
     "is refused") {
    post(memfd(1000, F_SEAL_SHRINK));
    post(memfd(0, F_SEAL_SHRINK));
    post(memfd(1 << 20, F_SEAL_SHRINK)); /* no memory behind it */
    int fd = memfd(1 << 20, 0);
    CHECK_OK(fallocate(fd, 0, 0, 1 << 20));
    CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE));
    post(fd);
}

SPEC("wire: a payload in what is no memory at all is refused") {
    int pipes[2];
    CHECK_OK(pipe2(pipes, O_CLOEXEC));
    close(pipes[1]);
    post(pipes[0]);
    post(open("/dev/zero", O_RDWR | O_CLOEXEC));
    post(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    post(open("/", O_RDONLY | O_CLOEXEC));
    char name[40];
    snprintf(name, sizeof name, "/tmp/wire_spec_%d", (int)getpid());
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK_OK(fd);
    unlink(name);
    CHECK_OK(ftruncate(fd, 1 << 20));
    post(fd);
}

SPEC("wire: a file that grew or lost its memory since is looked at anew") {
    mp_conn c;
    mp_conn_received m;
    int peer = wire_packets(&c), fd = memfd(1 << 17, F_SEAL_SHRINK);
    CHECK_OK(fallocate(fd, 0, 0, 1 << 17));
    wire_put_rights(peer, large_head, 12, &fd, 1);
    CHECK_OK(wire_receive(&c, &m));
    CHECK_EQ(m.size, 1 << 16);
    CHECK_OK(ftruncate(fd, 1 << 18));
    wire_put_rights(peer, large_head, 12, &fd, 1);
    refused(&c, -EBADMSG);
    CHECK_OK(fallocate(fd, 0, 0, 1 << 18));
    wire_put_rights(peer, large_head, 12, &fd, 1);
    CHECK_OK(wire_receive(&c, &m));
    CHECK_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                       1 << 17));
    wire_put_rights(peer, large_head, 12, &fd, 1);
    refused(&c, -EBADMSG);
    close(fd);
    close(peer);
    mp_conn_close(&c);
}

/* --- descriptors that nobody asked for ---------------------------------- */

SPEC("wire: a flood of descriptors is closed as it comes") {
    int fds[253], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    mp_conn c;
    mp_conn_received m;
    for (int i = 0; i < 253; i++) fds[i] = null;
    int peer = wire_stream(&c), before = wire_open_fds();
    for (int i = 0; i < 10; i++) {
        wire_put_rights(peer, "\0\0\0\5he", 6, fds, 200);
        wire_put_rights(peer, "llo", 3, fds, 253);
        CHECK_OK(wire_receive(&c, &m));
        CHECK_EQ(m.n_fds, MP_CONN_ROOM_FDS);
        CHECK(m.lost_fds);
        mp_conn_release(&c);
        CHECK_EQ(wire_open_fds(), before);
    }
    mp_conn_close(&c);
    close(peer);
    peer = wire_packets(&c);
    before = wire_open_fds();
    for (int i = 0; i < 10; i++) {
        wire_put_rights(peer, "\0\0\0\5he", 6, fds, 253);
        wire_put_rights(peer, "llo", 3, fds, 253);
        CHECK_OK(wire_receive(&c, &m));
        mp_conn_release(&c);
        CHECK_EQ(wire_open_fds(), before);
    }
    mp_conn_close(&c);
    close(peer);
    close(null);
}

/* --- mutations ---------------------------------------------------------- */

static uint32_t next_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

/* A few good messages, damaged. */
static size_t damaged(unsigned char *p, uint32_t *state) {
    static const unsigned char good[] =
        "\0\0\0\5hello\377\377\377\377\0\0\0\0\0\0\0\3abc\0\0\0\0"
        "\377\377\377\376\0\0\0\0\0\1\0\0\0\0\0\1z";
    size_t size = sizeof good - 1;
    memcpy(p, good, size);
    for (uint32_t n = next_random(state) % 4; n > 0; n--)
        p[next_random(state) % size] = (unsigned char)next_random(state);
    if (next_random(state) % 4 == 0) size = next_random(state) % size + 1;
    return size;
}

/* Reads until nothing more comes. Whatever it is told, it must not crash,
   hang, keep a descriptor, or give out more than was sent. */
static void read_all(mp_conn *c, size_t sent) {
    mp_conn_received m;
    size_t sum = 0;
    for (int tries = 0; tries < 100; tries++) {
        int r = mp_conn_receive(c, SIZE_MAX, &m, wire_at_once);
        if (r == -EPIPE || r == -ETIMEDOUT) return;
        if (r < 0 && c->in.broken) return;
        if (r == 0 && !m.shared) sum += m.size;
        CHECK(sum <= sent);
        CHECK(c->in.cap <= 4 * MP_CONN_INLINE);
    }
    CHECK(!"it ends");
}

static void mutate(int (*make)(mp_conn *), int rounds) {
    uint32_t state = 20261121;
    int before = wire_open_fds(), null = open("/dev/null", O_RDONLY);
    for (int i = 0; i < rounds; i++) {
        unsigned char bytes[128];
        mp_conn c;
        int peer = make(&c);
        size_t size = damaged(bytes, &state), at = 0;
        while (at < size) {
            size_t n = next_random(&state) % (size - at) + 1;
            if (next_random(&state) % 3 == 0)
                wire_put_rights(peer, bytes + at, n, &null, 1);
            else
                wire_put(peer, bytes + at, n);
            at += n;
        }
        if (next_random(&state) % 2) shutdown(peer, SHUT_RDWR);
        read_all(&c, size);
        mp_conn_close(&c);
        close(peer);
        CHECK_EQ(wire_open_fds(), before + 1);
    }
    close(null);
}

SPEC("wire: damaged streams never do harm") { mutate(wire_stream, 3000); }

SPEC("wire: damaged packets never do harm") { mutate(wire_packets, 3000); }
