/* core.process: starting children, and what is known of them.

   A Child is a userdata for one child process; its user value is the Lua
   object that it belongs to. While it runs, the registry's table CHILDREN
   keeps it (in places of luaL_ref): a process that nobody holds goes on, and
   can be found by active().

   The end of a state (a sentinel's __gc, which Lua calls last since it is
   the first of ours) and of the process (atexit) take the children along. */
#include "bind/process.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bind/bind.h"
#include "bind/boot.h"
#include "bind/child.h"
#include "bind/core.h"
#include "bind/gc.h"
#include "bind/interrupt.h"
#include "bind/thread.h"
#include "data/segment.h"
#include "mem/arena.h"
#include "os/signal.h"
#include "mem/heap.h"
#include "os/tempdir.h"
#include "proc/family.h"
#include "proc/proc.h"
#include "proc/start.h"

/* Begins like all userdata of ours; it is no shared object, so its class
   has no code and the pickler does not know it. */
typedef struct child {
    bind_object head;
    mp_relative *relative; /* NULL once closed */
    pid_t pid;
    uint32_t tag;
    int exitcode; /* once ended */
    int ref;      /* in CHILDREN; LUA_NOREF when it is not there */
} child;

static const bind_class child_class = {.name = "Child"};

/* Keys of the registry: their addresses. */
static const char CHILDREN, SENTINEL;

/* ---- the end -------------------------------------------------------- */

static void end_process(void) {
    mp_family_end(NULL);
    mp_start_join(); /* one that has ended may still make a state */
    mp_segment_end();
    mp_tempdir_remove();
}

/* The sentinel's __gc: the state is closing. */
static int end_state(lua_State *L) {
    mp_family_end(lua_topointer(L, LUA_REGISTRYINDEX));
    bind_thread_unready();
    return 0;
}

/* finish(): ends the daemons of this state, and awaits its other children. */
static int process_finish(lua_State *L) {
    mp_family_end(lua_topointer(L, LUA_REGISTRYINDEX));
    return 0;
}

/* tempdir() -> path of this process's own directory */
static int process_tempdir(lua_State *L) {
    const char *path;
    int r = mp_tempdir(&path);
    if (r < 0) return bind_oserror(L, r, "get_temp_dir");
    lua_pushstring(L, path);
    return 1;
}

/* ---- starting ------------------------------------------------------- */

enum { BEGIN = 1, REPORT, OBJECT, DAEMON }; /* arguments of start */

/* A Child for the Process object at `object`. */
static void new_child(lua_State *L, int object) {
    child *c = lua_newuserdatauv(L, sizeof *c, 1);
    *c = (child){.head = {.class = &child_class}, .ref = LUA_NOREF};
    luaL_setmetatable(L, "mp.Child");
    lua_pushvalue(L, object);
    lua_setiuservalue(L, -2, 1);
}

/* In a child: begin(object) -> run, then run(object), and the end. What
   happens in it stays in it: errors and yields stop at the pcall. Few
   frames: each is another page to touch. */
_Noreturn static void run_child(lua_State *L) {
    bind_child_enter(L);
    lua_pushvalue(L, REPORT);
    lua_pushvalue(L, BEGIN);
    lua_pushvalue(L, OBJECT);
    int handler = lua_gettop(L) - 2;
    bind_interrupt_hold(L, true); /* until REPORT knows whose it is */
    int status = lua_pcall(L, 1, 1, handler);
    bind_interrupt_hold(L, false);
    if (status == LUA_OK) {
        lua_pushvalue(L, OBJECT);
        status = lua_pcall(L, 1, 0, handler);
    }
    /* REPORT has told; but for one that failed itself. */
    if (status != LUA_OK && lua_isstring(L, -1))
        dprintf(STDERR_FILENO, "%s\n", lua_tostring(L, -1));
    bind_child_end(L);
    mp_family_exit(status == LUA_OK ? EXIT_SUCCESS : EXIT_FAILURE);
}

/* Out of CHILDREN, whose place is on top. */
static void forget(lua_State *L, child *c) {
    luaL_unref(L, -1, c->ref);
    c->ref = LUA_NOREF;
}

/* Takes those that ended, and those of this process's parent, out of
   CHILDREN, and leaves it on the stack. */
static void push_children(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &CHILDREN);
    for (lua_Unsigned i = lua_rawlen(L, -1); i > 0; i--) {
        lua_rawgeti(L, -1, (lua_Integer)i);
        child *c = lua_touserdata(L, -1); /* or NULL: a free place */
        lua_pop(L, 1);
        if (c && (!c->relative || !c->relative->listed ||
                  mp_family_wait(c->relative, MP_AT_ONCE) == 0))
            forget(L, c);
    }
}

int bind_start_failed(lua_State *L, const char *what, int r,
                      const char *problem) {
    if (!*problem) return bind_oserror(L, r, what);
    if (r == -EPROTO || r == -EOWNERDEAD)
        return bind_error(L, "StateError", "%s: %s", what, problem);
    return bind_oserror(L, r, lua_pushfstring(L, "%s: %s", what, problem));
}

/* (r, problem): to be called protected. */
static int raise_failure(lua_State *L) {
    return bind_start_failed(L, "cannot start a process",
                             (int)lua_tointeger(L, 1), lua_tostring(L, 2));
}

/* Pushes nil and an error object. */
static int push_failure(lua_State *L, int r, const char *problem) {
    lua_pushnil(L);
    lua_pushcfunction(L, raise_failure);
    lua_pushinteger(L, r);
    lua_pushstring(L, problem);
    lua_pcall(L, 2, 1, 0);
    return 2;
}

/* (Child): puts it into CHILDREN, so that nothing can fail once it runs. */
static int enlist(lua_State *L) {
    child *c = lua_touserdata(L, 1);
    push_children(L);
    lua_pushvalue(L, 1);
    c->ref = luaL_ref(L, -2);
    return 0;
}

/* Starts the Child at `place`. As mp_family_start; raises what enlist does,
   with what `start` owns freed. */
static int start_child(lua_State *L, int place, bool daemon,
                       const mp_start *start) {
    child *c = lua_touserdata(L, place);
    lua_pushcfunction(L, enlist);
    lua_pushvalue(L, place);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        if (start && start->message) mp_free(start->message);
        if (start && start->preload) mp_free(start->preload);
        return lua_error(L);
    }
    int r = mp_family_start(&c->relative, lua_topointer(L, LUA_REGISTRYINDEX),
                            daemon, start);
    if (r < 0) {
        push_children(L); /* which takes it out */
        lua_pop(L, 1);
    } else if (r == 0) {
        c->pid = c->relative->proc.pid;
        c->tag = c->relative->proc.tag;
    }
    return r;
}

/* start(begin, report, object, daemon) -> Child, or nil and an error object
   whose place the caller knows better. In the child it does not return. */
static int process_start(lua_State *L) {
    luaL_checktype(L, BEGIN, LUA_TFUNCTION);
    luaL_checktype(L, REPORT, LUA_TFUNCTION);
    lua_settop(L, DAEMON);
    bind_open_runtime(L);
    bind_gc_before_fork(L);
    new_child(L, OBJECT);
    int r = start_child(L, lua_gettop(L), lua_toboolean(L, DAEMON), NULL);
    if (r == 1) run_child(L);
    return r < 0 ? push_failure(L, r, "") : 1;
}

/* ---- starting by the other methods ---------------------------------- */

/* Arguments of start_fresh; the job's follow. */
enum { METHOD = 1, A_BIRTH, JOB, FRESH_OBJECT, FRESH_DAEMON };

/* What mp.program._argv() says, as an array; its strings stay on the stack,
   in their table. */
void bind_process_argv(lua_State *L, const char **argv) {
    bind_push_member(L, "mp.program", "_argv");
    lua_call(L, 0, 1);
    int n = 0;
    while (n < BIND_WORDS && lua_rawgeti(L, -1, n + 1) == LUA_TSTRING) {
        argv[n++] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    argv[n < BIND_WORDS ? n : BIND_WORDS - 1] = NULL;
    lua_pop(L, 1);
}

/* start_fresh(method, birth, job, object, daemon, args...) -> Child, or nil
   and an error object. `job` is a function, or the Process object itself;
   raises PicklingError when it cannot travel. */
static int process_start_fresh(lua_State *L) {
    const mp_start_method *method =
        mp_start_method_named(luaL_checkstring(L, METHOD));
    if (!method || method->start == mp_start_fork)
        return bind_error(L, "ValueError", "cannot find context for '%s'",
                          lua_tostring(L, METHOD));
    const char *argv[BIND_WORDS] = {NULL};
    char problem[MP_BOOT_PROBLEM] = "";
    int n = lua_gettop(L) - FRESH_DAEMON;
    bind_open_runtime(L);
    lua_pushvalue(L, JOB);
    lua_insert(L, FRESH_DAEMON + 1);
    new_child(L, FRESH_OBJECT);
    int place = lua_gettop(L);
    if (method->start != mp_start_thread) bind_process_argv(L, argv);
    mp_ref message =
        bind_boot_message(L, A_BIRTH, FRESH_DAEMON + 1, n + 1);
    mp_start start = {.method = method,
                      .kind = BIND_BOOT_PROCESS,
                      .message = message,
                      .argv = argv,
                      .problem = problem};
    if (method->start == mp_start_server)
        start.preload = bind_boot_preload(L, message);
    int r = start_child(L, place, lua_toboolean(L, FRESH_DAEMON), &start);
    if (r < 0) return push_failure(L, r, problem);
    lua_settop(L, place);
    return 1;
}

/* active() -> list of the objects whose child runs */
static int process_active(lua_State *L) {
    lua_settop(L, 0);
    lua_newtable(L);
    push_children(L);
    lua_Integer n = 0;
    for (lua_Unsigned i = lua_rawlen(L, 2); i > 0; i--) {
        if (lua_rawgeti(L, 2, (lua_Integer)i) == LUA_TUSERDATA) {
            lua_getiuservalue(L, -1, 1);
            lua_rawseti(L, 1, ++n);
        }
        lua_pop(L, 1);
    }
    lua_settop(L, 1);
    return 1;
}

/* methods() -> list of the start methods, the default first */
static int process_methods(lua_State *L) {
    lua_newtable(L);
    for (int i = 0; mp_start_methods[i].name; i++) {
        lua_pushstring(L, mp_start_methods[i].name);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* threads() -> how many this process has */
static int process_threads(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)mp_start_threads());
    return 1;
}

/* ---- a child, seen by its parent ------------------------------------ */

static child *check_child(lua_State *L) {
    return luaL_checkudata(L, 1, "mp.Child");
}

static void note_end(lua_State *L, child *c) {
    c->exitcode = c->relative->proc.exitcode;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &CHILDREN);
    forget(L, c);
    lua_pop(L, 1);
}

/* join([timeout]) -> whether it ended */
static int child_join(lua_State *L) {
    child *c = check_child(L);
    if (!c->relative) return lua_pushboolean(L, 1), 1;
    mp_deadline deadline = bind_deadline(L, 2, "join");
    int r;
    while ((r = mp_family_wait(c->relative, deadline)) == -EINTR) {
        bind_interrupted(L);
        if (!c->relative) return lua_pushboolean(L, 1), 1; /* by a hook */
    }
    if (r == 0)
        note_end(L, c);
    else if (r == -ECHILD)
        bind_error(L, "StateError", "can only join a child process");
    else if (r != -ETIMEDOUT)
        bind_oserror(L, r, "join");
    lua_pushboolean(L, r == 0);
    return 1;
}

/* poll() -> ended, exit code (nil while it runs, or when nobody knows) */
static int child_poll(lua_State *L) {
    child *c = check_child(L);
    bool ended = true;
    if (c->relative) {
        ended = mp_family_wait(c->relative, MP_AT_ONCE) == 0;
        if (ended) note_end(L, c);
    }
    lua_pushboolean(L, ended);
    if (!ended || c->exitcode == MP_PROC_UNKNOWN) return 1;
    lua_pushinteger(L, c->exitcode);
    return 2;
}

/* signal(number) */
static int child_signal(lua_State *L) {
    child *c = check_child(L);
    int signal = (int)luaL_checkinteger(L, 2);
    int r = c->relative ? mp_proc_signal(&c->relative->proc, signal) : 0;
    if (r < 0) bind_oserror(L, r, "cannot signal a process");
    return 0;
}

static int child_pid(lua_State *L) {
    lua_pushinteger(L, check_child(L)->pid);
    return 1;
}

/* tag() -> its participant's */
static int child_tag(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)check_child(L)->tag);
    return 1;
}

/* mine() -> may this process wait for it? */
static int child_mine(lua_State *L) {
    child *c = check_child(L);
    lua_pushboolean(L, c->relative && c->relative->proc.parent == getpid());
    return 1;
}

/* sentinel() -> descriptor that is readable when it has ended */
static int child_sentinel(lua_State *L) {
    int fd = mp_proc_sentinel(&check_child(L)->relative->proc);
    if (fd < 0) bind_oserror(L, fd, "sentinel");
    lua_pushinteger(L, fd);
    return 1;
}

static int child_close(lua_State *L) {
    child *c = check_child(L);
    if (c->relative) mp_family_drop(c->relative);
    c->relative = NULL;
    return 0;
}

/* ---- any participant: a parent -------------------------------------- */

/* alive(tag) */
static int process_alive(lua_State *L) {
    uint32_t tag = (uint32_t)luaL_checkinteger(L, 1);
    bind_open_runtime(L);
    lua_pushboolean(L, mp_proc_wait_peer(tag, MP_AT_ONCE) != 0);
    return 1;
}

/* await(tag [, timeout]) -> whether it ended */
static int process_await(lua_State *L) {
    uint32_t tag = (uint32_t)luaL_checkinteger(L, 1);
    mp_deadline deadline = bind_deadline(L, 2, "join");
    int r;
    bind_open_runtime(L);
    while ((r = mp_proc_wait_peer(tag, deadline)) == -EINTR)
        bind_interrupted(L);
    lua_pushboolean(L, r == 0);
    return 1;
}

/* tag() -> this participant's, for the two above */
static int process_tag(lua_State *L) {
    bind_open_runtime(L);
    lua_pushinteger(L, mp_me->tag);
    return 1;
}

/* parameters(function) -> how many, whether there may be more */
static int process_parameters(lua_State *L) {
    lua_Debug ar;
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_getinfo(L, ">u", &ar);
    lua_pushinteger(L, ar.nparams);
    lua_pushboolean(L, ar.isvararg);
    return 2;
}

/* ignore_interrupts(): Ctrl-C is for others. Not in a thread, which has no
   signals. */
static int process_ignore_interrupts(lua_State *L) {
    bind_interrupt_forget();
    if (!mp_start_mask()) mp_signal_swallow(SIGINT);
    (void)L;
    return 0;
}

/* ---- opening -------------------------------------------------------- */

static void open_child_class(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"join", child_join},         {"poll", child_poll},
        {"signal", child_signal},     {"pid", child_pid},
        {"mine", child_mine},         {"sentinel", child_sentinel},
        {"tag", child_tag},
        {"close", child_close},       {NULL, NULL}};
    luaL_newmetatable(L, "mp.Child");
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, child_close);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}

static void open_at_exit(void) {
    static _Atomic bool done; /* by the state of some thread */
    if (!atomic_exchange(&done, true)) atexit(end_process);
}

void bind_process_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"start", process_start}, {"start_fresh", process_start_fresh},
        {"active", process_active}, {"methods", process_methods},
        {"threads", process_threads}, {"alive", process_alive},
        {"await", process_await}, {"tag", process_tag},
        {"parameters", process_parameters},
        {"ignore_interrupts", process_ignore_interrupts},
        {"finish", process_finish}, {"tempdir", process_tempdir},
        {NULL, NULL}};
    open_child_class(L);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &CHILDREN);
    bind_push_hook(L, "__gc", end_state);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &SENTINEL);
    open_at_exit();
    luaL_newlib(L, functions);
    bind_child_open(L);
    lua_setfield(L, -2, "process");
}
