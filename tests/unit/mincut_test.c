/* mincut_test.c: the cut against all subsets of nodes, on many small graphs. */
#include "mincut.h"

#include "irtest.h"

enum { NODES = 8 };

typedef struct Graph {
    int n, sources, sinks; /* bit sets */
    int64_t weight[NODES];
    int into[NODES]; /* what flows into a node: bit set */
} Graph;

static uint32_t state_of_draws = 1;
static int draw(int below) {
    state_of_draws = state_of_draws * 1664525u + 1013904223u;
    return (int)((state_of_draws >> 8) % (uint32_t)below);
}

static Graph graph_draw(void) {
    Graph g = {.n = 2 + draw(NODES - 1)};
    for (int k = 0; k < g.n; k++) {
        g.weight[k] = 1 + draw(9);
        if (draw(3) == 0) g.sources |= 1 << k;
        if (draw(3) == 0) g.sinks |= 1 << k;
        for (int j = 0; j < k; j++)
            if (draw(2) == 0) g.into[k] |= 1 << j;
    }
    return g;
}

/* Nodes are in topological order. */
static bool separates(const Graph *g, int cut) {
    int flows = 0;
    for (int k = 0; k < g->n; k++) {
        bool reached = (g->sources >> k & 1) != 0 || (g->into[k] & flows) != 0;
        if (reached && !(cut >> k & 1)) flows |= 1 << k;
    }
    return (flows & g->sinks) == 0;
}

static int64_t cut_weight(const Graph *g, int cut) {
    int64_t sum = 0;
    for (int k = 0; k < g->n; k++) sum += cut >> k & 1 ? g->weight[k] : 0;
    return sum;
}

static void test_against_all_subsets(void **state) {
    for (int round = 0; round < 2000; round++) {
        Arena *a = arena_new();
        Graph g = graph_draw();
        MinCut *c = mincut_new(a);
        for (int k = 0; k < g.n; k++) assert_int_equal(mincut_node(c, g.weight[k]), k);
        for (int k = 0; k < g.n; k++) {
            if (g.sources >> k & 1) mincut_source(c, k);
            if (g.sinks >> k & 1) mincut_sink(c, k);
            for (int j = 0; j < k; j++)
                if (g.into[k] >> j & 1) mincut_edge(c, j, k);
        }
        mincut_solve(c);
        int cut = 0;
        for (int k = 0; k < g.n; k++) cut |= mincut_has(c, k) << k;
        assert_true(separates(&g, cut));
        for (int other = 0; other < 1 << g.n; other++)
            if (separates(&g, other)) assert_true(cut_weight(&g, cut) <= cut_weight(&g, other));
        arena_free(a);
    }
}

/* Equal weights along a chain: the last one is cut, since what comes after it need not be computed again. */
static void test_nearest_to_the_sinks(void **state) {
    Arena *a = arena_new();
    MinCut *c = mincut_new(a);
    for (int k = 0; k < 3; k++) mincut_node(c, 5);
    mincut_source(c, 0);
    mincut_edge(c, 0, 1);
    mincut_edge(c, 1, 2);
    mincut_sink(c, 2);
    mincut_solve(c);
    assert_false(mincut_has(c, 0));
    assert_false(mincut_has(c, 1));
    assert_true(mincut_has(c, 2));
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_all_subsets),
        cmocka_unit_test(test_nearest_to_the_sinks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
