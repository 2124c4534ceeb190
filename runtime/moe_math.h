/* moe_math.h: element functions in f32, and random numbers by global index.
 *
 * Every function is straight-line code on f32 and 32-bit integers (pow: f64), selects instead of branches, and calls
 * nothing, so that a plain loop around it (pow excepted) vectorizes under `-O3 -march=native -fno-math-errno
 * -fno-trapping-math`: without the first, sqrt keeps a call for negative numbers; without the second, gcc turns two
 * selects on one condition into a branch. Neither changes a value. The same text is CUDA. Special values follow C's
 * libm. The error bounds are measured over the f32 line by tests/runtime/math_test.c, in units of the last place
 * (subnormal results: of the smallest normal number's):
 *   exp 1.1  log 0.8  log1p 1.5  sqrt 0.5  rsqrt 1.5  sin, cos 1.6 (|a| <= 10^5)  tanh 1.3  sigmoid 2.3  erf 1  pow 0.6
 *
 * Method: argument reduction by exact steps (Cody & Waite), then a minimax polynomial; multiply-adds are written as
 * MOE_FMA, so a result depends neither on -ffp-contract nor on what the compiler inlines it into.
 *
 * Random: Philox4x32-10 (Salmon et al., SC'11), keyed by (seed, site), counted by (index, step, loop). */
#ifndef MOE_MATH_H
#define MOE_MATH_H

#include <stdint.h>

#ifdef __CUDACC__
#define MOE_FN static __host__ __device__ __forceinline__
#else
#define MOE_FN static inline __attribute__((always_inline, unused))
#endif

/* One rounding. Without the instruction, f64 holds the product exactly. */
#if defined(__FMA__) || defined(__CUDACC__) || defined(__aarch64__)
#define MOE_FMA(a, b, c) __builtin_fmaf(a, b, c)
#else
#define MOE_FMA(a, b, c) ((float)((double)(a) * (double)(b) + (double)(c)))
#endif

/* ---- bits --------------------------------------------------------------------------------------------------- */

MOE_FN uint32_t moe_bits(float x) {
    union {
        float f;
        uint32_t u;
    } v;
    v.f = x;
    return v.u;
}

MOE_FN float moe_float(uint32_t u) {
    union {
        uint32_t u;
        float f;
    } v;
    v.u = u;
    return v.f;
}

MOE_FN float moe_abs(float x) {
    return moe_float(moe_bits(x) & 0x7fffffffu);
}
MOE_FN float moe_copysign(float x, float sign) {
    return moe_float((moe_bits(x) & 0x7fffffffu) | (moe_bits(sign) & 0x80000000u));
}

#define MOE_INF moe_float(0x7f800000u)
#define MOE_NAN moe_float(0x7fc00000u)
/* Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the significand. */
#define MOE_ROUND 12582912.0f

/* bf16 and f16 live in memory only. Rounding to nearest, ties to even; NaN stays NaN. */
MOE_FN float moe_from_bf16(uint16_t h) {
    return moe_float((uint32_t)h << 16);
}
MOE_FN uint16_t moe_to_bf16(float x) {
    uint32_t u = moe_bits(x);
    uint32_t r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (uint16_t)(x == x ? r : (u >> 16 | 0x40u));
}

/* 2^112 moves f16's exponent range to f32's, subnormals included. */
MOE_FN float moe_from_f16(uint16_t h) {
    uint32_t bits = ((uint32_t)h & 0x7fffu) << 13;
    float x = moe_float(bits) * 5.192296858534827628530496329220e33f;
    uint32_t u = bits >= 0x0f800000u ? bits | 0x7f800000u : moe_bits(x);
    return moe_float(u | ((uint32_t)h & 0x8000u) << 16);
}
/* The addition of 2^(e+13) rounds at f16's last place; results below 2^-14 round at the fixed place 2^-24. */
MOE_FN uint16_t moe_to_f16(float x) {
    uint32_t u = moe_bits(x) & 0x7fffffffu, sign = moe_bits(x) >> 16 & 0x8000u;
    uint32_t normal = (u + 0xfffu + (u >> 13 & 1u) - 0x38000000u) >> 13;
    uint32_t small = moe_bits(moe_float(u) + 0.5f) - 0x3f000000u;
    uint32_t h = u < 0x38800000u ? small : normal;
    h = u >= 0x477ff000u ? 0x7c00u : h;
    h = u > 0x7f800000u ? 0x7e00u : h;
    return (uint16_t)(h | sign);
}

/* ---- roots -------------------------------------------------------------------------------------------------- */

MOE_FN float moe_sqrt(float x) {
    return __builtin_sqrtf(x);
}
MOE_FN float moe_rsqrt(float x) {
    return 1.0f / __builtin_sqrtf(x);
}
MOE_FN float moe_floor(float x) {
    return __builtin_floorf(x);
}

/* ---- exponential and logarithm ------------------------------------------------------------------------------ */

/* e^x = 2^n e^r with |r| <= ln 2 / 2. 2^n is applied in two factors, so results may be subnormal or infinite. */
MOE_FN float moe_exp(float x) {
    float y = x > 89.0f ? 89.0f : x;
    y = y < -104.0f ? -104.0f : y;
    float z = MOE_FMA(y, 1.442695040888963f, MOE_ROUND);
    uint32_t n = moe_bits(z) - moe_bits(MOE_ROUND);
    float t = z - MOE_ROUND;
    float r = MOE_FMA(t, -0.693145751953125f, y);
    r = MOE_FMA(t, -1.428606765330187e-6f, r);
    float p = 1.9841270e-4f;
    p = MOE_FMA(p, r, 1.3888889e-3f);
    p = MOE_FMA(p, r, 8.3333333e-3f);
    p = MOE_FMA(p, r, 4.1666667e-2f);
    p = MOE_FMA(p, r, 1.6666667e-1f);
    p = MOE_FMA(p, r, 0.5f);
    p = MOE_FMA(p, r * r, r) + 1.0f;
    uint32_t half = (uint32_t)((int32_t)n >> 1);
    return p * moe_float((half + 127u) << 23) * moe_float((n - half + 127u) << 23);
}

/* x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m-1)/(m+1). */
MOE_FN float moe_log(float x) {
    float tiny = x < 1.17549435e-38f ? 8388608.0f : 1.0f;
    float bias = x < 1.17549435e-38f ? 23.0f : 0.0f;
    uint32_t u = moe_bits(x * tiny) - 0x3f3504f3u;
    float e = (float)((int32_t)u >> 23) - bias;
    float f = moe_float((u & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float s = f / (2.0f + f), z = s * s;
    float p = MOE_FMA(z, 0.24279078f, 0.28498786f);
    p = MOE_FMA(z, p, 0.40000972f);
    p = MOE_FMA(z, p, 0.66666663f);
    float h = 0.5f * f * f;
    float y = MOE_FMA(s, MOE_FMA(z, p, h), e * 9.0580006e-6f) - h + f;
    y = MOE_FMA(e, 0.69313812f, y);
    y = x == 0.0f ? -MOE_INF : y;
    y = x < 0.0f ? MOE_NAN : y;
    return x < MOE_INF ? y : x; /* infinity and NaN */
}

/* log(u) with u = 1 + x rounded, plus the rounding error of u over u. */
MOE_FN float moe_log1p(float x) {
    float u = 1.0f + x;
    float lost = x > u - 1.0f || x < u - 1.0f ? x - (u - 1.0f) : 0.0f;
    float c = u > 0.0f && u < MOE_INF ? lost / u : 0.0f;
    float y = moe_log(u) + c;
    return x == 0.0f ? x : y;
}

/* a^b = 2^(b log2 a) in f64: one rounding. A negative base takes integer exponents only. */
MOE_FN float moe_pow(float a, float b) {
    float base = moe_abs(a);
    float tiny = base < 1.17549435e-38f ? 8388608.0f : 1.0f;
    double bias = base < 1.17549435e-38f ? 23.0 : 0.0;
    uint32_t u = moe_bits(base * tiny) - 0x3f3504f3u;
    double m = (double)moe_float((u & 0x007fffffu) + 0x3f3504f3u);
    double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 0.22189624;
    p = p * z + 0.26230819; /* 2 log2(e) / (2i+1) */
    p = p * z + 0.32059890;
    p = p * z + 0.41219858307;
    p = p * z + 0.57707801635;
    p = p * z + 0.961796693926;
    p = p * z + 2.885390081777927;
    double log2a = p * s + ((double)((int32_t)u >> 23) - bias);
    double t = (double)b * log2a;
    t = t > 129.0 ? 129.0 : t;
    t = t < -151.0 ? -151.0 : t;
    float r = MOE_ROUND + (float)t;
    uint32_t n = moe_bits(r) - moe_bits(MOE_ROUND);
    double f = t - (double)(r - MOE_ROUND);
    double q = 1.5252734e-5;
    q = q * f + 1.540353e-4;
    q = q * f + 1.33335581e-3;
    q = q * f + 9.618129108e-3;
    q = q * f + 5.5504108665e-2;
    q = q * f + 2.402265069591e-1;
    q = q * f + 6.93147180559945e-1;
    q = q * f + 1.0;
    uint32_t half = (uint32_t)((int32_t)n >> 1);
    double scale = (double)moe_float((half + 127u) << 23) * (double)moe_float((n - half + 127u) << 23);
    float y = (float)(q * scale);

    float whole = __builtin_floorf(b), half_b = 0.5f * b;
    float odd = whole == b && __builtin_floorf(half_b) != half_b ? 1.0f : 0.0f;
    float grows = (base > 1.0f) == (b > 0.0f) ? MOE_INF : 0.0f; /* for infinite a or b */
    y = base == 0.0f ? (b < 0.0f ? MOE_INF : 0.0f) : y;
    y = base == MOE_INF || moe_abs(b) == MOE_INF ? grows : y;
    y = base == 1.0f && moe_abs(b) == MOE_INF ? 1.0f : y;
    y = moe_bits(a) >> 31 && odd > 0.0f ? -y : y;
    y = a < 0.0f && base < MOE_INF && whole != b ? MOE_NAN : y;
    y = a != a || b != b ? MOE_NAN : y;
    return b == 0.0f || a == 1.0f ? 1.0f : y;
}

/* ---- trigonometry ------------------------------------------------------------------------------------------- */

/* sin of r + quarter * pi / 2 for |r| <= pi / 4. */
MOE_FN float moe_sin_part(float r, uint32_t quarter) {
    float z = r * r;
    float s = MOE_FMA(z, 2.7181216e-6f, -1.9839092e-4f);
    s = MOE_FMA(z, s, 8.3333291e-3f);
    s = MOE_FMA(z, s, -1.6666667e-1f);
    s = MOE_FMA(z * r, s, r);
    float c = MOE_FMA(z, 2.4390448e-5f, -1.3886763e-3f);
    c = MOE_FMA(z, c, 4.1666623e-2f);
    c = MOE_FMA(z * z, c, MOE_FMA(z, -0.5f, 1.0f));
    float y = quarter & 1u ? c : s;
    return quarter & 2u ? -y : y;
}

/* r = x - n pi / 2 in three exact steps; beyond 4e6 the quarter is no longer exact and the result only bounded. */
MOE_FN float moe_sin_from(float x, uint32_t quarter) {
    float z = MOE_FMA(x, 0.636619772f, MOE_ROUND);
    float n = z - MOE_ROUND;
    float r = MOE_FMA(n, -1.57079637f, x);
    r = MOE_FMA(n, 4.37113883e-8f, r);
    r = MOE_FMA(n, 1.71512489e-15f, r);
    r = r > 1.0f ? 1.0f : r;
    r = r < -1.0f ? -1.0f : r;
    return moe_sin_part(r, (moe_bits(z) + quarter) & 3u);
}

MOE_FN float moe_sin(float x) {
    return x == 0.0f ? x : moe_sin_from(x, 0);
}
MOE_FN float moe_cos(float x) {
    return moe_sin_from(x, 1);
}

/* cos(2 pi u), 0 <= u < 1: the reduction is exact. */
MOE_FN float moe_cos_turn(float u) {
    float z = u * 4.0f + MOE_ROUND;
    float r = MOE_FMA(z - MOE_ROUND, -0.25f, u) * 6.28318531f;
    return moe_sin_part(r, (moe_bits(z) + 1u) & 3u);
}

/* ---- activations -------------------------------------------------------------------------------------------- */

MOE_FN float moe_tanh(float x) {
    float a = moe_abs(x), z = x * x;
    float p = -5.70498872745e-3f;
    p = MOE_FMA(p, z, 2.06390887954e-2f);
    p = MOE_FMA(p, z, -5.37397155531e-2f);
    p = MOE_FMA(p, z, 1.33314422036e-1f);
    p = MOE_FMA(p, z, -3.33332819422e-1f);
    float small = MOE_FMA(p * z, a, a), large = 1.0f - 2.0f / (moe_exp(2.0f * a) + 1.0f);
    return moe_copysign(a < 0.625f ? small : large, x);
}

/* By e^-|x|: no overflow, and a negative x keeps its relative accuracy. */
MOE_FN float moe_sigmoid(float x) {
    float e = moe_exp(-moe_abs(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

/* Odd polynomial below 0.93, else 1 - exp(polynomial): the logarithm of erfc is smooth. */
MOE_FN float moe_erf(float x) {
    float a = moe_abs(x), s = x * x;
    float p = MOE_FMA(-5.96761703e-4f, s, 4.99119423e-3f);
    p = MOE_FMA(p, s, -2.67681349e-2f);
    p = MOE_FMA(p, s, 1.12819925e-1f);
    p = MOE_FMA(p, s, -3.76125336e-1f);
    p = MOE_FMA(p, s, 1.28379166e-1f);
    float small = MOE_FMA(p, x, x);
    float b = a > 4.0f ? 4.0f : a;
    float q = MOE_FMA(-1.72853470e-5f, b, 3.83197126e-4f);
    q = MOE_FMA(q, b, -3.88396438e-3f);
    q = MOE_FMA(q, b, 2.42546219e-2f);
    q = MOE_FMA(q, b, -1.06777877e-1f);
    q = MOE_FMA(q, b, -6.34846687e-1f);
    q = MOE_FMA(q, b, -1.28717512e-1f);
    q = MOE_FMA(q, b, -b);
    float large = moe_copysign(1.0f - moe_exp(q), x);
    return a < 0.927734375f ? small : (x == x ? large : x);
}

/* ---- quotients: i32 floors, wraps, and by 0 gives 0; f32 is IEEE, its remainder has the sign of b ----------- */

MOE_FN float moe_div_f(float a, float b) {
    return a / b;
}
MOE_FN int32_t moe_div_i(int32_t a, int32_t b) {
    int64_t d = b == 0 ? 1 : b, q = a / d, r = a % d;
    q -= r != 0 && (r < 0) != (d < 0);
    return b == 0 ? 0 : (int32_t)(uint32_t)q;
}
MOE_FN int32_t moe_mod_i(int32_t a, int32_t b) {
    int64_t d = b == 0 ? 1 : b, r = a % d;
    r += r != 0 && (r < 0) != (d < 0) ? d : 0;
    return b == 0 ? 0 : (int32_t)r;
}
/* The rounded quotient may be one off: one correction to either side. */
MOE_FN float moe_mod_f(float a, float b) {
    float r = MOE_FMA(-__builtin_floorf(a / b), b, a);
    r = b > 0.0f ? (r < 0.0f ? r + b : (r >= b ? r - b : r)) : (r > 0.0f ? r + b : (r <= b ? r - b : r));
    return b == 0.0f ? 0.0f : r;
}

#define MOE_EXP(a) moe_exp(a)
#define MOE_LOG(a) moe_log(a)
#define MOE_LOG1P(a) moe_log1p(a)
#define MOE_SQRT(a) moe_sqrt(a)
#define MOE_RSQRT(a) moe_rsqrt(a)
#define MOE_SIN(a) moe_sin(a)
#define MOE_COS(a) moe_cos(a)
#define MOE_TANH(a) moe_tanh(a)
#define MOE_SIGMOID(a) moe_sigmoid(a)
#define MOE_ERF(a) moe_erf(a)
#define MOE_FLOOR(a) moe_floor(a)
#define MOE_POW(a, b) moe_pow(a, b)
#ifdef __cplusplus
MOE_FN float MOE_DIV(float a, float b) {
    return moe_div_f(a, b);
}
MOE_FN int32_t MOE_DIV(int32_t a, int32_t b) {
    return moe_div_i(a, b);
}
MOE_FN float MOE_MOD(float a, float b) {
    return moe_mod_f(a, b);
}
MOE_FN int32_t MOE_MOD(int32_t a, int32_t b) {
    return moe_mod_i(a, b);
}
#else
#define MOE_DIV(a, b) _Generic((a) + (b), float : moe_div_f, default : moe_div_i)(a, b)
#define MOE_MOD(a, b) _Generic((a) + (b), float : moe_mod_f, default : moe_mod_i)(a, b)
#endif

/* ---- random numbers ----------------------------------------------------------------------------------------- */

typedef struct MoePhilox {
    uint32_t x0, x1, x2, x3;
} MoePhilox;

MOE_FN MoePhilox moe_philox(uint32_t k0, uint32_t k1, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
#ifdef __clang__
#pragma unroll
#else
#pragma GCC unroll 10
#endif
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)c0 * 0xD2511F53u, q = (uint64_t)c2 * 0xCD9E8D57u;
        uint32_t n0 = (uint32_t)(q >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)q;
        c3 = (uint32_t)p;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    MoePhilox r = {c0, c1, c2, c3};
    return r;
}

/* Element `index` (global, linear) of draw `site`: uniform in [0, 1), or normal with mean 0 and deviation 1. */
MOE_FN float moe_uniform(uint32_t seed, uint32_t site, uint64_t index, uint32_t step, uint32_t loop) {
    MoePhilox p = moe_philox(seed, site, (uint32_t)index, (uint32_t)(index >> 32), step, loop);
    return (float)(int32_t)(p.x0 >> 8) * 0x1p-24f;
}

MOE_FN float moe_normal(uint32_t seed, uint32_t site, uint64_t index, uint32_t step, uint32_t loop) {
    MoePhilox p = moe_philox(seed, site, (uint32_t)index, (uint32_t)(index >> 32), step, loop);
    float u1 = (float)(int32_t)((p.x0 >> 8) + 1u) * 0x1p-24f, u2 = (float)(int32_t)(p.x1 >> 8) * 0x1p-24f;
    return moe_sqrt(-2.0f * moe_log(u1)) * moe_cos_turn(u2);
}

#endif
