/* What the specs of locks and of waiting share: children that are
   participants, and killing them at any moment. */
#ifndef MP_SPEC_SYNC_TOOLS_H
#define MP_SPEC_SYNC_TOOLS_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>

#include "harness.h"
#include "mem/slot.h"
#include "proc/proc.h"
#include "sync/lock.h"

/* For SPEC_PREPARE, ahead of other kinds of objects: the first object brings
   the object table with it, which stays. */
static inline void prepare_locks(void) {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_object_detach(id);
}

/* Forks a participant that runs work(argument) and ends. */
static inline mp_proc start(void (*work)(void *), void *argument) {
    mp_proc proc;
    int r = mp_proc_fork(&proc, 0);
    CHECK_OK(r);
    if (r == 1) {
        work(argument);
        mp_proc_exit(0);
    }
    return proc;
}

/* Waits until it is a participant: what is killed before never was one. */
static inline void wait_born(const mp_proc *proc) {
    const mp_slot_shm *slot = mp_slot_at(proc->tag % MP_SLOTS);
    CHECK_SOON((atomic_load(&slot->state) & 3) == MP_SLOT_LIVE);
}

/* Waits for its end: exit code, or minus the signal. */
static inline int finish(mp_proc *proc) {
    mp_deadline deadline = mp_deadline_in(10);
    int r;
    while ((r = mp_proc_wait(proc, deadline)) == -EINTR) {
    }
    CHECK_OK(r);
    mp_proc_close(proc);
    return proc->exitcode;
}

static inline void kill_now(mp_proc *proc) {
    mp_proc_signal(proc, SIGKILL);
    CHECK_EQ(finish(proc), -SIGKILL);
}

/* Forks n that run work(argument). */
static inline void start_all(mp_proc *proc, int n, void (*work)(void *),
                             void *argument) {
    for (int i = 0; i < n; i++) proc[i] = start(work, argument);
}

/* Waits for n that end by themselves, as they should. */
static inline void finish_all(mp_proc *proc, int n) {
    for (int i = 0; i < n; i++) CHECK_EQ(finish(&proc[i]), 0);
}

static inline void kill_all(mp_proc *proc, int n) {
    for (int i = 0; i < n; i++) kill_now(&proc[i]);
}

/* Up to `most` microseconds, awake: a moment that nobody chose. */
static inline void random_pause(int most) {
    int64_t end = mp_now_ns() + (int64_t)(rand() % (most * 1000));
    while (mp_now_ns() < end) {
    }
}

/* The counter grows within a second. */
#define CHECK_PROGRESS(counter)                                           \
    do {                                                                  \
        uint64_t seen_ = atomic_load(&(counter));                         \
        double end_ = spec_now() + (spec_sanitized() ? 5 : 1);            \
        while (atomic_load(&(counter)) == seen_ && spec_now() < end_)     \
            spec_pause();                                                 \
        CHECK(atomic_load(&(counter)) != seen_);                          \
    } while (0)

#endif
