/* entry.c: an entry of the source as a function of the module.
 *
 * The arguments and results are in the order that the source gives, since a caller outside sees memory. Results are
 * followed by the metrics (unless it is `generate` that runs it); a training step has the entry's results too, and the
 * gradient's norm. States that were assigned are written at the end. `generate` makes a function for each combination
 * of the sizes it lists, with the dims of the file evaluated anew. */
#include <string.h>

#include "lower.h"
#include "support/intern.h"
#include "support/str.h"

/* ---- arguments and results --------------------------------------------------------------------------------------- */

static bool entry_arguments(Lower *lo, const Ast *fn) {
    if (fn->at[FN_GENERICS]->n > 0)
        return fail(lo, fn->at[FN_GENERICS]->loc, "an entry has no generics: its sizes are the dims of the file"),
               false;
    for (int i = 0; i < fn->at[FN_ARGS]->n; i++) {
        const Ast *arg = fn->at[FN_ARGS]->at[i];
        TypeSpec spec;
        if (arg->at[ARG_TYPE] == NULL || arg->at[ARG_TYPE]->bare || arg->at[ARG_DEFAULT] != NULL)
            return fail(lo, arg->loc, "an argument of an entry is a tensor: %s: f32[]", arg->name), false;
        if (!type_eval(lo, arg->at[ARG_TYPE], NULL, &spec)) return false;
        Value *v = block_arg(lo->m, lo->func->body, &spec.type, arg->name);
        v->loc = arg->loc;
        call_bind(lo, arg->name, val_tensor(v), arg->loc);
    }
    return true;
}

static void add_result(Lower *lo, Value *v, const char *name) {
    vec_push(lo->m->arena, lo->func->body->results, v);
    vec_push(lo->m->arena, lo->func->result_names, name);
}

/* The results as tensors whose axes are in the declared order. */
static bool entry_results(Lower *lo, const Ast *fn, Val v) {
    const Ast *results = fn->at[FN_RESULTS];
    if (val_is_error(v)) return false;
    for (int i = 0; i < results->n; i++) {
        Val r = results->n == 1 ? v : v.at[i];
        const Ast *result = results->at[i];
        TypeSpec spec;
        if (val_is_error(r) || !type_eval(lo, result->at[0], NULL, &spec)) return false;
        if (r.kind != VAL_tensor) return fail(lo, result->loc, "a result of an entry is a tensor"), false;
        LabelList order = type_labels(&spec.type);
        Value *x = type_permute(lo, r.t, &order);
        if (x == NULL) return false;
        add_result(lo, x,
                   result->name != NULL ? result->name
                   : i == 0             ? fn->name
                                        : intern_printf("%s.%d", fn->name, i));
    }
    return true;
}

static void write_states(Lower *lo) {
    for (int i = 0; i < lo->slots.n; i++) {
        const Slot *s = lo->slots.at[i];
        if (s->dirty) emit(lo, OP_write, 1, (Value *[]){s->whole}, &(Attrs){.var = s->var}, NULL, s->var->loc);
    }
}

/* ---- the function ------------------------------------------------------------------------------------------------ */

static bool lower_in(Lower *lo, Decl *entry, const Ast *train) {
    const Ast *fn = entry->node;
    if (!entry_arguments(lo, fn)) return false;
    stmt_block(lo, fn->at[FN_BODY]);
    Val v = call_finish(lo, entry);
    if (!entry_results(lo, fn, v)) return false;
    for (int i = 0; i < lo->metrics.n; i++) add_result(lo, lo->metrics.at[i].value, lo->metrics.at[i].name);
    if (train != NULL) {
        Value *norm = train_step(lo, train);
        if (norm == NULL) return false;
        add_result(lo, norm, "grad_norm");
    }
    write_states(lo);
    return true;
}

bool entry_lower(Lower *lo, Decl *entry, const char *name, const Ast *train) {
    int errors = diag_errors();
    source_reset(lo);
    Call call = {.unit = lo->main, .fn = entry, .outer = NULL};
    Call *outer = lo->call;
    Scope root = {.path = "", .pattern = ""}, *scope = lo->scope;
    lo->call = &call;
    lo->scope = &root;
    lo->training = train != NULL;
    lo->func = func_new(lo->m, name, train != NULL ? FUNC_train : FUNC_entry, entry->node->name_loc);
    lo->b = (Builder){.m = lo->m, .block = lo->func->body};
    lo->slots.n = lo->metrics.n = lo->ordinals.n = 0;
    bool ok = lower_in(lo, entry, train) && diag_errors() == errors;
    lo->func = NULL;
    lo->training = false;
    lo->call = outer;
    lo->scope = scope;
    return ok;
}

/* ---- generate ---------------------------------------------------------------------------------------------------- */

/* A dim and the sizes to compile. */
typedef struct Size {
    Decl *dim;
    int n;
    int64_t *at;
} Size;
typedef VEC(Size) SizeList;

static bool size_eval(Lower *lo, const Ast *named, SizeList *out) {
    Decl *d = source_find(lo->main, named->name);
    if (d == NULL || d->node->kind != AST_dim) {
        VEC(const char *) names = {0};
        for (int i = 0; i < lo->main->decls.n; i++)
            if (lo->main->decls.at[i]->node->kind == AST_dim) vec_push(lo->a, names, lo->main->decls.at[i]->name);
        fail(lo, named->loc, "the file has no dim `%s`%s", named->name, suggest(lo, named->name, names.n, names.at));
        return false;
    }
    Size s = {.dim = d, .n = named->n, .at = NEW_ARRAY(lo->a, int64_t, named->n)};
    for (int i = 0; i < named->n; i++) {
        const Ast *e = named->at[i];
        if (!val_integer(lo, expr_eval(lo, e), "a size", e->loc, &s.at[i])) return false;
        if (s.at[i] < 1) return fail(lo, e->loc, "a size is at least 1"), false;
        for (int k = i; k > 0 && s.at[k - 1] > s.at[k]; k--) {
            int64_t t = s.at[k];
            s.at[k] = s.at[k - 1];
            s.at[k - 1] = t;
        }
    }
    for (int i = 0; i < out->n; i++)
        if (out->at[i].dim == d) return fail(lo, named->loc, "`%s` is listed twice", named->name), false;
    for (int i = 1; i < s.n; i++)
        if (s.at[i] == s.at[i - 1]) return fail(lo, named->loc, "a size of `%s` is listed twice", named->name), false;
    vec_push(lo->a, *out, s);
    return true;
}

/* "logits@S=1": the dims that have several sizes. */
static const char *instance_name(Lower *lo, const char *entry, const SizeList *sizes, const int *pick) {
    Str s = str_new(lo->a);
    str_add(&s, entry);
    bool any = false;
    for (int i = 0; i < sizes->n; i++) {
        const Size *z = &sizes->at[i];
        if (z->n < 2) continue;
        str_addf(&s, "%s%s=%lld", any ? "," : "@", z->dim->name, (long long)z->at[pick[i]]);
        any = true;
    }
    return s.at;
}

static void lower_instance(Lower *lo, Decl *entry, const Ast *node, const SizeList *sizes, const int *pick) {
    const char *name = instance_name(lo, entry->name, sizes, pick);
    bool first = true, last = true;
    for (int i = 0; i < sizes->n; i++) {
        const Size *z = &sizes->at[i];
        first = first && pick[i] == 0;
        last = last && pick[i] == z->n - 1;
        z->dim->size = dim_symbol(lo, z->dim->name, z->dim->node, z->at[pick[i]], false, z->dim->node->loc);
    }
    lo->serving = true;
    lo->serving_at = node->loc;
    entry_lower(lo, entry, name, NULL);
    lo->serving = false;
    for (int i = 0; i < sizes->n; i++) sizes->at[i].dim->size = NULL;
    if (first) lo->m->generate_decode = name;
    if (last) lo->m->generate_prefill = name;
}

void generate_lower(Lower *lo, Decl *entry, const Ast *node) {
    SizeList sizes = {0};
    int64_t instances = 1;
    if (node->n > GENERATE_AFTER && node->at[GENERATE_AFTER] != NULL) {
        fail(lo, node->at[GENERATE_AFTER]->loc, "`after` is not supported");
        return;
    }
    for (int i = 0; i < node->at[GENERATE_SIZES]->n; i++) {
        if (!size_eval(lo, node->at[GENERATE_SIZES]->at[i], &sizes)) return;
        instances *= sizes.at[i].n;
        if (instances > MAX_INSTANCES) {
            fail(lo, node->loc, "these sizes make more than %d functions", MAX_INSTANCES);
            return;
        }
    }
    int *pick = NEW_ARRAY(lo->a, int, sizes.n + 1);
    for (int64_t k = 0; k < instances; k++) {
        int64_t rest = k;
        for (int i = sizes.n - 1; i >= 0; i--) {
            pick[i] = (int)(rest % sizes.at[i].n);
            rest /= sizes.at[i].n;
        }
        lower_instance(lo, entry, node, &sizes, pick);
    }
}
