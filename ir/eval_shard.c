/* eval_shard.c: whole tensors and their blocks, and what moves data between devices.
 *
 * A collective is written as what one device ends up with, read from its peers' operands. It goes by its attributes as
 * a runtime would, so attributes that disagree with the types show as wrong values. `reshard` goes by the types alone:
 * the whole is put together and cut up again. */
#include <math.h>
#include <string.h>

#include "eval.h"
#include "support/intern.h"

int64_t block_start(const Eval *e, int64_t device, const Dim *d) {
    return e->spread ? mesh_index(&e->m->mesh, device, &d->axes) * dim_local(&e->m->mesh, d) : 0;
}

/* ---- whole tensors ------------------------------------------------------------------------------------------------
 */

/* A walk over a device's block: tensor 0 is the block, 1 the whole. */
static Walk block_walk_new(Eval *e, const Type *t, int64_t device, int64_t *start) {
    Type local = local_type(e, t), whole = type_unsharded(t);
    Walk w = walk_new(e, 2);
    walk_space(&w, &local);
    walk_tensor(&w, 0, &local);
    *start = 0;
    for (int i = 0; i < t->rank; i++) {
        w.stride[1][i] = axis_stride(&whole, i);
        *start += block_start(e, device, &t->dim[i]) * w.stride[1][i];
    }
    walk_start(&w);
    return w;
}

static bool same_number(double a, double b) {
    return (a == b && signbit(a) == signbit(b)) || (isnan(a) && isnan(b));
}

/* Copies the block of one device into the whole, where another may have been. */
static void join_block(Eval *e, const Type *t, int64_t device, const double *block, double *whole, bool *filled) {
    int64_t start;
    Walk w = block_walk_new(e, t, device, &start);
    do {
        for (int64_t i = 0; i < w.row; i++) {
            int64_t to = start + w.at[1] + i * w.step[1];
            double x = block[w.at[0] + i * w.step[0]];
            if (filled[to] && !same_number(x, whole[to]))
                eval_fail(e, "copies of %s differ: element %lld is %.17g on device %lld and %.17g on another",
                          type_print(t, &e->m->mesh, e->caller), (long long)to, x, (long long)device, whole[to]);
            whole[to] = x;
            filled[to] = true;
        }
    } while (walk_next(&w));
}

static double fold(PartialKind kind, double a, double b) {
    if (kind == PARTIAL_max) return b > a ? b : a;
    if (kind == PARTIAL_min) return b < a ? b : a;
    return a + b;
}

double *shard_join(Eval *e, const Type *t, double *const *block) {
    const Mesh *mesh = &e->m->mesh;
    int64_t n = type_elements(t), terms = e->spread ? mesh_size(mesh, &t->partial) : 1;
    double *sum = NULL;
    for (int64_t r = 0; r < terms; r++) {
        double *whole = eval_cells(e, n);
        bool *filled = eval_alloc(e, (size_t)n);
        for (int64_t d = 0; d < e->devices; d++)
            if (!e->spread || mesh_index(mesh, d, &t->partial) == r) join_block(e, t, d, block[d], whole, filled);
        for (int64_t i = 0; sum != NULL && i < n; i++)
            sum[i] = eval_round(e, t->dtype, fold(t->partial_kind, sum[i], whole[i]));
        if (sum == NULL) sum = whole;
    }
    return sum;
}

void shard_split(Eval *e, const Type *t, const double *whole, int64_t device, double *block) {
    bool term = e->spread && t->partial_kind == PARTIAL_sum && mesh_index(&e->m->mesh, device, &t->partial) != 0;
    int64_t start;
    Walk w = block_walk_new(e, t, device, &start);
    do {
        for (int64_t i = 0; i < w.row; i++)
            block[w.at[0] + i * w.step[0]] = term ? 0 : whole[start + w.at[1] + i * w.step[1]];
    } while (walk_next(&w));
}

/* On the first device's turn, for all. */
void eval_reshard(const Call *c) {
    if (c->device != 0) return;
    double *whole = shard_join(c->e, &c->inst->in[0]->type, c->in[0]->at);
    for (int64_t d = 0; d < c->e->devices; d++) shard_split(c->e, &c->inst->out[0]->type, whole, d, c->out[0]->at[d]);
}

/* ---- collectives --------------------------------------------------------------------------------------------------
 */

static int64_t axis_weight(const Mesh *m, int axis) {
    int64_t weight = 1;
    for (int i = axis + 1; i < m->n; i++) weight *= m->size[i];
    return weight;
}

int64_t mesh_peer(const Mesh *m, int64_t device, const AxisList *axes, int64_t rank) {
    for (int i = axes->n - 1; i >= 0; i--) {
        int axis = axes->at[i];
        device += (rank % m->size[axis] - mesh_coord(m, device, axis)) * axis_weight(m, axis);
        rank /= m->size[axis];
    }
    return device;
}

/* The devices that a collective joins, as one of them sees it. */
typedef struct Group {
    int64_t size, rank; /* rank: its own */
    const AxisList *axes;
} Group;

static Group group_of(const Call *c) {
    const Mesh *m = &c->e->m->mesh;
    const AxisList *axes = &c->inst->at.axes;
    return (Group){mesh_size(m, axes), mesh_index(m, c->device, axes), axes};
}

static const double *peer_block(const Call *c, const Group *g, int64_t rank) {
    return c->in[0]->at[mesh_peer(&c->e->m->mesh, c->device, g->axes, rank)];
}

/* A tensor as [outer, n, inner] around an axis. */
typedef struct Around {
    int64_t outer, n, inner;
} Around;

static Around around(const Call *c, const Type *t, Label label) {
    int axis = label == NULL ? -1 : type_find(t, label);
    if (axis < 0) eval_fail(c->e, "the axis to join or split is not there");
    Around a = {1, t->dim[axis].size, axis_stride(t, axis)};
    a.outer = type_elements(t) / (a.n * a.inner);
    eval_spend(c->e, (double)type_elements(t));
    return a;
}

/* to[outer, to_at + 0..n, inner] = from[outer, from_at + 0..n, inner] */
static void copy_part(const Around *to, double *dst, int64_t to_at, const Around *from, const double *src,
                      int64_t from_at, int64_t n) {
    for (int64_t o = 0; o < to->outer; o++)
        memcpy(dst + (o * to->n + to_at) * to->inner, src + (o * from->n + from_at) * from->inner,
               sizeof(double) * (size_t)(n * to->inner));
}

static void want(const Call *c, bool holds) {
    if (!holds) eval_fail(c->e, "the attributes do not lead from the operand's type to the result's");
}

void eval_all_gather(const Call *c) {
    Group g = group_of(c);
    Around in = around(c, &c->in[0]->local, c->inst->at.label), out = around(c, &c->out[0]->local, c->inst->at.label);
    want(c, out.n == in.n * g.size && out.outer == in.outer && out.inner == in.inner);
    for (int64_t r = 0; r < g.size; r++)
        copy_part(&out, c->out[0]->at[c->device], r * in.n, &in, peer_block(c, &g, r), 0, in.n);
}

/* The group's folded blocks, in the current scope. */
static double *folded(const Call *c, const Group *g) {
    const Type *in = &c->in[0]->local;
    int64_t n = type_elements(in);
    PartialKind kind = c->inst->at.kind == intern("max")   ? PARTIAL_max
                       : c->inst->at.kind == intern("min") ? PARTIAL_min
                                                           : PARTIAL_sum;
    double *sum = eval_cells(c->e, n);
    eval_spend(c->e, (double)n * (double)g->size);
    memcpy(sum, peer_block(c, g, 0), sizeof(double) * (size_t)n);
    for (int64_t r = 1; r < g->size; r++) {
        const double *x = peer_block(c, g, r);
        for (int64_t i = 0; i < n; i++) sum[i] = eval_round(c->e, in->dtype, fold(kind, sum[i], x[i]));
    }
    return sum;
}

void eval_all_reduce(const Call *c) {
    Group g = group_of(c);
    int64_t n = type_elements(&c->out[0]->local);
    want(c, n == type_elements(&c->in[0]->local));
    memcpy(c->out[0]->at[c->device], folded(c, &g), sizeof(double) * (size_t)n);
}

/* The device's own part of `to`. */
static void keep_part(const Call *c, const double *from) {
    Group g = group_of(c);
    Around in = around(c, &c->in[0]->local, c->inst->at.to), out = around(c, &c->out[0]->local, c->inst->at.to);
    want(c, in.n == out.n * g.size && in.outer == out.outer && in.inner == out.inner);
    copy_part(&out, c->out[0]->at[c->device], 0, &in, from, g.rank * out.n, out.n);
}

void eval_reduce_scatter(const Call *c) {
    Group g = group_of(c);
    keep_part(c, folded(c, &g));
}

void eval_shard_slice(const Call *c) {
    keep_part(c, c->in[0]->at[c->device]);
}

/* From each peer comes this device's part of `to`, and the parts are joined along `label`. */
void eval_all_to_all(const Call *c) {
    Group g = group_of(c);
    const Type *in = &c->in[0]->local, *out = &c->out[0]->local;
    int join = type_find(out, c->inst->at.label), split = type_find(in, c->inst->at.to);
    want(c, join >= 0 && split >= 0 && in->rank == out->rank && join != split);
    want(c, out->dim[join].size == in->dim[join].size * g.size && in->dim[split].size == out->dim[split].size * g.size);
    Type part = *in; /* what travels between two devices */
    part.dim[split].size = out->dim[split].size;
    for (int64_t r = 0; r < g.size; r++) {
        const double *from = peer_block(c, &g, r) + g.rank * part.dim[split].size * axis_stride(in, split);
        double *to = c->out[0]->at[c->device] + r * part.dim[join].size * axis_stride(out, join);
        Walk w = walk_new(c->e, 2);
        walk_space(&w, &part);
        walk_tensor_as(&w, 0, out, join, out->dim[join].label);
        walk_tensor_as(&w, 1, in, split, in->dim[split].label);
        walk_start(&w);
        do {
            for (int64_t i = 0; i < w.row; i++) to[w.at[0] + i * w.step[0]] = from[w.at[1] + i * w.step[1]];
        } while (walk_next(&w));
    }
}

/* The block that this device shall have lies where the operand's sharding puts the same position; where that leaves a
 * choice, the device with this one's own coordinates. */
void eval_permute(const Call *c) {
    const Mesh *m = &c->e->m->mesh;
    const Type *in = &c->inst->in[0]->type, *out = &c->inst->out[0]->type;
    int64_t source = c->device, n = type_elements(&c->out[0]->local);
    want(c, in->rank == out->rank && axes_equal(&in->partial, &out->partial));
    for (int i = 0; i < in->rank; i++) {
        want(c, c->in[0]->local.dim[i].size == c->out[0]->local.dim[i].size);
        source = mesh_peer(m, source, &in->dim[i].axes, mesh_index(m, c->device, &out->dim[i].axes));
    }
    eval_spend(c->e, (double)n);
    memcpy(c->out[0]->at[c->device], c->in[0]->at[source], sizeof(double) * (size_t)n);
}
