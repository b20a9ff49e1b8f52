/* Fuzzes the decoder of pickles: any bytes at all must decode or raise, and
   take memory in proportion to their number.  What decodes must encode and
   decode again.

   With libFuzzer (clang -fsanitize=fuzzer,address,undefined) this is its
   target; without it, FUZZ_MAIN makes a program that tries the files it is
   given, or bytes from stdin (AFL), or `-n COUNT FILES`: COUNT mutations of
   the files, the same in every run.

   Bytes are taken as those of a stranger: no code, no handles. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/core.h"
#include "bind/pack.h"

/* Bytes of memory that decoding one byte may take at most: a table of no
   items costs 56 and its header 3 bytes, a frame and its slots some more;
   room is made for announced items, and doubled by Lua's growth. */
#define MEMORY_PER_BYTE 400
#define MEMORY_BASE ((size_t)1 << 20)

static size_t used, limit = SIZE_MAX;

/* Lua's allocator, which counts, and ends the run above the limit. */
static void *counted(void *ud, void *p, size_t old, size_t new) {
    (void)ud;
    used += new - (p ? old : 0);
    if (used > limit) {
        fprintf(stderr, "too much memory: %zu bytes\n", used);
        abort();
    }
    if (new == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, new);
}

static int fuzz_decode(lua_State *L) {
    const void *data = lua_touserdata(L, 1);
    size_t len = (size_t)lua_tointeger(L, 2);
    lua_settop(L, 0);
    return pack_decode(L, data, len, 0);
}

/* What came out must go in again, all values of it. */
static int fuzz_again(lua_State *L) {
    int n = lua_gettop(L);
    luaL_checkstack(L, 4, NULL);
    pack_out *out = pack_begin(L);
    for (int i = 1; i <= n; i++)
        pack_value(L, out, i, "value");
    int again = pack_decode(L, out->data ? out->data : (unsigned char *)"",
                            out->len, out->needs);
    if (again != n)
        luaL_error(L, "%d values became %d", n, again);
    pack_end(L, n + 1);
    return 0;
}

static lua_State *new_state(void) {
    lua_State *L = lua_newstate(counted, NULL);
    luaL_openlibs(L);
    lua_newtable(L);
    bind_error_open(L);
    bind_pickle_open(L);
    lua_setglobal(L, "core");
    if (luaL_dostring(L, "core.pickle.register('c', {}, print, table.pack)"
                         "core.pickle.register('d', {__index = print})"
                         "core.pickle.register('e', {"
                         "__getstate = function(o) return o[1] end,"
                         "__setstate = function(o, s) o[1] = s end})"))
        abort();
    return L;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    static lua_State *L;
    if (!L)
        L = new_state();
    if (!data)
        data = (const uint8_t *)""; /* strings are never NULL */
    lua_gc(L, LUA_GCCOLLECT);
    lua_pushcfunction(L, fuzz_decode);
    lua_pushlightuserdata(L, (void *)(uintptr_t)data);
    lua_pushinteger(L, (lua_Integer)len);
    limit = used + MEMORY_BASE + len * MEMORY_PER_BYTE;
    int result = lua_pcall(L, 2, LUA_MULTRET, 0);
    limit = SIZE_MAX;
    if (result == LUA_OK) {
        lua_pushcfunction(L, fuzz_again);
        lua_insert(L, 1);
        if (lua_pcall(L, lua_gettop(L) - 1, 0, 0) != LUA_OK) {
            fprintf(stderr, "not twice: %s\n", luaL_tolstring(L, -1, NULL));
            abort();
        }
    }
    lua_settop(L, 0);
    return 0;
}

#ifdef FUZZ_MAIN

#define INPUT_MAX ((size_t)1 << 20)

static uint32_t next_random(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* Changes, cuts out or repeats a few bytes; the new length. */
static size_t mutate(uint8_t *data, size_t len) {
    for (uint32_t i = next_random() % 5; len > 0; i--) {
        size_t at = next_random() % len, n = next_random() % 8;
        n = n < len - at ? n : len - at;
        switch (next_random() % 4) {
        case 0: data[at] = (uint8_t)next_random(); break;
        case 1: data[at] = (uint8_t)(0xc0 + next_random() % 32); break;
        case 2:
            memmove(data + at, data + at + n, len - at - n);
            len -= n;
            break;
        default:
            if (len + n < INPUT_MAX) {
                memmove(data + at + n, data + at, len - at);
                len += n;
            }
        }
        if (i == 0)
            break;
    }
    return len;
}

static int try_file(FILE *file, long mutations) {
    static uint8_t data[INPUT_MAX], changed[INPUT_MAX];
    if (!file) {
        perror("fuzz_loads");
        return 1;
    }
    size_t len = fread(data, 1, INPUT_MAX / 2, file);
    if (file != stdin)
        fclose(file);
    LLVMFuzzerTestOneInput(data, len);
    while (mutations-- > 0) {
        memcpy(changed, data, len);
        LLVMFuzzerTestOneInput(changed, mutate(changed, len));
    }
    return 0;
}

int main(int argc, char **argv) {
    long mutations = 0;
    int first = 1, failed = 0;
    if (argc > 2 && strcmp(argv[1], "-n") == 0) {
        mutations = strtol(argv[2], NULL, 10);
        first = 3;
    }
    if (first >= argc)
        return try_file(stdin, mutations);
    for (int i = first; i < argc; i++)
        failed |= try_file(fopen(argv[i], "rb"), mutations);
    return failed;
}

#endif
