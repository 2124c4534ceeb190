/* The collectives that the search finds for known reshards, and that no move is counted with other bytes than the
 * report counts for the instruction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "sharding.h"
#include "support/intern.h"
#include "support/str.h"

/* "A@xy B !z": axes of 24 * 1024 elements, their mesh axes by first letter, partial sums after "!". */
static Type type_of(const Mesh *m, const char *text) {
    Type t = {.dtype = DT_f32};
    AxisList *axes = NULL;
    for (const char *c = text; *c != 0; c++) {
        if (*c >= 'A' && *c <= 'Z') {
            t.dim[t.rank] = (Dim){.label = intern_n(c, 1), .size = 24 << 10};
            axes = &t.dim[t.rank++].axes;
        } else if (*c == '!') {
            axes = &t.partial;
            t.partial_kind = PARTIAL_sum;
        } else if (*c >= 'a' && *c <= 'z') {
            axes_add(axes, mesh_axis(m, intern_n(c, 1)));
        }
    }
    return t;
}

static Mesh small_mesh(void) {
    Mesh m = {.n = 4, .size = {2, 4, 2, 3}};
    for (int i = 0; i < m.n; i++) m.name[i] = intern_n(&"xyzt"[i], 1);
    return m;
}

static const char *moves(Arena *a, const ReshardPath *p) {
    Str s = str_new(a);
    str_add(&s, "");
    for (int i = 0; i < p->n; i++) str_addf(&s, "%s%s", i > 0 ? " " : "", op_info[p->move[i].op].name);
    return s.at;
}

static void test_known_paths(void **state) {
    static const struct {
        const char *from, *to, *moves;
    } cases[] = {
        {"A B", "A B", ""},
        {"A@x", "A@x", ""},
        {"A B", "A@x B", "shard_slice"},
        {"A B", "A@yx B@t", "shard_slice shard_slice"},
        {"A@x", "A", "all_gather"},
        {"A@xy", "A", "all_gather"},
        {"A@x B@y", "A B", "all_gather all_gather"},
        {"A@xy B", "A@x B@y", "all_to_all"},
        {"A@xy B", "A B@xy", "all_to_all"},
        {"A@xy", "A@yx", "permute"},
        {"A@x B@z", "A@z B@x", "permute"},
        {"A@yx", "A@y", "all_gather"},
        {"A@yx", "A@x", "permute all_gather"},
        {"A !x", "A", "all_reduce"},
        {"A !xy", "A", "all_reduce"},
        {"A !xy", "A@xy", "reduce_scatter"},
        {"A B !x", "A B@x", "reduce_scatter"},
        {"A !xy", "A@x", "reduce_scatter all_reduce"},
        {"A@x B !y", "A@x B", "all_reduce"},
    };
    Arena *a = arena_new();
    Mesh m = small_mesh();
    Resharder *r = resharder_new(a, &m, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Type from = type_of(&m, cases[i].from), to = type_of(&m, cases[i].to);
        const char *found = moves(a, reshard_path(r, &from, &to));
        if (strcmp(found, cases[i].moves) != 0)
            fail_msg("%s -> %s: %s, not %s", cases[i].from, cases[i].to, found, cases[i].moves);
    }
    arena_free(a);
}

static void test_bytes_are_those_of_the_report(void **state) {
    static const char *const types[] = {"A@xy B", "A B@x !y", "A@yx B@z", "A@z B@yx", "A B", "A@t B !xz", "A@x B@t"};
    Arena *a = arena_new();
    Module *mod = module_new(a);
    mod->mesh = small_mesh();
    Resharder *r = resharder_new(a, &mod->mesh, NULL);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
            Type from = type_of(&mod->mesh, types[i]), to = type_of(&mod->mesh, types[k]);
            if (to.partial.n > 0) continue;
            const ReshardPath *p = reshard_path(r, &from, &to);
            Value *x = value_new(mod, &from);
            for (int n = 0; n < p->n; n++) {
                Type next = move_apply(&p->move[n], &x->type);
                Value *y = value_new(mod, &next);
                Inst in = {.op = p->move[n].op, .nin = 1, .nout = 1, .in = &x, .out = &y, .at.axes = p->move[n].axes};
                assert_int_equal(p->move[n].bytes, inst_bytes_received(&mod->mesh, &in));
                x = y;
            }
            assert_true(type_same_sharding(&x->type, &to));
        }
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known_paths),
                                       cmocka_unit_test(test_bytes_are_those_of_the_report)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
