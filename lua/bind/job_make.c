/* How a job is made: from the arguments of an apply, or from a source. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bind/globals.h"
#include "bind/job.h"
#include "bind/message.h"
#include "mem/heap.h"

enum {
    ORDERED_WINDOW = 16384,  /* map */
    STREAM_WINDOW = 1024,    /* imap, at least */
    LONGEST_WINDOW = 1 << 20 /* for large chunks; what is ready of a larger
                                one is claimed as one */
};

static uint64_t power_of_two(uint64_t n) {
    uint64_t p = 1;
    while (p < n) p *= 2;
    return p;
}

/* The function at 2 goes to the workers of the pool at 1, with the globals
   that they lack. `items`, and the n values at 3: see globals_function. */
static void make_function(lua_State *L, job_ud *j, bool items, int n,
                          mp_job_spec *spec) {
    bool copies = bind_pool_push_snapshot(L, 1);
    mp_ref message =
        globals_function(L, copies ? lua_gettop(L) : 0, 2, items, 3, n);
    if (!pool_of(j->pool)) mp_free(message);
    mp_pool_shm *pool = bind_pool_still(L, j->pool);
    int r = j->pool->guest
                ? mp_pool_own_function(message, &spec->function)
                : mp_pool_function(pool, message, &spec->function);
    if (r < 0) bind_oserror(L, r, "cannot send the function to the workers");
    lua_pop(L, 1);
}

/* Are there others than scalars among the n values from `first` on? */
static bool any_things(lua_State *L, int first, int n) {
    for (int i = first; i < first + n; i++)
        if (lua_type(L, i) > LUA_TSTRING) return true;
    return false;
}

/* May there be among the items of the source at 3? Only a short list is
   looked at: of a long one that takes longer than what is saved. */
static bool any_thing_items(lua_State *L, const job_ud *j, uint64_t count) {
    enum { SHORT = 64 };
    if (j->source == FROM_RANGE) return false;
    if (j->source != FROM_LIST || count > SHORT || !lua_istable(L, 3))
        return true;
    bool any = luaL_getmetafield(L, 3, "__index") != LUA_TNIL;
    if (any) lua_pop(L, 1);
    for (lua_Integer i = 1; !any && i <= (lua_Integer)count; i++) {
        any = lua_rawgeti(L, 3, i) > LUA_TSTRING;
        lua_pop(L, 1);
    }
    return any;
}

/* 1 if the source at 3 is a list that begins with no scalar; else 0. */
static int things_list(lua_State *L) {
    bool is = lua_istable(L, 3);
    if (is) {
        is = lua_rawgeti(L, 3, 1) > LUA_TSTRING;
        lua_pop(L, 1);
    }
    return is;
}

/* Pushes a job without its shared part: [pool] is at stack index 1. */
static job_ud *push_job(lua_State *L, pool_ud *pool) {
    job_ud *j = (job_ud *)lua_newuserdatauv(L, sizeof *j, UV_COUNT);
    *j = (job_ud){.object = {.class = &bind_job_class}, .pool = pool};
    bind_class_push(L, &bind_job_class);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, UV_POOL);
    return j;
}

/* On failure `item` is freed: a block, or 0. */
static void add_job(lua_State *L, job_ud *j, const mp_job_spec *spec,
                    mp_ref item) {
    if (!pool_of(j->pool)) mp_free(item);
    int r = mp_pool_add(bind_pool_still(L, j->pool), spec, &j->job);
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
    if (pool->guest) bind_worker_check(L);
    if (!mp_pool_has_crew(pool_of(pool))) bind_pool_restart(L, pool, 1);
    if (!pool_of(pool) || bind_pool_state(pool) != MP_POOL_RUN)
        bind_pool_stopped(L, pool);
    return pool;
}

/* The function at 2, the arguments behind it; their job's options at `with`,
   0: none. */
static int apply(lua_State *L, int with) {
    pool_ud *pool = check_running(L, "apply");
    mp_job_spec spec = {.shape = SHAPE_APPLY,
                        .source = MP_JOB_CELLS,
                        .count = 1,
                        .window = 1,
                        .chunk = 1};
    int n = (with ? with - 1 : lua_gettop(L)) - 2;
    job_ud *j = push_job(L, pool);
    job_read_controls(L, j, with ? with : n + 3, &spec.with);
    j->source = FROM_STACK;
    j->ordered = j->released = true;
    j->ahead = 1;
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, UV_FUNCTION);
    make_function(L, j, any_things(L, 3, n), n, &spec);
    /* A job that is never fed would keep the pool from ending. */
    uint64_t value = 0;
    unsigned mark = job_encode_item(L, 3, n, "args", &value);
    add_job(L, j, &spec, mark == MP_CELL_BLOCK ? value : 0);
    job_put_item(j, mark, value);
    j->input_over = true;
    mp_job_feed(pool_of(pool), j->job, 1);
    if (spec.with.timeout_ns) job_hurry(j);
    return 1;
}

/* apply(pool, f, args...) -> job with one item */
static int pool_apply(lua_State *L) { return apply(L, 0); }

/* apply_with(pool, f, options, args...) -> the same */
static int pool_apply_with(lua_State *L) {
    lua_pushvalue(L, 3);
    lua_remove(L, 3);
    return apply(L, lua_gettop(L));
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
   (map_async: everything at once), "map", "imap", "any" (unordered). `most`:
   how far ahead at most, 0: as it suits. */
static void choose_window(job_ud *j, mp_job_spec *spec, const char *mode,
                          uint64_t most, uint32_t workers) {
    bool stream = *mode == 'i' || *mode == 'a';
    uint64_t count = spec->count, chunk = spec->chunk;
    uint64_t ahead = stream ? STREAM_WINDOW : ORDERED_WINDOW;
    if (stream && chunk == 0) chunk = 128;
    if (chunk > LONGEST_WINDOW / (4 * workers))
        ahead = LONGEST_WINDOW;
    else if (chunk * 4 * workers > ahead)
        ahead = power_of_two(chunk * 4 * workers);
    if (mode[1] == 'l' || count < ahead) ahead = power_of_two(count);
    if (most && most < ahead) ahead = most;
    j->ahead = ahead;
    j->chunk = spec->chunk < ahead ? spec->chunk : 0;
    /* Unordered, one slow item must not stop the others soon. */
    spec->window =
        power_of_two(j->ordered || ahead >= count ? ahead : 4 * ahead);
}

/* job(pool, f, source, n, step, chunk, mode, star [, most ahead [, options]])
   -> job */
static int pool_job(lua_State *L) {
    pool_ud *pool = check_running(L, "map");
    mp_job_spec spec = {.chunk = (uint64_t)luaL_checkinteger(L, 6)};
    const char *mode = luaL_checkstring(L, 7);
    spec.shape = lua_toboolean(L, 8) ? SHAPE_STAR : SHAPE_MAP;
    uint64_t most = (uint64_t)luaL_optinteger(L, 9, 0);
    lua_settop(L, 10);
    job_ud *j = push_job(L, pool);
    int self = lua_gettop(L);
    job_read_controls(L, j, 10, &spec.with);
    j->ordered = strcmp(mode, "any") != 0;
    j->released = strcmp(mode, "all") == 0;
    spec.eager = mode[0] == 'i' || strcmp(mode, "any") == 0;
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, self, UV_FUNCTION);
    lua_pushvalue(L, 3);
    lua_setiuservalue(L, self, UV_SOURCE);
    describe_source(L, j, &spec);
    choose_window(j, &spec, mode, most,
                  mp_pool_workers(bind_pool_still(L, pool)));
    make_function(L, j, any_thing_items(L, j, spec.count), things_list(L),
                  &spec);
    add_job(L, j, &spec, 0);
    if (j->count == 0) {
        j->input_over = true;
        mp_job_finish_input(pool_of(pool), j->job, 0);
    }
    if (spec.with.timeout_ns) job_hurry(j);
    job_feed(L, j, self);
    if (j->failed && !spec.eager) {
        job_give_up(j, MP_JOB_CANCELLED);
        job_raise_input_error(L, j, self);
    }
    return 1;
}

void job_make_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"apply", pool_apply},
        {"apply_with", pool_apply_with},
        {"job", pool_job},
        {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
