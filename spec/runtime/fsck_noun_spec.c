/* What mp_fsck finds in the shared objects, type by type, each by a damage
   that is done on purpose. */
#include "fsck_fixture.h"

SPEC_PREPARE { prepare_world(); }

static world w;

#define BOGUS 0x5001U /* slot 1 in a generation that never was */

/* ---- sync ----------------------------------------------------------- */

SPEC("fsck: finds words of locks that cannot be") {
    open_world(&w);
    mp_lock_shm *lock = w.lock.shm;
    mp_rlock_shm *rlock = w.rlock.shm;
    poke32(&lock->word, 0x20000000);
    EXPECT("object 1 (Lock): its lock's word is 0x20000000, expected 0, LEFT");
    poke32(&lock->word, MP_LOCK_LEFT | mp_me->tag);
    EXPECT("(Lock): its lock's word is 0x40000001, expected 0, LEFT");
    poke32(&lock->word, MP_WAITERS);
    EXPECT("(Lock): its lock's word is 0x80000000, expected 0, LEFT");
    poke32(&lock->word, BOGUS);
    EXPECT("(Lock): its lock's word is 0x5001, expected 0, LEFT");
    poke32(&lock->word, MP_LOCK_LEFT | MP_WAITERS);
    CHECK_CLEAN();
    undo();
    poke32(&lock->word, w.child | MP_WAITERS); /* dead: who comes has it */
    CHECK_CLEAN();
    undo();
    poke32(&rlock->lock.word, 4000);
    EXPECT("object 2 (RLock): its lock's word is 0xfa0, expected 0, LEFT");
    poke32(&rlock->count, 0);
    EXPECT_QUIET("object 2 (RLock): its lock is held, but its count is 0");
    poke32(&((mp_cond_shm *)w.cond.shm)->own.lock.word, BOGUS);
    EXPECT("(Condition): its lock's word is 0x5001, expected 0, LEFT");
    poke32(&((mp_array_shm *)w.value.shm)->own.lock.word, BOGUS);
    EXPECT("(Value): its lock's word is 0x5001, expected 0, LEFT");
    close_world(&w);
}

SPEC("fsck: finds semaphores and events that cannot be") {
    open_world(&w);
    mp_sem_shm *sem = w.sem.shm;
    mp_event_shm *event = w.event.shm;
    poke32(&sem->word, 6);
    EXPECT("object 3 (Semaphore): 6 permits, expected at most 5");
    poke32(&sem->bound, MP_SEM_MAX + 1);
    EXPECT("(Semaphore): its bound is 2147483648, expected at most");
    poke32(&event->word, 4 | 2 | 1);
    EXPECT("object 4 (Event): its word is 0x7: set, and with sleepers");
    close_world(&w);
}

SPEC("fsck: finds conditions without a lock that is one") {
    open_world(&w);
    mp_cond_shm *cond = w.cond.shm, *given = w.given_cond.shm;
    poke64(&cond->lock_at, 0);
    EXPECT("object 5 (Condition): its lock is at 0x0, expected 0x");
    poke64(&given->lock_at, mp_offset(&given->own));
    EXPECT("object 6 (Condition): its lock is at 0x");
    poke32(&given->lock_id, 4000);
    EXPECT("object 6 (Condition): its lock names object 4000, expected");
    poke32(&given->lock_id, w.event.id);
    EXPECT("object 1: refs is 3, expected 2: so many hold it");
    poke32(&cond->recursive, 0);
    EXPECT("(Condition): recursive is 0, expected 1");
    poke32(&given->recursive, 2);
    EXPECT("(Condition): recursive is 2, expected 0 or 1");
    close_world(&w);
}

SPEC("fsck: finds waiters that are not in order") {
    open_world(&w);
    mp_waiters_shm *list = &((mp_cond_shm *)w.cond.shm)->waiters;
    mp_waiter_shm *told = mp_at(list->head), *waits = mp_at(list->tail);
    CHECK(list->waiting == list->tail && list->head != list->tail);
    poke64(&waits->prev, 0);
    EXPECT("(Condition): a waiter's prev is 0x0, expected 0x");
    poke64(&told->next, list->head);
    EXPECT("is referred to twice");
    poke64(&told->next, 0);
    EXPECT("(Condition): the tail of its waiters is 0x");
    poke64(&list->tail, list->head);
    EXPECT("(Condition): the tail of its waiters is 0x");
    poke64(&list->waiting, w.node);
    EXPECT("which is not in the list");
    poke32(&told->state, MP_WAITER_WAITING);
    EXPECT("(Condition): a waiter's state is 0, expected 1 to 1");
    poke32(&waits->state, 1);
    EXPECT("(Condition): a waiter's state is 1, expected 0 to 0");
    poke32(&waits->tag, BOGUS);
    EXPECT("(Condition): a waiter's tag is 0x5001, expected a participant");
    poke32(&waits->tag, w.child);
    EXPECT_QUIET("(Condition): a waiter's tag is 0x2, expected a participant");
    poke64(&list->head, w.owned);
    EXPECT("its waiter 0x");
    poke32(&list->mutex.word, BOGUS);
    EXPECT("its mutex of waiters is 0x5001, expected 0 or the tag");
    close_world(&w);
}

SPEC("fsck: finds barriers whose words do not agree") {
    open_world(&w);
    mp_barrier_shm *barrier = w.barrier.shm;
    mp_waiter_shm *node = mp_at(w.node);
    poke32(&barrier->count, 2);
    EXPECT("object 7 (Barrier): count is 2, expected 1: so many wait");
    poke32(&barrier->broken, 1);
    EXPECT("(Barrier): count is 1, expected at most 0");
    poke32(&barrier->broken, 2);
    EXPECT("(Barrier): broken is 2, expected at most 1");
    poke32(&barrier->lost, 2);
    EXPECT("(Barrier): lost is 2, expected at most 1");
    poke32(&barrier->pending, 1);
    EXPECT_QUIET("(Barrier): pending is 1, expected at most 0");
    poke32(&barrier->pending, 4);
    EXPECT("(Barrier): pending is 4, expected at most");
    poke32(&barrier->id, 99);
    EXPECT("(Barrier): id is 99, expected 7");
    poke32(&barrier->maker, BOGUS);
    EXPECT("(Barrier): maker is 0x5001, which nobody ever was");
    poke32(&node->rank, 1);
    EXPECT("(Barrier): a waiter's rank is 1, expected 0");
    poke64(&barrier->action, 4711);
    EXPECT("(Barrier): its action 0x1267 is no block");
    poke64(&barrier->action, 0);
    EXPECT("published, but nothing refers to it");
    close_world(&w);
}

/* ---- data ----------------------------------------------------------- */

SPEC("fsck: finds arrays that cannot be") {
    open_world(&w);
    mp_array_shm *value = w.value.shm, *array = w.array.shm;
    mp_array_shm *given = w.given_array.shm;
    poke8(&array->type, 0);
    EXPECT("object 9 (Array): its cells are of type 0, expected 1 to 14");
    poke8(&array->type, 200);
    EXPECT("object 9 (Array): its cells are of type 200, expected 1 to 14");
    poke64(&array->length, 400000);
    EXPECT("(Array): its block has 196608 bytes, expected 1600032");
    poke64(&array->length, UINT64_MAX);
    EXPECT("(Array): its length is 18446744073709551615");
    poke64(&value->length, 2);
    EXPECT("object 8 (Value): its length is 2, expected 1");
    poke8(&array->guard, 4);
    EXPECT("(Array): its guard is 4, expected at most 3");
    poke8(&array->guard, MP_GUARD_LOCK);
    EXPECT("(Array): its lock is object 0, expected one");
    poke8(&given->guard, MP_GUARD_NONE);
    EXPECT("object 10 (Array): its lock is object 1, expected none");
    poke32(&given->lock_aux, 64);
    EXPECT("(Array): its lock is at 64, expected within the 64 bytes");
    poke32(&given->lock_id, 0);
    EXPECT("object 1: refs is 3, expected 2: so many hold it");
    close_world(&w);
}

/* The queue has 70 items of 2 KiB in three segments, of which three are
   taken, then a word, a block with a handle, and a child's block. */
SPEC("fsck: finds queues whose counts are not right") {
    open_world(&w);
    mp_queue_shm *q = w.queue.shm;
    poke64(&q->dones, 80);
    EXPECT("object 11 (Queue): 80 items done, but 73 put");
    poke64(&q->maxsize, 50);
    EXPECT("(Queue): 70 items, expected at most 50");
    poke64(&q->gets, q->puts + 2);
    EXPECT("(Queue): 74 items got (");
    poke64(&q->seen_gets, 4);
    EXPECT("(Queue): 3 items got (4 seen), 73 put");
    poke64(&q->seen_puts, 74);
    EXPECT("73 put (74 seen): expected no more got than put");
    poke64(&q->puts, q->puts - 2);
    EXPECT("(Queue): 69 items end at ");
    poke64(&q->puts, q->puts + 2);
    EXPECT("(Queue): item 70 at ");
    poke64(&q->put[q->puts & 1].offset, 7);
    EXPECT("(Queue): the putter's place is at 7 of segment 0x");
    poke64(&q->get[q->gets & 1].offset, MP_UNIT + 16);
    EXPECT("(Queue): the getter's place is at 65552 of segment 0x");
    poke32(&q->get_lock.word, BOGUS);
    EXPECT("(Queue): its mutex get_lock is 0x5001, expected 0 or the tag");
    poke32(&q->put_lock.word, BOGUS);
    EXPECT("(Queue): its mutex put_lock is 0x5001, expected 0 or the tag");
    close_world(&w);
}

SPEC("fsck: finds a queue's chain that is broken") {
    open_world(&w);
    mp_queue_shm *q = w.queue.shm;
    mp_queue_place_shm *get = &q->get[q->gets & 1];
    mp_queue_place_shm *put = &q->put[q->puts & 1];
    segment_shm *first = mp_at(get->segment), *last = mp_at(put->segment);
    record_shm *r = (void *)((unsigned char *)first + get->offset);
    record_shm *end = (void *)((unsigned char *)last + put->offset);
    poke8(&r->kind, 9);
    EXPECT("(Queue): item 0 at 6256 of segment 0x");
    poke32(&r->length, 60000);
    EXPECT("is of kind 2 and 60000 bytes, expected one that is sound");
    poke64(&first->next, 0);
    EXPECT("(Queue): its segment 0x0 is no block");
    poke64(&first->next, get->segment);
    EXPECT("(Queue): its segment 0x");
    poke64(&end[-1].value, 4711);
    EXPECT("(Queue): its item 0x1267 is no block");
    poke64(&end[-1].value, end[-2].value);
    EXPECT("is referred to twice");
    poke8(&end[-2].kind, MP_QUEUE_WORD);
    EXPECT("published, but nothing refers to it");
    poke64(&get->segment, 0);
    EXPECT("(Queue): the getter's place is at 6256 of segment 0x0, expected");
    close_world(&w);
}

/* ---- work ----------------------------------------------------------- */

static mp_pool_shm *open_pool(void) {
    open_world(&w);
    return w.pool.shm;
}

SPEC("fsck: finds pools whose words cannot be") {
    mp_pool_shm *pool = open_pool();
    poke32(&pool->places, 5000);
    EXPECT("object 12 (Pool): its block has ");
    poke32(&pool->state, 4);
    EXPECT("(Pool): state is 4, started 0, expected at most 3 and 1");
    poke32(&pool->started, 2);
    EXPECT("(Pool): state is 0, started 2, expected at most 3 and 1");
    poke32(&pool->caller, BOGUS);
    EXPECT("(Pool): its caller has tag 0x5001, which nobody ever had");
    poke32(&pool->crew, BOGUS);
    EXPECT("(Pool): its crew has tag 0x5001, which nobody ever had");
    poke32(&pool->spinning, BOGUS);
    EXPECT("(Pool): its spinner has tag 0x5001, which nobody ever had");
    poke64(&pool->reason, 4711);
    EXPECT("(Pool): its reason 0x1267 is no block");
    poke32(&pool->lock.word, BOGUS);
    EXPECT("(Pool): its mutex lock is 0x5001, expected 0 or the tag");
    poke64(&pool->orphans, 0);
    EXPECT("(Pool): orphans is 0, expected 1");
    close_world(&w);
}

SPEC("fsck: finds claims that do not agree with their jobs") {
    mp_pool_shm *pool = open_pool();
    mp_worker_shm *k = pool->worker;
    poke64(&k[0].claim.at, 5);
    EXPECT("(Pool): worker 0: claims 0 to 2, is at 5: expected it to be");
    poke64(&k[0].claim.high, 0);
    EXPECT("(Pool): worker 0: claims 0 to 0, is at 1: expected it to be");
    poke64(&k[0].claim.high, 7);
    EXPECT("(Pool): worker 0: claims up to 7, expected at most 2");
    poke64(&k[0].claim.orphan, 2);
    EXPECT("(Pool): worker 0: orphan is 2, expected 0 or 1");
    poke64(&k[1].claim.job, 0);
    EXPECT("(Pool): worker 1: orphan is 1, expected 0");
    poke64(&k[1].claim.low, 1);
    EXPECT("(Pool): workers 1 and 2: both claim item 1 of a job");
    poke64(&k[0].claim.job, 4711);
    EXPECT("(Pool): 3 claims, expected 2: those of its jobs");
    poke32(&k[0].tag, BOGUS);
    EXPECT("(Pool): worker 0: tag 0x5001, ready 0: expected a participant");
    poke32(&k[0].ready, 2);
    EXPECT("(Pool): worker 0: tag 0x0, ready 2: expected a participant");
    poke32(&pool->crew, mp_me->tag);
    poke32(&k[0].tag, w.child);
    EXPECT_QUIET("(Pool): worker 0: dead, but it claims 0 to 2");
    close_world(&w);
}

SPEC("fsck: finds jobs whose numbers are not right") {
    open_pool();
    mp_job_shm *job = w.job;
    poke64(&job->done, 1);
    EXPECT(": 2 items in claims, expected 1");
    poke64(&job->next, 8);
    EXPECT(": 0 done, 8 claimed, 6 fed of 7: expected each at most");
    poke64(&job->count, 5);
    EXPECT(": 0 done, 2 claimed, 6 fed of 5: expected each at most");
    poke64(&job->active, 2);
    EXPECT(": active is 2, expected 1 claims");
    poke64(&job->active, 0);
    EXPECT(": 0 items in claims, expected 2");
    poke64(&job->dropped, 4);
    EXPECT(": runnable is 1, dropped 4: expected at most 1, and one of");
    poke64(&job->waiting, 1);
    EXPECT(": 0 items wait, expected 1");
    poke32(&job->with.level, 4);
    EXPECT(": its level is 4, expected at most 3");
    poke64(&((mp_pool_shm *)w.pool.shm)->timed, 1);
    EXPECT("(Pool): 0 jobs have a timeout, expected 1");
    poke32(&((mp_pool_shm *)w.pool.shm)->workers, 4711);
    EXPECT("(Pool): workers is 4711, expected at most");
    poke32(&((mp_pool_shm *)w.pool.shm)->worker[0].wish, 2);
    EXPECT(": heir 0x0, wish 2, doomed 0: expected a participant");
    poke64(&job->dropped, MP_JOB_CANCELLED);
    EXPECT(": runnable, but cancelled");
    poke32(&job->runnable, 0);
    EXPECT(": not runnable, but 2 of 7 items are claimed");
    poke64(&job->self, 4711);
    EXPECT(": self is 0x1267, previous 0x0, expected 0x0 before it");
    poke64(&job->previous, 4711);
    EXPECT("previous 0x1267, expected 0x0 before it");
    poke64(&job->window, 7);
    EXPECT(": 7 cells, out at 0x");
    poke64(&job->window, (uint64_t)1 << 40);
    EXPECT(": 1099511627776 cells, out at 0x");
    poke64(&job->out, 64);
    EXPECT(": 8 cells, out at 0x40, in at 0x");
    poke64(&job->in, 0);
    EXPECT(", in at 0x0: expected them within its");
    poke64(&job->function, w.owned);
    EXPECT("(Pool): its job's function 0x");
    close_world(&w);
}

SPEC("fsck: finds cells that do not agree with their jobs") {
    open_pool();
    mp_cell_shm *out = mp_job_out(w.job, 0), *in = mp_job_in(w.job, 0);
    poke64(&out[0].mark, 0);
    EXPECT(": item 0 is done, but has no result: it is marked 0x0");
    poke64(&out[0].mark, 99 << 8 | MP_CELL_EMPTY);
    EXPECT(": the result of item 0 is marked 0x63f3, expected 1 in the");
    poke64(&out[1].mark, 1 << 8 | MP_CELL_EMPTY);
    EXPECT(": the result of item 1 is marked 0x1f3, expected 2 in the");
    poke64(&out[0].value, 4711);
    EXPECT("published, but nothing refers to it");
    poke64(&out[1].value, out[0].value);
    poke64(&out[1].mark, 2 << 8 | MP_CELL_BLOCK);
    EXPECT("(Pool): its result 0x");
    poke64(&in[5].value, 4711);
    EXPECT(": the input of item 5 is 0x1267, which is no block");
    close_world(&w);
}

SPEC("fsck: finds lists of a pool that are broken") {
    mp_pool_shm *pool = open_pool();
    mp_function_shm *f = mp_at(pool->functions);
    CHECK(pool->first[0] == w.other->self && pool->last[0] == w.job->self);
    CHECK(pool->all == w.job->self && pool->grave == w.buried->self);
    poke64(&pool->first[0], w.job->self);
    EXPECT("(Pool): 1 jobs are listed as runnable up to 0x");
    poke64(&pool->last[0], w.other->self);
    EXPECT("(Pool): 2 jobs are listed as runnable up to 0x");
    poke64(&w.job->link, w.other->self);
    EXPECT("(Pool): its list of runnable jobs is a circle");
    poke64(&w.job->link, w.buried->self);
    EXPECT("(Pool): its runnable job 0x");
    poke64(&w.job->link, 4711);
    EXPECT("(Pool): its runnable job 0x1267 is none of those that are");
    poke64(&pool->grave, 0);
    EXPECT_QUIET("(Pool): 0 jobs are in the grave, expected 1");
    poke64(&pool->grave, w.job->self);
    EXPECT("has runnable 1, dropped 0, active 1, expected 0, not 0, 0");
    poke64(&w.other->after, 0);
    EXPECT("(Pool): its buried job 0x");
    poke64(&w.other->after, w.job->self);
    EXPECT("is referred to twice");
    poke64(&f->link, pool->functions);
    EXPECT("(Pool): its function 0x");
    poke64(&f->message, 4711);
    EXPECT("(Pool): its function's message 0x1267 is no block");
    poke64(&f->length, 9);
    EXPECT("(Pool): a function's length is 9, expected 8");
    poke64(&f->uses, 2);
    EXPECT_QUIET("(Pool): its functions have 4 uses, expected 3: one per");
    close_world(&w);
}
