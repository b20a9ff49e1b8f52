/* Barriers: a number of parties wait until all have come.

   Invariant: the waiters of a round leave it with one outcome, released or
   broken, that is decided by one store and then given to each.

   A barrier breaks, until it is reset, by mp_barrier_break, by a party's
   timeout, and by a death:
     of one that waits, always;
     of one that waited in an earlier round, unless it ended as it should
     (mp_slot_farewell);
     of another holder, likewise, when somebody waits and those that are left
     are too few for the round (the maker counts when it has ever waited);
     when nobody waits, those who come later break it if they are too few
     then, and have waited for some tenths of a second. (A child that is
     killed before it became a participant is not noticed.)

   A wait has stages, so that the caller's interpreter can run between them:
       mp_barrier_arrive      1: I am the last: act, then mp_barrier_trip
       mp_barrier_wait        while -EINTR
       mp_barrier_leave
   Once arrived, one must leave.
   Safe: threads, processes. Blocks: only what takes a deadline. */
#ifndef MP_SYNC_BARRIER_H
#define MP_SYNC_BARRIER_H

#include "sync/wait.h"
#include "sync/waiters.h"

/* Under the waiters' mutex, by single stores and records:
   wait      on which the waiters sleep
   parties   fixed
   count     arrived in this round; = parties: the last one acts
   pending   an outcome that is being given out, see barrier.c
   broken    0 or 1
   id        of the object; fixed
   maker     its tag, 0 once it has waited
   lost      a holder died by accident that was not known as a party
   timeout   of waits that name none, seconds, < 0: none; fixed
   action    a message block of the upper floor's, owned; fixed
   known     by slot: it has waited, and is not reaped */
typedef struct mp_barrier_shm {
    mp_waiters_shm waiters;
    mp_wait_shm wait;
    uint32_t parties;
    _Atomic uint32_t count, pending, broken;
    uint32_t id;
    _Atomic uint32_t maker, lost;
    double timeout;
    _Atomic uint64_t action;
    _Atomic uint64_t known[MP_SLOTS / 64];
} mp_barrier_shm;
_Static_assert(sizeof(mp_barrier_shm) == 80 + MP_SLOTS / 8,
               "no padding by chance");

/* 0: arrived; 1: arrived as the last; -EPIPE: broken; -EAGAIN: the last of
   the round before is still acting (mp_barrier_wait_turn); -ENOMEM. */
int mp_barrier_arrive(mp_barrier_shm *barrier, mp_ref *node);

/* Waits until the last of a round has acted. 0; -EINTR as sync/wait.h. */
int mp_barrier_wait_turn(mp_barrier_shm *barrier);

/* The last one has acted: releases the round, if it is not broken. */
void mp_barrier_trip(mp_barrier_shm *barrier, mp_ref node);

/* 0: released; -EPIPE: broken, also by the deadline, which breaks it unless
   all have come; -EINTR as in sync/wait.h. */
int mp_barrier_wait(mp_barrier_shm *barrier, mp_ref node,
                    mp_deadline deadline);

/* A party leaves before the round is over, by an error: breaks the round, if
   it still is the caller's. */
void mp_barrier_fail(mp_barrier_shm *barrier, mp_ref node);

/* Returns how many had arrived before. */
uint32_t mp_barrier_leave(mp_barrier_shm *barrier, mp_ref node);

void mp_barrier_break(mp_barrier_shm *barrier);

/* Mends it; those who wait now get -EPIPE. */
void mp_barrier_reset(mp_barrier_shm *barrier);

static inline bool mp_barrier_broken(const mp_barrier_shm *barrier) {
    return atomic_load_explicit(&barrier->broken, memory_order_acquire);
}

static inline uint32_t mp_barrier_waiting(const mp_barrier_shm *barrier) {
    return atomic_load_explicit(&barrier->count, memory_order_acquire);
}

/* Declares the type MP_TYPE_BARRIER. */
void mp_barrier_open(void);

/* Makes a barrier; `action` (OWNED by the caller, or 0) becomes its own, also
   when it fails. 0 or -ENOMEM. */
int mp_barrier_create(uint32_t parties, double timeout, mp_ref action,
                      uint32_t *id, uint32_t *gen);

#endif
