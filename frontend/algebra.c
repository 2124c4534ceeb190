/* algebra.c: built-in functions that work along axes: einsum, reductions, prefix sums, top-k, one-hots, concat.
 *
 * Einsum and sums of narrow floating-point types compute in f32 and round once. In an einsum a label that the result
 * lacks must stand in two operands at least: a plain sum is written `sum`, so a forgotten axis is no silent sum. */
#include <ctype.h>
#include <string.h>

#include "lower.h"
#include "support/intern.h"
#include "support/str.h"

static bool is_narrow(DType t) {
    return t == DT_bf16 || t == DT_f16;
}

static Value *to_dtype(Lower *lo, Value *x, DType t, Loc loc) {
    return x == NULL || x->type.dtype == t ? x : emit1(lo, OP_cast, x, &(Attrs){.dtype = t}, loc);
}

/* ---- einsum ------------------------------------------------------------------------------------------------------ */

typedef struct Einsum {
    Loc loc;
    VEC(Value *) in;
    VEC(Loc) at;
    DType dtype; /* of the result: the operands', bool aside */
} Einsum;

static bool einsum_operand(Lower *lo, Einsum *s, const Ast *e) {
    Val v = expr_eval(lo, e);
    if (val_is_error(v)) return false;
    if (v.kind != VAL_tensor) return fail(lo, e->loc, "einsum needs tensors, found %s", val_describe(lo, v)), false;
    if (s->in.n == MAX_RANK) return fail(lo, e->loc, "einsum of more than %d tensors", MAX_RANK), false;
    vec_push(lo->a, s->in, v.t);
    vec_push(lo->a, s->at, e->loc);
    return true;
}

/* The element type of the result; bools take that of the others. */
static bool einsum_dtype(Lower *lo, Einsum *s) {
    s->dtype = DT_bool;
    int first = -1;
    for (int i = 0; i < s->in.n; i++) {
        DType t = s->in.at[i]->type.dtype;
        if (t == DT_bool || t == s->dtype) continue;
        if (first >= 0) {
            fail(lo, s->at.at[i], "einsum of %s and %s", dtype_name(s->dtype), dtype_name(t));
            note(lo, s->at.at[first], "nothing is converted silently: write %s(…) around one of them", dtype_name(t));
            return false;
        }
        s->dtype = t;
        first = i;
    }
    if (s->dtype == DT_bool) s->dtype = DT_i32;
    DType in = is_narrow(s->dtype) ? DT_f32 : s->dtype;
    for (int i = 0; i < s->in.n; i++)
        if ((s->in.at[i] = to_dtype(lo, s->in.at[i], in, s->at.at[i])) == NULL) return false;
    return true;
}

static LabelList einsum_labels(const Einsum *s) {
    LabelList all = {0};
    for (int i = 0; i < s->in.n; i++)
        for (int k = 0; k < s->in.at[i]->type.rank && all.n < MAX_RANK; k++) {
            Label label = s->in.at[i]->type.dim[k].label;
            bool have = false;
            for (int j = 0; j < all.n; j++) have = have || all.at[j] == label;
            if (!have) all.at[all.n++] = label;
        }
    return all;
}

static bool has(const LabelList *list, Label label) {
    for (int i = 0; i < list->n; i++)
        if (list->at[i] == label) return true;
    return false;
}

/* Each label of the result is in an operand; each that it lacks is in two. */
static bool einsum_check(Lower *lo, const Einsum *s, const LabelList *result) {
    LabelList all = einsum_labels(s);
    for (int i = 0; i < result->n; i++)
        if (!has(&all, result->at[i])) {
            fail(lo, s->loc, "einsum: no operand has the axis %s of the result", result->at[i]);
            for (int k = 0; k < s->in.n; k++)
                note(lo, s->at.at[k], "this is %s", val_describe(lo, val_tensor(s->in.at[k])));
            return false;
        }
    for (int i = 0; i < s->in.n; i++)
        for (int k = 0; k < s->in.at[i]->type.rank; k++) {
            Label label = s->in.at[i]->type.dim[k].label;
            int count = 0;
            for (int j = 0; j < s->in.n; j++) count += type_find(&s->in.at[j]->type, label) >= 0;
            if (count > 1 || has(result, label)) continue;
            fail(lo, s->at.at[i], "einsum: the axis %s is in this operand only, and not in the result", label);
            note(lo, s->loc, "if it shall be summed, write sum(…, %s)", label);
            return false;
        }
    return true;
}

static Value *einsum_build(Lower *lo, Einsum *s, const LabelList *result) {
    if (!einsum_check(lo, s, result)) return NULL;
    Inst *inst = emit(lo, OP_einsum, s->in.n, s->in.at, &(Attrs){.labels = *result}, NULL, s->loc);
    return inst == NULL ? NULL : to_dtype(lo, inst->out[0], s->dtype, s->loc);
}

/* "GSEC" -> the labels G, S, E, C: a letter with what small letters, digits and _ follow it. */
static bool equation_labels(Lower *lo, const char **at, Loc loc, LabelList *out) {
    *out = (LabelList){0};
    for (; **at == ' '; ++*at) continue;
    while (isalpha((unsigned char)**at)) {
        const char *begin = (*at)++;
        while (islower((unsigned char)**at) || isdigit((unsigned char)**at) || **at == '_') ++*at;
        Ast name = {.kind = AST_name, .loc = loc, .name = intern_n(begin, (size_t)(*at - begin))};
        const Poly *p = expr_label(lo, &name);
        if (p == NULL) return false;
        if (out->n == MAX_RANK || has(out, p->text))
            return fail(lo, loc, "einsum: bad list of labels at %s", begin), false;
        out->at[out->n++] = p->text;
        for (; **at == ' '; ++*at) continue;
    }
    return true;
}

static bool equation_operand(Lower *lo, const Einsum *s, int i, const LabelList *labels) {
    const Type *t = i < s->in.n ? &s->in.at[i]->type : NULL;
    bool same = t != NULL && t->rank == labels->n;
    for (int k = 0; same && k < labels->n; k++) same = type_find(t, labels->at[k]) >= 0;
    if (same) return true;
    if (t == NULL) return fail(lo, s->loc, "einsum: the equation has more operands than there are"), false;
    fail(lo, s->at.at[i], "einsum: this is %s, the equation says otherwise", val_describe(lo, val_tensor(s->in.at[i])));
    return false;
}

/* einsum("GSEC,GSM->EGCM", a, b) */
static Val equation_eval(Lower *lo, Einsum *s, const char *text, Loc loc) {
    LabelList labels;
    for (int i = 0;; i++) {
        if (!equation_labels(lo, &text, loc, &labels) || !equation_operand(lo, s, i, &labels)) return val_error();
        if (*text == ',') {
            text++;
            continue;
        }
        if (i + 1 < s->in.n) return fail(lo, loc, "einsum: the equation has fewer operands than there are");
        break;
    }
    if (strncmp(text, "->", 2) != 0) return fail(lo, loc, "einsum: expected `->` at \"%s\"", text);
    text += 2;
    if (!equation_labels(lo, &text, loc, &labels)) return val_error();
    if (*text != '\0') return fail(lo, loc, "einsum: unexpected \"%s\"", text);
    return val_tensor(einsum_build(lo, s, &labels));
}

/* What the arrow's type says beside the labels: element type, sharding. */
static Val finish_arrow(Lower *lo, Value *x, const TypeSpec *spec, Loc loc) {
    if (x != NULL && spec->has_dtype) x = to_dtype(lo, x, spec->dtype, loc);
    lo->b.loc = loc;
    return val_tensor(x == NULL ? NULL : type_annotate(lo, x, &spec->type));
}

Val einsum_eval(Lower *lo, const Builtin *b, const Ast *call) {
    Einsum s = {.loc = call->loc};
    const Ast *first = arg_at(call, 0), *to = NULL;
    (void)b;
    for (int i = first->kind == AST_str ? 1 : 0; arg_at(call, i) != NULL; i++) {
        const Ast *e = arg_at(call, i);
        if (to != NULL) return fail(lo, e->loc, "einsum: `->` belongs to the last operand");
        if (e->kind == AST_arrow) to = e->at[ARROW_TO];
        if (!einsum_operand(lo, &s, e->kind == AST_arrow ? e->at[ARROW_X] : e)) return val_error();
    }
    if (!einsum_dtype(lo, &s)) return val_error();
    if (first->kind == AST_str) return equation_eval(lo, &s, first->name, first->loc);
    if (to == NULL || to->kind != AST_type)
        return fail(lo, call->loc, "einsum needs `-> [labels]` after its last operand");
    LabelList all = einsum_labels(&s);
    TypeSpec spec;
    if (!type_eval(lo, to, type_pack(lo, &all), &spec)) return val_error();
    if (!type_each(lo, &all, &spec, to->loc)) return val_error();
    LabelList result = type_labels(&spec.type);
    return finish_arrow(lo, einsum_build(lo, &s, &result), &spec, to->loc);
}

/* ---- reductions -------------------------------------------------------------------------------------------------- */

/* max(3, n): of numbers, as for dims. */
static Val reduce_numbers(Lower *lo, const Builtin *b, const Ast *call, Val first) {
    bool max = strcmp(b->name, "max") == 0;
    if (!max && strcmp(b->name, "min") != 0) return fail(lo, call->loc, "`%s` of a number", b->name);
    for (int i = 1; arg_at(call, i) != NULL; i++) {
        Val v = expr_eval(lo, arg_at(call, i));
        if (val_is_error(v)) return v;
        if (v.kind != VAL_num || v.vec != NULL)
            return fail(lo, arg_at(call, i)->loc, "`%s` of a number and of %s: use %simum(a, b)", b->name,
                        val_describe(lo, v), b->name);
        if (max ? v.num > first.num : v.num < first.num) first = v;
    }
    return first;
}

/* The axes to fold over: named, or all that the arrow's type lacks, or all. */
static bool reduce_over(Lower *lo, const Ast *call, const Value *x, LabelList *over, TypeSpec *spec) {
    const Ast *first = arg_at(call, 0);
    LabelList all = type_labels(&x->type);
    *spec = (TypeSpec){0};
    if (first->kind == AST_arrow) {
        if (first->at[ARROW_TO]->kind != AST_type) return fail(lo, first->loc, "expected `-> [labels]`"), false;
        if (!type_eval(lo, first->at[ARROW_TO], type_pack(lo, &all), spec)) return false;
        if (!type_each(lo, &all, spec, first->loc)) return false;
        *over = labels_minus(all, type_labels(&spec->type));
        LabelList keep = type_labels(&spec->type);
        for (int i = 0; i < keep.n; i++)
            if (!has(&all, keep.at[i])) {
                fail(lo, first->loc, "there is no axis %s: the tensor is %s", keep.at[i],
                     val_describe(lo, val_tensor((Value *)x)));
                return false;
            }
        return true;
    }
    VEC(Ast *) labels = {0};
    for (int i = 1; arg_at(call, i) != NULL; i++) vec_push(lo->a, labels, (Ast *)arg_at(call, i));
    if (labels.n == 0) return *over = labels_minus(all, lo->call->each), true;
    if (!expr_labels(lo, labels.n, labels.at, over)) return false;
    for (int i = 0; i < over->n; i++)
        if (!has(&all, over->at[i])) {
            fail(lo, labels.at[i]->loc, "there is no axis %s: the tensor is %s", over->at[i],
                 val_describe(lo, val_tensor((Value *)x)));
            return false;
        }
    return true;
}

static Value *fold(Lower *lo, const char *kind, Value *x, const LabelList *over, Loc loc) {
    return over->n == 0 ? x : emit1(lo, OP_reduce, x, &(Attrs){.kind = intern(kind), .labels = *over}, loc);
}

static Value *reduce_mean(Lower *lo, Value *x, const LabelList *over, Loc loc) {
    double count = 1;
    for (int i = 0; i < over->n; i++) count *= (double)x->type.dim[type_find(&x->type, over->at[i])].size;
    Value *sum = fold(lo, "sum", x, over, loc);
    return over->n == 0 ? x : emit2(lo, OP_mul, sum, emit_const(lo, DT_f32, 1 / count, loc), NULL, loc);
}

static Value *reduce_bool(Lower *lo, const Builtin *b, Value *x, const LabelList *over, Loc loc) {
    if (x->type.dtype != DT_bool) {
        fail(lo, loc, "`%s` is of bools, found %s", b->name, val_describe(lo, val_tensor(x)));
        return NULL;
    }
    if (strcmp(b->name, "any") == 0) return fold(lo, "any", x, over, loc);
    x = fold(lo, "any", emit1(lo, OP_not, x, NULL, loc), over, loc);
    return emit1(lo, OP_not, x, NULL, loc);
}

static Value *reduce(Lower *lo, const Builtin *b, Value *x, const LabelList *over, Loc loc) {
    DType t = x->type.dtype;
    bool mean = strcmp(b->name, "mean") == 0;
    if (b->name[0] == 'a') return reduce_bool(lo, b, x, over, loc);
    if (mean || (is_narrow(t) && b->name[0] == 's')) {
        x = to_dtype(lo, x, DT_f32, loc);
        if (x == NULL) return NULL;
        x = mean ? reduce_mean(lo, x, over, loc) : fold(lo, "sum", x, over, loc);
        return is_narrow(t) ? to_dtype(lo, x, t, loc) : x;
    }
    return fold(lo, b->name, t == DT_bool ? to_dtype(lo, x, DT_i32, loc) : x, over, loc);
}

Val reduce_eval(Lower *lo, const Builtin *b, const Ast *call) {
    const Ast *e = arg_at(call, 0);
    Val v = expr_eval(lo, e->kind == AST_arrow ? e->at[ARROW_X] : e);
    if (val_is_error(v)) return v;
    if (v.kind == VAL_num && v.vec == NULL) return reduce_numbers(lo, b, call, v);
    if (v.kind != VAL_tensor) return fail(lo, e->loc, "`%s` needs a tensor, found %s", b->name, val_describe(lo, v));
    LabelList over;
    TypeSpec spec;
    if (!reduce_over(lo, call, v.t, &over, &spec)) return val_error();
    Value *x = reduce(lo, b, v.t, &over, call->loc);
    if (x == NULL || e->kind != AST_arrow) return val_tensor(x);
    LabelList order = type_labels(&spec.type);
    return finish_arrow(lo, type_permute(lo, x, &order), &spec, e->loc);
}

/* ---- along one axis ---------------------------------------------------------------------------------------------- */

/* The axis named by argument i, which the tensor must have. */
static const Poly *axis_arg(Lower *lo, const Ast *call, int i, const Value *x) {
    const Poly *p = expr_label(lo, arg_at(call, i));
    if (p == NULL || type_find(&x->type, p->text) >= 0) return p;
    fail(lo, arg_at(call, i)->loc, "there is no axis %s: the tensor is %s", p->text,
         val_describe(lo, val_tensor((Value *)x)));
    return NULL;
}

static bool flag_arg(Lower *lo, const Ast *call, const char *name, bool *out) {
    const Ast *e = arg_named(call, name);
    *out = false;
    if (e == NULL) return true;
    Val v = expr_eval(lo, e);
    if (v.kind == VAL_bool && v.vec == NULL) return *out = v.num != 0, true;
    return fail(lo, e->loc, "`%s` is true or false", name), false;
}

Val cumsum_eval(Lower *lo, const Builtin *b, const Ast *call) {
    Value *x = val_countable(lo, arg_tensor(lo, call, 0));
    const Poly *p = x == NULL ? NULL : axis_arg(lo, call, 1, x);
    Attrs at = {0};
    if (p == NULL || !flag_arg(lo, call, "exclusive", &at.exclusive) || !flag_arg(lo, call, "reverse", &at.reverse))
        return val_error();
    at.label = p->text;
    return val_tensor(emit1(lo, b->op, x, &at, call->loc));
}

/* The k largest along `p`, as an axis `to`. */
static Inst *top_k(Lower *lo, Value *x, const Poly *p, const Poly *to, Loc loc) {
    Attrs at = {.label = p->text, .to = label_of(lo, to), .size = to->size};
    Value *in = to_dtype(lo, x, DT_f32, loc);
    return in == NULL ? NULL : emit(lo, OP_top_k, 1, &in, &at, NULL, loc);
}

Val top_k_eval(Lower *lo, const Builtin *b, const Ast *call) {
    (void)b;
    Value *x = arg_tensor(lo, call, 0);
    const Poly *p = x == NULL ? NULL : axis_arg(lo, call, 1, x);
    const Poly *k = p == NULL ? NULL : expr_label(lo, arg_at(call, 2));
    Inst *inst = k == NULL ? NULL : top_k(lo, x, p, k, call->loc);
    if (inst == NULL) return val_error();
    Value *values = to_dtype(lo, inst->out[0], x->type.dtype, call->loc);
    return val_tuple(lo, 2, (Val[]){val_tensor(values), val_tensor(inst->out[1])});
}

Val argmax_eval(Lower *lo, const Builtin *b, const Ast *call) {
    (void)b;
    Value *x = arg_tensor(lo, call, 0);
    const Poly *p = x == NULL ? NULL : axis_arg(lo, call, 1, x);
    const Poly *one = poly_sym(lo->a, intern_printf("%s'", p == NULL ? "" : p->text), 1);
    Inst *inst = p == NULL ? NULL : top_k(lo, x, p, one, call->loc);
    if (inst == NULL) return val_error();
    return val_tensor(emit1(lo, OP_slice, inst->out[1], &(Attrs){.label = one->text, .size = 1}, call->loc));
}

Val one_hot_eval(Lower *lo, const Builtin *b, const Ast *call) {
    Val i = expr_eval(lo, arg_at(call, 0));
    Value *x = val_to_tensor(lo, i, DT_i32, arg_at(call, 0)->loc);
    const Poly *p = x == NULL ? NULL : expr_label(lo, arg_at(call, 1));
    if (p == NULL) return val_error();
    return val_tensor(emit1(lo, b->op, x, &(Attrs){.label = p->text, .size = p->size}, call->loc));
}

/* ---- concat ------------------------------------------------------------------------------------------------------ */

static const Poly *concat_label(Lower *lo, const Ast *e) {
    if (e->kind != AST_named || e->n != 1) {
        fail(lo, e->loc, "concat names the axis of each part: concat(A: x, B: y)");
        return NULL;
    }
    Ast name = {.kind = AST_name, .loc = e->loc, .name = e->name};
    return expr_label(lo, e->key != NULL ? e->key : &name);
}

/* Parts are placed in zeros and added. */
Val concat_eval(Lower *lo, const Builtin *b, const Ast *call) {
    const Poly *total = poly_const(lo->a, 0);
    int64_t start = 0;
    Value *out = NULL;
    for (int i = 0; i < call->n; i++) {
        const Poly *p = concat_label(lo, call->at[i]);
        if (p == NULL) return val_error();
        total = poly_add(lo->a, total, p, 1);
    }
    if (total == NULL || call->n == 0) return fail(lo, call->loc, "concat(A: x, B: y) joins two parts or more");
    for (int i = 0; i < call->n; i++) {
        const Ast *e = call->at[i]->at[0];
        const Poly *p = concat_label(lo, call->at[i]);
        Val v = expr_eval(lo, e);
        if (p == NULL || val_is_error(v)) return val_error();
        if (v.kind != VAL_tensor || type_find(&v.t->type, p->text) < 0)
            return fail(lo, e->loc, "concat: expected a tensor with an axis %s, found %s", p->text,
                        val_describe(lo, v));
        Attrs at = {.label = label_of(lo, total), .start = start, .size = total->size, .to = p->text};
        Value *part = emit1(lo, b->op, v.t, &at, call->loc);
        start += p->size;
        out = out == NULL ? part : emit2(lo, OP_add, out, part, NULL, call->loc);
        if (out == NULL) return val_error();
    }
    return val_tensor(out);
}
