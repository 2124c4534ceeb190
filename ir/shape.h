/* shape.h: private to ir: what build.c asks of shape.c. */
#ifndef MOECC_SHAPE_H
#define MOECC_SHAPE_H

#include "ir.h"

/* The types of an instruction's results, unsharded, from its operands, attributes and body. */
typedef struct Shapes {
    Type *out;
    int nout;
} Shapes;

/* NULL and *shapes in `arena`; or a sentence that names labels and sizes, and *shapes is not set. Trusts nothing but
 * the pointers: attributes may be missing or absurd. */
const char *inst_shapes(Arena *arena, const Inst *inst, Shapes *shapes);

#endif
