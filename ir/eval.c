/* eval.c: the reference interpreter: what a module means, in any phase.
 *
 * Before LOCAL a function runs on one device that holds everything. From LOCAL on it runs on all devices of the mesh in
 * lock step: every value is one block per device, ops are local, collectives read their peers. In PLANNED values also
 * lie in the arenas that the plan lays out (eval_memory.c). Since types are global in every phase, arguments, results
 * and variables are whole tensors from outside, and runs of any two stages compare directly.
 *
 * Speed is no aim but cost is bounded: element operations and memory are counted, and a run that exceeds the limits
 * ends with a sentence, as does every fault; no input that passes module_verify crashes.
 * Values live in the scope (an arena) of the block that makes them; a region's scope ends with the iteration. */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "eval.h"
#include "random.h"
#include "support/intern.h"

#define WORK_LIMIT ((int64_t)1 << 36)
#define CELL_LIMIT ((int64_t)1 << 27) /* 1 GiB */

/* ---- limits and memory --------------------------------------------------------------------------------------------
 */

void eval_fail(Eval *e, const char *fmt, ...) {
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    e->error = e->now == NULL
                   ? arena_strdup(e->caller, text)
                   : arena_printf(e->caller, "%s: %s: %s", diag_where(e->now->loc), op_info[e->now->op].name, text);
    longjmp(e->fail, 1);
}

void eval_spend(Eval *e, double operations) {
    if (operations > (double)e->work) eval_fail(e, "the interpreter's limit of element operations is exceeded");
    e->work -= (int64_t)operations;
}

void *eval_alloc(Eval *e, size_t bytes) {
    e->cells += (int64_t)(bytes / sizeof(double)) + 1;
    if (e->cells > CELL_LIMIT) eval_fail(e, "the interpreter's limit of memory is exceeded");
    return arena_alloc(e->scope[e->depth].arena, bytes);
}

double *eval_cells(Eval *e, int64_t n) {
    if (n > CELL_LIMIT) eval_fail(e, "the interpreter's limit of memory is exceeded");
    return eval_alloc(e, sizeof(double) * (size_t)n);
}

static void scope_open(Eval *e) {
    if (e->depth == MAX_NESTING + 1) eval_fail(e, "regions nest more than %d deep", MAX_NESTING);
    e->scope[++e->depth] = (EvalScope){arena_new(), e->cells};
}

static void scope_close(Eval *e) {
    arena_free(e->scope[e->depth].arena);
    e->cells = e->scope[e->depth--].cells;
}

Type local_type(const Eval *e, const Type *t) {
    Type local = type_unsharded(t);
    for (int i = 0; e->spread && i < t->rank; i++) local.dim[i].size = dim_local(&e->m->mesh, &t->dim[i]);
    return local;
}

static Slot *slot_bare(Eval *e, const Type *t) {
    Slot *s = eval_alloc(e, sizeof *s);
    s->local = local_type(e, t);
    s->at = eval_alloc(e, sizeof *s->at * (size_t)e->devices);
    return s;
}

Slot *slot_new(Eval *e, const Type *t) {
    Slot *s = slot_bare(e, t);
    for (int64_t d = 0; d < e->devices; d++) s->at[d] = eval_cells(e, type_elements(&s->local));
    return s;
}

Tensor tensor_new(Arena *a, const Type *t) {
    Tensor x = {type_unsharded(t), NULL};
    x.at = NEW_ARRAY(a, double, type_elements(t));
    return x;
}

/* ---- rounding -----------------------------------------------------------------------------------------------------
 */

/* To a significand of `bits` bits, ties to even; from 2^top on it is infinite. */
static double round_to(double x, int bits, int least, int top) {
    if (x == 0 || !isfinite(x)) return x;
    int exponent;
    (void)frexp(x, &exponent);
    exponent = exponent - 1 < least ? least : exponent - 1;
    double unit = ldexp(1, exponent - bits + 1), y = nearbyint(x / unit) * unit;
    return fabs(y) < ldexp(1, top) ? y : copysign((double)INFINITY, x);
}

double eval_round(const Eval *e, DType t, double x) {
    if (t == DT_i32) return fabs(x) < 0x1p62 ? (double)(int32_t)(uint32_t)(int64_t)x : 0;
    if (t == DT_bool) return x != 0;
    if (e->opt->f64) return x;
    if (t == DT_f32) return (double)(float)x;
    return t == DT_bf16 ? round_to((double)(float)x, 8, -126, 128) : round_to((double)(float)x, 11, -14, 16);
}

/* ---- regions ------------------------------------------------------------------------------------------------------
 */

static void run_block(Eval *e, Frame *f, Slot *const *args, Slot **results);

static void copy_slot(const Eval *e, const Slot *to, const Slot *from) {
    for (int64_t d = 0; d < e->devices; d++)
        memcpy(to->at[d], from->at[d], sizeof(double) * (size_t)type_elements(&to->local));
}

/* Index `it` of the first axis, without a copy. */
static Slot *slice_of(Eval *e, const Slot *x, const Type *slice, int64_t it) {
    Slot *s = slot_bare(e, slice);
    int64_t n = type_elements(&s->local);
    if (n * x->local.dim[0].size != type_elements(&x->local)) eval_fail(e, "a slice of another size");
    for (int64_t d = 0; d < e->devices; d++) s->at[d] = x->at[d] + it * n;
    s->moved = x->moved + it * n * dtype_bytes(slice->dtype);
    return s;
}

/* Arguments: iteration, slices, carried (copies, since the results overwrite them), invariant. */
static Slot **loop_args(Eval *e, const Inst *loop, Slot *const *in, Slot *const *out, int64_t it) {
    const Block *body = loop->body;
    int64_t xs = loop->at.xs, carry = loop->at.carry;
    Slot **args = eval_alloc(e, sizeof *args * (size_t)body->args.n);
    args[0] = slot_new(e, &body->args.at[0]->type);
    for (int64_t d = 0; d < e->devices; d++) args[0]->at[d][0] = (double)it;
    for (int k = 0; k < loop->nin; k++) {
        const Type *t = &body->args.at[k + 1]->type;
        if (k < xs)
            args[k + 1] = slice_of(e, in[k], t, it);
        else if (k >= xs + carry)
            args[k + 1] = in[k];
        else
            copy_slot(e, args[k + 1] = slot_new(e, t), out[k - xs]);
    }
    return args;
}

/* Carried results are the next iteration's arguments; the others are slices of the stacks. */
static void loop_results(Eval *e, const Inst *loop, Slot *const *results, Slot *const *out, int64_t it) {
    const Block *body = loop->body;
    for (int k = 0; k < loop->nout; k++) memory_check(e, body->results.at[k], results[k]);
    for (int k = (int)loop->at.carry; k < loop->nout; k++) {
        Slot *slice = slice_of(e, out[k], &body->results.at[k]->type, it);
        copy_slot(e, slice, results[k]);
        memory_store_at(e, loop->out[k]->offset + slice->moved, slice);
    }
    for (int k = 0; k < loop->at.carry; k++) {
        memory_check(e, body->results.at[k], results[k]);
        copy_slot(e, out[k], results[k]);
        memory_store(e, loop->out[k], out[k]);
    }
}

static void run_loop(Eval *e, const Frame *up, const Inst *loop, Slot *const *in, Slot *const *out) {
    for (int k = 0; k < loop->at.carry; k++) {
        copy_slot(e, out[k], in[loop->at.xs + k]);
        memory_store(e, loop->out[k], out[k]);
    }
    for (int64_t i = 0; i < loop->at.trip; i++) {
        int64_t it = loop->at.reverse ? loop->at.trip - 1 - i : i;
        scope_open(e);
        eval_spend(e, 1);
        Slot **args = loop_args(e, loop, in, out, it);
        Slot **results = eval_alloc(e, sizeof *results * (size_t)loop->body->results.n);
        Frame f = {.b = loop->body, .up = up, .out = out, .iteration = it};
        run_block(e, &f, args, results);
        e->now = loop;
        loop_results(e, loop, results, out, it);
        scope_close(e);
    }
}

static void run_fused(Eval *e, const Frame *up, const Inst *fused, Slot *const *in, Slot *const *out) {
    scope_open(e);
    Slot **results = eval_alloc(e, sizeof *results * (size_t)fused->nout);
    Frame f = {.b = fused->body, .up = up};
    run_block(e, &f, in, results);
    for (int k = 0; k < fused->nout; k++) copy_slot(e, out[k], results[k]);
    scope_close(e);
}

/* ---- blocks -------------------------------------------------------------------------------------------------------
 */

static EvalOp *const eval_ops[OP_COUNT] = {
#define RUN_elem(id) eval_elem
#define RUN_reduce(id) eval_##id
#define RUN_gemm(id) eval_##id
#define RUN_move(id) eval_##id
#define RUN_coll(id) eval_##id
#define RUN_call(id) eval_##id
#define RUN_none(id) eval_##id
#define RUN_ctrl(id) NULL
#define OP(id, in, attrs, phases, shape, rule, grad, emit, expr, doc) [OP_##id] = RUN_##emit(id),
#include "ops.def"
#undef OP
};

static void run_inst(Eval *e, const Frame *f, const Inst *inst) {
    Slot **in = eval_alloc(e, sizeof *in * (size_t)inst->nin), **out = eval_alloc(e, sizeof *out * (size_t)inst->nout);
    e->now = inst;
    for (int k = 0; k < inst->nin; k++) {
        in[k] = f->slot[inst->in[k]->id];
        memory_check(e, inst->in[k], in[k]);
    }
    for (int k = 0; k < inst->nout; k++) {
        out[k] = f->slot[inst->out[k]->id] = slot_new(e, &inst->out[k]->type);
        out[k]->moved = memory_moved(e, f, inst->out[k]);
    }
    memory_check_apart(e, f, inst);
    if (inst->op == OP_loop) {
        run_loop(e, f, inst, in, out);
        return;
    }
    if (inst->op == OP_fused)
        run_fused(e, f, inst, in, out);
    else
        for (int64_t d = 0; d < e->devices; d++) eval_ops[inst->op](&(Call){e, inst, d, in, out});
    for (int k = 0; k < inst->nout; k++) memory_store(e, inst->out[k], out[k]);
    if (inst->op == OP_write) memory_store_at(e, inst->at.var->offset, in[0]);
}

/* Values are numbered in Value.id, which is scratch. */
static int number_values(const Block *b) {
    int n = 0;
    for (int k = 0; k < b->args.n; k++) b->args.at[k]->id = n++;
    for (const Inst *i = b->first; i != NULL; i = i->next)
        for (int k = 0; k < i->nout; k++) i->out[k]->id = n++;
    return n;
}

/* Runs in the current scope; the results are valid while it is open. */
static void run_block(Eval *e, Frame *f, Slot *const *args, Slot **results) {
    const Block *b = f->b;
    f->slot = eval_alloc(e, sizeof *f->slot * (size_t)number_values(b));
    for (int k = 0; k < b->args.n; k++) f->slot[b->args.at[k]->id] = args[k];
    for (const Inst *i = b->first; i != NULL; i = i->next) run_inst(e, f, i);
    for (int k = 0; k < b->results.n; k++) results[k] = f->slot[b->results.at[k]->id];
}

/* ---- functions and variables --------------------------------------------------------------------------------------
 */

static Slot *argument(Eval *e, const Value *v, const Tensor *given) {
    if (!type_same_shape(&v->type, &given->type))
        eval_fail(e, "argument %d is %s and is given %s", v->index + 1, type_print(&v->type, &e->m->mesh, e->caller),
                  type_print(&given->type, &e->m->mesh, e->caller));
    Slot *s = slot_new(e, &v->type);
    for (int64_t d = 0; d < e->devices; d++) {
        shard_split(e, &v->type, given->at, d, s->at[d]);
        for (int64_t i = 0; i < type_elements(&s->local); i++) s->at[d][i] = eval_round(e, v->type.dtype, s->at[d][i]);
    }
    memory_store(e, v, s);
    return s;
}

static Tensor *run_func(Eval *e, const Func *f, const Tensor *args) {
    const Block *b = f->body;
    if (e->state->var == NULL && e->m->vars.n > 0) eval_fail(e, "the variables exceed the interpreter's memory");
    if (e->devices > CELL_LIMIT) eval_fail(e, "the mesh has too many devices to interpret");
    e->written = eval_alloc(e, sizeof *e->written * (size_t)e->m->vars.n);
    memory_open(e, f);
    Slot **in = eval_alloc(e, sizeof *in * (size_t)b->args.n),
         **out = eval_alloc(e, sizeof *out * (size_t)b->results.n);
    for (int k = 0; k < b->args.n; k++) in[k] = argument(e, b->args.at[k], &args[k]);
    Frame frame = {.b = b};
    run_block(e, &frame, in, out);
    e->now = NULL;
    Tensor *results = NEW_ARRAY(e->caller, Tensor, b->results.n + 1);
    for (int k = 0; k < b->results.n; k++) {
        const Value *v = b->results.at[k];
        memory_check(e, v, out[k]);
        results[k] = tensor_new(e->caller, &v->type);
        memcpy(results[k].at, shard_join(e, &v->type, out[k]->at), sizeof(double) * (size_t)type_elements(&v->type));
    }
    memory_close(e);
    for (int i = 0; i < e->m->vars.n; i++)
        if (e->written[i].at != NULL)
            memcpy(e->state->var[i].at, e->written[i].at, sizeof(double) * (size_t)type_elements(&e->written[i].type));
    return results;
}

Tensor *eval_func(const Module *m, const Func *f, const Tensor *args, EvalState *state, const EvalOptions *opt,
                  Arena *a, const char **error) {
    Eval *e = NEW(a, Eval); /* no local variable: it changes between setjmp and longjmp */
    *e = (Eval){.m = m, .opt = opt, .state = state, .caller = a, .depth = -1};
    e->spread = m->phase >= PHASE_LOCAL;
    e->devices = e->spread ? mesh_devices(&m->mesh) : 1;
    e->work = opt->limit > 0 ? opt->limit : WORK_LIMIT;
    for (int i = 0; i < m->vars.n; i++) m->vars.at[i]->id = i;
    Tensor *volatile results = NULL;
    if (setjmp(e->fail) == 0) {
        scope_open(e);
        results = run_func(e, f, args);
    } else {
        *error = e->error;
    }
    while (e->depth >= 0) scope_close(e);
    return results;
}

/* ---- initial values -----------------------------------------------------------------------------------------------
 */

static double initial(const VarInit *init, const Draw *draw, uint64_t index) {
    if (init->kind == intern("normal")) return init->value * random_normal(draw, index);
    if (init->kind == intern("uniform")) return init->value * (2 * random_uniform(draw, index) - 1);
    return init->value;
}

/* Drawn by each slice's own path, so stacking changes no value. */
static void fill_var(const Eval *e, const Var *v, double *at) {
    int64_t n = type_elements(&v->type), slices = v->stacked ? v->type.dim[0].size : 1;
    for (int64_t s = 0; s < slices; s++) {
        Draw draw = random_init((uint32_t)e->opt->seed, var_slice_path(v, v->path, s, e->caller));
        for (int64_t i = 0; i < n / slices; i++)
            at[s * (n / slices) + i] = eval_round(e, v->type.dtype, initial(&v->init, &draw, (uint64_t)i));
    }
}

EvalState eval_init(const Module *m, Arena *a, const EvalOptions *opt) {
    Eval e = {.m = m, .opt = opt, .caller = a};
    EvalState state = {NULL, m->vars.n};
    int64_t cells = 0;
    for (int i = 0; i < m->vars.n; i++) {
        cells += type_elements(&m->vars.at[i]->type);
        if (cells > CELL_LIMIT) return state;
    }
    state.var = NEW_ARRAY(a, Tensor, m->vars.n + 1);
    for (int i = 0; i < m->vars.n; i++) {
        state.var[i] = tensor_new(a, &m->vars.at[i]->type);
        fill_var(&e, m->vars.at[i], state.var[i].at);
    }
    return state;
}
