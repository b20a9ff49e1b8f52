/* To look at a table: copies go out under its lock. */
#include <errno.h>
#include <string.h>

#include "data/table_shm.h"
#include "mem/heap.h"
#include "os/cpu.h"
#include "os/futex.h"

/* ---- the keeper ----------------------------------------------------- */

mp_ref mp_table_keeper(size_t handles) {
    mp_ref block = mp_alloc(sizeof(mp_message_shm) + handles * 4);
    if (!block) return 0;
    mp_message_shm *m = mp_at(block);
    memset(m, 0, sizeof *m);
    m->handles_at = sizeof *m;
    mp_mark_handles(block);
    return block;
}

/* How many handles it may have, and has. */
static size_t keeper_room(mp_ref keeper) {
    return keeper ? (mp_block_size(keeper) - sizeof(mp_message_shm)) / 4 : 0;
}

static size_t keeper_used(mp_ref keeper) {
    if (!keeper) return 0;
    const mp_message_shm *m = mp_at(keeper);
    return atomic_load_explicit(&m->n_handles, memory_order_relaxed);
}

/* All that `b` holds; they are alive, since it does. */
static void keep(mp_ref keeper, const bytes_shm *b) {
    const uint32_t *ids = (const void *)(b + 1);
    for (uint32_t i = 0; i < b->n; i++)
        mp_message_hold(keeper, ids[i], mp_object_gen(ids[i]));
}

/* ---- one value ------------------------------------------------------ */

/* -ENOBUFS: the room's needs are said. */
static int copy_out(const item_shm *item, mp_table_room *room,
                    mp_table_value *value, uint64_t *version) {
    if (version) *version = META_VERSION(item->meta);
    mp_table_show(item->value, item->meta, value);
    if (!value->data) return 0;
    const void *data = value->data;
    value->data = NULL;
    if (!room) return 0;
    const bytes_shm *b = bytes_of(item->value);
    size_t handles = b->n ? keeper_used(room->keeper) + b->n : 0;
    room->need = value->length;
    room->need_keeper = handles > keeper_room(room->keeper) ? handles : 0;
    if (room->need > room->size) return -ENOBUFS;
    value->data = value->length ? memcpy(room->at, data, value->length) : "";
    if (room->need_keeper) return -ENOBUFS;
    if (b->n) keep(room->keeper, b);
    return 0;
}

int mp_table_get(mp_table_shm *t, const mp_table_value *key,
                 mp_table_room *room, mp_table_value *value,
                 uint64_t *version) {
    mp_table_lock(t);
    view v = mp_table_view(t);
    found f = mp_table_seek(&v, key);
    int r = f.slot == UINT64_MAX
                ? -ENOENT
                : copy_out(&v.pairs->pair[f.slot].item, room, value, version);
    mp_table_unlock(t);
    return r;
}

int mp_table_get_at(mp_table_shm *t, int64_t position, mp_table_room *room,
                    mp_table_value *value, uint64_t *version) {
    if (t->indexed) return -ERANGE;
    mp_table_lock(t);
    view v = mp_table_view(t);
    const item_shm *item = mp_table_item(&v, position);
    int r = item ? copy_out(item, room, value, version) : -ERANGE;
    mp_table_unlock(t);
    return r;
}

uint64_t mp_table_length(mp_table_shm *t) {
    mp_table_lock(t);
    uint64_t n = LOW(mine(&t->size));
    mp_table_unlock(t);
    return n;
}

/* ---- to find -------------------------------------------------------- */

static bool is_one_of(const item_shm *item, const mp_table_value *values,
                      size_t n) {
    for (size_t i = 0; i < n; i++)
        if (mp_table_same(item->value, item->meta, &values[i])) return true;
    return false;
}

static uint64_t limit(int64_t position, uint64_t n) {
    if (position < 0) position += (int64_t)n;
    if (position < 0) return 0;
    return (uint64_t)position < n ? (uint64_t)position : n;
}

int mp_table_find(mp_table_shm *t, const mp_table_value *values, size_t n,
                  int64_t from, int64_t to, uint64_t *position,
                  uint64_t *version) {
    int r = -ENOENT;
    if (t->indexed) return r;
    mp_table_lock(t);
    view v = mp_table_view(t);
    uint64_t end = limit(to, v.n);
    for (uint64_t i = limit(from, v.n); i < end; i++) {
        const item_shm *item = &v.item[slot_of(&v, i)];
        if (!is_one_of(item, values, n)) continue;
        *position = i;
        if (version) *version = META_VERSION(item->meta);
        r = 0;
        break;
    }
    mp_table_unlock(t);
    return r;
}

uint64_t mp_table_count(mp_table_shm *t, const mp_table_value *values,
                        size_t n) {
    uint64_t count = 0;
    if (t->indexed) return 0;
    mp_table_lock(t);
    view v = mp_table_view(t);
    for (uint64_t i = 0; i < v.n; i++)
        count += is_one_of(&v.item[slot_of(&v, i)], values, n);
    mp_table_unlock(t);
    return count;
}

/* ---- snapshots ------------------------------------------------------ */

/* An entry in a copy: this, then the bytes of the key and of the value, each
   from a multiple of 8 on.
   key, value  the word, or how many bytes */
typedef struct copied {
    uint64_t version, key, value;
    uint8_t key_kind, key_tag, kind, tag;
    uint32_t padding;
} copied;

enum {
    PAUSE_ENTRIES = 4096,   /* copied before others may have the lock */
    PAUSE_BYTES = 1 << 20,
    PAUSES_END = 2,         /* times that it begins, and then holds on */
    PAUSE_SPINS = 1000      /* that a sleeper has to take the lock */
};

static size_t aligned(size_t n) { return (n + 7) & ~(size_t)7; }

/* i is the position in a list, resp. the slot of a pair, that comes next. */
typedef struct copying {
    mp_table_room *room;
    mp_table_copy *copy;
    uint64_t i;
    size_t kept; /* handles in the keeper */
    bool holds;  /* some are of this copy */
} copying;

static size_t bytes_in(uint64_t word, uint64_t meta, uint32_t *handles) {
    if (META_KIND(meta) != KIND_BYTES) return 0;
    *handles += bytes_of(word)->n;
    return length_of(bytes_of(word));
}

/* Appends the bytes, and says what stands for them. */
static uint64_t put(copying *c, uint64_t word, uint64_t meta) {
    if (META_KIND(meta) != KIND_BYTES) return word;
    const bytes_shm *b = bytes_of(word);
    unsigned char *to = (unsigned char *)c->room->at + c->copy->used;
    size_t length = length_of(b);
    memcpy(to, data_of(b), length);
    c->copy->used += aligned(length);
    if (b->n) keep(c->room->keeper, b);
    return length;
}

/* An estimate, by what was copied of `n`, and twice as much as there is. */
static size_t estimate(size_t have, size_t used, uint64_t done, uint64_t n) {
    double each = done ? (double)used / (double)done : 0;
    size_t need = (size_t)(each * 1.1 * (double)n);
    return need > have * 2 ? need : have * 2;
}

static int no_room(copying *c, size_t bytes, uint32_t handles, uint64_t n) {
    uint64_t done = c->copy->entries;
    size_t room = keeper_room(c->room->keeper);
    c->room->need =
        estimate(c->room->size, c->copy->used, done, n) + bytes;
    c->room->need_keeper =
        c->kept + handles > room ? estimate(room, c->kept, done, n) + handles
                                 : 0;
    return -ENOBUFS;
}

static int copy_entry(copying *c, const view *v, const item_shm *item,
                      const pair_shm *pair) {
    uint64_t key = pair ? pair->key : 0;
    uint64_t key_meta = pair ? pair->key_meta : 0;
    uint32_t handles = 0;
    size_t size = sizeof(copied) + aligned(bytes_in(key, key_meta, &handles));
    size += aligned(bytes_in(item->value, item->meta, &handles));
    if (c->copy->used + size > c->room->size ||
        (handles && c->kept + handles > keeper_room(c->room->keeper)))
        return no_room(c, size, handles, v->n);
    copied *out =
        (void *)((unsigned char *)c->room->at + c->copy->used);
    c->copy->used += sizeof *out;
    *out = (copied){.version = META_VERSION(item->meta),
                    .key_kind = (uint8_t)META_KIND(key_meta),
                    .key_tag = META_TAG(key_meta),
                    .kind = (uint8_t)META_KIND(item->meta),
                    .tag = META_TAG(item->meta)};
    out->key = put(c, key, key_meta);
    out->value = put(c, item->value, item->meta);
    c->copy->entries++;
    c->kept += handles;
    c->holds |= handles > 0;
    return 0;
}

/* Copies until the next pause. 1: all is there. */
static int copy_some(copying *c, const view *v, bool pauses) {
    uint64_t last = c->copy->entries + PAUSE_ENTRIES;
    size_t bytes = c->copy->used + PAUSE_BYTES;
    uint64_t end = v->t->indexed ? v->tail : v->n;
    for (; c->i < end; c->i++) {
        const pair_shm *pair = v->t->indexed ? &v->pairs->pair[c->i] : NULL;
        if (pair && !is_live(pair)) continue;
        if (pauses && !c->holds &&
            (c->copy->entries >= last || c->copy->used >= bytes))
            return 0;
        int r = copy_entry(
            c, v, pair ? &pair->item : &v->item[slot_of(v, c->i)], pair);
        if (r < 0) return r;
    }
    return 1;
}

/* Unlocks. Who sleeps for the lock comes first. */
static void let_others(mp_table_shm *t) {
    _Atomic uint32_t *lock = &t->lock.word;
    bool wanted =
        atomic_load_explicit(lock, memory_order_relaxed) & MP_WAITERS;
    mp_table_unlock(t);
    if (!wanted || !mp_cpu_several()) return;
    for (int i = 0; i < PAUSE_SPINS; i++) {
        if (atomic_load_explicit(lock, memory_order_relaxed)) return;
        mp_cpu_relax();
    }
}

/* To the first entry that is to be copied. */
static void begin_copy(copying *c, const view *v) {
    c->copy->used = 0;
    c->copy->entries = 0;
    c->copy->generation = mine(&v->t->changes);
    c->i = v->t->indexed ? v->head : 0;
}

int mp_table_copy_all(mp_table_shm *t, mp_table_room *room,
                      mp_table_copy *copy) {
    copying c = {.room = room, .copy = copy,
                 .kept = keeper_used(room->keeper)};
    int begun = 0, r;
    copy->at = room->at;
    do {
        mp_table_lock(t);
        view v = mp_table_view(t);
        if (begun == 0 || mine(&t->changes) != copy->generation) {
            begun++;
            begin_copy(&c, &v);
        }
        r = copy_some(&c, &v, begun <= PAUSES_END);
        if (r == 0)
            let_others(t);
        else
            mp_table_unlock(t);
    } while (r == 0);
    return r < 0 ? r : 0;
}

/* ---- to read a snapshot --------------------------------------------- */

static size_t show(const mp_table_copy *copy, size_t offset, uint8_t kind,
                   uint8_t tag, uint64_t word, mp_table_value *out) {
    mp_table_value ignored;
    if (!out) out = &ignored;
    *out = (mp_table_value){.tag = tag};
    if (kind != KIND_BYTES) {
        out->word = word;
        return offset;
    }
    out->data = copy->at + offset;
    out->length = (size_t)word;
    return offset + aligned((size_t)word);
}

bool mp_table_next(const mp_table_copy *copy, size_t *offset,
                   mp_table_value *key, mp_table_value *value,
                   uint64_t *version) {
    if (*offset >= copy->used) return false;
    const copied *in = (const void *)(copy->at + *offset);
    if (version) *version = in->version;
    *offset = show(copy, *offset + sizeof *in, in->key_kind, in->key_tag,
                   in->key, key);
    *offset =
        show(copy, *offset, in->kind, in->tag, in->value, value);
    return true;
}
