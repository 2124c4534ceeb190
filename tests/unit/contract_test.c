/* contract_test.c: the chosen order against every order, on many small einsums; and what holds after the pass. */
#include "passes.h"

#include "irtest.h"

enum { LABELS = 6 };
static const int64_t sizes[LABELS] = {2, 3, 5, 7, 11, 4};

static uint32_t state_of_draws = 1;
static int draw(int below) {
    state_of_draws = state_of_draws * 1664525u + 1013904223u;
    return (int)((state_of_draws >> 8) % (uint32_t)below);
}

static double elements(int set) {
    double n = 1;
    for (int k = 0; k < LABELS; k++)
        if (set >> k & 1) n *= (double)sizes[k];
    return n;
}

static int set_of(const Type *t) {
    int set = 0;
    for (int k = 0; k < t->rank; k++) set |= 1 << (t->dim[k].label[0] - 'A');
    return set;
}

/* The least multiplications over all orders of pairs. */
static double best(int n, const int *sets, int result) {
    if (n == 1) return 0;
    double least = 1e30;
    for (int a = 0; a < n; a++)
        for (int b = a + 1; b < n; b++) {
            int rest[8], m = 0, outside = result;
            for (int k = 0; k < n; k++)
                if (k != a && k != b) outside |= rest[m++] = sets[k];
            rest[m++] = (sets[a] | sets[b]) & outside;
            double work = elements(sets[a] | sets[b]) + best(m, rest, result);
            if (work < least) least = work;
        }
    return least;
}

static Value *operand(Fixture *t, int set) {
    Str s = str_new(t->arena);
    str_add(&s, "");
    for (int k = 0; k < LABELS; k++)
        if (set >> k & 1) str_addf(&s, "%s%c:%d", s.n > 0 ? " " : "", 'A' + k, (int)sizes[k]);
    return value_of(t, DT_f32, s.at);
}

static double check_and_count(const Block *b) {
    double work = 0;
    for (const Inst *i = b->first; i != NULL; i = i->next) {
        if (i->op != OP_einsum && i->op != OP_mul) continue;
        assert_int_equal(i->nin, 2);
        int x = set_of(&i->in[0]->type), y = set_of(&i->in[1]->type), result = set_of(&i->out[0]->type);
        work += elements(x | y);
        if (i->op == OP_mul) continue;
        int summed = (x | y) & ~result;
        assert_int_not_equal(summed, 0);
        assert_int_equal(x & y & summed, summed);
    }
    return work;
}

static void test_orders(void **state) {
    for (int round = 0; round < 300; round++) {
        Fixture *t;
        fixture_set_up((void **)&t);
        int n = 2 + draw(4), sets[8], all = 0, result = 0, once[8];
        Value *in[8];
        for (int k = 0; k < n; k++) {
            sets[k] = draw(1 << LABELS);
            in[k] = operand(t, sets[k]);
            all |= sets[k];
        }
        for (int k = 0; k < LABELS; k++)
            if (all >> k & 1 && draw(2)) result |= 1 << k;
        LabelList labels = {0};
        for (int k = LABELS - 1; k >= 0; k--)
            if (result >> k & 1) labels.at[labels.n++] = intern_n(&"ABCDEF"[k], 1);
        vec_push(t->arena, t->f->body->results, build_einsum(&t->b, n, in, labels));
        vec_push(t->arena, t->f->result_names, "r");
        Type before = t->f->body->results.at[0]->type;
        PassCtx ctx = {.scratch = arena_new()};
        pass_contract(t->m, &ctx);
        assert_true(type_same_shape(&before, &t->f->body->results.at[0]->type));
        assert_null(module_verify(t->m, t->arena));
        /* What stands in one operand only is summed before. */
        for (int k = 0; k < n; k++) {
            int others = result;
            for (int j = 0; j < n; j++) others |= j == k ? 0 : sets[j];
            once[k] = sets[k] & others;
        }
        double work = check_and_count(t->f->body), least = best(n, once, result);
        if (work > least) fail_msg("%g multiplications where %g are enough", work, least);
        arena_free(ctx.scratch);
        fixture_tear_down((void **)&t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_orders)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
