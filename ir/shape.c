/* shape.c: the types of results from the types of operands; one function for each name in the shape column of ops.def.
 *
 * A shape function checks its operands and attributes and fills in the results' types, or returns a sentence for the
 * person who wrote the model. Operands count from 1 in sentences. Labels decide everything: first all operands must
 * agree on the size of each label (`agree`), then the result's axes are picked from what was seen.
 *
 * Before: operands have valid types. After: every result has distinct labels, rank within MAX_RANK, sizes from 1 to
 * MAX_DIM and at most MAX_ELEMENTS elements; no result is sharded. Shapes are global, so the same functions serve every
 * phase.
 * Cost: O(operands x rank x labels), with at most MAX_FACTORS labels. */
#include "shape.h"

#include <math.h>

#include "support/intern.h"
#include "support/str.h"

/* Every label of the operands, its size, and the operand that showed it first. */
typedef struct Seen {
    int n;
    struct {
        Label label;
        int64_t size;
        int operand;
    } at[MAX_FACTORS];
} Seen;

typedef struct Shaping {
    Arena *arena;
    const Inst *inst;
    Shapes result;
    Seen seen;
} Shaping;

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

#define SAY(s, ...) arena_printf((s)->arena, __VA_ARGS__)
/* A rule inside a rule: its sentence is this one's. */
#define TRY(call)                                \
    do {                                         \
        const char *sentence_ = (call);          \
        if (sentence_ != NULL) return sentence_; \
    } while (0)

static const Type *operand(const Shaping *s, int i) {
    return &s->inst->in[i]->type;
}

static Type *results(Shaping *s, int n) {
    s->result = (Shapes){NEW_ARRAY(s->arena, Type, n > 0 ? n : 1), n};
    return s->result.out;
}

static bool is_float(DType t) {
    return t == DT_f32 || t == DT_bf16 || t == DT_f16;
}

/* "B, S, M", or "none". */
static const char *label_names(Shaping *s, const Type *t) {
    Str text = str_new(s->arena);
    for (int i = 0; i < t->rank; i++) str_addf(&text, "%s%s", i > 0 ? ", " : "", t->dim[i].label);
    return t->rank > 0 ? text.at : "none";
}

static int seen_find(const Seen *seen, Label label) {
    for (int i = 0; i < seen->n; i++)
        if (seen->at[i].label == label) return i;
    return -1;
}

static const char *see_operand(Shaping *s, int k) {
    const Type *t = operand(s, k);
    Seen *seen = &s->seen;
    for (int i = 0; i < t->rank; i++) {
        int at = seen_find(seen, t->dim[i].label);
        if (at >= 0 && seen->at[at].size != t->dim[i].size)
            return SAY(s, "label %s is %lld in operand %d and %lld in operand %d", t->dim[i].label,
                       (long long)seen->at[at].size, seen->at[at].operand + 1, (long long)t->dim[i].size, k + 1);
        if (at >= 0) continue;
        if (seen->n == MAX_FACTORS) return SAY(s, "the operands have more than %d labels", MAX_FACTORS);
        seen->at[seen->n].label = t->dim[i].label;
        seen->at[seen->n].size = t->dim[i].size;
        seen->at[seen->n++].operand = k;
    }
    return NULL;
}

/* All operands give each label one size. */
static const char *agree(Shaping *s) {
    for (int k = 0; k < s->inst->nin; k++) TRY(see_operand(s, k));
    return NULL;
}

static const char *same_dtypes(Shaping *s, int from) {
    for (int k = from + 1; k < s->inst->nin; k++)
        if (operand(s, k)->dtype != operand(s, from)->dtype)
            return SAY(s, "operand %d is %s and operand %d is %s; cast one of them", from + 1,
                       dtype_name(operand(s, from)->dtype), k + 1, dtype_name(operand(s, k)->dtype));
    return NULL;
}

static const char *want_dtype(Shaping *s, int k, DType t) {
    if (operand(s, k)->dtype == t) return NULL;
    return SAY(s, "operand %d is %s where %s is needed", k + 1, dtype_name(operand(s, k)->dtype), dtype_name(t));
}

static const char *want_scalar(Shaping *s, int k, DType t) {
    if (operand(s, k)->rank > 0)
        return SAY(s, "operand %d must have no axes; it has %s", k + 1, label_names(s, operand(s, k)));
    return want_dtype(s, k, t);
}

/* The operand's axis of that label, in *axis. */
static const char *want_axis(Shaping *s, int k, Label label, int *axis) {
    if (label == NULL) return SAY(s, "a label is missing");
    *axis = type_find(operand(s, k), label);
    if (*axis >= 0) return NULL;
    return SAY(s, "operand %d has no label %s (its labels: %s)", k + 1, label, label_names(s, operand(s, k)));
}

static const char *append(Shaping *s, Type *t, Label label, int64_t size) {
    if (label == NULL) return SAY(s, "the label of a new axis is missing");
    if (type_find(t, label) >= 0) return SAY(s, "the result would have two axes labelled %s", label);
    if (t->rank == MAX_RANK) return SAY(s, "the result would have more than %d axes", MAX_RANK);
    if (size < 1 || size > MAX_DIM)
        return SAY(s, "label %s would be %lld; a size lies between 1 and 2^40", label, (long long)size);
    t->dim[t->rank++] = (Dim){.label = label, .size = size};
    return NULL;
}

static const char *append_dims(Shaping *s, Type *t, const DimList *dims) {
    for (int i = 0; i < dims->n; i++) TRY(append(s, t, dims->at[i].label, dims->at[i].size));
    return NULL;
}

/* A copy of operand k with axis `axis` replaced in place by `label` of `size`, or dropped when label is NULL. */
static const char *replace_axis(Shaping *s, Type *t, int k, int axis, Label label, int64_t size) {
    const Type *x = operand(s, k);
    t->dtype = x->dtype;
    for (int i = 0; i < x->rank; i++) {
        if (i != axis) TRY(append(s, t, x->dim[i].label, x->dim[i].size));
        if (i == axis && label != NULL) TRY(append(s, t, label, size));
    }
    return NULL;
}

static bool has_label(const LabelList *list, Label label) {
    for (int i = 0; i < list->n; i++)
        if (list->at[i] == label) return true;
    return false;
}

static const char *distinct(Shaping *s, const LabelList *list) {
    for (int i = 0; i < list->n; i++)
        for (int k = 0; k < i; k++)
            if (list->at[i] == list->at[k]) return SAY(s, "label %s is listed twice", list->at[i]);
    return NULL;
}

static const char *unknown_kind(Shaping *s, const char *kinds) {
    const char *kind = s->inst->at.kind;
    return SAY(s, "kind is %s where one of %s is needed", kind == NULL ? "missing" : kind, kinds);
}

static bool kind_is(const Shaping *s, const char *kind) {
    return s->inst->at.kind == intern(kind);
}

/* ---- element-wise ------------------------------------------------------------------------------------------------ */

/* Broadcasting by label: the axes of the first operand of highest rank, then what the others add. */
static const char *broadcast_all(Shaping *s, DType dtype) {
    TRY(agree(s));
    int lead = 0;
    for (int k = 1; k < s->inst->nin; k++)
        if (operand(s, k)->rank > operand(s, lead)->rank) lead = k;
    Type *t = results(s, 1);
    *t = type_unsharded(operand(s, lead));
    t->dtype = dtype;
    for (int k = 0; k < s->inst->nin; k++)
        for (int i = 0; i < operand(s, k)->rank; i++) {
            const Dim *d = &operand(s, k)->dim[i];
            if (type_find(t, d->label) < 0) TRY(append(s, t, d->label, d->size));
        }
    return NULL;
}

static const char *shape_arith(Shaping *s) {
    TRY(same_dtypes(s, 0));
    if (operand(s, 0)->dtype == DT_bool) return SAY(s, "arithmetic on bool; cast it to i32 or f32");
    return broadcast_all(s, operand(s, 0)->dtype);
}

static const char *shape_real(Shaping *s) {
    TRY(same_dtypes(s, 0));
    if (!is_float(operand(s, 0)->dtype))
        return SAY(s, "operand 1 is %s where a floating-point type is needed", dtype_name(operand(s, 0)->dtype));
    return broadcast_all(s, operand(s, 0)->dtype);
}

static const char *shape_compare(Shaping *s) {
    TRY(same_dtypes(s, 0));
    return broadcast_all(s, DT_bool);
}

static const char *shape_logic(Shaping *s) {
    for (int k = 0; k < s->inst->nin; k++) TRY(want_dtype(s, k, DT_bool));
    return broadcast_all(s, DT_bool);
}

static const char *shape_where(Shaping *s) {
    TRY(want_dtype(s, 0, DT_bool));
    TRY(same_dtypes(s, 1));
    return broadcast_all(s, operand(s, 1)->dtype);
}

static const char *shape_cast(Shaping *s) {
    if (s->inst->at.dtype >= DT_COUNT) return SAY(s, "no such element type");
    return broadcast_all(s, s->inst->at.dtype);
}

/* The creator of an annotation pins dims of the result afterwards; inst_infer keeps them. */
static const char *shape_same(Shaping *s) {
    *results(s, 1) = type_unsharded(operand(s, 0));
    return NULL;
}

/* ---- sources ----------------------------------------------------------------------------------------------------- */

/* One result with the axes `dims`. */
static const char *made(Shaping *s, DType dtype) {
    Type *t = results(s, 1);
    t->dtype = dtype;
    return append_dims(s, t, &s->inst->at.dims);
}

static const char *shape_const(Shaping *s) {
    DType dtype = s->inst->at.dtype;
    double value = s->inst->at.value;
    if (dtype >= DT_COUNT) return SAY(s, "no such element type");
    if (dtype == DT_bool && value != 0 && value != 1) return SAY(s, "a bool constant is 0 or 1, not %g", value);
    if (dtype == DT_i32 && !(value >= INT32_MIN && value <= INT32_MAX && value == floor(value)))
        return SAY(s, "%.17g does not fit in i32", value);
    return made(s, dtype);
}

static const char *shape_iota(Shaping *s) {
    if (s->inst->at.dims.n != 1) return SAY(s, "iota has one axis, not %d", s->inst->at.dims.n);
    if (s->inst->at.dims.at[0].size > INT32_MAX) return SAY(s, "the indices of an iota are i32; its axis is longer");
    return made(s, DT_i32);
}

static const char *shape_random(Shaping *s) {
    TRY(want_scalar(s, 0, DT_i32));
    TRY(want_scalar(s, 1, DT_i32));
    if (!kind_is(s, "uniform") && !kind_is(s, "normal")) return unknown_kind(s, "uniform, normal");
    return made(s, DT_f32);
}

static const char *shape_runtime(Shaping *s) {
    if (!kind_is(s, "step") && !kind_is(s, "steps")) return unknown_kind(s, "step, steps");
    results(s, 1)->dtype = DT_i32;
    return NULL;
}

static const char *shape_read(Shaping *s) {
    if (s->inst->at.var == NULL) return SAY(s, "a variable is missing");
    *results(s, 1) = type_unsharded(&s->inst->at.var->type);
    return NULL;
}

static const char *shape_write(Shaping *s) {
    const Var *var = s->inst->at.var;
    if (var == NULL) return SAY(s, "a variable is missing");
    const Type *x = operand(s, 0);
    TRY(want_dtype(s, 0, var->type.dtype));
    if (!type_same_shape(x, &var->type))
        return SAY(s, "%s has axes %s; the value written has %s, or another size of one", var->path,
                   label_names(s, &var->type), label_names(s, x));
    results(s, 0);
    return NULL;
}

/* ---- contractions and folds -------------------------------------------------------------------------------------- */

static const char *shape_einsum(Shaping *s) {
    const LabelList *labels = &s->inst->at.labels;
    if (s->inst->nin == 0) return SAY(s, "einsum needs an operand");
    TRY(same_dtypes(s, 0));
    DType dtype = operand(s, 0)->dtype;
    if (dtype != DT_f32 && dtype != DT_i32) return SAY(s, "einsum is of f32 or i32, not %s", dtype_name(dtype));
    TRY(agree(s));
    Type *t = results(s, 1);
    t->dtype = dtype;
    for (int i = 0; i < labels->n; i++) {
        int at = seen_find(&s->seen, labels->at[i]);
        if (at < 0) return SAY(s, "label %s of the result is in no operand", labels->at[i]);
        TRY(append(s, t, labels->at[i], s->seen.at[at].size));
    }
    return NULL;
}

/* bool counts when it is summed. */
static DType summed(DType t) {
    return t == DT_bool ? DT_i32 : t;
}

static const char *shape_reduce(Shaping *s) {
    const LabelList *over = &s->inst->at.labels;
    const Type *x = operand(s, 0);
    bool any = kind_is(s, "any"), sum = kind_is(s, "sum");
    if (!any && !sum && !kind_is(s, "max") && !kind_is(s, "min")) return unknown_kind(s, "sum, max, min, any");
    if (any) TRY(want_dtype(s, 0, DT_bool));
    if (over->n == 0) return SAY(s, "reduce needs a label");
    TRY(distinct(s, over));
    for (int i = 0; i < over->n; i++) {
        int axis;
        TRY(want_axis(s, 0, over->at[i], &axis));
    }
    Type *t = results(s, 1);
    t->dtype = sum ? summed(x->dtype) : x->dtype;
    for (int i = 0; i < x->rank; i++)
        if (!has_label(over, x->dim[i].label)) TRY(append(s, t, x->dim[i].label, x->dim[i].size));
    return NULL;
}

static const char *shape_cumsum(Shaping *s) {
    int axis;
    TRY(want_axis(s, 0, s->inst->at.label, &axis));
    TRY(shape_same(s));
    s->result.out->dtype = summed(operand(s, 0)->dtype);
    return NULL;
}

static const char *shape_top_k(Shaping *s) {
    const Attrs *at = &s->inst->at;
    int axis;
    TRY(want_dtype(s, 0, DT_f32));
    TRY(want_axis(s, 0, at->label, &axis));
    int64_t from = operand(s, 0)->dim[axis].size;
    if (at->to == NULL) return SAY(s, "the label of the %lld largest is missing", (long long)at->size);
    if (at->size > from)
        return SAY(s, "the largest %lld along %s, which is %lld", (long long)at->size, at->label, (long long)from);
    Type *t = results(s, 2);
    TRY(replace_axis(s, &t[0], 0, axis, at->to, at->size));
    t[1] = t[0];
    t[1].dtype = DT_i32;
    return NULL;
}

static const char *shape_ordinal(Shaping *s) {
    const Attrs *at = &s->inst->at;
    int axis;
    TRY(want_dtype(s, 0, DT_i32));
    TRY(want_axis(s, 0, at->label, &axis));
    if (at->to == NULL) return SAY(s, "the label of the counts is missing");
    Type *t = results(s, 2);
    t[0] = type_unsharded(operand(s, 0));
    return replace_axis(s, &t[1], 0, axis, at->to, at->size);
}

/* ---- indices and layout ------------------------------------------------------------------------------------------ */

static const char *shape_one_hot(Shaping *s) {
    TRY(want_dtype(s, 0, DT_i32));
    TRY(shape_same(s));
    s->result.out->dtype = DT_bool;
    return append(s, s->result.out, s->inst->at.label, s->inst->at.size);
}

static const char *shape_broadcast(Shaping *s) {
    const Type *x = operand(s, 0);
    TRY(made(s, x->dtype));
    const Type *t = s->result.out;
    for (int i = 0; i < x->rank; i++) {
        int at = type_find(t, x->dim[i].label);
        if (at < 0) return SAY(s, "label %s of the operand is missing in the result", x->dim[i].label);
        if (t->dim[at].size != x->dim[i].size)
            return SAY(s, "label %s is %lld in operand 1 and %lld in the result", x->dim[i].label,
                       (long long)x->dim[i].size, (long long)t->dim[at].size);
    }
    return NULL;
}

/* The product of sizes, or MAX_ELEMENTS + 1 when it is larger than that or a size is not positive. */
static int64_t bounded_product(int64_t product, int64_t size) {
    if (size < 1 || product > MAX_ELEMENTS / size) return MAX_ELEMENTS + 1;
    return product * size;
}

/* The new axes stand where the first of the old ones stood in the operand. */
static const char *shape_relabel(Shaping *s) {
    const LabelList *from = &s->inst->at.labels;
    const DimList *to = &s->inst->at.dims;
    const Type *x = operand(s, 0);
    if (from->n == 0 || to->n == 0) return SAY(s, "relabel needs labels on both sides");
    TRY(distinct(s, from));
    int64_t before = 1, after = 1;
    int first = x->rank;
    for (int i = 0; i < from->n; i++) {
        int axis;
        TRY(want_axis(s, 0, from->at[i], &axis));
        before = bounded_product(before, x->dim[axis].size);
        if (axis < first) first = axis;
    }
    for (int i = 0; i < to->n; i++) after = bounded_product(after, to->at[i].size);
    if (before != after || before > MAX_ELEMENTS)
        return SAY(s, "%s%s has %lld elements and cannot become %s%s with %lld", from->at[0], from->n > 1 ? " ..." : "",
                   (long long)before, to->at[0].label, to->n > 1 ? " ..." : "", (long long)after);
    Type *t = results(s, 1);
    t->dtype = x->dtype;
    for (int i = 0; i < x->rank; i++) {
        if (i == first) TRY(append_dims(s, t, to));
        if (!has_label(from, x->dim[i].label)) TRY(append(s, t, x->dim[i].label, x->dim[i].size));
    }
    return NULL;
}

/* size indices from start on lie within `whole`, the size of `label`. */
static const char *within(Shaping *s, Label label, int64_t start, int64_t size, int64_t whole) {
    if (start >= 0 && size >= 1 && size <= whole && start <= whole - size) return NULL;
    return SAY(s, "indices %lld .. %lld+%lld of label %s, which is %lld", (long long)start, (long long)start,
               (long long)size, label, (long long)whole);
}

static const char *shape_slice(Shaping *s) {
    const Attrs *at = &s->inst->at;
    int axis;
    TRY(want_axis(s, 0, at->label, &axis));
    TRY(within(s, at->label, at->start, at->size, operand(s, 0)->dim[axis].size));
    if (at->to == NULL && at->size != 1)
        return SAY(s, "%lld indices of label %s need a label of their own", (long long)at->size, at->label);
    return replace_axis(s, results(s, 1), 0, axis, at->to, at->size);
}

/* Without `to` the new axis stands in front. */
static const char *shape_pad(Shaping *s) {
    const Attrs *at = &s->inst->at;
    const Type *x = operand(s, 0);
    int axis = -1;
    if (at->label == NULL) return SAY(s, "the label of the padded axis is missing");
    if (at->to != NULL) TRY(want_axis(s, 0, at->to, &axis));
    TRY(within(s, at->label, at->start, axis < 0 ? 1 : x->dim[axis].size, at->size));
    Type *t = results(s, 1);
    if (axis < 0) TRY(append(s, t, at->label, at->size));
    return replace_axis(s, t, 0, axis, axis < 0 ? NULL : at->label, at->size);
}

/* Checks x[label: index] (operands 0 and 1) and gives its type. */
static const char *gathered(Shaping *s, Type *t) {
    const Type *x = operand(s, 0), *index = operand(s, 1);
    int axis;
    TRY(want_dtype(s, 1, DT_i32));
    TRY(want_axis(s, 0, s->inst->at.label, &axis));
    if (type_find(index, s->inst->at.label) >= 0)
        return SAY(s, "the index has the label %s that it indexes", s->inst->at.label);
    TRY(see_operand(s, 0));
    TRY(see_operand(s, 1));
    t->dtype = x->dtype;
    for (int i = 0; i < x->rank; i++) {
        if (i != axis) TRY(append(s, t, x->dim[i].label, x->dim[i].size));
        for (int k = 0; i == axis && k < index->rank; k++)
            if (type_find(x, index->dim[k].label) < 0) TRY(append(s, t, index->dim[k].label, index->dim[k].size));
    }
    return NULL;
}

static const char *shape_gather(Shaping *s) {
    return gathered(s, results(s, 1));
}

/* The index's labels that x lacks are `labels`; the inverse is by the labels that both have, `label`, and others. */
static const char *shape_take(Shaping *s) {
    const LabelList *own = &s->inst->at.labels;
    TRY(gathered(s, results(s, 1)));
    const Type *x = operand(s, 0), *index = operand(s, 1);
    int axis, n = 0;
    TRY(want_dtype(s, 2, DT_i32));
    TRY(want_axis(s, 2, s->inst->at.label, &axis));
    TRY(see_operand(s, 2));
    TRY(distinct(s, own));
    for (int i = 0; i < index->rank; i++) n += type_find(x, index->dim[i].label) < 0;
    for (int i = 0; i < own->n; i++)
        if (type_find(index, own->at[i]) < 0 || type_find(x, own->at[i]) >= 0 ||
            type_find(operand(s, 2), own->at[i]) >= 0)
            return SAY(s, "label %s is not one of the index alone", own->at[i]);
    return own->n == n ? NULL : SAY(s, "the index has %d labels of its own, and %d are listed", n, own->n);
}

static const char *shape_scatter(Shaping *s) {
    const Attrs *at = &s->inst->at;
    const Type *x = operand(s, 0), *index = operand(s, 1);
    if (x->dtype == DT_bool) return SAY(s, "a sum of bool; cast it to i32 or f32");
    TRY(want_dtype(s, 1, DT_i32));
    TRY(agree(s));
    if (at->label == NULL || !has_label(&at->labels, at->label))
        return SAY(s, "the result's labels must contain the label that is indexed");
    if (seen_find(&s->seen, at->label) >= 0) return SAY(s, "an operand already has the label %s", at->label);
    for (int i = 0; i < index->rank; i++)
        if (type_find(x, index->dim[i].label) < 0)
            return SAY(s, "label %s of the index is missing in the values", index->dim[i].label);
    for (int i = 0; i < x->rank; i++)
        if (!has_label(&at->labels, x->dim[i].label) && type_find(index, x->dim[i].label) < 0)
            return SAY(s, "label %s of the values is neither in the result nor in the index", x->dim[i].label);
    Type *t = results(s, 1);
    t->dtype = x->dtype;
    for (int i = 0; i < at->labels.n; i++) {
        Label label = at->labels.at[i];
        int axis = type_find(x, label);
        if (label != at->label && axis < 0) return SAY(s, "label %s of the result is not in the values", label);
        TRY(append(s, t, label, label == at->label ? at->size : x->dim[axis].size));
    }
    return NULL;
}

/* x[label: i] = v, where v has the axes of the gather x[label: i], in any order. */
static const char *shape_update(Shaping *s) {
    Type slot = {0};
    TRY(gathered(s, &slot));
    TRY(want_dtype(s, 2, slot.dtype));
    TRY(see_operand(s, 2));
    const Type *v = operand(s, 2);
    bool same = v->rank == slot.rank;
    for (int i = 0; i < v->rank; i++) same = same && type_find(&slot, v->dim[i].label) >= 0;
    if (!same) return SAY(s, "the values have axes %s where %s is needed", label_names(s, v), label_names(s, &slot));
    return shape_same(s);
}

/* ---- regions ----------------------------------------------------------------------------------------------------- */

static const char *arg_like(Shaping *s, const Block *body, int arg, const Type *t) {
    if (type_same_shape(&body->args.at[arg]->type, t)) return NULL;
    return SAY(s, "argument %d of the body has another type than what it stands for", arg + 1);
}

/* Loop: arguments (iteration, slices of xs, carried, invariant). */
static const char *loop_arguments(Shaping *s) {
    const Attrs *at = &s->inst->at;
    const Block *body = s->inst->body;
    if (body->args.n != s->inst->nin + 1)
        return SAY(s, "the body has %d arguments where %d are needed", body->args.n, s->inst->nin + 1);
    TRY(arg_like(s, body, 0, &(Type){.dtype = DT_i32}));
    for (int k = 0; k < s->inst->nin; k++) {
        Type t = type_unsharded(operand(s, k));
        if (k < at->xs) {
            if (t.rank == 0 || t.dim[0].label != at->label)
                return SAY(s, "the first axis of operand %d is not %s, along which the loop runs", k + 1, at->label);
            if (t.dim[0].size != at->trip)
                return SAY(s, "label %s is %lld in operand %d, and the loop runs %lld times", at->label,
                           (long long)t.dim[0].size, k + 1, (long long)at->trip);
            for (int i = 1; i < t.rank; i++) t.dim[i - 1] = t.dim[i];
            t.rank--;
        }
        TRY(arg_like(s, body, k + 1, &t));
    }
    return NULL;
}

static const char *shape_loop(Shaping *s) {
    const Attrs *at = &s->inst->at;
    const Block *body = s->inst->body;
    if (body == NULL) return SAY(s, "a loop needs a body");
    if (at->trip < 1 || at->trip > MAX_DIM) return SAY(s, "a loop cannot run %lld times", (long long)at->trip);
    if (at->xs < 0 || at->carry < 0 || at->xs > s->inst->nin || at->carry > s->inst->nin - at->xs)
        return SAY(s, "%lld scanned and %lld carried operands of %d", (long long)at->xs, (long long)at->carry,
                   s->inst->nin);
    int carry = (int)at->carry;
    if (body->results.n < carry) return SAY(s, "the body has %d results and %d carried values", body->results.n, carry);
    if (at->label == NULL && (at->xs > 0 || body->results.n > carry)) return SAY(s, "the loop's label is missing");
    TRY(loop_arguments(s));
    Type *t = results(s, body->results.n);
    for (int i = 0; i < body->results.n; i++) {
        const Type *y = &body->results.at[i]->type;
        if (i < carry && !type_same_shape(y, operand(s, (int)at->xs + i)))
            return SAY(s, "carried value %d leaves the body with another type than it enters", i + 1);
        t[i].dtype = y->dtype;
        if (i >= carry) TRY(append(s, &t[i], at->label, at->trip));
        for (int k = 0; k < y->rank; k++) TRY(append(s, &t[i], y->dim[k].label, y->dim[k].size));
    }
    return NULL;
}

static const char *shape_fused(Shaping *s) {
    const Block *body = s->inst->body;
    if (body == NULL) return SAY(s, "fused needs a body");
    if (body->args.n != s->inst->nin)
        return SAY(s, "the body has %d arguments where %d are needed", body->args.n, s->inst->nin);
    for (int k = 0; k < s->inst->nin; k++) TRY(arg_like(s, body, k, operand(s, k)));
    Type *t = results(s, body->results.n);
    for (int i = 0; i < body->results.n; i++) t[i] = type_unsharded(&body->results.at[i]->type);
    return NULL;
}

static const char *shape_grad(Shaping *s) {
    if (s->inst->nin < 2) return SAY(s, "grad needs a value and what to differentiate it by");
    TRY(want_scalar(s, 0, DT_f32));
    Type *t = results(s, s->inst->nin - 1);
    for (int k = 1; k < s->inst->nin; k++) {
        if (!is_float(operand(s, k)->dtype))
            return SAY(s, "no gradient by operand %d, which is %s", k + 1, dtype_name(operand(s, k)->dtype));
        t[k - 1] = type_unsharded(operand(s, k));
    }
    return NULL;
}

/* ---- the column -------------------------------------------------------------------------------------------------- */

static const char *(*const shape_of[OP_COUNT])(Shaping *) = {
#define OP(id, in, attrs, phases, shape, rule, grad, emit, expr, doc) [OP_##id] = shape_##shape,
#include "ops.def"
#undef OP
};

const char *inst_shapes(Arena *arena, const Inst *inst, Shapes *shapes) {
    Shaping s = {.arena = arena, .inst = inst};
    int want = op_info[inst->op].nin;
    if (want >= 0 && inst->nin != want) return SAY(&s, "%d operands where %d are needed", inst->nin, want);
    if (inst->nin > MAX_OPERANDS) return SAY(&s, "more than %d operands", MAX_OPERANDS);
    TRY(shape_of[inst->op](&s));
    for (int i = 0; i < s.result.nout; i++) {
        const Type *t = &s.result.out[i];
        int64_t n = 1;
        for (int k = 0; k < t->rank; k++) n = bounded_product(n, t->dim[k].size);
        if (n > MAX_ELEMENTS)
            return SAY(&s, "the result (axes %s) would have more than 2^48 elements", label_names(&s, t));
    }
    *shapes = s.result;
    return NULL;
}
