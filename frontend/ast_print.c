/* ast_print.c: a tree as source text.
 *
 * Parsing the text gives an equal tree (ast_equal), so the printer is also a formatter that loses comments. One
 * function a kind, found through a table; parentheses are written only where precedence asks for them. Linear in the
 * size of the tree; recursion is bounded by AST_MAX_DEPTH. */
#include <string.h>

#include "ast.h"
#include "support/str.h"

typedef struct Printer {
    Str out;
    int indent;
} Printer;

/* Binding strength, as in parse.y. */
enum { LOOSE, OR_LEVEL, AND_LEVEL, NOT_LEVEL, COMPARE, SUM, PRODUCT, NEGATION, POWER, POSTFIX };

static void print(Printer *p, const Ast *a);

static void text(Printer *p, const char *s) {
    str_add(&p->out, s);
}

static void quoted(Printer *p, const char *s) {
    text(p, "\"");
    for (; *s != '\0'; s++) str_addf(&p->out, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    text(p, "\"");
}

static void line(Printer *p) {
    str_addf(&p->out, "\n%*s", 4 * p->indent, "");
}

/* Kids from `first` on, with commas. */
static void commas(Printer *p, const Ast *a, int first) {
    for (int i = first; i < a->n; i++) {
        if (i > first) text(p, ", ");
        print(p, a->at[i]);
    }
}

static void between(Printer *p, const char *open, const Ast *list, const char *close) {
    text(p, open);
    commas(p, list, 0);
    text(p, close);
}

/* ---- expressions ------------------------------------------------------------------------------------------------- */

static int binary_level(const char *op) {
    static const struct {
        const char *op;
        int level;
    } rows[] = {{"or", OR_LEVEL}, {"and", AND_LEVEL}, {"+", SUM},     {"-", SUM},
                {"*", PRODUCT},   {"/", PRODUCT},     {"%", PRODUCT}, {"**", POWER}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].op, op) == 0) return rows[i].level;
    return COMPARE;
}

static int level_of(const Ast *a) {
    if (a->kind == AST_binary) return binary_level(a->name);
    if (a->kind == AST_unary) return strcmp(a->name, "not") == 0 ? NOT_LEVEL : NEGATION;
    return a->kind == AST_cond || a->kind == AST_each ? LOOSE : POSTFIX;
}

static void operand(Printer *p, const Ast *a, int least) {
    bool parens = level_of(a) < least;
    text(p, parens ? "(" : "");
    print(p, a);
    text(p, parens ? ")" : "");
}

static void print_binary(Printer *p, const Ast *a) {
    int level = binary_level(a->name);
    operand(p, a->at[0], level + (level == COMPARE || level == POWER));
    str_addf(&p->out, " %s ", a->name);
    operand(p, a->at[1], level + (level != POWER));
}

static void print_unary(Printer *p, const Ast *a) {
    text(p, a->name);
    text(p, level_of(a) == NOT_LEVEL ? " " : "");
    operand(p, a->at[0], level_of(a));
}

static void print_cond(Printer *p, const Ast *a) {
    text(p, "if ");
    print(p, a->at[IF_COND]);
    text(p, " { ");
    print(p, a->at[IF_THEN]);
    text(p, " } else { ");
    print(p, a->at[IF_ELSE]);
    text(p, " }");
}

static void print_name(Printer *p, const Ast *a) {
    text(p, a->name);
}

static void print_str(Printer *p, const Ast *a) {
    quoted(p, a->name);
}

static void print_ellipsis(Printer *p, const Ast *a) {
    (void)a;
    text(p, "...");
}

static void print_any(Printer *p, const Ast *a) {
    (void)a;
    text(p, "?");
}

static void print_call(Printer *p, const Ast *a) {
    text(p, a->name);
    between(p, "(", a, ")");
}

static void print_named(Printer *p, const Ast *a) {
    if (a->key != NULL)
        print(p, a->key);
    else
        text(p, a->name);
    text(p, ": ");
    commas(p, a, 0);
}

static void print_arrow(Printer *p, const Ast *a) {
    print(p, a->at[ARROW_X]);
    text(p, " -> ");
    print(p, a->at[ARROW_TO]);
}

static void print_slice(Printer *p, const Ast *a) {
    text(p, "[");
    if (a->at[INDEX_LABEL] != NULL) {
        print(p, a->at[INDEX_LABEL]);
        text(p, ": ");
    }
    print(p, a->at[INDEX_LO]);
    if (a->at[INDEX_HI] != NULL) {
        text(p, "..");
        print(p, a->at[INDEX_HI]);
    }
    text(p, "]");
}

static void print_index(Printer *p, const Ast *a) {
    operand(p, a->at[INDEX_X], POSTFIX);
    print_slice(p, a);
}

static void print_relabel(Printer *p, const Ast *a) {
    operand(p, a->at[RELABEL_X], POSTFIX);
    between(p, " as (", a->at[RELABEL_FROM], " -> ");
    commas(p, a->at[RELABEL_TO], 0);
    text(p, ")");
}

static void print_scoped(Printer *p, const Ast *a) {
    operand(p, a->at[0], POSTFIX);
    text(p, " in ");
    quoted(p, a->name);
}

static void print_each(Printer *p, const Ast *a) {
    str_addf(&p->out, "each %s: ", a->name);
    print(p, a->at[0]);
}

static void print_array(Printer *p, const Ast *a) {
    between(p, "[", a, "]");
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

static void print_type(Printer *p, const Ast *a) {
    if (a->name != NULL) text(p, a->name);
    if (!a->bare) between(p, "[", a, "]");
}

static void print_label(Printer *p, const Ast *a) {
    const Ast *where = a->at[LABEL_WHERE];
    print(p, a->at[LABEL_EXPR]);
    if (where == NULL) return;
    text(p, "@");
    if (where->kind == AST_any)
        print(p, where);
    else
        between(p, where->n == 1 ? "" : "(", where, where->n == 1 ? "" : ")");
}

/* ---- statements -------------------------------------------------------------------------------------------------- */

static void print_block(Printer *p, const Ast *a) {
    text(p, "{");
    p->indent++;
    for (int i = 0; i < a->n; i++) {
        line(p);
        print(p, a->at[i]);
    }
    p->indent--;
    line(p);
    text(p, "}");
}

static void print_var(Printer *p, const Ast *a) {
    str_addf(&p->out, "%s %s: ", ast_kind_name(a->kind), a->name);
    print(p, a->at[VAR_TYPE]);
    if (a->at[VAR_INIT] != NULL) {
        text(p, " = ");
        print(p, a->at[VAR_INIT]);
    }
    if (a->at[VAR_FROM] != NULL) print(p, a->at[VAR_FROM]);
}

static void print_from(Printer *p, const Ast *a) {
    text(p, " from ");
    quoted(p, a->name);
    if (a->at[FROM_LAYOUT] != NULL) between(p, " [", a->at[FROM_LAYOUT], "]");
    if (a->at[FROM_SLICE] == NULL) return;
    text(p, " ");
    print_slice(p, a->at[FROM_SLICE]);
}

/* Only a merged axis of a layout is printed as a list of its own. */
static void print_list(Printer *p, const Ast *a) {
    between(p, "(", a, ")");
}

static void print_def(Printer *p, const Ast *a) {
    str_addf(&p->out, "%s %s = ", ast_kind_name(a->kind), a->name);
    print(p, a->at[DEF_VALUE]);
    for (int i = DEF_FROM; i < a->n; i++) {
        text(p, i == DEF_FROM ? " from " : " or ");
        print(p, a->at[i]);
    }
}

static void print_metric(Printer *p, const Ast *a) {
    str_addf(&p->out, "metric %s = ", a->name);
    print(p, a->at[0]);
}

static void print_assign(Printer *p, const Ast *a) {
    commas(p, a->at[ASSIGN_TARGETS], 0);
    text(p, " = ");
    commas(p, a->at[ASSIGN_VALUES], 0);
}

static void print_return(Printer *p, const Ast *a) {
    text(p, a->n == 0 ? "return" : "return ");
    commas(p, a, 0);
}

static void print_for(Printer *p, const Ast *a) {
    str_addf(&p->out, "for %s in ", a->name);
    print(p, a->at[FOR_FROM]);
    text(p, "..");
    print(p, a->at[FOR_TO]);
    text(p, " ");
    print(p, a->at[FOR_BODY]);
}

static void print_if(Printer *p, const Ast *a) {
    const Ast *other = a->at[IF_ELSE];
    text(p, "if ");
    print(p, a->at[IF_COND]);
    text(p, " ");
    print(p, a->at[IF_THEN]);
    if (other == NULL) return;
    text(p, " else ");
    print(p, other->n == 1 && other->at[0]->kind == AST_if ? other->at[0] : other);
}

static void print_at_step(Printer *p, const Ast *a) {
    text(p, "at step ");
    print(p, a->at[0]);
}

static void print_scope(Printer *p, const Ast *a) {
    text(p, "scope ");
    quoted(p, a->name);
    text(p, " ");
    print(p, a->at[0]);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static void print_import(Printer *p, const Ast *a) {
    text(p, "import ");
    print(p, a->at[IMPORT_MODULE]);
    if (a->name != NULL) str_addf(&p->out, " as %s", a->name);
    if (a->frozen) text(p, " frozen");
    if (a->n == IMPORT_BINDINGS) return;
    text(p, " (");
    commas(p, a, IMPORT_BINDINGS);
    text(p, ")");
}

static void print_mesh(Printer *p, const Ast *a) {
    between(p, "mesh [", a, "]");
}

static void print_axis(Printer *p, const Ast *a) {
    str_addf(&p->out, "axis %s = ", a->name);
    between(p, "(", a, ")");
}

static void print_dim(Printer *p, const Ast *a) {
    print_def(p, a);
}
static void print_const(Printer *p, const Ast *a) {
    print_def(p, a);
}
static void print_dtype(Printer *p, const Ast *a) {
    print_def(p, a);
}
static void print_param(Printer *p, const Ast *a) {
    print_var(p, a);
}
static void print_state(Printer *p, const Ast *a) {
    print_var(p, a);
}
static void print_num(Printer *p, const Ast *a) {
    print_name(p, a);
}

static void print_arg(Printer *p, const Ast *a) {
    text(p, a->name);
    if (a->at[ARG_TYPE] != NULL) {
        text(p, ": ");
        print(p, a->at[ARG_TYPE]);
    }
    if (a->at[ARG_DEFAULT] != NULL) {
        text(p, " = ");
        print(p, a->at[ARG_DEFAULT]);
    }
}

static void print_result(Printer *p, const Ast *a) {
    if (a->name != NULL) str_addf(&p->out, "%s: ", a->name);
    print(p, a->at[0]);
}

static void print_fn(Printer *p, const Ast *a) {
    const Ast *results = a->at[FN_RESULTS];
    str_addf(&p->out, "%s%s %s", a->fused ? "fused " : "", a->entry ? "entry" : "fn", a->name);
    if (a->at[FN_GENERICS]->n > 0) between(p, "<", a->at[FN_GENERICS], ">");
    between(p, "(", a->at[FN_ARGS], ")");
    bool one = results->n == 1 && results->at[0]->name == NULL;
    if (results->n > 0) between(p, one ? " -> " : " -> (", results, one ? "" : ")");
    if (a->at[FN_MANUAL] != NULL) between(p, " manual (", a->at[FN_MANUAL], ")");
    text(p, " ");
    print(p, a->at[FN_BODY]);
}

static void print_group(Printer *p, const Ast *a) {
    commas(p, a->at[GROUP_PATTERNS], 0);
    if (a->at[GROUP_PATTERNS]->n > 0) text(p, ": ");
    if (a->at[GROUP_CALL] != NULL)
        print(p, a->at[GROUP_CALL]);
    else
        text(p, "frozen");
}

static void print_train(Printer *p, const Ast *a) {
    const Ast *groups = a->at[TRAIN_GROUPS], *words = a->at[TRAIN_WORDS];
    str_addf(&p->out, "train %s with ", a->name);
    if (groups->n == 1 && groups->at[0]->at[GROUP_PATTERNS]->n == 0)
        print(p, groups->at[0]);
    else
        print_block(p, groups);
    for (int i = 0; i < words->n; i++) {
        const Ast *value = words->at[i]->at[0];
        bool plain = value->kind == AST_num || value->kind == AST_name;
        str_addf(&p->out, plain ? " %s " : " %s (", words->at[i]->name);
        print(p, value);
        text(p, plain ? "" : ")");
    }
}

static void print_generate(Printer *p, const Ast *a) {
    str_addf(&p->out, "generate with %s at (", a->name);
    commas(p, a->at[GENERATE_SIZES], 0);
    text(p, ")");
    if (a->n > GENERATE_AFTER) str_addf(&p->out, " after %s", a->at[GENERATE_AFTER]->name);
}

static void print_file(Printer *p, const Ast *a) {
    for (int i = 0; i < a->n; i++) {
        bool apart = i > 0 && (a->at[i]->kind == AST_fn || a->at[i - 1]->kind == AST_fn);
        text(p, apart ? "\n" : "");
        print(p, a->at[i]);
        text(p, "\n");
    }
}

static void print(Printer *p, const Ast *a) {
    static void (*const by_kind[])(Printer *, const Ast *) = {
#define NODE(id, name, kids, doc) print_##id,
#include "nodes.def"
#undef NODE
    };
    by_kind[a->kind](p, a);
}

char *ast_print(const Ast *ast, Arena *a) {
    Printer p = {.out = str_new(a)};
    text(&p, "");
    print(&p, ast);
    return p.out.at;
}
