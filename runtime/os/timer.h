/* A thread's own alarm: a signal to just this thread at a given time; and
   clocks that are cheap to read.
   Safe: the thread that made it; set and the clocks: its signal handlers,
   too. Blocks: never. */
#ifndef MP_OS_TIMER_H
#define MP_OS_TIMER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

typedef struct mp_timer {
    timer_t id;
    bool made;
} mp_timer;

/* Sends `signal` to the calling thread, by mp_timer_set. 0; -errno. A forked
   child has none of its parent's. */
int mp_timer_make(mp_timer *timer, int signal);

/* Goes off once, at `ns` of CLOCK_MONOTONIC; a time that passed: at once. */
void mp_timer_set(mp_timer *timer, uint64_t ns);

/* Harmless twice. */
void mp_timer_close(mp_timer *timer);

/* Nanoseconds of CLOCK_MONOTONIC, to a tick of the kernel's where that is
   short: rather too late than too early, unless the tick is late. */
uint64_t mp_coarse_ns(void);

#endif
