/* From addresses to numbers: what has this message already seen?

   An entry's number is the order in which it was added, from 0.  Up to
   PACK_MEMO_LINEAR entries are searched in line, so small messages never
   build a hash.  The hash keeps neighbours in memory neighbours in the
   table: objects are mostly met in the order of their allocation, and the
   misses of a scattering hash cost more than its probes save.
   Entries can be cut off from the end only.
   Owns: its arrays; freed by pack_memo_free. */
#ifndef MP_BIND_PACK_MEMO_H
#define MP_BIND_PACK_MEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACK_MEMO_LINEAR 8
#define PACK_MEMO_NONE SIZE_MAX

typedef struct pack_entry {
    uintptr_t key;
    uint64_t info;   /* of the memo's user */
} pack_entry;

typedef struct pack_memo {
    pack_entry *entries;
    size_t count, cap;
    uint32_t *slots;   /* entry number + 1, 0 = free; linear probing */
    size_t nslots;     /* in use now, a power of two; 0: search in line */
    size_t slots_cap;
} pack_memo;

/* The number of `key`, or PACK_MEMO_NONE. */
size_t pack_memo_find(const pack_memo *m, uintptr_t key);

/* Adds `key`; false when there is no memory. Of two entries with the same
   key either may be found. */
bool pack_memo_add(pack_memo *m, uintptr_t key, uint64_t info);

/* Forgets all entries from number `count` on. */
void pack_memo_cut(pack_memo *m, size_t count);

/* Forgets everything, and gives back what is larger than `keep` bytes. */
void pack_memo_reset(pack_memo *m, size_t keep);

void pack_memo_free(pack_memo *m);

#endif
