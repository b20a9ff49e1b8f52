/* A job as its caller's process sees it, for the files of this noun: job.c
   (the doors), job_make.c, job_feed.c (items to the workers), job_take.c
   (results from them). One userdata serves map (take all in order), imap
   (take as they come) and apply (one item), so there is one way in which
   items travel.

   `self` is the stack index of the job's userdata. What may run the user's
   code (iterators, callbacks) may also give the job up: job_usable is asked
   again after it. */
#ifndef MP_BIND_JOB_H
#define MP_BIND_JOB_H

#include "bind/pool.h"

enum { FROM_RANGE, FROM_LIST, FROM_FUNCTION, FROM_STACK };

/* User values of a job. */
enum {
    UV_POOL = 1,
    UV_SOURCE,
    UV_ERROR,   /* what the source raised */
    UV_RESULTS, /* of an unfinished collect */
    UV_STASH,   /* index, value, failed; taken before they were asked for */
    UV_FUNCTION, /* to be named in messages */
    UV_OUTCOME,  /* what outcome() returned */
    UV_PROGRESS, /* what is told how far it is */
    UV_COUNT = UV_PROGRESS
};

typedef struct job_ud {
    bind_object object; /* only its class is used */
    pool_ud *pool;
    mp_job_shm *job; /* NULL once given up */
    int source;
    bool ordered, input_over, released;
    bool feeding;    /* the source is being drawn from */
    bool failed;     /* the source raised (UV_ERROR) */
    bool stopped;    /* an item's error ended the job */
    uint64_t ahead;  /* how far the input may be ahead of what was taken */
    uint64_t chunk;  /* items per claim, if that was said; at most `ahead` */
    uint64_t fed;    /* items given to the workers */
    uint64_t low;    /* items below it are taken */
    uint64_t taken;  /* how many are taken */
    uint64_t scan;   /* unordered: where to look next */
    uint64_t count;  /* MP_JOB_OPEN until the input is over */
    uint64_t bytes;  /* in blocks of items that are not taken */
    uint64_t window;
    int64_t tick_ns; /* when that is to be told next; 0 = never */
    mp_cell_shm *in, *out; /* the cells, in this process */
    uint64_t quick; /* ordered: results below it need no second look */
    lua_Integer stash_first, stash_last;
    unsigned char *seen; /* unordered: taken flags of the window */
} job_ud;

extern const bind_class bind_job_class;

/* The job's shared part can be used: its pool's memory is still there. */
static inline bool job_usable(const job_ud *j) {
    return j->job && j->pool->object.shm;
}

/* All of it is done, or will never be. */
static inline bool job_settled(const job_ud *j) {
    return !job_usable(j) || mp_job_finished(j->job) ||
           mp_pool_state(pool_of(j->pool)) >= MP_POOL_TERMINATE;
}

/* The job at stack index 1, of this process; TypeError, StateError. */
job_ud *job_check(lua_State *L, const char *fn);

/* The job is not needed any more (see mp_job_drop); safe twice. Cancelled,
   what still runs of it is asked to stop, and killed a moment later. */
void job_give_up(job_ud *j, unsigned how);

/* Raises what the source raised. */
void job_raise_input_error(lua_State *L, job_ud *j, int self);

/* --- job_feed.c ------------------------------------------------------ */

/* The n values from stack index `first` as an input cell has them: returns
   the mark. A block stays OWNED: should we die, it goes with us. */
unsigned job_encode_item(lua_State *L, int first, int n, const char *what,
                         uint64_t *value);

/* Makes it item number j->fed. */
void job_put_item(job_ud *j, unsigned mark, uint64_t value);

/* Draws as much as the window takes. */
void job_feed(lua_State *L, job_ud *j, int self);

/* The same, once half of the window is free. */
void job_refill(lua_State *L, job_ud *j, int self);

/* --- job_take.c ------------------------------------------------------ */

enum { TAKEN_VALUE, TAKEN_ERROR };

/* Pushes the values of item i, whose result stands there under `tag`, and
   gives its memory back; *n says how many were pushed. */
int job_take_result(lua_State *L, job_ud *j, int self, uint64_t i,
                    unsigned tag, int *n);

/* Sleeps till there is progress: `mark` items done, or item i there. False
   when the deadline passed. Runs what is due of the pool's callbacks. */
bool job_await(lua_State *L, job_ud *j, int self, uint64_t mark, uint64_t i,
               mp_deadline deadline);

/* All items are taken; or the job was given up. */
bool job_at_end(const job_ud *j);

/* The index and tag (0: the end) of the next result, in order or as they
   come; false on timeout. Raise what a stopped pool owes. */
bool job_next_in_order(lua_State *L, job_ud *j, int self,
                       mp_deadline deadline, uint64_t *i, unsigned *tag);
bool job_next_of_any(lua_State *L, job_ud *j, int self, mp_deadline deadline,
                     uint64_t *i, unsigned *tag);

/* --- job_make.c ------------------------------------------------------ */

/* Adds the constructors to the table on the stack's top. */
void job_make_open(lua_State *L);

/* --- job_control.c --------------------------------------------------- */

/* The options at `idx` (nil: none), as lua/mp/controls.lua makes them. */
void job_read_controls(lua_State *L, const job_ud *j, int idx,
                       mp_controls *with);

/* Its timeout may be shorter than the crew looks ahead. */
void job_hurry(const job_ud *j);

/* Cancels it, in shared memory: who runs an item of it is killed in `ns`, and
   by MP_JOB_ASKED asked to stop before. */
void job_stop(const job_ud *j, unsigned how, uint64_t ns);

/* cancel(job) -> boolean: was anything of it left to do? */
int job_cancel(lua_State *L);

/* --- job_progress.c -------------------------------------------------- */

/* progress(job, f): f(done, count or nil, false) is called in waits, at most
   ten times a second, and f(done, count, true) once at the end. */
int job_progress(lua_State *L);

/* The earlier of `deadline` and the moment for the next call. */
mp_deadline job_tick_deadline(const job_ud *j, mp_deadline deadline);

/* Calls it, if it is time; at the end, if that was not told yet. It may give
   the job up. */
void job_tick(lua_State *L, job_ud *j, int self);
void job_tick_end(lua_State *L, job_ud *j, int self);

/* --- job_any.c ------------------------------------------------------- */

/* Adds what waits for the first of several jobs to that table. */
void job_any_open(lua_State *L);

#endif
