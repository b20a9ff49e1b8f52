/* The parent runs one spec after another, each in a child, under a
   deadline that the parent keeps; failures are counted in shared memory.
   The parent is the subreaper of all that specs leave behind, so it can
   tell what outlives them and end it. */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mem/arena.h"
#include "mem/fsck.h"
#include "mem/heap.h"
#include "mem/reap.h"
#include "proc/start.h"

enum {
    PASSED = 98,   /* exit code of a spec that came to its end */
    FAILED = 99,   /* of a process that a check ended */
    MOST_FDS = 1024,
    GRACE = 2,     /* seconds that what a spec started has to end */
    SLOWER = 5     /* how much more time sanitizers get */
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

#if defined(__SANITIZE_THREAD__)
/* A report ends its process, and so the spec: one that goes on and ends by
   _exit would keep it to itself. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "halt_on_error=1"; }
#endif

/* In gcc's and clang's leak sanitizer; absent in a plain build. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

/* --- registry ---------------------------------------------------------- */

static spec *specs;

static struct {
    const char *file;
    void (*run)(void);
} prepares[64];
static size_t prepares_count;

/* What every process of a run shares: checks that failed in the spec that
   runs, in whichever process. */
static _Atomic int *failures;

/* Sorted by file and line, for constructors run in no useful order. */
void spec_add(spec *s) {
    spec **at = &specs;
    while (*at != NULL && (strcmp((*at)->file, s->file) < 0 ||
                           (strcmp((*at)->file, s->file) == 0 &&
                            (*at)->line < s->line)))
        at = &(*at)->next;
    s->next = *at;
    *at = s;
}

void spec_add_prepare(const char *file, void (*prepare)(void)) {
    if (prepares_count == sizeof prepares / sizeof prepares[0])
        abort();
    prepares[prepares_count].file = file;
    prepares[prepares_count++].run = prepare;
}

static struct {
    const char *word;
    int (*run)(int argc, char **argv);
} program;

void spec_add_program(const char *word, int (*run)(int argc, char **argv)) {
    program.word = word;
    program.run = run;
}

/* --- checks ------------------------------------------------------------ */

static void (*say_more)(void);

void spec_on_failure(void (*say)(void)) { say_more = say; }

static void complain(const char *file, int line, const char *fmt,
                     va_list args) {
    char text[2048];
    int n = snprintf(text, sizeof text, "    %s:%d: ", file, line);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, args);
    fprintf(stderr, "%s\n", text);
    if (say_more) say_more();
    (*failures)++;
}

void spec_fail(const char *file, int line, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    complain(file, line, fmt, args);
    va_end(args);
    _exit(FAILED);
}

/* A failure after the spec: noted, and the next check is made. */
__attribute__((format(printf, 2, 3))) static void
note(const spec *s, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    complain(s->file, s->line, fmt, args);
    va_end(args);
}

void spec_check_eq(const char *file, int line, const char *what,
                   intmax_t got, intmax_t wanted) {
    if (got != wanted)
        spec_fail(file, line, "%s is %jd, not %jd%s%s", what, got, wanted,
                  got < 0 && got > -200 ? ": " : "",
                  got < 0 && got > -200 ? strerror((int)-got) : "");
}

void spec_check_str(const char *file, int line, const char *what,
                    const char *got, const char *wanted) {
    if (got == NULL || wanted == NULL ? got != wanted : strcmp(got, wanted))
        spec_fail(file, line, "%s is «%s», not «%s»", what,
                  got ? got : "(null)", wanted ? wanted : "(null)");
}

void spec_check_ok(const char *file, int line, const char *what,
                   intmax_t result) {
    if (result < 0)
        spec_fail(file, line, "%s failed: %jd, %s", what, result,
                  strerror((int)-result));
}

/* --- processes and time ------------------------------------------------ */

double spec_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void spec_pause(void) {
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* How much more time things get. */
static int slower(void) {
    const char *told = getenv("SPEC_SLOWER");
    int n = told ? atoi(told) : 0;
    return n > 0 ? n : SANITIZED ? SLOWER : 1;
}

/* How much longer a spec may last that does more, by SPEC_LONGER. */
static int longer(void) {
    const char *told = getenv("SPEC_LONGER");
    int n = told ? atoi(told) : 0;
    return n > 0 ? n : 1;
}

bool spec_sanitized(void) { return slower() > 1; }

bool spec_valgrind(void) { return getenv("SPEC_VALGRIND") != NULL; }

bool spec_has_pidfds(void) {
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

pid_t spec_fork(void (*work)(void *), void *argument) {
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        spec_fail(__FILE__, __LINE__, "fork: %s", strerror(errno));
    if (pid == 0) {
        /* Not a moment longer than the spec: it may be one that kills. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
        work(argument);
        fflush(NULL);
        _exit(0);
    }
    return pid;
}

int spec_wait(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            spec_fail(__FILE__, __LINE__, "waitpid(%d): %s", (int)pid,
                      strerror(errno));
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void spec_kill(pid_t pid) {
    kill(pid, SIGKILL);
    spec_wait(pid);
}

void *spec_shared(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        spec_fail(__FILE__, __LINE__, "mmap(%zu): %s", size,
                  strerror(errno));
    return p;
}

/* --- what a spec must leave as it was ---------------------------------- */

typedef struct state {
    bool fds[MOST_FDS];
    sigset_t mask;
    char directory[4096];
    uint64_t heap;
} state;

static void look_at_fds(bool *fds) {
    memset(fds, 0, MOST_FDS * sizeof *fds);
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        int fd = atoi(e->d_name);
        if (e->d_name[0] != '.' && fd != dirfd(dir) && fd < MOST_FDS)
            fds[fd] = true;
    }
    if (dir != NULL)
        closedir(dir);
}

static void look(state *s) {
    look_at_fds(s->fds);
    sigprocmask(SIG_SETMASK, NULL, &s->mask);
    if (getcwd(s->directory, sizeof s->directory) == NULL)
        s->directory[0] = '\0';
    s->heap = mp_me != NULL ? mp_heap_used() : 0;
}

static void note_open(const spec *s, int fd) {
    char path[64], target[256];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, target, sizeof target - 1);
    target[n > 0 ? n : 0] = '\0';
    note(s, "left descriptor %d open: %s", fd, target);
}

static void compare_fds(const spec *s, const state *before,
                        const state *after) {
    for (int fd = 0; fd < MOST_FDS; fd++) {
        if (after->fds[fd] && !before->fds[fd])
            note_open(s, fd);
        if (before->fds[fd] && !after->fds[fd])
            note(s, "closed descriptor %d of others", fd);
    }
}

static void compare_masks(const spec *s, const state *before,
                          const state *after) {
    for (int sig = 1; sig < SIGRTMAX; sig++)
        if (sigismember(&before->mask, sig) !=
            sigismember(&after->mask, sig))
            note(s, "left signal %d %s", sig,
                 sigismember(&after->mask, sig) ? "blocked" : "unblocked");
}

/* Children, zombies too, that the spec should have waited for. */
static void compare_children(const spec *s) {
    siginfo_t info = {0};
    int flags = WEXITED | WSTOPPED | WNOHANG | WNOWAIT;
    if (waitid(P_ALL, 0, &info, flags) != 0)
        return; /* ECHILD, as it should be */
    if (info.si_pid != 0)
        note(s, "left a zombie: %d", (int)info.si_pid);
    else
        note(s, "left a live child");
}

static void note_finding(void *ctx, const char *finding) {
    note(ctx, "left an arena that is not right: %s", finding);
}

/* What the dead held is given back by whoever looks for them. */
static void compare_heap(const spec *s, const state *before) {
    double end = spec_now() + GRACE * slower();
    uint64_t used;
    if (mp_me == NULL || before->heap == 0)
        return;
    do {
        mp_reap_sweep();
        used = mp_heap_used();
        if (used <= before->heap && mp_fsck(MP_FSCK_QUIET, NULL, NULL) == 0)
            return;
        spec_pause();
    } while (spec_now() < end);
    if (used > before->heap)
        note(s, "left %ju bytes in the arena", used - before->heap);
    mp_fsck(MP_FSCK_QUIET, note_finding, (void *)(uintptr_t)s);
}

static void compare(const spec *s, const state *before) {
    state after;
    compare_children(s);
    compare_heap(s, before);
    look(&after);
    compare_fds(s, before, &after);
    compare_masks(s, before, &after);
    if (strcmp(before->directory, after.directory) != 0)
        note(s, "left the working directory at %s", after.directory);
    if (__lsan_do_recoverable_leak_check != NULL &&
        __lsan_do_recoverable_leak_check() != 0)
        note(s, "left memory that nothing points to");
}

/* --- running one ------------------------------------------------------- */

_Noreturn static void run_in_child(const spec *s) {
    state before;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; i < prepares_count; i++)
        if (strcmp(prepares[i].file, s->file) == 0)
            prepares[i].run();
    look(&before);
    s->run();
    if (*failures == 0)
        compare(s, &before);
    mp_start_join();
    fflush(NULL);
    _exit(*failures ? FAILED : PASSED);
}

/* Waits for the spec's process until `end`; false when it is too late. */
static bool wait_until(pid_t pid, double end, int *status) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    while (fd < 0) { /* a kernel, or an emulator, without them */
        if (waitpid(pid, status, WNOHANG) == pid) return true;
        if (spec_now() > end) return false;
        spec_pause();
    }
    struct pollfd p = {.fd = fd, .events = POLLIN};
    double left = end - spec_now();
    int n = poll(&p, 1, left > 0 ? (int)(left * 1000) + 1 : 0);
    close(fd);
    return n == 1 && waitpid(pid, status, 0) == pid;
}

/* Descendants that outlive the spec have become our children. Waits for
   them until `end`; returns whether none is left. */
static bool wait_for_orphans(double end) {
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0)
            return true; /* ECHILD */
        if (pid == 0 && spec_now() >= end)
            return false;
        if (pid == 0)
            spec_pause();
    }
}

static void kill_orphans(void) {
    char path[64], pids[4096] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    while (waitpid(-1, NULL, WNOHANG) >= 0) {
        FILE *file = fopen(path, "r");
        size_t n = file ? fread(pids, 1, sizeof pids - 1, file) : 0;
        pids[n] = '\0';
        if (file != NULL)
            fclose(file);
        for (char *p = pids; *p != '\0';) {
            pid_t pid = (pid_t)strtol(p, &p, 10);
            if (pid > 0)
                kill(pid, SIGKILL);
            p += strspn(p, " \n");
        }
        spec_pause();
    }
}

static void judge(const spec *s, bool in_time, int status, int seconds) {
    if (!in_time)
        note(s, "did not end in %d s", seconds);
    else if (WIFSIGNALED(status))
        note(s, "was ended by signal %d (%s)", WTERMSIG(status),
             strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != PASSED && *failures == 0)
        note(s, "ended early, by exit code %d", WEXITSTATUS(status));
}

/* Runs a spec; returns whether it passed. */
static bool run(const spec *s) {
    int status = 0, seconds = s->seconds * slower() * longer();
    *failures = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_in_child(s);
    if (pid < 0) {
        note(s, "fork: %s", strerror(errno));
        return false;
    }
    setpgid(pid, pid); /* in both, for whoever comes first */
    bool in_time = wait_until(pid, spec_now() + seconds, &status);
    judge(s, in_time, status, seconds);
    if (!in_time)
        kill(-pid, SIGKILL);
    if (!wait_for_orphans(spec_now() + (*failures ? 0 : GRACE * slower()))) {
        if (*failures == 0)
            note(s, "left processes that run on after %d s",
                 GRACE * slower());
        kill_orphans();
    }
    return *failures == 0;
}

/* --- the program ------------------------------------------------------- */

static bool chosen(const spec *s, const char *words) {
    return words == NULL || strstr(s->name, words) != NULL ||
           strstr(s->file, words) != NULL;
}

int main(int argc, char **argv) {
    if (program.run && argc > 1 && strcmp(argv[1], program.word) == 0)
        return program.run(argc, argv);
    bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    const char *words = argc > 1 + verbose ? argv[1 + verbose] : NULL;
    int passed = 0, failed = 0;
    failures = spec_shared(sizeof *failures);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (spec *s = specs; s != NULL; s = s->next) {
        if (!chosen(s, words))
            continue;
        double start = spec_now();
        bool ok = run(s);
        passed += ok;
        failed += !ok;
        if (verbose || !ok)
            printf("%s %s (%.2f s)\n", ok ? "ok  " : "FAIL", s->name,
                   spec_now() - start);
        fflush(stdout);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
