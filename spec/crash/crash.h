/* Killing at every instruction. A region is one operation of the runtime, as

       static const crash_region region = {
           .name = "lock: acquire, while another holds it",
           .set_up = make_lock, .ready = take_it, .run = acquire,
           .wake = release_it, .peers = 2, .peer = acquire_and_release,
           .check = nobody_holds_it, .tear_down = drop_lock};
       CRASH_REGION(region)

   For each point of it, the killer forks a victim that runs it, and ends the
   victim at that point by SIGKILL. Then the peers do their work, which must
   take milliseconds; mp_fsck and the region's own check look at what is left;
   and the arena must hold just the bytes that it held before.

   Points: before each instruction (step.c; x86-64), or before each access to
   memory (access.c; everywhere), and in each sleep of the victim, twice: as
   it sleeps, and when it was woken and has not yet run.
   Of an instruction that runs often (a spin, a fill) the first runs, the last
   one, and a sample of the others are points; all of them with CRASH_ALL=1 in
   the environment. The numbers are printed.

   In every second life nobody notices the death but who stumbles over it:
   the killer, the victim's parent, waits for it only after the peers.

   Processes: the killer is the spec's; peers and victims are participants
   that it forks. Static variables that set_up and ready write are seen by
   the victim; by the peers only those that set_up wrote, the rest must lie
   in shared memory (spec_shared, or the arena). */
#ifndef MP_SPEC_CRASH_H
#define MP_SPEC_CRASH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../runtime/harness.h"

/* Called in the order of the fields; NULL where there is nothing to do.
   set_up     killer, once, before the peers are forked
   ready      killer, before each life
   from_birth the region begins in the child of the fork, before it is a
              participant: no `begin`
   begin      victim: what comes before the region, and is not killed
   poised     killer: the victim stands before its first instruction
   run        victim: the region
   wake       killer: the victim sleeps for the n-th time (from 0); lets it go
              on. NULL: the first sleep is the end of the region
   dying      killer: the victim stands where it will be killed; the last
              moment at which nobody can have noticed
   after      killer, when the victim is dead: ends what ready began and wake
              has not, as a lock held
   most       of more points than so many, so many are tried, evenly spread,
              but for CRASH_ALL; 0: 200
   peers      how many there are, at most CRASH_PEERS
   peer       each peer, once per life: after the death, or when
              crash_begin_peers says so
   check      killer, after the peers are done and the dead are reaped
   tear_down  killer, once, when the peers have ended */
typedef struct crash_region {
    const char *name;
    void (*set_up)(void);
    void (*ready)(void);
    bool from_birth;
    void (*begin)(void);
    void (*poised)(void);
    void (*run)(void);
    void (*wake)(int n);
    void (*dying)(void);
    void (*after)(void);
    uint64_t most;
    int peers;
    void (*peer)(int which);
    void (*check)(void);
    void (*tear_down)(void);
} crash_region;

enum { CRASH_PEERS = 4 };

/* A spec of its own. */
#define CRASH_REGION(region)                                             \
    SPEC_WITHIN(300, "crash: " #region) { crash_run(&(region)); }

void crash_run(const crash_region *region);

/* In ready, wake and check: the number of this life, from 0; whether the
   victim came to the region's end (in check). */
uint64_t crash_life(void);
bool crash_left(void);

/* Memory that killer, victim and peers share, zeroed before each life. */
enum { CRASH_NOTES = 64 };
typedef struct crash_notes {
    _Atomic uint64_t n[CRASH_NOTES];
} crash_notes;
crash_notes *crash_shared(void);

static inline void crash_note(int which, uint64_t value) {
    atomic_store(&crash_shared()->n[which], value);
}

static inline void crash_count(int which) {
    atomic_fetch_add(&crash_shared()->n[which], 1);
}

static inline uint64_t crash_noted(int which) {
    return atomic_load(&crash_shared()->n[which]);
}

/* The victim's participant; in the killer, once it was forked. */
uint32_t crash_victim(void);

/* In ready, poised, wake and after: the peers begin already. In these and
   dying: returns when each of them sleeps, or has done its work. */
void crash_begin_peers(void);
void crash_await_rest(void);

/* In check: mp_fsck finds nothing. It looks behind check anyway; this is for
   who takes away in check what there is to look at. */
void crash_fsck(void);

#endif
