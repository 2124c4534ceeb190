/* eval.h: private to the interpreter: what its files share.
 *
 * A value in flight is a Slot: one block of doubles per virtual device (one device before LOCAL, whose block is the
 * whole). An op is a function on one device (`EvalOp`); it may read every device's operands, which is all a collective
 * needs, since the devices run in lock step. Regions run in eval.c.
 *
 * A fault found at run time leaves through eval_fail, which does not return; so functions here have no error results.
 */
#ifndef MOECC_EVAL_H
#define MOECC_EVAL_H

#include <setjmp.h>

#include "ir.h"

typedef struct Image Image; /* eval_memory.c: the planned memory */
typedef struct Frame Frame;

typedef struct Slot {
    Type local;    /* what one device holds: the sizes of its block, no axes */
    double **at;   /* [device] */
    int64_t moved; /* PLANNED: bytes from the value's offset, in a loop whose slices move with the iteration */
} Slot;

/* A scope of memory: a function or one run of a region. */
typedef struct EvalScope {
    Arena *arena;
    int64_t cells; /* doubles in use when it was opened */
} EvalScope;

typedef struct Eval {
    const Module *m;
    const EvalOptions *opt;
    EvalState *state;
    Tensor *written; /* [var]: what the call leaves in it; at NULL: unchanged */
    Arena *caller;   /* results and sentences */
    bool spread;     /* LOCAL on: values are blocks */
    int64_t devices; /* 1 unless spread */
    int64_t work;    /* element operations left */
    int64_t cells;   /* doubles in use */
    EvalScope scope[MAX_NESTING + 2];
    int depth;
    const Inst *now; /* for sentences */
    Image *image;    /* PLANNED, else NULL */
    const char *error;
    jmp_buf fail;
} Eval;

/* One instruction on one device. */
typedef struct Call {
    Eval *e;
    const Inst *inst;
    int64_t device;
    Slot *const *in;
    Slot *const *out;
} Call;

typedef void EvalOp(const Call *c);

/* A run of a block. */
struct Frame {
    const Block *b;
    Slot **slot;      /* by Value.id, which numbers the block's values */
    const Frame *up;  /* the run that the loop stands in, NULL: a function */
    Slot *const *out; /* of the loop */
    int64_t iteration;
};

/* Every op's function, by name; regions have none. */
#define EVAL_ROW_elem(id)
#define EVAL_ROW_reduce(id) EvalOp eval_##id;
#define EVAL_ROW_gemm(id) EvalOp eval_##id;
#define EVAL_ROW_move(id) EvalOp eval_##id;
#define EVAL_ROW_coll(id) EvalOp eval_##id;
#define EVAL_ROW_call(id) EvalOp eval_##id;
#define EVAL_ROW_ctrl(id)
#define EVAL_ROW_none(id) EvalOp eval_##id;
#define OP(id, in, attrs, phases, shape, rule, grad, emit, expr, doc) EVAL_ROW_##emit(id)
#include "ops.def"
#undef OP
EvalOp eval_elem; /* all of kind elem */

_Noreturn void eval_fail(Eval *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Counts element operations; fails when there are too many. */
void eval_spend(Eval *e, double operations);
/* Zeros, in the current scope. */
double *eval_cells(Eval *e, int64_t n);
void *eval_alloc(Eval *e, size_t bytes);
/* A value of that type, zero on every device. */
Slot *slot_new(Eval *e, const Type *t);
Type local_type(const Eval *e, const Type *t);
/* The first global index, along a dim, that the device holds. */
int64_t block_start(const Eval *e, int64_t device, const Dim *d);

/* What a value of the type keeps of x: i32 wraps, bool is 0 or 1, floats round unless the options say f64. */
double eval_round(const Eval *e, DType t, double x);

/* ---- whole tensors and blocks (eval_shard.c) ---- */

/* The whole, from every device's block; copies must agree bit for bit, partial terms are folded in rank order. */
double *shard_join(Eval *e, const Type *t, double *const *block);
/* One device's block of the whole. Of a partial sum, the first device along the axes takes all. */
void shard_split(Eval *e, const Type *t, const double *whole, int64_t device, double *block);
/* Number of the device that is `rank` along the axes and elsewhere where `device` is. */
int64_t mesh_peer(const Mesh *m, int64_t device, const AxisList *axes, int64_t rank);

/* ---- the planned memory (eval_memory.c); nothing happens before PLANNED ---- */

/* Arenas of the function's size, with the variables in place. */
void memory_open(Eval *e, const Func *f);
/* At the end of the call every variable must lie where it belongs. */
void memory_close(Eval *e);
/* Where the result of an instruction lies, beyond its offset, in this run of its block. */
int64_t memory_moved(const Eval *e, const Frame *f, const Value *v);
/* Stores a value at its place. */
void memory_store(Eval *e, const Value *v, const Slot *x);
/* The same for what is not a value: bytes from the start of the arena. */
void memory_store_at(Eval *e, int64_t address, const Slot *x);
/* Fails when the value is no longer where it was stored. */
void memory_check(Eval *e, const Value *v, const Slot *x);
/* Fails when a result of the instruction lies on an operand that it must not overwrite. */
void memory_check_apart(Eval *e, const Frame *f, const Inst *inst);

/* ---- walking an index space (eval_walk.c) ---- */

/* All indices of a space of labelled axes, row-major, a row (the last axis) at a time, with the place of each of n
 * tensors at the row's start, and its step along the row. */
typedef struct Walk {
    Eval *e;
    int rank, n;
    Label label[MAX_FACTORS];
    int64_t size[MAX_FACTORS], index[MAX_FACTORS];
    int64_t (*stride)[MAX_FACTORS]; /* [tensor][axis] */
    int64_t *at;                    /* [tensor] */
    int64_t *step;                  /* [tensor] */
    int64_t row;
} Walk;

Walk walk_new(Eval *e, int tensors);
/* Adds the type's axes that the space does not have yet. */
void walk_space(Walk *w, const Type *local);
/* Tensor k lies dense in its type's order. It stays at 0 along axes that the space lacks, and does not move along axes
 * that it lacks. */
void walk_tensor(Walk *w, int k, const Type *local);
/* The same, but its axis number `axis` goes with the space's `as` (NULL: stays at 0), whatever their sizes. */
void walk_tensor_as(Walk *w, int k, const Type *local, int axis, Label as);
/* Elements between neighbours along an axis. */
int64_t axis_stride(const Type *local, int axis);
/* Counts the work and stands at the first row. Then: do { row } while (walk_next(&w)). */
void walk_start(Walk *w);
bool walk_next(Walk *w);

#endif
