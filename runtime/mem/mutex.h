/* The internal lock: four bytes in shared memory that know their owner.

   Invariant: whoever acquires it finds what it guards consistent, also after
   its owner was killed: an owner changes guarded words only by one publishing
   store or through its redo record, and the record is replayed before the
   lock passes on.
   Never held over Lua, a wait, a fork, or an allocation's system call. Ranks,
   taken in this order: work, data, sync objects; object entry; object
   table; heap. Safe: threads, processes. Blocks: as long as a live owner
   holds it (some hundred instructions). */
#ifndef MP_MEM_MUTEX_H
#define MP_MEM_MUTEX_H

#include "mem/arena.h"

#define MP_WAITERS 0x80000000U
#define MP_TAG_MASK 0x1fffffffU /* gen 17 bits, slot 12 bits */

/* For a lock whose holders have no record open: a dead one is passed over,
   nothing is replayed. */
void mp_mutex_lock_bare(mp_mutex_shm *mutex);

void mp_mutex_lock_slow(mp_mutex_shm *mutex);
void mp_mutex_wake(mp_mutex_shm *mutex);

static inline void mp_mutex_lock(mp_mutex_shm *mutex) {
    uint32_t free = 0;
    /* Acquire pairs with the release in unlock. */
    if (!atomic_compare_exchange_strong_explicit(
            &mutex->word, &free, mp_me->tag, memory_order_acquire,
            memory_order_relaxed))
        mp_mutex_lock_slow(mutex);
}

static inline void mp_mutex_unlock(mp_mutex_shm *mutex) {
    if (atomic_exchange_explicit(&mutex->word, 0, memory_order_release) &
        MP_WAITERS)
        mp_mutex_wake(mutex);
}

#endif
