/* How blocks and runs come and go; the layout and who may write what of it
   stands in mem/heap_shm.h. */
#include "mem/heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mem/heap_shm.h"
#include "mem/mutex.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "mem/txn.h"
#include "os/memfd.h"

enum {
    LOOK = 8,        /* spans looked at before a new one is asked for */
    EMPTY_SPANS = 16,  /* empty spans that make me tidy up */
    SPARE_UNITS = 2048 /* backed free units kept: 128 MiB */
};

static unsigned class_of(size_t size) {
    if (size <= 512) return (unsigned)((size + 63) / 64) - (size > 0);
    unsigned c = 8;
    while (class_size[c] < size) c++;
    return c;
}

static uint64_t entry_at(uint64_t unit) {
    return atomic_load_explicit(&mp_me->unit[unit], memory_order_acquire);
}

static void *unit_at(uint64_t unit) {
    return mp_me->base + (unit << MP_UNIT_SHIFT);
}

static span_shm *span_at(uint64_t unit) {
#ifdef MP_POISONS
    /* When this process last saw it, it was something else perhaps. */
    mp_unpoison(unit_at(unit), span_shapes[E_CLASS(entry_at(unit))].data);
#endif
    return unit_at(unit);
}

/* ---- runs of units, under super->heap ------------------------------- */

/* Joins the free runs behind `unit` to it as long as they are alike, and
   returns the entry. A free run at the end stays: units never sinks. */
static uint64_t join(uint64_t unit, uint64_t units) {
    uint64_t e = entry_at(unit), n = E_N(e);
    for (uint64_t next = unit + n; next < units; next = unit + n) {
        uint64_t f = entry_at(next);
        if (E_KIND(f) != K_FREE || ((e ^ f) & E_BACKED)) break;
        n += E_N(f);
    }
    if (n != E_N(e)) {
        e = ENTRY(K_FREE, n) | (e & E_BACKED);
        atomic_store_explicit(&mp_me->unit[unit], e, memory_order_release);
    }
    return e;
}

/* First fit from the hint; `n` units of a free run, or none (0). */
static uint64_t find_run(uint64_t n, uint64_t *entry) {
    mp_super_shm *super = mp_me->super;
    uint64_t units = atomic_load(&super->units);
    bool first = true;
    for (uint64_t u = atomic_load(&super->low); u < units;) {
        uint64_t e = entry_at(u);
        if (E_KIND(e) == K_FREE) {
            e = join(u, units);
            if (first) atomic_store(&super->low, u);
            first = false;
            if (E_N(e) >= n) {
                *entry = e;
                return u;
            }
        }
        u += E_N(e);
    }
    if (first) atomic_store(&super->low, units);
    return 0;
}

static uint64_t extend(uint64_t n, uint64_t *entry) {
    mp_super_shm *super = mp_me->super;
    uint64_t unit = atomic_load(&super->units);
    if (mp_arena_grow((unit + n) << MP_UNIT_SHIFT) < 0) return 0;
    *entry = ENTRY(K_FREE, n);
    return unit;
}

/* Takes n units for `entry` (which has kind, gen, owner) and says whether
   they have pages already; 0 = none. */
static uint64_t take_run(uint64_t n, uint64_t entry, bool *backed) {
    mp_super_shm *super = mp_me->super;
    uint64_t old = 0, unit = find_run(n, &old);
    bool found = unit != 0;
    if (!found) unit = extend(n, &old);
    if (!unit) return 0;
    *backed = (old & E_BACKED) != 0;
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &mp_me->unit[unit],
                 entry | ENTRY(0, n) | (old & E_BACKED));
    if (E_N(old) > n)
        mp_txn_set64(&txn, &mp_me->unit[unit + n],
                     ENTRY(K_FREE, E_N(old) - n) | (old & E_BACKED));
    if (!found) mp_txn_set64(&txn, &super->units, unit + n);
    uint64_t spare = atomic_load(&super->spare);
    if (*backed)
        mp_txn_set64(&txn, &super->spare, spare > n ? spare - n : 0);
    mp_txn_commit(&txn);
    return unit;
}

/* Gives a run back; `e` is its entry. */
static void put_run(uint64_t unit, uint64_t e) {
    mp_super_shm *super = mp_me->super;
    uint64_t n = E_N(e), spare = atomic_load(&super->spare);
    mp_poison(unit_at(unit), n << MP_UNIT_SHIFT);
    bool keep = (e & E_BACKED) && spare + n <= SPARE_UNITS;
    /* Nobody has the run but us, so the system call under the lock is only
       slow; and it happens once per 128 MiB given back. */
    if ((e & E_BACKED) && !keep)
        mp_memfd_punch(mp_me->fd, unit << MP_UNIT_SHIFT, n << MP_UNIT_SHIFT);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &mp_me->unit[unit],
                 ENTRY(K_FREE, n) | (keep ? E_BACKED : 0));
    if (keep) mp_txn_set64(&txn, &super->spare, spare + n);
    if (unit < atomic_load(&super->low))
        mp_txn_set64(&txn, &super->low, unit);
    mp_txn_commit(&txn);
}

static void free_run(uint64_t unit) {
    mp_mutex_lock(&mp_me->super->heap);
    put_run(unit, entry_at(unit));
    mp_mutex_unlock(&mp_me->super->heap);
}

/* A run with pages; its entry is OWNED by me all the while, so dying here
   loses nothing. */
static uint64_t new_run(uint64_t n, uint64_t entry) {
    bool backed = false;
    mp_mutex_lock(&mp_me->super->heap);
    uint64_t unit = take_run(n, entry, &backed);
    mp_mutex_unlock(&mp_me->super->heap);
    if (!unit || backed) return unit;
    if (mp_memfd_back(mp_me->fd, unit << MP_UNIT_SHIFT,
                      n << MP_UNIT_SHIFT) < 0) {
        free_run(unit);
        return 0;
    }
    atomic_fetch_or(&mp_me->unit[unit], E_BACKED);
    return unit;
}

/* ---- spans ---------------------------------------------------------- */

/* A number for each life of a run, that does not come again for long. */
static uint32_t next_life(void) {
    uint64_t n = atomic_fetch_add_explicit(&mp_me->super->lives, 1,
                                           memory_order_relaxed);
    return (uint32_t)(n * 0x9e37 & 0xffff); /* far from those before it */
}

/* A block's first generation: it goes on where the last life as a span left
   it, so that an old ref stays stale. Memory that was something else since,
   or is new, does not tell, and an old ref might well be near 0. */
static uint32_t first_state(uint32_t found, uint32_t life) {
    bool left = found != 0 && found == STATE(S_FREE, 0, 0, STATE_GEN(found));
    return STATE(S_FREE, 0, 0, left ? STATE_GEN(found) + 1 : life);
}

static void shape_span(span_shm *span, unsigned class) {
    span_shape shape = shape_of(class);
    uint32_t life = next_life();
    span->size = shape.size;
    span->data = shape.data;
    span->blocks = shape.blocks;
    span->inverse = shape.inverse;
    atomic_store(&span->allocs, 0);
    atomic_store(&span->frees, 0);
    for (uint32_t i = 0; i < shape.blocks; i++) {
        uint32_t found =
            atomic_load_explicit(&span->state[i], memory_order_relaxed);
        atomic_store_explicit(&span->state[i], first_state(found, life),
                              memory_order_relaxed);
    }
    mp_poison((unsigned char *)span + shape.data,
              (size_t)shape.blocks * shape.size);
}

/* Before there is one more span of mine: one that I cannot remember might
   have blocks of others, and could not go back. */
static bool room_for_span(mp_spans *mine) {
    if (mine->n < mine->cap) return true;
    uint32_t cap = mine->cap ? mine->cap * 2 : 8;
    uint32_t *more = realloc(mine->unit, cap * sizeof *more);
    if (!more) return false;
    mine->unit = more;
    mine->cap = cap;
    return true;
}

static void remember_span(mp_spans *mine, uint64_t unit) {
    mine->current = mine->n;
    mine->cursor = 0;
    mine->unit[mine->n++] = (uint32_t)unit;
}

/* Counts again what a dead owner or freer may have left wrong. Acquire pairs
   with free_block: a span without blocks may go back, and what the freers
   did in it has then been before. */
static uint32_t recount(span_shm *span) {
    uint32_t used = 0;
    /* First, so that a free meanwhile counts twice rather than never. */
    atomic_store(&span->frees, 0);
    for (uint32_t i = 0; i < span->blocks; i++)
        used += STATE_KIND(atomic_load_explicit(
                    &span->state[i], memory_order_acquire)) != S_FREE;
    atomic_store(&span->allocs, used);
    return used;
}

/* Takes over a span whose owner died. */
static uint64_t adopt(unsigned class) {
    mp_super_shm *super = mp_me->super;
    if (atomic_load_explicit(&super->abandoned[class],
                             memory_order_relaxed) == 0)
        return 0;
    mp_mutex_lock(&super->heap);
    uint64_t found = 0, units = atomic_load(&super->units);
    for (uint64_t u = atomic_load(&super->first_unit); u < units && !found;) {
        uint64_t e = entry_at(u);
        if (E_KIND(e) == K_SPAN && E_OWNER(e) == 0 && E_CLASS(e) == class) {
            mp_txn txn = mp_txn_begin();
            mp_txn_set64(&txn, &mp_me->unit[u],
                         e | E_WITH_OWNER(mp_me->index));
            mp_txn_set64(&txn, &super->abandoned[class],
                         atomic_load(&super->abandoned[class]) - 1);
            mp_txn_commit(&txn);
            found = u;
        }
        u += E_N(e);
    }
    if (!found) atomic_store(&super->abandoned[class], 0);
    mp_mutex_unlock(&super->heap);
    if (found) recount(span_at(found));
    return found;
}

/* A run becomes a span only when its head is in order: a reaper must never
   meet one that is not. */
static uint64_t new_span(unsigned class) {
    uint64_t n = span_shapes[class].units;
    uint64_t mine = E_WITH_OWNER(mp_me->index);
    uint64_t unit = new_run(n, ENTRY(K_OWNED, 0) | mine);
    if (!unit) return 0;
    shape_span(span_at(unit), class);
    mp_mutex_lock(&mp_me->super->heap);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &mp_me->unit[unit],
                 ENTRY(K_SPAN, n) | mine | E_WITH_CLASS(class) | E_BACKED);
    for (uint64_t i = 1; i < n; i++)
        mp_txn_set64(&txn, &mp_me->unit[unit + i], ENTRY(K_CONT, i));
    mp_txn_commit(&txn);
    mp_mutex_unlock(&mp_me->super->heap);
    return unit;
}

static uint32_t room_in(const span_shm *span) {
    uint32_t used =
        atomic_load_explicit(&span->allocs, memory_order_relaxed) -
        atomic_load_explicit(&span->frees, memory_order_relaxed);
    if ((int32_t)used < 0) return span->blocks;
    return used >= span->blocks ? 0 : span->blocks - used;
}

/* Makes another of my spans current, one with an eighth of it free at least,
   so that looking for the free blocks is worth it. */
static bool switch_span(mp_spans *mine) {
    for (uint32_t i = 0; i < LOOK && i < mine->n; i++) {
        mine->current = mine->current + 1 < mine->n ? mine->current + 1 : 0;
        span_shm *span = span_at(mine->unit[mine->current]);
        if (room_in(span) > span->blocks / 8) {
            mine->cursor = 0;
            return true;
        }
    }
    return false;
}

/* Gives wholly free spans back, but for one per class. */
static void trim(mp_spans *mine) {
    for (uint32_t i = mine->n; i-- > 0 && mine->n > 1;) {
        span_shm *span = span_at(mine->unit[i]);
        if (room_in(span) < span->blocks || recount(span) > 0) continue;
        free_run(mine->unit[i]);
        mine->unit[i] = mine->unit[--mine->n];
    }
    mine->current = mine->n - 1;
    mine->cursor = 0;
}

static bool refill(unsigned class) {
    mp_spans *mine = &mp_me->spans[class];
    if (switch_span(mine)) return true;
    if (mine->n >= 32 && mine->n % 32 == 0) {
        for (unsigned c = 0; c < CLASSES; c++) trim(&mp_me->spans[c]);
        if (switch_span(mine)) return true;
    }
    if (!room_for_span(mine)) return false;
    uint64_t unit = adopt(class);
    if (!unit) unit = new_span(class);
    if (unit) remember_span(mine, unit);
    return unit != 0;
}

static mp_ref take_block(mp_spans *mine, uint64_t unit, span_shm *span) {
    bool whole = mine->cursor == 0;
    for (uint32_t i = mine->cursor; i < span->blocks; i++) {
        uint32_t s =
            atomic_load_explicit(&span->state[i], memory_order_acquire);
        if (STATE_KIND(s) != S_FREE) continue;
        uint32_t gen = (STATE_GEN(s) + 1) & 0xffff;
        atomic_store_explicit(&span->state[i],
                              STATE(S_OWNED, 0, mp_me->index, gen),
                              memory_order_release);
        atomic_store_explicit(
            &span->allocs,
            atomic_load_explicit(&span->allocs, memory_order_relaxed) + 1,
            memory_order_relaxed);
        mine->cursor = i + 1;
        uint64_t in = span->data + (uint64_t)i * span->size;
        mp_unpoison((unsigned char *)span + in, span->size);
        return (mp_ref)gen << 48 | ((unit << MP_UNIT_SHIFT) + in);
    }
    mine->cursor = span->blocks;
    /* Full, whatever the counters promised. */
    if (whole) recount(span);
    return 0;
}

static mp_ref alloc_run(size_t size) {
    uint64_t n = (size + MP_UNIT - 1) >> MP_UNIT_SHIFT;
    if (n > mp_me->super->reserved >> MP_UNIT_SHIFT) return 0;
    uint32_t gen = next_life();
    uint64_t unit = new_run(n, ENTRY(K_OWNED, 0) | E_WITH_GEN(gen) |
                                   E_WITH_OWNER(mp_me->index));
    if (!unit) return 0;
    mp_unpoison(unit_at(unit), n << MP_UNIT_SHIFT);
    return (mp_ref)gen << 48 | unit << MP_UNIT_SHIFT;
}

mp_ref mp_alloc(size_t size) {
    if (size > class_size[CLASSES - 1]) return alloc_run(size);
    unsigned class = class_of(size);
    mp_spans *mine = &mp_me->spans[class];
    for (;;) {
        if (mine->n) {
            uint64_t unit = mine->unit[mine->current];
            mp_ref ref = take_block(mine, unit, span_at(unit));
            if (ref) return ref;
        }
        if (!refill(class)) return 0;
    }
}

/* ---- states --------------------------------------------------------- */

/* Where a block's state is: `run` for a whole run, else the word. */
typedef struct place {
    uint64_t unit, entry;
    span_shm *span;
    _Atomic uint32_t *word;
} place;

static bool find_place(mp_ref ref, place *p) {
    uint64_t offset = MP_REF_OFFSET(ref), unit = offset >> MP_UNIT_SHIFT;
    mp_super_shm *super = mp_me->super;
    if (unit < super->first_unit || unit >= atomic_load(&super->units))
        return false;
    uint64_t e = entry_at(unit);
    if (E_KIND(e) == K_CONT) e = entry_at(unit -= E_N(e));
    *p = (place){.unit = unit, .entry = e};
    if (E_KIND(e) != K_SPAN)
        return (E_KIND(e) == K_OWNED || E_KIND(e) == K_PUBLISHED) &&
               E_GEN(e) == MP_REF_GEN(ref);
    p->span = span_at(unit);
    const span_shape *shape = &span_shapes[E_CLASS(e)];
    uint64_t in = offset - (unit << MP_UNIT_SHIFT);
    if (in < shape->data) return false;
    uint64_t i = ((in - shape->data) * shape->inverse) >> 32;
    if (i >= shape->blocks) return false;
    p->word = &p->span->state[i];
    uint32_t s = atomic_load_explicit(p->word, memory_order_acquire);
    return STATE_KIND(s) != S_FREE && STATE_GEN(s) == MP_REF_GEN(ref);
}

void mp_publish(mp_ref block) {
    place p;
    if (!find_place(block, &p)) return;
    if (p.word) {
        uint32_t s = atomic_load_explicit(p.word, memory_order_relaxed);
        atomic_store_explicit(
            p.word, STATE(S_PUBLISHED, 0, 0, STATE_GEN(s)) |
                        (s & STATE_HANDLES), memory_order_release);
    } else {
        uint64_t e = entry_at(p.unit) & ~((uint64_t)7 | E_WITH_OWNER(0xfff));
        atomic_store_explicit(&mp_me->unit[p.unit], e | K_PUBLISHED,
                              memory_order_release);
    }
}

void mp_mark_handles(mp_ref block) {
    place p;
    if (!find_place(block, &p)) return;
    if (p.word)
        atomic_fetch_or(p.word, STATE_HANDLES);
    else
        atomic_fetch_or(&mp_me->unit[p.unit], E_HANDLES);
}

/* A span of mine that has just become empty: of many, all but one per class
   go back, so that a burst does not keep its memory for ever. */
static void note_empty(unsigned class) {
    if (++mp_me->empty_spans < EMPTY_SPANS) return;
    mp_me->empty_spans = 0;
    trim(&mp_me->spans[class]);
}

static void poison_block(const place *p) {
    const span_shape *shape = &span_shapes[E_CLASS(p->entry)];
    size_t i = (size_t)(p->word - p->span->state);
    mp_poison((unsigned char *)p->span + shape->data + i * shape->size,
              shape->size);
}

/* The free is counted while the block still keeps the span where it is: as
   soon as it is free, the owner may give the span back, and its memory is
   anybody's. (The counters are hints; should it die between the two, or be
   too late, a recount puts them right.) */
static bool free_block(place *p, uint32_t gen) {
    uint32_t s = atomic_load_explicit(p->word, memory_order_relaxed);
    if (STATE_KIND(s) == S_FREE || STATE_GEN(s) != gen) return false;
    bool mine = E_OWNER(p->entry) == mp_me->index;
    poison_block(p);
    uint32_t frees = 1 + atomic_fetch_add_explicit(&p->span->frees, 1,
                                                   memory_order_relaxed);
    /* Release pairs with recount, and with the next owner's take_block. */
    if (!atomic_compare_exchange_strong_explicit(
            p->word, &s, STATE(S_FREE, 0, 0, gen), memory_order_acq_rel,
            memory_order_relaxed))
        return false;
    if (mine && frees == atomic_load_explicit(&p->span->allocs,
                                              memory_order_relaxed))
        note_empty(E_CLASS(p->entry));
    return true;
}

static bool free_whole_run(const place *p, uint32_t gen) {
    mp_mutex_lock(&mp_me->super->heap);
    uint64_t e = entry_at(p->unit);
    bool mine = (E_KIND(e) == K_OWNED || E_KIND(e) == K_PUBLISHED) &&
                E_GEN(e) == gen;
    if (mine) put_run(p->unit, e);
    mp_mutex_unlock(&mp_me->super->heap);
    return mine;
}

bool mp_free(mp_ref block) {
    place p;
    if (!block || !find_place(block, &p)) return false;
    bool handles = p.word ? (atomic_load(p.word) & STATE_HANDLES) != 0
                          : (p.entry & E_HANDLES) != 0;
    if (handles) mp_message_drop(block);
    return p.word ? free_block(&p, MP_REF_GEN(block))
                  : free_whole_run(&p, MP_REF_GEN(block));
}

size_t mp_block_size(mp_ref block) {
    place p;
    if (!block || !find_place(block, &p)) return 0;
    return p.word ? span_shapes[E_CLASS(p.entry)].size
                  : (size_t)(E_N(p.entry) << MP_UNIT_SHIFT);
}

/* ---- the whole heap ------------------------------------------------- */

uint64_t mp_heap_used(void) {
    mp_super_shm *super = mp_me->super;
    uint64_t used = 0;
    mp_mutex_lock(&super->heap);
    uint64_t units = atomic_load(&super->units);
    for (uint64_t u = super->first_unit; u < units;) {
        uint64_t e = entry_at(u);
        if (E_KIND(e) == K_SPAN) {
            span_shm *span = span_at(u);
            for (uint32_t i = 0; i < span->blocks; i++)
                if (STATE_KIND(atomic_load(&span->state[i])) != S_FREE)
                    used += span->size;
        } else if (E_KIND(e) != K_FREE) {
            used += E_N(e) << MP_UNIT_SHIFT;
        }
        u += E_N(e);
    }
    mp_mutex_unlock(&super->heap);
    return used;
}

/* Frees the blocks of a span that the dead one OWNED. */
static void free_owned(uint64_t unit, uint32_t index) {
    span_shm *span = span_at(unit);
    for (uint32_t i = 0; i < span->blocks; i++) {
        uint32_t s = atomic_load(&span->state[i]);
        if (STATE_KIND(s) == S_OWNED && STATE_SLOT(s) == index)
            mp_free((mp_ref)STATE_GEN(s) << 48 |
                    ((unit << MP_UNIT_SHIFT) + span->data +
                     (uint64_t)i * span->size));
    }
}

static void abandon_span(uint64_t unit, uint32_t index) {
    mp_super_shm *super = mp_me->super;
    mp_mutex_lock(&super->heap);
    uint64_t e = entry_at(unit);
    if (E_KIND(e) == K_SPAN && E_OWNER(e) == index) {
        if (!(e & E_BACKED) || recount(span_at(unit)) == 0) {
            put_run(unit, e);
        } else {
            mp_txn txn = mp_txn_begin();
            mp_txn_set64(&txn, &mp_me->unit[unit],
                         e & ~E_WITH_OWNER(0xfff));
            mp_txn_set64(&txn, &super->abandoned[E_CLASS(e)],
                         atomic_load(&super->abandoned[E_CLASS(e)]) + 1);
            mp_txn_commit(&txn);
        }
    }
    mp_mutex_unlock(&super->heap);
}

/* A span without pages was never shaped: its owner died before it could. */
static void reap_unit(uint64_t unit, uint64_t e, uint32_t index) {
    if (E_OWNER(e) != index) return;
    if (E_KIND(e) == K_SPAN) {
        if (e & E_BACKED) free_owned(unit, index);
        abandon_span(unit, index);
    } else if (E_KIND(e) == K_OWNED) {
        mp_free((mp_ref)E_GEN(e) << 48 | unit << MP_UNIT_SHIFT);
    }
}

/* The entry of the run at *unit; caller holds the lock. Between two looks a
   free run may have been joined to the one before it. What stands there then
   is the entry of that time, behind which the walk goes on as well as ever,
   or, of a span that was made of it since, the way back to the span's head. */
static uint64_t entry_of_walk(uint64_t *unit) {
    uint64_t u = *unit, e = entry_at(u);
    if (E_KIND(e) != K_CONT) return e;
    for (u -= E_N(e); u + E_N(entry_at(u)) <= *unit;) u += E_N(entry_at(u));
    *unit = u;
    return entry_at(u);
}

void mp_heap_reap(uint32_t tag) {
    mp_super_shm *super = mp_me->super;
    uint32_t index = tag % MP_SLOTS;
    for (uint64_t u = super->first_unit; u < atomic_load(&super->units);) {
        mp_mutex_lock(&super->heap);
        uint64_t e = entry_of_walk(&u);
        mp_mutex_unlock(&super->heap);
        reap_unit(u, e, index);
        u += E_N(e);
    }
}

void mp_heap_forget(mp_self *self) {
    memset(self->spans, 0, sizeof self->spans);
}
