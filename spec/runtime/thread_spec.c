/* Threads as children (proc/start_thread.c), and threads of a host that come
   and go: what they share with processes, and that nothing of them stays.
   (threads_spec.c and its like: what participants do to the memory.) */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "data/queue.h"
#include "fsck_tools.h"
#include "harness.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "proc/boot.h"
#include "proc/family.h"
#include "proc/start.h"
#include "sync/event.h"
#include "sync/lock.h"
#include "sync/wait.h"

/* What a thread of these specs does: kind says. */
enum {
    RETURN = 1, WAIT, LOCK, FORK, CHILDREN, ANEW, MASK, EXIT, ASKED
};

static int work(mp_boot_shm *boot);

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_event_open();
    mp_queue_declare();
    mp_boot_open();
    mp_start_thread_does(work, NULL);
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_object_detach(id);
}

static void start(mp_proc *proc, uint32_t kind, uint32_t id, uint32_t gen) {
    const mp_start_method *method = mp_start_method_named("thread");
    CHECK(method != NULL);
    CHECK_OK(mp_proc_start(proc, &(mp_start){.method = method, .kind = kind,
                                             .id = id, .gen = gen}));
}

static int finish(mp_proc *proc) {
    int r;
    while ((r = mp_proc_wait(proc, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_OK(r);
    CHECK(!mp_tag_alive(proc->tag));
    mp_proc_close(proc);
    return proc->exitcode;
}

/* Slots in use but for mine. */
static unsigned others(void) {
    unsigned n = 0;
    for (uint32_t i = 1; i < atomic_load(&mp_me->super->slots); i++)
        n += i != mp_me->index &&
             atomic_load(&mp_slot_at(i)->state) != MP_SLOT_FREE;
    return n;
}

/* ---- what they do -------------------------------------------------- */

/* 0, or how it was asked to end. */
static int wait_for_event(mp_event_shm *event) {
    int r;
    while ((r = mp_event_wait(event, mp_event_sets(event), MP_FOREVER)) ==
           -EINTR)
        if (mp_slot_asked()) return -(int)mp_slot_asked();
    return r;
}

static int wait_on(mp_boot_shm *boot) {
    CHECK_OK(mp_object_attach(boot->id, boot->gen));
    int r = wait_for_event(mp_object_block(boot->id));
    mp_object_detach(boot->id);
    return r;
}

static int take_lock(mp_boot_shm *boot) {
    CHECK_OK(mp_object_attach(boot->id, boot->gen));
    CHECK_OK(mp_lock_acquire(mp_object_block(boot->id), MP_FOREVER));
    return 5;
}

static int fork_one(void) {
    mp_proc child;
    int r = mp_proc_fork(&child, 0);
    CHECK_OK(r);
    if (r == 1) {
        sigset_t mask;
        sigprocmask(SIG_SETMASK, NULL, &mask);
        bool may = !sigismember(&mask, SIGTERM);
        mp_ref block = mp_alloc(100);
        bool freed = block && mp_free(block);
        mp_proc_exit(may && freed && mp_open() == 0 ? 9 : 1);
    }
    return finish(&child);
}

static int have_children(mp_boot_shm *boot) {
    mp_relative *relative;
    for (int i = 0; i < 2; i++) {
        CHECK_OK(mp_family_start(
            &relative, NULL, i == 0,
            &(mp_start){.method = mp_start_method_named("thread"),
                        .kind = i == 0 ? WAIT : RETURN,
                        .id = boot->id, .gen = boot->gen}));
        mp_family_drop(relative);
    }
    return 0; /* mp_close ends the daemon, and awaits the other */
}

/* Takes the lock, and leaves it by beginning anew. */
static int begin_anew(mp_boot_shm *boot) {
    uint32_t before = mp_me->tag;
    mp_ref block = mp_alloc(1000);
    CHECK(block != 0);
    CHECK_EQ(take_lock(boot), 5);
    CHECK_OK(mp_start_anew());
    CHECK(mp_me->tag != before && !mp_tag_alive(before));
    CHECK(!mp_free(block)); /* it went with its owner */
    CHECK_OK(mp_object_attach(boot->id, boot->gen));
    CHECK_EQ(mp_lock_acquire(mp_object_block(boot->id), MP_FOREVER),
             MP_LOCK_ABANDONED);
    return 6;
}

/* Is asked to end, and begins anew all the same. */
static int asked_and_anew(mp_boot_shm *boot) {
    CHECK_EQ(wait_on(boot), -SIGTERM);
    CHECK_OK(mp_start_anew());
    return wait_on(boot);
}

static int tell_mask(void) {
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1, SIGSEGV};
    sigset_t mask;
    int bits = 0;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    for (int i = 0; i < 4; i++) bits |= sigismember(&mask, signals[i]) << i;
    return bits;
}

static int work(mp_boot_shm *boot) {
    switch (boot->kind) {
    case RETURN: return (int)boot->id;
    case WAIT: return wait_on(boot);
    case LOCK: return take_lock(boot);
    case FORK: return fork_one();
    case CHILDREN: return have_children(boot);
    case ANEW: return begin_anew(boot);
    case MASK: return tell_mask();
    case ASKED: return asked_and_anew(boot);
    case EXIT: pthread_exit(NULL);
    default: return -1;
    }
}

/* ---- start and end ------------------------------------------------- */

SPEC("thread: a child that is a thread returns its exit code") {
    mp_proc proc;
    start(&proc, RETURN, 7, 0);
    CHECK_EQ(proc.pid, getpid());
    CHECK_EQ(finish(&proc), 7);
    CHECK_EQ(mp_proc_wait(&proc, MP_AT_ONCE), 0);
    CHECK_EQ(mp_proc_signal(&proc, SIGTERM), 0);
    CHECK_EQ(others(), 0);
    CHECK_CLEAN();
}

SPEC("thread: who waits for one waits no longer than it said") {
    uint32_t id, gen;
    mp_proc proc;
    CHECK_OK(mp_event_create(&id, &gen));
    start(&proc, WAIT, id, gen);
    CHECK_EQ(mp_proc_wait(&proc, MP_AT_ONCE), -ETIMEDOUT);
    CHECK_EQ(mp_proc_wait(&proc, mp_deadline_in(0.02)), -ETIMEDOUT);
    mp_event_set(mp_object_block(id));
    CHECK_EQ(finish(&proc), 0);
    mp_object_detach(id);
}

SPEC("thread: one that is asked to end hears of it in its wait") {
    uint32_t id, gen;
    mp_proc proc;
    CHECK_OK(mp_event_create(&id, &gen));
    start(&proc, WAIT, id, gen);
    CHECK_OK(mp_proc_signal(&proc, 0));
    CHECK_EQ(mp_proc_wait(&proc, mp_deadline_in(0.02)), -ETIMEDOUT);
    CHECK_OK(mp_proc_signal(&proc, SIGTERM));
    CHECK_EQ(finish(&proc), -SIGTERM);
    CHECK_EQ(mp_slot_asked(), 0);
    mp_object_detach(id);
}

SPEC("thread: one that is asked to end is so when it begins anew, too") {
    uint32_t id, gen;
    mp_proc proc;
    CHECK_OK(mp_event_create(&id, &gen));
    start(&proc, ASKED, id, gen);
    CHECK_OK(mp_proc_signal(&proc, SIGTERM));
    CHECK_EQ(finish(&proc), -SIGTERM);
    mp_object_detach(id);
}

SPEC("thread: a request for one that has ended meets nobody else") {
    mp_proc proc, next;
    uint32_t id, gen;
    CHECK_OK(mp_event_create(&id, &gen));
    start(&proc, RETURN, 0, 0);
    CHECK_EQ(finish(&proc), 0);
    start(&next, WAIT, id, gen);
    CHECK_EQ(next.tag % MP_SLOTS, proc.tag % MP_SLOTS);
    mp_slot_ask(proc.tag, SIGTERM);
    mp_event_set(mp_object_block(id));
    CHECK_EQ(finish(&next), 0);
    mp_object_detach(id);
}

static bool readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

SPEC("thread: a sentinel is readable when it has ended") {
    uint32_t id, gen;
    mp_proc proc;
    CHECK_OK(mp_event_create(&id, &gen));
    start(&proc, WAIT, id, gen);
    int fd = mp_proc_sentinel(&proc);
    CHECK_OK(fd);
    CHECK_EQ(mp_proc_sentinel(&proc), fd);
    CHECK(!readable(fd));
    mp_event_set(mp_object_block(id));
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 5000), 1);
    CHECK_EQ(finish(&proc), 0);
    start(&proc, RETURN, 0, 0);
    while (mp_proc_wait(&proc, MP_FOREVER) == -EINTR) {
    }
    fd = mp_proc_sentinel(&proc); /* asked for too late, it still tells */
    CHECK_OK(fd);
    CHECK(readable(fd));
    mp_proc_close(&proc);
    mp_object_detach(id);
}

SPEC("thread: one that a library ends by pthread_exit has ended") {
    mp_proc proc;
    start(&proc, EXIT, 0, 0);
    CHECK_EQ(finish(&proc), MP_PROC_UNKNOWN);
    mp_reap_sweep();
    CHECK_EQ(others(), 0);
    CHECK_CLEAN();
}

SPEC("thread: a host's signals are not delivered to it") {
    mp_proc proc;
    sigset_t before, after;
    sigprocmask(SIG_SETMASK, NULL, &before);
    start(&proc, MASK, 0, 0);
    sigprocmask(SIG_SETMASK, NULL, &after);
    for (int k = 1; k < 32; k++)
        CHECK_EQ(sigismember(&before, k), sigismember(&after, k));
    CHECK_EQ(finish(&proc), 7); /* the first three, and not the fourth */
}

/* ---- many ---------------------------------------------------------- */

enum { AT_A_TIME = 200, IN_SEQUENCE = 2000 };

SPEC_WITHIN(60, "thread: two hundred run at a time") {
    static mp_proc proc[AT_A_TIME];
    uint32_t id, gen;
    CHECK_OK(mp_event_create(&id, &gen));
    uint64_t used = mp_heap_used();
    for (int i = 0; i < AT_A_TIME; i++) start(&proc[i], WAIT, id, gen);
    CHECK_SOON(mp_object_refs(id) == AT_A_TIME + 1);
    mp_event_set(mp_object_block(id));
    for (int i = 0; i < AT_A_TIME; i++) CHECK_EQ(finish(&proc[i]), 0);
    CHECK_EQ(others(), 0);
    CHECK(mp_heap_used() <= used + 4096); /* a ledger's page of ours */
    CHECK_CLEAN();
    mp_object_detach(id);
}

SPEC_WITHIN(60, "thread: two thousand in sequence leave nothing") {
    mp_proc proc;
    start(&proc, RETURN, 1, 0);
    CHECK_EQ(finish(&proc), 1);
    uint64_t used = mp_heap_used();
    uint32_t slots = atomic_load(&mp_me->super->slots);
    for (int i = 0; i < IN_SEQUENCE; i++) {
        start(&proc, RETURN, (uint32_t)i % 100, 0);
        CHECK_EQ(finish(&proc), i % 100);
    }
    CHECK_EQ(mp_heap_used(), used);
    CHECK_EQ(atomic_load(&mp_me->super->slots), slots);
    CHECK_EQ(others(), 0);
    CHECK_CLEAN();
}

static uint64_t pages_of_memory(void) {
    uint64_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%" SCNu64, &pages) == 1);
    fclose(file);
    return pages;
}

SPEC_WITHIN(60, "thread: one after the other, where there is room for one") {
    if (spec_sanitized()) return; /* its memory is no measure */
    mp_proc proc;
    start(&proc, RETURN, 1, 0);
    CHECK_EQ(finish(&proc), 1);
    mp_start_join();
    struct rlimit limit;
    CHECK_EQ(getrlimit(RLIMIT_AS, &limit), 0);
    /* The stack of the one that ended is kept for the next. */
    limit.rlim_cur = pages_of_memory() * (uint64_t)sysconf(_SC_PAGESIZE) +
                     (4 << 20);
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    for (uint32_t i = 0; i < 200; i++) {
        start(&proc, RETURN, i % 100, 0);
        CHECK_EQ(finish(&proc), (int)i % 100);
    }
}

/* ---- among threads and processes ----------------------------------- */

SPEC("thread: a lock that it held goes to the next, who is told") {
    uint32_t id, gen;
    mp_proc proc;
    CHECK_OK(mp_lock_create(&id, &gen));
    start(&proc, LOCK, id, gen);
    CHECK_EQ(finish(&proc), 5);
    CHECK_EQ(mp_lock_acquire(mp_object_block(id), mp_deadline_in(5)),
             MP_LOCK_ABANDONED);
    CHECK_OK(mp_lock_release(mp_object_block(id)));
    mp_object_detach(id);
}

SPEC("thread: it may begin anew, and nothing of before stays") {
    uint32_t id, gen;
    mp_proc proc;
    CHECK_OK(mp_lock_create(&id, &gen));
    start(&proc, ANEW, id, gen);
    CHECK_EQ(finish(&proc), 6);
    CHECK_EQ(others(), 0);
    CHECK_EQ(mp_object_refs(id), 1);
    CHECK_CLEAN();
    mp_object_detach(id);
}

SPEC("thread: it forks children, which take part and get their signals") {
    mp_proc proc[4];
    for (int i = 0; i < 4; i++) start(&proc[i], FORK, 0, 0);
    for (int i = 0; i < 4; i++) CHECK_EQ(finish(&proc[i]), 9);
    CHECK_EQ(others(), 0);
    CHECK_CLEAN();
}

#ifndef __SANITIZE_THREAD__ /* it loses count of threads at a fork */

SPEC("thread: a process with threads forks, and they go on") {
    uint32_t id, gen;
    mp_proc proc, child;
    CHECK_OK(mp_event_create(&id, &gen));
    start(&proc, WAIT, id, gen);
    /* It waits: a thread that begins has locks of the sanitizer's, which a
       forked copy would find taken. */
    CHECK_SOON(mp_object_refs(id) >= 2);
    int r = mp_proc_fork(&child, 0);
    CHECK_OK(r);
    if (r == 1) {
        /* Its parent's thread is no child of its own. */
        bool mine = mp_proc_wait(&proc, MP_AT_ONCE) != -ECHILD;
        mp_proc inner;
        start(&inner, RETURN, 3, 0);
        int code = finish(&inner);
        mp_event_set(mp_object_block(id));
        mp_proc_exit(mine ? 1 : code);
    }
    CHECK_EQ(finish(&proc), 0);
    CHECK_EQ(finish(&child), 3);
    CHECK_EQ(others(), 0);
    mp_object_detach(id);
}

#endif

SPEC("thread: its own children end with it, the daemons asked") {
    uint32_t id, gen;
    mp_proc proc;
    CHECK_OK(mp_event_create(&id, &gen));
    start(&proc, CHILDREN, id, gen);
    double begin = spec_now();
    CHECK_EQ(finish(&proc), 0);
    CHECK(spec_now() - begin < 0.9); /* it was not abandoned */
    mp_reap_sweep();
    CHECK_EQ(others(), 0);
    CHECK_EQ(mp_object_refs(id), 1);
    mp_object_detach(id);
}

/* ---- death of the process ------------------------------------------ */

#ifndef __SANITIZE_THREAD__ /* it loses count of threads at a fork */

static void host(void *ctx) {
    const uint32_t *handle = ctx;
    mp_proc proc;
    for (int i = 0; i < 8; i++)
        start(&proc, i % 2 ? WAIT : LOCK, handle[i % 2 * 2],
              handle[i % 2 * 2 + 1]);
    for (;;) pause();
}

SPEC("thread: of a process that is killed, all its threads are dead") {
    uint32_t handle[4];
    mp_proc child;
    CHECK_OK(mp_lock_create(&handle[0], &handle[1]));
    CHECK_OK(mp_event_create(&handle[2], &handle[3]));
    uint64_t used = mp_heap_used();
    int r = mp_proc_fork(&child, 0);
    CHECK_OK(r);
    if (r == 1) host(handle);
    CHECK_SOON(mp_object_refs(handle[2]) >= 4 + 2);
    CHECK_OK(mp_proc_signal(&child, SIGKILL));
    CHECK_EQ(finish(&child), -SIGKILL);
    CHECK_EQ(mp_lock_acquire(mp_object_block(handle[0]), mp_deadline_in(5)),
             MP_LOCK_ABANDONED);
    CHECK_OK(mp_lock_release(mp_object_block(handle[0])));
    mp_reap_sweep();
    CHECK_EQ(others(), 0);
    CHECK(mp_heap_used() <= used + 4096);
    for (int i = 0; i < 4; i += 2) {
        CHECK_EQ(mp_object_refs(handle[i]), 1);
        mp_object_detach(handle[i]);
    }
    CHECK_CLEAN();
}

#endif

/* ---- threads of a host --------------------------------------------- */

/* So many at a time run work_of(ctx). */
static void run_guests(int n, void *(*work_of)(void *), void *ctx) {
    pthread_t thread[8];
    CHECK(n <= 8);
    for (int i = 0; i < n; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, work_of, ctx), 0);
    for (int i = 0; i < n; i++) CHECK_EQ(pthread_join(thread[i], NULL), 0);
}

typedef struct guest {
    uint32_t id, gen;
    _Atomic uint32_t tag;
} guest;

static void *visit(void *ctx) {
    guest *g = ctx;
    CHECK_OK(mp_open());
    CHECK_OK(mp_open());
    CHECK_OK(mp_object_attach(g->id, g->gen));
    mp_lock_shm *lock = mp_object_block(g->id);
    for (int i = 0; i < 100; i++) {
        int r;
        while ((r = mp_lock_acquire(lock, MP_FOREVER)) == -EINTR) {
        }
        CHECK_OK(r);
        CHECK_OK(mp_lock_release(lock));
    }
    mp_object_detach(g->id);
    atomic_store(&g->tag, mp_me->tag);
    return NULL;
}

SPEC("thread: each thread of a host takes part when it wants to") {
    guest g = {0};
    CHECK_OK(mp_lock_create(&g.id, &g.gen));
    run_guests(8, visit, &g);
    CHECK(!mp_tag_alive(g.tag));
    mp_reap_sweep();
    CHECK_EQ(others(), 0);
    mp_object_detach(g.id);
    CHECK_CLEAN();
}

static void *open_and_close(void *ctx) {
    guest *g = ctx;
    for (int i = 0; i < 50; i++) {
        CHECK_OK(mp_open());
        CHECK(mp_tag_alive(mp_me->tag));
        CHECK_OK(mp_object_attach(g->id, g->gen));
        mp_close();
        CHECK(mp_me == NULL);
        mp_close();
    }
    return NULL;
}

SPEC("thread: it may take part, leave and take part again") {
    guest g = {0};
    CHECK_OK(mp_lock_create(&g.id, &g.gen));
    run_guests(3, open_and_close, &g);
    mp_reap_sweep();
    CHECK_EQ(others(), 0);
    CHECK_EQ(mp_object_refs(g.id), 1);
    mp_object_detach(g.id);
    CHECK_CLEAN();
}

#ifndef __SANITIZE_THREAD__ /* it loses count of threads at a fork */

static void count_behind(void *ctx) {
    (void)ctx;
    CHECK_EQ(mp_start_threads(), 1);
}

SPEC("thread: a forked copy joins none of its parent's threads") {
    mp_proc proc, waiting[8], child;
    uint32_t id, gen;
    CHECK_OK(mp_event_create(&id, &gen));
    start(&proc, RETURN, 1, 0);
    CHECK_EQ(finish(&proc), 1);
    CHECK_EQ(spec_wait(spec_fork(count_behind, NULL)), 0);
    int r = mp_proc_fork(&child, 0);
    CHECK_OK(r);
    if (r == 1) {
        /* One of them has the stack, and so the name, of the parent's that is
           not joined yet. */
        for (int i = 0; i < 8; i++) start(&waiting[i], WAIT, id, gen);
        start(&proc, RETURN, 2, 0);
        CHECK_EQ(finish(&proc), 2);
        mp_event_set(mp_object_block(id));
        for (int i = 0; i < 8; i++) CHECK_EQ(finish(&waiting[i]), 0);
        CHECK_SOON(mp_start_threads() == 1);
        mp_proc_exit(4);
    }
    CHECK_EQ(finish(&child), 4);
    mp_object_detach(id);
}

static void *open_late(void *ctx) {
    (void)ctx;
    CHECK_EQ(mp_open(), -EOWNERDEAD);
    return NULL;
}

static void orphan(void *ctx) {
    (void)ctx;
    CHECK(mp_me == NULL);
    CHECK_EQ(mp_open(), -EOWNERDEAD);
    run_guests(1, open_late, NULL);
}

static void *fork_behind(void *ctx) {
    (void)ctx; /* takes no part; its process does */
    pid_t child = spec_fork(orphan, NULL);
    CHECK_EQ(spec_wait(child), 0);
    return NULL;
}

SPEC("thread: no thread of a child forked behind our back takes part") {
    run_guests(1, fork_behind, NULL);
}

#endif

/* A plain robust mutex of libc's in the same list. */
static void *beside_libc(void *ctx) {
    pthread_mutex_t *mutex = ctx;
    CHECK_EQ(pthread_mutex_lock(&mutex[0]), 0);
    CHECK_OK(mp_open());
    CHECK_EQ(pthread_mutex_lock(&mutex[1]), 0);
    CHECK_EQ(pthread_mutex_unlock(&mutex[1]), 0);
    mp_close();
    CHECK_OK(mp_open());
    CHECK_EQ(pthread_mutex_lock(&mutex[1]), 0);
    mp_close();
    return NULL; /* with both mutexes in its hands */
}

SPEC("thread: the host's robust mutexes stay robust beside ours") {
    static pthread_mutex_t mutex[2];
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    for (int i = 0; i < 2; i++) {
        if (i == 0) /* its links are marked */
            pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
        else
            pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_NONE);
        CHECK_EQ(pthread_mutex_init(&mutex[i], &attr), 0);
    }
    run_guests(1, beside_libc, mutex);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_mutex_lock(&mutex[i]), EOWNERDEAD);
        CHECK_EQ(pthread_mutex_consistent(&mutex[i]), 0);
        CHECK_EQ(pthread_mutex_unlock(&mutex[i]), 0);
        pthread_mutex_destroy(&mutex[i]);
    }
    mp_reap_sweep();
    CHECK_EQ(others(), 0);
}
