/* eval_fold.c: contractions, folds, prefix sums, the largest.
 *
 * Sums run in ascending order of the index, major axis first, and in the f32 mode every product and every partial sum
 * is rounded: the order that a loop nest without blocking has. Integer sums wrap. */
#include <float.h>
#include <math.h>

#include "eval.h"
#include "support/intern.h"

/* ---- einsum -------------------------------------------------------------------------------------------------------
 */

static double product_real(const Call *c, const Walk *w, int64_t i) {
    double p = c->in[0]->at[c->device][w->at[1] + i * w->step[1]];
    for (int k = 1; k < c->inst->nin; k++)
        p = eval_round(c->e, DT_f32, p * c->in[k]->at[c->device][w->at[k + 1] + i * w->step[k + 1]]);
    return p;
}

/* Modulo 2^32. */
static double product_whole(const Call *c, const Walk *w, int64_t i) {
    uint32_t p = 1;
    for (int k = 0; k < c->inst->nin; k++)
        p *= (uint32_t)(int64_t)c->in[k]->at[c->device][w->at[k + 1] + i * w->step[k + 1]];
    return (double)(int32_t)p;
}

void eval_einsum(const Call *c) {
    DType t = c->out[0]->local.dtype;
    Walk w = walk_new(c->e, c->inst->nin + 1);
    walk_space(&w, &c->out[0]->local);
    for (int k = 0; k < c->inst->nin; k++) walk_space(&w, &c->in[k]->local);
    walk_tensor(&w, 0, &c->out[0]->local);
    for (int k = 0; k < c->inst->nin; k++) walk_tensor(&w, k + 1, &c->in[k]->local);
    walk_start(&w);
    do {
        double *out = c->out[0]->at[c->device] + w.at[0];
        for (int64_t i = 0; i < w.row; i++) {
            double p = t == DT_i32 ? product_whole(c, &w, i) : product_real(c, &w, i);
            out[i * w.step[0]] = eval_round(c->e, t, out[i * w.step[0]] + p);
        }
    } while (walk_next(&w));
}

/* ---- reduce -------------------------------------------------------------------------------------------------------
 */

static double fold_sum(double a, double b) {
    return a + b;
}
static double fold_max(double a, double b) {
    return b > a ? b : a;
}
static double fold_min(double a, double b) {
    return b < a ? b : a;
}

/* Where a fold starts: for max and min the extreme finite values. */
static const struct FoldRow {
    const char *kind;
    double (*fold)(double, double);
    double start_real, start_whole;
} folds[] = {
    {"sum", fold_sum, 0, 0},
    {"max", fold_max, -(double)FLT_MAX, INT32_MIN},
    {"min", fold_min, (double)FLT_MAX, INT32_MAX},
    {"any", fold_max, 0, 0},
};

void eval_reduce(const Call *c) {
    const struct FoldRow *f = folds;
    while (c->inst->at.kind != intern(f->kind)) f++;
    const Type *out = &c->out[0]->local;
    int64_t n = type_elements(out);
    double start = out->dtype == DT_i32 ? f->start_whole : out->dtype == DT_bool ? f->fold == fold_min : f->start_real;
    for (int64_t i = 0; i < n; i++) c->out[0]->at[c->device][i] = start;
    Walk w = walk_new(c->e, 2);
    walk_space(&w, &c->in[0]->local);
    walk_tensor(&w, 0, out);
    walk_tensor(&w, 1, &c->in[0]->local);
    walk_start(&w);
    do {
        double *to = c->out[0]->at[c->device] + w.at[0];
        const double *x = c->in[0]->at[c->device] + w.at[1];
        for (int64_t i = 0; i < w.row; i++) {
            double *y = &to[i * w.step[0]];
            *y = eval_round(c->e, out->dtype, f->fold(*y, x[i * w.step[1]]));
        }
    } while (walk_next(&w));
}

/* ---- along one axis -----------------------------------------------------------------------------------------------
 */

/* A tensor as [outer, n, inner] around an axis. */
typedef struct Along {
    int64_t outer, n, inner;
} Along;

static Along along(const Call *c, Label label) {
    const Type *t = &c->in[0]->local;
    int axis = type_find(t, label);
    Along a = {1, t->dim[axis].size, axis_stride(t, axis)};
    a.outer = type_elements(t) / (a.n * a.inner);
    eval_spend(c->e, (double)type_elements(t));
    return a;
}

void eval_cumsum(const Call *c) {
    Along a = along(c, c->inst->at.label);
    DType t = c->out[0]->local.dtype;
    bool back = c->inst->at.reverse;
    for (int64_t o = 0; o < a.outer; o++)
        for (int64_t j = 0; j < a.inner; j++) {
            double sum = 0;
            for (int64_t i = 0; i < a.n; i++) {
                int64_t at = (o * a.n + (back ? a.n - 1 - i : i)) * a.inner + j;
                double next = eval_round(c->e, t, sum + c->in[0]->at[c->device][at]);
                c->out[0]->at[c->device][at] = c->inst->at.exclusive ? sum : next;
                sum = next;
            }
        }
}

/* The order of top_k: larger first, NaN last, then the lower index. */
static bool precedes(const double *x, int64_t stride, int64_t i, int64_t k) {
    double a = x[i * stride], b = x[k * stride];
    if (a > b || (isnan(b) && !isnan(a))) return true;
    if (b > a || (isnan(a) && !isnan(b))) return false;
    return i < k;
}

/* The first of those that come after element `last` (-1: of all). k is at most n, so there is one. */
static int64_t next_largest(const double *x, const Along *a, int64_t last) {
    int64_t best = -1;
    for (int64_t i = 0; i < a->n; i++) {
        if (last >= 0 && !precedes(x, a->inner, last, i)) continue;
        if (best < 0 || precedes(x, a->inner, i, best)) best = i;
    }
    return best;
}

void eval_top_k(const Call *c) {
    Along a = along(c, c->inst->at.label);
    int64_t k = c->inst->at.size;
    eval_spend(c->e, (double)(a.outer * a.inner) * (double)(a.n * k));
    for (int64_t o = 0; o < a.outer; o++)
        for (int64_t j = 0; j < a.inner; j++) {
            const double *x = c->in[0]->at[c->device] + o * a.n * a.inner + j;
            for (int64_t r = 0, last = -1; r < k; r++) {
                int64_t at = next_largest(x, &a, last);
                c->out[0]->at[c->device][(o * k + r) * a.inner + j] = x[at * a.inner];
                c->out[1]->at[c->device][(o * k + r) * a.inner + j] = (double)at;
                last = at;
            }
        }
}

void eval_ordinal(const Call *c) {
    Along a = along(c, c->inst->at.label);
    int64_t kinds = c->inst->at.size;
    for (int64_t o = 0; o < a.outer; o++)
        for (int64_t j = 0; j < a.inner; j++) {
            const double *x = c->in[0]->at[c->device] + o * a.n * a.inner + j;
            double *nth = c->out[0]->at[c->device] + o * a.n * a.inner + j;
            double *count = c->out[1]->at[c->device] + o * kinds * a.inner + j;
            for (int64_t k = 0; k < kinds; k++) count[k * a.inner] = 0;
            for (int64_t i = 0; i < a.n; i++) {
                int64_t k = (int64_t)x[i * a.inner];
                nth[i * a.inner] = k >= 0 && k < kinds ? count[k * a.inner]++ : 0;
            }
        }
}
