/* syntax.h: what the scanner (lex.l), the newline rule (layout.c), the grammar (parse.y) and the tree's constructors
 * (ast.c) share while one file is parsed. Private to these four. */
#ifndef MOECC_SYNTAX_H
#define MOECC_SYNTAX_H

#include "ast.h"
#include "support/vec.h"

/* A list under construction. */
typedef struct AstList {
    VEC(Ast *) of;
} AstList;

/* The semantic value of a token or a rule: which member holds it is declared in parse.y. */
typedef union Semantic {
    Ast *node;
    AstList *list;
    const char *name; /* interned */
} Semantic;

typedef struct Token {
    int kind;
    Loc loc;
    Semantic value;
} Token;

typedef struct Bracket {
    int kind; /* '(' '[' '{' */
    Loc loc;
} Bracket;

typedef struct Parser {
    Arena *arena;
    uint32_t file;
    const char *text;
    uint32_t bytes;
    void *scanner;     /* flex's */
    uint32_t at;       /* scanner: offset of the next byte */
    VEC(Bracket) open; /* layout: brackets around the current token */
    int last, before;  /* layout: kinds of the last two tokens given to the grammar */
    Loc last_loc, before_loc;
    uint32_t error_at;  /* offset of the last syntax error */
    int missing_braces; /* layout: '}' still to be supplied after an error */
    Loc newline;        /* layout: the newline before the token looked at */
    bool held;          /* layout: `next` is the token after a newline */
    Token next;
    bool stop; /* a limit was met and reported: say nothing more about this file */
    Ast *file_node;
} Parser;

/* lex.l: the next token, newlines included. */
int scan_token(Parser *p, Token *t);
bool scan_begin(Parser *p);
void scan_end(Parser *p);

/* layout.c: the next token for the grammar: only newlines that end a statement are left. */
int layout_token(Semantic *value, Loc *loc, Parser *p);

/* ast.c. Kids are copied; an over-deep node stops the parser with an error. */
Ast *ast_new(Parser *p, AstKind kind, Loc loc, const char *name, int n, Ast *const *kids);
#define AST_KIDS(...)                                                  \
    (int)(sizeof((Ast *[]){__VA_ARGS__}) / sizeof(Ast *)), (Ast *[]) { \
        __VA_ARGS__                                                    \
    }
Ast *ast_leaf(Parser *p, AstKind kind, Loc loc, const char *name);
/* A node of the kids in `list`; with `first`, that kid before them. */
Ast *ast_of(Parser *p, AstKind kind, Loc loc, const char *name, const AstList *list);
Ast *ast_before(Parser *p, AstKind kind, Loc loc, const char *name, Ast *first, const AstList *list);
Ast *ast_binary(Parser *p, const char *op, Ast *x, Ast *y);
/* key: value; the key is a name or, for concat, a label expression. */
Ast *ast_named(Parser *p, Ast *key, Ast *value);
/* targets = values; a target that nothing can be assigned to is an error. */
Ast *ast_assign(Parser *p, Loc loc, Ast *targets, Ast *values);
/* A statement that is only a value: an error. */
void ast_unused(Parser *p, Loc loc);
const char *ast_dotted(Parser *p, Loc loc, const char *module, const char *name);
AstList *ast_list(Parser *p, Ast *first); /* first NULL: empty */
AstList *ast_list_add(Parser *p, AstList *list, Ast *node);
AstList *ast_list_join(Parser *p, AstList *list, const AstList *more);
AstList *ast_list_kind(AstList *list, AstKind kind);
/* The last node of the list gets one more kid: `S: 1, 128`. */
AstList *ast_list_more(Parser *p, AstList *list, Ast *kid);
/* Reports a limit once and stops the parser. */
void ast_stop(Parser *p, Loc loc, const char *why);

#endif
