/* train.c: `train` and `eval`: feed text windows to a function and print what it returns.
 *
 * A training function takes one i32 argument [B, S+1] and its first result is the loss; the other results are metrics,
 * printed as means. One call is one optimizer step. The run ends after --steps, at --time, at a signal (the step under
 * way is finished), or when the loss is not finite (nothing is saved then). The rows of a step depend on (seed, step)
 * only, so a resumed run continues as if it had never stopped. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "ranks.h"

enum { DEFAULT_STEPS = 1000 };

/* ---- signals ------------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t signalled;

static void on_signal(int sig) {
    signalled = sig;
    signal(sig, SIG_DFL);
}

void signals_watch(void) {
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}

bool signals_seen(void) {
    return signalled != 0;
}

/* ---- the function ------------------------------------------------------------------------------------------- */

static const MoeFunc *train_func(const MoeProgram *p, const char *name, Error *e) {
    const MoeFunc *f = NULL;
    int n = 0;
    for (int i = 0; i < p->nfuncs; i++)
        if (p->funcs[i].train && (!name || !strcmp(p->funcs[i].name, name))) f = &p->funcs[i], n++;
    if (n == 1) return f;
    if (n > 1) return error_set(e, "the program has several training functions; name one"), NULL;
    return error_set(e, name ? "no training function is called '%s'" : "the program has no `train` declaration", name),
           NULL;
}

static bool text_func_check(const MoeFunc *f, Error *e) {
    if (f->nargs == 1 && f->args[0].dtype == MOE_i32 && f->args[0].rank == 2 && f->args[0].size[1] >= 2 &&
        f->nresults > 0)
        return true;
    return error_set(e, "'%s' cannot be fed text: it must take one i32 argument [B, S+1]; use `run`", f->name);
}

/* ---- train -------------------------------------------------------------------------------------------------- */

typedef struct Run {
    const MoeFunc *f;
    Team *team;
    Text text;
    Meta meta; /* step: completed */
    int32_t *batch;
    Progress progress;
} Run;

static bool step_do(Run *r, double seconds_left, Error *e) {
    int64_t rows = r->f->args[0].size[0], width = r->f->args[0].size[1];
    if (!text_train(&r->text, (uint32_t)r->meta.seed, r->meta.step, rows, width, r->batch))
        return error_set(e, "the text is shorter than one row of %lld tokens", (long long)width);
    const void *args[1] = {r->batch};
    Call call = {r->f, args, (uint32_t)r->meta.seed, r->meta.step, r->meta.steps};
    if (!call_run(r->team, &call, e)) return false;
    const char *names[MAX_METRICS];
    double values[MAX_METRICS];
    int n = call_means(r->team, r->f, names, values);
    if (!ranks_ok(e)) return false;
    r->meta.step++;
    progress_step(&r->progress, r->meta.step, r->meta.steps, seconds_left, rows * (width - 1), n, names, values);
    if (isfinite(values[0])) return true;
    return error_set(e, "step %lld: the loss is %g; stopped, nothing was saved after it", (long long)r->meta.step,
                     values[0]);
}

static bool run_loop(Run *r, const Options *o, Error *e) {
    double end = o->seconds > 0 ? clock_seconds() + o->seconds : INFINITY;
    int64_t last = o->stop_at > 0 && o->stop_at < r->meta.steps ? o->stop_at : r->meta.steps;
    progress_begin(&r->progress, r->meta.step);
    bool ok = true;
    while (ok && r->meta.step < last && !ranks_any(signals_seen() || clock_seconds() >= end)) {
        ok = step_do(r, end - clock_seconds(), e);
        if (ok && o->save && o->save_every && r->meta.step % o->save_every == 0)
            ok = checkpoint_save(r->team, o->save, &r->meta, e);
    }
    progress_end(&r->progress);
    if (ok && o->save) ok = checkpoint_save(r->team, o->save, &r->meta, e);
    return ok;
}

static bool run_begin(Run *r, const MoeProgram *p, const Options *o, Error *e) {
    if (!(r->f = train_func(p, o->entry, e)) || !text_func_check(r->f, e)) return false;
    if (!o->data) return error_set(e, "train needs --data FILE");
    if (o->weights && o->resume) return error_set(e, "--weights and --resume exclude each other");
    if (!text_open(o->data, &r->text, e) || (o->save && !checkpoint_probe(o->save, e))) return false;
    if (!(r->team = command_team(p, o, e))) return false;
    r->meta = (Meta){0, DEFAULT_STEPS, o->seed};
    if (o->resume && !checkpoint_load(r->team, o->resume, &r->meta, e)) return false;
    if (o->steps > 0) r->meta.steps = o->steps;
    r->batch = xcalloc((size_t)tensor_elements(&r->f->args[0]), sizeof *r->batch);
    return true;
}

int command_train(const MoeProgram *p, const Options *o) {
    Error e = {0};
    Run r = {0};
    signals_watch();
    bool ok = run_begin(&r, p, o, &e) && run_loop(&r, o, &e);
    free(r.batch);
    team_free(r.team);
    text_close(&r.text);
    if (!ok) return command_error(&e);
    if (!signals_seen()) return 0;
    if (!o->save) note("stopped; nothing was saved (--save DIR)\n");
    return EXIT_stopped;
}

/* ---- eval --------------------------------------------------------------------------------------------------- */

static bool eval_loop(Team *t, const MoeFunc *f, const Text *text, Error *e) {
    int64_t rows = f->args[0].size[0], width = f->args[0].size[1], windows = text_windows(text, width);
    int64_t batches = windows / rows;
    if (!batches)
        return error_set(e, "the held-out 5 %% has %lld windows of %lld tokens; one batch needs %lld",
                         (long long)windows, (long long)width, (long long)rows);
    int32_t *batch = xcalloc((size_t)(rows * width), sizeof *batch);
    const void *args[1] = {batch};
    const char *names[MAX_METRICS];
    double values[MAX_METRICS], sums[MAX_METRICS] = {0};
    int n = 0;
    bool ok = true;
    int64_t done = 0;
    for (; ok && done < batches && !ranks_any(signals_seen()); done++) {
        text_eval(text, done * rows, rows, width, batch);
        Call call = {f, args, 0, 0, 1};
        ok = call_run(t, &call, e);
        if (!ok) break;
        n = call_means(t, f, names, values);
        if (!(ok = ranks_ok(e))) break;
        for (int i = 0; i < n; i++) sums[i] += values[i];
    }
    free(batch);
    if (!ok || !done) return ok;
    printf("eval windows %lld", (long long)(done * rows));
    for (int i = 0; i < n; i++) printf(" %s %.9g", names[i], sums[i] / (double)done);
    putchar('\n');
    return true;
}

/* The function that the training one was made of has its name. */
static const MoeFunc *eval_func(const MoeProgram *p, const char *name, Error *e) {
    const MoeFunc *train = name ? NULL : train_func(p, NULL, e);
    if (!name && !train) return NULL;
    const MoeFunc *f = func_find(p, name ? name : train->name, false);
    if (!f) error_set(e, "no function is called '%s'", name ? name : train->name);
    return f;
}

int command_eval(const MoeProgram *p, const Options *o) {
    Error e = {0};
    Text text = {0};
    Team *t = NULL;
    signals_watch();
    const MoeFunc *f = eval_func(p, o->entry, &e);
    bool ok = f && text_func_check(f, &e) && (o->data || error_set(&e, "eval needs --data FILE")) &&
              (o->weights || error_set(&e, "eval needs --weights PATH")) && text_open(o->data, &text, &e) &&
              (t = command_team(p, o, &e)) && eval_loop(t, f, &text, &e);
    team_free(t);
    text_close(&text);
    if (!ok) return command_error(&e);
    return signals_seen() ? EXIT_stopped : 0;
}
