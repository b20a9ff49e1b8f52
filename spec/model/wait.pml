/* The eventcount: announce, look again, sleep; change, look who announced,
   wake; the woken one tells the next.

   Stands for runtime/sync/wait.h and wait.c: mp_wait_announce, mp_wait_sleep,
   mp_wait_notify, mp_wait_notify_slow, mp_wait_chain, mp_wait_slept; its
   use by runtime/data/queue.c: await, mp_queue_get, queue_on_death.

   What is waited for are tokens, taken in one step each. Two processes (or
   THREE) want one, the last gives as many, and wakes one for each, or ALL.
   Whoever reaps a dead one wakes all.

   Holds: when nothing happens any more, nobody living sleeps while there is a
   token: if nobody dies; if the dead are reaped; with slices.

   run holds -DCRASHES=0 -DTHREE
   run holds -DPARENT
   run holds -DPARENT -DALL
   run holds -DSLICES=2
   run fails -DCRASHES=0 -DMUTANT_NO_LOOK
   run fails -DCRASHES=0 -DMUTANT_NO_FENCE
   run fails -DCRASHES=0 -DMUTANT_NO_COUNT
   run fails -DCRASHES=0 -DMUTANT_NO_CHAIN
   run fails -DCRASHES=0 -DMUTANT_NO_NOTIFY_BY_WOKEN
   run fails -DPARENT -DCRASHES=1 -DMUTANT_DEATH_WAKES_NOBODY
   run fails -DCRASHES=1 */

#ifdef THREE
#define N 4
#else
#define N 3
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef SLICES
#define SLICES 0
#endif
#include "kernel.pml"

#define GIVEN (N - 1)
#ifdef ALL
#define GIVES_ALL true
#else
#define GIVES_ALL false
#endif

bit may_sleep;  /* mp_wait_shm.word: bit 0, ... */
byte count;     /* ... the rest */
byte asleep;    /* its queue */
byte tokens;
byte slices = SLICES;

inline notify_slow(all) { /* mp_wait_notify_slow */
#ifndef MUTANT_NO_COUNT
    atomic { may_sleep = 0; count++ }
#else
    may_sleep = 0;
#endif
    atomic {
        if
        :: all -> asleep = 0
        :: !(all) -> wake_one(asleep)
        fi
    }
}

/* mp_reap, of one that held the object: its on_death */
inline reap(v) {
#ifndef MUTANT_DEATH_WAKES_NOBODY
    notify_slow(true);
#endif
    life[v] = GONE
}

active [GIVEN] proctype waiter() {
    byte seen, v;
    bit woken;
    {
    skip;
again:
    if /* get_locked */
    :: atomic { tokens > 0 -> tokens-- }
    :: atomic { tokens == 0 } ->
        atomic { may_sleep = 1; seen = count }   /* mp_wait_announce */
#ifndef MUTANT_NO_LOOK
        if                                       /* ready */
        :: atomic { tokens > 0 -> seen = 0; goto again }
        :: atomic { tokens == 0 }
        fi;
#endif
        atomic {                                 /* mp_wait_sleep */
            if
            :: may_sleep && count == seen -> asleep = asleep | MINE
            :: else
            fi;
            seen = 0
        }
end_asleep: /* the monitor says whether rightly */
        if
        :: atomic { !(asleep & MINE) ->
#ifndef MUTANT_NO_CHAIN
            may_sleep = 1;                       /* mp_wait_chain */
#endif
            woken = 1; goto again }
        :: atomic { slices > 0 && timeout -> slices--; unqueue(asleep) }
        fi;
        do /* mp_wait_slept: mp_reap_sweep, -EINTR */
        :: atomic { v < N && life[v] == MARKED } -> reap(v); v++
        :: atomic { v < N && life[v] != MARKED -> v++ }
        :: atomic { v == N -> v = 0; woken = 0; goto again }
        od
    fi;
#ifndef MUTANT_NO_NOTIFY_BY_WOKEN
    if
    :: atomic { woken && tokens > 0 } ->
        if                                       /* mp_wait_notify */
        :: atomic { may_sleep } -> notify_slow(false)
        :: atomic { !may_sleep }
        fi
    :: atomic { !(woken && tokens > 0) }
    fi;
#endif
    skip
    } unless { KILLED(_pid) };
end:
    atomic {
        KILLED(_pid) ->
        unqueue(asleep);
        seen = 0; v = 0; woken = 0
    }
    life[_pid] = MARKED
}

active proctype giver() {
    byte n;
    {
    skip;
again:
#ifndef MUTANT_NO_FENCE
    atomic { tokens++; n++ }
    if                                           /* mp_wait_notify */
    :: atomic { may_sleep } -> notify_slow(GIVES_ALL)
    :: atomic { !may_sleep }
    fi;
#else
    if /* the load before the store is seen */
    :: atomic { may_sleep } ->
        atomic { tokens++; n++ }
        notify_slow(GIVES_ALL)
    :: atomic { !may_sleep } -> atomic { tokens++; n++ }
    fi;
#endif
    atomic {
        if
        :: n < GIVEN -> goto again
        :: else -> n = 0
        fi
    }
    } unless { KILLED(_pid) };
end:
    atomic { KILLED(_pid) -> n = 0 }
    life[_pid] = MARKED
}

#ifdef PARENT
active proctype parent() {
end:
    do
    :: life[0] == MARKED -> reap(0)
    :: life[1] == MARKED -> reap(1)
    :: life[2] == MARKED -> reap(2)
#ifdef THREE
    :: life[3] == MARKED -> reap(3)
#endif
    od
}
#endif

active proctype killer() {
    byte kills = CRASHES;
    do
    :: atomic { kills > 0 ->
        if /* waiters are alike: call the first 0, the second 1 */
        :: !KILLED(0) -> dying = dying | 1
        :: !KILLED(1) && KILLED(0) -> dying = dying | 2
        :: !KILLED(N - 1) -> dying = dying | BIT(N - 1)
        :: else
        fi;
        kills-- }
    :: atomic { kills = 0; break }
    od
}

/* When nothing happens any more, not even a slice's end */
active proctype monitor() {
    timeout && (!slices || !LIVING(asleep));
    assert(!tokens || !LIVING(asleep))
}
