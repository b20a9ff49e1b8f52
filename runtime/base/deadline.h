/* Deadlines: absolute points of the monotonic clock, in nanoseconds.

   Whatever can block takes one as its last in-argument, so a wait that is
   made of many short ones ends when the first said it would.
   Safe: threads, signal handler, child after fork. Blocks: never. */
#ifndef MP_BASE_DEADLINE_H
#define MP_BASE_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mp_deadline {
    int64_t ns; /* CLOCK_MONOTONIC; INT64_MAX = never */
} mp_deadline;

#define MP_FOREVER ((mp_deadline){INT64_MAX})
#define MP_AT_ONCE ((mp_deadline){0})

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t mp_now_ns(void);

/* The deadline `seconds` from now: <= 0 is at once, and what exceeds the
   clock's range is for ever. NaN is the caller's to refuse. */
mp_deadline mp_deadline_in(double seconds);

/* Nanoseconds left, 0 when passed, INT64_MAX for ever. */
int64_t mp_deadline_left_ns(mp_deadline deadline);

static inline bool mp_deadline_passed(mp_deadline deadline) {
    return deadline.ns != INT64_MAX && mp_deadline_left_ns(deadline) == 0;
}

/* The earlier of `deadline` and `ns` nanoseconds from now. */
mp_deadline mp_deadline_slice(mp_deadline deadline, int64_t ns);

#endif
