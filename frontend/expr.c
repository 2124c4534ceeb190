/* expr.c: expressions.
 *
 * What is known when compiling is computed here, in double; dims keep their label expressions through + - * and exact
 * division. A number that differs by iteration of a rolled loop is computed for every iteration. With a tensor on
 * either side an operator becomes an instruction. */
#include <math.h>
#include <string.h>

#include "lower.h"
#include "support/intern.h"

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* An operator of the language: on numbers, and as an op (swapped, negated) on tensors. */
typedef struct Operator {
    const char *text;
    double (*number)(double a, double b);
    Op op;
    bool swap, negate; /* a > b is lt(b, a); a != b is not eq(a, b) */
    enum { OPERATOR_arith, OPERATOR_compare, OPERATOR_logic } kind;
} Operator;

static double num_add(double a, double b) {
    return a + b;
}
static double num_sub(double a, double b) {
    return a - b;
}
static double num_mul(double a, double b) {
    return a * b;
}
static double num_div(double a, double b) {
    return a / b;
}
static double num_mod(double a, double b) {
    return b == 0 ? 0 : a - b * floor(a / b);
}
static double num_lt(double a, double b) {
    return a < b;
}
static double num_le(double a, double b) {
    return a <= b;
}
static double num_gt(double a, double b) {
    return a > b;
}
static double num_ge(double a, double b) {
    return a >= b;
}
static double num_eq(double a, double b) {
    return a == b;
}
static double num_ne(double a, double b) {
    return a != b;
}
static double num_and(double a, double b) {
    return a != 0 && b != 0;
}
static double num_or(double a, double b) {
    return a != 0 || b != 0;
}

static const Operator operators[] = {
    {"+", num_add, OP_add, false, false, OPERATOR_arith},   {"-", num_sub, OP_sub, false, false, OPERATOR_arith},
    {"*", num_mul, OP_mul, false, false, OPERATOR_arith},   {"/", num_div, OP_div, false, false, OPERATOR_arith},
    {"%", num_mod, OP_mod, false, false, OPERATOR_arith},   {"**", pow, OP_pow, false, false, OPERATOR_arith},
    {"<", num_lt, OP_lt, false, false, OPERATOR_compare},   {"<=", num_le, OP_le, false, false, OPERATOR_compare},
    {">", num_gt, OP_lt, true, false, OPERATOR_compare},    {">=", num_ge, OP_le, true, false, OPERATOR_compare},
    {"==", num_eq, OP_eq, false, false, OPERATOR_compare},  {"!=", num_ne, OP_eq, false, true, OPERATOR_compare},
    {"and", num_and, OP_and, false, false, OPERATOR_logic}, {"or", num_or, OP_or, false, false, OPERATOR_logic},
};

static const Operator *operator_find(const char *text) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (strcmp(operators[i].text, text) == 0) return &operators[i];
    diag_bug("no operator '%s'", text);
}

static bool is_number(Val v) {
    return v.kind == VAL_num || v.kind == VAL_bool;
}
static bool is_whole(Val v) {
    return v.kind == VAL_bool || v.integer;
}

/* Whether the quotient may be taken: dims divide exactly, except inside ceil() and floor(). */
static bool check_division(Lower *lo, double a, double b, bool whole, Loc loc) {
    if (b == 0) return fail(lo, loc, "division by zero"), false;
    if (!whole || lo->fractions > 0 || fmod(a, b) == 0) return true;
    fail(lo, loc, "%.0f / %.0f is not a whole number", a, b);
    note(lo, loc, "dims divide exactly; write ceil(…) or floor(…) around it, or make one side a decimal number");
    return false;
}

/* The label expression of a result, NULL when it has none. */
static const Poly *fold_poly(Lower *lo, const Operator *o, Val x, Val y, double value) {
    if (fabs(value) > (double)MAX_DIM) return NULL;
    if (x.poly != NULL && y.poly != NULL) {
        if (o->op == OP_add || o->op == OP_sub) return poly_add(lo->a, x.poly, y.poly, o->op == OP_add ? 1 : -1);
        if (o->op == OP_mul) return poly_mul(lo->a, x.poly, y.poly);
        if (o->op == OP_div) return poly_div(lo->a, x.poly, y.poly);
    }
    return poly_const(lo->a, (int64_t)value);
}

static Val fold_varying(Lower *lo, const Operator *o, Val x, Val y, Loc loc) {
    Frame *f = x.vec != NULL ? x.vec->frame : y.vec->frame;
    if (x.vec != NULL && y.vec != NULL && x.vec->frame != y.vec->frame)
        return fail(lo, loc, "this depends on the variables of two loops; use i32() of one of them");
    double *at = NEW_ARRAY(lo->a, double, f->trip);
    bool whole = is_whole(x) && is_whole(y), integer = whole;
    for (int64_t i = 0; i < f->trip; i++) {
        double a = x.vec != NULL ? x.vec->at[i] : x.num, b = y.vec != NULL ? y.vec->at[i] : y.num;
        if (o->op == OP_div && !check_division(lo, a, b, whole, loc)) return val_error();
        at[i] = o->number(a, b);
        integer = integer && at[i] == floor(at[i]);
    }
    Varying *v = NEW(lo->a, Varying);
    *v = (Varying){f, at};
    return (Val){.kind = o->kind == OPERATOR_arith ? VAL_num : VAL_bool, .integer = integer, .vec = v};
}

static Val fold(Lower *lo, const Operator *o, Val x, Val y, Loc loc) {
    if (x.vec != NULL || y.vec != NULL) return fold_varying(lo, o, x, y, loc);
    bool whole = is_whole(x) && is_whole(y);
    if (o->op == OP_div && !check_division(lo, x.num, y.num, whole, loc)) return val_error();
    double value = o->number(x.num, y.num);
    if (o->kind != OPERATOR_arith) return val_bool(value != 0);
    if (!whole || value != floor(value)) return val_num(value);
    if (fabs(value) > 0x1p53) return fail(lo, loc, "this number is too large: %g", value);
    return (Val){.kind = VAL_num, .integer = true, .num = value, .poly = fold_poly(lo, o, x, y, value)};
}

/* ---- operators --------------------------------------------------------------------------------------------------- */

/* == and != of what is no number: strings, none, element types. */
static bool fold_equal(const Operator *o, Val x, Val y, Val *out) {
    bool plain = x.kind == VAL_none || x.kind == VAL_str || x.kind == VAL_dtype;
    bool other = y.kind == VAL_none || y.kind == VAL_str || y.kind == VAL_dtype;
    if (o->op != OP_eq || (!plain && !other)) return false;
    bool equal = x.kind == y.kind && (x.kind != VAL_str || strcmp(x.str, y.str) == 0) &&
                 (x.kind != VAL_dtype || x.dtype == y.dtype);
    *out = val_bool(equal != o->negate);
    return true;
}

static bool check_operands(Lower *lo, const Operator *o, const Value *a, Loc loc) {
    if (o->kind == OPERATOR_logic && a->type.dtype != DT_bool) {
        fail(lo, loc, "`%s` needs bools, found %s", o->text, val_describe(lo, val_tensor((Value *)a)));
        return false;
    }
    if (o->op == OP_div && a->type.dtype == DT_i32) {
        fail(lo, loc, "`/` of integers: write floor_div(a, b), or f32(a) / f32(b)");
        return false;
    }
    return true;
}

Val expr_binary(Lower *lo, const char *op, Val x, Val y, Loc loc) {
    const Operator *o = operator_find(op);
    Val out;
    if (val_is_error(x) || val_is_error(y)) return val_error();
    if (is_number(x) && is_number(y)) return fold(lo, o, x, y, loc);
    if (fold_equal(o, x, y, &out)) return out;
    Value *a, *b;
    if (!val_unify(lo, op, x, y, o->kind == OPERATOR_arith, loc, &a, &b) || !check_operands(lo, o, a, loc))
        return val_error();
    Value *v = o->swap ? emit2(lo, o->op, b, a, NULL, loc) : emit2(lo, o->op, a, b, NULL, loc);
    if (o->negate && v != NULL) v = emit1(lo, OP_not, v, NULL, loc);
    return val_tensor(v);
}

static Val eval_binary(Lower *lo, const Ast *e) {
    bool logic = strcmp(e->name, "and") == 0 || strcmp(e->name, "or") == 0;
    Val x = expr_eval(lo, e->at[0]);
    /* What is decided by the left side alone leaves the right one unevaluated, as in a static `if`. */
    if (logic && x.kind == VAL_bool && x.vec == NULL && (x.num != 0) == (e->name[0] == 'o')) return x;
    return expr_binary(lo, e->name, x, expr_eval(lo, e->at[1]), e->loc);
}

static Val eval_not(Lower *lo, const Ast *e) {
    Val x = expr_eval(lo, e->at[0]);
    if (is_number(x)) return fold(lo, operator_find("=="), x, val_bool(false), e->loc);
    if (val_is_error(x)) return x;
    if (x.kind != VAL_tensor || x.t->type.dtype != DT_bool)
        return fail(lo, e->loc, "`not` needs a bool, found %s", val_describe(lo, x));
    return val_tensor(emit1(lo, OP_not, x.t, NULL, e->loc));
}

static Val eval_unary(Lower *lo, const Ast *e) {
    if (strcmp(e->name, "not") == 0) return eval_not(lo, e);
    Val x = expr_eval(lo, e->at[0]);
    if (is_number(x)) return fold(lo, operator_find("-"), val_int(lo, 0), x, e->loc);
    if (val_is_error(x)) return x;
    if (x.kind != VAL_tensor) return fail(lo, e->loc, "`-` needs a number or a tensor, found %s", val_describe(lo, x));
    return val_tensor(emit1(lo, OP_neg, val_countable(lo, x.t), NULL, e->loc));
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static Val eval_runtime(Lower *lo, const char *kind, Loc loc) {
    Inst *inst = emit(lo, OP_runtime, 0, NULL, &(Attrs){.kind = intern(kind)}, NULL, loc);
    return val_tensor(inst == NULL ? NULL : inst->out[0]);
}

/* Words that are values; false when `name` is none. */
static bool eval_word(Lower *lo, const char *name, Loc loc, Val *out) {
    if (strcmp(name, "true") == 0 || strcmp(name, "false") == 0) return *out = val_bool(name[0] == 't'), true;
    if (strcmp(name, "none") == 0) return *out = val_none(), true;
    if (strcmp(name, "inf") == 0) return *out = val_num(INFINITY), true;
    if (strcmp(name, "training") == 0) return *out = val_bool(lo->training && !lo->scope->frozen), true;
    if (strcmp(name, "step") == 0 || strcmp(name, "steps") == 0) {
        bool runs = lo->func != NULL;
        return *out = runs ? eval_runtime(lo, name, loc) : fail(lo, loc, "`%s` is known only when running", name), true;
    }
    for (int t = 0; t < DT_COUNT; t++)
        if (strcmp(dtype_name((DType)t), name) == 0) return *out = (Val){.kind = VAL_dtype, .dtype = (DType)t}, true;
    return false;
}

/* Whether the function assigns it somewhere: in a branch not taken, inside a loop, or further down. */
static bool assigned_elsewhere(Lower *lo, const char *name) {
    NameList names = {0};
    if (lo->call->fn != NULL) stmt_assigned(lo, lo->call->fn->node->at[FN_BODY], &names);
    for (int i = 0; i < names.n; i++)
        if (names.at[i] == name) return true;
    return false;
}

static Val unknown_name(Lower *lo, const char *name, Loc loc) {
    VEC(const char *) names = {0};
    const char *builtins[128];
    const Unit *u = lo->call->unit;
    for (int i = 0; i < lo->call->binds.n; i++) vec_push(lo->a, names, lo->call->binds.at[i].name);
    for (int i = 0; i < u->decls.n; i++) vec_push(lo->a, names, u->decls.at[i]->name);
    for (int i = 0; i < u->imports.n; i++)
        for (int k = 0; k < u->imports.at[i]->decls.n; k++) vec_push(lo->a, names, u->imports.at[i]->decls.at[k]->name);
    int n = builtin_names(builtins, 128);
    for (int i = 0; i < n; i++) vec_push(lo->a, names, builtins[i]);
    if (assigned_elsewhere(lo, name))
        return fail(
            lo, loc,
            "`%s` has no value here: it gets one only further down, in a loop, or in a branch that is not taken", name);
    return fail(lo, loc, "nothing is called `%s` here%s", name, suggest(lo, name, names.n, names.at));
}

static Val eval_name(Lower *lo, const Ast *e) {
    const Bind *b = call_find(lo->call, e->name);
    Val word;
    if (b != NULL) return b->state != NULL ? slot_value(lo, b->state) : b->val;
    if (eval_word(lo, e->name, e->loc, &word)) return word;
    Decl *d = source_find(lo->call->unit, e->name);
    if (d == NULL && builtin_find(e->name) != NULL) return fail(lo, e->loc, "`%s` is a function: call it", e->name);
    if (d == NULL) return unknown_name(lo, e->name, e->loc);
    switch (d->node->kind) {
        case AST_param:
        case AST_state:
            return scope_global(lo, d);
        case AST_fn:
            return fail(lo, e->loc, "`%s` is a function: call it", e->name);
        case AST_axis:
            return fail(lo, e->loc, "`%s` is an axis of the mesh, not a value", e->name);
        default:
            return decl_value(lo, d, e->loc);
    }
}

/* ---- conditions -------------------------------------------------------------------------------------------------- */

/* A condition that is known, perhaps once for every iteration. */
static int condition_value(Lower *lo, const Ast *e, Val v) {
    if (val_is_error(v)) return -1;
    if (v.kind == VAL_none) return 0;
    if (v.kind != VAL_bool) {
        fail(lo, e->loc, "a condition must be a bool known when compiling, found %s", val_describe(lo, v));
        if (v.kind == VAL_tensor) note(lo, e->loc, "to choose when running, write where(condition, a, b)");
        return -1;
    }
    if (v.vec == NULL) return v.num != 0;
    for (int64_t i = 1; i < v.vec->frame->trip; i++)
        if (v.vec->at[i] != v.vec->at[0]) {
            if (lo->split == NULL) lo->split = v.vec;
            return -1;
        }
    return v.vec->at[0] != 0;
}

int expr_condition(Lower *lo, const Ast *e) {
    if (e->kind == AST_unary && strcmp(e->name, "not") == 0) {
        int c = expr_condition(lo, e->at[0]);
        return c < 0 ? c : !c;
    }
    if (e->kind == AST_binary && (strcmp(e->name, "and") == 0 || strcmp(e->name, "or") == 0)) {
        int c = expr_condition(lo, e->at[0]);
        return c < 0 || c == (e->name[0] == 'o') ? c : expr_condition(lo, e->at[1]);
    }
    const Bind *b = e->kind == AST_name ? call_find(lo->call, e->name) : NULL;
    if (b != NULL && b->optional) return val_is_error(b->val) ? -1 : b->val.kind != VAL_none;
    return condition_value(lo, e, expr_eval(lo, e));
}

static Val eval_cond(Lower *lo, const Ast *e) {
    int c = expr_condition(lo, e->at[IF_COND]);
    return c < 0 ? val_error() : expr_eval(lo, e->at[c ? IF_THEN : IF_ELSE]);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

static Val eval_num(Lower *lo, const Ast *e) {
    if (!e->integer) return val_num(e->num);
    if (fabs(e->num) > 0x1p53) return fail(lo, e->loc, "this number is too large");
    if (fabs(e->num) > (double)MAX_DIM) return (Val){.kind = VAL_num, .integer = true, .num = e->num};
    return val_int(lo, (int64_t)e->num);
}

static Val eval_array(Lower *lo, const Ast *e) {
    Val out = {.kind = VAL_list, .n = e->n, .at = NEW_ARRAY(lo->a, Val, e->n + 1)};
    for (int i = 0; i < e->n; i++) {
        out.at[i] = expr_eval(lo, e->at[i]);
        if (val_is_error(out.at[i])) return val_error();
    }
    return out;
}

/* f(x) in "path": a call opens the scope itself, after its arguments; the call then takes no name of its own. */
static Val eval_scoped(Lower *lo, const Ast *e) {
    Scope *outer = lo->scope;
    if (e->at[0]->kind == AST_call) {
        lo->scoped = e;
        return expr_eval(lo, e->at[0]);
    }
    if (!scope_open(lo, e->name, e->loc)) return val_error();
    Val v = expr_eval(lo, e->at[0]);
    lo->scope = outer;
    return v;
}

Val expr_eval(Lower *lo, const Ast *e) {
    lo->b.loc = e->loc;
    switch (e->kind) {
        case AST_num:
            return eval_num(lo, e);
        case AST_str:
            return (Val){.kind = VAL_str, .str = e->name};
        case AST_name:
            return eval_name(lo, e);
        case AST_any:
            if (!lo->call->has_elem)
                return fail(lo, e->loc, "`?` has no meaning here: no argument is declared with it");
            return (Val){.kind = VAL_dtype, .dtype = lo->call->elem};
        case AST_unary:
            return eval_unary(lo, e);
        case AST_binary:
            return eval_binary(lo, e);
        case AST_cond:
            return eval_cond(lo, e);
        case AST_call:
            return call_eval(lo, e);
        case AST_index:
            return index_eval(lo, e);
        case AST_relabel:
            return relabel_eval(lo, e);
        case AST_scoped:
            return eval_scoped(lo, e);
        case AST_array:
            return eval_array(lo, e);
        case AST_each:
            return call_each(lo, e);
        case AST_arrow:
            return fail(lo, e->loc, "`->` belongs in einsum, a reduction, or a collective");
        default:
            return fail(lo, e->loc, "this is no value (%s)", ast_kind_name(e->kind));
    }
}

const Poly *expr_label(Lower *lo, const Ast *e) {
    Val v = expr_eval(lo, e);
    const Poly *p = val_label(lo, v, e->loc);
    if (p != NULL) label_of(lo, p);
    return p;
}

bool expr_labels(Lower *lo, int n, Ast *const *e, LabelList *out) {
    *out = (LabelList){0};
    for (int i = 0; i < n; i++) {
        const Poly *p = expr_label(lo, e[i]);
        if (p == NULL) return false;
        if (out->n == MAX_RANK) return fail(lo, e[i]->loc, "a tensor has at most %d axes", MAX_RANK), false;
        for (int k = 0; k < out->n; k++)
            if (out->at[k] == p->text) return fail(lo, e[i]->loc, "the label %s stands twice", p->text), false;
        out->at[out->n++] = p->text;
    }
    return true;
}
