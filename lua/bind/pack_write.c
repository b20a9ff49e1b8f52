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
   begun anew.  No user code has run before that. */
#include <string.h>

#include "bind/bind.h"
#include "bind/code.h"
#include "bind/pack_impl.h"

/* --- bytes ----------------------------------------------------------- */

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

static void put_bytes(lua_State *L, packer *k, const void *p, size_t n) {
    memcpy(pack_room(L, k, n), p, n);
    k->out.len += n;
}

static void put_integer(lua_State *L, packer *k, lua_Integer v) {
    if (v >= TAG_INT_MIN && v <= TAG_INT_MAX)
        pack_byte(L, k, (int)v + TAG_INT0);
    else
        pack_number(L, k, TAG_INT, mp_zigzag(v));
}

static void put_float(lua_State *L, packer *k, lua_Number v) {
    unsigned char *p = pack_room(L, k, 9);
    *p = TAG_FLOAT;
    mp_double_put(p + 1, v);
    k->out.len += 9;
}

/* --- identity -------------------------------------------------------- */

void pack_remember(lua_State *L, packer *k, pack_memo *m, const void *key,
                   uint64_t info) {
    if (!pack_memo_add(m, (uintptr_t)key, info))
        bind_error(L, "PicklingError", "not enough memory to pickle %s",
                   k->what);
}

/* Numbers the thing on top, whose tag will be the next byte. */
static void remember_next(lua_State *L, packer *k, const void *key,
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
    return kind >= 0 && kind != NAME_META;
}

bool pack_named(lua_State *L, packer *k, const void *key, bool meta) {
    size_t id;
    int kind = pack_names_find(L, k->store, key, &id);
    if (kind < 0 || (kind == NAME_META && !meta))
        return false;
    remember_next(L, k, key, MEMO_NAME);
    pack_names_push_wire(L, id);
    size_t len;
    const char *wire = lua_tolstring(L, -1, &len);
    put_bytes(L, k, wire, len);
    lua_pop(L, 1);
    return true;
}

/* A long string: worth an entry of its own, since it may come again. */
static void put_blob(lua_State *L, packer *k, const char *s, size_t len) {
    if (pack_again(L, k, s))
        return;
    remember_next(L, k, s, MEMO_THING);
    pack_room(L, k, len + 1 + MP_VARINT_MAX);
    pack_number(L, k, TAG_BLOB, len);
    put_bytes(L, k, s, len);
}

static void put_string(lua_State *L, packer *k, const char *s, size_t len) {
    if (len < TAG_SMALL) {
        unsigned char *p = pack_room(L, k, TAG_SMALL);
        *p = (unsigned char)(TAG_STRING0 + len);
        memcpy(p + 1, s, len);
        k->out.len += len + 1;
    } else if (len < BLOB_LEN_MIN) {
        pack_number(L, k, TAG_STR, len);
        put_bytes(L, k, s, len);
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

bool pack_scalar(lua_State *L, packer *k, int idx) {
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx))
            put_integer(L, k, lua_tointegerx(L, idx, NULL));
        else
            put_float(L, k, lua_tonumberx(L, idx, NULL));
        return true;
    case LUA_TSTRING: {
        size_t len;
        const char *s = lua_tolstring(L, idx, &len);
        put_string(L, k, s, len);
        return true;
    }
    case LUA_TBOOLEAN:
        pack_byte(L, k, lua_toboolean(L, idx) ? TAG_TRUE : TAG_FALSE);
        return true;
    case LUA_TNIL:
        pack_byte(L, k, TAG_NIL);
        return true;
    default:
        return false;
    }
}

/* --- frames ---------------------------------------------------------- */

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

/* --- tables ---------------------------------------------------------- */

/* The table is on top; its header is filled in by end_table. */
static void begin_table(lua_State *L, packer *k) {
    remember_next(L, k, lua_topointer(L, -1), MEMO_THING);
    lua_Integer border = (lua_Integer)lua_rawlen(L, -1);
    size_t width = mp_varint_size((uint64_t)border);
    size_t head = k->out.len;
    *pack_room(L, k, 2 + width) = TAG_TABLE;
    k->out.len += 2 + width;
    pack_frame *f = pack_open(L, k, FRAME_TABLE);
    f->head = head;
    f->width = (uint8_t)width;
    f->limit = border;
    f->next = border > 0;
}

static pack_step end_table(lua_State *L, packer *k, pack_frame *f) {
    lua_Integer items = f->next ? f->next - 1 : f->items;
    unsigned char hint = (unsigned char)f->pairs;
    if (f->pairs >= TABLE_OPEN) {
        hint = TABLE_OPEN;
        for (size_t n = f->pairs; n > 1 && hint < UINT8_MAX; n /= 2)
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

/* Writes the key at -2, whose value is on top; STEP_DONE leaves both. */
static pack_step put_pair_key(lua_State *L, packer *k, pack_frame *f,
                              int table) {
    f->pairs++;
    if (lua_type(L, -2) == LUA_TSTRING) {
        size_t len;
        const char *s = lua_tolstring(L, -2, &len);
        if (len <= KEY_LEN_MAX)
            put_key(L, k, s, len);
        else
            put_string(L, k, s, len);
        return STEP_DONE;
    }
    if (pack_scalar(L, k, -2))
        return STEP_DONE;
    lua_pop(L, 1);
    f->keyed = f->in_key = true;
    lua_pushvalue(L, table + 1);
    pack_step step = pack_enter(L, k);
    if (step == STEP_DONE) { /* no frame was opened: `f` is valid */
        f->keyed = f->in_key = false;
        lua_settop(L, table + 1);
        lua_pushvalue(L, table + 1);
        lua_rawget(L, table);
    }
    return step;
}

static pack_step step_table(lua_State *L, packer *k, pack_frame *f) {
    int table = pack_slot(&k->window, k->nframes - 1);
    bool pending = f->keyed;
    if (pending) { /* back from a key that is no scalar */
        f->keyed = f->in_key = false;
        lua_pushvalue(L, table + 1);
        lua_rawget(L, table);
    }
    while (pending || lua_next(L, table)) {
        if (!pending && !(f->next && next_item(L, k, f))) {
            pack_step step = put_pair_key(L, k, f, table);
            if (step != STEP_DONE)
                return step;
        }
        pending = false;
        if (!pack_scalar(L, k, -1)) {
            pack_step step = pack_enter(L, k);
            if (step != STEP_DONE)
                return step;
        }
        lua_settop(L, table + 1);
    }
    return end_table(L, k, f);
}

/* --- things with a metatable ----------------------------------------- */

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

/* Results of hooks live until the message is done: the memo knows them by
   address. The value is on top. */
static void anchor(lua_State *L, packer *k) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, k) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, k);
        k->anchored = true;
    }
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 1);
}

/* Replaces what is above `bottom` by a list of it, and returns its length. */
static int gather(lua_State *L, int bottom) {
    int n = lua_gettop(L) - bottom;
    lua_createtable(L, n, 0);
    lua_insert(L, bottom + 1);
    for (int i = n; i > 0; i--)
        lua_rawseti(L, bottom + 1, i);
    return n;
}

static bool callable(lua_State *L, int idx) {
    if (lua_isfunction(L, idx))
        return true;
    if (lua_isnone(L, idx) || luaL_getmetafield(L, idx, "__call") ==
                                  LUA_TNIL)
        return false;
    lua_pop(L, 1);
    return true;
}

/* With the reducing function on top, and under it the thing, above
   `bottom`: calls it, and opens a frame on the list of its results. The
   thing is replaced by the list. `name`: rebuilt by the registered
   function of this name; NULL: by the first result. */
static pack_step reduce(lua_State *L, packer *k, int bottom,
                        const char *name, size_t len) {
    const void *key = lua_topointer(L, bottom + 1);
    lua_pushvalue(L, bottom + 1);
    lua_call(L, 1, LUA_MULTRET);
    k->epoch++; /* a string seen before the call may be gone */
    if (!name && !callable(L, bottom + 2)) {
        lua_settop(L, bottom + 1);
        pack_refuse(L, k, "its __reduce returned no function to rebuild it");
    }
    int n = gather(L, bottom + 1);
    lua_settop(L, bottom + 2);
    lua_replace(L, bottom + 1);
    anchor(L, k);
    remember_next(L, k, key, MEMO_BUSY);
    if (name) {
        pack_number(L, k, TAG_REBUILD, len);
        put_bytes(L, k, name, len);
        unsigned char *p = pack_room(L, k, MP_VARINT_MAX);
        k->out.len = (size_t)(mp_varint_put(p, (uint64_t)n) - k->out.data);
    } else {
        k->out.needs |= PACK_CODE;
        pack_number(L, k, TAG_REDUCE, (uint64_t)n);
    }
    pack_open(L, k, FRAME_LIST)->limit = n;
    return STEP_OPENED;
}

/* The metatable is on top, the thing below: has it a reducing function,
   registered or as a field? Then begins the list of what that returns. */
static bool reducible(lua_State *L, packer *k, pack_step *step) {
    int bottom = lua_gettop(L) - 2;
    lua_pushvalue(L, -1);
    pack_class_push(L);
    if (lua_istable(L, -1)) {
        lua_rawgeti(L, -1, CLASS_NAME);
        lua_rawgeti(L, -2, CLASS_REDUCE);
        if (lua_isfunction(L, -1)) {
            size_t len; /* the entry holds the name */
            const char *name = lua_tolstring(L, -2, &len);
            lua_replace(L, bottom + 2);
            lua_settop(L, bottom + 2);
            *step = reduce(L, k, bottom, name, len);
            return true;
        }
    }
    lua_settop(L, bottom + 2);
    lua_pushliteral(L, "__reduce");
    if (lua_rawget(L, -2) == LUA_TNIL) {
        lua_pop(L, 1);
        return false;
    }
    lua_replace(L, bottom + 2);
    *step = reduce(L, k, bottom, NULL, 0);
    return true;
}

/* Writes META and the name of the metatable on top, or returns false. */
static bool put_meta(lua_State *L, packer *k) {
    const void *meta = lua_topointer(L, -1);
    size_t id;
    if (pack_names_find(L, k->store, meta, &id) < 0)
        return false;
    size_t number = pack_memo_find(&k->memo, (uintptr_t)meta);
    pack_byte(L, k, TAG_META);
    if (number != PACK_MEMO_NONE &&
        k->memo.entries[number].info % MEMO_KINDS == MEMO_NAME)
        pack_number(L, k, TAG_NAMEREF, number);
    else
        pack_named(L, k, meta, true);
    return true;
}

/* The metatable is on top, the table or userdata below it. */
static pack_step enter_object(lua_State *L, packer *k) {
    pack_step step = pack_renew(L, k, false);
    if (step != STEP_DONE)
        return step;
    if (reducible(L, k, &step))
        return step;
    if (lua_istable(L, -2)) {
        bool put = put_meta(L, k);
        if (!put && !k->scanned) {
            if (pack_renew(L, k, true) != STEP_DONE)
                return STEP_AGAIN;
            put = put_meta(L, k);
        }
        if (put) {
            lua_pop(L, 1);
            begin_table(L, k);
            return STEP_OPENED;
        }
    }
    lua_pop(L, 1);
    pack_refuse(L, k, "register its metatable with mp.pickle.register(name, "
                      "metatable%s), or give that a field __reduce",
                lua_istable(L, -1) ? "" : ", reduce, rebuild");
    return STEP_DONE;
}

/* --- each type -------------------------------------------------------- */

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
        return enter_object(L, k);
    begin_table(L, k);
    return STEP_OPENED;
}

/* Enters a shared object into the list of the message, once. */
static void note_handle(lua_State *L, packer *k, const bind_object *o) {
    uintptr_t key = (uintptr_t)o->id * 2 + 1; /* odd: no address */
    if (pack_memo_find(&k->cells, key) != PACK_MEMO_NONE)
        return;
    pack_handle *grown = mp_grow(k->out.handles, &k->out.handles_cap,
                                 sizeof *grown, k->out.nhandles + 1);
    if (!grown)
        bind_error(L, "PicklingError", "not enough memory to pickle %s",
                   k->what);
    k->out.handles = grown;
    grown[k->out.nhandles++] = (pack_handle){o->id, o->gen};
    pack_remember(L, k, &k->cells, (const void *)key, 0);
    k->out.needs |= PACK_HANDLES;
}

static void put_handle(lua_State *L, packer *k, const bind_object *o) {
    if (!o->shm)
        pack_refuse(L, k, "it is closed");
    note_handle(L, k, o);
    remember_next(L, k, o, MEMO_THING);
    unsigned char *p = pack_room(L, k, 2 + 3 * MP_VARINT_MAX);
    *p++ = TAG_HANDLE;
    *p++ = o->class->code;
    p = mp_varint_put(p, o->id);
    p = mp_varint_put(p, o->gen);
    p = mp_varint_put(p, o->aux);
    k->out.len = (size_t)(p - k->out.data);
}

static pack_step enter_userdata(lua_State *L, packer *k) {
    const void *key = lua_topointer(L, -1);
    if (pack_again(L, k, key))
        return STEP_DONE;
    const bind_object *o = bind_test(L, lua_gettop(L));
    if (o) {
        put_handle(L, k, o);
        return STEP_DONE;
    }
    pack_step step = pack_renew(L, k, false);
    if (step != STEP_DONE)
        return step;
    if (pack_named(L, k, key, false))
        return STEP_DONE;
    if (lua_getmetatable(L, -1))
        return enter_object(L, k);
    pack_refuse(L, k, NULL);
    return STEP_DONE;
}

pack_step pack_enter(lua_State *L, packer *k) {
    switch (lua_type(L, -1)) {
    case LUA_TTABLE: return enter_table(L, k);
    case LUA_TFUNCTION: return code_write(L, k);
    case LUA_TUSERDATA: return enter_userdata(L, k);
    default:
        if (!pack_scalar(L, k, -1))
            pack_refuse(L, k, NULL);
        return STEP_DONE;
    }
}

/* field _G of the table at 1, as its users see it */
static int get_g(lua_State *L) {
    lua_getfield(L, 1, "_G");
    return 1;
}

/* Does the table on top, which has a metatable of no name, show the globals
   as its _G? */
static bool inherits_globals(lua_State *L, const packer *k) {
    size_t id;
    if (!lua_istable(L, -1) || !lua_getmetatable(L, -1))
        return false;
    bool named =
        pack_names_find(L, k->store, lua_topointer(L, -1), &id) >= 0;
    lua_pop(L, 1);
    if (named)
        return false;
    lua_pushcfunction(L, get_g);
    lua_pushvalue(L, -2);
    bool shows = lua_pcall(L, 1, 1, 0) == LUA_OK &&
                 lua_topointer(L, -1) == k->globals;
    lua_pop(L, 1);
    return shows;
}

pack_step pack_enter_env(lua_State *L, packer *k) {
    const void *key = lua_topointer(L, -1);
    if (pack_memo_find(&k->memo, (uintptr_t)key) != PACK_MEMO_NONE ||
        !inherits_globals(L, k))
        return pack_enter(L, k);
    pack_byte(L, k, TAG_META);
    pack_byte(L, k, TAG_GLOBALS);
    begin_table(L, k);
    return STEP_OPENED;
}

static pack_step step_list(lua_State *L, packer *k, pack_frame *f) {
    int list = pack_slot(&k->window, k->nframes - 1);
    while (f->next < f->limit) {
        lua_rawgeti(L, list, ++f->next);
        pack_step step = pack_enter(L, k);
        if (step != STEP_DONE)
            return step;
        lua_settop(L, list + 1);
    }
    k->memo.entries[f->number].info &= ~(uint64_t)(MEMO_KINDS - 1);
    return STEP_DONE;
}

/* --- the whole ------------------------------------------------------- */

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
