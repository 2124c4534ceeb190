/* simplify.h: what the parts of `simplify` share; private to passes/. */
#ifndef MOECC_SIMPLIFY_H
#define MOECC_SIMPLIFY_H

#include "ir.h"

/* What is known of one value. */
typedef struct SimpleSlot {
    Value *of;
    Value *to; /* what replaces it, NULL: nothing */
    bool live;
    /* Of a loop body, while the loop is looked at: */
    int64_t base; /* elements of the largest invariant tensor that it is computed from; -1: it changes with the trips */
    Value *outside; /* the same value before the loop */
} SimpleSlot;

typedef struct Simplify {
    Builder b;
    Arena *scratch;
    VEC(SimpleSlot) slot; /* by Value.id */
    bool changed;
} Simplify;

SimpleSlot *simplify_slot(Simplify *s, Value *v); /* the pointer lasts until the next call */
/* What stands for `v` after all replacements. */
Value *simplify_resolve(Simplify *s, Value *v);
/* From here on `to` stands for `from`; operands are rewritten as the walk reaches them. */
void simplify_replace(Simplify *s, Value *from, Value *to);

/* The value of every element, when that is known. */
bool simplify_const(const Value *v, double *value);
/* x with the axes of `like`: x itself or a broadcast. */
Value *simplify_as(Simplify *s, Value *x, const Type *like);
Value *simplify_number(Simplify *s, const Type *like, double value);

/* A simpler value than the instruction's result, built before it; NULL: none known (simplify_rules.c). */
Value *simplify_rule(Simplify *s, Inst *inst);
/* Element-wise op on known numbers: true and *result where IEEE or two's complement fix the bits (simplify_fold.c). */
bool simplify_fold(Op op, DType t, const double *in, double *result);

/* Loops (simplify_loop.c): before their body is simplified, and after it. */
void simplify_loop_enter(Simplify *s, Inst *loop);
void simplify_loop_leave(Simplify *s, Inst *loop);
/* Drops operands, results and carried values whose `live` mark is not set. */
void simplify_loop_prune(Simplify *s, Inst *loop);

#endif
