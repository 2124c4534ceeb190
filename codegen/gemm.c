/* gemm.c: an einsum of two operands as calls of the runtime's GEMM.
 *
 * Labels fall into four classes by where they occur: batch (everywhere), m (first operand and result), n (second and
 * result), k (operands only). Within a class, axes that are neighbours in memory in every tensor merge into one axis
 * with one stride. One group of m, n and k each goes to the GEMM; further m and n groups become batch axes that step
 * only two of the three pointers; further k groups, and batch axes beyond four, become C loops around the call, k loops
 * accumulating. No operand is ever copied: strides say the transposition.
 *
 * The operands are swapped when the result is contiguous along the first one's label, so that n is the fast axis. */
#include "emit.h"

typedef struct Group {
    int64_t size;
    int64_t s[3]; /* strides in a, b, c; 0: the axis is not there */
} Group;

typedef struct Groups {
    int n;
    Group at[2 * MAX_RANK];
} Groups;

enum { CLASS_batch, CLASS_m, CLASS_n, CLASS_k, CLASSES, MAX_BATCH = 4, TINY = 512 };

typedef struct Contraction {
    Groups of[CLASSES];
    Group m, n, k;
    Groups batch; /* for the table */
    Groups loops; /* around the call; without a stride in c: accumulating */
} Contraction;

static int64_t label_stride(const Emit *e, const Type *t, Label label) {
    int axis = type_find(t, label);
    return axis < 0 ? 0 : nest_stride(&e->m->mesh, t, axis);
}

/* Files one axis; false when it is in one operand only. */
static bool classify(const Emit *e, Contraction *c, const Type *const *t, const Dim *d) {
    Group g = {.size = dim_local(&e->m->mesh, d)};
    if (g.size == 1) return true;
    for (int k = 0; k < 3; k++) g.s[k] = label_stride(e, t[k], d->label);
    bool a = g.s[0] != 0, b = g.s[1] != 0, r = g.s[2] != 0;
    if (a + b + r < 2) return false;
    Groups *of = &c->of[a && b && r ? CLASS_batch : a && r ? CLASS_m : b && r ? CLASS_n : CLASS_k];
    of->at[of->n++] = g;
    return true;
}

/* Sorted by the stride that leads, merged where all strides fit. */
static void merge(Groups *g, int lead) {
    for (int i = 1; i < g->n; i++)
        for (int k = i; k > 0 && g->at[k].s[lead] > g->at[k - 1].s[lead]; k--) {
            Group t = g->at[k];
            g->at[k] = g->at[k - 1];
            g->at[k - 1] = t;
        }
    for (int i = g->n - 2; i >= 0; i--) {
        Group *outer = &g->at[i], *inner = &g->at[i + 1];
        bool fits = true;
        for (int k = 0; k < 3; k++) fits &= outer->s[k] == inner->s[k] * inner->size;
        if (!fits) continue;
        inner->size *= outer->size;
        g->n--;
        for (int k = i; k < g->n; k++) g->at[k] = g->at[k + 1];
    }
}

/* Takes out the group for the GEMM: one that is contiguous in tensor `unit` when it is not small, else the largest. */
static Group take(Groups *g, int unit) {
    if (g->n == 0) return (Group){.size = 1};
    int best = 0;
    for (int i = 1; i < g->n; i++)
        if (g->at[i].size > g->at[best].size) best = i;
    for (int i = 0; i < g->n; i++)
        if (g->at[i].s[unit] == 1 && g->at[i].size * 4 >= g->at[best].size) best = i;
    Group taken = g->at[best];
    g->n--;
    for (int i = best; i < g->n; i++) g->at[i] = g->at[i + 1];
    return taken;
}

static void spread(Contraction *c, const Groups *g) {
    for (int i = 0; i < g->n; i++) {
        Groups *to = c->batch.n < MAX_BATCH ? &c->batch : &c->loops;
        to->at[to->n++] = g->at[i];
    }
}

static bool contraction_find(const Emit *e, const Inst *inst, const Type *const *t, Contraction *c) {
    if (inst->nin != 2 || t[2]->dtype != DT_f32) return false;
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < t[k]->rank; i++) {
            bool seen = false;
            for (int l = 0; l < k; l++) seen |= type_find(t[l], t[k]->dim[i].label) >= 0;
            if (!seen && !classify(e, c, t, &t[k]->dim[i])) return false;
        }
    merge(&c->of[CLASS_batch], 2);
    merge(&c->of[CLASS_m], 2);
    merge(&c->of[CLASS_n], 2);
    merge(&c->of[CLASS_k], 0);
    c->m = take(&c->of[CLASS_m], 0);
    c->n = take(&c->of[CLASS_n], 2);
    c->k = take(&c->of[CLASS_k], 0);
    if (c->m.size == 1 || c->n.size == 1 || c->k.size == 1 || c->m.size * c->n.size * c->k.size < TINY) return false;
    spread(c, &c->of[CLASS_batch]);
    spread(c, &c->of[CLASS_m]);
    spread(c, &c->of[CLASS_n]);
    for (int i = 0; i < c->of[CLASS_k].n; i++) c->loops.at[c->loops.n++] = c->of[CLASS_k].at[i];
    return true;
}

static void add_batch(Str *s, const char *name, const Groups *batch, int k) {
    if (batch->n == 0) return;
    str_addf(s, ", .%s = {", name);
    for (int i = 0; i < batch->n; i++)
        str_addf(s, "%s%lld", i > 0 ? ", " : "", (long long)(k < 0 ? batch->at[i].size : batch->at[i].s[k]));
    str_add(s, "}");
}

static int gemm_row(Emit *e, const Contraction *c, bool accumulate, Loc loc) {
    Str s = str_new(e->arena);
    str_addf(&s, ".nbatch = %d", c->batch.n);
    add_batch(&s, "batch", &c->batch, -1);
    add_batch(&s, "a_batch", &c->batch, 0);
    add_batch(&s, "b_batch", &c->batch, 1);
    add_batch(&s, "c_batch", &c->batch, 2);
    str_addf(&s, ", .m = %lld, .n = %lld, .k = %lld", (long long)c->m.size, (long long)c->n.size, (long long)c->k.size);
    str_addf(&s, ", .a_m = %lld, .a_k = %lld", (long long)c->m.s[0], (long long)c->k.s[0]);
    str_addf(&s, ", .b_k = %lld, .b_n = %lld", (long long)c->k.s[1], (long long)c->n.s[1]);
    str_addf(&s, ", .c_m = %lld, .c_n = %lld", (long long)c->m.s[2], (long long)c->n.s[2]);
    if (accumulate) str_add(&s, ", .accumulate = true");
    return emit_row(e, s.at, false, loc);
}

/* "(const float *)AT(64) + j0 * 128" */
static const char *stepped(Emit *e, const Value *v, const Groups *loops, int k, const char *type) {
    const char *p = emit_pointer(e, v);
    Str s = str_new(e->arena);
    for (int i = 0; i < loops->n; i++)
        if (loops->at[i].s[k] != 0) str_addf(&s, " + j%d * %lld", i, (long long)loops->at[i].s[k]);
    return s.n == 0 ? p : arena_printf(e->arena, "(%s)%s%s", type, p, s.at);
}

static void emit_calls(Emit *e, const Contraction *c, const Value *a, const Value *b, const Value *r, Loc loc) {
    int first = gemm_row(e, c, false, loc), next = first;
    Str fresh = str_new(e->arena);
    const Groups *l = &c->loops;
    for (int i = 0; i < l->n; i++) {
        if (l->at[i].s[2] == 0) str_addf(&fresh, "%sj%d == 0", fresh.n > 0 ? " && " : "", i);
        emit_line(e, "for (int64_t j%d = 0; j%d < %lld; j%d++)", i, i, (long long)l->at[i].size, i);
        e->depth++;
    }
    if (fresh.n > 0) next = gemm_row(e, c, true, loc);
    const char *row = fresh.n == 0 ? arena_printf(e->arena, "%d", first)
                                   : arena_printf(e->arena, "%s ? %d : %d", fresh.at, first, next);
    emit_line(e, "moe_gemm(w, %s, %s, %s, %s);", row, stepped(e, a, l, 0, "const float *"),
              stepped(e, b, l, 1, "const float *"), stepped(e, r, l, 2, "float *"));
    e->depth -= l->n;
}

/* Whether the result is contiguous along a label that only the first operand has. */
static bool fast_in_first(const Emit *e, const Type *a, const Type *b, const Type *r) {
    for (int i = r->rank - 1; i >= 0; i--) {
        if (dim_local(&e->m->mesh, &r->dim[i]) == 1) continue;
        return type_find(a, r->dim[i].label) >= 0 && type_find(b, r->dim[i].label) < 0;
    }
    return false;
}

bool emit_gemm(Emit *e, const Inst *inst) {
    if (inst->nin != 2) return false;
    const Value *a = inst->in[0], *b = inst->in[1], *r = inst->out[0];
    if (fast_in_first(e, &a->type, &b->type, &r->type)) {
        const Value *t = a;
        a = b;
        b = t;
    }
    Contraction c = {.m.size = 0};
    const Type *t[3] = {&a->type, &b->type, &r->type};
    if (!contraction_find(e, inst, t, &c)) return false;
    emit_calls(e, &c, a, b, r, inst->loc);
    return true;
}
