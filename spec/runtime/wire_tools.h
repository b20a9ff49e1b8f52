/* What the specs of connections share. */
#ifndef MP_SPEC_WIRE_TOOLS_H
#define MP_SPEC_WIRE_TOOLS_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"
#include "wire/conn.h"

static const mp_deadline wire_at_once = {0};

static inline mp_deadline wire_soon(void) { return mp_deadline_in(10); }

/* Bytes that tell where they are. */
static inline unsigned char *wire_bytes(size_t size) {
    unsigned char *p = malloc(size ? size : 1);
    CHECK(p);
    for (size_t i = 0; i < size; i++)
        p[i] = (unsigned char)(i * 7 + i / 251);
    return p;
}

static inline int wire_send(mp_conn *c, const void *data, size_t size) {
    mp_conn_message m = {.body = data, .size = size};
    int r;
    mp_deadline deadline = wire_soon();
    while ((r = mp_conn_send(c, &m, deadline)) == -EINTR) {
    }
    return r;
}

static inline int wire_receive(mp_conn *c, mp_conn_received *m) {
    int r;
    mp_deadline deadline = wire_soon();
    while ((r = mp_conn_receive(c, SIZE_MAX, m, deadline)) == -EINTR) {
    }
    return r;
}

/* The next message must be just these bytes. */
static inline void wire_expect(mp_conn *c, const void *data, size_t size) {
    mp_conn_received m;
    CHECK_OK(wire_receive(c, &m));
    CHECK_EQ(m.size, size);
    CHECK(memcmp(m.data, data, size) == 0);
    mp_conn_release(c);
}

static inline void wire_close(mp_conn ends[2]) {
    mp_conn_close(&ends[0]);
    mp_conn_close(&ends[1]);
}

/* A pair of stream sockets: one end a connection, the other one raw. */
static inline int wire_stream(mp_conn *c) {
    int pair[2];
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    CHECK_OK(mp_conn_open(c, pair[0], true, true));
    return pair[1];
}

/* The same in packets. */
static inline int wire_packets(mp_conn *c) {
    mp_conn ends[2];
    CHECK_OK(mp_conn_pair(ends, true));
    *c = ends[0];
    return mp_conn_detach(&ends[1]);
}

static inline void wire_put(int fd, const void *bytes, size_t size) {
    CHECK_EQ(send(fd, bytes, size, MSG_NOSIGNAL), size);
}

/* Sends bytes with descriptors, as anybody might. */
static inline void wire_put_rights(int fd, const void *bytes, size_t size,
                                   const int *fds, int n) {
    struct iovec io = {(void *)(uintptr_t)bytes, size};
    char room[CMSG_SPACE(sizeof(int) * 253)] = {0};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1,
                             .msg_control = room,
                             .msg_controllen =
                                 CMSG_SPACE(sizeof(int) * (size_t)n)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
    memcpy(CMSG_DATA(head), fds, sizeof(int) * (size_t)n);
    CHECK_EQ(sendmsg(fd, &message, MSG_NOSIGNAL), size);
}

/* How many descriptors are open here. */
static inline int wire_open_fds(void) {
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

#endif
