/* A new program finds the arena under the number MP_SPAWN_ARENA, and its boot
   block by the number that its arguments tell.

   Whether a program is one that can take part shows when it does. So the
   first start of a path waits for that, and each program that has passed is
   remembered; the later starts of it cost the parent no more than the
   kernel's work. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/slot.h"
#include "os/child.h"
#include "os/futex.h"
#include "os/program.h"
#include "proc/boot.h"
#include "proc/spawn.h"

_Static_assert((int)MP_SPAWN_ARENA == (int)MP_PROGRAM_FIRST_FD, "first");
_Static_assert((int)MP_SPAWN_SHELF == (int)MP_SPAWN_ARENA + 1, "behind it");

static const double CLAIM_SECONDS = 5; /* a program has to take part */
static const double READY_SECONDS = 60; /* what it does first may take */
enum { LOOK_NS = 5000000 }; /* how late the end of one is seen */

void mp_spawn_problem(const mp_start *start, const char *fmt, ...) {
    va_list args;
    if (!start->problem) return;
    va_start(args, fmt);
    vsnprintf(start->problem, MP_BOOT_PROBLEM, fmt, args);
    va_end(args);
}

/* ---- arguments ------------------------------------------------------- */

/* Copies `from`, with numbers for the words; returns the end. */
static char *fill_in(char *to, const char *from, mp_ref boot) {
    while (*from) {
        if (strncmp(from, "BOOT_FD", 7) == 0) {
            to += sprintf(to, "%d", MP_SPAWN_ARENA);
            from += 7;
        } else if (strncmp(from, "BOOT_REF", 8) == 0) {
            /* All 64 bits, as Lua reads them. */
            to += sprintf(to, "0x%016" PRIx64, boot);
            from += 8;
        } else if (strncmp(from, "BOOT_TEXT", 9) == 0) {
            to += sprintf(to, "%zu", offsetof(mp_super_shm, complaint));
            from += 9;
        } else {
            *to++ = *from++;
        }
    }
    *to++ = '\0';
    return to;
}

/* The arguments with the words filled in, as one block of malloc. */
static const char **make_argv(const char *const *argv, mp_ref boot) {
    size_t n = 0, bytes = 0;
    for (; argv[n]; n++) bytes += 3 * strlen(argv[n]) + 1;
    const char **made = malloc((n + 1) * sizeof *made + bytes);
    if (!made) return NULL;
    char *at = (char *)(made + n + 1);
    for (size_t i = 0; i < n; i++) {
        made[i] = at;
        at = fill_in(at, argv[i], boot);
    }
    made[n] = NULL;
    return made;
}

int mp_spawn(mp_proc *proc, const mp_start *start, mp_ref boot, int socket) {
    const char **argv = make_argv(start->argv, boot);
    if (!argv) return -ENOMEM;
    mp_spawn_problem(start, "%s", ""); /* of one that was started before */
    atomic_store_explicit(&mp_me->super->complaint[0], 0,
                          memory_order_relaxed);
    /* Where there is no shelf, something stands in its place that none can
       be taken for. */
    int none = mp_me->null < 0 ? mp_me->fd : mp_me->null;
    const int *shelf = mp_me->shelf;
    const int fds[] = {mp_me->fd, shelf[0] < 0 ? none : shelf[0],
                       shelf[1] < 0 ? none : shelf[1], socket};
    const mp_program program = {
        .argv = argv,
        .stdin_fd = start->flags & MP_PROC_KEEP_STDIN ? STDIN_FILENO
                                                      : mp_me->null,
        .fd = fds,
        .n = socket < 0 ? 3 : 4};
    /* What we said before comes out before what it says. */
    fflush(stdout);
    fflush(stderr);
    pid_t pid;
    int r = mp_program_start(&program, &pid);
    free(argv);
    if (r < 0) {
        mp_spawn_problem(start, "%.150s", start->argv[0]);
        return r;
    }
    int pidfd = mp_child_pidfd(pid);
    *proc = (mp_proc){.method = mp_start_method_named("spawn"),
                      .pid = pid,
                      .parent = getpid(),
                      .pidfd = pidfd < 0 ? -1 : pidfd,
                      .tag = mp_boot_at(boot)->tag,
                      .boot = boot};
    return 0;
}

/* ---- the first time --------------------------------------------------- */

static bool has_ended(const mp_proc *proc) {
    return proc->pidfd >= 0 ? mp_child_sleep(proc->pidfd, MP_AT_ONCE) == 0
                            : mp_child_gone(proc->pid);
}

/* Kills and buries one that will not do. Its exit status stays in *proc. */
static int reject(mp_proc *proc) {
    mp_proc_signal(proc, SIGKILL);
    int r;
    do r = mp_proc_wait(proc, MP_FOREVER);
    while (r == -EINTR);
    mp_proc_close(proc);
    return -EPROTO;
}

/* What stands in the block: the child's own words. */
static void copy_words(const mp_proc *proc, char *words) {
    memcpy(words, mp_boot_at(proc->boot)->problem, MP_BOOT_PROBLEM);
    words[MP_BOOT_PROBLEM - 1] = '\0';
}

_Static_assert((int)MP_COMPLAINT == (int)MP_BOOT_PROBLEM,
               "one buffer holds either");

/* What a program said that never took part. */
static void copy_complaint(char *words) {
    for (size_t i = 0; i < MP_COMPLAINT / 8; i++) {
        uint64_t eight = atomic_load_explicit(&mp_me->super->complaint[i],
                                              memory_order_relaxed);
        memcpy(words + 8 * i, &eight, 8);
    }
    words[MP_COMPLAINT - 1] = '\0';
}

/* It took part, or not, and may have said why. */
static int reject_ended(mp_proc *proc, const mp_start *start, bool claimed) {
    char words[MP_BOOT_PROBLEM];
    copy_words(proc, words);
    if (!claimed && !*words) copy_complaint(words);
    int r = reject(proc);
    bool killed = proc->exitcode < 0;
    if (*words)
        mp_spawn_problem(start, "%.120s cannot take part: %s", start->argv[0],
                         words);
    else
        mp_spawn_problem(start, "%.120s ended %s %d%s", start->argv[0],
                         killed ? "by signal" : "with exit code",
                         killed ? -proc->exitcode : proc->exitcode,
                         claimed  ? " before it was ready"
                         : killed ? " before it took part"
                                  : ": it is no Lua 5.4 that can require mp");
    return proc->exitcode == -SIGKILL ? -EOWNERDEAD : r;
}

static int reject_refused(mp_proc *proc, const mp_start *start) {
    char words[MP_BOOT_PROBLEM];
    copy_words(proc, words);
    /* The first lines of a traceback fit; the program is known. */
    mp_spawn_problem(start, "%s", words);
    return reject(proc);
}

int mp_spawn_await(mp_proc *proc, const mp_start *start, uint32_t state) {
    mp_boot_shm *boot = mp_boot_at(proc->boot);
    mp_deadline claim = mp_deadline_in(CLAIM_SECONDS);
    mp_deadline ready = mp_deadline_in(READY_SECONDS);
    for (;;) {
        /* Before the state: what it has told, it told before its end. */
        bool ended = has_ended(proc);
        uint32_t now = atomic_load(&boot->state);
        if (now == state) return 0;
        if (now == MP_BOOT_REFUSED) return reject_refused(proc, start);
        if (ended) return reject_ended(proc, start, now != MP_BOOT_NEW);
        mp_deadline end = now == MP_BOOT_NEW ? claim : ready;
        if (mp_deadline_passed(end)) {
            mp_spawn_problem(start, "%.120s runs, but %s", start->argv[0],
                             now == MP_BOOT_NEW ? "does not begin"
                                                : "does not get ready");
            return reject(proc);
        }
        mp_futex_wait(&boot->state, now, mp_deadline_slice(end, LOOK_NS));
    }
}

/* ---- the method ------------------------------------------------------ */

/* Programs that have passed, by path; the list only grows. Process-local, and
   global since what they are depends on nothing else. */
typedef struct passed {
    struct passed *next;
    char path[];
} passed;

static passed *_Atomic programs;

static bool has_passed(const char *path) {
    for (const passed *p = atomic_load(&programs); p; p = p->next)
        if (strcmp(p->path, path) == 0) return true;
    return false;
}

static void note_passed(const char *path) {
    size_t n = strlen(path) + 1;
    passed *p = malloc(sizeof *p + n);
    if (!p) return; /* it is looked at again */
    memcpy(p->path, path, n);
    p->next = atomic_load(&programs);
    while (!atomic_compare_exchange_weak(&programs, &p->next, p)) {
    }
}

int mp_start_spawn(mp_proc *proc, const mp_start *start) {
    mp_ref boot;
    if (!mp_me) return -EOWNERDEAD;
    if (!start->argv || !start->argv[0]) return -EINVAL;
    int r = mp_boot_make(start, &boot);
    if (r < 0) return r;
    r = mp_spawn(proc, start, boot, -1);
    if (r < 0) {
        mp_boot_free(boot);
        return r;
    }
    if (has_passed(start->argv[0])) return 0;
    r = mp_spawn_await(proc, start, MP_BOOT_CLAIMED);
    if (r == 0) note_passed(start->argv[0]);
    return r;
}
