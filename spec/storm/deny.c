/* deny CALL=ERROR... PROGRAM ARGUMENT...

   Runs a program in a sandbox that answers some system calls with an error,
   as containers do: futex_waitv=EPERM pidfd_open=ENOSYS. The filter is
   inherited by all that the program starts. Ends with 125 when it cannot be
   made.
   Source: seccomp(2), PR_SET_SECCOMP(2const). */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { MOST = 16, REFUSED = 125 };

/* Numbers that are the same on every architecture; old headers lack them. */
static const struct {
    const char *name;
    unsigned number;
} calls[] = {{"pidfd_send_signal", 424},
             {"pidfd_open", 434},
             {"futex_waitv", 449}};

static const struct {
    const char *name;
    unsigned number;
} errors[] = {{"EPERM", EPERM}, {"ENOSYS", ENOSYS}};

/* The two numbers of CALL=ERROR; 0 when a word is unknown. */
static int parse(const char *word, unsigned *call, unsigned *error) {
    int found = 0;
    size_t n = strcspn(word, "=");
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (strlen(calls[i].name) == n && !strncmp(calls[i].name, word, n)) {
            *call = calls[i].number;
            found++;
        }
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (word[n] && !strcmp(errors[i].name, word + n + 1)) {
            *error = errors[i].number;
            found++;
        }
    return found == 2;
}

int main(int argc, char **argv) {
    struct sock_filter filter[2 + 2 * MOST] = {BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    unsigned short n = 1;
    int i = 1;
    for (unsigned call = 0, error = 0; i < argc && strchr(argv[i], '='); i++) {
        if (i > MOST || !parse(argv[i], &call, &error)) {
            fprintf(stderr, "deny: %s is not known\n", argv[i]);
            return REFUSED;
        }
        filter[n++] = (struct sock_filter)BPF_JUMP(
            BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1);
        filter[n++] = (struct sock_filter)BPF_STMT(
            BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
    }
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
                                               SECCOMP_RET_ALLOW);
    struct sock_fprog program = {n, filter};
    if (i >= argc) {
        fprintf(stderr, "deny CALL=ERROR... PROGRAM ARGUMENT...\n");
        return REFUSED;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
        perror("deny");
        return REFUSED;
    }
    execvp(argv[i], argv + i);
    perror(argv[i]);
    return REFUSED;
}
