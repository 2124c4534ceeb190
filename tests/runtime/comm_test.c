/* comm_test.c: every collective against its definition, element by element, on 1 to 8 devices.
 *
 * Random programs: kinds, element types, ranks, axes and shapes are drawn; all collectives of a program run back to
 * back in one job, so a source that is reused too early shows as a wrong value. Values are small integers, so sums are
 * exact in every type. With MOE_CHAOS set, delays are injected; the Makefile's tsan variant runs the same. Under
 * mpirun, the devices are dealt to the ranks, each of which checks its own (tests/e2e/mpi.py starts it so). */
#include "ranks.h"
#include "rt_test.h"

enum { COLLS = 24, ARENA = 8 << 20 };

static int64_t count(const int64_t *at, int n) {
    int64_t p = 1;
    for (int i = 0; i < n; i++) p *= at[i];
    return p;
}

static void random_axes(const MoeProgram *p, MoeAxes *out, int at_least) {
    do {
        out->n = 0;
        for (int a = 0; a < p->naxes; a++)
            if (test_random(2)) out->at[out->n++] = a;
    } while (out->n < at_least);
    if (out->n > 1 && test_random(2)) {
        int t = out->at[0];
        out->at[0] = out->at[1];
        out->at[1] = t;
    }
}

/* permute: axes of a random subset dealt to the labels, then dealt again with the same number of blocks each. */
static void random_permute(const MoeProgram *p, MoeColl *c) {
    for (int a = 0; a < p->naxes; a++) {
        MoeAxes *d = &c->in_axes[test_random((uint32_t)c->rank)];
        d->at[d->n++] = a;
    }
    memcpy(c->out_axes, c->in_axes, sizeof c->out_axes);
    for (int i = 0; i < c->rank; i++) { /* all axes have size 2: any rearrangement keeps the block sizes */
        int k = (int)test_random((uint32_t)c->rank);
        if (c->out_axes[i].n != c->out_axes[k].n) continue;
        MoeAxes t = c->out_axes[i];
        c->out_axes[i] = c->out_axes[k];
        c->out_axes[k] = t;
    }
    for (int i = 0; i < c->rank; i++)
        if (c->out_axes[i].n == 2 && test_random(2)) {
            int t = c->out_axes[i].at[0];
            c->out_axes[i].at[0] = c->out_axes[i].at[1];
            c->out_axes[i].at[1] = t;
        }
}

static MoeColl random_coll(const MoeProgram *p) {
    MoeColl c = {.kind = (MoeCollKind)test_random(5), .fold = (MoeFold)test_random(3), .where = "test"};
    c.dtype = (MoeDType)test_random(5);
    if (c.dtype == MOE_bool && c.fold == MOE_sum) c.fold = MOE_max;
    c.rank = 1 + (int)test_random(4);
    random_axes(p, &c.axes, p->naxes > 0);
    int64_t group = mesh_product(p, &c.axes);
    for (int i = 0; i < c.rank; i++) c.in[i] = 1 + test_random(i == c.rank - 1 ? 40 : 6);
    if (test_random(4) == 0) c.in[c.rank - 1] *= 67;
    c.join = (int)test_random((uint32_t)c.rank);
    c.split = (int)test_random((uint32_t)c.rank);
    if (c.kind == MOE_reduce_scatter || c.kind == MOE_all_to_all) c.in[c.split] *= group;
    memcpy(c.out, c.in, sizeof c.out);
    if (c.kind == MOE_reduce_scatter || c.kind == MOE_all_to_all) c.out[c.split] /= group;
    if (c.kind == MOE_all_gather || c.kind == MOE_all_to_all) c.out[c.join] *= group;
    if (c.kind == MOE_permute) random_permute(p, &c);
    return c;
}

static int value_of(int coll, int device, int64_t index, MoeDType t) {
    MoePhilox r = moe_philox((uint32_t)coll, (uint32_t)device, (uint32_t)index, 0, 0, 0);
    return t == MOE_bool ? (int)(r.x0 & 1) : (int)(r.x0 % 31) - 15;
}

static void store(void *at, int64_t i, MoeDType t, int v) {
    if (t == MOE_f32) ((float *)at)[i] = (float)v;
    if (t == MOE_bf16) ((uint16_t *)at)[i] = moe_to_bf16((float)v);
    if (t == MOE_f16) ((uint16_t *)at)[i] = moe_to_f16((float)v);
    if (t == MOE_i32) ((int32_t *)at)[i] = v;
    if (t == MOE_bool) ((uint8_t *)at)[i] = (uint8_t)v;
}

static int load(const void *at, int64_t i, MoeDType t) {
    if (t == MOE_f32) return (int)((const float *)at)[i];
    if (t == MOE_bf16) return (int)moe_from_bf16(((const uint16_t *)at)[i]);
    if (t == MOE_f16) return (int)moe_from_f16(((const uint16_t *)at)[i]);
    if (t == MOE_i32) return ((const int32_t *)at)[i];
    return ((const uint8_t *)at)[i];
}

/* The device of rank h in the group of `device`. */
static int member(const MoeProgram *p, const MoeAxes *axes, int device, int64_t h) {
    for (int d = 0; d < p->devices; d++) {
        int64_t a[MOE_MAX_AXES], b[MOE_MAX_AXES];
        mesh_coord(p, d, a);
        mesh_coord(p, device, b);
        bool same = true;
        for (int x = 0; x < p->naxes; x++) {
            bool in = false;
            for (int k = 0; k < axes->n; k++) in |= axes->at[k] == x;
            same &= in || a[x] == b[x];
        }
        if (same && mesh_position(p, a, axes) == h) return d;
    }
    fail_msg("no member");
    return -1;
}

static int64_t linear(const int64_t *index, const int64_t *size, int rank) {
    int64_t at = 0;
    for (int i = 0; i < rank; i++) at = at * size[i] + index[i];
    return at;
}

static int fold(MoeFold f, int a, int b) {
    return f == MOE_sum ? a + b : f == MOE_max ? (a > b ? a : b) : (a < b ? a : b);
}

/* The definition: element `index` of the result on `device`. */
static int expected(const MoeProgram *p, const MoeColl *c, int coll, int device, const int64_t *index) {
    int64_t at[MOE_MAX_RANK], coord[MOE_MAX_AXES], group = mesh_product(p, &c->axes);
    memcpy(at, index, sizeof at);
    mesh_coord(p, device, coord);
    int64_t me = mesh_position(p, coord, &c->axes), h = 0;
    if (c->kind == MOE_permute) {
        for (int d = 0; d < p->devices; d++) {
            int64_t other[MOE_MAX_AXES];
            mesh_coord(p, d, other);
            bool holds = true;
            for (int i = 0; i < c->rank; i++)
                holds &= mesh_position(p, other, &c->in_axes[i]) == mesh_position(p, coord, &c->out_axes[i]);
            if (holds) return value_of(coll, d, linear(at, c->in, c->rank), c->dtype);
        }
        fail_msg("nobody holds the block");
    }
    if (c->kind == MOE_all_to_all && c->split == c->join) {
        int64_t block = c->in[c->split] / group;
        h = at[c->join] / block;
        at[c->split] = at[c->split] % block + me * block;
    } else {
        if (c->kind == MOE_all_gather || c->kind == MOE_all_to_all)
            h = at[c->join] / c->in[c->join], at[c->join] %= c->in[c->join];
        if (c->kind == MOE_reduce_scatter || c->kind == MOE_all_to_all) at[c->split] += me * c->out[c->split];
    }
    int64_t i = linear(at, c->in, c->rank);
    if (c->kind == MOE_all_gather || c->kind == MOE_all_to_all)
        return value_of(coll, member(p, &c->axes, device, h), i, c->dtype);
    int v = value_of(coll, member(p, &c->axes, device, 0), i, c->dtype);
    for (h = 1; h < group; h++) v = fold(c->fold, v, value_of(coll, member(p, &c->axes, device, h), i, c->dtype));
    return v;
}

/* All collectives share one source buffer and each has its own result. */
typedef struct Plan {
    int64_t dst[COLLS];
} Plan;

static void run_all(Worker *w, void *ctx) {
    const Plan *plan = ctx;
    const MoeProgram *p = w->team->program;
    for (int i = 0; i < p->ncolls; i++) {
        const MoeColl *c = &p->colls[i];
        int64_t lo, hi;
        moe_range(&w->pub, count(c->in, c->rank), 1, &lo, &hi);
        for (int64_t k = lo; k < hi; k++) store(w->pub.arena, k, c->dtype, value_of(i, w->pub.device, k, c->dtype));
        moe_barrier(&w->pub);
        moe_coll(&w->pub, i, w->pub.arena, w->pub.arena + plan->dst[i]);
    }
}

static void check_program(int naxes, int64_t *size, int workers) {
    MoeProgram p = test_mesh(naxes, size);
    MoeColl colls[COLLS];
    Plan plan;
    int64_t top = 1 << 20;
    for (int i = 0; i < COLLS; i++) {
        do {
            colls[i] = random_coll(&p);
        } while ((size[0] != size[1] && colls[i].kind == MOE_permute) || count(colls[i].in, colls[i].rank) > 40000 ||
                 count(colls[i].out, colls[i].rank) > 40000);
        plan.dst[i] = top;
        top += (count(colls[i].out, colls[i].rank) * 4 + 63) / 64 * 64;
    }
    p.ncolls = COLLS;
    p.colls = colls;
    if (p.devices % ranks_count()) return;
    Team *t = test_team(&p, workers, (size_t)top);
    if (!team_run(t, run_all, &plan)) fail_msg("%s", t->error.text);
    for (int d = t->first; d < t->first + t->local; d++)
        for (int i = 0; i < COLLS; i++) {
            const MoeColl *c = &colls[i];
            int64_t index[MOE_MAX_RANK] = {0}, n = count(c->out, c->rank), step = n > 3000 ? 17 : 1;
            for (int64_t k = 0; k < n; k += step) {
                int64_t left = k;
                for (int x = c->rank - 1; x >= 0; x--) index[x] = left % c->out[x], left /= c->out[x];
                int want = expected(&p, c, i, d, index), got = load(t->device[d].arena + plan.dst[i], k, c->dtype);
                if (want != got)
                    fail_msg("collective %d (kind %d, %s), device %d, element %d: %d, expected %d", i, (int)c->kind,
                             dtype_text(c->dtype), d, (int)k, got, want);
            }
        }
    team_free(t);
}

static void check_meshes(void) {
    int64_t twos[] = {2, 2, 2},
            unequal[][2] = {{3, 2}, {2, 3}, {3, 4}}; /* some groups are within a rank, some are not */
    for (int round = 0; round < 3; round++)
        for (int naxes = 0; naxes <= 3; naxes++)
            for (int workers = 1; workers <= 3; workers += 2) check_program(naxes, twos, workers);
    for (int i = 0; i < 3; i++)
        for (int workers = 1; workers <= 2; workers++) check_program(2, unequal[i], workers);
}

static void test_definitions(void **state) {
    check_meshes();
}

static void test_chaos(void **state) {
    setenv("MOE_CHAOS", "7", 1);
    check_meshes();
    unsetenv("MOE_CHAOS");
}

/* f32 sums that are not exact: the same bits on all devices, by both algorithms, and equal to the sum in rank order. */
enum { BIG = 100003, SMALL = 1000 };

static void run_sums(Worker *w, void *ctx) {
    float *x = (float *)w->pub.arena;
    for (int64_t k = 0; k < BIG && w->pub.worker == 0; k++)
        x[k] = moe_normal(3, (uint32_t)w->pub.device, (uint64_t)k, 0, 0);
    moe_barrier(&w->pub);
    moe_coll(&w->pub, 0, x, x + BIG + 13);
    moe_coll(&w->pub, 1, x, x + 2 * BIG + 13);
}

static void test_rank_order(void **state) {
    int64_t size[] = {2, 4};
    MoeProgram p = test_mesh(2, size);
    MoeColl c[2] = {{.kind = MOE_all_reduce,
                     .fold = MOE_sum,
                     .dtype = MOE_f32,
                     .axes = {2, {0, 1}},
                     .rank = 1,
                     .in = {BIG},
                     .out = {BIG},
                     .where = "t"}};
    c[1] = c[0];
    c[1].in[0] = c[1].out[0] = SMALL;
    p.ncolls = 2;
    p.colls = c;
    if (p.devices % ranks_count()) return;
    Team *t = test_team(&p, 2, 4 * BIG * 4);
    assert_true(team_run(t, run_sums, NULL));
    for (int64_t k = 0; k < BIG; k++) {
        float sum = moe_normal(3, 0, (uint64_t)k, 0, 0);
        for (uint32_t d = 1; d < 8; d++) sum += moe_normal(3, d, (uint64_t)k, 0, 0);
        for (int d = t->first; d < t->first + t->local; d++) {
            float *x = (float *)t->device[d].arena;
            assert_memory_equal(&x[BIG + 13 + k], &sum, 4);
            if (k < SMALL) assert_memory_equal(&x[2 * BIG + 13 + k], &sum, 4);
        }
    }
    team_free(t);
}

/* One rank fails before its collective: the others are waiting for it, and must come back. */
static void run_fail(Worker *w, void *ctx) {
    if (w->pub.device == 2 && w->pub.worker == 0) worker_fail(w, "device %d: no more", w->pub.device);
    moe_coll(&w->pub, 1, w->pub.arena, w->pub.arena + (1 << 20));
    moe_barrier(&w->pub);
}

static void test_failure(void **state) {
    if (ranks_count() > 1) return; /* tests/e2e/mpi.py has a rank that fails */
    int64_t size[] = {4};
    MoeProgram p = test_mesh(1, size);
    MoeColl c[2] = {
        {.kind = MOE_all_reduce, .dtype = MOE_f32, .axes = {1, {0}}, .rank = 1, .in = {64}, .out = {64}, .where = "t"}};
    c[1] = c[0];
    p.ncolls = 2;
    p.colls = c;
    Team *t = test_team(&p, 2, 2 << 20);
    assert_false(team_run(t, run_fail, NULL));
    assert_string_equal(t->error.text, "device 2: no more");
    assert_false(team_run(t, run_fail, NULL));
    team_free(t);
}

static void test_bad_shapes(void **state) {
    int64_t size[] = {4};
    MoeProgram p = test_mesh(1, size);
    MoeColl c = {.kind = MOE_all_gather, .axes = {1, {0}}, .rank = 1, .in = {8}, .out = {8}, .where = "m.moe:3"};
    p.ncolls = 1;
    p.colls = &c;
    Error e = {0};
    assert_null(coll_plans(&p, &e));
    assert_string_equal(e.text, "m.moe:3: collective's shapes do not fit its group of 4");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definitions), cmocka_unit_test(test_chaos),      cmocka_unit_test(test_rank_order),
        cmocka_unit_test(test_failure),     cmocka_unit_test(test_bad_shapes),
    };
    Error e = {0};
    if (!ranks_begin(argc, argv, &e)) return fprintf(stderr, "%s\n", e.text), 1;
    return ranks_end(cmocka_run_group_tests(tests, NULL, NULL) != 0);
}
