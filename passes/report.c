/* report.c: what a plan costs, before anything runs: the text of --plan.
 *
 * Each collective has its bytes, how often it runs in a call, the level that it crosses, its source line, and below it
 * the reason: the two shardings that meet, and the annotations behind them. Memory is listed by tensor: the variables,
 * then for each function what lives when most does. */
#include <string.h>

#include "support/str.h"
#include "survey.h"

static const char *mesh_text(const Survey *r, const Mesh *m) {
    Str s = str_new(r->arena);
    str_add(&s, "[");
    for (int i = 0; i < m->n; i++) str_addf(&s, "%s%s=%lld", i > 0 ? ", " : "", m->name[i], (long long)m->size[i]);
    str_add(&s, "]");
    return s.at;
}

static void text_mesh(const Survey *r, Str *s) {
    const Mesh *mesh = &r->m->mesh;
    str_addf(s, "mesh %s: %lld device%s on %s\n", mesh_text(r, mesh), (long long)mesh_devices(mesh),
             mesh_devices(mesh) == 1 ? "" : "s", topology_summary(r->topo));
    for (int i = 0; i < mesh->n; i++)
        str_addf(s, "  %-12s %4lld  within one %s\n", mesh->name[i], (long long)mesh->size[i], survey_level(r, i));
    int best[MAX_AXES];
    double saved = survey_better_order(r, best);
    if (saved > 0) {
        Mesh other = mesh_ordered(mesh, best);
        str_addf(s, "  the order %s would save %.3g ms of communication\n", mesh_text(r, &other), saved * 1e3);
    }
}

enum { PEAK_ROWS = 8 };

/* The largest of what lives when most does, the rest as one number, and what lies unused between them. */
static void text_peak(const Survey *r, const FuncPlan *p, Str *s) {
    const Peak *peak = &p->peak;
    int64_t rest = peak->bytes, gaps = p->func->arena_bytes - r->vars_bytes - peak->bytes;
    for (int i = 0; i < peak->rows.n && i < PEAK_ROWS; i++) {
        const PeakRow *row = &peak->rows.at[i];
        const Value *v = row->value;
        rest -= row->bytes;
        str_addf(s, "%14lld    %s%s%s, %s\n", (long long)row->bytes, v == NULL || v->name == NULL ? "" : v->name,
                 v == NULL || v->name == NULL ? "" : ": ", v == NULL ? "" : type_print(&v->type, &r->m->mesh, r->arena),
                 diag_where(row->loc));
    }
    if (rest > 0) str_addf(s, "%14lld    in %d smaller ones\n", (long long)rest, peak->rows.n - PEAK_ROWS);
    if (gaps > 0) str_addf(s, "%14lld    between them\n", (long long)gaps);
}

static void text_memory(const Survey *r, Str *s) {
    str_add(s, "\nmemory of one device, bytes\n");
    for (int i = 0; i < r->m->vars.n; i++) {
        const Var *v = r->m->vars.at[i];
        str_addf(s, "%14lld  %s %s: %s\n", (long long)type_local_bytes(&r->m->mesh, &v->type), var_kind(v), v->path,
                 type_print(&v->type, &r->m->mesh, r->arena));
    }
    str_addf(s, "%14lld  all variables\n", (long long)r->vars_bytes);
    for (int i = 0; i < r->m->funcs.n && r->m->phase >= PHASE_PLANNED; i++) {
        const Func *f = r->m->funcs.at[i];
        str_addf(s, "%14lld  all of %s %s, variables included; most is in use at %s\n", (long long)f->arena_bytes,
                 func_kind(f), f->name, diag_where(r->plan[i].peak.loc));
        text_peak(r, &r->plan[i], s);
    }
}

static void text_func(const Survey *r, const FuncPlan *p, Str *s) {
    str_addf(s, "\n%s %s, one call on one device\n", func_kind(p->func), p->func->name);
    if (p->colls.n > 0) str_addf(s, "%14s  %6s  %-30s  %-10s  %s\n", "bytes", "times", "collective", "within", "for");
    for (int i = 0; i < p->colls.n; i++) {
        const CollRow *row = &p->colls.at[i];
        const char *name = row->inst->in[0]->name;
        str_addf(s, "%14lld  %6.0f  %-30s  %-10s  %s%s%s\n", (long long)row->bytes, row->times,
                 arena_printf(r->arena, "%s (%s)", op_info[row->inst->op].name,
                              survey_axes(&r->m->mesh, &row->axes, r->arena)),
                 topology_level_name(r->topo, row->level), diag_where(row->inst->loc), name == NULL ? "" : " ",
                 name == NULL ? "" : name);
        /* Moves in a row have one reason. */
        const Crossing *next = i + 1 < p->colls.n ? &p->colls.at[i + 1].why : NULL;
        if (next == NULL || next->from != row->why.from || next->to != row->why.to)
            str_addf(s, "%16s%s\n", "", crossing_text(&row->why, r->arena));
    }
    str_addf(s, "  receives %.0f bytes, computes %.4g FLOP\n", p->received, p->flops);
    str_addf(s, "  predicted %.4g ms: %.4g computing, %.4g communicating\n", (p->compute + p->communication) * 1e3,
             p->compute * 1e3, p->communication * 1e3);
}

char *report_text(const Survey *r) {
    Str s = str_new(r->arena);
    if (r->m->source != NULL) str_addf(&s, "plan of %s\n", r->m->source);
    text_mesh(r, &s);
    text_memory(r, &s);
    for (int i = 0; i < r->m->funcs.n; i++) text_func(r, &r->plan[i], &s);
    return s.at;
}

char *plan_report(const Module *m, const Topology *t, const Origins *origins, bool json, Arena *a) {
    Survey r = survey_plan(m, t, origins, a);
    return json ? report_json(&r) : report_text(&r);
}
