/* plan.c: where everything lies in a device's arena.
 *
 * Variables come first, at the same offsets in every function. Above them each function has its own layout: buffers
 * with lifetimes (plan_places.c) are placed largest first, each into the tightest gap between those that live at the
 * same time. Offsets are multiples of 64 bytes, and equal on all devices, since blocks are of equal size.
 *
 * Before: PLACED. After, and what the verifier may check:
 *   - every value has an offset, but a loop's counter and the values inside fused regions, which have -1;
 *   - two values that live at the same time overlap only when one is a view of the other, or a result takes the
 *     place of an operand of the same instruction (plan_share.c says when);
 *   - operand and result of a collective never overlap: a peer reads the operand until the collective ends;
 *   - the value of a slice in a loop is at the offset of iteration 0; the emitter adds the rest.
 *
 * Quadratic in the number of values that live at one time. */
#include "plan.h"

#include <stdlib.h>

static int64_t align_up(int64_t n) {
    return (n + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
}

static int64_t plan_vars(Module *m) {
    int64_t end = 0;
    for (int i = 0; i < m->vars.n; i++) {
        Var *v = m->vars.at[i];
        v->id = i;
        v->offset = end;
        end += align_up(type_local_bytes(&m->mesh, &v->type));
    }
    return end;
}

/* ---- offsets ------------------------------------------------------------------------------------------------------
 */

static int by_size(const void *a, const void *b) {
    const Buffer *x = *(Buffer *const *)a, *y = *(Buffer *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return x->start != y->start ? (x->start > y->start ? 1 : -1) : (x > y) - (x < y);
}

static bool overlap(const Buffer *a, const Buffer *b) {
    return a->start <= b->end && b->start <= a->end;
}

/* `placed` is sorted by offset. The tightest gap that fits, else the end. */
static int64_t best_gap(const Buffer *b, Buffer *const *placed, int n, int64_t base) {
    int64_t at = base, best = -1, best_waste = 0;
    for (int i = 0; i < n; i++) {
        if (!overlap(b, placed[i])) continue;
        int64_t waste = placed[i]->offset - at - b->bytes;
        if (waste >= 0 && (best < 0 || waste < best_waste)) best = at, best_waste = waste;
        int64_t end = align_up(placed[i]->offset + placed[i]->bytes);
        if (end > at) at = end;
    }
    return best >= 0 ? best : at;
}

static int64_t plan_offsets(Plan *p, int64_t base) {
    Buffer **order = NEW_ARRAY(p->arena, Buffer *, p->buffer.n + 1),
           **placed = NEW_ARRAY(p->arena, Buffer *, p->buffer.n + 1);
    int n = 0, nplaced = 0;
    for (int i = 0; i < p->buffer.n; i++) {
        Buffer *b = &p->buffer.at[i];
        if (b->merged < 0 && b->var == NULL) order[n++] = b;
    }
    qsort(order, (size_t)n, sizeof *order, by_size);
    int64_t end = base;
    for (int i = 0; i < n; i++) {
        Buffer *b = order[i];
        b->offset = best_gap(b, placed, nplaced, base);
        if (b->offset + b->bytes > end) end = b->offset + b->bytes;
        int k = nplaced++;
        for (; k > 0 && placed[k - 1]->offset > b->offset; k--) placed[k] = placed[k - 1];
        placed[k] = b;
    }
    return align_up(end);
}

/* ---- values -------------------------------------------------------------------------------------------------------
 */

static void set_offset(Plan *p, Value *v) {
    Place place = *plan_place(p, v);
    v->offset = place.buffer < 0 ? -1 : plan_buffer(p, place.buffer)->offset + place.delta;
}

static void set_offsets(Plan *p, Block *b) {
    for (int k = 0; k < b->args.n; k++) set_offset(p, b->args.at[k]);
    for (Inst *i = b->first; i != NULL; i = i->next) {
        for (int k = 0; k < i->nout; k++) set_offset(p, i->out[k]);
        if (i->op == OP_loop) set_offsets(p, i->body);
    }
}

bool pass_plan(Module *m, PassCtx *ctx) {
    int64_t base = plan_vars(m);
    for (int i = 0; i < m->funcs.n; i++) {
        Plan p = {.m = m, .f = m->funcs.at[i], .arena = ctx->scratch};
        plan_places(&p);
        m->funcs.at[i]->arena_bytes = plan_offsets(&p, base);
        set_offsets(&p, m->funcs.at[i]->body);
    }
    return true;
}
