/* What it costs that nobody can die with a lock for good: beside a plain
   process-shared mutex of the C library, in turns, by the time that this
   thread had a processor for: a busy machine then slows both. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "harness.h"
#include "mem/mutex.h"
#include "mem/object.h"
#include "sync/lock.h"

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_object_detach(id);
}

enum { ROUNDS = 11, TURNS = 300000 };

static pthread_mutex_t *plain;
static mp_lock_shm *lock;
static mp_mutex_shm *mutex;

static double seconds_run(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A function of its own per lock, so that the calls are inlined. */
#define TIMED(name, acquire, release)                                    \
    static double name(void) {                                           \
        double start = seconds_run();                                    \
        for (int i = 0; i < TURNS; i++) {                                \
            acquire;                                                     \
            release;                                                     \
        }                                                                \
        return seconds_run() - start;                                    \
    }
TIMED(time_plain, pthread_mutex_lock(plain), pthread_mutex_unlock(plain))
TIMED(time_lock, mp_lock_acquire(lock, MP_FOREVER), mp_lock_release(lock))
TIMED(time_mutex, mp_mutex_lock(mutex), mp_mutex_unlock(mutex))

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values) {
    qsort(values, ROUNDS, sizeof *values, by_size);
    return values[ROUNDS / 2];
}

static void make_plain(void) {
    pthread_mutexattr_t attr;
    plain = spec_shared(sizeof *plain);
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(plain, &attr);
    pthread_mutexattr_destroy(&attr);
}

SPEC("lock: costs at most 1.3 times a plain mutex of the C library") {
    uint32_t id, gen;
    double locks[ROUNDS], mutexes[ROUNDS];
    if (spec_sanitized()) return; /* it times the sanitizer */
    make_plain();
    mutex = spec_shared(sizeof *mutex);
    CHECK_OK(mp_lock_create(&id, &gen));
    lock = mp_object_block(id);
    for (int i = 0; i < ROUNDS; i++) {
        double base = time_plain();
        locks[i] = time_lock() / base;
        mutexes[i] = time_mutex() / base;
    }
    CHECK(median(locks) <= 1.3);
    CHECK(median(mutexes) <= 1.3);
    printf("lock %.2f, internal lock %.2f of a plain mutex\n",
           locks[ROUNDS / 2], mutexes[ROUNDS / 2]);
    mp_object_detach(id);
}
