/* mp.pickle: messages as strings that can be kept.

   A string begins with a head: a magic number, the version of the format
   and that of Lua, and the PACK_* flags that it needs.  Bytecode can do
   anything, and a handle means something in one arena only: a string that
   holds either ends with a seal made with our family's secret, and loads
   takes neither from a string whose seal is not ours. */
#include "bind/pickle.h"

#include <string.h>

#include "base/digest.h"
#include "bind/bind.h"
#include "bind/core.h"
#include "bind/pack_impl.h"

#define MAGIC "\211mpk"
#define MAGIC_LEN 4
#define FORMAT 2
#define HEAD_LEN (MAGIC_LEN + 3) /* format, Lua's version, flags */
#define SEAL_LEN 8
#define SEALED (PACK_CODE | PACK_HANDLES)

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

/* ---- making --------------------------------------------------------- */

pack_out *pickle_begin(lua_State *L) {
    pack_out *out = pack_begin(L);
    pack_room(L, (packer *)out, HEAD_LEN);
    out->len = HEAD_LEN; /* filled in when the flags are known */
    return out;
}

void pickle_finish(lua_State *L, pack_out *out) {
    put_head(out->data, out->needs);
    if (out->needs & SEALED) {
        unsigned char *seal = pack_room(L, (packer *)out, SEAL_LEN);
        make_seal(seal, out->data, out->len);
        out->len += SEAL_LEN;
    }
}

static int pickle_dumps(lua_State *L) {
    if (lua_isnone(L, 1))
        bind_argerror(L, "dumps", 1, "v", "value");
    lua_settop(L, 1);
    pack_out *out = pickle_begin(L);
    pack_value(L, out, 1, "value");
    pickle_finish(L, out);
    lua_pushlstring(L, (char *)out->data, out->len);
    pack_end(L, 2);
    return 1;
}

/* ---- scalars, without the machinery ---------------------------------- */

size_t pickle_scalar(lua_State *L, int idx,
                     unsigned char out[PICKLE_SCALAR_MOST]) {
    unsigned char *p = out + HEAD_LEN;
    int type = lua_type(L, idx);
    put_head(out, 0);
    if (type == LUA_TNIL) {
        *p++ = TAG_NIL;
    } else if (type == LUA_TBOOLEAN) {
        *p++ = lua_toboolean(L, idx) ? TAG_TRUE : TAG_FALSE;
    } else if (type != LUA_TNUMBER) {
        return 0;
    } else if (lua_isinteger(L, idx)) {
        lua_Integer v = lua_tointeger(L, idx);
        if (v >= TAG_INT_MIN && v <= TAG_INT_MAX) {
            *p++ = (unsigned char)(v + TAG_INT0);
        } else {
            *p++ = TAG_INT;
            p = mp_varint_put(p, mp_zigzag(v));
        }
    } else {
        *p++ = TAG_FLOAT;
        mp_double_put(p, lua_tonumber(L, idx));
        p += sizeof(double);
    }
    return (size_t)(p - out);
}

static bool push_number(lua_State *L, const unsigned char *p,
                        const unsigned char *end) {
    uint64_t v;
    if (*p == TAG_FLOAT && end - p == 1 + sizeof(double)) {
        lua_pushnumber(L, mp_double_get(p + 1));
        return true;
    }
    if (*p != TAG_INT || mp_varint_get(p + 1, end, &v) != end) return false;
    lua_pushinteger(L, mp_unzigzag(v));
    return true;
}

bool pickle_push_scalar(lua_State *L, const unsigned char *data,
                        size_t size) {
    unsigned char head[HEAD_LEN];
    const unsigned char *p = data + HEAD_LEN, *end = data + size;
    put_head(head, 0);
    if (size <= HEAD_LEN || memcmp(head, data, HEAD_LEN) != 0) return false;
    if (end - p > 1) return push_number(L, p, end);
    if (*p < TAG_STRING0)
        lua_pushinteger(L, (int)*p - TAG_INT0);
    else if (*p == TAG_NIL)
        lua_pushnil(L);
    else if (*p == TAG_TRUE || *p == TAG_FALSE)
        lua_pushboolean(L, *p == TAG_TRUE);
    else
        return false;
    return true;
}

size_t pickle_string_head(unsigned char *head, size_t length) {
    put_head(head, 0);
    unsigned char *p = head + HEAD_LEN;
    if (length < TAG_SMALL) {
        *p++ = (unsigned char)(TAG_STRING0 + length);
    } else {
        *p++ = TAG_STR;
        p = mp_varint_put(p, length);
    }
    return (size_t)(p - head);
}

size_t pickle_string_at(const unsigned char *data, size_t seen,
                        size_t size) {
    unsigned char head[PICKLE_STRING_MOST];
    uint64_t length;
    if (seen <= HEAD_LEN || data[HEAD_LEN] != TAG_STR) return 0;
    put_head(head, 0);
    if (memcmp(head, data, HEAD_LEN) != 0) return 0;
    const unsigned char *p =
        mp_varint_get(data + HEAD_LEN + 1, data + seen, &length);
    return p && length == size - (size_t)(p - data) ? (size_t)(p - data) : 0;
}

/* ---- loading -------------------------------------------------------- */

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
static int check_head(lua_State *L, const unsigned char *s, size_t len,
                      const pickle_trust *t) {
    int known = SEALED | (t->descriptors ? PACK_DESCRIPTORS : 0);
    if (len < HEAD_LEN || memcmp(s, MAGIC, MAGIC_LEN) != 0)
        bind_error(L, "PicklingError", "%s: not a string that dumps made",
                   t->fn);
    if (s[MAGIC_LEN] != FORMAT)
        bind_error(L, "PicklingError", "%s: format %d, expected %d", t->fn,
                   (int)s[MAGIC_LEN], FORMAT);
    int needs = s[MAGIC_LEN + 2];
    if (needs & ~known ||
        len < HEAD_LEN + (size_t)(needs & SEALED ? SEAL_LEN : 0))
        bind_error(L, "PicklingError", "%s: the head is damaged", t->fn);
    if (needs & PACK_CODE && s[MAGIC_LEN + 1] != (LUA_VERSION_NUM & 0xff))
        bind_error(L, "PicklingError", "%s: the string holds code of "
                   "another version of Lua", t->fn);
    return needs;
}

/* Raises unless the `len` bytes at `s`, with the seal behind them, may do
   what they need. */
static void check_seal(lua_State *L, const unsigned char *s, size_t len,
                       int needs, const pickle_trust *t) {
    unsigned char seal[SEAL_LEN];
    make_seal(seal, s, len);
    if (mp_same_bytes(seal, s + len, SEAL_LEN))
        return;
    if (needs & PACK_HANDLES)
        bind_error(L, "PicklingError", "%s: the string names shared "
                   "objects, and is damaged or not of this program's family",
                   t->fn);
    if (!t->code)
        bind_error(L, "PicklingError", "%s: the string holds code, and is "
                   "damaged or not of this program's family; %s", t->fn,
                   t->advice);
}

void pickle_load(lua_State *L, const void *data, size_t length,
                 const pickle_trust *t) {
    const unsigned char *s = data;
    int top = lua_gettop(L);
    int needs = check_head(L, s, length, t);
    if (needs & SEALED) {
        length -= SEAL_LEN;
        check_seal(L, s, length, needs, t);
    }
    if (pack_decode(L, s + HEAD_LEN, length - HEAD_LEN, needs) != 1)
        bind_error(L, "PicklingError", "%s: not exactly one value", t->fn);
    lua_settop(L, top + 1);
}

static int pickle_loads(lua_State *L) {
    if (lua_type(L, 1) != LUA_TSTRING)
        bind_argerror(L, "loads", 1, "s", "string");
    pickle_trust trust = {
        .fn = "loads",
        .advice = "give {trusted=true} if you know where it comes from",
        .code = check_options(L)};
    size_t len;
    const char *s = lua_tolstring(L, 1, &len);
    lua_settop(L, 1);
    pickle_load(L, s, len, &trust);
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
