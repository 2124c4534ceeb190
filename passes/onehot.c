/* onehot.c: one-hot algebra becomes index tables and row moves.
 *
 * GShard writes routing as dense tensors over [token, expert, slot], nearly all zeros, and einsums with them. This pass
 * is an abstract interpretation: walking forward, it knows of values that they are sums of weight x onehot x onehot …
 * (onehot.h), through products, sums, comparisons with zero, casts, masks, slices, and running counts; and it rewrites
 * what consumes them: einsums become moves of rows (onehot_route.c), sums become sums of small tensors, a running count
 * read at its own index becomes `ordinal`. Values that are known only this way lose their uses, and `simplify` removes
 * them. Whatever else uses one keeps the dense tensor, for that use only.
 *
 * Zero times a number is taken to be zero: where the dense program would have multiplied an infinity by the zeros of a
 * one-hot, the NaN is gone.
 *
 * Before and after: ANNOTATED, before gradients are taken, so that these are moves of rows too. Results keep their
 * types; annotations on a value stay on what replaces it. Cost: linear in the program. */
#include "onehot.h"

#include <stdio.h>

#include "passes.h"

/* ---- the table of slots ---- */

HotSlot *hot_slot(Onehot *o, Value *v) {
    /* Ids of values that the table does not know are anything: the slot's `of` tells. */
    if (v->id < 0 || v->id >= o->slot.n || o->slot.at[v->id].of != v) {
        v->id = o->slot.n;
        vec_push(o->scratch, o->slot, ((HotSlot){.of = v}));
    }
    return &o->slot.at[v->id];
}

Value *hot_resolve(Onehot *o, Value *v) {
    for (Value *to = v; to != NULL; to = hot_slot(o, v)->to) v = to;
    return v;
}

Value *hot_number(Onehot *o, DType t, double value) {
    return build_const(&o->b, t, value);
}

const Form *form_of(Onehot *o, Value *v) {
    return hot_slot(o, v)->form;
}

bool form_is_summed(const Form *f) {
    for (int k = 0; k < f->n; k++)
        if (f->at[k].over.n > 0) return true;
    return false;
}

/* The value for a use that knows nothing of forms. Sums over choices or positions were never made. */
static Value *dense_of(Onehot *o, Value *v) {
    HotSlot *slot = hot_slot(o, v);
    if (slot->placed != NULL && slot->placed->block == o->b.block) return slot->placed;
    if (slot->form == NULL || !form_is_summed(slot->form)) return v;
    Value *x = form_place(o, slot->form, &v->type);
    if (x == NULL) return v;
    if (x->name == NULL && x->def != NULL) x->name = v->name;
    hot_slot(o, v)->placed = x;
    return x;
}

/* A label that is summed inside, and one of the same name outside, would be taken for one. */
bool form_shadows(const Form *f, const Type *t) {
    for (int k = 0; k < f->n; k++)
        for (int i = 0; i < f->at[k].over.n; i++)
            if (type_has(t, f->at[k].over.at[i])) return true;
    return false;
}

void set_form(Onehot *o, const Inst *inst, const Form *f) {
    if (f != NULL && !form_shadows(f, &inst->out[0]->type)) hot_slot(o, inst->out[0])->form = f;
}

/* From here on `to` stands for the instruction's result. */
void hot_replace(Onehot *o, const Inst *inst, Value *to) {
    to = build_broadcast(&o->b, to, &inst->out[0]->type);
    if (to->name == NULL && to->def != NULL) to->name = inst->out[0]->name;
    hot_slot(o, inst->out[0])->to = to;
    o->changed = true;
}

static bool is_bool(const Inst *inst) {
    return inst->out[0]->type.dtype == DT_bool;
}

bool hot_is_number(const Value *v, double *value) {
    const Inst *def = v->def;
    while (def != NULL && def->op == OP_broadcast) def = def->in[0]->def;
    if (def == NULL || def->op != OP_const) return false;
    *value = def->at.value;
    return true;
}

static bool is_zero(const Value *v) {
    double value;
    return hot_is_number(v, &value) && value == 0;
}

/* ---- where forms begin ---- */

static Form *one_hot_form(Onehot *o, Value *index, Label label, int64_t size) {
    Form *f = NEW(o->scratch, Form);
    *f = (Form){1, {{.nhot = 1, .hot = {{label, size, index}}}}};
    return f;
}

static void see_one_hot(Onehot *o, Inst *inst) {
    set_form(o, inst, one_hot_form(o, inst->in[0], inst->at.label, inst->at.size));
}

/* index == iota is a one-hot written by hand. */
static void see_eq(Onehot *o, Inst *inst) {
    for (int k = 0; k < 2; k++) {
        const Value *axis = inst->in[k];
        Value *index = inst->in[1 - k];
        const Inst *def = axis->def;
        while (def != NULL && def->op == OP_broadcast) def = def->in[0]->def;
        if (def == NULL || def->op != OP_iota || index->type.dtype != DT_i32) continue;
        Label label = def->at.dims.at[0].label;
        if (index->def != NULL && index->def->op == OP_broadcast) index = hot_resolve(o, index->def->in[0]);
        if (!type_has(&index->type, label)) set_form(o, inst, one_hot_form(o, index, label, def->at.dims.at[0].size));
    }
}

/* ---- products ---- */

static void see_product(Onehot *o, Inst *inst) {
    for (int k = 0; k < 2; k++)
        if (inst->op == OP_and && inst->in[0] == inst->in[1]) set_form(o, inst, form_of(o, inst->in[k]));
    const Form *a = form_of(o, inst->in[0]), *b = form_of(o, inst->in[1]);
    if (a != NULL && b != NULL) {
        set_form(o, inst, form_times(o, a, b));
    } else if (a != NULL || b != NULL) {
        Value *dense = inst->in[a != NULL ? 1 : 0];
        set_form(o, inst, form_scale(o, a != NULL ? a : b, dense, is_bool(inst)));
    }
}

/* x / y with y dense. */
static void see_div(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    if (f == NULL || form_of(o, inst->in[1]) != NULL || !form_disjoint(o, f)) return;
    Form *r = form_copy(o, f);
    DType t = inst->out[0]->type.dtype;
    for (int k = 0; k < r->n; k++) {
        Value *y = choice_read(o, &r->at[k], inst->in[1]), *x = r->at[k].weight;
        LabelList hidden = r->at[k].over;
        if (y == NULL || labels_minus(hidden, type_labels(&inst->in[1]->type)).n < hidden.n) return;
        /* Read at an index that is nowhere it is 0, by which nothing is divided. */
        for (int h = 0; h < r->at[k].nhot; h++) {
            const Hot *hot = &r->at[k].hot[h];
            Value *on = type_has(&inst->in[1]->type, hot->label) ? hot_valid(o, hot) : NULL;
            if (on != NULL) y = build3(&o->b, OP_where, on, y, hot_number(o, t, 1), NULL);
        }
        r->at[k].weight = build2(&o->b, OP_div, x != NULL ? x : hot_number(o, t, 1), y, NULL);
    }
    set_form(o, inst, r);
}

/* ---- sums ---- */

/* A count and what is added to it. */
static void see_count_sum(Onehot *o, Inst *inst, int at) {
    const Count *k = hot_slot(o, inst->in[at])->count;
    Value *other = inst->in[1 - at];
    Count *sum = NEW(o->scratch, Count);
    double value;
    *sum = *k;
    if (hot_is_number(other, &value)) {
        sum->constant += inst->op == OP_sub ? -value : value;
    } else {
        if (inst->op == OP_sub || k->nplus == MAX_PLUS || type_has(&other->type, k->along)) return;
        sum->plus[sum->nplus++] = dense_of(o, other);
    }
    hot_slot(o, inst->out[0])->count = sum;
}

static void see_sum(Onehot *o, Inst *inst) {
    const Form *a = form_of(o, inst->in[0]), *b = form_of(o, inst->in[1]);
    if (a != NULL && b != NULL) {
        Form *r = form_copy(o, b);
        for (int k = 0; k < r->n && inst->op == OP_sub; k++) {
            Value *w = r->at[k].weight;
            if (w == NULL) w = hot_number(o, inst->out[0]->type.dtype, 1);
            r->at[k].weight = build1(&o->b, OP_neg, w, NULL);
        }
        set_form(o, inst, form_sum(o, a, r));
        return;
    }
    if (hot_slot(o, inst->in[0])->low != NULL) see_low_sum(o, inst);
    for (int k = 0; k < (inst->op == OP_add ? 2 : 1); k++)
        if (hot_slot(o, inst->in[k])->count != NULL) {
            see_count_sum(o, inst, k);
            return;
        }
}

static void see_or(Onehot *o, Inst *inst) {
    const Form *a = form_of(o, inst->in[0]), *b = form_of(o, inst->in[1]);
    if (a == NULL || b == NULL) return;
    Form *f = form_sum(o, a, b);
    if (f != NULL && form_disjoint(o, f)) set_form(o, inst, f);
}

/* ---- functions that keep zero ---- */

/* f(choice weight) for each choice; `other`: the further operand of a comparison. */
static void map_weights(Onehot *o, Inst *inst, int at) {
    const Form *f = form_of(o, inst->in[at]);
    if (!form_disjoint(o, f)) return;
    Form *r = form_copy(o, f);
    for (int k = 0; k < r->n; k++) {
        Choice *c = &r->at[k];
        Value *in[2] = {inst->in[0], inst->in[inst->nin - 1]};
        in[at] = c->weight != NULL ? c->weight : hot_number(o, inst->in[at]->type.dtype, 1);
        Value *w = build_inst(&o->b, inst->op, inst->nin, in, &inst->at, NULL)->out[0];
        c->weight = is_bool(inst) ? NULL : w;
        if (is_bool(inst)) choice_mask(o, c, w);
    }
    set_form(o, inst, r);
}

static void see_unary(Onehot *o, Inst *inst) {
    if (form_of(o, inst->in[0]) != NULL) map_weights(o, inst, 0);
}

static void see_neg(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    if (f != NULL) set_form(o, inst, form_scale(o, f, hot_number(o, inst->out[0]->type.dtype, -1), false));
}

static void see_cast(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    const HotSlot *slot = hot_slot(o, inst->in[0]);
    const Count *rank = slot->rank;
    if (slot->count != NULL && inst->at.dtype == DT_i32) hot_slot(o, inst->out[0])->count = slot->count;
    if (rank != NULL && inst->at.dtype == DT_i32) hot_slot(o, inst->out[0])->rank = rank;
    if (f == NULL) return;
    if (inst->in[0]->type.dtype != DT_bool && !is_bool(inst)) {
        map_weights(o, inst, 0);
        return;
    }
    if (inst->in[0]->type.dtype == DT_bool)
        set_form(o, inst, f);
    else
        map_weights(o, inst, 0);
}

/* A comparison with a number that is false of zero. */
static void see_compare(Onehot *o, Inst *inst) {
    double c;
    for (int k = 0; k < 2; k++) {
        if (form_of(o, inst->in[k]) == NULL || !hot_is_number(inst->in[1 - k], &c)) continue;
        double a = k == 0 ? 0 : c, b = k == 0 ? c : 0;
        bool at_zero = inst->op == OP_lt ? a < b : inst->op == OP_le ? a <= b : a == b;
        if (!at_zero) map_weights(o, inst, k);
    }
    if (inst->op == OP_eq) see_eq(o, inst);
}

/* where(c, x, 0): x as far as the condition holds. */
static void see_where(Onehot *o, Inst *inst) {
    const Form *c = form_of(o, inst->in[0]), *x = form_of(o, inst->in[1]);
    if (c != NULL && x == NULL) see_low(o, inst, c);
    if (!is_zero(inst->in[2])) return;
    if (c != NULL && x != NULL) {
        set_form(o, inst, form_times(o, c, x));
    } else if (c != NULL) {
        set_form(o, inst, form_scale(o, c, inst->in[1], is_bool(inst)));
    } else if (x != NULL) {
        set_form(o, inst, form_scale(o, x, inst->in[0], true));
    }
}

/* ---- layout ---- */

static bool mentions(const Form *f, Label label, bool hots) {
    for (int k = 0; k < f->n; k++) {
        LabelList all = choice_labels(&f->at[k]);
        if (list_has(&f->at[k].over, label) || (!hots && list_has(&all, label))) return true;
        for (int h = 0; h < f->at[k].nhot && hots; h++)
            if (f->at[k].hot[h].label == label) return true;
    }
    return false;
}

static void see_broadcast(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    if (hot_slot(o, inst->in[0])->count != NULL) hot_slot(o, inst->out[0])->count = hot_slot(o, inst->in[0])->count;
    if (f != NULL) set_form(o, inst, f);
}

/* fn on every small tensor of the form. */
static Form *map_tensors(Onehot *o, const Form *f, const Inst *inst, Value *(*fn)(Onehot *, const Inst *, Value *)) {
    Form *r = form_copy(o, f);
    for (int k = 0; k < r->n; k++) {
        Choice *c = &r->at[k];
        if (c->weight != NULL) c->weight = fn(o, inst, c->weight);
        for (int h = 0; h < c->nhot; h++) c->hot[h].index = fn(o, inst, c->hot[h].index);
    }
    return r;
}

/* An axis of another name. */
static Value *renamed(Onehot *o, const Inst *inst, Value *x) {
    return type_has(&x->type, inst->at.labels.at[0]) ? build1(&o->b, OP_relabel, x, &inst->at) : x;
}

static void see_relabel(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    if (f == NULL || inst->at.labels.n != 1 || inst->at.dims.n != 1) return;
    Label from = inst->at.labels.at[0], to = inst->at.dims.at[0].label;
    if (mentions(f, to, true) || mentions(f, to, false)) return;
    Form *r = map_tensors(o, f, inst, renamed);
    for (int k = 0; k < r->n; k++) {
        Hot *hot = choice_hot(&r->at[k], from);
        if (hot != NULL) hot->label = to;
    }
    set_form(o, inst, r);
}

static Value *sliced(Onehot *o, const Inst *inst, Value *x) {
    return type_has(&x->type, inst->at.label) ? build1(&o->b, OP_slice, x, &inst->at) : x;
}

/* A slice of a hot's own axis moves its index; one position of it is a condition. */
static bool slice_hot(Onehot *o, const Inst *inst, Choice *c) {
    Hot *hot = choice_hot(c, inst->at.label);
    if (hot == NULL) return true;
    if (inst->at.to != NULL) {
        Value *start = hot_number(o, DT_i32, (double)inst->at.start);
        if (inst->at.start != 0) hot->index = build2(&o->b, OP_sub, hot->index, start, NULL);
        hot->label = inst->at.to;
        hot->size = inst->at.size;
        return true;
    }
    if (c->nhot == 1) return false;
    Value *here = build2(&o->b, OP_eq, hot->index, hot_number(o, DT_i32, (double)inst->at.start), NULL);
    *hot = c->hot[--c->nhot];
    choice_mask(o, c, here);
    return true;
}

static void see_slice(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    if (f == NULL || mentions(&(Form){1, {{.over = f->at[0].over}}}, inst->at.label, true)) return;
    if (inst->at.to != NULL && inst->at.to != inst->at.label &&
        (mentions(f, inst->at.to, true) || mentions(f, inst->at.to, false)))
        return;
    Form *r = map_tensors(o, f, inst, sliced);
    for (int k = 0; k < r->n; k++)
        if (!slice_hot(o, inst, &r->at[k])) return;
    set_form(o, inst, r);
}

static Value *annotated(Onehot *o, const Inst *inst, Value *x) {
    const Type *wish = &inst->out[0]->type;
    bool any = false;
    for (int i = 0; i < x->type.rank; i++) {
        int at = type_find(wish, x->type.dim[i].label);
        any = any || (at >= 0 && wish->dim[at].pinned);
    }
    if (!any) return x;
    Value *y = build1(&o->b, OP_annotate, x, NULL);
    for (int i = 0; i < y->type.rank; i++) {
        int at = type_find(wish, y->type.dim[i].label);
        if (at >= 0) y->type.dim[i] = wish->dim[at];
    }
    hot_slot(o, y)->refines = x;
    return y;
}

/* What is wished for a value that vanishes is wished for what it is made of. */
static void see_annotate(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    if (f != NULL) set_form(o, inst, map_tensors(o, f, inst, annotated));
}

static void see_stop(Onehot *o, Inst *inst) {
    const Form *f = form_of(o, inst->in[0]);
    if (f == NULL) return;
    Form *r = form_copy(o, f);
    for (int k = 0; k < r->n; k++)
        if (r->at[k].weight != NULL) r->at[k].weight = build1(&o->b, OP_stop_gradient, r->at[k].weight, NULL);
    set_form(o, inst, r);
}

/* ---- einsums ---- */

static void explain(Onehot *o, const Inst *inst, const char *what) {
    if (o->explain) fprintf(stderr, "%s: %s %s\n", diag_where(inst->loc), op_info[inst->op].name, what);
}

/* Axes along which an operand only repeats, and that neither the result nor another operand has. */
static Form *count_repeats(Onehot *o, const Inst *inst, const Form *f, const LabelList *all, int n,
                           Value *const *dense) {
    Form *r = form_copy(o, f);
    for (int k = 0; k < r->n; k++) {
        LabelList mine = choice_labels(&r->at[k]);
        for (int i = 0; i < all->n; i++) {
            Label label = all->at[i];
            bool known =
                list_has(&mine, label) || choice_hot(&r->at[k], label) != NULL || list_has(&inst->at.labels, label);
            for (int d = 0; d < n; d++) known = known || type_has(&dense[d]->type, label);
            int64_t size = 1;
            for (int d = 0; d < inst->nin && !known; d++) {
                int at = type_find(&inst->in[d]->type, label);
                if (at >= 0) size = inst->in[d]->type.dim[at].size;
            }
            if (size > 1) choice_scale(o, &r->at[k], hot_number(o, inst->out[0]->type.dtype, (double)size));
        }
    }
    return r;
}

static bool shadows_any(const Form *f, const Inst *inst) {
    bool any = false;
    for (int k = 0; k < inst->nin; k++) any = any || form_shadows(f, &inst->in[k]->type);
    return any;
}

static void see_einsum(Onehot *o, Inst *inst) {
    const Form *f = NULL;
    bool hidden = false;
    Value **dense = NEW_ARRAY(o->scratch, Value *, inst->nin);
    LabelList all = {0};
    int n = 0;
    for (int k = 0; k < inst->nin; k++) {
        const Form *g = form_of(o, inst->in[k]), *both = f == NULL ? g : g != NULL ? form_times(o, f, g) : NULL;
        hidden = hidden || (g != NULL && shadows_any(g, inst));
        if (g != NULL && both != NULL) {
            f = both;
            for (int i = 0; i < inst->in[k]->type.rank; i++) list_add(&all, inst->in[k]->type.dim[i].label);
        } else {
            dense[n++] = dense_of(o, inst->in[k]);
        }
    }
    if (f == NULL) return;
    const Type *like = &inst->out[0]->type;
    if (hidden) {
        explain(o, inst, "stays dense: a label that is summed inside the routing is used outside");
        return;
    }
    Form *lazy = NULL;
    o->why = "no index table says the same";
    Value *x = form_contract(o, count_repeats(o, inst, f, &all, n, dense), n, dense, like, &lazy);
    if (x != NULL) {
        hot_replace(o, inst, x);
        explain(o, inst, "becomes a move of rows");
    } else if (lazy != NULL) {
        set_form(o, inst, lazy);
        explain(o, inst, "stays an index and a weight");
    } else {
        explain(o, inst, arena_printf(o->scratch, "stays dense: %s", o->why));
    }
}

/* ---- the walk ---- */

typedef void See(Onehot *o, Inst *inst);

static See *const see[OP_COUNT] = {
    [OP_one_hot] = see_one_hot,
    [OP_and] = see_product,
    [OP_mul] = see_product,
    [OP_div] = see_div,
    [OP_add] = see_sum,
    [OP_sub] = see_sum,
    [OP_or] = see_or,
    [OP_neg] = see_neg,
    [OP_cast] = see_cast,
    [OP_lt] = see_compare,
    [OP_le] = see_compare,
    [OP_eq] = see_compare,
    [OP_where] = see_where,
    [OP_broadcast] = see_broadcast,
    [OP_relabel] = see_relabel,
    [OP_slice] = see_slice,
    [OP_annotate] = see_annotate,
    [OP_stop_gradient] = see_stop,
    [OP_reduce] = see_reduce,
    [OP_cumsum] = see_cumsum,
    [OP_einsum] = see_einsum,
    [OP_abs] = see_unary,
    [OP_sign] = see_unary,
    [OP_sqrt] = see_unary,
    [OP_floor] = see_unary,
    [OP_sin] = see_unary,
    [OP_tanh] = see_unary,
    [OP_erf] = see_unary,
    [OP_exp] = see_exp,
};

/* A `grad` by a computed value asks for the way from that value to the loss as it is. */
static bool is_frozen(const Block *block) {
    for (const Inst *i = block->first; i != NULL; i = i->next)
        for (int k = 1; k < i->nin && i->op == OP_grad; k++)
            if (i->in[k]->def != NULL && i->in[k]->def->op != OP_read) return true;
    return false;
}

static void walk_block(Onehot *o, Block *block);

static void visit(Onehot *o, Inst *inst) {
    o->b = (Builder){o->b.m, inst->parent, inst, inst->loc};
    for (int k = 0; k < inst->nin; k++) inst->in[k] = hot_resolve(o, inst->in[k]);
    if (inst->body != NULL) {
        Builder outside = o->b;
        walk_block(o, inst->body);
        o->b = outside;
    } else if (see[inst->op] != NULL) {
        see[inst->op](o, inst);
    }
    for (int k = 0; k < inst->nout; k++) {
        const HotSlot *slot = hot_slot(o, inst->out[k]);
        if (slot->to != NULL || slot->form != NULL) return; /* nobody, or nobody yet, asks for its operands */
    }
    for (int k = 0; k < inst->nin; k++) inst->in[k] = dense_of(o, inst->in[k]);
}

static void walk_block(Onehot *o, Block *block) {
    if (is_frozen(block)) return;
    for (Inst *i = block->first; i != NULL; i = i->next) visit(o, i);
    o->b = (Builder){o->b.m, block, NULL, o->b.loc};
    for (int k = 0; k < block->results.n; k++) block->results.at[k] = dense_of(o, hot_resolve(o, block->results.at[k]));
}

bool pass_onehot(Module *m, PassCtx *ctx) {
    bool changed = false;
    for (int f = 0; f < m->funcs.n; f++) {
        Onehot o = {.b = {.m = m, .loc = m->funcs.at[f]->loc}, .scratch = ctx->scratch};
        o.explain = ctx->opt != NULL && ctx->opt->explain_onehot;
        walk_block(&o, m->funcs.at[f]->body);
        changed = changed || o.changed;
    }
    return changed;
}
