/* What the check of an object's type (mp_object_ops.check) sees of the arena
   that mp_fsck walks (mem/fsck.h). The arena may be damaged, be another
   family's, mapped to be read only, and be in use by others meanwhile. So a
   check

   - goes from place to place by mp_check_block only, never by mp_at: it
     knows the bounds, and stops every cycle;
   - reads what others write by mp_check_u64 and mp_check_u32, once, and
     judges the value that it has read;
   - writes nothing, takes no lock, and calls nothing that does.

   Invariant: each published block is reached by exactly one
   mp_check_block; what nothing reaches is reported as lost.
   Safe: the thread that runs mp_fsck. Blocks: never. */
#ifndef MP_MEM_CHECK_H
#define MP_MEM_CHECK_H

#include "mem/arena.h"

typedef struct mp_check mp_check;

/* Reports a finding about the object that is checked: what was found, and
   what was expected. */
void mp_check_report(mp_check *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Nobody else runs: everything is exact. */
bool mp_check_quiet(const mp_check *c);

/* A word of the arena, as the records that are being applied make it. */
uint64_t mp_check_u64(const mp_check *c, const volatile void *word);
uint32_t mp_check_u32(const mp_check *c, const volatile void *word);

/* Where something that a check looks at stands. */
uint64_t mp_check_offset(const mp_check *c, const volatile void *p);

/* Is the block of the checked object at least `size` bytes? Else reports. */
bool mp_check_size(mp_check *c, uint64_t size);

/* The published block `ref` of at least `size` bytes, which belongs to the
   checked object as its `what`. NULL, and reported, when it is not that, or
   when something else had it already. */
const void *mp_check_block(mp_check *c, mp_ref ref, uint64_t size,
                           const char *what);

/* The same for a place that may be stale: a block that is gone, or not
   published, is nobody's finding. */
const void *mp_check_block_if(mp_check *c, mp_ref ref, uint64_t size,
                              const char *what);

/* A block that was reached before, of any generation; else as above. */
const void *mp_check_again(mp_check *c, mp_ref ref, uint64_t size,
                           const char *what);

/* Bytes of a block that is not free; 0: there is no such block. */
uint64_t mp_check_block_size(const mp_check *c, mp_ref ref);

/* The checked object holds object `id` (mp_object_hold). The offset of its
   block goes to *at, and the block's size to *size; false and reported when
   there is none. */
bool mp_check_hold(mp_check *c, uint32_t id, const char *what, uint64_t *at,
                   uint64_t *size);

/* An internal lock: it is free, or somebody alive has it, or a dead one whose
   record is replayed. While somebody has it who runs, what the check says
   from here on is not judged. */
void mp_check_mutex(mp_check *c, const mp_mutex_shm *mutex,
                    const char *what);

/* What a tag names. FALSE: no participant that ever was. GONE: one that is
   fully reaped. DEAD: not yet. */
enum { MP_TAG_FALSE, MP_TAG_GONE, MP_TAG_DEAD, MP_TAG_ALIVE };
int mp_check_tag(const mp_check *c, uint32_t tag);

/* Number of the checked object. */
uint32_t mp_check_id(const mp_check *c);

#endif
