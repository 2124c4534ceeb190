/* report_json.c: the figures of --plan=json: the same as in the text, by name. */
#include <jansson.h>
#include <stdlib.h>

#include "survey.h"

/* Names come from files: what is not UTF-8 shows as question marks. */
static json_t *json_word(const Survey *r, const char *text) {
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

static json_t *json_axes(const Survey *r, const AxisList *axes) {
    json_t *list = json_array();
    for (int i = 0; i < axes->n; i++) json_array_append_new(list, json_word(r, r->m->mesh.name[axes->at[i]]));
    return list;
}

static json_t *json_mesh(const Survey *r) {
    const Mesh *mesh = &r->m->mesh;
    json_t *list = json_array();
    for (int i = 0; i < mesh->n; i++)
        json_array_append_new(list, json_pack("{s:o, s:I, s:s}", "axis", json_word(r, mesh->name[i]), "size",
                                              (json_int_t)mesh->size[i], "level", survey_level(r, i)));
    return list;
}

static json_t *json_better(const Survey *r) {
    int best[MAX_AXES];
    double saved = survey_better_order(r, best);
    if (saved <= 0) return json_null();
    json_t *order = json_array();
    for (int i = 0; i < r->m->mesh.n; i++) json_array_append_new(order, json_word(r, r->m->mesh.name[best[i]]));
    return json_pack("{s:o, s:f}", "order", order, "seconds_saved", saved);
}

static json_t *json_vars(const Survey *r) {
    json_t *list = json_array();
    for (int i = 0; i < r->m->vars.n; i++) {
        const Var *v = r->m->vars.at[i];
        json_t *type = json_word(r, type_print(&v->type, &r->m->mesh, r->arena));
        json_array_append_new(
            list, json_pack("{s:o, s:s, s:o, s:I}", "path", json_word(r, v->path), "kind", var_kind(v), "type", type,
                            "bytes", (json_int_t)type_local_bytes(&r->m->mesh, &v->type)));
    }
    return list;
}

static json_t *json_place(const Survey *r, bool known, Loc loc) {
    return known ? json_word(r, diag_where(loc)) : json_null();
}

static json_t *json_why(const Survey *r, const Crossing *c) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "text", json_word(r, crossing_text(c, r->arena)), "giver",
                     json_word(r, c->giver), "gives", json_word(r, c->given), "giver_annotated",
                     json_place(r, c->giver_known, c->giver_at), "taker", json_word(r, c->taker), "takes",
                     json_word(r, c->taken), "taker_annotated", json_place(r, c->taker_known, c->taker_at));
}

static json_t *json_peak(const Survey *r, const FuncPlan *p) {
    if (r->m->phase < PHASE_PLANNED) return json_null();
    json_t *rows = json_array();
    for (int i = 0; i < p->peak.rows.n; i++) {
        const PeakRow *row = &p->peak.rows.at[i];
        const char *type = row->value == NULL ? NULL : type_print(&row->value->type, &r->m->mesh, r->arena);
        json_array_append_new(
            rows, json_pack("{s:o, s:o, s:o, s:I}", "value", json_word(r, row->value == NULL ? NULL : row->value->name),
                            "type", json_word(r, type), "where", json_word(r, diag_where(row->loc)), "bytes",
                            (json_int_t)row->bytes));
    }
    return json_pack("{s:I, s:o, s:o}", "bytes", (json_int_t)p->peak.bytes, "where",
                     json_word(r, diag_where(p->peak.loc)), "values", rows);
}

static json_t *json_coll(const Survey *r, const CollRow *row) {
    const Inst *inst = row->inst;
    return json_pack("{s:s, s:o, s:I, s:o, s:s, s:o, s:o, s:o}", "kind", op_info[inst->op].name, "axes",
                     json_axes(r, &row->axes), "bytes", (json_int_t)row->bytes, "times", json_count(row->times),
                     "level", topology_level_name(r->topo, row->level), "where", json_word(r, diag_where(inst->loc)),
                     "value", json_word(r, inst->in[0]->name), "why", json_why(r, &row->why));
}

static json_t *json_func(const Survey *r, const FuncPlan *p) {
    json_t *colls = json_array();
    for (int i = 0; i < p->colls.n; i++) json_array_append_new(colls, json_coll(r, &p->colls.at[i]));
    json_t *arena = r->m->phase >= PHASE_PLANNED ? json_integer(p->func->arena_bytes) : json_null();
    json_t *seconds = json_pack("{s:f, s:f, s:f}", "compute", p->compute, "communication", p->communication, "total",
                                p->compute + p->communication);
    return json_pack("{s:o, s:s, s:o, s:o, s:f, s:f, s:o, s:o}", "name", json_word(r, p->func->name), "kind",
                     func_kind(p->func), "arena_bytes", arena, "peak", json_peak(r, p), "flops", p->flops,
                     "bytes_received", p->received, "seconds", seconds, "collectives", colls);
}

char *report_json(const Survey *r) {
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
