/* Sleeping on words of shared memory, and waking the sleepers.

   Invariant: a sleep ends at its deadline at the latest, whatever becomes of
   the processes around it. Safe: threads, processes, child after fork.
   Source: futex(2), futex_waitv in the kernel's userspace-api docs. */
#ifndef MP_OS_FUTEX_H
#define MP_OS_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/deadline.h"

/* Sleeps while *word == expected. 0: woken (or by chance); -EAGAIN: the word
   differed; -ETIMEDOUT; -EINTR: a signal handler ran. */
int mp_futex_wait(_Atomic uint32_t *word, uint32_t expected,
                  mp_deadline deadline);

/* The same on two words at once: a change of either ends it. Where the
   kernel has no futex_waitv, or a sandbox refuses it, sleeps on the first in
   slices of a few milliseconds and looks at the second between them. */
int mp_futex_wait2(_Atomic uint32_t *word, uint32_t expected,
                   _Atomic uint32_t *other, uint32_t other_expected,
                   mp_deadline deadline);

/* Wakes up to n sleepers of either kind. */
void mp_futex_wake(_Atomic uint32_t *word, int n);

/* Makes mp_futex_wait2 use its fallback from now on (for specs). */
void mp_futex_forbid_waitv(void);

/* A hint to the CPU that this is a spin. */
static inline void mp_cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield");
#endif
}

#endif
