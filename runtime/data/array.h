/* Shared arrays of typed cells, with the lock that guards them; a shared
   value is an array of one.

   Invariant: type, length and guard never change, so whoever has the handle
   knows the array. Its cells are whole at any time (data/cell.h); what
   several of them mean together is the business of who holds the lock.
   mp_array_enter and mp_array_leave are for a few instructions without a
   call-out: they do not nest by themselves, but are entered freely by who
   holds the lock as a user.
   Safe: threads, processes; child after fork. Blocks: mp_array_enter, while
   a live holder has the lock. */
#ifndef MP_DATA_ARRAY_H
#define MP_DATA_ARRAY_H

#include "data/cell.h"
#include "mem/object.h"
#include "sync/lock.h"

enum {
    MP_GUARD_NONE,
    MP_GUARD_OWN,  /* the RLock in the array's block */
    MP_GUARD_LOCK, /* somebody else's Lock, */
    MP_GUARD_RLOCK /* or RLock */
};

/* An MP_TYPE_ARRAY or MP_TYPE_VALUE. Fixed when it is made, but for the two
   atomics and the cells.
   type      of the cells, MP_CELL_*
   guard     MP_GUARD_*
   lock_aux  where in its object's block somebody else's lock lies
   lock_id   that object, which the array holds (mp_object_hold); 0: none
   length    in cells
   own       the lock, when it is the array's own; left by the dead
             (mp_lock_bury). In one line with the first cells, which the
             next one who has the lock will want
   cells     packed, and zero at first */
typedef struct mp_array_shm {
    uint8_t type, guard;
    uint16_t pad;
    uint32_t lock_aux;
    _Atomic uint32_t lock_id;
    uint32_t pad2;
    uint64_t length;
    mp_rlock_shm own;
    _Alignas(32) unsigned char cells[];
} mp_array_shm;
_Static_assert(sizeof(mp_array_shm) == 32, "head and value share a line");
_Static_assert(offsetof(mp_array_shm, lock_id) == 8, "aligned");
_Static_assert(offsetof(mp_array_shm, own) == 24, "aligned");

/* What guards a new array: for MP_GUARD_LOCK and _RLOCK, the object that the
   lock lies in, which the caller holds, and where. */
typedef struct mp_guard {
    int kind;
    uint32_t id, gen, aux;
} mp_guard;

/* Declares the types MP_TYPE_ARRAY and MP_TYPE_VALUE. */
void mp_array_open(void);

/* Makes an array of `length` zeros (MP_TYPE_VALUE: length 1), an object that
   the caller holds. 0; -ENOMEM; -ENOENT: the lock's object is gone. */
int mp_array_create(int object_type, int cell_type, uint64_t length,
                    const mp_guard *guard, uint32_t *id, uint32_t *gen);

/* The guard of an array, as mp_array_create takes it. */
mp_guard mp_array_guard(const mp_array_shm *array);

/* Cells `first` (from 0) to first + n - 1, out of the array or into it, each
   whole; `buffer` holds them packed and is aligned to their size. */
void mp_array_read(mp_array_shm *array, uint64_t first, uint64_t n,
                   void *buffer);
void mp_array_write(mp_array_shm *array, uint64_t first, uint64_t n,
                    const void *buffer);
void mp_array_fill(mp_array_shm *array, uint64_t first, uint64_t n,
                   uint64_t word);

/* The array's lock while it is entered.
   lock   NULL: nothing to leave (no guard, or the caller holds it anyway)
   found  what the word becomes: 0, or MP_LOCK_LEFT when it was so found, as
          the next who acquires the lock is still to be told of the death */
typedef struct mp_array_hold {
    mp_lock_shm *lock;
    uint32_t found;
} mp_array_hold;

int mp_array_enter_slow(mp_array_hold *hold);

/* Waits for the lock. 0; -EINTR as in sync/wait.h: not entered. */
static inline int mp_array_enter(mp_array_shm *array, mp_array_hold *hold) {
    hold->found = 0;
    hold->lock = &array->own.lock;
    if (array->guard != MP_GUARD_OWN) {
        hold->lock = NULL;
        if (array->guard == MP_GUARD_NONE) return 0;
        uint32_t id =
            atomic_load_explicit(&array->lock_id, memory_order_relaxed);
        hold->lock =
            (void *)((unsigned char *)mp_object_block(id) + array->lock_aux);
    }
    return mp_lock_try(hold->lock) ? 0 : mp_array_enter_slow(hold);
}

static inline void mp_array_leave(const mp_array_hold *hold) {
    if (!hold->lock) return;
    /* As mp_lock_release, but for what it leaves. Release pairs with the
       next one's acquire. */
    if (atomic_exchange_explicit(&hold->lock->word, hold->found,
                                 memory_order_release) & MP_WAITERS)
        mp_lock_wake(hold->lock);
}

#endif
