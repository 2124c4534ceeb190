/* nest_loops.c: shapes a nest: drops loops of one iteration, merges neighbours, tiles transpositions, gives nodes their
 * level and stage, and picks the loop that is dealt between workers.
 *
 * Two neighbouring loops merge when every linear function steps from the end of the inner to the next of the outer as
 * if they were one. The dealt loop must be in every store (else two workers would write one element), so no result
 * depends on the number of workers. */
#include "nest.h"

/* Calls fn for every linear function of the nest. */
static void each_linear(Nest *n, void (*fn)(Linear *, void *), void *ctx) {
    for (int k = 0; k < n->node.n; k++) {
        if (n->node.at[k].uses_i) fn(&n->node.at[k].i, ctx);
        if (n->node.at[k].uses_j) fn(&n->node.at[k].j, ctx);
    }
    for (int k = 0; k < n->store.n; k++) fn(&n->store.at[k].i, ctx);
}

static void linear_drop(Linear *l, void *ctx) {
    int loop = *(int *)ctx;
    for (int k = loop; k + 1 < NEST_LOOPS; k++) l->stride[k] = l->stride[k + 1];
    l->stride[NEST_LOOPS - 1] = 0;
}

static void loop_drop(Nest *n, int loop) {
    each_linear(n, linear_drop, &loop);
    n->ncolumn -= n->loop[loop].column;
    n->nloop--;
    for (int k = loop; k < n->nloop; k++) n->loop[k] = n->loop[k + 1];
}

typedef struct MergeTest {
    int outer;
    int64_t inner_size;
    bool fits;
} MergeTest;

static void linear_fits(Linear *l, void *ctx) {
    MergeTest *t = ctx;
    t->fits &= l->stride[t->outer] == l->stride[t->outer + 1] * t->inner_size;
}

static bool loops_merge(Nest *n, int outer) {
    const NestLoop *o = &n->loop[outer], *i = &n->loop[outer + 1];
    if (o->whole || i->whole || (n->folds && o->column != i->column)) return false;
    MergeTest t = {outer, i->size, true};
    each_linear(n, linear_fits, &t);
    if (!t.fits) return false;
    n->loop[outer + 1].size *= o->size;
    loop_drop(n, outer);
    return true;
}

static void shape_loops(Nest *n) {
    for (int l = n->nloop - 1; l >= 0; l--)
        if (n->loop[l].size == 1) loop_drop(n, l);
    for (int l = n->nloop - 2; l >= 0; l--) loops_merge(n, l);
    /* Without folds the column is the last loop, whichever that is now. */
    if (n->folds) return;
    n->ncolumn = n->nloop > 0;
    for (int l = 0; l < n->nloop; l++) n->loop[l].column = l == n->nloop - 1;
}

/* ---- tiles --------------------------------------------------------------------------------------------------------
 */

enum { TILE_ELEMENTS = 4096, TILE_SIDE = 16 };

typedef struct TileTest {
    int last, along; /* along: the loop that some operand is contiguous along, -1: none */
} TileTest;

static void linear_along(Linear *l, void *ctx) {
    TileTest *t = ctx;
    if (l->stride[t->last] == 0 || l->stride[t->last] == 1) return;
    for (int k = 0; k < t->last; k++)
        if (l->stride[k] == 1) t->along = k;
}

static void linear_move_in(Linear *l, void *ctx) {
    const TileTest *t = ctx;
    int64_t moved = l->stride[t->along];
    for (int k = t->along; k + 1 < t->last; k++) l->stride[k] = l->stride[k + 1];
    l->stride[t->last - 1] = moved;
}

/* A transposition goes over small squares, so that every line of the cache that it opens is used up: the loop that the
 * transposed operand is contiguous along moves next to the last one. */
static void find_tiles(Nest *n) {
    TileTest t = {n->nloop - 1, -1};
    if (n->folds || n->nloop < 2) return;
    for (int l = 0; l < n->nloop; l++)
        if (n->loop[l].whole) return;
    each_linear(n, linear_along, &t);
    if (t.along < 0) return;
    NestLoop along = n->loop[t.along];
    int64_t last = n->loop[t.last].size;
    if (along.size < TILE_SIDE || last < TILE_SIDE || along.size * last < TILE_ELEMENTS) return;
    for (int k = t.along; k + 1 < t.last; k++) n->loop[k] = n->loop[k + 1];
    n->loop[t.last - 1] = along;
    each_linear(n, linear_move_in, &t);
    n->tiled = true;
}

/* ---- levels and stages --------------------------------------------------------------------------------------------
 */

static int linear_level(const Nest *n, const Linear *l) {
    int level = 0;
    for (int k = 0; k < n->nloop; k++)
        if (l->stride[k] != 0) level = k + 1;
    return level;
}

static int max_int(int a, int b) {
    return a > b ? a : b;
}

static void rank_nodes(Nest *n) {
    int rows = n->nloop - n->ncolumn;
    for (int k = 0; k < n->node.n; k++) {
        Node *x = &n->node.at[k];
        x->level = max_int(x->uses_i ? linear_level(n, &x->i) : 0, x->uses_j ? linear_level(n, &x->j) : 0);
        for (int o = 0; o < x->nin; o++) {
            const Node *in = &n->node.at[x->in[o]];
            x->level = max_int(x->level, in->level);
            x->stage = max_int(x->stage, in->stage + x->fold);
        }
        if (x->fold) x->level = rows;
        n->stages = max_int(n->stages, x->stage + 1);
    }
}

static void rank_stores(Nest *n) {
    int rows = n->nloop - n->ncolumn;
    for (int k = 0; k < n->store.n; k++) {
        Store *s = &n->store.at[k];
        const Node *v = &n->node.at[s->value];
        s->level = max_int(v->level, linear_level(n, &s->i));
        s->stage = v->stage;
        if (s->index >= 0) {
            s->level = max_int(s->level, n->node.at[s->index].level);
            s->stage = max_int(s->stage, n->node.at[s->index].stage);
        }
        /* What adds must run once an iteration, whether or not its value changes. */
        if (s->adds) s->level = max_int(s->level, n->folds ? rows : n->nloop);
        n->stages = max_int(n->stages, s->stage + 1);
    }
}

/* The innermost loop must run in order when it carries a sum through memory. */
static void find_serial(Nest *n) {
    int last = n->nloop - 1;
    if (last < 0) return;
    n->serial = n->loop[last].whole;
    for (int k = 0; k < n->store.n; k++) {
        const Store *s = &n->store.at[k];
        if (!s->adds || s->level <= last) continue;
        bool moving_index = s->index >= 0 && n->node.at[s->index].level > last;
        n->serial |= moving_index || s->i.stride[last] == 0;
    }
}

/* ---- dealing ------------------------------------------------------------------------------------------------------
 */

static bool can_split(const Nest *n, int loop) {
    if (n->loop[loop].whole || (n->folds && n->loop[loop].column)) return false;
    for (int k = 0; k < n->store.n; k++)
        if (n->store.at[k].i.stride[loop] == 0) return false;
    return n->store.n > 0;
}

enum { ENOUGH_PARTS = 16 };

static void find_split(Nest *n) {
    n->split = -1;
    for (int l = 0; l < n->nloop; l++) {
        if (!can_split(n, l)) continue;
        if (n->split < 0 || n->loop[l].size > n->loop[n->split].size) n->split = l;
        if (n->loop[n->split].size >= ENOUGH_PARTS) return;
    }
}

void nest_finish(Nest *n) {
    n->stages = 1;
    shape_loops(n);
    find_tiles(n);
    rank_nodes(n);
    rank_stores(n);
    find_serial(n);
    find_split(n);
}
