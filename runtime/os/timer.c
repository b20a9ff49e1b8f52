#include "os/timer.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/deadline.h"

/* musl names it, glibc does not. */
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* A tick that is longer is no use. */
enum { LONGEST_TICK_NS = 4000000 };

int mp_timer_make(mp_timer *timer, int signal) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID,
                             .sigev_signo = signal};
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    timer->made = timer_create(CLOCK_MONOTONIC, &event, &timer->id) == 0;
    return timer->made ? 0 : -errno;
}

void mp_timer_set(mp_timer *timer, uint64_t ns) {
    if (ns == 0) ns = 1; /* 0 would be never */
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(ns / 1000000000),
                     .tv_nsec = (long)(ns % 1000000000)}};
    timer_settime(timer->id, TIMER_ABSTIME, &when, NULL);
}

void mp_timer_close(mp_timer *timer) {
    if (timer->made) timer_delete(timer->id);
    timer->made = false;
}

/* The tick in ns, UINT64_MAX where it is too long; asked once. */
static uint64_t tick(void) {
    static _Atomic uint64_t known;
    uint64_t ns = atomic_load_explicit(&known, memory_order_relaxed);
    struct timespec t;
    if (ns) return ns;
    ns = UINT64_MAX;
    if (clock_getres(CLOCK_MONOTONIC_COARSE, &t) == 0 && t.tv_sec == 0 &&
        t.tv_nsec <= LONGEST_TICK_NS)
        ns = (uint64_t)t.tv_nsec;
    atomic_store_explicit(&known, ns, memory_order_relaxed);
    return ns;
}

uint64_t mp_coarse_ns(void) {
    struct timespec t;
    uint64_t error = tick();
    if (error == UINT64_MAX) return (uint64_t)mp_now_ns();
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec + error;
}
