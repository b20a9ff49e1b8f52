/* The queue: what a commit moves, what a death leaves, who is woken.

   Stands for runtime/data/queue.c: mp_queue_put, put_locked, put_block,
   write_record, commit_put, mp_queue_get, get_locked, available, commit_get,
   free_from, has_item, await, queue_on_death; runtime/mem/slot.c:
   mp_hand_take, mp_hand_drop; runtime/mem/reap.c: reap_live, reap_hand;
   runtime/sync/wait.h and wait.c (wait.pml has more of them).

   Producer 0 puts item 1, a block, and item 2, a word; a second one, if there
   is one, item 3, a block. A consumer takes one. Taking a lock is one step,
   with the replay of its dead owner's record (mutex.pml). All records are of
   one size and stand in one segment; segments pass through hands as blocks
   do. Left out: maxsize, which is the same for the other side.

   Holds: an item is taken once, in its producer's order, and with its block;
   what a living producer put is in the queue or was taken; at last each
   block is in the queue or free; no living consumer sleeps while there is an
   item.

   run holds -DONE_TO_TWO -DPARENT -DCRASHES=1
   run holds -DTWO_TO_ONE -DPARENT -DCRASHES=1
   run holds -DONE_TO_TWO -DSLICES=2
   run fails -DTWO_TO_ONE -DPARENT -DCRASHES=1 -DMUTANT_ONE_PLACE
   run fails -DTWO_TO_ONE -DPARENT -DCRASHES=0 -DMUTANT_COUNT_FIRST
   run fails -DONE_TO_TWO -DPARENT -DMUTANT_HAND_AFTER_COMMIT
   run fails -DONE_TO_TWO -DPARENT -DMUTANT_NO_HAND_IN_PUT
   run fails -DTWO_TO_ONE -DPARENT -DCRASHES=1 -DMUTANT_STEAL_WITHOUT_REPLAY
   run fails -DONE_TO_TWO -DPARENT -DMUTANT_DEATH_WAKES_NOBODY
   run fails -DONE_TO_TWO -DPARENT -DCRASHES=0 -DMUTANT_NO_CHAIN
   run fails -DONE_TO_TWO -DPARENT -DCRASHES=0 -DMUTANT_NO_NOTIFY */

#define N 3
#ifdef TWO_TO_ONE
#define PRODUCERS 2
#define CONSUMERS 1
#else
#define PRODUCERS 1
#define CONSUMERS 2
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef SLICES
#define SLICES 0
#endif
#include "kernel.pml"

#define TAG       (_pid + 1)
#define DEAD(tag) ((tag) <= N && life[(tag) - 1] != ALIVE)
#define COUNT(w)  ((w) / 2)
#define VALID(w)  ((w) & 1)
#define NEXT(w)   ((COUNT(w) + 1) * 2 + !VALID(w))
#define PLACE(w)  ((w) & 1)
#define IS_BLOCK(item)    ((item) != 2)
#define PRODUCER_OF(item) ((item) / 3)

/* mp_queue_shm */
byte put_lock, get_lock;           /* tags */
byte puts, gets;                   /* count words */
byte put_place[2], get_place[2];
byte seen_puts;
byte record[4];                    /* the segment: items, by place */
bit may_sleep;                     /* not_empty: bit 0 */
byte notified;                     /* the rest of it */
byte asleep;                       /* and its queue */

/* mp_slot_shm: its redo record, and a hand */
#define PUT 1
#define GET 2
byte what[N], word[N], block[N];   /* PUT or GET: n > 0 */
byte hand[N];
byte reaper[N];

#if PRODUCERS == 2
#define BLOCKS 10
#else
#define BLOCKS 2
#endif
byte owned = BLOCKS;               /* blocks that are their producer's, ... */
byte published;                    /* ... or that something answers for */
byte in, out;                      /* items put, items taken */
byte slices = SLICES;

/* mp_txn_replay, within atomic */
inline replay(p) {
    if
    :: what[p] == PUT -> puts = word[p]; hand[p] = 0
    :: what[p] == GET -> gets = word[p]; hand[p] = block[p]
    :: else
    fi;
    what[p] = 0
}

inline take(mutex) {
    atomic {
        if
        :: !mutex
        :: mutex && DEAD(mutex) ->
#ifndef MUTANT_STEAL_WITHOUT_REPLAY
            replay(mutex - 1)
#endif
        fi;
        mutex = TAG
    }
}

/* mp_free; of a block that is no more, by its generation, nothing */
inline free(item) {
    owned = owned & ~BIT(item);
    published = published & ~BIT(item)
}

inline wake(n) {
    if
    :: n > 1 -> asleep = 0
    :: else -> wake_one(asleep)
    fi
}

inline notify_slow(n) {
    atomic { may_sleep = 0; notified++ }
    atomic { wake(n) }
}

inline notify(n) { /* mp_wait_notify */
    if
    :: atomic { may_sleep } -> notify_slow(n)
    :: atomic { !may_sleep }
    fi
}

/* mp_reap */
inline reap(v) {
    atomic { !reaper[v] || DEAD(reaper[v]) -> reaper[v] = TAG }
    if
    :: atomic { life[v] == MARKED -> replay(v) }
        if /* reap_hand */
        :: atomic { hand[v] -> free(hand[v]) }
            hand[v] = 0
        :: atomic { !hand[v] }
        fi;
        atomic { /* mp_heap_reap */
            if
            :: v == 0 -> owned = owned & ~BIT(1)
            :: v == 1 && PRODUCERS == 2 -> owned = owned & ~BIT(3)
            :: else
            fi
        }
#ifndef MUTANT_DEATH_WAKES_NOBODY
        notify_slow(N); /* queue_on_death */
#endif
        life[v] = GONE
    :: atomic { life[v] != MARKED }
    fi;
    reaper[v] = 0
}

inline is_put() {
    in = in | BIT(item)
}

/* Each once, a producer's one after the other, and with its block. */
inline is_taken() {
    assert(in & BIT(item));
    assert(!(out & BIT(item)));
    assert(item != 2 || (out & BIT(1)) || !(in & BIT(1)));
    assert(!IS_BLOCK(item) || (published & BIT(item)));
    out = out | BIT(item)
}

active [PRODUCERS] proctype producer() {
    byte item, at;
    {
    item = (_pid -> 3 : 1);
again:
    take(put_lock);
    if
    :: atomic { IS_BLOCK(item) ->              /* put_block: mp_hand_take */
        at = put_place[VALID(puts)];
#ifndef MUTANT_NO_HAND_IN_PUT
        hand[_pid] = item
#endif
        }
        atomic { /* mp_publish */
            owned = owned & ~BIT(item);
            published = published | BIT(item)
        }
    :: atomic { !IS_BLOCK(item) -> at = put_place[VALID(puts)] }
    fi;
    atomic { /* write_record; and the place, which nobody looks at yet */
#ifndef MUTANT_COUNT_FIRST
        record[at] = item;
#endif
#ifndef MUTANT_ONE_PLACE
        put_place[!VALID(puts)] = at + 1
#else
        put_place[!VALID(puts)] = at + 1;
        put_place[VALID(puts)] = at + 1
#endif
    }
    if /* commit_put */
    :: atomic { !IS_BLOCK(item) -> puts = NEXT(puts); is_put() }
    :: atomic { IS_BLOCK(item) ->
        word[_pid] = NEXT(puts);
        what[_pid] = PUT;                      /* mp_txn_commit */
        is_put() }
        puts = word[_pid];
        atomic { hand[_pid] = 0; what[_pid] = 0 }
    fi;
#ifdef MUTANT_COUNT_FIRST
    record[at] = item;
#endif
    atomic { put_lock = 0; at = 0 }            /* mp_mutex_unlock */
#ifndef MUTANT_NO_NOTIFY
    notify(1);
#endif
    atomic {
        if
        :: item == 1 -> item = 2; goto again
        :: else -> item = 0
        fi
    }
    } unless { KILLED(_pid) };
end:
    atomic { KILLED(_pid) -> item = 0; at = 0 }
    life[_pid] = MARKED
}

active [CONSUMERS] proctype consumer() {
    byte item, at, seen, v;
    bit woken;
    {
    skip;
again:
    take(get_lock);
    atomic { /* available: only the holder of get_lock looks at seen_puts */
        if
        :: seen_puts == COUNT(gets) -> seen_puts = COUNT(puts)
        :: else
        fi;
        if
        :: seen_puts == COUNT(gets) -> goto none
        :: else -> at = get_place[VALID(gets)]
        fi;
        item = record[at];                     /* read_record */
        get_place[!VALID(gets)] = at + 1
    }
    if /* commit_get */
    :: atomic { !IS_BLOCK(item) -> is_taken(); gets = NEXT(gets) }
    :: atomic { IS_BLOCK(item) ->
        word[_pid] = NEXT(gets);
        block[_pid] = item;
#ifndef MUTANT_HAND_AFTER_COMMIT
        what[_pid] = GET;                      /* mp_txn_commit */
#endif
        is_taken() }
        gets = word[_pid];
        atomic { hand[_pid] = item; what[_pid] = 0 }
    fi;
    atomic { get_lock = 0; at = 0 }            /* mp_mutex_unlock */
    if
    :: atomic { woken && COUNT(puts) > COUNT(gets) } -> notify(1)
    :: atomic { !(woken && COUNT(puts) > COUNT(gets)) }
    fi;
    if
    :: atomic { IS_BLOCK(item) -> free(item) } /* free_from, by the caller */
        hand[_pid] = 0
    :: atomic { !IS_BLOCK(item) }
    fi;
    atomic {
        item = 0; woken = 0;
        goto end
    }
none:
    get_lock = 0;
    atomic { may_sleep = 1; seen = notified }  /* await: mp_wait_announce */
    if
    :: atomic { COUNT(puts) > COUNT(gets) -> seen = 0; goto again }
    :: atomic { COUNT(puts) == COUNT(gets) }   /* has_item */
    fi;
    atomic { /* mp_wait_sleep */
        if
        :: may_sleep && notified == seen -> asleep = asleep | MINE
        :: else
        fi;
        seen = 0
    }
end_asleep: /* the monitor says whether rightly */
    if
    :: atomic { !(asleep & MINE) ->
#ifndef MUTANT_NO_CHAIN
        may_sleep = 1;                         /* mp_wait_chain */
#endif
        woken = 1; goto again }
    :: atomic { slices > 0 && timeout -> slices--; unqueue(asleep) }
    fi;
    do /* mp_wait_slept: mp_reap_sweep, -EINTR */
    :: atomic { v < N && life[v] == MARKED } -> reap(v); v++
    :: atomic { v < N && life[v] != MARKED -> v++ }
    :: atomic { v == N -> v = 0; woken = 0; goto again }
    od
    } unless { KILLED(_pid) };
end:
    atomic {
        KILLED(_pid) ->
        unqueue(asleep);
        item = 0; at = 0; seen = 0; v = 0; woken = 0
    }
    life[_pid] = MARKED
}

#ifdef PARENT
active proctype parent() {
    byte v;
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
        :: !KILLED(1) -> dying = dying | 2
#if CONSUMERS == 2 /* alike: call the first 1 */
        :: !KILLED(2) && KILLED(1) -> dying = dying | 4
#else
        :: !KILLED(2) -> dying = dying | 4
#endif
        :: else
        fi;
        kills-- }
    :: atomic { kills = 0; break }
    od
}

/* When nothing happens any more, not even a slice's end */
active proctype monitor() {
    timeout && (!slices || !LIVING(asleep));
    assert(!LIVING(asleep) || COUNT(puts) == COUNT(gets));
    assert(KILLED(0) || (in & 6) == 6);
    assert(PRODUCERS == 1 || KILLED(1) || (in & 8));
#ifdef PARENT /* else some may not be reaped */
    assert(COUNT(puts) == ((in & 2) > 0) + ((in & 4) > 0) + ((in & 8) > 0));
    assert(COUNT(gets) == ((out & 2) > 0) + ((out & 4) > 0) + ((out & 8) > 0));
    assert(!owned && published == (in & ~out & BLOCKS))
#endif
}
