/* How many processors this process may use, and whether spinning can pay.
   Safe: threads, child after fork. Blocks: never. */
#ifndef MP_OS_CPU_H
#define MP_OS_CPU_H

#include <stdbool.h>

/* Processors usable now: the affinity mask, cut down by the cgroup's quota
   (v2 cpu.max, v1 cfs quota) rounded up; at least 1. */
int mp_cpu_count(void);

/* Can another process run while this one spins? Looked up once. */
bool mp_cpu_several(void);

#endif
