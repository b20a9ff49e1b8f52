/* Lua values as words of cells and back. What does not fit is an error, in
   Python's words where it has some. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "bind/cells.h"

/* ---- numbers -------------------------------------------------------- */

const char *cells_range(lua_State *L, int type) {
    const mp_cell_type *t = &mp_cell_types[type];
    if (t->kind == MP_CELL_FLOAT)
        return lua_pushfstring(L, "(%f to %f)", (lua_Number)-FLT_MAX,
                               (lua_Number)FLT_MAX);
    return lua_pushfstring(L, "(%I to %I)", t->min, t->max);
}

/* Raises for a number at `idx` that the type does not hold. */
static uint64_t out_of_range(lua_State *L, int idx, int type) {
    int is_integer;
    lua_Integer n = lua_tointegerx(L, idx, &is_integer);
    const char *got = is_integer ? lua_pushfstring(L, "%I", n)
                                 : luaL_tolstring(L, idx, NULL);
    return (uint64_t)bind_error(
        L, "ValueError", "%s is out of range of '%c' %s", got,
        mp_cell_types[type].code, cells_range(L, type));
}

/* Integral floats count, as everywhere in Lua; those beyond 64 bits are out
   of any range. */
static uint64_t integer_word(lua_State *L, int idx, int type) {
    const mp_cell_type *t = &mp_cell_types[type];
    int is_integer;
    lua_Integer n = lua_tointegerx(L, idx, &is_integer);
    if (lua_type(L, idx) != LUA_TNUMBER)
        bind_error(L, "TypeError", "an integer is required");
    if (!is_integer) {
        lua_Number x = lua_tonumber(L, idx);
        if (x == floor(x) && isfinite(x)) return out_of_range(L, idx, type);
        bind_error(L, "TypeError", "an integer is required");
    }
    if (n < t->min || n > t->max) return out_of_range(L, idx, type);
    return (uint64_t)n;
}

static uint64_t float_word(lua_State *L, int idx, int type) {
    if (lua_type(L, idx) != LUA_TNUMBER)
        bind_error(L, "TypeError", "a float is required");
    uint64_t word = mp_cell_of_double(lua_tonumber(L, idx));
    if (type == MP_CELL_f && !mp_cell_fits(type, word))
        return out_of_range(L, idx, type);
    return word;
}

/* ---- characters ----------------------------------------------------- */

/* The code point at `s` and how many bytes it takes; 0: this is not UTF-8.
   Strict: no overlong form, no surrogate, nothing above U+10FFFF. */
static size_t decode(const unsigned char *s, size_t len, uint64_t *point) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = *s < 0x80 ? 1 : *s < 0xc0 ? 0 : *s < 0xe0 ? 2
             : *s < 0xf0 ? 3 : *s < 0xf8 ? 4 : 0;
    if (n == 0 || n > len) return 0;
    uint32_t c = n == 1 ? *s : *s & (0x7fU >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3fU);
    }
    *point = c;
    return c < least[n] || c > 0x10ffff || c >> 11 == 0x1b ? 0 : n;
}

static uint64_t char_word(lua_State *L, int idx, int type) {
    bool bytes = type == MP_CELL_c;
    size_t len = 0;
    uint64_t word = 0;
    if (lua_type(L, idx) == LUA_TSTRING) {
        const char *s = lua_tolstring(L, idx, &len);
        word = (unsigned char)*s;
        if (bytes ? len == 1
                  : len > 0 && decode((const void *)s, len, &word) == len)
            return word;
    }
    return (uint64_t)bind_error(L, "TypeError",
                                bytes ? "a string of one byte is required"
                                      : "a string of one UTF-8 character is "
                                        "required");
}

uint64_t cells_word(lua_State *L, int idx, int type) {
    switch (mp_cell_types[type].kind) {
    case MP_CELL_INTEGER: return integer_word(L, idx, type);
    case MP_CELL_FLOAT: return float_word(L, idx, type);
    default: return char_word(L, idx, type);
    }
}

void cells_push(lua_State *L, int type, uint64_t word) {
    char byte = (char)word;
    switch (mp_cell_types[type].kind) {
    case MP_CELL_INTEGER: lua_pushinteger(L, (lua_Integer)word); break;
    case MP_CELL_FLOAT: lua_pushnumber(L, mp_cell_double(word)); break;
    case MP_CELL_BYTE: lua_pushlstring(L, &byte, 1); break;
    /* Whatever a C program left there must not upset Lua's encoder. */
    default: lua_pushfstring(L, "%U", (long)(word & 0x7fffffff));
    }
}

/* ---- many ----------------------------------------------------------- */

void *cells_buffer(lua_State *L, int type, uint64_t n, cells_room *room) {
    size_t size = mp_cell_types[type].size;
    if (room && n <= sizeof *room / size) {
        lua_pushnil(L);
        return room;
    }
    if (n > mp_me->super->reserved / size) {
        const char *what = lua_pushfstring(L, "%I cells '%c'", (lua_Integer)n,
                                           mp_cell_types[type].code);
        bind_oserror(L, -ENOMEM, what);
    }
    return lua_newuserdatauv(L, n * size, 0);
}

static const void *read_string(lua_State *L, int idx, int type, uint64_t *n) {
    size_t len;
    const unsigned char *s = (const void *)lua_tolstring(L, idx, &len);
    /* At least one byte a character. */
    void *buffer = cells_buffer(L, type, len, NULL);
    *n = 0;
    for (size_t i = 0, step = 1; i < len; i += step) {
        uint64_t word = s[i];
        if (type == MP_CELL_u) step = decode(s + i, len - i, &word);
        if (step == 0)
            bind_error(L, "TypeError",
                       "a string of UTF-8 characters is required");
        mp_cell_store(type, buffer, (*n)++, word);
    }
    return buffer;
}

/* A snapshot, taken under its lock if it has one, then changed to our type
   where that differs. */
static const void *read_array(lua_State *L, const bind_object *o, int type,
                              uint64_t *n) {
    int its = ((mp_array_shm *)o->shm)->type;
    *n = ((mp_array_shm *)o->shm)->length;
    void *buffer = cells_buffer(L, its, *n, NULL);
    mp_array_hold hold;
    mp_array_read(cells_enter(L, o, &hold), 0, *n, buffer);
    mp_array_leave(&hold);
    if (its == type) return buffer;
    void *ours = cells_buffer(L, type, *n, NULL);
    for (uint64_t i = 0; i < *n; i++) {
        cells_push(L, its, mp_cell_load(its, buffer, i));
        mp_cell_store(type, ours, i, cells_word(L, -1, type));
        lua_pop(L, 1);
    }
    lua_remove(L, -2);
    return ours;
}

static const void *read_list(lua_State *L, int idx, int type,
                             const char *what, uint64_t *n) {
    const char *fn = lua_pushlstring(L, what, strcspn(what, ":"));
    lua_Integer length = bind_list_length(L, idx, fn);
    lua_pop(L, 1);
    *n = length < 0 ? 0 : (uint64_t)length;
    void *buffer = cells_buffer(L, type, *n, NULL);
    for (uint64_t i = 0; i < *n; i++) {
        lua_geti(L, idx, (lua_Integer)i + 1);
        mp_cell_store(type, buffer, i, cells_word(L, -1, type));
        lua_pop(L, 1);
    }
    return buffer;
}

const void *cells_read(lua_State *L, int idx, int type, const char *what,
                       uint64_t *n) {
    mp_cell_kind kind = mp_cell_types[type].kind;
    idx = lua_absindex(L, idx);
    if (lua_type(L, idx) == LUA_TSTRING &&
        (kind == MP_CELL_BYTE || kind == MP_CELL_CODEPOINT))
        return read_string(L, idx, type, n);
    const bind_object *o = bind_test(L, idx);
    if (o && (o->class == &cells_array || o->class == &cells_raw_array)) {
        if (!o->shm)
            bind_error(L, "StateError", "%s is closed", o->class->name);
        return read_array(L, o, type, n);
    }
    if (lua_istable(L, idx)) return read_list(L, idx, type, what, n);
    if (luaL_getmetafield(L, idx, "__len") != LUA_TNIL) {
        lua_pop(L, 1);
        if (luaL_getmetafield(L, idx, "__index") != LUA_TNIL) {
            lua_pop(L, 1);
            return read_list(L, idx, type, what, n);
        }
    }
    bind_error(L, "TypeError", "%s%s expected, got %s", what,
               kind == MP_CELL_BYTE || kind == MP_CELL_CODEPOINT
                   ? "list, shared array or string"
                   : "list or shared array",
               luaL_typename(L, idx));
    return NULL;
}
