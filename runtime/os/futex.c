#include "os/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449 /* the same number on every architecture */
#endif

/* The kernel's struct futex_waitv; older headers lack it. */
struct waitv {
    uint64_t val;
    uint64_t uaddr;
    uint32_t flags;
    uint32_t reserved;
};
#define WAITV_32 2U /* FUTEX_32, shared */

enum { SLICE_NS = 5000000 }; /* of the fallback: how late a death is seen */

/* 0 unknown or usable, 1 refused (ENOSYS, or EPERM in older sandboxes). A
   cache of a fact about the kernel, not state: every thread that writes it
   writes the same. */
static _Atomic int waitv_refused;

void mp_futex_forbid_waitv(void) {
    atomic_store_explicit(&waitv_refused, 1, memory_order_relaxed);
}

static struct timespec *timespec_of(mp_deadline deadline,
                                    struct timespec *t) {
    if (deadline.ns == INT64_MAX) return NULL;
    int64_t ns = deadline.ns > 0 ? deadline.ns : 0;
    t->tv_sec = (time_t)(ns / 1000000000);
    t->tv_nsec = (long)(ns % 1000000000);
    return t;
}

int mp_futex_wait(_Atomic uint32_t *word, uint32_t expected,
                  mp_deadline deadline) {
    struct timespec t;
    /* WAIT_BITSET takes an absolute time, WAIT a relative one. */
    long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected,
                     timespec_of(deadline, &t), NULL,
                     FUTEX_BITSET_MATCH_ANY);
    return r == 0 ? 0 : -errno;
}

static int wait2_sliced(_Atomic uint32_t *word, uint32_t expected,
                        _Atomic uint32_t *other, uint32_t other_expected,
                        mp_deadline deadline) {
    for (;;) {
        if (atomic_load_explicit(other, memory_order_acquire) !=
            other_expected)
            return -EAGAIN;
        mp_deadline slice = mp_deadline_slice(deadline, SLICE_NS);
        int r = mp_futex_wait(word, expected, slice);
        if (r != -ETIMEDOUT || slice.ns == deadline.ns) return r;
    }
}

int mp_futex_wait2(_Atomic uint32_t *word, uint32_t expected,
                   _Atomic uint32_t *other, uint32_t other_expected,
                   mp_deadline deadline) {
    if (!atomic_load_explicit(&waitv_refused, memory_order_relaxed)) {
        struct waitv v[2] = {
            {expected, (uint64_t)(uintptr_t)word, WAITV_32, 0},
            {other_expected, (uint64_t)(uintptr_t)other, WAITV_32, 0}};
        struct timespec t;
        long r = syscall(SYS_futex_waitv, v, 2, 0,
                         timespec_of(deadline, &t), CLOCK_MONOTONIC);
        if (r >= 0) return 0;
        if (errno != ENOSYS && errno != EPERM) return -errno;
        mp_futex_forbid_waitv();
    }
    return wait2_sliced(word, expected, other, other_expected, deadline);
}

void mp_futex_wake(_Atomic uint32_t *word, int n) {
    syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
}
