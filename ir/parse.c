/* parse.c: a module from its text, the inverse of print.c.
 *
 * Recursive descent over the tokens of parse_lex.c; nesting of regions is bounded, every fault is one located
 * diagnostic, and the first one ends the parse. Types are read and then compared with what the op's shape rule infers,
 * so a text cannot state a shape that its operands do not have. Shardings are taken as written: module_verify judges
 * whether they fit. An instruction's location is its place in this text, unless the text gives one. Cost: linear. */
#include "parse.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "support/intern.h"
#include "verify.h"

enum { FIRST_NAMES = 16, SOURCE_LIMIT = 1 << 24 };

/* ---- values in scope ----------------------------------------------------------------------------------------------
 */

typedef struct Binding {
    const char *name; /* interned */
    Value *value;
} Binding;

/* An open hash table of at most half load. A region sees nothing of the outside, so each block has its own. */
struct Scope {
    Binding *slot;
    size_t n, size; /* size: a power of two */
};

static Binding *scope_slot(const Scope *s, const char *name) {
    size_t i = ((uintptr_t)name >> 4) & (s->size - 1);
    while (s->slot[i].name != NULL && s->slot[i].name != name) i = (i + 1) & (s->size - 1);
    return &s->slot[i];
}

static void scope_size(Arena *a, Scope *s, size_t size) {
    Scope old = *s;
    s->size = size;
    s->slot = NEW_ARRAY(a, Binding, size);
    for (size_t i = 0; i < old.size; i++)
        if (old.slot[i].name != NULL) *scope_slot(s, old.slot[i].name) = old.slot[i];
}

static Scope *scope_new(Arena *a) {
    Scope *s = NEW(a, Scope);
    scope_size(a, s, FIRST_NAMES);
    return s;
}

/* Names that are numbers are the printer's, not the source's. */
static void bind_value(Parser *p, Loc loc, const char *name, Value *v) {
    Binding *b = scope_slot(p->scope, name);
    if (b->name != NULL) parse_fail_at(p, loc, "%%%.40s is defined twice", name);
    *b = (Binding){name, v};
    if (name[0] < '0' || name[0] > '9') v->name = name;
    if (2 * ++p->scope->n > p->scope->size) scope_size(p->arena, p->scope, 2 * p->scope->size);
}

static Value *take_value(Parser *p) {
    Loc loc = p->loc;
    const char *name = token_take(p, TOK_value, "a value such as %0");
    Value *v = scope_slot(p->scope, name)->value;
    if (v == NULL) parse_fail_at(p, loc, "%%%.40s is not defined above, in this block", name);
    return v;
}

/* ---- types --------------------------------------------------------------------------------------------------------
 */

static Label take_label(Parser *p) {
    return token_take(p, p->tok == TOK_string ? TOK_string : TOK_word, "a label");
}

static int64_t take_size(Parser *p) {
    Loc loc = p->loc;
    int64_t n = token_int(p);
    if (n < 1 || n > MAX_DIM) parse_fail_at(p, loc, "a size lies between 1 and 2^40, not %" PRId64, n);
    return n;
}

static void add_axis(Parser *p, AxisList *a) {
    Loc loc = p->loc;
    const char *w = token_take(p, TOK_word, "a mesh axis");
    int axis = mesh_axis(&p->m->mesh, w);
    if (axis < 0) parse_fail_at(p, loc, "the mesh has no axis '%.40s'", w);
    if (axes_has(a, axis)) parse_fail_at(p, loc, "axis '%.40s' is listed twice", w);
    axes_add(a, axis);
}

static AxisList take_AXES(Parser *p) {
    AxisList a = {0};
    if (!token_accept(p, '(')) {
        add_axis(p, &a);
        return a;
    }
    while (!token_is(p, ')')) {
        add_axis(p, &a);
        if (!token_accept(p, ',')) break;
    }
    token_expect(p, ')');
    return a;
}

static DType take_DTYPE(Parser *p) {
    Loc loc = p->loc;
    const char *w = token_take(p, TOK_word, "an element type");
    for (int t = 0; t < DT_COUNT; t++)
        if (strcmp(dtype_name((DType)t), w) == 0) return (DType)t;
    parse_fail_at(p, loc, "no such element type '%.40s'", w);
}

static void take_partial(Parser *p, Type *t) {
    static const char *const names[] = {[PARTIAL_sum] = "sum", [PARTIAL_max] = "max", [PARTIAL_min] = "min"};
    token_expect(p, '(');
    Loc loc = p->loc;
    const char *w = token_take(p, TOK_word, "sum, max or min");
    for (int k = PARTIAL_sum; k <= PARTIAL_min; k++)
        if (strcmp(w, names[k]) == 0) t->partial_kind = (PartialKind)k;
    if (t->partial_kind == PARTIAL_none) parse_fail_at(p, loc, "partial is one of sum, max, min, not '%.40s'", w);
    token_expect(p, ':');
    t->partial = take_AXES(p);
    token_expect(p, ')');
}

static Type take_type(Parser *p) {
    Loc loc = p->loc;
    Type t = {.dtype = take_DTYPE(p)};
    token_expect(p, '[');
    while (!token_is(p, ']')) {
        if (t.rank == MAX_RANK) parse_fail(p, "more than %d axes", MAX_RANK);
        Dim *d = &t.dim[t.rank++];
        d->label = take_label(p);
        token_expect(p, ':');
        d->size = take_size(p);
        d->pinned = token_accept(p, '@');
        if (d->pinned) d->axes = take_AXES(p);
        if (!token_accept(p, ',')) break;
    }
    token_expect(p, ']');
    if (token_accept_word(p, "partial")) take_partial(p, &t);
    const char *wrong = type_verify_shape(&t, p->arena);
    if (wrong != NULL) parse_fail_at(p, loc, "%s", wrong);
    return t;
}

/* -1: none is given. */
static int64_t take_offset(Parser *p) {
    if (!token_is_word(p, "at")) return -1;
    if (p->m->phase < PHASE_PLANNED) parse_fail(p, "offsets begin with phase PLANNED");
    token_next(p);
    Loc loc = p->loc;
    int64_t offset = token_int(p);
    if (offset < 0) parse_fail_at(p, loc, "an offset is not negative");
    return offset;
}

static void take_loc(Parser *p, Loc *loc) {
    if (!token_accept_word(p, "loc")) return;
    Loc here = p->loc;
    int64_t part[3];
    for (int i = 0; i < 3; i++) {
        if (i > 0) token_expect(p, ':');
        part[i] = token_int(p);
        if (part[i] < 0 || part[i] > UINT32_MAX) parse_fail_at(p, here, "a location is out of range");
    }
    if (part[0] < 1 || part[0] > p->files.n) parse_fail_at(p, here, "no file %" PRId64 " is declared above", part[0]);
    *loc = (Loc){p->files.at[part[0] - 1], (uint32_t)part[1], (uint32_t)part[2]};
}

/* ---- attributes ---------------------------------------------------------------------------------------------------
 */

static Label take_LABEL(Parser *p) {
    return take_label(p);
}
static LabelList take_LABELS(Parser *p) {
    LabelList l = {0};
    token_expect(p, '(');
    while (!token_is(p, ')')) {
        if (l.n == MAX_RANK) parse_fail(p, "more than %d labels", MAX_RANK);
        l.at[l.n++] = take_label(p);
        if (!token_accept(p, ',')) break;
    }
    token_expect(p, ')');
    return l;
}
static DimList take_DIMS(Parser *p) {
    DimList l = {0};
    token_expect(p, '(');
    while (!token_is(p, ')')) {
        if (l.n == MAX_RANK) parse_fail(p, "more than %d axes", MAX_RANK);
        l.at[l.n].label = take_label(p);
        token_expect(p, ':');
        l.at[l.n++].size = take_size(p);
        if (!token_accept(p, ',')) break;
    }
    token_expect(p, ')');
    return l;
}
static int64_t take_INT(Parser *p) {
    return token_int(p);
}
static double take_NUM(Parser *p) {
    return token_num(p);
}
static bool take_FLAG(Parser *p) {
    if (token_accept_word(p, "true")) return true;
    if (token_accept_word(p, "false")) return false;
    parse_fail(p, "expected true or false before '%.40s'", token_text(p));
}
static const char *take_WORD(Parser *p) {
    return token_take(p, TOK_word, "a word");
}
static Var *take_VAR(Parser *p) {
    Loc loc = p->loc;
    const char *path = token_take(p, TOK_string, "the path of a variable");
    Var *v = module_var(p->m, path);
    if (v == NULL) parse_fail_at(p, loc, "no variable '%.80s'", path);
    return v;
}

/* `given`: bits of the attributes that the instruction has already. */
static void take_attr(Parser *p, Op op, Attrs *at, unsigned *given) {
    Loc loc = p->loc;
    const char *name = token_take(p, TOK_word, "an attribute");
    if (!op_has_attr(op, name)) parse_fail_at(p, loc, "%s has no attribute '%.40s'", op_info[op].name, name);
    token_expect(p, '=');
    unsigned bit = 1;
#define ATTR(field, kind, doc)                                                            \
    if (strcmp(name, #field) == 0) {                                                      \
        if (*given & bit) parse_fail_at(p, loc, "attribute '" #field "' is given twice"); \
        *given |= bit;                                                                    \
        at->field = take_##kind(p);                                                       \
    }                                                                                     \
    bit <<= 1;
#include "attrs.def"
#undef ATTR
}

static Attrs take_attrs(Parser *p, Op op) {
    Attrs at = {0};
    unsigned given = 0;
    if (!token_accept(p, '{')) return at;
    do take_attr(p, op, &at, &given);
    while (token_accept(p, ','));
    token_expect(p, '}');
    return at;
}

/* ---- instructions -------------------------------------------------------------------------------------------------
 */

static void take_args(Parser *p, Block *b) {
    token_expect(p, '(');
    while (!token_is(p, ')')) {
        Loc loc = p->loc;
        const char *name = token_take(p, TOK_value, "an argument such as %x");
        token_expect(p, ':');
        Type t = take_type(p);
        Value *v = block_arg(p->m, b, &t, NULL);
        v->loc = loc;
        v->offset = take_offset(p);
        bind_value(p, loc, name, v);
        if (!token_accept(p, ',')) break;
    }
    token_expect(p, ')');
}

static void take_block(Parser *p, Block *b);

/* { ^(arguments): instructions } */
static Block *take_region(Parser *p) {
    Scope *outer = p->scope;
    if (++p->regions > MAX_NESTING) parse_fail(p, "regions are nested more than %d deep", MAX_NESTING);
    p->scope = scope_new(p->arena);
    Block *body = block_new(p->m, NULL);
    token_expect(p, '{');
    token_expect(p, '^');
    take_args(p, body);
    token_expect(p, ':');
    take_block(p, body);
    token_expect(p, '}');
    p->regions--;
    p->scope = outer;
    return body;
}

/* What a line states about its results, to be compared with what the op gives. */
typedef struct Stated {
    VEC(const char *) names;
    VEC(Loc) locs; /* of the names */
    VEC(Type) types;
    VEC(int64_t) offsets;
} Stated;

static void take_names(Parser *p, Stated *s) {
    while (p->tok == TOK_value) {
        vec_push(p->arena, s->locs, p->loc);
        vec_push(p->arena, s->names, p->word);
        token_next(p);
        if (!token_accept(p, ',')) break;
    }
    if (s->names.n > 0) token_expect(p, '=');
}

static void take_types(Parser *p, Stated *s) {
    if (!token_accept(p, ':')) return;
    do {
        if (s->types.n == MAX_OPERANDS) parse_fail(p, "more than %d results", MAX_OPERANDS);
        vec_push(p->arena, s->types, take_type(p));
        vec_push(p->arena, s->offsets, take_offset(p));
    } while (token_accept(p, ','));
}

static void set_results(Parser *p, Loc loc, const Inst *inst, const Stated *s) {
    const char *op = op_info[inst->op].name;
    if (s->types.n != inst->nout || s->names.n != inst->nout)
        parse_fail_at(p, loc, "%s has %d results; %d are named and %d types are given", op, inst->nout, s->names.n,
                      s->types.n);
    for (int k = 0; k < inst->nout; k++) {
        if (!type_same_shape(&s->types.at[k], &inst->out[k]->type))
            parse_fail_at(p, loc, "%s gives %s, not %s", op, type_print(&inst->out[k]->type, &p->m->mesh, p->arena),
                          type_print(&s->types.at[k], &p->m->mesh, p->arena));
        inst->out[k]->type = s->types.at[k];
        inst->out[k]->offset = s->offsets.at[k];
        bind_value(p, s->locs.at[k], s->names.at[k], inst->out[k]);
    }
}

/* %results = op %operands {attributes} : types loc region */
static void take_inst(Parser *p, Block *b) {
    Stated stated = {0};
    VEC(Value *) in = {0};
    Loc loc = p->loc;
    take_names(p, &stated);
    Loc here = p->loc;
    const char *name = token_take(p, TOK_word, "an op");
    Op op = op_find(name);
    if (op == OP_COUNT) parse_fail_at(p, here, "no such op '%.40s'", name);
    while (p->tok == TOK_value) {
        if (in.n == MAX_OPERANDS) parse_fail(p, "more than %d operands", MAX_OPERANDS);
        vec_push(p->arena, in, take_value(p));
        if (!token_accept(p, ',')) break;
    }
    Attrs at = take_attrs(p, op);
    take_types(p, &stated);
    take_loc(p, &loc);
    Block *body = token_is(p, '{') ? take_region(p) : NULL;
    const char *error = NULL;
    Inst *inst = inst_new(p->m, op, loc, in.n, in.at, &at, body, &error);
    if (inst == NULL) parse_fail_at(p, here, "%s: %s", name, error);
    set_results(p, here, inst, &stated);
    inst_insert(b, NULL, inst);
}

static void take_block(Parser *p, Block *b) {
    while (!token_is_word(p, "yield") && !token_is_word(p, "return")) {
        if (p->tok != TOK_value && p->tok != TOK_word)
            parse_fail(p, "expected an instruction, yield or return before '%.40s'", token_text(p));
        take_inst(p, b);
    }
    token_next(p);
    while (p->tok == TOK_value) {
        vec_push(p->arena, b->results, take_value(p));
        if (!token_accept(p, ',')) break;
    }
}

/* ---- the module ---------------------------------------------------------------------------------------------------
 */

static void take_mesh(Parser *p) {
    Mesh *mesh = &p->m->mesh;
    if (mesh->n > 0 || p->m->vars.n > 0 || p->m->funcs.n > 0)
        parse_fail(p, "the mesh comes once, before variables and functions");
    token_expect(p, '[');
    int64_t devices = 1;
    while (!token_is(p, ']')) {
        if (mesh->n == MAX_AXES) parse_fail(p, "more than %d mesh axes", MAX_AXES);
        Loc loc = p->loc;
        const char *name = token_take(p, TOK_word, "a mesh axis");
        if (mesh_axis(mesh, name) >= 0) parse_fail_at(p, loc, "mesh axis '%.40s' is defined twice", name);
        token_expect(p, '=');
        int64_t size = token_int(p);
        if (size < 1 || size > MAX_DEVICES / devices)
            parse_fail_at(p, loc, "a mesh has between 1 and %d devices", MAX_DEVICES);
        devices *= size;
        mesh->name[mesh->n] = name;
        mesh->size[mesh->n++] = size;
        if (!token_accept(p, ',')) break;
    }
    token_expect(p, ']');
}

/* normal(0.02) */
static VarInit take_init(Parser *p) {
    Loc loc = p->loc;
    VarInit init = {.kind = token_take(p, TOK_word, "const, normal or uniform")};
    if (strcmp(init.kind, "const") != 0 && strcmp(init.kind, "normal") != 0 && strcmp(init.kind, "uniform") != 0)
        parse_fail_at(p, loc, "no such initializer '%.40s'", init.kind);
    token_expect(p, '(');
    init.value = token_num(p);
    token_expect(p, ')');
    return init;
}

static void take_var(Parser *p, VarKind kind) {
    Var *v = NEW(p->arena, Var);
    *v = (Var){.kind = kind, .loc = p->loc, .offset = -1};
    v->path = token_take(p, TOK_string, "the path of a variable");
    if (module_var(p->m, v->path) != NULL) parse_fail_at(p, v->loc, "variable '%.80s' is defined twice", v->path);
    token_expect(p, ':');
    v->type = take_type(p);
    token_expect(p, '=');
    v->init = take_init(p);
    v->stacked = token_accept_word(p, "stacked");
    if (v->stacked) {
        token_expect(p, '(');
        v->lo = token_int(p);
        token_expect(p, ',');
        v->step = token_int(p);
        token_expect(p, ')');
    }
    v->trained = token_accept_word(p, "trained");
    if (token_accept_word(p, "from")) v->from = token_take(p, TOK_string, "a name pattern");
    v->offset = take_offset(p);
    take_loc(p, &v->loc);
    vec_push(p->arena, p->m->vars, v);
}

static void take_func(Parser *p, FuncKind kind) {
    Loc loc = p->loc;
    const char *name = token_take(p, TOK_string, "the name of a function");
    if (module_func(p->m, name, kind) != NULL) parse_fail_at(p, loc, "'%.80s' is defined twice", name);
    Func *f = func_new(p->m, name, kind, loc);
    p->scope = scope_new(p->arena);
    take_args(p, f->body);
    token_expect(p, '-');
    token_expect(p, '>');
    token_expect(p, '(');
    while (!token_is(p, ')')) {
        vec_push(p->arena, f->result_names, token_take(p, TOK_string, "the name of a result"));
        if (!token_accept(p, ',')) break;
    }
    token_expect(p, ')');
    if (token_accept_word(p, "arena")) f->arena_bytes = token_int(p);
    take_loc(p, &f->loc);
    token_expect(p, '{');
    take_block(p, f->body);
    token_expect(p, '}');
    if (f->result_names.n != f->body->results.n)
        parse_fail_at(p, loc, "'%.80s' names %d results and returns %d", name, f->result_names.n, f->body->results.n);
}

/* The source that locations refer to, so that messages can show its lines; empty when it is no longer there. */
static const char *source_text(Arena *a, const char *path, size_t *bytes) {
    struct stat info;
    *bytes = 0;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > SOURCE_LIMIT) return "";
    FILE *f = fopen(path, "rb");
    if (f == NULL) return "";
    char *text = arena_alloc(a, (size_t)info.st_size + 1);
    *bytes = fread(text, 1, (size_t)info.st_size, f);
    fclose(f);
    return text;
}

static void take_file(Parser *p) {
    Loc loc = p->loc;
    int64_t n = token_int(p);
    const char *path = token_take(p, TOK_string, "a path");
    if (n != p->files.n + 1) parse_fail_at(p, loc, "the next file's number is %d", p->files.n + 1);
    size_t bytes;
    const char *text = source_text(p->arena, path, &bytes);
    vec_push(p->arena, p->files, diag_add_file(path, text, bytes));
}

static void take_header(Parser *p) {
    static const char *const names[] = {
#define PHASE(id, doc) #id,
#include "phases.def"
#undef PHASE
    };
    /* "moecc-ir" is three tokens. */
    if (!token_accept_word(p, "moecc") || !token_accept(p, '-') || !token_accept_word(p, "ir"))
        parse_fail(p, "the text must begin with 'moecc-ir 1'");
    if (token_int(p) != 1) parse_fail(p, "only version 1 of the text form is known");
    Loc loc = p->loc;
    const char *w = token_take(p, TOK_word, "a phase");
    for (int i = 0; i < PHASE_COUNT; i++)
        if (strcmp(w, names[i]) == 0) {
            p->m->phase = (Phase)i;
            return;
        }
    parse_fail_at(p, loc, "no such phase '%.40s'", w);
}

static void take_module(Parser *p) {
    token_next(p);
    take_header(p);
    while (p->tok != TOK_end) {
        if (token_accept_word(p, "mesh"))
            take_mesh(p);
        else if (token_accept_word(p, "file"))
            take_file(p);
        else if (token_accept_word(p, "decode"))
            p->m->generate_decode = token_take(p, TOK_string, "the name of a function");
        else if (token_accept_word(p, "prefill"))
            p->m->generate_prefill = token_take(p, TOK_string, "the name of a function");
        else if (token_accept_word(p, "param"))
            take_var(p, VAR_param);
        else if (token_accept_word(p, "state"))
            take_var(p, VAR_state);
        else if (token_accept_word(p, "entry"))
            take_func(p, FUNC_entry);
        else if (token_accept_word(p, "train"))
            take_func(p, FUNC_train);
        else
            parse_fail(p, "expected mesh, param, state, entry or train before '%.40s'", token_text(p));
    }
}

Module *module_parse(Arena *arena, const char *path, const char *text, size_t bytes) {
    Parser *p = NEW(arena, Parser); /* no local variable: it changes between setjmp and longjmp */
    p->arena = arena;
    p->m = module_new(arena);
    p->m->source = arena_strdup(arena, path);
    p->text = text;
    p->file = diag_add_file(path, text, bytes);
    p->loc = (Loc){p->file, 0, 0};
    if (bytes >= UINT32_MAX) {
        diag_error(p->loc, "the text is larger than 4 GiB");
        return NULL;
    }
    p->bytes = (uint32_t)bytes;
    if (setjmp(p->fail) != 0) return NULL;
    take_module(p);
    return p->m;
}
