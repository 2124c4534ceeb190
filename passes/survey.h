/* survey.h: private to the reports: a plan's figures, gathered once and printed in several forms. */
#ifndef MOECC_SURVEY_H
#define MOECC_SURVEY_H

#include "origins.h"

/* Two shardings of one value that meet: what a run of collectives stands between. */
typedef struct Crossing {
    const Value *from, *to;    /* before the first move and after the last */
    const Inst *user;          /* the first to use it then, NULL: none in the block */
    const char *giver, *taker; /* "einsum", "param w", "result y" */
    const char *given, *taken; /* the shardings: "E@expert B@data", "whole" */
    bool giver_known, taker_known;
    Loc giver_at, taker_at; /* the annotations that required them, where known */
} Crossing;

/* The crossing that a collective (or local slice) is part of. */
Crossing crossing_of(const Module *m, const Origins *o, const Func *f, const Inst *move, Arena *a);
/* One sentence of it, for people. */
const char *crossing_text(const Crossing *c, Arena *a);
/* Whether the instruction only changes which device holds what. */
bool is_move(const Inst *inst);

typedef struct CollRow {
    const Inst *inst;
    AxisList axes;
    int level;
    int64_t bytes; /* received by one device, once */
    double times;  /* in one call */
    Crossing why;
} CollRow;

/* A stretch of a function's memory that is in use when most is. */
typedef struct PeakRow {
    int64_t bytes;      /* of one device */
    const Value *value; /* the largest in it */
    Loc loc;
} PeakRow;

typedef struct Peak {
    VEC(PeakRow) rows; /* largest first */
    int64_t bytes;     /* their sum */
    Loc loc;           /* of the instruction that runs then */
} Peak;

/* What lives when most lives; from PLANNED on. Variables are not among the rows. The module is the caller's to lose. */
Peak peak_of(Module *m, const Func *f, Arena *a);

typedef struct FuncPlan {
    const Func *func;
    VEC(CollRow) colls;
    double received; /* bytes of one device in one call */
    double flops;
    double compute, communication; /* seconds */
    Peak peak;
} FuncPlan;

typedef struct Survey {
    const Module *m;
    const Topology *topo;
    const Origins *origins;
    Arena *arena;
    FuncPlan *plan; /* by function */
    int64_t vars_bytes;
} Survey;

Survey survey_plan(const Module *m, const Topology *topo, const Origins *origins, Arena *a);
/* Writes the best order of the mesh's axes; returns seconds saved per call of every function, 0 when none is better. */
double survey_better_order(const Survey *r, int *best);
/* A mesh with the same axes in another order: axis i is the old axis order[i]. */
Mesh mesh_ordered(const Mesh *m, const int *order);

/* "data, expert" */
const char *survey_axes(const Mesh *m, const AxisList *axes, Arena *a);
/* "train loss" */
const char *survey_func(const Func *f, Arena *a);
const char *func_kind(const Func *f);
const char *var_kind(const Var *v);
/* The level within which an axis's devices lie. */
const char *survey_level(const Survey *r, int axis);

/* The forms of the report. */
char *report_text(const Survey *r);
char *report_json(const Survey *r);

#endif
