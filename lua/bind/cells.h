/* What Value and Array share: Lua values as words of cells (data/cell.h)
   and back, the lock around an access, and the methods both have.

   Four classes view two types of object: Value and Array, whose accesses
   take the object's lock, and RawValue and RawArray, which have none or
   (from get_obj) leave it alone. */
#ifndef MP_BIND_CELLS_H
#define MP_BIND_CELLS_H

#include "bind/bind.h"
#include "data/array.h"

extern const bind_class cells_value, cells_raw_value;
extern const bind_class cells_array, cells_raw_array;

/* ---- the object ----------------------------------------------------- */

/* The object at index 1, which is of one of the two classes; else raises
   TypeError, or StateError when it is closed. */
bind_object *cells_refuse(lua_State *L, const bind_class *class);
static inline bind_object *cells_self(lua_State *L, const bind_class *class,
                                      const bind_class *raw) {
    bind_object *o = (bind_object *)lua_touserdata(L, 1);
    /* As bind_is; a light userdata has no length. */
    bool ours = o && lua_rawlen(L, 1) >= sizeof *o &&
                (o->class == class || o->class == raw);
    return ours && o->shm && mp_me ? o
                                   : cells_refuse(L, ours ? o->class : class);
}

/* Does the object's class heed the lock? */
static inline bool cells_locking(const bind_object *o) {
    return o->class == &cells_value || o->class == &cells_array;
}

/* Enters the lock of an object of the four classes, if it heeds it, and
   returns its cells. Between this and mp_array_leave nothing can raise, nor
   run anything of the user's: what does, a finalizer or a hook, may close the
   object, so what was looked up before that is not to be used behind it.
   Raises StateError of one that is closed, and while it waits what Lua's hooks
   raise. cells_try does not: NULL, it is closed or has to wait for long; then
   cells_wait goes on. */
mp_array_shm *cells_wait(lua_State *L, const bind_object *o,
                         mp_array_hold *hold);
static inline mp_array_shm *cells_try(const bind_object *o,
                                      mp_array_hold *hold) {
    mp_array_shm *array = (mp_array_shm *)o->shm;
    hold->lock = NULL;
    if (array && cells_locking(o) && mp_array_enter(array, hold) < 0)
        return NULL;
    return array;
}
static inline mp_array_shm *cells_enter(lua_State *L, const bind_object *o,
                                        mp_array_hold *hold) {
    mp_array_shm *array = cells_try(o, hold);
    return array ? array : cells_wait(L, o, hold);
}

/* ---- words ---------------------------------------------------------- */

/* The value at `idx` as content of a cell. TypeError when it is of the wrong
   type, ValueError when it is out of range. */
uint64_t cells_word(lua_State *L, int idx, int type);

void cells_push(lua_State *L, int type, uint64_t word);

/* Pushes «(-128 to 127)» and returns it: what a type holds. */
const char *cells_range(lua_State *L, int type);

/* Room for `n` cells on the C stack if they are few, else in a userdata
   that is pushed; nil is pushed when it is not needed. OSError when there
   is not that much memory. */
typedef struct cells_room {
    uint64_t few[64];
} cells_room;
void *cells_buffer(lua_State *L, int type, uint64_t n, cells_room *room);

/* Pushes a buffer with the content of the value at `idx`, packed: a list
   (whatever has a length and an index), a shared array, or for 'c' and 'u'
   a string. `what` heads the error when it is none of these: «Array:
   argument 'size_or_list': size, ». */
const void *cells_read(lua_State *L, int idx, int type, const char *what,
                       uint64_t *n);

/* ---- making them ---------------------------------------------------- */

/* The type code at `arg`. */
int cells_type(lua_State *L, int arg, const char *fn);

/* The lock option at `arg`: nil or true, false, a Lock or RLock. */
mp_guard cells_guard(lua_State *L, int arg, const char *fn);

/* Pushes a new object of `class`, zeroed; raises OSError, and StateError when
   the lock of `guard` has been closed. */
mp_array_shm *cells_new(lua_State *L, const bind_class *class, int type,
                        uint64_t length, const mp_guard *guard);

/* Keeps the lock object at `arg` (absolute) for get_lock, if it is one. */
void cells_keep_lock(lua_State *L, int arg);

/* copy(self): a new object of the same class, with a lock of its own, or
   the same lock of somebody else. */
int cells_copy(lua_State *L, const bind_object *o);

/* ---- classes -------------------------------------------------------- */

/* Finishes a class's metatable: __index is `index` with the table of
   `methods`, and for a class that locks those of its lock (get_lock ...), as
   its first upvalue; cells_method looks the key at 2 up there, nil when
   unknown. */
void cells_finish(lua_State *L, lua_CFunction index, const luaL_Reg *methods,
                  bool locking);
int cells_method(lua_State *L);

/* Raises the error for an assignment to the key at 2; `known` is told. */
int cells_no_field(lua_State *L, const bind_object *o, const char *known);

#endif
