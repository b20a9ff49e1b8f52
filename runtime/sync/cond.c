/* A waiter's state is WAITING or NOTIFIED. It changes in one record together
   with the list's `waiting`, and a waiter leaves in one record together with
   passing its notify on; so each notify is with exactly one living waiter,
   or used, whoever is killed when.

   Each waiter sleeps on its own node's state, which is why a notify wakes
   exactly those it is for. */
#include "sync/cond.h"

#include "mem/check.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "os/futex.h"
#include "sync/create.h"
#include "sync/wait.h"

enum { NOTIFIED = 1 };
_Static_assert((int)NOTIFIED != (int)MP_WAITER_WAITING, "two states");

mp_lock_shm *mp_cond_lock(mp_cond_shm *cond) {
    return mp_at(cond->lock_at);
}

int mp_cond_acquire(mp_cond_shm *cond, mp_deadline deadline) {
    return cond->recursive
               ? mp_rlock_acquire(mp_at(cond->lock_at), deadline)
               : mp_lock_acquire(mp_at(cond->lock_at), deadline);
}

int mp_cond_release(mp_cond_shm *cond) {
    return cond->recursive ? mp_rlock_release(mp_at(cond->lock_at))
                           : mp_lock_release(mp_at(cond->lock_at));
}

/* ---- under the mutex ------------------------------------------------ */

static uint32_t state_of(mp_ref node) {
    return atomic_load_explicit(&mp_waiter_at(node)->state,
                                memory_order_acquire);
}

/* Takes a node out and, if it has a notify to pass on, gives that to the
   next, whose ref it returns for waking, or 0. */
static mp_ref leave(mp_cond_shm *cond, mp_ref node, bool pass_on,
                    mp_waiter *out) {
    mp_txn txn = mp_txn_begin();
    mp_ref next = 0;
    *out = mp_waiters_unlink(&cond->waiters, node, &txn);
    /* A notified one is not the first waiting: the two records' parts do not
       touch the same words but for one's links, which settle leaves alone. */
    if (pass_on && state_of(node) == NOTIFIED &&
        atomic_load(&cond->waiters.waiting))
        next = mp_waiters_settle(&cond->waiters, NOTIFIED, &txn);
    mp_txn_commit(&txn);
    return next;
}

static void wake(mp_ref node) {
    if (node) mp_futex_wake(&mp_waiter_at(node)->state, 1);
}

/* Takes out the dead ones that wait first, until one is alive: its ref. */
static mp_ref first_alive(mp_cond_shm *cond) {
    mp_ref node;
    while ((node = atomic_load(&cond->waiters.waiting)) != 0 &&
           !mp_tag_alive(mp_waiter_at(node)->tag)) {
        mp_waiter out;
        leave(cond, node, false, &out);
        mp_waiter_free(&out);
    }
    return node;
}

/* ---- waiting -------------------------------------------------------- */

/* Gives the lock up, however often it is held. */
static uint32_t unlock_all(mp_cond_shm *cond) {
    if (!cond->recursive) {
        mp_lock_release(mp_cond_lock(cond));
        return 1;
    }
    mp_rlock_shm *rlock = mp_at(cond->lock_at);
    uint32_t depth = atomic_load_explicit(&rlock->count, memory_order_relaxed);
    mp_rlock_leave(rlock);
    return depth;
}

int mp_cond_wait_begin(mp_cond_shm *cond, mp_cond_wait *wait) {
    if (!mp_lock_mine(mp_cond_lock(cond))) return -EPERM;
    mp_waiter waiter;
    int r = mp_waiter_new(&waiter);
    if (r < 0) return r;
    wait->node = waiter.ref;
    mp_mutex_lock(&cond->waiters.mutex);
    mp_txn txn = mp_txn_begin();
    mp_waiters_link(&cond->waiters, &waiter, &txn);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&cond->waiters.mutex);
    wait->depth = unlock_all(cond);
    return 0;
}

int mp_cond_wait_sleep(mp_cond_wait *wait, mp_deadline deadline) {
    _Atomic uint32_t *state = &mp_waiter_at(wait->node)->state;
    for (;;) {
        if (state_of(wait->node) == NOTIFIED) return 0;
        if (mp_deadline_passed(deadline)) return -ETIMEDOUT;
        mp_deadline slice = mp_wait_slice(state, MP_WAITER_WAITING, deadline);
        int r = mp_wait_slept(mp_futex_wait(state, MP_WAITER_WAITING, slice),
                              slice, deadline);
        if (r < 0 && state_of(wait->node) != NOTIFIED) return r;
    }
}

int mp_cond_wait_relock(mp_cond_shm *cond, mp_cond_wait *wait) {
    int r = mp_lock_acquire(mp_cond_lock(cond), MP_FOREVER);
    if (r >= 0 && cond->recursive) {
        mp_rlock_shm *rlock = mp_at(cond->lock_at);
        atomic_store_explicit(&rlock->count, wait->depth,
                              memory_order_relaxed);
    }
    return r;
}

bool mp_cond_wait_end(mp_cond_shm *cond, mp_cond_wait *wait, bool pass_on) {
    mp_waiter out;
    mp_mutex_lock(&cond->waiters.mutex);
    bool notified = state_of(wait->node) == NOTIFIED;
    mp_ref next = leave(cond, wait->node, pass_on, &out);
    mp_mutex_unlock(&cond->waiters.mutex);
    wake(next);
    mp_waiter_free(&out);
    return notified;
}

/* ---- notifying ------------------------------------------------------ */

/* One waiter; its ref, or 0 when none waits. */
static mp_ref notify_one(mp_cond_shm *cond) {
    mp_mutex_lock(&cond->waiters.mutex);
    mp_ref node = first_alive(cond);
    if (node) {
        mp_txn txn = mp_txn_begin();
        mp_waiters_settle(&cond->waiters, NOTIFIED, &txn);
        mp_txn_commit(&txn);
    }
    mp_mutex_unlock(&cond->waiters.mutex);
    return node;
}

int mp_cond_notify(mp_cond_shm *cond, uint32_t n) {
    if (!mp_lock_mine(mp_cond_lock(cond))) return -EPERM;
    for (; n > 0; n--) {
        mp_ref node = notify_one(cond);
        if (!node) break;
        /* It may be gone by then; then this wakes nobody, or somebody who
           looks and sleeps again. A Lock may be released by another, who
           knows nothing of this. */
        if (cond->recursive)
            mp_rlock_wake_later(&mp_waiter_at(node)->state);
        else
            wake(node);
    }
    return 0;
}

uint32_t mp_cond_waiting(mp_cond_shm *cond) {
    uint32_t n = 0;
    mp_mutex_lock(&cond->waiters.mutex);
    mp_ref node = atomic_load(&cond->waiters.waiting);
    for (; node; node = atomic_load(&mp_waiter_at(node)->next)) n++;
    mp_mutex_unlock(&cond->waiters.mutex);
    return n;
}

/* ---- the type ------------------------------------------------------- */

/* Takes out one node of the dead one; false when there is none. Wakes those
   that are notified on the way: the dead one may have left that out. */
static bool bury_one(mp_cond_shm *cond, uint32_t dead_tag) {
    mp_ref node = atomic_load(&cond->waiters.head), next = 0;
    for (; node && mp_waiter_at(node)->tag != dead_tag;
         node = atomic_load(&mp_waiter_at(node)->next))
        if (state_of(node) == NOTIFIED) wake(node);
    if (!node) return false;
    mp_waiter out;
    next = leave(cond, node, true, &out);
    wake(next);
    mp_waiter_free(&out);
    return true;
}

static bool held_by(mp_cond_shm *cond, uint32_t dead_tag) {
    uint32_t word = atomic_load_explicit(&mp_cond_lock(cond)->word,
                                         memory_order_relaxed);
    return (word & MP_TAG_MASK) == dead_tag;
}

/* While the lock still says that the dead one held it: when it is another
   object's, that will soon be told, and somebody may have it at once. */
static void on_dying(void *object, uint32_t dead_tag) {
    mp_cond_shm *cond = object;
    if (!cond->lock_at) return; /* its maker died making it */
    if (held_by(cond, dead_tag)) wake(notify_one(cond));
}

static void on_death(void *object, uint32_t dead_tag) {
    mp_cond_shm *cond = object;
    if (!cond->lock_at) return; /* its maker died making it */
    mp_mutex_lock(&cond->waiters.mutex);
    while (bury_one(cond, dead_tag)) {
    }
    mp_mutex_unlock(&cond->waiters.mutex);
    mp_lock_bury(mp_cond_lock(cond), dead_tag);
}

static void destroy(void *object) {
    mp_cond_shm *cond = object;
    mp_waiters_destroy(&cond->waiters);
    mp_object_unhold(&cond->lock_id);
}

/* Its own lock, or one within another object's block. */
static void check_lock(mp_check *c, const mp_cond_shm *cond) {
    uint64_t at = mp_check_offset(c, &cond->own), end = at;
    uint64_t lock_at = mp_check_u64(c, &cond->lock_at);
    uint32_t id = mp_check_u32(c, &cond->lock_id);
    uint32_t recursive = mp_check_u32(c, &cond->recursive);
    if (id) {
        if (!mp_check_hold(c, id, "lock", &at, &end)) return;
        end += at - sizeof(mp_lock_shm);
    }
    if (lock_at < at || lock_at > end || lock_at % 4 != 0)
        mp_check_report(c, "its lock is at 0x%jx, expected 0x%jx to 0x%jx",
                        (uintmax_t)lock_at, (uintmax_t)at, (uintmax_t)end);
    if (recursive > 1 || (!id && !recursive))
        mp_check_report(c, "recursive is %u, expected %s", recursive,
                        id ? "0 or 1" : "1");
    mp_rlock_check(c, &cond->own);
}

static void check(mp_check *c, const void *object) {
    const mp_cond_shm *cond = object;
    if (!mp_check_size(c, sizeof *cond)) return;
    check_lock(c, cond);
    mp_waiters_check(c, &cond->waiters, NOTIFIED, false);
}

static const mp_object_ops ops = {.name = "Condition",
                                  .destroy = destroy,
                                  .on_dying = on_dying,
                                  .on_death = on_death,
                                  .check = check};

void mp_cond_open(void) {
    mp_object_declare(MP_TYPE_CONDITION, &ops);
}

int mp_cond_create(uint32_t lock_id, void *lock, bool recursive,
                   uint32_t *id, uint32_t *gen) {
    int r = mp_sync_create(MP_TYPE_CONDITION, sizeof(mp_cond_shm), id, gen);
    if (r < 0) return r;
    mp_cond_shm *cond = mp_object_block(*id);
    if (!lock_id) {
        cond->lock_at = mp_offset(&cond->own);
        cond->recursive = 1;
        return 0;
    }
    r = mp_object_hold(lock_id, mp_object_gen(lock_id), &cond->lock_id);
    if (r < 0) {
        mp_object_detach(*id);
        return r;
    }
    cond->recursive = recursive;
    cond->lock_at = mp_offset(lock);
    return 0;
}
