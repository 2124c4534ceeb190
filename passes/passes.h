/* passes.h: the folder's public header: the runner, the topology, the reports. */
#ifndef MOECC_PASSES_H
#define MOECC_PASSES_H

#include "ir.h"

typedef struct Topology Topology;

/* Where shardings came from, which `propagate` records (origins.c). */
typedef struct Origins Origins;
Origins *origins_new(Arena *a);

typedef struct PassOptions {
    const char *dump_after; /* pass id or "all", NULL: none; dumps go to stderr */
    const char *stop_after; /* pass id, NULL: run to the end */
    bool time_passes;
    bool verify_each;    /* also round-trip the text after every pass */
    bool no_fuse;        /* -O0 */
    bool explain_onehot; /* say, to stderr, what became of each one-hot einsum */
    Origins *origins;    /* filled by propagate, NULL: nobody asks, and nothing is warned of */
} PassOptions;

typedef struct PassCtx {
    Arena *scratch; /* reset after every pass */
    const PassOptions *opt;
    const Topology *topo;
} PassCtx;

#define PASS(id, from, to, doc) bool pass_##id(Module *m, PassCtx *ctx); /* whether anything changed */
#include "passes.def"
#undef PASS

/* Runs the table from the module's phase on (or from pass `start_at`). Returns false after a user's error. `after_each`
 * may be NULL: called with the pass's id after each pass (the semantic-preservation test). */
bool passes_run(Module *m, const char *start_at, const PassOptions *opt, const Topology *topo,
                void (*after_each)(Module *, const char *pass, void *), void *data);
void passes_list(FILE *out);
bool passes_has(const char *id);

/* ---- topology (hwloc) and what it costs ---------------------------------------------------------------------------
 */

/* `spec`: "auto", an hwloc synthetic string, or an hwloc XML file. NULL and *error on a bad one. */
Topology *topology_load(Arena *a, const char *spec, const char **error);
/* Devices are leaves in order; level 0 is the innermost that two devices share (an L3, a NUMA node, a package, …). */
int topology_levels(const Topology *t);
const char *topology_level_name(const Topology *t, int level);
/* Deepest level needed to connect the devices of a group over these mesh axes. Device d of D lies on core
 * d * cores / D. */
int topology_level_of(const Topology *t, const Mesh *m, const AxisList *axes);
const char *topology_summary(const Topology *t);

/* Seconds that one device spends in a collective (alpha-beta), given the bytes it receives. */
double cost_collective(const Topology *t, const Mesh *m, Op op, const AxisList *axes, int64_t bytes_received);
double cost_flops(const Topology *t, double flops);
/* Bytes that one device receives in an instruction that moves data between devices; 0 for others. */
int64_t inst_bytes_received(const Mesh *m, const Inst *inst);
/* The mesh axes that it runs over: its attribute, or for a permute those that change place. */
AxisList inst_axes(const Mesh *m, const Inst *inst);
/* Multiplications and additions of one device, regions and their repetition included. */
double inst_flops(const Mesh *m, const Inst *inst);
/* Seconds of one device in one execution: roofline, or alpha-beta for a collective. A loop itself costs nothing: its
 * instructions do. */
double cost_inst(const Topology *t, const Mesh *m, const Inst *inst);

/* ---- reports (of a module from PLACED on, or as each says) -------------------------------------------------------
 */

/* --plan. `origins` may be NULL: reasons then end at instructions instead of annotations. */
char *plan_report(const Module *m, const Topology *t, const Origins *origins, bool json, Arena *a);
/* `moecc diff`: two plans side by side. */
char *plan_diff(const Module *m, const Module *n, const Topology *t, Arena *a);
/* --explain-sharding. NULL after an error: nothing has that name. */
char *explain_sharding(const Module *m, const Topology *t, const Origins *origins, const char *name, Arena *a);
/* --show: which device holds which block; from SHARDED on. NULL after an error. */
char *show_blocks(const Module *m, const char *name, bool svg, Arena *a);
/* --emit=dot: for Graphviz; any phase. */
char *graph_dot(const Module *m, Arena *a);

/* What a plan may cost. */
typedef struct Budget {
    int64_t memory;     /* of one device, -1: any (checked from PLANNED on) */
    int64_t bytes;      /* received by one device in one call, -1: any */
    const char *forbid; /* "all_gather,permute", NULL: none */
} Budget;

/* The first name of the list that is no collective, NULL: all are. */
const char *budget_unknown(const char *forbid, Arena *a);
/* False after an error for each breach, with what is to blame. */
bool budget_check(const Module *m, const Topology *t, const Origins *origins, const Budget *b, Arena *a);

#endif
