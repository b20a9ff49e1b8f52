/* The one way to sleep until something changes: an eventcount.

   A waiter announces itself, looks once more at what it waits for, and
   sleeps; a notifier changes the thing first and then looks whether anybody
   announced. So no wake is lost, and nobody pays a system call when nobody
   sleeps.

   Invariant: a sleep never lasts longer than a slice: then it looks for the
   dead (mem/reap.h) and returns -EINTR as it does for a signal, so that the
   caller's interpreter can run its hooks. A waiter or notifier that dies
   unnoticed therefore delays the others by a slice at most: 2 ms at first,
   100 ms where they have waited for long (MP_SLICE_FIRST_NS, MP_SLICE_NS).
   Every blocking function of this floor and above follows this: -EINTR means
   "nothing happened, call again with the same deadline".

   word: count << 1 | somebody may sleep. The bit is set by a waiter and
   cleared by a notifier, who thereby takes on to wake; the woken set it
   again if others may still sleep (mp_wait_chain).
   Safe: threads, processes. */
#ifndef MP_SYNC_WAIT_H
#define MP_SYNC_WAIT_H

#include <limits.h>

#include "base/deadline.h"
#include "mem/arena.h"

typedef struct mp_wait_shm {
    _Atomic uint32_t word;
} mp_wait_shm;

/* Announces a waiter; returns what mp_wait_sleep wants. The caller re-tests
   its condition between the two. */
static inline uint32_t mp_wait_announce(mp_wait_shm *wait) {
    /* seq_cst pairs with the fence in mp_wait_notify: either the notifier
       sees the bit, or the re-test sees the change. */
    return atomic_fetch_or_explicit(&wait->word, 1, memory_order_seq_cst) | 1;
}

/* Sleeps until a notification after `seen`. 0: notified, or by chance;
   -ETIMEDOUT: the deadline passed; -EINTR: a signal, or a slice's end. */
int mp_wait_sleep(mp_wait_shm *wait, uint32_t seen, mp_deadline deadline);

/* The same, woken by the death of participant `tag`, too (then 0). */
int mp_wait_sleep_on(mp_wait_shm *wait, uint32_t seen, uint32_t tag,
                     mp_deadline deadline);

void mp_wait_notify_slow(mp_wait_shm *wait, int n);

/* Wakes up to n announced waiters (INT_MAX: all). The condition's change must
   precede it in program order. */
static inline void mp_wait_notify(mp_wait_shm *wait, int n) {
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&wait->word, memory_order_relaxed) & 1)
        mp_wait_notify_slow(wait, n);
}

/* For an on_death: wakes all, also those whom the dead one had taken on to
   wake, so that the word does not speak of them any more. */
static inline void mp_wait_notify_late(mp_wait_shm *wait) {
    mp_wait_notify_slow(wait, INT_MAX);
}

/* For a waiter that was woken alone: others may still sleep, so the next
   notifier must look. */
static inline void mp_wait_chain(mp_wait_shm *wait) {
    atomic_fetch_or_explicit(&wait->word, 1, memory_order_relaxed);
}

/* For whoever sleeps on a word of its own while it has `value`: when the
   sleep is to end, ... */
mp_deadline mp_wait_slice(const void *word, uint32_t value,
                          mp_deadline deadline);

/* ... and what its end means, by mp_futex_wait's result: 0 look again,
   -ETIMEDOUT, -EINTR; after a slice in vain it looks for the dead. */
int mp_wait_slept(int result, mp_deadline slice, mp_deadline deadline);

/* Has this wait lasted for so long that its slices are the longest? */
bool mp_wait_is_long(void);

#endif
