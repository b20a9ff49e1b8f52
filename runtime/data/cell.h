/* Typed cells: numbers and characters in shared memory, by Python's type
   codes, packed as C packs them.

   A cell's content goes in and out as a `word` of 64 bits: an integer (two's
   complement; of 'c' its byte, of 'u' its code point), or the bits of a
   double, as the type's kind says. A word that is stored must be in the
   type's range (mp_cell_fits): nothing is cut off silently here.

   Invariant: cells are aligned to their size, and each is read and written
   by one instruction, so nobody sees half of one, whoever is killed.
   Order: relaxed. A cell publishes nothing but itself; where several have to
   agree, a lock is held, and that orders them.
   Safe: threads, processes, signal handler, child after fork.
   Blocks: never. */
#ifndef MP_DATA_CELL_H
#define MP_DATA_CELL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Numbers of types; they stand in shared memory, 0 is none. */
enum {
    MP_CELL_c = 1, /* a byte, seen as a string of one */
    MP_CELL_b,
    MP_CELL_B,
    MP_CELL_u, /* a code point in four bytes */
    MP_CELL_h,
    MP_CELL_H,
    MP_CELL_i,
    MP_CELL_I,
    MP_CELL_l,
    MP_CELL_L,
    MP_CELL_q,
    MP_CELL_Q,
    MP_CELL_f,
    MP_CELL_d,
    MP_CELL_TYPES
};

#define MP_CELL_CODES "c b B u h H i I l L q Q f d"

typedef enum mp_cell_kind {
    MP_CELL_INTEGER,
    MP_CELL_FLOAT,
    MP_CELL_BYTE,
    MP_CELL_CODEPOINT
} mp_cell_kind;

/* min, max  of the kinds that are integers. The unsigned types of 64 bits
             end at INT64_MAX, since a Lua integer does. */
typedef struct mp_cell_type {
    char code;
    uint8_t size;
    mp_cell_kind kind;
    int64_t min, max;
} mp_cell_type;

extern const mp_cell_type mp_cell_types[MP_CELL_TYPES];

/* The number of a type by its code; 0 when there is none. */
int mp_cell_find(char code);

/* Is the word one that a cell of this type can hold? Of an 'f': rounded to
   it, a finite number is still finite. */
bool mp_cell_fits(int type, uint64_t word);

/* a + b as a cell of the type has it. 0, or -ERANGE: it cannot hold it. */
int mp_cell_sum(int type, uint64_t a, uint64_t b, uint64_t *sum);

/* Do two words mean the same content? (NaN is not itself, 0.0 is -0.0; of
   an 'f', both as rounded to it.) */
bool mp_cell_equal(int type, uint64_t a, uint64_t b);

/* The two atomic changes that need no lock, on the i-th cell from 0.
   mp_cell_add       adds, and tells the sum; 0 or -ERANGE (unchanged)
   mp_cell_exchange  if it equals `old`, makes it `new`; says whether */
int mp_cell_add(int type, void *cells, uint64_t i, uint64_t n,
                uint64_t *sum);
bool mp_cell_exchange(int type, void *cells, uint64_t i, uint64_t old,
                      uint64_t new);

static inline uint64_t mp_cell_of_double(double x) {
    uint64_t word;
    memcpy(&word, &x, sizeof word);
    return word;
}

static inline double mp_cell_double(uint64_t word) {
    double x;
    memcpy(&x, &word, sizeof x);
    return x;
}

static inline uint64_t mp_cell_of_float_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return mp_cell_of_double((double)x);
}

static inline uint32_t mp_cell_float_bits(uint64_t word) {
    float x = (float)mp_cell_double(word);
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* One more level keeps the casts out of the two functions below. */
#define MP_CELL_AT(bits, cells, i) (((_Atomic uint##bits##_t *)(cells))[i])
#define MP_CELL_READ(bits, cells, i)                                         \
    atomic_load_explicit(&MP_CELL_AT(bits, cells, i), memory_order_relaxed)
#define MP_CELL_WRITE(bits, cells, i, x)                                     \
    atomic_store_explicit(&MP_CELL_AT(bits, cells, i), (uint##bits##_t)(x),  \
                          memory_order_relaxed)

/* The i-th cell's word. */
static inline uint64_t mp_cell_load(int type, void *cells, uint64_t i) {
    switch (type) {
    case MP_CELL_b:
        return (uint64_t)(int8_t)MP_CELL_READ(8, cells, i);
    case MP_CELL_c:
    case MP_CELL_B:
        return MP_CELL_READ(8, cells, i);
    case MP_CELL_h:
        return (uint64_t)(int16_t)MP_CELL_READ(16, cells, i);
    case MP_CELL_H:
        return MP_CELL_READ(16, cells, i);
    case MP_CELL_i:
        return (uint64_t)(int32_t)MP_CELL_READ(32, cells, i);
    case MP_CELL_u:
    case MP_CELL_I:
        return MP_CELL_READ(32, cells, i);
    case MP_CELL_f:
        return mp_cell_of_float_bits(MP_CELL_READ(32, cells, i));
    default:
        return MP_CELL_READ(64, cells, i);
    }
}

/* Makes `word` the i-th cell's content; it fits. */
static inline void mp_cell_store(int type, void *cells, uint64_t i,
                                 uint64_t word) {
    switch (type) {
    case MP_CELL_c:
    case MP_CELL_b:
    case MP_CELL_B:
        MP_CELL_WRITE(8, cells, i, word);
        break;
    case MP_CELL_h:
    case MP_CELL_H:
        MP_CELL_WRITE(16, cells, i, word);
        break;
    case MP_CELL_u:
    case MP_CELL_i:
    case MP_CELL_I:
        MP_CELL_WRITE(32, cells, i, word);
        break;
    case MP_CELL_f:
        MP_CELL_WRITE(32, cells, i, mp_cell_float_bits(word));
        break;
    default:
        MP_CELL_WRITE(64, cells, i, word);
    }
}

#endif
