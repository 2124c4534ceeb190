/* contract.c: einsums of many operands become pairs, in the cheapest order.
 *
 * Finding the best order is NP-hard in general and easy for the few operands that people write: up to CONTRACT_EXACT
 * operands the best association is found by dynamic programming over subsets (Lam, Sadayappan and Wenger 1997; Pfeifer
 * et al. 2014), by multiplications first and elements of intermediate results second. More operands than that are taken
 * CONTRACT_EXACT at a time from the left.
 * On the way: a label of one operand only that the result lacks is summed before anything is multiplied; an einsum of
 * one operand is a sum and a reordering; a pair without a summed label is an element-wise product.
 *
 * Before: ANNOTATED. After: ANNOTATED; every einsum has two operands, at least one contracted label, and each
 * contracted label in both operands. Cost: 3^CONTRACT_EXACT steps for each group of operands. */
#include "passes.h"
#include "support/diag.h"
#include "support/intern.h"

enum { CONTRACT_EXACT = 6, MAX_LABELS = 64 };
#define IMPOSSIBLE 1e300 /* work of a pair whose product has too many axes or elements */

typedef uint64_t LabelSet; /* bits are positions in `Contraction.label` */

typedef struct Contraction {
    Builder b;
    Inst *inst;
    int nlabel;
    Label label[MAX_LABELS];
    double size[MAX_LABELS];
    LabelSet result;
} Contraction;

/* The best way to contract a subset of the operands at hand. */
typedef struct Plan {
    LabelSet labels;    /* of its value */
    double work, bytes; /* so far */
    unsigned left;      /* one half of the last pair; 0: an operand as it is */
} Plan;

/* ---- label sets ---- */

static int label_number(Contraction *c, Label l, int64_t size) {
    for (int k = 0; k < c->nlabel; k++)
        if (c->label[k] == l) return k;
    c->label[c->nlabel] = l;
    c->size[c->nlabel] = (double)size;
    return c->nlabel++;
}

static LabelSet labels_of(Contraction *c, const Type *t) {
    LabelSet set = 0;
    for (int k = 0; k < t->rank; k++) set |= (LabelSet)1 << label_number(c, t->dim[k].label, t->dim[k].size);
    return set;
}

static double elements(const Contraction *c, LabelSet set) {
    double n = 1;
    for (int k = 0; k < c->nlabel; k++)
        if (set >> k & 1) n *= c->size[k];
    return n;
}

/* The labels of `t` that are in the set, in their order. */
static LabelList pick(Contraction *c, const Type *t, LabelSet set) {
    LabelList list = {0};
    for (int k = 0; k < t->rank; k++)
        if (set >> label_number(c, t->dim[k].label, t->dim[k].size) & 1) list.at[list.n++] = t->dim[k].label;
    return list;
}

/* ---- one pair ---- */

/* The sum of x over the labels that nothing else needs. */
static Value *sum_alone(Contraction *c, Value *x, LabelSet needed) {
    return build_reduce(&c->b, intern("sum"), x, pick(c, &x->type, ~needed));
}

/* x times y, summed to the labels in `keep`. The axes: what x has, then what y adds, so that a product of matrices
 * needs no transposition; `last` asks for the order of the whole contraction's result. */
static Value *contract_pair(Contraction *c, Value *x, Value *y, LabelSet keep, bool last) {
    LabelSet both = labels_of(c, &x->type) | labels_of(c, &y->type);
    LabelList order = pick(c, &x->type, keep), more = labels_minus(pick(c, &y->type, keep), order);
    for (int k = 0; k < more.n; k++) order.at[order.n++] = more.at[k];
    const Type *result = &c->inst->out[0]->type;
    if (both == keep) {
        Value *product = build2(&c->b, OP_mul, x, y, NULL);
        return last ? build_broadcast(&c->b, product, result) : product;
    }
    Value *in[] = {x, y};
    return build_einsum(&c->b, 2, in, last ? type_labels(result) : order);
}

/* ---- the order ---- */

static bool is_cheaper(const Plan *a, const Plan *b) {
    return a->work != b->work ? a->work < b->work : a->bytes < b->bytes;
}

/* Fills in plan[subset] from the plans of smaller subsets. `outside`: labels that are needed beyond the subset. */
static void plan_subset(Contraction *c, Plan *plan, unsigned subset, LabelSet outside) {
    bool found = false;
    for (unsigned left = (subset - 1) & subset; left != 0; left = (left - 1) & subset) {
        const Plan *x = &plan[left], *y = &plan[subset & ~left];
        if (left < (subset & ~left)) continue; /* each pair once */
        LabelSet all = x->labels | y->labels, keep = all & outside;
        Plan p = {.labels = keep, .left = left};
        p.work = x->work + y->work + elements(c, all);
        p.bytes = x->bytes + y->bytes + elements(c, keep);
        /* An intermediate value must have a type. */
        if (__builtin_popcountll(keep) > MAX_RANK || elements(c, keep) > (double)MAX_ELEMENTS) p.work += IMPOSSIBLE;
        if (found && !is_cheaper(&p, &plan[subset])) continue;
        plan[subset] = p;
        found = true;
    }
}

static Value *build_plan(Contraction *c, const Plan *plan, unsigned subset, unsigned whole, Value *const *in,
                         bool last) {
    const Plan *p = &plan[subset];
    if (p->left == 0) return in[__builtin_ctz(subset)];
    unsigned right = subset & ~p->left;
    /* The half with the first operand first: the order in which they were written. Depth is at most CONTRACT_EXACT. */
    unsigned a = p->left, b = right;
    if (__builtin_ctz(b) < __builtin_ctz(a)) a = right, b = p->left;
    Value *x = build_plan(c, plan, a, whole, in, last), *y = build_plan(c, plan, b, whole, in, last);
    return contract_pair(c, x, y, p->labels, last && subset == whole);
}

/* Contracts n <= CONTRACT_EXACT operands to the labels in `needed`; NULL after an error. */
static Value *contract_group(Contraction *c, int n, Value *const *in, LabelSet needed, bool last) {
    Plan plan[1u << CONTRACT_EXACT] = {0};
    unsigned whole = (1u << n) - 1;
    for (int k = 0; k < n; k++) plan[1u << k].labels = labels_of(c, &in[k]->type);
    for (unsigned subset = 1; subset <= whole; subset++) {
        LabelSet outside = needed;
        for (int k = 0; k < n; k++)
            if (!(subset >> k & 1)) outside |= labels_of(c, &in[k]->type);
        if ((subset & (subset - 1)) != 0) plan_subset(c, plan, subset, outside);
    }
    if (plan[whole].work >= IMPOSSIBLE) {
        diag_error(c->inst->loc,
                   "every order of this einsum has a product of more than %d axes or 2^48 elements on the way",
                   MAX_RANK);
        return NULL;
    }
    return build_plan(c, plan, whole, whole, in, last);
}

/* Labels needed besides operands from .. to: by the others and the result. */
static LabelSet needed_beside(Contraction *c, int n, Value *const *in, int from, int to) {
    LabelSet set = c->result;
    for (int k = 0; k < n; k++)
        if (k < from || k >= to) set |= labels_of(c, &in[k]->type);
    return set;
}

static Value *contract_all(Contraction *c, int n, Value **in) {
    for (int k = 0; k < n; k++) in[k] = sum_alone(c, in[k], needed_beside(c, n, in, k, k + 1));
    while (n > CONTRACT_EXACT) {
        in[0] = contract_group(c, CONTRACT_EXACT, in, needed_beside(c, n, in, 0, CONTRACT_EXACT), false);
        if (in[0] == NULL) return NULL;
        for (int k = CONTRACT_EXACT; k < n; k++) in[k - CONTRACT_EXACT + 1] = in[k];
        n -= CONTRACT_EXACT - 1;
    }
    if (n == 1) return build_broadcast(&c->b, in[0], &c->inst->out[0]->type);
    return contract_group(c, n, in, c->result, true);
}

/* ---- the pass ---- */

typedef struct ContractCtx {
    Module *m;
    PassCtx *pass;
    bool changed;
} ContractCtx;

static bool is_done(Contraction *c, const Inst *inst) {
    if (inst->nin != 2) return false;
    LabelSet x = labels_of(c, &inst->in[0]->type), y = labels_of(c, &inst->in[1]->type);
    return ((x ^ y) & ~c->result) == 0 && (x & y & ~c->result) != 0;
}

static void contract(Inst *inst, void *ctx) {
    ContractCtx *x = ctx;
    if (inst->op != OP_einsum) return;
    /* At most MAX_FACTORS labels take part: the shape rule sees to it. */
    Contraction c = {.b = {x->m, inst->parent, inst, inst->loc}, .inst = inst};
    for (int k = 0; k < inst->nin; k++) labels_of(&c, &inst->in[k]->type);
    c.result = labels_of(&c, &inst->out[0]->type);
    if (is_done(&c, inst)) return;
    Value **in = NEW_ARRAY(x->pass->scratch, Value *, inst->nin);
    for (int k = 0; k < inst->nin; k++) in[k] = inst->in[k];
    Value *v = contract_all(&c, inst->nin, in);
    if (v == NULL) return;
    if (v->name == NULL && v->def != NULL) v->name = inst->out[0]->name;
    block_replace(inst->parent, inst->out[0], v);
    inst_remove(inst);
    x->changed = true;
}

bool pass_contract(Module *m, PassCtx *ctx) {
    ContractCtx c = {.m = m, .pass = ctx};
    module_walk(m, contract, &c);
    return c.changed;
}
_Static_assert((int)MAX_FACTORS <= (int)MAX_LABELS, "a set holds the labels of an einsum");
