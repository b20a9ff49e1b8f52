/* How a victim is brought to a point and ended there: what step.c and
   access.c have in common, for crash.c. */
#ifndef MP_SPEC_CRASH_DRIVER_H
#define MP_SPEC_CRASH_DRIVER_H

#include <stddef.h>

#include "crash.h"
#include "proc/proc.h"

/* Does this driver work here? Why not, else NULL. */
const char *crash_driver_missing(void);

/* Forks a victim that runs the region and ends; it stands before the
   region's first instruction. */
mp_proc crash_fork_victim(const crash_region *region);

/* In the victim, around the region. */
void crash_enter(void);
void crash_leave(void);

/* Lets a new victim run through the region and notes the points. False: it
   sleeps for ever, and was killed. It is not waited for. */
bool crash_survey(const crash_region *region, mp_proc *victim);

/* How many points there are; *all: how many there would be without
   sampling. */
uint64_t crash_points(uint64_t *all);

/* Lets a new victim run until point `i`, and kills it there: true; false: it
   came to the region's end. It is not waited for. */
bool crash_kill_at(const crash_region *region, uint64_t i, mp_proc *victim);

/* Says in words where point `i` is. */
void crash_describe(uint64_t i, char *text, size_t size);

/* What drivers need: the state letter of a process in /proc, 0 = none. */
char crash_state_of(int pid);

/* Waits until it stops or has ended (true), or sleeps (false). The exit
   status stays where it is. */
bool crash_await_stop(const mp_proc *victim);

#endif
