/* cost.c: what instructions cost one device: bytes received, operations, seconds.
 *
 * Communication is alpha-beta: a collective starts in log2(group) steps of the latency of the level that its group
 * crosses (all_reduce twice), then receives its bytes at that level's bandwidth. Computation is a roofline: the larger
 * of operations over peak and bytes over memory bandwidth. The bytes are exact (they are what the algorithms of the
 * runtime read from other devices); the seconds are for comparing plans.
 * Cost: O(operands) an instruction; regions are summed. */
#include <math.h>

#include "topology.h"

/* Of one core: what a good GEMM reaches, and a core's share of memory bandwidth. */
static const double flops_per_second = 100e9;
static const double memory_per_second = 10e9;
/* Starting any operation at all: a barrier of the device's team. */
static const double start_seconds = 0.2e-6;

double cost_collective(const Topology *t, const Mesh *m, Op op, const AxisList *axes, int64_t bytes_received) {
    double devices = (double)mesh_size(m, axes);
    if (devices <= 1) return 0;
    LinkCost link = topology_cost(t, topology_level_of(t, m, axes));
    double rounds = op == OP_all_reduce ? 2 : 1;
    return rounds * ceil(log2(devices)) * link.latency + (double)bytes_received / link.bandwidth;
}

double cost_flops(const Topology *t, double flops) {
    (void)t;
    return flops / flops_per_second;
}

AxisList inst_axes(const Mesh *m, const Inst *inst) {
    if (inst->op != OP_permute) return inst->at.axes;
    /* A permute has no attribute: it runs over the axes whose place differs. */
    const Type *from = &inst->in[0]->type, *to = &inst->out[0]->type;
    unsigned moved = 0;
    for (int d = 0; d < from->rank; d++) {
        const AxisList *a = &from->dim[d].axes, *b = &to->dim[d].axes;
        for (int i = axes_common(a, b); i < a->n; i++) moved |= 1u << a->at[i];
        for (int i = axes_common(a, b); i < b->n; i++) moved |= 1u << b->at[i];
    }
    AxisList axes = {0};
    for (int x = 0; x < m->n; x++)
        if (moved >> x & 1) axes_add(&axes, x);
    return axes;
}

int64_t inst_bytes_received(const Mesh *m, const Inst *inst) {
    if (op_info[inst->op].emit != EMIT_coll || inst->op == OP_reshard) return 0;
    int64_t block = type_local_bytes(m, &inst->in[0]->type);
    int64_t n = mesh_size(m, &inst->at.axes);
    switch (inst->op) {
        case OP_all_gather:
            return block * (n - 1);
        case OP_all_reduce:
            return 2 * block * (n - 1) / n;
        case OP_reduce_scatter:
        case OP_all_to_all:
            return block / n * (n - 1);
        default:
            return block; /* permute */
    }
}

/* ---- computation ------------------------------------------------------------------------------------------------- */

/* One for each operand and each point of the space of all labels: for two operands, a multiplication and an addition.
 */
static double einsum_flops(const Mesh *m, const Inst *inst) {
    Label seen[MAX_FACTORS];
    int n = 0;
    double points = 1;
    for (int k = 0; k < inst->nin; k++)
        for (int i = 0; i < inst->in[k]->type.rank; i++) {
            const Dim *d = &inst->in[k]->type.dim[i];
            bool known = false;
            for (int j = 0; j < n; j++) known = known || seen[j] == d->label;
            if (known || n == MAX_FACTORS) continue;
            seen[n++] = d->label;
            points *= (double)dim_local(m, d);
        }
    return points * inst->nin;
}

static double block_flops(const Mesh *m, const Block *b, int depth);

static double flops_at(const Mesh *m, const Inst *inst, int depth) {
    switch (op_info[inst->op].emit) {
        case EMIT_gemm:
            return einsum_flops(m, inst);
        case EMIT_elem:
            return inst->nin == 0 ? 0 : (double)type_local_elements(m, &inst->out[0]->type);
        case EMIT_reduce:
        case EMIT_call:
            return (double)type_local_elements(m, &inst->in[0]->type);
        case EMIT_ctrl:
            return block_flops(m, inst->body, depth + 1) * (double)(inst->op == OP_loop ? inst->at.trip : 1);
        default:
            return 0;
    }
}

static double block_flops(const Mesh *m, const Block *b, int depth) {
    double flops = 0;
    if (depth > MAX_NESTING) diag_bug("regions nest more than %d deep", MAX_NESTING);
    for (const Inst *inst = b->first; inst != NULL; inst = inst->next) flops += flops_at(m, inst, depth);
    return flops;
}

double inst_flops(const Mesh *m, const Inst *inst) {
    return flops_at(m, inst, 0);
}

static double bytes_touched(const Mesh *m, const Inst *inst) {
    double bytes = 0;
    /* Moves by index touch rows, not the whole table; what they write, or read, says how many. */
    bool rows = inst->op == OP_gather || inst->op == OP_slice || inst->op == OP_shard_slice;
    for (int i = rows ? 1 : 0; i < inst->nin; i++) bytes += (double)type_local_bytes(m, &inst->in[i]->type);
    for (int i = 0; i < inst->nout; i++) bytes += (double)type_local_bytes(m, &inst->out[i]->type) * (rows ? 2 : 1);
    return bytes;
}

double cost_inst(const Topology *t, const Mesh *m, const Inst *inst) {
    EmitKind kind = op_info[inst->op].emit;
    if (kind == EMIT_none || inst->op == OP_reshard || inst->op == OP_loop) return 0;
    if (kind == EMIT_coll) {
        AxisList axes = inst_axes(m, inst);
        return cost_collective(t, m, inst->op, &axes, inst_bytes_received(m, inst));
    }
    /* A device is a team of so many cores, or a share of one. */
    double cores = (double)topology_cores(t) / (double)mesh_devices(m);
    double compute = cost_flops(t, inst_flops(m, inst)) / cores;
    double memory = bytes_touched(m, inst) / (memory_per_second * cores);
    return start_seconds + (compute > memory ? compute : memory);
}
