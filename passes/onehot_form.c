/* onehot_form.c: the algebra of one-hot forms, and the two proofs that the pass needs.
 *
 * Products multiply out. Of two hots of one label, one remains, masked where the indices differ; an index or weight
 * that has the label of a hot is read at that hot's index, since elsewhere the product is zero. All that this builds is
 * of the size of the indices.
 *
 * Disjoint: the choices of one position are at different places, because they are different results of one top_k, or
 * because they count on from each other. Unique: the positions of all choices are at different places, because their
 * indices of one axis are counting ranks among those that are equal on another. Both are sound, not complete: what is
 * not recognised stays dense, or is added instead of moved.
 *
 * Before and after: ANNOTATED. Cost: linear in the choices' tensors, squared in their number. */
#include <math.h>

#include "onehot.h"
#include "places.h"
#include "support/intern.h"

/* ---- labels ---- */

bool type_has(const Type *t, Label label) {
    return type_find(t, label) >= 0;
}

bool list_has(const LabelList *list, Label label) {
    for (int i = 0; i < list->n; i++)
        if (list->at[i] == label) return true;
    return false;
}

void list_add(LabelList *list, Label label) {
    if (!list_has(list, label) && list->n < MAX_RANK) list->at[list->n++] = label;
}

static void list_add_type(LabelList *list, const Type *t) {
    for (int i = 0; i < t->rank; i++) list_add(list, t->dim[i].label);
}

LabelList choice_labels(const Choice *c) {
    LabelList all = {0};
    if (c->weight != NULL) list_add_type(&all, &c->weight->type);
    for (int h = 0; h < c->nhot; h++) list_add_type(&all, &c->hot[h].index->type);
    return all;
}

Hot *choice_hot(Choice *c, Label label) {
    for (int h = 0; h < c->nhot; h++)
        if (c->hot[h].label == label) return &c->hot[h];
    return NULL;
}

/* A label that the choice sums is another one than the label of that name outside. */
static bool hides(const Choice *c, const Type *t) {
    for (int i = 0; i < t->rank; i++)
        if (list_has(&c->over, t->dim[i].label)) return true;
    return false;
}

static bool hides_choice(const Choice *c, const Choice *other) {
    LabelList labels = labels_minus(choice_labels(other), other->over);
    for (int i = 0; i < labels.n; i++)
        if (list_has(&c->over, labels.at[i])) return true;
    for (int h = 0; h < other->nhot; h++)
        if (list_has(&c->over, other->hot[h].label)) return true;
    return false;
}

/* ---- indices ---- */

static Value *fail(Onehot *o, const char *why) {
    o->why = why;
    return NULL;
}

/* The index that this one is, where it is anything. */
static Value *root(Onehot *o, Value *index) {
    for (Value *v = index; v != NULL; v = hot_slot(o, index)->refines) index = v;
    return index;
}

static bool refines(Onehot *o, Value *index, const Value *other) {
    for (; index != NULL; index = hot_slot(o, index)->refines)
        if (index == other) return true;
    return false;
}

static Value *masked(Onehot *o, Value *index, Value *mask) {
    Value *v = build3(&o->b, OP_where, mask, index, hot_number(o, DT_i32, -1), NULL);
    hot_slot(o, v)->refines = index;
    return v;
}

void choice_mask(Onehot *o, Choice *c, Value *mask) {
    c->hot[0].index = masked(o, c->hot[0].index, mask);
}

void choice_scale(Onehot *o, Choice *c, Value *weight) {
    c->weight = c->weight == NULL ? weight : build2(&o->b, OP_mul, c->weight, weight, NULL);
}

/* top_k's indices are on their axis, and so are slices of them. */
static const Inst *top_k_of(const Value *index) {
    const Inst *def = index->def;
    if (def != NULL && def->op == OP_slice) def = def->in[0]->def;
    return def != NULL && def->op == OP_top_k && index->type.dtype == DT_i32 ? def : NULL;
}

/* The index has the results of a top_k along `label`, so that they differ. */
static bool ranks_along(const Value *index, Label label) {
    const Inst *top = top_k_of(index);
    if (top == NULL) return false;
    if (index->def == top) return top->at.to == label;
    return index->def->at.label == top->at.to && index->def->at.to == label;
}

Value *hot_valid(Onehot *o, const Hot *h) {
    const Value *from = root(o, h->index);
    const Inst *top = top_k_of(from);
    bool inside = top != NULL && top->in[0]->type.dim[type_find(&top->in[0]->type, top->at.label)].size <= h->size;
    if (inside && from == h->index) return NULL;
    Value *low = build2(&o->b, OP_le, hot_number(o, DT_i32, 0), h->index, NULL);
    if (inside) return low;
    Value *high = build2(&o->b, OP_lt, h->index, hot_number(o, DT_i32, (double)h->size), NULL);
    return build2(&o->b, OP_and, low, high, NULL);
}

Value *hot_present(Onehot *o, const Hot *h, const Type *beside) {
    Value *valid = hot_valid(o, h);
    bool lost = false;
    for (int i = 0; i < h->index->type.rank; i++) lost = lost || !type_has(beside, h->index->type.dim[i].label);
    return valid != NULL || !lost ? valid : build2(&o->b, OP_le, hot_number(o, DT_i32, 0), h->index, NULL);
}

Value *hots_flatten(Onehot *o, const Hot *h, int n, int64_t *size) {
    Value *flat = h[0].index, *valid = NULL;
    *size = h[0].size;
    if (n == 1) return flat;
    for (int k = 0; k < n; k++) {
        Value *on = hot_valid(o, &h[k]);
        if (on != NULL) valid = valid == NULL ? on : build2(&o->b, OP_and, valid, on, NULL);
        if (k == 0) continue;
        flat = build2(&o->b, OP_mul, flat, hot_number(o, DT_i32, (double)h[k].size), NULL);
        flat = build2(&o->b, OP_add, flat, h[k].index, NULL);
        *size *= h[k].size;
    }
    return valid == NULL ? flat : build3(&o->b, OP_where, valid, flat, hot_number(o, DT_i32, -1), NULL);
}

Value *hot_ordinal(Onehot *o, const Hot *h, Label along, Label further, Value **counts) {
    for (int k = 0; k < o->ordinal.n; k++) {
        const Ordinal *known = &o->ordinal.at[k];
        if (known->index != h->index || known->along != along || known->further != further) continue;
        if (known->size != h->size || known->inst->parent != o->b.block) continue;
        if (counts != NULL) *counts = known->inst->out[1];
        if (type_has(&known->inst->out[1]->type, h->label)) return known->nth;
    }
    const Type *t = &h->index->type;
    Places both = {.labels = {1, {along}}, .size = {t->dim[type_find(t, along)].size}};
    if (further != NULL) {
        both.size[both.labels.n] = t->dim[type_find(t, further)].size;
        both.labels.at[both.labels.n++] = further;
    }
    Label label;
    Value *index = places_merge(&o->b, h->index, &both, t, &label);
    Attrs at = {.label = label, .to = h->label, .size = h->size};
    Inst *inst = build_inst(&o->b, OP_ordinal, 1, &index, &at, NULL);
    Value *nth = inst->out[0];
    if (further != NULL) {
        Attrs split = {.labels = {1, {label}}, .dims = {2, {{along, both.size[0]}, {further, both.size[1]}}}};
        nth = build1(&o->b, OP_relabel, nth, &split);
    } else {
        hot_slot(o, inst->out[1])->counted = h->index;
        hot_slot(o, inst->out[1])->counted_along = along;
    }
    vec_push(o->scratch, o->ordinal, ((Ordinal){h->index, along, further, h->size, inst, nth}));
    if (counts != NULL) *counts = inst->out[1];
    return nth;
}

/* ---- reading at a choice's indices ---- */

/* A count at the index that it counts, or at a part of it. */
static Value *read_count(Onehot *o, Choice *c, const Count *k) {
    Hot *h = choice_hot(c, k->hot.label);
    if (h == NULL || !refines(o, h->index, k->hot.index)) return fail(o, "a running count of another index");
    Value *x = hot_ordinal(o, &k->hot, k->along, k->further, NULL);
    for (int i = 0; i < k->nplus; i++) {
        Value *plus = choice_read(o, c, k->plus[i]);
        if (plus == NULL) return NULL;
        x = build2(&o->b, OP_add, x, plus, NULL);
    }
    if (k->constant != 0) x = build2(&o->b, OP_add, x, hot_number(o, DT_i32, k->constant), NULL);
    hot_slot(o, x)->rank = k;
    return x;
}

/* A form of one choice at the same indices: its weight. */
static Value *read_form(Onehot *o, Choice *c, const Form *f, DType t) {
    if (f->n != 1 || f->at[0].over.n > 0) return NULL;
    const Choice *x = &f->at[0];
    for (int h = 0; h < x->nhot; h++) {
        Hot *mine = choice_hot(c, x->hot[h].label);
        if (mine == NULL || !refines(o, mine->index, x->hot[h].index)) return NULL;
    }
    return x->weight != NULL ? x->weight : hot_number(o, t, 1);
}

Value *choice_read(Onehot *o, Choice *c, Value *dense) {
    Hot at[MAX_HOTS];
    int n = 0;
    for (int h = 0; h < c->nhot; h++)
        if (type_has(&dense->type, c->hot[h].label)) at[n++] = c->hot[h];
    if (n == 0) return dense;
    const HotSlot *slot = hot_slot(o, dense);
    if (slot->count != NULL) return read_count(o, c, slot->count);
    Value *weight = slot->form != NULL ? read_form(o, c, slot->form, dense->type.dtype) : NULL;
    if (weight != NULL) return weight;
    for (int k = 0; k < n; k++)
        for (int j = 0; j < n; j++)
            if (type_has(&at[k].index->type, at[j].label)) return fail(o, "an index that depends on another's axis");
    int64_t size;
    Value *flat = hots_flatten(o, at, n, &size);
    Label label = at[0].label;
    if (n > 1) {
        Attrs merge = {.dims = {1, {{label = intern_printf("%s*", at[0].label), size}}}};
        for (int k = 0; k < n; k++) merge.labels.at[merge.labels.n++] = at[k].label;
        dense = build1(&o->b, OP_relabel, dense, &merge);
    }
    return build2(&o->b, OP_gather, dense, flat, &(Attrs){.label = label});
}

/* ---- forms ---- */

Form *form_copy(Onehot *o, const Form *f) {
    Form *copy = NEW(o->scratch, Form);
    *copy = *f;
    return copy;
}

Form *form_sum(Onehot *o, const Form *a, const Form *b) {
    if (a->n + b->n > MAX_CHOICES) return (Form *)fail(o, "too many choices");
    Form *f = form_copy(o, a);
    for (int k = 0; k < b->n; k++) f->at[f->n++] = b->at[k];
    return f;
}

Form *form_scale(Onehot *o, const Form *f, Value *dense, bool is_bool) {
    Form *r = form_copy(o, f);
    for (int k = 0; k < r->n; k++) {
        if (hides(&r->at[k], &dense->type)) return (Form *)fail(o, "a label that is summed inside the routing");
        Value *w = choice_read(o, &r->at[k], dense);
        if (w == NULL) return NULL;
        if (is_bool)
            choice_mask(o, &r->at[k], w);
        else
            choice_scale(o, &r->at[k], w);
    }
    return r;
}

/* Two hots of one label: the first, where the two are the same. */
static void meet(Onehot *o, Hot *a, Hot *b) {
    if (refines(o, b->index, a->index)) {
        a->index = b->index;
        return;
    }
    if (refines(o, a->index, b->index)) return;
    a->index = masked(o, a->index, build2(&o->b, OP_eq, a->index, b->index, NULL));
}

/* No index and no weight has the label of a hot. */
static bool normalize(Onehot *o, Choice *c) {
    for (int h = 0; h < c->nhot; h++) {
        Value *at = choice_read(o, c, c->hot[h].index);
        if (at == NULL || type_has(&at->type, c->hot[h].label)) return false;
        c->hot[h].index = at;
    }
    if (c->weight == NULL) return true;
    c->weight = choice_read(o, c, c->weight);
    return c->weight != NULL;
}

/* Both sum over the label, along which one index of both differs: only terms of one position meet. */
static bool meets_itself(Onehot *o, const Choice *a, const Choice *b, Label label) {
    for (int h = 0; h < a->nhot; h++)
        for (int g = 0; g < b->nhot; g++) {
            Value *x = root(o, a->hot[h].index), *y = root(o, b->hot[g].index);
            if (a->hot[h].label == b->hot[g].label && x == y && ranks_along(x, label)) return true;
        }
    return false;
}

static bool choice_times(Onehot *o, const Choice *a, const Choice *b, Choice *r) {
    if (hides_choice(a, b) || hides_choice(b, a)) return fail(o, "a label that is summed inside the routing") != NULL;
    *r = *a;
    for (int k = 0; k < b->over.n; k++)
        if (list_has(&r->over, b->over.at[k]) && !meets_itself(o, a, b, b->over.at[k]))
            return fail(o, "two sums over one label") != NULL;
    for (int k = 0; k < b->over.n; k++) list_add(&r->over, b->over.at[k]);
    for (int h = 0; h < b->nhot; h++) {
        Hot other = b->hot[h], *mine = choice_hot(r, other.label);
        if (mine != NULL) {
            meet(o, mine, &other);
        } else if (r->nhot == MAX_HOTS) {
            return fail(o, "too many one-hot axes") != NULL;
        } else {
            r->hot[r->nhot++] = other;
        }
    }
    if (b->weight != NULL) choice_scale(o, r, b->weight);
    double places = 1;
    for (int h = 0; h < r->nhot; h++) places *= (double)r->hot[h].size;
    if (places > INT32_MAX) return fail(o, "more places than an i32 counts") != NULL;
    return normalize(o, r);
}

Form *form_times(Onehot *o, const Form *a, const Form *b) {
    if (a->n * b->n > MAX_CHOICES) return (Form *)fail(o, "too many choices");
    Form *r = NEW(o->scratch, Form);
    for (int i = 0; i < a->n; i++)
        for (int j = 0; j < b->n; j++)
            if (!choice_times(o, &a->at[i], &b->at[j], &r->at[r->n++])) return NULL;
    return r;
}

/* ---- proofs ---- */

/* The hot of the choice whose index is a counting rank among those of another hot of it. */
static const Count *rank_of(Onehot *o, const Choice *c, const Hot **ranked) {
    for (int h = 0; h < c->nhot; h++) {
        const Count *k = hot_slot(o, root(o, c->hot[h].index))->rank;
        for (int g = 0; k != NULL && g < c->nhot; g++)
            if (c->hot[g].label == k->hot.label && refines(o, c->hot[g].index, k->hot.index)) {
                *ranked = &c->hot[h];
                return k;
            }
    }
    return NULL;
}

/* The running sum of counts of the index, along `label`. */
static bool sums_counts(Onehot *o, Value *plus, const Count *k, Label label) {
    const Inst *def = plus->def;
    if (def == NULL || def->op != OP_cumsum || !def->at.exclusive || def->at.reverse || def->at.label != label)
        return false;
    const HotSlot *slot = hot_slot(o, def->in[0]);
    return slot->counted == k->hot.index && slot->counted_along == k->along;
}

/* Counts, and running sums of counts, are not negative. */
static bool is_count(Onehot *o, Value *plus) {
    if (hot_slot(o, plus)->counted != NULL) return true;
    return plus->def != NULL && plus->def->op == OP_cumsum && hot_slot(o, plus->def->in[0])->counted != NULL;
}

static bool adds(const Count *k, const Value *plus) {
    for (int i = 0; i < k->nplus; i++)
        if (k->plus[i] == plus) return true;
    return false;
}

/* b counts on after all of a: their places along the ranked axis are apart. */
static bool counts_on(Onehot *o, const Choice *a, const Choice *b) {
    const Hot *ra = NULL, *rb = NULL;
    const Count *ka = rank_of(o, a, &ra), *kb = rank_of(o, b, &rb);
    if (ka == NULL || kb == NULL || ra->label != rb->label || ka->hot.label != kb->hot.label) return false;
    if (ka->along != kb->along || ka->constant != kb->constant) return false;
    if (ka->further != NULL || kb->further != NULL) return false;
    bool after = false;
    for (int i = 0; i < kb->nplus; i++) {
        const HotSlot *slot = hot_slot(o, kb->plus[i]);
        after = after || (slot->counted == ka->hot.index && slot->counted_along == ka->along);
        if (!adds(ka, kb->plus[i]) && !is_count(o, kb->plus[i])) return false;
    }
    for (int i = 0; i < ka->nplus; i++) after = after && adds(kb, ka->plus[i]);
    return after;
}

/* Different results of one top_k. */
static bool are_ranks_apart(Onehot *o, const Choice *a, const Choice *b) {
    for (int h = 0; h < a->nhot; h++)
        for (int g = 0; g < b->nhot; g++) {
            if (a->hot[h].label != b->hot[g].label) continue;
            const Value *x = root(o, a->hot[h].index), *y = root(o, b->hot[g].index);
            const Inst *top = top_k_of(x);
            if (top == NULL || top != top_k_of(y) || x->def == top || y->def == top) continue;
            if (x->def->at.to != NULL || y->def->at.to != NULL) continue;
            if (x->def->at.label == top->at.to && y->def->at.label == top->at.to &&
                x->def->at.start != y->def->at.start)
                return true;
        }
    return false;
}

static bool apart(Onehot *o, const Choice *a, const Choice *b) {
    return are_ranks_apart(o, a, b) || counts_on(o, a, b) || counts_on(o, b, a);
}

bool choice_differs(Onehot *o, const Choice *c, Label label) {
    for (int h = 0; h < c->nhot; h++)
        if (ranks_along(root(o, c->hot[h].index), label)) return true;
    return false;
}

bool form_disjoint(Onehot *o, const Form *f) {
    for (int i = 0; i < f->n; i++) {
        if (f->at[i].over.n > 1) return false;
        if (f->at[i].over.n == 1 && !choice_differs(o, &f->at[i], f->at[i].over.at[0])) return false;
        for (int j = 0; j < i; j++)
            if (!apart(o, &f->at[i], &f->at[j])) return false;
    }
    return true;
}

/* Along the counted axis ranks differ; along one more when each of its positions counts on after the one before. */
static bool choice_unique(Onehot *o, const Choice *c, const LabelList *labels, const LabelList *over) {
    const Hot *ranked = NULL;
    const Count *k = rank_of(o, c, &ranked);
    if (k == NULL || !list_has(labels, ranked->label) || !list_has(labels, k->hot.label)) return false;
    LabelList mine = choice_labels(c);
    Label further = NULL;
    for (int i = 0; i < over->n; i++) {
        if (over->at[i] == k->along || over->at[i] == k->further) continue;
        if (further != NULL || !list_has(&mine, over->at[i])) return false;
        further = over->at[i];
    }
    if (further == NULL) return true;
    bool counts = false;
    for (int i = 0; i < k->nplus; i++) {
        bool sums = sums_counts(o, k->plus[i], k, further);
        if (!sums && type_has(&k->plus[i]->type, further)) return false;
        counts = counts || sums;
    }
    return counts;
}

bool form_unique(Onehot *o, const Form *f, const LabelList *labels, const LabelList *over) {
    for (int i = 0; i < f->n; i++) {
        if (!choice_unique(o, &f->at[i], labels, over)) return false;
        for (int j = 0; j < i; j++)
            if (!counts_on(o, &f->at[i], &f->at[j]) && !counts_on(o, &f->at[j], &f->at[i])) return false;
    }
    return true;
}

/* ---- one choice for several ---- */

static Label fresh_label(const Form *f, const char *base) {
    for (int n = 0;; n++) {
        Label label = n == 0 ? intern(base) : intern_printf("%s%d", base, n);
        bool taken = false;
        for (int k = 0; k < f->n; k++) {
            LabelList all = choice_labels(&f->at[k]);
            taken = taken || list_has(&all, label) || list_has(&f->at[k].over, label);
            for (int h = 0; h < f->at[k].nhot; h++) taken = taken || f->at[k].hot[h].label == label;
        }
        if (!taken) return label;
    }
}

/* The k-th value at position k of the new axis. */
static Value *stack(Onehot *o, Value *const *x, int n, Value *position) {
    Value *all = x[n - 1];
    for (int k = n - 2; k >= 0; k--) {
        Value *here = build2(&o->b, OP_eq, position, hot_number(o, DT_i32, k), NULL);
        all = build3(&o->b, OP_where, here, x[k], all, NULL);
    }
    return all;
}

Choice *form_stack(Onehot *o, const Form *f) {
    Choice *all = NEW(o->scratch, Choice);
    *all = f->at[0];
    if (f->n == 1) return all;
    bool weighted = false;
    DType t = DT_f32;
    for (int k = 0; k < f->n; k++) {
        Choice c = f->at[k];
        if (c.nhot != all->nhot || c.over.n > 0) return (Choice *)fail(o, "choices of different kinds");
        for (int h = 0; h < all->nhot; h++)
            if (choice_hot(&c, all->hot[h].label) == NULL) return (Choice *)fail(o, "choices of different axes");
        weighted = weighted || c.weight != NULL;
        if (c.weight != NULL) t = c.weight->type.dtype;
    }
    Label label = fresh_label(f, "choice");
    Attrs at = {.dims = {1, {{label, f->n}}}};
    Value *position = build_inst(&o->b, OP_iota, 0, NULL, &at, NULL)->out[0], *x[MAX_CHOICES];
    for (int h = 0; h < all->nhot; h++) {
        for (int k = 0; k < f->n; k++) {
            Choice c = f->at[k];
            x[k] = choice_hot(&c, all->hot[h].label)->index;
        }
        all->hot[h].index = stack(o, x, f->n, position);
    }
    for (int k = 0; k < f->n && weighted; k++) x[k] = f->at[k].weight != NULL ? f->at[k].weight : hot_number(o, t, 1);
    if (weighted) all->weight = stack(o, x, f->n, position);
    all->over = (LabelList){1, {label}};
    return all;
}
