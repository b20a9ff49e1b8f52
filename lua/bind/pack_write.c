/* The encoder.  A loop over frames (pack_impl.h): each step goes on with
   the innermost unfinished thing until that is done or a thing inside it
   needs a frame of its own.

   A table is walked once, by lua_next: keys 1, 2, 3.. that come in this
   order are its array part, all others follow as pairs.  Starting
   lua_next in the middle would be faster and wrong: nothing in the public
   API tells which integer keys lie in the array part.

   Modules and classes that go by name are known by address.  A module
   required since the last look may be met as a plain table; the first
   function (a module has one) makes us look again, and then the value is
   begun anew. */
#include <string.h>

#include "bind/bind.h"
#include "bind/code.h"
#include "bind/pack_impl.h"

/* What a scalar takes at most, but for long strings. */
#define SCALAR_ROOM (TAG_SMALL + 1)

/* ---- bytes ---------------------------------------------------------- */

unsigned char *pack_room_slow(lua_State *L, packer *k, size_t n) {
    size_t need = k->out.len + n;
    unsigned char *data =
        need < n ? NULL
                 : mp_grow(k->out.data, &k->out.cap, 1,
                           need < 512 ? 512 : need);
    if (!data)
        bind_error(L, "PicklingError", "not enough memory to pickle %s",
                   k->what);
    k->out.data = data;
    return data + k->out.len;
}

void pack_bytes(lua_State *L, packer *k, const void *p, size_t n) {
    memcpy(pack_room(L, k, n), p, n);
    k->out.len += n;
}

/* Both write at `p`, where there is SCALAR_ROOM, and return the end. */
static inline unsigned char *put_integer(unsigned char *p, lua_Integer v) {
    if (v >= TAG_INT_MIN && v <= TAG_INT_MAX) {
        *p = (unsigned char)(v + TAG_INT0);
        return p + 1;
    }
    *p = TAG_INT;
    return mp_varint_put(p + 1, mp_zigzag(v));
}

static inline unsigned char *put_float(unsigned char *p, lua_Number v) {
    *p = TAG_FLOAT;
    mp_double_put(p + 1, v);
    return p + 9;
}

/* ---- identity ------------------------------------------------------- */

void pack_remember(lua_State *L, packer *k, pack_memo *m, const void *key,
                   uint64_t info) {
    if (!pack_memo_add(m, (uintptr_t)key, info))
        bind_error(L, "PicklingError", "not enough memory to pickle %s",
                   k->what);
}

void pack_remember_next(lua_State *L, packer *k, const void *key,
                        int kind) {
    pack_remember(L, k, &k->memo, key,
                  (uint64_t)k->out.len * MEMO_KINDS + (unsigned)kind);
}

bool pack_again(lua_State *L, packer *k, const void *key) {
    size_t number = pack_memo_find(&k->memo, (uintptr_t)key);
    if (number == PACK_MEMO_NONE)
        return false;
    uint64_t info = k->memo.entries[number].info;
    if (info % MEMO_KINDS == MEMO_BUSY)
        pack_refuse(L, k, "it is among the values that its own reduce "
                          "function returned");
    if (info % MEMO_KINDS == MEMO_NAME) {
        pack_number(L, k, TAG_NAMEREF, number);
    } else {
        k->out.data[info / MEMO_KINDS] |= TAG_SHARED;
        pack_number(L, k, TAG_REF, number);
    }
    return true;
}

static bool has_name(lua_State *L, const packer *k, const void *key) {
    size_t id;
    int kind = pack_names_find(L, k->store, key, &id);
    return kind >= 0 && (kind != NAME_META || pack_names_class(L, id));
}

pack_step pack_renew(lua_State *L, packer *k, bool rescan) {
    if (rescan ? k->scanned : k->refreshed)
        return STEP_DONE;
    k->refreshed = true;
    if (rescan) {
        k->scanned = true;
        pack_names_scan(L, k->store);
    } else {
        pack_names_refresh(L, k->store);
    }
    for (size_t i = 0; i < k->memo.count; i++) {
        const pack_entry *e = &k->memo.entries[i];
        if (e->info % MEMO_KINDS == MEMO_THING &&
            has_name(L, k, (const void *)e->key))
            return STEP_AGAIN;
    }
    return STEP_DONE;
}

bool pack_named(lua_State *L, packer *k, const void *key, bool meta) {
    size_t id;
    int kind = pack_names_find(L, k->store, key, &id);
    if (kind < 0 ||
        (kind == NAME_META && !meta && !pack_names_class(L, id)))
        return false;
    pack_remember_next(L, k, key, MEMO_NAME);
    pack_names_push_wire(L, id);
    size_t len;
    const char *wire = lua_tolstring(L, -1, &len);
    pack_bytes(L, k, wire, len);
    lua_pop(L, 1);
    return true;
}

/* A long string: worth an entry of its own, since it may come again. */
static void put_blob(lua_State *L, packer *k, const char *s, size_t len) {
    if (pack_again(L, k, s))
        return;
    pack_remember_next(L, k, s, MEMO_THING);
    pack_room(L, k, len + 1 + MP_VARINT_MAX);
    pack_number(L, k, TAG_BLOB, len);
    pack_bytes(L, k, s, len);
}

static void put_string(lua_State *L, packer *k, const char *s, size_t len) {
    if (len < BLOB_LEN_MIN) {
        pack_number(L, k, TAG_STR, len);
        pack_bytes(L, k, s, len);
    } else {
        put_blob(L, k, s, len);
    }
}

static void make_keys(lua_State *L, packer *k) {
    size_t cap = 0;
    k->keys = mp_grow(NULL, &cap, sizeof *k->keys, PACK_KEYS);
    if (!k->keys)
        bind_error(L, "PicklingError", "not enough memory to pickle %s",
                   k->what);
    memset(k->keys, 0, PACK_KEYS * sizeof *k->keys);
}

/* A short string as key of a table: records repeat them. */
static void put_key(lua_State *L, packer *k, const char *s, size_t len) {
    if (!k->keys)
        make_keys(L, k);
    uintptr_t at = (uintptr_t)s;
    pack_key *key = &k->keys[((at >> 3) ^ (at >> 13)) % PACK_KEYS];
    if (key->text == s && key->epoch == k->epoch) {
        k->out.data[key->offset] |= TAG_SHARED;
        if (key->number < TAG_SMALL)
            pack_byte(L, k, (int)(TAG_KEYREF0 + key->number));
        else
            pack_number(L, k, TAG_KEYREF, key->number);
        return;
    }
    *key = (pack_key){s, k->epoch, k->nkeys++, k->out.len};
    unsigned char *p = pack_room(L, k, KEY_LEN_MAX + 2);
    p[0] = TAG_KEY;
    p[1] = (unsigned char)len;
    memcpy(p + 2, s, len);
    k->out.len += len + 2;
}

static inline bool scalar(lua_State *L, packer *k, int idx) {
    unsigned char *p = pack_room(L, k, SCALAR_ROOM);
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx))
            p = put_integer(p, lua_tointegerx(L, idx, NULL));
        else
            p = put_float(p, lua_tonumberx(L, idx, NULL));
        break;
    case LUA_TSTRING: {
        size_t len;
        const char *s = lua_tolstring(L, idx, &len);
        if (len >= TAG_SMALL) {
            put_string(L, k, s, len);
            return true;
        }
        *p++ = (unsigned char)(TAG_STRING0 + len);
        memcpy(p, s, len);
        p += len;
        break;
    }
    case LUA_TBOOLEAN:
        *p++ = lua_toboolean(L, idx) ? TAG_TRUE : TAG_FALSE;
        break;
    case LUA_TNIL: *p++ = TAG_NIL; break;
    default: return false;
    }
    k->out.len = (size_t)(p - k->out.data);
    return true;
}

bool pack_scalar(lua_State *L, packer *k, int idx) {
    return scalar(L, k, idx);
}

/* ---- frames --------------------------------------------------------- */

pack_frame *pack_open(lua_State *L, packer *k, int kind) {
    if (k->nframes - k->window.spilled == PACK_WINDOW)
        pack_window_spill(L, &k->window);
    if (k->nframes == k->frames_cap) {
        pack_frame *grown = mp_grow(k->frames, &k->frames_cap, sizeof *grown,
                                    k->nframes + 16);
        if (!grown)
            bind_error(L, "PicklingError", "not enough memory to pickle %s",
                       k->what);
        k->frames = grown;
    }
    lua_pushnil(L); /* the key's slot */
    pack_frame *f = &k->frames[k->nframes++];
    memset(f, 0, sizeof *f);
    f->kind = (uint8_t)kind;
    f->number = k->memo.count - 1;
    return f;
}

static void close_frame(lua_State *L, packer *k) {
    k->nframes--;
    lua_settop(L, pack_slot(&k->window, k->nframes) - 1);
    if (k->nframes == k->window.spilled && k->nframes)
        pack_window_restore(L, &k->window);
}

/* ---- tables --------------------------------------------------------- */

static pack_step end_table(lua_State *L, packer *k, pack_frame *f) {
    lua_Integer items = f->next ? f->next - 1 : f->items;
    unsigned char hint = (unsigned char)f->pairs;
    if (f->pairs >= TABLE_OPEN) {
        hint = TABLE_OPEN; /* Lua's tables have fewer than 2^31 nodes */
        for (size_t n = f->pairs - 1; n > 0; n /= 2)
            hint++;
        pack_byte(L, k, TAG_END);
    }
    unsigned char *head = k->out.data + f->head;
    head[1] = hint;
    mp_varint_put_wide(head + 2, (uint64_t)items, f->width);
    return STEP_DONE;
}

/* Is the key at -2 the next of the array part? Small holes are filled. */
static bool next_item(lua_State *L, packer *k, pack_frame *f) {
    if (lua_isinteger(L, -2)) {
        lua_Integer i = lua_tointegerx(L, -2, NULL);
        if (i == f->next) {
            f->next++;
            return true;
        }
        if (i > f->next && i <= f->limit &&
            f->holes + (i - f->next) <= 8 + f->next / 2) {
            f->holes += i - f->next;
            for (; f->next < i; f->next++)
                pack_byte(L, k, TAG_NIL);
            f->next++;
            return true;
        }
    }
    f->items = f->next - 1;
    f->next = 0;
    return false;
}

/* Writes the key at -2 if it is a scalar. */
static inline bool write_key(lua_State *L, packer *k) {
    if (lua_type(L, -2) != LUA_TSTRING)
        return scalar(L, k, -2);
    size_t len;
    const char *s = lua_tolstring(L, -2, &len);
    if (len <= KEY_LEN_MAX)
        put_key(L, k, s, len);
    else
        put_string(L, k, s, len);
    return true;
}

/* Writes pairs from the one on top, if there is one, up to the first key or
   value that is no scalar, in the table at `table`; true: all are written.
   The pair that stops us is on top, and f->due says what of it is not
   written. */
static bool write_scalars(lua_State *L, packer *k, pack_frame *f, int table,
                          bool one) {
    for (; one; one = lua_next(L, table)) {
        if (!(f->next && next_item(L, k, f))) {
            f->pairs++;
            if (!write_key(L, k)) {
                f->due = DUE_KEY;
                return false;
            }
        }
        if (!scalar(L, k, -1)) {
            f->due = DUE_VALUE;
            return false;
        }
        lua_settop(L, table + 1);
    }
    return true;
}

static pack_step step_table(lua_State *L, packer *k, pack_frame *f) {
    int table = pack_slot(&k->window, k->nframes - 1);
    for (;;) {
        bool fresh = f->due == DUE_NOTHING; /* then the pair is on top */
        if (fresh && write_scalars(L, k, f, table, lua_next(L, table)))
            return end_table(L, k, f);
        f->in_key = f->due == DUE_KEY;
        f->due = f->in_key ? DUE_VALUE : DUE_NOTHING;
        if (f->in_key) {
            lua_settop(L, table + 1);
            lua_pushvalue(L, table + 1);
        } else if (!fresh) {
            lua_pushvalue(L, table + 1);
            lua_rawget(L, table);
        }
        pack_step step = pack_enter(L, k);
        if (step != STEP_DONE) /* else no frame was opened: `f` is valid */
            return step;
        lua_settop(L, table + 1);
    }
}

/* Begins a table whose first pair is on top, if there is one: a table whose
   array part is not empty begins with that. */
static pack_frame begin_table(lua_State *L, packer *k, int table, bool one) {
    pack_frame f = {.kind = FRAME_TABLE, .head = k->out.len, .width = 1,
                    .number = k->memo.count - 1};
    if (one && lua_type(L, -2) == LUA_TNUMBER) {
        f.limit = (lua_Integer)lua_rawlen(L, table);
        f.width = (uint8_t)mp_varint_size((uint64_t)f.limit);
        f.next = f.limit > 0;
    }
    *pack_room(L, k, 2 + f.width) = TAG_TABLE;
    k->out.len += 2 + f.width;
    return f;
}

pack_step pack_begin_table(lua_State *L, packer *k) {
    pack_remember_next(L, k, lua_topointer(L, -1), MEMO_THING);
    int table = lua_gettop(L);
    lua_pushnil(L); /* the key's slot */
    bool one = lua_next(L, table);
    pack_frame f = begin_table(L, k, table, one);
    if (write_scalars(L, k, &f, table, one)) {
        lua_settop(L, table);
        return end_table(L, k, &f);
    }
    lua_settop(L, table + 1);
    *pack_open(L, k, FRAME_TABLE) = f;
    lua_pop(L, 1); /* its key's slot: there is one */
    return STEP_OPENED;
}

/* ---- each type ------------------------------------------------------ */

static pack_step enter_table(lua_State *L, packer *k) {
    const void *key = lua_topointer(L, -1);
    if (pack_again(L, k, key))
        return STEP_DONE;
    if (key == k->globals) {
        pack_byte(L, k, TAG_GLOBALS);
        return STEP_DONE;
    }
    if (pack_named(L, k, key, false))
        return STEP_DONE;
    if (lua_getmetatable(L, -1))
        return pack_enter_object(L, k);
    return pack_begin_table(L, k);
}

pack_step pack_enter(lua_State *L, packer *k) {
    switch (lua_type(L, -1)) {
    case LUA_TTABLE: return enter_table(L, k);
    case LUA_TFUNCTION: return code_write(L, k);
    case LUA_TUSERDATA: return pack_enter_userdata(L, k);
    default:
        if (!pack_scalar(L, k, -1))
            pack_refuse(L, k, NULL);
        return STEP_DONE;
    }
}

/* What the list rebuilds may be referred to from now on. */
static void set_built(packer *k, const pack_frame *f) {
    k->memo.entries[f->number].info &= ~(uint64_t)(MEMO_KINDS - 1);
}

static pack_step step_list(lua_State *L, packer *k, pack_frame *f) {
    int list = pack_slot(&k->window, k->nframes - 1);
    while (f->next < f->limit) {
        if (f->state && f->next == f->limit - 1)
            set_built(k, f);
        lua_rawgeti(L, list, ++f->next);
        pack_step step = pack_enter(L, k);
        if (step != STEP_DONE)
            return step;
        lua_settop(L, list + 1);
    }
    set_built(k, f);
    return STEP_DONE;
}

/* ---- the whole ------------------------------------------------------ */

static pack_step run(lua_State *L, packer *k) {
    static pack_step (*const steps[])(lua_State *, packer *, pack_frame *) =
        {[FRAME_TABLE] = step_table,
         [FRAME_FUNC] = code_write_step,
         [FRAME_LIST] = step_list};
    while (k->nframes > 0) {
        pack_frame *f = &k->frames[k->nframes - 1];
        pack_step step = steps[f->kind](L, k, f);
        if (step == STEP_AGAIN)
            return step;
        if (step == STEP_DONE)
            close_frame(L, k);
    }
    return STEP_DONE;
}

/* One try at the value at `idx`. */
static pack_step pack_try(lua_State *L, packer *k, int idx) {
    k->nframes = 0;
    lua_pushnil(L); /* the window's spill */
    k->window.spill = k->window.base = lua_gettop(L);
    k->window.spilled = 0;
    lua_pushvalue(L, idx);
    pack_step step = pack_enter(L, k);
    return step == STEP_OPENED ? run(L, k) : step;
}

/* Everything that is no scalar. */
static void pack_things(lua_State *L, packer *k, int idx) {
    int top = lua_gettop(L);
    luaL_checkstack(L, PACK_STACK, "pickling");
    if (!k->globals) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
        k->globals = lua_topointer(L, -1);
        lua_settop(L, top);
    }
    size_t len = k->out.len, memo = k->memo.count, cells = k->cells.count,
           codes = k->codes.count, handles = k->out.nhandles;
    uint32_t keys = k->nkeys;
    while (pack_try(L, k, idx) == STEP_AGAIN) { /* at most twice */
        lua_settop(L, top);
        k->out.len = len;
        pack_memo_cut(&k->memo, memo);
        pack_memo_cut(&k->cells, cells);
        pack_memo_cut(&k->codes, codes);
        k->out.nhandles = handles;
        k->nkeys = keys;
        k->epoch++;
    }
    lua_settop(L, top);
}

void pack_value(lua_State *L, pack_out *out, int idx, const char *what) {
    packer *k = (packer *)out;
    k->what = what;
    if (!pack_scalar(L, k, idx))
        pack_things(L, k, lua_absindex(L, idx));
}
