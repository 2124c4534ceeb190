/* plan_places.c: which buffer each value lies in, and how long each buffer lives.
 *
 * A walk in program order gives every value a buffer of its own, except
 *   views          slice of the outermost axis, relabel and broadcast that keep the order: their operand's buffer
 *   reads          the variable's memory, unless the value must outlive the variable's change at the end of the call
 *   loop           slices of scanned operands and invariants: their operand's buffer; a carried value: one buffer
 *                  through the whole loop, which is also the loop's result; a stacked result: the body writes its slice
 *                  in place
 * A second walk extends each buffer's life over its uses. Inside a loop, a buffer of the body lives within one
 * iteration, and everything that comes from outside lives until the loop ends.
 * Then buffers are shared (plan_share.c). Linear in the function. */
#include "plan.h"

#include <limits.h>

enum { FOREVER = INT_MAX };

Place *plan_place(Plan *p, const Value *v) {
    return &p->place.at[v->id];
}

Buffer *plan_buffer(Plan *p, int buffer) {
    while (p->buffer.at[buffer].merged >= 0) buffer = p->buffer.at[buffer].merged;
    return &p->buffer.at[buffer];
}

/* ---- views --------------------------------------------------------------------------------------------------------
 */

typedef struct Order {
    int n;
    Label at[MAX_RANK * 2];
} Order;

/* An axis of one element takes no part in the order of memory. */
static void order_add(Order *o, const Mesh *m, const Dim *d) {
    if (dim_local(m, d) > 1) o->at[o->n++] = d->label;
}

static bool order_equal(const Order *a, const Order *b) {
    if (a->n != b->n) return false;
    for (int i = 0; i < a->n; i++)
        if (a->at[i] != b->at[i]) return false;
    return true;
}

static Order order_of(const Mesh *m, const Type *t) {
    Order o = {0};
    for (int i = 0; i < t->rank; i++) order_add(&o, m, &t->dim[i]);
    return o;
}

/* The operand's axes in the order in which a relabel's result has them. */
static Order relabel_order(const Mesh *m, const Inst *i) {
    const Type *in = &i->in[0]->type, *out = &i->out[0]->type;
    Order o = {0};
    bool placed = false;
    for (int k = 0; k < out->rank; k++) {
        bool created = false;
        for (int d = 0; d < i->at.dims.n; d++) created |= i->at.dims.at[d].label == out->dim[k].label;
        if (!created) order_add(&o, m, &out->dim[k]);
        for (int l = 0; created && !placed && l < i->at.labels.n; l++)
            order_add(&o, m, &in->dim[type_find(in, i->at.labels.at[l])]);
        placed |= created;
    }
    return o;
}

static bool slice_view(const Mesh *m, const Inst *i, int64_t *delta) {
    const Type *t = &i->in[0]->type;
    int axis = type_find(t, i->at.label);
    int64_t stride = dtype_bytes(t->dtype);
    for (int d = t->rank - 1; d > axis; d--) stride *= dim_local(m, &t->dim[d]);
    for (int d = 0; d < axis; d++)
        if (dim_local(m, &t->dim[d]) > 1 && i->at.size != t->dim[axis].size) return false;
    *delta = i->at.start * stride;
    return *delta % PLAN_ALIGN == 0;
}

/* Whether the result is its operand's memory, *delta bytes further on. */
static bool is_view(const Mesh *m, const Inst *i, int64_t *delta) {
    *delta = 0;
    if (i->op == OP_slice) return slice_view(m, i, delta);
    if (i->op != OP_relabel && i->op != OP_broadcast) return false;
    Order in = order_of(m, &i->in[0]->type);
    Order out = i->op == OP_relabel ? relabel_order(m, i) : order_of(m, &i->out[0]->type);
    return order_equal(&in, &out);
}

/* ---- places -------------------------------------------------------------------------------------------------------
 */

static int buffer_new(Plan *p, int64_t bytes) {
    vec_push(p->arena, p->buffer,
             ((Buffer){.bytes = bytes, .start = p->position, .end = p->position, .offset = -1, .merged = -1}));
    return p->buffer.n - 1;
}

static void set_place(Plan *p, Value *v, int buffer, int64_t delta) {
    v->id = p->place.n;
    vec_push(p->arena, p->place,
             ((Place){.buffer = buffer, .delta = delta, .defined = p->position, .done = p->position}));
}

static void place_new(Plan *p, Value *v) {
    set_place(p, v, buffer_new(p, type_local_bytes(&p->m->mesh, &v->type)), 0);
}

static void place_like(Plan *p, Value *v, const Value *other, int64_t delta) {
    Place o = *plan_place(p, other);
    set_place(p, v, o.buffer, o.delta + delta);
    plan_place(p, v)->slice = o.slice;
}

int plan_var_buffer(Plan *p, Var *var) {
    for (int i = 0; i < p->buffer.n; i++)
        if (p->buffer.at[i].var == var) return i;
    int b = buffer_new(p, type_local_bytes(&p->m->mesh, &var->type));
    p->buffer.at[b].var = var;
    p->buffer.at[b].offset = var->offset;
    return b;
}

static void place_block(Plan *p, const Block *b);

static void place_args(Plan *p, Inst *loop) {
    Block *body = loop->body;
    int xs = (int)loop->at.xs, carry = (int)loop->at.carry;
    for (int k = 0; k < body->args.n; k++) {
        int operand = k - 1;
        if (operand < 0)
            set_place(p, body->args.at[k], -1, 0);
        else if (operand >= xs && operand < xs + carry)
            place_new(p, body->args.at[k]);
        else
            place_like(p, body->args.at[k], loop->in[operand], 0);
    }
}

/* A stacked result is written by the instruction that makes its slice, when that makes it nowhere else. */
static void place_stacks(Plan *p, Inst *loop) {
    for (int k = 0; k < loop->nout; k++) {
        Value *out = loop->out[k];
        if (k < loop->at.carry)
            place_like(p, out, loop->body->args.at[1 + (int)loop->at.xs + k], 0);
        else
            place_new(p, out);
    }
}

/* The stacked result of the block's loop that v is a slice of, the first one; NULL: none. */
static Value *stack_of(const Block *b, const Value *v) {
    if (b->owner == NULL || b->owner->op != OP_loop) return NULL;
    for (int k = (int)b->owner->at.carry; k < b->results.n; k++)
        if (b->results.at[k] == v) return b->owner->out[k];
    return NULL;
}

static void place_result(Plan *p, const Block *b, Value *v) {
    const Value *stack = stack_of(b, v);
    if (stack == NULL) {
        place_new(p, v);
        return;
    }
    place_like(p, v, stack, 0);
    plan_place(p, v)->slice = true;
}

static void place_fused(Inst *i) {
    for (int k = 0; k < i->body->args.n; k++) i->body->args.at[k]->offset = -1;
    for (Inst *x = i->body->first; x != NULL; x = x->next)
        for (int k = 0; k < x->nout; k++) x->out[k]->offset = -1;
}

static void place_loop(Plan *p, Inst *i) {
    place_args(p, i);
    place_stacks(p, i);
    place_block(p, i->body);
    p->position++;
    for (int k = 0; k < i->nout; k++) plan_place(p, i->out[k])->done = p->position;
}

static void place_inst(Plan *p, const Block *b, Inst *i) {
    int64_t delta;
    p->position++;
    if (i->op == OP_fused) place_fused(i);
    if (i->op == OP_loop) {
        place_loop(p, i);
        return;
    }
    for (int k = 0; k < i->nout; k++) {
        if (i->op == OP_read && !p->copied_read[i->at.var->id])
            set_place(p, i->out[k], plan_var_buffer(p, i->at.var), 0);
        else if (is_view(&p->m->mesh, i, &delta))
            place_like(p, i->out[k], i->in[0], delta);
        else
            place_result(p, b, i->out[k]);
    }
}

static void place_block(Plan *p, const Block *b) {
    for (Inst *i = b->first; i != NULL; i = i->next) place_inst(p, b, i);
}

/* ---- lifetimes ----------------------------------------------------------------------------------------------------
 */

static void use_at(Plan *p, const Value *v, int position) {
    int b = plan_place(p, v)->buffer;
    if (b >= 0 && p->buffer.at[b].end < position) p->buffer.at[b].end = position;
}

/* Positions run as in place_inst. Returns the position after the block. */
static int live_block(Plan *p, const Block *b, int position) {
    for (const Inst *i = b->first; i != NULL; i = i->next) {
        int begin = ++position, end = begin;
        if (i->op == OP_loop) end = position = live_block(p, i->body, begin) + 1;
        for (int k = 0; k < i->nin; k++) {
            /* A carried operand is copied when the loop starts. */
            bool carried = i->op == OP_loop && k >= i->at.xs && k < i->at.xs + i->at.carry;
            use_at(p, i->in[k], i->op == OP_write ? FOREVER : carried ? begin : end);
        }
        for (int k = 0; k < i->nout; k++) use_at(p, i->out[k], end);
        for (int k = 0; i->op == OP_loop && k < i->body->results.n; k++) use_at(p, i->body->results.at[k], end);
        for (int k = 0; i->op == OP_loop && k < i->body->args.n; k++) use_at(p, i->body->args.at[k], end);
    }
    return position;
}

static void live_func(Plan *p) {
    const Block *b = p->f->body;
    live_block(p, b, 0);
    for (int k = 0; k < b->args.n + b->results.n; k++) {
        const Value *v = k < b->args.n ? b->args.at[k] : b->results.at[k - b->args.n];
        use_at(p, v, FOREVER);
        p->buffer.at[plan_place(p, v)->buffer].pinned = true;
    }
}

/* ---- the order of it all ------------------------------------------------------------------------------------------
 */

/* The value whose memory v is a view of. */
static const Value *behind(const Mesh *m, const Value *v) {
    int64_t delta;
    while (v->def != NULL && is_view(m, v->def, &delta)) v = v->def->in[0];
    return v;
}

/* The variable whose memory v is a view of, NULL: none. */
static Var *var_behind(const Mesh *m, const Value *v) {
    v = behind(m, v);
    return v->def != NULL && v->def->op == OP_read ? v->def->at.var : NULL;
}

/* At the end of an iteration carried values are copied to their places one after the other. One that hands on an old
 * value whose place is overwritten before (a, b = f(a), a) is copied first. */
static void save_handed_on(Plan *p, Inst *loop) {
    Block *body = loop->body;
    int first = 1 + (int)loop->at.xs;
    for (int k = 1; k < loop->at.carry; k++) {
        Value *v = body->results.at[k];
        const Value *arg = behind(&p->m->mesh, v);
        if (arg->def != NULL || arg->block != body || arg->index < first || arg->index >= first + k) continue;
        Builder b = {p->m, body, NULL, loop->loc};
        Value *copy = build1(&b, OP_cast, v, &(Attrs){.dtype = v->type.dtype});
        copy->type = v->type;
        body->results.at[k] = copy;
    }
}

static void save_in_loops(Plan *p, Block *b) {
    for (Inst *i = b->first; i != NULL; i = i->next) {
        if (i->op != OP_loop) continue;
        save_handed_on(p, i);
        save_in_loops(p, i->body);
    }
}

/* A result, or a value written elsewhere, that is an old value of a changing variable must be copied out of it. */
static void find_copied_reads(Plan *p) {
    const Block *b = p->f->body;
    p->copied_read = NEW_ARRAY(p->arena, bool, p->m->vars.n + 1);
    for (const Inst *w = b->first; w != NULL; w = w->next) {
        if (w->op != OP_write) continue;
        for (int k = 0; k < b->results.n; k++)
            if (var_behind(&p->m->mesh, b->results.at[k]) == w->at.var) p->copied_read[w->at.var->id] = true;
        Var *source = var_behind(&p->m->mesh, w->in[0]);
        if (source != NULL && source != w->at.var) p->copied_read[source->id] = true;
    }
}

void plan_places(Plan *p) {
    const Block *b = p->f->body;
    find_copied_reads(p);
    save_in_loops(p, p->f->body);
    for (int k = 0; k < b->args.n; k++) place_new(p, b->args.at[k]);
    place_block(p, b);
    live_func(p);
    plan_share(p);
}
