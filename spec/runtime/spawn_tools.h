/* This very program as the child of "spawn" and "forkserver": jobs in C that
   are told by the kind of the boot block, and a message of words. */
#ifndef MP_SPEC_SPAWN_TOOLS_H
#define MP_SPEC_SPAWN_TOOLS_H

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "mem/arena.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "proc/boot.h"
#include "proc/family.h"
#include "proc/server.h"
#include "proc/spawn.h"
#include "sync/lock.h"

/* For SPEC_PREPARE: the first object brings the object table with it, which
   stays. */
static inline void prepare_starts(void) {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_boot_open();
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_object_detach(id);
}

/* A message: what it is told, and where it tells (a block of the spec's). */
enum { WORDS = 8 };
typedef struct words_shm {
    _Atomic uint64_t out[WORDS];
} words_shm;
typedef struct order_shm {
    uint64_t in;
    mp_ref words;
} order_shm;
_Static_assert(sizeof(words_shm) == 8 * WORDS, "no padding");
_Static_assert(sizeof(order_shm) == 16, "no padding");

typedef int (*job)(mp_boot_shm *boot, uint64_t in, words_shm *out);

/* What a preload may be: `in` of its message. */
enum {
    PRELOAD_NOTHING, PRELOAD_FAILS, PRELOAD_DIES, PRELOAD_NOTES, PRELOAD_HANGS,
    PRELOAD_KILLED, PRELOAD_DIES_ASKED, PRELOAD_DIES_HELD
};

/* A copy of this process that knows nothing of mplua: it has its
   sockets, too. */
static inline pid_t fork_as_hosts_do(void) {
    pid_t pid = fork();
    CHECK_OK(pid);
    if (pid == 0) {
        alarm(10);
        for (;;) pause();
    }
    return pid;
}

/* The first server dies when it is asked for a child; with _HELD, another
   process has a copy of its socket. */
static inline void die_when_asked(uint64_t what, words_shm *words) {
    if (atomic_fetch_add(&words->out[0], 1) > 0) return;
    pid_t copy = what == PRELOAD_DIES_HELD ? fork_as_hosts_do() : -1;
    atomic_store(&words->out[1], (uint64_t)copy);
    fcntl(MP_SPAWN_SOCKET, F_SETOWN, getpid());
    fcntl(MP_SPAWN_SOCKET, F_SETFL, O_ASYNC);
}

/* In the server: what its message says. `noted` is what it has loaded. */
static inline void preload(mp_boot_shm *boot, uint64_t *noted) {
    const order_shm *order = boot->message ? mp_at(boot->message) : NULL;
    uint64_t what = order ? order->in : 0;
    if (what == PRELOAD_DIES) _exit(3);
    if (what == PRELOAD_FAILS) {
        mp_boot_refuse(boot, "the preload fails");
        _exit(1);
    }
    if (what == PRELOAD_HANGS) {
        words_shm *words = mp_at(order->words);
        atomic_store(&words->out[0], (uint64_t)getpid());
        for (;;) pause();
    }
    if (what == PRELOAD_KILLED) {
        words_shm *words = mp_at(order->words);
        if (atomic_fetch_sub(&words->out[0], 1) > 0) kill(getpid(), SIGKILL);
    }
    if (what >= PRELOAD_DIES_ASKED) die_when_asked(what, mp_at(order->words));
    *noted = what;
}

/* `argv` is {program, word, descriptor, ref}. */
static inline int run_spawned(char **argv, const job *jobs,
                              uint64_t *noted) {
    mp_boot_shm *boot;
    int r = mp_boot_attach(atoi(argv[2]), strtoull(argv[3], NULL, 0), &boot);
    if (r < 0) return -r;
    if (boot->kind == MP_START_SERVER) {
        preload(boot, noted);
        if (mp_server_run(boot, &boot) < 0) return 100;
    }
    const order_shm *order = mp_at(boot->message);
    mp_family_exit(jobs[boot->kind](boot, order->in, mp_at(order->words)));
}

static inline mp_ref new_order(uint64_t in, mp_ref words) {
    mp_ref ref = mp_alloc(sizeof(order_shm));
    CHECK(ref != 0);
    *(order_shm *)mp_at(ref) = (order_shm){in, words};
    return ref;
}

static inline mp_ref new_words(void) {
    mp_ref ref = mp_alloc(sizeof(words_shm));
    CHECK(ref != 0);
    memset(mp_at(ref), 0, sizeof(words_shm));
    return ref;
}

/* Where the program stands; /proc/self would be somebody else's. */
static inline const char *const *own_argv(const char *word) {
    static _Thread_local char path[4096];
    static _Thread_local const char *argv[] = {NULL, NULL, "BOOT_FD",
                                               "BOOT_REF", NULL};
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(n > 0);
    path[n] = '\0';
    argv[0] = path;
    argv[1] = word;
    return argv;
}

#endif
