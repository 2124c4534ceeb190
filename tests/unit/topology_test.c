/* Machines described by text: their levels, which mesh axes cross which, and that farther costs more. */
#include "irtest.h"
#include "passes.h"

static const Topology *load(Arena *a, const char *spec) {
    const char *error = NULL;
    const Topology *t = topology_load(a, spec, &error);
    assert_null(error);
    assert_non_null(t);
    return t;
}

static Mesh mesh_of(int64_t x, int64_t y, int64_t z) {
    return (Mesh){3, {intern("x"), intern("y"), intern("z")}, {x, y, z}};
}

static const char *level(const Topology *t, const Mesh *m, const char *letters) {
    AxisList axes = axes_of(letters);
    return topology_level_name(t, topology_level_of(t, m, &axes));
}

static void levels_come_from_the_description(void **state) {
    Arena *a = arena_new();
    const Topology *t = load(a, "pack:2 numa:1 core:4 pu:1");
    assert_string_equal(topology_summary(t), "8 cores, 2 packages, 1 machine");
    assert_int_equal(topology_levels(t), 2);
    t = load(a, "pack:2 numa:2 l3:2 core:4 pu:2");
    assert_string_equal(topology_summary(t), "32 cores, 8 L3s, 4 NUMA nodes, 2 packages, 1 machine");
    t = load(a, "pu:1");
    assert_string_equal(topology_summary(t), "1 core, 1 machine");
    t = load(a, "auto");
    assert_true(topology_levels(t) >= 1);
    arena_free(a);
}

static void axes_cross_levels_by_their_place(void **state) {
    Arena *a = arena_new();
    const Topology *t = load(a, "pack:2 l3:2 core:2 pu:1");
    Mesh m = mesh_of(2, 2, 2);
    assert_string_equal(level(t, &m, "z"), "L3");
    assert_string_equal(level(t, &m, "y"), "package");
    assert_string_equal(level(t, &m, "yz"), "package");
    assert_string_equal(level(t, &m, "x"), "machine");
    assert_string_equal(level(t, &m, ""), "L3");
    m = mesh_of(4, 1, 2);
    assert_string_equal(level(t, &m, "x"), "machine");
    assert_string_equal(level(t, &m, "z"), "L3");
    /* Sixteen devices on eight cores: neighbours share one. */
    m = mesh_of(4, 2, 2);
    assert_string_equal(level(t, &m, "yz"), "L3");
    assert_string_equal(level(t, &m, "x"), "machine");
    /* Two devices on eight cores. */
    m = mesh_of(1, 1, 2);
    assert_string_equal(level(t, &m, "z"), "machine");
    arena_free(a);
}

static void bad_descriptions_are_refused(void **state) {
    static const char *const bad[] = {
        "", "nonsense", "pack:0", "core:4 pack:2", "/nonexistent/topology.xml", "/dev/null", "core:99999999999"};
    Arena *a = arena_new();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *error = NULL;
        assert_null(topology_load(a, bad[i], &error));
        assert_non_null(error);
    }
    arena_free(a);
}

static void farther_and_more_cost_more(void **state) {
    Arena *a = arena_new();
    const Topology *t = load(a, "pack:2 l3:2 core:2 pu:1");
    Mesh m = mesh_of(2, 2, 2);
    AxisList x = axes_of("x"), z = axes_of("z"), xz = axes_of("xz"), none = {0};
    double near = cost_collective(t, &m, OP_all_gather, &z, 1 << 20);
    assert_true(cost_collective(t, &m, OP_all_gather, &x, 1 << 20) > near);
    assert_true(cost_collective(t, &m, OP_all_gather, &z, 1 << 21) > near);
    assert_true(cost_collective(t, &m, OP_all_gather, &xz, 0) > cost_collective(t, &m, OP_all_gather, &x, 0));
    assert_true(cost_collective(t, &m, OP_all_reduce, &z, 0) > cost_collective(t, &m, OP_all_gather, &z, 0));
    assert_true(cost_collective(t, &m, OP_all_reduce, &none, 0) == 0);
    assert_true(cost_collective(NULL, &m, OP_all_gather, &z, 1 << 20) > 0);
    arena_free(a);
}

static int64_t received(Fixture *t, Op op, const char *from, const char *to, const char *axes) {
    Value *x = value_of(t, DT_f32, from);
    Value *y = build1(&t->b, op, x, &(Attrs){.axes = axes_of(axes)});
    y->type = type_of(DT_f32, to);
    return inst_bytes_received(&t->m->mesh, y->def);
}

/* The fixture's mesh is x=2, y=4, z=2. */
static void bytes_are_what_a_device_lacks(void **state) {
    Fixture *t = *state;
    assert_int_equal(received(t, OP_all_gather, "A:64@y", "A:64", "y"), 48 * 4);
    assert_int_equal(received(t, OP_all_to_all, "A:64@y B:8", "A:64 B:8@y", "y"), 64 * 8 / 4 / 4 * 3 * 4);
    assert_int_equal(received(t, OP_all_reduce, "A:64", "A:64", "y"), 2 * 48 * 4);
    assert_int_equal(received(t, OP_reduce_scatter, "A:64", "A:64@y", "y"), 48 * 4);
    assert_int_equal(received(t, OP_permute, "A:64@xz", "A:64@zx", ""), 16 * 4);
    assert_int_equal(received(t, OP_shard_slice, "A:64", "A:64@x", "x"), 0);
}

static void operations_are_local(void **state) {
    Fixture *t = *state;
    const Mesh *m = &t->m->mesh;
    Value *in[] = {value_of(t, DT_f32, "B:8@x K:16@y"), value_of(t, DT_f32, "K:16@y N:32")};
    assert_true(inst_flops(m, build_einsum(&t->b, 2, in, labels_of("B N"))->def) == 2 * 4 * 4 * 32);
    Value *sum = build2(&t->b, OP_add, in[0], in[0], NULL);
    sum->type = in[0]->type;
    assert_true(inst_flops(m, sum->def) == 4 * 4);
    AxisList axes = inst_axes(m, build1(&t->b, OP_permute, value_of(t, DT_f32, "A:64@yxz"), NULL)->def);
    assert_int_equal(axes.n, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_come_from_the_description),
        cmocka_unit_test(axes_cross_levels_by_their_place),
        cmocka_unit_test(bad_descriptions_are_refused),
        cmocka_unit_test(farther_and_more_cost_more),
        cmocka_unit_test_setup_teardown(bytes_are_what_a_device_lacks, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(operations_are_local, fixture_set_up, fixture_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
