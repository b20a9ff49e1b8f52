/* A table: the shared container below a manager's dict, list, set and
   namespace. Its entries stand in an order: a *list's* by position, an
   *indexed* table's as their keys came first (that of a Python dict); there
   each key is once, and found by its hash.

   Invariant: each operation happens as a whole or not at all, for everybody
   and whoever dies: it is made under the table's lock, and is either one
   record, or (mp_table_move into an indexed table) is begun by one and
   finished by whoever has the lock next. On an error nothing has changed.

   Keys and values are the caller's bytes with the caller's tag: a word, or
   any number of bytes, which may name shared objects. These the table holds
   as long as the entry is there, each counted. Two keys are the same if tag
   and bytes are: the caller says how 1 and 1.0 are written.
   Objects that hold each other in a circle are never collected.

   Each entry has a `version`: which change of the table made it as it is. It
   is never 0, and comes never again. So a change that was computed from what
   was read is made only if the entry is what it was (`expect`), and else
   computed anew; that of a whole table goes by its generation.

   A call wants some hands of mp_me (mem/slot.h): -EMFILE when too few are
   free. It frees what it takes out when the lock is gone.
   Safe: threads, processes; child after mp_proc_fork.
   Blocks: while a live holder has the lock: some hundred instructions, or as
   long as copying takes, or moving entries in a long list.
   Source: index and entries apart as in Python's dict; a gap as editors have
   in their texts. SipHash: Aumasson, Bernstein 2012. */
#ifndef MP_DATA_TABLE_H
#define MP_DATA_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/arena.h"

/* An MP_TYPE_TABLE. All under `lock`, by records, unless said otherwise; so
   a dead holder needs no repair but its record's.
   kind     the caller's, fixed
   indexed  has keys, fixed
   store    the block of the entries (data/table_shm.h); 0 = room for none
   shape    room in it: entries, and the number of index cells as a power of 2
   place    first slot in use | list: entries before the gap;
            indexed: the slot after the last << 32
   size     entries | list: slots of the gap; indexed: cells in use << 32
   changes  the generation: grows with each change
   pending  a table that is to be moved into this one, held; 0 = none
   cursor   the slot of `pending` that comes next; MP_TABLE_DONE behind the
            last. Single stores, or with the entry's record */
typedef struct mp_table_shm {
    mp_mutex_shm lock;
    uint16_t kind, indexed;
    _Atomic uint64_t store, shape, place, size, changes;
    _Atomic uint32_t pending, cursor;
    uint64_t padding;
} mp_table_shm;
#define MP_TABLE_DONE UINT32_MAX

/* A shared object that bytes name: how the caller's pickle knows it. */
typedef struct mp_table_handle {
    uint32_t id, gen;
} mp_table_handle;

/* A key or a value, on its way in or out.
   tag      the caller's
   data     NULL: `word` is all there is; else `length` bytes
   handles  in: the objects named in the bytes, n_handles of them, each of
            which exists until the call is over; out: not used. With a word:
            none */
typedef struct mp_table_value {
    uint8_t tag;
    const void *data;
    size_t length;
    uint64_t word;
    const mp_table_handle *handles;
    size_t n_handles;
} mp_table_value;

/* `expect`: what the entry that a call changes has to be. */
#define MP_TABLE_ANY UINT64_MAX /* whatever it is */
#define MP_TABLE_ABSENT 0       /* not there; else its version */

/* Positions count from 0; -1 is the last one, -2 the one before it. */

/* ---- life ------------------------------------------------------------ */

/* Declares the type; any number of times. */
void mp_table_declare(void);

/* A new table, held by the caller. 0; -ENOMEM; -EMFILE. */
int mp_table_create(unsigned kind, bool indexed, uint32_t *id,
                    uint32_t *gen);

/* ---- to look --------------------------------------------------------- */

/* Where what is read is copied to, since the table may change at once.
   at, size     a buffer, at a multiple of 8
   keeper       holds the objects that the copied bytes name, so that they
                can be decoded: mp_table_keeper; 0: none is there yet
   need         out, with -ENOBUFS: a size that is enough at present
   need_keeper  out, with -ENOBUFS: handles the keeper must have room for, 0:
                it has enough. Make larger what is too small, drop what the
                keeper has got in vain, and call again. If only the keeper is
                too small, get and get_at have copied the bytes: who holds
                by himself what they name need not call again */
typedef struct mp_table_room {
    void *at;
    size_t size;
    mp_ref keeper;
    size_t need, need_keeper;
} mp_table_room;

/* A block, OWNED by the caller, that can keep `handles` objects alive, more
   and more with each call that it is given to. Dropped, with what it keeps,
   by mp_free; emptied by mp_message_drop (mem/object.h). 0: no memory. */
mp_ref mp_table_keeper(size_t handles);

/* What stands under `key`, resp. at `position` of a list. `version` may be
   NULL. `room` NULL: no bytes are copied, only tag and word or length come.
   0; -ENOENT no such key; -ERANGE no such position; -ENOBUFS see above. */
int mp_table_get(mp_table_shm *t, const mp_table_value *key,
                 mp_table_room *room, mp_table_value *value,
                 uint64_t *version);
int mp_table_get_at(mp_table_shm *t, int64_t position, mp_table_room *room,
                    mp_table_value *value, uint64_t *version);

uint64_t mp_table_length(mp_table_shm *t);

/* The first entry of a list, from position `from` to before `to`, whose value
   is one of the n `values` (in their bytes): 0; -ENOENT. `from` and `to` as
   Python's index has them (below 0: from the end; beyond: cut off; `to`
   INT64_MAX: to the end). mp_table_count: how many there are. */
int mp_table_find(mp_table_shm *t, const mp_table_value *values, size_t n,
                  int64_t from, int64_t to, uint64_t *position,
                  uint64_t *version);
uint64_t mp_table_count(mp_table_shm *t, const mp_table_value *values,
                        size_t n);

/* ---- to look at all of it -------------------------------------------- */

/* A snapshot: all entries, as they were at one moment. It lies in the
   caller's buffer, and is read by mp_table_next.
   entries     how many
   generation  of the table at that moment */
typedef struct mp_table_copy {
    const unsigned char *at;
    size_t used;
    uint64_t entries, generation;
} mp_table_copy;

/* Copies all entries. Others wait while it copies, but not long: it stops
   from time to time and begins anew if the table changed; only when that
   happens again it holds on to the end.
   0; -ENOBUFS (`need` is larger than `size` then). */
int mp_table_copy_all(mp_table_shm *t, mp_table_room *room,
                      mp_table_copy *copy);

/* The next entry of a snapshot; *offset is 0 at first. False: no more. `key`
   (of a list: nothing is stored) and `version` may be NULL. */
bool mp_table_next(const mp_table_copy *copy, size_t *offset,
                   mp_table_value *key, mp_table_value *value,
                   uint64_t *version);

/* ---- to change one entry --------------------------------------------- */

/* All of these: -ENOMEM; -EMFILE; -ESTALE an object that the bytes name is no
   more; -EAGAIN the entry is not what `expect` says. */

/* Indexed: the value under `key`, in its old place or behind the last. */
int mp_table_set(mp_table_shm *t, const mp_table_value *key,
                 const mp_table_value *value, uint64_t expect);

/* List: the value at `position`. -ERANGE. */
int mp_table_set_at(mp_table_shm *t, int64_t position,
                    const mp_table_value *value, uint64_t expect);

/* List: a new entry before that at `position` (as Python's insert: what is
   out of range means the nearer end). INT64_MAX: append. */
int mp_table_insert(mp_table_shm *t, int64_t position,
                    const mp_table_value *value);

/* An entry that was taken out. Its bytes may be looked at where they are,
   until mp_table_release, which frees them and gives the hands back (and must
   come before long). */
typedef struct mp_table_taken {
    mp_table_value key, value;
    int hand[2];
} mp_table_taken;

void mp_table_release(mp_table_taken *taken);

/* Takes out what stands under `key`, resp. at `position` (also of an indexed
   table: -1 is its last, 0 its first; no other). `taken` NULL: only away with
   it. 0; -ENOENT no such key; -ERANGE no such position; -EAGAIN; -EMFILE.
   Never -ENOMEM. */
int mp_table_delete(mp_table_shm *t, const mp_table_value *key,
                    uint64_t expect, mp_table_taken *taken);
int mp_table_delete_at(mp_table_shm *t, int64_t position, uint64_t expect,
                       mp_table_taken *taken);

/* ---- to change many at once ------------------------------------------ */

/* Here `from` and `with` are tables of the same sort (indexed or not) which
   the caller has made and filled, and of which nobody else knows: the change
   is prepared in them. They are the caller's still, to use again or to
   detach. */

/* All entries of `from` move into the table: behind the last one of a list;
   into an indexed table as if each was set in turn. `from` is empty then.
   0; -ENOMEM; -EMFILE; -EINVAL not the same sort, or the table itself. */
int mp_table_move(mp_table_shm *t, uint32_t from);

/* The contents of the two change places, if the table's generation is
   still `generation`, or that is MP_TABLE_ANY: `with` has then what was in
   the table. 0; -EAGAIN; -EINVAL as above. */
int mp_table_swap(mp_table_shm *t, uint64_t generation, uint32_t with);

/* Empties it. 0; -ENOMEM; -EMFILE. */
int mp_table_clear(mp_table_shm *t);

/* List: entry order[i] comes to position i, if the generation is still
   `generation`, or that is MP_TABLE_ANY. `order` names each of the n entries
   once. NULL: it is turned round, whatever n. 0; -EAGAIN; -ENOMEM; -EMFILE;
   -EINVAL `order` is not one. */
int mp_table_permute(mp_table_shm *t, uint64_t generation,
                     const uint64_t *order, uint64_t n);

/* Room for `n` entries in all. 0; -ENOMEM; -EMFILE. */
int mp_table_reserve(mp_table_shm *t, uint64_t n);

#endif
