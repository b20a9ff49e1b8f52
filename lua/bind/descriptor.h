/* Descriptors of other things than connections, as values that travel. */
#ifndef MP_BIND_DESCRIPTOR_H
#define MP_BIND_DESCRIPTOR_H

#include <lua.h>

/* Code of a DupFd inside pickles. */
enum { DESCRIPTOR_CODE = 21 };

/* The descriptor of the DupFd at `idx`; -1: it is closed, -2: it is none. */
int descriptor_at(lua_State *L, int idx);

#endif
