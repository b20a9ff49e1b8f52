/* Functions across processes: bytecode and upvalues of Lua functions,
   names of C functions and of the members of mp's own modules.  A part of
   the pickler (pack_impl.h).

   Two functions of one message that share an upvalue share it after: the
   first one met carries its value, the others point to that function's
   upvalue.  The globals table is the receiver's, wherever it is met, and
   so is what an _ENV of one's own inherits from it.  Bytecode is not
   stripped: errors in workers keep their lines. */
#ifndef MP_BIND_CODE_H
#define MP_BIND_CODE_H

#include "bind/pack_impl.h"

/* Writes the function on top, or opens a frame for its upvalues. */
pack_step code_write(lua_State *L, packer *k);
pack_step code_write_step(lua_State *L, packer *k, pack_frame *f);

/* Appends the bytecode of the Lua function on top; false: no memory. */
bool code_dump(lua_State *L, pack_out *out);

/* Reads a FUNC (after its tag), opens a frame for its upvalues. */
void code_read(unpacker *u, bool shared);

/* Joins the next upvalue of the function at `slot` if a CELL follows. */
bool code_read_cell(unpacker *u, int slot, int upvalue);

/* Pushes «function 'name' (script.lua:12)» or «function at script.lua:12»
   (or «C function 'name'») for the function at `idx`. */
void code_describe(lua_State *L, int idx);

#endif
