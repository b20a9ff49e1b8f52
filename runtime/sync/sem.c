/* The states of the word:

   v -> v - 1                  an acquirer, v > 0
   0 -> WAITERS                a waiter, before it sleeps
   v (+ WAITERS) -> v + n      a releaser; with WAITERS it wakes n
   v -> v - 1 + WAITERS        a waiter that has slept: others may still
                               sleep, and when permits are left it wakes one
                               of them, since releases between its wake and
                               now woke nobody */
#include "sync/sem.h"

#include <limits.h>

#include "mem/check.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/futex.h"
#include "sync/create.h"
#include "sync/wait.h"

enum { SPINS = 100 };

static uint32_t load(const mp_sem_shm *sem) {
    return atomic_load_explicit(&sem->word, memory_order_relaxed);
}

static bool change(mp_sem_shm *sem, uint32_t from, uint32_t to) {
    return atomic_compare_exchange_strong_explicit(
        &sem->word, &from, to, memory_order_acquire, memory_order_relaxed);
}

static bool spin(mp_sem_shm *sem) {
    for (int i = 0; i < SPINS; i++) {
        if (load(sem) && mp_sem_try(sem)) return true;
        mp_cpu_relax();
    }
    return false;
}

/* For one that has slept. */
static bool take_after_sleep(mp_sem_shm *sem, uint32_t word) {
    uint32_t left = (word & MP_SEM_MAX) - 1;
    if (!change(sem, word, left | MP_WAITERS)) return false;
    if (left > 0) mp_sem_wake(sem, 1);
    return true;
}

/* Sleeps until a release; as mp_wait_sleep. */
static int sleep_on(mp_sem_shm *sem, uint32_t word, mp_deadline deadline) {
    if (word == 0 && !change(sem, 0, MP_WAITERS)) return 0;
    mp_deadline slice = mp_wait_slice(sem, MP_WAITERS, deadline);
    int r = mp_futex_wait(&sem->word, MP_WAITERS, slice);
    return mp_wait_slept(r, slice, deadline);
}

int mp_sem_acquire_slow(mp_sem_shm *sem, mp_deadline deadline) {
    if (deadline.ns > 0 && mp_cpu_several() && spin(sem)) return 0;
    for (bool slept = false;;) {
        uint32_t word = load(sem);
        if (word & MP_SEM_MAX) {
            if (slept ? take_after_sleep(sem, word)
                      : change(sem, word, word - 1))
                return 0;
            continue;
        }
        if (mp_deadline_passed(deadline)) {
            /* The wake that I got, maybe, is for another who sleeps. */
            if (slept) mp_sem_wake(sem, 1);
            return -ETIMEDOUT;
        }
        int r = sleep_on(sem, word, deadline);
        if (r < 0) return r;
        slept = true;
    }
}

void mp_sem_wake(mp_sem_shm *sem, uint32_t n) {
    mp_futex_wake(&sem->word, n < INT_MAX ? (int)n : INT_MAX);
}

/* The dead one may have swallowed a wake, or released without waking; who
   wakes now wakes the others. */
static void on_death(void *object, uint32_t dead_tag) {
    (void)dead_tag;
    mp_sem_wake(object, 1);
}

static void check(mp_check *c, const void *object) {
    const mp_sem_shm *sem = object;
    if (!mp_check_size(c, sizeof *sem)) return;
    uint32_t bound = mp_check_u32(c, &sem->bound);
    uint32_t permits = mp_check_u32(c, &sem->word) & MP_SEM_MAX;
    if (bound > MP_SEM_MAX)
        mp_check_report(c, "its bound is %u, expected at most %u", bound,
                        MP_SEM_MAX);
    if (permits > bound)
        mp_check_report(c, "%u permits, expected at most %u", permits, bound);
}

static const mp_object_ops ops = {
    .name = "Semaphore", .on_death = on_death, .check = check};

void mp_sem_open(void) {
    mp_object_declare(MP_TYPE_SEMAPHORE, &ops);
}

int mp_sem_create(uint32_t value, uint32_t bound, uint32_t *id,
                  uint32_t *gen) {
    int r = mp_sync_create(MP_TYPE_SEMAPHORE, sizeof(mp_sem_shm), id, gen);
    if (r < 0) return r;
    mp_sem_shm *sem = mp_object_block(*id);
    sem->bound = bound;
    atomic_store_explicit(&sem->word, value, memory_order_relaxed);
    return 0;
}
