/* What a fork server and its owner say to each other. Both are of one build:
   the server's boot block says so. */
#ifndef MP_PROC_SERVER_WIRE_H
#define MP_PROC_SERVER_WIRE_H

#include <stdint.h>

/* ref, id, gen  the boot block, and it as an object
   standard      bit n: descriptor n comes along, behind the working
                 directory */
typedef struct mp_server_request {
    uint64_t ref;
    uint32_t id, gen;
    uint32_t standard;
    uint32_t reserved;
} mp_server_request;

/* result  0, and the child's pidfd comes along if there are such; -errno: no
           child came to be */
typedef struct mp_server_reply {
    int32_t result, pid;
    uint32_t tag;
} mp_server_reply;

#endif
