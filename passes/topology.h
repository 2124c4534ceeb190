/* topology.h: private to passes: a topology as the cost model sees it. */
#ifndef MOECC_TOPOLOGY_H
#define MOECC_TOPOLOGY_H

#include "passes.h"

/* What moving data through a level costs one device: seconds before the first byte, and bytes a second after. */
typedef struct LinkCost {
    double latency, bandwidth;
} LinkCost;

/* A topology of NULL, which unit tests use, is one machine of typical cost. */
LinkCost topology_cost(const Topology *t, int level);
/* Number of cores that the devices share. */
int topology_cores(const Topology *t);

#endif
