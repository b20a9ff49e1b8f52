/* What the files of globals.h share: names in bytecode (globals_code.c), what
   a receiver has (globals_have.c), the bundle (globals.c) and its other end
   (globals_apply.c). */
#ifndef MP_BIND_GLOBALS_IMPL_H
#define MP_BIND_GLOBALS_IMPL_H

#include "bind/globals.h"
#include "bind/pack_impl.h"

/* ---- globals_code.c ------------------------------------------------- */

/* Pushes the names that a function reads through its upvalues: a list of
   number of the upvalue, name, number, name ...; false when there is none or
   the code is not understood. Kept: not to be changed. By its bytecode, whose
   hash is `hash`: */
void globals_of_code(lua_State *L, const void *code, size_t length,
                     uint64_t hash);
/* The same for the Lua function at `function`, kept while that lives. */
void globals_of_function(lua_State *L, int function);

/* Adds the function at `function` and its names, a table on top (popped), to
   the list in the slot `list`, which is made if that is nil. */
void globals_add_function(lua_State *L, int function, int list);

/* Pushes the registry's table under `key`, made if there is none; its weak
   mode is `mode`. */
void globals_weak(lua_State *L, const void *key, const char *mode);

/* ---- globals_have.c ------------------------------------------------- */

/* Does the receiver have what the global with the name at `name` is now, at
   `value`? If so, the Lua functions that this reaches are added, each
   followed by its names, to the list at `functions`. */
bool globals_had(lua_State *L, int snapshot, int name, int value,
                 int functions);

/* Is that just the value that the receiver has, whatever is inside? */
bool globals_same(lua_State *L, int snapshot, int name, int value);

/* The same as globals_had for the registered class with the name at `name`;
   `entry` is what pack_class_push gives. */
bool globals_class_had(lua_State *L, int snapshot, int name, int entry,
                       int functions);

/* Adds the Lua functions that the value at `value` reaches, each followed by
   its names, to the list at `functions`, should it reach no more than
   GLOBALS_SMALL values: else those among the first of them. */
void globals_reached(lua_State *L, int value, int functions);

/* Has the value an inside, which may change while it stays the same? */
static inline bool globals_inside(lua_State *L, int value) {
    return lua_istable(L, value) ||
           (lua_isfunction(L, value) && !lua_iscfunction(L, value));
}

/* Pushes the table of registered classes: name -> entry. */
void globals_push_classes(lua_State *L);

/* A name on the wire, a part of it: not ended by a zero. */
typedef struct globals_name {
    const char *text;
    size_t length;
} globals_name;

/* Is the path that begins at `wire` (a NAME, of at most `length` bytes) one
   through a global? Then that is `*name`. */
bool globals_wire(const unsigned char *wire, size_t length,
                  globals_name *name);

/* Is it the name of a function that each Lua state has among its globals? */
bool globals_of_lua(const char *text, size_t length);

/* ---- what is looked for, and found ---------------------------------- */

/* The parts of a bundle, in the order in which they take effect. */
enum { PART_DECLARED = 1, PART_FUNCTIONS, PART_FILLED, PART_REST, PARTS };

typedef struct bundle {
    lua_State *L;
    int snapshot; /* stack index, or 0 */
    /* Slots of the stack, each nil until it is needed. */
    int functions; /* list: function, its names, function, ... */
    int mentions;  /* list: name, is it that of a registered class, ... */
    int seen;      /* names of globals, entries of classes -> true */
    int queue;     /* list: name, class or not, function that reads it, ... */
    int parts;     /* list of lists: PART_* */
    int makes;     /* list of DEFINE_BY, to be brought in order */
    int sizes;     /* name of a global -> bytes */
    lua_Integer looked, queued, done; /* in functions; in queue */
    size_t size;   /* of the last trial */
} bundle;

/* A global, or a registered class, that is missing: slots of the stack.
   `reader`: the function that reads it, or false. */
typedef struct wanted {
    int name, reader, value;
    bool class;
} wanted;

/* ---- globals_need.c ------------------------------------------------- */

/* Makes the table of a slot if there is none. */
void globals_need_table(lua_State *L, int slot);

/* Adds the value on top (popped) to the list at `list`. */
void globals_append(lua_State *L, int list);

/* Adds what the names in a message lead to, to the list at `mentions`. */
void globals_note(lua_State *L, const pack_out *out, int mentions);

/* What is mentioned since the last time is needed; so is what the functions
   read that were found since then, which may find more functions; so are
   the classes that the objects among a job's items may have: all that are
   registered, and those among the globals. */
void globals_need_mentioned(bundle *b);
void globals_need_read(bundle *b);
void globals_need_classes(bundle *b);

/* Tries to encode the n values on top (popped), called `what`. True: what
   they mention is needed; pushes the global's name that the first goes by,
   or nil. False: pushes the error. */
bool globals_try(bundle *b, const char *what, int n);

/* ---- globals_item.c ------------------------------------------------- */

/* Replaces the n values on top by an item of the kind (DEFINE_*) with them. */
void globals_make_item(lua_State *L, int kind, int n);

/* Adds the item on top (popped) to a part of the bundle; makes the parts. */
void globals_add_item(bundle *b, int part);
void globals_need_parts(bundle *b);

/* Adds what makes the global, or the registered class, there. */
void globals_add_global(bundle *b, const wanted *g);
void globals_add_class(bundle *b, const wanted *g);

/* ---- globals_size.c ------------------------------------------------- */

/* A job of more than that is worth a warning. */
#define GLOBALS_LARGE ((size_t)1 << 20)

/* Warns of a job that carries `total` bytes of upvalues and globals, once in
   a process: the n values from `first`. */
void globals_warn(bundle *b, size_t total, int first, int n);

/* ---- globals_apply.c ------------------------------------------------ */

/* What core.define(kind, ...) does. */
enum {
    DEFINE_VALUE,    /* name, value: the global is that */
    DEFINE_CLASS,    /* name: the global is an empty table, to be filled */
    DEFINE_BY,       /* name, f, ...: the global is what f(...) returns */
    DEFINE_FILL,     /* name, fields, metatable: the global gets these */
    DEFINE_STATE,    /* name, state: the global gets that */
    DEFINE_NAMED,    /* name: that is a registered class, to be filled */
    DEFINE_FILL_NAMED, /* name, fields, metatable, reduce, rebuild */
    DEFINE_MISSING,  /* text, is function [, name, key] -> what raises it when
                        used; the receiver's own global's field if it has
                        that */
    DEFINE_ALL       /* ...: the bundle itself */
};

#endif
