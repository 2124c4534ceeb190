/* tables.c: the tables at the end of a generated file: variables, arguments and results, library calls, moe_program. */
#include <string.h>

#include "emit.h"

static void add_quoted(Str *s, const char *text) {
    if (text == NULL)
        str_add(s, "NULL");
    else
        str_add_quoted(s, text);
}

static void add_axes(Str *s, const AxisList *axes) {
    str_addf(s, "{%d, {", axes->n);
    for (int i = 0; i < axes->n; i++) str_addf(s, "%s%d", i > 0 ? ", " : "", axes->at[i]);
    str_add(s, axes->n == 0 ? "0}}" : "}}");
}

static void add_tensor(Str *s, const char *name, const Type *t, int64_t offset) {
    str_add(s, "{.name = ");
    add_quoted(s, name);
    str_addf(s, ", .dtype = MOE_%s, .rank = %d, .offset = %lld", dtype_name(t->dtype), t->rank, (long long)offset);
    for (int i = 0; i < t->rank; i++) {
        str_addf(s, ", .size[%d] = %lld, .label[%d] = ", i, (long long)t->dim[i].size, i);
        add_quoted(s, t->dim[i].label);
        if (t->dim[i].axes.n == 0) continue;
        str_addf(s, ", .axes[%d] = ", i);
        add_axes(s, &t->dim[i].axes);
    }
    str_add(s, "}");
}

static void add_var(Str *s, const Var *v) {
    str_add(s, "    {.t = ");
    add_tensor(s, v->path, &v->type, v->offset);
    str_addf(s, ", .state = %d, .trained = %d, .stacked = %d", v->kind == VAR_state, v->trained, v->stacked);
    if (v->stacked) str_addf(s, ", .lo = %lld, .step = %lld", (long long)v->lo, (long long)v->step);
    str_addf(s, ", .init = MOE_INIT_%s, .value = %.17g", v->init.kind != NULL ? v->init.kind : "const", v->init.value);
    if (v->from != NULL) {
        str_add(s, ", .from = ");
        add_quoted(s, v->from);
    }
    str_add(s, "},\n");
}

static void add_func(Str *s, Str *rows, const Func *f, int k) {
    if (f->body->args.n > 0) str_addf(s, "static const MoeTensor args_%d[] = {\n", k);
    for (int i = 0; i < f->body->args.n; i++) {
        const Value *v = f->body->args.at[i];
        str_add(s, "    ");
        add_tensor(s, v->name, &v->type, v->offset);
        str_add(s, ",\n");
    }
    if (f->body->args.n > 0) str_add(s, "};\n");
    if (f->body->results.n > 0) str_addf(s, "static const MoeTensor results_%d[] = {\n", k);
    for (int i = 0; i < f->body->results.n; i++) {
        const Value *v = f->body->results.at[i];
        str_add(s, "    ");
        add_tensor(s, i < f->result_names.n ? f->result_names.at[i] : v->name, &v->type, v->offset);
        str_add(s, ",\n");
    }
    if (f->body->results.n > 0) str_add(s, "};\n");
    str_add(rows, "    {.name = ");
    add_quoted(rows, f->name);
    str_addf(rows, ", .train = %d, .nargs = %d, .nresults = %d", f->kind == FUNC_train, f->body->args.n,
             f->body->results.n);
    if (f->body->args.n > 0) str_addf(rows, ", .args = args_%d", k);
    if (f->body->results.n > 0) str_addf(rows, ", .results = results_%d", k);
    str_addf(rows, ", .arena_bytes = %lld, .run = m_%d},\n", (long long)f->arena_bytes, k);
}

static void add_rows(Str *s, const char *type, const char *name, const char *const *row, const char *const *where,
                     int n) {
    if (n == 0) return;
    str_addf(s, "static const %s %s[] = {\n", type, name);
    for (int i = 0; i < n; i++) {
        str_addf(s, "    [%d] = {%s, .where = ", i, row[i]);
        add_quoted(s, where[i]);
        str_add(s, "},\n");
    }
    str_add(s, "};\n\n");
}

static int64_t vars_bytes(const Module *m) {
    int64_t end = 0;
    for (int i = 0; i < m->vars.n; i++) {
        int64_t e = m->vars.at[i]->offset + type_local_bytes(&m->mesh, &m->vars.at[i]->type);
        if (e > end) end = e;
    }
    return (end + 63) / 64 * 64;
}

static void least_updated(Inst *inst, void *least) {
    if (inst->op != OP_update) return;
    int64_t n = inst->out[0]->type.dim[type_find(&inst->out[0]->type, inst->at.label)].size;
    if (n < *(int64_t *)least) *(int64_t *)least = n;
}

/* Positions that every cache of the decoding function can hold: the shortest axis that it writes into; MAX_DIM: it has
 * none. Beyond it an update writes nothing, and a model would silently forget. */
static int64_t generate_positions(const Module *m) {
    int64_t least = MAX_DIM;
    block_walk(module_func(m, m->generate_decode, FUNC_entry)->body, least_updated, &least);
    return least;
}

static void add_program(const Emit *e, Str *s) {
    const Module *m = e->m;
    str_add(s, "const MoeProgram moe_program = {\n    .abi = MOE_ABI,\n    .source = ");
    add_quoted(s, m->source);
    str_addf(s, ",\n    .naxes = %d,\n", m->mesh.n);
    for (int i = 0; i < m->mesh.n; i++) {
        str_addf(s, "    .axis_size[%d] = %lld, .axis_name[%d] = ", i, (long long)m->mesh.size[i], i);
        add_quoted(s, m->mesh.name[i]);
        str_add(s, ",\n");
    }
    str_addf(s, "    .devices = %lld,\n", (long long)mesh_devices(&m->mesh));
    const struct {
        const char *name;
        int n;
    } table[] = {{"vars", m->vars.n}, {"funcs", m->funcs.n}, {"gemms", e->gemm.n}, {"colls", e->coll.n}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].n > 0)
            str_addf(s, "    .n%s = %d, .%s = %s,\n", table[i].name, table[i].n, table[i].name, table[i].name);
    str_addf(s, "    .vars_bytes = %lld,\n", (long long)vars_bytes(m));
    if (m->generate_decode != NULL) {
        str_add(s, "    .generate_decode = ");
        add_quoted(s, m->generate_decode);
        str_add(s, ",\n    .generate_prefill = ");
        add_quoted(s, m->generate_prefill);
        str_addf(s, ",\n    .generate_positions = %lld,\n", (long long)generate_positions(m));
    }
    str_add(s, "};\n");
}

void emit_tables(Emit *e, Str *s) {
    const Module *m = e->m;
    add_rows(s, "MoeGemm", "gemms", e->gemm.at, e->gemm_where.at, e->gemm.n);
    add_rows(s, "MoeColl", "colls", e->coll.at, e->coll_where.at, e->coll.n);
    if (m->vars.n > 0) {
        str_add(s, "static const MoeVar vars[] = {\n");
        for (int i = 0; i < m->vars.n; i++) add_var(s, m->vars.at[i]);
        str_add(s, "};\n\n");
    }
    Str rows = str_new(e->arena);
    for (int i = 0; i < m->funcs.n; i++) add_func(s, &rows, m->funcs.at[i], i);
    if (m->funcs.n > 0) str_addf(s, "\nstatic const MoeFunc funcs[] = {\n%s};\n\n", rows.at);
    add_program(e, s);
}
