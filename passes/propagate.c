/* propagate.c: complete the shardings from the annotations.
 *
 * Algorithm: factor-based propagation to a fixed point (GSPMD, arXiv 2105.04663; Shardy's factors). Tensors that are
 * one at run time (a variable and its reads; what a loop carries) form a class with a single sharding. An instruction
 * is a node that relates the dims of its operands and results through the factors of its sharding rule; what must agree
 * but may be resharded (a loop's operand and its body's argument, a variable and what is written to it) is a node of
 * identity factors. A step at a node collects the mesh axes of each factor from all tensors, the largest first, so that
 * it wins a conflict, and extends the open dims of all of them. Dims only ever gain minor axes: it ends.
 *
 * Levels: element-wise and layout nodes settle first, then contractions and folds, then what indexes; each level
 * includes those before. Where two dims of one tensor want the same axis, neither gets it until the last level, in
 * which the larger operand's wish counts. All functions take part at once, as they share variables.
 *
 * Two things never happen. A pinned dim (the user's) is not changed, and the axis along which a loop stacks is not
 * split. A parameter is not split because of its update: nodes from which only writes are reached do not push into
 * parameters, they take from them (so optimizer state follows its parameter, and never the reverse).
 *
 * Before: ANNOTATED. After: the axes of every type are final wishes, `pinned` says axes.n > 0; `annotate` and
 * `stop_gradient` are gone, or a `reshard` where the two sides differ.
 * Complexity: nodes x sweeps; a sweep extends some dim, in practice there are fewer than ten. */
#include "origins.h"
#include "sharding.h"

enum { LEVELS = 4, LAST = LEVELS - 1 };

typedef struct Node {
    ShardRule *rule;
    int nin, nterm;
    int *tensor;       /* by term: operands, then results */
    int *by_size;      /* terms, largest first */
    AxisList *factors; /* [term][factor], refilled at each step */
    int level;
    bool update; /* only writes are reached from here */
    Loc loc;
    const char *via; /* for people: what relates the tensors */
} Node;

typedef struct Propagation {
    Module *m;
    Arena *a;
    VEC(Type) types;      /* of tensors; a class's is its root's */
    VEC(int) parent;      /* union-find; roots are lowest, so variables win */
    VEC(bool) for_update; /* by tensor: every use leads to a write only */
    VEC(Node) nodes;
    Origins *origins; /* NULL: nobody asks */
} Propagation;

/* ---- tensors and classes ----------------------------------------------------------------------------------------- */

static int find(const Propagation *p, int t) {
    while (p->parent.at[t] != t) t = p->parent.at[t];
    return t;
}

static Type *class_type(const Propagation *p, int t) {
    return &p->types.at[find(p, t)];
}

/* A mesh axis of size 1 splits nothing: without it there is nothing to gather or to reduce over it. */
static Type without_unit_axes(const Mesh *mesh, const Type *t) {
    Type u = *t;
    for (int d = 0; d < u.rank; d++) {
        const AxisList *axes = &t->dim[d].axes;
        u.dim[d].axes.n = 0;
        for (int i = 0; i < axes->n; i++)
            if (mesh->size[axes->at[i]] > 1) axes_add(&u.dim[d].axes, axes->at[i]);
    }
    return u;
}

static void record_annotation(Propagation *p, int id, const OriginTensor *what) {
    const Type *t = &p->types.at[id];
    if (p->origins == NULL) return;
    origins_tensor(p->origins, what);
    origins_at(p->origins, id)->root = id;
    origins_at(p->origins, id)->asked = *t;
    for (int d = 0; d < t->rank; d++)
        for (int i = 0; i < t->dim[d].axes.n; i++)
            origins_add(p->origins, id, &(Origin){t->dim[d].axes.at[i], d, NULL, what->loc, -1});
}

static int add_tensor(Propagation *p, const Type *t, const OriginTensor *what) {
    int id = p->types.n;
    vec_push(p->a, p->types, without_unit_axes(&p->m->mesh, t));
    vec_push(p->a, p->parent, id);
    vec_push(p->a, p->for_update, true);
    record_annotation(p, id, what);
    return id;
}

/* One sharding for both; a pinned dim of either is pinned. */
static void join(Propagation *p, int s, int t) {
    int a = find(p, s), b = find(p, t);
    if (a == b) return;
    int root = a < b ? a : b, other = a < b ? b : a;
    p->parent.at[other] = root;
    Type *to = &p->types.at[root];
    const Type *from = &p->types.at[other];
    for (int d = 0; d < to->rank; d++) {
        const AxisList *axes = &from->dim[d].axes;
        bool clash = to->dim[d].pinned || !from->dim[d].pinned;
        for (int i = 0; i < axes->n; i++) clash |= type_axes_used(to) >> axes->at[i] & 1;
        if (clash) continue;
        to->dim[d] = from->dim[d];
        for (int i = 0; p->origins != NULL && i < axes->n; i++) {
            const Origin *why = origins_find(p->origins, other, axes->at[i]);
            if (why != NULL) origins_add(p->origins, root, why);
        }
    }
}

static void number_values(Propagation *p, const Func *f, Block *b) {
    for (int i = 0; i < b->args.n; i++) {
        Value *v = b->args.at[i];
        Loc loc = v->loc.file != 0 || b->owner == NULL ? v->loc : b->owner->loc;
        v->id = add_tensor(p, &v->type, &(OriginTensor){.value = v, .func = f, .name = v->name, .loc = loc});
    }
    for (Inst *in = b->first; in != NULL; in = in->next) {
        for (int i = 0; i < in->nout; i++) {
            Value *v = in->out[i];
            v->id = add_tensor(p, &v->type, &(OriginTensor){.value = v, .func = f, .name = v->name, .loc = in->loc});
            if (in->op == OP_annotate) origins_annotated(p->origins, in->in[0], v->id);
        }
        if (in->body != NULL) number_values(p, f, in->body);
    }
}

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

static int level_of(const Inst *in) {
    switch (op_info[in->op].emit) {
        case EMIT_elem:
        case EMIT_none:
            return 0;
        case EMIT_gemm:
        case EMIT_reduce:
            return 1;
        default:
            return in->op == OP_relabel || in->op == OP_slice || in->op == OP_pad ? 0 : 2;
    }
}

static void add_node(Propagation *p, Node n) {
    ShardRule *rule = n.rule;
    int nterm = n.nterm;
    const int *tensor = n.tensor;
    n.by_size = NEW_ARRAY(p->a, int, nterm);
    n.factors = NEW_ARRAY(p->a, AxisList, nterm * rule->nfactor + 1);
    for (int i = 0; i < nterm; i++) {
        const Type *t = class_type(p, tensor[i]);
        int64_t bytes = type_elements(t) * dtype_bytes(t->dtype);
        int at = i; /* insertion sort; equal sizes keep their order */
        for (; at > 0; at--) {
            const Type *u = class_type(p, tensor[n.by_size[at - 1]]);
            if (type_elements(u) * dtype_bytes(u->dtype) >= bytes) break;
            n.by_size[at] = n.by_size[at - 1];
        }
        n.by_size[at] = i;
    }
    vec_push(p->a, p->nodes, n);
}

/* The two should agree, label by label. */
static void add_tie(Propagation *p, int s, int t, const Inst *in) {
    if (find(p, s) == find(p, t)) return;
    const Type *a = class_type(p, s), *b = class_type(p, t);
    ShardRule *r = NEW(p->a, ShardRule);
    r->in = arena_alloc(p->a, sizeof *r->in);
    r->out = arena_alloc(p->a, sizeof *r->out);
    for (int d = 0; d < a->rank; d++) {
        int e = type_find(b, a->dim[d].label);
        if (e < 0) continue;
        r->factor[r->nfactor] = (Factor){a->dim[d].size, FACTOR_pass, a->dim[d].label};
        r->in[0][d] = r->out[0][e] = (DimFactors){1, {r->nfactor++}};
    }
    int *tensor = NEW_ARRAY(p->a, int, 2);
    tensor[0] = s, tensor[1] = t;
    add_node(p, (Node){.rule = r,
                       .nin = 1,
                       .nterm = 2,
                       .tensor = tensor,
                       .update = in->op == OP_write,
                       .loc = in->loc,
                       .via = op_info[in->op].name});
}

static void keep_whole(Propagation *p, int t, Label label) {
    Type *type = class_type(p, t);
    int d = type_find(type, label);
    if (d >= 0) type->dim[d].pinned = true;
}

static void add_nodes(Propagation *p, Block *b);

static void add_loop(Propagation *p, Inst *in) {
    Block *body = in->body;
    int xs = (int)in->at.xs, carry = (int)in->at.carry;
    for (int i = 0; i < in->nin; i++) {
        if (i < xs) keep_whole(p, in->in[i]->id, in->at.label);
        if (i >= xs && i < xs + carry) join(p, body->args.at[1 + i]->id, in->out[i - xs]->id);
        add_tie(p, in->in[i]->id, body->args.at[1 + i]->id, in);
    }
    add_nodes(p, body);
    for (int i = 0; i < in->nout; i++) {
        if (i >= carry) keep_whole(p, in->out[i]->id, in->at.label);
        add_tie(p, body->results.at[i]->id, in->out[i]->id, in);
    }
}

static void add_inst(Propagation *p, Inst *in, bool update) {
    ShardRule *rule = shard_rule(p->a, in);
    if (rule == NULL) return;
    int *tensor = NEW_ARRAY(p->a, int, in->nin + in->nout + 1);
    for (int i = 0; i < in->nin; i++) tensor[i] = in->in[i]->id;
    for (int i = 0; i < in->nout; i++) tensor[in->nin + i] = in->out[i]->id;
    add_node(p, (Node){.rule = rule,
                       .nin = in->nin,
                       .nterm = in->nin + in->nout,
                       .tensor = tensor,
                       .level = level_of(in),
                       .update = update,
                       .loc = in->loc,
                       .via = op_info[in->op].name});
}

static bool is_update(const Propagation *p, const Inst *in) {
    if (op_info[in->op].emit != EMIT_elem) return false;
    for (int i = 0; i < in->nout; i++)
        if (!p->for_update.at[in->out[i]->id]) return false;
    return true;
}

static void add_nodes(Propagation *p, Block *b) {
    for (Inst *in = b->first; in != NULL; in = in->next) {
        if (in->op == OP_loop)
            add_loop(p, in);
        else if (in->op == OP_read)
            join(p, in->at.var->id, in->out[0]->id);
        else if (in->op == OP_write)
            add_tie(p, in->in[0]->id, in->at.var->id, in);
        else
            add_inst(p, in, is_update(p, in));
    }
}

/* Backwards, so that uses come before definitions. */
static void find_updates(Propagation *p, Block *b) {
    for (int i = 0; i < b->results.n; i++) p->for_update.at[b->results.at[i]->id] = false;
    for (Inst *in = b->last; in != NULL; in = in->prev) {
        if (in->body != NULL) find_updates(p, in->body);
        if (in->op == OP_write || is_update(p, in)) continue;
        for (int i = 0; i < in->nin; i++) p->for_update.at[in->in[i]->id] = false;
    }
}

/* ---- one step ---------------------------------------------------------------------------------------------------- */

static const DimFactors *term_dims(const Node *n, int term) {
    return term < n->nin ? n->rule->in[term] : n->rule->out[term - n->nin];
}

/* Whether another factor of the tensor wants the axis too. */
static bool contended(const Node *n, const DimFactors *dims, int rank, int d, int axis, const AxisList *merged) {
    for (int e = 0; e < rank; e++)
        for (int k = 0; e != d && k < dims[e].n; k++)
            if (n->rule->factor[dims[e].at[k]].kind != FACTOR_whole && axes_has(&merged[dims[e].at[k]], axis))
                return true;
    return false;
}

static bool extend(const Propagation *p, Type *t, int d, const AxisList *want) {
    AxisList *axes = &t->dim[d].axes;
    if (t->dim[d].pinned || axes_common(axes, want) < axes->n) return false;
    int before = axes->n;
    for (int i = before; i < want->n; i++) {
        int axis = want->at[i];
        if (type_axes_used(t) >> axis & 1) break;
        if (t->dim[d].size % (mesh_size(&p->m->mesh, axes) * p->m->mesh.size[axis]) != 0) break;
        axes_add(axes, axis);
    }
    return axes->n > before;
}

/* ---- why --------------------------------------------------------------------------------------------------------- */

/* Another dim of the tensor that wanted the axis too, -1: none. */
static int loser(const Node *n, const DimFactors *dims, const Type *t, int d, int axis, const AxisList *merged) {
    for (int e = 0; e < t->rank; e++)
        for (int k = 0; e != d && k < dims[e].n; k++)
            if (n->rule->factor[dims[e].at[k]].kind != FACTOR_whole && axes_has(&merged[dims[e].at[k]], axis) &&
                !t->dim[e].pinned)
                return e;
    return -1;
}

/* The axes of dim d from number `before` on are new: from the largest term that has them on one of the dim's factors.
 */
static void record_step(Propagation *p, const Node *n, const Type *t, int term, int d, int before,
                        const AxisList *merged, const int *source) {
    const DimFactors *dims = term_dims(n, term);
    for (int i = before; p->origins != NULL && i < t->dim[d].axes.n; i++) {
        int axis = t->dim[d].axes.at[i], from = -1;
        for (int k = 0; k < dims[d].n && from < 0; k++)
            if (axes_has(&merged[dims[d].at[k]], axis)) from = n->tensor[n->by_size[source[dims[d].at[k]]]];
        origins_add(p->origins, find(p, n->tensor[term]), &(Origin){axis, d, n->via, n->loc, from});
        int e = loser(n, dims, t, d, axis, merged);
        if (e >= 0 && origins_warns(p->origins))
            diag_warn(n->loc,
                      "the mesh axis %s would split both %s and %s here: it splits %s, as the larger "
                      "tensor asks; an annotation decides otherwise",
                      p->m->mesh.name[axis], t->dim[d].label, t->dim[e].label, t->dim[d].label);
    }
}

/* Before the last level an axis that two dims of a tensor want is given to neither: a neighbour may know better. */
static bool step(Propagation *p, const Node *n, bool last) {
    int nf = n->rule->nfactor;
    AxisList merged[MAX_FACTORS] = {0};
    int source[MAX_FACTORS] = {0}; /* rank by size of the term that the axes came from */
    for (int rank = 0; rank < n->nterm; rank++) {
        int term = n->by_size[rank];
        AxisList *mine = &n->factors[term * nf];
        factors_read(n->rule, &p->m->mesh, term_dims(n, term), class_type(p, n->tensor[term]), mine);
        for (int f = 0; f < nf; f++) {
            if (mine[f].n <= merged[f].n || axes_common(&mine[f], &merged[f]) < merged[f].n) continue;
            merged[f] = mine[f];
            source[f] = rank;
        }
    }
    bool changed = false;
    for (int term = 0; term < n->nterm; term++) {
        int root = find(p, n->tensor[term]);
        bool param = root < p->m->vars.n && p->m->vars.at[root]->kind == VAR_param;
        if (param && n->update) continue;
        Type *t = &p->types.at[root];
        const DimFactors *dims = term_dims(n, term);
        for (int rank = 0; rank < n->nterm; rank++)
            for (int d = 0; d < t->rank; d++) {
                if (dims[d].n == 0 || source[dims[d].at[0]] != rank) continue;
                AxisList want = factors_join(n->rule, &p->m->mesh, &dims[d], merged);
                for (int i = 0; !last && i < want.n; i++)
                    if (contended(n, dims, t->rank, d, want.at[i], merged)) want.n = (uint8_t)i;
                int before = t->dim[d].axes.n;
                if (!extend(p, t, d, &want)) continue;
                record_step(p, n, t, term, d, before, merged, source);
                changed = true;
            }
    }
    return changed;
}

static void run(Propagation *p) {
    for (int level = 0; level < LEVELS; level++)
        for (bool changed = true, forward = true; changed; forward = !forward) {
            changed = false;
            for (int i = 0; i < p->nodes.n; i++) {
                const Node *n = &p->nodes.at[forward ? i : p->nodes.n - 1 - i];
                if (n->level <= level) changed |= step(p, n, level == LAST);
            }
        }
}

/* ---- the result -------------------------------------------------------------------------------------------------- */

static void settle(const Propagation *p, Type *t, int tensor) {
    const Type *c = class_type(p, tensor);
    for (int d = 0; d < t->rank; d++) {
        t->dim[d].axes = c->dim[d].axes;
        t->dim[d].pinned = t->dim[d].axes.n > 0;
    }
}

static void settle_origins(const Propagation *p) {
    for (int i = 0; i < origins_count(p->origins); i++) {
        OriginTensor *t = origins_at(p->origins, i);
        t->root = find(p, i);
        t->type = t->asked;
        for (int d = 0; d < t->type.rank; d++) t->type.dim[d].axes = class_type(p, i)->dim[d].axes;
    }
    origins_finish(p->origins);
}

static void settle_block(const Propagation *p, Block *b) {
    for (int i = 0; i < b->args.n; i++) settle(p, &b->args.at[i]->type, b->args.at[i]->id);
    for (Inst *in = b->first; in != NULL; in = in->next) {
        for (int i = 0; i < in->nout; i++) settle(p, &in->out[i]->type, in->out[i]->id);
        if (in->body != NULL) settle_block(p, in->body);
    }
}

/* A wish that came true vanishes, another becomes an order. */
static void drop_annotation(Inst *in, void *ctx) {
    (void)ctx;
    if (in->op != OP_annotate && in->op != OP_stop_gradient) return;
    Value *x = in->in[0], *y = in->out[0];
    if (!type_same_sharding(&x->type, &y->type)) {
        in->op = OP_reshard;
        return;
    }
    if (x->name == NULL) x->name = y->name;
    block_replace(in->parent, y, x);
    inst_remove(in);
}

static void number_all(Propagation *p) {
    const Module *m = p->m;
    for (int i = 0; i < m->vars.n; i++) {
        Var *v = m->vars.at[i];
        v->id = add_tensor(p, &v->type, &(OriginTensor){.var = v, .name = v->path, .loc = v->loc});
    }
    for (int i = 0; i < m->funcs.n; i++) number_values(p, m->funcs.at[i], m->funcs.at[i]->body);
}

bool pass_propagate(Module *m, PassCtx *ctx) {
    Propagation p = {.m = m, .a = ctx->scratch, .origins = ctx->opt == NULL ? NULL : ctx->opt->origins};
    origins_keep(p.origins, m);
    number_all(&p);
    for (int i = 0; i < m->funcs.n; i++) find_updates(&p, m->funcs.at[i]->body);
    for (int i = 0; i < m->funcs.n; i++) add_nodes(&p, m->funcs.at[i]->body);
    run(&p);
    for (int i = 0; i < m->vars.n; i++) settle(&p, &m->vars.at[i]->type, m->vars.at[i]->id);
    for (int i = 0; i < m->funcs.n; i++) settle_block(&p, m->funcs.at[i]->body);
    settle_origins(&p);
    if (origins_warns(p.origins)) warn_replicated(m);
    module_walk(m, drop_annotation, NULL);
    return true;
}
