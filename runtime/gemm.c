/* gemm.c: C[b,m,n] (+)= A[b,m,k] B[b,k,n] in f32, any strides.
 *
 * A product is brought to its simplest form once: axes of size 1 go, a batch axis that one operand lacks becomes rows
 * or columns, neighbouring batch axes merge, and a column-major result is computed as its transpose. Then the team's
 * workers divide the axis that divides best. What is left is prepared at a worker's first call and kept; afterwards
 * nothing is allocated, but by oneDNN's sgemm for packing. In order of preference:
 *   dots, axpys  own loops: one number or one row per matrix and little of it; also all that MOE_REFERENCE_GEMM has
 *   sgemm        oneDNN's BLAS call per matrix: vectors (m or n up to 2), and large ones where it packs better
 *   matmul       a oneDNN matmul primitive for the whole batch, scratchpad in the worker's memory
 *   packed       dense copies of the operands without a unit stride, then one of the above
 * Measured, GFLOP/s on one Zen 4 core (peak 118), sgemm | matmul: [1024,128][128,512] 113 | 112; 32 x [128,32][32,128]
 * 100 | 104; 8 x [256,128][128,128] 113 | 114; 32 x [16,16][16,16] 22 | 71; [1,128][128,512] 54 | 20; [1024,128][128,8]
 * 40 | 57. A transposed: 32 x [128,128][128,32] 107 | 90; 8 x [512,256][256,128] 112 | 92.
 *
 * The same slice gives the same bits on every device and at every call: no back end splits k among threads (every
 * worker tells OpenMP that it is alone). */
#include "gemm.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BATCH = 4, VECTOR = 2, TINY = 512, LANES = 16, PACK_WORK = 1 << 14 };

/* ---- normal form -------------------------------------------------------------------------------------------- */

static void swap64(int64_t *a, int64_t *b) {
    int64_t t = *a;
    *a = *b;
    *b = t;
}

/* C' = B' A'. */
static void gemm_transpose(MoeGemm *g) {
    swap64(&g->m, &g->n);
    swap64(&g->c_m, &g->c_n);
    swap64(&g->a_m, &g->b_n);
    swap64(&g->a_k, &g->b_k);
    for (int i = 0; i < g->nbatch; i++) swap64(&g->a_batch[i], &g->b_batch[i]);
}

static void batch_drop(MoeGemm *g, int i) {
    for (int k = i + 1; k < g->nbatch; k++) {
        g->batch[k - 1] = g->batch[k];
        g->a_batch[k - 1] = g->a_batch[k];
        g->b_batch[k - 1] = g->b_batch[k];
        g->c_batch[k - 1] = g->c_batch[k];
    }
    g->nbatch--;
}

/* Two axes of one array are one axis when the outer stride spans the inner axis. */
static bool spans(int64_t outer, int64_t inner, int64_t count) {
    return outer == inner * count;
}

/* A batch axis that b lacks, and that continues m in a and c (outside or inside of it), is more rows. */
static bool batch_to_rows(MoeGemm *g, int i) {
    if (g->b_batch[i] != 0) return false;
    int64_t count = g->batch[i];
    if (g->m == 1 || (spans(g->a_batch[i], g->a_m, g->m) && spans(g->c_batch[i], g->c_m, g->m))) {
        if (g->m == 1) g->a_m = g->a_batch[i], g->c_m = g->c_batch[i];
    } else if (spans(g->a_m, g->a_batch[i], count) && spans(g->c_m, g->c_batch[i], count)) {
        g->a_m = g->a_batch[i], g->c_m = g->c_batch[i];
    } else {
        return false;
    }
    g->m *= count;
    batch_drop(g, i);
    return true;
}

static bool batch_to_columns(MoeGemm *g, int i) {
    if (g->a_batch[i] != 0) return false;
    gemm_transpose(g);
    bool done = batch_to_rows(g, i);
    gemm_transpose(g);
    return done;
}

static bool batch_merge(MoeGemm *g, int i) {
    int64_t count = g->batch[i + 1];
    if (!spans(g->a_batch[i], g->a_batch[i + 1], count) || !spans(g->b_batch[i], g->b_batch[i + 1], count) ||
        !spans(g->c_batch[i], g->c_batch[i + 1], count))
        return false;
    g->a_batch[i] = g->a_batch[i + 1], g->b_batch[i] = g->b_batch[i + 1], g->c_batch[i] = g->c_batch[i + 1];
    g->batch[i] *= count;
    batch_drop(g, i + 1);
    return true;
}

static bool gemm_simplify_once(MoeGemm *g) {
    for (int i = g->nbatch - 1; i >= 0; i--) {
        if (g->batch[i] == 1) return batch_drop(g, i), true;
        if (batch_to_rows(g, i) || batch_to_columns(g, i)) return true;
        if (i + 1 < g->nbatch && batch_merge(g, i)) return true;
    }
    return false;
}

/* Strides of axes of size 1 are free: give them what a dense array would have. */
static void gemm_normal(GemmSlot *s) {
    MoeGemm *g = &s->g;
    while (gemm_simplify_once(g)) {}
    if (g->c_n != 1 && g->n != 1 && (g->c_m == 1 || g->m == 1)) {
        gemm_transpose(g);
        s->swapped = true;
    }
    if (g->n == 1) g->c_n = 1, g->b_n = g->b_k == 1 ? g->k : 1;
    if (g->m == 1) g->c_m = g->n > 1 ? g->n : 1, g->a_m = g->a_k == 1 ? g->k : 1;
    if (g->n == 1 && g->m > 1 && g->c_m < 1) g->c_m = 1;
    if (g->k == 1) g->a_k = g->a_m == 1 ? g->m : 1, g->b_k = g->b_n == 1 ? g->n : 1;
}

/* ---- division among workers --------------------------------------------------------------------------------- */

static double balance(int64_t n, int64_t grain, int workers) {
    int64_t blocks = (n + grain - 1) / grain, most = (blocks + workers - 1) / workers;
    return (double)blocks / (double)(most * workers);
}

/* Batch first (whole products), then rows, then columns; an axis must divide clearly better to be preferred. */
static void gemm_divide(GemmSlot *s, const MoeWorker *w) {
    MoeGemm *g = &s->g;
    int best = 0;
    double best_balance = 0;
    for (int i = 0; i < g->nbatch; i++) {
        double b = balance(g->batch[i], 1, w->workers);
        if (b > best_balance + 0.05) best = i, best_balance = b;
    }
    double rows = balance(g->m, 8, w->workers), columns = balance(g->n, 32, w->workers);
    if (rows > best_balance + 0.05) best = MAX_BATCH, best_balance = rows;
    if (columns > best_balance + 0.05) best = MAX_BATCH + 1, best_balance = columns;
    int64_t *size = best < MAX_BATCH ? &g->batch[best] : best == MAX_BATCH ? &g->m : &g->n, lo, hi;
    moe_range(w, *size, best < MAX_BATCH ? 1 : best == MAX_BATCH ? 8 : 32, &lo, &hi);
    *size = hi - lo;
    s->at[0] = lo * (best < MAX_BATCH ? g->a_batch[best] : best == MAX_BATCH ? g->a_m : 0);
    s->at[1] = lo * (best < MAX_BATCH ? g->b_batch[best] : best == MAX_BATCH ? 0 : g->b_n);
    s->at[2] = lo * (best < MAX_BATCH ? g->c_batch[best] : best == MAX_BATCH ? g->c_m : g->c_n);
}

/* ---- own loops ---------------------------------------------------------------------------------------------- */

/* Rows of c stay in the cache while k runs outside; the inner loop vectorizes when b_n and c_n are 1. */
static void matrix_axpys(const MoeGemm *g, const float *a, const float *b, float *c) {
    for (int64_t i = 0; i < g->m; i++) {
        float *row = c + i * g->c_m;
        for (int64_t l = 0; l < g->k; l++) {
            float x = a[i * g->a_m + l * g->a_k];
            const float *y = b + l * g->b_k;
            bool first = l == 0 && !g->accumulate;
            if (g->b_n != 1 || g->c_n != 1)
                for (int64_t j = 0; j < g->n; j++) row[j * g->c_n] = (first ? 0 : row[j * g->c_n]) + x * y[j * g->b_n];
            else if (first)
                for (int64_t j = 0; j < g->n; j++) row[j] = x * y[j];
            else
                for (int64_t j = 0; j < g->n; j++) row[j] += x * y[j];
        }
    }
}

/* Lanes are partial sums: the order of additions is fixed, and the loop vectorizes. */
static float dot(const float *x, const float *y, int64_t n) {
    float lane[LANES] = {0}, sum = 0;
    int64_t whole = n / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int k = 0; k < LANES; k++) lane[k] += x[i + k] * y[i + k];
    for (int64_t i = whole; i < n; i++) sum += x[i] * y[i];
    for (int k = 0; k < LANES; k++) sum += lane[k];
    return sum;
}

static void matrix_dots(const MoeGemm *g, const float *a, const float *b, float *c) {
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            float *at = c + i * g->c_m + j * g->c_n, x = dot(a + i * g->a_m, b + j * g->b_n, g->k);
            *at = g->accumulate ? *at + x : x;
        }
}

void gemm_each(const MoeGemm *g, MatrixFn fn, const float *a, const float *b, float *c) {
    int64_t index[MAX_BATCH] = {0}, total = 1;
    for (int i = 0; i < g->nbatch; i++) total *= g->batch[i];
    for (int64_t q = 0; q < total; q++) {
        fn(g, a, b, c);
        for (int i = g->nbatch - 1; i >= 0; i--) {
            a += g->a_batch[i], b += g->b_batch[i], c += g->c_batch[i];
            if (++index[i] < g->batch[i]) break;
            a -= g->batch[i] * g->a_batch[i], b -= g->batch[i] * g->b_batch[i], c -= g->batch[i] * g->c_batch[i];
            index[i] = 0;
        }
    }
}

static void run_nothing(Worker *w, GemmSlot *s, const float *a, const float *b, float *c) {
    (void)w, (void)s, (void)a, (void)b, (void)c;
}
static void run_axpys(Worker *w, GemmSlot *s, const float *a, const float *b, float *c) {
    (void)w;
    gemm_each(&s->g, matrix_axpys, a, b, c);
}
static void run_dots(Worker *w, GemmSlot *s, const float *a, const float *b, float *c) {
    (void)w;
    gemm_each(&s->g, matrix_dots, a, b, c);
}

/* ---- the call ----------------------------------------------------------------------------------------------- */

/* Measured: matmul reads a transposed a, and large matrices of a batch, without packing them well. */
static bool sgemm_packs_better(const MoeGemm *g) {
    bool transposed = g->a_m == 1 && g->a_k != 1;
    return g->b_n == 1 && g->n >= 32 && g->m * g->n * g->k >= (transposed ? 1 << 18 : 1 << 23) &&
           (transposed || g->nbatch > 0);
}

void gemm_choose(Worker *w, GemmSlot *s) {
    const MoeGemm *g = &s->g;
    int64_t matrix = g->m * g->n * g->k, work = gemm_work(g);
    bool sgemm = g->m <= VECTOR || g->n <= VECTOR || sgemm_packs_better(g);
    if (!work) {
        s->run = run_nothing;
    } else if (g->m * g->n == 1 && g->a_k == 1 && g->b_k == 1) {
        s->run = run_dots;
    } else if (matrix <= TINY && g->b_n == 1 && g->c_n == 1) {
        s->run = run_axpys;
    } else if (!(sgemm && gemm_sgemm_prepare(w, s)) && !gemm_matmul_prepare(w, s) && !gemm_sgemm_prepare(w, s)) {
        if (work < PACK_WORK || !gemm_pack_prepare(w, s)) s->run = run_axpys;
    }
}

static void slot_make(Worker *w, GemmSlot *s, const MoeGemm *g) {
    s->g = *g;
    gemm_normal(s);
    gemm_divide(s, &w->pub);
    gemm_choose(w, s);
}

void moe_gemm(MoeWorker *pub, int gemm, const float *a, const float *b, float *c) {
    Worker *w = (Worker *)pub;
    const MoeProgram *p = w->team->program;
    if (!w->gemm) w->gemm = xcalloc((size_t)p->ngemms, sizeof *w->gemm);
    GemmSlot *s = &w->gemm[gemm];
    if (!s->run) slot_make(w, s, &p->gemms[gemm]);
    const float *x = s->swapped ? b : a, *y = s->swapped ? a : b;
    s->run(w, s, x + s->at[0], y + s->at[1], c + s->at[2]);
    moe_barrier(pub);
}

void gemm_slot_free(GemmSlot *s) {
    gemm_matmul_free(s);
    for (int i = 0; i < 3; i++) free(s->copy[i]);
    if (s->dense) gemm_slot_free(s->dense);
    free(s->dense);
}

void gemm_free(Worker *w) {
    if (w->gemm)
        for (int i = 0; i < w->team->program->ngemms; i++) gemm_slot_free(&w->gemm[i]);
    gemm_engine_free(w);
    free(w->gemm);
    free(w->scratch);
}
