/* Shared objects: things that live as long as somebody holds them, named by
   a handle {id, generation} that fits into any message.

   Invariant: an entry's `refs` is the number of its holders: participants
   (a bit in their ledger), messages that carry its handle, and other
   objects. Each change of a holder and of `refs` is one record (mem/txn.h),
   so a death loses or doubles none. At 0 the object is destroyed, once.

   A participant counts its own uses privately; only the first and the last
   touch shared memory. Handles that are not counted (in a plain string) are
   weak: attaching them succeeds while the object exists.
   Safe: threads, processes. Blocks: never, but for internal locks. */
#ifndef MP_MEM_OBJECT_H
#define MP_MEM_OBJECT_H

#include "mem/arena.h"

enum {
    MP_TYPE_LOCK = 1,
    MP_TYPE_RLOCK,
    MP_TYPE_SEMAPHORE,
    MP_TYPE_CONDITION,
    MP_TYPE_EVENT,
    MP_TYPE_BARRIER,
    MP_TYPE_VALUE,
    MP_TYPE_ARRAY,
    MP_TYPE_QUEUE,
    MP_TYPE_POOL,
    MP_TYPE_BOOT,
    MP_TYPE_PARCEL,
    MP_TYPE_TABLE,
    MP_TYPE_SEGMENT,
    MP_TYPE_REGISTRY,
    MP_TYPES
};

struct mp_check;

/* What upper floors know about a type. The callbacks get the object's block.
   destroy and on_death may be called again after a death in the middle and
   must then finish the work. They never run under an internal lock.
   destroy   frees what the block refers to (not the block); NULL: nothing.
   on_dying  the same, called for all its objects before any on_death: what
             depends on another object that still is as the dead one left it.
   on_death  a participant that held the object died; NULL: nothing.
   check     says what is wrong with it, and which blocks and objects it
             refers to (mem/check.h); NULL: all is well, and none. */
typedef struct mp_object_ops {
    const char *name;
    void (*destroy)(void *object);
    void (*on_dying)(void *object, uint32_t dead_tag);
    void (*on_death)(void *object, uint32_t dead_tag);
    void (*check)(struct mp_check *c, const void *object);
} mp_object_ops;

/* Declares a type; called by each noun's open function, any number of times
   with the same argument, before the first object of the type exists. */
void mp_object_declare(int type, const mp_object_ops *ops);

/* Turns `block`, OWNED by me, into an object with one holder: me.
   0; -ENOMEM (the block is still mine). */
int mp_object_create(int type, mp_ref block, uint32_t *id, uint32_t *gen);

/* Counts one more use by me. 0; -ENOENT when {id, gen} no longer exists. */
int mp_object_attach(uint32_t id, uint32_t gen);

/* Counts one use less; the last one of the last holder destroys it. */
void mp_object_detach(uint32_t id);

/* Is there an object {id, gen} that somebody holds? It may be gone, or dying,
   as soon as this is said. */
bool mp_object_is_alive(uint32_t id, uint32_t gen);

/* The block and type of an object that I hold. */
void *mp_object_block(uint32_t id);
int mp_object_type(uint32_t id);
size_t mp_object_size(uint32_t id); /* of the block */
uint32_t mp_object_gen(uint32_t id);

/* How many hold an object that I hold: participants (the dead ones that are
   not reaped yet, too), messages, other objects. */
uint64_t mp_object_refs(uint32_t id);

/* An object that holds another: `where` (32 bits, in the holder's block,
   written by its holder only) changes from 0 to id, resp. from id to 0,
   together with the count. */
int mp_object_hold(uint32_t id, uint32_t gen, _Atomic uint32_t *where);
void mp_object_unhold(_Atomic uint32_t *where);

/* Messages that carry handles. A message block begins with this head; the
   handles stand at `handles_at`. The block is OWNED by the caller while
   handles are added (each is a use by the message, counted at once).
   n_handles   how many of them are counted; reaper and freer count down.
   length      of the payload, which follows the head */
typedef struct mp_message_shm {
    uint64_t length;
    uint32_t handles_at;
    _Atomic uint32_t n_handles;
} mp_message_shm;

/* Adds {id, gen}, which I hold or not, as the next handle. 0; -ENOENT. The
   block must be marked by mp_mark_handles before the first. */
int mp_message_hold(mp_ref block, uint32_t id, uint32_t gen);

/* Is one of the handles of a block that is ours that of an object of this
   type? */
bool mp_message_holds(mp_ref block, int type);

/* Drops all handles of a block (mp_free calls it). */
void mp_message_drop(mp_ref block);

/* Child after fork: takes over the parent's private counts (the ledger was
   copied by the parent, mp_object_copy_ledger). */
int mp_object_copy_ledger(uint32_t child_index);

/* For the reaper: drops what a dead participant's ledger holds, and finishes
   its destructions; then with `call_death` false only frees a ledger that
   was never claimed. */
void mp_object_reap(uint32_t index, uint32_t tag, bool call_death);

/* Objects that exist; walks the table (for specs). */
uint32_t mp_object_count(void);

#endif
