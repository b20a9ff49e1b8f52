/* The redo record: several stores that happen as one, whatever kills the
   process between them.

   Invariant: while a record is committed and not yet cleared, nobody but its
   owner or the reaper changes the words it names. So it is used for words
   under a lock that is held until after the commit, and for words that only
   this participant writes.
   A process's death is not a power cut: what it executed stays in coherent
   memory. So ordering needs only the compiler's help.
   Nothing between begin and commit takes a lock or can fail. */
#ifndef MP_MEM_TXN_H
#define MP_MEM_TXN_H

#include "mem/arena.h"

typedef struct mp_txn {
    mp_txn_shm *record;
    uint32_t n;
} mp_txn;

static inline mp_txn mp_txn_begin(void) {
    return (mp_txn){&mp_me->slot->txn, 0};
}

static inline void mp_txn_set64(mp_txn *txn, const volatile void *at,
                                uint64_t value) {
    txn->record->w[txn->n].at = mp_offset(at);
    txn->record->w[txn->n++].value = value;
}

static inline void mp_txn_set32(mp_txn *txn, const volatile void *at,
                                uint32_t value) {
    txn->record->w[txn->n].at = mp_offset(at) | 1;
    txn->record->w[txn->n++].value = value;
}

/* Stores all; on return none of it can be lost or half done. */
void mp_txn_commit(mp_txn *txn);

/* Applies the committed record of the dead participant `tag`, if any. Safe
   to call by several at once, and again when a caller died in it. */
void mp_txn_replay(uint32_t tag);

#endif
