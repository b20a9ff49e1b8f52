#include "bind/code.h"

#include <string.h>

#include "bind/bind.h"
#include "bind/globals_impl.h"

#define CODE_WIDTH 5            /* bytes of a code's length */
#define CODE_LEN_MAX ((uint64_t)1 << 34)
#define CELL_SHIFT 8            /* info of a cell: function << 8 | upvalue */

/* ---- writing -------------------------------------------------------- */

/* lua_dump's writer. The buffer is malloc'ed: a luaL_Buffer would put
   things on the stack of the state that is being dumped from. */
static int dump_piece(lua_State *L, const void *p, size_t n, void *arg) {
    (void)L;
    pack_out *out = arg;
    unsigned char *data = mp_grow(out->data, &out->cap, 1, out->len + n);
    if (!data)
        return 1;
    out->data = data;
    memcpy(data + out->len, p, n);
    out->len += n;
    return 0;
}

bool code_dump(lua_State *L, pack_out *out) {
    return lua_dump(L, dump_piece, out, 0) == 0;
}

/* The function on top is written: if it reads globals, it is noted. */
static void note_function(lua_State *L, const packer *k, const void *code,
                          size_t len, uint64_t hash) {
    globals_of_code(L, code, len, hash);
    if (lua_istable(L, -1))
        globals_add_function(L, lua_gettop(L) - 1, k->out.functions);
    else
        lua_pop(L, 1);
}

/* The number of the code with these bytes, or PACK_MEMO_NONE. The hash
   only says where to look. */
static size_t find_code(const packer *k, uint64_t hash, const void *code,
                        size_t len) {
    size_t i = pack_memo_find(&k->codes, (uintptr_t)hash);
    if (i == PACK_MEMO_NONE)
        return i;
    const unsigned char *p = k->out.data + k->codes.entries[i].info;
    uint64_t other;
    p = mp_varint_get(p, k->out.data + k->out.len, &other);
    return p && other == len * 2 && memcmp(p, code, len) == 0
               ? i
               : PACK_MEMO_NONE;
}

/* Writes the bytecode of the function on top, or the number of the same
   code earlier in the message (closures of one prototype). */
static void put_code(lua_State *L, packer *k) {
    size_t at = k->out.len;
    pack_room(L, k, CODE_WIDTH);
    k->out.len += CODE_WIDTH;
    if (!code_dump(L, &k->out))
        bind_error(L, "PicklingError", "not enough memory to pickle %s",
                   k->what);
    size_t len = k->out.len - at - CODE_WIDTH;
    if (len > CODE_LEN_MAX)
        pack_refuse(L, k, "its code is too large");
    mp_varint_put_wide(k->out.data + at, (uint64_t)len * 2, CODE_WIDTH);
    const unsigned char *code = k->out.data + at + CODE_WIDTH;
    uint64_t hash = mp_hash(code, len);
    if (k->out.functions)
        note_function(L, k, code, len, hash);
    size_t same = find_code(k, hash, code, len);
    if (same != PACK_MEMO_NONE) {
        unsigned char *p = k->out.data + at;
        k->out.len =
            (size_t)(mp_varint_put(p, (uint64_t)same * 2 + 1) - k->out.data);
        return;
    }
    /* Every code has a number; after a collision, a key that no hash has
       been seen to have stands in. */
    uintptr_t key = (uintptr_t)hash;
    while (pack_memo_find(&k->codes, key) != PACK_MEMO_NONE)
        key++;
    pack_remember(L, k, &k->codes, (const void *)key, at);
}

/* A class table met as a plain table gives itself away by a function in it
   and an __index: if it got its name since the last scan, look again. */
static pack_step check_class(lua_State *L, packer *k) {
    if (k->nframes == 0 || k->frames[k->nframes - 1].kind != FRAME_TABLE)
        return STEP_DONE;
    pack_step step = STEP_DONE;
    lua_pushvalue(L, pack_slot(&k->window, k->nframes - 1));
    lua_pushliteral(L, "__index");
    int index = lua_rawget(L, -2);
    lua_pop(L, 1);
    if (index != LUA_TNIL && !pack_names_nameless(L)) {
        step = pack_renew(L, k, true);
        if (step == STEP_DONE)
            pack_names_set_nameless(L);
    }
    lua_pop(L, 1);
    return step;
}

static pack_step put_c_function(lua_State *L, packer *k, const void *key) {
    if (pack_named(L, k, key, false))
        return STEP_DONE;
    if (pack_renew(L, k, true) != STEP_DONE)
        return STEP_AGAIN;
    if (pack_named(L, k, key, false))
        return STEP_DONE;
    pack_names_scan_deep(L, k->store);
    if (!pack_named(L, k, key, false))
        pack_refuse(L, k, "it is in no loaded module and no global, so it "
                          "has no name to travel by");
    return STEP_DONE;
}

/* The Lua function on top goes by name if it is a member of one of mp's own
   modules. */
static bool put_own(lua_State *L, packer *k, const void *key) {
    lua_Debug ar;
    lua_pushvalue(L, -1);
    lua_getinfo(L, ">S", &ar);
    if (!bind_is_ours(L, ar.source) || pack_names_nameless(L))
        return false;
    pack_names_scan_own(L, k->store);
    if (pack_named(L, k, key, false))
        return true;
    pack_names_set_nameless(L);
    return false;
}

pack_step code_write(lua_State *L, packer *k) {
    const void *key = lua_topointer(L, -1);
    if (pack_again(L, k, key))
        return STEP_DONE;
    pack_step step = pack_renew(L, k, false);
    if (step == STEP_DONE)
        step = check_class(L, k);
    if (step != STEP_DONE)
        return step;
    if (lua_iscfunction(L, -1))
        return put_c_function(L, k, key);
    if (pack_named(L, k, key, false) || /* a module that is a function */
        put_own(L, k, key))
        return STEP_DONE;
    pack_remember(L, k, &k->memo, key, (uint64_t)k->out.len * MEMO_KINDS);
    k->out.needs |= PACK_CODE;
    pack_byte(L, k, TAG_FUNC);
    put_code(L, k);
    lua_Debug ar;
    lua_pushvalue(L, -1);
    lua_getinfo(L, ">u", &ar);
    pack_open(L, k, FRAME_FUNC)->limit = ar.nups;
    return STEP_OPENED;
}

/* Points to the upvalue if an earlier one is the same cell. */
static bool put_cell(lua_State *L, packer *k, const pack_frame *f,
                     int slot) {
    const void *cell = lua_upvalueid(L, slot, (int)f->next);
    size_t seen = pack_memo_find(&k->cells, (uintptr_t)cell);
    if (seen == PACK_MEMO_NONE) {
        pack_remember(L, k, &k->cells, cell,
                      (uint64_t)f->number << CELL_SHIFT |
                          (uint64_t)f->next);
        return false;
    }
    uint64_t info = k->cells.entries[seen].info;
    size_t function = (size_t)(info >> CELL_SHIFT);
    size_t offset =
        (size_t)(k->memo.entries[function].info / MEMO_KINDS);
    k->out.data[offset] |= TAG_SHARED;
    pack_number(L, k, TAG_CELL, function);
    pack_byte(L, k, (int)(info & ((1 << CELL_SHIFT) - 1)));
    return true;
}

pack_step code_write_step(lua_State *L, packer *k, pack_frame *f) {
    int slot = pack_slot(&k->window, k->nframes - 1);
    while (f->next < f->limit) {
        f->next++;
        if (put_cell(L, k, f, slot))
            continue;
        const char *name = lua_getupvalue(L, slot, (int)f->next);
        if (!pack_scalar(L, k, -1)) {
            pack_step step = strcmp(name, "_ENV") == 0
                                 ? pack_enter_env(L, k)
                                 : pack_enter(L, k);
            if (step != STEP_DONE)
                return step;
        }
        lua_settop(L, slot + 1);
    }
    return STEP_DONE;
}

/* ---- reading -------------------------------------------------------- */

typedef struct piece {
    const char *p;
    size_t len;
} piece;

static const char *load_piece(lua_State *L, void *arg, size_t *len) {
    (void)L;
    piece *all = arg;
    *len = all->len;
    all->len = 0;
    return *len ? all->p : NULL;
}

/* The bytes of the next code, own or of an earlier number. */
static piece read_code(unpacker *u) {
    int slot = u->base + UNPACK_SLOT_CODES;
    uint64_t n = unpack_number(u, UINT64_MAX);
    if (n % 2 == 0) {
        const unsigned char *p = unpack_bytes(u, n / 2);
        if (lua_isnil(u->L, slot)) {
            lua_newtable(u->L);
            lua_replace(u->L, slot);
        }
        lua_pushinteger(u->L, (lua_Integer)(p - u->start));
        lua_rawseti(u->L, slot, ++u->ncodes);
        lua_pushinteger(u->L, (lua_Integer)(n / 2));
        lua_rawseti(u->L, slot, -u->ncodes);
        return (piece){(const char *)p, (size_t)(n / 2)};
    }
    n = n / 2 + 1;
    if (n > (uint64_t)u->ncodes)
        unpack_damaged(u, "reference to a function's code that is not there");
    lua_rawgeti(u->L, slot, (lua_Integer)n);
    lua_rawgeti(u->L, slot, -(lua_Integer)n);
    piece code = {(const char *)u->start + lua_tointeger(u->L, -2),
                  (size_t)lua_tointeger(u->L, -1)};
    lua_pop(u->L, 2);
    return code;
}

void code_read(unpacker *u, bool shared) {
    lua_State *L = u->L;
    if (!(u->flags & PACK_CODE))
        bind_error(L, "PicklingError", "refused to load a function: its "
                   "bytes do not come from this program's own family");
    uint64_t number = u->things++;
    piece code = read_code(u);
    if (lua_load(L, load_piece, &code, "=pickled", "b") != LUA_OK)
        bind_error(L, "PicklingError", "cannot load a function: %s",
                   lua_tostring(L, -1));
    unpack_keep(u, UNPACK_SLOT_REFS, number, shared);
    lua_Debug ar;
    lua_pushvalue(L, -1);
    lua_getinfo(L, ">u", &ar);
    unpack_open(u, FRAME_FUNC)->limit = ar.nups;
}

bool code_read_cell(unpacker *u, int slot, int upvalue) {
    if (u->p == u->end || *u->p != TAG_CELL)
        return false;
    u->p++;
    uint64_t number = unpack_number(u, UINT64_MAX);
    int other = *unpack_bytes(u, 1);
    unpack_ref(u, number);
    if (!lua_isfunction(u->L, -1) || lua_iscfunction(u->L, -1) ||
        !lua_getupvalue(u->L, -1, other))
        unpack_damaged(u, "a shared upvalue that is not there");
    lua_pop(u->L, 1);
    lua_upvaluejoin(u->L, slot, upvalue, lua_gettop(u->L), other);
    lua_pop(u->L, 1);
    return true;
}

/* ---- words ---------------------------------------------------------- */

/* Pushes the first name, in string order, under which the table on top
   (popped) has the value at `value`; or nil. */
static void name_in(lua_State *L, int value) {
    int table = lua_gettop(L);
    lua_pushnil(L); /* the best so far */
    lua_pushnil(L);
    while (lua_next(L, table)) {
        if (lua_rawequal(L, -1, value) &&
            lua_type(L, -2) == LUA_TSTRING &&
            (lua_isnil(L, table + 1) ||
             lua_compare(L, -2, table + 1, LUA_OPLT))) {
            lua_pushvalue(L, -2);
            lua_replace(L, table + 1);
        }
        lua_pop(L, 1);
    }
    lua_remove(L, table);
}

void code_describe(lua_State *L, int idx) {
    idx = lua_absindex(L, idx);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    name_in(L, idx);
    size_t len = 0;
    const char *name = lua_tolstring(L, -1, &len);
    if (name) {
        name = pack_show(L, name, len);
        lua_replace(L, -2);
    }
    lua_Debug ar;
    lua_pushvalue(L, idx);
    lua_getinfo(L, ">S", &ar);
    if (*ar.what == 'C' && name)
        lua_pushfstring(L, "C function '%s'", name);
    else if (*ar.what == 'C')
        lua_pushliteral(L, "C function");
    else if (name)
        lua_pushfstring(L, "function '%s' (%s:%d)", name, ar.short_src,
                        ar.linedefined);
    else
        lua_pushfstring(L, "function at %s:%d", ar.short_src,
                        ar.linedefined);
    lua_remove(L, -2);
}
