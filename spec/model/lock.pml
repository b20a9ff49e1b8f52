/* Locks that users hold: death of the holder, of who waits, of who was woken,
   of who buries.

   Stands for runtime/sync/lock.h and lock.c: mp_lock_try, mp_lock_acquire,
   mp_lock_acquire_slow, look, take, sleep_on, mp_lock_release, mp_lock_wake,
   mp_lock_bury; runtime/mem/slot.c: mp_owner_look; runtime/mem/reap.c:
   mp_reap, mp_reap_sweep, recycle; runtime/sync/wait.c: mp_wait_slice,
   mp_wait_slept.

   Left out: spin() (a later mp_lock_try); records, blocks and objects of the
   dead (mutex.pml); reuse of its slot (slot.pml); how one waits for a slot's
   `reaper`, which is taken from a dead one in one step here (mutex.pml).

   Holds: one at a time among the living is inside; who acquires is told
   ABANDONED just when a dead one held the lock and nobody was told before;
   nobody sleeps for ever
     - with slices, whoever is killed; also when the dead one had not the
       object of which the lock is a part, so that it is not buried;
     - without, when somebody reaps all the dead (a parent does, who waits
       for its children), or when the dead one held the lock and those who
       sleep watch its life word.

   run holds -DSLICES=2 -DEARLY=1
   run holds -DSLICES=2 -DNOT_HELD
   run holds -DPARENT
   run holds -DWATCHED -DCRASHES=1 -DBYSTANDER
   run holds -DDEADLINE -DTWICE -DCRASHES=0
   run fails -DPARENT -DCRASHES=0 -DMUTANT_NO_WAKE
   run fails -DPARENT -DCRASHES=0 -DMUTANT_WAITERS_FORGOTTEN
   run fails -DPARENT -DMUTANT_BURY_WITHOUT_WAKE
   run fails -DPARENT -DMUTANT_BURY_WITHOUT_LEFT
   run fails -DWATCHED -DCRASHES=1 -DMUTANT_LIFE_NOT_WATCHED
   run fails -DSLICES=1 -DMUTANT_STEAL_WITHOUT_LOOK
   run fails -DSLICES=2 -DMUTANT_STEAL_WITHOUT_CAS
   run fails -DWATCHED -DCRASHES=1 -DBYSTANDER -DMUTANT_ONE_WOKEN_BY_DEATH
   run fails -DDEADLINE -DTWICE -DCRASHES=0 -DMUTANT_DEADLINE_KEEPS_WAKE
   run fails -DCRASHES=1 */

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

#define TAG(p)    ((p) + 1)
#define TAG_OF(w) ((w) & 3)
#define OWNER(w)  (TAG_OF(w) - 1)
#define WAITERS   4
#define LEFT      8
#define DEAD(tag) ((tag) <= N && life[(tag) - 1] != ALIVE)

byte word;             /* mp_lock_shm */
byte on_word;          /* its queue */
byte reaper[N];        /* mp_slot_shm's; a tag */
byte slices = SLICES, early = EARLY;
byte inside;           /* who holds it */
bit owed;              /* a dead holder, of whom nobody was told */

inline check_inside(abandoned) {
    assert(LIVING(inside) == 0);
    assert((abandoned) == owed);
    owed = 0;
    inside = MINE
}

/* mp_reap. It looks again when it has `reaper`; reaping twice is harmless,
   and happens when a reaper dies on the way. */
inline reap(v) {
    atomic {
        reaper[v] == 0 || DEAD(reaper[v]) ->
        reaper[v] = TAG(_pid)
    }
    if
    :: life[v] == MARKED ->
#ifndef NOT_HELD
        /* on_death, mp_lock_bury: the loop that ends with the exchange, or
           with a word that names another */
        atomic {
            if
#ifndef MUTANT_BURY_WITHOUT_LEFT
            :: TAG_OF(word) == TAG(v) -> word = (word & WAITERS) | LEFT
#else
            :: TAG_OF(word) == TAG(v) -> word = word & WAITERS
#endif
            :: else
            fi
        }
#ifndef MUTANT_BURY_WITHOUT_WAKE
        atomic { wake_one(on_word) } /* mp_lock_wake */
#endif
#endif
        life[v] = GONE;              /* recycle: gen + 1, life = 0 */
        on_life[v] = 0               /* wakes all that sleep on it */
    :: else
    fi;
    reaper[v] = 0
}

/* mp_futex_wait2 ended, by whatever. */
inline wake_up() {
    unqueue(on_word);
    unqueue(on_life[OWNER(w)]);
    w = 0
}

active [N] proctype user() {
    byte w, v; /* the word as it was read; whom I reap */
#ifdef TWICE
    bit second;
#endif
    bit bits;  /* WAITERS are to be set, since I have slept */
    {
    skip;
again:
    atomic { /* mp_lock_try; and `bits = 0` of mp_lock_acquire_slow */
        if
        :: word == 0 -> word = TAG(_pid); check_inside(0); goto held
        :: else -> bits = 0
        fi
    }
look:
    w = word; /* look: load */
    if
    :: TAG_OF(w) == 0 ->
        atomic { /* take(word, bits) */
            if
            :: word == w ->
                word = TAG(_pid) | (w & WAITERS) | (bits -> WAITERS : 0);
                check_inside(w / LEFT);
                w = 0; bits = 0;
                goto held
            :: else -> goto look_again
            fi
        }
#ifndef MUTANT_STEAL_WITHOUT_LOOK
    :: TAG_OF(w) && life[OWNER(w)] != ALIVE ->       /* mp_owner_look */
#else
    :: TAG_OF(w) ->
#endif
        v = OWNER(w);
        reap(v);
        atomic { /* take(word, WAITERS) */
            v = 0;
            if
#ifndef MUTANT_STEAL_WITHOUT_CAS
            :: word == w ->
#else
            :: true ->
#endif
                word = TAG(_pid) | WAITERS;
                check_inside(1);
                w = 0; bits = 0;
                goto held
            :: else -> goto look_again
            fi
        }
    :: TAG_OF(w) && life[OWNER(w)] == ALIVE          /* mp_owner_look */
#ifdef DEADLINE
    :: _pid == 2 && TAG_OF(w) && life[OWNER(w)] == ALIVE ->
        /* mp_deadline_passed: the wake that it got is another's */
#ifndef MUTANT_DEADLINE_KEEPS_WAKE
        if
        :: bits -> atomic { wake_one(on_word) }
        :: else
        fi;
#endif
        atomic { w = 0; bits = 0; goto end }
#endif
    fi;
    atomic { /* sleep_on: word -> word | WAITERS */
        if
        :: w & WAITERS
        :: !(w & WAITERS) && word == w -> w = w | WAITERS; word = w
        :: else -> goto look_again
        fi
    }
    atomic { /* mp_futex_wait2: the first word */
        if
        :: word == w -> on_word = on_word | MINE
        :: else -> goto look_again
        fi
    }
    atomic { /* and the second */
        if
#ifndef MUTANT_LIFE_NOT_WATCHED
        :: life[OWNER(w)] == ALIVE ->
#else
        :: true ->
#endif
            on_life[OWNER(w)] = on_life[OWNER(w)] | MINE
        :: else -> unqueue(on_word); goto look_again
        fi
    }
    if
#ifndef MUTANT_LIFE_NOT_WATCHED
    :: atomic { !(on_word & on_life[OWNER(w)] & MINE) -> /* woken */
#else
    :: atomic { !(on_word & MINE) ->
#endif
        wake_up();
look_again: /* -EAGAIN */
#ifndef MUTANT_WAITERS_FORGOTTEN
        bits = 1;
#endif
        w = 0;
        goto look }
    :: atomic { early > 0 && (on_word & on_life[OWNER(w)] & MINE) ->
        early--; wake_up() }
    :: atomic { slices > 0 && timeout -> slices--; wake_up() }
    fi;
    do /* mp_wait_slept: mp_reap_sweep, -EINTR; then the caller tries again */
    :: atomic { v < N && life[v] == MARKED } -> reap(v); v++
    :: atomic { v < N && life[v] != MARKED -> v++ }
    :: atomic { v == N -> v = 0; bits = 0; goto again }
    od;
held:
    atomic { w = word; word = 0; unqueue(inside) } /* mp_lock_release */
#ifndef MUTANT_NO_WAKE
    if
    :: w & WAITERS -> atomic { wake_one(on_word); w = 0 }
    :: else -> w = 0
    fi;
#endif
#ifdef TWICE
    if
    :: atomic { _pid == 0 && !second -> second = 1; goto again }
    :: else
    fi;
#endif
    skip
    } unless { KILLED(_pid) };
end:
    atomic {
        KILLED(_pid) ->
        unqueue(on_word);
        unqueue(on_life[0]); unqueue(on_life[1]); unqueue(on_life[2]);
        w = 0; v = 0; bits = 0
    }
    be_marked(_pid)
}

#ifndef WATCHED
#define MAY_DIE(p) !KILLED(p)
#else
/* The holder; and who sleeps watches it. */
#define MAY_DIE(p) (!KILLED(p) && TAG_OF(word) == TAG(p) &&                 \
                    !(on_word & ~on_life[p]))
#endif

inline kill(p) {
    dying = dying | BIT(p);
    owed = owed | (TAG_OF(word) == TAG(p))
}

active proctype killer() {
    byte kills = CRASHES;
    do
    :: atomic { kills > 0 ->
        if /* they are alike: call the first 0, the second 1 */
        :: dying == 0 && MAY_DIE(0) -> kill(0)
        :: dying && MAY_DIE(1) -> kill(1)
        :: else
        fi;
        kills-- }
    :: atomic { kills = 0; break }
    od
}

#ifdef PARENT
/* Waits for its children (proc/proc.c: look, reap), never for the lock. */
active proctype parent() {
    byte v;
end:
    do
    :: atomic { life[0] == MARKED -> v = 0 } reap(v)
    :: atomic { life[1] == MARKED -> v = 1 } reap(v)
    :: atomic { life[2] == MARKED -> v = 2 } reap(v)
    od
}
#endif

#ifdef BYSTANDER
/* Sleeps on the life word of process 0 for another reason (an internal lock,
   mp_proc_wait_peer), reaps nobody, and may get the kernel's one wake. */
active proctype bystander() {
    atomic {
        if
        :: life[0] == ALIVE -> on_life[0] = on_life[0] | MINE
        :: else
        fi
    }
end:
    !(on_life[0] & MINE) ->
#ifndef MUTANT_ONE_WOKEN_BY_DEATH
    on_life[0] = 0 /* so it passes it on */
#endif
}
#endif
