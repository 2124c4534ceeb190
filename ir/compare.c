/* compare.c: runs every function of a stage in the interpreter and compares with the first stage that could be run.
 *
 * Inputs are drawn by name: an argument by its function and number, a variable by its path. Results compare by their
 * largest difference relative to the largest magnitude of the whole result, since a reassociated sum moves elements
 * near zero by the error of the large ones; numbers that are not finite must be the same. */
#include "compare.h"

#include <math.h>
#include <string.h>

#include "random.h"
#include "support/intern.h"

typedef struct Record {
    const char *name; /* of the function */
    FuncKind kind;
    VEC(Tensor) results; /* of all calls, one after the other */
    VEC(Tensor) vars;    /* after the last call */
    VEC(const char *) paths;
} Record;

struct Compare {
    Arena *arena;
    CompareOptions opt;
    VEC(Record *) records;
};

/* ERROR_GROWTH: an optimizer divides a gradient by its own size, so what a call rounds off is that much larger in the
 * next one. */
enum { DEFAULT_INDICES = 16, DEFAULT_CALLS = 2, ERROR_GROWTH = 1000 };

Compare *compare_new(Arena *a, const CompareOptions *opt) {
    Compare *c = NEW(a, Compare);
    c->arena = a;
    c->opt = *opt;
    if (c->opt.indices <= 0) c->opt.indices = DEFAULT_INDICES;
    if (c->opt.calls <= 0) c->opt.calls = DEFAULT_CALLS;
    return c;
}

/* ---- inputs -------------------------------------------------------------------------------------------------------
 */

static double sample(const Compare *c, const Draw *d, DType t, int64_t i) {
    double u = random_uniform(d, (uint64_t)i);
    if (t == DT_i32) return floor(u * (double)c->opt.indices);
    if (t == DT_bool) return u < 0.5;
    if (c->opt.inputs == COMPARE_integers) return floor(u * 5) - 2;
    if (c->opt.inputs == COMPARE_eighths) return (floor(u * 17) - 8) / 8;
    return random_normal(d, (uint64_t)i);
}

static void fill(const Compare *c, const char *name, Tensor *t) {
    Draw d = random_init((uint32_t)c->opt.eval.seed, name);
    for (int64_t i = 0; i < type_elements(&t->type); i++) t->at[i] = sample(c, &d, t->type.dtype, i);
}

static Tensor *arguments(const Compare *c, const Func *f, Arena *a) {
    Tensor *args = NEW_ARRAY(a, Tensor, f->body->args.n + 1);
    for (int k = 0; k < f->body->args.n; k++) {
        args[k] = tensor_new(a, &f->body->args.at[k]->type);
        fill(c, arena_printf(a, "argument %d of %s", k, f->name), &args[k]);
    }
    return args;
}

static EvalState variables(const Compare *c, const Module *m, Arena *a) {
    EvalState s = eval_init(m, a, &c->opt.eval);
    for (int i = 0; c->opt.inputs != COMPARE_normal && s.var != NULL && i < s.n; i++)
        if (m->vars.at[i]->type.dtype != DT_i32 && strcmp(m->vars.at[i]->init.kind, "const") != 0)
            fill(c, m->vars.at[i]->path, &s.var[i]);
    return s;
}

/* ---- one function -------------------------------------------------------------------------------------------------
 */

static void count_op(Inst *inst, void *ctx) {
    int *counts = ctx;
    counts[inst->op]++;
}

/* The results of all calls and the variables after them; a sentence when a call fails. */
static const char *run(const Compare *c, const Module *m, const Func *f, int calls, Arena *a, Record *to) {
    EvalOptions opt = c->opt.eval;
    EvalState state = variables(c, m, a);
    const Tensor *args = arguments(c, f, a);
    for (int call = 0; call < calls; call++, opt.step++) {
        const char *error = NULL;
        const Tensor *results = eval_func(m, f, args, &state, &opt, a, &error);
        if (results == NULL) return arena_printf(c->arena, "%s: %s", f->name, error);
        for (int k = 0; k < f->body->results.n; k++) vec_push(a, to->results, results[k]);
    }
    for (int i = 0; i < state.n; i++) {
        vec_push(a, to->vars, state.var[i]);
        vec_push(a, to->paths, m->vars.at[i]->path);
    }
    return NULL;
}

static Record *record_find(const Compare *c, const Func *f) {
    for (int i = 0; i < c->records.n; i++)
        if (c->records.at[i]->kind == f->kind && strcmp(c->records.at[i]->name, f->name) == 0) return c->records.at[i];
    return NULL;
}

/* ---- differences --------------------------------------------------------------------------------------------------
 */

/* `call`: how many calls came before. */
static const char *compare_tensor(const Compare *c, const char *what, int call, const Tensor *was, const Tensor *is) {
    if (!type_same_shape(&was->type, &is->type)) return arena_printf(c->arena, "%s has another type", what);
    double largest = 0, worst = -1;
    int64_t at = 0, n = type_elements(&was->type);
    for (int64_t i = 0; i < n; i++)
        if (isfinite(was->at[i])) largest = fmax(largest, fabs(was->at[i]));
    for (int64_t i = 0; i < n; i++) {
        double x = was->at[i], y = is->at[i], gap = fabs(x - y);
        if (x == y || (isnan(x) && isnan(y))) continue;
        if (isnan(gap)) gap = (double)INFINITY;
        if (gap > worst) worst = gap, at = i;
    }
    if (worst <= c->opt.tolerance * pow(ERROR_GROWTH, call) * largest) return NULL;
    return arena_printf(c->arena,
                        "%s differs: element %lld is %.17g and was %.17g, off by %.3g where the largest value is %.3g",
                        what, (long long)at, is->at[at], was->at[at], worst, largest);
}

static const char *compare_records(const Compare *c, const Func *f, const Record *was, const Record *is) {
    if (was->results.n != is->results.n) return arena_printf(c->arena, "%s: another number of results", f->name);
    int n = f->body->results.n;
    for (int k = 0; k < is->results.n; k++) {
        const char *what =
            arena_printf(c->arena, "%s: call %d: result '%s'", f->name, 1 + k / n, f->result_names.at[k % n]);
        const char *wrong = compare_tensor(c, what, k / n, &was->results.at[k], &is->results.at[k]);
        if (wrong != NULL) return wrong;
    }
    for (int i = 0; i < is->vars.n; i++)
        for (int k = 0; k < was->vars.n; k++) {
            if (strcmp(was->paths.at[k], is->paths.at[i]) != 0) continue;
            const char *what = arena_printf(c->arena, "%s: variable '%s'", f->name, is->paths.at[i]);
            const char *wrong = compare_tensor(c, what, c->opt.calls - 1, &was->vars.at[k], &is->vars.at[i]);
            if (wrong != NULL) return wrong;
        }
    return NULL;
}

static const char *compare_func(Compare *c, const Module *m, const Func *f) {
    int counts[OP_COUNT] = {0};
    block_walk(f->body, count_op, counts);
    if (counts[OP_grad] > 0) return NULL;
    int calls = counts[OP_write] > 0 ? c->opt.calls : 1;
    Record *was = record_find(c, f);
    if (was == NULL) {
        Record *first = NEW(c->arena, Record);
        first->name = intern(f->name);
        first->kind = f->kind;
        const char *wrong = run(c, m, f, calls, c->arena, first);
        if (wrong == NULL) vec_push(c->arena, c->records, first);
        return wrong;
    }
    Arena *scratch = arena_new();
    Record now = {0};
    const char *wrong = run(c, m, f, calls, scratch, &now);
    if (wrong == NULL) wrong = compare_records(c, f, was, &now);
    arena_free(scratch);
    return wrong;
}

const char *compare_stage(Compare *c, const Module *m) {
    for (int i = 0; i < m->funcs.n; i++) {
        const char *wrong = compare_func(c, m, m->funcs.at[i]);
        if (wrong != NULL) return wrong;
    }
    return NULL;
}
