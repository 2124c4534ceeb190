/* reshard_search.c: the cheapest sequence of collectives between two shardings of a tensor.
 *
 * Algorithm: Dijkstra over sharding states. A state says of every mesh axis where it is: splitting dim d at position p,
 * partial, or free (copies). The moves are those of LOCAL programs made PLACED:
 *   shard_slice     a free axis becomes the minor-most of a dim               no bytes
 *   all_gather      the minor-most axes of a dim become free                  (n - 1) blocks
 *   all_to_all      the minor-most axes of a dim become those of another      (n - 1) / n of a block
 *   permute         axes change places, blocks keep their size                a block
 *   all_reduce      partial axes become free                                  2 (n - 1) / n of a block
 *   reduce_scatter  partial axes become the minor-most of a dim               (n - 1) / n of a block
 * Axes that split the same dim at the same place before and after, with all before them, stay where they are: the
 * search sees the rest, on blocks. A move costs seconds by the topology for the bytes that one device receives. The
 * search is exact over these moves (permute: exchanges of two axes, and anything that ends at the goal), up to
 * MAX_STATES states; beyond, the path that always exists is taken: reduce, gather to the common prefix, slice.
 *
 * Complexity: with k axes involved and rank r about (r + k)^k states; k is 2 or 3 in practice. Searches are memoized.
 */
#include <string.h>

#include "sharding.h"

enum { MAX_STATES = 8000, FREE = 0xfe, PARTIAL = 0xfd, MEMO_BUCKETS = 1024, STATE_BUCKETS = 1024 };

/* Where each mesh axis is: a dim and the position there, or PARTIAL, or FREE. */
typedef struct State {
    uint8_t place[MAX_AXES], order[MAX_AXES];
} State;

/* The same, readable by dim. */
typedef struct Layout {
    AxisList dim[MAX_RANK];
    AxisList partial;
} Layout;

typedef struct Shape {
    int rank, elem;
    int64_t size[MAX_RANK];
} Shape;

typedef struct Memo Memo;
struct Memo {
    Shape shape;
    State from, to;
    ReshardPath path;
    Memo *next;
};

struct Resharder {
    Arena *arena, *scratch;
    const Mesh *mesh;
    const Topology *topo;
    Memo *memo[MEMO_BUCKETS];
};

typedef struct Node {
    State state;
    double cost;
    int prev, next; /* the node before on the path; the next in its bucket */
    bool done;
    Move move;
} Node;

typedef struct HeapItem {
    double cost;
    int node;
} HeapItem;

typedef struct Search {
    Resharder *r;
    const Shape *shape;
    State goal;
    AxisList axes; /* those that the start or the goal uses */
    VEC(Node) nodes;
    VEC(HeapItem) heap;
    int bucket[STATE_BUCKETS];
} Search;

/* ---- states ------------------------------------------------------------------------------------------------------ */

static State state_of(const Layout *l, int rank) {
    State s;
    memset(&s, FREE, sizeof s.place);
    memset(s.order, 0, sizeof s.order);
    for (int d = 0; d < rank; d++)
        for (int i = 0; i < l->dim[d].n; i++) {
            s.place[l->dim[d].at[i]] = (uint8_t)d;
            s.order[l->dim[d].at[i]] = (uint8_t)i;
        }
    for (int i = 0; i < l->partial.n; i++) s.place[l->partial.at[i]] = PARTIAL;
    return s;
}

static Layout layout_of(const State *s) {
    Layout l = {0};
    for (int pos = 0; pos < MAX_AXES; pos++)
        for (int a = 0; a < MAX_AXES; a++)
            if (s->place[a] < MAX_RANK && s->order[a] == pos) axes_add(&l.dim[s->place[a]], a);
    for (int a = 0; a < MAX_AXES; a++)
        if (s->place[a] == PARTIAL) axes_add(&l.partial, a);
    return l;
}

static Layout layout_of_type(const Type *t) {
    Layout l = {0};
    for (int d = 0; d < t->rank; d++) l.dim[d] = t->dim[d].axes;
    l.partial = t->partial;
    return l;
}

static bool same_state(const State *a, const State *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

static uint64_t hash_bytes(const void *at, size_t n) {
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)at)[i]) * 1099511628211u;
    return h ^ (h >> 29);
}

static int64_t local_size(const Search *s, const Layout *l, int d) {
    return s->shape->size[d] / mesh_size(s->r->mesh, &l->dim[d]);
}

static int64_t local_bytes(const Search *s, const Layout *l) {
    int64_t bytes = s->shape->elem;
    for (int d = 0; d < s->shape->rank; d++) bytes *= local_size(s, l, d);
    return bytes;
}

/* ---- costs ------------------------------------------------------------------------------------------------------- */

static int64_t move_bytes(Op op, int64_t block, int64_t n) {
    switch (op) {
        case OP_all_gather:
            return block * (n - 1);
        case OP_all_to_all:
            return block / n * (n - 1);
        case OP_permute:
            return block;
        case OP_all_reduce:
            return 2 * block * (n - 1) / n;
        case OP_reduce_scatter:
            return block / n * (n - 1);
        default:
            return 0;
    }
}

/* A local slice is not quite free, so that no path has idle ones. Every collective starts as fast as a gather over the
 * same axes: were a reduction's second round counted, small values would be gathered and each device would do the work
 * of all, and a model of small sizes would be spread in another way than the same model in large. */
static double move_seconds(const Resharder *r, const Move *mv) {
    if (mv->op == OP_shard_slice) return 1e-9;
    return cost_collective(r->topo, r->mesh, OP_all_gather, &mv->axes, mv->bytes);
}

/* ---- the queue --------------------------------------------------------------------------------------------------- */

static void heap_push(Search *s, double cost, int node) {
    vec_push(s->r->scratch, s->heap, ((HeapItem){cost, node}));
    HeapItem *h = s->heap.at;
    for (int i = s->heap.n - 1; i > 0 && h[i].cost < h[(i - 1) / 2].cost; i = (i - 1) / 2) {
        HeapItem t = h[i];
        h[i] = h[(i - 1) / 2];
        h[(i - 1) / 2] = t;
    }
}

static HeapItem heap_pop(Search *s) {
    HeapItem *h = s->heap.at, top = h[0];
    int n = --s->heap.n;
    h[0] = h[n];
    for (int i = 0;;) {
        int least = i;
        for (int c = 2 * i + 1; c <= 2 * i + 2; c++)
            if (c < n && h[c].cost < h[least].cost) least = c;
        if (least == i) return top;
        HeapItem t = h[i];
        h[i] = h[least];
        h[least] = t;
        i = least;
    }
}

/* ---- moves ------------------------------------------------------------------------------------------------------- */

static int node_find(Search *s, const State *st) {
    uint64_t b = hash_bytes(st, sizeof *st) % STATE_BUCKETS;
    for (int i = s->bucket[b]; i >= 0; i = s->nodes.at[i].next)
        if (same_state(&s->nodes.at[i].state, st)) return i;
    Node n = {.state = *st, .cost = -1, .prev = -1, .next = s->bucket[b]};
    vec_push(s->r->scratch, s->nodes, n);
    return s->bucket[b] = s->nodes.n - 1;
}

static void relax(Search *s, int at, const Layout *before, const Layout *after, Op op, int from, int to,
                  const AxisList *axes) {
    const Mesh *m = s->r->mesh;
    Move mv = {op, from, to, *axes, move_bytes(op, local_bytes(s, before), mesh_size(m, axes)), NULL};
    double cost = s->nodes.at[at].cost + move_seconds(s->r, &mv);
    State st = state_of(after, s->shape->rank);
    int to_node = node_find(s, &st);
    Node *n = &s->nodes.at[to_node];
    if (n->done || (n->cost >= 0 && n->cost <= cost)) return;
    if (op == OP_permute) mv.after = arena_copy(s->r->arena, after->dim, sizeof after->dim);
    n->cost = cost;
    n->prev = at;
    n->move = mv;
    heap_push(s, cost, to_node);
}

static bool fits(const Search *s, const Layout *l, int d, int64_t n) {
    return local_size(s, l, d) % n == 0;
}

static void append(AxisList *to, const AxisList *axes) {
    for (int i = 0; i < axes->n; i++) axes_add(to, axes->at[i]);
}

static bool is_free(const Layout *l, int rank, int axis) {
    for (int d = 0; d < rank; d++)
        if (axes_has(&l->dim[d], axis)) return false;
    return !axes_has(&l->partial, axis);
}

static void expand_slices(Search *s, int at, const Layout *l) {
    for (int i = 0; i < s->axes.n; i++) {
        int a = s->axes.at[i];
        if (!is_free(l, s->shape->rank, a)) continue;
        AxisList one = {1, {(uint8_t)a}};
        for (int d = 0; d < s->shape->rank; d++) {
            if (!fits(s, l, d, mesh_size(s->r->mesh, &one))) continue;
            Layout next = *l;
            axes_add(&next.dim[d], a);
            relax(s, at, l, &next, OP_shard_slice, -1, d, &one);
        }
    }
}

/* all_gather and all_to_all of the last k axes of a dim. */
static void expand_joins(Search *s, int at, const Layout *l) {
    for (int d = 0; d < s->shape->rank; d++)
        for (int k = 1; k <= l->dim[d].n; k++) {
            Layout joined = *l;
            AxisList last = {0};
            joined.dim[d].n = (uint8_t)(l->dim[d].n - k);
            for (int i = joined.dim[d].n; i < l->dim[d].n; i++) axes_add(&last, l->dim[d].at[i]);
            relax(s, at, l, &joined, OP_all_gather, d, -1, &last);
            for (int t = 0; t < s->shape->rank; t++) {
                if (t == d || !fits(s, l, t, mesh_size(s->r->mesh, &last))) continue;
                Layout next = joined;
                append(&next.dim[t], &last);
                relax(s, at, l, &next, OP_all_to_all, d, t, &last);
            }
        }
}

/* The axes of `l` that are partial and not to stay so. */
static AxisList reducible(const Search *s, const Layout *l) {
    AxisList r = {0};
    for (int i = 0; i < l->partial.n; i++)
        if (s->goal.place[l->partial.at[i]] != PARTIAL) axes_add(&r, l->partial.at[i]);
    return r;
}

static Layout without_partial(const Layout *l, const AxisList *axes) {
    Layout next = *l;
    next.partial.n = 0;
    for (int i = 0; i < l->partial.n; i++)
        if (!axes_has(axes, l->partial.at[i])) axes_add(&next.partial, l->partial.at[i]);
    return next;
}

/* reduce_scatter over every ordered choice of partial axes that extends `chosen`. */
static void expand_scatters(Search *s, int at, const Layout *l, const AxisList *from, AxisList chosen) {
    for (int i = 0; i < from->n; i++) {
        if (axes_has(&chosen, from->at[i])) continue;
        AxisList axes = chosen;
        axes_add(&axes, from->at[i]);
        Layout reduced = without_partial(l, &axes);
        for (int d = 0; d < s->shape->rank; d++) {
            if (!fits(s, l, d, mesh_size(s->r->mesh, &axes))) continue;
            Layout next = reduced;
            append(&next.dim[d], &axes);
            relax(s, at, l, &next, OP_reduce_scatter, -1, d, &axes);
        }
        if (axes.n < 4) expand_scatters(s, at, l, from, axes);
    }
}

static void expand_reductions(Search *s, int at, const Layout *l) {
    AxisList from = reducible(s, l);
    for (unsigned set = 1; set < 1u << from.n; set++) {
        AxisList axes = {0};
        for (int i = 0; i < from.n; i++)
            if (set >> i & 1) axes_add(&axes, from.at[i]);
        Layout next = without_partial(l, &axes);
        relax(s, at, l, &next, OP_all_reduce, -1, -1, &axes);
    }
    expand_scatters(s, at, l, &from, (AxisList){0});
}

/* Whether a permute leads from one layout to the other: no dim's block changes size, no partial sum changes. */
static bool permutable(const Search *s, const Layout *a, const Layout *b) {
    for (int d = 0; d < s->shape->rank; d++)
        if (local_size(s, a, d) != local_size(s, b, d)) return false;
    return axes_equal(&a->partial, &b->partial);
}

static void relax_permute(Search *s, int at, const Layout *l, const State *here, const State *st) {
    Layout next = layout_of(st);
    if (!permutable(s, l, &next)) return;
    AxisList moved = {0};
    for (int i = 0; i < s->axes.n; i++) {
        int a = s->axes.at[i];
        if (here->place[a] != st->place[a] || here->order[a] != st->order[a]) axes_add(&moved, a);
    }
    relax(s, at, l, &next, OP_permute, -1, -1, &moved);
}

static void expand_permutes(Search *s, int at, const Layout *l) {
    State here = s->nodes.at[at].state; /* a copy: relax may move the nodes */
    relax_permute(s, at, l, &here, &s->goal);
    for (int i = 0; i < s->axes.n; i++)
        for (int j = 0; j < i; j++) {
            int a = s->axes.at[i], b = s->axes.at[j];
            if (here.place[a] == PARTIAL || here.place[b] == PARTIAL) continue;
            if (here.place[a] == FREE && here.place[b] == FREE) continue;
            State st = here;
            st.place[a] = here.place[b], st.order[a] = here.order[b];
            st.place[b] = here.place[a], st.order[b] = here.order[a];
            relax_permute(s, at, l, &here, &st);
        }
}

/* ---- the search -------------------------------------------------------------------------------------------------- */

static void path_add(ReshardPath *p, Arena *a, const Resharder *r, Move mv) {
    Move *last = p->n > 0 ? &p->move[p->n - 1] : NULL;
    if (last != NULL && mv.op == OP_shard_slice && last->op == mv.op && last->to == mv.to) {
        append(&last->axes, &mv.axes);
        return;
    }
    Move *grown = NEW_ARRAY(a, Move, p->n + 1);
    if (p->n > 0) memcpy(grown, p->move, sizeof(Move) * (size_t)p->n);
    grown[p->n++] = mv;
    p->move = grown;
    p->bytes += mv.bytes;
    p->seconds += move_seconds(r, &mv);
}

/* The way that needs no search. */
static ReshardPath plain_path(Search *s, const State *start) {
    ReshardPath p = {0};
    Arena *a = s->r->arena;
    Layout at = layout_of(start), goal = layout_of(&s->goal);
    AxisList partial = reducible(s, &at);
    if (partial.n > 0) {
        int64_t bytes = move_bytes(OP_all_reduce, local_bytes(s, &at), mesh_size(s->r->mesh, &partial));
        path_add(&p, a, s->r, (Move){OP_all_reduce, -1, -1, partial, bytes, NULL});
        at = without_partial(&at, &partial);
    }
    for (int d = 0; d < s->shape->rank; d++) {
        int keep = axes_common(&at.dim[d], &goal.dim[d]);
        AxisList last = {0};
        for (int i = keep; i < at.dim[d].n; i++) axes_add(&last, at.dim[d].at[i]);
        if (last.n == 0) continue;
        int64_t bytes = move_bytes(OP_all_gather, local_bytes(s, &at), mesh_size(s->r->mesh, &last));
        path_add(&p, a, s->r, (Move){OP_all_gather, d, -1, last, bytes, NULL});
        at.dim[d].n = (uint8_t)keep;
    }
    for (int d = 0; d < s->shape->rank; d++) {
        AxisList more = {0};
        for (int i = at.dim[d].n; i < goal.dim[d].n; i++) axes_add(&more, goal.dim[d].at[i]);
        if (more.n > 0) path_add(&p, a, s->r, (Move){OP_shard_slice, -1, d, more, 0, NULL});
    }
    return p;
}

static ReshardPath path_to(Search *s, int node) {
    ReshardPath p = {0};
    VEC(int) back = {0};
    for (int i = node; s->nodes.at[i].prev >= 0; i = s->nodes.at[i].prev) vec_push(s->r->scratch, back, i);
    for (int i = back.n - 1; i >= 0; i--) path_add(&p, s->r->arena, s->r, s->nodes.at[back.at[i]].move);
    return p;
}

static ReshardPath search(Search *s, const State *start) {
    for (int i = 0; i < STATE_BUCKETS; i++) s->bucket[i] = -1;
    int first = node_find(s, start);
    s->nodes.at[first].cost = 0;
    heap_push(s, 0, first);
    while (s->heap.n > 0 && s->nodes.n < MAX_STATES) {
        int at = heap_pop(s).node;
        if (s->nodes.at[at].done) continue;
        s->nodes.at[at].done = true;
        if (same_state(&s->nodes.at[at].state, &s->goal)) return path_to(s, at);
        Layout l = layout_of(&s->nodes.at[at].state);
        expand_slices(s, at, &l);
        expand_joins(s, at, &l);
        expand_reductions(s, at, &l);
        expand_permutes(s, at, &l);
    }
    return plain_path(s, start);
}

/* ---- the interface ----------------------------------------------------------------------------------------------- */

Resharder *resharder_new(Arena *a, const Mesh *m, const Topology *topo) {
    Resharder *r = NEW(a, Resharder);
    r->arena = a;
    r->scratch = a;
    r->mesh = m;
    r->topo = topo;
    return r;
}

const Mesh *resharder_mesh(const Resharder *r) {
    return r->mesh;
}
const Topology *resharder_topology(const Resharder *r) {
    return r->topo;
}

/* Takes the common major axes of each dim off both sides, and into `fixed`; sizes become those of the blocks. */
static void strip_common(const Mesh *m, Shape *shape, Layout *a, Layout *b, AxisList *fixed) {
    for (int d = 0; d < shape->rank; d++) {
        AxisList *both[] = {&a->dim[d], &b->dim[d]};
        int n = axes_common(both[0], both[1]);
        for (int i = 0; i < n; i++) axes_add(&fixed[d], both[0]->at[i]);
        for (int side = 0; side < 2; side++) {
            AxisList rest = {0};
            for (int i = n; i < both[side]->n; i++) axes_add(&rest, both[side]->at[i]);
            *both[side] = rest;
        }
        shape->size[d] /= mesh_size(m, &fixed[d]);
    }
}

/* Puts them in front again where a move says where all axes are. */
static void restore_common(const Resharder *r, const ReshardPath *p, int rank, const AxisList *fixed) {
    for (int i = 0; i < p->n; i++) {
        if (p->move[i].after == NULL) continue;
        AxisList *after = arena_alloc(r->arena, sizeof *after * MAX_RANK);
        for (int d = 0; d < rank; d++) {
            after[d] = fixed[d];
            append(&after[d], &p->move[i].after[d]);
        }
        p->move[i].after = after;
    }
}

static ReshardPath find_path(Resharder *r, Shape *shape, Layout *from, Layout *to) {
    AxisList fixed[MAX_RANK] = {0};
    strip_common(r->mesh, shape, from, to, fixed);
    State start = state_of(from, shape->rank);
    Search *s = NEW(r->scratch, Search);
    s->r = r;
    s->shape = shape;
    s->goal = state_of(to, shape->rank);
    for (int axis = 0; axis < r->mesh->n; axis++)
        if (start.place[axis] != FREE || s->goal.place[axis] != FREE) axes_add(&s->axes, axis);
    ReshardPath p = search(s, &start);
    restore_common(r, &p, shape->rank, fixed);
    return p;
}

const ReshardPath *reshard_path(Resharder *r, const Type *from, const Type *to) {
    Shape shape;
    memset(&shape, 0, sizeof shape); /* hashed and compared by its bytes */
    shape.rank = from->rank;
    shape.elem = dtype_bytes(from->dtype);
    for (int d = 0; d < from->rank; d++) shape.size[d] = from->dim[d].size;
    Layout a = layout_of_type(from), b = layout_of_type(to);
    State start = state_of(&a, shape.rank), goal = state_of(&b, shape.rank);
    uint64_t h = hash_bytes(&start, sizeof start) * 31 + hash_bytes(&goal, sizeof goal);
    h = (h * 31 + hash_bytes(&shape, sizeof shape)) % MEMO_BUCKETS;
    for (Memo *m = r->memo[h]; m != NULL; m = m->next)
        if (same_state(&m->from, &start) && same_state(&m->to, &goal) && memcmp(&m->shape, &shape, sizeof shape) == 0)
            return &m->path;
    Memo *m = NEW(r->arena, Memo);
    m->shape = shape;
    m->from = start;
    m->to = goal;
    m->next = r->memo[h];
    m->path = find_path(r, &shape, &a, &b);
    r->memo[h] = m;
    return &m->path;
}

static void remove_axes(AxisList *l, const AxisList *axes) {
    AxisList keep = {0};
    for (int i = 0; i < l->n; i++)
        if (!axes_has(axes, l->at[i])) axes_add(&keep, l->at[i]);
    *l = keep;
}

Type move_apply(const Move *mv, const Type *t) {
    Type r = *t;
    if (mv->from >= 0) remove_axes(&r.dim[mv->from].axes, &mv->axes);
    if (mv->op == OP_all_reduce || mv->op == OP_reduce_scatter) remove_axes(&r.partial, &mv->axes);
    if (r.partial.n == 0) r.partial_kind = PARTIAL_none;
    if (mv->to >= 0) append(&r.dim[mv->to].axes, &mv->axes);
    for (int d = 0; d < r.rank && mv->after != NULL; d++) r.dim[d].axes = mv->after[d];
    for (int d = 0; d < r.rank; d++) r.dim[d].pinned = r.dim[d].axes.n > 0;
    return r;
}
