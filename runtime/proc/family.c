#include "proc/family.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "os/child.h"
#include "proc/server.h"

static const double DAEMON_GRACE = 1; /* seconds from SIGTERM to SIGKILL */

static _Thread_local mp_relative *family;

static void unlist(mp_relative *relative) {
    mp_relative **at = &family;
    while (*at && *at != relative) at = &(*at)->next;
    if (*at) *at = relative->next;
    relative->listed = false;
}

int mp_family_wait(mp_relative *relative, mp_deadline deadline) {
    int r = mp_proc_wait(&relative->proc, deadline);
    if (r == 0 && relative->listed) unlist(relative);
    return r;
}

static void end_mine(void) { mp_family_end(NULL); }

/* Takes note of those that have ended, so that no zombie stays for long. */
static void look_around(void) {
    for (mp_relative *r = family, *next; r; r = next) {
        next = r->next;
        if (mp_family_wait(r, MP_AT_ONCE) == 0 && r->dropped) free(r);
    }
}

int mp_family_start(mp_relative **out, const void *owner, bool daemon,
                    const mp_start *start) {
    mp_open_before_close(end_mine);
    look_around();
    mp_relative *relative = calloc(1, sizeof *relative);
    if (!relative) return -ENOMEM;
    int r = mp_proc_start(&relative->proc, start);
    if (r == 1) return r; /* freeing it would cost the child a page */
    if (r < 0) {
        free(relative);
        return r;
    }
    if (relative->proc.method->start == mp_start_server)
        mp_server_used_by(owner);
    relative->owner = owner;
    relative->daemon = daemon;
    relative->listed = true;
    relative->next = family;
    family = relative;
    *out = relative;
    return 0;
}

void mp_family_drop(mp_relative *relative) {
    mp_proc_close(&relative->proc);
    relative->dropped = true;
    if (relative->listed) mp_family_wait(relative, MP_AT_ONCE);
    if (!relative->listed) free(relative);
}

/* Waits; a signal handler that ran does not keep us from it. */
static int await(mp_relative *relative, mp_deadline deadline) {
    int r;
    do r = mp_family_wait(relative, deadline);
    while (r == -EINTR);
    return r;
}

static bool belongs(const mp_relative *relative, const void *owner) {
    return !owner || relative->owner == owner;
}

static void take_leave(mp_relative *relative) {
    if (relative->listed) unlist(relative);
    if (relative->dropped) free(relative);
}

/* Waits for one of the list; frees it when nobody else will. */
static int await_and_free(mp_relative *relative, mp_deadline deadline) {
    int r = await(relative, deadline);
    if (r == -ETIMEDOUT) return r;
    /* -ECHILD: this process was forked behind our back. */
    take_leave(relative);
    return r;
}

/* The grace is over. It is awaited with the rest. */
static void end_by_force(mp_relative *relative) {
    if (mp_proc_abandon(&relative->proc))
        take_leave(relative);
    else
        mp_proc_signal(&relative->proc, SIGKILL);
}

static void end_daemons(const void *owner) {
    for (mp_relative *r = family; r; r = r->next)
        if (r->daemon && belongs(r, owner))
            mp_proc_signal(&r->proc, SIGTERM);
    mp_deadline grace = mp_deadline_in(DAEMON_GRACE);
    for (mp_relative *r = family, *next; r; r = next) {
        next = r->next;
        if (r->daemon && belongs(r, owner) &&
            await_and_free(r, grace) == -ETIMEDOUT)
            end_by_force(r);
    }
}

static void end_relatives(const void *owner) {
    /* Who waits for us sees what we said. (Not all files: a thread that reads
       from one has it for as long as it waits.) */
    fflush(stdout);
    fflush(stderr);
    end_daemons(owner);
    for (mp_relative *r = family, *next; r; r = next) {
        next = r->next;
        if (belongs(r, owner)) await_and_free(r, MP_FOREVER);
    }
}

void mp_family_end(const void *owner) {
    if (family) end_relatives(owner);
    mp_server_end(owner);
}

void mp_family_exit(int code) {
    mp_family_end(NULL);
    mp_proc_exit(code);
}

void mp_family_begin_in_child(void) {
    for (mp_relative *r = family; r; r = r->next) {
        r->listed = false;
        mp_proc_close(&r->proc);
        mp_proc_forget_in_child(&r->proc);
    }
    family = NULL;
    mp_server_forget_in_child();
    mp_child_end_by_in_child(mp_family_exit);
}
