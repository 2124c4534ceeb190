/* peak.c: what lies in a device's memory when most does.
 *
 * The buffers of a planned function and their lifetimes are found again as plan.c found them (plan_places.c). The sum
 * of those that live is taken at the start of each, where alone it can grow, and the largest is kept with its buffers.
 * The arena is as large as that sum or larger: by gaps between buffers, and by the rounding of offsets.
 * Before: PLANNED; a copy, since finding places may change a module. Cost: buffers log buffers. */
#include <limits.h>
#include <stdlib.h>

#include "plan.h"
#include "survey.h"

typedef struct Event {
    int position;
    int64_t bytes;
} Event;

static int by_position(const void *a, const void *b) {
    const Event *x = a, *y = b;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* what ends goes first */
}

static int by_bytes(const void *a, const void *b) {
    const PeakRow *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return (x->loc.begin > y->loc.begin) - (x->loc.begin < y->loc.begin);
}

static bool counts(const Buffer *b) {
    return b->merged < 0 && b->var == NULL && b->bytes > 0;
}

/* The position at which most bytes live. */
static int busiest(const Plan *p, Arena *a, int64_t *bytes) {
    Event *event = NEW_ARRAY(a, Event, 2 * p->buffer.n + 1);
    int n = 0, best = 0;
    for (int i = 0; i < p->buffer.n; i++) {
        const Buffer *b = &p->buffer.at[i];
        if (!counts(b)) continue;
        event[n++] = (Event){b->start, b->bytes};
        if (b->end < INT_MAX) event[n++] = (Event){b->end + 1, -b->bytes};
    }
    qsort(event, (size_t)n, sizeof *event, by_position);
    int64_t now = 0;
    *bytes = 0;
    for (int i = 0; i < n; i++) {
        now += event[i].bytes;
        if (now <= *bytes) continue;
        *bytes = now;
        best = event[i].position;
    }
    return best;
}

typedef struct Naming {
    Plan *plan;
    const Value **of; /* by buffer: the largest value in it */
    int at;           /* the busiest position */
    Loc loc;
    bool found;
} Naming;

static void name_value(Naming *n, const Value *v) {
    int b = plan_place(n->plan, v)->buffer;
    if (b < 0) return;
    b = (int)(plan_buffer(n->plan, b) - n->plan->buffer.at);
    const Mesh *mesh = &n->plan->m->mesh;
    if (n->of[b] == NULL || type_local_bytes(mesh, &v->type) > type_local_bytes(mesh, &n->of[b]->type)) n->of[b] = v;
}

static void name_block(Naming *n, const Block *b) {
    for (int i = 0; i < b->args.n; i++) name_value(n, b->args.at[i]);
    for (const Inst *in = b->first; in != NULL; in = in->next) {
        for (int i = 0; i < in->nout; i++) name_value(n, in->out[i]);
        /* The first result that is defined then, or later, marks the place in the source. */
        if (in->nout > 0 && !n->found && plan_place(n->plan, in->out[0])->defined >= n->at) {
            n->loc = in->loc;
            n->found = true;
        }
        if (in->op == OP_loop) name_block(n, in->body);
    }
}

Peak peak_of(Module *m, const Func *f, Arena *a) {
    Plan plan = {.m = m, .f = f, .arena = a};
    Peak peak = {.loc = f->loc};
    for (int i = 0; i < m->vars.n; i++) m->vars.at[i]->id = i;
    plan_places(&plan);
    Naming n = {&plan, NEW_ARRAY(a, const Value *, plan.buffer.n + 1), 0, f->loc, false};
    n.at = busiest(&plan, a, &peak.bytes);
    name_block(&n, f->body);
    peak.loc = n.loc;
    for (int i = 0; i < plan.buffer.n; i++) {
        const Buffer *b = &plan.buffer.at[i];
        if (!counts(b) || b->start > n.at || b->end < n.at) continue;
        const Value *v = n.of[i];
        PeakRow row = {b->bytes, v, v == NULL ? f->loc : v->def != NULL ? v->def->loc : v->loc};
        vec_push(a, peak.rows, row);
    }
    if (peak.rows.n > 1) qsort(peak.rows.at, (size_t)peak.rows.n, sizeof *peak.rows.at, by_bytes);
    return peak;
}
