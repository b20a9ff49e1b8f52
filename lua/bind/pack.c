/* The encoder's life, the store of a state, and the window of frames on
   the Lua stack.  Everything malloc'ed hangs from a userdata with __gc. */
#include "bind/pack.h"

#include <stdlib.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/pack_impl.h"

static const char store_key; /* its address is the key in the registry */

/* ---- the store ------------------------------------------------------ */

static int store_gc(lua_State *L) {
    pack_store *s = lua_touserdata(L, 1);
    pack_memo_free(&s->names);
    return 0;
}

static void add_gc(lua_State *L, const char *name, lua_CFunction gc) {
    if (luaL_newmetatable(L, name)) {
        lua_pushcfunction(L, gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
}

static pack_store *new_store(lua_State *L) {
    pack_store *s = lua_newuserdatauv(L, sizeof *s, STORE_VALUES);
    memset(s, 0, sizeof *s);
    add_gc(L, "mp.pickle.store", store_gc);
    for (int i = STORE_PATHS; i <= STORE_VALUES; i++) {
        lua_newtable(L);
        lua_setiuservalue(L, -2, i);
    }
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &store_key);
    return s;
}

pack_store *pack_store_push(lua_State *L) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &store_key) == LUA_TUSERDATA)
        return lua_touserdata(L, -1);
    lua_pop(L, 1);
    return new_store(L);
}

void pack_store_value(lua_State *L, int which) {
    pack_store_push(L);
    lua_getiuservalue(L, -1, which);
    lua_remove(L, -2);
}

/* ---- the encoder ---------------------------------------------------- */

static void drop_anchor(lua_State *L, packer *k) {
    if (k->anchored) {
        lua_pushnil(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, k);
        k->anchored = false;
    }
}

static int packer_gc(lua_State *L) {
    packer *k = lua_touserdata(L, 1);
    drop_anchor(L, k);
    pack_drop_parcels(k);
    free(k->out.data);
    free(k->out.handles);
    free(k->out.made);
    free(k->frames);
    free(k->keys);
    pack_memo_free(&k->memo);
    pack_memo_free(&k->cells);
    pack_memo_free(&k->codes);
    memset(k, 0, sizeof *k);
    return 0;
}

/* The user value of an idle encoder: the one that became idle before it. As
   many are kept as ever worked at the same time: one packs into another. */
enum { NEXT_SPARE = 1 };

static void new_packer(lua_State *L) {
    packer *k = lua_newuserdatauv(L, sizeof *k, 1);
    memset(k, 0, sizeof *k);
    add_gc(L, "mp.pickle.out", packer_gc);
}

pack_out *pack_begin(lua_State *L) {
    pack_store *store = pack_store_push(L);
    if (lua_getiuservalue(L, -1, STORE_SPARE) == LUA_TUSERDATA) {
        lua_getiuservalue(L, -1, NEXT_SPARE);
        lua_setiuservalue(L, -3, STORE_SPARE);
    } else {
        lua_pop(L, 1);
        new_packer(L);
    }
    lua_remove(L, -2);
    packer *k = lua_touserdata(L, -1);
    k->store = store;
    k->epoch++;
    return &k->out;
}

pack_out *pack_begin_shared(lua_State *L) {
    pack_out *out = pack_begin(L);
    out->parcels = true;
    return out;
}

/* Frees an array of more than PACK_KEEP bytes. */
static void *trim(void *data, size_t *cap, size_t size) {
    if (*cap * size <= PACK_KEEP)
        return data;
    free(data);
    *cap = 0;
    return NULL;
}

void pack_end(lua_State *L, int idx) {
    idx = lua_absindex(L, idx);
    packer *k = lua_touserdata(L, idx);
    drop_anchor(L, k);
    pack_drop_parcels(k);
    k->out.data = trim(k->out.data, &k->out.cap, 1);
    k->out.handles =
        trim(k->out.handles, &k->out.handles_cap, sizeof *k->out.handles);
    k->frames = trim(k->frames, &k->frames_cap, sizeof *k->frames);
    pack_memo_reset(&k->memo, PACK_KEEP);
    pack_memo_reset(&k->cells, PACK_KEEP);
    pack_memo_reset(&k->codes, PACK_KEEP);
    k->out.len = k->out.nhandles = k->nframes = 0;
    k->out.needs = 0;
    k->out.parcels = false;
    k->out.baggage = NULL;
    k->nkeys = 0;
    k->globals = NULL;
    k->refreshed = k->scanned = false;
    if (k->epoch > UINT32_MAX / 2) { /* long before it comes round */
        k->epoch = 0;
        if (k->keys)
            memset(k->keys, 0, PACK_KEYS * sizeof *k->keys);
    }
    pack_store_push(L);
    lua_getiuservalue(L, -1, STORE_SPARE);
    lua_setiuservalue(L, idx, NEXT_SPARE);
    lua_pushvalue(L, idx);
    lua_setiuservalue(L, -2, STORE_SPARE);
    lua_pop(L, 1);
}

/* ---- the window ----------------------------------------------------- */

void pack_window_spill(lua_State *L, pack_window *w) {
    if (lua_isnil(L, w->spill)) {
        lua_createtable(L, 4 * PACK_WINDOW, 0);
        lua_replace(L, w->spill);
    }
    lua_Integer at = (lua_Integer)(2 * w->spilled);
    for (int i = 1; i <= PACK_WINDOW; i++) {
        lua_pushvalue(L, w->base + i);
        lua_rawseti(L, w->spill, at + i);
    }
    lua_rotate(L, w->base + 1, -PACK_WINDOW);
    lua_pop(L, PACK_WINDOW);
    w->spilled += PACK_WINDOW / 2;
}

void pack_window_restore(lua_State *L, pack_window *w) {
    w->spilled -= PACK_WINDOW / 2;
    lua_Integer at = (lua_Integer)(2 * w->spilled);
    for (int i = 1; i <= PACK_WINDOW; i++)
        lua_rawgeti(L, w->spill, at + i);
    lua_rotate(L, w->base + 1, PACK_WINDOW);
}
