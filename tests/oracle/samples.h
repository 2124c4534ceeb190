/* samples.h: a random instance of every op of ops.def, for the table loops: random shapes over four labels, operands
 * and wanted results in random shardings. One sample function for each name in the table's shape column: a new one does
 * not compile without.
 *
 * With `program` set, operands are drawn from the results so far, so the ops form a random program. */
#ifndef MOECC_TESTS_SAMPLES_H
#define MOECC_TESTS_SAMPLES_H

#include "sharded.h"

enum { LABELS = 4 };

typedef struct Sample {
    Arena *arena;
    Module *m;
    Func *f;
    Block *body; /* f's */
    Builder b;
    Op op;
    Type all;     /* the labels of this sample with their sizes */
    bool program; /* results go to the pool, operands come from there too */
    VEC(Value *) pool;
} Sample;

static void result(Sample *s, Value *v) {
    if (s->program) {
        vec_push(s->arena, s->pool, v);
        return;
    }
    Inst *in = build_inst(&s->b, OP_annotate, 1, &v, NULL, NULL);
    random_sharding(&s->m->mesh, &in->out[0]->type, ~0u);
    vec_push(s->arena, s->body->results, in->out[0]);
    vec_push(s->arena, s->f->result_names, intern_printf("r%d", s->body->results.n));
}

static void results(Sample *s, Inst *in) {
    for (int i = 0; i < in->nout; i++) result(s, in->out[i]);
}

/* A random subset of the labels from `from` to `to`, in random order; must have `with` when that is not negative. */
static Type subset(Sample *s, DType dtype, int from, int to, int with) {
    Type t = {.dtype = dtype};
    int order[LABELS + 1];
    for (int i = from; i < to; i++) {
        int k = from + rng(i - from + 1);
        order[i] = order[k];
        order[k] = i;
    }
    for (int i = from; i < to; i++)
        if (order[i] == with || rng(3) > 0) t.dim[t.rank++] = s->all.dim[order[i]];
    return t;
}

/* Some value of the pool, summed and broadcast to the type; NULL: none of that element type. */
static Value *from_pool(Sample *s, const Type *t) {
    if (s->pool.n == 0 || rng(4) == 0) return NULL;
    Value *v = s->pool.at[rng(s->pool.n)];
    if (v->type.dtype != t->dtype || t->dtype == DT_bool) return NULL;
    if (rng(3) == 0) {
        Inst *in = build_inst(&s->b, OP_annotate, 1, &v, NULL, NULL);
        random_sharding(&s->m->mesh, &in->out[0]->type, ~0u);
        v = in->out[0];
    }
    LabelList over = {0};
    for (int d = 0; d < v->type.rank; d++) {
        int at = type_find(t, v->type.dim[d].label);
        if (at < 0)
            over.at[over.n++] = v->type.dim[d].label;
        else if (t->dim[at].size != v->type.dim[d].size)
            return NULL;
    }
    v = build_reduce(&s->b, "sum", v, over);
    return t->rank == 0 ? v : build_broadcast(&s->b, v, t);
}

static Value *arg(Sample *s, Type t) {
    Value *known = s->program ? from_pool(s, &t) : NULL;
    if (known != NULL) return known;
    random_sharding(&s->m->mesh, &t, ~0u);
    return block_arg(s->m, s->body, &t, intern_printf("a%d", s->body->args.n));
}

static Value *any_arg(Sample *s, DType dtype) {
    return arg(s, subset(s, dtype, 0, LABELS, -1));
}

static void build(Sample *s, int n, Value **in, Attrs at) {
    results(s, build_inst(&s->b, s->op, n, in, &at, NULL));
}

static void elementwise(Sample *s, DType dtype) {
    Value *in[3];
    for (int i = 0; i < op_info[s->op].nin; i++) in[i] = any_arg(s, dtype);
    build(s, op_info[s->op].nin, in, (Attrs){0});
}

static void sample_arith(Sample *s) {
    elementwise(s, s->op != OP_pow && rng(2) ? DT_i32 : DT_f32);
}
static void sample_real(Sample *s) {
    elementwise(s, DT_f32);
}
static void sample_compare(Sample *s) {
    elementwise(s, DT_i32);
}
static void sample_logic(Sample *s) {
    elementwise(s, DT_bool);
}
static void sample_where(Sample *s) {
    build(s, 3, (Value *[]){any_arg(s, DT_bool), any_arg(s, DT_f32), any_arg(s, DT_f32)}, (Attrs){0});
}
static void sample_cast(Sample *s) {
    build(s, 1, (Value *[]){any_arg(s, DT_f32)}, (Attrs){.dtype = DT_i32});
}

/* Of this shape annotate and stop_gradient exist before the collectives. */
static void sample_same(Sample *s) {
    build(s, 1, (Value *[]){any_arg(s, DT_f32)}, (Attrs){0});
}

static void sample_cumsum(Sample *s) {
    int along = rng(LABELS);
    Attrs at = {.label = s->all.dim[along].label, .exclusive = rng(2), .reverse = rng(2)};
    build(s, 1, (Value *[]){arg(s, subset(s, DT_f32, 0, LABELS, along))}, at);
}

static DimList some_dims(Sample *s, int with) {
    Type t = subset(s, DT_f32, 0, LABELS, with);
    DimList l = {.n = t.rank};
    for (int i = 0; i < t.rank; i++) {
        l.at[i].label = t.dim[i].label;
        l.at[i].size = t.dim[i].size;
    }
    return l;
}

static void sample_const(Sample *s) {
    build(s, 0, NULL, (Attrs){.dtype = DT_f32, .value = 3, .dims = some_dims(s, -1)});
}
static void sample_iota(Sample *s) {
    DimList dims = some_dims(s, 0);
    dims.n = 1;
    build(s, 0, NULL, (Attrs){.dims = dims});
}
static void sample_random(Sample *s) {
    Value *in[] = {arg(s, (Type){.dtype = DT_i32}), arg(s, (Type){.dtype = DT_i32})};
    build(s, 2, in, (Attrs){.kind = intern(rng(2) ? "uniform" : "normal"), .site = 5, .dims = some_dims(s, -1)});
}
static void sample_runtime(Sample *s) {
    build(s, 0, NULL, (Attrs){.kind = intern("steps")});
}

/* read and write: a variable that is written to what is computed from it, and returned. */
static void sample_read(Sample *s) {
    Var *v = NEW(s->arena, Var);
    v->kind = rng(2) ? VAR_param : VAR_state;
    v->path = intern_printf("v%d", s->m->vars.n);
    v->type = subset(s, DT_f32, 0, LABELS, -1);
    v->init = (VarInit){intern("const"), 2};
    v->step = 1;
    random_sharding(&s->m->mesh, &v->type, ~0u);
    vec_push(s->arena, s->m->vars, v);
    Value *old = build_inst(&s->b, OP_read, 0, NULL, &(Attrs){.var = v}, NULL)->out[0];
    Type like = v->type;
    Value *new = build2(&s->b, OP_add, old, arg(s, like), NULL);
    build_inst(&s->b, OP_write, 1, &new, &(Attrs){.var = v}, NULL);
    result(s, new);
}
static void sample_write(Sample *s) {
    sample_read(s);
}

static void sample_einsum(Sample *s) {
    Value *in[3];
    int n = 1 + rng(3);
    LabelList out = {0};
    for (int i = 0; i < n; i++) in[i] = any_arg(s, DT_f32);
    for (int i = 0; i < n; i++)
        for (int d = 0; d < in[i]->type.rank; d++) {
            bool known = rng(3) == 0;
            for (int k = 0; k < out.n; k++) known |= out.at[k] == in[i]->type.dim[d].label;
            if (!known) out.at[out.n++] = in[i]->type.dim[d].label;
        }
    build(s, n, in, (Attrs){.labels = out});
}

static void sample_reduce(Sample *s) {
    static const char *const kind[] = {"sum", "max", "min", "any"};
    int k = rng(4), along = rng(LABELS);
    Type t = subset(s, k == 3 ? DT_bool : DT_f32, 0, LABELS, along);
    LabelList over = {1, {s->all.dim[along].label}};
    for (int d = 0; d < t.rank; d++)
        if (t.dim[d].label != over.at[0] && rng(3) == 0) over.at[over.n++] = t.dim[d].label;
    build(s, 1, (Value *[]){arg(s, t)}, (Attrs){.kind = intern(kind[k]), .labels = over});
}

static void sample_top_k(Sample *s) {
    int along = rng(LABELS);
    Attrs at = {.label = s->all.dim[along].label, .to = intern("K"), .size = 2};
    build(s, 1, (Value *[]){arg(s, subset(s, DT_f32, 0, LABELS, along))}, at);
}

static void sample_ordinal(Sample *s) {
    int along = rng(LABELS);
    Attrs at = {.label = s->all.dim[along].label, .to = intern("N"), .size = 4};
    build(s, 1, (Value *[]){arg(s, subset(s, DT_i32, 0, LABELS, along))}, at);
}

static void sample_one_hot(Sample *s) {
    build(s, 1, (Value *[]){any_arg(s, DT_i32)}, (Attrs){.label = intern("N"), .size = 8});
}

static void sample_broadcast(Sample *s) {
    Value *x = any_arg(s, DT_f32);
    DimList dims = some_dims(s, -1);
    for (int d = 0; d < x->type.rank; d++) {
        bool known = false;
        for (int i = 0; i < dims.n; i++) known |= dims.at[i].label == x->type.dim[d].label;
        if (known) continue;
        dims.at[dims.n].label = x->type.dim[d].label;
        dims.at[dims.n++].size = x->type.dim[d].size;
    }
    build(s, 1, &x, (Attrs){.dims = dims});
}

/* Two axes become two others, or one, or one becomes two. */
static void sample_relabel(Sample *s) {
    static const int to[][3] = {{48, 1, 1}, {2, 24, 1}, {4, 12, 1}, {8, 6, 1}, {2, 3, 8}, {4, 3, 4}};
    Type t = subset(s, DT_f32, 2, LABELS, -1);
    t.dim[t.rank++] = (Dim){.label = intern("P"), .size = 4};
    t.dim[t.rank++] = (Dim){.label = intern("Q"), .size = 12};
    const int *shape = to[rng(6)];
    Attrs at = {.labels = {2, {intern("P"), intern("Q")}}};
    static const char *const name[] = {"U", "V", "W"};
    for (int i = 0; i < 3 && (i == 0 || shape[i] > 1); i++) {
        at.dims.at[i].label = intern(name[i]);
        at.dims.at[i].size = shape[i];
        at.dims.n = i + 1;
    }
    build(s, 1, (Value *[]){arg(s, t)}, at);
}

static void sample_slice(Sample *s) {
    int along = rng(LABELS);
    Attrs at = {.label = s->all.dim[along].label, .start = 1, .size = 1};
    if (rng(2)) at.to = intern("K"), at.size = s->all.dim[along].size - 1;
    build(s, 1, (Value *[]){arg(s, subset(s, DT_f32, 0, LABELS, along))}, at);
}

static void sample_pad(Sample *s) {
    int along = rng(LABELS);
    Attrs at = {.label = intern("N"), .start = 1, .size = 16};
    if (rng(2)) at.to = s->all.dim[along].label;
    build(s, 1, (Value *[]){arg(s, subset(s, DT_f32, 0, LABELS, along))}, at);
}

/* x has the labels 0 .. 2, the axis 0 is indexed; the index has some of 1 .. 3. */
static void sample_gather(Sample *s) {
    Value *x = arg(s, subset(s, DT_f32, 0, 3, 0));
    build(s, 2, (Value *[]){x, arg(s, subset(s, DT_i32, 1, LABELS, -1))}, (Attrs){.label = s->all.dim[0].label});
}

/* Gone before anything is split; its gradient is in gradcheck_test.c. */
static void sample_take(Sample *s) {
    (void)s;
}

static void sample_scatter(Sample *s) {
    Type index = subset(s, DT_i32, 0, 2, -1), values = subset(s, DT_f32, 2, LABELS, -1);
    Attrs at = {.label = intern("N"), .size = 8, .labels = {1, {intern("N")}}};
    for (int d = 0; d < values.rank; d++) at.labels.at[at.labels.n++] = values.dim[d].label;
    for (int d = 0; d < index.rank; d++) {
        values.dim[values.rank++] = index.dim[d];
        if (rng(3) == 0) at.labels.at[at.labels.n++] = index.dim[d].label;
    }
    build(s, 2, (Value *[]){arg(s, values), arg(s, index)}, at);
}

static void sample_update(Sample *s) {
    Type x = subset(s, DT_f32, 0, 3, 0), i = subset(s, DT_i32, 1, 3, -1), v = {.dtype = DT_f32};
    for (int d = 0; d < x.rank; d++)
        if (x.dim[d].label != s->all.dim[0].label) v.dim[v.rank++] = x.dim[d];
    Type index = {.dtype = DT_i32}; /* only labels that x has: a new one would write elements twice */
    for (int d = 0; d < i.rank; d++)
        if (type_find(&x, i.dim[d].label) >= 0) index.dim[index.rank++] = i.dim[d];
    build(s, 3, (Value *[]){arg(s, x), arg(s, index), arg(s, v)}, (Attrs){.label = s->all.dim[0].label});
}

/* carry = carry * 0 + x[l] + w; y = x[l] + index: all kinds of operands and results. */
static void sample_loop(Sample *s) {
    Type slice = subset(s, DT_i32, 0, LABELS, 0), stack = slice;
    stack.rank++;
    for (int d = 0; d < slice.rank; d++) stack.dim[d + 1] = slice.dim[d];
    stack.dim[0] = (Dim){.label = intern("L"), .size = 4};
    Type w = subset(s, DT_i32, 0, 1, 0);
    Value *in[] = {arg(s, stack), arg(s, slice), arg(s, w)};
    Block *body = block_new(s->m, NULL);
    Value *index = block_arg(s->m, body, &(Type){.dtype = DT_i32}, "l"), *x = block_arg(s->m, body, &slice, "x");
    Value *carry = block_arg(s->m, body, &slice, "c"), *inv = block_arg(s->m, body, &w, "w");
    Builder b = {s->m, body, NULL, {0, 0, 0}};
    Value *y = build2(&b, OP_add, x, index, NULL);
    Value *c = build2(&b, OP_add, build2(&b, OP_add, carry, x, NULL), inv, NULL);
    vec_push(s->arena, body->results, c);
    vec_push(s->arena, body->results, y);
    Attrs at = {.label = intern("L"), .trip = 4, .xs = 1, .carry = 1, .reverse = rng(2)};
    results(s, build_inst(&s->b, OP_loop, 3, in, &at, body));
}

static void sample_fused(Sample *s) {
    (void)s;
}
static void sample_grad(Sample *s) {
    (void)s;
}

static void (*const sample_of[OP_COUNT])(Sample *) = {
#define OP(id, in, attrs, phases, shape, rule, grad, emit, expr, doc) [OP_##id] = sample_##shape,
#include "ops.def"
#undef OP
};

/* Other sizes for the labels. */
static void sample_sizes(Sample *s) {
    static const char *const label[] = {"A", "B", "C", "D"};
    static const int size[] = {2, 4, 6, 8};
    for (int d = 0; d < LABELS; d++) s->all.dim[d] = (Dim){.label = intern(label[d]), .size = size[rng(4)]};
}

/* A sample in a new function of the module. */
static Sample sample_in(Module *m, const char *name, Op op) {
    Func *f = func_new(m, name, FUNC_entry, (Loc){0, 0, 0});
    Builder b = {m, f->body, NULL, {0, 0, 0}};
    Sample s = {.arena = m->arena, .m = m, .f = f, .body = f->body, .b = b, .op = op, .all.rank = LABELS};
    sample_sizes(&s);
    return s;
}

#endif
