/* assign.c: how one instruction is spread over the mesh: which mesh axes split which factor of its sharding rule.
 *
 * Algorithm: exact enumeration. An axis may split one factor or none (copies). Only those factors are tried that the
 * axis splits in some version of an operand or in a result's wish: all others would reshard everything that has the
 * factor. For each assignment the predicted time is that of the local computation, of resharding every operand from its
 * nearest version, and of bringing every result (partial sums too) to its wish.
 *
 * Axes that split the same factor take their order from the first wish or version that has them all there, so an order
 * that is already in the program is met and not made anew.
 *
 * Complexity: (2 or 3)^axes assignments, each with operands x versions memoized searches. */
#include "sharding.h"

/* Reading and writing memory, for what is not a contraction; only ratios to the collectives matter. */
#define MEMORY_SECONDS_PER_BYTE 1e-10

enum { FULL_AXES = 5, MAX_CANDIDATES = 4, MAX_SEEN = 64 };

typedef struct Chooser {
    Resharder *r;
    const Mesh *mesh;
    const Topology *topo;
    const AssignQuery *q;
    int ncandidate[MAX_AXES];
    int candidate[MAX_AXES][MAX_CANDIDATES]; /* factors by axis; -1: none */
    AxisList (*seen)[MAX_FACTORS];           /* the axes of all factors in each wish and version */
    int nseen;
    int factor_of[MAX_AXES]; /* the assignment under trial */
    Assignment best;
} Chooser;

bool assignment_type(const Mesh *m, const ShardRule *rule, const AxisList *factors, const DimFactors *dims, bool out,
                     Type *t) {
    for (int d = 0; d < t->rank; d++) {
        int all = 0;
        for (int k = 0; k < dims[d].n; k++) all += factors[dims[d].at[k]].n;
        t->dim[d].axes = factors_join(rule, m, &dims[d], factors);
        t->dim[d].pinned = all > 0;
        if (t->dim[d].axes.n != all) return false;
    }
    static const PartialKind partial_of[] = {[FACTOR_sum] = PARTIAL_sum,
                                             [FACTOR_max] = PARTIAL_max,
                                             [FACTOR_min] = PARTIAL_min,
                                             [FACTOR_whole] = PARTIAL_none};
    t->partial_kind = PARTIAL_none;
    t->partial.n = 0;
    for (int axis = 0; out && axis < m->n; axis++)
        for (int f = 0; f < rule->nfactor; f++)
            if (partial_of[rule->factor[f].kind] != PARTIAL_none && axes_has(&factors[f], axis)) {
                t->partial_kind = partial_of[rule->factor[f].kind];
                axes_add(&t->partial, axis);
            }
    return true;
}

int nearest_version(Resharder *r, const Versions *v, const Type *to, double *seconds) {
    int best = 0;
    *seconds = -1;
    for (int i = 0; i < v->n; i++) {
        double s = type_same_sharding(v->type[i], to) ? 0 : reshard_path(r, v->type[i], to)->seconds;
        if (*seconds >= 0 && s >= *seconds) continue;
        *seconds = s;
        best = i;
    }
    return best;
}

/* ---- one assignment ---------------------------------------------------------------------------------------------- */

/* The set of axes that split factor f, in the order of the first type seen with all of them there. */
static AxisList order_axes(const Chooser *c, int f) {
    AxisList set = {0};
    for (int axis = 0; axis < c->mesh->n; axis++)
        if (c->factor_of[axis] == f) axes_add(&set, axis);
    for (int i = 0; i < c->nseen && set.n > 1; i++) {
        AxisList order = {0};
        for (int k = 0; k < c->seen[i][f].n; k++)
            if (axes_has(&set, c->seen[i][f].at[k])) axes_add(&order, c->seen[i][f].at[k]);
        if (order.n == set.n) return order;
    }
    return set;
}

static double compute_seconds(const Chooser *c, const AxisList *factors) {
    const Inst *in = c->q->inst;
    const ShardRule *rule = c->q->rule;
    if (op_info[in->op].emit == EMIT_gemm) {
        double flops = 2;
        for (int f = 0; f < rule->nfactor; f++)
            flops *= (double)(rule->factor[f].size / mesh_size(c->mesh, &factors[f]));
        return cost_flops(c->topo, flops);
    }
    double bytes = 0;
    for (int i = 0; i < in->nin + in->nout; i++) {
        bool out = i >= in->nin;
        Type t = out ? in->out[i - in->nin]->type : in->in[i]->type;
        assignment_type(c->mesh, rule, factors, out ? rule->out[i - in->nin] : rule->in[i], out, &t);
        bytes += (double)type_local_bytes(c->mesh, &t);
    }
    return bytes * MEMORY_SECONDS_PER_BYTE;
}

/* Keeps the assignment in factor_of when it is possible and better than the best so far. */
static void evaluate(Chooser *c) {
    const Inst *in = c->q->inst;
    const ShardRule *rule = c->q->rule;
    Assignment a = {0};
    for (int f = 0; f < rule->nfactor; f++) {
        a.factor[f] = order_axes(c, f);
        if (rule->factor[f].size % mesh_size(c->mesh, &a.factor[f]) != 0) return;
    }
    a.seconds = compute_seconds(c, a.factor);
    double s;
    for (int i = 0; i < in->nin; i++) {
        Type t = in->in[i]->type;
        if (!assignment_type(c->mesh, rule, a.factor, rule->in[i], false, &t)) return;
        nearest_version(c->r, &c->q->in[i], &t, &s);
        a.seconds += s;
        if (c->best.seconds >= 0 && a.seconds >= c->best.seconds) return;
    }
    for (int i = 0; i < in->nout; i++) {
        Type t = in->out[i]->type;
        if (!assignment_type(c->mesh, rule, a.factor, rule->out[i], true, &t)) return;
        const Type *from = &t;
        nearest_version(c->r, &(Versions){1, &from}, &c->q->wish[i], &s);
        a.seconds += s;
    }
    if (c->best.seconds < 0 || a.seconds < c->best.seconds) c->best = a;
}

static void enumerate(Chooser *c, int axis) {
    if (axis == c->mesh->n) {
        evaluate(c);
        return;
    }
    for (int i = 0; i < c->ncandidate[axis]; i++) {
        c->factor_of[axis] = c->candidate[axis][i];
        enumerate(c, axis + 1);
    }
}

/* ---- candidates -------------------------------------------------------------------------------------------------- */

/* Adds the factors that the axes of a type split; wishes come first, so that they win ties. */
static void see(Chooser *c, const DimFactors *dims, const Type *t) {
    const ShardRule *rule = c->q->rule;
    if (c->nseen == MAX_SEEN) return;
    AxisList *factors = c->seen[c->nseen++];
    factors_read(rule, c->mesh, dims, t, factors);
    for (int f = 0; f < rule->nfactor; f++)
        for (int i = 0; i < factors[f].n && rule->factor[f].kind != FACTOR_whole; i++) {
            int axis = factors[f].at[i], *n = &c->ncandidate[axis];
            bool known = *n == MAX_CANDIDATES - 1; /* room for "none" */
            for (int k = 0; k < *n; k++) known |= c->candidate[axis][k] == f;
            if (!known) c->candidate[axis][(*n)++] = f;
        }
}

Assignment assign_factors(Resharder *r, const AssignQuery *q, Arena *scratch) {
    Chooser c = {.r = r, .mesh = resharder_mesh(r), .topo = resharder_topology(r), .q = q, .best = {.seconds = -1}};
    c.seen = arena_alloc(scratch, sizeof *c.seen * MAX_SEEN);
    for (int i = 0; i < q->inst->nout; i++) see(&c, q->rule->out[i], &q->wish[i]);
    for (int i = 0; i < q->inst->nin; i++)
        for (int v = 0; v < q->in[i].n; v++) see(&c, q->rule->in[i], q->in[i].type[v]);
    int busy = 0;
    for (int axis = 0; axis < c.mesh->n; axis++) {
        /* A mesh that has many axes at work at once: only the first choice of the later ones. */
        if (c.ncandidate[axis] > 0 && ++busy > FULL_AXES) c.ncandidate[axis] = 1;
        c.candidate[axis][c.ncandidate[axis]++] = -1;
    }
    enumerate(&c, 0);
    return c.best;
}
