/* word: 0 free | tag held | tag + WAITERS held, somebody may sleep.
   0 -> tag           an acquirer
   tag -> tag+WAITERS a waiter, before it sleeps
   dead tag -> tag    a waiter, after the dead owner's record is replayed
   any -> 0           the owner; with WAITERS it wakes one
   A waiter that was woken acquires with WAITERS set, since there may be
   others (Drepper, "Futexes are tricky", mutex 2). If it is killed before it
   runs, the others find out when their slice ends; which is a short one,
   because nobody who runs holds such a lock for so long (unless who waits
   here has waited for long before, as sync/wait.h has it). */
#include "mem/mutex.h"

#include <limits.h>

#include "mem/slot.h"
#include "mem/txn.h"
#include "os/cpu.h"
#include "os/futex.h"

enum { SPINS = 100 };

static bool try_free(mp_mutex_shm *mutex, uint32_t as) {
    uint32_t free = 0;
    return atomic_compare_exchange_strong_explicit(
        &mutex->word, &free, as, memory_order_acquire, memory_order_relaxed);
}

static bool spin(mp_mutex_shm *mutex) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&mutex->word, memory_order_relaxed) == 0 &&
            try_free(mutex, mp_me->tag))
            return true;
        mp_cpu_relax();
    }
    return false;
}

/* One look at a word that is not free; true when the lock is ours. */
static bool take_or_sleep(mp_mutex_shm *mutex, uint32_t word,
                          bool replay) {
    mp_owner owner;
    if (!mp_owner_look(word, &owner)) {
        if (replay) mp_txn_replay(word & MP_TAG_MASK);
        /* The kernel woke one of those who sleep on this life; the others
           may wait for another lock of the dead one. */
        mp_futex_wake(owner.life, INT_MAX);
        return atomic_compare_exchange_strong_explicit(
            &mutex->word, &word, mp_me->tag | MP_WAITERS,
            memory_order_acquire, memory_order_relaxed);
    }
    if (!(word & MP_WAITERS) &&
        !atomic_compare_exchange_strong_explicit(
            &mutex->word, &word, word | MP_WAITERS, memory_order_relaxed,
            memory_order_relaxed))
        return false;
    int64_t slice = mp_me->first_slice_ns ? mp_me->first_slice_ns
                                          : MP_SLICE_FIRST_NS;
    mp_futex_wait2(&mutex->word, word | MP_WAITERS, owner.life,
                   owner.life_word, mp_deadline_slice(MP_FOREVER, slice));
    return false;
}

static void lock(mp_mutex_shm *mutex, bool replay) {
    if (mp_cpu_several() && spin(mutex)) return;
    for (;;) {
        uint32_t word =
            atomic_load_explicit(&mutex->word, memory_order_relaxed);
        if (word == 0 ? try_free(mutex, mp_me->tag | MP_WAITERS)
                      : take_or_sleep(mutex, word, replay))
            return;
    }
}

void mp_mutex_lock_slow(mp_mutex_shm *mutex) {
    lock(mutex, true);
}

void mp_mutex_lock_bare(mp_mutex_shm *mutex) {
    if (!try_free(mutex, mp_me->tag)) lock(mutex, false);
}

void mp_mutex_wake(mp_mutex_shm *mutex) {
    mp_futex_wake(&mutex->word, 1);
}
