/* Internal locks: what a dead owner had committed is done before its lock
   passes on, by whoever comes, even if that one dies, too.

   Stands for runtime/mem/mutex.h and mutex.c: mp_mutex_lock,
   mp_mutex_lock_slow, take_or_sleep, mp_mutex_unlock; runtime/mem/txn.h and
   txn.c: mp_txn_commit, apply_all, mp_txn_replay; runtime/mem/slot.c:
   mp_owner_look; runtime/mem/reap.c: mp_reap, reap_live, recycle.

   A lock guards two words. Who has it sets both by one record. Process 3, if
   there is one, is born in the slot of process 0, when that was recycled.
   With SLEEP: how one waits for the lock, without what it guards; else
   a waiter waits in one step for what would wake it.
   Left out: spin() (a later attempt); what else a reaper does. A slot's
   `reaper`, and its replay guard, are taken from the dead in one step; the
   guard's next holder need not replay for the dead one, who had no record
   open (RECURSION shows what comes of doing so).

   Holds: who has the lock finds both words as the last commit says; a slot
   passes on with its record empty; nobody waits for ever, with slices.

   run holds -DCRASHES=2
   run holds -DHEIR -DCRASHES=1
   run holds -DSLEEP -DSLICES=2 -DEARLY=1
   run holds -DSLEEP -DCRASHES=0
   run fails -DHEIR -DCRASHES=0 -DMUTANT_GENERATION_FIRST
   run fails -DHEIR -DREAPS -DCRASHES=2 -DMUTANT_RECURSION
   run fails -DMUTANT_STEAL_WITHOUT_REPLAY
   run fails -DMUTANT_REPLAY_WITHOUT_GUARD
   run fails -DHEIR -DCRASHES=0 -DMUTANT_RECYCLE_WITHOUT_REPLAY
   run fails -DMUTANT_NOT_CLEARED
   run fails -DMUTANT_TWO_STORES
   run fails -DSLEEP -DCRASHES=0 -DMUTANT_NO_WAKE
   run fails -DSLEEP -DCRASHES=0 -DMUTANT_WAITERS_FORGOTTEN */

#define N 3
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef SLICES
#define SLICES 0
#endif
#ifndef EARLY
#define EARLY 0
#endif
#include "kernel.pml"

#ifdef HEIR
#define USERS 4
#else
#define USERS 3
#endif
#define ME       (_pid % 3)                 /* my slot */
#define TAG      (1 + _pid)                 /* gen * 3 + slot, + 1 */
#define SLOT(t)  (((t) - 1) % 3)
#define GEN(t)   (((t) - 1) / 3)
#ifdef SLEEP
#define WAITERS  8
#else
#define WAITERS  0
#endif
#define TAG_OF(w) ((w) & 7)
#define LIVES(t) (life[SLOT(t)] == ALIVE && gen[SLOT(t)] == GEN(t))
#define DEAD(t)  ((t) <= USERS && !LIVES(t))

byte mutex;                         /* mp_mutex_shm */
byte on_mutex;                      /* its queue */
byte a, b;                          /* what it guards */
byte truth;                         /* what they should be */
byte inside;                        /* who has the lock (SLEEP) */
byte gen[N], n[N], value[N];        /* mp_slot_shm: gen, txn.n, txn.w */
byte guard[N], reaper[N];           /* and its locks; tags */
#ifdef HEIR
bit begun;
#endif
byte slices = SLICES, early = EARLY;

/* mp_txn_replay(t); g, k are locals of the caller */
inline replay(t) {
#ifdef MUTANT_RECURSION
    /* mp_mutex_lock(guard) as any other lock: replays for its dead owner,
       who takes that one's guard, and so on */
    g = t;
    do
    :: atomic { guard[SLOT(g)] && DEAD(guard[SLOT(g)]) ->
        g = guard[SLOT(g)]; k++; assert(k <= USERS) }
    :: atomic { else -> g = 0; k = 0; break }
    od;
#endif
#ifndef MUTANT_REPLAY_WITHOUT_GUARD
    atomic { !guard[SLOT(t)] || DEAD(guard[SLOT(t)]) -> guard[SLOT(t)] = TAG }
#endif
#ifndef MUTANT_GENERATION_FIRST
    k = n[SLOT(t)];
    g = gen[SLOT(t)];
#else
    g = gen[SLOT(t)];
    k = n[SLOT(t)];
#endif
    if
    :: atomic { g == GEN(t) && k > 0 ->
        assert(gen[SLOT(t)] == GEN(t));  /* it is the dead one's record */
        a = value[SLOT(t)] }             /* apply_all */
        b = value[SLOT(t)];
        n[SLOT(t)] = 0
    :: atomic { else }
    fi;
#ifndef MUTANT_REPLAY_WITHOUT_GUARD
    atomic { g = 0; k = 0; guard[SLOT(t)] = 0 }
#else
    atomic { g = 0; k = 0 }
#endif
}

/* mp_reap of who had slot s */
inline reap(s) {
    atomic { !reaper[s] || DEAD(reaper[s]) -> reaper[s] = TAG }
    if
    :: atomic { life[s] == MARKED -> t = gen[s] * 3 + s + 1 }
#ifndef MUTANT_RECYCLE_WITHOUT_REPLAY
        replay(t);
#endif
        atomic { /* recycle; its steps: slot.pml */
            assert(n[s] == 0);
            t = 0;
            gen[s] = gen[s] + 1;
            life[s] = GONE
        }
    :: atomic { else }
    fi;
    reaper[s] = 0
}

/* mp_futex_wait2 ended, by whatever. */
inline wake_up() {
    unqueue(on_mutex);
    unqueue(on_life[SLOT(TAG_OF(w))]);
    w = 0
}

active [USERS] proctype user() {
    byte w, t, g, k;
    {
#ifdef HEIR
    skip;
end_unborn:
    atomic { begun && (_pid < 3 || life[0] == GONE) -> life[ME] = ALIVE }
#endif
#ifdef REAPS
    if /* something else makes it look around: mp_reap_sweep */
    :: atomic { true }
    :: atomic { life[0] == MARKED } -> reap(0)
    :: atomic { life[1] == MARKED } -> reap(1)
    fi;
#endif
    atomic { /* mp_mutex_lock */
        if
        :: mutex == 0 -> mutex = TAG; goto held
        :: else
        fi
    }
again:
    w = mutex; /* mp_mutex_lock_slow: load */
    if
    :: w == 0 -> atomic { /* try_free */
        if
#ifndef MUTANT_WAITERS_FORGOTTEN
        :: mutex == 0 -> mutex = TAG | WAITERS; goto held
#else
        :: mutex == 0 -> mutex = TAG; goto held
#endif
        :: else -> goto again
        fi }
    :: w && DEAD(TAG_OF(w)) -> /* take_or_sleep: mp_owner_look */
#if !defined(SLEEP) && !defined(MUTANT_STEAL_WITHOUT_REPLAY)
        t = TAG_OF(w);
        replay(t);
#endif
        atomic {
            t = 0;
            if
            :: mutex == w -> mutex = TAG | WAITERS; w = 0; goto held
            :: else -> w = 0; goto again
            fi
        }
    :: w && !DEAD(TAG_OF(w))
    fi;
#ifndef SLEEP
    atomic { mutex != w || DEAD(TAG_OF(w)) -> w = 0; goto again }
#else
    atomic { /* word -> word | WAITERS */
        if
        :: w & WAITERS
        :: !(w & WAITERS) && mutex == w -> w = w | WAITERS; mutex = w
        :: else -> w = 0; goto again
        fi
    }
    atomic { /* mp_futex_wait2: the first word */
        if
        :: mutex == w -> on_mutex = on_mutex | MINE
        :: else -> w = 0; goto again
        fi
    }
    atomic { /* and the second */
        if
        :: !DEAD(TAG_OF(w)) ->
            on_life[SLOT(TAG_OF(w))] = on_life[SLOT(TAG_OF(w))] | MINE
        :: else -> unqueue(on_mutex); w = 0; goto again
        fi
    }
    if
    :: atomic { !(on_mutex & on_life[SLOT(TAG_OF(w))] & MINE) ->
        wake_up(); goto again }
    :: atomic { early > 0 && (on_mutex & on_life[SLOT(TAG_OF(w))] & MINE) ->
        early--; wake_up(); goto again }
    :: atomic { slices > 0 && timeout -> slices--; wake_up(); goto again }
    fi;
#endif
held:
#ifdef SLEEP
    assert(!LIVING(inside));
    inside = MINE;
    atomic { inside = 0; w = mutex; mutex = 0 }     /* mp_mutex_unlock */
#else
#ifndef MUTANT_TWO_STORES
    atomic { /* mp_txn_set64; mp_txn_commit: the record is there */
        assert(a == truth && b == truth);
        value[ME] = TAG;
        n[ME] = 2;
        truth = TAG
    }
    a = TAG;                                        /* apply_all */
    b = TAG;
#ifndef MUTANT_NOT_CLEARED
    n[ME] = 0;
#endif
#else
    atomic { assert(a == truth && b == truth); a = TAG; truth = TAG }
    b = TAG;
#endif
    atomic { w = mutex; mutex = 0 }                 /* mp_mutex_unlock */
#endif
#ifndef MUTANT_NO_WAKE
    if
    :: w & WAITERS -> atomic { wake_one(on_mutex); w = 0 }
    :: else -> w = 0
    fi;
#endif
    skip
    } unless { KILLED(_pid) };
end:
    atomic {
        KILLED(_pid) ->
        unqueue(on_mutex);
        unqueue(on_life[0]); unqueue(on_life[1]); unqueue(on_life[2]);
        w = 0; t = 0; g = 0; k = 0
    }
    be_marked(ME)
}

#ifdef HEIR
/* Waits for its children (proc/proc.c: look, reap). */
active proctype parent() {
    byte t, g, k;
end:
    do
    :: life[0] == MARKED -> reap(0) /* that of the others: nothing new */
    od
}
#endif

active proctype killer() {
    byte kills = CRASHES;
#ifdef HEIR
    /* That one was killed in its commit before all this. */
    d_step {
        dying = 1;
        begun = 1;
        mutex = 1;
        n[0] = 2;
        value[0] = 1;
        truth = 1;
        a = 1
    }
#endif
    do
    :: atomic { kills > 0 ->
        if /* they are alike: call the first 0, the second 1 */
        :: dying == 0 -> dying = 1
        :: dying && !KILLED(1) -> dying = dying | 2
#ifdef HEIR
        :: !KILLED(3) && gen[0] == 1 && life[0] == ALIVE -> dying = dying | 8
#endif
        :: else
        fi;
        kills-- }
    :: atomic { kills = 0; break }
    od
}
