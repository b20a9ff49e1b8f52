/* Ctrl-C, by what the program is doing:

     mode      the first                        one more before it was raised
     IDLE      ends us                          -
     RUNS      raises Interrupted in the code   ends us
     UNWINDS   ends us                          -
     WAITS     is noted                         ends us
     PROMPTS   is noted                         is noted

   UNWINDS: nobody caught it; what the blocks on the way close may take its
   time. To be ended is to die of the signal: the kernel takes workers and
   children along. SIGTERM keeps its default action, which does just that.
   Forked children have mode and handler, too. */
#include <signal.h>
#include <stddef.h>

#include "bind/interrupt.h"
#include "cli/cli.h"

enum { IDLE, RUNS, UNWINDS, WAITS, PROMPTS };

static volatile sig_atomic_t mode, noted;
static struct sigaction before;

static void die_on_signal(int sig) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigemptyset(&action.sa_mask);
    sigaction(sig, &action, NULL);
    raise(sig); /* comes when the handler has returned */
}

static void on_sigint(int sig) {
    if (mode == RUNS && bind_interrupt_on_signal()) return;
    if (mode != PROMPTS && (mode != WAITS || noted)) die_on_signal(sig);
    noted = 1;
}

void cli_interrupt_take(void) {
    struct sigaction action = {.sa_handler = on_sigint};
    sigemptyset(&action.sa_mask);
    /* No SA_RESTART: waits must end. */
    sigaction(SIGINT, &action, &before);
}

void cli_interrupt_give_back(void) { sigaction(SIGINT, &before, NULL); }

void cli_interrupt_run(lua_State *L) {
    bind_interrupt_of(L);
    mode = RUNS;
}

void cli_interrupt_uncaught(void) { mode = UNWINDS; }

void cli_interrupt_done(void) {
    mode = IDLE;
    bind_interrupt_of(NULL);
}

void cli_interrupt_wait(void) {
    noted = 0;
    mode = WAITS;
}

void cli_interrupt_prompt(void) {
    noted = 0;
    mode = PROMPTS;
}

bool cli_interrupt_noted(void) { return noted; }
