/* What the machine itself allows: the figures that mplua is held against,
   measured with nothing of mplua in the way.

     fork_wait            us  fork, _exit in the child, waitpid
     spawn_and_state      us  twice posix_spawn and wait of a program that does
                              nothing, and a Lua state with its libraries
     thread_and_states    us  pthread_create and join, and two such states
     pingpong_1core       us  a word from a process to another and back, by
                              futex, both on one processor
     compute_speedup_2p   x   the Lua job of bench.lua in two forked
                              processes against one; forks included

   Prints one JSON line each, like bench.lua. Built and run by run.sh. */
#include <errno.h>
#include <linux/futex.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    FORKS = 1000, SPAWNS = 200, THREADS = 1000, TRIPS = 10000,
    JOBS = 16, ROUNDS = 5, WORK = 1000000
};

static const char polynomial[] =
    "local n = ...\n"
    "local sum = 0\n"
    "for i = 0, n - 1 do sum = sum + i + i * i + i * i * i end\n"
    "return sum\n";

static void check(int good, const char *what) {
    if (!good) {
        perror(what);
        exit(1);
    }
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void emit(const char *name, double value, const char *unit) {
    printf("{\"peer\":\"limit\",\"bench\":\"%s\",\"value\":%.6g,"
           "\"unit\":\"%s\"}\n", name, value, unit);
    fflush(stdout);
}

static void reap(pid_t child) {
    int status;
    pid_t got;

    do {
        got = waitpid(child, &status, 0);
    } while (got < 0 && errno == EINTR);
    check(got == child && status == 0, "child");
}

static void fork_wait(void) {
    double start = seconds();

    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child == 0)
            _exit(0);
        reap(child);
    }
    emit("fork_wait", (seconds() - start) / FORKS * 1e6, "us");
}

static double spawn_seconds(void) {
    char *argv[] = {"true", NULL};
    double start = seconds();

    for (int i = 0; i < SPAWNS; i++) {
        pid_t child;
        check(posix_spawn(&child, "/bin/true", NULL, NULL, argv, environ) ==
                  0,
              "posix_spawn");
        reap(child);
    }
    return (seconds() - start) / SPAWNS;
}

static double state_seconds(void) {
    double start = seconds();

    for (int i = 0; i < THREADS; i++) {
        lua_State *L = luaL_newstate();
        check(L != NULL, "luaL_newstate");
        luaL_openlibs(L);
        lua_close(L);
    }
    return (seconds() - start) / THREADS;
}

static void *nothing(void *context) {
    return context;
}

static double thread_seconds(void) {
    double start = seconds();

    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        check(pthread_create(&thread, NULL, nothing, NULL) == 0, "thread");
        pthread_join(thread, NULL);
    }
    return (seconds() - start) / THREADS;
}

static void starts(void) {
    double state = state_seconds();

    emit("spawn_and_state", (2 * spawn_seconds() + state) * 1e6, "us");
    emit("thread_and_states", (thread_seconds() + 2 * state) * 1e6, "us");
}

/* Tells the other one by a word, and waits for its answer by another. */
static void tell(_Atomic uint32_t *word) {
    atomic_fetch_add(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void hear(_Atomic uint32_t *word, uint32_t seen) {
    while (atomic_load(word) == seen)
        syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void pingpong(void) {
    _Atomic uint32_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cpu_set_t before, one;

    check(words != MAP_FAILED, "mmap");
    check(sched_getaffinity(0, sizeof before, &before) == 0, "affinity");
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    check(sched_setaffinity(0, sizeof one, &one) == 0, "affinity");
    pid_t child = fork();
    check(child >= 0, "fork");
    for (uint32_t i = 0; child == 0 && i < TRIPS; i++) {
        hear(&words[0], i);
        tell(&words[16]);
    }
    if (child == 0)
        _exit(0);
    double start = seconds();
    for (uint32_t i = 0; i < TRIPS; i++) {
        tell(&words[0]);
        hear(&words[16], i);
    }
    emit("pingpong_1core", (seconds() - start) / TRIPS * 1e6, "us");
    reap(child);
    check(sched_setaffinity(0, sizeof before, &before) == 0, "affinity");
    munmap(words, 4096);
}

/* Runs the job on the stack top `n` times; 0 when all went well. */
static int run_jobs(lua_State *L, int n) {
    for (int i = 0; i < n; i++) {
        lua_pushvalue(L, -1);
        lua_pushinteger(L, WORK);
        if (lua_pcall(L, 1, 1, 0) != LUA_OK)
            return 1;
        lua_pop(L, 1);
    }
    return 0;
}

static double alone(lua_State *L) {
    double start = seconds();

    check(run_jobs(L, JOBS) == 0, "job");
    return seconds() - start;
}

static double together(lua_State *L) {
    pid_t children[2];
    double start = seconds();

    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        check(children[i] >= 0, "fork");
        if (children[i] == 0)
            _exit(run_jobs(L, JOBS / 2));
    }
    reap(children[0]);
    reap(children[1]);
    return seconds() - start;
}

static void compute_speedup(void) {
    lua_State *L = luaL_newstate();
    double one = 0, two = 0;

    check(L != NULL, "luaL_newstate");
    check(luaL_loadstring(L, polynomial) == LUA_OK, "job");
    for (int i = 0; i < ROUNDS; i++) {
        one += alone(L);
        two += together(L);
    }
    lua_close(L);
    emit("compute_speedup_2p", one / two, "x");
}

int main(void) {
    fork_wait();
    starts();
    pingpong();
    compute_speedup();
    return 0;
}
