/* Locks, semaphores and events; conditions and barriers: wait_spec.c. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "os/futex.h"
#include "sync/event.h"
#include "sync/lock.h"
#include "sync/sem.h"
#include "sync_tools.h"

SPEC_PREPARE {
    prepare_locks();
    mp_sem_open();
    mp_event_open();
}

static int lock_in(mp_lock_shm *lock, double seconds) {
    mp_deadline deadline = mp_deadline_in(seconds);
    int r;
    while ((r = mp_lock_acquire(lock, deadline)) == -EINTR) {
    }
    return r;
}

static int rlock_in(mp_rlock_shm *lock, double seconds) {
    mp_deadline deadline = mp_deadline_in(seconds);
    int r;
    while ((r = mp_rlock_acquire(lock, deadline)) == -EINTR) {
    }
    return r;
}

static int sem_in(mp_sem_shm *sem, double seconds) {
    mp_deadline deadline = mp_deadline_in(seconds);
    int r;
    while ((r = mp_sem_acquire(sem, deadline)) == -EINTR) {
    }
    return r;
}

/* ---- Lock --------------------------------------------------------------- */

static mp_lock_shm *new_lock(uint32_t *id) {
    uint32_t gen;
    CHECK_OK(mp_lock_create(id, &gen));
    return mp_object_block(*id);
}

SPEC("lock: is held by one, until it is released") {
    uint32_t id;
    mp_lock_shm *lock = new_lock(&id);
    CHECK_EQ(mp_lock_owner(lock), 0);
    CHECK_EQ(lock_in(lock, 0), 0);
    CHECK_EQ(mp_lock_owner(lock), mp_me->tag);
    CHECK_EQ(lock_in(lock, 0), -ETIMEDOUT);
    double before = spec_now();
    CHECK_EQ(lock_in(lock, 0.05), -ETIMEDOUT);
    CHECK(spec_now() - before >= 0.05);
    CHECK_EQ(mp_lock_release(lock), 0);
    CHECK_EQ(mp_lock_release(lock), -EPERM);
    CHECK_EQ(lock_in(lock, 0), 0);
    mp_object_detach(id);
}

static void release_lock(void *lock) {
    CHECK_EQ(mp_lock_release(lock), 0);
}

SPEC("lock: may be released by another process than acquired it") {
    uint32_t id;
    mp_lock_shm *lock = new_lock(&id);
    CHECK_EQ(lock_in(lock, 0), 0);
    mp_proc child = start(release_lock, lock);
    CHECK_EQ(lock_in(lock, 5), 0);
    CHECK_EQ(finish(&child), 0);
    mp_object_detach(id);
}

static void hold(void *lock) {
    CHECK_EQ(lock_in(lock, 5), 0);
    for (;;) pause();
}

/* Forks one that holds the lock by now. */
static mp_proc start_holder(mp_lock_shm *lock) {
    mp_proc child = start(hold, lock);
    CHECK_SOON(mp_lock_owner(lock) == child.tag);
    return child;
}

SPEC("lock: of a killed holder goes to the next, who is told once") {
    uint32_t id;
    mp_lock_shm *lock = new_lock(&id);
    for (int i = 0; i < 20; i++) {
        mp_proc child = start_holder(lock);
        CHECK_EQ(lock_in(lock, 0), -ETIMEDOUT);
        mp_proc_signal(&child, SIGKILL);
        CHECK_EQ(lock_in(lock, 1), MP_LOCK_ABANDONED);
        CHECK_EQ(mp_lock_release(lock), 0);
        CHECK_EQ(lock_in(lock, 0), 0);
        CHECK_EQ(mp_lock_release(lock), 0);
        CHECK_EQ(finish(&child), -SIGKILL);
    }
    mp_object_detach(id);
}

SPEC("lock: a poll takes it from a dead holder") {
    uint32_t id;
    mp_lock_shm *lock = new_lock(&id);
    mp_proc child = start_holder(lock);
    kill_now(&child);
    CHECK_EQ(mp_lock_owner(lock), 0);
    CHECK_EQ(lock_in(lock, 0), MP_LOCK_ABANDONED);
    mp_object_detach(id);
}

SPEC("lock: of a dead holder may still be released") {
    uint32_t id;
    mp_lock_shm *lock = new_lock(&id);
    mp_proc child = start_holder(lock);
    kill_now(&child);
    CHECK_EQ(mp_lock_release(lock), 0);
    CHECK_EQ(lock_in(lock, 0), 0);
    mp_object_detach(id);
}

/* Workers that take turns; whoever is told of a death repairs `inside`. */
typedef struct turns {
    mp_lock_shm *lock;
    _Atomic uint32_t inside;
    _Atomic uint64_t n;
} turns;

static void take_turns(void *argument) {
    turns *t = argument;
    for (;;) {
        int r = lock_in(t->lock, 5);
        CHECK(r >= 0);
        uint32_t inside = atomic_exchange(&t->inside, 1);
        CHECK(r == MP_LOCK_ABANDONED || inside == 0);
        atomic_fetch_add(&t->n, 1);
        atomic_store(&t->inside, 0);
        CHECK_EQ(mp_lock_release(t->lock), 0);
    }
}

static void storm_turns(int kills) {
    uint32_t id;
    turns *t = spec_shared(sizeof *t);
    t->lock = new_lock(&id);
    mp_proc worker[3];
    start_all(worker, 3, take_turns, t);
    for (int i = 0; i < kills; i++) {
        CHECK_PROGRESS(t->n);
        random_pause(200);
        kill_now(&worker[i % 3]);
        CHECK_PROGRESS(t->n);
        worker[i % 3] = start(take_turns, t);
    }
    kill_all(worker, 3);
    mp_object_detach(id);
}

SPEC_WITHIN(60, "lock: workers that are killed anywhere stop nobody") {
    storm_turns(400);
}

SPEC_WITHIN(60, "lock: the same without futex_waitv") {
    mp_futex_forbid_waitv();
    storm_turns(50);
}

/* ---- RLock -------------------------------------------------------------- */

static mp_rlock_shm *new_rlock(uint32_t *id) {
    uint32_t gen;
    CHECK_OK(mp_rlock_create(id, &gen));
    return mp_object_block(*id);
}

static void try_rlock(void *rlock) {
    CHECK_EQ(rlock_in(rlock, 0), -ETIMEDOUT);
    CHECK_EQ(mp_rlock_release(rlock), -EPERM);
}

SPEC("rlock: is free when released as often, by its owner only") {
    uint32_t id;
    mp_rlock_shm *rlock = new_rlock(&id);
    CHECK_EQ(mp_rlock_release(rlock), -EPERM);
    CHECK_EQ(rlock_in(rlock, 0), 0);
    CHECK_EQ(rlock_in(rlock, 0), 0);
    mp_proc child = start(try_rlock, rlock);
    CHECK_EQ(finish(&child), 0);
    CHECK_EQ(mp_rlock_release(rlock), 0);
    CHECK_EQ(mp_lock_owner(&rlock->lock), mp_me->tag);
    CHECK_EQ(mp_rlock_release(rlock), 0);
    CHECK_EQ(mp_rlock_release(rlock), -EPERM);
    mp_object_detach(id);
}

static void hold_deep(void *rlock) {
    for (int i = 0; i < 3; i++) CHECK_EQ(rlock_in(rlock, 5), 0);
    for (;;) pause();
}

SPEC("rlock: of a killed holder begins anew") {
    uint32_t id;
    mp_rlock_shm *rlock = new_rlock(&id);
    mp_proc child = start(hold_deep, rlock);
    CHECK_SOON(atomic_load(&rlock->count) == 3);
    mp_proc_signal(&child, SIGKILL);
    CHECK_EQ(rlock_in(rlock, 1), MP_LOCK_ABANDONED);
    CHECK_EQ(mp_rlock_release(rlock), 0);
    CHECK_EQ(mp_rlock_release(rlock), -EPERM);
    CHECK_EQ(finish(&child), -SIGKILL);
    mp_object_detach(id);
}

/* ---- Semaphore ---------------------------------------------------------- */

static mp_sem_shm *new_sem(uint32_t value, uint32_t bound, uint32_t *id) {
    uint32_t gen;
    CHECK_OK(mp_sem_create(value, bound, id, &gen));
    return mp_object_block(*id);
}

SPEC("sem: counts down, waits at 0, and is bounded") {
    uint32_t id;
    mp_sem_shm *sem = new_sem(2, 3, &id);
    CHECK_EQ(sem_in(sem, 0), 0);
    CHECK_EQ(sem_in(sem, 0), 0);
    CHECK_EQ(sem_in(sem, 0), -ETIMEDOUT);
    CHECK_EQ(sem_in(sem, 0.02), -ETIMEDOUT);
    CHECK_EQ(mp_sem_release(sem, 4), -EOVERFLOW);
    CHECK_EQ(mp_sem_value(sem), 0);
    CHECK_EQ(mp_sem_release(sem, 3), 0);
    CHECK_EQ(mp_sem_release(sem, 1), -EOVERFLOW);
    CHECK_EQ(mp_sem_value(sem), 3);
    mp_object_detach(id);
}

static void take_one(void *sem) {
    CHECK_EQ(sem_in(sem, 5), 0);
}

SPEC("sem: permits given at once wake as many") {
    uint32_t id;
    mp_sem_shm *sem = new_sem(0, MP_SEM_MAX, &id);
    mp_proc child[4];
    for (int round = 0; round < 10; round++) {
        start_all(child, 4, take_one, sem);
        random_pause(2000);
        CHECK_EQ(mp_sem_release(sem, 1), 0);
        CHECK_EQ(mp_sem_release(sem, 3), 0);
        finish_all(child, 4);
    }
    CHECK_EQ(mp_sem_value(sem), 0);
    mp_object_detach(id);
}

typedef struct stream {
    mp_sem_shm *sem;
    _Atomic uint64_t n;
} stream;

static void consume(void *argument) {
    stream *s = argument;
    for (;;) {
        CHECK_EQ(sem_in(s->sem, 5), 0);
        atomic_fetch_add(&s->n, 1);
    }
}

static void produce(void *argument) {
    stream *s = argument;
    for (;;) {
        if (mp_sem_value(s->sem) < 4) CHECK_EQ(mp_sem_release(s->sem, 2), 0);
        random_pause(20);
    }
}

SPEC_WITHIN(60, "sem: users that are killed anywhere stop nobody") {
    uint32_t id;
    stream *s = spec_shared(sizeof *s);
    s->sem = new_sem(0, MP_SEM_MAX, &id);
    void (*const work[4])(void *) = {consume, produce, consume, produce};
    mp_proc worker[4];
    for (int i = 0; i < 4; i++) worker[i] = start(work[i], s);
    for (int i = 0; i < 300; i++) {
        random_pause(200);
        kill_now(&worker[i % 4]);
        CHECK_PROGRESS(s->n);
        worker[i % 4] = start(work[i % 4], s);
    }
    kill_all(worker, 4);
    mp_object_detach(id);
}

/* ---- Event -------------------------------------------------------------- */

static int event_in(mp_event_shm *event, double seconds) {
    mp_deadline deadline = mp_deadline_in(seconds);
    uint32_t sets = mp_event_sets(event);
    int r;
    while ((r = mp_event_wait(event, sets, deadline)) == -EINTR) {
    }
    return r;
}

static mp_event_shm *new_event(uint32_t *id) {
    uint32_t gen;
    CHECK_OK(mp_event_create(id, &gen));
    return mp_object_block(*id);
}

SPEC("event: waits until it is set") {
    uint32_t id;
    mp_event_shm *event = new_event(&id);
    CHECK(!mp_event_is_set(event));
    CHECK_EQ(event_in(event, 0), -ETIMEDOUT);
    CHECK_EQ(event_in(event, 0.02), -ETIMEDOUT);
    mp_event_set(event);
    mp_event_set(event);
    CHECK(mp_event_is_set(event));
    CHECK_EQ(event_in(event, 0), 0);
    mp_event_clear(event);
    CHECK_EQ(event_in(event, 0), -ETIMEDOUT);
    mp_object_detach(id);
}

typedef struct sleepers {
    mp_event_shm *event;
    _Atomic uint64_t n;
} sleepers;

static void sleep_once(void *argument) {
    sleepers *s = argument;
    uint32_t sets = mp_event_sets(s->event);
    atomic_fetch_add(&s->n, 1);
    int r;
    while ((r = mp_event_wait(s->event, sets, mp_deadline_in(5))) ==
           -EINTR) {
    }
    CHECK_EQ(r, 0);
}

SPEC("event: wakes all who wait, also when cleared at once") {
    uint32_t id;
    sleepers *s = spec_shared(sizeof *s);
    s->event = new_event(&id);
    mp_proc child[3];
    for (int round = 0; round < 30; round++) {
        atomic_store(&s->n, 0);
        start_all(child, 3, sleep_once, s);
        CHECK_SOON(atomic_load(&s->n) == 3);
        random_pause(300);
        mp_event_set(s->event);
        mp_event_clear(s->event);
        finish_all(child, 3);
    }
    mp_object_detach(id);
}

static void set_and_clear(void *argument) {
    sleepers *s = argument;
    for (;;) {
        mp_event_set(s->event);
        random_pause(20);
        mp_event_clear(s->event);
    }
}

static void wait_often(void *argument) {
    sleepers *s = argument;
    for (;;) {
        CHECK_EQ(event_in(s->event, 5), 0);
        atomic_fetch_add(&s->n, 1);
    }
}

SPEC_WITHIN(60, "event: users that are killed anywhere stop nobody") {
    uint32_t id;
    sleepers *s = spec_shared(sizeof *s);
    s->event = new_event(&id);
    void (*const work[3])(void *) = {set_and_clear, wait_often, wait_often};
    mp_proc worker[3];
    for (int i = 0; i < 3; i++) worker[i] = start(work[i], s);
    for (int i = 0; i < 200; i++) {
        random_pause(200);
        kill_now(&worker[i % 3]);
        worker[i % 3] = start(work[i % 3], s);
        CHECK_PROGRESS(s->n);
    }
    kill_all(worker, 3);
    mp_object_detach(id);
}
