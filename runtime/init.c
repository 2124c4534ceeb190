/* init.c: initial values, the same on every mesh.
 *
 * An element is drawn by its place in its own file tensor: key (seed, fnv1a32 of the slice's path), counter (index
 * within the slice, 0, "init"). So neither the sharding nor the stacking of layers changes a value, and each device
 * fills just its block. */
#include <stdlib.h>

#include "host.h"

enum { INIT_MARK = 0x696e6974, CHUNK = 1024 };

static uint32_t fnv1a32(const char *s) {
    uint32_t h = 0x811c9dc5u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 0x01000193u;
    return h;
}

typedef struct Fill {
    const MoeVar *var;
    char *at;
    uint32_t seed, site;
} Fill;

/* Values of elements first, first + 1, …; one loop for each distribution, so that it vectorizes. */
static void values_draw(const Fill *f, int64_t first, int64_t n, float *out) {
    float scale = (float)f->var->value;
    uint32_t seed = f->seed, site = f->site;
    switch (f->var->init) {
        case MOE_INIT_const:
            for (int64_t i = 0; i < n; i++) out[i] = scale;
            break;
        case MOE_INIT_normal:
            for (int64_t i = 0; i < n; i++)
                out[i] = scale * moe_normal(seed, site, (uint64_t)(first + i), 0, INIT_MARK);
            break;
        case MOE_INIT_uniform:
            for (int64_t i = 0; i < n; i++)
                out[i] = scale * (2.0f * moe_uniform(seed, site, (uint64_t)(first + i), 0, INIT_MARK) - 1.0f);
            break;
    }
}

static void values_store(MoeDType t, char *at, int64_t first, int64_t n, const float *v) {
    for (int64_t i = 0; i < n; i++) {
        switch (t) {
            case MOE_f32:
                ((float *)at)[first + i] = v[i];
                break;
            case MOE_bf16:
                ((uint16_t *)at)[first + i] = moe_to_bf16(v[i]);
                break;
            case MOE_f16:
                ((uint16_t *)at)[first + i] = moe_to_f16(v[i]);
                break;
            case MOE_i32:
                ((int32_t *)at)[first + i] = (int32_t)v[i];
                break;
            case MOE_bool:
                ((uint8_t *)at)[first + i] = v[i] != 0;
                break;
        }
    }
}

static void run_fill(void *ctx, int64_t local, int64_t global, int64_t n) {
    const Fill *f = ctx;
    float v[CHUNK];
    for (int64_t lo = 0; lo < n; lo += CHUNK) {
        int64_t len = n - lo < CHUNK ? n - lo : CHUNK;
        values_draw(f, global + lo, len, v);
        values_store(f->var->t.dtype, f->at, local + lo, len, v);
    }
}

typedef struct Init {
    uint32_t seed;
    unsigned which;
} Init;

/* A team's workers take variables in turn. */
static void init_job(Worker *w, void *ctx) {
    const MoeProgram *p = w->team->program;
    const Init *init = ctx;
    for (int i = w->pub.worker; i < p->nvars; i += w->pub.workers) {
        const MoeVar *v = &p->vars[i];
        for (int64_t s = 0; (init->which & var_kind(v)) && s < var_slices(v); s++) {
            MoeTensor slice;
            if (!var_slice(p, v, s, w->pub.device, &slice)) continue;
            char *path = var_slice_name(v, v->t.name, s);
            Fill f = {v, w->pub.arena + slice.offset, init->seed, fnv1a32(path)};
            tensor_runs(p, &slice, w->pub.device, run_fill, &f);
            free(path);
        }
    }
}

bool vars_init(Team *t, uint32_t seed, unsigned which) {
    Init init = {seed, which};
    return team_run(t, init_job, &init);
}
