/* peak.c: the machine's f32 GEMM rate, all cores together: the yardstick of every "share of peak" in the benchmarks.
 * Each core multiplies its own 1536 x 1536 matrices by oneDNN. Prints GFLOP/s of all cores, the best of several rounds
 * (a rate that another process cannot raise), and GFLOP per second of processor time, which others hardly change. */
#include <dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { N = 1536, ROUNDS = 7 };
static pthread_barrier_t start, stop;

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *core(void *used) {
    double *processor = used;
    omp_set_num_threads(1);
    float *a = aligned_alloc(64, sizeof(float) * N * N), *b = aligned_alloc(64, sizeof(float) * N * N),
          *c = aligned_alloc(64, sizeof(float) * N * N);
    for (int i = 0; i < N * N; i++) a[i] = (float)(i % 7), b[i] = (float)(i % 5);
    for (int r = 0; r < ROUNDS; r++) {
        pthread_barrier_wait(&start);
        double t = now(CLOCK_THREAD_CPUTIME_ID);
        dnnl_sgemm('N', 'N', N, N, N, 1, a, N, b, N, 0, c, N);
        if (r > 0) *processor += now(CLOCK_THREAD_CPUTIME_ID) - t;
        pthread_barrier_wait(&stop);
    }
    free(a), free(b), free(c);
    return NULL;
}

int main(void) {
    enum { MAX_CORES = 256 };
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cores > MAX_CORES) cores = MAX_CORES;
    pthread_t thread[MAX_CORES];
    double processor[MAX_CORES] = {0}, all = 0;
    pthread_barrier_init(&start, NULL, (unsigned)cores + 1);
    pthread_barrier_init(&stop, NULL, (unsigned)cores + 1);
    for (long i = 0; i < cores; i++) pthread_create(&thread[i], NULL, core, &processor[i]);
    double best = 0;
    for (int r = 0; r < ROUNDS; r++) {
        pthread_barrier_wait(&start);
        double t = now(CLOCK_MONOTONIC);
        pthread_barrier_wait(&stop);
        double rate = 2.0 * N * N * N * (double)cores / (now(CLOCK_MONOTONIC) - t) * 1e-9;
        if (rate > best) best = rate;
    }
    for (long i = 0; i < cores; i++) pthread_join(thread[i], NULL), all += processor[i];
    printf("%.1f %.1f\n", best, 2e-9 * N * N * N * (ROUNDS - 1) * (double)cores / all);
    return 0;
}
