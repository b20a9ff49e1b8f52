/* Processes: how they start, how they end, and that nothing is left. */
#include "proc/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "mem/arena.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "os/child.h"
#include "proc/family.h"

SPEC_PREPARE { CHECK_OK(mp_open()); }

static int wait_for(mp_proc *proc, mp_deadline deadline) {
    int r;
    do r = mp_proc_wait(proc, deadline);
    while (r == -EINTR);
    return r;
}

/* Waits for its end, closes it, returns its exit code. */
static int end_of(mp_proc *proc) {
    CHECK_OK(wait_for(proc, mp_deadline_in(10)));
    mp_proc_close(proc);
    return proc->exitcode;
}

static bool forked(mp_proc *proc) {
    int r = mp_proc_fork(proc, 0);
    CHECK_OK(r);
    return r == 1;
}

/* --- the end of a child ------------------------------------------------ */

SPEC("proc: who gives a slot back late leaves its next owner alone") {
    uint32_t first, second;
    CHECK_OK(mp_slot_reserve(&first));
    mp_slot_shm *slot = mp_slot_at(first);
    uint32_t old = mp_tag_of(first, atomic_load(&slot->gen));
    mp_slot_release(first);
    CHECK_OK(mp_slot_reserve(&second));
    CHECK_EQ(second, first);
    mp_reap_reserved(old, true); /* as two may who notice one death */
    CHECK_EQ(atomic_load(&slot->state) & 3, MP_SLOT_FORKING);
    mp_slot_release(second);
}

SPEC("proc: a child's exit status is what it ended by, modulo 256") {
    static const int given[] = {0, 7, 256, 300, -1};
    static const int wanted[] = {0, 7, 0, 44, 255};
    for (int i = 0; i < 5; i++) {
        mp_proc p;
        if (forked(&p)) mp_proc_exit(given[i]);
        CHECK_EQ(end_of(&p), wanted[i]);
        if (forked(&p)) exit(given[i]);
        CHECK_EQ(end_of(&p), wanted[i]);
    }
}

SPEC("proc: a signal that ended it is told as a negative number") {
    static const int signals[] = {SIGTERM, SIGKILL, SIGUSR1};
    for (int i = 0; i < 3; i++) {
        mp_proc p;
        if (forked(&p))
            for (;;) pause();
        CHECK_OK(mp_proc_signal(&p, signals[i]));
        CHECK_EQ(end_of(&p), -signals[i]);
    }
}

SPEC("proc: a signal to one that has ended is no error") {
    mp_proc p;
    if (forked(&p)) mp_proc_exit(0);
    CHECK_OK(wait_for(&p, MP_FOREVER));
    CHECK_OK(mp_proc_signal(&p, SIGTERM));
    CHECK_EQ(end_of(&p), 0);
}

SPEC("proc: waiting ends at its deadline while the child runs") {
    mp_proc p;
    if (forked(&p))
        for (;;) pause();
    CHECK_EQ(mp_proc_wait(&p, MP_AT_ONCE), -ETIMEDOUT);
    double start = spec_now();
    CHECK_EQ(wait_for(&p, mp_deadline_in(0.05)), -ETIMEDOUT);
    CHECK(spec_now() - start >= 0.05);
    CHECK(!p.ended);
    mp_proc_signal(&p, SIGKILL);
    CHECK_EQ(end_of(&p), -SIGKILL);
}

static volatile int handled;

static void count_signal(int signal) {
    (void)signal;
    handled = handled + 1;
}

SPEC("proc: a signal handler interrupts waiting, SA_RESTART or not") {
    struct sigaction action = {.sa_handler = count_signal,
                               .sa_flags = SA_RESTART};
    mp_proc p;
    sigaction(SIGUSR1, &action, NULL);
    pid_t me = getpid();
    if (forked(&p)) {
        for (int i = 0; i < 50; i++) {
            spec_pause();
            kill(me, SIGUSR1);
        }
        for (;;) pause();
    }
    CHECK_EQ(mp_proc_wait(&p, MP_FOREVER), -EINTR);
    CHECK(handled > 0 && handled < 50);
    mp_proc_signal(&p, SIGKILL);
    CHECK_EQ(end_of(&p), -SIGKILL);
}

SPEC("proc: the end is seen without a pidfd, too") {
    mp_proc p;
    if (forked(&p)) {
        spec_pause();
        mp_proc_exit(5);
    }
    mp_proc_close(&p);
    CHECK_EQ(end_of(&p), 5);
    if (forked(&p))
        for (;;) pause();
    mp_proc_close(&p);
    CHECK_EQ(wait_for(&p, mp_deadline_in(0.02)), -ETIMEDOUT);
    CHECK_OK(mp_proc_signal(&p, SIGTERM));
    CHECK_EQ(end_of(&p), -SIGTERM);
}

SPEC("proc: one that a host has waited for has ended, nobody knows how") {
    mp_proc p;
    if (forked(&p)) mp_proc_exit(3);
    CHECK_EQ(waitpid(p.pid, NULL, 0), p.pid);
    CHECK_EQ(end_of(&p), MP_PROC_UNKNOWN);
}

SPEC("proc: only the process that forked it may wait for it or signal it") {
    mp_proc p, other;
    if (forked(&p))
        for (;;) pause();
    if (forked(&other)) {
        CHECK_EQ(mp_proc_wait(&p, MP_FOREVER), -ECHILD);
        CHECK_EQ(mp_proc_signal(&p, SIGKILL), -ECHILD);
        mp_proc_exit(0);
    }
    CHECK_EQ(end_of(&other), 0);
    mp_proc_signal(&p, SIGKILL);
    CHECK_EQ(end_of(&p), -SIGKILL);
}

SPEC("proc: a full descriptor table costs the pidfd, not the child") {
    mp_proc p;
    struct rlimit before, tight;
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
    tight = before;
    tight.rlim_cur = (rlim_t)dup(0);
    close((int)tight.rlim_cur);
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &tight));
    if (forked(&p)) mp_proc_exit(4);
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
    CHECK_EQ(p.pidfd, -1);
    CHECK_EQ(end_of(&p), 4);
}

/* --- what a child begins with ------------------------------------------ */

SPEC("proc: a child is a participant of its own") {
    mp_proc p;
    uint32_t *told = spec_shared(sizeof *told);
    uint32_t parent = mp_me->tag;
    if (forked(&p)) {
        *told = mp_me->tag;
        CHECK(mp_me->tag != parent);
        CHECK(mp_tag_alive(parent));
        mp_ref block = mp_alloc(100);
        CHECK(block != 0);
        mp_proc_exit(0);
    }
    CHECK_EQ(end_of(&p), 0);
    CHECK_EQ(*told, p.tag);
    CHECK(!mp_tag_alive(p.tag));
}

SPEC("proc: stdin of a child is /dev/null, unless it is to be kept") {
    mp_proc p;
    int pipes[2], saved = dup(0);
    CHECK_OK(pipe(pipes));
    CHECK_EQ(write(pipes[1], "abc\ndef\n", 8), 8);
    dup2(pipes[0], 0);
    CHECK_EQ(getchar(), 'a'); /* the rest is read ahead */
    if (forked(&p)) {
        CHECK_EQ(getchar(), EOF);
        mp_proc_exit(0);
    }
    CHECK_EQ(end_of(&p), 0);
    int r = mp_proc_fork(&p, MP_PROC_KEEP_STDIN);
    if (r == 1) {
        CHECK_EQ(getchar(), 'b');
        mp_proc_exit(0);
    }
    CHECK_EQ(end_of(&p), 0);
    CHECK_EQ(getchar(), 'b');
    dup2(saved, 0);
    close(saved);
    close(pipes[0]);
    close(pipes[1]);
}

SPEC("proc: a closed stdin of the parent stays out of the child's way") {
    mp_proc p;
    int saved = dup(0);
    close(0);
    if (forked(&p)) {
        CHECK_EQ(getchar(), EOF);
        mp_proc_exit(0);
    }
    CHECK(p.pidfd > 2 || !spec_has_pidfds());
    dup2(saved, 0);
    close(saved);
    CHECK_EQ(end_of(&p), 0);
}

SPEC("proc: what was written before the fork comes out once") {
    char text[64] = "";
    mp_proc p;
    FILE *file = tmpfile();
    fputs("before ", file);
    if (forked(&p)) {
        fputs("child ", file);
        mp_proc_exit(0);
    }
    CHECK_EQ(end_of(&p), 0);
    fputs("parent", file);
    rewind(file);
    CHECK(fgets(text, sizeof text, file) != NULL);
    fclose(file);
    CHECK_STR(text, "before child parent");
}

static const char *whose;

static void say_whose(void) { (void)!write(STDERR_FILENO, whose, 1); }

SPEC("proc: exit() in a child runs its own exit handlers, not its parent's") {
    char got[8] = "";
    mp_proc p;
    int pipes[2], saved = dup(STDERR_FILENO);
    CHECK_OK(pipe(pipes));
    dup2(pipes[1], STDERR_FILENO);
    whose = "p";
    atexit(say_whose);
    if (forked(&p)) {
        whose = "c";
        atexit(say_whose);
        exit(6);
    }
    int code = end_of(&p);
    dup2(saved, STDERR_FILENO);
    close(pipes[1]);
    CHECK(read(pipes[0], got, sizeof got - 1) >= 0);
    close(pipes[0]);
    close(saved);
    CHECK_EQ(code, 6);
    CHECK_STR(got, "c");
}

/* --- what is left of one ----------------------------------------------- */

SPEC("proc: an object of the parent's lives as long as the child holds it") {
    mp_proc p;
    uint32_t id, gen;
    int pipes[2];
    char byte = 0;
    CHECK_OK(pipe(pipes));
    CHECK_OK(mp_object_create(MP_TYPE_EVENT, mp_alloc(64), &id, &gen));
    if (forked(&p)) {
        close(pipes[1]);
        CHECK_EQ(read(pipes[0], &byte, 1), 0);
        mp_proc_exit(mp_object_attach(id, gen) == 0 ? 0 : 1);
    }
    uint32_t count = mp_object_count();
    mp_object_detach(id);
    CHECK_EQ(mp_object_count(), count);
    close(pipes[1]);
    close(pipes[0]);
    CHECK_EQ(end_of(&p), 0);
    CHECK_EQ(mp_object_count(), count - 1);
}

SPEC_WITHIN(60, "proc: killed at any time of its birth, it leaves no slot") {
    uint32_t high = 0;
    for (int i = 0; i < 300; i++) {
        mp_proc p;
        if (forked(&p)) mp_proc_exit(0);
        for (volatile int spin = 0; spin < i * 500;) spin = spin + 1;
        mp_proc_signal(&p, SIGKILL);
        int code = end_of(&p);
        CHECK(code == 0 || code == -SIGKILL);
        if (i == 10) high = atomic_load(&mp_me->super->slots);
    }
    CHECK_EQ(atomic_load(&mp_me->super->slots), high);
}

static bool ended_within(int pidfd, int ms) {
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, ms) == 1;
}

SPEC("proc: when a parent is killed its children go, busy or idle") {
    _Atomic pid_t *pids = spec_shared(2 * sizeof *pids);
    mp_proc p, deeper;
    if (!spec_has_pidfds()) return; /* the end is looked at by them */
    if (forked(&p)) {
        for (int i = 0; i < 2; i++)
            if (forked(&deeper)) {
                atomic_store(&pids[i], getpid());
                for (;;)
                    if (i == 0) pause();
            }
        for (;;) pause();
    }
    CHECK_SOON(atomic_load(&pids[0]) && atomic_load(&pids[1]));
    int idle = mp_child_pidfd(pids[0]), busy = mp_child_pidfd(pids[1]);
    CHECK_OK(idle);
    CHECK_OK(busy);
    mp_proc_signal(&p, SIGKILL);
    CHECK_EQ(end_of(&p), -SIGKILL);
    CHECK(ended_within(idle, 1000));
    CHECK(ended_within(busy, 1000));
    close(idle);
    close(busy);
}

SPEC("proc: any participant's end can be waited for") {
    mp_proc p, watcher;
    if (forked(&p))
        for (;;) pause();
    if (forked(&watcher)) {
        int r = mp_proc_wait_peer(p.tag, mp_deadline_in(0.02));
        CHECK_EQ(r, -ETIMEDOUT);
        do r = mp_proc_wait_peer(p.tag, MP_FOREVER);
        while (r == -EINTR);
        CHECK_OK(r);
        mp_proc_exit(0);
    }
    CHECK_EQ(wait_for(&watcher, mp_deadline_in(0.05)), -ETIMEDOUT);
    mp_proc_signal(&p, SIGKILL);
    CHECK_EQ(end_of(&p), -SIGKILL);
    CHECK_EQ(end_of(&watcher), 0);
}

/* --- the family -------------------------------------------------------- */

static int start(mp_relative **relative, bool daemon) {
    int r = mp_family_start(relative, NULL, daemon, NULL);
    CHECK_OK(r);
    return r;
}

SPEC("proc: the end of a process awaits its children and ends its daemons") {
    int pipes[2];
    char got[8] = "";
    mp_relative *child, *daemon;
    CHECK_OK(pipe(pipes));
    if (start(&daemon, true) == 1)
        for (;;) pause();
    if (start(&child, false) == 1) {
        for (int i = 0; i < 20; i++) spec_pause();
        CHECK_EQ(write(pipes[1], "x", 1), 1);
        mp_family_exit(0);
    }
    mp_family_end(NULL);
    CHECK(child->proc.ended && daemon->proc.ended);
    CHECK_EQ(child->proc.exitcode, 0);
    CHECK_EQ(daemon->proc.exitcode, -SIGTERM);
    CHECK_EQ(read(pipes[0], got, 1), 1);
    mp_family_drop(child);
    mp_family_drop(daemon);
    close(pipes[0]);
    close(pipes[1]);
}

SPEC("proc: a daemon that ignores SIGTERM is killed a second later") {
    mp_relative *daemon;
    if (start(&daemon, true) == 1) {
        signal(SIGTERM, SIG_IGN);
        for (;;) pause();
    }
    for (int i = 0; i < 100; i++) spec_pause(); /* let it ignore */
    double begin = spec_now();
    mp_family_end(NULL);
    CHECK_EQ(daemon->proc.exitcode, -SIGKILL);
    CHECK(spec_now() - begin < 3);
    mp_family_drop(daemon);
}

SPEC("proc: a dropped child goes on, and is awaited in the end") {
    mp_relative *child;
    int pipes[2];
    char got[8] = "";
    CHECK_OK(pipe(pipes));
    if (start(&child, false) == 1) {
        for (int i = 0; i < 20; i++) spec_pause();
        CHECK_EQ(write(pipes[1], "x", 1), 1);
        mp_family_exit(0);
    }
    mp_family_drop(child);
    mp_family_end(NULL);
    close(pipes[1]);
    CHECK_EQ(read(pipes[0], got, 1), 1);
    close(pipes[0]);
}

SPEC("proc: only the family of one owner ends with it") {
    static const int one, other;
    mp_relative *mine, *others;
    if (mp_family_start(&mine, &one, true, NULL) == 1)
        for (;;) pause();
    if (mp_family_start(&others, &other, true, NULL) == 1)
        for (;;) pause();
    mp_family_end(&one);
    CHECK(mine->proc.ended);
    CHECK_EQ(mp_family_wait(others, MP_AT_ONCE), -ETIMEDOUT);
    mp_family_end(NULL);
    CHECK_EQ(others->proc.exitcode, -SIGTERM);
    mp_family_drop(mine);
    mp_family_drop(others);
}

SPEC("proc: a child's family is its own; it awaits it when it exits") {
    mp_relative *child, *grandchild;
    int pipes[2];
    char got[8] = "";
    CHECK_OK(pipe(pipes));
    if (start(&child, false) == 1) {
        if (start(&grandchild, false) == 1) {
            for (int i = 0; i < 20; i++) spec_pause();
            CHECK_EQ(write(pipes[1], "x", 1), 1);
            exit(0);
        }
        exit(8);
    }
    int r;
    do r = mp_family_wait(child, mp_deadline_in(10));
    while (r == -EINTR);
    CHECK_OK(r);
    CHECK_EQ(child->proc.exitcode, 8);
    close(pipes[1]);
    CHECK_EQ(read(pipes[0], got, 1), 1);
    close(pipes[0]);
    mp_family_drop(child);
}

SPEC_WITHIN(60, "proc: a hundred at once, ended and awaited") {
    mp_relative *all[100];
    for (int i = 0; i < 100; i++)
        if (start(&all[i], false) == 1)
            for (;;) pause();
    for (int i = 0; i < 100; i++) mp_proc_signal(&all[i]->proc, SIGTERM);
    for (int i = 0; i < 100; i++) {
        while (!all[i]->proc.ended) mp_family_wait(all[i], MP_FOREVER);
        CHECK_EQ(all[i]->proc.exitcode, -SIGTERM);
        mp_family_drop(all[i]);
    }
}
