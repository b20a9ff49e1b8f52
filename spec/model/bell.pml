/* The bell: waiting in poll for things that lie in shared memory.

   Stands for runtime/sync/bell.h and bell.c: mp_bell_wait, mp_bell_ring; for
   os/shelf.c: mp_shelf_listen, mp_shelf_ring; and for what announces in a
   thing's word and takes the slow way by it: mp_wait_announce,
   mp_wait_notify, mp_event_announce, mp_event_set.

   Two things. One process waits for either, another for the second one; two
   others make one of them ready each, and the second one does it once more
   for whoever waits again.

   Holds: when nothing happens any more, nobody living sleeps while a thing
   that it waits for is ready: if nobody dies; with slices, one for each
   death.

   run holds -DCRASHES=0
   run holds -DCRASHES=1 -DSLICES=1
   run fails -DCRASHES=0 -DMUTANT_NO_LOOK
   run fails -DCRASHES=0 -DMUTANT_NO_FENCE
   run fails -DCRASHES=0 -DMUTANT_BELL_LAST
   run fails -DCRASHES=0 -DMUTANT_LISTEN_LATE
   run fails -DCRASHES=0 -DMUTANT_TAKES_BACK_LATE
   run fails -DCRASHES=1 */

#define N 4
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef SLICES
#define SLICES 0
#endif
#include "kernel.pml"

bit ready[2];      /* the things */
bit may_sleep[2];  /* bit 0 of their words, or the events' SLEEPERS */
bit bell;          /* mp_super_shm.bell */
byte listens;      /* who has an epoll of the bell, by number */
byte heard;        /* ... in which there is an event */
byte asleep;
byte slices = SLICES;

#define FIRST(w) (w)        /* of what waiter w waits for: 0 and 1, or 1 */
#define IS_READY(w) ((FIRST(w) == 0 && ready[0]) || ready[1])

inline announce(w) {
#ifndef MUTANT_BELL_LAST
    bell = 1;
#endif
    if
    :: atomic { FIRST(w) == 0 -> may_sleep[0] = 1 }
    :: atomic { FIRST(w) == 1 }
    fi;
    may_sleep[1] = 1;
#ifdef MUTANT_BELL_LAST
    skip
#endif
}

inline ring() { /* mp_bell_ring */
    if
    :: atomic { bell } ->
#ifndef MUTANT_TAKES_BACK_LATE
        if
        :: atomic { bell -> bell = 0 } -> heard = heard | listens
        :: atomic { !bell }
        fi
#else
        heard = heard | listens;
        bell = 0
#endif
    :: atomic { !bell }
    fi
}

inline listen(w) { atomic { listens = listens | BIT(w) } }

active [2] proctype waiter() {
    byte times = 1 + _pid; /* the second waits twice */
    {
    skip;
#ifndef MUTANT_LISTEN_LATE
    listen(_pid);
#endif
again:
    announce(_pid);
#ifndef MUTANT_NO_LOOK
    if
    :: atomic { IS_READY(_pid) -> goto is_ready }
    :: atomic { !IS_READY(_pid) }
    fi;
#endif
#ifdef MUTANT_BELL_LAST
    bell = 1;
#endif
#ifdef MUTANT_LISTEN_LATE
    listen(_pid);
#endif
    asleep = asleep | MINE;
end_asleep: /* the monitor says whether rightly */
    do
    :: atomic { heard & MINE ->
        heard = heard & ~MINE; asleep = asleep & ~MINE; goto again }
    :: atomic { slices > 0 && timeout -> slices--; heard = asleep }
    od;
is_ready:
    atomic {
        times--;
        if
        :: times > 0 -> ready[1] = 0; goto again /* it has taken it */
        :: else
        fi
    }
    } unless { KILLED(_pid) };
end:
    atomic {
        KILLED(_pid) ->
        asleep = asleep & ~MINE; listens = listens & ~MINE; times = 0
    }
    life[_pid] = MARKED
}

inline make_ready(t) {
#ifndef MUTANT_NO_FENCE
    ready[t] = 1;
    if
    :: atomic { may_sleep[t] } -> may_sleep[t] = 0; ring()
    :: atomic { !may_sleep[t] }
    fi
#else
    if /* the load before the store is seen */
    :: atomic { may_sleep[t] } -> ready[t] = 1; may_sleep[t] = 0; ring()
    :: atomic { !may_sleep[t] } -> ready[t] = 1
    fi
#endif
}

active [2] proctype notifier() {
    byte n = _pid - 1; /* the second does it twice */
    {
    skip;
again:
    if
    :: atomic { _pid == 2 } -> make_ready(0)
    :: atomic { _pid == 3 } -> make_ready(1)
    fi;
    atomic {
        n--;
        if
        :: n > 0 -> goto again
        :: else
        fi
    }
    } unless { KILLED(_pid) };
end:
    atomic { KILLED(_pid) -> n = 0 }
    life[_pid] = MARKED
}

active proctype killer() {
    byte kills = CRASHES;
    do
    :: atomic { kills > 0 ->
        if
        :: !KILLED(0) -> dying = dying | BIT(0)
        :: !KILLED(1) -> dying = dying | BIT(1)
        :: !KILLED(2) -> dying = dying | BIT(2)
        :: !KILLED(3) -> dying = dying | BIT(3)
        :: else
        fi;
        kills-- }
    :: atomic { kills = 0; break }
    od
}

#define WRONG(w) (LIVING(asleep & BIT(w)) && IS_READY(w))

/* When nothing happens any more, not even a slice's end */
active proctype monitor() {
    timeout && (!slices || !LIVING(asleep));
    assert(!WRONG(0) && !WRONG(1))
}
