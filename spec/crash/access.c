/* Points are accesses: each store and each atomic change, before it is made.
   The portable driver: the compiler is asked for the calls that a race
   detector wants (-fsanitize=thread), and the functions that it calls stand
   here instead of the detector's. So every store of the runtime is a point,
   without a mark in the sources, on every processor and kernel; and what
   lies between two stores harms nobody.

   This file is compiled without those calls. Built by ACCESS=1. */
#include "driver.h"

#if defined(CRASH_ACCESS)

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the killer tells the victim, and is told.
   target   the access before which it dies, from 1 (killer); 0: none
   count    accesses so far (victim) */
static struct orders {
    _Atomic uint64_t target, count;
} *orders;

/* The victim's own: pid 0 = not in a region. */
static pid_t armed;
static uint64_t count;

enum { MOST_SLEEPS = 1000 };

static struct {
    uint64_t accesses;
    int sleeps;
    bool ends_asleep;
} trace;

const char *crash_driver_missing(void) { return NULL; }

/* ---- the victim's side ----------------------------------------------- */

static void before_access(void) {
    if (armed == 0) return;
    atomic_store(&orders->count, ++count);
    if (count != atomic_load(&orders->target)) return;
    /* A child that it forked meanwhile counts, too, and lives on. */
    if (armed == getpid()) raise(SIGSTOP);
    armed = 0;
}

/* The killer looks, and lets it go on. */
void crash_enter(void) {
    raise(SIGSTOP);
    count = 0;
    armed = getpid();
}

void crash_leave(void) { armed = 0; }

/* ---- what the compiler calls ----------------------------------------- */

void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc) { (void)pc; }
void __tsan_func_exit(void);
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **at, void *value);
void __tsan_vptr_update(void **at, void *value) { (void)at, (void)value; }
void __tsan_atomic_thread_fence(int order);
void __tsan_atomic_thread_fence(int order) {
    (void)order;
    atomic_thread_fence(memory_order_seq_cst);
}
void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order) {
    (void)order;
    atomic_signal_fence(memory_order_seq_cst);
}
void __tsan_read_range(void *at, unsigned long n);
void __tsan_read_range(void *at, unsigned long n) { (void)at, (void)n; }
void __tsan_write_range(void *at, unsigned long n);
void __tsan_write_range(void *at, unsigned long n) {
    (void)at, (void)n;
    before_access();
}

#define PLAIN(n)                                                         \
    void __tsan_read##n(void *at);                                       \
    void __tsan_read##n(void *at) { (void)at; }                          \
    void __tsan_unaligned_read##n(void *at);                             \
    void __tsan_unaligned_read##n(void *at) { (void)at; }                \
    void __tsan_write##n(void *at);                                      \
    void __tsan_write##n(void *at) {                                     \
        (void)at;                                                        \
        before_access();                                                 \
    }                                                                    \
    void __tsan_unaligned_write##n(void *at);                            \
    void __tsan_unaligned_write##n(void *at) {                           \
        (void)at;                                                        \
        before_access();                                                 \
    }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

/* The strongest order serves for each. */
#define CHANGE(n, type, name)                                            \
    type __tsan_atomic##n##_fetch_##name(volatile type *at, type value,  \
                                         int order);                     \
    type __tsan_atomic##n##_fetch_##name(volatile type *at, type value,  \
                                         int order) {                    \
        (void)order;                                                     \
        before_access();                                                 \
        return __atomic_fetch_##name(at, value, __ATOMIC_SEQ_CST);       \
    }
#define EXCHANGE(n, type, name)                                          \
    int __tsan_atomic##n##_compare_exchange_##name(                      \
        volatile type *at, type *wanted, type value, int order,          \
        int failed);                                                     \
    int __tsan_atomic##n##_compare_exchange_##name(                      \
        volatile type *at, type *wanted, type value, int order,          \
        int failed) {                                                    \
        (void)order, (void)failed;                                       \
        before_access();                                                 \
        return __atomic_compare_exchange_n(                              \
            at, wanted, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);   \
    }
#define ATOMIC(n, type)                                                  \
    type __tsan_atomic##n##_load(const volatile type *at, int order);    \
    type __tsan_atomic##n##_load(const volatile type *at, int order) {   \
        (void)order;                                                     \
        return __atomic_load_n(at, __ATOMIC_SEQ_CST);                    \
    }                                                                    \
    void __tsan_atomic##n##_store(volatile type *at, type value,         \
                                  int order);                            \
    void __tsan_atomic##n##_store(volatile type *at, type value,         \
                                  int order) {                           \
        (void)order;                                                     \
        before_access();                                                 \
        __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                   \
    }                                                                    \
    type __tsan_atomic##n##_exchange(volatile type *at, type value,      \
                                     int order);                         \
    type __tsan_atomic##n##_exchange(volatile type *at, type value,      \
                                     int order) {                        \
        (void)order;                                                     \
        before_access();                                                 \
        return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);         \
    }                                                                    \
    CHANGE(n, type, add)                                                 \
    CHANGE(n, type, sub)                                                 \
    CHANGE(n, type, and)                                                 \
    CHANGE(n, type, or)                                                  \
    CHANGE(n, type, xor)                                                 \
    EXCHANGE(n, type, strong)                                            \
    EXCHANGE(n, type, weak)
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

/* ---- lives ----------------------------------------------------------- */

static mp_proc start_victim(const crash_region *region, uint64_t target) {
    if (!orders) orders = spec_shared(sizeof *orders);
    atomic_store(&orders->target, target);
    mp_proc v = crash_fork_victim(region);
    siginfo_t info = {0};
    waitid(P_PID, (id_t)v.pid, &info, WEXITED | WSTOPPED);
    CHECK_EQ(info.si_code, CLD_STOPPED);
    if (region->poised) region->poised();
    mp_proc_signal(&v, SIGCONT);
    return v;
}

/* It has stopped, or come to its end? */
static bool has_stopped(const mp_proc *v) {
    siginfo_t info = {0};
    waitid(P_PID, (id_t)v->pid, &info, WEXITED | WSTOPPED | WNOWAIT);
    return info.si_code == CLD_STOPPED;
}

/* One that sleeps or was woken may be running: `dying` looks at one that
   stands. False: it came to its end before. */
static bool put_to_death(const crash_region *region, mp_proc *v) {
    siginfo_t info = {0};
    if (region->dying) {
        mp_proc_signal(v, SIGSTOP);
        if (has_stopped(v)) region->dying();
    }
    mp_proc_signal(v, SIGKILL);
    waitid(P_PID, (id_t)v->pid, &info, WEXITED | WNOWAIT);
    return info.si_code == CLD_KILLED;
}

bool crash_survey(const crash_region *region, mp_proc *victim) {
    trace.sleeps = 0;
    trace.ends_asleep = false;
    *victim = start_victim(region, 0);
    while (!crash_await_stop(victim)) {
        trace.ends_asleep = !region->wake;
        if (trace.ends_asleep) break;
        region->wake(trace.sleeps++);
    }
    trace.sleeps += trace.ends_asleep;
    if (trace.ends_asleep) put_to_death(region, victim);
    trace.accesses = atomic_load(&orders->count);
    return !trace.ends_asleep;
}

/* In the order: accesses, sleeps, wakes. */
uint64_t crash_points(uint64_t *all) {
    uint64_t sleeps = (uint64_t)trace.sleeps;
    return *all = trace.accesses + sleeps * (trace.ends_asleep ? 1 : 2);
}

bool crash_kill_at(const crash_region *region, uint64_t i, mp_proc *victim) {
    uint64_t in = i < trace.accesses ? UINT64_MAX : i - trace.accesses;
    uint64_t sleeps = (uint64_t)trace.sleeps;
    *victim = start_victim(region, i < trace.accesses ? i + 1 : 0);
    for (uint64_t n = 0; !crash_await_stop(victim); n++) {
        CHECK(n < MOST_SLEEPS);
        bool asleep = n == in || !region->wake;
        if (!asleep) region->wake((int)n);
        if (asleep || n + sleeps == in) return put_to_death(region, victim);
    }
    return has_stopped(victim) && put_to_death(region, victim);
}

void crash_describe(uint64_t i, char *text, size_t size) {
    snprintf(text, size,
             i < trace.accesses ? "before access %ju" : "in sleep %ju",
             (uintmax_t)(i < trace.accesses ? i : i - trace.accesses));
}

#endif
