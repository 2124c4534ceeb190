/* origins.c: where the sharding of each value came from.
 *
 * While propagate runs, each mesh axis that it gives to a tensor is recorded with the tensor that had it before and the
 * instruction between them; axes that the user wrote are recorded with the annotation's place. An axis is recorded once
 * for a tensor and always after the one it came from, so that the records form a forest whose roots are annotations.
 * Later passes ask by value: values keep their address through the pipeline.
 *
 * Complexity: constant for a record and for a question; a chain is as long as the way to the annotation. */
#include "origins.h"

#include <stdint.h>
#include <stdlib.h>

enum { MAX_STEPS = 1 << 16, MAX_UP = 64 };

typedef struct Annotated {
    const Value *x;
    int tensor;
} Annotated;

struct Origins {
    Arena *arena;
    bool quiet;
    VEC(OriginTensor) tensor;
    VEC(Annotated) annotated;
    const Module *before;
    int *slot; /* by hash of a value's address: tensor, -1: none */
    size_t slots;
};

Origins *origins_new(Arena *a) {
    Origins *o = NEW(a, Origins);
    o->arena = a;
    return o;
}

Origins *origins_quiet(Arena *a) {
    Origins *o = origins_new(a);
    o->quiet = true;
    return o;
}

bool origins_warns(const Origins *o) {
    return o != NULL && !o->quiet;
}

void origins_tensor(Origins *o, const OriginTensor *t) {
    if (o == NULL) return;
    vec_push(o->arena, o->tensor, *t);
    o->tensor.at[o->tensor.n - 1].same = -1;
}

OriginTensor *origins_at(const Origins *o, int tensor) {
    return &o->tensor.at[tensor];
}

int origins_count(const Origins *o) {
    return o == NULL ? 0 : o->tensor.n;
}

void origins_add(Origins *o, int tensor, const Origin *why) {
    if (o != NULL) vec_push(o->arena, o->tensor.at[tensor].why, *why);
}

const Origin *origins_find(const Origins *o, int tensor, int axis) {
    if (o == NULL || tensor < 0) return NULL;
    const OriginTensor *t = &o->tensor.at[o->tensor.at[tensor].root];
    for (int i = 0; i < t->why.n; i++)
        if (t->why.at[i].axis == axis) return &t->why.at[i];
    return NULL;
}

void origins_annotated(Origins *o, const Value *x, int tensor) {
    if (o == NULL) return;
    vec_push(o->arena, o->annotated, ((Annotated){x, tensor}));
    OriginTensor *from = &o->tensor.at[x->id], *to = &o->tensor.at[tensor];
    if (to->name == NULL) to->name = from->name;
    if (from->name == NULL) from->name = to->name;
    to->same = x->id;
}

void origins_keep(Origins *o, const Module *m) {
    if (o != NULL && !o->quiet) o->before = module_clone(m, o->arena);
}

Module *origins_before(const Origins *o, Arena *a) {
    return o == NULL || o->before == NULL ? NULL : module_clone(o->before, a);
}

/* ---- by value ---------------------------------------------------------------------------------------------------- */

static size_t slot_of(const Origins *o, const Value *v) {
    size_t at = ((uintptr_t)v >> 4) * 0x9e3779b97f4a7c15u >> 20 & (o->slots - 1);
    while (o->slot[at] >= 0 && o->tensor.at[o->slot[at]].value != v) at = (at + 1) & (o->slots - 1);
    return at;
}

void origins_finish(Origins *o) {
    if (o == NULL) return;
    o->slots = 16;
    while (o->slots < 2 * (size_t)o->tensor.n) o->slots *= 2;
    o->slot = NEW_ARRAY(o->arena, int, o->slots);
    for (size_t i = 0; i < o->slots; i++) o->slot[i] = -1;
    for (int i = 0; i < o->tensor.n; i++)
        if (o->tensor.at[i].value != NULL) o->slot[slot_of(o, o->tensor.at[i].value)] = i;
}

int origins_of(const Origins *o, const Value *v) {
    return o == NULL || o->slots == 0 ? -1 : o->slot[slot_of(o, v)];
}

bool origins_root(const Origins *o, int tensor, int axis, Loc *loc) {
    const Origin *why = origins_find(o, tensor, axis);
    for (int steps = 0; why != NULL && steps < MAX_STEPS; steps++) {
        *loc = why->loc;
        if (why->from < 0) return true;
        why = origins_find(o, why->from, axis);
    }
    return false;
}

const Value *origins_known(const Value *v) {
    for (int i = 0; i < MAX_UP && v->def != NULL; i++) {
        if (v->def->op == OP_fused)
            v = v->def->body->results.at[v->index];
        else if (op_info[v->def->op].emit == EMIT_coll || v->def->op == OP_shard_slice)
            v = v->def->in[0];
        else
            break;
    }
    return v;
}

bool origins_var(const Origins *o, const Var *v, int axis, Loc *loc) {
    for (int i = 0; i < origins_count(o) && o->tensor.at[i].var != NULL; i++)
        if (o->tensor.at[i].var == v) return origins_root(o, i, axis, loc);
    return false;
}

/* The label that the axis splits, NULL: none. */
static Label split_label(const Type *t, int axis) {
    for (int d = 0; d < t->rank; d++)
        if (axes_has(&t->dim[d].axes, axis)) return t->dim[d].label;
    return NULL;
}

/* The operand that brings the axis in, on the same label if there is one. */
static const Value *bringer(const Value *v, Label label, int axis) {
    const Value *any = NULL;
    for (int i = 0; v->def != NULL && i < v->def->nin; i++) {
        Label theirs = split_label(&v->def->in[i]->type, axis);
        if (theirs != NULL && theirs == label) return v->def->in[i];
        if (any == NULL && (theirs != NULL || axes_has(&v->def->in[i]->type.partial, axis))) any = v->def->in[i];
    }
    return any;
}

bool origins_giver(const Origins *o, const Value *v, int axis, Loc *loc) {
    for (int up = 0; v != NULL && up < MAX_UP; up++) {
        /* What partition decided may differ from the wish: then the operands say why. */
        Label label = split_label(&v->type, axis);
        v = origins_known(v);
        int tensor = origins_of(o, v);
        bool as_wished = tensor >= 0 && label != NULL && split_label(&o->tensor.at[tensor].type, axis) == label;
        if (as_wished && origins_root(o, tensor, axis, loc)) return true;
        v = bringer(v, label, axis);
    }
    return false;
}

bool origins_asked(const Origins *o, const Value *v, const Type *t, Loc *loc) {
    v = origins_known(v);
    for (int i = 0; o != NULL && i < o->annotated.n; i++) {
        const OriginTensor *y = &o->tensor.at[o->annotated.at[i].tensor];
        if (o->annotated.at[i].x != v || !type_same_sharding(&y->type, t)) continue;
        *loc = y->loc;
        return true;
    }
    return false;
}
