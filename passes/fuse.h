/* fuse.h: groups of instructions of one block that become one loop nest; shared by fuse.c and fuse_rules.c. */
#ifndef MOECC_FUSE_H
#define MOECC_FUSE_H

#include "passes.h"

enum {
    FUSE_LIMIT = 64,     /* instructions of one nest */
    FUSE_ROW = 16 << 10, /* elements of a row of scratch */
};

/* The members of a would-be nest in program order. */
typedef struct Members {
    const Mesh *mesh;
    Inst *at[FUSE_LIMIT];
    int n;
    bool (*outside)(const void *ctx, const Value *v, const struct Members *m); /* is v used by other instructions? */
    const void *ctx;
} Members;

/* May be part of a nest at all. */
bool fuse_can(const Inst *inst);
/* Depends on nothing and costs next to nothing (a constant, a counter, a causal mask): copied into each nest. */
bool fuse_is_leaf(const Inst *inst);
/* Whether one nest computes all of them without more work than before. */
bool fuse_fits(const Members *m);
bool fuse_has(const Members *m, const Inst *inst);

#endif
