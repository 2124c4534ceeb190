/* interpret.h: `moecc run`: a function of a module on numpy files, in the reference interpreter. */
#ifndef MOECC_INTERPRET_H
#define MOECC_INTERPRET_H

#include "ir.h"

typedef struct InterpretOptions {
    const char *entry;     /* name of the function */
    const char *const *in; /* "name=file.npy", one an argument */
    int nin;
    const char *out; /* folder for the results, name.npy each; created */
    EvalOptions eval;
} InterpretOptions;

/* Variables start as their initializers say, with the same draws as the binary's. false after a message. */
bool interpret(const Module *m, const InterpretOptions *opt, Arena *a);

#endif
