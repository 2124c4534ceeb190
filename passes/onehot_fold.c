/* onehot_fold.c: folds of one-hot forms: sums, `any`, running counts, and the softmax of what is -inf off the index.
 *
 * A sum over a hot's axis takes the hot away and leaves the condition that its index is on the axis; a sum over an axis
 * of the indices is kept as such, until all hots are gone: then it is one of small tensors. Shazeer's gates are
 * softmax(where(top, h, -inf)): a form whose background is -inf (`low`) keeps it through differences, its largest
 * element is one of its weights, and its exponential is a form again.
 *
 * Before and after: ANNOTATED. What is built has the size of indices, and of results. */
#include <float.h>
#include <math.h>

#include "onehot.h"
#include "support/intern.h"

/* ---- a background of -inf ---- */

void see_low(Onehot *o, Inst *inst, const Form *c) {
    double rest;
    if (!hot_is_number(inst->in[2], &rest) || rest != -INFINITY || !form_disjoint(o, c)) return;
    if (form_shadows(c, &inst->out[0]->type)) return;
    const Form *low = form_scale(o, c, inst->in[1], false);
    hot_slot(o, inst->out[0])->low = low;
}

/* x - y and x + y with y dense. */
void see_low_sum(Onehot *o, Inst *inst) {
    const Form *f = hot_slot(o, inst->in[0])->low;
    if (form_shadows(f, &inst->out[0]->type) || form_of(o, inst->in[1]) != NULL) return;
    Form *r = form_copy(o, f);
    for (int k = 0; k < r->n; k++) {
        Value *y = choice_read(o, &r->at[k], inst->in[1]);
        if (y == NULL) return;
        r->at[k].weight = build2(&o->b, inst->op, r->at[k].weight, y, NULL);
    }
    hot_slot(o, inst->out[0])->low = r;
}

/* A weight whose index is nowhere is not used, but it must be a number: zero times an infinity is none. */
void see_exp(Onehot *o, Inst *inst) {
    const Form *f = hot_slot(o, inst->in[0])->low;
    if (f == NULL) return;
    Form *r = form_copy(o, f);
    for (int k = 0; k < r->n; k++) {
        Choice *c = &r->at[k];
        for (int h = 0; h < c->nhot; h++) {
            Value *on = hot_valid(o, &c->hot[h]), *zero = hot_number(o, c->weight->type.dtype, 0);
            if (on != NULL) c->weight = build3(&o->b, OP_where, on, c->weight, zero, NULL);
        }
        c->weight = build1(&o->b, OP_exp, c->weight, NULL);
    }
    set_form(o, inst, r);
}

/* The maximum over the axes of all hots. Where nothing is above -inf it is what a maximum starts from. */
static void see_low_max(Onehot *o, Inst *inst) {
    const Form *f = hot_slot(o, inst->in[0])->low;
    Value *most = NULL;
    if (inst->at.kind != intern("max")) return;
    for (int k = 0; k < f->n; k++) {
        const Choice *c = &f->at[k];
        Value *w = c->weight;
        LabelList over = c->over;
        for (int i = 0; i < inst->at.labels.n; i++) list_add(&over, inst->at.labels.at[i]);
        for (int h = 0; h < c->nhot; h++) {
            if (!list_has(&inst->at.labels, c->hot[h].label)) return;
            Value *on = hot_valid(o, &c->hot[h]);
            if (on != NULL) w = build3(&o->b, OP_where, on, w, hot_number(o, w->type.dtype, -(double)FLT_MAX), NULL);
        }
        w = build_reduce(&o->b, "max", w, labels_minus(over, labels_minus(over, type_labels(&w->type))));
        most = most == NULL ? w : build2(&o->b, OP_maximum, most, w, NULL);
    }
    hot_replace(o, inst, most);
}

/* ---- folds ---- */

/* The weight where all the conditions hold. */
static Value *weight_where(Onehot *o, const Choice *c, Value *valid, DType t) {
    Value *w = c->weight;
    if (valid == NULL) return w != NULL ? w : hot_number(o, t, 1);
    if (w == NULL) return build_cast(&o->b, valid, t);
    const Count *rank = hot_slot(o, w)->rank;
    Value *x = build3(&o->b, OP_where, valid, w, hot_number(o, t, 0), NULL);
    hot_slot(o, x)->rank = rank;
    return x;
}

/* A gather reads 0 where its index is nowhere, and counts are read as 0 there. */
static bool is_zero_outside(Onehot *o, Value *weight, const Hot *hot) {
    const Count *rank = weight != NULL ? hot_slot(o, weight)->rank : NULL;
    if (rank != NULL && rank->hot.index == hot->index && rank->constant == 0) return true;
    const Inst *def = weight != NULL ? weight->def : NULL;
    return def != NULL && def->op == OP_gather && def->in[1] == hot->index && def->at.label == hot->label;
}

/* One choice of a sum over `labels`: what repeats counts, positions are summed, hots become the condition *valid. */
static void sum_choice(Onehot *o, const Inst *inst, Choice *c, Value **valid) {
    const Type *x = &inst->in[0]->type;
    LabelList mine = choice_labels(c);
    for (int i = 0; i < inst->at.labels.n; i++) {
        Label label = inst->at.labels.at[i];
        if (choice_hot(c, label) != NULL) continue;
        if (list_has(&mine, label))
            list_add(&c->over, label);
        else if (inst->at.kind == intern("sum"))
            choice_scale(o, c, hot_number(o, inst->out[0]->type.dtype, (double)x->dim[type_find(x, label)].size));
    }
    *valid = NULL;
    for (int i = 0; i < inst->at.labels.n; i++) {
        Hot *hot = choice_hot(c, inst->at.labels.at[i]);
        if (hot == NULL) continue;
        Value *on = c->nhot == 1 && *valid == NULL && is_zero_outside(o, c->weight, hot) ? NULL : hot_valid(o, hot);
        if (on == NULL && c->nhot > 1) on = hot_present(o, hot, &c->hot[hot == &c->hot[0] ? 1 : 0].index->type);
        if (on != NULL) *valid = *valid == NULL ? on : build2(&o->b, OP_and, *valid, on, NULL);
        *hot = c->hot[--c->nhot];
    }
}

/* Positions along labels that the choice has and x has not: x is the same at each. */
static int64_t repeats(const Choice *c, const LabelList *labels, const Type *x) {
    int64_t n = 1;
    for (int i = 0; i < labels->n; i++) {
        const Type *t = NULL;
        if (type_has(x, labels->at[i])) continue;
        if (c->weight != NULL && type_has(&c->weight->type, labels->at[i])) t = &c->weight->type;
        for (int h = 0; h < c->nhot && t == NULL; h++)
            if (type_has(&c->hot[h].index->type, labels->at[i])) t = &c->hot[h].index->type;
        if (t != NULL) n *= t->dim[type_find(t, labels->at[i])].size;
    }
    return n;
}

/* All hots are summed away: a sum of small tensors. `before`: the choices with their hots. */
static Value *sum_dense(Onehot *o, const Inst *inst, const Form *before, Form *f, Value *const *valid) {
    bool any = inst->at.kind == intern("any");
    DType t = inst->out[0]->type.dtype;
    Value *sum = NULL;
    for (int k = 0; k < f->n; k++) {
        Choice *c = &f->at[k];
        Value *x = weight_where(o, c, valid[k], t);
        int64_t n = any ? 1 : repeats(&before->at[k], &c->over, &x->type);
        LabelList over = labels_minus(c->over, labels_minus(c->over, type_labels(&x->type)));
        x = build_reduce(&o->b, inst->at.kind, x, over);
        if (n > 1) x = build2(&o->b, OP_mul, x, hot_number(o, t, (double)n), NULL);
        sum = sum == NULL ? x : build2(&o->b, any ? OP_or : OP_add, sum, x, NULL);
    }
    return sum;
}

void see_reduce(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    bool any = inst->at.kind == intern("any");
    if (hot_slot(o, inst->in[0])->low != NULL) see_low_max(o, inst);
    if (f == NULL || (!any && inst->at.kind != intern("sum"))) return;
    Form *r = form_copy(o, f);
    Value *valid[MAX_CHOICES];
    int dense = 0;
    for (int k = 0; k < r->n; k++) {
        sum_choice(o, inst, &r->at[k], &valid[k]);
        dense += r->at[k].nhot == 0;
    }
    if (dense == r->n) {
        Value *sum = sum_dense(o, inst, f, r, valid);
        hot_replace(o, inst, sum);
        const Count *rank = r->n == 1 ? hot_slot(o, sum)->rank : NULL;
        if (rank != NULL) hot_slot(o, hot_slot(o, inst->out[0])->to)->rank = rank;
        return;
    }
    if (dense > 0) return;
    for (int k = 0; k < r->n; k++)
        if (valid[k] != NULL) choice_mask(o, &r->at[k], valid[k]);
    if (!any || form_disjoint(o, r)) {
        set_form(o, inst, r);
        return;
    }
    /* Some position is there: their number is not 0. */
    Type count = inst->out[0]->type;
    count.dtype = DT_i32;
    Value *n = form_is_summed(r) ? form_place(o, r, &count) : NULL;
    if (n != NULL) hot_replace(o, inst, build2(&o->b, OP_lt, hot_number(o, DT_i32, 0), n, NULL));
}

/* The running count of an index. */
void see_cumsum(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    const Choice *c = f != NULL && f->n == 1 ? &f->at[0] : NULL;
    if (c == NULL || c->nhot != 1 || c->weight != NULL || c->over.n > 1 || inst->at.reverse) return;
    if (!type_has(&c->hot[0].index->type, inst->at.label) || inst->at.label == c->hot[0].label) return;
    Label further = c->over.n == 1 ? c->over.at[0] : NULL;
    if (further != NULL && (!choice_differs(o, c, further) || !type_has(&c->hot[0].index->type, further))) return;
    Count *k = NEW(o->scratch, Count);
    *k = (Count){.hot = c->hot[0], .along = inst->at.label, .further = further, .constant = inst->at.exclusive ? 0 : 1};
    hot_slot(o, inst->out[0])->count = k;
}
