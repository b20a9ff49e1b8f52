#include "sync/wait.h"

#include <errno.h>

#include "mem/reap.h"
#include "mem/slot.h"
#include "os/futex.h"

_Static_assert(sizeof(mp_wait_shm) == 4, "a futex word");

int mp_wait_slice_over(void) {
    mp_reap_sweep();
    return -EINTR;
}

/* What a sleep that ended means to the caller. */
static int outcome(int r, mp_deadline slice, mp_deadline deadline) {
    if (r == 0 || r == -EAGAIN) return 0;
    if (r != -ETIMEDOUT) return r;
    return slice.ns == deadline.ns ? -ETIMEDOUT : mp_wait_slice_over();
}

int mp_wait_sleep(mp_wait_shm *wait, uint32_t seen, mp_deadline deadline) {
    mp_deadline slice = mp_deadline_slice(deadline, MP_SLICE_NS);
    return outcome(mp_futex_wait(&wait->word, seen, slice), slice, deadline);
}

int mp_wait_sleep_on(mp_wait_shm *wait, uint32_t seen, uint32_t tag,
                     mp_deadline deadline) {
    mp_owner owner;
    if (!mp_owner_look(tag, &owner)) return 0;
    mp_deadline slice = mp_deadline_slice(deadline, MP_SLICE_NS);
    return outcome(mp_futex_wait2(&wait->word, seen, owner.life,
                                  owner.life_word, slice),
                   slice, deadline);
}

void mp_wait_notify_slow(mp_wait_shm *wait, int n) {
    uint32_t word = atomic_load_explicit(&wait->word, memory_order_relaxed);
    /* Counting up keeps a waiter that has announced but not yet slept from
       missing it. */
    while (!atomic_compare_exchange_weak_explicit(
        &wait->word, &word, (word + 2) & ~1U, memory_order_seq_cst,
        memory_order_relaxed)) {
    }
    mp_futex_wake(&wait->word, n);
}
