/* Results from the workers: in order, or as they come. */
#include <errno.h>

#include "bind/interrupt.h"
#include "bind/job.h"
#include "bind/message.h"
#include "mem/heap.h"
#include "mem/slot.h"

/* ---- results -------------------------------------------------------- */

/* Which item an error names: none, of an apply. */
static void push_index(lua_State *L, const job_ud *j, uint64_t i) {
    if (j->source == FROM_STACK)
        lua_pushnil(L);
    else
        lua_pushinteger(L, (lua_Integer)i + 1);
}

/* lost(pid, exit code, index, function, runs, deaths, timeout or nil) -> error
   object: of a worker that died, or was killed as the item's time was up. */
static void push_lost(lua_State *L, job_ud *j, int self, uint64_t i,
                      unsigned tag, uint64_t value) {
    uint32_t runs, deaths;
    mp_job_tries(j->job, i, &runs, &deaths);
    lua_getiuservalue(L, self, UV_POOL);
    lua_getiuservalue(L, -1, 1);
    lua_getfield(L, -1, "lost");
    lua_pushinteger(L, (lua_Integer)(value >> 32));
    lua_pushinteger(L, (lua_Integer)(int32_t)(uint32_t)value);
    push_index(L, j, i);
    lua_getiuservalue(L, self, UV_FUNCTION);
    lua_pushinteger(L, runs);
    lua_pushinteger(L, deaths);
    if (tag == MP_CELL_LATE)
        lua_pushnumber(L, (lua_Number)j->job->with.timeout_ns / 1e9);
    else
        lua_pushnil(L);
    lua_call(L, 7, 1);
    lua_replace(L, -3);
    lua_pop(L, 1);
}

/* An error that came says how often the item was run. */
static void add_attempts(lua_State *L, const job_ud *j, uint64_t i) {
    uint32_t runs, deaths;
    mp_job_tries(j->job, i, &runs, &deaths);
    if (!runs || !lua_istable(L, -1)) return;
    lua_pushinteger(L, runs);
    lua_setfield(L, -2, "attempts");
}

/* Item i's input is not needed any more. */
static void free_input(job_ud *j, uint64_t i) {
    if (j->source == FROM_RANGE) return;
    mp_cell_shm *cell = mp_job_in(j->job, i);
    if ((cell->mark & 0xff) != MP_CELL_BLOCK) return;
    size_t size = mp_block_size(cell->value);
    j->bytes -= size < j->bytes ? size : j->bytes;
    mp_free(cell->value);
    mp_cell_forget(cell);
}

/* (block, hand) -> its values */
static int take_protected(lua_State *L) {
    mp_ref block = (mp_ref)lua_tointeger(L, 1);
    int hand = (int)lua_tointeger(L, 2);
    lua_settop(L, 0);
    return message_take(L, block, hand);
}

/* Rebuilds what a block holds; false, and an error object, when that fails:
   it is this item's error, and no other's. The user's code may run in it,
   and give the job up, so the block belongs to a hand by then and no more to
   the cell. */
static bool push_block(lua_State *L, job_ud *j, int self, mp_cell_shm *cell,
                       uint64_t i, int *n) {
    int top = lua_gettop(L);
    mp_ref block = mp_cell_value(cell);
    int hand = mp_hand_take(block, NULL, 0);
    mp_cell_forget(cell);
    lua_pushcfunction(L, take_protected);
    lua_pushinteger(L, (lua_Integer)block);
    lua_pushinteger(L, hand);
    int r = lua_pcall(L, 2, LUA_MULTRET, 0);
    *n = lua_gettop(L) - top;
    if (r == LUA_OK) return true;
    /* The item is spoilt, but it was the caller who was meant. */
    if (bind_is_interrupted(L, -1)) bind_interrupt_on_signal();
    lua_getiuservalue(L, self, UV_POOL);
    lua_getiuservalue(L, -1, 1);
    lua_getfield(L, -1, "unreadable");
    lua_pushvalue(L, top + 1);
    push_index(L, j, i);
    lua_getiuservalue(L, self, UV_FUNCTION);
    lua_call(L, 3, 1);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    return false;
}

/* Pushes the values of item i, whose result stands there under `tag`, and
   gives its memory back; *n says how many were pushed. */
int job_take_result(lua_State *L, job_ud *j, int self, uint64_t i,
                    unsigned tag, int *n) {
    mp_cell_shm *cell = mp_job_out(j->job, i);
    uint64_t value = mp_cell_value(cell);
    *n = 1;
    free_input(j, i);
    luaL_checkstack(L, 10, NULL);
    if (tag < MP_CELL_OWN) {
        message_push_scalar(L, (uint8_t)tag, value);
    } else if (tag == MP_CELL_LOST || tag == MP_CELL_LATE) {
        push_lost(L, j, self, i, tag, value);
        return TAKEN_ERROR;
    } else if (tag == MP_CELL_EMPTY) {
        *n = 0;
    } else if (!push_block(L, j, self, cell, i, n)) {
        return TAKEN_ERROR;
    }
    if (tag == MP_CELL_ERROR && job_usable(j)) add_attempts(L, j, i);
    return tag == MP_CELL_ERROR ? TAKEN_ERROR : TAKEN_VALUE;
}

static void run_callbacks(lua_State *L, int self) {
    lua_getiuservalue(L, self, UV_POOL);
    lua_getiuservalue(L, -1, 1);
    lua_getfield(L, -1, "run_callbacks");
    lua_call(L, 0, 0);
    lua_pop(L, 2);
}

/* Sleeps till there is progress: `mark` items done, or item i there. Returns
   false when the deadline passed. Raises what a stopped pool owes. */
bool job_await(lua_State *L, job_ud *j, int self, uint64_t mark, uint64_t i,
               mp_deadline deadline) {
    mp_pool_shm *pool = pool_of(j->pool);
    /* Who is asked for a result at once looks whether there is one. */
    if (j->pool->guest && !mp_deadline_passed(deadline) &&
        bind_worker_help(L, pool, j->job)) {
        if (job_usable(j)) job_tick(L, j, self);
        return true;
    }
    mp_deadline until = job_tick_deadline(j, deadline);
    int r = mp_job_wait(pool, j->job, mark, i, until);
    if (r == -EOWNERDEAD) {
        lua_getiuservalue(L, self, UV_POOL);
        bind_pool_restart(L, j->pool, lua_gettop(L));
        lua_pop(L, 1);
    }
    if (r == -EINTR) bind_interrupted(L);
    if (j->pool->callbacks > 0) run_callbacks(L, self);
    job_tick(L, j, self);
    return r != -ETIMEDOUT || until.ns != deadline.ns;
}

/* The pool is over, and the result that is asked for is not there. */
static void check_pool_runs(lua_State *L, const job_ud *j, uint64_t i) {
    if (!j->pool->object.shm ||
        (mp_pool_state(pool_of(j->pool)) >= MP_POOL_TERMINATE &&
         !mp_job_result(j->job, i)))
        bind_pool_stopped(L, j->pool);
}

/* Half of what is under way: waking the caller costs more than a small
   result is worth, and by then there is still work for the workers. */
static uint64_t next_mark(const job_ud *j) {
    if (j->input_over && !j->job->eager) return j->count;
    uint64_t out = j->fed - j->taken;
    return j->taken + (out > 1 ? out / 2 : 1);
}

bool job_at_end(const job_ud *j) {
    return j->input_over && j->taken == j->count;
}

/* Nothing is left to take. The user's code that ran while we drew items or
   waited may have taken the rest, or given the job up; if it has closed the
   pool, what that owes is raised. */
static bool is_over(lua_State *L, const job_ud *j) {
    if (!j->job || job_at_end(j)) return true;
    bind_pool_still(L, j->pool);
    return false;
}

/* ---- ordered: next, and all ----------------------------------------- */

/* The index and tag of the next result, in order; tag 0 at the end; false on
   timeout. */
bool job_next_in_order(lua_State *L, job_ud *j, int self, mp_deadline deadline,
                       uint64_t *i, unsigned *tag) {
    job_refill(L, j, self);
    *tag = 0;
    if (is_over(L, j)) return true;
    while (!(*tag = mp_job_result(j->job, j->low))) {
        if (mp_job_stopped(j->job)) return j->stopped = true;
        check_pool_runs(L, j, j->low);
        if (!job_await(L, j, self, next_mark(j), j->low, deadline))
            return false;
        if (is_over(L, j)) return true;
    }
    *i = j->low++;
    j->taken++;
    return true;
}

/* ---- unordered ------------------------------------------------------ */

static unsigned char *flag(const job_ud *j, uint64_t i) {
    return &j->seen[i & (j->window - 1)];
}

/* Some result that is there and not taken, from `scan` on, then from the
   lowest; 0 when there is none now. */
static unsigned find_any(job_ud *j, uint64_t *i) {
    /* Flags below `low` are wiped for the next lap: they tell nothing. */
    if (j->scan < j->low) j->scan = j->low;
    for (int pass = 0; pass < 2; pass++) {
        for (; j->scan < j->fed; j->scan++) {
            unsigned tag =
                *flag(j, j->scan) ? 0 : mp_job_result(j->job, j->scan);
            if (!tag) continue;
            *i = j->scan++;
            return tag;
        }
        j->scan = j->low;
    }
    return 0;
}

bool job_next_of_any(lua_State *L, job_ud *j, int self, mp_deadline deadline,
                     uint64_t *i, unsigned *tag) {
    job_refill(L, j, self);
    *tag = 0;
    if (is_over(L, j)) return true;
    while (!(*tag = find_any(j, i))) {
        check_pool_runs(L, j, j->low);
        if (!job_await(L, j, self, next_mark(j), MP_JOB_OPEN, deadline))
            return false;
        if (is_over(L, j)) return true;
    }
    *flag(j, *i) = 1;
    j->taken++;
    while (j->low < j->fed && *flag(j, j->low)) *flag(j, j->low++) = 0;
    return true;
}
