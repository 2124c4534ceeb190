/* emit_c.c: a PLANNED module as one C file.
 *
 * The file is: the kernels (one function a distinct loop nest), the IR's functions (each a list of calls, one comment
 * an op with its place in the source, and a `for` for each loop), the tables. Instructions are dispatched on their emit
 * kind. Every worker of a device runs every line; each call deals its work and ends with the team's barrier.
 *
 * Where a value lies: at its offset in the arena, except that a loop's slices move with the iteration. So a pointer is
 * followed from a view to its operand, and from a slice to the local variable that the loop sets. A value at its
 * operand's place is a view and costs nothing: the plan decides, the emitter compares offsets.
 *
 * Before: PLANNED. After: text that needs moe_rt.h only; identifiers are the emitter's own, user names stand in
 * comments and strings. Linear in the module's size. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "codegen.h"
#include "emit.h"

static void emit_block(Emit *e, const Block *b);

void emit_line(Emit *e, const char *fmt, ...) {
    for (int i = 0; i < e->depth; i++) str_add(&e->funcs, "    ");
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    char *text = arena_alloc(e->arena, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(args);
    str_add(&e->funcs, text);
    str_add(&e->funcs, "\n");
}

/* ---- where values lie ---------------------------------------------------------------------------------------------
 */

static int loop_number(const Emit *e, const Inst *loop) {
    for (int i = e->loop.n - 1; i >= 0; i--)
        if (e->loop.at[i] == loop) return e->loop_number.at[i];
    diag_bug("a value of a loop is used outside of it");
}

static int64_t slice_bytes(const Emit *e, const Inst *i) {
    const Type *t = &i->in[0]->type;
    return i->at.start * nest_stride(&e->m->mesh, t, type_find(t, i->at.label)) * dtype_bytes(t->dtype);
}

/* The operand that a value is a view of, at *bytes from it; NULL: it has a place of its own. */
static const Value *view_of(const Emit *e, const Value *v, int64_t *bytes) {
    const Inst *i = v->def;
    *bytes = 0;
    if (i == NULL || v->offset < 0) return NULL;
    if (i->op == OP_slice) *bytes = slice_bytes(e, i);
    if (i->op != OP_slice && i->op != OP_relabel && i->op != OP_broadcast) return NULL;
    return v->offset == i->in[0]->offset + *bytes ? i->in[0] : NULL;
}

/* The result of the loop that a value of its body is a slice of, in place; -1: none. */
static int stacked_at(const Value *v) {
    const Inst *loop = v->block->owner;
    if (v->def == NULL || loop == NULL || loop->op != OP_loop) return -1;
    for (int k = (int)loop->at.carry; k < loop->nout; k++)
        if (loop->body->results.at[k] == v && loop->out[k]->offset == v->offset) return k;
    return -1;
}

static const char *argument_pointer(Emit *e, const Value *v) {
    const Inst *loop = v->block->owner;
    if (loop == NULL) return NULL;
    int number = loop_number(e, loop), k = v->index - 1;
    if (k < 0) return arena_printf(e->arena, "&n%d", number);
    if (k < loop->at.xs) return arena_printf(e->arena, "x%d_%d", number, k);
    return k < loop->at.xs + loop->at.carry ? NULL : emit_pointer(e, loop->in[k]);
}

const char *emit_pointer(Emit *e, const Value *v) {
    const char *p = v->def == NULL ? argument_pointer(e, v) : NULL;
    if (p != NULL) return p;
    int64_t bytes;
    const Value *of = view_of(e, v, &bytes);
    if (of != NULL) {
        p = emit_pointer(e, of);
        return bytes == 0 ? p : arena_printf(e->arena, "((char *)%s + %lld)", p, (long long)bytes);
    }
    int k = stacked_at(v);
    if (k >= 0) return arena_printf(e->arena, "y%d_%d", loop_number(e, v->block->owner), k);
    if (v->offset < 0) diag_bug("a value of %s has no place", v->def != NULL ? op_info[v->def->op].name : "a block");
    return arena_printf(e->arena, "AT(%lld)", (long long)v->offset);
}

/* ---- calls --------------------------------------------------------------------------------------------------------
 */

static int find_or_add(Emit *e, const char *text, const char *const *at, int n) {
    for (int i = 0; i < n; i++)
        if (strcmp(at[i], text) == 0) return i;
    (void)e;
    return n;
}

int emit_row(Emit *e, const char *row, bool coll, Loc loc) {
    const char *where = arena_strdup(e->arena, diag_where(loc));
    int k = coll ? find_or_add(e, row, e->coll.at, e->coll.n) : find_or_add(e, row, e->gemm.at, e->gemm.n);
    if (coll && k == e->coll.n) {
        vec_push(e->arena, e->coll, row);
        vec_push(e->arena, e->coll_where, where);
    } else if (!coll && k == e->gemm.n) {
        vec_push(e->arena, e->gemm, row);
        vec_push(e->arena, e->gemm_where, where);
    }
    return k;
}

void emit_copy(Emit *e, const char *to, const char *from, int64_t bytes) {
    emit_line(e, "copy(w, %s, %s, %lld);", to, from, (long long)bytes);
}

static void emit_fill(Emit *e, const Fill *f) {
    const Type *t = &f->result->type;
    /* The plan may have put the result where the operand lies. */
    if (f->copy != NULL && f->copy->offset == f->result->offset) return;
    if (f->copy != NULL) {
        emit_copy(e, emit_pointer(e, f->result), emit_pointer(e, f->copy), type_local_bytes(&e->m->mesh, t));
        return;
    }
    emit_line(e, "fill_%s(w, %s, %lld, %s);", dtype_name(t->dtype), emit_pointer(e, f->result),
              (long long)type_local_elements(&e->m->mesh, t), f->text);
}

void emit_nest(Emit *e, const Inst *inst) {
    Nest *n = nest_build(e->m, inst, e->arena);
    const char *text = nest_text(n, e->arena);
    int k = find_or_add(e, text, e->kernel.at, e->kernel.n);
    if (k == e->kernel.n) {
        vec_push(e->arena, e->kernel, text);
        str_addf(&e->kernels, "KERNEL k_%d%s\n", k, text);
    }
    for (int i = 0; i < n->fill.n; i++) emit_fill(e, &n->fill.at[i]);
    Str call = str_new(e->arena);
    str_addf(&call, "k_%d(w", k);
    for (int i = 0; i < n->param.n; i++) str_addf(&call, ", %s", emit_pointer(e, n->param.at[i]));
    emit_line(e, "%s);", call.at);
    emit_line(e, "moe_barrier(w);");
}

static void add_axes(Str *s, const AxisList *axes) {
    str_addf(s, "{%d, {", axes->n);
    for (int i = 0; i < axes->n; i++) str_addf(s, "%s%d", i > 0 ? ", " : "", axes->at[i]);
    str_add(s, axes->n == 0 ? "0}}" : "}}");
}

static void add_block(Str *s, const char *name, const Mesh *m, const Type *t) {
    str_addf(s, ", .%s = {", name);
    for (int i = 0; i < t->rank; i++) str_addf(s, "%s%lld", i > 0 ? ", " : "", (long long)dim_local(m, &t->dim[i]));
    str_add(s, t->rank == 0 ? "0}" : "}");
}

static void emit_coll(Emit *e, const Inst *i) {
    const Type *in = &i->in[0]->type, *out = &i->out[0]->type;
    Str s = str_new(e->arena);
    str_addf(&s, ".kind = MOE_%s, .dtype = MOE_%s, .rank = %d, .axes = ", op_info[i->op].name, dtype_name(in->dtype),
             in->rank);
    add_axes(&s, &i->at.axes);
    /* `any` folds bools: a maximum. */
    if (i->at.kind != NULL) str_addf(&s, ", .fold = MOE_%s", strcmp(i->at.kind, "any") == 0 ? "max" : i->at.kind);
    str_addf(&s, ", .join = %d, .split = %d", i->at.label != NULL ? type_find(in, i->at.label) : -1,
             i->at.to != NULL ? type_find(in, i->at.to) : -1);
    add_block(&s, "in", &e->m->mesh, in);
    add_block(&s, "out", &e->m->mesh, out);
    if (i->op == OP_permute)
        for (int d = 0; d < in->rank; d++) {
            str_addf(&s, ", .in_axes[%d] = ", d);
            add_axes(&s, &in->dim[d].axes);
            str_addf(&s, ", .out_axes[%d] = ", d);
            add_axes(&s, &out->dim[d].axes);
        }
    int row = emit_row(e, s.at, true, i->loc);
    emit_line(e, "moe_coll(w, %d, %s, %s);", row, emit_pointer(e, i->in[0]), emit_pointer(e, i->out[0]));
}

static void emit_call(Emit *e, const Inst *i) {
    const Type *x = &i->in[0]->type;
    int axis = type_find(x, i->at.label);
    int64_t inner = nest_stride(&e->m->mesh, x, axis), n = dim_local(&e->m->mesh, &x->dim[axis]);
    int64_t outer = type_local_elements(&e->m->mesh, x) / (inner * n);
    emit_line(e, "moe_%s(w, %lld, %lld, %lld, %lld, %s, %s, %s);", op_info[i->op].name, (long long)outer, (long long)n,
              (long long)inner, (long long)i->at.size, emit_pointer(e, i->in[0]), emit_pointer(e, i->out[0]),
              emit_pointer(e, i->out[1]));
}

/* Reads and writes whose value lies in the variable cost nothing. */
static void emit_move(Emit *e, const Inst *i) {
    int64_t bytes;
    if (i->op == OP_read || i->op == OP_write) {
        const Value *v = i->op == OP_read ? i->out[0] : i->in[0];
        if (v->offset == i->at.var->offset) return;
        const char *var = arena_printf(e->arena, "AT(%lld)", (long long)i->at.var->offset), *p = emit_pointer(e, v);
        emit_copy(e, i->op == OP_read ? p : var, i->op == OP_read ? var : p, type_local_bytes(&e->m->mesh, &v->type));
        return;
    }
    if (view_of(e, i->out[0], &bytes) == NULL) emit_nest(e, i);
}

/* ---- regions ------------------------------------------------------------------------------------------------------
 */

static void copy_unless_there(Emit *e, const Value *to, const char *to_text, const Value *from) {
    const char *p = emit_pointer(e, from);
    if (strcmp(p, to_text) != 0) emit_copy(e, to_text, p, type_local_bytes(&e->m->mesh, &to->type));
}

static void emit_slices(Emit *e, const Inst *loop, int number) {
    for (int k = 0; k < loop->at.xs; k++)
        emit_line(e, "void *const x%d_%d = (char *)%s + i%d * %lld;", number, k, emit_pointer(e, loop->in[k]), number,
                  (long long)type_local_bytes(&e->m->mesh, &loop->body->args.at[1 + k]->type));
    for (int k = (int)loop->at.carry; k < loop->nout; k++)
        emit_line(e, "void *const y%d_%d = (char *)%s + i%d * %lld;", number, k, emit_pointer(e, loop->out[k]), number,
                  (long long)type_local_bytes(&e->m->mesh, &loop->body->results.at[k]->type));
}

static void emit_loop(Emit *e, const Inst *loop) {
    const Block *body = loop->body;
    int number = e->loops++, xs = (int)loop->at.xs, carry = (int)loop->at.carry;
    vec_push(e->arena, e->loop, loop);
    vec_push(e->arena, e->loop_number, number);
    for (int k = 0; k < carry; k++) {
        const Value *arg = body->args.at[1 + xs + k];
        copy_unless_there(e, arg, emit_pointer(e, arg), loop->in[xs + k]);
    }
    const char *down = "for (int64_t i%d = %lld; i%d >= 0; i%d--) {",
               *up = "for (int64_t i%d = 0; i%d < %lld; i%d++) {";
    if (loop->at.reverse)
        emit_line(e, down, number, (long long)loop->at.trip - 1, number, number);
    else
        emit_line(e, up, number, number, (long long)loop->at.trip, number);
    e->depth++;
    emit_line(e, "const int32_t n%d = (int32_t)i%d;", number, number);
    emit_slices(e, loop, number);
    emit_block(e, body);
    for (int k = carry; k < loop->nout; k++)
        copy_unless_there(e, body->results.at[k], arena_printf(e->arena, "y%d_%d", number, k), body->results.at[k]);
    for (int k = 0; k < carry; k++) {
        const Value *arg = body->args.at[1 + xs + k];
        copy_unless_there(e, arg, emit_pointer(e, arg), body->results.at[k]);
    }
    e->depth--;
    emit_line(e, "}");
    e->loop.n--;
    e->loop_number.n--;
}

/* ---- instructions -------------------------------------------------------------------------------------------------
 */

static void add_type(Str *s, const Type *t) {
    str_addf(s, "%s[", dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) {
        str_addf(s, "%s", i > 0 ? "," : "");
        str_add_comment(s, t->dim[i].label);
    }
    str_add(s, "]");
}

/* "// gshard.moe:12:5: mul reduce div  f32[G,S,E] -> f32[G,S,E]" */
static void emit_comment(Emit *e, const Inst *i) {
    Str s = str_new(e->arena);
    str_add(&s, "// ");
    if (i->loc.file != 0) {
        str_add_comment(&s, diag_where(i->loc));
        str_add(&s, ": ");
    }
    if (i->op == OP_fused)
        for (const Inst *k = i->body->first; k != NULL; k = k->next)
            str_addf(&s, "%s%s", op_info[k->op].name, k->next != NULL ? " " : "");
    else
        str_add(&s, op_info[i->op].name);
    if (i->op == OP_read || i->op == OP_write) {
        str_add(&s, " ");
        str_add_comment(&s, i->at.var->path);
    }
    str_add(&s, " ");
    for (int k = 0; k < i->nin && k < 4 && i->op != OP_loop; k++) {
        str_add(&s, " ");
        add_type(&s, &i->in[k]->type);
    }
    for (int k = 0; k < i->nout && k < 4 && i->op != OP_loop; k++) {
        str_add(&s, k == 0 ? " -> " : " ");
        add_type(&s, &i->out[k]->type);
    }
    emit_line(e, "%s", s.at);
}

static void emit_inst(Emit *e, const Inst *i) {
    int64_t bytes;
    switch (op_info[i->op].emit) {
        case EMIT_elem:
            if (view_of(e, i->out[0], &bytes) == NULL) emit_nest(e, i);
            break;
        case EMIT_reduce:
            emit_nest(e, i);
            break;
        case EMIT_gemm:
            if (!emit_gemm(e, i)) emit_nest(e, i);
            break;
        case EMIT_move:
            emit_move(e, i);
            break;
        case EMIT_coll:
            emit_coll(e, i);
            break;
        case EMIT_call:
            emit_call(e, i);
            break;
        case EMIT_ctrl:
            if (i->op == OP_loop)
                emit_loop(e, i);
            else
                emit_nest(e, i);
            break;
        case EMIT_none:
            diag_bug("%s cannot be emitted", op_info[i->op].name);
    }
}

/* Variables change at the end: every read sees the value of the call's start. */
static void emit_block(Emit *e, const Block *b) {
    for (const Inst *i = b->first; i != NULL; i = i->next) {
        if (i->op == OP_write) continue;
        emit_comment(e, i);
        emit_inst(e, i);
    }
    for (const Inst *i = b->first; i != NULL; i = i->next) {
        if (i->op != OP_write) continue;
        emit_comment(e, i);
        emit_inst(e, i);
    }
}

/* ---- the file -----------------------------------------------------------------------------------------------------
 */

static const char prelude[] =
    "#include <string.h>\n"
    "#include \"moe_rt.h\"\n\n"
    "#define AT(offset) ((void *)(w->arena + (offset)))\n"
    "#define KERNEL static __attribute__((noinline)) void\n\n"
    "static void copy(MoeWorker *w, void *to, const void *from, int64_t bytes) {\n"
    "    int64_t lo, hi;\n"
    "    moe_range(w, bytes, 4096, &lo, &hi);\n"
    "    memcpy((char *)to + lo, (const char *)from + lo, (size_t)(hi - lo));\n"
    "    moe_barrier(w);\n"
    "}\n\n"
    "#define FILL(name, type)                                             \\\n"
    "    __attribute__((unused)) static void name(MoeWorker *w, type *to, int64_t n, type value) { \\\n"
    "        int64_t lo, hi;                                              \\\n"
    "        moe_range(w, n, 1024, &lo, &hi);                             \\\n"
    "        for (int64_t i = lo; i < hi; i++) to[i] = value;             \\\n"
    "        moe_barrier(w);                                              \\\n"
    "    }\n"
    "FILL(fill_f32, float)\n"
    "FILL(fill_i32, int32_t)\n"
    "FILL(fill_bool, uint8_t)\n\n";

static char *emit_c(const Module *m, Arena *a) {
    Emit e = {.m = m, .arena = a, .kernels = str_new(a), .funcs = str_new(a)};
    for (int k = 0; k < m->funcs.n; k++) {
        const Func *f = m->funcs.at[k];
        str_addf(&e.funcs, "// %s ", f->kind == FUNC_train ? "train" : "entry");
        str_add_comment(&e.funcs, f->name);
        str_addf(&e.funcs, "\nstatic void m_%d(MoeWorker *w) {\n", k);
        e.depth = 1;
        emit_block(&e, f->body);
        str_add(&e.funcs, "    (void)w;\n}\n\n");
    }
    Str out = str_new(a);
    str_add(&out, "// ");
    str_add_comment(&out, m->source != NULL ? m->source : "a module");
    str_add(&out, ", compiled by moecc\n\n");
    str_add(&out, prelude);
    if (e.kernels.n > 0) str_add(&out, e.kernels.at);
    if (e.funcs.n > 0) str_add(&out, e.funcs.at);
    emit_tables(&e, &out);
    return out.at;
}

/* ---- targets ------------------------------------------------------------------------------------------------------
 */

static const struct Target {
    const char *name;
    char *(*emit)(const Module *, Arena *);
} targets[] = {
#define TARGET(id, emit, doc) {#id, emit},
#include "targets.def"
#undef TARGET
};

static const struct Target *target_find(const char *name) {
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (strcmp(targets[i].name, name) == 0) return &targets[i];
    return NULL;
}

bool codegen_has_target(const char *target) {
    return target_find(target) != NULL;
}

char *codegen_emit(const Module *m, const char *target, Arena *a) {
    if (m->phase != PHASE_PLANNED) diag_bug("code is emitted from a planned module only");
    diag_set_phase("codegen");
    char *text = target_find(target)->emit(m, a);
    diag_set_phase(NULL);
    return text;
}
