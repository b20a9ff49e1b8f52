/* Conditions: no notify is lost, whoever dies with it.

   Stands for runtime/sync/cond.c: mp_cond_wait_begin, mp_cond_wait_sleep,
   mp_cond_wait_relock, mp_cond_wait_end, leave, first_alive, notify_one,
   mp_cond_notify, bury_one, held_by, on_death; runtime/sync/lock.c:
   mp_rlock_wake_later, mp_rlock_wake_now; runtime/sync/waiters.c:
   mp_waiters_link, mp_waiters_unlink, mp_waiters_settle;
   runtime/mem/object.c: mp_object_reap; runtime/mem/reap.c: mp_reap.

   Two consumers wait for items, a producer puts two of them and notifies for
   each. A record is one step, as is taking the mutex, or the lock, also from
   a dead one (mutex.pml, lock.pml). The lock is an object of its own; it may
   be told of a death before the condition is. With LATER it is an RLock, which
   the producer lets go before it wakes.

   Holds: when nothing happens any more, no living consumer sleeps while
   there is an item; with somebody who reaps the dead, or with slices.

   run holds -DPARENT
   run holds -DPARENT -DLEAVES -DCRASHES=1
   run holds -DPARENT -DLATER
   run holds -DPARENT -DLATER -DLEAVES -DCRASHES=1
   run holds -DSLICES=2
   run holds -DSLICES=2 -DLATER
   run fails -DPARENT -DMUTANT_ONE_ROUND
   run fails -DPARENT -DMUTANT_NOT_PASSED_ON
   run fails -DPARENT -DMUTANT_HOLDER_IS_SILENT
   run fails -DPARENT -DMUTANT_NOTIFIED_NOT_WOKEN
   run fails -DPARENT -DLATER -DMUTANT_BURIED_NOT_WOKEN
   run fails -DPARENT -DCRASHES=0 -DMUTANT_UNLOCKED_FIRST
   run fails -DPARENT -DCRASHES=1 -DLEAVES -DMUTANT_LEFT_WITH_IT */

#define N 3
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef SLICES
#define SLICES 0
#endif
#include "kernel.pml"

#define TAG       (_pid + 1)
#define DEAD(tag) ((tag) <= N && life[(tag) - 1] != ALIVE)
#define LEFT      9

#define NONE      0             /* mp_waiter_shm.state; NONE: not linked */
#define WAITING   1
#define NOTIFIED  2
byte state[2];
chan waiting = [2] of { byte }; /* the list from its `waiting` on */
byte asleep;                    /* who sleeps on its own node */
byte mutex;                     /* the list's; a tag */
byte lock;                      /* mp_lock_shm: a tag, or LEFT */
byte reaper[N];
byte items;
byte slices = SLICES;

inline lock_mutex() {
    atomic { !mutex || DEAD(mutex) -> mutex = TAG }
}

inline wake(node) {
    asleep = asleep & ~BIT(node)
}

/* mp_waiters_settle; within a record */
inline settle(to) {
    if
    :: waiting ? to -> state[to] = NOTIFIED
    :: empty(waiting) -> to = 7
    fi
}

/* Takes a node out, which may pass its notify on; one record. */
inline leave(node, pass_on, next) {
    atomic {
        next = 7;
        if
        :: state[node] == WAITING -> waiting ?? eval(node)
        :: state[node] == NOTIFIED && (pass_on) -> settle(next)
        :: else
        fi;
        state[node] = NONE
    }
}

/* notify_one; the node, or 7 */
inline notify_one(node, next) {
    lock_mutex();
    do
    :: atomic { empty(waiting) -> node = 7; break }
    :: atomic { nempty(waiting) -> waiting ? <node> }
        /* first_alive, or mp_waiters_settle */
        if
        :: atomic { DEAD(node + 1) } -> leave(node, false, next)
        :: atomic { !DEAD(node + 1) } -> atomic { settle(node); break }
        fi
    od;
    mutex = 0
}

inline wake_notified(node) {
#ifndef MUTANT_NOTIFIED_NOT_WOKEN
    if
    :: atomic { node != 7 -> wake(node) }
    :: atomic { node == 7 }
    fi;
#endif
    node = 0
}

inline bury_lock(v) {
    atomic {
        if
        :: lock == v + 1 -> lock = LEFT
        :: else
        fi
    }
}

/* mp_reap */
inline reap(v) {
    atomic { !reaper[v] || DEAD(reaper[v]) -> reaper[v] = TAG }
    if
    :: atomic { life[v] == MARKED } ->
        /* mp_object_reap: first the conditions hear who held their locks */
#ifdef MUTANT_ONE_ROUND
        bury_lock(v);
#endif
#ifndef MUTANT_HOLDER_IS_SILENT
        if
        :: atomic { lock == v + 1 || lock == LEFT } ->
            notify_one(x, y);
            wake_notified(x)
        :: atomic { !(lock == v + 1 || lock == LEFT) }
        fi;
#endif
        bury_lock(v);
        /* then all hear that it died; the condition's on_death */
        lock_mutex();
        if
        :: v < 2 && state[v] != NONE ->
#ifndef MUTANT_NOT_PASSED_ON
            leave(v, true, x);
#else
            leave(v, false, x);
#endif
            wake(x)
        :: else
        fi;
        /* bury_one, at last: it may have left that out */
        x = 0;
#ifndef MUTANT_BURIED_NOT_WOKEN
        atomic {
            if
            :: state[0] == NOTIFIED -> wake(0)
            :: else
            fi
        }
        atomic {
            if
            :: state[1] == NOTIFIED -> wake(1)
            :: else
            fi
        }
#endif
        mutex = 0;
        life[v] = GONE
    :: atomic { life[v] != MARKED }
    fi;
    reaper[v] = 0
}

inline acquire() {
    do
    :: atomic { lock == 0 || lock == LEFT -> lock = TAG; break }
    :: atomic { lock && lock != LEFT && life[lock - 1] == MARKED ->
        v = lock - 1 }
        reap(v);
        v = 0
    od
}

active [2] proctype consumer() {
    byte v, x, y;
    bit leaving;
    {
    acquire();
    do
    :: atomic { items > 0 -> items--; break }
    :: atomic { items == 0 && leaving -> break }
    :: atomic { items == 0 && !leaving } ->
        /* mp_cond_wait_begin */
#ifdef MUTANT_UNLOCKED_FIRST
        lock = 0;
#endif
        lock_mutex();
        atomic { state[_pid] = WAITING; waiting ! _pid }
        mutex = 0;
#ifndef MUTANT_UNLOCKED_FIRST
        lock = 0;
#endif
        do /* mp_cond_wait_sleep */
        :: atomic { state[_pid] == NOTIFIED -> break }
        :: atomic { state[_pid] == WAITING -> asleep = asleep | MINE }
end_asleep: /* the monitor says whether rightly */
            if /* mp_futex_wait */
            :: atomic { !(asleep & MINE) }
#ifdef LEAVES
            :: atomic { _pid == 1 && (asleep & MINE) ->
                unqueue(asleep); leaving = 1; break }
#endif
            :: atomic { slices > 0 && timeout -> slices--; unqueue(asleep) }
                do /* mp_reap_sweep */
                :: atomic { v < N && life[v] == MARKED } -> reap(v); v++
                :: atomic { v < N && life[v] != MARKED -> v++ }
                :: atomic { v == N -> v = 0; break }
                od
            fi
        od;
        acquire();    /* mp_cond_wait_relock */
        lock_mutex(); /* mp_cond_wait_end */
#ifndef MUTANT_LEFT_WITH_IT
        leave(_pid, leaving, x);
#else
        leave(_pid, false, x);
#endif
        mutex = 0;
        atomic {
            if
            :: x != 7 -> wake(x)
            :: else
            fi;
            x = 0;
            if
            :: leaving -> break /* by an error: it takes nothing */
            :: else
            fi
        }
    od;
    lock = 0
    } unless { KILLED(_pid) };
end:
    atomic {
        KILLED(_pid) ->
        unqueue(asleep);
        v = 0; x = 0; y = 0; leaving = 0
    }
    life[_pid] = MARKED
}

active proctype producer() {
    byte v, x, y;
    bit again;
    {
    skip;
more:
    acquire();
    items++;
    notify_one(x, y);
#ifndef LATER
    wake_notified(x);
#endif
    atomic { lock = 0; y = 0 }
#ifdef LATER
    wake_notified(x);
#endif
    atomic {
        if
        :: !again -> again = 1; goto more
        :: else
        fi }
    } unless { KILLED(_pid) };
end:
    atomic { KILLED(_pid) -> v = 0; x = 0; y = 0; again = 0 }
    life[_pid] = MARKED
}

#ifdef PARENT
active proctype parent() {
    byte v, x, y;
end:
    do
    :: atomic {
        if
        :: life[0] == MARKED -> v = 0
        :: life[1] == MARKED -> v = 1
        :: life[2] == MARKED -> v = 2
        fi }
        reap(v);
        v = 0
    od
}
#endif

active proctype killer() {
    byte kills = CRASHES;
    do
    :: atomic { kills > 0 ->
        if
        :: !KILLED(0) -> dying = dying | 1
#ifndef LEAVES /* else they are alike: call the first 0 */
        :: !KILLED(1) && KILLED(0) -> dying = dying | 2
#else
        :: !KILLED(1) -> dying = dying | 2
#endif
        :: !KILLED(2) -> dying = dying | 4
        :: else
        fi;
        kills-- }
    :: atomic { kills = 0; break }
    od
}

/* When nothing happens any more, not even a slice's end */
active proctype monitor() {
    timeout && (!slices || !LIVING(asleep));
    assert(!items || !LIVING(asleep))
}
