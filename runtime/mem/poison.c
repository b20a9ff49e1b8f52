#include "mem/poison.h"

#include <stdatomic.h>

#include "mem/heap_shm.h"

_Static_assert(MP_UNIT % 64 == 0, "no two blocks share what can be poison");

#ifdef MP_POISONS

/* The block at an offset, if there is one that is not free. */
typedef struct place {
    uint64_t start, size;
    uint32_t gen;
} place;

static uint64_t entry_at(uint64_t unit) {
    return atomic_load_explicit(&mp_me->unit[unit], memory_order_acquire);
}

static bool find_in_span(uint64_t unit, uint64_t entry, uint64_t offset,
                         place *p) {
    const span_shape *shape = &span_shapes[E_CLASS(entry)];
    uint64_t start = unit << MP_UNIT_SHIFT, in = offset - start;
    span_shm *span = (void *)(mp_me->base + start);
    if (in < shape->data) return false;
    uint64_t i = (in - shape->data) * shape->inverse >> 32;
    if (i >= shape->blocks) return false;
    mp_unpoison(span, shape->data);
    uint32_t state =
        atomic_load_explicit(&span->state[i], memory_order_acquire);
    *p = (place){.start = start + shape->data + i * shape->size,
                 .size = shape->size,
                 .gen = STATE_GEN(state)};
    return STATE_KIND(state) != S_FREE;
}

/* An offset into a large run that is not in its first unit finds none. */
static bool find(uint64_t offset, place *p) {
    uint64_t unit = offset >> MP_UNIT_SHIFT, entry = entry_at(unit);
    if (E_KIND(entry) == K_CONT) entry = entry_at(unit -= E_N(entry));
    if (E_KIND(entry) == K_SPAN) return find_in_span(unit, entry, offset, p);
    *p = (place){.start = unit << MP_UNIT_SHIFT,
                 .size = E_N(entry) << MP_UNIT_SHIFT,
                 .gen = E_GEN(entry)};
    return E_KIND(entry) == K_OWNED || E_KIND(entry) == K_PUBLISHED;
}

static void report(uint64_t offset) {
    void *at = mp_me->base + offset;
    mp_poison(at, 8);
    __asan_report_error(__builtin_return_address(0),
                        __builtin_frame_address(0),
                        __builtin_frame_address(0), at, 0, 1);
}

void mp_poison_look(uint64_t ref) {
    uint64_t offset = MP_REF_OFFSET(ref);
    uint64_t unit = offset >> MP_UNIT_SHIFT;
    mp_super_shm *super = mp_me->super;
    if (unit < super->first_unit || unit >= super->units) return;
    place p;
    bool alive = find(offset, &p);
    uint32_t gen = MP_REF_GEN(ref);
    if (gen && !(alive && p.gen == gen)) {
        report(offset);
    } else if (alive) {
        void *start = mp_me->base + p.start;
        if (__asan_region_is_poisoned(start, p.size))
            mp_unpoison(start, p.size);
    }
}

void mp_poison_forget(void) {
    uint64_t first = mp_me->super->first_unit, end = mp_me->super->units;
    mp_unpoison(mp_me->base + (first << MP_UNIT_SHIFT),
                (end - first) << MP_UNIT_SHIFT);
}

#endif
