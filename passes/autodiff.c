/* autodiff.c: expands every `grad` into instructions by reverse mode (Griewank and Walther, Evaluating Derivatives, ch.
 * 3).
 *
 * A `grad` stands in a block after the instructions that compute its loss. Forward over them: which values are *active*
 * (floating, and depending on a value that the gradient is taken by). Backward over them: each instruction hands the
 * cotangent of its result on to its active operands (gradients.c), where contributions add up. Work and code are
 * proportional to the active instructions; nothing is built for the rest, no zeros are added. Loops stay loops:
 * autodiff_loop.c. A block with several `grad`s is done from first to last, so a gradient of a gradient works.
 *
 * Before: ANNOTATED, with `grad`. After: ANNOTATED without `grad`, `stop_gradient` and `take`; values that existed
 * before are computed as before; a new instruction has the location of the one it differentiates. */
#include "grad.h"
#include "passes.h"
#include "support/intern.h"

/* ---- the table of slots ---- */

GradSlot *grad_slot(Grad *g, Value *v) {
    /* Ids of values that the table does not know are anything: the slot's `of` tells. */
    if (v->id < 0 || v->id >= g->slot.n || g->slot.at[v->id].of != v) {
        v->id = g->slot.n;
        vec_push(g->scratch, g->slot, ((GradSlot){.of = v}));
    }
    return &g->slot.at[v->id];
}

static bool is_floating(DType t) {
    return t == DT_f32 || t == DT_bf16 || t == DT_f16;
}

bool grad_wants(Grad *g, Value *of) {
    return grad_slot(g, of)->active;
}

Value *grad_zeros(Grad *g, const Type *like) {
    return build_broadcast(&g->b, build_const(&g->b, like->dtype, 0), like);
}

/* Sums over labels that `like` lacks, repeats over those that x lacks, orders the axes. */
static Value *fit(Builder *b, Value *x, const Type *like) {
    LabelList have = type_labels(&x->type), want = type_labels(like);
    x = build_reduce(b, intern("sum"), x, labels_minus(have, want));
    return type_same_shape(&x->type, like) ? x : build_broadcast(b, x, like);
}

void grad_into(Grad *g, Value *of, Value *contribution) {
    if (!grad_wants(g, of)) return;
    Value *sum = fit(&g->b, contribution, &of->type);
    Value *before = grad_slot(g, of)->cotangent;
    if (before != NULL) sum = build2(&g->b, OP_add, before, sum, NULL);
    /* A shared cotangent keeps the name of the first value that it belonged to. */
    if (sum->name == NULL && of->name != NULL && sum->def != NULL) sum->name = intern_printf("d_%s", of->name);
    grad_slot(g, of)->cotangent = sum;
}

/* ---- which values matter ---- */

/* Forward: marks active results of the instructions before `end` (NULL: all), given the marks of what they read. */
void grad_activate(Grad *g, Block *block, const Inst *end) {
    for (Inst *i = block->first; i != end && i != NULL; i = i->next) {
        if (!grad_flows(i->op)) continue;
        if (i->op == OP_loop) {
            grad_activate_loop(g, i);
            continue;
        }
        bool active = false;
        for (int k = 0; k < i->nin; k++) active = active || grad_slot(g, i->in[k])->active;
        for (int k = 0; k < i->nout && active; k++)
            if (is_floating(i->out[k]->type.dtype)) grad_slot(g, i->out[k])->active = true;
    }
}

/* Backward: marks active operands of instructions with a reached result. */
void grad_reach(Grad *g, Block *block) {
    for (Inst *i = block->last; i != NULL; i = i->prev) {
        if (!grad_flows(i->op)) continue;
        if (i->op == OP_loop) {
            grad_reach_loop(g, i);
            continue;
        }
        bool reached = false;
        for (int k = 0; k < i->nout; k++) reached = reached || grad_slot(g, i->out[k])->reached;
        for (int k = 0; k < i->nin && reached; k++)
            if (grad_wants(g, i->in[k])) grad_slot(g, i->in[k])->reached = true;
    }
}

/* ---- the reverse walk ---- */

void grad_backward(Grad *g, Inst *last) {
    for (Inst *i = last; i != NULL; i = i->prev) {
        if (!grad_flows(i->op)) continue;
        bool flows = false, wanted = false;
        for (int k = 0; k < i->nout; k++) flows = flows || grad_slot(g, i->out[k])->cotangent != NULL;
        for (int k = 0; k < i->nin; k++) wanted = wanted || grad_wants(g, i->in[k]);
        if (!flows || !wanted) continue;
        g->b.loc = i->loc;
        grad_fn[i->op](g, i, grad_slot(g, i->out[0])->cotangent);
    }
}

/* Replaces one `grad` (operands: loss, values; results: a gradient for each value). */
static void expand(Module *m, Arena *scratch, Inst *inst) {
    Grad g = {.b = {m, inst->parent, inst, inst->loc}, .scratch = scratch};
    for (int k = 1; k < inst->nin; k++) {
        Value *by = inst->in[k];
        grad_slot(&g, by)->active = is_floating(by->type.dtype);
    }
    grad_activate(&g, inst->parent, inst);
    Value *loss = inst->in[0];
    if (grad_wants(&g, loss)) {
        grad_into(&g, loss, build_const(&g.b, loss->type.dtype, 1));
        grad_backward(&g, inst->prev);
    }
    g.b.loc = inst->loc;
    for (int k = 1; k < inst->nin; k++) {
        Value *d = grad_slot(&g, inst->in[k])->cotangent;
        if (d == NULL) d = grad_zeros(&g, &inst->in[k]->type);
        block_replace(inst->parent, inst->out[k - 1], d);
    }
    inst_remove(inst);
}

typedef struct Collected {
    Arena *scratch;
    Op op;
    VEC(Inst *) insts;
} Collected;

static void collect(Inst *inst, void *ctx) {
    Collected *c = ctx;
    if (inst->op == c->op) vec_push(c->scratch, c->insts, inst);
}

bool pass_autodiff(Module *m, PassCtx *ctx) {
    Collected grads = {.scratch = ctx->scratch, .op = OP_grad},
              stops = {.scratch = ctx->scratch, .op = OP_stop_gradient};
    module_walk(m, collect, &grads);
    /* From first to last in a block, and inner blocks (which the walk visits after their loop) before what follows
     * them: an outer gradient may go through the loop that holds an inner one. */
    for (int i = 0; i < grads.insts.n; i++) expand(m, ctx->scratch, grads.insts.at[i]);
    /* Their work is done. */
    module_walk(m, collect, &stops);
    for (int i = 0; i < stops.insts.n; i++) {
        Inst *s = stops.insts.at[i];
        block_replace(s->parent, s->out[0], s->in[0]);
        inst_remove(s);
    }
    /* The inverse served the gradient. */
    Collected takes = {.scratch = ctx->scratch, .op = OP_take};
    module_walk(m, collect, &takes);
    for (int i = 0; i < takes.insts.n; i++) {
        Inst *t = takes.insts.at[i];
        Builder b = {m, t->parent, t, t->loc};
        Value *y = build2(&b, OP_gather, t->in[0], t->in[1], &(Attrs){.label = t->at.label});
        y->name = t->out[0]->name;
        block_replace(t->parent, t->out[0], y);
        inst_remove(t);
    }
    return grads.insts.n + stops.insts.n + takes.insts.n > 0;
}
