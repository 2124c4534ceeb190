/* origins.h: private to passes: where the sharding of each value came from. */
#ifndef MOECC_ORIGINS_H
#define MOECC_ORIGINS_H

#include "passes.h"

/* Why a mesh axis splits an axis of a tensor. An axis splits one dim of a tensor only, so tensor and axis are the key.
 */
typedef struct Origin {
    int axis, dim;
    const char *via; /* the op through which it came; NULL: an annotation */
    Loc loc;         /* of the instruction, or of the annotation */
    int from;        /* the tensor whose splitting was taken over; -1: an annotation */
} Origin;

/* A value or variable at the time of propagation. Tensors that are one at run time share a root. */
typedef struct OriginTensor {
    const Value *value; /* or */
    const Var *var;
    const Func *func; /* NULL: a variable */
    const char *name; /* NULL: none */
    Loc loc;
    Type type;  /* with the final wishes */
    Type asked; /* as annotated: what is pinned is the user's */
    int root;
    int same;        /* an `annotate`: the tensor that it annotates; -1 */
    VEC(Origin) why; /* of roots */
} OriginTensor;

/* Origins that are recorded without a word to the user. */
Origins *origins_quiet(Arena *a);
bool origins_warns(const Origins *o);

/* All of these do nothing, or find nothing, when `o` is NULL. */

/* The next tensor, in the numbering that propagate uses. */
void origins_tensor(Origins *o, const OriginTensor *t);
void origins_add(Origins *o, int tensor, const Origin *why);
const Origin *origins_find(const Origins *o, int tensor, int axis); /* NULL: the axis does not split it */
OriginTensor *origins_at(const Origins *o, int tensor);
int origins_count(const Origins *o);
/* An `annotate` of a value, whose id is its tensor: the same value, so the same name, as another tensor. */
void origins_annotated(Origins *o, const Value *x, int tensor);
/* Keeps the module as it is now, to ask later what it would cost without an annotation. */
void origins_keep(Origins *o, const Module *m);
Module *origins_before(const Origins *o, Arena *a); /* a fresh copy; NULL: not kept */
void origins_finish(Origins *o);

/* -1: it did not exist then. */
int origins_of(const Origins *o, const Value *v);
/* The annotation at the end of the chain; false when there is none. */
bool origins_root(const Origins *o, int tensor, int axis, Loc *loc);
/* The annotation that gave the value (or, for what partition decided, one of its operands) this axis. */
bool origins_giver(const Origins *o, const Value *v, int axis, Loc *loc);
/* The same of a variable. */
bool origins_var(const Origins *o, const Var *v, int axis, Loc *loc);
/* Behind what only moves the value, and inside the loop nest that computes it: the value that propagate knew. */
const Value *origins_known(const Value *v);
/* The annotation of v that asks for this very sharding. */
bool origins_asked(const Origins *o, const Value *v, const Type *t, Loc *loc);

/* Warns of large parameters that are whole on every device (warn.c). */
void warn_replicated(const Module *m);

#endif
