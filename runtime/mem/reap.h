/* Repair after a death. Whoever notices may call; nobody is appointed.

   Order: the redo record is replayed, blocks in hands and owned blocks are
   freed, each object it held is told and dropped, reserved slots for
   children that were never born are given back; the slot's new generation
   comes last and makes every lock word with its tag a dead letter. Each step
   may be done again, so a reaper may die, too.
   Called without any internal lock held. Safe: threads, processes. */
#ifndef MP_MEM_REAP_H
#define MP_MEM_REAP_H

#include "mem/arena.h"

/* Reaps the participant `tag` if it is dead. Idempotent. */
void mp_reap(uint32_t tag);

/* Looks at every slot and reaps the dead. A few ns per slot in use. */
void mp_reap_sweep(void);

/* Gives back the slot that was reserved for `tag` and not claimed. `gone`:
   there is no child any more (the fork failed, or it was waited for); else
   only if it has not begun to claim. No-op in any other state. */
void mp_reap_reserved(uint32_t tag, bool gone);

#endif
