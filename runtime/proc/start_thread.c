/* A child that is a thread: it has a slot and a life word as a process has,
   which the starter reserved; but it can only end by itself. So it is asked to
   end (mem/slot.h), and who waits for it waits for what it says as the last
   thing.

   It is not joined then: what comes behind its word takes longer than the
   wait for that, which is what the system does to end a thread, and what the
   thread may prepare for the next one. It is joined when the next one has
   ended, when there is room for one only, when somebody wants to know how
   many threads there are, or at the end.

   A thread is not cancelled here; should one call pthread_exit, in a library
   of the user's, it is told as well, with an exit code that nobody knows. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "mem/reap.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/fd.h"
#include "os/futex.h"
#include "proc/boot.h"
#include "proc/family.h"
#include "proc/start.h"

/* What a main thread mostly has: deep recursion meets Lua's limit first. */
enum { STACK = 8 << 20 };

/* How long who waits for a thread looks before it sleeps. */
enum { SPIN_NS = 100000, LOOKS = 16 };

/* Shared by the thread and who started it, who frees it behind the join; or
   by the thread, when it is abandoned.
   pid       of the process: in a forked copy there is no such thread
   mask      of the starter
   tag       of its participant, which may change (mp_start_anew)
   asked     to end, by this signal; the participant that follows is, too
   ended     a futex word: 1 after all the others. The thread
   sentinel  the mp_proc's descriptor, -1 none; under `lock`
   alone     nobody joins it; under `lock`
   left      its participant is closed: else the kernel marks it as dead at
             the thread's very end. The thread
   holds     the boot block. The thread */
typedef struct thread {
    pthread_t id;
    pid_t pid;
    mp_ref boot;
    uint32_t index, parent;
    sigset_t mask;
    _Atomic uint32_t tag, asked, ended;
    int exitcode;
    pthread_mutex_t lock;
    int sentinel;
    bool alone, holds, left;
} thread;

static void free_thread(thread *t) {
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static _Thread_local thread *me;
static _Atomic mp_start_work does;
static _Atomic mp_start_after does_after;
static _Atomic(thread *) leaving; /* has ended, is not joined */

void mp_start_thread_does(mp_start_work work, mp_start_after after) {
    atomic_store_explicit(&does_after, after, memory_order_relaxed);
    atomic_store_explicit(&does, work, memory_order_relaxed);
}

/* ---- in the thread --------------------------------------------------- */

static void tell(void *ctx) {
    thread *t = ctx;
    uint64_t one = 1;
    pthread_mutex_lock(&t->lock);
    atomic_store(&t->ended, 1);
    /* An eventfd of ours cannot be full. */
    if (t->sentinel >= 0 && write(t->sentinel, &one, sizeof one) < 0)
        t->sentinel = -1;
    bool alone = t->alone;
    pthread_mutex_unlock(&t->lock);
    if (alone) {
        free_thread(t);
        me = NULL;
    } else {
        mp_futex_wake(&t->ended, INT_MAX); /* who joins waits for us */
    }
}

/* What passes while whoever has joined goes on. */
static void after(void) {
    mp_start_after f = atomic_load_explicit(&does_after, memory_order_relaxed);
    if (f) f();
}

static int work(mp_boot_shm *boot) {
    mp_start_work f = atomic_load_explicit(&does, memory_order_relaxed);
    int code = f(boot);
    if (!me->holds) return code;
    mp_family_end(NULL);
    mp_boot_unhold(boot);
    return code;
}

static void *run(void *ctx) {
    thread *t = me = ctx;
    pthread_cleanup_push(tell, t);
    int code = EXIT_FAILURE;
    if (mp_open_reserved(t->index, t->parent) == 0) {
        mp_boot_shm *boot = mp_boot_at(t->boot);
        t->holds = mp_boot_hold(boot) == 0;
        if (t->holds) code = work(boot);
        if (code == 0 && mp_me) mp_slot_farewell();
        mp_close();
    }
    t->exitcode = code;
    t->left = true;
    pthread_cleanup_pop(1);
    if (me) after();
    return NULL;
}

int mp_start_anew(void) {
    uint32_t before = mp_me->tag;
    if (me) me->holds = false;
    mp_close();
    int r = mp_open();
    if (r < 0) return r;
    mp_reap(before);
    if (!me) return 0;
    atomic_store(&me->tag, mp_me->tag);
    /* Who asks writes first `asked`, and then looks for the tag. */
    uint32_t asked = atomic_load(&me->asked);
    if (asked) mp_slot_ask(mp_me->tag, asked);
    r = mp_boot_hold(mp_boot_at(me->boot));
    me->holds = r == 0;
    return r;
}

const sigset_t *mp_start_mask(void) { return me ? &me->mask : NULL; }

void mp_start_unmask_in_child(void) {
    if (me) pthread_sigmask(SIG_SETMASK, &me->mask, NULL);
    me = NULL;
}

/* ---- its end, for the one that started it ---------------------------- */

static void join(thread *t) {
    if (t->pid == getpid()) pthread_join(t->id, NULL);
    free_thread(t);
}

/* `t` is the next to be joined (NULL: none); the one before it is. */
static void join_later(thread *t) {
    thread *before = atomic_exchange(&leaving, t);
    if (before) join(before);
}

void mp_start_join(void) { join_later(NULL); }

int mp_start_look_thread(mp_proc *proc) {
    thread *t = proc->thread;
    if (!atomic_load(&t->ended)) return -EAGAIN;
    pthread_mutex_lock(&t->lock); /* it is done with the sentinel */
    pthread_mutex_unlock(&t->lock);
    proc->exitcode = t->exitcode;
    proc->tag = t->tag;
    proc->thread = NULL;
    if (t->left)
        join_later(t);
    else
        join(t);
    return 0;
}

/* ---- in the one that starts it --------------------------------------- */

/* All signals but those that an instruction of the thread itself causes. */
static void fill_mask(sigset_t *set) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE,
                              SIGILL,  SIGTRAP, SIGPIPE};
    sigfillset(set);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(set, own[i]);
}

/* The mask of the new thread is the creator's at that moment. */
static int create(thread *t) {
    pthread_attr_t attr;
    sigset_t all;
    size_t stack;
    int r = pthread_attr_init(&attr);
    if (r) return -r;
    if (pthread_attr_getstacksize(&attr, &stack) != 0 || stack < STACK)
        r = pthread_attr_setstacksize(&attr, STACK);
    fill_mask(&all);
    pthread_sigmask(SIG_SETMASK, &all, &t->mask);
    const sigset_t *mine = mp_start_mask();
    sigset_t before = t->mask;
    if (mine) t->mask = *mine;
    if (r == 0) r = pthread_create(&t->id, &attr, run, t);
    if (r == EAGAIN) {
        mp_start_join(); /* there may be room for one only */
        r = pthread_create(&t->id, &attr, run, t);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}

int mp_start_thread(mp_proc *proc, const mp_start *start) {
    if (!mp_me) return -EOWNERDEAD;
    thread *t = calloc(1, sizeof *t);
    int r = t ? mp_boot_make(start, &t->boot) : -ENOMEM;
    if (r < 0) {
        free(t);
        return r;
    }
    const mp_boot_shm *boot = mp_boot_at(t->boot);
    t->pid = getpid();
    t->index = boot->index;
    t->parent = boot->parent;
    t->tag = boot->tag;
    t->exitcode = MP_PROC_UNKNOWN;
    t->sentinel = -1;
    pthread_mutex_init(&t->lock, NULL);
    *proc = (mp_proc){.pid = t->pid, .parent = t->pid, .pidfd = -1,
                      .tag = boot->tag, .boot = t->boot, .thread = t};
    r = create(t);
    if (r == 0) return 0;
    mp_boot_free(t->boot);
    free_thread(t);
    return r;
}

/* A sleep and a wake cost as much as a short thread. */
static bool ends_soon(const thread *t, mp_deadline slice) {
    int64_t until = mp_now_ns() + SPIN_NS;
    if (until > slice.ns) until = slice.ns;
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load(&t->ended)) return true;
            mp_cpu_relax();
        }
    } while (mp_now_ns() < until);
    return false;
}

int mp_start_sleep_thread(const mp_proc *proc, mp_deadline slice) {
    thread *t = proc->thread;
    if (mp_cpu_several() && ends_soon(t, slice)) return 0;
    int r = mp_futex_wait(&t->ended, 0, slice);
    return r == -EAGAIN ? 0 : r;
}

int mp_start_signal_thread(mp_proc *proc, int signal) {
    thread *t = proc->thread;
    if (signal <= 0) return 0;
    atomic_store(&t->asked, (uint32_t)signal);
    mp_slot_ask(atomic_load(&t->tag), (uint32_t)signal);
    return 0;
}

int mp_start_sentinel_thread(mp_proc *proc) {
    thread *t = proc->thread;
    int fd = eventfd(t ? 0 : 1, EFD_CLOEXEC | EFD_NONBLOCK);
    fd = mp_fd_above_standard(fd < 0 ? -errno : fd);
    if (fd < 0) return fd;
    proc->pidfd = fd;
    if (!t) return fd;
    uint64_t one = 1;
    pthread_mutex_lock(&t->lock);
    t->sentinel = fd;
    bool ended = atomic_load(&t->ended);
    pthread_mutex_unlock(&t->lock);
    if (ended && write(fd, &one, sizeof one) < 0) return -errno;
    return fd;
}

void mp_start_close_thread(mp_proc *proc) {
    thread *t = proc->thread;
    /* A forked child's copy: whoever had the lock is not there. */
    if (!t || proc->parent != getpid()) return;
    pthread_mutex_lock(&t->lock);
    t->sentinel = -1;
    pthread_mutex_unlock(&t->lock);
}

bool mp_start_abandon_thread(mp_proc *proc) {
    thread *t = proc->thread;
    mp_boot_shm *boot = mp_boot_at(t->boot);
    pthread_mutex_lock(&t->lock);
    t->alone = !atomic_load(&t->ended);
    bool alone = t->alone;
    if (alone) pthread_detach(t->id);
    pthread_mutex_unlock(&t->lock);
    if (!alone) return false;
    mp_boot_unhold(boot);
    proc->thread = NULL;
    proc->boot = 0;
    return true;
}
