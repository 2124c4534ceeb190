/* ast.h: the syntax tree.
 *
 * Every node is one struct: a kind, a place, at most one name, and kids; nodes.def says what each kind holds. One
 * shape for all lets a table drive the printer and the checks, and a walker needs no accessor but `at[...]`. The tree
 * is immutable once parsed. Names are interned, so they compare by pointer.
 *
 * Limits that hold for every tree, so that whatever walks it may recurse: at most AST_MAX_DEPTH levels, names of at
 * most AST_MAX_NAME bytes in UTF-8 without control characters, finite numbers. */
#ifndef MOECC_AST_H
#define MOECC_AST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/arena.h"
#include "support/diag.h"

enum {
    AST_MAX_BYTES = 16 << 20, /* of a file */
    AST_MAX_DEPTH = 500,      /* levels of the tree */
    AST_MAX_NESTING = 200,    /* brackets inside brackets */
    AST_MAX_NAME = 200,       /* bytes of a name or a path */
};

typedef enum AstKind {
#define NODE(id, name, kids, doc) AST_##id,
#include "nodes.def"
#undef NODE
    AST_KINDS
} AstKind;

typedef struct Ast Ast;
struct Ast {
    AstKind kind;
    Loc loc;
    const char *name; /* interned, or NULL */
    Loc name_loc;     /* of the name in a declaration; else loc */
    double num;       /* num */
    bool integer;     /* num */
    bool entry;       /* fn */
    bool fused;       /* fn */
    bool frozen;      /* import */
    bool bare;        /* type without brackets: a compile-time value */
    Ast *key;         /* named, when the key is a label expression such as Dn+Dr; else NULL */
    int depth;        /* 1 + that of the deepest kid */
    int n;
    Ast **at;
};

/* Kids by position. Variable tails start at the count of the fixed ones (DEF_FROM, IMPORT_BINDINGS). */
enum { IMPORT_MODULE, IMPORT_BINDINGS };
enum { DEF_VALUE, DEF_FROM }; /* dim, const, dtype */
enum { FN_GENERICS, FN_ARGS, FN_RESULTS, FN_MANUAL, FN_BODY };
enum { ARG_TYPE, ARG_DEFAULT };
enum { TRAIN_GROUPS, TRAIN_WORDS };
enum { GROUP_PATTERNS, GROUP_CALL };
enum { GENERATE_SIZES, GENERATE_AFTER };
enum { LABEL_EXPR, LABEL_WHERE };
enum { VAR_TYPE, VAR_INIT, VAR_FROM }; /* param, state */
enum { FROM_LAYOUT, FROM_SLICE };
enum { ASSIGN_TARGETS, ASSIGN_VALUES };
enum { FOR_FROM, FOR_TO, FOR_BODY };
enum { IF_COND, IF_THEN, IF_ELSE }; /* if, cond */
enum { ARROW_X, ARROW_TO };
enum { INDEX_X, INDEX_LABEL, INDEX_LO, INDEX_HI };
enum { RELABEL_X, RELABEL_FROM, RELABEL_TO };

/* Parses one registered file (diag_add_file). NULL after at least one diagnostic. The tree lives in `a`. */
Ast *ast_parse(Arena *a, uint32_t file, const char *text, size_t bytes);
/* Source text that parses to the same tree, in one layout (comments are lost). */
char *ast_print(const Ast *ast, Arena *a);
/* The same tree, places aside. */
bool ast_equal(const Ast *x, const Ast *y);
const char *ast_kind_name(AstKind kind);

#endif
