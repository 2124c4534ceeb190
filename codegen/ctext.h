/* ctext.h: small pieces of C text, for every file that emits; private to codegen. */
#ifndef MOECC_CTEXT_H
#define MOECC_CTEXT_H

#include "ir.h"
#include "support/str.h"

/* A number of element type t, exact. */
const char *const_text(Arena *a, DType t, double value);
/* Position of the device along mesh axes, from w->coord; NULL: always 0. */
const char *index_text(Arena *a, const Mesh *m, const AxisList *axes);
/* Global index of the first element of the device's part of an axis, NULL: 0. */
const char *offset_text(Arena *a, const Mesh *m, const Dim *d);
/* x + y * times; either may be NULL (0). */
const char *dyn_add(Arena *a, const char *x, const char *y, int64_t times);
/* C storage type, and the type of a temporary. */
const char *storage_type(DType t);
const char *temp_type(DType t);
/* User text for a `//` comment: no line breaks, no backslash, printable. */
void str_add_comment(Str *s, const char *text);

#endif
