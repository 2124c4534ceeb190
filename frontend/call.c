/* call.c: expansion of functions in place.
 *
 * Arguments bind in three rounds: dims, then tensors in order (which binds generics, `?` and `...`), then defaults,
 * which may use what came before. A function under which parameters are made opens a scope of its name unless the call
 * says `in`. Recursion is refused, so expansion ends; its depth is bounded all the same. */
#include <string.h>

#include "lower.h"
#include "support/str.h"

Bind *call_find(const Call *c, const char *name) {
    for (int i = c->binds.n - 1; i >= 0; i--)
        if (c->binds.at[i].name == name) return &c->binds.at[i];
    return NULL;
}

void call_bind(Lower *lo, const char *name, Val v, Loc loc) {
    Bind *b = call_find(lo->call, name);
    if (b != NULL)
        *b = (Bind){.name = name, .val = v, .loc = loc};
    else
        vec_push(lo->a, lo->call->binds, ((Bind){.name = name, .val = v, .loc = loc}));
}

/* ---- who owns parameters ----------------------------------------------------------------------------------------- */

static bool tree_owns(Lower *lo, const Unit *u, const Ast *e) {
    if (e == NULL) return false;
    if (e->kind == AST_param || e->kind == AST_state) return true;
    if (e->kind == AST_call) {
        Decl *d = source_find(u, e->name);
        if (d != NULL && d->node->kind == AST_fn && fn_owns(lo, d)) return true;
    }
    for (int i = 0; i < e->n; i++)
        if (tree_owns(lo, u, e->at[i])) return true;
    return false;
}

bool fn_owns(Lower *lo, Decl *fn) {
    if (fn->owns == OWNS_open) return false; /* recursion: an error when it is expanded */
    if (fn->owns == OWNS_unknown) {
        fn->owns = OWNS_open;
        fn->owns = tree_owns(lo, fn->unit, fn->node->at[FN_BODY]) ? OWNS_yes : OWNS_no;
    }
    return fn->owns == OWNS_yes;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static const char *suggest_argument(Lower *lo, const Ast *args, const char *word) {
    VEC(const char *) names = {0};
    for (int i = 0; i < args->n; i++) vec_push(lo->a, names, args->at[i]->name);
    return suggest(lo, word, names.n, names.at);
}

/* Which formal argument each actual one is: given[formal] is an index in `actual`, -1: absent. */
static bool match_formals(Lower *lo, Decl *fn, int n, const Actual *actual, int *given) {
    const Ast *args = fn->node->at[FN_ARGS];
    int next = 0;
    for (int i = 0; i < args->n; i++) given[i] = -1;
    for (int i = 0; i < n; i++) {
        int at = next;
        if (actual[i].name != NULL)
            for (at = 0; at < args->n && args->at[at]->name != actual[i].name; at++) continue;
        if (at >= args->n) {
            if (actual[i].name == NULL)
                fail(lo, actual[i].loc, "`%s` takes at most %d arguments", fn->name, args->n);
            else
                fail(lo, actual[i].loc, "`%s` has no argument `%s`%s", fn->name, actual[i].name,
                     suggest_argument(lo, args, actual[i].name));
            note(lo, fn->node->name_loc, "`%s` is declared here", fn->name);
            return false;
        }
        if (given[at] >= 0)
            return fail(lo, actual[i].loc, "the argument `%s` is given twice", args->at[at]->name), false;
        given[at] = i;
        if (actual[i].name == NULL) next++;
    }
    return true;
}

static bool is_dim_arg(const Ast *arg) {
    return arg->at[ARG_TYPE] == NULL && arg->at[ARG_DEFAULT] == NULL;
}

static bool bind_one(Lower *lo, Decl *fn, const Ast *arg, Val v, Loc loc) {
    const Ast *fallback = arg->at[ARG_DEFAULT];
    v = type_bind(lo, fn->node, arg, v, loc);
    if (val_is_error(v)) return false;
    call_bind(lo, arg->name, v, loc);
    Bind *b = call_find(lo->call, arg->name);
    b->dim = is_dim_arg(arg);
    b->optional = fallback != NULL && fallback->kind == AST_name && strcmp(fallback->name, "none") == 0;
    return true;
}

/* Binds the arguments of lo->call, which is the expansion of fn. What is wrong is not expanded: its body would only
 * complain of what it lacks. */
static bool bind_arguments(Lower *lo, Decl *fn, const Actual *actual, const int *given) {
    const Ast *args = fn->node->at[FN_ARGS];
    bool ok = true;
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < args->n; i++) {
            const Ast *arg = args->at[i];
            int when = given[i] < 0 ? 2 : is_dim_arg(arg) ? 0 : 1;
            if (when != round) continue;
            lo->call->binding = given[i] >= 0 || arg->at[ARG_DEFAULT] == NULL;
            if (given[i] >= 0) {
                ok = bind_one(lo, fn, arg, actual[given[i]].val, actual[given[i]].loc) && ok;
            } else if (arg->at[ARG_DEFAULT] == NULL) {
                fail(lo, lo->call->loc, "the argument `%s` of `%s` is missing", arg->name, fn->name);
                note(lo, arg->loc, "`%s` is declared here", arg->name);
                return false;
            } else {
                ok = ok && bind_one(lo, fn, arg, expr_eval(lo, arg->at[ARG_DEFAULT]), arg->at[ARG_DEFAULT]->loc);
            }
        }
    lo->call->binding = false;
    return ok;
}

/* ---- expansion --------------------------------------------------------------------------------------------------- */

static bool check_recursion(Lower *lo, Decl *fn, Loc loc) {
    int depth = 0;
    for (const Call *c = lo->call; c != NULL; c = c->outer, depth++) {
        if (c->fn != fn) continue;
        Str s = str_new(lo->a);
        for (const Call *k = lo->call; k != c; k = k->outer) str_addf(&s, " in `%s`", k->fn->name);
        fail(lo, loc, "`%s` would be expanded in itself:%s in `%s`; recursion is not supported", fn->name,
             s.at == NULL ? "" : s.at, fn->name);
        return false;
    }
    if (depth < MAX_CALL_DEPTH) return true;
    return fail(lo, loc, "calls are nested more than %d deep", MAX_CALL_DEPTH), false;
}

/* Expansion can be exponential in the text. Beyond the limit every call is an error, so that what is open ends soon. */
static bool check_expansions(Lower *lo, Loc loc) {
    if (lo->instructions > MAX_INSTRUCTIONS) return false;
    if (lo->expansions++ < MAX_EXPANSIONS) return true;
    if (lo->expansions == MAX_EXPANSIONS + 1) fail(lo, loc, "the program makes more than %d calls", MAX_EXPANSIONS);
    return false;
}

/* Without `in`, the scope is named after the function; once in a scope. */
static bool open_default(Lower *lo, Decl *fn, Loc loc) {
    Scope *s = lo->scope;
    for (int i = 0; i < s->defaults.n; i++)
        if (s->defaults.at[i] == fn) {
            fail(lo, loc, "a second call of `%s` here would own the same parameters", fn->name);
            note(lo, loc, "give each call a name: %s(…) in \"name\"", fn->name);
            return false;
        }
    if (lo->loop != NULL && lo->loop->scope == s) {
        fail(lo, loc, "each iteration of the loop would own the same parameters of `%s`", fn->name);
        note(lo, loc, "write %s(…) in \"%s.{%s}\", or in \"%s\" to share them", fn->name, fn->name, "l", fn->name);
        return false;
    }
    vec_push(lo->a, s->defaults, fn);
    return scope_open(lo, fn->name, loc);
}

Val call_finish(Lower *lo, Decl *fn) {
    const Ast *results = fn->node->at[FN_RESULTS];
    Call *c = lo->call;
    if (!c->returned) {
        if (results->n == 0) return val_tuple(lo, 0, NULL);
        fail(lo, c->loc, "`%s` ends without `return`", fn->name);
        note(lo, fn->node->name_loc, "`%s` is declared here", fn->name);
        return val_error();
    }
    if (val_is_error(c->result)) return val_error();
    if (c->result.n != results->n) {
        fail(lo, c->result_loc, "`%s` declares %d results, this returns %d", fn->name, results->n, c->result.n);
        return val_error();
    }
    for (int i = 0; i < results->n; i++) c->result.at[i] = type_result(lo, fn->node, i, c->result.at[i], c->result_loc);
    return results->n == 1 ? c->result.at[0] : c->result;
}

static Val expand(Lower *lo, Decl *fn, int n, const Actual *actual) {
    int *given = NEW_ARRAY(lo->a, int, fn->node->at[FN_ARGS]->n + 1);
    lo->call->binding = true;
    if (!match_formals(lo, fn, n, actual, given) || !bind_arguments(lo, fn, actual, given)) return val_error();
    stmt_block(lo, fn->node->at[FN_BODY]);
    return call_finish(lo, fn);
}

Val call_function(Lower *lo, Decl *fn, int n, const Actual *actual, Loc loc, bool scoped) {
    if (!check_recursion(lo, fn, loc) || !check_expansions(lo, loc)) return val_error();
    if (fn->node->at[FN_MANUAL] != NULL && fn->node->at[FN_MANUAL]->n > 0)
        return fail(lo, loc, "`%s` is a manual region, which is not supported", fn->name);
    Call *outer = lo->call;
    Scope *scope = lo->scope;
    if (!scoped && fn_owns(lo, fn) && !open_default(lo, fn, loc)) return val_error();
    Call c = {.outer = outer, .fn = fn, .unit = fn->unit, .loc = loc, .each = outer->each};
    lo->call = &c;
    Val v = expand(lo, fn, n, actual);
    lo->call = outer;
    lo->scope = scope;
    return v;
}

/* ---- call expressions -------------------------------------------------------------------------------------------- */

static bool actual_eval(Lower *lo, const Decl *fn, const Ast *arg, Actual *out) {
    const Ast *value = arg;
    if (arg->kind == AST_named) {
        if (arg->name == NULL || arg->n != 1)
            return fail(lo, arg->loc, "an argument of `%s` is given as name: value", fn->name), false;
        value = arg->at[0];
    }
    *out = (Actual){arg->kind == AST_named ? arg->name : NULL, expr_eval(lo, value), value->loc};
    if (out->val.kind != VAL_tuple) return true;
    return fail(lo, value->loc, "this call has %d results; bind them to names first", out->val.n), false;
}

/* A result that does not depend on the axis gets it all the same. */
static Val add_each(Lower *lo, Val v, const Poly *axis, Loc loc) {
    for (int i = 0; v.kind == VAL_tuple && i < v.n; i++) v.at[i] = add_each(lo, v.at[i], axis, loc);
    if (v.kind == VAL_num || v.kind == VAL_bool) v = val_tensor(val_to_any(lo, v, loc));
    if (v.kind != VAL_tensor || v.t == NULL || type_find(&v.t->type, axis->text) >= 0) return v;
    LabelList labels = {1, {axis->text}}, old = type_labels(&v.t->type);
    if (old.n == MAX_RANK) return fail(lo, loc, "a tensor has at most %d axes", MAX_RANK);
    for (int i = 0; i < old.n; i++) labels.at[labels.n++] = old.at[i];
    lo->b.loc = loc;
    return val_tensor(type_permute(lo, v.t, &labels));
}

static Val call_mapped(Lower *lo, Decl *fn, const Ast *e, const Actual *actual, const Ast *scoped, const Poly *axis) {
    LabelList *each = &lo->call->each, outer = *each;
    if (axis != NULL && type_is_each(lo, axis->text))
        return fail(lo, e->loc, "an `each` around this is over the axis %s already", axis->text);
    if (axis != NULL && each->n == MAX_RANK) return fail(lo, e->loc, "a tensor has at most %d axes", MAX_RANK);
    if (axis != NULL) each->at[each->n++] = axis->text;
    Call *call = lo->call;
    Val v = call_function(lo, fn, e->n, actual, e->loc, scoped != NULL);
    call->each = outer;
    return axis == NULL ? v : add_each(lo, v, axis, e->loc);
}

Val call_each(Lower *lo, const Ast *e) {
    const Ast *body = e->at[0], *call = body->kind == AST_scoped ? body->at[0] : body;
    Ast name = {.kind = AST_name, .loc = e->name_loc, .name = e->name};
    const Poly *axis = expr_label(lo, &name);
    if (axis == NULL) return val_error();
    Decl *fn = call->kind == AST_call ? source_find(lo->call->unit, call->name) : NULL;
    if (fn == NULL || fn->node->kind != AST_fn) return fail(lo, body->loc, "`each` maps the call of a function");
    lo->each = axis;
    return expr_eval(lo, body);
}

static Val call_user(Lower *lo, Decl *fn, const Ast *e, const Ast *scoped, const Poly *each) {
    Actual *actual = NEW_ARRAY(lo->a, Actual, e->n + 1);
    for (int i = 0; i < e->n; i++)
        if (!actual_eval(lo, fn, e->at[i], &actual[i])) return val_error();
    Scope *outer = lo->scope;
    /* Into a file under a name of its own: its entries have no scope but the file's, as when they are compiled there.
     */
    bool enters = fn->unit->alias != NULL && fn->unit != lo->call->unit;
    static const Ast none = {.kind = AST_scoped, .name = ""};
    if (enters && !scope_enter_unit(lo, fn->unit, e->loc)) return val_error();
    if (enters && fn->node->entry && scoped == NULL) scoped = &none;
    if (scoped != NULL && !scope_open(lo, scoped->name, scoped->loc)) return val_error();
    Val v = call_mapped(lo, fn, e, actual, scoped, each);
    lo->scope = outer;
    return v;
}

static Val call_builtin(Lower *lo, const Builtin *b, const Ast *e, const Ast *scoped) {
    int n = 0;
    while (arg_at(e, n) != NULL) n++;
    if (n < b->min || (b->max >= 0 && n > b->max)) {
        bool own = strncmp(b->doc, b->name, strlen(b->name)) == 0;
        fail(lo, e->loc, "`%s` takes %s%d argument%s without a name, not %d", b->name,
             b->max == b->min ? ""
             : n < b->min     ? "at least "
                              : "at most ",
             n < b->min ? b->min : b->max, (n < b->min ? b->min : b->max) == 1 ? "" : "s", n);
        note(lo, e->loc, own ? "%s%s" : "%s(x): %s", own ? "" : b->name, b->doc);
        return val_error();
    }
    Scope *outer = lo->scope;
    if (scoped != NULL && !scope_open(lo, scoped->name, scoped->loc)) return val_error();
    Val v = b->fn(lo, b, e);
    lo->scope = outer;
    return v;
}

static Val call_unknown(Lower *lo, const Ast *e) {
    VEC(const char *) names = {0};
    const char *builtins[128];
    int n = builtin_names(builtins, 128);
    for (int i = 0; i < n; i++) vec_push(lo->a, names, builtins[i]);
    const Unit *u = lo->call->unit;
    for (int k = -1; k < u->imports.n; k++) {
        const Unit *from = k < 0 ? u : u->imports.at[k];
        for (int i = 0; i < from->decls.n; i++)
            if (from->decls.at[i]->node->kind == AST_fn) vec_push(lo->a, names, from->decls.at[i]->name);
    }
    return fail(lo, e->loc, "there is no function `%s`%s", e->name, suggest(lo, e->name, names.n, names.at));
}

Val call_eval(Lower *lo, const Ast *e) {
    const Ast *scoped = lo->scoped;
    const Poly *each = lo->each;
    lo->scoped = NULL;
    lo->each = NULL;
    Decl *d = source_find(lo->call->unit, e->name);
    if (d != NULL && d->node->kind == AST_fn) return call_user(lo, d, e, scoped, each);
    const Builtin *b = builtin_find(e->name);
    if (b != NULL) return call_builtin(lo, b, e, scoped);
    const Builtin *cast = builtin_find("cast");
    if (d != NULL && d->node->kind == AST_dtype) return cast->fn(lo, cast, e);
    for (int t = 0; t < DT_COUNT; t++)
        if (strcmp(dtype_name((DType)t), e->name) == 0) return cast->fn(lo, cast, e);
    return call_unknown(lo, e);
}
