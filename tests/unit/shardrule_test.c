/* Factors of instructions, dealing mesh axes to them, and what LOCAL accepts. The mesh is x=2, y=4, z=2. */
#include "irtest.h"

#define F32(text) value_of(t, DT_f32, text)
#define I32(text) value_of(t, DT_i32, text)

/* "K:8 sum, M:4 pass; in B K|K M out B M": the factors by number and the axes made of them. */
static const char *rule_text(Arena *a, const Inst *inst) {
    static const char *const kinds[] = {"pass", "sum", "max", "min", "whole"};
    const ShardRule *r = shard_rule(a, inst);
    if (r == NULL) return "none";
    Str s = str_new(a);
    for (int f = 0; f < r->nfactor; f++)
        str_addf(&s, "%s%s:%lld %s", f > 0 ? ", " : "", r->factor[f].label, (long long)r->factor[f].size,
                 kinds[r->factor[f].kind]);
    for (int side = 0; side < 2; side++) {
        str_add(&s, side == 0 ? ";" : " ->");
        int n = side == 0 ? inst->nin : inst->nout;
        for (int i = 0; i < n; i++) {
            const Type *t = &(side == 0 ? inst->in : inst->out)[i]->type;
            if (i > 0) str_add(&s, ",");
            for (int k = 0; k < t->rank; k++) {
                const DimFactors *d = &(side == 0 ? r->in : r->out)[i][k];
                str_add(&s, " ");
                for (int j = 0; j < d->n; j++) str_addf(&s, "%s%d", j > 0 ? "." : "", d->at[j]);
            }
        }
    }
    return s.at;
}

static Inst *relabel(Fixture *t, const char *x, const char *labels, const char *dims) {
    return build1(&t->b, OP_relabel, F32(x), &(Attrs){.labels = labels_of(labels), .dims = dims_of(dims)})->def;
}

static void one_factor_a_label(void **state) {
    Fixture *t = *state;
    Value *in[] = {F32("B:4 K:8"), F32("K:8 M:2")};
    assert_string_equal(rule_text(t->arena, build_einsum(&t->b, 2, in, labels_of("M B"))->def),
                        "B:4 pass, K:8 sum, M:2 pass; 0 1, 1 2 -> 2 0");
    assert_string_equal(rule_text(t->arena, build2(&t->b, OP_add, in[0], F32("B:4"), NULL)->def),
                        "B:4 pass, K:8 pass; 0 1, 0 -> 0 1");
    assert_string_equal(rule_text(t->arena, build_reduce(&t->b, "max", in[0], labels_of("B"))->def),
                        "B:4 max, K:8 pass; 0 1 -> 1");
    Value *any = value_of(t, DT_bool, "B:4");
    assert_string_equal(rule_text(t->arena, build_reduce(&t->b, "any", any, labels_of("B"))->def), "B:4 max; 0 ->");
    assert_string_equal(rule_text(t->arena, build1(&t->b, OP_cumsum, in[0], &(Attrs){.label = intern("K")})->def),
                        "B:4 pass, K:8 whole; 0 1 -> 0 1");
    assert_string_equal(rule_text(t->arena, build_slice(&t->b, in[0], intern("K"), 1, 2, intern("J"))->def),
                        "B:4 pass, K:8 whole, J:2 whole; 0 1 -> 0 2");
}

static void indices_have_rules(void **state) {
    Fixture *t = *state;
    Attrs v = {.label = intern("V"), .size = 8, .labels = labels_of("V M")};
    Value *table = F32("V:8 M:4"), *index = I32("B:2");
    Value *rows = build2(&t->b, OP_gather, table, index, &v);
    assert_string_equal(rule_text(t->arena, rows->def), "V:8 sum, M:4 pass, B:2 pass; 0 1, 2 -> 2 1");
    assert_string_equal(rule_text(t->arena, build2(&t->b, OP_scatter, rows, index, &v)->def),
                        "B:2 sum, M:4 pass, V:8 pass; 0 1, 0 -> 2 1");
    assert_string_equal(rule_text(t->arena, build3(&t->b, OP_update, table, index, rows, &v)->def),
                        "V:8 whole, M:4 pass, B:2 whole; 0 1, 2, 2 1 -> 0 1");
    assert_string_equal(rule_text(t->arena, build1(&t->b, OP_one_hot, index, &v)->def), "B:2 pass, V:8 pass; 0 -> 0 1");
}

static void relabels_are_refined(void **state) {
    Fixture *t = *state;
    assert_string_equal(rule_text(t->arena, relabel(t, "M:3 B:8", "B", "T:8")), "B:8 pass, M:3 pass; 1 0 -> 1 0");
    assert_string_equal(rule_text(t->arena, relabel(t, "B:8 S:6", "B S", "G:4 T:12")),
                        "G:4 pass, B:2 pass, S:6 pass; 0.1 2 -> 0 1.2");
    assert_string_equal(rule_text(t->arena, relabel(t, "D:8", "D", "J:2 I:4")), "J:2 pass, D:4 pass; 0.1 -> 0 1");
    assert_string_equal(rule_text(t->arena, relabel(t, "B:4 S:6", "B S", "G:6 T:4")),
                        "B:2 pass, B:2 whole, G:3 whole, S:6 whole, T:4 whole; 0.1 3 -> 0.2 4");
    assert_string_equal(rule_text(t->arena, relabel(t, "B:1 S:6", "B S", "G:6 T:1")),
                        "B:1 whole, S:6 pass, T:1 whole; 0 1 -> 1 2");
    /* A merge in another order than memory's. */
    assert_string_equal(rule_text(t->arena, relabel(t, "S:6 B:8", "B S", "T:48")), "B:8 pass, S:6 pass; 1 0 -> 0.1");
    /* More factors than an axis can hold: the rest is whole. */
    assert_string_equal(rule_text(t->arena, relabel(t, "A:2 B:2 C:2 D:2 E:2", "A B C D E", "T:32")),
                        "A:2 pass, B:2 pass, C:2 pass, D:2 whole, T:4 whole, E:2 whole; 0 1 2 3 5 -> 0.1.2.4");
}

static void axes_are_dealt_major_first(void **state) {
    Fixture *t = *state;
    Inst *inst = relabel(t, "B:4 S:8", "B S", "T:32");
    const ShardRule *r = shard_rule(t->arena, inst);
    const Mesh *mesh = &t->m->mesh;
    AxisList f[MAX_FACTORS] = {0};
    Type merged = type_of(DT_f32, "T:32@yx"), parts = type_of(DT_f32, "B:4 S:8");
    assert_true(rule_factors_of(r, mesh, r->out[0], &merged, f));
    rule_apply(r, mesh, f, r->in[0], &parts);
    assert_string_equal(type_text(t->arena, &parts), "B:4@y S:8@x");
    merged = type_of(DT_f32, "T:32@xy"); /* 2 of B, then 4 straddles B's other half and S */
    assert_false(rule_factors_of(r, mesh, r->out[0], &merged, f));
    /* S alone split cannot be said of T. */
    AxisList minor[MAX_FACTORS] = {{0}, axes_of("x")};
    rule_apply(r, mesh, minor, r->out[0], &merged);
    assert_string_equal(type_text(t->arena, &merged), "T:32");
}

/* Whether the device's block of t holds the element with this index in the merge of t's axes, major first. */
static bool holds(const Mesh *m, int64_t device, const Type *t, int64_t index) {
    bool all = true;
    for (int i = t->rank - 1; i >= 0; i--) {
        const Dim *d = &t->dim[i];
        all = all && index % d->size / dim_local(m, d) == mesh_index(m, device, &d->axes);
        index /= d->size;
    }
    return all;
}

static uint32_t random_state = 1;
static int below(int n) {
    random_state = random_state * 1664525 + 1013904223;
    return (int)(random_state >> 16) % n;
}

/* A text of axes with sizes that multiply to 2 * 2 * 2 * 2 * 3 * 3, in some order of the primes. */
static const char *random_axes(Arena *a, char first) {
    int primes[] = {2, 2, 2, 2, 3, 3};
    Str s = str_new(a);
    int size = 1;
    for (int n = 6; n > 0; n--) {
        int k = below(n);
        size *= primes[k];
        primes[k] = primes[n - 1];
        if (n > 1 && below(2)) continue;
        str_addf(&s, "%s%c:%d", s.n > 0 ? " " : "", first++, size);
        size = 1;
    }
    return s.at;
}

/* Random relabels, with random factors split: wherever both sides can say it, both blocks hold the same elements. */
static void factors_of_a_relabel_are_the_same_elements(void **state) {
    Fixture *t = *state;
    const Mesh *m = &t->m->mesh;
    int split = 0;
    for (int round = 0; round < 400; round++) {
        const char *from = random_axes(t->arena, 'A'), *to = random_axes(t->arena, 'P');
        Type x = type_of(DT_f32, from), y = type_of(DT_f32, to);
        Value *v = value_of(t, DT_f32, from);
        Attrs at = {.labels = type_labels(&x), .dims = dims_of(to)};
        Inst *inst = build1(&t->b, OP_relabel, v, &at)->def;
        const ShardRule *r = shard_rule(t->arena, inst);
        AxisList factors[MAX_FACTORS] = {0};
        for (int axis = 0; axis < m->n; axis++) {
            int f = below(r->nfactor);
            AxisList *list = &factors[f];
            if (r->factor[f].kind == FACTOR_pass && r->factor[f].size % (mesh_size(m, list) * m->size[axis]) == 0)
                axes_add(list, axis);
        }
        rule_apply(r, m, factors, r->in[0], &x);
        rule_apply(r, m, factors, r->out[0], &y);
        v->type = x;
        inst->out[0]->type = y;
        if (rule_check(t->arena, m, inst) != NULL) continue; /* one side cannot say it */
        split += type_axes_used(&x) != 0;
        for (int64_t device = 0; device < mesh_devices(m); device++)
            for (int64_t i = 0; i < type_elements(&x); i++)
                assert_int_equal(holds(m, device, &x, i), holds(m, device, &y, i));
    }
    assert_true(split > 50);
}

static Type partial(const char *text, PartialKind kind, const char *axes) {
    Type type = type_of(DT_f32, text);
    type.partial_kind = kind;
    type.partial = axes_of(axes);
    return type;
}

/* rule_check of an einsum [B,K] x [K,M] -> [B,M] with these shardings. */
static const char *einsum_check(Fixture *t, Type a, Type b, Type c) {
    Value *in[] = {block_arg(t->m, t->f->body, &a, NULL), block_arg(t->m, t->f->body, &b, NULL)};
    Value *out = build_einsum(&t->b, 2, in, labels_of("B M"));
    out->type = c;
    return rule_check(t->arena, &t->m->mesh, out->def);
}

static void local_means_that_factors_agree(void **state) {
    Fixture *t = *state;
#define T(text) type_of(DT_f32, text)
    assert_null(einsum_check(t, T("B:4@x K:8"), T("K:8 M:4@y"), T("B:4@x M:4@y")));
    assert_null(einsum_check(t, T("B:4 K:8@xz"), T("K:8@xz M:4@y"), partial("B:4 M:4@y", PARTIAL_sum, "zx")));
    assert_string_equal(einsum_check(t, T("B:4 K:8@x"), T("K:8@x M:4"), T("B:4 M:4")),
                        "result 1 is partial along () where the operands make it partial along (x)");
    assert_string_equal(einsum_check(t, T("B:4 K:8@x"), T("K:8@z M:4"), T("B:4 M:4")),
                        "label K is split over (z) in operand 2 and over (x) elsewhere");
    assert_string_equal(einsum_check(t, T("B:4@x K:8"), T("K:8 M:4@x"), T("B:4@x M:4@x")),
                        "label M is split over (x), and another label over one of these too");
    assert_string_equal(einsum_check(t, T("B:4@x K:8"), T("K:8 M:4"), T("B:4 M:4")),
                        "label B is split over () in result 1 and over (x) elsewhere");
}

static void partial_operands_need_linear_ops(void **state) {
    Fixture *t = *state;
    Type whole = T("B:4 K:8"), px = partial("B:4 K:8", PARTIAL_sum, "x"), w = T("K:8 M:4");
    assert_null(einsum_check(t, px, w, partial("B:4 M:4", PARTIAL_sum, "x")));
    assert_null(
        einsum_check(t, partial("B:4 K:8@y", PARTIAL_sum, "x"), T("K:8@y M:4"), partial("B:4 M:4", PARTIAL_sum, "xy")));
    assert_non_null(einsum_check(t, px, partial("K:8 M:4", PARTIAL_sum, "x"), partial("B:4 M:4", PARTIAL_sum, "x")));
    assert_string_equal(einsum_check(t, px, T("K:8 M:4@x"), partial("B:4 M:4@x", PARTIAL_sum, "x")),
                        "an operand is partial along an axis that splits a label");
    struct {
        Op op;
        Type a, b, out;
        bool ok;
    } rows[] = {
        {OP_add, px, px, px, true},     {OP_add, px, whole, px, false},  {OP_mul, px, whole, px, true},
        {OP_mul, whole, px, px, true},  {OP_mul, px, px, px, false},     {OP_div, px, whole, px, true},
        {OP_div, whole, px, px, false}, {OP_maximum, px, px, px, false}, {OP_mul, px, whole, whole, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Value *a = block_arg(t->m, t->f->body, &rows[i].a, NULL), *b = block_arg(t->m, t->f->body, &rows[i].b, NULL);
        Value *out = build2(&t->b, rows[i].op, a, b, NULL);
        out->type = rows[i].out;
        assert_int_equal(rule_check(t->arena, &t->m->mesh, out->def) == NULL, rows[i].ok);
    }
    Value *x = block_arg(t->m, t->f->body, &px, NULL);
    Value *max = build_reduce(&t->b, "max", x, labels_of("K")), *sum = build_reduce(&t->b, "sum", x, labels_of("K"));
    max->type = sum->type = partial("B:4", PARTIAL_sum, "x");
    assert_non_null(rule_check(t->arena, &t->m->mesh, max->def));
    assert_null(rule_check(t->arena, &t->m->mesh, sum->def));
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)
        TEST(one_factor_a_label),
        TEST(indices_have_rules),
        TEST(relabels_are_refined),
        TEST(axes_are_dealt_major_first),
        TEST(factors_of_a_relabel_are_the_same_elements),
        TEST(local_means_that_factors_agree),
        TEST(partial_operands_need_linear_ops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
