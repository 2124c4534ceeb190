/* ranks.h: several processes, one job. A launcher (mpirun, srun) starts the program several times; these copies are
 * ranks, and the mesh's devices are dealt to them in order. All ranks run the same commands with the same arguments and
 * reach the same exchanges in the same order; rank 0 speaks and writes files. A program that is run alone is rank 0 of
 * 1, and every function here returns at once.
 *
 * Only the main thread calls these. */
#ifndef MOE_RUNTIME_RANKS_H
#define MOE_RUNTIME_RANKS_H

#include "rt.h"
#include "transport.h"

/* Looks whether a launcher started this process, and joins the others. False and an error (on rank 0; "" elsewhere)
 * when several were started that cannot talk, or that are not the same program with the same arguments. */
bool ranks_begin(int argc, char **argv, Error *e);
/* Leaves the job, after all ranks have come here or one of them failed: the first error is printed once, and the worst
 * exit code is everybody's. */
int ranks_end(int code);

int ranks_self(void);
int ranks_count(void);
const Transport *ranks_transport(void); /* NULL: alone */

/* How many ranks on this machine may use the same cores, this one's place among them, and all ranks here. */
typedef struct Neighbours {
    int sharing, place, here;
} Neighbours;
Neighbours ranks_neighbours(void);

/* Waits until all that was posted has arrived. False: another rank failed, or the transport did. Does not return when
 * another rank died: says so and ends the job. */
bool ranks_wait(void);
/* The same look at the others, at most 20 times a second; cheap enough for any loop. */
bool ranks_alive(void);
bool ranks_ok(Error *e); /* false and an error when it has failed */
/* True on all ranks when it is on one. */
bool ranks_any(bool mine);

/* For messages: the call under way, and the exchange in it. The texts must outlive it. */
void ranks_call(const char *function, int64_t step);
void ranks_doing(const char *what, const char *where);

/* Takes a message of this rank that ranks_end will print; false when alone: print it yourself. */
bool ranks_report(const char *text);
/* To stderr, on rank 0 only. */
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
