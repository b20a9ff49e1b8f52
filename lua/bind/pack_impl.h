/* What the files of the pickler share: the wire format, the encoder and
   the decoder (pack.h is the contract for everyone else).

   A message is a sequence of values.  A value is a tag byte and what its
   tag says below.  `n` is a varint; tables, functions, long strings,
   rebuilt objects, handles and named things are numbered from 0 in the
   order of their tags, and REF n names one of them again.  The low bit of
   a numbered tag says whether such a REF follows: the encoder sets it
   when it meets the thing again, and the decoder remembers only what is
   asked for, so plain trees cost it nothing.  Short string keys have a
   numbering of their own.

     00..7f  the integer tag - 32
     80..9f  a string of tag - 80 bytes
     a0..bf  the key number tag - a0
     NIL FALSE TRUE    themselves
     INT n             an integer, zigzag
     FLOAT x8          a double, its bits low byte first
     STR n x..         a string
     BLOB n x..        the same, numbered
     KEY x1 x..        a short string, numbered among the keys
     KEYREF n          key n
     TABLE h n v.. (k v)..   n array items, then pairs: h of them when
                       h < TABLE_OPEN, else no more than 2^(h - TABLE_OPEN)
                       and more than half of that, and END.  `n` may be
                       padded
     META name TABLE   the table gets a metatable; `name` is a NAME,
                       REGNAME or NAMEREF, or GLOBALS for one that makes
                       it inherit the globals
     FUNC c v..        c is a code: a varint 2 * length and as many bytes,
                       or 2 * i + 1 for the i-th code of the message; then
                       each upvalue: a value, or CELL f u, the cell of
                       upvalue u of function number f
     REDUCE n v..      the first of n values is called with the others
     REBUILD s n v..   the rebuilding function registered under the name s
                       (n x..) is called with n values
     STATE v s         v, a REDUCE, REBUILD or META of an empty table, and
                       then its state: __setstate(v, s) is called.  v can
                       be referred to from s on
     HANDLE c id gen aux     a shared object of class c (one byte); or, of
                       a class that owns descriptors, a parcel of one, and
                       what else is to be known of it
     DESCRIPTOR c i bits     what class c makes of the i-th descriptor that
                       came along
     GLOBALS           the table of globals
     NAME k s..        a module s[1] or, for k > 1, its field s[2]. ...
     REGNAME s         a registered metatable
     REF n             thing number n
     NAMEREF n         thing number n, which is a NAME or REGNAME */
#ifndef MP_BIND_PACK_IMPL_H
#define MP_BIND_PACK_IMPL_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "bind/pack.h"
#include "bind/pack_memo.h"

enum {
    TAG_INT0 = 32,     /* the tag of the integer 0 */
    TAG_INT_MIN = -32, /* range of integers in one byte */
    TAG_INT_MAX = 95,
    TAG_STRING0 = 0x80,
    TAG_KEYREF0 = 0xa0,
    TAG_SMALL = 32,    /* lengths and key numbers in the tag: below this */
    TAG_SHARED = 1,    /* bit of the numbered tags: a REF follows */
    TAG_NIL = 0xc0,
    TAG_FALSE,
    TAG_TRUE,
    TAG_INT,
    TAG_FLOAT,
    TAG_STR,
    TAG_BLOB = 0xc6,
    TAG_KEY = 0xc8,
    TAG_TABLE = 0xca,
    TAG_FUNC = 0xcc,
    TAG_REDUCE = 0xce,
    TAG_REBUILD = 0xd0,
    TAG_HANDLE = 0xd2,
    TAG_META = 0xd4,
    TAG_NAME,
    TAG_REGNAME,
    TAG_REF,
    TAG_NAMEREF,
    TAG_KEYREF,
    TAG_GLOBALS,
    TAG_CELL,
    TAG_END,
    TAG_STATE,
    TAG_DESCRIPTOR
};

#define TABLE_OPEN 224  /* `h` from here on: an END follows */
#define KEY_LEN_MAX 40  /* strings up to this are interned by Lua: same
                           address, same string (LUAI_MAXSHORTLEN) */
#define BLOB_LEN_MIN 256
#define PACK_RESERVED "mp.error" /* the error objects' metatable, known to
                                    all under its name in the registry */
#define PACK_KEEP ((size_t)1 << 20) /* buffers up to this are kept */

/* ---- the state's store (pack.c, pack_names.c, pack_class.c) --------- */

/* User values of the store. */
enum { STORE_SPARE = 1, STORE_PATHS, STORE_OBJECTS, STORE_CLASSES,
       STORE_NAMELESS, STORE_LOADED, STORE_VALUES = STORE_LOADED };

/* One per Lua state, in the registry: the idle encoders, and the names by
   which modules, classes and C functions travel. */
typedef struct pack_store {
    pack_memo names;       /* address -> kind; the number is the index in
                              STORE_PATHS (its wire form) and in
                              STORE_OBJECTS (weak: the thing itself) */
    uint64_t fingerprint;  /* of package.loaded at the last scan */
} pack_store;

/* Kinds of names. */
enum {
    NAME_VALUE,  /* modules, C functions, functions of mp's own modules:
                    always by name */
    NAME_META,   /* fields of modules: by name when used as a metatable, or
                    if they look like one */
    NAME_CLASS   /* registered: REGNAME */
};

/* Pushes the store (made at first use) and returns it. */
pack_store *pack_store_push(lua_State *L);

/* Pushes one of its tables. */
void pack_store_value(lua_State *L, int which);

/* Looks at package.loaded, and names what is new there. */
void pack_names_refresh(lua_State *L, pack_store *s);

/* Finds all names anew: of modules and their members. */
void pack_names_scan(lua_State *L, pack_store *s);

/* Names the C functions in nested tables, to any depth. */
void pack_names_scan_deep(lua_State *L, pack_store *s);

/* Names the table at `value`, which is the global with the name at `name`,
   as a scan would: absolute indexes. */
void pack_names_global(lua_State *L, pack_store *s, int name, int value);

/* Names mp's own Lua functions, those that are members of its modules or of
   tables there: what they do is bound to the state of their module. */
void pack_names_scan_own(lua_State *L, pack_store *s);

/* The kind of name `id`, -1 when the thing at `key` is no longer what was
   named. */
int pack_names_verify(lua_State *L, const pack_store *s, size_t id,
                      const void *key);

/* The kind of `key`, -1 when it has no name; its number in `*id`. */
static inline int pack_names_find(lua_State *L, const pack_store *s,
                                  const void *key, size_t *id) {
    *id = pack_memo_find(&s->names, (uintptr_t)key);
    return *id == PACK_MEMO_NONE ? -1 : pack_names_verify(L, s, *id, key);
}

/* Could the table on top be someone's metatable? */
bool pack_class_like(lua_State *L);

/* Does the thing with this name look like a metatable? */
bool pack_names_class(lua_State *L, size_t id);

/* A class or function for which a scan found no name need not be looked for
   in each message: remembers the thing on top, or tells whether it was
   remembered.  What package.loaded gets makes all forgotten. */
void pack_names_set_nameless(lua_State *L);
bool pack_names_nameless(lua_State *L);

/* Pushes the wire form of a name (from its tag on). */
void pack_names_push_wire(lua_State *L, size_t id);

/* Names the metatable at stack index `metatable` by the string at `name`. */
void pack_names_add_class(lua_State *L, pack_store *s, int name,
                          int metatable);

/* Pushes classes[key] (key at the top, popped): an entry {metatable,
   reduce, rebuild, name} or nil; key is a name or a metatable. */
void pack_class_push(lua_State *L);

/* mp.pickle.register */
int pack_class_register(lua_State *L);

/* Fields of a class's entry. */
enum { CLASS_META = 1, CLASS_REDUCE, CLASS_REBUILD, CLASS_NAME,
       CLASS_LENT /* true: it came with a job, and gives way to one that is
                     registered here */
};

/* ---- frames on the Lua stack (pack.c) ------------------------------- */

/* Encoder and decoder hold their unfinished things ("frames") as two Lua
   stack slots each, the thing and a key.  Only the innermost are on the
   stack; when the window is full, its older half moves to a table.
   Frame i, from 0, has its slots at base + 2 * (i - spilled) + 1 and + 2. */
#define PACK_WINDOW 96
#define PACK_STACK (2 * PACK_WINDOW + 60)

typedef struct pack_window {
    int base;        /* stack index below the window */
    int spill;       /* stack index of the table, nil until needed */
    size_t spilled;  /* frames in it */
} pack_window;

static inline int pack_slot(const pack_window *w, size_t frame) {
    return w->base + 2 * (int)(frame - w->spilled) + 1;
}

/* Makes room for frame number `frame`; what is above the window stays. */
void pack_window_spill(lua_State *L, pack_window *w);

/* Brings back the half that was moved last, below what is on top. */
void pack_window_restore(lua_State *L, pack_window *w);

/* ---- the encoder (pack_write.c) ------------------------------------- */

typedef struct pack_frame {
    uint8_t kind;       /* FRAME_* */
    uint8_t due;        /* table: DUE_*, of the pair whose key is in its
                           slot */
    bool in_key;        /* table: the child is the key */
    bool state;         /* list: its last item is the thing's state */
    uint8_t width;      /* table: bytes kept for the item count */
    size_t number;      /* in the memo */
    size_t head;        /* table: offset of the tag */
    lua_Integer next;   /* table: next array index, 0 after the array part;
                           else: items begun */
    lua_Integer limit;  /* table: border; else: items in all */
    lua_Integer holes;  /* table: nils written into the array part */
    lua_Integer items;  /* table: array items written, when next is 0 */
    size_t pairs;
} pack_frame;

enum { FRAME_TABLE, FRAME_FUNC, FRAME_LIST };
enum { DUE_NOTHING, DUE_KEY, DUE_VALUE };

/* What the memo says of a thing: its kind in the low bits, its tag's
   offset above them. */
enum { MEMO_THING, MEMO_BUSY, MEMO_NAME, MEMO_KINDS = 4 };

typedef struct pack_key {
    const char *text;
    uint32_t epoch;    /* valid in one message only */
    uint32_t number;
    size_t offset;
} pack_key;

#define PACK_KEYS 1024

typedef struct packer {
    pack_out out;
    const char *what;
    pack_frame *frames;
    size_t nframes, frames_cap;
    pack_window window;
    pack_memo memo;     /* things, by address */
    pack_memo cells;    /* upvalue cells by id; shared objects by 2 id + 1 */
    pack_memo codes;    /* dumped functions by hash -> offset */
    pack_key *keys;     /* PACK_KEYS, direct-mapped by address */
    uint32_t epoch;
    uint32_t nkeys;
    const void *globals;
    pack_store *store;
    bool refreshed;     /* names looked over for this message */
    bool scanned;       /* names found anew for this message */
    bool anchored;      /* registry[this] holds results of hooks */
} packer;

/* What a step of the encoder came to. */
typedef enum pack_step {
    STEP_DONE,    /* written in full; the value is still on top */
    STEP_OPENED,  /* a frame was opened: its slots are on top */
    STEP_AGAIN    /* a name became known too late: begin anew */
} pack_step;

/* Room for `n` more bytes; advance out.len by what was used. */
unsigned char *pack_room_slow(lua_State *L, packer *k, size_t n);

static inline unsigned char *pack_room(lua_State *L, packer *k, size_t n) {
    if (k->out.cap - k->out.len < n)
        return pack_room_slow(L, k, n);
    return k->out.data + k->out.len;
}

static inline void pack_byte(lua_State *L, packer *k, int byte) {
    *pack_room(L, k, 1) = (unsigned char)byte;
    k->out.len++;
}

/* A tag and one number. */
static inline void pack_number(lua_State *L, packer *k, int tag,
                               uint64_t n) {
    unsigned char *p = pack_room(L, k, 1 + MP_VARINT_MAX);
    *p = (unsigned char)tag;
    k->out.len = (size_t)(mp_varint_put(p + 1, n) - k->out.data);
}

void pack_bytes(lua_State *L, packer *k, const void *p, size_t n);

/* Adds `key` to one of the memos, or raises. */
void pack_remember(lua_State *L, packer *k, pack_memo *m, const void *key,
                   uint64_t info);

/* Numbers the thing at `key`, whose tag will be the next byte. */
void pack_remember_next(lua_State *L, packer *k, const void *key, int kind);

/* Opens a frame on the value on top; its number is the memo's last. */
pack_frame *pack_open(lua_State *L, packer *k, int kind);

/* Writes the table on top: whole when nothing in it needs a frame, else its
   beginning, in a frame of its own. Its header is filled in at its end. */
pack_step pack_begin_table(lua_State *L, packer *k);

/* Begins a value that is not a scalar, on top of the stack. */
pack_step pack_enter(lua_State *L, packer *k);

/* The same for a userdata, and for a table or userdata that has a metatable,
   which is on top of it. (pack_object.c) */
pack_step pack_enter_userdata(lua_State *L, packer *k);
pack_step pack_enter_object(lua_State *L, packer *k);

/* Enters a shared object into the list of the message, once. */
void pack_note_handle(lua_State *L, packer *k, uint32_t id, uint32_t gen);

/* Writes the userdata on top if it is the owner of a descriptor; else false.
   (descriptor.c) */
bool pack_descriptor(lua_State *L, packer *k);

/* Lets go of the parcels that were made for a message: who holds its handles
   has them now. */
void pack_drop_parcels(packer *k);

/* The same for the value of an upvalue _ENV: an environment that inherits
   the globals, whatever way its metatable does it, inherits the receiver's
   after. (Sandboxes, test frameworks.) */
pack_step pack_enter_env(lua_State *L, packer *k);

/* Writes the value at `idx` if it is a scalar or a string. */
bool pack_scalar(lua_State *L, packer *k, int idx);

/* Writes a REF if `key` was met before. */
bool pack_again(lua_State *L, packer *k, const void *key);

/* Writes a name if `key` has one that it goes by; as a metatable if `meta`,
   else as a value. */
bool pack_named(lua_State *L, packer *k, const void *key, bool meta);

/* Names may have changed: is all that was written by value in this call
   still without a name? `rescan` looks at everything, else only when
   package.loaded changed; each at most once per message. */
pack_step pack_renew(lua_State *L, packer *k, bool rescan);

/* Pushes the first bytes of a string for an error: what cannot be printed is
   escaped, and what is long cut off. (pack_path.c, and so the next) */
const char *pack_show(lua_State *L, const char *s, size_t len);

/* Raises the PicklingError: the culprit is on top. */
int pack_refuse(lua_State *L, packer *k, const char *advice, ...);

/* ---- the decoder (pack_read.c) -------------------------------------- */

typedef struct unpack_frame {
    uint8_t kind;        /* FRAME_*, UNPACK_META, UNPACK_STATE */
    uint8_t state;       /* table: UNPACK_* */
    bool shared;
    bool open;            /* table: more pairs may come, up to END */
    uint64_t number;
    uint64_t next, limit; /* items done, items in all */
    uint64_t pairs;       /* table: to come at least */
    uint64_t more;        /* open table: that may come besides */
    uint64_t owed;        /* items that the frames below still wait for */
} unpack_frame;

enum { UNPACK_META = FRAME_LIST + 1, UNPACK_STATE };
enum {
    UNPACK_ITEMS, /* an array item is due */
    UNPACK_NEXT,  /* a pair, or the end */
    UNPACK_KEY,   /* the key of a pair that has begun */
    UNPACK_VALUE  /* its value; the key is in its slot */
};

#define UNPACK_FRAMES 16

typedef struct unpacker {
    lua_State *L;
    const unsigned char *p, *end, *start;
    int flags;
    int base;            /* of the fixed slots: UNPACK_SLOT_* */
    uint64_t things, keys;
    uint32_t quick;      /* bit i: key i lies in its slot */
    uint32_t patience;   /* pairs until the next look at the clock */
    int64_t stop;        /* ns of this thread's processor time at which that
                            look gives up; 0 before the first */
    unpack_frame *frames;
    size_t nframes, frames_cap;
    uint64_t owed;
    pack_window window;
    lua_Integer ncodes;
    unpack_frame first[UNPACK_FRAMES];
} unpacker;

enum { UNPACK_SLOT_REFS = 1, UNPACK_SLOT_NAMES, UNPACK_SLOT_KEYS,
       UNPACK_SLOT_FRAMES, UNPACK_SLOT_SPILL, UNPACK_SLOT_CODES,
       UNPACK_SLOTS = UNPACK_SLOT_CODES };

/* The first keys that are asked for again lie in stack slots of their own,
   behind the fixed ones; the others in the table of UNPACK_SLOT_KEYS. */
#define UNPACK_QUICK 16

#define UNPACK_LOOK 1024 /* pairs between looks at the clock */

/* Raises «damaged data at byte N: why». */
int unpack_damaged(unpacker *u, const char *why);

/* The next varint; damaged when it is cut off or above `max`. */
uint64_t unpack_number_long(unpacker *u, uint64_t max);

static inline uint64_t unpack_number(unpacker *u, uint64_t max) {
    if (u->p < u->end && *u->p < 0x80 && *u->p <= max)
        return *u->p++;
    return unpack_number_long(u, max);
}

/* `n` bytes that follow, skipped. */
static inline const unsigned char *unpack_bytes(unpacker *u, uint64_t n) {
    const unsigned char *p = u->p;
    if (n > (uint64_t)(u->end - p))
        unpack_damaged(u, "the end is missing");
    u->p += n;
    return p;
}

/* Checks that `items` and twice `pairs` values can come after what is owed
   already. */
void unpack_claim(unpacker *u, uint64_t items, uint64_t pairs);

/* A size to ask Lua for. */
static inline int unpack_capped(uint64_t n) {
    return n < INT32_MAX / 2 ? (int)n : INT32_MAX / 2;
}

/* Pushes a string of the next `n` bytes. */
void unpack_string(unpacker *u, uint64_t n);

/* Pushes what was kept under a number in a slot's table. */
void unpack_kept(unpacker *u, int slot, uint64_t number);

/* How many items, of at least a byte each, frame `f` waits for besides the
   one that is being read. */
uint64_t unpack_awaited(const unpack_frame *f);

/* Pushes a scalar and returns true, or leaves everything as it is.
   (pack_table.c, and so the next four) */
bool unpack_scalar(unpacker *u);

/* Calls a function of the user's, as lua_call; its time is its own. */
void unpack_call(unpacker *u, int arguments, int results);

/* Reads a TABLE (after its tag): whole, or its beginning in a new frame. */
bool unpack_table(unpacker *u, bool shared);

/* Goes on with it; false when something inside has opened a frame. */
bool unpack_table_fill(unpacker *u, unpack_frame *f);

/* Gives it the value on top. `table`: its stack index. */
void unpack_table_take(unpacker *u, unpack_frame *f, int table);

/* Reads a value that is no scalar: a whole one, now on top (true), or the
   beginning of one, in a new frame (false). (pack_thing.c) */
bool unpack_thing(unpacker *u);

/* Opens a frame on the value on top. */
unpack_frame *unpack_open(unpacker *u, int kind);

/* Pushes thing number `n`. */
void unpack_ref(unpacker *u, uint64_t n);

/* Remembers the value on top as thing `number` if `shared`. */
void unpack_keep_shared(unpacker *u, int slot, uint64_t number);

static inline void unpack_keep(unpacker *u, int slot, uint64_t number,
                               bool shared) {
    if (shared)
        unpack_keep_shared(u, slot, number);
}

/* Reads a DESCRIPTOR (after the tag) and pushes its new owner.
   (descriptor.c) */
void unpack_descriptor(unpacker *u);

/* Pushes the new owner, of class `code`, of what is in the parcel; false: the
   class owns no descriptors. */
bool unpack_parcel(unpacker *u, uint8_t code, const pack_handle *parcel,
                   uint32_t bits);

/* Reads a NAME, REGNAME (after the tag) and pushes what it names. */
void unpack_name(unpacker *u, int tag);

#endif
