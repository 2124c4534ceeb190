/* build.c: modules, functions, blocks and instructions: making them, and moving them about.
 *
 * Shapes are inferred at birth (shape.c), so an instruction with wrong operands is never linked into a block. Lists are
 * doubly linked; insertion and removal are O(1), replacing a value scans its block, since values keep no list of uses:
 * passes that need one build it.
 *
 * Invariants kept here: an instruction's `parent` is the block that lists it, NULL when detached; its results' `block`
 * is its parent; a region's `owner` is its instruction; arguments and results know their index. */
#include <string.h>

#include "shape.h"
#include "support/intern.h"

Module *module_new(Arena *arena) {
    Module *m = NEW(arena, Module);
    m->arena = arena;
    return m;
}

Var *module_var(const Module *m, const char *path) {
    for (int i = 0; i < m->vars.n; i++)
        if (strcmp(m->vars.at[i]->path, path) == 0) return m->vars.at[i];
    return NULL;
}

const char *var_slice_path(const Var *v, const char *pattern, int64_t i, Arena *a) {
    const char *open = v->stacked ? strchr(pattern, '{') : NULL, *close = open == NULL ? NULL : strchr(open, '}');
    if (close == NULL) return pattern;
    return arena_printf(a, "%.*s%lld%s", (int)(open - pattern), pattern, (long long)(v->lo + i * v->step), close + 1);
}

Func *module_func(const Module *m, const char *name, FuncKind kind) {
    for (int i = 0; i < m->funcs.n; i++)
        if (m->funcs.at[i]->kind == kind && strcmp(m->funcs.at[i]->name, name) == 0) return m->funcs.at[i];
    return NULL;
}

Func *func_new(Module *m, const char *name, FuncKind kind, Loc loc) {
    Func *f = NEW(m->arena, Func);
    f->name = name;
    f->kind = kind;
    f->loc = loc;
    f->body = block_new(m, NULL);
    vec_push(m->arena, m->funcs, f);
    return f;
}

Block *block_new(Module *m, Inst *owner) {
    Block *b = NEW(m->arena, Block);
    b->owner = owner;
    return b;
}

Value *value_new(Module *m, const Type *t) {
    Value *v = NEW(m->arena, Value);
    v->type = *t;
    v->offset = -1;
    return v;
}

Value *block_arg(Module *m, Block *b, const Type *t, const char *name) {
    Value *v = value_new(m, t);
    v->block = b;
    v->index = b->args.n;
    v->name = name;
    vec_push(m->arena, b->args, v);
    return v;
}

/* ---- instructions ------------------------------------------------------------------------------------------------ */

Inst *inst_new(Module *m, Op op, Loc loc, int nin, Value *const *in, const Attrs *at, Block *body, const char **error) {
    Inst *inst = NEW(m->arena, Inst);
    inst->op = op;
    inst->loc = loc;
    inst->nin = nin;
    inst->in = arena_copy(m->arena, in, sizeof(Value *) * (size_t)nin);
    if (at != NULL) inst->at = *at;
    inst->body = body;
    Shapes shapes;
    const char *sentence = inst_shapes(m->arena, inst, &shapes);
    if (sentence != NULL) {
        if (error == NULL) diag_bug("%s at %s: %s", op_info[op].name, diag_where(loc), sentence);
        *error = sentence;
        return NULL;
    }
    if (body != NULL) body->owner = inst;
    inst->nout = shapes.nout;
    inst->out = NEW_ARRAY(m->arena, Value *, shapes.nout);
    for (int i = 0; i < shapes.nout; i++) {
        Value *v = inst->out[i] = value_new(m, &shapes.out[i]);
        v->def = inst;
        v->index = i;
    }
    return inst;
}

/* The sharding of `old` on the shape of `fresh`: a dim keeps its axes while its label stays and they still divide it.
 */
static void keep_sharding(const Mesh *mesh, const Type *old, Type *fresh) {
    if (old->rank != fresh->rank) return;
    for (int i = 0; i < fresh->rank; i++) {
        int was = type_find(old, fresh->dim[i].label);
        if (was < 0 || fresh->dim[i].size % mesh_size(mesh, &old->dim[was].axes) != 0) continue;
        fresh->dim[i].axes = old->dim[was].axes;
        fresh->dim[i].pinned = old->dim[was].pinned;
    }
    fresh->partial_kind = old->partial_kind;
    fresh->partial = old->partial;
}

const char *inst_infer(Module *m, Inst *inst) {
    Shapes shapes;
    const char *sentence = inst_shapes(m->arena, inst, &shapes);
    if (sentence != NULL) return sentence;
    if (shapes.nout != inst->nout)
        return arena_printf(m->arena, "%d results where there were %d", shapes.nout, inst->nout);
    for (int i = 0; i < inst->nout; i++) {
        keep_sharding(&m->mesh, &inst->out[i]->type, &shapes.out[i]);
        inst->out[i]->type = shapes.out[i];
    }
    return NULL;
}

void inst_insert(Block *b, Inst *before, Inst *inst) {
    inst->parent = b;
    inst->next = before;
    inst->prev = before == NULL ? b->last : before->prev;
    *(inst->prev == NULL ? &b->first : &inst->prev->next) = inst;
    *(before == NULL ? &b->last : &before->prev) = inst;
    for (int i = 0; i < inst->nout; i++) inst->out[i]->block = b;
}

void inst_remove(Inst *inst) {
    Block *b = inst->parent;
    *(inst->prev == NULL ? &b->first : &inst->prev->next) = inst->next;
    *(inst->next == NULL ? &b->last : &inst->next->prev) = inst->prev;
    inst->prev = inst->next = NULL;
    inst->parent = NULL;
}

void block_replace(Block *b, Value *from, Value *to) {
    for (Inst *inst = b->first; inst != NULL; inst = inst->next)
        for (int i = 0; i < inst->nin; i++)
            if (inst->in[i] == from) inst->in[i] = to;
    for (int i = 0; i < b->results.n; i++)
        if (b->results.at[i] == from) b->results.at[i] = to;
}

/* Without recursion, since a text may nest regions: down through `body`, back up through `owner`. */
void block_walk(Block *b, void (*fn)(Inst *, void *), void *ctx) {
    Block *at = b;
    Inst *inst = b->first;
    while (inst != NULL || at != b) {
        if (inst == NULL) {
            inst = at->owner->next;
            at = at->owner->parent;
            continue;
        }
        Inst *next = inst->next;
        fn(inst, ctx);
        bool enter = inst->parent == at && inst->body != NULL;
        if (enter) at = inst->body;
        inst = enter ? at->first : next;
    }
}

void module_walk(Module *m, void (*fn)(Inst *, void *), void *ctx) {
    for (int i = 0; i < m->funcs.n; i++) block_walk(m->funcs.at[i]->body, fn, ctx);
}

int block_uses(const Block *b, const Value *v) {
    int n = 0;
    for (const Inst *inst = b->first; inst != NULL; inst = inst->next)
        for (int i = 0; i < inst->nin; i++) n += inst->in[i] == v;
    for (int i = 0; i < b->results.n; i++) n += b->results.at[i] == v;
    return n;
}

/* ---- builders ---------------------------------------------------------------------------------------------------- */

Inst *build_inst(Builder *b, Op op, int nin, Value *const *in, const Attrs *at, Block *body) {
    Inst *inst = inst_new(b->m, op, b->loc, nin, in, at, body, NULL);
    inst_insert(b->block, b->before, inst);
    return inst;
}

Value *build1(Builder *b, Op op, Value *x, const Attrs *at) {
    return build_inst(b, op, 1, (Value *[]){x}, at, NULL)->out[0];
}

Value *build2(Builder *b, Op op, Value *x, Value *y, const Attrs *at) {
    return build_inst(b, op, 2, (Value *[]){x, y}, at, NULL)->out[0];
}

Value *build3(Builder *b, Op op, Value *x, Value *y, Value *z, const Attrs *at) {
    return build_inst(b, op, 3, (Value *[]){x, y, z}, at, NULL)->out[0];
}

Value *build_const(Builder *b, DType t, double value) {
    return build_inst(b, OP_const, 0, NULL, &(Attrs){.dtype = t, .value = value}, NULL)->out[0];
}

Value *build_cast(Builder *b, Value *x, DType t) {
    return x->type.dtype == t ? x : build1(b, OP_cast, x, &(Attrs){.dtype = t});
}

Value *build_reduce(Builder *b, const char *kind, Value *x, LabelList over) {
    kind = intern(kind);
    /* A sum of bool is a count even over no axis. */
    if (over.n == 0) return x->type.dtype == DT_bool && kind == intern("sum") ? build_cast(b, x, DT_i32) : x;
    return build1(b, OP_reduce, x, &(Attrs){.kind = kind, .labels = over});
}

Value *build_einsum(Builder *b, int n, Value *const *in, LabelList result) {
    return build_inst(b, OP_einsum, n, in, &(Attrs){.labels = result}, NULL)->out[0];
}

Value *build_broadcast(Builder *b, Value *x, const Type *like) {
    bool same = x->type.rank == like->rank;
    DimList dims = {.n = like->rank};
    for (int i = 0; i < like->rank; i++) {
        dims.at[i].label = like->dim[i].label;
        dims.at[i].size = like->dim[i].size;
        same = same && x->type.dim[i].label == like->dim[i].label;
    }
    return same ? x : build1(b, OP_broadcast, x, &(Attrs){.dims = dims});
}

Value *build_slice(Builder *b, Value *x, Label label, int64_t start, int64_t size, Label to) {
    return build1(b, OP_slice, x, &(Attrs){.label = label, .start = start, .size = size, .to = to});
}

LabelList type_labels(const Type *t) {
    LabelList list = {.n = t->rank};
    for (int i = 0; i < t->rank; i++) list.at[i] = t->dim[i].label;
    return list;
}

LabelList labels_minus(LabelList a, LabelList b) {
    LabelList left = {0};
    for (int i = 0; i < a.n; i++) {
        bool drop = false;
        for (int k = 0; k < b.n; k++) drop = drop || a.at[i] == b.at[k];
        if (!drop) left.at[left.n++] = a.at[i];
    }
    return left;
}
