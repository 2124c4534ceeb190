/* explain.c: --explain-sharding NAME: why a value is split as it is, and what that costs where it meets another wish.
 *
 * For each value or variable of that name: its type, then for each mesh axis the chain of source lines from the value
 * back to the annotation (the records of origins.c). Then the places where its sharding and
 * another meet, found in the placed program (why.c): both annotations, the collectives chosen and their bytes, and what
 * the whole function would receive and take without one or the other: the passes run again on the program as it was
 * before propagation, without the annotation and those that say the same.
 *
 * Copies that say the same, of functions that share code, are shown once. Before: PLACED. After: unchanged.
 * Cost: for each conflict at most 2 x MAX_DROPPED runs of propagate, partition and place. */
#include <stdlib.h>
#include <string.h>

#include "support/str.h"
#include "survey.h"

enum { MAX_HOPS = 64, MAX_SHOWN = 32, MAX_DROPPED = 8 };

typedef struct Section {
    const char *text;
    Str where;        /* "in entry loss, train loss": all that say the same */
    const char *last; /* of these */
} Section;

typedef struct Explaining {
    const Module *m;
    const Topology *topo;
    const Origins *o;
    const char *name;
    Arena *arena;
    VEC(Section) sections;
    int left_out; /* beyond MAX_SHOWN */
    VEC(const char *) names;
    VEC(const Value *) met; /* crossings that were shown */
} Explaining;

/* ---- text in memory ---------------------------------------------------------------------------------------------- */

typedef struct Sheet {
    FILE *file;
    char *text;
    size_t bytes;
} Sheet;

static void sheet_open(Sheet *s) {
    s->file = open_memstream(&s->text, &s->bytes);
    if (s->file == NULL) diag_bug("no memory for text");
}

static const char *sheet_close(Sheet *s, Arena *a) {
    fclose(s->file);
    const char *copy = arena_strdup(a, s->text);
    free(s->text);
    return copy;
}

/* Adds what was written, or the function to the section that says the same. NULL: a variable, in all functions. */
static void add_section(Explaining *e, const Func *f, const char *text) {
    const char *where = f == NULL ? "in all functions" : survey_func(f, e->arena);
    for (int i = 0; i < e->sections.n; i++) {
        Section *s = &e->sections.at[i];
        if (strcmp(s->text, text) != 0) continue;
        if (strcmp(s->last, where) != 0) str_addf(&s->where, ", %s", where);
        s->last = where;
        return;
    }
    if (e->sections.n == MAX_SHOWN) {
        e->left_out++;
        return;
    }
    Section s = {text, str_new(e->arena), where};
    str_addf(&s.where, "%s%s", f == NULL ? "" : "in ", where);
    vec_push(e->arena, e->sections, s);
}

/* ---- the chain --------------------------------------------------------------------------------------------------- */

static const char *tensor_name(const Explaining *e, const OriginTensor *t) {
    if (t->name != NULL) return t->name;
    return t->value->def == NULL ? "an argument" : arena_printf(e->arena, "the %s", op_info[t->value->def->op].name);
}

/* An axis of a tensor, and why it is split. */
typedef struct Hop {
    int tensor;
    const Origin *why;
} Hop;

/* Past what only annotates: it is the same value. */
static Hop hop_to(const Explaining *e, int tensor, int axis) {
    Hop h = {tensor, origins_find(e->o, tensor, axis)};
    while (h.why->from >= 0 && strcmp(h.why->via, op_info[OP_annotate].name) == 0) {
        h.tensor = h.why->from;
        h.why = origins_find(e->o, h.tensor, axis);
    }
    return h;
}

static Label hop_label(const Explaining *e, const Hop *h) {
    return origins_at(e->o, origins_at(e->o, h->tensor)->root)->type.dim[h->why->dim].label;
}

/* Line by line from the tensor back to the annotation that split it over the axis. */
static void show_chain(const Explaining *e, FILE *out, int tensor, int axis) {
    const char *mesh_name = e->m->mesh.name[axis];
    Hop h = hop_to(e, tensor, axis);
    for (int hops = 0; hops < MAX_HOPS && h.why->from >= 0; hops++) {
        Hop next = hop_to(e, h.why->from, axis);
        diag_show(out, h.why->loc, "note", "%s@%s of %s comes from %s@%s of %s, by %s", hop_label(e, &h), mesh_name,
                  tensor_name(e, origins_at(e->o, h.tensor)), hop_label(e, &next), mesh_name,
                  tensor_name(e, origins_at(e->o, next.tensor)), h.why->via);
        h = next;
    }
    diag_show(out, h.why->loc, "note", h.why->from < 0 ? "%s@%s of %s is annotated here" : "%s@%s of %s, and so on",
              hop_label(e, &h), mesh_name, tensor_name(e, origins_at(e->o, h.tensor)));
}

/* Dims that the user keeps whole; or that nothing is split at all. */
static void show_whole(FILE *out, const OriginTensor *t) {
    bool kept = false;
    for (int d = 0; d < t->type.rank; d++) {
        if (!t->asked.dim[d].pinned || t->type.dim[d].axes.n > 0) continue;
        diag_show(out, t->loc, "note", "%s is kept whole here", t->type.dim[d].label);
        kept = true;
    }
    if (!kept && type_axes_used(&t->type) == 0) fputs("no annotation reaches it: every device holds it whole\n", out);
}

static void explain_tensor(Explaining *e, int tensor) {
    const OriginTensor *t = origins_at(e->o, tensor);
    Sheet s;
    sheet_open(&s);
    diag_show(s.file, t->loc, "note", "%s is %s", tensor_name(e, t), type_print(&t->type, &e->m->mesh, e->arena));
    for (int d = 0; d < t->type.rank; d++) {
        const AxisList *axes = &t->type.dim[d].axes;
        for (int i = 0; i < axes->n; i++)
            if (origins_find(e->o, tensor, axes->at[i]) != NULL) show_chain(e, s.file, tensor, axes->at[i]);
    }
    show_whole(s.file, t);
    add_section(e, t->func, sheet_close(&s, e->arena));
}

/* ---- without an annotation --------------------------------------------------------------------------------------- */

/* A set of annotations, by place. */
typedef struct Dropping {
    int n;
    Loc loc[MAX_DROPPED];
} Dropping;

static bool same_loc(Loc a, Loc b) {
    return a.file == b.file && a.begin == b.begin && a.end == b.end;
}

static bool drops(const Dropping *d, Loc loc) {
    for (int i = 0; i < d->n; i++)
        if (same_loc(d->loc[i], loc)) return true;
    return false;
}

static void open_dims(Type *t) {
    for (int d = 0; d < t->rank; d++) {
        t->dim[d].pinned = false;
        t->dim[d].axes.n = 0;
    }
}

static void drop_annotate(Inst *inst, void *data) {
    if (inst->op == OP_annotate && drops(data, inst->loc)) open_dims(&inst->out[0]->type);
}

static void drop_annotations(Module *m, Dropping *d) {
    module_walk(m, drop_annotate, d);
    for (int i = 0; i < m->vars.n; i++)
        if (drops(d, m->vars.at[i]->loc)) open_dims(&m->vars.at[i]->type);
    for (int i = 0; i < m->funcs.n; i++) {
        Block *b = m->funcs.at[i]->body;
        for (int k = 0; k < b->args.n; k++)
            if (drops(d, b->args.at[k]->loc)) open_dims(&b->args.at[k]->type);
    }
}

/* What a call costs without some annotations. */
typedef struct Without {
    bool known;
    double received, seconds;
    int dropped;
} Without;

static const FuncPlan *plan_like(const Survey *r, const Func *f) {
    for (int i = 0; i < r->m->funcs.n; i++)
        if (strcmp(r->plan[i].func->name, f->name) == 0 && r->plan[i].func->kind == f->kind) return &r->plan[i];
    return NULL;
}

/* Whether the same instruction still meets another sharding because of a further annotation of the same side. */
static bool find_another(const FuncPlan *p, const Inst *where, bool giver, const Dropping *d, Loc *loc) {
    for (int i = 0; i < p->colls.n; i++) {
        const CollRow *row = &p->colls.at[i];
        const Crossing *c = &row->why;
        if (!same_loc(row->inst->loc, where->loc) || !(giver ? c->giver_known : c->taker_known)) continue;
        *loc = giver ? c->giver_at : c->taker_at;
        if (!drops(d, *loc)) return true;
    }
    return false;
}

/* Without the annotation at `loc`, and without those that take its place: programs say a thing more than once, and
 * leaving out one of them says nothing. */
static Without cost_without(const Explaining *e, const Func *f, const Inst *where, bool giver, Loc loc) {
    Dropping d = {1, {loc}};
    Without w = {0};
    for (bool more = true; more; w.dropped = d.n) {
        Arena *a = arena_new();
        Module *m = origins_before(e->o, a);
        PassOptions opt = {.stop_after = "place", .origins = origins_quiet(a)};
        if (m != NULL) drop_annotations(m, &d);
        w.known = m != NULL && passes_run(m, "propagate", &opt, e->topo, NULL, NULL);
        more = false;
        if (w.known) {
            Survey r = survey_plan(m, e->topo, opt.origins, a);
            const FuncPlan *p = plan_like(&r, f);
            w.received = p->received;
            w.seconds = p->compute + p->communication;
            w.dropped = d.n;
            more = d.n < MAX_DROPPED && find_another(p, where, giver, &d, &loc);
            if (more) d.loc[d.n++] = loc;
        }
        arena_free(a);
    }
    return w;
}

/* ---- where two shardings meet ------------------------------------------------------------------------------------ */

typedef struct Meeting {
    const CollRow *row;
    const Func *func;
    double times, bytes; /* of all moves between the two */
    const char *moves;
} Meeting;

static Meeting meeting_of(const Explaining *e, const FuncPlan *p, int at) {
    Meeting m = {.row = &p->colls.at[at], .func = p->func, .times = p->colls.at[at].times};
    Str s = str_new(e->arena);
    for (int i = at; i < p->colls.n; i++) {
        const CollRow *row = &p->colls.at[i];
        if (row->why.from != m.row->why.from || row->why.to != m.row->why.to) continue;
        str_addf(&s, "%s%s (%s)", s.n > 0 ? ", " : "", op_info[row->inst->op].name,
                 survey_axes(&e->m->mesh, &row->axes, e->arena));
        m.bytes += (double)row->bytes;
    }
    m.moves = s.at;
    return m;
}

static void show_without(const Explaining *e, FILE *out, Loc loc, const Func *f, const Without *w) {
    const char *more = w->dropped == 1   ? ""
                       : w->dropped == 2 ? " and another that asks the same"
                                         : arena_printf(e->arena, " and %d that ask the same", w->dropped - 1);
    diag_show(out, loc, "note", "without this annotation%s, %s would receive %.0f bytes a call and take %.4g ms", more,
              survey_func(f, e->arena), w->received, w->seconds * 1e3);
}

static void show_alternatives(const Explaining *e, FILE *out, const Meeting *m, const FuncPlan *now) {
    const Crossing *c = &m->row->why;
    Without giver = cost_without(e, m->func, m->row->inst, true, c->giver_at);
    Without taker = cost_without(e, m->func, m->row->inst, false, c->taker_at);
    if (!giver.known || !taker.known) return;
    double seconds = now->compute + now->communication;
    show_without(e, out, c->giver_at, m->func, &giver);
    show_without(e, out, c->taker_at, m->func, &taker);
    fprintf(out, "with both it receives %.0f bytes and takes %.4g ms; cheapest: ", now->received, seconds * 1e3);
    if (seconds <= giver.seconds && seconds <= taker.seconds)
        fputs("both\n", out);
    else if (giver.seconds == taker.seconds)
        fputs("one of the two, either\n", out);
    else
        fprintf(out, "only what is asked at %s\n",
                diag_where(giver.seconds < taker.seconds ? c->taker_at : c->giver_at));
}

static void show_meeting(Explaining *e, const Meeting *m, const FuncPlan *now) {
    const Crossing *c = &m->row->why;
    bool two = c->giver_known && c->taker_known && !same_loc(c->giver_at, c->taker_at);
    Sheet s;
    sheet_open(&s);
    diag_show(s.file, m->row->inst->loc, "note", "%s meets another sharding here: %s gives %s; %s takes %s",
              c->from->name == NULL ? "a value" : c->from->name, c->giver, c->given, c->taker, c->taken);
    if (c->giver_known) diag_show(s.file, c->giver_at, "note", "%s is required by this annotation", c->given);
    if (c->taker_known) diag_show(s.file, c->taker_at, "note", "%s is required by this annotation", c->taken);
    fprintf(s.file, "chosen: %s, %.0f bytes received by each device", m->moves, m->bytes);
    if (m->times != 1) fprintf(s.file, ", %.0f times", m->times);
    fputs("\n", s.file);
    if (two) show_alternatives(e, s.file, m, now);
    add_section(e, m->func, sheet_close(&s, e->arena));
}

/* By its own name, or the one that its annotation has. */
static bool is_called(const Explaining *e, const Value *v) {
    if (v->name != NULL && strcmp(v->name, e->name) == 0) return true;
    int tensor = origins_of(e->o, origins_known(v));
    const char *name = tensor < 0 ? NULL : origins_at(e->o, tensor)->name;
    return name != NULL && strcmp(name, e->name) == 0;
}

static bool concerns(const Explaining *e, const Crossing *c) {
    for (int i = 0; c->user != NULL && i < c->user->nout; i++)
        if (is_called(e, c->user->out[i])) return true;
    const Value *v = origins_known(c->from);
    if (is_called(e, v) || is_called(e, c->from)) return true;
    return v->def != NULL && v->def->op == OP_read && strcmp(v->def->at.var->path, e->name) == 0;
}

static void explain_meetings(Explaining *e) {
    Survey r = survey_plan(e->m, e->topo, e->o, e->arena);
    for (int i = 0; i < e->m->funcs.n; i++)
        for (int k = 0; k < r.plan[i].colls.n; k++) {
            const Crossing *c = &r.plan[i].colls.at[k].why;
            bool shown = !concerns(e, c);
            for (int n = 0; n < e->met.n && !shown; n++) shown = e->met.at[n] == c->to;
            if (shown) continue;
            vec_push(e->arena, e->met, c->to);
            Meeting m = meeting_of(e, &r.plan[i], k);
            show_meeting(e, &m, &r.plan[i]);
        }
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

/* A read of a variable, or an annotation that came true: shown already. */
static bool is_shown(const Explaining *e, const OriginTensor *t) {
    if (t->value != NULL && t->value->def != NULL && t->value->def->op == OP_read) return true;
    const OriginTensor *same = t->same < 0 ? NULL : origins_at(e->o, t->same);
    return same != NULL && strcmp(same->name, t->name) == 0 && type_same_sharding(&same->type, &t->type);
}

char *explain_sharding(const Module *m, const Topology *t, const Origins *origins, const char *name, Arena *a) {
    if (origins_count(origins) == 0) {
        diag_error((Loc){0}, "shardings are explained from the source, or from an .ir before propagate");
        return NULL;
    }
    Explaining e = {.m = m, .topo = t, .o = origins, .name = name, .arena = a};
    for (int i = 0; i < origins_count(origins); i++) {
        const OriginTensor *tensor = origins_at(origins, i);
        if (tensor->name == NULL) continue;
        vec_push(a, e.names, tensor->name);
        if (strcmp(tensor->name, name) == 0 && !is_shown(&e, tensor)) explain_tensor(&e, i);
    }
    if (e.sections.n == 0) {
        const char *near = str_nearest(name, e.names.at, e.names.n);
        diag_error((Loc){0}, "no value or variable is called %s%s%s", name, near == NULL ? "" : "; did you mean ",
                   near == NULL ? "" : near);
        return NULL;
    }
    explain_meetings(&e);
    Str s = str_new(a);
    for (int i = 0; i < e.sections.n; i++)
        str_addf(&s, "%s%s %s\n%s", i > 0 ? "\n" : "", name, e.sections.at[i].where.at, e.sections.at[i].text);
    if (e.left_out > 0) str_addf(&s, "\nand %d more of that name\n", e.left_out);
    return s.at;
}
