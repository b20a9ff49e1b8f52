/* Value and RawValue: one cell. `value` is read and written by way of
   __index and __newindex.

   A Value's accesses, add and compare_exchange each take its lock for some
   instructions. So an add never comes between the reading and the writing
   of who holds the lock, which one atomic instruction on the cell could
   not promise. It costs little: lock and cell share a line, and under
   contention it is the line's travel that takes the time (measured with two
   processes: as many adds as without the lock). A RawValue has the atomic
   instruction. */
#include "bind/cells.h"
#include "bind/core.h"

static bind_object *self(lua_State *L) {
    return cells_self(L, &cells_value, &cells_raw_value);
}

static bool is_value_key(lua_State *L) {
    size_t len;
    const char *key = lua_tolstring(L, 2, &len);
    return key && len == 5 && memcmp(key, "value", 5) == 0;
}

static int value_index(lua_State *L) {
    if (!is_value_key(L)) return cells_method(L);
    const bind_object *o = self(L);
    mp_array_hold hold;
    mp_array_shm *array = cells_enter(L, o, &hold);
    uint64_t word = mp_cell_load(array->type, array->cells, 0);
    mp_array_leave(&hold);
    cells_push(L, array->type, word);
    return 1;
}

static int value_newindex(lua_State *L) {
    const bind_object *o = self(L);
    mp_array_shm *array = o->shm;
    if (!is_value_key(L)) return cells_no_field(L, o, "only 'value'");
    uint64_t word = cells_word(L, 3, array->type);
    mp_array_hold hold;
    array = cells_enter(L, o, &hold);
    mp_cell_store(array->type, array->cells, 0, word);
    mp_array_leave(&hold);
    return 0;
}

/* get() and set(v): `value` for programs that had Python's manager. */
static int value_get(lua_State *L) {
    lua_settop(L, 1);
    lua_pushliteral(L, "value");
    return value_index(L);
}

static int value_set(lua_State *L) {
    lua_settop(L, 2);
    lua_pushliteral(L, "value");
    lua_insert(L, 2);
    return value_newindex(L);
}

/* What is added: it need not be in the type's range itself. */
static uint64_t addend(lua_State *L, int idx, int type) {
    switch (mp_cell_types[type].kind) {
    case MP_CELL_INTEGER: return cells_word(L, idx, MP_CELL_q);
    case MP_CELL_FLOAT: return cells_word(L, idx, MP_CELL_d);
    default:
        return (uint64_t)bind_error(
            L, "TypeError", "add: a value of type '%c' is not a number",
            mp_cell_types[type].code);
    }
}

static int sum_out_of_range(lua_State *L, int type, uint64_t n) {
    cells_push(L, mp_cell_types[type].kind == MP_CELL_FLOAT ? MP_CELL_d
                                                            : MP_CELL_q, n);
    const char *added = luaL_tolstring(L, -1, NULL);
    return bind_error(L, "ValueError",
                      "add: the sum with %s is out of range of '%c' %s",
                      added, mp_cell_types[type].code, cells_range(L, type));
}

static int add_under_lock(mp_array_shm *array, uint64_t n, uint64_t *sum) {
    uint64_t word = mp_cell_load(array->type, array->cells, 0);
    int r = mp_cell_sum(array->type, word, n, sum);
    if (r == 0) mp_cell_store(array->type, array->cells, 0, *sum);
    return r;
}

/* add(n) -> the new value. Atomic; ValueError and no change when the sum is
   out of range. */
static int value_add(lua_State *L) {
    const bind_object *o = self(L);
    mp_array_shm *array = o->shm;
    uint64_t n = addend(L, 2, array->type), sum;
    int r, type = array->type;
    if (cells_locking(o) && array->guard != MP_GUARD_NONE) {
        mp_array_hold hold;
        array = cells_enter(L, o, &hold);
        r = add_under_lock(array, n, &sum);
        mp_array_leave(&hold);
    } else {
        r = mp_cell_add(array->type, array->cells, 0, n, &sum);
    }
    if (r < 0) return sum_out_of_range(L, type, n);
    cells_push(L, type, sum);
    return 1;
}

/* compare_exchange(old, new) -> boolean: if the value equals `old`, makes it
   `new`. Atomic. */
static int value_compare_exchange(lua_State *L) {
    const bind_object *o = self(L);
    int type = ((mp_array_shm *)o->shm)->type;
    uint64_t old = cells_word(L, 2, type);
    uint64_t new = cells_word(L, 3, type);
    mp_array_hold hold;
    mp_array_shm *array = cells_enter(L, o, &hold);
    bool same = mp_cell_exchange(type, array->cells, 0, old, new);
    mp_array_leave(&hold);
    lua_pushboolean(L, same);
    return 1;
}

/* copy() -> a new one with the same content. */
static int value_copy(lua_State *L) {
    return cells_copy(L, self(L));
}

static const luaL_Reg methods[] = {
    {"add", value_add},
    {"compare_exchange", value_compare_exchange},
    {"copy", value_copy},
    {"get", value_get},
    {"set", value_set},
    {NULL, NULL}};

static const luaL_Reg meta[] = {{"__newindex", value_newindex}, {NULL, NULL}};

static void finish(lua_State *L) {
    cells_finish(L, value_index, methods, true);
}

static void finish_raw(lua_State *L) {
    cells_finish(L, value_index, methods, false);
}

const bind_class cells_value = {.name = "Value",
                                .code = 8,
                                .type = MP_TYPE_VALUE,
                                .meta = meta,
                                .finish = finish};
const bind_class cells_raw_value = {.name = "RawValue",
                                    .code = 10,
                                    .type = MP_TYPE_VALUE,
                                    .meta = meta,
                                    .finish = finish_raw};

static int new_value(lua_State *L, const char *fn, const mp_guard *guard) {
    int type = cells_type(L, 1, fn);
    uint64_t word = lua_isnoneornil(L, 2) ? 0 : cells_word(L, 2, type);
    const bind_class *class = guard->kind == MP_GUARD_NONE ? &cells_raw_value
                                                           : &cells_value;
    mp_array_shm *array = cells_new(L, class, type, 1, guard);
    mp_cell_store(type, array->cells, 0, word);
    return 1;
}

/* Value(typecode [, init [, lock]]): RawValue when lock is false. */
static int make_value(lua_State *L) {
    bind_open_runtime(L);
    lua_settop(L, 3);
    mp_guard guard = cells_guard(L, 3, "Value");
    new_value(L, "Value", &guard);
    cells_keep_lock(L, 3);
    return 1;
}

/* RawValue(typecode [, init]) */
static int make_raw_value(lua_State *L) {
    bind_open_runtime(L);
    lua_settop(L, 2);
    return new_value(L, "RawValue", &(mp_guard){.kind = MP_GUARD_NONE});
}

void bind_value_open(lua_State *L) {
    mp_array_open();
    bind_class_open(&cells_value);
    bind_class_open(&cells_raw_value);
    lua_pushcfunction(L, make_value);
    lua_setfield(L, -2, "Value");
    lua_pushcfunction(L, make_raw_value);
    lua_setfield(L, -2, "RawValue");
}
