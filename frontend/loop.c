/* loop.c: `for` over a range known when compiling becomes one `loop`, its body lowered once.
 *
 * Where a static `if` differs by iteration, the range is cut in segments: a run that repeats with a period of up to
 * MAX_PERIOD becomes a loop whose body holds one period; what is left stands alone, unrolled. The conditions are not
 * known beforehand: the body is lowered, a condition that differs is noted, the attempt is undone and made again with
 * a finer cut, until no new one appears. Each attempt distinguishes more iterations, so this ends. All functions of a
 * module cut a loop alike, or they could not share its stacked parameters.
 *
 * A name that the body assigns and that was bound before is carried. Its type must not change from one iteration to
 * the next; a number before the loop has the type that one iteration makes of it, found by undoing an attempt in the
 * same way.
 *
 * Cost: attempts x body, independent of the number of iterations but for what stands alone. */
#include <string.h>

#include "lower.h"
#include "support/intern.h"

enum { MAX_ATTEMPTS = 64, MAX_ALONE = 256 };

/* The type that a carried name must have, once known. */
typedef struct CarryType {
    const char *name;
    int64_t first; /* segment */
    Type type;
} CarryType;

typedef struct Segment {
    int64_t first, period, trip; /* trip 1: alone */
} Segment;

typedef struct Loop {
    const Ast *node;
    int64_t from, n;
    Plan *plan;
    NameList assigned;
    VEC(CarryType) types;
    OrdinalList start, most; /* random draws before the loop; and after the iteration that has most */
    int alone;
    bool again; /* a type was found: the attempt is void */
} Loop;

typedef struct Carry {
    const char *name;
    Val before;
    Value *init, *arg, *result;
} Carry;
typedef VEC(Carry) CarryList;

/* ---- values in frames -------------------------------------------------------------------------------------------- */

Value *frame_import(Lower *lo, Frame *f, Value *v) {
    if (f == NULL || v == NULL || v->block == f->body) return v;
    v = frame_import(lo, f->outer, v);
    for (int i = 0; i < f->captured.n; i++)
        if (f->captured.at[i].outer == v) return f->captured.at[i].arg;
    Value *arg = block_arg(lo->m, f->body, &v->type, v->name);
    vec_push(lo->a, f->captured, ((Capture){v, arg}));
    return arg;
}

Value *frame_slice(Lower *lo, Frame *f, Value *stacked) {
    Value *v = frame_import(lo, f->outer, stacked);
    for (int i = 0; i < f->xs.n; i++)
        if (f->xs.at[i].outer == v) return f->xs.at[i].arg;
    Type t = v->type;
    memmove(&t.dim[0], &t.dim[1], sizeof(Dim) * (size_t)--t.rank);
    Value *arg = block_arg(lo->m, f->body, &t, v->name);
    vec_push(lo->a, f->xs, ((Capture){v, arg}));
    return arg;
}

/* ---- undoing an attempt ------------------------------------------------------------------------------------------ */

typedef struct FrameMark {
    Frame *frame;
    Inst *last;
    int xs, captured, slots, args;
} FrameMark;

typedef struct Mark {
    Inst *last;
    int vars, slots, metrics, frames, defaults, binds, names, labels;
    FrameMark *frame;
    Slot *slot;
    Bind *bind;
    OrdinalList ordinals;
} Mark;

static void ordinals_set(Lower *lo, OrdinalList *to, const OrdinalList *from) {
    to->n = 0;
    for (int i = 0; i < from->n; i++) vec_push(lo->a, *to, from->at[i]);
}

static Mark mark(Lower *lo) {
    Mark k = {.last = lo->func->body->last,
              .vars = lo->m->vars.n,
              .slots = lo->slots.n,
              .metrics = lo->metrics.n,
              .defaults = lo->scope->defaults.n,
              .binds = lo->call->binds.n,
              .names = lo->names.n,
              .labels = lo->labels.n};
    for (Frame *f = lo->frame; f != NULL; f = f->outer) k.frames++;
    k.frame = NEW_ARRAY(lo->a, FrameMark, k.frames + 1);
    int i = 0;
    for (Frame *f = lo->frame; f != NULL; f = f->outer)
        k.frame[i++] = (FrameMark){f, f->body->last, f->xs.n, f->captured.n, f->slots.n, f->body->args.n};
    k.slot = NEW_ARRAY(lo->a, Slot, k.slots + 1);
    for (i = 0; i < k.slots; i++) k.slot[i] = *lo->slots.at[i];
    k.bind = NEW_ARRAY(lo->a, Bind, k.binds + 1);
    for (i = 0; i < k.binds; i++) k.bind[i] = lo->call->binds.at[i];
    ordinals_set(lo, &k.ordinals, &lo->ordinals);
    return k;
}

static void cut_block(Block *b, const Inst *last) {
    while (b->last != last) inst_remove(b->last);
}

static void undo(Lower *lo, const Mark *k) {
    cut_block(lo->func->body, k->last);
    for (int i = 0; i < k->frames; i++) {
        const FrameMark *m = &k->frame[i];
        cut_block(m->frame->body, m->last);
        m->frame->xs.n = m->xs;
        m->frame->captured.n = m->captured;
        m->frame->slots.n = m->slots;
        m->frame->body->args.n = m->args;
    }
    lo->m->vars.n = k->vars;
    lo->slots.n = k->slots;
    lo->metrics.n = k->metrics;
    lo->names.n = k->names;
    lo->labels.n = k->labels;
    lo->scope->defaults.n = k->defaults;
    lo->call->binds.n = k->binds;
    for (int i = 0; i < k->binds; i++) lo->call->binds.at[i] = k->bind[i];
    for (int i = 0; i < k->slots; i++) *lo->slots.at[i] = k->slot[i];
    ordinals_set(lo, &lo->ordinals, &k->ordinals);
}

/* ---- segments ---------------------------------------------------------------------------------------------------- */

static bool alike(const Loop *l, int64_t i, int64_t k) {
    for (int c = 0; c < l->plan->conditions.n; c++)
        if (l->plan->conditions.at[c][i] != l->plan->conditions.at[c][k]) return false;
    return true;
}

/* The longest run from `at` that repeats, by its shortest period. */
static Segment segment_at(const Loop *l, int64_t at) {
    Segment best = {at, 1, 1};
    for (int64_t p = 1; p <= MAX_PERIOD && at + p <= l->n; p++) {
        int64_t end = at + p;
        while (end < l->n && alike(l, end, end - p)) end++;
        int64_t trip = (end - at) / p;
        if (trip > 1 && trip * p > best.trip * best.period) best = (Segment){at, p, trip};
    }
    return best;
}

/* Notes the condition in lo->split, met in iterations first + r + i * period. */
static void note_condition(Lower *lo, Loop *l, const Segment *s, int64_t r) {
    unsigned char *c = NEW_ARRAY(lo->a, unsigned char, l->n);
    memset(c, 2, (size_t)l->n);
    for (int64_t i = 0; i < s->trip; i++) c[s->first + r + i * s->period] = lo->split->at[i] != 0;
    vec_push(lo->a, l->plan->conditions, c);
    lo->split = NULL;
    lo->restart = lo->m->funcs.n > 1;
    l->again = !lo->restart;
}

/* ---- random draws ------------------------------------------------------------------------------------------------ */

/* Draws are numbered alike in each iteration, whose number tells them apart: however the loop is cut, they are the
 * same. What follows the loop goes on after the iteration with most. */
static void ordinals_most(Lower *lo, Loop *l) {
    for (int i = 0; i < lo->ordinals.n; i++) {
        const Ordinal *o = &lo->ordinals.at[i];
        int k = 0;
        while (k < l->most.n && strcmp(l->most.at[k].path, o->path) != 0) k++;
        if (k == l->most.n) vec_push(lo->a, l->most, *o);
        if (l->most.at[k].n < o->n) l->most.at[k].n = o->n;
    }
}

/* ---- one iteration of the source --------------------------------------------------------------------------------- */

static void lower_body(Lower *lo, Loop *l, Val index) {
    LoopVar var = {lo->loop, lo->scope, index, l->from + l->n};
    lo->loop = &var;
    ordinals_set(lo, &lo->ordinals, &l->start);
    call_bind(lo, l->node->name, index, l->node->name_loc);
    stmt_block(lo, l->node->at[FOR_BODY]);
    ordinals_most(lo, l);
    lo->loop = var.outer;
}

/* Forgets the names that the body bound anew. */
static void drop_binds(Lower *lo, int n) {
    lo->call->binds.n = n;
}

static Val varying_index(Lower *lo, const Loop *l, const Segment *s, int64_t r, Frame *f) {
    Varying *v = NEW(lo->a, Varying);
    *v = (Varying){f, NEW_ARRAY(lo->a, double, s->trip)};
    for (int64_t i = 0; i < s->trip; i++) v->at[i] = (double)(l->from + s->first + r + i * s->period);
    return (Val){.kind = VAL_num, .integer = true, .vec = v};
}

/* ---- carried values ---------------------------------------------------------------------------------------------- */

static CarryType *carry_type(Loop *l, const char *name, int64_t first) {
    for (int i = 0; i < l->types.n; i++)
        if (l->types.at[i].name == name && l->types.at[i].first == first) return &l->types.at[i];
    return NULL;
}

static bool is_carried(Val v) {
    return v.kind == VAL_tensor || v.kind == VAL_num || v.kind == VAL_bool;
}

/* The value before the loop, in the type that was found for it. */
static Value *carry_init(Lower *lo, const CarryType *known, Val v, Loc loc) {
    if (known == NULL) return v.t;
    Value *x = val_to_tensor(lo, v, known->type.dtype, loc);
    LabelList order = type_labels(&known->type);
    return x == NULL ? NULL : type_permute(lo, x, &order);
}

/* Finds the carried names. A number whose type is not known yet is left as it is: the attempt shows what it becomes. */
static bool carry_begin(Lower *lo, Loop *l, const Segment *s, CarryList *out) {
    for (int i = 0; i < l->assigned.n; i++) {
        const char *name = l->assigned.at[i];
        Bind *b = call_find(lo->call, name);
        if (b == NULL || b->state != NULL || b->dim || !is_carried(b->val)) continue;
        Carry c = {.name = name, .before = b->val};
        const CarryType *known = carry_type(l, name, s->first);
        if (known != NULL || c.before.kind == VAL_tensor) {
            c.init = frame_import(lo, lo->frame, carry_init(lo, known, c.before, l->node->loc));
            if (c.init == NULL) return false;
        }
        vec_push(lo->a, *out, c);
    }
    return true;
}

static void require_type(Lower *lo, Loop *l, const char *name, int64_t first, const Type *t) {
    CarryType *known = carry_type(l, name, first);
    if (known == NULL) vec_push(lo->a, l->types, ((CarryType){name, first, *t}));
    if (known != NULL) known->type = *t;
    l->again = true;
}

static bool labels_within(const Type *a, const Type *b) {
    for (int i = 0; i < a->rank; i++)
        if (type_find(b, a->dim[i].label) < 0) return false;
    return true;
}

/* What a number became in one iteration. */
static Type number_type(Val before, Val after) {
    if (after.kind == VAL_tensor) return type_unsharded(&after.t->type);
    if (before.kind == VAL_bool && after.kind == VAL_bool) return (Type){.dtype = DT_bool};
    return (Type){.dtype = before.integer && after.integer ? DT_i32 : DT_f32};
}

/* The value after an iteration; asks for another attempt where the type of the carried argument must change. */
static Value *carry_fit(Lower *lo, Loop *l, const Segment *s, const Carry *c, Val v, Loc loc) {
    if (c->arg == NULL) {
        Type t = number_type(c->before, v);
        if (is_carried(v)) require_type(lo, l, c->name, s->first, &t);
        return NULL;
    }
    Type *t = &c->arg->type;
    if (v.kind != VAL_tensor) return val_to_tensor(lo, v, t->dtype, loc);
    Type got = type_unsharded(&v.t->type);
    bool grows = !labels_within(&got, t);
    if (got.dtype != t->dtype)
        fail(lo, loc, "`%s` is %s before the loop and %s after an iteration", c->name, dtype_name(t->dtype),
             dtype_name(got.dtype));
    else if (grows && !labels_within(t, &got))
        fail(lo, loc, "`%s` changes its axes from one iteration to the next: %s", c->name, val_describe(lo, v));
    else if (grows)
        require_type(lo, l, c->name, s->first, &got);
    else
        return v.t;
    return NULL;
}

/* What is no tensor or number before the loop cannot become one in it: an iteration would not see the one before. */
static bool check_kinds(Lower *lo, const Loop *l, int binds, const CarryList *carries) {
    for (int i = 0; i < l->assigned.n; i++) {
        const Bind *b = call_find(lo->call, l->assigned.at[i]);
        bool new = b == NULL || b->state != NULL || b->dim || b >= lo->call->binds.at + binds;
        for (int k = 0; k < carries->n; k++) new = new || carries->at[k].name == l->assigned.at[i];
        if (new || !is_carried(b->val)) continue;
        fail(lo, b->loc, "`%s` has no value before the loop that an iteration could change", b->name);
        note(lo, l->node->loc, "give it a tensor or a number before this loop");
        return false;
    }
    return true;
}

/* Takes what the body left in each carried name. */
static bool carry_end(Lower *lo, Loop *l, const Segment *s, CarryList *carries, int binds) {
    bool ok = check_kinds(lo, l, binds, carries);
    for (int i = 0; i < carries->n; i++) {
        Carry *c = &carries->at[i];
        const Bind *b = call_find(lo->call, c->name);
        Value *v = carry_fit(lo, l, s, c, b->val, b->loc);
        LabelList order = v == NULL ? (LabelList){0} : type_labels(&c->arg->type);
        if (v != NULL && v != c->arg) v = type_permute(lo, v, &order);
        c->result = frame_import(lo, lo->frame, v);
        ok = ok && v != NULL;
    }
    return ok;
}

/* ---- a rolled segment -------------------------------------------------------------------------------------------- */

/* Everything that goes into the loop, in the order of its operands. */
typedef struct Parts {
    VEC(Value *) in, args, results;
} Parts;

static void add_part(Lower *lo, Parts *p, Value *in, Value *arg) {
    vec_push(lo->a, p->in, in);
    vec_push(lo->a, p->args, arg);
}

/* Orders operands and arguments: iteration, slices, carried, invariant. A carried value that no iteration changes is
 * an invariant. */
static Parts collect(Lower *lo, Frame *f, const CarryList *carries, Attrs *at) {
    Parts p = {0};
    vec_push(lo->a, p.args, f->iteration);
    for (int i = 0; i < f->xs.n; i++) add_part(lo, &p, f->xs.at[i].outer, f->xs.at[i].arg);
    for (int i = 0; i < carries->n; i++) {
        if (carries->at[i].result == carries->at[i].arg) continue;
        add_part(lo, &p, carries->at[i].init, carries->at[i].arg);
        vec_push(lo->a, p.results, carries->at[i].result);
    }
    at->xs = f->xs.n;
    at->carry = p.results.n;
    for (int i = 0; i < carries->n; i++)
        if (carries->at[i].result == carries->at[i].arg) add_part(lo, &p, carries->at[i].init, carries->at[i].arg);
    for (int i = 0; i < f->captured.n; i++) add_part(lo, &p, f->captured.at[i].outer, f->captured.at[i].arg);
    return p;
}

static bool check_states(Lower *lo, const Frame *f) {
    for (int i = 0; i < f->slots.n; i++)
        if (f->slots.at[i]->sliced && f->outer != NULL) {
            fail(lo, f->slots.at[i]->var->loc, "a state inside two rolled loops is not supported");
            return false;
        }
    return true;
}

/* Makes the loop instruction in the enclosing block and hands its results out. */
static bool build_loop(Lower *lo, Frame *f, const CarryList *carries, int metrics, Loc loc) {
    Attrs at = {.label = f->label, .trip = f->trip};
    for (int i = metrics; i < lo->metrics.n; i++)
        lo->metrics.at[i].value = frame_import(lo, f, lo->metrics.at[i].value);
    Parts p = collect(lo, f, carries, &at);
    for (int i = 0; i < f->slots.n; i++)
        if (f->slots.at[i]->sliced) vec_push(lo->a, p.results, frame_import(lo, f, f->slots.at[i]->slice));
    for (int i = metrics; i < lo->metrics.n; i++) vec_push(lo->a, p.results, lo->metrics.at[i].value);
    f->body->args.n = 0;
    for (int i = 0; i < p.args.n; i++) {
        p.args.at[i]->index = i;
        vec_push(lo->m->arena, f->body->args, p.args.at[i]);
    }
    for (int i = 0; i < p.results.n; i++) vec_push(lo->m->arena, f->body->results, p.results.at[i]);
    Inst *inst = emit(lo, OP_loop, p.in.n, p.in.at, &at, f->body, loc);
    if (inst == NULL) return false;
    int next = 0;
    for (int i = 0; i < carries->n; i++) {
        const Carry *c = &carries->at[i];
        bool changed = c->result != c->arg;
        if (changed) inst->out[next]->name = c->name;
        call_bind(lo, c->name, changed ? val_tensor(inst->out[next++]) : c->before, loc);
    }
    for (int i = 0; i < f->slots.n; i++) {
        Slot *s = f->slots.at[i];
        s->frame = NULL;
        if (s->sliced) s->whole = inst->out[next++], s->dirty = true;
        s->sliced = false;
    }
    for (int i = metrics; i < lo->metrics.n; i++) lo->metrics.at[i].value = inst->out[next++];
    return true;
}

static Frame *frame_open(Lower *lo, const Loop *l, const Segment *s) {
    const char *name = l->node->name;
    const Poly *label = dim_symbol(lo, name, l->node, s->trip, true, l->node->loc);
    if (label == NULL) return NULL;
    Frame *f = NEW(lo->a, Frame);
    *f = (Frame){.outer = lo->frame, .body = block_new(lo->m, NULL), .trip = s->trip, .label = label_of(lo, label)};
    f->iteration = block_arg(lo->m, f->body, &(Type){.dtype = DT_i32}, name);
    return f;
}

/* Lowers one period of the body. False when the attempt is void or wrong. */
static bool lower_period(Lower *lo, Loop *l, const Segment *s, Frame *f) {
    for (int64_t r = 0; r < s->period; r++) {
        lower_body(lo, l, varying_index(lo, l, s, r, f));
        if (lo->split == NULL) continue;
        if (lo->split->frame == f) note_condition(lo, l, s, r);
        return false;
    }
    return true;
}

static bool lower_rolled(Lower *lo, Loop *l, const Segment *s) {
    int binds = lo->call->binds.n, metrics = lo->metrics.n, errors = diag_errors();
    CarryList carries = {0};
    Frame *f = frame_open(lo, l, s);
    if (f == NULL || !carry_begin(lo, l, s, &carries)) return false;
    Block *outer = lo->b.block;
    lo->frame = f;
    lo->b.block = f->body;
    for (int i = 0; i < carries.n; i++) {
        if (carries.at[i].init == NULL) continue;
        Type t = type_unsharded(&carries.at[i].init->type);
        carries.at[i].arg = block_arg(lo->m, f->body, &t, carries.at[i].name);
        call_bind(lo, carries.at[i].name, val_tensor(carries.at[i].arg), l->node->loc);
    }
    bool ok = lower_period(lo, l, s, f) && carry_end(lo, l, s, &carries, binds);
    ok = ok && diag_errors() == errors && check_states(lo, f);
    lo->frame = f->outer;
    lo->b.block = outer;
    drop_binds(lo, binds);
    return ok && build_loop(lo, f, &carries, metrics, l->node->loc);
}

static bool lower_alone(Lower *lo, Loop *l, const Segment *s) {
    int binds = lo->call->binds.n;
    if (++l->alone > MAX_ALONE) {
        fail(lo, l->node->loc, "more than %d iterations differ without a period", MAX_ALONE);
        return false;
    }
    lower_body(lo, l, val_int(lo, l->from + s->first));
    drop_binds(lo, binds);
    return lo->split == NULL;
}

/* ---- the statement ----------------------------------------------------------------------------------------------- */

static bool lower_segments(Lower *lo, Loop *l) {
    ordinals_set(lo, &l->start, &lo->ordinals);
    ordinals_set(lo, &l->most, &lo->ordinals);
    for (int64_t at = 0; at < l->n;) {
        Segment s = segment_at(l, at);
        if (!(s.trip == 1 ? lower_alone(lo, l, &s) : lower_rolled(lo, l, &s))) return false;
        at += s.period * s.trip;
    }
    ordinals_set(lo, &lo->ordinals, &l->most);
    return true;
}

static Plan *plan_find(Lower *lo, const Loop *l) {
    for (int i = 0; i < lo->plans.n; i++) {
        Plan *p = lo->plans.at[i];
        if (p->node == l->node && p->from == l->from && p->n == l->n) return p;
    }
    Plan *p = NEW(lo->a, Plan);
    *p = (Plan){.node = l->node, .from = l->from, .n = l->n};
    vec_push(lo->a, lo->plans, p);
    return p;
}

static bool range_eval(Lower *lo, const Ast *node, Loop *l) {
    const Ast *from = node->at[FOR_FROM], *to = node->at[FOR_TO];
    int64_t end;
    if (!val_integer(lo, expr_eval(lo, from), "the start of a loop", from->loc, &l->from) ||
        !val_integer(lo, expr_eval(lo, to), "the end of a loop", to->loc, &end))
        return false;
    l->n = end > l->from ? end - l->from : 0;
    if (l->n > MAX_ITERATIONS) return fail(lo, node->loc, "a loop has at most %d iterations", MAX_ITERATIONS), false;
    if (!stmt_returns(node->at[FOR_BODY])) return true;
    return fail(lo, node->loc, "`return` inside a loop"), false;
}

/* After an error, what the loop would have computed is unknown. */
static void poison(Lower *lo, const Loop *l) {
    for (int i = 0; i < l->assigned.n; i++) {
        Bind *b = call_find(lo->call, l->assigned.at[i]);
        if (b != NULL && b->state == NULL && !b->dim) b->val = val_error();
    }
}

Flow stmt_for(Lower *lo, const Ast *node) {
    Loop l = {.node = node};
    stmt_assigned(lo, node->at[FOR_BODY], &l.assigned);
    bool ok = range_eval(lo, node, &l);
    if (ok && l.n > 0) {
        l.plan = plan_find(lo, &l);
        Mark before = mark(lo);
        for (int i = 0; i < MAX_ATTEMPTS; i++) {
            l.again = false;
            l.alone = 0;
            ok = lower_segments(lo, &l);
            if (ok || !l.again) break;
            undo(lo, &before);
        }
        if (!ok && l.again) fail(lo, node->loc, "the iterations of this loop differ in too many ways");
        if (!ok) undo(lo, &before);
    }
    if (!ok) poison(lo, &l);
    return FLOW_next;
}
