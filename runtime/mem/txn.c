#include "mem/txn.h"

#include "mem/mutex.h"
#include "mem/slot.h"

/* Release, since readers without a lock may look at these words. */
static inline void apply_all(mp_txn_shm *record, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = record->w[i].at, value = record->w[i].value;
        unsigned char *p = mp_me->base + (at & ~(uint64_t)1);
        mp_poison_look(at); /* of the dead one, perhaps; not seen by me */
        if (at & 1)
            atomic_store_explicit((_Atomic uint32_t *)(void *)p,
                                  (uint32_t)value, memory_order_release);
        else
            atomic_store_explicit((_Atomic uint64_t *)(void *)p, value,
                                  memory_order_release);
    }
}

void mp_txn_commit(mp_txn *txn) {
    mp_txn_shm *record = txn->record;
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&record->n, txn->n, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    apply_all(record, txn->n);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&record->n, 0, memory_order_release);
}

/* The guard keeps a slow replayer from storing old values after a faster one
   let the locks go. Its holder has no record of its own open (no lock is
   taken inside one), so a dead holder is simply passed over (to replay for
   him first could lead in a circle, where slots were recycled meanwhile).
   `n` is read before the generation: were the slot recycled between the two,
   the record would be the dead one's still, or none; the other way round it
   might be the new owner's, who is just applying it. */
void mp_txn_replay(uint32_t tag) {
    mp_slot_shm *slot = mp_slot_at(tag % MP_SLOTS);
    mp_mutex_lock_bare(&slot->txn.guard);
    uint32_t n = atomic_load_explicit(&slot->txn.n, memory_order_acquire);
    uint32_t gen = atomic_load_explicit(&slot->gen, memory_order_acquire);
    if (mp_tag_of(tag % MP_SLOTS, gen) == tag && n > 0 &&
        n <= MP_TXN_WORDS) {
        apply_all(&slot->txn, n);
        atomic_signal_fence(memory_order_seq_cst);
        atomic_store_explicit(&slot->txn.n, 0, memory_order_release);
    }
    mp_mutex_unlock(&slot->txn.guard);
}
