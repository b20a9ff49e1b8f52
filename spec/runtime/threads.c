/* The order of things is that of proc/start_fork.c: the slot is reserved and
   its ledger filled by the starter; the newcomer forgets its starter's
   spans, claims the slot and takes part from then on. */
#include "threads.h"

#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"

/* A copy of the starter, as fork would make it: the private counts are the
   thread's own, the spans are not its spans. */
static mp_self *copy_self(void) {
    mp_self *self = malloc(sizeof *self);
    CHECK(self != NULL);
    *self = *mp_me;
    self->destroying = false;
    self->empty_spans = 0;
    self->slice_ns = 0;
    mp_heap_forget(self);
    size_t size = self->held_cap * sizeof *self->held;
    self->held = size ? malloc(size) : NULL;
    CHECK(!size || self->held != NULL);
    if (size) memcpy(self->held, mp_me->held, size);
    return self;
}

static void free_self(mp_self *self) {
    for (int class = 0; class < MP_HEAP_CLASSES; class++)
        free(self->spans[class].unit);
    free(self->held);
    free(self);
}

/* The kernel's mark comes after all that the thread did, and who sees it by
   an acquire sees all that. A sanitizer does not see the kernel, so we do
   here what the mark does, and change nothing. */
static void release_life(void) {
    _Atomic uint32_t *life = (_Atomic uint32_t *)(void *)(
        mp_me->slot->life.bytes + mp_me->super->life_at);
    atomic_fetch_or_explicit(life, 0, memory_order_release);
}

static void *run(void *argument) {
    spec_thread *t = argument;
    CHECK_OK(mp_slot_claim(t->self, t->index));
    mp_me = t->self;
    t->work(t->context, t->number);
    mp_slot_farewell();
    release_life();
    mp_me = NULL;
    return NULL;
}

void spec_thread_start(spec_thread *t, spec_thread_work work, void *context,
                       int number) {
    *t = (spec_thread){
        .work = work, .context = context, .number = number};
    CHECK_OK(mp_slot_reserve(&t->index));
    CHECK_OK(mp_object_copy_ledger(t->index));
    t->tag = mp_tag_of(t->index, atomic_load(&mp_slot_at(t->index)->gen));
    t->self = copy_self();
    CHECK_EQ(pthread_create(&t->thread, NULL, run, t), 0);
}

void spec_thread_finish(spec_thread *t) {
    CHECK_EQ(pthread_join(t->thread, NULL), 0);
    /* The kernel marks before it tells those who join. */
    CHECK(!mp_tag_alive(t->tag));
    mp_reap(t->tag);
    free_self(t->self);
}

void spec_threads(int n, spec_thread_work work, void *context) {
    spec_thread t[n];
    for (int i = 0; i < n; i++) spec_thread_start(&t[i], work, context, i);
    for (int i = 0; i < n; i++) spec_thread_finish(&t[i]);
}
