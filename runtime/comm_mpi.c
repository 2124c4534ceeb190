/* comm_mpi.c: the transport between processes, by MPI: the whole of libmoert_mpi.so, and the only file that sees mpi.h.
 *
 * It knows nothing of devices and collectives: it posts blocks (derived datatypes, so nothing is packed here) and says
 * when they have arrived. Which blocks, and in which order sums are taken, is comm_ranks.c's business: MPI's own
 * reductions choose an order by size and machine, and would change bits.
 *
 * MPI is initialized for one calling thread (funneled), the program's main thread. Two communicators: one for data, one
 * for notices, which must get through while data is stuck. Errors return; the first one is kept and reported by
 * `settled`. */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "transport.h"

enum { TAG = 1 };

static MPI_Comm data, notices;
static MPI_Request *posted; /* under way */
static int *with;           /* whom; -1: all */
static int nposted, room_posted;
static char failure[MPI_MAX_ERROR_STRING + 32];

static bool fine(int code) {
    int n = 0;
    if (code != MPI_SUCCESS && !failure[0]) {
        MPI_Error_string(code, failure, &n);
        if (!failure[0]) snprintf(failure, sizeof failure, "error %d", code);
    }
    return code == MPI_SUCCESS;
}

static bool mpi_begin(int *rank, int *ranks, char *why, size_t room) {
    int level;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS || level < MPI_THREAD_FUNNELED) {
        snprintf(why, room, "MPI cannot be initialized for a program with threads");
        return false;
    }
    bool ok = fine(MPI_Comm_dup(MPI_COMM_WORLD, &data)) && fine(MPI_Comm_dup(MPI_COMM_WORLD, &notices)) &&
              fine(MPI_Comm_set_errhandler(data, MPI_ERRORS_RETURN)) &&
              fine(MPI_Comm_set_errhandler(notices, MPI_ERRORS_RETURN)) && fine(MPI_Comm_rank(data, rank)) &&
              fine(MPI_Comm_size(data, ranks));
    if (!ok) snprintf(why, room, "%s", failure);
    return ok;
}

static void *block_new(int rank, const int64_t *size, const int64_t *part, const int64_t *start, int element) {
    int s[16], p[16], at[16];
    if (rank > 16) return NULL;
    for (int i = 0; i < rank; i++) {
        if (size[i] > INT_MAX) return NULL;
        s[i] = (int)size[i], p[i] = (int)part[i], at[i] = (int)start[i];
    }
    MPI_Datatype base = element == 4 ? MPI_UINT32_T : element == 2 ? MPI_UINT16_T : MPI_BYTE;
    MPI_Datatype *type = malloc(sizeof *type);
    bool ok = type && fine(rank ? MPI_Type_create_subarray(rank, s, p, at, MPI_ORDER_C, base, type)
                                : MPI_Type_contiguous(1, base, type));
    if (ok && fine(MPI_Type_commit(type))) return type;
    free(type);
    return NULL;
}

static void block_free(void *block) {
    if (!block) return;
    MPI_Type_free(block);
    free(block);
}

static MPI_Request *post(int peer) {
    if (nposted == room_posted) {
        room_posted = room_posted ? 2 * room_posted : 64;
        posted = realloc(posted, (size_t)room_posted * sizeof *posted);
        with = realloc(with, (size_t)room_posted * sizeof *with);
        if (!posted || !with) {
            fputs("error: out of memory\n", stderr);
            MPI_Abort(MPI_COMM_WORLD, 1);
        }
    }
    posted[nposted] = MPI_REQUEST_NULL;
    with[nposted] = peer;
    return &posted[nposted++];
}

static void post_send(int peer, const void *at, void *block) {
    fine(MPI_Isend(at, 1, *(MPI_Datatype *)block, peer, TAG, data, post(peer)));
}

static void post_receive(int peer, void *at, void *block) {
    fine(MPI_Irecv(at, 1, *(MPI_Datatype *)block, peer, TAG, data, post(peer)));
}

static void post_share(const void *mine, void *all, int bytes) {
    fine(MPI_Iallgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE, data, post(-1)));
}

static int settled(void) {
    int done = 0;
    fine(MPI_Testall(nposted, posted, &done, MPI_STATUSES_IGNORE));
    if (failure[0]) return -1;
    if (done) nposted = 0;
    return done;
}

static bool waits_for(int peer) {
    for (int i = 0; i < nposted; i++) {
        int done = 1;
        if (with[i] == peer && MPI_Request_get_status(posted[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done)
            return true;
    }
    return false;
}

static const char *why(void) {
    return failure;
}

/* Small enough to be sent at once, whatever the other does. */
static void tell(int peer, const void *at, int bytes) {
    MPI_Request request;
    if (MPI_Isend(at, bytes, MPI_BYTE, peer, TAG, notices, &request) == MPI_SUCCESS) MPI_Request_free(&request);
}

static int heard(void *at, int bytes) {
    int there = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, TAG, notices, &there, &status) != MPI_SUCCESS || !there) return -1;
    int from = status.MPI_SOURCE;
    return MPI_Recv(at, bytes, MPI_BYTE, from, TAG, notices, &status) == MPI_SUCCESS ? from : -1;
}

static void mpi_end(void) {
    MPI_Finalize();
}

static void mpi_abort(int code) {
    MPI_Abort(MPI_COMM_WORLD, code);
}

static const Transport transport = {
    .abi = TRANSPORT_ABI,
    .name = "MPI",
    .begin = mpi_begin,
    .block_new = block_new,
    .block_free = block_free,
    .send = post_send,
    .receive = post_receive,
    .share = post_share,
    .settled = settled,
    .why = why,
    .waits_for = waits_for,
    .tell = tell,
    .heard = heard,
    .end = mpi_end,
    .abort = mpi_abort,
};

const Transport *moe_transport(void) {
    return &transport;
}
