/* simplify_rules.c: algebra on labelled ops, one function an op.
 *
 * A rule looks at one instruction and returns a value that computes the same with less: an operand, an earlier value,
 * or new instructions built before it. Each rule lowers (instructions left, elements computed), so rewriting ends. What
 * changes rounding is left alone, except that equal terms may be multiplied instead of summed. A literal 0 switches a
 * term off (a weight decay of 0), also where the other factor might be a NaN. Results have the type of what they
 * replace: `simplify_as` broadcasts where labels differ. Cost: constant for each instruction and round. */
#include <math.h>

#include "simplify.h"
#include "support/intern.h"

typedef Value *Rule(Simplify *s, Inst *inst);

/* ---- helpers ---- */

bool simplify_const(const Value *v, double *value) {
    if (v->def == NULL || v->def->op != OP_const) return false;
    *value = v->def->at.value;
    return true;
}

static bool is_number(const Value *v, double number) {
    double value;
    return simplify_const(v, &value) && value == number;
}

/* The operand of `v` when that is an `op`, else NULL. */
static Value *under(const Value *v, Op op) {
    return v->def != NULL && v->def->op == op ? v->def->in[0] : NULL;
}

static DimList dims_of(const Type *t) {
    DimList dims = {.n = t->rank};
    for (int k = 0; k < t->rank; k++) {
        dims.at[k].label = t->dim[k].label;
        dims.at[k].size = t->dim[k].size;
    }
    return dims;
}

Value *simplify_number(Simplify *s, const Type *like, double value) {
    Attrs at = {.dtype = like->dtype, .value = value, .dims = dims_of(like)};
    return build_inst(&s->b, OP_const, 0, NULL, &at, NULL)->out[0];
}

Value *simplify_as(Simplify *s, Value *x, const Type *like) {
    return type_same_shape(&x->type, like) ? x : build_broadcast(&s->b, x, like);
}

/* x as the result of `inst`. */
static Value *same(Simplify *s, const Inst *inst, Value *x) {
    return simplify_as(s, x, &inst->out[0]->type);
}

static bool has_label(const LabelList *list, Label l) {
    for (int k = 0; k < list->n; k++)
        if (list->at[k] == l) return true;
    return false;
}

static bool is_float(const Value *v) {
    return v->type.dtype != DT_i32 && v->type.dtype != DT_bool;
}

/* ---- every element-wise op ---- */

static Value *fold_constants(Simplify *s, Inst *inst) {
    double in[3] = {0, 0, 0}, result;
    for (int k = 0; k < inst->nin; k++)
        if (!simplify_const(inst->in[k], &in[k])) return NULL;
    if (!simplify_fold(inst->op, inst->in[inst->nin - 1]->type.dtype, in, &result)) return NULL;
    return simplify_number(s, &inst->out[0]->type, result);
}

/* What operand `x` repeats, with fewer axes or another order of them; x itself when it repeats nothing. */
static Value *unrepeated(Simplify *s, Value *x) {
    Value *small = under(x, OP_broadcast);
    Attrs at = {.dtype = x->type.dtype};
    if (small == NULL && x->type.rank > 0 && simplify_const(x, &at.value))
        small = inst_new(s->b.m, OP_const, x->def->loc, 0, NULL, &at, NULL, NULL)->out[0]; /* detached so far */
    return small != NULL ? small : x;
}

/* The op on other operands, when that computes the same elements or fewer, which are then repeated. */
static Value *try_operands(Simplify *s, const Inst *inst, Value *const *in) {
    const Type *want = &inst->out[0]->type;
    Inst *trial = inst_new(s->b.m, inst->op, inst->loc, inst->nin, in, &inst->at, NULL, NULL);
    const Type *got = &trial->out[0]->type;
    if (!type_same_shape(got, want) && got->rank == want->rank) return NULL;
    for (int k = 0; k < trial->nin; k++)
        if (in[k]->def != NULL && in[k]->def->parent == NULL) inst_insert(s->b.block, s->b.before, in[k]->def);
    inst_insert(s->b.block, s->b.before, trial);
    return same(s, inst, trial->out[0]);
}

/* Repeated operands need not be: f(x, broadcast y) = f(x, y), and f(broadcast x) = broadcast f(x). */
static Value *drop_broadcasts(Simplify *s, Inst *inst) {
    Value *small[3], *simpler = NULL;
    bool any = false;
    for (int k = 0; k < inst->nin; k++) {
        small[k] = unrepeated(s, inst->in[k]);
        any = any || small[k] != inst->in[k];
    }
    if (any) simpler = try_operands(s, inst, small);
    /* All at once may change the order of axes; one of them may not. */
    for (int k = 0; k < inst->nin && any && simpler == NULL; k++) {
        Value *in[3];
        for (int j = 0; j < inst->nin; j++) in[j] = j == k ? small[k] : inst->in[j];
        if (small[k] != inst->in[k]) simpler = try_operands(s, inst, in);
    }
    return simpler;
}

/* ---- arithmetic ---- */

static Value *rule_add(Simplify *s, Inst *inst) {
    if (is_number(inst->in[1], 0)) return same(s, inst, inst->in[0]);
    if (is_number(inst->in[0], 0)) return same(s, inst, inst->in[1]);
    Value *negated = under(inst->in[1], OP_neg);
    if (negated != NULL) return build2(&s->b, OP_sub, inst->in[0], negated, NULL);
    return NULL;
}

static Value *rule_sub(Simplify *s, Inst *inst) {
    if (is_number(inst->in[1], 0)) return same(s, inst, inst->in[0]);
    if (is_number(inst->in[0], 0)) return same(s, inst, build1(&s->b, OP_neg, inst->in[1], NULL));
    Value *negated = under(inst->in[1], OP_neg);
    if (negated != NULL) return build2(&s->b, OP_add, inst->in[0], negated, NULL);
    return NULL;
}

static Value *rule_mul(Simplify *s, Inst *inst) {
    for (int k = 0; k < 2; k++) {
        Value *x = inst->in[1 - k];
        if (is_number(inst->in[k], 1)) return same(s, inst, x);
        if (is_number(inst->in[k], -1)) return same(s, inst, build1(&s->b, OP_neg, x, NULL));
        if (is_number(inst->in[k], 0)) return simplify_number(s, &inst->out[0]->type, 0);
    }
    return NULL;
}

static Value *rule_div(Simplify *s, Inst *inst) {
    return is_number(inst->in[1], 1) ? same(s, inst, inst->in[0]) : NULL;
}

/* Powers that have a cheaper and no less exact form. */
static Value *rule_pow(Simplify *s, Inst *inst) {
    Value *x = inst->in[0];
    if (is_number(inst->in[1], 1)) return same(s, inst, x);
    if (is_number(inst->in[1], 2)) return same(s, inst, build2(&s->b, OP_mul, x, x, NULL));
    if (is_number(inst->in[1], 0.5)) return same(s, inst, build1(&s->b, OP_sqrt, x, NULL));
    if (is_number(inst->in[1], -0.5)) return same(s, inst, build1(&s->b, OP_rsqrt, x, NULL));
    if (is_number(inst->in[1], 0)) return simplify_number(s, &inst->out[0]->type, 1);
    return NULL;
}

static Value *rule_neg(Simplify *s, Inst *inst) {
    (void)s;
    return under(inst->in[0], OP_neg);
}

/* `and` with true and `or` with false are the other operand; the reverse is the constant. */
static Value *logic(Simplify *s, Inst *inst, double neutral) {
    if (inst->in[0] == inst->in[1]) return inst->in[0];
    for (int k = 0; k < 2; k++) {
        if (is_number(inst->in[k], neutral)) return same(s, inst, inst->in[1 - k]);
        if (is_number(inst->in[k], 1 - neutral)) return simplify_number(s, &inst->out[0]->type, 1 - neutral);
    }
    return NULL;
}
static Value *rule_and(Simplify *s, Inst *inst) {
    return logic(s, inst, 1);
}
static Value *rule_or(Simplify *s, Inst *inst) {
    return logic(s, inst, 0);
}

static Value *rule_not(Simplify *s, Inst *inst) {
    (void)s;
    return under(inst->in[0], OP_not);
}

static Value *rule_where(Simplify *s, Inst *inst) {
    double chosen;
    Value *flipped = under(inst->in[0], OP_not);
    if (simplify_const(inst->in[0], &chosen)) return same(s, inst, inst->in[chosen != 0 ? 1 : 2]);
    if (inst->in[1] == inst->in[2]) return same(s, inst, inst->in[1]);
    if (flipped != NULL) return same(s, inst, build3(&s->b, OP_where, flipped, inst->in[2], inst->in[1], NULL));
    return NULL;
}

/* Whether every value of type `from` is one of type `to`. */
static bool widens(DType from, DType to) {
    return from == to || from == DT_bool || (to == DT_f32 && (from == DT_bf16 || from == DT_f16));
}

/* The conversion of a number, where f32 and f64 agree on it. */
static bool cast_number(double *value, DType to) {
    double x = *value, in_f32 = (double)(float)x;
    if (to == DT_bool) *value = x != 0;
    if (to == DT_i32) *value = trunc(x);
    return to == DT_bool ? (in_f32 != 0) == (x != 0) : to != DT_i32 || (fabs(x) < INT32_MAX && trunc(in_f32) == *value);
}

static Value *rule_cast(Simplify *s, Inst *inst) {
    Value *x = inst->in[0], *inner = under(x, OP_cast);
    DType to = inst->at.dtype;
    double value;
    if (x->type.dtype == to) return x;
    if (simplify_const(x, &value) && (x->type.dtype == DT_f32 || !is_float(x)) && cast_number(&value, to))
        return simplify_number(s, &inst->out[0]->type, value);
    if (inner != NULL && widens(inner->type.dtype, x->type.dtype)) return build_cast(&s->b, inner, to);
    return NULL;
}

/* ---- layout ---- */

static Value *rule_broadcast(Simplify *s, Inst *inst) {
    Value *x = inst->in[0], *inner = under(x, OP_broadcast);
    double value;
    if (type_same_shape(&x->type, &inst->out[0]->type)) return x;
    if (simplify_const(x, &value)) return simplify_number(s, &inst->out[0]->type, value);
    return inner == NULL ? NULL : same(s, inst, inner);
}

/* Labels `from` of the first relabel are what the second one makes of the first one's. */
static bool undoes(const Attrs *first, const Attrs *second) {
    if (first->dims.n != second->labels.n || first->labels.n != second->dims.n) return false;
    for (int k = 0; k < second->labels.n; k++)
        if (second->labels.at[k] != first->dims.at[k].label) return false;
    for (int k = 0; k < second->dims.n; k++)
        if (second->dims.at[k].label != first->labels.at[k]) return false;
    return true;
}

static Value *rule_relabel(Simplify *s, Inst *inst) {
    Value *x = inst->in[0], *inner = under(x, OP_relabel);
    double value;
    if (simplify_const(x, &value)) return simplify_number(s, &inst->out[0]->type, value);
    if (inst->at.labels.n == 1 && inst->at.dims.n == 1 && inst->at.labels.at[0] == inst->at.dims.at[0].label) return x;
    /* Split and merged again: the same elements, perhaps with their axes in another order. */
    if (inner == NULL || !undoes(&x->def->at, &inst->at)) return NULL;
    return same(s, inst, inner);
}

static Value *rule_slice(Simplify *s, Inst *inst) {
    Value *x = inst->in[0], *padded = under(x, OP_pad);
    const Attrs *at = &inst->at;
    double value;
    if (at->to == at->label && type_same_shape(&x->type, &inst->out[0]->type)) return x;
    if (simplify_const(x, &value)) return simplify_number(s, &inst->out[0]->type, value);
    if (padded != NULL && x->def->at.label == at->label && x->def->at.start == at->start && x->def->at.to == at->to &&
        type_same_shape(&padded->type, &inst->out[0]->type))
        return padded;
    /* A slice of what is repeated along the label is repeated less. */
    Value *small = under(x, OP_broadcast);
    return small != NULL && type_find(&small->type, at->label) < 0 &&
                   (at->to == NULL || at->to == at->label || type_find(&small->type, at->to) < 0)
               ? same(s, inst, small)
               : NULL;
}

static Value *rule_pad(Simplify *s, Inst *inst) {
    if (is_number(inst->in[0], 0)) return simplify_number(s, &inst->out[0]->type, 0);
    return inst->at.to == inst->at.label && type_same_shape(&inst->in[0]->type, &inst->out[0]->type) ? inst->in[0]
                                                                                                     : NULL;
}

/* ---- folds and contractions ---- */

static int64_t repeats(const Value *x, const LabelList *over) {
    int64_t n = 1;
    for (int k = 0; k < over->n; k++) n *= x->type.dim[type_find(&x->type, over->at[k])].size;
    return n;
}

/* The fold of `n` equal values; `x` may lack labels that `inst` has and is broadcast then. */
static Value *fold_equal(Simplify *s, Inst *inst, Value *x, int64_t n) {
    if (inst->at.kind == intern("sum") && x->type.dtype == DT_bool) x = build_cast(&s->b, x, DT_i32);
    if (inst->at.kind == intern("sum") && n > 1)
        x = build2(&s->b, OP_mul, x, build_const(&s->b, x->type.dtype, (double)n), NULL);
    return same(s, inst, x);
}

static Value *rule_reduce(Simplify *s, Inst *inst) {
    Value *x = inst->in[0], *inner = under(x, OP_reduce), *small = under(x, OP_broadcast);
    LabelList over = inst->at.labels;
    double value;
    int64_t n = repeats(x, &over);
    bool counts = !is_float(x) && n > INT32_MAX; /* the factor would not fit */
    if (simplify_const(x, &value) && !counts) {
        Attrs at = {.dtype = x->type.dtype, .value = value};
        return fold_equal(s, inst, build_inst(&s->b, OP_const, 0, NULL, &at, NULL)->out[0], n);
    }
    Value *negated = under(x, OP_neg);
    if (negated != NULL && inst->at.kind == intern("sum"))
        return build1(&s->b, OP_neg, build_reduce(&s->b, "sum", negated, over), NULL);
    if (inner != NULL && x->def->at.kind == inst->at.kind) {
        for (int k = 0; k < x->def->at.labels.n; k++) over.at[over.n++] = x->def->at.labels.at[k];
        return build_reduce(&s->b, inst->at.kind, inner, over);
    }
    if (small == NULL || counts) return NULL;
    LabelList inside = {0}, repeated = labels_minus(over, type_labels(&small->type));
    for (int k = 0; k < over.n; k++)
        if (!has_label(&repeated, over.at[k])) inside.at[inside.n++] = over.at[k];
    return fold_equal(s, inst, build_reduce(&s->b, inst->at.kind, small, inside), repeats(x, &repeated));
}

/* An operand repeated over labels that other operands have need not be. */
static Value *rule_einsum(Simplify *s, Inst *inst) {
    Value **in = NEW_ARRAY(s->scratch, Value *, inst->nin);
    bool any = false;
    for (int k = 0; k < inst->nin; k++) {
        Value *small = under(inst->in[k], OP_broadcast);
        in[k] = inst->in[k];
        if (small == NULL) continue;
        LabelList repeated = labels_minus(type_labels(&in[k]->type), type_labels(&small->type));
        for (int j = 0; j < inst->nin; j++)
            if (j != k) repeated = labels_minus(repeated, type_labels(&(j < k ? in[j] : inst->in[j])->type));
        if (repeated.n > 0) continue;
        in[k] = small;
        any = true;
    }
    return any ? build_einsum(&s->b, inst->nin, in, inst->at.labels) : NULL;
}

/* ---- the table ---- */

static Rule *const rules[OP_COUNT] = {
    [OP_add] = rule_add,         [OP_sub] = rule_sub,     [OP_mul] = rule_mul,   [OP_div] = rule_div,
    [OP_pow] = rule_pow,         [OP_neg] = rule_neg,     [OP_and] = rule_and,   [OP_or] = rule_or,
    [OP_not] = rule_not,         [OP_where] = rule_where, [OP_cast] = rule_cast, [OP_broadcast] = rule_broadcast,
    [OP_relabel] = rule_relabel, [OP_slice] = rule_slice, [OP_pad] = rule_pad,   [OP_reduce] = rule_reduce,
    [OP_einsum] = rule_einsum,
};

Value *simplify_rule(Simplify *s, Inst *inst) {
    bool element_wise = op_info[inst->op].emit == EMIT_elem && inst->nin > 0 && inst->nin <= 3 &&
                        (*op_info[inst->op].attrs == '\0' || inst->op == OP_cast);
    Value *simpler = element_wise ? fold_constants(s, inst) : NULL;
    if (simpler == NULL && rules[inst->op] != NULL) simpler = rules[inst->op](s, inst);
    if (simpler == NULL && element_wise) simpler = drop_broadcasts(s, inst);
    return simpler;
}
