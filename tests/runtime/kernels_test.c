/* kernels_test.c: top_k against sorting, text windows, sampling, shapes. */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "host.h"
#include "rt_test.h"

/* ---- top_k -------------------------------------------------------------------------------------------------- */

typedef struct TopK {
    int64_t outer, n, inner, k;
    float x[4096], values[4096];
    int32_t indices[4096];
} TopK;

static void run_top_k(Worker *w, void *ctx) {
    TopK *t = ctx;
    moe_top_k(&w->pub, t->outer, t->n, t->inner, t->k, t->x, t->values, t->indices);
}

/* Rank i of a line: as many are larger, or equal with a lower index. */
static void check_top_k(const TopK *t) {
    for (int64_t o = 0; o < t->outer; o++)
        for (int64_t j = 0; j < t->inner; j++)
            for (int64_t r = 0; r < t->k; r++) {
                int64_t at = (o * t->k + r) * t->inner + j;
                int32_t got = t->indices[at];
                assert_true(got >= 0 && got < t->n);
                float v = t->x[(o * t->n + got) * t->inner + j];
                assert_memory_equal(&v, &t->values[at], 4);
                int64_t before = 0;
                for (int64_t i = 0; i < t->n; i++) {
                    float x = t->x[(o * t->n + i) * t->inner + j];
                    before += isnan(v) ? !isnan(x) || i < got : x > v || (x == v && i < got);
                }
                assert_int_equal(before, r);
            }
}

static void test_top_k(void **state) {
    MoeProgram p = test_mesh(0, NULL);
    static TopK t;
    for (int workers = 1; workers <= 3; workers++) {
        Team *team = test_team(&p, workers, 4096);
        for (int round = 0; round < 200; round++) {
            t.outer = 1 + test_random(9), t.n = 1 + test_random(16), t.inner = test_random(2) ? 1 : 1 + test_random(20);
            t.k = 1 + test_random((uint32_t)t.n);
            for (int64_t i = 0; i < t.outer * t.n * t.inner; i++) {
                uint32_t draw = test_random(20);
                t.x[i] = draw == 19 && round % 4 == 0 ? NAN
                         : draw == 18                 ? -INFINITY
                                                      : (float)(draw % 7); /* many ties */
            }
            assert_true(team_run(team, run_top_k, &t));
            check_top_k(&t);
        }
        team_free(team);
    }
}

/* ---- text --------------------------------------------------------------------------------------------------- */

static void text_file(int n) {
    FILE *f = fopen("text_test.txt", "wb");
    for (int i = 0; i < n; i++) fputc(i * 7 % 251, f);
    fclose(f);
}

static void test_text(void **state) {
    Text t;
    Error e = {0};
    text_file(2000);
    assert_true(text_open("text_test.txt", &t, &e));
    assert_int_equal(t.train, 1900);
    assert_int_equal(t.held, 100);
    int32_t a[4 * 33], b[4 * 33], c[4 * 33];
    assert_true(text_train(&t, 5, 17, 4, 33, a) && text_train(&t, 5, 17, 4, 33, b) && text_train(&t, 5, 18, 4, 33, c));
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    for (int step = 0; step < 300; step++) { /* rows are windows of the training part, and reach both its ends */
        assert_true(text_train(&t, 5, step, 4, 33, a));
        for (int r = 0; r < 4; r++)
            for (int i = 1; i < 33; i++) assert_int_equal(a[r * 33 + i], (a[r * 33 + i - 1] + 7) % 251);
    }
    assert_false(text_train(&t, 5, 0, 1, 1901, a));
    assert_int_equal(text_windows(&t, 33), 3); /* 33 + 2 * 32 <= 100 */
    assert_int_equal(text_windows(&t, 101), 0);
    text_eval(&t, 1, 2, 33, a);
    assert_int_equal(a[0], (1900 + 32) * 7 % 251);
    assert_int_equal(a[33], (1900 + 64) * 7 % 251);
    assert_int_equal(a[65], (1900 + 96) * 7 % 251);
    text_close(&t);
    text_file(0);
    assert_false(text_open("text_test.txt", &t, &e));
    assert_string_equal(e.text, "text_test.txt: empty");
    unlink("text_test.txt");
}

/* ---- sampling ----------------------------------------------------------------------------------------------- */

static void test_sample(void **state) {
    float x[5] = {0, 1, 3, 3, -INFINITY};
    int count[5] = {0};
    assert_int_equal(sample_next(x, 5, 0, 0, 1, 1), 2);
    assert_int_equal(sample_next(x, 5, 1, 1, 1, 1), 2);
    for (int i = 0; i < 20000; i++) count[sample_next(x, 5, 1, 0, 1, i)]++;
    double sum = 1 + exp(1) + 2 * exp(3);
    assert_true(fabs(count[1] / 20000.0 - exp(1) / sum) < 0.01 && fabs(count[3] / 20000.0 - exp(3) / sum) < 0.02);
    assert_int_equal(count[4], 0);
    for (int i = 0; i < 1000; i++) assert_true(sample_next(x, 5, 5, 2, 1, i) >= 2 && sample_next(x, 5, 5, 2, 1, i) < 4);
    assert_int_equal(sample_next(x, 5, 1, 0, 9, 44), sample_next(x, 5, 1, 0, 9, 44));
}

/* ---- layout ------------------------------------------------------------------------------------------------- */

/* Random shardings: putting a global array into all devices and getting it back is the identity; blocks are disjoint.
 */
static void test_layout(void **state) {
    int64_t size[] = {2, 3, 2};
    MoeProgram p = test_mesh(3, size);
    Team *team = test_team(&p, 1, 1 << 20);
    for (int round = 0; round < 300; round++) {
        MoeTensor t = {.name = "x", .dtype = MOE_i32, .rank = (int)test_random(5), .offset = 64};
        for (int i = 0; i < t.rank; i++) t.size[i] = 1 + test_random(4);
        for (int a = 0; a < 3 && t.rank; a++) {
            int i = (int)test_random((uint32_t)t.rank + 1);
            if (i < t.rank) t.axes[i].at[t.axes[i].n++] = a, t.size[i] *= size[a];
        }
        int64_t n = tensor_elements(&t), held = 0;
        int32_t *x = xcalloc((size_t)n, 4), *y = xcalloc((size_t)n, 4);
        for (int64_t i = 0; i < n; i++) x[i] = (int32_t)i + 1;
        for (int d = 0; d < p.devices; d++) {
            int64_t s[MOE_MAX_RANK], b[MOE_MAX_RANK];
            held += tensor_block(&p, &t, d, s, b);
            tensor_put(team, &t, d, x);
        }
        for (int d = 0; d < p.devices; d++) tensor_get(team, &t, d, y);
        assert_memory_equal(x, y, (size_t)n * 4);
        assert_int_equal(held % n, 0);
        free(x);
        free(y);
    }
    team_free(team);
}

int main(void) {
    const char *dir = test_dir();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_top_k), cmocka_unit_test(test_text),
                                       cmocka_unit_test(test_sample), cmocka_unit_test(test_layout)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (chdir("/") || rmdir(dir)) return 1;
    return failed;
}
