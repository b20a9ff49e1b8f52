#include "os/cpu.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int count_affinity(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    /* More processors than cpu_set_t holds. */
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static bool read_line(const char *path, char *line, int size) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, size, f) != NULL;
    fclose(f);
    return ok;
}

static int ceil_ratio(long long quota, long long period) {
    if (quota <= 0 || period <= 0) return 0;
    long long n = (quota + period - 1) / period;
    return n > 1 << 20 ? 1 << 20 : (int)n;
}

/* The quota of one cgroup v2 directory, 0 = none. */
static int quota_of(const char *dir) {
    char path[512], line[128];
    long long quota, period;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", dir);
    if (read_line(path, line, sizeof line) &&
        sscanf(line, "%lld %lld", &quota, &period) == 2)
        return ceil_ratio(quota, period);
    return 0;
}

/* The tightest quota between our cgroup and the root. */
static int count_cgroup_v2(void) {
    char line[400];
    int best = quota_of("");
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return best;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        for (char *dir = line + 3; *dir;) {
            int n = quota_of(dir);
            if (n > 0 && (best == 0 || n < best)) best = n;
            *strrchr(dir, '/') = 0;
        }
    }
    fclose(f);
    return best;
}

static int count_cgroup_v1(void) {
    char quota[64], period[64];
    long long q, p;
    if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota,
                  sizeof quota) &&
        read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period,
                  sizeof period) &&
        sscanf(quota, "%lld", &q) == 1 && sscanf(period, "%lld", &p) == 1)
        return ceil_ratio(q, p);
    return 0;
}

int mp_cpu_count(void) {
    int n = count_affinity();
    int quota = count_cgroup_v2();
    if (quota == 0) quota = count_cgroup_v1();
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}

bool mp_cpu_several(void) {
    static _Atomic int known; /* 0 not yet, 1 one, 2 several */
    int k = atomic_load_explicit(&known, memory_order_relaxed);
    if (k == 0) {
        k = count_affinity() > 1 ? 2 : 1;
        atomic_store_explicit(&known, k, memory_order_relaxed);
    }
    return k == 2;
}
