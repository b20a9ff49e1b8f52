/* What the walks of mp_fsck share; for the files of this folder only. One
   mp_check is one look at the arena. */
#ifndef MP_MEM_FSCK_WALK_H
#define MP_MEM_FSCK_WALK_H

#include "mem/check.h"
#include "mem/fsck.h"

/* Findings of one look, each malloc'ed; `more` counts those beyond the
   most that are kept. */
typedef struct mp_findings {
    char **text;
    size_t n, cap, more;
} mp_findings;

/* A word that a committed record stores; `at` as in mp_txn_shm. */
typedef struct mp_stored {
    uint64_t at, value;
} mp_stored;

/* A growing list of numbers: what the check of one object has marked, so
   that it can be made again. */
typedef struct mp_marks {
    uint64_t *item;
    size_t n, cap;
} mp_marks;

/* base, limit     the bytes that can be read
   self            whose arena it is, NULL for another family's
   slots .. entries  what the tables hold; 0 until they are found sound
   published, reached  bitmaps: a bit per 64 bytes from first_unit on
   holders         by object: how many were met; queued: it stands in a list
   stored          words of open records
   subject         what the findings are about; id: the object
   block, block_size  of the object that is checked
   silent          what is found is under somebody's lock
   partial         something that is silent was found, or could not be
                   followed: what was not reached is no finding then */
struct mp_check {
    const unsigned char *base;
    uint64_t limit;
    const mp_super_shm *super;
    const mp_self *self;
    bool quiet, silent, partial, no_memory;
    uint32_t slots, entries, life_at;
    uint64_t first_unit, units;
    uint64_t *published, *reached;
    size_t words;
    uint32_t *holders;
    unsigned char *queued;
    mp_stored *stored;
    size_t n_stored, cap_stored;
    char subject[48];
    uint32_t id;
    uint64_t block_size;
    mp_marks marked, held;
    mp_findings findings;
    mp_fsck_seen seen;
};

/* Sets what the findings that follow are about. */
void mp_check_subject(mp_check *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* `size` bytes at `offset`, or NULL when they cannot be read. */
const void *mp_check_at(const mp_check *c, uint64_t offset, uint64_t size);

const mp_slot_shm *mp_check_slot(const mp_check *c, uint32_t index);

/* Appends; false (and c->no_memory) when there is no memory. */
bool mp_check_note(mp_check *c, mp_marks *list, uint64_t item);

/* One holder of object `id` more, which is a number from the arena. */
void mp_check_holder(mp_check *c, uint64_t id, const char *what);

/* ---- the walks, in this order --------------------------------------- */

/* super block; false: nothing behind it can be found. (slot_check.c) */
bool mp_check_super(mp_check *c);
void mp_check_records(mp_check *c);

/* Units, spans, block states, handles of messages. (heap_check.c) */
void mp_check_heap(mp_check *c);
void mp_check_slots(mp_check *c);
void mp_check_objects(mp_check *c); /* object_check.c */

/* What is in hands is reached, too; then what is not. */
void mp_check_hands(mp_check *c);
void mp_check_lost(mp_check *c);

/* A block that is not free: its size, whether it is published, its index in
   the bitmaps. */
typedef struct mp_found {
    uint64_t size, bit;
    uint32_t gen;
    bool published;
} mp_found;

/* Block `ref`; false: there is none, or a younger one. (heap_check.c) */
bool mp_check_find(const mp_check *c, mp_ref ref, mp_found *found);

#endif
