/* The containers of a manager: list, dict, set and Namespace, four classes
   that view one type of object, the table (data/table.h).

   Plain tables are not values of a container: they become containers
   themselves, with all plain tables in them (container_make.c), before
   anything is stored. What has a metatable is a value, and is pickled.

   Nothing of a table is kept between calls. What runs Lua code (the hooks of
   the pickler, finalizers) may close a container: its table is asked for by
   container_table after that, and just before it is used. */
#ifndef MP_BIND_CONTAINER_H
#define MP_BIND_CONTAINER_H

#include "bind/bind.h"
#include "bind/message.h"
#include "data/table.h"

enum { CONTAINER_LIST, CONTAINER_DICT, CONTAINER_SET, CONTAINER_NAMESPACE,
       CONTAINER_KINDS };

/* Their classes, by kind. */
extern const bind_class container_classes[CONTAINER_KINDS];

/* ---- objects (container.c) ------------------------------------------ */

/* The kind of the container at `arg`, open or closed; -1: it is none. */
int container_kind(lua_State *L, int arg);

/* The container of this kind at `arg`; raises TypeError for method `fn`. */
bind_object *container_refuse(lua_State *L, int arg, int kind,
                              const char *fn);
static inline bind_object *container_self(lua_State *L, int kind,
                                          const char *fn) {
    bind_object *o = bind_is(L, 1, &container_classes[kind]);
    return o ? o : container_refuse(L, 1, kind, fn);
}

/* Its table, or raises StateError: it is closed. */
mp_table_shm *container_closed(lua_State *L, const bind_object *o);
static inline mp_table_shm *container_table(lua_State *L,
                                            const bind_object *o) {
    return o->shm && mp_me ? o->shm : container_closed(L, o);
}

/* Pushes a new, empty container. Raises OSError. */
bind_object *container_new(lua_State *L, int kind);

/* Gives the object on the stack's top back, before the collector does. */
void container_drop(lua_State *L, bind_object *o);

/* Raises what a negative result means that no caller expects. */
int container_fail(lua_State *L, int r, const char *fn);

/* ---- values (container_value.c) ------------------------------------- */

/* A value as the table takes it. */
typedef struct container_form {
    mp_table_value value;
    bool packed;           /* the anchor is a pack_out */
    uint32_t handle[4];    /* of a container: code, id, gen, aux */
    mp_table_handle held;
} container_form;

/* The scalar at `idx`, without an anchor; false: it is none. Never raises. */
static inline bool container_scalar(lua_State *L, int idx,
                                    mp_table_value *value) {
    *value = (mp_table_value){0};
    return message_scalar(L, idx, &value->tag, &value->word);
}

/* The value at `idx`, which is no plain table; pushes one anchor. `what`
   names it in a PicklingError. */
void container_encode(lua_State *L, int idx, const char *what,
                      container_form *form);

/* Pops the anchor. */
void container_release(lua_State *L, const container_form *form);

/* The key at `idx`; its bytes are those of the string at `idx`. Raises
   TypeError or ValueError: «fn: ...»; `what` names it if it stands in a
   table, else it is NULL. */
void container_key(lua_State *L, int idx, const char *fn, const char *what,
                   mp_table_value *key);

/* Tells the collector, which sees a small userdata, what is behind views that
   were made. It may run finalizers. */
void container_charge(lua_State *L, uint64_t entries);

/* Pushes the one value. */
void container_push(lua_State *L, const mp_table_value *value);

/* Room for what is read: on the C stack, or in userdata that is pushed. */
typedef struct container_room {
    mp_table_room room;
    struct keeper_box *box;
    _Alignas(8) unsigned char few[512];
} container_room;

void container_room_begin(container_room *r);

/* After -ENOBUFS: makes room; pushes what it needs on the stack. Else
   false. */
bool container_room_grow(lua_State *L, container_room *r, int code);

/* What was read is decoded: lets go of what it named. */
void container_room_end(container_room *r);

/* Pushes what stands under `key`, or for NULL at `position`; `version` may
   be NULL. 0; -ENOENT, -ERANGE: nothing is pushed. */
int container_read(lua_State *L, const bind_object *o,
                   const mp_table_value *key, int64_t position,
                   uint64_t *version);

/* Pushes what was taken out: the key, if `with_key`, and the value. */
void container_push_taken(lua_State *L, mp_table_taken *taken,
                          bool with_key);

/* ---- plain tables (container_make.c) -------------------------------- */

/* Makes the plain table at `idx`, if there stands one, a container, and puts
   that in its place. Raises what container_encode and container_key raise. */
void container_convert(lua_State *L, int idx, const char *fn);

/* Adds the value at `idx`, behind the last one, resp. under the key. They may
   be plain tables. */
void container_add_item(lua_State *L, const bind_object *o, int idx,
                        const char *fn);
void container_add_entry(lua_State *L, const bind_object *o, int key,
                         int idx, const char *fn);

/* ---- the classes (container_list.c, container_dict.c) --------------- */

extern const luaL_Reg container_list_methods[], container_dict_methods[],
    container_set_methods[];

/* The metamethods __index, which has the methods' table as upvalue 1, and
   __newindex, likewise. */
int container_list_index(lua_State *L);
int container_list_newindex(lua_State *L);
int container_dict_index(lua_State *L);
int container_dict_newindex(lua_State *L);
int container_set_index(lua_State *L);
int container_set_newindex(lua_State *L);
int container_namespace_index(lua_State *L);
int container_namespace_newindex(lua_State *L);

/* clear() of all kinds. */
int container_clear(lua_State *L, int kind);

/* Adds the functions for mp's own modules to the table on top
   (container_many.c). */
void container_many_open(lua_State *L);

#endif
