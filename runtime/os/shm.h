/* Named shared memory for processes that have nothing in common but a name:
   regular files in /dev/shm, as shm_open makes them.

   Invariant: a file comes into being without a name, whole and of its size,
   and gets its name by one system call; what a name stands for is told by
   its inode number, never by the name alone. Bytes are read and written by
   system calls: they say so when a stranger has cut the file short, where a
   mapping would end the process by SIGBUS.

   A name is at most MP_SHM_NAME - 1 bytes, with no '/' in it (leading ones
   are left out by mp_shm_name).
   Safe: threads, processes, child after fork. Blocks: never.
   Returns: 0 or -errno. */
#ifndef MP_OS_SHM_H
#define MP_OS_SHM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MP_SHM_DIRECTORY "/dev/shm"
enum { MP_SHM_NAME = 256 };

/* What identifies a file, and its size. */
typedef struct mp_shm_file {
    uint64_t dev, ino, size;
} mp_shm_file;

/* Copies a name as its users write it. -EINVAL: none, "." or "..", or with a
   '/' or a zero byte inside; -ENAMETOOLONG. */
int mp_shm_name(const char *given, size_t length, char name[MP_SHM_NAME]);

/* A new file of `size` zeros (mode 0600) that has no name yet.
   -ENOSPC: more than /dev/shm ever holds; -EFBIG: than RLIMIT_FSIZE allows. */
int mp_shm_make(uint64_t size, int *fd, mp_shm_file *file);

/* Gives it its name. -EEXIST. */
int mp_shm_link(int fd, const char *name);

/* The file of this name. -ENOENT, -EACCES; -EINVAL: it is no regular file;
   -EFBIG as above. */
int mp_shm_open(const char *name, int *fd, mp_shm_file *file);

/* Takes the name away if it is this file's: of several who do it at a time
   one has 0. -ENOENT: the name is gone, or another file's. */
int mp_shm_unlink(const char *name, uint64_t dev, uint64_t ino);

/* Bytes at `offset`. How many there are, less than n only where the file
   ends; -ENOSPC: /dev/shm is full. */
ssize_t mp_shm_read(int fd, uint64_t offset, void *bytes, size_t n);
ssize_t mp_shm_write(int fd, uint64_t offset, const void *bytes, size_t n);

/* Maps the file, with memory behind each page: -ENOSPC. */
int mp_shm_map(int fd, uint64_t size, void **base);
void mp_shm_unmap(void *base, uint64_t size);

#endif
