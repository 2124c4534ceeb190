/* lower.h: what the files of the lowering share; private to them.
 *
 * Lowering is abstract interpretation of the syntax tree. Functions are generic in dims, element types and further
 * axes, and own parameters whose paths depend on who calls, so a function means something only where it is called:
 * each call is checked and expanded in place. A value of the interpreter (Val) is a tensor of the IR or something
 * known at compile time: a number, perhaps with the label expression that it came from, a bool, a string, a list.
 *
 *   source.c   files, imports, declarations by name       entry.c    the module: mesh, entries, generate
 *   poly.c     label expressions in normal form           stmt.c     statements
 *   value.c    Val: conversions, implicit adaptation      loop.c     `for`: rolled by period
 *   type.c     types and shardings, binding of arguments  scope.c    paths, parameters, states, metrics
 *   expr.c     expressions                                call.c     expansion of functions
 *   builtin.c, algebra.c, fill.c   the built-in functions
 *   train.c    the training step                       lower.c    errors, instructions, labels, the module
 *
 * Errors: the first at a place is reported; its value is VAL_error, and whatever is made of that is silently VAL_error
 * too. So one mistake gives one message, and lowering goes on to find the next. */
#ifndef MOECC_LOWER_H
#define MOECC_LOWER_H

#include "ast.h"
#include "frontend.h"
#include "ir.h"

enum {
    MAX_CALL_DEPTH = 64,
    MAX_ITERATIONS = 1 << 16,   /* of one `for` */
    MAX_EXPANSIONS = 1 << 18,   /* calls, of one module */
    MAX_INSTRUCTIONS = 1 << 18, /* of one module */
    MAX_NAMES = 1 << 13,        /* of one file, and of one function: they are searched one by one */
    MAX_INSTANCES = 64,         /* of `generate` */
    MAX_ALIASES = 32,           /* files under names of their own */
    MAX_PERIOD = 8,             /* iterations that one rolled body may hold */
};

/* ---- label expressions (poly.c) ---------------------------------------------------------------------------------- */

/* A dim: a name that stands for a size. Two dims of one name have different texts ("C", "C_1"). */
typedef struct Sym {
    Label text;
    int64_t size;
} Sym;

enum { POLY_TERMS = 8, POLY_FACTORS = 6 };

typedef struct Term {
    int64_t k;
    int n;
    const Sym *at[POLY_FACTORS]; /* sorted by text */
} Term;

/* A sum of terms in normal form. Equal expressions have equal texts. */
typedef struct Poly {
    int n;
    Term at[POLY_TERMS]; /* sorted */
    int64_t size;
    Label text;
} Poly;

/* NULL: the result is too long for a label, or its size is out of range. */
const Poly *poly_const(Arena *a, int64_t k);
const Poly *poly_sym(Arena *a, Label text, int64_t size);
const Poly *poly_add(Arena *a, const Poly *x, const Poly *y, int64_t sign);
const Poly *poly_mul(Arena *a, const Poly *x, const Poly *y);
/* x / y where y's size divides x's: term by term where that is exact, else a new symbol "x/y". */
const Poly *poly_div(Arena *a, const Poly *x, const Poly *y);
bool poly_is_const(const Poly *p);

/* ---- values (value.c) -------------------------------------------------------------------------------------------- */

typedef struct Lower Lower;
typedef struct Frame Frame;

/* A number or bool that differs by iteration of a rolled loop: its value in each. */
typedef struct Varying {
    Frame *frame;
    double *at; /* frame->trip of them */
} Varying;

typedef enum ValKind {
    VAL_error, /* a mistake that has been reported, or a part of a loop that is lowered again */
    VAL_none,
    VAL_num,
    VAL_bool,
    VAL_str,
    VAL_dtype,
    VAL_list,
    VAL_tensor,
    VAL_tuple, /* the results of a call */
} ValKind;

typedef struct Val Val;
struct Val {
    ValKind kind;
    bool integer;       /* num: written or computed as an integer */
    double num;         /* num; bool: 0 or 1 */
    const Poly *poly;   /* num: the label expression, NULL: none */
    const Varying *vec; /* num, bool: NULL: the same in each iteration */
    const char *str;
    DType dtype;
    Value *t;
    Val *at; /* list, tuple */
    int n;
};

Val val_error(void);
Val val_none(void);
Val val_num(double x);
Val val_int(Lower *lo, int64_t x);
Val val_poly(const Poly *p);
Val val_bool(bool b);
Val val_tensor(Value *t);
Val val_tuple(Lower *lo, int n, const Val *at);
bool val_is_error(Val v);
/* A number or bool whose value is known and the same in every iteration. */
bool val_is_static(Val v);
/* What a person calls it: "f32[B, S, M]", "the number 2.5". */
const char *val_describe(Lower *lo, Val v);

/* The tensor of a value; numbers and bools become constants of type `t`. NULL after an error at loc. */
Value *val_to_tensor(Lower *lo, Val v, DType t, Loc loc);
/* The tensor of a value in its own element type: integers are i32, other numbers f32. */
Value *val_to_any(Lower *lo, Val v, Loc loc);
/* Both as tensors of one element type: numbers adapt to the other side, bool is 0/1 (`arith`: as i32 even among
 * themselves). False after an error. `what` names the operation. */
bool val_unify(Lower *lo, const char *what, Val x, Val y, bool arith, Loc loc, Value **a, Value **b);
/* A bool tensor as i32, others as they are: what can be summed. */
Value *val_countable(Lower *lo, Value *x);
/* The label expression of a dim argument; NULL after an error. */
const Poly *val_label(Lower *lo, Val v, Loc loc);
/* A compile-time integer; false after an error. */
bool val_integer(Lower *lo, Val v, const char *what, Loc loc, int64_t *out);

/* ---- names and declarations (source.c) --------------------------------------------------------------------------- */

typedef struct Unit Unit;
typedef struct Decl Decl;
typedef struct Scope Scope;
typedef struct Call Call;
typedef struct Slot Slot;

/* A name declared in a file. Values are those of the instance that is being lowered. */
struct Decl {
    const char *name;
    const Ast *node;
    Unit *unit;
    enum { DECL_fresh, DECL_open, DECL_done } state; /* of val; open: being computed */
    Val val;
    const char *override;                                     /* -D text */
    const Poly *size;                                         /* of a dim, set by `generate` */
    const Ast *bound;                                         /* the importer's value for it, NULL: its own */
    enum { OWNS_unknown, OWNS_open, OWNS_no, OWNS_yes } owns; /* fn: whether parameters are made under it */
};

/* An import under a name of its own: `alias.x` is what its file declares as x. */
typedef struct Alias {
    const char *name;
    Unit *unit;
} Alias;

struct Unit {
    const char *name; /* "std/nn.moe", or the path; of a file under a name of its own, what no other unit is called */
    const char *path;
    const Ast *file;
    VEC(Decl *) decls;
    VEC(Unit *) imports;
    VEC(Alias) aliases;
    Unit *importer;    /* of a file under a name of its own, else NULL */
    const char *alias; /* that name: its variables lie below the scope of this name */
    bool frozen;       /* they are not trained, and it runs as outside of training */
};

/* Loads the main file and what it imports. NULL after an error. */
Unit *source_load(Lower *lo, const char *path);
/* By name in the unit, then in its imports; `alias.name` in a file under a name of its own. NULL: none. */
Decl *source_find(const Unit *u, const char *name);
/* Evaluates a dim, const or dtype (once per instance). */
Val decl_value(Lower *lo, Decl *d, Loc use);
/* Forgets what decl_value found, before another instance. */
void source_reset(Lower *lo);
bool source_defs(Lower *lo, Unit *main);

/* A name inside a function. */
typedef struct Bind {
    const char *name;
    Val val;
    Loc loc;
    bool optional; /* an argument that defaults to none: `if x` asks whether it was given */
    bool dim;      /* may not be assigned */
    Slot *state;   /* a state: assignment is its next value */
} Bind;

/* The expansion of one function. */
struct Call {
    Call *outer;
    Decl *fn;
    Unit *unit;
    Loc loc;      /* of the call */
    bool binding; /* arguments are being bound: errors are the caller's */
    VEC(Bind) binds;
    bool has_elem; /* `?` is bound */
    DType elem;
    bool has_pack;  /* an argument is declared with `...` */
    LabelList pack; /* what that stood for, in all arguments together */
    LabelList each; /* `each A:` around the call: further axes that no type in it names */
    bool returned;
    Val result; /* a tuple */
    Loc result_loc;
};

Bind *call_find(const Call *c, const char *name);
void call_bind(Lower *lo, const char *name, Val v, Loc loc);

/* ---- loops (loop.c) ---------------------------------------------------------------------------------------------- */

typedef struct Capture {
    Value *outer, *arg;
} Capture;

/* A loop whose body is being lowered. */
struct Frame {
    Frame *outer;
    Block *body;
    Value *iteration; /* i32[] */
    Label label;      /* of what is stacked */
    int64_t trip;
    int depth;
    VEC(Capture) xs, captured; /* outer: in the enclosing block */
    VEC(Slot *) slots;         /* sliced in this body */
};

/* The value as seen from a frame's body (NULL: the function's block): an invariant of the loops in between. */
Value *frame_import(Lower *lo, Frame *f, Value *v);
/* The slice of a stacked value, of the enclosing block, in this iteration. */
Value *frame_slice(Lower *lo, Frame *f, Value *stacked);

/* ---- paths, parameters, states, metrics (scope.c) ---------------------------------------------------------------- */

/* A path. In the body of a rolled loop its braces stand for lo + i * step. */
struct Scope {
    Scope *outer;
    const char *path, *pattern; /* pattern: with {} for a loop variable also where the loop is unrolled */
    Frame *frame;               /* whose iteration {} is; NULL: none */
    int64_t lo, step;
    bool frozen;                /* of a frozen import */
    VEC(const Decl *) defaults; /* functions called here without `in` */
};

/* A variable as one function of the module sees it. */
struct Slot {
    Var *var;
    const Ast *decl;
    Frame *frame; /* stacked: the loop that slices it now, NULL: none */
    Value *whole; /* in the function's block: read, or the next value */
    Value *slice; /* stacked: in frame's body */
    bool frozen;  /* no gradient, whatever `train` says */
    bool dirty;   /* state: `whole` was written */
    bool sliced;  /* state: `slice` was written */
};

typedef struct Metric {
    const char *name;
    Value *value;
} Metric;

/* Opens `name` ("block.{l}"; "": nothing is added) below the current scope. Closed by restoring lo->scope. */
bool scope_open(Lower *lo, const char *name, Loc loc);
/* The scope of a file imported under a name of its own: below no other but that of its importer. */
bool scope_enter_unit(Lower *lo, const Unit *u, Loc loc);
/* The variable that `node` (param, state) declares here: its value is bound to the name. */
void scope_declare(Lower *lo, const Ast *node);
/* A top-level param or state, on first use. */
Val scope_global(Lower *lo, Decl *d);
Slot *scope_global_state(Lower *lo, Decl *d); /* NULL after an error */
Val slot_value(Lower *lo, Slot *s);
void slot_assign(Lower *lo, Slot *s, Val v, Loc loc);
void scope_metric(Lower *lo, const Ast *node);
/* The path of `name` in the current scope. */
const char *scope_path(Lower *lo, const char *name);
/* Two variables may not hold the same tensor of a file. */
bool scope_check(Lower *lo);
/* Whether parameters are made under a call of it. */
bool fn_owns(Lower *lo, Decl *fn);

/* ---- types (type.c) ---------------------------------------------------------------------------------------------- */

/* A type of the source, evaluated. */
typedef struct TypeSpec {
    bool has_dtype, bare, pack; /* pack: has `...`, whose axes are `rest` at position `pack_at` */
    DType dtype;
    int pack_at;
    bool pinned; /* any dim is */
    Type type;   /* the named axes */
} TypeSpec;

/* What `...` stands for in the current function: those axes of its arguments that none of its dims names, of `among`
 * (NULL: of all), in that order. NULL when it has no meaning. */
const LabelList *type_pack(Lower *lo, const LabelList *among);
/* `pack`: what `...` stands for, further than the axes named; NULL: it may not be used. False after an error. */
bool type_eval(Lower *lo, const Ast *node, const LabelList *pack, TypeSpec *out);
/* Matches an argument with its declared type: binds generics, `?` and `...`. The adapted value. */
Val type_bind(Lower *lo, const Ast *fn, const Ast *arg, Val v, Loc loc);
/* Checks a result against its declared type, adapts and annotates it. */
Val type_result(Lower *lo, const Ast *fn, int i, Val v, Loc loc);
/* Adds the axes of `each` that a tensor with the axes `all` has (NULL: each of them), in front. False after an error.
 */
bool type_each(Lower *lo, const LabelList *all, TypeSpec *out, Loc loc);
/* Whether the label is an axis of `each` around the current call. */
bool type_is_each(const Lower *lo, Label label);
/* x with the pins of `t`; x itself when there are none. */
Value *type_annotate(Lower *lo, Value *x, const Type *t);
Value *type_permute(Lower *lo, Value *x, const LabelList *order);
bool where_eval(Lower *lo, const Ast *where, int64_t size, AxisList *axes, Loc loc);

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

Val expr_eval(Lower *lo, const Ast *e);
/* The label that an expression names; NULL after an error. */
const Poly *expr_label(Lower *lo, const Ast *e);
bool expr_labels(Lower *lo, int n, Ast *const *e, LabelList *out);
Val expr_binary(Lower *lo, const char *op, Val x, Val y, Loc loc);
/* -1 after an error or when it differs by iteration (then the loop is lowered again), else 0 or 1. */
int expr_condition(Lower *lo, const Ast *e);
Val index_eval(Lower *lo, const Ast *e);
Val relabel_eval(Lower *lo, const Ast *e);
/* x[L: i] = v: the new x. */
Val index_assign(Lower *lo, const Ast *target, Val x, Val v);

Val call_eval(Lower *lo, const Ast *e);
/* Expands fn with arguments that are already values; `where` for messages. */
typedef struct Actual {
    const char *name; /* NULL: by position */
    Val val;
    Loc loc;
} Actual;
Val call_function(Lower *lo, Decl *fn, int n, const Actual *actual, Loc loc, bool scoped);
/* each A: f(x). The call with A as a further axis of what it declares and returns. */
Val call_each(Lower *lo, const Ast *e);
/* The results of the function that lo->call expands, checked and adapted: one, or a tuple. */
Val call_finish(Lower *lo, Decl *fn);

/* A built-in function. */
typedef struct Builtin {
    const char *name;
    Val (*fn)(Lower *lo, const struct Builtin *b, const Ast *call);
    int min, max; /* positional arguments; max -1: any */
    Op op;        /* of a plain element-wise function */
    const char *doc;
} Builtin;

const Builtin *builtin_find(const char *name);
int builtin_names(const char **out, int cap);
/* A positional argument (arrows included), NULL: none; and a named one. */
const Ast *arg_at(const Ast *call, int i);
const Ast *arg_named(const Ast *call, const char *name);
Val einsum_eval(Lower *lo, const Builtin *b, const Ast *call);
Val reduce_eval(Lower *lo, const Builtin *b, const Ast *call);
Val cumsum_eval(Lower *lo, const Builtin *b, const Ast *call);
Val top_k_eval(Lower *lo, const Builtin *b, const Ast *call);
Val argmax_eval(Lower *lo, const Builtin *b, const Ast *call);
Val one_hot_eval(Lower *lo, const Builtin *b, const Ast *call);
Val concat_eval(Lower *lo, const Builtin *b, const Ast *call);
Val iota_eval(Lower *lo, const Builtin *b, const Ast *call);
Val zeros_eval(Lower *lo, const Builtin *b, const Ast *call);
Val random_eval(Lower *lo, const Builtin *b, const Ast *call);
Val split_eval(Lower *lo, const Builtin *b, const Ast *call);
Val replicate_eval(Lower *lo, const Builtin *b, const Ast *call);
Val shard_eval(Lower *lo, const Builtin *b, const Ast *call);
/* Argument i as a tensor; numbers in their own element type. NULL after an error. */
Value *arg_tensor(Lower *lo, const Ast *call, int i);

typedef enum Flow { FLOW_next, FLOW_return } Flow;
Flow stmt_block(Lower *lo, const Ast *block);
Flow stmt_for(Lower *lo, const Ast *node);
/* Names that a block assigns, nested blocks included. */
typedef VEC(const char *) NameList;
void stmt_assigned(Lower *lo, const Ast *block, NameList *out);
bool stmt_returns(const Ast *block);

/* A source's entry as a function, as a training step with `train`. False after an error. */
bool entry_lower(Lower *lo, Decl *entry, const char *name, const Ast *train);
/* At the sizes that a `generate` lists. */
void generate_lower(Lower *lo, Decl *entry, const Ast *node);
/* After the forward part: gradients, clipping, optimizer. The gradients' norm; NULL after an error. */
Value *train_step(Lower *lo, const Ast *train);
/* What `train` sees: the file, what it imports, and the library's optimizers. */
Unit *source_train_unit(Lower *lo);

/* ---- the state of a lowering ------------------------------------------------------------------------------------- */

/* How many random draws a path has had. */
typedef struct Ordinal {
    const char *path;
    int64_t n;
} Ordinal;
typedef VEC(Ordinal) OrdinalList;

/* The variable of a loop around what is being lowered. */
typedef struct LoopVar {
    struct LoopVar *outer;
    const Scope *scope; /* of the loop */
    Val val;
    int64_t end;
} LoopVar;

/* What is known of a `for` over one range: conditions that differ by iteration (loop.c). Kept for the module, so that
 * all functions cut the loop alike and share its parameters. */
typedef struct Plan {
    const Ast *node;
    int64_t from, n;
    VEC(unsigned char *) conditions; /* by iteration: 0, 1, or 2 where it was not met */
} Plan;

/* A text that is taken by a dim: of the file (size -1: it differs by instance), or of a function at one size. */
typedef struct DimName {
    const char *text;
    const void *decl;
    int64_t size;
} DimName;

struct Lower {
    Arena *a;
    Module *m;
    const FrontOptions *opt;
    Unit *main;
    VEC(Unit *) units;
    VEC(const Poly *) labels; /* of this instance, by text */
    VEC(DimName) names;       /* of the module */
    VEC(Plan *) plans;
    bool restart; /* a loop that another function has is cut finer now: all is lowered again */
    VEC(struct {
        Loc loc;
        const char *text;
    })
    said;       /* errors reported */
    bool muted; /* the last error had been said: its notes are left out */

    /* of the function being lowered */
    Func *func;
    bool training;
    bool serving;   /* an instance of `generate`: nobody reads metrics */
    Loc serving_at; /* where it says so */
    Builder b;
    Frame *frame;
    Call *call;
    Scope *scope;
    LoopVar *loop; /* innermost */
    VEC(Slot *) slots;
    VEC(Metric) metrics;
    OrdinalList ordinals;
    const Var *stack_like; /* an optimizer runs on this parameter: its states are stacked alike */
    const Ast *scoped;     /* the next call is this one's, with its `in "…"` */
    const Poly *each;      /* the next call is mapped over this axis, NULL: it is not */
    int fractions;         /* inside ceil() or floor(): dims may divide with a remainder */
    int instructions, expansions;

    const Varying *split; /* a condition that differs by iteration of a rolled loop, NULL: none */
};

/* Reports an error with the chain of calls, once. */
Val fail(Lower *lo, Loc loc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A note, when the error before it was not suppressed. */
void note(Lower *lo, Loc loc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* ", did you mean 'x'?" or "". */
const char *suggest(Lower *lo, const char *word, int n, const char *const *candidates);

/* A new instruction in the current block, operands imported. NULL after an error. */
Inst *emit(Lower *lo, Op op, int n, Value *const *in, const Attrs *at, Block *body, Loc loc);
Value *emit1(Lower *lo, Op op, Value *x, const Attrs *at, Loc loc);
Value *emit2(Lower *lo, Op op, Value *x, Value *y, const Attrs *at, Loc loc);
Value *emit_const(Lower *lo, DType t, double x, Loc loc);
/* The dim `name` of this declaration and size, as a label. Module dims: by_size false. */
const Poly *dim_symbol(Lower *lo, const char *name, const void *decl, int64_t size, bool by_size, Loc loc);
const Poly *label_poly(Lower *lo, Label text);
Label label_of(Lower *lo, const Poly *p); /* registers it */

#endif
