/* stmt.c: statements.
 *
 * An `if` is decided while compiling, so its branches share the names of the function: what a branch binds is seen
 * after it. Where the condition is not known (an error, or a loop that will be split), whatever the branches bind
 * becomes VAL_error, which silences what follows from it. */
#include <string.h>

#include "lower.h"
#include "support/intern.h"

/* ---- what a block does, by its text ------------------------------------------------------------------------------ */

static void add_name(Lower *lo, NameList *out, const char *name) {
    for (int i = 0; i < out->n; i++)
        if (out->at[i] == name) return;
    vec_push(lo->a, *out, name);
}

static void add_target(Lower *lo, NameList *out, const Ast *target) {
    while (target->kind == AST_index) target = target->at[INDEX_X];
    if (target->kind == AST_name) add_name(lo, out, target->name);
}

static bool holds_statements(const Ast *node) {
    return node->kind == AST_block || node->kind == AST_if || node->kind == AST_for || node->kind == AST_scope ||
           node->kind == AST_at_step;
}

void stmt_assigned(Lower *lo, const Ast *block, NameList *out) {
    if (block == NULL) return;
    if (block->kind == AST_assign)
        for (int i = 0; i < block->at[ASSIGN_TARGETS]->n; i++) add_target(lo, out, block->at[ASSIGN_TARGETS]->at[i]);
    for (int i = 0; holds_statements(block) && i < block->n; i++) stmt_assigned(lo, block->at[i], out);
}

bool stmt_returns(const Ast *block) {
    if (block == NULL) return false;
    if (block->kind == AST_return) return true;
    for (int i = 0; holds_statements(block) && i < block->n; i++)
        if (stmt_returns(block->at[i])) return true;
    return false;
}

/* ---- assignment -------------------------------------------------------------------------------------------------- */

static Slot *global_state(Lower *lo, const char *name) {
    Decl *d = call_find(lo->call, name) == NULL ? source_find(lo->call->unit, name) : NULL;
    return d != NULL && d->node->kind == AST_state ? scope_global_state(lo, d) : NULL;
}

static void assign_name(Lower *lo, const Ast *target, Val v) {
    Bind *b = call_find(lo->call, target->name);
    Slot *s = b != NULL ? b->state : global_state(lo, target->name);
    if (strcmp(target->name, "_") == 0) return;
    if (v.kind == VAL_tuple) {
        fail(lo, target->loc, "%d results are bound to one name", v.n);
        v = val_error();
    }
    if (s != NULL) {
        if (!val_is_error(v)) slot_assign(lo, s, v, target->loc);
        return;
    }
    if (b != NULL && b->dim) {
        fail(lo, target->loc, "`%s` is a dim and cannot be assigned", target->name);
        note(lo, b->loc, "it is bound here");
        return;
    }
    const Decl *d = b == NULL ? source_find(lo->call->unit, target->name) : NULL;
    if (d != NULL && d->node->kind == AST_dim) {
        fail(lo, target->loc, "`%s` is a dim and cannot be assigned", target->name);
        note(lo, d->node->name_loc, "it is declared here");
        return;
    }
    if (v.kind == VAL_tensor && v.t->name == NULL) v.t->name = target->name;
    call_bind(lo, target->name, v, target->loc);
}

static void assign_index(Lower *lo, const Ast *target, Val v) {
    const Ast *base = target->at[INDEX_X];
    if (base->kind != AST_name) {
        fail(lo, base->loc, "only a name can be assigned at an index");
        return;
    }
    assign_name(lo, base, index_assign(lo, target, expr_eval(lo, base), v));
}

static void assign(Lower *lo, const Ast *target, Val v) {
    if (target->kind == AST_name)
        assign_name(lo, target, v);
    else if (target->kind == AST_index)
        assign_index(lo, target, v);
    else
        fail(lo, target->loc, "this cannot be assigned");
}

/* All values before any name; one call with several results may give them all. */
static void stmt_assign(Lower *lo, const Ast *node) {
    const Ast *targets = node->at[ASSIGN_TARGETS], *values = node->at[ASSIGN_VALUES];
    Val *v = NEW_ARRAY(lo->a, Val, targets->n + values->n);
    for (int i = 0; i < values->n; i++) v[i] = expr_eval(lo, values->at[i]);
    int n = values->n;
    if (n == 1 && targets->n > 1 && v[0].kind == VAL_tuple) {
        n = v[0].n;
        v = v[0].at;
    } else if (n == 1 && val_is_error(v[0])) {
        for (n = 0; n < targets->n; n++) v[n] = val_error();
    }
    if (n != targets->n)
        fail(lo, node->loc, "%d name%s for %d value%s", targets->n, targets->n == 1 ? "" : "s", n, n == 1 ? "" : "s");
    for (int i = 0; i < targets->n; i++) assign(lo, targets->at[i], i < n && n == targets->n ? v[i] : val_error());
}

/* ---- the other statements ---------------------------------------------------------------------------------------- */

static Flow stmt_return(Lower *lo, const Ast *node) {
    Call *c = lo->call;
    Val *v = NEW_ARRAY(lo->a, Val, node->n + 1);
    for (int i = 0; i < node->n; i++) v[i] = expr_eval(lo, node->at[i]);
    c->returned = true;
    c->result_loc = node->loc;
    bool whole = node->n == 1 && (v[0].kind == VAL_tuple || val_is_error(v[0]));
    c->result = whole ? v[0] : val_tuple(lo, node->n, v);
    return FLOW_return;
}

/* Neither branch is lowered; what they would bind is unknown. */
static Flow if_unknown(Lower *lo, const Ast *node) {
    NameList names = {0};
    for (int i = IF_THEN; i < node->n; i++) stmt_assigned(lo, node->at[i], &names);
    for (int i = 0; i < names.n; i++) {
        const Bind *b = call_find(lo->call, names.at[i]);
        if (b == NULL || (b->state == NULL && !b->dim)) call_bind(lo, names.at[i], val_error(), node->loc);
    }
    bool returns = false;
    for (int i = IF_THEN; i < node->n; i++) returns = returns || stmt_returns(node->at[i]);
    if (!returns) return FLOW_next;
    lo->call->returned = true;
    lo->call->result = val_error();
    return FLOW_return;
}

static Flow stmt_if(Lower *lo, const Ast *node) {
    int c = expr_condition(lo, node->at[IF_COND]);
    if (c < 0) return if_unknown(lo, node);
    const Ast *branch = c ? node->at[IF_THEN] : node->at[IF_ELSE];
    return branch == NULL ? FLOW_next : stmt_block(lo, branch);
}

static void bind_dim(Lower *lo, const Ast *node) {
    Val v = expr_eval(lo, node->at[DEF_VALUE]);
    const Poly *p = val_label(lo, v, node->at[DEF_VALUE]->loc);
    if (p != NULL) p = dim_symbol(lo, node->name, node, p->size, true, node->name_loc);
    call_bind(lo, node->name, p == NULL ? val_error() : val_poly(p), node->name_loc);
    call_find(lo->call, node->name)->dim = true;
}

static void bind_const(Lower *lo, const Ast *node) {
    Val v = expr_eval(lo, node->at[DEF_VALUE]);
    if (v.kind == VAL_tensor || v.kind == VAL_tuple)
        v = fail(lo, node->at[DEF_VALUE]->loc, "a const is known when compiling, this is %s", val_describe(lo, v));
    call_bind(lo, node->name, v, node->name_loc);
}

static Flow stmt_scope(Lower *lo, const Ast *node) {
    Scope *outer = lo->scope;
    if (!scope_open(lo, node->name, node->loc)) return FLOW_next;
    Flow f = stmt_block(lo, node->at[0]);
    lo->scope = outer;
    return f;
}

/* Once a training step: a router's bias that moves against its load. It sees the parameters from before the step. */
static Flow stmt_at_step(Lower *lo, const Ast *node) {
    return lo->training && !lo->scope->frozen ? stmt_block(lo, node->at[0]) : FLOW_next;
}

static Flow stmt(Lower *lo, const Ast *node) {
    lo->b.loc = node->loc;
    switch (node->kind) {
        case AST_assign:
            stmt_assign(lo, node);
            break;
        case AST_return:
            return stmt_return(lo, node);
        case AST_if:
            return stmt_if(lo, node);
        case AST_for:
            return stmt_for(lo, node);
        case AST_scope:
            return stmt_scope(lo, node);
        case AST_param:
        case AST_state:
            scope_declare(lo, node);
            break;
        case AST_metric:
            scope_metric(lo, node);
            break;
        case AST_dim:
            bind_dim(lo, node);
            break;
        case AST_const:
            bind_const(lo, node);
            break;
        case AST_at_step:
            return stmt_at_step(lo, node);
        default:
            fail(lo, node->loc, "this is no statement (%s)", ast_kind_name(node->kind));
            break;
    }
    return FLOW_next;
}

/* Names are searched one by one. */
static bool too_many_names(Lower *lo, Loc loc) {
    Call *c = lo->call;
    if (c->binds.n <= MAX_NAMES) return false;
    c->returned = true;
    c->result = fail(lo, loc, "a function has at most %d names", MAX_NAMES);
    return true;
}

Flow stmt_block(Lower *lo, const Ast *block) {
    for (int i = 0; i < block->n; i++)
        if (too_many_names(lo, block->at[i]->loc) || stmt(lo, block->at[i]) == FLOW_return) return FLOW_return;
    return FLOW_next;
}
