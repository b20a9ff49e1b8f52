/* core.shm: named shared memory. A segment that this family made is a shared
   object of class SharedMemory, which only counts; the bytes of any segment
   are read and written through a buffer, which has a descriptor of its own.
   lua/mp/shared_memory.lua makes one thing of both. */
#include "os/shm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bind/cells.h"
#include "bind/core.h"
#include "bind/sync.h"
#include "data/segment.h"
#include "os/random.h"

enum { NAME_TRIES = 100, CHUNK = 4096 };

/* head.shm  this userdata, or NULL once it is closed
   fd, size  -1: none
   base      where it is mapped, if pointer was called; else NULL */
typedef struct buffer {
    bind_object head;
    int fd;
    uint64_t size;
    void *base;
} buffer;

static const bind_class buffer_class, segment_class;

static buffer *self(lua_State *L) {
    return (buffer *)(void *)bind_check(L, 1, &buffer_class);
}

/* ---- places --------------------------------------------------------- */

static int cut_short(lua_State *L, const char *fn) {
    lua_pushfstring(L, "%s: the shared memory was cut short by another "
                       "program", fn);
    return bind_oserror(L, -EIO, lua_tostring(L, -1));
}

/* Reads or writes all n bytes at `offset`, or raises. */
static void get(lua_State *L, const buffer *b, const char *fn,
                uint64_t offset, void *bytes, size_t n) {
    ssize_t r = mp_shm_read(b->fd, offset, bytes, n);
    if (r < 0) bind_oserror(L, (int)r, fn);
    if ((size_t)r < n) cut_short(L, fn);
}

static void put(lua_State *L, const buffer *b, const char *fn,
                uint64_t offset, const void *bytes, size_t n) {
    ssize_t r = mp_shm_write(b->fd, offset, bytes, n);
    if (r < 0) bind_oserror(L, (int)r, fn);
    if ((size_t)r < n) cut_short(L, fn);
}

/* n bytes at `offset`, from 0, must be there. */
static void check_range(lua_State *L, const buffer *b, const char *fn,
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
static uint64_t bounds(lua_State *L, int arg, const buffer *b, const char *fn,
                       uint64_t *n) {
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

static int refuse_index(lua_State *L, const buffer *b) {
    return bind_error(L, "IndexError", "invalid index %s (1 to %I)",
                      luaL_tolstring(L, 2, NULL), (lua_Integer)b->size);
}

/* ipairs, and whatever else walks a list in C, reads one byte past the end
   to find it: for them, and there only, that is nil. */
static bool is_end(lua_State *L, const buffer *b) {
    lua_Debug caller;
    return lua_isinteger(L, 2) &&
           (uint64_t)lua_tointeger(L, 2) == b->size + 1 &&
           lua_getstack(L, 1, &caller) && lua_getinfo(L, "S", &caller) &&
           *caller.what == 'C';
}

static bool place(lua_State *L, const buffer *b, uint64_t *i) {
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
    const buffer *b = self(L);
    if (!place(L, b, &i)) {
        if (!is_end(L, b)) return refuse_index(L, b);
        lua_pushnil(L);
        return 1;
    }
    get(L, b, "index", i, &byte, 1);
    lua_pushinteger(L, byte);
    return 1;
}

static int buffer_newindex(lua_State *L) {
    const buffer *b = self(L);
    uint64_t i;
    if (lua_type(L, 2) != LUA_TNUMBER)
        return bind_error(L, "TypeError", "%s: only bytes can be assigned, "
                          "by number", buffer_class.name);
    if (!place(L, b, &i)) return refuse_index(L, b);
    unsigned char byte = (unsigned char)cells_word(L, 3, MP_CELL_B);
    put(L, b, "assignment", i, &byte, 1);
    return 0;
}

static int buffer_len(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)self(L)->size);
    return 1;
}

/* The step of pairs: (buffer, i) -> i + 1, its byte. */
static int buffer_next(lua_State *L) {
    const buffer *b = self(L);
    lua_Integer i = luaL_checkinteger(L, 2);
    unsigned char byte;
    if (i < 0 || (uint64_t)i >= b->size) return 0;
    get(L, b, "pairs", (uint64_t)i, &byte, 1);
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
    const buffer *b = self(L);
    lua_Integer offset = number(L, 2, "read", "offset", 0);
    lua_Integer rest = (lua_Integer)b->size - (offset > 0 ? offset : 0);
    lua_Integer n = number(L, 3, "read", "n", rest > 0 ? rest : 0);
    luaL_Buffer text;
    check_range(L, b, "read", offset, n);
    void *bytes = luaL_buffinitsize(L, &text, (size_t)n);
    get(L, b, "read", (uint64_t)offset, bytes, (size_t)n);
    luaL_pushresultsize(&text, (size_t)n);
    return 1;
}

/* write(offset, string) */
static int buffer_write(lua_State *L) {
    const buffer *b = self(L);
    lua_Integer offset = number(L, 2, "write", "offset", 0);
    size_t n;
    if (lua_type(L, 3) != LUA_TSTRING)
        return bind_argerror(L, "write", 3, "bytes", "string");
    const char *bytes = lua_tolstring(L, 3, &n);
    check_range(L, b, "write", offset, (lua_Integer)n);
    put(L, b, "write", (uint64_t)offset, bytes, n);
    return 0;
}

/* slice([i [, j]]) -> list of bytes */
static int buffer_slice(lua_State *L) {
    const buffer *b = self(L);
    uint64_t n, first = bounds(L, 2, b, "slice", &n);
    unsigned char *bytes = lua_newuserdatauv(L, n, 0);
    get(L, b, "slice", first, bytes, n);
    lua_createtable(L, n > INT32_MAX ? INT32_MAX : (int)n, 0);
    for (uint64_t i = 0; i < n; i++) {
        lua_pushinteger(L, bytes[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* set(i, string or list of bytes): all of it or nothing. */
static int buffer_set(lua_State *L) {
    const buffer *b = self(L);
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
    put(L, b, "set", (uint64_t)i - 1, bytes, n);
    return 0;
}

/* fill(byte [, i [, j]]) */
static int buffer_fill(lua_State *L) {
    const buffer *b = self(L);
    unsigned char bytes[CHUNK];
    memset(bytes, (unsigned char)cells_word(L, 2, MP_CELL_B), CHUNK);
    uint64_t n, at = bounds(L, 3, b, "fill", &n);
    for (uint64_t end = at + n; at < end; at += CHUNK)
        put(L, b, "fill", at, bytes, end - at < CHUNK ? end - at : CHUNK);
    return 0;
}

/* pointer() -> light userdata: where it is mapped until it is closed. */
static int buffer_pointer(lua_State *L) {
    buffer *b = self(L);
    int r = b->base ? 0 : mp_shm_map(b->fd, b->size, &b->base);
    if (r < 0) return bind_oserror(L, r, "pointer");
    lua_pushlightuserdata(L, b->base);
    return 1;
}

/* ---- closing -------------------------------------------------------- */

static int buffer_close(lua_State *L) {
    buffer *b = lua_touserdata(L, 1);
    if (!b || b->head.class != &buffer_class || !b->head.shm) return 0;
    b->head.shm = NULL;
    if (b->base) mp_shm_unmap(b->base, b->size);
    close(b->fd);
    b->base = NULL;
    b->fd = -1;
    return 0;
}

static int buffer_tostring(lua_State *L) {
    const buffer *b = (const buffer *)(const void *)bind_is(L, 1,
                                                           &buffer_class);
    if (b && b->head.shm)
        lua_pushfstring(L, "<%s of %I bytes>", buffer_class.name,
                        (lua_Integer)b->size);
    else
        lua_pushfstring(L, "<%s closed>", buffer_class.name);
    return 1;
}

/* rest(buffer, fn, offset) -> how many bytes there are from the offset on, and
   that as an integer; raises for method fn. */
static int shm_rest(lua_State *L) {
    const char *fn = luaL_checkstring(L, 2);
    if (!bind_is(L, 1, &buffer_class))
        return bind_argerror(L, fn, 1, "self", buffer_class.name);
    const buffer *b = self(L);
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
                                       {"__close", buffer_close},
                                       {"__gc", buffer_close},
                                       {"__tostring", buffer_tostring},
                                       {NULL, NULL}};

/* __index looks bytes up first; the methods stay in its table. */
static void finish_buffer(lua_State *L) {
    lua_getfield(L, -1, "__index");
    lua_pushcclosure(L, buffer_index, 1);
    lua_setfield(L, -2, "__index");
}

/* No code: what has no name of its own does not travel. */
static const bind_class buffer_class = {.name = "SharedMemoryBuffer",
                                        .methods = buffer_methods,
                                        .meta = buffer_meta,
                                        .finish = finish_buffer};

/* ---- segments ------------------------------------------------------- */

static const bind_class segment_class = {.name = "SharedMemory",
                                         .code = 20,
                                         .type = MP_TYPE_SEGMENT};

static bind_object *segment_at(lua_State *L, int arg) {
    return bind_is(L, arg, &segment_class);
}

/* key(segment) -> a number that no other living segment has */
static int shm_key(lua_State *L) {
    const bind_object *o = segment_at(L, 1);
    lua_pushinteger(L, o ? (lua_Integer)((uint64_t)o->gen << 32 | o->id) : 0);
    return 1;
}

/* release(segment): one use less. */
static int shm_release(lua_State *L) {
    bind_object *o = segment_at(L, 1);
    if (!o || !o->shm) return 0;
    o->shm = NULL;
    if (mp_me) mp_object_detach(o->id);
    return 0;
}

/* is_named(segment) */
static int shm_is_named(lua_State *L) {
    const bind_object *o = segment_at(L, 1);
    lua_pushboolean(L, o && o->shm && mp_me && mp_segment_is_named(o->id));
    return 1;
}

/* ---- making and finding --------------------------------------------- */

/* The name at `arg`, checked. */
static void check_name(lua_State *L, int arg, char name[MP_SHM_NAME]) {
    size_t n;
    if (lua_type(L, arg) != LUA_TSTRING)
        bind_argerror(L, "SharedMemory", arg, "name", "string or nil");
    const char *given = lua_tolstring(L, arg, &n);
    if (memchr(given, 0, n))
        bind_error(L, "ValueError", "SharedMemory: embedded null character");
    int r = mp_shm_name(given, n, name);
    if (r < 0) {
        lua_pushfstring(L, "SharedMemory: name '%s'", given);
        bind_oserror(L, r, lua_tostring(L, -1));
    }
}

/* What families that were killed have left goes when a process first has mp:
   that costs it three system calls, unless there is something to do. */
static void sweep_once(void) {
    static _Atomic bool done;
    if (!atomic_exchange(&done, true)) mp_segment_sweep();
}

/* Pushes a closed segment and a closed buffer. */
static void push_pair(lua_State *L, bind_object **segment, buffer **b) {
    bind_open_runtime(L);
    *segment = bind_new(L, &segment_class, sizeof(bind_object));
    *b = (buffer *)(void *)bind_new(L, &buffer_class, sizeof(buffer));
    (*b)->fd = -1;
    (*b)->base = NULL;
}

static void open_buffer(buffer *b, const mp_segment *s) {
    b->fd = s->fd;
    b->size = s->file.size;
    b->head.shm = b;
}

/* With segment and buffer on top: buffer, segment or nil, name, dev, ino. */
static int push_opened(lua_State *L, const mp_segment *s, const char *name) {
    if (!s->id) {
        lua_pushnil(L);
        lua_replace(L, -3);
    }
    lua_insert(L, -2);
    lua_pushstring(L, name);
    lua_pushinteger(L, (lua_Integer)s->file.dev);
    lua_pushinteger(L, (lua_Integer)s->file.ino);
    return 5;
}

/* A file that nobody counts. */
static int create_untracked(const char *name, uint64_t size,
                            mp_segment *made) {
    made->id = 0;
    int r = mp_shm_make(size, &made->fd, &made->file);
    if (r < 0) return r;
    r = mp_shm_link(made->fd, name);
    if (r < 0) close(made->fd);
    return r;
}

static int create(const char *name, uint64_t size, bool track,
                  mp_segment *made) {
    return track ? mp_segment_create(name, size, made)
                 : create_untracked(name, size, made);
}

/* Under a name that nobody has. */
static int create_nameless(char name[MP_SHM_NAME], uint64_t size, bool track,
                           mp_segment *made) {
    uint32_t number;
    int r = -EEXIST;
    for (int i = 0; r == -EEXIST && i < NAME_TRIES; i++) {
        mp_random_bytes(&number, sizeof number);
        snprintf(name, MP_SHM_NAME, "psm_%08" PRIx32, number);
        r = create(name, size, track, made);
    }
    return r;
}

static int fail(lua_State *L, int r, const char *name) {
    lua_pushfstring(L, "SharedMemory: '%s'", name);
    return bind_oserror(L, r, lua_tostring(L, -1));
}

/* create(name or nil, size, track) -> as push_opened */
static int shm_create(lua_State *L) {
    char name[MP_SHM_NAME] = "";
    uint64_t size = (uint64_t)luaL_checkinteger(L, 2);
    bool track = lua_toboolean(L, 3);
    mp_segment made;
    bind_object *segment;
    buffer *b;
    bool given = !lua_isnil(L, 1);
    if (given) check_name(L, 1, name);
    push_pair(L, &segment, &b);
    int r = given ? create(name, size, track, &made)
                  : create_nameless(name, size, track, &made);
    if (r < 0) return fail(L, r, name);
    open_buffer(b, &made);
    if (made.id) bind_adopt(segment, made.id, made.gen);
    return push_opened(L, &made, name);
}

static int open_checked(const char *name, bool track, mp_segment *found) {
    if (track) return mp_segment_attach(name, found);
    found->id = 0;
    return mp_shm_open(name, &found->fd, &found->file);
}

/* open(name, track) -> as push_opened */
static int shm_open_name(lua_State *L) {
    char name[MP_SHM_NAME];
    mp_segment found;
    bind_object *segment;
    buffer *b;
    check_name(L, 1, name);
    push_pair(L, &segment, &b);
    int r = open_checked(name, lua_toboolean(L, 2), &found);
    if (r < 0) return fail(L, r, name);
    open_buffer(b, &found);
    if (found.id) bind_adopt(segment, found.id, found.gen);
    if (found.file.size == 0)
        return bind_error(L, "ValueError", "SharedMemory: '%s' is empty",
                          name);
    return push_opened(L, &found, name);
}

/* again(segment) -> buffer, segment, name, dev, ino */
static int shm_again(lua_State *L) {
    bind_object *o = bind_check(L, 1, &segment_class);
    const mp_segment_shm *s = o->shm;
    mp_segment found = {.id = o->id, .gen = o->gen};
    lua_settop(L, 1);
    buffer *b = (buffer *)(void *)bind_new(L, &buffer_class, sizeof(buffer));
    b->fd = -1;
    b->base = NULL;
    int r = mp_segment_again(o->id, &found);
    if (r < 0) return fail(L, r, s->name);
    open_buffer(b, &found);
    return push_opened(L, &found, s->name);
}

/* unlink(name, dev, ino): takes the name away if it is that file's. */
static int shm_unlink_name(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    uint64_t dev = (uint64_t)luaL_checkinteger(L, 2);
    uint64_t ino = (uint64_t)luaL_checkinteger(L, 3);
    mp_segment found;
    bind_open_runtime(L);
    int r = mp_segment_attach(name, &found);
    if (r < 0) return fail(L, r, name);
    if (found.file.dev != dev || found.file.ino != ino)
        r = -ENOENT;
    else
        r = found.id ? mp_segment_unlink(found.id)
                     : mp_shm_unlink(name, dev, ino);
    if (found.id) mp_object_detach(found.id);
    close(found.fd);
    return r < 0 ? fail(L, r, name) : 0;
}

/* sweep(): what the first use does. */
static int shm_sweep(lua_State *L) {
    (void)L;
    mp_segment_sweep();
    return 0;
}

void bind_shm_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"create", shm_create},     {"open", shm_open_name},
        {"again", shm_again},       {"unlink", shm_unlink_name},
        {"key", shm_key},           {"release", shm_release},
        {"is_named", shm_is_named}, {"sweep", shm_sweep},
        {"close", buffer_close},    {"rest", shm_rest},
        {NULL, NULL}};
    mp_segment_open();
    sweep_once();
    bind_class_open(&segment_class);
    luaL_newlib(L, functions);
    /* Where shared_memory.lua puts the methods that are in Lua. */
    bind_class_push(L, &buffer_class);
    lua_getfield(L, -1, "__index");
    lua_getupvalue(L, -1, 1);
    lua_setfield(L, -4, "methods");
    lua_pop(L, 2);
    lua_setfield(L, -2, "shm");
}
