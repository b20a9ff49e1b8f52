/* Segments: named shared memory (os/shm.h) that goes when nobody of the
   family that made it holds it any more.

   A segment is an object like others: processes, messages and other objects
   hold it. Its destruction takes its name out of /dev/shm, so a name goes
   with its last holder, however that one ends. For a family of which every
   process is killed at once there is its registry (os/registry.h): it names
   its segments, and its lock lies on the family's shelf (data/parcel.h), so
   that the kernel holds it as long as a process of the family lives. The
   next start of the same user finds it without a lock, and takes away what
   it names.

   Invariant: a segment holds the registry while its name may exist, and is
   entered there before it has its name. Who takes the name away, and only
   he, strikes it out; or else its destruction does.
   A process that is not of the family never takes a name away by itself:
   what it opens it does not count.
   Safe: threads, processes; child after fork. Blocks: never. */
#ifndef MP_DATA_SEGMENT_H
#define MP_DATA_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "mem/object.h"
#include "os/registry.h"
#include "os/shm.h"

/* An MP_TYPE_SEGMENT. Fixed when it is made, but for `registry`.
   dev, ino  the file
   registry  the object that it holds while its name may exist; 0: it was
             taken away. By who makes it; then by the one whose unlink took
             the name away; at last by its destruction
   name      in /dev/shm
   After a death it is destroyed as any object: what `registry` tells is
   undone, each step of which may have been done before. */
typedef struct mp_segment_shm {
    uint64_t dev, ino;
    _Atomic uint32_t registry;
    uint32_t pad;
    char name[MP_SHM_NAME];
} mp_segment_shm;
_Static_assert(sizeof(mp_segment_shm) == 24 + MP_SHM_NAME, "shared");
_Static_assert(offsetof(mp_segment_shm, registry) == 16, "aligned");

/* An MP_TYPE_REGISTRY: a directory, which goes with it. Fixed when it is
   made.
   parcel  the object that it holds: the descriptor with the lock; 0: not yet
   id      as os/registry.h has it; it stands there before the directory is
           made. So after a death its destruction takes away what there is */
typedef struct mp_registry_shm {
    _Atomic uint32_t parcel;
    uint32_t pad;
    char id[MP_REGISTRY_ID];
} mp_registry_shm;
_Static_assert(sizeof(mp_registry_shm) == 8 + MP_REGISTRY_ID, "shared");

/* A file that is open here; with id not 0 a segment of which the caller has
   one use. */
typedef struct mp_segment {
    int fd;
    mp_shm_file file;
    uint32_t id, gen;
} mp_segment;

/* Declares the two types. */
void mp_segment_open(void);

/* Makes a segment of `size` zeros. 0; -EEXIST; what mp_shm_make returns;
   -ENOMEM; what mp_parcel_create returns. */
int mp_segment_create(const char *name, uint64_t size, mp_segment *made);

/* Opens the file of this name; counts a use if it is a segment of the
   family, else id is 0. 0; what mp_shm_open returns; -ENOMEM. */
int mp_segment_attach(const char *name, mp_segment *found);

/* Opens the file of a segment that the caller holds; id and gen are left.
   -ENOENT: its name was taken away. */
int mp_segment_again(uint32_t id, mp_segment *found);

/* Takes away the name of a segment that the caller holds. -ENOENT. */
int mp_segment_unlink(uint32_t id);

/* Has nobody of the family taken the name away yet? */
bool mp_segment_is_named(uint32_t id);

/* At the end of a process: takes away what the family leaves, if all others of
   it end with this process. */
void mp_segment_end(void);

/* Takes away what families of this user have left of which every process
   was killed. */
void mp_segment_sweep(void);

#endif
