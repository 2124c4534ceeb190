/* comm_local.c: collectives between the devices of one process.
 *
 * Publish, read, release. Collectives are numbered (MoeWorker.top); all devices pass the same ones in the same order.
 *   publish  the device says where its source and result lie, and opens `published` at this number
 *   read     a receiver waits for each sender it needs and copies, or folds, straight from the sender's memory
 *   release  when all its workers have read, the device opens `done`; nobody leaves before his whole group is done, so
 * a source may be overwritten right after the call. So a byte is copied at most once, and there is no global barrier:
 * only members of a group wait for each other.
 *
 * A fold takes the members in rank order, whoever computes it, hence the same bits on every device and in every
 * schedule. all_reduce: small ones are folded whole by every device (one meeting); large ones by parts, each member
 * folding its own part and reading the others' (each element is folded once, and read 2 (P-1)/P times).
 *
 * Who holds what: for all_gather, reduce_scatter and all_to_all, `axes` are the minor axes of the split label, so
 * member g of the group (axes major first) holds block g. A CollPlan is one N-dimensional block move: from member h,
 * block `me` along the split axis of its source, to place h along the join axis of the result.
 *
 * Complexity: O(bytes received / workers) a call; plans cost O(colls * devices * group) once. */
#include <stdlib.h>
#include <string.h>

#include "comm.h"

enum { FOLD_CHUNK = 2048, DIRECT_BYTES = 32 << 10, GRAIN = 64, MAX_GROUP = 256 };

/* ---- plans -------------------------------------------------------------------------------------------------- */

static int64_t product(const int64_t *at, int n) {
    int64_t p = 1;
    for (int i = 0; i < n; i++) p *= at[i];
    return p;
}

/* The block of `shape` in two dense arrays; axes contiguous in both are merged, the last one is the run. */
static Move move_of(int rank, const int64_t *shape, const int64_t *in, const int64_t *out) {
    Move m = {.run = 1, .rows = 1};
    int64_t from = 1, to = 1;
    int n = 0;
    int64_t count[MOE_MAX_RANK + 1] = {1}, fs[MOE_MAX_RANK + 1] = {1}, ts[MOE_MAX_RANK + 1] = {1};
    for (int i = rank - 1; i >= 0; i--) { /* inner axes first */
        if (from == fs[n] * count[n] && to == ts[n] * count[n]) {
            count[n] *= shape[i];
        } else {
            n++;
            count[n] = shape[i], fs[n] = from, ts[n] = to;
        }
        from *= in[i];
        to *= out[i];
    }
    m.run = count[0];
    for (int i = n; i > 0; i--) {
        m.count[m.n] = count[i], m.from[m.n] = fs[i], m.to[m.n] = ts[i];
        m.rows *= count[i];
        m.n++;
    }
    return m;
}

static Move coll_move(const MoeColl *c, int64_t group) {
    int64_t shape[MOE_MAX_RANK];
    memcpy(shape, c->in, sizeof shape);
    bool split = c->kind == MOE_reduce_scatter || c->kind == MOE_all_to_all;
    bool join = c->kind == MOE_all_gather || c->kind == MOE_all_to_all;
    if (split) shape[c->split] /= group;
    Move m = move_of(c->rank, shape, c->in, c->out);
    if (split) m.from_member = shape[c->split] * product(c->in + c->split + 1, c->rank - c->split - 1);
    if (join) m.to_member = shape[c->join] * product(c->out + c->join + 1, c->rank - c->join - 1);
    return m;
}

static void axes_join(MoeAxes *to, const MoeAxes *from) {
    for (int i = 0; i < from->n; i++) {
        bool have = false;
        for (int k = 0; k < to->n; k++) have |= to->at[k] == from->at[i];
        if (!have && to->n < MOE_MAX_AXES) to->at[to->n++] = from->at[i];
    }
}

static int mesh_device(const MoeProgram *p, const int64_t *coord) {
    int64_t d = 0;
    for (int a = 0; a < p->naxes; a++) d = d * p->axis_size[a] + coord[a];
    return (int)d;
}

static void coord_set(const MoeProgram *p, const MoeAxes *axes, int64_t position, int64_t *coord) {
    for (int i = axes->n - 1; i >= 0; i--) {
        coord[axes->at[i]] = position % p->axis_size[axes->at[i]];
        position /= p->axis_size[axes->at[i]];
    }
}

/* The device that holds, under the old sharding, the block that `device` holds under the new one. */
static int permute_source(const MoeProgram *p, const MoeColl *c, int device) {
    int64_t coord[MOE_MAX_AXES], from[MOE_MAX_AXES];
    mesh_coord(p, device, coord);
    memcpy(from, coord, sizeof from);
    for (int i = 0; i < c->rank; i++) coord_set(p, &c->in_axes[i], mesh_position(p, coord, &c->out_axes[i]), from);
    return mesh_device(p, from);
}

static bool coll_plan(const MoeProgram *p, const MoeColl *c, CollPlan *plan, Error *e) {
    MoeAxes axes = c->axes;
    if (c->kind == MOE_permute)
        for (int i = 0; i < c->rank; i++) axes_join(&axes, &c->in_axes[i]), axes_join(&axes, &c->out_axes[i]);
    int64_t group = mesh_product(p, &axes), in = product(c->in, c->rank), out = product(c->out, c->rank);
    if (group > MAX_GROUP)
        return error_set(e, "%s: a group of %d devices; at most %d", c->where, (int)group, MAX_GROUP);
    int64_t want = c->kind == MOE_all_gather ? in * group : c->kind == MOE_reduce_scatter ? in / group : in;
    if (want != out) return error_set(e, "%s: collective's shapes do not fit its group of %d", c->where, (int)group);
    plan->group = (int)group;
    plan->size = in;
    plan->by_parts = c->kind == MOE_all_reduce && group > 2 && in * dtype_size(c->dtype) > DIRECT_BYTES;
    plan->move = coll_move(c, group);
    plan->member = xcalloc((size_t)(p->devices * group), sizeof(int));
    plan->me = xcalloc((size_t)p->devices, sizeof(int));
    plan->sender = xcalloc((size_t)p->devices, sizeof(int));
    for (int d = 0; d < p->devices; d++) {
        int64_t coord[MOE_MAX_AXES];
        mesh_coord(p, d, coord);
        plan->me[d] = (int)mesh_position(p, coord, &axes);
        int source = c->kind == MOE_permute ? permute_source(p, c, d) : d;
        for (int h = 0; h < group; h++) {
            coord_set(p, &axes, h, coord);
            int *m = &plan->member[d * group + h];
            *m = mesh_device(p, coord);
            if (*m == source) plan->sender[d] = h;
        }
    }
    return true;
}

CollPlan *coll_plans(const MoeProgram *p, Error *e) {
    CollPlan *plans = xcalloc((size_t)p->ncolls + 1, sizeof *plans);
    for (int i = 0; i < p->ncolls; i++)
        if (!coll_plan(p, &p->colls[i], &plans[i], e)) {
            coll_plans_free(p, plans);
            return NULL;
        }
    return plans;
}

void coll_plans_free(const MoeProgram *p, CollPlan *c) {
    for (int i = 0; c && i < p->ncolls; i++) free(c[i].member), free(c[i].me), free(c[i].sender);
    free(c);
}

/* ---- folds -------------------------------------------------------------------------------------------------- */

/* out = fold of x[0..members), n elements, members in order. The chunk stays in the first-level cache. */
typedef void (*FoldFn)(void *out, const void *const *x, int members, int64_t n);

#define FOLD(name, type, acc_type, load, store, expr)                           \
    static void name(void *out, const void *const *x, int members, int64_t n) { \
        type *restrict o = out;                                                 \
        for (int64_t lo = 0; lo < n; lo += FOLD_CHUNK) {                        \
            int64_t len = n - lo < FOLD_CHUNK ? n - lo : FOLD_CHUNK;            \
            acc_type acc[FOLD_CHUNK];                                           \
            const type *restrict first = (const type *)x[0] + lo;               \
            for (int64_t i = 0; i < len; i++) acc[i] = load(first[i]);          \
            for (int h = 1; h < members; h++) {                                 \
                const type *restrict next = (const type *)x[h] + lo;            \
                for (int64_t i = 0; i < len; i++) {                             \
                    acc_type a = acc[i], b = load(next[i]);                     \
                    acc[i] = (acc_type)(expr);                                  \
                }                                                               \
            }                                                                   \
            for (int64_t i = 0; i < len; i++) o[lo + i] = (type)store(acc[i]);  \
        }                                                                       \
    }
#define SAME(a) (a)
#define LARGER (a > b ? a : b)
#define SMALLER (a < b ? a : b)
/* f32 folds in place: an accumulator of its own would cost a second pass. */
#define FOLD_F32(name, expr)                                                    \
    static void name(void *out, const void *const *x, int members, int64_t n) { \
        for (int64_t lo = 0; lo < n; lo += FOLD_CHUNK) {                        \
            int64_t len = n - lo < FOLD_CHUNK ? n - lo : FOLD_CHUNK;            \
            float *restrict o = (float *)out + lo;                              \
            const float *restrict p = (const float *)x[0] + lo;                 \
            const float *restrict q = (const float *)x[members > 1] + lo;       \
            if (members == 1) memcpy(o, p, (size_t)len * sizeof *o);            \
            for (int64_t i = 0; members > 1 && i < len; i++) {                  \
                float a = p[i], b = q[i];                                       \
                o[i] = (expr);                                                  \
            }                                                                   \
            for (int h = 2; h < members; h++) {                                 \
                const float *restrict r = (const float *)x[h] + lo;             \
                for (int64_t i = 0; i < len; i++) {                             \
                    float a = o[i], b = r[i];                                   \
                    o[i] = (expr);                                              \
                }                                                               \
            }                                                                   \
        }                                                                       \
    }
FOLD_F32(fold_f32_sum, a + b)
FOLD_F32(fold_f32_max, LARGER)
FOLD_F32(fold_f32_min, SMALLER)
FOLD(fold_i32_sum, int32_t, uint32_t, (uint32_t), SAME, a + b)
FOLD(fold_i32_max, int32_t, int32_t, SAME, SAME, LARGER)
FOLD(fold_i32_min, int32_t, int32_t, SAME, SAME, SMALLER)
FOLD(fold_bool_max, uint8_t, uint8_t, SAME, SAME, LARGER)
FOLD(fold_bool_min, uint8_t, uint8_t, SAME, SAME, SMALLER)
FOLD(fold_bf16_sum, uint16_t, float, moe_from_bf16, moe_to_bf16, a + b)
FOLD(fold_bf16_max, uint16_t, float, moe_from_bf16, moe_to_bf16, LARGER)
FOLD(fold_bf16_min, uint16_t, float, moe_from_bf16, moe_to_bf16, SMALLER)
FOLD(fold_f16_sum, uint16_t, float, moe_from_f16, moe_to_f16, a + b)
FOLD(fold_f16_max, uint16_t, float, moe_from_f16, moe_to_f16, LARGER)
FOLD(fold_f16_min, uint16_t, float, moe_from_f16, moe_to_f16, SMALLER)

static const FoldFn folds[][3] = {
    [MOE_f32] = {[MOE_sum] = fold_f32_sum, [MOE_max] = fold_f32_max, [MOE_min] = fold_f32_min},
    [MOE_bf16] = {[MOE_sum] = fold_bf16_sum, [MOE_max] = fold_bf16_max, [MOE_min] = fold_bf16_min},
    [MOE_f16] = {[MOE_sum] = fold_f16_sum, [MOE_max] = fold_f16_max, [MOE_min] = fold_f16_min},
    [MOE_i32] = {[MOE_sum] = fold_i32_sum, [MOE_max] = fold_i32_max, [MOE_min] = fold_i32_min},
    [MOE_bool] = {[MOE_sum] = fold_bool_max, [MOE_max] = fold_bool_max, [MOE_min] = fold_bool_min},
};

/* ---- reading ------------------------------------------------------------------------------------------------ */

typedef struct Call {
    Worker *w;
    const MoeColl *c;
    const CollPlan *plan;
    const int *member;
    int me;
    uint32_t number;
    int64_t es; /* bytes of an element */
    char *dst;
} Call;

static Device *member_of(const Call *k, int h) {
    return &k->w->team->device[k->member[h]];
}

static const char *source_of(const Call *k, int h) {
    Device *d = member_of(k, h);
    gate_wait(k->w, &d->published, k->number);
    return d->src;
}

/* What a worker does with one run: copy from one source, or fold all. */
static void run_do(const Call *k, const char *const *src, int n, int64_t from, int64_t to, int64_t len) {
    char *out = k->dst + to * k->es;
    if (n == 1) {
        memcpy(out, src[0] + from * k->es, (size_t)(len * k->es));
        return;
    }
    const void *at[MAX_GROUP];
    for (int h = 0; h < n; h++) at[h] = src[h] + from * k->es;
    folds[k->c->dtype][k->c->fold](out, at, n, len);
}

/* The worker's share of a move: whole rows when there are enough of them, else a part of every row. */
static void move_do(const Call *k, const char *const *src, int n, int64_t from0, int64_t to0) {
    const Move *m = &k->plan->move;
    bool by_rows = m->rows >= k->w->pub.workers;
    int64_t lo = 0, hi = m->rows, a = 0, b = m->run, index[MOE_MAX_RANK] = {0};
    if (by_rows)
        moe_range(&k->w->pub, m->rows, 1, &lo, &hi);
    else
        moe_range(&k->w->pub, m->run, GRAIN, &a, &b);
    int64_t from = from0, to = to0;
    for (int64_t i = m->n - 1, left = lo; i >= 0; i--) {
        index[i] = left % m->count[i];
        left /= m->count[i];
        from += index[i] * m->from[i];
        to += index[i] * m->to[i];
    }
    for (int64_t row = lo; row < hi && a < b; row++) {
        run_do(k, src, n, from + a, to + a, b - a);
        for (int i = m->n - 1; i >= 0; i--) {
            from += m->from[i];
            to += m->to[i];
            if (++index[i] < m->count[i]) break;
            from -= m->count[i] * m->from[i];
            to -= m->count[i] * m->to[i];
            index[i] = 0;
        }
    }
}

/* all_gather, all_to_all: start with the own block, then the neighbours', so that no sender is read by all at once. */
static void coll_copy(const Call *k) {
    const Move *m = &k->plan->move;
    for (int i = 0; i < k->plan->group; i++) {
        int h = (k->me + i) % k->plan->group;
        const char *src = source_of(k, h);
        move_do(k, &src, 1, k->me * m->from_member, h * m->to_member);
    }
}

static void coll_permute(const Call *k) {
    const char *src = source_of(k, k->plan->sender[k->w->pub.device]);
    move_do(k, &src, 1, 0, 0);
}

static void coll_reduce_scatter(const Call *k) {
    const char *src[MAX_GROUP];
    for (int h = 0; h < k->plan->group; h++) src[h] = source_of(k, h);
    move_do(k, src, k->plan->group, k->me * k->plan->move.from_member, 0);
}

void coll_part(const CollPlan *plan, int h, int64_t *lo, int64_t *hi) {
    MoeWorker as = {.worker = h, .workers = plan->group};
    moe_range(&as, plan->size, GRAIN, lo, hi);
}

/* A device of another process: its gates open when a crossing has been served. A device whose own group is all here
 * waits for that too, so that all devices here are at one crossing. */
static Device *elsewhere(const Team *t) {
    return &t->device[(t->first + t->local) % t->devices];
}

static void coll_all_reduce(const Call *k) {
    const char *src[MAX_GROUP];
    int group = k->plan->group;
    for (int h = 0; h < group; h++) src[h] = source_of(k, h);
    if (!k->plan->by_parts) {
        move_do(k, src, group, 0, 0);
        return;
    }
    int64_t lo, hi, a, b;
    coll_part(k->plan, k->me, &lo, &hi);
    moe_range(&k->w->pub, hi - lo, GRAIN, &a, &b);
    if (a < b) run_do(k, src, group, lo + a, lo + a, b - a);
    uint32_t round = ++k->w->parts;
    if (k->plan->crosses) gate_wait(k->w, &elsewhere(k->w->team)->published, k->number);
    if (meeting_arrive(k->w, &k->w->dev->reduced, round) && k->plan->crosses) cross_post(k->w);
    for (int i = 1; i < group; i++) {
        int h = (k->me + i) % group;
        chaos_delay(k->w, 3);
        gate_wait(k->w, &member_of(k, h)->reduced.gate, round);
        const char *from = member_of(k, h)->dst;
        coll_part(k->plan, h, &lo, &hi);
        moe_range(&k->w->pub, hi - lo, GRAIN, &a, &b);
        if (a < b) run_do(k, &from, 1, lo + a, lo + a, b - a);
    }
}

static void (*const readers[])(const Call *) = {
    [MOE_all_gather] = coll_copy, [MOE_all_reduce] = coll_all_reduce, [MOE_reduce_scatter] = coll_reduce_scatter,
    [MOE_all_to_all] = coll_copy, [MOE_permute] = coll_permute,
};

void moe_coll(MoeWorker *pub, int coll, const void *src, void *dst) {
    Worker *w = (Worker *)pub;
    const CollPlan *plan = &w->team->coll[coll];
    const MoeColl *c = &w->team->program->colls[coll];
    uint32_t number = (uint32_t)++pub->top;
    Call k = {
        w, c, plan, plan->member + pub->device * plan->group, plan->me[pub->device], number, dtype_size(c->dtype), dst};
    chaos_delay(w, 0);
    if (pub->worker == 0) {
        w->dev->src = src;
        w->dev->dst = dst;
        w->dev->coll = coll;
        w->dev->round = w->parts + 1;
        gate_open(&w->dev->published, number);
        if (plan->crosses) cross_post(w);
    }
    chaos_delay(w, 1);
    readers[c->kind](&k);
    chaos_delay(w, 2);
    meeting_arrive(w, &w->dev->done, number);
    for (int h = 0; h < plan->group; h++) gate_wait(w, &member_of(&k, h)->done.gate, number);
    if (plan->crosses) gate_wait(w, &elsewhere(w->team)->done.gate, number);
}
