/* Connections: what is sent arrives, whole and once, however it goes. */
#include "wire/conn.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "wire_tools.h"

/* --- messages ---------------------------------------------------------- */

SPEC("wire: messages of all sizes go through a pair both ways") {
    static const size_t sizes[] = {0, 1, 3, 4, 100, 16384, 65531, 65532,
                                   65533, 65536, 200000, 5000000};
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *data = wire_bytes(sizes[i]);
        CHECK_OK(wire_send(&ends[i % 2], data, sizes[i]));
        wire_expect(&ends[1 - i % 2], data, sizes[i]);
        free(data);
    }
    wire_close(ends);
}

SPEC("wire: messages stay apart, and an empty one is one") {
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    CHECK_OK(wire_send(&ends[0], "one", 3));
    CHECK_OK(wire_send(&ends[0], "", 0));
    CHECK_OK(wire_send(&ends[0], "three", 5));
    wire_expect(&ends[1], "one", 3);
    wire_expect(&ends[1], "", 0);
    wire_expect(&ends[1], "three", 5);
    wire_close(ends);
}

SPEC("wire: a payload in two parts arrives as one") {
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    unsigned char *data = wire_bytes(100000);
    mp_conn_message m = {.head = "head", .head_size = 4, .body = data,
                         .size = 100000};
    CHECK_OK(mp_conn_send(&ends[0], &m, wire_soon()));
    mp_conn_received got;
    CHECK_OK(wire_receive(&ends[1], &got));
    CHECK_EQ(got.size, 100004);
    CHECK(memcmp(got.data, "head", 4) == 0);
    CHECK(memcmp(got.data + 4, data, 100000) == 0);
    free(data);
    wire_close(ends);
}

SPEC("wire: CON-14 a stream carries Python's bytes, and takes them") {
    mp_conn c;
    unsigned char head[4];
    int peer = wire_stream(&c);
    CHECK_OK(wire_send(&c, "hello", 5));
    CHECK_EQ(read(peer, head, 4), 4);
    CHECK(memcmp(head, "\0\0\0\5", 4) == 0);
    char text[6] = "";
    CHECK_EQ(read(peer, text, 5), 5);
    CHECK_STR(text, "hello");
    wire_put(peer, "\0\0\0\2ok\377\377\377\377\0\0\0\0\0\0\0\3abc", 21);
    wire_expect(&c, "ok", 2);
    wire_expect(&c, "abc", 3);
    mp_conn_close(&c);
    close(peer);
}

SPEC("wire: nothing is read ahead of a message in a stream") {
    mp_conn c, other;
    int peer = wire_stream(&c);
    wire_put(peer, "\0\0\0\1a\0\0\0\1b", 10);
    wire_expect(&c, "a", 1);
    CHECK_EQ(mp_conn_poll(&c, wire_at_once), 1);
    CHECK_OK(mp_conn_open(&other, mp_conn_detach(&c), true, true));
    wire_expect(&other, "b", 1);
    CHECK_EQ(mp_conn_poll(&other, wire_at_once), 0);
    mp_conn_close(&other);
    close(peer);
}

static void echo(void *argument) {
    mp_conn *ends = argument;
    mp_conn_received m;
    mp_conn_close(&ends[0]);
    while (wire_receive(&ends[1], &m) == 0)
        CHECK_OK(wire_send(&ends[1], m.data, m.size));
    mp_conn_close(&ends[1]);
}

SPEC("wire: a child sends back what it receives, until the end") {
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    pid_t child = spec_fork(echo, ends);
    mp_conn_close(&ends[1]);
    unsigned char *data = wire_bytes(300000);
    for (size_t size = 1; size < 300000; size = size * 5 + 1) {
        CHECK_OK(wire_send(&ends[0], data, size));
        wire_expect(&ends[0], data, size);
    }
    free(data);
    mp_conn_close(&ends[0]);
    CHECK_EQ(spec_wait(child), 0);
}

/* --- large payloads ---------------------------------------------------- */

SPEC("wire: the memory of a large payload is used again once it was taken") {
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    unsigned char *data = wire_bytes(1 << 20);
    for (int i = 0; i < 3; i++) {
        data[0] = (unsigned char)i;
        CHECK_OK(wire_send(&ends[0], data, 1 << 20));
        wire_expect(&ends[1], data, 1 << 20);
        if (i == 0) continue;
        CHECK_EQ(ends[1].in.file.mapped, ends[0].out.file.mapped);
    }
    struct stat file;
    CHECK_OK(fstat(ends[0].out.file.fd, &file));
    CHECK_EQ(file.st_ino, ends[1].in.file.id[1]);
    free(data);
    wire_close(ends);
}

SPEC("wire: large payloads that nobody has taken yet stay what they were") {
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    unsigned char *data = wire_bytes(100000);
    for (int i = 0; i < 4; i++) {
        data[0] = (unsigned char)i;
        CHECK_OK(wire_send(&ends[0], data, 100000));
    }
    for (int i = 0; i < 4; i++) {
        data[0] = (unsigned char)i;
        wire_expect(&ends[1], data, 100000);
    }
    free(data);
    wire_close(ends);
}

static void send_large(void *argument) {
    unsigned char *data = wire_bytes(200000);
    data[0] = 'c';
    CHECK_OK(wire_send(argument, data, 200000));
    free(data);
    wire_close((mp_conn *)argument);
}

SPEC("wire: a forked copy of a sender does not write into what it sent") {
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    unsigned char *data = wire_bytes(200000);
    CHECK_OK(wire_send(&ends[0], data, 200000));
    wire_expect(&ends[1], data, 200000);
    data[0] = 'p';
    CHECK_OK(wire_send(&ends[0], data, 200000));
    CHECK_EQ(spec_wait(spec_fork(send_large, ends)), 0);
    wire_expect(&ends[1], data, 200000);
    data[0] = 'c';
    wire_expect(&ends[1], data, 200000);
    free(data);
    wire_close(ends);
}

static void send_and_wait(void *argument) {
    unsigned char *data = wire_bytes(300000);
    CHECK_OK(wire_send(argument, data, 300000));
    for (;;) pause();
}

SPEC("wire: a large payload outlives the one who sent it") {
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    pid_t child = spec_fork(send_and_wait, ends);
    CHECK_EQ(mp_conn_poll(&ends[1], wire_soon()), 1);
    spec_kill(child);
    unsigned char *data = wire_bytes(300000);
    wire_expect(&ends[1], data, 300000);
    free(data);
    wire_close(ends);
}

/* A limit on descriptors that leaves none. */
static struct rlimit take_descriptors(void) {
    struct rlimit before, none;
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
    none = before;
    int next = dup(0);
    CHECK_OK(next);
    close(next);
    none.rlim_cur = (rlim_t)next;
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &none));
    return before;
}

static void send_pieces(void *argument) {
    mp_conn *ends = argument;
    unsigned char *data = wire_bytes(1000000);
    mp_conn_close(&ends[1]);
    take_descriptors();
    CHECK_OK(wire_send(&ends[0], data, 1000000));
    CHECK_OK(wire_send(&ends[0], "next", 4));
    free(data);
    mp_conn_close(&ends[0]);
}

SPEC("wire: without a descriptor a large payload goes in packets") {
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    pid_t child = spec_fork(send_pieces, ends);
    unsigned char *data = wire_bytes(1000000);
    wire_expect(&ends[1], data, 1000000);
    wire_expect(&ends[1], "next", 4);
    CHECK_EQ(spec_wait(child), 0);
    free(data);
    wire_close(ends);
}

SPEC("wire: who has no descriptor for a large payload is told, and goes on") {
    mp_conn ends[2];
    mp_conn_received m;
    if (spec_valgrind()) return; /* a message's descriptors have no limit */
    CHECK_OK(mp_conn_pair(ends, true));
    unsigned char *data = wire_bytes(100000);
    CHECK_OK(wire_send(&ends[0], data, 100000));
    CHECK_OK(wire_send(&ends[0], "next", 4));
    struct rlimit before = take_descriptors();
    CHECK_EQ(wire_receive(&ends[1], &m), -EMFILE);
    wire_expect(&ends[1], "next", 4);
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
    free(data);
    wire_close(ends);
}

/* --- the end ----------------------------------------------------------- */

SPEC("wire: CON-04 the end comes after what was sent before it") {
    mp_conn ends[2];
    mp_conn_received m;
    CHECK_OK(mp_conn_pair(ends, true));
    CHECK_OK(wire_send(&ends[0], "last", 4));
    mp_conn_close(&ends[0]);
    mp_conn_close(&ends[0]);
    wire_expect(&ends[1], "last", 4);
    CHECK_EQ(mp_conn_poll(&ends[1], wire_at_once), 1);
    CHECK_EQ(wire_receive(&ends[1], &m), -EPIPE);
    CHECK_EQ(wire_send(&ends[1], "x", 1), -EPIPE);
    mp_conn_close(&ends[1]);
}

SPEC("wire: what was sent arrives when the peer went without reading all") {
    mp_conn ends[2];
    mp_conn_received m;
    CHECK_OK(mp_conn_pair(ends, true));
    CHECK_OK(wire_send(&ends[0], "to you", 6));
    CHECK_OK(wire_send(&ends[1], "unread", 6));
    mp_conn_close(&ends[0]);
    wire_expect(&ends[1], "to you", 6);
    CHECK_EQ(wire_receive(&ends[1], &m), -EPIPE);
    mp_conn_close(&ends[1]);
}

SPEC("wire: of a simplex pair one end reads and the other one writes") {
    mp_conn ends[2];
    mp_conn_received m;
    CHECK_OK(mp_conn_pair(ends, false));
    CHECK(ends[0].readable && !ends[0].writable);
    CHECK(!ends[1].readable && ends[1].writable);
    CHECK_OK(wire_send(&ends[1], "x", 1));
    wire_expect(&ends[0], "x", 1);
    CHECK_EQ(wire_send(&ends[0], "x", 1), -EPIPE);
    mp_conn_close(&ends[1]);
    CHECK_EQ(wire_receive(&ends[0], &m), -EPIPE);
    mp_conn_close(&ends[0]);
}

SPEC("wire: a pipe and a FIFO carry messages, and never raise SIGPIPE") {
    int pipes[2];
    mp_conn reader, writer;
    mp_conn_received m;
    CHECK_OK(pipe2(pipes, O_CLOEXEC));
    CHECK_OK(mp_conn_open(&reader, pipes[0], true, false));
    CHECK_OK(mp_conn_open(&writer, pipes[1], false, true));
    unsigned char *data = wire_bytes(30000);
    CHECK_OK(wire_send(&writer, data, 30000));
    wire_expect(&reader, data, 30000);
    CHECK_EQ(mp_conn_poll(&reader, wire_at_once), 0);
    mp_conn_close(&reader);
    CHECK_EQ(wire_send(&writer, data, 10), -EPIPE);
    sigset_t pending;
    sigpending(&pending);
    CHECK(!sigismember(&pending, SIGPIPE));
    mp_conn_close(&writer);
    CHECK_OK(pipe2(pipes, O_CLOEXEC));
    CHECK_OK(mp_conn_open(&reader, pipes[0], true, false));
    close(pipes[1]);
    CHECK_EQ(wire_receive(&reader, &m), -EPIPE);
    mp_conn_close(&reader);
    free(data);
}

/* --- waiting ----------------------------------------------------------- */

SPEC("wire: a wait ends at its deadline, and in slices before") {
    mp_conn ends[2];
    mp_conn_received m;
    CHECK_OK(mp_conn_pair(ends, true));
    CHECK_EQ(mp_conn_receive(&ends[0], 9, &m, wire_at_once), -ETIMEDOUT);
    CHECK_EQ(mp_conn_receive(&ends[0], 9, &m, mp_deadline_in(0.01)),
             -ETIMEDOUT);
    double start = spec_now();
    CHECK_EQ(mp_conn_receive(&ends[0], 9, &m, MP_FOREVER), -EINTR);
    CHECK_EQ(mp_conn_receive(&ends[0], 9, &m, mp_deadline_in(5)), -EINTR);
    CHECK(spec_now() - start >= 0.19);
    CHECK_EQ(mp_conn_poll(&ends[0], wire_at_once), 0);
    CHECK_EQ(mp_conn_poll(&ends[0], mp_deadline_in(0.01)), 0);
    CHECK_EQ(mp_conn_poll(&ends[0], MP_FOREVER), -EINTR);
    wire_close(ends);
}

SPEC("wire: a non-blocking socket is waited for without spinning") {
    mp_conn ends[2];
    mp_conn_received m;
    struct rusage before, after;
    CHECK_OK(mp_conn_pair(ends, true));
    CHECK_OK(fcntl(ends[0].fd, F_SETFL, O_NONBLOCK));
    getrusage(RUSAGE_SELF, &before);
    double start = spec_now();
    CHECK_EQ(mp_conn_receive(&ends[0], 9, &m, MP_FOREVER), -EINTR);
    CHECK(spec_now() - start >= 0.09);
    getrusage(RUSAGE_SELF, &after);
    CHECK(after.ru_nvcsw - before.ru_nvcsw < 50);
    wire_close(ends);
}

SPEC("wire: a full pair makes its sender wait, and loses nothing") {
    mp_conn ends[2];
    char text[1000] = "";
    int sent = 0, received = 0;
    CHECK_OK(mp_conn_pair(ends, true));
    mp_conn_message m = {.body = text, .size = sizeof text};
    while (mp_conn_send(&ends[0], &m, wire_at_once) == 0) text[0]++, sent++;
    CHECK_EQ(mp_conn_send(&ends[0], &m, wire_at_once), -ETIMEDOUT);
    mp_conn_give_up(&ends[0], &m);
    for (mp_conn_received got; received < sent; received++) {
        CHECK_OK(mp_conn_receive(&ends[1], 1000, &got, wire_at_once));
        CHECK_EQ(got.data[0], (unsigned char)received);
    }
    CHECK_OK(mp_conn_send(&ends[0], &m, wire_at_once));
    wire_expect(&ends[1], text, sizeof text);
    wire_close(ends);
}

SPEC("wire: half a message in a stream is gone on with") {
    mp_conn a, b;
    CHECK_OK(mp_conn_open(&b, wire_stream(&a), true, true));
    size_t size = 3000000;
    unsigned char *data = wire_bytes(size);
    mp_conn_message m = {.body = data, .size = size};
    mp_conn_received got;
    int sent = -ETIMEDOUT, received = -ETIMEDOUT, turns = 0;
    while (received < 0) {
        if (sent < 0) sent = mp_conn_send(&a, &m, wire_at_once);
        CHECK(sent == 0 || sent == -ETIMEDOUT);
        received = mp_conn_receive(&b, SIZE_MAX, &got, wire_at_once);
        CHECK(received == 0 || received == -ETIMEDOUT);
        turns++;
    }
    CHECK(turns > 2);
    CHECK_EQ(got.size, size);
    CHECK(memcmp(got.data, data, size) == 0);
    free(data);
    mp_conn_close(&a);
    mp_conn_close(&b);
}

SPEC("wire: the rest of a message that was given up goes before the next") {
    mp_conn a, b;
    CHECK_OK(mp_conn_open(&b, wire_stream(&a), true, true));
    size_t size = 2000000;
    unsigned char *data = wire_bytes(size);
    mp_conn_message m = {.body = data, .size = size};
    CHECK_EQ(mp_conn_send(&a, &m, wire_at_once), -ETIMEDOUT);
    mp_conn_give_up(&a, &m);
    mp_conn_message next = {.body = "next", .size = 4};
    mp_conn_received got;
    int sent = -ETIMEDOUT, received = -ETIMEDOUT;
    while (received < 0) {
        if (sent < 0) sent = mp_conn_send(&a, &next, wire_at_once);
        received = mp_conn_receive(&b, SIZE_MAX, &got, wire_at_once);
        CHECK(received == 0 || received == -ETIMEDOUT);
    }
    CHECK_EQ(got.size, size);
    CHECK(memcmp(got.data, data, size) == 0);
    while (sent < 0) sent = mp_conn_send(&a, &next, wire_at_once);
    wire_expect(&b, "next", 4);
    free(data);
    mp_conn_close(&a);
    mp_conn_close(&b);
}

/* --- descriptors ------------------------------------------------------- */

SPEC("wire: descriptors ride along, closed on exec, and surplus is closed") {
    for (int large = 0; large < 2; large++) {
        mp_conn ends[2];
        mp_conn_received got;
        int pipes[2], before;
        CHECK_OK(mp_conn_pair(ends, true));
        CHECK_OK(pipe2(pipes, O_CLOEXEC));
        unsigned char *data = wire_bytes(100000);
        mp_conn_message m = {.body = data, .size = large ? 100000 : 10,
                             .fds = pipes, .n_fds = 2};
        CHECK_OK(mp_conn_send(&ends[0], &m, wire_soon()));
        before = wire_open_fds();
        CHECK_OK(wire_receive(&ends[1], &got));
        CHECK_EQ(got.n_fds, 2);
        CHECK_EQ(wire_open_fds(), before + 2);
        CHECK(fcntl(got.fds[0], F_GETFD) & FD_CLOEXEC);
        int mine = got.fds[1];
        got.fds[1] = -1;
        mp_conn_release(&ends[1]);
        CHECK_EQ(wire_open_fds(), before + 1);
        CHECK_EQ(write(mine, "x", 1), 1);
        char x;
        CHECK_EQ(read(pipes[0], &x, 1), 1);
        close(mine);
        close(pipes[0]);
        close(pipes[1]);
        free(data);
        wire_close(ends);
    }
}

SPEC("wire: descriptors go with a message over a stream, and not a pipe") {
    mp_conn a, b, c;
    mp_conn_received got;
    int pipes[2];
    CHECK_OK(mp_conn_open(&b, wire_stream(&a), true, true));
    CHECK_OK(pipe2(pipes, O_CLOEXEC));
    CHECK_OK(mp_conn_open(&c, pipes[1], false, true));
    mp_conn_message m = {.body = "x", .size = 1, .fds = pipes, .n_fds = 1};
    CHECK_OK(wire_send(&a, "without", 7));
    CHECK_OK(mp_conn_send(&a, &m, wire_soon()));
    CHECK_EQ(mp_conn_send(&c, &m, wire_soon()), -ENOTSUP);
    CHECK_OK(wire_receive(&b, &got));
    CHECK_EQ(got.n_fds, 0);
    CHECK_OK(wire_receive(&b, &got));
    CHECK_EQ(got.n_fds, 1);
    mp_conn_close(&a);
    mp_conn_close(&b);
    mp_conn_close(&c);
    close(pipes[0]);
}

SPEC("wire: a message taken out stays when the next one comes") {
    for (int large = 0; large < 2; large++) {
        mp_conn ends[2];
        mp_conn_received got;
        mp_conn_taken taken;
        size_t size = large ? 100000 : 100;
        unsigned char *data = wire_bytes(size);
        CHECK_OK(mp_conn_pair(ends, true));
        CHECK_OK(wire_send(&ends[0], data, size));
        CHECK_OK(wire_receive(&ends[1], &got));
        CHECK_EQ(got.shared, large);
        CHECK_OK(mp_conn_take(&ends[1], &got, &taken));
        data[0] = 'n';
        CHECK_OK(wire_send(&ends[0], data, size));
        wire_expect(&ends[1], data, size);
        data[0] = 0;
        CHECK(!taken.message.shared);
        CHECK(memcmp(taken.message.data, data, size) == 0);
        mp_conn_put_back(&ends[1], &taken);
        free(data);
        wire_close(ends);
    }
}

SPEC("wire: an empty message that comes first can be taken out") {
    mp_conn c;
    mp_conn_received got;
    mp_conn_taken taken;
    int peer = wire_stream(&c), null = open("/dev/null", O_RDONLY);
    wire_put_rights(peer, "\0\0\0", 4, &null, 1);
    CHECK_OK(wire_receive(&c, &got));
    CHECK_EQ(got.n_fds, 1);
    CHECK_OK(mp_conn_take(&c, &got, &taken));
    CHECK(taken.message.data && taken.message.size == 0);
    mp_conn_put_back(&c, &taken);
    mp_conn_close(&c);
    close(peer);
    close(null);
}

/* --- what is no connection --------------------------------------------- */

SPEC("wire: CON-02 what cannot carry messages is refused") {
    mp_conn c;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(mp_conn_open(&c, fd, true, true), -ENOTSUP);
    close(fd);
    CHECK_EQ(mp_conn_open(&c, fd, true, true), -EBADF);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(mp_conn_open(&c, fd, true, true), -ENOTCONN);
    close(fd);
    fd = open("/", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(mp_conn_open(&c, fd, true, true), -ENOTSUP);
    close(fd);
    c.fd = -1;
    mp_conn_received m;
    CHECK_EQ(mp_conn_poll(&c, wire_at_once), -EBADF);
    CHECK_EQ(mp_conn_receive(&c, 1, &m, wire_at_once), -EBADF);
}
