/* gemm_onednn.c: matrix products by oneDNN 2.6: a matmul primitive for a batch, or its sgemm per matrix.
 *
 * Primitives are made once per slot; oneDNN's cache shares the code of equal ones among workers. The scratchpad is the
 * worker's own memory, as large as its largest product needs. A primitive that oneDNN would run by its reference loop
 * is not accepted. With MOE_REFERENCE_GEMM nothing of oneDNN is used: ThreadSanitizer does not see into it. */
#include "gemm.h"

#include <stdlib.h>
#include <string.h>

#ifdef MOE_REFERENCE_GEMM

bool gemm_matmul_prepare(Worker *w, GemmSlot *s) {
    (void)w, (void)s;
    return false;
}
bool gemm_sgemm_prepare(Worker *w, GemmSlot *s) {
    (void)w, (void)s;
    return false;
}
void gemm_matmul_free(GemmSlot *s) {
    (void)s;
}
void gemm_engine_free(Worker *w) {
    (void)w;
}

#else

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>

typedef struct Engine {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
} Engine;

static void matrix_sgemm(const MoeGemm *g, const float *a, const float *b, float *c) {
    bool ta = g->a_k != 1, tb = g->b_n != 1;
    dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', g->m, g->n, g->k, 1, a, ta ? g->a_k : g->a_m, b, tb ? g->b_n : g->b_k,
               g->accumulate ? 1 : 0, c, g->c_m);
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

void gemm_engine_free(Worker *w) {
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

static void run_matmul(Worker *w, GemmSlot *s, const float *a, const float *b, float *c) {
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

bool gemm_matmul_prepare(Worker *w, GemmSlot *s) {
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
    s->run = run_matmul;
    return true;
}

void gemm_matmul_free(GemmSlot *s) {
    if (s->primitive) dnnl_primitive_destroy(s->primitive);
    for (int i = 0; i < 4; i++)
        if (s->memory[i]) dnnl_memory_destroy(s->memory[i]);
}

static void run_sgemm(Worker *w, GemmSlot *s, const float *a, const float *b, float *c) {
    (void)w;
    gemm_each(&s->g, matrix_sgemm, a, b, c);
}

bool gemm_sgemm_prepare(Worker *w, GemmSlot *s) {
    if (!gemm_plain(&s->g, 0) || !gemm_plain(&s->g, 1) || !gemm_plain(&s->g, 2)) return false;
    engine_of(w); /* tells OpenMP */
    s->run = run_sgemm;
    return true;
}

#endif
