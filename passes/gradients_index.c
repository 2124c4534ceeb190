/* gradients_index.c: gradients of contractions, folds, and of ops that move elements.
 *
 * A linear map's gradient is its transpose, and the moves come in pairs: gather and scatter, slice and pad, broadcast
 * and sum, relabel and its inverse. `grad_into` restores the operand's labels and their order, so that none of these
 * has to think about layout. Before and after as in gradients.c. */
#include "grad.h"
#include "places.h"
#include "support/intern.h"

static int64_t label_size(const Value *v, Label l) {
    return v->type.dim[type_find(&v->type, l)].size;
}

static bool has_label(const LabelList *l, Label label) {
    for (int i = 0; i < l->n; i++)
        if (l->at[i] == label) return true;
    return false;
}

/* d/dx_k sum(x_1 … x_n) = the einsum of the cotangent with the other operands. Labels of operand k that none of them
 * has were summed away alone; the cotangent repeats over them. */
void grad_einsum(Grad *g, Inst *inst, Value *ct) {
    Value **in = NEW_ARRAY(g->scratch, Value *, inst->nin);
    for (int k = 0; k < inst->nin; k++) {
        if (!grad_wants(g, inst->in[k])) continue;
        int n = 0;
        in[n++] = ct;
        for (int j = 0; j < inst->nin; j++)
            if (j != k) in[n++] = grad_use(g, inst->in[j]);
        LabelList mine = type_labels(&inst->in[k]->type), seen = {0};
        for (int a = 0; a < mine.n; a++)
            for (int j = 0; j < n; j++)
                if (type_find(&in[j]->type, mine.at[a]) >= 0 && !has_label(&seen, mine.at[a]))
                    seen.at[seen.n++] = mine.at[a];
        grad_into(g, inst->in[k], n == 1 ? ct : build_einsum(&g->b, n, in, seen));
    }
}

/* A sum hands its cotangent to every term; a maximum or minimum shares it among the elements that attain it. */
void grad_reduce(Grad *g, Inst *inst, Value *ct) {
    if (inst->at.kind == intern("sum")) {
        grad_into(g, inst->in[0], ct);
        return;
    }
    DType t = ct->type.dtype;
    Value *x = grad_use(g, inst->in[0]), *attains = build2(&g->b, OP_eq, x, grad_use(g, inst->out[0]), NULL);
    Value *count = build_reduce(&g->b, intern("sum"), build_cast(&g->b, attains, t), inst->at.labels);
    Value *share = build2(&g->b, OP_div, ct, count, NULL);
    grad_into(g, inst->in[0], build3(&g->b, OP_where, attains, share, build_const(&g->b, t, 0), NULL));
}

void grad_cumsum(Grad *g, Inst *inst, Value *ct) {
    Attrs at = inst->at;
    at.reverse = !at.reverse;
    grad_into(g, inst->in[0], build1(&g->b, OP_cumsum, ct, &at));
}

/* To the places that the values came from. */
void grad_top_k(Grad *g, Inst *inst, Value *ct) {
    if (ct == NULL) return; /* only the indices are used */
    const Value *x = inst->in[0];
    Attrs at = {.label = inst->at.label, .size = label_size(x, inst->at.label), .labels = type_labels(&x->type)};
    Value *places = grad_use(g, inst->out[1]);
    if (inst->at.to == inst->at.label) { /* all of them, sorted: the axis that is scattered has another name */
        Attrs rank = {.labels = {1, {inst->at.to}}, .dims = {1, {{intern_printf("%s rank", inst->at.to), at.size}}}};
        ct = build1(&g->b, OP_relabel, ct, &rank);
        places = build1(&g->b, OP_relabel, places, &rank);
    }
    grad_into(g, inst->in[0], build2(&g->b, OP_scatter, ct, places, &at));
}

void grad_gather(Grad *g, Inst *inst, Value *ct) {
    const Value *x = inst->in[0];
    Attrs at = {.label = inst->at.label, .size = label_size(x, inst->at.label), .labels = type_labels(&x->type)};
    if (grad_wants(g, inst->in[0]))
        grad_into(g, inst->in[0], build2(&g->b, OP_scatter, ct, grad_use(g, inst->in[1]), &at));
}

void grad_scatter(Grad *g, Inst *inst, Value *ct) {
    Attrs at = {.label = inst->at.label};
    if (grad_wants(g, inst->in[0]))
        grad_into(g, inst->in[0], build2(&g->b, OP_gather, ct, grad_use(g, inst->in[1]), &at));
}

/* ---- take: the gradient of a gather whose inverse is known is a gather ---- */

/* A factor of the cotangent, taken back; itself when it is the same at all places. */
static Value *factor_back(Grad *g, Value *ct, Value *places, const Places *own) {
    Places mine = places_of(own, &ct->type);
    if (mine.labels.n == 0) return ct;
    Label label;
    Value *at = places_within(&g->b, places, own, &mine);
    ct = places_merge(&g->b, ct, &mine, &at->type, &label);
    return build2(&g->b, OP_gather, ct, at, &(Attrs){.label = label});
}

static bool has_any(const Type *t, const LabelList *labels) {
    for (int i = 0; i < labels->n; i++)
        if (type_find(t, labels->at[i]) >= 0) return true;
    return false;
}

/* Gathering goes through products and repetitions, down to what is smaller than the cotangent: the gradient of a
 * weighted sum of rows gathers rows of the cotangent and weights, and their product is never spread out. */
static Value *take_back(Grad *g, Value *ct, Value *places, const Places *own) {
    enum { FACTORS = 8 };
    Value *pending[FACTORS] = {ct}, *product = NULL;
    for (int n = 1; n > 0;) {
        Value *x = pending[--n];
        while (x->def != NULL && x->def->op == OP_broadcast && has_any(&x->def->in[0]->type, &own->labels))
            x = x->def->in[0];
        const Inst *def = x->def;
        if (def != NULL && def->op == OP_mul && n + 2 <= FACTORS) {
            pending[n++] = def->in[1];
            pending[n++] = def->in[0];
            continue;
        }
        x = factor_back(g, x, places, own);
        product = product == NULL ? x : build2(&g->b, OP_mul, product, x, NULL);
    }
    return product;
}

void grad_take(Grad *g, Inst *inst, Value *ct) {
    if (!grad_wants(g, inst->in[0])) return;
    Places own = {.labels = inst->at.labels};
    for (int i = 0; i < own.labels.n; i++) own.size[i] = label_size(inst->in[1], own.labels.at[i]);
    grad_into(g, inst->in[0], take_back(g, ct, grad_use(g, inst->in[2]), &own));
}

void grad_slice(Grad *g, Inst *inst, Value *ct) {
    Attrs at = inst->at;
    at.size = label_size(inst->in[0], at.label);
    grad_into(g, inst->in[0], build1(&g->b, OP_pad, ct, &at));
}

void grad_pad(Grad *g, Inst *inst, Value *ct) {
    Attrs at = inst->at;
    at.size = at.to == NULL ? 1 : label_size(inst->in[0], at.to);
    grad_into(g, inst->in[0], build1(&g->b, OP_slice, ct, &at));
}

/* The axes that were made, merged, become those that were there. */
void grad_relabel(Grad *g, Inst *inst, Value *ct) {
    Attrs at = {0};
    for (int k = 0; k < inst->at.dims.n; k++) at.labels.at[at.labels.n++] = inst->at.dims.at[k].label;
    for (int k = 0; k < inst->at.labels.n; k++) {
        Label l = inst->at.labels.at[k];
        at.dims.at[k].label = l;
        at.dims.at[k].size = label_size(inst->in[0], l);
    }
    at.dims.n = inst->at.labels.n;
    grad_into(g, inst->in[0], build1(&g->b, OP_relabel, ct, &at));
}

void grad_broadcast(Grad *g, Inst *inst, Value *ct) {
    grad_into(g, inst->in[0], ct);
}

/* The wish holds for the cotangent too. */
void grad_annotate(Grad *g, Inst *inst, Value *ct) {
    Value *same = build1(&g->b, OP_annotate, ct, NULL);
    for (int k = 0; k < same->type.rank; k++) same->type.dim[k] = inst->out[0]->type.dim[k];
    grad_into(g, inst->in[0], same);
}
