/* A large payload on its way between two processes: a file of memory without
   a name, whose descriptor goes along with the message. The kernel owns it
   while nobody has taken it, so nothing is lost by a death.

   Fresh memory costs more than the copying. So the sender keeps the file, and
   the receiver its mapping, for the next payload: a word at the file's
   beginning says whether the last one was taken. A file that was not, or
   whose receiver died, is simply left, and another one made.

   Safe: one thread per mp_large; processes that have copies of one (by fork)
   do not disturb each other. Blocks: never. */
#ifndef MP_WIRE_LARGE_H
#define MP_WIRE_LARGE_H

#include <stddef.h>
#include <stdint.h>

enum { MP_LARGE_KEPT = 128 << 20 }; /* bytes: larger ones are not kept */

typedef struct mp_large {
    unsigned char *map;    /* NULL: none */
    size_t mapped;
    int fd;                /* the sender's; valid where `map` is */
    uint64_t id[2];        /* the receiver's: which file it is */
} mp_large;

/* ---- sending -------------------------------------------------------- */

/* A payload of several parts. */
typedef struct mp_large_part {
    const void *data;
    size_t size;
} mp_large_part;

/* Copies the payload into a file that nobody reads: `fd` is to be sent.
   -ENOMEM, -EMFILE, -EFBIG, -ENOSYS, ...: there is none to be had. */
int mp_large_post(mp_large *l, const mp_large_part *parts, int n);

/* It was not sent after all. */
void mp_large_recall(mp_large *l);

/* ---- receiving ------------------------------------------------------ */

/* The payload of `size` bytes in the file that came as `fd` (which is closed):
   readable until mp_large_taken. The sender may write to it all the time.
   -EBADMSG it is no such file; -ENOMEM no room to map it. */
int mp_large_open(mp_large *l, int fd, uint64_t size,
                  const unsigned char **data);

/* The payload is not needed any more. */
void mp_large_taken(mp_large *l);

/* ---- both ----------------------------------------------------------- */

/* Gives a large one back after use. */
void mp_large_trim(mp_large *l);

void mp_large_drop(mp_large *l);

#endif
