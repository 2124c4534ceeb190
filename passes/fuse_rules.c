/* fuse_rules.c: which instructions make one loop nest.
 *
 * The nest's loops are the labels of its largest value, in that value's order. Each member is computed inside the loops
 * of its own labels, so a member whose labels are the outer loops (a row's maximum, a scale by token) costs once a row,
 * and one that has only inner labels would be computed again for every row: refused, unless it is cheap.
 *
 * A fold may be read inside the nest (softmax, norms) when its labels are the last in memory: the row is gone over once
 * for each fold, while it is in the cache. All folds of a nest remove the same labels. A fold that nothing in the nest
 * reads may remove any labels: it adds into its result.
 *
 * An op that picks elements (slice, gather, pad) reads memory, so its operand is computed before the nest. */
#include <string.h>

#include "fuse.h"

typedef struct Loops {
    int n;
    Label at[2 * MAX_RANK];
} Loops;

static bool picks(Op op) {
    return op == OP_slice || op == OP_shard_slice || op == OP_gather || op == OP_pad;
}

/* Arithmetic that costs no more than the load of a stored result. */
static bool cheap(const Inst *i) {
    return op_info[i->op].emit == EMIT_elem && i->op != OP_random && strstr(op_info[i->op].expr, "MOE_") == NULL;
}

enum { LEAF_DEPTH = 4 };

static bool leaf_at(const Inst *inst, int depth) {
    if (depth == 0 || !cheap(inst)) return false;
    for (int i = 0; i < inst->nin; i++)
        if (inst->in[i]->def == NULL || !leaf_at(inst->in[i]->def, depth - 1)) return false;
    return true;
}

bool fuse_is_leaf(const Inst *inst) {
    return leaf_at(inst, LEAF_DEPTH);
}

bool fuse_can(const Inst *inst) {
    if (fuse_is_leaf(inst)) return false;
    return op_info[inst->op].emit == EMIT_elem || inst->op == OP_reduce || picks(inst->op);
}

bool fuse_has(const Members *m, const Inst *inst) {
    for (int i = 0; i < m->n; i++)
        if (m->at[i] == inst) return true;
    return false;
}

/* What a member loops over: its result, and for a fold what it removes. */
static const Type *span(const Inst *i) {
    return i->op == OP_reduce ? &i->in[0]->type : &i->out[0]->type;
}

static int loop_find(const Loops *l, Label label) {
    for (int i = 0; i < l->n; i++)
        if (l->at[i] == label) return i;
    return -1;
}

/* Axes of one local element are no loops. */
static Loops axes_of(const Members *m, const Type *t) {
    Loops l = {0};
    for (int d = 0; d < t->rank; d++)
        if (dim_local(m->mesh, &t->dim[d]) > 1) l.at[l.n++] = t->dim[d].label;
    return l;
}

static Loops loops_of(const Members *m) {
    const Type *most = span(m->at[0]);
    for (int i = 1; i < m->n; i++)
        if (span(m->at[i])->rank > most->rank) most = span(m->at[i]);
    return axes_of(m, most);
}

static bool reads_fold(const Members *m, const Inst *fold) {
    for (int i = 0; i < m->n; i++)
        for (int k = 0; k < m->at[i]->nin; k++)
            if (m->at[i]->in[k]->def == fold) return true;
    return false;
}

static bool same_labels(const LabelList *a, const LabelList *b) {
    for (int i = 0; i < a->n; i++) {
        bool found = false;
        for (int k = 0; k < b->n; k++) found |= a->at[i] == b->at[k];
        if (!found) return false;
    }
    return a->n == b->n;
}

static int64_t folded_elements(const Members *m, const Inst *fold) {
    int64_t n = 1;
    for (int i = 0; i < fold->at.labels.n; i++) {
        const Type *t = &fold->in[0]->type;
        n *= dim_local(m->mesh, &t->dim[type_find(t, fold->at.labels.at[i])]);
    }
    return n;
}

/* Whether the labels are the last axes of t. */
static bool trailing(const Type *t, const LabelList *labels) {
    for (int i = 0; i < labels->n; i++)
        if (type_find(t, labels->at[i]) < t->rank - labels->n) return false;
    return true;
}

/* All folds go over the whole space and remove the same labels; if one is read inside, those become the last loops. */
static bool folds_fit(const Members *m, Loops *loops) {
    const Inst *first = NULL;
    bool inner = false;
    for (int i = 0; i < m->n; i++) {
        const Inst *fold = m->at[i];
        if (fold->op != OP_reduce) continue;
        if (axes_of(m, &fold->in[0]->type).n != loops->n) return false;
        if (first != NULL && !same_labels(&first->at.labels, &fold->at.labels)) return false;
        first = fold;
        if (!reads_fold(m, fold)) continue;
        inner = true;
        if (!trailing(&fold->in[0]->type, &fold->at.labels) || folded_elements(m, fold) > FUSE_ROW) return false;
    }
    if (!inner) return true;
    Loops rows = {0};
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < loops->n; i++) {
            bool folded = false;
            for (int k = 0; k < first->at.labels.n; k++) folded |= first->at.labels.at[k] == loops->at[i];
            if (folded == (pass == 1)) rows.at[rows.n++] = loops->at[i];
        }
    *loops = rows;
    return true;
}

/* Whether the axes are the first loops: the value is computed once. */
static bool is_outer(const Loops *axes, const Loops *loops) {
    for (int i = 0; i < axes->n; i++)
        if (loop_find(loops, axes->at[i]) >= axes->n) return false;
    return true;
}

/* Stored in the order of the loops, else every store opens another line of the cache. */
static bool in_order(const Loops *axes, const Loops *loops) {
    for (int i = 1; i < axes->n; i++)
        if (loop_find(loops, axes->at[i]) < loop_find(loops, axes->at[i - 1])) return false;
    return true;
}

static bool member_fits(const Members *m, const Inst *i, const Loops *loops) {
    Loops all = axes_of(m, span(i)), axes = axes_of(m, &i->out[0]->type);
    for (int a = 0; a < all.n; a++)
        if (loop_find(loops, all.at[a]) < 0) return false;
    if (picks(i->op) && i->in[0]->def != NULL && fuse_has(m, i->in[0]->def)) return false;
    if (i->op == OP_reduce) return true;
    bool outside = m->outside(m->ctx, i->out[0], m);
    if (outside && !in_order(&axes, loops)) return false;
    return is_outer(&axes, loops) || (cheap(i) && !outside);
}

/* A nest is dealt along a loop that all its results have: a scalar beside a tensor would leave it to one worker. */
static bool results_fit(const Members *m) {
    bool scalar = false, tensor = false;
    for (int i = 0; i < m->n; i++) {
        if (!m->outside(m->ctx, m->at[i]->out[0], m)) continue;
        bool one = axes_of(m, &m->at[i]->out[0]->type).n == 0;
        scalar |= one;
        tensor |= !one;
    }
    return !(scalar && tensor);
}

/* A label is one loop: a tensor and its own shard (shard_slice) do not share it. */
static bool sizes_fit(const Members *m) {
    Type all = {.rank = 0};
    for (int i = 0; i < m->n; i++) {
        const Type *t = span(m->at[i]);
        for (int d = 0; d < t->rank; d++) {
            int at = type_find(&all, t->dim[d].label);
            if (at >= 0 && dim_local(m->mesh, &all.dim[at]) != dim_local(m->mesh, &t->dim[d])) return false;
            if (at < 0 && all.rank == MAX_RANK) return false;
            if (at < 0) all.dim[all.rank++] = t->dim[d];
        }
    }
    return true;
}

bool fuse_fits(const Members *m) {
    if (!sizes_fit(m)) return false;
    Loops loops = loops_of(m);
    if (!folds_fit(m, &loops)) return false;
    for (int i = 0; i < m->n; i++)
        if (!member_fits(m, m->at[i], &loops)) return false;
    return results_fit(m);
}
