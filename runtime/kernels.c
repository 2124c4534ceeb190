/* kernels.c: routines that emitted code calls (EMIT_call).
 *
 * top_k: the k largest of n along the middle axis of [outer, n, inner], largest first; equal values in index order, NaN
 * last. Insertion into a sorted list of k: n comparisons with the smallest kept, and k moves for each of the expected
 * k ln(n/k) that enter. Workers share the outer * inner lines.
 *
 * ordinal: one pass over each line, with the result's counts as counters. */
#include "rt.h"

enum { LINES = 16 };

static bool before(float a, float b) {
    return a > b || (b != b && a == a);
}

static void line_top_k(int64_t n, int64_t stride, int64_t k, const float *x, float *values, int32_t *indices) {
    for (int64_t i = 0; i < n; i++) {
        float v = x[i * stride];
        int64_t kept = i < k ? i : k;
        if (kept == k && !before(v, values[(k - 1) * stride])) continue;
        int64_t at = kept == k ? k - 1 : kept;
        for (; at > 0 && before(v, values[(at - 1) * stride]); at--) {
            values[at * stride] = values[(at - 1) * stride];
            indices[at * stride] = indices[(at - 1) * stride];
        }
        values[at * stride] = v;
        indices[at * stride] = (int32_t)i;
    }
}

void moe_top_k(MoeWorker *w, int64_t outer, int64_t n, int64_t inner, int64_t k, const float *x, float *values,
               int32_t *indices) {
    int64_t lo, hi;
    moe_range(w, outer * inner, LINES, &lo, &hi);
    for (int64_t line = lo; line < hi; line++) {
        int64_t o = line / inner, i = line % inner;
        line_top_k(n, inner, k, x + o * n * inner + i, values + o * k * inner + i, indices + o * k * inner + i);
    }
    moe_barrier(w);
}

static void line_ordinal(int64_t n, int64_t stride, int64_t kinds, const int32_t *x, int32_t *nth, int32_t *count) {
    for (int64_t k = 0; k < kinds; k++) count[k * stride] = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t k = x[i * stride];
        nth[i * stride] = k >= 0 && k < kinds ? count[k * stride]++ : 0;
    }
}

void moe_ordinal(MoeWorker *w, int64_t outer, int64_t n, int64_t inner, int64_t kinds, const int32_t *x, int32_t *nth,
                 int32_t *count) {
    int64_t lo, hi;
    moe_range(w, outer * inner, 1, &lo, &hi);
    for (int64_t line = lo; line < hi; line++) {
        int64_t o = line / inner, i = line % inner;
        line_ordinal(n, inner, kinds, x + o * n * inner + i, nth + o * n * inner + i, count + o * kinds * inner + i);
    }
    moe_barrier(w);
}
