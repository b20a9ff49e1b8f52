#include "os/threads.h"

#include <features.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __GLIBC__
#define HAS_SINGLE __GLIBC_PREREQ(2, 32)
#else
#define HAS_SINGLE 0
#endif

#if HAS_SINGLE
#include <sys/single_threaded.h>
#define KNOWN_SINGLE __libc_single_threaded
#else
#define KNOWN_SINGLE 0
#endif

unsigned mp_threads_count(void) {
    struct stat about;
    if (KNOWN_SINGLE) return 1;
    /* A directory for each thread, which has two links more. */
    if (stat("/proc/self/task", &about) < 0 || about.st_nlink < 3) return 2;
    return (unsigned)about.st_nlink - 2;
}

bool mp_threads_is_main(void) { return syscall(SYS_gettid) == getpid(); }

uint32_t mp_threads_number(void) { return (uint32_t)syscall(SYS_gettid); }

void mp_threads_signal(uint32_t thread, int signal) {
    if (thread) syscall(SYS_tgkill, getpid(), (pid_t)thread, signal);
}
