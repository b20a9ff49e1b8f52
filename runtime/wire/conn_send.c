/* The sending side. A message is a sequence of bytes, its head first, and
   out.sent says how many have gone. In packets nearly all messages go at
   once, so out.sent is 0 between calls; elsewhere a call may end in the
   middle of a message. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/fd.h"
#include "os/socket.h"
#include "wire/conn.h"
#include "wire/conn_impl.h"

/* A message as it goes over the wire. */
typedef struct frame {
    unsigned char head[CONN_LONG_HEAD];
    struct iovec parts[3];
    uint64_t size;         /* of all parts */
    const int *fds;
    int n_fds;
    int room[MP_CONN_ROOM_FDS]; /* for `fds`, with a file in front */
} frame;

/* ---- what goes over the wire ---------------------------------------- */

static size_t payload_of(const mp_conn_message *m) {
    return m->head_size + m->size;
}

static void make_frame(frame *f, const mp_conn_message *m) {
    size_t payload = payload_of(m), head = CONN_HEAD;
    if (payload <= INT32_MAX) {
        conn_put_number(f->head, payload, 4);
    } else {
        head = CONN_LONG_HEAD;
        conn_put_number(f->head, (uint32_t)CONN_LONG, 4);
        conn_put_number(f->head + 4, payload, 8);
    }
    f->parts[0] = (struct iovec){f->head, head};
    f->parts[1] = (struct iovec){(void *)(uintptr_t)m->head, m->head_size};
    f->parts[2] = (struct iovec){(void *)(uintptr_t)m->body, m->size};
    f->size = head + payload;
    f->fds = m->fds;
    f->n_fds = m->n_fds;
}

/* The same for a payload in the file of out.file. */
static void make_large_frame(mp_conn *c, frame *f,
                             const mp_conn_message *m) {
    conn_put_number(f->head, (uint32_t)CONN_LARGE, 4);
    conn_put_number(f->head + 4, payload_of(m), 8);
    f->parts[0] = (struct iovec){f->head, CONN_LONG_HEAD};
    f->parts[1] = f->parts[2] = (struct iovec){0};
    f->size = CONN_LONG_HEAD;
    f->room[0] = c->out.file.fd;
    if (m->n_fds > 0)
        memcpy(f->room + 1, m->fds, sizeof(int) * (size_t)m->n_fds);
    f->fds = f->room;
    f->n_fds = m->n_fds + 1;
}

/* Puts the payload into a file; false: it must go in packets. */
static bool post(mp_conn *c, const mp_conn_message *m) {
    if (c->out.posted) return true;
    mp_large_part parts[] = {{m->head, m->head_size}, {m->body, m->size}};
    c->out.posted = mp_large_post(&c->out.file, parts, 2) == 0;
    return c->out.posted;
}

static void choose_frame(mp_conn *c, frame *f, const mp_conn_message *m) {
    bool large = c->kind == MP_CONN_PACKETS &&
                 payload_of(m) + CONN_HEAD > MP_CONN_INLINE;
    if (large && !c->out.whole) c->out.whole = !post(c, m);
    if (large && !c->out.whole)
        make_large_frame(c, f, m);
    else
        make_frame(f, m);
}

/* ---- putting bytes -------------------------------------------------- */

/* The parts from byte `at` on, at most `most` bytes; how many parts. */
static int cut(const frame *f, uint64_t at, size_t most,
               struct iovec parts[3]) {
    int n = 0;
    for (int i = 0; i < 3 && most > 0; i++) {
        struct iovec part = f->parts[i];
        if (at >= part.iov_len) {
            at -= part.iov_len;
            continue;
        }
        part.iov_base = (char *)part.iov_base + at;
        part.iov_len -= (size_t)at;
        if (part.iov_len > most) part.iov_len = most;
        most -= part.iov_len;
        at = 0;
        parts[n++] = part;
    }
    return n;
}

/* As much as there is room for now: the number of bytes, or -EAGAIN, ... */
static ssize_t put(const mp_conn *c, const struct iovec *parts, int n,
                   const int *fds, int n_fds) {
    if (c->kind == MP_CONN_FILE) return mp_fd_write(c->fd, parts, n);
    return mp_socket_put(c->fd, parts, n, fds, n_fds);
}

/* Sends what is left of the frame. */
static int push(mp_conn *c, const frame *f, mp_deadline deadline) {
    size_t most = c->kind == MP_CONN_PACKETS ? MP_CONN_INLINE : SIZE_MAX;
    while (c->out.sent < f->size) {
        struct iovec parts[3];
        int n = cut(f, c->out.sent, most, parts);
        bool first = c->out.sent == 0;
        ssize_t done = put(c, parts, n, f->fds, first ? f->n_fds : 0);
        /* A socket may be given less room than ours for a packet. */
        if (done == -EMSGSIZE && most > 1024) {
            most /= 2;
            continue;
        }
        if (done == -EAGAIN) {
            int r = conn_wait(c, MP_FD_WRITE, deadline);
            if (r < 0) return r;
            continue;
        }
        if (done < 0) return (int)done;
        c->out.sent += (uint64_t)done;
    }
    return 0;
}

/* ---- the rest of a message that was given up ------------------------ */

static int push_rest(mp_conn *c, mp_deadline deadline) {
    frame f = {.size = c->out.rest_size};
    f.parts[0] = (struct iovec){c->out.rest, c->out.rest_size};
    /* Counting as push does; but its beginning has gone, descriptors too. */
    c->out.sent = c->out.rest_at;
    int r = push(c, &f, deadline);
    c->out.rest_at = (size_t)c->out.sent;
    c->out.sent = 0;
    if (r < 0) return r;
    free(c->out.rest);
    c->out.rest = NULL;
    return 0;
}

/* The message is done with, sent or not. */
static void forget(mp_conn *c) {
    c->out.sent = 0;
    c->out.posted = c->out.whole = false;
    mp_large_trim(&c->out.file);
}

void mp_conn_give_up(mp_conn *c, const mp_conn_message *m) {
    frame f;
    if (c->out.sent > 0 && !c->out.broken) {
        make_frame(&f, m);
        size_t size = (size_t)(f.size - c->out.sent);
        unsigned char *to = c->out.rest = malloc(size);
        c->out.broken = !to;
        if (to) {
            struct iovec parts[3];
            int n = cut(&f, c->out.sent, size, parts);
            for (int i = 0; i < n; i++) {
                memcpy(to, parts[i].iov_base, parts[i].iov_len);
                to += parts[i].iov_len;
            }
            c->out.rest_size = size;
            c->out.rest_at = 0;
        }
    } else if (c->out.posted) {
        mp_large_recall(&c->out.file);
    }
    forget(c);
}

/* ---- the door ------------------------------------------------------- */

/* Whether a message of ours can go on where it was, or a new one begin. */
static int check(const mp_conn *c, const mp_conn_message *m) {
    if (c->fd < 0) return -EBADF;
    if (c->out.broken) return -EBADMSG;
    if (m->n_fds > 0 && !c->local) return -ENOTSUP;
    return m->n_fds < 0 || m->n_fds > MP_CONN_MOST_FDS + 1 ? -EINVAL : 0;
}

int mp_conn_send(mp_conn *c, const mp_conn_message *m,
                 mp_deadline deadline) {
    frame f;
    int r = check(c, m);
    if (r == 0 && c->out.rest) r = push_rest(c, deadline);
    if (r < 0) return r;
    choose_frame(c, &f, m);
    r = push(c, &f, deadline);
    if (r == -EINTR || r == -ETIMEDOUT) return r;
    /* What failed in the middle cannot be mended; a gone peer needs not. */
    if (r < 0 && c->out.sent > 0) c->out.broken = r != -EPIPE;
    if (r < 0 && c->out.posted) mp_large_recall(&c->out.file);
    forget(c);
    return r;
}
