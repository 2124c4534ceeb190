/* clone.c: a deep copy of a module into another arena.
 *
 * A block sees only its own arguments and results of its own instructions, so each block is copied by itself: its
 * values are numbered (in Value.id, which is scratch), and number k of the copy stands for number k of the original.
 * Names are interned on the way: the copy outlives the original's arena. Regions nest at most MAX_NESTING deep.
 * Cost: linear. */
#include "ir.h"
#include "support/intern.h"

typedef struct Copying {
    Module *to;
    Var **var; /* copies, by Var.id of the originals */
} Copying;

typedef VEC(Value *) Values;

static const char *copy_name(const char *name) {
    return name == NULL ? NULL : intern(name);
}

static Value *copy_value(Copying *c, Value *old, Values *values) {
    Value *v = value_new(c->to, &old->type);
    v->index = old->index;
    v->name = copy_name(old->name);
    v->loc = old->loc;
    v->offset = old->offset;
    old->id = values->n;
    vec_push(c->to->arena, *values, v);
    return v;
}

static void copy_block(Copying *c, const Block *old, Block *b, int depth);

static void copy_inst(Copying *c, const Inst *old, Block *b, Values *values, int depth) {
    Arena *a = c->to->arena;
    Inst *inst = NEW(a, Inst);
    inst->op = old->op;
    inst->loc = old->loc;
    inst->at = old->at;
    if (old->at.var != NULL) inst->at.var = c->var[old->at.var->id];
    inst->nin = old->nin;
    inst->in = NEW_ARRAY(a, Value *, old->nin);
    for (int i = 0; i < old->nin; i++) inst->in[i] = values->at[old->in[i]->id];
    inst->nout = old->nout;
    inst->out = NEW_ARRAY(a, Value *, old->nout);
    for (int i = 0; i < old->nout; i++) {
        inst->out[i] = copy_value(c, old->out[i], values);
        inst->out[i]->def = inst;
    }
    if (old->body != NULL) {
        inst->body = block_new(c->to, inst);
        copy_block(c, old->body, inst->body, depth + 1);
    }
    inst_insert(b, NULL, inst);
}

static void copy_block(Copying *c, const Block *old, Block *b, int depth) {
    if (depth > MAX_NESTING) diag_bug("regions nest more than %d deep", MAX_NESTING);
    Arena *a = c->to->arena;
    Values values = {0};
    for (int i = 0; i < old->args.n; i++) {
        Value *v = copy_value(c, old->args.at[i], &values);
        v->block = b;
        vec_push(a, b->args, v);
    }
    for (const Inst *inst = old->first; inst != NULL; inst = inst->next) copy_inst(c, inst, b, &values, depth);
    for (int i = 0; i < old->results.n; i++) vec_push(a, b->results, values.at[old->results.at[i]->id]);
}

static void copy_var(Copying *c, Var *old, int number) {
    Var *v = arena_copy(c->to->arena, old, sizeof *old);
    v->path = copy_name(old->path);
    v->from = copy_name(old->from);
    v->init.kind = copy_name(old->init.kind);
    v->id = old->id = number;
    c->var[number] = v;
    vec_push(c->to->arena, c->to->vars, v);
}

static void copy_func(Copying *c, const Func *old) {
    Func *f = func_new(c->to, copy_name(old->name), old->kind, old->loc);
    f->arena_bytes = old->arena_bytes;
    for (int i = 0; i < old->result_names.n; i++)
        vec_push(c->to->arena, f->result_names, copy_name(old->result_names.at[i]));
    copy_block(c, old->body, f->body, 0);
}

Module *module_clone(const Module *m, Arena *arena) {
    Copying c = {module_new(arena), NEW_ARRAY(arena, Var *, m->vars.n)};
    c.to->phase = m->phase;
    c.to->mesh = m->mesh;
    c.to->source = copy_name(m->source);
    c.to->generate_decode = copy_name(m->generate_decode);
    c.to->generate_prefill = copy_name(m->generate_prefill);
    for (int i = 0; i < m->vars.n; i++) copy_var(&c, m->vars.at[i], i);
    for (int i = 0; i < m->funcs.n; i++) copy_func(&c, m->funcs.at[i]);
    return c.to;
}
