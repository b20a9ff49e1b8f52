/* Ctrl-C as an error in Lua code: one error object of kind Interrupted, in
   whatever the state computes or waits for.

   For a program that takes SIGINT itself (lua/cli/interrupt.c) and says which
   state runs; nothing here installs a handler. In a host that does not say so
   nothing here has an effect: its own handler interrupts as it likes, by a
   hook, since every wait calls bind_interrupted (bind/bind.h).

   Invariant: one is on its way from bind_interrupt_on_signal until it is
   raised; what comes meanwhile is not counted.
   Safe: the main thread; a child after fork goes on with what its parent
   had. Other threads are never interrupted. Blocks: never. */
#ifndef MP_BIND_INTERRUPT_H
#define MP_BIND_INTERRUPT_H

#include <lua.h>
#include <stdbool.h>

/* Is raised in L from now on (it may be any coroutine of its state); NULL: in
   nobody. What was on its way is forgotten. */
void bind_interrupt_of(lua_State *L);

/* In a forked child: L is what runs there, if anything can be interrupted.
   One on its way is the child's, too. */
void bind_interrupt_in_child(lua_State *L);

/* Whoever ignores SIGINT: the one on its way was not for it. */
void bind_interrupt_forget(void);

/* In the handler: one sets out. False: one is on its way already, or nobody
   runs. */
bool bind_interrupt_on_signal(void);

/* While it is held in L's state, what is on its way stays there: where no
   pcall stands around a call of Lua, or nobody could say whose it is. */
void bind_interrupt_hold(lua_State *L, bool hold);

/* Raises in L what is on its way to its state, if anything. */
void bind_interrupt_raise(lua_State *L);

/* Is the value at `idx` an error object of this kind? */
bool bind_is_interrupted(lua_State *L, int idx);

#endif
