/* What is asked of a job beyond its results: its options, and its end. */
#include "bind/job.h"
#include "bind/task.h"

/* Most items end in less; a longer one's worker is killed. */
enum { CANCEL_NS = 2000000 };

static lua_Integer integer_field(lua_State *L, int idx, const char *name) {
    lua_getfield(L, idx, name);
    lua_Integer value = lua_tointeger(L, -1);
    lua_pop(L, 1);
    return value;
}

static uint32_t word_field(lua_State *L, int idx, const char *name) {
    return (uint32_t)integer_field(L, idx, name);
}

void job_read_controls(lua_State *L, const job_ud *j, int idx,
                       mp_controls *with) {
    with->level = MP_LEVEL_NORMAL;
    if (!lua_istable(L, idx)) return;
    *with = (mp_controls){
        .timeout_ns = (uint64_t)integer_field(L, idx, "timeout"),
        .grace_ns = (uint64_t)integer_field(L, idx, "grace"),
        .wait_ns = (uint64_t)integer_field(L, idx, "wait"),
        .most_wait_ns = (uint64_t)integer_field(L, idx, "most_wait"),
        .retries = word_field(L, idx, "retries"),
        .crashes = word_field(L, idx, "crashes"),
        .factor = word_field(L, idx, "factor"),
        .jitter = word_field(L, idx, "jitter"),
        .level = word_field(L, idx, "level"),
        .flags = word_field(L, idx, "flags"),
        .seed = (uint64_t)integer_field(L, idx, "seed")};
    if (!mp_pool_has_bell(bind_pool_still(L, j->pool))) {
        with->grace_ns = UINT64_MAX;
        if (with->timeout_ns && !bind_task_signal())
            bind_error(L, "StateError", "timeout: this process handles "
                                        "SIGURG, by which threads are told");
    }
}

/* The crew looks at the pool now; false: there is none. */
static bool stir(const job_ud *j) {
    if (j->pool->guest) return mp_pool_ring(pool_of(j->pool));
    if (j->pool->team) return false;
    mp_pool_stir(&j->pool->crew);
    return true;
}

void job_hurry(const job_ud *j) {
    if (mp_job_is_urgent(pool_of(j->pool), j->job)) stir(j);
}

void job_stop(const job_ud *j, unsigned how, uint64_t ns) {
    mp_pool_shm *pool = pool_of(j->pool);
    mp_ref self = j->job->self;
    if (!mp_job_cancel(pool, j->job, how, ns)) return;
    if (!stir(j)) mp_team_ask(pool, self);
}

int job_cancel(lua_State *L) {
    job_ud *j = job_check(L, "cancel");
    job_tick_end(L, j, 1);
    bool any = !job_settled(j);
    if (any) {
        job_stop(j, MP_JOB_CANCELLED, CANCEL_NS);
        j->job = NULL;
        job_give_up(j, MP_JOB_CANCELLED);
    }
    lua_pushboolean(L, any);
    return 1;
}
