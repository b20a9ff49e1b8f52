/* --fsck: looks at another family's arena, through the descriptor that each
   of its processes has. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "data/array.h"
#include "data/queue.h"
#include "data/segment.h"
#include "data/table.h"
#include "mem/fsck.h"
#include "proc/boot.h"
#include "sync/barrier.h"
#include "sync/cond.h"
#include "sync/event.h"
#include "sync/sem.h"
#include "work/pool.h"

enum { CLEAN, WRONG, COULD_NOT_LOOK };

/* Every type there is. */
static void declare_types(void) {
    mp_lock_open();
    mp_sem_open();
    mp_cond_open();
    mp_event_open();
    mp_barrier_open();
    mp_array_open();
    mp_queue_declare();
    mp_table_declare();
    mp_segment_open(); /* and parcels */
    mp_boot_open();
    mp_pool_open();
}

/* What an error of mp_memfd_look or mp_fsck_other means. */
static const char *describe(int error) {
    switch (error) {
    case -ESRCH:
        return "no such process";
    case -ENOENT:
    case -EBADMSG:
        return "not a process that uses mplua's shared memory";
    default:
        return strerror(-error);
    }
}

static int cannot_look(const cli *c, const char *pid, const char *why) {
    char text[400];
    snprintf(text, sizeof text, "cannot check '%.200s': %s", pid, why);
    cli_message(c, text);
    return COULD_NOT_LOOK;
}

static void print_finding(void *ctx, const char *finding) {
    printf("%s: %s\n", (const char *)ctx, finding);
}

static int check(const cli *c, char *pid) {
    char *end;
    errno = 0;
    long number = strtol(pid, &end, 10);
    if (*end != '\0' || number <= 0 || number > INT32_MAX)
        return cannot_look(c, pid, "not the number of a process");
    mp_memfd_view view;
    mp_fsck_seen seen;
    int n = mp_memfd_look((pid_t)number, MP_ARENA_MAGIC, &view);
    if (n < 0) return cannot_look(c, pid, describe(n));
    n = mp_fsck_other(&view, MP_FSCK_LIVE, print_finding, pid, &seen);
    mp_memfd_look_away(&view);
    if (n < 0) return cannot_look(c, pid, describe(n));
    if (n > 0) return WRONG;
    printf("%ld: clean (%" PRIu32 " participants, %" PRIu32 " objects, "
           "%" PRIu64 " bytes in use)\n", number, seen.participants,
           seen.objects, seen.bytes);
    return CLEAN;
}

int cli_fsck(const cli *c, char **pids) {
    int code = CLEAN;
    declare_types();
    for (; *pids != NULL; pids++) {
        int one = check(c, *pids);
        if (one > code) code = one;
    }
    return code;
}
