/* The bytes of a named segment, as a userdata: read and written by system
   calls through a descriptor of its own, since another program may cut the
   file short. */
#include "bind/shm.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bind/cells.h"
#include "os/shm.h"

enum { CHUNK = 4096 };

static shm_buffer *self(lua_State *L) {
    return (shm_buffer *)(void *)bind_check(L, 1, &shm_buffer_class);
}

/* ---- places --------------------------------------------------------- */

static int cut_short(lua_State *L, const char *fn) {
    lua_pushfstring(L, "%s: the shared memory was cut short by another "
                       "program", fn);
    return bind_oserror(L, -EIO, lua_tostring(L, -1));
}

/* Read or write all n bytes at `offset` of the buffer at index 1, or raise.
   They look at it again: a finalizer may have closed it meanwhile. */
static void get(lua_State *L, const char *fn, uint64_t offset, void *bytes,
                size_t n) {
    const shm_buffer *b = self(L);
    ssize_t r = mp_shm_read(b->fd, offset, bytes, n);
    if (r < 0) bind_oserror(L, (int)r, fn);
    if ((size_t)r < n) cut_short(L, fn);
}

static void put(lua_State *L, const char *fn, uint64_t offset,
                const void *bytes, size_t n) {
    const shm_buffer *b = self(L);
    ssize_t r = mp_shm_write(b->fd, offset, bytes, n);
    if (r < 0) bind_oserror(L, (int)r, fn);
    if ((size_t)r < n) cut_short(L, fn);
}

/* n bytes at `offset`, from 0, must be there. */
static void check_range(lua_State *L, const shm_buffer *b, const char *fn,
                        lua_Integer offset, lua_Integer n) {
    if (offset < 0 || n < 0 || (uint64_t)offset > b->size ||
        (uint64_t)n > b->size - (uint64_t)offset)
        bind_error(L, "IndexError",
                   "%s: %I bytes at offset %I are out of range (%I bytes)",
                   fn, n, offset, (lua_Integer)b->size);
}

static lua_Integer number(lua_State *L, int arg, const char *fn,
                          const char *name, lua_Integer otherwise) {
    if (lua_isnoneornil(L, arg)) return otherwise;
    return bind_integer(L, arg, fn, name, LUA_MININTEGER, LUA_MAXINTEGER);
}

/* Bytes i to j, from 1, as given at `arg` and the next; all by default. */
static uint64_t bounds(lua_State *L, int arg, const shm_buffer *b,
                       const char *fn, uint64_t *n) {
    lua_Integer size = (lua_Integer)b->size;
    lua_Integer i = number(L, arg, fn, "i", 1);
    lua_Integer j = number(L, arg + 1, fn, "j", size);
    if (i < 1 || j > size || j < i - 1)
        bind_error(L, "IndexError", "%s: invalid range %I to %I (1 to %I)",
                   fn, i, j, size);
    *n = (uint64_t)(j - i + 1);
    return (uint64_t)i - 1;
}

/* ---- one byte ------------------------------------------------------- */

static int refuse_index(lua_State *L, const shm_buffer *b) {
    return bind_error(L, "IndexError", "invalid index %s (1 to %I)",
                      luaL_tolstring(L, 2, NULL), (lua_Integer)b->size);
}

/* ipairs, and whatever else walks a list in C, reads one byte past the end
   to find it: for them, and there only, that is nil. */
static bool is_end(lua_State *L, const shm_buffer *b) {
    lua_Debug caller;
    return lua_isinteger(L, 2) &&
           (uint64_t)lua_tointeger(L, 2) == b->size + 1 &&
           lua_getstack(L, 1, &caller) && lua_getinfo(L, "S", &caller) &&
           *caller.what == 'C';
}

static bool place(lua_State *L, const shm_buffer *b, uint64_t *i) {
    int is_integer;
    *i = (uint64_t)lua_tointegerx(L, 2, &is_integer) - 1;
    return is_integer && *i < b->size;
}

/* Upvalue 1: the methods. */
static int buffer_index(lua_State *L) {
    uint64_t i;
    unsigned char byte;
    if (lua_type(L, 2) != LUA_TNUMBER) {
        lua_settop(L, 2);
        lua_rawget(L, lua_upvalueindex(1));
        return 1;
    }
    const shm_buffer *b = self(L);
    if (!place(L, b, &i)) {
        if (!is_end(L, b)) return refuse_index(L, b);
        lua_pushnil(L);
        return 1;
    }
    get(L, "index", i, &byte, 1);
    lua_pushinteger(L, byte);
    return 1;
}

static int buffer_newindex(lua_State *L) {
    const shm_buffer *b = self(L);
    uint64_t i;
    if (lua_type(L, 2) != LUA_TNUMBER)
        return bind_error(L, "TypeError", "%s: only bytes can be assigned, "
                          "by number", shm_buffer_class.name);
    if (!place(L, b, &i)) return refuse_index(L, b);
    unsigned char byte = (unsigned char)cells_word(L, 3, MP_CELL_B);
    put(L, "assignment", i, &byte, 1);
    return 0;
}

static int buffer_len(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)self(L)->size);
    return 1;
}

/* The step of pairs: (buffer, i) -> i + 1, its byte. */
static int buffer_next(lua_State *L) {
    const shm_buffer *b = self(L);
    lua_Integer i = luaL_checkinteger(L, 2);
    unsigned char byte;
    if (i < 0 || (uint64_t)i >= b->size) return 0;
    get(L, "pairs", (uint64_t)i, &byte, 1);
    lua_pushinteger(L, i + 1);
    lua_pushinteger(L, byte);
    return 2;
}

static int buffer_pairs(lua_State *L) {
    self(L);
    lua_pushcfunction(L, buffer_next);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    return 3;
}

/* ---- many bytes ----------------------------------------------------- */

/* read([offset [, n]]) -> string; offset from 0. */
static int buffer_read(lua_State *L) {
    const shm_buffer *b = self(L);
    lua_Integer offset = number(L, 2, "read", "offset", 0);
    lua_Integer rest = (lua_Integer)b->size - (offset > 0 ? offset : 0);
    lua_Integer n = number(L, 3, "read", "n", rest > 0 ? rest : 0);
    luaL_Buffer text;
    check_range(L, b, "read", offset, n);
    void *bytes = luaL_buffinitsize(L, &text, (size_t)n);
    get(L, "read", (uint64_t)offset, bytes, (size_t)n);
    luaL_pushresultsize(&text, (size_t)n);
    return 1;
}

/* write(offset, string) */
static int buffer_write(lua_State *L) {
    const shm_buffer *b = self(L);
    lua_Integer offset = number(L, 2, "write", "offset", 0);
    size_t n;
    if (lua_type(L, 3) != LUA_TSTRING)
        return bind_argerror(L, "write", 3, "bytes", "string");
    const char *bytes = lua_tolstring(L, 3, &n);
    check_range(L, b, "write", offset, (lua_Integer)n);
    put(L, "write", (uint64_t)offset, bytes, n);
    return 0;
}

/* slice([i [, j]]) -> list of bytes */
static int buffer_slice(lua_State *L) {
    const shm_buffer *b = self(L);
    uint64_t n, first = bounds(L, 2, b, "slice", &n);
    unsigned char *bytes = lua_newuserdatauv(L, n, 0);
    get(L, "slice", first, bytes, n);
    lua_createtable(L, n > INT32_MAX ? INT32_MAX : (int)n, 0);
    for (uint64_t i = 0; i < n; i++) {
        lua_pushinteger(L, bytes[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* set(i, string or list of bytes): all of it or nothing. */
static int buffer_set(lua_State *L) {
    const shm_buffer *b = self(L);
    lua_Integer i = bind_integer(L, 2, "set", "i", LUA_MININTEGER,
                                 LUA_MAXINTEGER);
    uint64_t n;
    const void *bytes = cells_read(
        L, 3, lua_type(L, 3) == LUA_TSTRING ? MP_CELL_c : MP_CELL_B,
        "set: argument 'list': ", &n);
    if (i < 1 || (uint64_t)i - 1 > b->size || n > b->size - (uint64_t)i + 1)
        return bind_error(L, "IndexError",
                          "set: %I bytes do not fit at %I (1 to %I)",
                          (lua_Integer)n, i, (lua_Integer)b->size);
    put(L, "set", (uint64_t)i - 1, bytes, n);
    return 0;
}

/* fill(byte [, i [, j]]) */
static int buffer_fill(lua_State *L) {
    const shm_buffer *b = self(L);
    unsigned char bytes[CHUNK];
    memset(bytes, (unsigned char)cells_word(L, 2, MP_CELL_B), CHUNK);
    uint64_t n, at = bounds(L, 3, b, "fill", &n);
    for (uint64_t end = at + n; at < end; at += CHUNK)
        put(L, "fill", at, bytes, end - at < CHUNK ? end - at : CHUNK);
    return 0;
}

/* pointer() -> light userdata: where it is mapped until it is closed. */
static int buffer_pointer(lua_State *L) {
    shm_buffer *b = self(L);
    int r = b->base ? 0 : mp_shm_map(b->fd, b->size, &b->base);
    if (r < 0) return bind_oserror(L, r, "pointer");
    lua_pushlightuserdata(L, b->base);
    return 1;
}

/* ---- closing -------------------------------------------------------- */

int shm_buffer_close(lua_State *L) {
    shm_buffer *b = lua_touserdata(L, 1);
    if (!b || b->head.class != &shm_buffer_class || !b->head.shm) return 0;
    b->head.shm = NULL;
    if (b->base) mp_shm_unmap(b->base, b->size);
    close(b->fd);
    b->base = NULL;
    b->fd = -1;
    return 0;
}

static int buffer_tostring(lua_State *L) {
    const shm_buffer *b = (const shm_buffer *)(const void *)bind_is(L, 1,
                                                           &shm_buffer_class);
    if (b && b->head.shm)
        lua_pushfstring(L, "<%s of %I bytes>", shm_buffer_class.name,
                        (lua_Integer)b->size);
    else
        lua_pushfstring(L, "<%s closed>", shm_buffer_class.name);
    return 1;
}

int shm_buffer_rest(lua_State *L) {
    const char *fn = luaL_checkstring(L, 2);
    if (!bind_is(L, 1, &shm_buffer_class))
        return bind_argerror(L, fn, 1, "self", shm_buffer_class.name);
    const shm_buffer *b = self(L);
    lua_Integer offset = bind_integer(L, 3, fn, "offset", LUA_MININTEGER,
                                      LUA_MAXINTEGER);
    check_range(L, b, fn, offset, 0);
    lua_pushinteger(L, (lua_Integer)b->size - offset);
    lua_pushinteger(L, offset);
    return 2;
}

static const luaL_Reg buffer_methods[] = {
    {"read", buffer_read},   {"write", buffer_write},
    {"slice", buffer_slice}, {"set", buffer_set},
    {"fill", buffer_fill},   {"pointer", buffer_pointer},
    {NULL, NULL}};
static const luaL_Reg buffer_meta[] = {{"__newindex", buffer_newindex},
                                       {"__len", buffer_len},
                                       {"__pairs", buffer_pairs},
                                       {"__close", shm_buffer_close},
                                       {"__gc", shm_buffer_close},
                                       {"__tostring", buffer_tostring},
                                       {NULL, NULL}};

/* __index looks bytes up first; the methods stay in its table. */
static void finish_buffer(lua_State *L) {
    lua_getfield(L, -1, "__index");
    lua_pushcclosure(L, buffer_index, 1);
    lua_setfield(L, -2, "__index");
}

const bind_class shm_buffer_class = {.name = "SharedMemoryBuffer",
                                        .methods = buffer_methods,
                                        .meta = buffer_meta,
                                        .finish = finish_buffer};

shm_buffer *shm_buffer_new(lua_State *L) {
    shm_buffer *b =
        (shm_buffer *)(void *)bind_new(L, &shm_buffer_class, sizeof *b);
    b->fd = -1;
    b->base = NULL;
    return b;
}

void shm_buffer_enter(shm_buffer *b, int fd, uint64_t size) {
    b->fd = fd;
    b->size = size;
    b->head.shm = b;
}
