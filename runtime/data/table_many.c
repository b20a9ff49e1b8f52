/* Changes of many entries at once.

   Into a list, and of whole contents: one record. Into an indexed table: the
   record that begins it makes the one table hold the other (`pending`); from
   then on it is done, for whoever wants the lock first finishes it, pair by
   pair, each by a record with the cursor in it. There was made room for all
   before, so nothing can fail any more. */
#include <errno.h>
#include <stdlib.h>

#include "data/table_shm.h"
#include "mem/heap.h"
#include "mem/slot.h"

/* Another table of the same sort; NULL: it is none. */
static mp_table_shm *other(const mp_table_shm *t, uint32_t id) {
    if (mp_object_type(id) != MP_TYPE_TABLE) return NULL;
    mp_table_shm *o = mp_object_block(id);
    return o != t && o->indexed == t->indexed ? o : NULL;
}

/* ---- into an indexed table ------------------------------------------ */

/* The key is there: the values change places. */
static void exchange(mp_table_shm *t, pair_shm *to, mp_table_shm *other_t,
                     pair_shm *from, uint64_t slot) {
    uint64_t version = next_version(t);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &to->item.value, from->item.value);
    mp_txn_set64(&txn, &to->item.meta,
                 WITH_VERSION(from->item.meta, version));
    mp_txn_set64(&txn, &from->item.value, to->item.value);
    mp_txn_set64(&txn, &from->item.meta,
                 WITH_VERSION(to->item.meta, mine(&other_t->changes)));
    mp_txn_set64(&txn, &t->changes, version);
    mp_txn_set32(&txn, &t->cursor, (uint32_t)slot + 1);
    mp_txn_commit(&txn);
}

/* The pair leaves the one table, and becomes the last one of the other. */
static void hand_over(view *t, const found *f, view *from, uint64_t slot) {
    const pair_shm *pair = &from->pairs->pair[slot];
    uint64_t cell = mp_table_cell_of(from, slot);
    t->pairs->pair[t->tail] = (pair_shm){
        {pair->item.value,
         WITH_VERSION(pair->item.meta, next_version(t->t))},
        pair->key, WITH_HASH(pair->key_meta, f->hash)};
    mp_txn txn = mp_txn_begin();
    mp_table_enter(&txn, t, f);
    mp_table_record(&txn, t, 1);
    mp_table_leave(&txn, from, slot, cell);
    mp_table_record(&txn, from, 1);
    mp_txn_set32(&txn, &t->t->cursor, (uint32_t)slot + 1);
    mp_txn_commit(&txn);
}

static void move_pair(mp_table_shm *t, mp_table_shm *other_t, uint64_t slot) {
    view to = mp_table_view(t), from = mp_table_view(other_t);
    pair_shm *pair = &from.pairs->pair[slot];
    if (!is_live(pair)) return;
    mp_table_value key;
    mp_table_show(pair->key, pair->key_meta, &key);
    found f = mp_table_seek(&to, &key);
    if (f.slot == UINT64_MAX)
        hand_over(&to, &f, &from, slot);
    else
        exchange(t, &to.pairs->pair[f.slot], other_t, pair, slot);
}

/* What comes after the last pair sinks while pairs leave. */
void mp_table_finish(mp_table_shm *t) {
    uint64_t slot = atomic_load_explicit(&t->cursor, memory_order_relaxed);
    if (slot == MP_TABLE_DONE) return;
    mp_table_shm *from = mp_object_block(
        atomic_load_explicit(&t->pending, memory_order_relaxed));
    for (; slot < HIGH(mine(&from->place)); slot++) move_pair(t, from, slot);
    atomic_store_explicit(&t->cursor, MP_TABLE_DONE, memory_order_release);
}

/* Who lets go of it must not be the last to hold it, for the lock is held:
   destroying comes after that. */
int mp_table_retire(mp_table_shm *t) {
    mp_mutex_lock(&t->lock);
    uint32_t id = atomic_load_explicit(&t->pending, memory_order_relaxed);
    uint32_t gen = id ? mp_object_gen(id) : 0;
    mp_mutex_unlock(&t->lock);
    if (!id) return 0;
    int r = mp_object_attach(id, gen);
    if (r < 0) return r == -ENOENT ? 0 : r;
    mp_mutex_lock(&t->lock);
    if (atomic_load_explicit(&t->pending, memory_order_relaxed) == id &&
        atomic_load_explicit(&t->cursor, memory_order_relaxed) ==
            MP_TABLE_DONE)
        mp_object_unhold(&t->pending);
    mp_mutex_unlock(&t->lock);
    mp_object_detach(id);
    return 0;
}

/* Locks when there is room, and nothing left of another's move. */
static int lock_for_pairs(mp_table_shm *t, uint64_t more) {
    for (;;) {
        int r = mp_table_lock_with_room(t, more);
        if (r < 0) return r;
        if (!atomic_load_explicit(&t->pending, memory_order_relaxed))
            return 0;
        mp_mutex_unlock(&t->lock);
        r = mp_table_retire(t);
        if (r < 0) return r;
    }
}

static int move_pairs(mp_table_shm *t, uint32_t from) {
    const mp_table_shm *f = mp_object_block(from);
    int r = lock_for_pairs(t, LOW(mine(&f->size)));
    if (r < 0) return r;
    atomic_store_explicit(&t->cursor, 0, memory_order_relaxed);
    r = mp_object_hold(from, mp_object_gen(from), &t->pending);
    if (r == 0) {
        mp_table_finish(t);
        mp_object_unhold(&t->pending); /* the caller holds it, too */
    }
    mp_table_unlock(t);
    return r;
}

/* ---- into a list ---------------------------------------------------- */

static int move_items(mp_table_shm *t, mp_table_shm *from) {
    view f = mp_table_view(from);
    int r = mp_table_lock_with_room(t, f.n);
    if (r < 0) return r;
    view v = mp_table_view(t);
    uint64_t version = mine(&t->changes), n = f.n;
    for (uint64_t i = 0; i < n; i++) {
        const item_shm *item = &f.item[slot_of(&f, i)];
        v.item[slot_of(&v, v.n + i)] = (item_shm){
            item->value, WITH_VERSION(item->meta, ++version)};
    }
    v.n += n;
    f.n = 0;
    mp_txn txn = mp_txn_begin();
    mp_table_record(&txn, &v, n);
    mp_table_record(&txn, &f, 1);
    mp_txn_commit(&txn);
    mp_table_unlock(t);
    return 0;
}

/* What was replaced is left in the caller's own. */
static void sweep(uint32_t id) {
    mp_table_shm *t = mp_object_block(id);
    while (mp_table_delete_at(t, -1, MP_TABLE_ANY, NULL) == 0) {
    }
}

int mp_table_move(mp_table_shm *t, uint32_t from) {
    mp_table_shm *f = other(t, from);
    int r = f ? mp_table_hands() : -EINVAL;
    if (r < 0) return r;
    r = t->indexed ? move_pairs(t, from) : move_items(t, f);
    if (r == 0) sweep(from);
    return r;
}

/* ---- contents change places ------------------------------------------ */

/* Versions of the one table mean nothing in the other; so what comes into
   `v`'s gets new ones, while nobody else knows of it. */
static void renew_versions(const view *v, uint64_t version) {
    uint64_t i = v->t->indexed ? v->head : 0;
    uint64_t end = v->t->indexed ? v->tail : v->n;
    for (; i < end; i++) {
        item_shm *item = v->t->indexed ? &v->pairs->pair[i].item
                                       : &v->item[slot_of(v, i)];
        item->meta = WITH_VERSION(item->meta, ++version);
    }
}

static void set_contents(mp_txn *txn, mp_table_shm *t,
                         const mp_table_shm *of, uint64_t changes) {
    mp_txn_set64(txn, &t->store, mine(&of->store));
    mp_txn_set64(txn, &t->shape, mine(&of->shape));
    mp_txn_set64(txn, &t->place, mine(&of->place));
    mp_txn_set64(txn, &t->size, mine(&of->size));
    mp_txn_set64(txn, &t->changes, changes);
}

/* Their words are read before the first is stored. */
static void swap_contents(mp_table_shm *t, mp_table_shm *with) {
    view v = mp_table_view(with);
    uint64_t slots = t->indexed ? v.tail : v.n;
    uint64_t changes = mine(&t->changes) + slots + 1;
    /* Also behind what `with` had counted to. */
    atomic_store_explicit(&with->changes, changes, memory_order_relaxed);
    renew_versions(&v, mine(&t->changes));
    mp_txn txn = mp_txn_begin();
    set_contents(&txn, t, with, changes);
    set_contents(&txn, with, t, changes);
    mp_txn_commit(&txn);
}

/* What was in the table is left to the caller, and not freed: it may be
   wanted. */
static int swap(mp_table_shm *t, uint64_t generation, mp_table_shm *with) {
    mp_table_lock(t);
    int r = mp_table_expects(generation, mine(&t->changes));
    if (r == 0) swap_contents(t, with);
    mp_table_unlock(t);
    return r;
}

int mp_table_swap(mp_table_shm *t, uint64_t generation, uint32_t with) {
    mp_table_shm *o = other(t, with);
    return o ? swap(t, generation, o) : -EINVAL;
}

int mp_table_clear(mp_table_shm *t) {
    uint32_t id, gen;
    int r = mp_table_hands();
    if (r == 0) r = mp_table_create(t->kind, t->indexed, &id, &gen);
    if (r < 0) return r;
    r = swap(t, MP_TABLE_ANY, mp_object_block(id));
    mp_object_detach(id);
    return r;
}

/* ---- another order -------------------------------------------------- */

/* Does it name each of n once? 1; 0; -ENOMEM. */
static int is_order(const uint64_t *order, uint64_t n) {
    unsigned char *seen = calloc(n / 8 + 1, 1);
    if (!seen) return -ENOMEM;
    uint64_t i = 0;
    for (; i < n && order[i] < n; i++) {
        unsigned char bit = (unsigned char)(1U << order[i] % 8);
        if (seen[order[i] / 8] & bit) break;
        seen[order[i] / 8] |= bit;
    }
    free(seen);
    return i == n;
}

/* With a store for at least n entries. Unlocks. 0; -EAGAIN; -EINVAL. */
static int permute_into(mp_table_shm *t, uint64_t generation,
                        const uint64_t *order, uint64_t n, mp_ref store) {
    mp_table_lock(t);
    view from = mp_table_view(t), to = from;
    int r = mp_table_expects(generation, mine(&t->changes));
    if (r == 0 && from.n != n)
        r = generation == MP_TABLE_ANY ? -EAGAIN : -EINVAL;
    if (r < 0) {
        mp_table_unlock(t);
        return r;
    }
    to.item = mp_at(store);
    to.room = mp_block_size(store) / sizeof(item_shm);
    to.head = to.hole = to.gap = 0;
    for (uint64_t i = 0; i < n; i++)
        to.item[i] = from.item[slot_of(&from, order ? order[i] : n - 1 - i)];
    mp_table_install(&to, store, 1);
    return 0;
}

int mp_table_permute(mp_table_shm *t, uint64_t generation,
                     const uint64_t *order, uint64_t n) {
    int r = order ? is_order(order, n) : 1;
    if (r < 1 || t->indexed) return r < 0 ? r : -EINVAL;
    r = mp_table_hands();
    if (r < 0) return r;
    do {
        if (!order) n = mp_table_length(t);
        mp_ref store = mp_alloc((n ? n : 1) * sizeof(item_shm));
        if (!store) return -ENOMEM;
        r = permute_into(t, generation, order, n, store);
        if (r < 0) mp_free(store);
    } while (r == -EAGAIN && !order && generation == MP_TABLE_ANY);
    return r;
}
