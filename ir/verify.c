/* verify.c: what must be true of a module in its phase.
 *
 * Checked, for every function and region:
 *   structure   lists are linked both ways; a value knows its definition; an operand, or a block's result, is defined
 *               above in the same block; op, operand count and region fit the op's row; the op may exist in the phase;
 *               regions nest at most MAX_NESTING deep
 *   types       sizes, ranks and numbers of elements are bounded, labels distinct; results are what the shape rule
 *               infers; a mesh axis is used once in a type; its product divides the size of the dim; partial has a kind
 *               exactly when it has axes
 *   variables   paths are unique; a stacked variable has its trip count in front, unsplit; initializers exist; `read`
 *               and `write` stand outside regions and have the variable's type, from LOCAL on with its sharding; a
 *               function writes a variable once
 *   functions   one name a result; a name once for its kind; those of `generate` exist
 *   ANNOTATED   nothing is partial; only arguments, variables and `annotate` are pinned
 *   LOCAL       every instruction fits its sharding rule; results of functions are not partial; a loop's scanned axis
 * is not split, and its operands, arguments, results agree in their shardings PLACED      a collective leads from its
 * operand's sharding to its result's, by its attributes PLANNED     variables are aligned to 64 bytes and do not
 * overlap; every offset is aligned to its element and inside the arena
 *
 * Not checked: that buffers that live at the same time do not overlap (the interpreter runs PLANNED modules in the
 * planned memory, which finds a harmful overlap); that every value has an offset; that attributes an op does not use
 * are empty; that the order of collectives is one that all devices can follow (one list of instructions is).
 *
 * Cost: linear in the text of the module, but for names, which are compared in pairs. */
#include <inttypes.h>
#include <string.h>

#include "shape.h"
#include "support/intern.h"
#include "verify.h"

enum { VAR_ALIGN = 64 };

typedef struct Verifier {
    const Module *m;
    Arena *a;
    const Func *f;
    int marks; /* blocks begun */
    int mark;  /* Value.id of the values defined so far in the current block */
    int depth;
} Verifier;

#define SAY(v, ...) arena_printf((v)->a, __VA_ARGS__)
#define TRY(call)                                \
    do {                                         \
        const char *sentence_ = (call);          \
        if (sentence_ != NULL) return sentence_; \
    } while (0)

/* ---- types
 * ------------------------------------------------------------------------------------------------------------ */

/* What is wrong with the mesh axes of one dim, or of partial (dim NULL). */
static const char *axes_verify(const AxisList *axes, const Dim *d, const Mesh *mesh, unsigned *used, Arena *a) {
    if (axes->n > MAX_AXES) return "a list of mesh axes is too long";
    for (int k = 0; k < axes->n; k++) {
        int axis = axes->at[k];
        if (axis >= mesh->n) return arena_printf(a, "mesh axis %d does not exist", axis);
        if (*used & 1u << axis) return arena_printf(a, "mesh axis %s is used twice in one type", mesh->name[axis]);
        *used |= 1u << axis;
    }
    if (d == NULL || d->size % mesh_size(mesh, axes) == 0) return NULL;
    return arena_printf(a, "label %s of size %" PRId64 " does not divide over its mesh axes", d->label, d->size);
}

const char *type_verify_shape(const Type *t, Arena *a) {
    int64_t elements = 1;
    if (t->rank < 0 || t->rank > MAX_RANK) return arena_printf(a, "rank %d is out of range", t->rank);
    for (int i = 0; i < t->rank; i++) {
        const Dim *d = &t->dim[i];
        if (d->label == NULL || d->size < 1 || d->size > MAX_DIM)
            return arena_printf(a, "axis %d has no label, or no size between 1 and 2^40", i + 1);
        for (int k = 0; k < i; k++)
            if (t->dim[k].label == d->label) return arena_printf(a, "label %s occurs twice in one type", d->label);
        if (d->size > MAX_ELEMENTS / elements) return "a tensor has at most 2^48 elements";
        elements *= d->size;
    }
    return NULL;
}

static const char *type_ok(Verifier *v, const Type *t) {
    unsigned used = 0;
    TRY(type_verify_shape(t, v->a));
    for (int i = 0; i < t->rank; i++) TRY(axes_verify(&t->dim[i].axes, &t->dim[i], &v->m->mesh, &used, v->a));
    TRY(axes_verify(&t->partial, NULL, &v->m->mesh, &used, v->a));
    if ((t->partial.n > 0) != (t->partial_kind != PARTIAL_none)) return "partial needs both a kind and axes";
    return v->m->phase == PHASE_ANNOTATED && t->partial_kind != PARTIAL_none ? "partial before SHARDED" : NULL;
}

static bool same_axes(const Type *a, const Type *b) {
    return type_same_sharding(a, b);
}

/* ---- instructions
 * ------------------------------------------------------------------------------------------------------ */

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

/* ANNOTATED: shardings are wishes, and stand where the user can have one. */
static const char *pins_ok(Verifier *v, const Inst *i, const Type *t) {
    if (v->m->phase != PHASE_ANNOTATED || i->op == OP_annotate) return NULL;
    for (int k = 0; k < t->rank; k++)
        if (t->dim[k].pinned || t->dim[k].axes.n > 0)
            return SAY(v, "label %s of a result is pinned, and only `annotate` does that", t->dim[k].label);
    return NULL;
}

static const char *shapes_ok(Verifier *v, const Inst *i) {
    Shapes again;
    TRY(inst_shapes(v->a, i, &again));
    if (again.nout != i->nout) return SAY(v, "%d results, inferred %d", i->nout, again.nout);
    for (int k = 0; k < i->nout; k++) {
        TRY(type_ok(v, &i->out[k]->type));
        if (i->out[k]->def != i || i->out[k]->index != k) return "a result does not know its definition";
        TRY(pins_ok(v, i, &i->out[k]->type));
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
        return SAY(v, "'%s' is %s and is used as %s", i->at.var->path, type_print(&i->at.var->type, &v->m->mesh, v->a),
                   type_print(t, &v->m->mesh, v->a));
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

/* ---- collectives ------------------------------------------------------------------------------------------------
 */

/* Takes `axes` off the end of the list; false when they do not stand there. */
static bool axes_drop(AxisList *from, const AxisList *axes) {
    AxisList rest = {.n = (uint8_t)(from->n - axes->n)};
    if (axes->n > from->n) return false;
    memcpy(rest.at, from->at, rest.n);
    AxisList again = rest;
    for (int k = 0; k < axes->n; k++) axes_add(&again, axes->at[k]);
    bool stood = axes_equal(&again, from);
    *from = rest;
    return stood;
}

static bool partial_drop(Type *t, const AxisList *axes, const char *kind) {
    static const char *const words[] = {"", "sum", "max", "min"};
    if (kind != intern(words[t->partial_kind])) return false;
    AxisList rest = {0};
    for (int k = 0; k < t->partial.n; k++)
        if (!axes_has(axes, t->partial.at[k])) axes_add(&rest, t->partial.at[k]);
    bool had = rest.n + axes->n == t->partial.n;
    t->partial = rest;
    if (rest.n == 0) t->partial_kind = PARTIAL_none;
    return had;
}

/* Which parts of a sharding a collective changes. */
typedef enum Change { CHANGE_none = 0, CHANGE_join = 1, CHANGE_split = 2, CHANGE_fold = 4 } Change;

static const unsigned changes[OP_COUNT] = {
    [OP_all_gather] = CHANGE_join,
    [OP_all_reduce] = CHANGE_fold,
    [OP_reduce_scatter] = CHANGE_fold | CHANGE_split,
    [OP_all_to_all] = CHANGE_join | CHANGE_split,
    [OP_shard_slice] = CHANGE_split,
};

/* Applies the attributes to the operand's type; the result's must come out. */
static const char *collective_ok(Verifier *v, const Inst *i) {
    unsigned change = changes[i->op];
    if (change == CHANGE_none) return NULL;
    const AxisList *axes = &i->at.axes;
    Type t = i->in[0]->type;
    const Type *out = &i->out[0]->type;
    int join = change & CHANGE_join ? type_find(&t, i->at.label) : -1;
    int split = change & CHANGE_split ? type_find(&t, i->at.to) : -1;
    bool fits =
        axes->n > 0 && (join >= 0) == ((change & CHANGE_join) != 0) && (split >= 0) == ((change & CHANGE_split) != 0);
    if (fits && join >= 0) fits = axes_drop(&t.dim[join].axes, axes);
    if (fits && change & CHANGE_fold) fits = partial_drop(&t, axes, i->at.kind);
    if (fits && split >= 0) fits = t.dim[split].axes.n + axes->n <= MAX_AXES;
    for (int k = 0; fits && split >= 0 && k < axes->n; k++) axes_add(&t.dim[split].axes, axes->at[k]);
    if (fits && same_axes(&t, out)) return NULL;
    return SAY(v, "its attributes do not lead from %s to %s", type_print(&i->in[0]->type, &v->m->mesh, v->a),
               type_print(out, &v->m->mesh, v->a));
}

/* Every device takes over a whole block. */
static const char *permute_ok(Verifier *v, const Inst *i) {
    const Type *in = &i->in[0]->type, *out = &i->out[0]->type;
    bool fits = axes_equal(&in->partial, &out->partial) && in->partial_kind == out->partial_kind;
    for (int k = 0; k < in->rank && fits; k++)
        fits = dim_local(&v->m->mesh, &in->dim[k]) == dim_local(&v->m->mesh, &out->dim[k]);
    return fits ? NULL : "its blocks differ in size";
}

static const char *planned_ok(Verifier *v, const Value *x) {
    if (x->offset == -1) return NULL;
    int64_t bytes = type_local_bytes(&v->m->mesh, &x->type);
    if (x->offset < 0 || x->offset % dtype_bytes(x->type.dtype) != 0 || x->offset > v->f->arena_bytes - bytes)
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
        if (i->op == OP_permute) TRY(permute_ok(v, i));
    }
    return NULL;
}

/* ---- blocks, functions, variables
 * ---------------------------------------------------------------------------------------- */

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
        if (++v->depth > MAX_NESTING) return SAY(v, "regions nest more than %d deep", MAX_NESTING);
        TRY(block_ok(v, i->body));
        v->depth--;
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
    v->mark = ++v->marks;
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

/* `read` and `write` are outside regions, so one list has them all. */
static const char *writes_ok(Verifier *v, const Block *b) {
    for (int k = 0; k < v->m->vars.n; k++) v->m->vars.at[k]->id = 0;
    for (const Inst *i = b->first; i != NULL; i = i->next)
        if (i->op == OP_write && i->at.var->id++ > 0) return SAY(v, "'%s' is written twice", i->at.var->path);
    return NULL;
}

static const char *results_ok(Verifier *v, const Func *f) {
    for (int k = 0; k < f->body->results.n && v->m->phase >= PHASE_LOCAL; k++)
        if (f->body->results.at[k]->type.partial_kind != PARTIAL_none) return SAY(v, "result %d is partial", k + 1);
    for (int k = 0; k < v->m->vars.n && v->m->phase >= PHASE_PLANNED; k++) {
        const Var *x = v->m->vars.at[k];
        if (x->offset > f->arena_bytes - type_local_bytes(&v->m->mesh, &x->type))
            return SAY(v, "variable '%s' lies outside the arena", x->path);
    }
    return NULL;
}

static const char *func_ok(Verifier *v, const Func *f) {
    v->f = f;
    v->depth = 0;
    if (f->result_names.n != f->body->results.n) return "results and names differ in number";
    if (module_func(v->m, f->name, f->kind) != f) return "is defined twice";
    TRY(block_ok(v, f->body));
    TRY(writes_ok(v, f->body));
    return results_ok(v, f);
}

static const char *var_ok(Verifier *v, const Var *x) {
    const char *kind = x->init.kind;
    TRY(type_ok(v, &x->type));
    if (module_var(v->m, x->path) != x) return "is defined twice";
    if (x->type.partial_kind != PARTIAL_none) return "is partial";
    if (kind == NULL || (strcmp(kind, "const") != 0 && strcmp(kind, "normal") != 0 && strcmp(kind, "uniform") != 0))
        return "has no initializer";
    if (x->stacked && (x->type.rank == 0 || x->type.dim[0].axes.n > 0)) return "is stacked along a split axis, or none";
    if (v->m->phase >= PHASE_PLANNED && (x->offset < 0 || x->offset % VAR_ALIGN != 0)) return "has no aligned offset";
    return NULL;
}

static const char *vars_apart(Verifier *v, const Var *x) {
    for (int i = 0; i < v->m->vars.n && v->m->vars.at[i] != x; i++) {
        const Var *y = v->m->vars.at[i];
        if (x->offset < y->offset + type_local_bytes(&v->m->mesh, &y->type) &&
            y->offset < x->offset + type_local_bytes(&v->m->mesh, &x->type))
            return SAY(v, "lies on '%s'", y->path);
    }
    return NULL;
}

static const char *mesh_ok(Verifier *v, const Mesh *mesh) {
    int64_t devices = 1;
    if (mesh->n < 0 || mesh->n > MAX_AXES) return "the mesh has too many axes";
    for (int i = 0; i < mesh->n; i++) {
        if (mesh_axis(mesh, mesh->name[i]) != i) return SAY(v, "mesh axis '%s' is defined twice", mesh->name[i]);
        if (mesh->size[i] < 1 || mesh->size[i] > MAX_DEVICES / devices) return "the mesh has no device, or too many";
        devices *= mesh->size[i];
    }
    return NULL;
}

static const char *generate_ok(Verifier *v, const char *name) {
    if (name == NULL || module_func(v->m, name, FUNC_entry) != NULL) return NULL;
    return SAY(v, "'%s', which generates, is no entry", name);
}

const char *module_verify(const Module *m, Arena *a) {
    Verifier v = {.m = m, .a = a};
    TRY(mesh_ok(&v, &m->mesh));
    TRY(generate_ok(&v, m->generate_decode));
    TRY(generate_ok(&v, m->generate_prefill));
    for (int i = 0; i < m->vars.n; i++) {
        const char *error = var_ok(&v, m->vars.at[i]);
        if (error == NULL && m->phase >= PHASE_PLANNED) error = vars_apart(&v, m->vars.at[i]);
        if (error != NULL) return SAY(&v, "variable '%s' %s", m->vars.at[i]->path, error);
    }
    for (int i = 0; i < m->funcs.n; i++) {
        const char *error = func_ok(&v, m->funcs.at[i]);
        if (error != NULL) return SAY(&v, "in '%s': %s", m->funcs.at[i]->name, error);
    }
    return NULL;
}
