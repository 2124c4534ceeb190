/* scope.c: paths, and what lives at them: parameters, states, metrics.
 *
 * The path is a variable's identity. In the body of a rolled loop it holds braces ("{}", or "{1:2}" for every other
 * layer from 1 on), and the variable is one tensor with the trip count in front, of which the body sees a slice. A
 * variable is read once, at the start of a function; a state that was assigned is written at its end. The same path
 * from the same declaration is the same variable; from another one it is an error. */
#include <math.h>
#include <string.h>

#include "lower.h"
#include "support/intern.h"
#include "support/str.h"

/* ---- paths ------------------------------------------------------------------------------------------------------- */

static const char *join(Lower *lo, const char *path, const char *name) {
    if (*path == '\0' || *name == '\0') return *path == '\0' ? name : path;
    return arena_printf(lo->a, "%s.%s", path, name);
}

const char *scope_path(Lower *lo, const char *name) {
    return intern(join(lo, lo->scope->path, name));
}

/* A loop variable in a path: "{}" where the loop is rolled, or "{lo:step}"; its numbers in *s. */
static bool path_varying(Lower *lo, Val v, Scope *s, Str *path, Loc loc) {
    const double *at = v.vec->at;
    int64_t trip = v.vec->frame->trip;
    double step = trip > 1 ? at[1] - at[0] : 1;
    bool linear = v.kind == VAL_num && v.integer;
    for (int64_t i = 2; i < trip; i++) linear = linear && at[i] - at[i - 1] == step;
    if (!linear) return fail(lo, loc, "a path may hold a linear function of the loop variable only"), false;
    if (s->frame != NULL) return fail(lo, loc, "a path may depend on one loop only"), false;
    s->frame = v.vec->frame;
    s->lo = (int64_t)at[0];
    s->step = (int64_t)step;
    if (s->lo == 0 && s->step == 1)
        str_add(path, "{}");
    else
        str_addf(path, "{%lld:%lld}", (long long)s->lo, (long long)s->step);
    return true;
}

/* Replaces each {name}. */
static bool path_expand(Lower *lo, const char *name, Scope *s, Str *path, Str *pattern, Loc loc) {
    while (*name != '\0') {
        size_t n = strcspn(name, "{}");
        str_add_n(path, name, n);
        str_add_n(pattern, name, n);
        if (name[n] == '\0') return true;
        size_t end = strcspn(name, "}");
        if (name[n] == '}' || name[end] == '\0' || end <= n + 1)
            return fail(lo, loc, "in a path, {name} stands for a number"), false;
        Ast var = {.kind = AST_name, .loc = loc, .name = intern_n(name + n + 1, end - n - 1)};
        Val v = expr_eval(lo, &var);
        if (val_is_error(v)) return false;
        if (v.kind != VAL_num || !v.integer) {
            fail(lo, loc, "in a path, {%s} must be an integer, found %s", var.name, val_describe(lo, v));
            return false;
        }
        if (v.vec == NULL) str_addf(path, "%lld", (long long)v.num);
        if (v.vec != NULL && !path_varying(lo, v, s, path, loc)) return false;
        str_add(pattern, "{}");
        name += end + 1;
    }
    return true;
}

bool scope_open(Lower *lo, const char *name, Loc loc) {
    Scope *outer = lo->scope, *s = NEW(lo->a, Scope);
    Str path = str_new(lo->a), pattern = str_new(lo->a);
    *s = (Scope){.outer = outer, .frame = outer->frame, .lo = outer->lo, .step = outer->step, .frozen = outer->frozen};
    if (!path_expand(lo, name, s, &path, &pattern, loc)) return false;
    s->path = join(lo, outer->path, path.at == NULL ? "" : path.at);
    s->pattern = join(lo, outer->pattern, pattern.at == NULL ? "" : pattern.at);
    if (strlen(s->path) > 4 * AST_MAX_NAME) return fail(lo, loc, "this path is too long"), false;
    lo->scope = s;
    return true;
}

bool scope_enter_unit(Lower *lo, const Unit *u, Loc loc) {
    while (lo->scope->outer != NULL) lo->scope = lo->scope->outer;
    const char *path = u->alias;
    for (const Unit *up = u->importer; up != NULL && up->alias != NULL; up = up->importer)
        path = join(lo, up->alias, path);
    bool frozen = false;
    for (const Unit *up = u; up != NULL; up = up->importer) frozen = frozen || up->frozen;
    if (!scope_open(lo, path, loc)) return false;
    lo->scope->frozen = frozen;
    return true;
}

/* ---- initial values ---------------------------------------------------------------------------------------------- */

static bool init_number(Lower *lo, const Ast *e, double *out) {
    Val v = expr_eval(lo, e);
    if (val_is_static(v)) return *out = v.num, true;
    if (!val_is_error(v)) fail(lo, e->loc, "an initial value is a number, found %s", val_describe(lo, v));
    return false;
}

/* fan_in(M, …): normal with deviation 1 / sqrt(M * …). */
static bool init_fan_in(Lower *lo, const Ast *e, VarInit *out) {
    LabelList labels;
    double n = 1;
    if (e->n == 0) return fail(lo, e->loc, "fan_in names the axes that are summed over: fan_in(M)"), false;
    if (!expr_labels(lo, e->n, e->at, &labels)) return false;
    for (int i = 0; i < labels.n; i++) n *= (double)label_poly(lo, labels.at[i])->size;
    *out = (VarInit){intern("normal"), 1 / sqrt(n)};
    return true;
}

static bool init_eval(Lower *lo, const Ast *node, VarInit *out) {
    const Ast *e = node->at[VAR_INIT];
    *out = (VarInit){intern("const"), 0};
    if (e == NULL && (node->at[VAR_FROM] != NULL || node->kind == AST_state)) return true;
    if (e == NULL) {
        fail(lo, node->loc, "the parameter `%s` needs an initial value or a place in a checkpoint", node->name);
        note(lo, node->loc, "such as = 0, = normal(0.02), = uniform(0.1), = fan_in(M), or from \"name\"");
        return false;
    }
    if (e->kind == AST_call && strcmp(e->name, "fan_in") == 0) return init_fan_in(lo, e, out);
    bool random = e->kind == AST_call && (strcmp(e->name, "normal") == 0 || strcmp(e->name, "uniform") == 0);
    if (!random) return init_number(lo, e, &out->value);
    if (e->n != 1) return fail(lo, e->loc, "%s(x) has one number", e->name), false;
    out->kind = intern(e->name);
    return init_number(lo, e->at[0], &out->value);
}

/* The name in a checkpoint, below the scope. */
static bool from_eval(Lower *lo, const Ast *from, const char **out) {
    *out = NULL;
    if (from == NULL) return true;
    if (from->at[FROM_LAYOUT] != NULL || from->at[FROM_SLICE] != NULL)
        return fail(lo, from->loc, "a layout or slice of a checkpoint's tensor is not supported"), false;
    *out = scope_path(lo, from->name);
    return true;
}

/* ---- variables --------------------------------------------------------------------------------------------------- */

static bool same_loc(Loc a, Loc b) {
    return a.file == b.file && a.begin == b.begin && a.end == b.end;
}

/* Whether a variable of another function, or further up, is the one declared here. */
static bool var_matches(Lower *lo, const Var *old, const Var *new) {
    if (!same_loc(old->loc, new->loc)) {
        fail(lo, new->loc, "`%s` is declared twice", new->path);
        note(lo, old->loc, "first here; give one of the calls another name with `in`");
        return false;
    }
    if (type_same_shape(&old->type, &new->type)) return true;
    Value a = {.type = old->type}, b = {.type = new->type};
    fail(lo, new->loc, "`%s` would have another shape here than elsewhere: %s and %s", new->path,
         val_describe(lo, val_tensor(&a)), val_describe(lo, val_tensor(&b)));
    for (int i = 0; i < new->type.rank &&i < old->type.rank; i++)
        if (new->type.dim[i].size != old->type.dim[i].size)
            note(lo, new->loc, "%s is %lld and %lld", new->type.dim[i].label, (long long)old->type.dim[i].size,
                 (long long)new->type.dim[i].size);
    return false;
}

/* Whether slice i of a stacked variable, for some i, is the tensor `path` of a file. */
static bool slice_is(const Var *v, const char *path) {
    size_t head = strcspn(v->path, "{"), n = strlen(path);
    const char *tail = v->path + head + strcspn(v->path + head, "}");
    tail += *tail != '\0';
    size_t rest = strlen(tail);
    if (n <= head + rest || strncmp(path, v->path, head) != 0 || strcmp(path + n - rest, tail) != 0) return false;
    int64_t k = 0;
    for (size_t i = head; i < n - rest; i++) {
        if (path[i] < '0' || path[i] > '9' || k > MAX_ITERATIONS) return false;
        k = 10 * k + path[i] - '0';
    }
    return (k - v->lo) % v->step == 0 && k >= v->lo && (k - v->lo) / v->step < v->type.dim[0].size;
}

/* The variable as declared, with the loop's axis in front where it is stacked. */
static bool var_describe(Lower *lo, const Ast *node, Var *out) {
    const Scope *s = lo->scope;
    TypeSpec spec;
    *out = (Var){.kind = node->kind == AST_param ? VAR_param : VAR_state, .loc = node->name_loc, .lo = 0, .step = 1};
    if (!type_eval(lo, node->at[VAR_TYPE], type_pack(lo, NULL), &spec)) return false;
    if (!spec.has_dtype) return fail(lo, node->at[VAR_TYPE]->loc, "`%s` needs an element type", node->name), false;
    if (spec.bare)
        return fail(lo, node->at[VAR_TYPE]->loc, "write %s[] for a tensor without axes", node->at[VAR_TYPE]->name),
               false;
    if (!type_each(lo, NULL, &spec, node->loc)) return false;
    out->path = scope_path(lo, node->name);
    out->type = spec.type;
    if (!init_eval(lo, node, &out->init) || !from_eval(lo, node->at[VAR_FROM], &out->from)) return false;
    if (s->frame != NULL) {
        if (spec.type.rank == MAX_RANK) return fail(lo, node->loc, "a tensor has at most %d axes", MAX_RANK), false;
        memmove(&out->type.dim[1], &out->type.dim[0], sizeof(Dim) * (size_t)out->type.rank++);
        out->type.dim[0] = (Dim){.label = s->frame->label, .size = s->frame->trip};
    }
    /* What an optimizer keeps of a stacked parameter is stacked as well: `...` began with the loop's axis. */
    const Var *like = lo->stack_like;
    bool alike =
        like != NULL && like->stacked && out->type.rank > 0 && out->type.dim[0].label == like->type.dim[0].label;
    out->stacked = s->frame != NULL || alike;
    if (s->frame != NULL) out->lo = s->lo, out->step = s->step;
    if (alike) out->lo = like->lo, out->step = like->step;
    for (int i = 0; like != NULL && i < out->type.rank; i++) {
        int at = type_find(&like->type, out->type.dim[i].label);
        if (at >= 0 && like->type.dim[at].pinned && !out->type.dim[i].pinned) out->type.dim[i] = like->type.dim[at];
    }
    return true;
}

/* The value of a variable at the start of the function. */
static Value *emit_read(Lower *lo, Var *var) {
    Builder b = lo->b;
    Frame *f = lo->frame;
    lo->b.block = lo->func->body;
    lo->frame = NULL;
    Inst *inst = emit(lo, OP_read, 0, NULL, &(Attrs){.var = var}, NULL, var->loc);
    lo->b = b;
    lo->frame = f;
    if (inst == NULL) return NULL;
    inst->out[0]->name = var->path;
    return inst->out[0];
}

static Slot *slot_open(Lower *lo, const Ast *node) {
    Var want;
    if (lo->func == NULL) return fail(lo, node->loc, "`%s` cannot be used here", node->name), NULL;
    if (!var_describe(lo, node, &want)) return NULL;
    Var *var = module_var(lo->m, want.path);
    if (var != NULL && !var_matches(lo, var, &want)) return NULL;
    for (int i = 0; i < lo->slots.n; i++)
        if (lo->slots.at[i]->var == var && var != NULL) return lo->slots.at[i];
    if (var == NULL) {
        var = arena_copy(lo->m->arena, &want, sizeof want);
        vec_push(lo->m->arena, lo->m->vars, var);
    }
    Slot *s = NEW(lo->a, Slot);
    *s = (Slot){.var = var, .decl = node, .whole = emit_read(lo, var), .frozen = lo->scope->frozen};
    if (s->whole == NULL) return NULL;
    vec_push(lo->a, lo->slots, s);
    return s;
}

/* A stacked variable is seen through the loop whose variable is in its path. */
static bool slot_enter(Lower *lo, Slot *s, Frame *f) {
    if (!s->var->stacked || f == NULL || s->frame == f) return true;
    s->frame = f;
    s->slice = frame_slice(lo, f, s->whole);
    s->sliced = false;
    vec_push(lo->a, f->slots, s);
    return s->slice != NULL;
}

Val slot_value(Lower *lo, Slot *s) {
    (void)lo;
    return val_tensor(s->frame != NULL ? s->slice : s->whole);
}

void scope_declare(Lower *lo, const Ast *node) {
    if (lo->loop != NULL && lo->loop->scope == lo->scope && node->kind == AST_param) {
        fail(lo, node->name_loc, "each iteration of the loop would own the same `%s`", node->name);
        note(lo, node->loc, "declare it before the loop, or in a scope that names the loop's variable");
        call_bind(lo, node->name, val_error(), node->name_loc);
        return;
    }
    Slot *s = slot_open(lo, node);
    if (s != NULL && !slot_enter(lo, s, lo->scope->frame)) s = NULL;
    call_bind(lo, node->name, s == NULL ? val_error() : slot_value(lo, s), node->name_loc);
    if (s != NULL && s->var->kind == VAR_state) call_find(lo->call, node->name)->state = s;
}

Val scope_global(Lower *lo, Decl *d) {
    Call *outer = lo->call, top = {.unit = d->unit};
    Scope *scope = lo->scope;
    if (d->state == DECL_open) return fail(lo, d->node->name_loc, "`%s` is defined by itself", d->name);
    d->state = DECL_open;
    lo->call = &top;
    while (lo->scope->outer != NULL) lo->scope = lo->scope->outer;
    bool entered = d->unit->alias == NULL || scope_enter_unit(lo, d->unit, d->node->loc);
    Slot *s = entered ? slot_open(lo, d->node) : NULL;
    lo->call = outer;
    lo->scope = scope;
    d->state = DECL_fresh; /* looked up again at each use: a state's value changes */
    return s == NULL ? val_error() : slot_value(lo, s);
}

Slot *scope_global_state(Lower *lo, Decl *d) {
    scope_global(lo, d);
    for (int i = 0; i < lo->slots.n; i++)
        if (lo->slots.at[i]->decl == d->node) return lo->slots.at[i];
    return NULL;
}

void slot_assign(Lower *lo, Slot *s, Val v, Loc loc) {
    const Type *t = &s->var->type;
    Value *x = val_to_tensor(lo, v, t->dtype, loc);
    if (x == NULL) return;
    if (s->frame != lo->frame) {
        fail(lo, loc, "the state `%s` is written in a loop that its path does not name", s->var->path);
        note(lo, s->var->loc, "declared here; a scope with the loop's variable gives each iteration its own");
        return;
    }
    LabelList order = type_labels(t);
    if (s->frame != NULL) order = labels_minus(order, (LabelList){1, {s->frame->label}});
    for (int i = 0; i < x->type.rank; i++)
        if (labels_minus(type_labels(&x->type), order).n > 0) {
            fail(lo, loc, "the state `%s` cannot hold %s", s->var->path, val_describe(lo, val_tensor(x)));
            note(lo, s->var->loc, "declared here");
            return;
        }
    lo->b.loc = loc;
    if ((x = type_permute(lo, x, &order)) == NULL) return;
    if (s->frame != NULL)
        s->slice = x, s->sliced = true;
    else
        s->whole = x, s->dirty = true;
}

/* ---- all variables together -------------------------------------------------------------------------------------- */

static bool vars_disjoint(Lower *lo, const Var *a, const Var *b) {
    const Var *many = a->stacked ? a : b, *other = a->stacked ? b : a;
    if (!many->stacked || many->step < 1) return true;
    int64_t n = other->stacked ? other->type.dim[0].size : 1;
    for (int64_t i = 0; i < n; i++)
        if (slice_is(many, var_slice_path(other, other->path, i, lo->a))) {
            fail(lo, b->loc, "`%s` and `%s` are in part the same parameters", a->path, b->path);
            note(lo, b->loc, "two loops that share parameters must run over the same range");
            return false;
        }
    return true;
}

bool scope_check(Lower *lo) {
    const Module *m = lo->m;
    for (int i = 0; i < m->vars.n; i++)
        for (int k = 0; k < i; k++)
            if (same_loc(m->vars.at[i]->loc, m->vars.at[k]->loc) && !vars_disjoint(lo, m->vars.at[k], m->vars.at[i]))
                return false;
    return true;
}

/* ---- metrics ----------------------------------------------------------------------------------------------------- */

void scope_metric(Lower *lo, const Ast *node) {
    if (lo->serving || lo->scope->frozen) return;
    Val v = expr_eval(lo, node->at[0]);
    if (val_is_error(v)) return;
    Value *x = v.kind == VAL_tensor ? v.t : val_to_tensor(lo, v, DT_f32, node->at[0]->loc);
    if (x != NULL && x->type.dtype != DT_f32) x = emit1(lo, OP_cast, x, &(Attrs){.dtype = DT_f32}, node->at[0]->loc);
    if (x == NULL) return;
    const char *name = scope_path(lo, node->name);
    for (int i = 0; i < lo->metrics.n; i++)
        if (lo->metrics.at[i].name == name) {
            fail(lo, node->name_loc, "the metric `%s` is given twice", name);
            note(lo, node->loc, "a function that is called twice needs a scope for each call: f(…) in \"name\"");
            return;
        }
    vec_push(lo->a, lo->metrics, ((Metric){.name = name, .value = x}));
}
