/* autodiff_test.c: what a gradient must not do to the program around it; its values are gradcheck_test.c's. */
#include "irtest.h"
#include "passes.h"

typedef struct Counts {
    int of[OP_COUNT];
    int without_loc;
} Counts;

static void count(Inst *inst, void *ctx) {
    Counts *c = ctx;
    c->of[inst->op]++;
    if (inst->loc.file == 0) c->without_loc++;
}

static Counts differentiate(Fixture *t, Value *loss, Value *by) {
    Inst *g = build_inst(&t->b, OP_grad, 2, (Value *[]){loss, by}, NULL, NULL);
    vec_push(t->arena, t->f->body->results, loss);
    vec_push(t->arena, t->f->body->results, g->out[0]);
    vec_push(t->arena, t->f->result_names, "loss");
    vec_push(t->arena, t->f->result_names, "d");
    PassCtx ctx = {.scratch = arena_new()};
    pass_autodiff(t->m, &ctx);
    arena_free(ctx.scratch);
    Counts c = {{0}, 0};
    module_walk(t->m, count, &c);
    return c;
}

static Value *sum_all(Fixture *t, Value *x) {
    return build_reduce(&t->b, "sum", x, type_labels(&x->type));
}

/* Work for active values only: one exponential is differentiated, the other is not even read. */
static void test_only_what_is_active(void **state) {
    Fixture *t = *state;
    Value *x = value_of(t, DT_f32, "A:2"), *y = value_of(t, DT_f32, "A:2");
    Value *a = build1(&t->b, OP_sin, x, NULL), *b = build1(&t->b, OP_sin, y, NULL);
    Counts c = differentiate(t, sum_all(t, build2(&t->b, OP_add, a, b, NULL)), x);
    assert_int_equal(c.of[OP_cos], 1);
    assert_int_equal(c.of[OP_grad], 0);
    assert_null(module_verify(t->m, t->arena));
}

static void test_locations_are_inherited(void **state) {
    Fixture *t = *state;
    t->b.loc = (Loc){1, 2, 3};
    Value *x = value_of(t, DT_f32, "A:2 B:3"), *w = value_of(t, DT_f32, "B:3");
    Value *y = build1(&t->b, OP_tanh, build2(&t->b, OP_mul, x, w, NULL), NULL);
    Counts c = differentiate(t, sum_all(t, build1(&t->b, OP_cumsum, y, &(Attrs){.label = intern("B")})), w);
    assert_int_equal(c.without_loc, 0);
}

/* A value of the highest rank has to be kept, and there is no axis left to stack it along: an error of the user's. */
static void test_rank_is_bounded(void **state) {
    Fixture *t = *state;
    Value *x = value_of(t, DT_f32, "A:1 B:1 C:1 D:1 E:1 F:1 G:1 H:1 I:1 J:1");
    Block *body = block_new(t->m, NULL);
    block_arg(t->m, body, &(Type){.dtype = DT_i32}, NULL);
    Value *carried = block_arg(t->m, body, &x->type, NULL);
    Builder inside = {.m = t->m, .block = body};
    vec_push(t->arena, body->results, build1(&inside, OP_sin, carried, NULL));
    Inst *loop = build_inst(&t->b, OP_loop, 1, &x, &(Attrs){.label = intern("L"), .trip = 3, .carry = 1}, body);
    assert_int_equal(diag_errors(), 0);
    differentiate(t, sum_all(t, loop->out[0]), x);
    assert_int_equal(diag_errors(), 1);
    diag_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_only_what_is_active, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_locations_are_inherited, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_rank_is_bounded, fixture_set_up, fixture_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
