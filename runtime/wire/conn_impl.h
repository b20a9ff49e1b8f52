/* What the files of a connection share: the head of a message, and waiting. */
#ifndef MP_WIRE_CONN_IMPL_H
#define MP_WIRE_CONN_IMPL_H

#include "wire/conn.h"

#define MP_CONN_SLICE_NS 100000000

enum {
    CONN_HEAD = 4,        /* bytes of a head */
    CONN_LONG_HEAD = 12,  /* ... of one with 8 bytes of length */
    CONN_LONG = -1,
    CONN_LARGE = -2       /* ... and the payload in a file */
};

/* Blocks until one of the events (mp_fd_wait's), > 0; -ETIMEDOUT, -EINTR. */
int conn_wait(const mp_conn *c, int events, mp_deadline deadline);

/* Closes the descriptors of the message that is being received. */
void conn_drop_rights(mp_conn *c);

static inline void conn_put_number(unsigned char *p, uint64_t v, int n) {
    for (int i = n - 1; i >= 0; i--, v >>= 8) p[i] = (unsigned char)v;
}

static inline uint64_t conn_get_number(const unsigned char *p, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

#endif
