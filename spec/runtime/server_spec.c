/* The fork server's owner: what it does when a server dies at a bad moment.
   (spawn_spec.c: all else about new programs and servers.) */
#include <errno.h>
#include <sys/wait.h>

#include "base/deadline.h"
#include "mem/fsck.h"
#include "spawn_tools.h"

enum { EXIT = 0 }; /* of spawn_spec.c's jobs */

SPEC_PREPARE { prepare_starts(); }

/* A child of a new server, which is told that; its exit code, after `*ms`. */
static int run_with(uint64_t what, mp_ref words, int64_t *ms) {
    char problem[MP_BOOT_PROBLEM] = "";
    const mp_start start = {.method = mp_start_method_named("forkserver"),
                            .kind = EXIT,
                            .message = new_order(7, words),
                            .preload = new_order(what, words),
                            .argv = own_argv("spawned"),
                            .problem = problem};
    int64_t begin = mp_now_ns();
    mp_proc p;
    int r = mp_proc_start(&p, &start);
    *ms = (mp_now_ns() - begin) / 1000000;
    CHECK_STR(problem, "");
    CHECK_OK(r);
    while ((r = mp_proc_wait(&p, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_OK(r);
    mp_proc_close(&p);
    return p.exitcode;
}

SPEC("server: the next one is told what the one that died was told") {
    mp_ref words = new_words();
    words_shm *w = mp_at(words);
    int64_t ms;
    CHECK_EQ(run_with(PRELOAD_DIES_ASKED, words, &ms), 7);
    CHECK_EQ(atomic_load(&w->out[0]), 2);
    mp_server_end(NULL);
    mp_free(words);
}

SPEC("server: one that is killed as it starts is followed by another") {
    mp_ref words = new_words();
    words_shm *w = mp_at(words);
    int64_t ms;
    atomic_store(&w->out[0], 2);
    CHECK_EQ(run_with(PRELOAD_KILLED, words, &ms), 7);
    mp_server_end(NULL);
    mp_free(words);
}

SPEC("server: those that are all killed as they start are told") {
    mp_ref words = new_words();
    words_shm *w = mp_at(words);
    char problem[MP_BOOT_PROBLEM] = "";
    const mp_start start = {.method = mp_start_method_named("forkserver"),
                            .kind = EXIT,
                            .preload = new_order(PRELOAD_KILLED, words),
                            .argv = own_argv("spawned"),
                            .problem = problem};
    mp_proc p;
    atomic_store(&w->out[0], 1000);
    CHECK_EQ(mp_proc_start(&p, &start), -EOWNERDEAD);
    CHECK(strstr(problem, "by signal 9 before it was ready") != NULL);
    mp_free(words);
}

SPEC("server: its death is noticed, whoever has its socket, too") {
    mp_ref words = new_words();
    words_shm *w = mp_at(words);
    int64_t ms;
    CHECK_EQ(run_with(PRELOAD_DIES_HELD, words, &ms), 7);
    CHECK_EQ(atomic_load(&w->out[0]), 2);
    CHECK_OK(kill((pid_t)atomic_load(&w->out[1]), SIGKILL));
    CHECK(ms < 5000);
    mp_server_end(NULL);
    mp_free(words);
}

SPEC("server: it ends at once, whoever has its owner's socket, too") {
    mp_ref words = new_words();
    int64_t ms;
    CHECK_EQ(run_with(PRELOAD_NOTES, words, &ms), 7);
    pid_t copy = fork_as_hosts_do();
    int64_t begin = mp_now_ns();
    mp_server_end(NULL);
    ms = (mp_now_ns() - begin) / 1000000;
    CHECK_OK(kill(copy, SIGKILL));
    CHECK_EQ(waitpid(copy, NULL, 0), copy);
    CHECK(ms < 800);
    mp_free(words);
}
