/* budget.c: --max-memory, --max-bytes, --forbid: a plan that costs more is an error of the source.
 *
 * The message says by how much; notes name what is to blame, the largest first, with its line and its reason, so that
 * a failed build says what to change. Before: PLACED, or PLANNED for memory. Cost: that of the survey. */
#include <stdlib.h>
#include <string.h>

#include "survey.h"

enum { BLAMED = 5 };

/* Whether `name`, written with underscores or hyphens, is the first word of the list. */
static bool word_is(const char *list, size_t n, const char *name) {
    if (strlen(name) != n) return false;
    for (size_t i = 0; i < n; i++)
        if (list[i] != name[i] && !(list[i] == '-' && name[i] == '_')) return false;
    return true;
}

static bool is_collective(Op op) {
    return op_info[op].emit == EMIT_coll && op != OP_reshard;
}

static bool forbidden(const char *list, Op op) {
    while (list != NULL && *list != '\0') {
        size_t n = strcspn(list, ",");
        if (word_is(list, n, op_info[op].name)) return true;
        list += n + (list[n] == ',');
    }
    return false;
}

const char *budget_unknown(const char *forbid, Arena *a) {
    if (*forbid == '\0') return forbid;
    while (*forbid != '\0') {
        size_t n = strcspn(forbid, ",");
        bool known = false;
        for (int op = 0; op < OP_COUNT; op++) known |= is_collective((Op)op) && word_is(forbid, n, op_info[op].name);
        if (!known) return arena_printf(a, "%.*s", (int)(n < 100 ? n : 100), forbid);
        forbid += n + (forbid[n] == ',');
    }
    return NULL;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

typedef struct Blame {
    int64_t bytes;
    Loc loc;
    const char *what;
} Blame;

static int by_bytes(const void *a, const void *b) {
    const Blame *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return (x->loc.begin > y->loc.begin) - (x->loc.begin < y->loc.begin);
}

static void blame_memory(const Survey *r, const FuncPlan *p) {
    const Mesh *mesh = &r->m->mesh;
    int n = 0, most = r->m->vars.n + p->peak.rows.n;
    Blame *all = NEW_ARRAY(r->arena, Blame, most + 1);
    for (int i = 0; i < r->m->vars.n; i++) {
        const Var *v = r->m->vars.at[i];
        all[n++] =
            (Blame){type_local_bytes(mesh, &v->type), v->loc,
                    arena_printf(r->arena, "%s %s: %s", var_kind(v), v->path, type_print(&v->type, mesh, r->arena))};
    }
    for (int i = 0; i < p->peak.rows.n; i++) {
        const PeakRow *row = &p->peak.rows.at[i];
        const Value *v = row->value;
        const char *type = v == NULL ? "memory" : type_print(&v->type, mesh, r->arena);
        bool named = v != NULL && v->name != NULL;
        all[n++] = (Blame){row->bytes, row->loc, named ? arena_printf(r->arena, "%s: %s", v->name, type) : type};
    }
    qsort(all, (size_t)n, sizeof *all, by_bytes);
    for (int i = 0; i < n && i < BLAMED; i++)
        diag_note(all[i].loc, "%lld bytes of each device: %s", (long long)all[i].bytes, all[i].what);
}

static bool fits(const Survey *r, const FuncPlan *p, int64_t limit) {
    if (limit < 0 || r->m->phase < PHASE_PLANNED || p->func->arena_bytes <= limit) return true;
    diag_error(p->func->loc, "%s needs %lld bytes of each device, %lld more than the %lld allowed",
               survey_func(p->func, r->arena), (long long)p->func->arena_bytes,
               (long long)(p->func->arena_bytes - limit), (long long)limit);
    blame_memory(r, p);
    return false;
}

/* ---- communication ----------------------------------------------------------------------------------------------- */

static void blame_collective(const Survey *r, const CollRow *row) {
    diag_note(row->inst->loc, "%.0f bytes: %s over %s: %s", (double)row->bytes * row->times,
              op_info[row->inst->op].name, survey_axes(&r->m->mesh, &row->axes, r->arena),
              crossing_text(&row->why, r->arena));
}

static int by_received(const void *a, const void *b) {
    const CollRow *x = *(const CollRow *const *)a, *y = *(const CollRow *const *)b;
    double p = (double)x->bytes * x->times, q = (double)y->bytes * y->times;
    if (p != q) return p < q ? 1 : -1;
    return (x > y) - (x < y);
}

static bool receives(const Survey *r, const FuncPlan *p, int64_t limit) {
    if (limit < 0 || p->received <= (double)limit) return true;
    diag_error(p->func->loc, "each device receives %.0f bytes in a call of %s, more than the %lld allowed", p->received,
               survey_func(p->func, r->arena), (long long)limit);
    const CollRow **row = NEW_ARRAY(r->arena, const CollRow *, p->colls.n + 1);
    for (int i = 0; i < p->colls.n; i++) row[i] = &p->colls.at[i];
    qsort(row, (size_t)p->colls.n, sizeof *row, by_received);
    for (int i = 0; i < p->colls.n && i < BLAMED; i++) blame_collective(r, row[i]);
    return false;
}

static bool avoids(const Survey *r, const FuncPlan *p, const char *list) {
    bool ok = true;
    for (int i = 0; i < p->colls.n; i++) {
        const CollRow *row = &p->colls.at[i];
        if (!forbidden(list, row->inst->op)) continue;
        diag_error(row->inst->loc, "%s has a forbidden %s over %s: %s", survey_func(p->func, r->arena),
                   op_info[row->inst->op].name, survey_axes(&r->m->mesh, &row->axes, r->arena),
                   crossing_text(&row->why, r->arena));
        ok = false;
    }
    return ok;
}

bool budget_check(const Module *m, const Topology *t, const Origins *origins, const Budget *b, Arena *a) {
    if (m->phase < PHASE_PLACED || (b->memory < 0 && b->bytes < 0 && b->forbid == NULL)) return true;
    Survey r = survey_plan(m, t, origins, a);
    bool ok = true;
    for (int i = 0; i < m->funcs.n; i++) {
        ok &= fits(&r, &r.plan[i], b->memory);
        ok &= receives(&r, &r.plan[i], b->bytes);
        ok &= avoids(&r, &r.plan[i], b->forbid);
    }
    return ok;
}
