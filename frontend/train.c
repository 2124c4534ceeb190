/* train.c: the training step: gradients, clipping, optimizer.
 *
 * Before: the entry's forward part is lowered, its loss is the first result. After: `grad` of the loss by each
 * parameter that was read and is not frozen; the gradients scaled to a global norm of at most `clip`; for each
 * parameter the optimizer's function, in a scope "opt." and the parameter's path, and a write of what it returns.
 * A parameter that is stacked over a loop is one tensor here, and the optimizer's states are stacked as it is. */
#include <string.h>

#include "lower.h"
#include "support/intern.h"

/* An optimizer with its arguments, for the parameters that its patterns match. */
typedef struct Group {
    const Ast *node;
    Decl *fn; /* NULL: frozen */
    Actual *actual;
    int n; /* the first two are the parameter and its gradient */
} Group;

typedef struct Train {
    const Ast *node;
    VEC(Group) groups;
    Val clip; /* none: unbounded */
    Val ema;  /* none: no running mean is kept */
    VEC(Slot *) slots;
    VEC(const Group *) of; /* parallel to slots */
} Train;

/* ---- what `train` says ------------------------------------------------------------------------------------------- */

static bool set_clip(Lower *lo, Train *t, const Ast *value) {
    Val v = expr_eval(lo, value);
    if (val_is_error(v)) return false;
    if (v.kind != VAL_num || v.vec != NULL || !(v.num > 0))
        return fail(lo, value->loc, "`clip` is a positive number, found %s", val_describe(lo, v)), false;
    if (t->clip.kind != VAL_none && t->clip.num != v.num)
        return fail(lo, value->loc, "`clip` holds for all gradients together and is given once"), false;
    t->clip = v;
    return true;
}

static bool set_ema(Lower *lo, Train *t, const Ast *value) {
    Val v = expr_eval(lo, value);
    if (val_is_error(v)) return false;
    if (v.kind != VAL_num || v.vec != NULL || !(v.num > 0 && v.num < 1))
        return fail(lo, value->loc, "`ema` is a number between 0 and 1, found %s", val_describe(lo, v)), false;
    if (t->ema.kind != VAL_none) return fail(lo, value->loc, "`ema` is given twice"), false;
    t->ema = v;
    return true;
}

static bool group_args(Lower *lo, Train *t, const Ast *call, Group *g) {
    g->actual = NEW_ARRAY(lo->a, Actual, call->n + 2);
    g->n = 2;
    for (int i = 0; i < call->n; i++) {
        const Ast *arg = call->at[i], *value = arg->kind == AST_named ? arg->at[0] : arg;
        if (arg->kind == AST_named && (arg->name == NULL || arg->n != 1))
            return fail(lo, arg->loc, "an argument of an optimizer is given as name: value"), false;
        if (arg->kind == AST_named && strcmp(arg->name, "clip") == 0) {
            if (!set_clip(lo, t, value)) return false;
            continue;
        }
        Val v = expr_eval(lo, value);
        if (val_is_error(v)) return false;
        g->actual[g->n++] = (Actual){arg->kind == AST_named ? arg->name : NULL, v, value->loc};
    }
    return true;
}

static bool group_eval(Lower *lo, Train *t, const Ast *node) {
    const Ast *call = node->n > GROUP_CALL ? node->at[GROUP_CALL] : NULL;
    Group g = {.node = node};
    if (call != NULL) {
        g.fn = source_find(lo->call->unit, call->name);
        if (g.fn == NULL || g.fn->node->kind != AST_fn) {
            const char *names[] = {"sgd", "adamw"};
            fail(lo, call->loc, "there is no optimizer `%s`%s", call->name, suggest(lo, call->name, 2, names));
            return false;
        }
        if (!group_args(lo, t, call, &g)) return false;
    }
    vec_push(lo->a, t->groups, g);
    return true;
}

static bool words_eval(Lower *lo, Train *t, const Ast *words) {
    for (int i = 0; i < words->n; i++) {
        const Ast *w = words->at[i];
        const char *known[] = {"clip", "ema"};
        bool clip = strcmp(w->name, "clip") == 0;
        if (!clip && strcmp(w->name, "ema") != 0)
            return fail(lo, w->loc, "`%s` is not supported%s", w->name, suggest(lo, w->name, 2, known)), false;
        if (clip ? !set_clip(lo, t, w->at[0]) : !set_ema(lo, t, w->at[0])) return false;
    }
    return true;
}

/* ---- which parameters -------------------------------------------------------------------------------------------- */

/* `*` stands for any text. O(pattern x path): the last star is retried. */
static bool glob(const char *pattern, const char *path) {
    const char *star = NULL, *retry = path;
    while (*path != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            retry = path;
        } else if (*pattern == *path) {
            pattern++;
            path++;
        } else if (star != NULL) {
            pattern = star + 1;
            path = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == '\0';
}

static const Group *group_of(const Train *t, const char *path) {
    for (int i = 0; i < t->groups.n; i++) {
        const Ast *patterns = t->groups.at[i].node->at[GROUP_PATTERNS];
        if (patterns->n == 0) return &t->groups.at[i];
        for (int k = 0; k < patterns->n; k++)
            if (glob(patterns->at[k]->name, path)) return &t->groups.at[i];
    }
    return NULL;
}

static bool is_trainable(const Var *v) {
    return v->kind == VAR_param && v->type.dtype != DT_i32 && v->type.dtype != DT_bool;
}

static bool select_parameters(Lower *lo, Train *t) {
    for (int i = 0; i < lo->slots.n; i++) {
        Slot *s = lo->slots.at[i];
        if (!is_trainable(s->var) || s->frozen) continue;
        const Group *g = group_of(t, s->var->path);
        if (g == NULL)
            return fail(lo, t->node->loc, "no group matches the parameter `%s`; end with \"*\": …", s->var->path),
                   false;
        if (g->fn == NULL) continue;
        s->var->trained = true;
        vec_push(lo->a, t->slots, s);
        vec_push(lo->a, t->of, g);
    }
    if (t->slots.n == 0) return fail(lo, t->node->loc, "`%s` reads no parameter to train", t->node->name), false;
    return true;
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

static Inst *emit_grad(Lower *lo, const Train *t) {
    Value *loss = lo->func->body->results.n > 0 ? lo->func->body->results.at[0] : NULL;
    if (loss == NULL || loss->type.rank > 0 || loss->type.dtype != DT_f32) {
        fail(lo, t->node->loc, "the first result of `%s` must be f32[]: what is minimized", t->node->name);
        return NULL;
    }
    Value **in = NEW_ARRAY(lo->a, Value *, t->slots.n + 1);
    in[0] = loss;
    for (int i = 0; i < t->slots.n; i++) in[i + 1] = t->slots.at[i]->whole;
    return emit(lo, OP_grad, t->slots.n + 1, in, NULL, NULL, t->node->loc);
}

/* The square root of the sum of squares of all gradients. */
static Value *global_norm(Lower *lo, int n, Value *const *g, Loc loc) {
    Value *sum = NULL;
    for (int i = 0; i < n; i++) {
        Value *x = g[i]->type.dtype == DT_f32 ? g[i] : emit1(lo, OP_cast, g[i], &(Attrs){.dtype = DT_f32}, loc);
        Attrs at = {.kind = intern("sum"), .labels = type_labels(&x->type)};
        Value *square = emit2(lo, OP_mul, x, x, NULL, loc);
        if (at.labels.n > 0) square = emit1(lo, OP_reduce, square, &at, loc);
        sum = sum == NULL ? square : emit2(lo, OP_add, sum, square, NULL, loc);
    }
    return emit1(lo, OP_sqrt, sum, NULL, loc);
}

/* Each gradient times min(1, clip / norm). */
static void clip_gradients(Lower *lo, const Train *t, Value *norm, int n, Value **g) {
    Loc loc = t->node->loc;
    Value *limit = emit_const(lo, DT_f32, t->clip.num, loc);
    Value *scale = emit2(lo, OP_div, limit, emit2(lo, OP_maximum, norm, limit, NULL, loc), NULL, loc);
    for (int i = 0; i < n; i++) {
        DType type = g[i]->type.dtype;
        Value *x = type == DT_f32 ? scale : emit1(lo, OP_cast, scale, &(Attrs){.dtype = type}, loc);
        g[i] = emit2(lo, OP_mul, g[i], x, NULL, loc);
    }
}

/* A function of one parameter, in a scope that begins with `head` and ends in the parameter's path. */
static Val call_for(Lower *lo, const Slot *s, const char *head, Decl *fn, int n, const Actual *actual, Loc loc) {
    const char *path = intern_printf("%s.%s", head, s->var->path);
    Scope scope = {.outer = lo->scope, .path = path, .pattern = path}, *outer = lo->scope;
    lo->scope = &scope;
    lo->stack_like = s->var;
    Val v = call_function(lo, fn, n, actual, loc, true);
    lo->stack_like = NULL;
    lo->scope = outer;
    return v;
}

/* The running mean of the parameter, which `x` is from now on. */
static bool keep_mean(Lower *lo, const Train *t, const Slot *s, Value *x) {
    Decl *fn = source_find(lo->call->unit, intern("running_mean"));
    Loc loc = t->node->loc;
    if (t->ema.kind == VAL_none) return true;
    if (fn == NULL || fn->node->kind != AST_fn) return fail(lo, loc, "`ema` needs a function `running_mean`"), false;
    Actual actual[] = {{NULL, val_tensor(x), loc}, {NULL, val_tensor(s->whole), loc}, {NULL, t->ema, loc}};
    return !val_is_error(call_for(lo, s, "ema", fn, 3, actual, loc));
}

/* Calls the optimizer and writes the parameter that it returns. */
static bool update(Lower *lo, const Train *t, Slot *s, const Group *g, Value *gradient) {
    Loc loc = g->node->loc;
    g->actual[0] = (Actual){NULL, val_tensor(s->whole), loc};
    g->actual[1] = (Actual){NULL, val_tensor(gradient), loc};
    Val v = call_for(lo, s, "opt", g->fn, g->n, g->actual, loc);
    if (val_is_error(v)) return false;
    LabelList order = type_labels(&s->var->type);
    bool fits = v.kind == VAL_tensor && v.t->type.dtype == s->var->type.dtype && v.t->type.rank == order.n &&
                labels_minus(type_labels(&v.t->type), order).n == 0;
    if (!fits) {
        fail(lo, loc, "`%s` returns %s for the parameter `%s`, which is %s", g->fn->name, val_describe(lo, v),
             s->var->path, val_describe(lo, val_tensor(s->whole)));
        return false;
    }
    Value *x = type_permute(lo, v.t, &order);
    if (emit(lo, OP_write, 1, &x, &(Attrs){.var = s->var}, NULL, loc) == NULL) return false;
    return keep_mean(lo, t, s, x);
}

static bool evaluate(Lower *lo, Train *t) {
    const Ast *groups = t->node->at[TRAIN_GROUPS];
    if (!words_eval(lo, t, t->node->at[TRAIN_WORDS])) return false;
    for (int i = 0; i < groups->n; i++)
        if (!group_eval(lo, t, groups->at[i])) return false;
    return select_parameters(lo, t);
}

Value *train_step(Lower *lo, const Ast *node) {
    Unit *unit = source_train_unit(lo);
    Call *outer = lo->call, top = {.unit = unit};
    Train t = {.node = node, .clip = val_none(), .ema = val_none()};
    Value *norm = NULL;
    lo->call = &top;
    Inst *grad = unit != NULL && evaluate(lo, &t) ? emit_grad(lo, &t) : NULL;
    if (grad != NULL) norm = global_norm(lo, grad->nout, grad->out, node->loc);
    if (norm != NULL) {
        Value **g = arena_copy(lo->a, grad->out, sizeof *g * (size_t)grad->nout);
        if (t.clip.kind != VAL_none) clip_gradients(lo, &t, norm, grad->nout, g);
        for (int i = 0; i < t.slots.n && norm != NULL; i++)
            if (!update(lo, &t, t.slots.at[i], t.of.at[i], g[i])) norm = NULL;
    }
    lo->call = outer;
    return norm;
}
