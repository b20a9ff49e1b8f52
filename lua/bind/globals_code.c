/* Which globals does a function read?  The answer is in the bytes that
   lua_dump gives: an instruction that indexes an upvalue with a constant
   string.  Whether that upvalue is the globals is a matter of the closure
   and not of the code, so a code's names come with the number of the
   upvalue, and are kept by code.

   In each function, its registers are followed from instruction to
   instruction as if it had no jumps: a name too many does no harm (it may
   send a global that is not read), and what is reached by a jump was loaded
   by the lines above it.  What is not seen: names made at run time
   (_G[name], load), and an _ENV that is a local variable.

   The format is that of Lua 5.4, checked by its head and in each length; of
   anything else there are no names.
   Source: ldump.c, lopcodes.h, lparser.c of Lua 5.4. */
#include <string.h>

#include "bind/code.h"
#include "bind/globals_impl.h"

enum {
    OP_MOVE = 0, OP_LOADK = 3, OP_LOADKX = 4, OP_GETUPVAL = 9,
    OP_GETTABUP = 11, OP_GETTABLE = 12, OP_GETFIELD = 14,
    OP_SETTABUP = 15, OP_SETFIELD = 18, OP_EXTRAARG = 82
};

enum {
    INSTRUCTION = 4,     /* bytes */
    REGISTERS = 256,
    DEPTH_MAX = 200,     /* of functions in functions: Lua's own limit */
    CODES_KEPT = 4096
};

/* A constant string; NULL for other constants. */
typedef struct constant {
    const char *text;
    size_t length;
    int told; /* for this upvalue */
} constant;

typedef struct reader {
    lua_State *L;
    const unsigned char *p, *end;
    bool bad;      /* not understood: stop */
    int list;      /* stack index of the names */
    int scratch;   /* stack index of the userdata with the constants */
    lua_Integer n; /* in the list */
} reader;

/* What a register holds: a table that upvalue `of` leads to, or a constant
   (its number + 1). */
typedef struct cell {
    int of;
    uint32_t constant;
} cell;

/* A function while its code is looked at. `upvalue[i]`: the number, from 1,
   of the outermost function's upvalue that its upvalue i is, or 0. */
typedef struct proto {
    const unsigned char *code;
    size_t n_code, n_constants;
    constant *constants;
    unsigned char upvalue[REGISTERS];
    bool any;
} proto;

/* ---- the format ----------------------------------------------------- */

static const unsigned char *take(reader *r, size_t n) {
    if (n > (size_t)(r->end - r->p)) r->bad = true;
    if (r->bad) return r->end;
    r->p += n;
    return r->p - n;
}

static int take_byte(reader *r) {
    const unsigned char *p = take(r, 1);
    return r->bad ? 0 : *p;
}

/* 7 bits a byte, high ones first; the last byte has its top bit set. */
static size_t take_size(reader *r) {
    size_t n = 0;
    for (;;) {
        int byte = take_byte(r);
        if (r->bad || n > SIZE_MAX >> 8) break;
        n = n << 7 | (size_t)(byte & 0x7f);
        if (byte & 0x80) return n;
    }
    r->bad = true;
    return 0;
}

/* A number of things of at least `size` bytes each. */
static size_t take_count(reader *r, size_t size) {
    size_t n = take_size(r);
    if (n > (size_t)(r->end - r->p) / size) r->bad = true;
    return r->bad ? 0 : n;
}

static const char *take_string(reader *r, size_t *length) {
    size_t n = take_size(r);
    *length = 0;
    if (n == 0) return NULL;
    const char *text = (const char *)take(r, n - 1);
    if (r->bad) return NULL;
    *length = n - 1;
    return text;
}

/* Does it begin as this Lua's own code does? */
static void take_head(reader *r) {
    static const char head[] = "\x1bLua\x54\0\x19\x93\r\n\x1a\n";
    const lua_Integer integer = 0x5678;
    const lua_Number number = 370.5;
    unsigned char expected[sizeof head + 2 + sizeof integer + sizeof number];
    unsigned char *p = expected;
    memcpy(p, head, sizeof head - 1);
    p += sizeof head - 1;
    *p++ = INSTRUCTION;
    *p++ = sizeof integer;
    *p++ = sizeof number;
    memcpy(p, &integer, sizeof integer);
    p += sizeof integer;
    memcpy(p, &number, sizeof number);
    const unsigned char *own = take(r, sizeof expected);
    if (!r->bad) r->bad = memcmp(own, expected, sizeof expected) != 0;
}

/* Room for the constants of the next function. */
static constant *constants_room(reader *r, size_t n) {
    if (lua_rawlen(r->L, r->scratch) < n * sizeof(constant)) {
        lua_newuserdatauv(r->L, 2 * n * sizeof(constant), 0);
        lua_replace(r->L, r->scratch);
    }
    return lua_touserdata(r->L, r->scratch);
}

static void take_constants(reader *r, proto *f) {
    f->n_constants = take_count(r, 1);
    f->constants = constants_room(r, f->n_constants);
    for (size_t i = 0; i < f->n_constants && !r->bad; i++) {
        constant *k = &f->constants[i];
        *k = (constant){NULL, 0, 0};
        switch (take_byte(r)) {
        case 0x00: case 0x01: case 0x11: /* nil, false, true */
            break;
        case 0x03: take(r, sizeof(lua_Integer)); break;
        case 0x13: take(r, sizeof(lua_Number)); break;
        case 0x04: case 0x14:
            k->text = take_string(r, &k->length);
            break;
        default: r->bad = true;
        }
    }
}

/* `outer`: the enclosing function's upvalues; NULL: there is none. */
static void take_upvalues(reader *r, proto *f, const unsigned char *outer) {
    size_t n = take_count(r, 3);
    if (n >= REGISTERS) r->bad = true;
    memset(f->upvalue, 0, sizeof f->upvalue);
    f->any = false;
    for (size_t i = 0; i < n && !r->bad; i++) {
        const unsigned char *p = take(r, 3); /* on the stack, number, kind */
        if (!outer)
            f->upvalue[i] = (unsigned char)(i + 1);
        else if (!p[0])
            f->upvalue[i] = outer[p[1]];
        f->any = f->any || f->upvalue[i];
    }
}

static void skip_debug(reader *r) {
    size_t length;
    take(r, take_count(r, 1)); /* lines */
    for (size_t n = take_count(r, 2); n > 0 && !r->bad; n--) {
        take_size(r);
        take_size(r);
    }
    for (size_t n = take_count(r, 3); n > 0 && !r->bad; n--) { /* locals */
        take_string(r, &length);
        take_size(r);
        take_size(r);
    }
    for (size_t n = take_count(r, 1); n > 0 && !r->bad; n--)
        take_string(r, &length);
}

/* ---- the code ------------------------------------------------------- */

/* Tells that a field of upvalue `of` is read, if its name is a string. */
static void tell(reader *r, const proto *f, int of, size_t number) {
    if (number >= f->n_constants) return;
    constant *k = &f->constants[number];
    if (!of || !k->text || k->told == of) return;
    k->told = of;
    lua_pushinteger(r->L, of);
    lua_rawseti(r->L, r->list, ++r->n);
    lua_pushlstring(r->L, k->text, k->length);
    lua_rawseti(r->L, r->list, ++r->n);
}

/* The number of the upvalue if what it leads to under this name is itself
   a table of globals: _G._G... */
static int leads_on(const proto *f, int of, size_t number) {
    if (number >= f->n_constants) return 0;
    const constant *k = &f->constants[number];
    return k->length == 2 && memcmp(k->text, "_G", 2) == 0 ? of : 0;
}

static void look_at_code(reader *r, const proto *f) {
    cell cells[REGISTERS];
    memset(cells, 0, sizeof cells);
    for (size_t i = 0; i < f->n_code; i++) {
        uint32_t word, next = 0;
        memcpy(&word, f->code + i * INSTRUCTION, INSTRUCTION);
        unsigned op = word & 0x7f, a = word >> 7 & 0xff,
                 b = word >> 16 & 0xff, c = word >> 24;
        cell result = {0, 0};
        switch (op) {
        case OP_MOVE: result = cells[b]; break;
        case OP_LOADK: result.constant = (word >> 15) + 1; break;
        case OP_LOADKX: /* the number is in the next word */
            if (i + 1 < f->n_code)
                memcpy(&next, f->code + (i + 1) * INSTRUCTION, INSTRUCTION);
            result.constant = (next >> 7) + 1;
            break;
        case OP_GETUPVAL: result.of = f->upvalue[b]; break;
        case OP_GETTABUP:
            tell(r, f, f->upvalue[b], c);
            result.of = leads_on(f, f->upvalue[b], c);
            break;
        case OP_GETFIELD:
            tell(r, f, cells[b].of, c);
            result.of = leads_on(f, cells[b].of, c);
            break;
        case OP_GETTABLE: /* names that are long, or have large numbers */
            if (cells[c].constant)
                tell(r, f, cells[b].of, cells[c].constant - 1);
            break;
        default:
            if (op >= OP_SETTABUP && op <= OP_SETFIELD) continue;
            if (op == OP_EXTRAARG) continue;
        }
        cells[a] = result;
    }
}

static void take_function(reader *r, const unsigned char *outer, int depth) {
    proto f;
    size_t length;
    if (depth > DEPTH_MAX) r->bad = true;
    take_string(r, &length); /* source */
    take_size(r);            /* lines */
    take_size(r);
    take(r, 3);              /* parameters, vararg, registers */
    f.n_code = take_count(r, INSTRUCTION);
    f.code = take(r, f.n_code * INSTRUCTION);
    take_constants(r, &f);
    take_upvalues(r, &f, outer);
    if (!r->bad && f.any) look_at_code(r, &f);
    for (size_t n = take_count(r, 1); n > 0 && !r->bad; n--)
        take_function(r, f.upvalue, depth + 1);
    skip_debug(r);
}

/* Pushes the list of names that are read in this code: number of the
   upvalue, name, ...; false when there is none. */
static void push_names(lua_State *L, const void *code, size_t length) {
    luaL_checkstack(L, 8, "globals");
    lua_newtable(L);
    lua_newuserdatauv(L, 64 * sizeof(constant), 0);
    reader r = {.L = L, .p = code, .list = lua_gettop(L) - 1,
                .scratch = lua_gettop(L)};
    r.end = r.p + length;
    take_head(&r);
    take_byte(&r); /* number of upvalues */
    if (!r.bad) take_function(&r, NULL, 0);
    lua_pop(L, 1);
    if (r.n > 0 && !r.bad) return;
    lua_pop(L, 1);
    lua_pushboolean(L, 0);
}

/* ---- what is known -------------------------------------------------- */

/* Keys of the registry: names by hash of the code; by function (weak). */
static const char CODES, FUNCTIONS;

void globals_weak(lua_State *L, const void *key, const char *mode) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, key) == LUA_TTABLE) return;
    lua_pop(L, 1);
    lua_newtable(L);
    if (*mode) {
        lua_createtable(L, 0, 1);
        lua_pushstring(L, mode);
        lua_setfield(L, -2, "__mode");
        lua_setmetatable(L, -2);
    }
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void globals_add_function(lua_State *L, int function, int list) {
    if (lua_isnil(L, list)) {
        lua_createtable(L, 4, 0);
        lua_replace(L, list);
    }
    lua_Integer n = (lua_Integer)lua_rawlen(L, list);
    lua_rawseti(L, list, n + 2);
    lua_pushvalue(L, function);
    lua_rawseti(L, list, n + 1);
}

void globals_of_code(lua_State *L, const void *code, size_t length,
                     uint64_t hash) {
    globals_weak(L, &CODES, "");
    if (lua_rawgeti(L, -1, (lua_Integer)hash) == LUA_TNIL) {
        lua_pop(L, 1);
        push_names(L, code, length);
        lua_rawgeti(L, -2, 0); /* how many are kept */
        lua_Integer kept = lua_tointeger(L, -1) + 1;
        lua_pop(L, 1);
        if (kept > CODES_KEPT) {
            lua_newtable(L);
            lua_pushvalue(L, -1);
            lua_rawsetp(L, LUA_REGISTRYINDEX, &CODES);
            lua_replace(L, -3);
            kept = 1;
        }
        lua_pushinteger(L, kept);
        lua_rawseti(L, -3, 0);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, (lua_Integer)hash);
    }
    lua_remove(L, -2);
}

void globals_of_function(lua_State *L, int function) {
    function = lua_absindex(L, function);
    globals_weak(L, &FUNCTIONS, "k");
    lua_pushvalue(L, function);
    if (lua_rawget(L, -2) == LUA_TNIL) {
        lua_pop(L, 1);
        pack_out *out = pack_begin(L);
        lua_pushvalue(L, function);
        if (code_dump(L, out))
            push_names(L, out->data, out->len);
        else
            lua_pushboolean(L, 0);
        lua_remove(L, -2);
        pack_end(L, -2);
        lua_remove(L, -2);
        lua_pushvalue(L, function);
        lua_pushvalue(L, -2);
        lua_rawset(L, -4);
    }
    lua_remove(L, -2);
}
