/* onehot_test.c: routing written as one-hot algebra computes the same before and after `onehot`, gradients included.
 *
 * A case is a few lines of the language that define `combine` and `dispatch`; tokens go to experts, through a function,
 * and back. The module is interpreted twice in f64 on the same random arguments: differentiated as it is, and through
 * the passes. Arguments are drawn to have ties, experts that overflow and experts that nobody chooses, masks, indices
 * out of range; sizes have C = 1, C > S, E = 1, K = E. Cases that MOVES must have no tensor over token, expert
 * and slot (or choice and expert) left, and no row may be added to another, forward or backward; in those that ADDS two
 * tokens may share a place; those that STAYS look alike and must keep a dense tensor. */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "../unit/irtest.h"
#include "frontend.h"
#include "passes.h"

enum { SIZES = 25, DRAWS = 20, FEW_DRAWS = 3 };

typedef struct Case {
    const char *name, *text;
    enum { MOVES, ADDS, STAYS } becomes;
} Case;

/* ---- random numbers ---- */

static uint32_t state_of_draws = 1;
static int draw(int below) {
    state_of_draws = state_of_draws * 1664525u + 1013904223u;
    return (int)((state_of_draws >> 8) % (uint32_t)below);
}

/* The element of an argument; `kind` of draw: spread out, ties, all the same, nearly all for one expert. */
static double element(const Type *t, int64_t i, int kind) {
    if (t->dtype == DT_bool) return draw(4) > 0;
    if (t->dtype == DT_i32) return kind == 3 ? 1 : draw(7) - 1;
    int64_t last = t->rank > 0 ? t->dim[t->rank - 1].size : 1;
    if (kind == 0) return (draw(2001) - 1000) / 500.0;
    if (kind == 1) return draw(3);
    if (kind == 2) return 1;
    return (i % last == 0 ? 3 : 0) + draw(1000) / 2000.0;
}

/* ---- programs ---- */

static const char header[] =
    "import nn, gshard, routing, shazeer\n"
    "mesh [data: 1]\n"
    "dim G = %d, S = %d, E = %d, C = %d, K = %d, M = 3, Two = 2\n"
    "entry f(x: f32[G, S, M], h: f32[G, S, E], h2: f32[G, S, E], i: i32[G, S], j: i32[G, S], u: f32[G, S],\n"
    "        b: bool[G, S]) -> (f32[G, S, M], f32[]) {\n"
    "    p = softmax(h, E)\n";
static const char footer[] =
    "    xe = einsum(f32(dispatch), x -> [E, G, C, M])\n"
    "    y = einsum(f32(combine), xe * xe + xe -> [G, S, M])\n"
    "    return y, f32(sum(dispatch))\n"
    "}\n";

static Module *lower(Arena *a, const Case *c, const int *size) {
    char path[] = "/tmp/onehot_test_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    fprintf(f, header, size[0], size[1], size[2], size[3], size[4]);
    fputs(c->text, f);
    fputs(footer, f);
    assert_int_equal(fclose(f), 0);
    Module *m = frontend_lower(a, path, &(FrontOptions){0});
    unlink(path);
    if (m == NULL) fail_msg("%s does not compile", c->name);
    return m;
}

/* Results get the gradients of a sum of them by the floating arguments. */
static void add_gradients(Module *m) {
    Block *body = m->funcs.at[0]->body;
    Builder b = {.m = m, .block = body};
    Value *y = body->results.at[0], *in[8], *loss = build2(&b, OP_mul, y, build1(&b, OP_sin, y, NULL), NULL);
    int n = 0;
    in[n++] = build_reduce(&b, "sum", loss, type_labels(&loss->type));
    for (int k = 0; k < body->args.n; k++)
        if (body->args.at[k]->type.dtype == DT_f32) in[n++] = body->args.at[k];
    Inst *grad = build_inst(&b, OP_grad, n, in, NULL, NULL);
    for (int k = 0; k < grad->nout; k++) {
        vec_push(m->arena, body->results, grad->out[k]);
        vec_push(m->arena, m->funcs.at[0]->result_names, intern_printf("d%d", k));
    }
}

typedef bool (*const Passes[])(Module *, PassCtx *);
static Passes plain = {pass_autodiff, NULL};
static Passes pipeline = {pass_simplify, pass_onehot, pass_simplify, pass_autodiff, pass_contract, pass_simplify, NULL};

static void run_passes(Module *m, Passes passes, const Case *c) {
    for (; *passes != NULL; passes++) {
        PassCtx ctx = {.scratch = arena_new()};
        (*passes)(m, &ctx);
        arena_free(ctx.scratch);
        const char *broken = module_verify(m, m->arena);
        if (broken != NULL) fail_msg("%s: %s\n%s", c->name, broken, module_print(m, m->arena, (PrintOptions){0}));
    }
}

static bool has_labels(const Type *t, const char *labels) {
    LabelList list = labels_of(labels);
    for (int k = 0; k < list.n; k++)
        if (type_find(t, list.at[k]) < 0) return false;
    return true;
}

static void find_dense(Inst *inst, void *ctx) {
    for (int k = 0; k < inst->nout; k++) {
        const Type *t = &inst->out[k]->type;
        if (has_labels(t, "S E C") || has_labels(t, "S K E") || has_labels(t, "S choice E")) *(Inst **)ctx = inst;
    }
}

/* Rows (axis M) summed into their places. */
static void find_adding(Inst *inst, void *ctx) {
    if (inst->op == OP_scatter && has_labels(&inst->out[0]->type, "M")) *(Inst **)ctx = inst;
}

/* ---- one case ---- */

static const Tensor *evaluate(const Case *c, Module *m, const Tensor *args) {
    EvalOptions opt = {.f64 = true, .seed = 3};
    EvalState none = eval_init(m, m->arena, &opt);
    const char *error = NULL;
    const Tensor *r = eval_func(m, m->funcs.at[0], args, &none, &opt, m->arena, &error);
    if (r == NULL) fail_msg("%s: %s", c->name, error);
    return r;
}

static void compare_results(const Case *c, const int *size, const Tensor *a, const Tensor *b, const Module *m) {
    for (int r = 0; r < m->funcs.at[0]->body->results.n; r++) {
        double most = 1;
        for (int64_t i = 0; i < type_elements(&a[r].type); i++) most = fmax(most, fabs(a[r].at[i]));
        for (int64_t i = 0; i < type_elements(&a[r].type); i++)
            if (!(fabs(a[r].at[i] - b[r].at[i]) <= (r == 1 ? 0 : 1e-10 * most)))
                fail_msg("%s at G %d S %d E %d C %d K %d: result %d[%lld] is %.17g, and %.17g after the pass\n%s",
                         c->name, size[0], size[1], size[2], size[3], size[4], r, (long long)i, a[r].at[i], b[r].at[i],
                         module_print(m, m->arena, (PrintOptions){0}));
    }
}

static void check_case(const Case *c, const int *size, int draws) {
    if (strcmp(c->name, "expert choice") == 0 && size[3] > size[1]) return; /* an expert takes at most all */
    Arena *a = arena_new();
    Module *one = lower(a, c, size);
    add_gradients(one);
    Module *other = module_clone(one, a);
    run_passes(one, plain, c);
    run_passes(other, pipeline, c);
    Inst *dense = NULL;
    module_walk(other, find_dense, &dense);
    if ((dense != NULL) != (c->becomes == STAYS))
        fail_msg("%s: %s\n%s", c->name, c->becomes == STAYS ? "no dense tensor is left" : op_info[dense->op].name,
                 module_print(other, a, (PrintOptions){0}));
    Inst *adding = NULL;
    module_walk(other, find_adding, &adding);
    if ((adding != NULL && c->becomes == MOVES) || (adding == NULL && c->becomes == ADDS))
        fail_msg("%s: rows are %sadded\n%s", c->name, adding != NULL ? "" : "not ",
                 module_print(other, a, (PrintOptions){0}));
    for (int d = 0; d < draws; d++) {
        const Block *body = one->funcs.at[0]->body;
        Tensor *args = NEW_ARRAY(a, Tensor, body->args.n);
        for (int k = 0; k < body->args.n; k++) {
            args[k] = tensor_new(a, &body->args.at[k]->type);
            for (int64_t i = 0; i < type_elements(&args[k].type); i++) args[k].at[i] = element(&args[k].type, i, d % 4);
        }
        compare_results(c, size, evaluate(c, one, args), evaluate(c, other, args), other);
    }
    arena_free(a);
}

/* ---- the cases ---- */

static const Case routings[] = {
    {"top 2", "combine, dispatch, _ = top2_gating(p, S, E, C, random: false)\n", MOVES},
    {"top 2, random", "combine, dispatch, _ = top2_gating(p, S, E, C, random: true)\n", MOVES},
    {"top 2, masked", "combine, dispatch, _ = top2_gating(p, S, E, C, random: true, mask: b)\n", MOVES},
    {"top k", "w, k = top_k(p, E, K)\ncombine, dispatch = topk_gating(w, k, S, E, K, C)\n", MOVES},
    {"top k, weighted dispatch",
     "w, k = top_k(p, E, K)\ncombine, d = topk_gating(w, k, S, E, K, C)\ndispatch = d * u\n", MOVES},
    {"top k, dispatch from combine",
     "w, k = top_k(p, E, K)\ncombine, _ = topk_gating(w, k, S, E, K, C)\ndispatch = combine > 0\n", MOVES},
    {"switch", "combine, dispatch, _ = switch_gating(h, S, E, C)\n", MOVES},
    {"switch, masked", "combine, dispatch, _ = switch_gating(h, S, E, C, mask: b)\n", MOVES},
    {"positions by expert", /* the rank is never summed over E */
     "m = one_hot(argmax(h, E), E)\nq = cumsum(m, S)\ndispatch = m and one_hot(q - 1, C)\ncombine = u * dispatch\n",
     MOVES},
    {"given experts",
     "m = one_hot(i, E)\nn = sum(cumsum(m, S, exclusive: true) * m, E)\ndispatch = m and one_hot(n, C)\n"
     "combine = where(b, u * dispatch, 0)\n",
     MOVES},
    {"given places", "dispatch = one_hot(i, E) and one_hot(j, C)\ncombine = u * dispatch\n", ADDS},
    {"two experts of one token", /* an equality of indices */
     "dispatch = one_hot(i, E) and one_hot(j, E) and one_hot(j, C)\ncombine = (u * u) * dispatch\n", ADDS},
    {"places overlap", "dispatch = one_hot(i, E) and one_hot(i - i, C)\ncombine = f32(dispatch) * h\n", ADDS},
    {"products of sums",
     "combine = one_hot(i, E) * u + one_hot(j, E) * u * u\ndispatch = one_hot(argmax(h, E), E)\n"
     "combine = combine * one_hot(i, C)\ndispatch = dispatch and one_hot(i, C)\n",
     ADDS},
    {"difference",
     "combine = one_hot(i, E) * u - one_hot(j, E)\ncombine = -combine * one_hot(i, C)\n"
     "dispatch = (i == iota(E)) and one_hot(j, C)\n",
     ADDS},
    {"expert choice", "combine, dispatch = expert_choice(h, S, E, C)\n", ADDS},
    {"sparse gates", "combine, dispatch = gate_slots(sparse_gates(p, E, K), S, E, C)\n", MOVES},
    {"sparse gates, normal", "combine, dispatch = gate_slots(sparse_gates(p, E, K, renormalize: true), S, E, C)\n",
     MOVES},
    {"axes that only an index has",
     "m = one_hot(argmax(h, E), E)\ncombine, dispatch, _ = switch_gating(h, S, E, C)\n"
     "combine = combine * sum(f32(m) * f32(iota(C)), S, E)\n"
     "_, k = top_k(h, E, K)\nn = f32(one_hot(k, E)) * one_hot(i, C)\ncombine = combine * sum(sum(n, K), E)\n"
     "combine = combine * sum(n -> [G])\n",
     ADDS},
    {"noisy top k", /* Shazeer: a softmax of the largest */
     "_, k = top_k(h, E, K)\ng = softmax(where(any(one_hot(k, E), K), h, -inf), E)\n"
     "combine, dispatch = gate_slots(g, S, E, C)\n",
     MOVES},
    {"softmax of given experts",
     "g = softmax(where(one_hot(i, E), h, -inf), E)\ndispatch = one_hot(i, E) and one_hot(j, C)\n"
     "combine = g * dispatch\n",
     ADDS},
    {"a quotient by expert",
     "combine, dispatch, _ = switch_gating(h, S, E, C, mask: b)\ncombine = combine / (h * h + 1)\n", MOVES},
};

static const char *const base = "c0, d0, _ = switch_gating(h, S, E, C)\nf0 = f32(d0)\n";

/* `combine` and `dispatch` from c0, d0 (f0 as f32). */
static const Case alike[] = {
    {"softened", "combine = 0.9 * c0 + 0.1\ndispatch = f0\n", STAYS},
    {"softened by expert", "combine = c0\ndispatch = f0 + h\n", STAYS},
    {"complement", "combine = 1 - f0\ndispatch = d0\n", STAYS},
    {"not", "combine = c0\ndispatch = not d0\n", STAYS},
    {"exponential", "combine = exp(c0)\ndispatch = d0\n", STAYS},
    {"cosine", "combine = c0\ndispatch = cos(f0)\n", STAYS},
    {"sigmoid", "combine = sigmoid(c0)\ndispatch = d0\n", STAYS},
    {"softmax", "combine = softmax(c0, E)\ndispatch = d0\n", STAYS},
    {"softmax over slots", "combine = softmax(c0, C)\ndispatch = d0\n", STAYS},
    {"true of zero", "combine = c0\ndispatch = f0 > -1\n", STAYS},
    {"at most zero", "combine = c0\ndispatch = f0 <= 0\n", STAYS},
    {"equal to zero", "combine = c0\ndispatch = f0 == 0\n", STAYS},
    {"a floor", "combine = maximum(c0, 0.25)\ndispatch = d0\n", STAYS},
    {"a ceiling", "combine = minimum(c0, -0.5)\ndispatch = d0\n", STAYS},
    {"elsewhere one", "combine = where(b, c0, 1)\ndispatch = d0\n", STAYS},
    {"or a token", "combine = c0\ndispatch = d0 or b\n", STAYS},
    {"two that may meet",
     "c1, d1, _ = switch_gating(h2, S, E, C)\ncombine = c0 + c1\ndispatch = (d0 or d1) and (not (d0 and d1))\n", STAYS},
    {"or of two that may meet", "c1, d1, _ = switch_gating(h2, S, E, C)\ncombine = c0\ndispatch = d0 or d1\n", STAYS},
    {"a function of two that may meet",
     "c1, d1, _ = switch_gating(h2, S, E, C)\ncombine = sin(c0 + c1)\ndispatch = d0\n", STAYS},
    {"running sum over slots", "combine = c0\ndispatch = cumsum(f0, C)\n", STAYS},
    {"running sum over experts", "combine = cumsum(c0, E)\ndispatch = d0\n", STAYS},
    {"running sum over tokens", "combine = cumsum(c0, S)\ndispatch = d0\n", STAYS},
    {"centred", "combine = c0 - sum(c0, E) / E\ndispatch = d0\n", ADDS},
    {"the largest", "combine = c0 * sum(max(c0, E))\ndispatch = f0 * max(f0, S)\n", STAYS},
    {"any token", "combine = c0\ndispatch = f0 + f32(any(d0, S))\n", STAYS},
    {"reciprocal", "combine = 1 / (1 + c0)\ndispatch = d0\n", STAYS},
    {"power", "combine = c0 ** f0\ndispatch = d0\n", STAYS},
    {"a remainder", "combine = c0\ndispatch = (i32(f0) + 3) % 2\n", STAYS},
    {"sorted", "v, _ = top_k(c0, E, E)\ncombine = v\ndispatch = d0\n", STAYS},
    {"smoothed over tokens", "combine = (c0 + sum(c0, S)) * 0.5\ndispatch = d0\n", STAYS},
};

static const int sizes[SIZES][5] = {
    {2, 4, 3, 2, 2}, {1, 5, 4, 2, 3},  {2, 3, 2, 1, 2}, {1, 8, 2, 3, 2}, {3, 2, 5, 4, 5},
    {1, 6, 3, 6, 3}, {2, 4, 2, 7, 2},  {1, 1, 2, 1, 2}, {1, 7, 3, 1, 3}, {2, 6, 6, 2, 2},
    {1, 9, 2, 2, 1}, {2, 5, 3, 3, 1},  {1, 4, 4, 4, 4}, {4, 3, 2, 2, 2}, {1, 2, 7, 1, 3},
    {2, 2, 2, 2, 2}, {1, 12, 3, 3, 2}, {2, 3, 4, 1, 4}, {1, 3, 3, 5, 3}, {1, 10, 5, 2, 2},
    {3, 4, 3, 2, 2}, {1, 5, 2, 4, 2},  {2, 7, 4, 2, 3}, {1, 6, 2, 1, 2}, {1, 16, 4, 4, 2},
};

static void test_routings(void **state) {
    for (size_t k = 0; k < sizeof routings / sizeof *routings; k++)
        for (int s = 0; s < SIZES; s++) check_case(&routings[k], sizes[s], DRAWS);
}

/* One expert: only a routing of one choice can be. */
static void test_one_expert(void **state) {
    static const int one[2][5] = {{2, 5, 1, 3, 1}, {1, 4, 1, 1, 1}};
    for (size_t k = 0; k < sizeof routings / sizeof *routings; k++)
        for (int s = 0; s < 2 && strncmp(routings[k].name, "top 2", 5) != 0; s++)
            check_case(&routings[k], one[s], DRAWS);
}

static void test_alike(void **state) {
    for (size_t k = 0; k < sizeof alike / sizeof *alike; k++) {
        Arena *a = arena_new();
        Case c = {alike[k].name, arena_printf(a, "%s%s", base, alike[k].text), alike[k].becomes};
        for (int s = 0; s < 6; s++) check_case(&c, sizes[s], FEW_DRAWS);
        arena_free(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routings),
        cmocka_unit_test(test_one_expert),
        cmocka_unit_test(test_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
