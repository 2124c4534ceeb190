/* gradcheck_test.c: every gradient against finite differences, in the f64 interpreter.
 *
 * A case builds y from arguments; loss = sum(y * weights), with arbitrary weights as one more argument. The gradient by
 * each floating argument is compared, element by element, with (loss(x + h) - loss(x - h)) / 2h. Then the same function
 * goes through `simplify` and `contract`, and its results must not move: a check of those passes too.
 * Element-wise ops come from the op table, so a new row is tested by being there; other ops have a row in `cases`. */
#include <math.h>
#include "../unit/irtest.h"
#include "grad.h"
#include "passes.h"

enum { MAX_ARGS = 5 };

typedef struct Case {
    const char *name;
    Value *(*build)(Builder *b, Value **x);
    const char *args[MAX_ARGS]; /* "f32 A:2 B:3" */
    double lo, hi;              /* of floating samples */
} Case;

static Op current; /* of the element-wise cases */
static Arena *arena;

/* ---- helpers ---- */

static Type spec(const char *text) {
    DType dtype = *text == 'i' ? DT_i32 : *text == 'b' ? DT_bool : DT_f32;
    text += strcspn(text, " ");
    return type_of(dtype, text + strspn(text, " "));
}

/* Distinct numbers, no two too near each other, so that maxima do not change under a small step. */
static double sample(const Case *c, int arg, int64_t i, DType t) {
    double u = fmod((double)(i + 1) * 0.6180339887498949 + arg * 0.37, 1.0);
    if (t == DT_bool) return u < 0.5;
    if (t == DT_i32) return (double)((i * 2 + arg) % 3);
    return c->lo + (c->hi - c->lo) * u;
}

static void run_passes(Module *m, bool (*const *passes)(Module *, PassCtx *)) {
    for (; *passes != NULL; passes++) {
        PassCtx ctx = {.scratch = arena_new()};
        (*passes)(m, &ctx);
        const char *broken = module_verify(m, arena);
        if (broken != NULL) fail_msg("%s\n%s", broken, module_print(m, arena, (PrintOptions){0}));
        arena_free(ctx.scratch);
    }
}

static const Tensor *evaluate(Module *m, const Tensor *args) {
    EvalOptions opt = {.f64 = true};
    EvalState state = eval_init(m, arena, &opt);
    const char *error = NULL;
    const Tensor *r = eval_func(m, m->funcs.at[0], args, &state, &opt, arena, &error);
    if (r == NULL) fail_msg("%s\n%s", error, module_print(m, arena, (PrintOptions){0}));
    return r;
}

/* ---- one case ---- */

typedef struct Built {
    Module *m;
    int nargs, nby;
    int by[MAX_ARGS]; /* argument of each gradient */
    Tensor args[MAX_ARGS + 1];
} Built;

static Built build_case(const Case *c) {
    Built built = {.m = module_new(arena)};
    Func *f = func_new(built.m, intern("f"), FUNC_entry, (Loc){0});
    Builder b = {.m = built.m, .block = f->body};
    Value *x[MAX_ARGS] = {0}, *grad[MAX_ARGS + 1];
    for (; built.nargs < MAX_ARGS && c->args[built.nargs] != NULL; built.nargs++) {
        Type t = spec(c->args[built.nargs]);
        x[built.nargs] = block_arg(built.m, f->body, &t, intern_printf("x%d", built.nargs));
        if (t.dtype != DT_f32) continue;
        built.by[built.nby] = built.nargs;
        grad[1 + built.nby++] = x[built.nargs];
    }
    Value *y = c->build(&b, x);
    Value *weights = block_arg(built.m, f->body, &y->type, intern("weights"));
    Value *product = build2(&b, OP_mul, y, weights, NULL);
    grad[0] = build_reduce(&b, "sum", product, type_labels(&product->type));
    Inst *g = build_inst(&b, OP_grad, 1 + built.nby, grad, NULL, NULL);
    vec_push(arena, f->body->results, grad[0]);
    vec_push(arena, f->result_names, intern("loss"));
    for (int k = 0; k < built.nby; k++) {
        vec_push(arena, f->body->results, g->out[k]);
        vec_push(arena, f->result_names, intern_printf("d%d", built.by[k]));
    }
    for (int k = 0; k <= built.nargs; k++) {
        Tensor *t = &built.args[k];
        *t = tensor_new(arena, &f->body->args.at[k]->type);
        for (int64_t i = 0; i < type_elements(&t->type); i++) t->at[i] = sample(c, k, i, t->type.dtype);
    }
    return built;
}

static void check_gradient(const Case *c, Built *built, const Tensor *results, int k) {
    const double h = 1e-5;
    Tensor *x = &built->args[built->by[k]];
    for (int64_t i = 0; i < type_elements(&x->type); i++) {
        double was = x->at[i];
        x->at[i] = was + h;
        double above = evaluate(built->m, built->args)[0].at[0];
        x->at[i] = was - h;
        double below = evaluate(built->m, built->args)[0].at[0];
        x->at[i] = was;
        double want = (above - below) / (2 * h), got = results[1 + k].at[i];
        if (!(fabs(got - want) <= 1e-6 * fmax(1, fabs(want))))
            fail_msg("%s: d/dx%d[%lld] is %.9g, by differences %.9g\n%s", c->name, built->by[k], (long long)i, got,
                     want, module_print(built->m, arena, (PrintOptions){0}));
    }
}

static void check_case(const Case *c) {
    static bool (*const expand[])(Module *, PassCtx *) = {pass_autodiff, NULL};
    static bool (*const rest[])(Module *, PassCtx *) = {pass_simplify, pass_contract, NULL};
    arena = arena_new();
    Built built = build_case(c);
    run_passes(built.m, expand);
    const Tensor *before = evaluate(built.m, built.args);
    for (int k = 0; k < built.nby; k++) check_gradient(c, &built, before, k);
    run_passes(built.m, rest);
    const Tensor *after = evaluate(built.m, built.args);
    for (int r = 0; r <= built.nby; r++)
        for (int64_t i = 0; i < type_elements(&before[r].type); i++)
            if (!(fabs(before[r].at[i] - after[r].at[i]) <= 1e-9 * fmax(1, fabs(before[r].at[i]))))
                fail_msg("%s: simplified, result %d[%lld] moves from %.12g to %.12g\n%s", c->name, r, (long long)i,
                         before[r].at[i], after[r].at[i], module_print(built.m, arena, (PrintOptions){0}));
    arena_free(arena);
}

/* ---- element-wise ops: from the table ---- */

static Value *build_elem(Builder *b, Value **x) {
    return build_inst(b, current, op_info[current].nin, x, NULL, NULL)->out[0];
}

/* Labels that overlap in part: B in both, A and C in one. */
static void test_elementwise(void **state) {
    static const char *const shapes[] = {"f32 A:2 B:3", "f32 B:3 C:2", "f32 C:2 A:2"};
    for (current = 0; current < OP_COUNT; current++) {
        const OpInfo *info = &op_info[current];
        if (info->emit != EMIT_elem || info->nin < 1 || *info->attrs != '\0' || !grad_flows(current)) continue;
        Case c = {.name = info->name, .build = build_elem, .lo = 0.3, .hi = 1.7};
        for (int k = 0; k < info->nin; k++) c.args[k] = shapes[k];
        if (current == OP_where) c.args[0] = "bool A:2 B:3";
        check_case(&c);
    }
}

/* ---- the others ---- */

static Value *build_abs_signs(Builder *b, Value **x) {
    return build1(b, OP_abs, x[0], NULL);
}
static Value *build_cast_there(Builder *b, Value **x) {
    return build_cast(b, build1(b, OP_sin, x[0], NULL), DT_f32);
}
/* n * relu(x), n counted from a comparison: the integer side carries no gradient. */
static Value *build_counted(Builder *b, Value **x) {
    Value *positive = build2(b, OP_lt, build_const(b, DT_f32, 0), x[0], NULL);
    Value *n = build_cast(b, build_reduce(b, "sum", positive, labels_of("B")), DT_f32);
    return build2(b, OP_mul, n, build2(b, OP_maximum, x[0], build_const(b, DT_f32, 0), NULL), NULL);
}
static Value *build_sum(Builder *b, Value **x) {
    return build_reduce(b, "sum", x[0], labels_of("B"));
}
static Value *build_max(Builder *b, Value **x) {
    return build_reduce(b, "max", x[0], labels_of("B C"));
}
static Value *build_min(Builder *b, Value **x) {
    return build_reduce(b, "min", x[0], labels_of("A"));
}
static Value *build_matmul(Builder *b, Value **x) {
    return build_einsum(b, 2, x, labels_of("C A"));
}
/* D is summed in one operand only, E is a batch. */
static Value *build_einsum3(Builder *b, Value **x) {
    return build_einsum(b, 3, x, labels_of("E A F"));
}
static Value *build_einsum1(Builder *b, Value **x) {
    return build_einsum(b, 1, x, labels_of("B"));
}
static Value *build_einsum4(Builder *b, Value **x) {
    return build_einsum(b, 4, x, labels_of("A"));
}
static Value *build_cumsum(Builder *b, Value **x) {
    return build1(b, OP_cumsum, x[0], &(Attrs){.label = intern("B")});
}
static Value *build_cumsum_exclusive(Builder *b, Value **x) {
    return build1(b, OP_cumsum, x[0], &(Attrs){.label = intern("B"), .exclusive = true, .reverse = true});
}
static Value *build_top_k(Builder *b, Value **x) {
    return build1(b, OP_top_k, x[0], &(Attrs){.label = intern("E"), .to = intern("K"), .size = 2});
}
static Value *build_gather(Builder *b, Value **x) {
    return build2(b, OP_gather, x[0], x[1], &(Attrs){.label = intern("V")});
}
static Value *build_scatter(Builder *b, Value **x) {
    return build2(b, OP_scatter, x[0], x[1], &(Attrs){.label = intern("V"), .size = 3, .labels = labels_of("M V A")});
}
static Value *build_slice_to(Builder *b, Value **x) {
    return build_slice(b, x[0], intern("B"), 1, 2, intern("B'"));
}
static Value *build_slice_drop(Builder *b, Value **x) {
    return build_slice(b, x[0], intern("B"), 2, 1, NULL);
}
static Value *build_pad(Builder *b, Value **x) {
    return build1(b, OP_pad, x[0], &(Attrs){.label = intern("P"), .to = intern("B"), .start = 1, .size = 5});
}
static Value *build_pad_new(Builder *b, Value **x) {
    return build1(b, OP_pad, x[0], &(Attrs){.label = intern("P"), .start = 1, .size = 3});
}
static Value *build_relabel(Builder *b, Value **x) {
    return build1(b, OP_relabel, x[0], &(Attrs){.labels = labels_of("B A"), .dims = dims_of("G:4 T:3")});
}
static Value *build_broadcast_op(Builder *b, Value **x) {
    Type t = type_of(DT_f32, "B:3 C:2 A:2");
    return build_broadcast(b, build1(b, OP_exp, x[0], NULL), &t);
}
static Value *build_annotate(Builder *b, Value **x) {
    return build1(b, OP_annotate, build1(b, OP_exp, x[0], NULL), NULL);
}
/* softmax over B of x, taken at an index. */
static Value *build_softmax(Builder *b, Value **x) {
    Value *m = build_reduce(b, "max", x[0], labels_of("V"));
    Value *e = build1(b, OP_exp, build2(b, OP_sub, x[0], build1(b, OP_stop_gradient, m, NULL), NULL), NULL);
    Value *p = build2(b, OP_div, e, build_reduce(b, "sum", e, labels_of("V")), NULL);
    return build2(b, OP_gather, p, x[1], &(Attrs){.label = intern("V")});
}

/* ---- loops ---- */

typedef struct LoopBuilder {
    Builder *outside, b; /* b: inside */
    Value *operands[8];
    int n;
    Attrs at;
} LoopBuilder;

static LoopBuilder loop_open(Builder *outside, int64_t trip, bool reverse) {
    LoopBuilder l = {.outside = outside};
    l.at = (Attrs){.label = intern("L"), .trip = trip, .reverse = reverse};
    l.b = (Builder){.m = outside->m, .block = block_new(outside->m, NULL)};
    block_arg(outside->m, l.b.block, &(Type){.dtype = DT_i32}, intern("i"));
    return l;
}

static Value *loop_operand(LoopBuilder *l, Value *x, bool scanned) {
    Type t = type_unsharded(&x->type);
    if (scanned) {
        for (int k = 1; k < t.rank; k++) t.dim[k - 1] = t.dim[k];
        t.rank--;
        l->at.xs++;
    }
    l->operands[l->n++] = x;
    return block_arg(l->b.m, l->b.block, &t, NULL);
}

static Inst *loop_close(LoopBuilder *l, int carried, int n, Value *const *results) {
    l->at.carry = carried;
    for (int k = 0; k < n; k++) vec_push(l->b.m->arena, l->b.block->results, results[k]);
    return build_inst(l->outside, OP_loop, l->n, l->operands, &l->at, l->b.block);
}

/* c' = tanh(c w + x), y = exp(c) * mask(i); the result uses the last c and the ys. */
static Value *recurrence(Builder *b, Value **x, bool reverse) {
    LoopBuilder l = loop_open(b, 3, reverse);
    Value *xs = loop_operand(&l, x[0], true), *c = loop_operand(&l, x[1], false), *w = loop_operand(&l, x[2], false);
    Value *h = build_einsum(&l.b, 2, (Value *[]){c, w}, labels_of("B"));
    Type like = type_of(DT_f32, "A:2");
    Value *back = build1(&l.b, OP_relabel, h, &(Attrs){.labels = labels_of("B"), .dims = dims_of("A:2")});
    Value *next = build1(&l.b, OP_tanh, build2(&l.b, OP_add, build_broadcast(&l.b, back, &like), xs, NULL), NULL);
    Value *i = build_cast(&l.b, l.b.block->args.at[0], DT_f32);
    Value *y = build2(&l.b, OP_mul, build1(&l.b, OP_exp, c, NULL), i, NULL);
    Inst *loop = loop_close(&l, 1, 2, (Value *[]){next, y});
    return build2(b, OP_mul, loop->out[0], loop->out[1], NULL);
}
static Value *build_recurrence(Builder *b, Value **x) {
    return recurrence(b, x, false);
}
static Value *build_recurrence_reverse(Builder *b, Value **x) {
    return recurrence(b, x, true);
}

/* Only ys, an index, a mask to recompute, a carried value without gradient, and an invariant used twice. */
static Value *build_masked(Builder *b, Value **x) {
    LoopBuilder l = loop_open(b, 3, false);
    Value *xs = loop_operand(&l, x[0], true), *index = loop_operand(&l, x[3], true);
    Value *count = loop_operand(&l, build_const(b, DT_i32, 0), false);
    Value *w = loop_operand(&l, x[2], false);
    Value *next = build2(&l.b, OP_add, count, build_const(&l.b, DT_i32, 1), NULL);
    Value *scale = build_cast(&l.b, next, DT_f32);
    Value *hot = build1(&l.b, OP_one_hot, index, &(Attrs){.label = intern("B"), .size = 2});
    Value *p = build2(&l.b, OP_mul, build2(&l.b, OP_mul, xs, w, NULL), scale, NULL);
    Value *y = build3(&l.b, OP_where, hot, build1(&l.b, OP_sin, p, NULL), build2(&l.b, OP_mul, w, w, NULL), NULL);
    Inst *loop = loop_close(&l, 1, 2, (Value *[]){next, y});
    return loop->out[1];
}

/* A loop in a loop: the inner residuals are stacked twice. */
static Value *build_nested(Builder *b, Value **x) {
    LoopBuilder o = loop_open(b, 3, false);
    Value *xs = loop_operand(&o, x[0], true), *c = loop_operand(&o, x[1], false), *w = loop_operand(&o, x[2], false);
    LoopBuilder l = loop_open(&o.b, 2, false);
    l.at.label = intern("J");
    Value *ic = loop_operand(&l, c, false), *ix = loop_operand(&l, xs, false), *iw = loop_operand(&l, w, false);
    Value *h = build_einsum(&l.b, 2, (Value *[]){build1(&l.b, OP_sin, ic, NULL), iw}, labels_of("B"));
    Value *back = build1(&l.b, OP_relabel, h, &(Attrs){.labels = labels_of("B"), .dims = dims_of("A:2")});
    Value *next = build1(&l.b, OP_tanh, build2(&l.b, OP_add, back, ix, NULL), NULL);
    Inst *inner = loop_close(&l, 1, 1, (Value *[]){next});
    Value *y = build1(&o.b, OP_exp, inner->out[0], NULL);
    Inst *outer = loop_close(&o, 1, 2, (Value *[]){inner->out[0], y});
    return build2(b, OP_add, outer->out[0], outer->out[1], NULL);
}

/* The first value is dropped in the body: gradients come from the last trip only. */
static Value *build_overwritten(Builder *b, Value **x) {
    LoopBuilder l = loop_open(b, 3, false);
    Value *xs = loop_operand(&l, x[0], true);
    loop_operand(&l, x[1], false);
    Inst *loop = loop_close(&l, 1, 1, (Value *[]){build1(&l.b, OP_sin, xs, NULL)});
    return loop->out[0];
}

/* The square of a gradient, differentiated in its turn. */
static Value *build_twice(Builder *b, Value **x) {
    Value *s = build1(b, OP_sin, build2(b, OP_mul, x[0], x[1], NULL), NULL);
    Value *in[] = {build_reduce(b, "sum", s, labels_of("A B")), x[0]};
    Value *d = build_inst(b, OP_grad, 2, in, NULL, NULL)->out[0];
    return build2(b, OP_mul, d, d, NULL);
}

/* A gradient taken in each trip, summed up (accumulation), then differentiated from outside. */
static Value *build_inside(Builder *b, Value **x) {
    LoopBuilder l = loop_open(b, 3, false);
    Value *xs = loop_operand(&l, x[0], true), *sum = loop_operand(&l, x[1], false), *w = loop_operand(&l, x[1], false);
    Value *loss =
        build1(&l.b, OP_exp, build_reduce(&l.b, "sum", build2(&l.b, OP_mul, xs, w, NULL), labels_of("A")), NULL);
    Value *d = build_inst(&l.b, OP_grad, 2, (Value *[]){loss, w}, NULL, NULL)->out[0];
    Value *next = build2(&l.b, OP_add, sum, d, NULL);
    return loop_close(&l, 1, 1, (Value *[]){next})->out[0];
}

/* Attention with a mask from indices and a dropout, in a loop over layers: long element-wise chains to compute again.
 */
static Value *build_layers(Builder *b, Value **x) {
    LoopBuilder l = loop_open(b, 2, false);
    Value *w = loop_operand(&l, x[0], true), *h = loop_operand(&l, x[1], false), *scale = loop_operand(&l, x[2], false);
    Attrs to_keys = {.labels = labels_of("S"), .dims = dims_of("T:3")};
    Value *q = build_einsum(&l.b, 2, (Value *[]){h, w}, labels_of("S N"));
    Value *keys = build1(&l.b, OP_relabel, q, &to_keys);
    Value *scores = build_einsum(&l.b, 2, (Value *[]){q, keys}, labels_of("S T"));
    scores = build2(&l.b, OP_mul, scores, scale, NULL);
    Value *s = build_inst(&l.b, OP_iota, 0, NULL, &(Attrs){.dims = dims_of("S:3")}, NULL)->out[0];
    Value *t = build_inst(&l.b, OP_iota, 0, NULL, &(Attrs){.dims = dims_of("T:3")}, NULL)->out[0];
    Value *seen = build2(&l.b, OP_le, t, s, NULL);
    scores = build3(&l.b, OP_where, seen, scores, build_const(&l.b, DT_f32, -1e30), NULL);
    Value *top = build1(&l.b, OP_stop_gradient, build_reduce(&l.b, "max", scores, labels_of("T")), NULL);
    Value *e = build1(&l.b, OP_exp, build2(&l.b, OP_sub, scores, top, NULL), NULL);
    Value *p = build2(&l.b, OP_div, e, build_reduce(&l.b, "sum", e, labels_of("T")), NULL);
    Value *zero = build_const(&l.b, DT_i32, 0), *trip = l.b.block->args.at[0];
    Attrs draw = {.kind = intern("uniform"), .site = 7, .dims = dims_of("S:3 T:3")};
    Value *kept = build2(&l.b, OP_lt, build2(&l.b, OP_random, zero, trip, &draw), build_const(&l.b, DT_f32, 0.7), NULL);
    p = build3(&l.b, OP_where, kept, p, build_const(&l.b, DT_f32, 0), NULL);
    Attrs back = {.labels = labels_of("N"), .dims = dims_of("M:2")};
    Value *o = build_einsum(&l.b, 2, (Value *[]){p, keys}, labels_of("S N"));
    Value *next = build2(&l.b, OP_add, h, build1(&l.b, OP_relabel, o, &back), NULL);
    return loop_close(&l, 1, 1, (Value *[]){next})->out[0];
}

static const Case cases[] = {
    {"abs of both signs", build_abs_signs, {"f32 A:2 B:3"}, -1, 1},
    {"cast", build_cast_there, {"f32 A:2 B:3"}, 0, 1},
    {"count", build_counted, {"f32 A:2 B:3"}, -1, 1},
    {"reduce sum", build_sum, {"f32 A:2 B:3 C:2"}, 0, 1},
    {"reduce max", build_max, {"f32 A:2 B:3 C:2"}, 0, 1},
    {"reduce min", build_min, {"f32 A:2 B:3"}, 0, 1},
    {"einsum of two", build_matmul, {"f32 A:2 B:3", "f32 B:3 C:2"}, 0, 1},
    {"einsum of three", build_einsum3, {"f32 E:2 A:2 B:3", "f32 B:3 C:2 D:2 E:2", "f32 F:2 C:2"}, 0, 1},
    {"einsum of one", build_einsum1, {"f32 A:2 B:3"}, 0, 1},
    {"einsum of four", build_einsum4, {"f32 A:2 B:3", "f32 B:3 C:2", "f32 C:2 D:3", "f32 D:3 A:2"}, 0, 1},
    {"cumsum", build_cumsum, {"f32 A:2 B:3"}, 0, 1},
    {"cumsum exclusive reverse", build_cumsum_exclusive, {"f32 A:2 B:3"}, 0, 1},
    {"top_k", build_top_k, {"f32 A:2 E:4 C:2"}, 0, 1},
    {"gather", build_gather, {"f32 A:2 V:3 M:2", "i32 A:2 S:3"}, 0, 1},
    {"scatter", build_scatter, {"f32 A:2 S:4 M:2", "i32 S:4 A:2"}, 0, 1},
    {"slice", build_slice_to, {"f32 A:2 B:3"}, 0, 1},
    {"slice without a label", build_slice_drop, {"f32 A:2 B:3"}, 0, 1},
    {"pad", build_pad, {"f32 A:2 B:3"}, 0, 1},
    {"pad of a new axis", build_pad_new, {"f32 A:2 B:3"}, 0, 1},
    {"relabel", build_relabel, {"f32 A:2 C:2 B:6"}, 0, 1},
    {"broadcast", build_broadcast_op, {"f32 A:2 B:3"}, 0, 1},
    {"annotate", build_annotate, {"f32 A:2 B:3"}, 0, 1},
    {"softmax at an index", build_softmax, {"f32 A:2 V:3", "i32 A:2"}, 0, 1},
    {"recurrence", build_recurrence, {"f32 L:3 A:2", "f32 A:2", "f32 A:2 B:2"}, 0, 1},
    {"recurrence, reverse", build_recurrence_reverse, {"f32 L:3 A:2", "f32 A:2", "f32 A:2 B:2"}, 0, 1},
    {"masked loop", build_masked, {"f32 L:3 A:2", "f32 A:2", "f32 A:2 B:2", "i32 L:3 A:2"}, 0, 1},
    {"nested loops", build_nested, {"f32 L:3 A:2", "f32 A:2", "f32 A:2 B:2"}, 0, 1},
    {"twice", build_twice, {"f32 A:2 B:2", "f32 B:2"}, 0, 1},
    {"gradient in a loop", build_inside, {"f32 L:3 A:2", "f32 A:2"}, 0, 1},
    {"layers", build_layers, {"f32 L:2 M:2 N:2", "f32 S:3 M:2", "f32"}, 0, 1},
    {"overwritten", build_overwritten, {"f32 L:3 A:2", "f32 A:2"}, 0, 1},
};

static void test_cases(void **state) {
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) check_case(&cases[k]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_elementwise), cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
