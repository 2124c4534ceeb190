/* warn.c: large tensors that are whole on every device although they could be split.
 *
 * Asked once shardings are final wishes. Only variables are looked at: what is computed from them follows. States of an
 * optimizer follow their parameter and are spoken of with it. Cost: variables x mesh axes. */
#include "origins.h"

/* Below this, a split saves too little to speak of. */
#define LARGE_BYTES ((int64_t)64 << 20)

/* Writes an axis of the mesh and a dim that it could split, major dims and large mesh axes first; false: none. */
static bool find_split(const Mesh *m, const Type *t, int first, int *dim, int *axis) {
    for (int d = first; d < t->rank; d++) {
        int best = -1;
        for (int x = 0; x < m->n; x++) {
            if (m->size[x] < 2 || type_axes_used(t) >> x & 1 || dim_local(m, &t->dim[d]) % m->size[x] != 0) continue;
            if (best < 0 || m->size[x] > m->size[best]) best = x;
        }
        if (best < 0) continue;
        *dim = d;
        *axis = best;
        return true;
    }
    return false;
}

void warn_replicated(const Module *m) {
    for (int i = 0; i < m->vars.n; i++) {
        const Var *v = m->vars.at[i];
        int64_t bytes = type_local_bytes(&m->mesh, &v->type);
        int dim, axis;
        if (v->kind != VAR_param || bytes < LARGE_BYTES || type_axes_used(&v->type) != 0) continue;
        if (!find_split(&m->mesh, &v->type, v->stacked, &dim, &axis)) continue;
        const char *label = v->type.dim[dim].label, *mesh_axis_name = m->mesh.name[axis];
        diag_warn(v->loc, "param %s is whole on every device: %lld MiB each; %s@%s would make that %lld MiB%s", v->path,
                  (long long)(bytes >> 20), label, mesh_axis_name, (long long)(bytes / m->mesh.size[axis] >> 20),
                  v->trained ? ", and the same of its gradient and of each state of its optimizer" : "");
    }
}
