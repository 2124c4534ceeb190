/* rt.h: what the runtime's files share; generated code never sees it. Read team.c and comm_local.c first.
 *
 * Threads. The main thread parses, maps files and prints; it sleeps while a job runs on the team (team_run). Only jobs
 * touch arenas. A worker that fails calls worker_fail: every other worker then leaves its next wait, the job ends, and
 * team_run returns false with a message; the team is of no further use.
 *
 * Errors of the user's input are sentences in an Error; nothing in the library prints or exits but cli.c and
 * progress.c. */
#ifndef MOE_RUNTIME_RT_H
#define MOE_RUNTIME_RT_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>

#include "moe_rt.h"

/* ---- errors ------------------------------------------------------------------------------------------------- */

typedef struct Error {
    char text[512]; /* "" while all is well */
} Error;

/* Keeps the first error. Always false, so that `return error_set(...)` reads well. */
bool error_set(Error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* malloc and friends for sizes that are known to be sane: they end the program when memory runs out. */
void *xmalloc(size_t bytes);
void *xcalloc(size_t n, size_t size);
char *xformat(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- the team (team.c) -------------------------------------------------------------------------------------- */

/* A number that only grows and that threads may wait for. Comparisons are modulo 2^32. */
typedef struct Gate {
    _Alignas(64) _Atomic uint32_t value;
    _Atomic uint32_t waiters;
} Gate;

/* Counts the workers of a device; the last one opens the gate. */
typedef struct Meeting {
    _Alignas(64) _Atomic uint32_t arrived;
    Gate gate;
} Meeting;

typedef struct Device {
    char *arena;     /* NULL: another process's device */
    const char *src; /* published by the collective under way */
    char *dst;
    int coll; /* its number, and that of the all_reduce by parts, for comm_ranks.c */
    uint32_t round;
    Gate published;  /* number of the last collective whose src and dst stand */
    Meeting reduced; /* … whose own part of dst stands (all_reduce by parts) */
    Meeting done;    /* … after which it reads no other device's memory */
    Meeting barrier;
} Device;

typedef struct Team Team;
typedef struct GemmSlot GemmSlot;
typedef struct CollPlan CollPlan;

typedef struct Worker {
    MoeWorker pub; /* first: generated code holds a pointer to it */
    Team *team;
    Device *dev;
    uint32_t rounds;   /* barriers passed */
    uint32_t parts;    /* all_reduces by parts passed */
    GemmSlot *gemm;    /* per moe_program.gemms, made at first use */
    void *gemm_engine; /* and what they need */
    char *scratch;
    size_t scratch_bytes;
    jmp_buf on_fail;
    unsigned long thread;
} Worker;

typedef void (*Job)(Worker *w, void *ctx);

struct Team {
    const MoeProgram *program;
    int devices, workers; /* workers of each device */
    int first, local;     /* devices of this process */
    int core;             /* the first one that they are bound to */
    bool fits;            /* no more threads than cores: they are bound, and spin longer */
    Device *device;
    Worker *worker; /* [local * workers] */
    CollPlan *coll; /* per program->colls */
    size_t arena_bytes;
    uint64_t chaos; /* MOE_CHAOS: seed of random delays, 0: none */
    Job job;
    void *ctx;
    Gate start, finished;
    Gate bell;               /* rung for the main thread: a crossing is posted, or the job is done */
    _Atomic uint32_t posted; /* devices that have posted, over all crossings' phases */
    uint32_t served;         /* phases served */
    int phase;               /* of the next one */
    size_t image_bytes;      /* of another process's device, twice */
    _Atomic uint32_t running;
    _Atomic bool stop, failed;
    Error error;
    void *topology;
};

/* workers 0: max(1, cores / devices). Arenas of arena_bytes, zero. NULL and an error when memory or threads run out. */
Team *team_new(const MoeProgram *p, int workers, size_t arena_bytes, Error *e);
void team_free(Team *t);
/* Runs job on every worker; false when one failed (t->error says why). */
bool team_run(Team *t, Job job, void *ctx);
_Noreturn void worker_fail(Worker *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void gate_wait(Worker *w, Gate *g, uint32_t target);
void gate_open(Gate *g, uint32_t value);
void gate_ring(Gate *g); /* one more, by any of several writers */
/* The worker has reached `round` (counted from 1); the gate opens when all of its device have: then true. */
bool meeting_arrive(Worker *w, Meeting *m, uint32_t round);
void chaos_delay(Worker *w, unsigned place);

/* ---- shapes (layout.c) -------------------------------------------------------------------------------------- */

int dtype_size(MoeDType t);
const char *dtype_text(MoeDType t);
int64_t mesh_product(const MoeProgram *p, const MoeAxes *axes);
/* Position of the device along the axes, major first. */
int64_t mesh_position(const MoeProgram *p, const int64_t *coord, const MoeAxes *axes);
void mesh_coord(const MoeProgram *p, int device, int64_t *coord);

int64_t tensor_elements(const MoeTensor *t); /* global */
/* The device's block: sizes and first index of each axis. Returns its number of elements. */
int64_t tensor_block(const MoeProgram *p, const MoeTensor *t, int device, int64_t *size, int64_t *start);
/* Slice i of a stacked variable as a tensor of its own; false when the device does not hold it. */
bool var_slice(const MoeProgram *p, const MoeVar *v, int64_t i, int device, MoeTensor *slice);
int64_t var_slices(const MoeVar *v);
char *var_slice_name(const MoeVar *v, const char *pattern, int64_t i); /* malloc'd */

/* The device is the first of those that hold the same block: 0 along every mesh axis that the tensor does not use. */
bool tensor_holds_first(const MoeProgram *p, const MoeTensor *t, int device);
/* Calls fn for each run of the device's block that is contiguous in both: `local` and `global` count elements. */
typedef void (*RunFn)(void *ctx, int64_t local, int64_t global, int64_t n);
void tensor_runs(const MoeProgram *p, const MoeTensor *t, int device, RunFn fn, void *ctx);
/* Between a device's block (at t->offset of its arena) and a dense global array of the same dtype. */
void tensor_put(const Team *team, const MoeTensor *t, int device, const void *global);
void tensor_get(const Team *team, const MoeTensor *t, int device, void *global);
/* All blocks, also those of other processes (comm_ranks.c). All ranks must call it; all get it. False: a rank failed.
 */
bool tensor_collect(Team *t, const MoeTensor *x, void *global);
/* The same for the block of one device; `global` may be NULL where it is not wanted: only rank 0 wants it unless
 * `everywhere`. */
bool block_collect(Team *t, const MoeTensor *x, int device, void *global, bool everywhere);

/* ---- collectives, matrix products --------------------------------------------------------------------------- */

CollPlan *coll_plans(const MoeProgram *p, Error *e);
void coll_plans_free(const MoeProgram *p, CollPlan *c);
void gemm_free(Worker *w);

#endif
