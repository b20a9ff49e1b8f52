/* The interactive session: a line is tried as an expression, then as a
   statement; a statement that wants more gets more lines. */
#include "cli/cli.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK "=stdin"

/* The global `name` as text, or the usual prompt when it is not set. */
static void show_prompt(lua_State *L, const char *name, const char *usual) {
    bool set = lua_getglobal(L, name) != LUA_TNIL;
    fputs(set ? luaL_tolstring(L, -1, NULL) : usual, stdout);
    fflush(stdout);
    lua_pop(L, set ? 2 : 1);
}

/* What asking for a line came to. */
typedef enum answer { LINE, END, BROKEN_OFF } answer;

/* load_statement's, when it was broken off. */
#define NO_STATEMENT (-1)

/* Reads a line, which the caller frees; its length, or -1. */
static ssize_t read_line(char **line, bool *broken_off) {
    size_t cap = 0;
    ssize_t len = -1;
    *line = NULL;
    bool again = true;
    while (again && !cli_interrupt_noted()) {
        clearerr(stdin);
        errno = 0;
        len = getline(line, &cap, stdin);
        again = len < 0 && errno == EINTR;
    }
    *broken_off = len < 0 && cli_interrupt_noted();
    return len;
}

/* Pushes the next line without its newline, if there is one. */
static answer push_line(lua_State *L, bool first) {
    cli_interrupt_prompt();
    if (first)
        show_prompt(L, "_PROMPT", "> ");
    else
        show_prompt(L, "_PROMPT2", ">> ");
    char *line;
    bool broken_off;
    ssize_t len = read_line(&line, &broken_off);
    cli_interrupt_done();
    if (len > 0 && line[len - 1] == '\n')
        line[--len] = '\0';
    if (len >= 0 && first && line[0] == '=') /* "=x" of older Luas */
        lua_pushfstring(L, "return %s", line + 1);
    else if (len >= 0)
        lua_pushlstring(L, line, (size_t)len);
    free(line);
    if (broken_off) {
        putchar('\n');
        return BROKEN_OFF;
    }
    return len >= 0 ? LINE : END;
}

/* Does the syntax error on the stack say that the text just ended early? */
static bool wants_more(lua_State *L, int status) {
    size_t len;
    if (status != LUA_ERRSYNTAX)
        return false;
    const char *text = lua_tolstring(L, -1, &len);
    const char mark[] = "<eof>";
    size_t n = sizeof mark - 1;
    return len >= n && memcmp(text + len - n, mark, n) == 0;
}

static int load_text(lua_State *L, int idx) {
    size_t len;
    const char *text = lua_tolstring(L, idx, &len);
    return luaL_loadbuffer(L, text, len, CHUNK);
}

/* Replaces the line at index 1 by a function or an error text, or says that
   there is NO_STATEMENT. */
static int load_statement(lua_State *L) {
    lua_pushfstring(L, "return %s", lua_tostring(L, 1));
    int status = load_text(L, -1);
    lua_remove(L, 2);
    while (status != LUA_OK) {
        lua_settop(L, 1);
        status = load_text(L, 1);
        if (!wants_more(L, status))
            break;
        answer more = push_line(L, false);
        if (more == BROKEN_OFF)
            return NO_STATEMENT;
        if (more == END)
            break;
        lua_remove(L, 2); /* the complaint */
        lua_pushliteral(L, "\n");
        lua_insert(L, 2);
        lua_concat(L, 3);
        status = LUA_ERRSYNTAX;
    }
    lua_remove(L, 1);
    return status;
}

static void print_results(cli *c) {
    lua_State *L = c->L;
    int n = lua_gettop(L);
    if (n == 0)
        return;
    luaL_checkstack(L, LUA_MINSTACK, "too many results to print");
    lua_getglobal(L, "print");
    lua_insert(L, 1);
    if (lua_pcall(L, n, 0, 0) != LUA_OK)
        cli_message(c, lua_pushfstring(L, "error calling 'print' (%s)",
                                       lua_tostring(L, -1)));
}

void cli_repl(cli *c) {
    lua_State *L = c->L;
    const char *program = c->program;
    c->program = NULL; /* messages of a session need no name */
    lua_settop(L, 0);
    for (answer got; (got = push_line(L, true)) != END; lua_settop(L, 0)) {
        int status = got == LINE ? load_statement(L) : NO_STATEMENT;
        if (status == NO_STATEMENT)
            continue;
        if (status == LUA_OK)
            status = cli_call(c, 0, LUA_MULTRET);
        if (cli_report(c, status) == LUA_OK)
            print_results(c);
    }
    putchar('\n');
    fflush(stdout);
    c->program = program;
}
