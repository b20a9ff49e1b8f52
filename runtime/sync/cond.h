/* Conditions: to wait, with a lock given up meanwhile, until notified.

   Invariant: a notify goes to the one that has waited longest and lives;
   none is lost: a waiter that dies before it has the lock back, or leaves by
   an error, passes its notify on. The death of one that holds the lock
   counts as a notify: what was it about to do?

   A wait has stages, so that the caller's interpreter can run between them:
       mp_cond_wait_begin                     the lock is released
       mp_cond_wait_sleep   while -EINTR
       mp_cond_wait_relock  while -EINTR      held as it was before
       mp_cond_wait_end                       says whether notified
   Once begun, the last must be called, and the one before it should be.

   The lock is the condition's own RLock, or one of another object, which the
   condition holds (mem/object.h) as long as it lives.
   Safe: threads, processes. Blocks: only what takes a deadline. */
#ifndef MP_SYNC_COND_H
#define MP_SYNC_COND_H

#include "sync/lock.h"
#include "sync/waiters.h"

/* waiters    states: see cond.c
   own        the lock, when none was given
   lock_at    offset of an mp_lock_shm or mp_rlock_shm; fixed
   lock_id    the object it is part of, 0 = own; by mp_object_hold
   recursive  it is an mp_rlock_shm; fixed */
typedef struct mp_cond_shm {
    mp_waiters_shm waiters;
    mp_rlock_shm own;
    uint64_t lock_at;
    _Atomic uint32_t lock_id;
    uint32_t recursive;
} mp_cond_shm;
_Static_assert(sizeof(mp_cond_shm) == 56, "no padding by chance");

/* As the functions of the lock it has. */
int mp_cond_acquire(mp_cond_shm *cond, mp_deadline deadline);
int mp_cond_release(mp_cond_shm *cond);
mp_lock_shm *mp_cond_lock(mp_cond_shm *cond);

/* A wait under way; private to the waiter. */
typedef struct mp_cond_wait {
    mp_ref node;
    uint32_t depth; /* how often it held the lock */
} mp_cond_wait;

/* 0; -EPERM: the caller does not hold the lock; -ENOMEM. */
int mp_cond_wait_begin(mp_cond_shm *cond, mp_cond_wait *wait);

/* 0: notified; -ETIMEDOUT; -EINTR as in sync/wait.h. */
int mp_cond_wait_sleep(mp_cond_wait *wait, mp_deadline deadline);

/* Takes the lock as often as before; as mp_lock_acquire, for ever. */
int mp_cond_wait_relock(mp_cond_shm *cond, mp_cond_wait *wait);

/* Leaves the waiters, and says whether it was notified; with `pass_on`, the
   notify goes to another. */
bool mp_cond_wait_end(mp_cond_shm *cond, mp_cond_wait *wait, bool pass_on);

/* Notifies up to n waiters. 0; -EPERM: the caller does not hold the lock. */
int mp_cond_notify(mp_cond_shm *cond, uint32_t n);

/* Participants that wait and are not yet notified; walks them. */
uint32_t mp_cond_waiting(mp_cond_shm *cond);

/* Declares the type MP_TYPE_CONDITION. */
void mp_cond_open(void);

/* Makes a condition; with lock_id != 0 its lock is `lock`, a part of that
   object, which the caller holds. 0, -ENOMEM, -ENOENT (no such object). */
int mp_cond_create(uint32_t lock_id, void *lock, bool recursive,
                   uint32_t *id, uint32_t *gen);

#endif
