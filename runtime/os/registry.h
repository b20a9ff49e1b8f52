/* Registries: who is to take away the names of files in /dev/shm when those
   who made them are all dead.

   A registry is a directory there, ".mplua-ID". For each file it has a link
   named after its inode number, which leads nowhere and says a few numbers
   and the file's name. It is alive as long as its lock is held (flock):
   that is, as long as any process has the descriptor that mp_registry_make
   opened, or it lies in a socket that any process has. The kernel lets go of
   it with the last of them, however they end, and never sooner.

   Invariant: the directory is there, locked, before the link, and the link
   before the file has its name; and each goes in the opposite order. So a
   death at any moment leaves nothing that mp_registry_sweep does not find,
   and what that finds dead is the user's own, and not in use: it takes a
   name away only if it stands for the inode that the link told.

   What others put there (users, programs, symbolic links) is not touched.
   Safe: threads, processes, child after fork. Blocks: never.
   Returns: 0 or -errno. */
#ifndef MP_OS_REGISTRY_H
#define MP_OS_REGISTRY_H

#include "os/shm.h"

enum { MP_REGISTRY_ID = 48 }; /* bytes of an ID with its zero, at most */

/* What a link says. */
typedef struct mp_registry_entry {
    uint32_t id, gen;
    char name[MP_SHM_NAME];
} mp_registry_entry;

/* Makes registry `id` and takes its lock. -EEXIST: that is in use, or a sweep
   took it away just now: another id is to be tried. */
int mp_registry_make(const char *id, int *fd);

/* Takes it away, if it is empty. */
int mp_registry_remove(const char *id);

/* Enters a file. */
int mp_registry_enter(const char *id, uint64_t ino,
                      const mp_registry_entry *entry);

/* What it says of a file. -ENOENT. */
int mp_registry_look(const char *id, uint64_t ino, mp_registry_entry *entry);

/* Strikes a file out; -ENOENT: it was not there. */
int mp_registry_strike(const char *id, uint64_t ino);

/* Takes away what the registries of this user name, and them, that nobody
   holds. With `prefix` not NULL instead those whose IDs begin so, held or
   not. What cannot be taken away is left for another time. */
void mp_registry_sweep(const char *prefix);

#endif
