#include "sync/wait.h"

#include <errno.h>

#include "mem/reap.h"
#include "mem/slot.h"
#include "os/futex.h"
#include "sync/bell.h"

_Static_assert(sizeof(mp_wait_shm) == 4, "a futex word");

/* Many a wait ends without a sleep's end, as its condition is found to hold
   after a slice: the next one tells by what it sleeps on that it is new. */
mp_deadline mp_wait_slice(const void *word, uint32_t value,
                          mp_deadline deadline) {
    mp_self *me = mp_me;
    bool goes_on = me->slept_on == word && me->slept_value == value;
    me->slept_on = word;
    me->slept_value = value;
    if (!goes_on || !me->slice_ns)
        me->slice_ns = me->first_slice_ns ? me->first_slice_ns
                                          : MP_SLICE_FIRST_NS;
    return mp_deadline_slice(deadline, mp_me->slice_ns);
}

bool mp_wait_is_long(void) {
    return mp_me->slice_ns >= MP_SLICE_NS;
}

int mp_wait_slept(int result, mp_deadline slice, mp_deadline deadline) {
    if (result == -EINTR) return result;
    if (result != -ETIMEDOUT || slice.ns == deadline.ns) {
        mp_me->slice_ns = 0; /* this wait is over, or moves */
        return result == -EAGAIN ? 0 : result;
    }
    uint32_t twice = mp_me->slice_ns * 2;
    mp_me->slice_ns = twice < MP_SLICE_NS ? twice : MP_SLICE_NS;
    mp_reap_sweep();
    return -EINTR;
}

int mp_wait_sleep(mp_wait_shm *wait, uint32_t seen, mp_deadline deadline) {
    mp_deadline slice = mp_wait_slice(wait, seen, deadline);
    return mp_wait_slept(mp_futex_wait(&wait->word, seen, slice), slice,
                         deadline);
}

int mp_wait_sleep_on(mp_wait_shm *wait, uint32_t seen, uint32_t tag,
                     mp_deadline deadline) {
    mp_owner owner;
    if (!mp_owner_look(tag, &owner)) return 0;
    mp_deadline slice = mp_wait_slice(wait, seen, deadline);
    int r = mp_futex_wait2(&wait->word, seen, owner.life, owner.life_word,
                           slice);
    /* The kernel wakes one of those who sleep on a life. */
    if (!mp_tag_alive(tag)) mp_futex_wake(owner.life, INT_MAX);
    return mp_wait_slept(r, slice, deadline);
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
    mp_bell_ring();
}
