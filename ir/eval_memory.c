/* eval_memory.c: PLANNED modules run in the memory that the plan lays out, so that a wrong plan is found.
 *
 * Beside their blocks (eval.h), values are stored in one image of the arena per device, at the places that emitted code
 * uses: a value's offset, moved on in loops whose slices are scanned or written in place. A use compares the image with
 * the block: any difference means that something was put there while the value was alive. An image keeps, per byte, the
 * number and which of its bytes it is, so that elements of different widths overwrite each other as in memory.
 *
 * Where a value lies (as in codegen/emit_c.c):
 *   - views: a slice, relabel or broadcast whose offset is its operand's (plus the slice's start) moves with it;
 *   - a loop's scanned slice: the operand's place, plus the iteration's slice;
 *   - a slice of a stacked result at the stack's offset: the stack's place, plus the iteration's slice.
 * Before: module_verify holds, so offsets are inside the arena and variables have places. */
#include <math.h>
#include <string.h>

#include "eval.h"

typedef struct Byte {
    double number;
    unsigned char of; /* width of the element * 16 + which byte; 0: nothing was stored */
} Byte;

struct Image {
    int64_t bytes;
    Byte **at; /* [device] */
};

static bool same_number(double a, double b) {
    return (a == b && signbit(a) == signbit(b)) || (isnan(a) && isnan(b));
}

static void store(Eval *e, int64_t device, int64_t address, const Type *local, const double *x) {
    int width = dtype_bytes(local->dtype);
    int64_t n = type_elements(local);
    if (address < 0 || address > e->image->bytes - n * width) eval_fail(e, "a place outside of the arena");
    Byte *to = e->image->at[device] + address;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < width; k++) *to++ = (Byte){x[i], (unsigned char)(width * 16 + k)};
}

/* The first element that is not there, -1: all are. */
static int64_t missing(const Eval *e, int64_t device, int64_t address, const Type *local, const double *x) {
    int width = dtype_bytes(local->dtype);
    int64_t n = type_elements(local);
    if (address < 0 || address > e->image->bytes - n * width) return 0;
    const Byte *at = e->image->at[device] + address;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < width; k++, at++)
            if (at->of != width * 16 + k || !same_number(at->number, x[i])) return i;
    return -1;
}

void memory_open(Eval *e, const Func *f) {
    if (e->m->phase < PHASE_PLANNED) return;
    e->image = eval_alloc(e, sizeof *e->image);
    e->image->bytes = f->arena_bytes;
    e->image->at = eval_alloc(e, sizeof(Byte *) * (size_t)e->devices);
    if (f->arena_bytes > INT32_MAX) eval_fail(e, "the arena is larger than what the interpreter takes");
    for (int64_t d = 0; d < e->devices; d++) e->image->at[d] = eval_alloc(e, sizeof(Byte) * (size_t)f->arena_bytes);
    for (int i = 0; i < e->m->vars.n; i++) {
        const Var *v = e->m->vars.at[i];
        Slot *s = slot_new(e, &v->type);
        for (int64_t d = 0; d < e->devices; d++) shard_split(e, &v->type, e->state->var[i].at, d, s->at[d]);
        memory_store_at(e, v->offset, s);
    }
}

void memory_close(Eval *e) {
    if (e->image == NULL) return;
    for (int i = 0; i < e->m->vars.n; i++) {
        const Var *v = e->m->vars.at[i];
        const double *whole = e->written[i].at != NULL ? e->written[i].at : e->state->var[i].at;
        Slot *s = slot_new(e, &v->type);
        for (int64_t d = 0; d < e->devices; d++) {
            shard_split(e, &v->type, whole, d, s->at[d]);
            if (missing(e, d, v->offset, &s->local, s->at[d]) >= 0)
                eval_fail(e, "when the call ends, variable '%s' is not in its place on device %lld", v->path,
                          (long long)d);
        }
    }
}

/* ---- places -------------------------------------------------------------------------------------------------------
 */

/* Whether the result of a moving op is its operand's memory. */
static bool is_view(const Eval *e, const Inst *i) {
    int64_t bytes = 0;
    if (i->op != OP_slice && i->op != OP_relabel && i->op != OP_broadcast) return false;
    if (i->op == OP_slice) {
        Type in = local_type(e, &i->in[0]->type);
        bytes = i->at.start * axis_stride(&in, type_find(&in, i->at.label)) * dtype_bytes(in.dtype);
    }
    return i->out[0]->offset >= 0 && i->out[0]->offset == i->in[0]->offset + bytes;
}

int64_t memory_moved(const Eval *e, const Frame *f, const Value *v) {
    if (e->image == NULL || v->def == NULL) return 0;
    if (is_view(e, v->def)) return f->slot[v->def->in[0]->id]->moved;
    const Inst *loop = f->b->owner;
    if (loop == NULL || loop->op != OP_loop) return 0;
    for (int k = (int)loop->at.carry; k < loop->nout; k++)
        if (loop->body->results.at[k] == v && loop->out[k]->offset == v->offset)
            return f->out[k]->moved + f->iteration * type_local_bytes(&e->m->mesh, &v->type);
    return 0;
}

void memory_store_at(Eval *e, int64_t address, const Slot *x) {
    if (e->image == NULL) return;
    for (int64_t d = 0; d < e->devices; d++) store(e, d, address, &x->local, x->at[d]);
}

void memory_store(Eval *e, const Value *v, const Slot *x) {
    if (v->offset >= 0) memory_store_at(e, v->offset + x->moved, x);
}

void memory_check(Eval *e, const Value *v, const Slot *x) {
    if (e->image == NULL || v->offset < 0) return;
    for (int64_t d = 0; d < e->devices; d++) {
        int64_t i = missing(e, d, v->offset + x->moved, &x->local, x->at[d]);
        if (i >= 0)
            eval_fail(e, "element %lld of %s%s, at %lld on device %lld, was overwritten before this use", (long long)i,
                      v->name != NULL ? "%" : "the operand", v->name != NULL ? v->name : "",
                      (long long)(v->offset + x->moved), (long long)d);
    }
}

/* An element-wise result may take the place of an operand exactly, an update that of what it updates; a view is its
 * operand. */
static bool may_share(const Eval *e, const Inst *i, int operand, const Slot *in, int64_t in_at, const Slot *out,
                      int64_t out_at) {
    bool exact = in_at == out_at && type_elements(&in->local) == type_elements(&out->local) &&
                 dtype_bytes(in->local.dtype) == dtype_bytes(out->local.dtype);
    if (i->op == OP_update) return exact && operand == 0;
    return is_view(e, i) || (exact && (op_info[i->op].emit == EMIT_elem || i->op == OP_fused));
}

void memory_check_apart(Eval *e, const Frame *f, const Inst *inst) {
    if (e->image == NULL || inst->op == OP_loop || inst->op == OP_read) return;
    for (int k = 0; k < inst->nout; k++)
        for (int j = 0; j < inst->nin; j++) {
            const Slot *in = f->slot[inst->in[j]->id], *out = f->slot[inst->out[k]->id];
            int64_t from = inst->in[j]->offset + in->moved, to = inst->out[k]->offset + out->moved;
            if (inst->in[j]->offset < 0 || inst->out[k]->offset < 0) continue;
            bool apart = from + type_local_bytes(&e->m->mesh, &inst->in[j]->type) <= to ||
                         to + type_local_bytes(&e->m->mesh, &inst->out[k]->type) <= from;
            if (!apart && !may_share(e, inst, j, in, from, out, to))
                eval_fail(e, "result %d overwrites operand %d while it is read", k + 1, j + 1);
        }
}
