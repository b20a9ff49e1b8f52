#include "base/deadline.h"

#include <time.h>

int64_t mp_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

mp_deadline mp_deadline_in(double seconds) {
    if (seconds <= 0) return MP_AT_ONCE;
    if (seconds > 9e9) return MP_FOREVER;
    return (mp_deadline){mp_now_ns() + (int64_t)(seconds * 1e9)};
}

int64_t mp_deadline_left_ns(mp_deadline deadline) {
    if (deadline.ns == INT64_MAX) return INT64_MAX;
    if (deadline.ns <= 0) return 0;
    int64_t left = deadline.ns - mp_now_ns();
    return left > 0 ? left : 0;
}

mp_deadline mp_deadline_slice(mp_deadline deadline, int64_t ns) {
    int64_t end = mp_now_ns() + ns;
    return end < deadline.ns ? (mp_deadline){end} : deadline;
}
