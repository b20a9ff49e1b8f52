/* The lock that several nouns' regions are about, and its type, which is
   declared before the first region. */
#ifndef MP_SPEC_LOCK_FIXTURE_H
#define MP_SPEC_LOCK_FIXTURE_H

#include "crash.h"
#include "mem/object.h"
#include "sync/lock.h"

/* In SPEC_PREPARE: the runtime is open, and a lock has been made once. */
static inline void open_with_locks(void) {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_object_detach(id);
}

#ifdef LOCK_FIXTURE /* ... of this file's regions */
static uint32_t id, gen;
static mp_lock_shm *lock;

static void set_up(void) {
    CHECK_OK(mp_lock_create(&id, &gen));
    lock = mp_object_block(id);
}

static void tear_down(void) { mp_object_detach(id); }

/* 0, or MP_LOCK_ABANDONED. */
static int acquire_lock(void) {
    int r;
    while ((r = mp_lock_acquire(lock, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK(r == 0 || r == MP_LOCK_ABANDONED);
    return r;
}
#endif

#endif
