/* Addresses, and sockets that listen and connect: AF_UNIX (a path, or a name
   of the kernel's own, which begins with a zero byte), AF_INET, AF_INET6.

   Descriptors are closed on exec, and none is a standard one.
   Safe: threads, child after fork. Blocks: never but as said.
   Returns: 0 or -errno. */
#ifndef MP_OS_NET_H
#define MP_OS_NET_H

#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"

enum { MP_ADDRESS_BYTES = 128, MP_HOST_BYTES = 64 };

typedef enum mp_family { MP_UNIX = 1, MP_INET, MP_INET6 } mp_family;

typedef struct mp_address {
    _Alignas(8) unsigned char bytes[MP_ADDRESS_BYTES]; /* a sockaddr */
    uint32_t size;
    mp_family family;
} mp_address;

/* -ENAMETOOLONG, -EINVAL no name. */
int mp_address_unix(mp_address *a, const char *name, size_t size);

/* Asks the system's resolver, which may take its time: Blocks.
   -EADDRNOTAVAIL the host is not known; -EINVAL. */
int mp_address_inet(mp_address *a, mp_family family, const char *host,
                    uint16_t port);

/* The name of an AF_UNIX address: its length; none is 0. */
size_t mp_address_name(const mp_address *a, const char **name);

/* Host and port of the others. */
void mp_address_host(const mp_address *a, char host[MP_HOST_BYTES],
                     uint16_t *port);

/* A socket that listens, and does not block in mp_net_accept; the address
   becomes the one that it got. -EADDRINUSE, -EACCES, -ENOENT, ... */
int mp_net_listen(mp_address *a, int backlog, int *fd);

/* Who has connected: -EAGAIN nobody (any more); -EMFILE, ... */
int mp_net_accept(int fd, int *connected, mp_address *peer);

/* Connects. *fd is -1 at first, and is kept between calls. Blocks; -EINTR,
   -ETIMEDOUT: call again, or close *fd. -ECONNREFUSED, -ENOENT, ...: *fd is
   closed and -1. */
int mp_net_connect(const mp_address *a, int *fd, mp_deadline deadline);

/* Removes the file of a path. */
void mp_net_unlink(const mp_address *a);

/* One descriptor that is readable when one of these is; -errno. */
int mp_net_any(const int *fds, int n);

/* The number of this process. */
int mp_net_process(void);

/* Waits until one of these is readable, as mp_fd_wait. */
int mp_net_wait(const int *fds, int n, mp_deadline deadline);

enum { MP_NET_MOST = 72 }; /* descriptors in mp_net_wait */

#endif
