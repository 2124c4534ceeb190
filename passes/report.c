/* report.c: what a plan costs, before anything runs: the text and the JSON of --plan.
 *
 * First everything is gathered per function (`survey`): each collective with the bytes that one device receives and how
 * often it runs in a call (trip counts multiply through loops), operations, and seconds by cost.c. Then the same
 * figures are printed in two forms. Bytes are exact; seconds are predictions for comparing plans.
 *
 * The order of the mesh's axes decides which level each crosses. All orders of up to MAX_ORDERED axes are priced with
 * this plan's collectives, and a better one is named.
 *
 * Before: PLACED or later (arena sizes are known from PLANNED on). After: unchanged.
 * Cost: linear in instructions, times the orders of the axes for the collectives. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "passes.h"
#include "support/str.h"

enum { MAX_ORDERED = 5 };

typedef struct CollRow {
    const Inst *inst;
    AxisList axes;
    int level;
    int64_t bytes; /* received by one device, once */
    double times;  /* in one call */
} CollRow;

typedef struct FuncPlan {
    const Func *func;
    VEC(CollRow) colls;
    double received; /* bytes of one device in one call */
    double flops;
    double compute, communication; /* seconds */
} FuncPlan;

typedef struct Report {
    const Module *m;
    const Topology *topo;
    Arena *arena;
    FuncPlan *plan; /* by function */
    int64_t vars_bytes;
} Report;

/* ---- gathering --------------------------------------------------------------------------------------------------- */

static void survey_block(Report *r, FuncPlan *p, const Block *b, double times, int depth) {
    const Mesh *mesh = &r->m->mesh;
    if (depth > MAX_NESTING) diag_bug("regions nest more than %d deep", MAX_NESTING);
    for (const Inst *inst = b->first; inst != NULL; inst = inst->next) {
        if (inst->op == OP_loop) {
            survey_block(r, p, inst->body, times * (double)inst->at.trip, depth + 1);
            continue;
        }
        double seconds = cost_inst(r->topo, mesh, inst) * times;
        if (op_info[inst->op].emit != EMIT_coll) {
            p->flops += inst_flops(mesh, inst) * times;
            p->compute += seconds;
            continue;
        }
        AxisList axes = inst_axes(mesh, inst);
        CollRow row = {inst, axes, topology_level_of(r->topo, mesh, &axes), inst_bytes_received(mesh, inst), times};
        vec_push(r->arena, p->colls, row);
        p->received += (double)row.bytes * times;
        p->communication += seconds;
    }
}

static Report survey(const Module *m, const Topology *topo, Arena *a) {
    Report r = {.m = m, .topo = topo, .arena = a, .plan = NEW_ARRAY(a, FuncPlan, m->funcs.n)};
    for (int i = 0; i < m->vars.n; i++) r.vars_bytes += type_local_bytes(&m->mesh, &m->vars.at[i]->type);
    for (int i = 0; i < m->funcs.n; i++) {
        r.plan[i].func = m->funcs.at[i];
        survey_block(&r, &r.plan[i], m->funcs.at[i]->body, 1, 0);
    }
    return r;
}

static const char *axes_text(const Report *r, const AxisList *axes) {
    Str s = str_new(r->arena);
    str_add(&s, "");
    for (int i = 0; i < axes->n; i++) str_addf(&s, "%s%s", i > 0 ? ", " : "", r->m->mesh.name[axes->at[i]]);
    return s.at;
}

static const char *level_of_axis(const Report *r, int axis) {
    AxisList axes = {1, {(uint8_t)axis}};
    return topology_level_name(r->topo, topology_level_of(r->topo, &r->m->mesh, &axes));
}

static const char *mesh_text(const Report *r, const Mesh *m) {
    Str s = str_new(r->arena);
    str_add(&s, "[");
    for (int i = 0; i < m->n; i++) str_addf(&s, "%s%s=%lld", i > 0 ? ", " : "", m->name[i], (long long)m->size[i]);
    str_add(&s, "]");
    return s.at;
}

static const char *kind_word(const Func *f) {
    return f->kind == FUNC_train ? "train" : "entry";
}

/* ---- the order of mesh axes -------------------------------------------------------------------------------------- */

/* A mesh with the same axes in another order: axis i is the old axis order[i]. */
static Mesh mesh_ordered(const Mesh *m, const int *order) {
    Mesh other = {.n = m->n};
    for (int i = 0; i < m->n; i++) {
        other.name[i] = m->name[order[i]];
        other.size[i] = m->size[order[i]];
    }
    return other;
}

/* Seconds of all collectives of all functions on the reordered mesh. */
static double communication_ordered(const Report *r, const int *order) {
    Mesh other = mesh_ordered(&r->m->mesh, order);
    int place[MAX_AXES];
    for (int i = 0; i < other.n; i++) place[order[i]] = i;
    double seconds = 0;
    for (int f = 0; f < r->m->funcs.n; f++)
        for (int i = 0; i < r->plan[f].colls.n; i++) {
            const CollRow *row = &r->plan[f].colls.at[i];
            AxisList axes = {0};
            for (int k = 0; k < row->axes.n; k++) axes_add(&axes, place[row->axes.at[k]]);
            seconds += row->times * cost_collective(r->topo, &other, row->inst->op, &axes, row->bytes);
        }
    return seconds;
}

/* The next permutation in lexicographic order; false after the last. */
static bool next_order(int *order, int n) {
    int i = n - 2, k = n - 1;
    while (i >= 0 && order[i] > order[i + 1]) i--;
    if (i < 0) return false;
    while (order[k] < order[i]) k--;
    int t = order[i];
    order[i] = order[k];
    order[k] = t;
    for (int a = i + 1, b = n - 1; a < b; a++, b--) {
        t = order[a];
        order[a] = order[b];
        order[b] = t;
    }
    return true;
}

/* Writes the best order of the mesh's axes; returns seconds saved per call of every function, 0 when none is better. */
static double better_order(const Report *r, int *best) {
    int order[MAX_AXES] = {0};
    int n = r->m->mesh.n;
    for (int i = 0; i < n; i++) order[i] = i;
    double now = communication_ordered(r, order), least = now;
    if (n > MAX_ORDERED) return 0;
    while (next_order(order, n)) {
        double seconds = communication_ordered(r, order);
        if (seconds >= least) continue;
        least = seconds;
        memcpy(best, order, sizeof *best * (size_t)n);
    }
    return least < 0.99 * now ? now - least : 0;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void text_mesh(const Report *r, Str *s) {
    const Mesh *mesh = &r->m->mesh;
    str_addf(s, "mesh %s: %lld device%s on %s\n", mesh_text(r, mesh), (long long)mesh_devices(mesh),
             mesh_devices(mesh) == 1 ? "" : "s", topology_summary(r->topo));
    for (int i = 0; i < mesh->n; i++)
        str_addf(s, "  %-12s %4lld  within one %s\n", mesh->name[i], (long long)mesh->size[i], level_of_axis(r, i));
    int best[MAX_AXES];
    double saved = better_order(r, best);
    if (saved > 0) {
        Mesh other = mesh_ordered(mesh, best);
        str_addf(s, "  the order %s would save %.3g ms of communication\n", mesh_text(r, &other), saved * 1e3);
    }
}

static void text_memory(const Report *r, Str *s) {
    str_add(s, "\nmemory of one device, bytes\n");
    for (int i = 0; i < r->m->vars.n; i++) {
        const Var *v = r->m->vars.at[i];
        str_addf(s, "%14lld  %s %s: %s\n", (long long)type_local_bytes(&r->m->mesh, &v->type),
                 v->kind == VAR_param ? "param" : "state", v->path, type_print(&v->type, &r->m->mesh, r->arena));
    }
    str_addf(s, "%14lld  all variables\n", (long long)r->vars_bytes);
    for (int i = 0; i < r->m->funcs.n && r->m->phase >= PHASE_PLANNED; i++) {
        const Func *f = r->m->funcs.at[i];
        str_addf(s, "%14lld  all of %s %s, variables included\n", (long long)f->arena_bytes, kind_word(f), f->name);
    }
}

static void text_func(const Report *r, const FuncPlan *p, Str *s) {
    str_addf(s, "\n%s %s, one call on one device\n", kind_word(p->func), p->func->name);
    if (p->colls.n > 0) str_addf(s, "%14s  %6s  %-30s  %-10s  %s\n", "bytes", "times", "collective", "within", "for");
    for (int i = 0; i < p->colls.n; i++) {
        const CollRow *row = &p->colls.at[i];
        const char *name = row->inst->in[0]->name;
        str_addf(s, "%14lld  %6.0f  %-30s  %-10s  %s%s%s\n", (long long)row->bytes, row->times,
                 arena_printf(r->arena, "%s (%s)", op_info[row->inst->op].name, axes_text(r, &row->axes)),
                 topology_level_name(r->topo, row->level), diag_where(row->inst->loc), name == NULL ? "" : " ",
                 name == NULL ? "" : name);
    }
    str_addf(s, "  receives %.0f bytes, computes %.4g FLOP\n", p->received, p->flops);
    str_addf(s, "  predicted %.4g ms: %.4g computing, %.4g communicating\n", (p->compute + p->communication) * 1e3,
             p->compute * 1e3, p->communication * 1e3);
}

static char *text_report(const Report *r) {
    Str s = str_new(r->arena);
    if (r->m->source != NULL) str_addf(&s, "plan of %s\n", r->m->source);
    text_mesh(r, &s);
    text_memory(r, &s);
    for (int i = 0; i < r->m->funcs.n; i++) text_func(r, &r->plan[i], &s);
    return s.at;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

/* Names come from files: what is not UTF-8 shows as question marks. */
static json_t *json_word(const Report *r, const char *text) {
    if (text == NULL) return json_null();
    json_t *word = json_string(text);
    if (word != NULL) return word;
    char *ascii = arena_strdup(r->arena, text);
    for (char *c = ascii; *c != '\0'; c++)
        if ((unsigned char)*c >= 128) *c = '?';
    return json_string(ascii);
}

/* A whole number while it is exactly one. */
static json_t *json_count(double n) {
    return n < 0x1p53 ? json_integer((json_int_t)n) : json_real(n);
}

static json_t *json_axes(const Report *r, const AxisList *axes) {
    json_t *list = json_array();
    for (int i = 0; i < axes->n; i++) json_array_append_new(list, json_word(r, r->m->mesh.name[axes->at[i]]));
    return list;
}

static json_t *json_mesh(const Report *r) {
    const Mesh *mesh = &r->m->mesh;
    json_t *list = json_array();
    for (int i = 0; i < mesh->n; i++)
        json_array_append_new(list, json_pack("{s:o, s:I, s:s}", "axis", json_word(r, mesh->name[i]), "size",
                                              (json_int_t)mesh->size[i], "level", level_of_axis(r, i)));
    return list;
}

static json_t *json_better(const Report *r) {
    int best[MAX_AXES];
    double saved = better_order(r, best);
    if (saved <= 0) return json_null();
    json_t *order = json_array();
    for (int i = 0; i < r->m->mesh.n; i++) json_array_append_new(order, json_word(r, r->m->mesh.name[best[i]]));
    return json_pack("{s:o, s:f}", "order", order, "seconds_saved", saved);
}

static json_t *json_vars(const Report *r) {
    json_t *list = json_array();
    for (int i = 0; i < r->m->vars.n; i++) {
        const Var *v = r->m->vars.at[i];
        json_t *type = json_word(r, type_print(&v->type, &r->m->mesh, r->arena));
        json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:I}", "path", json_word(r, v->path), "kind",
                                              v->kind == VAR_param ? "param" : "state", "type", type, "bytes",
                                              (json_int_t)type_local_bytes(&r->m->mesh, &v->type)));
    }
    return list;
}

static json_t *json_coll(const Report *r, const CollRow *row) {
    const Inst *inst = row->inst;
    return json_pack("{s:s, s:o, s:I, s:o, s:s, s:o, s:o}", "kind", op_info[inst->op].name, "axes",
                     json_axes(r, &row->axes), "bytes", (json_int_t)row->bytes, "times", json_count(row->times),
                     "level", topology_level_name(r->topo, row->level), "where", json_word(r, diag_where(inst->loc)),
                     "value", json_word(r, inst->in[0]->name));
}

static json_t *json_func(const Report *r, const FuncPlan *p) {
    json_t *colls = json_array();
    for (int i = 0; i < p->colls.n; i++) json_array_append_new(colls, json_coll(r, &p->colls.at[i]));
    json_t *arena = r->m->phase >= PHASE_PLANNED ? json_integer(p->func->arena_bytes) : json_null();
    json_t *seconds = json_pack("{s:f, s:f, s:f}", "compute", p->compute, "communication", p->communication, "total",
                                p->compute + p->communication);
    return json_pack("{s:o, s:s, s:o, s:f, s:f, s:o, s:o}", "name", json_word(r, p->func->name), "kind",
                     kind_word(p->func), "arena_bytes", arena, "flops", p->flops, "bytes_received", p->received,
                     "seconds", seconds, "collectives", colls);
}

static char *json_report(const Report *r) {
    json_t *funcs = json_array();
    for (int i = 0; i < r->m->funcs.n; i++) json_array_append_new(funcs, json_func(r, &r->plan[i]));
    json_t *whole =
        json_pack("{s:o, s:I, s:o, s:o, s:o, s:o, s:I, s:o}", "source", json_word(r, r->m->source), "devices",
                  (json_int_t)mesh_devices(&r->m->mesh), "topology", json_word(r, topology_summary(r->topo)), "mesh",
                  json_mesh(r), "better_mesh", json_better(r), "variables", json_vars(r), "variables_bytes",
                  (json_int_t)r->vars_bytes, "functions", funcs);
    char *text = whole == NULL ? NULL : json_dumps(whole, JSON_INDENT(2));
    if (text == NULL) diag_bug("the plan cannot be written as JSON");
    char *copy = arena_printf(r->arena, "%s\n", text);
    free(text);
    json_decref(whole);
    return copy;
}

char *plan_report(const Module *m, const Topology *t, bool json, Arena *a) {
    Report r = survey(m, t, a);
    return json ? json_report(&r) : text_report(&r);
}
