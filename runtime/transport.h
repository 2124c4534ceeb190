/* transport.h: what the runtime asks of a library that carries bytes between processes. comm_mpi.c answers it with MPI,
 * as the plugin libmoert_mpi.so: a program loads it only when a launcher started several of it, so a program that is
 * run alone needs no MPI, and the runtime's library none to be built.
 *
 * Only the main thread calls it. Everything posted is under way until `settled` has returned 1; between two processes,
 * messages arrive in the order in which they were posted. */
#ifndef MOE_RUNTIME_TRANSPORT_H
#define MOE_RUNTIME_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRANSPORT_ABI = 2 }; /* a program may meet a newer plugin: count up at any change */

typedef struct Transport {
    int abi;
    const char *name; /* "MPI" */
    /* Joins the other processes. False and a reason when that is impossible. */
    bool (*begin)(int *rank, int *ranks, char *why, size_t room);
    /* A block [start, start + part) of a dense array of `size`, elements of 1, 2 or 4 bytes. NULL: too large. */
    void *(*block_new)(int rank, const int64_t *size, const int64_t *part, const int64_t *start, int element);
    void (*block_free)(void *block);
    /* Posts a message; `block` lies in the array at `at`. */
    void (*send)(int peer, const void *at, void *block);
    void (*receive)(int peer, void *at, void *block);
    /* Posts an exchange: `mine` of each rank, in rank order, on all. */
    void (*share)(const void *mine, void *all, int bytes);
    /* 1: all that was posted is done; 0: not yet; -1: an error, told by `why`. */
    int (*settled)(void);
    const char *(*why)(void);
    /* Whether a message to or from that rank is still under way. */
    bool (*waits_for)(int peer);
    /* Notices overtake posted messages. heard: the rank that one came from, -1: none. */
    void (*tell)(int peer, const void *at, int bytes);
    int (*heard)(void *at, int bytes);
    void (*end)(void);
    void (*abort)(int code);
} Transport;

/* The plugin's one symbol. */
const Transport *moe_transport(void);

#endif
