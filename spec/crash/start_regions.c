/* Children that are new programs, or a server's. The victim starts one, or is
   one. What a victim started dies with it; a killed server's children die
   with the server. */
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include "../runtime/spawn_tools.h"
#include "crash.h"
#include "lock_fixture.h"
#include "mem/fsck.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "region_tools.h"
#include "sync/lock.h"

SPEC_PREPARE {
    open_with_locks();
    mp_boot_open();
}

enum { PEERS = 2 };

/* ---- the program ------------------------------------------------------ */

static uint64_t noted;

static int job_nothing(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)boot, (void)in, (void)w;
    return 0;
}

static const job jobs[] = {job_nothing};

#if defined(__x86_64__) && !defined(CRASH_ACCESS)
#define TRACES 1
#include <sys/ptrace.h>
#include <sys/user.h>

static int attach_traced(char **argv) {
    mp_boot_shm *boot;
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    __asm__ __volatile__("int3" ::: "memory");
    int r = mp_boot_attach(atoi(argv[2]), strtoull(argv[3], NULL, 0), &boot);
    __asm__ __volatile__("int3" ::: "memory");
    return -r;
}
#else
#define TRACES 0
static int attach_traced(char **argv) { return argv ? 98 : 97; }
#endif

SPEC_PROGRAM("spawned") {
    if (argc == 5) return attach_traced(argv);
    return argc == 4 ? run_spawned(argv, jobs, &noted) : 99;
}

/* ---- what all have in common ------------------------------------------ */

static uint32_t id, gen;
static mp_lock_shm *lock;
static mp_proc child;

static void begin(const char *method);
static void end(void);

static void set_up(void) {
    CHECK_OK(mp_lock_create(&id, &gen));
    lock = mp_object_block(id);
}

/* The program is known, to the victims as well. */
static void set_up_known(void) {
    begin("spawn");
    end();
    set_up();
}

static void tear_down(void) { mp_object_detach(id); }

static void peer(int which) {
    (void)which;
    int r;
    while ((r = mp_lock_acquire(lock, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK(r == 0 || r == MP_LOCK_ABANDONED);
    CHECK_EQ(mp_lock_release(lock), 0);
}

static void check(void) {
    CHECK_EQ(slots_in_use(), 1 + PEERS);
    CHECK_EQ(mp_object_refs(id), 1 + PEERS);
}

/* The end of a child is no stop of its traced parent. */
static void ignore_children(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static void begin(const char *method) {
    const mp_start start = {.method = mp_start_method_named(method),
                            .message = new_order(0, 0),
                            .preload = new_order(0, 0),
                            .argv = own_argv("spawned")};
    CHECK_OK(mp_proc_start(&child, &start));
}

static void end(void) {
    int r;
    while ((r = mp_proc_wait(&child, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_EQ(r, 0);
    CHECK_EQ(child.exitcode, 0);
    mp_proc_close(&child);
}

static void go_on(int n) { (void)n; }

#define REGION(region, what, prepares, runs, times)                      \
    static const crash_region region = {                                 \
        .name = what, .set_up = prepares, .begin = ignore_children,      \
        .run = runs, .wake = go_on, .most = times, .peers = PEERS,       \
        .peer = peer, .check = check, .tear_down = tear_down};           \
    CRASH_REGION(region)

/* ---- spawn ------------------------------------------------------------- */

static void spawn_one(void) {
    begin("spawn");
    end();
}

REGION(start_spawn, "start: spawn a program, await it",
       set_up_known, spawn_one, 300)

/* The first of a path: until it has taken part. */
static void spawn_first(void) {
    begin("spawn");
}

REGION(start_first, "start: the first start of a program",
       set_up, spawn_first, 200)

/* ---- a server, seen from its owner ------------------------------------- */

/* The second child is one of a server that is there. */
static void serve(void) {
    begin("forkserver");
    end();
    begin("forkserver");
    end();
    mp_server_end(NULL);
}

REGION(start_server, "start: a server, two children, its end",
       set_up, serve, 400)

/* ---- one who is started -------------------------------------------------

   A new program is no victim of the killer's, which forks its victims. So it
   lets itself be traced, from int3 to int3, and is killed behind some number
   of steps. */
#if TRACES

enum { LIVES = 120, INT3 = 0xcc };

static pid_t begin_traced(void) {
    const char *argv[6] = {NULL};
    memcpy(argv, own_argv("spawned"), 4 * sizeof *argv);
    argv[4] = "traced";
    const mp_start start = {.method = mp_start_method_named("spawn"),
                            .message = new_order(0, 0),
                            .argv = argv};
    int status;
    CHECK_OK(mp_proc_start(&child, &start));
    CHECK_EQ(waitpid(child.pid, &status, 0), child.pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    return child.pid;
}

/* Up to `most` steps; how many it took. */
static uint64_t step(pid_t pid, uint64_t most) {
    int status;
    for (uint64_t n = 0; n < most; n++) {
        uint64_t pc = (uint64_t)ptrace(
            PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), NULL);
        if ((ptrace(PTRACE_PEEKTEXT, pid, pc, NULL) & 0xff) == INT3) return n;
        CHECK_EQ(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFSTOPPED(status));
    }
    return most;
}

static void say_finding(void *ctx, const char *finding) {
    (void)ctx;
    fprintf(stderr, "    fsck: %s\n", finding);
}

/* Killed behind `most` steps; nothing stays of it. */
static uint64_t live_traced(uint64_t most, uint64_t *bytes) {
    uint32_t objects = mp_object_count();
    uint64_t steps = step(begin_traced(), most);
    mp_proc_signal(&child, SIGKILL);
    int r;
    while ((r = mp_proc_wait(&child, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_EQ(r, 0);
    CHECK_EQ(child.exitcode, -SIGKILL);
    mp_proc_close(&child);
    mp_reap_sweep();
    CHECK_EQ(slots_in_use(), 1);
    CHECK_EQ(mp_object_count(), objects);
    CHECK_EQ(mp_fsck(MP_FSCK_QUIET, say_finding, NULL), 0);
    if (*bytes) CHECK_EQ(mp_heap_used(), *bytes);
    *bytes = mp_heap_used();
    return steps;
}

SPEC_WITHIN(300, "crash: start_attach, a program killed as it takes part") {
    uint64_t bytes = 0;
    begin("spawn");
    end();
    uint64_t all = live_traced(UINT64_MAX, &bytes);
    bool every = getenv("CRASH_ALL") != NULL;
    uint64_t lives = every ? all : LIVES;
    for (uint64_t i = 0; i < lives; i++)
        live_traced(all * i / lives, &bytes);
    printf("start: a program takes part  %ju kills at %ju points\n",
           (uintmax_t)lives, (uintmax_t)all);
    CHECK(all > 100);
}

/* ---- the server itself --------------------------------------------------

   A thread of its owner's traces it while the owner asks it for a child. */

/* A life takes a second. */
enum { SERVER_LIVES = 24, ALL_SERVER_LIVES = 1000 };

/* steps     how many it may make; then it is killed
   made      how many it has made
   stands    it is traced; done: its child has ended */
static struct {
    pid_t pid;
    uint64_t steps, made;
    _Atomic bool stands, done;
} traced;

/* Until it stands; false: it sleeps, and nobody needs it any more, or it has
   ended. */
static bool await_stand(void) {
    for (;;) {
        siginfo_t info = {0};
        int flags = WSTOPPED | WEXITED | WNOHANG | WNOWAIT;
        bool done = atomic_load(&traced.done);
        if (waitid(P_PID, (id_t)traced.pid, &info, flags) < 0) return false;
        if (info.si_pid && info.si_code == CLD_TRAPPED)
            return waitpid(traced.pid, NULL, WNOHANG | __WALL) > 0;
        if (info.si_pid || done) return false;
        sched_yield();
    }
}

static void *trace_server(void *nothing) {
    pid_t pid = traced.pid;
    CHECK_EQ(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
    CHECK_EQ(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
    bool stands = await_stand();
    CHECK(stands);
    atomic_store(&traced.stands, true);
    while (stands && traced.made < traced.steps) {
        CHECK_EQ(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        stands = await_stand();
        traced.made += stands;
    }
    kill(pid, SIGKILL);
    return nothing;
}

static pid_t have_traceable(void) {
    begin("forkserver");
    uint32_t tag = mp_boot_at(child.boot)->server;
    end();
    return (pid_t)atomic_load(&mp_slot_at(tag % MP_SLOTS)->pid);
}

/* Killed behind `most` steps. The child that was asked for came to be, from
   it or its successor, or died with it. */
static uint64_t live_serving(uint64_t most, uint64_t *bytes) {
    pthread_t thread;
    uint32_t objects = mp_object_count();
    memset(&traced, 0, sizeof traced);
    traced.pid = have_traceable();
    traced.steps = most;
    CHECK_EQ(pthread_create(&thread, NULL, trace_server, NULL), 0);
    while (!atomic_load(&traced.stands)) sched_yield();
    begin("forkserver");
    int r;
    while ((r = mp_proc_wait(&child, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_EQ(r, 0);
    CHECK(child.exitcode == 0 || child.exitcode == -SIGKILL);
    mp_proc_close(&child);
    atomic_store(&traced.done, true);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    mp_server_end(NULL);
    mp_reap_sweep();
    CHECK_EQ(slots_in_use(), 1);
    CHECK_EQ(mp_object_count(), objects);
    CHECK_EQ(mp_fsck(MP_FSCK_QUIET, say_finding, NULL), 0);
    if (*bytes) CHECK_EQ(mp_heap_used(), *bytes);
    *bytes = mp_heap_used();
    return traced.made;
}

SPEC_WITHIN(300, "crash: start_serving, a server killed as it serves") {
    uint64_t bytes = 0;
    uint64_t all = live_serving(UINT64_MAX, &bytes);
    bool many = getenv("CRASH_ALL") != NULL;
    uint64_t lives = many ? ALL_SERVER_LIVES : SERVER_LIVES;
    for (uint64_t i = 0; i < lives; i++)
        live_serving(all * i / lives, &bytes);
    printf("start: a server serves       %ju kills at %ju points\n",
           (uintmax_t)lives, (uintmax_t)all);
    CHECK(all > 100);
}
#endif
