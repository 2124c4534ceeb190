/* ast.c: the tree's constructors, and ast_parse around the generated parser.
 *
 * Every limit of ast.h is enforced here or in the scanner, so what is built can be walked by plain recursion. Bytes are
 * checked once, before scanning: the text must be UTF-8 without control characters (tab and the two newline characters
 * excepted) and without the invisible marks that make text read in another order than it runs. */
#include "ast.h"

#include <string.h>

#include "support/intern.h"
#include "syntax.h"

int yyparse(Parser *p);

const char *ast_kind_name(AstKind kind) {
    static const char *const names[] = {
#define NODE(id, name, kids, doc) #id,
#include "nodes.def"
#undef NODE
    };
    return names[kind];
}

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

void ast_stop(Parser *p, Loc loc, const char *why) {
    if (!p->stop) diag_error(loc, "%s", why);
    p->stop = true;
}

Ast *ast_new(Parser *p, AstKind kind, Loc loc, const char *name, int n, Ast *const *kids) {
    Ast *node = NEW(p->arena, Ast);
    node->kind = kind;
    node->loc = node->name_loc = loc;
    node->name = name;
    node->depth = 1;
    node->n = n;
    node->at = NEW_ARRAY(p->arena, Ast *, n > 0 ? n : 1);
    for (int i = 0; i < n; i++) {
        node->at[i] = kids[i];
        if (kids[i] != NULL && kids[i]->depth >= node->depth) node->depth = kids[i]->depth + 1;
    }
    if (node->depth > AST_MAX_DEPTH) ast_stop(p, loc, "this nests too deeply; name its parts");
    return node;
}

Ast *ast_leaf(Parser *p, AstKind kind, Loc loc, const char *name) {
    return ast_new(p, kind, loc, name, 0, NULL);
}

Ast *ast_of(Parser *p, AstKind kind, Loc loc, const char *name, const AstList *list) {
    return ast_new(p, kind, loc, name, list->of.n, list->of.at);
}

Ast *ast_before(Parser *p, AstKind kind, Loc loc, const char *name, Ast *first, const AstList *list) {
    AstList *all = ast_list_join(p, ast_list(p, first), list);
    return ast_of(p, kind, loc, name, all);
}

Ast *ast_binary(Parser *p, const char *op, Ast *x, Ast *y) {
    return ast_new(p, AST_binary, loc_join(x->loc, y->loc), intern(op), AST_KIDS(x, y));
}

Ast *ast_named(Parser *p, Ast *key, Ast *value) {
    bool plain = key->kind == AST_name;
    Ast *node = ast_new(p, AST_named, loc_join(key->loc, value->loc), plain ? key->name : NULL, 1, &value);
    node->name_loc = key->loc;
    node->key = plain ? NULL : key;
    if (key->depth >= node->depth) node->depth = key->depth + 1;
    return node;
}

Ast *ast_assign(Parser *p, Loc loc, Ast *targets, Ast *values) {
    for (int i = 0; i < targets->n; i++) {
        const Ast *t = targets->at[i];
        const Ast *base = t->kind == AST_index ? t->at[INDEX_X] : t;
        if (base->kind != AST_name)
            diag_error(t->loc, "nothing can be assigned to this; a name or an indexed name stands before `=`");
    }
    return ast_new(p, AST_assign, loc, NULL, AST_KIDS(targets, values));
}

void ast_unused(Parser *p, Loc loc) {
    (void)p;
    diag_error(loc, "this value is not used; write `name = …`, or `_ = …` to ignore it");
}

const char *ast_dotted(Parser *p, Loc loc, const char *module, const char *name) {
    if (strlen(module) + strlen(name) < AST_MAX_NAME) return intern_printf("%s.%s", module, name);
    ast_stop(p, loc, "this name is too long");
    return name;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

AstList *ast_list(Parser *p, Ast *first) {
    AstList *list = NEW(p->arena, AstList);
    return first == NULL ? list : ast_list_add(p, list, first);
}

AstList *ast_list_add(Parser *p, AstList *list, Ast *node) {
    vec_push(p->arena, list->of, node);
    return list;
}

AstList *ast_list_join(Parser *p, AstList *list, const AstList *more) {
    for (int i = 0; i < more->of.n; i++) ast_list_add(p, list, more->of.at[i]);
    return list;
}

AstList *ast_list_kind(AstList *list, AstKind kind) {
    for (int i = 0; i < list->of.n; i++) list->of.at[i]->kind = kind;
    return list;
}

enum { MAX_SIZES = 256 }; /* the list is copied for each */

AstList *ast_list_more(Parser *p, AstList *list, Ast *kid) {
    Ast **last = &list->of.at[list->of.n - 1];
    if ((*last)->n == MAX_SIZES) ast_stop(p, kid->loc, "these are too many sizes");
    if (p->stop) return list;
    AstList kids = {0};
    for (int i = 0; i < (*last)->n; i++) ast_list_add(p, &kids, (*last)->at[i]);
    ast_list_add(p, &kids, kid);
    Ast *node = ast_of(p, (*last)->kind, loc_join((*last)->loc, kid->loc), (*last)->name, &kids);
    node->name_loc = (*last)->name_loc;
    *last = node;
    return list;
}

/* ---- equality ---------------------------------------------------------------------------------------------------- */

bool ast_equal(const Ast *x, const Ast *y) {
    if (x == NULL || y == NULL) return x == y;
    bool same = x->kind == y->kind && x->n == y->n && x->integer == y->integer && x->entry == y->entry &&
                x->fused == y->fused && x->frozen == y->frozen && x->bare == y->bare;
    if (!same || (x->kind == AST_num ? x->num != y->num : x->name != y->name)) return false;
    for (int i = 0; i < x->n; i++)
        if (!ast_equal(x->at[i], y->at[i])) return false;
    return ast_equal(x->key, y->key);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* Length of the UTF-8 character at `s`, its code in *code; 0: not UTF-8 (overlong and surrogate forms included). */
static size_t utf8_char(const unsigned char *s, size_t bytes, uint32_t *code) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 && s[0] < 0xf8 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
    if (n == 0 || s[0] >= 0xf8 || n > bytes) return 0;
    *code = n == 1 ? s[0] : s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (s[i] & 0x3f);
    }
    bool surrogate = *code >= 0xd800 && *code <= 0xdfff;
    return *code < least[n] || *code > 0x10ffff || surrogate ? 0 : n;
}

static const char *char_fault(uint32_t c, bool before_newline) {
    if (c == '\t' || c == '\n' || (c == '\r' && before_newline)) return NULL;
    if (c < 0x20 || (c >= 0x7f && c < 0xa0)) return "a control character";
    if ((c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069)) return "an invisible mark that reorders text";
    return NULL;
}

/* Reports the first bad byte. */
static bool text_valid(uint32_t file, const char *text, size_t bytes) {
    for (size_t i = 0, n; i < bytes; i += n) {
        uint32_t code = 0;
        n = utf8_char((const unsigned char *)text + i, bytes - i, &code);
        const char *fault =
            n == 0 ? "a byte that is not UTF-8" : char_fault(code, i + 1 < bytes && text[i + 1] == '\n');
        if (fault == NULL) continue;
        Loc loc = {file, (uint32_t)i, (uint32_t)(i + (n == 0 ? 1 : n))};
        diag_error(loc, "%s (0x%02X); a source is UTF-8 text", fault, n == 0 ? (unsigned char)text[i] : code);
        return false;
    }
    return true;
}

/* ---- the parser -------------------------------------------------------------------------------------------------- */

Ast *ast_parse(Arena *a, uint32_t file, const char *text, size_t bytes) {
    Parser p = {.arena = a, .file = file, .text = text, .bytes = (uint32_t)bytes, .last = '\n'};
    int errors = diag_errors();
    if (bytes > AST_MAX_BYTES) {
        diag_error((Loc){file, 0, 0}, "a source has at most %d MiB", AST_MAX_BYTES >> 20);
        return NULL;
    }
    if (!text_valid(file, text, bytes)) return NULL;
    if (!scan_begin(&p)) {
        diag_error((Loc){file, 0, 0}, "out of memory");
        return NULL;
    }
    bool parsed = yyparse(&p) == 0;
    scan_end(&p);
    return parsed && diag_errors() == errors && !p.stop ? p.file_node : NULL;
}
