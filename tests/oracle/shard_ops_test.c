/* The table loop for sharding rules: every op of ops.def, with random shapes, its operands split at random and its
 * results wanted in another random sharding, goes through propagate, partition and place, and gives on the mesh's
 * devices what it gives on one, to the bit (the values are integers, so sums are exact in any order).
 *
 * Then random programs of such ops, in which values are used again, annotated here and there. */
#include "samples.h"

enum { ROUNDS = 60, PROGRAMS = 400 };

static Sample sample_new(Arena *a, Op op) {
    Module *m = module_new(a);
    m->mesh = random_mesh();
    return sample_in(m, "f", op);
}

static void compile_and_compare(Sample *s, bool f64) {
    Block *b = s->body;
    Tensor *args = NEW_ARRAY(s->arena, Tensor, b->args.n + 1);
    for (int i = 0; i < b->args.n; i++) {
        Type whole = type_unsharded(&b->args.at[i]->type);
        args[i] = random_tensor(s->arena, &whole);
    }
    Module *before = module_clone(s->m, s->arena);
    run_pass(s->m, pass_propagate, PHASE_SHARDED);
    run_pass(s->m, pass_partition, PHASE_LOCAL);
    run_pass(s->m, pass_place, PHASE_PLACED);
    assert_same_results(before, s->m, args, f64, s->arena);
}

static void test_round(Op op, int round) {
    Arena *a = arena_new();
    rng_seed((uint64_t)(round * OP_COUNT + (int)op));
    Sample s = sample_new(a, op);
    sample_of[op](&s);
    compile_and_compare(&s, false);
    arena_free(a);
}

/* Ops that keep integers: in double their sums are exact for as long as these programs are. */
static void test_programs(void **state) {
    static const Op ops[] = {OP_add,   OP_sub,    OP_mul,     OP_maximum, OP_neg,   OP_abs,
                             OP_where, OP_einsum, OP_reduce,  OP_cumsum,  OP_top_k, OP_slice,
                             OP_pad,   OP_gather, OP_scatter, OP_update,  OP_loop,  OP_relabel};
    for (int i = 0; i < PROGRAMS; i++) {
        Arena *a = arena_new();
        rng_seed((uint64_t)i + 5000);
        Sample s = sample_new(a, OP_add);
        s.program = true;
        for (int n = 2 + rng(6); n > 0; n--) {
            s.op = ops[rng((int)(sizeof ops / sizeof *ops))];
            sample_of[s.op](&s);
        }
        s.program = false;
        for (int k = 0; k < s.pool.n; k++) result(&s, s.pool.at[k]);
        compile_and_compare(&s, true);
        arena_free(a);
    }
}

static void test_every_op(void **state) {
    for (int op = 0; op < OP_COUNT; op++) {
        bool here = op_info[op].phases >> PHASE_ANNOTATED & 1;
        for (int round = 0; here && op != OP_grad && op != OP_take && round < ROUNDS; round++)
            test_round((Op)op, round);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_op), cmocka_unit_test(test_programs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
