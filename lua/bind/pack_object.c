/* The encoder's part for what has a metatable: objects of named classes,
   things that reduce to others, shared objects, environments. */
#include <string.h>

#include "bind/bind.h"
#include "bind/pack_impl.h"

/* ---- reducing ------------------------------------------------------- */

/* Has the thing at `thing` a state apart from what makes it? */
static bool has_state(lua_State *L, packer *k, int thing) {
    if (luaL_getmetafield(L, thing, "__getstate") == LUA_TNIL)
        return false;
    if (luaL_getmetafield(L, thing, "__setstate") == LUA_TNIL) {
        lua_pushvalue(L, thing);
        pack_refuse(L, k, "it has a __getstate and no __setstate");
    }
    lua_pop(L, 2);
    return true;
}

/* Pushes the state of the thing at `thing`, which has one. */
static void push_state(lua_State *L, packer *k, int thing) {
    luaL_getmetafield(L, thing, "__getstate");
    lua_pushvalue(L, thing);
    lua_call(L, 1, 1);
    k->epoch++; /* a string seen before the call may be gone */
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

/* The thing above `bottom` was reduced to no function, which is above it, but
   perhaps to nil and the reason. */
static void refuse_reduced(lua_State *L, packer *k, int bottom) {
    const char *why = "its __reduce returned no function to rebuild it";
    if (lua_isnil(L, bottom + 2) && lua_type(L, bottom + 3) == LUA_TSTRING)
        why = lua_tostring(L, bottom + 3);
    lua_pushvalue(L, bottom + 1);
    pack_refuse(L, k, "%s", why);
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
    if (!name && !callable(L, bottom + 2)) refuse_reduced(L, k, bottom);
    int n = gather(L, bottom + 1);
    lua_settop(L, bottom + 2);
    bool state = has_state(L, k, bottom + 1);
    if (state) {
        push_state(L, k, bottom + 1);
        lua_rawseti(L, bottom + 2, n + 1);
        pack_byte(L, k, TAG_STATE);
    }
    lua_replace(L, bottom + 1);
    anchor(L, k);
    pack_remember_next(L, k, key, MEMO_BUSY);
    if (name) {
        pack_number(L, k, TAG_REBUILD, len);
        pack_bytes(L, k, name, len);
        unsigned char *p = pack_room(L, k, MP_VARINT_MAX);
        k->out.len = (size_t)(mp_varint_put(p, (uint64_t)n) - k->out.data);
    } else {
        k->out.needs |= PACK_CODE;
        pack_number(L, k, TAG_REDUCE, (uint64_t)n);
    }
    pack_frame *f = pack_open(L, k, FRAME_LIST);
    f->limit = n + state;
    f->state = state;
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

/* ---- objects -------------------------------------------------------- */

/* Writes META and the name of the metatable on top, after a STATE if
   `state`, or returns false. */
static bool put_meta(lua_State *L, packer *k, bool state) {
    const void *meta = lua_topointer(L, -1);
    size_t id;
    int kind = pack_names_find(L, k->store, meta, &id);
    if (kind < 0)
        return false;
    if (state) {
        pack_byte(L, k, TAG_STATE);
        if (kind != NAME_CLASS)
            k->out.needs |= PACK_CODE;
    }
    size_t number = pack_memo_find(&k->memo, (uintptr_t)meta);
    pack_byte(L, k, TAG_META);
    if (number != PACK_MEMO_NONE &&
        k->memo.entries[number].info % MEMO_KINDS == MEMO_NAME)
        pack_number(L, k, TAG_NAMEREF, number);
    else
        pack_named(L, k, meta, true);
    return true;
}

/* Begins the table on top, whose META is written; of one that has a state
   only that goes along. */
static pack_step begin_object(lua_State *L, packer *k, bool state) {
    if (!state)
        return pack_begin_table(L, k);
    static const unsigned char empty[] = {TAG_TABLE, 0, 0};
    pack_remember_next(L, k, lua_topointer(L, -1), MEMO_THING);
    pack_bytes(L, k, empty, sizeof empty);
    lua_createtable(L, 1, 0);
    push_state(L, k, lua_gettop(L) - 1);
    lua_rawseti(L, -2, 1);
    lua_replace(L, -2);
    anchor(L, k);
    pack_frame *f = pack_open(L, k, FRAME_LIST);
    f->limit = 1;
    f->state = true;
    return STEP_OPENED;
}

pack_step pack_enter_object(lua_State *L, packer *k) {
    pack_step step = pack_renew(L, k, false);
    if (step != STEP_DONE)
        return step;
    if (reducible(L, k, &step))
        return step;
    if (lua_istable(L, -2)) {
        bool state = has_state(L, k, lua_gettop(L) - 1);
        bool put = put_meta(L, k, state);
        if (!put && !k->scanned) {
            if (pack_renew(L, k, true) != STEP_DONE)
                return STEP_AGAIN;
            put = put_meta(L, k, state);
        }
        if (put) {
            lua_pop(L, 1);
            return begin_object(L, k, state);
        }
    }
    lua_pop(L, 1);
    pack_refuse(L, k, "register its metatable with mp.pickle.register(name, "
                      "metatable%s), or give that a field __reduce",
                lua_istable(L, -1) ? "" : ", reduce, rebuild");
    return STEP_DONE;
}

/* ---- userdata ------------------------------------------------------- */

void pack_note_handle(lua_State *L, packer *k, uint32_t id, uint32_t gen) {
    uintptr_t key = (uintptr_t)id * 2 + 1; /* odd: no address */
    if (pack_memo_find(&k->cells, key) != PACK_MEMO_NONE)
        return;
    pack_handle *grown = mp_grow(k->out.handles, &k->out.handles_cap,
                                 sizeof *grown, k->out.nhandles + 1);
    if (!grown)
        bind_error(L, "PicklingError", "not enough memory to pickle %s",
                   k->what);
    k->out.handles = grown;
    grown[k->out.nhandles++] = (pack_handle){id, gen};
    pack_remember(L, k, &k->cells, (const void *)key, 0);
    k->out.needs |= PACK_HANDLES;
}

static void put_handle(lua_State *L, packer *k, const bind_object *o) {
    if (!o->shm)
        pack_refuse(L, k, "it is closed");
    pack_note_handle(L, k, o->id, o->gen);
    pack_remember_next(L, k, o, MEMO_THING);
    unsigned char *p = pack_room(L, k, 2 + 3 * MP_VARINT_MAX);
    *p++ = TAG_HANDLE;
    *p++ = o->class->code;
    p = mp_varint_put(p, o->id);
    p = mp_varint_put(p, o->gen);
    p = mp_varint_put(p, o->aux);
    k->out.len = (size_t)(p - k->out.data);
}

pack_step pack_enter_userdata(lua_State *L, packer *k) {
    const void *key = lua_topointer(L, -1);
    if (pack_again(L, k, key))
        return STEP_DONE;
    if (pack_descriptor(L, k))
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
        return pack_enter_object(L, k);
    pack_refuse(L, k, NULL);
    return STEP_DONE;
}

/* ---- environments --------------------------------------------------- */

/* field _G of the table at 1, as its users see it */
static int get_g(lua_State *L) {
    lua_getfield(L, 1, "_G");
    return 1;
}

/* Does the table on top, which has a metatable of no name, show the globals
   as its _G? */
static bool inherits_globals(lua_State *L, packer *k) {
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
    k->epoch++; /* user code may have run, as in reduce() */
    return shows;
}

pack_step pack_enter_env(lua_State *L, packer *k) {
    const void *key = lua_topointer(L, -1);
    if (pack_memo_find(&k->memo, (uintptr_t)key) != PACK_MEMO_NONE ||
        !inherits_globals(L, k))
        return pack_enter(L, k);
    pack_byte(L, k, TAG_META);
    pack_byte(L, k, TAG_GLOBALS);
    return pack_begin_table(L, k);
}
