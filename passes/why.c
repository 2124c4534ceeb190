/* why.c: what a collective is for: which two shardings of a value meet there, and what required each.
 *
 * From the collective one walks up to the value before any move and down to the first instruction that uses the value
 * after the last, looking through fused loop nests. The two types there are the two shardings; the records of propagate
 * (origins.c), where there are any, lead on to the annotations. So a reason is found in every stage, also in one that
 * was read from text, only that it then ends at instructions.
 *
 * Complexity: a scan of the block for each collective. */
#include <string.h>

#include "support/str.h"
#include "survey.h"

enum { MAX_WALK = 256 };

bool is_move(const Inst *inst) {
    return op_info[inst->op].emit == EMIT_coll || inst->op == OP_shard_slice;
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

const char *survey_axes(const Mesh *m, const AxisList *axes, Arena *a) {
    Str s = str_new(a);
    str_add(&s, "");
    for (int i = 0; i < axes->n; i++) str_addf(&s, "%s%s", i > 0 ? ", " : "", m->name[axes->at[i]]);
    return s.at;
}

const char *func_kind(const Func *f) {
    return f->kind == FUNC_train ? "train" : "entry";
}

const char *var_kind(const Var *v) {
    return v->kind == VAR_param ? "param" : "state";
}

const char *survey_func(const Func *f, Arena *a) {
    return arena_printf(a, "%s %s", func_kind(f), f->name);
}

static void add_split(Str *s, const Mesh *m, Label label, const AxisList *axes) {
    const char *names = survey_axes(m, axes, s->arena);
    str_addf(s, axes->n == 1 ? "%s%s@%s" : "%s%s@(%s)", s->n > 0 ? " " : "", label, names);
}

/* Inside the loop nest that computes it. */
static const Inst *maker(const Value *v) {
    const Inst *def = v->def;
    for (int i = 0; i < MAX_NESTING && def != NULL && def->op == OP_fused; i++)
        def = (v = def->body->results.at[v->index])->def;
    return def;
}

/* The labels whose split left terms, as operands have them. */
static const char *summed_text(const Mesh *m, const Value *v, Arena *a) {
    Str s = str_new(a);
    const Inst *def = maker(v);
    const Type *t = &v->type;
    unsigned seen = 0;
    for (int i = 0; def != NULL && i < def->nin; i++)
        for (int d = 0; d < def->in[i]->type.rank; d++) {
            const Dim *dim = &def->in[i]->type.dim[d];
            AxisList axes = {0};
            for (int k = 0; k < dim->axes.n; k++)
                if (axes_has(&t->partial, dim->axes.at[k]) && !(seen >> dim->axes.at[k] & 1))
                    axes_add(&axes, dim->axes.at[k]);
            if (axes.n == 0) continue;
            for (int k = 0; k < axes.n; k++) seen |= 1u << axes.at[k];
            add_split(&s, m, dim->label, &axes);
        }
    return s.n > 0 ? s.at : survey_axes(m, &t->partial, a);
}

static const char *sharding_text(const Mesh *m, const Value *v, Arena *a) {
    static const char *const fold[] = {
        [PARTIAL_none] = "", [PARTIAL_sum] = "sum", [PARTIAL_max] = "maximum", [PARTIAL_min] = "minimum"};
    Str s = str_new(a);
    for (int d = 0; d < v->type.rank; d++)
        if (v->type.dim[d].axes.n > 0) add_split(&s, m, v->type.dim[d].label, &v->type.dim[d].axes);
    if (v->type.partial.n > 0)
        str_addf(&s, "%sterms of the %s over %s", s.n > 0 ? ", " : "", fold[v->type.partial_kind],
                 summed_text(m, v, a));
    return s.n > 0 ? s.at : "whole";
}

static const char *giver_text(const Value *v, Arena *a) {
    const char *name = v->name == NULL ? "a value" : v->name;
    if (v->def == NULL)
        return v->block->owner == NULL ? arena_printf(a, "argument %s", name) : arena_printf(a, "%s of the loop", name);
    const Inst *def = maker(v);
    if (def == NULL) return "a loop nest";
    if (def->op == OP_read) return arena_printf(a, "%s %s", var_kind(def->at.var), def->at.var->path);
    return op_info[def->op].name;
}

/* ---- where the value goes ---------------------------------------------------------------------------------------- */

typedef struct Taker {
    const Value *to;
    const Inst *inst; /* NULL: */
    int result;       /* of the block; -1: nobody takes it */
} Taker;

static bool uses(const Inst *inst, const Value *v) {
    for (int i = 0; i < inst->nin; i++)
        if (inst->in[i] == v) return true;
    return false;
}

static Taker find_taker(const Block *b, const Value *v) {
    for (int walk = 0; walk < MAX_WALK; walk++) {
        const Inst *onward = NULL;
        for (const Inst *in = v->def->next; in != NULL; in = in->next) {
            if (!uses(in, v)) continue;
            if (!is_move(in)) return (Taker){v, in, -1};
            if (onward == NULL) onward = in;
        }
        for (int i = 0; i < b->results.n; i++)
            if (b->results.at[i] == v) return (Taker){v, NULL, i};
        if (onward == NULL) break;
        v = onward->out[0];
    }
    return (Taker){v, NULL, -1};
}

/* The instruction inside the loop nest that takes the value. */
static const Inst *inner_taker(const Inst *inst, const Value *v) {
    for (int i = 0; inst->op == OP_fused && i < inst->nin; i++) {
        if (inst->in[i] != v) continue;
        for (const Inst *in = inst->body->first; in != NULL; in = in->next)
            if (uses(in, inst->body->args.at[i])) return in;
    }
    return inst;
}

static const char *taker_text(const Func *f, const Block *b, const Taker *t, Arena *a) {
    if (t->inst == NULL && t->result < 0) return "nothing";
    if (t->inst == NULL && b->owner == NULL) return arena_printf(a, "result %s", f->result_names.at[t->result]);
    if (t->inst == NULL) return "the loop's next turn";
    const Inst *inst = inner_taker(t->inst, t->to);
    if (inst->op == OP_write) return arena_printf(a, "%s %s", var_kind(inst->at.var), inst->at.var->path);
    if (inst->op == OP_loop) return "the loop";
    const char *name = inst->nout > 0 ? inst->out[0]->name : NULL;
    return name == NULL ? op_info[inst->op].name : arena_printf(a, "%s (of %s)", op_info[inst->op].name, name);
}

/* ---- what required it -------------------------------------------------------------------------------------------- */

/* The axes that `t` has somewhere else than `other` has them. */
static unsigned moved_axes(const Type *t, const Type *other) {
    unsigned moved = 0;
    for (int d = 0; d < t->rank; d++) {
        const AxisList *a = &t->dim[d].axes, *b = &other->dim[d].axes;
        for (int i = axes_common(a, b); i < a->n; i++) moved |= 1u << a->at[i];
    }
    for (int i = 0; i < t->partial.n; i++)
        if (!axes_has(&other->partial, t->partial.at[i])) moved |= 1u << t->partial.at[i];
    return moved;
}

static bool splits_same(const Type *t, const Type *wish, int axis) {
    if (t->rank != wish->rank) return false;
    for (int d = 0; d < t->rank; d++)
        if (axes_has(&t->dim[d].axes, axis)) return axes_has(&wish->dim[d].axes, axis);
    return false;
}

static bool taker_annotation(const Origins *o, const Crossing *c, const Taker *t, int axis, Loc *loc) {
    int wish = origins_of(o, origins_known(c->from));
    if (wish >= 0 && splits_same(&c->to->type, &origins_at(o, wish)->type, axis) && origins_root(o, wish, axis, loc))
        return true;
    if (t->inst == NULL) return false;
    if (t->inst->op == OP_write) return origins_var(o, t->inst->at.var, axis, loc);
    for (int i = 0; i < t->inst->nin; i++) {
        const Value *x = t->inst->in[i];
        if (x != c->to && type_axes_used(&x->type) >> axis & 1 && origins_giver(o, x, axis, loc)) return true;
    }
    for (int i = 0; i < t->inst->nout; i++)
        if (origins_root(o, origins_of(o, origins_known(t->inst->out[i])), axis, loc)) return true;
    return false;
}

Crossing crossing_of(const Module *m, const Origins *o, const Func *f, const Inst *move, Arena *a) {
    Crossing c = {.from = move->in[0]};
    while (c.from->def != NULL && is_move(c.from->def)) c.from = c.from->def->in[0];
    Taker t = find_taker(move->parent, move->out[0]);
    c.to = t.to;
    c.user = t.inst;
    c.giver = giver_text(c.from, a);
    c.taker = taker_text(f, move->parent, &t, a);
    c.given = sharding_text(&m->mesh, c.from, a);
    c.taken = sharding_text(&m->mesh, c.to, a);
    unsigned given = moved_axes(&c.from->type, &c.to->type), taken = moved_axes(&c.to->type, &c.from->type);
    c.taker_known = origins_asked(o, c.from, &c.to->type, &c.taker_at);
    for (int axis = 0; axis < m->mesh.n; axis++) {
        if (!c.giver_known && given >> axis & 1) c.giver_known = origins_giver(o, c.from, axis, &c.giver_at);
        if (!c.taker_known && taken >> axis & 1) c.taker_known = taker_annotation(o, &c, &t, axis, &c.taker_at);
    }
    /* It takes the value whole along an axis that splits something else of it. */
    for (int axis = 0; axis < m->mesh.n; axis++)
        if (!c.taker_known && given >> axis & 1) c.taker_known = taker_annotation(o, &c, &t, axis, &c.taker_at);
    return c;
}

const char *crossing_text(const Crossing *c, Arena *a) {
    Str s = str_new(a);
    str_addf(&s, "%s gives %s", c->giver, c->given);
    if (c->giver_known) str_addf(&s, ", annotated at %s", diag_where(c->giver_at));
    str_addf(&s, "; %s takes %s", c->taker, c->taken);
    if (c->taker_known) str_addf(&s, ", annotated at %s", diag_where(c->taker_at));
    return s.at;
}
