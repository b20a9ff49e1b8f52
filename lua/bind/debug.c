/* core.debug: what specs and the curious want to know of this process. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "bind/bind.h"
#include "bind/core.h"
#include "mem/arena.h"
#include "mem/fsck.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"

/* Appends the numbers in a thread's list of children to the table on top. */
static void add_children(lua_State *L, const char *task) {
    char path[300];
    snprintf(path, sizeof path, "/proc/self/task/%s/children", task);
    FILE *file = fopen(path, "re");
    if (!file) return; /* the thread has just ended */
    int pid;
    while (fscanf(file, "%d", &pid) == 1) {
        lua_pushinteger(L, pid);
        lua_rawseti(L, -2, luaL_len(L, -2) + 1);
    }
    fclose(file);
}

/* children() -> pids of the children that nobody has waited for yet */
static int debug_children(lua_State *L) {
    lua_newtable(L);
    DIR *dir = opendir("/proc/self/task");
    if (!dir) return bind_oserror(L, -errno, "/proc/self/task");
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.') add_children(L, e->d_name);
    closedir(dir);
    return 1;
}

/* fds() -> the open descriptors' numbers */
static int debug_fds(lua_State *L) {
    lua_newtable(L);
    DIR *dir = opendir("/proc/self/fd");
    if (!dir) return bind_oserror(L, -errno, "/proc/self/fd");
    lua_Integer n = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        int fd = atoi(e->d_name);
        if (e->d_name[0] == '.' || fd == dirfd(dir)) continue;
        lua_pushinteger(L, fd);
        lua_rawseti(L, -2, ++n);
    }
    closedir(dir);
    return 1;
}

/* arena_bytes() -> bytes in blocks that somebody alive has use for */
static int debug_arena_bytes(lua_State *L) {
    if (mp_me) mp_reap_sweep();
    lua_pushinteger(L, mp_me ? (lua_Integer)mp_heap_used() : 0);
    return 1;
}

/* objects() -> number of shared objects */
static int debug_objects(lua_State *L) {
    if (mp_me) mp_reap_sweep();
    lua_pushinteger(L, mp_me ? (lua_Integer)mp_object_count() : 0);
    return 1;
}

/* ---- fsck ----------------------------------------------------------- */

/* Findings in private memory: Lua is not called while mp_fsck looks. */
typedef struct findings {
    char *text; /* each ends with a zero */
    size_t length, cap;
    bool no_memory;
} findings;

static void add_finding(void *ctx, const char *finding) {
    findings *f = ctx;
    size_t n = strlen(finding) + 1;
    char *more = mp_grow(f->text, &f->cap, 1, f->length + n);
    if (!more) {
        f->no_memory = true;
        return;
    }
    f->text = more;
    memcpy(more + f->length, finding, n);
    f->length += n;
}

/* findings -> list of strings */
static int push_findings(lua_State *L) {
    const findings *f = lua_touserdata(L, 1);
    lua_Integer n = 0;
    lua_newtable(L);
    for (const char *p = f->text; p < f->text + f->length;
         p += strlen(p) + 1) {
        lua_pushstring(L, p);
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

/* fsck() -> true; or false and a list of findings */
static int debug_fsck(lua_State *L) {
    findings f = {0};
    int n = mp_me ? mp_fsck(MP_FSCK_LIVE, add_finding, &f) : 0;
    lua_pushboolean(L, n == 0);
    lua_pushcfunction(L, push_findings);
    lua_pushlightuserdata(L, &f);
    int r = n > 0 ? lua_pcall(L, 1, 1, 0) : LUA_OK;
    free(f.text);
    if (n < 0 || f.no_memory)
        return bind_oserror(L, n < 0 ? n : -ENOMEM, "fsck");
    if (r != LUA_OK) return lua_error(L);
    if (n == 0) lua_settop(L, -3);
    return n == 0 ? 1 : 2;
}

void bind_debug_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"children", debug_children},       {"fds", debug_fds},
        {"arena_bytes", debug_arena_bytes}, {"objects", debug_objects},
        {"fsck", debug_fsck},
        {NULL, NULL}};
    luaL_newlib(L, functions);
    lua_setfield(L, -2, "debug");
}
