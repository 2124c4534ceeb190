/* survey.c: the figures of a plan: collectives with bytes, times and reasons; operations; seconds; memory.
 *
 * One walk per function; what is inside a loop counts as often as it runs in one call (trip counts multiply). Bytes are
 * exact; seconds are predictions for comparing plans.
 *
 * The order of the mesh's axes decides which level each crosses. All orders of up to MAX_ORDERED axes are priced with
 * this plan's collectives.
 *
 * Before: PLACED or later (memory is known from PLANNED on). After: unchanged.
 * Cost: linear in instructions, times the orders of the axes for the collectives. */
#include "survey.h"

#include <string.h>

enum { MAX_ORDERED = 5 };

/* ---- gathering --------------------------------------------------------------------------------------------------- */

static void survey_block(Survey *r, FuncPlan *p, const Block *b, double times, int depth) {
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
        CollRow row = {inst,
                       axes,
                       topology_level_of(r->topo, mesh, &axes),
                       inst_bytes_received(mesh, inst),
                       times,
                       crossing_of(r->m, r->origins, p->func, inst, r->arena)};
        vec_push(r->arena, p->colls, row);
        p->received += (double)row.bytes * times;
        p->communication += seconds;
    }
}

Survey survey_plan(const Module *m, const Topology *topo, const Origins *origins, Arena *a) {
    Survey r = {.m = m, .topo = topo, .origins = origins, .arena = a, .plan = NEW_ARRAY(a, FuncPlan, m->funcs.n)};
    for (int i = 0; i < m->vars.n; i++) r.vars_bytes += type_local_bytes(&m->mesh, &m->vars.at[i]->type);
    for (int i = 0; i < m->funcs.n; i++) {
        r.plan[i].func = m->funcs.at[i];
        survey_block(&r, &r.plan[i], m->funcs.at[i]->body, 1, 0);
    }
    Module *copy = m->phase >= PHASE_PLANNED ? module_clone(m, a) : NULL;
    for (int i = 0; copy != NULL && i < m->funcs.n; i++) r.plan[i].peak = peak_of(copy, copy->funcs.at[i], a);
    return r;
}

const char *survey_level(const Survey *r, int axis) {
    AxisList axes = {1, {(uint8_t)axis}};
    return topology_level_name(r->topo, topology_level_of(r->topo, &r->m->mesh, &axes));
}

/* ---- the order of mesh axes -------------------------------------------------------------------------------------- */

/* A mesh with the same axes in another order: axis i is the old axis order[i]. */
Mesh mesh_ordered(const Mesh *m, const int *order) {
    Mesh other = {.n = m->n};
    for (int i = 0; i < m->n; i++) {
        other.name[i] = m->name[order[i]];
        other.size[i] = m->size[order[i]];
    }
    return other;
}

/* Seconds of all collectives of all functions on the reordered mesh. */
static double communication_ordered(const Survey *r, const int *order) {
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
double survey_better_order(const Survey *r, int *best) {
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
