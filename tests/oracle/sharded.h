/* sharded.h: what the tests of random shardings share: random meshes, types and integer tensors, and the comparison of
 * a module on its devices with an earlier stage of itself on one. */
#ifndef MOECC_TESTS_SHARDED_H
#define MOECC_TESTS_SHARDED_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

/* cmocka wants the four above first. */
#include <cmocka.h>

#include "passes.h"
#include "support/intern.h"

static uint64_t rng_state;

static inline void rng_seed(uint64_t seed) {
    rng_state = seed * 0x9e3779b97f4a7c15u + 1;
}

/* 0 .. n-1 (xorshift64*) */
static inline int rng(int n) {
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return (int)((rng_state * 2685821657736338717u >> 33) % (uint64_t)n);
}

/* 2 to 8 devices on one to three axes. */
static inline Mesh random_mesh(void) {
    static const int shape[][3] = {{2, 1, 1}, {3, 1, 1}, {4, 1, 1}, {2, 2, 1}, {2, 3, 1}, {2, 4, 1},
                                   {4, 2, 1}, {2, 2, 2}, {8, 1, 1}, {6, 1, 1}, {3, 2, 1}};
    static const char *const name[] = {"x", "y", "z"};
    const int *s = shape[rng((int)(sizeof shape / sizeof *shape))];
    Mesh m = {0};
    for (int i = 0; i < 3 && s[i] > 1; i++) {
        m.name[m.n] = intern(name[i]);
        m.size[m.n++] = s[i];
    }
    return m;
}

/* Each mesh axis that `allowed` has goes to a random dim that it divides, or to none, in random order. */
static inline void random_sharding(const Mesh *m, Type *t, unsigned allowed) {
    for (int d = 0; d < t->rank; d++) t->dim[d].axes.n = 0;
    int order[MAX_AXES];
    for (int i = 0; i < m->n; i++) {
        int k = rng(i + 1);
        order[i] = order[k];
        order[k] = i;
    }
    for (int i = 0; i < m->n && t->rank > 0; i++) {
        int axis = order[i], d = rng(t->rank);
        if (!(allowed >> axis & 1) || rng(4) == 0) continue;
        if (t->dim[d].size % (mesh_size(m, &t->dim[d].axes) * m->size[axis]) == 0) axes_add(&t->dim[d].axes, axis);
    }
    for (int d = 0; d < t->rank; d++) t->dim[d].pinned = t->dim[d].axes.n > 0;
}

/* Small integers, so that sums are exact in any order. */
static inline Tensor random_tensor(Arena *a, const Type *t) {
    Tensor x = tensor_new(a, t);
    for (int64_t i = 0; i < type_elements(t); i++) x.at[i] = t->dtype == DT_bool ? rng(2) : rng(9) - 2;
    return x;
}

static inline bool same_bits(double a, double b) {
    return (a == b && signbit(a) == signbit(b)) || (isnan(a) && isnan(b));
}

/* Evaluates the one function of two stages of a module on the same arguments; they must agree to the bit. */
static inline void assert_same_results(const Module *one, const Module *many, const Tensor *args, bool f64, Arena *a) {
    EvalOptions opt = {.f64 = f64, .seed = 7, .steps = 10};
    const char *error = NULL;
    EvalState s1 = eval_init(one, a, &opt), s2 = eval_init(many, a, &opt);
    const Func *f = one->funcs.at[0];
    Tensor *r1 = eval_func(one, f, args, &s1, &opt, a, &error);
    if (r1 == NULL) fail_msg("one device: %s", error);
    Tensor *r2 = eval_func(many, many->funcs.at[0], args, &s2, &opt, a, &error);
    if (r2 == NULL)
        fail_msg("many devices: %s\n%s\n%s", error, module_print(one, a, (PrintOptions){0}),
                 module_print(many, a, (PrintOptions){0}));
    for (int i = 0; i < f->body->results.n; i++)
        for (int64_t k = 0; k < type_elements(&r1[i].type); k++)
            if (!same_bits(r1[i].at[k], r2[i].at[k]))
                fail_msg("result %d, element %lld: %g on one device, %g on many\n%s\n%s", i, (long long)k, r1[i].at[k],
                         r2[i].at[k], module_print(one, a, (PrintOptions){0}),
                         module_print(many, a, (PrintOptions){0}));
}

static inline void run_pass(Module *m, bool (*pass)(Module *, PassCtx *), Phase after) {
    PassOptions opt = {0};
    PassCtx ctx = {arena_new(), &opt, NULL};
    pass(m, &ctx);
    m->phase = after;
    const char *broken = module_verify(m, ctx.scratch);
    if (broken != NULL) fail_msg("%s\n%s", broken, module_print(m, ctx.scratch, (PrintOptions){0}));
    arena_free(ctx.scratch);
}

#endif
