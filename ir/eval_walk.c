/* eval_walk.c: the one loop nest of the interpreter: an odometer over labelled axes.
 *
 * Every op is a walk over some index space with its tensors bound to it by label; that is what makes each op's
 * evaluation a few lines. The innermost axis is left to the caller, as a row, so that the odometer's cost is spread
 * over it. Before: the axes of one label have one size in all tensors, which holds when an instruction fits its
 * sharding rule; otherwise the walk fails. */
#include "eval.h"

Walk walk_new(Eval *e, int tensors) {
    Walk w = {.e = e, .n = tensors};
    w.stride = eval_alloc(e, sizeof *w.stride * (size_t)tensors);
    w.at = eval_alloc(e, sizeof *w.at * (size_t)tensors);
    w.step = eval_alloc(e, sizeof *w.step * (size_t)tensors);
    return w;
}

static int walk_axis(const Walk *w, Label label) {
    for (int i = 0; i < w->rank; i++)
        if (w->label[i] == label) return i;
    return -1;
}

void walk_space(Walk *w, const Type *local) {
    for (int i = 0; i < local->rank; i++) {
        if (walk_axis(w, local->dim[i].label) >= 0) continue;
        if (w->rank == MAX_FACTORS) eval_fail(w->e, "more than %d labels", MAX_FACTORS);
        w->label[w->rank] = local->dim[i].label;
        w->size[w->rank++] = local->dim[i].size;
    }
}

void walk_tensor_as(Walk *w, int k, const Type *local, int axis, Label as) {
    int64_t stride = 1;
    for (int i = local->rank - 1; i >= 0; i--) {
        Label label = i == axis ? as : local->dim[i].label;
        int to = label == NULL ? -1 : walk_axis(w, label);
        if (to >= 0) w->stride[k][to] = stride;
        if (to >= 0 && i != axis && w->size[to] != local->dim[i].size)
            eval_fail(w->e, "blocks of label %s have sizes %lld and %lld", label, (long long)w->size[to],
                      (long long)local->dim[i].size);
        stride *= local->dim[i].size;
    }
}

void walk_tensor(Walk *w, int k, const Type *local) {
    walk_tensor_as(w, k, local, -1, NULL);
}

int64_t axis_stride(const Type *local, int axis) {
    int64_t stride = 1;
    for (int i = axis + 1; i < local->rank; i++) stride *= local->dim[i].size;
    return stride;
}

void walk_start(Walk *w) {
    double all = 1;
    for (int i = 0; i < w->rank; i++) all *= (double)w->size[i];
    eval_spend(w->e, all * w->n);
    int last = w->rank - 1;
    w->row = last < 0 ? 1 : w->size[last];
    for (int k = 0; k < w->n; k++) w->step[k] = last < 0 ? 0 : w->stride[k][last];
}

bool walk_next(Walk *w) {
    for (int i = w->rank - 2; i >= 0; i--) {
        if (++w->index[i] < w->size[i]) {
            for (int k = 0; k < w->n; k++) w->at[k] += w->stride[k][i];
            return true;
        }
        w->index[i] = 0;
        for (int k = 0; k < w->n; k++) w->at[k] -= w->stride[k][i] * (w->size[i] - 1);
    }
    return false;
}
