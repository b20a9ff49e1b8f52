#include "wire/listen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/fd.h"
#include "wire/conn_impl.h"

_Static_assert(MP_LISTENER_CALLERS + 1 <= MP_NET_MOST, "all can be waited");

/* ---- callers -------------------------------------------------------- */

static void drop_any(mp_listener *l) {
    mp_fd_close(l->any);
    l->any = -1;
}

/* Takes caller `i` out; what it is made of is the caller's. */
static mp_caller *take_out(mp_listener *l, int i) {
    mp_caller *caller = l->callers[i];
    l->n--;
    memmove(l->callers + i, l->callers + i + 1,
            (size_t)(l->n - i) * sizeof *l->callers);
    return caller;
}

static void drop_caller(mp_listener *l, int i) {
    mp_caller *caller = take_out(l, i);
    mp_conn_close(&caller->conn);
    free(caller);
}

static void drop_callers(mp_listener *l) {
    while (l->n > 0) drop_caller(l, l->n - 1);
}

/* In a forked child the callers are the parent's: only copies of their
   descriptors are closed here. */
static void look_who(mp_listener *l) {
    int me = mp_net_process();
    if (l->user == me) return;
    drop_any(l);
    drop_callers(l);
    l->user = me;
}

/* Lets somebody in who has connected; the descriptor is taken over. */
static int add_caller(mp_listener *l, int fd, const mp_address *address) {
    mp_caller *caller = malloc(sizeof *caller);
    int r = caller ? mp_conn_open(&caller->conn, fd, true, true) : -ENOMEM;
    if (r < 0) {
        free(caller);
        mp_fd_close(fd);
        /* One that is gone already is no connection any more. */
        return r == -ENOMEM ? r : 0;
    }
    mp_auth_begin(&caller->auth, MP_AUTH_SERVER, MP_SHA256);
    caller->address = *address;
    caller->until = (mp_deadline){mp_now_ns() + l->patience_ns};
    if (l->n == MP_LISTENER_CALLERS) drop_caller(l, 0);
    l->callers[l->n++] = caller;
    /* At once: `attend` may end before his turn, and who polls would wait for
       his word, and he for ours. If it fails, `attend` sees to it. */
    mp_auth_ask(&caller->auth, &caller->conn, MP_AT_ONCE);
    return 0;
}

/* ---- accepting ------------------------------------------------------ */

/* Without a key: who has connected is it. */
static int accept_anybody(mp_listener *l, mp_conn *c, mp_address *peer) {
    for (;;) {
        int fd;
        int r = mp_net_accept(l->fd, &fd, peer);
        if (r < 0) return r;
        r = mp_conn_open(c, fd, true, true);
        if (r == 0) return 0;
        mp_fd_close(fd);
    }
}

static int let_in(mp_listener *l) {
    /* No more at a time than have a place: others must get on, too. */
    for (int i = 0; i < MP_LISTENER_CALLERS; i++) {
        mp_address address;
        int fd;
        int r = mp_net_accept(l->fd, &fd, &address);
        if (r == 0) {
            r = add_caller(l, fd, &address);
        } else if ((r == -EMFILE || r == -ENFILE) && l->n > 0) {
            drop_caller(l, 0); /* whose descriptor serves a new one */
            r = 0;
        }
        if (r < 0) return r == -EAGAIN ? 0 : r;
    }
    return 0;
}

/* Is this for the one who listens to know, or the caller's own affair? */
static bool is_refusal(int r) {
    return r == -EKEYREJECTED || r == -EKEYREVOKED || r == -EBADE;
}

/* Goes on with each handshake as far as it goes: 0 one is done, -EAGAIN none
   is, or the refusal of one. */
static int attend(mp_listener *l, const mp_key *key, mp_conn *c,
                  mp_address *peer) {
    for (int i = 0; i < l->n;) {
        mp_caller *caller = l->callers[i];
        int r = mp_auth_run(&caller->auth, &caller->conn, key, MP_AT_ONCE);
        if (r == 0) {
            take_out(l, i);
            *c = caller->conn;
            *peer = caller->address;
            free(caller);
            return 0;
        }
        bool waits = (r == -ETIMEDOUT || r == -EINTR) &&
                     !mp_deadline_passed(caller->until);
        if (waits)
            i++;
        else
            drop_caller(l, i);
        if (is_refusal(r)) return r;
    }
    return -EAGAIN;
}

/* What is to be looked at: the listening socket, and the callers. */
static int gather(const mp_listener *l, int fds[MP_NET_MOST]) {
    int n = 0;
    fds[n++] = l->fd;
    for (int i = 0; i < l->n; i++) fds[n++] = l->callers[i]->conn.fd;
    return n;
}

/* Sleeps until something is to be done; -EINTR, -ETIMEDOUT. */
static int wait(const mp_listener *l, mp_deadline deadline) {
    int fds[MP_NET_MOST];
    mp_deadline end = mp_deadline_slice(deadline, MP_CONN_SLICE_NS);
    bool slice = end.ns != deadline.ns;
    for (int i = 0; i < l->n; i++)
        if (l->callers[i]->until.ns < end.ns) {
            end = l->callers[i]->until;
            slice = true;
        }
    int r = mp_net_wait(fds, gather(l, fds), end);
    if (r == -ETIMEDOUT) return slice ? -EINTR : r;
    return r < 0 ? r : 0;
}

int mp_listener_accept(mp_listener *l, const mp_key *key, mp_conn *c,
                       mp_address *peer, mp_deadline deadline) {
    if (l->fd < 0) return -EBADF;
    drop_any(l);
    look_who(l);
    for (;;) {
        int r;
        if (key) {
            /* Before a caller may have to make room, his word is heard. */
            r = attend(l, key, c, peer);
            int none = r == -EAGAIN ? let_in(l) : 0;
            if (r == -EAGAIN) r = attend(l, key, c, peer);
            if (r == -EAGAIN && none < 0) r = none;
        } else {
            r = accept_anybody(l, c, peer);
        }
        if (r != -EAGAIN) return r;
        if (mp_deadline_passed(deadline)) return -ETIMEDOUT;
        r = wait(l, deadline);
        if (r < 0 && r != -ETIMEDOUT) return r;
    }
}

int mp_listener_pollfd(mp_listener *l) {
    int fds[MP_NET_MOST];
    if (l->fd < 0) return -EBADF;
    drop_any(l);
    look_who(l);
    if (l->n == 0) return l->fd;
    l->any = mp_net_any(fds, gather(l, fds));
    return l->any;
}

/* ---- the life of a listener ----------------------------------------- */

int mp_listener_open(mp_listener *l, const mp_address *address, int backlog,
                     int64_t patience_ns) {
    mp_listener made = {.fd = -1, .any = -1, .address = *address,
                        .patience_ns = patience_ns};
    made.callers = calloc(MP_LISTENER_CALLERS, sizeof *made.callers);
    if (!made.callers) return -ENOMEM;
    int r = mp_net_listen(&made.address, backlog, &made.fd);
    if (r < 0) {
        free(made.callers);
        return r;
    }
    made.maker = made.user = mp_net_process();
    *l = made;
    return 0;
}

void mp_listener_close(mp_listener *l) {
    if (l->fd < 0) return;
    drop_any(l);
    drop_callers(l);
    free(l->callers);
    l->callers = NULL;
    mp_fd_close(l->fd);
    l->fd = -1;
    if (l->maker == mp_net_process()) mp_net_unlink(&l->address);
}

/* ---- connecting ----------------------------------------------------- */

void mp_call_drop(mp_calling *calling) {
    mp_fd_close(calling->fd);
    calling->fd = -1;
    mp_conn_close(&calling->conn);
}

static int connect_first(mp_calling *calling, const mp_address *address,
                         mp_deadline deadline) {
    if (calling->conn.fd >= 0) return 0;
    int r = mp_net_connect(address, &calling->fd, deadline);
    if (r < 0) return r;
    r = mp_conn_open(&calling->conn, calling->fd, true, true);
    if (r < 0) {
        calling->conn.fd = -1;
        return r == -ENOTCONN ? -ECONNREFUSED : r;
    }
    calling->fd = -1; /* it is the connection's */
    mp_auth_begin(&calling->auth, MP_AUTH_CLIENT, MP_SHA256);
    return 0;
}

int mp_call(mp_calling *calling, const mp_address *address,
            const mp_key *key, mp_conn *c, mp_deadline deadline) {
    int r = connect_first(calling, address, deadline);
    if (r == 0 && key)
        r = mp_auth_run(&calling->auth, &calling->conn, key, deadline);
    if (r == 0) {
        *c = calling->conn;
        calling->conn.fd = -1;
    } else if (r != -EINTR) {
        mp_call_drop(calling);
    }
    return r;
}
