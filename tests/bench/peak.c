/* peak.c: the machine's f32 GEMM rate, all cores together: the yardstick of every "share of peak" in the benchmarks.
 * Each core multiplies its own matrices by oneDNN, of a shape that oneDNN does well. Prints GFLOP/s of all cores and
 * GFLOP per second of processor time, each the best of several rounds: a rate that another process cannot raise. */
#include <dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { M = 2048, N = 1024, K = 512, ROUNDS = 9, MAX_CORES = 256 };

typedef struct Core {
    pthread_t thread;
    double begin[ROUNDS], end[ROUNDS], processor[ROUNDS];
} Core;

static pthread_barrier_t start;

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *matrix(int n, int period) {
    float *x = aligned_alloc(64, sizeof *x * (size_t)n);
    for (int i = 0; i < n; i++) x[i] = (float)(i % period) / (float)period - 0.5f;
    return x;
}

static void *core_main(void *ctx) {
    Core *core = ctx;
    omp_set_num_threads(1);
    float *a = matrix(M * K, 7), *b = matrix(K * N, 5), *c = matrix(M * N, 3);
    for (int r = 0; r < ROUNDS; r++) {
        pthread_barrier_wait(&start);
        core->begin[r] = now(CLOCK_MONOTONIC);
        double used = now(CLOCK_THREAD_CPUTIME_ID);
        for (int k = 0; k < 4; k++) dnnl_sgemm('N', 'N', M, N, K, 1, a, K, b, N, 0, c, N);
        core->processor[r] = now(CLOCK_THREAD_CPUTIME_ID) - used;
        core->end[r] = now(CLOCK_MONOTONIC);
    }
    free(a), free(b), free(c);
    return NULL;
}

int main(void) {
    static Core core[MAX_CORES];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cores > MAX_CORES) cores = MAX_CORES;
    pthread_barrier_init(&start, NULL, (unsigned)cores);
    for (long i = 0; i < cores; i++) pthread_create(&core[i].thread, NULL, core_main, &core[i]);
    for (long i = 0; i < cores; i++) pthread_join(core[i].thread, NULL);
    double work = 4 * 2e-9 * M * N * K, best = 0, rate = 0;
    for (int r = 0; r < ROUNDS; r++) {
        double begin = core[0].begin[r], end = core[0].end[r];
        for (long i = 0; i < cores; i++) {
            if (core[i].begin[r] < begin) begin = core[i].begin[r];
            if (core[i].end[r] > end) end = core[i].end[r];
            if (work / core[i].processor[r] > rate) rate = work / core[i].processor[r];
        }
        double all = work * (double)cores / (end - begin);
        if (all > best) best = all;
    }
    printf("%.1f %.1f\n", best, rate);
    return 0;
}
