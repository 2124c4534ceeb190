/* simplify_test.c: what constants fold to, at the edges of their types; that the pass comes to rest. */
#include "simplify.h"

#include <math.h>

#include "irtest.h"
#include "passes.h"

static double fold(Op op, DType t, double x, double y) {
    double in[] = {x, y, 0}, result = -12345;
    return simplify_fold(op, t, in, &result) ? result : NAN;
}

static void test_integers_wrap(void **state) {
    assert_true(fold(OP_add, DT_i32, INT32_MAX, 1) == INT32_MIN);
    assert_true(fold(OP_sub, DT_i32, INT32_MIN, 1) == INT32_MAX);
    assert_true(fold(OP_mul, DT_i32, INT32_MIN, INT32_MIN) == 0);
    assert_true(fold(OP_mul, DT_i32, 65537, 65537) == 131073);
    assert_true(fold(OP_neg, DT_i32, INT32_MIN, 0) == INT32_MIN);
    assert_true(fold(OP_abs, DT_i32, INT32_MIN, 0) == INT32_MIN);
    assert_true(fold(OP_div, DT_i32, INT32_MIN, -1) == INT32_MIN);
}

static void test_integers_floor(void **state) {
    static const int pairs[][4] = {
        /* a, b, a / b, a mod b */
        {7, 2, 3, 1}, {-7, 2, -4, 1}, {7, -2, -4, -1}, {-7, -2, 3, -1}, {6, 3, 2, 0}, {-6, 3, -2, 0}, {5, 0, 0, 0},
    };
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++) {
        assert_true(fold(OP_div, DT_i32, pairs[k][0], pairs[k][1]) == pairs[k][2]);
        assert_true(fold(OP_mod, DT_i32, pairs[k][0], pairs[k][1]) == pairs[k][3]);
    }
}

/* A folded float, used as a float, has the bits of the float operation; what is too small for that is not folded. */
static void test_floats_round_once(void **state) {
    static const float samples[] = {1.0f, 0.1f, -0.3f, 3.4e38f, 1e-38f, 16777216.0f, 1.00000012f, 0.33333334f};
    const int n = sizeof samples / sizeof *samples;
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            volatile float x = samples[a], y = samples[b], add = x + y, mul = x * y, div = x / y;
            double want[] = {(double)add, (double)mul, (double)div};
            Op ops[] = {OP_add, OP_mul, OP_div};
            for (int k = 0; k < 3; k++) {
                double got = fold(ops[k], DT_f32, (double)x, (double)y);
                if (isnan(got))
                    assert_true(!isfinite(want[k]) || fabs(want[k]) < 1.2e-38);
                else
                    assert_true((float)got == (float)want[k]);
            }
        }
}

static void test_left_to_the_target(void **state) {
    assert_true(isnan(fold(OP_lt, DT_f32, 1, 1 + 1e-12)));
    assert_true(isnan(fold(OP_sub, DT_f32, 1 + 1e-7, 1)));
    assert_true(isnan(fold(OP_exp, DT_f32, 1, 0)));
    assert_true(isnan(fold(OP_add, DT_bf16, 1, 1)));
    assert_true(isnan(fold(OP_div, DT_f32, 1, 0)));
    assert_true(isnan(fold(OP_sqrt, DT_f32, -1, 0)));
}

/* A second run changes nothing. */
static void test_comes_to_rest(void **state) {
    Fixture *t = *state;
    Value *x = value_of(t, DT_f32, "A:2 B:3"), *w = value_of(t, DT_f32, "B:3");
    Value *wide = build_broadcast(&t->b, w, &x->type);
    Value *y = build2(&t->b, OP_add, build2(&t->b, OP_mul, x, wide, NULL), build_const(&t->b, DT_f32, 0), NULL);
    Value *z = build3(&t->b, OP_where, build2(&t->b, OP_lt, wide, y, NULL), y, build_const(&t->b, DT_f32, 3), NULL);
    vec_push(t->arena, t->f->body->results, build_reduce(&t->b, "sum", z, labels_of("A")));
    vec_push(t->arena, t->f->result_names, "r");
    PassCtx ctx = {.scratch = arena_new()};
    assert_true(pass_simplify(t->m, &ctx));
    char *once = module_print(t->m, t->arena, (PrintOptions){0});
    assert_false(pass_simplify(t->m, &ctx));
    assert_string_equal(once, module_print(t->m, t->arena, (PrintOptions){0}));
    assert_null(module_verify(t->m, t->arena));
    arena_free(ctx.scratch);
}

/* Rewriting must not go around a value that a gradient is taken by. */
static void test_gradient_by_a_computed_value(void **state) {
    Fixture *t = *state;
    Value *x = build_const(&t->b, DT_f32, 3), *square = build2(&t->b, OP_mul, x, x, NULL);
    Inst *g = build_inst(&t->b, OP_grad, 2, (Value *[]){square, x}, NULL, NULL);
    vec_push(t->arena, t->f->body->results, g->out[0]);
    vec_push(t->arena, t->f->result_names, "d");
    PassCtx ctx = {.scratch = arena_new()};
    pass_simplify(t->m, &ctx);
    pass_autodiff(t->m, &ctx);
    pass_simplify(t->m, &ctx);
    double value = 0;
    assert_true(simplify_const(t->f->body->results.at[0], &value));
    assert_true(value == 6);
    arena_free(ctx.scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_wrap),
        cmocka_unit_test(test_integers_floor),
        cmocka_unit_test(test_floats_round_once),
        cmocka_unit_test(test_left_to_the_target),
        cmocka_unit_test_setup_teardown(test_comes_to_rest, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_gradient_by_a_computed_value, fixture_set_up, fixture_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
