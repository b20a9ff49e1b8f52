/* How much memory this process has for itself.
   Safe: threads; a child after fork. Blocks: never. */
#ifndef MP_OS_RESIDENT_H
#define MP_OS_RESIDENT_H

#include <stdint.h>

/* Bytes of its pages that lie in memory and that no file backs, those that it
   still shares with its parent included: what grows is its own. 0 where the
   kernel does not say. */
uint64_t mp_resident_bytes(void);

#endif
