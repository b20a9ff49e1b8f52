/* The caller's side of a job: feeding items, taking results. One userdata
   serves map (take all in order), imap (take as they come) and apply (one
   item), so there is one way in which items travel.

   Items are drawn from the source only a window ahead of what was taken, in
   batches, so that a worker is woken once per batch and the memory in use
   does not depend on the length of the input. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind/message.h"
#include "bind/pool.h"
#include "mem/heap.h"

enum {
    BATCH = 512,                    /* items between two notices */
    BYTES_AHEAD = 64 * 1024 * 1024, /* of items in blocks */
    ORDERED_WINDOW = 16384,         /* map */
    STREAM_WINDOW = 1024,           /* imap, at least */
    LONGEST_WINDOW = 1 << 20        /* for large chunks; what is ready of a
                                       larger one is claimed as one */
};

enum { FROM_RANGE, FROM_LIST, FROM_FUNCTION, FROM_STACK };

/* User values of a job. */
enum {
    UV_POOL = 1,
    UV_SOURCE,
    UV_ERROR,   /* what the source raised */
    UV_RESULTS, /* of an unfinished collect */
    UV_STASH,   /* index, value, failed; taken before they were asked for */
    UV_FUNCTION, /* to be named in messages */
    UV_COUNT = UV_FUNCTION
};

typedef struct job_ud {
    bind_object object; /* only its class is used */
    pool_ud *pool;
    mp_job_shm *job; /* NULL once given up */
    int source;
    bool ordered, input_over, released;
    bool failed;     /* the source raised (UV_ERROR) */
    uint64_t ahead;  /* how far the input may be ahead of what was taken */
    uint64_t chunk;  /* items per claim, if that was said; at most `ahead` */
    uint64_t fed;    /* items given to the workers */
    uint64_t low;    /* items below it are taken */
    uint64_t taken;  /* how many are taken */
    uint64_t scan;   /* unordered: where to look next */
    uint64_t count;  /* MP_JOB_OPEN until the input is over */
    uint64_t bytes;  /* in blocks of items that are not taken */
    uint64_t window;
    mp_cell_shm *in, *out; /* the cells, in this process */
    uint64_t quick; /* ordered: results below it need no second look */
    lua_Integer stash_first, stash_last;
    unsigned char *seen; /* unordered: taken flags of the window */
} job_ud;

extern const bind_class bind_job_class;

static job_ud *check_job(lua_State *L, const char *fn) {
    job_ud *j = (job_ud *)bind_is(L, 1, &bind_job_class);
    if (!j) bind_argerror(L, fn, 1, "self", "job");
    if (!mp_me) bind_open_runtime(L);
    if (!bind_pool_mine(j->pool))
        bind_error(L, "StateError",
                   "%s: the Pool belongs to the process that made it", fn);
    return j;
}

/* The job's shared part can be used: its pool's memory is still there. */
static bool usable(const job_ud *j) {
    return j->job && j->pool->object.shm;
}

/* ---- feeding -------------------------------------------------------- */

static uint64_t room(const job_ud *j) {
    uint64_t out = j->fed - j->taken, span = j->fed - j->low;
    if (out >= j->ahead || span >= j->window) return 0;
    if (j->bytes > BYTES_AHEAD && out >= 4) return 0;
    uint64_t a = j->ahead - out, b = j->window - span;
    uint64_t n = a < b ? a : b;
    /* Whole chunks, as they were asked for. */
    return j->chunk ? n - n % j->chunk : n;
}

/* The n values from stack index `first` as an input cell has them: returns
   the mark. A block stays OWNED: should we die, it goes with us. */
static unsigned encode_item(lua_State *L, int first, int n, const char *what,
                            uint64_t *value) {
    uint8_t tag = 0;
    if (n == 0) return MP_CELL_EMPTY;
    if (n == 1 && message_scalar(L, first, &tag, value)) return tag;
    *value = message_new(L, first, n, what);
    return MP_CELL_BLOCK;
}

/* Makes it item number j->fed. */
static void put_item(job_ud *j, unsigned mark, uint64_t value) {
    mp_cell_shm *cell = &j->in[j->fed & (j->window - 1)];
    if (mark == MP_CELL_BLOCK) j->bytes += mp_block_size(value);
    atomic_store_explicit(&cell->value, value, memory_order_relaxed);
    atomic_store_explicit(&cell->mark, mark, memory_order_relaxed);
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
        return usable(j);
    }
    lua_pushvalue(L, 2);
    lua_call(L, 0, 1);
    return usable(j) && !lua_isnil(L, -1);
}

/* Makes the value at stack index 3 the next item. */
static void encode_drawn(lua_State *L, job_ud *j) {
    uint64_t value = 0;
    char name[32] = "item";
    if (lua_type(L, 3) > LUA_TSTRING)
        snprintf(name, sizeof name, "items[%llu]",
                 (unsigned long long)j->fed + 1);
    unsigned mark = encode_item(L, 3, 1, name, &value);
    put_item(j, mark, value);
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
        if (!draw(L, j)) {
            end_input(j);
            break;
        }
        if (lua_isinteger(L, 3))
            put_item(j, MESSAGE_INTEGER, (uint64_t)lua_tointeger(L, 3));
        else
            encode_drawn(L, j);
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
    if (!usable(j)) return;
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

/* Draws as much as the window takes. `self` is the job's stack index. */
static void feed(lua_State *L, job_ud *j, int self) {
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
        if (lua_pcall(L, 2, 0, 0) != LUA_OK) keep_input_error(L, j, self);
        hand_over(j, before);
    }
}

/* Feeding is worth its while when half of the window is free. */
static void refill(lua_State *L, job_ud *j, int self) {
    if (!j->input_over && j->fed - j->taken <= j->ahead / 2)
        feed(L, j, self);
    uint64_t later = j->input_over ? 0 : j->ahead / 2;
    j->quick = j->ordered && j->fed > later && j->stash_first == j->stash_last
                   ? j->fed - later
                   : 0;
}

/* ---- results -------------------------------------------------------- */

enum { TAKEN_VALUE, TAKEN_ERROR };

static void push_lost(lua_State *L, job_ud *j, int self, uint64_t i,
                      uint64_t value) {
    lua_getiuservalue(L, self, UV_POOL);
    lua_getiuservalue(L, -1, 1);
    lua_getfield(L, -1, "lost");
    lua_pushinteger(L, (lua_Integer)(value >> 32));
    lua_pushinteger(L, (lua_Integer)(int32_t)(uint32_t)value);
    if (j->source == FROM_STACK)
        lua_pushnil(L);
    else
        lua_pushinteger(L, (lua_Integer)i + 1);
    lua_getiuservalue(L, self, UV_FUNCTION);
    lua_call(L, 4, 1);
    lua_replace(L, -3);
    lua_pop(L, 1);
}

/* Item i's input is not needed any more. */
static void free_input(job_ud *j, uint64_t i) {
    if (j->source == FROM_RANGE) return;
    const mp_cell_shm *cell = mp_job_in(j->job, i);
    if ((cell->mark & 0xff) != MP_CELL_BLOCK) return;
    size_t size = mp_block_size(cell->value);
    j->bytes -= size < j->bytes ? size : j->bytes;
    mp_free(cell->value);
}

/* Pushes the values of item i, whose result stands there under `tag`, and
   gives its memory back; *n says how many were pushed. */
static int take_result(lua_State *L, job_ud *j, int self, uint64_t i,
                       unsigned tag, int *n) {
    uint64_t value = mp_job_out(j->job, i)->value;
    *n = 1;
    if (tag < MP_CELL_OWN) {
        message_push_scalar(L, (uint8_t)tag, value);
    } else if (tag == MP_CELL_LOST) {
        push_lost(L, j, self, i, value);
    } else if (tag == MP_CELL_EMPTY) {
        *n = 0;
    } else {
        *n = message_push(L, value);
        mp_free(value);
    }
    free_input(j, i);
    return tag == MP_CELL_ERROR || tag == MP_CELL_LOST ? TAKEN_ERROR
                                                       : TAKEN_VALUE;
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
static bool await(lua_State *L, job_ud *j, int self, uint64_t mark,
                  uint64_t i, mp_deadline deadline) {
    mp_pool_shm *pool = pool_of(j->pool);
    int r = mp_job_wait(pool, j->job, mark, i, deadline);
    if (r == -EOWNERDEAD) {
        lua_getiuservalue(L, self, UV_POOL);
        bind_pool_restart(L, j->pool, lua_gettop(L));
        lua_pop(L, 1);
    }
    if (r == -EINTR) bind_interrupted(L);
    if (j->pool->callbacks > 0) run_callbacks(L, self);
    return r != -ETIMEDOUT;
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

static bool at_end(const job_ud *j) {
    return j->input_over && j->taken == j->count;
}

/* Nothing is left to take. The user's code that ran while we drew items or
   waited may have taken the rest, or given the job up. */
static bool is_over(const job_ud *j) {
    return !usable(j) || at_end(j);
}

/* ---- ordered: next, and all ----------------------------------------- */

/* The index and tag of the next result, in order; tag 0 at the end; false on
   timeout. */
static bool next_in_order(lua_State *L, job_ud *j, int self,
                          mp_deadline deadline, uint64_t *i, unsigned *tag) {
    refill(L, j, self);
    *tag = 0;
    if (is_over(j)) return true;
    while (!(*tag = mp_job_result(j->job, j->low))) {
        check_pool_runs(L, j, j->low);
        if (!await(L, j, self, next_mark(j), j->low, deadline)) return false;
        if (is_over(j)) return true;
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

static bool next_of_any(lua_State *L, job_ud *j, int self,
                        mp_deadline deadline, uint64_t *i, unsigned *tag) {
    refill(L, j, self);
    *tag = 0;
    if (is_over(j)) return true;
    while (!(*tag = find_any(j, i))) {
        check_pool_runs(L, j, j->low);
        if (!await(L, j, self, next_mark(j), MP_JOB_OPEN, deadline))
            return false;
        if (is_over(j)) return true;
    }
    *flag(j, *i) = 1;
    j->taken++;
    while (j->low < j->fed && *flag(j, j->low)) *flag(j, j->low++) = 0;
    return true;
}

/* ---- the doors ------------------------------------------------------ */

/* The job is not needed any more. */
static void give_up(job_ud *j, unsigned how) {
    if (usable(j) && bind_pool_mine(j->pool))
        mp_job_drop(pool_of(j->pool), j->job, how);
    j->job = NULL;
    j->out = j->in = NULL;
    free(j->seen);
    j->seen = NULL;
}

/* Raises what the input raised, if it did; once. */
static void raise_input_error(lua_State *L, job_ud *j, int self) {
    if (!j->failed) return;
    j->failed = false;
    lua_getiuservalue(L, self, UV_ERROR);
    lua_error(L);
}

static int raise_timeout(lua_State *L, const char *fn) {
    return bind_error(L, "TimeoutError", "%s: no result in time", fn);
}

/* Takes what is there into the stash, so that the input can go on although
   nobody reads. */
static void stash_ready(lua_State *L, job_ud *j, int self) {
    uint64_t i;
    unsigned tag;
    int n;
    if (lua_getiuservalue(L, self, UV_STASH) == LUA_TNIL) {
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, self, UV_STASH);
        lua_replace(L, -2);
    }
    int stash = lua_gettop(L);
    while (!at_end(j) &&
           (j->ordered
                ? next_in_order(L, j, self, MP_AT_ONCE, &i, &tag)
                : next_of_any(L, j, self, MP_AT_ONCE, &i, &tag)) && tag) {
        bool failed = take_result(L, j, self, i, tag, &n) == TAKEN_ERROR;
        if (n == 0) lua_pushnil(L);
        lua_rawseti(L, stash, j->stash_last + 2);
        lua_pushinteger(L, (lua_Integer)i + 1);
        lua_rawseti(L, stash, j->stash_last + 1);
        lua_pushboolean(L, failed);
        lua_rawseti(L, stash, j->stash_last + 3);
        j->stash_last += 3;
    }
    lua_settop(L, stash - 1);
}

static void take_field(lua_State *L, int stash, lua_Integer at) {
    lua_rawgeti(L, stash, at);
    lua_pushnil(L);
    lua_rawseti(L, stash, at);
}

static int take_stashed(lua_State *L, job_ud *j, int self) {
    lua_getiuservalue(L, self, UV_STASH);
    int stash = lua_gettop(L);
    take_field(L, stash, j->stash_first + 3);
    bool failed = lua_toboolean(L, -1);
    take_field(L, stash, j->stash_first + 1);
    take_field(L, stash, j->stash_first + 2);
    j->stash_first += 3;
    if (failed) lua_error(L);
    return 2;
}

/* The next result: pushes index and value, or nil at the end, or raises the
   item's error (and goes on behind it). */
static int take_next(lua_State *L, job_ud *j, int self,
                     mp_deadline deadline) {
    uint64_t i = 0;
    unsigned tag;
    int n;
    if (j->stash_first < j->stash_last) return take_stashed(L, j, self);
    if (!j->job) {
        lua_pushnil(L);
        return 1;
    }
    if (!usable(j)) bind_pool_stopped(L, j->pool);
    bool in_time =
        j->ordered ? next_in_order(L, j, self, deadline, &i, &tag)
                   : next_of_any(L, j, self, deadline, &i, &tag);
    if (!in_time) return raise_timeout(L, "next");
    if (!tag) {
        give_up(j, MP_JOB_RELEASED);
        raise_input_error(L, j, self);
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, (lua_Integer)i + 1);
    if (take_result(L, j, self, i, tag, &n) == TAKEN_ERROR) lua_error(L);
    if (n == 0) lua_pushnil(L);
    return 2;
}

/* The common case of the next result in order, without a detour: it is
   there, it is a number, and the input needs no feeding yet. */
static bool take_number(lua_State *L, job_ud *j) {
    if (j->low >= j->quick || !usable(j) || !bind_pool_mine(j->pool))
        return false;
    uint64_t at = j->low & (j->window - 1);
    uint64_t mark =
        atomic_load_explicit(&j->out[at].mark, memory_order_acquire);
    bool integer = mark == ((j->low + 1) << 8 | MESSAGE_INTEGER);
    if (!integer && mark != ((j->low + 1) << 8 | MESSAGE_FLOAT)) return false;
    if (j->source != FROM_RANGE && (j->in[at].mark & 0xff) == MP_CELL_BLOCK)
        return false;
    lua_pushinteger(L, (lua_Integer)++j->low);
    if (integer)
        lua_pushinteger(L, (lua_Integer)mp_cell_value(&j->out[at]));
    else
        message_push_scalar(L, MESSAGE_FLOAT, mp_cell_value(&j->out[at]));
    j->taken++;
    return true;
}

/* job(): for the generic for. */
static int job_call(lua_State *L) {
    job_ud *j = (job_ud *)bind_is(L, 1, &bind_job_class);
    if (j && take_number(L, j)) return 2;
    j = check_job(L, "imap");
    lua_settop(L, 1);
    return take_next(L, j, 1, MP_FOREVER);
}

static int job_next(lua_State *L) {
    job_ud *j = check_job(L, "next");
    mp_deadline deadline = bind_deadline(L, 2, "next");
    lua_settop(L, 1);
    return take_next(L, j, 1, deadline);
}

/* Takes what is there into the table of results at index 2, until the end
   or the input's error (true), or the deadline. The error of the lowest
   index is kept, too. */
static bool take_all(lua_State *L, job_ud *j, mp_deadline deadline,
                     bool collect) {
    uint64_t i = 0;
    unsigned tag;
    int n;
    while (next_in_order(L, j, 1, deadline, &i, &tag)) {
        if (!tag) return true;
        bool failed = take_result(L, j, 1, i, tag, &n) == TAKEN_ERROR;
        if (j->failed) return true;
        if (n == 0) continue;
        if (failed && !collect) {
            lua_getfield(L, 2, "error");
            bool first = lua_isnil(L, -1);
            lua_pop(L, 1);
            if (first)
                lua_setfield(L, 2, "error");
            else
                lua_pop(L, 1);
        } else {
            lua_rawseti(L, 3, (lua_Integer)i + 1);
        }
    }
    return false;
}

/* collect(job, deadline, collect errors) -> results with n, or nil and the
   error of the lowest index with .results; raises TimeoutError, and goes on
   where it was when called again. */
static int job_collect(lua_State *L) {
    job_ud *j = check_job(L, "get");
    mp_deadline deadline = bind_deadline(L, 2, "get");
    bool collect = lua_toboolean(L, 3);
    lua_settop(L, 1);
    if (!usable(j)) bind_pool_stopped(L, j->pool);
    if (lua_getiuservalue(L, 1, UV_RESULTS) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_createtable(L, 0, 2);
        int n = j->count < 1 << 26 ? (int)j->count : 0;
        lua_createtable(L, n, 1);
        lua_setfield(L, 2, "list");
        lua_pushvalue(L, 2);
        lua_setiuservalue(L, 1, UV_RESULTS);
    }
    lua_getfield(L, 2, "list");
    if (!take_all(L, j, deadline, collect)) return raise_timeout(L, "get");
    lua_pushinteger(L, (lua_Integer)j->count);
    lua_setfield(L, 3, "n");
    give_up(j, j->failed ? MP_JOB_CANCELLED : MP_JOB_RELEASED);
    raise_input_error(L, j, 1);
    if (lua_getfield(L, 2, "error") == LUA_TNIL) {
        lua_settop(L, 3);
        return 1;
    }
    lua_pushvalue(L, 3);
    lua_setfield(L, -2, "results");
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

/* take(job, deadline) -> true, values... or false, error: the one item of an
   apply. */
static int job_take(lua_State *L) {
    job_ud *j = check_job(L, "get");
    mp_deadline deadline = bind_deadline(L, 2, "get");
    uint64_t i = 0;
    unsigned tag;
    int n;
    lua_settop(L, 1);
    if (!usable(j)) bind_pool_stopped(L, j->pool);
    if (!next_in_order(L, j, 1, deadline, &i, &tag))
        return raise_timeout(L, "get");
    if (!tag) bind_error(L, "StateError", "get: a callback took the result");
    lua_pushboolean(L, 1);
    bool failed = take_result(L, j, 1, i, tag, &n) == TAKEN_ERROR;
    if (failed) {
        lua_pushboolean(L, 0);
        lua_replace(L, 2);
    }
    give_up(j, MP_JOB_RELEASED);
    return n + 1;
}

/* wait(job, deadline) -> boolean: is everything done? */
static int job_wait(lua_State *L) {
    job_ud *j = check_job(L, "wait");
    mp_deadline deadline = bind_deadline(L, 2, "wait");
    lua_settop(L, 1);
    bool in_time = true;
    while (usable(j) && !mp_job_finished(j->job) && in_time) {
        if (mp_pool_state(pool_of(j->pool)) >= MP_POOL_TERMINATE) break;
        in_time = await(L, j, 1, j->count, MP_JOB_OPEN, deadline);
    }
    lua_pushboolean(L, in_time);
    return 1;
}

/* ready(job) -> boolean: is everything done, or never going to be? */
static int job_ready(lua_State *L) {
    job_ud *j = check_job(L, "ready");
    /* Who only ever asks would wait for a dead crew without end. */
    if (usable(j) && !mp_job_finished(j->job)) {
        lua_getiuservalue(L, 1, UV_POOL);
        bind_pool_restart(L, j->pool, lua_gettop(L));
    }
    lua_pushboolean(L, !usable(j) || mp_job_finished(j->job) ||
                           mp_pool_state(pool_of(j->pool)) >=
                               MP_POOL_TERMINATE);
    return 1;
}

/* announce(job): its end wakes whoever waits in this pool. */
static int job_announce(lua_State *L) {
    job_ud *j = check_job(L, "announce");
    if (usable(j)) mp_job_announce_end(j->job);
    return 0;
}

/* stash(job) -> boolean: takes what is there, draws more input, and says
   whether there is still some to come. */
static int job_stash(lua_State *L) {
    job_ud *j = check_job(L, "join");
    lua_settop(L, 1);
    bool more = usable(j) && !j->input_over &&
                mp_pool_state(pool_of(j->pool)) < MP_POOL_TERMINATE;
    if (more) {
        stash_ready(L, j, 1);
        refill(L, j, 1);
    }
    lua_pushboolean(L, more && !j->input_over);
    return 1;
}

static int job_close(lua_State *L) {
    job_ud *j = (job_ud *)bind_is(L, 1, &bind_job_class);
    if (j && j->job)
        give_up(j, j->released ? MP_JOB_RELEASED : MP_JOB_CANCELLED);
    return 0;
}

/* ---- making one ----------------------------------------------------- */

static uint64_t power_of_two(uint64_t n) {
    uint64_t p = 1;
    while (p < n) p *= 2;
    return p;
}

static void make_function(lua_State *L, job_ud *j, int f,
                          mp_job_spec *spec) {
    mp_ref message = message_new(L, f, 1, "function");
    int r = mp_pool_function(pool_of(j->pool), message, &spec->function);
    if (r < 0) bind_oserror(L, r, "cannot send the function to the workers");
}

/* Pushes a job without its shared part: [pool] is at stack index 1. */
static job_ud *push_job(lua_State *L, pool_ud *pool) {
    job_ud *j = (job_ud *)lua_newuserdatauv(L, sizeof *j, UV_COUNT);
    *j = (job_ud){.object = {.class = &bind_job_class}, .pool = pool};
    lua_rawgetp(L, LUA_REGISTRYINDEX, &bind_job_class);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, UV_POOL);
    return j;
}

/* On failure `item` is freed: a block, or 0. */
static void add_job(lua_State *L, job_ud *j, const mp_job_spec *spec,
                    mp_ref item) {
    int r = mp_pool_add(pool_of(j->pool), spec, &j->job);
    if (r < 0) {
        mp_free(item);
        bind_oserror(L, r, "cannot make the job");
    }
    j->window = spec->window;
    j->count = spec->count;
    j->out = mp_job_out(j->job, 0);
    j->in = mp_job_in(j->job, 0);
    if (!j->ordered) {
        j->seen = calloc(1, j->window);
        if (!j->seen) bind_oserror(L, -ENOMEM, "cannot make the job");
    }
}

static pool_ud *check_running(lua_State *L, const char *fn) {
    pool_ud *pool = bind_check_pool(L, 1, fn);
    if (!mp_pool_has_crew(pool_of(pool))) bind_pool_restart(L, pool, 1);
    if (mp_pool_state(pool_of(pool)) != MP_POOL_RUN)
        bind_pool_stopped(L, pool);
    return pool;
}

/* apply(pool, f, args...) -> job with one item */
static int pool_apply(lua_State *L) {
    pool_ud *pool = check_running(L, "apply");
    int n = lua_gettop(L) - 2;
    mp_job_spec spec = {.shape = SHAPE_APPLY, .source = MP_JOB_CELLS,
                        .count = 1, .window = 1, .chunk = 1};
    job_ud *j = push_job(L, pool);
    j->source = FROM_STACK;
    j->ordered = j->released = true;
    j->ahead = 1;
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, UV_FUNCTION);
    make_function(L, j, 2, &spec);
    /* A job that is never fed would keep the pool from ending. */
    uint64_t value = 0;
    unsigned mark = encode_item(L, 3, n, "args", &value);
    add_job(L, j, &spec, mark == MP_CELL_BLOCK ? value : 0);
    put_item(j, mark, value);
    j->input_over = true;
    mp_job_feed(pool_of(pool), j->job, 1);
    return 1;
}

/* Reads what `source` (stack index 3) is into the spec and the job. */
static void describe_source(lua_State *L, job_ud *j, mp_job_spec *spec) {
    spec->source = MP_JOB_CELLS;
    spec->count = MP_JOB_OPEN;
    if (lua_isfunction(L, 3)) {
        j->source = FROM_FUNCTION;
        return;
    }
    lua_Integer n = luaL_checkinteger(L, 4);
    spec->count = (uint64_t)n;
    j->source = FROM_LIST;
    if (!lua_isinteger(L, 3)) return;
    j->source = FROM_RANGE;
    spec->source = MP_JOB_RANGE;
    spec->start = lua_tointeger(L, 3);
    spec->step = luaL_checkinteger(L, 5);
}

/* How far ahead the input may run, and the number of cells. `mode`: "all"
   (map_async: everything at once), "map", "imap", "any" (unordered). */
static void choose_window(job_ud *j, mp_job_spec *spec, const char *mode,
                          uint32_t workers) {
    bool stream = *mode == 'i' || *mode == 'a';
    uint64_t count = spec->count, chunk = spec->chunk;
    uint64_t ahead = stream ? STREAM_WINDOW : ORDERED_WINDOW;
    if (stream && chunk == 0) chunk = 128;
    if (chunk > LONGEST_WINDOW / (4 * workers))
        ahead = LONGEST_WINDOW;
    else if (chunk * 4 * workers > ahead)
        ahead = power_of_two(chunk * 4 * workers);
    if (mode[1] == 'l' || count < ahead) ahead = power_of_two(count);
    j->ahead = ahead;
    j->chunk = spec->chunk < ahead ? spec->chunk : 0;
    /* Unordered, one slow item must not stop the others soon. */
    spec->window = j->ordered || ahead >= count ? ahead : 4 * ahead;
}

/* job(pool, f, source, n, step, chunk, mode, star) -> job */
static int pool_job(lua_State *L) {
    pool_ud *pool = check_running(L, "map");
    mp_job_spec spec = {.chunk = (uint64_t)luaL_checkinteger(L, 6)};
    const char *mode = luaL_checkstring(L, 7);
    spec.shape = lua_toboolean(L, 8) ? SHAPE_STAR : SHAPE_MAP;
    job_ud *j = push_job(L, pool);
    int self = lua_gettop(L);
    j->ordered = strcmp(mode, "any") != 0;
    j->released = strcmp(mode, "all") == 0;
    spec.eager = mode[0] == 'i' || strcmp(mode, "any") == 0;
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, self, UV_FUNCTION);
    lua_pushvalue(L, 3);
    lua_setiuservalue(L, self, UV_SOURCE);
    describe_source(L, j, &spec);
    choose_window(j, &spec, mode, mp_pool_workers(pool_of(pool)));
    make_function(L, j, 2, &spec);
    add_job(L, j, &spec, 0);
    if (j->count == 0) {
        j->input_over = true;
        mp_job_finish_input(pool_of(pool), j->job, 0);
    }
    feed(L, j, self);
    if (j->failed && !spec.eager) {
        give_up(j, MP_JOB_CANCELLED);
        raise_input_error(L, j, self);
    }
    return 1;
}

static const luaL_Reg methods[] = {
    {"next", job_next},       {"collect", job_collect},
    {"take", job_take},       {"wait", job_wait},
    {"ready", job_ready},     {"announce", job_announce},
    {"close", job_close},     {"stash", job_stash},
    {NULL, NULL}};
static const luaL_Reg meta[] = {{"__call", job_call},
                                {"__gc", job_close},
                                {"__close", job_close},
                                {NULL, NULL}};

const bind_class bind_job_class = {
    .name = "imap iterator", .methods = methods, .meta = meta};

void bind_job_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"apply", pool_apply}, {"job", pool_job}, {NULL, NULL}};
    bind_class_open(L, &bind_job_class);
    luaL_setfuncs(L, functions, 0);
}
