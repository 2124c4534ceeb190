/* dot.c: --emit=dot: a module as a graph for Graphviz.
 *
 * One node an instruction, arguments, variables and results among them; an edge is a value and says what a device holds
 * of it: local sizes. A node has the colour of its kind, collectives bright ones; a loop is a box around its body, with
 * the edges of its operands going to the body's arguments. Constants are left out: they say little and clutter much.
 * Before: any phase. After: Value.id is changed and nothing else. Cost: linear. */
#include <string.h>

#include "support/str.h"
#include "survey.h"

typedef struct Dot {
    const Module *m;
    Str s;
    int nodes;
    VEC(int) node; /* by Value.id: the node that gives it, -1: none */
} Dot;

/* Inside a quoted string of dot's. */
static void add_escaped(Str *s, const char *text) {
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') str_add(s, "\\");
        str_add_n(s, (unsigned char)*text < ' ' ? " " : text, 1);
    }
}

static const char *colour(const Inst *inst) {
    if (inst == NULL) return "white";
    switch (inst->op) {
        case OP_all_gather:
            return "orangered";
        case OP_all_reduce:
            return "gold";
        case OP_reduce_scatter:
            return "orange";
        case OP_all_to_all:
            return "deepskyblue";
        case OP_permute:
            return "plum";
        case OP_reshard:
            return "pink";
        case OP_read:
        case OP_write:
            return "lightgrey";
        default:
            return op_info[inst->op].emit == EMIT_gemm ? "palegreen" : "white";
    }
}

/* What one device holds: "f32[2, 64]". */
static const char *local_type(const Dot *d, const Type *t) {
    Str s = str_new(d->s.arena);
    str_addf(&s, "%s[", dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++)
        str_addf(&s, "%s%s:%lld", i > 0 ? ", " : "", t->dim[i].label, (long long)dim_local(&d->m->mesh, &t->dim[i]));
    str_add(&s, t->partial.n > 0 ? "] terms" : "]");
    return s.at;
}

/* ---- nodes and edges --------------------------------------------------------------------------------------------- */

static int add_node(Dot *d, const char *title, const char *name, const Inst *inst) {
    str_addf(&d->s, "  n%d [label=\"", d->nodes);
    add_escaped(&d->s, title);
    if (name != NULL) str_add(&d->s, "\\n"), add_escaped(&d->s, name);
    str_addf(&d->s, "\", fillcolor=%s%s", colour(inst),
             inst != NULL && op_info[inst->op].emit == EMIT_coll ? ", shape=hexagon" : "");
    if (inst != NULL) str_add(&d->s, ", tooltip=\""), add_escaped(&d->s, diag_where(inst->loc)), str_add(&d->s, "\"");
    str_add(&d->s, "];\n");
    return d->nodes++;
}

static void give(Dot *d, Value *v, int node) {
    v->id = d->node.n;
    vec_push(d->s.arena, d->node, node);
}

static void add_edge(Dot *d, const Value *v, int to) {
    int from = d->node.at[v->id];
    if (from < 0 || to < 0) return;
    str_addf(&d->s, "  n%d -> n%d [label=\"", from, to);
    add_escaped(&d->s, local_type(d, &v->type));
    str_add(&d->s, "\"];\n");
}

static const char *title_of(const Dot *d, const Inst *inst) {
    Arena *a = d->s.arena;
    if (inst->op == OP_read || inst->op == OP_write)
        return arena_printf(a, "%s %s", op_info[inst->op].name, inst->at.var->path);
    if (op_info[inst->op].emit != EMIT_coll || inst->op == OP_reshard) return op_info[inst->op].name;
    AxisList axes = inst_axes(&d->m->mesh, inst);
    return arena_printf(a, "%s (%s)", op_info[inst->op].name, survey_axes(&d->m->mesh, &axes, a));
}

static void add_block(Dot *d, const Block *b, int depth);

static void add_loop(Dot *d, const Inst *in, int depth) {
    Block *body = in->body;
    str_addf(&d->s, "  subgraph cluster_%d {\n  label=\"loop ", d->nodes);
    add_escaped(&d->s, in->at.label == NULL ? "" : in->at.label);
    str_addf(&d->s, ", %lld times\";\n", (long long)in->at.trip);
    for (int i = 0; i < body->args.n; i++) {
        const char *name = body->args.at[i]->name;
        give(d, body->args.at[i], add_node(d, name == NULL ? "argument" : name, NULL, NULL));
    }
    add_block(d, body, depth + 1);
    str_add(&d->s, "  }\n");
    for (int i = 0; i < in->nin; i++) add_edge(d, in->in[i], d->node.at[body->args.at[1 + i]->id]);
    for (int i = 0; i < in->nout; i++) give(d, in->out[i], d->node.at[body->results.at[i]->id]);
}

static void add_block(Dot *d, const Block *b, int depth) {
    if (depth > MAX_NESTING) diag_bug("regions nest more than %d deep", MAX_NESTING);
    for (const Inst *in = b->first; in != NULL; in = in->next) {
        if (in->op == OP_loop) {
            add_loop(d, in, depth);
            continue;
        }
        int node = in->op == OP_const ? -1 : add_node(d, title_of(d, in), in->nout > 0 ? in->out[0]->name : NULL, in);
        for (int i = 0; i < in->nin; i++) add_edge(d, in->in[i], node);
        for (int i = 0; i < in->nout; i++) give(d, in->out[i], node);
    }
}

char *graph_dot(const Module *m, Arena *a) {
    Dot d = {.m = m, .s = str_new(a)};
    str_add(&d.s,
            "digraph moe {\n  node [shape=box, style=filled, fontname=monospace];\n"
            "  edge [fontname=monospace, fontsize=10];\n");
    for (int i = 0; i < m->funcs.n; i++) {
        const Func *f = m->funcs.at[i];
        str_addf(&d.s, "  subgraph cluster_f%d {\n  label=\"", i);
        add_escaped(&d.s, survey_func(f, a));
        str_add(&d.s, "\";\n");
        for (int k = 0; k < f->body->args.n; k++) {
            Value *v = f->body->args.at[k];
            give(&d, v, add_node(&d, v->name == NULL ? "argument" : v->name, NULL, NULL));
        }
        add_block(&d, f->body, 0);
        for (int k = 0; k < f->body->results.n; k++)
            add_edge(&d, f->body->results.at[k], add_node(&d, "result", f->result_names.at[k], NULL));
        str_add(&d.s, "  }\n");
    }
    str_add(&d.s, "}\n");
    return d.s.at;
}
