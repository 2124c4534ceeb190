/* codegen_test.c: the table loop for emitted code: random instances of every op, sharded at random, compiled by moecc
 * into one binary a mesh and run by it, against the interpreter. Then random programs of such ops, where fusion, views
 * and shared memory meet. Each function runs with one worker a device and with three: the same bits.
 *
 * The binary is run from outside, on .npy files; moecc is the one that was built beside this test (or $MOECC). */
#include "samples.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/str.h"

extern char **environ;

enum { ROUNDS = 2, GROUP = 16, PROGRAMS = 16, MAX_ARGS = 2048 };

static char dir[] = "/tmp/moecc-test-XXXXXX";

static const char *path_of(Arena *a, const char *name) {
    return arena_printf(a, "%s/%s", dir, name);
}

static const char *moecc_path(Arena *a) {
    if (getenv("MOECC") != NULL) return getenv("MOECC");
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    for (int up = 0; up < 3; up++) *strrchr(self, '/') = '\0';
    return arena_printf(a, "%s/moecc", self);
}

static void run(const char *const *argv, const char *what) {
    pid_t pid;
    int status;
    assert_int_equal(posix_spawn(&pid, argv[0], NULL, NULL, (char **)(uintptr_t)argv, environ), 0);
    while (waitpid(pid, &status, 0) < 0) assert_int_equal(errno, EINTR);
    if (status != 0) fail_msg("%s: status %d", what, status);
}

/* ---- arrays in files ---- */

static void npy_write(Arena *a, const char *path, const Tensor *x) {
    static const char *const descr[DT_COUNT] = {[DT_f32] = "<f4", [DT_i32] = "<i4", [DT_bool] = "|b1"};
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    Str s = str_new(a);
    str_addf(&s, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr[x->type.dtype]);
    for (int i = 0; i < x->type.rank; i++) str_addf(&s, "%lld,", (long long)x->type.dim[i].size);
    str_add(&s, "), }");
    while ((s.n + 11) % 64 != 0) str_add(&s, " ");
    str_add(&s, "\n");
    fwrite("\x93NUMPY\x01\x00", 1, 8, f);
    fputc((int)(s.n & 255), f);
    fputc((int)(s.n >> 8), f);
    fwrite(s.at, 1, s.n, f);
    for (int64_t i = 0; i < type_elements(&x->type); i++) {
        float real = (float)x->at[i];
        int32_t whole = (int32_t)x->at[i];
        if (x->type.dtype == DT_f32) fwrite(&real, 4, 1, f);
        if (x->type.dtype == DT_i32) fwrite(&whole, 4, 1, f);
        if (x->type.dtype == DT_bool) fputc((int)x->at[i], f);
    }
    assert_int_equal(fclose(f), 0);
}

/* Elements only: the binary knows shapes and types from the module. */
static Tensor npy_read(Arena *a, const char *path, const Type *t) {
    Tensor x = tensor_new(a, t);
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("%s is missing", path);
    assert_int_equal(fseek(f, -(long)(type_elements(t) * dtype_bytes(t->dtype)), SEEK_END), 0);
    for (int64_t i = 0; i < type_elements(t); i++) {
        float real = 0;
        int32_t whole = 0;
        if (t->dtype == DT_f32) assert_int_equal(fread(&real, 4, 1, f), 1);
        if (t->dtype == DT_i32) assert_int_equal(fread(&whole, 4, 1, f), 1);
        x.at[i] = t->dtype == DT_f32 ? (double)real : t->dtype == DT_i32 ? whole : fgetc(f);
    }
    fclose(f);
    return x;
}

/* ---- one function ---- */

static void run_func(Arena *a, const Func *f, const Tensor *args, const char *binary, const char *out,
                     const char *workers) {
    const char *argv[MAX_ARGS] = {binary,      "run",   f->name, "--steps",      "1000",
                                  "--workers", workers, "--out", path_of(a, out)};
    int n = 9;
    for (int i = 0; i < f->body->args.n; i++) {
        const char *name = f->body->args.at[i]->name, *path = path_of(a, arena_printf(a, "%s.npy", name));
        npy_write(a, path, &args[i]);
        assert_true(n + 3 < MAX_ARGS);
        argv[n++] = "--in";
        argv[n++] = arena_printf(a, "%s=%s", name, path);
    }
    run(argv, f->name);
}

/* f32 of two libraries: functions differ in the last places, sums in their order. */
static bool near(const Type *t, double x, double want, double most) {
    if (x == want || (isnan(x) && isnan(want))) return true;
    return t->dtype == DT_f32 && fabs(x - want) <= 1e-5 * (fabs(want) > most ? fabs(want) : most);
}

static void compare(Arena *a, const Func *f, const Tensor *want) {
    for (int i = 0; i < f->body->results.n; i++) {
        const Type *t = &want[i].type;
        const char *name = f->result_names.at[i];
        Tensor one = npy_read(a, path_of(a, arena_printf(a, "1/%s.npy", name)), t);
        Tensor three = npy_read(a, path_of(a, arena_printf(a, "3/%s.npy", name)), t);
        double most = 0;
        for (int64_t k = 0; k < type_elements(t); k++)
            if (isfinite(want[i].at[k]) && fabs(want[i].at[k]) > most) most = fabs(want[i].at[k]);
        for (int64_t k = 0; k < type_elements(t); k++) {
            const char *op = f->body->results.at[i]->def->in[0]->def == NULL
                                 ? "?"
                                 : op_info[f->body->results.at[i]->def->in[0]->def->op].name;
            if (!near(t, one.at[k], want[i].at[k], most))
                fail_msg("%s, result %s (%s), element %lld: %.9g where the interpreter has %.9g", f->name, name, op,
                         (long long)k, one.at[k], want[i].at[k]);
            if (!same_bits(one.at[k], three.at[k]))
                fail_msg("%s, result %s (%s), element %lld: %.9g with one worker, %.9g with three", f->name, name, op,
                         (long long)k, one.at[k], three.at[k]);
        }
    }
}

/* ---- one module ---- */

static void compile(Arena *a, const Module *m, const char *binary) {
    const char *text = module_print(m, a, (PrintOptions){0}), *path = path_of(a, "test.ir");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    const char *argv[] = {moecc_path(a), path, "-o", binary, NULL};
    run(argv, "moecc");
}

static void check_module(Arena *a, const Module *m) {
    const char *binary = path_of(a, "test");
    EvalOptions opt = {.seed = 0, .step = 0, .steps = 1000};
    compile(a, m, binary);
    for (int k = 0; k < m->funcs.n; k++) {
        const Func *f = m->funcs.at[k];
        Tensor *args = NEW_ARRAY(a, Tensor, f->body->args.n + 1);
        for (int i = 0; i < f->body->args.n; i++) {
            Type whole = type_unsharded(&f->body->args.at[i]->type);
            args[i] = random_tensor(a, &whole);
        }
        EvalState state = eval_init(m, a, &opt);
        const char *error = NULL;
        Tensor *want = eval_func(m, f, args, &state, &opt, a, &error);
        if (want == NULL) fail_msg("%s: %s", f->name, error);
        run_func(a, f, args, binary, "1", "1");
        run_func(a, f, args, binary, "3", "3");
        compare(a, f, want);
    }
}

static const Mesh meshes[] = {
    {1, {"x"}, {1}}, {2, {"x", "y"}, {2, 2}}, {3, {"x", "y", "z"}, {2, 2, 2}}, {1, {"x"}, {3}}};

static Module *module_on(Arena *a, int mesh) {
    Module *m = module_new(a);
    m->mesh = meshes[mesh];
    for (int i = 0; i < m->mesh.n; i++) m->mesh.name[i] = intern(m->mesh.name[i]);
    return m;
}

static void test_every_op(void **state) {
    for (int mesh = 0; mesh < (int)(sizeof meshes / sizeof *meshes); mesh++) {
        Arena *a = arena_new();
        Module *m = module_on(a, mesh);
        rng_seed((uint64_t)mesh + 1);
        for (int first = 0; first < ROUNDS * OP_COUNT; first += GROUP) {
            Sample s = sample_in(m, intern_printf("ops%d", first), OP_add);
            for (int k = first; k < first + GROUP; k++) {
                s.op = (Op)(k % OP_COUNT);
                if (!(op_info[s.op].phases >> PHASE_ANNOTATED & 1) || s.op == OP_grad) continue;
                sample_sizes(&s);
                sample_of[s.op](&s);
            }
        }
        check_module(a, m);
        arena_free(a);
    }
}

/* Ops that keep small integers small: sums stay exact in f32, so results are equal bit for bit. */
static void test_programs(void **state) {
    static const Op ops[] = {OP_add,     OP_sub,       OP_maximum, OP_minimum, OP_neg,   OP_abs,
                             OP_sign,    OP_where,     OP_reduce,  OP_cumsum,  OP_top_k, OP_slice,
                             OP_pad,     OP_gather,    OP_scatter, OP_update,  OP_loop,  OP_relabel,
                             OP_one_hot, OP_broadcast, OP_lt,      OP_cast,    OP_exp,   OP_sigmoid};
    for (int mesh = 0; mesh < (int)(sizeof meshes / sizeof *meshes); mesh++) {
        Arena *a = arena_new();
        Module *m = module_on(a, mesh);
        rng_seed((uint64_t)mesh + 100);
        for (int i = 0; i < PROGRAMS; i++) {
            Sample s = sample_in(m, intern_printf("program%d", i), OP_add);
            s.program = true;
            for (int n = 2 + rng(8); n > 0; n--) {
                s.op = ops[rng((int)(sizeof ops / sizeof *ops))];
                sample_of[s.op](&s);
            }
            s.program = false;
            for (int k = 0; k < s.pool.n; k++) result(&s, s.pool.at[k]);
        }
        check_module(a, m);
        arena_free(a);
    }
}

static int set_up(void **state) {
    return mkdtemp(dir) == NULL;
}

static int tear_down(void **state) {
    Arena *a = arena_new();
    const char *argv[] = {"/bin/rm", "-rf", dir, NULL};
    if (getenv("KEEP") == NULL) run(argv, "rm");
    arena_free(a);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_op), cmocka_unit_test(test_programs)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
