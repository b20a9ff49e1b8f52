/* Runs what the command line names, in lua's order: LUA_INIT, then -e, -l
   and -W as they stand, then the script, then a session or stdin. */
#include "mplua.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bind/boot.h"
#include "bind/core.h"
#include "bind/cradle.h"
#include "bind/interrupt.h"
#include "bind/spare.h"
#include "bind/thread.h"
#include "cli/cli.h"

/* Exit code of a program that Ctrl-C ended, as shells count it. */
#define CODE_INTERRUPTED 130


/* --- errors ------------------------------------------------------------ */

void cli_message(const cli *c, const char *text) {
    fflush(stdout);
    if (c->program != NULL)
        fprintf(stderr, "%s: ", c->program);
    fprintf(stderr, "%s\n", text);
    fflush(stderr);
}

int cli_report(const cli *c, int status) {
    if (status != LUA_OK) {
        const char *text = lua_tostring(c->L, -1);
        cli_message(c, text ? text : "(error message not a string)");
        lua_pop(c->L, 1);
    }
    return status;
}

/* Is the value at 1 an error object of mp's (and not just a table)? */
static bool is_error_object(lua_State *L) {
    if (!lua_istable(L, 1) || luaL_getmetafield(L, 1, "__name") == LUA_TNIL)
        return false;
    const char *name = lua_tostring(L, -1);
    bool is = name != NULL && strcmp(name, "mp.error") == 0;
    lua_pop(L, 1);
    return is;
}

/* «script.lua:12: Kind: message», as Lua writes its own errors. */
static const char *describe_error_object(lua_State *L) {
    lua_pushliteral(L, "where");
    lua_rawget(L, 1);
    const char *where = lua_tostring(L, -1);
    const char *text = luaL_tolstring(L, 1, NULL);
    return where && *where ? lua_pushfstring(L, "%s %s", where, text) : text;
}

/* Is it an Interrupted that nobody will catch? Then a line says it all. */
static bool note_interrupted(cli *c, lua_State *L) {
    lua_pushliteral(L, "kind");
    lua_rawget(L, 1);
    const char *kind = lua_tostring(L, -1);
    bool is = kind != NULL && strcmp(kind, "Interrupted") == 0;
    lua_pop(L, 1);
    if (!is)
        return false;
    c->code = CODE_INTERRUPTED;
    cli_interrupt_uncaught();
    return true;
}

/* Message handler; upvalue 1 is the cli. Objects with a __tostring of
   their own are trusted to say it all. */
static int on_error(lua_State *L) {
    cli *c = lua_touserdata(L, lua_upvalueindex(1));
    const char *text = lua_tostring(L, 1);
    c->code = EXIT_FAILURE;
    if (text == NULL && is_error_object(L)) {
        text = describe_error_object(L);
        if (note_interrupted(c, L))
            return lua_pushstring(L, text), 1;
    } else if (text == NULL) {
        if (luaL_callmeta(L, 1, "__tostring") &&
            lua_type(L, -1) == LUA_TSTRING)
            return 1;
        text = lua_pushfstring(L, "(error object is a %s value)",
                               luaL_typename(L, 1));
    }
    luaL_traceback(L, L, text, 1);
    return 1;
}

int cli_call(cli *c, int nargs, int nresults) {
    lua_State *L = c->L;
    int base = lua_gettop(L) - nargs;
    lua_pushlightuserdata(L, c);
    lua_pushcclosure(L, on_error, 1);
    lua_insert(L, base);
    cli_interrupt_run(L);
    int status = lua_pcall(L, nargs, nresults, base);
    cli_interrupt_done();
    lua_remove(L, base);
    return status;
}

/* --- pieces of a command line ------------------------------------------ */

static int run_chunk(cli *c, int status) {
    if (status == LUA_OK)
        status = cli_call(c, 0, 0);
    return cli_report(c, status);
}

static int run_file(cli *c, const char *path) {
    return run_chunk(c, luaL_loadfile(c->L, path));
}

static int run_string(cli *c, const char *text, const char *chunk) {
    return run_chunk(c, luaL_loadbuffer(c->L, text, strlen(text), chunk));
}

/* -l mod, or -l global=mod */
static int run_library(cli *c, char *text) {
    char *module = strchr(text, '=');
    if (module == NULL)
        module = text;
    else
        *module++ = '\0';
    lua_getglobal(c->L, "require");
    lua_pushstring(c->L, module);
    int status = cli_call(c, 1, 1);
    if (status == LUA_OK)
        lua_setglobal(c->L, text);
    return cli_report(c, status);
}

static int run_init(cli *c) {
    const char *name = "=LUA_INIT" LUA_VERSUFFIX;
    const char *text = getenv(name + 1);
    if (text == NULL) {
        name = "=LUA_INIT";
        text = getenv(name + 1);
    }
    if (text == NULL)
        return LUA_OK;
    return text[0] == '@' ? run_file(c, text + 1)
                          : run_string(c, text, name);
}

/* -e, -l and -W among the words before the script, in their order. */
static int run_options(cli *c, char **argv, int end) {
    int status = LUA_OK;
    for (int i = 1; i < end && status == LUA_OK; i++) {
        switch (argv[i][1]) {
        case 'e':
            status = run_string(c, cli_options_value(argv, &i),
                                "=(command line)");
            break;
        case 'l':
            status = run_library(c, cli_options_value(argv, &i));
            break;
        case 'W':
            lua_warning(c->L, "@on", 0);
            break;
        default:
            break;
        }
    }
    return status;
}

/* Pushes arg[1], arg[2], ...: LUA_INIT or -e may have changed them. */
static int push_arguments(lua_State *L) {
    if (lua_getglobal(L, "arg") != LUA_TTABLE)
        luaL_error(L, "'arg' is not a table");
    int n = (int)luaL_len(L, -1);
    luaL_checkstack(L, n + 3, "too many arguments to script");
    for (int i = 1; i <= n; i++)
        lua_rawgeti(L, -i, i);
    lua_remove(L, -n - 1);
    return n;
}

/* `script` points into argv; "-" is stdin unless "--" stands before it. */
static int run_script(cli *c, char **script) {
    bool input =
        strcmp(script[0], "-") == 0 && strcmp(script[-1], "--") != 0;
    int status = luaL_loadfile(c->L, input ? NULL : script[0]);
    if (status == LUA_OK)
        status = cli_call(c, push_arguments(c->L), LUA_MULTRET);
    return cli_report(c, status);
}

/* arg[0] is the script, the words before it count down from -1. */
static void make_arg(lua_State *L, char **argv, int script) {
    if (argv[script] == NULL)
        script = 0;
    lua_createtable(L, 0, script + 1);
    for (int i = 0; argv[i] != NULL; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

static void print_version(void) {
    puts(LUA_COPYRIGHT);
    fflush(stdout);
}

/* The generational mode costs least while there is nothing; what the libraries
   are made of is no garbage, and the first collection waits until as much was
   allocated again. */
static void open_libraries(lua_State *L, const cli_options *o) {
    lua_gc(L, LUA_GCSTOP);
    lua_gc(L, LUA_GCGEN, 0, 0);
    if (o->ignore_env) { /* `package` looks at this when it opens */
        lua_pushboolean(L, 1);
        lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
    }
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, BIND_IS_MPLUA);
    luaL_openlibs(L);
    mplua_open(L);
    lua_gc(L, LUA_GCRESTART);
    lua_gc(L, LUA_GCSTEP, -lua_gc(L, LUA_GCCOUNT));
}

static int furnish_thread(lua_State *L) {
    const cli_options plain = {.ignore_env = true}; /* its starter looked */
    open_libraries(L, &plain);
    return 0;
}

/* The state of a thread is as the program's own. */
static lua_State *new_thread_state(void) {
    lua_State *L = luaL_newstate();
    if (!L) return NULL;
    bind_spare_enter(L);
    bind_cradle_enter(L);
    lua_pushcfunction(L, furnish_thread);
    if (lua_pcall(L, 0, 0, 0) == LUA_OK) return L;
    bind_cradle_close(L);
    return NULL;
}

/* What remains when options and script are done. */
static void run_session(cli *c, const cli_options *o, bool script) {
    if (o->interactive) {
        cli_repl(c);
    } else if (!script && !o->execute && !o->version) {
        if (isatty(STDIN_FILENO)) {
            print_version();
            cli_repl(c);
        } else {
            run_file(c, NULL);
        }
    }
}

/* --- the program ------------------------------------------------------- */

/* os.exit(code, true) closes the state under the code that runs: the first
   userdata of a state is the last to go. */
static int at_close(lua_State *L) {
    (void)L;
    cli_interrupt_done();
    return 0;
}

static void watch_close(lua_State *L) {
    bind_push_hook(L, "__gc", at_close);
    luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Protected: the cli and argv are on the stack; true means success. */
static int run_protected(lua_State *L) {
    cli *c = lua_touserdata(L, 1);
    char **argv = lua_touserdata(L, 2);
    watch_close(L);
    cli_options o = cli_options_read(argv);
    luaL_checkversion(L);
    if (o.bad) {
        cli_options_usage(c, argv[o.script]);
        return 0;
    }
    if (o.fsck) {
        c->code = cli_fsck(c, argv + o.script);
        lua_pushboolean(L, c->code == EXIT_SUCCESS);
        return 1;
    }
    if (o.version)
        print_version();
    bind_thread_makes(new_thread_state);
    open_libraries(L, &o);
    make_arg(L, argv, o.script);
    bool script = argv[o.script] != NULL;
    if ((!o.ignore_env && run_init(c) != LUA_OK) ||
        run_options(c, argv, o.script) != LUA_OK ||
        (script && run_script(c, argv + o.script) != LUA_OK))
        return 0;
    run_session(c, &o, script);
    lua_pushboolean(L, 1);
    return 1;
}


/* Waits for children and ends daemons, unless a second Ctrl-C comes. Was
   there a first? */
static bool close_state(cli *c, int code) {
    bool first = code != CODE_INTERRUPTED;
    if (first)
        cli_interrupt_wait();
    lua_close(c->L);
    bool interrupted = first && cli_interrupt_noted();
    if (interrupted)
        cli_message(c, "Interrupted: Ctrl-C");
    return interrupted;
}

int mplua_main(int argc, char **argv) {
    cli c = {.program = "mplua", .code = EXIT_FAILURE};
    if (argc > 0 && argv[0][0] != '\0')
        c.program = argv[0];
    c.L = luaL_newstate();
    if (c.L == NULL) {
        cli_message(&c, "cannot create state: not enough memory");
        return EXIT_FAILURE;
    }
    bind_spare_enter(c.L);
    cli_interrupt_take();
    lua_pushcfunction(c.L, run_protected);
    lua_pushlightuserdata(c.L, &c);
    lua_pushlightuserdata(c.L, argv);
    int status = lua_pcall(c.L, 2, 1, 0);
    bool success = lua_toboolean(c.L, -1);
    cli_report(&c, status);
    int code = success && status == LUA_OK ? EXIT_SUCCESS : c.code;
    if (close_state(&c, code))
        code = CODE_INTERRUPTED;
    cli_interrupt_give_back();
    return code;
}
