/* frontend.h: the folder's public header: from a source file to a module. */
#ifndef MOECC_FRONTEND_H
#define MOECC_FRONTEND_H

#include "ast.h"
#include "ir.h"

typedef struct FrontOptions {
    const char *const *defs; /* "E=64": values for dims, consts and dtypes of the file */
    int ndefs;
    const char *mesh;       /* "data=2,expert=4", NULL: the source's */
    const char *import_dir; /* where `import "x.moe"` looks; NULL: beside the file */
} FrontOptions;

/* Reads, parses and lowers a file. The module is at phase ANNOTATED and owns its names; NULL after diagnostics. */
Module *frontend_lower(Arena *a, const char *path, const FrontOptions *opt);
/* Reads and parses only. NULL after diagnostics. */
Ast *frontend_parse(Arena *a, const char *path);
/* The bytes of a regular file of at most AST_MAX_BYTES, and a NUL; NULL after a diagnostic. */
char *frontend_read_file(Arena *a, const char *path, size_t *bytes);

#endif
