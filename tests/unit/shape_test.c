/* Shapes of results, the sentences of refused ones, and moving instructions about. */
#include "irtest.h"

/* The type that an op gives, or its sentence. */
static const char *shape(Fixture *t, Op op, const Attrs *at, int nin, Value *const *in) {
    const char *error = NULL;
    Inst *inst = inst_new(t->m, op, (Loc){0}, nin, in, at, NULL, &error);
    if (inst == NULL) return error;
    const Type *out = &inst->out[0]->type;
    return arena_printf(t->arena, "%s %s", dtype_name(out->dtype), type_text(t->arena, out));
}

#define F32(text) value_of(t, DT_f32, text)
#define I32(text) value_of(t, DT_i32, text)
#define BOOL(text) value_of(t, DT_bool, text)
#define SHAPE(op, at, ...) \
    shape(t, OP_##op, at, (int)(sizeof((Value *[]){__VA_ARGS__}) / sizeof(Value *)), (Value *[]){__VA_ARGS__})
#define SET(...) (&(Attrs){__VA_ARGS__})

static void elements_broadcast_by_label(void **state) {
    Fixture *t = *state;
    assert_string_equal(SHAPE(add, NULL, F32("B:8 M:4"), F32("M:4 B:8")), "f32 B:8 M:4");
    assert_string_equal(SHAPE(add, NULL, F32("M:4"), F32("B:8 M:4")), "f32 B:8 M:4");
    assert_string_equal(SHAPE(mul, NULL, F32("B:8"), F32("M:4")), "f32 B:8 M:4");
    assert_string_equal(SHAPE(lt, NULL, I32("B:8"), I32("")), "bool B:8");
    assert_string_equal(SHAPE(where, NULL, BOOL("B:8"), F32(""), F32("M:4 B:8")), "f32 M:4 B:8");
    assert_string_equal(SHAPE(cast, SET(.dtype = DT_i32), F32("B:8")), "i32 B:8");
    assert_string_equal(SHAPE(add, NULL, F32("H:1024"), F32("H:512")),
                        "label H is 1024 in operand 1 and 512 in operand 2");
    assert_string_equal(SHAPE(add, NULL, F32("H:2"), I32("H:2")),
                        "operand 1 is f32 and operand 2 is i32; cast one of them");
    assert_string_equal(SHAPE(exp, NULL, I32("H:2")), "operand 1 is i32 where a floating-point type is needed");
    assert_string_equal(SHAPE(add, NULL, F32("A:1 B:1 C:1 D:1 E:1 F:1"), F32("G:1 H:1 I:1 J:1 K:1 L:1")),
                        "the result would have more than 10 axes");
    assert_string_equal(SHAPE(mul, NULL, F32("A:1000000000"), F32("B:1000000000")),
                        "the result (axes A, B) would have more than 2^48 elements");
}

static void sources_have_their_dims(void **state) {
    Fixture *t = *state;
    assert_string_equal(shape(t, OP_iota, &(Attrs){.dims = dims_of("S:7")}, 0, NULL), "i32 S:7");
    assert_string_equal(shape(t, OP_iota, &(Attrs){.dims = dims_of("S:7 T:2")}, 0, NULL), "iota has one axis, not 2");
    assert_string_equal(shape(t, OP_const, &(Attrs){.dtype = DT_i32, .value = 0.5}, 0, NULL),
                        "0.5 does not fit in i32");
    assert_string_equal(shape(t, OP_const, &(Attrs){.value = 2, .dims = dims_of("S:7 S:7")}, 0, NULL),
                        "the result would have two axes labelled S");
    assert_string_equal(SHAPE(random, SET(.kind = intern("normal"), .dims = dims_of("S:3")), I32(""), I32("")),
                        "f32 S:3");
    assert_string_equal(SHAPE(random, NULL, I32(""), I32("")),
                        "kind is missing where one of uniform, normal is needed");
}

static void contractions_and_folds(void **state) {
    Fixture *t = *state;
    Attrs gm = {.labels = labels_of("G M")};
    assert_string_equal(SHAPE(einsum, SET(.labels = labels_of("E G")), F32("G:2 S:3"), F32("S:3 E:5")), "f32 E:5 G:2");
    Value *one[] = {F32("M:4 G:2 K:8")};
    assert_string_equal(shape(t, OP_einsum, &gm, 1, one), "f32 G:2 M:4");
    Value *two[] = {F32("M:4"), F32("M:4")};
    assert_string_equal(shape(t, OP_einsum, &gm, 2, two), "label G of the result is in no operand");
    Attrs over = {.kind = intern("sum"), .labels = labels_of("M")};
    Value *mask[] = {BOOL("G:2 M:4")};
    assert_string_equal(shape(t, OP_reduce, &over, 1, mask), "i32 G:2");
    over.kind = intern("any");
    assert_string_equal(shape(t, OP_reduce, &over, 1, mask), "bool G:2");
    over.labels = labels_of("H");
    assert_string_equal(shape(t, OP_reduce, &over, 1, mask), "operand 1 has no label H (its labels: G, M)");
    assert_string_equal(SHAPE(cumsum, SET(.label = intern("M")), BOOL("G:2 M:4")), "i32 G:2 M:4");
    assert_string_equal(SHAPE(top_k, SET(.label = intern("E"), .to = intern("K"), .size = 2), F32("E:8 B:3")),
                        "f32 K:2 B:3");
    assert_string_equal(SHAPE(top_k, SET(.label = intern("E"), .to = intern("K"), .size = 9), F32("E:8")),
                        "the largest 9 along E, which is 8");
}

static void layout(void **state) {
    Fixture *t = *state;
    Label s = intern("S"), u = intern("U");
    assert_string_equal(SHAPE(one_hot, SET(.label = s, .size = 5), I32("B:3")), "bool B:3 S:5");
    assert_string_equal(SHAPE(broadcast, SET(.dims = dims_of("S:5 B:3")), F32("B:3")), "f32 S:5 B:3");
    assert_string_equal(SHAPE(broadcast, SET(.dims = dims_of("S:5")), F32("B:3")),
                        "label B of the operand is missing in the result");
    Attrs merge = {.labels = labels_of("B S"), .dims = dims_of("G:4 T:6")};
    assert_string_equal(SHAPE(relabel, &merge, F32("M:2 B:3 S:8 D:5")), "f32 M:2 G:4 T:6 D:5");
    assert_string_equal(SHAPE(relabel, &merge, F32("S:8 B:3")), "f32 G:4 T:6");
    assert_string_equal(SHAPE(relabel, &merge, F32("B:3 S:7")),
                        "B ... has 21 elements and cannot become G ... with 24");
    assert_string_equal(SHAPE(slice, SET(.label = s, .start = 2, .size = 3, .to = u), F32("B:3 S:5")), "f32 B:3 U:3");
    assert_string_equal(SHAPE(slice, SET(.label = s, .start = 4, .size = 1), F32("S:5 B:3")), "f32 B:3");
    assert_string_equal(SHAPE(slice, SET(.label = s, .start = 4, .size = 2, .to = u), F32("S:5 B:3")),
                        "indices 4 .. 4+2 of label S, which is 5");
    assert_string_equal(
        SHAPE(slice, SET(.label = s, .start = INT64_MAX, .size = INT64_MAX, .to = u), F32("S:5")),
        "indices 9223372036854775807 .. 9223372036854775807+9223372036854775807 of label S, which is 5");
    assert_string_equal(SHAPE(pad, SET(.label = s, .start = 2, .size = 5, .to = u), F32("B:3 U:3")), "f32 B:3 S:5");
    assert_string_equal(SHAPE(pad, SET(.label = s, .start = 4, .size = 5), F32("B:3")), "f32 S:5 B:3");
    assert_string_equal(SHAPE(pad, SET(.label = s, .start = 3, .size = 5, .to = u), F32("B:3 U:3")),
                        "indices 3 .. 3+3 of label S, which is 5");
}

static void indices(void **state) {
    Fixture *t = *state;
    Attrs v = {.label = intern("V")};
    assert_string_equal(SHAPE(gather, &v, F32("V:9 M:4"), I32("B:2 S:3")), "f32 B:2 S:3 M:4");
    assert_string_equal(SHAPE(gather, &v, F32("B:2 V:9 M:4"), I32("B:2 S:3")), "f32 B:2 S:3 M:4");
    assert_string_equal(SHAPE(gather, &v, F32("B:5 V:9"), I32("B:2")), "label B is 5 in operand 1 and 2 in operand 2");
    assert_string_equal(SHAPE(gather, &v, F32("V:9"), I32("V:9")), "the index has the label V that it indexes");
    Attrs back = {.label = intern("V"), .size = 9, .labels = labels_of("V M")};
    assert_string_equal(SHAPE(scatter, &back, F32("B:2 S:3 M:4"), I32("B:2 S:3")), "f32 V:9 M:4");
    assert_string_equal(SHAPE(scatter, &back, F32("B:2 M:4"), I32("B:2 S:3")),
                        "label S of the index is missing in the values");
    assert_string_equal(SHAPE(scatter, &back, F32("B:2 M:4 D:2"), I32("B:2")),
                        "label D of the values is neither in the result nor in the index");
    assert_string_equal(SHAPE(update, &v, F32("V:9 M:4"), I32("B:2"), F32("M:4 B:2")), "f32 V:9 M:4");
    assert_string_equal(SHAPE(update, &v, F32("V:9 M:4"), I32("B:2"), F32("M:4")),
                        "the values have axes M where B, M is needed");
}

/* loop: sum of xs, and every prefix. */
static Inst *prefix_loop(Fixture *t, int64_t trip, const char **error) {
    Block *body = block_new(t->m, NULL);
    Type scalar = {.dtype = DT_i32}, row = type_of(DT_f32, "M:4");
    block_arg(t->m, body, &scalar, "i");
    Value *x = block_arg(t->m, body, &row, "x"), *sum = block_arg(t->m, body, &row, "sum");
    Builder b = {t->m, body, NULL, {0}};
    Value *next = build2(&b, OP_add, sum, x, NULL);
    vec_push(t->arena, body->results, next);
    vec_push(t->arena, body->results, next);
    Value *in[] = {F32("L:6 M:4"), F32("M:4")};
    return inst_new(t->m, OP_loop, (Loc){0}, 2, in, &(Attrs){.label = intern("L"), .trip = trip, .xs = 1, .carry = 1},
                    body, error);
}

static void loops_stack_in_front(void **state) {
    Fixture *t = *state;
    const char *error = NULL;
    Inst *loop = prefix_loop(t, 6, &error);
    assert_null(error);
    assert_int_equal(loop->nout, 2);
    assert_string_equal(type_text(t->arena, &loop->out[0]->type), "M:4");
    assert_string_equal(type_text(t->arena, &loop->out[1]->type), "L:6 M:4");
    assert_ptr_equal(loop->body->owner, loop);
    assert_null(prefix_loop(t, 5, &error));
    assert_string_equal(error, "label L is 6 in operand 1, and the loop runs 5 times");
    assert_null(prefix_loop(t, 0, &error));
    assert_string_equal(error, "a loop cannot run 0 times");
}

static void count_inst(Inst *inst, void *n) {
    ++*(int *)n;
    if (inst->op == OP_neg) inst_remove(inst);
}

static void blocks_can_be_edited(void **state) {
    Fixture *t = *state;
    Value *x = F32("M:4"), *y = build1(&t->b, OP_neg, x, NULL), *z = build2(&t->b, OP_add, y, y, NULL);
    vec_push(t->arena, t->f->body->results, z);
    inst_insert(t->f->body, z->def, prefix_loop(t, 6, NULL));
    assert_int_equal(block_uses(t->f->body, y), 2);
    block_replace(t->f->body, y, x);
    assert_int_equal(block_uses(t->f->body, y), 0);
    assert_int_equal(block_uses(t->f->body, x), 3);
    int n = 0;
    module_walk(t->m, count_inst, &n);
    assert_int_equal(n, 4); /* neg, loop, its add, add */
    assert_int_equal(t->f->body->first->op, OP_loop);
    assert_int_equal(t->f->body->first->next->op, OP_add);
    n = 0;
    block_walk(t->f->body, count_inst, &n);
    assert_int_equal(n, 3);
}

static void inference_keeps_shardings(void **state) {
    Fixture *t = *state;
    Value *x = F32("B:8 M:4"), *y = build1(&t->b, OP_neg, x, NULL);
    y->type = type_of(DT_f32, "B:8@x M:4@y");
    y->type.dim[0].pinned = true;
    x->type = type_of(DT_f32, "M:6 B:8");
    assert_null(inst_infer(t->m, y->def));
    assert_string_equal(type_text(t->arena, &y->type), "M:6 B:8@x"); /* y = 4 does not divide 6 */
    assert_true(y->type.dim[1].pinned);
    assert_int_equal(build_broadcast(&t->b, x, &y->type) == x, true);
    LabelList none = {0};
    assert_ptr_equal(build_reduce(&t->b, "sum", x, none), x);
    assert_int_equal(build_reduce(&t->b, "sum", BOOL("B:8"), none)->type.dtype, DT_i32);
}

static void clones_stand_alone(void **state) {
    Fixture *t = *state;
    Var *var = NEW(t->arena, Var);
    *var = (Var){.path = "w", .type = type_of(DT_f32, "M:4")};
    vec_push(t->arena, t->m->vars, var);
    Value *w = build_inst(&t->b, OP_read, 0, NULL, &(Attrs){.var = var}, NULL)->out[0];
    Inst *loop = prefix_loop(t, 6, NULL);
    inst_insert(t->f->body, NULL, loop);
    vec_push(t->arena, t->f->body->results, build2(&t->b, OP_add, loop->out[0], w, NULL));
    Arena *other = arena_new();
    Module *copy = module_clone(t->m, other);
    const Func *f = module_func(copy, "f", FUNC_entry);
    assert_non_null(f);
    assert_null(module_func(copy, "f", FUNC_train));
    assert_ptr_not_equal(module_var(copy, "w"), var);
    assert_ptr_equal(f->body->first->at.var, module_var(copy, "w"));
    Inst *again = f->body->first->next;
    assert_int_equal(again->op, OP_loop);
    assert_ptr_equal(again->in[0], f->body->args.at[0]);
    assert_ptr_equal(again->body->owner, again);
    assert_ptr_equal(again->body->first->in[0], again->body->args.at[2]);
    assert_ptr_equal(again->body->results.at[1], again->body->first->out[0]);
    assert_ptr_equal(f->body->results.at[0]->def, again->next);
    arena_free(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)
        TEST(elements_broadcast_by_label),
        TEST(sources_have_their_dims),
        TEST(contractions_and_folds),
        TEST(layout),
        TEST(indices),
        TEST(loops_stack_in_front),
        TEST(blocks_can_be_edited),
        TEST(inference_keeps_shardings),
        TEST(clones_stand_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
