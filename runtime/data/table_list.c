/* Lists: the gap, and what goes by position. */
#include <errno.h>
#include <string.h>

#include "data/table_shm.h"

enum { GAP_LEAST = 16 }; /* slots that a gap takes at least, if there are */

/* ---- the gap -------------------------------------------------------- */

static inline uint64_t wrap(const view *v, uint64_t slot) {
    return slot < v->room ? slot : slot - v->room;
}

/* k items from slot `from` to slot `to` on, both of which may wrap. */
static void copy_ring(const view *v, uint64_t to, uint64_t from, uint64_t k) {
    while (k > 0) {
        uint64_t run = k;
        if (run > v->room - to) run = v->room - to;
        if (run > v->room - from) run = v->room - from;
        memcpy(v->item + to, v->item + from, run * sizeof(item_shm));
        to = wrap(v, to + run);
        from = wrap(v, from + run);
        k -= run;
    }
}

/* Moves at most as many entries as the gap has slots, so from slots in use to
   slots that nobody reads; then one store makes it true. */
void mp_table_move_gap(view *v, uint64_t p) {
    while (v->hole != p) {
        bool down = p < v->hole;
        uint64_t k = down ? v->hole - p : p - v->hole;
        if (k > v->gap) k = v->gap;
        uint64_t left = wrap(v, v->head + (down ? v->hole - k : v->hole));
        uint64_t right = wrap(v, left + v->gap);
        copy_ring(v, down ? right : left, down ? left : right, k);
        v->hole = down ? v->hole - k : v->hole + k;
        atomic_store_explicit(&v->t->place, BOTH(v->head, v->hole),
                              memory_order_release);
    }
}

/* Makes a gap of free slots, of which there are some, at the nearer end. */
static void open_gap(view *v, uint64_t p) {
    uint64_t spare = v->room - v->n;
    v->gap = spare / 2 > GAP_LEAST ? spare / 2 : GAP_LEAST;
    if (v->gap > spare) v->gap = spare;
    v->hole = v->n;
    if (p < v->n / 2) {
        v->hole = 0;
        v->head = wrap(v, v->head + v->room - v->gap);
    }
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &v->t->place, BOTH(v->head, v->hole));
    mp_txn_set64(&txn, &v->t->size, BOTH(v->n, v->gap));
    mp_txn_commit(&txn);
}

/* ---- positions ------------------------------------------------------ */

/* false: there is no such entry. */
static bool resolve(const view *v, int64_t position, uint64_t *i) {
    *i = (uint64_t)position + (position < 0 ? v->n : 0);
    return *i < v->n;
}

item_shm *mp_table_item(const view *v, int64_t position) {
    uint64_t i;
    return resolve(v, position, &i) ? &v->item[slot_of(v, i)] : NULL;
}

/* ---- to set --------------------------------------------------------- */

static void replace(view *v, item_shm *item, const coming *c, leaving *old) {
    uint64_t version = next_version(v->t);
    mp_txn txn = mp_txn_begin();
    mp_table_expel(&txn, META_KIND(item->meta), item->value, old, -1);
    mp_table_admit(&txn, c);
    mp_txn_set64(&txn, &item->value, c->word);
    mp_txn_set64(&txn, &item->meta, WITH_VERSION(c->form, version));
    mp_txn_set64(&txn, &v->t->changes, version);
    mp_txn_commit(&txn);
}

int mp_table_set_at(mp_table_shm *t, int64_t position,
                    const mp_table_value *value, uint64_t expect) {
    coming c;
    leaving old = {0, -1};
    int r = mp_table_hands();
    if (r == 0) r = mp_table_bring(value, &c);
    if (r < 0) return r;
    mp_table_lock(t);
    view v = mp_table_view(t);
    item_shm *item = mp_table_item(&v, position);
    r = item ? mp_table_expects(expect, META_VERSION(item->meta)) : -ERANGE;
    if (r == 0) replace(&v, item, &c, &old);
    mp_table_unlock(t);
    if (r < 0) mp_table_refuse(&c);
    mp_table_free(&old);
    return r;
}

/* ---- to insert ------------------------------------------------------ */

/* Where a new entry before entry p goes; there is room. */
static uint64_t make_place(view *v, uint64_t p) {
    if (p == v->n) {
        uint64_t slot = slot_of(v, p);
        v->n++;
        return slot;
    }
    if (p == 0 && v->n + v->gap < v->room) {
        v->head = wrap(v, v->head + v->room - 1);
        v->hole += v->gap > 0;
        v->n++;
        return v->head;
    }
    if (v->gap == 0) open_gap(v, p);
    mp_table_move_gap(v, p);
    uint64_t slot = wrap(v, v->head + p);
    v->hole++;
    v->gap--;
    v->n++;
    return slot;
}

static void insert_locked(mp_table_shm *t, int64_t position,
                          const coming *c) {
    view v = mp_table_view(t);
    uint64_t p;
    if (!resolve(&v, position, &p)) p = position < 0 ? 0 : v.n;
    item_shm *item = &v.item[make_place(&v, p)];
    item->value = c->word;
    item->meta = WITH_VERSION(c->form, next_version(t));
    mp_txn txn = mp_txn_begin();
    mp_table_admit(&txn, c);
    mp_table_record(&txn, &v, 1);
    mp_txn_commit(&txn);
}

int mp_table_insert(mp_table_shm *t, int64_t position,
                    const mp_table_value *value) {
    coming c;
    int r = mp_table_hands();
    if (r == 0) r = mp_table_bring(value, &c);
    if (r < 0) return r;
    r = mp_table_lock_with_room(t, 1);
    if (r < 0) {
        mp_table_refuse(&c);
        return r;
    }
    insert_locked(t, position, &c);
    mp_table_unlock(t);
    return 0;
}

/* ---- to delete ------------------------------------------------------ */

/* Entry p becomes a slot of the gap, or of what is free outside. */
static void close_place(view *v, uint64_t p) {
    if (p == 0) {
        v->head = wrap(v, v->head + 1);
        v->hole -= v->gap > 0;
    } else if (p < v->n - 1) {
        if (v->gap > 0) mp_table_move_gap(v, p < v->hole ? p + 1 : p);
        v->hole = p;
        v->gap++;
    }
    v->n--;
}

static void take_out(view *v, uint64_t p, leaving *out) {
    const item_shm *item = &v->item[slot_of(v, p)];
    unsigned kind = META_KIND(item->meta);
    uint64_t word = item->value;
    close_place(v, p); /* which may move it, or move another there */
    mp_txn txn = mp_txn_begin();
    mp_table_expel(&txn, kind, word, out, -1);
    mp_table_record(&txn, v, 1);
    mp_txn_commit(&txn);
}

static void give(const item_shm *item, const leaving *out,
                 mp_table_taken *taken) {
    *taken = (mp_table_taken){.hand = {-1, out->hand}};
    mp_table_show(item->value, item->meta, &taken->value);
}

int mp_table_delete_at(mp_table_shm *t, int64_t position, uint64_t expect,
                       mp_table_taken *taken) {
    leaving out;
    uint64_t p;
    int r = mp_table_hands();
    if (r < 0) return r;
    if (t->indexed && position != 0 && position != -1) return -ERANGE;
    if (t->indexed)
        return mp_table_delete_end(t, position < 0, expect, taken);
    mp_table_lock(t);
    view v = mp_table_view(t);
    if (!resolve(&v, position, &p)) {
        mp_table_unlock(t);
        return -ERANGE;
    }
    item_shm item = v.item[slot_of(&v, p)];
    r = mp_table_expects(expect, META_VERSION(item.meta));
    if (r == 0) take_out(&v, p, &out);
    mp_table_unlock(t);
    if (r < 0) return r;
    mp_table_shrink(t, &v);
    if (taken)
        give(&item, &out, taken);
    else
        mp_table_free(&out);
    return 0;
}
