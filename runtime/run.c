/* run.c: `run ENTRY`: any function, arrays in and out as .npy, also training steps on given arrays; and `info`: what
 * the binary holds. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host.h"
#include "ranks.h"

/* ---- arguments ---------------------------------------------------------------------------------------------- */

static const char *input_path(const Options *o, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < o->nin; i++)
        if (!strncmp(o->in[i], name, n) && o->in[i][n] == '=') return o->in[i] + n + 1;
    return NULL;
}

static bool inputs_known(const MoeFunc *f, const Options *o, Error *e) {
    for (int i = 0; i < o->nin; i++) {
        const char *equal = strchr(o->in[i], '=');
        if (!equal) return error_set(e, "--in %s: expected NAME=FILE.npy", o->in[i]);
        char *name = xformat("%.*s", (int)(equal - o->in[i]), o->in[i]);
        bool known = tensor_find(f->nargs, f->args, name);
        if (!known) error_set(e, "'%s' has no argument '%s'", f->name, name);
        bool twice = known && input_path(o, name) != equal + 1;
        if (twice) error_set(e, "--in %s is given twice", name);
        free(name);
        if (!known || twice) return false;
    }
    return true;
}

/* f32 arrays also feed bf16 and f16 arguments. */
static bool input_convert(const MoeTensor *t, Npy *a) {
    if (a->dtype == t->dtype) return true;
    if (a->dtype != MOE_f32 || (t->dtype != MOE_bf16 && t->dtype != MOE_f16)) return false;
    uint16_t *out = xmalloc((size_t)a->elements * sizeof *out);
    for (int64_t i = 0; i < a->elements; i++) {
        float x = ((float *)a->at)[i];
        out[i] = t->dtype == MOE_bf16 ? moe_to_bf16(x) : moe_to_f16(x);
    }
    free(a->at);
    a->at = out;
    return true;
}

static void *input_read(const MoeFunc *f, const MoeTensor *t, const Options *o, Error *e) {
    const char *path = input_path(o, t->name);
    char *shape = shape_text(t);
    Npy a = {0};
    bool ok = path ? npy_read(path, &a, e) : error_set(e, "'%s' needs --in %s=FILE.npy, %s", f->name, t->name, shape);
    if (ok) {
        bool same = a.rank == t->rank;
        for (int i = 0; same && i < a.rank; i++) same = a.shape[i] == t->size[i];
        ok =
            (same && input_convert(t, &a)) || error_set(e, "%s: argument '%s' is %s; the file has %s of %s shape", path,
                                                        t->name, shape, dtype_text(a.dtype), same ? "that" : "another");
    }
    free(shape);
    if (ok) return a.at;
    free(a.at);
    return NULL;
}

/* ---- results ------------------------------------------------------------------------------------------------ */

/* A result's name may be a path ("block.0/load"); a file's may not. */
static char *output_path(const char *dir, const char *name) {
    char *path = xformat("%s/%s.npy", dir, name);
    for (char *c = path + strlen(dir) + 1; *c; c++)
        if (*c == '/' || (unsigned char)*c < 32) *c = '_';
    return path;
}

static bool output_write(Team *t, const MoeFunc *f, int i, const char *dir, Error *e) {
    const MoeTensor *r = &f->results[i];
    void *values = call_result(t, f, i);
    MoeDType as = r->dtype == MOE_i32 || r->dtype == MOE_bool ? r->dtype : MOE_f32;
    if (as == MOE_f32) values = floats_of(r, values);
    char *path = output_path(dir, r->name);
    bool ok = ranks_ok(e) && (ranks_self() || npy_write(path, as, r->rank, r->size, values, e));
    free(path);
    free(values);
    return ok;
}

/* ---- commands ----------------------------------------------------------------------------------------------- */

/* A training function is called --steps times on the same arguments; each call is a line. */
static bool run_steps(Team *t, const MoeFunc *f, const Options *o, const void *const *args, Error *e) {
    int64_t steps = o->steps > 0 ? o->steps : 1, calls = f->train ? steps : 1;
    bool ok = true;
    for (int64_t step = 0; ok && step < calls; step++) {
        Call call = {f, args, (uint32_t)o->seed, step, steps};
        ok = call_run(t, &call, e);
        if (ok && f->train) {
            const char *names[MAX_METRICS];
            double values[MAX_METRICS];
            int n = call_means(t, f, names, values);
            if (!ranks_ok(e)) return false;
            printf("step %lld", (long long)step + 1);
            for (int i = 0; i < n; i++) printf(" %s %.9g", names[i], values[i]);
            putchar('\n');
        }
    }
    Meta meta = {calls, steps, o->seed};
    return ok && (!o->save || checkpoint_save(t, o->save, &meta, e));
}

static bool run_all(Team *t, const MoeFunc *f, const Options *o, Error *e) {
    void **args = xcalloc((size_t)f->nargs, sizeof *args);
    bool ok = true;
    for (int i = 0; ok && i < f->nargs; i++) ok = (args[i] = input_read(f, &f->args[i], o, e)) != NULL;
    ok = ok && run_steps(t, f, o, (const void *const *)args, e);
    if (ok && !ranks_self() && mkdir(o->out, 0777) != 0 && errno != EEXIST)
        ok = error_set(e, "%s: %s", o->out, strerror(errno));
    for (int i = 0; ok && i < f->nresults; i++) ok = output_write(t, f, i, o->out, e);
    for (int i = 0; i < f->nargs; i++) free(args[i]);
    free(args);
    return ok;
}

const MoeFunc *command_func(const MoeProgram *p, const Options *o, Error *e) {
    const MoeFunc *f = o->entry ? func_find(p, o->entry, o->train) : NULL;
    if (f) return f;
    char list[400] = "";
    for (int i = 0, n = 0; i < p->nfuncs && n < 300; i++)
        if (p->funcs[i].train == o->train)
            n += snprintf(list + n, sizeof list - (size_t)n, "%s%.80s", n ? ", " : "", p->funcs[i].name);
    const char *kind = o->train ? "training function" : "function";
    if (!o->entry) return error_set(e, "expected the name of a %s: %s", kind, list), NULL;
    return error_set(e, "no %s is called '%s'; there are: %s", kind, o->entry, list), NULL;
}

int command_run(const MoeProgram *p, const Options *o) {
    Error e = {0};
    Team *t = NULL;
    const MoeFunc *f = command_func(p, o, &e);
    bool ok = f && inputs_known(f, o, &e) && (o->out || error_set(&e, "run needs --out DIR")) &&
              (!o->save || checkpoint_probe(o->save, &e)) && (t = command_team(p, o, &e)) && run_all(t, f, o, &e);
    team_free(t);
    return ok ? 0 : command_error(&e);
}

static void info_func(const MoeFunc *f) {
    printf("%s %s, %lld bytes a device\n", f->train ? "train" : "entry", f->name, (long long)f->arena_bytes);
    for (int i = 0; i < f->nargs + f->nresults; i++) {
        const MoeTensor *t = i < f->nargs ? &f->args[i] : &f->results[i - f->nargs];
        char *shape = shape_text(t);
        printf("    %s %s: %s\n", i < f->nargs ? "in " : "out", t->name, shape);
        free(shape);
    }
}

int command_info(const MoeProgram *p, const Options *o) {
    (void)o;
    int64_t params = 0, states = 0;
    for (int i = 0; i < p->nvars; i++) *(p->vars[i].state ? &states : &params) += tensor_elements(&p->vars[i].t);
    printf("%s\nmesh [", p->source);
    for (int i = 0; i < p->naxes; i++) printf("%s%s: %lld", i ? ", " : "", p->axis_name[i], (long long)p->axis_size[i]);
    printf("], %d device%s\n", p->devices, p->devices == 1 ? "" : "s");
    printf("%lld parameters, %lld elements of state, %lld bytes of both a device\n", (long long)params,
           (long long)states, (long long)p->vars_bytes);
    for (int i = 0; i < p->nfuncs; i++) info_func(&p->funcs[i]);
    if (p->generate_decode)
        printf("generates with %s%s%s\n", p->generate_decode, p->generate_prefill ? ", prefill " : "",
               p->generate_prefill ? p->generate_prefill : "");
    return 0;
}
