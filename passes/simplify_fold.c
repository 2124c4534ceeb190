/* simplify_fold.c: element-wise ops on constants.
 *
 * A program must not depend on what the compiler evaluates, so only what has one right answer is folded: sums, products
 * and comparisons, integers that wrap, logic; exp and its like are left to the target's own functions. A constant is a
 * double that is rounded to its element type where it is used, so one operation on floats has the bits of the float
 * operation (Figueroa 1995), and a chain of them is closer to the real numbers. What f32 and f64 disagree on, such as a
 * comparison of numbers that only f64 can tell apart, is left to run time, and so is what is not finite.
 * Cost: constant. */
#include <math.h>

#include "simplify.h"

static double wrap(int64_t x) {
    return (double)(int32_t)(uint32_t)(uint64_t)x;
}

static int64_t floor_div(int64_t a, int64_t b) {
    if (b == 0) return 0;
    int64_t q = a / b;
    return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;
}

/* FOLD(op, on floats, on integers); x, y, z are the operands, i and j the first two as integers. */
#define FOLDS(FOLD)                                                      \
    FOLD(add, x + y, wrap(i + j))                                        \
    FOLD(sub, x - y, wrap(i - j))                                        \
    FOLD(mul, x *y, wrap(i *j))                                          \
    FOLD(div, x / y, wrap(floor_div(i, j)))                              \
    FOLD(mod, NAN, wrap(j == 0 ? 0 : i - j * floor_div(i, j)))           \
    FOLD(maximum, x > y ? x : y, x > y ? x : y)                          \
    FOLD(minimum, x < y ? x : y, x < y ? x : y)                          \
    FOLD(lt, x < y, x < y)                                               \
    FOLD(le, x <= y, x <= y)                                             \
    FOLD(eq, x == y, x == y)                                             \
    FOLD(and, NAN, (double)(i & j))                                      \
    FOLD(or, NAN, (double)(i | j))                                       \
    FOLD(not, NAN, i == 0)                                               \
    FOLD(where, x != 0 ? y : z, x != 0 ? y : z)                          \
    FOLD(neg, -x, wrap(-i))                                              \
    FOLD(abs, x < 0 ? -x : x, wrap(i < 0 ? -i : i))                      \
    FOLD(sign, (double)((x > 0) - (x < 0)), (double)((i > 0) - (i < 0))) \
    FOLD(floor, floor(x), x)                                             \
    FOLD(sqrt, sqrt(x), NAN)

#define UNUSED (void)x, (void)y, (void)z, (void)i, (void)j
#define FOLD(op, real, integer)                                \
    static double real_##op(double x, double y, double z) {    \
        int64_t i = 0, j = 0;                                  \
        UNUSED;                                                \
        return real;                                           \
    }                                                          \
    static double integer_##op(double x, double y, double z) { \
        int64_t i = (int64_t)x, j = (int64_t)y;                \
        UNUSED;                                                \
        return integer;                                        \
    }
FOLDS(FOLD)
#undef FOLD

static const struct {
    double (*real)(double, double, double);
    double (*integer)(double, double, double);
} folds[OP_COUNT] = {
#define FOLD(op, real, integer) [OP_##op] = {real_##op, integer_##op},
    FOLDS(FOLD)
#undef FOLD
};

/* Whether f32 arithmetic gives `x` too, up to its rounding. */
static bool agrees(double x, double in_f32) {
    return isfinite(in_f32) && fabs(x - in_f32) <= 1e-6 * fabs(x);
}

/* `t` is the operands' type (of `where`: of its last two). */
bool simplify_fold(Op op, DType t, const double *in, double *result) {
    if (folds[op].real == NULL) return false;
    if (t == DT_i32 || t == DT_bool) {
        *result = folds[op].integer(in[0], in[1], in[2]);
        return isfinite(*result);
    }
    if (t != DT_f32) return false; /* the rounding of shorter floats is the target's */
    *result = folds[op].real(in[0], in[1], in[2]);
    double in_f32 = folds[op].real((double)(float)in[0], (double)(float)in[1], (double)(float)in[2]);
    return isfinite(*result) && agrees(*result, (double)(float)in_f32);
}
