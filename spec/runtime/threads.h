/* Threads as participants, for specs: what the processes of a family do to
   the shared memory, done by threads of one process, so that a sanitizer of
   threads sees both sides of each race.

   Invariant: to the floors below, such a thread is what a forked child is:
   it has a slot that its starter reserved, holds what the starter held, has
   spans of its own, and the kernel marks its life word when it ends. Who
   finishes it reaps its slot; until then it is a dead participant that
   anybody may reap.
   Unlike a child it is not killed: it ends when its work returns, and a
   check that fails in it ends the whole spec.
   Safe: every participant may start threads, and finishes what it started.
   Object types are declared before. */
#ifndef MP_SPEC_THREADS_H
#define MP_SPEC_THREADS_H

#include <pthread.h>
#include <stdint.h>

#include "mem/arena.h"

/* What a thread does: its context, and a number of its own. */
typedef void (*spec_thread_work)(void *context, int number);

typedef struct spec_thread {
    pthread_t thread;
    uint32_t index, tag, parent;
    uint32_t *held; /* malloc'ed; the participant's as soon as there is one */
    uint32_t held_cap;
    spec_thread_work work;
    void *context;
    int number;
} spec_thread;

/* Starts a participant that runs work(context, number). `t` stays where it is
   until it is finished. */
void spec_thread_start(spec_thread *t, spec_thread_work work, void *context,
                       int number);

/* Waits for its end and reaps it. */
void spec_thread_finish(spec_thread *t);

/* n at a time, numbered from 0; returns when all have ended. */
void spec_threads(int n, spec_thread_work work, void *context);

#endif
