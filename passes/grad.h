/* grad.h: what the gradient functions share; private to passes/.
 *
 * Names: an op maps *primal* values (in -> out); the *cotangent* of a value is the derivative of the loss by it, and
 * has the value's type. A gradient function is given the cotangent of the op's first result and adds, for each operand
 * that wants one, its contribution. It may be sloppy about shape: `grad_into` sums over labels that the operand lacks,
 * repeats over labels that the contribution lacks, and orders the axes. */
#ifndef MOECC_GRAD_H
#define MOECC_GRAD_H

#include "ir.h"

/* What is known of one primal value. */
typedef struct GradSlot {
    Value *of;
    Value *cotangent; /* NULL: nothing flows to it (yet) */
    /* Of a loop body, for the body of the backward loop (autodiff_save.c): */
    Value *here;     /* the placeholder of this value; NULL: not demanded so far */
    Value *saved;    /* the value itself */
    bool recomputed; /* is to be computed again */
    int node;        /* of the cut, from 1 */
    bool active;     /* floating, and depends on a value that the gradient is taken by */
    bool reached;    /* of a loop body: some result with a cotangent depends on it */
} GradSlot;

typedef struct GradFrame GradFrame; /* a loop in the course of differentiation */

typedef struct Grad {
    Builder b;        /* where cotangents are computed */
    GradFrame *frame; /* innermost loop, NULL: the block of the `grad` itself */
    Arena *scratch;
    VEC(GradSlot) slot; /* by Value.id */
} Grad;

/* `ct` is the cotangent of inst->out[0]; NULL when only further results have one. */
typedef void GradFn(Grad *g, Inst *inst, Value *ct);
/* The grad column of ops.def. */
extern GradFn *const grad_fn[OP_COUNT];

/* Whether a gradient can flow through an op at all. */
bool grad_flows(Op op);
/* Does this operand take a contribution? Ask before building one: what it reads might have to be saved for it. */
bool grad_wants(Grad *g, Value *of);
void grad_into(Grad *g, Value *of, Value *contribution);
/* A primal value where the cotangents are computed: itself, or in a loop a placeholder of it (autodiff_save.c). */
Value *grad_use(Grad *g, Value *primal);

/* Of autodiff.c, for loops. */
GradSlot *grad_slot(Grad *g, Value *v); /* the pointer lasts until the next call */
void grad_activate(Grad *g, Block *block, const Inst *end);
void grad_reach(Grad *g, Block *block);
/* Instructions from `last` back to the block's first. */
void grad_backward(Grad *g, Inst *last);
Value *grad_zeros(Grad *g, const Type *like);
/* Of autodiff_loop.c: marks for a loop's results, or operands, from its body; see grad_activate and grad_reach. */
void grad_activate_loop(Grad *g, Inst *loop);
void grad_reach_loop(Grad *g, Inst *loop);

GradFn grad_gather, grad_scatter, grad_slice, grad_pad, grad_relabel, grad_broadcast, grad_annotate, grad_top_k;
GradFn grad_take;
GradFn grad_einsum, grad_reduce, grad_cumsum, grad_loop;

#endif
