/* sharding.c: how types and the factors of a sharding rule meet (ir/shardrule.c has the rules themselves).
 *
 * What ir.h offers answers for a whole type, yes or no. Propagation and partition ask about types that do not fit yet;
 * here a dim that does not fit is left out, and the others still count. */
#include "sharding.h"

void factors_read(const ShardRule *rule, const Mesh *m, const DimFactors *dims, const Type *t, AxisList *factors) {
    for (int f = 0; f < rule->nfactor; f++) factors[f].n = 0;
    if (rule_factors_of(rule, m, dims, t, factors)) return;
    for (int f = 0; f < rule->nfactor; f++) factors[f].n = 0;
    for (int d = 0; d < t->rank; d++) {
        AxisList alone[MAX_FACTORS] = {0};
        Type only = type_unsharded(t);
        only.dim[d].axes = t->dim[d].axes;
        if (!rule_factors_of(rule, m, dims, &only, alone)) continue;
        for (int k = 0; k < dims[d].n; k++) factors[dims[d].at[k]] = alone[dims[d].at[k]];
    }
}

AxisList factors_join(const ShardRule *rule, const Mesh *m, const DimFactors *dim, const AxisList *factors) {
    AxisList all = {0};
    for (int k = 0; k < dim->n; k++) {
        const Factor *f = &rule->factor[dim->at[k]];
        if (f->kind == FACTOR_whole) break;
        const AxisList *axes = &factors[dim->at[k]];
        for (int i = 0; i < axes->n; i++)
            if (!axes_has(&all, axes->at[i])) axes_add(&all, axes->at[i]);
        if (mesh_size(m, axes) != f->size) break;
    }
    return all;
}

Type sharding_by_label(const Type *like, const Type *from) {
    Type t = type_unsharded(like);
    for (int d = 0; d < t.rank; d++) {
        int e = type_find(from, t.dim[d].label);
        if (e >= 0) t.dim[d].axes = from->dim[e].axes;
        t.dim[d].pinned = t.dim[d].axes.n > 0;
    }
    return t;
}

void sharding_copy(Type *to, const Type *from) {
    for (int d = 0; d < to->rank; d++) {
        to->dim[d].axes = from->dim[d].axes;
        to->dim[d].pinned = to->dim[d].axes.n > 0;
    }
    to->partial_kind = from->partial_kind;
    to->partial = from->partial;
}
