/* emit.h: what the files of an emitter share; private to codegen. */
#ifndef MOECC_EMIT_H
#define MOECC_EMIT_H

#include "ctext.h"
#include "nest.h"

typedef struct Emit {
    const Module *m;
    Arena *arena;
    Str kernels;              /* text of the loop nests, each a function */
    Str funcs;                /* text of the IR's functions */
    int depth;                /* of indentation in funcs */
    VEC(const char *) kernel; /* texts so far; equal nests are one kernel */
    VEC(const char *) gemm;   /* rows of the tables, without the source line */
    VEC(const char *) gemm_where;
    VEC(const char *) coll;
    VEC(const char *) coll_where;
    VEC(const Inst *) loop; /* that are open, with their numbers */
    VEC(int) loop_number;
    int loops; /* numbered so far */
} Emit;

/* One line of an IR function. */
void emit_line(Emit *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* C expression, of type pointer, for where a value lies. */
const char *emit_pointer(Emit *e, const Value *v);
/* Number of a table row; equal rows are one. */
int emit_row(Emit *e, const char *row, bool coll, Loc loc);
/* Runs a nest for the instruction. */
void emit_nest(Emit *e, const Inst *inst);
void emit_copy(Emit *e, const char *to, const char *from, int64_t bytes);

/* An einsum as calls of the library (gemm.c); false when loops do better, and then nothing is emitted. */
bool emit_gemm(Emit *e, const Inst *inst);
/* The tables and moe_program (tables.c), from what was collected. */
void emit_tables(Emit *e, Str *out);

#endif
