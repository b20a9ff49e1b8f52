/* The modules of lua/mp inside the program.  The Makefile writes their
   names to modules.inc, one MODULE(name) a line, and compiles them to the
   folder MODULES; the assembler takes their bytes as they are, so nothing has
   to be quoted. */
#include "mplua.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <string.h>

#include "bind/core.h"
#include "bind/thread.h"

typedef struct module {
    const char *name;
    const char *start, *end;
} module;

#define MODULE(name)                                          \
    __asm__(".pushsection .rodata\n"                          \
            "mplua_text_" #name ":\n"                         \
            ".incbin \"" MODULES #name ".luac\"\n"           \
            "mplua_text_" #name "_end:\n"                     \
            ".popsection\n");                                 \
    extern const char mplua_text_##name[]                     \
        __attribute__((visibility("hidden")));                \
    extern const char mplua_text_##name##_end[]               \
        __attribute__((visibility("hidden")));
#include "modules.inc"
#undef MODULE

static const module modules[] = {
#define MODULE(name) {#name, mplua_text_##name, mplua_text_##name##_end},
#include "modules.inc"
#undef MODULE
    {NULL, NULL, NULL},
};

/* The loader that `require` calls: upvalue 1 is the module. */
static int load_module(lua_State *L) {
    const module *m = lua_touserdata(L, lua_upvalueindex(1));
    lua_settop(L, 2);
    lua_pushfstring(L, "=mp/%s.lua", m->name);
    if (luaL_loadbufferx(L, m->start, (size_t)(m->end - m->start),
                         lua_tostring(L, 3), "b") != LUA_OK)
        return lua_error(L);
    lua_replace(L, 3);
    lua_insert(L, 1);
    lua_call(L, 2, 1);
    return 1;
}

/* Is `name` that of the module? lua/mp/init.lua is "mp", lua/mp/queue.lua
   "mp.queue". */
static bool is_module(const char *name, const module *m) {
    if (strcmp(m->name, "init") == 0) return strcmp(name, "mp") == 0;
    return strncmp(name, "mp.", 3) == 0 && strcmp(name + 3, m->name) == 0;
}

/* Pushes the loader of a module of ours, or returns false. */
static bool push_loader(lua_State *L, const char *name) {
    if (strcmp(name, "mp.core") == 0) {
        lua_pushcfunction(L, luaopen_mp_core);
        return true;
    }
    for (const module *m = modules; m->name != NULL; m++)
        if (is_module(name, m)) {
            lua_pushlightuserdata(L, (void *)m);
            lua_pushcclosure(L, load_module, 1);
            return true;
        }
    return false;
}

/* __index of package.preload. */
static int find_loader(lua_State *L) {
    const char *name = lua_tostring(L, 2);
    return name != NULL && push_loader(L, name);
}

/* Enters all loaders, as fields, in the table on top. */
static void enter_loaders(lua_State *L) {
    push_loader(L, "mp.core");
    lua_setfield(L, -2, "mp.core");
    for (const module *m = modules; m->name != NULL; m++) {
        if (strcmp(m->name, "init") == 0)
            lua_pushliteral(L, "mp");
        else
            lua_pushfstring(L, "mp.%s", m->name);
        push_loader(L, lua_tostring(L, -1));
        lua_settable(L, -3);
    }
}

/* The loaders are made when they are asked for: most states, those of threads
   for one, have no use for them. Unless somebody else had that idea. */
int mplua_open(lua_State *L) {
    bind_thread_makes(mplua_newstate); /* what threads have */
    luaL_checkstack(L, 4, "mplua");
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    if (lua_getmetatable(L, -1)) {
        lua_pop(L, 1);
        enter_loaders(L);
    } else {
        lua_createtable(L, 0, 1);
        lua_pushcfunction(L, find_loader);
        lua_setfield(L, -2, "__index");
        lua_setmetatable(L, -2);
    }
    lua_pop(L, 1);
    return 0;
}

static int open_all(lua_State *L) {
    luaL_openlibs(L);
    return mplua_open(L);
}

lua_State *mplua_newstate(void) {
    lua_State *L = luaL_newstate();
    if (L == NULL)
        return NULL;
    lua_pushcfunction(L, open_all);
    if (lua_pcall(L, 0, 0, 0) == LUA_OK)
        return L;
    lua_close(L);
    return NULL;
}
