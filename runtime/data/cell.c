#include "data/cell.h"

#include <errno.h>
#include <math.h>

_Static_assert(sizeof(int) == 4 && sizeof(long) == 8,
               "type codes mean C's types, of the sizes in the table");
_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEC 60559");

#define INTEGER(c, type, low, high)                                          \
    [MP_CELL_##c] = {#c[0], sizeof(type), MP_CELL_INTEGER, low, high}

const mp_cell_type mp_cell_types[MP_CELL_TYPES] = {
    [MP_CELL_c] = {'c', 1, MP_CELL_BYTE, 0, UINT8_MAX},
    INTEGER(b, int8_t, INT8_MIN, INT8_MAX),
    INTEGER(B, uint8_t, 0, UINT8_MAX),
    [MP_CELL_u] = {'u', 4, MP_CELL_CODEPOINT, 0, 0x10ffff},
    INTEGER(h, int16_t, INT16_MIN, INT16_MAX),
    INTEGER(H, uint16_t, 0, UINT16_MAX),
    INTEGER(i, int32_t, INT32_MIN, INT32_MAX),
    INTEGER(I, uint32_t, 0, UINT32_MAX),
    INTEGER(l, int64_t, INT64_MIN, INT64_MAX),
    INTEGER(L, uint64_t, 0, INT64_MAX),
    INTEGER(q, int64_t, INT64_MIN, INT64_MAX),
    INTEGER(Q, uint64_t, 0, INT64_MAX),
    [MP_CELL_f] = {'f', 4, MP_CELL_FLOAT, 0, 0},
    [MP_CELL_d] = {'d', 8, MP_CELL_FLOAT, 0, 0}};

int mp_cell_find(char code) {
    for (int type = 1; type < MP_CELL_TYPES; type++)
        if (mp_cell_types[type].code == code) return type;
    return 0;
}

/* The word as it comes back from a cell: an 'f' rounds. */
static uint64_t as_stored(int type, uint64_t word) {
    return type == MP_CELL_f ? mp_cell_of_float_bits(mp_cell_float_bits(word))
                             : word;
}

bool mp_cell_fits(int type, uint64_t word) {
    const mp_cell_type *t = &mp_cell_types[type];
    if (t->kind == MP_CELL_FLOAT)
        return !isfinite(mp_cell_double(word)) ||
               isfinite(mp_cell_double(as_stored(type, word)));
    return (int64_t)word >= t->min && (int64_t)word <= t->max;
}

int mp_cell_sum(int type, uint64_t a, uint64_t b, uint64_t *sum) {
    int64_t n;
    if (mp_cell_types[type].kind == MP_CELL_FLOAT)
        *sum = mp_cell_of_double(mp_cell_double(a) + mp_cell_double(b));
    else if (__builtin_add_overflow((int64_t)a, (int64_t)b, &n))
        return -ERANGE;
    else
        *sum = (uint64_t)n;
    if (!mp_cell_fits(type, *sum)) return -ERANGE;
    *sum = as_stored(type, *sum);
    return 0;
}

bool mp_cell_equal(int type, uint64_t a, uint64_t b) {
    if (mp_cell_types[type].kind != MP_CELL_FLOAT) return a == b;
    return mp_cell_double(as_stored(type, a)) ==
           mp_cell_double(as_stored(type, b));
}

/* What a cell holds, as bits and as the word they mean: the bits of a NaN
   would not survive the way to a word and back. */
typedef struct content {
    uint64_t bits, word;
} content;

static content look(int type, void *cells, uint64_t i) {
    if (type == MP_CELL_f) {
        uint32_t bits = MP_CELL_READ(32, cells, i);
        return (content){bits, mp_cell_of_float_bits(bits)};
    }
    uint64_t word = mp_cell_load(type, cells, i);
    return (content){word, word};
}

#define REPLACE(width, cells, i, from, to)                                   \
    atomic_compare_exchange_strong_explicit(                                 \
        &MP_CELL_AT(width, cells, i),                                        \
        &(uint##width##_t){(uint##width##_t)(from)},                         \
        (uint##width##_t)(to), memory_order_relaxed, memory_order_relaxed)

/* The cell gets `word` if it still has the bits `seen`. */
static bool replace(int type, void *cells, uint64_t i, uint64_t seen,
                    uint64_t word) {
    uint64_t bits = type == MP_CELL_f ? mp_cell_float_bits(word) : word;
    switch (mp_cell_types[type].size) {
    case 1: return REPLACE(8, cells, i, seen, bits);
    case 2: return REPLACE(16, cells, i, seen, bits);
    case 4: return REPLACE(32, cells, i, seen, bits);
    default: return REPLACE(64, cells, i, seen, bits);
    }
}

int mp_cell_add(int type, void *cells, uint64_t i, uint64_t n,
                uint64_t *sum) {
    for (;;) {
        content seen = look(type, cells, i);
        int r = mp_cell_sum(type, seen.word, n, sum);
        if (r < 0 || replace(type, cells, i, seen.bits, *sum)) return r;
    }
}

bool mp_cell_exchange(int type, void *cells, uint64_t i, uint64_t old,
                      uint64_t new) {
    for (;;) {
        content seen = look(type, cells, i);
        if (!mp_cell_equal(type, seen.word, old)) return false;
        if (replace(type, cells, i, seen.bits, new)) return true;
    }
}
