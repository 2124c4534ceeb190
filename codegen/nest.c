/* nest.c: an instruction becomes a nest: its loops, then a node for each value, then the stores.
 *
 * The loops are the union of the labels in the order of the value of highest rank; the labels that the region's inner
 * folds remove are moved to the end (the columns). Ops add their nodes themselves (nest_ops.c); nest_loops.c shapes the
 * result, nest_text.c prints it.
 *
 * Before: m is PLANNED. After: the nest computes exactly the instruction's results, from its operands in memory, with
 * strides of the device's blocks. Linear in the size of the region, times its labels. */
#include "nest.h"

#include <string.h>

#include "ctext.h"

/* ---- what an instruction spans ------------------------------------------------------------------------------------
 */

static const Inst *region_first(const Inst *inst) {
    return inst->body != NULL ? inst->body->first : inst;
}
static const Inst *region_next(const Inst *whole, const Inst *i) {
    return whole->body != NULL ? i->next : NULL;
}

bool nest_is_input(const NestBuild *b, const Value *v) {
    if (b->inst->body != NULL) return v->def == NULL && v->block == b->inst->body;
    return v->def != b->inst;
}

const Value *nest_result(const NestBuild *b, const Value *v) {
    const Inst *whole = b->inst;
    if (whole->body == NULL) return v->def == whole ? v : NULL;
    for (int i = 0; i < whole->body->results.n; i++)
        if (whole->body->results.at[i] == v) return whole->out[i];
    return NULL;
}

/* ---- parameters, nodes, stores ------------------------------------------------------------------------------------
 */

static int param_of(NestBuild *b, const Value *v, bool written) {
    Nest *n = b->n;
    for (int i = 0; i < n->param.n; i++)
        if (n->param.at[i] == v) return i;
    vec_push(b->arena, n->param, v);
    vec_push(b->arena, n->written, written);
    return n->param.n - 1;
}

int nest_input(NestBuild *b, const Value *v) {
    return param_of(b, b->inst->body != NULL ? b->inst->in[v->index] : v, false);
}

int nest_output(NestBuild *b, const Value *result) {
    return param_of(b, result, true);
}

int nest_add(NestBuild *b, Node node) {
    vec_push(b->arena, b->n->node, node);
    return b->n->node.n - 1;
}

void nest_define(NestBuild *b, const Value *v, int node) {
    if (b->nknown == b->knowncap) vec_grow(b->arena, (void **)&b->known, &b->knowncap, sizeof *b->known, b->nknown);
    b->known[b->nknown++] = (struct Known){v, node};
}

static const char *load_text(DType t) {
    if (t == DT_bf16) return "moe_from_bf16(p[i])";
    return t == DT_f16 ? "moe_from_f16(p[i])" : "p[i]";
}

int nest_node(NestBuild *b, const Value *v) {
    for (int i = b->nknown - 1; i >= 0; i--)
        if (b->known[i].value == v) return b->known[i].node;
    if (!nest_is_input(b, v)) diag_bug("a region of %s uses a value from outside", op_info[b->inst->op].name);
    Node load = {.text = load_text(v->type.dtype), .dtype = v->type.dtype, .param = nest_input(b, v), .uses_i = true};
    load.i = nest_linear(b, &v->type);
    int node = nest_add(b, load);
    nest_define(b, v, node);
    return node;
}

void nest_store(NestBuild *b, Store s) {
    vec_push(b->arena, b->n->store, s);
}

static const char *store_text(DType t) {
    if (t == DT_bf16) return "p[i] = moe_to_bf16(a)";
    if (t == DT_f16) return "p[i] = moe_to_f16(a)";
    return t == DT_bool ? "p[i] = (uint8_t)a" : "p[i] = a";
}

/* ---- strides ------------------------------------------------------------------------------------------------------
 */

int nest_loop_of(const Nest *n, Label label) {
    for (int i = 0; i < n->nloop; i++)
        if (n->loop[i].label == label) return i;
    return -1;
}

int64_t nest_stride(const Mesh *m, const Type *t, int axis) {
    int64_t s = 1;
    for (int i = t->rank - 1; i > axis; i--) s *= dim_local(m, &t->dim[i]);
    return s;
}

Linear nest_linear(const NestBuild *b, const Type *t) {
    Linear l = {.dyn = NULL};
    for (int i = 0; i < t->rank; i++) {
        int loop = nest_loop_of(b->n, t->dim[i].label);
        if (loop >= 0) l.stride[loop] = nest_stride(b->n->mesh, t, i);
    }
    return l;
}

/* ---- loops --------------------------------------------------------------------------------------------------------
 */

static void loop_append(Nest *n, const Dim *d) {
    if (nest_loop_of(n, d->label) >= 0) return;
    if (n->nloop == NEST_LOOPS) diag_bug("a nest of more than %d loops", NEST_LOOPS);
    n->loop[n->nloop++] = (NestLoop){.label = d->label, .size = dim_local(n->mesh, d)};
}

static void dims_append(Nest *n, const DimVec *dims) {
    for (int i = 0; i < dims->n; i++) loop_append(n, &dims->at[i]);
}

static bool list_has(const LabelList *l, Label label) {
    for (int i = 0; i < l->n; i++)
        if (l->at[i] == label) return true;
    return false;
}

/* The fold of the region that something inside it reads: its labels are the columns. */
static const Inst *inner_fold(const Inst *whole) {
    if (whole->body == NULL) return NULL;
    for (const Inst *i = whole->body->first; i != NULL; i = i->next)
        if (i->op == OP_reduce)
            for (const Inst *u = i->next; u != NULL; u = u->next)
                for (int k = 0; k < u->nin; k++)
                    if (u->in[k] == i->out[0]) return i;
    return NULL;
}

static void move_to_end(Nest *n, const LabelList *labels) {
    NestLoop old[NEST_LOOPS];
    memcpy(old, n->loop, sizeof old);
    int k = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n->nloop; i++)
            if (list_has(labels, old[i].label) == (pass == 1)) n->loop[k++] = old[i];
}

/* The trailing loops that every fold of the region removes. */
static void mark_columns(NestBuild *b) {
    Nest *n = b->n;
    int columns = 0;
    bool found = false;
    for (const Inst *i = region_first(b->inst); i != NULL; i = region_next(b->inst, i)) {
        LabelList removed = i->at.labels;
        if (op_info[i->op].emit == EMIT_gemm) {
            removed.n = 0;
            for (int l = 0; l < n->nloop && removed.n < MAX_RANK; l++)
                if (type_find(&i->out[0]->type, n->loop[l].label) < 0) removed.at[removed.n++] = n->loop[l].label;
        } else if (i->op != OP_reduce) {
            continue;
        }
        int k = 0;
        while (k < n->nloop && list_has(&removed, n->loop[n->nloop - 1 - k].label)) k++;
        columns = !found || k < columns ? k : columns;
        found = true;
    }
    n->folds = columns > 0;
    n->ncolumn = columns > 0 ? columns : n->nloop > 0;
    for (int l = n->nloop - n->ncolumn; l < n->nloop; l++) n->loop[l].column = true;
}

static void build_loops(NestBuild *b) {
    const Inst *base = NULL;
    int most = -1;
    for (const Inst *i = region_first(b->inst); i != NULL; i = region_next(b->inst, i)) {
        DimVec dims = {0};
        op_domain(b, i, &dims);
        if (dims.n > most) base = i, most = dims.n;
    }
    if (base != NULL) {
        DimVec dims = {0};
        op_domain(b, base, &dims);
        dims_append(b->n, &dims);
    }
    for (const Inst *i = region_first(b->inst); i != NULL; i = region_next(b->inst, i)) {
        DimVec dims = {0};
        op_domain(b, i, &dims);
        dims_append(b->n, &dims);
    }
    const Inst *fold = inner_fold(b->inst);
    if (fold != NULL) move_to_end(b->n, &fold->at.labels);
    mark_columns(b);
}

/* Results that their op did not already add into memory are stored as they are. */
static void build_stores(NestBuild *b) {
    const Inst *whole = b->inst;
    for (int k = 0; k < whole->nout; k++) {
        const Value *inside = whole->body != NULL ? whole->body->results.at[k] : whole->out[k];
        int param = nest_output(b, whole->out[k]);
        bool done = false;
        for (int s = 0; s < b->n->store.n; s++) done |= b->n->store.at[s].param == param;
        if (done) continue;
        Store s = {.text = store_text(inside->type.dtype), .value = nest_node(b, inside), .index = -1, .param = param};
        s.i = nest_linear(b, &whole->out[k]->type);
        nest_store(b, s);
    }
}

Nest *nest_build(const Module *m, const Inst *inst, Arena *a) {
    NestBuild b = {.n = NEW(a, Nest), .m = m, .arena = a, .inst = inst};
    b.n->arena = a;
    b.n->mesh = &m->mesh;
    build_loops(&b);
    for (const Inst *i = region_first(inst); i != NULL; i = region_next(inst, i)) op_nodes(&b, i);
    build_stores(&b);
    nest_finish(b.n);
    return b.n;
}
