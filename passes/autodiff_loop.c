/* autodiff_loop.c: a loop's gradient is a loop that runs the other way.
 *
 *   (carried, ys) = loop(xs, carried, invariant)
 *   (d_carried, d_invariant, d_xs) = loop reverse(residuals, xs, d_ys, d_carried, d_invariant = 0, invariant)
 *
 * Its body is the reverse walk over the forward body. While the walk runs, a forward value that it asks for is a
 * placeholder; when all demands are known, autodiff_save.c decides which values are kept for it and which are computed
 * again. Cotangents of carried values are carried, those of invariants are summed up in a carried value, and those of
 * xs are ys, each slice written once. A carried value whose cotangent nothing reaches (a metric) has no part in it.
 *
 * Loops nest: what an inner loop keeps is a value of the outer body like any other, kept again.
 * Before: cotangents of the loop's results are in their slots. After: contributions added to the loop's operands. The
 * forward loop may have new results at its end; its old ones are unchanged. */
#include "grad.h"
#include "grad_loop.h"
#include "support/diag.h"

/* ---- marks through loops: carried values make them a fixed point ---- */

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

/* ---- the backward loop ---- */

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
        grad_arg(g, f, &f->carried, &first->type, (GradArg){.operand = first});
    }
    f->nflow = f->carried.n;
    for (int k = loop_xs(loop) + nc; k < loop->nin; k++) {
        const Type *t = &loop->in[k]->type;
        if (grad_slot(g, body_arg(loop, k))->reached)
            grad_arg(g, f, &f->carried, t, (GradArg){.operand = grad_zeros(g, t)});
    }
    for (int k = nc; k < loop->nout; k++) {
        Value *stack = cotangent(g, loop->out[k]);
        if (stack != NULL) grad_arg(g, f, &f->xs, &body_result(loop, k)->type, (GradArg){.operand = stack});
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
    grad_save(g);
    g->frame = frame.outer;
    g->b = outside;

    Value **operands = NEW_ARRAY(g->scratch, Value *, frame.body->args.n);
    int n = order_args(&frame, operands, g);
    Attrs at = {.label = loop->at.label, .trip = loop->at.trip, .xs = frame.xs.n, .carry = frame.carried.n};
    at.reverse = !loop->at.reverse;
    const char *error = NULL;
    Inst *back = inst_new(m, OP_loop, loop->loc, n, operands, &at, frame.body, &error);
    if (back == NULL) {
        /* Only limits can be in the way: too many operands. */
        diag_error(loop->loc, "the gradient of this loop cannot be a loop: %s", error);
        return;
    }
    inst_insert(g->b.block, g->b.before, back);
    hand_on(g, &frame, back, of);
}
