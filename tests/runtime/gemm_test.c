/* gemm_test.c: products in every layout the code generator may ask for, against a triple loop in f64; also that every
 * division among workers and every device gives the same bits, and that nothing outside the result is written. */
#include "rt_test.h"

enum { GEMMS = 60, AREA = 1 << 20 };

/* Random order of the axes of one operand: strides of a dense array whose axes are shuffled, with some padding. */
static void random_strides(int n, const int64_t *size, int64_t **stride, bool pad) {
    int order[8];
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = n - 1; i > 0 && test_random(3) == 0; i--) {
        int k = (int)test_random((uint32_t)i + 1), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    if (test_random(2) && n >= 2) { /* the common case: only the last two change places */
        int t = order[n - 1];
        order[n - 1] = order[n - 2];
        order[n - 2] = t;
    }
    int64_t at = 1;
    for (int i = n - 1; i >= 0; i--) {
        *stride[order[i]] = at;
        at *= size[order[i]] + (pad && test_random(4) == 0 ? 8 : 0);
    }
}

static MoeGemm random_gemm(void) {
    static const int64_t sizes[] = {1, 1, 2, 3, 7, 16, 17, 32, 64, 100};
    MoeGemm g = {.nbatch = (int)test_random(4), .where = "test"};
    g.m = sizes[test_random(10)], g.n = sizes[test_random(10)], g.k = sizes[test_random(10)];
    g.accumulate = test_random(2);
    bool has_a[4], has_b[4];
    for (int i = 0; i < g.nbatch; i++) {
        g.batch[i] = 1 + test_random(4);
        has_a[i] = test_random(4), has_b[i] = !has_a[i] || test_random(4);
    }
    int64_t size[8], *at[8];
    int n = 0;
    for (int i = 0; i < g.nbatch; i++)
        if (has_a[i]) size[n] = g.batch[i], at[n++] = &g.a_batch[i];
    size[n] = g.m, at[n++] = &g.a_m, size[n] = g.k, at[n++] = &g.a_k;
    random_strides(n, size, at, true);
    n = 0;
    for (int i = 0; i < g.nbatch; i++)
        if (has_b[i]) size[n] = g.batch[i], at[n++] = &g.b_batch[i];
    size[n] = g.k, at[n++] = &g.b_k, size[n] = g.n, at[n++] = &g.b_n;
    random_strides(n, size, at, true);
    n = 0;
    for (int i = 0; i < g.nbatch; i++) size[n] = g.batch[i], at[n++] = &g.c_batch[i];
    size[n] = g.m, at[n++] = &g.c_m, size[n] = g.n, at[n++] = &g.c_n;
    random_strides(n, size, at, true);
    return g;
}

static float *part(Worker *w, int i) {
    return (float *)w->pub.arena + i * AREA;
}

/* Once: only results change afterwards, and check_result resets them. */
static void run_fill(Worker *w, void *ctx) {
    for (int64_t i = 0; i < AREA && w->pub.worker == 0; i++) {
        part(w, 0)[i] = moe_normal(1, 1, (uint64_t)i, 0, 0);
        part(w, 1)[i] = moe_normal(1, 2, (uint64_t)i, 0, 0);
        part(w, 2)[i] = 0.25f;
    }
}

static void run_one(Worker *w, void *ctx) {
    moe_gemm(&w->pub, *(int *)ctx, part(w, 0), part(w, 1), part(w, 2));
    moe_gemm(&w->pub, *(int *)ctx, part(w, 0), part(w, 1), part(w, 2)); /* by the kept plan */
}

/* Checks the result of two calls, and that nothing else was written; resets it. */
static void check_result(const MoeGemm *g, const float *a, const float *b, float *c, int number) {
    int64_t total = 1;
    for (int i = 0; i < g->nbatch; i++) total *= g->batch[i];
    for (int64_t q = 0; q < total; q++) {
        int64_t left = q, ao = 0, bo = 0, co = 0;
        for (int i = g->nbatch - 1; i >= 0; i--) {
            int64_t at = left % g->batch[i];
            left /= g->batch[i];
            ao += at * g->a_batch[i], bo += at * g->b_batch[i], co += at * g->c_batch[i];
        }
        for (int64_t i = 0; i < g->m; i++)
            for (int64_t j = 0; j < g->n; j++) {
                double sum = 0;
                for (int64_t l = 0; l < g->k; l++)
                    sum += (double)a[ao + i * g->a_m + l * g->a_k] * (double)b[bo + l * g->b_k + j * g->b_n];
                if (g->accumulate) sum = 0.25 + 2 * sum;
                float *got = &c[co + i * g->c_m + j * g->c_n];
                double off = (double)*got - sum;
                if (!(off < 1e-4 && off > -1e-4))
                    fail_msg("gemm %d (m %d n %d k %d): [%d,%d,%d] is %g, expected %g", number, (int)g->m, (int)g->n,
                             (int)g->k, (int)q, (int)i, (int)j, (double)*got, sum);
                *got = 0.25f;
            }
    }
    for (int64_t i = 0; i < AREA; i++)
        if (c[i] != 0.25f) fail_msg("gemm %d wrote element %d outside of its result", number, (int)i);
}

static void check_team(int workers) {
    int64_t size[] = {2};
    MoeProgram p = test_mesh(1, size);
    MoeGemm g[GEMMS];
    for (int i = 0; i < GEMMS; i++) g[i] = random_gemm();
    p.ngemms = GEMMS;
    p.gemms = g;
    Team *t = test_team(&p, workers, 3 * AREA * sizeof(float));
    assert_true(team_run(t, run_fill, NULL));
    for (int i = 0; i < GEMMS; i++) {
        if (!team_run(t, run_one, &i)) fail_msg("%s", t->error.text);
        float *x = (float *)t->device[0].arena, *y = (float *)t->device[1].arena;
        assert_memory_equal(x + 2 * AREA, y + 2 * AREA, AREA * sizeof(float));
        check_result(&g[i], x, x + AREA, x + 2 * AREA, i);
        memcpy(y + 2 * AREA, x + 2 * AREA, AREA * sizeof(float));
    }
    team_free(t);
}

static void test_layouts(void **state) {
    check_team(1);
}
static void test_workers(void **state) {
    check_team(3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layouts), cmocka_unit_test(test_workers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
