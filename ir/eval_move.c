/* eval_move.c: ops that move elements: by index, by position, by name.
 *
 * Each is a walk in which one tensor's axis is bound to another label, or is left out and addressed by an index. On a
 * split axis a device sees its own range of indices: a gather reads 0 and a scatter writes nothing outside it. */
#include <string.h>

#include "eval.h"
#include "support/intern.h"

static void copy_operand(const Call *c) {
    int64_t n = type_elements(&c->out[0]->local);
    eval_spend(c->e, (double)n);
    memcpy(c->out[0]->at[c->device], c->in[0]->at[c->device], sizeof(double) * (size_t)n);
}

void eval_stop_gradient(const Call *c) {
    copy_operand(c);
}
void eval_annotate(const Call *c) {
    copy_operand(c);
}
void eval_grad(const Call *c) {
    eval_fail(c->e, "a gradient is not evaluated before autodiff has expanded it");
}

/* ---- outside of the function --------------------------------------------------------------------------------------
 */

void eval_runtime(const Call *c) {
    bool step = c->inst->at.kind == intern("step");
    c->out[0]->at[c->device][0] = eval_round(c->e, DT_i32, (double)(step ? c->e->opt->step : c->e->opt->steps));
}

void eval_read(const Call *c) {
    const Var *v = c->inst->at.var;
    shard_split(c->e, &c->inst->out[0]->type, c->e->state->var[v->id].at, c->device, c->out[0]->at[c->device]);
}

/* Takes effect when the call ends. All devices have run what comes before, so the first can join their blocks. */
void eval_write(const Call *c) {
    if (c->device != 0) return;
    Tensor *t = &c->e->written[c->inst->at.var->id];
    *t = (Tensor){type_unsharded(&c->inst->in[0]->type), shard_join(c->e, &c->inst->in[0]->type, c->in[0]->at)};
}

/* ---- by position --------------------------------------------------------------------------------------------------
 */

/* Copies along a walk, out[0] then in[0]. */
static void copy_walk(const Call *c, Walk *w, int64_t out, int64_t in) {
    walk_start(w);
    do {
        double *to = c->out[0]->at[c->device] + out + w->at[0];
        const double *from = c->in[0]->at[c->device] + in + w->at[1];
        for (int64_t i = 0; i < w->row; i++) to[i * w->step[0]] = from[i * w->step[1]];
    } while (walk_next(w));
}

void eval_slice(const Call *c) {
    const Attrs *at = &c->inst->at;
    const Type *in = &c->in[0]->local, *out = &c->out[0]->local;
    int axis = type_find(in, at->label);
    Walk w = walk_new(c->e, 2);
    walk_space(&w, out);
    walk_tensor(&w, 0, out);
    walk_tensor_as(&w, 1, in, axis, at->to);
    copy_walk(c, &w, 0, at->start * axis_stride(in, axis));
}

void eval_pad(const Call *c) {
    const Attrs *at = &c->inst->at;
    const Type *in = &c->in[0]->local, *out = &c->out[0]->local;
    int axis = type_find(out, at->label);
    Walk w = walk_new(c->e, 2);
    walk_space(&w, in);
    walk_tensor_as(&w, 0, out, axis, at->to);
    walk_tensor(&w, 1, in);
    copy_walk(c, &w, at->start * axis_stride(out, axis), 0);
}

/* ---- by name ------------------------------------------------------------------------------------------------------
 */

static bool created(const Inst *inst, Label label) {
    for (int i = 0; i < inst->at.dims.n; i++)
        if (inst->at.dims.at[i].label == label) return true;
    return false;
}

/* The operand's axes in the order in which they lie in the result: the merged ones where the first new one stands. */
static Type relabel_order(const Call *c) {
    const Type *in = &c->in[0]->local, *out = &c->out[0]->local;
    Type t = {.dtype = in->dtype};
    bool placed = false;
    for (int i = 0; i < out->rank; i++) {
        if (!created(c->inst, out->dim[i].label)) {
            t.dim[t.rank++] = in->dim[type_find(in, out->dim[i].label)];
            continue;
        }
        for (int k = 0; k < c->inst->at.labels.n && !placed; k++)
            t.dim[t.rank++] = in->dim[type_find(in, c->inst->at.labels.at[k])];
        placed = true;
    }
    return t;
}

void eval_relabel(const Call *c) {
    Type order = relabel_order(c);
    if (type_elements(&order) != type_elements(&c->out[0]->local)) eval_fail(c->e, "blocks of two sizes");
    Walk w = walk_new(c->e, 2);
    walk_space(&w, &order);
    walk_tensor(&w, 0, &order);
    walk_tensor(&w, 1, &c->in[0]->local);
    copy_walk(c, &w, 0, 0);
}

/* ---- by index -----------------------------------------------------------------------------------------------------
 */

/* An indexed axis: the range of it that the device holds. */
typedef struct Range {
    int64_t first, n, stride;
} Range;

static Range range_of(const Call *c, const Value *v, const Type *local) {
    int axis = type_find(local, c->inst->at.label);
    return (Range){block_start(c->e, c->device, &v->type.dim[axis]), local->dim[axis].size, axis_stride(local, axis)};
}

/* Elements from the tensor's start, or -1 when the index is not here. */
static int64_t place_of(const Range *r, double index) {
    double at = index - (double)r->first;
    return at >= 0 && at < (double)r->n ? (int64_t)at * r->stride : -1;
}

void eval_gather(const Call *c) {
    const Type *x = &c->in[0]->local, *out = &c->out[0]->local;
    Range r = range_of(c, c->inst->in[0], x);
    Walk w = walk_new(c->e, 3);
    walk_space(&w, out);
    walk_tensor(&w, 0, out);
    walk_tensor_as(&w, 1, x, type_find(x, c->inst->at.label), NULL);
    walk_tensor(&w, 2, &c->in[1]->local);
    walk_start(&w);
    do {
        for (int64_t i = 0; i < w.row; i++) {
            int64_t at = place_of(&r, c->in[1]->at[c->device][w.at[2] + i * w.step[2]]);
            c->out[0]->at[c->device][w.at[0] + i * w.step[0]] =
                at < 0 ? 0 : c->in[0]->at[c->device][w.at[1] + i * w.step[1] + at];
        }
    } while (walk_next(&w));
}

void eval_take(const Call *c) {
    eval_gather(c);
}

/* The walk of scatter and update: over the indices, then over the rest of the values. Tensors: result, index, values.
 */
static Walk indexed_walk(const Call *c, const Type *values) {
    const Type *out = &c->out[0]->local;
    Walk w = walk_new(c->e, 3);
    walk_space(&w, &c->in[1]->local);
    walk_space(&w, values);
    walk_tensor_as(&w, 0, out, type_find(out, c->inst->at.label), NULL);
    walk_tensor(&w, 1, &c->in[1]->local);
    walk_tensor(&w, 2, values);
    walk_start(&w);
    return w;
}

void eval_scatter(const Call *c) {
    DType t = c->out[0]->local.dtype;
    Range r = range_of(c, c->inst->out[0], &c->out[0]->local);
    Walk w = indexed_walk(c, &c->in[0]->local);
    do {
        for (int64_t i = 0; i < w.row; i++) {
            int64_t at = place_of(&r, c->in[1]->at[c->device][w.at[1] + i * w.step[1]]);
            double *y = &c->out[0]->at[c->device][w.at[0] + i * w.step[0] + at];
            if (at >= 0) *y = eval_round(c->e, t, *y + c->in[0]->at[c->device][w.at[2] + i * w.step[2]]);
        }
    } while (walk_next(&w));
}

void eval_update(const Call *c) {
    copy_operand(c);
    Range r = range_of(c, c->inst->out[0], &c->out[0]->local);
    Walk w = indexed_walk(c, &c->in[2]->local);
    do {
        for (int64_t i = 0; i < w.row; i++) {
            int64_t at = place_of(&r, c->in[1]->at[c->device][w.at[1] + i * w.step[1]]);
            if (at >= 0)
                c->out[0]->at[c->device][w.at[0] + i * w.step[0] + at] =
                    c->in[2]->at[c->device][w.at[2] + i * w.step[2]];
        }
    } while (walk_next(&w));
}
