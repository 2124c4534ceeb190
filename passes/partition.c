/* partition.c: make every op local; reshard where producer and consumer disagree.
 *
 * Algorithm: each block in program order. A value is kept as a list of versions, one a sharding: as it was computed, in
 * its wish, and in whatever sharding a consumer asked for before; a consumer takes the nearest. For an instruction,
 * assign.c chooses which mesh axes split which factor by predicted time; operands are fetched in the sharding that this
 * asks for, the result is what it gives, and a reshard takes it on to its wish. A contraction over a split factor gives
 * a partial sum, which the same reshard resolves (all-reduce, or reduce-scatter to the wish): no consumer sees one.
 *
 * An annotation that survived propagation (`reshard`) is one more version of its operand. Reads have the sharding of
 * their variable, and what is written is brought to it. A loop's carried values have one sharding all around;
 * invariants are resharded before the loop, scanned values inside it (a slice is what is used, and one is alive at a
 * time).
 *
 * Before: SHARDED, types are wishes. After: LOCAL, rule_check holds for every instruction; reshards without use are
 * gone; what loops stack for others is stacked as those read it (stacks.c).
 * Complexity: instructions x what assign.c says. */
#include "sharding.h"

typedef struct VersionList {
    VEC(Value *) at;
} VersionList;

typedef struct Entry {
    VersionList *versions;
    Type wish;
    Value *terms; /* the value as partial sums, which no version is; NULL: it was computed whole */
} Entry;

typedef struct Partition {
    Module *m;
    Arena *a;
    Resharder *r;
    VEC(Entry) values; /* by Value.id */
} Partition;

/* ---- versions ---------------------------------------------------------------------------------------------------- */

static void add_value(Partition *p, Value *v, VersionList *versions) {
    v->id = p->values.n;
    vec_push(p->a, p->values, ((Entry){versions, v->type, NULL}));
    vec_push(p->a, versions->at, v);
}

static void new_value(Partition *p, Value *v) {
    add_value(p, v, NEW(p->a, VersionList));
}

static Versions version_types(const Partition *p, const Value *v) {
    const VersionList *l = p->values.at[v->id].versions;
    const Type **types = NEW_ARRAY(p->a, const Type *, l->at.n);
    for (int i = 0; i < l->at.n; i++) types[i] = &l->at.at[i]->type;
    return (Versions){l->at.n, types};
}

static Value *reshard(Partition *p, Block *b, Inst *before, Loc loc, Value *from, const Type *to) {
    Inst *in = inst_new(p->m, OP_reshard, loc, 1, &from, &(Attrs){0}, NULL, NULL);
    sharding_copy(&in->out[0]->type, to);
    in->out[0]->name = from->name;
    inst_insert(b, before, in);
    return in->out[0];
}

/* The value in the sharding of `t`, made before `before` from the nearest version if there is none yet. */
static Value *fetch(Partition *p, Block *b, Inst *before, Loc loc, const Value *v, const Type *t) {
    VersionList *l = p->values.at[v->id].versions;
    Versions types = version_types(p, v);
    for (int i = 0; i < types.n; i++)
        if (type_same_sharding(types.type[i], t)) return l->at.at[i];
    double seconds;
    Value *from = l->at.at[nearest_version(p->r, &types, t, &seconds)];
    Value *w = reshard(p, b, before, loc, from, t);
    add_value(p, w, l);
    return w;
}

static const Type *wish_of(const Partition *p, const Value *v) {
    return &p->values.at[v->id].wish;
}

static Value *fetch_wish(Partition *p, Block *b, Inst *before, Loc loc, const Value *v) {
    Type wish = *wish_of(p, v); /* a copy: fetching moves the table */
    return fetch(p, b, before, loc, v, &wish);
}

/* A result that has the sharding of its type, and another wish. */
static void define(Partition *p, Inst *in, Value *v, const Type *wish) {
    if (type_same_sharding(&v->type, wish)) {
        new_value(p, v);
        return;
    }
    VersionList *l = NEW(p->a, VersionList);
    add_value(p, v, l);
    p->values.at[v->id].wish = *wish;
    /* Whoever wants the wish pays for it: a scale of the value may be cheaper before the move. */
    if (v->type.partial.n == 0) return;
    Value *w = reshard(p, in->parent, in->next, in->loc, v, wish);
    add_value(p, w, l);
    l->at.at[0] = w; /* consumers see the sum only, */
    l->at.n = 1;
    p->values.at[v->id].terms = v; /* except those that add terms */
}

/* ---- instructions ------------------------------------------------------------------------------------------------ */

static void partition_block(Partition *p, Block *b);

static void partition_inst(Partition *p, Inst *in, const ShardRule *rule) {
    Versions *versions = NEW_ARRAY(p->a, Versions, in->nin + 1);
    Type *wish = NEW_ARRAY(p->a, Type, in->nout + 1);
    for (int i = 0; i < in->nin; i++) versions[i] = version_types(p, in->in[i]);
    for (int i = 0; i < in->nout; i++) wish[i] = in->out[i]->type;
    Assignment best = assign_factors(p->r, &(AssignQuery){in, rule, versions, wish}, p->a);
    for (int i = 0; i < in->nin; i++) {
        Type t = in->in[i]->type;
        assignment_type(&p->m->mesh, rule, best.factor, rule->in[i], false, &t);
        in->in[i] = fetch(p, in->parent, in, in->loc, in->in[i], &t);
    }
    for (int i = 0; i < in->nout; i++) {
        assignment_type(&p->m->mesh, rule, best.factor, rule->out[i], true, &in->out[i]->type);
        define(p, in, in->out[i], &wish[i]);
    }
}

/* Nobody else uses the value: only its own reshard to the sum, which nobody uses. */
static bool only_here(const Partition *p, const Inst *in, const Value *v) {
    return block_uses(in->parent, v) == 2 && block_uses(in->parent, p->values.at[v->id].versions->at.at[0]) == 0;
}

/* A sum of partial sums of the same kind, each used for nothing else, is the partial sum of the sums: one collective
 * instead of two (gradients of what is used twice, and of the inputs of parallel projections). */
static bool add_terms(Partition *p, Inst *in) {
    if ((in->op != OP_add && in->op != OP_sub) || in->in[0] == in->in[1]) return false;
    Value *a = p->values.at[in->in[0]->id].terms, *b = p->values.at[in->in[1]->id].terms;
    if (a == NULL || b == NULL || !type_same_shape(&a->type, &b->type) || !type_same_sharding(&a->type, &b->type))
        return false;
    if (a->type.partial_kind != PARTIAL_sum) return false;
    if (!only_here(p, in, in->in[0]) || !only_here(p, in, in->in[1])) return false;
    Type wish = in->out[0]->type;
    in->in[0] = a;
    in->in[1] = b;
    sharding_copy(&in->out[0]->type, &a->type);
    define(p, in, in->out[0], &wish);
    return true;
}

/* The stack in a sharding that is at hand or its own wish, its slices the same: what differs is done inside. */
static void scan_operand(Partition *p, Inst *loop, int i) {
    Value *x = loop->in[i], *slice = loop->body->args.at[1 + i];
    Type whole = sharding_by_label(&x->type, &slice->type), own = *wish_of(p, x);
    int stack = type_find(&own, loop->at.label);
    if (stack >= 0) own.dim[stack].axes.n = 0;
    Versions types = version_types(p, x);
    bool at_hand = false;
    for (int v = 0; v < types.n; v++) at_hand |= type_same_sharding(types.type[v], &whole);
    loop->in[i] = fetch(p, loop->parent, loop, loop->loc, x, at_hand ? &whole : &own);
    Type t = sharding_by_label(&slice->type, &loop->in[i]->type);
    sharding_copy(&slice->type, &t);
}

static void partition_loop(Partition *p, Inst *in) {
    Block *body = in->body;
    int xs = (int)in->at.xs, carry = (int)in->at.carry;
    for (int i = 0; i < in->nin; i++) {
        if (i < xs)
            scan_operand(p, in, i);
        else
            in->in[i] = fetch(p, in->parent, in, in->loc, in->in[i], &body->args.at[1 + i]->type);
    }
    partition_block(p, body);
    for (int i = 0; i < in->nout; i++) {
        Value *y = body->results.at[i];
        const Type *as = i < carry ? &body->args.at[1 + xs + i]->type : &in->out[i]->type;
        Type t = sharding_by_label(&y->type, as);
        body->results.at[i] = fetch(p, body, NULL, in->loc, y, &t);
        t = sharding_by_label(&in->out[i]->type, &t);
        sharding_copy(&in->out[i]->type, &t);
        new_value(p, in->out[i]);
    }
}

static void partition_one(Partition *p, Inst *in) {
    if (in->op == OP_loop) {
        partition_loop(p, in);
    } else if (in->op == OP_reshard) {
        Value *x = in->in[0], *y = in->out[0];
        VersionList *l = p->values.at[x->id].versions;
        fetch(p, in->parent, in, in->loc, x, &y->type);
        y->id = p->values.n;
        vec_push(p->a, p->values, ((Entry){l, y->type, NULL}));
        inst_remove(in); /* uses find the versions through the id */
    } else if (in->op == OP_write) {
        in->in[0] = fetch(p, in->parent, in, in->loc, in->in[0], &in->at.var->type);
    } else if (in->op == OP_read) {
        new_value(p, in->out[0]);
    } else if (!add_terms(p, in)) {
        const ShardRule *rule = shard_rule(p->a, in);
        if (rule == NULL) diag_bug("%s has no sharding rule", op_info[in->op].name);
        partition_inst(p, in, rule);
    }
}

static void partition_block(Partition *p, Block *b) {
    for (int i = 0; i < b->args.n; i++) new_value(p, b->args.at[i]);
    /* What an instruction inserts after itself is its own business. */
    for (Inst *in = b->first, *next; in != NULL; in = next) {
        next = in->next;
        partition_one(p, in);
    }
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

static void drop_block(Partition *p, Block *b, bool *used) {
    for (int i = 0; i < b->results.n; i++) used[b->results.at[i]->id] = true;
    for (Inst *in = b->last, *prev; in != NULL; in = prev) {
        prev = in->prev;
        if (in->body != NULL) drop_block(p, in->body, used);
        if (in->op == OP_reshard && !used[in->out[0]->id])
            inst_remove(in);
        else
            for (int i = 0; i < in->nin; i++) used[in->in[i]->id] = true;
    }
}

/* Reshards that nobody asked for in the end. */
static void drop_unused(Partition *p, Func *f) {
    drop_block(p, f->body, NEW_ARRAY(p->a, bool, p->values.n + 1));
}

bool pass_partition(Module *m, PassCtx *ctx) {
    Partition p = {.m = m, .a = ctx->scratch, .r = resharder_new(ctx->scratch, &m->mesh, ctx->topo)};
    for (int i = 0; i < m->funcs.n; i++) {
        Func *f = m->funcs.at[i];
        partition_block(&p, f->body);
        for (int k = 0; k < f->body->results.n; k++)
            f->body->results.at[k] = fetch_wish(&p, f->body, NULL, f->loc, f->body->results.at[k]);
        drop_unused(&p, f);
        stacks_settle(f->body);
        drop_unused(&p, f);
    }
    return true;
}
