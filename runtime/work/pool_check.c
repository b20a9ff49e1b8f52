/* A pool's lists, and that its jobs, claims and cells tell the same story:
   each item that was claimed is done, or in one claim, or waits to be run
   again, or has its result. */
#include "mem/check.h"
#include "mem/object.h"
#include "work/pool_shm.h"

/* workers            places: as many as the block has room for
   jobs .. done_with  counted in the list of all jobs
   claims, matched    claims in use; those of jobs in that list */
typedef struct tally {
    mp_check *c;
    const mp_pool_shm *pool;
    uint32_t workers;
    uint64_t jobs, own, done_with, claims, matched, uses, timed;
    uint64_t runnable[MP_LEVELS];
} tally;

static uint64_t get(const tally *t, const _Atomic uint64_t *word) {
    return mp_check_u64(t->c, word);
}

/* ---- functions ------------------------------------------------------ */

/* `uses` is the caller's, which runs when nothing is quiet. */
static void check_functions(tally *t) {
    uint64_t uses = 0;
    for (mp_ref ref = get(t, &t->pool->functions); ref;) {
        const mp_function_shm *f =
            mp_check_block(t->c, ref, sizeof *f, "function");
        if (!f) return;
        const mp_message_shm *m =
            mp_check_block(t->c, mp_check_u64(t->c, &f->message), sizeof *m,
                           "function's message");
        uint64_t length = mp_check_u64(t->c, &f->length);
        if (m && m->length != length)
            mp_check_report(t->c, "a function's length is %ju, expected %ju",
                            (uintmax_t)length, (uintmax_t)m->length);
        uses += mp_check_u64(t->c, &f->uses);
        ref = get(t, &f->link);
    }
    t->uses = uses;
}

static void check_uses(const tally *t) {
    if (mp_check_quiet(t->c) && t->uses != t->own &&
        mp_check_tag(t->c, t->pool->caller) == MP_TAG_ALIVE)
        mp_check_report(t->c, "its functions have %ju uses, expected %ju: "
                              "one per job", (uintmax_t)t->uses,
                        (uintmax_t)t->own);
}

/* ---- claims --------------------------------------------------------- */

/* A claim as it was at one moment. */
typedef struct claim {
    uint64_t job, low, high, at, orphan;
} claim;

static claim claim_of(const tally *t, uint32_t worker) {
    const mp_claim_shm *s = &t->pool->worker[worker].claim;
    return (claim){get(t, &s->job), get(t, &s->low), get(t, &s->high),
                   get(t, &s->at) & ~MP_AT_DOOMED, get(t, &s->orphan)};
}

static void check_claim(const tally *t, uint32_t worker, const claim *k) {
    if (k->orphan > 1 || (k->orphan && !k->job))
        mp_check_report(t->c, "worker %u: orphan is %ju, expected %s", worker,
                        (uintmax_t)k->orphan, k->job ? "0 or 1" : "0");
    if (!k->job) return;
    if (k->low > k->high || (k->orphan && k->low == k->high) ||
        k->at < k->low || k->at > k->high)
        mp_check_report(t->c, "worker %u: claims %ju to %ju, is at %ju: "
                              "expected it to be within", worker,
                        (uintmax_t)k->low, (uintmax_t)k->high,
                        (uintmax_t)k->at);
    for (uint32_t i = 0; i < worker; i++) {
        claim other = claim_of(t, i);
        if (other.job == k->job && other.low < k->high &&
            k->low < other.high)
            mp_check_report(t->c, "workers %u and %u: both claim item %ju of "
                                  "a job", i, worker,
                            (uintmax_t)(other.low > k->low ? other.low
                                                           : k->low));
    }
}

/* Who died is buried by the crew, and its claim is another's or an
   orphan. */
static void check_worker(const tally *t, uint32_t worker, const claim *k,
                         bool kept) {
    const mp_worker_shm *w = &t->pool->worker[worker];
    uint32_t tag = mp_check_u32(t->c, &w->tag);
    uint32_t ready = mp_check_u32(t->c, &w->ready);
    int is = mp_check_tag(t->c, tag);
    if ((tag && is == MP_TAG_FALSE) || ready > 1)
        mp_check_report(t->c, "worker %u: tag 0x%x, ready %u: expected a "
                              "participant, and 0 or 1", worker, tag, ready);
    uint32_t heir = mp_check_u32(t->c, &w->heir);
    uint32_t wish = mp_check_u32(t->c, &w->wish);
    uint32_t doomed = mp_check_u32(t->c, &w->doomed);
    if ((heir && mp_check_tag(t->c, heir) == MP_TAG_FALSE) || wish > 1 ||
        doomed > 1)
        mp_check_report(t->c, "worker %u: heir 0x%x, wish %u, doomed %u: "
                              "expected a participant, and 0 or 1", worker,
                        heir, wish, doomed);
    if (kept && k->job && !k->orphan && is != MP_TAG_ALIVE)
        mp_check_report(t->c, "worker %u: dead, but it claims %ju to %ju",
                        worker, (uintmax_t)k->low, (uintmax_t)k->high);
}

static void check_workers(tally *t) {
    uint64_t orphans = 0;
    uint32_t crew = mp_check_u32(t->c, &t->pool->crew);
    bool kept = mp_check_quiet(t->c) &&
                mp_check_u32(t->c, &t->pool->state) == MP_POOL_RUN &&
                mp_check_tag(t->c, crew) == MP_TAG_ALIVE;
    for (uint32_t i = 0; i < t->workers; i++) {
        claim k = claim_of(t, i);
        check_claim(t, i, &k);
        check_worker(t, i, &k, kept);
        t->claims += k.job != 0;
        orphans += k.orphan != 0;
    }
    if (orphans != get(t, &t->pool->orphans))
        mp_check_report(t->c, "orphans is %ju, expected %ju",
                        (uintmax_t)get(t, &t->pool->orphans),
                        (uintmax_t)orphans);
}

/* ---- cells ---------------------------------------------------------- */

/* Numbers of a job as they were at one moment; `window` of the cells that
   its block does have, with or without those for inputs. */
typedef struct counts {
    uint64_t done, next, fed, count, active, dropped, window, waiting;
    uint32_t runnable, level;
    bool inputs, tries;
} counts;

static const mp_try_shm *tries_of(const mp_job_shm *job, const counts *n) {
    const mp_cell_shm *out = (const void *)(job + 1);
    return (const void *)(out + (n->inputs ? 2 : 1) * n->window);
}

/* Is item i yet to be run by somebody? */
static bool is_pending(const tally *t, mp_ref ref, const mp_job_shm *job,
                       const counts *n, uint64_t i) {
    for (uint32_t k = 0; k < t->workers; k++) {
        claim its = claim_of(t, k);
        if (its.job == ref && i >= its.at && i < its.high) return true;
    }
    /* Waiting ones are counted elsewhere. */
    return n->waiting &&
           mp_check_u64(t->c, &tries_of(job, n)[i & (n->window - 1)].item) ==
               i + 1;
}

static bool is_block(uint64_t mark) {
    unsigned tag = mark & 0xff;
    return tag == MP_CELL_BLOCK || tag == MP_CELL_ERROR;
}

static void check_result(const tally *t, mp_ref job, const mp_job_shm *shm,
                         const counts *n, uint64_t i) {
    const mp_cell_shm *cells = (const void *)(shm + 1);
    const mp_cell_shm *cell = &cells[i & (n->window - 1)];
    uint64_t mark = get(t, &cell->mark), of = mark >> 8;
    if (mark && (of > n->next || of == 0 || (i + 1 - of) % n->window != 0))
        mp_check_report(t->c, "job 0x%jx: the result of item %ju is marked "
                              "0x%jx, expected %ju in the upper bits",
                        (uintmax_t)job, (uintmax_t)i, (uintmax_t)mark,
                        (uintmax_t)i + 1);
    else if (of != i + 1 && !n->dropped && !is_pending(t, job, shm, n, i))
        mp_check_report(t->c, "job 0x%jx: item %ju is done, but has no "
                              "result: it is marked 0x%jx", (uintmax_t)job,
                        (uintmax_t)i, (uintmax_t)mark);
    /* It is stale once it was taken, and freed with the job else. */
    if (is_block(mark))
        mp_check_block_if(t->c, get(t, &cell->value), 1, "result");
}

/* Blocks in input cells are the job's from when they stand there, fed or not,
   until their results are taken; then they are forgotten, or stale when the
   caller is just about to. */
static void check_inputs(const tally *t, const mp_cell_shm *cells,
                         uint64_t window) {
    for (uint64_t i = 0; i < window; i++)
        if (is_block(get(t, &cells[i].mark)) && get(t, &cells[i].value))
            mp_check_block_if(t->c, get(t, &cells[i].value), 1, "input");
}

/* One that is yet to be claimed is there. */
static void check_input(const tally *t, mp_ref job, const counts *n,
                        const mp_cell_shm *cells, uint64_t i) {
    const mp_cell_shm *cell = &cells[i & (n->window - 1)];
    if (!is_block(get(t, &cell->mark))) return;
    mp_ref value = get(t, &cell->value);
    if (mp_check_block_size(t->c, value) == 0)
        mp_check_report(t->c, "job 0x%jx: the input of item %ju is 0x%jx, "
                              "which is no block, or a free one",
                        (uintmax_t)job, (uintmax_t)i, (uintmax_t)value);
}

/* Only of items that are in the cells, and were ever. */
static void check_cells(const tally *t, mp_ref ref, const mp_job_shm *job,
                        const counts *n) {
    const mp_cell_shm *out = (const void *)(job + 1);
    const mp_cell_shm *in = out + n->window;
    uint64_t i = n->next > n->window ? n->next - n->window : 0;
    for (; i < n->next; i++) check_result(t, ref, job, n, i);
    if (!n->inputs) return;
    check_inputs(t, in, n->window);
    uint64_t end = n->fed - i < n->window ? n->fed : i + n->window;
    for (; !n->dropped && i < end; i++) check_input(t, ref, n, in, i);
}

/* ---- jobs ----------------------------------------------------------- */

/* Where the cells are; false when they are not within the block. */
static bool check_shape(const tally *t, mp_ref ref, const mp_job_shm *job,
                        counts *n) {
    uint64_t window = mp_check_u64(t->c, &job->window);
    uint64_t size = mp_check_block_size(t->c, ref);
    uint64_t from = MP_REF_OFFSET(ref) + sizeof *job;
    uint64_t out = mp_check_u64(t->c, &job->out);
    uint64_t in = mp_check_u64(t->c, &job->in);
    bool inputs = mp_check_u32(t->c, &job->source) == MP_JOB_CELLS;
    bool tried = mp_check_u32(t->c, &job->with.retries) ||
                 mp_check_u32(t->c, &job->with.crashes);
    uint64_t tries = mp_check_u64(t->c, &job->tries);
    uint64_t cells = sizeof(mp_cell_shm) * (inputs ? 2 : 1);
    uint64_t bytes = cells + (tried ? sizeof(mp_try_shm) : 0);
    n->window = window;
    n->inputs = inputs;
    n->tries = tried;
    if (size >= sizeof *job && window && !(window & (window - 1)) &&
        window <= (size - sizeof *job) / bytes && out == from &&
        in == (inputs ? out + window * sizeof(mp_cell_shm) : 0) &&
        tries == (tried ? out + window * cells : 0))
        return true;
    mp_check_report(t->c, "job 0x%jx: %ju cells, out at 0x%jx, in at 0x%jx: "
                          "expected them within its %ju bytes",
                    (uintmax_t)ref, (uintmax_t)window, (uintmax_t)out,
                    (uintmax_t)in, (uintmax_t)size);
    return false;
}

/* `done` before `next`, and so on: each is at most the one that follows. */
static counts counts_of(const tally *t, const mp_job_shm *job) {
    counts n = {.done = get(t, &job->done)};
    n.next = get(t, &job->next);
    n.fed = get(t, &job->fed);
    n.count = get(t, &job->count);
    n.active = get(t, &job->active);
    n.dropped = get(t, &job->dropped);
    n.runnable = mp_check_u32(t->c, &job->runnable);
    n.waiting = get(t, &job->waiting);
    n.level = mp_check_u32(t->c, &job->with.level);
    return n;
}

static void check_counts(tally *t, mp_ref ref, const counts *n) {
    uint64_t claims = 0, items = 0;
    for (uint32_t i = 0; n->active && i < t->workers; i++) {
        claim k = claim_of(t, i);
        if (k.job != ref) continue;
        claims++;
        items += k.high - k.low;
        if (k.high > n->next)
            mp_check_report(t->c, "worker %u: claims up to %ju, expected at "
                                  "most %ju", i, (uintmax_t)k.high,
                            (uintmax_t)n->next);
    }
    t->matched += claims;
    if (n->done > n->next || n->next > n->fed || n->fed > n->count)
        mp_check_report(t->c, "job 0x%jx: %ju done, %ju claimed, %ju fed of "
                              "%ju: expected each at most the one that "
                              "follows", (uintmax_t)ref, (uintmax_t)n->done,
                        (uintmax_t)n->next, (uintmax_t)n->fed,
                        (uintmax_t)n->count);
    else if (n->next - n->done != items + n->waiting)
        mp_check_report(t->c, "job 0x%jx: %ju items in claims, expected %ju",
                        (uintmax_t)ref, (uintmax_t)items,
                        (uintmax_t)(n->next - n->done - n->waiting));
    if (n->active != claims)
        mp_check_report(t->c, "job 0x%jx: active is %ju, expected %ju claims",
                        (uintmax_t)ref, (uintmax_t)n->active,
                        (uintmax_t)claims);
}

static void check_flags(const tally *t, mp_ref ref, const counts *n) {
    if (n->runnable > 1 || n->dropped == 4 || n->dropped > MP_JOB_ASKED)
        mp_check_report(t->c, "job 0x%jx: runnable is %u, dropped %ju: "
                              "expected at most 1, and one of 0 1 2 3 5",
                        (uintmax_t)ref, n->runnable, (uintmax_t)n->dropped);
    if (n->runnable && n->dropped & MP_JOB_CANCELLED)
        mp_check_report(t->c, "job 0x%jx: runnable, but cancelled",
                        (uintmax_t)ref);
    if (!n->runnable && !n->dropped && (n->next != n->count || n->waiting))
        mp_check_report(t->c, "job 0x%jx: not runnable, but %ju of %ju items "
                              "are claimed", (uintmax_t)ref,
                        (uintmax_t)n->next, (uintmax_t)n->count);
}

/* Those that are to be run again: as many as are counted, by time. */
static void check_waiting(const tally *t, mp_ref ref, const mp_job_shm *job,
                          const counts *n) {
    uint64_t found = 0, before = 0;
    uint64_t item = n->tries ? get(t, &job->again) : 0;
    for (; item && found < n->window; found++) {
        const mp_try_shm *its =
            &tries_of(job, n)[(item - 1) & (n->window - 1)];
        uint64_t due = mp_check_u64(t->c, &its->due);
        uint64_t of = mp_check_u64(t->c, &its->item);
        if (of != item || item > n->next || due < before)
            mp_check_report(t->c, "job 0x%jx: item %ju is to be run again at "
                                  "%ju, in the place of item %ju, after one "
                                  "at %ju", (uintmax_t)ref,
                            (uintmax_t)item - 1, (uintmax_t)due,
                            (uintmax_t)of - 1, (uintmax_t)before);
        before = due;
        item = mp_check_u64(t->c, &its->link);
    }
    if (found != n->waiting || item)
        mp_check_report(t->c, "job 0x%jx: %ju items wait, expected %ju",
                        (uintmax_t)ref, (uintmax_t)found,
                        (uintmax_t)n->waiting);
}

/* Nobody works on it any more, and its caller does not want it. */
static bool is_done_with(const counts *n) {
    if (n->active || !n->dropped || n->dropped == MP_JOB_STOPPED) return false;
    return n->dropped & MP_JOB_CANCELLED || n->done == n->count;
}

/* One of the pool's; or, of a worker's job, its own. */
static void check_function(tally *t, const mp_job_shm *job) {
    mp_ref ref = mp_check_u64(t->c, &job->function);
    if (mp_check_u32(t->c, &job->owner) == t->pool->caller) {
        t->own++;
        mp_check_again(t->c, ref, sizeof(mp_function_shm), "job's function");
        return;
    }
    const mp_function_shm *f =
        mp_check_block(t->c, ref, sizeof *f, "job's own function");
    if (f)
        mp_check_block(t->c, mp_check_u64(t->c, &f->message),
                       sizeof(mp_message_shm), "own function's message");
}

static void check_job(tally *t, mp_ref ref, const mp_job_shm *job,
                      mp_ref before) {
    mp_ref self = mp_check_u64(t->c, &job->self);
    mp_ref previous = get(t, &job->previous);
    if (self != ref || previous != before)
        mp_check_report(t->c, "job 0x%jx: self is 0x%jx, previous 0x%jx, "
                              "expected 0x%jx before it", (uintmax_t)ref,
                        (uintmax_t)self, (uintmax_t)previous,
                        (uintmax_t)before);
    check_function(t, job);
    counts n = counts_of(t, job);
    if (!check_shape(t, ref, job, &n)) return;
    if (n.level >= MP_LEVELS) {
        mp_check_report(t->c, "job 0x%jx: its level is %u, expected at most "
                              "%d", (uintmax_t)ref, n.level, MP_LEVELS - 1);
        return;
    }
    t->runnable[n.level] += n.runnable;
    t->timed += mp_check_u64(t->c, &job->with.timeout_ns) &&
                mp_check_u64(t->c, &job->with.grace_ns) != UINT64_MAX;
    t->done_with += is_done_with(&n);
    check_flags(t, ref, &n);
    check_waiting(t, ref, job, &n);
    check_counts(t, ref, &n);
    check_cells(t, ref, job, &n);
}

static void check_jobs(tally *t) {
    mp_ref before = 0;
    for (mp_ref ref = get(t, &t->pool->all); ref;) {
        const mp_job_shm *job =
            mp_check_block(t->c, ref, sizeof *job, "job");
        if (!job) return;
        t->jobs++;
        check_job(t, ref, job, before);
        before = ref;
        ref = get(t, &job->after);
    }
    if (t->matched != t->claims)
        mp_check_report(t->c, "%ju claims, expected %ju: those of its jobs",
                        (uintmax_t)t->claims, (uintmax_t)t->matched);
}

/* ---- the lists that run through `link` ------------------------------ */

/* Walks one; the last job goes to *last. Returns how many it has; not more
   than there are jobs, or it is a circle. */
static uint64_t check_list(const tally *t, mp_ref ref, const char *name,
                           bool runnable, uint32_t level, mp_ref *last) {
    uint64_t n = 0;
    for (*last = 0; ref; n++) {
        const mp_job_shm *job =
            mp_check_again(t->c, ref, sizeof *job, name);
        if (!job) return n;
        if (n == t->jobs) {
            mp_check_report(t->c, "its list of %ss is a circle", name);
            return n;
        }
        counts of = counts_of(t, job);
        if (runnable && of.level != level)
            mp_check_report(t->c, "its %s 0x%jx has level %u, expected %u",
                            name, (uintmax_t)ref, of.level, level);
        if (of.runnable != runnable ||
            (!runnable && (!of.dropped || of.active)))
            mp_check_report(t->c, "its %s 0x%jx has runnable %u, dropped "
                                  "%ju, active %ju, expected %s", name,
                            (uintmax_t)ref, of.runnable,
                            (uintmax_t)of.dropped, (uintmax_t)of.active,
                            runnable ? "1" : "0, not 0, 0");
        *last = ref;
        ref = get(t, &job->link);
    }
    return n;
}

static void check_lists(const tally *t) {
    mp_ref last, ignored;
    for (uint32_t i = 0; i < MP_LEVELS; i++) {
        uint64_t n = check_list(t, get(t, &t->pool->first[i]), "runnable job",
                                true, i, &last);
        if (n != t->runnable[i] || last != get(t, &t->pool->last[i]))
            mp_check_report(t->c, "%ju jobs are listed as runnable up to "
                                  "0x%jx, expected %ju up to 0x%jx",
                            (uintmax_t)n, (uintmax_t)last,
                            (uintmax_t)t->runnable[i],
                            (uintmax_t)get(t, &t->pool->last[i]));
    }
    uint64_t dead = check_list(t, get(t, &t->pool->grave), "buried job",
                               false, 0, &ignored);
    if (dead != t->done_with && mp_check_quiet(t->c) &&
        mp_check_u32(t->c, &t->pool->state) < MP_POOL_TERMINATE)
        mp_check_report(t->c, "%ju jobs are in the grave, expected %ju: "
                              "dropped, and nobody works on them",
                        (uintmax_t)dead, (uintmax_t)t->done_with);
}

/* ---- the pool ------------------------------------------------------- */

/* What workers that left have said. */
static void check_left(const tally *t) {
    for (mp_ref ref = get(t, &t->pool->left); ref;) {
        const mp_left_shm *left =
            mp_check_block(t->c, ref, sizeof *left, "leaver's note");
        if (!left) return;
        mp_check_block(t->c, mp_check_u64(t->c, &left->message), 1,
                       "leaver's message");
        uint64_t index = mp_check_u64(t->c, &left->index);
        if (index >= t->workers)
            mp_check_report(t->c, "who left had place %ju, expected at most "
                                  "%u", (uintmax_t)index, t->workers);
        ref = mp_check_u64(t->c, &left->link);
    }
}

static void check_words(const tally *t) {
    uint32_t state = mp_check_u32(t->c, &t->pool->state);
    int32_t started = (int32_t)mp_check_u32(t->c, &t->pool->started);
    const uint32_t tags[] = {t->pool->caller,
                             mp_check_u32(t->c, &t->pool->crew),
                             mp_check_u32(t->c, &t->pool->spinning)};
    if (state > MP_POOL_BROKEN || started > 1)
        mp_check_report(t->c, "state is %u, started %d, expected at most %d "
                              "and 1", state, started, MP_POOL_BROKEN);
    uint32_t workers = mp_check_u32(t->c, &t->pool->workers);
    if (workers > t->workers / 2)
        mp_check_report(t->c, "workers is %u, expected at most %u", workers,
                        t->workers / 2);
    if (t->timed != get(t, &t->pool->timed))
        mp_check_report(t->c, "%ju jobs have a timeout, expected %ju",
                        (uintmax_t)t->timed,
                        (uintmax_t)get(t, &t->pool->timed));
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
        if (tags[i] && mp_check_tag(t->c, tags[i]) == MP_TAG_FALSE)
            mp_check_report(t->c, "its %s has tag 0x%x, which nobody ever had",
                            i == 0 ? "caller" : i == 1 ? "crew" : "spinner",
                            tags[i]);
}

void mp_pool_check(mp_check *c, const void *object) {
    tally t = {.c = c, .pool = object};
    if (!mp_check_size(c, sizeof *t.pool)) return;
    t.workers = 2 * mp_check_u32(c, &t.pool->places);
    if (!mp_check_size(c, sizeof *t.pool + (uint64_t)t.workers *
                                               sizeof(mp_worker_shm)))
        return;
    mp_ref reason = mp_check_u64(c, &t.pool->reason);
    mp_check_mutex(c, &t.pool->lock, "lock");
    if (reason) mp_check_block(c, reason, 1, "reason");
    mp_ref setup = mp_check_u64(c, &t.pool->setup);
    if (setup) mp_check_block(c, setup, 1, "setup");
    check_functions(&t);
    check_left(&t);
    check_workers(&t);
    check_jobs(&t);
    check_lists(&t);
    check_uses(&t);
    check_words(&t);
}
