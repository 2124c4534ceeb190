/* compare.h: do two stages of one module mean the same?
 *
 *   Compare *c = compare_new(arena, &(CompareOptions){.eval = {.f64 = true, .steps = 10}, .tolerance = 1e-9});
 *   compare_stage(c, m);                       the first stage: what is right
 *   pass(m); wrong = compare_stage(c, m);      NULL, or what differs
 *
 * Every function is run on the same arguments and initial variables, made up from names alone, so that stages agree on
 * them whatever the passes did. */
#ifndef MOECC_COMPARE_H
#define MOECC_COMPARE_H

#include "ir.h"

typedef enum CompareInputs {
    COMPARE_normal,   /* floats are normal draws, variables as their initializers say */
    COMPARE_eighths,  /* floats are multiples of 1/8 in [-1, 1], in variables too */
    COMPARE_integers, /* floats are integers in -2 .. 2, in variables too: sums and products are exact in any order */
} CompareInputs;

typedef struct CompareOptions {
    EvalOptions eval;
    CompareInputs inputs;
    double tolerance; /* of the largest magnitude in a result, more from call to call; 0: equal to the bit */
    int64_t indices;  /* i32 arguments lie in [0, indices); 0: 16 */
    int calls;        /* of a function that writes variables, each with the next step number; 0: 2 */
} CompareOptions;

typedef struct Compare Compare;

/* `a` keeps the results that later stages are compared with. */
Compare *compare_new(Arena *a, const CompareOptions *opt);
/* Runs the module's functions. The first stage in which a function can be run (none with `grad` in it can) is kept;
 * later ones are compared with it. NULL, or a sentence that names function, result and magnitude. */
const char *compare_stage(Compare *c, const Module *m);

#endif
