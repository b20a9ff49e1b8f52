/* mp.pickle: messages as strings that can be kept.

   A string begins with a head: a magic number, the version of the format
   and that of Lua, and the PACK_* flags that it needs.  Bytecode can do
   anything, and a handle means something in one arena only: a string that
   holds either ends with a seal made with our family's secret, and loads
   takes neither from a string whose seal is not ours. */
#include <string.h>

#include "bind/bind.h"
#include "bind/core.h"
#include "bind/pack_impl.h"

#define MAGIC "\211mpk"
#define MAGIC_LEN 4
#define FORMAT 2
#define HEAD_LEN (MAGIC_LEN + 3) /* format, Lua's version, flags */
#define SEAL_LEN 8

static void put_head(unsigned char *head, int needs) {
    memcpy(head, MAGIC, MAGIC_LEN);
    head[MAGIC_LEN] = FORMAT;
    head[MAGIC_LEN + 1] = LUA_VERSION_NUM & 0xff;
    head[MAGIC_LEN + 2] = (unsigned char)needs;
}

static void make_seal(unsigned char *seal, const void *data, size_t len) {
    unsigned char key[16];
    bind_family(key);
    mp_u64_put(seal, mp_siphash(key, data, len));
}

static int pickle_dumps(lua_State *L) {
    if (lua_isnone(L, 1))
        bind_argerror(L, "dumps", 1, "v", "value");
    lua_settop(L, 1);
    packer *k = (packer *)pack_begin(L);
    pack_out *out = &k->out;
    pack_room(L, k, HEAD_LEN);
    out->len = HEAD_LEN; /* filled in when the flags are known */
    pack_value(L, out, 1, "value");
    put_head(out->data, out->needs);
    if (out->needs) {
        unsigned char *seal = pack_room(L, k, SEAL_LEN);
        make_seal(seal, out->data, out->len);
        out->len += SEAL_LEN;
    }
    lua_pushlstring(L, (char *)out->data, out->len);
    pack_end(L, 2);
    return 1;
}

/* The value of opts.trusted; any other option is an error. */
static bool check_options(lua_State *L) {
    if (lua_isnoneornil(L, 2))
        return false;
    if (!lua_istable(L, 2))
        bind_argerror(L, "loads", 2, "opts", "table");
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING ||
            strcmp(lua_tostring(L, -1), "trusted") != 0)
            bind_error(L, "TypeError", "loads: unknown option '%s'",
                       luaL_tolstring(L, -1, NULL));
    }
    lua_pushliteral(L, "trusted");
    lua_rawget(L, 2);
    return lua_toboolean(L, -1);
}

/* Checks the head and returns the flags that it asks for. */
static int check_head(lua_State *L, const unsigned char *s, size_t len) {
    if (len < HEAD_LEN || memcmp(s, MAGIC, MAGIC_LEN) != 0)
        bind_error(L, "PicklingError", "loads: not a string that dumps made");
    if (s[MAGIC_LEN] != FORMAT)
        bind_error(L, "PicklingError", "loads: format %d, expected %d",
                   (int)s[MAGIC_LEN], FORMAT);
    int needs = s[MAGIC_LEN + 2];
    if (needs & ~(PACK_CODE | PACK_HANDLES) ||
        len < HEAD_LEN + (size_t)(needs ? SEAL_LEN : 0))
        bind_error(L, "PicklingError", "loads: the head is damaged");
    if (needs & PACK_CODE && s[MAGIC_LEN + 1] != (LUA_VERSION_NUM & 0xff))
        bind_error(L, "PicklingError", "loads: the string holds code of "
                   "another version of Lua");
    return needs;
}

/* Raises unless the `len` bytes at `s`, with the seal behind them, may do
   what they need. */
static void check_seal(lua_State *L, const unsigned char *s, size_t len,
                       int needs, bool trusted) {
    unsigned char seal[SEAL_LEN];
    make_seal(seal, s, len);
    if (memcmp(seal, s + len, SEAL_LEN) == 0)
        return;
    if (needs & PACK_HANDLES)
        bind_error(L, "PicklingError", "loads: the string names shared "
                   "objects, and is damaged or not of this program's family");
    if (!trusted)
        bind_error(L, "PicklingError", "loads: the string holds code, and is "
                   "damaged or not of this program's family; give "
                   "{trusted=true} if you know where it comes from");
}

static int pickle_loads(lua_State *L) {
    if (lua_type(L, 1) != LUA_TSTRING)
        bind_argerror(L, "loads", 1, "s", "string");
    bool trusted = check_options(L);
    size_t len;
    const unsigned char *s =
        (const unsigned char *)lua_tolstring(L, 1, &len);
    int needs = check_head(L, s, len);
    if (needs) {
        len -= SEAL_LEN;
        check_seal(L, s, len, needs, trusted);
    }
    lua_settop(L, 1);
    if (pack_decode(L, s + HEAD_LEN, len - HEAD_LEN, needs) != 1)
        bind_error(L, "PicklingError", "loads: not exactly one value");
    return 1;
}

void bind_pickle_open(lua_State *L) {
    static const luaL_Reg functions[] = {{"dumps", pickle_dumps},
                                         {"loads", pickle_loads},
                                         {"register", pack_class_register},
                                         {NULL, NULL}};
    luaL_newlib(L, functions);
    lua_setfield(L, -2, "pickle");
}
