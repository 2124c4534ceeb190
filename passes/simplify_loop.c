/* simplify_loop.c: what `simplify` does to loops.
 *
 *   enter   constants and index vectors are made inside the body instead of being passed; one value passed twice is
 * passed once; a carried value that no trip changes becomes an invariant operand. leave   a ys that repeats another
 * one, or an xs, is that one; code motion: what depends on invariants only is computed once before the loop, when it
 * costs more than element-wise work, or when the result is no larger than what it is computed from (so no memory is
 * spent to save a comparison: a causal mask stays inside, a cast of a weight goes out, and so does the sine of a rotary
 * table). prune   drops what dead-code elimination left without a use.
 *
 * Before and after: a loop of ANNOTATED form; old results keep their types. A loop runs at least once, so code that
 * moves out of it runs no more often than before. Cost: linear in the body. */
#include "simplify.h"

static int loop_xs(const Inst *loop) {
    return (int)loop->at.xs;
}
static int loop_carried(const Inst *loop) {
    return (int)loop->at.carry;
}
static Value *body_arg(const Inst *loop, int operand) {
    return loop->body->args.at[1 + operand];
}

/* A copy of `inst` on other operands, inserted by the builder, with the wishes of the original. */
static Inst *copy_inst(Builder *b, const Inst *inst, Value *const *in) {
    Inst *copy = build_inst(b, inst->op, inst->nin, in, &inst->at, NULL);
    for (int k = 0; k < copy->nout; k++) {
        copy->out[k]->name = inst->out[k]->name;
        for (int a = 0; a < copy->out[k]->type.rank; a++) copy->out[k]->type.dim[a] = inst->out[k]->type.dim[a];
    }
    return copy;
}

/* Appends an invariant operand; returns its argument in the body. */
static Value *add_invariant(Simplify *s, Inst *loop, Value *operand) {
    Value **in = NEW_ARRAY(s->b.m->arena, Value *, loop->nin + 1);
    for (int k = 0; k < loop->nin; k++) in[k] = loop->in[k];
    in[loop->nin++] = operand;
    loop->in = in;
    Type t = type_unsharded(&operand->type);
    return block_arg(s->b.m, loop->body, &t, operand->name);
}

/* ---- enter ---- */

static void copy_sources_in(Simplify *s, Inst *loop) {
    Builder inside = {.m = s->b.m, .block = loop->body, .before = loop->body->first, .loc = loop->loc};
    for (int k = loop_xs(loop) + loop_carried(loop); k < loop->nin; k++) {
        const Inst *def = loop->in[k]->def;
        if (def == NULL || (def->op != OP_const && def->op != OP_iota)) continue;
        inside.loc = def->loc;
        simplify_replace(s, body_arg(loop, k), copy_inst(&inside, def, NULL)->out[0]);
    }
}

static void merge_operands(Simplify *s, Inst *loop, int from, int to) {
    for (int k = from; k < to; k++)
        for (int j = from; j < k; j++)
            if (loop->in[j] == loop->in[k]) {
                simplify_replace(s, body_arg(loop, k), body_arg(loop, j));
                break;
            }
}

static void free_unchanged(Simplify *s, Inst *loop) {
    for (int k = 0; k < loop_carried(loop); k++) {
        Value *arg = body_arg(loop, loop_xs(loop) + k), *first = loop->in[loop_xs(loop) + k];
        if (simplify_resolve(s, loop->body->results.at[k]) != arg || loop->nin == MAX_OPERANDS) continue;
        simplify_replace(s, arg, add_invariant(s, loop, first));
        simplify_replace(s, loop->out[k], first);
    }
}

void simplify_loop_enter(Simplify *s, Inst *loop) {
    copy_sources_in(s, loop);
    merge_operands(s, loop, 0, loop_xs(loop));
    merge_operands(s, loop, loop_xs(loop) + loop_carried(loop), loop->nin);
    free_unchanged(s, loop);
}

/* ---- leave ---- */

static void merge_results(Simplify *s, Inst *loop) {
    for (int k = loop_carried(loop); k < loop->nout; k++) {
        const Value *y = loop->body->results.at[k];
        Value *same = NULL;
        for (int j = 0; j < loop_xs(loop) && same == NULL; j++)
            if (body_arg(loop, j) == y) same = loop->in[j];
        for (int j = loop_carried(loop); j < k && same == NULL; j++)
            if (loop->body->results.at[j] == y) same = loop->out[j];
        if (same != NULL && simplify_slot(s, loop->out[k])->to == NULL) simplify_replace(s, loop->out[k], same);
    }
}

static bool is_costly(Op op) {
    static const bool costly[OP_COUNT] = {
        [OP_pow] = true, [OP_exp] = true, [OP_log] = true,  [OP_log1p] = true,   [OP_sqrt] = true, [OP_rsqrt] = true,
        [OP_sin] = true, [OP_cos] = true, [OP_tanh] = true, [OP_sigmoid] = true, [OP_erf] = true,
    };
    EmitKind emit = op_info[op].emit;
    return costly[op] || emit == EMIT_gemm || emit == EMIT_reduce || emit == EMIT_call;
}

static void set_base(Simplify *s, Value *v, int64_t base) {
    SimpleSlot *slot = simplify_slot(s, v);
    slot->base = base;
    slot->outside = NULL;
}

/* The largest invariant that an instruction is computed from; -1 when it must stay. */
static int64_t base_of(Simplify *s, const Inst *inst) {
    int64_t base = 0;
    if (inst->body != NULL || inst->nout == 0) return -1;
    for (int k = 0; k < inst->nin; k++) {
        int64_t b = simplify_slot(s, inst->in[k])->base;
        if (b < 0) return -1;
        if (b > base) base = b;
    }
    return base;
}

/* Whether to compute it once and keep it. An annotation alone is no work. */
static bool is_worth_moving(const Inst *inst, int64_t base) {
    if (base < 0 || inst->nin == 0 || op_info[inst->op].emit == EMIT_none) return false;
    return is_costly(inst->op) || type_elements(&inst->out[0]->type) <= base;
}

/* Gives every value of the body its base; true when something is worth moving. A body that a `grad` differentiates
 * keeps its instructions: the gradient is taken through those of its own block. */
static bool find_invariants(Simplify *s, const Inst *loop) {
    bool any = false;
    for (const Inst *i = loop->body->first; i != NULL; i = i->next)
        if (i->op == OP_grad) return false;
    for (int k = 0; k < loop->body->args.n; k++) {
        Value *arg = loop->body->args.at[k];
        bool invariant = k > loop_xs(loop) + loop_carried(loop);
        set_base(s, arg, invariant ? type_elements(&arg->type) : -1);
        if (invariant) simplify_slot(s, arg)->outside = loop->in[k - 1];
    }
    for (const Inst *i = loop->body->first; i != NULL; i = i->next) {
        int64_t base = base_of(s, i);
        bool moves = is_worth_moving(i, base);
        for (int k = 0; k < i->nout; k++) set_base(s, i->out[k], moves ? type_elements(&i->out[k]->type) : base);
        any = any || moves;
    }
    return any;
}

/* Everything invariant is computed before the loop, in order; what that was not worth it for, nothing uses there, and
 * dead-code elimination takes it away again. */
static void move_out(Simplify *s, Inst *loop) {
    Builder before = {.m = s->b.m, .block = loop->parent, .before = loop};
    for (Inst *i = loop->body->first, *next; i != NULL; i = next) {
        next = i->next;
        int64_t base = base_of(s, i);
        if (base < 0) continue;
        Value **in = NEW_ARRAY(s->scratch, Value *, i->nin);
        for (int k = 0; k < i->nin; k++) in[k] = simplify_slot(s, i->in[k])->outside;
        before.loc = i->loc;
        Inst *outside = copy_inst(&before, i, in);
        bool moves = is_worth_moving(i, base) && loop->nin <= MAX_OPERANDS - i->nout;
        for (int k = 0; k < i->nout; k++) {
            simplify_slot(s, i->out[k])->outside = outside->out[k];
            if (moves) simplify_replace(s, i->out[k], add_invariant(s, loop, outside->out[k]));
        }
    }
    /* The walk over the body is over: rewrite it here, so that what moved is without a use. */
    for (Inst *i = loop->body->first; i != NULL; i = i->next)
        for (int k = 0; k < i->nin; k++) i->in[k] = simplify_resolve(s, i->in[k]);
    for (int k = 0; k < loop->body->results.n; k++)
        loop->body->results.at[k] = simplify_resolve(s, loop->body->results.at[k]);
}

void simplify_loop_leave(Simplify *s, Inst *loop) {
    merge_results(s, loop);
    if (find_invariants(s, loop)) move_out(s, loop);
}

/* ---- prune ---- */

void simplify_loop_prune(Simplify *s, Inst *loop) {
    Block *body = loop->body;
    int nx = loop_xs(loop), nc = loop_carried(loop), nin = 0, nout = 0, args = 1, xs = 0, carried = 0;
    for (int k = 0; k < loop->nin; k++) {
        Value *arg = body_arg(loop, k);
        bool kept = simplify_slot(s, arg)->live;
        if (k >= nx && k < nx + nc) {
            kept = kept || simplify_slot(s, loop->out[k - nx])->live;
            /* Results that stay move up; the k-th carried is read before it can be overwritten. */
            if (kept) {
                body->results.at[nout] = body->results.at[k - nx];
                loop->out[nout] = loop->out[k - nx];
                loop->out[nout]->index = nout;
                nout++;
                carried++;
            } else {
                loop->out[k - nx]->index = -1;
            }
        }
        if (!kept) continue;
        xs += k < nx;
        loop->in[nin++] = loop->in[k];
        arg->index = args;
        body->args.at[args++] = arg;
    }
    for (int k = nc; k < loop->nout; k++) {
        if (!simplify_slot(s, loop->out[k])->live) continue;
        body->results.at[nout] = body->results.at[k];
        loop->out[nout] = loop->out[k];
        loop->out[nout]->index = nout;
        nout++;
    }
    s->changed = s->changed || nin != loop->nin || nout != loop->nout;
    loop->nin = nin;
    loop->nout = nout;
    loop->at.xs = xs;
    loop->at.carry = carried;
    body->args.n = args;
    body->results.n = nout;
}
