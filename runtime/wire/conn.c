#include "wire/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/fd.h"
#include "os/socket.h"
#include "wire/conn_impl.h"

_Static_assert((int)MP_CONN_EVENTS == (int)MP_FD_READ, "poll's");
_Static_assert((int)MP_CONN_ROOM_FDS <= (int)MP_SOCKET_MOST_RIGHTS,
               "as many as the kernel takes");

int mp_conn_open(mp_conn *c, int fd, bool readable, bool writable) {
    mp_socket_kind kind;
    int r = mp_socket_look(fd, &kind);
    if (r < 0) return r;
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->kind = !kind.socket   ? MP_CONN_FILE
              : kind.packets ? MP_CONN_PACKETS
                             : MP_CONN_STREAM;
    c->local = kind.local;
    c->timed = kind.timed;
    c->readable = readable;
    c->writable = writable;
    c->in.file.fd = c->out.file.fd = -1;
    return 0;
}

static int open_ends(mp_conn ends[2], const int pair[2], bool duplex) {
    for (int i = 0; i < 2; i++) {
        int r = mp_socket_slice(pair[i], MP_CONN_SLICE_NS);
        if (r == 0)
            r = mp_conn_open(&ends[i], pair[i], duplex || i == 0,
                             duplex || i == 1);
        if (r < 0) return r;
        if (!duplex) mp_socket_shut(pair[i], i == 1);
    }
    return 0;
}

int mp_conn_pair(mp_conn ends[2], bool duplex) {
    int pair[2];
    int r = mp_socket_pair(pair);
    if (r < 0) return r;
    r = open_ends(ends, pair, duplex);
    if (r < 0) {
        mp_fd_close(pair[0]);
        mp_fd_close(pair[1]);
    }
    return r;
}

int mp_conn_detach(mp_conn *c) {
    int fd = c->fd;
    if (fd < 0) return -EBADF;
    mp_conn_release(c);
    conn_drop_rights(c);
    free(c->in.data);
    free(c->out.rest);
    mp_large_drop(&c->in.file);
    if (c->out.posted) mp_large_recall(&c->out.file);
    mp_large_drop(&c->out.file);
    memset(&c->in, 0, sizeof c->in);
    memset(&c->out, 0, sizeof c->out);
    c->in.file.fd = c->out.file.fd = -1;
    c->fd = -1;
    return fd;
}

void mp_conn_close(mp_conn *c) {
    if (c->fd >= 0) mp_fd_close(mp_conn_detach(c));
}

int conn_wait(const mp_conn *c, int events, mp_deadline deadline) {
    if (deadline.ns == 0) return -ETIMEDOUT;
    mp_deadline slice = mp_deadline_slice(deadline, MP_CONN_SLICE_NS);
    int r = mp_fd_wait(c->fd, events, slice);
    if (r != -ETIMEDOUT) return r;
    return slice.ns == deadline.ns ? -ETIMEDOUT : -EINTR;
}

int mp_conn_poll(mp_conn *c, mp_deadline deadline) {
    if (c->fd < 0) return -EBADF;
    if (c->in.broken) return 1;
    int r = deadline.ns == 0 ? mp_fd_wait(c->fd, MP_FD_READ, deadline)
                             : conn_wait(c, MP_FD_READ, deadline);
    return r == -ETIMEDOUT ? 0 : r > 0 ? 1 : r;
}
