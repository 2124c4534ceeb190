/* type.c: types of the source: element types, axes, shardings; and how arguments bind to them.
 *
 * An argument's type is a pattern. Axes that are already known (dims of the file, dims passed as arguments) are found
 * in the tensor by label; the generics that are still free then take its other axes from the right; `...` stands for
 * what is left. So axes are a set, and order matters for free generics only. A sharding pins a dim; the pins of
 * arguments and results become an `annotate`. Where axes do not divide a dim, the longest major prefix that does is
 * used. */
#include <string.h>

#include "lower.h"
#include "support/intern.h"
#include "support/str.h"

/* ---- shardings --------------------------------------------------------------------------------------------------- */

static bool axis_names(Lower *lo, const Ast *name, AxisList *out, int depth) {
    if (name->kind != AST_name) return fail(lo, name->loc, "expected the name of an axis of the mesh"), false;
    int axis = mesh_axis(&lo->m->mesh, name->name);
    if (axis >= 0) {
        if (axes_has(out, axis)) return fail(lo, name->loc, "the axis `%s` is named twice", name->name), false;
        axes_add(out, axis);
        return true;
    }
    Decl *d = lo->call == NULL ? NULL : source_find(lo->call->unit, name->name);
    if (d == NULL || d->node->kind != AST_axis) {
        VEC(const char *) names = {0};
        for (int i = 0; i < lo->m->mesh.n; i++) vec_push(lo->a, names, lo->m->mesh.name[i]);
        fail(lo, name->loc, "the mesh has no axis `%s`%s", name->name, suggest(lo, name->name, names.n, names.at));
        return false;
    }
    if (depth == MAX_AXES) return fail(lo, name->loc, "the axis `%s` is defined by itself", name->name), false;
    for (int i = 0; i < d->node->n; i++)
        if (!axis_names(lo, d->node->at[i], out, depth + 1)) return false;
    return true;
}

/* Keeps the longest major prefix whose product divides `size`; says so when that is not all. One element is never meant
 * to be split: it is what a function of one token makes of a type that is written for many. */
static void axes_fit(Lower *lo, int64_t size, AxisList *axes, Loc loc) {
    const Mesh *m = &lo->m->mesh;
    int64_t devices = mesh_size(m, axes);
    while (axes->n > 0 && size % mesh_size(m, axes) != 0) axes->n--;
    int64_t pieces = mesh_size(m, axes);
    if (pieces == devices || size == 1) return;
    if (pieces == 1)
        diag_warn(loc, "%lld elements do not split over %lld devices: each device holds all of them", (long long)size,
                  (long long)devices);
    else
        diag_warn(loc, "%lld elements do not split over %lld devices: they are in %lld pieces, each on %lld devices",
                  (long long)size, (long long)devices, (long long)pieces, (long long)(devices / pieces));
}

bool where_eval(Lower *lo, const Ast *where, int64_t size, AxisList *axes, Loc loc) {
    *axes = (AxisList){0};
    if (where->kind == AST_any)
        return fail(lo, loc, "`@?` is not supported: name the axes, or leave the dim open"), false;
    bool one = where->kind == AST_name;
    for (int i = 0; i < (one ? 1 : where->n); i++)
        if (!axis_names(lo, one ? where : where->at[i], axes, 0)) return false;
    axes_fit(lo, size, axes, loc);
    return true;
}

/* No mesh axis splits two dims. */
static bool pins_disjoint(Lower *lo, const Type *t, Loc loc) {
    AxisList seen = {0};
    for (int i = 0; i < t->rank; i++)
        for (int k = 0; k < t->dim[i].axes.n; k++) {
            int axis = t->dim[i].axes.at[k];
            if (axes_has(&seen, axis)) {
                fail(lo, loc, "the axis `%s` would split two dims of one tensor", lo->m->mesh.name[axis]);
                return false;
            }
            axes_add(&seen, axis);
        }
    return true;
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

static bool dtype_eval(Lower *lo, const Ast *node, TypeSpec *out) {
    if (node->name == NULL) return true;
    out->has_dtype = true;
    if (strcmp(node->name, "?") == 0) {
        out->dtype = lo->call->has_elem ? lo->call->elem : DT_f32;
        return true;
    }
    for (int t = 0; t < DT_COUNT; t++)
        if (strcmp(dtype_name((DType)t), node->name) == 0) return out->dtype = (DType)t, true;
    Decl *d = source_find(lo->call->unit, node->name);
    if (d == NULL || d->node->kind != AST_dtype) {
        fail(lo, node->name_loc.file != 0 ? node->name_loc : node->loc,
             "`%s` is no element type: f32, bf16, f16, i32, bool", node->name);
        return false;
    }
    Val v = decl_value(lo, d, node->loc);
    out->dtype = v.dtype;
    return !val_is_error(v);
}

static bool add_axis(Lower *lo, Type *t, const Poly *p, Loc loc) {
    if (type_find(t, p->text) >= 0)
        return fail(lo, loc, "two axes of one tensor may not have the label %s", p->text), false;
    if (t->rank == MAX_RANK) return fail(lo, loc, "a tensor has at most %d axes", MAX_RANK), false;
    t->dim[t->rank++] = (Dim){.label = label_of(lo, p), .size = p->size};
    return true;
}

static bool list_has(const LabelList *list, Label label) {
    for (int i = 0; i < list->n; i++)
        if (list->at[i] == label) return true;
    return false;
}

const LabelList *type_pack(Lower *lo, const LabelList *among) {
    const Call *c = lo->call;
    if (!c->has_pack) return NULL;
    LabelList *out = NEW(lo->a, LabelList);
    if (among == NULL) among = &c->pack;
    for (int i = 0; i < among->n; i++) {
        bool named = !list_has(&c->pack, among->at[i]);
        for (int k = 0; k < c->binds.n; k++) {
            const Bind *b = &c->binds.at[k];
            named = named || (b->dim && b->val.poly != NULL && b->val.poly->text == among->at[i]);
        }
        if (!named) out->at[out->n++] = among->at[i];
    }
    return out;
}

static bool add_pack(Lower *lo, const Ast *node, const LabelList *pack, TypeSpec *out) {
    if (pack == NULL) return fail(lo, node->loc, "`...` has no meaning here"), false;
    if (out->pack) return fail(lo, node->loc, "`...` may stand once in a type"), false;
    out->pack = true;
    out->pack_at = out->type.rank;
    for (int i = 0; i < pack->n; i++)
        if (type_find(&out->type, pack->at[i]) < 0 && !add_axis(lo, &out->type, label_poly(lo, pack->at[i]), node->loc))
            return false;
    return true;
}

/* A label of the type: its axis, pinned as its `@` says. */
static bool add_label(Lower *lo, const Ast *node, TypeSpec *out) {
    const Poly *p = expr_label(lo, node->at[LABEL_EXPR]);
    if (p == NULL || !add_axis(lo, &out->type, p, node->loc)) return false;
    if (node->n <= LABEL_WHERE || node->at[LABEL_WHERE] == NULL) return true;
    Dim *d = &out->type.dim[out->type.rank - 1];
    d->pinned = out->pinned = true;
    return where_eval(lo, node->at[LABEL_WHERE], d->size, &d->axes, node->at[LABEL_WHERE]->loc);
}

bool type_is_each(const Lower *lo, Label label) {
    return list_has(&lo->call->each, label);
}

bool type_each(Lower *lo, const LabelList *all, TypeSpec *out, Loc loc) {
    const LabelList *each = &lo->call->each;
    for (int i = each->n - 1; i >= 0; i--) {
        if (all != NULL && !list_has(all, each->at[i])) continue;
        if (type_find(&out->type, each->at[i]) >= 0) {
            if (all != NULL) continue;
            return fail(lo, loc, "`each` gives this an axis %s, which it has", each->at[i]), false;
        }
        if (!add_axis(lo, &out->type, label_poly(lo, each->at[i]), loc)) return false;
        Dim last = out->type.dim[out->type.rank - 1];
        memmove(&out->type.dim[1], &out->type.dim[0], sizeof(Dim) * (size_t)(out->type.rank - 1));
        out->type.dim[0] = last;
    }
    return true;
}

bool type_eval(Lower *lo, const Ast *node, const LabelList *pack, TypeSpec *out) {
    *out = (TypeSpec){.bare = node->bare};
    if (!dtype_eval(lo, node, out)) return false;
    out->type.dtype = out->dtype;
    /* Named axes first, so that `...` leaves them out; then they are put where they stand. */
    LabelList rest = {0};
    Type named = {0};
    for (int i = 0; i < node->n; i++) {
        TypeSpec one = {.type = named};
        if (node->at[i]->at[LABEL_EXPR]->kind == AST_ellipsis) continue;
        if (!add_label(lo, node->at[i], &one)) return false;
        named = one.type;
        out->pinned |= one.pinned;
    }
    for (int i = 0; pack != NULL && i < pack->n; i++)
        if (type_find(&named, pack->at[i]) < 0) rest.at[rest.n++] = pack->at[i];
    int next = 0;
    for (int i = 0; i < node->n; i++) {
        const Ast *label = node->at[i];
        if (label->at[LABEL_EXPR]->kind == AST_ellipsis) {
            if (!add_pack(lo, label, pack == NULL ? NULL : &rest, out)) return false;
            continue;
        }
        if (out->type.rank == MAX_RANK) return fail(lo, label->loc, "a tensor has at most %d axes", MAX_RANK), false;
        out->type.dim[out->type.rank++] = named.dim[next++];
    }
    return pins_disjoint(lo, &out->type, node->loc);
}

Value *type_annotate(Lower *lo, Value *x, const Type *t) {
    bool any = false;
    for (int i = 0; i < t->rank; i++) any = any || (t->dim[i].pinned && type_find(&x->type, t->dim[i].label) >= 0);
    if (!any) return x;
    Value *out = emit1(lo, OP_annotate, x, NULL, lo->b.loc);
    for (int i = 0; out != NULL && i < t->rank; i++) {
        int at = type_find(&out->type, t->dim[i].label);
        if (at < 0 || !t->dim[i].pinned) continue;
        out->type.dim[at].pinned = true;
        out->type.dim[at].axes = t->dim[i].axes;
    }
    return out;
}

Value *type_permute(Lower *lo, Value *x, const LabelList *order) {
    Attrs at = {.dims.n = order->n};
    bool same = order->n == x->type.rank;
    for (int i = 0; i < order->n; i++) {
        at.dims.at[i].label = order->at[i];
        at.dims.at[i].size = label_poly(lo, order->at[i])->size;
        same = same && x->type.dim[i].label == order->at[i];
    }
    return same ? x : emit1(lo, OP_broadcast, x, &at, lo->b.loc);
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

/* A generic, or a dim argument, that has no value yet. */
static bool is_free(Lower *lo, const Ast *fn, const Ast *e) {
    if (e->kind != AST_name || call_find(lo->call, e->name) != NULL) return false;
    const Ast *generics = fn->at[FN_GENERICS], *args = fn->at[FN_ARGS];
    for (int i = 0; i < generics->n; i++)
        if (generics->at[i]->name == e->name) return true;
    for (int i = 0; i < args->n; i++)
        if (args->at[i]->name == e->name && args->at[i]->at[ARG_TYPE] == NULL) return true;
    return false;
}

/* Matching of one tensor with one pattern. */
typedef struct Match {
    const Ast *arg, *type;
    const Type *x;
    Loc loc;
    bool used[MAX_RANK];
    LabelList missing; /* a scalar is broadcast to these */
} Match;

static void note_declared(Lower *lo, const Match *m) {
    note(lo, m->arg->loc, "`%s` is declared here", m->arg->name);
}

static bool match_known(Lower *lo, Match *m, const Ast *label) {
    const Poly *p = expr_label(lo, label->at[LABEL_EXPR]);
    if (p == NULL) return false;
    int at = type_find(m->x, p->text);
    if (at < 0 && m->x->rank == 0) {
        m->missing.at[m->missing.n++] = label_of(lo, p);
        return m->missing.n < MAX_RANK;
    }
    if (at < 0 || m->used[at]) {
        Value shown = {.type = *m->x};
        fail(lo, m->loc, "the argument `%s` has no axis %s: it is %s", m->arg->name, p->text,
             val_describe(lo, val_tensor(&shown)));
        note_declared(lo, m);
        return false;
    }
    m->used[at] = true;
    return true;
}

static bool match_free(Lower *lo, Match *m, const Ast *label) {
    int at = m->x->rank - 1;
    while (at >= 0 && (m->used[at] || type_is_each(lo, m->x->dim[at].label))) at--;
    if (at < 0) {
        fail(lo, m->loc, "the argument `%s` has too few axes: nothing is left for %s", m->arg->name,
             label->at[LABEL_EXPR]->name);
        note_declared(lo, m);
        return false;
    }
    m->used[at] = true;
    call_bind(lo, label->at[LABEL_EXPR]->name, val_poly(label_poly(lo, m->x->dim[at].label)), label->loc);
    call_find(lo->call, label->at[LABEL_EXPR]->name)->dim = true;
    return true;
}

static bool match_rest(Lower *lo, Match *m, bool pack) {
    LabelList *all = &lo->call->pack;
    for (int i = 0; i < m->x->rank; i++) {
        if (m->used[i] || type_is_each(lo, m->x->dim[i].label)) continue;
        if (!pack) {
            fail(lo, m->loc, "the argument `%s` has an axis %s that its type does not name", m->arg->name,
                 m->x->dim[i].label);
            note_declared(lo, m);
            return false;
        }
        bool have = list_has(all, m->x->dim[i].label);
        if (!have && all->n == MAX_RANK) return fail(lo, m->loc, "`...` has too many axes"), false;
        if (!have) all->at[all->n++] = m->x->dim[i].label;
    }
    return true;
}

static bool match_axes(Lower *lo, const Ast *fn, Match *m) {
    bool is_open[MAX_RANK] = {0}, pack = false;
    if (m->type->n > MAX_RANK) return fail(lo, m->type->loc, "a tensor has at most %d axes", MAX_RANK), false;
    for (int i = 0; i < m->type->n; i++) {
        const Ast *e = m->type->at[i]->at[LABEL_EXPR];
        if (e->kind == AST_ellipsis)
            pack = true;
        else if (!(is_open[i] = is_free(lo, fn, e)) && !match_known(lo, m, m->type->at[i]))
            return false;
    }
    lo->call->has_pack = lo->call->has_pack || pack;
    for (int i = m->type->n - 1; i >= 0; i--)
        if (is_open[i] && !match_free(lo, m, m->type->at[i])) return false;
    return match_rest(lo, m, pack);
}

/* The argument as a tensor of the declared element type; `?` is bound by the first tensor. */
static Value *match_dtype(Lower *lo, const Match *m, Val v) {
    Call *c = lo->call;
    bool any = m->type->name != NULL && strcmp(m->type->name, "?") == 0;
    if (any && !c->has_elem && v.kind == VAL_tensor) {
        c->has_elem = true;
        c->elem = v.t->type.dtype;
    }
    TypeSpec spec = {0};
    if (!dtype_eval(lo, m->type, &spec)) return NULL;
    if (!spec.has_dtype) return val_to_any(lo, v, m->loc);
    int before = lo->said.n;
    Value *x = val_to_tensor(lo, v, spec.dtype, m->loc);
    if (x == NULL && lo->said.n > before) note_declared(lo, m);
    return x;
}

/* A value that must be known when compiling: `sparse: bool`. */
static Val bind_bare(Lower *lo, const Ast *arg, Val v, Loc loc) {
    TypeSpec spec = {0};
    if (!dtype_eval(lo, arg->at[ARG_TYPE], &spec) || val_is_error(v)) return val_error();
    bool ok = spec.dtype == DT_bool ? v.kind == VAL_bool : v.kind == VAL_num && (spec.dtype != DT_i32 || v.integer);
    if (ok) return v;
    fail(lo, loc, "the argument `%s` is a value known when compiling (%s), found %s", arg->name, dtype_name(spec.dtype),
         val_describe(lo, v));
    note(lo, arg->loc, "`%s` is declared here; %s[] would be a tensor", arg->name, dtype_name(spec.dtype));
    return val_error();
}

/* A dim; one given as a plain number is named after the argument. */
static Val bind_dim(Lower *lo, const Ast *arg, Val v, Loc loc) {
    const Poly *p = val_label(lo, v, loc);
    if (p != NULL && poly_is_const(p)) p = dim_symbol(lo, arg->name, arg, p->size, true, loc);
    return p == NULL ? val_error() : val_poly(p);
}

Val type_bind(Lower *lo, const Ast *fn, const Ast *arg, Val v, Loc loc) {
    const Ast *type = arg->at[ARG_TYPE];
    if (val_is_error(v)) return v;
    if (type == NULL) return arg->at[ARG_DEFAULT] == NULL ? bind_dim(lo, arg, v, loc) : v;
    if (v.kind == VAL_none && arg->at[ARG_DEFAULT] != NULL) return v;
    if (type->bare) return bind_bare(lo, arg, v, loc);
    Match m = {.arg = arg, .type = type, .loc = loc};
    Value *x = match_dtype(lo, &m, v);
    if (x == NULL) return val_error();
    m.x = &x->type;
    if (!match_axes(lo, fn, &m)) return val_error();
    if (m.missing.n > 0) x = type_permute(lo, x, &m.missing);
    TypeSpec spec;
    if (x == NULL || !type_eval(lo, type, type_pack(lo, NULL), &spec)) return val_error();
    lo->b.loc = type->loc;
    return val_tensor(type_annotate(lo, x, &spec.type));
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static bool check_labels(Lower *lo, const TypeSpec *spec, const Value *x, const Ast *result, Loc loc) {
    for (int i = 0; i < x->type.rank; i++)
        if (type_find(&spec->type, x->type.dim[i].label) < 0 && !type_is_each(lo, x->type.dim[i].label)) {
            fail(lo, loc, "the result has an axis %s that its declared type does not", x->type.dim[i].label);
            note(lo, result->loc, "declared here");
            return false;
        }
    for (int i = 0; i < spec->type.rank; i++) {
        Label label = spec->type.dim[i].label;
        if ((spec->pack && list_has(&lo->call->pack, label)) || type_find(&x->type, label) >= 0) continue;
        fail(lo, loc, "the result has no axis %s: it is %s", label, val_describe(lo, val_tensor((Value *)x)));
        note(lo, result->loc, "declared here");
        return false;
    }
    return true;
}

Val type_result(Lower *lo, const Ast *fn, int i, Val v, Loc loc) {
    const Ast *result = fn->at[FN_RESULTS]->at[i], *type = result->at[0];
    TypeSpec spec;
    if (val_is_error(v) || !type_eval(lo, type, type_pack(lo, NULL), &spec)) return val_error();
    if (type->bare && v.kind != VAL_tensor) return v;
    Value *x = spec.has_dtype ? val_to_tensor(lo, v, spec.dtype, loc) : val_to_any(lo, v, loc);
    if (x == NULL) return val_error();
    if (v.kind != VAL_tensor && spec.type.rank > 0) {
        LabelList all = type_labels(&spec.type);
        if ((x = type_permute(lo, x, &all)) == NULL) return val_error();
    }
    if (!check_labels(lo, &spec, x, result, loc)) return val_error();
    lo->b.loc = type->loc;
    return val_tensor(type_annotate(lo, x, &spec.type));
}
