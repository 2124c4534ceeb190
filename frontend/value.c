/* value.c: what expressions evaluate to, and the adaptation that is implicit.
 *
 * A number known at compile time has no element type of its own: it takes that of the tensor it meets, when that can
 * hold it (an i32 takes no 2.5). A bool is 0 or 1 in arithmetic. Nothing else is promoted; a cast is written. A number
 * that differs by iteration of a rolled loop becomes arithmetic on the iteration index, which it must be linear in. */
#include <math.h>
#include <string.h>

#include "lower.h"
#include "support/str.h"

Val val_error(void) {
    return (Val){.kind = VAL_error};
}
Val val_none(void) {
    return (Val){.kind = VAL_none};
}
Val val_num(double x) {
    return (Val){.kind = VAL_num, .num = x};
}
Val val_bool(bool b) {
    return (Val){.kind = VAL_bool, .num = b};
}
Val val_tensor(Value *t) {
    return t == NULL ? val_error() : (Val){.kind = VAL_tensor, .t = t};
}
Val val_poly(const Poly *p) {
    return (Val){.kind = VAL_num, .integer = true, .num = (double)p->size, .poly = p};
}
Val val_int(Lower *lo, int64_t x) {
    return (Val){.kind = VAL_num, .integer = true, .num = (double)x, .poly = poly_const(lo->a, x)};
}
Val val_tuple(Lower *lo, int n, const Val *at) {
    Val v = {.kind = VAL_tuple, .n = n, .at = NEW_ARRAY(lo->a, Val, n + 1)};
    for (int i = 0; i < n; i++) v.at[i] = at[i];
    return v;
}
bool val_is_error(Val v) {
    return v.kind == VAL_error;
}
bool val_is_static(Val v) {
    return (v.kind == VAL_num || v.kind == VAL_bool) && v.vec == NULL;
}

static const char *describe_number(Lower *lo, Val v) {
    if (v.vec != NULL) return "a number that differs by iteration";
    if (v.poly != NULL && !poly_is_const(v.poly))
        return arena_printf(lo->a, "%s (%lld)", v.poly->text, (long long)v.poly->size);
    return arena_printf(lo->a, "the number %g", v.num);
}

const char *val_describe(Lower *lo, Val v) {
    switch (v.kind) {
        case VAL_none:
            return "none";
        case VAL_num:
            return describe_number(lo, v);
        case VAL_bool:
            return v.vec != NULL ? "a bool that differs by iteration" : v.num != 0 ? "true" : "false";
        case VAL_str:
            return "a string";
        case VAL_dtype:
            return arena_printf(lo->a, "the type %s", dtype_name(v.dtype));
        case VAL_list:
            return "a list";
        case VAL_tuple:
            return arena_printf(lo->a, "%d results", v.n);
        case VAL_tensor: {
            Str s = str_new(lo->a);
            str_addf(&s, "%s[", dtype_name(v.t->type.dtype));
            for (int i = 0; i < v.t->type.rank; i++) str_addf(&s, "%s%s", i > 0 ? ", " : "", v.t->type.dim[i].label);
            str_add(&s, "]");
            return s.at;
        }
        case VAL_error:
            break;
    }
    return "an error";
}

/* ---- numbers as tensors ------------------------------------------------------------------------------------------ */

/* The value in each iteration, as base + i * step on the iteration index. */
static Value *varying_tensor(Lower *lo, Val v, DType t, Loc loc) {
    const double *at = v.vec->at;
    int64_t trip = v.vec->frame->trip;
    double step = trip > 1 ? at[1] - at[0] : 0;
    bool linear = v.kind == VAL_num;
    for (int64_t i = 2; i < trip; i++) linear = linear && at[i] - at[i - 1] == step;
    if (!linear) {
        fail(lo, loc,
             "this differs by iteration of a rolled loop in a way that is not linear; compute it from i32() of the "
             "loop variable");
        return NULL;
    }
    DType in = v.integer ? DT_i32 : DT_f32;
    Value *x = v.vec->frame->iteration;
    if (in != DT_i32) x = emit1(lo, OP_cast, x, &(Attrs){.dtype = in}, loc);
    if (step != 1) x = emit2(lo, OP_mul, x, emit_const(lo, in, step, loc), NULL, loc);
    if (at[0] != 0) x = emit2(lo, OP_add, x, emit_const(lo, in, at[0], loc), NULL, loc);
    return t == in ? x : emit1(lo, OP_cast, x, &(Attrs){.dtype = t}, loc);
}

static bool fits(Val v, DType t) {
    if (v.kind == VAL_bool) return true;
    if (t == DT_bool) return v.num == 0 || v.num == 1;
    return t != DT_i32 || (v.integer && (v.vec != NULL || fabs(v.num) <= INT32_MAX));
}

Value *val_to_tensor(Lower *lo, Val v, DType t, Loc loc) {
    if (v.kind == VAL_error) return NULL;
    if (v.kind == VAL_tensor && v.t->type.dtype == t) return v.t;
    if ((v.kind != VAL_num && v.kind != VAL_bool) || !fits(v, t)) {
        fail(lo, loc, "expected %s, found %s", dtype_name(t), val_describe(lo, v));
        if (v.kind == VAL_tensor) note(lo, loc, "nothing is converted silently: write %s(…)", dtype_name(t));
        return NULL;
    }
    return v.vec != NULL ? varying_tensor(lo, v, t, loc) : emit_const(lo, t, v.num, loc);
}

Value *val_to_any(Lower *lo, Val v, Loc loc) {
    if (v.kind == VAL_tensor) return v.t;
    return val_to_tensor(lo, v, v.kind == VAL_bool ? DT_bool : v.integer ? DT_i32 : DT_f32, loc);
}

Value *val_countable(Lower *lo, Value *x) {
    if (x == NULL || x->type.dtype != DT_bool) return x;
    return emit1(lo, OP_cast, x, &(Attrs){.dtype = DT_i32}, lo->b.loc);
}

/* ---- two operands ------------------------------------------------------------------------------------------------ */

/* The element type that a number or bool would have beside a tensor of type t. */
static DType beside(Val v, DType t, bool arith) {
    if (t != DT_bool || (v.kind == VAL_bool && !arith)) return t;
    return v.kind == VAL_bool || v.integer ? DT_i32 : DT_f32;
}

/* Common element type; false when there is none. */
static bool common_type(Val x, Val y, bool arith, DType *out) {
    bool tx = x.kind == VAL_tensor, ty = y.kind == VAL_tensor;
    if (tx && ty) {
        DType a = x.t->type.dtype, b = y.t->type.dtype;
        *out = a == DT_bool ? b : a;
        if (arith && *out == DT_bool) *out = DT_i32;
        return a == b || a == DT_bool || b == DT_bool;
    }
    if (tx || ty)
        *out = tx ? beside(y, x.t->type.dtype, arith) : beside(x, y.t->type.dtype, arith);
    else if (x.kind == VAL_bool && y.kind == VAL_bool && !arith)
        *out = DT_bool;
    else
        *out = (x.integer || x.kind == VAL_bool) && (y.integer || y.kind == VAL_bool) ? DT_i32 : DT_f32;
    return true;
}

static bool is_scalar_kind(Val v) {
    return v.kind == VAL_tensor || v.kind == VAL_num || v.kind == VAL_bool;
}

static Value *as_type(Lower *lo, Val v, DType t, Loc loc) {
    if (v.kind == VAL_tensor && v.t->type.dtype == DT_bool && t != DT_bool)
        return emit1(lo, OP_cast, v.t, &(Attrs){.dtype = t}, loc);
    return val_to_tensor(lo, v, t, loc);
}

bool val_unify(Lower *lo, const char *what, Val x, Val y, bool arith, Loc loc, Value **a, Value **b) {
    if (val_is_error(x) || val_is_error(y)) return false;
    if (!is_scalar_kind(x) || !is_scalar_kind(y)) {
        fail(lo, loc, "`%s` needs tensors or numbers, found %s and %s", what, val_describe(lo, x), val_describe(lo, y));
        return false;
    }
    DType t;
    if (!common_type(x, y, arith, &t)) {
        fail(lo, loc, "`%s` of %s and %s: element types differ", what, val_describe(lo, x), val_describe(lo, y));
        DType from = x.t->type.dtype, to = y.t->type.dtype;
        if (to == DT_i32) to = from, from = DT_i32;
        note(lo, loc, "nothing is converted silently: write %s(…) around what is %s", dtype_name(to), dtype_name(from));
        return false;
    }
    *a = as_type(lo, x, t, loc);
    *b = as_type(lo, y, t, loc);
    return *a != NULL && *b != NULL;
}

/* ---- what arguments must be -------------------------------------------------------------------------------------- */

const Poly *val_label(Lower *lo, Val v, Loc loc) {
    if (v.kind == VAL_error) return NULL;
    if (v.kind == VAL_num && v.vec != NULL) {
        fail(lo, loc, "a size may not depend on the loop variable: write two loops");
        return NULL;
    }
    if (v.kind != VAL_num || !v.integer) {
        fail(lo, loc, "expected a dim, found %s", val_describe(lo, v));
        return NULL;
    }
    if (v.poly == NULL) {
        fail(lo, loc, "this expression is too long for a label; name it: dim X = …");
        return NULL;
    }
    if (v.poly->size < 1) {
        fail(lo, loc, "the axis %s would have size %lld", v.poly->text, (long long)v.poly->size);
        return NULL;
    }
    return v.poly;
}

bool val_integer(Lower *lo, Val v, const char *what, Loc loc, int64_t *out) {
    if (v.kind == VAL_error) return false;
    if (v.kind == VAL_num && v.integer && v.vec == NULL && fabs(v.num) > (double)MAX_DIM)
        return fail(lo, loc, "%s is %.0f; at most 2**40 is possible", what, v.num), false;
    if (v.kind != VAL_num || !v.integer || v.vec != NULL) {
        fail(lo, loc, "%s must be an integer known when compiling, found %s", what, val_describe(lo, v));
        return false;
    }
    *out = (int64_t)v.num;
    return true;
}
