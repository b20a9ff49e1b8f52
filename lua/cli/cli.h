/* The command line: `lua`'s options, messages and exit codes, which
   programs and the official test suite rely on.

   Here, and only here, the project prints and catches a signal.  Whatever
   is run, is run by cli_call: errors end in cli_report, and Ctrl-C is an
   error object of kind Interrupted in the code that runs. */
#ifndef MP_CLI_CLI_H
#define MP_CLI_CLI_H

#include <lua.h>
#include <stdbool.h>

typedef struct cli_options {
    bool bad;         /* argv[script] is what was not understood */
    bool interactive; /* -i */
    bool version;     /* -v, and -i implies it */
    bool execute;     /* -e was there: no terminal session of itself */
    bool ignore_env;  /* -E */
    bool fsck;        /* --fsck, and argv[script] is its first pid */
    int script;       /* index of the script, or of the NULL at the end */
} cli_options;

typedef struct cli {
    lua_State *L;
    const char *program; /* heads each message; NULL in a session */
    int code;            /* exit code of an error that ends the program */
} cli;

/* --- options.c ------------------------------------------------------- */

/* Reads the options before the script; executes none of them. */
cli_options cli_options_read(char **argv);

/* The text of an option that takes a value, at argv[*i] or the one after
   it (then *i is moved on). */
char *cli_options_value(char **argv, int *i);

/* Complains about `option` on stderr and shows what there is. */
void cli_options_usage(const cli *c, const char *option);

/* --- run.c ----------------------------------------------------------- */

/* Calls the function below `nargs` arguments. Returns Lua's status; on an
   error its text, with a traceback, stands on the stack. */
int cli_call(cli *c, int nargs, int nresults);

/* Prints and pops the error text, if status is one; returns status. */
int cli_report(const cli *c, int status);

/* Prints "program: text" on stderr. */
void cli_message(const cli *c, const char *text);

/* --- interrupt.c ----------------------------------------------------- */

/* From now on Ctrl-C is ours, until it is given back. At first it ends the
   program. */
void cli_interrupt_take(void);
void cli_interrupt_give_back(void);

/* Code of L runs, and is interrupted; it has ended. */
void cli_interrupt_run(lua_State *L);
void cli_interrupt_done(void);

/* An Interrupted that nobody caught unwinds: the next one ends us. */
void cli_interrupt_uncaught(void);

/* No code runs, but what goes on is not to be broken off: the first one is
   noted. */
void cli_interrupt_wait(void);
bool cli_interrupt_noted(void);

/* The same of any number, while a line is asked for: they break that off. */
void cli_interrupt_prompt(void);

/* --- fsck.c ---------------------------------------------------------- */

/* mplua --fsck PID...: checks the shared memory of running programs (see
   runtime/mem/fsck.h), each named by the pid of any of its processes, by
   reading it. Prints «PID: clean (...)», or «PID: » and what is wrong, a
   line each. `pids` ends in NULL.
   Returns the exit code, the highest of them: 0 clean, 1 something is wrong,
   2 it could not look, and said why on stderr. */
int cli_fsck(const cli *c, char **pids);

/* --- repl.c ---------------------------------------------------------- */

/* Reads, evaluates and prints until the end of stdin. */
void cli_repl(cli *c);

#endif
