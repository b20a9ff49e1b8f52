/* Array and RawArray: `a[i]` from 1 by way of __index and __newindex, and
   what is done to many cells at once. An Array's methods hold its lock from
   the first cell to the last, so they see and leave the whole of it. */
#include <errno.h>
#include <limits.h>

#include "bind/cells.h"
#include "bind/core.h"

static bind_object *self(lua_State *L) {
    return cells_self(L, &cells_array, &cells_raw_array);
}

/* ---- ranges of cells ------------------------------------------------ */

/* Cells first to first + n - 1, from 0. */
typedef struct range {
    uint64_t first, n;
} range;

static lua_Integer bound(lua_State *L, int arg, const char *fn,
                         const char *name, uint64_t otherwise) {
    if (lua_isnoneornil(L, arg)) return (lua_Integer)otherwise;
    return bind_integer(L, arg, fn, name, LUA_MININTEGER, LUA_MAXINTEGER);
}

/* i to j as given at `arg` and the next; all by default, none if j = i - 1. */
static range bounds(lua_State *L, int arg, const mp_array_shm *array,
                    const char *fn) {
    lua_Integer length = (lua_Integer)array->length;
    lua_Integer i = bound(L, arg, fn, "i", 1);
    lua_Integer j = bound(L, arg + 1, fn, "j", array->length);
    if (i < 1 || j > length || j < i - 1)
        bind_error(L, "IndexError", "%s: invalid range %I to %I (1 to %I)",
                   fn, i, j, length);
    return (range){(uint64_t)i - 1, (uint64_t)(j - i + 1)};
}

/* Copies cells into `buffer`, at one moment. */
static void snapshot(lua_State *L, const bind_object *o, range r,
                     void *buffer) {
    mp_array_hold hold;
    mp_array_read(cells_enter(L, o, &hold), r.first, r.n, buffer);
    mp_array_leave(&hold);
}

/* And the other way. */
static void replace(lua_State *L, const bind_object *o, range r,
                    const void *buffer) {
    mp_array_hold hold;
    mp_array_write(cells_enter(L, o, &hold), r.first, r.n, buffer);
    mp_array_leave(&hold);
}

/* ---- text: arrays of 'c' -------------------------------------------- */

/* The array if it is one of bytes and the key at 2 is `value` or `raw`. */
static bind_object *text_field(lua_State *L, bool *raw) {
    const char *key = lua_tostring(L, 2);
    if (!key || (strcmp(key, "value") != 0 && strcmp(key, "raw") != 0))
        return NULL;
    bind_object *o = self(L);
    *raw = *key == 'r';
    return ((mp_array_shm *)o->shm)->type == MP_CELL_c ? o : NULL;
}

/* .raw is all bytes, .value those before the first NUL. */
static int text_get(lua_State *L, const bind_object *o, bool raw) {
    uint64_t n = ((mp_array_shm *)o->shm)->length;
    cells_room room;
    char *bytes = cells_buffer(L, MP_CELL_c, n, &room);
    snapshot(L, o, (range){0, n}, bytes);
    lua_pushlstring(L, bytes, raw ? n : strnlen(bytes, n));
    return 1;
}

/* .value ends with a NUL where there is room for one. */
static int text_set(lua_State *L, const bind_object *o, bool raw) {
    const mp_array_shm *array = o->shm;
    size_t n;
    if (lua_type(L, 3) != LUA_TSTRING)
        return bind_error(L, "TypeError", "a string is required, got %s",
                          luaL_typename(L, 3));
    const char *bytes = lua_tolstring(L, 3, &n);
    if (n > array->length)
        return bind_error(L, "ValueError",
                          "byte string too long (%I bytes for %I)",
                          (lua_Integer)n, (lua_Integer)array->length);
    /* A Lua string has a NUL behind its end. */
    replace(L, o, (range){0, raw || n == array->length ? n : n + 1}, bytes);
    return 0;
}

static int field_get(lua_State *L) {
    bool raw;
    const bind_object *o = text_field(L, &raw);
    return o ? text_get(L, o, raw) : cells_method(L);
}

static int field_set(lua_State *L) {
    bool raw;
    const bind_object *o = text_field(L, &raw);
    return o ? text_set(L, o, raw)
             : cells_no_field(L, self(L), "only cells, by number");
}

/* ---- one cell ------------------------------------------------------- */

static int refuse_index(lua_State *L, const mp_array_shm *array) {
    const char *key = luaL_tolstring(L, 2, NULL);
    if (array->length == 0)
        return bind_error(L, "IndexError",
                          "invalid index %s (the array is empty)", key);
    return bind_error(L, "IndexError", "invalid index %s (1 to %I)", key,
                      (lua_Integer)array->length);
}

/* The number at 2 as a place from 0; false when there is no such cell. */
static inline bool place(lua_State *L, const mp_array_shm *array,
                         uint64_t *i) {
    int is_integer;
    *i = (uint64_t)lua_tointegerx(L, 2, &is_integer) - 1;
    return is_integer && *i < array->length;
}

/* ipairs, and whatever else walks a list in C, reads one cell past the end
   to find it: for them, and there only, that is nil. */
static int missing(lua_State *L, const mp_array_shm *array, uint64_t i) {
    lua_Debug caller;
    if (i == array->length && lua_isinteger(L, 2) &&
        lua_getstack(L, 1, &caller) && lua_getinfo(L, "S", &caller) &&
        *caller.what == 'C') {
        lua_pushnil(L);
        return 1;
    }
    return refuse_index(L, array);
}

static int array_index(lua_State *L) {
    if (lua_type(L, 2) != LUA_TNUMBER) return field_get(L);
    const bind_object *o = self(L);
    mp_array_shm *array = o->shm;
    uint64_t i;
    if (!place(L, array, &i)) return missing(L, array, i);
    mp_array_hold hold;
    array = cells_enter(L, o, &hold);
    uint64_t word = mp_cell_load(array->type, array->cells, i);
    mp_array_leave(&hold);
    cells_push(L, array->type, word);
    return 1;
}

static int array_newindex(lua_State *L) {
    if (lua_type(L, 2) != LUA_TNUMBER) return field_set(L);
    const bind_object *o = self(L);
    mp_array_shm *array = o->shm;
    uint64_t i;
    if (!place(L, array, &i)) return refuse_index(L, array);
    uint64_t word = cells_word(L, 3, array->type);
    mp_array_hold hold;
    array = cells_enter(L, o, &hold);
    mp_cell_store(array->type, array->cells, i, word);
    mp_array_leave(&hold);
    return 0;
}

static int array_len(lua_State *L) {
    const mp_array_shm *array = self(L)->shm;
    lua_pushinteger(L, (lua_Integer)array->length);
    return 1;
}

/* The step of pairs: (array, i) -> i + 1, its cell. */
static int array_next(lua_State *L) {
    const mp_array_shm *array = self(L)->shm;
    lua_Integer i = luaL_checkinteger(L, 2);
    if (i < 0 || (uint64_t)i >= array->length) return 0;
    lua_pushinteger(L, i + 1);
    lua_pushvalue(L, -1);
    lua_gettable(L, 1);
    return 2;
}

static int array_pairs(lua_State *L) {
    lua_pushcfunction(L, array_next);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    return 3;
}

/* ---- many cells ----------------------------------------------------- */

/* slice([i [, j]]) -> list of the cells i to j. */
static int array_slice(lua_State *L) {
    const bind_object *o = self(L);
    int type = ((mp_array_shm *)o->shm)->type;
    range r = bounds(L, 2, o->shm, "slice");
    cells_room room;
    void *buffer = cells_buffer(L, type, r.n, &room);
    snapshot(L, o, r, buffer);
    lua_createtable(L, r.n > INT_MAX ? INT_MAX : (int)r.n, 0);
    for (uint64_t i = 0; i < r.n; i++) {
        cells_push(L, type, mp_cell_load(type, buffer, i));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* fill(x [, i [, j]]): makes the cells i to j x. */
static int array_fill(lua_State *L) {
    const bind_object *o = self(L);
    mp_array_shm *array = o->shm;
    uint64_t word = cells_word(L, 2, array->type);
    range r = bounds(L, 3, array, "fill");
    mp_array_hold hold;
    array = cells_enter(L, o, &hold);
    mp_array_fill(array, r.first, r.n, word);
    mp_array_leave(&hold);
    return 0;
}

/* set(i, list): makes the list the content of the cells from i on: all of
   it, or nothing when one item is wrong. */
static int array_set(lua_State *L) {
    const bind_object *o = self(L);
    const mp_array_shm *array = o->shm;
    lua_Integer length = (lua_Integer)array->length;
    lua_Integer i = bind_integer(L, 2, "set", "i", LUA_MININTEGER,
                                 LUA_MAXINTEGER);
    uint64_t n;
    const void *buffer =
        cells_read(L, 3, array->type, "set: argument 'list': ", &n);
    if (i < 1 || i > length + 1 || n > (uint64_t)(length - i + 1))
        return bind_error(L, "IndexError",
                          "set: %I items do not fit at %I (1 to %I)",
                          (lua_Integer)n, i, length);
    replace(L, o, (range){(uint64_t)i - 1, n}, buffer);
    return 0;
}

/* copy() -> a new array of the same type and content. */
static int array_copy(lua_State *L) {
    return cells_copy(L, self(L));
}

/* pointer() -> light userdata: the first cell's address in this process,
   valid as long as the array is; C code there takes no lock. */
static int array_pointer(lua_State *L) {
    mp_array_shm *array = self(L)->shm;
    lua_pushlightuserdata(L, array->cells);
    return 1;
}

/* ---- making them ---------------------------------------------------- */

static const luaL_Reg methods[] = {
    {"slice", array_slice}, {"fill", array_fill},
    {"set", array_set},     {"copy", array_copy},
    {"pointer", array_pointer}, {NULL, NULL}};

static const luaL_Reg meta[] = {{"__newindex", array_newindex},
                                {"__len", array_len},
                                {"__pairs", array_pairs},
                                {NULL, NULL}};

static void finish(lua_State *L) {
    cells_finish(L, array_index, methods, true);
}

static void finish_raw(lua_State *L) {
    cells_finish(L, array_index, methods, false);
}

const bind_class cells_array = {.name = "Array",
                                .code = 9,
                                .type = MP_TYPE_ARRAY,
                                .meta = meta,
                                .finish = finish};
const bind_class cells_raw_array = {.name = "RawArray",
                                    .code = 11,
                                    .type = MP_TYPE_ARRAY,
                                    .meta = meta,
                                    .finish = finish_raw};

/* The length at 2. */
static uint64_t length_given(lua_State *L) {
    int is_integer;
    lua_Integer n = lua_tointegerx(L, 2, &is_integer);
    if (!is_integer) bind_error(L, "TypeError", "an integer is required");
    if (n < 0)
        bind_error(L, "ValueError", "Array length must be >= 0, not %I", n);
    return (uint64_t)n;
}

static int new_array(lua_State *L, const char *what, const mp_guard *guard) {
    int type = cells_type(L, 1, guard->kind == MP_GUARD_NONE ? "RawArray"
                                                             : "Array");
    const bind_class *class = guard->kind == MP_GUARD_NONE ? &cells_raw_array
                                                           : &cells_array;
    if (lua_type(L, 2) == LUA_TNUMBER) {
        cells_new(L, class, type, length_given(L), guard);
        return 1;
    }
    uint64_t n;
    const void *buffer = cells_read(L, 2, type, what, &n);
    mp_array_write(cells_new(L, class, type, n, guard), 0, n, buffer);
    return 1;
}

/* Array(typecode, size_or_list [, lock]): RawArray when lock is false. */
static int make_array(lua_State *L) {
    bind_open_runtime(L);
    lua_settop(L, 3);
    mp_guard guard = cells_guard(L, 3, "Array");
    new_array(L, "Array: argument 'size_or_list': size, ", &guard);
    cells_keep_lock(L, 3);
    return 1;
}

/* RawArray(typecode, size_or_list) */
static int make_raw_array(lua_State *L) {
    bind_open_runtime(L);
    lua_settop(L, 2);
    return new_array(L, "RawArray: argument 'size_or_list': size, ",
                     &(mp_guard){.kind = MP_GUARD_NONE});
}

void bind_array_open(lua_State *L) {
    mp_array_open();
    bind_class_open(&cells_array);
    bind_class_open(&cells_raw_array);
    lua_pushcfunction(L, make_array);
    lua_setfield(L, -2, "Array");
    lua_pushcfunction(L, make_raw_array);
    lua_setfield(L, -2, "RawArray");
}
