/* The receiving side. In packets a message is there whole after one system
   call, and nothing is read ahead. Of a stream only the head and then the
   payload are asked for, never more: what follows stays in the kernel, so
   that poll tells the truth and another process can go on reading. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "os/fd.h"
#include "os/socket.h"
#include "wire/conn.h"
#include "wire/conn_impl.h"

enum {
    KEPT = 1 << 20  /* bytes: a larger buffer is not kept for the next */
};

/* ---- room ----------------------------------------------------------- */

static bool room_for(mp_conn_in *in, size_t need) {
    unsigned char *data = mp_grow(in->data, &in->cap, 1, need);
    if (data) in->data = data;
    return data;
}

/* Room for the next bytes of a payload: no more than as many again as have
   come, whatever was announced. */
static bool grow(mp_conn_in *in) {
    size_t most = in->got < MP_CONN_INLINE ? MP_CONN_INLINE : 2 * in->got;
    if (in->got < in->cap) return true;
    return room_for(in, in->size < most ? (size_t)in->size : most);
}

/* ---- descriptors ---------------------------------------------------- */

void conn_drop_rights(mp_conn *c) {
    for (int i = 0; i < c->in.n_fds; i++) mp_fd_close(c->in.fds[i]);
    c->in.n_fds = 0;
}

/* Gets bytes, and with a message's first byte its descriptors. */
static ssize_t get(mp_conn *c, void *bytes, size_t size, bool first,
                   bool wait, bool *cut) {
    if (c->kind == MP_CONN_FILE) return mp_fd_read(c->fd, bytes, size);
    mp_socket_rights rights = {.fds = c->in.fds,
                               .most = first ? MP_CONN_ROOM_FDS : 0};
    bool asked = c->local && (first || cut);
    ssize_t got = mp_socket_get(c->fd, bytes, size, asked ? &rights : NULL,
                                wait && c->timed);
    /* Of a peer that went without reading all, what it sent is still there;
       and if not, the end. */
    if (got == -ECONNRESET)
        got = mp_socket_get(c->fd, bytes, size, asked ? &rights : NULL,
                            false);
    if (got == -ECONNRESET) got = 0;
    if (cut) *cut = asked && got >= 0 && rights.cut;
    if (!asked || got < 0) return got;
    if (first) {
        c->in.n_fds = (uint8_t)rights.n;
        c->in.lost_fds = rights.lost;
    }
    return got;
}

/* Nothing was there: 0 look again, or -ETIMEDOUT, -EINTR. */
static int wait_for_more(const mp_conn *c, ssize_t got, bool waited,
                         mp_deadline deadline) {
    if (got == -EINTR) return -EINTR;
    if (got != -EAGAIN) return (int)got;
    /* It waited already, unless somebody made the socket a non-blocking
       one; then the rest of this function is what keeps us from spinning. */
    if (waited && c->timed && !mp_fd_never_waits(c->fd)) return -EINTR;
    int r = conn_wait(c, MP_FD_READ, deadline);
    return r < 0 ? r : 0;
}

/* ---- packets -------------------------------------------------------- */

/* A whole packet into `room` bytes at data + at. */
static int get_packet(mp_conn *c, size_t at, bool first, size_t *size,
                      mp_deadline deadline) {
    bool cut = false, wait = deadline.ns == INT64_MAX;
    for (;;) {
        ssize_t got = get(c, c->in.data + at, c->in.cap - at, first, wait,
                          &cut);
        if (got > 0 && cut) {
            conn_drop_rights(c);
            return -EBADMSG;
        }
        if (got > 0) {
            *size = (size_t)got;
            return 0;
        }
        if (got == 0) return -EPIPE;
        int r = wait_for_more(c, got, wait, deadline);
        if (r < 0) return r;
    }
}

/* The packet at data + 0, of `size` bytes, begins a message of this form:
   where its payload begins; -EBADMSG. Sets in->size. */
static int look_at_head(mp_conn_in *in, size_t size, bool *large) {
    if (size < CONN_HEAD) return -EBADMSG;
    int32_t length = (int32_t)conn_get_number(in->data, 4);
    *large = length == CONN_LARGE;
    if (length >= 0) {
        in->size = (uint32_t)length;
        return size - CONN_HEAD > in->size ? -EBADMSG : CONN_HEAD;
    }
    if (length < CONN_LARGE || size < CONN_LONG_HEAD) return -EBADMSG;
    in->size = conn_get_number(in->data + 4, 8);
    if (in->size > SIZE_MAX / 4 ||
        (*large ? size != CONN_LONG_HEAD
                : size - CONN_LONG_HEAD > in->size))
        return -EBADMSG;
    return CONN_LONG_HEAD;
}

/* The payload lies in the first descriptor. */
static int open_large(mp_conn *c, mp_conn_received *m) {
    mp_conn_in *in = &c->in;
    if (in->n_fds == 0) return in->lost_fds ? -EMFILE : -EBADMSG;
    int r = mp_large_open(&in->file, in->fds[0], in->size, &m->data);
    in->fds[0] = -1;
    if (r < 0) return r;
    in->large = true;
    m->size = (size_t)in->size;
    m->shared = true;
    m->fds = in->fds + 1;
    m->n_fds = in->n_fds - 1;
    return 0;
}

/* The packets that follow the first one, of a message that is not in a
   file: each behind the last one. */
static int get_rest(mp_conn *c, mp_deadline deadline) {
    mp_conn_in *in = &c->in;
    while (in->got < in->size) {
        size_t size;
        if (!room_for(in, in->got + MP_CONN_INLINE)) return -ENOMEM;
        int r = get_packet(c, in->got, false, &size, deadline);
        if (r == -EPIPE) return -ENODATA;
        if (r < 0) return r;
        if (size > in->size - in->got) return -EBADMSG;
        in->got += size;
    }
    return 0;
}

static void give(mp_conn *c, mp_conn_received *m, size_t at) {
    static const unsigned char empty[1];
    m->data = c->in.data ? c->in.data + at : empty;
    m->size = (size_t)c->in.size;
    m->fds = c->in.fds;
    m->n_fds = c->in.n_fds;
}

static int receive_packets(mp_conn *c, size_t most, mp_conn_received *m,
                           mp_deadline deadline) {
    mp_conn_in *in = &c->in;
    size_t size;
    bool large = false;
    if (!in->begun) {
        if (!room_for(in, MP_CONN_INLINE)) return -ENOMEM;
        int r = get_packet(c, 0, true, &size, deadline);
        if (r < 0) return r;
        int at = look_at_head(in, size, &large);
        if (at < 0) return at;
        /* Of one that goes on, the rest must be read, too. */
        size_t here = size - (size_t)at;
        if (in->size > most && (large || here == in->size))
            return -EMSGSIZE;
        if (large) return open_large(c, m);
        if (here == in->size) {
            give(c, m, (size_t)at);
            return 0;
        }
        memmove(in->data, in->data + at, here);
        in->got = here;
        in->begun = true;
    }
    int r = get_rest(c, deadline);
    if (r == 0 && in->size > most) r = -EMSGSIZE;
    if (r == 0) give(c, m, 0);
    return r;
}

/* ---- streams and files ---------------------------------------------- */

/* Up to `size` bytes to `to`, counted in *got. */
static int get_some(mp_conn *c, unsigned char *to, size_t size, bool first,
                    mp_deadline deadline) {
    for (;;) {
        ssize_t n = get(c, to, size, first, false, NULL);
        if (n >= 0) return (int)n;
        int r = wait_for_more(c, n, false, deadline);
        if (r < 0) return r;
    }
}

/* The head; 1 when it is whole. */
static int get_head(mp_conn *c, mp_deadline deadline) {
    mp_conn_in *in = &c->in;
    for (;;) {
        int32_t length = (int32_t)conn_get_number(in->head, 4);
        size_t need = in->head_got < CONN_HEAD || length != CONN_LONG
                          ? CONN_HEAD
                          : CONN_LONG_HEAD;
        if (in->head_got == need) {
            if (length < CONN_LONG) return -EBADMSG;
            in->size = length >= 0 ? (uint32_t)length
                                   : conn_get_number(in->head + 4, 8);
            return 0;
        }
        int n = get_some(c, in->head + in->head_got, need - in->head_got,
                         in->head_got == 0, deadline);
        if (n < 0) return n;
        if (n == 0) return in->head_got == 0 ? -EPIPE : -ENODATA;
        in->head_got = (uint8_t)(in->head_got + n);
    }
}

static int get_payload(mp_conn *c, mp_deadline deadline) {
    enum { AT_ONCE = 1 << 30 };
    mp_conn_in *in = &c->in;
    while (in->got < in->size) {
        if (!grow(in)) return -ENOMEM;
        size_t room = in->cap - in->got;
        if (room > in->size - in->got) room = (size_t)(in->size - in->got);
        if (room > AT_ONCE) room = AT_ONCE;
        int n = get_some(c, in->data + in->got, room, false, deadline);
        if (n < 0) return n;
        if (n == 0) return -ENODATA;
        in->got += (size_t)n;
    }
    return 0;
}

static int receive_bytes(mp_conn *c, size_t most, mp_conn_received *m,
                         mp_deadline deadline) {
    mp_conn_in *in = &c->in;
    if (!in->begun) {
        int r = get_head(c, deadline);
        if (r < 0) return r;
        if (in->size > most) return -EMSGSIZE;
        if (in->size > SIZE_MAX / 4) return -EBADMSG;
        in->begun = true;
        in->got = 0;
    }
    int r = get_payload(c, deadline);
    if (r == 0) give(c, m, 0);
    return r;
}

/* ---- the door ------------------------------------------------------- */

void mp_conn_release(mp_conn *c) {
    mp_conn_in *in = &c->in;
    if (in->begun || in->head_got > 0) return; /* there was none yet */
    conn_drop_rights(c);
    in->lost_fds = false;
    if (in->large) mp_large_taken(&in->file);
    in->large = false;
    if (in->cap > KEPT) {
        free(in->data);
        in->data = NULL;
        in->cap = 0;
    }
}

/* Copies a message that its sender can still write to. */
static int copy(mp_conn_taken *t) {
    t->cap = 0;
    t->block = malloc(t->message.size ? t->message.size : 1);
    if (!t->block) return -ENOMEM;
    memcpy(t->block, t->message.data, t->message.size);
    t->message.data = t->block;
    t->message.shared = false;
    return 0;
}

int mp_conn_take(mp_conn *c, const mp_conn_received *m, mp_conn_taken *t) {
    mp_conn_in *in = &c->in;
    int r = 0;
    t->message = *m;
    t->block = in->data; /* NULL: it is empty, and the first one */
    t->cap = in->cap;
    if (m->shared) {
        r = copy(t);
    } else {
        in->data = NULL;
        in->cap = 0;
    }
    for (int i = 0; i < m->n_fds; i++) {
        t->fds[i] = m->fds[i];
        m->fds[i] = -1;
    }
    t->message.fds = t->fds;
    mp_conn_release(c);
    if (r < 0) mp_conn_put_back(c, t);
    return r;
}

void mp_conn_put_back(mp_conn *c, mp_conn_taken *t) {
    for (int i = 0; i < t->message.n_fds; i++) mp_fd_close(t->fds[i]);
    if (c->fd >= 0 && !c->in.data && t->cap > 0 && t->cap <= KEPT) {
        c->in.data = t->block;
        c->in.cap = t->cap;
    } else {
        free(t->block);
    }
}

/* A message is there, or will never be: what comes next is another. */
static void begin_anew(mp_conn_in *in) {
    in->begun = false;
    in->head_got = 0;
    in->got = 0;
}

/* In packets the next one is a message again, whatever this was. */
static bool spoils(const mp_conn *c, int r) {
    return c->kind != MP_CONN_PACKETS && r != -EPIPE;
}

int mp_conn_receive(mp_conn *c, size_t most, mp_conn_received *m,
                    mp_deadline deadline) {
    mp_conn_in *in = &c->in;
    if (c->fd < 0) return -EBADF;
    if (in->broken) return -EBADMSG;
    mp_conn_release(c);
    *m = (mp_conn_received){0};
    int r = c->kind == MP_CONN_PACKETS
                ? receive_packets(c, most, m, deadline)
                : receive_bytes(c, most, m, deadline);
    if (r == -EINTR || r == -ETIMEDOUT) return r;
    m->lost_fds = in->lost_fds;
    begin_anew(in);
    if (r < 0) {
        in->broken = spoils(c, r);
        mp_conn_release(c);
    }
    return r;
}
