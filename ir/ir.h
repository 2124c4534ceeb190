/* ir.h: the program between its text and its code; the folder's one public header.
 *
 * A module is a mesh, variables (parameters and states) and functions. A function is a block of instructions on
 * tensors with *labelled* axes. Three decisions carry everything (ir/IR.md has the text form and the ops):
 *
 *   Types are global, always. A value's type has the global size of each axis and the mesh axes that the axis is split
 *   over. What a device holds is a projection (`dim_local`), never a second type. So a text dump says both, a value can
 *   be compared with the one-device run after any pass, and no pass rewrites shapes.
 *
 *   Labels say what meets what. Element-wise operands broadcast by label, an einsum is its result's labels, and a
 *   sharding rule is one factor a label unless its row says otherwise. The order of a type's axes is memory order.
 *
 *   Partial sums are part of the type. `f32[M:8] partial(sum: data)` is a value whose meaning is the sum of the
 *   devices' blocks along `data`.
 */
#ifndef MOECC_IR_H
#define MOECC_IR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "support/arena.h"
#include "support/diag.h"
#include "support/vec.h"

enum {
    MAX_RANK = 10,         /* axes of a tensor */
    MAX_AXES = 8,          /* axes of a mesh */
    MAX_OPERANDS = 4096,   /* of one instruction (loops and grads have many) */
    MAX_DEVICES = 1 << 20, /* of a mesh */
    MAX_NESTING = 64,      /* regions within regions */
};
#define MAX_DIM ((int64_t)1 << 40)      /* size of one axis */
#define MAX_ELEMENTS ((int64_t)1 << 48) /* of one tensor */

/* An interned name of an axis in normal form ("M", "S+1"); labels are equal when the pointers are. */
typedef const char *Label;

typedef enum DType {
#define DTYPE(id, bytes, ctype, doc) DT_##id,
#include "dtypes.def"
#undef DTYPE
    DT_COUNT
} DType;

typedef enum Phase {
#define PHASE(id, doc) PHASE_##id,
#include "phases.def"
#undef PHASE
    PHASE_COUNT
} Phase;

typedef enum Op {
#define OP(id, in, attrs, phases, shape, rule, grad, emit, expr, doc) OP_##id,
#include "ops.def"
#undef OP
    OP_COUNT
} Op;

/* How an emitter treats an op. Emitters switch on these, never on ops. */
typedef enum EmitKind {
    EMIT_elem,   /* one C expression per element, broadcast by label */
    EMIT_reduce, /* a fold over axes */
    EMIT_gemm,   /* einsum */
    EMIT_move,   /* rows and indices: no or little arithmetic */
    EMIT_coll,   /* between devices */
    EMIT_call,   /* a routine of the runtime */
    EMIT_ctrl,   /* regions: loop, fused */
    EMIT_none,   /* gone before code is emitted, or an alias of its operand */
} EmitKind;

/* ---- meshes, shardings, types ------------------------------------------------------------------------------------ */

/* Mesh axes by number, major first. */
typedef struct AxisList {
    uint8_t n;
    uint8_t at[MAX_AXES];
} AxisList;

/* Devices are numbered in mixed radix, axis 0 most significant. */
typedef struct Mesh {
    int n;
    const char *name[MAX_AXES]; /* interned */
    int64_t size[MAX_AXES];
} Mesh;

typedef struct Dim {
    Label label;
    int64_t size;  /* global */
    AxisList axes; /* split over these, major first; their product divides size */
    bool pinned;   /* ANNOTATED: written by the user as `@…`, also `@()`; later: axes.n > 0 */
} Dim;

typedef enum PartialKind { PARTIAL_none, PARTIAL_sum, PARTIAL_max, PARTIAL_min } PartialKind;

typedef struct Type {
    DType dtype;
    int rank;
    Dim dim[MAX_RANK];
    PartialKind partial_kind;
    AxisList partial; /* devices along these hold terms, not copies */
} Type;

int64_t mesh_devices(const Mesh *m);
int mesh_axis(const Mesh *m, const char *interned_name); /* -1: none */
int64_t mesh_coord(const Mesh *m, int64_t device, int axis);
/* Position of the device along a list of axes, and the number of positions. */
int64_t mesh_index(const Mesh *m, int64_t device, const AxisList *axes);
int64_t mesh_size(const Mesh *m, const AxisList *axes);

bool axes_equal(const AxisList *a, const AxisList *b);
bool axes_has(const AxisList *a, int axis);
void axes_add(AxisList *a, int axis);
/* Length of the common prefix. */
int axes_common(const AxisList *a, const AxisList *b);

int dtype_bytes(DType t);
const char *dtype_name(DType t);

int type_find(const Type *t, Label label); /* axis number, -1: none */
int64_t type_elements(const Type *t);      /* global */
int64_t dim_local(const Mesh *m, const Dim *d);
int64_t type_local_elements(const Mesh *m, const Type *t);
int64_t type_local_bytes(const Mesh *m, const Type *t);
bool type_same_shape(const Type *a, const Type *b);    /* dtype, labels, sizes, in order */
bool type_same_sharding(const Type *a, const Type *b); /* axes and partial */
/* The type whole on every device. */
Type type_unsharded(const Type *t);
/* Which mesh axes the type uses, as a bit set. */
unsigned type_axes_used(const Type *t);

/* ---- the program ------------------------------------------------------------------------------------------------- */

typedef struct Inst Inst;
typedef struct Block Block;
typedef struct Func Func;
typedef struct Module Module;

typedef struct Value {
    Type type;
    Inst *def;        /* NULL: an argument of `block` */
    Block *block;     /* where it is defined */
    int index;        /* which result of def, or which argument of block */
    const char *name; /* from the source, for people; NULL: none */
    Loc loc;          /* of an argument's declaration; a result has its instruction's */
    int64_t offset; /* PLANNED: bytes from the start of the device's arena; -1 before, and for values without storage */
    int id;         /* scratch for passes and printing; meaningless between them */
} Value;

typedef struct LabelList {
    int n;
    Label at[MAX_RANK];
} LabelList;

typedef struct DimList {
    int n;
    struct {
        Label label;
        int64_t size;
    } at[MAX_RANK];
} DimList;

typedef struct Var Var;

typedef struct Attrs {
#define ATTR_LABEL Label
#define ATTR_LABELS LabelList
#define ATTR_DIMS DimList
#define ATTR_INT int64_t
#define ATTR_NUM double
#define ATTR_FLAG bool
#define ATTR_WORD const char *
#define ATTR_AXES AxisList
#define ATTR_VAR Var *
#define ATTR_DTYPE DType
#define ATTR(name, kind, doc) ATTR_##kind name;
#include "attrs.def"
#undef ATTR
} Attrs;

struct Inst {
    Op op;
    Loc loc;
    int nin, nout;
    Value **in, **out;
    Attrs at;
    Block *body; /* loop, fused: the region */
    Block *parent;
    Inst *prev, *next;
};

/* A list of instructions with arguments and results. A block sees nothing of the outside but its arguments.
 * loop body: arguments (i32[] iteration, xs slices, carried, invariant); results (carried, ys slices). */
struct Block {
    Inst *first, *last;
    VEC(Value *) args;
    VEC(Value *) results;
    Inst *owner; /* the loop or fused instruction, NULL: a function's */
};

/* Parameters are trained and saved; states survive from call to call and are saved too. */
typedef enum VarKind { VAR_param, VAR_state } VarKind;

typedef struct VarInit {
    const char *kind; /* "const", "normal" (mean 0), "uniform" (+-value); interned */
    double value;     /* the constant, the standard deviation, the bound */
} VarInit;

/* A tensor that outlives a call. In a rolled loop it is one tensor with the trip count in front (`stacked`), and slice
 * i is the tensor that files call `path` with its braces replaced by lo + i * step: "block.{}.wi", or "block.{1:2}.wi"
 * where lo is not 0 or step not 1, so that two groups of layers have two paths. */
struct Var {
    VarKind kind;
    const char *path; /* "block.{}.moe.wi": identity within the module and name in files */
    Type type;        /* pinned dims are the user's annotation; axes are final from SHARDED on */
    VarInit init;
    const char *from; /* name pattern in a checkpoint, NULL: path */
    bool stacked;
    bool trained; /* an optimizer updates it */
    int64_t lo, step;
    Loc loc;
    int64_t offset; /* PLANNED: in the device's arena */
    int id;
};

typedef enum FuncKind { FUNC_entry, FUNC_train } FuncKind;

/* A function that the binary offers. `train` runs one optimizer step: it writes variables and returns what `entry` of
 * the same source returns. */
struct Func {
    const char *name; /* "loss"; "logits@S=1,…" for a further instance of one source entry */
    FuncKind kind;
    Loc loc;
    Block *body;
    VEC(const char *) result_names; /* parallel to body->results: "nll"; metrics by scope path */
    int64_t arena_bytes;            /* PLANNED: of one device, variables included */
};

struct Module {
    Arena *arena;
    Phase phase;
    Mesh mesh;
    VEC(Var *) vars;
    VEC(Func *) funcs;
    /* "generate with": names of the functions for decode (the smallest size) and prefill; NULL: none. */
    const char *generate_decode, *generate_prefill;
    const char *source; /* path of the .moe, for people */
};

Module *module_new(Arena *arena);
Var *module_var(const Module *m, const char *path); /* NULL: none */
Func *module_func(const Module *m, const char *name, FuncKind kind);
/* What files call slice i of a variable: `pattern` is its path or `from`. */
const char *var_slice_path(const Var *v, const char *pattern, int64_t i, Arena *a);
/* A deep copy in `arena`: what eval keeps of an earlier stage. */
Module *module_clone(const Module *m, Arena *arena);

/* ---- the op table ------------------------------------------------------------------------------------------------ */

typedef struct OpInfo {
    const char *name;
    int nin;           /* operands; -1: any number */
    const char *attrs; /* names in attrs.def, separated by blanks; "" none */
    unsigned phases;   /* 1 << PHASE_x */
    const char *rule;  /* sharding rule, shardrule.c */
    EmitKind emit;
    const char *expr; /* C tokens; operands are a, b, c */
    const char *doc;
} OpInfo;

extern const OpInfo op_info[OP_COUNT];
Op op_find(const char *name); /* OP_COUNT: none */
bool op_has_attr(Op op, const char *attr);

/* ---- construction: the shape rule runs at birth -------------------------------------------------------------------
 */

typedef struct Builder {
    Module *m;
    Block *block;
    Inst *before; /* insert before this, NULL: at the end */
    Loc loc;      /* given to new instructions */
} Builder;

/* A detached instruction; its results' types are inferred. On a violated rule returns NULL and sets *error to a
 * sentence that names labels ("label H is 1024 in operand 1 and 512 in operand 2"); with error NULL it is a compiler
 * bug. */
Inst *inst_new(Module *m, Op op, Loc loc, int nin, Value *const *in, const Attrs *at, Block *body, const char **error);
/* Infers result types again, keeping shardings where the labels stay; NULL or a sentence. */
const char *inst_infer(Module *m, Inst *inst);
Inst *build_inst(Builder *b, Op op, int nin, Value *const *in, const Attrs *at, Block *body);
Value *build1(Builder *b, Op op, Value *x, const Attrs *at); /* at may be NULL */
Value *build2(Builder *b, Op op, Value *x, Value *y, const Attrs *at);
Value *build3(Builder *b, Op op, Value *x, Value *y, Value *z, const Attrs *at);
Value *build_const(Builder *b, DType t, double value);                       /* rank 0; broadcasts */
Value *build_cast(Builder *b, Value *x, DType t);                            /* x itself when of that type */
Value *build_reduce(Builder *b, const char *kind, Value *x, LabelList over); /* x itself when over is empty */
Value *build_einsum(Builder *b, int n, Value *const *in, LabelList result);
Value *build_broadcast(Builder *b, Value *x, const Type *like); /* to the labels and order of `like` */
Value *build_slice(Builder *b, Value *x, Label label, int64_t start, int64_t size,
                   Label to); /* to NULL: drop, size 1 */
LabelList type_labels(const Type *t);
LabelList labels_minus(LabelList a, LabelList b);

Block *block_new(Module *m, Inst *owner);
Value *block_arg(Module *m, Block *b, const Type *t, const char *name);
Value *value_new(Module *m, const Type *t);
Func *func_new(Module *m, const char *name, FuncKind kind, Loc loc);

void inst_insert(Block *b, Inst *before, Inst *inst); /* before NULL: at the end */
void inst_remove(Inst *inst);
/* Every use of `from` inside the block (and its results; nested regions see only their arguments) becomes `to`. */
void block_replace(Block *b, Value *from, Value *to);
/* Calls fn for each instruction, outer before inner. fn may remove the instruction it is given. */
void block_walk(Block *b, void (*fn)(Inst *, void *), void *ctx);
void module_walk(Module *m, void (*fn)(Inst *, void *), void *ctx);
int block_uses(const Block *b, const Value *v);

/* ---- sharding rules ---------------------------------------------------------------------------------------------- */

/* What sharding a factor does (Shardy's notation, arXiv 2401.11202 and openxla/shardy). */
typedef enum FactorKind {
    FACTOR_pass, /* in operands and results alike: splits freely */
    FACTOR_sum,  /* in operands only: splitting it leaves a partial sum */
    FACTOR_max,
    FACTOR_min,
    FACTOR_whole, /* must not be split */
} FactorKind;

enum { MAX_FACTORS = 3 * MAX_RANK };

typedef struct Factor {
    int64_t size;
    FactorKind kind;
    Label label; /* for people */
} Factor;

/* An axis as factors, major first: mostly one; a relabel B,S -> G,T has more (compound factors). */
typedef struct DimFactors {
    int n;
    int at[4];
} DimFactors;

typedef struct ShardRule {
    int nfactor;
    Factor factor[MAX_FACTORS];
    DimFactors (*in)[MAX_RANK];  /* [operand][axis] */
    DimFactors (*out)[MAX_RANK]; /* [result][axis] */
} ShardRule;

/* The rule of an instruction, from its row; NULL for ops without one ("@none": loop, fused, reshard, collectives). */
ShardRule *shard_rule(Arena *a, const Inst *inst);
/* Axes per factor -> sharding of one operand or result, and back. A dim's axes are dealt to its factors from the major
 * one on, as long as they divide; rule_factors_of returns false when some axis cannot be dealt. */
void rule_apply(const ShardRule *r, const Mesh *m, const AxisList *factor_axes, const DimFactors *dims, Type *t);
bool rule_factors_of(const ShardRule *r, const Mesh *m, const DimFactors *dims, const Type *t, AxisList *factor_axes);
/* NULL when the operands' and results' shardings fit the rule (LOCAL), else a sentence. */
const char *rule_check(Arena *a, const Mesh *m, const Inst *inst);

/* ---- text, verification, execution --------------------------------------------------------------------------------
 */

/* parse(print(m)) prints the same text. Locations are printed on request and then round-trip too. */
typedef struct PrintOptions {
    bool locs;
} PrintOptions;
char *module_print(const Module *m, Arena *a, PrintOptions opt);
char *type_print(const Type *t, const Mesh *mesh, Arena *a);
/* NULL after a diagnostic. `path` names the text in messages. */
Module *module_parse(Arena *arena, const char *path, const char *text, size_t bytes);

/* Checks what verify.c lists, against m->phase. NULL, or the first violation in words. */
const char *module_verify(const Module *m, Arena *a);

/* A tensor of the interpreter: dense, row-major in its type's order, every element a double (the f32 mode rounds after
 * each op). */
typedef struct Tensor {
    Type type; /* unsharded: what one device, or the whole, holds */
    double *at;
} Tensor;

typedef struct EvalOptions {
    bool f64; /* compute in double; else round every result to its element type */
    uint64_t seed;
    int64_t step, steps;
    int64_t limit; /* element operations of a call, then it gives up; 0: 2^36 */
} EvalOptions;

/* The values of all variables between calls, global, in the order of m->vars. */
typedef struct EvalState {
    Tensor *var; /* NULL: they are larger than what the interpreter takes, and eval_func says so */
    int n;
} EvalState;

EvalState eval_init(const Module *m, Arena *a, const EvalOptions *opt); /* by each variable's initializer */
/* Runs a function on the mesh's virtual devices (one device before LOCAL): splits the inputs, runs in lock step, joins
 * the results, checking that copies agree bit for bit. Variables are read from and written to `state`. Returns the
 * results, global, in the order of body->results; NULL and *error on a violation found at run time. */
Tensor *eval_func(const Module *m, const Func *f, const Tensor *args, EvalState *state, const EvalOptions *opt,
                  Arena *a, const char **error);
Tensor tensor_new(Arena *a, const Type *t);

#endif
