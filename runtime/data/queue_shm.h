/* What lies in a queue's segments, for the files of this folder only.

   A segment is a run of the heap: a head with the next one's ref, then
   records of 16-byte steps. A record never wraps: where one does not fit, a
   LINK stands (or the segment is just full), and the next segment begins.

   Nothing behind the valid place of the producers' end exists for anybody:
   records, LINK and `next` are written there first, and become true by the
   commit. If the writer dies before it, the next one writes over them. */
#ifndef MP_DATA_QUEUE_SHM_H
#define MP_DATA_QUEUE_SHM_H

#include "data/queue.h"

typedef struct segment_shm {
    uint64_t next;
    uint64_t padding[7];
} segment_shm;

typedef struct record_shm {
    uint32_t length;
    uint8_t kind, tag, last, padding;
    uint64_t value; /* or the first bytes */
} record_shm;

enum {
    LINK = 255, /* kind: go on in the next segment */
    SEGMENT = (int)MP_UNIT,
    START = sizeof(segment_shm),
    BYTES = offsetof(record_shm, value),
    STEP = sizeof(record_shm)
};
_Static_assert(sizeof(mp_queue_shm) == 6 * 128, "a group per two lines");
_Static_assert(offsetof(mp_queue_shm, put_lock) == 128, "producers");
_Static_assert(offsetof(mp_queue_shm, puts) == 256, "count of puts");
_Static_assert(offsetof(mp_queue_shm, get_lock) == 384, "consumers");
_Static_assert(offsetof(mp_queue_shm, gets) == 512, "count of gets");
_Static_assert(offsetof(mp_queue_shm, dones) == 640, "count of dones");
_Static_assert(sizeof(mp_queue_place_shm) == 16, "a place");
_Static_assert(sizeof(segment_shm) == 64, "a segment's head");
_Static_assert(sizeof(record_shm) == 16, "a word's record");
_Static_assert((int)MP_QUEUE_INLINE < SEGMENT - START - BYTES,
               "every inline item fits into a segment");

#define COUNT(word) ((word) >> 1)
#define VALID(word) ((word) & 1)
#define NEXT(word, n) ((COUNT(word) + (n)) << 1 | !VALID(word))

static inline uint64_t record_size(uint8_t kind, uint32_t length) {
    return kind == MP_QUEUE_BYTES
               ? (BYTES + (uint64_t)length + STEP - 1) & ~(uint64_t)(STEP - 1)
               : STEP;
}

/* The type's check (mem/check.h). */
struct mp_check;
void mp_queue_check(struct mp_check *c, const void *object);

#endif
