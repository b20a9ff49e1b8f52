/* What owns a descriptor, on its way from a process to another: a Connection,
   or a DupFd, which is nothing but that.

   In what lies in the arena a descriptor is a parcel, which the message holds
   as it holds every shared object, and each who decodes it unpacks for
   himself; in a message over a connection it rides along. Where neither is
   possible it is refused. */
#include "bind/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "bind/bind.h"
#include "bind/connection_impl.h"
#include "bind/core.h"
#include "bind/pack_impl.h"
#include "data/parcel.h"
#include "mem/object.h"

/* Bits of a descriptor's record, of a Connection. */
enum { READABLE = 1, WRITABLE = 2, TRUSTED = 4, BITS = 7 };

/* ---- sending ---------------------------------------------------------- */

void pack_drop_parcels(packer *k) {
    /* In a child forked behind our back they are not ours. */
    for (; k->out.nmade > 0; k->out.nmade--)
        if (mp_me) mp_object_detach(k->out.made[k->out.nmade - 1]);
}

static unsigned char *put_head(lua_State *L, packer *k, int tag,
                               uint8_t code) {
    pack_remember_next(L, k, lua_topointer(L, -1), MEMO_THING);
    unsigned char *p = pack_room(L, k, 2 + 3 * MP_VARINT_MAX);
    *p++ = (unsigned char)tag;
    *p++ = code;
    return p;
}

/* As one of those that ride along. */
static void put_baggage(lua_State *L, packer *k, uint8_t code, int fd,
                        unsigned bits) {
    connection_baggage *baggage = k->out.baggage;
    if (baggage->n >= MP_CONN_MOST_FDS)
        pack_refuse(L, k, "no more than %d descriptors go with one message "
                          "over a connection", MP_CONN_MOST_FDS);
    unsigned char *p = put_head(L, k, TAG_DESCRIPTOR, code);
    p = mp_varint_put(p, (uint64_t)baggage->n);
    p = mp_varint_put(p, bits);
    k->out.len = (size_t)(p - k->out.data);
    k->out.needs |= PACK_DESCRIPTORS;
    /* Sealed, so that the receiver can believe it. */
    if (bits & TRUSTED) k->out.needs |= PACK_CODE;
    baggage->fds[baggage->n++] = fd;
}

static void refuse_parcel(lua_State *L, packer *k, int r) {
    pack_drop_parcels(k);
    lua_pushfstring(L, "cannot send a descriptor in %s%s", k->what,
                    r == -ENOSPC ? ": too many are under way in this family"
                    : r == -ETOOMANYREFS
                        ? ": too many of this user are under way"
                    : r == -EOPNOTSUPP
                        ? ": this program has no place to keep it"
                        : "");
    bind_oserror(L, r, lua_tostring(L, -1));
}

/* As a parcel, ours until the message is done with. */
static void put_parcel(lua_State *L, packer *k, uint8_t code, int fd,
                       unsigned bits) {
    pack_out *out = &k->out;
    uint32_t id, gen;
    bind_open_runtime(L);
    uint32_t *grown = mp_grow(out->made, &out->made_cap, sizeof *grown,
                              out->nmade + 1);
    if (!grown)
        bind_error(L, "PicklingError", "not enough memory to pickle %s",
                   k->what);
    out->made = grown;
    int r = mp_parcel_create(fd, &id, &gen);
    if (r < 0) refuse_parcel(L, k, r);
    out->made[out->nmade++] = id;
    pack_note_handle(L, k, id, gen);
    unsigned char *p = put_head(L, k, TAG_HANDLE, code);
    p = mp_varint_put(p, id);
    p = mp_varint_put(p, gen);
    p = mp_varint_put(p, bits);
    k->out.len = (size_t)(p - k->out.data);
}

static void put(lua_State *L, packer *k, uint8_t code, int fd,
                unsigned bits) {
    if (fd < 0) pack_refuse(L, k, "it is closed");
    if (k->out.baggage)
        put_baggage(L, k, code, fd, bits);
    else if (k->out.parcels)
        put_parcel(L, k, code, fd, bits);
    else
        pack_refuse(L, k, "it goes only to where a descriptor can: to a "
                          "process or pool, through a queue, over a "
                          "connection of this machine");
}

bool pack_descriptor(lua_State *L, packer *k) {
    const mp_conn *c = connection_at(L, -1);
    if (c) {
        put(L, k, CONNECTION_CODE, c->fd,
            (c->readable ? READABLE : 0U) | (c->writable ? WRITABLE : 0U) |
                (c->trusted ? TRUSTED : 0U));
        return true;
    }
    int fd = descriptor_at(L, -1);
    if (fd == -2) return false;
    put(L, k, DESCRIPTOR_CODE, fd, 0);
    return true;
}

/* ---- receiving -------------------------------------------------------- */

/* Where a descriptor comes from: a parcel, or (NULL) those that rode along.
   What was taken is ours. Raises. */
typedef struct origin {
    const pack_handle *parcel;
    uint64_t index;
} origin;

static int take_parcel(lua_State *L, const pack_handle *parcel) {
    int r = mp_object_attach(parcel->id, parcel->gen);
    if (r < 0)
        bind_error(L, "StateError", "parcel #%d no longer exists",
                   (int)parcel->id);
    int fd = mp_parcel_unpack(parcel->id);
    mp_object_detach(parcel->id);
    if (fd < 0) bind_oserror(L, fd, "cannot receive a descriptor");
    return fd;
}

static int take(unpacker *u, const origin *from) {
    lua_State *L = u->L;
    if (from->parcel) return take_parcel(L, from->parcel);
    mp_conn_received *came = connection_unpacking(L);
    if (came && came->lost_fds)
        bind_oserror(L, -EMFILE, "cannot receive a descriptor");
    if (!came || from->index >= (uint64_t)came->n_fds ||
        came->fds[from->index] < 0)
        unpack_damaged(u, "a descriptor that did not come along");
    int fd = came->fds[from->index];
    came->fds[from->index] = -1;
    return fd;
}

static void adopt_connection(unpacker *u, const origin *from,
                             unsigned bits) {
    /* What a stranger sends is no better than he is. */
    bool trusted = bits & TRUSTED && u->flags & PACK_CODE;
    mp_conn *c = connection_new(u->L); /* first: what follows cannot raise */
    int fd = take(u, from);
    int r = mp_conn_open(c, fd, bits & READABLE, bits & WRITABLE);
    if (r < 0) {
        c->fd = -1;
        close(fd);
        bind_oserror(u->L, r, "what was received is no connection");
    }
    c->trusted = trusted;
}

static int *new_owner(lua_State *L);

/* False: no class of this code owns descriptors. */
static bool adopt(unpacker *u, uint8_t code, const origin *from,
                  uint32_t bits) {
    if (code == CONNECTION_CODE && bits & (READABLE | WRITABLE)) {
        adopt_connection(u, from, bits);
    } else if (code == DESCRIPTOR_CODE) {
        int *fd = new_owner(u->L);
        *fd = take(u, from);
    } else {
        return false;
    }
    return true;
}

bool unpack_parcel(unpacker *u, uint8_t code, const pack_handle *parcel,
                   uint32_t bits) {
    const origin from = {.parcel = parcel};
    if (code != CONNECTION_CODE && code != DESCRIPTOR_CODE) return false;
    bind_open_runtime(u->L);
    return adopt(u, code, &from, bits);
}

void unpack_descriptor(unpacker *u) {
    if (!(u->flags & PACK_DESCRIPTORS))
        bind_error(u->L, "PicklingError", "refused to load a descriptor: "
                   "none came along with these bytes");
    uint8_t code = *unpack_bytes(u, 1);
    origin from = {.index = unpack_number(u, UINT32_MAX)};
    uint32_t bits = (uint32_t)unpack_number(u, BITS);
    if (!adopt(u, code, &from, bits))
        unpack_damaged(u, "a descriptor of no known kind");
}

/* ---- DupFd ------------------------------------------------------------ */

#define DUP_FD "DupFd"

static int *owner(lua_State *L, const char *fn) {
    int *fd = luaL_testudata(L, 1, DUP_FD);
    if (!fd) bind_argerror(L, fn, 1, "self", DUP_FD);
    return fd;
}

int descriptor_at(lua_State *L, int idx) {
    const int *fd = luaL_testudata(L, idx, DUP_FD);
    return fd ? *fd : -2;
}

static int owner_close(lua_State *L) {
    int *fd = owner(L, "close");
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return 0;
}

static int open_of(lua_State *L, const char *fn) {
    int fd = *owner(L, fn);
    if (fd < 0) bind_error(L, "OSError", "%s: the DupFd is closed", fn);
    return fd;
}

static int owner_fileno(lua_State *L) {
    lua_pushinteger(L, open_of(L, "fileno"));
    return 1;
}

/* detach() -> the descriptor, which is the caller's now */
static int owner_detach(lua_State *L) {
    lua_pushinteger(L, open_of(L, "detach"));
    *owner(L, "detach") = -1;
    return 1;
}

static int owner_tostring(lua_State *L) {
    int fd = *owner(L, "tostring");
    if (fd < 0)
        lua_pushliteral(L, "<DupFd closed>");
    else
        lua_pushfstring(L, "<DupFd %d>", fd);
    return 1;
}

/* Pushes a DupFd that is still closed. */
static int *new_owner(lua_State *L) {
    static const luaL_Reg methods[] = {{"fileno", owner_fileno},
                                       {"detach", owner_detach},
                                       {"close", owner_close},
                                       {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", owner_close},
                                    {"__close", owner_close},
                                    {"__tostring", owner_tostring},
                                    {NULL, NULL}};
    luaL_checkstack(L, 6, DUP_FD);
    int *fd = lua_newuserdatauv(L, sizeof *fd, 0);
    *fd = -1;
    if (luaL_newmetatable(L, DUP_FD)) {
        luaL_setfuncs(L, meta, 0);
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
    }
    lua_setmetatable(L, -2);
    return fd;
}

/* DupFd(fd): a duplicate of the descriptor */
static int new_dup(lua_State *L) {
    lua_Integer from = bind_integer(L, 1, DUP_FD, "fd", 0, INT32_MAX);
    int *fd = new_owner(L);
    *fd = fcntl((int)from, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (*fd < 0) bind_oserror(L, -errno, DUP_FD);
    return 1;
}

void bind_descriptor_open(lua_State *L) {
    mp_parcel_open();
    lua_pushcfunction(L, new_dup);
    lua_setfield(L, -2, DUP_FD);
}
