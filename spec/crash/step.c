/* Points are instructions: the victim is traced, and stepped once through
   its region to note them. To come to a point again, it runs to a breakpoint
   of the processor and passes it as often as it did before; and what is
   passed too often (a loop's body) is reached by single steps from a better
   place. A stop costs some 50 us, so a life costs a millisecond. */
#include "driver.h"

#if defined(__x86_64__) && !defined(CRASH_ACCESS)

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FIRST = 2,    /* runs of an instruction that are always points */
    SAMPLE = 32,  /* ... and one of so many others; fewer in a long loop, whose
                     later rounds take long to come to */
    MOST = 4000000,
    MOST_SLEEPS = 1000,
    VDSO_SIZE = 65536 /* it is smaller, and so are the gaps around it */
};

enum { STEP, ASLEEP, WOKEN };

/* kind    STEP before an instruction; ASLEEP, WOKEN in sleep number `at`
   at      STEP: its number in the trace, for words only
   pc, passes, steps  run until `pc` is met `passes` times, then so many
           single steps; passes 0: single steps from the beginning */
typedef struct point {
    int kind;
    uint32_t passes, steps;
    uint64_t at, pc;
} point;

static struct {
    uint64_t *pc; /* [0]: where the region begins */
    size_t n, cap;
    int sleeps;
    bool ends_asleep;
    point *points;
    size_t n_points, cap_points;
} trace;

const char *crash_driver_missing(void) { return NULL; }

/* ---- the victim's side ----------------------------------------------- */

void crash_enter(void) {
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    __asm__ __volatile__("int3" ::: "memory");
}

__attribute__((noinline)) void crash_leave(void) {
    __asm__ __volatile__("nop" ::: "memory");
}

/* ---- moving a victim ------------------------------------------------- */

static uint64_t pc_of(const mp_proc *v) {
    return (uint64_t)ptrace(PTRACE_PEEKUSER, v->pid,
                            offsetof(struct user, regs.rip), NULL);
}

static uint64_t stack_of(const mp_proc *v) {
    return (uint64_t)ptrace(PTRACE_PEEKUSER, v->pid,
                            offsetof(struct user, regs.rsp), NULL);
}

static void set_debug(const mp_proc *v, int number, uint64_t value) {
    size_t at = offsetof(struct user, u_debugreg) +
                (size_t)number * sizeof(uint64_t);
    CHECK_EQ(ptrace(PTRACE_POKEUSER, v->pid, at, value), 0);
}

static uint64_t leave_pc(void) {
    return (uint64_t)(uintptr_t)&crash_leave;
}

/* Breakpoints at `pc` (0: none) and at the region's end. */
static void set_breakpoints(const mp_proc *v, uint64_t pc) {
    set_debug(v, 7, 0);
    set_debug(v, 0, pc);
    set_debug(v, 1, leave_pc());
    set_debug(v, 7, 4 | (pc ? 1 : 0));
}

enum { MOVED, SLEEPS };

/* Lets it run by `request` until it stops again or sleeps. */
static int await_stop(const mp_proc *v) {
    if (!crash_await_stop(v)) return SLEEPS;
    int status;
    CHECK_EQ(waitpid(v->pid, &status, __WALL), v->pid);
    if (!WIFSTOPPED(status))
        spec_fail(__FILE__, __LINE__, "the victim ended in the region: %x",
                  status);
    if (WSTOPSIG(status) != SIGTRAP)
        spec_fail(__FILE__, __LINE__, "the victim got signal %d",
                  WSTOPSIG(status));
    return MOVED;
}

static int move(const mp_proc *v, int request) {
    CHECK_EQ(ptrace(request, v->pid, NULL, NULL), 0);
    return await_stop(v);
}

/* The length of a repeated string instruction at `pc`, else 0: it stops
   after each of its rounds. */
static unsigned repeats(const mp_proc *v, uint64_t pc) {
    uint64_t word = (uint64_t)ptrace(PTRACE_PEEKTEXT, v->pid, pc, NULL);
    unsigned n = 1;
    if ((word & 0xff) != 0xf3 && (word & 0xff) != 0xf2) return 0;
    if ((word >> 8 & 0xf8) == 0x48) n++;
    unsigned code = word >> (8 * n) & 0xff;
    return (code >= 0xa4 && code <= 0xa7) || (code >= 0xaa && code <= 0xaf)
               ? n + 1
               : 0;
}

static mp_proc start_victim(const crash_region *region) {
    mp_proc v = crash_fork_victim(region);
    CHECK_EQ(await_stop(&v), MOVED);
    if (region->poised) region->poised();
    return v;
}

/* The kernel's page of code that tells the time begins again when a tick has
   passed meanwhile, which stepping makes sure of; and it stores nothing. */
static bool is_in_vdso(uint64_t pc) {
    uint64_t base = getauxval(AT_SYSINFO_EHDR);
    return base != 0 && pc - base < VDSO_SIZE;
}

static int run_to(const mp_proc *v, uint64_t pc) {
    set_breakpoints(v, pc);
    int r = move(v, PTRACE_CONT);
    set_breakpoints(v, 0);
    return r;
}

/* One instruction; all rounds of a repeated one, all of a call for the
   time. */
static int step(const mp_proc *v) {
    uint64_t pc = pc_of(v);
    int r = move(v, PTRACE_SINGLESTEP);
    if (r != MOVED) return r;
    if (is_in_vdso(pc_of(v)))
        return run_to(v, (uint64_t)ptrace(PTRACE_PEEKTEXT, v->pid,
                                          stack_of(v), NULL));
    unsigned n = pc_of(v) == pc ? repeats(v, pc) : 0;
    return n ? run_to(v, pc + n) : r;
}

/* One that was woken may be running: `dying` looks at one that stands. */
static void put_to_death(const crash_region *region, mp_proc *v) {
    siginfo_t info = {0};
    if (region->dying && crash_state_of(v->pid) != 't') {
        mp_proc_signal(v, SIGSTOP);
        waitid(P_PID, (id_t)v->pid, &info, WEXITED | WSTOPPED | WNOWAIT);
    }
    if (region->dying) region->dying();
    mp_proc_signal(v, SIGKILL);
}

/* The victim came to its end: it goes on alone. */
static void let_go(const mp_proc *v) {
    set_debug(v, 7, 0);
    CHECK_EQ(ptrace(PTRACE_DETACH, v->pid, NULL, NULL), 0);
}

/* ---- noting the points ----------------------------------------------- */

static void note_pc(uint64_t pc) {
    if (trace.n == trace.cap) {
        trace.cap = trace.cap ? trace.cap * 2 : 4096;
        CHECK(trace.cap <= MOST);
        trace.pc = realloc(trace.pc, trace.cap * sizeof *trace.pc);
        CHECK(trace.pc != NULL);
    }
    trace.pc[trace.n++] = pc;
}

static void add_point(point p) {
    if (trace.n_points == trace.cap_points) {
        trace.cap_points = trace.cap_points ? trace.cap_points * 2 : 1024;
        trace.points = realloc(trace.points,
                               trace.cap_points * sizeof *trace.points);
        CHECK(trace.points != NULL);
    }
    trace.points[trace.n_points++] = p;
}

bool crash_survey(const crash_region *region, mp_proc *victim) {
    mp_proc v = *victim = start_victim(region);
    trace.n = 0;
    trace.sleeps = 0;
    trace.ends_asleep = false;
    set_breakpoints(&v, 0);
    for (uint64_t pc; (pc = pc_of(&v)) != leave_pc();) {
        note_pc(pc);
        for (int r = step(&v); r == SLEEPS; r = await_stop(&v)) {
            trace.ends_asleep = !region->wake;
            if (trace.ends_asleep) break;
            region->wake(trace.sleeps++);
        }
        if (trace.ends_asleep) break;
    }
    if (trace.ends_asleep) {
        trace.sleeps = 1;
        put_to_death(region, &v);
    } else {
        let_go(&v);
    }
    return !trace.ends_asleep;
}

/* How often the instruction at each place of the trace ran before, and in
   all: an open hash by pc. */
typedef struct seen {
    uint64_t pc;
    uint32_t so_far, all;
} seen;

static seen *find_seen(seen *table, size_t size, uint64_t pc) {
    size_t i = (pc * 0x9e3779b97f4a7c15U) >> 20 & (size - 1);
    while (table[i].pc && table[i].pc != pc) i = (i + 1) & (size - 1);
    table[i].pc = pc;
    return &table[i];
}

static bool is_point(const seen *s, uint64_t at, bool all) {
    return all || s->so_far <= FIRST || s->so_far == s->all ||
           (at * 0x9e3779b97f4a7c15U >> 32) % (SAMPLE + s->all / 4) == 0;
}

static void choose_points(void) {
    bool all = getenv("CRASH_ALL") != NULL;
    size_t size = 1024;
    while (size < trace.n * 2) size *= 2;
    seen *table = calloc(size, sizeof *table);
    CHECK(table != NULL);
    for (size_t i = 0; i < trace.n; i++)
        find_seen(table, size, trace.pc[i])->all++;
    point best = {.kind = STEP};
    for (size_t i = 0; i < trace.n; i++) {
        seen *s = find_seen(table, size, trace.pc[i]);
        s->so_far++;
        best.steps += i > 0;
        /* Where the victim stands at first is no breakpoint. */
        uint32_t passes = s->so_far - (trace.pc[i] == trace.pc[0]);
        if (i > 0 && passes > 0 && passes < best.passes + best.steps)
            best = (point){.kind = STEP, .pc = trace.pc[i],
                           .passes = passes};
        best.at = i;
        if (is_point(s, i, all)) add_point(best);
    }
    free(table);
}

uint64_t crash_points(uint64_t *all) {
    int per_sleep = trace.ends_asleep ? 1 : 2;
    trace.n_points = 0;
    choose_points();
    for (int i = 0; i < trace.sleeps; i++)
        for (int kind = ASLEEP; kind < ASLEEP + per_sleep; kind++)
            add_point((point){.kind = kind, .at = (uint64_t)i});
    *all = trace.n + (uint64_t)(trace.sleeps * per_sleep);
    return trace.n_points;
}

/* ---- going there ----------------------------------------------------- */

/* What a life is on the way to. */
typedef struct journey {
    const crash_region *region;
    mp_proc *v;
    const point *to;
    int sleeps;
    bool arrived, left;
} journey;

/* The victim sleeps: that may be where it was to go. */
static void on_sleep(journey *j) {
    int n = j->sleeps++;
    bool here = j->to->kind != STEP && j->to->at == (uint64_t)n;
    CHECK(n < MOST_SLEEPS);
    j->arrived = (here && j->to->kind == ASLEEP) || !j->region->wake;
    if (j->arrived) return;
    j->region->wake(n);
    j->arrived = here;
}

static void go(journey *j, int request) {
    int r = request == PTRACE_SINGLESTEP ? step(j->v) : move(j->v, request);
    while (r == SLEEPS && !j->arrived) {
        on_sleep(j);
        if (!j->arrived) r = await_stop(j->v);
    }
    if (!j->arrived) j->left = pc_of(j->v) == leave_pc();
}

static bool on_the_way(const journey *j) { return !j->arrived && !j->left; }

static void travel(journey *j) {
    uint32_t passes = 0, steps = 0;
    bool run = j->to->kind != STEP || j->to->passes > 0;
    set_breakpoints(j->v, j->to->pc);
    while (run && on_the_way(j)) {
        go(j, PTRACE_CONT);
        if (on_the_way(j) && ++passes == j->to->passes) break;
    }
    if (on_the_way(j)) set_breakpoints(j->v, 0);
    while (on_the_way(j) && steps++ < j->to->steps)
        go(j, PTRACE_SINGLESTEP);
}

bool crash_kill_at(const crash_region *region, uint64_t i, mp_proc *victim) {
    *victim = start_victim(region);
    journey j = {.region = region, .v = victim, .to = &trace.points[i]};
    travel(&j);
    if (j.left)
        let_go(victim);
    else
        put_to_death(region, victim);
    return !j.left;
}

/* ---- words ----------------------------------------------------------- */

extern char __executable_start;

static void name_of(uint64_t pc, char *text, size_t size) {
    char command[256];
    snprintf(command, sizeof command,
             "addr2line -pfise /proc/%d/exe %#jx 2>/dev/null", getpid(),
             (uintmax_t)(pc - (uint64_t)(uintptr_t)&__executable_start));
    FILE *pipe = popen(command, "r");
    size_t n = pipe ? fread(text, 1, size - 1, pipe) : 0;
    if (pipe) pclose(pipe);
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

void crash_describe(uint64_t i, char *text, size_t size) {
    static const char *const kinds[] = {"before instruction", "in sleep",
                                        "woken from sleep"};
    char name[160] = "";
    if (i >= trace.n_points) {
        snprintf(text, size, "in the survey");
        return;
    }
    const point *p = &trace.points[i];
    if (p->kind == STEP) name_of(trace.pc[p->at], name, sizeof name);
    snprintf(text, size, "point %ju: %s %ju %s", (uintmax_t)i,
             kinds[p->kind], (uintmax_t)p->at, name);
}

#elif !defined(CRASH_ACCESS)

const char *crash_driver_missing(void) {
    return "stepping is written for x86-64 (see access.c)";
}
void crash_enter(void) {}
void crash_leave(void) {}
bool crash_survey(const crash_region *region, mp_proc *victim) {
    (void)region, (void)victim;
    return true;
}
uint64_t crash_points(uint64_t *all) { return *all = 0; }
bool crash_kill_at(const crash_region *region, uint64_t i, mp_proc *victim) {
    (void)region, (void)i, (void)victim;
    return false;
}
void crash_describe(uint64_t i, char *text, size_t size) {
    snprintf(text, size, "point %ju", (uintmax_t)i);
}

#endif
