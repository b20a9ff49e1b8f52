/* What several regions need: a gate, and one who died before. */
#ifndef MP_SPEC_REGION_TOOLS_H
#define MP_SPEC_REGION_TOOLS_H

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "crash.h"
#include "mem/arena.h"
#include "mem/heap.h"
#include "os/futex.h"
#include "proc/proc.h"

/* ---- a gate ----------------------------------------------------------

   Where the victim sleeps until the killer, in `wake`, has done what needs
   the victim to have come so far. Closed at the beginning of each life. It
   is the last of the notes. */

static inline _Atomic uint32_t *gate(void) {
    return (_Atomic uint32_t *)(void *)&crash_shared()->n[CRASH_NOTES - 1];
}

static inline void pass_gate(void) {
    while (atomic_load(gate()) == 0) mp_futex_wait(gate(), 0, MP_FOREVER);
}

static inline void open_gate(void) {
    atomic_store(gate(), 1);
    mp_futex_wake(gate(), 1);
}

/* ---- one who died before ---------------------------------------------- */

/* A participant that does `act` and is killed. It is dead on return, and
   nobody has noticed. */
static inline mp_proc leave_dead(void (*act)(void)) {
    mp_proc dead;
    siginfo_t info;
    int r = mp_proc_fork(&dead, 0);
    CHECK_OK(r);
    if (r == 1) {
        act();
        raise(SIGKILL);
    }
    CHECK_OK(waitid(P_PID, (id_t)dead.pid, &info, WEXITED | WNOWAIT));
    CHECK_EQ(info.si_status, SIGKILL);
    return dead;
}

/* Now its parent notices. */
static inline void bury_dead(mp_proc *dead) {
    int r;
    while ((r = mp_proc_wait(dead, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_OK(r);
    mp_proc_close(dead);
}

/* Participants, and places kept for some that are to come. */
static inline uint32_t slots_in_use(void) {
    uint32_t n = 0, high = atomic_load(&mp_me->super->slots);
    for (uint32_t i = 1; i < high; i++)
        n += (atomic_load(&mp_slot_at(i)->state) & 3) != MP_SLOT_FREE;
    return n;
}

/* ---- the heap ---------------------------------------------------------

   In `begin`: a block of this size costs the victim no new span any more, of
   which other regions are made. */
static inline void warm_up(size_t size) { mp_free(mp_alloc(size)); }

/* ---- short deadlines --------------------------------------------------

   For a victim whose time is to be up. In the first two lives, in which it is
   stepped, it needs longer to come to its sleep. */

enum { STEPPED_LIVES = 2 };

/* In `begin`; tells the killer by note `which`. */
static inline mp_deadline short_deadline(int which) {
    mp_deadline d =
        mp_deadline_in(crash_life() < STEPPED_LIVES ? 0.09 : 0.002);
    crash_note(which, (uint64_t)d.ns);
    return d;
}

/* In `wake`. */
static inline void await_deadline(int which) {
    mp_deadline d = {(int64_t)crash_noted(which)};
    int64_t left = mp_deadline_left_ns(d);
    nanosleep(&(struct timespec){.tv_nsec = (long)left}, NULL);
}

#endif
