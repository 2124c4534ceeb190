/* layout.c: where the elements of a sharded tensor lie, and small helpers.
 *
 * Devices are numbered in mixed radix over the mesh, axis 0 most significant. An axis split over mesh axes (a, b) gives
 * a device the block number `position of the device along (a, b), a major`; sizes divide evenly. A device's part is the
 * product of these blocks, dense and row-major. tensor_runs enumerates it in runs that are contiguous in the global
 * array too: O(runs), no division inside. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "rt.h"

/* ---- errors and memory -------------------------------------------------------------------------------------- */

bool error_set(Error *e, const char *fmt, ...) {
    if (e->text[0]) return false;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    return false;
}

static void *checked(void *p) {
    if (p) return p;
    fputs("error: out of memory\n", stderr);
    exit(1);
}

void *xmalloc(size_t bytes) {
    return checked(malloc(bytes ? bytes : 1));
}
void *xcalloc(size_t n, size_t size) {
    return checked(calloc(n ? n : 1, size));
}

char *xformat(const char *fmt, ...) {
    va_list ap;
    char *s = NULL;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0) s = NULL;
    va_end(ap);
    return checked(s);
}

/* ---- the mesh ----------------------------------------------------------------------------------------------- */

static const struct {
    int size;
    const char *text;
} dtypes[] = {
    [MOE_f32] = {4, "f32"}, [MOE_bf16] = {2, "bf16"}, [MOE_f16] = {2, "f16"},
    [MOE_i32] = {4, "i32"}, [MOE_bool] = {1, "bool"},
};

int dtype_size(MoeDType t) {
    return dtypes[t].size;
}
const char *dtype_text(MoeDType t) {
    return dtypes[t].text;
}

int64_t mesh_product(const MoeProgram *p, const MoeAxes *axes) {
    int64_t n = 1;
    for (int i = 0; i < axes->n; i++) n *= p->axis_size[axes->at[i]];
    return n;
}

int64_t mesh_position(const MoeProgram *p, const int64_t *coord, const MoeAxes *axes) {
    int64_t at = 0;
    for (int i = 0; i < axes->n; i++) at = at * p->axis_size[axes->at[i]] + coord[axes->at[i]];
    return at;
}

void mesh_coord(const MoeProgram *p, int device, int64_t *coord) {
    int64_t left = device;
    for (int a = p->naxes - 1; a >= 0; a--) {
        coord[a] = left % p->axis_size[a];
        left /= p->axis_size[a];
    }
}

/* ---- tensors ------------------------------------------------------------------------------------------------ */

int64_t tensor_elements(const MoeTensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->size[i];
    return n;
}

int64_t tensor_block(const MoeProgram *p, const MoeTensor *t, int device, int64_t *size, int64_t *start) {
    int64_t coord[MOE_MAX_AXES], n = 1;
    mesh_coord(p, device, coord);
    for (int i = 0; i < t->rank; i++) {
        size[i] = t->size[i] / mesh_product(p, &t->axes[i]);
        start[i] = size[i] * mesh_position(p, coord, &t->axes[i]);
        n *= size[i];
    }
    return n;
}

bool tensor_holds_first(const MoeProgram *p, const MoeTensor *t, int device) {
    int64_t coord[MOE_MAX_AXES];
    mesh_coord(p, device, coord);
    for (int i = 0; i < t->rank; i++)
        for (int k = 0; k < t->axes[i].n; k++) coord[t->axes[i].at[k]] = 0;
    for (int a = 0; a < p->naxes; a++)
        if (coord[a]) return false;
    return true;
}

int64_t var_slices(const MoeVar *v) {
    return v->stacked ? v->t.size[0] : 1;
}

bool var_slice(const MoeProgram *p, const MoeVar *v, int64_t i, int device, MoeTensor *slice) {
    *slice = v->t;
    if (!v->stacked) return true;
    int64_t size[MOE_MAX_RANK], start[MOE_MAX_RANK], n = tensor_block(p, &v->t, device, size, start);
    if (i < start[0] || i >= start[0] + size[0]) return false;
    slice->rank--;
    slice->offset += (i - start[0]) * (n / size[0]) * dtype_size(v->t.dtype);
    for (int k = 0; k < slice->rank; k++) {
        slice->size[k] = v->t.size[k + 1];
        slice->label[k] = v->t.label[k + 1];
        slice->axes[k] = v->t.axes[k + 1];
    }
    return true;
}

char *var_slice_name(const MoeVar *v, const char *pattern, int64_t i) {
    const char *open = v->stacked ? strchr(pattern, '{') : NULL, *close = open ? strchr(open, '}') : NULL;
    if (!close) return xformat("%s", pattern);
    return xformat("%.*s%lld%s", (int)(open - pattern), pattern, (long long)(v->lo + i * v->step), close + 1);
}

void tensor_runs(const MoeProgram *p, const MoeTensor *t, int device, RunFn fn, void *ctx) {
    int64_t size[MOE_MAX_RANK], start[MOE_MAX_RANK], stride[MOE_MAX_RANK], index[MOE_MAX_RANK] = {0};
    int64_t n = tensor_block(p, t, device, size, start), run = 1, at = 0, inner = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        stride[i] = inner;
        at += start[i] * inner;
        inner *= t->size[i];
    }
    int outer = t->rank; /* axes before `outer` are walked; whole axes behind it are one run */
    while (outer > 0) {
        run *= size[--outer];
        if (size[outer] != t->size[outer]) break;
    }
    for (int64_t local = 0; local < n; local += run) {
        fn(ctx, local, at, run);
        for (int i = outer - 1; i >= 0; i--) {
            at += stride[i];
            if (++index[i] < size[i]) break;
            at -= size[i] * stride[i];
            index[i] = 0;
        }
    }
}

typedef struct Copy {
    char *local, *global;
    int64_t es;
} Copy;

static void run_put(void *ctx, int64_t local, int64_t global, int64_t n) {
    Copy *c = ctx;
    memcpy(c->local + local * c->es, c->global + global * c->es, (size_t)(n * c->es));
}

static void run_get(void *ctx, int64_t local, int64_t global, int64_t n) {
    Copy *c = ctx;
    memcpy(c->global + global * c->es, c->local + local * c->es, (size_t)(n * c->es));
}

void tensor_put(const Team *team, const MoeTensor *t, int device, const void *global) {
    Copy c = {team->device[device].arena + t->offset, (char *)(uintptr_t)global, dtype_size(t->dtype)};
    tensor_runs(team->program, t, device, run_put, &c);
}

void tensor_get(const Team *team, const MoeTensor *t, int device, void *global) {
    Copy c = {team->device[device].arena + t->offset, global, dtype_size(t->dtype)};
    tensor_runs(team->program, t, device, run_get, &c);
}
