/* The room for a table's entries. A store that is too small is not enlarged
   but made anew: allocated without the lock, filled under it while nobody
   else knows of it, and put in the old one's place by one record. So it is
   when many pairs were taken out, and their holes are in the way. */
#include <errno.h>
#include <string.h>

#include "data/table_shm.h"
#include "mem/heap.h"
#include "mem/slot.h"
#include "os/random.h"

enum {
    LEAST = 4,      /* items of a list's first store; of pairs, what fits */
    KEEP_ROOM = 64, /* never given back */
    EMPTY_PART = 8  /* used less than one in so many: room is given back */
};

/* ---- a list's ring -------------------------------------------------- */

/* Free slots that lie in a gap are no use behind the last entry; if they are
   many, the gap goes there. */
static bool close_gap(view *v, uint64_t more) {
    if (v->gap == 0 || v->gap < v->n / 8 || v->n + more > v->room)
        return false;
    mp_table_move_gap(v, v->n);
    mp_txn txn = mp_txn_begin();
    mp_table_record(&txn, v, 0);
    mp_txn_commit(&txn);
    return true;
}

bool mp_table_has_room(view *v, uint64_t more) {
    if (v->t->indexed)
        return v->tail + more <= v->room &&
               v->used + more <= (v->mask + 1) / 4 * 3;
    return v->n + v->gap + more <= v->room || close_gap(v, more);
}

/* ---- a new store ---------------------------------------------------- */

/* What a block of `size` bytes has room for. */
static uint64_t room_in(bool indexed, uint64_t size, uint64_t cells) {
    if (!indexed) return size / sizeof(item_shm);
    uint64_t room = (size - pairs_size(0, cells)) / sizeof(pair_shm);
    return room < cells / 8 * 5 ? room : cells / 8 * 5;
}

/* An OWNED store with nothing in it, and a view of the table as it will be
   in it; 0: no memory. */
static mp_ref new_store(mp_table_shm *t, uint64_t room, view *v) {
    uint64_t cells = t->indexed ? cells_for(room) : 0;
    mp_ref store = mp_alloc(t->indexed ? pairs_size(room, cells)
                                       : room * sizeof(item_shm));
    if (!store) return 0;
    *v = (view){.t = t, .item = mp_at(store)};
    v->room = room_in(t->indexed, mp_block_size(store), cells);
    if (v->room > MOST_ENTRIES) v->room = MOST_ENTRIES;
    if (!t->indexed) return store;
    v->cells = (uint64_t *)(void *)(v->pairs->pair + v->room);
    v->mask = cells - 1;
    memset(v->pairs, 0, sizeof *v->pairs);
    memset(v->cells, 0, cells * sizeof *v->cells);
    /* Should the kernel have none left, the hash is only a known one. */
    mp_random_bytes(v->pairs->seed, sizeof v->pairs->seed);
    return store;
}

static void copy_items(view *to, const view *from) {
    for (uint64_t i = 0; i < from->n; i++)
        to->item[i] = from->item[slot_of(from, i)];
}

static void copy_pairs(view *to, const view *from) {
    if (from->item)
        memcpy(to->pairs->seed, from->pairs->seed, sizeof to->pairs->seed);
    for (uint64_t i = from->head; i < from->tail; i++)
        if (is_live(&from->pairs->pair[i]))
            to->pairs->pair[to->tail++] = from->pairs->pair[i];
    to->used = to->tail;
    mp_table_fill(to);
}

static unsigned bits_of(const view *v) {
    return v->t->indexed ? (unsigned)__builtin_ctzll(v->mask + 1) : 0;
}

void mp_table_install(view *v, mp_ref fresh, uint64_t changes) {
    mp_table_shm *t = v->t;
    leaving old;
    coming c = {.hand = mp_hand_take(fresh, NULL, 0)};
    mp_publish(fresh);
    mp_ref store = mine(&t->store);
    mp_txn txn = mp_txn_begin();
    mp_table_expel(&txn, store ? KIND_BYTES : KIND_NONE, store, &old, -1);
    mp_table_admit(&txn, &c);
    mp_txn_set64(&txn, &t->store, fresh);
    mp_txn_set64(&txn, &t->shape, BOTH(v->room, bits_of(v)));
    mp_table_record(&txn, v, changes);
    mp_txn_commit(&txn);
    mp_table_unlock(t);
    mp_table_free(&old);
}

int mp_table_resize(mp_table_shm *t, uint64_t room) {
    view to, from;
    if (room > MOST_ENTRIES) return -ENOMEM;
    mp_ref store = new_store(t, room, &to);
    if (!store) return -ENOMEM;
    mp_table_lock(t);
    from = mp_table_view(t);
    if (from.n > to.room) { /* it grew meanwhile; the caller looks again */
        mp_table_unlock(t);
        mp_free(store);
        return 0;
    }
    to.n = from.n;
    if (t->indexed)
        copy_pairs(&to, &from);
    else
        copy_items(&to, &from);
    mp_table_install(&to, store, 1);
    return 0;
}

/* ---- when it is made anew ------------------------------------------- */

int mp_table_grow(mp_table_shm *t, uint64_t more) {
    uint64_t n = LOW(mine(&t->size));
    if (more > MOST_ENTRIES || n + more > MOST_ENTRIES) return -ENOMEM;
    uint64_t room = n + more + (n + more) / 2;
    if (room > MOST_ENTRIES) room = MOST_ENTRIES;
    return mp_table_resize(t, room > LEAST ? room : LEAST);
}

int mp_table_lock_with_room(mp_table_shm *t, uint64_t more) {
    for (;;) {
        mp_table_lock(t);
        view v = mp_table_view(t);
        if (mp_table_has_room(&v, more)) return 0;
        mp_table_unlock(t);
        int r = mp_table_grow(t, more);
        if (r < 0) return r;
    }
}

int mp_table_reserve(mp_table_shm *t, uint64_t n) {
    int r = mp_table_hands();
    if (r < 0) return r;
    uint64_t room = LOW(mine(&t->shape));
    return n <= room ? 0 : mp_table_resize(t, n);
}

/* If there is no memory for the smaller one, the larger one is kept. */
void mp_table_shrink(mp_table_shm *t, const view *v) {
    if (v->room > KEEP_ROOM && v->n < v->room / EMPTY_PART)
        mp_table_resize(t, v->n > LEAST ? v->n * 2 : LEAST);
}
