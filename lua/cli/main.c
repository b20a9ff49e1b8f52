/* The program `mplua`: what concerns the whole process is settled here,
   the rest is mplua_main. */
#include <malloc.h>

#include "mplua.h"

/* Messages of a MiB and more are common here, and by default malloc maps
   and unmaps each one, page faults included.  Keep them in the heap. This
   is the program's choice: a host process makes its own.  Before 2.35 glibc
   refused a threshold above 32 MiB. */
static void tune_malloc(void) {
#ifdef __GLIBC__
    if (!mallopt(M_MMAP_THRESHOLD, 64 << 20))
        mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 128 << 20);
#endif
}

int main(int argc, char **argv) {
    tune_malloc();
    return mplua_main(argc, argv);
}
