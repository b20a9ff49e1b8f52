/* Locks that users hold: Lock, which anybody may release, and RLock, which
   its owner may acquire again. They may lie in any shared block.

   Invariant: the word names its last acquirer for as long as the lock is
   held, so a lock never outlives its holder: who finds the holder dead
   takes the lock and is told so (MP_LOCK_ABANDONED), once.

   word: 0                     free
         tag                   held; + MP_WAITERS: somebody may sleep
         MP_LOCK_LEFT          its holder died and was reaped;
                               + MP_WAITERS
   What the lock guards is the user's, who repairs it when told.
   No internal lock is held while one of these is acquired.
   Returns of the acquiring functions: 0, MP_LOCK_ABANDONED (both: it is
   held now), -ETIMEDOUT, -EINTR as in sync/wait.h.
   Safe: threads, processes; a child after fork owns nothing of its
   parent's. Blocks: only what takes a deadline. */
#ifndef MP_SYNC_LOCK_H
#define MP_SYNC_LOCK_H

#include <errno.h>

#include "base/deadline.h"
#include "mem/arena.h"
#include "mem/mutex.h"

#define MP_LOCK_LEFT 0x40000000U
#define MP_LOCK_ABANDONED 1

typedef struct mp_lock_shm {
    _Atomic uint32_t word;
} mp_lock_shm;
_Static_assert(sizeof(mp_lock_shm) == 4, "one word");

/* count: how often its owner holds it; written by the owner, set anew by
   the next one, so a death between the two fields needs no repair. */
typedef struct mp_rlock_shm {
    mp_lock_shm lock;
    _Atomic uint32_t count;
} mp_rlock_shm;
_Static_assert(sizeof(mp_rlock_shm) == 8, "embedded in other blocks");

/* What the inline functions below do when it is not simple. */
int mp_lock_acquire_slow(mp_lock_shm *lock, mp_deadline deadline);
void mp_lock_wake(mp_lock_shm *lock);

/* Takes a free lock; false when it is not free (or was left by a dead
   holder: ask mp_lock_acquire). */
static inline bool mp_lock_try(mp_lock_shm *lock) {
    uint32_t free = 0;
    /* Acquire pairs with the release in mp_lock_release. */
    return atomic_compare_exchange_strong_explicit(
        &lock->word, &free, mp_me->tag, memory_order_acquire,
        memory_order_relaxed);
}

/* Waits for a lock that the caller itself holds, too. */
static inline int mp_lock_acquire(mp_lock_shm *lock, mp_deadline deadline) {
    return mp_lock_try(lock) ? 0 : mp_lock_acquire_slow(lock, deadline);
}

/* 0, or -EPERM when it was not held. Whoever holds it. */
static inline int mp_lock_release(mp_lock_shm *lock) {
    uint32_t word =
        atomic_exchange_explicit(&lock->word, 0, memory_order_release);
    if (word & MP_WAITERS) mp_lock_wake(lock);
    return word ? 0 : -EPERM;
}

/* Am I its last acquirer, and is it still held? */
static inline bool mp_lock_mine(const mp_lock_shm *lock) {
    return (atomic_load_explicit(&lock->word, memory_order_relaxed) &
            MP_TAG_MASK) == mp_me->tag;
}

/* The tag of its living holder, or 0. */
uint32_t mp_lock_owner(const mp_lock_shm *lock);

/* For the on_death of the object that contains the lock: if `dead_tag` held
   it, it is left for the next; and a wake that the dead one swallowed goes
   to another. */
void mp_lock_bury(mp_lock_shm *lock, uint32_t dead_tag);

/* Takes a lock that is free or mine; false as mp_lock_try, and when it was
   acquired 2^32 - 1 times. */
static inline bool mp_rlock_try(mp_rlock_shm *rlock) {
    uint32_t count = 1;
    if (!mp_lock_try(&rlock->lock)) {
        if (!mp_lock_mine(&rlock->lock)) return false;
        count += atomic_load_explicit(&rlock->count, memory_order_relaxed);
        if (count == 0) return false;
    }
    atomic_store_explicit(&rlock->count, count, memory_order_relaxed);
    return true;
}

int mp_rlock_acquire_slow(mp_rlock_shm *rlock, mp_deadline deadline);

/* For the owner of an RLock that let another go on who will need the lock:
   that one, who sleeps on `word`, is woken once the lock is free, and so
   finds it free. One word is kept, a former one is woken now. Nobody else can
   release the lock; if its owner dies first, the on_death of what `word` is
   part of wakes. */
void mp_rlock_wake_later(_Atomic uint32_t *word);

/* Wakes who was to be woken later. */
void mp_rlock_wake_now(void);

/* Gives it up, however often it is held. The caller holds it. */
static inline int mp_rlock_leave(mp_rlock_shm *rlock) {
    int r = mp_lock_release(&rlock->lock);
    if (mp_me->notified) mp_rlock_wake_now();
    return r;
}

/* -EOVERFLOW: acquired 2^32 - 1 times. */
static inline int mp_rlock_acquire(mp_rlock_shm *rlock,
                                   mp_deadline deadline) {
    return mp_rlock_try(rlock) ? 0 : mp_rlock_acquire_slow(rlock, deadline);
}

/* 0, or -EPERM when the caller does not hold it. */
static inline int mp_rlock_release(mp_rlock_shm *rlock) {
    if (!mp_lock_mine(&rlock->lock)) return -EPERM;
    uint32_t count =
        atomic_load_explicit(&rlock->count, memory_order_relaxed);
    if (count > 1) {
        atomic_store_explicit(&rlock->count, count - 1,
                              memory_order_relaxed);
        return 0;
    }
    return mp_rlock_leave(rlock);
}

/* For the check of the object that contains it (mem/check.h). A tag of the
   dead is no finding: who finds it takes the lock. */
struct mp_check;
void mp_lock_check(struct mp_check *c, const mp_lock_shm *lock);
void mp_rlock_check(struct mp_check *c, const mp_rlock_shm *rlock);

/* Declares the types MP_TYPE_LOCK and MP_TYPE_RLOCK. */
void mp_lock_open(void);

/* Makes a free lock of its own, an object that the caller holds: its block
   is the mp_lock_shm, resp. mp_rlock_shm. 0 or -ENOMEM. */
int mp_lock_create(uint32_t *id, uint32_t *gen);
int mp_rlock_create(uint32_t *id, uint32_t *gen);

#endif
