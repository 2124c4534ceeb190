/* The collectives that `place` chooses for a reshard between random shardings of random types are the identity: the
 * interpreter gives back the argument to the bit, partial sums resolved. */
#include "sharded.h"

static Module *new_module(Arena *a) {
    Module *m = module_new(a);
    m->mesh = random_mesh();
    m->phase = PHASE_LOCAL;
    func_new(m, "f", FUNC_entry, (Loc){0, 0, 0});
    return m;
}

static Type random_type(void) {
    static const char *const label[] = {"A", "B", "C", "D"};
    static const int size[] = {1, 2, 4, 6, 8, 12};
    Type t = {.dtype = rng(2) ? DT_f32 : DT_i32, .rank = 1 + rng(4)};
    for (int d = 0; d < t.rank; d++) t.dim[d] = (Dim){.label = intern(label[d]), .size = size[rng(6)]};
    return t;
}

static void add_result(Module *m, Value *v, const char *name) {
    Func *f = m->funcs.at[0];
    vec_push(m->arena, f->body->results, v);
    vec_push(m->arena, f->result_names, intern(name));
}

static Value *add_reshard(Module *m, Value *x, unsigned allowed) {
    Inst *in = inst_new(m, OP_reshard, (Loc){0, 0, 0}, 1, &x, NULL, NULL, NULL);
    random_sharding(&m->mesh, &in->out[0]->type, allowed);
    inst_insert(m->funcs.at[0]->body, NULL, in);
    return in->out[0];
}

static void place_and_compare(Module *m, Arena *a) {
    Block *b = m->funcs.at[0]->body;
    Tensor *args = NEW_ARRAY(a, Tensor, b->args.n);
    for (int i = 0; i < b->args.n; i++) {
        Type whole = type_unsharded(&b->args.at[i]->type);
        args[i] = random_tensor(a, &whole);
    }
    Module *before = module_clone(m, a);
    run_pass(m, pass_place, PHASE_PLACED);
    assert_same_results(before, m, args, false, a);
}

static void test_reshard_is_identity(void **state) {
    for (int i = 0; i < 600; i++) {
        Arena *a = arena_new();
        rng_seed((uint64_t)i);
        Module *m = new_module(a);
        Type t = random_type();
        random_sharding(&m->mesh, &t, ~0u);
        Value *x = block_arg(m, m->funcs.at[0]->body, &t, "x");
        Value *y = add_reshard(m, x, ~0u);
        add_result(m, y, "y");
        add_result(m, add_reshard(m, rng(2) ? x : y, ~0u), "z");
        place_and_compare(m, a);
        arena_free(a);
    }
}

/* reduce over a split axis, then to wherever. */
static void test_partial_is_resolved(void **state) {
    static const char *const kind[] = {"sum", "max", "min"};
    for (int i = 0; i < 400; i++) {
        Arena *a = arena_new();
        rng_seed((uint64_t)i + 1000);
        Module *m = new_module(a);
        Type t = random_type();
        if (t.rank == 4) t.rank = 3;
        t.dim[t.rank++] = (Dim){.label = intern("K"), .size = 24};
        random_sharding(&m->mesh, &t, ~0u);
        Value *x = block_arg(m, m->funcs.at[0]->body, &t, "x");
        int k = rng(3);
        Attrs at = {.kind = intern(kind[k]), .labels = {1, {intern("K")}}};
        Inst *in = inst_new(m, OP_reduce, (Loc){0, 0, 0}, 1, &x, &at, NULL, NULL);
        inst_insert(m->funcs.at[0]->body, NULL, in);
        Type *r = &in->out[0]->type;
        for (int d = 0; d < r->rank; d++) {
            r->dim[d].axes = t.dim[d].axes;
            r->dim[d].pinned = t.dim[d].pinned;
        }
        AxisList over = t.dim[t.rank - 1].axes;
        for (int axis = 0; axis < m->mesh.n; axis++)
            if (axes_has(&over, axis)) axes_add(&r->partial, axis);
        if (r->partial.n > 0) r->partial_kind = k == 0 ? PARTIAL_sum : k == 1 ? PARTIAL_max : PARTIAL_min;
        add_result(m, add_reshard(m, in->out[0], ~0u), "y");
        place_and_compare(m, a);
        arena_free(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reshard_is_identity),
                                       cmocka_unit_test(test_partial_is_resolved)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
