/* gradients.c: one `grad_<name>` per name in the grad column of ops.def, and the table of them.
 *
 * Element-wise ops here, one line a partial derivative; the others in gradients_index.c and autodiff_loop.c. A name
 * without a function does not compile. Before: `ct` is the cotangent of the result, with its type. After: contributions
 * added to the operands that want one. A result that the formula can reuse (exp, tanh …) is used instead of computed
 * again. */
#include <math.h>

#include "grad.h"
#include "support/diag.h"

/* Short forms: the operands, the result, and arithmetic in the place of the cotangents. All of them build instructions,
 * and C leaves the order of arguments open, so at most one argument of a call may be such a form. */
#define A grad_use(g, inst->in[0])
#define B grad_use(g, inst->in[1])
#define Y grad_use(g, inst->out[0])
#define WANTS(k) grad_wants(g, inst->in[k])
#define ADD(k, x) grad_into(g, inst->in[k], (x))

#define SHORT2(name, op)                              \
    static Value *name(Grad *g, Value *x, Value *y) { \
        return build2(&g->b, OP_##op, x, y, NULL);    \
    }
SHORT2(add, add)
SHORT2(sub, sub)
SHORT2(mul, mul)
SHORT2(quotient, div)
SHORT2(power, pow)
SHORT2(less, lt)
static Value *fun(Grad *g, Op op, Value *x) {
    return build1(&g->b, op, x, NULL);
}
static Value *number(Grad *g, const Value *like, double value) {
    return build_const(&g->b, like->type.dtype, value);
}
static Value *times(Grad *g, double value, Value *x) {
    return mul(g, x, number(g, x, value));
}
static Value *plus(Grad *g, Value *x, double value) {
    return add(g, x, number(g, x, value));
}
static Value *one_minus(Grad *g, Value *x) {
    return sub(g, number(g, x, 1), x);
}
static Value *square(Grad *g, Value *x) {
    return mul(g, x, x);
}
/* x where the condition holds, else 0, and the other way round. */
static Value *when(Grad *g, Value *cond, Value *x) {
    return build3(&g->b, OP_where, cond, x, number(g, x, 0), NULL);
}
static Value *unless(Grad *g, Value *cond, Value *x) {
    return build3(&g->b, OP_where, cond, number(g, x, 0), x, NULL);
}

static void grad_add(Grad *g, Inst *inst, Value *ct) {
    ADD(0, ct);
    ADD(1, ct);
}
static void grad_sub(Grad *g, Inst *inst, Value *ct) {
    ADD(0, ct);
    if (WANTS(1)) ADD(1, fun(g, OP_neg, ct));
}
static void grad_mul(Grad *g, Inst *inst, Value *ct) {
    if (WANTS(0)) ADD(0, mul(g, ct, B));
    if (WANTS(1)) ADD(1, mul(g, ct, A));
}
static void grad_div(Grad *g, Inst *inst, Value *ct) {
    Value *q = quotient(g, ct, B);
    ADD(0, q);
    if (WANTS(1)) ADD(1, fun(g, OP_neg, mul(g, q, Y)));
}
/* a^b: b a^(b-1) by a, where a^0 is constant also at 0; a^b log a by b, taken as 0 where a is not positive. */
static void grad_pow(Grad *g, Inst *inst, Value *ct) {
    Value *a = A;
    if (WANTS(0)) {
        Value *b = B, *constant = build2(&g->b, OP_eq, b, number(g, b, 0), NULL), *one = number(g, b, 1);
        Value *lower = power(g, a, build3(&g->b, OP_where, constant, one, plus(g, b, -1), NULL));
        ADD(0, mul(g, ct, mul(g, b, lower)));
    }
    if (WANTS(1)) {
        Value *positive = less(g, number(g, a, 0), a);
        Value *safe = build3(&g->b, OP_where, positive, a, number(g, a, 1), NULL);
        Value *log_a = fun(g, OP_log, safe);
        ADD(1, when(g, positive, mul(g, ct, mul(g, log_a, Y))));
    }
}
static void grad_maximum(Grad *g, Inst *inst, Value *ct) {
    Value *b = B, *first = less(g, b, A);
    if (WANTS(0)) ADD(0, when(g, first, ct));
    if (WANTS(1)) ADD(1, unless(g, first, ct));
}
static void grad_minimum(Grad *g, Inst *inst, Value *ct) {
    Value *b = B, *first = less(g, A, b);
    if (WANTS(0)) ADD(0, when(g, first, ct));
    if (WANTS(1)) ADD(1, unless(g, first, ct));
}
static void grad_where(Grad *g, Inst *inst, Value *ct) {
    if (WANTS(1)) ADD(1, when(g, A, ct));
    if (WANTS(2)) ADD(2, unless(g, A, ct));
}

static void grad_neg(Grad *g, Inst *inst, Value *ct) {
    ADD(0, fun(g, OP_neg, ct));
}
static void grad_abs(Grad *g, Inst *inst, Value *ct) {
    ADD(0, mul(g, ct, fun(g, OP_sign, A)));
}
static void grad_exp(Grad *g, Inst *inst, Value *ct) {
    ADD(0, mul(g, ct, Y));
}
static void grad_log(Grad *g, Inst *inst, Value *ct) {
    ADD(0, quotient(g, ct, A));
}
static void grad_log1p(Grad *g, Inst *inst, Value *ct) {
    ADD(0, quotient(g, ct, plus(g, A, 1)));
}
/* y = a^(1/2): 1 / (2 y). */
static void grad_sqrt(Grad *g, Inst *inst, Value *ct) {
    ADD(0, quotient(g, ct, times(g, 2, Y)));
}
/* y = a^(-1/2): -y^3 / 2. */
static void grad_rsqrt(Grad *g, Inst *inst, Value *ct) {
    Value *y = Y, *cube = mul(g, y, square(g, y));
    ADD(0, mul(g, ct, times(g, -0.5, cube)));
}
static void grad_sin(Grad *g, Inst *inst, Value *ct) {
    ADD(0, mul(g, ct, fun(g, OP_cos, A)));
}
static void grad_cos(Grad *g, Inst *inst, Value *ct) {
    ADD(0, fun(g, OP_neg, mul(g, ct, fun(g, OP_sin, A))));
}
static void grad_tanh(Grad *g, Inst *inst, Value *ct) {
    ADD(0, mul(g, ct, one_minus(g, square(g, Y))));
}
static void grad_sigmoid(Grad *g, Inst *inst, Value *ct) {
    Value *y = Y;
    ADD(0, mul(g, ct, mul(g, y, one_minus(g, y))));
}
/* 2 / sqrt(pi) exp(-a^2). */
static void grad_erf(Grad *g, Inst *inst, Value *ct) {
    Value *bell = fun(g, OP_exp, fun(g, OP_neg, square(g, A)));
    ADD(0, mul(g, ct, times(g, M_2_SQRTPI, bell)));
}
static void grad_cast(Grad *g, Inst *inst, Value *ct) {
    ADD(0, build_cast(&g->b, ct, inst->in[0]->type.dtype));
}

/* No gradient flows through comparisons, rounding, draws. */
static void grad_zero(Grad *g, Inst *inst, Value *ct) {
    (void)g, (void)inst, (void)ct;
}
static void grad_none(Grad *g, Inst *inst, Value *ct) {
    (void)g, (void)ct;
    diag_bug("%s cannot be differentiated", op_info[inst->op].name);
}

GradFn *const grad_fn[OP_COUNT] = {
#define OP(id, in, attrs, phases, shape, rule, grad, emit, expr, doc) [OP_##id] = grad_##grad,
#include "ops.def"
#undef OP
};

bool grad_flows(Op op) {
    return grad_fn[op] != grad_zero && grad_fn[op] != grad_none;
}
