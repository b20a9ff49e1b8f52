/* The environment of this process, as bytes: for a process that began with
   another one.

   Invariant: packed, it is the strings NAME=VALUE, each with its end.
   Safe: as getenv(3) is: not while another thread changes it. Blocks:
   never. */
#ifndef MP_OS_ENVIRONMENT_H
#define MP_OS_ENVIRONMENT_H

#include <stddef.h>
#include <stdint.h>

/* What tells whether it has changed. */
uint64_t mp_environment_hash(void);

/* Bytes that it takes. */
size_t mp_environment_size(void);

/* Packs as much of it as there is room for, whole strings only; returns how
   many bytes that are. */
size_t mp_environment_pack(char *out, size_t room);

/* Replaces it by a packed one; a string without its end is dropped. 0;
   -ENOMEM. */
int mp_environment_set(const char *packed, size_t size);

#endif
