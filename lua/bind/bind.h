/* What every file of this floor shares: classes, error objects, argument
   checks.  lua/bind is thin: check the arguments, call one mp_ function,
   push the result.

   Invariant: every userdata of ours begins with a `bind_object`, whose
   first word is the address of its static class; that address is the
   type check (cheaper than a metatable lookup, and nobody else's
   userdata can hold it).

   Nothing that can longjmp runs while an internal lock is held or a raw
   resource is unanchored: first the userdata, then the resource in it. */
#ifndef MP_BIND_BIND_H
#define MP_BIND_BIND_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"

/* One per Lua type of ours; static const, its address is its identity. */
typedef struct bind_class {
    const char *name;         /* "Lock": __name, and in messages */
    uint8_t code;             /* identity inside pickles, stable, 1..255 */
    uint8_t type;             /* MP_TYPE_*: the object type it views */
    const luaL_Reg *methods;  /* fields of __index */
    const luaL_Reg *meta;     /* metamethods besides __gc, __close, __name */
    void (*finish)(lua_State *L); /* gets the new metatable on top; or NULL */
} bind_class;

/* A view of a shared object (or of a part of one, at `aux` bytes). */
typedef struct bind_object {
    const bind_class *class;
    void *shm;       /* address in this process; NULL once closed */
    uint32_t id;     /* entry of the object table */
    uint32_t gen;
    uint32_t aux;    /* offset of `shm` in the object's block */
    uint32_t extra;  /* for the class's own use, process-local */
} bind_object;

/* ---- errors (error.c) ----------------------------------------------- */

/* Raises an error object {kind, message, where}.  `fmt` as for
   lua_pushfstring. Level 1 (the function that called us) is `where`. */
int bind_error(lua_State *L, const char *kind, const char *fmt, ...);

/* The same of a plain text; `where` is looked for from this level on (0: a
   hook's caller is what it stopped). */
int bind_error_from(lua_State *L, int level, const char *kind,
                    const char *message);

/* Pushes an error object without raising; the message is `fmt`. */
void bind_pusherror(lua_State *L, const char *kind, const char *fmt, ...);

/* Raises OSError {errno, code} for a negative errno: «what: strerror».
   -EINTR never gets here. */
int bind_oserror(lua_State *L, int code, const char *what);

/* TypeError «acquire: argument #2 (timeout): number expected, got table».
   `fn` is the method's name as its users write it. Of 'self', it says how. */
int bind_argerror(lua_State *L, const char *fn, int arg, const char *name,
                  const char *expected);

/* Is the value at `idx` (absolute or from the top) an error object? */
bool bind_is_error(lua_State *L, int idx);

/* Is this the source of one of mp's own Lua modules? */
bool bind_is_ours(lua_State *L, const char *source);

/* Raises the value on the top, which another process has sent: an error
   object without a place gets the line that called into mp. */
int bind_raise_arrived(lua_State *L);

/* ---- classes and objects (object.c) --------------------------------- */

/* Enters the class's code in the table of the unpickler. Its metatable is made
   with its first object: a new thread's state has no use for most. */
void bind_class_open(const bind_class *class);

/* Pushes the class's metatable. */
void bind_class_push(lua_State *L, const bind_class *class);

/* Adds `methods` to the table on top: class name -> methods. */
void bind_methods_open(lua_State *L);

/* Pushes a new, still closed userdata of `size` bytes (at least a
   bind_object) with the class's metatable. */
bind_object *bind_new(lua_State *L, const bind_class *class, size_t size);

/* The object at `arg`, or TypeError; StateError when it is closed. */
bind_object *bind_check(lua_State *L, int arg, const bind_class *class);

/* The object at `arg` if it is one of ours of any class, else NULL. */
bind_object *bind_test(lua_State *L, int arg);

/* Is the value at `arg` a live object of this class? */
static inline bind_object *bind_is(lua_State *L, int arg,
                                   const bind_class *class) {
    bind_object *o = (bind_object *)lua_touserdata(L, arg);
    /* A light userdata has length 0. */
    return o && lua_rawlen(L, arg) >= sizeof *o && o->class == class ? o
                                                                    : NULL;
}

/* Attaches object {id, gen} and pushes a userdata of the class with code
   `code` that views it at `aux`: the unpickler's door. Raises StateError
   when the object no longer exists, PicklingError on a code that is not
   ours or does not fit the object's type. */
void bind_push_handle(lua_State *L, uint8_t code, uint32_t id, uint32_t gen,
                      uint32_t aux);

/* ---- arguments and waiting (check.c) -------------------------------- */

/* Seconds at `arg`: nil/none -> for ever, <= 0 -> at once; NaN or not a
   number -> error that names `fn`. */
mp_deadline bind_deadline(lua_State *L, int arg, const char *fn);

/* Integer in [min, max] (floats with an integral value count). */
lua_Integer bind_integer(lua_State *L, int arg, const char *fn,
                         const char *name, lua_Integer min, lua_Integer max);

/* Number of items in the list at `idx`: a table's own field n, else its
   length. Raises ValueError or TypeError of an n that is no such number, and
   TypeError of a table that is no list. */
lua_Integer bind_list_length(lua_State *L, int idx, const char *fn);

/* After an -EINTR: lets Lua's hooks run (Ctrl-C raises here); raises
   Interrupted in a thread that was asked to end. */
void bind_interrupted(lua_State *L);

/* The chunk of the empty function that it calls, where hooks see themselves:
   no place in the user's code. */
#define BIND_WAITS "=(mp waits)"

/* Makes sure this thread is a participant (opens the arena at first use),
   or raises OSError; StateError in a child forked outside mp. */
void bind_open_runtime(lua_State *L);

/* ---- mp's own Lua modules (check.c) --------------------------------- */

/* Pushes field `name` of the module, which is loaded if it was not: only then
   is there a need of `require`. Raises as that. */
void bind_push_member(lua_State *L, const char *module, const char *name);

#endif
