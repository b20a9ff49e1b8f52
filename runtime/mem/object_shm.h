/* The object table's layout, for the files of this folder only.

   An entry is one line; entries are never given back, so a handle can always
   be looked at.

     head   state 2 | type 8 << 8 | gen << 32
     refs   holders
     block  the object's block (PUBLISHED)
     link   next free entry, or next in a participant's list of the dying
   head, refs and link change by records under `lock`; the free list under
   super->table. */
#ifndef MP_MEM_OBJECT_SHM_H
#define MP_MEM_OBJECT_SHM_H

#include "mem/arena.h"
#include "mem/object.h"

typedef struct entry_shm {
    mp_mutex_shm lock;
    uint32_t pad;
    _Atomic uint64_t head, refs, block, link;
    uint64_t pad2[3];
} entry_shm;
_Static_assert(sizeof(entry_shm) == 64, "an entry is a line");
_Static_assert(sizeof(mp_message_shm) == 16, "a message's head");

enum { FREE, LIVE, DYING };
enum {
    PER_SEGMENT = 1024,
    PER_PAGE = 32768,
    MOST = MP_SEGMENTS * PER_SEGMENT
};
_Static_assert(MOST == MP_LEDGER_PAGES * PER_PAGE, "ledger covers the table");

#define HEAD(state, type, gen)                                              \
    ((uint64_t)(state) | (uint64_t)(type) << 8 | (uint64_t)(gen) << 32)
#define HEAD_STATE(h) ((unsigned)((h) & 3))
#define HEAD_TYPE(h) ((int)((h) >> 8 & 0xff))
#define HEAD_GEN(h) ((uint32_t)((h) >> 32))

/* What was declared for `type`, or NULL. */
const mp_object_ops *mp_object_ops_of(int type);

#endif
