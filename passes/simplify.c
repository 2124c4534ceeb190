/* simplify.c: the same program with less: constants folded, equal values merged, unused ones dropped.
 *
 * Rounds of one forward and one backward walk over every block, until nothing changes (at most SIMPLIFY_ROUNDS):
 *   forward   operands are replaced by what stands for them by now; then algebra (simplify_rules.c); then value
 * numbering by hash (Cocke 1970): an instruction with the op, operands and attributes of an earlier one of its block is
 *             that one. Reads of a variable are equal, whatever is written: a read gives the value at the call's start.
 *   backward  what neither a result nor a `write` needs is removed, through loops too: a carried value is needed when
 * its last value is, or when something needed reads it. Loops also get: simplify_loop.c.
 *
 * Before and after: ANNOTATED; results keep their types; annotations that something uses stay where they are.
 * Cost: instructions x rounds x nesting. */
#include "simplify.h"

#include <string.h>

#include "passes.h"

enum { SIMPLIFY_ROUNDS = 12 };

/* ---- the table of slots ---- */

SimpleSlot *simplify_slot(Simplify *s, Value *v) {
    /* Ids of values that the table does not know are anything: the slot's `of` tells. */
    if (v->id < 0 || v->id >= s->slot.n || s->slot.at[v->id].of != v) {
        v->id = s->slot.n;
        vec_push(s->scratch, s->slot, ((SimpleSlot){.of = v}));
    }
    return &s->slot.at[v->id];
}

Value *simplify_resolve(Simplify *s, Value *v) {
    for (Value *to = v; to != NULL; to = simplify_slot(s, v)->to) v = to;
    return v;
}

void simplify_replace(Simplify *s, Value *from, Value *to) {
    to = simplify_resolve(s, to);
    if (to->name == NULL && to->def != NULL) to->name = from->name;
    simplify_slot(s, from)->to = to;
    s->changed = true;
}

/* ---- value numbering ---- */

typedef struct Numbering {
    Inst **at; /* open addressing */
    size_t size;
} Numbering;

static uint64_t mix(uint64_t h, uint64_t x) {
    return (h ^ x) * 0x9e3779b97f4a7c15u ^ (h >> 29);
}

static uint64_t inst_hash(const Inst *i) {
    uint64_t h = mix(14695981039346656037u, (uint64_t)i->op);
    for (int k = 0; k < i->nin; k++) h = mix(h, (uint64_t)(uintptr_t)i->in[k]);
    uint64_t value;
    memcpy(&value, &i->at.value, sizeof value);
    h = mix(mix(h, value), (uint64_t)i->at.start);
    h = mix(mix(h, (uint64_t)i->at.site), (uint64_t)(uintptr_t)i->at.label);
    return mix(h, (uint64_t)(uintptr_t)i->at.var);
}

#define EQUAL_PLAIN(x, y) (*(x) == *(y))
#define EQUAL_LABEL EQUAL_PLAIN
#define EQUAL_INT EQUAL_PLAIN
#define EQUAL_FLAG EQUAL_PLAIN
#define EQUAL_WORD EQUAL_PLAIN
#define EQUAL_VAR EQUAL_PLAIN
#define EQUAL_DTYPE EQUAL_PLAIN
#define EQUAL_NUM(x, y) (memcmp((x), (y), sizeof *(x)) == 0) /* 0 and -0 are two constants */
#define EQUAL_AXES axes_equal
#define EQUAL_LABELS labels_equal
#define EQUAL_DIMS dims_equal

static bool labels_equal(const LabelList *a, const LabelList *b) {
    if (a->n != b->n) return false;
    for (int k = 0; k < a->n; k++)
        if (a->at[k] != b->at[k]) return false;
    return true;
}

static bool dims_equal(const DimList *a, const DimList *b) {
    if (a->n != b->n) return false;
    for (int k = 0; k < a->n; k++)
        if (a->at[k].label != b->at[k].label || a->at[k].size != b->at[k].size) return false;
    return true;
}

static bool attrs_equal(const Attrs *a, const Attrs *b) {
#define ATTR(name, kind, doc) \
    if (!EQUAL_##kind(&a->name, &b->name)) return false;
#include "attrs.def"
#undef ATTR
    return true;
}

/* Wishes count: two annotations of one value may differ. */
static bool wishes_equal(const Type *a, const Type *b) {
    for (int k = 0; k < a->rank; k++)
        if (a->dim[k].pinned != b->dim[k].pinned || !axes_equal(&a->dim[k].axes, &b->dim[k].axes)) return false;
    return true;
}

static bool inst_equal(const Inst *a, const Inst *b) {
    if (a->op != b->op || a->nin != b->nin || a->nout != b->nout) return false;
    for (int k = 0; k < a->nin; k++)
        if (a->in[k] != b->in[k]) return false;
    for (int k = 0; k < a->nout; k++)
        if (!wishes_equal(&a->out[k]->type, &b->out[k]->type)) return false;
    return attrs_equal(&a->at, &b->at);
}

/* The earlier equal instruction, or NULL after `inst` was entered. */
static Inst *number_inst(Numbering *n, Inst *inst) {
    size_t at = inst_hash(inst) & (n->size - 1);
    for (; n->at[at] != NULL; at = (at + 1) & (n->size - 1))
        if (inst_equal(n->at[at], inst)) return n->at[at];
    n->at[at] = inst;
    return NULL;
}

static Numbering numbering_new(Arena *a, const Block *b) {
    size_t count = 64;
    for (const Inst *i = b->first; i != NULL; i = i->next) count++;
    Numbering n = {.size = 128};
    /* Rules may build a few instructions for each one that is there; twice that stays sparse. */
    while (n.size < 16 * count) n.size *= 2;
    n.at = NEW_ARRAY(a, Inst *, n.size);
    return n;
}

/* ---- forward ---- */

static void forward(Simplify *s, Block *block);

static void visit_loop(Simplify *s, Inst *loop) {
    Builder before = s->b;
    simplify_loop_enter(s, loop);
    s->b = (Builder){.m = before.m, .block = loop->body, .loc = loop->loc};
    forward(s, loop->body);
    s->b = before;
    simplify_loop_leave(s, loop);
}

/* The next instruction to visit: new ones that a rule built come before the one it looked at. */
static Inst *visit(Simplify *s, Numbering *seen, int *budget, Inst *inst) {
    Inst *prev = inst->prev;
    s->b.block = inst->parent;
    s->b.before = inst;
    s->b.loc = inst->loc;
    for (int k = 0; k < inst->nin; k++) inst->in[k] = simplify_resolve(s, inst->in[k]);
    if (inst->op == OP_loop) {
        visit_loop(s, inst);
        return inst->next;
    }
    if (inst->nout == 0 || inst->body != NULL) return inst->next;
    Value *simpler = *budget > 0 ? simplify_rule(s, inst) : NULL;
    if (simpler != NULL) {
        --*budget;
        simplify_replace(s, inst->out[0], simpler);
        inst_remove(inst);
        return prev != NULL ? prev->next : s->b.block->first;
    }
    Inst *next = inst->next, *first = number_inst(seen, inst);
    if (first != NULL && first != inst) {
        for (int k = 0; k < inst->nout; k++) simplify_replace(s, inst->out[k], first->out[k]);
        inst_remove(inst);
    }
    return next;
}

/* A `grad` by a computed value asks for the instructions from that value to the loss as they are: rewriting them could
 * go around the value. (Reads and arguments cannot be gone around.) */
static bool is_frozen(const Block *block) {
    for (const Inst *i = block->first; i != NULL; i = i->next)
        for (int k = 1; k < i->nin && i->op == OP_grad; k++)
            if (i->in[k]->def != NULL && i->in[k]->def->op != OP_read) return true;
    return false;
}

static void forward(Simplify *s, Block *block) {
    if (is_frozen(block)) return;
    Numbering seen = numbering_new(s->scratch, block);
    /* Each rewriting enters a few instructions at most, which bounds the table's load. */
    int budget = (int)(seen.size / 8);
    for (Inst *i = block->first; i != NULL;) i = visit(s, &seen, &budget, i);
    for (int k = 0; k < block->results.n; k++) block->results.at[k] = simplify_resolve(s, block->results.at[k]);
}

/* ---- backward ---- */

static bool is_live(Simplify *s, Value *v) {
    return simplify_slot(s, v)->live;
}
static void mark(Simplify *s, Value *v) {
    simplify_slot(s, v)->live = true;
}
static void mark_block(Simplify *s, Block *block);

/* From the marks of a loop's results to those of its operands. */
static void mark_loop(Simplify *s, Inst *loop) {
    Block *body = loop->body;
    int nx = (int)loop->at.xs, nc = (int)loop->at.carry;
    for (int k = 0; k < loop->nout; k++)
        if (is_live(s, loop->out[k])) mark(s, body->results.at[k]);
    bool again = true;
    while (again) {
        again = false;
        mark_block(s, body);
        for (int k = 0; k < nc; k++) {
            Value *arg = body->args.at[1 + nx + k], *result = body->results.at[k];
            if (!is_live(s, arg) || is_live(s, result)) continue;
            mark(s, result);
            again = true;
        }
    }
    for (int k = 0; k < loop->nin; k++) {
        bool last = k >= nx && k < nx + nc && is_live(s, loop->out[k - nx]);
        if (last || is_live(s, body->args.at[1 + k])) mark(s, loop->in[k]);
    }
}

static bool is_needed(Simplify *s, Inst *i) {
    bool needed = i->nout == 0;
    for (int k = 0; k < i->nout; k++) needed = needed || is_live(s, i->out[k]);
    return needed;
}

static void mark_block(Simplify *s, Block *block) {
    for (Inst *i = block->last; i != NULL; i = i->prev) {
        if (!is_needed(s, i)) continue;
        if (i->op == OP_loop) {
            mark_loop(s, i);
            continue;
        }
        for (int k = 0; k < i->nin; k++) mark(s, i->in[k]);
    }
}

static void sweep_block(Simplify *s, Block *block) {
    for (Inst *i = block->last, *prev; i != NULL; i = prev) {
        prev = i->prev;
        if (!is_needed(s, i)) {
            inst_remove(i);
            s->changed = true;
        } else if (i->op == OP_loop) {
            simplify_loop_prune(s, i);
            sweep_block(s, i->body);
        }
    }
}

static void backward(Simplify *s, Block *block) {
    for (int k = 0; k < s->slot.n; k++) s->slot.at[k].live = false;
    for (int k = 0; k < block->results.n; k++) mark(s, block->results.at[k]);
    mark_block(s, block);
    sweep_block(s, block);
}

bool pass_simplify(Module *m, PassCtx *ctx) {
    bool changed = false;
    for (int f = 0; f < m->funcs.n; f++) {
        Block *body = m->funcs.at[f]->body;
        Simplify s = {.b = {.m = m, .block = body}, .scratch = ctx->scratch, .changed = true};
        for (int round = 0; round < SIMPLIFY_ROUNDS && s.changed; round++) {
            s.changed = false;
            forward(&s, body);
            backward(&s, body);
            changed = changed || s.changed;
        }
    }
    return changed;
}
