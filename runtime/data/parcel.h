/* Parcels: descriptors that go where shared objects go: into queues, jobs,
   results, containers, boot messages.

   A parcel is a counted object (mem/object.h); its descriptor lies on the
   family's shelf (os/shelf.h) under the parcel's own handle as the key. Who
   unpacks it gets a descriptor of his own; the parcel goes, and what lies
   there is closed, with its last holder, whichever way that ends.

   Invariant: while no entry moves, each parcel that is made has one entry
   on the shelf, and each entry a parcel. A parcel whose maker was killed in
   mp_parcel_create has an entry or none; its destruction looks. What a death
   leaves besides (an entry that stands there twice), or a process that had
   no number free (an entry without a parcel), is taken off by the next call
   of anybody that changes the shelf.

   Safe: threads, processes; child after mp_start_fork. Blocks: never, but for
   the shelf's internal lock. */
#ifndef MP_DATA_PARCEL_H
#define MP_DATA_PARCEL_H

#include <stdint.h>

/* The object's block.
   key    {gen, id} of the parcel, or 0 while it is being made. Its maker, by
          one store before the entry is put on the shelf: so its destruction
          knows what there can be to drop */
typedef struct mp_parcel_shm {
    _Atomic uint64_t key;
} mp_parcel_shm;
_Static_assert(sizeof(mp_parcel_shm) == 8, "one word");

/* Declares the type; any number of times. */
void mp_parcel_open(void);

/* A parcel of a copy of `fd`, held by the caller. 0; -ENOMEM; -EMFILE too
   many hands in use; -EBADF no descriptor; -ENOSPC the shelf is full;
   -ETOOMANYREFS as os/shelf.h has it; -EOPNOTSUPP there is no shelf. */
int mp_parcel_create(int fd, uint32_t *id, uint32_t *gen);

/* A descriptor of what is in the parcel, which somebody holds: closed on
   exec, the caller's. -ENOENT; -EMFILE this process has no room for it;
   -EOPNOTSUPP. */
int mp_parcel_unpack(uint32_t id);

/* How many entries the shelf has; -errno. For specs: nobody else may use
   it. */
int mp_parcel_entries(void);

#endif
