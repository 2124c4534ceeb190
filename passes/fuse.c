/* fuse.c: element-wise chains and folds become one loop nest.
 *
 * Greedy, in program order: each instruction that may be part of a nest joins the nests of its producers, as long as
 * the union is one nest (fuse_rules.c) and no path leads out of it and back in through another instruction. So softmax,
 * a norm, cross entropy and an optimizer's update end up as one nest each: every tensor is read and written once.
 * Constants, counters and what is cheaply made of them are copied into the nests that use them.
 *
 * Then each nest is replaced by a `fused` instruction: arguments are what comes from outside, results what is used
 * outside. The block is put into an order in which every instruction follows its operands and collectives keep theirs.
 *
 * Before: PLACED. After: PLACED; bodies of `fused` hold element-wise ops, folds and ops that pick elements. Cost: an
 * attempted union is linear in the block; there are at most as many as operands. */
#include "fuse.h"

#include <stdlib.h>

typedef struct Node {
    Inst *inst;
    int group; /* index of the group's first member */
    VEC(int) users;
    int before; /* the ordered instruction before this one, -1: none */
    int mark;   /* of the search that saw it last */
    bool can, leaf;
} Node;

typedef struct Fuse {
    Module *m;
    Arena *arena;
    Block *block;
    Node *node; /* in program order */
    int n;
    VEC(int) * group; /* [first member]: members, ascending */
    bool *is_result;  /* [node]: a result of the block */
    int mark;
} Fuse;

/* Value.id is the defining instruction's number in the block, -1 for arguments. */
static int node_of(const Value *v) {
    return v->def == NULL ? -1 : v->id;
}

/* Collectives, and loops that may hold some, keep their order: each waits for the one before. */
static bool is_ordered(const Inst *i) {
    return op_info[i->op].emit == EMIT_coll || i->op == OP_loop;
}

static void collect(Fuse *f) {
    int before = -1;
    f->n = 0;
    for (Inst *i = f->block->first; i != NULL; i = i->next) f->n++;
    f->node = NEW_ARRAY(f->arena, Node, f->n + 1);
    f->group = arena_alloc(f->arena, sizeof *f->group * (size_t)(f->n + 1));
    f->is_result = NEW_ARRAY(f->arena, bool, f->n + 1);
    int k = 0;
    for (Inst *i = f->block->first; i != NULL; i = i->next, k++) {
        f->node[k] = (Node){.inst = i, .group = k, .can = fuse_can(i), .leaf = fuse_is_leaf(i)};
        vec_push(f->arena, f->group[k], k);
        for (int o = 0; o < i->nout; o++) i->out[o]->id = k;
        for (int o = 0; o < i->nin; o++) {
            int def = node_of(i->in[o]);
            if (def >= 0) vec_push(f->arena, f->node[def].users, k);
        }
        f->node[k].before = is_ordered(i) ? before : -1;
        if (!is_ordered(i)) continue;
        if (before >= 0) vec_push(f->arena, f->node[before].users, k);
        before = k;
    }
    for (int i = 0; i < f->block->results.n; i++) {
        int def = node_of(f->block->results.at[i]);
        if (def >= 0) f->is_result[def] = true;
    }
}

/* ---- which unions -------------------------------------------------------------------------------------------------
 */

static bool used_outside(const void *ctx, const Value *v, const Members *m) {
    const Fuse *f = ctx;
    const Node *def = &f->node[node_of(v)];
    if (f->is_result[node_of(v)]) return true;
    for (int i = 0; i < def->users.n; i++)
        if (!fuse_has(m, f->node[def->users.at[i]].inst)) return true;
    return false;
}

static bool members_of(const Fuse *f, int a, int b, Members *m) {
    *m = (Members){.mesh = &f->m->mesh, .outside = used_outside, .ctx = f};
    if (f->group[a].n + f->group[b].n > FUSE_LIMIT) return false;
    for (int i = 0, k = 0; i < f->group[a].n || k < f->group[b].n;) {
        bool first = k == f->group[b].n || (i < f->group[a].n && f->group[a].at[i] < f->group[b].at[k]);
        m->at[m->n++] = f->node[first ? f->group[a].at[i++] : f->group[b].at[k++]].inst;
    }
    return true;
}

static void push_group(Fuse *f, int group, int *stack, int *top) {
    for (int i = 0; i < f->group[group].n; i++) {
        Node *n = &f->node[f->group[group].at[i]];
        if (n->mark == f->mark) continue;
        n->mark = f->mark;
        stack[(*top)++] = f->group[group].at[i];
    }
}

/* Whether a path leads from group `from` through instructions outside of both to group `to`. */
static bool reaches(Fuse *f, int from, int to, int *stack) {
    int top = 0;
    f->mark++;
    for (int i = 0; i < f->group[from].n; i++) f->node[f->group[from].at[i]].mark = f->mark;
    for (int i = 0; i < f->group[from].n; i++) {
        const Node *n = &f->node[f->group[from].at[i]];
        for (int u = 0; u < n->users.n; u++)
            if (f->node[n->users.at[u]].group != to) push_group(f, f->node[n->users.at[u]].group, stack, &top);
    }
    while (top > 0) {
        const Node *n = &f->node[stack[--top]];
        for (int u = 0; u < n->users.n; u++) {
            int g = f->node[n->users.at[u]].group;
            if (g == to) return true;
            push_group(f, g, stack, &top);
        }
    }
    return false;
}

static void unite(Fuse *f, int a, int b) {
    Members m;
    members_of(f, a, b, &m);
    VEC(int) all = {0};
    for (int i = 0; i < m.n; i++) {
        int k = -1;
        for (int o = 0; o < m.at[i]->nout; o++) k = m.at[i]->out[o]->id;
        vec_push(f->arena, all, k);
    }
    int to = all.at[0];
    f->group[to].n = 0;
    for (int i = 0; i < all.n; i++) {
        f->node[all.at[i]].group = to;
        vec_push(f->arena, f->group[to], all.at[i]);
    }
}

static void try_unite(Fuse *f, int a, int b, int *stack) {
    Members m;
    if (a == b || !members_of(f, a, b, &m) || !fuse_fits(&m)) return;
    if (reaches(f, a, b, stack) || reaches(f, b, a, stack)) return;
    unite(f, a, b);
}

static void find_groups(Fuse *f) {
    int *stack = NEW_ARRAY(f->arena, int, f->n + 1);
    for (int k = 0; k < f->n; k++) {
        const Inst *i = f->node[k].inst;
        for (int o = 0; f->node[k].can && o < i->nin; o++) {
            int def = node_of(i->in[o]);
            if (def >= 0 && f->node[def].can) try_unite(f, f->node[def].group, f->node[k].group, stack);
        }
    }
}

/* ---- the new order ------------------------------------------------------------------------------------------------
 */

/* A unit is a group or a lone instruction, named by its first member; it is done when its last member would be. */
typedef struct Unit {
    int first, last;
} Unit;

static int by_last(const void *a, const void *b) {
    return ((const Unit *)a)->last - ((const Unit *)b)->last;
}

typedef struct Order {
    VEC(int) done; /* units, operands first */
    char *state;   /* [first]: 0 new, 1 open, 2 done */
} Order;

/* Pushes the units that must come before `unit` and are not done. Returns whether there were any. */
static bool push_needs(Fuse *f, Order *o, int unit, int *stack, int *top) {
    bool any = false;
    for (int i = 0; i < f->group[unit].n; i++) {
        int k = f->group[unit].at[i];
        const Inst *inst = f->node[k].inst;
        for (int x = -1; x < inst->nin; x++) {
            int def = x < 0 ? f->node[k].before : node_of(inst->in[x]);
            if (def < 0) continue;
            int g = f->node[def].group;
            if (g == unit || o->state[g] == 2) continue;
            if (o->state[g] == 1) diag_bug("instructions wait for each other");
            stack[(*top)++] = g;
            any = true;
        }
    }
    return any;
}

static void visit(Fuse *f, Order *o, int unit, int *stack) {
    int top = 0;
    stack[top++] = unit;
    while (top > 0) {
        int u = stack[top - 1];
        if (o->state[u] == 0) {
            o->state[u] = 1;
            if (push_needs(f, o, u, stack, &top)) continue;
        }
        top--;
        if (o->state[u] == 1) vec_push(f->arena, o->done, u);
        o->state[u] = 2;
    }
}

static Order order_units(Fuse *f) {
    Order o = {.state = NEW_ARRAY(f->arena, char, f->n + 1)};
    Unit *unit = NEW_ARRAY(f->arena, Unit, f->n + 1);
    int n = 0, edges = f->n;
    for (int k = 0; k < f->n; k++) {
        if (f->node[k].group == k) unit[n++] = (Unit){k, f->group[k].at[f->group[k].n - 1]};
        edges += f->node[k].inst->nin + 1;
    }
    qsort(unit, (size_t)n, sizeof *unit, by_last);
    int *stack = NEW_ARRAY(f->arena, int, edges + 1);
    for (int i = 0; i < n; i++)
        if (o.state[unit[i].first] != 2) visit(f, &o, unit[i].first, stack);
    return o;
}

/* ---- the new instructions -----------------------------------------------------------------------------------------
 */

typedef struct Region {
    Block *body;
    VEC(Value *) in;           /* operands, parallel to the body's arguments */
    VEC(Value *) leaf, copied; /* leaves and their copies inside */
    VEC(Value *) out;          /* values used outside */
} Region;

static Value *leaf_known(const Region *r, const Value *leaf) {
    for (int i = 0; i < r->leaf.n; i++)
        if (r->leaf.at[i] == leaf) return r->copied.at[i];
    return NULL;
}

/* Copies a leaf and what it is made of (fuse_is_leaf bounds the depth). */
static Value *copy_leaf(Fuse *f, Region *r, Value *leaf) {
    Value *in[3] = {NULL}, *known = leaf_known(r, leaf);
    if (known != NULL) return known;
    for (int k = 0; k < leaf->def->nin; k++) in[k] = copy_leaf(f, r, leaf->def->in[k]);
    Inst *i = inst_new(f->m, leaf->def->op, leaf->def->loc, leaf->def->nin, in, &leaf->def->at, NULL, NULL);
    i->out[0]->type = leaf->type;
    inst_insert(r->body, NULL, i);
    vec_push(f->arena, r->leaf, leaf);
    vec_push(f->arena, r->copied, i->out[0]);
    return i->out[0];
}

/* What operand v is inside the region. Members stay themselves: they move into it. */
static Value *inside(Fuse *f, Region *r, int group, Value *v, bool memory) {
    int def = node_of(v);
    if (def >= 0 && f->node[def].group == group) return v;
    if (def >= 0 && f->node[def].leaf && !memory) return copy_leaf(f, r, v);
    for (int i = 0; i < r->in.n; i++)
        if (r->in.at[i] == v) return r->body->args.at[i];
    vec_push(f->arena, r->in, v);
    return block_arg(f->m, r->body, &v->type, v->name);
}

static void move_member(Fuse *f, Region *r, int group, int k) {
    Inst *i = f->node[k].inst;
    bool picks = op_info[i->op].emit == EMIT_move;
    for (int o = 0; o < i->nin; o++) i->in[o] = inside(f, r, group, i->in[o], picks && o == 0);
    inst_remove(i);
    inst_insert(r->body, NULL, i);
    bool outside = f->is_result[k];
    for (int u = 0; u < f->node[k].users.n; u++) outside |= f->node[f->node[k].users.at[u]].group != group;
    if (outside) vec_push(f->arena, r->out, i->out[0]);
}

/* `becomes`: by Value.id of a result of the block's instructions, what stands for it outside. */
static void make_fused(Fuse *f, int group, Value **becomes) {
    Region r = {.body = block_new(f->m, NULL)};
    int last = f->group[group].at[f->group[group].n - 1];
    Loc loc = f->node[last].inst->loc;
    for (int i = 0; i < f->group[group].n; i++) move_member(f, &r, group, f->group[group].at[i]);
    for (int i = 0; i < r.out.n; i++) vec_push(f->m->arena, r.body->results, r.out.at[i]);
    Inst *fused = inst_new(f->m, OP_fused, loc, r.in.n, r.in.at, NULL, r.body, NULL);
    for (int i = 0; i < r.out.n; i++) {
        fused->out[i]->type = r.out.at[i]->type;
        fused->out[i]->name = r.out.at[i]->name;
        becomes[r.out.at[i]->id] = fused->out[i];
    }
    inst_insert(f->block, NULL, fused);
}

/* A nest of one instruction is that instruction, unless it has constants to take in. */
static bool worth_it(const Fuse *f, int group) {
    if (f->group[group].n > 1) return true;
    const Node *n = &f->node[group];
    for (int o = 0; n->can && o < n->inst->nin; o++) {
        int def = node_of(n->inst->in[o]);
        bool memory = op_info[n->inst->op].emit == EMIT_move && o == 0;
        if (def >= 0 && f->node[def].leaf && !memory) return true;
    }
    return false;
}

static void rename_operands(Fuse *f, Value **becomes) {
    for (Inst *i = f->block->first; i != NULL; i = i->next)
        for (int o = 0; o < i->nin; o++) {
            int def = node_of(i->in[o]);
            if (def >= 0 && becomes[def] != NULL && i->in[o]->block != f->block) i->in[o] = becomes[def];
        }
    for (int i = 0; i < f->block->results.n; i++) {
        Value **v = &f->block->results.at[i];
        int def = node_of(*v);
        if (def >= 0 && becomes[def] != NULL && (*v)->block != f->block) *v = becomes[def];
    }
}

static void drop_unused_leaves(Fuse *f) {
    for (int k = f->n - 1; k >= 0; k--) {
        Inst *i = f->node[k].inst;
        if (f->node[k].leaf && i->parent == f->block && block_uses(f->block, i->out[0]) == 0) inst_remove(i);
    }
}

static bool rewrite(Fuse *f) {
    Order o = order_units(f);
    Value **becomes = NEW_ARRAY(f->arena, Value *, f->n + 1);
    bool changed = false;
    for (int i = 0; i < o.done.n; i++) {
        int unit = o.done.at[i];
        if (worth_it(f, unit)) {
            make_fused(f, unit, becomes);
            changed = true;
        } else {
            inst_remove(f->node[unit].inst);
            inst_insert(f->block, NULL, f->node[unit].inst);
        }
    }
    rename_operands(f, becomes);
    drop_unused_leaves(f);
    return changed;
}

static bool fuse_block(Module *m, Arena *arena, Block *b) {
    bool changed = false;
    for (Inst *i = b->first; i != NULL; i = i->next)
        if (i->op == OP_loop) changed |= fuse_block(m, arena, i->body);
    Fuse f = {.m = m, .arena = arena, .block = b};
    collect(&f);
    find_groups(&f);
    return rewrite(&f) || changed;
}

bool pass_fuse(Module *m, PassCtx *ctx) {
    if (ctx->opt->no_fuse) return false;
    bool changed = false;
    for (int i = 0; i < m->funcs.n; i++) changed |= fuse_block(m, ctx->scratch, m->funcs.at[i]->body);
    return changed;
}
