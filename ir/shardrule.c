/* shardrule.c: what may be split: the rule column of ops.def, bound to an instruction.
 *
 * A rule is a list of factors. Every axis of every operand and result is made of factors, and devices that split a
 * factor split all axes it occurs in, alike (Shardy's notation, openxla/shardy; arXiv 2401.11202). Labels give the
 * factors away: one a label. Only `relabel` is different: merging B, S into G, T makes axes of several factors, found
 * as the common refinement of the two shapes (`refine`).
 *
 * rule_check is the meaning of LOCAL: an instruction whose operands and results fit its rule computes the global
 * result's block (or term, when partial) from its operands' blocks, without communication.
 *
 * Cost: O(factors x (operands + results) x rank). */
#include <string.h>

#include "ir.h"
#include "support/intern.h"
#include "support/str.h"

/* ---- making the rule --------------------------------------------------------------------------------------------- */

/* The words of a rule: what becomes of labels that no result has, and of the label that the row singles out. */
typedef struct RuleRow {
    const char *text;
    bool folds;   /* labels missing in the results are folded; else they are whole */
    bool by_kind; /* folded as the attribute `kind` says; else summed */
    bool special; /* the axes `label` (of operand 0) and `to` have a kind of their own: */
    FactorKind special_kind;
} RuleRow;

static const RuleRow rule_rows[] = {
    {"", false, false, false, FACTOR_pass},
    {"sum", true, false, false, FACTOR_pass},
    {"fold", true, true, false, FACTOR_pass},
    {"sum $label", false, false, true, FACTOR_sum},
    {"whole $label", false, false, true, FACTOR_whole},
};

static const RuleRow *rule_row(const char *text) {
    for (size_t i = 0; i < sizeof rule_rows / sizeof *rule_rows; i++)
        if (strcmp(rule_rows[i].text, text) == 0) return &rule_rows[i];
    diag_bug("ops.def: unknown sharding rule '%s'", text);
}

static FactorKind fold_kind(const Inst *inst, const RuleRow *row) {
    if (!row->by_kind || inst->at.kind == intern("sum")) return FACTOR_sum;
    return inst->at.kind == intern("min") ? FACTOR_min : FACTOR_max; /* any is the maximum of 0 and 1 */
}

static int factor_new(ShardRule *r, Label label, int64_t size, FactorKind kind) {
    if (r->nfactor == MAX_FACTORS) diag_bug("a sharding rule has more than %d factors", MAX_FACTORS);
    r->factor[r->nfactor] = (Factor){size, kind, label};
    return r->nfactor++;
}

/* The factor of a label; a new one when it is the first time. */
static int factor_of(ShardRule *r, const Dim *d) {
    for (int f = 0; f < r->nfactor; f++)
        if (r->factor[f].label == d->label) return f;
    return factor_new(r, d->label, d->size, FACTOR_pass);
}

static void factors_by_label(ShardRule *r, DimFactors *dims, const Type *t) {
    for (int i = 0; i < t->rank; i++) dims[i] = (DimFactors){1, {factor_of(r, &t->dim[i])}};
}

static bool in_results(const Inst *inst, Label label) {
    for (int i = 0; i < inst->nout; i++)
        if (type_find(&inst->out[i]->type, label) >= 0) return true;
    return false;
}

static void label_rule(ShardRule *r, const Inst *inst) {
    const RuleRow *row = rule_row(op_info[inst->op].rule);
    for (int i = 0; i < inst->nin; i++) factors_by_label(r, r->in[i], &inst->in[i]->type);
    for (int i = 0; i < inst->nout; i++) factors_by_label(r, r->out[i], &inst->out[i]->type);
    for (int f = 0; f < r->nfactor; f++) {
        Factor *factor = &r->factor[f];
        if (row->special && (factor->label == inst->at.label || factor->label == inst->at.to))
            factor->kind = row->special_kind;
        else if (!in_results(inst, factor->label))
            factor->kind = row->folds ? fold_kind(inst, row) : FACTOR_whole;
    }
}

/* ---- relabel: the common refinement ------------------------------------------------------------------------------ */

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* One side of a relabel, read major first: the axis in hand and what is left of its size. */
typedef struct Side {
    int n, at;    /* axes, and the one in hand */
    int64_t left; /* of its size, after the factors already split off */
    int64_t size[MAX_RANK];
    Label label[MAX_RANK];
    DimFactors *dims[MAX_RANK];
} Side;

static void side_add(Side *s, Label label, int64_t size, DimFactors *dims) {
    s->size[s->n] = size;
    s->label[s->n] = label;
    s->dims[s->n++] = dims;
}

/* Splits a factor off the axis in hand, and steps to the next axis when nothing is left. */
static void side_take(Side *s, int factor, int64_t size) {
    DimFactors *d = s->dims[s->at];
    d->at[d->n++] = factor;
    s->left /= size;
    if (s->left == 1 && ++s->at < s->n) s->left = s->size[s->at];
}

static void side_take_whole(ShardRule *r, Side *s) {
    int64_t size = s->left;
    side_take(s, factor_new(r, s->label[s->at], size, FACTOR_whole), size);
}

/* Axes of size 1 hold no index: each gets a factor of its own, so that no axis is without. */
static void side_skip_ones(ShardRule *r, Side *s) {
    while (s->at < s->n && s->left == 1) side_take_whole(r, s);
}

/* From the major end, the common divisor of what is left of the two axes in hand is a factor of both. Where there is
 * none (4, 6 -> 6, 4 after the common 2), no even split of one side is one of the other: both go on whole up to the
 * place where their products meet again. So do axes of more factors than a DimFactors holds. */
static void refine(ShardRule *r, Side *a, Side *b) {
    enum { MOST = sizeof((DimFactors *)0)->at / sizeof(int) };
    a->left = a->size[0];
    b->left = b->size[0];
    for (side_skip_ones(r, a), side_skip_ones(r, b); a->at < a->n && b->at < b->n;
         side_skip_ones(r, a), side_skip_ones(r, b)) {
        int64_t g = common_divisor(a->left, b->left);
        bool fits = (g == a->left || a->dims[a->at]->n < MOST - 1) && (g == b->left || b->dims[b->at]->n < MOST - 1);
        if (g > 1 && fits) {
            int f = factor_new(r, g == b->left && g != a->left ? b->label[b->at] : a->label[a->at], g, FACTOR_pass);
            side_take(a, f, g);
            side_take(b, f, g);
            continue;
        }
        int64_t past_a = a->left, past_b = b->left;
        side_take_whole(r, a);
        side_take_whole(r, b);
        while (past_a != past_b) {
            Side *behind = past_a < past_b ? a : b;
            *(behind == a ? &past_a : &past_b) *= behind->left;
            side_take_whole(r, behind);
        }
    }
}

static void relabel_rule(ShardRule *r, const Inst *inst) {
    const Type *x = &inst->in[0]->type, *y = &inst->out[0]->type;
    Side from = {0}, to = {0};
    for (int i = 0; i < inst->at.labels.n; i++) {
        int axis = type_find(x, inst->at.labels.at[i]);
        side_add(&from, x->dim[axis].label, x->dim[axis].size, &r->in[0][axis]);
    }
    for (int i = 0; i < inst->at.dims.n; i++) {
        int axis = type_find(y, inst->at.dims.at[i].label);
        side_add(&to, y->dim[axis].label, y->dim[axis].size, &r->out[0][axis]);
    }
    refine(r, &from, &to);
    /* The other axes pass. A label may be both merged and made (B, S -> S), so axes already dealt with are skipped. */
    for (int i = 0; i < x->rank; i++) {
        if (r->in[0][i].n > 0) continue;
        int f = factor_new(r, x->dim[i].label, x->dim[i].size, FACTOR_pass);
        r->in[0][i] = r->out[0][type_find(y, x->dim[i].label)] = (DimFactors){1, {f}};
    }
}

ShardRule *shard_rule(Arena *a, const Inst *inst) {
    const char *text = op_info[inst->op].rule;
    if (strcmp(text, "@none") == 0) return NULL;
    ShardRule *r = NEW(a, ShardRule);
    r->in = arena_alloc(a, sizeof *r->in * (size_t)(inst->nin + 1));
    r->out = arena_alloc(a, sizeof *r->out * (size_t)(inst->nout + 1));
    if (strcmp(text, "@relabel") == 0)
        relabel_rule(r, inst);
    else
        label_rule(r, inst);
    return r;
}

/* ---- factors and types ------------------------------------------------------------------------------------------- */

void rule_apply(const ShardRule *r, const Mesh *m, const AxisList *factor_axes, const DimFactors *dims, Type *t) {
    for (int i = 0; i < t->rank; i++) {
        AxisList all = {0};
        for (int k = 0; k < dims[i].n; k++) {
            const Factor *f = &r->factor[dims[i].at[k]];
            const AxisList *axes = &factor_axes[dims[i].at[k]];
            if (f->kind == FACTOR_whole) break;
            for (int j = 0; j < axes->n; j++) axes_add(&all, axes->at[j]);
            /* Blocks of a minor factor are runs of the axis only when the major one is split to single indices. */
            if (mesh_size(m, axes) != f->size) break;
        }
        t->dim[i].axes = all;
    }
}

/* Deals one dim's axes to its factors. */
static bool deal(const ShardRule *r, const Mesh *m, const DimFactors *dim, const AxisList *axes,
                 AxisList *factor_axes) {
    for (int k = 0; k < dim->n; k++) factor_axes[dim->at[k]].n = 0;
    int k = 0;
    int64_t left = dim->n > 0 ? r->factor[dim->at[0]].size : 1;
    for (int i = 0; i < axes->n; i++) {
        int64_t size = m->size[axes->at[i]];
        while (left == 1 && size > 1 && k + 1 < dim->n) left = r->factor[dim->at[++k]].size;
        if (dim->n == 0 || left % size != 0) return false;
        axes_add(&factor_axes[dim->at[k]], axes->at[i]);
        left /= size;
    }
    return true;
}

bool rule_factors_of(const ShardRule *r, const Mesh *m, const DimFactors *dims, const Type *t, AxisList *factor_axes) {
    bool all = true;
    for (int i = 0; i < t->rank; i++) all = deal(r, m, &dims[i], &t->dim[i].axes, factor_axes) && all;
    return all;
}

/* ---- partial operands -------------------------------------------------------------------------------------------- */

/* Ops that map terms to terms: f(x + y) = f(x) + f(y) in the operands that are partial. */
typedef enum Linear {
    LINEAR_no,
    LINEAR_first, /* in operand 0, the others being copies (or blocks) */
    LINEAR_all,   /* in all operands together: every one is partial, alike */
    LINEAR_each,  /* in each operand by itself: exactly one is partial */
} Linear;

static const Linear sum_linear[OP_COUNT] = {
    [OP_neg] = LINEAR_first,     [OP_cast] = LINEAR_first,      [OP_slice] = LINEAR_first,  [OP_pad] = LINEAR_first,
    [OP_relabel] = LINEAR_first, [OP_broadcast] = LINEAR_first, [OP_reduce] = LINEAR_first, [OP_cumsum] = LINEAR_first,
    [OP_gather] = LINEAR_first,  [OP_scatter] = LINEAR_first,   [OP_div] = LINEAR_first,    [OP_add] = LINEAR_all,
    [OP_sub] = LINEAR_all,       [OP_mul] = LINEAR_each,        [OP_einsum] = LINEAR_each,
};

/* For max and min: ops that only move elements, or fold the same way (kinds are compared in partial_fits). */
static const Linear fold_linear[OP_COUNT] = {
    [OP_slice] = LINEAR_first,
    [OP_relabel] = LINEAR_first,
    [OP_broadcast] = LINEAR_first,
    [OP_reduce] = LINEAR_first,
};

static const PartialKind partial_of[] = {
    [FACTOR_pass] = PARTIAL_none, [FACTOR_sum] = PARTIAL_sum,    [FACTOR_max] = PARTIAL_max,
    [FACTOR_min] = PARTIAL_min,   [FACTOR_whole] = PARTIAL_none,
};

static unsigned axis_bits(const AxisList *axes) {
    unsigned bits = 0;
    for (int i = 0; i < axes->n; i++) bits |= 1u << axes->at[i];
    return bits;
}

static bool same_partial(const Type *a, const Type *b) {
    return a->partial_kind == b->partial_kind && axis_bits(&a->partial) == axis_bits(&b->partial);
}

static bool exact_cast(const Inst *inst) {
    DType from = inst->in[0]->type.dtype, to = inst->out[0]->type.dtype;
    return inst->op != OP_cast || from == to || to == DT_f32; /* a cast that rounds does not add up */
}

/* What is being checked, and what is known so far. */
typedef struct Check {
    Arena *arena;
    const Mesh *mesh;
    const Inst *inst;
    const ShardRule *rule;
    AxisList factor[MAX_FACTORS];
    bool set[MAX_FACTORS];
    unsigned factor_bits; /* mesh axes that split some factor */
    PartialKind kind;     /* what the results must be partial in: none while bits is 0 */
    unsigned bits;
} Check;

static const char *add_partial(Check *c, PartialKind kind, unsigned bits) {
    if (c->bits != 0 && c->kind != kind) return "partial results of two kinds would mix";
    c->kind = kind;
    c->bits |= bits;
    return NULL;
}

/* Partial operands: allowed where the op is linear in them. */
static const char *partial_operands(Check *c) {
    const Inst *inst = c->inst;
    int count = 0, first = -1;
    for (int i = 0; i < inst->nin; i++) {
        if (inst->in[i]->type.partial.n == 0) continue;
        if (first < 0) first = i;
        count++;
    }
    if (count == 0) return NULL;
    const Type *t = &inst->in[first]->type;
    if (c->factor_bits & axis_bits(&t->partial)) return "an operand is partial along an axis that splits a label";
    bool sum = t->partial_kind == PARTIAL_sum;
    Linear linear = sum ? sum_linear[inst->op] : fold_linear[inst->op];
    bool fits = linear == LINEAR_first  ? first == 0 && count == 1
                : linear == LINEAR_each ? count == 1
                                        : linear == LINEAR_all && count == inst->nin;
    for (int i = 0; linear == LINEAR_all && fits && i < inst->nin; i++) fits = same_partial(&inst->in[i]->type, t);
    if (inst->op == OP_reduce) {
        static const char *const word[] = {[PARTIAL_none] = "", [PARTIAL_sum] = "sum", "max", "min"};
        bool any = inst->at.kind == intern("any") && t->partial_kind == PARTIAL_max;
        fits = fits && (any || inst->at.kind == intern(word[t->partial_kind]));
    }
    if (!fits || !exact_cast(inst)) return "the op does not distribute over the partial values of an operand";
    return add_partial(c, t->partial_kind, axis_bits(&t->partial));
}

/* ---- rule_check -------------------------------------------------------------------------------------------------- */

static const char *axes_text(Check *c, const AxisList *axes) {
    Str s = str_new(c->arena);
    str_add(&s, "(");
    for (int i = 0; i < axes->n; i++) str_addf(&s, "%s%s", i > 0 ? ", " : "", c->mesh->name[axes->at[i]]);
    str_add(&s, ")");
    return s.at;
}

/* The factors that one operand or result splits agree with those seen before. `what` is "operand" or "result". */
static const char *factors_agree(Check *c, const char *what, int number, const Type *t, const DimFactors *dims) {
    AxisList mine[MAX_FACTORS] = {0};
    for (int i = 0; i < t->rank; i++) {
        const Dim *d = &t->dim[i];
        if (!deal(c->rule, c->mesh, &dims[i], &d->axes, mine))
            return arena_printf(c->arena, "label %s of %s %d is split over %s, which its factors do not allow",
                                d->label, what, number + 1, axes_text(c, &d->axes));
        for (int k = 0; k < dims[i].n; k++) {
            int f = dims[i].at[k];
            const Factor *factor = &c->rule->factor[f];
            if (factor->kind == FACTOR_whole && mesh_size(c->mesh, &mine[f]) > 1)
                return arena_printf(c->arena, "label %s of %s %d must be whole but is split over %s", d->label, what,
                                    number + 1, axes_text(c, &d->axes));
            if (c->set[f] && !axes_equal(&mine[f], &c->factor[f]))
                return arena_printf(c->arena, "label %s is split over %s in %s %d and over %s elsewhere", factor->label,
                                    axes_text(c, &mine[f]), what, number + 1, axes_text(c, &c->factor[f]));
            c->factor[f] = mine[f];
            c->set[f] = true;
        }
    }
    return NULL;
}

/* A mesh axis splits one factor at most; split folds leave partial results. */
static const char *factors_apart(Check *c) {
    for (int f = 0; f < c->rule->nfactor; f++) {
        unsigned bits = axis_bits(&c->factor[f]);
        if (bits & c->factor_bits)
            return arena_printf(c->arena, "label %s is split over %s, and another label over one of these too",
                                c->rule->factor[f].label, axes_text(c, &c->factor[f]));
        c->factor_bits |= bits;
        PartialKind kind = partial_of[c->rule->factor[f].kind];
        if (kind != PARTIAL_none && bits != 0) {
            const char *mixed = add_partial(c, kind, bits);
            if (mixed != NULL) return mixed;
        }
    }
    return NULL;
}

static const char *partial_results(Check *c) {
    for (int i = 0; i < c->inst->nout; i++) {
        const Type *t = &c->inst->out[i]->type;
        unsigned have = axis_bits(&t->partial);
        if (have == c->bits && (have == 0 || t->partial_kind == c->kind)) continue;
        AxisList need = {0};
        for (int x = 0; x < c->mesh->n; x++)
            if (c->bits >> x & 1) axes_add(&need, x);
        return arena_printf(c->arena, "result %d is partial along %s where the operands make it partial along %s",
                            i + 1, axes_text(c, &t->partial), axes_text(c, &need));
    }
    return NULL;
}

const char *rule_check(Arena *a, const Mesh *m, const Inst *inst) {
    Check c = {.arena = a, .mesh = m, .inst = inst, .rule = shard_rule(a, inst)};
    if (c.rule == NULL) return NULL;
    const char *wrong = NULL;
    for (int i = 0; i < inst->nin && wrong == NULL; i++)
        wrong = factors_agree(&c, "operand", i, &inst->in[i]->type, c.rule->in[i]);
    for (int i = 0; i < inst->nout && wrong == NULL; i++)
        wrong = factors_agree(&c, "result", i, &inst->out[i]->type, c.rule->out[i]);
    if (wrong == NULL) wrong = factors_apart(&c);
    if (wrong == NULL) wrong = partial_operands(&c);
    return wrong != NULL ? wrong : partial_results(&c);
}
