/* onehot_route.c: einsums of one-hot forms become tables of indices and moves of rows.
 *
 * A hot whose label the result lacks is contracted: the operand that has the label is read at the index. All hots of
 * one operand are flattened into one index, so `combine` takes rows of the experts' outputs by token -> slot. A hot
 * whose label the result has places: row by index. Where no two positions have the same place (form_unique), there is
 * an inverse table, slot -> position, one `scatter` of position numbers, and `dispatch` takes rows of the tokens by it.
 * Both directions know both tables, and `take` carries them to the gradients. Without the proof, rows are added into
 * their places, which is always right.
 *
 * Weights of placed rows are taken by the same table, so that a product is never spread over choices. Choices of the
 * same axes are stacked along one more axis first; others are summed after.
 *
 * Before and after: ANNOTATED. What is built: tensors of the size of indices, of tables, and of the einsum's result.
 */
#include "onehot.h"
#include "places.h"
#include "support/intern.h"

enum { MAX_TERMS = 12 };

typedef struct Route {
    Onehot *o;
    Builder *b;
    const Form *form; /* for proofs: the choices before they were stacked */
    Choice c;
    Label stacked; /* the axis along which they were, NULL: none */
    int n;
    Value *in[MAX_TERMS]; /* dense operands, then the weight */
    const Type *like;
    Hot gone[MAX_HOTS], kept[MAX_HOTS];
    int ngone, nkept;
} Route;

static Places places_in_type(const Type *t, const LabelList *labels) {
    Places p = {0};
    for (int i = 0; i < t->rank; i++) {
        if (!list_has(labels, t->dim[i].label)) continue;
        p.size[p.labels.n] = t->dim[i].size;
        p.labels.at[p.labels.n++] = t->dim[i].label;
    }
    return p;
}

static LabelList hot_labels(const Hot *h, int n) {
    LabelList list = {0};
    for (int k = 0; k < n; k++) list_add(&list, h[k].label);
    return list;
}

static bool has_any(const Type *t, const LabelList *labels) {
    for (int i = 0; i < labels->n; i++)
        if (type_has(t, labels->at[i])) return true;
    return false;
}

/* No two positions along `over` have the same place on these axes. */
static bool is_unique(const Route *r, const Hot *h, int n, const LabelList *over) {
    LabelList labels = hot_labels(h, n), positions = {0};
    for (int i = 0; i < over->n; i++)
        if (over->at[i] != r->stacked) list_add(&positions, over->at[i]);
    return form_unique(r->o, r->form, &labels, &positions);
}

/* ---- tables ---- */

/* From a table position -> place (labels `over` and others) the table place -> position, flattened; -1: no position. */
static Value *inverse(Route *r, Value *places, Label label, int64_t size, const Places *over) {
    Label flat = over->labels.n == 1 ? over->labels.at[0] : intern("position");
    Attrs at = {.dims = {1, {{flat, places_count(over)}}}};
    Value *number = build_inst(r->b, OP_iota, 0, NULL, &at, NULL)->out[0];
    if (over->labels.n > 1) {
        Attrs split = {.labels = {1, {flat}}, .dims = {.n = over->labels.n}};
        for (int i = 0; i < over->labels.n; i++) {
            split.dims.at[i].label = over->labels.at[i];
            split.dims.at[i].size = over->size[i];
        }
        number = build1(r->b, OP_relabel, number, &split);
    }
    number = build2(r->b, OP_add, number, hot_number(r->o, DT_i32, 1), NULL);
    Attrs to = {.label = label, .size = size, .labels = labels_minus(type_labels(&places->type), over->labels)};
    list_add(&to.labels, label);
    number = build2(r->b, OP_scatter, build_broadcast(r->b, number, &places->type), places, &to);
    return build2(r->b, OP_sub, number, hot_number(r->o, DT_i32, 1), NULL);
}

/* Rows of x at the hots' indices. */
static Value *read_rows(Route *r, Value *x, const Hot *h, int n) {
    int64_t size;
    Value *index = hots_flatten(r->o, h, n, &size);
    Label label = h[0].label;
    if (n > 1) {
        Places axes = {.labels = hot_labels(h, n)};
        for (int k = 0; k < n; k++) axes.size[k] = h[k].size;
        x = places_merge(r->b, x, &axes, &index->type, &label);
    }
    LabelList own = labels_minus(type_labels(&index->type), type_labels(&x->type));
    if (own.n == 0 || !is_unique(r, h, n, &own)) return build2(r->b, OP_gather, x, index, &(Attrs){.label = label});
    Places over = places_in_type(&index->type, &own);
    Value *back = inverse(r, index, label, size, &over);
    return build3(r->b, OP_take, x, index, back, &(Attrs){.label = label, .labels = own});
}

/* A table by the flat place, by the axes of the places. */
static Value *split_places(Route *r, Value *x, Label flat) {
    if (r->nkept == 1) return x;
    Attrs split = {.labels = {1, {flat}}, .dims = {.n = r->nkept}};
    for (int k = 0; k < r->nkept; k++) {
        split.dims.at[k].label = r->kept[k].label;
        split.dims.at[k].size = r->kept[k].size;
    }
    return build1(r->b, OP_relabel, x, &split);
}

static Label flat_label(const Route *r) {
    Label label = r->kept[0].label;
    for (int k = 1; k < r->nkept; k++) label = intern_printf("%s*%s", label, r->kept[k].label);
    return label;
}

/* ---- products ---- */

static bool covers(const Value *x, const Value *y) {
    for (int i = 0; i < y->type.rank; i++)
        if (!type_has(&x->type, y->type.dim[i].label)) return false;
    return true;
}

/* The product of the terms, summed to those labels of `want` that they have. A scaled tensor is a loop nest with its
 * sum inside; only true contractions are left to the einsum. */
static Value *join(Route *r, int n, Value *const *in, const LabelList *want) {
    Value *x = in[0];
    LabelList labels = {0}, have = {0};
    for (int k = 0; k < n; k++)
        for (int i = 0; i < in[k]->type.rank; i++) list_add(&have, in[k]->type.dim[i].label);
    for (int i = 0; i < want->n; i++)
        if (list_has(&have, want->at[i])) list_add(&labels, want->at[i]);
    bool scaled = n == 2 && (covers(in[0], in[1]) || covers(in[1], in[0]));
    if (n > 1 && !scaled) return build_einsum(r->b, n, in, labels);
    if (scaled)
        x = covers(in[0], in[1]) ? build2(r->b, OP_mul, in[0], in[1], NULL) : build2(r->b, OP_mul, in[1], in[0], NULL);
    return build_reduce(r->b, "sum", x, labels_minus(type_labels(&x->type), labels));
}

static Value *finish(Route *r, int n, Value *const *in) {
    LabelList want = type_labels(r->like);
    Value *x = n == 0 ? hot_number(r->o, r->like->dtype, 1) : join(r, n, in, &want);
    return build_broadcast(r->b, build_cast(r->b, x, r->like->dtype), r->like);
}

/* ---- placing ---- */

/* Taken by place -> position. */
static Value *place_unique(Route *r, Value *index, int64_t size, const Places *over) {
    Label flat = flat_label(r);
    LabelList own = hot_labels(r->kept, r->nkept);
    Value *at = inverse(r, index, flat, size, over);
    bool taken = false;
    for (int k = 0; k < r->n; k++) {
        Places mine = places_of(over, &r->in[k]->type);
        if (mine.labels.n == 0) continue;
        Label label;
        Value *from = split_places(r, places_within(r->b, at, over, &mine), flat);
        Value *x = places_merge(r->b, r->in[k], &mine, &from->type, &label);
        Value *back = places_merge(r->b, index, &mine, &from->type, &label);
        r->in[k] = build3(r->b, OP_take, x, from, back, &(Attrs){.label = label, .labels = own});
        taken = true;
    }
    if (!taken) {
        Value *some = build2(r->b, OP_le, hot_number(r->o, DT_i32, 0), split_places(r, at, flat), NULL);
        r->in[r->n++] = build_cast(r->b, some, r->like->dtype);
    }
    return finish(r, r->n, r->in);
}

/* Added into its place. Terms that have the axes of the places are multiplied afterwards. */
static Value *place_added(Route *r, Value *index, int64_t size) {
    LabelList kept = hot_labels(r->kept, r->nkept), want = type_labels(&index->type), wanted = type_labels(r->like);
    Value *row[MAX_TERMS], *after[MAX_TERMS + 1];
    int n = 0, m = 1;
    for (int k = 0; k < r->n; k++) *(has_any(&r->in[k]->type, &kept) ? &after[m++] : &row[n++]) = r->in[k];
    for (int k = 1; k < m; k++)
        for (int i = 0; i < after[k]->type.rank; i++) list_add(&wanted, after[k]->type.dim[i].label);
    for (int k = 0; k < n; k++)
        for (int i = 0; i < row[k]->type.rank; i++)
            if (list_has(&wanted, row[k]->type.dim[i].label)) list_add(&want, row[k]->type.dim[i].label);
    Value *x = n == 0 ? hot_number(r->o, r->like->dtype, 1) : join(r, n, row, &want);
    Type t = {.dtype = x->type.dtype};
    for (int i = 0; i < want.n; i++) {
        const Type *from = type_has(&x->type, want.at[i]) ? &x->type : &index->type;
        t.dim[t.rank++] = (Dim){.label = want.at[i], .size = from->dim[type_find(from, want.at[i])].size};
    }
    Attrs at = {.label = flat_label(r), .size = size};
    for (int i = 0; i < want.n; i++)
        if (type_has(&index->type, want.at[i]) && list_has(&wanted, want.at[i])) list_add(&at.labels, want.at[i]);
    list_add(&at.labels, at.label);
    for (int i = 0; i < want.n; i++)
        if (!type_has(&index->type, want.at[i])) list_add(&at.labels, want.at[i]);
    x = build2(r->b, OP_scatter, build_broadcast(r->b, x, &t), index, &at);
    after[0] = split_places(r, x, at.label);
    return finish(r, m, after);
}

static Value *place(Route *r, bool rows) {
    int64_t size;
    Value *index = hots_flatten(r->o, r->kept, r->nkept, &size);
    LabelList summed = labels_minus(type_labels(&index->type), type_labels(r->like));
    Places over = places_in_type(&index->type, &summed);
    /* A term with both a place's axis and a position's is read where the position is. */
    LabelList kept = hot_labels(r->kept, r->nkept);
    for (int k = 0; k < r->n; k++)
        if (has_any(&r->in[k]->type, &kept) && has_any(&r->in[k]->type, &summed)) {
            Choice c = r->c;
            Value *x = choice_read(r->o, &c, r->in[k]);
            if (x == NULL) return NULL;
            r->in[k] = x;
        }
    if (rows && is_unique(r, r->kept, r->nkept, &summed)) return place_unique(r, index, size, &over);
    return place_added(r, index, size);
}

/* ---- contractions ---- */

static void split_hots(Route *r) {
    for (int h = 0; h < r->c.nhot; h++) {
        if (type_has(r->like, r->c.hot[h].label))
            r->kept[r->nkept++] = r->c.hot[h];
        else
            r->gone[r->ngone++] = r->c.hot[h];
    }
}

/* Operands that have contracted axes are read; hots that no operand has are a condition. */
static void contract_hots(Route *r) {
    bool read[MAX_HOTS] = {false};
    for (int k = 0; k < r->n; k++) {
        Hot at[MAX_HOTS];
        int n = 0;
        for (int h = 0; h < r->ngone; h++)
            if (type_has(&r->in[k]->type, r->gone[h].label)) {
                at[n++] = r->gone[h];
                read[h] = true;
            }
        if (n > 0) r->in[k] = read_rows(r, r->in[k], at, n);
    }
    for (int h = 0; h < r->ngone; h++) {
        if (read[h]) continue;
        Value *valid = hot_present(r->o, &r->gone[h], r->nkept > 0 ? &r->kept[0].index->type : &(Type){0});
        if (valid == NULL) continue;
        if (r->nkept > 0) {
            Choice c = {.nhot = 1, .hot = {r->kept[0]}};
            choice_mask(r->o, &c, valid);
            r->kept[0] = c.hot[0];
        } else {
            r->in[r->n++] = build_cast(r->b, valid, r->like->dtype);
        }
    }
}

/* The product as a choice with a greater weight: nothing of the size of the result exists yet. */
static bool stay_form(Route *r, Choice *out) {
    *out = (Choice){.nhot = r->nkept};
    for (int h = 0; h < r->nkept; h++) out->hot[h] = r->kept[h];
    for (int k = 0; k < r->n; k++) {
        Value *x = choice_read(r->o, out, r->in[k]);
        if (x == NULL) return false;
        choice_scale(r->o, out, x);
    }
    LabelList all = choice_labels(out);
    out->over = labels_minus(all, type_labels(r->like));
    return true;
}

/* Whether an operand has an axis that is no position and no place: then rows are moved. */
static bool moves_rows(const Route *r, int n, Value *const *dense) {
    LabelList mine = choice_labels(&r->c);
    for (int k = 0; k < n; k++)
        for (int i = 0; i < dense[k]->type.rank; i++) {
            Label label = dense[k]->type.dim[i].label;
            bool place = list_has(&mine, label);
            for (int h = 0; h < r->c.nhot; h++) place = place || r->c.hot[h].label == label;
            if (!place) return true;
        }
    return false;
}

static Route route_new(Onehot *o, const Form *f, const Choice *c, int n, Value *const *dense, const Type *like) {
    Route r = {.o = o, .b = &o->b, .form = f, .c = *c, .like = like};
    if (f->n > 1) r.stacked = c->over.at[0];
    for (int k = 0; k < n; k++) r.in[r.n++] = dense[k];
    if (c->weight != NULL) r.in[r.n++] = c->weight;
    split_hots(&r);
    return r;
}

static bool places_positions(const Route *r) {
    for (int h = 0; h < r->nkept; h++)
        for (int i = 0; i < r->kept[h].index->type.rank; i++)
            if (!type_has(r->like, r->kept[h].index->type.dim[i].label)) return true;
    return false;
}

/* One choice (or several, stacked): a value, or another choice in *lazy with *is_lazy. */
static Value *contract(Route *r, int n, Value *const *dense, Choice *lazy, bool *is_lazy) {
    bool rows = moves_rows(r, n, dense), positions = places_positions(r);
    contract_hots(r);
    *is_lazy = false;
    if (r->nkept == 0) return finish(r, r->n, r->in);
    if (rows && positions) return place(r, true);
    *is_lazy = stay_form(r, lazy);
    return NULL;
}

Value *form_contract(Onehot *o, const Form *f, int n, Value *const *dense, const Type *like, Form **lazy) {
    *lazy = NULL;
    if (n > MAX_TERMS - MAX_HOTS - 1) {
        o->why = "too many operands";
        return NULL;
    }
    Choice *all = form_stack(o, f);
    Form *out = NEW(o->scratch, Form);
    Value *sum = NULL;
    for (int k = 0; k < (all != NULL ? 1 : f->n); k++) {
        Form *one = form_copy(o, f);
        if (all == NULL) *one = (Form){1, {f->at[k]}};
        Route r = route_new(o, one, all != NULL ? all : &f->at[k], n, dense, like);
        bool is_lazy;
        Value *x = contract(&r, n, dense, &out->at[out->n], &is_lazy);
        if (is_lazy)
            out->n++;
        else if (x == NULL)
            return NULL;
        else
            sum = sum == NULL ? x : build2(&o->b, OP_add, sum, x, NULL);
    }
    if (out->n > 0 && sum != NULL) {
        o->why = "choices of different kinds";
        return NULL;
    }
    if (out->n > 0) *lazy = out;
    return sum;
}

/* How often each value of an index occurs: what its `ordinal` counts. */
static Value *place_counts(Onehot *o, const Choice *c) {
    const Hot *h = &c->hot[0];
    if (c->nhot != 1 || c->weight != NULL || c->over.n != 1 || !type_has(&h->index->type, c->over.at[0])) return NULL;
    Value *counts;
    hot_ordinal(o, h, c->over.at[0], NULL, &counts);
    return counts;
}

Value *form_place(Onehot *o, const Form *f, const Type *like) {
    Value *sum = NULL;
    Type t = *like;
    if (t.dtype == DT_bool) t.dtype = DT_i32;
    for (int k = 0; k < f->n; k++) {
        Form one = {1, {f->at[k]}};
        Value *x = place_counts(o, &f->at[k]);
        if (x != NULL && f->n == 1 && type_same_shape(&x->type, like)) return x;
        if (x != NULL) {
            HotSlot known = *hot_slot(o, x);
            x = build_broadcast(&o->b, build_cast(&o->b, x, t.dtype), &t);
            hot_slot(o, x)->counted = known.counted;
            hot_slot(o, x)->counted_along = known.counted_along;
        } else {
            Route r = route_new(o, &one, &f->at[k], 0, NULL, &t);
            bool rows = r.c.weight != NULL && r.c.weight->type.rank > r.c.hot[0].index->type.rank;
            x = r.nkept == 0 ? finish(&r, r.n, r.in) : place(&r, rows);
        }
        if (x == NULL) return NULL;
        sum = sum == NULL ? x : build2(&o->b, OP_add, sum, x, NULL);
    }
    return build_cast(&o->b, sum, like->dtype);
}
