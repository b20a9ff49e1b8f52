/* The heap's units, spans and blocks, and which of them something refers to.

   A bit of the bitmaps stands for 64 bytes, the least block; a block's first
   one is the block's. */
#include <stdio.h>

#include "mem/fsck_walk.h"
#include "mem/heap_shm.h"
#include "mem/mutex.h"
#include "mem/object.h"

enum { BITS_PER_UNIT = MP_UNIT / 64 };

static const uint64_t *entry_word(const mp_check *c, uint64_t unit) {
    return (const uint64_t *)(const void *)(c->base + MP_SUPER_SIZE) +
           MP_SLOTS * sizeof(mp_slot_shm) / 8 + unit;
}

static uint64_t entry_at(const mp_check *c, uint64_t unit) {
    return mp_check_u64(c, entry_word(c, unit));
}

static uint64_t bit_of(const mp_check *c, uint64_t offset) {
    return (offset >> 6) - c->first_unit * BITS_PER_UNIT;
}

/* Is the participant there that owns something? */
static bool in_use(const mp_check *c, uint32_t slot) {
    return slot > 0 && slot < c->slots &&
           mp_check_u32(c, &mp_check_slot(c, slot)->state) != MP_SLOT_FREE;
}

/* ---- messages ------------------------------------------------------- */

/* Each counted handle is a holder of its object. */
static void check_message(mp_check *c, uint64_t offset, uint64_t size) {
    const mp_message_shm *m = mp_check_at(c, offset, size);
    if (!m) return; /* its unit is reported */
    uint64_t at = mp_check_u32(c, &m->handles_at);
    uint32_t n = mp_check_u32(c, &m->n_handles);
    if (n == 0) return;
    if (at < sizeof *m || at % 4 != 0 || at > size || n > (size - at) / 4) {
        mp_check_report(c, "%u handles at %ju, expected within its %ju bytes",
                        n, (uintmax_t)at, (uintmax_t)size);
        return;
    }
    const uint32_t *ids = (const void *)((const unsigned char *)m + at);
    for (uint32_t i = 0; i < n; i++)
        mp_check_holder(c, mp_check_u32(c, &ids[i]), "message");
}

/* ---- spans ---------------------------------------------------------- */

static void check_head(mp_check *c, const span_shm *span,
                       const span_shape *shape) {
    if (span->size != shape->size || span->blocks != shape->blocks ||
        span->data != shape->data || span->inverse != shape->inverse)
        mp_check_report(c, "the span's head says %u blocks of %u bytes from "
                           "%u (inverse %u), expected %u of %u from %u (%u)",
                        span->blocks, span->size, span->data, span->inverse,
                        shape->blocks, shape->size, shape->data,
                        shape->inverse);
}

static void bad_state(mp_check *c, uint64_t offset, uint32_t state,
                      const char *expected) {
    char subject[sizeof c->subject];
    snprintf(subject, sizeof subject, "%s", c->subject);
    mp_check_subject(c, "block 0x%jx", (uintmax_t)offset);
    mp_check_report(c, "its state is 0x%x, expected %s", state, expected);
    mp_check_subject(c, "%s", subject);
}

static void check_state(mp_check *c, uint64_t offset, uint32_t state,
                        uint32_t size) {
    if (state & 8) bad_state(c, offset, state, "bit 3 to be 0");
    switch (STATE_KIND(state)) {
    case S_OWNED:
        if (!in_use(c, STATE_SLOT(state)))
            bad_state(c, offset, state, "the owner's slot to be in use");
        break;
    case S_PUBLISHED:
        if (STATE_SLOT(state))
            bad_state(c, offset, state, "no owner, as it is published");
        c->published[bit_of(c, offset) / 64] |= (uint64_t)1
                                                << bit_of(c, offset) % 64;
        break;
    default:
        bad_state(c, offset, state, "FREE, OWNED or PUBLISHED");
        return;
    }
    c->seen.bytes += size;
    if (state & STATE_HANDLES) {
        mp_check_subject(c, "block 0x%jx", (uintmax_t)offset);
        check_message(c, offset, size);
    }
}

static void check_states(mp_check *c, uint64_t unit, const span_shm *span,
                         const span_shape *shape) {
    uint64_t data = (unit << MP_UNIT_SHIFT) + shape->data;
    for (uint32_t i = 0; i < shape->blocks; i++) {
        uint32_t s =
            atomic_load_explicit(&span->state[i], memory_order_acquire);
        uint64_t offset = data + (uint64_t)i * shape->size;
        if (STATE_KIND(s) != S_FREE)
            check_state(c, offset, s, shape->size);
        else if (s & 0xffffU)
            bad_state(c, offset, s, "nothing but a generation: it is FREE");
    }
}

static void check_span(mp_check *c, uint64_t unit, uint64_t e,
                       uint64_t *abandoned) {
    if (E_CLASS(e) >= CLASSES) {
        mp_check_report(c, "a span of class %u, expected at most %d",
                        E_CLASS(e), CLASSES - 1);
        return;
    }
    span_shape shape = shape_of(E_CLASS(e));
    if (E_N(e) != shape.units || !(e & E_BACKED)) {
        mp_check_report(c, "a span of %ju units %s pages, expected %u with",
                        (uintmax_t)E_N(e), e & E_BACKED ? "with" : "without",
                        shape.units);
        return;
    }
    for (uint64_t i = 1; i < shape.units; i++)
        if (entry_at(c, unit + i) != ENTRY(K_CONT, i))
            mp_check_report(c, "entry %ju behind the span's head is 0x%jx, "
                               "expected 0x%jx", (uintmax_t)i,
                            (uintmax_t)entry_at(c, unit + i),
                            (uintmax_t)ENTRY(K_CONT, i));
    abandoned[E_CLASS(e)] += E_OWNER(e) == 0;
    if (E_OWNER(e) && !in_use(c, E_OWNER(e)))
        mp_check_report(c, "a span of slot %u, expected one in use",
                        E_OWNER(e));
    const span_shm *span = mp_check_at(c, unit << MP_UNIT_SHIFT,
                                       E_N(e) << MP_UNIT_SHIFT);
    check_head(c, span, &shape);
    check_states(c, unit, span, &shape);
}

/* ---- units ---------------------------------------------------------- */

static void check_run(mp_check *c, uint64_t unit, uint64_t e) {
    uint64_t offset = unit << MP_UNIT_SHIFT, size = E_N(e) << MP_UNIT_SHIFT;
    if (E_KIND(e) == K_OWNED && !in_use(c, E_OWNER(e)))
        mp_check_report(c, "a run of slot %u, expected one in use",
                        E_OWNER(e));
    if (E_KIND(e) == K_PUBLISHED && E_OWNER(e))
        mp_check_report(c, "a published run of slot %u, expected no owner",
                        E_OWNER(e));
    if (E_CLASS(e))
        mp_check_report(c, "a run of class %u, expected 0", E_CLASS(e));
    if (!(e & E_BACKED) && (c->quiet || E_KIND(e) == K_PUBLISHED))
        mp_check_report(c, "a run of %ju units without pages",
                        (uintmax_t)E_N(e));
    c->seen.bytes += size;
    if (E_KIND(e) == K_PUBLISHED)
        c->published[bit_of(c, offset) / 64] |= (uint64_t)1
                                                << bit_of(c, offset) % 64;
    if (e & E_HANDLES) check_message(c, offset, size);
}

/* What the walk of the unit table adds up; `own`: this thread's spans. */
typedef struct sums {
    uint64_t abandoned[64], spare, first_free, own;
} sums;

static void check_unit(mp_check *c, uint64_t unit, uint64_t e, sums *sum) {
    mp_check_subject(c, "unit %ju", (uintmax_t)unit);
    switch (E_KIND(e)) {
    case K_FREE:
        if (!sum->first_free) sum->first_free = unit;
        if (e & E_BACKED) sum->spare += E_N(e);
        if (e != (ENTRY(K_FREE, E_N(e)) | (e & E_BACKED)))
            mp_check_report(c, "a free run's entry is 0x%jx, expected only "
                               "a length", (uintmax_t)e);
        break;
    case K_SPAN:
        check_span(c, unit, e, sum->abandoned);
        sum->own += c->self && E_OWNER(e) == c->self->index;
        break;
    default: check_run(c, unit, e);
    }
}

/* Runs tile the units; false when they do not. */
static bool check_units(mp_check *c, sums *sum) {
    for (uint64_t unit = c->first_unit; unit < c->units;) {
        uint64_t e = entry_at(c, unit), n = E_N(e);
        if (E_KIND(e) == K_CONT || E_KIND(e) > K_PUBLISHED || n == 0 ||
            n > c->units - unit) {
            mp_check_subject(c, "unit %ju", (uintmax_t)unit);
            mp_check_report(c, "kind %u, %ju units: expected a run that "
                               "begins here and ends by unit %ju",
                            E_KIND(e), (uintmax_t)n, (uintmax_t)c->units);
            return false;
        }
        check_unit(c, unit, e, sum);
        unit += n;
    }
    return true;
}

/* `low` is where the search for a free run begins: it must be a run's head,
   and no free run stands before it. */
static void check_low(mp_check *c, const sums *sum) {
    uint64_t low = mp_check_u64(c, &c->super->low);
    uint64_t unit = c->first_unit;
    for (uint64_t n = 1; n && unit < low && unit < c->units; unit += n)
        n = E_N(entry_at(c, unit)); /* 0 by a change since */
    if (unit != low)
        mp_check_report(c, "low is %ju, expected the first unit of a run",
                        (uintmax_t)low);
    if (sum->first_free && sum->first_free < low)
        mp_check_report(c, "low is %ju, expected at most %ju, which is free",
                        (uintmax_t)low, (uintmax_t)sum->first_free);
}

static void check_sums(mp_check *c, const sums *sum) {
    mp_check_subject(c, "super block");
    uint64_t spare = mp_check_u64(c, &c->super->spare);
    check_low(c, sum);
    if (spare != sum->spare)
        mp_check_report(c, "spare is %ju, expected %ju free units with pages",
                        (uintmax_t)spare, (uintmax_t)sum->spare);
    for (unsigned k = 0; k < 64; k++) {
        uint64_t n = mp_check_u64(c, &c->super->abandoned[k]);
        if (n != sum->abandoned[k])
            mp_check_report(c, "abandoned[%u] is %ju, expected %ju spans "
                               "without owner", k, (uintmax_t)n,
                            (uintmax_t)sum->abandoned[k]);
    }
}

/* What this thread believes to own, and what it does. */
static void check_own(mp_check *c, const sums *sum) {
    uint64_t known = 0;
    mp_check_subject(c, "slot %u", c->self->index);
    for (unsigned k = 0; k < CLASSES; k++)
        for (uint32_t i = 0; i < c->self->spans[k].n; i++, known++) {
            uint64_t unit = c->self->spans[k].unit[i];
            uint64_t e = unit < c->units ? entry_at(c, unit) : 0;
            if (E_KIND(e) != K_SPAN || E_OWNER(e) != c->self->index ||
                E_CLASS(e) != k)
                mp_check_report(c, "uses unit %ju for blocks of class %u, "
                                   "but its entry is 0x%jx", (uintmax_t)unit,
                                k, (uintmax_t)e);
        }
    if (known != sum->own)
        mp_check_report(c, "uses %ju spans, expected %ju, which it owns",
                        (uintmax_t)known, (uintmax_t)sum->own);
}

void mp_check_heap(mp_check *c) {
    sums sum = {0};
    mp_check_subject(c, "super block");
    mp_check_mutex(c, &c->super->table, "table");
    c->silent = false;
    mp_check_mutex(c, &c->super->heap, "heap");
    if (check_units(c, &sum))
        check_sums(c, &sum);
    else
        c->partial = true;
    c->silent = false;
    if (!c->partial && c->self) check_own(c, &sum);
}

/* ---- blocks --------------------------------------------------------- */

static bool find_in_span(const mp_check *c, uint64_t unit, uint64_t e,
                         uint64_t offset, mp_found *found) {
    if (E_CLASS(e) >= CLASSES) return false;
    span_shape shape = shape_of(E_CLASS(e));
    uint64_t in = offset - (unit << MP_UNIT_SHIFT);
    const span_shm *span =
        mp_check_at(c, unit << MP_UNIT_SHIFT,
                    (uint64_t)shape.units << MP_UNIT_SHIFT);
    if (!span || in < shape.data || (in - shape.data) % shape.size != 0 ||
        (in - shape.data) / shape.size >= shape.blocks)
        return false;
    uint32_t s = atomic_load_explicit(
        &span->state[(in - shape.data) / shape.size], memory_order_acquire);
    found->size = shape.size;
    found->published = STATE_KIND(s) == S_PUBLISHED;
    found->gen = STATE_GEN(s);
    return STATE_KIND(s) != S_FREE;
}

/* Whatever its generation is. */
static bool find_at(const mp_check *c, uint64_t offset, mp_found *found) {
    uint64_t unit = offset >> MP_UNIT_SHIFT;
    if (unit < c->first_unit || unit >= c->units) return false;
    uint64_t e = entry_at(c, unit);
    if (E_KIND(e) == K_CONT) {
        if (E_N(e) > unit - c->first_unit) return false;
        e = entry_at(c, unit -= E_N(e));
        if (E_KIND(e) != K_SPAN) return false;
    }
    found->bit = bit_of(c, offset);
    if (E_KIND(e) == K_SPAN) return find_in_span(c, unit, e, offset, found);
    found->size = E_N(e) << MP_UNIT_SHIFT;
    found->published = E_KIND(e) == K_PUBLISHED;
    found->gen = E_GEN(e);
    return (E_KIND(e) == K_OWNED || E_KIND(e) == K_PUBLISHED) &&
           offset == unit << MP_UNIT_SHIFT &&
           mp_check_at(c, offset, found->size);
}

bool mp_check_find(const mp_check *c, mp_ref ref, mp_found *found) {
    return find_at(c, MP_REF_OFFSET(ref), found) &&
           found->gen == MP_REF_GEN(ref);
}

uint64_t mp_check_block_size(const mp_check *c, mp_ref ref) {
    mp_found found;
    return mp_check_find(c, ref, &found) ? found.size : 0;
}

/* The first one who reaches it has it. */
static bool reach(mp_check *c, uint64_t bit) {
    uint64_t *word = &c->reached[bit / 64], mask = (uint64_t)1 << bit % 64;
    if (*word & mask) return false;
    *word |= mask;
    if (!c->quiet) mp_check_note(c, &c->marked, bit);
    return true;
}

const void *mp_check_block(mp_check *c, mp_ref ref, uint64_t size,
                           const char *what) {
    mp_found found;
    uintmax_t name = (uintmax_t)ref;
    if (!mp_check_find(c, ref, &found))
        mp_check_report(c, "its %s 0x%jx is no block, or a free one", what,
                        name);
    else if (!found.published)
        mp_check_report(c, "its %s 0x%jx is owned by a participant, expected "
                           "published", what, name);
    else if (found.size < size)
        mp_check_report(c, "its %s 0x%jx has %ju bytes, expected %ju", what,
                        name, (uintmax_t)found.size, (uintmax_t)size);
    else if (!reach(c, found.bit))
        mp_check_report(c, "its %s 0x%jx is referred to twice", what, name);
    else
        return mp_check_at(c, MP_REF_OFFSET(ref), found.size);
    return NULL;
}

const void *mp_check_block_if(mp_check *c, mp_ref ref, uint64_t size,
                              const char *what) {
    mp_found found;
    if (!mp_check_find(c, ref, &found) || !found.published) return NULL;
    return mp_check_block(c, ref, size, what);
}

const void *mp_check_again(mp_check *c, mp_ref ref, uint64_t size,
                           const char *what) {
    mp_found found;
    uint64_t offset = MP_REF_OFFSET(ref);
    if (find_at(c, offset, &found) && found.size >= size &&
        c->reached[found.bit / 64] >> found.bit % 64 & 1)
        return mp_check_at(c, offset, found.size);
    mp_check_report(c, "its %s 0x%jx is none of those that are listed", what,
                    (uintmax_t)ref);
    return NULL;
}

/* ---- what nothing refers to ----------------------------------------- */

static void report_lost(mp_check *c, uint64_t bit) {
    uint64_t offset = (bit + c->first_unit * BITS_PER_UNIT) << 6;
    mp_found found;
    if (!find_at(c, offset, &found)) return; /* freed just now */
    mp_check_subject(c, "block 0x%jx",
                     (uintmax_t)((mp_ref)found.gen << 48 | offset));
    mp_check_report(c, "%ju bytes, published, but nothing refers to it",
                    (uintmax_t)found.size);
}

void mp_check_lost(mp_check *c) {
    if (c->partial && !c->quiet) return;
    for (size_t i = 0; i < c->words; i++)
        for (uint64_t bits = c->published[i] & ~c->reached[i]; bits;
             bits &= bits - 1)
            report_lost(c, i * 64 + (uint32_t)__builtin_ctzll(bits));
}
