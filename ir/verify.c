/* verify.c: what must be true of a module in its phase.
 *
 * Checked, for every function and region:
 *   structure   operands and results of blocks are defined above, in the same block; lists are linked both ways; a value
 *               knows its definition; op, operand count and region fit the op's row; an op may exist in the phase
 *   shapes      result types are what the shape rule infers; sizes are positive; ranks are bounded
 *   shardings   a mesh axis is used once in a type; its product divides the size of the dim; partial has a kind exactly
 *               when it has axes, and does not share axes with dims
 *   variables   paths are unique; a stacked variable has its trip count in front, unsplit; `read` and `write` agree with
 *               the variable's type, from SHARDED on with its sharding
 *   functions   one name a result; names of functions unique for their kind; a write is outside loops
 *   LOCAL       every instruction fits its sharding rule; results of functions are not partial; a loop's scanned axis is
 *               not split, and its operands, arguments, results agree in their shardings
 *   PLACED      a collective's axes are those by which its two types differ
 *   PLANNED     offsets are aligned, inside the arena, and above the variables
 *
 * Not checked: that live buffers do not overlap (the interpreter executes PLANNED modules in the planned memory, which
 * shows a harmful overlap as a wrong result); that labels of different loops differ.
 *
 * Cost: linear in the text of the module. */
#include <inttypes.h>
#include <string.h>

#include "shape.h"

enum { OFFSET_ALIGN = 64 };

typedef struct Verifier {
    const Module *m;
    Arena *a;
    const Func *f;
    int mark; /* Value.id of the values defined so far in the current block */
} Verifier;

#define SAY(v, ...) arena_printf((v)->a, __VA_ARGS__)
#define TRY(call)                                \
    do {                                         \
        const char *sentence_ = (call);          \
        if (sentence_ != NULL) return sentence_; \
    } while (0)

/* ---- types ------------------------------------------------------------------------------------------------------------ */

static const char *type_ok(Verifier *v, const Type *t) {
    unsigned used = 0;
    if (t->rank < 0 || t->rank > MAX_RANK) return SAY(v, "rank %d is out of range", t->rank);
    for (int i = 0; i <= t->rank; i++) { /* the last round: partial */
        const AxisList *axes = i < t->rank ? &t->dim[i].axes : &t->partial;
        for (int k = 0; k < axes->n; k++) {
            int axis = axes->at[k];
            if (axis >= v->m->mesh.n) return SAY(v, "mesh axis %d does not exist", axis);
            if (used & 1u << axis) return SAY(v, "mesh axis %s is used twice in one type", v->m->mesh.name[axis]);
            used |= 1u << axis;
        }
        if (i == t->rank) break;
        const Dim *d = &t->dim[i];
        if (d->label == NULL || d->size < 1 || d->size > MAX_DIM) return SAY(v, "axis %d has no label or no size", i);
        for (int k = 0; k < i; k++)
            if (t->dim[k].label == d->label) return SAY(v, "label %s occurs twice in one type", d->label);
        if (d->size % mesh_size(&v->m->mesh, &d->axes) != 0)
            return SAY(v, "label %s of size %" PRId64 " does not divide over its mesh axes", d->label, d->size);
    }
    if ((t->partial.n > 0) != (t->partial_kind != PARTIAL_none)) return "partial needs both a kind and axes";
    return NULL;
}

static bool same_axes(const Type *a, const Type *b) { return type_same_sharding(a, b); }

/* ---- instructions ------------------------------------------------------------------------------------------------------ */

static const char *operands_ok(Verifier *v, const Inst *i) {
    const OpInfo *op = &op_info[i->op];
    if (op->nin >= 0 && i->nin != op->nin) return SAY(v, "%d operands, its row says %d", i->nin, op->nin);
    if (!(op->phases & 1u << v->m->phase)) return "may not exist in this phase";
    if (i->body != NULL && i->body->owner != i) return "does not own its region";
    if ((op->emit == EMIT_ctrl) != (i->body != NULL)) return "has a region where its row has none, or lacks one";
    for (int k = 0; k < i->nin; k++)
        if (i->in[k] == NULL || i->in[k]->block != i->parent || i->in[k]->id != v->mark)
            return SAY(v, "operand %d is not defined above in the same block", k + 1);
    return NULL;
}

static const char *shapes_ok(Verifier *v, const Inst *i) {
    Shapes again;
    TRY(inst_shapes(v->a, i, &again));
    if (again.nout != i->nout) return SAY(v, "%d results, inferred %d", i->nout, again.nout);
    for (int k = 0; k < i->nout; k++) {
        TRY(type_ok(v, &i->out[k]->type));
        if (i->out[k]->def != i || i->out[k]->index != k) return "a result does not know its definition";
        if (!type_same_shape(&again.out[k], &i->out[k]->type))
            return SAY(v, "result %d is %s, inferred %s", k + 1, type_print(&i->out[k]->type, &v->m->mesh, v->a),
                       type_print(&again.out[k], &v->m->mesh, v->a));
    }
    return NULL;
}

static const char *var_use_ok(Verifier *v, const Inst *i) {
    if (i->op != OP_read && i->op != OP_write) return NULL;
    if (i->parent->owner != NULL) return "variables are read and written outside regions";
    const Type *t = i->op == OP_read ? &i->out[0]->type : &i->in[0]->type;
    if (!type_same_shape(t, &i->at.var->type)) return SAY(v, "'%s' has another type", i->at.var->path);
    if (v->m->phase >= PHASE_LOCAL && !same_axes(t, &i->at.var->type))
        return SAY(v, "'%s' is %s and is used as %s", i->at.var->path,
                   type_print(&i->at.var->type, &v->m->mesh, v->a), type_print(t, &v->m->mesh, v->a));
    return NULL;
}

/* Type of a stack without its first axis has the slice's sharding. */
static bool slice_of(const Type *stack, const Type *slice) {
    Type t = *stack;
    if (t.rank == 0 || t.dim[0].axes.n > 0) return false;
    t.rank--;
    memmove(t.dim, t.dim + 1, sizeof(Dim) * (size_t)t.rank);
    return same_axes(&t, slice);
}

static const char *loop_local_ok(Verifier *v, const Inst *i) {
    const Block *b = i->body;
    int xs = (int)i->at.xs, carry = (int)i->at.carry;
    for (int k = 0; k < i->nin; k++) {
        const Type *outer = &i->in[k]->type, *inner = &b->args.at[k + 1]->type;
        if (k < xs ? !slice_of(outer, inner) : !same_axes(outer, inner))
            return SAY(v, "operand %d and the region's argument differ in sharding: %s, %s", k + 1,
                       type_print(outer, &v->m->mesh, v->a), type_print(inner, &v->m->mesh, v->a));
    }
    for (int k = 0; k < i->nout; k++) {
        const Type *outer = &i->out[k]->type, *inner = &b->results.at[k]->type;
        bool ok = k < carry ? same_axes(outer, inner) && same_axes(outer, &b->args.at[1 + xs + k]->type)
                            : slice_of(outer, inner);
        if (!ok)
            return SAY(v, "result %d and the region's result differ in sharding: %s, %s", k + 1,
                       type_print(outer, &v->m->mesh, v->a), type_print(inner, &v->m->mesh, v->a));
    }
    return NULL;
}

/* A collective moves exactly its axes: each leaves the dim (or the partial) that it was on, as the op's row says. */
static const char *collective_ok(Verifier *v, const Inst *i) {
    if (op_info[i->op].emit != EMIT_coll || i->op == OP_reshard || i->op == OP_permute) return NULL;
    const Type *in = &i->in[0]->type, *out = &i->out[0]->type;
    if (i->at.axes.n == 0) return "runs over no mesh axis";
    for (int k = 0; k < i->at.axes.n; k++) {
        int axis = i->at.axes.at[k];
        if (!(type_axes_used(in) & 1u << axis))
            return SAY(v, "mesh axis %s splits nothing in its operand", v->m->mesh.name[axis]);
        bool stays = i->op == OP_all_to_all || i->op == OP_reduce_scatter;
        if (((type_axes_used(out) >> axis) & 1u) != stays)
            return SAY(v, "mesh axis %s is where it should not be in the result", v->m->mesh.name[axis]);
    }
    return NULL;
}

static const char *planned_ok(Verifier *v, const Value *x) {
    if (x->offset == -1) return NULL;
    int64_t bytes = type_local_bytes(&v->m->mesh, &x->type);
    if (x->offset < 0 || x->offset % OFFSET_ALIGN != 0 || x->offset + bytes > v->f->arena_bytes)
        return SAY(v, "offset %" PRId64 " of %" PRId64 " bytes is outside the arena of %" PRId64, x->offset, bytes,
                   v->f->arena_bytes);
    return NULL;
}

static const char *inst_ok(Verifier *v, const Inst *i) {
    TRY(operands_ok(v, i));
    TRY(shapes_ok(v, i));
    TRY(var_use_ok(v, i));
    if (v->m->phase >= PHASE_LOCAL) {
        TRY(rule_check(v->a, &v->m->mesh, i));
        if (i->op == OP_loop) TRY(loop_local_ok(v, i));
        TRY(collective_ok(v, i));
    }
    return NULL;
}

/* ---- blocks, functions, variables ---------------------------------------------------------------------------------------- */

static const char *value_ok(Verifier *v, const Value *x) {
    TRY(type_ok(v, &x->type));
    return v->m->phase >= PHASE_PLANNED ? planned_ok(v, x) : NULL;
}

static const char *block_ok(Verifier *v, const Block *b);

static const char *inst_in_block_ok(Verifier *v, const Block *b, const Inst *i) {
    const char *error = i->parent == b && (i->prev != NULL ? i->prev->next == i : b->first == i)
                            ? inst_ok(v, i)
                            : "is not linked into its block";
    if (error != NULL) return SAY(v, "%s: %s: %s", diag_where(i->loc), op_info[i->op].name, error);
    if (i->body != NULL) {
        int mark = v->mark;
        TRY(block_ok(v, i->body));
        v->mark = mark;
    }
    for (int k = 0; k < i->nout; k++) {
        const char *bad = value_ok(v, i->out[k]);
        if (bad != NULL) return SAY(v, "%s: %s: %s", diag_where(i->loc), op_info[i->op].name, bad);
        i->out[k]->id = v->mark;
    }
    return NULL;
}

/* Values above get the block's mark in their scratch id, so that a use before the definition is seen. */
static void clear_marks(const Block *b) {
    for (int k = 0; k < b->args.n; k++) b->args.at[k]->id = -1;
    for (const Inst *i = b->first; i != NULL; i = i->next)
        for (int k = 0; k < i->nout; k++) i->out[k]->id = -1;
}

static const char *block_ok(Verifier *v, const Block *b) {
    static int marks;
    v->mark = ++marks & 0x3fffffff;
    clear_marks(b);
    for (int k = 0; k < b->args.n; k++) {
        const Value *x = b->args.at[k];
        TRY(value_ok(v, x));
        if (x->block != b || x->def != NULL || x->index != k) return "an argument does not know its block";
        b->args.at[k]->id = v->mark;
    }
    for (const Inst *i = b->first; i != NULL; i = i->next) TRY(inst_in_block_ok(v, b, i));
    for (int k = 0; k < b->results.n; k++)
        if (b->results.at[k]->block != b || b->results.at[k]->id != v->mark)
            return SAY(v, "result %d of a block is not defined in it", k + 1);
    return NULL;
}

static const char *func_ok(Verifier *v, const Func *f) {
    v->f = f;
    if (f->result_names.n != f->body->results.n) return SAY(v, "'%s': results and names differ in number", f->name);
    if (module_func(v->m, f->name, f->kind) != f) return SAY(v, "'%s' is defined twice", f->name);
    const char *error = block_ok(v, f->body);
    if (error != NULL) return SAY(v, "in '%s': %s", f->name, error);
    for (int k = 0; k < f->body->results.n && v->m->phase >= PHASE_LOCAL; k++)
        if (f->body->results.at[k]->type.partial_kind != PARTIAL_none)
            return SAY(v, "'%s': result %d is partial", f->name, k + 1);
    return NULL;
}

static const char *var_ok(Verifier *v, const Var *x) {
    TRY(type_ok(v, &x->type));
    if (module_var(v->m, x->path) != x) return "is defined twice";
    if (x->type.partial_kind != PARTIAL_none) return "is partial";
    if (x->stacked && (x->type.rank == 0 || x->type.dim[0].axes.n > 0)) return "is stacked along a split axis, or none";
    if (v->m->phase >= PHASE_PLANNED && (x->offset < 0 || x->offset % OFFSET_ALIGN != 0)) return "has no aligned offset";
    return NULL;
}

const char *module_verify(const Module *m, Arena *a) {
    Verifier v = {.m = m, .a = a};
    if (mesh_devices(&m->mesh) < 1 || mesh_devices(&m->mesh) > MAX_DEVICES) return "the mesh has no device, or too many";
    for (int i = 0; i < m->vars.n; i++) {
        const char *error = var_ok(&v, m->vars.at[i]);
        if (error != NULL) return SAY(&v, "variable '%s' %s", m->vars.at[i]->path, error);
    }
    for (int i = 0; i < m->funcs.n; i++) TRY(func_ok(&v, m->funcs.at[i]));
    return NULL;
}
