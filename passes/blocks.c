/* blocks.c: --show=NAME: which device holds which block of a tensor, as a table or a picture.
 *
 * Every device holds one block; devices that differ only along mesh axes that do not split the tensor hold the same.
 * The table has a line a device. The picture has a cell a block, its columns along the last split axis and its rows
 * along the others, and says in each which devices hold it. Before: SHARDED or later. Cost: devices x rank. */
#include <string.h>

#include "support/str.h"
#include "survey.h"

enum { MAX_LINES = 1024, CELL_W = 150, CELL_H = 50, MARGIN = 130, MAX_SEEN = 64 };

typedef struct Found {
    const char *what; /* "param w", "xe of entry loss" */
    const Type *type;
} Found;

typedef struct Finding {
    const Module *m;
    Arena *arena;
    const char *name;
    const Func *func;
    VEC(Found) found;
    VEC(const char *) names; /* all there are, for a typo */
} Finding;

/* ---- by name ----------------------------------------------------------------------------------------------------- */

static void consider(Finding *f, const char *name, const char *what, const Type *t) {
    if (name == NULL) return;
    vec_push(f->arena, f->names, name);
    if (strcmp(name, f->name) != 0) return;
    for (int i = 0; i < f->found.n; i++)
        if (type_same_shape(f->found.at[i].type, t) && type_same_sharding(f->found.at[i].type, t)) return;
    if (f->found.n < MAX_SEEN) vec_push(f->arena, f->found, ((Found){what, t}));
}

static void consider_value(Finding *f, const Value *v) {
    if (v->def != NULL && v->def->op == OP_read && strcmp(v->def->at.var->path, f->name) == 0) return;
    const char *what =
        v->name == NULL ? NULL : arena_printf(f->arena, "%s of %s", v->name, survey_func(f->func, f->arena));
    consider(f, v->name, what, &v->type);
}

static void consider_block(Finding *f, const Block *b, int depth) {
    if (depth > MAX_NESTING) return;
    for (int i = 0; i < b->args.n; i++) consider_value(f, b->args.at[i]);
    for (const Inst *in = b->first; in != NULL; in = in->next) {
        for (int i = 0; i < in->nout; i++) consider_value(f, in->out[i]);
        if (in->body != NULL) consider_block(f, in->body, depth + 1);
    }
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* The indices of a dim that a device holds: "0..3", "5" alone. */
static const char *range_text(const Mesh *m, const Dim *dim, int64_t device, Arena *a) {
    int64_t n = dim_local(m, dim), first = mesh_index(m, device, &dim->axes) * n;
    return n == 1 ? arena_printf(a, "%lld", (long long)first)
                  : arena_printf(a, "%lld..%lld", (long long)first, (long long)(first + n - 1));
}

static void table(Str *s, const Mesh *m, const Found *x) {
    const Type *t = x->type;
    int64_t devices = mesh_devices(m), lines = devices < MAX_LINES ? devices : MAX_LINES;
    str_addf(s, "%s: %s, %lld bytes on each device\n", x->what, type_print(t, m, s->arena),
             (long long)type_local_bytes(m, t));
    str_addf(s, "%6s", "device");
    for (int i = 0; i < m->n; i++) str_addf(s, "  %*s", (int)strlen(m->name[i]), m->name[i]);
    for (int d = 0; d < t->rank; d++) str_addf(s, "  %14s", t->dim[d].label);
    str_add(s, "\n");
    for (int64_t dev = 0; dev < lines; dev++) {
        str_addf(s, "%6lld", (long long)dev);
        for (int i = 0; i < m->n; i++)
            str_addf(s, "  %*lld", (int)strlen(m->name[i]), (long long)mesh_coord(m, dev, i));
        for (int d = 0; d < t->rank; d++) str_addf(s, "  %14s", range_text(m, &t->dim[d], dev, s->arena));
        str_add(s, "\n");
    }
    if (lines < devices) str_addf(s, "and %lld devices more\n", (long long)(devices - lines));
}

/* ---- the picture ------------------------------------------------------------------------------------------------- */

static void add_xml(Str *s, const char *text) {
    for (; *text != '\0'; text++) {
        if (*text == '<')
            str_add(s, "&lt;");
        else if (*text == '&')
            str_add(s, "&amp;");
        else
            str_add_n(s, (unsigned char)*text < ' ' ? " " : text, 1);
    }
}

static void add_text(Str *s, int64_t x, int64_t y, const char *text) {
    str_addf(s, "<text x=\"%lld\" y=\"%lld\">", (long long)x, (long long)y);
    add_xml(s, text);
    str_add(s, "</text>\n");
}

/* The blocks of a device along the dims before `column`, and along `column`: its cell. */
static void cell_of(const Mesh *m, const Type *t, int64_t device, int column, int64_t *row, int64_t *col) {
    *row = *col = 0;
    for (int d = 0; d < t->rank; d++) {
        int64_t at = mesh_index(m, device, &t->dim[d].axes);
        if (d == column)
            *col = at;
        else
            *row = *row * mesh_size(m, &t->dim[d].axes) + at;
    }
}

/* What a row holds of the split dims but the column's: "E 0..3, B 4..7". */
static const char *row_text(const Mesh *m, const Type *t, int64_t device, int column, Arena *a) {
    Str s = str_new(a);
    str_add(&s, "");
    for (int d = 0; d < t->rank; d++)
        if (d != column && t->dim[d].axes.n > 0)
            str_addf(&s, "%s%s %s", s.n > 0 ? ", " : "", t->dim[d].label, range_text(m, &t->dim[d], device, a));
    return s.at;
}

/* The devices that hold the same block as `device`; NULL unless it is the first of them. */
static const char *holders(const Mesh *m, const Type *t, int64_t device, int column, Arena *a) {
    int64_t row, col, r, c, devices = mesh_devices(m);
    int listed = 0;
    Str s = str_new(a);
    cell_of(m, t, device, column, &row, &col);
    for (int64_t d = 0; d < devices; d++) {
        cell_of(m, t, d, column, &r, &c);
        if (r != row || c != col) continue;
        if (d < device) return NULL;
        if (++listed <= 6) str_addf(&s, "%s%lld", s.n > 0 ? ", " : "device ", (long long)d);
    }
    if (listed > 6) str_addf(&s, " and %d more", listed - 6);
    return s.at;
}

static void picture(Str *s, const Mesh *m, const Found *x) {
    const Type *t = x->type;
    int column = -1;
    for (int d = 0; d < t->rank; d++)
        if (t->dim[d].axes.n > 0) column = d;
    int64_t cols = column < 0 ? 1 : mesh_size(m, &t->dim[column].axes), rows = 1;
    for (int d = 0; d < t->rank; d++)
        if (d != column) rows *= mesh_size(m, &t->dim[d].axes);
    str_addf(s,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%lld\" height=\"%lld\" font-family=\"monospace\" "
             "font-size=\"12\">\n",
             (long long)(MARGIN + cols * CELL_W + 10), (long long)(60 + rows * CELL_H));
    add_text(s, 10, 20, arena_printf(s->arena, "%s: %s", x->what, type_print(t, m, s->arena)));
    for (int64_t dev = 0; dev < mesh_devices(m); dev++) {
        const char *held = holders(m, t, dev, column, s->arena);
        int64_t row, col;
        if (held == NULL) continue;
        cell_of(m, t, dev, column, &row, &col);
        int64_t left = MARGIN + col * CELL_W, top = 50 + row * CELL_H;
        if (row == 0 && column >= 0)
            add_text(
                s, left, 42,
                arena_printf(s->arena, "%s %s", t->dim[column].label, range_text(m, &t->dim[column], dev, s->arena)));
        if (col == 0) add_text(s, 10, top + 28, row_text(m, t, dev, column, s->arena));
        str_addf(s,
                 "<rect x=\"%lld\" y=\"%lld\" width=\"%d\" height=\"%d\" fill=\"hsl(%lld,60%%,80%%)\" "
                 "stroke=\"black\"/>\n",
                 (long long)left, (long long)top, CELL_W - 4, CELL_H - 4,
                 (long long)((row * cols + col) * 360 / (rows * cols)));
        add_text(s, left + 8, top + 28, held);
    }
    str_add(s, "</svg>\n");
}

char *show_blocks(const Module *m, const char *name, bool svg, Arena *a) {
    Finding f = {.m = m, .arena = a, .name = name};
    for (int i = 0; i < m->vars.n; i++) {
        const Var *v = m->vars.at[i];
        consider(&f, v->path, arena_printf(a, "%s %s", var_kind(v), v->path), &v->type);
    }
    for (int i = 0; i < m->funcs.n; i++) {
        f.func = m->funcs.at[i];
        consider_block(&f, f.func->body, 0);
    }
    if (f.found.n == 0) {
        const char *near = str_nearest(name, f.names.at, f.names.n);
        diag_error((Loc){0}, "no value or variable is called %s%s%s", name, near == NULL ? "" : "; did you mean ",
                   near == NULL ? "" : near);
        return NULL;
    }
    if (svg && mesh_devices(&m->mesh) > MAX_LINES) {
        diag_error((Loc){0}, "a picture shows at most %d devices", MAX_LINES);
        return NULL;
    }
    Str s = str_new(a);
    for (int i = 0; i < (svg ? 1 : f.found.n); i++) {
        if (i > 0) str_add(&s, "\n");
        (svg ? picture : table)(&s, &m->mesh, &f.found.at[i]);
    }
    return s.at;
}
