/* For specs that end, or go on, with an arena in which every invariant
   holds. */
#ifndef MP_SPEC_FSCK_TOOLS_H
#define MP_SPEC_FSCK_TOOLS_H

#include "harness.h"
#include "mem/fsck.h"

/* Nobody else runs, and nothing is wrong; else the spec fails with the first
   finding. */
#define CHECK_CLEAN() fsck_check_clean(__FILE__, __LINE__, MP_FSCK_QUIET)

/* The same while others run. */
#define CHECK_CLEAN_LIVE() fsck_check_clean(__FILE__, __LINE__, MP_FSCK_LIVE)

typedef struct fsck_place {
    const char *file;
    int line;
} fsck_place;

static inline void fsck_fail(void *ctx, const char *finding) {
    const fsck_place *at = ctx;
    spec_fail(at->file, at->line, "mp_fsck: %s", finding);
}

static inline void fsck_check_clean(const char *file, int line,
                                    int strength) {
    fsck_place at = {file, line};
    int n = mp_fsck(strength, fsck_fail, &at);
    if (n != 0) spec_fail(file, line, "mp_fsck failed: %d", n);
}

#endif
