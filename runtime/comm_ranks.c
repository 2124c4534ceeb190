/* comm_ranks.c: collectives whose groups span processes, and results gathered from them.
 *
 * A device of another process has a stand-in here: an image of its source, with the same layout. A crossing brings
 * those blocks of it that devices of this rank read, each once; then the stand-in's gates open, and the code of
 * comm_local.c reads the image as it reads any neighbour. So there is one place where sums are taken, in one order, and
 * the bits are those of a single process.
 *
 *   post     each device here publishes its source; the last one wakes the main thread
 *   carry    the main thread posts all receives and sends of the collective, and waits for them
 *   open     stand-ins have published, and (their sends are done) no longer read this process's memory
 *
 * A large all_reduce crosses twice: a member's own part of every source, then the folded parts of the results.
 *
 * Before: all ranks pass the same collectives in the same order. Crossings are served in that order, one at a time; an
 * image is free again when every device here has posted the next one. Bytes received by a rank: what its devices read
 * from others, blocks that several of them read (all_gather, permute) once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "comm.h"
#include "ranks.h"

static int rank_of(const Team *t, int device) {
    return device / t->local;
}

/* ---- plans -------------------------------------------------------------------------------------------------- */

/* What one device's memory a reader needs. */
typedef struct Part {
    int rank;
    int64_t size[MOE_MAX_RANK], part[MOE_MAX_RANK], start[MOE_MAX_RANK];
} Part;

static Part part_whole(const MoeColl *c) {
    Part p = {.rank = c->rank};
    memcpy(p.size, c->in, sizeof c->in);
    memcpy(p.part, c->in, sizeof c->in);
    return p;
}

static Part part_flat(const CollPlan *plan, int h) {
    Part p = {.rank = 1, .size = {plan->size}};
    coll_part(plan, h, &p.start[0], &p.part[0]);
    p.part[0] -= p.start[0];
    return p;
}

static bool is_whole(const MoeColl *c, const CollPlan *plan) {
    return c->kind == MOE_all_gather || c->kind == MOE_permute || (c->kind == MOE_all_reduce && !plan->by_parts);
}

static bool reads(const MoeColl *c, const CollPlan *plan, int reader, int sender) {
    const int *member = plan->member + reader * plan->group;
    return c->kind != MOE_permute || member[plan->sender[reader]] == sender;
}

/* Whether member k of the sender's group is the first of its rank that reads the sender. */
static bool is_first(const Team *t, const MoeColl *c, const CollPlan *plan, int sender, int k) {
    const int *member = plan->member + sender * plan->group;
    for (int i = 0; i < k; i++)
        if (rank_of(t, member[i]) == rank_of(t, member[k]) && reads(c, plan, member[i], sender)) return false;
    return true;
}

/* The part of `sender` that a message to member k of its group carries; false: there is none. */
static bool part_for(const Team *t, const MoeColl *c, const CollPlan *plan, int phase, int sender, int k, Part *p) {
    int reader = plan->member[sender * plan->group + k];
    if (!reads(c, plan, reader, sender)) return false;
    bool results = phase == PHASE_results;
    if ((results || is_whole(c, plan)) && !is_first(t, c, plan, sender, k)) return false;
    if (results) {
        *p = part_flat(plan, plan->me[sender]);
    } else if (plan->by_parts) {
        *p = part_flat(plan, plan->me[reader]);
    } else {
        *p = part_whole(c);
        if (!is_whole(c, plan)) {
            p->part[c->split] /= plan->group;
            p->start[c->split] = plan->me[reader] * p->part[c->split];
        }
    }
    for (int i = 0; i < p->rank; i++)
        if (!p->part[i]) return false;
    return true;
}

/* Both sides make their lists in this order, so that messages need no names. */
static bool phase_plan(const Team *t, const MoeColl *c, CollPlan *plan, int phase, Error *e) {
    int room = 0, n = 0;
    Message *list = NULL;
    for (int s = 0; s < t->devices; s++)
        for (int k = 0; k < plan->group; k++) {
            int from = rank_of(t, s), to = rank_of(t, plan->member[s * plan->group + k]);
            Part p;
            if (from == to || (from != ranks_self() && to != ranks_self())) continue;
            plan->crosses = true;
            if (!part_for(t, c, plan, phase, s, k, &p)) continue;
            if (n == room) {
                room = room ? 2 * room : 16;
                Message *more = xcalloc((size_t)room, sizeof *more);
                if (n) memcpy(more, list, (size_t)n * sizeof *more);
                free(list);
                list = more;
            }
            bool out = from == ranks_self();
            void *block = ranks_transport()->block_new(p.rank, p.size, p.part, p.start, dtype_size(c->dtype));
            list[n++] = (Message){out, s, out ? to : from, block};
            if (!block) error_set(e, "%s: a collective between processes of more than 2^31 elements", c->where);
        }
    plan->messages[phase] = list;
    plan->nmessages[phase] = n;
    return !e->text[0];
}

/* Address space only: memory is taken where something arrives. */
static char *image_map(size_t bytes, Error *e) {
    void *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m != MAP_FAILED) return m;
    error_set(e, "cannot map %zu MB for another process: %s", bytes >> 20, strerror(errno));
    return NULL;
}

bool cross_plans(Team *t, Error *e) {
    const MoeProgram *p = t->program;
    if (ranks_count() == 1) return true;
    size_t most = 64;
    for (int i = 0; i < p->ncolls; i++) {
        CollPlan *plan = &t->coll[i];
        size_t bytes = (size_t)plan->size * (size_t)dtype_size(p->colls[i].dtype);
        if (!phase_plan(t, &p->colls[i], plan, PHASE_sources, e)) return false;
        if (plan->by_parts && !phase_plan(t, &p->colls[i], plan, PHASE_results, e)) return false;
        if (plan->crosses && bytes > most) most = bytes;
    }
    t->image_bytes = most;
    for (int d = 0; d < t->devices; d++) {
        if (rank_of(t, d) == ranks_self()) continue;
        if (!(t->device[d].src = image_map(most, e)) || !(t->device[d].dst = image_map(most, e))) return false;
    }
    return true;
}

void cross_plans_free(Team *t) {
    if (ranks_count() == 1) return;
    for (int d = 0; t->device && d < t->devices; d++) {
        if (rank_of(t, d) == ranks_self()) continue;
        if (t->device[d].src) munmap((void *)(uintptr_t)t->device[d].src, t->image_bytes);
        if (t->device[d].dst) munmap(t->device[d].dst, t->image_bytes);
    }
    for (int i = 0; t->coll && i < t->program->ncolls; i++)
        for (int phase = 0; phase < PHASES; phase++) {
            CollPlan *plan = &t->coll[i];
            for (int k = 0; k < plan->nmessages[phase]; k++)
                ranks_transport()->block_free(plan->messages[phase][k].block);
            free(plan->messages[phase]);
        }
}

/* ---- a crossing --------------------------------------------------------------------------------------------- */

void cross_post(Worker *w) {
    Team *t = w->team;
    uint32_t n = atomic_fetch_add(&t->posted, 1) + 1;
    if (n % (uint32_t)t->local == 0) gate_ring(&t->bell);
}

bool cross_ready(const Team *t) {
    return !atomic_load(&t->failed) && atomic_load(&t->posted) == (t->served + 1) * (uint32_t)t->local;
}

static bool phase_carry(const Team *t, const CollPlan *plan, int phase) {
    const Transport *by = ranks_transport();
    for (int out = 0; out < 2; out++) /* receives first: what arrives then has its place */
        for (int i = 0; i < plan->nmessages[phase]; i++) {
            const Message *m = &plan->messages[phase][i];
            Device *d = &t->device[m->device];
            const char *at = phase == PHASE_sources ? d->src : d->dst;
            if (m->out != out) continue;
            if (out)
                by->send(m->peer, at, m->block);
            else
                by->receive(m->peer, (char *)(uintptr_t)at, m->block);
        }
    return ranks_wait();
}

bool cross_serve(Team *t) {
    static const char *const names[] = {[MOE_all_gather] = "all_gather",
                                        [MOE_all_reduce] = "all_reduce",
                                        [MOE_reduce_scatter] = "reduce_scatter",
                                        [MOE_all_to_all] = "all_to_all",
                                        [MOE_permute] = "permute"};
    const Device *mine = &t->device[t->first];
    const CollPlan *plan = &t->coll[mine->coll];
    const MoeColl *c = &t->program->colls[mine->coll];
    uint32_t number = atomic_load(&mine->published.value);
    int phase = t->phase;
    ranks_doing(names[c->kind], c->where);
    bool ok = phase_carry(t, plan, phase);
    ranks_doing(NULL, NULL);
    if (!ok) return false;
    bool last = phase == PHASE_results || !plan->by_parts;
    t->served++;
    t->phase = last ? PHASE_sources : PHASE_results;
    for (int d = 0; d < t->devices; d++) {
        Device *other = &t->device[d];
        if (rank_of(t, d) == ranks_self()) continue;
        if (phase == PHASE_sources) gate_open(&other->published, number);
        if (phase == PHASE_results) gate_open(&other->reduced.gate, mine->round);
        if (last) gate_open(&other->done.gate, number);
    }
    return true;
}

/* ---- results ------------------------------------------------------------------------------------------------ */

/* A device of this rank that holds the same block of the tensor as `device`, -1: none. */
static int holder_at(const Team *t, const MoeTensor *x, int device, int rank) {
    int64_t size[MOE_MAX_RANK], want[MOE_MAX_RANK], have[MOE_MAX_RANK];
    tensor_block(t->program, x, device, size, want);
    for (int d = rank * t->local; d < (rank + 1) * t->local; d++) {
        tensor_block(t->program, x, d, size, have);
        if (!memcmp(want, have, (size_t)x->rank * sizeof *want)) return d;
    }
    return -1;
}

typedef struct Place {
    char *global;
    const char *block;
    int64_t es;
} Place;

static void run_place(void *ctx, int64_t local, int64_t global, int64_t n) {
    Place *p = ctx;
    memcpy(p->global + global * p->es, p->block + local * p->es, (size_t)(n * p->es));
}

static bool block_receive(const Team *t, const MoeTensor *x, int device, void *type, int64_t n, void *global) {
    int es = dtype_size(x->dtype);
    char *block = xmalloc((size_t)n * (size_t)es);
    ranks_transport()->receive(rank_of(t, device), block, type);
    bool ok = ranks_wait();
    Place to = {global, block, es};
    if (ok) tensor_runs(t->program, x, device, run_place, &to);
    if (ok) free(block); /* else it may still be written to */
    return ok;
}

bool block_collect(Team *t, const MoeTensor *x, int device, void *global, bool everywhere) {
    int mine = holder_at(t, x, device, ranks_self()), owner = rank_of(t, device);
    bool wanted = everywhere || ranks_self() == 0, ok = true;
    if (mine >= 0 && wanted) tensor_get(t, x, mine, global);
    if (ranks_count() == 1) return true;
    int64_t size[MOE_MAX_RANK], start[MOE_MAX_RANK], zero[MOE_MAX_RANK] = {0};
    int64_t n = tensor_block(t->program, x, device, size, start);
    if (!n) return true;
    ranks_doing("gathering of a tensor", x->name);
    void *type = ranks_transport()->block_new(x->rank, size, size, zero, dtype_size(x->dtype));
    if (owner == ranks_self()) {
        for (int r = 0; r < (everywhere ? ranks_count() : 1); r++)
            if (r != owner && holder_at(t, x, device, r) < 0)
                ranks_transport()->send(r, t->device[device].arena + x->offset, type);
        ok = ranks_wait();
    } else if (mine < 0 && wanted) {
        ok = block_receive(t, x, device, type, n, global);
    }
    ranks_doing(NULL, NULL);
    if (ok) ranks_transport()->block_free(type);
    return ok;
}

bool tensor_collect(Team *t, const MoeTensor *x, void *global) {
    bool ok = true;
    for (int d = 0; ok && d < t->devices; d++)
        if (tensor_holds_first(t->program, x, d)) ok = block_collect(t, x, d, global, true);
    return ok;
}
