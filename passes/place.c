/* place.c: reshards become the cheapest sequences of collectives.
 *
 * Algorithm: reshard_search.c finds the moves; here each move becomes an instruction in front of the reshard, and the
 * reshard's uses take the last result. A move that was already made on the same value in the same block is not made
 * again, so reshards that begin alike share their beginning, and equal ones are one. (Instructions are visited in
 * program order, so what is shared stands before its second use.)
 *
 * Before: LOCAL. After: PLACED: no reshard; the types between collectives say the sharding.
 * Complexity: reshards x (a memoized search + the moves already made on the value). */
#include "sharding.h"
#include "support/intern.h"

typedef struct Made Made;
struct Made {
    const Value *from;
    Op op;
    Value *to;
    Made *next;
};

typedef struct Placing {
    Module *m;
    Resharder *r;
    Arena *a;
    Made *made; /* in the block at hand */
} Placing;

static const char *partial_word(PartialKind k) {
    static const char *const word[] = {
        [PARTIAL_none] = "sum", [PARTIAL_sum] = "sum", [PARTIAL_max] = "max", [PARTIAL_min] = "min"};
    return intern(word[k]);
}

static Value *place_move(Placing *p, Inst *reshard, Value *x, const Move *mv) {
    Type t = move_apply(mv, &x->type);
    for (const Made *made = p->made; made != NULL; made = made->next)
        if (made->from == x && made->op == mv->op && type_same_sharding(&made->to->type, &t)) return made->to;
    Attrs at = {0};
    if (mv->from >= 0) at.label = x->type.dim[mv->from].label;
    if (mv->to >= 0) at.to = x->type.dim[mv->to].label;
    if (mv->op != OP_permute) at.axes = mv->axes;
    if (mv->op == OP_all_reduce || mv->op == OP_reduce_scatter) at.kind = partial_word(x->type.partial_kind);
    Inst *in = inst_new(p->m, mv->op, reshard->loc, 1, &x, &at, NULL, NULL);
    Value *y = in->out[0];
    sharding_copy(&y->type, &t);
    y->name = x->name;
    inst_insert(reshard->parent, reshard, in);
    Made *made = NEW(p->a, Made);
    *made = (Made){x, mv->op, y, p->made};
    p->made = made;
    return y;
}

static void place_block(Placing *p, Block *b) {
    p->made = NULL;
    for (Inst *in = b->first, *next; in != NULL; in = next) {
        next = in->next;
        if (in->op != OP_reshard) continue;
        Value *x = in->in[0];
        const ReshardPath *path = reshard_path(p->r, &x->type, &in->out[0]->type);
        for (int i = 0; i < path->n; i++) x = place_move(p, in, x, &path->move[i]);
        block_replace(b, in->out[0], x);
        inst_remove(in);
    }
    for (Inst *in = b->first; in != NULL; in = in->next)
        if (in->body != NULL) place_block(p, in->body);
}

bool pass_place(Module *m, PassCtx *ctx) {
    Placing p = {m, resharder_new(ctx->scratch, &m->mesh, ctx->topo), ctx->scratch, NULL};
    for (int i = 0; i < m->funcs.n; i++) place_block(&p, m->funcs.at[i]->body);
    return true;
}
