/* nest.h: a loop nest between an instruction and its text; private to codegen.
 *
 * Every op that is not a library call becomes a nest, a `fused` region as well as a single op (a region of one). A nest
 * is a list of loops over labels, a list of nodes (one C expression each, over other nodes and over linear functions of
 * the loop indices), and a list of stores.
 *
 *   rows             the outer loops; dealt between the workers
 *   columns          the inner loops: those that the region's folds remove, else the last loop
 *   level of a node  how many loops, outermost first, it stands in: the deepest whose index it depends on
 *   stage of a node  how many folds over the columns come before it in its row
 *
 * So a softmax is one row loop with three column loops in it (stages 0, 1, 2), and an addition is the same thing with
 * one column loop and no fold. A fold whose removed labels are not the trailing loops accumulates into its result in
 * memory, which the caller has filled with the fold's start. */
#ifndef MOECC_NEST_H
#define MOECC_NEST_H

#include "ir.h"
#include "support/str.h"

enum { NEST_LOOPS = 2 * MAX_RANK + 2 };

typedef struct NestLoop {
    Label label; /* after merging: of the innermost axis merged */
    int64_t size;
    bool column;
    bool whole; /* a prefix sum runs along it: in order, by one worker */
    bool down;  /* runs from the last index to the first */
} NestLoop;

/* base + dyn + sum of stride[l] * index of loop l; in elements. */
typedef struct Linear {
    int64_t stride[NEST_LOOPS];
    int64_t base;
    const char *dyn; /* C text of what only the device knows, NULL: 0 */
} Linear;

/* `text` is C over a, b, c (the operands), p (the parameter), i and j (the linear functions). */
typedef struct Node {
    const char *text; /* a fold: its update, over s (so far) and a */
    bool fold;
    const char *start, *clause; /* fold: first value, and OpenMP's name of the operation */
    DType dtype;
    int nin, in[3];
    int param; /* -1: none */
    bool uses_i, uses_j;
    Linear i, j;
    int level, stage;
    bool kept; /* computed in one stage and read in a later one from a row of scratch */
} Node;

typedef struct Store {
    const char *text; /* a statement over a (value), b (index), p, i */
    bool adds;        /* to what is there: runs in every iteration */
    int value, index; /* nodes; index -1: none */
    int param;
    Linear i;
    int level, stage;
} Store;

/* What must be in a result before the nest runs: a constant, or a copy of an operand. */
typedef struct Fill {
    const Value *result;
    const char *text;  /* C text of the constant */
    const Value *copy; /* text NULL: the operand */
} Fill;

typedef struct Nest {
    Arena *arena;
    const Mesh *mesh;
    int nloop;
    NestLoop loop[NEST_LOOPS];
    int ncolumn; /* columns are the last `ncolumn` loops */
    bool folds;  /* the columns are there because of a fold */
    bool serial; /* the innermost loop must run in order: no vectors */
    bool tiled;  /* the last two loops go tile by tile: an operand is contiguous along the outer of them */
    int split;   /* the loop dealt between workers, -1: worker 0 does it all */
    int stages;
    VEC(Node) node;
    VEC(Store) store;
    VEC(const Value *) param; /* operands and results of the instruction, each once */
    VEC(bool) written;        /* parallel to param */
    VEC(Fill) fill;
} Nest;

/* The nest of an elementwise op, a fold, a move, a small einsum, or a fused region. */
Nest *nest_build(const Module *m, const Inst *inst, Arena *a);
/* The kernel's parameter list and body, without its name: equal nests give equal text. */
char *nest_text(Nest *n, Arena *a);

/* ---- between the files of the nest --------------------------------------------------------------------------------
 */

typedef VEC(Dim) DimVec;

typedef struct NestBuild {
    Nest *n;
    const Module *m;
    Arena *arena;
    const Inst *inst; /* the whole: one op or a fused region */
    struct Known {
        const Value *value;
        int node;
    } * known;
    int nknown, knowncap;
} NestBuild;

int nest_loop_of(const Nest *n, Label label); /* -1: none */
int nest_add(NestBuild *b, Node node);        /* returns its number */
void nest_define(NestBuild *b, const Value *v, int node);
/* The node of a value: what the region computed, or a load of an argument. */
int nest_node(NestBuild *b, const Value *v);
bool nest_is_input(const NestBuild *b, const Value *v);
/* Number of the kernel's parameter for an input as seen inside the region, or for a result of the whole. */
int nest_input(NestBuild *b, const Value *v);
int nest_output(NestBuild *b, const Value *result);
/* The result of the whole that a value of the region is, NULL: none. */
const Value *nest_result(const NestBuild *b, const Value *v);
void nest_store(NestBuild *b, Store s);
/* Strides of a block of type t along the loops that have its labels. */
Linear nest_linear(const NestBuild *b, const Type *t);
int64_t nest_stride(const Mesh *m, const Type *t, int axis);

/* How an op enters a nest (nest_ops.c): the axes that it loops over, in order, and its nodes. */
void op_domain(const NestBuild *b, const Inst *inst, DimVec *dims);
void op_nodes(NestBuild *b, const Inst *inst);

/* Drops and merges loops, gives nodes level and stage, deals the work (nest_loops.c). */
void nest_finish(Nest *n);

#endif
