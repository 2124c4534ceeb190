/* gemm.c: C[b,m,n] (+)= A[b,m,k] B[b,k,n] in f32, any strides.
 *
 * A product is brought to its simplest form once: axes of size 1 go, a batch axis that one operand lacks becomes rows
 * or columns, neighbouring batch axes merge, and a column-major result is computed as its transpose. Then the team's
 * workers divide the axis that divides best. What is left runs on one of three back ends, made at a worker's first
 * call and kept; afterwards nothing is allocated:
 *   matmul  a oneDNN matmul primitive, scratchpad in the worker's memory
 *   sgemm   oneDNN's BLAS call per matrix: vectors (m or n of 1 or 2), and layouts that matmul only has a plain loop
 * for loops   our own, for layouts without a unit stride, and with MOE_REFERENCE_GEMM (no oneDNN: ThreadSanitizer)
 * Measured (GFLOP/s on one Zen 4 core, sgemm | matmul): [1024,128][128,512] 113 | 112; 32 x [128,32][32,128] 100 | 104;
 * 8 x [256,128][128,128] 113 | 114; 32 x [16,16][16,16] 22 | 71; [1,128][128,512] 54 | 20; [1024,128][128,8] 40 | 57.
 *
 * The same slice gives the same bits on every device and at every call: neither back end splits k by thread (every
 * worker tells OpenMP that it is alone). */
#include <string.h>

#include "rt.h"

#ifndef MOE_REFERENCE_GEMM
#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#endif
#include <stdlib.h>

enum { MAX_BATCH = 4, VECTOR = 2 };

typedef enum Backend { BACKEND_none, BACKEND_loops, BACKEND_sgemm, BACKEND_matmul } Backend;

struct GemmSlot {
    Backend backend; /* none: this worker has no part */
    bool ready;
    MoeGemm g;       /* normal form of the worker's slice */
    int64_t at[3];   /* where it starts in a, b, c */
    bool swapped;    /* computes the transpose: a and b change places */
    void *primitive; /* dnnl_primitive_t */
    void *memory[4]; /* dnnl_memory_t of a, b, c, scratch */
    size_t scratch;  /* bytes */
};

/* ---- normal form
 * ------------------------------------------------------------------------------------------------------ */

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

/* ---- division among workers
 * ------------------------------------------------------------------------------------------- */

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

/* ---- back ends
 * -------------------------------------------------------------------------------------------------------- */

typedef void (*MatrixFn)(const MoeGemm *g, const float *a, const float *b, float *c);

/* Rows of c stay in the cache while k runs outside; the inner loop vectorizes when b_n and c_n are 1. */
static void matrix_loops(const MoeGemm *g, const float *a, const float *b, float *c) {
    for (int64_t i = 0; i < g->m; i++) {
        float *row = c + i * g->c_m;
        for (int64_t j = 0; j < g->n && !g->accumulate; j++) row[j * g->c_n] = 0;
        for (int64_t l = 0; l < g->k; l++) {
            float x = a[i * g->a_m + l * g->a_k];
            const float *y = b + l * g->b_k;
            if (g->b_n == 1 && g->c_n == 1)
                for (int64_t j = 0; j < g->n; j++) row[j] += x * y[j];
            else
                for (int64_t j = 0; j < g->n; j++) row[j * g->c_n] += x * y[j * g->b_n];
        }
    }
}

static void batch_do(const MoeGemm *g, MatrixFn fn, const float *a, const float *b, float *c) {
    int64_t total = 1;
    for (int i = 0; i < g->nbatch; i++) total *= g->batch[i];
    for (int64_t q = 0; q < total; q++) {
        int64_t left = q, ao = 0, bo = 0, co = 0;
        for (int i = g->nbatch - 1; i >= 0; i--) {
            int64_t at = left % g->batch[i];
            left /= g->batch[i];
            ao += at * g->a_batch[i], bo += at * g->b_batch[i], co += at * g->c_batch[i];
        }
        fn(g, a + ao, b + bo, c + co);
    }
}

#ifdef MOE_REFERENCE_GEMM

static Backend gemm_prepare(Worker *w, GemmSlot *s) {
    (void)w, (void)s, (void)VECTOR;
    return BACKEND_loops;
}
static void gemm_matmul(Worker *w, GemmSlot *s, const float *a, const float *b, float *c) {
    (void)w, (void)s, (void)a, (void)b, (void)c;
}
static void gemm_release(GemmSlot *s) {
    (void)s;
}
static void engine_release(Worker *w) {
    (void)w;
}
static void matrix_sgemm(const MoeGemm *g, const float *a, const float *b, float *c) {
    matrix_loops(g, a, b, c);
}

#else

typedef struct Engine {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
} Engine;

static void matrix_sgemm(const MoeGemm *g, const float *a, const float *b, float *c) {
    bool ta = g->a_k != 1, tb = g->b_n != 1;
    dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', g->m, g->n, g->k, 1, a, ta ? g->a_k : g->a_m, b, tb ? g->b_n : g->b_k,
               g->accumulate ? 1 : 0, c, g->c_m);
}

static bool sgemm_fits(const MoeGemm *g) {
    bool a = g->a_k == 1 ? g->a_m >= g->k : g->a_m == 1 && g->a_k >= g->m;
    bool b = g->b_n == 1 ? g->b_k >= g->n : g->b_k == 1 && g->b_n >= g->k;
    return a && b && g->c_n == 1 && g->c_m >= g->n;
}

/* oneDNN's OpenMP must not fan out inside a worker. It is reached by name: libgomp comes with libdnnl. */
static Engine *engine_of(Worker *w) {
    if (w->gemm_engine) return w->gemm_engine;
    union {
        void *object;
        void (*call)(int);
    } omp = {dlsym(RTLD_DEFAULT, "omp_set_num_threads")};
    if (omp.object) omp.call(1);
    Engine *e = xcalloc(1, sizeof *e);
    w->gemm_engine = e;
    if (dnnl_engine_create(&e->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&e->stream, e->engine, dnnl_stream_default_flags) != dnnl_success)
        worker_fail(w, "oneDNN: cannot create an engine");
    return e;
}

static void engine_release(Worker *w) {
    Engine *e = w->gemm_engine;
    if (!e) return;
    if (e->stream) dnnl_stream_destroy(e->stream);
    if (e->engine) dnnl_engine_destroy(e->engine);
    free(e);
}

/* A matrix with its batch axes; a missing axis (stride 0) has size 1, which oneDNN broadcasts. */
static bool desc_init(dnnl_memory_desc_t *d, const MoeGemm *g, const int64_t *batch, int64_t rows, int64_t cols,
                      int64_t rs, int64_t cs) {
    dnnl_dims_t size, stride;
    int64_t extent = rows * rs > cols * cs ? rows * rs : cols * cs;
    for (int i = g->nbatch - 1; i >= 0; i--) {
        size[i] = batch[i] ? g->batch[i] : 1;
        stride[i] = batch[i] ? batch[i] : extent;
        if (stride[i] * size[i] > extent) extent = stride[i] * size[i];
    }
    size[g->nbatch] = rows, size[g->nbatch + 1] = cols;
    stride[g->nbatch] = rs, stride[g->nbatch + 1] = cs;
    return dnnl_memory_desc_init_by_strides(d, g->nbatch + 2, size, dnnl_f32, stride) == dnnl_success;
}

/* The primitive descriptor, or NULL when oneDNN has none but its reference loop. */
static dnnl_primitive_desc_t matmul_desc(Engine *e, const MoeGemm *g, dnnl_memory_desc_t *md) {
    dnnl_matmul_desc_t op;
    dnnl_primitive_desc_t pd = NULL;
    if (!desc_init(&md[0], g, g->a_batch, g->m, g->k, g->a_m, g->a_k) ||
        !desc_init(&md[1], g, g->b_batch, g->k, g->n, g->b_k, g->b_n) ||
        !desc_init(&md[2], g, g->c_batch, g->m, g->n, g->c_m, g->c_n) ||
        dnnl_matmul_desc_init(&op, &md[0], &md[1], NULL, &md[2]) != dnnl_success)
        return NULL;
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t post;
    dnnl_primitive_attr_create(&attr);
    dnnl_post_ops_create(&post);
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (g->accumulate) dnnl_post_ops_append_sum(post, 1);
    dnnl_primitive_attr_set_post_ops(attr, post);
    dnnl_status_t rc = dnnl_primitive_desc_create(&pd, &op, attr, e->engine, NULL);
    dnnl_post_ops_destroy(post);
    dnnl_primitive_attr_destroy(attr);
    const char *impl = "";
    if (rc != dnnl_success) return NULL;
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &impl);
    if (!strstr(impl, "ref")) return pd;
    dnnl_primitive_desc_destroy(pd);
    return NULL;
}

static bool matmul_prepare(Worker *w, GemmSlot *s) {
    Engine *e = engine_of(w);
    dnnl_memory_desc_t md[3];
    dnnl_primitive_desc_t pd = matmul_desc(e, &s->g, md);
    if (!pd) return false;
    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    s->scratch = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    dnnl_primitive_t primitive;
    bool ok = dnnl_primitive_create(&primitive, pd) == dnnl_success;
    s->primitive = ok ? primitive : NULL;
    for (int i = 0; ok && i < 4; i++) {
        dnnl_memory_t m;
        ok = dnnl_memory_create(&m, i < 3 ? &md[i] : scratch, e->engine, DNNL_MEMORY_NONE) == dnnl_success;
        s->memory[i] = ok ? m : NULL;
    }
    dnnl_primitive_desc_destroy(pd);
    if (!ok) worker_fail(w, "oneDNN: cannot create a matrix product");
    if (s->scratch > w->scratch_bytes) {
        free(w->scratch);
        w->scratch_bytes = (s->scratch + 4095) / 4096 * 4096;
        w->scratch = aligned_alloc(4096, w->scratch_bytes);
        if (!w->scratch) worker_fail(w, "out of memory for scratch of %zu bytes", w->scratch_bytes);
    }
    return true;
}

static Backend gemm_prepare(Worker *w, GemmSlot *s) {
    engine_of(w);
    bool vector = (s->g.m <= VECTOR || s->g.n <= VECTOR) && sgemm_fits(&s->g);
    if (!vector && matmul_prepare(w, s)) return BACKEND_matmul;
    return sgemm_fits(&s->g) ? BACKEND_sgemm : BACKEND_loops;
}

static void gemm_matmul(Worker *w, GemmSlot *s, const float *a, const float *b, float *c) {
    void *at[4] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c, w->scratch};
    const int name[4] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    dnnl_exec_arg_t args[4];
    for (int i = 0; i < 4; i++) {
        dnnl_memory_set_data_handle(s->memory[i], at[i]);
        args[i] = (dnnl_exec_arg_t){name[i], s->memory[i]};
    }
    Engine *e = w->gemm_engine;
    if (dnnl_primitive_execute(s->primitive, e->stream, 4, args) != dnnl_success)
        worker_fail(w, "oneDNN: a matrix product failed");
}

static void gemm_release(GemmSlot *s) {
    if (s->primitive) dnnl_primitive_destroy(s->primitive);
    for (int i = 0; i < 4; i++)
        if (s->memory[i]) dnnl_memory_destroy(s->memory[i]);
}

#endif

/* ---- the call
 * ----------------------------------------------------------------------------------------------------------- */

static void slot_make(Worker *w, GemmSlot *s, const MoeGemm *g) {
    s->g = *g;
    s->ready = true;
    gemm_normal(s);
    gemm_divide(s, &w->pub);
    bool empty = s->g.m == 0 || s->g.n == 0;
    for (int i = 0; i < s->g.nbatch; i++) empty |= s->g.batch[i] == 0;
    s->backend = empty ? BACKEND_none : gemm_prepare(w, s);
}

void moe_gemm(MoeWorker *pub, int gemm, const float *a, const float *b, float *c) {
    Worker *w = (Worker *)pub;
    const MoeProgram *p = w->team->program;
    if (!w->gemm) w->gemm = xcalloc((size_t)p->ngemms, sizeof *w->gemm);
    GemmSlot *s = &w->gemm[gemm];
    if (!s->ready) slot_make(w, s, &p->gemms[gemm]);
    if (s->swapped) {
        const float *t = a;
        a = b;
        b = t;
    }
    a += s->at[0], b += s->at[1], c += s->at[2];
    switch (s->backend) {
        case BACKEND_none:
            break;
        case BACKEND_loops:
            batch_do(&s->g, matrix_loops, a, b, c);
            break;
        case BACKEND_sgemm:
            batch_do(&s->g, matrix_sgemm, a, b, c);
            break;
        case BACKEND_matmul:
            gemm_matmul(w, s, a, b, c);
            break;
    }
    moe_barrier(pub);
}

void gemm_free(Worker *w) {
    if (w->gemm)
        for (int i = 0; i < w->team->program->ngemms; i++) gemm_release(&w->gemm[i]);
    engine_release(w);
    free(w->gemm);
    free(w->scratch);
}
