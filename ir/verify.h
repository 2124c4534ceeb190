/* verify.h: private to ir: what verify.c offers the reader of text forms. */
#ifndef MOECC_VERIFY_H
#define MOECC_VERIFY_H

#include "ir.h"

/* What is wrong with a type by itself, whatever its sharding: labels and sizes. NULL or a sentence in `a`. */
const char *type_verify_shape(const Type *t, Arena *a);

#endif
