/* The states of a lock's word and who changes it (see lock.h for them):

   0, LEFT -> tag            an acquirer
   tag -> tag + WAITERS      a waiter, before it sleeps
   dead tag -> tag           an acquirer, after the dead one was reaped
   dead tag -> LEFT          the reaper, when the dead one held the object
   any -> 0                  a releaser; with WAITERS it wakes one

   A waiter sleeps on the word and on the owner's life word. One that has
   slept acquires with WAITERS set, since there may be others (Drepper,
   "Futexes are tricky", mutex 2). If it is killed between its wake and its
   acquisition, mp_lock_bury wakes another, or a slice's end does. */
#include "sync/lock.h"

#include "mem/object.h"
#include "mem/check.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/futex.h"
#include "sync/create.h"
#include "sync/wait.h"

enum { SPIN_MOST = 64 }; /* pauses; twice as many in all: some us */

static uint32_t load(const mp_lock_shm *lock) {
    return atomic_load_explicit(&lock->word, memory_order_relaxed);
}

/* word -> mine (and `bits`), if it still is `word`. */
static bool take(mp_lock_shm *lock, uint32_t word, uint32_t bits) {
    return atomic_compare_exchange_strong_explicit(
        &lock->word, &word, mp_me->tag | (word & MP_WAITERS) | bits,
        memory_order_acquire, memory_order_relaxed);
}

/* Looks less and less often: each look takes the word's cache line from the
   holder, who without that may well acquire and release many times. */
static bool spin(mp_lock_shm *lock) {
    for (int pause = 4; pause <= SPIN_MOST; pause *= 2) {
        for (int i = 0; i < pause; i++) mp_cpu_relax();
        if (load(lock) == 0 && mp_lock_try(lock)) return true;
    }
    return false;
}

/* Sleeps while `owner` holds it by `word`; as mp_wait_sleep. */
static int sleep_on(mp_lock_shm *lock, uint32_t word, const mp_owner *owner,
                    mp_deadline deadline) {
    if (!(word & MP_WAITERS) &&
        !atomic_compare_exchange_strong_explicit(
            &lock->word, &word, word | MP_WAITERS, memory_order_relaxed,
            memory_order_relaxed))
        return 0;
    mp_deadline slice = mp_wait_slice(lock, word | MP_WAITERS, deadline);
    int r = mp_futex_wait2(&lock->word, word | MP_WAITERS, owner->life,
                           owner->life_word, slice);
    return mp_wait_slept(r, slice, deadline);
}

/* One look; 0: held now, -EAGAIN: look again. */
static int look(mp_lock_shm *lock, uint32_t bits, mp_deadline deadline) {
    uint32_t word = load(lock);
    if ((word & MP_TAG_MASK) == 0) {
        if (!take(lock, word, bits)) return -EAGAIN;
        return word & MP_LOCK_LEFT ? MP_LOCK_ABANDONED : 0;
    }
    mp_owner owner;
    if (!mp_owner_look(word, &owner)) {
        mp_reap(word & MP_TAG_MASK);
        /* Else the reaper marked it, or another was faster. */
        return take(lock, word, MP_WAITERS) ? MP_LOCK_ABANDONED : -EAGAIN;
    }
    if (mp_deadline_passed(deadline)) {
        /* The wake that I got, maybe, is for another who sleeps. */
        if (bits) mp_lock_wake(lock);
        return -ETIMEDOUT;
    }
    int r = sleep_on(lock, word, &owner, deadline);
    return r == 0 ? -EAGAIN : r;
}

int mp_lock_acquire_slow(mp_lock_shm *lock, mp_deadline deadline) {
    uint32_t bits = 0;
    if (deadline.ns > 0 && mp_cpu_several() && !mp_lock_mine(lock) &&
        spin(lock))
        return 0;
    for (;;) {
        int r = look(lock, bits, deadline);
        if (r != -EAGAIN) return r;
        bits = MP_WAITERS;
    }
}

int mp_rlock_acquire_slow(mp_rlock_shm *rlock, mp_deadline deadline) {
    if (mp_lock_mine(&rlock->lock)) return -EOVERFLOW;
    int r = mp_lock_acquire_slow(&rlock->lock, deadline);
    if (r >= 0)
        atomic_store_explicit(&rlock->count, 1, memory_order_relaxed);
    return r;
}

void mp_lock_wake(mp_lock_shm *lock) {
    mp_futex_wake(&lock->word, 1);
}

void mp_rlock_wake_now(void) {
    _Atomic uint32_t *word = mp_me->notified;
    mp_me->notified = NULL;
    if (word) mp_futex_wake(word, 1);
}

void mp_rlock_wake_later(_Atomic uint32_t *word) {
    if (mp_me->notified != word) mp_rlock_wake_now();
    mp_me->notified = word;
}

uint32_t mp_lock_owner(const mp_lock_shm *lock) {
    uint32_t tag = load(lock) & MP_TAG_MASK;
    return tag && mp_tag_alive(tag) ? tag : 0;
}

void mp_lock_bury(mp_lock_shm *lock, uint32_t dead_tag) {
    uint32_t word = load(lock);
    while ((word & MP_TAG_MASK) == dead_tag &&
           !atomic_compare_exchange_weak_explicit(
               &lock->word, &word, (word & MP_WAITERS) | MP_LOCK_LEFT,
               memory_order_release, memory_order_relaxed)) {
    }
    mp_lock_wake(lock);
}

/* ---- checking ------------------------------------------------------- */

/* Whom the word names, if its bits are in order; else MP_TAG_FALSE. */
static int check_word(mp_check *c, const mp_lock_shm *lock) {
    uint32_t word = mp_check_u32(c, &lock->word), tag = word & MP_TAG_MASK;
    bool left = word & MP_LOCK_LEFT;
    bool known = !(word & ~(MP_TAG_MASK | MP_LOCK_LEFT | MP_WAITERS));
    int is = tag ? mp_check_tag(c, tag) : MP_TAG_GONE;
    if (known && is != MP_TAG_FALSE && !(left && tag) &&
        (tag || left || word == 0))
        return is;
    mp_check_report(c, "its lock's word is 0x%x, expected 0, LEFT, or the tag "
                       "of a participant", word);
    return MP_TAG_FALSE;
}

void mp_lock_check(mp_check *c, const mp_lock_shm *lock) {
    check_word(c, lock);
}

/* The count is behind the word for a moment, and an array's entries leave it
   alone (data/array.h). */
void mp_rlock_check(mp_check *c, const mp_rlock_shm *rlock) {
    if (check_word(c, &rlock->lock) == MP_TAG_ALIVE && mp_check_quiet(c) &&
        mp_check_u32(c, &rlock->count) == 0)
        mp_check_report(c, "its lock is held, but its count is 0, expected "
                           "at least 1");
}

/* ---- locks of their own --------------------------------------------- */

static void on_death(void *object, uint32_t dead_tag) {
    mp_lock_bury(object, dead_tag); /* also the head of an mp_rlock_shm */
}

static void check_lock(mp_check *c, const void *object) {
    if (mp_check_size(c, sizeof(mp_lock_shm))) mp_lock_check(c, object);
}

static void check_rlock(mp_check *c, const void *object) {
    if (mp_check_size(c, sizeof(mp_rlock_shm))) mp_rlock_check(c, object);
}

static const mp_object_ops lock_ops = {
    .name = "Lock", .on_death = on_death, .check = check_lock};
static const mp_object_ops rlock_ops = {
    .name = "RLock", .on_death = on_death, .check = check_rlock};

void mp_lock_open(void) {
    mp_object_declare(MP_TYPE_LOCK, &lock_ops);
    mp_object_declare(MP_TYPE_RLOCK, &rlock_ops);
}

int mp_lock_create(uint32_t *id, uint32_t *gen) {
    return mp_sync_create(MP_TYPE_LOCK, sizeof(mp_lock_shm), id, gen);
}

int mp_rlock_create(uint32_t *id, uint32_t *gen) {
    return mp_sync_create(MP_TYPE_RLOCK, sizeof(mp_rlock_shm), id, gen);
}
