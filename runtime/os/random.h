/* Random bytes from the kernel. Safe: everywhere. Blocks: never. */
#ifndef MP_OS_RANDOM_H
#define MP_OS_RANDOM_H

#include <stddef.h>

/* Fills `size` (<= 256) bytes; 0 or -errno. */
int mp_random_bytes(void *bytes, size_t size);

#endif
