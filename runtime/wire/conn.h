/* A connection: messages over a descriptor, one end of it.

   Three kinds of descriptors carry messages:
     packets   a pair made by mp_conn_pair (AF_UNIX, SOCK_SEQPACKET): the
               kernel keeps messages apart, so a sender is never left with
               half a message, several may send at a time, and a message
               costs one system call on each side. Payloads beyond
               MP_CONN_INLINE lie in a memfd that goes along.
     stream    any other connected socket: the bytes are those of Python's
               multiprocessing.connection, so the peer may be Python.
     file      a pipe, a FIFO and the like: the same bytes, no descriptors.

   On the wire a message is a length and the payload. The length is 4 bytes,
   signed, high byte first; -1: an unsigned length of 8 bytes follows (Python
   does that from 2^31 on); -2, in packets only: 8 bytes of length, and the
   payload lies at the beginning of the first descriptor that comes along.
   Descriptors ride on a message's first byte. A payload that does not fit in
   a packet and has no memfd (none to be had) goes on in further packets.

   Nothing that arrives is believed: a length is given memory as its bytes
   arrive, a memfd must be sealed against shrinking and as long as it says,
   descriptors that nobody takes are closed.

   Safe: one thread per mp_conn and direction; processes may share the
   descriptor. Not in a signal handler. SIGPIPE is never raised.
   Returns: 0 or -errno. Every function that blocks returns -EINTR after a
   signal and after each slice of 100 ms: "call again with the same
   arguments"; what it had done so far is kept in the mp_conn. */
#ifndef MP_WIRE_CONN_H
#define MP_WIRE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "wire/large.h"

enum {
    MP_CONN_MOST_FDS = 64,      /* of its users, beside one message */
    MP_CONN_ROOM_FDS = MP_CONN_MOST_FDS + 2, /* ... one that the binding
                                   adds, and a large payload's */
    MP_CONN_INLINE = 64 << 10   /* bytes of a packet, its head included */
};

enum { MP_CONN_PACKETS = 1, MP_CONN_STREAM, MP_CONN_FILE };

/* What was received of a message so far. */
typedef struct mp_conn_in {
    unsigned char *data;   /* malloc'ed, grows as bytes arrive */
    size_t cap, got;
    uint64_t size;         /* of the payload, once the head is there */
    unsigned char head[12];
    uint8_t head_got;
    uint8_t n_fds;
    bool begun;            /* the head is there, bytes are missing */
    bool lost_fds;         /* this process had no room for all of them */
    bool large;            /* the message given out lies in `file` */
    bool broken;           /* nothing more can be read: out of step */
    int fds[MP_CONN_ROOM_FDS];
    mp_large file;         /* the last large payload's */
} mp_conn_in;

/* What is still to be sent of a message. */
typedef struct mp_conn_out {
    uint64_t sent;         /* of the message that is being sent, head too */
    unsigned char *rest;   /* what is left of one given up; malloc'ed */
    size_t rest_size, rest_at;
    bool posted;           /* the payload lies in `file`, not yet sent */
    bool whole;            /* it goes on in packets: no file was to be had */
    bool broken;           /* half a message, and no memory for its rest */
    mp_large file;         /* for large payloads, kept for the next */
} mp_conn_out;

typedef struct mp_conn {
    int fd;                /* -1: closed */
    uint8_t kind;          /* MP_CONN_PACKETS, ... */
    bool local;            /* an AF_UNIX socket: descriptors can go along */
    bool timed;            /* its receives end by themselves after a slice */
    bool readable, writable;
    bool trusted;          /* the peer has proved that it knows our key, so
                              code is taken from it; set by who checked */
    mp_conn_in in;
    mp_conn_out out;
} mp_conn;

/* Two ends of a new connection, closed on exec, none a standard descriptor;
   unless `duplex` ends[0] only reads and ends[1] only writes. -EMFILE, ... */
int mp_conn_pair(mp_conn ends[2], bool duplex);

/* Makes a connection of a descriptor, which it then OWNS (also when it
   fails: it is not closed then, but the caller's as before).
   -EBADF not open; -ENOTSUP neither socket nor pipe, nor another file of
   bytes, -ENOTCONN a socket that is not connected, or listens. */
int mp_conn_open(mp_conn *c, int fd, bool readable, bool writable);

/* Closes it and frees what it keeps. May be called again. */
void mp_conn_close(mp_conn *c);

/* Takes the descriptor out: the connection is closed, the descriptor not. */
int mp_conn_detach(mp_conn *c);

/* ---- sending -------------------------------------------------------- */

/* A message: the payload is `head` (at most 64 bytes) and then `body`. The
   descriptors are copied (dup) by the kernel, the caller's remain its. */
typedef struct mp_conn_message {
    const void *head;
    size_t head_size;
    const void *body;
    size_t size;           /* of body */
    const int *fds;
    int n_fds;             /* at most MP_CONN_MOST_FDS + 1 */
} mp_conn_message;

/* Sends a message. Blocks while the peer does not read.
   -EPIPE the peer is gone; -ETIMEDOUT; -EINTR; -ENOTSUP descriptors cannot
   go this way; -ETOOMANYREFS, -ENOBUFS, -ENOMEM, ...: nothing was sent.
   -EBADMSG half a message was sent before, and its rest is lost.
   After -EINTR and -ETIMEDOUT: either call again with the same message, or
   mp_conn_give_up. */
int mp_conn_send(mp_conn *c, const mp_conn_message *m, mp_deadline deadline);

/* The message will not be sent further now. If its beginning was, the rest
   is kept (a copy), and goes ahead of the next message, so that the peer
   gets both whole. Never fails; without memory for the rest, later calls of
   mp_conn_send return -EBADMSG. */
void mp_conn_give_up(mp_conn *c, const mp_conn_message *m);

/* ---- receiving ------------------------------------------------------ */

/* A message that has arrived. `data` is valid until the next call of
   mp_conn_receive, mp_conn_release or mp_conn_close. */
typedef struct mp_conn_received {
    const unsigned char *data;
    size_t size;
    bool shared;           /* the sender can still write to `data`: what is
                              looked at twice must be copied first */
    int *fds;              /* closed by release; who takes one over puts -1
                              in its place */
    int n_fds;
    bool lost_fds;         /* some did not get in: no descriptor was free */
} mp_conn_received;

/* Receives a message of at most `most` bytes.
   -EPIPE the peer is gone, and nothing is left; -ENODATA it went in the
   middle of a message; -EMSGSIZE a longer message came: on a stream nothing
   more can be read, in packets the message is lost, and the next can;
   -EBADMSG what came is no message (a stream, again, is lost then);
   -EMFILE the memory of a large message got lost for want of a descriptor;
   -ENOMEM; -ETIMEDOUT, -EINTR. */
int mp_conn_receive(mp_conn *c, size_t most, mp_conn_received *m,
                    mp_deadline deadline);

/* Done with the last message: closes what descriptors are left of it. */
void mp_conn_release(mp_conn *c);

/* A message out of its connection, which can receive the next. */
typedef struct mp_conn_taken {
    mp_conn_received message;
    unsigned char *block;  /* malloc'ed: where its bytes lie */
    size_t cap;
    int fds[MP_CONN_ROOM_FDS];
} mp_conn_taken;

/* Takes the last message out, to where nobody else writes. -ENOMEM: it is
   lost. */
int mp_conn_take(mp_conn *c, const mp_conn_received *m, mp_conn_taken *t);

/* Done with it: closes what descriptors are left, and frees the memory or
   gives it back to the connection. */
void mp_conn_put_back(mp_conn *c, mp_conn_taken *t);

/* Waits until there is something to receive, be it the end: 1 there is,
   0 not before the deadline; -EINTR; -errno. */
int mp_conn_poll(mp_conn *c, mp_deadline deadline);

/* Poll's events for reading it, for who polls many by `fd`. */
enum { MP_CONN_EVENTS = 1 /* POLLIN */ };

#endif
