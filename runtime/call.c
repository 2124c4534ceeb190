/* call.c: one call of a function on all devices, and its results as global arrays. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "ranks.h"

const MoeFunc *func_find(const MoeProgram *p, const char *name, bool train) {
    for (int i = 0; i < p->nfuncs; i++)
        if (p->funcs[i].train == train && !strcmp(p->funcs[i].name, name)) return &p->funcs[i];
    return NULL;
}

const MoeTensor *tensor_find(int n, const MoeTensor *t, const char *name) {
    for (int i = 0; i < n; i++)
        if (!strcmp(t[i].name, name)) return &t[i];
    return NULL;
}

char *shape_text(const MoeTensor *t) {
    char text[640];
    int n = snprintf(text, sizeof text, "%s[", dtype_text(t->dtype));
    for (int i = 0; i < t->rank; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%.32s:%lld", i ? ", " : "", t->label[i] ? t->label[i] : "_",
                      (long long)t->size[i]);
    return xformat("%s]", text);
}

/* Each device copies its blocks of the arguments, then all its workers run the function. */
static void call_job(Worker *w, void *ctx) {
    const Call *c = ctx;
    for (int i = w->pub.worker; i < c->f->nargs; i += w->pub.workers)
        if (c->args[i]) tensor_put(w->team, &c->f->args[i], w->pub.device, c->args[i]);
    w->pub.seed = c->seed;
    w->pub.step = (int32_t)c->step;
    w->pub.steps = (int32_t)c->steps;
    moe_barrier(&w->pub);
    c->f->run(&w->pub);
}

bool call_run(Team *t, const Call *c, Error *e) {
    ranks_call(c->f->name, c->step);
    return team_run(t, call_job, (void *)(uintptr_t)c) || error_set(e, "%s", t->error.text);
}

void *call_result(Team *t, const MoeFunc *f, int result) {
    const MoeTensor *r = &f->results[result];
    void *out = xmalloc((size_t)tensor_elements(r) * (size_t)dtype_size(r->dtype));
    if (!tensor_collect(t, r, out)) memset(out, 0, (size_t)tensor_elements(r) * (size_t)dtype_size(r->dtype));
    return out;
}

float *floats_of(const MoeTensor *t, void *values) {
    int64_t n = tensor_elements(t);
    if (t->dtype == MOE_f32) return values;
    float *out = xmalloc((size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        switch (t->dtype) {
            case MOE_f32:
                break;
            case MOE_bf16:
                out[i] = moe_from_bf16(((uint16_t *)values)[i]);
                break;
            case MOE_f16:
                out[i] = moe_from_f16(((uint16_t *)values)[i]);
                break;
            case MOE_i32:
                out[i] = (float)((int32_t *)values)[i];
                break;
            case MOE_bool:
                out[i] = ((uint8_t *)values)[i];
                break;
        }
    }
    free(values);
    return out;
}

double call_mean(Team *t, const MoeFunc *f, int result) {
    const MoeTensor *r = &f->results[result];
    int64_t n = tensor_elements(r);
    float *x = floats_of(r, call_result(t, f, result));
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    free(x);
    return n ? sum / (double)n : 0;
}

int call_means(Team *t, const MoeFunc *f, const char **names, double *values) {
    int n = f->nresults < MAX_METRICS ? f->nresults : MAX_METRICS;
    for (int i = 0; i < n; i++) {
        names[i] = i == 0 ? "loss" : f->results[i].name;
        values[i] = call_mean(t, f, i);
        if (isnan(values[i])) values[i] = NAN; /* without a sign */
    }
    return n;
}

/* NAME=PATH */
static bool weights_of(Team *t, const char *option, Error *e) {
    size_t n = strcspn(option, "=");
    char name[256];
    if (n == 0 || n >= sizeof name) return error_set(e, "--weights-of=%.100s: expected NAME=PATH", option);
    snprintf(name, sizeof name, "%.*s", (int)n, option);
    return weights_load(t, option + n + 1, &(Part){.path = name}, e);
}

Team *command_team(const MoeProgram *p, const Options *o, Error *e) {
    int64_t bytes = p->vars_bytes;
    for (int i = 0; i < p->nfuncs; i++) bytes = p->funcs[i].arena_bytes > bytes ? p->funcs[i].arena_bytes : bytes;
    Team *t = team_new(p, (int)o->workers, (size_t)bytes, e);
    if (!t) return NULL;
    unsigned which = o->weights || o->resume ? VARS_states : VARS_states | VARS_params; /* the rest is read */
    bool ok = vars_init(t, (uint32_t)o->seed, which) || error_set(e, "%s", t->error.text);
    if (ok && o->weights)
        ok = weights_load(t, o->weights, &(Part){.nwithout = o->nweights_of, .without = o->weights_of}, e);
    if (ok && o->ema) ok = o->weights ? means_load(t, o->weights, e) : error_set(e, "--ema needs --weights DIR");
    for (int i = 0; ok && i < o->nweights_of; i++) ok = weights_of(t, o->weights_of[i], e);
    if (ok) return t;
    team_free(t);
    return NULL;
}

/* Messages quote files; a terminal is not told what a file's control characters say. */
int command_error(const Error *e) {
    char text[sizeof e->text];
    size_t n = 0;
    for (const char *c = e->text; *c; c++) text[n++] = (char)((unsigned char)*c < 32 || *c == 127 ? '?' : *c);
    text[n] = '\0';
    fflush(stdout);
    if (!ranks_report(text)) fprintf(stderr, "error: %s\n", text);
    return EXIT_user;
}
