/* codegen.h: from a PLANNED module to C text, and from C text to a binary; the folder's one public header. */
#ifndef MOECC_CODEGEN_H
#define MOECC_CODEGEN_H

#include "ir.h"

typedef struct BuildOptions {
    const char *cc;    /* the C compiler; NULL: $CC, else "cc" */
    const char *march; /* of the binary; NULL: "native" */
    bool debug;        /* -g, and the C file stays beside the output as OUT.c */
    bool verbose;      /* show the command on stderr before it runs */
    bool show_only;    /* show the command and do not run it */
} BuildOptions;

/* Whether targets.def has such a row ("cpu"). */
bool codegen_has_target(const char *target);
/* The program text for a target; m must be PLANNED. The text defines `moe_program` (runtime/moe_rt.h) and holds user
 * names only in comments and escaped strings. */
char *codegen_emit(const Module *m, const char *target, Arena *a);
/* Compiles and links the text against libmoert.a. The output appears complete or not at all. false after a diagnostic
 * for what the user can mend (no compiler, unwritable output); text that the compiler rejects is a compiler bug. */
bool codegen_build(const char *c_text, const char *out_path, const BuildOptions *opt);
/* Writes text to a file, "-" for stdout; temp + rename. false after a diagnostic. */
bool codegen_write_file(const char *path, const char *text);

#endif
