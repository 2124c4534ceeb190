/* sample.c: the next token from a row of logits. The draw is Philox by (seed, position), so a text can be repeated.
 * O(n k) for the top-k threshold, k small; no allocation. */
#include <math.h>

#include "host.h"

enum { SAMPLE_MARK = 0x73616d70 };

static int largest(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Whether i is among the k largest; ties take the lower index. */
static bool among(const float *x, int n, int i, int64_t k) {
    int64_t larger = 0;
    for (int j = 0; j < n && larger < k; j++) larger += x[j] > x[i] || (x[j] == x[i] && j < i);
    return larger < k;
}

int sample_next(const float *logits, int n, double temperature, int64_t top_k, uint32_t seed, int64_t position) {
    int best = largest(logits, n);
    if (temperature <= 0 || top_k == 1) return best;
    bool cut = top_k > 0 && top_k < n;
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (!cut || among(logits, n, i, top_k)) sum += exp(((double)logits[i] - (double)logits[best]) / temperature);
    double left = sum * (double)moe_uniform(seed, SAMPLE_MARK, (uint64_t)position, 0, 0);
    for (int i = 0; i < n; i++) {
        if (cut && !among(logits, n, i, top_k)) continue;
        left -= exp(((double)logits[i] - (double)logits[best]) / temperature);
        if (left < 0) return i;
    }
    return best;
}
