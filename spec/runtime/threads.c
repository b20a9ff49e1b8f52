/* The order of things is that of proc/start_fork.c: the slot is reserved and
   its ledger filled by the starter; the newcomer claims the slot and takes
   part from then on. */
#include "threads.h"

#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"

/* What a forked child inherits: the private counts. */
static void copy_counts(spec_thread *t) {
    size_t size = mp_me->held_cap * sizeof *t->held;
    t->held_cap = mp_me->held_cap;
    t->held = size ? malloc(size) : NULL;
    CHECK(!size || t->held != NULL);
    if (size) memcpy(t->held, mp_me->held, size);
}

static void *run(void *argument) {
    spec_thread *t = argument;
    CHECK_OK(mp_open_reserved(t->index, t->parent));
    mp_me->held = t->held;
    mp_me->held_cap = t->held_cap;
    t->work(t->context, t->number);
    mp_slot_farewell();
    mp_close();
    return NULL;
}

void spec_thread_start(spec_thread *t, spec_thread_work work, void *context,
                       int number) {
    *t = (spec_thread){
        .work = work, .context = context, .number = number};
    CHECK_OK(mp_slot_reserve(&t->index));
    CHECK_OK(mp_object_copy_ledger(t->index));
    t->tag = mp_tag_of(t->index, atomic_load(&mp_slot_at(t->index)->gen));
    t->parent = mp_me->tag;
    copy_counts(t);
    CHECK_EQ(pthread_create(&t->thread, NULL, run, t), 0);
}

void spec_thread_finish(spec_thread *t) {
    CHECK_EQ(pthread_join(t->thread, NULL), 0);
    CHECK(!mp_tag_alive(t->tag));
    mp_reap(t->tag);
}

void spec_threads(int n, spec_thread_work work, void *context) {
    spec_thread t[n];
    for (int i = 0; i < n; i++) spec_thread_start(&t[i], work, context, i);
    for (int i = 0; i < n; i++) spec_thread_finish(&t[i]);
}
