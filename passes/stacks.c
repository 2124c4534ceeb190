/* stacks.c: what one loop stacks for another is stacked in the sharding in which it is read.
 *
 * A backward loop reads what the forward loop stacked. Where its body begins by resharding the slice, and does nothing
 * else with it, and the forward body has the value in that very sharding, the reshard is a collective that already took
 * place: the forward stacks that version, and the backward reads it as it is. (In a GShard layer this is the expert
 * output, which the forward already brought home for its combine, and the backward needs at home again.)
 *
 * Before and after: LOCAL. Complexity: for each stacked result a pass over its block and the bodies that read it. */
#include "sharding.h"

/* What is resharded, through any number of steps. */
static const Value *origin(const Value *v) {
    while (v->def != NULL && v->def->op == OP_reshard) v = v->def->in[0];
    return v;
}

/* The sharding that every use of the slice reshards to; NULL: some use takes it as it is, or they differ. */
static const Type *read_as(const Block *body, const Value *slice) {
    const Type *as = NULL;
    for (int i = 0; i < body->results.n; i++)
        if (body->results.at[i] == slice) return NULL;
    for (const Inst *in = body->first; in != NULL; in = in->next)
        for (int i = 0; i < in->nin; i++) {
            if (in->in[i] != slice) continue;
            if (in->op != OP_reshard || (as != NULL && !type_same_sharding(as, &in->out[0]->type))) return NULL;
            as = &in->out[0]->type;
        }
    return as;
}

/* The sharding in which all readers of the stack want its slices; NULL: they are content, or not of one mind. */
static const Type *wanted_slice(const Block *b, const Value *stack) {
    const Type *as = NULL;
    for (int i = 0; i < b->results.n; i++)
        if (b->results.at[i] == stack) return NULL;
    for (const Inst *in = b->first; in != NULL; in = in->next)
        for (int i = 0; i < in->nin; i++) {
            if (in->in[i] != stack) continue;
            if (in->op != OP_loop || i >= in->at.xs) return NULL;
            const Type *t = read_as(in->body, in->body->args.at[1 + i]);
            if (t == NULL || (as != NULL && !type_same_sharding(as, t))) return NULL;
            as = t;
        }
    return as;
}

/* A version of the value with the sharding, at the end of the block; NULL: none. */
static Value *version_of(const Block *b, const Value *v, const Type *as) {
    const Value *from = origin(v);
    for (int i = 0; i < b->args.n; i++)
        if (b->args.at[i] == from && type_same_sharding(&from->type, as)) return b->args.at[i];
    for (const Inst *in = b->first; in != NULL; in = in->next)
        for (int i = 0; i < in->nout; i++)
            if (origin(in->out[i]) == from && type_same_sharding(&in->out[i]->type, as)) return in->out[i];
    return NULL;
}

static void restack(Block *b, Value *stack, const Type *as) {
    Type t = sharding_by_label(&stack->type, as);
    sharding_copy(&stack->type, &t);
    for (Inst *in = b->first; in != NULL; in = in->next)
        for (int i = 0; i < in->nin; i++) {
            if (in->in[i] != stack) continue;
            Value *slice = in->body->args.at[1 + i];
            sharding_copy(&slice->type, as);
            for (Inst *use = in->body->first, *next; use != NULL; use = next) {
                next = use->next;
                if (use->op != OP_reshard || use->in[0] != slice) continue;
                block_replace(in->body, use->out[0], slice);
                inst_remove(use);
            }
        }
}

void stacks_settle(Block *b) {
    for (Inst *in = b->first; in != NULL; in = in->next) {
        if (in->op != OP_loop) continue;
        stacks_settle(in->body);
        for (int i = (int)in->at.carry; i < in->nout; i++) {
            const Type *as = wanted_slice(b, in->out[i]);
            if (as == NULL) continue;
            Type want = *as;
            Value *y = version_of(in->body, in->body->results.at[i], &want);
            if (y == NULL) continue;
            in->body->results.at[i] = y;
            restack(b, in->out[i], &want);
        }
    }
}
