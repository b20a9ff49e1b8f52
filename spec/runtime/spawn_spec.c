/* Children that are new programs, and those of a fork server: that they begin
   as they should, how they end, and that nothing is left. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "harness.h"
#include "mem/fsck.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "os/child.h"
#include "spawn_tools.h"
#include "sync/lock.h"

SPEC_PREPARE { prepare_starts(); }

/* ---- jobs ------------------------------------------------------------- */

static uint64_t noted; /* by a server, before it waited */

static int job_exit(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)boot, (void)w;
    return (int)in;
}

static int job_raise(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)boot, (void)w;
    raise((int)in);
    return 0;
}

static int job_sleep(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)boot, (void)in;
    atomic_store(&w->out[0], (uint64_t)getpid());
    while (pause() < 0) {
    }
    return 0;
}

static int job_spin(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)boot, (void)in;
    atomic_store(&w->out[0], (uint64_t)getpid());
    while (atomic_load(&w->out[1]) == 0) {
    }
    return 0;
}

/* Blocks in a lock that its parent has. */
static int job_block(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)in;
    mp_lock_open();
    if (mp_object_attach(boot->id, boot->gen) < 0) return 1;
    mp_lock_shm *lock = mp_object_block(boot->id);
    atomic_store(&w->out[0], (uint64_t)getpid());
    int r;
    do r = mp_lock_acquire(lock, MP_FOREVER);
    while (r == -EINTR);
    return r;
}

/* Takes a lock and is killed. */
static int job_die_holding(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)in, (void)w;
    mp_lock_open();
    if (mp_object_attach(boot->id, boot->gen) < 0) return 1;
    mp_lock_shm *lock = mp_object_block(boot->id);
    if (mp_lock_acquire(lock, mp_deadline_in(5)) != 0) return 2;
    raise(SIGKILL);
    return 3;
}

static uint64_t count_descriptors(void) {
    uint64_t n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static uint64_t dispositions(void) {
    static const int looked[] = {SIGINT, SIGTERM, SIGUSR1, SIGPIPE, SIGCHLD};
    uint64_t bits = 0;
    for (int i = 0; i < 5; i++) {
        struct sigaction action;
        sigaction(looked[i], NULL, &action);
        bits |= (uint64_t)(action.sa_handler != SIG_DFL) << i;
    }
    return bits;
}

/* What it begins with. */
enum { O_TAG, O_FDS, O_SIGNALS, O_MASK, O_STDIN, O_PARENT, O_NOTED, O_ENV };

static int job_look(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)in;
    char byte;
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    const char *told = getenv("SPAWN_SPEC");
    atomic_store(&w->out[O_FDS], count_descriptors());
    atomic_store(&w->out[O_SIGNALS], dispositions());
    atomic_store(&w->out[O_MASK], (uint64_t)sigismember(&mask, SIGUSR1));
    atomic_store(&w->out[O_STDIN], (uint64_t)read(0, &byte, 1));
    atomic_store(&w->out[O_PARENT], boot->parent);
    atomic_store(&w->out[O_NOTED], noted);
    atomic_store(&w->out[O_ENV], told ? (uint64_t)atoi(told) : 0);
    atomic_store(&w->out[O_TAG], mp_me->tag);
    return 0;
}

/* Says where it is, to stdout. */
static int job_say(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)boot, (void)in, (void)w;
    char path[512];
    if (!getcwd(path, sizeof path)) return 1;
    printf("%s\n", path);
    return fflush(stdout) == 0 ? 0 : 2;
}

/* Starts one by the same method. */
static int job_start_one(mp_boot_shm *boot, uint64_t in, words_shm *w);

enum {
    EXIT, RAISE, SLEEP, SPIN, BLOCK, DIE_HOLDING, LOOK, SAY, START_ONE
};
static const job jobs[] = {job_exit, job_raise,       job_sleep,
                           job_spin, job_block,       job_die_holding,
                           job_look, job_say,         job_start_one};

SPEC_PROGRAM("spawned") {
    return argc == 4 ? run_spawned(argv, jobs, &noted) : 99;
}

/* ---- starting and waiting --------------------------------------------- */

static const char *const METHODS[] = {"spawn", "forkserver"};
enum { SPAWN, SERVER };

static int begin(mp_proc *p, int method, uint32_t kind, mp_ref message) {
    const mp_start start = {.method = mp_start_method_named(METHODS[method]),
                            .kind = kind,
                            .message = message,
                            .argv = own_argv("spawned")};
    return mp_proc_start(p, &start);
}

static int wait_for(mp_proc *p, mp_deadline deadline) {
    int r;
    do r = mp_proc_wait(p, deadline);
    while (r == -EINTR);
    return r;
}

static int end_of(mp_proc *p) {
    CHECK_OK(wait_for(p, mp_deadline_in(10)));
    mp_proc_close(p);
    return p->exitcode;
}

static int job_start_one(mp_boot_shm *boot, uint64_t in, words_shm *w) {
    (void)boot, (void)w;
    mp_proc p;
    int r = begin(&p, (int)in, EXIT, new_order(41, 0));
    if (r < 0) return 90;
    return end_of(&p) + 1;
}

/* Runs a job to its end: the exit code, and what it told. */
static int run_job(int method, uint32_t kind, uint64_t in, words_shm *out) {
    mp_proc p;
    mp_ref words = new_words();
    CHECK_OK(begin(&p, method, kind, new_order(in, words)));
    int code = end_of(&p);
    if (out) memcpy((void *)out, mp_at(words), sizeof *out);
    mp_free(words);
    return code;
}

/* One that runs on; it has said so. */
static pid_t begin_endless(mp_proc *p, int method, uint32_t kind,
                           mp_ref words) {
    words_shm *w = mp_at(words);
    CHECK_OK(begin(p, method, kind, new_order(0, words)));
    CHECK_SOON(atomic_load(&w->out[0]));
    return (pid_t)atomic_load(&w->out[0]);
}

static void end_server(void) { mp_server_end(NULL); }

#define BOTH for (int m = SPAWN; m <= SERVER; m++)

/* ---- the end ----------------------------------------------------------- */

SPEC("spawn: exit codes and signals are those of the child") {
    BOTH {
        CHECK_EQ(run_job(m, EXIT, 0, NULL), 0);
        CHECK_EQ(run_job(m, EXIT, 7, NULL), 7);
        CHECK_EQ(run_job(m, EXIT, 255, NULL), 255);
        CHECK_EQ(run_job(m, RAISE, SIGTERM, NULL), -SIGTERM);
        CHECK_EQ(run_job(m, RAISE, SIGKILL, NULL), -SIGKILL);
    }
    end_server();
}

SPEC("spawn: a child is a participant, known by its tag and number") {
    mp_ref words = new_words();
    BOTH {
        mp_proc p;
        memset(mp_at(words), 0, sizeof(words_shm));
        pid_t pid = begin_endless(&p, m, SLEEP, words);
        CHECK_EQ(p.pid, pid);
        CHECK(mp_tag_alive(p.tag));
        CHECK_EQ(wait_for(&p, mp_deadline_in(0.03)), -ETIMEDOUT);
        CHECK_OK(mp_proc_signal(&p, SIGTERM));
        CHECK_EQ(end_of(&p), -SIGTERM);
        CHECK(!mp_tag_alive(p.tag));
    }
    end_server();
    mp_free(words);
}

SPEC("spawn: what a dead child held is left to others") {
    uint32_t id, gen;
    CHECK_OK(mp_lock_create(&id, &gen));
    BOTH {
        mp_proc p;
        const mp_start start = {
            .method = mp_start_method_named(METHODS[m]),
            .kind = DIE_HOLDING,
            .message = new_order(0, 0),
            .id = id,
            .gen = gen,
            .argv = own_argv("spawned")};
        CHECK_OK(mp_proc_start(&p, &start));
        CHECK_EQ(end_of(&p), -SIGKILL);
        mp_lock_shm *lock = mp_object_block(id);
        CHECK_EQ(mp_lock_acquire(lock, mp_deadline_in(5)),
                 MP_LOCK_ABANDONED);
        CHECK_OK(mp_lock_release(lock));
    }
    end_server();
    mp_object_detach(id);
}

SPEC_WITHIN(60, "spawn: two hundred, one after the other, leave no slot") {
    BOTH {
        uint32_t high = 0;
        for (int i = 0; i < 200; i++) {
            CHECK_EQ(run_job(m, EXIT, (uint64_t)i, NULL), i);
            if (i == 5) high = atomic_load(&mp_me->super->slots);
        }
        CHECK_EQ(atomic_load(&mp_me->super->slots), high);
    }
    end_server();
}

SPEC_WITHIN(60, "spawn: fifty at a time") {
    enum { N = 50 };
    BOTH {
        mp_proc p[N];
        for (uint64_t i = 0; i < N; i++)
            CHECK_OK(begin(&p[i], m, EXIT, new_order(i, 0)));
        for (int i = 0; i < N; i++) CHECK_EQ(end_of(&p[i]), i);
    }
    end_server();
}

SPEC("spawn: the end is seen without a pidfd, too") {
    mp_ref words = new_words();
    BOTH {
        mp_proc p;
        CHECK_OK(begin(&p, m, EXIT, new_order(5, 0)));
        mp_proc_close(&p);
        CHECK_EQ(end_of(&p), 5);
        memset(mp_at(words), 0, sizeof(words_shm));
        begin_endless(&p, m, SLEEP, words);
        mp_proc_close(&p);
        CHECK_OK(mp_proc_signal(&p, SIGTERM));
        CHECK_EQ(end_of(&p), -SIGTERM);
    }
    end_server();
    mp_free(words);
}

/* ---- what it begins with ---------------------------------------------- */

static void ignore(int signal) { (void)signal; }

SPEC("spawn: a child has no descriptor, mask or handler of its parent's") {
    sigset_t mask, before;
    struct sigaction old, handled = {.sa_handler = ignore};
    /* One that exec would leave open. */
    int leaked = dup(STDERR_FILENO);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaction(SIGUSR1, &handled, &old);
    signal(SIGPIPE, SIG_IGN);
    BOTH {
        words_shm saw;
        sigprocmask(SIG_BLOCK, &mask, &before);
        CHECK_EQ(run_job(m, LOOK, 0, &saw), 0);
        sigprocmask(SIG_SETMASK, &before, NULL);
        /* The three, the arena, the shelf's two, /dev/null. */
        CHECK_EQ(saw.out[O_FDS], 7);
        CHECK_EQ(saw.out[O_SIGNALS], 0);
        CHECK_EQ(saw.out[O_MASK], 0);
        CHECK_EQ(saw.out[O_STDIN], 0); /* the end of a file */
        CHECK_EQ(saw.out[O_PARENT], mp_me->tag);
        CHECK(saw.out[O_TAG] != mp_me->tag);
    }
    signal(SIGPIPE, SIG_DFL);
    sigaction(SIGUSR1, &old, NULL);
    end_server();
    close(leaked);
}

SPEC("spawn: environment and directory are the parent's of that moment") {
    char before[4096];
    words_shm saw;
    CHECK(getcwd(before, sizeof before) != NULL);
    CHECK_EQ(run_job(SERVER, LOOK, 0, &saw), 0); /* it is there before */
    CHECK_EQ(saw.out[O_ENV], 0);
    setenv("SPAWN_SPEC", "77", 1);
    CHECK_OK(chdir("/proc"));
    BOTH {
        char text[64] = "";
        int pipes[2], saved = dup(STDOUT_FILENO);
        CHECK_EQ(run_job(m, LOOK, 0, &saw), 0);
        CHECK_EQ(saw.out[O_ENV], 77);
        CHECK_OK(pipe(pipes));
        dup2(pipes[1], STDOUT_FILENO);
        CHECK_EQ(run_job(m, SAY, 0, NULL), 0);
        dup2(saved, STDOUT_FILENO);
        close(saved);
        close(pipes[1]);
        /* Nobody else has that stdout: its end is there. */
        CHECK_EQ(read(pipes[0], text, sizeof text - 1), 6);
        CHECK_EQ(read(pipes[0], text + 6, 1), 0);
        CHECK_STR(text, "/proc\n");
        close(pipes[0]);
    }
    unsetenv("SPAWN_SPEC");
    CHECK_EQ(run_job(SERVER, LOOK, 0, &saw), 0);
    CHECK_EQ(saw.out[O_ENV], 0);
    CHECK_OK(chdir(before));
    end_server();
}

SPEC("spawn: children have children, of either method") {
    BOTH
        for (uint64_t inner = SPAWN; inner <= SERVER; inner++)
            CHECK_EQ(run_job(m, START_ONE, inner, NULL), 42);
    end_server();
}

/* ---- what does not fit ------------------------------------------------ */

static int try_program(int method, const char *const *argv, char *problem) {
    mp_proc p;
    const mp_start start = {.method = mp_start_method_named(METHODS[method]),
                            .message = new_order(0, 0),
                            .preload = new_order(0, 0),
                            .argv = argv,
                            .problem = problem};
    problem[0] = '\0';
    return mp_proc_start(&p, &start);
}

SPEC("spawn: what is no program is an error that says so") {
    char problem[MP_BOOT_PROBLEM];
    char script[64];
    if (spec_valgrind()) return; /* there, they are programs that end */
    snprintf(script, sizeof script, "/tmp/spawn_spec_%d", (int)getpid());
    int fd = open(script, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK_OK(fd);
    CHECK_EQ(write(fd, "no program\n", 11), 11);
    BOTH {
        static const char *const missing[] = {"/no/such/lua", NULL};
        static const char *const directory[] = {"/", NULL};
        const char *const file[] = {script, NULL};
        CHECK_OK(fchmod(fd, 0600));
        CHECK_EQ(try_program(m, missing, problem), -ENOENT);
        CHECK_EQ(try_program(m, directory, problem), -EACCES);
        CHECK_EQ(try_program(m, file, problem), -EACCES);
        CHECK_OK(fchmod(fd, 0700));
        close(fd);
        CHECK_EQ(try_program(m, file, problem), -ENOEXEC);
        fd = open(script, O_RDWR | O_CLOEXEC);
    }
    close(fd);
    unlink(script);
}

SPEC("spawn: a program that does not take part is named") {
    static const char *const other[] = {"/bin/true", "BOOT_REF", NULL};
    static const char *const bad[] = {"/bin/false", NULL};
    static const char *const killed[] = {"/bin/sh", "-c", "kill -9 $$",
                                         NULL};
    BOTH {
        char problem[MP_BOOT_PROBLEM];
        CHECK_EQ(try_program(m, other, problem), -EPROTO);
        CHECK(strstr(problem, "/bin/true ended with exit code 0"));
        CHECK_EQ(try_program(m, bad, problem), -EPROTO);
        CHECK(strstr(problem, "/bin/false ended with exit code 1"));
        CHECK_EQ(try_program(m, killed, problem), -EOWNERDEAD);
        CHECK(strstr(problem, "sh ended by signal 9 before it took part"));
    }
}

SPEC_WITHIN(40, "spawn: a program that runs and does not begin is ended") {
    static const char *const sleeps[] = {"/bin/sleep", "1000", NULL};
    char problem[MP_BOOT_PROBLEM];
    double begun = spec_now();
    CHECK_EQ(try_program(SPAWN, sleeps, problem), -EPROTO);
    CHECK(strstr(problem, "/bin/sleep runs, but does not begin"));
    CHECK(spec_now() - begun < 15);
}

SPEC("spawn: numbers of a stranger do no harm") {
    mp_boot_shm *boot;
    mp_proc p;
    mp_ref block = new_words();
    const char *const *own = own_argv("spawned");
    const struct {
        const char *fd, *ref;
        int code;
    } bad[] = {{"BOOT_FD", "0", EINVAL},
               {"BOOT_FD", "0x40000", EINVAL},
               {"BOOT_FD", "0x7fffffffffc0", EINVAL},
               {"BOOT_FD", "0xffffffffffffffff", EINVAL},
               {"BOOT_FD", "64", EINVAL},
               {"BOOT_FD", "BOOT_REF1", EINVAL},
               {"0", "BOOT_REF", EBADF},
               {"1", "BOOT_REF", EBADF},
               {"77", "BOOT_REF", EBADF},
               {"-1", "BOOT_REF", EBADF}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char problem[MP_BOOT_PROBLEM] = "", wanted[40];
        const char *const argv[] = {own[0], own[1], bad[i].fd, bad[i].ref,
                                    NULL};
        const mp_start start = {.method = mp_start_method_named("spawn"),
                                .argv = argv,
                                .problem = problem};
        CHECK_EQ(mp_proc_start(&p, &start), -EPROTO);
        snprintf(wanted, sizeof wanted, "exit code %d:", bad[i].code);
        CHECK(strstr(problem, wanted));
    }
    CHECK_EQ(mp_boot_attach(mp_me->fd, block, &boot), -EBUSY);
    mp_free(block);
}

/* A memfd that says that it is an arena. */
static int fake_arena(uint64_t reserved, uint32_t life_at, size_t size) {
    int fd = memfd_create("fake", MFD_ALLOW_SEALING);
    mp_super_shm head = {.magic = MP_ARENA_MAGIC, .reserved = reserved,
                         .life_at = life_at};
    CHECK_OK(fd);
    CHECK_OK(ftruncate(fd, (off_t)size));
    if (size < sizeof head) return fd;
    CHECK_EQ(pwrite(fd, &head, sizeof head, 0), (ssize_t)sizeof head);
    return fd;
}

SPEC("spawn: what only looks like an arena is refused") {
    mp_self self = {0};
    uint32_t life_at = mp_me->super->life_at;
    uint64_t reserved = mp_me->super->reserved;
    size_t size = atomic_load(&mp_me->super->size);
    int fd = fake_arena(reserved, life_at, size);
    CHECK_EQ(mp_arena_map(&self, fd), -EBADF); /* it may be cut */
    CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    CHECK_OK(mp_arena_map(&self, fd));
    mp_arena_unmap(&self);
    const struct {
        uint64_t reserved;
        uint32_t life_at;
        size_t size;
        int result;
    } bad[] = {{reserved, life_at, 4096, -EBADF},
               {reserved, life_at, 1 << 20, -EPROTO},
               {reserved + 4096, life_at, size, -EPROTO},
               {UINT64_MAX, life_at, size, -EPROTO},
               {0, life_at, size, -EPROTO},
               {reserved, life_at + 4, size, -EPROTO}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fd = fake_arena(bad[i].reserved, bad[i].life_at, bad[i].size);
        CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
        CHECK_EQ(mp_arena_map(&self, fd), bad[i].result);
        close(fd);
    }
    int pipes[2];
    CHECK_OK(pipe(pipes));
    CHECK_EQ(mp_arena_map(&self, pipes[0]), -EBADF);
    CHECK_EQ(mp_arena_map(&self, -1), -EBADF);
    close(pipes[0]);
    close(pipes[1]);
}

SPEC("spawn: a block of another build is refused in words") {
    mp_proc p;
    const char *const *own = own_argv("spawned");
    char problem[MP_BOOT_PROBLEM] = "";
    mp_start start = {.method = mp_start_method_named("spawn"),
                      .argv = own,
                      .problem = problem};
    mp_ref boot;
    CHECK_OK(mp_boot_make(&start, &boot));
    mp_boot_at(boot)->layout++;
    CHECK_OK(mp_spawn(&p, &start, boot, -1));
    CHECK_EQ(mp_spawn_await(&p, &start, MP_BOOT_CLAIMED), -EPROTO);
    CHECK_STR(problem, "its module mp is of another build");
}

SPEC("spawn: few descriptors are an error, not a loss") {
    struct rlimit before, tight;
    CHECK_EQ(run_job(SPAWN, EXIT, 1, NULL), 1);
    CHECK_EQ(run_job(SERVER, EXIT, 1, NULL), 1);
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
    for (rlim_t more = 0; more < 4; more++) {
        mp_proc p;
        tight = before;
        tight.rlim_cur = (rlim_t)dup(0) + more;
        close((int)(tight.rlim_cur - more));
        for (int m = SPAWN; m <= SERVER; m++) {
            CHECK_OK(setrlimit(RLIMIT_NOFILE, &tight));
            int r = begin(&p, m, EXIT, new_order(9, 0));
            CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
            CHECK(r == 0 || r == -EMFILE);
            if (r == 0) CHECK_EQ(end_of(&p), 9);
            if (m == SPAWN) CHECK_EQ(r, 0);
        }
    }
    end_server();
}

/* ---- the invariants of a boot block ------------------------------------ */

static void look_for(void *wanted, const char *finding) {
    const char **words = wanted;
    if (*words && strstr(finding, *words)) *words = NULL;
}

/* Is it found if the word at `at` is `value`? */
static void damage(void *at, size_t size, uint64_t value,
                   const char *words) {
    unsigned char before[8];
    memcpy(before, at, size);
    memcpy(at, &value, size);
    CHECK(mp_fsck(MP_FSCK_QUIET, look_for, &words) > 0);
    memcpy(at, before, size);
    if (words) spec_fail(__FILE__, __LINE__, "not found: %s", words);
}

SPEC("spawn: fsck finds a boot block that cannot be") {
    const mp_start start = {.message = new_order(0, 0)};
    const char *none = "";
    mp_ref ref;
    CHECK_OK(mp_boot_make_served(&start, NULL, 0, &ref));
    mp_boot_shm *boot = mp_boot_at(ref);
    CHECK_EQ(mp_fsck(MP_FSCK_QUIET, look_for, &none), 0);
    damage(&boot->magic, 8, 1, "(Boot): magic is 1, expected");
    damage(&boot->layout, 4, 0, "(Boot): layout is 0, expected");
    damage(&boot->state, 4, 9, "(Boot): state is 9, expected 0 to 4");
    damage(&boot->index, 4, 5000, "(Boot): index is 5000, expected");
    damage(&boot->parent, 4, 0x5001, "parent is 0x5001, which nobody ever");
    damage(&boot->self_id, 4, 99, "(Boot): self_id is 99, expected");
    damage(&boot->environment, 8, 1 << 20, "(Boot): its block has");
    damage(&boot->message, 8, 0, "published, but nothing refers to it");
    mp_boot_free(ref);
}

/* ---- deaths ------------------------------------------------------------ */

/* Its own: each starts the three kinds, and waits to be killed. */
static void be_parent(int method, mp_ref *words, uint32_t id, uint32_t gen) {
    static const uint32_t kinds[] = {SLEEP, SPIN, BLOCK};
    for (int i = 0; i < 3; i++) {
        mp_proc p;
        const mp_start start = {
            .method = mp_start_method_named(METHODS[method]),
            .kind = kinds[i],
            .message = new_order(0, words[i]),
            .id = id,
            .gen = gen,
            .argv = own_argv("spawned")};
        CHECK_OK(mp_proc_start(&p, &start));
    }
    for (;;) pause();
}

SPEC("spawn: a killed parent's children go, asleep, busy or blocked") {
    if (!spec_has_pidfds()) return;
    uint32_t id, gen;
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_lock_shm *lock = mp_object_block(id);
    CHECK_EQ(mp_lock_acquire(lock, MP_AT_ONCE), 0);
    BOTH {
        mp_ref words[3];
        int fds[3];
        mp_proc p;
        for (int i = 0; i < 3; i++) words[i] = new_words();
        int r = mp_proc_fork(&p, 0);
        CHECK_OK(r);
        if (r == 1) be_parent(m, words, id, gen);
        for (int i = 0; i < 3; i++) {
            words_shm *w = mp_at(words[i]);
            CHECK_SOON(atomic_load(&w->out[0]));
            fds[i] = mp_child_pidfd((pid_t)atomic_load(&w->out[0]));
            CHECK_OK(fds[i]);
        }
        mp_proc_signal(&p, SIGKILL);
        CHECK_EQ(end_of(&p), -SIGKILL);
        for (int i = 0; i < 3; i++) {
            struct pollfd ended = {.fd = fds[i], .events = POLLIN};
            CHECK_EQ(poll(&ended, 1, 1000), 1);
            close(fds[i]);
            mp_free(words[i]);
        }
    }
    CHECK_OK(mp_lock_release(lock));
    mp_object_detach(id);
}

/* The server's tag: that of the block of one of its children. */
static pid_t server_of(const mp_proc *p) {
    uint32_t tag = mp_boot_at(p->boot)->server;
    return (pid_t)atomic_load(&mp_slot_at(tag % MP_SLOTS)->pid);
}

SPEC("spawn: children go with a killed server, and the next has a new one") {
    mp_ref words = new_words();
    mp_proc p[2];
    begin_endless(&p[0], SERVER, SLEEP, words);
    memset(mp_at(words), 0, sizeof(words_shm));
    begin_endless(&p[1], SERVER, SPIN, words);
    pid_t first = server_of(&p[0]);
    CHECK_EQ(server_of(&p[1]), first);
    CHECK_OK(kill(first, SIGKILL));
    double begun = spec_now();
    CHECK_EQ(end_of(&p[0]), -SIGKILL);
    CHECK_EQ(end_of(&p[1]), -SIGKILL);
    CHECK(spec_now() - begun < (spec_sanitized() ? 3 : 1));
    CHECK_EQ(run_job(SERVER, EXIT, 3, NULL), 3);
    end_server();
    mp_free(words);
}

SPEC_WITHIN(60, "spawn: a server killed at any time costs one start at most") {
    for (int i = 0; i < 60; i++) {
        mp_proc before, p;
        mp_ref words = new_words();
        begin_endless(&before, SERVER, SLEEP, words);
        pid_t killer, it = server_of(&before);
        CHECK_OK(killer = fork());
        if (killer == 0) {
            for (volatile int spin = 0; spin < i * 4000;) spin = spin + 1;
            kill(it, SIGKILL);
            _exit(0);
        }
        CHECK_OK(begin(&p, SERVER, EXIT, new_order(4, 0)));
        int code = end_of(&p);
        CHECK(code == 4 || code == -SIGKILL);
        CHECK_EQ(end_of(&before), -SIGKILL);
        spec_wait(killer);
        mp_free(words);
    }
    end_server();
}

SPEC_WITHIN(60, "spawn: a child killed as it begins leaves no slot") {
    BOTH {
        uint32_t high = 0;
        for (int i = 0; i < 60; i++) {
            mp_proc p;
            CHECK_OK(begin(&p, m, EXIT, new_order(0, 0)));
            for (volatile int spin = 0; spin < i * 5000;) spin = spin + 1;
            mp_proc_signal(&p, SIGKILL);
            int code = end_of(&p);
            CHECK(code == 0 || code == -SIGKILL);
            if (i == 5) high = atomic_load(&mp_me->super->slots);
        }
        CHECK(atomic_load(&mp_me->super->slots) <= high + 1);
    }
    end_server();
}

/* ---- the server -------------------------------------------------------- */

static int begin_with_preload(mp_proc *p, uint64_t what, mp_ref words,
                              char *problem) {
    const mp_start start = {.method = mp_start_method_named("forkserver"),
                            .kind = EXIT,
                            .message = new_order(0, 0),
                            .preload = new_order(what, words),
                            .argv = own_argv("spawned"),
                            .problem = problem};
    problem[0] = '\0';
    return mp_proc_start(p, &start);
}

SPEC("spawn: a preload that fails is told, and the next start tries anew") {
    char problem[MP_BOOT_PROBLEM];
    words_shm saw;
    mp_proc p;
    CHECK_EQ(begin_with_preload(&p, PRELOAD_FAILS, 0, problem), -EPROTO);
    CHECK_STR(problem, "the preload fails");
    CHECK_EQ(begin_with_preload(&p, PRELOAD_DIES, 0, problem), -EPROTO);
    CHECK(strstr(problem, "ended with exit code 3"));
    CHECK_OK(begin_with_preload(&p, PRELOAD_NOTES, 0, problem));
    CHECK_EQ(end_of(&p), 0);
    CHECK_EQ(run_job(SERVER, LOOK, 0, &saw), 0);
    CHECK_EQ(saw.out[O_NOTED], PRELOAD_NOTES);
    end_server();
}

SPEC("spawn: a server that never gets ready goes with its owner") {
    if (!spec_has_pidfds()) return;
    mp_ref words = new_words();
    words_shm *w = mp_at(words);
    mp_proc p;
    int r = mp_proc_fork(&p, 0);
    CHECK_OK(r);
    if (r == 1) {
        char problem[MP_BOOT_PROBLEM];
        mp_proc c;
        begin_with_preload(&c, PRELOAD_HANGS, words, problem);
        mp_proc_exit(1);
    }
    CHECK_SOON(atomic_load(&w->out[0]));
    struct pollfd ended = {.events = POLLIN};
    ended.fd = mp_child_pidfd((pid_t)atomic_load(&w->out[0]));
    CHECK_OK(ended.fd);
    mp_proc_signal(&p, SIGKILL);
    CHECK_EQ(end_of(&p), -SIGKILL);
    CHECK_EQ(poll(&ended, 1, 1000), 1);
    close(ended.fd);
    mp_free(words);
}

SPEC("spawn: a server ends with its owner, whichever way") {
    if (!spec_has_pidfds()) return;
    for (int how = 0; how < 3; how++) {
        _Atomic pid_t *told = spec_shared(sizeof *told);
        mp_proc p;
        int r = mp_proc_fork(&p, 0);
        CHECK_OK(r);
        if (r == 1) {
            mp_proc c;
            CHECK_OK(begin(&c, SERVER, EXIT, new_order(0, 0)));
            pid_t it = server_of(&c);
            CHECK_EQ(end_of(&c), 0);
            atomic_store(told, it);
            if (how == 0) mp_family_exit(0);
            if (how == 1) _exit(0);
            for (;;) pause();
        }
        CHECK_SOON(atomic_load(told));
        int fd = mp_child_pidfd(atomic_load(told));
        if (how == 2) mp_proc_signal(&p, SIGKILL);
        CHECK_EQ(end_of(&p), how == 2 ? -SIGKILL : 0);
        struct pollfd ended = {.fd = fd, .events = POLLIN};
        if (fd >= 0) CHECK_EQ(poll(&ended, 1, 1000), 1);
        if (fd >= 0) close(fd);
    }
}

SPEC("spawn: a server ends with its owner, whom a host has forked") {
    if (!spec_has_pidfds()) return;
    _Atomic pid_t *told = spec_shared(2 * sizeof *told);
    mp_proc p;
    int r = mp_proc_fork(&p, 0);
    CHECK_OK(r);
    if (r == 1) {
        mp_proc c;
        CHECK_OK(begin(&c, SERVER, EXIT, new_order(0, 0)));
        atomic_store(&told[0], server_of(&c));
        CHECK_EQ(end_of(&c), 0);
        atomic_store(&told[1], fork_as_hosts_do());
        for (;;) pause();
    }
    CHECK_SOON(atomic_load(&told[1]));
    struct pollfd ended = {.fd = mp_child_pidfd(told[0]), .events = POLLIN};
    CHECK_OK(ended.fd);
    mp_proc_signal(&p, SIGKILL);
    CHECK_EQ(end_of(&p), -SIGKILL);
    CHECK_EQ(poll(&ended, 1, 1000), 1);
    close(ended.fd);
    CHECK_OK(kill(told[1], SIGKILL));
}

SPEC("spawn: a forked child has a server of its own") {
    mp_proc p, mine;
    mp_ref words = new_words();
    begin_endless(&mine, SERVER, SLEEP, words);
    pid_t first = server_of(&mine);
    int r = mp_proc_fork(&p, 0);
    CHECK_OK(r);
    if (r == 1) {
        mp_proc c;
        CHECK_OK(begin(&c, SERVER, EXIT, new_order(6, 0)));
        CHECK(server_of(&c) != first);
        CHECK_EQ(end_of(&c), 6);
        mp_family_exit(0);
    }
    CHECK_EQ(end_of(&p), 0);
    CHECK_EQ(run_job(SERVER, EXIT, 2, NULL), 2);
    CHECK_OK(mp_proc_signal(&mine, SIGTERM));
    CHECK_EQ(end_of(&mine), -SIGTERM);
    end_server();
    mp_free(words);
}

SPEC("spawn: Ctrl-C leaves the server alone, and ends its children") {
    mp_ref words = new_words();
    mp_proc p;
    begin_endless(&p, SERVER, SLEEP, words);
    pid_t first = server_of(&p);
    CHECK_OK(kill(first, SIGINT));
    CHECK_OK(mp_proc_signal(&p, SIGINT));
    CHECK_EQ(end_of(&p), -SIGINT);
    mp_proc again;
    CHECK_OK(begin(&again, SERVER, EXIT, new_order(0, 0)));
    CHECK_EQ(server_of(&again), first);
    CHECK_EQ(end_of(&again), 0);
    end_server();
    mp_free(words);
}

/* ---- threads ------------------------------------------------------------ */

static void *start_some(void *failed) {
    if (mp_open() < 0) return failed;
    void *result = NULL;
    for (int i = 0; i < 20; i++)
        for (int m = SPAWN; m <= SERVER; m++)
            if (run_job(m, EXIT, 5, NULL) != 5) result = failed;
    mp_close();
    return result;
}

static void *start_first(void *pid) {
    mp_proc p;
    CHECK_OK(mp_open());
    CHECK_OK(begin(&p, SERVER, EXIT, new_order(0, 0)));
    *(pid_t *)pid = server_of(&p);
    CHECK_EQ(end_of(&p), 0);
    mp_family_end(NULL);
    mp_close();
    return NULL;
}

SPEC("spawn: a server outlives the thread that started it") {
    pthread_t thread;
    pid_t first;
    mp_proc p;
    CHECK_EQ(pthread_create(&thread, NULL, start_first, &first), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_OK(begin(&p, SERVER, EXIT, new_order(0, 0)));
    CHECK_EQ(server_of(&p), first);
    CHECK_EQ(end_of(&p), 0);
    end_server();
}

SPEC_WITHIN(60, "spawn: two threads start children at a time, one forks") {
    pthread_t threads[2];
    static int failed;
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, start_some, &failed), 0);
    CHECK(mp_start_threads() >= 2 || spec_sanitized());
    for (int i = 0; i < 10; i++) {
        mp_proc p;
        int r = mp_proc_fork(&p, 0);
        CHECK_OK(r);
        if (r == 1) {
            CHECK_EQ(run_job(SERVER, EXIT, 8, NULL), 8);
            mp_family_exit(0);
        }
        CHECK_EQ(end_of(&p), 0);
    }
    for (int i = 0; i < 2; i++) {
        void *result;
        pthread_join(threads[i], &result);
        CHECK(result == NULL);
    }
    end_server();
}

SPEC("spawn: a process knows how many threads it has") {
    pthread_t thread;
    unsigned before = mp_start_threads(); /* a sanitizer has its own */
    CHECK(before == 1 || spec_sanitized());
    static int failed;
    CHECK_EQ(pthread_create(&thread, NULL, start_some, &failed), 0);
    unsigned n = mp_start_threads();
    pthread_join(thread, NULL);
    CHECK_EQ(n, before + 1);
    CHECK_SOON(mp_start_threads() == before);
    end_server();
}
