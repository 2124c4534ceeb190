/* mesh.c: meshes, lists of mesh axes, and what a type says about one device.
 *
 * Devices are numbered in mixed radix over the mesh axes, axis 0 most significant. A dim split over axes (a, b) is cut
 * into size(a) * size(b) equal blocks, and a device holds block number mesh_index(device, (a, b)): its place along the
 * list, major first. The same function gives the offset of a block, the rank in a collective's group, and the part of a
 * split index space.
 * Everything is O(rank + axes). Sizes are within MAX_DEVICES, MAX_DIM and MAX_ELEMENTS, so products fit in 64 bits. */
#include "ir.h"

int64_t mesh_devices(const Mesh *m) {
    int64_t n = 1;
    for (int i = 0; i < m->n; i++) n *= m->size[i];
    return n;
}

int mesh_axis(const Mesh *m, const char *interned_name) {
    for (int i = 0; i < m->n; i++)
        if (m->name[i] == interned_name) return i;
    return -1;
}

int64_t mesh_coord(const Mesh *m, int64_t device, int axis) {
    for (int i = m->n - 1; i > axis; i--) device /= m->size[i];
    return device % m->size[axis];
}

int64_t mesh_index(const Mesh *m, int64_t device, const AxisList *axes) {
    int64_t at = 0;
    for (int i = 0; i < axes->n; i++) at = at * m->size[axes->at[i]] + mesh_coord(m, device, axes->at[i]);
    return at;
}

int64_t mesh_size(const Mesh *m, const AxisList *axes) {
    int64_t n = 1;
    for (int i = 0; i < axes->n; i++) n *= m->size[axes->at[i]];
    return n;
}

bool axes_equal(const AxisList *a, const AxisList *b) {
    return a->n == b->n && axes_common(a, b) == a->n;
}

bool axes_has(const AxisList *a, int axis) {
    for (int i = 0; i < a->n; i++)
        if (a->at[i] == axis) return true;
    return false;
}

void axes_add(AxisList *a, int axis) {
    if (a->n == MAX_AXES) diag_bug("an axis list has more than %d axes", MAX_AXES);
    a->at[a->n++] = (uint8_t)axis;
}

int axes_common(const AxisList *a, const AxisList *b) {
    int n = 0;
    while (n < a->n && n < b->n && a->at[n] == b->at[n]) n++;
    return n;
}

int type_find(const Type *t, Label label) {
    for (int i = 0; i < t->rank; i++)
        if (t->dim[i].label == label) return i;
    return -1;
}

int64_t type_elements(const Type *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i].size;
    return n;
}

int64_t dim_local(const Mesh *m, const Dim *d) {
    return d->size / mesh_size(m, &d->axes);
}

int64_t type_local_elements(const Mesh *m, const Type *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= dim_local(m, &t->dim[i]);
    return n;
}

int64_t type_local_bytes(const Mesh *m, const Type *t) {
    return type_local_elements(m, t) * dtype_bytes(t->dtype);
}

bool type_same_shape(const Type *a, const Type *b) {
    if (a->dtype != b->dtype || a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i].label != b->dim[i].label || a->dim[i].size != b->dim[i].size) return false;
    return true;
}

bool type_same_sharding(const Type *a, const Type *b) {
    if (a->rank != b->rank || a->partial_kind != b->partial_kind || !axes_equal(&a->partial, &b->partial)) return false;
    for (int i = 0; i < a->rank; i++)
        if (!axes_equal(&a->dim[i].axes, &b->dim[i].axes)) return false;
    return true;
}

Type type_unsharded(const Type *t) {
    Type whole = {.dtype = t->dtype, .rank = t->rank};
    for (int i = 0; i < t->rank; i++) whole.dim[i] = (Dim){.label = t->dim[i].label, .size = t->dim[i].size};
    return whole;
}

unsigned type_axes_used(const Type *t) {
    unsigned used = 0;
    for (int i = 0; i < t->rank; i++)
        for (int k = 0; k < t->dim[i].axes.n; k++) used |= 1u << t->dim[i].axes.at[k];
    for (int k = 0; k < t->partial.n; k++) used |= 1u << t->partial.at[k];
    return used;
}
