/* autodiff_loop.c: a loop's gradient is a loop that runs the other way.
 *
 *   (carried, ys) = loop(xs, carried, invariant)
 *   (d_carried, d_invariant, d_xs) = loop reverse(residuals, xs, d_ys, d_carried, d_invariant = 0, invariant)
 *
 * Its body is the reverse walk over the forward body. What that reads of the forward values comes, cheapest first:
 *   an invariant is passed again; a slice of an xs is read again; an element-wise or index value whose operands are at
 *   hand for fewer bytes is computed again (a mask, a cast, a one-hot: Griewank's "recompute what is cheap");
 * everything else becomes a *residual*: a further ys of the forward loop, stacked, which is an xs of the backward one.
 * So memory is trip * residuals, nothing that the backward body does not read is kept, and no value is kept twice.
 *
 * Loops nest: a residual of an inner loop is a value of the outer body like any other, hence stacked again.
 * Before: `ct`s of the loop's results are in their slots. After: contributions added to the loop's operands. The
 * forward loop has new results at its end; its old ones are unchanged. */
#include "grad.h"
#include "support/diag.h"
#include "support/intern.h"

/* An argument of the backward body and the operand of the backward loop that it stands for. */
typedef struct GradArg {
    Value *arg;
    Value *operand; /* where the backward loop will stand; NULL: look up `primal` there */
    Value *primal;  /* of the block that holds the forward loop */
} GradArg;

typedef VEC(GradArg) GradArgs;

struct GradFrame {
    GradFrame *outer;
    Inst *loop;  /* forward */
    Block *body; /* backward; the builder's block while the walk is in it */
    GradArgs xs, carried, invariant;
    int nflow; /* the first of `carried` are cotangents of carried values, the others of invariants */
};

/* ---- parts of a loop ----------------------------------------------------------------------------------------------
 */

static int loop_xs(const Inst *loop) {
    return (int)loop->at.xs;
}
static int loop_carried(const Inst *loop) {
    return (int)loop->at.carry;
}
static Value *body_arg(const Inst *loop, int operand) {
    return loop->body->args.at[1 + operand];
}
/* Results of the loop and of its body are numbered alike; so are, up to loop_carried, carried operands after the xs. */
static Value *body_result(const Inst *loop, int k) {
    return loop->body->results.at[k];
}

static Type stacked(const Inst *loop, const Type *slice) {
    Type t = type_unsharded(slice);
    for (int k = t.rank; k > 0; k--) t.dim[k] = t.dim[k - 1];
    t.dim[0] = (Dim){.label = loop->at.label, .size = loop->at.trip};
    t.rank++;
    return t;
}

/* ---- marks through loops: carried values make them a fixed point --------------------------------------------------
 */

void grad_activate_loop(Grad *g, Inst *loop) {
    for (int k = 0; k < loop->nin; k++)
        if (grad_wants(g, loop->in[k])) grad_slot(g, body_arg(loop, k))->active = true;
    bool again = true;
    while (again) {
        again = false;
        grad_activate(g, loop->body, NULL);
        for (int k = 0; k < loop_carried(loop); k++) {
            GradSlot *arg = grad_slot(g, body_arg(loop, loop_xs(loop) + k));
            bool was = arg->active;
            if (was || !grad_wants(g, body_result(loop, k))) continue;
            grad_slot(g, body_arg(loop, loop_xs(loop) + k))->active = again = true;
        }
    }
    for (int k = 0; k < loop->nout; k++) {
        if (grad_wants(g, body_result(loop, k))) grad_slot(g, loop->out[k])->active = true;
    }
}

/* From the marks of the body's results to those of its arguments. */
static void reach_body(Grad *g, const Inst *loop) {
    bool again = true;
    while (again) {
        again = false;
        grad_reach(g, loop->body);
        for (int k = 0; k < loop_carried(loop); k++) {
            if (!grad_slot(g, body_arg(loop, loop_xs(loop) + k))->reached) continue;
            GradSlot *result = grad_slot(g, body_result(loop, k));
            again = again || !result->reached;
            result->reached = true;
        }
    }
}

void grad_reach_loop(Grad *g, Inst *loop) {
    for (int k = 0; k < loop->nout; k++)
        if (grad_slot(g, loop->out[k])->reached) grad_slot(g, body_result(loop, k))->reached = true;
    reach_body(g, loop);
    for (int k = 0; k < loop->nin; k++)
        if (grad_slot(g, body_arg(loop, k))->reached) grad_slot(g, loop->in[k])->reached = true;
}

/* ---- primal values in the backward body ---------------------------------------------------------------------------
 */

static Value *add_arg(Grad *g, GradFrame *f, GradArgs *list, const Type *t, GradArg a) {
    Type whole = type_unsharded(t);
    a.arg = block_arg(g->b.m, f->body, &whole, NULL);
    vec_push(g->scratch, *list, a);
    return a.arg;
}

/* Appends `v` of the forward body to the loop's ys; returns the stack. */
static Value *stack_residual(Grad *g, Inst *loop, Value *v) {
    for (int k = loop_carried(loop); k < loop->nout; k++)
        if (body_result(loop, k) == v) return loop->out[k];
    if (v->type.rank == MAX_RANK) diag_bug("no axis left to stack a residual along %s", loop->at.label);
    Module *m = g->b.m;
    Type t = stacked(loop, &v->type);
    Value *stack = value_new(m, &t);
    stack->def = loop;
    stack->block = loop->parent;
    stack->index = loop->nout;
    stack->name = v->name;
    Value **out = NEW_ARRAY(m->arena, Value *, loop->nout + 1);
    for (int k = 0; k < loop->nout; k++) out[k] = loop->out[k];
    out[loop->nout++] = stack;
    loop->out = out;
    vec_push(m->arena, loop->body->results, v);
    return stack;
}

/* Ops that are worth computing again when that saves memory: one pass over elements, no reduction, no transcendental.
 */
static bool is_cheap(Op op) {
    static const bool cheap[OP_COUNT] = {
        [OP_add] = true,      [OP_sub] = true,     [OP_mul] = true,
        [OP_neg] = true,      [OP_abs] = true,     [OP_sign] = true,
        [OP_maximum] = true,  [OP_minimum] = true, [OP_lt] = true,
        [OP_le] = true,       [OP_eq] = true,      [OP_and] = true,
        [OP_or] = true,       [OP_not] = true,     [OP_where] = true,
        [OP_cast] = true,     [OP_const] = true,   [OP_iota] = true,
        [OP_random] = true,   [OP_runtime] = true, [OP_read] = true,
        [OP_one_hot] = true,  [OP_slice] = true,   [OP_broadcast] = true,
        [OP_annotate] = true, [OP_relabel] = true, [OP_stop_gradient] = true,
    };
    return cheap[op];
}

enum { RECOMPUTE_DEPTH = 6 };

static double value_bytes(const Value *v) {
    return (double)type_elements(&v->type) * dtype_bytes(v->type.dtype);
}

static double operand_bytes(Grad *g, const Inst *inst, int depth);

/* Bytes a trip that must newly be stacked to have `v` in the backward body. */
static double needed_bytes(Grad *g, Value *v, int depth) {
    const Inst *loop = g->frame->loop;
    if (grad_slot(g, v)->here != NULL) return 0;
    if (v->def == NULL) {
        bool carried = v->index > loop_xs(loop) && v->index <= loop_xs(loop) + loop_carried(loop);
        return carried ? value_bytes(v) : 0;
    }
    double again = operand_bytes(g, v->def, depth);
    return again < value_bytes(v) ? again : value_bytes(v);
}

static double operand_bytes(Grad *g, const Inst *inst, int depth) {
    if (depth == 0 || !is_cheap(inst->op)) return 1.0 / 0.0;
    double sum = 0;
    for (int k = 0; k < inst->nin; k++) sum += needed_bytes(g, inst->in[k], depth - 1);
    return sum;
}

static Value *recompute(Grad *g, const Inst *inst) {
    Value **in = NEW_ARRAY(g->scratch, Value *, inst->nin);
    for (int k = 0; k < inst->nin; k++) in[k] = grad_use(g, inst->in[k]);
    Inst *again = build_inst(&g->b, inst->op, inst->nin, in, &inst->at, NULL);
    Value *out = again->out[0];
    out->name = inst->out[0]->name;
    if (inst->op == OP_annotate)
        for (int k = 0; k < out->type.rank; k++) out->type.dim[k] = inst->out[0]->type.dim[k];
    return out;
}

static Value *bring(Grad *g, Value *v) {
    GradFrame *f = g->frame;
    Inst *loop = f->loop;
    int operand = v->index - 1;
    bool argument = v->def == NULL;
    if (argument && v->index == 0) return f->body->args.at[0]; /* the index counts down with the iterations */
    if (argument && operand < loop_xs(loop))
        return add_arg(g, f, &f->xs, &v->type, (GradArg){.primal = loop->in[operand]});
    if (argument && operand >= loop_xs(loop) + loop_carried(loop))
        return add_arg(g, f, &f->invariant, &v->type, (GradArg){.primal = loop->in[operand]});
    if (!argument && operand_bytes(g, v->def, RECOMPUTE_DEPTH) < value_bytes(v)) return recompute(g, v->def);
    return add_arg(g, f, &f->xs, &v->type, (GradArg){.primal = stack_residual(g, loop, v)});
}

Value *grad_use(Grad *g, Value *primal) {
    if (g->frame == NULL) return primal;
    Value *here = grad_slot(g, primal)->here;
    if (here == NULL) {
        here = bring(g, primal);
        if (here->name == NULL) here->name = primal->name;
        grad_slot(g, primal)->here = here;
    }
    return here;
}

/* ---- the backward loop --------------------------------------------------------------------------------------------
 */

static Value *cotangent(Grad *g, Value *v) {
    return grad_slot(g, v)->cotangent;
}

/* Whether the backward loop carries the cotangent of carried value k: it comes from outside or from an earlier trip. */
static bool carries(Grad *g, const Inst *loop, int k) {
    return cotangent(g, loop->out[k]) != NULL || grad_slot(g, body_arg(loop, loop_xs(loop) + k))->reached;
}

/* What comes into the body: cotangents of carried values, sums for invariants, slices of the cotangents of ys. */
static void add_inputs(Grad *g, GradFrame *f) {
    Inst *loop = f->loop;
    int nc = loop_carried(loop);
    for (int k = 0; k < nc; k++) {
        if (!carries(g, loop, k)) continue;
        Value *first = cotangent(g, loop->out[k]);
        if (first == NULL) first = grad_zeros(g, &loop->out[k]->type);
        add_arg(g, f, &f->carried, &first->type, (GradArg){.operand = first});
    }
    f->nflow = f->carried.n;
    for (int k = loop_xs(loop) + nc; k < loop->nin; k++) {
        const Type *t = &loop->in[k]->type;
        if (grad_slot(g, body_arg(loop, k))->reached)
            add_arg(g, f, &f->carried, t, (GradArg){.operand = grad_zeros(g, t)});
    }
    for (int k = nc; k < loop->nout; k++) {
        Value *stack = cotangent(g, loop->out[k]);
        if (stack != NULL) add_arg(g, f, &f->xs, &body_result(loop, k)->type, (GradArg){.operand = stack});
    }
}

/* Inside the body: the cotangents of the forward body's results. */
static void seed_results(Grad *g, GradFrame *f) {
    Inst *loop = f->loop;
    int carried = 0, xs = 0;
    for (int k = 0; k < loop->nout; k++) {
        if (k < loop_carried(loop) ? !carries(g, loop, k) : cotangent(g, loop->out[k]) == NULL) continue;
        Value *arg = k < loop_carried(loop) ? f->carried.at[carried++].arg : f->xs.at[xs++].arg;
        grad_into(g, body_result(loop, k), arg);
    }
}

static void push_result(Grad *g, GradFrame *f, Value *v) {
    vec_push(g->b.m->arena, f->body->results, v);
}

/* What goes out: cotangents of the forward body's arguments; `of` says which operand each ys is for. */
static void add_outputs(Grad *g, GradFrame *f, int *of) {
    Inst *loop = f->loop;
    int nx = loop_xs(loop), nc = loop_carried(loop), ny = 0, sum = f->nflow;
    for (int k = 0; k < nc; k++) {
        if (!carries(g, loop, k)) continue;
        Value *d = cotangent(g, body_arg(loop, nx + k));
        push_result(g, f, d != NULL ? d : grad_zeros(g, &loop->out[k]->type));
    }
    for (int k = nx + nc; k < loop->nin; k++) {
        if (!grad_slot(g, body_arg(loop, k))->reached) continue;
        Value *d = cotangent(g, body_arg(loop, k)), *before = f->carried.at[sum++].arg;
        push_result(g, f, d == NULL ? before : build2(&g->b, OP_add, before, d, NULL));
    }
    for (int k = 0; k < nx; k++) {
        Value *d = cotangent(g, body_arg(loop, k));
        if (d == NULL) continue;
        push_result(g, f, d);
        of[ny++] = k;
    }
}

/* Arguments were made in the order of need; a loop has xs, carried, invariant. */
static int order_args(GradFrame *f, Value **operands, Grad *g) {
    int n = 0;
    const GradArgs *lists[] = {&f->xs, &f->carried, &f->invariant};
    for (int l = 0; l < 3; l++)
        for (int k = 0; k < lists[l]->n; k++) {
            GradArg a = lists[l]->at[k];
            operands[n++] = a.operand != NULL ? a.operand : grad_use(g, a.primal);
            a.arg->index = n;
            f->body->args.at[n] = a.arg;
        }
    return n;
}

/* Contributions of the backward loop's results to the forward loop's operands. */
static void hand_on(Grad *g, const GradFrame *f, const Inst *back, const int *of) {
    const Inst *loop = f->loop;
    int nx = loop_xs(loop), nc = loop_carried(loop), n = 0;
    for (int k = 0; k < nc; k++)
        if (carries(g, loop, k)) grad_into(g, loop->in[nx + k], back->out[n++]);
    for (int k = nx + nc; k < loop->nin; k++)
        if (grad_slot(g, body_arg(loop, k))->reached) grad_into(g, loop->in[k], back->out[n++]);
    for (int k = 0; n < back->nout; k++) grad_into(g, loop->in[of[k]], back->out[n++]);
}

void grad_loop(Grad *g, Inst *loop, Value *ct) {
    (void)ct; /* of the first result only */
    Module *m = g->b.m;
    for (int k = 0; k < loop->nout; k++)
        if (cotangent(g, loop->out[k]) != NULL) grad_slot(g, body_result(loop, k))->reached = true;
    reach_body(g, loop);
    GradFrame frame = {.outer = g->frame, .loop = loop, .body = block_new(m, NULL)};
    Type index = {.dtype = DT_i32};
    block_arg(m, frame.body, &index, loop->body->args.at[0]->name);
    add_inputs(g, &frame);

    Builder outside = g->b;
    g->b = (Builder){.m = m, .block = frame.body, .loc = loop->loc};
    g->frame = &frame;
    seed_results(g, &frame);
    grad_backward(g, loop->body->last);
    g->b.loc = loop->loc;
    int *of = NEW_ARRAY(g->scratch, int, loop->nin + 1);
    add_outputs(g, &frame, of);
    g->frame = frame.outer;
    g->b = outside;

    Value **operands = NEW_ARRAY(g->scratch, Value *, frame.body->args.n);
    int n = order_args(&frame, operands, g);
    Attrs at = {.label = loop->at.label, .trip = loop->at.trip, .xs = frame.xs.n, .carry = frame.carried.n};
    at.reverse = !loop->at.reverse;
    Inst *back = build_inst(&g->b, OP_loop, n, operands, &at, frame.body);
    hand_on(g, &frame, back, of);
}
