#include "proc/proc.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "mem/reap.h"
#include "mem/slot.h"
#include "os/child.h"
#include "os/futex.h"
#include "proc/start.h"

_Static_assert(MP_PROC_UNKNOWN == MP_CHILD_UNKNOWN, "one word for it");

/* Between the mark in the life word and the moment when waitid knows. */
enum { BETWEEN_NS = 200000 };

const mp_start_method mp_start_methods[] = {{"fork", mp_start_fork},
                                            {NULL, NULL}};

int mp_proc_fork(mp_proc *proc, int flags) {
    return mp_start_fork(proc, flags);
}

/* Nothing of it may stay: neither what it held, nor the slot of one that
   died before it could claim it. */
static void reap(uint32_t tag) {
    if (!mp_me) return;
    uint32_t index = tag % MP_SLOTS;
    mp_slot_shm *slot = mp_slot_at(index);
    if (mp_tag_of(index, atomic_load(&slot->gen)) != tag) return;
    if ((atomic_load(&slot->state) & 3) == MP_SLOT_FORKING)
        mp_slot_release(index);
    else
        mp_reap(tag);
}

/* 0 ended; -EAGAIN. */
static int look(mp_proc *proc) {
    int r = mp_child_poll(proc->pid, proc->pidfd, &proc->exitcode);
    if (r < 0) return r;
    proc->ended = true;
    reap(proc->tag);
    return 0;
}

/* Where there is no pidfd, its life word tells when it ends. */
static int sleep_on_life(const mp_proc *proc, mp_deadline slice) {
    mp_owner owner;
    if (mp_me && mp_owner_look(proc->tag, &owner)) {
        int r = mp_futex_wait(owner.life, owner.life_word, slice);
        return r == -EAGAIN ? 0 : r;
    }
    if (mp_deadline_passed(slice)) return -ETIMEDOUT;
    /* Not born yet, or just dead. */
    struct timespec t = {.tv_nsec = BETWEEN_NS};
    return nanosleep(&t, NULL) < 0 ? -errno : 0;
}

static int sleep_until(const mp_proc *proc, mp_deadline slice) {
    return proc->pidfd >= 0 ? mp_child_sleep(proc->pidfd, slice)
                            : sleep_on_life(proc, slice);
}

static int slice_over(mp_deadline slice, mp_deadline deadline) {
    if (slice.ns == deadline.ns) return -ETIMEDOUT;
    if (mp_me) mp_reap_sweep();
    return -EINTR;
}

int mp_proc_wait(mp_proc *proc, mp_deadline deadline) {
    if (proc->ended) return 0;
    if (proc->parent != getpid()) return -ECHILD;
    int r = look(proc);
    if (r != -EAGAIN) return r;
    if (mp_deadline_passed(deadline)) return -ETIMEDOUT;
    mp_deadline slice = mp_deadline_slice(deadline, MP_SLICE_NS);
    do {
        int slept = sleep_until(proc, slice);
        if (slept == -EINTR) return slept;
        r = look(proc);
        if (r == -EAGAIN && slept < 0)
            return slept == -ETIMEDOUT ? slice_over(slice, deadline) : slept;
    } while (r == -EAGAIN);
    return r;
}

int mp_proc_wait_peer(uint32_t tag, mp_deadline deadline) {
    mp_owner owner;
    if (!mp_owner_look(tag, &owner)) return 0;
    mp_deadline slice = mp_deadline_slice(deadline, MP_SLICE_NS);
    int r = mp_futex_wait(owner.life, owner.life_word, slice);
    if (!mp_tag_alive(tag)) return 0;
    return r == -ETIMEDOUT ? slice_over(slice, deadline) : -EINTR;
}

int mp_proc_signal(mp_proc *proc, int signal) {
    if (proc->ended) return 0;
    if (proc->parent != getpid()) return -ECHILD;
    return mp_child_signal(proc->pid, proc->pidfd, signal);
}

void mp_proc_close(mp_proc *proc) {
    if (proc->pidfd >= 0) close(proc->pidfd);
    proc->pidfd = -1;
}

void mp_proc_exit(int code) {
    fflush(NULL);
    if (code == 0 && mp_me) mp_slot_farewell();
    _exit(code & 0xff);
}
