/* parse.c: a module from its text, the inverse of print.c.
 *
 * Recursive descent over a small hand-written lexer; nesting of regions is bounded, every fault is one located
 * diagnostic, and the first one ends the parse. Types are read and then compared with what the op's shape rule infers,
 * so a text cannot state a shape that its operands do not have. Shardings are taken as written. Cost: linear, times the
 * values in scope for name look-up by hash. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ir.h"
#include "support/intern.h"
#include "support/str.h"

enum { MAX_REGIONS = 32, BUCKETS = 1024, TOKEN_LIMIT = 4096 };

typedef enum Tok { TOK_end, TOK_word, TOK_string, TOK_number, TOK_value, TOK_punct } Tok;

typedef struct Binding {
    const char *name;
    Value *value;
    struct Binding *next;
} Binding;

typedef struct Scope {
    Binding *bucket[BUCKETS];
} Scope;

typedef struct Parser {
    Arena *arena;
    Module *m;
    const char *text;
    uint32_t file, pos, bytes;
    Tok tok;
    Loc loc;          /* of the current token */
    const char *word; /* word, string (unescaped), value name, number text: interned; punct: its character */
    Scope *scope;
    int regions;
    uint32_t files[64]; /* file numbers of the text -> registered ones */
    jmp_buf fail;
} Parser;

/* ---- lexer -------------------------------------------------------------------------------------------------------- */

static _Noreturn void fail(Parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static _Noreturn void fail(Parser *p, const char *fmt, ...) {
    char buf[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    diag_error(p->loc, "%s", buf);
    longjmp(p->fail, 1);
}

static bool is_word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static void skip_space(Parser *p) {
    while (p->pos < p->bytes) {
        const char *s = p->text + p->pos;
        if (*s == ' ' || *s == '\n' || *s == '\t' || *s == '\r')
            p->pos++;
        else if (*s == '/' && p->pos + 1 < p->bytes && s[1] == '/')
            while (p->pos < p->bytes && p->text[p->pos] != '\n') p->pos++;
        else
            break;
    }
}

/* The escapes that str_add_quoted writes: three octal digits, \" and \\. */
static void lex_string(Parser *p) {
    Str s = str_new(p->arena);
    str_add(&s, "");
    for (p->pos++;; p->pos++) {
        if (p->pos >= p->bytes || p->text[p->pos] == '\n' || s.n > TOKEN_LIMIT) fail(p, "a string is not closed");
        char c = p->text[p->pos];
        if (c == '"') break;
        if (c == '\\') {
            const char *e = p->text + p->pos + 1;
            size_t left = p->bytes - p->pos - 1;
            if (left >= 1 && (e[0] == '"' || e[0] == '\\' || e[0] == '?')) {
                c = e[0];
                p->pos++;
            } else if (left >= 3 && e[0] >= '0' && e[0] <= '3' && e[1] >= '0' && e[1] <= '7' && e[2] >= '0' && e[2] <= '7') {
                c = (char)((e[0] - '0') * 64 + (e[1] - '0') * 8 + (e[2] - '0'));
                if (c == '\0') fail(p, "a string holds a NUL");
                p->pos += 3;
            } else {
                fail(p, "unknown escape in a string");
            }
        }
        str_add_n(&s, &c, 1);
    }
    p->pos++;
    p->word = intern(s.at);
}

static void next(Parser *p) {
    skip_space(p);
    uint32_t begin = p->pos;
    p->loc = (Loc){p->file, begin, begin + 1};
    p->word = "";
    if (p->pos >= p->bytes) {
        p->tok = TOK_end;
        return;
    }
    char c = p->text[p->pos];
    if (c == '"') {
        lex_string(p);
        p->tok = TOK_string;
    } else if (c == '%' || is_word_char(c)) {
        p->tok = c == '%' ? TOK_value : c >= '0' && c <= '9' ? TOK_number : TOK_word;
        uint32_t start = p->pos += c == '%';
        while (p->pos < p->bytes && is_word_char(p->text[p->pos])) p->pos++;
        if (p->tok == TOK_number) { /* a fraction, an exponent's sign */
            while (p->pos < p->bytes && (is_word_char(p->text[p->pos]) || p->text[p->pos] == '.' ||
                                         ((p->text[p->pos] == '-' || p->text[p->pos] == '+') && p->text[p->pos - 1] == 'e')))
                p->pos++;
        }
        if (p->pos - start > TOKEN_LIMIT) fail(p, "a name is longer than %d bytes", TOKEN_LIMIT);
        p->word = intern_n(p->text + start, p->pos - start);
    } else {
        p->tok = TOK_punct;
        p->word = intern_n(p->text + p->pos++, 1);
    }
    p->loc.end = p->pos;
}

static bool at_punct(const Parser *p, char c) { return p->tok == TOK_punct && p->word[0] == c; }
static bool at_word(const Parser *p, const char *w) { return p->tok == TOK_word && strcmp(p->word, w) == 0; }

static bool accept(Parser *p, char c) {
    if (!at_punct(p, c)) return false;
    next(p);
    return true;
}

static bool accept_word(Parser *p, const char *w) {
    if (!at_word(p, w)) return false;
    next(p);
    return true;
}

static void expect(Parser *p, char c) {
    if (!accept(p, c)) fail(p, "expected '%c' before '%.40s'", c, p->tok == TOK_end ? "end of text" : p->word);
}

static const char *take(Parser *p, Tok tok, const char *what) {
    if (p->tok != tok) fail(p, "expected %s before '%.40s'", what, p->tok == TOK_end ? "end of text" : p->word);
    const char *w = p->word;
    next(p);
    return w;
}

static int64_t take_int(Parser *p) {
    bool minus = accept(p, '-');
    const char *w = take(p, TOK_number, "an integer");
    char *end;
    errno = 0;
    long long x = strtoll(w, &end, 10);
    if (*end != '\0' || errno != 0) fail(p, "'%.40s' is not an integer in range", w);
    return minus ? -x : x;
}

static double take_num(Parser *p) {
    bool minus = accept(p, '-');
    double x;
    if (accept_word(p, "inf"))
        x = (double)INFINITY;
    else if (accept_word(p, "nan"))
        x = (double)NAN;
    else {
        const char *w = take(p, TOK_number, "a number");
        char *end;
        x = strtod(w, &end);
        if (*end != '\0') fail(p, "'%.40s' is not a number", w);
    }
    return minus ? -x : x;
}

/* ---- types and attributes ------------------------------------------------------------------------------------------ */

static Label take_label(Parser *p) {
    if (p->tok == TOK_string) return take(p, TOK_string, "a label");
    return take(p, TOK_word, "a label");
}

static int64_t take_size(Parser *p) {
    int64_t n = take_int(p);
    if (n < 0 || n > MAX_DIM) fail(p, "size %" PRId64 " is out of range", n);
    return n;
}

static void add_axis(Parser *p, AxisList *a) {
    const char *w = take(p, TOK_word, "a mesh axis");
    int axis = mesh_axis(&p->m->mesh, w);
    if (axis < 0) fail(p, "the mesh has no axis '%.40s'", w);
    if (axes_has(a, axis)) fail(p, "axis '%.40s' is listed twice", w);
    axes_add(a, axis);
}

static AxisList take_AXES(Parser *p) {
    AxisList a = {0};
    if (!accept(p, '(')) {
        add_axis(p, &a);
        return a;
    }
    while (!at_punct(p, ')')) {
        add_axis(p, &a);
        if (!accept(p, ',')) break;
    }
    expect(p, ')');
    return a;
}

static DType take_DTYPE(Parser *p) {
    const char *w = take(p, TOK_word, "an element type");
    for (int t = 0; t < DT_COUNT; t++)
        if (strcmp(dtype_name((DType)t), w) == 0) return (DType)t;
    fail(p, "no such element type '%.40s'", w);
}

static void take_partial(Parser *p, Type *t) {
    static const char *const names[] = {"none", "sum", "max", "min"};
    expect(p, '(');
    const char *w = take(p, TOK_word, "sum, max or min");
    for (int k = 1; k < 4; k++)
        if (strcmp(w, names[k]) == 0) t->partial_kind = (PartialKind)k;
    if (t->partial_kind == PARTIAL_none) fail(p, "partial(%.40s: is none of sum, max, min", w);
    expect(p, ':');
    t->partial = take_AXES(p);
    expect(p, ')');
}

static Type take_type(Parser *p) {
    Type t = {.dtype = take_DTYPE(p)};
    expect(p, '[');
    while (!at_punct(p, ']')) {
        if (t.rank == MAX_RANK) fail(p, "more than %d axes", MAX_RANK);
        Dim *d = &t.dim[t.rank++];
        d->label = take_label(p);
        expect(p, ':');
        d->size = take_size(p);
        if (accept(p, '@')) {
            d->axes = take_AXES(p);
            d->pinned = true;
        }
        if (!accept(p, ',')) break;
    }
    expect(p, ']');
    if (accept_word(p, "partial")) take_partial(p, &t);
    return t;
}

static Label take_LABEL(Parser *p) { return take_label(p); }
static LabelList take_LABELS(Parser *p) {
    LabelList l = {0};
    expect(p, '(');
    while (!at_punct(p, ')')) {
        if (l.n == MAX_RANK) fail(p, "more than %d labels", MAX_RANK);
        l.at[l.n++] = take_label(p);
        if (!accept(p, ',')) break;
    }
    expect(p, ')');
    return l;
}
static DimList take_DIMS(Parser *p) {
    DimList l = {0};
    expect(p, '(');
    while (!at_punct(p, ')')) {
        if (l.n == MAX_RANK) fail(p, "more than %d dims", MAX_RANK);
        l.at[l.n].label = take_label(p);
        expect(p, ':');
        l.at[l.n++].size = take_size(p);
        if (!accept(p, ',')) break;
    }
    expect(p, ')');
    return l;
}
static int64_t take_INT(Parser *p) { return take_int(p); }
static double take_NUM(Parser *p) { return take_num(p); }
static bool take_FLAG(Parser *p) {
    if (accept_word(p, "true")) return true;
    if (accept_word(p, "false")) return false;
    fail(p, "expected true or false");
}
static const char *take_WORD(Parser *p) { return take(p, TOK_word, "a word"); }
static Var *take_VAR(Parser *p) {
    const char *path = take(p, TOK_string, "the path of a variable");
    Var *v = module_var(p->m, path);
    if (v == NULL) fail(p, "no variable '%.80s'", path);
    return v;
}

static void take_attr(Parser *p, Op op, Attrs *at) {
    const char *name = take(p, TOK_word, "an attribute");
    if (!op_has_attr(op, name)) fail(p, "%s has no attribute '%.40s'", op_info[op].name, name);
    expect(p, '=');
#define ATTR(field, kind, doc)             \
    if (strcmp(name, #field) == 0) {       \
        at->field = take_##kind(p);        \
        return;                            \
    }
#include "attrs.def"
#undef ATTR
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

static Binding **bucket(const Parser *p, const char *name) {
    return &p->scope->bucket[((uintptr_t)name >> 4) % BUCKETS];
}

static void bind_value(Parser *p, const char *name, Value *v) {
    Binding **b = bucket(p, name);
    for (const Binding *x = *b; x != NULL; x = x->next)
        if (x->name == name) fail(p, "%%%.40s is defined twice", name);
    Binding *x = NEW(p->arena, Binding);
    *x = (Binding){name, v, *b};
    *b = x;
    if (name[0] < '0' || name[0] > '9') v->name = name;
}

static Value *take_value(Parser *p) {
    Loc loc = p->loc;
    const char *name = take(p, TOK_value, "a value such as %0");
    for (const Binding *x = *bucket(p, name); x != NULL; x = x->next)
        if (x->name == name) return x->value;
    p->loc = loc;
    fail(p, "%%%.40s is not defined above, in this block", name);
}

static int64_t take_offset(Parser *p) { return accept_word(p, "at") ? take_int(p) : -1; }

static void take_args(Parser *p, Block *b) {
    expect(p, '(');
    while (!at_punct(p, ')')) {
        const char *name = take(p, TOK_value, "an argument such as %x");
        expect(p, ':');
        Type t = take_type(p);
        Value *v = block_arg(p->m, b, &t, NULL);
        v->offset = take_offset(p);
        bind_value(p, name, v);
        if (!accept(p, ',')) break;
    }
    expect(p, ')');
}

static void take_loc(Parser *p, Loc *loc) {
    if (!accept_word(p, "loc")) return;
    int64_t part[3];
    for (int i = 0; i < 3; i++) {
        if (i) expect(p, ':');
        part[i] = take_int(p);
        if (part[i] < 0 || part[i] > UINT32_MAX) fail(p, "a location is out of range");
    }
    uint32_t file = part[0] < 64 ? p->files[part[0]] : 0;
    *loc = (Loc){file, (uint32_t)part[1], (uint32_t)part[2]};
}

/* ---- instructions ------------------------------------------------------------------------------------------------------ */

static void take_block(Parser *p, Block *b);

static Block *take_region(Parser *p) {
    Scope *outer = p->scope;
    if (++p->regions > MAX_REGIONS) fail(p, "regions are nested more than %d deep", MAX_REGIONS);
    p->scope = NEW(p->arena, Scope);
    Block *body = block_new(p->m, NULL);
    next(p);
    expect(p, '^');
    take_args(p, body);
    expect(p, ':');
    take_block(p, body);
    expect(p, '}');
    p->regions--;
    p->scope = outer;
    return body;
}

/* The written types, the results' names and the instruction, made one. */
static void finish_inst(Parser *p, Block *b, Inst *inst, const char *const *names, int nnames, const Type *types,
                        const int64_t *offsets, int ntypes) {
    if (ntypes != inst->nout || nnames != inst->nout)
        fail(p, "%s has %d results, %d are named and %d types given", op_info[inst->op].name, inst->nout, nnames, ntypes);
    for (int k = 0; k < inst->nout; k++) {
        if (!type_same_shape(&types[k], &inst->out[k]->type))
            fail(p, "%s gives %s, not %s", op_info[inst->op].name,
                 type_print(&inst->out[k]->type, &p->m->mesh, p->arena), type_print(&types[k], &p->m->mesh, p->arena));
        inst->out[k]->type = types[k];
        inst->out[k]->offset = offsets[k];
        bind_value(p, names[k], inst->out[k]);
    }
    inst_insert(b, NULL, inst);
}

static void take_inst(Parser *p, Block *b) {
    VEC(const char *) names = {0};
    VEC(Value *) in = {0};
    VEC(Type) types = {0};
    VEC(int64_t) offsets = {0};
    Loc loc = p->loc;
    while (p->tok == TOK_value) {
        vec_push(p->arena, names, p->word);
        next(p);
        if (!accept(p, ',')) break;
    }
    if (names.n) expect(p, '=');
    Loc op_loc = p->loc;
    const char *op_name = take(p, TOK_word, "an op");
    Op op = op_find(op_name);
    if (op == OP_COUNT) p->loc = op_loc, fail(p, "no such op '%.40s'", op_name);
    while (p->tok == TOK_value) {
        if (in.n == MAX_OPERANDS) fail(p, "more than %d operands", MAX_OPERANDS);
        vec_push(p->arena, in, take_value(p));
        if (!accept(p, ',')) break;
    }
    Attrs at = {0};
    if (accept(p, '{')) {
        do take_attr(p, op, &at);
        while (accept(p, ','));
        expect(p, '}');
    }
    if (accept(p, ':')) do {
            if (types.n == MAX_OPERANDS) fail(p, "more than %d results", MAX_OPERANDS);
            vec_push(p->arena, types, take_type(p));
            vec_push(p->arena, offsets, take_offset(p));
        } while (accept(p, ','));
    take_loc(p, &loc);
    Block *body = at_punct(p, '{') ? take_region(p) : NULL;
    const char *error = NULL;
    Loc here = p->loc;
    p->loc = op_loc;
    Inst *inst = inst_new(p->m, op, loc, in.n, in.at, &at, body, &error);
    if (inst == NULL) fail(p, "%s: %s", op_name, error);
    skip_space(p);
    finish_inst(p, b, inst, names.at, names.n, types.at, offsets.at, types.n);
    p->loc = here;
}

static void take_block(Parser *p, Block *b) {
    while (!at_word(p, "yield") && !at_word(p, "return")) {
        if (p->tok != TOK_value && p->tok != TOK_word) fail(p, "expected an instruction, yield or return");
        take_inst(p, b);
    }
    next(p);
    while (p->tok == TOK_value) {
        vec_push(p->arena, b->results, take_value(p));
        if (!accept(p, ',')) break;
    }
}

/* ---- the module ---------------------------------------------------------------------------------------------------------- */

static void take_mesh(Parser *p) {
    Mesh *mesh = &p->m->mesh;
    expect(p, '[');
    int64_t devices = 1;
    while (!at_punct(p, ']')) {
        if (mesh->n == MAX_AXES) fail(p, "more than %d mesh axes", MAX_AXES);
        const char *name = take(p, TOK_word, "a mesh axis");
        if (mesh_axis(mesh, name) >= 0) fail(p, "mesh axis '%.40s' is defined twice", name);
        expect(p, '=');
        int64_t size = take_int(p);
        if (size < 1 || size > MAX_DEVICES / devices) fail(p, "a mesh of 1 to %d devices, please", MAX_DEVICES);
        devices *= size;
        mesh->name[mesh->n] = name;
        mesh->size[mesh->n++] = size;
        if (!accept(p, ',')) break;
    }
    expect(p, ']');
}

static void take_var(Parser *p, VarKind kind) {
    Var *v = NEW(p->arena, Var);
    *v = (Var){.kind = kind, .loc = p->loc, .offset = -1};
    v->path = take(p, TOK_string, "the path of a variable");
    if (module_var(p->m, v->path) != NULL) fail(p, "variable '%.80s' is defined twice", v->path);
    expect(p, ':');
    v->type = take_type(p);
    expect(p, '=');
    v->init.kind = take(p, TOK_word, "const, normal or uniform");
    if (strcmp(v->init.kind, "const") && strcmp(v->init.kind, "normal") && strcmp(v->init.kind, "uniform"))
        fail(p, "no such initializer '%.40s'", v->init.kind);
    expect(p, '(');
    v->init.value = take_num(p);
    expect(p, ')');
    if ((v->stacked = accept_word(p, "stacked"))) {
        expect(p, '(');
        v->lo = take_int(p);
        expect(p, ',');
        v->step = take_int(p);
        expect(p, ')');
    }
    v->trained = accept_word(p, "trained");
    if (accept_word(p, "from")) v->from = take(p, TOK_string, "a name pattern");
    v->offset = take_offset(p);
    take_loc(p, &v->loc);
    vec_push(p->arena, p->m->vars, v);
}

static void take_func(Parser *p, FuncKind kind) {
    Loc loc = p->loc;
    const char *name = take(p, TOK_string, "the name of a function");
    Func *f = func_new(p->m, name, kind, loc);
    p->scope = NEW(p->arena, Scope);
    take_args(p, f->body);
    expect(p, '-');
    expect(p, '>');
    expect(p, '(');
    while (!at_punct(p, ')')) {
        vec_push(p->arena, f->result_names, take(p, TOK_string, "the name of a result"));
        if (!accept(p, ',')) break;
    }
    expect(p, ')');
    if (accept_word(p, "arena")) f->arena_bytes = take_int(p);
    take_loc(p, &f->loc);
    expect(p, '{');
    take_block(p, f->body);
    expect(p, '}');
    if (f->result_names.n != f->body->results.n)
        fail(p, "'%.80s' names %d results and returns %d", name, f->result_names.n, f->body->results.n);
}

static void take_file(Parser *p) {
    int64_t n = take_int(p);
    const char *path = take(p, TOK_string, "a path");
    if (n < 1 || n >= 64) fail(p, "file numbers are 1 to 63");
    p->files[n] = diag_add_file(path, "", 0);
}

static void take_header(Parser *p) {
    static const char *const names[] = {
#define PHASE(id, doc) #id,
#include "phases.def"
#undef PHASE
    };
    /* "moecc-ir" is three tokens to this lexer. */
    if (!accept_word(p, "moecc") || !accept(p, '-') || !accept_word(p, "ir")) fail(p, "the text must begin with 'moecc-ir 1'");
    if (take_int(p) != 1) fail(p, "only version 1 of the text form is known");
    const char *w = take(p, TOK_word, "a phase");
    for (int i = 0; i < PHASE_COUNT; i++)
        if (strcmp(w, names[i]) == 0) {
            p->m->phase = (Phase)i;
            return;
        }
    fail(p, "no such phase '%.40s'", w);
}

static void take_module(Parser *p) {
    next(p);
    take_header(p);
    while (p->tok != TOK_end) {
        if (accept_word(p, "mesh"))
            take_mesh(p);
        else if (accept_word(p, "file"))
            take_file(p);
        else if (accept_word(p, "decode"))
            p->m->generate_decode = take(p, TOK_string, "the name of a function");
        else if (accept_word(p, "prefill"))
            p->m->generate_prefill = take(p, TOK_string, "the name of a function");
        else if (accept_word(p, "param"))
            take_var(p, VAR_param);
        else if (accept_word(p, "state"))
            take_var(p, VAR_state);
        else if (accept_word(p, "entry"))
            take_func(p, FUNC_entry);
        else if (accept_word(p, "train"))
            take_func(p, FUNC_train);
        else
            fail(p, "expected mesh, param, state, entry or train before '%.40s'", p->word);
    }
}

Module *module_parse(Arena *arena, const char *path, const char *text, size_t bytes) {
    Parser p = {.arena = arena, .m = module_new(arena), .text = text};
    p.file = diag_add_file(path, text, bytes);
    p.loc = (Loc){p.file, 0, 0};
    p.m->source = path;
    if (bytes >= UINT32_MAX) {
        diag_error(p.loc, "the text is larger than 4 GiB");
        return NULL;
    }
    p.bytes = (uint32_t)bytes;
    if (setjmp(p.fail)) return NULL;
    take_module(&p);
    return p.m;
}
