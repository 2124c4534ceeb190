/* nest_ops.c: how each op enters a nest: the axes it loops over, and its nodes.
 *
 * An elementwise op is its `expr` over its operands' nodes and needs no code here. The ops that look at indices have a
 * row in one of two small tables. An op that only picks elements (slice, shard_slice, gather, pad, broadcast) becomes a
 * load with other strides, so inside a region it costs nothing. An op that places elements (scatter, update) stores
 * with an index into a result filled beforehand. */
#include <string.h>

#include "ctext.h"
#include "nest.h"

/* ---- domains ------------------------------------------------------------------------------------------------------
 */

static void want_type(const NestBuild *b, DimVec *dims, const Type *t) {
    for (int i = 0; i < t->rank; i++) {
        bool known = false;
        for (int k = 0; k < dims->n; k++) known |= dims->at[k].label == t->dim[i].label;
        if (!known) vec_push(b->arena, *dims, t->dim[i]);
    }
}

static void domain_operand(const NestBuild *b, const Inst *i, DimVec *dims) {
    want_type(b, dims, &i->in[0]->type);
}

static void domain_scatter(const NestBuild *b, const Inst *i, DimVec *dims) {
    want_type(b, dims, &i->in[1]->type);
    want_type(b, dims, &i->in[0]->type);
}

static void domain_update(const NestBuild *b, const Inst *i, DimVec *dims) {
    want_type(b, dims, &i->in[1]->type);
    want_type(b, dims, &i->in[2]->type);
}

static bool created(const Inst *i, Label label) {
    for (int k = 0; k < i->at.dims.n; k++)
        if (i->at.dims.at[k].label == label) return true;
    return false;
}

/* The operand's axes in the order in which they lie in the result. */
static void domain_relabel(const NestBuild *b, const Inst *i, DimVec *dims) {
    const Type *in = &i->in[0]->type, *out = &i->out[0]->type;
    bool placed = false;
    for (int k = 0; k < out->rank; k++) {
        if (!created(i, out->dim[k].label)) {
            vec_push(b->arena, *dims, out->dim[k]);
            continue;
        }
        for (int l = 0; l < i->at.labels.n && !placed; l++)
            vec_push(b->arena, *dims, in->dim[type_find(in, i->at.labels.at[l])]);
        placed = true;
    }
}

/* The operand with the most elements: what it is contiguous along should be the innermost loop. */
static const Type *largest_operand(const NestBuild *b, const Inst *i) {
    const Type *most = &i->in[0]->type;
    for (int k = 1; k < i->nin; k++)
        if (type_local_elements(b->n->mesh, &i->in[k]->type) > type_local_elements(b->n->mesh, most))
            most = &i->in[k]->type;
    return most;
}

/* Contracted axes innermost makes a dot product; but when the largest operand is contiguous along the result's last
 * axis (a vector times the rows of a matrix), that axis stays innermost and the sum goes through memory. */
static void domain_einsum(const NestBuild *b, const Inst *i, DimVec *dims) {
    const Type *out = &i->out[0]->type, *most = largest_operand(b, i);
    const Dim *last = out->rank > 0 ? &out->dim[out->rank - 1] : NULL;
    bool row = last != NULL && most->rank > 0 && most->dim[most->rank - 1].label == last->label;
    want_type(b, dims, out);
    if (row) dims->n--;
    for (int k = 0; k < i->nin; k++)
        for (int d = 0; d < i->in[k]->type.rank; d++) {
            Type one = {.rank = 1, .dim = {i->in[k]->type.dim[d]}};
            if (!row || one.dim[0].label != last->label) want_type(b, dims, &one);
        }
    if (row) vec_push(b->arena, *dims, *last);
}

static void (*const domain[OP_COUNT])(const NestBuild *, const Inst *, DimVec *) = {
    [OP_reduce] = domain_operand,  [OP_scatter] = domain_scatter, [OP_update] = domain_update,
    [OP_relabel] = domain_relabel, [OP_einsum] = domain_einsum,
};

void op_domain(const NestBuild *b, const Inst *inst, DimVec *dims) {
    if (domain[inst->op] != NULL)
        domain[inst->op](b, inst, dims);
    else
        want_type(b, dims, &inst->out[0]->type);
}

/* ---- plain nodes --------------------------------------------------------------------------------------------------
 */

static Node node_new(const Inst *i, const char *text) {
    return (Node){.text = text, .dtype = i->out[0]->type.dtype, .param = -1};
}

static void define(NestBuild *b, const Inst *i, Node n) {
    nest_define(b, i->out[0], nest_add(b, n));
}

static void nodes_elem(NestBuild *b, const Inst *i) {
    Node n = node_new(i, op_info[i->op].expr);
    for (n.nin = 0; n.nin < i->nin; n.nin++) n.in[n.nin] = nest_node(b, i->in[n.nin]);
    define(b, i, n);
}

static void nodes_same(NestBuild *b, const Inst *i) {
    nest_define(b, i->out[0], nest_node(b, i->in[0]));
}

static void nodes_cast(NestBuild *b, const Inst *i) {
    DType to = i->out[0]->type.dtype;
    Node n = node_new(i, to == DT_bool ? "(a != 0)" : to == DT_i32 ? "(int32_t)a" : "(float)a");
    n.in[n.nin++] = nest_node(b, i->in[0]);
    define(b, i, n);
}

static void nodes_const(NestBuild *b, const Inst *i) {
    define(b, i, node_new(i, const_text(b->arena, i->out[0]->type.dtype, i->at.value)));
}

static void nodes_runtime(NestBuild *b, const Inst *i) {
    define(b, i, node_new(i, strcmp(i->at.kind, "step") == 0 ? "w->step" : "w->steps"));
}

/* ---- indices ------------------------------------------------------------------------------------------------------
 */

/* The global index along one axis of a type, as the linear function i. */
static Linear global_index(NestBuild *b, const Dim *d) {
    Linear l = {.dyn = offset_text(b->arena, b->n->mesh, d)};
    l.stride[nest_loop_of(b->n, d->label)] = 1;
    return l;
}

static void nodes_iota(NestBuild *b, const Inst *i) {
    Node n = node_new(i, "(int32_t)(i)");
    n.uses_i = true;
    n.i = global_index(b, &i->out[0]->type.dim[0]);
    define(b, i, n);
}

static void nodes_one_hot(NestBuild *b, const Inst *i) {
    const Type *out = &i->out[0]->type;
    Node n = node_new(i, "(a == (int32_t)(i))");
    n.in[n.nin++] = nest_node(b, i->in[0]);
    n.uses_i = true;
    n.i = global_index(b, &out->dim[type_find(out, i->at.label)]);
    define(b, i, n);
}

/* Counted by the linear index in the whole tensor, so the draw does not depend on the mesh. */
static void nodes_random(NestBuild *b, const Inst *i) {
    const Type *out = &i->out[0]->type;
    Node n = node_new(i, arena_printf(b->arena, "moe_%s(w->seed, %uu, (uint64_t)(i), (uint32_t)a, (uint32_t)b)",
                                      strcmp(i->at.kind, "normal") == 0 ? "normal" : "uniform", (unsigned)i->at.site));
    n.in[n.nin++] = nest_node(b, i->in[0]);
    n.in[n.nin++] = nest_node(b, i->in[1]);
    n.uses_i = true;
    int64_t stride = 1;
    for (int d = out->rank - 1; d >= 0; d--) {
        n.i.stride[nest_loop_of(b->n, out->dim[d].label)] = stride;
        n.i.dyn = dyn_add(b->arena, n.i.dyn, offset_text(b->arena, b->n->mesh, &out->dim[d]), stride);
        stride *= out->dim[d].size;
    }
    define(b, i, n);
}

/* A load of the operand with other strides. */
static Node load_new(NestBuild *b, const Inst *i) {
    Node n = node_new(i, "p[i]");
    n.param = nest_input(b, i->in[0]);
    n.uses_i = true;
    n.i = nest_linear(b, &i->in[0]->type);
    return n;
}

static void nodes_slice(NestBuild *b, const Inst *i) {
    const Type *in = &i->in[0]->type;
    int axis = type_find(in, i->at.label);
    int64_t stride = nest_stride(b->n->mesh, in, axis);
    Node n = load_new(b, i);
    /* The operand's own label may be another loop's (x[S: 0..4] * x): it is not this axis's. */
    int own = nest_loop_of(b->n, i->at.label);
    if (own >= 0) n.i.stride[own] = 0;
    if (i->at.to != NULL) n.i.stride[nest_loop_of(b->n, i->at.to)] = stride;
    n.i.base = i->at.start * stride;
    define(b, i, n);
}

static void nodes_shard_slice(NestBuild *b, const Inst *i) {
    const Type *in = &i->in[0]->type, *out = &i->out[0]->type;
    int axis = type_find(in, i->at.to);
    int64_t block = dim_local(b->n->mesh, &out->dim[axis]) * nest_stride(b->n->mesh, in, axis);
    Node n = load_new(b, i);
    n.i.dyn = dyn_add(b->arena, NULL, index_text(b->arena, b->n->mesh, &i->at.axes), block);
    define(b, i, n);
}

/* A load where the operand is, else 0: so a concatenation (a sum of pads) is one nest that writes each element once. */
static void nodes_pad(NestBuild *b, const Inst *i) {
    const Type *in = &i->in[0]->type;
    int axis = i->at.to == NULL ? -1 : type_find(in, i->at.to), loop = nest_loop_of(b->n, i->at.label);
    int64_t size = axis < 0 ? 1 : dim_local(b->n->mesh, &in->dim[axis]);
    Node n = load_new(b, i);
    n.text = arena_printf(b->arena, "((uint64_t)(j) < %lldu ? %s : 0)", (long long)size, n.text);
    n.uses_j = true;
    n.j.stride[loop] = 1;
    n.j.base = -i->at.start;
    int own = axis < 0 ? -1 : nest_loop_of(b->n, i->at.to);
    if (own >= 0) n.i.stride[own] = 0;
    if (axis >= 0) {
        int64_t stride = nest_stride(b->n->mesh, in, axis);
        n.i.stride[loop] = stride;
        n.i.base = -i->at.start * stride;
    }
    define(b, i, n);
}

/* C text of an index relative to the device's part of an axis. */
static const char *relative(NestBuild *b, const Dim *d, const char *index) {
    const char *offset = offset_text(b->arena, b->n->mesh, d);
    return offset == NULL ? index : arena_printf(b->arena, "(%s - (int32_t)(%s))", index, offset);
}

static void nodes_gather(NestBuild *b, const Inst *i) {
    const Type *in = &i->in[0]->type;
    int axis = type_find(in, i->at.label);
    Node n = load_new(b, i);
    int own = nest_loop_of(b->n, i->at.label);
    if (own >= 0) n.i.stride[own] = 0;
    const char *at = relative(b, &in->dim[axis], "a");
    n.text = arena_printf(b->arena, "((uint32_t)%s < %lldu ? p[i + (int64_t)%s * %lld] : 0)", at,
                          (long long)dim_local(b->n->mesh, &in->dim[axis]), at,
                          (long long)nest_stride(b->n->mesh, in, axis));
    n.in[n.nin++] = nest_node(b, i->in[1]);
    define(b, i, n);
}

/* ---- placing ------------------------------------------------------------------------------------------------------
 */

static void fill_result(NestBuild *b, const Value *result, const char *text, const Value *copy) {
    vec_push(b->arena, b->n->fill, ((Fill){result, text, copy}));
}

static void store_indexed(NestBuild *b, const Inst *i, const Value *value, const char *assign) {
    const Type *out = &i->out[0]->type;
    int axis = type_find(out, i->at.label);
    const char *at = relative(b, &out->dim[axis], "b");
    Store s = {.adds = true, .value = nest_node(b, value), .index = nest_node(b, i->in[1])};
    s.param = nest_output(b, nest_result(b, i->out[0]));
    s.i = nest_linear(b, out);
    int own = nest_loop_of(b->n, i->at.label);
    if (own >= 0) s.i.stride[own] = 0;
    s.text = arena_printf(b->arena, "if ((uint32_t)%s < %lldu) p[i + (int64_t)%s * %lld] %s a", at,
                          (long long)dim_local(b->n->mesh, &out->dim[axis]), at,
                          (long long)nest_stride(b->n->mesh, out, axis), assign);
    nest_store(b, s);
}

static void nodes_scatter(NestBuild *b, const Inst *i) {
    fill_result(b, nest_result(b, i->out[0]), "0", NULL);
    store_indexed(b, i, i->in[0], "+=");
}

static void nodes_update(NestBuild *b, const Inst *i) {
    fill_result(b, nest_result(b, i->out[0]), NULL, i->in[0]);
    store_indexed(b, i, i->in[2], "=");
}

/* The loops are in the result's memory order already. */
static void nodes_relabel(NestBuild *b, const Inst *i) {
    Store s = {.text = "p[i] = a", .value = nest_node(b, i->in[0]), .index = -1};
    s.param = nest_output(b, nest_result(b, i->out[0]));
    int64_t stride = 1;
    for (int l = b->n->nloop - 1; l >= 0; l--) {
        s.i.stride[l] = stride;
        stride *= b->n->loop[l].size;
    }
    nest_store(b, s);
}

/* ---- folds --------------------------------------------------------------------------------------------------------
 */

static const struct FoldText {
    const char *kind, *clause, *update, *add, *start_f32, *start_i32;
} fold_text[] = {
    {"sum", "+", "s += a", "p[i] += a", "0", "0"},
    {"max", "max", "s = a > s ? a : s", "p[i] = a > p[i] ? a : p[i]", "-3.402823466e+38f", "INT32_MIN"},
    {"min", "min", "s = a < s ? a : s", "p[i] = a < p[i] ? a : p[i]", "3.402823466e+38f", "INT32_MAX"},
    {"any", "|", "s |= a", "p[i] |= (uint8_t)a", "0", "0"},
};

static const struct FoldText *fold_find(const char *kind) {
    for (size_t k = 0; k < sizeof fold_text / sizeof *fold_text; k++)
        if (strcmp(fold_text[k].kind, kind) == 0) return &fold_text[k];
    diag_bug("no fold is called %s", kind);
}

/* A fused region may have loops that are not this fold's. */
static bool removes(const Inst *fold, Label label) {
    bool has = false;
    for (int k = 0; k < fold->nin; k++) has |= type_find(&fold->in[k]->type, label) >= 0;
    return has && type_find(&fold->out[0]->type, label) < 0;
}

/* Folds node x over the loops that type `out` lacks: over the columns in a register, over the rest in memory. */
static void fold_node(NestBuild *b, const Inst *i, int x, const char *kind) {
    const struct FoldText *f = fold_find(kind);
    const Type *out = &i->out[0]->type;
    const char *start = out->dtype == DT_f32 ? f->start_f32 : f->start_i32;
    if (b->n->folds) {
        Node n = {.text = f->update, .fold = true, .clause = f->clause, .start = start, .param = -1};
        n.dtype = out->dtype;
        n.in[n.nin++] = x;
        x = nest_add(b, n);
    }
    bool rest = false;
    for (int l = 0; l < b->n->nloop; l++) {
        bool in_register = b->n->folds && b->n->loop[l].column;
        rest |= !in_register && b->n->loop[l].size > 1 && removes(i, b->n->loop[l].label);
    }
    const Value *result = nest_result(b, i->out[0]);
    if (!rest || result == NULL) {
        nest_define(b, i->out[0], x);
        return;
    }
    fill_result(b, result, start, NULL);
    Store s = {.text = f->add, .adds = true, .value = x, .index = -1, .param = nest_output(b, result)};
    s.i = nest_linear(b, out);
    nest_store(b, s);
}

static void nodes_reduce(NestBuild *b, const Inst *i) {
    fold_node(b, i, nest_node(b, i->in[0]), i->at.kind);
}

static void nodes_einsum(NestBuild *b, const Inst *i) {
    int x = nest_node(b, i->in[0]);
    for (int k = 1; k < i->nin; k++) {
        Node n = {.text = "(a * b)", .dtype = i->out[0]->type.dtype, .nin = 2, .param = -1};
        n.in[0] = x;
        n.in[1] = nest_node(b, i->in[k]);
        x = nest_add(b, n);
    }
    bool folds = false;
    for (int l = 0; l < b->n->nloop; l++) folds |= type_find(&i->out[0]->type, b->n->loop[l].label) < 0;
    if (folds)
        fold_node(b, i, x, "sum");
    else
        nest_define(b, i->out[0], x);
}

/* Each element adds to its neighbour in the result, which the same worker has just written. */
static void nodes_cumsum(NestBuild *b, const Inst *i) {
    const Type *t = &i->out[0]->type;
    int axis = type_find(t, i->at.label), loop = nest_loop_of(b->n, i->at.label);
    int64_t back = nest_stride(b->n->mesh, t, axis) * (i->at.reverse ? 1 : -1);
    int64_t first = i->at.reverse ? b->n->loop[loop].size - 1 : 0;
    b->n->loop[loop].whole = true;
    b->n->loop[loop].down = i->at.reverse;
    const char *text = arena_printf(b->arena, "(j == %lld ? 0 : p[i])", (long long)first);
    Node before = {.text = text, .dtype = t->dtype, .uses_i = true, .uses_j = true};
    before.param = nest_output(b, nest_result(b, i->out[0]));
    before.i = nest_linear(b, t);
    before.i.base = back;
    before.j.stride[loop] = 1;
    Node sum = {.text = "(a + b)", .dtype = t->dtype, .nin = 2, .param = -1};
    sum.in[0] = nest_add(b, before);
    if (i->at.exclusive) {
        before.param = nest_input(b, i->in[0]);
        sum.in[1] = nest_add(b, before);
    } else {
        sum.in[1] = nest_node(b, i->in[0]);
    }
    define(b, i, sum);
}

/* ---- the table ----------------------------------------------------------------------------------------------------
 */

static void (*const nodes[OP_COUNT])(NestBuild *, const Inst *) = {
    [OP_cast] = nodes_cast,      [OP_const] = nodes_const,     [OP_runtime] = nodes_runtime,
    [OP_iota] = nodes_iota,      [OP_one_hot] = nodes_one_hot, [OP_random] = nodes_random,
    [OP_slice] = nodes_slice,    [OP_gather] = nodes_gather,   [OP_shard_slice] = nodes_shard_slice,
    [OP_broadcast] = nodes_same, [OP_scatter] = nodes_scatter, [OP_update] = nodes_update,
    [OP_pad] = nodes_pad,        [OP_relabel] = nodes_relabel, [OP_reduce] = nodes_reduce,
    [OP_einsum] = nodes_einsum,  [OP_cumsum] = nodes_cumsum,
};

void op_nodes(NestBuild *b, const Inst *inst) {
    if (nodes[inst->op] != NULL)
        nodes[inst->op](b, inst);
    else if (op_info[inst->op].emit == EMIT_elem)
        nodes_elem(b, inst);
    else
        diag_bug("%s is no loop nest", op_info[inst->op].name);
}
