/* Descriptors that lie with the kernel, where every process of a family finds
   them: in the queue of a pair of connected sockets that all have inherited.
   What lies there is open, whoever has put it there and ended.

   An entry is a key and a descriptor. Who takes a descriptor gets one of his
   own, and the entry stays; who drops the entry closes what lies there.
   Invariant: no entry is taken off the queue before it stands there a second
   time, but by who drops it. So a process that is killed in the middle of a
   call loses none, and leaves at most one of them there twice.

   The other direction of the pair carries no data: it is the bell, by which
   whoever waits in poll is told that some memory has changed (sync/bell.h).

   Safe: threads, processes, one at a time for each of the functions with a
   key (the caller holds a lock); ringing is safe at any time. A fork of this
   process waits while an entry moves, so that the child has no copy of it.
   Blocks: never. Returns: 0 or -errno.
   Source: unix(7), SCM_RIGHTS; socket(7), SO_PEEK_OFF. */
#ifndef MP_OS_SHELF_H
#define MP_OS_SHELF_H

#include <stdbool.h>
#include <stdint.h>

/* Makes the two ends; closed on exec, not standard ones. */
int mp_shelf_open(int ends[2]);

/* The numbers of their files, and whether two descriptors are they. */
int mp_shelf_files(const int ends[2], uint64_t files[2]);
bool mp_shelf_is(const int ends[2], const uint64_t files[2]);

/* Lays a copy of `fd` down. -ENOSPC there is no more room; -ETOOMANYREFS this
   user has too many descriptors under way; -EBADF no descriptor. */
int mp_shelf_put(const int ends[2], uint64_t key, int fd);

/* A new descriptor of what lies there, closed on exec, not a standard one.
   -ENOENT; -EMFILE this process has no room for it. */
int mp_shelf_take(const int ends[2], uint64_t key);

/* Takes the entry off. -ENOENT; -EAGAIN more than `most` stand before it;
   -EMFILE, -ENOSPC, -ETOOMANYREFS: these cannot be moved now. */
int mp_shelf_drop(const int ends[2], uint64_t key, int most);

/* Walks all entries once: those for which `keep` says no, and what stands
   there twice, is dropped; the others get into the same order again. 0, or
   as for mp_shelf_drop: then the walk ends early. */
int mp_shelf_tidy(const int ends[2], bool (*keep)(uint64_t key));

/* How many entries there are. */
int mp_shelf_count(const int ends[2]);

/* Wakes all who wait at the bell. */
void mp_shelf_ring(const int ends[2]);

/* A descriptor that is readable once somebody has rung since, and then until
   mp_shelf_heard. Owns: the caller, who closes it. -errno: it is refused. */
int mp_shelf_listen(const int ends[2]);
void mp_shelf_heard(int listener);

#endif
