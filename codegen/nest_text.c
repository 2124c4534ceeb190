/* nest_text.c: prints a nest as the parameters and body of a C function.
 *
 * Rows are opened one by one, each followed by the nodes that stand at its level. Inside the innermost row comes, for
 * each stage, what the row knows by then, then a loop over the columns that holds the nodes, folds and stores of that
 * stage. A column value that a later stage needs is computed again when that is cheap, else kept in a row of scratch.
 * The innermost column loop is marked `omp simd`: its iterations are independent but for the folds it names, which gcc
 * may then keep in vectors (the only reassociation there is; the order is fixed when the program is compiled).
 *
 * Linear in nodes times stages. */
#include <ctype.h>
#include <string.h>

#include "ctext.h"
#include "nest.h"

enum { TILE = 16 };

typedef struct Text {
    Nest *n;
    Arena *arena;
    Str s;
    int depth; /* of indentation */
    int rows;
    bool *wanted; /* [node]: in the column loop that is being printed */
} Text;

static void line(Text *t, const char *text) {
    for (int i = 0; i < t->depth; i++) str_add(&t->s, "    ");
    str_add(&t->s, text);
    str_add(&t->s, "\n");
}

#define LINE(t, ...) line((t), arena_printf((t)->arena, __VA_ARGS__))

static const char *linear_text(Text *t, const Linear *l) {
    Str s = str_new(t->arena);
    for (int k = 0; k < t->n->nloop; k++) {
        if (l->stride[k] == 0) continue;
        if (s.n > 0) str_add(&s, " + ");
        str_addf(&s, l->stride[k] == 1 ? "i%d" : "i%d * %lld", k, (long long)l->stride[k]);
    }
    if (l->dyn != NULL) str_addf(&s, "%s%s", s.n > 0 ? " + " : "", l->dyn);
    if (l->base != 0 || s.n == 0) {
        if (s.n > 0)
            str_addf(&s, l->base < 0 ? " - %lld" : " + %lld", (long long)(l->base < 0 ? -l->base : l->base));
        else
            str_addf(&s, "%lld", (long long)l->base);
    }
    return s.at;
}

/* Where the column of the current row lies in a row of scratch. */
static const char *column_text(Text *t) {
    Linear l = {.base = 0};
    int64_t stride = 1;
    for (int k = t->n->nloop - 1; k >= t->rows; k--) {
        l.stride[k] = stride;
        stride *= t->n->loop[k].size;
    }
    return linear_text(t, &l);
}

/* Names that a template may hold; each stands for a piece of C. */
typedef struct Names {
    const char *a, *b, *c, *p, *i, *j, *s;
} Names;

static const char *name_of(const Names *names, const char *word, size_t n) {
    if (n != 1) return NULL;
    switch (word[0]) {
        case 'a':
            return names->a;
        case 'b':
            return names->b;
        case 'c':
            return names->c;
        case 'p':
            return names->p;
        case 'i':
            return names->i;
        case 'j':
            return names->j;
        case 's':
            return names->s;
        default:
            return NULL;
    }
}

static const char *expand(Text *t, const char *text, const Names *names) {
    Str s = str_new(t->arena);
    while (*text != '\0') {
        size_t n = 1;
        if (isalnum((unsigned char)*text) || *text == '_')
            while (isalnum((unsigned char)text[n]) || text[n] == '_' || text[n] == '.') n++;
        const char *name = name_of(names, text, n);
        if (name != NULL)
            str_add(&s, name);
        else
            str_add_n(&s, text, n);
        text += n;
    }
    return s.at;
}

static const char *node_name(Text *t, int node) {
    return arena_printf(t->arena, "%c%d", t->n->node.at[node].fold ? 's' : 'v', node);
}

static const char *param_name(Text *t, int param) {
    return param < 0 ? NULL : arena_printf(t->arena, "%c%d", t->n->written.at[param] ? 'r' : 'a', param);
}

static Names node_names(Text *t, const Node *x) {
    Names names = {.p = param_name(t, x->param)};
    const char **in[] = {&names.a, &names.b, &names.c};
    for (int o = 0; o < x->nin; o++) *in[o] = node_name(t, x->in[o]);
    if (x->uses_i) names.i = linear_text(t, &x->i);
    if (x->uses_j) names.j = linear_text(t, &x->j);
    return names;
}

static void print_node(Text *t, int node) {
    const Node *x = &t->n->node.at[node];
    Names names = node_names(t, x);
    LINE(t, "const %s %s = %s;", temp_type(x->dtype), node_name(t, node), expand(t, x->text, &names));
}

static void print_store(Text *t, const Store *s) {
    Names names = {.a = node_name(t, s->value), .p = param_name(t, s->param), .i = linear_text(t, &s->i)};
    if (s->index >= 0) names.b = node_name(t, s->index);
    LINE(t, "%s;", expand(t, s->text, &names));
}

/* ---- columns ------------------------------------------------------------------------------------------------------
 */

static bool in_column(const Text *t, const Node *x) {
    return !x->fold && x->level > t->rows;
}

/* Arithmetic without function calls on loads that need no index of their own. */
static bool is_cheap(const Text *t, const Node *x, int depth) {
    if (depth > 3 || strstr(x->text, "MOE_") != NULL || strstr(x->text, "moe_") != NULL) return false;
    if (x->param >= 0 && x->nin > 0) return false;
    for (int o = 0; o < x->nin; o++) {
        const Node *in = &t->n->node.at[x->in[o]];
        if (in_column(t, in) && !is_cheap(t, in, depth + 1)) return false;
    }
    return true;
}

/* Marks what the column loop of a stage must hold for a node to be there. */
static void want(Text *t, int node, int stage) {
    Node *x = &t->n->node.at[node];
    if (!in_column(t, x) || t->wanted[node]) return;
    t->wanted[node] = true;
    if (x->stage < stage && !is_cheap(t, x, 0)) {
        x->kept = true;
        return;
    }
    for (int o = 0; o < x->nin; o++) want(t, x->in[o], stage);
}

static bool want_stage(Text *t, int stage) {
    Nest *n = t->n;
    memset(t->wanted, 0, (size_t)n->node.n * sizeof *t->wanted);
    bool any = false;
    for (int k = 0; k < n->node.n; k++) {
        Node *x = &n->node.at[k];
        bool folds_here = x->fold && x->stage == stage + 1;
        if (folds_here) want(t, x->in[0], stage);
        if (x->kept && x->stage == stage) want(t, k, stage);
        any |= folds_here || (x->kept && x->stage == stage);
    }
    for (int k = 0; k < n->store.n; k++) {
        const Store *s = &n->store.at[k];
        if (s->level <= t->rows || s->stage != stage) continue;
        want(t, s->value, stage);
        if (s->index >= 0) want(t, s->index, stage);
        any = true;
    }
    return any;
}

static const char *loop_bound(Text *t, int loop, bool upper) {
    if (loop == t->n->split) return upper ? "hi" : "lo";
    return upper ? arena_printf(t->arena, "%lld", (long long)t->n->loop[loop].size) : "0";
}

static bool is_tiled(const Text *t, int loop) {
    return t->n->tiled && loop >= t->n->nloop - 2;
}

/* Both tile loops stand outside of the two loops that run within a tile. */
static void open_tiles(Text *t) {
    for (int l = t->n->nloop - 2; l < t->n->nloop; l++) {
        LINE(t, "for (int64_t b%d = %s; b%d < %s; b%d += %d) {", l, loop_bound(t, l, false), l, loop_bound(t, l, true),
             l, TILE);
        t->depth++;
    }
}

static void open_loop(Text *t, int loop) {
    const NestLoop *l = &t->n->loop[loop];
    if (t->n->tiled && loop == t->n->nloop - 2) open_tiles(t);
    if (is_tiled(t, loop))
        LINE(t, "for (int64_t i%d = b%d; i%d < b%d + %d && i%d < %s; i%d++) {", loop, loop, loop, loop, TILE, loop,
             loop_bound(t, loop, true), loop);
    else if (l->down)
        LINE(t, "for (int64_t i%d = %lld; i%d >= 0; i%d--) {", loop, (long long)l->size - 1, loop, loop);
    else
        LINE(t, "for (int64_t i%d = %s; i%d < %s; i%d++) {", loop, loop_bound(t, loop, false), loop,
             loop_bound(t, loop, true), loop);
    t->depth++;
}

static void close_loop(Text *t) {
    t->depth--;
    line(t, "}");
}

static void print_simd(Text *t, int stage) {
    if (t->n->serial || t->n->tiled) return;
    Str s = str_new(t->arena);
    for (int k = 0; k < t->n->node.n; k++) {
        const Node *x = &t->n->node.at[k];
        if (x->fold && x->stage == stage + 1) str_addf(&s, " reduction(%s : %s)", x->clause, node_name(t, k));
    }
    LINE(t, "#pragma omp simd%s", s.n > 0 ? s.at : "");
}

/* The nodes, stores and folds of one stage that stand right inside `level` loops. */
static void print_column_level(Text *t, int stage, int level) {
    Nest *n = t->n;
    bool last = level == n->nloop;
    for (int k = 0; k < n->node.n; k++) {
        Node *x = &n->node.at[k];
        if (!t->wanted[k] || (last ? x->level <= t->rows : x->level != level)) continue;
        if (x->level != level) continue;
        if (x->stage < stage && x->kept)
            LINE(t, "const %s v%d = t%d[%s];", temp_type(x->dtype), k, k, column_text(t));
        else
            print_node(t, k);
    }
    if (!last) return;
    for (int k = 0; k < n->node.n; k++) {
        Node *x = &n->node.at[k];
        if (x->kept && x->stage == stage && t->wanted[k]) LINE(t, "t%d[%s] = v%d;", k, column_text(t), k);
        if (!x->fold || x->stage != stage + 1) continue;
        Names names = {.s = node_name(t, k), .a = node_name(t, x->in[0])};
        LINE(t, "%s;", expand(t, x->text, &names));
    }
    for (int k = 0; k < n->store.n; k++)
        if (n->store.at[k].level > t->rows && n->store.at[k].stage == stage) print_store(t, &n->store.at[k]);
}

static void print_columns(Text *t, int stage) {
    Nest *n = t->n;
    for (int k = 0; k < n->node.n; k++) {
        const Node *x = &n->node.at[k];
        if (x->fold && x->stage == stage + 1) LINE(t, "%s %s = %s;", temp_type(x->dtype), node_name(t, k), x->start);
    }
    for (int l = t->rows; l < n->nloop; l++) {
        if (l == n->nloop - 1) print_simd(t, stage);
        open_loop(t, l);
        print_column_level(t, stage, l + 1);
    }
    if (t->rows == n->nloop) print_column_level(t, stage, t->rows);
    for (int l = t->rows; l < n->nloop; l++) close_loop(t);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------
 */

/* What stands right inside `level` rows, knowing the folds of the stages before. */
static void print_row_nodes(Text *t, int level, int stage) {
    for (int k = 0; k < t->n->node.n; k++) {
        const Node *x = &t->n->node.at[k];
        bool here = stage == 0 ? x->level == level : level == t->rows && x->level <= t->rows;
        if (!x->fold && !in_column(t, x) && here && x->stage == stage) print_node(t, k);
    }
    for (int k = 0; k < t->n->store.n; k++) {
        const Store *s = &t->n->store.at[k];
        bool here = stage == 0 ? s->level == level : level == t->rows;
        if (s->level <= t->rows && here && s->stage == stage) print_store(t, s);
    }
}

static void print_scratch(Text *t) {
    int64_t size = 1;
    for (int l = t->rows; l < t->n->nloop; l++) size *= t->n->loop[l].size;
    for (int k = 0; k < t->n->node.n; k++)
        if (t->n->node.at[k].kept) LINE(t, "%s t%d[%lld];", temp_type(t->n->node.at[k].dtype), k, (long long)size);
}

static void print_body(Text *t) {
    Nest *n = t->n;
    /* From the last stage back, so that each knows what later ones want of it. */
    for (int s = n->stages - 1; s >= 0; s--) want_stage(t, s);
    print_scratch(t);
    if (n->split >= 0) {
        LINE(t, "int64_t lo, hi;");
        LINE(t, "moe_range(w, %lld, %d, &lo, &hi);", (long long)n->loop[n->split].size,
             n->split == n->nloop - 1 ? 16 : 1);
    } else {
        line(t, "if (w->worker != 0) return;");
    }
    print_row_nodes(t, 0, 0);
    for (int l = 0; l < t->rows; l++) {
        open_loop(t, l);
        print_row_nodes(t, l + 1, 0);
    }
    for (int s = 0; s < n->stages; s++) {
        if (s > 0) print_row_nodes(t, t->rows, s);
        if (want_stage(t, s)) print_columns(t, s);
    }
    for (int l = 0; l < t->rows + 2 * n->tiled; l++) close_loop(t);
}

char *nest_text(Nest *n, Arena *a) {
    Text t = {.n = n, .arena = a, .s = str_new(a), .depth = 1, .rows = n->nloop - n->ncolumn};
    t.wanted = NEW_ARRAY(a, bool, n->node.n + 1);
    str_add(&t.s, "(const MoeWorker *w");
    for (int k = 0; k < n->param.n; k++) {
        const char *type = storage_type(n->param.at[k]->type.dtype);
        str_addf(&t.s, n->written.at[k] ? ", %s *r%d" : ", const %s *a%d", type, k);
    }
    str_add(&t.s, ") {\n");
    print_body(&t);
    str_add(&t.s, "}\n");
    return t.s.at;
}
