/* plan_diff.c: `moecc diff`: what changes from one plan to another.
 *
 * Variables and functions are matched by name; for each function the collectives are added up by kind and mesh axes
 * (by name, since two sources may order their meshes differently). A line shows both plans and the change; what is the
 * same in both is not listed by variable. Before: both modules PLACED or later. Cost: that of the surveys, and
 * collectives x kinds. */
#include <string.h>

#include "support/str.h"
#include "survey.h"

typedef struct KindRow {
    const char *what; /* "all_to_all (expert)" */
    double count[2], bytes[2];
} KindRow;

typedef struct Diff {
    Survey side[2];
    Arena *arena;
    Str s;
} Diff;

static const char *change(const Diff *d, double before, double after) {
    if (before == after) return "";
    if (before == 0) return "  new";
    if (after == 0) return "  gone";
    return arena_printf(d->arena, "  %+.1f%%", (after / before - 1) * 100);
}

static void line(Diff *d, const char *what, double before, double after) {
    str_addf(&d->s, "  %-32s %14.0f %14.0f%s\n", what, before, after, change(d, before, after));
}

/* ---- variables --------------------------------------------------------------------------------------------------- */

static void diff_var(Diff *d, const Var *x, const Var *y) {
    const Mesh *m = &d->side[0].m->mesh, *n = &d->side[1].m->mesh;
    const char *a = x == NULL ? "none" : type_print(&x->type, m, d->arena);
    const char *b = y == NULL ? "none" : type_print(&y->type, n, d->arena);
    if (strcmp(a, b) == 0) return;
    const Var *v = x == NULL ? y : x;
    str_addf(&d->s, "  %s %s\n    %s\n    %s\n", var_kind(v), v->path, a, b);
}

static void diff_vars(Diff *d) {
    const Module *m = d->side[0].m, *n = d->side[1].m;
    str_add(&d->s, "\nvariables of one device, bytes\n");
    line(d, "all", (double)d->side[0].vars_bytes, (double)d->side[1].vars_bytes);
    for (int i = 0; i < m->vars.n; i++) diff_var(d, m->vars.at[i], module_var(n, m->vars.at[i]->path));
    for (int i = 0; i < n->vars.n; i++)
        if (module_var(m, n->vars.at[i]->path) == NULL) diff_var(d, NULL, n->vars.at[i]);
}

/* ---- functions --------------------------------------------------------------------------------------------------- */

static const FuncPlan *plan_of(const Survey *r, const Func *f) {
    for (int i = 0; i < r->m->funcs.n; i++)
        if (r->plan[i].func->kind == f->kind && strcmp(r->plan[i].func->name, f->name) == 0) return &r->plan[i];
    return NULL;
}

/* Each kind with its axes once, in order of appearance. */
static void diff_collectives(Diff *d, const FuncPlan *const plan[2]) {
    VEC(KindRow) rows = {0};
    for (int side = 0; side < 2; side++)
        for (int i = 0; plan[side] != NULL && i < plan[side]->colls.n; i++) {
            const CollRow *c = &plan[side]->colls.at[i];
            const char *axes = survey_axes(&d->side[side].m->mesh, &c->axes, d->arena);
            const char *what = arena_printf(d->arena, "%s (%s)", op_info[c->inst->op].name, axes);
            int k = 0;
            while (k < rows.n && strcmp(rows.at[k].what, what) != 0) k++;
            if (k == rows.n) vec_push(d->arena, rows, ((KindRow){.what = what}));
            rows.at[k].count[side] += c->times;
            rows.at[k].bytes[side] += (double)c->bytes * c->times;
        }
    for (int k = 0; k < rows.n; k++) {
        const KindRow *row = &rows.at[k];
        line(d, arena_printf(d->arena, "%s, times", row->what), row->count[0], row->count[1]);
        line(d, arena_printf(d->arena, "%s, bytes", row->what), row->bytes[0], row->bytes[1]);
    }
}

static void diff_func(Diff *d, const FuncPlan *a, const FuncPlan *b) {
    static const FuncPlan none;
    const FuncPlan *const plan[2] = {a, b};
    const Func *f = (a == NULL ? b : a)->func;
    str_addf(&d->s, "\n%s, one call on one device%s\n", survey_func(f, d->arena),
             a == NULL   ? " (only in the second)"
             : b == NULL ? " (only in the first)"
                         : "");
    const FuncPlan *x = a == NULL ? &none : a, *y = b == NULL ? &none : b;
    diff_collectives(d, plan);
    line(d, "bytes received", x->received, y->received);
    if (d->side[0].m->phase >= PHASE_PLANNED && d->side[1].m->phase >= PHASE_PLANNED)
        line(d, "memory, variables included", a == NULL ? 0 : (double)a->func->arena_bytes,
             b == NULL ? 0 : (double)b->func->arena_bytes);
    line(d, "FLOP", x->flops, y->flops);
    double before = (x->compute + x->communication) * 1e3, after = (y->compute + y->communication) * 1e3;
    str_addf(&d->s, "  %-32s %14.4g %14.4g%s\n", "predicted ms", before, after, change(d, before, after));
}

char *plan_diff(const Module *m, const Module *n, const Topology *t, Arena *a) {
    Diff d = {{survey_plan(m, t, NULL, a), survey_plan(n, t, NULL, a)}, a, str_new(a)};
    str_addf(&d.s, "from %s\nto   %s\n", m->source == NULL ? "an .ir" : m->source,
             n->source == NULL ? "an .ir" : n->source);
    str_addf(&d.s, "  %-32s %14s %14s\n", "", "from", "to");
    line(&d, "devices", (double)mesh_devices(&m->mesh), (double)mesh_devices(&n->mesh));
    diff_vars(&d);
    for (int i = 0; i < m->funcs.n; i++) diff_func(&d, &d.side[0].plan[i], plan_of(&d.side[1], m->funcs.at[i]));
    for (int i = 0; i < n->funcs.n; i++)
        if (plan_of(&d.side[0], n->funcs.at[i]) == NULL) diff_func(&d, NULL, &d.side[1].plan[i]);
    return d.s.at;
}
