/* What the regions of the pool share: pools without a crew, whose caller and
   workers are the killer, the victim and the peers. */
#ifndef MP_SPEC_POOL_TOOLS_H
#define MP_SPEC_POOL_TOOLS_H

#include <errno.h>
#include <string.h>

#include "crash.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "region_tools.h"
#include "work/pool_shm.h"

enum { ITEMS = 6, CHUNK = 2, WINDOW = 8, NUMBER = 7, PEERS = 2 };

/* Places of workers: the victim, the peers, one who died before. */
enum { VICTIM, FIRST_PEER, KILLER = FIRST_PEER + PEERS, GHOST, WORKERS };

/* Notes. RAN: per item, how often it was run; LOST: by the ghost. */
enum { ID, GEN, JOB, LOST, RAN };

/* For SPEC_PREPARE. */
static inline void prepare_pools(void) {
    const mp_pool_spec wanted = {.workers = 1, .places = 1};
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_pool_open();
    CHECK_OK(mp_pool_make(&wanted, &id, &gen));
    mp_object_detach(id);
}

static uint32_t pool_id;
static mp_pool_shm *pool;
static mp_job_shm *job;

/* ---- the caller ------------------------------------------------------- */

static inline mp_ref new_message(uint64_t word) {
    mp_ref block = mp_alloc(100);
    CHECK(block != 0);
    mp_message_shm *m = mp_at(block);
    m->length = 8;
    m->handles_at = 0;
    atomic_store(&m->n_handles, 0);
    memcpy(m + 1, &word, sizeof word);
    return block;
}

static inline uint64_t read_message(mp_ref block) {
    uint64_t word;
    CHECK(mp_block_size(block) > 0);
    memcpy(&word, (mp_message_shm *)mp_at(block) + 1, sizeof word);
    return word;
}

static inline mp_ref function_of(uint64_t word) {
    mp_ref function;
    CHECK_OK(mp_pool_function(pool, new_message(word), &function));
    return MP_REF_OFFSET(function);
}

static inline mp_job_shm *add(uint32_t source, uint64_t count,
                              uint64_t chunk) {
    mp_job_spec said = {.function = function_of(1),
                        .source = source,
                        .start = 100,
                        .step = 1,
                        .count = count,
                        .window = WINDOW,
                        .chunk = chunk};
    mp_job_shm *added;
    CHECK_OK(mp_pool_add(pool, &said, &added));
    return added;
}

/* Every other input is a block. */
static inline void feed(mp_job_shm *j, uint64_t n) {
    for (uint64_t i = 0; i < n && j->source == MP_JOB_CELLS; i++) {
        mp_cell_shm *cell = mp_job_in(j, i);
        cell->value = i % 2 ? 100 + i : new_message(100 + i);
        cell->mark = i % 2 ? NUMBER : MP_CELL_BLOCK;
    }
    mp_job_feed(pool, j, n);
}

static inline void open_pool(void) {
    const mp_pool_spec wanted = {.workers = WORKERS, .places = WORKERS};
    uint32_t gen;
    CHECK_OK(mp_pool_make(&wanted, &pool_id, &gen));
    pool = mp_object_block(pool_id);
    job = NULL;
    crash_note(ID, pool_id);
    crash_note(GEN, gen);
}

static inline void add_job(uint32_t source, uint64_t count, uint64_t chunk) {
    job = add(source, count, chunk);
    crash_note(JOB, mp_offset(job));
}

/* ---- a worker --------------------------------------------------------- */

static inline void run_item(const mp_job_shm *j, uint64_t i) {
    crash_count(RAN + (int)i);
    uint64_t number = 100 + i;
    if (j->source == MP_JOB_CELLS) {
        const mp_cell_shm *cell = mp_job_in(j, i);
        bool block = (cell->mark & 0xff) == MP_CELL_BLOCK;
        number = mp_cell_value(cell);
        if (block) number = read_message(number);
    }
    CHECK_EQ(number, 100 + i);
    if (i % 3 == 0)
        mp_worker_result(j, i, MP_CELL_BLOCK, new_message(2 * number));
    else
        mp_worker_result(j, i, NUMBER, 2 * number);
}

/* Runs one range; false: there will be no more. */
static inline bool work_once(uint32_t index) {
    mp_range range;
    int r;
    while ((r = mp_worker_claim(pool, index, &range)) == -EINTR) {
    }
    CHECK(r == 0 || r == -EPIPE);
    if (r < 0) return false;
    mp_worker_shm *w = mp_pool_worker(pool, index);
    for (uint64_t i = range.low; i < range.high; i++) {
        mp_worker_at(w, i);
        if (!mp_job_cancelled(range.job)) run_item(range.job, i);
    }
    mp_worker_at(w, range.high);
    return true;
}

static inline void work(uint32_t index) {
    while (work_once(index)) {
    }
}

/* As a crew does before and behind the fork. */
static inline void become_worker(uint32_t index) {
    mp_worker_shm *w = mp_pool_worker(pool, index);
    atomic_store(&w->tag, mp_me->tag);
    atomic_store(&w->pid, 1);
    mp_worker_ready(pool, index);
}

/* Spans are the heap's business. */
static inline void warm_spans(void) {
    warm_up(sizeof(mp_function_shm));
    warm_up(100);
    warm_up(sizeof(mp_job_shm) + WINDOW * sizeof(mp_cell_shm));
    warm_up(sizeof(mp_job_shm) + 2 * WINDOW * sizeof(mp_cell_shm));
}

static inline void victim_begins(void) {
    become_worker(VICTIM);
    warm_spans();
}

static inline void peer_begins(void) {
    CHECK_OK(mp_object_attach((uint32_t)crash_noted(ID),
                              (uint32_t)crash_noted(GEN)));
    pool_id = (uint32_t)crash_noted(ID);
    pool = mp_object_block(pool_id);
    job = mp_at(crash_noted(JOB));
}

/* ---- the crew --------------------------------------------------------- */

static inline void await_victim(void) {
    uint32_t tag = crash_victim();
    while (mp_proc_wait_peer(tag, MP_FOREVER) == -EINTR) {
    }
    mp_reap(tag);
}

static inline void bury_victim(void) {
    await_victim();
    mp_crew_bury(pool, VICTIM, -SIGKILL);
}

/* The victim is the crew; when it is dead, the caller goes on. */
static inline void bury_ghost(void) {
    mp_crew_bury(pool, GHOST, -SIGKILL);
}

static inline void caller_buries(void) {
    await_victim();
    mp_pool_bury(pool);
    CHECK_EQ(atomic_load(&mp_pool_worker(pool, GHOST)->tag), 0);
}

#endif
