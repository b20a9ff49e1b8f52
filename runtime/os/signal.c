#include "os/signal.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <unistd.h>

static sigset_t set_of(int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

int mp_signal_fd(int signal) {
    sigset_t set = set_of(signal);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) return -errno;
    sigprocmask(SIG_BLOCK, &set, NULL);
    return fd;
}

void mp_signal_default(int signal) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t set = set_of(signal);
    sigaction(signal, &action, NULL);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void do_nothing(int signal) { (void)signal; }

void mp_signal_swallow(int signal) {
    struct sigaction action = {.sa_handler = do_nothing,
                               .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

void mp_signal_ignore_meanwhile(int signal, struct sigaction *before) {
    struct sigaction action = {.sa_handler = SIG_IGN};
    sigaction(signal, &action, before);
}

void mp_signal_restore(int signal, const struct sigaction *before) {
    sigaction(signal, before, NULL);
}

void mp_signal_hold(int signal, sigset_t *before) {
    sigset_t set = set_of(signal);
    sigprocmask(SIG_BLOCK, &set, before);
}

void mp_signal_release(const sigset_t *before) {
    sigprocmask(SIG_SETMASK, before, NULL);
}

void mp_signal_drain(int fd) {
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info) {
    }
}

bool mp_signal_take(int signal, void (*handler)(int)) {
    struct sigaction now, ours = {.sa_handler = handler,
                                  .sa_flags = SA_RESTART};
    sigset_t set = set_of(signal);
    sigemptyset(&ours.sa_mask);
    if (sigaction(signal, NULL, &now) < 0) return false;
    if (now.sa_flags & SA_SIGINFO ||
        (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN &&
         now.sa_handler != handler))
        return false;
    return sigaction(signal, &ours, NULL) == 0 &&
           pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0;
}
