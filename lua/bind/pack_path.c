/* The words of a refusal.  The path to the culprit is the encoder's frames
   read from the outside in, so it costs nothing until it is needed. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/code.h"
#include "bind/pack_impl.h"

#define SHOWN 12     /* frames at each end of a long path */
#define KEY_SHOWN 40 /* bytes of a long key */

/* Pushes slot `which` (1 the thing, 2 the key) of frame `i`. */
static void push_slot(lua_State *L, const packer *k, size_t i, int which) {
    const pack_window *w = &k->window;
    if (i >= w->spilled)
        lua_pushvalue(L, pack_slot(w, i) + which - 1);
    else
        lua_rawgeti(L, w->spill, (lua_Integer)(2 * i) + which);
}

const char *pack_show(lua_State *L, const char *s, size_t len) {
    char shown[4 * KEY_SHOWN + 3], *to = shown;
    for (size_t i = 0; i < len && i < KEY_SHOWN; i++) {
        unsigned char byte = (unsigned char)s[i];
        if (byte >= ' ' && byte != 0x7f)
            *to++ = s[i];
        else
            to += snprintf(to, 5, "\\%03d", byte);
    }
    if (len > KEY_SHOWN) {
        *to++ = '.';
        *to++ = '.';
    }
    return lua_pushlstring(L, shown, (size_t)(to - shown));
}

static bool is_name(const char *s, size_t len) {
    if (len == 0 || len > KEY_SHOWN || isdigit((unsigned char)*s))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)s[i]) && s[i] != '_')
            return false;
    return true;
}

/* Replaces the key on top by how an index with it is written. */
static void show_key(lua_State *L) {
    if (lua_type(L, -1) == LUA_TSTRING) {
        size_t len;
        const char *s = lua_tolstring(L, -1, &len);
        if (is_name(s, len)) {
            lua_pushfstring(L, ".%s", s);
        } else {
            lua_pushfstring(L, "[\"%s\"]", pack_show(L, s, len));
            lua_remove(L, -2);
        }
    } else if (lua_isnumber(L, -1) || lua_isboolean(L, -1)) {
        lua_pushfstring(L, "[%s]", luaL_tolstring(L, -1, NULL));
        lua_remove(L, -2);
    } else {
        lua_pushfstring(L, "[a %s]", luaL_typename(L, -1));
    }
    lua_remove(L, -2);
}

/* Appends the string on top to the one below it. */
static void append(lua_State *L) {
    lua_concat(L, 2);
}

/* Appends « of function 'job' (script.lua:12)». */
static void append_function(lua_State *L, const packer *k, size_t i) {
    push_slot(L, k, i, 1);
    code_describe(L, -1);
    lua_pushfstring(L, " of %s", lua_tostring(L, -1));
    lua_replace(L, -3);
    lua_pop(L, 1);
    append(L);
}

/* Appends how frame `i` leads to what is inside it. */
static void append_frame(lua_State *L, const packer *k, size_t i) {
    const pack_frame *f = &k->frames[i];
    if (f->kind == FRAME_FUNC) {
        push_slot(L, k, i, 1);
        const char *name = lua_getupvalue(L, -1, (int)f->next);
        name = pack_show(L, name ? name : "?", name ? strlen(name) : 1);
        lua_pushfstring(L, ", upvalue '%s'", name);
        lua_insert(L, -4);
        lua_pop(L, 3);
    } else if (f->kind == FRAME_LIST && f->state && f->next == f->limit) {
        lua_pushliteral(L, ", its state");
    } else if (f->kind == FRAME_LIST) {
        lua_pushfstring(L, ", value %I that its reduce function returned",
                        (LUAI_UACINT)f->next);
    } else {
        push_slot(L, k, i, 2);
        show_key(L);
        if (f->in_key) {
            lua_pushliteral(L, " (the key)");
            append(L);
        }
    }
    append(L);
}

/* Pushes «args[2].handlers, upvalue 'co' of function 'job' (file:12)». */
static void push_path(lua_State *L, const packer *k) {
    size_t function = SIZE_MAX; /* an upvalue's, still to be named */
    lua_pushstring(L, k->what);
    for (size_t i = 0; i < k->nframes; i++) {
        bool leap = i == SHOWN && k->nframes > 2 * SHOWN;
        if (function != SIZE_MAX &&
            (leap || k->frames[i].kind == FRAME_FUNC)) {
            append_function(L, k, function);
            function = SIZE_MAX;
        }
        if (leap) {
            lua_pushfstring(L, " ...(%I more)... ",
                            (LUAI_UACINT)(k->nframes - 2 * SHOWN));
            append(L);
            i = k->nframes - SHOWN;
        }
        append_frame(L, k, i);
        if (k->frames[i].kind == FRAME_FUNC)
            function = i;
    }
    if (function != SIZE_MAX)
        append_function(L, k, function);
}

/* Pushes «coroutine», «userdata 'FILE*'»: the thing at `idx`. */
static void push_kind(lua_State *L, int idx) {
    int type = lua_type(L, idx);
    if (type == LUA_TTHREAD) {
        lua_pushliteral(L, "coroutine");
    } else if (type == LUA_TLIGHTUSERDATA) {
        lua_pushliteral(L, "light userdata");
    } else if (type == LUA_TFUNCTION) {
        code_describe(L, idx);
    } else if (luaL_getmetafield(L, idx, "__name") == LUA_TSTRING) {
        size_t len;
        const char *name = lua_tolstring(L, -1, &len);
        if (strcmp(name, LUA_FILEHANDLE) == 0)
            lua_pushliteral(L, "file");
        else
            lua_pushfstring(L, type == LUA_TTABLE ? "table of class '%s'"
                                                  : "%s",
                            pack_show(L, name, len));
    } else {
        lua_pushfstring(L, type == LUA_TTABLE ? "%s with a metatable" : "%s",
                        lua_typename(L, type));
    }
}

int pack_refuse(lua_State *L, packer *k, const char *advice, ...) {
    int idx = lua_gettop(L);
    pack_drop_parcels(k); /* not when the collector comes by */
    luaL_checkstack(L, 20, "pickling");
    push_kind(L, idx);
    const char *kind = lua_tostring(L, -1);
    push_path(L, k);
    const char *path = lua_tostring(L, -1);
    if (!advice)
        return bind_error(L, "PicklingError", "cannot pickle a %s: %s",
                          kind, path);
    va_list args;
    va_start(args, advice);
    const char *words = lua_pushvfstring(L, advice, args);
    va_end(args);
    return bind_error(L, "PicklingError", "cannot pickle a %s: %s; %s",
                      kind, path, words);
}
