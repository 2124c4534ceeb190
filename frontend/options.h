/* options.h: private to the driver: the command line as a struct. Knows nothing of passes and code generators. */
#ifndef MOECC_OPTIONS_H
#define MOECC_OPTIONS_H

#include "interpret.h"
#include "ir.h"

typedef struct Options {
    const char *command;                /* "compile", "check", "run", "diff" */
    const char *input, *other, *output; /* `other`: the second of diff */
    const char *target, *mesh, *topology;
    const char *emit, *plan;
    const char *explain, *show;         /* names of values or variables */
    const char *max_memory, *max_bytes; /* budgets, as written */
    const char *forbid;
    const char *start_at, *stop_after, *dump_after;
    const char *level; /* of optimization */
    bool debug, check_passes, list_passes, help, version, verbose, show_only, time_passes, verify_each, no_fuse;
    bool explain_onehot;
    InterpretOptions run; /* of "run" */
    VEC(const char *) defs, in;
} Options;

/* 0, or the exit code after a message. */
int options_parse(Options *o, int argc, char **argv, Arena *arena);
void options_help(FILE *out, Arena *arena);
/* Says what is wrong with the command line, and the option that was probably meant; returns EXIT_USAGE. */
int options_usage(const char *why, const char *what, Arena *arena);
/* "4096", "1.5GiB", "200MB" to bytes; -1 when it is no such number. */
int64_t options_bytes(const char *text);

#endif
