/* autodiff_save.c: what the backward loop reads of the forward one, for the fewest bytes.
 *
 * A demanded value can be had in four ways: it is the iteration or an invariant, passed again; it is a slice of an xs,
 * read again; it is computed again, at the start of the backward body, from values that can be had; or it is a
 * residual, a further ys of the forward loop, which is an xs of the backward one. Only element-wise ops and layout are
 * worth computing again: one pass over memory either way. (Not so an annotation: it may be a move between devices.)
 * Which values to keep is a minimum vertex cut between what cannot be computed again (carried values, contractions,
 * reductions) and what is demanded, with bytes as weights (the partitioner of PyTorch's AOTAutograd is this cut; Chen
 * et al. 2016 for the idea). So a sum of a GEMM's result and a mask keeps the GEMM's result or the sum, whichever
 * serves more, and no mask; an exponential and its quotient keep one of the two.
 *
 * Before: the walk over the forward body is over, `demanded` is complete. After: no placeholder is left; the forward
 * loop has a new result for each residual. Cost: one maximum flow over the values that the demanded ones are computed
 * from. */
#include "grad_loop.h"
#include "mincut.h"
#include "support/diag.h"
#include "support/intern.h"

/* ---- demand ---- */

Value *grad_use(Grad *g, Value *primal) {
    if (g->frame == NULL) return primal;
    Value *here = grad_slot(g, primal)->here;
    if (here != NULL) return here;
    Type t = type_unsharded(&primal->type);
    here = value_new(g->b.m, &t);
    here->name = primal->name;
    here->block = g->frame->body;
    grad_slot(g, primal)->here = here;
    vec_push(g->scratch, g->frame->demanded, primal);
    return here;
}

Value *grad_arg(Grad *g, GradFrame *f, GradArgs *list, const Type *t, GradArg a) {
    Type whole = type_unsharded(t);
    a.arg = block_arg(g->b.m, f->body, &whole, NULL);
    vec_push(g->scratch, *list, a);
    return a.arg;
}

/* ---- the cut ---- */

static bool can_recompute(const Inst *inst) {
    static const bool layout[OP_COUNT] = {
        [OP_take] = true, [OP_relabel] = true, [OP_slice] = true, [OP_runtime] = true, [OP_read] = true};
    EmitKind emit = op_info[inst->op].emit;
    return emit == EMIT_elem || inst->op == OP_stop_gradient || layout[inst->op];
}

/* An argument that the backward body can have as well. */
static bool is_free(const Inst *loop, const Value *v) {
    int operand = v->index - 1;
    return v->def == NULL && (operand < loop_xs(loop) || operand >= loop_xs(loop) + loop_carried(loop));
}

/* The ys of the loop that already stacks `v`, -1: none. */
static int stacked_as(const Inst *loop, const Value *v) {
    for (int k = loop_carried(loop); k < loop->nout; k++)
        if (body_result(loop, k) == v) return k;
    return -1;
}

static int64_t weight(const Inst *loop, const Value *v) {
    /* A stack that is there anyway is almost free: it is read once more. */
    if (stacked_as(loop, v) >= 0) return 1;
    /* Of equal sizes rather the table than the rows taken from it: those need not be written at all. */
    return 2 * type_elements(&v->type) * dtype_bytes(v->type.dtype) + (v->def != NULL && v->def->op == OP_take);
}

typedef struct Graph {
    Grad *g;
    const Inst *loop;
    MinCut *cut;
    VEC(Value *) value; /* by node */
} Graph;

static int graph_node(Graph *gr, Value *v) {
    int node = grad_slot(gr->g, v)->node;
    if (node > 0) return node - 1;
    node = mincut_node(gr->cut, weight(gr->loop, v));
    grad_slot(gr->g, v)->node = node + 1;
    vec_push(gr->g->scratch, gr->value, v);
    return node;
}

/* Values from the demanded ones back to what is free or cannot be computed again; `value` is the work list. */
static void build_graph(Graph *gr, const GradFrame *f) {
    for (int k = 0; k < f->demanded.n; k++)
        if (!is_free(gr->loop, f->demanded.at[k])) mincut_sink(gr->cut, graph_node(gr, f->demanded.at[k]));
    for (int n = 0; n < gr->value.n; n++) {
        const Inst *def = gr->value.at[n]->def;
        if (def == NULL || !can_recompute(def)) {
            mincut_source(gr->cut, n);
            continue;
        }
        for (int k = 0; k < def->nin; k++)
            if (!is_free(gr->loop, def->in[k])) mincut_edge(gr->cut, graph_node(gr, def->in[k]), n);
    }
}

/* ---- placing ---- */

/* Whether some value of the body has the label. */
static bool is_taken(const Block *body, Label l) {
    for (int k = 0; k < body->args.n; k++)
        if (type_find(&body->args.at[k]->type, l) >= 0) return true;
    for (const Inst *i = body->first; i != NULL; i = i->next)
        for (int k = 0; k < i->nout; k++)
            if (type_find(&i->out[k]->type, l) >= 0) return true;
    return false;
}

/* A label for the trips of a loop that had none, since it only carried values. */
static Label trip_label(const Inst *loop) {
    for (int n = 0;; n++) {
        Label l = intern_printf("trip%d", n);
        if (!is_taken(loop->body, l)) return l;
    }
}

/* The stack of `v`: a result of the forward loop. */
static Value *stack_residual(Module *m, Inst *loop, Value *v) {
    int k = stacked_as(loop, v);
    if (k >= 0) return loop->out[k];
    if (loop->at.label == NULL) loop->at.label = trip_label(loop);
    Type t = type_unsharded(&v->type);
    for (int a = t.rank++; a > 0; a--) t.dim[a] = t.dim[a - 1];
    t.dim[0] = (Dim){.label = loop->at.label, .size = loop->at.trip};
    Value *stack = value_new(m, &t);
    stack->def = loop;
    stack->block = loop->parent;
    stack->index = loop->nout;
    if (v->name != NULL) stack->name = intern_printf("%s_all", v->name);
    Value **out = NEW_ARRAY(m->arena, Value *, loop->nout + 1);
    for (k = 0; k < loop->nout; k++) out[k] = loop->out[k];
    out[loop->nout++] = stack;
    loop->out = out;
    vec_push(m->arena, loop->body->results, v);
    return stack;
}

/* Whether the stack of `v` would be a tensor within the limits. */
static bool can_stack(const Inst *loop, const Value *v) {
    return v->type.rank < MAX_RANK && type_elements(&v->type) <= MAX_ELEMENTS / loop->at.trip;
}

/* A forward value as an argument of the backward body. */
static Value *pass_value(Grad *g, GradFrame *f, Value *v) {
    Inst *loop = f->loop;
    if (v->def == NULL && v->index == 0) return f->body->args.at[0]; /* it counts down with the iterations */
    if (!is_free(loop, v) && !can_stack(loop, v)) {
        diag_error(
            v->def == NULL ? loop->loc : v->def->loc,
            "the gradient of this loop needs this value in each of %lld iterations, which is more than %d axes or "
            "2^48 elements",
            (long long)loop->at.trip, MAX_RANK);
        return grad_zeros(g, &v->type);
    }
    bool slice = !is_free(loop, v) || v->index <= loop_xs(loop);
    Value *primal = is_free(loop, v) ? loop->in[v->index - 1] : stack_residual(g->b.m, loop, v);
    Value *arg = grad_arg(g, f, slice ? &f->xs : &f->invariant, &v->type, (GradArg){.primal = primal});
    arg->name = v->name;
    return arg;
}

static Value *recompute(Grad *g, const Inst *inst) {
    Value **in = NEW_ARRAY(g->scratch, Value *, inst->nin);
    for (int k = 0; k < inst->nin; k++) in[k] = grad_slot(g, inst->in[k])->saved;
    g->b.loc = inst->loc;
    Value *out = build_inst(&g->b, inst->op, inst->nin, in, &inst->at, NULL)->out[0];
    out->name = inst->out[0]->name;
    /* The wishes of an annotation. */
    for (int k = 0; k < out->type.rank; k++) out->type.dim[k] = inst->out[0]->type.dim[k];
    return out;
}

/* Backward over the body: marks what the demanded values need; passes what is free or cut. */
static void need(Grad *g, GradFrame *f, const MinCut *cut, Value *v) {
    GradSlot slot = *grad_slot(g, v);
    if (slot.saved != NULL || slot.recomputed) return;
    if (is_free(f->loop, v) || mincut_has(cut, slot.node - 1)) {
        Value *saved = pass_value(g, f, v);
        grad_slot(g, v)->saved = saved;
    } else {
        grad_slot(g, v)->recomputed = true;
    }
}

static void place_values(Grad *g, GradFrame *f, const MinCut *cut) {
    for (int k = 0; k < f->demanded.n; k++) need(g, f, cut, f->demanded.at[k]);
    for (const Inst *i = f->loop->body->last; i != NULL; i = i->prev)
        if (i->nout == 1 && grad_slot(g, i->out[0])->recomputed)
            for (int k = 0; k < i->nin; k++) need(g, f, cut, i->in[k]);
    for (const Inst *i = f->loop->body->first; i != NULL; i = i->next)
        if (i->nout == 1 && grad_slot(g, i->out[0])->recomputed) {
            Value *saved = recompute(g, i);
            grad_slot(g, i->out[0])->saved = saved;
        }
}

void grad_save(Grad *g) {
    GradFrame *f = g->frame;
    Graph gr = {.g = g, .loop = f->loop, .cut = mincut_new(g->scratch)};
    build_graph(&gr, f);
    mincut_solve(gr.cut);
    Builder end = g->b;
    g->b.before = f->body->first;
    place_values(g, f, gr.cut);
    g->b = end;
    for (int k = 0; k < f->demanded.n; k++) {
        GradSlot *slot = grad_slot(g, f->demanded.at[k]);
        block_replace(f->body, slot->here, slot->saved);
    }
}
