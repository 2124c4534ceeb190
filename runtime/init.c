/* init.c: initial values, the same on every mesh.
 *
 * An element is drawn by its place in its own file tensor: key (seed, fnv1a32 of the slice's path), counter (index
 * within the slice, 0, "init"). So neither the sharding nor the stacking of layers changes a value, and each device
 * fills just its block. */
#include <stdlib.h>

#include "host.h"

enum { INIT_MARK = 0x696e6974 };

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

static float value_at(const Fill *f, int64_t index) {
    float scale = (float)f->var->value;
    if (f->var->init == MOE_INIT_normal) return scale * moe_normal(f->seed, f->site, (uint64_t)index, 0, INIT_MARK);
    if (f->var->init == MOE_INIT_uniform)
        return scale * (2.0f * moe_uniform(f->seed, f->site, (uint64_t)index, 0, INIT_MARK) - 1.0f);
    return scale;
}

static void run_fill(void *ctx, int64_t local, int64_t global, int64_t n) {
    const Fill *f = ctx;
    for (int64_t i = 0; i < n; i++) {
        float v = value_at(f, global + i);
        switch (f->var->t.dtype) {
            case MOE_f32:
                ((float *)f->at)[local + i] = v;
                break;
            case MOE_bf16:
                ((uint16_t *)f->at)[local + i] = moe_to_bf16(v);
                break;
            case MOE_f16:
                ((uint16_t *)f->at)[local + i] = moe_to_f16(v);
                break;
            case MOE_i32:
                ((int32_t *)f->at)[local + i] = (int32_t)v;
                break;
            case MOE_bool:
                ((uint8_t *)f->at)[local + i] = v != 0;
                break;
        }
    }
}

/* A team's workers take variables in turn. */
static void init_job(Worker *w, void *ctx) {
    const MoeProgram *p = w->team->program;
    for (int i = w->pub.worker; i < p->nvars; i += w->pub.workers) {
        const MoeVar *v = &p->vars[i];
        for (int64_t s = 0; s < var_slices(v); s++) {
            MoeTensor slice;
            if (!var_slice(p, v, s, w->pub.device, &slice)) continue;
            char *path = var_slice_name(v, v->t.name, s);
            Fill f = {v, w->pub.arena + slice.offset, *(uint32_t *)ctx, fnv1a32(path)};
            tensor_runs(p, &slice, w->pub.device, run_fill, &f);
            free(path);
        }
    }
}

bool vars_init(Team *t, uint32_t seed) {
    return team_run(t, init_job, &seed);
}
