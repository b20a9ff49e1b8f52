/* Threads of this process. Safe: everywhere. Blocks: never. */
#ifndef MP_OS_THREADS_H
#define MP_OS_THREADS_H

#include <stdbool.h>
#include <stdint.h>

/* How many this process has; those of a host too. Without a system call where
   libc knows that there is one. Where nothing tells, 2: several. */
unsigned mp_threads_count(void);

/* Is the calling thread the one that the process began with? */
bool mp_threads_is_main(void);

/* The kernel's number of the calling thread, and a signal to such a thread of
   this process; to 0, or to one that ended: nothing. */
uint32_t mp_threads_number(void);
void mp_threads_signal(uint32_t thread, int signal);

#endif
