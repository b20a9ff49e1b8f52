#include "bind/boot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bind/bind.h"
#include "bind/child.h"
#include "bind/globals.h"
#include "bind/interrupt.h"
#include "bind/message.h"
#include "bind/pack.h"
#include "bind/pool.h"
#include "mem/heap.h"
#include "mem/slot.h"
#include "proc/family.h"
#include "proc/server.h"

/* Key of the registry: the table that core.process.birth() returns. */
static const char BIRTH;

/* ---- surroundings ---------------------------------------------------- */

/* Places in the table of surroundings, and arguments of settle. */
enum { PATH = 1, CPATH, ARG, THE_BIRTH };

static void set_search(lua_State *L, int package, int value,
                       const char *field) {
    if (!lua_isstring(L, value)) return;
    lua_pushvalue(L, value);
    lua_setfield(L, package, field);
}

/* A fork server may have loaded mp, for another process: what depends on the
   birth is received anew. `loaded`: stack index of package.loaded. */
static void receive_birth(lua_State *L, int loaded) {
    static const char *const modules[] = {"mp.log", "mp.program",
                                          "mp.context", "mp.process"};
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        if (lua_getfield(L, loaded, modules[i]) == LUA_TTABLE) {
            lua_getfield(L, -1, "_receive");
            lua_call(L, 0, 0);
        }
        lua_pop(L, 1);
    }
}

/* settle(path, cpath, arg, birth) -> true: is called while a boot message is
   decoded, before what comes behind it is. */
static int settle(lua_State *L) {
    lua_settop(L, THE_BIRTH);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "package") == LUA_TTABLE) {
        set_search(L, lua_gettop(L), PATH, "path");
        set_search(L, lua_gettop(L), CPATH, "cpath");
    }
    lua_pushglobaltable(L);
    lua_pushliteral(L, "arg");
    lua_pushvalue(L, ARG);
    lua_rawset(L, -3);
    lua_pushvalue(L, THE_BIRTH);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &BIRTH);
    receive_birth(L, THE_BIRTH + 1);
    bind_interrupt_hold(L, false);
    lua_pushboolean(L, 1);
    return 1;
}

/* The __reduce of surroundings: settle, and what it is called with. */
static int reduce_surroundings(lua_State *L) {
    lua_settop(L, 1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, "mp.core");
    lua_getfield(L, -1, "settle");
    for (int i = PATH; i <= THE_BIRTH; i++) lua_rawgeti(L, 1, i);
    return 1 + THE_BIRTH;
}

/* Pushes what there is of the global `arg`: its strings by number. */
static void push_arg(lua_State *L) {
    lua_newtable(L);
    lua_pushglobaltable(L);
    lua_pushliteral(L, "arg");
    if (lua_rawget(L, -2) != LUA_TTABLE) {
        lua_pop(L, 3);
        lua_pushnil(L);
        return;
    }
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        if (lua_isinteger(L, -2) && lua_type(L, -1) == LUA_TSTRING)
            lua_rawset(L, -6);
        else
            lua_pop(L, 2);
    }
    lua_pop(L, 2);
}

static void push_surroundings(lua_State *L, int birth) {
    lua_createtable(L, THE_BIRTH, 0);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "package") == LUA_TTABLE) {
        lua_getfield(L, -1, "path");
        lua_rawseti(L, -4, PATH);
        lua_getfield(L, -1, "cpath");
        lua_rawseti(L, -4, CPATH);
    }
    lua_pop(L, 2);
    push_arg(L);
    lua_rawseti(L, -2, ARG);
    if (birth) {
        lua_pushvalue(L, birth);
        lua_rawseti(L, -2, THE_BIRTH);
    }
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, reduce_surroundings);
    lua_setfield(L, -2, "__reduce");
    lua_setmetatable(L, -2);
}

/* birth() -> what this process was told of itself, or nil: it is a main
   process, or a copy of its parent. */
static int process_birth(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &BIRTH);
    return 1;
}

/* ---- programs --------------------------------------------------------- */

/* program() -> path of the program that runs (nil: /proc is not there), and
   whether that is mplua */
static int process_program(lua_State *L) {
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    if (n > 0)
        lua_pushlstring(L, path, (size_t)n);
    else
        lua_pushnil(L);
    lua_getfield(L, LUA_REGISTRYINDEX, BIND_IS_MPLUA);
    return 2;
}

/* executable(path) -> may this process execute it? */
static int process_executable(lua_State *L) {
    lua_pushboolean(L, access(luaL_checkstring(L, 1), X_OK) == 0);
    return 1;
}

/* ---- the message ------------------------------------------------------ */

mp_ref bind_boot_message(lua_State *L, int birth, int first, int n) {
    luaL_checkstack(L, 12, "a new process");
    pack_out *out = pack_begin_shared(L);
    push_surroundings(L, birth);
    pack_value(L, out, -1, "surroundings");
    globals_pack(L, out, 0, "target", first, n);
    mp_ref block = message_of(L, out, "the job");
    lua_pop(L, 1);
    pack_end(L, -1);
    lua_pop(L, 1);
    return block;
}

/* ---- the new state ---------------------------------------------------- */

/* (error value): tells it on stderr, as the process would. */
static int tell(lua_State *L) {
    bind_push_member(L, "mp.process", "_report");
    lua_insert(L, 1);
    lua_call(L, 1, 0);
    return 0;
}

/* Message handler. Should mp itself not load here, the bare text is told. */
static int report(lua_State *L) {
    if (mp_slot_asked()) return 0; /* it ends as it was told to */
    luaL_checkstack(L, 6, NULL);
    lua_pushcfunction(L, tell);
    lua_pushvalue(L, 1);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
        fprintf(stderr, "Process (pid %d):\n%s\n", (int)getpid(),
                lua_tostring(L, -1));
    }
    return 0;
}

/* Values in front of the job: what settle and the bundle came to. */
enum { BEFORE_JOB = 2 };

/* [1] boot: takes its message apart and does what it says. */
static int run_message(lua_State *L) {
    mp_boot_shm *boot = lua_touserdata(L, 1);
    lua_settop(L, 0);
    int n = message_take(L, boot->message, -1);
    n -= BEFORE_JOB;
    if (!lua_isfunction(L, BEFORE_JOB + 1)) {
        bind_push_member(L, "mp.process", "_run");
        lua_insert(L, BEFORE_JOB + 1);
        n++;
    }
    lua_call(L, n - 1, 0);
    return 0;
}

int bind_boot_run(lua_State *L, mp_boot_shm *boot) {
    if (boot->kind == BIND_BOOT_CREW) return bind_crew_run(L, boot);
    if (!lua_checkstack(L, 8)) return EXIT_FAILURE;
    int handler = lua_gettop(L) + 1;
    lua_pushcfunction(L, report);
    lua_pushcfunction(L, run_message);
    lua_pushlightuserdata(L, boot);
    bind_interrupt_hold(L, true); /* until settle has told who it is */
    int status = lua_pcall(L, 1, 0, handler);
    bind_interrupt_hold(L, false);
    /* Its handler is not called. */
    if (status == LUA_ERRMEM) fprintf(stderr, "mplua: not enough memory\n");
    return status == LUA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* What a new program says when it was started for nothing. */
static void complain(int r) {
    /* Its parent is gone, perhaps with what it was told: nobody is there to
       hear it. */
    if (r != -EOWNERDEAD && r != -EINVAL)
        fprintf(stderr, "mplua: this process cannot take part: %s\n",
                r == -EPROTO ? "it is of another version" : strerror(-r));
    _exit(EXIT_FAILURE);
}

/* ---- the fork server -------------------------------------------------- */

/* (address of a mp_ref): makes the message there. */
static int make_preload(lua_State *L) {
    mp_ref *message = lua_touserdata(L, 1);
    bind_push_member(L, "mp.program", "_preload");
    lua_call(L, 0, 1);
    *message = bind_boot_message(L, 0, lua_gettop(L), 1);
    return 0;
}

mp_ref bind_boot_preload(lua_State *L, mp_ref job) {
    mp_ref message = 0;
    lua_pushcfunction(L, make_preload);
    lua_pushlightuserdata(L, &message);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK) return message;
    if (job) mp_free(job);
    lua_error(L);
    return 0;
}

/* [1] boot: loads what the owner has asked for. */
static int preload(lua_State *L) {
    const mp_boot_shm *boot = lua_touserdata(L, 1);
    lua_settop(L, 0);
    if (!boot->message) return 0;
    message_push(L, boot->message); /* lent */
    int list = lua_gettop(L);
    for (lua_Integer i = 1; lua_rawgeti(L, list, i) == LUA_TSTRING; i++) {
        lua_getglobal(L, "require");
        lua_insert(L, -2);
        lua_call(L, 1, 0);
        lua_settop(L, list);
    }
    lua_settop(L, 0);
    /* Its children are to share what is there, and not to tidy it up. */
    lua_gc(L, LUA_GCCOLLECT);
    lua_gc(L, LUA_GCCOLLECT);
    return 0;
}

static int describe(lua_State *L) {
    luaL_tolstring(L, 1, NULL);
    return 1;
}

/* What a server's process does: returns in the children that it forks. */
static mp_boot_shm *serve(lua_State *L, mp_boot_shm *server) {
    mp_boot_shm *child;
    lua_pushcfunction(L, preload);
    lua_pushlightuserdata(L, server);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        lua_pushcfunction(L, describe);
        lua_insert(L, -2);
        lua_pcall(L, 1, 1, 0);
        const char *text = lua_tostring(L, -1);
        lua_pushfstring(L, "the fork server cannot preload: %s",
                        text ? text : "(error object is no string)");
        mp_boot_refuse(server, lua_tostring(L, -1));
        _exit(EXIT_FAILURE);
    }
    if (mp_server_run(server, &child) < 0) _exit(EXIT_FAILURE);
    return child;
}

/* child(fd, ref): all that a new program does; never returns. */
static int process_child(lua_State *L) {
    int fd = (int)luaL_checkinteger(L, 1);
    mp_ref ref = (mp_ref)luaL_checkinteger(L, 2);
    mp_boot_shm *boot;
    int r = mp_boot_attach(fd, ref, &boot);
    if (r < 0) complain(r);
    lua_settop(L, 0);
    if (boot->kind == MP_START_SERVER) boot = serve(L, boot);
    bind_child_enter(L);
    int code = bind_boot_run(L, boot);
    bind_child_end(L);
    mp_family_exit(code);
}

void bind_settle_open(lua_State *L) {
    lua_pushcfunction(L, settle);
    lua_setfield(L, -2, "settle");
}

void bind_boot_open(lua_State *L) {
    static const luaL_Reg functions[] = {{"birth", process_birth},
                                         {"program", process_program},
                                         {"executable", process_executable},
                                         {"child", process_child},
                                         {NULL, NULL}};
    mp_boot_open();
    lua_getfield(L, -1, "process");
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 1);
}
