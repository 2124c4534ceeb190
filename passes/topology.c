/* topology.c: the machine as levels: which devices are near each other, and what distance costs.
 *
 * hwloc reads this machine, an XML export of another, or a synthetic description, and gives a tree with caches, NUMA
 * nodes, packages. The tree is flattened: a level is a partition of the cores (two cores in one group share an object
 * of that kind), from the innermost to the whole machine. Levels that group nothing, or exactly what the level inside
 * groups, are left out; NUMA nodes, which hwloc hangs beside the tree, take their place by the size of their groups.
 *
 * Devices lie on the cores in order, device d of D on core d * cores / D: what the runtime binds. So a mesh axis's
 * place in the mesh decides which level its collectives cross.
 *
 * Costs by kind of level are constants of the kind of machine, not measurements of this one: what they are for is
 * choosing between plans, and that a plan does not depend on where it was made.
 * Cost: cores x levels to load; devices x levels for the first question about some mesh axes, then O(1). */
#include <hwloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "support/str.h"
#include "topology.h"

enum { MAX_LEAVES = 1 << 16 }; /* of a synthetic description */

typedef struct Level {
    const char *name;
    LinkCost cost;
    int groups;
    int *group_of; /* by core */
} Level;

/* Answers of topology_level_of for one mesh, by bit set of axes; -1: not asked yet. */
typedef struct Memo {
    Mesh mesh;
    signed char level[1 << MAX_AXES];
} Memo;

struct Topology {
    int cores;
    int nlevels;
    Level *level; /* innermost first */
    const char *summary;
    Memo *memo;
};

typedef struct LevelKind {
    hwloc_obj_type_t type;
    const char *name;
    LinkCost cost;
} LevelKind;

/* Copies between threads: a cache's share of its bandwidth, then memory's, then what crosses sockets. */
static const LevelKind level_kinds[] = {
    {HWLOC_OBJ_L1CACHE, "L1", {0.3e-6, 40e9}},       {HWLOC_OBJ_L2CACHE, "L2", {0.4e-6, 30e9}},
    {HWLOC_OBJ_L3CACHE, "L3", {0.6e-6, 20e9}},       {HWLOC_OBJ_L4CACHE, "L4", {0.6e-6, 16e9}},
    {HWLOC_OBJ_DIE, "die", {0.8e-6, 12e9}},          {HWLOC_OBJ_GROUP, "group", {0.8e-6, 12e9}},
    {HWLOC_OBJ_NUMANODE, "NUMA node", {1e-6, 10e9}}, {HWLOC_OBJ_PACKAGE, "package", {1e-6, 10e9}},
    {HWLOC_OBJ_MACHINE, "machine", {1.5e-6, 6e9}},
};
static const LinkCost usual_cost = {1.5e-6, 6e9};

static const LevelKind *level_kind(hwloc_obj_type_t type) {
    for (size_t i = 0; i < sizeof level_kinds / sizeof *level_kinds; i++)
        if (level_kinds[i].type == type) return &level_kinds[i];
    return NULL;
}

/* ---- from hwloc's tree to levels --------------------------------------------------------------------------------- */

typedef struct Loading {
    Arena *arena;
    hwloc_topology_t tree;
    hwloc_obj_type_t leaf; /* core, or processing unit where the description has no cores */
    Topology *t;
    VEC(Level) levels;
} Loading;

static hwloc_obj_t leaf(const Loading *l, int core) {
    return hwloc_get_obj_by_type(l->tree, l->leaf, (unsigned)core);
}

/* Adds the level whose group of a core is the number that `group` gives; unless it groups nothing. */
static void add_level(Loading *l, const LevelKind *kind, int groups, int (*group)(const Loading *, int core, int depth),
                      int depth) {
    if (kind == NULL || groups < 1 || (groups >= l->t->cores && kind->type != HWLOC_OBJ_MACHINE)) return;
    Level level = {kind->name, kind->cost, groups, NEW_ARRAY(l->arena, int, l->t->cores)};
    for (int c = 0; c < l->t->cores; c++) level.group_of[c] = group(l, c, depth);
    /* Kept in order, inner ones first; of two alike the inner kind, which is met first, stays. */
    int at = 0;
    while (at < l->levels.n && l->levels.at[at].groups > groups) at++;
    if (at < l->levels.n && l->levels.at[at].groups == groups) return;
    vec_push(l->arena, l->levels, level);
    for (int i = l->levels.n - 1; i > at; i--) l->levels.at[i] = l->levels.at[i - 1];
    l->levels.at[at] = level;
}

static int group_by_depth(const Loading *l, int core, int depth) {
    hwloc_obj_t up = hwloc_get_ancestor_obj_by_depth(l->tree, depth, leaf(l, core));
    return up == NULL ? 0 : (int)up->logical_index;
}

static int group_by_node(const Loading *l, int core, int depth) {
    (void)depth;
    return hwloc_bitmap_first(leaf(l, core)->nodeset);
}

/* hwloc's anonymous groups come last: it makes one around a NUMA node, whose name says more. */
static void find_levels(Loading *l) {
    int depth_of_leaf = hwloc_get_type_depth(l->tree, l->leaf);
    for (int anonymous = 0; anonymous <= 1; anonymous++) {
        for (int depth = depth_of_leaf - 1; depth >= 0; depth--) {
            hwloc_obj_type_t type = hwloc_get_depth_type(l->tree, depth);
            if ((type == HWLOC_OBJ_GROUP) != anonymous) continue;
            add_level(l, level_kind(type), (int)hwloc_get_nbobjs_by_depth(l->tree, depth), group_by_depth, depth);
        }
        add_level(l, level_kind(HWLOC_OBJ_NUMANODE), hwloc_get_nbobjs_by_type(l->tree, HWLOC_OBJ_NUMANODE),
                  group_by_node, 0);
    }
    l->t->level = l->levels.at;
    l->t->nlevels = l->levels.n;
}

static const char *summarize(const Loading *l) {
    Str s = str_new(l->arena);
    str_addf(&s, "%d core%s", l->t->cores, l->t->cores == 1 ? "" : "s");
    for (int i = 0; i < l->t->nlevels; i++)
        str_addf(&s, ", %d %s%s", l->t->level[i].groups, l->t->level[i].name, l->t->level[i].groups == 1 ? "" : "s");
    return s.at;
}

/* Whether the counts of "pack:2 core:4(…)" multiply to a machine that hwloc can build in a moment. */
static bool small_enough(const char *spec) {
    double leaves = 1;
    for (const char *p = spec; (p = strpbrk(p, ":(")) != NULL; p++) {
        if (*p == '(') p += strcspn(p, ")") - 1;
        if (*p == ':') leaves *= strtod(p + 1, NULL);
    }
    return leaves <= MAX_LEAVES;
}

/* Tells hwloc where to read; false when it refuses. */
static bool set_source(hwloc_topology_t tree, const char *spec) {
    struct stat st;
    if (strcmp(spec, "auto") == 0) return true;
    if (stat(spec, &st) != 0) return small_enough(spec) && hwloc_topology_set_synthetic(tree, spec) == 0;
    return S_ISREG(st.st_mode) && hwloc_topology_set_xml(tree, spec) == 0;
}

static Topology *flatten(Arena *a, hwloc_topology_t tree, const char **error) {
    Loading l = {.arena = a, .tree = tree, .leaf = HWLOC_OBJ_CORE, .t = NEW(a, Topology)};
    if (hwloc_get_nbobjs_by_type(tree, HWLOC_OBJ_CORE) < 1) l.leaf = HWLOC_OBJ_PU;
    l.t->cores = hwloc_get_nbobjs_by_type(tree, l.leaf);
    if (l.t->cores < 1 || l.t->cores > MAX_DEVICES) {
        *error = "it describes no cores, or too many";
        return NULL;
    }
    find_levels(&l);
    l.t->summary = summarize(&l);
    l.t->memo = NEW(a, Memo);
    return l.t;
}

Topology *topology_load(Arena *a, const char *spec, const char **error) {
    hwloc_topology_t tree;
    Topology *t = NULL;
    *error = "hwloc cannot start";
    if (hwloc_topology_init(&tree) != 0) return NULL;
    *error = "neither an hwloc XML file nor a synthetic description such as \"pack:2 core:4 pu:1\"";
    if (set_source(tree, spec) && hwloc_topology_load(tree) == 0) t = flatten(a, tree, error);
    hwloc_topology_destroy(tree);
    if (t != NULL) *error = NULL;
    return t;
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

int topology_levels(const Topology *t) {
    return t == NULL ? 1 : t->nlevels;
}
const char *topology_level_name(const Topology *t, int level) {
    return t == NULL ? "machine" : t->level[level].name;
}
const char *topology_summary(const Topology *t) {
    return t == NULL ? "a machine" : t->summary;
}
LinkCost topology_cost(const Topology *t, int level) {
    return t == NULL ? usual_cost : t->level[level].cost;
}
int topology_cores(const Topology *t) {
    return t == NULL ? 1 : t->cores;
}

static bool together(const Topology *t, int level, int64_t devices, int64_t a, int64_t b) {
    const int *group_of = t->level[level].group_of;
    return group_of[a * t->cores / devices] == group_of[b * t->cores / devices];
}

/* Every device is compared with the first of its group. */
static int deepest_level(const Topology *t, const Mesh *m, unsigned axes) {
    int64_t devices = mesh_devices(m);
    int level = 0;
    for (int64_t d = 0; d < devices && level < t->nlevels - 1; d++) {
        int64_t first = d, stride = 1;
        for (int x = m->n - 1; x >= 0; stride *= m->size[x--])
            if (axes >> x & 1) first -= mesh_coord(m, d, x) * stride;
        while (level < t->nlevels - 1 && !together(t, level, devices, first, d)) level++;
    }
    return level;
}

static bool same_sizes(const Mesh *a, const Mesh *b) {
    return a->n == b->n && memcmp(a->size, b->size, sizeof *a->size * (size_t)a->n) == 0;
}

int topology_level_of(const Topology *t, const Mesh *m, const AxisList *axes) {
    if (t == NULL) return 0;
    unsigned bits = 0;
    for (int i = 0; i < axes->n; i++) bits |= 1u << axes->at[i];
    if (!same_sizes(&t->memo->mesh, m)) {
        t->memo->mesh = *m;
        memset(t->memo->level, -1, sizeof t->memo->level);
    }
    signed char *level = &t->memo->level[bits];
    if (*level < 0) *level = (signed char)deepest_level(t, m, bits);
    return *level;
}
