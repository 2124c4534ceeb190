/* moe_rt.h: the contract between generated programs and the runtime; the only header that generated code includes.
 *
 * A generated file defines one `const MoeProgram moe_program`. libmoert.a has main(): it parses the command line,
 * starts one team of threads per device, places arguments in the devices' arenas, runs a function of the program on all
 * devices, and reads the results.
 *
 * Memory. Each device has one arena. Offsets are equal on all devices. Variables lie at the same offsets in every
 * function; arguments, results and temporaries of a function above them. A tensor is dense, row-major, the device's
 * part only.
 *
 * Compile generated files with -std=c11 -O3 -march=native -fno-math-errno -fno-trapping-math (neither changes a value;
 * moe_math.h says why) and link: libmoert.a -ldnnl -lhwloc -ljansson -lm -pthread.
 *
 * Workers. A device is a team of workers. A generated function is run by every worker of every device; each op takes
 * its slice (moe_range) and ends with moe_barrier. Nothing is allocated while it runs. */
#ifndef MOE_RT_H
#define MOE_RT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "moe_math.h" /* MOE_EXP, …: branch-free f32 functions; moe_uniform, moe_normal: Philox by global index */

enum { MOE_ABI = 1, MOE_MAX_RANK = 10, MOE_MAX_AXES = 8 };

typedef enum MoeDType { MOE_f32, MOE_bf16, MOE_f16, MOE_i32, MOE_bool } MoeDType;

typedef struct MoeAxes {
    int n;
    int at[MOE_MAX_AXES]; /* mesh axes, major first */
} MoeAxes;

/* A tensor: global sizes, how each axis is split, and where a device keeps its part. */
typedef struct MoeTensor {
    const char *name;
    MoeDType dtype;
    int rank;
    int64_t size[MOE_MAX_RANK]; /* global */
    const char *label[MOE_MAX_RANK];
    MoeAxes axes[MOE_MAX_RANK];
    int64_t offset; /* bytes from the start of the arena */
} MoeTensor;

typedef enum MoeInit { MOE_INIT_const, MOE_INIT_normal, MOE_INIT_uniform } MoeInit;

/* A parameter or state. Stacked: axis 0 is the loop's, and slice i is the file tensor `path` with its
 * braces ("{}", "{1:2}") replaced by lo + i * step. */
typedef struct MoeVar {
    MoeTensor t; /* name: path */
    bool state, trained, stacked;
    int64_t lo, step;
    MoeInit init;
    double value;
    const char *from; /* name pattern in a checkpoint, NULL: the path */
} MoeVar;

typedef struct MoeWorker MoeWorker;

typedef struct MoeFunc {
    const char *name;
    bool train;
    int nargs, nresults;
    const MoeTensor *args, *results;
    int64_t arena_bytes;
    void (*run)(MoeWorker *w);
} MoeFunc;

/* C[b,m,n] (+)= A[b,m,k] B[b,k,n] in f32; strides in elements; up to 4 batch axes, outer first. An operand that does
 * not have a batch axis has stride 0 there. */
typedef struct MoeGemm {
    int nbatch;
    int64_t batch[4], a_batch[4], b_batch[4], c_batch[4];
    int64_t m, n, k;
    int64_t a_m, a_k, b_k, b_n, c_m, c_n;
    bool accumulate;
    const char *where; /* source line, for traces */
} MoeGemm;

typedef enum MoeCollKind {
    MOE_all_gather,
    MOE_all_reduce,
    MOE_reduce_scatter,
    MOE_all_to_all,
    MOE_permute,
} MoeCollKind;
typedef enum MoeFold { MOE_sum, MOE_max, MOE_min } MoeFold;

/* A collective over the group of devices that differ only along `axes`. Local shapes of source and result. */
typedef struct MoeColl {
    MoeCollKind kind;
    MoeFold fold;
    MoeDType dtype;
    MoeAxes axes;
    int rank;
    int64_t in[MOE_MAX_RANK], out[MOE_MAX_RANK];
    int join;                                              /* axis joined: all_gather, all_to_all; -1 */
    int split;                                             /* axis split: reduce_scatter, all_to_all; -1 */
    MoeAxes in_axes[MOE_MAX_RANK], out_axes[MOE_MAX_RANK]; /* permute: the two shardings */
    const char *where;
} MoeColl;

typedef struct MoeProgram {
    int abi;
    const char *source; /* path of the .moe */
    int naxes;
    const char *axis_name[MOE_MAX_AXES];
    int64_t axis_size[MOE_MAX_AXES];
    int devices;
    int nvars, nfuncs, ngemms, ncolls;
    const MoeVar *vars;
    const MoeFunc *funcs;
    const MoeGemm *gemms;
    const MoeColl *colls;
    int64_t vars_bytes;                             /* variables lie in [0, vars_bytes) */
    const char *generate_decode, *generate_prefill; /* functions of `generate with`, NULL: none */
    int64_t generate_positions;                     /* that the caches hold */
} MoeProgram;

extern const MoeProgram moe_program;

/* What a generated function may see of its worker. */
struct MoeWorker {
    int worker, workers;
    int device;
    int64_t coord[MOE_MAX_AXES]; /* the device's place in the mesh */
    char *arena;
    uint32_t seed;
    int32_t step, steps;
    int64_t top; /* TSan and chaos: collectives passed so far */
    void *team;  /* the runtime's */
};

/* The worker's part [*lo, *hi) of n, in blocks of `grain`. */
static inline void moe_range(const MoeWorker *w, int64_t n, int64_t grain, int64_t *lo, int64_t *hi) {
    int64_t blocks = (n + grain - 1) / grain;
    *lo = blocks * w->worker / w->workers * grain;
    *hi = blocks * (w->worker + 1) / w->workers * grain;
    if (*lo > n) *lo = n;
    if (*hi > n) *hi = n;
}

/* All workers of the device; a no-op for a team of one. */
void moe_barrier(MoeWorker *w);

/* Numbers in moe_program.gemms / .colls. Ends with the team's barrier. */
void moe_gemm(MoeWorker *w, int gemm, const float *a, const float *b, float *c);
void moe_coll(MoeWorker *w, int coll, const void *src, void *dst);

/* Largest k of n along the middle axis of [outer, n, inner], in order; ties take the lower index. Ends with the
 * barrier. */
void moe_top_k(MoeWorker *w, int64_t outer, int64_t n, int64_t inner, int64_t k, const float *x, float *values,
               int32_t *indices);
/* Of the index x along the middle axis: how many before are the same (0 for one outside 0 .. kinds), and, over
 * [outer, kinds, inner], how many there are of each. Ends with the barrier. */
void moe_ordinal(MoeWorker *w, int64_t outer, int64_t n, int64_t inner, int64_t kinds, const int32_t *x, int32_t *nth,
                 int32_t *count);

#endif
