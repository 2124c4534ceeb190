/* mincut.c: minimum vertex cut by maximum flow (Ford and Fulkerson 1956; shortest augmenting paths: Edmonds and Karp
 * 1972).
 *
 * A node of weight w is an edge of capacity w from its entry to its exit; other edges have no limit. After the flow is
 * maximal, the vertices that can still reach the sink are on the sink's side, and a node whose edge crosses is cut: of
 * all minimal cuts the one nearest to the sinks. Sources are served by a vertex 0, sinks by a vertex 1. Cost: O(V E^2)
 * at worst; graphs here are loop bodies of some hundred nodes. */
#include "mincut.h"

enum { SOURCE, SINK, FIRST };

typedef struct FlowEdge {
    int to, next;     /* next edge of the same vertex, -1: none */
    int64_t capacity; /* what is left of it; the edge at index ^ 1 is its reverse */
} FlowEdge;

struct MinCut {
    Arena *arena;
    VEC(FlowEdge) edge;
    VEC(int) first; /* edge of each vertex */
    bool *sink_side;
};

#define UNLIMITED (INT64_MAX / 4)

static int entry(int node) {
    return FIRST + 2 * node;
}
static int exit_of(int node) {
    return FIRST + 2 * node + 1;
}

static void connect(MinCut *c, int from, int to, int64_t capacity) {
    vec_push(c->arena, c->edge, ((FlowEdge){to, c->first.at[from], capacity}));
    c->first.at[from] = c->edge.n - 1;
    vec_push(c->arena, c->edge, ((FlowEdge){from, c->first.at[to], 0}));
    c->first.at[to] = c->edge.n - 1;
}

MinCut *mincut_new(Arena *a) {
    MinCut *c = NEW(a, MinCut);
    c->arena = a;
    vec_push(a, c->first, -1);
    vec_push(a, c->first, -1);
    return c;
}

int mincut_node(MinCut *c, int64_t weight) {
    int node = (c->first.n - FIRST) / 2;
    vec_push(c->arena, c->first, -1);
    vec_push(c->arena, c->first, -1);
    connect(c, entry(node), exit_of(node), weight);
    return node;
}

void mincut_edge(MinCut *c, int from, int to) {
    connect(c, exit_of(from), entry(to), UNLIMITED);
}
void mincut_source(MinCut *c, int node) {
    connect(c, SOURCE, entry(node), UNLIMITED);
}
void mincut_sink(MinCut *c, int node) {
    connect(c, exit_of(node), SINK, UNLIMITED);
}

/* The edge by which a shortest path from the source enters each vertex, -1: unreached. */
static bool find_path(const MinCut *c, int *by, int *queue) {
    for (int v = 0; v < c->first.n; v++) by[v] = -1;
    int head = 0, tail = 0;
    queue[tail++] = SOURCE;
    while (head < tail) {
        int v = queue[head++];
        for (int e = c->first.at[v]; e >= 0; e = c->edge.at[e].next) {
            int to = c->edge.at[e].to;
            if (c->edge.at[e].capacity == 0 || by[to] >= 0 || to == SOURCE) continue;
            by[to] = e;
            if (to == SINK) return true;
            queue[tail++] = to;
        }
    }
    return false;
}

static void augment(MinCut *c, const int *by) {
    int64_t most = UNLIMITED;
    for (int v = SINK; v != SOURCE; v = c->edge.at[by[v] ^ 1].to)
        if (c->edge.at[by[v]].capacity < most) most = c->edge.at[by[v]].capacity;
    for (int v = SINK; v != SOURCE; v = c->edge.at[by[v] ^ 1].to) {
        c->edge.at[by[v]].capacity -= most;
        c->edge.at[by[v] ^ 1].capacity += most;
    }
}

/* Against the edges from the sink: who can still reach it. */
static void mark_sink_side(MinCut *c, int *queue) {
    int head = 0, tail = 0;
    queue[tail++] = SINK;
    c->sink_side[SINK] = true;
    while (head < tail) {
        int v = queue[head++];
        for (int e = c->first.at[v]; e >= 0; e = c->edge.at[e].next) {
            int from = c->edge.at[e].to;
            if (c->edge.at[e ^ 1].capacity == 0 || c->sink_side[from]) continue;
            c->sink_side[from] = true;
            queue[tail++] = from;
        }
    }
}

void mincut_solve(MinCut *c) {
    int *by = NEW_ARRAY(c->arena, int, c->first.n), *queue = NEW_ARRAY(c->arena, int, c->first.n);
    c->sink_side = NEW_ARRAY(c->arena, bool, c->first.n);
    while (find_path(c, by, queue)) augment(c, by);
    mark_sink_side(c, queue);
}

bool mincut_has(const MinCut *c, int node) {
    return c->sink_side[exit_of(node)] && !c->sink_side[entry(node)];
}
