/* builtin.c: the built-in functions as a table, and the element-wise ones.
 *
 * A row names the function, the C function that evaluates a call, how many arguments may stand without a name, and
 * what to tell a person. Element-wise functions of numbers are computed here. */
#include <math.h>
#include <string.h>

#include "lower.h"
#include "support/intern.h"

const Ast *arg_at(const Ast *call, int i) {
    for (int k = 0; k < call->n; k++)
        if (call->at[k]->kind != AST_named && i-- == 0) return call->at[k];
    return NULL;
}

const Ast *arg_named(const Ast *call, const char *name) {
    for (int k = 0; k < call->n; k++) {
        const Ast *e = call->at[k];
        if (e->kind == AST_named && e->name != NULL && e->n == 1 && strcmp(e->name, name) == 0) return e->at[0];
    }
    return NULL;
}

Value *arg_tensor(Lower *lo, const Ast *call, int i) {
    const Ast *e = arg_at(call, i);
    Val v = expr_eval(lo, e);
    if (val_is_error(v)) return NULL;
    if (v.kind == VAL_tensor || v.kind == VAL_num || v.kind == VAL_bool) return val_to_any(lo, v, e->loc);
    fail(lo, e->loc, "`%s` needs a tensor, found %s", call->name, val_describe(lo, v));
    return NULL;
}

/* ---- element-wise ------------------------------------------------------------------------------------------------ */

static double num_abs(double x) {
    return fabs(x);
}
static double num_sign(double x) {
    return (x > 0) - (x < 0);
}
static double num_rsqrt(double x) {
    return 1 / sqrt(x);
}
static double num_sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static const struct {
    Op op;
    double (*fn)(double);
} number_functions[] = {
    {OP_exp, exp},     {OP_log, log},       {OP_log1p, log1p},     {OP_sqrt, sqrt},
    {OP_sin, sin},     {OP_cos, cos},       {OP_tanh, tanh},       {OP_erf, erf},
    {OP_abs, num_abs}, {OP_sign, num_sign}, {OP_rsqrt, num_rsqrt}, {OP_sigmoid, num_sigmoid},
};

static Val number_function(Lower *lo, Op op, Val x) {
    for (size_t i = 0; i < sizeof number_functions / sizeof *number_functions; i++) {
        if (number_functions[i].op != op) continue;
        double y = number_functions[i].fn(x.num);
        bool whole = x.integer && (op == OP_abs || op == OP_sign) && y <= (double)MAX_DIM;
        return whole ? val_int(lo, (int64_t)y) : val_num(y);
    }
    return val_error();
}

static Val unary_eval(Lower *lo, const Builtin *b, const Ast *call) {
    const Ast *e = arg_at(call, 0);
    Val x = expr_eval(lo, e);
    if (x.kind == VAL_num && x.vec == NULL) return number_function(lo, b->op, x);
    if (val_is_error(x)) return x;
    if (x.kind != VAL_tensor && x.kind != VAL_num)
        return fail(lo, e->loc, "`%s` needs a tensor or a number, found %s", b->name, val_describe(lo, x));
    return val_tensor(emit1(lo, b->op, val_to_any(lo, x, e->loc), NULL, call->loc));
}

/* ceil and floor: of dims, where they round a quotient; and of tensors. */
static Val round_eval(Lower *lo, const Builtin *b, const Ast *call) {
    bool up = b->name[0] == 'c';
    lo->fractions++;
    Val x = expr_eval(lo, arg_at(call, 0));
    lo->fractions--;
    if (x.kind == VAL_num && x.vec == NULL) {
        double y = up ? ceil(x.num) : floor(x.num);
        if (!(fabs(y) <= (double)MAX_DIM)) return fail(lo, call->loc, "%g is too large for an integer", y);
        return x.integer ? x : val_int(lo, (int64_t)y);
    }
    if (val_is_error(x)) return x;
    if (x.kind != VAL_tensor)
        return fail(lo, call->loc, "`%s` needs a tensor or a number, found %s", b->name, val_describe(lo, x));
    Value *t = up ? emit1(lo, OP_neg, x.t, NULL, call->loc) : x.t;
    t = emit1(lo, OP_floor, t, NULL, call->loc);
    return val_tensor(up ? emit1(lo, OP_neg, t, NULL, call->loc) : t);
}

static Val binary_eval(Lower *lo, const Builtin *b, const Ast *call) {
    Val x = expr_eval(lo, arg_at(call, 0)), y = expr_eval(lo, arg_at(call, 1));
    Value *a, *c;
    if (val_is_static(x) && val_is_static(y)) {
        if (b->op == OP_maximum) return x.num > y.num ? x : y;
        if (b->op == OP_minimum) return x.num < y.num ? x : y;
        if (y.num == 0) return fail(lo, call->loc, "division by zero");
        return val_int(lo, (int64_t)floor(x.num / y.num));
    }
    if (!val_unify(lo, b->name, x, y, true, call->loc, &a, &c)) return val_error();
    if (b->op == OP_div && a->type.dtype != DT_i32)
        return fail(lo, call->loc, "`floor_div` is of integers; write floor(a / b)");
    return val_tensor(emit2(lo, b->op, a, c, NULL, call->loc));
}

static Val where_choose(Lower *lo, const Builtin *b, const Ast *call) {
    Val c = expr_eval(lo, arg_at(call, 0)), x = expr_eval(lo, arg_at(call, 1)), y = expr_eval(lo, arg_at(call, 2));
    Value *p, *q;
    if (val_is_error(c)) return c;
    if (c.kind == VAL_bool && c.vec == NULL) return c.num != 0 ? x : y;
    if (c.kind != VAL_tensor || c.t->type.dtype != DT_bool)
        return fail(lo, arg_at(call, 0)->loc, "the condition of `where` must be a bool, found %s", val_describe(lo, c));
    if (!val_unify(lo, b->name, x, y, false, call->loc, &p, &q)) return val_error();
    Value *in[] = {c.t, p, q};
    Inst *inst = emit(lo, OP_where, 3, in, NULL, NULL, call->loc);
    return val_tensor(inst == NULL ? NULL : inst->out[0]);
}

/* A number that is cast stays a number; one that differs by iteration becomes a tensor. */
static Val cast_number(Lower *lo, Val x, DType t, Loc loc) {
    if (x.vec != NULL) return val_tensor(val_to_tensor(lo, x, t, loc));
    if (t == DT_bool) return val_bool(x.num != 0);
    if (t != DT_i32) return val_num(x.num);
    if (!(fabs(x.num) <= INT32_MAX)) return fail(lo, loc, "%g does not fit in an i32", x.num);
    return val_int(lo, (int64_t)x.num);
}

/* cast(x, T), or the name of an element type as a function: f32(x). */
static Val cast_eval(Lower *lo, const Builtin *b, const Ast *call) {
    bool named = strcmp(call->name, b->name) != 0;
    const Ast *e = arg_at(call, 0);
    if (e == NULL || (arg_at(call, 1) == NULL) != named || arg_at(call, 2) != NULL)
        return fail(lo, call->loc, "a cast is written %s", named ? "T(x)" : "cast(x, T)");
    Ast name = {.kind = AST_name, .loc = call->loc, .name = call->name};
    Val t = expr_eval(lo, named ? &name : arg_at(call, 1)), x = expr_eval(lo, e);
    if (val_is_error(t) || val_is_error(x)) return val_error();
    if (t.kind != VAL_dtype)
        return fail(lo, named ? call->loc : arg_at(call, 1)->loc, "expected an element type, found %s",
                    val_describe(lo, t));
    if (x.kind == VAL_num || x.kind == VAL_bool) return cast_number(lo, x, t.dtype, call->loc);
    if (x.kind != VAL_tensor)
        return fail(lo, e->loc, "only tensors and numbers are cast, found %s", val_describe(lo, x));
    if (x.t->type.dtype == t.dtype) return x;
    return val_tensor(emit1(lo, OP_cast, x.t, &(Attrs){.dtype = t.dtype}, call->loc));
}

static Val stop_eval(Lower *lo, const Builtin *b, const Ast *call) {
    return val_tensor(emit1(lo, b->op, arg_tensor(lo, call, 0), NULL, call->loc));
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define UNARY(name, doc) \
    { #name, unary_eval, 1, 1, OP_##name, doc }
static const Builtin builtins[] = {
    UNARY(abs, "absolute value"),
    UNARY(sign, "-1, 0 or 1"),
    UNARY(exp, "e to the x"),
    UNARY(log, "natural logarithm"),
    UNARY(log1p, "log(1 + x)"),
    UNARY(sqrt, "square root"),
    UNARY(rsqrt, "1 / sqrt(x)"),
    UNARY(sin, "sine"),
    UNARY(cos, "cosine"),
    UNARY(tanh, "hyperbolic tangent"),
    UNARY(sigmoid, "1 / (1 + exp(-x))"),
    UNARY(erf, "error function"),
    {"floor", round_eval, 1, 1, OP_floor, "floor(x): rounded down; a quotient of dims inside need not be exact"},
    {"ceil", round_eval, 1, 1, OP_floor, "ceil(x): rounded up; a quotient of dims inside need not be exact"},
    {"maximum", binary_eval, 2, 2, OP_maximum, "maximum(a, b): the larger, element by element"},
    {"minimum", binary_eval, 2, 2, OP_minimum, "minimum(a, b): the smaller, element by element"},
    {"floor_div", binary_eval, 2, 2, OP_div, "floor_div(a, b): quotient of integers, rounded down"},
    {"where", where_choose, 3, 3, OP_where, "where(c, a, b): a where c, else b"},
    {"cast", cast_eval, 2, 2, OP_cast, "cast(x, T): x as element type T"},
    {"stop_gradient", stop_eval, 1, 1, OP_stop_gradient, "stop_gradient(x): x, through which no gradient flows"},
    {"einsum", einsum_eval, 1, -1, OP_einsum,
     "einsum(a, b -> [M, N]): contraction by labels; or einsum(\"MK,KN->MN\", a, b)"},
    {"sum", reduce_eval, 1, -1, OP_reduce, "sum(x, A, B): over axes; sum(x -> [C]): over all others; sum(x): over all"},
    {"mean", reduce_eval, 1, -1, OP_reduce, "mean(x, A, B), mean(x -> [C]), mean(x)"},
    {"max", reduce_eval, 1, -1, OP_reduce, "max(x, A, B): the largest over axes; of two values: maximum(a, b)"},
    {"min", reduce_eval, 1, -1, OP_reduce, "min(x, A, B): the smallest over axes; of two values: minimum(a, b)"},
    {"any", reduce_eval, 1, -1, OP_reduce, "any(x, A): whether one is true"},
    {"all", reduce_eval, 1, -1, OP_reduce, "all(x, A): whether each is true"},
    {"cumsum", cumsum_eval, 2, 2, OP_cumsum, "cumsum(x, L, exclusive: true, reverse: true): prefix sums along L"},
    {"top_k", top_k_eval, 3, 3, OP_top_k, "top_k(x, E, K): the K largest along E, in order, and their indices"},
    {"argmax", argmax_eval, 2, 2, OP_top_k, "argmax(x, E): the index of the largest; the lowest on a tie"},
    {"one_hot", one_hot_eval, 2, 2, OP_one_hot, "one_hot(i, E): a new axis E, true at i"},
    {"concat", concat_eval, 0, 0, OP_pad, "concat(A: x, B: y): x along A, then y along B, as an axis A+B"},
    {"iota", iota_eval, 1, 1, OP_iota, "iota(L): 0, 1, 2, … along an axis L"},
    {"zeros", zeros_eval, 1, 1, OP_const, "zeros(x) like x, or zeros([A, B])"},
    {"uniform", random_eval, 1, 3, OP_random, "uniform(x) like x, or uniform([A, B]): from 0 to 1, or from, to"},
    {"normal", random_eval, 1, 1, OP_random, "normal(x) like x, or normal([A, B]): mean 0, deviation 1"},
    {"split", split_eval, 3, 3, OP_annotate, "split(x, E, axis): x split on E over a mesh axis"},
    {"replicate", replicate_eval, 1, 1, OP_annotate, "replicate(x): x whole on every device"},
    {"shard", shard_eval, 2, 2, OP_annotate, "shard(x, [1, 2, 4]): pieces of each axis, dealt to mesh axes in order"},
};
enum { BUILTINS = sizeof builtins / sizeof *builtins };

const Builtin *builtin_find(const char *name) {
    for (int i = 0; i < BUILTINS; i++)
        if (strcmp(builtins[i].name, name) == 0) return &builtins[i];
    return NULL;
}

int builtin_names(const char **out, int cap) {
    int n = 0;
    for (; n < BUILTINS && n < cap; n++) out[n] = builtins[n].name;
    return n;
}
