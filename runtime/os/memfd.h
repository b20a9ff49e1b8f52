/* One growable region of memory that a family of processes shares: an
   unnamed file, mapped once as a large reservation. It has no name, so
   nothing is left behind when the last process of the family is gone.

   Safe: threads, processes. Blocks: never (page allocation aside).
   Returns: 0 or -errno; -ENOMEM out of memory or address space, -EFBIG
   beyond RLIMIT_FSIZE (checked first: the kernel would kill). */
#ifndef MP_OS_MEMFD_H
#define MP_OS_MEMFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Creates the file and reserves as much address space as it gets, from
   `most` down to `least` bytes by factors of 4. Pages come with mp_memfd_back.
   The mapping is left out of core dumps beyond its first page. */
int mp_memfd_create(size_t most, size_t least, int *fd, unsigned char **base,
                    size_t *reserved);

/* Is `fd`, whatever it may be, such a file of at least `least` bytes, which
   nobody can shrink? Its size; -EBADF it is not. */
int mp_memfd_check(int fd, size_t least, size_t *size);

/* Maps `size` bytes of another process's region (as far as the file does not
   reach, they must not be touched). It is closed on exec from now on. */
int mp_memfd_map(int fd, size_t size, unsigned char **base);

/* Sets the file's size; it never shrinks. */
int mp_memfd_grow(int fd, size_t size);

/* The file's size. */
int mp_memfd_size(int fd, size_t *size);

/* Gives [offset, offset + size) real, zeroed memory, or fails with -ENOMEM:
   after it no touch of the range can raise SIGBUS. */
int mp_memfd_back(int fd, size_t offset, size_t size);

/* Gives the memory of the range back; it reads as zeros afterwards. */
int mp_memfd_punch(int fd, size_t offset, size_t size);

/* What a descriptor that somebody sent is. */
typedef struct mp_memfd_about {
    bool fixed;       /* a file of memory that nobody can shrink */
    size_t size;
    size_t backed;    /* bytes that it has memory for, in whole pages */
    uint64_t id[2];   /* one for each file, as long as it is there */
} mp_memfd_about;

int mp_memfd_ask(int fd, mp_memfd_about *about);

/* Another process's region, by its descriptors: the file with our name that
   begins with `magic`. It is mapped to be read, with room for its growth as
   far as there is address space.
   -ESRCH no such process, -EACCES not ours to look at, -ENOENT it has no
   such file. */
typedef struct mp_memfd_view {
    int fd;
    const unsigned char *base;
    size_t mapped;
} mp_memfd_view;

int mp_memfd_look(pid_t pid, uint64_t magic, mp_memfd_view *view);
void mp_memfd_look_away(mp_memfd_view *view);

#endif
