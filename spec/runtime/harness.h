/* Specs of the floors below Lua, in C:

       #include "harness.h"
       #include "sync/lock.h"

       SPEC("lock: a second acquire times out when the first holds it") {
           ...
           CHECK_EQ(mp_lock_acquire(lock, mp_deadline_in(0.01)), -ETIMEDOUT);
       }

   Each spec runs in a process of its own, in a process group of its own,
   under a deadline: a crash, a hang or an exit is one failed spec.  A check
   that does not hold ends the process it stands in, be it the spec's own or
   a child's, and fails the spec.

   After the spec the harness checks that it left no child (not even a
   zombie), no descriptor, no arena byte, an arena in which every invariant
   holds (mem/fsck.h), and signal mask and working directory as they were;
   descendants get two seconds to end.

   Run: build/spec/runtime_spec [-v] [words of a name], in any directory. */
#ifndef MP_SPEC_HARNESS_H
#define MP_SPEC_HARNESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* --- specs ----------------------------------------------------------- */

#define SPEC(name) SPEC_WITHIN(20, name)

/* The same with a deadline of its own (seconds; sanitizers get more). */
#define SPEC_WITHIN(seconds, name)                                       \
    static void SPEC_ID(spec_run_)(void);                                \
    static spec SPEC_ID(spec_) = {name, __FILE__, __LINE__, seconds,     \
                                  SPEC_ID(spec_run_), 0};                \
    __attribute__((constructor)) static void SPEC_ID(spec_add_)(void) {  \
        spec_add(&SPEC_ID(spec_));                                       \
    }                                                                    \
    static void SPEC_ID(spec_run_)(void)

/* At most once a file: code to run in each spec's process before the state
   is noted that must be there again afterwards, as opening the arena. */
#define SPEC_PREPARE                                                     \
    static void spec_prepare_(void);                                     \
    __attribute__((constructor)) static void spec_prepare_add_(void) {   \
        spec_add_prepare(__FILE__, spec_prepare_);                       \
    }                                                                    \
    static void spec_prepare_(void)

/* What this program is when its first argument is `word`: for specs that
   start it as a new program. The block gets argc and argv, and returns the
   exit code. */
#define SPEC_PROGRAM(word)                                               \
    static int spec_program_(int argc, char **argv);                     \
    __attribute__((constructor)) static void spec_program_add_(void) {   \
        spec_add_program(word, spec_program_);                           \
    }                                                                    \
    static int spec_program_(int argc, char **argv)

/* --- checks ---------------------------------------------------------- */

#define CHECK(condition)                                                 \
    do {                                                                 \
        if (!(condition))                                                \
            spec_fail(__FILE__, __LINE__, "CHECK(%s)", #condition);      \
    } while (0)

/* Integers (pointers: CHECK(p == q)). */
#define CHECK_EQ(got, wanted)                                            \
    spec_check_eq(__FILE__, __LINE__, #got, (intmax_t)(got),             \
                  (intmax_t)(wanted))

#define CHECK_STR(got, wanted)                                           \
    spec_check_str(__FILE__, __LINE__, #got, (got), (wanted))

/* A result that is 0 or more; shows which errno it was if not. */
#define CHECK_OK(call)                                                   \
    spec_check_ok(__FILE__, __LINE__, #call, (intmax_t)(call))

/* Waits until the condition holds, at most five seconds: for what another
   process does and what has nothing of its own to wait on. */
#define CHECK_SOON(condition)                                            \
    do {                                                                 \
        double spec_end_ = spec_now() + 5;                               \
        while (!(condition) && spec_now() < spec_end_)                   \
            spec_pause();                                                \
        if (!(condition))                                                \
            spec_fail(__FILE__, __LINE__, "CHECK_SOON(%s): not in 5 s",  \
                      #condition);                                       \
    } while (0)

/* --- processes ------------------------------------------------------- */

/* Forks; the child runs work(argument) and ends by _exit(0). */
pid_t spec_fork(void (*work)(void *), void *argument);

/* Waits for a child: its exit code, or minus the signal that ended it. */
int spec_wait(pid_t pid);

/* SIGKILL, then spec_wait. */
void spec_kill(pid_t pid);

/* Anonymous memory that children forked later share, zeroed. */
void *spec_shared(size_t size);

double spec_now(void); /* seconds, monotonic */
void spec_pause(void); /* a millisecond */

/* What to say besides when a check fails in this process. */
void spec_on_failure(void (*say)(void));

/* Built with sanitizers, or under valgrind (slower, and address space limits
   do not work)? */
bool spec_sanitized(void);

/* Under valgrind? What is received in a message, and poll, know nothing of its
   limit of descriptors, its own memory is this process's, and a program that
   cannot be started is one that ends at once, with 127. */
bool spec_valgrind(void);

/* Are there pidfds? Old kernels and valgrind have none. */
bool spec_has_pidfds(void);

/* --- what the macros use --------------------------------------------- */

typedef struct spec {
    const char *name, *file;
    int line;
    int seconds;
    void (*run)(void);
    struct spec *next;
} spec;

#define SPEC_PASTE(a, b) a##b
#define SPEC_GLUE(a, b) SPEC_PASTE(a, b)
#define SPEC_ID(name) SPEC_GLUE(name, __LINE__)

void spec_add(spec *s);
void spec_add_prepare(const char *file, void (*prepare)(void));
void spec_add_program(const char *word, int (*run)(int argc, char **argv));

_Noreturn void spec_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void spec_check_eq(const char *file, int line, const char *what,
                   intmax_t got, intmax_t wanted);
void spec_check_str(const char *file, int line, const char *what,
                    const char *got, const char *wanted);
void spec_check_ok(const char *file, int line, const char *what,
                   intmax_t result);

#endif
