/* mincut.h: which nodes to cut so that nothing flows from the sources to the sinks, at the least weight; private to
 * passes/. */
#ifndef MOECC_MINCUT_H
#define MOECC_MINCUT_H

#include "ir.h"

typedef struct MinCut MinCut;

MinCut *mincut_new(Arena *a);
/* A node, and what it costs to cut it; returns its number, from 0. */
int mincut_node(MinCut *c, int64_t weight);
/* What flows out of `from` flows into `to`. */
void mincut_edge(MinCut *c, int from, int to);
void mincut_source(MinCut *c, int node);
void mincut_sink(MinCut *c, int node);
/* The cheapest set of nodes; among equally cheap ones that nearest to the sinks. */
void mincut_solve(MinCut *c);
bool mincut_has(const MinCut *c, int node);

#endif
