/* plan_share.c: buffers that take over others.
 *
 *   carry   a carried value starts in its operand's buffer, when that dies at the loop
 *   write   a value that is written to a variable is computed in the variable's memory, when nothing reads the old
 * value later; so is a stacked result, slice by slice, when the loop reads the old slices (caches) dead    an
 * element-wise result, or an update, takes the buffer of an operand that dies there
 *
 * An instruction may read and write one buffer when element e of the result needs element e of the operand only, and is
 * stored after all loads of e: the element-wise ops and the nests of them, and `update`, which leaves the rest as it
 * is.
 *
 * Before: lifetimes are those of buffers that share nothing. Linear in the function, times the operands of a loop. */
#include <limits.h>

#include "plan.h"

static bool same_axes(const Type *a, const Type *b) {
    bool same = a->rank == b->rank && a->dtype == b->dtype;
    for (int d = 0; same && d < a->rank; d++) same = a->dim[d].label == b->dim[d].label;
    return same;
}

/* Element e of the result depends on element e of operands of its shape, and is computed once. */
static bool pointwise(const Inst *i, const Type *t) {
    if (i->op != OP_fused) return op_info[i->op].emit == EMIT_elem && i->op != OP_broadcast;
    for (const Inst *x = i->body->first; x != NULL; x = x->next) {
        if (op_info[x->op].emit != EMIT_elem || x->nout != 1) return false;
        for (int d = 0; d < x->out[0]->type.rank; d++)
            if (type_find(t, x->out[0]->type.dim[d].label) < 0) return false;
    }
    return true;
}

/* Whether the instruction may store v over its operand k. */
static bool may_overwrite(const Inst *i, int k, const Value *v) {
    if (i->op == OP_update) return k == 0;
    return pointwise(i, &v->type) && same_axes(&i->in[k]->type, &v->type);
}

static Buffer *buffer_of(Plan *p, const Value *v) {
    int b = plan_place(p, v)->buffer;
    return b < 0 ? NULL : plan_buffer(p, b);
}

/* Whether every operand of the instruction in this buffer may be overwritten by v. */
static bool may_take(Plan *p, const Inst *i, const Buffer *b, const Value *v) {
    for (int k = 0; k < i->nin; k++)
        if (buffer_of(p, i->in[k]) == b && (plan_place(p, i->in[k])->delta != 0 || !may_overwrite(i, k, v)))
            return false;
    return true;
}

/* ---- carry --------------------------------------------------------------------------------------------------------
 */

static void share_carry(Plan *p, const Inst *loop, int k) {
    const Value *arg = loop->body->args.at[1 + k], *in = loop->in[k];
    const Place *from = plan_place(p, in), *to = plan_place(p, arg);
    if (from->buffer < 0 || from->slice || from->delta != 0) return;
    Buffer *old = plan_buffer(p, from->buffer), *new = plan_buffer(p, to->buffer);
    if (old == new || old->var != NULL || old->pinned || old->end != new->start || old->bytes != new->bytes) return;
    for (int o = 0; o < loop->nin; o++)
        if (o != k && buffer_of(p, loop->in[o]) == old) return;
    new->start = old->start;
    old->merged = to->buffer;
}

static void share_carries(Plan *p, const Block *b) {
    for (const Inst *i = b->first; i != NULL; i = i->next) {
        if (i->op != OP_loop) continue;
        for (int k = 0; k < i->at.carry; k++) share_carry(p, i, (int)i->at.xs + k);
        share_carries(p, i->body);
    }
}

/* ---- write --------------------------------------------------------------------------------------------------------
 */

/* Whether the loop reads the variable's slices only, and none of them after v, the value that replaces its slice. */
static bool slices_die_at(Plan *p, const Inst *loop, const Buffer *var, const Value *v) {
    int operands = 0;
    for (int k = 0; k < loop->nin; k++) {
        if (buffer_of(p, loop->in[k]) != var) continue;
        if (k >= loop->at.xs || plan_place(p, loop->in[k])->delta != 0 || ++operands > 1) return false;
    }
    for (int k = 0; k < loop->body->results.n; k++)
        if (buffer_of(p, loop->body->results.at[k]) == var) return false;
    bool later = false;
    for (const Inst *i = loop->body->first; i != NULL; i = i->next) {
        if (i == v->def && !may_take(p, i, var, v)) return false;
        for (int k = 0; later && k < i->nin; k++)
            if (buffer_of(p, i->in[k]) == var) return false;
        later |= i == v->def;
    }
    return later;
}

/* Whether the variable's old value may be overwritten by the instruction that defines v. */
static bool dies_at(Plan *p, const Buffer *var, const Value *v) {
    const Inst *i = v->def;
    if (var->end > plan_place(p, v)->done) return false;
    if (i->op != OP_loop) return may_take(p, i, var, v);
    return v->index >= i->at.carry && slices_die_at(p, i, var, i->body->results.at[v->index]);
}

static void share_write(Plan *p, const Inst *write) {
    const Value *v = write->in[0];
    const Place *place = plan_place(p, v);
    int to = plan_var_buffer(p, write->at.var);
    Buffer *b = plan_buffer(p, place->buffer), *var = plan_buffer(p, to);
    if (v->def == NULL || b->var != NULL || place->delta != 0 || b->pinned) return;
    /* A view's memory was written by another instruction. */
    if (b->start != place->defined || !type_same_sharding(&v->type, &write->at.var->type) || !dies_at(p, var, v))
        return;
    var->end = INT_MAX;
    b->merged = to;
}

/* ---- dead ---------------------------------------------------------------------------------------------------------
 */

static bool share_operand(Plan *p, const Inst *i, int k, const Value *out) {
    const Place *from = plan_place(p, i->in[k]), *to = plan_place(p, out);
    if (from->buffer < 0 || from->slice || to->slice || from->delta != 0 || !may_overwrite(i, k, out)) return false;
    Buffer *old = plan_buffer(p, from->buffer), *new = plan_buffer(p, to->buffer);
    if (old == new || old->var != NULL || old->pinned || old->end != to->defined || old->bytes != new->bytes)
        return false;
    if (new->var != NULL || new->start != to->defined || !may_take(p, i, old, out)) return false;
    old->end = new->end;
    old->pinned = new->pinned;
    new->merged = from->buffer;
    return true;
}

static void share_dead(Plan *p, const Block *b) {
    for (const Inst *i = b->first; i != NULL; i = i->next) {
        if (i->op == OP_loop) share_dead(p, i->body);
        for (int o = 0; o < i->nout; o++) {
            bool done = i->op == OP_loop;
            for (int k = 0; k < i->nin && !done; k++) done = share_operand(p, i, k, i->out[o]);
        }
    }
}

void plan_share(Plan *p) {
    const Block *b = p->f->body;
    share_carries(p, b);
    for (const Inst *i = b->first; i != NULL; i = i->next)
        if (i->op == OP_write) share_write(p, i);
    share_dead(p, b);
}
