/* plan.h: buffers of one function's arena; shared by plan.c, plan_places.c and plan_share.c. */
#ifndef MOECC_PLAN_H
#define MOECC_PLAN_H

#include "passes.h"

enum { PLAN_ALIGN = 64 }; /* of every offset, in bytes */

/* A stretch of memory with one lifetime; values are places in it. */
typedef struct Buffer {
    int64_t bytes;
    int start, end; /* positions in program order, both inclusive */
    int64_t offset; /* -1: not yet placed */
    const Var *var; /* it is this variable's memory; NULL: a temporary's */
    bool pinned;    /* an argument or result of the function: no other value may share it */
    int merged;     /* another buffer that took this one over, -1: none */
} Buffer;

/* Where a value lies. */
typedef struct Place {
    int buffer; /* -1: nowhere (inside a fused region, or a loop's counter) */
    int64_t delta;
    int defined; /* position of its definition */
    int done;    /* the same, of a loop's result: where the loop ends */
    bool slice;  /* it is written into a slice of a loop's stacked result */
} Place;

typedef struct Plan {
    Module *m;
    const Func *f;
    Arena *arena;
    VEC(Buffer) buffer;
    VEC(Place) place; /* by Value.id */
    int position;
    bool *copied_read; /* by Var.id: its reads need memory of their own */
} Plan;

/* Gives every value of the function a buffer, and buffers their lifetimes (plan_places.c). */
void plan_places(Plan *p);
Place *plan_place(Plan *p, const Value *v);
Buffer *plan_buffer(Plan *p, int buffer);
int plan_var_buffer(Plan *p, Var *var);
/* Lets buffers take over others that die where they begin (plan_share.c). */
void plan_share(Plan *p);

#endif
