/* What the files of the queue's door share: queue.c one value at a time,
   queue_many.c lists of them. */
#ifndef MP_BIND_QUEUE_H
#define MP_BIND_QUEUE_H

#include <lua.h>

#include "bind/bind.h"
#include "bind/message.h"
#include "data/queue.h"

/* The open queue that is argument 1 of method `fn`; raises TypeError or
   StateError. */
bind_object *queue_self(lua_State *L, const char *fn);

/* Raises StateError if somebody has closed it meanwhile: after whatever may
   run Lua. Returns o. */
bind_object *queue_check_open(lua_State *L, bind_object *o);

/* Raises what a negative result, not -ETIMEDOUT or -EINTR, means. */
int queue_fail(lua_State *L, int r, const char *fn);

/* Raises Empty. */
int queue_raise_empty(lua_State *L, const char *fn);

/* The encoded value as an item. */
mp_queue_item queue_item_of(const message_form *form);

/* Takes 1 to n items (see mp_queue_get); 0 when there is none. */
size_t queue_take(lua_State *L, bind_object *o, mp_queue_item *items,
                  size_t n, void *buffer, size_t size, mp_deadline deadline,
                  const char *fn);

/* Pushes the value that an item holds, and frees its block. */
void queue_push_item(lua_State *L, const mp_queue_item *item);

/* The methods in queue_many.c. */
int queue_put_many(lua_State *L);
int queue_get_many(lua_State *L);

#endif
