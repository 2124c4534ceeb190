/* eval_elem.c: element-wise ops and the sources of values.
 *
 * The `expr` column of ops.def is expanded twice: over double, with the MOE_ macros as libm, and over int64_t, whose
 * results wrap to 32 bits. In the f32 mode an expression is computed in double and rounded once; for + - * / and sqrt
 * that is the IEEE result. Operands broadcast by label; cost is linear in the result. */
#include <math.h>

#include "eval.h"
#include "random.h"
#include "support/intern.h"

/* ---- the expr column ----------------------------------------------------------------------------------------------
 */

static double div_real(double a, double b) {
    return a / b;
}
static int64_t div_whole(int64_t a, int64_t b) {
    if (b == 0) return 0;
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
static double mod_real(double a, double b) {
    double r = fmod(a, b);
    if (b == 0) return 0;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static int64_t mod_whole(int64_t a, int64_t b) {
    return b == 0 ? 0 : a - b * div_whole(a, b);
}

#define MOE_DIV(a, b) _Generic((a) + (b), double : div_real, default : div_whole)(a, b)
#define MOE_MOD(a, b) _Generic((a) + (b), double : mod_real, default : mod_whole)(a, b)
#define MOE_POW(a, b) pow((double)(a), (double)(b))
#define MOE_FLOOR(a) floor((double)(a))
#define MOE_EXP(a) exp((double)(a))
#define MOE_LOG(a) log((double)(a))
#define MOE_LOG1P(a) log1p((double)(a))
#define MOE_SQRT(a) sqrt((double)(a))
#define MOE_RSQRT(a) (1 / sqrt((double)(a)))
#define MOE_SIN(a) sin((double)(a))
#define MOE_COS(a) cos((double)(a))
#define MOE_TANH(a) tanh((double)(a))
#define MOE_SIGMOID(a) (1 / (1 + exp(-(double)(a))))
#define MOE_ERF(a) erf((double)(a))

typedef double RealExpr(double a, double b, double c);
typedef int64_t WholeExpr(int64_t a, int64_t b, int64_t c);

#define UNUSED3 (void)a, (void)b, (void)c
#define FUNCTIONS_elem(id, expr)                                 \
    static double real_##id(double a, double b, double c) {      \
        UNUSED3;                                                 \
        return (double)(expr);                                   \
    }                                                            \
    static int64_t whole_##id(int64_t a, int64_t b, int64_t c) { \
        UNUSED3;                                                 \
        return (int64_t)(expr);                                  \
    }
#define FUNCTIONS_reduce(id, expr)
#define FUNCTIONS_gemm(id, expr)
#define FUNCTIONS_move(id, expr)
#define FUNCTIONS_coll(id, expr)
#define FUNCTIONS_call(id, expr)
#define FUNCTIONS_ctrl(id, expr)
#define FUNCTIONS_none(id, expr)
/* A truth value of a double is what the table means; clang asks for `!= 0`. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wfloat-conversion"
#define OP(id, in, attrs, phases, shape, rule, grad, emit, expr, doc) FUNCTIONS_##emit(id, expr)
#include "ops.def"
#undef OP
#pragma GCC diagnostic pop

static const struct {
    RealExpr *real;
    WholeExpr *whole;
} exprs[OP_COUNT] = {
#define ENTRY_elem(id) [OP_##id] = {real_##id, whole_##id},
#define ENTRY_reduce(id)
#define ENTRY_gemm(id)
#define ENTRY_move(id)
#define ENTRY_coll(id)
#define ENTRY_call(id)
#define ENTRY_ctrl(id)
#define ENTRY_none(id)
#define OP(id, in, attrs, phases, shape, rule, grad, emit, expr, doc) ENTRY_##emit(id)
#include "ops.def"
#undef OP
};

static bool is_whole(DType t) {
    return t == DT_i32 || t == DT_bool;
}

/* One row. Operands that an op does not have read the zero at step 0. */
static void row_real(const Call *c, const Walk *w, double *out, const double *const x[3]) {
    RealExpr *f = exprs[c->inst->op].real;
    DType t = c->out[0]->local.dtype;
    for (int64_t i = 0; i < w->row; i++)
        out[i * w->step[0]] = eval_round(c->e, t, f(x[0][i * w->step[1]], x[1][i * w->step[2]], x[2][i * w->step[3]]));
}

static void row_whole(const Call *c, const Walk *w, double *out, const double *const x[3]) {
    WholeExpr *f = exprs[c->inst->op].whole;
    DType t = c->out[0]->local.dtype;
    for (int64_t i = 0; i < w->row; i++) {
        int64_t y = f((int64_t)x[0][i * w->step[1]], (int64_t)x[1][i * w->step[2]], (int64_t)x[2][i * w->step[3]]);
        out[i * w->step[0]] = t == DT_bool ? y != 0 : (double)(int32_t)(uint32_t)y;
    }
}

static void eval_expr(const Call *c) {
    static const double zero;
    Walk w = walk_new(c->e, 4);
    walk_space(&w, &c->out[0]->local);
    walk_tensor(&w, 0, &c->out[0]->local);
    for (int k = 0; k < c->inst->nin; k++) walk_tensor(&w, k + 1, &c->in[k]->local);
    /* The last operand tells: the first of `where` is bool. */
    bool whole = is_whole(c->in[c->inst->nin - 1]->local.dtype);
    walk_start(&w);
    do {
        const double *x[3];
        for (int k = 0; k < 3; k++) x[k] = k < c->inst->nin ? c->in[k]->at[c->device] + w.at[k + 1] : &zero;
        (whole ? row_whole : row_real)(c, &w, c->out[0]->at[c->device] + w.at[0], x);
    } while (walk_next(&w));
}

/* ---- element-wise, but not by an expression alone -----------------------------------------------------------------
 */

/* f32 to i32 truncates; what does not fit gives the smallest i32, as x86 does. */
static double cast_element(const Eval *e, DType from, DType to, double x) {
    if (to == DT_bool) return x != 0;
    if (to != DT_i32 || is_whole(from)) return eval_round(e, to, x);
    return x > -2147483649.0 && x < 2147483648.0 ? trunc(x) + 0.0 : (double)INT32_MIN;
}

static void eval_cast(const Call *c) {
    int64_t n = type_elements(&c->out[0]->local);
    DType from = c->in[0]->local.dtype, to = c->out[0]->local.dtype;
    eval_spend(c->e, (double)n);
    for (int64_t i = 0; i < n; i++)
        c->out[0]->at[c->device][i] = cast_element(c->e, from, to, c->in[0]->at[c->device][i]);
}

static void eval_const(const Call *c) {
    int64_t n = type_elements(&c->out[0]->local);
    double x = eval_round(c->e, c->inst->at.dtype, c->inst->at.value);
    eval_spend(c->e, (double)n);
    for (int64_t i = 0; i < n; i++) c->out[0]->at[c->device][i] = x;
}

static void eval_iota(const Call *c) {
    const Dim *d = &c->inst->out[0]->type.dim[0];
    int64_t first = block_start(c->e, c->device, d), n = c->out[0]->local.dim[0].size;
    eval_spend(c->e, (double)n);
    for (int64_t i = 0; i < n; i++) c->out[0]->at[c->device][i] = (double)(first + i);
}

static void eval_one_hot(const Call *c) {
    const Type *out = &c->out[0]->local;
    int64_t n = out->dim[out->rank - 1].size, rows = type_elements(out) / n;
    int64_t first = block_start(c->e, c->device, &c->inst->out[0]->type.dim[out->rank - 1]);
    if (rows != type_elements(&c->in[0]->local)) eval_fail(c->e, "the blocks of index and result differ");
    eval_spend(c->e, (double)(rows * n));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++)
            c->out[0]->at[c->device][r * n + i] = c->in[0]->at[c->device][r] == (double)(first + i);
}

/* Counted by the index in the whole tensor. */
static void eval_random(const Call *c) {
    const Type *t = &c->inst->out[0]->type;
    Type whole = type_unsharded(t);
    uint64_t start = 0;
    for (int i = 0; i < t->rank; i++)
        start += (uint64_t)(block_start(c->e, c->device, &t->dim[i]) * axis_stride(&whole, i));
    Draw draw = {(uint32_t)c->e->opt->seed, (uint32_t)c->inst->at.site, (uint32_t)(int64_t)c->in[0]->at[c->device][0],
                 (uint32_t)(int64_t)c->in[1]->at[c->device][0]};
    double (*number)(const Draw *, uint64_t) = c->inst->at.kind == intern("normal") ? random_normal : random_uniform;
    Walk w = walk_new(c->e, 2);
    walk_space(&w, &c->out[0]->local);
    walk_tensor(&w, 0, &c->out[0]->local);
    for (int i = 0; i < t->rank; i++) w.stride[1][i] = axis_stride(&whole, i);
    walk_start(&w);
    do {
        for (int64_t i = 0; i < w.row; i++)
            c->out[0]->at[c->device][w.at[0] + i * w.step[0]] =
                eval_round(c->e, DT_f32, number(&draw, start + (uint64_t)(w.at[1] + i * w.step[1])));
    } while (walk_next(&w));
}

void eval_elem(const Call *c) {
    static EvalOp *const special[OP_COUNT] = {
        [OP_cast] = eval_cast,       [OP_const] = eval_const,   [OP_iota] = eval_iota,
        [OP_one_hot] = eval_one_hot, [OP_random] = eval_random,
    };
    (special[c->inst->op] != NULL ? special[c->inst->op] : eval_expr)(c);
}
