/* lower_test.c: label expressions in normal form, and what lowering must not change: a rolled loop computes what its
 * iterations computed one by one, random numbers included, and a program does not grow with the number of layers. */
#include "lower.h" /* before cmocka, which has a macro `fail` */

#include <stdio.h>
#include <unistd.h>

#include "frontend.h"
#include "irtest.h"

/* ---- label expressions --------------------------------------------------------------------------------------------
 */

static void poly_forms(void **state) {
    Arena *a = ((Fixture *)*state)->arena;
    const Poly *s = poly_sym(a, intern("S"), 6), *d = poly_sym(a, intern("D"), 4), *one = poly_const(a, 1);
    const Poly *s1 = poly_add(a, one, s, 1);
    assert_string_equal(s1->text, "S+1");
    assert_int_equal(s1->size, 7);
    assert_ptr_equal(poly_add(a, s1, one, -1)->text, s->text);
    assert_string_equal(poly_add(a, d, s, 1)->text, "D+S");
    assert_ptr_equal(poly_add(a, s, d, 1)->text, poly_add(a, d, s, 1)->text);
    assert_string_equal(poly_mul(a, s1, poly_const(a, 2))->text, "2*S+2");
    assert_string_equal(poly_mul(a, s, d)->text, "D*S");
    assert_string_equal(poly_add(a, d, s, -1)->text, "D-S");
    assert_string_equal(poly_add(a, s, s, -1)->text, "0");
    assert_string_equal(poly_mul(a, s1, s1)->text, "S*S+2*S+1");
}

static void poly_quotients(void **state) {
    Arena *a = ((Fixture *)*state)->arena;
    const Poly *s = poly_sym(a, intern("S"), 6), *d = poly_sym(a, intern("D"), 4), *two = poly_const(a, 2);
    const Poly *half = poly_div(a, d, two);
    assert_string_equal(half->text, "D/2");
    assert_int_equal(half->size, 2);
    assert_ptr_equal(poly_div(a, poly_mul(a, two, d), two)->text, d->text);
    assert_ptr_equal(poly_div(a, poly_mul(a, s, d), s)->text, d->text);
    assert_string_equal(poly_div(a, d, d)->text, "1");
    assert_string_equal(poly_div(a, poly_add(a, d, s, 1), two)->text, "(D+S)/2");
}

static void poly_limits(void **state) {
    Arena *a = ((Fixture *)*state)->arena;
    const Poly *big = poly_sym(a, intern("B"), MAX_DIM), *sum = poly_const(a, 1);
    assert_null(poly_mul(a, big, big));
    assert_null(poly_add(a, big, poly_const(a, 1), 1));
    for (int i = 0; i < POLY_TERMS && sum != NULL; i++)
        sum = poly_add(a, sum, poly_sym(a, intern_printf("X%d", i), 2), 1);
    assert_null(sum);
    assert_null(poly_add(a, NULL, big, 1));
}

/* ---- programs ------------------------------------------------------------------------------------------------------
 */

static Module *lower_text(Arena *a, const char *text, const char *def) {
    char path[] = "/tmp/lower_test_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    FrontOptions opt = {.defs = &def, .ndefs = def != NULL};
    Module *m = frontend_lower(a, path, &opt);
    unlink(path);
    assert_non_null(m);
    assert_null(module_verify(m, a));
    return m;
}

static void count_inst(Inst *inst, void *n) {
    (void)inst;
    ++*(int *)n;
}

static int count_loops(const Module *m) {
    int n = 0;
    for (const Inst *i = m->funcs.at[0]->body->first; i != NULL; i = i->next) n += i->op == OP_loop;
    return n;
}

/* The first function on arguments 0.1, 0.2, …, with variables as initialized. */
static Tensor *run(const Module *m, Arena *a) {
    const Func *f = m->funcs.at[0];
    EvalOptions opt = {.seed = 3, .step = 5, .steps = 10};
    EvalState vars = eval_init(m, a, &opt);
    Tensor *args = NEW_ARRAY(a, Tensor, f->body->args.n + 1);
    for (int i = 0; i < f->body->args.n; i++) {
        args[i] = tensor_new(a, &f->body->args.at[i]->type);
        for (int64_t k = 0; k < type_elements(&args[i].type); k++) args[i].at[k] = 0.1 * (double)(k + 1);
    }
    const char *error = NULL;
    Tensor *out = eval_func(m, f, args, &vars, &opt, a, &error);
    assert_null(error);
    return out;
}

static void assert_same(const Tensor *x, const Tensor *y) {
    assert_true(type_same_shape(&x->type, &y->type));
    for (int64_t i = 0; i < type_elements(&x->type); i++) assert_true(x->at[i] == y->at[i]);
}

#define MODEL                                                        \
    "dim A = 4, L = 6\n"                                             \
    "const alone = false\n"                                          \
    "fn layer(x: f32[A], odd: bool) -> f32[A] {\n"                   \
    "    param w: f32[A] = normal(1.0)\n"                            \
    "    state n: f32[A] = 0\n"                                      \
    "    n = n + x\n"                                                \
    "    if odd {\n"                                                 \
    "        param v: f32[A] = normal(0.5)\n"                        \
    "        return x * w + v * n\n"                                 \
    "    }\n"                                                        \
    "    return x * w + uniform(x)\n"                                \
    "}\n"                                                            \
    "entry f(x: f32[A]) -> (f32[A], s: f32[]) {\n"                   \
    "    s = 0\n"                                                    \
    "    for l in 0..L {\n"                                          \
    "        if alone { if l == 1 or l == 4 or l == 5 { s = s } }\n" \
    "        x = layer(x, l % 2 == 1) in \"layer.{l}\"\n"            \
    "        s = s + sum(x) * f32(l + 1) + mean(normal(x))\n"        \
    "    }\n"                                                        \
    "    return x, s\n"                                              \
    "}\n"

/* One source, cut into a loop of period 2 and into single iterations. */
static void rolled_is_unrolled(void **state) {
    Arena *a = ((Fixture *)*state)->arena;
    Module *rolled = lower_text(a, MODEL, NULL), *alone = lower_text(a, MODEL, "alone=true");
    assert_int_equal(count_loops(rolled), 1);
    assert_int_equal(count_loops(alone), 0);
    Tensor *x = run(rolled, a), *y = run(alone, a);
    assert_same(&x[0], &y[0]);
    assert_same(&x[1], &y[1]);
}

/* The same layers, written one after the other. */
static void rolled_is_written(void **state) {
    Arena *a = ((Fixture *)*state)->arena;
    const char *layer =
        "dim A = 4\n"
        "fn layer(x: f32[A]) -> f32[A] {\n"
        "    param w: f32[A] = normal(1.0)\n"
        "    return x * w\n"
        "}\n"
        "entry f(x: f32[A]) -> f32[A] {\n";
    const char *loop = "    for l in 1..4 { x = layer(x) in \"b.{l}\" }\n    return x\n}\n";
    const char *calls = "    x = layer(x) in \"b.1\"\n    x = layer(x) in \"b.2\"\n    return layer(x) in \"b.3\"\n}\n";
    Tensor *x = run(lower_text(a, arena_printf(a, "%s%s", layer, loop), NULL), a);
    Tensor *y = run(lower_text(a, arena_printf(a, "%s%s", layer, calls), NULL), a);
    assert_same(&x[0], &y[0]);
}

static void size_is_constant(void **state) {
    Arena *a = ((Fixture *)*state)->arena;
    int few = 0, many = 0;
    module_walk(lower_text(a, MODEL, "L=4"), count_inst, &few);
    module_walk(lower_text(a, MODEL, "L=400"), count_inst, &many);
    assert_int_equal(few, many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(poly_forms, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(poly_quotients, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(poly_limits, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(rolled_is_unrolled, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(rolled_is_written, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(size_is_constant, fixture_set_up, fixture_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
