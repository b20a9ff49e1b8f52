/* The heap of the arena: blocks that several processes pass around.

   Invariant: each block has one state word which is the truth: FREE, OWNED
   by a participant, or PUBLISHED (some shared structure owns it). Everything
   else (cursors, counters, lists) is a hint that may be wrong by a death and
   is corrected by looking at the state words. When a participant dies, what
   it OWNED becomes FREE.

   A block's ref carries its generation, so freeing it twice, or freeing what
   has a new owner, does nothing.
   Blocks are 64-byte aligned and not cleared.
   Safe: threads, processes; child after mp_start_fork. Blocks: never, but for
   the heap's internal lock and the kernel's page allocation.
   Source: spans as in mimalloc and DSA, states as in iceoryx2. */
#ifndef MP_MEM_HEAP_H
#define MP_MEM_HEAP_H

#include "mem/arena.h"

/* A block of at least `size` bytes, OWNED by the caller; 0 when there is no
   memory (or the reservation, or RLIMIT_FSIZE, is used up). */
mp_ref mp_alloc(size_t size);

/* OWNED by me -> PUBLISHED. The structure that is to own it is told next, by
   one store or a record; a hand (mem/slot.h) covers the time between. */
void mp_publish(mp_ref block);

/* PUBLISHED -> PUBLISHED with a list of handles in it (mem/message.h): freeing
   it drops them. May be called on an OWNED block too, and keeps it owned. */
void mp_mark_handles(mp_ref block);

/* Frees a block, whoever allocated it: handles in it are dropped first.
   Returns false when `block` is stale (freed before) or 0. */
bool mp_free(mp_ref block);

/* Bytes that `block` can hold. */
size_t mp_block_size(mp_ref block);

/* Bytes in blocks that are not free; walks the whole heap. */
uint64_t mp_heap_used(void);

/* Frees what dead participant `tag` OWNED and gives its spans to others.
   Idempotent; called by the reaper. */
void mp_heap_reap(uint32_t tag);

/* Forgets the parent's spans in a fresh self (child after fork). */
void mp_heap_forget(mp_self *self);

#endif
