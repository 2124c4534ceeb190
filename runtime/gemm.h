/* gemm.h: what the files of the matrix product share: gemm.c (normal form, division, the call), gemm_pack.c (layouts
 * that no library takes), gemm_onednn.c (oneDNN, or nothing of it with MOE_REFERENCE_GEMM). */
#ifndef MOE_RUNTIME_GEMM_H
#define MOE_RUNTIME_GEMM_H

#include "rt.h"

typedef void (*GemmFn)(Worker *w, GemmSlot *s, const float *a, const float *b, float *c);
typedef void (*MatrixFn)(const MoeGemm *g, const float *a, const float *b, float *c);

/* One product of one worker, prepared at its first call. */
struct GemmSlot {
    GemmFn run;      /* NULL before */
    MoeGemm g;       /* normal form of the worker's slice */
    int64_t at[3];   /* where it starts in a, b, c */
    bool swapped;    /* computes the transpose: a and b change places */
    void *primitive; /* dnnl_primitive_t */
    void *memory[4]; /* dnnl_memory_t of a, b, c, scratch */
    size_t scratch;  /* bytes */
    GemmSlot *dense; /* packed: the product of the copies, */
    float *copy[3];  /* NULL: that operand is used where it is */
};

/* Multiplies and adds of a slice. */
static inline int64_t gemm_work(const MoeGemm *g) {
    int64_t n = g->m * g->n * g->k;
    for (int i = 0; i < g->nbatch; i++) n *= g->batch[i];
    return n;
}

/* fn for each matrix of the batch. */
void gemm_each(const MoeGemm *g, MatrixFn fn, const float *a, const float *b, float *c);

/* Sets s->run to the fastest way for s->g. */
void gemm_choose(Worker *w, GemmSlot *s);
void gemm_slot_free(GemmSlot *s);

/* gemm_pack.c: whether a strided operand is as BLAS wants it, and the product by dense copies of those that are not. */
bool gemm_plain(const MoeGemm *g, int operand);
bool gemm_pack_prepare(Worker *w, GemmSlot *s);

/* gemm_onednn.c: each sets s->run, or says false. */
bool gemm_matmul_prepare(Worker *w, GemmSlot *s);
bool gemm_sgemm_prepare(Worker *w, GemmSlot *s);
void gemm_matmul_free(GemmSlot *s);
void gemm_engine_free(Worker *w);

#endif
