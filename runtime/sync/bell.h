/* Waiting for many things at once, of which some are descriptors and some lie
   in shared memory: by poll, with a bell for the latter.

   Who waits announces itself in each thing's word, as who sleeps on it does;
   so the notifier takes its slow way, where it also looks whether somebody
   wants the bell rung (one word of the arena), and rings. The bell is one for
   the family (os/shelf.h): all who wait at it look at their things again.

   Invariant: whoever waits wants the bell (mp_super_shm.bell) before it
   announces itself, and listens from before that; who rings has changed the
   thing, and takes the want back first. So no change between the last look
   and the sleep goes unheard; and however often a thing changes, it is rung
   once per look.
   Who waits and dies leaves one ring too many behind; for who dies before it
   rings, its reaper does (mem/reap.h), or a slice ends (sync/wait.h).
   Safe: threads, processes. */
#ifndef MP_SYNC_BELL_H
#define MP_SYNC_BELL_H

#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/deadline.h"
#include "mem/arena.h"

void mp_bell_ring_slow(void);

/* For a notifier that has seen that somebody may sleep: called behind what it
   does to wake those. */
static inline void mp_bell_ring(void) {
    /* Acquire: it has read the word in which the waiter announced itself
       after it had set this one. */
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&mp_me->super->bell, memory_order_relaxed) &
        MP_BELL_WANTED)
        mp_bell_ring_slow();
}

/* A thing in shared memory that is waited for.
   ready     is it? Any number of times; it must not sleep
   announce  makes its notifiers take their slow way, at the next change
   is_ready  what mp_bell_wait has found */
typedef struct mp_bell_thing {
    bool (*ready)(void *of);
    void (*announce)(void *of);
    void *of;
    bool is_ready;
} mp_bell_thing;

/* Waits until one of n descriptors (as for poll; `fds` has a place more than
   that) or of m things is ready. 0: `revents` and `is_ready` say which, and
   there is one; -ETIMEDOUT; -EINTR a signal, or a slice's end; -EINVAL more
   descriptors than this process may have; -ENOMEM. */
int mp_bell_wait(struct pollfd *fds, size_t n, mp_bell_thing *things,
                 size_t m, mp_deadline deadline);

#endif
