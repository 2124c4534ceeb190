/* math_test.c: moe_math.h against libm in f64: errors in units of the last place over the whole f32 line (every 4001st
 * number), special values, known answers of Philox, moments of the random numbers. */
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "rt_test.h"

typedef float (*Fn)(float);
typedef double (*Exact)(double);

#define WRAP(name)                   \
    static float f_##name(float x) { \
        return moe_##name(x);        \
    }
WRAP(exp)
WRAP(log)
WRAP(log1p)
WRAP(sqrt)
WRAP(rsqrt)
WRAP(sin)
WRAP(cos)
WRAP(tanh)
WRAP(sigmoid)
WRAP(erf)
WRAP(floor)

static double exact_rsqrt(double x) {
    return 1 / sqrt(x);
}
static double exact_sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static const struct Row {
    const char *name;
    Fn fn;
    Exact exact;
    double bound; /* as moe_math.h says */
    float range;  /* |x| up to */
} rows[] = {
    {"exp", f_exp, exp, 1.1, INFINITY},
    {"log", f_log, log, 0.8, INFINITY},
    {"log1p", f_log1p, log1p, 1.5, INFINITY},
    {"sqrt", f_sqrt, sqrt, 0.5, INFINITY},
    {"rsqrt", f_rsqrt, exact_rsqrt, 1.5, INFINITY},
    {"sin", f_sin, sin, 1.6, 1e5f},
    {"cos", f_cos, cos, 1.6, 1e5f},
    {"tanh", f_tanh, tanh, 1.3, INFINITY},
    {"sigmoid", f_sigmoid, exact_sigmoid, 2.3, INFINITY},
    {"erf", f_erf, erf, 1.0, INFINITY},
    {"floor", f_floor, floor, 0, INFINITY},
};

/* Error in units of the last place of the exact result; 1e9 for a wrong special value. */
static double ulps(float got, double want) {
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : 1e9;
    if (isinf((float)want) || isinf(got))
        return (float)want == got ? 0 : fabs(want) > FLT_MAX && fabsf(got) == FLT_MAX ? 1 : 1e9;
    int e;
    frexp(fmax(fabs(want), FLT_MIN), &e);
    return fabs((double)got - want) / ldexp(1, e - 24);
}

static void test_errors(void **state) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double worst = 0;
        float at = 0;
        for (uint64_t u = 0; u < (uint64_t)1 << 32; u += 4001) {
            float x = moe_float((uint32_t)u);
            if (fabsf(x) > rows[i].range) continue;
            double err = ulps(rows[i].fn(x), rows[i].exact(x));
            if (err > worst) worst = err, at = x;
        }
        if (worst > rows[i].bound)
            fail_msg("%s(%a): %.2f ulp, at most %.2f", rows[i].name, (double)at, worst, rows[i].bound);
    }
}

static const float special[] = {0,       -0.0f, 1,        -1,        2,       -2,       3,          -3,
                                0.5f,    -0.5f, INFINITY, -INFINITY, NAN,     1e30f,    -1e30f,     1e-40f,
                                -1e-40f, 2.5f,  -2.5f,    FLT_MAX,   FLT_MIN, -FLT_MIN, 16777217.0f};
enum { NSPECIAL = sizeof special / sizeof *special };

static void test_special(void **state) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int k = 0; k < NSPECIAL; k++) {
            if (fabsf(special[k]) > rows[i].range) continue;
            float got = rows[i].fn(special[k]);
            double want = rows[i].exact(special[k]);
            if (ulps(got, want) > 2.3 || (want == 0 && !signbit(want) != !signbit(got)))
                fail_msg("%s(%g) is %g, expected %g", rows[i].name, (double)special[k], (double)got, want);
        }
    assert_true(isnan(moe_sin(INFINITY)) && isnan(moe_cos(-INFINITY)) && isnan(moe_sin(NAN)));
    assert_true(fabsf(moe_sin(1e30f)) <= 1);
}

static void test_pow(void **state) {
    for (int i = 0; i < NSPECIAL; i++)
        for (int k = 0; k < NSPECIAL; k++) {
            float got = moe_pow(special[i], special[k]);
            double want = pow(special[i], special[k]);
            if (ulps(got, want) > 0.6)
                fail_msg("pow(%g, %g) is %g, expected %g", (double)special[i], (double)special[k], (double)got, want);
        }
    for (int i = 0; i < 1000000; i++) {
        float a = moe_float(test_random(0x7f800000u)), b = moe_normal(1, 1, (uint64_t)i, 0, 0) * (i & 1 ? 1 : 30);
        double err = ulps(moe_pow(a, b), pow(a, b));
        if (err > 0.6) fail_msg("pow(%a, %a): %.2f ulp", (double)a, (double)b, err);
    }
}

static void test_quotients(void **state) {
    static const int32_t n[] = {0, 1, -1, 2, -2, 3, -3, 7, -7, 100, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 12; i++)
        for (int k = 0; k < 12; k++) {
            int64_t a = n[i], b = n[k];
            int64_t q = b ? (int64_t)floor((double)a / (double)b) : 0;
            assert_int_equal(MOE_DIV(n[i], n[k]), (int32_t)(uint32_t)q);
            assert_int_equal(MOE_MOD(n[i], n[k]), b ? (int32_t)(a - q * b) : 0);
        }
    assert_true(MOE_DIV(1.0f, 4.0f) == 0.25f && isinf(MOE_DIV(1.0f, 0.0f)));
    for (int i = 0; i < 100000; i++) {
        float a = 100 * moe_normal(2, 1, (uint64_t)i, 0, 0), b = moe_normal(2, 2, (uint64_t)i, 0, 0);
        double want = fmod(a, b);
        if (want != 0 && (want < 0) != (b < 0)) want += b;
        if (fabs(MOE_MOD(a, b) - want) > 1e-6 * fabs(b) && fabs(fabs(MOE_MOD(a, b) - want) - fabs(b)) > 1e-6 * fabs(b))
            fail_msg("mod(%a, %a) is %g, expected %g", (double)a, (double)b, (double)MOE_MOD(a, b), want);
        assert_true(MOE_MOD(a, b) == 0 || (MOE_MOD(a, b) < 0) == (b < 0));
    }
    assert_true(MOE_MOD(5.0f, 0.0f) == 0 && MOE_MOD(-1.0f, 3.0f) == 2 && MOE_MOD(1.0f, -3.0f) == -2);
}

/* The reference's known answers: Random123, kat_vectors, philox4x32 10. */
static void test_philox(void **state) {
    static const struct {
        uint32_t key[2], counter[4], out[4];
    } kat[] = {
        {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u}, {~0u, ~0u, ~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0xa4093822, 0x299f31d0},
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        const uint32_t *c = kat[i].counter;
        MoePhilox p = moe_philox(kat[i].key[0], kat[i].key[1], c[0], c[1], c[2], c[3]);
        uint32_t got[4] = {p.x0, p.x1, p.x2, p.x3};
        assert_memory_equal(got, kat[i].out, sizeof got);
    }
}

static void test_random_numbers(void **state) {
    enum { DRAWS = 1000000 };
    double u1 = 0, n1 = 0, n2 = 0, n4 = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double u = moe_uniform(1, 2, i, 3, 4), n = moe_normal(1, 2, i, 3, 4);
        assert_true(u >= 0 && u < 1 && isfinite(n));
        u1 += u, n1 += n, n2 += n * n, n4 += n * n * n * n;
        if (i < 1000) { /* by its definition */
            MoePhilox p = moe_philox(1, 2, (uint32_t)i, 0, 3, 4);
            double want =
                sqrt(-2 * log(((p.x0 >> 8) + 1) * 0x1p-24)) * cos(2 * 3.14159265358979323846 * ((p.x1 >> 8) * 0x1p-24));
            assert_true(fabs(n - want) < 1e-6);
            assert_true(u == (p.x0 >> 8) * 0x1p-24);
        }
    }
    assert_true(fabs(u1 / DRAWS - 0.5) < 0.002 && fabs(n1 / DRAWS) < 0.005);
    assert_true(fabs(n2 / DRAWS - 1) < 0.01 && fabs(n4 / DRAWS - 3) < 0.05);
    assert_true(moe_uniform(1, 2, (uint64_t)1 << 32, 3, 4) != moe_uniform(1, 2, 0, 3, 4));
}

/* Every f16 and bf16 there and back, and ties in between. */
static void test_halves(void **state) {
    for (uint32_t h = 0; h < 65536; h++) {
        float x = moe_from_f16((uint16_t)h), y = moe_from_bf16((uint16_t)h);
        assert_true(isnan(x) ? isnan(moe_from_f16(moe_to_f16(x))) : moe_to_f16(x) == h);
        assert_true(isnan(y) ? isnan(moe_from_bf16(moe_to_bf16(y))) : moe_to_bf16(y) == h);
        if (h >= 0x7bff || h == 0) continue; /* halfway to the next: the even one */
        float half = 0.5f * (x + moe_from_f16((uint16_t)(h + 1)));
        assert_int_equal(moe_to_f16(half), h + (h & 1));
        assert_int_equal(moe_to_f16(nextafterf(half, INFINITY)), h + 1);
        assert_int_equal(moe_to_f16(nextafterf(half, 0)), h);
    }
    assert_int_equal(moe_to_f16(65519.996f), 0x7bff);
    assert_int_equal(moe_to_f16(65520.0f), 0x7c00);
    assert_int_equal(moe_to_bf16(1.00390625f), 0x3f80);
    assert_int_equal(moe_to_bf16(1.01171875f), 0x3f82);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_special), cmocka_unit_test(test_pow),
        cmocka_unit_test(test_quotients), cmocka_unit_test(test_philox),  cmocka_unit_test(test_random_numbers),
        cmocka_unit_test(test_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
