/* fill.c: built-in functions that make tensors (iota, zeros, random numbers) and that say where one lies.
 *
 * A random draw is identified by a site (the scope's path and the draw's number in it), the step and the number of the
 * loop's iteration, so that neither unrolling a loop nor another mesh changes a number. */
#include <string.h>

#include "lower.h"
#include "support/intern.h"

/* ---- new tensors ------------------------------------------------------------------------------------------------- */

/* What a shape argument says: the axes of a tensor, or of a list of dims. */
static bool shape_arg(Lower *lo, const Ast *call, int i, DimList *dims, DType *like) {
    const Ast *e = arg_at(call, i);
    LabelList labels;
    *dims = (DimList){0};
    *like = DT_f32;
    if (e->kind == AST_array) {
        if (!expr_labels(lo, e->n, e->at, &labels)) return false;
        dims->n = labels.n;
        for (int k = 0; k < labels.n; k++) {
            dims->at[k].label = labels.at[k];
            dims->at[k].size = label_poly(lo, labels.at[k])->size;
        }
        return true;
    }
    Value *x = arg_tensor(lo, call, i);
    if (x == NULL) return false;
    dims->n = x->type.rank;
    for (int k = 0; k < x->type.rank; k++) {
        dims->at[k].label = x->type.dim[k].label;
        dims->at[k].size = x->type.dim[k].size;
    }
    *like = x->type.dtype;
    return true;
}

static Val made(Inst *inst) {
    return val_tensor(inst == NULL ? NULL : inst->out[0]);
}

Val iota_eval(Lower *lo, const Builtin *b, const Ast *call) {
    const Poly *p = expr_label(lo, arg_at(call, 0));
    if (p == NULL) return val_error();
    return made(emit(lo, b->op, 0, NULL, &(Attrs){.dims = {.n = 1, .at = {{p->text, p->size}}}}, NULL, call->loc));
}

Val zeros_eval(Lower *lo, const Builtin *b, const Ast *call) {
    Attrs at = {0};
    if (!shape_arg(lo, call, 0, &at.dims, &at.dtype)) return val_error();
    return made(emit(lo, b->op, 0, NULL, &at, NULL, call->loc));
}

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

static uint32_t fnv1a(uint32_t h, const void *bytes, size_t n) {
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 16777619u;
    return h;
}

/* The number of this draw among those of the same path and iteration. */
static int64_t next_ordinal(Lower *lo) {
    const Scope *s = lo->scope;
    for (int i = 0; i < lo->ordinals.n; i++) {
        Ordinal *o = &lo->ordinals.at[i];
        if (strcmp(o->path, s->path) == 0) return o->n++;
    }
    vec_push(lo->a, lo->ordinals, ((Ordinal){s->path, 1}));
    return 0;
}

static int64_t next_site(Lower *lo) {
    int64_t ordinal = next_ordinal(lo);
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(ordinal >> (8 * i));
    uint32_t h = fnv1a(2166136261u, lo->scope->pattern, strlen(lo->scope->pattern));
    return fnv1a(h, bytes, sizeof bytes);
}

/* The number of the iteration, of all loops around together. */
static Val loop_index(Lower *lo, const LoopVar *v, Loc loc) {
    if (v == NULL) return val_int(lo, 0);
    if (v->outer == NULL) return v->val;
    Val outer = loop_index(lo, v->outer, loc), inner = v->val;
    if (outer.vec != NULL) outer = val_tensor(val_to_tensor(lo, outer, DT_i32, loc));
    return expr_binary(lo, "+", expr_binary(lo, "*", outer, val_int(lo, v->end), loc), inner, loc);
}

/* x * (to - from) + from, where given: uniform(x, from, to). */
static Val uniform_range(Lower *lo, const Ast *call, Val x) {
    const Ast *from = arg_at(call, 1), *to = arg_at(call, 2);
    if (from == NULL) return x;
    if (to == NULL) return fail(lo, call->loc, "uniform(x, from, to) has both ends, or none");
    Val a = expr_eval(lo, from), b = expr_eval(lo, to);
    Val width = expr_binary(lo, "-", b, a, call->loc);
    return expr_binary(lo, "+", expr_binary(lo, "*", x, width, call->loc), a, call->loc);
}

Val random_eval(Lower *lo, const Builtin *b, const Ast *call) {
    Attrs at = {.kind = intern(b->name)};
    DType like;
    if (!shape_arg(lo, call, 0, &at.dims, &like)) return val_error();
    at.site = next_site(lo);
    Inst *step = emit(lo, OP_runtime, 0, NULL, &(Attrs){.kind = intern("step")}, NULL, call->loc);
    Value *index = val_to_tensor(lo, loop_index(lo, lo->loop, call->loc), DT_i32, call->loc);
    if (step == NULL || index == NULL) return val_error();
    Value *in[] = {step->out[0], index};
    Val x = uniform_range(lo, call, made(emit(lo, b->op, 2, in, &at, NULL, call->loc)));
    bool narrow = like == DT_bf16 || like == DT_f16;
    if (x.kind != VAL_tensor || !narrow) return x;
    return val_tensor(emit1(lo, OP_cast, x.t, &(Attrs){.dtype = like}, call->loc));
}

/* ---- where a tensor lies ----------------------------------------------------------------------------------------- */

static Val annotated(Lower *lo, Value *x, const Type *pins, Loc loc) {
    lo->b.loc = loc;
    return val_tensor(type_annotate(lo, x, pins));
}

Val split_eval(Lower *lo, const Builtin *b, const Ast *call) {
    (void)b;
    Value *x = arg_tensor(lo, call, 0);
    const Ast *where = arg_at(call, 2);
    const Poly *p = x == NULL ? NULL : expr_label(lo, arg_at(call, 1));
    if (p == NULL) return val_error();
    Type pins = type_unsharded(&x->type);
    int at = type_find(&pins, p->text);
    if (at < 0)
        return fail(lo, arg_at(call, 1)->loc, "there is no axis %s: the tensor is %s", p->text,
                    val_describe(lo, val_tensor(x)));
    if (where->kind != AST_name && where->kind != AST_array)
        return fail(lo, where->loc, "expected an axis of the mesh, or a list of them");
    pins.dim[at].pinned = true;
    if (!where_eval(lo, where, p->size, &pins.dim[at].axes, where->loc)) return val_error();
    return annotated(lo, x, &pins, call->loc);
}

Val replicate_eval(Lower *lo, const Builtin *b, const Ast *call) {
    (void)b;
    Value *x = arg_tensor(lo, call, 0);
    if (x == NULL) return val_error();
    Type pins = type_unsharded(&x->type);
    for (int i = 0; i < pins.rank; i++) pins.dim[i].pinned = true;
    return annotated(lo, x, &pins, call->loc);
}

/* Numbers of pieces, one for each axis: each takes the next mesh axes whose sizes give it. */
static bool deal_axes(Lower *lo, const Mesh *m, int64_t pieces, int *next, AxisList *axes, Loc loc) {
    int64_t have = 1;
    while (have < pieces) {
        if (*next == m->n || pieces % (have * m->size[*next]) != 0) {
            fail(lo, loc, "the axes of the mesh, in order, do not give %lld pieces here", (long long)pieces);
            return false;
        }
        have *= m->size[*next];
        axes_add(axes, (*next)++);
    }
    return true;
}

Val shard_eval(Lower *lo, const Builtin *b, const Ast *call) {
    (void)b;
    Value *x = arg_tensor(lo, call, 0);
    const Ast *e = arg_at(call, 1);
    if (x == NULL) return val_error();
    if (e->kind != AST_array || e->n != x->type.rank)
        return fail(lo, e->loc, "expected a list with a number of pieces for each axis of %s",
                    val_describe(lo, val_tensor(x)));
    Type pins = type_unsharded(&x->type);
    int next = 0;
    for (int i = 0; i < e->n; i++) {
        int64_t pieces;
        if (!val_integer(lo, expr_eval(lo, e->at[i]), "a number of pieces", e->at[i]->loc, &pieces)) return val_error();
        pins.dim[i].pinned = true;
        if (pieces < 1 || pins.dim[i].size % pieces != 0)
            return fail(lo, e->at[i]->loc, "%s is %lld: not %lld equal pieces", pins.dim[i].label,
                        (long long)pins.dim[i].size, (long long)pieces);
        if (!deal_axes(lo, &lo->m->mesh, pieces, &next, &pins.dim[i].axes, e->at[i]->loc)) return val_error();
    }
    return annotated(lo, x, &pins, call->loc);
}
