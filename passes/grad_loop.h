/* grad_loop.h: a loop in the course of differentiation; shared by autodiff_loop.c and autodiff_save.c. */
#ifndef MOECC_GRAD_LOOP_H
#define MOECC_GRAD_LOOP_H

#include "grad.h"

/* An argument of the backward body and the operand of the backward loop that it stands for. */
typedef struct GradArg {
    Value *arg;
    Value *operand; /* where the backward loop will stand; NULL: what `primal` is there */
    Value *primal;  /* of the block that holds the forward loop */
} GradArg;

typedef VEC(GradArg) GradArgs;

struct GradFrame {
    GradFrame *outer;
    Inst *loop;  /* forward */
    Block *body; /* backward; the builder's block while the walk is in it */
    GradArgs xs, carried, invariant;
    int nflow;             /* the first of `carried` are cotangents of carried values, the others of invariants */
    VEC(Value *) demanded; /* forward values that the backward body reads; `here` is a placeholder */
};

/* Results of a loop and of its body are numbered alike; argument 0 of the body is the iteration. */
static inline int loop_xs(const Inst *loop) {
    return (int)loop->at.xs;
}
static inline int loop_carried(const Inst *loop) {
    return (int)loop->at.carry;
}
static inline Value *body_arg(const Inst *loop, int operand) {
    return loop->body->args.at[1 + operand];
}
static inline Value *body_result(const Inst *loop, int k) {
    return loop->body->results.at[k];
}

/* A new argument of the backward body, with the type of a slice. */
Value *grad_arg(Grad *g, GradFrame *f, GradArgs *list, const Type *t, GradArg a);
/* Puts values in the place of all placeholders of the innermost loop. */
void grad_save(Grad *g);

#endif
