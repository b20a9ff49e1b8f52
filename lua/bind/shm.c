/* core.shm: named shared memory. A segment that this family made is a shared
   object of class SharedMemory, which only counts; the bytes of any segment
   are read and written through a buffer (shm_buffer.c), which has a
   descriptor of its own. lua/mp/shared_memory.lua makes one thing of both. */
#include "bind/shm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bind/core.h"
#include "bind/sync.h"
#include "data/segment.h"
#include "os/random.h"
#include "os/shm.h"

enum { NAME_TRIES = 100 };

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
static void push_pair(lua_State *L, bind_object **segment, shm_buffer **b) {
    bind_open_runtime(L);
    *segment = bind_new(L, &segment_class, sizeof(bind_object));
    *b = shm_buffer_new(L);
}

static void open_buffer(shm_buffer *b, const mp_segment *s) {
    shm_buffer_enter(b, s->fd, s->file.size);
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
    shm_buffer *b;
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
    shm_buffer *b;
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
    shm_buffer *b = shm_buffer_new(L);
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
        {"close", shm_buffer_close},    {"rest", shm_buffer_rest},
        {NULL, NULL}};
    mp_segment_open();
    sweep_once();
    bind_class_open(&segment_class);
    luaL_newlib(L, functions);
    /* Where shared_memory.lua puts the methods that are in Lua. */
    bind_class_push(L, &shm_buffer_class);
    lua_getfield(L, -1, "__index");
    lua_getupvalue(L, -1, 1);
    lua_setfield(L, -4, "methods");
    lua_pop(L, 2);
    lua_setfield(L, -2, "shm");
}
