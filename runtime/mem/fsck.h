/* mp_fsck: checks every invariant of an arena.

   It looks at the super block, the unit table, each block's state, each slot
   (record, hands, ledger, list of the dying), the object table, and each
   object by its type's `check` (mem/check.h). From these it knows who refers
   to what: each published block is referred to by exactly one thing, each
   object has as many holders as it counts.

   A finding is one line of text: the structure, its place, what was found,
   what was expected: «object 5 (Queue): 3 items done, but 2 put».
   It writes nothing into the arena and takes no lock. Nothing in the arena
   is trusted: every place is checked against its bounds, every chain ends,
   so it returns, whatever it is given to read.
   What was never used is not walked: a small arena takes some 10 us.

   MP_FSCK_QUIET  nobody else runs, or is about to: everything is exact. Dead
                  participants that are not reaped, records, hands and locks
                  in use are findings.
   MP_FSCK_LIVE   others run. What stands under an internal lock that somebody
                  alive holds is not judged; what a record is about to store
                  counts as stored. It looks again and again, some
                  milliseconds apart, and what is not there in each look, to
                  the letter, is no finding; so it says «clean» at once, and
                  a finding after about 50 ms.

   Returns the number of findings; -ENOMEM; -EBADMSG: no arena at all.
   Safe: threads, processes. Blocks: QUIET never. */
#ifndef MP_MEM_FSCK_H
#define MP_MEM_FSCK_H

#include "mem/arena.h"
#include "os/memfd.h"

enum { MP_FSCK_QUIET, MP_FSCK_LIVE };

/* Gets each finding; the text lives for the call. May be NULL. */
typedef void mp_fsck_report(void *ctx, const char *finding);

/* The arena of the calling participant. */
int mp_fsck(int strength, mp_fsck_report *report, void *ctx);

/* Another family's arena (mp_memfd_look with MP_ARENA_MAGIC). What has been
   seen of it goes to *seen, unless that is NULL. The types of its objects
   must have been declared here, too. */
typedef struct mp_fsck_seen {
    uint32_t participants, objects;
    uint64_t bytes; /* in blocks that are not free */
} mp_fsck_seen;

int mp_fsck_other(const mp_memfd_view *arena, int strength,
                  mp_fsck_report *report, void *ctx, mp_fsck_seen *seen);

#endif
