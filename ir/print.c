/* print.c: the text of a module; parse.c is its inverse.
 *
 * One line an instruction, driven by the op and attribute tables: an attribute is printed when its op's row lists it
 * and it differs from the default. Values print by their source name where that is unique in the function, else by
 * number in order of definition, so parse(print(m)) prints the same text. ir/IR.md has the form. Cost: linear. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ir.h"
#include "support/intern.h"
#include "support/str.h"

enum { FIRST_NAMES = 64 };

typedef struct Printer {
    Str s;
    const Module *m;
    PrintOptions opt;
    int next;                /* number of the next unnamed value */
    VEC(const char *) names; /* by Value.id */
    const char **taken;      /* names used in this function: open addressing, a power of two in size */
    size_t ntaken, taken_size;
    VEC(uint32_t) files; /* with locations: source files in the order of their first use */
} Printer;

static const char *const phase_names[] = {
#define PHASE(id, doc) #id,
#include "phases.def"
#undef PHASE
};

static const char *const partial_names[] = {"none", "sum", "max", "min"};

/* ---- small parts ----------------------------------------------------------------------------------------------------
 */

static bool is_identifier(const char *s) {
    if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || *s == '_')) return false;
    for (; *s != '\0'; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || *s == '_'))
            return false;
    return true;
}

static void print_label(Str *s, Label l) {
    if (is_identifier(l))
        str_add(s, l);
    else
        str_add_quoted(s, l);
}

static void print_num(Str *s, double x) {
    if (isnan(x))
        str_add(s, "nan");
    else if (isinf(x))
        str_add(s, x < 0 ? "-inf" : "inf");
    else {
        char buf[40];
        /* The shortest that reads back to the same double. */
        for (int digits = 6; digits <= 17; digits += 11) {
            snprintf(buf, sizeof buf, "%.*g", digits, x);
            double back = 0;
            sscanf(buf, "%lf", &back);
            if (digits == 17 || !(back < x || back > x)) break;
        }
        str_add(s, buf);
    }
}

static void print_axes(Str *s, const Mesh *mesh, const AxisList *a) {
    if (a->n == 1) {
        str_add(s, mesh->name[a->at[0]]);
        return;
    }
    str_add(s, "(");
    for (int i = 0; i < a->n; i++) str_addf(s, "%s%s", i ? ", " : "", mesh->name[a->at[i]]);
    str_add(s, ")");
}

static void print_type(Str *s, const Type *t, const Mesh *mesh) {
    str_addf(s, "%s[", dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) {
        const Dim *d = &t->dim[i];
        if (i) str_add(s, ", ");
        print_label(s, d->label);
        str_addf(s, ":%" PRId64, d->size);
        if (d->axes.n > 0 || d->pinned) {
            str_add(s, "@");
            print_axes(s, mesh, &d->axes);
        }
    }
    str_add(s, "]");
    if (t->partial_kind != PARTIAL_none) {
        str_addf(s, " partial(%s: ", partial_names[t->partial_kind]);
        print_axes(s, mesh, &t->partial);
        str_add(s, ")");
    }
}

char *type_print(const Type *t, const Mesh *mesh, Arena *a) {
    Str s = str_new(a);
    print_type(&s, t, mesh);
    return s.at;
}

/* ---- attributes -----------------------------------------------------------------------------------------------------
 */

static bool has_LABEL(Label x) {
    return x != NULL;
}
static bool has_LABELS(LabelList x) {
    return x.n > 0;
}
static bool has_DIMS(DimList x) {
    return x.n > 0;
}
static bool has_INT(int64_t x) {
    return x != 0;
}
static bool has_NUM(double x) {
    return x < 0 || x > 0 || isnan(x) || signbit(x);
}
static bool has_FLAG(bool x) {
    return x;
}
static bool has_WORD(const char *x) {
    return x != NULL;
}
static bool has_AXES(AxisList x) {
    return x.n > 0;
}
static bool has_VAR(const Var *x) {
    return x != NULL;
}
static bool has_DTYPE(DType x) {
    return x != DT_f32;
}

static void put_LABEL(Printer *p, Label x) {
    print_label(&p->s, x);
}
static void put_LABELS(Printer *p, LabelList x) {
    str_add(&p->s, "(");
    for (int i = 0; i < x.n; i++) {
        if (i) str_add(&p->s, ", ");
        print_label(&p->s, x.at[i]);
    }
    str_add(&p->s, ")");
}
static void put_DIMS(Printer *p, DimList x) {
    str_add(&p->s, "(");
    for (int i = 0; i < x.n; i++) {
        if (i) str_add(&p->s, ", ");
        print_label(&p->s, x.at[i].label);
        str_addf(&p->s, ":%" PRId64, x.at[i].size);
    }
    str_add(&p->s, ")");
}
static void put_INT(Printer *p, int64_t x) {
    str_addf(&p->s, "%" PRId64, x);
}
static void put_NUM(Printer *p, double x) {
    print_num(&p->s, x);
}
static void put_FLAG(Printer *p, bool x) {
    str_add(&p->s, x ? "true" : "false");
}
static void put_WORD(Printer *p, const char *x) {
    str_add(&p->s, x);
}
static void put_AXES(Printer *p, AxisList x) {
    print_axes(&p->s, &p->m->mesh, &x);
}
static void put_VAR(Printer *p, const Var *x) {
    str_add_quoted(&p->s, x->path);
}
static void put_DTYPE(Printer *p, DType x) {
    str_add(&p->s, dtype_name(x));
}

static void print_attrs(Printer *p, const Inst *i) {
    int n = 0;
#define ATTR(name, kind, doc)                                  \
    if (op_has_attr(i->op, #name) && has_##kind(i->at.name)) { \
        str_add(&p->s, n++ ? ", " #name "=" : " {" #name "="); \
        put_##kind(p, i->at.name);                             \
    }
#include "attrs.def"
#undef ATTR
    if (n) str_add(&p->s, "}");
}

/* ---- values and blocks
 * ------------------------------------------------------------------------------------------------ */

/* Where an interned name is, or would be put. */
static const char **taken_slot(const Printer *p, const char *name) {
    size_t i = ((uintptr_t)name >> 4) & (p->taken_size - 1);
    while (p->taken[i] != NULL && p->taken[i] != name) i = (i + 1) & (p->taken_size - 1);
    return &p->taken[i];
}

static void taken_grow(Printer *p) {
    const char **old = p->taken;
    size_t n = p->taken_size;
    p->taken_size = n == 0 ? FIRST_NAMES : 2 * n;
    p->taken = NEW_ARRAY(p->s.arena, const char *, p->taken_size);
    for (size_t i = 0; i < n; i++)
        if (old[i] != NULL) *taken_slot(p, old[i]) = old[i];
}

/* Whether the name is free in this function; from now on it is not. */
static bool take_name(Printer *p, const char *name) {
    if (2 * p->ntaken >= p->taken_size) taken_grow(p);
    const char **slot = taken_slot(p, name);
    if (*slot != NULL) return false;
    *slot = name;
    p->ntaken++;
    return true;
}

/* The first value of a name prints by it; Value.id, which is scratch, becomes the place in `names`. */
static void name_value(Printer *p, Value *v) {
    bool named = v->name != NULL && is_identifier(v->name) && take_name(p, intern(v->name));
    v->id = p->names.n;
    vec_push(p->s.arena, p->names, named ? v->name : arena_printf(p->s.arena, "%d", p->next++));
}

static void print_ref(Printer *p, const Value *v) {
    str_addf(&p->s, "%%%s", p->names.at[v->id]);
}

static void print_refs(Printer *p, Value *const *v, int n) {
    for (int i = 0; i < n; i++) {
        str_add(&p->s, i ? ", " : "");
        print_ref(p, v[i]);
    }
}

static void print_value_type(Printer *p, const Value *v) {
    print_type(&p->s, &v->type, &p->m->mesh);
    if (p->m->phase >= PHASE_PLANNED && v->offset >= 0) str_addf(&p->s, " at %" PRId64, v->offset);
}

static void print_args(Printer *p, const Block *b) {
    str_add(&p->s, "(");
    for (int i = 0; i < b->args.n; i++) {
        Value *v = b->args.at[i];
        name_value(p, v);
        str_add(&p->s, i ? ", " : "");
        print_ref(p, v);
        str_add(&p->s, ": ");
        print_value_type(p, v);
    }
    str_add(&p->s, ")");
}

static void print_loc(Printer *p, Loc loc) {
    if (!p->opt.locs || loc.file == 0) return;
    int file = 0;
    while (file < p->files.n && p->files.at[file] != loc.file) file++;
    if (file == p->files.n) vec_push(p->s.arena, p->files, loc.file);
    str_addf(&p->s, " loc %d:%" PRIu32 ":%" PRIu32, file + 1, loc.begin, loc.end);
}

static void print_block(Printer *p, const Block *b, int depth);

static void indent(Printer *p, int depth) {
    for (int i = 0; i < depth; i++) str_add(&p->s, "  ");
}

static void print_inst(Printer *p, const Inst *i, int depth) {
    indent(p, depth);
    for (int k = 0; k < i->nout; k++) name_value(p, i->out[k]);
    print_refs(p, i->out, i->nout);
    str_addf(&p->s, "%s%s", i->nout ? " = " : "", op_info[i->op].name);
    if (i->nin) str_add(&p->s, " ");
    print_refs(p, i->in, i->nin);
    print_attrs(p, i);
    for (int k = 0; k < i->nout; k++) {
        str_add(&p->s, k ? ", " : " : ");
        print_value_type(p, i->out[k]);
    }
    print_loc(p, i->loc);
    if (i->body != NULL) {
        str_add(&p->s, " {\n");
        indent(p, depth);
        str_add(&p->s, "^");
        print_args(p, i->body);
        str_add(&p->s, ":\n");
        print_block(p, i->body, depth + 1);
        indent(p, depth);
        str_add(&p->s, "}");
    }
    str_add(&p->s, "\n");
}

static void print_block(Printer *p, const Block *b, int depth) {
    for (const Inst *i = b->first; i != NULL; i = i->next) print_inst(p, i, depth);
    indent(p, depth);
    str_add(&p->s, b->owner == NULL ? "return" : "yield");
    if (b->results.n) str_add(&p->s, " ");
    print_refs(p, b->results.at, b->results.n);
    str_add(&p->s, "\n");
}

/* ---- the module
 * ------------------------------------------------------------------------------------------------------- */

static void print_var(Printer *p, const Var *v) {
    str_add(&p->s, v->kind == VAR_param ? "param " : "state ");
    str_add_quoted(&p->s, v->path);
    str_add(&p->s, " : ");
    print_type(&p->s, &v->type, &p->m->mesh);
    str_addf(&p->s, " = %s(", v->init.kind);
    print_num(&p->s, v->init.value);
    str_add(&p->s, ")");
    if (v->stacked) str_addf(&p->s, " stacked(%" PRId64 ", %" PRId64 ")", v->lo, v->step);
    if (v->trained) str_add(&p->s, " trained");
    if (v->from != NULL) {
        str_add(&p->s, " from ");
        str_add_quoted(&p->s, v->from);
    }
    if (p->m->phase >= PHASE_PLANNED && v->offset >= 0) str_addf(&p->s, " at %" PRId64, v->offset);
    print_loc(p, v->loc);
    str_add(&p->s, "\n");
}

static void print_func(Printer *p, const Func *f) {
    p->next = p->names.n = 0;
    p->ntaken = p->taken_size = 0;
    str_addf(&p->s, "\n%s ", f->kind == FUNC_train ? "train" : "entry");
    str_add_quoted(&p->s, f->name);
    str_add(&p->s, " ");
    print_args(p, f->body);
    str_add(&p->s, " -> (");
    for (int i = 0; i < f->result_names.n; i++) {
        str_add(&p->s, i ? ", " : "");
        str_add_quoted(&p->s, f->result_names.at[i]);
    }
    str_add(&p->s, ")");
    if (p->m->phase >= PHASE_PLANNED) str_addf(&p->s, " arena %" PRId64, f->arena_bytes);
    print_loc(p, f->loc);
    str_add(&p->s, " {\n");
    print_block(p, f->body, 1);
    str_add(&p->s, "}\n");
}

static void print_mesh(Printer *p) {
    const Mesh *mesh = &p->m->mesh;
    str_add(&p->s, "mesh [");
    for (int i = 0; i < mesh->n; i++) str_addf(&p->s, "%s%s=%" PRId64, i > 0 ? ", " : "", mesh->name[i], mesh->size[i]);
    str_add(&p->s, "]\n");
}

static void print_word_string(Printer *p, const char *word, const char *string) {
    if (string == NULL) return;
    str_add(&p->s, word);
    str_add_quoted(&p->s, string);
    str_add(&p->s, "\n");
}

/* The table of files stands in front of what refers to it, so the rest is printed first. */
char *module_print(const Module *m, Arena *a, PrintOptions opt) {
    Printer p = {.s = str_new(a), .m = m, .opt = opt};
    print_mesh(&p);
    print_word_string(&p, "decode ", m->generate_decode);
    print_word_string(&p, "prefill ", m->generate_prefill);
    for (int i = 0; i < m->vars.n; i++) print_var(&p, m->vars.at[i]);
    for (int i = 0; i < m->funcs.n; i++) print_func(&p, m->funcs.at[i]);
    Str text = str_new(a);
    str_addf(&text, "moecc-ir 1 %s\n", phase_names[m->phase]);
    for (int i = 0; i < p.files.n; i++) {
        str_addf(&text, "file %d ", i + 1);
        str_add_quoted(&text, diag_file_path(p.files.at[i]));
        str_add(&text, "\n");
    }
    str_add_n(&text, p.s.at, p.s.n);
    return text.at;
}
