/* Lives and deaths: what is the same however the victim is killed. */
#include "crash.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"
#include "mem/fsck.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/futex.h"

enum { SURVEYS = 2, WORST_MS = 1000, MEDIAN_MS = 5, SLOWER = 5 };
enum { MOST_POINTS = 200 }; /* of a region that does not say */

/* What the killer and its peers share.
   go     number of the life whose work is to be done, from 1 (killer)
   begun  number of the last life whose work has begun (the peer)
   done   ... and is done
   end    ns at which that was */
typedef struct mailbox {
    _Atomic uint32_t go, begun, done;
    _Atomic int64_t end;
} mailbox;

/* How long the peers took, in one way of dying. */
typedef struct times {
    int64_t *ns;
    size_t n, cap;
} times;

/* The run under way; the killer's own but for what the pointers point to. */
static struct {
    const crash_region *region;
    crash_notes *notes;
    mailbox *box;
    mp_proc peer[CRASH_PEERS];
    uint64_t life, point;
    uint32_t victim;
    bool left, begun, giving_birth;
    uint64_t bytes;
    uint32_t objects;
    times noticed, alone;
} run;

uint64_t crash_life(void) { return run.life; }
bool crash_left(void) { return run.left; }
uint32_t crash_victim(void) { return run.victim; }
crash_notes *crash_shared(void) { return run.notes; }

/* ---- what a failure says -------------------------------------------- */

static void say_where(void) {
    char text[256];
    crash_describe(run.point, text, sizeof text);
    fprintf(stderr, "    %s, life %ju, %s\n", run.region->name,
            (uintmax_t)run.life, text);
}

static void say_finding(void *ctx, const char *finding) {
    (void)ctx;
    fprintf(stderr, "    fsck: %s\n", finding);
}

/* ---- watching processes --------------------------------------------- */

char crash_state_of(int pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = '\0';
    const char *paren = strrchr(text, ')');
    return paren ? paren[2] : 0;
}

static void nap(long ns) {
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

bool crash_await_stop(const mp_proc *victim) {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    for (int asleep = 0;;) {
        siginfo_t info = {0};
        int flags = WEXITED | WSTOPPED | WNOHANG | WNOWAIT;
        waitid(P_PID, (id_t)victim->pid, &info, flags);
        if (info.si_pid != 0) return true;
        struct timespec t = {.tv_nsec = 200000};
        if (sigtimedwait(&child, NULL, &t) >= 0) continue;
        asleep = crash_state_of(victim->pid) == 'S' ? asleep + 1 : 0;
        if (asleep == 2) return false;
    }
}

/* ---- peers ----------------------------------------------------------- */

static void unblock_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void serve(int which) {
    mailbox *box = &run.box[which];
    unblock_signals();
    for (uint32_t seen = 0;;) {
        uint32_t go = atomic_load(&box->go);
        if (go == seen) {
            mp_futex_wait(&box->go, go, MP_FOREVER);
            continue;
        }
        if (go == UINT32_MAX) mp_proc_exit(0);
        atomic_store(&box->begun, go);
        run.life = go - 1;
        run.region->peer(which);
        atomic_store(&box->end, mp_now_ns());
        atomic_store(&box->done, seen = go);
        mp_futex_wake(&box->done, 1);
    }
}

static void start_peers(void) {
    for (int i = 0; i < run.region->peers; i++) {
        int r = mp_proc_fork(&run.peer[i], 0);
        CHECK_OK(r);
        if (r == 1) serve(i);
    }
}

static void tell_peers(uint32_t go) {
    for (int i = 0; i < run.region->peers; i++) {
        atomic_store(&run.box[i].go, go);
        mp_futex_wake(&run.box[i].go, 1);
    }
}

static bool is_busy(int i) {
    const mailbox *box = &run.box[i];
    if (atomic_load(&box->done) == atomic_load(&box->go)) return false;
    return atomic_load(&box->begun) != atomic_load(&box->go) ||
           crash_state_of(run.peer[i].pid) != 'S';
}

void crash_begin_peers(void) {
    if (!run.begun) tell_peers((uint32_t)run.life + 1);
    run.begun = true;
    crash_await_rest();
}

void crash_await_rest(void) {
    double end = spec_now() + 5;
    for (int i = 0; i < run.region->peers; i++)
        while (is_busy(i)) {
            CHECK(spec_now() < end);
            nap(20000);
        }
}

/* Until all have done their work; the time they took since `start`. */
static int64_t await_peers(int64_t start) {
    int64_t most = WORST_MS * 1000000LL * (spec_sanitized() ? SLOWER : 1);
    int64_t last = start;
    mp_deadline deadline = {start + most};
    for (int i = 0; i < run.region->peers; i++) {
        mailbox *box = &run.box[i];
        uint32_t done, go = atomic_load(&box->go);
        while ((done = atomic_load(&box->done)) != go)
            if (mp_futex_wait(&box->done, done, deadline) == -ETIMEDOUT)
                spec_fail(__FILE__, __LINE__, "peer %d hangs (%c)", i,
                          crash_state_of(run.peer[i].pid));
        int64_t end = atomic_load(&box->end);
        if (end > last) last = end;
    }
    return last - start;
}

static int await_end(mp_proc *proc) {
    mp_deadline deadline = mp_deadline_in(10);
    int r;
    while ((r = mp_proc_wait(proc, deadline)) == -EINTR) {
    }
    CHECK_OK(r);
    mp_proc_close(proc);
    return proc->exitcode;
}

static void end_peers(void) {
    tell_peers(UINT32_MAX);
    for (int i = 0; i < run.region->peers; i++)
        CHECK_EQ(await_end(&run.peer[i]), 0);
}

/* ---- one life -------------------------------------------------------- */

/* The last of the fork handlers: those of the runtime were registered
   before. */
static void on_birth(void) {
    if (!run.giving_birth) return;
    unblock_signals();
    crash_enter();
}

static void begin_in_victim(const crash_region *region) {
    if (!region->from_birth) unblock_signals();
    if (region->begin) region->begin();
    /* Stepping takes so long that a short slice would always be over. */
    mp_me->first_slice_ns = MP_SLICE_NS;
    if (!region->from_birth) crash_enter();
}

mp_proc crash_fork_victim(const crash_region *region) {
    mp_proc victim;
    run.giving_birth = region->from_birth;
    int r = mp_proc_fork(&victim, 0);
    CHECK_OK(r);
    if (r == 1) {
        begin_in_victim(region);
        region->run();
        crash_leave();
        mp_proc_exit(0);
    }
    run.giving_birth = false;
    run.victim = victim.tag;
    return victim;
}

static void note_time(times *t, int64_t ns) {
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 1024;
        t->ns = realloc(t->ns, t->cap * sizeof *t->ns);
        CHECK(t->ns != NULL);
    }
    t->ns[t->n++] = ns;
}

static bool is_peer(pid_t pid) {
    for (int i = 0; i < run.region->peers; i++)
        if (pid == run.peer[i].pid) return true;
    return false;
}

/* Have I a child, alive or not, besides the peers? */
static bool has_orphans(void) {
    char path[64], text[1024], *at = text;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    for (long pid; (pid = strtol(at, &at, 10)) > 0;)
        if (!is_peer((pid_t)pid)) return true;
    return false;
}

/* Those that the victim forked become the killer's when it dies, and die,
   too. */
static void await_orphans(void) {
    double end = spec_now() + 5;
    for (; has_orphans(); nap(20000)) {
        siginfo_t info = {0};
        waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
        if (is_peer(info.si_pid))
            spec_fail(__FILE__, __LINE__, "a peer has died");
        if (info.si_pid) waitpid(info.si_pid, NULL, WNOHANG);
        if (spec_now() > end)
            spec_fail(__FILE__, __LINE__, "a child of the victim lives on");
    }
}

void crash_fsck(void) {
    if (mp_fsck(MP_FSCK_QUIET, say_finding, NULL) != 0)
        spec_fail(__FILE__, __LINE__, "the arena is damaged");
}

/* The arena is as it was before this life, to the byte. */
static void look_at_arena(void) {
    crash_fsck();
    if (run.life < SURVEYS) {
        run.bytes = mp_heap_used();
        run.objects = mp_object_count();
    }
    CHECK_EQ(mp_heap_used(), run.bytes);
    CHECK_EQ(mp_object_count(), run.objects);
}

static void prepare_life(void) {
    memset(run.notes, 0, sizeof *run.notes);
    run.begun = false;
    if (run.region->ready) run.region->ready();
}

/* The victim is dead or about to be: the peers work, with or without a
   parent that notices; then all is looked at. */
static void finish_life(mp_proc *victim, int64_t start, bool notice) {
    times *t = notice ? &run.noticed : &run.alone;
    if (run.region->after) run.region->after();
    if (!run.begun) tell_peers((uint32_t)run.life + 1);
    if (notice) await_end(victim);
    int64_t took = await_peers(start);
    if (run.region->peers) note_time(t, took);
    if (!notice) await_end(victim);
    int wanted = run.left ? 0 : -SIGKILL;
    if (victim->exitcode != wanted)
        spec_fail(__FILE__, __LINE__, "the victim ended with %d, not %d",
                  victim->exitcode, wanted);
    await_orphans();
    mp_reap_sweep();
    if (run.region->check) run.region->check();
    look_at_arena();
    run.life++;
}

static void live(uint64_t point, bool notice) {
    mp_proc victim;
    run.point = point;
    prepare_life();
    run.left = !crash_kill_at(run.region, point, &victim);
    finish_life(&victim, mp_now_ns(), notice);
}

/* A life without an early death, in which the points are noted. The first
   two may also make what stays in the arena, as a page of a ledger; so the
   bytes are noted, and compared later. */
static void survey(void) {
    mp_proc victim;
    run.point = UINT64_MAX;
    prepare_life();
    run.left = crash_survey(run.region, &victim);
    finish_life(&victim, mp_now_ns(), true);
    run.noticed.n = 0;
}

/* ---- a region -------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void report_times(const char *words, times *t) {
    if (t->n == 0) return;
    qsort(t->ns, t->n, sizeof *t->ns, by_size);
    double median = (double)t->ns[t->n / 2] / 1e6;
    double worst = (double)t->ns[t->n - 1] / 1e6;
    size_t late = 0;
    for (size_t i = 0; i < t->n; i++) late += t->ns[i] > MEDIAN_MS * 1000000;
    printf(", %s %.2f ms (worst %.1f, %zu over %d)", words, median, worst,
           late, MEDIAN_MS);
    if (median > MEDIAN_MS * (spec_sanitized() ? SLOWER : 1))
        spec_fail(__FILE__, __LINE__, "%s: peers take %.2f ms, not %d",
                  words, median, MEDIAN_MS);
    free(t->ns);
}

static void set_up(const crash_region *region) {
    memset(&run, 0, sizeof run);
    run.region = region;
    run.notes = spec_shared(sizeof *run.notes);
    run.box = spec_shared(sizeof *run.box * CRASH_PEERS);
    spec_on_failure(say_where);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    mp_cpu_several(); /* noted before any pinning */
    CHECK_EQ(pthread_atfork(NULL, NULL, on_birth), 0);
    if (region->set_up) region->set_up();
    start_peers();
}

/* Of so many points out of `n` as are tried, is `i` one? */
static bool is_tried(const crash_region *region, uint64_t i, uint64_t n) {
    uint64_t most = region->most ? region->most : MOST_POINTS;
    return n <= most || getenv("CRASH_ALL") != NULL ||
           i * most / n != (i + 1) * most / n;
}

static void block_child_signal(sigset_t *before) {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, before);
}

void crash_run(const crash_region *region) {
    const char *missing = crash_driver_missing();
    if (missing) {
        printf("%s: not tried, %s\n", region->name, missing);
        return;
    }
    sigset_t before;
    block_child_signal(&before);
    set_up(region);
    for (int i = 0; i < SURVEYS; i++) survey();
    uint64_t all, killed = 0, tried = 0, points = crash_points(&all);
    for (uint64_t i = 0; i < points; i++) {
        if (!is_tried(region, i, points)) continue;
        live(i, tried++ % 2 == 0);
        killed += !run.left;
    }
    printf("%-40s %5ju kills at %ju of %ju points", region->name,
           (uintmax_t)killed, (uintmax_t)tried, (uintmax_t)all);
    report_times("noticed", &run.noticed);
    report_times("alone", &run.alone);
    printf("\n");
    CHECK(killed > 0);
    end_peers();
    if (region->tear_down) region->tear_down();
    sigprocmask(SIG_SETMASK, &before, NULL);
}
