/* sharding.h: private to propagate, partition and place: how types and factors meet, and the search for the cheapest
 * way between two shardings. */
#ifndef MOECC_SHARDING_H
#define MOECC_SHARDING_H

#include "passes.h"

/* The axes of each factor as the tensor has them, empty where it says nothing. A dim that cannot be dealt to its
 * factors says nothing at all. `factors` has room for rule->nfactor. */
void factors_read(const ShardRule *rule, const Mesh *m, const DimFactors *dims, const Type *t, AxisList *factors);
/* The axes that factors ask of a dim: those of its factors in turn, as long as the one before is split to the last
 * element. Factors that must stay whole end the list. */
AxisList factors_join(const ShardRule *rule, const Mesh *m, const DimFactors *dim, const AxisList *factors);
/* `like` with the sharding of `from`, label by label; axes that `from` lacks are whole (a slice of a stack, and back).
 */
Type sharding_by_label(const Type *like, const Type *from);
/* Writes the sharding of `from`, which has the same axes in the same order, to the type. */
void sharding_copy(Type *to, const Type *from);

/* One collective (or local slice) on the way. `from` and `to` are axis numbers of the tensor, -1: none. */
typedef struct Move {
    Op op;
    int from, to;
    AxisList axes;
    int64_t bytes;         /* received by one device */
    const AxisList *after; /* permute: the axes of every dim; else NULL */
} Move;

typedef struct ReshardPath {
    double seconds;
    int64_t bytes; /* received by one device, all moves */
    int n;
    Move *move;
} ReshardPath;

typedef struct Resharder Resharder;

/* Remembers every search, so that asking again is cheap. Lives in `a`. */
Resharder *resharder_new(Arena *a, const Mesh *m, const Topology *topo);
/* The cheapest moves that take a value from the sharding of `from` to that of `to`, which has the same shape and no
 * partial axis that `from` lacks. Lives as long as the resharder. */
const ReshardPath *reshard_path(Resharder *r, const Type *from, const Type *to);
const Mesh *resharder_mesh(const Resharder *r);
const Topology *resharder_topology(const Resharder *r);
/* What the type becomes by a move. */
Type move_apply(const Move *mv, const Type *t);

/* ---- which mesh axis splits which factor (assign.c) -------------------------------------------------------------- */

/* The shardings in which a value is at hand. */
typedef struct Versions {
    int n;
    const Type *const *type;
} Versions;

typedef struct AssignQuery {
    const Inst *inst;
    const ShardRule *rule;
    const Versions *in; /* by operand */
    const Type *wish;   /* by result */
} AssignQuery;

typedef struct Assignment {
    AxisList factor[MAX_FACTORS];
    double seconds;
} Assignment;

/* The assignment of least predicted time: the local computation, what the operands need to get there from the nearest
 * version, and the results to get to their wish. */
Assignment assign_factors(Resharder *r, const AssignQuery *q, Arena *scratch);
/* The sharding that the assignment gives to an operand or result (`out`: partial sums included). Returns false when a
 * dim made of several factors cannot express it. */
bool assignment_type(const Mesh *m, const ShardRule *rule, const AxisList *factors, const DimFactors *dims, bool out,
                     Type *t);
/* The version from which `to` is nearest. */
int nearest_version(Resharder *r, const Versions *v, const Type *to, double *seconds);

/* Stacks between loops take the sharding in which they are read (stacks.c). */
void stacks_settle(Block *b);

#endif
