/* comm.h: what the collectives between threads (comm_local.c) and between processes (comm_ranks.c) share: what moves.
 */
#ifndef MOE_RUNTIME_COMM_H
#define MOE_RUNTIME_COMM_H

#include "rt.h"

/* A block in elements: `rows` runs of `run`, addressed by n outer axes; member strides as said in comm_local.c. */
typedef struct Move {
    int n;
    int64_t count[MOE_MAX_RANK], from[MOE_MAX_RANK], to[MOE_MAX_RANK];
    int64_t rows, run;
    int64_t from_member, to_member;
} Move;

/* A message between a device of this rank and one of another. */
typedef struct Message {
    bool out;
    int device; /* that it comes from */
    int peer;   /* rank */
    void *block;
} Message;

enum { PHASE_sources, PHASE_results, PHASES };

struct CollPlan {
    int group;     /* members */
    int *member;   /* [devices][group]: device numbers, in rank order */
    int *me;       /* [devices]: own rank */
    int *sender;   /* permute: [devices], the rank of the one member that is read */
    int64_t size;  /* elements of the source */
    bool by_parts; /* all_reduce: each member folds a part */
    Move move;
    bool crosses; /* some group has devices of several processes, and then: */
    int nmessages[PHASES];
    Message *messages[PHASES];
};

/* Part h of an all_reduce by parts, of a whole number of cache lines. */
void coll_part(const CollPlan *plan, int h, int64_t *lo, int64_t *hi);

/* Fills in the messages of all plans, and gives other processes' devices memory for what arrives from them. */
bool cross_plans(Team *t, Error *e);
void cross_plans_free(Team *t);
/* Worker: this device's part of the crossing's next phase stands in its memory. */
void cross_post(Worker *w);
/* Main thread: whether all devices here have posted; then the exchange, after which the readers go on. False: failed.
 */
bool cross_ready(const Team *t);
bool cross_serve(Team *t);

#endif
