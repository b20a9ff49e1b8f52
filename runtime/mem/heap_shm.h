/* The heap's layout in the arena, for the files of this folder only.

   The arena behind its tables is cut into units of 64 KiB. The unit table
   has one 64-bit entry per unit; only the first unit of a run has a valid
   one (and each unit of a span, so that a block finds its head):

     bits  0-2   kind      FREE run | SPAN head | CONT of a span | RUN owned
                           | RUN published
     bit   3     backed    has pages
     bit   4     handles   (RUN) the block is a message with handles
     bits  5-10  class     (SPAN)
     bits 11-22  owner     slot (SPAN; RUN owned); 0 = abandoned span
     bits 23-38  gen       (RUN) of the block
     bits 39-63  n         units of the run; CONT: units back to the head

   A span is a run with blocks of one size: a head of one line, a line with
   the counter of frees (written by everybody), the state words, the blocks.
   A state word: kind 2 | handles 1 | 0 | slot 12 | gen 16.

   Who writes a span's blocks' states: FREE -> OWNED its owner only, the rest
   the block's owner. Unit entries change under super->heap by records. */
#ifndef MP_MEM_HEAP_SHM_H
#define MP_MEM_HEAP_SHM_H

#include "mem/arena.h"

enum { K_FREE, K_SPAN, K_CONT, K_OWNED, K_PUBLISHED };
enum { S_FREE, S_OWNED, S_PUBLISHED };

#define STATE(kind, handles, slot, gen)                                     \
    ((uint32_t)(kind) | (uint32_t)(handles) << 2 | (uint32_t)(slot) << 4 |  \
     (uint32_t)(gen) << 16)
#define STATE_KIND(s) ((s) & 3U)
#define STATE_HANDLES (1U << 2)
#define STATE_SLOT(s) ((s) >> 4 & 0xfffU)
#define STATE_GEN(s) ((s) >> 16)

#define ENTRY(kind, n)                                                      \
    ((uint64_t)(kind) | (uint64_t)(n) << 39)
#define E_KIND(e) ((unsigned)((e) & 7U))
#define E_BACKED ((uint64_t)8)
#define E_HANDLES ((uint64_t)16)
#define E_CLASS(e) ((unsigned)((e) >> 5 & 0x3fU))
#define E_OWNER(e) ((uint32_t)((e) >> 11 & 0xfffU))
#define E_GEN(e) ((uint32_t)((e) >> 23 & 0xffffU))
#define E_N(e) ((e) >> 39)
#define E_WITH_OWNER(slot) ((uint64_t)(slot) << 11)
#define E_WITH_CLASS(c) ((uint64_t)(c) << 5)
#define E_WITH_GEN(g) ((uint64_t)((g) & 0xffffU) << 23)

/* allocs: blocks handed out, by the owner; frees: blocks given back, by all.
   Both only hints: the state words are the truth. */
typedef struct span_shm {
    uint32_t size, blocks;
    uint32_t data; /* bytes from the head to the first block */
    uint32_t inverse; /* 2^32 / size, rounded up: divides offsets */
    _Atomic uint32_t allocs;
    uint32_t pad[11];
    _Atomic uint32_t frees;
    uint32_t pad2[15];
    _Atomic uint32_t state[];
} span_shm;
_Static_assert(sizeof(span_shm) == 128, "two lines");
_Static_assert(offsetof(span_shm, state) == 128, "two lines before states");

/* Classes: sizes in steps of at most 25 %, and the units of a span. */
#define CLASS_LIST(X)                                                       \
    X(64, 1) X(128, 1) X(192, 1) X(256, 1) X(320, 1) X(384, 1) X(448, 1)    \
    X(512, 1) X(640, 1) X(768, 1) X(896, 1) X(1024, 1) X(1280, 1)           \
    X(1536, 1) X(1792, 1) X(2048, 1) X(2560, 1) X(3072, 1) X(4096, 1)       \
    X(5120, 1) X(6400, 1) X(8064, 1)                                        \
    X(10240, 4) X(12288, 4) X(16256, 4) X(21760, 4) X(32640, 4)

#define CLASS_SIZE(size, units) size,
static const uint16_t class_size[] = {CLASS_LIST(CLASS_SIZE)};
enum { CLASSES = sizeof class_size / sizeof class_size[0] };
_Static_assert((int)CLASSES <= (int)MP_HEAP_CLASSES, "self has the lists");

/* What a span of a class looks like. The shape is known by the class in the
   unit's entry, so that nobody reads it out of memory that may be no span
   any more: the memory behind a stale ref is anybody's.
   data     bytes from the head to the first block
   inverse  2^32 / size, rounded up: divides offsets
   Aligned so that each free finds its row by a shift. */
typedef struct span_shape {
    _Alignas(32) uint32_t units;
    uint32_t size, blocks, data, inverse;
} span_shape;

#define SPAN_DATA(size, units)                                              \
    ((uint32_t)(sizeof(span_shm) + 63 +                                     \
                (units * MP_UNIT - sizeof(span_shm)) / (size + 4) * 4) &    \
     ~63U)
#define SPAN_SHAPE(size, units)                                             \
    {units, size, ((uint32_t)(units * MP_UNIT) - SPAN_DATA(size, units)) /  \
                      size,                                                 \
     SPAN_DATA(size, units),                                                \
     (uint32_t)((((uint64_t)1 << 32) + size - 1) / size)},

/* As long as the entry's field is wide; what is no class has no blocks. */
static const span_shape span_shapes[64] = {CLASS_LIST(SPAN_SHAPE)};

static inline span_shape shape_of(unsigned c) {
    return span_shapes[c];
}

#endif
