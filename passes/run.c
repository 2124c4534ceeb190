/* run.c: the runner of the pass table.
 *
 * For each row from the start on: check the entry phase, run, set and verify the exit phase, dump on request, reset the
 * scratch arena. There is no pass object and no dependency solver: the table's order is the pipeline.
 *
 * Before: m->phase is the `from` phase of the first row run. After: the `to` phase of the last row run, verified; or an
 * error of the user's was reported and the module must not be used further. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "passes.h"

typedef struct Pass {
    const char *id;
    Phase from, to;
    bool (*run)(Module *, PassCtx *);
    const char *doc;
} Pass;

static const Pass passes[] = {
#define PASS(id, from, to, doc) {#id, PHASE_##from, PHASE_##to, pass_##id, doc},
#include "passes.def"
#undef PASS
};
enum { PASS_COUNT = sizeof passes / sizeof *passes };

static const char *const phase_name[] = {
#define PHASE(id, doc) #id,
#include "phases.def"
#undef PHASE
};

bool passes_has(const char *id) {
    for (int i = 0; i < PASS_COUNT; i++)
        if (strcmp(passes[i].id, id) == 0) return true;
    return false;
}

void passes_list(FILE *out) {
    for (int i = 0; i < PASS_COUNT; i++)
        fprintf(out, "%-10s %9s -> %-9s  %s\n", passes[i].id, phase_name[passes[i].from], phase_name[passes[i].to],
                passes[i].doc);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void dump(const Module *m, const Pass *p, const char *before, const char *after) {
    bool same = before != NULL && strcmp(before, after) == 0;
    fprintf(stderr, "// ---- after %s (%s)%s\n", p->id, phase_name[m->phase], same ? " (unchanged)" : "");
    if (!same) fputs(after, stderr);
}

/* The text must read back to the same text: the dump of any stage can be a test's input. */
static void round_trip(const char *text, Arena *scratch, const Pass *p) {
    Module *again = module_parse(scratch, "<round trip>", text, strlen(text));
    if (again == NULL) diag_bug("the text printed after %s does not parse", p->id);
    if (strcmp(module_print(again, scratch, (PrintOptions){0}), text) != 0)
        diag_bug("the text printed after %s reads back as another module", p->id);
}

static bool run_one(Module *m, const Pass *p, const PassOptions *opt, PassCtx *ctx) {
    bool dumping =
        opt->dump_after != NULL && (strcmp(opt->dump_after, "all") == 0 || strcmp(opt->dump_after, p->id) == 0);
    Arena *text = arena_new();
    const char *before = dumping ? module_print(m, text, (PrintOptions){0}) : NULL;
    diag_set_phase(p->id);
    if (m->phase != p->from)
        diag_bug("%s starts at %s, the module is %s", p->id, phase_name[p->from], phase_name[m->phase]);
    double start = now();
    p->run(m, ctx);
    double seconds = now() - start;
    bool ok = diag_errors() == 0;
    if (ok) {
        m->phase = p->to;
        const char *broken = module_verify(m, ctx->scratch);
        if (dumping || opt->verify_each) {
            const char *after = module_print(m, text, (PrintOptions){0});
            if (dumping) dump(m, p, before, after);
            if (opt->verify_each && broken == NULL) round_trip(after, ctx->scratch, p);
        }
        if (broken != NULL) diag_bug("after %s: %s", p->id, broken);
    }
    if (opt->time_passes) fprintf(stderr, "%-10s %8.2f ms\n", p->id, seconds * 1e3);
    arena_reset(ctx->scratch);
    arena_free(text);
    return ok;
}

static const Pass *find_pass(const char *id) {
    for (int i = 0; i < PASS_COUNT && id != NULL; i++)
        if (strcmp(passes[i].id, id) == 0) return &passes[i];
    return NULL;
}

/* A stage that was read may be before or behind what the options name. */
static bool check_phase(const Module *m, const char *option, const char *id, Phase need) {
    if (id == NULL || m->phase == need) return true;
    diag_error((Loc){0}, "%s=%s needs a module at %s; this one is %s", option, id, phase_name[need],
               phase_name[m->phase]);
    return false;
}

bool passes_run(Module *m, const char *start_at, const PassOptions *opt, const Topology *topo,
                void (*after_each)(Module *, const char *, void *), void *data) {
    const Pass *first = find_pass(start_at), *last = find_pass(opt->stop_after);
    if (first != NULL && !check_phase(m, "--start-at", start_at, first->from)) return false;
    PassCtx ctx = {arena_new(), opt, topo};
    bool started = start_at == NULL, ok = true;
    for (int i = 0; i < PASS_COUNT && ok; i++) {
        const Pass *p = &passes[i];
        /* Without a start, the pipeline begins at the first row that takes the module's phase. */
        if (start_at != NULL && !started) started = strcmp(start_at, p->id) == 0;
        if (!started || p->from < m->phase) continue;
        ok = run_one(m, p, opt, &ctx);
        if (ok && after_each != NULL) after_each(m, p->id, data);
        if (opt->stop_after != NULL && strcmp(opt->stop_after, p->id) == 0) break;
    }
    diag_set_phase(NULL);
    arena_free(ctx.scratch);
    return ok && (last == NULL || check_phase(m, "--stop-after", last->id, last->to));
}
