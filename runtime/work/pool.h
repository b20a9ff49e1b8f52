/* A pool: n worker processes that take work from jobs, and the crew process
   that keeps their number.

   The caller (the process that made the pool) puts jobs in; a job is a
   sequence of items, each with a 16-byte input and output cell. Workers
   claim ranges of items by index under the pool's lock and fill the output
   cells without any. The crew forks the workers, so that a replacement
   begins from the same state as the first did, and sees to the dead while
   the caller computes.

   Invariants:
   - An item is claimed by one worker at a time. A worker's claim says which
     range it has and which item it runs, so after its death exactly that one
     is lost, the ones before it are done, and the ones behind it go to
     whoever comes next.
   - An output cell is written once per lap, by one store of `mark`, which
     grows: (index + 1) << 8 | tag.
   - Who adds a job feeds and drops it: the caller; or a worker, whose task
     waits for it and meanwhile works on it itself, as a guest in a place of
     its own, so that no number of them can wait for each other. A worker's
     jobs go with it.
   - Only workers claim.
   - An item that is to be run again (again.c) is neither done nor claimed: it
     waits in its job's list until it is due.
   Safe: the functions of each role by the process that has it. Nothing
   blocks but what takes a deadline (-EINTR as in sync/wait.h). */
#ifndef MP_WORK_POOL_H
#define MP_WORK_POOL_H

#include <stdbool.h>

#include "base/deadline.h"
#include "mem/arena.h"
#include "proc/proc.h"
#include "sync/wait.h"

/* An item's input or output. In an input cell only the low 8 bits of `mark`
   count. Tags below MP_CELL_OWN are the upper floor's scalars, with `value`
   as their payload; MP_CELL_NONE is no value yet. */
typedef struct mp_cell_shm {
    _Atomic uint64_t mark;
    _Atomic uint64_t value;
} mp_cell_shm;

static inline uint64_t mp_cell_value(const mp_cell_shm *cell) {
    return atomic_load_explicit(&cell->value, memory_order_relaxed);
}

/* Item i's result, when it is a scalar. */
static inline void mp_cell_result(mp_cell_shm *cell, uint64_t i, unsigned tag,
                                  uint64_t value) {
    atomic_store_explicit(&cell->value, value, memory_order_relaxed);
    /* Release pairs with the acquire in mp_job_result. */
    atomic_store_explicit(&cell->mark, (i + 1) << 8 | tag,
                          memory_order_release);
}

/* The caller has freed the block that the cell named: nobody frees it again
   (a ref is known for stale for 65,536 lives of its block only). */
static inline void mp_cell_forget(mp_cell_shm *cell) {
    atomic_store_explicit(&cell->value, 0, memory_order_relaxed);
}

enum {
    MP_CELL_OWN = 0xf0,   /* tags from here are ours: */
    MP_CELL_BLOCK = 0xf0, /* value: ref of a message block */
    MP_CELL_ERROR = 0xf1, /* the same, but it is the item's error */
    MP_CELL_LOST = 0xf2,  /* value: pid << 32 | (uint32_t)exit code */
    MP_CELL_EMPTY = 0xf3, /* no values at all */
    MP_CELL_LATE = 0xf4   /* as LOST: it was killed, since its time was up */
};

enum { MP_POOL_RUN, MP_POOL_CLOSING, MP_POOL_TERMINATE, MP_POOL_BROKEN };

/* What a worker has of a job, under the pool's lock but for `at`, which the
   worker moves alone.
   job     ref of the job, 0 = nothing claimed
   low     first item not yet counted as done; high: end of the range
   at      the item that runs; everything before it in the range is done. With
           MP_AT_DOOMED its worker is killed for it: set by the crew, by a CAS
           that the worker, which moves by CAS where that can be, loses
   orphan  its worker died: the range is for whoever comes next */
typedef struct mp_claim_shm {
    _Atomic uint64_t job, low, high, at, orphan;
} mp_claim_shm;

#define MP_AT_DOOMED (UINT64_C(1) << 63)

/* tag and pid by the crew, when it forks; `ready` by the worker. What is its
   own, and the counts, are hints: nothing is repaired.
   doomed   the crew is about to kill it: it claims nothing more (crew: lock)
   since    when the item that runs began (ns), 0: none does; kept only for
            jobs with a timeout, by the worker: before `at`, so that who reads
            `at` first finds no older one
   wish     it wants to be replaced (worker), until another has its place
            (crew)
   heir     the tag of who is ready to take the place (heir), or 0 (crew)
   thread   the kernel's number of the worker's thread; its own
   items    how many it has run; its own
   done, failed, retried, busy_ns  what all workers of this place did: each
            its own. lost, late: how many items were lost with them, and
            killed for their time (crew: lock) */
typedef struct mp_worker_shm {
    mp_claim_shm claim;
    _Atomic uint32_t tag, pid, ready;
    uint32_t patience;   /* how long it spins for work (ns); its own */
    uint64_t claimed_ns; /* when its claim began; its own */
    uint64_t items;
    _Atomic uint64_t since;
    _Atomic uint32_t doomed, wish, heir, thread;
    uint64_t padding[4];
    _Atomic uint64_t done, failed, retried, busy_ns, lost, late;
    uint64_t padding2[2];
} mp_worker_shm;

typedef struct mp_pool_shm mp_pool_shm; /* pool.c */

/* Kinds of source. */
enum { MP_JOB_CELLS, MP_JOB_RANGE };

/* `dropped`: with CANCELLED what is not begun is not run. With ASKED those who
   run of it are asked to stop before they are killed; STOPPED is the workers'
   word, by which the caller has still got it. */
enum {
    MP_JOB_CANCELLED = 1,
    MP_JOB_RELEASED = 2,
    MP_JOB_STOPPED = 3,
    MP_JOB_ASKED = 5
};

#define MP_JOB_OPEN UINT64_MAX

/* Who is served first: claims go to the highest level that has any. */
enum { MP_LEVELS = 4, MP_LEVEL_NORMAL = 1 };

/* What a job wants beyond the plain run; all 0: nothing.
   timeout_ns  how long an item may run, 0: for ever
   grace_ns    how long after that it is killed; UINT64_MAX: never
   retries     how often an item is run again that failed, or was lost
   crashes     of how many workers it may be the death; 0: as retries say
   wait_ns     before an item is run again for the first time; then `factor`
               times as long (1024: once), at most most_wait_ns
   jitter      a part of that, in 1024th, that chance takes off
   flags       MP_WITH_*
   seed        of each item's random numbers */
typedef struct mp_controls {
    uint64_t timeout_ns, grace_ns;
    uint64_t wait_ns, most_wait_ns;
    uint32_t retries, crashes;
    uint32_t factor, jitter;
    uint32_t level, flags;
    uint64_t seed;
} mp_controls;

enum {
    MP_WITH_STOP = 1, /* the first error ends the job */
    MP_WITH_SEED = 2
};

/* An item that was run, and is to be run again; in a cell's place. Under the
   pool's lock, in one record with the job's list.
   item     its index + 1: what another lap left there counts for nothing
   link     index + 1 of the next in the list, which is by `due`
   due      when it may be claimed (ns)
   runs     failed ones, those with a death included, in the low half; deaths
            in the upper one
   Repair: by that record. */
typedef struct mp_try_shm {
    uint64_t item, link, due, runs;
} mp_try_shm;

/* What the caller says of a new job. */
typedef struct mp_job_spec {
    mp_ref function;  /* from mp_pool_function */
    uint32_t shape;   /* the upper floor's: how items become arguments */
    uint32_t source;  /* MP_JOB_* */
    int64_t start, step; /* MP_JOB_RANGE: item i is start + i * step */
    uint64_t count;   /* items, MP_JOB_OPEN while unknown */
    uint64_t window;  /* cells; a power of two */
    uint64_t chunk;   /* items per claim, 0 = by their duration */
    bool eager;       /* wake the caller for single results */
    mp_controls with;
} mp_job_spec;

/* A job, in shared memory. Written by: the caller (c), workers under the
   lock (w).
   link      next runnable job (c, w: lock); previous, next: all jobs (lock)
   self, function, shape, source, start, step, window, chunk, eager, with,
   owner (who added it): fixed; in, out, tries: offsets of the cells, and of
             what is known of failed runs (0: nothing is), in the job's block
   runnable  is it in that list (c, w: lock)
   count     items in all (c)
   fed       items that may be claimed (c)
   next      first item not yet claimed (w)
   done      items done and counted (w)
   active    claims on it, orphans included (w)
   mark      `done` at which the caller wants to be woken (c)
   span_ns   smoothed duration of an item (w; a hint)
   dropped   the caller wants no more of it (c: lock): MP_JOB_CANCELLED, what
             is not claimed is not run; MP_JOB_RELEASED, it is run, but
             nobody will look. Freed when nothing of it is claimed.
             MP_JOB_STOPPED (w): an item failed
   kill_ns   when those who still run of a cancelled job are killed (c)
   again     index + 1 of the first item that is to be run again, 0: none;
             waiting: how many are (w)
   stop      index + 1 of the item whose error ended the job (w) */
typedef struct mp_job_shm {
    _Atomic uint64_t link, previous, after;
    mp_ref self, function;
    uint32_t shape, source;
    int64_t start, step;
    uint64_t window, chunk, in, out;
    uint32_t eager;
    _Atomic uint32_t runnable;
    uint64_t tries;
    _Atomic uint64_t count, fed, mark, dropped, kill_ns;
    mp_controls with;
    uint32_t owner, reserved;
    uint64_t pad[4];
    _Atomic uint64_t next, done, active, span_ns, again, waiting, stop;
    uint64_t pad2[9];
} mp_job_shm;

/* ---- the caller ----------------------------------------------------- */

/* A new pool: `workers` (1..) of at most `places`; one ends after `most` items
   (0 = never), or when it has grown by `most_bytes` (0 = never). */
typedef struct mp_pool_spec {
    uint32_t workers, places;
    uint64_t most, most_bytes;
} mp_pool_spec;

/* Creates the object, with one use by the caller. 0, -ENOMEM. */
int mp_pool_make(const mp_pool_spec *spec, uint32_t *id, uint32_t *gen);

/* What a worker process runs; it must not return. */
typedef void (*mp_worker_main)(mp_pool_shm *pool, uint32_t index, void *ctx);

/* Forks the crew, which forks the workers; returns when all have started, or
   with the error that kept one from it (then none is left). */
int mp_pool_start(mp_pool_shm *pool, mp_proc *crew, mp_worker_main run,
                  void *ctx);

/* The crew died: the workers, which go with it, are awaited and buried, and a
   new crew starts, from the caller's state as it is now. Errors as above;
   the pool is then broken. */
int mp_pool_restart(mp_pool_shm *pool, mp_proc *crew, mp_worker_main run,
                    void *ctx);

/* The same by another start method, whose child calls mp_crew_run. */
int mp_pool_start_as(mp_pool_shm *pool, mp_proc *crew,
                     const struct mp_start *start);

/* A crew that died is no more, nor are its workers: another may start. How
   often, where each dies as it starts: MP_POOL_RESTARTS. */
void mp_pool_clear(mp_pool_shm *pool, mp_proc *crew);
enum { MP_POOL_RESTARTS = 20 };

/* What workers that are no copies of the caller are to know: takes `setup`
   (OWNED by me), once, before the start. 0; -EMFILE (it is still mine). */
int mp_pool_tell(mp_pool_shm *pool, mp_ref setup);

/* After the end of a crew that was killed: awaits and buries the workers. */
void mp_pool_bury(mp_pool_shm *pool);

/* Does the crew live? */
bool mp_pool_has_crew(const mp_pool_shm *pool);

/* As the object table has it. */
void mp_pool_name(const mp_pool_shm *pool, uint32_t *id, uint32_t *gen);

uint32_t mp_pool_state(const mp_pool_shm *pool);
uint32_t mp_pool_workers(const mp_pool_shm *pool);
uint32_t mp_pool_places(const mp_pool_shm *pool);

/* From now on there are to be `workers`, at most as many as places: the crew
   (mp_pool_stir) fills the new ones, and who has one too many ends when it
   has done what it has. */
void mp_pool_resize(mp_pool_shm *pool, uint32_t workers);

/* Tells the crew to look at its pool now. */
void mp_pool_stir(mp_proc *crew);
mp_worker_shm *mp_pool_worker(mp_pool_shm *pool, uint32_t index);

/* No more jobs; workers end when all is done. */
void mp_pool_close(mp_pool_shm *pool);

/* Everything stops now: the crew kills the workers and ends. */
void mp_pool_terminate(mp_pool_shm *pool, mp_proc *crew);

/* Ref of the message that says why the pool is BROKEN, or 0. */
mp_ref mp_pool_reason(const mp_pool_shm *pool);

/* What the n-th (0..) worker that left has said, the last one first; 0: there
   is no more. `*index`: its place. */
mp_ref mp_pool_left(const mp_pool_shm *pool, uint64_t n, uint32_t *index);

/* Adds a job. On success `*job` is valid until mp_job_drop. */
int mp_pool_add(mp_pool_shm *pool, const mp_job_spec *spec,
                mp_job_shm **job);

/* The input cell of item i; i < fed + window - (items not consumed). A block
   is PUBLISHED by the caller (mp_publish) when it stands there: it is the
   job's until the caller frees it, so that the workers still have it when
   the caller dies. */
mp_cell_shm *mp_job_in(const mp_job_shm *job, uint64_t i);
mp_cell_shm *mp_job_out(const mp_job_shm *job, uint64_t i);

/* Makes items up to `fed` claimable, and wakes a worker if one sleeps. */
void mp_job_feed(mp_pool_shm *pool, mp_job_shm *job, uint64_t fed);

/* The input ended: `count` items in all (at least what was fed). */
void mp_job_finish_input(mp_pool_shm *pool, mp_job_shm *job, uint64_t count);

/* The tag of item i's result, or 0 while there is none. */
static inline unsigned mp_job_result(const mp_job_shm *job, uint64_t i) {
    uint64_t mark =
        atomic_load_explicit(&mp_job_out(job, i)->mark, memory_order_acquire);
    return mark >> 8 == i + 1 ? (unsigned)(mark & 0xff) : 0;
}

bool mp_job_finished(const mp_job_shm *job);

/* Lets the job's end wake the caller, whichever job it waits for. */
void mp_job_announce_end(mp_job_shm *job);

/* Has any of its items been claimed? */
bool mp_job_begun(const mp_job_shm *job);

/* Cancels a job of which nothing was claimed: true, and it is freed. */
bool mp_job_withdraw(mp_pool_shm *pool, mp_job_shm *job);

/* Cancels those jobs that were released: nobody will look for them. */
void mp_pool_forget(mp_pool_shm *pool);

/* How many items wait to be claimed, those among them that are run again; and
   how many workers have claimed some. */
void mp_pool_load(mp_pool_shm *pool, uint64_t *waiting, uint32_t *busy);

/* How many items are done, those of unfinished claims among them. */
uint64_t mp_job_progress(mp_pool_shm *pool, const mp_job_shm *job);

/* For whoever waits for the first of several jobs, the ends of which are
   announced: look at them between the two. mp_pool_sleep ends when one of
   them may have ended, or the pool may have stopped: 0, look again;
   -ETIMEDOUT, -EINTR; -EOWNERDEAD the crew died. (pool_watch.c) */
uint32_t mp_pool_watch(mp_pool_shm *pool);
int mp_pool_sleep(mp_pool_shm *pool, uint32_t seen, mp_deadline deadline);

/* The pool stops for good: its crew is gone. */
void mp_pool_break(mp_pool_shm *pool);

/* Sleeps until item `i` has its result, or, where it is MP_JOB_OPEN, until
   `done` reaches `mark`; or the pool stops running, or some other job of the
   pool reaches its mark: 0, look again. For an item, `mark` says how many
   done ones are worth a look. -ETIMEDOUT, -EINTR; -EOWNERDEAD the crew
   died. */
int mp_job_wait(mp_pool_shm *pool, mp_job_shm *job, uint64_t mark,
                uint64_t i, mp_deadline deadline);

/* Gives the job up: `how` (RELEASED, CANCELLED, ASKED) says whether what is
   not claimed yet is run. It is freed, with all that its cells hold, as soon
   as nobody works on it. `job` is invalid after it. */
void mp_job_drop(mp_pool_shm *pool, mp_job_shm *job, unsigned how);

/* The same, by CANCELLED or ASKED: who then still runs an item of it is killed
   in `ns`. True: somebody does, and the crew is to be stirred. */
bool mp_job_cancel(mp_pool_shm *pool, mp_job_shm *job, unsigned how,
                   uint64_t ns);

/* Is the crew to be stirred for the sake of a new job's timeout? */
bool mp_job_is_urgent(mp_pool_shm *pool, const mp_job_shm *job);

/* Index + 1 of the item whose error ended the job, or 0 (MP_WITH_STOP). */
static inline uint64_t mp_job_stopped(const mp_job_shm *job) {
    return atomic_load_explicit(&job->stop, memory_order_acquire);
}

/* How often item i was run in vain, and how many workers it was the death of,
   once its result is there. */
void mp_job_tries(const mp_job_shm *job, uint64_t i, uint32_t *runs,
                  uint32_t *deaths);

/* For a worker's own job: `message` (OWNED by me) becomes a function that goes
   with the job. 0; -ENOMEM, -EMFILE (the message is freed). */
int mp_pool_own_function(mp_ref message, mp_ref *function);

/* Keeps a function for jobs: takes `message` (OWNED by me) or frees it in
   favour of an equal one that the pool has; `*function` is what a job spec
   wants. Each mp_pool_add that uses it counts. 0; -ENOMEM, -EMFILE (the
   message is freed). */
int mp_pool_function(mp_pool_shm *pool, mp_ref message, mp_ref *function);

/* ---- a worker ------------------------------------------------------- */

/* A claim as its worker sees it. */
typedef struct mp_range {
    mp_job_shm *job;
    uint64_t low, high;
} mp_range;

/* What it was told, or 0. */
mp_ref mp_pool_told(const mp_pool_shm *pool);

/* A thread: takes the next free place. Its index, or -EAGAIN. */
int mp_worker_join(mp_pool_shm *pool);

/* Does the pool want the place of a worker that ended filled? */
bool mp_worker_wanted(mp_pool_shm *pool);

/* Do workers die as they start, one after the other? `early`: how many did,
   in a row, in `places` places. */
static inline bool mp_worker_hopeless(uint32_t early, uint32_t places) {
    return early >= 10 && early >= 3 * places;
}

/* For a replacement that was started before the worker left: waits until the
   place is its own; at once for others. -EPIPE: it never will be. */
int mp_worker_await(mp_pool_shm *pool, uint32_t index);

/* A place for a worker that waits for a job of its own: -EAGAIN, all are in
   use. It claims there from that job alone, as long as there is anything:
   true; what it claimed before is done then. At last it goes back to the place
   `index`, where it is counted. */
int mp_worker_enter(mp_pool_shm *pool);
bool mp_worker_help(mp_pool_shm *pool, uint32_t guest, mp_job_shm *job,
                    mp_range *range);
void mp_worker_depart(mp_pool_shm *pool, uint32_t index, uint32_t guest);

/* Has the crew look at the pool now; no crew, as of threads: false. */
bool mp_pool_ring(mp_pool_shm *pool);
bool mp_pool_has_bell(const mp_pool_shm *pool);

/* Wants to be replaced. It may go on until the replacement is there. */
void mp_worker_wish(mp_pool_shm *pool, uint32_t index);

/* How much the worker may grow (bytes), 0: as it likes. */
uint64_t mp_pool_most_bytes(const mp_pool_shm *pool);

/* Counts the last range as done and claims the next; waits for work. 0;
   -EPIPE: the pool is over, or this worker has done its share; -EINTR. */
int mp_worker_claim(mp_pool_shm *pool, uint32_t index, mp_range *range);

/* The message block that holds the job's function; different functions of a
   pool have different ones. */
mp_ref mp_function_message(const mp_job_shm *job);

/* Or stopped: what is not begun is not run. */
static inline bool mp_job_cancelled(const mp_job_shm *job) {
    return atomic_load_explicit(&job->dropped, memory_order_relaxed) &
           MP_JOB_CANCELLED;
}

/* Before item i is run / after its result stands. */
static inline void mp_worker_at(mp_worker_shm *worker, uint64_t i) {
    atomic_store_explicit(&worker->claim.at, i, memory_order_release);
}

/* The same where the crew may be about to kill it for the item before: false,
   it is, and this worker does nothing any more. `now`: see `since`; 0 at the
   end of the range. */
static inline bool mp_worker_step(mp_worker_shm *worker, uint64_t i,
                                  uint64_t now) {
    uint64_t at = atomic_load_explicit(&worker->claim.at,
                                       memory_order_relaxed);
    if (at & MP_AT_DOOMED) return false;
    atomic_store_explicit(&worker->since, now, memory_order_relaxed);
    return atomic_compare_exchange_strong_explicit(
        &worker->claim.at, &at, i, memory_order_acq_rel,
        memory_order_relaxed);
}

/* Item i, which runs, has failed: is it to be run again? Then it is no more of
   this worker's claim, which goes on behind it. Not `wanted`: no, but the run
   counts. */
bool mp_worker_again(mp_pool_shm *pool, uint32_t index, uint64_t i,
                     bool wanted);

/* Item i has failed, and its result says so: ends a job that wants that. */
void mp_worker_failed(mp_pool_shm *pool, mp_job_shm *job, uint64_t i);

/* Stores item i's result. A block (tags BLOCK, ERROR) is OWNED by the caller
   and belongs to the job afterwards. */
void mp_worker_result(const mp_job_shm *job, uint64_t i, unsigned tag,
                      uint64_t value);

/* The worker's initializer failed: the pool is broken, `reason` (an OWNED
   message block) says why. */
void mp_worker_broke(mp_pool_shm *pool, mp_ref reason);

/* The worker leaves in order: `message` (OWNED by me) is its last word. */
void mp_worker_left(mp_pool_shm *pool, uint32_t index, mp_ref message);

/* The worker has started. */
void mp_worker_ready(mp_pool_shm *pool, uint32_t index);

/* ---- the crew (crew.c) ---------------------------------------------- */

/* Forks and keeps the workers until the pool is over; never returns. */
_Noreturn void mp_crew_run(mp_pool_shm *pool, mp_worker_main run, void *ctx);

/* Worker `index` ended with `exitcode`: its item is marked lost, the rest of
   its range is free for others. Idempotent. */
void mp_crew_bury(mp_pool_shm *pool, uint32_t index, int exitcode);

/* What is to be done with worker `index` at `now` (ns): it is asked to stop
   what it runs, or killed: it is doomed then. *next: when to look again, if
   that is before it. */
enum { MP_CREW_LEAVE, MP_CREW_ASK, MP_CREW_KILL };
int mp_crew_look(mp_pool_shm *pool, uint32_t index, uint64_t now,
                 uint64_t *next);

/* For the crew: reports that the workers run, or why not (-errno). */
void mp_crew_report(mp_pool_shm *pool, int error);

/* Is there anything left to run? */
bool mp_pool_has_work(mp_pool_shm *pool);

/* Declares the object type (mem/object.h). */
void mp_pool_open(void);

#endif
