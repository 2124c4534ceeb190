/* bench.c: `bench ENTRY`: how long a call takes, without files. Arguments are drawn by Philox: normal floats, bytes for
 * integers (a gather beyond its axis reads 0, so any index is allowed). Arguments are placed anew before each call,
 * since a function may reuse their memory; only the call is timed. Processor time is that of all threads, their waiting
 * by spinning included: on a shared machine it says more than the clock. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host.h"

enum { WARM = 2, REPEAT = 10, SITE = 0x62656e63 };

static void *argument_draw(const MoeTensor *t, uint32_t seed, int number) {
    int64_t n = tensor_elements(t);
    char *at = xmalloc((size_t)n * (size_t)dtype_size(t->dtype));
    for (int64_t i = 0; i < n; i++) {
        float x = moe_normal(seed, SITE, (uint64_t)i, (uint32_t)number, 0);
        int32_t byte = (int32_t)(256 * moe_uniform(seed, SITE, (uint64_t)i, (uint32_t)number, 0));
        switch (t->dtype) {
            case MOE_f32:
                ((float *)(void *)at)[i] = x;
                break;
            case MOE_bf16:
                ((uint16_t *)(void *)at)[i] = moe_to_bf16(x);
                break;
            case MOE_f16:
                ((uint16_t *)(void *)at)[i] = moe_to_f16(x);
                break;
            case MOE_i32:
                ((int32_t *)(void *)at)[i] = byte;
                break;
            case MOE_bool:
                at[i] = (char)(byte & 1);
                break;
        }
    }
    return at;
}

static void place_job(Worker *w, void *ctx) {
    const Call *c = ctx;
    for (int i = w->pub.worker; i < c->f->nargs; i += w->pub.workers)
        tensor_put(w->team, &c->f->args[i], w->pub.device, c->args[i]);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of each call after WARM ones, and the processors' of all. */
static bool calls_time(Team *t, Call *c, int64_t repeat, double *seconds, double *processor, Error *e) {
    const void **placed = xcalloc((size_t)c->f->nargs + 1, sizeof *placed); /* none is placed again by the call */
    Call timed = {c->f, placed, c->seed, 0, WARM + repeat};
    bool ok = true;
    for (; ok && timed.step < WARM + repeat; timed.step++) {
        ok = team_run(t, place_job, c) || error_set(e, "%s", t->error.text);
        double began = clock_seconds(), used = processor_seconds();
        ok = ok && call_run(t, &timed, e);
        if (timed.step < WARM) continue;
        seconds[timed.step - WARM] = clock_seconds() - began;
        *processor += processor_seconds() - used;
    }
    free(placed);
    return ok;
}

static bool bench(Team *t, const MoeFunc *f, const Options *o, Error *e) {
    int64_t repeat = o->repeat ? o->repeat : REPEAT;
    void **args = xcalloc((size_t)f->nargs + 1, sizeof *args);
    double *seconds = xcalloc((size_t)repeat, sizeof *seconds), processor = 0;
    for (int i = 0; i < f->nargs; i++) args[i] = argument_draw(&f->args[i], (uint32_t)o->seed, i);
    Call c = {.f = f, .args = (const void *const *)args, .seed = (uint32_t)o->seed};
    bool ok = calls_time(t, &c, repeat, seconds, &processor, e);
    if (ok) {
        qsort(seconds, (size_t)repeat, sizeof *seconds, by_value);
        printf("%s: %lld calls, min %.3f median %.3f max %.3f processor %.3f ms\n", f->name, (long long)repeat,
               1e3 * seconds[0], 1e3 * seconds[repeat / 2], 1e3 * seconds[repeat - 1],
               1e3 * processor / (double)repeat);
        for (int i = 0; i < f->nresults; i++) printf("  mean %s %.6g\n", f->results[i].name, call_mean(t, f, i));
    }
    for (int i = 0; i < f->nargs; i++) free(args[i]);
    free(args);
    free(seconds);
    return ok;
}

int command_bench(const MoeProgram *p, const Options *o) {
    Error e = {0};
    const MoeFunc *f = command_func(p, o, &e);
    Team *t = f ? command_team(p, o, &e) : NULL;
    bool ok = t && bench(t, f, o, &e);
    team_free(t);
    return ok ? 0 : command_error(&e);
}
