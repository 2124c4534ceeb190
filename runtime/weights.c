/* weights.c: variables from and to safetensors files.
 *
 * A stacked variable is one file tensor per slice ("block.1.wi"), so files do not know how loops were rolled, and a
 * file is global: any mesh reads what any other wrote. Reading is by the devices in parallel, each copying its own
 * block from the mapped file; f32, bf16 and f16 convert into each other with one rounding. Writing takes each block
 * from the first device that holds it; rank 0 writes, other ranks send it theirs in the same order. */
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "ranks.h"

/* ---- reading ------------------------------------------------------------------------------------------------ */

typedef struct Load {
    const MoeVar *var;
    int64_t slice;
    const StTensor *from;
} Load;

typedef struct LoadList {
    int n;
    Load *at;
    _Atomic int bad; /* 1 + index of a tensor with a NaN */
} LoadList;

typedef struct LoadRun {
    const StTensor *from;
    char *to;
    MoeDType dtype;
    bool nan;
} LoadRun;

static float float_at(const char *at, int dtype) {
    float x;
    uint16_t h;
    if (dtype == MOE_f32) return memcpy(&x, at, 4), x;
    memcpy(&h, at, 2);
    return dtype == MOE_bf16 ? moe_from_bf16(h) : moe_from_f16(h);
}

static bool is_float(int dtype) {
    return dtype == MOE_f32 || dtype == MOE_bf16 || dtype == MOE_f16;
}

static void run_load(void *ctx, int64_t local, int64_t global, int64_t n) {
    LoadRun *l = ctx;
    int64_t es = dtype_size(l->dtype);
    if (!is_float((int)l->dtype)) {
        memcpy(l->to + local * es, l->from->at + global * es, (size_t)(n * es));
        return;
    }
    int64_t from = dtype_size((MoeDType)l->from->dtype);
    for (int64_t i = 0; i < n; i++) {
        float x = float_at(l->from->at + (global + i) * from, l->from->dtype);
        l->nan |= x != x;
        if (l->dtype == MOE_f32)
            ((float *)l->to)[local + i] = x;
        else
            ((uint16_t *)l->to)[local + i] = l->dtype == MOE_bf16 ? moe_to_bf16(x) : moe_to_f16(x);
    }
}

static void load_job(Worker *w, void *ctx) {
    LoadList *list = ctx;
    const MoeProgram *p = w->team->program;
    for (int i = w->pub.worker; i < list->n; i += w->pub.workers) {
        const Load *l = &list->at[i];
        MoeTensor slice;
        if (!var_slice(p, l->var, l->slice, w->pub.device, &slice)) continue;
        LoadRun run = {l->from, w->pub.arena + slice.offset, l->var->t.dtype, false};
        tensor_runs(p, &slice, w->pub.device, run_load, &run);
        if (run.nan) list->bad = i + 1;
    }
}

static const int64_t *slice_shape(const MoeVar *v, int *rank) {
    *rank = v->t.rank - v->stacked;
    return v->t.size + v->stacked;
}

static bool fits_check(const char *path, const MoeVar *v, const StTensor *t, Error *e) {
    int rank;
    const int64_t *shape = slice_shape(v, &rank);
    bool same = rank == t->rank;
    for (int i = 0; same && i < rank; i++) same = shape[i] == t->shape[i];
    if (!same) {
        char have[256] = "", want[256] = "";
        for (int i = 0, n = 0; i < t->rank && n < 200; i++)
            n += snprintf(have + n, 24, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
        for (int i = 0, n = 0; i < rank && n < 200; i++)
            n += snprintf(want + n, 24, "%s%lld", i ? ", " : "", (long long)shape[i]);
        return error_set(e, "%s: tensor '%.100s' has shape [%s]; the program needs [%s]", path, t->name, have, want);
    }
    if (t->dtype == (int)v->t.dtype || (is_float(t->dtype) && is_float((int)v->t.dtype))) return true;
    return error_set(e, "%s: tensor '%.100s' is %s; the program needs %s", path, t->name, t->type,
                     dtype_text(v->t.dtype));
}

/* Whether a variable lies below a path, which "=" may end. */
static bool is_below(const char *name, const char *path) {
    size_t n = strcspn(path, "=");
    return strncmp(name, path, n) == 0 && name[n] == '.';
}

static bool part_has(const Part *part, const MoeVar *v) {
    for (int i = 0; i < part->nwithout; i++)
        if (is_below(v->t.name, part->without[i])) return false;
    return part->path == NULL || is_below(v->t.name, part->path);
}

static bool part_used(const MoeProgram *p, const Part *part) {
    for (int i = 0; i < p->nvars; i++)
        if (part_has(part, &p->vars[i])) return true;
    return false;
}

/* What the state is called that `ema` keeps of a parameter. */
static char *mean_name(const MoeVar *v, int64_t slice) {
    char *own = var_slice_name(v, v->t.name, slice), *name = xformat("ema.%s.mean", own);
    free(own);
    return name;
}

static bool list_make(const MoeProgram *p, const char *path, StFile *f, unsigned which, bool optional, const Part *part,
                      LoadList *list, Error *e) {
    int64_t n = 0;
    size_t head = part->path == NULL ? 0 : strlen(part->path) + 1;
    if (part->path != NULL && !part_used(p, part))
        return error_set(e, "the program has no variable below '%.100s'", part->path);
    for (int i = 0; i < p->nvars; i++) n += var_slices(&p->vars[i]);
    list->at = xcalloc((size_t)n, sizeof *list->at);
    for (int i = 0; i < p->nvars; i++) {
        const MoeVar *v = &p->vars[i];
        for (int64_t s = 0; (which & var_kind(v)) && part_has(part, v) && s < var_slices(v); s++) {
            char *name = part->mean ? mean_name(v, s) : var_slice_name(v, v->from ? v->from : v->t.name, s);
            StTensor *t = st_find(f, name + head);
            bool ok = t ? fits_check(path, v, t, e)
                        : optional || error_set(e, "%s: tensor '%.100s' is missing", path, name + head);
            free(name);
            if (!ok) return false;
            if (t) t->used = true, list->at[list->n++] = (Load){v, s, t};
        }
    }
    if (part->mean && list->n == 0) return error_set(e, "%s: no running means: `train … ema 0.999` keeps them", path);
    for (int i = 0; i < f->n && !part->lenient; i++)
        if (!f->t[i].used) return error_set(e, "%s: tensor '%.100s' is not of this program", path, f->t[i].name);
    return true;
}

bool vars_load(Team *t, const char *path, unsigned which, bool only_if_there, const Part *part, Error *e) {
    StFile f;
    LoadList list = {0};
    if (!st_open(path, &f, e)) return false;
    bool ok = list_make(t->program, path, &f, which, only_if_there, part, &list, e);
    if (ok && !team_run(t, load_job, &list)) ok = error_set(e, "%s", t->error.text);
    if (ok && list.bad) ok = error_set(e, "%s: tensor '%.100s' contains NaN", path, list.at[list.bad - 1].from->name);
    free(list.at);
    st_close(&f);
    return ok;
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

static void slice_get(void *ctx, const StOut *out, void *buffer) {
    Team *t = ctx;
    const MoeVar *v = out->tag;
    MoeTensor slice;
    for (int d = 0; d < t->devices; d++)
        if (tensor_holds_first(t->program, &v->t, d) && var_slice(t->program, v, out->index, d, &slice))
            block_collect(t, &slice, d, buffer, false);
}

bool vars_save(Team *t, const char *path, unsigned which, Error *e) {
    const MoeProgram *p = t->program;
    int64_t most = 0;
    int n = 0;
    for (int i = 0; i < p->nvars; i++) most += var_slices(&p->vars[i]);
    StOut *out = xcalloc((size_t)most, sizeof *out);
    for (int i = 0; i < p->nvars; i++) {
        const MoeVar *v = &p->vars[i];
        for (int64_t s = 0; (which & var_kind(v)) && s < var_slices(v); s++) {
            StOut *o = &out[n++];
            *o = (StOut){var_slice_name(v, v->from ? v->from : v->t.name, s), v->t.dtype, .tag = (void *)(uintptr_t)v,
                         .index = s};
            const int64_t *shape = slice_shape(v, &o->rank);
            memcpy(o->shape, shape, sizeof *shape * (size_t)o->rank);
        }
    }
    bool ok = st_write(ranks_self() ? NULL : path, n, out, slice_get, t, e) && ranks_ok(e);
    for (int i = 0; i < n; i++) free(out[i].name);
    free(out);
    return ok;
}
