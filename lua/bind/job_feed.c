/* Items to the workers. They are drawn from the source only a window ahead
   of what was taken, in batches, so that a worker is woken once per batch and
   the memory in use does not depend on the length of the input. */
#include <stdio.h>

#include "bind/interrupt.h"
#include "bind/job.h"
#include "bind/message.h"
#include "mem/heap.h"

enum {
    BATCH = 512,                   /* items between two notices */
    BYTES_AHEAD = 64 * 1024 * 1024 /* of items in blocks */
};

static uint64_t room(const job_ud *j) {
    uint64_t out = j->fed - j->taken, span = j->fed - j->low;
    if (out >= j->ahead || span >= j->window) return 0;
    if (j->bytes > BYTES_AHEAD && out >= 4) return 0;
    uint64_t a = j->ahead - out, b = j->window - span;
    uint64_t n = a < b ? a : b;
    /* Whole chunks, as they were asked for; the last one is what is left,
       which nobody might come back to feed. */
    if (j->count - j->fed <= n) return j->count - j->fed;
    return j->chunk ? n - n % j->chunk : n;
}

unsigned job_encode_item(lua_State *L, int first, int n, const char *what,
                         uint64_t *value) {
    uint8_t tag = 0;
    if (n == 0) return MP_CELL_EMPTY;
    if (n == 1 && message_scalar(L, first, &tag, value)) return tag;
    *value = message_new(L, first, n, what);
    return MP_CELL_BLOCK;
}

void job_put_item(job_ud *j, unsigned mark, uint64_t value) {
    mp_cell_shm *cell = &j->in[j->fed & (j->window - 1)];
    if (mark == MP_CELL_BLOCK) j->bytes += mp_block_size(value);
    atomic_store_explicit(&cell->value, value, memory_order_relaxed);
    atomic_store_explicit(&cell->mark, mark, memory_order_relaxed);
    if (mark == MP_CELL_BLOCK) mp_publish(value);
    j->fed++;
}

/* The input is over; items were fed up to here. */
static void end_input(job_ud *j) {
    j->input_over = true;
    j->count = j->fed;
}

/* Pushes the next item of a list or iterator; false at its end, or when the
   user's code in it gave the job up. */
static bool draw(lua_State *L, job_ud *j) {
    if (j->source == FROM_LIST) {
        if (j->fed == j->count) return false;
        lua_geti(L, 2, (lua_Integer)j->fed + 1);
        return job_usable(j);
    }
    lua_pushvalue(L, 2);
    lua_call(L, 0, 1);
    return job_usable(j) && !lua_isnil(L, -1);
}

/* Makes the value at stack index 3 the next item; false when the user's code
   in its pickling gave the job up. */
static bool encode_drawn(lua_State *L, job_ud *j) {
    uint64_t value = 0;
    char name[32] = "item";
    if (lua_type(L, 3) > LUA_TSTRING)
        snprintf(name, sizeof name, "items[%llu]",
                 (unsigned long long)j->fed + 1);
    unsigned mark = job_encode_item(L, 3, 1, name, &value);
    if (job_usable(j)) {
        job_put_item(j, mark, value);
        return true;
    }
    if (mark == MP_CELL_BLOCK) mp_free(value);
    return false;
}

/* [1] job, [2] source: draws up to the window's end, where there is room for
   one item at least. Runs protected, since the source is the user's. */
static int draw_batch(lua_State *L) {
    job_ud *j = lua_touserdata(L, 1);
    uint64_t most = room(j), batch = BATCH;
    if (j->chunk) batch = (BATCH + j->chunk - 1) / j->chunk * j->chunk;
    if (most > batch) most = batch;
    most += j->fed;
    lua_settop(L, 2);
    do {
        bool more = draw(L, j);
        if (more && lua_isinteger(L, 3))
            job_put_item(j, MESSAGE_INTEGER, (uint64_t)lua_tointeger(L, 3));
        else if (more)
            more = encode_drawn(L, j);
        if (!more) {
            end_input(j);
            break;
        }
        lua_settop(L, 2);
    } while (j->fed < most && j->bytes <= BYTES_AHEAD);
    if (j->fed == j->count) j->input_over = true;
    return 0;
}

/* What the source raised waits for its turn: behind the items before it. */
static void keep_input_error(lua_State *L, job_ud *j, int self) {
    if (bind_is_error(L, -1)) {
        lua_pushinteger(L, (lua_Integer)j->fed + 1);
        lua_setfield(L, -2, "index");
    }
    lua_setiuservalue(L, self, UV_ERROR);
    end_input(j);
    j->failed = true;
}

/* Announces what was drawn to the workers. */
static void hand_over(job_ud *j, uint64_t before) {
    if (!job_usable(j)) return;
    mp_pool_shm *pool = pool_of(j->pool);
    if (j->input_over && atomic_load(&j->job->count) != j->count)
        mp_job_finish_input(pool, j->job, j->count);
    if (j->fed != before) mp_job_feed(pool, j->job, j->fed);
}

static void feed_range(job_ud *j) {
    uint64_t before = j->fed, n = room(j);
    j->fed += n < j->count - j->fed ? n : j->count - j->fed;
    j->input_over = j->fed == j->count;
    hand_over(j, before);
}

void job_feed(lua_State *L, job_ud *j, int self) {
    if (j->source == FROM_RANGE) {
        feed_range(j);
        return;
    }
    luaL_checkstack(L, 6, NULL);
    while (!j->input_over && room(j)) {
        uint64_t before = j->fed;
        lua_pushcfunction(L, draw_batch);
        lua_pushvalue(L, self);
        lua_getiuservalue(L, self, UV_SOURCE);
        j->feeding = true;
        j->pool->feeding++;
        bool failed = lua_pcall(L, 2, 0, 0) != LUA_OK;
        j->pool->feeding--;
        j->feeding = false;
        bool at_once = failed && bind_is_interrupted(L, -1);
        if (at_once)
            end_input(j);
        else if (failed)
            keep_input_error(L, j, self);
        hand_over(j, before);
        if (at_once) lua_error(L);
    }
}

/* Feeding is worth its while when half of the window is free. */
void job_refill(lua_State *L, job_ud *j, int self) {
    if (!j->input_over && j->fed - j->taken <= j->ahead / 2) {
        job_feed(L, j, self);
        job_tick(L, j, self);
    }
    uint64_t later = j->input_over ? 0 : j->ahead / 2;
    j->quick = j->ordered && j->fed > later && j->stash_first == j->stash_last
                   ? j->fed - later
                   : 0;
}
