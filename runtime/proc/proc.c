#include "proc/proc.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mem/heap.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "os/child.h"
#include "os/futex.h"
#include "os/tempdir.h"
#include "os/threads.h"
#include "proc/boot.h"
#include "proc/start.h"

_Static_assert(MP_PROC_UNKNOWN == MP_CHILD_UNKNOWN, "one word for it");

enum {
    TEARDOWN_NS = 200000, /* from the life word's mark to the end */
    BIRTH_NS = 1000000    /* from the fork to the claim of the slot, mostly */
};

static const double FLUSH_SECONDS = 1;

const mp_start_method mp_start_methods[] = {
    {"fork", mp_start_fork, mp_start_look_child, mp_start_sleep_child,
     mp_start_signal_child},
    {"spawn", mp_start_spawn, mp_start_look_child, mp_start_sleep_child,
     mp_start_signal_child},
    {"forkserver", mp_start_server, mp_start_look_served,
     mp_start_sleep_served, mp_start_signal_served},
    {"thread", mp_start_thread, mp_start_look_thread, mp_start_sleep_thread,
     mp_start_signal_thread},
    {NULL, NULL, NULL, NULL, NULL}};

const mp_start_method *mp_start_method_named(const char *name) {
    for (const mp_start_method *m = mp_start_methods; m->name; m++)
        if (strcmp(m->name, name) == 0) return m;
    return NULL;
}

int mp_proc_start(mp_proc *proc, const mp_start *start) {
    static const mp_start copy = {0};
    if (!start) start = &copy;
    const mp_start_method *method =
        start->method ? start->method : &mp_start_methods[0];
    int r = method->start(proc, start);
    if (r == 0) proc->method = method;
    /* What nobody has taken. */
    if (r < 0 && mp_me) mp_free(start->message);
    if (r <= 0 && mp_me) mp_free(start->preload);
    return r;
}

unsigned mp_start_threads(void) {
    mp_start_join();
    return mp_threads_count();
}

int mp_proc_fork(mp_proc *proc, int flags) {
    const mp_start start = {.flags = flags};
    return mp_proc_start(proc, &start);
}

/* Nothing of it may stay: neither what it held, nor the slot of one that
   died before it could claim it. */
static void reap(uint32_t tag) {
    if (!mp_me) return;
    uint32_t index = tag % MP_SLOTS;
    mp_slot_shm *slot = mp_slot_at(index);
    if (mp_tag_of(index, atomic_load(&slot->gen)) != tag) return;
    uint64_t state = atomic_load(&slot->state) & 3;
    if (state == MP_SLOT_FORKING || state == MP_SLOT_CLAIMING)
        mp_reap_reserved(tag, true);
    else
        mp_reap(tag);
}

int mp_start_look_child(mp_proc *proc) {
    return mp_child_poll(proc->pid, proc->pidfd, &proc->exitcode);
}

/* 0 ended; -EAGAIN. */
static int look(mp_proc *proc) {
    int r = proc->method->look(proc);
    if (r < 0) return r;
    proc->ended = true;
    reap(proc->tag);
    if (proc->boot) mp_boot_free(proc->boot);
    proc->boot = 0;
    return 0;
}

/* It has not yet claimed its slot. */
static bool unborn(uint32_t tag, const mp_owner *owner) {
    uint32_t index = tag % MP_SLOTS;
    const mp_slot_shm *slot = mp_slot_at(index);
    return owner->life_word == 0 &&
           (atomic_load(&slot->state) & 3) != MP_SLOT_LIVE &&
           mp_tag_of(index, atomic_load(&slot->gen)) == tag;
}

/* Sleeps on its life word. False: the word tells nothing any more. One that
   dies unborn has none: hence the short sleeps until it is born. */
static bool sleep_on_life(uint32_t tag, mp_deadline slice, int *slept) {
    mp_owner owner;
    if (!mp_me) return false;
    if (mp_owner_look(tag, &owner)) {
        *slept = mp_futex_wait(owner.life, owner.life_word, slice);
        /* The kernel wakes one of those who sleep on a life. */
        if (!mp_tag_alive(tag)) mp_futex_wake(owner.life, INT_MAX);
    } else if (unborn(tag, &owner)) {
        mp_deadline birth = mp_deadline_slice(slice, BIRTH_NS);
        *slept = mp_futex_wait(owner.life, owner.life_word, birth);
        if (birth.ns != slice.ns && *slept == -ETIMEDOUT) *slept = 0;
    } else {
        return false;
    }
    if (*slept == -EAGAIN) *slept = 0;
    return true;
}

/* Without a pidfd: it is ending (or goes on as another program, by exec), and
   nothing tells when that is done. */
static int sleep_a_little(mp_deadline slice) {
    if (mp_deadline_passed(slice)) return -ETIMEDOUT;
    struct timespec t = {.tv_nsec = TEARDOWN_NS};
    return nanosleep(&t, NULL) < 0 ? -errno : 0;
}

/* A sleep on the pidfd costs least. (The life word is marked earlier, when
   the end begins; but to be awake by then and spin until it is over delays
   the kernel's work: 470 us per child instead of 200.) */
int mp_start_sleep_child(const mp_proc *proc, mp_deadline slice) {
    int slept;
    if (proc->pidfd >= 0) return mp_child_sleep(proc->pidfd, slice);
    return sleep_on_life(proc->tag, slice, &slept) ? slept
                                                   : sleep_a_little(slice);
}

static int slice_over(mp_deadline slice, mp_deadline deadline) {
    if (slice.ns == deadline.ns) return -ETIMEDOUT;
    if (mp_me) mp_reap_sweep();
    return -EINTR;
}

int mp_start_signal_child(mp_proc *proc, int signal) {
    return mp_child_signal(proc->pid, proc->pidfd, signal);
}

int mp_proc_wait(mp_proc *proc, mp_deadline deadline) {
    if (proc->ended) return 0;
    if (proc->parent != getpid()) return -ECHILD;
    int r = look(proc);
    if (r != -EAGAIN) return r;
    if (mp_deadline_passed(deadline)) return -ETIMEDOUT;
    mp_deadline slice = mp_deadline_slice(deadline, MP_SLICE_NS);
    do {
        int slept = proc->method->sleep(proc, slice);
        if (slept == -EINTR) return slept;
        r = proc->ended ? 0 : look(proc);
        if (r == -EAGAIN && slept < 0)
            return slept == -ETIMEDOUT ? slice_over(slice, deadline) : slept;
    } while (r == -EAGAIN);
    return r;
}

int mp_proc_wait_peer(uint32_t tag, mp_deadline deadline) {
    mp_deadline slice = mp_deadline_slice(deadline, MP_SLICE_NS);
    int slept = 0;
    while (slept == 0)
        if (!sleep_on_life(tag, slice, &slept)) return 0;
    return slept == -ETIMEDOUT ? slice_over(slice, deadline) : slept;
}

int mp_proc_signal(mp_proc *proc, int signal) {
    if (proc->ended) return 0;
    if (proc->parent != getpid()) return -ECHILD;
    return proc->method->signal(proc, signal);
}

int mp_proc_sentinel(mp_proc *proc) {
    if (proc->pidfd >= 0) return proc->pidfd;
    if (proc->parent != getpid()) return -ECHILD;
    if (proc->method->start == mp_start_thread)
        return mp_start_sentinel_thread(proc);
    int fd = proc->ended ? -ESRCH : mp_child_pidfd(proc->pid);
    if (fd >= 0) proc->pidfd = fd;
    return fd;
}

bool mp_proc_abandon(mp_proc *proc) {
    if (!proc->thread || proc->parent != getpid()) return false;
    mp_proc_close(proc);
    if (!mp_start_abandon_thread(proc)) return false;
    proc->ended = true;
    proc->exitcode = MP_PROC_UNKNOWN;
    return true;
}

void mp_proc_close(mp_proc *proc) {
    if (proc->pidfd >= 0) mp_start_close_thread(proc);
    if (proc->pidfd >= 0) close(proc->pidfd);
    proc->pidfd = -1;
}

void mp_proc_forget_in_child(mp_proc *proc) {
    if (proc->boot) mp_boot_unhold(mp_boot_at(proc->boot));
    proc->boot = 0;
}

static void *flush_all(void *done) {
    fflush(NULL);
    atomic_store((_Atomic uint32_t *)done, 1);
    mp_futex_wake(done, 1);
    return NULL;
}

/* A thread that reads from a file has it for as long as it waits; so all files
   are awaited where there is no other, and else for some time. */
static void flush(void) {
    static _Atomic uint32_t done;
    pthread_t thread;
    if (mp_start_threads() == 1) {
        fflush(NULL);
        return;
    }
    fflush(stdout);
    fflush(stderr);
    mp_deadline grace = mp_deadline_in(FLUSH_SECONDS);
    if (pthread_create(&thread, NULL, flush_all, &done) != 0) return;
    while (!atomic_load(&done) && !mp_deadline_passed(grace))
        mp_futex_wait(&done, 0, grace);
}

void mp_proc_exit(int code) {
    flush();
    mp_tempdir_remove();
    if (code == 0 && mp_me) mp_slot_farewell();
    _exit(code & 0xff);
}
