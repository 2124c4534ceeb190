/* index.c: x[L: i], x[L: a..b], x[L: i] = v, and `as`.
 *
 * Indexing means multiplying by a one-hot: a fixed index or range is a slice (whose label is the difference of its
 * ends), an index that is computed gathers, out of range reads 0 and writes nothing. Labels that x and the index share
 * align. */
#include <math.h>

#include "lower.h"
#include "support/intern.h"
#include "support/str.h"

static Val index_list(Lower *lo, const Ast *e, Val x) {
    int64_t i;
    if (e->at[INDEX_LABEL] != NULL || e->at[INDEX_HI] != NULL)
        return fail(lo, e->loc, "an element of a list is written list[i]");
    if (!val_integer(lo, expr_eval(lo, e->at[INDEX_LO]), "the index of a list", e->at[INDEX_LO]->loc, &i))
        return val_error();
    if (i < 0 || i >= x.n) return fail(lo, e->at[INDEX_LO]->loc, "index %lld of a list of %d", (long long)i, x.n);
    return x.at[i];
}

/* The tensor and the axis that are indexed. */
static const Poly *indexed_label(Lower *lo, const Ast *e, Val x) {
    const Poly *p = NULL;
    if (x.kind != VAL_tensor)
        fail(lo, e->at[INDEX_X]->loc, "only tensors and lists are indexed, found %s", val_describe(lo, x));
    else if (e->at[INDEX_LABEL] == NULL)
        fail(lo, e->loc, "name the axis: x[L: i]; the tensor is %s", val_describe(lo, x));
    else if ((p = expr_label(lo, e->at[INDEX_LABEL])) != NULL && type_find(&x.t->type, p->text) < 0) {
        fail(lo, e->at[INDEX_LABEL]->loc, "there is no axis %s: the tensor is %s", p->text, val_describe(lo, x));
        p = NULL;
    }
    return p;
}

/* The ends of a..b: where it starts, and its label. */
static const Poly *range_eval(Lower *lo, const Ast *e, const Poly *of, int64_t *start) {
    const Ast *from = e->at[INDEX_LO], *to = e->at[INDEX_HI];
    Val a = expr_eval(lo, from), b = expr_eval(lo, to);
    int64_t end;
    if (!val_integer(lo, a, "the start of a slice", from->loc, start) ||
        !val_integer(lo, b, "the end of a slice", to->loc, &end))
        return NULL;
    if (*start < 0 || end > of->size) {
        fail(lo, loc_join(from->loc, to->loc), "%lld..%lld is outside the axis %s, which is 0..%lld", (long long)*start,
             (long long)end, of->text, (long long)of->size);
        return NULL;
    }
    if (end <= *start) {
        fail(lo, loc_join(from->loc, to->loc), "the slice %lld..%lld is empty", (long long)*start, (long long)end);
        return NULL;
    }
    Val n = expr_binary(lo, "-", b, a, e->loc);
    const Poly *p = val_label(lo, n, loc_join(from->loc, to->loc));
    if (p != NULL) label_of(lo, p);
    return p;
}

static bool fixed_index(Lower *lo, Val i, const Poly *of, Loc loc, int64_t *out) {
    if (!val_integer(lo, i, "an index", loc, out)) return false;
    if (*out >= 0 && *out < of->size) return true;
    fail(lo, loc, "index %lld is outside the axis %s, which is 0..%lld", (long long)*out, of->text,
         (long long)of->size);
    return false;
}

/* An index that has the label it indexes: x's axis gets another name first. */
static Value *rename_apart(Lower *lo, Value *x, const Poly *p, Label *label) {
    const Poly *apart = poly_sym(lo->a, intern_printf("%s'", p->text), p->size);
    Attrs at = {.labels = {1, {p->text}}, .dims = {.n = 1, .at = {{label_of(lo, apart), p->size}}}};
    *label = apart->text;
    return emit1(lo, OP_relabel, x, &at, lo->b.loc);
}

static Val index_tensor(Lower *lo, const Ast *e, Value *x, const Poly *p, Val i) {
    Loc loc = e->at[INDEX_LO]->loc;
    if (val_is_static(i)) {
        int64_t at;
        if (!fixed_index(lo, i, p, loc, &at)) return val_error();
        return val_tensor(emit1(lo, OP_slice, x, &(Attrs){.label = p->text, .start = at, .size = 1}, e->loc));
    }
    Value *index = val_to_tensor(lo, i, DT_i32, loc);
    if (index == NULL) return val_error();
    Label label = p->text;
    if (type_find(&index->type, label) >= 0) x = rename_apart(lo, x, p, &label);
    return val_tensor(emit2(lo, OP_gather, x, index, &(Attrs){.label = label}, e->loc));
}

Val index_eval(Lower *lo, const Ast *e) {
    Val x = expr_eval(lo, e->at[INDEX_X]);
    if (val_is_error(x)) return x;
    if (x.kind == VAL_list) return index_list(lo, e, x);
    const Poly *p = indexed_label(lo, e, x);
    if (p == NULL) return val_error();
    if (e->at[INDEX_HI] == NULL) return index_tensor(lo, e, x.t, p, expr_eval(lo, e->at[INDEX_LO]));
    int64_t start;
    const Poly *part = range_eval(lo, e, p, &start);
    if (part == NULL) return val_error();
    if (part->text == p->text) return x;
    Attrs at = {.label = p->text, .start = start, .size = part->size, .to = part->text};
    return val_tensor(emit1(lo, OP_slice, x.t, &at, e->loc));
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* The positions that an indexed assignment writes, as i32. */
static Value *written_index(Lower *lo, const Ast *e, const Poly *p) {
    Loc loc = e->at[INDEX_LO]->loc;
    int64_t start;
    if (e->at[INDEX_HI] != NULL) {
        const Poly *part = range_eval(lo, e, p, &start);
        if (part == NULL) return NULL;
        Inst *iota =
            emit(lo, OP_iota, 0, NULL, &(Attrs){.dims = {.n = 1, .at = {{part->text, part->size}}}}, NULL, loc);
        if (iota == NULL || start == 0) return iota == NULL ? NULL : iota->out[0];
        return emit2(lo, OP_add, iota->out[0], emit_const(lo, DT_i32, (double)start, loc), NULL, loc);
    }
    Val i = expr_eval(lo, e->at[INDEX_LO]);
    if (val_is_static(i) && !fixed_index(lo, i, p, loc, &start)) return NULL;
    return val_to_tensor(lo, i, DT_i32, loc);
}

/* Gives the values the axes that the written part of x has, where they lack some. */
static Value *fit_values(Lower *lo, Value *v, const Type *x, const Type *index, Label label) {
    LabelList want = {0};
    bool lacks = false;
    for (int i = 0; i < x->rank; i++) {
        if (x->dim[i].label != label) want.at[want.n++] = x->dim[i].label;
        for (int k = 0; x->dim[i].label == label && k < index->rank && want.n < MAX_RANK; k++)
            if (type_find(x, index->dim[k].label) < 0) want.at[want.n++] = index->dim[k].label;
    }
    for (int i = 0; i < want.n; i++) lacks = lacks || type_find(&v->type, want.at[i]) < 0;
    return lacks ? type_permute(lo, v, &want) : v;
}

Val index_assign(Lower *lo, const Ast *target, Val x, Val v) {
    if (val_is_error(x) || val_is_error(v)) return val_error();
    const Poly *p = indexed_label(lo, target, x);
    if (p == NULL) return val_error();
    Value *index = written_index(lo, target, p);
    Value *values = index == NULL ? NULL : val_to_tensor(lo, v, x.t->type.dtype, target->loc);
    if (values == NULL) return val_error();
    values = fit_values(lo, values, &x.t->type, &index->type, p->text);
    if (values == NULL) return val_error();
    Value *in[] = {x.t, index, values};
    Inst *inst = emit(lo, OP_update, 3, in, &(Attrs){.label = p->text}, NULL, target->loc);
    return val_tensor(inst == NULL ? NULL : inst->out[0]);
}

/* ---- as ---------------------------------------------------------------------------------------------------------- */

/* "B * S = 8 * 16 = 128": a side of `as`, and its number of elements. */
static const char *describe_side(Lower *lo, const LabelList *list, double *elements) {
    Str names = str_new(lo->a), sizes = str_new(lo->a);
    *elements = 1;
    for (int i = 0; i < list->n; i++) {
        int64_t size = label_poly(lo, list->at[i])->size;
        *elements *= (double)size;
        str_addf(&names, "%s%s", i > 0 ? " * " : "", list->at[i]);
        str_addf(&sizes, "%s%lld", i > 0 ? " * " : "", (long long)size);
    }
    if (list->n > 1) str_addf(&sizes, " = %.0f", *elements);
    return arena_printf(lo->a, "%s = %s", names.at, sizes.at);
}

/* The axes before are there, and hold as many elements as those after. */
static bool relabel_check(Lower *lo, const Ast *e, const Value *x, const LabelList *before, const LabelList *after) {
    const Ast *from = e->at[RELABEL_FROM], *to = e->at[RELABEL_TO];
    for (int i = 0; i < before->n; i++)
        if (type_find(&x->type, before->at[i]) < 0) {
            fail(lo, from->at[i]->loc, "there is no axis %s: the tensor is %s", before->at[i],
                 val_describe(lo, val_tensor((Value *)x)));
            return false;
        }
    double n, m;
    const char *left = describe_side(lo, before, &n), *right = describe_side(lo, after, &m);
    if (n == m) return true;
    return fail(lo, loc_join(from->loc, to->loc), "`as` keeps the elements, but %s and %s", left, right), false;
}

Val relabel_eval(Lower *lo, const Ast *e) {
    Val x = expr_eval(lo, e->at[RELABEL_X]);
    const Ast *from = e->at[RELABEL_FROM], *to = e->at[RELABEL_TO];
    Attrs at = {0};
    LabelList after;
    if (val_is_error(x) || !expr_labels(lo, from->n, from->at, &at.labels) || !expr_labels(lo, to->n, to->at, &after))
        return val_error();
    if (x.kind != VAL_tensor) return fail(lo, e->loc, "`as` renames axes of a tensor, found %s", val_describe(lo, x));
    if (!relabel_check(lo, e, x.t, &at.labels, &after)) return val_error();
    bool same = at.labels.n == after.n;
    at.dims.n = after.n;
    for (int i = 0; i < after.n; i++) {
        at.dims.at[i].label = after.at[i];
        at.dims.at[i].size = label_poly(lo, after.at[i])->size;
        same = same && at.labels.at[i] == after.at[i];
    }
    return same ? x : val_tensor(emit1(lo, OP_relabel, x.t, &at, e->loc));
}
