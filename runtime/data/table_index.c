/* Keys: their hash, their cells, and what goes by key. */
#include <errno.h>

#include "base/bytes.h"
#include "data/table_shm.h"
#include "mem/heap.h"
#include "mem/slot.h"

/* ---- the hash ------------------------------------------------------- */

/* Who does not know the seed cannot find keys that meet. Keys of different
   tags are hashed by different seeds. */
uint32_t mp_table_hash(const uint64_t seed[2], uint8_t tag, const void *data,
                       size_t length) {
    const uint64_t key[2] = {seed[0], seed[1] ^ tag};
    return (uint32_t)mp_siphash_quick((const void *)key, data, length);
}

static uint32_t hash_of(const view *v, const mp_table_value *key) {
    const uint64_t *seed = v->pairs->seed;
    return key->data
               ? mp_table_hash(seed, key->tag, key->data, key->length)
               : mp_table_hash(seed, key->tag, &key->word, sizeof key->word);
}

/* ---- cells ---------------------------------------------------------- */

found mp_table_seek(const view *v, const mp_table_value *key) {
    found f = {UINT64_MAX, UINT64_MAX, 0};
    if (!v->item) return f;
    f.hash = hash_of(v, key);
    for (uint64_t i = 0; i <= v->mask; i++) {
        uint64_t at = (f.hash + i) & v->mask, cell = v->cells[at];
        if (cell < CELL_FIRST) {
            if (f.cell == UINT64_MAX) f.cell = at;
            if (cell == CELL_EMPTY) break;
            continue;
        }
        if (HIGH(cell) != f.hash) continue;
        const pair_shm *p = &v->pairs->pair[LOW(cell) - CELL_FIRST];
        if (!mp_table_same(p->key, p->key_meta, key)) continue;
        f.slot = LOW(cell) - CELL_FIRST;
        f.cell = at;
        break;
    }
    return f;
}

uint64_t mp_table_cell_of(const view *v, uint64_t slot) {
    uint64_t hash = META_HASH(v->pairs->pair[slot].key_meta);
    uint64_t wanted = BOTH(slot + CELL_FIRST, hash), at = hash & v->mask;
    for (uint64_t i = 0; i <= v->mask && v->cells[at] != wanted; i++)
        at = (at + 1) & v->mask;
    return at;
}

void mp_table_fill(const view *v) {
    for (uint64_t slot = 0; slot < v->tail; slot++) {
        uint64_t hash = META_HASH(v->pairs->pair[slot].key_meta);
        uint64_t at = hash & v->mask;
        while (v->cells[at] != CELL_EMPTY) at = (at + 1) & v->mask;
        v->cells[at] = BOTH(slot + CELL_FIRST, hash);
    }
}

void mp_table_enter(mp_txn *txn, view *v, const found *f) {
    mp_txn_set64(txn, &v->cells[f->cell],
                 BOTH(v->tail + CELL_FIRST, f->hash));
    v->used += v->cells[f->cell] == CELL_EMPTY;
    v->tail++;
    v->n++;
}

/* A cell before an empty one need not be stepped over by anybody. */
static void give_up(mp_txn *txn, view *v, uint64_t cell) {
    bool end = v->cells[(cell + 1) & v->mask] == CELL_EMPTY;
    mp_txn_set64(txn, &v->cells[cell], end ? CELL_EMPTY : CELL_LEFT);
    v->used -= end;
}

void mp_table_leave(mp_txn *txn, view *v, uint64_t slot, uint64_t cell) {
    const pair_shm *p = v->pairs->pair;
    mp_txn_set64(txn, &p[slot].key_meta, KIND_NONE);
    give_up(txn, v, cell);
    v->n--;
    if (slot == v->head) v->head++;
    if (slot + 1 == v->tail) v->tail--;
    if (v->n == 0) v->head = v->tail = 0;
    while (v->head < v->tail && !is_live(&p[v->head])) v->head++;
    while (v->tail > v->head && !is_live(&p[v->tail - 1])) v->tail--;
}

/* ---- to set --------------------------------------------------------- */

/* All that one mp_table_set does. key: brought in only when it is new. */
typedef struct setting {
    mp_table_shm *t;
    const mp_table_value *key;
    uint64_t expect;
    coming new_value, new_key;
    bool has_key, added;
    leaving old;
} setting;

static void replace(setting *s, view *v, uint64_t slot) {
    item_shm *item = &v->pairs->pair[slot].item;
    mp_txn txn = mp_txn_begin();
    mp_table_expel(&txn, META_KIND(item->meta), item->value, &s->old, -1);
    mp_table_admit(&txn, &s->new_value);
    mp_txn_set64(&txn, &item->value, s->new_value.word);
    mp_txn_set64(&txn, &item->meta,
                 WITH_VERSION(s->new_value.form, next_version(s->t)));
    mp_txn_set64(&txn, &s->t->changes, next_version(s->t));
    mp_txn_commit(&txn);
}

static void add(setting *s, view *v, const found *f) {
    v->pairs->pair[v->tail] = (pair_shm){
        {s->new_value.word,
         WITH_VERSION(s->new_value.form, next_version(s->t))},
        s->new_key.word, WITH_HASH(s->new_key.form, f->hash)};
    mp_txn txn = mp_txn_begin();
    mp_table_admit(&txn, &s->new_value);
    mp_table_admit(&txn, &s->new_key);
    mp_table_enter(&txn, v, f);
    mp_table_record(&txn, v, 1);
    mp_txn_commit(&txn);
    s->added = true;
}

enum { AGAIN = 1 };

/* Under the lock, which it frees. 0; AGAIN; -errno. */
static int set_locked(setting *s) {
    view v = mp_table_view(s->t);
    found f = mp_table_seek(&v, s->key);
    bool is = f.slot != UINT64_MAX;
    int r = mp_table_expects(
        s->expect,
        is ? META_VERSION(v.pairs->pair[f.slot].item.meta) : MP_TABLE_ABSENT);
    bool room = is || mp_table_has_room(&v, 1);
    bool ready = room && (is || s->has_key);
    if (r == 0 && ready && is) replace(s, &v, f.slot);
    if (r == 0 && ready && !is) add(s, &v, &f);
    mp_table_unlock(s->t);
    if (r < 0 || ready) return r;
    r = room ? 0 : mp_table_grow(s->t, 1);
    if (r == 0 && !s->has_key) r = mp_table_bring(s->key, &s->new_key);
    if (r < 0) return r;
    s->has_key = true;
    return AGAIN;
}

int mp_table_set(mp_table_shm *t, const mp_table_value *key,
                 const mp_table_value *value, uint64_t expect) {
    setting s = {.t = t, .key = key, .expect = expect, .old.hand = -1};
    int r = mp_table_hands();
    if (r < 0) return r;
    s.new_key.hand = -1;
    if (!key->data) {
        mp_table_bring(key, &s.new_key);
        s.has_key = true;
    }
    r = mp_table_bring(value, &s.new_value);
    if (r < 0) return r;
    do {
        mp_table_lock(t);
        r = set_locked(&s);
    } while (r == AGAIN);
    if (r < 0) mp_table_refuse(&s.new_value);
    if (!s.added) mp_table_refuse(&s.new_key);
    mp_table_free(&s.old);
    return r;
}

/* ---- to delete ------------------------------------------------------ */

/* Takes the pair at f out; the lock is held. */
static void take_out(view *v, const found *f, leaving out[2]) {
    const pair_shm *p = &v->pairs->pair[f->slot];
    mp_txn txn = mp_txn_begin();
    mp_table_expel(&txn, META_KIND(p->key_meta), p->key, &out[0], -1);
    mp_table_expel(&txn, META_KIND(p->item.meta), p->item.value, &out[1],
                   out[0].hand);
    mp_table_leave(&txn, v, f->slot, f->cell);
    mp_table_record(&txn, v, 1);
    mp_txn_commit(&txn);
}

/* Both are in hands, or words. */
static void give(const pair_shm *p, const leaving out[2],
                 mp_table_taken *taken) {
    mp_table_show(p->key, p->key_meta, &taken->key);
    mp_table_show(p->item.value, p->item.meta, &taken->value);
    for (int i = 0; i < 2; i++) taken->hand[i] = out[i].hand;
}

/* Under the lock, which it frees. */
static int delete_at_cell(view *v, const found *f, uint64_t expect,
                          mp_table_taken *taken) {
    pair_shm pair = v->pairs->pair[f->slot];
    leaving out[2];
    int r = mp_table_expects(expect, META_VERSION(pair.item.meta));
    if (r == 0) take_out(v, f, out);
    mp_table_unlock(v->t);
    if (r < 0) return r;
    mp_table_shrink(v->t, v);
    if (taken)
        give(&pair, out, taken);
    else
        for (int i = 0; i < 2; i++) mp_table_free(&out[i]);
    return 0;
}

int mp_table_delete(mp_table_shm *t, const mp_table_value *key,
                    uint64_t expect, mp_table_taken *taken) {
    int r = mp_table_hands();
    if (r < 0) return r;
    mp_table_lock(t);
    view v = mp_table_view(t);
    found f = mp_table_seek(&v, key);
    if (f.slot != UINT64_MAX) return delete_at_cell(&v, &f, expect, taken);
    mp_table_unlock(t);
    r = mp_table_expects(expect, MP_TABLE_ABSENT);
    return r < 0 ? r : -ENOENT;
}

int mp_table_delete_end(mp_table_shm *t, bool last, uint64_t expect,
                        mp_table_taken *taken) {
    mp_table_lock(t);
    view v = mp_table_view(t);
    if (v.n == 0) {
        mp_table_unlock(t);
        return -ERANGE;
    }
    found f = {.slot = last ? v.tail - 1 : v.head};
    while (!is_live(&v.pairs->pair[f.slot])) f.slot += last ? -1U : 1U;
    f.cell = mp_table_cell_of(&v, f.slot);
    return delete_at_cell(&v, &f, expect, taken);
}

void mp_table_release(mp_table_taken *taken) {
    for (int i = 0; i < 2; i++) {
        if (taken->hand[i] < 0) continue;
        mp_free(mine(&mp_me->slot->hands[taken->hand[i]].block));
        mp_hand_drop(taken->hand[i]);
        taken->hand[i] = -1;
    }
}
