/* rewrite_test.c: random programs compute the same before and after simplify, autodiff and contract.
 *
 * Programs are over small integers, clamped after every product and sum, so arithmetic is exact and results must be
 * equal bit for bit, whatever is reassociated. Gradients may have fractions (ties share) and are compared to 1e-9:
 * taken from the program as it is, and from the simplified one. A failure prints the program; the round's number is the
 * seed. */
#include <math.h>

#include "../unit/irtest.h"
#include "passes.h"

enum { ROUNDS = 400, STEPS = 18, BODY_STEPS = 7, POOL = 64, LABELS = 4, TRIP = 3 };
static const char label_names[LABELS] = {'A', 'B', 'C', 'D'};
static const int64_t label_sizes[LABELS] = {2, 3, 1, 4};

static uint32_t state_of_draws;
static int draw(int below) {
    state_of_draws = state_of_draws * 1664525u + 1013904223u;
    return (int)((state_of_draws >> 8) % (uint32_t)below);
}

/* ---- random programs ---- */

typedef struct Gen {
    Builder b;
    Value *pool[POOL]; /* values in scope */
    int n;
    int depth;
} Gen;

static Label label(int k) {
    return intern_n(&label_names[k], 1);
}

static void keep(Gen *g, Value *v) {
    g->pool[g->n < POOL ? g->n++ : draw(POOL)] = v;
}

static Type random_type(DType dtype, unsigned must) {
    Type t = {.dtype = dtype};
    int first = draw(LABELS);
    for (int k = 0; k < LABELS; k++) {
        int l = (first + k) % LABELS;
        if (must >> l & 1 || draw(3) == 0) t.dim[t.rank++] = (Dim){.label = label(l), .size = label_sizes[l]};
    }
    return t;
}

static unsigned label_set(const Type *t) {
    unsigned set = 0;
    for (int k = 0; k < LABELS; k++) set |= (unsigned)(type_find(t, label(k)) >= 0) << k;
    return set;
}

/* A value in scope, cast where its type is another one. */
static Value *pick(Gen *g, DType dtype) {
    Value *v = g->pool[draw(g->n)];
    for (int tries = 0; tries < 8 && v->type.dtype != dtype; tries++) v = g->pool[draw(g->n)];
    return v->type.dtype == dtype ? v : build1(&g->b, OP_cast, v, &(Attrs){.dtype = dtype});
}

static Value *clamp(Gen *g, Value *x) {
    if (x->type.dtype == DT_bool) return x;
    Value *low = build_const(&g->b, x->type.dtype, -8), *high = build_const(&g->b, x->type.dtype, 8);
    return build2(&g->b, OP_minimum, build2(&g->b, OP_maximum, x, low, NULL), high, NULL);
}

static Value *fit(Gen *g, Value *x, const Type *like) {
    x = clamp(g, build_reduce(&g->b, "sum", x, labels_minus(type_labels(&x->type), type_labels(like))));
    return build_broadcast(&g->b, x, like);
}

static Value *gen_arith(Gen *g) {
    static const Op ops[] = {OP_add, OP_sub, OP_mul, OP_maximum, OP_minimum};
    DType t = draw(4) == 0 ? DT_i32 : DT_f32;
    Value *x = pick(g, t), *y = pick(g, t);
    return clamp(g, build2(&g->b, ops[draw(5)], x, y, NULL));
}
static Value *gen_unary(Gen *g) {
    static const Op ops[] = {OP_neg, OP_abs, OP_sign, OP_neg};
    return build1(&g->b, ops[draw(4)], pick(g, draw(4) == 0 ? DT_i32 : DT_f32), NULL);
}
static Value *gen_const(Gen *g) {
    static const double values[] = {0, 1, -1, 2, 0, 1};
    Type t = random_type(DT_f32, 0);
    return build_broadcast(&g->b, build_const(&g->b, DT_f32, values[draw(6)]), &t);
}
/* With a constant on one side: what algebra looks for. */
static Value *gen_with_const(Gen *g) {
    static const Op ops[] = {OP_add, OP_sub, OP_mul, OP_div, OP_pow};
    static const double values[][6] = {
        {0, 1, 2, 0, 0, 1}, {0, 0, 1, 2, 3, 0}, {0, 1, -1, 1, 2, -1}, {1, 1, 1, 1, -1, 1}, {1, 2, 2, 1, 2, 0}};
    int k = draw(5);
    Value *x = pick(g, DT_f32), *c = build_const(&g->b, DT_f32, values[k][draw(6)]);
    if (draw(2))
        c = build_broadcast(&g->b, c, &(Type){.rank = 1, .dim = {{.label = label(1), .size = label_sizes[1]}}});
    bool swap = k < 3 && draw(2) == 0;
    return clamp(g, build2(&g->b, ops[k], swap ? c : x, swap ? x : c, NULL));
}
static Value *gen_compare(Gen *g) {
    static const Op ops[] = {OP_lt, OP_le, OP_eq};
    Value *x = pick(g, DT_f32), *y = pick(g, DT_f32);
    return build2(&g->b, ops[draw(3)], x, y, NULL);
}
static Value *gen_logic(Gen *g) {
    Value *x = pick(g, DT_bool), *y = pick(g, DT_bool);
    return draw(3) == 0 ? build1(&g->b, OP_not, x, NULL) : build2(&g->b, draw(2) ? OP_and : OP_or, x, y, NULL);
}
static Value *gen_where(Gen *g) {
    Value *c = pick(g, DT_bool), *x = pick(g, DT_f32), *y = draw(4) == 0 ? x : pick(g, DT_f32);
    return build3(&g->b, OP_where, c, x, y, NULL);
}
static Value *gen_broadcast(Gen *g) {
    Value *x = pick(g, draw(4) == 0 ? DT_bool : DT_f32);
    Type t = random_type(x->type.dtype, label_set(&x->type));
    for (int k = 0; k < x->type.rank; k++)
        if (type_find(&t, x->type.dim[k].label) < 0) return x; /* an axis that is not one of the four */
    return build_broadcast(&g->b, x, &t);
}
static Value *gen_reduce(Gen *g) {
    static const char *const kinds[] = {"sum", "max", "min", "sum"};
    Value *x = pick(g, draw(4) == 0 ? DT_bool : DT_f32);
    LabelList over = {0};
    for (int k = 0; k < x->type.rank; k++)
        if (draw(2)) over.at[over.n++] = x->type.dim[k].label;
    const char *kind = x->type.dtype == DT_bool && draw(2) ? "any" : kinds[draw(4)];
    if (x->type.dtype == DT_bool && kind != kinds[0]) kind = "any";
    return clamp(g, build_reduce(&g->b, kind, x, over));
}
static Value *gen_einsum(Gen *g) {
    int n = 1 + draw(4);
    Value *in[4];
    unsigned all = 0;
    for (int k = 0; k < n; k++) {
        in[k] = pick(g, DT_f32);
        all |= label_set(&in[k]->type);
    }
    LabelList result = {0};
    for (int k = LABELS - 1; k >= 0; k--)
        if (all >> k & 1 && draw(2)) result.at[result.n++] = label(k);
    return clamp(g, build_einsum(&g->b, n, in, result));
}
static Value *gen_cumsum(Gen *g) {
    Value *x = pick(g, DT_f32);
    if (x->type.rank == 0) return x;
    Attrs at = {.label = x->type.dim[draw(x->type.rank)].label, .exclusive = draw(2) == 0, .reverse = draw(2) == 0};
    return clamp(g, build1(&g->b, OP_cumsum, x, &at));
}
/* There and back, which may be undone; sometimes only there and somewhere else. */
static Value *gen_relabel(Gen *g) {
    Value *x = pick(g, DT_f32);
    int d = type_find(&x->type, label(3));
    if (d < 0) return x;
    Attrs split = {.labels = labels_of("D"), .dims = dims_of("P:2 Q:2")};
    Attrs merge = {.labels = draw(3) == 0 ? labels_of("Q P") : labels_of("P Q"), .dims = dims_of("D:4")};
    return build1(&g->b, OP_relabel, build1(&g->b, OP_relabel, x, &split), &merge);
}
static Value *gen_slice(Gen *g) {
    Value *x = pick(g, DT_f32);
    int d = type_find(&x->type, label(3));
    if (d < 0) return x;
    if (draw(3) == 0) return build_slice(&g->b, x, label(3), draw(4), 1, NULL);
    int64_t start = draw(3), size = 4 - start;
    Value *part = build_slice(&g->b, x, label(3), start, size, intern("R"));
    return build1(&g->b, OP_pad, part, &(Attrs){.label = label(3), .to = intern("R"), .start = 4 - size, .size = 4});
}
static Value *gen_pad(Gen *g) {
    Value *x = pick(g, DT_f32);
    if (type_find(&x->type, label(3)) >= 0) return x;
    Value *wide = build1(&g->b, OP_pad, x, &(Attrs){.label = label(3), .start = draw(4), .size = 4});
    return draw(2) ? wide : build_slice(&g->b, wide, label(3), wide->def->at.start, 1, NULL);
}
static Value *gen_gather(Gen *g) {
    Value *x = pick(g, DT_f32), *i = pick(g, DT_i32);
    if (type_find(&x->type, label(3)) < 0 || type_find(&i->type, label(3)) >= 0) return x;
    return build2(&g->b, OP_gather, x, i, &(Attrs){.label = label(3)});
}
static Value *gen_one_hot(Gen *g) {
    Value *i = pick(g, DT_i32);
    if (type_find(&i->type, label(3)) >= 0) return i;
    return build1(&g->b, OP_one_hot, i, &(Attrs){.label = label(3), .size = 4});
}
static Value *gen_stop(Gen *g) {
    return build1(&g->b, OP_stop_gradient, pick(g, DT_f32), NULL);
}
static Value *gen_loop(Gen *g);

static Value *(*const gens[])(Gen *) = {
    gen_arith,   gen_arith,     gen_arith,     gen_unary,  gen_const,   gen_with_const, gen_with_const,
    gen_compare, gen_logic,     gen_where,     gen_where,  gen_reduce,  gen_reduce,     gen_einsum,
    gen_einsum,  gen_broadcast, gen_broadcast, gen_cumsum, gen_relabel, gen_slice,      gen_pad,
    gen_gather,  gen_one_hot,   gen_stop,      gen_loop,
};

static void gen_steps(Gen *g, int steps) {
    for (int k = 0; k < steps; k++) keep(g, gens[draw(sizeof gens / sizeof *gens)](g));
}

/* One xs, two carried (the second one often unchanged), up to three invariants; one of its results. */
static Value *gen_loop(Gen *g) {
    if (g->depth == 2) return gen_unary(g);
    Label l = g->depth == 0 ? intern("L") : intern("J");
    Gen in = {.b = {.m = g->b.m, .block = block_new(g->b.m, NULL)}, .depth = g->depth + 1};
    keep(&in, block_arg(g->b.m, in.b.block, &(Type){.dtype = DT_i32}, NULL));
    Value *operands[8], *carried[2];
    Type slice = random_type(DT_f32, 0), stack = {.rank = 1, .dim = {{.label = l, .size = TRIP}}};
    for (int k = 0; k < slice.rank; k++) stack.dim[stack.rank++] = slice.dim[k];
    int n = 0;
    operands[n++] = fit(g, pick(g, DT_f32), &stack);
    keep(&in, block_arg(g->b.m, in.b.block, &slice, NULL));
    for (int k = 0; k < 2; k++) {
        operands[n++] = pick(g, DT_f32);
        keep(&in, carried[k] = block_arg(g->b.m, in.b.block, &operands[n - 1]->type, NULL));
    }
    for (int k = draw(4); k > 0; k--) {
        operands[n++] = pick(g, draw(4) == 0 ? DT_bool : draw(4) == 0 ? DT_i32 : DT_f32);
        keep(&in, block_arg(g->b.m, in.b.block, &operands[n - 1]->type, NULL));
    }
    gen_steps(&in, BODY_STEPS);
    Value *results[4] = {fit(&in, pick(&in, DT_f32), &carried[0]->type),
                         draw(2) ? carried[1] : fit(&in, pick(&in, DT_f32), &carried[1]->type), pick(&in, DT_f32),
                         pick(&in, DT_f32)};
    for (int k = 0; k < 4; k++) vec_push(g->b.m->arena, in.b.block->results, results[k]);
    Attrs at = {.label = l, .trip = TRIP, .xs = 1, .carry = 2, .reverse = draw(2) == 0};
    Inst *loop = build_inst(&g->b, OP_loop, n, operands, &at, in.b.block);
    int which = draw(4);
    Value *y = loop->out[which];
    return which < 2 ? y : clamp(g, build_reduce(&g->b, "sum", y, (LabelList){1, {l}}));
}

/* ---- programs and their results ---- */

typedef struct Program {
    Arena *arena;
    Module *m;
    Tensor args[4];
} Program;

static Program program_draw(int seed, bool gradients) {
    Program p = {.arena = arena_new()};
    state_of_draws = (uint32_t)seed * 2654435761u + 1;
    p.m = module_new(p.arena);
    Func *f = func_new(p.m, "f", FUNC_entry, (Loc){0});
    Gen g = {.b = {.m = p.m, .block = f->body}};
    for (int k = 0; k < 4; k++) {
        Type t = random_type(k < 3 ? DT_f32 : DT_i32, k < 2 ? 1u << (3 - k) : 0);
        keep(&g, block_arg(p.m, f->body, &t, NULL));
        p.args[k] = tensor_new(p.arena, &t);
        for (int64_t i = 0; i < type_elements(&t); i++) p.args[k].at[i] = draw(7) - (k < 3 ? 3 : 1);
    }
    Value *args[4] = {NULL, g.pool[0], g.pool[1], g.pool[2]};
    gen_steps(&g, STEPS);
    Value *loss = build_const(&g.b, DT_f32, 0);
    for (int k = 0; k < 3; k++) {
        Value *x = pick(&g, DT_f32);
        vec_push(p.arena, f->body->results, x);
        loss = build2(&g.b, OP_add, loss, build_reduce(&g.b, "sum", x, type_labels(&x->type)), NULL);
    }
    args[0] = loss;
    vec_push(p.arena, f->body->results, loss);
    Inst *d = gradients ? build_inst(&g.b, OP_grad, 4, args, NULL, NULL) : NULL;
    for (int k = 0; k < 3 && gradients; k++) vec_push(p.arena, f->body->results, d->out[k]);
    for (int k = 0; k < f->body->results.n; k++) vec_push(p.arena, f->result_names, intern_printf("r%d", k));
    return p;
}

typedef bool (*const Passes[])(Module *, PassCtx *);

static const Tensor *run(Program *p, Passes passes, int seed) {
    for (; *passes != NULL; passes++) {
        PassCtx ctx = {.scratch = arena_new()};
        char *before = module_print(p->m, p->arena, (PrintOptions){0});
        (*passes)(p->m, &ctx);
        arena_free(ctx.scratch);
        const char *broken = module_verify(p->m, p->arena);
        if (broken != NULL)
            fail_msg("round %d: %s\n%s\n%s", seed, broken, before, module_print(p->m, p->arena, (PrintOptions){0}));
    }
    EvalOptions opt = {.f64 = true};
    EvalState none = {0};
    const char *error = NULL;
    const Tensor *r = eval_func(p->m, p->m->funcs.at[0], p->args, &none, &opt, p->arena, &error);
    if (r == NULL) fail_msg("round %d: %s\n%s", seed, error, module_print(p->m, p->arena, (PrintOptions){0}));
    return r;
}

static void compare(int seed, Passes one, Passes other, bool gradients, double tolerance) {
    Program p = program_draw(seed, gradients), q = program_draw(seed, gradients);
    char *source = module_print(p.m, p.arena, (PrintOptions){0});
    const Tensor *a = run(&p, one, seed), *b = run(&q, other, seed);
    for (int r = 0; r < p.m->funcs.at[0]->body->results.n; r++) {
        assert_true(type_same_shape(&a[r].type, &b[r].type));
        for (int64_t i = 0; i < type_elements(&a[r].type); i++)
            if (!(fabs(a[r].at[i] - b[r].at[i]) <= tolerance * fmax(1, fabs(a[r].at[i]))))
                fail_msg("round %d: result %d[%lld] is %.17g and then %.17g\n%s\n%s", seed, r, (long long)i, a[r].at[i],
                         b[r].at[i], source, module_print(q.m, q.arena, (PrintOptions){0}));
    }
    arena_free(p.arena);
    arena_free(q.arena);
}

static Passes nothing = {NULL};

static void test_simplify(void **state) {
    static Passes simplified = {pass_simplify, NULL};
    for (int seed = 0; seed < ROUNDS; seed++) compare(seed, nothing, simplified, false, 0);
}

static void test_contract(void **state) {
    static Passes contracted = {pass_contract, NULL}, both = {pass_simplify, pass_contract, pass_simplify, NULL};
    for (int seed = 0; seed < ROUNDS; seed++) {
        compare(seed, nothing, contracted, false, 0);
        compare(seed, nothing, both, false, 0);
    }
}

static void test_gradients(void **state) {
    static Passes plain = {pass_autodiff, NULL};
    static Passes pipeline = {pass_simplify, pass_autodiff, pass_contract, pass_simplify, NULL};
    for (int seed = 0; seed < ROUNDS; seed++) compare(seed, plain, pipeline, true, 1e-9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simplify),
        cmocka_unit_test(test_contract),
        cmocka_unit_test(test_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
