/* Who waits, in the order of arrival: what conditions and barriers keep.

   Invariant: the list is [settled ... | waiting ...]; `waiting` is the first
   of the latter. A waiter is settled by others (notified, released, broken)
   and leaves by itself; one that died is taken out by whoever finds it.
   A node is a heap block that the list owns (PUBLISHED) from link to unlink;
   before and after it stands in a hand of one participant. So a death at
   any point frees it once.
   Links change under the mutex by records only, so whoever locks it finds
   the list whole.

   The functions with `txn` add their words (at most 6) to the caller's
   record; the mutex is held from before the record until after its commit.
   Safe: threads, processes. Blocks: never, but for the mutex. */
#ifndef MP_SYNC_WAITERS_H
#define MP_SYNC_WAITERS_H

#include "mem/arena.h"
#include "mem/mutex.h"
#include "mem/txn.h"

/* WAITING -> any other: by who settles, under the mutex; the rest is known
   to those who settle. */
enum { MP_WAITER_WAITING };

/* next, prev  refs, 0 = none; records under the mutex
   state       above; a futex word for its waiter
   tag, rank   written before it is linked */
typedef struct mp_waiter_shm {
    _Atomic uint64_t next, prev;
    _Atomic uint32_t state;
    uint32_t tag;
    uint32_t rank;
    uint32_t pad;
} mp_waiter_shm;
_Static_assert(sizeof(mp_waiter_shm) == 32, "no padding by chance");

/* All refs; records under the mutex. All zero: empty. */
typedef struct mp_waiters_shm {
    mp_mutex_shm mutex;
    uint32_t pad;
    _Atomic uint64_t head, tail, waiting;
} mp_waiters_shm;
_Static_assert(sizeof(mp_waiters_shm) == 32, "no padding by chance");

/* A node between the caller and a list. */
typedef struct mp_waiter {
    mp_ref ref;
    int hand;
} mp_waiter;

static inline mp_waiter_shm *mp_waiter_at(mp_ref ref) {
    return mp_at(ref);
}

/* A node of mine, WAITING, in a hand. 0, -ENOMEM, -EMFILE. */
int mp_waiter_new(mp_waiter *waiter);

/* Frees a node that is in the hand (never linked, or unlinked). */
void mp_waiter_free(mp_waiter *waiter);

/* Puts it at the list's end, out of the hand. */
void mp_waiters_link(mp_waiters_shm *list, mp_waiter *waiter, mp_txn *txn);

/* Takes node `ref` out, into a free hand; free it after the commit. */
mp_waiter mp_waiters_unlink(mp_waiters_shm *list, mp_ref ref, mp_txn *txn);

/* Gives the first waiting one `state`, and returns its ref. There is one. */
mp_ref mp_waiters_settle(mp_waiters_shm *list, uint32_t state, mp_txn *txn);

/* For the check of the list's object (mem/check.h): settled nodes have
   states from 1 to `last`. With `ranked`, those who wait have ranks from 0
   on. Returns how many wait, or -1 when the list is not whole. */
struct mp_check;
int64_t mp_waiters_check(struct mp_check *c, const mp_waiters_shm *list,
                         uint32_t last, bool ranked);

/* Frees all nodes, of an object that nobody holds. Restartable. */
void mp_waiters_destroy(mp_waiters_shm *list);

#endif
