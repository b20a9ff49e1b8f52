/* Refs of the heap: what was freed is known by its old ref never more,
   whatever became of its memory. (What many do at a time is in
   threads_spec.c.) */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "mem/heap.h"
#include "proc/proc.h"
#include "threads.h"

SPEC_PREPARE { CHECK_OK(mp_open()); }

/* A participant of its own makes a block and ends. */
typedef struct order {
    size_t size;
    bool keep; /* published, so that it stays; else freed at once */
    mp_ref block;
} order;

static void make(void *context, int number) {
    order *o = context;
    (void)number;
    o->block = mp_alloc(o->size);
    CHECK(o->block != 0);
    if (o->keep)
        mp_publish(o->block);
    else
        CHECK(mp_free(o->block));
}

static mp_ref made_by_another(size_t size, bool keep) {
    order o = {.size = size, .keep = keep};
    spec_threads(1, make, &o);
    return o.block;
}

enum { SMALL = 64, RUN = 60000 }; /* one unit */

SPEC("heap: a run has another ref than the last one there, whoever made it") {
    mp_ref first = made_by_another(RUN, true);
    CHECK(mp_free(first));
    mp_ref second = made_by_another(RUN, true);
    CHECK_EQ(MP_REF_OFFSET(second), MP_REF_OFFSET(first));
    CHECK(MP_REF_GEN(second) != MP_REF_GEN(first));
    CHECK(!mp_free(first));
    CHECK_EQ(mp_block_size(first), 0);
    CHECK(mp_free(second));
}

/* The block's span goes back when its maker has ended, and its memory is used
   by a run that is zeroed; so the next span finds what new memory has. */
SPEC("heap: a block has another ref than one before it in zeroed memory") {
    mp_ref seen[8];
    for (int i = 0; i < 8; i++) {
        seen[i] = made_by_another(SMALL, false);
        CHECK_EQ(MP_REF_OFFSET(seen[i]), MP_REF_OFFSET(seen[0]));
        for (int k = 0; k < i; k++) CHECK(seen[k] != seen[i]);
        mp_ref run = mp_alloc(RUN);
        CHECK_EQ(MP_REF_OFFSET(run) >> MP_UNIT_SHIFT,
                 MP_REF_OFFSET(seen[0]) >> MP_UNIT_SHIFT);
        memset(mp_at(run), 0, RUN);
        CHECK(mp_free(run));
    }
}

#ifdef MP_POISONS
/* ---- what the address sanitizer knows of it ----------------------------- */

/* Forks a participant that runs touch(block), and gives what it says. */
static int run_apart(void (*touch)(mp_ref), mp_ref block, char *said,
                     size_t size) {
    mp_proc proc;
    int out[2];
    size_t n = 0;
    CHECK_OK(pipe(out));
    int r = mp_proc_fork(&proc, 0);
    CHECK_OK(r);
    if (r == 1) {
        dup2(out[1], STDERR_FILENO);
        touch(block);
        mp_proc_exit(0);
    }
    close(out[1]);
    for (ssize_t k; (k = read(out[0], said + n, size - 1 - n)) > 0;)
        n += (size_t)k;
    said[n] = '\0';
    close(out[0]);
    while ((r = mp_proc_wait(&proc, mp_deadline_in(20))) == -EINTR) {
    }
    CHECK_OK(r);
    mp_proc_close(&proc);
    return proc.exitcode;
}

static void check_reported(void (*touch)(mp_ref), mp_ref block) {
    char said[32768];
    int code = run_apart(touch, block, said, sizeof said);
    if (code == 0 || !strstr(said, "AddressSanitizer: use-after-poison"))
        spec_fail(__FILE__, __LINE__, "code %d: %s", code, said);
}

static void check_silent(void (*touch)(mp_ref), mp_ref block) {
    char said[32768];
    int code = run_apart(touch, block, said, sizeof said);
    CHECK_STR(said, "");
    CHECK_EQ(code, 0);
}

static mp_ref new_published(size_t size) {
    mp_ref block = mp_alloc(size);
    CHECK(block != 0);
    memset(mp_at(block), 7, size);
    mp_publish(block);
    return block;
}

static void free_it(mp_ref block) { CHECK(mp_free(block)); }

static void read_after_free(mp_ref block) {
    const volatile unsigned char *bytes = mp_at(block);
    CHECK_EQ(bytes[8], 7);
    free_it(block);
    CHECK_EQ(bytes[8], 7);
}

static void follow(mp_ref block) {
    const volatile unsigned char *bytes = mp_at(block);
    CHECK_EQ(bytes[8], 7);
}

SPEC("heap: a freed block that is read is reported") {
    check_reported(read_after_free, new_published(SMALL));
    check_reported(read_after_free, new_published(RUN));
}

SPEC("heap: a ref that is followed after another process freed it, too") {
    mp_ref block[] = {new_published(SMALL), new_published(RUN)};
    for (int i = 0; i < 2; i++) {
        check_silent(follow, block[i]);
        check_silent(free_it, block[i]);
        check_reported(follow, block[i]);
    }
}

static _Atomic uint64_t *told;

static void make_there(mp_ref place) {
    mp_ref block = new_published(RUN);
    CHECK_EQ(MP_REF_OFFSET(block), MP_REF_OFFSET(place));
    atomic_store(told, block);
}

SPEC("heap: a block that another made where I freed one is no poison") {
    told = spec_shared(sizeof *told);
    mp_ref old = new_published(RUN);
    free_it(old);
    check_silent(make_there, old);
    follow(*told);
    free_it(*told);
}
#endif
