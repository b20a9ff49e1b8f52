/* The doors of a job: next, collect, take, wait, and its end. */
#include <stdlib.h>

#include "bind/job.h"
#include "bind/message.h"

/* Until who was asked to stop is killed. */
enum { ASKED_NS = 500000000 };

job_ud *job_check(lua_State *L, const char *fn) {
    job_ud *j = (job_ud *)bind_is(L, 1, &bind_job_class);
    if (!j) bind_argerror(L, fn, 1, "self", "job");
    if (!mp_me) bind_open_runtime(L);
    if (!bind_pool_mine(j->pool))
        bind_error(L, "StateError",
                   "%s: the Pool belongs to the process that made it", fn);
    return j;
}

/* The same, whose results are asked for: by its own input they cannot be. */
static job_ud *check_fed(lua_State *L, const char *fn) {
    job_ud *j = job_check(L, fn);
    if (j->feeding)
        bind_error(L, "StateError", "%s: called by the input of the same call",
                   fn);
    return j;
}

/* The job is not needed any more. */
void job_give_up(job_ud *j, unsigned how) {
    bool mine = job_usable(j) && bind_pool_mine(j->pool);
    if (mine && how == MP_JOB_CANCELLED)
        job_stop(j, MP_JOB_ASKED, ASKED_NS);
    else if (mine)
        mp_job_drop(pool_of(j->pool), j->job, how);
    j->job = NULL;
    j->out = j->in = NULL;
    free(j->seen);
    j->seen = NULL;
}

/* Raises what the input raised, if it did; once. */
void job_raise_input_error(lua_State *L, job_ud *j, int self) {
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
    while (!job_at_end(j) &&
           (j->ordered ? job_next_in_order(L, j, self, MP_AT_ONCE, &i, &tag)
                       : job_next_of_any(L, j, self, MP_AT_ONCE, &i, &tag)) &&
           tag) {
        bool failed = job_take_result(L, j, self, i, tag, &n) == TAKEN_ERROR;
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
    if (failed) return bind_raise_arrived(L);
    return 2;
}

/* The next result: pushes index and value, or nil at the end, or raises the
   item's error (and goes on behind it). */
static int take_next(lua_State *L, job_ud *j, int self, mp_deadline deadline) {
    uint64_t i = 0;
    unsigned tag;
    int n;
    if (j->stash_first < j->stash_last) return take_stashed(L, j, self);
    if (!j->job) {
        lua_pushnil(L);
        return 1;
    }
    if (!job_usable(j)) bind_pool_stopped(L, j->pool);
    bool in_time = j->ordered
                       ? job_next_in_order(L, j, self, deadline, &i, &tag)
                       : job_next_of_any(L, j, self, deadline, &i, &tag);
    if (!in_time) return raise_timeout(L, "next");
    if (!tag) {
        job_tick_end(L, j, self);
        job_give_up(j, MP_JOB_RELEASED);
        job_raise_input_error(L, j, self);
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, (lua_Integer)i + 1);
    if (job_take_result(L, j, self, i, tag, &n) == TAKEN_ERROR)
        return bind_raise_arrived(L);
    if (n == 0) lua_pushnil(L);
    return 2;
}

/* The common case of the next result in order, without a detour: it is
   there, it is a number, and the input needs no feeding yet. */
static bool take_number(lua_State *L, job_ud *j) {
    if (j->low >= j->quick || j->feeding || !job_usable(j) ||
        !bind_pool_mine(j->pool))
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
    j = check_fed(L, "imap");
    lua_settop(L, 1);
    return take_next(L, j, 1, MP_FOREVER);
}

static int job_next(lua_State *L) {
    job_ud *j = check_fed(L, "next");
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
    while (job_next_in_order(L, j, 1, deadline, &i, &tag)) {
        if (!tag) return true;
        bool failed = job_take_result(L, j, 1, i, tag, &n) == TAKEN_ERROR;
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

/* The job was ended by an item's error: takes what else is there, as above;
   that error is the one. */
static void take_rest(lua_State *L, job_ud *j) {
    uint64_t stop = mp_job_stopped(j->job) - 1;
    int n;
    for (uint64_t i = j->low; job_usable(j) && i < j->fed; i++) {
        unsigned tag = mp_job_result(j->job, i);
        if (!tag) continue;
        bool failed = job_take_result(L, j, 1, i, tag, &n) == TAKEN_ERROR;
        if (n == 0) continue;
        if (!failed)
            lua_rawseti(L, 3, (lua_Integer)i + 1);
        else if (i == stop)
            lua_setfield(L, 2, "error");
        else
            lua_pop(L, 1);
    }
    if (j->count == MP_JOB_OPEN) j->count = j->fed;
}

/* Pushes true and the results with n, or false and the error of the lowest
   index with .results; returns 2. Raises TimeoutError, and goes on where it
   was when called again. The job stands at index 1, alone. */
static int collect(lua_State *L, job_ud *j, mp_deadline deadline,
                   bool errors_too) {
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
    if (!take_all(L, j, deadline, errors_too))
        return raise_timeout(L, "get");
    if (j->stopped) take_rest(L, j);
    lua_pushinteger(L, (lua_Integer)j->count);
    lua_setfield(L, 3, "n");
    job_tick_end(L, j, 1);
    job_give_up(j, j->failed || j->stopped ? MP_JOB_CANCELLED
                                           : MP_JOB_RELEASED);
    job_raise_input_error(L, j, 1);
    bool ok = lua_getfield(L, 2, "error") == LUA_TNIL;
    lua_pushvalue(L, 3);
    if (ok)
        lua_replace(L, 4);
    else
        lua_setfield(L, 4, "results");
    lua_pushboolean(L, ok);
    lua_insert(L, 4);
    return 2;
}

/* Pushes true and the values of the one item of an apply, or false and its
   error, and returns their number; 0 when it was taken while we waited. */
static int take_one(lua_State *L, job_ud *j, mp_deadline deadline) {
    uint64_t i = 0;
    unsigned tag;
    int n;
    if (!job_next_in_order(L, j, 1, deadline, &i, &tag))
        return raise_timeout(L, "get");
    if (!tag) return 0;
    lua_pushboolean(L, 1);
    bool failed = job_take_result(L, j, 1, i, tag, &n) == TAKEN_ERROR;
    if (failed) {
        lua_pushboolean(L, 0);
        lua_replace(L, -n - 2);
    }
    job_give_up(j, MP_JOB_RELEASED);
    return n + 1;
}

/* take(job) -> true, values... or false, error: of an apply's one item. */
static int job_take(lua_State *L) {
    job_ud *j = check_fed(L, "apply");
    lua_settop(L, 1);
    if (!job_usable(j)) bind_pool_stopped(L, j->pool);
    int n = take_one(L, j, MP_FOREVER);
    return n ? n : bind_error(L, "StateError", "apply: no result");
}

/* outcome(job, deadline, single, collect errors) -> a list with n of true and
   the values (the list of all, of a map) or of false and the error; each time
   the same one. What was taken cannot be taken again, so the list is made
   here, where an interrupt cannot end us half-way. */
static int job_outcome(lua_State *L) {
    job_ud *j = check_fed(L, "get");
    mp_deadline deadline = bind_deadline(L, 2, "get");
    bool single = lua_toboolean(L, 3), errors_too = lua_toboolean(L, 4);
    lua_settop(L, 1);
    if (lua_getiuservalue(L, 1, UV_OUTCOME) == LUA_TTABLE) return 1;
    lua_settop(L, 1);
    if (!job_usable(j)) bind_pool_stopped(L, j->pool);
    int n = single ? take_one(L, j, deadline)
                   : collect(L, j, deadline, errors_too);
    /* A callback that ran while we waited may have asked for it, too. */
    if (lua_getiuservalue(L, 1, UV_OUTCOME) == LUA_TTABLE) return 1;
    lua_pop(L, 1);
    if (n == 0) return bind_error(L, "StateError", "get: no result");
    lua_createtable(L, n, 1);
    lua_insert(L, -n - 1);
    int list = lua_gettop(L) - n;
    lua_pushinteger(L, n);
    lua_setfield(L, list, "n");
    for (int at = n; at > 0; at--) lua_rawseti(L, list, at);
    lua_pushvalue(L, list);
    lua_setiuservalue(L, 1, UV_OUTCOME);
    return 1;
}

/* wait(job, deadline) -> boolean: is everything done? */
static int job_wait(lua_State *L) {
    job_ud *j = check_fed(L, "wait");
    mp_deadline deadline = bind_deadline(L, 2, "wait");
    lua_settop(L, 1);
    bool in_time = true;
    while (job_usable(j) && !mp_job_finished(j->job) && in_time) {
        if (mp_pool_state(pool_of(j->pool)) >= MP_POOL_TERMINATE) break;
        in_time = job_await(L, j, 1, j->count, MP_JOB_OPEN, deadline);
    }
    lua_pushboolean(L, in_time);
    return 1;
}

/* ready(job) -> boolean: is everything done, or never going to be? */
static int job_ready(lua_State *L) {
    job_ud *j = job_check(L, "ready");
    /* Who only ever asks would wait for a dead crew without end. */
    if (job_usable(j) && !mp_job_finished(j->job)) {
        lua_getiuservalue(L, 1, UV_POOL);
        bind_pool_restart(L, j->pool, lua_gettop(L));
    }
    lua_pushboolean(L, job_settled(j));
    return 1;
}

/* announce(job): its end wakes whoever waits in this pool. */
static int job_announce(lua_State *L) {
    job_ud *j = job_check(L, "announce");
    if (job_usable(j)) mp_job_announce_end(j->job);
    return 0;
}

/* stash(job) -> boolean: takes what is there, draws more input, and says
   whether there is still some to come. */
static int job_stash(lua_State *L) {
    job_ud *j = check_fed(L, "join");
    lua_settop(L, 1);
    bool more = job_usable(j) && !j->input_over &&
                mp_pool_state(pool_of(j->pool)) < MP_POOL_TERMINATE;
    if (more) {
        stash_ready(L, j, 1);
        job_refill(L, j, 1);
    }
    lua_pushboolean(L, more && !j->input_over);
    return 1;
}

static int job_close(lua_State *L) {
    job_ud *j = (job_ud *)bind_is(L, 1, &bind_job_class);
    if (!j) return 0;
    if (j->tick_ns && bind_pool_mine(j->pool)) job_tick_end(L, j, 1);
    if (j->job)
        job_give_up(j, j->released ? MP_JOB_RELEASED : MP_JOB_CANCELLED);
    return 0;
}

static const luaL_Reg methods[] = {
    {"next", job_next},   {"outcome", job_outcome}, {"take", job_take},
    {"wait", job_wait},   {"ready", job_ready},     {"announce", job_announce},
    {"close", job_close}, {"stash", job_stash},
    {"progress", job_progress},                     {"cancel", job_cancel},
    {NULL, NULL}};
static const luaL_Reg meta[] = {{"__call", job_call},
                                {"__gc", job_close},
                                {"__close", job_close},
                                {NULL, NULL}};

const bind_class bind_job_class = {
    .name = "imap iterator", .methods = methods, .meta = meta};

void bind_job_open(lua_State *L) {
    bind_class_open(&bind_job_class);
    job_make_open(L);
    job_any_open(L);
}
