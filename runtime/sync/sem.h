/* Semaphores, bounded or not.

   Invariant: the low 31 bits of the word are the permits; each acquisition
   takes one by one CAS. Permits have no owner: who dies with some does not
   give them back (as in Python), but a wake that it swallowed is given to
   another.

   word: permits; + MP_WAITERS: somebody may sleep, who was not woken yet
   Safe: threads, processes. Blocks: only what takes a deadline. */
#ifndef MP_SYNC_SEM_H
#define MP_SYNC_SEM_H

#include <errno.h>

#include "base/deadline.h"
#include "mem/arena.h"
#include "mem/mutex.h"

#define MP_SEM_MAX 0x7fffffffU

/* bound: most permits; fixed. */
typedef struct mp_sem_shm {
    _Atomic uint32_t word;
    uint32_t bound;
} mp_sem_shm;
_Static_assert(sizeof(mp_sem_shm) == 8, "two words");

int mp_sem_acquire_slow(mp_sem_shm *sem, mp_deadline deadline);
void mp_sem_wake(mp_sem_shm *sem, uint32_t n);

static inline bool mp_sem_try(mp_sem_shm *sem) {
    uint32_t word = atomic_load_explicit(&sem->word, memory_order_relaxed);
    while (word & MP_SEM_MAX)
        /* Acquire pairs with the release in mp_sem_release. */
        if (atomic_compare_exchange_weak_explicit(
                &sem->word, &word, word - 1, memory_order_acquire,
                memory_order_relaxed))
            return true;
    return false;
}

/* 0, -ETIMEDOUT, -EINTR as in sync/wait.h. */
static inline int mp_sem_acquire(mp_sem_shm *sem, mp_deadline deadline) {
    return mp_sem_try(sem) ? 0 : mp_sem_acquire_slow(sem, deadline);
}

/* Adds n >= 1 permits; 0, or -EOVERFLOW (and none) beyond the bound. */
static inline int mp_sem_release(mp_sem_shm *sem, uint32_t n) {
    uint32_t word = atomic_load_explicit(&sem->word, memory_order_relaxed);
    do {
        if (n > sem->bound - (word & MP_SEM_MAX)) return -EOVERFLOW;
    } while (!atomic_compare_exchange_weak_explicit(
        &sem->word, &word, (word & MP_SEM_MAX) + n, memory_order_release,
        memory_order_relaxed));
    if (word & MP_WAITERS) mp_sem_wake(sem, n);
    return 0;
}

static inline uint32_t mp_sem_value(const mp_sem_shm *sem) {
    return atomic_load_explicit(&sem->word, memory_order_relaxed) &
           MP_SEM_MAX;
}

/* Declares the type MP_TYPE_SEMAPHORE. */
void mp_sem_open(void);

/* Makes a semaphore; value <= bound <= MP_SEM_MAX. 0 or -ENOMEM. */
int mp_sem_create(uint32_t value, uint32_t bound, uint32_t *id,
                  uint32_t *gen);

#endif
