#include "sync/bell.h"

#include <errno.h>

#include "os/fd.h"
#include "os/shelf.h"
#include "sync/wait.h"

/* Without a bell: how late a thing that is no descriptor is seen. */
enum { BLIND_NS = 5000000 };

void mp_bell_ring_slow(void) {
    if (mp_me->shelf[0] >= 0 &&
        atomic_exchange_explicit(&mp_me->super->bell, MP_BELL_USED,
                                 memory_order_acq_rel) &
            MP_BELL_WANTED)
        mp_shelf_ring(mp_me->shelf);
}

static bool look(mp_bell_thing *things, size_t m) {
    bool any = false;
    for (size_t i = 0; i < m; i++) {
        things[i].is_ready = things[i].ready(things[i].of);
        any |= things[i].is_ready;
    }
    return any;
}

static void announce(mp_bell_thing *things, size_t m) {
    /* Before the words of the things: see the invariant. */
    atomic_store_explicit(&mp_me->super->bell, MP_BELL_USED | MP_BELL_WANTED,
                          memory_order_seq_cst);
    for (size_t i = 0; i < m; i++) things[i].announce(things[i].of);
}

/* Sleeps until the slice's end; 1: something is ready. */
static int sleep_at(int listener, struct pollfd *fds, size_t n,
                    mp_bell_thing *things, size_t m, mp_deadline slice) {
    size_t all = listener < 0 ? n : n + 1;
    fds[n] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (;;) {
        if (m > 0) announce(things, m);
        if (look(things, m)) {
            int all_ready = mp_fd_poll(fds, n, MP_AT_ONCE);
            return all_ready < 0 ? all_ready : 1;
        }
        int r = mp_fd_poll(fds, all, slice);
        if (r < 0) return r;
        if (r == 0) return -ETIMEDOUT;
        bool rung = listener >= 0 && fds[n].revents;
        if (rung) mp_shelf_heard(listener);
        if (r > (int)rung) {
            look(things, m);
            return 1;
        }
    }
}

/* A listener, or < 0: none is wanted, or to be had. */
static int listen_for(size_t m) {
    return m == 0 || mp_me->shelf[0] < 0 ? -1 : mp_shelf_listen(mp_me->shelf);
}

int mp_bell_wait(struct pollfd *fds, size_t n, mp_bell_thing *things,
                 size_t m, mp_deadline deadline) {
    int r = mp_fd_poll(fds, n, MP_AT_ONCE);
    if (r < 0) return r;
    if (look(things, m) || r > 0) return 0;
    if (mp_deadline_passed(deadline)) return -ETIMEDOUT;
    int listener = listen_for(m);
    mp_deadline slice = mp_wait_slice(fds, (uint32_t)(n + m), deadline);
    if (m > 0 && listener < 0) slice = mp_deadline_slice(slice, BLIND_NS);
    r = sleep_at(listener, fds, n, things, m, slice);
    mp_fd_close(listener);
    if (r == 1) r = 0;
    if (r == -ENOMEM || r == -EINVAL) return r;
    r = mp_wait_slept(r, slice, deadline);
    /* At the deadline, the last look counts, too. */
    return r == -ETIMEDOUT && look(things, m) ? 0 : r;
}
